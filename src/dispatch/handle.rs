//! What the rest of the house says to the dispatcher, and what it answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{Asked, Explained, Operation, Reconfigured, Refused};
use crate::model::{Body, DeliveryId, MessageId, Progress};
use crate::stack::ProviderStack;
use crate::store::Record;

/// A request to the dispatcher.
#[derive(Debug)]
pub enum Command {
    /// Take a message; answered when it is on disk.
    Submit(Arc<Body>, oneshot::Sender<Result<(), Rejected>>),
    /// Take back what is not yet sent.
    Cancel(MessageId, oneshot::Sender<Cancelled>),
    /// A device says that it has a delivery.
    Receipt(DeliveryId, oneshot::Sender<Received>),
    /// An operator orders something.
    Operate(Operation, oneshot::Sender<Result<(), Refused>>),
    /// Go on with another configuration.
    Reconfigure(Box<Reconfigure>, oneshot::Sender<Result<(), Refused>>),
    /// Try a dead delivery again.
    Replay(DeliveryId, oneshot::Sender<Replayed>),
    /// Take back these deliveries of a message, as far as they are not yet sent.
    CancelPart(MessageId, Vec<u16>, oneshot::Sender<Cancelled>),
    /// Write what is no push: devices, and forgetting a user; answered when it is on disk.
    Keep(Vec<Record>, oneshot::Sender<Result<(), Rejected>>),
    /// Tell when the message's last delivery has settled.
    Wait(MessageId, oneshot::Sender<()>),
    /// Tell of the message's unsettled deliveries.
    Live(MessageId, oneshot::Sender<Vec<(u16, Progress)>>),
    /// Tell where a delivery would go now, and why.
    Explain(Box<Asked>, oneshot::Sender<Explained>),
}

/// Why a message was not taken. Nothing of it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// Too many unsettled deliveries in all.
    QueueFull(Duration),
    /// Too many of this client.
    ClientQueueFull(Duration),
    /// Too many messages wait for the disk.
    Overloaded(Duration),
    /// The store cannot take anything.
    StoreUnavailable(Duration),
    /// The server is going down.
    ShuttingDown,
}

/// What a cancellation found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cancelled {
    /// Deliveries taken back.
    pub cancelled: u32,
    /// Deliveries with an attempt in flight: taken back unless it is accepted.
    pub in_flight: u32,
}

/// Another configuration, and what the driver calls its providers through.
pub struct Reconfigure {
    /// For the engine.
    pub reconfigured: Reconfigured,
    /// By provider.
    pub stacks: Vec<ProviderStack>,
}

impl std::fmt::Debug for Reconfigure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.reconfigured.fmt(f)
    }
}

/// What became of a device's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// The delivery is `delivered`, and that is on disk.
    Noted,
    /// No such delivery is held, or it has not been sent.
    Unknown,
}

/// What became of an operator's wish to have a delivery tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// It waits for its turn, and that is on disk.
    Queued,
    /// It is not dead: sent, cancelled, or still being tried.
    NotDead,
    /// No such delivery is held.
    Unknown,
    /// There is no room for it now.
    Rejected(Rejected),
}

/// Speaks to the dispatcher. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dispatcher {
    commands: mpsc::Sender<Command>,
}

impl Dispatcher {
    /// Over the driver's inbox.
    pub fn new(commands: mpsc::Sender<Command>) -> Self {
        Self { commands }
    }

    /// Hands a message over; returns when it is on disk. Once called, the
    /// message may be taken even if the caller does not wait for the answer.
    ///
    /// # Errors
    /// [`Rejected`]: nothing of it is kept.
    pub async fn submit(&self, body: Arc<Body>) -> Result<(), Rejected> {
        self.ask(|reply| Command::Submit(body, reply)).await.unwrap_or(Err(Rejected::ShuttingDown))
    }

    /// Takes back what is not yet sent of a message.
    pub async fn cancel(&self, message: MessageId) -> Cancelled {
        self.ask(|reply| Command::Cancel(message, reply)).await.unwrap_or_default()
    }

    /// Notes a device's word that it has a delivery; returns when that is on disk.
    pub async fn receipt(&self, delivery: DeliveryId) -> Received {
        let answer = self.ask(|reply| Command::Receipt(delivery, reply)).await;
        answer.unwrap_or(Received::Unknown)
    }

    /// Has a dead delivery tried again, with a life as long as its first; returns
    /// when that is on disk.
    pub async fn replay(&self, delivery: DeliveryId) -> Replayed {
        let answer = self.ask(|reply| Command::Replay(delivery, reply)).await;
        answer.unwrap_or(Replayed::Rejected(Rejected::ShuttingDown))
    }

    /// Carries an operator's order out; returns when it is in force and on disk.
    ///
    /// # Errors
    /// [`Refused`]: nothing is changed.
    pub async fn operate(&self, operation: Operation) -> Result<(), Refused> {
        let answer = self.ask(|reply| Command::Operate(operation, reply)).await;
        answer.unwrap_or(Err(Refused::ShuttingDown))
    }

    /// Goes on with another configuration; returns when no attempt begins under
    /// the old one any more.
    ///
    /// # Errors
    /// [`Refused::ShuttingDown`].
    pub async fn reconfigure(&self, reconfigure: Reconfigure) -> Result<(), Refused> {
        let answer = self.ask(|reply| Command::Reconfigure(Box::new(reconfigure), reply)).await;
        answer.unwrap_or(Err(Refused::ShuttingDown))
    }

    /// Takes back what is not yet sent of these deliveries of a message.
    pub async fn cancel_part(&self, message: MessageId, deliveries: Vec<u16>) -> Cancelled {
        let command = |reply| Command::CancelPart(message, deliveries, reply);
        self.ask(command).await.unwrap_or_default()
    }

    /// Writes what is no push; returns when it is on disk.
    ///
    /// # Errors
    /// [`Rejected`]: nothing of it is written.
    pub async fn keep(&self, records: Vec<Record>) -> Result<(), Rejected> {
        self.ask(|reply| Command::Keep(records, reply)).await.unwrap_or(Err(Rejected::ShuttingDown))
    }

    /// Returns when the message's last delivery has settled (at once when it
    /// has), or when the server shuts down.
    pub async fn settled(&self, message: MessageId) {
        // No answer means that the dispatcher has ended.
        let _ = self.ask(|reply| Command::Wait(message, reply)).await;
    }

    /// The message's unsettled deliveries, by place. What is missing here has
    /// settled, and its record is in the store.
    pub async fn live(&self, message: MessageId) -> Vec<(u16, Progress)> {
        self.ask(|reply| Command::Live(message, reply)).await.unwrap_or_default()
    }

    /// Where a delivery would go now, and why. Nothing is changed by asking. One
    /// recipient at a time, so that what waits for the dispatcher goes on between.
    ///
    /// # Errors
    /// [`Rejected::ShuttingDown`].
    pub async fn explain(&self, asked: Asked) -> Result<Explained, Rejected> {
        let answer = self.ask(|reply| Command::Explain(Box::new(asked), reply)).await;
        answer.ok_or(Rejected::ShuttingDown)
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}

/// `Retry-After` of a full queue: the time in which `excess` drains, between
/// 1 s and 60 s (docs/semantics.md, "Limits").
pub fn retry_after(excess: u64, drained_per_second: f64) -> Duration {
    let seconds = excess as f64 / drained_per_second.max(1.0);
    Duration::from_secs_f64(seconds.clamp(1.0, 60.0))
}
