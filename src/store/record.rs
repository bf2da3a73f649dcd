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

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use postcard::ser_flavors::Flavor;
use pushyard_providers::{Address, Notification, Outcome, Priority, Push, registry};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::{Intent, StoreError};
use crate::clock::{Utc, millis};
use crate::model::{
    Attempt, Durability, Excluded, Idempotency, Message, MessageId, OnAmbiguous, Progress, Reason,
    Recipient, State, Unresolved, Warning,
};

/// The form that this build writes, and the only one so far.
const VERSION: u8 = 1;

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
    encode(&StoredMessage::from(message), into);
}

/// A message from its record.
pub(super) fn decode_message(id: MessageId, bytes: &[u8]) -> Result<Message, Undecodable> {
    decode::<StoredMessage<'_>>(bytes)?.into_message(id)
}

/// The head of a message's record.
pub(super) fn decode_message_head(bytes: &[u8]) -> Result<MessageHead, Undecodable> {
    take(bytes).map(|(head, _)| head)
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
    into.push(VERSION);
    postcard::serialize_with_flavor(record, Growing(into))
        .expect("a buffer that grows takes all, and every length is known beforehand");
}

/// Reads the whole of `bytes`: what is left over is damage too.
fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Undecodable> {
    match take(bytes)? {
        (record, []) => Ok(record),
        (_, rest) => Err(Undecodable(format!("{} bytes too many", rest.len()))),
    }
}

fn take<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), Undecodable> {
    match bytes.split_first() {
        Some((&VERSION, bytes)) => {
            postcard::take_from_bytes(bytes).map_err(|error| Undecodable(error.to_string()))
        }
        Some((version, _)) => {
            Err(Undecodable(format!("version {version}, this build reads {VERSION}")))
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

/// Texts by name; few, so that they mostly need no allocation.
type Pairs<'a> = SmallVec<[(&'a str, &'a str); 4]>;

#[derive(Serialize, Deserialize)]
struct StoredMessage<'a> {
    head: MessageHead,
    body_hash: [u8; 16],
    client: &'a str,
    route: &'a str,
    deliver_at: Option<u64>,
    on_ambiguous: u8,
    durability: u8,
    priority: u8,
    #[serde(borrow)]
    notification: Option<StoredNotification<'a>>,
    data: Pairs<'a>,
    collapse_key: Option<&'a str>,
    overrides: Pairs<'a>,
    metadata: Pairs<'a>,
    warnings: Pairs<'a>,
    unresolved: Vec<(u32, &'a str, &'a str)>,
    recipients: Vec<StoredRecipient<'a>>,
}

#[derive(Serialize, Deserialize)]
struct StoredNotification<'a> {
    title: Option<&'a str>,
    body: Option<&'a str>,
    image: Option<&'a str>,
    url: Option<&'a str>,
    sound: Option<&'a str>,
    badge: Option<u32>,
    category: Option<&'a str>,
    thread: Option<&'a str>,
    tag: Option<&'a str>,
}

#[derive(Serialize, Deserialize)]
struct StoredRecipient<'a> {
    reference: Option<&'a str>,
    region: Option<&'a str>,
    no_route: bool,
    #[serde(borrow)]
    addresses: SmallVec<[StoredAddress<'a>; 1]>,
}

#[derive(Serialize, Deserialize)]
struct StoredAddress<'a> {
    kind: &'a str,
    #[serde(borrow)]
    values: SmallVec<[(&'a str, &'a str); 2]>,
    provider: Option<&'a str>,
    registered_at: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct StoredProgress<'a> {
    state: u8,
    at: u64,
    reason: Option<u8>,
    provider: Option<&'a str>,
    provider_message_id: Option<&'a str>,
    next_at: Option<u64>,
    counted: u16,
    tries: u32,
    rounds: u16,
    ambiguous: u16,
    crashes: u8,
    #[serde(borrow)]
    excluded: SmallVec<[StoredExcluded<'a>; 1]>,
    attempts: SmallVec<[StoredAttempt<'a>; 1]>,
}

#[derive(Serialize, Deserialize)]
enum StoredExcluded<'a> {
    Kind(&'a str),
    Candidate { provider: &'a str, address: u8, gone: bool, until: Option<u64> },
}

#[derive(Serialize, Deserialize)]
struct StoredAttempt<'a> {
    n: u32,
    provider: &'a str,
    kind: &'a str,
    address: u8,
    outcome: u8,
    status: Option<u16>,
    code: Option<&'a str>,
    detail: Option<&'a str>,
    started_at: u64,
    latency_ms: u32,
}

#[derive(Serialize, Deserialize)]
struct StoredIntent<'a> {
    n: u32,
    provider: &'a str,
    address: u8,
    at: u64,
}

impl<'a> From<&'a Message> for StoredMessage<'a> {
    fn from(message: &'a Message) -> Self {
        // No field is left out by accident: a new one stops the compiler here.
        let Message {
            id: _,
            client,
            route,
            deliver_at,
            ttl,
            on_ambiguous,
            durability,
            push,
            recipients,
            metadata,
            idempotency,
            warnings,
            unresolved,
        } = message;
        let Push { notification, data, priority, collapse_key, overrides } = push;
        Self {
            head: MessageHead { ttl_ms: millis(*ttl), key: idempotency.map(|known| known.key) },
            body_hash: idempotency.map_or([0; 16], |known| known.body),
            client,
            route,
            deliver_at: deliver_at.map(Utc::ms),
            on_ambiguous: on_ambiguous_number(*on_ambiguous),
            durability: durability_number(*durability),
            priority: priority_number(*priority),
            notification: notification.as_ref().map(StoredNotification::from),
            data: pairs(data),
            collapse_key: collapse_key.as_deref(),
            overrides: pairs(overrides),
            metadata: pairs(metadata),
            warnings: warnings.iter().map(|w| (&*w.pointer, &*w.detail)).collect(),
            unresolved: unresolved.iter().map(|u| (u.index, &*u.user, &*u.reason)).collect(),
            recipients: recipients.iter().map(StoredRecipient::from).collect(),
        }
    }
}

