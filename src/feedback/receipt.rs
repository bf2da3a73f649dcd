//! `<delivery id>.<secret>`, the string that every payload carries. With it an
//! app drops pushes that it has seen and sends its receipt. The secret is derived
//! from the server's key and never stored.

use std::sync::Arc;

use aws_lc_rs::{constant_time, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::model::DeliveryId;

/// Characters of the secret: 132 bits.
const SECRET_LENGTH: usize = 22;

/// Makes and checks receipt secrets.
#[derive(Debug)]
pub struct Receipts {
    key: hmac::Key,
}

impl Receipts {
    /// From the server's key, which is the store's.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// Whether this is the delivery's secret. Takes the same time for every wrong
    /// one of the right length.
    pub fn knows(&self, delivery: DeliveryId, secret: &str) -> bool {
        let string = self.string(delivery);
        let known = string.rsplit('.').next().unwrap_or_default();
        constant_time::verify_slices_are_equal(known.as_bytes(), secret.as_bytes()).is_ok()
    }

    /// The string for a delivery.
    pub fn string(&self, delivery: DeliveryId) -> Arc<str> {
        let id = delivery.to_string();
        let tag = hmac::sign(&self.key, id.as_bytes());
        let secret = URL_SAFE_NO_PAD.encode(tag.as_ref());
        format!("{id}.{}", &secret[..SECRET_LENGTH]).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_string_is_the_id_and_22_characters_that_only_the_key_gives() {
        let delivery: DeliveryId = "0197f000-0000-7000-8000-000000000001".parse().unwrap();
        let one = Receipts::new(&[1; 32]).string(delivery);
        let two = Receipts::new(&[2; 32]).string(delivery);
        assert_eq!(one.len(), 36 + 1 + 22);
        assert!(one.starts_with("0197f000-0000-7000-8000-000000000001."));
        assert_ne!(one, two);
        assert_eq!(one, Receipts::new(&[1; 32]).string(delivery));
        let (_, secret) = one.split_once('.').unwrap();
        assert!(Receipts::new(&[1; 32]).knows(delivery, secret));
        for wrong in ["", "x", &secret[1..], &two[37..], &format!("{secret}x")] {
            assert!(!Receipts::new(&[1; 32]).knows(delivery, wrong), "{wrong}");
        }
    }
}
