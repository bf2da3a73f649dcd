//! What can be seen of the engine: a message's unsettled deliveries, and the
//! snapshot that the admin API, the console and the metrics read. They never
//! stop the dispatcher: it publishes, they look.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashSet;
use pushyard_providers::{Answer, Priority};

use super::super::deliveries::{Place, StubRef};
use super::super::fair::Lane;
use super::Engine;
use crate::clock::{Now, Utc};
use crate::model::{DeliveryId, MessageId, Progress, Reason, State};
use crate::routing::{Counts, Hold, Key, Overrides, Pass, ProviderIndex, Status};

/// Everything that can be seen, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// When.
    pub at: Utc,
    /// In the order of the configuration.
    pub providers: Vec<ProviderView>,
    /// What waits.
    pub queue: QueueView,
    /// By route: the best tier that has a usable provider.
    pub usable_tiers: Vec<(Arc<str>, Option<u8>)>,
    /// Routes that an operator has changed.
    pub overrides: Overrides,
    /// Routes that an operator has paused.
    pub paused_routes: BTreeSet<Arc<str>>,
    /// Clients that an operator has paused.
    pub paused_clients: BTreeSet<Arc<str>>,
}

/// A health key: part, state, reason.
pub type KeyView = (String, &'static str, Option<&'static str>);

/// One provider.
#[derive(Clone, Debug)]
pub struct ProviderView {
    /// Its id.
    pub id: Arc<str>,
    /// Its kind.
    pub kind: &'static str,
    /// One of the five words of the API.
    pub state: &'static str,
    /// Why, when it is not healthy.
    pub reason: Option<&'static str>,
    /// Since when.
    pub since: Utc,
    /// Until when, if a time is set.
    pub until: Option<Utc>,
    /// Length of the passive window, in seconds.
    pub window_s: u64,
    /// What the window holds.
    pub counts: Counts,
    /// Latency quantiles of the latest answers: p50, p95, p99.
    pub latency_ms: [u32; 3],
    /// Calls in flight.
    pub in_flight: u32,
    /// How many there may be.
    pub limit: u32,
    /// Calls a second that the configuration allows.
    pub rate: Option<f64>,
    /// Deliveries that could go there and wait.
    pub parked: usize,
    /// The vendor asked to wait until then.
    pub paused_until: Option<Utc>,
    /// An operator's order to keep it out of use.
    pub hold: Option<Hold>,
    /// Its parts, the whole first: part, state, reason.
    pub keys: Vec<KeyView>,
    /// The latest answers that were not accepted.
    pub last_errors: Vec<(Utc, Answer)>,
    /// The latest probe: when, whether it was good, and what was wrong.
    pub last_probe: Option<(Utc, bool, Option<Arc<str>>)>,
    /// Money spent.
    pub cost: f64,
}

/// What waits.
#[derive(Clone, Debug, Default)]
pub struct QueueView {
    /// Nothing has been tried of them.
    pub queued: u64,
    /// In flight.
    pub sending: u64,
    /// Tried, and waiting for a time or a provider.
    pub waiting: u64,
    /// The oldest that waits, by route and priority.
    pub oldest: Vec<(Arc<str>, Priority, Utc)>,
}

impl Engine {
    /// A message's unsettled deliveries, by place.
    pub fn live(&self, id: MessageId, now: Now) -> Vec<(u16, Progress)> {
        let Some(message) = self.deliveries.find(id) else { return Vec::new() };
        let mut found: Vec<(u16, Progress)> = self
            .deliveries
            .of_message(message)
            .into_iter()
            .map(|at| (self.deliveries.stubs[at].n, self.progress_of(at, now)))
            .collect();
        found.sort_unstable_by_key(|(n, _)| *n);
        found
    }

