//! The only place that asks for the time.
//!
//! Everything else is handed a [`Now`]: an instant for windows and timeouts, and
//! the wall clock for what is stored. The two are read together and the wall
//! clock follows the boot-time clock between readings, so that a step of the
//! system's clock neither expires nor revives what is in memory
//! (docs/semantics.md, "Clocks").

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use pushyard_providers::clock::Clock as ProviderClock;
use serde::{Deserialize, Serialize};

/// A correction of the system's clock up to this much is taken up; a larger one
/// is held back, because it is more likely a mistake than drift.
const LARGEST_STEP: Duration = Duration::from_secs(5 * 60);

/// Drift is taken up by at most this share of the time that has passed, so that
/// the wall clock never runs backwards.
const SLEW_DIVISOR: u32 = 10;

/// A moment of the wall clock: milliseconds since the unix epoch, UTC.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Utc(u64);

impl Utc {
    /// From milliseconds since the unix epoch.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the unix epoch.
    pub const fn ms(self) -> u64 {
        self.0
    }

    /// This moment and `by` more.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    /// How long after `earlier` this is; zero when it is before.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// RFC 3339 with milliseconds, as the API shows times.
    pub fn rfc3339(self) -> String {
        let ms = i64::try_from(self.0).unwrap_or(i64::MAX);
        // Beyond the calendar of the library (year 9999) the raw number is shown.
        Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| format!("{time:.3}"))
    }
}

/// Whole milliseconds of a duration, saturating.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A moment on both clocks, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For windows and timeouts.
    pub instant: Instant,
    /// For what is stored.
    pub utc: Utc,
}

impl Now {
    /// Both clocks moved on by the same time; what tests step with.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self { instant: self.instant + by, utc: self.utc.plus(by) }
    }
}

/// Gives [`Now`].
#[derive(Debug)]
pub struct Clock {
    last: Mutex<Reading>,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    instant: Instant,
    /// Since the unix epoch. To the nanosecond, or many readings within a
    /// millisecond would make time stand still.
    utc: Duration,
    /// Whether a step of the system's clock is held back.
    held_back: bool,
}

impl Default for Clock {
    fn default() -> Self {
        let first = Reading { instant: monotonic(), utc: system_utc(), held_back: false };
        Self { last: Mutex::new(first) }
    }
}

impl Clock {
    /// The wall clock is taken to be at least at `utc`: what the process before
    /// saw must not lie in the future.
    pub fn not_before(&self, utc: Utc) {
        let mut last = self.last.lock().expect("no code panics while it holds this lock");
        last.utc = last.utc.max(Duration::from_millis(utc.ms()));
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        let mut last = self.last.lock().expect("no code panics while it holds this lock");
        *last = last.advance(monotonic(), system_utc());
        Now { instant: last.instant, utc: Utc(millis(last.utc)) }
    }

    /// Whether a step of the system's clock is being held back: an alarm.
    pub fn step_held_back(&self) -> bool {
        self.last.lock().expect("no code panics while it holds this lock").held_back
    }
}

impl ProviderClock for Clock {
    fn unix_ms(&self) -> u64 {
        self.now().utc.ms()
    }
}

impl Reading {
    /// The wall clock moves with the instant; what the system's clock differs by
    /// is taken up slowly, and not at all when it is a step.
    fn advance(self, instant: Instant, system: Duration) -> Self {
        let passed = instant.saturating_duration_since(self.instant);
        let expected = self.utc + passed;
        let ahead = system.saturating_sub(expected);
        let behind = expected.saturating_sub(system);
        let slew = passed / SLEW_DIVISOR;
        let (utc, held_back) = if ahead.max(behind) > LARGEST_STEP {
            (expected, true)
        } else {
            (expected + ahead.min(slew) - behind.min(slew), false)
        };
        Self { instant: instant.max(self.instant), utc, held_back }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that asks")]
fn monotonic() -> Instant {
    // tokio's clock, so that tests under paused time see it stand still.
    tokio::time::Instant::now().into_std()
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that asks")]
fn system_utc() -> Duration {
    // Before 1970 there is no valid time; zero sorts before every record.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::*;

    const S: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_secs(86_400);

    fn reading() -> Reading {
        Reading { instant: monotonic(), utc: 1_000_000 * S, held_back: false }
    }

    #[test]
    fn a_step_of_a_day_is_held_back_and_reported() {
        let start = reading();
        for system in [start.utc + DAY, start.utc - DAY] {
            let next = start.advance(start.instant + S, system);
            assert_eq!(next.utc, start.utc + S);
            assert!(next.held_back);
        }
    }

    proptest! {
        /// Invariant 24: whatever the system's clock does, what is loaded lives as long as
        /// it was to live, to a tenth.
        #[test]
        fn steps_of_the_system_clock_make_no_time(
            steps in proptest::collection::vec((1u64..5_000, -100_000_000i64..100_000_000), 1..60),
        ) {
            let start = reading();
            let (mut clock, mut instant, mut system) = (start, start.instant, start.utc);
            for (passed_ms, step_ms) in steps {
                let passed = Duration::from_millis(passed_ms);
                let step = Duration::from_millis(step_ms.unsigned_abs());
                instant += passed;
                system = if step_ms < 0 { system.saturating_sub(step) } else { system + step };
                let next = clock.advance(instant, system + passed);
                prop_assert!(next.utc >= clock.utc, "it never goes back");
                prop_assert!(next.utc - clock.utc <= passed.mul_f64(1.11));
                prop_assert!(next.utc - clock.utc >= passed.mul_f64(0.89));
                clock = next;
            }
        }
    }

    #[test]
    fn small_drift_is_taken_up_slowly_and_never_backwards() {
        let start = reading();
        let ahead = start.advance(start.instant + S, start.utc + 3 * S);
        assert_eq!(ahead.utc, start.utc + Duration::from_millis(1100));
        let behind = start.advance(start.instant + S, start.utc);
        assert_eq!(behind.utc, start.utc + Duration::from_millis(900));
    }

    #[test]
    fn time_does_not_stand_still_when_it_is_asked_often() {
        let start = reading();
        let step = Duration::from_micros(50);
        let mut clock = start;
        for n in 1..=20_000 {
            clock = clock.advance(start.instant + n * step, start.utc + n * step);
        }
        assert_eq!(clock.utc, start.utc + S);
    }

    #[test]
    fn times_are_shown_in_rfc_3339_with_milliseconds() {
        assert_eq!(Utc::from_ms(1_764_576_000_007).rfc3339(), "2025-12-01T08:00:00.007Z");
    }
}
