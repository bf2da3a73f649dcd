//! What people order: an operator's hold on a provider, and another configuration.

use std::time::Instant;

use super::super::health::{Cause, Status};
use super::super::hold::Hold;
use super::super::{Catalog, ProviderIndex};
use super::{Board, KeyIndex};

impl Board {
    /// Keeps a provider out of use, or lets it back: on probation where it, or a part
    /// of it, was ejected, by the operator or for another reason.
    pub fn hold(&mut self, provider: ProviderIndex, hold: Option<Hold>, now: Instant) {
        let lane = &mut self.lanes[provider.at()];
        let (ends, whole) = (hold.is_none(), lane.key);
        let before = std::mem::replace(&mut lane.hold, hold);
        let thrown_out = before.is_some_and(|hold| hold.ejected);
        for at in (0..self.keys.len() as u32).map(KeyIndex).filter(|_| ends) {
            let key = &mut self.keys[at.0 as usize];
            let cause = match key.health.status() {
                _ if key.provider != provider || key.dropped => None,
                Status::Ejected { cause, .. } => Some(cause),
                Status::Healthy { .. } | Status::Degraded { .. } => {
                    (at == whole && thrown_out).then_some(Cause::Operator)
                }
                Status::Probing { .. } => None,
            };
            if let Some(cause) = cause {
                let moved = key.health.probation(cause, now);
                self.note(at, moved);
            }
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
                key.health.set_settings(settings.health, now);
                let cause = match key.health.status() {
                    Status::Ejected { cause, .. } => Some(cause),
                    Status::Healthy { .. } | Status::Degraded { .. } | Status::Probing { .. } => {
                        None
                    }
                };
                if let Some(cause) = cause.filter(|_| changed.contains(&provider)) {
                    let moved = key.health.probation(cause, now);
                    self.note(KeyIndex(at as u32), moved);
                }
            }
        }
    }
}
