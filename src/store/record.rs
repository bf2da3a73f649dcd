//! How records look on disk: one version byte, then postcard.
//!
//! The stored structs are types of their own and never those of the model, so
//! that a field moved there does not silently change what old files mean. Enums
//! are stored as numbers that are listed here and only ever added to. The same
//! structs serve writing and reading: they borrow their texts from the message
//! or from the page.
//!
//! An address is stored by names (kind, fields) and goes through the kind's own
//! checks again when it is read: a kind that this build does not have, or a
//! value that it no longer takes, makes the record undecodable. What happens to
//! such a record is for the caller to say.
//!
//! The parts that the store itself looks at come first ([`MessageHead`],
//! [`ProgressHead`]), so that it can read them without decoding the rest.

mod device;
mod message;
mod progress;
#[cfg(test)]
mod tests;

use postcard::ser_flavors::Flavor;
use pushyard_providers::{Outcome, Priority};
use serde::{Deserialize, Serialize};

pub(super) use self::device::{decode_device, decode_gone, encode_device, encode_gone};
use self::message::{StoredMessage, Users};
use self::progress::StoredProgress;
use super::{Intent, StoreError};
use crate::clock::Utc;
use crate::model::{Durability, Message, MessageId, OnAmbiguous, Progress, Reason, State};

/// The form that this build writes.
const VERSION: u8 = 1;

/// The form of a message that names users: as the other, and [`Users`] behind it.
const VERSION_WITH_USERS: u8 = 2;

/// Why a record cannot be read; never with its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Undecodable(String);

impl Undecodable {
    /// It was found out earlier.
    pub(super) fn set_aside() -> Self {
        Self("set aside".to_owned())
    }
}

impl From<Undecodable> for StoreError {
    fn from(error: Undecodable) -> Self {
        Self::Undecodable(error.0)
    }
}

/// What the store reads of a message without decoding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MessageHead {
    /// The ttl in milliseconds; 0: now or never.
    pub(super) ttl_ms: u64,
    /// The hash of the idempotency key.
    pub(super) key: Option<[u8; 16]>,
}

/// What the store reads of a delivery's progress without decoding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProgressHead {
    /// Where it is.
    pub(super) state: State,
    /// When its state last changed.
    pub(super) at: Utc,
}

/// Adds a message's record to `into`.
pub(super) fn encode_message(message: &Message, into: &mut Vec<u8>) {
    match Users::of(message) {
        None => encode(&StoredMessage::from(message), into),
        Some(users) => {
            encode_as(VERSION_WITH_USERS, &(StoredMessage::from(message), users), into);
        }
    }
}

/// A message from its record.
pub(super) fn decode_message(id: MessageId, bytes: &[u8]) -> Result<Message, Undecodable> {
    if names_users(bytes) {
        let (message, users) =
            whole(take_as::<(StoredMessage<'_>, Users<'_>)>(VERSION_WITH_USERS, bytes)?)?;
        let mut message = message.into_message(id)?;
        users.mark(&mut message);
        return Ok(message);
    }
    decode::<StoredMessage<'_>>(bytes)?.into_message(id)
}

/// The head of a message's record.
pub(super) fn decode_message_head(bytes: &[u8]) -> Result<MessageHead, Undecodable> {
    let version = if names_users(bytes) { VERSION_WITH_USERS } else { VERSION };
    take_as(version, bytes).map(|(head, _)| head)
}

/// Whether the message names users.
pub(super) fn names_users(bytes: &[u8]) -> bool {
    bytes.first() == Some(&VERSION_WITH_USERS)
}

/// Adds the record of a delivery's progress to `into`.
pub(super) fn encode_progress(progress: &Progress, into: &mut Vec<u8>) {
    encode(&StoredProgress::from(progress), into);
}

/// A delivery's progress from its record.
pub(super) fn decode_progress(bytes: &[u8]) -> Result<Progress, Undecodable> {
    decode::<StoredProgress<'_>>(bytes)?.into_progress()
}

/// The head of the record of a delivery's progress.
pub(super) fn decode_progress_head(bytes: &[u8]) -> Result<ProgressHead, Undecodable> {
    let ((state, at), _) = take::<(u8, u64)>(bytes)?;
    Ok(ProgressHead { state: state_from(state)?, at: Utc::from_ms(at) })
}

