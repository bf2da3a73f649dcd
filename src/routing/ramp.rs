//! The pace of a key after its vendor asked for a pause (docs/semantics.md,
//! "Limits towards providers").
//!
//! Half of what went through before, and a tenth of that more each second: the
//! queue that grew meanwhile must not run into the next refusal. A vendor that
//! refuses again within minutes has a limit, and what it took just before is that
//! limit: then the pace stops a little below it, and asks for more only slowly.
//! Otherwise every few seconds would end in another pause.

use std::time::{Duration, Instant};

use super::window::Window;

/// What remains of the pace after a pause.
const START: f64 = 0.5;
/// Of the pace before, each second.
const RISE: f64 = 0.1;
/// A vendor that refuses again so soon after a pause has a limit.
const SOON: Duration = Duration::from_secs(300);
/// Of what a vendor with a limit took.
const BELOW_LIMIT: f64 = 0.95;
/// So long the pace stays there, ...
const HELD: Duration = Duration::from_secs(60);
/// ... and then rises by so much of itself each second.
const SLOW_RISE: f64 = 0.01;
/// So many times the pace before is no limit any more.
const OVER: f64 = 4.0;
/// Seconds of its pace that may go at once.
const BURST: f64 = 0.05;
/// What goes through is measured over this long.
const MEASURED: Duration = Duration::from_secs(3);
/// A time too short to measure anything counts as this.
const SHORTEST: Duration = Duration::from_millis(100);
/// Fewer calls between two refusals show no limit: the vendor takes next to nothing.
const PROOF: u32 = 10;

/// How many calls of a key are accepted in a second.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    since: Instant,
    count: u32,
    before: Option<f64>,
}

