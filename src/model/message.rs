//! A message as accepted: what is to be sent, to whom, until when.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pushyard_providers::{Address, Push};
use serde::{Deserialize, Serialize};

use super::{DeliveryId, MessageId, Trace};
use crate::clock::Utc;

/// A message as it was accepted. Never changed afterwards.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its id, which holds the time of acceptance.
    pub id: MessageId,
    /// The client that sent it.
    pub client: Arc<str>,
    /// The route it names.
    pub route: Arc<str>,
    /// Not before this moment, when the backend asked for a later time.
    pub deliver_at: Option<Utc>,
    /// How long it is worth sending, from acceptance or `deliver_at`.
    pub ttl: Duration,
    /// What to do when a vendor's answer is truly unknown.
    pub on_ambiguous: OnAmbiguous,
    /// Whether the answer waits for the disk.
    pub durability: Durability,
    /// What is sent.
    pub push: Push,
    /// To whom; recipient n is delivery n.
    pub recipients: Vec<Recipient>,
    /// The backend's own labels.
    pub metadata: BTreeMap<String, String>,
    /// The idempotency key it came with.
    pub idempotency: Option<Idempotency>,
    /// What the backend was told beside the acceptance.
    pub warnings: Vec<Warning>,
    /// Recipients that could not be turned into deliveries.
    pub unresolved: Vec<Unresolved>,
    /// The trace that it is part of at its backend.
    pub trace: Option<Trace>,
}

impl Message {
    /// `ttl = "0s"` means now or never: one round, within this time of acceptance.
    pub const NOW_OR_NEVER: Duration = Duration::from_secs(10);

    /// Its life begins here.
    pub fn not_before(&self) -> Utc {
        self.deliver_at.map_or(self.id.accepted_at(), |at| at.max(self.id.accepted_at()))
    }

    /// Its life ends here.
    pub fn expires_at(&self) -> Utc {
        self.not_before().plus(self.ttl)
    }

    /// No attempt begins from here on.
    pub fn dispatch_until(&self) -> Utc {
        if self.now_or_never() {
            self.not_before().plus(Self::NOW_OR_NEVER)
        } else {
            self.expires_at()
        }
    }

    /// The users that it was sent to or could not find, each once, sorted.
    pub fn users(&self) -> Vec<&str> {
        let devices = self.recipients.iter().filter_map(|recipient| recipient.user.as_deref());
        let mut users: Vec<&str> =
            devices.chain(self.unresolved.iter().map(|unresolved| &*unresolved.user)).collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    /// Takes out all that is held about a user, and the content where it was for
    /// this user alone. The places of the deliveries stay.
    pub fn erase(&mut self, user: &str) {
        let alone = self.recipients.iter().all(|recipient| recipient.user.as_deref() == Some(user));
        for recipient in &mut self.recipients {
            if recipient.user.as_deref() == Some(user) {
                *recipient = Recipient { no_route: recipient.no_route, ..Recipient::default() };
            }
        }
        self.unresolved.retain(|unresolved| unresolved.user != user);
        if alone && self.unresolved.is_empty() {
            self.push = Push { priority: self.push.priority, ..Push::default() };
            self.metadata.clear();
            self.warnings.clear();
        }
    }

    /// Its addresses of a kind, each with its delivery, when it is for a later time
    /// than its acceptance.
    pub fn scheduled(&self, kind: &'static str) -> impl Iterator<Item = (DeliveryId, &Address)> {
        let later = self.deliver_at.is_some();
        let recipients = (0..).zip(self.recipients.iter().filter(move |_| later));
        recipients.flat_map(move |(n, recipient)| {
            let of_kind = move |address: &&Address| address.kind().name == kind;
            let delivery = self.id.delivery(n);
            recipient.addresses.iter().filter(of_kind).map(move |address| (delivery, address))
        })
    }

    /// One round and no waiting.
    pub fn now_or_never(&self) -> bool {
        self.ttl.is_zero()
    }
}

/// One device or app installation.
#[derive(Clone, Debug, Default)]
pub struct Recipient {
    /// The backend's name for it.
    pub reference: Option<String>,
    /// The user that it is a device of, when the message named a user.
    pub user: Option<String>,
    /// Only providers of this region, or of none, may serve it.
    pub region: Option<String>,
    /// The ways to reach it.
    pub addresses: Vec<Address>,
    /// No provider of the route could ever serve it: born failed.
    pub no_route: bool,
}

/// What to do after an attempt whose end is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnAmbiguous {
    /// Send again: at least once.
    #[default]
    Resend,
    /// Do not: at most once.
    Stop,
}

/// Whether a message survives a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// On disk before the 202.
    #[default]
    Disk,
    /// In memory only; outside every promise about crashes.
    Memory,
}

/// An idempotency key, as hashes: the key itself may be personal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Idempotency {
    /// Of the client and the key.
    pub key: [u8; 16],
    /// Of the body's bytes.
    pub body: [u8; 16],
}

/// Something in an accepted message that the backend should mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// JSON pointer into the request.
    pub pointer: String,
    /// What, and what to do.
    pub detail: String,
}

/// A recipient that could not be turned into deliveries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unresolved {
    /// Its place in `to`.
    pub index: u32,
    /// The user that was named.
    pub user: String,
    /// `no_devices`.
    pub reason: String,
}
