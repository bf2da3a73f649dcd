//! What is known of every provider at this moment, and who may be called now.
//!
//! The board owns health, limits, pace, pauses and latencies, because the core
//! makes every call and so knows all of it exactly. Nobody else keeps a verdict:
//! a call is allowed by the [`Permit`] it carries.
//!
//! A **health key** is (provider, part): a candidate is usable when all its keys
//! are. So one app's refused credential does not take the others out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use pushyard_providers::{Answer, Outcome, Part};
use smallvec::SmallVec;

use super::budget::{Over, Spending, Spent};
use super::catalog::Catalog;
use super::health::{Cause, Gate, Health, Move, Status};
use super::hold::Hold;
use super::latency::Latency;
use super::limits::{ConcurrencyLimit, Pace};
use super::window::Window;
use super::{ProviderIndex, ProviderSettings};
use crate::clock::{Now, Utc};

/// Throttled without a time: 1 s, doubled for each in a row, up to this.
const LONGEST_UNTIMED_PAUSE: Duration = Duration::from_secs(60);
/// Pauses longer than this are kept over a restart.
const KEPT_PAUSE: Duration = Duration::from_secs(30);
/// Devices that a vendor throttled, remembered at most.
const MAX_PAUSED_ADDRESSES: usize = 100_000;

/// A health key's position on the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyIndex(u32);

/// The keys of a candidate: its provider as a whole, and the parts of its address.
pub type Keys = SmallVec<[KeyIndex; 2]>;

/// One health key.
#[derive(Debug)]
pub struct Key {
    /// Whose.
    pub provider: ProviderIndex,
    /// Of which part.
    pub part: Part,
    /// Its breaker.
    pub health: Health,
    /// No call before this moment: the vendor asked to wait.
    pub paused_until: Option<Instant>,
    /// Throttled answers without a time, in a row.
    untimed_throttles: u32,
}

/// One provider.
#[derive(Debug)]
pub struct Lane {
    /// What the configuration says.
    pub settings: Arc<ProviderSettings>,
    /// The key of the provider as a whole.
    pub key: KeyIndex,
    /// An operator keeps it out of use.
    hold: Option<Hold>,
    /// Calls in flight.
    pub in_flight: u32,
    /// Since when each permit that came back has been given away at once.
    full_since: Option<Instant>,
    /// Since when there has been a permit to give.
    free_since: Option<Instant>,
    /// Permits that came back to be given again, in the last second.
    returned: Window,
    /// How many there may be.
    pub limit: ConcurrencyLimit,
    /// How many a second.
    pub pace: Pace,
    /// How quick it is.
    pub latency: Latency,
    /// Accepted calls, for its cost.
    pub accepted: u64,
    /// What it has cost in the present period.
    pub spending: Spending,
    /// The latest answers that were not accepted, newest last.
    pub last_errors: Vec<(Utc, Answer)>,
    /// The latest probe: when, whether it was good, and what was wrong.
    pub last_probe: Option<(Utc, bool, Option<Arc<str>>)>,
}

/// The right to make one call. Only the board makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    provider: ProviderIndex,
    /// Bit n: for the n-th key this call is a canary.
    canary: u8,
    _made_here: (),
}

impl Permit {
    /// Whom to call.
    pub fn provider(&self) -> ProviderIndex {
        self.provider
    }

    fn is_canary(&self, key: usize) -> bool {
        self.canary & (1 << key) != 0
    }
}

/// Why a candidate is not used now. The words are the API's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// This delivery has been there, or the vendor cannot take its message.
    ExcludedByDelivery,
    /// The vendor asked to wait with this device.
    AddressPaused,
    /// Its breaker is open.
    Ejected,
    /// Its budget is over, and hard.
    Budget,
    /// An operator keeps it out of use.
    Drained,
    /// It is on probation and its canary is out.
    Probing,
    /// The vendor asked to wait.
    Throttled,
    /// No permit is free, and waiting for one would take too long.
    Saturated,
}

