//! What must outlive a restart: pauses that the vendor asked for, refused
//! credentials, and what has been spent.

use std::sync::Arc;

use pushyard_providers::Part;

use super::super::ProviderIndex;
use super::super::budget::{Over, Spent};
use super::super::health::{Cause, Status};
use super::{Board, KEPT_PAUSE, KeyIndex, Lane};
use crate::clock::{Now, Utc};

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

impl Board {
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
            Status::Ejected { .. }
            | Status::Healthy { .. }
            | Status::Degraded { .. }
            | Status::Probing { .. } => None,
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
            self.restless.insert(index);
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
}
