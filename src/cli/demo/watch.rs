//! What can be seen of a running demo: the router's own words about its
//! providers, its counters, and the ledger of the simulator.
//!
//! One look after another; rates and events are the differences between looks,
//! so that nothing has to be subscribed to.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::cli::load::Failure;
use crate::cli::load::admin::{Admin, Provider};
use crate::cli::load::control::Control;
use crate::cli::load::generator::Progress;
use crate::clock::Clock;

/// Rates are over this time: shorter ones flicker.
const RATE_OVER: Duration = Duration::from_secs(1);

/// One look.
#[derive(Clone, Debug, Default)]
pub(super) struct Sight {
    /// When, from the beginning of the demo.
    pub(super) at: Duration,
    /// The providers, in the order of the configuration.
    pub(super) providers: Vec<Seen>,
    /// Deliveries accepted by the router.
    pub(super) accepted: u64,
    /// Pushes taken by the vendors.
    pub(super) taken: u64,
    /// Deliveries that are not settled.
    pub(super) unsettled: u64,
    /// Calls that were refused or not answered.
    pub(super) refused: u64,
}

/// A provider in one look.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// In the router's own words.
    pub(super) provider: Provider,
    /// Attempts that it accepted so far.
    pub(super) accepted: u64,
    /// The same, a second.
    pub(super) rate: f64,
    /// Failovers away from it so far.
    pub(super) failovers: u64,
}

/// Looks again and again.
pub(super) struct Watch {
    admin: Admin,
    control: Control,
    progress: Arc<Progress>,
    clock: Arc<Clock>,
    begun: Instant,
    /// The looks of the last second, the oldest first.
    before: VecDeque<Sight>,
}

impl Watch {
    pub(super) fn new(
        admin: Admin,
        control: Control,
        progress: Arc<Progress>,
        clock: Arc<Clock>,
    ) -> Self {
        let begun = clock.now().instant;
        Self { admin, control, progress, clock, begun, before: VecDeque::new() }
    }

    /// A look, and what has happened since the one before.
    pub(super) async fn look(&mut self) -> Result<(Sight, Vec<String>), Failure> {
        let providers = self.admin.providers().await?;
        let metrics = self.admin.metrics().await?;
        let taken = self.control.taken().await?;
        let seen = |provider: Provider| {
            let id = provider.id.clone();
            let accepted = [("provider", id.as_str()), ("outcome", "Accepted")];
            Seen {
                accepted: metrics.sum("pushyard_attempts_total", &accepted),
                failovers: metrics.sum("pushyard_failovers_total", &[("from", &id)]),
                rate: 0.0,
                provider,
            }
        };
        let mut sight = Sight {
            at: self.clock.now().instant.saturating_duration_since(self.begun),
            providers: providers.into_iter().map(seen).collect(),
            accepted: self.progress.accepted.load(Relaxed),
            taken,
            unsettled: metrics.unsettled(),
            refused: self.progress.refused.load(Relaxed) + self.progress.unanswered.load(Relaxed),
        };
        let events = self.before.back().map(|last| changes(last, &sight)).unwrap_or_default();
        if let Some(oldest) = self.before.front() {
            rate(oldest, &mut sight);
        }
        self.before.push_back(sight.clone());
        // The oldest is the youngest that is at least so old.
        while self.before.get(1).is_some_and(|second| sight.at - second.at >= RATE_OVER) {
            self.before.pop_front();
        }
        Ok((sight, events))
    }
}

fn rate(oldest: &Sight, sight: &mut Sight) {
    let time = sight.at.saturating_sub(oldest.at).as_secs_f64();
    for seen in &mut sight.providers {
        let before = oldest.providers.iter().find(|one| one.provider.id == seen.provider.id);
        let before = before.map_or(0, |before| before.accepted);
        seen.rate = seen.accepted.saturating_sub(before) as f64 / time.max(0.001);
    }
}

/// Changes of state and first failovers, in words.
fn changes(last: &Sight, sight: &Sight) -> Vec<String> {
    let mut events = Vec::new();
    for (before, seen) in last.providers.iter().zip(&sight.providers) {
        let (id, state) = (&seen.provider.id, &seen.provider.state);
        if before.provider.state != *state {
            let why = seen.provider.reason.as_ref().map(|why| format!(" ({why})"));
            events.push(format!("{id} is {state}{}", why.unwrap_or_default()));
        }
        match (&before.provider.paused_until, &seen.provider.paused_until) {
            (None, Some(_)) => events.push(format!("{id} is paused: the vendor asked for it")),
            (Some(_), None) => events.push(format!("{id} is no longer paused")),
            (None, None) | (Some(_), Some(_)) => {}
        }
        if before.failovers == 0 && seen.failovers > 0 {
            events.push(format!("first failover away from {id}"));
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(at_ms: u64, state: &str, accepted: u64, failovers: u64) -> Sight {
        let provider =
            Provider { id: "apns".to_owned(), state: state.to_owned(), ..Provider::default() };
        Sight {
            at: Duration::from_millis(at_ms),
            providers: vec![Seen { provider, accepted, rate: 0.0, failovers }],
            ..Sight::default()
        }
    }

    #[test]
    fn rate_is_what_was_accepted_in_the_time_between() {
        let mut now = sight(2000, "healthy", 500, 0);
        rate(&sight(1000, "healthy", 300, 0), &mut now);
        assert_eq!(now.providers[0].rate, 200.0);
    }

    #[test]
    fn changes_of_state_are_told_with_their_reason() {
        let mut ejected = sight(2, "ejected", 0, 1);
        ejected.providers[0].provider.reason = Some("consecutive".to_owned());
        let events = changes(&sight(1, "healthy", 0, 0), &ejected);
        assert_eq!(events, ["apns is ejected (consecutive)", "first failover away from apns"]);
        assert_eq!(changes(&ejected, &ejected), [""; 0]);
    }

    #[test]
    fn pauses_are_told_when_they_begin_and_end() {
        let free = sight(1, "healthy", 0, 0);
        let mut paused = sight(2, "healthy", 0, 0);
        paused.providers[0].provider.paused_until = Some("2026-11-24T11:05:27.000Z".to_owned());
        assert_eq!(changes(&free, &paused).len(), 1);
        assert_eq!(changes(&paused, &free), ["apns is no longer paused"]);
    }
}
