//! When a peer wants to be asked again: `Retry-After` (RFC 9110 section 10.2.3),
//! as seconds or as a date in any of the three forms of section 5.6.7.
//!
//! A date is compared with the answer's own `Date` where there is one, so that a
//! wrong local clock changes nothing. What cannot be read is as if it were
//! absent: a vendor's slip must not become a failure of ours.

use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

/// Longer waits are cut here (docs/semantics.md, "Limits").
/// It also keeps later sums of times from overflowing.
pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The wait that the headers ask for, at most [`LONGEST`]; zero for a date that
/// has passed. `now_s` is the local wall clock, unix seconds.
pub fn retry_after(headers: &HeaderMap, now_s: u64) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // Only too large a number fails here, and that is a long wait.
        return Some(text.parse().map_or(LONGEST, Duration::from_secs).min(LONGEST));
    }
    let then = unix_s(text)?;
    Some(Duration::from_secs(then.saturating_sub(date(headers).unwrap_or(now_s))).min(LONGEST))
}

/// The peer's clock, from the answer's `Date`: unix seconds.
pub fn date(headers: &HeaderMap) -> Option<u64> {
    unix_s(headers.get(DATE)?.to_str().ok()?)
}

fn unix_s(text: &str) -> Option<u64> {
    let time = httpdate::parse_http_date(text).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, HeaderValue};

    use super::{LONGEST, date, retry_after};

    /// Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
    const EXAMPLE: u64 = 784_111_777;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (k.parse().unwrap(), HeaderValue::from_str(v).unwrap())).collect()
    }

    #[test]
    fn retry_after_reads_seconds_and_all_forms_of_dates() {
        let now = EXAMPLE - 30;
        for (text, wait) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(30)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(30)),
            ("Sun Nov  6 08:49:37 1994", Some(30)),
            ("Sat, 05 Nov 1994 08:49:37 GMT", Some(0)),
            ("Sat, 06 Nov 2094 08:49:37 GMT", Some(LONGEST.as_secs())),
            ("99999999999999999999999999", Some(LONGEST.as_secs())),
            ("soon", None),
            ("-5", None),
            ("1.5", None),
            ("", None),
        ] {
            assert_eq!(
                retry_after(&headers(&[("retry-after", text)]), now),
                wait.map(Duration::from_secs),
                "{text}"
            );
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn a_wrong_local_clock_does_not_change_a_dated_wait() {
        let headers = headers(&[
            ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("date", "Sun, 06 Nov 1994 08:49:17 GMT"),
        ]);
        assert_eq!(retry_after(&headers, 0), Some(Duration::from_secs(20)));
        assert_eq!(date(&headers), Some(EXAMPLE - 20));
    }
}
