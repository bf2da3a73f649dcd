//! Durations and times as requests write them.

use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Utc;

/// `"30s"`, `"4h"`, `"7d"`, `"1h 30m"`.
pub fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

/// A time as RFC 3339 (section 5.6) writes it. The library reads more than that
/// (a time without seconds, a zone in brackets), so the shape is looked at first.
pub fn rfc3339(text: &str) -> Option<Utc> {
    let bytes = text.as_bytes();
    let digits = |from: usize, to: usize| {
        bytes.get(from..to).is_some_and(|part| part.iter().all(u8::is_ascii_digit))
    };
    let is = |at: usize, any: &[u8]| bytes.get(at).is_some_and(|byte| any.contains(byte));
    let date = digits(0, 4) && is(4, b"-") && digits(5, 7) && is(7, b"-") && digits(8, 10);
    let time = digits(11, 13) && is(13, b":") && digits(14, 16) && is(16, b":") && digits(17, 19);
    let mut end = 19;
    if is(end, b".") {
        end += 1;
        let fraction = bytes[end..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if fraction == 0 {
            return None;
        }
        end += fraction;
    }
    let offset = if is(end, b"zZ") {
        bytes.len() == end + 1
    } else {
        let hours = is(end, b"+-") && digits(end + 1, end + 3) && is(end + 3, b":");
        hours && digits(end + 4, end + 6) && bytes.len() == end + 6
    };
    if !(date && is(10, b"tT ") && time && offset) {
        return None;
    }
    // RFC 3339 has offsets up to 23:59; the library takes 25:59.
    if !is(end, b"zZ") && &text[end + 1..end + 3] > "23" {
        return None;
    }
    // Before 1970 it is long past, whatever the moment.
    let ms = text.parse::<Timestamp>().ok()?.as_millisecond();
    Some(Utc::from_ms(u64::try_from(ms).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_rfc_3339_and_nothing_else() {
        let moment = Utc::from_ms(1_764_576_000_007);
        for text in [
            "2025-12-01T08:00:00.007Z",
            "2025-12-01t08:00:00.007z",
            "2025-12-01T10:00:00.007+02:00",
            "2025-12-01 00:00:00.007-08:00",
        ] {
            assert_eq!(rfc3339(text), Some(moment), "{text}");
        }
        for text in [
            "",
            "2025-12-01",
            "2025-12-01T08:00Z",
            "2025-12-01T08:00:00",
            "2025-12-01T08:00:00.Z",
            "2025-12-01T08:00:00Z[UTC]",
            "2025-13-01T08:00:00Z",
            "2025-02-30T08:00:00Z",
            "2025-12-01T25:00:00Z",
            "2025-12-01T08:00:00+25:00",
            "1764576000",
            "2025-12-01T08:00:00+0200",
        ] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }
}
