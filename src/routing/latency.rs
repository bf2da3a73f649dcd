//! How quick a provider is: a peak-sensitive average for balancing, and
//! quantiles for people.
//!
//! The average jumps up to a slow answer at once and comes down over ten
//! seconds, so a provider that turns slow loses traffic with its first slow
//! answer (linkerd2-proxy, Finagle: PeakEWMA).

use std::time::{Duration, Instant};

/// Time in which a better answer takes most of its effect.
const DECAY: Duration = Duration::from_secs(10);

/// Before the first answer; high, so that an unknown provider is tried and not flooded.
const INITIAL: Duration = Duration::from_secs(1);

/// A failure counts as at least this slow, else a provider that fails quickly
/// would attract traffic (linkerd2-proxy's load biaser).
const FAILURE_PENALTY: Duration = Duration::from_secs(5);

/// Latencies kept for quantiles.
const KEPT: usize = 256;

/// What is usual is judged by answers no older than this.
const USUAL: Duration = Duration::from_secs(300);

/// See the module.
#[derive(Clone, Debug)]
pub struct Latency {
    rtt: f64,
    updated: Instant,
    /// When each came, and its milliseconds.
    recent: Vec<(Instant, u32)>,
    next: usize,
}

impl Latency {
    /// Of a provider that has not answered yet.
    pub fn new(now: Instant) -> Self {
        Self { rtt: INITIAL.as_secs_f64(), updated: now, recent: Vec::new(), next: 0 }
    }

    /// An answer that took `elapsed`.
    pub fn record(&mut self, elapsed: Duration, now: Instant) {
        self.remember(elapsed, now);
        self.move_to(elapsed, now);
    }

    /// A failure or a throttle after `elapsed`, with the vendor's wish to wait.
    pub fn penalise(&mut self, elapsed: Duration, retry_after: Option<Duration>, now: Instant) {
        let cost = elapsed.max(FAILURE_PENALTY).max(retry_after.unwrap_or_default());
        self.move_to(cost, now);
    }

    /// The average.
    pub fn rtt(&self) -> Duration {
        Duration::from_secs_f64(self.rtt)
    }

    /// Quantiles of the latest answers, in milliseconds, for each of `of`.
    pub fn quantiles_ms<const N: usize>(&self, of: [f64; N]) -> [u32; N] {
        let mut sorted: Vec<u32> = self.recent.iter().map(|(_, ms)| *ms).collect();
        sorted.sort_unstable();
        of.map(|q| quantile(&sorted, q).unwrap_or(0))
    }

    /// Of a hundred answers of the last five minutes, all but one were as quick as
    /// this; `None`: there was none.
    pub fn p99(&self, now: Instant) -> Option<Duration> {
        let usual = |at: Instant| now.saturating_duration_since(at) <= USUAL;
        let recent = self.recent.iter().filter(|(at, _)| usual(*at));
        let mut sorted: Vec<u32> = recent.map(|(_, ms)| *ms).collect();
        sorted.sort_unstable();
        quantile(&sorted, 0.99).map(|ms| Duration::from_millis(ms.into()))
    }

    fn move_to(&mut self, sample: Duration, now: Instant) {
        let sample = sample.as_secs_f64();
        if sample >= self.rtt {
            self.rtt = sample;
        } else {
            let passed = now.saturating_duration_since(self.updated).as_secs_f64();
            let share = 1.0 - (-passed / DECAY.as_secs_f64()).exp();
            self.rtt += (sample - self.rtt) * share;
        }
        self.updated = now;
    }

    fn remember(&mut self, elapsed: Duration, now: Instant) {
        let ms = u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX);
        if self.recent.len() < KEPT {
            self.recent.push((now, ms));
        } else {
            self.recent[self.next] = (now, ms);
        }
        self.next = (self.next + 1) % KEPT;
    }
}

fn quantile(sorted: &[u32], q: f64) -> Option<u32> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * q).round() as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_slow_answer_counts_at_once_and_a_quick_one_slowly() {
        let start = Clock::default().now().instant;
        let mut latency = Latency::new(start);
        latency.record(20 * MS, start + Duration::from_secs(60));
        assert!(latency.rtt() < 30 * MS);
        latency.record(2000 * MS, start + Duration::from_secs(61));
        assert_eq!(latency.rtt(), 2000 * MS);
        latency.record(20 * MS, start + Duration::from_secs(62));
        assert!(latency.rtt() > 1700 * MS);
    }

    #[test]
    fn a_quick_failure_does_not_look_quick() {
        let start = Clock::default().now().instant;
        let mut latency = Latency::new(start);
        latency.penalise(MS, None, start);
        assert_eq!(latency.rtt(), FAILURE_PENALTY);
        latency.penalise(MS, Some(Duration::from_secs(20)), start);
        assert_eq!(latency.rtt(), Duration::from_secs(20));
    }

    #[test]
    fn quantiles_are_those_of_the_latest_answers() {
        let start = Clock::default().now().instant;
        let mut latency = Latency::new(start);
        for ms in 1..=100 {
            latency.record(ms * MS, start);
        }
        assert_eq!(latency.quantiles_ms([0.5, 0.99]), [51, 99]);
        assert_eq!(latency.p99(start), Some(99 * MS));
        let later = start + Duration::from_secs(200);
        latency.record(7 * MS, later);
        assert_eq!(latency.p99(later), Some(99 * MS));
        assert_eq!(latency.p99(later + Duration::from_secs(200)), Some(7 * MS));
        assert_eq!(latency.p99(later + Duration::from_secs(301)), None);
    }
}
