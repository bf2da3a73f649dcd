//! What the world knows of every message by itself: what was promised, written,
//! made durable, called and taken. The engine is never asked for it, so the two
//! can be compared. A broken invariant panics with its number.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use pushyard::clock::{Now, Utc};
use pushyard::model::{
    Body, DeliveryId, Durability, Excluded, Message, MessageId, OnAmbiguous, Progress, Reason,
    Recipient, State, gone_key,
};
use pushyard::store::Record;
use pushyard_providers::{Address, Dedup, Outcome};

/// Fails with the number of an invariant of docs/semantics.md, "Invariants".
macro_rules! hold {
    ($number:literal, $condition:expr, $($text:tt)+) => {
        assert!($condition, "invariant {}: {}", $number, format_args!($($text)+))
    };
}
pub(super) use hold;

/// A world has no more.
const PROVIDERS: u32 = 4;

/// A (provider, address) pair.
pub(super) type Pair = (u16, u8);

/// A message.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) body: Arc<Body>,
    pub(super) durable: bool,
    /// Sent to all of a tier.
    pub(super) wide: bool,
    /// The backend was told so.
    pub(super) accepted: bool,
    /// A memory message that has lived through a crash: nothing is promised.
    pub(super) outside: bool,
    pub(super) deliveries: Vec<Delivery>,
}

/// A delivery.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    pub(super) written: Option<Arc<Progress>>,
    pub(super) durable: Option<Arc<Progress>>,
    /// Copies that vendors took.
    copies: u32,
    /// Attempts whose end is unknown, to us or to the disk that survived.
    excuses: u32,
    /// Calls whose outcome is not durable yet.
    recent: Vec<Recent>,
    /// Candidates that may have accepted a copy.
    possible: Vec<Pair>,
    /// Candidates called since the process began.
    pub(super) tried: BTreeSet<Pair>,
    gone: BTreeSet<Pair>,
    pub(super) cancelled: Cancelled,
    /// The end that was last told of it.
    told: Option<State>,
    /// Since when nothing has happened to it.
    pub(super) idle_since: Option<Instant>,
}

#[derive(Debug)]
struct Recent {
    n: u32,
    excused: bool,
}

/// Whether a backend has taken a delivery back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Cancelled {
    #[default]
    No,
    /// While it was in flight: a flag, which a crash forgets.
    Flagged,
    Told,
}

impl Delivery {
    pub(super) fn settled(&self) -> bool {
        self.written.as_ref().is_some_and(|p| p.state.settled())
    }

    fn replayed_at(&self) -> Option<Utc> {
        self.written.as_ref().and_then(|progress| progress.replayed_at)
    }

    /// Whether it failed at once because nobody could serve it, and nobody has
    /// had it tried again.
    fn born_failed(&self, recipient: &Recipient) -> bool {
        recipient.no_route && self.written.is_none()
    }

    fn tries(&self) -> u32 {
        self.written.as_ref().map_or(0, |p| p.tries)
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) messages: BTreeMap<MessageId, Entry>,
    /// Unsettled deliveries of accepted messages.
    pub(super) live: BTreeSet<DeliveryId>,
    /// By (client, address, collapse key): the newest message that was called for.
    newest: BTreeMap<(String, String, String), MessageId>,
    /// Ends that were told, by state.
    pub(super) told: BTreeMap<State, u64>,
    /// Whether the world has crashed: counters restart with the process.
    pub(super) restarted: bool,
    pub(super) max_attempts: u16,
    /// Routes that send to all of a tier.
    pub(super) wide: BTreeSet<String>,
    /// Addresses that a vendor gave up, by key, and since when.
    gone: BTreeMap<u128, Utc>,
    /// All that ever were: a delivery that left one does not come back to it.
    ever_gone: BTreeMap<u128, Utc>,
}

impl Books {
    pub(super) fn entry(&self, id: MessageId) -> &Entry {
        self.messages.get(&id).expect("the engine names only messages that were submitted")
    }

    /// Whether a message goes to all of a tier.
    pub(super) fn is_wide(&self, message: &Message) -> bool {
        self.wide.contains(&*message.route) && message.on_ambiguous == OnAmbiguous::Resend
    }

