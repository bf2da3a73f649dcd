//! How many messages there were, in all and a second: what `/v1/stats` tells.
//!
//! Counted by the minute for ten minutes. The minute that runs counts as far as it
//! has come, so that a burst is seen at once and fades after ten minutes.

use std::sync::{Mutex, PoisonError};

const MINUTES: usize = 10;

/// The window of the rate, in seconds.
const WINDOW: f64 = MINUTES as f64 * 60.0;

#[derive(Debug)]
pub(super) struct Pace(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    total: u64,
    /// By minute, as a ring.
    minutes: [u64; MINUTES],
    /// The last one that was counted in, since the unix epoch.
    minute: u64,
}

impl Pace {
    /// With what there was before.
    pub(super) fn new(total: u64) -> Self {
        Self(Mutex::new(Counts { total, minutes: [0; MINUTES], minute: 0 }))
    }

    /// `many` more at `now` (unix seconds).
    pub(super) fn count(&self, many: u64, now: u64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.turn(now);
        counts.total += many;
        let at = counts.minute as usize % MINUTES;
        counts.minutes[at] += many;
    }

    /// All of them, and how many a second at `now` (unix seconds).
    pub(super) fn figures(&self, now: u64) -> (u64, f64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.turn(now);
        (counts.total, counts.minutes.iter().sum::<u64>() as f64 / WINDOW)
    }
}

impl Counts {
    /// Forgets the minutes that are over.
    fn turn(&mut self, now: u64) {
        let minute = now / 60;
        // A clock that was set back counts into the minute that it left.
        let passed = minute.saturating_sub(self.minute).min(MINUTES as u64);
        for over in 0..passed {
            self.minutes[(minute - over) as usize % MINUTES] = 0;
        }
        self.minute = self.minute.max(minute);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_seen_at_once_and_fades_after_ten_minutes() {
        let pace = Pace::new(7);
        let start = 1_800_000_000;
        pace.count(600, start);
        assert_eq!(pace.figures(start), (607, 1.0));
        pace.count(600, start + 120);
        assert_eq!(pace.figures(start + 9 * 60), (1207, 2.0));
        assert_eq!(pace.figures(start + 10 * 60), (1207, 1.0));
        assert_eq!(pace.figures(start), (1207, 1.0), "a clock that was set back");
        assert_eq!(pace.figures(start + 100 * 60), (1207, 0.0));
    }
}
