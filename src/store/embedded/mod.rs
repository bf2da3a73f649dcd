//! redb behind the [`Store`] trait: one file, one thread that writes.
//!
//! Whoever has something to write pushes it into the inbox, under a mutex that
//! is held for a few instructions; the commit thread (`commit`) takes all that
//! waits, encodes and sorts it (`batch`), writes it in one transaction (`apply`)
//! and tells how far it has come. Between commits, in small steps, the same
//! thread puts idempotency keys in order (`keys`) and lets go of what is old
//! (`retention`). So nothing but that thread ever waits for the disk to write,
//! and nobody else changes the file.
//!
//! Reads run on the caller's thread, on a snapshot that is let go of before they
//! return: one that is held pins every page that is rewritten meanwhile.
//!
//! What cannot be decoded is set aside by the commit thread, on behalf of
//! whoever found it. A message so lost is no longer open; a delivery whose
//! progress is lost is `unknown` from then on, for whether it was sent is not
//! known any more, and sending it again might be the second time.

mod apply;
mod aside;
mod batch;
mod commit;
mod disk;
mod keys;
mod open;
mod operators;
mod outbox;
mod read;
mod retention;
mod tables;
mod users;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use redb::{Database, ReadTransaction, ReadableDatabase};
use tokio::sync::oneshot;

use self::batch::{Damaged, Work};
use self::disk::Signs;
use self::keys::{Found, Keys};
use super::{
    Actions, DeadFilter, DeadLetters, Figures, Flushed, Health, Held, OutboxEvent, Record,
    Recovered, Store, StoreError, Write,
};
use crate::clock::{Now, Utc};
use crate::model::{DeliveryId, Device, EventId, Gone, Message, MessageId, Progress, User};

pub use open::{OpenError, open};

/// Messages that a recovery reads in one snapshot.
const RECOVERY_LOT: usize = 512;

/// Durations of commits that are held for whoever asks for them.
const COMMIT_TIMES: usize = 4096;

/// Asks for the time.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// Told how far writing has come.
pub type OnFlushed = Box<dyn Fn(Flushed) + Send + Sync>;

/// A store in one file. Dropping it without [`Store::close`] is an end without
/// order, and what was submitted and not flushed is lost.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Keeps other processes out for as long as the file is open.
    _lock: Option<File>,
}

/// What the commit thread and the others share.
struct Shared {
    inbox: Mutex<Inbox>,
    arrived: Condvar,
    /// `None` while it is opened again, and after the end.
    db: RwLock<Option<Database>>,
    keys: Mutex<Keys>,
    server_key: [u8; 32],
    clock: Clock,
    signs: Arc<Signs>,
    health: AtomicU8,
    commits: AtomicU64,
    rows: AtomicU64,
    dead_letters: AtomicU64,
    set_aside: AtomicU64,
    events: AtomicU64,
    commit_times: Mutex<Vec<(u32, Duration)>>,
}

/// What waits for the commit thread. It has no bound of its own: whoever submits
/// bounds what it has under way (docs/semantics.md, "Limits").
#[derive(Default)]
struct Inbox {
    work: Vec<Work>,
    records: usize,
    end: Option<End>,
    /// The commit thread sleeps: waking it is a system call, and mostly it is at work.
    asleep: bool,
}

/// How the commit thread is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// When all is flushed.
    InOrder,
    /// Now.
    AtOnce,
}

/// The engine's own words when something failed.
#[derive(Debug)]
struct Fault(String);

impl Store for Embedded {
    fn submit(&self, records: Vec<Record>) {
        self.shared.push(Work::Records(records));
    }

