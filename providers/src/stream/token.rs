//! Access tokens of the stream listener: base64url of the end (8 bytes, unix
//! seconds) and of HMAC-SHA256 over topic and end. Nothing is stored: a token is
//! good until its end, and all of them end when the secret changes.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const END: usize = size_of::<u64>();

/// Makes and checks tokens.
#[derive(Debug)]
pub struct Tokens(hmac::Key);

impl Tokens {
    /// From the configured secret, or one derived from the server's own.
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// A token that opens `topic` until `expires_at` (unix seconds).
    pub fn make(&self, topic: &str, expires_at: u64) -> String {
        let mut token = expires_at.to_be_bytes().to_vec();
        token.extend_from_slice(hmac::sign(&self.0, &signed(topic, expires_at)).as_ref());
        URL_SAFE_NO_PAD.encode(token)
    }

    /// Whether the token opens `topic` at `now` (unix seconds).
    pub fn opens(&self, token: &str, topic: &str, now: u64) -> bool {
        let Ok(token) = URL_SAFE_NO_PAD.decode(token) else { return false };
        let Some((end, tag)) = token.split_at_checked(END) else { return false };
        let Ok(end) = end.try_into().map(u64::from_be_bytes) else { return false };
        end > now && hmac::verify(&self.0, &signed(topic, end), tag).is_ok()
    }
}

fn signed(topic: &str, expires_at: u64) -> Vec<u8> {
    let mut text = b"pushyard stream token".to_vec();
    text.extend_from_slice(&expires_at.to_be_bytes());
    text.extend_from_slice(topic.as_bytes());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_its_topic_until_its_end_and_nothing_else() {
        let tokens = Tokens::new(b"secret");
        let token = tokens.make("alice", 100);
        assert!(tokens.opens(&token, "alice", 99));
        for (token, topic, now) in [
            (&*token, "alice", 100),
            (&token, "alic", 99),
            (&token, "bob", 99),
            (&token[..20], "alice", 99),
            ("", "alice", 99),
            ("!", "alice", 99),
            (&Tokens::new(b"other").make("alice", 100), "alice", 99),
        ] {
            assert!(!tokens.opens(token, topic, now));
        }
    }
}
