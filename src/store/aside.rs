//! What is stored beside messages and deliveries, for others than the dispatcher:
//! events that clients are to be told (the outbox), dead letters to look at, and
//! what operators did.
//!
//! The dispatcher's records are counted by `Flushed`, in the order in which it
//! handed them over. Whoever else writes does it as a [`Write`], which is not
//! counted and says by itself when it is on disk.

use std::sync::Arc;

use crate::clock::Utc;
use crate::model::{DeliveryId, EventId, EventKind, Progress, Reason, State};

/// Something to write that is none of the dispatcher's affair.
#[derive(Clone, Debug)]
pub enum Write {
    /// These events of a client have been told, or are not told any more.
    EventsDone(Arc<str>, Vec<EventId>),
    /// An operator did this; its number is given by the store.
    Action(Action),
    /// A dead letter that nobody wants any more.
    Buried(DeliveryId),
}

/// An event that waits to be told, with all that is told: the message may be gone
/// by the time at which its client can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEvent {
    /// Its name, and when it happened.
    pub id: EventId,
    /// What it says.
    pub kind: EventKind,
    /// Of which delivery.
    pub delivery: DeliveryId,
    /// The backend's name for the recipient.
    pub reference: Option<String>,
    /// The delivery's state.
    pub state: State,
    /// Why.
    pub reason: Option<Reason>,
    /// The provider that accepted it, was tried last, or declared the address gone.
    pub provider: Option<String>,
    /// The address that is gone: its kind and its first field.
    pub address: Option<(String, String)>,
    /// The message's labels.
    pub metadata: Vec<(String, String)>,
}

/// Which dead letters are wanted; an absent part lets all through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadFilter {
    /// Ended for this reason.
    pub reason: Option<Reason>,
    /// Tried last at this provider.
    pub provider: Option<String>,
    /// Sent by this client.
    pub client: Option<String>,
    /// Ended at this moment or later.
    pub since: Option<Utc>,
    /// Ended before this moment.
    pub until: Option<Utc>,
}

impl DeadFilter {
    /// Whether it lets through what ended then.
    pub fn takes_time(&self, at: Utc) -> bool {
        self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at < until)
    }

    /// Whether it lets through a delivery of this client that ended so.
    pub fn takes(&self, client: &str, progress: &Progress) -> bool {
        self.client.as_deref().is_none_or(|wanted| wanted == client)
            && self.reason.is_none_or(|wanted| progress.reason == Some(wanted))
            && self
                .provider
                .as_deref()
                .is_none_or(|wanted| progress.provider.as_deref() == Some(wanted))
    }
}

/// A delivery that ended badly and is kept.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Which.
    pub delivery: DeliveryId,
    /// Whose.
    pub client: Arc<str>,
    /// The backend's name for the recipient.
    pub reference: Option<String>,
    /// How it ended.
    pub progress: Progress,
    /// When it ended.
    pub at: Utc,
}

/// Part of the dead letters.
#[derive(Clone, Debug, Default)]
pub struct DeadLetters {
    /// The latest accepted first.
    pub items: Vec<DeadLetter>,
    /// Go on before this one; `None`: there are no more. A part may be short, or
    /// empty, and not the last: a filter that lets little through is not allowed
    /// to read everything at once.
    pub next: Option<DeliveryId>,
}

/// What an operator did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// When.
    pub at: Utc,
    /// The key's client, or `local`.
    pub who: Arc<str>,
    /// What, and to what: `drain providers/apns`.
    pub what: String,
    /// The reason that was given, and details such as an end.
    pub why: Option<String>,
}

/// Part of what operators did.
#[derive(Clone, Debug, Default)]
pub struct Actions {
    /// With their numbers, the latest first.
    pub items: Vec<(u64, Action)>,
    /// Go on before this one; `None`: there are no more.
    pub next: Option<u64>,
}