    pub(super) fn delivery(&self, id: DeliveryId) -> &Delivery {
        &self.entry(id.message()).deliveries[usize::from(id.n())]
    }

    /// When a delivery's life begins, and when no attempt begins any more.
    pub(super) fn life(&self, id: DeliveryId) -> (Utc, Utc) {
        let message = self.entry(id.message()).body.message();
        let (from, until) = (message.not_before(), message.dispatch_until());
        let replayed = self.delivery(id).replayed_at();
        replayed.map_or((from, until), |at| (at, at.plus(until.since(from))))
    }

    fn delivery_mut(&mut self, id: DeliveryId) -> &mut Delivery {
        let entry = self.messages.get_mut(&id.message()).expect("it was submitted");
        &mut entry.deliveries[usize::from(id.n())]
    }

    /// A record was handed to the disk.
    pub(super) fn written(&mut self, record: &Record, now: Now) {
        match record {
            Record::Accept(body) => {
                let deliveries = body.message().recipients.iter().map(|_| Delivery::default());
                let deliveries = deliveries.collect();
                let body = body.clone();
                let id = body.message().id;
                let (durable, accepted, outside) = (false, false, false);
                let message = body.message();
                let wide = self.is_wide(message);
                let entry = Entry { body, durable, wide, accepted, outside, deliveries };
                self.messages.insert(id, entry);
            }
            Record::Progress(id, progress) => self.progress(*id, progress, now),
            Record::Settled(id) => {
                let entry = self.entry(*id);
                for (n, delivery) in entry.deliveries.iter().enumerate() {
                    let born_failed = delivery.born_failed(&entry.body.message().recipients[n]);
                    hold!(3, delivery.settled() || born_failed, "{id} is closed with {n} open");
                }
            }
            Record::Gone(gone) => {
                self.gone.insert(gone.key(), gone.at);
                self.ever_gone.insert(gone.key(), gone.at);
            }
            Record::Healed(key) => {
                hold!(8, self.gone.remove(key).is_some(), "what is healed was gone");
            }
            Record::Intent(..)
            | Record::Note(..)
            | Record::Event(..)
            | Record::Device(..)
            | Record::Erase(..) => {}
        }
    }

    fn progress(&mut self, id: DeliveryId, progress: &Arc<Progress>, now: Now) {
        let entry = self.entry(id.message());
        let message = entry.body.message();
        let born_failed = message.recipients[usize::from(id.n())].no_route;
        hold!(3, !born_failed || progress.replayed_at.is_some(), "{id} was born failed");
        let never = message.now_or_never();
        let before = self.delivery(id).written.clone();
        if let Some(before) = &before {
            let dead = matches!(before.state, State::Failed | State::Expired | State::Unknown);
            let anew = dead && progress.replayed_at > before.replayed_at;
            let received = progress.state == State::Delivered;
            // The others of the tier are still to come.
            let same = entry.wide && (before.state, progress.state) == (State::Sent, State::Sent);
            let goes_on = !before.state.settled() || received || anew || same;
            hold!(4, goes_on, "{id} was {:?}, then {progress:?}", before.state);
            hold!(23, progress.tries >= before.tries, "{id} forgets attempts");
        }
        let most = self.max_attempts;
        explain(id, progress, most, never, entry.wide);
        let delivery = self.delivery_mut(id);
        if progress.replayed_at > delivery.replayed_at() {
            delivery.live_anew();
        }
        delivery.written = Some(progress.clone());
        delivery.idle_since = Some(now.instant);
        if progress.state.settled() {
            self.live.remove(&id);
        } else if progress.replayed_at.is_some() {
            self.live.insert(id);
        }
    }

    /// A record is on disk.
    pub(super) fn durable(&mut self, record: &Record) {
        match record {
            Record::Accept(body) => {
                let entry = self.messages.get_mut(&body.message().id);
                entry.expect("it was written").durable = true;
            }
            Record::Progress(id, progress) => {
                let delivery = self.delivery_mut(*id);
                delivery.durable = Some(progress.clone());
                delivery.recent.retain(|recent| recent.n > progress.tries);
            }
            Record::Settled(_)
            | Record::Intent(..)
            | Record::Note(..)
            | Record::Event(..)
            | Record::Gone(_)
            | Record::Healed(_)
            | Record::Device(..)
            | Record::Erase(..) => {}
        }
    }

