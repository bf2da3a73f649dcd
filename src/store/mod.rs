//! The durable truth: messages, what became of their deliveries, and what must
//! outlive a restart. The store knows when something is on disk and how to find
//! it again; it does not know when to retry or what an outcome means.
//!
//! One commit loop on its own thread takes whatever waits, writes it in one
//! transaction, flushes, and says how far it has come ([`Flushed`]). There is no
//! gathering timer: what arrives during a commit is the next batch.

mod aside;
pub mod embedded;
mod record;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Utc;
use crate::model::{
    Body, DeliveryEvent, DeliveryId, Device, EventId, Gone, Message, MessageId, Progress, User,
};

pub use aside::{Action, Actions, DeadFilter, DeadLetter, DeadLetters, OutboxEvent, Write};

/// `[store]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The data directory.
    pub path: PathBuf,
    /// How long settled messages stay readable.
    pub retention: Duration,
    /// … or less: the oldest settled ones go when the store holds more bytes.
    pub max_bytes: u64,
    /// A commit waits this long for company; 0: not at all.
    pub commit_delay: Duration,
    /// Below this much free disk new messages are refused.
    pub min_free: u64,
    /// How long what could not be delivered is kept.
    pub dead_letter_retention: Duration,
    /// How many of them at most.
    pub max_dead_letters: u64,
    /// Idempotency keys found again at most.
    pub max_idempotency_keys: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            path: PathBuf::from("data"),
            retention: Duration::from_secs(24 * 3600),
            max_bytes: 10 << 30,
            commit_delay: Duration::ZERO,
            min_free: 256 << 20,
            dead_letter_retention: Duration::from_secs(7 * 24 * 3600),
            max_dead_letters: 100_000,
            max_idempotency_keys: 5_000_000,
        }
    }
}

/// One thing to write. Everything handed over in one call of [`Store::submit`]
/// is written in order, and a batch is never split between two commits.
#[derive(Clone, Debug)]
pub enum Record {
    /// W1: a message with all its deliveries and its idempotency key.
    Accept(Arc<Body>),
    /// W2: an attempt is about to be made and must not be made twice.
    Intent(DeliveryId, Intent),
    /// W3: what has become of a delivery.
    Progress(DeliveryId, Arc<Progress>),
    /// The last delivery of a message has settled.
    Settled(MessageId),
    /// Its client is to be told of this. In the batch of the outcome that it tells.
    Event(Arc<str>, Box<DeliveryEvent>),
    /// A device of a user, by its name; `None` removes it.
    Device(User, String, Option<Arc<Device>>),
    /// A vendor declared an address gone.
    Gone(Arc<Gone>),
    /// A gone address has been registered again, by its key.
    Healed(u128),
    /// All that is held about a user, as far as it is in these messages, and
    /// their devices and gone addresses.
    Erase(User, Vec<MessageId>),
    /// Small state by name: pauses, overrides, when a credential was minted.
    /// `None` removes it.
    Note(String, Option<Vec<u8>>),
}

/// An attempt that was about to be made.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Intent {
    /// The attempt's number.
    pub n: u32,
    /// The provider's id.
    pub provider: Arc<str>,
    /// Which of the recipient's addresses.
    pub address: u8,
    /// When.
    pub at: Utc,
    /// Whether it is the only one in flight of those that may have ended the
    /// process before.
    pub alone: bool,
}

/// What the commit loop tells. Given to the function passed when the store is
/// opened, from the store's own thread; it must return at once.
#[derive(Clone, Debug)]
pub enum Flushed {
    /// The first `n` records submitted since the store was opened are on disk.
    Upto(u64),
    /// Events for clients have been written.
    Events,
    /// Writing has failed and the store refuses all work until the process is
    /// started anew: after a failed flush nobody can know what is on the disk.
    Broken(String),
}

/// A message with something unsettled, as found at start.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The message.
    pub message: Message,
    /// Records of its deliveries, by place; a delivery without one is queued.
    pub progress: Vec<(u16, Progress)>,
    /// Attempts that were begun under `stop` and have no outcome.
    pub intents: Vec<(u16, Intent)>,
}

/// What is found at start beside the messages.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// Whether the process before ended in order (also true for a new store).
    pub clean: bool,
    /// The latest moment that the process before had noted.
    pub last_seen: Utc,
    /// When the process ended without order, as far as known, oldest first, at most 16.
    pub unclean_ends: Vec<Utc>,
    /// All notes.
    pub notes: Vec<(String, Vec<u8>)>,
    /// Records that earlier processes could not decode and set aside; those that
    /// this one meets are counted in [`Figures`].
    pub set_aside: u64,
}

/// What is held about a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Devices.
    pub devices: u32,
    /// Gone addresses.
    pub gone: u32,
    /// Messages that name the user, oldest first, as many as were asked for.
    pub messages: Vec<MessageId>,
}

/// Whether new messages can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Yes.
    Writable,
    /// The disk is full, or nearly: what is stored keeps draining.
    Full,
    /// Writing has failed for good.
    Broken,
}

