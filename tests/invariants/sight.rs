//! What the world sees of the engine's work with providers: which attempts have
//! begun, who is a canary, what is paused, and whether someone is left standing
//! before an open door. It keeps its own count of everything and asks the engine
//! only for the breakers' positions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use pushyard::clock::Now;
use pushyard::dispatch::{Effect, Engine};
use pushyard::model::{DeliveryId, Excluded, Message, MessageId, OnAmbiguous, Progress, State};
use pushyard::routing::{Cause, Key, ProviderIndex, Serves, Status};
use pushyard::store::Record;
use pushyard_providers::{Address, Answer, Outcome, Part};

use super::books::{Books, Pair, hold};
use super::traffic::Setup;
use super::vendor::TIMEOUT;

/// A ready delivery with a usable candidate is attempted within this, and again
/// as much for each of two things that must be seen first: that the provider it
/// was promised to has been full for a second, and the same of those before it.
const PROMPT: Duration = Duration::from_secs(1);
/// How often everybody is looked at.
const ROUND: Duration = Duration::from_millis(200);
/// Writing, waking and restarting take so long at most in this world.
const SLACK: Duration = Duration::from_secs(4);
/// A pause lasts up to so much of itself longer than the vendor asked for.
const THROTTLE_JITTER: f64 = 0.1;
/// What is left of the life of one that has a last try, at most.
const NEARLY_OVER: Duration = Duration::from_secs(5);
/// Between two last tries of a key.
const LAST_TRY_SPACING: Duration = Duration::from_millis(100);
/// Pauses longer than this outlive a restart.
const KEPT_PAUSE: Duration = Duration::from_secs(30);

type KeyName = (u16, Part);

/// One health key, as the world sees it.
#[derive(Debug, Default)]
struct Seen {
    canary: Option<(DeliveryId, Pair)>,
    last_canary: Option<Instant>,
    last_last_try: Option<Instant>,
    /// The vendor asked for a pause until then.
    paused: Option<Instant>,
    /// Since when it has been healthy and not paused.
    open_since: Option<Instant>,
}

/// A pace's tokens.
#[derive(Debug)]
struct Tokens {
    left: f64,
    at: Instant,
}

/// What a process must still know after a restart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Known {
    key: KeyName,
    paused_until_ms: Option<u64>,
    ejected: Option<&'static str>,
}

/// See the module.
pub(super) struct Sight {
    setup: Setup,
    keys: BTreeMap<KeyName, Seen>,
    tokens: Vec<Tokens>,
    /// Since when a provider has had a permit and a token to spare.
    free_since: Vec<Option<Instant>>,
    /// Until when the vendor wants a device left alone, and the engine may do so.
    devices: BTreeMap<(u16, String), (Instant, Instant)>,
    /// Attempts that have begun, and whether the call is out.
    flying: BTreeMap<(DeliveryId, Pair), bool>,
    /// Attempts that were recorded.
    tries: BTreeMap<DeliveryId, u32>,
    /// As last decided; the books learn of it when it is carried out.
    excluded: BTreeMap<DeliveryId, Vec<Excluded>>,
    began: Instant,
    rounded: Instant,
    /// When a route was last paused.
    last_pause: Instant,
    pub(super) draining: bool,
    /// Seen so far.
    pub(super) last_tries: u32,
    /// The process is about to crash.
    pub(super) doomed: bool,
}

impl Sight {
    pub(super) fn new(setup: &Setup, now: Now) -> Self {
        let rates = setup.catalog.providers.iter().map(|built| built.settings.rate);
        let at = now.instant;
        Self {
            keys: BTreeMap::new(),
            tokens: rates.map(|rate| Tokens { left: rate.map_or(0.0, |r| r.burst), at }).collect(),
            free_since: vec![None; setup.catalog.providers.len()],
            devices: BTreeMap::new(),
            flying: BTreeMap::new(),
            tries: BTreeMap::new(),
            excluded: BTreeMap::new(),
            began: at,
            rounded: at,
            last_pause: at,
            draining: false,
            last_tries: 0,
            doomed: false,
            setup: setup.clone(),
        }
    }

