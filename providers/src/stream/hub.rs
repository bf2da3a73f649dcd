//! Who listens to which topic, and the thread that publishes.
//!
//! A message is written to the backlog, flushed, then handed to the live
//! subscribers: a subscriber registers first and reads the backlog then, so it
//! cannot miss one; what it meets twice it knows by its row. Publishing never
//! waits for a subscriber: each has a queue of [`QUEUE`] messages, and one whose
//! queue is full is dropped and comes back with `since=`.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

use super::backlog::{Backlog, Entry};
use super::message::Message;
use crate::clock::Clock;

/// Messages that wait for a subscriber. An hour of a busy topic, or a second of a
/// flood: more, and it reads the backlog instead.
pub const QUEUE: usize = 256;

/// Messages of one commit.
const BATCH: usize = 512;

/// Calls that wait for a commit.
const INBOX: usize = 1024;

/// Bytes of messages in queues; beyond it only those who keep up are served.
const QUEUED_BYTES: usize = 64 << 20;

/// Messages that one look into the backlog brings.
const PAGE: usize = 64;

const LOCK: &str = "no code panics while it holds this lock";

/// The hub's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubSettings {
    /// Messages kept a topic.
    pub backlog: usize,
    /// Kept for this long.
    pub backlog_ttl: Duration,
    /// Subscribers at once.
    pub max_subscribers: usize,
    /// Different topics that one address may listen to at once.
    pub max_topics_per_address: usize,
}

/// Topics with their subscribers.
pub struct Hub {
    settings: HubSettings,
    clock: Arc<dyn Clock>,
    backlog: Arc<Backlog>,
    shared: Arc<Shared>,
    inbox: Mutex<Option<Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    listeners: Mutex<Listeners>,
    /// Of messages that are alive in queues.
    bytes: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Listeners {
    next: u64,
    count: usize,
    topics: HashMap<Box<str>, HashMap<u64, Sender<Arc<Message>>>>,
    /// How many subscriptions of an address to a topic.
    addresses: HashMap<IpAddr, HashMap<Box<str>, u32>>,
    dropped: u64,
}

struct Job {
    entry: Entry,
    /// Only for who listens now.
    fleeting: bool,
    done: oneshot::Sender<Published>,
}

/// What became of a publishing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Published {
    /// On disk, or handed to a subscriber.
    Taken,
    /// It was there already.
    Repeat,
    /// It was for now or never, and nobody listens.
    Nobody,
    /// The backlog cannot be written.
    Broken,
}

/// Why nobody more may listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// `max_subscribers`.
    Subscribers,
    /// `max_topics_per_address`.
    Topics,
    /// The hub is closed.
    Closed,
}

/// Figures for the metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct HubFigures {
    /// Subscribers now.
    pub subscribers: u64,
    /// Topics that somebody listens to.
    pub topics: u64,
    /// Messages in the backlog.
    pub backlog: u64,
    /// Subscribers dropped because they were slow, since start.
    pub dropped_slow: u64,
}

/// A place among the subscribers, until it is dropped.
pub struct Subscription {
    shared: Arc<Shared>,
    number: u64,
    topics: Arc<[Box<str>]>,
    address: IpAddr,
    queue: Receiver<Arc<Message>>,
}

