//! The health of one key: a provider as a whole, or one part of it.
//!
//! A circuit breaker with three positions. Closed (`healthy`, or `degraded` when
//! it answers badly or slowly and better tiers should give less): everything goes.
//! Open (`ejected`): nothing goes until its time is over, or until probes show
//! the provider alive. Half open (`probing`): one delivery at a time is sent as a
//! canary; some in a row that succeed close it, with a slow start, and one that
//! fails opens it for longer. Evidence is passive first: what real calls show
//! outweighs what a probe shows, because a probe does not prove that sends work.
//! The numbers and their sources are in docs/semantics.md, "Provider health".

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::HealthSettings;
use super::window::{Counts, Window};

/// Failures in a row that are older than this prove nothing any more.
const FAILURES_STALE: Duration = Duration::from_secs(300);
/// The row must also be this share of the window's samples, else random
/// failures at a high rate would look like an outage.
const ROW_SHARE: f64 = 0.01;
/// Of this many latest samples fewer than half may be successes; and more than half
/// of them slow are enough to call a key slow.
const LATEST: usize = 20;
/// Between two canaries of a key.
const CANARY_SPACING: Duration = Duration::from_secs(1);
/// Between two last tries of a key.
const LAST_TRY_SPACING: Duration = Duration::from_millis(100);
/// The first weight of a key in slow start.
const RAMP_START: f64 = 0.10;
/// Every so long healthy, one ejection is forgotten.
const FORGET_EJECTION: Duration = Duration::from_secs(30);
/// Ejections for credentials and configuration last longer: only a person mends those.
const CREDENTIAL_BASE: Duration = Duration::from_secs(60);
const CREDENTIAL_MAX: Duration = Duration::from_secs(15 * 60);
/// Good probes that end an ejection early.
const PROBES_TO_PROBATION: u32 = 2;
/// Failed probes that eject a provider which shows no passive success.
const PROBES_TO_EJECT: u32 = 3;
const QUIET_BEFORE_PROBE_EJECTS: Duration = Duration::from_secs(30);
/// Degraded keys must have been good for this long.
const GOOD_BEFORE_HEALTHY: Duration = Duration::from_secs(30);
/// ... and quicker than this share of `slow_above`, or they would flap around it.
const QUICK_SHARE: f64 = 0.8;

/// Why a key was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Failures in a row.
    Consecutive,
    /// Too few successes.
    Ratio,
    /// Too slow; degrades, and never ejects.
    Latency,
    /// Silence.
    Stall,
    /// The credential was refused.
    Auth,
    /// The vendor says that our configuration is wrong.
    Misconfigured,
    /// Probes failed.
    Probe,
    /// An operator.
    Operator,
}

impl Cause {
    /// The word used in API and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Consecutive => "consecutive",
            Self::Ratio => "ratio",
            Self::Latency => "latency",
            Self::Stall => "stall",
            Self::Auth => "auth",
            Self::Misconfigured => "misconfigured",
            Self::Probe => "probe",
            Self::Operator => "operator",
        }
    }

    /// Whether waiting may mend it; a credential or a configuration needs a person.
    pub const fn transient(self) -> bool {
        match self {
            Self::Consecutive | Self::Ratio | Self::Latency | Self::Stall | Self::Probe => true,
            Self::Auth | Self::Misconfigured | Self::Operator => false,
        }
    }
}

/// The breaker's position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Status {
    /// Closed; in slow start since `ramp`, if that is not over.
    Healthy {
        /// When probation ended.
        ramp: Option<Instant>,
    },
    /// Closed, but it answers badly (`Ratio`) or slowly (`Latency`).
    Degraded {
        /// Which of the two.
        cause: Cause,
        /// When probation ended, if the slow start is not over.
        ramp: Option<Instant>,
    },
    /// Open.
    Ejected {
        /// Why.
        cause: Cause,
        /// Until then, unless probes end it earlier.
        until: Instant,
        /// Good probes in a row.
        good_probes: u32,
    },
    /// Half open.
    Probing {
        /// Canaries in a row that succeeded.
        successes: u32,
        /// What opened it, for a person to read.
        cause: Cause,
    },
}