impl StoredMessage<'_> {
    fn into_message(self, id: MessageId) -> Result<Message, Undecodable> {
        let body = self.body_hash;
        Ok(Message {
            id,
            client: self.client.into(),
            route: self.route.into(),
            deliver_at: self.deliver_at.map(Utc::from_ms),
            ttl: Duration::from_millis(self.head.ttl_ms),
            on_ambiguous: on_ambiguous_from(self.on_ambiguous)?,
            durability: durability_from(self.durability)?,
            push: Push {
                notification: self.notification.map(StoredNotification::into_notification),
                data: owned(&self.data),
                priority: priority_from(self.priority)?,
                collapse_key: self.collapse_key.map(str::to_owned),
                overrides: owned(&self.overrides),
            },
            recipients: self
                .recipients
                .into_iter()
                .map(StoredRecipient::into_recipient)
                .collect::<Result<_, _>>()?,
            metadata: owned(&self.metadata),
            idempotency: self.head.key.map(|key| Idempotency { key, body }),
            warnings: self
                .warnings
                .iter()
                .map(|(pointer, detail)| Warning {
                    pointer: (*pointer).to_owned(),
                    detail: (*detail).to_owned(),
                })
                .collect(),
            unresolved: self
                .unresolved
                .iter()
                .map(|(index, user, reason)| Unresolved {
                    index: *index,
                    user: (*user).to_owned(),
                    reason: (*reason).to_owned(),
                })
                .collect(),
        })
    }
}

fn pairs(map: &BTreeMap<String, String>) -> Pairs<'_> {
    map.iter().map(|(name, value)| (&**name, &**value)).collect()
}

fn owned(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

impl<'a> From<&'a Notification> for StoredNotification<'a> {
    fn from(notification: &'a Notification) -> Self {
        let Notification { title, body, image, url, sound, badge, category, thread, tag } =
            notification;
        Self {
            title: title.as_deref(),
            body: body.as_deref(),
            image: image.as_deref(),
            url: url.as_deref(),
            sound: sound.as_deref(),
            badge: *badge,
            category: category.as_deref(),
            thread: thread.as_deref(),
            tag: tag.as_deref(),
        }
    }
}

impl StoredNotification<'_> {
    fn into_notification(self) -> Notification {
        Notification {
            title: self.title.map(str::to_owned),
            body: self.body.map(str::to_owned),
            image: self.image.map(str::to_owned),
            url: self.url.map(str::to_owned),
            sound: self.sound.map(str::to_owned),
            badge: self.badge,
            category: self.category.map(str::to_owned),
            thread: self.thread.map(str::to_owned),
            tag: self.tag.map(str::to_owned),
        }
    }
}

impl<'a> From<&'a Recipient> for StoredRecipient<'a> {
    fn from(recipient: &'a Recipient) -> Self {
        let Recipient { reference, region, addresses, no_route } = recipient;
        Self {
            reference: reference.as_deref(),
            region: region.as_deref(),
            no_route: *no_route,
            addresses: addresses.iter().map(StoredAddress::from).collect(),
        }
    }
}

