//! What is known of every provider at this moment, and who may be called now.
//!
//! The board owns health, limits, pace, pauses and latencies, because the core
//! makes every call and so knows all of it exactly. Nobody else keeps a verdict:
//! a call is allowed by the [`Permit`] it carries.
//!
//! A **health key** is (provider, part): a candidate is usable when all its keys
//! are. So one app's refused credential does not take the others out.
//!
//! Here is what the board holds; `admit` says who may be called, `answers` what
//! an answer changes, `memory` what outlives a restart, `orders` what people want.

mod admit;
mod answers;
mod memory;
mod orders;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use pushyard_providers::{Answer, Part};
use smallvec::SmallVec;

pub use self::admit::{Closed, LeftOut, Permit};
pub use self::answers::Ended;
use self::answers::Network;
pub use self::memory::Remembered;
use super::budget::Spending;
use super::catalog::Catalog;
use super::gone::Guard;
use super::health::{Cause, Health, Move, Status};
use super::hold::Hold;
use super::latency::Latency;
use super::limits::{ConcurrencyLimit, Pace};
use super::ramp::{Meter, Ramp};
use super::window::Window;
use super::{ProviderIndex, ProviderSettings};
use crate::clock::Utc;

/// Pauses longer than this are kept over a restart.
const KEPT_PAUSE: Duration = Duration::from_secs(30);

/// Parts that have a key at most, unless more are in use.
const MOST_PARTS: usize = 10_000;
/// So many of them go at once when there are more.
const DROPPED_AT_ONCE: usize = MOST_PARTS / 10;
/// How often it is tried.
const DROPPED_EVERY: Duration = Duration::from_secs(1);

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
    /// How much goes through.
    meter: Meter,
    /// What may go through since its last pause, if that is less than all.
    ramp: Option<Box<Ramp>>,
    /// Whether it is a good witness.
    guard: Guard,
    /// When a delivery was planned with it.
    used: Instant,
    /// Its place is free.
    dropped: bool,
}

impl Key {
    /// Healthy, not paused, and nothing of that is a moment ago.
    fn is_plain(&self, now: Instant) -> bool {
        let paused = self.paused_until.is_some_and(|until| now < until);
        matches!(self.health.status(), Status::Healthy { ramp: None })
            && !paused
            && self.ramp.is_none()
    }

    /// When it lets the next call through, if its last pause was not long ago.
    pub fn paced_until(&self, now: Instant) -> Option<Instant> {
        self.ramp.as_ref().map(|ramp| ramp.ready_at(now)).filter(|at| *at > now)
    }
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
    /// Whether it could be reached of late.
    network: Network,
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

/// See the module.
#[derive(Debug)]
pub struct Board {
    lanes: Vec<Lane>,
    keys: Vec<Key>,
    by_part: HashMap<(ProviderIndex, Part), KeyIndex>,
    free: Vec<KeyIndex>,
    /// Keys that are not plainly healthy: only those change by time alone, and of
    /// ten thousand few are so.
    restless: BTreeSet<KeyIndex>,
    next_drop: Instant,
    paused_addresses: HashMap<(ProviderIndex, u64), Instant>,
    /// Keys whose remembered state changed and is not yet written.
    changed: Vec<KeyIndex>,
    moved: Vec<Moved>,
    /// Addresses that were held as gone and may be marked.
    confirmed: Vec<(ProviderIndex, u64)>,
}

impl Board {
    /// All providers of the catalog, healthy.
    pub fn new(catalog: &Catalog, now: Instant) -> Self {
        let mut board = Self {
            lanes: Vec::new(),
            keys: Vec::new(),
            by_part: HashMap::new(),
            free: Vec::new(),
            restless: BTreeSet::new(),
            next_drop: now,
            paused_addresses: HashMap::new(),
            changed: Vec::new(),
            moved: Vec::new(),
            confirmed: Vec::new(),
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
            hold: None,
            key,
            network: Network::default(),
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
                if let Some(known) = self.by_part.get(&(provider, part.clone())).copied() {
                    self.keys[known.0 as usize].used = now;
                    return known;
                }
                let settings = self.lanes[provider.at()].settings.clone();
                self.add_key(provider, part.clone(), &settings, now)
            }
        }
    }

