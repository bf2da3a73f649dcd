//! A message comes in: refused, or written, then turned into deliveries.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashSet;
use pushyard_providers::{Address, Priority};

use super::super::deliveries::{EntryRef, Place, StubRef, Track};
use super::super::fair::{End, providers};
use super::super::{Rejected, retry_after};
use super::suspects::is_poison;
use super::{AfterFlush, Effect, Engine, Fact, Token, weight};
use crate::clock::{Now, Utc};
use crate::model::{
    Attempt, Body, DeliveryId, Durability, Excluded, MessageId, OnAmbiguous, Progress, Reason,
    Recipient, State,
};
use crate::routing::{KeyIndex, ProviderIndex, ProviderSettings, Shape};
use crate::store::{Health, Intent, Record, Recovered};

/// Accepts that may wait for a commit.
const MAX_ACCEPTING: usize = 1024;
/// The oldest of them may wait this long before new ones are refused.
const LONGEST_ACCEPT: Duration = Duration::from_secs(1);

/// A client that an operator has paused asks again after this long.
const PAUSED_CLIENT: Duration = Duration::from_secs(30);

impl Engine {
    pub(super) fn submitted(
        &mut self,
        token: Token,
        body: Arc<Body>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let client = self.client(&body.message().client);
        let deliveries = body.message().recipients.iter().filter(|r| !r.no_route).count() as u64;
        if self.orders.paused_clients.contains(&body.message().client) {
            effects.push(Effect::Rejected(token, Rejected::Overloaded(PAUSED_CLIENT)));
            return;
        }
        let held = self.clients[client.0 as usize].unsettled;
        if let Err(rejected) = self.admit(deliveries, held, now) {
            effects.push(Effect::Rejected(token, rejected));
            return;
        }
        // Counted from here on, so that what waits for the disk cannot overrun the bound.
        self.clients[client.0 as usize].unsettled += deliveries;
        let record = self.write(Record::Accept(body.clone()), effects);
        self.announce_born_failed(client, body.message(), now, effects);
        // One that may take an older one's place must not overtake it on its way
        // to the disk.
        let overtakes = self.accepting > 0 && body.message().push.collapse_key.is_some();
        if body.message().durability == Durability::Memory && !overtakes {
            effects.push(Effect::Accepted(token));
            self.load(&body, now, effects);
        } else {
            self.accepting += 1;
            self.oldest_accept.get_or_insert(now);
            self.unflushed.push_back((record, AfterFlush::Accept(token, body)));
        }
    }

    /// Whether anything new is written at all.
    pub(super) fn takes_more(&self) -> Result<(), Rejected> {
        if self.draining {
            return Err(Rejected::ShuttingDown);
        }
        match self.store {
            Health::Writable => Ok(()),
            Health::Full | Health::Broken => {
                Err(Rejected::StoreUnavailable(Duration::from_secs(5)))
            }
        }
    }

    /// Whether so many more deliveries may be taken; what is refused here was
    /// never accepted, and what was accepted is never dropped to make room.
    pub(super) fn admit(&self, more: u64, of_client: u64, now: Now) -> Result<(), Rejected> {
        self.takes_more()?;
        let slow = self.oldest_accept.is_some_and(|since| {
            now.instant.saturating_duration_since(since.instant) > LONGEST_ACCEPT
        });
        if self.accepting >= MAX_ACCEPTING || slow {
            return Err(Rejected::Overloaded(Duration::from_secs(1)));
        }
        let rate = f64::from(self.drained.counts(now.instant).successes) / 10.0;
        let all: u64 = self.clients.iter().map(|client| client.unsettled).sum();
        if all + more > self.limits.max_unsettled {
            let excess = all + more - self.limits.max_unsettled;
            return Err(Rejected::QueueFull(retry_after(excess, rate)));
        }
        if of_client + more > self.limits.max_client_unsettled {
            let excess = of_client + more - self.limits.max_client_unsettled;
            return Err(Rejected::ClientQueueFull(retry_after(excess, rate)));
        }
        Ok(())
    }

