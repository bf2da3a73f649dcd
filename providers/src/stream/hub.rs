//! The thread that publishes, and what readers ask of the backlog.
//!
//! A message is written to the backlog, flushed, then handed to the live
//! subscribers: a subscriber registers first and reads the backlog then, so it
//! cannot miss one; what it meets twice it knows by its row. Publishing never
//! waits for a subscriber ([`super::listeners`]).

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::backlog::{Backlog, Entry};
use super::listeners::{Full, Place, Shared, Subscription};
use super::message::{self, Message};
use super::pace::Pace;
use super::payload;
use super::text::Text;
use super::upcoming::Upcoming;
use crate::clock::Clock;
use crate::template::Filling;
use crate::{Invalid, Push};

/// Messages of one commit.
const BATCH: usize = 512;

/// Calls that wait for a commit.
const INBOX: usize = 1024;

/// Bytes of messages in queues; beyond it only those who keep up are served.
const QUEUED_BYTES: usize = 64 << 20;

/// Messages that one look into the backlog brings.
const PAGE: usize = 64;

/// Of a message that is not in the backlog; the first row is 1.
const NO_ROW: u64 = 0;

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
    /// Of them, of one address.
    pub max_subscribers_per_address: usize,
    /// Of them, of one topic.
    pub max_subscribers_per_topic: usize,
    /// Different topics that are listened to at once.
    pub max_topics: usize,
    /// Different topics that one address may listen to at once.
    pub max_topics_per_address: usize,
}

/// Topics with their subscribers.
pub struct Hub {
    settings: HubSettings,
    clock: Arc<dyn Clock>,
    backlog: Arc<Backlog>,
    shared: Arc<Shared>,
    pace: Arc<Pace>,
    upcoming: Upcoming,
    inbox: Mutex<Option<Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
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

/// A delivery whose time has not come.
#[derive(Clone, Copy, Debug)]
pub struct Coming<'a> {
    /// Its id.
    pub delivery: Uuid,
    /// Where.
    pub topic: &'a str,
    /// The string that every payload carries.
    pub pushyard: &'a str,
    /// When, in unix seconds.
    pub at: u64,
    /// How long it is worth sending from then on.
    pub life: Duration,
}

/// The backlog cannot be written until it is opened anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BacklogBroken;

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

/// What a stock server tells of itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HubStats {
    /// Messages since the backlog was made, and since start those that were never
    /// in it.
    pub messages: u64,
    /// Messages a second, over the last ten minutes.
    pub rate: f64,
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
        let pace = Pace::new(backlog.ever().map_err(|error| told(&error))?);
        let (backlog, shared, pace) = (Arc::new(backlog), Arc::<Shared>::default(), Arc::new(pace));
        let (sender, inbox) = channel(INBOX);
        let writer = Writer {
            backlog: Arc::clone(&backlog),
            shared: Arc::clone(&shared),
            pace: Arc::clone(&pace),
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
            pace,
            upcoming: Upcoming::default(),
            inbox: Mutex::new(Some(sender)),
            writer: Mutex::new(Some(writer)),
        }))
    }

    /// Publishes text that comes from outside the router, to be kept for `life` and
    /// no longer than the backlog keeps anything; zero: only for who listens now.
    /// Returns its line, which is the answer that ntfy's server gives.
    ///
    /// # Errors
    /// When the backlog cannot be written.
    pub async fn publish_text(
        &self,
        topic: &str,
        text: &Text,
        life: Duration,
    ) -> Result<Bytes, BacklogBroken> {
        let ends = (!life.is_zero()).then(|| self.clock.unix_s().saturating_add(life.as_secs()));
        let entry = self.entry(message::new_id(), topic, ends, &text.object());
        let line = entry.line.clone();
        match self.put(entry, ends.is_none()).await {
            Published::Taken | Published::Repeat | Published::Nobody => Ok(line),
            Published::Broken => Err(BacklogBroken),
        }
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
        self.put(self.entry(id, topic, ends, rest), ends.is_none()).await
    }

    fn entry(&self, id: String, topic: &str, ends: Option<u64>, rest: &[u8]) -> Entry {
        let time = self.clock.unix_s();
        let kept = time.saturating_add(self.settings.backlog_ttl.as_secs());
        let expires = ends.map_or(time, |ends| ends.min(kept));
        let line = message::line(&id, time, expires, topic, rest);
        Entry { id, topic: topic.to_owned(), time, expires, line }
    }

    async fn put(&self, entry: Entry, fleeting: bool) -> Published {
        let sender = self.inbox.lock().expect(LOCK).clone();
        let Some(sender) = sender else { return Published::Broken };
        let (done, answer) = oneshot::channel();
        if sender.send(Job { entry, fleeting, done }).await.is_err() {
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
        self.shared.subscribe(&self.settings, topics, address)
    }

    /// A place for who reads the backlog alone.
    ///
    /// # Errors
    /// [`Full`].
    pub fn place(&self, address: IpAddr) -> Result<Place, Full> {
        self.shared.place(&self.settings, address)
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
            subscribers: listeners.count() as u64,
            topics: listeners.topics() as u64,
            backlog,
            dropped_slow: listeners.dropped,
        }
    }

    /// Notes that a delivery is for this topic at `at` (unix seconds).
    pub fn expect(&self, topic: &str, at: u64, delivery: u128) {
        self.upcoming.expect(topic, at, delivery, self.clock.unix_s());
    }

    /// What was noted of a topic and is still to come: times (unix seconds) and
    /// deliveries, soonest first, at most so many.
    pub fn upcoming(&self, topic: &str, most: usize) -> Vec<(u64, u128)> {
        self.upcoming.of(topic, most, self.clock.unix_s())
    }

    /// A message as it will be when it is published.
    ///
    /// # Errors
    /// [`Invalid`] when it cannot be.
    pub fn preview(&self, push: &Push, coming: &Coming<'_>) -> Result<Message, Invalid> {
        let Coming { delivery, topic, pushyard, at, life } = *coming;
        let expires = at.saturating_add(life.min(self.settings.backlog_ttl).as_secs());
        let filling = Filling {
            address: topic,
            delivery: "",
            pushyard,
            ttl: life.as_secs(),
            expires_at: expires,
        };
        let rest = payload::encode(push)?.body.render(&filling);
        let line = message::line(&message::id(delivery, topic), at, expires, topic, &rest);
        Ok(Message::new(NO_ROW, topic, at, expires, line))
    }

    /// What a stock server tells of itself.
    pub fn stats(&self) -> HubStats {
        let (messages, rate) = self.pace.figures(self.clock.unix_s());
        HubStats { messages, rate }
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

struct Writer {
    backlog: Arc<Backlog>,
    shared: Arc<Shared>,
    pace: Arc<Pace>,
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
        self.pace.count(1, time);
        let message = Message::new(row, &topic, time, expires, line).weighed(&self.shared.bytes);
        let tight = self.shared.bytes.load(Ordering::Relaxed) > QUEUED_BYTES;
        self.shared.listeners().fan_out(&Arc::new(message), tight)
    }
}