    fn progress_of(&self, at: StubRef, now: Now) -> Progress {
        let stub = &self.deliveries.stubs[at];
        let accepted_at = self.deliveries.message_of(at).id.accepted_at();
        let mut progress = stub
            .track
            .as_ref()
            .map_or_else(|| Progress::queued(accepted_at), |track| track.progress.clone());
        let tried = progress.tries > 0;
        let waiting = if tried { State::Waiting } else { State::Queued };
        match stub.place {
            // Its end is not on disk yet, so it may not be told.
            Place::Flight | Place::Settled => {
                (progress.state, progress.reason) = (State::Sending, None);
            }
            Place::Lane => {
                progress.state = waiting;
                progress.reason = self.parked_reason(at, now).or(progress.reason);
            }
            Place::Nowhere
            | Place::Ready(..)
            | Place::Loading
            | Place::Timer
            | Place::Held
            | Place::Suspect
            | Place::Free => progress.state = waiting,
        }
        progress
    }

    fn parked_reason(&self, at: StubRef, now: Now) -> Option<Reason> {
        let shape = &self.lanes.lane(self.deliveries.stubs[at].shape).shape;
        if shape.candidates.is_empty() {
            return Some(Reason::NoCandidate);
        }
        let open = |candidate: &crate::routing::Candidate| {
            self.board.open(&candidate.keys, Pass::Usual, now.instant).is_ok()
        };
        (!shape.candidates.iter().any(open)).then_some(Reason::Parked)
    }