/// Figures for metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Bytes that the store occupies.
    pub bytes: u64,
    /// Commits since it was opened.
    pub commits: u64,
    /// Rows written since it was opened.
    pub rows: u64,
    /// Messages that could not be found again by key because
    /// `max_idempotency_keys` was reached.
    pub idempotency_evicted: u64,
    /// Dead letters held.
    pub dead_letters: u64,
    /// Records that could not be decoded and are held as raw bytes.
    pub set_aside: u64,
    /// Events that clients have not been told yet.
    pub events: u64,
}

/// Why a read failed.
#[derive(Debug)]
pub enum StoreError {
    /// The engine's own words.
    Engine(String),
    /// A record that cannot be decoded.
    Undecodable(String),
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Engine(text) => write!(f, "store: {text}"),
            Self::Undecodable(text) => write!(f, "store: undecodable record: {text}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// A store. Reads block for as long as a disk takes: call them from a thread
/// that may wait.
pub trait Store: Send + Sync + 'static {
    /// Hands records to the commit loop. Does not wait.
    fn submit(&self, records: Vec<Record>);

    /// Hands over what is none of the dispatcher's affair; [`Flushed`] does not
    /// count it. The receiver resolves when it is on disk, and with an error when
    /// it will never be.
    fn write(&self, writes: Vec<Write>) -> oneshot::Receiver<()>;

    /// A client's next events after this one, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    fn events(
        &self,
        client: &str,
        after: Option<EventId>,
        most: usize,
    ) -> Result<Vec<OutboxEvent>, StoreError>;

    /// The clients that events wait for.
    ///
    /// # Errors
    /// [`StoreError`].
    fn event_clients(&self) -> Result<Vec<Arc<str>>, StoreError>;

    /// Dead letters that the filter lets through, the latest accepted first,
    /// older than `before`.
    ///
    /// # Errors
    /// [`StoreError`].
    fn dead_letters(
        &self,
        filter: &DeadFilter,
        before: Option<DeliveryId>,
        most: usize,
    ) -> Result<DeadLetters, StoreError>;

    /// Whether the delivery is a dead letter.
    ///
    /// # Errors
    /// [`StoreError`].
    fn is_dead(&self, delivery: DeliveryId) -> Result<bool, StoreError>;

    /// What operators did, the latest first, before the action of this number.
    ///
    /// # Errors
    /// [`StoreError`].
    fn actions(&self, before: Option<u64>, most: usize) -> Result<Actions, StoreError>;

    /// A message, while it is kept.
    ///
    /// # Errors
    /// [`StoreError`].
    fn message(&self, id: MessageId) -> Result<Option<Message>, StoreError>;

    /// The records of a message's deliveries, by place.
    ///
    /// # Errors
    /// [`StoreError`].
    fn progress(&self, id: MessageId) -> Result<Vec<(u16, Progress)>, StoreError>;

    /// The message that came with this idempotency key within 24 h.
    ///
    /// # Errors
    /// [`StoreError`].
    fn by_idempotency_key(&self, key: &[u8; 16]) -> Result<Option<MessageId>, StoreError>;

    /// Calls `each` with every message that has something unsettled, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    fn recover(&self, each: &mut dyn FnMut(Recovered)) -> Result<(), StoreError>;

    /// Calls `each` with messages that are older than `before` (`None`: all), newest
    /// first, and with the bytes of their records, until it says `false` or there
    /// are no more. Holds a snapshot until then.
    ///
    /// # Errors
    /// [`StoreError`].
    fn newest(
        &self,
        before: Option<MessageId>,
        each: &mut dyn FnMut(Message, usize) -> bool,
    ) -> Result<(), StoreError>;

    /// A user's devices, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    fn devices(&self, user: &User) -> Result<Vec<Device>, StoreError>;

    /// What is held about a user, with at most so many messages.
    ///
    /// # Errors
    /// [`StoreError`].
    fn held(&self, user: &User, most: usize) -> Result<Held, StoreError>;

    /// Calls `each` with gone addresses behind this place (moment and key), oldest
    /// first, until it says `false` or there are no more.
    ///
    /// # Errors
    /// [`StoreError`].
    fn gone(
        &self,
        after: (Utc, u128),
        each: &mut dyn FnMut(Gone) -> bool,
    ) -> Result<(), StoreError>;

    /// Since when the address of this key has been gone.
    ///
    /// # Errors
    /// [`StoreError`].
    fn gone_at(&self, key: u128) -> Result<Option<Utc>, StoreError>;

    /// Deliveries of a message that are dead letters.
    ///
    /// # Errors
    /// [`StoreError`].
    fn dead_of(&self, message: MessageId) -> Result<Vec<u16>, StoreError>;

    /// The secret that receipts are derived from; made when the store is.
    fn server_key(&self) -> [u8; 32];

    /// Whether new messages can be taken.
    fn health(&self) -> Health;

    /// Figures for metrics.
    fn figures(&self) -> Figures;

    /// Rows and duration of the commits since the last call, at most 4,096: what
    /// is not fetched in time is not kept.
    fn commit_times(&self) -> Vec<(u32, Duration)>;

    /// Writes and flushes all that was submitted, notes that this end is in
    /// order, and refuses further work. Blocks.
    fn close(&self);
}