    fn write(&self, writes: Vec<Write>) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        self.shared.push(Work::Writes(writes, tell));
        told
    }

    fn events(
        &self,
        client: &str,
        after: Option<EventId>,
        most: usize,
    ) -> Result<Vec<OutboxEvent>, StoreError> {
        let read = self.shared.read(|txn| outbox::events(txn, client, after, most))?;
        let (events, lost): (Vec<_>, Vec<_>) = read.into_iter().partition(Result::is_ok);
        if !lost.is_empty() {
            // Nobody could ever be told what they say.
            let ids: Vec<EventId> = lost.into_iter().filter_map(Result::err).collect();
            tracing::error!(
                client,
                events = ids.len(),
                "events that cannot be decoded were removed"
            );
            drop(self.write(vec![Write::EventsDone(client.into(), ids)]));
        }
        Ok(events.into_iter().flatten().collect())
    }

    fn event_clients(&self) -> Result<Vec<Arc<str>>, StoreError> {
        self.shared.read(outbox::clients)
    }

    fn dead_letters(
        &self,
        filter: &DeadFilter,
        before: Option<DeliveryId>,
        most: usize,
    ) -> Result<DeadLetters, StoreError> {
        let mut damaged = Vec::new();
        let found = self
            .shared
            .read(|txn| operators::dead_letters(txn, filter, before, most, &mut damaged))?;
        self.shared.set_aside(damaged);
        Ok(found)
    }

    fn is_dead(&self, delivery: DeliveryId) -> Result<bool, StoreError> {
        self.shared.read(|txn| operators::is_dead(txn, delivery))
    }

    fn actions(&self, before: Option<u64>, most: usize) -> Result<Actions, StoreError> {
        self.shared.read(|txn| operators::actions(txn, before, most))
    }

    fn message(&self, id: MessageId) -> Result<Option<Message>, StoreError> {
        let read = self.shared.read(|txn| read::message(txn, id))?;
        if read.is_err() {
            self.shared.push(Work::Damaged(vec![Damaged::Message(id.as_u128())]));
        }
        Ok(read?)
    }

    fn progress(&self, id: MessageId) -> Result<Vec<(u16, Progress)>, StoreError> {
        let mut damaged = Vec::new();
        let progress = self.shared.read(|txn| read::progress(txn, id, &mut damaged))?;
        self.shared.set_aside(damaged);
        Ok(progress)
    }

    fn by_idempotency_key(&self, key: &[u8; 16]) -> Result<Option<MessageId>, StoreError> {
        let found = lock(&self.shared.keys).find(key);
        let id = match found {
            Found::Message(id) => Some(id),
            Found::Perhaps(runs) if runs.is_empty() => None,
            Found::Perhaps(runs) => self.shared.read(|txn| keys::look_up(txn, &runs, key))?,
        };
        let now = (self.shared.clock)().utc;
        Ok(id.filter(|id| keys::is_alive(*id, now)).and_then(MessageId::from_u128))
    }

    fn recover(&self, each: &mut dyn FnMut(Recovered)) -> Result<(), StoreError> {
        let mut after = 0;
        loop {
            let lot = self.shared.read(|txn| read::open_messages(txn, after, RECOVERY_LOT))?;
            self.shared.set_aside(lot.damaged);
            lot.recovered.into_iter().for_each(&mut *each);
            match lot.last {
                Some(last) => after = last,
                None => return Ok(()),
            }
        }
    }

    fn newest(
        &self,
        before: Option<MessageId>,
        each: &mut dyn FnMut(Message, usize) -> bool,
    ) -> Result<(), StoreError> {
        let before = before.map_or(u128::MAX, MessageId::as_u128);
        let mut damaged = Vec::new();
        let read = |txn: &_| read::newest(txn, before, each, &mut damaged);
        let result = self.shared.read(read);
        self.shared.set_aside(damaged);
        result
    }

    fn devices(&self, user: &User) -> Result<Vec<Device>, StoreError> {
        self.shared.read(|txn| users::devices(txn, user))?
    }

    fn held(&self, user: &User, most: usize) -> Result<Held, StoreError> {
        self.shared.read(|txn| users::held(txn, user, most))
    }

    fn gone(
        &self,
        after: (Utc, u128),
        each: &mut dyn FnMut(Gone) -> bool,
    ) -> Result<(), StoreError> {
        self.shared.read(|txn| users::gone(txn, (after.0.ms(), after.1), each))
    }

    fn gone_at(&self, key: u128) -> Result<Option<Utc>, StoreError> {
        self.shared.read(|txn| users::gone_at(txn, key))
    }

    fn dead_of(&self, message: MessageId) -> Result<Vec<u16>, StoreError> {
        self.shared.read(|txn| users::dead_of(txn, message))
    }

    fn server_key(&self) -> [u8; 32] {
        self.shared.server_key
    }

    fn health(&self) -> Health {
        self.shared.health()
    }

    fn figures(&self) -> Figures {
        let shared = &self.shared;
        Figures {
            bytes: shared.signs.bytes(),
            commits: shared.commits.load(Ordering::Relaxed),
            rows: shared.rows.load(Ordering::Relaxed),
            idempotency_evicted: lock(&shared.keys).evicted(),
            dead_letters: shared.dead_letters.load(Ordering::Relaxed),
            set_aside: shared.set_aside.load(Ordering::Relaxed),
            events: shared.events.load(Ordering::Relaxed),
        }
    }

    fn commit_times(&self) -> Vec<(u32, Duration)> {
        std::mem::take(&mut lock(&self.shared.commit_times))
    }

    fn close(&self) {
        self.end(End::InOrder);
    }
}

