use std::time::{Duration, Instant};

use super::{Cause, Gate, Health, Pass, Status};
use crate::clock::Clock;
use crate::routing::HealthSettings;

const S: Duration = Duration::from_secs(1);

fn healthy() -> (Health, Instant) {
    let now = Clock::default().now().instant;
    (Health::new(HealthSettings::default(), now), now)
}

fn ejected() -> (Health, Instant) {
    let (mut health, now) = healthy();
    for _ in 0..5 {
        health.failure(false, now, 0.0);
    }
    assert!(matches!(health.status(), Status::Ejected { cause: Cause::Consecutive, .. }));
    (health, now)
}

fn probing() -> (Health, Instant) {
    let (mut health, now) = ejected();
    let now = now + 30 * S;
    assert!(health.tick(now).is_some());
    (health, now)
}

#[test]
fn five_failures_in_a_row_eject_and_four_do_not() {
    let (mut health, now) = healthy();
    for n in 1..=4 {
        assert!(health.failure(false, now, 0.0).is_none(), "failure {n}");
    }
    assert_eq!(health.gate(Pass::Usual, now), Gate::Open);
    assert!(health.failure(false, now, 0.0).is_some());
    assert_eq!(health.gate(Pass::Usual, now), Gate::Closed);
}

#[test]
fn a_success_between_breaks_the_row() {
    let (mut health, now) = healthy();
    for _ in 0..3 {
        for _ in 0..4 {
            assert!(health.failure(false, now, 0.0).is_none());
        }
        health.success(false, S / 10, now);
    }
}

#[test]
fn a_row_shorter_than_one_percent_of_the_traffic_does_not_eject() {
    let (mut health, now) = healthy();
    for _ in 0..2000 {
        health.success(false, S / 10, now);
    }
    for n in 1..20 {
        assert!(health.failure(false, now, 0.0).is_none(), "failure {n}");
    }
    // 2,025 samples: 1 % is 20.25, and by then the last 20 are all failures.
    let moves = (0..5).filter(|_| health.failure(false, now, 0.0).is_some()).count();
    assert_eq!(moves, 1);
}

#[test]
fn failures_older_than_five_minutes_prove_nothing() {
    let (mut health, now) = healthy();
    for _ in 0..4 {
        health.failure(false, now, 0.0);
    }
    assert!(health.failure(false, now + 301 * S, 0.0).is_none());
}

#[test]
fn mostly_good_latest_calls_outweigh_a_row() {
    let (mut health, now) = healthy();
    for _ in 0..15 {
        health.success(false, S / 10, now);
    }
    for _ in 0..5 {
        health.failure(false, now, 0.0);
    }
    assert!(matches!(health.status(), Status::Degraded { cause: Cause::Ratio, .. }));
}

#[test]
fn few_successes_eject_only_with_enough_samples_and_below_half() {
    // No row is long enough to do it.
    let settings = HealthSettings { consecutive_failures: 1000, ..HealthSettings::default() };
    for (successes, failures, ejected) in
        [(9, 10, false), (10, 10, false), (9, 11, true), (100, 100, false), (100, 101, true)]
    {
        let now = Clock::default().now().instant;
        let mut health = Health::new(settings, now);
        for _ in 0..successes {
            health.success(false, S / 10, now);
        }
        for _ in 0..failures {
            health.failure(false, now, 0.0);
        }
        let by_ratio = matches!(health.status(), Status::Ejected { cause: Cause::Ratio, .. });
        assert_eq!(by_ratio, ejected, "{successes} good, {failures} bad");
    }
}

/// After so many successes, the last of them slow, and then failures.
fn after(successes: u32, slow: u32, failures: u32) -> (Health, Instant) {
    let (mut health, now) = healthy();
    for n in 0..successes {
        let elapsed = if n >= successes - slow { 2 * S + S / 1000 } else { 2 * S };
        health.success(false, elapsed, now);
    }
    for _ in 0..failures {
        health.failure(false, now, 0.0);
    }
    (health, now)
}