impl LeftOut {
    /// The word used in the API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ExcludedByDelivery => "excluded_by_delivery",
            Self::AddressPaused => "address_paused",
            Self::Ejected => "ejected",
            Self::Budget => "budget",
            Self::Drained => "drained",
            Self::Probing => "probing",
            Self::Throttled => "throttled",
            Self::Saturated => "saturated",
        }
    }
}

/// Something that the board did and that people want to know.
#[derive(Clone, Debug)]
pub struct Moved {
    /// Whose key.
    pub provider: ProviderIndex,
    /// Which part.
    pub part: Part,
    /// From where to where.
    pub change: Move,
}

/// A pause or an ejection that must outlive a restart.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Remembered {
    /// The provider's id.
    pub provider: Arc<str>,
    /// The part's text.
    pub part: String,
    /// A throttle pause's end.
    pub paused_until: Option<Utc>,
    /// Ejected as `auth` or `misconfigured`.
    pub ejected: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub struct Board {
    lanes: Vec<Lane>,
    keys: Vec<Key>,
    by_part: HashMap<(ProviderIndex, Part), KeyIndex>,
    paused_addresses: HashMap<(ProviderIndex, u64), Instant>,
    /// Keys whose remembered state changed and is not yet written.
    changed: Vec<KeyIndex>,
    moved: Vec<Moved>,
}

impl Board {
    /// All providers of the catalog, healthy.
    pub fn new(catalog: &Catalog, now: Instant) -> Self {
        let mut board = Self {
            lanes: Vec::new(),
            keys: Vec::new(),
            by_part: HashMap::new(),
            paused_addresses: HashMap::new(),
            changed: Vec::new(),
            moved: Vec::new(),
        };
        for (at, built) in catalog.providers.iter().enumerate() {
            let settings = &built.settings;
            // The configuration refuses more providers than fit.
            let provider = ProviderIndex(at as u16);
            board.add_lane(provider, settings, now);
        }
        board
    }

    fn add_lane(
        &mut self,
        provider: ProviderIndex,
        settings: &Arc<ProviderSettings>,
        now: Instant,
    ) {
        let key = self.add_key(provider, Part::Provider, settings, now);
        self.lanes.push(Lane {
            key,
            hold: None,
            in_flight: 0,
            full_since: None,
            free_since: Some(now),
            returned: Window::new(Duration::from_secs(1), now),
            limit: ConcurrencyLimit::new(settings.max_in_flight),
            pace: Pace::new(settings.rate, now),
            latency: Latency::new(now),
            accepted: 0,
            spending: Spending::new(settings.budget),
            last_errors: Vec::new(),
            last_probe: None,
            settings: settings.clone(),
        });
    }

    /// The key of a provider's part; made when it is first named.
    pub fn key(&mut self, provider: ProviderIndex, part: &Part, now: Instant) -> KeyIndex {
        match part {
            // A device has no key: it says nothing about anyone else.
            Part::Provider | Part::Device => self.lanes[provider.at()].key,
            Part::Named(_) => {
                if let Some(known) = self.by_part.get(&(provider, part.clone())) {
                    return *known;
                }
                let settings = self.lanes[provider.at()].settings.clone();
                self.add_key(provider, part.clone(), &settings, now)
            }
        }
    }

    fn add_key(
        &mut self,
        provider: ProviderIndex,
        part: Part,
        settings: &ProviderSettings,
        now: Instant,
    ) -> KeyIndex {
        // Parts are apps and origins of one installation: far below u32.
        let index = KeyIndex(self.keys.len() as u32);
        let health = Health::new(settings.health, now);
        self.by_part.insert((provider, part.clone()), index);
        self.keys.push(Key { provider, part, health, paused_until: None, untimed_throttles: 0 });
        index
    }

    /// A provider.
    pub fn lane(&self, provider: ProviderIndex) -> &Lane {
        &self.lanes[provider.at()]
    }

    /// All providers.
    pub fn lanes(&self) -> impl Iterator<Item = (ProviderIndex, &Lane)> {
        self.lanes.iter().enumerate().map(|(at, lane)| (ProviderIndex(at as u16), lane))
    }

