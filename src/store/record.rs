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
mod event;
mod message;
mod progress;
#[cfg(test)]
mod tests;

use postcard::ser_flavors::Flavor;
use pushyard_providers::{Outcome, Priority};
use serde::{Deserialize, Serialize};

pub(super) use self::device::{decode_device, decode_gone, encode_device, encode_gone};
use self::event::{StoredAction, StoredEvent};
use self::message::{StoredMessage, StoredTrace, Users};
use self::progress::{StoredPassedOver, StoredProgress};
use super::{Action, Intent, OutboxEvent, StoreError};
use crate::clock::Utc;
use crate::model::{
    DeliveryEvent, Durability, EventId, EventKind, Message, MessageId, OnAmbiguous, Progress,
    Reason, State,
};

/// The form of a record that says nothing uncommon.
const VERSION: u8 = 1;

/// The same, followed by what is uncommon and was thought of later. Only records
/// that need it have it, so that the others stay short, and older builds name
/// what they do not know instead of misreading it.
const EXTENDED: u8 = 2;

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
    let trace = message.trace.map(StoredTrace::from);
    let users = Users::of(message).or_else(|| trace.is_some().then(Users::default));
    encode_with(&StoredMessage::from(message), users.as_ref(), into);
    if let Some(trace) = trace {
        append(&trace, into);
    }
}

/// A message from its record.
pub(super) fn decode_message(id: MessageId, bytes: &[u8]) -> Result<Message, Undecodable> {
    let (stored, users, rest) = take_with::<StoredMessage<'_>, Users<'_>>(bytes)?;
    let mut message = stored.into_message(id)?;
    let mut rest = rest;
    if let Some(users) = users {
        users.mark(&mut message);
        if !rest.is_empty() {
            let (trace, end) = from_postcard::<StoredTrace>(rest)?;
            (message.trace, rest) = (Some(trace.into()), end);
        }
    }
    nothing_left(rest)?;
    Ok(message)
}

/// The head of a message's record.
pub(super) fn decode_message_head(bytes: &[u8]) -> Result<MessageHead, Undecodable> {
    take(bytes).map(|(head, _)| head)
}

/// Whether the message may name users; if not, it does not.
pub(super) fn may_name_users(bytes: &[u8]) -> bool {
    bytes.first() == Some(&EXTENDED)
}

/// Adds the record of a delivery's progress to `into`.
pub(super) fn encode_progress(progress: &Progress, into: &mut Vec<u8>) {
    encode_with(&StoredProgress::from(progress), progress::More::of(progress).as_ref(), into);
    if let Some(passed_over) = &progress.passed_over {
        append(&StoredPassedOver::from(passed_over), into);
    }
}

/// A delivery's progress from its record.
pub(super) fn decode_progress(bytes: &[u8]) -> Result<Progress, Undecodable> {
    let (stored, more, mut rest) = take_with::<StoredProgress<'_>, progress::More>(bytes)?;
    let mut progress = stored.into_progress()?;
    if let Some(more) = more {
        more.add_to(&mut progress);
        if !rest.is_empty() {
            let (passed_over, end) = from_postcard::<StoredPassedOver<'_>>(rest)?;
            (progress.passed_over, rest) = (Some(passed_over.into()), end);
        }
    }
    nothing_left(rest)?;
    Ok(progress)
}

/// The head of the record of a delivery's progress.
pub(super) fn decode_progress_head(bytes: &[u8]) -> Result<ProgressHead, Undecodable> {
    let ((state, at), _) = take::<(u8, u64)>(bytes)?;
    Ok(ProgressHead { state: state_from(state)?, at: Utc::from_ms(at) })
}

/// Adds an intent's record to `into`.
pub(super) fn encode_intent(intent: &Intent, into: &mut Vec<u8>) {
    let Intent { n, provider, address, at, alone } = intent;
    let stored = StoredIntent { n: *n, provider, address: *address, at: at.ms() };
    encode_with(&stored, alone.then_some(alone), into);
}

