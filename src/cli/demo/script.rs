//! What goes wrong in the demo, and when.
//!
//! In shares of its duration, so that a demo of ten seconds tells the same story
//! as one of ten minutes: first one vendor dies in two ways and comes back, then
//! both are in trouble at once, so that nothing can be sent for a moment and the
//! queue has to hold, and in the end all is well.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::load::script::Step;

/// The steps for a demo of that length, in order of time.
pub(super) fn steps(duration: Duration) -> Vec<Step> {
    let retry_after_s = (duration.as_secs() / 20).max(1);
    let step = |share: f64, vendor: &str, behaviour: Value, says: &str| Step {
        at: duration.mul_f64(share),
        vendor: vendor.to_owned(),
        behaviour,
        says: says.to_owned(),
    };
    vec![
        step(0.15, "apns", json!({"mode": "failing", "status": 500}), "APNs answers 500 to all"),
        step(0.30, "apns", json!({"mode": "refusing"}), "APNs refuses connections"),
        step(0.45, "apns", json!({"mode": "healthy"}), "APNs is back"),
        step(
            0.60,
            "fcm",
            json!({"mode": "throttling", "retry_after_s": retry_after_s}),
            &format!("FCM throttles: 429, Retry-After {retry_after_s} s"),
        ),
        step(0.65, "apns", json!({"mode": "failing", "status": 503}), "APNs answers 503 as well"),
        step(0.72, "apns", json!({"mode": "healthy"}), "APNs is back"),
        step(0.80, "fcm", json!({"mode": "healthy"}), "FCM is back"),
    ]
}

/// How patient the router is in a demo of that length, in TOML. The defaults, an
/// ejection of 30 s among them, are right for a vendor and too long for a show.
pub(super) fn temper(duration: Duration) -> String {
    let short = (duration / 20).clamp(Duration::from_secs(1), Duration::from_secs(30));
    let short = short.as_millis();
    format!(
        "health = {{ base_ejection = \"{short}ms\", max_ejection = \"{short}ms\", \
         slow_start = \"{short}ms\" }}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn story_is_in_order_and_ends_well_before_the_stream_does() {
        for seconds in [5, 60, 3600] {
            let duration = Duration::from_secs(seconds);
            let steps = steps(duration);
            assert!(steps.is_sorted_by_key(|step| step.at));
            for vendor in ["apns", "fcm"] {
                let last = steps.iter().rfind(|step| step.vendor == vendor).unwrap();
                assert_eq!(last.behaviour["mode"], "healthy");
                assert!(last.at <= duration.mul_f64(0.8));
            }
        }
    }

    #[test]
    fn temper_is_toml_with_positive_times() {
        for seconds in [1, 60, 36_000] {
            let table: toml::Table = temper(Duration::from_secs(seconds)).parse().unwrap();
            let base = table["health"]["base_ejection"].as_str().unwrap();
            let base = humantime::parse_duration(base).unwrap();
            assert!((Duration::from_secs(1)..=Duration::from_secs(30)).contains(&base));
        }
    }
}