    pub(super) fn flying(&self) -> usize {
        self.flying.len()
    }

    pub(super) fn deliveries_flying(&self) -> usize {
        self.flying.keys().map(|(id, _)| id).collect::<BTreeSet<_>>().len()
    }

    pub(super) fn flies(&self, id: DeliveryId) -> bool {
        self.flying.keys().any(|(of, _)| *of == id)
    }

    /// What the engine has just decided, before it is carried out.
    pub(super) fn inspect(&mut self, effects: &[Effect], engine: &Engine, books: &Books, now: Now) {
        let mut begun: BTreeSet<u16> = BTreeSet::new();
        for effect in effects {
            match effect {
                Effect::Write(Record::Intent(id, intent)) => {
                    let provider = self.setup.catalog.by_id(&intent.provider).unwrap();
                    let message = books.entry(id.message()).body.clone();
                    let pair = (provider.0, intent.address);
                    self.begin(*id, pair, message.message(), false, engine, books, now);
                    begun.insert(provider.0);
                }
                Effect::Call(order) => {
                    let message = order.body.message();
                    let id = message.id.delivery(order.n);
                    let pair = (order.permit.provider().0, order.address);
                    self.called(id, pair, message, now);
                    match self.flying.get_mut(&(id, pair)) {
                        Some(called @ false) => *called = true,
                        Some(true) => hold!(5, false, "{id} is in flight twice"),
                        None => {
                            self.begin(id, pair, message, true, engine, books, now);
                            begun.insert(pair.0);
                        }
                    }
                }
                // Every end of an attempt is written.
                Effect::Write(Record::Progress(id, progress)) => {
                    // A device's word is written while its attempt goes on.
                    let new = self.tries.get(id) != Some(&progress.tries);
                    if progress.state != State::Delivered || new || !engine.is_in_flight(*id) {
                        let wide = books.messages.get(&id.message()).is_some_and(|e| e.wide);
                        self.land(*id, progress, wide);
                    }
                    self.excluded.insert(*id, progress.excluded.clone());
                }
                _ => {}
            }
        }
        for provider in begun {
            let index = ProviderIndex(provider);
            let lane = engine.board().lane(index);
            let allowed = engine.board().allowed(index, now.instant);
            hold!(15, lane.in_flight <= allowed, "{} of {allowed} at {provider}", lane.in_flight);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one caller, and all of them are needed")]
    fn begin(
        &mut self,
        id: DeliveryId,
        pair: Pair,
        message: &Message,
        called: bool,
        engine: &Engine,
        books: &Books,
        now: Now,
    ) {
        let wide = books.is_wide(message);
        hold!(5, wide || !self.flies(id), "{id} is in flight twice");
        hold!(8, !self.draining, "{id} begins after the drain");
        let held = engine.board().held(ProviderIndex(pair.0));
        hold!(8, held.is_none(), "{id} begins at {pair:?}, which is drained");
        self.flying.insert((id, pair), called);
        let known = books.messages.get(&id.message());
        let known = known.and_then(|entry| entry.deliveries[usize::from(id.n())].written.as_ref());
        self.tries.entry(id).or_insert(known.map_or(0, |progress| progress.tries));
        self.pay(pair.0, now.instant);
        let to = &message.recipients[usize::from(id.n())].addresses[usize::from(pair.1)];
        for name in self.names(pair.0, to) {
            let Some(key) = find(engine, &name) else { continue };
            let status = key.health.status();
            match status {
                Status::Healthy { .. } | Status::Degraded { .. } => continue,
                Status::Ejected { cause, .. } => {
                    hold!(9, cause.transient(), "{id} begins at {name:?}, {status:?}");
                    self.nobody_else(id, message, engine, books, now);
                }
                Status::Probing { .. } => {}
            }
            let seen = self.keys.entry(name.clone()).or_default();
            if matches!(status, Status::Ejected { .. }) && engine.is_last_try(id) {
                // One for memory only may be tried before the books have heard of it.
                let known = books.messages.contains_key(&id.message());
                let end = if known { books.life(id).1 } else { message.dispatch_until() };
                let left = end.since(now.utc);
                hold!(9, left <= NEARLY_OVER, "{id} has its last try {left:?} before its end");
                let before = seen.last_last_try.replace(now.instant);
                let apart = before.is_none_or(|at| now.instant >= at + LAST_TRY_SPACING);
                hold!(9, apart, "{id} follows another last try of {name:?}");
                self.last_tries += 1;
                continue;
            }
            hold!(9, seen.canary.is_none(), "{id} and {:?} are canaries of {name:?}", seen.canary);
            let spaced = seen.last_canary.is_none_or(|at| now.instant >= at + PROMPT);
            hold!(9, spaced, "{id} follows another canary of {name:?} within a second");
            (seen.canary, seen.last_canary) = (Some((id, pair)), Some(now.instant));
        }
    }

    /// A canary of an ejected key goes out only where no other candidate is usable.
    fn nobody_else(
        &self,
        id: DeliveryId,
        message: &Message,
        engine: &Engine,
        books: &Books,
        now: Now,
    ) {
        if !books.messages.contains_key(&id.message()) {
            return;
        }
        for pair in self.candidates(message, id.n()) {
            let delivery = books.delivery(id);
            let to = &message.recipients[usize::from(id.n())].addresses[usize::from(pair.1)];
            let usable = !delivery.tried.contains(&pair)
                && free_now(pair.0, engine, now)
                && !self.device_may_be_paused(pair.0, to, now)
                && !self.excluded(books, id, pair)
                && self.names(pair.0, to).iter().all(|name| is_open(engine, name, now));
            hold!(9, !usable, "{id} goes to an ejected key although {pair:?} is usable");
        }
    }

    /// An attempt has ended: of those to all of a tier the one that was recorded, if
    /// the record has a new one.
    fn land(&mut self, id: DeliveryId, progress: &Progress, wide: bool) {
        let known = self.tries.insert(id, progress.tries);
        let last = progress.attempts.last().filter(|_| wide && known != Some(progress.tries));
        let last = last.map(|attempt| {
            let provider = self.setup.catalog.by_id(&attempt.provider).unwrap();
            (provider.0, attempt.address)
        });
        let landed = |of: DeliveryId, pair: Pair| of == id && last.is_none_or(|last| last == pair);
        self.flying.retain(|(of, pair), _| !landed(*of, *pair));
        for seen in self.keys.values_mut() {
            seen.canary = seen.canary.filter(|(of, pair)| !landed(*of, *pair));
        }
    }

    fn pay(&mut self, provider: u16, now: Instant) {
        let Some(rate) = self.setup.catalog.provider(ProviderIndex(provider)).settings.rate else {
            return;
        };
        let tokens = &mut self.tokens[usize::from(provider)];
        let earned = (now - tokens.at).as_secs_f64() * rate.per_second;
        *tokens = Tokens { left: (tokens.left + earned).min(rate.burst) - 1.0, at: now };
        hold!(15, tokens.left > -1e-3, "calls at {provider} are faster than its pace");
    }

    /// A call goes out.
    fn called(&self, id: DeliveryId, (provider, address): Pair, message: &Message, now: Now) {
        let to = &message.recipients[usize::from(id.n())].addresses[usize::from(address)];
        hold!(8, !self.draining, "{id} is called for after the drain");
        hold!(8, !self.device_paused(provider, to, now), "{id} goes to a paused address");
        for name in self.names(provider, to) {
            let paused = self.keys.get(&name).and_then(|seen| seen.paused);
            let paused = paused.is_some_and(|until| now.instant < until);
            hold!(8, !paused, "{id} goes into the pause of {name:?}");
        }
    }

    /// A call has ended.
    pub(super) fn answered(
        &mut self,
        books: &Books,
        id: DeliveryId,
        pair: Pair,
        answer: &Answer,
        now: Now,
    ) {
        if answer.outcome != Outcome::Throttled {
            return;
        }
        let least = Duration::from_secs(1);
        let pause = answer.retry_after.filter(|pause| !pause.is_zero()).unwrap_or(least);
        let until = now.instant + pause;
        if answer.part == Part::Device {
            let entry = books.entry(id.message());
            let recipient = &entry.body.message().recipients[usize::from(id.n())];
            let to = &recipient.addresses[usize::from(pair.1)];
            let latest = now.instant + pause.mul_f64(1.0 + THROTTLE_JITTER);
            self.devices.insert((pair.0, token(to)), (until, latest));
        } else {
            let seen = self.keys.entry((pair.0, answer.part.clone())).or_default();
            seen.paused = Some(seen.paused.map_or(until, |known| known.max(until)));
        }
    }

    /// The engine's count of attempts is the world's.
    pub(super) fn compare(&self, engine: &Engine) {
        for (provider, lane) in engine.board().lanes() {
            let mine = self.flying.keys().filter(|(_, pair)| pair.0 == provider.0).count();
            hold!(15, lane.in_flight as usize == mine, "{} in flight, not {mine}", lane.in_flight);
        }
        hold!(5, engine.in_flight() == self.flying.len(), "{}", engine.in_flight());
    }

    /// Nobody stands before an open door, and nobody outlives his time.
    pub(super) fn watch(
        &mut self,
        engine: &Engine,
        books: &Books,
        reads: &BTreeSet<MessageId>,
        now: Now,
    ) {
        for at in 0..self.free_since.len() {
            let free = free_now(at as u16, engine, now);
            let since = self.free_since[at].unwrap_or(now.instant);
            self.free_since[at] = free.then_some(since);
            for key in engine.board().keys_of(ProviderIndex(at as u16)) {
                let name = (at as u16, key.part.clone());
                // In slow start it holds itself back.
                let open = is_open(engine, &name, now) && key.health.ramp(now.instant) >= 1.0;
                let seen = self.keys.entry(name).or_default();
                seen.open_since = open.then_some(seen.open_since.unwrap_or(now.instant));
            }
        }
        if !engine.paused_routes().is_empty() {
            self.last_pause = now.instant;
        }
        if now.instant - self.rounded < ROUND {
            return;
        }
        self.rounded = now.instant;
        let up = now.instant - self.began;
        for id in &books.live {
            let message = books.entry(id.message()).body.message();
            let late = now.utc.since(books.life(*id).1.plus(TIMEOUT + SLACK));
            hold!(3, late.is_zero() || up < TIMEOUT + SLACK, "{id} outlives its time by {late:?}");
            if !self.flies(*id) && !self.draining && !reads.contains(&id.message()) {
                self.is_served(*id, message, engine, books, now);
            }
        }
    }

    fn is_served(
        &self,
        id: DeliveryId,
        message: &Message,
        engine: &Engine,
        books: &Books,
        now: Now,
    ) {
        let delivery = books.delivery(id);
        let Some(idle) = delivery.idle_since else { return };
        let due = delivery.written.as_ref().and_then(|progress| progress.next_at);
        let due = due.unwrap_or_default().max(books.life(id).0);
        let unknown = delivery.written.as_ref().is_some_and(|progress| progress.ambiguous > 0);
        let stays = unknown && message.on_ambiguous == OnAmbiguous::Stop;
        // Those of a collapse key wait for each other.
        let paused = engine.paused_routes();
        let apart = engine.is_suspect(id) || paused.contains(&message.route);
        if message.push.collapse_key.is_some() || due > now.utc || stays || apart {
            return;
        }
        let ready = idle.max(self.last_pause).max(now.instant - now.utc.since(due));
        let mut transient = true;
        let mut last_canary = Some(ready);
        let candidates = self.candidates(message, id.n());
        if candidates.iter().all(|pair| self.excluded(books, id, *pair)) {
            // Healed before it came, as far as can be told here.
            return;
        }
        for pair in candidates {
            if self.excluded(books, id, pair) {
                continue;
            }
            let to = &message.recipients[usize::from(id.n())].addresses[usize::from(pair.1)];
            let names = self.names(pair.0, to);
            let since = names.iter().map(|name| self.keys.get(name).and_then(|s| s.open_since));
            let since = since.min().flatten().and_then(|_| {
                let opened = names.iter().filter_map(|name| self.keys.get(name)?.open_since).max();
                let all =
                    names.iter().all(|n| self.keys.get(n).is_some_and(|s| s.open_since.is_some()));
                opened.filter(|_| all)
            });
            let free = self.free_since[usize::from(pair.0)];
            let fresh =
                !delivery.tried.contains(&pair) && !self.device_may_be_paused(pair.0, to, now);
            if let (Some(since), Some(free), true) = (since, free, fresh) {
                let paused =
                    self.devices.get(&(pair.0, token(to))).map_or(free, |(_, latest)| *latest);
                let waited = now.instant - since.max(free).max(ready).max(paused);
                let rests = || rests(id, engine, now);
                hold!(11, waited <= 3 * PROMPT || rests(), "{id} waits {waited:?} before {pair:?}");
            }
            for name in &names {
                let Some(key) = find(engine, name) else { continue };
                let cause = match key.health.status() {
                    Status::Ejected { cause, .. } => cause.transient(),
                    Status::Healthy { .. } | Status::Degraded { .. } | Status::Probing { .. } => {
                        false
                    }
                };
                let paused = key.paused_until.is_some_and(|until| now.instant < until);
                let held = engine.board().held(ProviderIndex(pair.0)).is_some();
                let whole = names.len() == 1 && cause && !paused && !held;
                transient &= whole && self.free_since[usize::from(pair.0)].is_some();
                let seen = self.keys.get(name);
                let flying = seen.is_some_and(|seen| seen.canary.is_some());
                let last = seen.and_then(|seen| seen.last_canary).max(Some(key.health.since()));
                last_canary = if flying { Some(now.instant) } else { last_canary.max(last) };
            }
        }
        let waited = now.instant - last_canary.unwrap_or(ready);
        hold!(
            12,
            !transient
                || waited <= 3 * PROMPT
                || rests(id, engine, now)
                || self.is_empty(message, id),
            "no canary goes out for {waited:?} although {id} waits"
        );
    }

    fn is_empty(&self, message: &Message, id: DeliveryId) -> bool {
        self.candidates(message, id.n()).is_empty()
    }

    fn device_paused(&self, provider: u16, to: &Address, now: Now) -> bool {
        let paused = self.devices.get(&(provider, token(to)));
        paused.is_some_and(|(until, _)| now.instant < *until)
    }

    fn device_may_be_paused(&self, provider: u16, to: &Address, now: Now) -> bool {
        let paused = self.devices.get(&(provider, token(to)));
        paused.is_some_and(|(_, latest)| now.instant < *latest)
    }

    fn excluded(&self, books: &Books, id: DeliveryId, (provider, address): Pair) -> bool {
        let settings = &self.setup.catalog.provider(ProviderIndex(provider)).settings;
        if books.has_been_gone(id, &settings.id, address) {
            return true;
        }
        let written = || books.delivery(id).written.as_ref().map(|p| &p.excluded);
        let Some(excluded) = self.excluded.get(&id).or_else(written) else { return false };
        excluded.iter().any(|excluded| match excluded {
            Excluded::Kind(kind) => **kind == *settings.kind,
            Excluded::Candidate { provider, address: at, .. } => {
                *provider == settings.id && *at == address
            }
        })
    }

    fn candidates(&self, message: &Message, n: u16) -> Vec<Pair> {
        let recipient = &message.recipients[usize::from(n)];
        let route = self.setup.catalog.route(&message.route).unwrap();
        let mut found = Vec::new();
        for member in route.tiers.iter().flatten() {
            for (at, to) in recipient.addresses.iter().enumerate() {
                if self.setup.catalog.serves(member.provider, recipient, to) == Serves::Yes {
                    found.push((member.provider.0, at as u8));
                }
            }
        }
        found
    }

    fn names(&self, provider: u16, to: &Address) -> Vec<KeyName> {
        let built = self.setup.catalog.provider(ProviderIndex(provider));
        let parts = built.provider.parts(to).into_iter();
        std::iter::once(Part::Provider).chain(parts).map(|part| (provider, part)).collect()
    }
}

fn find<'a>(engine: &'a Engine, (provider, part): &KeyName) -> Option<&'a Key> {
    engine.board().keys_of(ProviderIndex(*provider)).find(|key| key.part == *part)
}