impl StoredRecipient<'_> {
    fn into_recipient(self) -> Result<Recipient, Undecodable> {
        Ok(Recipient {
            reference: self.reference.map(str::to_owned),
            region: self.region.map(str::to_owned),
            addresses: self
                .addresses
                .iter()
                .map(StoredAddress::to_address)
                .collect::<Result<_, _>>()?,
            no_route: self.no_route,
        })
    }
}

impl<'a> From<&'a Address> for StoredAddress<'a> {
    fn from(address: &'a Address) -> Self {
        Self {
            kind: address.kind().name,
            values: address.values().map(|(name, value)| (name as &'a str, value)).collect(),
            provider: address.provider(),
            registered_at: address.registered_at(),
        }
    }
}

impl StoredAddress<'_> {
    fn to_address(&self) -> Result<Address, Undecodable> {
        let kind = registry::kind(self.kind)
            .ok_or_else(|| Undecodable(format!("address kind {:?} is not known", self.kind)))?;
        Address::new(kind, &self.values, self.provider, self.registered_at).map_err(|errors| {
            let fields: Vec<&str> = errors.iter().map(|error| error.field).collect();
            Undecodable(format!("{} address is not valid: {}", self.kind, fields.join(", ")))
        })
    }
}

impl<'a> From<&'a Progress> for StoredProgress<'a> {
    fn from(progress: &'a Progress) -> Self {
        let Progress {
            state,
            reason,
            provider,
            provider_message_id,
            next_at,
            attempts,
            counted,
            tries,
            rounds,
            ambiguous,
            crashes,
            excluded,
            at,
        } = progress;
        Self {
            state: state_number(*state),
            at: at.ms(),
            reason: reason.map(reason_number),
            provider: provider.as_deref(),
            provider_message_id: provider_message_id.as_deref(),
            next_at: next_at.map(Utc::ms),
            counted: *counted,
            tries: *tries,
            rounds: *rounds,
            ambiguous: *ambiguous,
            crashes: *crashes,
            excluded: excluded.iter().map(StoredExcluded::from).collect(),
            attempts: attempts.iter().map(StoredAttempt::from).collect(),
        }
    }
}

impl StoredProgress<'_> {
    fn into_progress(self) -> Result<Progress, Undecodable> {
        Ok(Progress {
            state: state_from(self.state)?,
            reason: self.reason.map(reason_from).transpose()?,
            provider: self.provider.map(Arc::from),
            provider_message_id: self.provider_message_id.map(Arc::from),
            next_at: self.next_at.map(Utc::from_ms),
            attempts: self
                .attempts
                .into_iter()
                .map(StoredAttempt::into_attempt)
                .collect::<Result<_, _>>()?,
            counted: self.counted,
            tries: self.tries,
            rounds: self.rounds,
            ambiguous: self.ambiguous,
            crashes: self.crashes,
            excluded: self.excluded.into_iter().map(StoredExcluded::into_excluded).collect(),
            at: Utc::from_ms(self.at),
        })
    }
}

impl<'a> From<&'a Excluded> for StoredExcluded<'a> {
    fn from(excluded: &'a Excluded) -> Self {
        match excluded {
            Excluded::Kind(kind) => Self::Kind(kind),
            Excluded::Candidate { provider, address, gone, until } => Self::Candidate {
                provider,
                address: *address,
                gone: *gone,
                until: until.map(Utc::ms),
            },
        }
    }
}

impl StoredExcluded<'_> {
    fn into_excluded(self) -> Excluded {
        match self {
            Self::Kind(kind) => Excluded::Kind(kind.into()),
            Self::Candidate { provider, address, gone, until } => Excluded::Candidate {
                provider: provider.into(),
                address,
                gone,
                until: until.map(Utc::from_ms),
            },
        }
    }
}

impl<'a> From<&'a Attempt> for StoredAttempt<'a> {
    fn from(attempt: &'a Attempt) -> Self {
        let Attempt {
            n,
            provider,
            kind,
            address,
            outcome,
            status,
            code,
            detail,
            started_at,
            latency_ms,
        } = attempt;
        Self {
            n: *n,
            provider,
            kind,
            address: *address,
            outcome: outcome_number(*outcome),
            status: *status,
            code: code.as_deref(),
            detail: detail.as_deref(),
            started_at: started_at.ms(),
            latency_ms: *latency_ms,
        }
    }
}

impl StoredAttempt<'_> {
    fn into_attempt(self) -> Result<Attempt, Undecodable> {
        Ok(Attempt {
            n: self.n,
            provider: self.provider.into(),
            kind: self.kind.into(),
            address: self.address,
            outcome: outcome_from(self.outcome)?,
            status: self.status,
            code: self.code.map(Arc::from),
            detail: self.detail.map(Arc::from),
            started_at: Utc::from_ms(self.started_at),
            latency_ms: self.latency_ms,
        })
    }
}
