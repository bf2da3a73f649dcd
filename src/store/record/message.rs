//! A message's record: its body once, and its recipients with their addresses.

use std::collections::BTreeMap;
use std::time::Duration;

use pushyard_providers::{Address, Notification, Push, registry};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::{
    MessageHead, Undecodable, durability_from, durability_number, on_ambiguous_from,
    on_ambiguous_number, priority_from, priority_number,
};
use crate::clock::{Utc, millis};
use crate::model::{
    Idempotency, Message, MessageId, Recipient, Trace, TraceId, Unresolved, Warning,
};

/// Texts by name; few, so that they mostly need no allocation.
type Pairs<'a> = SmallVec<[(&'a str, &'a str); 4]>;

#[derive(Serialize, Deserialize)]
pub(super) struct StoredMessage<'a> {
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

/// Which recipients are devices of which user: stands behind a message that names
/// a user, or has a trace behind this, so that all others are as they were.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Users<'a>(#[serde(borrow)] Vec<(u16, &'a str)>);

impl<'a> Users<'a> {
    /// `None`: it names no user, found or not.
    pub(super) fn of(message: &'a Message) -> Option<Self> {
        if message.unresolved.is_empty()
            && message.recipients.iter().all(|recipient| recipient.user.is_none())
        {
            return None;
        }
        let user = |(n, recipient): (usize, &'a Recipient)| {
            // At most MAX_DELIVERIES.
            recipient.user.as_deref().map(|user| (n as u16, user))
        };
        Some(Self(message.recipients.iter().enumerate().filter_map(user).collect()))
    }

    /// Puts them back.
    pub(super) fn mark(&self, message: &mut Message) {
        for (n, user) in &self.0 {
            if let Some(recipient) = message.recipients.get_mut(usize::from(*n)) {
                recipient.user = Some((*user).to_owned());
            }
        }
    }
}

/// The trace of a message that has one: the last part of its record.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredTrace {
    id: [u8; 16],
    parent: [u8; 8],
    flags: u8,
}

impl From<Trace> for StoredTrace {
    fn from(Trace { id, parent, flags }: Trace) -> Self {
        Self { id: id.0, parent, flags }
    }
}

impl From<StoredTrace> for Trace {
    fn from(StoredTrace { id, parent, flags }: StoredTrace) -> Self {
        Self { id: TraceId(id), parent, flags }
    }
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
pub(super) struct StoredAddress<'a> {
    kind: &'a str,
    #[serde(borrow)]
    values: SmallVec<[(&'a str, &'a str); 2]>,
    provider: Option<&'a str>,
    registered_at: Option<u64>,
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
            trace: _,
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
    pub(super) fn into_message(self, id: MessageId) -> Result<Message, Undecodable> {
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
            trace: None,
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
        // The user is in a list of its own, see `Users`.
        let Recipient { reference, user: _, region, addresses, no_route } = recipient;
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
            user: None,
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
    pub(super) fn to_address(&self) -> Result<Address, Undecodable> {
        let kind = registry::kind(self.kind)
            .ok_or_else(|| Undecodable(format!("address kind {:?} is not known", self.kind)))?;
        Address::new(kind, &self.values, self.provider, self.registered_at).map_err(|errors| {
            let fields: Vec<&str> = errors.iter().map(|error| error.field).collect();
            Undecodable(format!("{} address is not valid: {}", self.kind, fields.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;

    /// Not through an [`Address`]: what a kind accepts is its own affair.
    fn address(kind: &str) -> StoredAddress<'_> {
        StoredAddress {
            kind,
            values: smallvec![("token", "abc"), ("app", "com.example")],
            provider: Some("fcm-eu"),
            registered_at: Some(1_000_000),
        }
    }

    #[test]
    fn the_bytes_of_an_address_are_as_they_have_always_been() {
        let bytes = postcard::to_allocvec(&address("fcm")).unwrap();
        assert_eq!(
            bytes,
            b"\x03fcm\x02\x05token\x03abc\x03app\x0bcom.example\x01\x06fcm-eu\x01\xc0\x84\x3d"
        );
        let read: StoredAddress<'_> = postcard::from_bytes(&bytes).unwrap();
        assert_eq!((read.kind, &read.values[1]), ("fcm", &("app", "com.example")));
    }

    #[test]
    fn an_address_of_a_kind_that_is_no_more_is_undecodable() {
        let error = address("pigeon").to_address().unwrap_err();
        assert_eq!(error, Undecodable("address kind \"pigeon\" is not known".to_owned()));
    }
}
