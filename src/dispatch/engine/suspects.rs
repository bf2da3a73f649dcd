//! Deliveries that may have ended the process (docs/semantics.md, "Poison").
//!
//! One crash is an accident: thousands were in flight. After several in a short
//! time those deliveries that were in flight at two of them go one at a time for
//! a minute, each attempt written down as such before it is made. One that ends
//! the process three times more like that fails as `poison`; all others, however
//! often someone kills the process, never do.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::super::deliveries::{Place, StubRef};
use super::super::fair::End;
use super::{Effect, Engine};
use crate::clock::Now;
use crate::model::{DeliveryId, Progress, Reason, State};

/// In flight at so many unclean ends in a row, a delivery is suspect.
const SUSPECT: u8 = 2;
/// In flight alone at so many, it is poison.
const POISON: u8 = 3;
/// The others go first.
const OTHERS_FIRST: Duration = Duration::from_secs(5);

/// The suspects of a safe minute.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// From when to when they go alone.
    time: Option<(Instant, Instant)>,
    waiting: VecDeque<DeliveryId>,
    going: Option<DeliveryId>,
}

impl Suspects {
    /// The minute begins.
    pub(super) fn begin(&mut self, now: Instant, minute: Duration) {
        self.time = Some((now + OTHERS_FIRST, now + minute));
    }

    /// When one may go, or all may.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let (from, until) = self.time.filter(|_| !self.waiting.is_empty())?;
        Some(if now < from { from } else { until })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.going.is_none()
    }
}

/// Whether a delivery has ended the process alone too often.
pub(super) fn is_poison(progress: &Progress) -> bool {
    progress.alone >= POISON
}

impl Engine {
    /// Sets a delivery found at start aside, if this is a safe minute and it may
    /// have ended the process.
    pub(super) fn set_apart(&mut self, at: StubRef) -> bool {
        let track = self.deliveries.stubs[at].track.as_ref();
        let crashes = track.map_or(0, |track| track.progress.crashes);
        if self.suspects.time.is_none() || crashes < SUSPECT {
            return false;
        }
        let id = self.deliveries.message_of(at).id.delivery(self.deliveries.stubs[at].n);
        self.deliveries.stubs[at].place = Place::Suspect;
        self.suspects.waiting.push_back(id);
        true
    }

    /// Lets the next suspect go when the one before has had its attempt, and all
    /// of them when the minute is over.
    pub(super) fn release_suspects(&mut self, now: Now) {
        let Some((_, until)) = self.suspects.time.filter(|(from, _)| now.instant >= *from) else {
            return;
        };
        if now.instant >= until {
            while let Some(id) = self.suspects.waiting.pop_front() {
                self.release(id, false, now);
            }
            (self.suspects.time, self.suspects.going) = (None, None);
            return;
        }
        let gone = self.suspects.going.is_none_or(|id| !self.goes_alone(id));
        while gone && let Some(id) = self.suspects.waiting.pop_front() {
            if self.release(id, true, now) {
                self.suspects.going = Some(id);
                return;
            }
        }
        if gone {
            self.suspects.going = None;
        }
    }

    fn goes_alone(&self, id: DeliveryId) -> bool {
        let at = self.deliveries.find_delivery(id);
        let track = at.and_then(|at| self.deliveries.stubs[at].track.as_ref());
        track.is_some_and(|track| track.alone)
    }

    /// Whether it was still there to be released.
    fn release(&mut self, id: DeliveryId, alone: bool, now: Now) -> bool {
        let Some(at) = self.deliveries.find_delivery(id) else { return false };
        if self.deliveries.stubs[at].place != Place::Suspect {
            return false;
        }
        self.deliveries.stubs[at].place = Place::Nowhere;
        self.track(at).alone = alone;
        self.enter(at, End::Front, now);
        true
    }

    /// An attempt of it has ended without ending the process.
    pub(super) fn cleared(&mut self, at: StubRef) {
        let Some(track) = &mut self.deliveries.stubs[at].track else { return };
        track.alone = false;
        (track.progress.crashes, track.progress.alone) = (0, 0);
    }

    /// A delivery that ended the process alone, again and again.
    pub(super) fn poisoned(&mut self, at: StubRef, now: Now, effects: &mut Vec<Effect>) {
        self.settle(at, State::Failed, Some(Reason::Poison), now, effects);
    }
}