    /// A key.
    pub fn key_at(&self, key: KeyIndex) -> &Key {
        &self.keys[key.0 as usize]
    }

    /// The keys of a provider, the whole first.
    pub fn keys_of(&self, provider: ProviderIndex) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(move |key| key.provider == provider)
    }

    /// Whether all keys let a delivery through, or the first reason why not and
    /// when to look again. `panic`: every other candidate is out as well.
    pub fn open(&self, keys: &Keys, panic: bool, now: Instant) -> Result<(), Closed> {
        for key in keys {
            let key = self.key_at(*key);
            if let Some(hold) = &self.lane(key.provider).hold {
                let why = if hold.ejected { LeftOut::Ejected } else { LeftOut::Drained };
                return Err(Closed { why, at: None });
            }
            if let Some(until) = key.paused_until.filter(|until| now < *until) {
                return Err(Closed { why: LeftOut::Throttled, at: Some(until) });
            }
            let gate = if panic { key.health.gate_in_panic(now) } else { key.health.gate(now) };
            match gate {
                Gate::Open | Gate::Canary => {}
                Gate::Later(at) => return Err(Closed { why: LeftOut::Probing, at: Some(at) }),
                Gate::Busy => return Err(Closed { why: LeftOut::Probing, at: None }),
                Gate::Closed => {
                    return Err(Closed { why: LeftOut::Ejected, at: key.health.wake_at(now) });
                }
            }
        }
        Ok(())
    }

    /// Keeps a provider out of use, or lets it back: on probation where it was
    /// ejected, by the operator or for another reason.
    pub fn hold(&mut self, provider: ProviderIndex, hold: Option<Hold>, now: Instant) {
        let lane = &mut self.lanes[provider.at()];
        let (ends, key) = (hold.is_none(), lane.key);
        let before = std::mem::replace(&mut lane.hold, hold);
        let status = self.key_at(key).health.status();
        let cause = match status {
            Status::Ejected { cause, .. } => Some(cause),
            Status::Healthy { .. } | Status::Probing { .. } => {
                before.filter(|hold| hold.ejected).map(|_| Cause::Operator)
            }
        };
        if let Some(cause) = cause.filter(|_| ends) {
            let moved = self.keys[key.0 as usize].health.probation(cause, now);
            self.note(key, moved);
        }
    }

    /// An operator's order to keep a provider out of use.
    pub fn held(&self, provider: ProviderIndex) -> Option<&Hold> {
        self.lane(provider).hold.as_ref()
    }

    /// Another configuration: providers keep their places. Those that were built
    /// anew leave their ejection on probation; all keep what is known of them.
    pub fn reconfigure(&mut self, catalog: &Catalog, changed: &[ProviderIndex], now: Instant) {
        for (at, built) in catalog.providers.iter().enumerate() {
            let (provider, settings) = (ProviderIndex(at as u16), &built.settings);
            let Some(lane) = self.lanes.get_mut(at) else {
                self.add_lane(provider, settings, now);
                continue;
            };
            lane.pace.configure(settings.rate);
            if lane.settings.budget != settings.budget {
                lane.spending.set_budget(settings.budget);
            }
            lane.limit.bound(settings.max_in_flight);
            lane.settings = settings.clone();
            for at in 0..self.keys.len() {
                let key = &mut self.keys[at];
                if key.provider != provider {
                    continue;
                }
                key.health.set_settings(settings.health);
                let cause = match key.health.status() {
                    Status::Ejected { cause, .. } => Some(cause),
                    Status::Healthy { .. } | Status::Probing { .. } => None,
                };
                if let Some(cause) = cause.filter(|_| changed.contains(&provider)) {
                    let moved = key.health.probation(cause, now);
                    self.note(KeyIndex(at as u32), moved);
                }
            }
        }
    }

    /// Whether some key was ejected for something that time may mend, and no
    /// operator keeps it out.
    pub fn ejected_transiently(&self, keys: &Keys) -> bool {
        if keys.iter().any(|key| self.lane(self.key_at(*key).provider).hold.is_some()) {
            return false;
        }
        keys.iter().any(|key| match self.key_at(*key).health.status() {
            Status::Ejected { cause, .. } => cause.transient(),
            Status::Healthy { .. } | Status::Probing { .. } => false,
        })
    }

    /// The smallest ramp of the keys: 1, or less in slow start.
    pub fn ramp(&self, keys: &Keys, now: Instant) -> f64 {
        keys.iter().map(|key| self.key_at(*key).health.ramp(now)).fold(1.0, f64::min)
    }

    /// How many calls may be in flight at a provider: its limit, scaled by its
    /// slow start, and at least one.
    pub fn allowed(&self, provider: ProviderIndex, now: Instant) -> u32 {
        let lane = self.lane(provider);
        let ramp = self.key_at(lane.key).health.ramp(now);
        ((f64::from(lane.limit.get()) * ramp) as u32).max(1)
    }

    /// When the provider has a permit and a token: now, at a known time, or when
    /// a call in flight ends.
    pub fn permit_at(&self, provider: ProviderIndex, now: Instant) -> Option<Instant> {
        let lane = self.lane(provider);
        (lane.in_flight < self.allowed(provider, now)).then(|| lane.pace.ready_at(now))
    }

    /// While all permits are out: since when, and how many came back in the last
    /// second. The average latency would not show that a vendor, or one of its
    /// apps, has fallen silent: it is that of the calls that were answered.
    pub fn full(&self, provider: ProviderIndex, now: Instant) -> Option<(Instant, u32)> {
        let lane = self.lane(provider);
        let since = lane.full_since.filter(|_| self.permit_at(provider, now).is_none())?;
        Some((since, lane.returned.counts(now).samples()))
    }

    /// Takes a permit. `None`: none is free now, or a key does not let it through.
    pub fn admit(
        &mut self,
        provider: ProviderIndex,
        keys: &Keys,
        panic: bool,
        now: Instant,
    ) -> Option<Permit> {
        if self.permit_at(provider, now) != Some(now) || self.open(keys, panic, now).is_err() {
            return None;
        }
        let lane = &mut self.lanes[provider.at()];
        lane.in_flight += 1;
        lane.pace.take(now);
        if lane.free_since.is_some_and(|since| since < now) {
            lane.full_since = None;
        }
        self.note_room(provider, now);
        let mut canary = 0;
        for (n, key) in keys.iter().enumerate() {
            if self.keys[key.0 as usize].health.begin(now) {
                canary |= 1 << n;
            }
        }
        Some(Permit { provider, canary, _made_here: () })
    }

    /// Whether a permit whose call has not been made yet is still good: what has
    /// been ejected or paused since it was given takes it back.
    pub fn holds(&self, permit: &Permit, keys: &Keys, now: Instant) -> bool {
        let held = self.lane(permit.provider).hold.is_some();
        !held
            && keys.iter().enumerate().all(|(n, key)| {
                let key = self.key_at(*key);
                let paused = key.paused_until.is_some_and(|until| now < until);
                let open = match key.health.status() {
                    Status::Healthy { .. } => true,
                    Status::Ejected { cause, .. } => permit.is_canary(n) && cause.transient(),
                    Status::Probing { .. } => permit.is_canary(n),
                };
                open && !paused
            })
    }

    /// A permit comes back without a call having been made.
    pub fn withdraw(&mut self, permit: &Permit, keys: &Keys, now: Instant) {
        self.lanes[permit.provider.at()].in_flight -= 1;
        self.no_sample(keys, permit);
        self.note_room(permit.provider, now);
    }

    /// Permits were given, came back, or became more or fewer. Returns whether
    /// there is one to give.
    fn note_room(&mut self, provider: ProviderIndex, now: Instant) -> bool {
        let allowed = self.allowed(provider, now);
        let lane = &mut self.lanes[provider.at()];
        if lane.in_flight >= allowed {
            lane.free_since = None;
            lane.full_since.get_or_insert(now);
            false
        } else {
            lane.free_since.get_or_insert(now);
            true
        }
    }

    /// Whether the device was paused by the vendor, and until when.
    pub fn address_paused(
        &self,
        provider: ProviderIndex,
        address: impl FnOnce() -> u64,
        now: Instant,
    ) -> Option<Instant> {
        // Mostly there is none, and hashing an address costs more than looking.
        if self.paused_addresses.is_empty() {
            return None;
        }
        self.paused_addresses.get(&(provider, address())).copied().filter(|until| now < *until)
    }

    /// A call ended: what its answer means for everyone else. `chance` draws
    /// numbers in 0..1.
    pub fn answered(&mut self, ended: &Ended<'_>, now: Now, chance: &mut dyn FnMut() -> f64) {
        let Ended { permit, keys, answer, elapsed, address } = *ended;
        let lane = &mut self.lanes[permit.provider.at()];
        lane.in_flight -= 1;
        if answer.outcome != Outcome::Accepted {
            remember_error(lane, answer, now.utc);
        }
        let rtt = lane.latency.rtt();
        match answer.outcome {
            Outcome::Accepted | Outcome::AddressGone | Outcome::MessageInvalid => {
                if answer.outcome == Outcome::Accepted {
                    lane.accepted += 1;
                    lane.spending.spend(lane.settings.cost_per_million / 1e6, now.utc);
                }
                lane.latency.record(elapsed, now.instant);
                let in_flight = lane.in_flight + 1;
                lane.limit.succeeded(in_flight);
                self.succeeded(keys, permit, now.instant);
            }
            Outcome::Throttled => {
                lane.latency.penalise(elapsed, answer.retry_after, now.instant);
                if answer.part != Part::Device {
                    lane.limit.overloaded(rtt, now.instant);
                }
                self.no_sample(keys, permit);
                self.throttled(permit.provider, answer, address, now.instant);
            }
            Outcome::Unavailable | Outcome::Ambiguous => {
                lane.latency.penalise(elapsed, answer.retry_after, now.instant);
                lane.limit.overloaded(rtt, now.instant);
                self.failed(permit, keys, &answer.part, now.instant, chance);
            }
            Outcome::AuthFailed => {
                self.no_sample(keys, permit);
                let key = self.key(permit.provider, &answer.part, now.instant);
                self.eject(key, Cause::Auth, now.instant, chance());
            }
            Outcome::Misconfigured => {
                lane.latency.record(elapsed, now.instant);
                self.no_sample(keys, permit);
            }
        }
        // One that a sinking limit swallows serves nobody.
        if self.note_room(permit.provider, now.instant) {
            self.lanes[permit.provider.at()].returned.record(true, now.instant);
        }
    }

    /// A success of all the candidate's keys.
    fn succeeded(&mut self, keys: &Keys, permit: &Permit, now: Instant) {
        for (n, index) in keys.iter().enumerate() {
            let key = &mut self.keys[index.0 as usize];
            key.untimed_throttles = 0;
            let change = key.health.success(permit.is_canary(n), now);
            self.note(*index, change);
        }
    }

    fn no_sample(&mut self, keys: &Keys, permit: &Permit) {
        for (n, index) in keys.iter().enumerate() {
            self.keys[index.0 as usize].health.end_without_sample(permit.is_canary(n));
        }
    }

    /// A failure is a sample of the key that the outcome names; of no key when
    /// it is about the device.
    fn failed(
        &mut self,
        permit: &Permit,
        keys: &Keys,
        part: &Part,
        now: Instant,
        chance: &mut dyn FnMut() -> f64,
    ) {
        let named = (*part != Part::Device).then(|| self.key(permit.provider, part, now));
        for (n, index) in keys.iter().enumerate() {
            let canary = permit.is_canary(n);
            let health = &mut self.keys[index.0 as usize].health;
            if Some(*index) == named {
                let change = health.failure(canary, now, chance());
                let ejected = change.is_some();
                self.note(*index, change);
                if ejected && Some(*index) == Some(self.lanes[permit.provider.at()].key) {
                    self.lanes[permit.provider.at()].limit.halve();
                }
            } else {
                health.end_without_sample(canary);
            }
        }
    }

    fn throttled(&mut self, provider: ProviderIndex, answer: &Answer, address: u64, now: Instant) {
        let cap = self.lane(provider).settings.retry.throttle_cap;
        if answer.part == Part::Device {
            let wish = answer.retry_after.filter(|wish| !wish.is_zero());
            let pause = wish.unwrap_or(Duration::from_secs(1)).min(cap);
            self.pause_address(provider, address, now + pause, now);
            return;
        }
        let index = self.key(provider, &answer.part, now);
        let key = &mut self.keys[index.0 as usize];
        // "Retry-After: 0" with a refusal says nothing.
        let wish = answer.retry_after.filter(|wish| !wish.is_zero());
        let pause = wish.unwrap_or_else(|| {
            let doubled = Duration::from_secs(1) * 2u32.pow(key.untimed_throttles.min(6));
            key.untimed_throttles += 1;
            doubled.min(LONGEST_UNTIMED_PAUSE)
        });
        let until = now + pause.min(cap);
        key.paused_until = Some(key.paused_until.map_or(until, |present| present.max(until)));
        if pause > KEPT_PAUSE {
            self.changed.push(index);
        }
    }

    fn pause_address(
        &mut self,
        provider: ProviderIndex,
        address: u64,
        until: Instant,
        now: Instant,
    ) {
        if self.paused_addresses.len() >= MAX_PAUSED_ADDRESSES {
            self.paused_addresses.retain(|_, until| now < *until);
        }
        if self.paused_addresses.len() < MAX_PAUSED_ADDRESSES {
            self.paused_addresses.insert((provider, address), until);
        }
    }

    /// Takes a key out.
    pub fn eject(&mut self, index: KeyIndex, cause: Cause, now: Instant, jitter: f64) {
        let change = self.keys[index.0 as usize].health.eject(cause, now, jitter);
        self.note(index, change);
    }

    /// A probe ended.
    pub fn probed(
        &mut self,
        provider: ProviderIndex,
        answer: &Answer,
        proves_credential: bool,
        now: Now,
        jitter: f64,
    ) {
        let index = self.lane(provider).key;
        let good = matches!(answer.outcome, Outcome::Accepted | Outcome::MessageInvalid);
        let proves = match self.key_at(index).health.status() {
            Status::Ejected { cause: Cause::Auth, .. } => proves_credential,
            Status::Healthy { .. } | Status::Ejected { .. } | Status::Probing { .. } => false,
        };
        let lane = &mut self.lanes[provider.at()];
        let detail = answer.detail.clone().or_else(|| answer.code.clone());
        lane.last_probe = Some((now.utc, good, detail.filter(|_| !good)));
        if !good {
            remember_error(lane, answer, now.utc);
        }
        let key = &mut self.keys[index.0 as usize];
        let change = key.health.probed(good, proves, now.instant, jitter);
        self.note(index, change);
    }

    /// Whether a provider's budget is over.
    pub fn over_budget(&self, provider: ProviderIndex, now: Utc) -> Over {
        self.lane(provider).spending.over(now)
    }

    /// What was spent since the last call, by provider id.
    pub fn take_spent(&mut self) -> Vec<(Arc<str>, Spent)> {
        let lanes = self.lanes.iter_mut();
        let spent =
            |lane: &mut Lane| Some((lane.settings.id.clone(), lane.spending.take_unwritten()?));
        lanes.filter_map(spent).collect()
    }

    /// What the process before had spent at a provider.
    pub fn restore_spent(&mut self, provider: ProviderIndex, spent: Spent) {
        self.lanes[provider.at()].spending.restore(spent);
    }

    /// What the open connections of a provider allow together.
    pub fn capacity(&mut self, provider: ProviderIndex, streams: Option<u32>, now: Instant) {
        let lane = &mut self.lanes[provider.at()];
        let most = lane.settings.max_in_flight;
        // No open connection yet: the first calls open them.
        let allowed = streams.filter(|streams| *streams > 0).unwrap_or(most);
        lane.limit.bound(most.min(allowed.max(super::limits::LEAST_BOUND)));
        self.note_room(provider, now);
    }

    /// Time passes.
    pub fn tick(&mut self, now: Instant) {
        for at in 0..self.keys.len() {
            let change = self.keys[at].health.tick(now);
            self.note(KeyIndex(at as u32), change);
        }
    }

    /// When the board changes by time alone.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        let keys = self.keys.iter().flat_map(|key| [key.health.wake_at(now), key.paused_until]);
        keys.flatten().filter(|at| *at > now).min()
    }

    /// Moves since the last call.
    pub fn take_moved(&mut self) -> Vec<Moved> {
        std::mem::take(&mut self.moved)
    }

    /// What must be written so that a restart knows it.
    pub fn take_remembered(&mut self, now: Now) -> Vec<Remembered> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        changed.into_iter().map(|index| self.remembered(index, now)).collect()
    }

    fn remembered(&self, index: KeyIndex, now: Now) -> Remembered {
        let key = self.key_at(index);
        let pause = key.paused_until.map(|until| until.saturating_duration_since(now.instant));
        let ejected = match key.health.status() {
            // On probation for it: a restart must not make it healthy.
            Status::Ejected { cause: cause @ (Cause::Auth | Cause::Misconfigured), .. }
            | Status::Probing { cause: cause @ (Cause::Auth | Cause::Misconfigured), .. } => {
                Some(cause.word().to_owned())
            }
            Status::Ejected { .. } | Status::Healthy { .. } | Status::Probing { .. } => None,
        };
        Remembered {
            provider: self.lane(key.provider).settings.id.clone(),
            part: key.part.text().to_owned(),
            paused_until: pause.filter(|left| *left > KEPT_PAUSE).map(|left| now.utc.plus(left)),
            ejected,
        }
    }

    /// What the process before knew: pauses go on, a refused credential starts
    /// on probation.
    pub fn restore(&mut self, provider: ProviderIndex, remembered: &Remembered, now: Now) {
        let part = match &*remembered.part {
            "" => Part::Provider,
            named => Part::Named(named.into()),
        };
        let index = self.key(provider, &part, now.instant);
        let key = &mut self.keys[index.0 as usize];
        if let Some(until) = remembered.paused_until {
            key.paused_until = Some(now.instant + until.since(now.utc));
        }
        let cause = match remembered.ejected.as_deref() {
            Some("auth") => Some(Cause::Auth),
            Some("misconfigured") => Some(Cause::Misconfigured),
            Some(_) | None => None,
        };
        if let Some(cause) = cause {
            let change = key.health.probation(cause, now.instant);
            self.note(index, change);
        }
    }

    fn note(&mut self, index: KeyIndex, change: Option<Move>) {
        let Some(change) = change else { return };
        let kept = |status: Status| match status {
            Status::Ejected { cause, .. } | Status::Probing { cause, .. } => {
                matches!(cause, Cause::Auth | Cause::Misconfigured)
            }
            Status::Healthy { .. } => false,
        };
        if kept(change.from) || kept(change.to) {
            self.changed.push(index);
        }
        let key = self.key_at(index);
        self.moved.push(Moved { provider: key.provider, part: key.part.clone(), change });
    }
}

/// Why a candidate's keys let nothing through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The first reason.
    pub why: LeftOut,
    /// When time alone may change that.
    pub at: Option<Instant>,
}

/// A call that ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// What it was allowed by.
    pub permit: &'a Permit,
    /// The keys it concerned.
    pub keys: &'a Keys,
    /// What came back.
    pub answer: &'a Answer,
    /// How long it took.
    pub elapsed: Duration,
    /// The address, as a hash.
    pub address: u64,
}

fn remember_error(lane: &mut Lane, answer: &Answer, at: Utc) {
    const KEPT: usize = 10;
    if lane.last_errors.len() == KEPT {
        lane.last_errors.remove(0);
    }
    lane.last_errors.push((at, answer.clone()));
}

#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;