    /// The backend is told that its message was taken.
    pub(super) fn accepted(&mut self, id: MessageId, now: Now) {
        let entry = self.messages.get_mut(&id).expect("it was written");
        let memory = entry.body.message().durability == Durability::Memory;
        hold!(1, entry.durable || memory, "{id} is accepted before it is on disk");
        entry.accepted = true;
        for (n, delivery) in entry.deliveries.iter_mut().enumerate() {
            delivery.idle_since = Some(now.instant);
            if !entry.body.message().recipients[n].no_route {
                self.live.insert(id.delivery(n as u16));
            }
        }
    }

    /// Whether an address of a delivery has ever been gone at a provider.
    pub(super) fn has_been_gone(&self, id: DeliveryId, provider: &str, address: u8) -> bool {
        let message = self.entry(id.message()).body.message();
        let to = &message.recipients[usize::from(id.n())].addresses[usize::from(address)];
        let at = self.ever_gone.get(&gone_key(&message.client, provider, to));
        at.is_some_and(|at| to.registered_at().is_none_or(|registered| registered < at.ms()))
    }

    /// A call begins.
    pub(super) fn called(
        &mut self,
        id: DeliveryId,
        pair: Pair,
        provider: &str,
        dedup: Dedup,
        now: Now,
    ) {
        let entry = self.entry(id.message());
        let message = entry.body.message();
        let delivery = self.delivery(id);
        let memory = message.durability == Durability::Memory;
        hold!(2, entry.durable || memory, "{id} is called for before it is on disk");
        // A device may say that it has it while the call's intent is written.
        let sent = delivery.written.as_ref().is_some_and(|p| p.state == State::Sent);
        hold!(4, !delivery.settled() || (entry.wide && sent), "{id} is called for after its end");
        hold!(8, now.utc < self.life(id).1, "{id} is called for after its life");
        hold!(8, delivery.cancelled == Cancelled::No, "{id} is called for after cancel");
        hold!(8, !delivery.gone.contains(&pair), "{id} is called for at a gone address");
        let to = &message.recipients[usize::from(id.n())].addresses[usize::from(pair.1)];
        let gone = self
            .gone
            .get(&gone_key(&message.client, provider, to))
            .filter(|at| to.registered_at().is_none_or(|registered| registered < at.ms()));
        hold!(8, gone.is_none(), "{id} is called for at an address that is gone");
        if message.on_ambiguous == OnAmbiguous::Stop && !entry.outside {
            let only_repeats = dedup == Dedup::Full && delivery.possible.iter().all(|p| *p == pair);
            hold!(
                7,
                delivery.possible.is_empty() || only_repeats,
                "{id} goes to {pair:?} after {:?} may have accepted it",
                delivery.possible
            );
        }
        self.keep_order(id, pair);
        let delivery = self.delivery_mut(id);
        let n = delivery.tries() + 1;
        delivery.recent.push(Recent { n, excused: false });
        delivery.possible.push(pair);
        delivery.tried.insert(pair);
    }

    fn keep_order(&mut self, id: DeliveryId, (_, address): Pair) {
        let message = self.entry(id.message()).body.clone();
        let message = message.message();
        let Some(key) = &message.push.collapse_key else { return };
        let to = &message.recipients[usize::from(id.n())].addresses[usize::from(address)];
        let slot = slot(&message.client, to, key);
        let replayed = self.delivery(id).replayed_at().is_some();
        let newest = self.newest.entry(slot).or_insert(message.id);
        if replayed && *newest > message.id {
            // An operator wanted it.
            return;
        }
        hold!(19, *newest <= message.id, "{} follows {newest} onto its device", message.id);
        *newest = message.id;
    }

