//! Where a message came from in its backend's own tracing: what W3C Trace Context
//! puts into the header `traceparent`. It is taken over, shown and logged, so that a
//! push is found by the trace of the request that caused it; the router makes no
//! spans of its own.

use std::fmt;

/// The longest part that every version has: `00-`, 32, `-`, 16, `-` and 2 digits
/// (W3C Trace Context, section 3.2.2).
const LENGTH: usize = 55;

/// A trace, and the span in it that sent the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The trace.
    pub id: TraceId,
    /// The span.
    pub parent: [u8; 8],
    /// Bit 0: it is recorded.
    pub flags: u8,
}

/// A trace's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub [u8; 16]);

impl Trace {
    /// Reads a `traceparent`. `None`: it is invalid, and to be ignored as if it were
    /// not there. What a later version adds at its end is left out (section 4.3).
    pub fn parse(header: &[u8]) -> Option<Self> {
        let (known, more) = header.split_at_checked(LENGTH)?;
        let [version] = bytes(&known[..2])?;
        let whole = match version {
            0 => more.is_empty(),
            0xff => false,
            _ => more.is_empty() || more[0] == b'-',
        };
        let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        let trace = Self {
            id: TraceId(bytes(&known[3..35])?),
            parent: bytes(&known[36..52])?,
            flags: u8::from_be_bytes(bytes(&known[53..])?),
        };
        // All zeros stand for "none".
        let named = trace.id.0 != [0; 16] && trace.parent != [0; 8];
        (whole && dashes && named).then_some(trace)
    }
}

/// As a `traceparent` of version 00.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parent = u64::from_be_bytes(self.parent);
        write!(f, "00-{}-{parent:016x}-{:02x}", self.id, self.flags)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// From lower-case hexadecimal digits, the only ones that are allowed.
fn bytes<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_read_is_what_is_shown() {
        let trace = Trace::parse(VALID.as_bytes()).unwrap();
        assert_eq!(trace.to_string(), VALID);
        assert_eq!(trace.id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let small = "00-00000000000000000000000000000001-0000000000000002-00";
        assert_eq!(Trace::parse(small.as_bytes()).unwrap().to_string(), small);
    }

    #[test]
    fn a_later_version_may_be_longer_and_is_shown_as_ours() {
        for later in
            [VALID.replacen("00", "cc", 1), format!("{VALID}-more").replacen("00", "01", 1)]
        {
            assert_eq!(Trace::parse(later.as_bytes()).unwrap().to_string(), VALID, "{later}");
        }
    }

    #[test]
    fn anything_else_is_none() {
        for bad in [
            String::new(),
            VALID[..54].to_owned(),
            format!("{VALID}-"),
            format!("{VALID}0"),
            format!("{VALID}0").replacen("00", "01", 1),
            VALID.replacen("00", "ff", 1),
            VALID.replacen("00", "0g", 1),
            VALID.to_uppercase(),
            VALID.replace('-', "_"),
            VALID.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            VALID.replace("00f067aa0ba902b7", &"0".repeat(16)),
            VALID.replace('f', "é"),
        ] {
            assert_eq!(Trace::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