#[test]
fn few_successes_or_slow_ones_degrade_only_with_enough_samples() {
    let ratio = Some(Cause::Ratio);
    let latency = Some(Cause::Latency);
    for (successes, slow, failures, expected) in [
        (17, 0, 2, None),
        (17, 0, 3, ratio),
        (18, 0, 2, None),
        (36, 0, 4, None),
        (35, 0, 4, ratio),
        (19, 19, 0, None),
        (20, 1, 0, None),
        (20, 2, 0, latency),
        (40, 2, 0, None),
        (40, 3, 0, latency),
    ] {
        let (health, _) = after(successes, slow, failures);
        let degraded = match health.status() {
            Status::Degraded { cause, .. } => Some(cause),
            Status::Healthy { .. } | Status::Ejected { .. } | Status::Probing { .. } => None,
        };
        assert_eq!(degraded, expected, "{successes} with {slow} slow, {failures} failed");
    }
}

#[test]
fn a_vendor_that_turns_slow_is_degraded_by_its_latest_answers_whatever_came_before() {
    let (mut health, now) = healthy();
    for _ in 0..10_000 {
        health.success(false, S / 100, now);
    }
    for slow in 1..=11 {
        let degraded = health.success(false, 3 * S, now + 3 * S).is_some();
        assert_eq!(degraded, slow == 11, "after {slow} slow ones");
    }
    // The quick ones of before are no proof that it is quick again.
    for second in 4..60 {
        assert!(health.success(false, 3 * S, now + second * S).is_none(), "{second} s");
    }
}

#[test]
fn a_last_try_goes_to_what_time_may_mend_ten_times_a_second_and_moves_nothing() {
    let (mut health, now) = ejected();
    assert_eq!(health.gate(Pass::LastTry, now), Gate::LastTry);
    assert!(!health.begin(Pass::LastTry, now), "it is no canary");
    assert_eq!(health.gate(Pass::LastTry, now), Gate::Later(now + S / 10));
    assert_eq!(health.gate(Pass::LastTry, now + S / 10), Gate::LastTry);
    assert_eq!(health.gate(Pass::Panic, now), Gate::Canary, "canaries go beside them");
    assert!(health.success(false, S / 10, now).is_none());
    assert!(health.failure(false, now, 0.0).is_none());
    let (mut health, now) = healthy();
    health.eject(Cause::Auth, now, 0.0);
    assert_eq!(health.gate(Pass::LastTry, now), Gate::Closed);
}

#[test]
fn a_degraded_key_is_healthy_after_half_a_minute_of_good_answers_and_not_before() {
    let (mut health, now) = after(20, 2, 0);
    assert_eq!(health.gate(Pass::Usual, now), Gate::Open, "it is still used");
    let mut now = now + 31 * S;
    // Quick enough not to degrade, and too slow to be healthy again.
    for _ in 0..40 {
        assert!(health.success(false, S * 17 / 10, now).is_none());
        now += S;
    }
    let mut seconds = 0;
    while health.success(false, S / 10, now).is_none() {
        now += S;
        seconds += 1;
        assert!(seconds < 100, "it never recovers");
    }
    // 30 s until the slow ones have left the window (it moves by 3 s), 30 s of proof.
    assert!((55..=63).contains(&seconds), "{seconds} s");
    assert!(matches!(health.status(), Status::Healthy { ramp: None }));
}

#[test]
fn a_degraded_key_without_traffic_is_healthy_when_its_samples_are_forgotten() {
    let (mut health, mut now) = after(17, 0, 3);
    let began = now;
    while health.tick(now).is_none() {
        let wake = health.wake_at(now).expect("time alone heals it");
        assert!(wake > now);
        now = wake;
        assert!(now < began + 200 * S, "it never recovers");
    }
    assert!(now >= began + 30 * S);
    assert!(matches!(health.status(), Status::Healthy { .. }));
}