    /// A vendor took a copy.
    pub(super) fn copied(&mut self, id: DeliveryId) {
        let entry = self.entry(id.message());
        let outside = entry.outside;
        let addresses = &entry.body.message().recipients[usize::from(id.n())].addresses;
        // To each address through each provider.
        let candidates = if entry.wide { addresses.len() as u32 * PROVIDERS } else { 1 };
        let delivery = self.delivery_mut(id);
        delivery.copies += 1;
        hold!(
            6,
            outside || delivery.copies <= candidates * (1 + delivery.excuses),
            "{id} has {} copies with {} unknown ends",
            delivery.copies,
            delivery.excuses
        );
    }

    /// The engine is told how a call ended.
    pub(super) fn answered(&mut self, id: DeliveryId, pair: Pair, outcome: Outcome, now: Now) {
        let delivery = self.delivery_mut(id);
        delivery.idle_since = Some(now.instant);
        match outcome {
            Outcome::Accepted => {}
            Outcome::Ambiguous => {
                delivery.excuses += 1;
                if let Some(last) = delivery.recent.last_mut() {
                    last.excused = true;
                }
            }
            Outcome::AddressGone
            | Outcome::MessageInvalid
            | Outcome::Throttled
            | Outcome::Unavailable
            | Outcome::AuthFailed
            | Outcome::Misconfigured => {
                delivery.possible.pop();
                if outcome == Outcome::AddressGone {
                    delivery.gone.insert(pair);
                }
            }
        }
    }

    /// A backend was told that its message was taken back.
    pub(super) fn cancelled(&mut self, id: MessageId) {
        let Some(entry) = self.messages.get_mut(&id) else { return };
        for delivery in &mut entry.deliveries {
            // Any other was in flight when the engine answered, or had ended by itself.
            let cancelled = delivery.written.as_ref().is_some_and(|p| p.state == State::Cancelled);
            delivery.cancelled = if cancelled { Cancelled::Told } else { Cancelled::Flagged };
        }
    }

    /// Everything that was not durable is lost.
    pub(super) fn crashed(&mut self, gone: BTreeMap<u128, Utc>, now: Now) {
        self.restarted = true;
        self.gone = gone;
        self.live.clear();
        self.messages.retain(|_, entry| entry.durable);
        for (id, entry) in &mut self.messages {
            entry.outside |= entry.body.message().durability == Durability::Memory;
            for (n, delivery) in entry.deliveries.iter_mut().enumerate() {
                delivery.crashed(now);
                let born_failed = delivery.born_failed(&entry.body.message().recipients[n]);
                if !born_failed && !delivery.settled() {
                    self.live.insert(id.delivery(n as u16));
                }
            }
        }
        self.newest.clear();
        let sent = |d: &Delivery| d.durable.as_ref().is_some_and(|p| p.state == State::Sent);
        for (id, entry) in &self.messages {
            let message = entry.body.message();
            let Some(key) = &message.push.collapse_key else { continue };
            for (recipient, _) in
                message.recipients.iter().zip(&entry.deliveries).filter(|(_, d)| sent(d))
            {
                for to in &recipient.addresses {
                    self.newest.insert(slot(&message.client, to, key), *id);
                }
            }
        }
    }

    /// The end of a delivery is told to the outside.
    pub(super) fn told(&mut self, id: DeliveryId, state: State, reason: Option<Reason>) {
        *self.told.entry(state).or_default() += 1;
        // A receipt or a replay has taken the place of what was told before.
        if let Some(before) = self.delivery_mut(id).told.replace(state)
            && let Some(count) = self.told.get_mut(&before)
        {
            *count -= 1;
        }
        self.told.retain(|_, count| *count > 0);
        let entry = self.entry(id.message());
        if self.delivery(id).born_failed(&entry.body.message().recipients[usize::from(id.n())]) {
            hold!(23, reason == Some(Reason::NoRoute), "{id} was born failed");
            return;
        }
        let memory = entry.body.message().durability == Durability::Memory;
        let delivery = self.delivery(id);
        let known = if memory { &delivery.written } else { &delivery.durable };
        let same = known.as_ref().is_some_and(|p| (p.state, p.reason) == (state, reason));
        hold!(23, same, "{id} is told to be {state:?} {reason:?}, but {known:?} is on disk");
    }
}

