//! Exact counts of successes and failures over the last while, in ten buckets.
//!
//! A ring and not a decaying average: what it says can be checked by counting,
//! and it says the same at ten calls a second as at ten thousand.

use std::time::{Duration, Instant};

const BUCKETS: usize = 10;

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Which period since the start this bucket counts.
    period: u64,
    counts: Counts,
}

/// Counts over the last `length`.
#[derive(Clone, Debug)]
pub struct Window {
    start: Instant,
    bucket: Duration,
    buckets: [Bucket; BUCKETS],
}

/// What a window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that showed the key alive.
    pub successes: u32,
    /// Calls that failed.
    pub failures: u32,
    /// Successes that took longer than the bound above which a key is slow.
    pub slow: u32,
    /// Successes that took longer than the bound below which it is quick again.
    pub nearly_slow: u32,
}

impl Counts {
    /// Both together.
    pub const fn samples(self) -> u32 {
        self.successes + self.failures
    }

    /// Share of successes; 1 when there is no sample.
    pub fn ratio(self) -> f64 {
        if self.samples() == 0 {
            return 1.0;
        }
        f64::from(self.successes) / f64::from(self.samples())
    }

    /// Whether the latency that 95 of 100 successes keep is above the bound of
    /// `over`. Exact without keeping a latency: it is so when more than one in
    /// twenty took longer.
    pub const fn p95_above(self, over: u32) -> bool {
        over as u64 * 20 > self.successes as u64
    }
}

impl Window {
    /// An empty window.
    pub fn new(length: Duration, now: Instant) -> Self {
        // A period of zero would divide by zero; a millisecond is as good as none.
        let bucket = (length / BUCKETS as u32).max(Duration::from_millis(1));
        Self { start: now, bucket, buckets: [Bucket::default(); BUCKETS] }
    }

    /// Counts a call that ended now.
    pub fn record(&mut self, success: bool, now: Instant) {
        let period = self.period(now);
        let bucket = &mut self.buckets[(period % BUCKETS as u64) as usize];
        if bucket.period != period {
            *bucket = Bucket { period, ..Bucket::default() };
        }
        if success {
            bucket.counts.successes += 1;
        } else {
            bucket.counts.failures += 1;
        }
    }

    /// Counts a success that ended now, and whether it was slow.
    pub fn record_success(&mut self, slow: bool, nearly_slow: bool, now: Instant) {
        self.record(true, now);
        let period = self.period(now);
        let counts = &mut self.buckets[(period % BUCKETS as u64) as usize].counts;
        counts.slow += u32::from(slow);
        counts.nearly_slow += u32::from(nearly_slow);
    }

    /// What happened within the window.
    pub fn counts(&self, now: Instant) -> Counts {
        let period = self.period(now);
        self.buckets.iter().filter(|bucket| bucket.period + BUCKETS as u64 > period).fold(
            Counts::default(),
            |sum, Bucket { counts, .. }| Counts {
                successes: sum.successes + counts.successes,
                failures: sum.failures + counts.failures,
                slow: sum.slow + counts.slow,
                nearly_slow: sum.nearly_slow + counts.nearly_slow,
            },
        )
    }

    fn period(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.start).as_nanos();
        // Ten buckets ahead, so that the empty ones of the start are not "now".
        (passed / self.bucket.as_nanos()) as u64 + BUCKETS as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn counts_are_forgotten_after_the_window_and_not_before() {
        let start = Clock::default().now().instant;
        let mut window = Window::new(Duration::from_secs(30), start);
        window.record(true, start);
        window.record(false, start + Duration::from_secs(10));
        let at = |s| window.counts(start + Duration::from_secs(s));
        assert_eq!(at(29), Counts { successes: 1, failures: 1, ..Counts::default() });
        assert_eq!(at(31), Counts { failures: 1, ..Counts::default() });
        assert_eq!(at(60), Counts::default());
        assert!((at(60).ratio() - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn p95_is_above_a_bound_when_more_than_one_in_twenty_is() {
        let counts = Counts { successes: 40, ..Counts::default() };
        for (over, above) in [(0, false), (2, false), (3, true), (40, true)] {
            assert_eq!(counts.p95_above(over), above, "{over}");
        }
        assert!(!Counts::default().p95_above(0), "nothing is not slow");
    }
}
