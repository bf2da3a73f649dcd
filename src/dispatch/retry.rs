//! When a delivery is tried again after a round without success.

use std::time::Duration;

use super::Settings;

/// The delay before round `k + 1`, after `k` rounds: doubled each time up to a
/// cap, half of it fixed and half drawn, so that deliveries that failed together
/// do not come back together and none comes back at once (Finagle's equal
/// jitter). `chance` is in 0..1.
pub(super) fn backoff(settings: &Settings, rounds: u16, chance: f64) -> Duration {
    let doublings = u32::from(rounds.clamp(1, 31) - 1);
    let whole = settings.backoff.saturating_mul(1 << doublings).min(settings.max_backoff);
    whole / 2 + (whole / 2).mul_f64(chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_from_two_seconds_to_five_minutes_with_equal_jitter() {
        let settings = Settings::default();
        for (rounds, least, most) in
            [(1, 1, 2), (2, 2, 4), (3, 4, 8), (8, 128, 256), (9, 150, 300), (60, 150, 300)]
        {
            assert_eq!(backoff(&settings, rounds, 0.0), Duration::from_secs(least));
            assert_eq!(backoff(&settings, rounds, 1.0), Duration::from_secs(most));
        }
    }
}
