//! One breaker under any sequence of events: it moves only for the reasons it
//! may (invariant 10), sends nothing but canaries while it is not closed (9), and
//! comes back slowly (13).

use std::time::{Duration, Instant};

use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::test_runner::TestCaseError;
use pushyard::clock::Clock;
use pushyard::routing::{Cause, Gate, Health, HealthSettings, Move, Pass, Status};

#[derive(Clone, Debug)]
enum Step {
    Wait(Duration),
    /// A delivery wants to go.
    Begin(Pass),
    /// The n-th call in flight ends: well, badly, or without saying anything.
    End {
        nth: usize,
        end: End,
    },
    Probe(bool),
    Refused,
}

#[derive(Clone, Copy, Debug)]
enum End {
    /// After so long.
    Well(Duration),
    Badly,
    Silently,
}

fn step() -> impl Strategy<Value = Step> {
    let end = prop_oneof![
        2 => (0u64..4_000).prop_map(|ms| End::Well(Duration::from_millis(ms))),
        3 => proptest::strategy::Just(End::Badly),
        1 => proptest::strategy::Just(End::Silently),
    ];
    let pass = proptest::sample::select(vec![Pass::Usual, Pass::Panic, Pass::LastTry]);
    prop_oneof![
        3 => (0u64..40_000).prop_map(|ms| Step::Wait(Duration::from_millis(ms))),
        6 => (0u64..300).prop_map(|ms| Step::Wait(Duration::from_millis(ms))),
        12 => pass.prop_map(Step::Begin),
        12 => (0usize..8, end).prop_map(|(nth, end)| Step::End { nth, end }),
        2 => proptest::bool::ANY.prop_map(Step::Probe),
        1 => proptest::strategy::Just(Step::Refused),
    ]
}

/// A breaker, and what the test knows of it by itself.
struct Watched {
    health: Health,
    now: Instant,
    /// Calls in flight: canary or not.
    flying: Vec<bool>,
    last_canary: Option<Instant>,
    last_last_try: Option<Instant>,
    /// Of all calls that showed it alive or failed: whether they were slow.
    latest: Vec<bool>,
    failures_in_row: u32,
    failed_probes: u32,
    canaries_in_row: u32,
    last_success: Option<Instant>,
}

impl Watched {
    fn new() -> Self {
        let now = Clock::default().now().instant;
        Self {
            health: Health::new(HealthSettings::default(), now),
            now,
            flying: Vec::new(),
            last_canary: None,
            last_last_try: None,
            latest: Vec::new(),
            failures_in_row: 0,
            failed_probes: 0,
            canaries_in_row: 0,
            last_success: None,
        }
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let before = self.health.status();
        match step {
            Step::Wait(time) => {
                self.now += *time;
                let moved = self.health.tick(self.now);
                self.only(moved, |from, to| match (from, to) {
                    (Status::Ejected { cause, until, .. }, Status::Probing { cause: now, .. }) => {
                        cause == now && cause != Cause::Operator && self.now >= until
                    }
                    // Only what was good for half a minute is healthy again.
                    (Status::Degraded { .. }, Status::Healthy { .. }) => self.recovered(),
                    _ => false,
                })?;
            }
            Step::Begin(pass) => self.begin(*pass)?,
            Step::End { nth, end } if !self.flying.is_empty() => {
                let canary = self.flying.remove(nth % self.flying.len());
                self.end(canary, *end)?;
            }
            Step::End { .. } => {}
            Step::Probe(good) => self.probe(*good)?,
            Step::Refused => {
                let moved = self.health.eject(Cause::Auth, self.now, 0.5);
                let out = matches!(self.health.status(), Status::Ejected { .. });
                prop_assert!(out, "{before:?} {moved:?}");
            }
        }
        self.check_ramp()?;
        self.check_wake()
    }

