//! What somebody outside the router publishes: bytes that stand as they are in the
//! message of a UnifiedPush subscriber (ntfy, "UnifiedPush").
//!
//! Nothing of it is trimmed. What is not UTF-8, as encrypted payloads never are,
//! stands in base64 and says so. Larger payloads are refused and not cut, as
//! ntfy's own server cuts them: half of an encrypted payload is none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::payload::NO_TEXT;

/// Bytes of a payload, at most (RFC 8030, section 7.2; ntfy's `message-size-limit`).
pub const LARGEST_TEXT: usize = 4096;

/// The inside of such a message.
#[derive(Clone, PartialEq, Eq)]
pub struct Text(Vec<u8>);

impl Text {
    /// `None` when it is too large.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= LARGEST_TEXT).then(|| Self(bytes.to_vec()))
    }

    pub(super) fn object(&self) -> Vec<u8> {
        let object = match std::str::from_utf8(&self.0) {
            Ok("") => json!({"message": NO_TEXT}),
            Ok(text) => json!({"message": text}),
            Err(_) => json!({"message": STANDARD.encode(&self.0), "encoding": "base64"}),
        };
        object.to_string().into_bytes()
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Text({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stand_as_they_are_or_in_base64_and_are_never_cut() {
        let object = |bytes: &[u8]| String::from_utf8(Text::new(bytes).unwrap().object()).unwrap();
        assert_eq!(object(b" a\n\"b\" "), r#"{"message":" a\n\"b\" "}"#);
        assert_eq!(object(&[0xFF, 0, 1]), r#"{"encoding":"base64","message":"/wAB"}"#);
        assert_eq!(object(b""), r#"{"message":"triggered"}"#);
        assert!(Text::new(&[b'x'; LARGEST_TEXT]).is_some());
        assert_eq!(Text::new(&[b'x'; LARGEST_TEXT + 1]), None);
    }
}
