//! What a backend can be told of its deliveries by a signed webhook: the kinds,
//! sets of them, and one event as the engine makes it.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use super::{DeliveryId, Reason, State};
use crate::clock::Utc;

/// What an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A vendor accepted the delivery.
    Sent,
    /// The device said that it has it.
    Delivered,
    /// It cannot be delivered.
    Failed,
    /// Its life ended first.
    Expired,
    /// An attempt's end is unknown and the message forbids another.
    Unknown,
    /// It was taken back, or a newer message took its place.
    Cancelled,
    /// A vendor declared an address gone.
    AddressGone,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Sent,
        Self::Delivered,
        Self::Failed,
        Self::Expired,
        Self::Unknown,
        Self::Cancelled,
        Self::AddressGone,
    ];

    /// All words, in the same order.
    pub const WORDS: [&'static str; 7] = [
        Self::Sent.word(),
        Self::Delivered.word(),
        Self::Failed.word(),
        Self::Expired.word(),
        Self::Unknown.word(),
        Self::Cancelled.word(),
        Self::AddressGone.word(),
    ];

    /// The `type` of the webhook's body, and the word in `events.types`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Sent => "delivery.sent",
            Self::Delivered => "delivery.delivered",
            Self::Failed => "delivery.failed",
            Self::Expired => "delivery.expired",
            Self::Unknown => "delivery.unknown",
            Self::Cancelled => "delivery.cancelled",
            Self::AddressGone => "address.gone",
        }
    }

    /// The kind that has this word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// What is told of a delivery that comes to be in this state.
    pub const fn of_state(state: State) -> Option<Self> {
        match state {
            State::Sent => Some(Self::Sent),
            State::Delivered => Some(Self::Delivered),
            State::Failed => Some(Self::Failed),
            State::Expired => Some(Self::Expired),
            State::Unknown => Some(Self::Unknown),
            State::Cancelled => Some(Self::Cancelled),
            State::Queued | State::Sending | State::Waiting | State::Partial => None,
        }
    }
}

/// A set of kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventKinds(u8);

impl EventKinds {
    /// All of them.
    pub const ALL: Self = Self((1 << EventKind::ALL.len()) - 1);

    /// Whether it holds this one.
    pub const fn has(self, kind: EventKind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }

    /// The kinds in it.
    pub fn iter(self) -> impl Iterator<Item = EventKind> {
        EventKind::ALL.into_iter().filter(move |kind| self.has(*kind))
    }
}

impl FromIterator<EventKind> for EventKinds {
    fn from_iter<I: IntoIterator<Item = EventKind>>(kinds: I) -> Self {
        Self(kinds.into_iter().fold(0, |set, kind| set | 1 << kind as u8))
    }
}

/// Names an event: a UUIDv7 that holds the time at which it happened. The same on
/// every attempt to tell it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(u128);

impl EventId {
    /// From the number.
    pub const fn from_u128(number: u128) -> Self {
        Self(number)
    }

    /// The number, whose order is the order in which things happened.
    pub const fn as_u128(self) -> u128 {
        self.0
    }

    /// When it happened.
    pub const fn at(self) -> Utc {
        // The first 48 bits of a UUIDv7 (RFC 9562, section 5.7).
        Utc::from_ms((self.0 >> 80) as u64)
    }

    /// An id for something that happens now, above the one before.
    #[must_use]
    pub fn after(self, now: Utc, random: u64) -> Self {
        let random = u128::from(random) & ((1 << 62) - 1);
        let fresh = u128::from(now.ms()) << 80 | 7 << 76 | 0b10 << 62 | random;
        Self(fresh.max(self.0 + 1))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_u128(self.0).fmt(f)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An event as the engine makes it. What else is told (the recipient's `ref`, the
/// message's metadata) is added by the store, which has the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryEvent {
    /// Its name, and when it happened.
    pub id: EventId,
    /// What it says.
    pub kind: EventKind,
    /// Of which delivery.
    pub delivery: DeliveryId,
    /// The delivery's state.
    pub state: State,
    /// Why.
    pub reason: Option<Reason>,
    /// The provider that accepted it, was tried last, or declared the address gone.
    pub provider: Option<Arc<str>>,
    /// The address that is gone, by its place among the recipient's.
    pub address: Option<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_sets_say_the_same() {
        for kind in EventKind::ALL {
            assert_eq!(EventKind::of_word(kind.word()), Some(kind));
            assert!(EventKinds::ALL.has(kind));
            let alone: EventKinds = [kind].into_iter().collect();
            assert_eq!(alone.iter().collect::<Vec<_>>(), [kind]);
        }
        assert_eq!(EventKind::of_word("delivery.queued"), None);
    }

    #[test]
    fn ids_rise_whatever_the_clock_does_and_hold_their_time() {
        let first = EventId::from_u128(0).after(Utc::from_ms(1_700_000_000_000), u64::MAX);
        assert_eq!(first.at(), Utc::from_ms(1_700_000_000_000));
        let second = first.after(Utc::from_ms(1_600_000_000_000), 7);
        assert!(second > first);
        assert_eq!(Uuid::from_u128(first.as_u128()).get_version_num(), 7);
    }
}