    /// A message is on disk: its deliveries begin to live.
    pub(super) fn load(&mut self, body: &Arc<Body>, now: Now, effects: &mut Vec<Effect>) {
        let message = body.message();
        for (n, _) in message.recipients.iter().enumerate().filter(|(_, r)| r.no_route) {
            effects.push(Effect::Tell(born_failed(message.id.delivery(n as u16), &message.route)));
        }
        if message.recipients.iter().all(|recipient| recipient.no_route) {
            // There is nothing to wait for.
            self.write(Record::Settled(message.id), effects);
            return;
        }
        let client = self.client(&message.client);
        let entry = self.deliveries.add_message(message, client);
        self.keep_body(entry, body);
        let mut ended = Vec::new();
        for (n, recipient) in message.recipients.iter().enumerate() {
            if recipient.no_route {
                continue;
            }
            let at = self.add(entry, n as u16, body, recipient, None, now, effects);
            match self.unreachable(at, recipient, now) {
                // Only now, because the message is closed with the last of its deliveries.
                Some(end) => ended.push((at, end)),
                None => self.enter(at, End::Back, now),
            }
        }
        for (at, (state, reason)) in ended {
            self.settle(at, state, Some(reason), now, effects);
        }
    }

    /// Takes a delivery in, in no list yet.
    #[expect(clippy::too_many_arguments, reason = "all of them are of different types")]
    pub(super) fn add(
        &mut self,
        entry: EntryRef,
        n: u16,
        body: &Arc<Body>,
        recipient: &Recipient,
        track: Option<Box<Track>>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> StubRef {
        let gone = self.gone_candidates(&body.message().client, recipient, now, effects);
        let excluded = track.as_ref().map_or(&[][..], |track| &track.progress.excluded);
        let shape = self.shape(body, recipient, excluded, &gone, now);
        let shape = self.lanes.join(shape);
        let at = self.deliveries.add_delivery(entry, n, shape);
        self.deliveries.stubs[at].track = track;
        self.note_gone(at, &gone);
        self.collapse.join(at, body.message(), recipient);
        at
    }

    /// The candidates that are left to a delivery.
    pub(super) fn shape(
        &mut self,
        body: &Body,
        recipient: &Recipient,
        excluded: &[Excluded],
        gone: &[(ProviderIndex, u8)],
        now: Now,
    ) -> Shape {
        let catalog = self.catalog.clone();
        let out = |provider: ProviderIndex, address: u8| {
            let settings = &catalog.provider(provider).settings;
            // Those that may come back are looked at when they are planned.
            let for_good = |excluded: &Excluded| match excluded {
                Excluded::Kind(_) => true,
                Excluded::Candidate { until, .. } => until.is_none(),
            };
            gone.contains(&(provider, address))
                || excluded.iter().any(|one| for_good(one) && bars(one, settings, address))
        };
        let message = body.message();
        let (route, at_most_once) = (&message.route, message.on_ambiguous == OnAmbiguous::Stop);
        self.forget_parts(now);
        let shape = Shape::of(&catalog, &mut self.board, route, recipient, out, now.instant);
        Shape { at_most_once, ..shape }
    }

    /// Parts come with addresses, so that there may be any number of them.
    fn forget_parts(&mut self, now: Now) {
        if !self.board.is_crowded(now.instant) {
            return;
        }
        let shapes = self.lanes.all().flat_map(|lane| &lane.shape.candidates);
        let candidates = shapes.chain(self.flights.values().map(|flight| &flight.candidate));
        let used: HashSet<KeyIndex> = candidates.flat_map(|c| c.keys.iter().copied()).collect();
        self.board.drop_parts(&|key| used.contains(&key), now.instant);
    }

    /// Puts a delivery where it waits for its turn.
    pub(super) fn enter(&mut self, at: StubRef, end: End, now: Now) {
        let not_before = self.deliveries.not_before(at);
        if not_before > now.utc {
            if let Some(track) = &mut self.deliveries.stubs[at].track {
                track.progress.next_at = Some(not_before);
            }
            self.deliveries.wait(at, not_before);
            return;
        }
        self.freshen(at, None, now);
        self.deliveries.stubs[at].place = Place::Lane;
        self.lanes.push(&mut self.deliveries, at, end);
        let shape = self.lanes.lane(self.deliveries.stubs[at].shape).shape.clone();
        for provider in providers(&shape) {
            self.dirty[provider.at()] = true;
        }
    }

    /// Keeps a body in memory while there is room for it.
    pub(super) fn keep_body(&mut self, entry: EntryRef, body: &Arc<Body>) {
        let memory_only = body.message().durability == Durability::Memory;
        if self.bodies < self.settings.body_cache || memory_only {
            self.bodies += weight(body);
            self.deliveries.entry_mut(entry).body = Some(body.clone());
        }
    }

    /// A message was found at start.
    pub(super) fn recovered(&mut self, found: Box<Recovered>, now: Now, effects: &mut Vec<Effect>) {
        let Recovered { message, mut progress, intents } = *found;
        let body = Body::new(message);
        let message = body.message();
        let client = self.client(&message.client);
        let mut entry = None;
        let mut found: Vec<StubRef> = Vec::new();
        for (n, recipient) in message.recipients.iter().enumerate() {
            let n = n as u16;
            let known = progress.iter().position(|(place, _)| *place == n);
            let known = known.map(|at| progress.swap_remove(at).1);
            // One that was born failed may have been replayed.
            if known.as_ref().map_or(recipient.no_route, |known| known.state.settled()) {
                continue;
            }
            let entry = *entry.get_or_insert_with(|| {
                let entry = self.deliveries.add_message(message, client);
                self.keep_body(entry, &body);
                entry
            });
            self.clients[client.0 as usize].unsettled += 1;
            let track = known.map(|known| Box::new(Track::new(known)));
            let at = self.add(entry, n, &body, recipient, track, now, effects);
            self.deliveries.note_replay(at, true);
            found.push(at);
        }
        if entry.is_none() {
            // All had settled, and the crash came before that was noted.
            self.write(Record::Settled(message.id), effects);
        }
        // Only now, because the message is closed with the last of its deliveries.
        for at in found {
            let stub = &self.deliveries.stubs[at];
            let tries = stub.track.as_ref().map_or(0, |track| track.progress.tries);
            let cut = intents.iter().find(|(n, intent)| *n == stub.n && intent.n > tries);
            match cut {
                Some((n, intent)) => {
                    let recipient = &message.recipients[usize::from(*n)];
                    self.cut_by_crash(at, intent, recipient, now, effects);
                }
                // It was about to be repeated where the copy would have been dropped;
                // whether that vendor still knows the copy cannot be told any more.
                None if self.deliveries.uncertain(at) => self.lapse(at, now, effects),
                None => {
                    let n = usize::from(self.deliveries.stubs[at].n);
                    match self.unreachable(at, &message.recipients[n], now) {
                        Some((state, reason)) => {
                            self.settle(at, state, Some(reason), now, effects);
                        }
                        None => self.resume(at, now),
                    }
                }
            }
        }
    }

    /// Goes on where the process before stopped.
    fn resume(&mut self, at: StubRef, now: Now) {
        if self.set_apart(at) {
            return;
        }
        let next_at = self.deliveries.stubs[at].track.as_ref().and_then(|t| t.progress.next_at);
        match next_at.filter(|next_at| *next_at > now.utc) {
            Some(next_at) => self.deliveries.wait(at, next_at),
            None => self.enter(at, End::Back, now),
        }
    }

    /// An attempt was begun and its outcome is not known: the crash made it
    /// ambiguous.
    fn cut_by_crash(
        &mut self,
        at: StubRef,
        intent: &Intent,
        recipient: &Recipient,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let kind = recipient.addresses.get(usize::from(intent.address)).map(Address::kind);
        let progress = &mut self.track(at).progress;
        progress.record(Attempt {
            n: intent.n,
            provider: intent.provider.clone(),
            kind: kind.map_or("", |kind| kind.name).into(),
            address: intent.address,
            outcome: pushyard_providers::Outcome::Ambiguous,
            status: None,
            code: Some("crash".into()),
            detail: Some("the server ended before the answer came".into()),
            started_at: intent.at,
            latency_ms: 0,
        });
        progress.counted += 1;
        progress.ambiguous += 1;
        progress.crashes = progress.crashes.saturating_add(1);
        progress.alone = progress.alone.saturating_add(u8::from(intent.alone));
        let poison = is_poison(progress);
        match self.deliveries.message_of(at).policy.on_ambiguous {
            OnAmbiguous::Stop => {
                self.settle(at, State::Unknown, Some(Reason::Ambiguous), now, effects);
            }
            OnAmbiguous::Resend if poison => self.poisoned(at, now, effects),
            OnAmbiguous::Resend => {
                self.track(at).progress.state = State::Waiting;
                self.write_progress(at, now, effects);
                if !self.set_apart(at) {
                    self.enter(at, End::Back, now);
                }
            }
        }
    }

    /// A body was read back.
    pub(super) fn read(
        &mut self,
        id: MessageId,
        body: Option<&Arc<Body>>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let waiting = self.loading.take(id);
        if let (Some(body), Some(entry), false) =
            (body, self.deliveries.find(id), waiting.is_empty())
            && self.deliveries.entry(entry).body.is_none()
        {
            // Kept whatever the cache holds: a turn has come.
            self.bodies += weight(body);
            self.deliveries.entry_mut(entry).body = Some(body.clone());
        }
        let mut stale = None;
        for (at, drawn_at) in waiting {
            if let Some(provider) = drawn_at {
                self.dirty[provider.at()] = true;
            }
            let is_stale = self.is_stale(at);
            stale = stale.or(is_stale.then_some(at));
            self.deliveries.stubs[at].place = Place::Nowhere;
            match body {
                Some(_) if is_stale => self.enter(at, End::Back, now),
                Some(_) if drawn_at.is_some() => self.enter(at, End::Called, now),
                Some(_) => self.enter(at, End::Front, now),
                None => self.settle(at, State::Failed, Some(Reason::Internal), now, effects),
            }
        }
        if let Some(at) = stale.filter(|_| body.is_some()) {
            self.freshen_siblings(at, now);
            self.release_body(at);
        }
    }

    /// Lets go of a body when the cache is over its size and nobody uses it.
    pub(super) fn release_body(&mut self, at: StubRef) {
        if self.bodies <= self.settings.body_cache {
            return;
        }
        let message = self.deliveries.stubs[at].message;
        let entry = self.deliveries.entry_mut(message);
        if entry.policy.durability == Durability::Memory {
            return;
        }
        if let Some(body) = entry.body.take() {
            self.bodies = self.bodies.saturating_sub(weight(&body));
        }
    }

    /// A message's life is over.
    pub(super) fn expire(&mut self, message: EntryRef, now: Now, effects: &mut Vec<Effect>) {
        for at in self.deliveries.of_message(message) {
            // One that an operator had tried again may outlive its message.
            if self.deliveries.dispatch_until(at) <= now.utc {
                self.expire_one(at, now, effects);
            }
        }
    }

    /// A delivery's life is over.
    pub(super) fn expire_one(&mut self, at: StubRef, now: Now, effects: &mut Vec<Effect>) {
        match self.deliveries.stubs[at].place {
            // Its attempt may still be accepted; when it ends, the time is looked at.
            Place::Flight | Place::Settled | Place::Free => {}
            Place::Nowhere
            | Place::Lane
            | Place::Ready(..)
            | Place::Loading
            | Place::Timer
            | Place::Held
            | Place::Suspect => self.lapse(at, now, effects),
        }
    }

    /// A delivery may not be tried any more.
    pub(super) fn lapse(&mut self, at: StubRef, now: Now, effects: &mut Vec<Effect>) {
        let (state, reason) = if self.deliveries.uncertain(at) {
            (State::Unknown, Reason::Ambiguous)
        } else {
            (State::Expired, Reason::Ttl)
        };
        self.settle(at, state, Some(reason), now, effects);
    }

    /// What has been tried of a delivery, to be added to.
    pub(super) fn track(&mut self, at: StubRef) -> &mut Track {
        let accepted_at = self.deliveries.message_of(at).id.accepted_at();
        self.deliveries.stubs[at]
            .track
            .get_or_insert_with(|| Box::new(Track::new(Progress::queued(accepted_at))))
    }

    /// Writes a delivery's record as it stands.
    pub(super) fn write_progress(&mut self, at: StubRef, now: Now, effects: &mut Vec<Effect>) {
        let id = self.deliveries.message_of(at).id.delivery(self.deliveries.stubs[at].n);
        let progress = &mut self.track(at).progress;
        progress.at = now.utc;
        let record = Record::Progress(id, Arc::new(progress.clone()));
        self.write(record, effects);
    }

    /// The oldest delivery that waits, for each route and priority.
    pub(super) fn oldest_waiting(&self, now: Utc) -> Vec<(Arc<str>, Priority, Utc)> {
        let mut oldest = self.lanes.oldest(&self.deliveries);
        for at in self.deliveries.waiting_for_a_time() {
            let (priority, since) = (self.deliveries.priority(at), self.deliveries.not_before(at));
            if since > now {
                // Its time to be delivered has not come.
                continue;
            }
            let route = &self.lanes.lane(self.deliveries.stubs[at].shape).shape.route;
            match oldest.iter_mut().find(|(known, p, _)| known == route && *p == priority) {
                Some((.., known)) => *known = since.min(*known),
                None => oldest.push((route.clone(), priority, since)),
            }
        }
        oldest
    }
}

/// Whether what a delivery's record excludes is this provider's address.
pub(super) fn bars(excluded: &Excluded, settings: &ProviderSettings, address: u8) -> bool {
    match excluded {
        Excluded::Kind(kind) => **kind == *settings.kind,
        Excluded::Candidate { provider, address: at, .. } => {
            *provider == settings.id && *at == address
        }
    }
}

/// A delivery that no provider of its route could ever serve.
fn born_failed(delivery: DeliveryId, route: &Arc<str>) -> Fact {
    Fact::Settled {
        delivery,
        route: route.clone(),
        state: State::Failed,
        reason: Some(Reason::NoRoute),
        took: Duration::ZERO,
    }
}
