//! The only place that asks the system for the time.
//!
//! The simulator stands in for machines that are not ours, so its time is the
//! real one and never a test's paused clock: a token's age is judged against
//! the wall clock exactly as the vendor would. Everything else gets the time as
//! an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Milliseconds since the Unix epoch; zero for a clock set before it.
#[expect(clippy::disallowed_methods, reason = "this file is the simulator's one source of time")]
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_millis()
        .try_into()
        .unwrap_or(u64::MAX)
}

/// The monotonic clock, for deadlines and rates.
#[expect(clippy::disallowed_methods, reason = "this file is the simulator's one source of time")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}

/// `2026-11-24T11:05:27.123Z`: RFC 3339 in UTC with milliseconds.
pub(crate) fn rfc3339(unix_ms: u64) -> String {
    timestamp(unix_ms).strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// `Tue, 24 Nov 2026 11:05:27 GMT`: the date form of RFC 9110, section 5.6.7.
pub(crate) fn http_date(unix_ms: u64) -> String {
    timestamp(unix_ms).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn timestamp(unix_ms: u64) -> jiff::Timestamp {
    i64::try_from(unix_ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_forms_of_their_standards() {
        assert_eq!(rfc3339(1_700_000_000_042), "2023-11-14T22:13:20.042Z");
        assert_eq!(http_date(1_700_000_000_042), "Tue, 14 Nov 2023 22:13:20 GMT");
    }
}
