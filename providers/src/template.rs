//! A body that is built once for a message and filled in for each recipient.
//!
//! An adapter builds its JSON with marker strings ([`Slot::marker`]) where a
//! value differs between recipients, serialises it once, and each call only
//! copies bytes. The markers carry a random number drawn once a process, so that
//! no text of a message can be mistaken for one.

use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

/// A value that differs between the recipients of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The address's token or whatever the adapter passes as such.
    Address,
    /// The delivery id.
    Delivery,
    /// `<delivery id>.<secret>`.
    Pushyard,
    /// Seconds of life that are left.
    Ttl,
    /// The end of life, unix seconds.
    Expires,
}

impl Slot {
    const ALL: [Self; 5] =
        [Self::Address, Self::Delivery, Self::Pushyard, Self::Ttl, Self::Expires];

    /// The text that stands for this slot in the value that is serialised. It
    /// may be a part of a longer string.
    pub fn marker(self) -> String {
        static NONCE: OnceLock<u64> = OnceLock::new();
        format!("pushyard-slot-{:016x}-{}", NONCE.get_or_init(rand::random), self as u8)
    }
}

/// What fills the slots of one call.
#[derive(Clone, Copy, Debug)]
pub struct Filling<'a> {
    /// For [`Slot::Address`]; JSON-escaped by `render`.
    pub address: &'a str,
    /// For [`Slot::Delivery`].
    pub delivery: &'a str,
    /// For [`Slot::Pushyard`].
    pub pushyard: &'a str,
    /// For [`Slot::Ttl`].
    pub ttl: u64,
    /// For [`Slot::Expires`].
    pub expires_at: u64,
}

/// Serialised JSON with slots.
#[derive(Clone, Debug)]
pub struct Template {
    text: Bytes,
    /// Where a value goes, rising.
    slots: SmallVec<[(usize, Slot); 4]>,
}

impl Template {
    /// Serialises `value` and finds the markers in it.
    pub fn new(value: &serde_json::Value) -> Self {
        let full = value.to_string();
        let mut found: SmallVec<[(usize, usize, Slot); 4]> = SmallVec::new();
        for slot in Slot::ALL {
            let marker = slot.marker();
            found.extend(full.match_indices(&marker).map(|(at, text)| (at, text.len(), slot)));
        }
        found.sort_unstable_by_key(|(at, ..)| *at);
        let mut text = String::with_capacity(full.len());
        let mut slots = SmallVec::new();
        let mut from = 0;
        for (at, length, slot) in found {
            text.push_str(&full[from..at]);
            slots.push((text.len(), slot));
            from = at + length;
        }
        text.push_str(&full[from..]);
        Self { text: text.into(), slots }
    }

    /// The body's length when the slots hold `address` bytes of address and
    /// the usual lengths of the others; what a size limit is checked against.
    pub fn rendered_len(&self, address: usize) -> usize {
        let slots: usize = self
            .slots
            .iter()
            .map(|(_, slot)| match slot {
                Slot::Address => address,
                Slot::Delivery => 36,
                // id, dot and 22 characters of secret
                Slot::Pushyard => 36 + 1 + 22,
                Slot::Ttl => 7,
                Slot::Expires => 10,
            })
            .sum();
        self.text.len() + slots
    }

    /// The body for one recipient.
    pub fn render(&self, filling: &Filling<'_>) -> Bytes {
        let mut out = BytesMut::with_capacity(self.rendered_len(filling.address.len()) + 16);
        let mut from = 0;
        for (at, slot) in &self.slots {
            out.extend_from_slice(&self.text[from..*at]);
            from = *at;
            match slot {
                Slot::Address => escape_into(&mut out, filling.address),
                Slot::Delivery => out.extend_from_slice(filling.delivery.as_bytes()),
                Slot::Pushyard => out.extend_from_slice(filling.pushyard.as_bytes()),
                Slot::Ttl => out.extend_from_slice(filling.ttl.to_string().as_bytes()),
                Slot::Expires => out.extend_from_slice(filling.expires_at.to_string().as_bytes()),
            }
        }
        out.extend_from_slice(&self.text[from..]);
        out.freeze()
    }
}

/// Appends the inside of a JSON string.
fn escape_into(out: &mut BytesMut, text: &str) {
    if text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    let quoted = serde_json::Value::from(text).to_string();
    out.extend_from_slice(&quoted.as_bytes()[1..quoted.len() - 1]);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Filling, Slot, Template};

    const FILLING: Filling<'_> = Filling {
        address: "to\"ken\\",
        delivery: "d-1",
        pushyard: "d-1.secret",
        ttl: 60,
        expires_at: 1_700_000_000,
    };

    #[test]
    fn slots_are_filled_in_place_and_escaped() {
        let template = Template::new(&json!({
            "token": Slot::Address.marker(),
            "ttl": format!("{}s", Slot::Ttl.marker()),
            "id": Slot::Delivery.marker(),
            "twice": [Slot::Pushyard.marker(), Slot::Pushyard.marker()],
            "exp": Slot::Expires.marker(),
        }));
        let value: serde_json::Value = serde_json::from_slice(&template.render(&FILLING)).unwrap();
        assert_eq!(
            value,
            json!({"token": "to\"ken\\", "ttl": "60s", "id": "d-1",
                   "twice": ["d-1.secret", "d-1.secret"], "exp": "1700000000"})
        );
    }

    #[test]
    fn text_that_looks_like_a_marker_stays_text() {
        let template = Template::new(&json!({"a": "pushyard-slot-0000000000000000-0"}));
        let value: serde_json::Value = serde_json::from_slice(&template.render(&FILLING)).unwrap();
        assert_eq!(value, json!({"a": "pushyard-slot-0000000000000000-0"}));
    }
}
