//! What goes into the engine and what comes out of it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pushyard_providers::{Answer, Outcome, Part, Processed};

use super::super::{Cancelled, Operation, Received, Refused, Rejected, Replayed};
use super::{Found, Reconfigured};
use crate::clock::Utc;
use crate::model::{Body, DeliveryId, EventKinds, Gone, MessageId, Reason, State, TraceId};
use crate::routing::{Catalog, Moved, Permit, ProviderIndex, Remembered, Spent};
use crate::store::{Health, Record, Recovered};

/// Names someone who waits for an answer; the driver knows whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// Names an attempt, for as long as the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId(pub u64);

/// Why a call is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Its vendor is silent. The silence is about this part.
    Silence(Part),
    /// An operator threw its provider out.
    Ejected,
    /// The server ends.
    Shutdown,
}

impl Cut {
    /// What a call that was given up ends with: while it still waited for a
    /// connection nothing was sent, and for a silent vendor that is what was missing.
    pub fn answer(&self, written: bool) -> Answer {
        let answer = if written {
            Answer::new(Outcome::Ambiguous).processed(Processed::Maybe)
        } else {
            Answer::new(Outcome::Unavailable).processed(Processed::No)
        };
        match self {
            Self::Silence(part) => answer
                .about(part.clone())
                .code(if written { "stall" } else { "connect" })
                .detail("not a byte came from the vendor meanwhile"),
            // The engine takes it for no sample.
            Self::Ejected => answer
                .about(Part::Device)
                .code("ejected")
                .detail("an operator ejected the provider meanwhile"),
            Self::Shutdown => answer.code("shutdown"),
        }
    }
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A message wants to be taken.
    Submitted(Token, Arc<Body>),
    /// A message was found in the store at start.
    Recovered(Box<Recovered>),
    /// A pause or an ejection was found in the store at start.
    Restored(Remembered),
    /// What the process before had spent at a provider, by its id.
    Spent(Arc<str>, Spent),
    /// What clients are told of; all others are told nothing.
    Subscribed(Vec<(Arc<str>, EventKinds)>),
    /// The process before ended badly.
    Careful {
        /// For this long, every attempt is written down before it is made.
        time: Duration,
        /// It was not the first to do so lately: what may have ended it goes alone.
        safe: bool,
    },
    /// So many of the records written are on disk.
    Flushed(u64),
    /// A body was read back; `None`: it cannot be read.
    Read(MessageId, Option<Arc<Body>>),
    /// A call ended.
    Answered(AttemptId, Answer),
    /// A backend takes a message back.
    Cancel(Token, MessageId),
    /// A backend takes these deliveries of a message back.
    CancelPart(Token, MessageId, Vec<u16>),
    /// Someone wants records written that are no push's.
    Keep(Token, Vec<Record>),
    /// A gone address was found in the store at start.
    Gone(Arc<Gone>),
    /// Someone waits for a message's last delivery.
    Wait(Token, MessageId),
    /// These wait no more.
    Left(HashSet<Token>),
    /// A device says that it has a delivery.
    Receipt(Token, DeliveryId),
    /// An operator wants a dead delivery tried again.
    Replay(Token, DeliveryId),
    /// What the store holds of a settled delivery.
    Found(DeliveryId, Option<Box<Found>>),
    /// An operator orders something.
    Operate(Token, Operation),
    /// An order was found in the store at start: its name and what it says.
    Ordered(String, Vec<u8>),
    /// Another configuration is in force.
    Reconfigured(Token, Box<Reconfigured>),
    /// A probe ended.
    Probed(ProviderIndex, Answer),
    /// What a provider's open connections allow together.
    Capacity(ProviderIndex, Option<u32>),
    /// When the last byte came from a provider. Told several times a second, and
    /// with each [`Event::Tick`]; never of one that does not show its bytes.
    Heard(ProviderIndex, Instant),
    /// Whether the store takes new messages.
    Store(Health),
    /// Small state of the shell's, to be written in its place among the records.
    Note(String, Option<Vec<u8>>),
    /// No new messages and no new attempts from here on.
    Drain,
    /// Time has passed.
    Tick,
}

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Effect {
    /// Write it; the n-th of these is the n-th record that a flush counts.
    Write(Record),
    /// The message, or what was to be kept, is on disk.
    Accepted(Token),
    /// The message, or what was to be kept, was not taken.
    Rejected(Token, Rejected),
    /// What was taken back.
    Cancelled(Token, Cancelled),
    /// The message's last delivery has settled, and that is on disk.
    Settled(Token),
    /// Make this call.
    Call(Box<Order>),
    /// Give this call up. Its answer is [`Cut::answer`]; it comes as [`Event::Answered`].
    Cut(AttemptId, Cut),
    /// Ask this provider for a sign of life.
    Sound(ProviderIndex),
    /// Read this message back.
    Read(MessageId),
    /// Look up what the store holds of this delivery.
    Look(DeliveryId),
    /// What became of a device's word.
    Received(Token, Received),
    /// What became of an operator's wish to have a delivery tried again.
    Replayed(Token, Replayed),
    /// What became of an operator's order, or of another configuration.
    Operated(Token, Result<(), Refused>),
    /// Providers and routes as they are from now on.
    Catalog(Arc<Catalog>),
    /// Probe this provider.
    Probe(ProviderIndex),
    /// Tell it to whoever watches.
    Tell(Fact),
}

/// A call to make.
#[derive(Debug)]
pub struct Order {
    /// Its name.
    pub attempt: AttemptId,
    /// The right to make it.
    pub permit: Permit,
    /// The message.
    pub body: Arc<Body>,
    /// Which of its deliveries.
    pub n: u16,
    /// Which of the recipient's addresses.
    pub address: u8,
    /// The life that is left: at least a second, or zero for now or never.
    pub ttl: Duration,
    /// When that life ends.
    pub expires_at: Utc,
}

/// Something that people want to know; metrics, logs and events are made of these.
#[derive(Clone, Debug)]
pub enum Fact {
    /// A delivery has settled.
    Settled {
        /// Which.
        delivery: DeliveryId,
        /// On which route.
        route: Arc<str>,
        /// As what.
        state: State,
        /// Why.
        reason: Option<Reason>,
        /// Since acceptance, or since it was to be delivered.
        took: Duration,
    },
    /// An attempt has ended.
    Attempted {
        /// Of which delivery.
        delivery: DeliveryId,
        /// In which trace of its backend.
        trace: Option<TraceId>,
        /// At which provider.
        provider: ProviderIndex,
        /// What came back.
        answer: Box<Answer>,
        /// How long it took.
        elapsed: Duration,
    },
    /// A delivery went to another provider because of the last outcome or of a
    /// provider's health.
    FailedOver {
        /// On which route.
        route: Arc<str>,
        /// Where it would have gone, or had been.
        from: ProviderIndex,
        /// Where it goes.
        to: ProviderIndex,
        /// An outcome's word, or `ejected`, `paused`, `saturated`.
        reason: &'static str,
    },
    /// A breaker moved.
    Moved(Moved),
    /// A probe has ended.
    Probed {
        /// At which provider.
        provider: ProviderIndex,
        /// Whether it was good.
        ok: bool,
        /// What was wrong.
        answer: Box<Answer>,
    },
}
