//! Durations and sizes as text with a unit: `"30s"`, `"256MiB"`. What is printed
//! is read back as the same value.

use std::time::Duration;

/// No duration is longer (ten years): sums with a clock's reading stay far from
/// what either clock can hold.
const LONGEST: Duration = Duration::from_secs(3660 * 24 * 3600);

/// Units of sizes, largest first; decimal ones are read, never printed.
const SIZES: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Reads a duration; zero is one.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration > LONGEST => Err(format!("{text:?} is too long; at most 3660d")),
        Ok(duration) => Ok(duration),
        Err(_) => Err(format!(
            "{text:?} is no duration; write a number and a unit (ms, s, m, h, d), as in \"30s\""
        )),
    }
}

/// A duration as text.
pub(super) fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let whole = units.into_iter().find(|(_, unit)| ms > 0 && ms.is_multiple_of(*unit));
    match whole {
        // A day is shown as 24h: how retention is written everywhere.
        Some(("d", unit)) if ms == unit => "24h".to_owned(),
        Some((name, unit)) => format!("{}{name}", ms / unit),
        None => format!("{ms}ms"),
    }
}

/// Reads a size in bytes.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "{text:?} is no size; write a whole number and a unit (B, KiB, MiB, GiB, TiB), \
             as in \"256MiB\""
        )
    };
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let factor = SIZES.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1;
    let number: u64 = digits.trim_end().parse().map_err(|_| wrong())?;
    number.checked_mul(factor).ok_or_else(wrong)
}

/// A size as text.
pub(super) fn show_size(bytes: u64) -> String {
    let binary = SIZES.iter().filter(|(name, _)| name.ends_with("iB"));
    let whole = binary.clone().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{bytes}B"), |(name, unit)| format!("{}{name}", bytes / unit))
}

/// A size for people, rounded to a tenth.
pub(super) fn about_size(bytes: u64) -> String {
    let unit = SIZES.iter().find(|(name, unit)| name.ends_with("iB") && bytes >= *unit);
    match unit {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::{duration, show_duration, show_size, size};

    #[test]
    fn what_is_printed_is_read_back() {
        for text in ["0ms", "250ms", "1500ms", "30s", "90s", "5m", "24h", "36h", "7d"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
        for text in ["0B", "1B", "1000B", "16KiB", "256MiB", "10GiB", "3TiB"] {
            assert_eq!(show_size(size(text).unwrap()), text);
        }
    }

    #[test]
    fn sizes_need_a_unit_and_fit() {
        assert_eq!(size("2 MB"), Ok(2_000_000));
        for text in ["", "12", "-1B", "1.5GiB", "MiB", "99999999TiB", "1mib"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