impl Delivery {
    /// What was tried before a replay is history.
    fn live_anew(&mut self) {
        (self.copies, self.excuses) = (0, 0);
        self.recent.clear();
        self.possible.clear();
        self.tried.clear();
        self.gone.clear();
        self.cancelled = Cancelled::No;
    }

    fn crashed(&mut self, now: Now) {
        self.excuses += self.recent.iter().filter(|recent| !recent.excused).count() as u32;
        self.recent.clear();
        self.written = self.durable.clone();
        self.idle_since = Some(now.instant);
        self.tried.clear();
        self.gone.clear();
        if self.cancelled == Cancelled::Flagged {
            self.cancelled = Cancelled::No;
        }
    }
}

fn slot(client: &str, to: &Address, key: &str) -> (String, String, String) {
    (client.to_owned(), to.get("token").unwrap_or_default().to_owned(), key.to_owned())
}

/// A record explains itself.
fn explain(id: DeliveryId, p: &Progress, most: u16, never: bool, wide: bool) {
    let last = p.attempts.last();
    let outcome = last.map(|attempt| attempt.outcome);
    hold!(23, p.tries >= p.attempts.len() as u32, "{id}: {p:?}");
    hold!(23, p.attempts.is_sorted_by(|a, b| a.n < b.n), "{id}: {p:?}");
    hold!(23, last.is_none_or(|last| last.n == p.tries), "{id}: {p:?}");
    if p.tries as usize == p.attempts.len() && p.replayed_at.is_none() {
        let unknown = p.attempts.iter().filter(|a| a.outcome == Outcome::Ambiguous).count();
        hold!(23, usize::from(p.ambiguous) == unknown, "{id}: {p:?}");
    }
    let fits = match (p.state, p.reason) {
        (State::Sent, None) if wide => p.attempts.iter().any(|attempt| {
            attempt.outcome == Outcome::Accepted && p.provider.as_ref() == Some(&attempt.provider)
        }),
        (State::Sent, None) => {
            outcome == Some(Outcome::Accepted)
                && p.provider == last.map(|last| last.provider.clone())
        }
        (State::Failed, Some(Reason::Invalid)) => outcome == Some(Outcome::MessageInvalid),
        // Another delivery may have found out.
        (State::Failed, Some(Reason::Unreachable)) => {
            let known =
                |excluded: &Excluded| matches!(excluded, Excluded::Candidate { gone, .. } if *gone);
            outcome == Some(Outcome::AddressGone) || p.tries == 0 || p.excluded.iter().any(known)
        }
        (State::Failed, Some(Reason::AttemptsExhausted)) => p.counted >= most,
        (State::Failed, Some(Reason::Poison)) => p.alone >= 3,
        (State::Expired, Some(Reason::Ttl)) => true,
        // A device has said so.
        (State::Delivered, None) => true,
        (State::Cancelled, Some(Reason::Superseded | Reason::CancelledByClient)) => true,
        (State::Unknown, Some(Reason::Ambiguous)) => p.ambiguous > 0,
        (State::Waiting, Some(Reason::Backoff)) => p.next_at.is_some() && p.tries > 0,
        (State::Waiting, Some(Reason::Parked | Reason::Throttled)) => {
            p.next_at.is_none() && p.tries > 0
        }
        // On its way to another candidate.
        (State::Waiting, None) => p.tries > 0 || p.replayed_at.is_some(),
        // An intent was taken back.
        (State::Queued, None) => p.tries == 0,
        _ => false,
    };
    hold!(23, fits, "{id}: {p:?}");
    hold!(23, !p.state.settled() || p.next_at.is_none(), "{id}: {p:?}");
    let parked = matches!(p.reason, Some(Reason::Parked | Reason::Throttled));
    hold!(3, !(never && parked) || p.tries > 0, "{id}: {p:?}");
    for excluded in &p.excluded {
        let explained = match excluded {
            Excluded::Kind(kind) => p.attempts.iter().any(|a| a.kind == *kind),
            Excluded::Candidate { gone: true, .. } => true,
            Excluded::Candidate { provider, .. } => {
                p.attempts.iter().any(|a| a.provider == *provider)
            }
        };
        hold!(23, explained || p.tries as usize > p.attempts.len(), "{id}: {p:?}");
    }
}