    /// Whether nothing is held in memory: no delivery, message, attempt, body, or
    /// anyone who waits.
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
            && self.lanes.is_empty()
            && self.collapse.is_empty()
            && self.ready.iter().all(|queue| queue.is_empty())
            && self.flights.is_empty()
            && self.unflushed.is_empty()
            && self.waiters.is_empty()
            && self.loading.is_empty()
            && self.inquiries.is_empty()
            && self.suspects.is_empty()
            && self.bodies == 0
            && self.clients.iter().all(|client| client.unsettled == 0)
    }

    /// Whether an attempt at this delivery has begun and not ended.
    pub fn is_in_flight(&self, id: DeliveryId) -> bool {
        self.is_at(id, Place::Flight)
    }

    /// Whether that attempt is its last try, made although nothing was usable.
    pub fn is_last_try(&self, id: DeliveryId) -> bool {
        let at = self.deliveries.find_delivery(id);
        let flight = self.flights.values().find(|flight| Some(flight.stub) == at);
        flight.is_some_and(|flight| flight.permit.is_last_try())
    }

    /// Whether this delivery waits for its turn to go alone.
    pub fn is_suspect(&self, id: DeliveryId) -> bool {
        self.is_at(id, Place::Suspect)
    }

    /// Routes that an operator has paused.
    pub fn paused_routes(&self) -> &BTreeSet<Arc<str>> {
        &self.orders.paused_routes
    }

    fn is_at(&self, id: DeliveryId, place: Place) -> bool {
        self.deliveries.find_delivery(id).is_some_and(|at| self.deliveries.stubs[at].place == place)
    }

    /// Everything that can be seen.
    pub fn snapshot(&self, now: Now) -> Snapshot {
        let providers = self
            .board
            .lanes()
            .filter(|(provider, _)| !self.catalog.provider(*provider).retired)
            .map(|(provider, _)| self.provider_view(provider, now))
            .collect();
        let unsettled = self.deliveries.unsettled();
        // A broadcast has several attempts in flight.
        let sending: HashSet<StubRef> = self.flights.values().map(|flight| flight.stub).collect();
        let sending = (sending.len() as u64).min(unsettled);
        let waiting = self.deliveries.tried().min(unsettled - sending);
        Snapshot {
            at: now.utc,
            providers,
            queue: QueueView {
                queued: unsettled - sending - waiting,
                sending,
                waiting,
                oldest: self.oldest_waiting(now.utc),
            },
            usable_tiers: self.usable_tiers(now),
            overrides: self.orders.overrides.clone(),
            paused_routes: self.orders.paused_routes.clone(),
            paused_clients: self.orders.paused_clients.clone(),
        }
    }

    /// Deliveries that could go to the provider and wait because none of their
    /// candidates is usable.
    fn parked(&self, provider: ProviderIndex, now: Now) -> usize {
        let open = |candidate: &crate::routing::Candidate| {
            self.board.open(&candidate.keys, Pass::Usual, now.instant).is_ok()
        };
        let parked = |lane: &&Lane| {
            let candidates = &lane.shape.candidates;
            candidates.iter().any(|candidate| candidate.provider == provider)
                && !candidates.iter().any(open)
        };
        self.lanes.all().filter(parked).map(Lane::len).sum()
    }

    fn usable_tiers(&self, now: Now) -> Vec<(Arc<str>, Option<u8>)> {
        let usable = |provider: ProviderIndex| {
            if self.board.held(provider).is_some() {
                return false;
            }
            let key = self.board.key_at(self.board.lane(provider).key);
            let paused = key.paused_until.is_some_and(|until| until > now.instant);
            match key.health.status() {
                // On probation it is used, if carefully.
                Status::Healthy { .. } | Status::Degraded { .. } | Status::Probing { .. } => {
                    !paused
                }
                Status::Ejected { .. } => false,
            }
        };
        self.catalog
            .routes
            .iter()
            .map(|route| {
                let tier = route
                    .tiers
                    .iter()
                    .position(|tier| tier.iter().any(|member| usable(member.provider)));
                (route.name.clone(), tier.map(|tier| tier as u8))
            })
            .collect()
    }

    /// A provider's state in the words of the API: state, reason.
    pub(super) fn provider_words(
        &self,
        provider: ProviderIndex,
    ) -> (&'static str, Option<&'static str>) {
        let key = self.board.key_at(self.board.lane(provider).key);
        self.board.held(provider).map_or_else(
            || status_words(key.health.status()),
            |hold| (if hold.ejected { "ejected" } else { "drained" }, Some("operator")),
        )
    }

    fn provider_view(&self, provider: ProviderIndex, now: Now) -> ProviderView {
        let lane = self.board.lane(provider);
        let key = self.board.key_at(lane.key);
        let hold = self.board.held(provider).cloned();
        let (state, reason) = self.provider_words(provider);
        let until = match key.health.status() {
            Status::Ejected { until, .. } => Some(utc_of(until, now)),
            Status::Healthy { .. } | Status::Degraded { .. } | Status::Probing { .. } => None,
        };
        ProviderView {
            id: lane.settings.id.clone(),
            kind: lane.settings.kind,
            state,
            reason,
            since: self.since[provider.at()],
            until: hold.as_ref().map_or(until, |hold| hold.until),
            hold,
            window_s: lane.settings.health.window.as_secs(),
            counts: key.health.counts(now.instant),
            latency_ms: lane.latency.quantiles_ms([0.5, 0.95, 0.99]),
            in_flight: lane.in_flight,
            limit: self.board.allowed(provider, now.instant),
            rate: lane.settings.rate.map(|rate| rate.per_second),
            parked: self.parked(provider, now),
            paused_until: key.paused_until.filter(|at| *at > now.instant).map(|at| utc_of(at, now)),
            keys: self.board.keys_of(provider).map(key_view).collect(),
            last_errors: lane.last_errors.clone(),
            last_probe: lane.last_probe.clone(),
            cost: lane.accepted as f64 * lane.settings.cost_per_million / 1e6,
        }
    }
}

pub(super) fn key_view(key: &Key) -> KeyView {
    let (state, reason) = status_words(key.health.status());
    (key.part.text().to_owned(), state, reason)
}

/// A breaker's position in the words of the API: state, reason.
pub(in crate::dispatch) fn status_words(status: Status) -> (&'static str, Option<&'static str>) {
    match status {
        Status::Healthy { .. } => ("healthy", None),
        Status::Degraded { cause, .. } => ("degraded", Some(cause.word())),
        Status::Ejected { cause, .. } => ("ejected", Some(cause.word())),
        Status::Probing { cause, .. } => ("probing", Some(cause.word())),
    }
}

pub(super) fn utc_of(at: std::time::Instant, now: Now) -> Utc {
    now.utc.plus(at.saturating_duration_since(now.instant))
}

impl Engine {
    /// Whether a delivery is unsettled.
    pub fn is_unsettled(&self, id: DeliveryId) -> bool {
        let found = self.deliveries.find_delivery(id);
        found.is_some_and(|at| self.deliveries.stubs[at].place != Place::Settled)
    }
}