/// Adds an intent's record to `into`.
pub(super) fn encode_intent(intent: &Intent, into: &mut Vec<u8>) {
    let Intent { n, provider, address, at } = intent;
    encode(&StoredIntent { n: *n, provider, address: *address, at: at.ms() }, into);
}

/// An intent from its record.
pub(super) fn decode_intent(bytes: &[u8]) -> Result<Intent, Undecodable> {
    let StoredIntent { n, provider, address, at } = decode(bytes)?;
    Ok(Intent { n, provider: provider.into(), address, at: Utc::from_ms(at) })
}

fn encode<T: Serialize>(record: &T, into: &mut Vec<u8>) {
    encode_as(VERSION, record, into);
}

fn encode_as<T: Serialize>(version: u8, record: &T, into: &mut Vec<u8>) {
    into.push(version);
    postcard::serialize_with_flavor(record, Growing(into))
        .expect("a buffer that grows takes all, and every length is known beforehand");
}

/// Reads the whole of `bytes`: what is left over is damage too.
fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Undecodable> {
    whole(take(bytes)?)
}

fn whole<T>((record, rest): (T, &[u8])) -> Result<T, Undecodable> {
    match rest {
        [] => Ok(record),
        rest => Err(Undecodable(format!("{} bytes too many", rest.len()))),
    }
}

fn take<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), Undecodable> {
    take_as(VERSION, bytes)
}

fn take_as<'a, T: Deserialize<'a>>(
    known: u8,
    bytes: &'a [u8],
) -> Result<(T, &'a [u8]), Undecodable> {
    match bytes.split_first() {
        Some((version, bytes)) if *version == known => {
            postcard::take_from_bytes(bytes).map_err(|error| Undecodable(error.to_string()))
        }
        Some((version, _)) => {
            Err(Undecodable(format!("version {version}, this build reads {known}")))
        }
        None => Err(Undecodable("empty".to_owned())),
    }
}

/// Writes at the end of a buffer that holds other records already.
struct Growing<'a>(&'a mut Vec<u8>);

impl Flavor for Growing<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// The numbers of an enum on disk. A new variant gets the next one; none is
/// ever used again for something else.
macro_rules! numbers {
    ($number:ident, $from:ident, $enum:ident { $($variant:ident = $n:literal),+ $(,)? }) => {
        const fn $number(value: $enum) -> u8 {
            match value { $($enum::$variant => $n),+ }
        }

        fn $from(number: u8) -> Result<$enum, Undecodable> {
            match number {
                $($n => Ok($enum::$variant),)+
                other => Err(Undecodable(format!("{} {other} is not known", stringify!($enum)))),
            }
        }
    };
}

numbers!(state_number, state_from, State {
    Queued = 0,
    Sending = 1,
    Waiting = 2,
    Sent = 3,
    Delivered = 4,
    Failed = 5,
    Expired = 6,
    Cancelled = 7,
    Unknown = 8,
    Partial = 9,
});

numbers!(reason_number, reason_from, Reason {
    Parked = 0,
    NoCandidate = 1,
    Throttled = 2,
    Backoff = 3,
    Invalid = 4,
    Unreachable = 5,
    NoRoute = 6,
    AttemptsExhausted = 7,
    Poison = 8,
    Ttl = 9,
    Superseded = 10,
    CancelledByClient = 11,
    Ambiguous = 12,
    Internal = 13,
});

numbers!(outcome_number, outcome_from, Outcome {
    Accepted = 0,
    AddressGone = 1,
    MessageInvalid = 2,
    Throttled = 3,
    Unavailable = 4,
    AuthFailed = 5,
    Misconfigured = 6,
    Ambiguous = 7,
});

numbers!(priority_number, priority_from, Priority { Normal = 0, High = 1 });
numbers!(on_ambiguous_number, on_ambiguous_from, OnAmbiguous { Resend = 0, Stop = 1 });
numbers!(durability_number, durability_from, Durability { Disk = 0, Memory = 1 });

#[derive(Serialize, Deserialize)]
struct StoredIntent<'a> {
    n: u32,
    provider: &'a str,
    address: u8,
    at: u64,
}
