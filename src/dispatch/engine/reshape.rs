//! Another configuration, or a route changed by an operator: deliveries are
//! planned anew before anything else is done with them. Their lanes are stale
//! until then and give nothing away; those whose bodies are on disk are read back
//! a few at a time, as for an attempt.

use std::sync::Arc;

use super::super::deliveries::{Place, StubRef};
use super::super::fair::End;
use super::super::{Limits, Settings};
use super::gone::still_gone;
use super::{Effect, Engine, probe};
use crate::clock::Now;
use crate::model::{Body, EventKinds};
use crate::routing::{Catalog, ProviderIndex};

/// Deliveries planned anew in one turn, so that answers do not wait meanwhile.
const AT_ONCE: usize = 512;

/// A configuration to go on with.
#[derive(Clone, Debug)]
pub struct Reconfigured {
    /// Providers keep their places; new ones come after them. Routes as
    /// configured.
    pub catalog: Arc<Catalog>,
    /// Providers that were built anew.
    pub changed: Vec<ProviderIndex>,
    /// `[dispatch]`.
    pub settings: Settings,
    /// `[limits]`.
    pub limits: Limits,
    /// What clients are told of.
    pub subscribed: Vec<(Arc<str>, EventKinds)>,
}

impl Engine {
    pub(super) fn reconfigured(
        &mut self,
        reconfigured: &Reconfigured,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Reconfigured { catalog, changed, settings, limits, subscribed } = reconfigured;
        self.subscribe(subscribed.clone());
        (self.settings, self.limits) = (*settings, *limits);
        self.orders.routes.clone_from(&catalog.routes);
        self.catalog = Arc::new(self.orders.effective(catalog));
        let providers = self.catalog.providers.len();
        self.board.reconfigure(&self.catalog, changed, now.instant);
        self.lanes.grow(providers);
        self.loading.grow(providers);
        self.ready.resize(providers, super::List::default());
        self.dirty.resize(providers, true);
        self.silences.resize(providers, super::stall::Silence::default());
        self.since.resize(providers, now.utc);
        self.turns = vec![0; self.catalog.routes.len()];
        for at in self.probes.len()..providers {
            self.probes.push(probe::Schedule::default());
            self.schedule_probe(ProviderIndex(at as u16), now.instant);
        }
        for provider in changed {
            self.silences[provider.at()] = super::stall::Silence::default();
            self.schedule_probe(*provider, now.instant);
        }
        effects.push(Effect::Catalog(self.catalog.clone()));
        self.plan_anew(now);
    }

    /// What was planned holds no more.
    pub(super) fn plan_anew(&mut self, now: Now) {
        self.lanes.make_stale();
        self.gather_ready(now);
        self.dirty.fill(true);
        self.due = now.instant;
    }

    /// Plans a delivery anew that was planned before the last change, if its body
    /// is at hand. It must be in no list.
    pub(super) fn freshen(&mut self, at: StubRef, body: Option<&Arc<Body>>, now: Now) {
        if !self.is_stale(at) {
            return;
        }
        let old = self.deliveries.stubs[at].shape;
        let entry = self.deliveries.message_of(at);
        let Some(body) = body.or(entry.body.as_ref()).cloned() else { return };
        let recipient = &body.message().recipients[usize::from(self.deliveries.stubs[at].n)];
        let track = self.deliveries.stubs[at].track.as_ref();
        let excluded = track.map_or_else(Vec::new, |track| track.progress.excluded.clone());
        let known = self.known_gone(&body.message().client, &recipient.addresses, now);
        let gone = still_gone(&known);
        let shape = self.shape(&body, recipient, &excluded, &gone, now);
        self.deliveries.stubs[at].shape = self.lanes.join(shape);
        self.lanes.leave(old);
    }

    /// Whether a delivery was planned before the last change.
    pub(super) fn is_stale(&self, at: StubRef) -> bool {
        self.lanes.lane(self.deliveries.stubs[at].shape).is_stale()
    }

    /// Those of a delivery's message that wait in stale lanes, as its body is at hand.
    pub(super) fn freshen_siblings(&mut self, at: StubRef, now: Now) {
        for at in self.deliveries.of_message(self.deliveries.stubs[at].message) {
            if self.deliveries.stubs[at].place == Place::Lane && self.is_stale(at) {
                self.take_out(at);
                self.enter(at, End::Back, now);
            }
        }
    }

    /// Some of those that wait in stale lanes. Returns whether more do.
    pub(super) fn freshen_some(&mut self, now: Now, effects: &mut Vec<Effect>) -> bool {
        for _ in 0..AT_ONCE {
            let Some(at) = self.lanes.first_stale() else { return false };
            if self.deliveries.message_of(at).body.is_some() {
                self.take_out(at);
                self.enter(at, End::Back, now);
            } else if !self.loading.is_full() {
                self.read_back(at, None, effects);
            } else {
                // The next read that comes back goes on.
                return false;
            }
        }
        true
    }
}