    /// The key of a provider's part, if it has been named before: what is only
    /// looked at makes none.
    pub fn known_key(&self, provider: ProviderIndex, part: &Part) -> Option<KeyIndex> {
        match part {
            Part::Provider | Part::Device => Some(self.lanes[provider.at()].key),
            Part::Named(_) => self.by_part.get(&(provider, part.clone())).copied(),
        }
    }

    fn add_key(
        &mut self,
        provider: ProviderIndex,
        part: Part,
        settings: &ProviderSettings,
        now: Instant,
    ) -> KeyIndex {
        // Parts are bounded, see `drop_parts`: far below u32.
        let index = self.free.pop().unwrap_or(KeyIndex(self.keys.len() as u32));
        let health = Health::new(settings.health, now);
        self.by_part.insert((provider, part.clone()), index);
        let key = Key {
            provider,
            part,
            health,
            paused_until: None,
            untimed_throttles: 0,
            meter: Meter::new(now),
            ramp: None,
            guard: Guard::default(),
            used: now,
            dropped: false,
        };
        match self.keys.get_mut(index.0 as usize) {
            Some(place) => *place = key,
            None => self.keys.push(key),
        }
        index
    }

    /// Whether parts have come to be so many that some should be forgotten.
    pub fn is_crowded(&self, now: Instant) -> bool {
        self.by_part.len() > self.lanes.len() + MOST_PARTS && now >= self.next_drop
    }

    /// Forgets the parts that were used least recently. What is ejected, paused or
    /// on its way back stays, and so does what `used` says of.
    pub fn drop_parts(&mut self, used: &dyn Fn(KeyIndex) -> bool, now: Instant) {
        self.next_drop = now + DROPPED_EVERY;
        let idle = |key: &Key| matches!(key.part, Part::Named(_)) && key.is_plain(now);
        let places = (0..self.keys.len() as u32).map(KeyIndex);
        let mut idle: Vec<(Instant, KeyIndex)> = places
            .map(|at| (&self.keys[at.0 as usize], at))
            .filter(|(key, at)| !key.dropped && idle(key) && !used(*at))
            .map(|(key, at)| (key.used, at))
            .collect();
        idle.sort_unstable();
        for (_, at) in idle.into_iter().take(DROPPED_AT_ONCE) {
            let key = &mut self.keys[at.0 as usize];
            (key.dropped, key.guard) = (true, Guard::default());
            self.by_part.remove(&(key.provider, key.part.clone()));
            self.free.push(at);
        }
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
        self.keys.iter().filter(move |key| key.provider == provider && !key.dropped)
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
        for index in std::mem::take(&mut self.restless) {
            let key = &mut self.keys[index.0 as usize];
            let rate = self.lanes[key.provider.at()].settings.rate.map(|rate| rate.per_second);
            key.ramp.take_if(|ramp| ramp.is_over(rate, now));
            let change = key.health.tick(now);
            if !key.is_plain(now) {
                self.restless.insert(index);
            }
            self.note(index, change);
        }
    }

    /// When the board changes by time alone.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        let keys = self
            .restless
            .iter()
            .map(|index| self.key_at(*index))
            .flat_map(|key| [key.health.wake_at(now), key.paused_until, key.paced_until(now)]);
        keys.flatten().filter(|at| *at > now).min()
    }

    /// Moves since the last call.
    pub fn take_moved(&mut self) -> Vec<Moved> {
        std::mem::take(&mut self.moved)
    }

    fn note(&mut self, index: KeyIndex, change: Option<Move>) {
        let Some(change) = change else { return };
        self.restless.insert(index);
        let kept = |status: Status| match status {
            Status::Ejected { cause, .. } | Status::Probing { cause, .. } => {
                matches!(cause, Cause::Auth | Cause::Misconfigured)
            }
            Status::Healthy { .. } | Status::Degraded { .. } => false,
        };
        if kept(change.from) || kept(change.to) {
            self.changed.push(index);
        }
        let provider = self.key_at(index).provider;
        let lane = &mut self.lanes[provider.at()];
        if lane.key == index && matches!(change.to, Status::Ejected { .. }) {
            lane.limit.halve();
        }
        let key = self.key_at(index);
        self.moved.push(Moved { provider: key.provider, part: key.part.clone(), change });
    }
}

#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;