fn is_open(engine: &Engine, name: &KeyName, now: Now) -> bool {
    engine.board().held(ProviderIndex(name.0)).is_none()
        && find(engine, name).is_none_or(|key| {
            let healthy =
                matches!(key.health.status(), Status::Healthy { .. } | Status::Degraded { .. });
            let paced = key.paced_until(now.instant).is_some();
            healthy && !paced && key.paused_until.is_none_or(|until| until <= now.instant)
        })
}

/// What it was ejected for, where only a person can mend that.
fn refused(key: &Key) -> Option<&'static str> {
    match key.health.status() {
        Status::Ejected { cause: cause @ (Cause::Auth | Cause::Misconfigured), .. }
        | Status::Probing { cause: cause @ (Cause::Auth | Cause::Misconfigured), .. } => {
            Some(cause.word())
        }
        Status::Healthy { .. }
        | Status::Degraded { .. }
        | Status::Ejected { .. }
        | Status::Probing { .. } => None,
    }
}

fn token(to: &Address) -> String {
    to.get("token").unwrap_or_default().to_owned()
}

/// Whether the engine has set a time for it, which is not long past.
fn rests(id: DeliveryId, engine: &Engine, now: Now) -> bool {
    let live = engine.live(id.message(), now);
    let mine = live.into_iter().find(|(n, _)| *n == id.n());
    let set = mine.and_then(|(_, progress)| progress.next_at);
    set.is_some_and(|at| at.plus(3 * PROMPT) > now.utc)
}