/// A move of the breaker, to be told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Move {
    /// Before.
    pub from: Status,
    /// After.
    pub to: Status,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Health {
    settings: HealthSettings,
    status: Status,
    since: Instant,
    window: Window,
    row: u32,
    row_began: Instant,
    latest: VecDeque<Sample>,
    last_success: Option<Instant>,
    /// While degraded: since when it has been good again.
    good_since: Option<Instant>,
    /// Ejections in a row, the one now included.
    ejections: u32,
    /// When the last of them was forgotten.
    forgot: Instant,
    canary_in_flight: bool,
    next_canary: Instant,
    next_last_try: Instant,
    failed_probes: u32,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sample {
    Quick,
    Slow,
    Failed,
}

impl Health {
    /// Of a key that nothing bad is known of.
    pub fn new(settings: HealthSettings, now: Instant) -> Self {
        Self {
            settings,
            status: Status::Healthy { ramp: None },
            since: now,
            window: Window::new(settings.window, now),
            row: 0,
            row_began: now,
            latest: VecDeque::with_capacity(LATEST),
            last_success: None,
            good_since: None,
            ejections: 0,
            forgot: now,
            canary_in_flight: false,
            next_canary: now,
            next_last_try: now,
            failed_probes: 0,
        }
    }

    /// The position.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Since when.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Samples of the window.
    pub fn counts(&self, now: Instant) -> Counts {
        self.window.counts(now)
    }

    /// The latest sign of life.
    pub fn last_success(&self) -> Option<Instant> {
        self.last_success
    }

    /// The weight that slow start leaves: 0.1 rising to 1.
    pub fn ramp(&self, now: Instant) -> f64 {
        let Some(began) = self.ramp_began() else { return 1.0 };
        let whole = self.settings.slow_start.as_secs_f64();
        if whole <= 0.0 {
            return 1.0;
        }
        (now.saturating_duration_since(began).as_secs_f64() / whole).clamp(RAMP_START, 1.0)
    }

    /// How much of a tier's load it can carry, 0..1: all when healthy, its
    /// success ratio when degraded, both less in slow start; nothing else.
    /// Whoever is on probation is asked for its gate, and counts in full.
    pub fn availability(&self, now: Instant) -> f64 {
        let share = match self.status {
            Status::Degraded { .. } => self.window.counts(now).ratio(),
            Status::Healthy { .. } | Status::Ejected { .. } | Status::Probing { .. } => 1.0,
        };
        share * self.ramp(now)
    }

    fn ramp_began(&self) -> Option<Instant> {
        match self.status {
            Status::Healthy { ramp } | Status::Degraded { ramp, .. } => ramp,
            Status::Ejected { .. } | Status::Probing { .. } => None,
        }
    }

    /// Whether a delivery may go: freely, as a canary, as a last try, or not.
    pub fn gate(&self, pass: Pass, now: Instant) -> Gate {
        match self.status {
            Status::Healthy { .. } | Status::Degraded { .. } => Gate::Open,
            Status::Probing { .. } => self.canary_gate(now),
            Status::Ejected { cause, .. } => match pass {
                Pass::Panic if cause.transient() => self.canary_gate(now),
                Pass::LastTry if cause.transient() => self.last_try_gate(now),
                Pass::Usual | Pass::Panic | Pass::LastTry => Gate::Closed,
            },
        }
    }

    fn last_try_gate(&self, now: Instant) -> Gate {
        if now < self.next_last_try { Gate::Later(self.next_last_try) } else { Gate::LastTry }
    }

    fn canary_gate(&self, now: Instant) -> Gate {
        if self.canary_in_flight {
            Gate::Busy
        } else if now < self.next_canary {
            Gate::Later(self.next_canary)
        } else {
            Gate::Canary
        }
    }

    /// A call begins; says whether it is a canary, which its end must repeat.
    pub fn begin(&mut self, pass: Pass, now: Instant) -> bool {
        match self.status {
            Status::Healthy { .. } | Status::Degraded { .. } => false,
            Status::Ejected { .. } if pass == Pass::LastTry => {
                self.next_last_try = now + LAST_TRY_SPACING;
                false
            }
            Status::Ejected { .. } | Status::Probing { .. } => {
                self.canary_in_flight = true;
                self.next_canary = now + CANARY_SPACING;
                true
            }
        }
    }

    /// A call ended that says nothing of this key (throttled, refused for the
    /// device's sake, or about another part): only a canary's place is freed.
    pub fn end_without_sample(&mut self, canary: bool) {
        self.canary_in_flight &= !canary;
    }

    /// A call showed the key alive, after `elapsed`. Only canaries move the breaker: calls that
    /// had begun before it opened say nothing of what came after.
    pub fn success(&mut self, canary: bool, elapsed: Duration, now: Instant) -> Option<Move> {
        self.canary_in_flight &= !canary;
        let slow = self.settings.slow_above;
        self.window.record_success(elapsed > slow, elapsed > slow.mul_f64(QUICK_SHARE), now);
        self.remember(if elapsed > slow { Sample::Slow } else { Sample::Quick });
        self.row = 0;
        self.last_success = Some(now);
        self.failed_probes = 0;
        match self.status {
            Status::Healthy { .. } => {
                self.forget_ejections(now);
                self.judge(now)
            }
            Status::Degraded { .. } => self.judge(now),
            // A canary sent in panic: the time need not be waited for.
            Status::Ejected { cause, .. } if canary && cause.transient() => {
                self.go(Status::Probing { successes: 1, cause }, now)
            }
            Status::Ejected { .. } => None,
            Status::Probing { successes, cause } => {
                if !canary {
                    None
                } else if successes + 1 >= self.settings.canary_successes {
                    // What came before has been judged; it must not count again.
                    self.window = Window::new(self.settings.window, now);
                    self.latest.clear();
                    self.go(Status::Healthy { ramp: Some(now) }, now)
                } else {
                    self.status = Status::Probing { successes: successes + 1, cause };
                    None
                }
            }
        }
    }

    /// A call failed. `jitter` is a number in 0..1.
    pub fn failure(&mut self, canary: bool, now: Instant, jitter: f64) -> Option<Move> {
        self.canary_in_flight &= !canary;
        self.window.record(false, now);
        self.remember(Sample::Failed);
        if self.row == 0 || now.saturating_duration_since(self.row_began) > FAILURES_STALE {
            (self.row, self.row_began) = (0, now);
        }
        self.row += 1;
        match self.status {
            Status::Healthy { .. } | Status::Degraded { .. } => {
                if self.row_ejects(now) {
                    self.eject(Cause::Consecutive, now, jitter)
                } else if self.ratio_below(self.settings.eject_below, now) {
                    self.eject(Cause::Ratio, now, jitter)
                } else {
                    self.judge(now)
                }
            }
            // An operator's word is no verdict on how it does.
            Status::Probing { cause: Cause::Operator, .. } if canary => {
                self.eject(Cause::Consecutive, now, jitter)
            }
            Status::Probing { cause, .. } if canary => self.eject(cause, now, jitter),
            Status::Ejected { .. } | Status::Probing { .. } => None,
        }
    }

    /// Takes the key out for `cause`. Repeating it while it is out for the same
    /// cause changes nothing.
    pub fn eject(&mut self, cause: Cause, now: Instant, jitter: f64) -> Option<Move> {
        if let Status::Ejected { cause: present, .. } = self.status
            && (present == cause || !present.transient())
        {
            return None;
        }
        self.ejections += 1;
        let until = now + self.ejection_time(cause, jitter);
        self.row = 0;
        self.go(Status::Ejected { cause, until, good_probes: 0 }, now)
    }

    /// Other thresholds, from the configuration. What is known stays known.
    pub fn set_settings(&mut self, settings: HealthSettings, now: Instant) {
        if settings.window != self.settings.window {
            self.window = Window::new(settings.window, now);
        }
        self.settings = settings;
    }

    /// Puts it on probation: a changed credential or configuration, an
    /// operator's resume, a start after a crash.
    pub fn probation(&mut self, cause: Cause, now: Instant) -> Option<Move> {
        // The spacing of canaries goes on: one may have been sent in panic.
        self.go(Status::Probing { successes: 0, cause }, now)
    }

    /// A probe ended. `proves_cause`: it would also have shown what the key was
    /// ejected for.
    pub fn probed(
        &mut self,
        good: bool,
        proves_cause: bool,
        now: Instant,
        jitter: f64,
    ) -> Option<Move> {
        if good {
            self.failed_probes = 0;
            return self.good_probe(proves_cause, now);
        }
        self.failed_probes += 1;
        if let Status::Ejected { good_probes, .. } = &mut self.status {
            *good_probes = 0;
        }
        let quiet = self
            .last_success
            .is_none_or(|at| now.saturating_duration_since(at) >= QUIET_BEFORE_PROBE_EJECTS);
        match self.status {
            Status::Healthy { .. } | Status::Degraded { .. }
                if self.failed_probes >= PROBES_TO_EJECT && quiet =>
            {
                self.eject(Cause::Probe, now, jitter)
            }
            Status::Healthy { .. }
            | Status::Degraded { .. }
            | Status::Ejected { .. }
            | Status::Probing { .. } => None,
        }
    }

    fn good_probe(&mut self, proves_cause: bool, now: Instant) -> Option<Move> {
        let Status::Ejected { cause, good_probes, .. } = &mut self.status else { return None };
        *good_probes += 1;
        let enough = *good_probes >= PROBES_TO_PROBATION && (cause.transient() || proves_cause);
        let cause = *cause;
        if enough { self.probation(cause, now) } else { None }
    }

    /// Ejected while our own network was down: that says nothing of the vendor,
    /// so it is out for the base length whatever came before (Envoy splits errors
    /// of local origin).
    pub fn eject_at_base_length(&mut self, jitter: f64) {
        self.ejections = 1;
        if let Status::Ejected { cause, .. } = self.status {
            let base = self.ejection_time(cause, jitter);
            if let Status::Ejected { until, .. } = &mut self.status {
                *until = self.since + base;
            }
        }
    }

    /// Time passes: an ejection may be over, a degraded key good for long enough.
    pub fn tick(&mut self, now: Instant) -> Option<Move> {
        if let Some(began) = self.ramp_began()
            && now.saturating_duration_since(began) >= self.settings.slow_start
        {
            self.end_ramp();
        }
        match self.status {
            Status::Ejected { cause, until, .. } if now >= until => self.probation(cause, now),
            Status::Degraded { .. } => self.judge(now),
            Status::Healthy { .. } | Status::Ejected { .. } | Status::Probing { .. } => None,
        }
    }

    fn end_ramp(&mut self) {
        match &mut self.status {
            Status::Healthy { ramp } | Status::Degraded { ramp, .. } => *ramp = None,
            Status::Ejected { .. } | Status::Probing { .. } => {}
        }
    }

    /// When `tick` or `gate` will say something else, if time alone decides it.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        let canary = (self.next_canary > now && !self.canary_in_flight).then_some(self.next_canary);
        match self.status {
            Status::Healthy { .. } => None,
            // Bad samples leave the window bucket by bucket.
            Status::Degraded { .. } => {
                let good = self.good_since.map(|since| since + GOOD_BEFORE_HEALTHY);
                Some(good.filter(|at| *at > now).unwrap_or(now + self.settings.window / 10))
            }
            // A panic canary may go earlier.
            Status::Ejected { until, cause, .. } if cause.transient() => {
                Some(canary.map_or(until, |canary| canary.min(until)))
            }
            Status::Ejected { until, .. } => Some(until),
            Status::Probing { .. } => canary,
        }
    }

    fn go(&mut self, to: Status, now: Instant) -> Option<Move> {
        let from = std::mem::replace(&mut self.status, to);
        self.since = now;
        Some(Move { from, to })
    }

    fn remember(&mut self, sample: Sample) {
        if self.latest.len() == LATEST {
            self.latest.pop_front();
        }
        self.latest.push_back(sample);
    }

    fn latest(&self, which: impl Fn(Sample) -> bool) -> usize {
        self.latest.iter().filter(|sample| which(**sample)).count()
    }

    /// Slow by the window, or so of late: at the rate at which a slow vendor
    /// answers, the quick answers of before would hide it for most of a window.
    fn is_slow(&self, counts: Counts) -> bool {
        let mostly_slow = self.latest(|sample| sample == Sample::Slow) * 2 > LATEST;
        let enough = counts.successes >= self.settings.min_samples;
        enough && (mostly_slow || counts.p95_above(counts.slow))
    }

    fn ratio_below(&self, bound: f64, now: Instant) -> bool {
        let counts = self.window.counts(now);
        counts.samples() >= self.settings.min_samples && counts.ratio() < bound
    }

    /// Healthy or degraded, by the window. The way back has stricter bounds than
    /// the way down, and takes time: else a key at the bound would flap.
    fn judge(&mut self, now: Instant) -> Option<Move> {
        let counts = self.window.counts(now);
        match self.status {
            Status::Healthy { ramp } => {
                let cause = if self.ratio_below(self.settings.degraded_below, now) {
                    Cause::Ratio
                } else if self.is_slow(counts) {
                    Cause::Latency
                } else {
                    return None;
                };
                self.good_since = None;
                self.go(Status::Degraded { cause, ramp }, now)
            }
            Status::Degraded { ramp, .. } => {
                let good = counts.ratio() >= self.settings.recover_above
                    && !counts.p95_above(counts.nearly_slow)
                    && !self.is_slow(counts);
                if !good {
                    self.good_since = None;
                    return None;
                }
                let since = *self.good_since.get_or_insert(now);
                let long = now.saturating_duration_since(since) >= GOOD_BEFORE_HEALTHY;
                if long { self.go(Status::Healthy { ramp }, now) } else { None }
            }
            Status::Ejected { .. } | Status::Probing { .. } => None,
        }
    }

    /// Whether the failures in a row are an outage and not bad luck.
    fn row_ejects(&self, now: Instant) -> bool {
        let share = ROW_SHARE * f64::from(self.window.counts(now).samples());
        let needed = f64::from(self.settings.consecutive_failures).max(share);
        let successes = self.latest(|sample| sample != Sample::Failed);
        let mostly_good = self.latest.len() == LATEST && successes * 2 >= LATEST;
        f64::from(self.row) >= needed && !mostly_good
    }

    /// Exponential, because an outage is long or short and seldom in between;
    /// up to half as much again, so that instances do not come back together.
    fn ejection_time(&self, cause: Cause, jitter: f64) -> Duration {
        let (base, most) = if cause.transient() {
            (self.settings.base_ejection, self.settings.max_ejection)
        } else {
            (CREDENTIAL_BASE, CREDENTIAL_MAX)
        };
        let doubled = base.saturating_mul(1 << (self.ejections.clamp(1, 16) - 1));
        doubled.min(most).mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 2.0)
    }

    fn forget_ejections(&mut self, now: Instant) {
        let quiet_since = self.since.max(self.forgot);
        if self.ejections > 0 && now.saturating_duration_since(quiet_since) >= FORGET_EJECTION {
            self.ejections -= 1;
            self.forgot = now;
        }
    }
}

/// What a delivery may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Nothing that is open.
    Usual,
    /// Every candidate is out: a key that was ejected for something that time may
    /// mend takes a canary each second without waiting for its time to be over,
    /// so that recovery is seen.
    Panic,
    /// Besides, its life is nearly over: it is tried once more, ten a second for
    /// each such key, because the vendor may be back and waiting gains nothing.
    LastTry,
}

/// Whether a delivery may go to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Freely.
    Open,
    /// As a canary, now.
    Canary,
    /// As a last try, now.
    LastTry,
    /// As a canary or a last try, from then on.
    Later(Instant),
    /// A canary is in flight.
    Busy,
    /// No.
    Closed,
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
