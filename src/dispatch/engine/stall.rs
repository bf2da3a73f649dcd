//! Vendors that take calls and say nothing any more (docs/semantics.md, "Provider
//! health"). A timeout finds them, but late: everything in flight waits for it,
//! and so does everyone behind.
//!
//! What counts is silence: not one byte, over any connection, while calls are in
//! flight. Half of `stall_after` into it the provider is asked for a sign of life,
//! so that a slow one is not taken for a dead one, and nothing is judged before
//! it had time to answer. Then three attempts in that silence eject the provider
//! and are cut; fewer might be one lost connection, so they have a second more,
//! and are cut as one failure.
//!
//! The driver tells when each provider was heard. Between two such words all is
//! as it was: nothing here is looked at for each answer.

use std::time::{Duration, Instant};

use pushyard_providers::Part;

use super::{AttemptId, Cut, Effect, Engine};
use crate::clock::Now;
use crate::routing::ProviderIndex;

/// So many attempts in one silence are a stall of the provider.
const STALLED: usize = 3;
/// Fewer have so much more time.
const FEW_MORE: Duration = Duration::from_secs(1);
/// When words of the driver are further apart than this, it was we who stood
/// still: what the vendor said meanwhile has not been read.
const OWN_PAUSE: Duration = Duration::from_secs(1);

/// How long a provider has been silent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Silence {
    /// When the driver last told of it.
    told: Option<Instant>,
    /// When we had stood still.
    paused: Option<Instant>,
    /// When it was asked for a sign of life.
    sounded: Option<Instant>,
    /// When to look again, whatever is told meanwhile.
    due: Option<Instant>,
}

impl Engine {
    /// When a silence becomes something else.
    pub(super) fn silence_wake(&self) -> Option<Instant> {
        self.silences.iter().filter_map(|silence| silence.due).min()
    }

    /// The last byte of a provider came at `last`.
    pub(super) fn heard(
        &mut self,
        provider: ProviderIndex,
        last: Instant,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let now = now.instant;
        let silence = &mut self.silences[provider.at()];
        let told = silence.told.replace(now);
        if told.is_none_or(|told| now.saturating_duration_since(told) > OWN_PAUSE) {
            silence.paused = Some(now);
        }
        let since = silence.paused.map_or(last, |paused| paused.max(last));
        let waiting = self.waiting(provider, since);
        let Some((oldest, _)) = waiting.first().copied() else {
            self.silences[provider.at()].due = None;
            return;
        };

        let stall_after = self.board.stall_after(provider, now);
        let half = stall_after / 2;
        let silence = &mut self.silences[provider.at()];
        let Some(sounded) = silence.sounded.filter(|sounded| *sounded >= oldest) else {
            if now >= oldest + half {
                silence.sounded = Some(now);
                silence.due = Some(now + half);
                effects.push(Effect::Sound(provider));
            } else {
                silence.due = Some(oldest + half);
            }
            return;
        };

        let third = waiting.get(STALLED - 1).map(|(began, _)| *began + stall_after);
        let few = oldest + stall_after + FEW_MORE;
        let due = third.map_or(few, |third| third.min(few)).max(sounded + half);
        if now < due {
            silence.due = Some(due);
            return;
        }
        let stalled = third.is_some_and(|third| now >= third);
        let old = if stalled { stall_after } else { stall_after + FEW_MORE };
        let cut = waiting.iter().filter(|(began, _)| now >= *began + old).map(|(_, id)| *id);
        let cut: Vec<AttemptId> = cut.collect();
        if stalled {
            let jitter = self.chance();
            self.board.stalled(provider, now, jitter);
        }
        // Those that are left, or begin now, are seen to at the next word.
        self.silences[provider.at()].due = None;
        self.dirty[provider.at()] = true;
        for (n, attempt) in cut.into_iter().enumerate() {
            let part = if n == 0 || stalled { Part::Provider } else { Part::Device };
            let cut = Cut::Silence(part);
            if let Some(flight) = self.flights.get_mut(&attempt) {
                flight.cut = Some(cut.clone());
            }
            effects.push(Effect::Cut(attempt, cut));
        }
    }

    /// The calls in flight, and since when each has heard nothing, longest first.
    fn waiting(&self, provider: ProviderIndex, since: Instant) -> Vec<(Instant, AttemptId)> {
        let flights = self
            .flights
            .iter()
            .filter(|(_, flight)| flight.candidate.provider == provider && flight.cut.is_none());
        let mut waiting: Vec<(Instant, AttemptId)> =
            flights.filter_map(|(id, flight)| Some((flight.called?.max(since), *id))).collect();
        waiting.sort_unstable();
        waiting
    }
}