impl Hub {
    /// Opens the backlog, and starts the thread that publishes.
    ///
    /// # Errors
    /// In the words of the system, when the file cannot be used.
    pub fn open(
        directory: &Path,
        settings: HubSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, String> {
        let path = directory.join("stream.redb");
        let told = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
        let backlog = Backlog::open(&path, settings.backlog).map_err(|error| told(&error))?;
        let (backlog, shared) = (Arc::new(backlog), Arc::<Shared>::default());
        let (sender, inbox) = channel(INBOX);
        let writer = Writer {
            backlog: Arc::clone(&backlog),
            shared: Arc::clone(&shared),
            clock: Arc::clone(&clock),
            broken: false,
        };
        let writer = std::thread::Builder::new()
            .name("stream".to_owned())
            .spawn(move || writer.run(inbox))
            .map_err(|error| told(&error))?;
        Ok(Arc::new(Self {
            settings,
            clock,
            backlog,
            shared,
            inbox: Mutex::new(Some(sender)),
            writer: Mutex::new(Some(writer)),
        }))
    }

    /// Publishes `rest`, the inside of a message object, under this id. Returns
    /// when it is on disk.
    pub(super) async fn publish(
        &self,
        id: String,
        topic: &str,
        ends: Option<u64>,
        rest: &[u8],
    ) -> Published {
        let sender = self.inbox.lock().expect(LOCK).clone();
        let Some(sender) = sender else { return Published::Broken };
        let time = self.clock.unix_s();
        let kept = time.saturating_add(self.settings.backlog_ttl.as_secs());
        let expires = ends.map_or(time, |ends| ends.min(kept));
        let line = super::message::line(&id, time, expires, topic, rest);
        let (done, answer) = oneshot::channel();
        let entry = Entry { id, topic: topic.to_owned(), time, expires, line };
        let job = Job { entry, fleeting: ends.is_none(), done };
        if sender.send(job).await.is_err() {
            return Published::Broken;
        }
        answer.await.unwrap_or(Published::Broken)
    }

    /// A place among the live subscribers of these topics.
    ///
    /// # Errors
    /// [`Full`].
    pub fn subscribe(
        &self,
        topics: Arc<[Box<str>]>,
        address: IpAddr,
    ) -> Result<Subscription, Full> {
        if self.inbox.lock().expect(LOCK).is_none() {
            return Err(Full::Closed);
        }
        let (sender, queue) = channel(QUEUE);
        let mut listeners = self.shared.listeners();
        if listeners.count >= self.settings.max_subscribers {
            return Err(Full::Subscribers);
        }
        let address = network(address);
        let known = listeners.addresses.get(&address);
        let new =
            topics.iter().filter(|topic| known.is_none_or(|known| !known.contains_key(*topic)));
        if known.map_or(0, HashMap::len) + new.count() > self.settings.max_topics_per_address {
            return Err(Full::Topics);
        }
        listeners.next += 1;
        listeners.count += 1;
        let number = listeners.next;
        for topic in topics.iter() {
            listeners.topics.entry(topic.clone()).or_default().insert(number, sender.clone());
            let of_address = listeners.addresses.entry(address).or_default();
            *of_address.entry(topic.clone()).or_default() += 1;
        }
        drop(listeners);
        Ok(Subscription { shared: Arc::clone(&self.shared), number, topics, address, queue })
    }

    /// The next messages of the backlog after a row, oldest first; the row to go
    /// on from, `None` at the end. Blocks: it reads from disk.
    ///
    /// # Errors
    /// In redb's words.
    pub fn after(
        &self,
        topics: &[Box<str>],
        row: u64,
    ) -> Result<(Vec<Message>, Option<u64>), String> {
        let now = self.clock.unix_s();
        let mut found =
            self.backlog.read(topics, row, now, PAGE).map_err(|error| error.to_string())?;
        let last = found.last().map(|message| message.row);
        found.retain(|message| message.expires > now);
        Ok((found, last))
    }

    /// The last message of each topic. Blocks.
    ///
    /// # Errors
    /// In redb's words.
    pub fn latest(&self, topics: &[Box<str>]) -> Result<Vec<Message>, String> {
        self.backlog.latest(topics, self.clock.unix_s()).map_err(|error| error.to_string())
    }

    /// The row of a message. Blocks.
    ///
    /// # Errors
    /// In redb's words.
    pub fn row_of(&self, id: &str) -> Result<Option<u64>, String> {
        self.backlog.row_of(id).map_err(|error| error.to_string())
    }

    /// Unix seconds.
    pub fn now(&self) -> u64 {
        self.clock.unix_s()
    }

    /// Figures for the metrics.
    pub fn figures(&self) -> HubFigures {
        let backlog = self.backlog.len().unwrap_or_default();
        let listeners = self.shared.listeners();
        HubFigures {
            subscribers: listeners.count as u64,
            topics: listeners.topics.len() as u64,
            backlog,
            dropped_slow: listeners.dropped,
        }
    }

    /// Publishes nothing more; ends the thread. Blocks until it has written.
    pub fn close(&self) {
        self.inbox.lock().expect(LOCK).take();
        let writer = self.writer.lock().expect(LOCK).take();
        if let Some(writer) = writer {
            // A panic in there has been reported by its own thread.
            let _ = writer.join();
        }
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Whose subscriptions are counted together: an IPv6 /64 is one customer.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Subscription {
    /// The next live message; `None`: dropped for being slow.
    pub async fn next(&mut self) -> Option<Arc<Message>> {
        self.queue.recv().await
    }

    /// Its topics.
    pub fn topics(&self) -> &Arc<[Box<str>]> {
        &self.topics
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A topic may be a secret.
        write!(f, "Subscription({} topics)", self.topics.len())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut listeners = self.shared.listeners();
        listeners.count -= 1;
        for topic in self.topics.iter() {
            listeners.leave(topic, self.number);
            let Some(of_address) = listeners.addresses.get_mut(&self.address) else { continue };
            if let Some(many) = of_address.get_mut(topic) {
                *many -= 1;
                if *many == 0 {
                    of_address.remove(topic);
                }
            }
            if of_address.is_empty() {
                listeners.addresses.remove(&self.address);
            }
        }
    }
}

impl Shared {
    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().expect(LOCK)
    }
}

impl Listeners {
    fn leave(&mut self, topic: &str, number: u64) {
        if let Some(of_topic) = self.topics.get_mut(topic) {
            of_topic.remove(&number);
            if of_topic.is_empty() {
                self.topics.remove(topic);
            }
        }
    }

    /// Hands a message to all who listen; how many there were. `tight`: only to
    /// those who have read everything before.
    fn fan_out(&mut self, message: &Arc<Message>, tight: bool) -> usize {
        let Some(of_topic) = self.topics.get_mut(&message.topic) else { return 0 };
        let mut slow = Vec::new();
        let mut handed = 0;
        for (number, queue) in of_topic.iter() {
            let behind = tight && queue.capacity() < QUEUE;
            if !behind && queue.try_send(Arc::clone(message)).is_ok() {
                handed += 1;
            } else {
                slow.push(*number);
            }
        }
        for number in slow {
            self.dropped += 1;
            self.forsake(number);
        }
        handed
    }

    /// Its queue ends: a subscriber of several topics leaves all of them.
    fn forsake(&mut self, number: u64) {
        self.topics.retain(|_, of_topic| {
            of_topic.remove(&number);
            !of_topic.is_empty()
        });
    }
}

struct Writer {
    backlog: Arc<Backlog>,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    /// What broke stays broken until the file is opened anew.
    broken: bool,
}

impl Writer {
    fn run(mut self, mut inbox: Receiver<Job>) {
        let mut jobs = Vec::new();
        while inbox.blocking_recv_many(&mut jobs, BATCH) > 0 {
            let (fleeting, kept): (Vec<_>, Vec<_>) = jobs.drain(..).partition(|job| job.fleeting);
            for job in fleeting {
                let handed = self.hand_out(u64::MAX, job.entry);
                let end = if handed > 0 { Published::Taken } else { Published::Nobody };
                let _ = job.done.send(end);
            }
            if !kept.is_empty() {
                self.publish(kept);
            }
        }
    }

    fn publish(&mut self, jobs: Vec<Job>) {
        let (entries, waiting): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|job| (job.entry, job.done)).unzip();
        let rows = if self.broken { None } else { self.write(&entries) };
        let Some(rows) = rows else {
            self.broken = true;
            for done in waiting {
                let _ = done.send(Published::Broken);
            }
            return;
        };
        for ((entry, row), done) in entries.into_iter().zip(rows).zip(waiting) {
            let end = match row {
                Some(row) => {
                    self.hand_out(row, entry);
                    Published::Taken
                }
                None => Published::Repeat,
            };
            // Whoever gave up waiting has lost nothing.
            let _ = done.send(end);
        }
    }

    fn write(&self, entries: &[Entry]) -> Option<Vec<Option<u64>>> {
        self.backlog.write(entries, self.clock.unix_s()).ok()
    }

    fn hand_out(&self, row: u64, entry: Entry) -> usize {
        let Entry { topic, time, expires, line, .. } = entry;
        let message = Message::new(row, &topic, time, expires, line).weighed(&self.shared.bytes);
        let tight = self.shared.bytes.load(Ordering::Relaxed) > QUEUED_BYTES;
        self.shared.listeners().fan_out(&Arc::new(message), tight)
    }
}