    fn begin(&mut self, pass: Pass) -> Result<(), TestCaseError> {
        let status = self.health.status();
        let gate = self.health.gate(pass, self.now);
        let canaries = self.flying.iter().filter(|canary| **canary).count();
        match (status, gate) {
            (Status::Healthy { .. } | Status::Degraded { .. }, Gate::Open) => {
                prop_assert!(!self.health.begin(pass, self.now));
                self.flying.push(false);
            }
            (Status::Ejected { cause, .. }, Gate::Canary) => {
                prop_assert!(pass == Pass::Panic && cause.transient(), "{status:?}");
                self.send_canary(pass, canaries)?;
            }
            (Status::Ejected { cause, .. }, Gate::LastTry) => {
                prop_assert!(pass == Pass::LastTry && cause.transient(), "{status:?}");
                let apart = Duration::from_millis(100);
                prop_assert!(self.last_last_try.is_none_or(|at| self.now >= at + apart));
                self.last_last_try = Some(self.now);
                prop_assert!(!self.health.begin(pass, self.now), "it is no canary");
                self.flying.push(false);
            }
            (Status::Probing { .. }, Gate::Canary) => self.send_canary(pass, canaries)?,
            (Status::Healthy { .. } | Status::Degraded { .. }, _)
            | (Status::Probing { .. }, Gate::LastTry)
            | (_, Gate::Open) => {
                prop_assert!(false, "{status:?} {gate:?}")
            }
            (_, Gate::Later(at)) => prop_assert!(at > self.now),
            (_, Gate::Busy) => prop_assert_eq!(canaries, 1),
            (Status::Ejected { cause, .. }, Gate::Closed) => {
                prop_assert!(pass == Pass::Usual || !cause.transient());
            }
            (Status::Probing { .. }, Gate::Closed) => prop_assert!(false, "{status:?}"),
        }
        Ok(())
    }

    /// One in flight, one a second.
    fn send_canary(&mut self, pass: Pass, canaries: usize) -> Result<(), TestCaseError> {
        prop_assert_eq!(canaries, 0);
        let second = Duration::from_secs(1);
        prop_assert!(self.last_canary.is_none_or(|at| self.now >= at + second));
        prop_assert!(self.health.begin(pass, self.now));
        self.last_canary = Some(self.now);
        self.flying.push(true);
        Ok(())
    }

    fn end(&mut self, canary: bool, end: End) -> Result<(), TestCaseError> {
        match end {
            End::Silently => {
                let before = self.health.status();
                self.health.end_without_sample(canary);
                prop_assert_eq!(before, self.health.status());
            }
            End::Well(elapsed) => {
                (self.failures_in_row, self.failed_probes) = (0, 0);
                self.last_success = Some(self.now);
                self.canaries_in_row += u32::from(canary);
                self.latest.push(elapsed > HealthSettings::default().slow_above);
                let moved = self.health.success(canary, elapsed, self.now);
                let row = self.canaries_in_row;
                self.only(moved, |from, to| match (from, to) {
                    (Status::Probing { .. }, Status::Healthy { ramp }) => {
                        canary && row >= 3 && ramp == Some(self.now)
                    }
                    (Status::Ejected { cause, .. }, Status::Probing { successes: 1, .. }) => {
                        canary && cause.transient()
                    }
                    (Status::Degraded { .. }, Status::Healthy { .. }) => self.recovered(),
                    (Status::Healthy { .. }, Status::Degraded { cause, .. }) => {
                        self.is_degraded(cause)
                    }
                    _ => false,
                })?;
            }
            End::Badly => {
                self.failures_in_row += 1;
                self.canaries_in_row = if canary { 0 } else { self.canaries_in_row };
                self.latest.push(false);
                let moved = self.health.failure(canary, self.now, 0.5);
                let (row, counts) = (self.failures_in_row, self.health.counts(self.now));
                self.only(moved, |from, to| match (from, to) {
                    (
                        Status::Healthy { .. } | Status::Degraded { .. },
                        Status::Ejected { cause: Cause::Consecutive, .. },
                    ) => row >= 5 && f64::from(row) >= 0.01 * f64::from(counts.samples()),
                    (Status::Degraded { .. }, Status::Healthy { .. }) => self.recovered(),
                    (Status::Healthy { .. }, Status::Degraded { cause, .. }) => {
                        self.is_degraded(cause)
                    }
                    (
                        Status::Healthy { .. } | Status::Degraded { .. },
                        Status::Ejected { cause: Cause::Ratio, .. },
                    ) => counts.samples() >= 20 && counts.ratio() < 0.5,
                    (Status::Probing { cause, .. }, Status::Ejected { cause: now, .. }) => {
                        canary && cause == now
                    }
                    _ => false,
                })?;
            }
        }
        Ok(())
    }