#[test]
fn a_degraded_key_carries_its_success_ratio() {
    let (health, now) = after(16, 0, 4);
    assert!((health.availability(now) - 0.8).abs() < 1e-9);
    let (health, now) = after(20, 20, 0);
    assert!((health.availability(now) - 1.0).abs() < 1e-9, "slow is not failing");
}

#[test]
fn a_degraded_key_is_ejected_like_a_healthy_one() {
    let (mut health, now) = after(16, 0, 4);
    let moved = (0..20).find_map(|_| health.failure(false, now, 0.0));
    assert!(matches!(moved.map(|m| m.to), Some(Status::Ejected { .. })), "{moved:?}");
}

#[test]
fn what_was_before_probation_is_not_counted_after_it() {
    let (mut health, now) = probing();
    for n in 0..3 {
        let at = now + n * S;
        let canary = health.begin(Pass::Usual, at);
        health.success(canary, S / 10, at);
    }
    assert_eq!(health.counts(now + 2 * S).samples(), 0);
}

#[test]
fn an_ejection_while_our_own_network_is_down_has_the_base_length() {
    let (mut health, now) = probing();
    let canary = health.begin(Pass::Usual, now);
    health.failure(canary, now, 0.0);
    health.eject_at_base_length(0.0);
    assert!(health.tick(now + 29 * S).is_none());
    assert!(health.tick(now + 30 * S).is_some());
}

#[test]
fn an_ejection_ends_in_probation_after_its_time_and_grows_with_repetition() {
    let (mut health, now) = ejected();
    assert!(health.tick(now + 29 * S).is_none());
    assert!(health.tick(now + 30 * S).is_some());
    let now = now + 30 * S;
    assert_eq!(health.gate(Pass::Usual, now), Gate::Canary);
    let canary = health.begin(Pass::Usual, now);
    assert!(health.failure(canary, now, 0.0).is_some());
    assert!(health.tick(now + 59 * S).is_none());
    assert!(health.tick(now + 60 * S).is_some());
}

#[test]
fn jitter_makes_an_ejection_up_to_half_as_long_again() {
    let (mut health, now) = healthy();
    for _ in 0..5 {
        health.failure(false, now, 1.0);
    }
    assert!(health.tick(now + 44 * S).is_none());
    assert!(health.tick(now + 45 * S).is_some());
}

#[test]
fn probation_sends_one_canary_at_a_time_and_one_a_second() {
    let (mut health, now) = probing();
    assert_eq!(health.gate(Pass::Usual, now), Gate::Canary);
    assert!(health.begin(Pass::Usual, now));
    assert_eq!(health.gate(Pass::Usual, now + 5 * S), Gate::Busy);
    health.success(true, S / 10, now);
    assert_eq!(health.gate(Pass::Usual, now), Gate::Later(now + S));
    assert_eq!(health.gate(Pass::Usual, now + S), Gate::Canary);
}

#[test]
fn three_canaries_in_a_row_end_probation_with_a_slow_start() {
    let (mut health, now) = probing();
    for n in 0..3 {
        let at = now + n * S;
        let canary = health.begin(Pass::Usual, at);
        health.success(canary, S / 10, at);
    }
    let healed = now + 2 * S;
    assert_eq!(health.gate(Pass::Usual, healed), Gate::Open);
    assert!((health.ramp(healed) - 0.1).abs() < 1e-9);
    assert!((health.ramp(healed + 15 * S) - 0.5).abs() < 1e-9);
    health.tick(healed + 30 * S);
    assert!((health.ramp(healed + 30 * S) - 1.0).abs() < 1e-9);
}

#[test]
fn answers_to_calls_from_before_the_ejection_do_not_move_probation() {
    let (mut health, now) = probing();
    assert!(health.failure(false, now, 0.0).is_none());
    for _ in 0..3 {
        assert!(health.success(false, S / 10, now).is_none());
    }
    assert!(matches!(health.status(), Status::Probing { successes: 0, .. }));
}

