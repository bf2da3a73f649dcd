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
use super::window::Window;
use super::{ProviderIndex, ProviderSettings};
use crate::clock::Utc;

/// Pauses longer than this are kept over a restart.
const KEPT_PAUSE: Duration = Duration::from_secs(30);

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
    /// Whether it is a good witness.
    guard: Guard,
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
                if let Some(known) = self.by_part.get(&(provider, part.clone())) {
                    return *known;
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
        // Parts are apps and origins of one installation: far below u32.
        let index = KeyIndex(self.keys.len() as u32);
        let health = Health::new(settings.health, now);
        self.by_part.insert((provider, part.clone()), index);
        self.keys.push(Key {
            provider,
            part,
            health,
            paused_until: None,
            untimed_throttles: 0,
            guard: Guard::default(),
        });
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

    fn note(&mut self, index: KeyIndex, change: Option<Move>) {
        let Some(change) = change else { return };
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