impl Embedded {
    fn end(&self, end: End) {
        self.shared.end(end);
        if let Some(writer) = lock(&self.writer).take() {
            // It catches its own panics; what it has to say went to `on_flushed`.
            let _ = writer.join();
        }
        *self.shared.db.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.end(End::AtOnce);
    }
}

impl Shared {
    /// Hands something to the commit thread; after its end, to nobody.
    fn push(&self, work: Work) {
        let mut inbox = lock(&self.inbox);
        if inbox.end.is_some() {
            return;
        }
        if let Work::Records(records) = &work {
            inbox.records += records.len();
        }
        inbox.work.push(work);
        let asleep = inbox.asleep;
        drop(inbox);
        if asleep {
            self.arrived.notify_one();
        }
    }

    fn set_aside(&self, damaged: Vec<Damaged>) {
        if !damaged.is_empty() {
            self.push(Work::Damaged(damaged));
        }
    }

    /// Nothing is taken any more. The first word counts: an end in order that is
    /// under way is not cut short.
    fn end(&self, end: End) {
        lock(&self.inbox).end.get_or_insert(end);
        self.arrived.notify_one();
    }

    /// Runs a read on a snapshot. A page that something else has written can make
    /// the engine panic; that is an error like any other here.
    fn read<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = db.as_ref() else {
            return Err(StoreError::Engine("the file is not open".to_owned()));
        };
        let attempt = AssertUnwindSafe(|| read(&db.begin_read()?));
        match catch_unwind(attempt) {
            Ok(result) => Ok(result?),
            Err(_) => Err(StoreError::Engine("the engine gave up over a damaged page".to_owned())),
        }
    }

    fn health(&self) -> Health {
        match self.health.load(Ordering::Acquire) {
            0 => Health::Writable,
            1 => Health::Full,
            _ => Health::Broken,
        }
    }

    /// Broken is for good.
    fn set_health(&self, health: Health) {
        let number = match health {
            Health::Writable => 0,
            Health::Full => 1,
            Health::Broken => 2,
        };
        if self.health() != Health::Broken {
            self.health.store(number, Ordering::Release);
        }
    }

    fn note_commit(&self, rows: u64, took: Duration) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.rows.fetch_add(rows, Ordering::Relaxed);
        let mut times = lock(&self.commit_times);
        if times.len() < COMMIT_TIMES {
            times.push((u32::try_from(rows).unwrap_or(u32::MAX), took));
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("health", &self.health()).finish_non_exhaustive()
    }
}

/// Every value under a mutex here is whole at each step, so that a panic of
/// another thread has spoilt nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        Self::Engine(fault.0)
    }
}

macro_rules! fault_from {
    ($($error:ty),+) => {
        $(impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                Self(error.to_string())
            }
        })+
    };
}

fault_from!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError
);
