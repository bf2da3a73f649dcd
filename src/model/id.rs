//! Ids of messages and deliveries.
//!
//! A message id is a UUIDv7 whose low 14 bits are zero, and its delivery n is
//! id + n + 1. So a delivery's message needs no lookup, a message's deliveries
//! are one key range, expanding a message twice gives the same ids, and the time
//! in the id is the time of acceptance and names the partition it is stored in.

use std::fmt;
use std::str::FromStr;

use rand::Rng;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Utc;

/// Bits at the end of a message id that number its deliveries.
const DELIVERY_BITS: u32 = 14;

/// Deliveries of one message at most (a message with users fans out to their devices).
pub const MAX_DELIVERIES: usize = 10_000;

const DELIVERY_MASK: u128 = (1 << DELIVERY_BITS) - 1;

/// A message's id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MessageId(u128);

/// A delivery's id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeliveryId(u128);

impl MessageId {
    /// From the number; `None` when the low bits say that it is none of ours.
    pub fn from_u128(number: u128) -> Option<Self> {
        (number & DELIVERY_MASK == 0).then_some(Self(number))
    }

    /// The number, whose order is the order of acceptance.
    pub const fn as_u128(self) -> u128 {
        self.0
    }

    /// Its n-th delivery, counted from 0.
    pub const fn delivery(self, n: u16) -> DeliveryId {
        DeliveryId(self.0 + n as u128 + 1)
    }

    /// When the message was accepted.
    pub const fn accepted_at(self) -> Utc {
        // The first 48 bits of a UUIDv7 (RFC 9562, section 5.7).
        Utc::from_ms((self.0 >> 80) as u64)
    }
}

impl DeliveryId {
    /// From the number; `None` when it is a message's.
    pub fn from_u128(number: u128) -> Option<Self> {
        (number & DELIVERY_MASK != 0).then_some(Self(number))
    }

    /// The number.
    pub const fn as_u128(self) -> u128 {
        self.0
    }

    /// The message it belongs to.
    pub const fn message(self) -> MessageId {
        MessageId(self.0 & !DELIVERY_MASK)
    }

    /// Its place among the message's recipients, from 0.
    pub const fn n(self) -> u16 {
        ((self.0 & DELIVERY_MASK) - 1) as u16
    }

    /// As adapters take it.
    pub const fn uuid(self) -> Uuid {
        Uuid::from_u128(self.0)
    }
}

/// Makes message ids, strictly rising.
#[derive(Debug, Default)]
pub struct IdGenerator {
    last_ms: u64,
    sequence: u16,
}

impl IdGenerator {
    /// The largest number of the 12 bits after the time.
    const LAST_SEQUENCE: u16 = (1 << 12) - 1;

    /// An id for a message accepted now. Within a millisecond, and when the
    /// clock stands or goes back, a sequence in the 12 bits after the time keeps
    /// the order (RFC 9562, section 6.2, method 1); when that is used up, the
    /// time in the id runs ahead by a millisecond.
    pub fn next(&mut self, now: Utc, rng: &mut impl Rng) -> MessageId {
        if now.ms() > self.last_ms {
            (self.last_ms, self.sequence) = (now.ms(), 0);
        } else if self.sequence < Self::LAST_SEQUENCE {
            self.sequence += 1;
        } else {
            (self.last_ms, self.sequence) = (self.last_ms + 1, 0);
        }
        let random = u128::from(rng.next_u64()) & ((1 << 62) - 1) & !DELIVERY_MASK;
        let version = 7u128 << 76;
        let variant = 0b10u128 << 62;
        let time = u128::from(self.last_ms) << 80;
        let sequence = u128::from(self.sequence) << 64;
        MessageId(time | version | sequence | variant | random)
    }
}

macro_rules! uuid_text {
    ($id:ident) => {
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Uuid::from_u128(self.0).fmt(f)
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $id {
            type Err = ();

            fn from_str(text: &str) -> Result<Self, ()> {
                let uuid = Uuid::parse_str(text).map_err(|_| ())?;
                Self::from_u128(uuid.as_u128()).ok_or(())
            }
        }
    };
}

uuid_text!(MessageId);
uuid_text!(DeliveryId);

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn ids_rise_even_when_the_clock_goes_back_and_keep_their_time() {
        let (mut ids, mut rng) = (IdGenerator::default(), StdRng::seed_from_u64(1));
        let first = ids.next(Utc::from_ms(1_700_000_000_000), &mut rng);
        assert_eq!(first.accepted_at(), Utc::from_ms(1_700_000_000_000));
        let mut last = first;
        for _ in 0..10_000 {
            let next = ids.next(Utc::from_ms(1_600_000_000_000), &mut rng);
            assert!(next > last);
            last = next;
        }
    }

    #[test]
    fn a_delivery_knows_its_message_and_its_place() {
        let (mut ids, mut rng) = (IdGenerator::default(), StdRng::seed_from_u64(2));
        let message = ids.next(Utc::from_ms(1_700_000_000_000), &mut rng);
        for n in [0, 1, 9_999] {
            let delivery = message.delivery(n);
            assert_eq!((delivery.message(), delivery.n()), (message, n));
            assert_eq!(delivery.to_string().parse::<DeliveryId>(), Ok(delivery));
        }
        assert!(message.to_string().parse::<DeliveryId>().is_err());
        assert_eq!(message.delivery(0).uuid().get_version_num(), 7);
    }
}
