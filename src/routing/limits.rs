//! How much a provider is given at once and in a second.
//!
//! Both figures belong to the core because it makes every call and so knows them
//! exactly; the layers around a provider keep no count of their own.

use std::time::{Duration, Instant};

use super::Rate;

/// Before anything is known.
const START: f64 = 20.0;
/// A provider is never given less, or it could not show that it has recovered.
const LEAST: f64 = 4.0;
/// The same, for bounds that come from elsewhere.
pub(super) const LEAST_BOUND: u32 = LEAST as u32;
/// What remains after a sign of overload.
const DECREASE: f64 = 0.7;

/// The number of calls that may be in flight, found as TCP finds its window:
/// doubling until the first failure, then one more for each window of answers,
/// and a third less for a failure, at most once a round trip.
#[derive(Clone, Debug)]
pub struct ConcurrencyLimit {
    limit: f64,
    most: f64,
    grown_until_failure: bool,
    decreased: Option<Instant>,
}

impl ConcurrencyLimit {
    /// Starts at 20, never above `most`.
    pub fn new(most: u32) -> Self {
        let most = f64::from(most.max(1));
        Self { limit: START.min(most), most, grown_until_failure: false, decreased: None }
    }

    /// The present limit.
    pub fn get(&self) -> u32 {
        self.limit as u32
    }

    /// A new bound, from the configuration and what the open connections allow.
    pub fn bound(&mut self, most: u32) {
        self.most = f64::from(most.max(1));
        self.limit = self.limit.min(self.most);
    }

    /// A call succeeded while `in_flight` were. A limit that is not used is not raised.
    pub fn succeeded(&mut self, in_flight: u32) {
        if f64::from(in_flight) < self.limit / 2.0 {
            return;
        }
        let step = if self.grown_until_failure { 1.0 / self.limit } else { 1.0 };
        self.limit = (self.limit + step).min(self.most);
    }

    /// A sign of overload: a failure or a throttle.
    pub fn overloaded(&mut self, rtt: Duration, now: Instant) {
        self.grown_until_failure = true;
        if self.decreased.is_some_and(|at| now.saturating_duration_since(at) < rtt) {
            return;
        }
        self.decreased = Some(now);
        self.limit = (self.limit * DECREASE).max(LEAST).min(self.most);
    }

    /// After an ejection: half of what it was.
    pub fn halve(&mut self) {
        self.limit = (self.limit / 2.0).max(LEAST).min(self.most);
    }
}

/// A token bucket.
#[derive(Clone, Debug)]
pub struct Pace {
    rate: Option<Rate>,
    tokens: f64,
    filled: Instant,
}

impl Pace {
    /// Full; without a rate it never holds anything up.
    pub fn new(rate: Option<Rate>, now: Instant) -> Self {
        Self { rate, tokens: rate.map_or(0.0, |rate| rate.burst.max(1.0)), filled: now }
    }

    /// Another rate, with the tokens that are there.
    pub fn configure(&mut self, rate: Option<Rate>) {
        self.rate = rate;
        self.tokens = self.tokens.min(rate.map_or(0.0, |rate| rate.burst.max(1.0)));
    }

    /// When the next call may begin: now, or later.
    pub fn ready_at(&self, now: Instant) -> Instant {
        let Some(rate) = self.rate else { return now };
        let missing = 1.0 - self.available(rate, now);
        if missing <= 0.0 {
            return now;
        }
        // A nanosecond more, so that rounding does not wake us a token too early.
        now + Duration::from_secs_f64(missing / rate.per_second) + Duration::from_nanos(1)
    }

    /// A call begins.
    pub fn take(&mut self, now: Instant) {
        if let Some(rate) = self.rate {
            self.tokens = self.available(rate, now) - 1.0;
            self.filled = now;
        }
    }

    fn available(&self, rate: Rate, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        (self.tokens + passed * rate.per_second).min(rate.burst.max(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn the_limit_grows_with_success_shrinks_with_failure_and_stays_in_bounds() {
        let start = Clock::default().now().instant;
        let mut limit = ConcurrencyLimit::new(50);
        for _ in 0..100 {
            limit.succeeded(limit.get());
        }
        assert_eq!(limit.get(), 50);
        let rtt = Duration::from_millis(100);
        limit.overloaded(rtt, start);
        limit.overloaded(rtt, start + rtt / 2);
        assert_eq!(limit.get(), 35, "once a round trip");
        for n in 1..100 {
            limit.overloaded(rtt, start + rtt * n);
        }
        assert_eq!(limit.get(), 4);
        limit.succeeded(4);
        assert_eq!(limit.get(), 4, "after a failure one more for a window, not for an answer");
    }

    #[test]
    fn an_unused_limit_is_not_raised() {
        let mut limit = ConcurrencyLimit::new(1000);
        limit.succeeded(9);
        assert_eq!(limit.get(), 20);
    }

    #[test]
    fn pace_allows_the_burst_and_then_the_rate() {
        let start = Clock::default().now().instant;
        let mut pace = Pace::new(Some(Rate { per_second: 10.0, burst: 3.0 }), start);
        for _ in 0..3 {
            assert_eq!(pace.ready_at(start), start);
            pace.take(start);
        }
        let wait = pace.ready_at(start) - start;
        assert!((99..=101).contains(&wait.as_millis()), "{wait:?}");
        let later = start + wait;
        assert_eq!(pace.ready_at(later), later);
    }
}