/// An intent from its record.
pub(super) fn decode_intent(bytes: &[u8]) -> Result<Intent, Undecodable> {
    let (StoredIntent { n, provider, address, at }, alone) = decode_with(bytes)?;
    let (provider, at) = (provider.into(), Utc::from_ms(at));
    Ok(Intent { n, provider, address, at, alone: alone.unwrap_or(false) })
}

/// Adds an event's record to `into`, with what the message says; `None`: it is gone.
pub(super) fn encode_event(event: &DeliveryEvent, message: Option<&Message>, into: &mut Vec<u8>) {
    encode(&StoredEvent::of(event, message), into);
}

/// An event from its record.
pub(super) fn decode_event(id: EventId, bytes: &[u8]) -> Result<OutboxEvent, Undecodable> {
    decode::<StoredEvent<'_>>(bytes)?.into_event(id)
}

/// Adds an operator's action to `into`.
pub(super) fn encode_action(action: &Action, into: &mut Vec<u8>) {
    encode(&StoredAction::from(action), into);
}

/// An operator's action from its record.
pub(super) fn decode_action(bytes: &[u8]) -> Result<Action, Undecodable> {
    decode::<StoredAction<'_>>(bytes).map(StoredAction::into_action)
}

fn encode<T: Serialize>(record: &T, into: &mut Vec<u8>) {
    encode_with(record, None::<&()>, into);
}

fn encode_with<T: Serialize, M: Serialize>(record: &T, more: Option<&M>, into: &mut Vec<u8>) {
    into.push(if more.is_some() { EXTENDED } else { VERSION });
    append(record, into);
    if let Some(more) = more {
        append(more, into);
    }
}

fn append<T: Serialize>(value: &T, into: &mut Vec<u8>) {
    postcard::serialize_with_flavor(value, Growing(into))
        .expect("a buffer that grows takes all, and every length is known beforehand");
}

/// Reads the whole of `bytes`: what is left over is damage too.
fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Undecodable> {
    decode_with::<T, ()>(bytes).map(|(record, _)| record)
}

fn decode_with<'a, T, M>(bytes: &'a [u8]) -> Result<(T, Option<M>), Undecodable>
where
    T: Deserialize<'a>,
    M: Deserialize<'a>,
{
    let (record, more, rest) = take_with(bytes)?;
    nothing_left(rest)?;
    Ok((record, more))
}

/// The same, and what stands behind both.
fn take_with<'a, T, M>(bytes: &'a [u8]) -> Result<(T, Option<M>, &'a [u8]), Undecodable>
where
    T: Deserialize<'a>,
    M: Deserialize<'a>,
{
    let (record, rest) = take(bytes)?;
    let (more, rest) = match bytes.first() {
        Some(&EXTENDED) => {
            let (more, rest) = from_postcard(rest)?;
            (Some(more), rest)
        }
        Some(_) | None => (None, rest),
    };
    Ok((record, more, rest))
}

fn nothing_left(rest: &[u8]) -> Result<(), Undecodable> {
    match rest {
        [] => Ok(()),
        _ => Err(Undecodable(format!("{} bytes too many", rest.len()))),
    }
}

fn take<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), Undecodable> {
    match bytes.split_first() {
        Some((&(VERSION | EXTENDED), bytes)) => from_postcard(bytes),
        Some((version, _)) => Err(Undecodable(format!(
            "version {version}, this build reads {VERSION} and {EXTENDED}"
        ))),
        None => Err(Undecodable("empty".to_owned())),
    }
}

fn from_postcard<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), Undecodable> {
    postcard::take_from_bytes(bytes).map_err(|error| Undecodable(error.to_string()))
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

numbers!(kind_number, kind_from, EventKind {
    Sent = 0,
    Delivered = 1,
    Failed = 2,
    Expired = 3,
    Unknown = 4,
    Cancelled = 5,
    AddressGone = 6,
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