/// Pauses and refused credentials, as a restart must find them.
pub(super) fn known(engine: &Engine, now: Now) -> Vec<Known> {
    let mut known = Vec::new();
    for (provider, _) in engine.board().lanes() {
        for key in engine.board().keys_of(provider) {
            let left = key.paused_until.map(|until| until.saturating_duration_since(now.instant));
            let left = left.filter(|left| *left > KEPT_PAUSE);
            let ejected = refused(key);
            if left.is_some() || ejected.is_some() {
                let paused_until_ms = left.map(|left| now.utc.plus(left).ms());
                known.push(Known { key: (provider.0, key.part.clone()), paused_until_ms, ejected });
            }
        }
    }
    known
}

/// Whether the process that started now knows it.
pub(super) fn remembers(known: &[Known], engine: &Engine, now: Now) {
    for one in known {
        let key = find(engine, &one.key);
        if let Some(ms) = one.paused_until_ms.filter(|ms| *ms > now.utc.ms()) {
            let until = key.and_then(|key| key.paused_until);
            let left = until.map(|until| until.saturating_duration_since(now.instant));
            let ends = left.map(|left| now.utc.plus(left).ms());
            hold!(14, ends.is_some_and(|end| end.abs_diff(ms) <= 2), "{one:?} became {key:?}");
        }
        if one.ejected.is_some() {
            let cause = key.and_then(refused);
            hold!(14, cause == one.ejected, "{one:?} became {key:?}");
        }
    }
}

fn free_now(provider: u16, engine: &Engine, now: Now) -> bool {
    engine.board().permit_at(ProviderIndex(provider), now.instant) == Some(now.instant)
}
