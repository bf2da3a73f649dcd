//! When to probe. Evidence from real calls comes first: a provider that works
//! needs no probe, and a vendor is never asked more often than it bears.

use std::time::{Duration, Instant};

use pushyard_providers::{Answer, Outcome, Proves};

use super::{Effect, Engine, Fact};
use crate::clock::Now;
use crate::routing::{ProviderIndex, Status};

/// A probe comes up to this much earlier or later, so that instances do not
/// probe together (Envoy).
const JITTER: f64 = 0.15;

/// A provider's next probe.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Schedule {
    /// `None`: never.
    due: Option<Instant>,
    last: Option<Instant>,
    in_flight: bool,
}

impl Engine {
    pub(super) fn schedule_probes(&mut self, now: Now) {
        self.probes = (0..self.catalog.providers.len()).map(|_| Schedule::default()).collect();
        for at in 0..self.probes.len() {
            self.schedule_probe(ProviderIndex(at as u16), now.instant);
        }
    }

    /// Sets the time of the next probe from the provider's state.
    pub(super) fn schedule_probe(&mut self, provider: ProviderIndex, now: Instant) {
        let built = self.catalog.provider(provider);
        let profile = built.provider.profile().probe;
        let wanted = !built.retired && profile.proves != Proves::Nothing;
        let Some(settings) = built.settings.probe.filter(|_| wanted) else {
            self.probes[provider.at()].due = None;
            return;
        };
        let interval =
            if self.ejected(provider) { settings.ejected_interval } else { settings.interval };
        let jitter = 1.0 + (self.chance() * 2.0 - 1.0) * JITTER;
        let at = now + interval.mul_f64(jitter);
        let borne = self.probes[provider.at()].last.map(|last| last + profile.min_interval);
        self.probes[provider.at()].due = Some(borne.map_or(at, |borne| at.max(borne)));
    }

    fn ejected(&self, provider: ProviderIndex) -> bool {
        let health = &self.board.key_at(self.board.lane(provider).key).health;
        match health.status() {
            Status::Ejected { .. } => true,
            Status::Healthy { .. } | Status::Degraded { .. } | Status::Probing { .. } => false,
        }
    }

    pub(super) fn probe_wake(&self) -> Option<Instant> {
        self.probes.iter().filter(|probe| !probe.in_flight).filter_map(|probe| probe.due).min()
    }

    pub(super) fn probe_due(&mut self, now: Now, effects: &mut Vec<Effect>) {
        for at in 0..self.probes.len() {
            let provider = ProviderIndex(at as u16);
            let probe = self.probes[at];
            if probe.in_flight || probe.due.is_none_or(|due| due > now.instant) {
                continue;
            }
            if self.quiet_enough(provider, now.instant) && !self.draining {
                self.probes[at].in_flight = true;
                self.probes[at].last = Some(now.instant);
                effects.push(Effect::Probe(provider));
            } else {
                self.schedule_probe(provider, now.instant);
            }
        }
    }

    /// Whether nothing else tells of the provider: it is ejected, or idle.
    fn quiet_enough(&self, provider: ProviderIndex, now: Instant) -> bool {
        let built = self.catalog.provider(provider);
        if !built.provider.profile().probe.only_when_quiet || self.ejected(provider) {
            return true;
        }
        let interval = built.settings.probe.map_or(Duration::ZERO, |probe| probe.interval);
        let health = &self.board.key_at(self.board.lane(provider).key).health;
        health.last_success().is_none_or(|at| now.saturating_duration_since(at) >= interval)
    }

    pub(super) fn probed(
        &mut self,
        provider: ProviderIndex,
        answer: &Answer,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let proves = match self.catalog.provider(provider).provider.profile().probe.proves {
            Proves::Credential | Proves::Sending => true,
            Proves::Nothing | Proves::Reach => false,
        };
        let jitter = self.chance();
        self.board.probed(provider, answer, proves, now, jitter);
        self.probes[provider.at()].in_flight = false;
        self.schedule_probe(provider, now.instant);
        self.dirty[provider.at()] = true;
        let ok = answer.outcome == Outcome::Accepted;
        effects.push(Effect::Tell(Fact::Probed { provider, ok, answer: Box::new(answer.clone()) }));
    }
}