    fn probe(&mut self, good: bool) -> Result<(), TestCaseError> {
        self.failed_probes = if good { 0 } else { self.failed_probes + 1 };
        let moved = self.health.probed(good, false, self.now, 0.5);
        let quiet = Duration::from_secs(30);
        let quiet = self.last_success.is_none_or(|at| self.now - at >= quiet);
        self.only(moved, |from, to| match (from, to) {
            (
                Status::Healthy { .. } | Status::Degraded { .. },
                Status::Ejected { cause: Cause::Probe, .. },
            ) => !good && self.failed_probes >= 3 && quiet,
            (Status::Ejected { cause, good_probes, .. }, Status::Probing { .. }) => {
                good && cause.transient() && good_probes >= 1
            }
            _ => false,
        })
    }

    fn is_degraded(&self, cause: Cause) -> bool {
        let counts = self.health.counts(self.now);
        match cause {
            Cause::Ratio => counts.samples() >= 20 && counts.ratio() < 0.9,
            Cause::Latency => {
                let lately = self.latest.iter().rev().take(20).filter(|slow| **slow).count();
                counts.successes >= 20 && (counts.slow * 20 > counts.successes || lately > 10)
            }
            _ => false,
        }
    }

    fn recovered(&self) -> bool {
        let counts = self.health.counts(self.now);
        counts.ratio() >= 0.95 && counts.nearly_slow * 20 <= counts.successes
    }

    /// A move is one of those that the event allows.
    fn only(
        &self,
        moved: Option<Move>,
        allowed: impl Fn(Status, Status) -> bool,
    ) -> Result<(), TestCaseError> {
        if let Some(Move { from, to }) = moved {
            prop_assert!(allowed(from, to), "{from:?} to {to:?}");
            prop_assert_eq!(to, self.health.status());
            prop_assert_eq!(self.health.since(), self.now);
        }
        Ok(())
    }

    fn check_ramp(&self) -> Result<(), TestCaseError> {
        let ramp = self.health.ramp(self.now);
        let (Status::Healthy { ramp: Some(began) } | Status::Degraded { ramp: Some(began), .. }) =
            self.health.status()
        else {
            prop_assert_eq!(ramp, 1.0);
            return Ok(());
        };
        let share = (self.now - began).as_secs_f64() / 30.0;
        prop_assert!((ramp - share.clamp(0.1, 1.0)).abs() < 1e-9);
        Ok(())
    }

    /// Whoever waits is woken: in time, and not in the past.
    fn check_wake(&self) -> Result<(), TestCaseError> {
        let wake = self.health.wake_at(self.now);
        match self.health.status() {
            Status::Healthy { .. } => prop_assert_eq!(wake, None),
            Status::Degraded { .. } => prop_assert!(wake.is_some_and(|wake| wake > self.now)),
            Status::Ejected { until, .. } => {
                prop_assert!(wake.is_some_and(|wake| wake <= until), "{wake:?}");
            }
            Status::Probing { .. } => {
                let waits = matches!(self.health.gate(Pass::Usual, self.now), Gate::Later(_));
                prop_assert!(!waits || wake.is_some_and(|wake| wake > self.now));
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig {
        cases: 300,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(1),
        ..proptest::prelude::ProptestConfig::default()
    })]

    #[test]
    fn a_breaker_keeps_its_rules_under_any_events(
        steps in proptest::collection::vec(step(), 1..300),
    ) {
        let mut watched = Watched::new();
        for step in &steps {
            watched.take(step)?;
        }
    }
}