impl Meter {
    /// Nothing went through yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, count: 0, before: None }
    }

    /// One went through.
    pub(super) fn record(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        if passed >= MEASURED {
            self.before = Some(f64::from(self.count) / passed.as_secs_f64());
            (self.since, self.count) = (now, 0);
        }
        self.count = self.count.saturating_add(1);
    }

    fn per_second(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.since);
        match self.before.filter(|_| passed < MEASURED / 3) {
            Some(before) => before,
            None => f64::from(self.count) / passed.max(SHORTEST).as_secs_f64(),
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Ramp {
    /// When the pause ends.
    begins: Instant,
    /// Calls a second before it.
    before: f64,
    /// The vendor has shown that this is about what it takes.
    limit: bool,
    /// Calls that went through since, and of those in the last second.
    accepted: u32,
    lately: Window,
    tokens: f64,
    filled: Instant,
}

impl Ramp {
    /// A pause until `until` begins, or grows. `last`: the one before, if there was any.
    pub(super) fn after(
        last: Option<&Self>,
        meter: &mut Meter,
        until: Instant,
        now: Instant,
    ) -> Self {
        let seen = meter.per_second(now);
        let (before, limit) = match last {
            // Calls that were in flight are refused as well.
            Some(last) if now < last.begins => {
                return Self { begins: until.max(last.begins), ..last.clone() };
            }
            Some(last) if now.saturating_duration_since(last.begins) < SOON => {
                match last.limit_shown(now) {
                    Some(limit) => (limit, true),
                    None => (last.before / 2.0, false),
                }
            }
            Some(_) | None => (seen, false),
        };
        *meter = Meter::new(until);
        let before = before.max(1.0);
        let lately = Window::new(Duration::from_secs(1), until);
        Self { begins: until, before, limit, accepted: 0, lately, tokens: 1.0, filled: until }
    }

    /// One went through.
    pub(super) fn accepted(&mut self, now: Instant) {
        self.accepted = self.accepted.saturating_add(1);
        self.lately.record(true, now);
    }

    /// What the vendor took in the last second, as it refuses again: the pace was
    /// rising, so that is where it has crossed the limit. A little too much where the
    /// vendor had saved something up; the next refusal mends that.
    fn limit_shown(&self, now: Instant) -> Option<f64> {
        let open = now.saturating_duration_since(self.begins).min(Duration::from_secs(1));
        let taken = self.lately.counts(now).successes;
        let proved = self.accepted >= PROOF;
        // The window may miss its first tenth; and where little was wanted, it says more
        // than the pace.
        let most = f64::from(taken) / (open.max(SHORTEST).as_secs_f64() * 0.9);
        proved.then(|| most.min(self.per_second(now)))
    }

    /// Whether it holds nothing up any more. `rate`: what the configuration allows.
    pub(super) fn is_over(&self, rate: Option<f64>, now: Instant) -> bool {
        let most = rate.map_or(f64::MAX, |rate| rate).min(OVER * self.before);
        self.per_second(now) >= most
    }

    /// When the next call may begin: now, or later.
    pub(super) fn ready_at(&self, now: Instant) -> Instant {
        let missing = 1.0 - self.available(now);
        if missing <= 0.0 {
            return now;
        }
        let wait = Duration::from_secs_f64(missing / self.per_second(now).max(START));
        now.max(self.begins) + wait + Duration::from_nanos(1)
    }

    /// A call begins.
    pub(super) fn take(&mut self, now: Instant) {
        self.tokens = self.available(now) - 1.0;
        self.filled = now;
    }

    fn available(&self, now: Instant) -> f64 {
        let pace = self.per_second(now);
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        (self.tokens + passed * pace).min((pace * BURST).max(1.0))
    }

    fn per_second(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.begins);
        let risen = START + RISE * passed.as_secs_f64();
        if !self.limit {
            return self.before * risen;
        }
        let rises = Duration::from_secs_f64((BELOW_LIMIT - START) / RISE) + HELD;
        let more = SLOW_RISE * passed.saturating_sub(rises).as_secs_f64();
        self.before * (risen.min(BELOW_LIMIT) + more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const S: Duration = Duration::from_secs(1);

    /// As many calls as a ramp lets through, asked at each millisecond.
    fn let_through(ramp: &mut Ramp, from: Instant, time: Duration) -> u32 {
        let mut count = 0;
        for ms in 0..time.as_millis() as u64 {
            let now = from + Duration::from_millis(ms);
            while ramp.ready_at(now) <= now {
                ramp.take(now);
                count += 1;
            }
        }
        count
    }

    /// A meter that has seen so many a second for ten seconds.
    fn meter(per_second: u32, now: Instant) -> Meter {
        let mut meter = Meter::new(now);
        for n in 0..per_second * 10 {
            meter.record(now + 10 * S * n / (per_second * 10));
        }
        meter
    }

    #[test]
    fn after_a_pause_half_of_the_pace_goes_and_a_tenth_more_each_second() {
        let start = Clock::default().now().instant;
        let now = start + 10 * S;
        let mut ramp = Ramp::after(None, &mut meter(100, start), now + 20 * S, now);
        let back = now + 20 * S;
        assert!((50..=60).contains(&let_through(&mut ramp, back, S)));
        let _ = let_through(&mut ramp, back + S, 4 * S);
        assert!((100..=115).contains(&let_through(&mut ramp, back + 5 * S, S)));
        assert!(!ramp.is_over(None, back + 30 * S));
        assert!(ramp.is_over(None, back + 35 * S), "a vendor without a limit");
        assert!(ramp.is_over(Some(100.0), back + 5 * S), "no faster than configured");
    }

    /// A vendor that lets so many through in a second, and asks for a second's peace:
    /// by a token bucket, or by counting in each second.
    struct Vendor {
        limit: f64,
        bucket: bool,
        tokens: f64,
        filled: Instant,
    }

    impl Vendor {
        fn takes(&mut self, now: Instant) -> bool {
            let passed = now.saturating_duration_since(self.filled);
            if self.bucket {
                let earned = passed.as_secs_f64() * self.limit;
                (self.tokens, self.filled) = ((self.tokens + earned).min(self.limit), now);
            } else if passed >= S {
                (self.tokens, self.filled) =
                    (self.limit, self.filled + S * passed.as_secs() as u32);
            }
            let takes = self.tokens >= 1.0;
            self.tokens -= f64::from(u8::from(takes));
            takes
        }
    }

    #[test]
    fn a_vendor_with_a_limit_is_kept_a_little_below_it() {
        for (bucket, first_part) in [(true, 8), (false, 8)] {
            let start = Clock::default().now().instant;
            let mut meter = meter(500, start);
            let refused = start + 10 * S;
            let mut ramp = Ramp::after(None, &mut meter, refused + 20 * S, refused);
            let mut vendor = Vendor { limit: 100.0, bucket, tokens: 100.0, filled: refused };
            let (mut taken, mut refusals) = ([0; 7], [0; 7]);
            for ms in 0..210_000 {
                let now = refused + 20 * S + Duration::from_millis(ms);
                let part = (ms / 30_000) as usize;
                while now >= ramp.begins && ramp.ready_at(now) <= now {
                    ramp.take(now);
                    if vendor.takes(now) {
                        meter.record(now);
                        ramp.accepted(now);
                        taken[part] += 1;
                    } else {
                        refusals[part] += 1;
                        ramp = Ramp::after(Some(&ramp), &mut meter, now + S, now);
                    }
                }
            }
            let sum: u32 = taken[1..].iter().sum();
            assert!(sum >= 90 * 180, "{taken:?} {refusals:?}");
            assert!(refusals[0] <= first_part, "{refusals:?}");
            assert!(refusals[1..].iter().sum::<u32>() <= 8, "{refusals:?}");
        }
    }

    #[test]
    fn a_vendor_that_refuses_everything_for_a_moment_has_shown_no_limit() {
        let start = Clock::default().now().instant;
        let mut meter = meter(500, start);
        let mut now = start + 10 * S;
        let mut ramp = Ramp::after(None, &mut meter, now + S, now);
        for pause in [2, 4] {
            now = ramp.begins;
            ramp = Ramp::after(Some(&ramp), &mut meter, now + pause * S, now);
        }
        let back = ramp.begins;
        assert!(let_through(&mut ramp, back, S) >= 60);
        assert!(ramp.is_over(None, back + 35 * S));
    }
}