#[test]
fn a_throttled_canary_frees_its_place_and_keeps_the_count() {
    let (mut health, now) = probing();
    let canary = health.begin(Pass::Usual, now);
    health.success(canary, S / 10, now);
    let canary = health.begin(Pass::Usual, now + S);
    health.end_without_sample(canary);
    assert!(matches!(health.status(), Status::Probing { successes: 1, .. }));
    assert_eq!(health.gate(Pass::Usual, now + 2 * S), Gate::Canary);
}

#[test]
fn two_good_probes_end_an_ejection_early_but_not_one_for_the_credential_they_do_not_prove() {
    let (mut health, now) = ejected();
    assert!(health.probed(true, false, now + S, 0.0).is_none());
    assert!(health.probed(true, false, now + 2 * S, 0.0).is_some());
    assert!(matches!(health.status(), Status::Probing { .. }));

    let (mut health, now) = healthy();
    health.eject(Cause::Auth, now, 0.0);
    for _ in 0..5 {
        assert!(health.probed(true, false, now, 0.0).is_none());
    }
    assert!(health.probed(true, true, now, 0.0).is_some());
}

#[test]
fn failed_probes_eject_only_a_provider_that_shows_no_success_by_itself() {
    let (mut health, now) = healthy();
    health.success(false, S / 10, now);
    for _ in 0..10 {
        assert!(health.probed(false, true, now + 10 * S, 0.0).is_none());
    }
    assert!(health.probed(false, true, now + 30 * S, 0.0).is_some());
}

#[test]
fn it_takes_three_failed_probes_in_a_row() {
    let (mut health, now) = healthy();
    for _ in 0..2 {
        assert!(health.probed(false, true, now, 0.0).is_none());
    }
    health.probed(true, true, now, 0.0);
    for n in 1..=3 {
        let ejected = health.probed(false, true, now, 0.0).is_some();
        assert_eq!(ejected, n == 3, "after {n}");
    }
}

#[test]
fn a_canary_that_fails_after_an_operators_resume_ejects_for_a_time_and_not_for_ever() {
    let (mut health, now) = healthy();
    health.probation(Cause::Operator, now);
    let canary = health.begin(Pass::Usual, now);
    health.failure(canary, now, 0.0);
    let status = health.status();
    assert!(matches!(status, Status::Ejected { cause: Cause::Consecutive, .. }), "{status:?}");
    assert!(health.tick(now + 30 * S).is_some());
}

#[test]
fn a_refused_credential_is_out_for_a_minute_and_no_panic_relaxes_it() {
    let (mut health, now) = healthy();
    health.eject(Cause::Auth, now, 0.0);
    assert_eq!(health.gate(Pass::Panic, now + 30 * S), Gate::Closed);
    assert!(health.tick(now + 59 * S).is_none());
    assert!(health.tick(now + 60 * S).is_some());
}

#[test]
fn in_panic_an_ejected_key_takes_a_canary_each_second() {
    let (mut health, now) = ejected();
    assert_eq!(health.gate(Pass::Usual, now), Gate::Closed);
    assert_eq!(health.gate(Pass::Panic, now), Gate::Canary);
    let canary = health.begin(Pass::Usual, now);
    health.failure(canary, now, 0.0);
    assert_eq!(health.gate(Pass::Panic, now), Gate::Later(now + S));
    let canary = health.begin(Pass::Usual, now + S);
    health.success(canary, S / 10, now + S);
    assert!(matches!(health.status(), Status::Probing { successes: 1, .. }));
}

#[test]
fn an_ejection_is_forgotten_for_every_half_minute_healthy() {
    let (mut health, mut now) = probing();
    for _ in 0..3 {
        let canary = health.begin(Pass::Usual, now);
        health.success(canary, S / 10, now);
        now += S;
    }
    now += 31 * S;
    health.success(false, S / 10, now);
    for _ in 0..25 {
        health.failure(false, now, 0.0);
    }
    assert!(health.tick(now + 30 * S).is_some(), "back to the first ejection's length");
}
