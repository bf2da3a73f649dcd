//! What one commit writes: records, encoded and sorted.
//!
//! Encoding is done here, on the commit thread: the dispatcher's task is the one
//! that everything waits for, and this thread waits for the disk most of the
//! time. All rows of a batch share one buffer, so that a row costs no allocation.
//!
//! Where the order of records does not matter they are sorted by key, so that
//! each page of the tree is touched once; of two records of one key the last
//! wins. What a record means for other tables (an outcome ends an intent) is
//! worked out in the order in which they came.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::clock::Utc;
use crate::model::{Body, DeliveryEvent, DeliveryId, EventId, Progress, State};
use crate::store::{Action, Intent, Record, Write, record};

use super::users::{self, Change};

/// Records in a commit, unless one batch alone has more: at this size a commit
/// takes about 10 ms and larger ones save nothing (docs/semantics.md, "Order of writes").
pub(super) const MAX_ROWS: usize = 4096;

/// Bytes in a commit, unless one batch alone has more.
pub(super) const MAX_BYTES: usize = 4 << 20;

/// Where a row stands in the batch's buffer.
type Span = Range<usize>;

/// A record that was found to be undecodable, by its message's or delivery's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Damaged {
    /// A message.
    Message(u128),
    /// A delivery's progress.
    Progress(u128),
    /// An intent.
    Intent(u128),
    /// A message that is open but is not there.
    Missing(u128),
}

/// Something for the commit loop.
#[derive(Debug)]
pub(super) enum Work {
    /// Records that must be in one commit.
    Records(Vec<Record>),
    /// To be set aside.
    Damaged(Vec<Damaged>),
    /// For others than the dispatcher, and who is told when it is flushed.
    Writes(Vec<Write>, oneshot::Sender<()>),
}

/// A delivery's new progress.
pub(super) struct Out {
    /// The delivery.
    pub(super) key: u128,
    /// Its state, as in the row.
    pub(super) state: State,
    /// Since when, as in the row.
    pub(super) at: Utc,
    /// The row.
    pub(super) row: Span,
}

/// The rows of one commit.
#[derive(Default)]
pub(super) struct Batch {
    buffer: Vec<u8>,
    /// Messages.
    pub(super) messages: Vec<(u128, Span)>,
    /// Progress.
    pub(super) outs: Vec<Out>,
    /// Whether messages have something unsettled.
    pub(super) open: Vec<(u128, bool)>,
    /// Intents; `None` ends one.
    pub(super) intents: Vec<(u128, Option<Span>)>,
    /// What changes about users and gone addresses, in order.
    pub(super) changes: Vec<Change>,
    /// Notes, in order.
    pub(super) notes: Vec<(String, Option<Vec<u8>>)>,
    /// Idempotency keys of the messages, in order.
    pub(super) keys: Vec<([u8; 16], u128)>,
    /// Events for clients, in order.
    pub(super) events: Vec<(Arc<str>, DeliveryEvent)>,
    /// Events that are told.
    pub(super) events_done: Vec<(Arc<str>, EventId)>,
    /// What operators did, in order.
    pub(super) actions: Vec<Action>,
    /// Dead letters that are not wanted any more.
    pub(super) buried: Vec<u128>,
    /// Told when all of it is flushed.
    pub(super) told: Vec<oneshot::Sender<()>>,
    /// To be set aside.
    pub(super) damaged: Vec<Damaged>,
    records: u64,
}

impl Batch {
    /// Records in it.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.records == 0 && self.damaged.is_empty() && self.told.is_empty()
    }

    /// Whether `work` still fits; an empty batch takes anything.
    pub(super) fn takes(&self, work: &Work) -> bool {
        let more = match work {
            Work::Records(records) => records.len(),
            Work::Damaged(damaged) => damaged.len(),
            Work::Writes(writes, _) => writes.len(),
        };
        let rows = usize::try_from(self.records).unwrap_or(usize::MAX);
        self.is_empty() || (rows.saturating_add(more) <= MAX_ROWS && self.buffer.len() < MAX_BYTES)
    }

    /// Takes the work in.
    pub(super) fn add(&mut self, work: Work) {
        match work {
            Work::Records(records) => {
                self.records += records.len() as u64;
                for record in records {
                    self.add_record(record);
                }
            }
            Work::Damaged(damaged) => self.damaged.extend(damaged),
            Work::Writes(writes, told) => {
                writes.into_iter().for_each(|write| self.add_write(write));
                self.told.push(told);
            }
        }
    }

    /// The bytes of a row.
    pub(super) fn row(&self, span: &Span) -> &[u8] {
        &self.buffer[span.clone()]
    }

    /// Sorts by key and leaves the last record of each.
    pub(super) fn sort(&mut self) {
        sort_last_wins(&mut self.messages, |(key, _)| *key);
        sort_last_wins(&mut self.outs, |out| out.key);
        sort_last_wins(&mut self.open, |(key, _)| *key);
        sort_last_wins(&mut self.intents, |(key, _)| *key);
    }

    /// Whether this batch itself closed the message at some point. After [`Self::sort`].
    pub(super) fn closes(&self, message: u128) -> bool {
        self.open
            .binary_search_by_key(&message, |(key, _)| *key)
            .is_ok_and(|found| !self.open[found].1)
    }

    /// Empties it and keeps its buffers.
    pub(super) fn clear(&mut self) {
        self.buffer.clear();
        self.messages.clear();
        self.outs.clear();
        self.open.clear();
        self.intents.clear();
        self.changes.clear();
        self.notes.clear();
        self.keys.clear();
        self.events.clear();
        self.events_done.clear();
        self.actions.clear();
        self.buried.clear();
        self.told.clear();
        self.damaged.clear();
        self.records = 0;
    }

    fn add_record(&mut self, record: Record) {
        match record {
            Record::Accept(body) => self.accept(&body),
            Record::Intent(delivery, intent) => self.intent(delivery, &intent),
            Record::Progress(delivery, progress) => self.progress(delivery, &progress),
            Record::Settled(message) => self.open.push((message.as_u128(), false)),
            Record::Event(client, event) => self.events.push((client, *event)),
            Record::Device(user, name, device) => {
                let row = device
                    .map(|device| self.encoded(|buffer| record::encode_device(&device, buffer)));
                self.changes.push(Change::Device(users::key(&user, name.as_bytes()), row));
            }
            Record::Gone(gone) => {
                let row = self.encoded(|buffer| record::encode_gone(&gone, buffer));
                self.changes.push(Change::Gone(gone, row));
            }
            Record::Healed(key) => self.changes.push(Change::Healed(key)),
            Record::Erase(user, messages) => self.changes.push(Change::Erase(user, messages)),
            Record::Note(name, value) => self.notes.push((name, value)),
        }
    }

    fn add_write(&mut self, write: Write) {
        match write {
            Write::EventsDone(client, ids) => {
                self.events_done.extend(ids.into_iter().map(|id| (client.clone(), id)));
            }
            Write::Action(action) => self.actions.push(action),
            Write::Buried(delivery) => self.buried.push(delivery.as_u128()),
        }
    }

    fn accept(&mut self, body: &Arc<Body>) {
        let message = body.message();
        let id = message.id.as_u128();
        let row = self.encoded(|buffer| record::encode_message(message, buffer));
        self.messages.push((id, row));
        self.open.push((id, true));
        self.changes.extend(users::holds(message).map(Change::Holds));
        self.keys.extend(message.idempotency.map(|known| (known.key, id)));
    }

    fn intent(&mut self, delivery: DeliveryId, intent: &Intent) {
        let row = self.encoded(|buffer| record::encode_intent(intent, buffer));
        self.intents.push((delivery.as_u128(), Some(row)));
    }

    fn progress(&mut self, delivery: DeliveryId, progress: &Progress) {
        let key = delivery.as_u128();
        let row = self.encoded(|buffer| record::encode_progress(progress, buffer));
        self.outs.push(Out { key, state: progress.state, at: progress.at, row });
        self.intents.push((key, None));
    }

    fn encoded(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> Span {
        let start = self.buffer.len();
        encode(&mut self.buffer);
        start..self.buffer.len()
    }
}

fn sort_last_wins<T>(rows: &mut Vec<T>, key: impl Fn(&T) -> u128) {
    rows.sort_by_key(&key);
    // `dedup_by` keeps the first of a run and is handed the later one first:
    // swapping makes the kept one the last.
    rows.dedup_by(|later, kept| {
        let same = key(later) == key(kept);
        if same {
            std::mem::swap(later, kept);
        }
        same
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MessageId;

    fn progress(message: u128, n: u16, state: State) -> Record {
        let id = MessageId::from_u128(message << 14).expect("its low bits are zero");
        let at = Utc::from_ms(1);
        Record::Progress(id.delivery(n), Arc::new(Progress { state, ..Progress::queued(at) }))
    }

    fn settled(message: u128) -> Record {
        Record::Settled(MessageId::from_u128(message << 14).expect("its low bits are zero"))
    }

    #[test]
    fn rows_are_sorted_and_the_last_of_a_key_wins() {
        let mut batch = Batch::default();
        batch.add(Work::Records(vec![
            progress(2, 0, State::Waiting),
            progress(1, 1, State::Waiting),
            progress(2, 0, State::Sent),
            progress(1, 1, State::Failed),
            settled(1),
        ]));
        batch.sort();
        let outs: Vec<_> = batch.outs.iter().map(|out| (out.key, out.state)).collect();
        assert_eq!(outs, [((1 << 14) + 2, State::Failed), ((2 << 14) + 1, State::Sent)]);
        let head = record::decode_progress_head(batch.row(&batch.outs[0].row)).unwrap();
        assert_eq!(head.state, State::Failed);
        assert!(batch.closes(1 << 14) && !batch.closes(2 << 14));
        assert_eq!(batch.records(), 5);
    }

    #[test]
    fn a_batch_takes_what_fits_and_never_a_part() {
        let work = |records| Work::Records(vec![settled(1); records]);
        let mut batch = Batch::default();
        assert!(batch.takes(&work(MAX_ROWS + 1)), "one that is too large has a commit of its own");
        batch.add(work(MAX_ROWS - 1));
        assert!(batch.takes(&work(1)) && !batch.takes(&work(2)));
        batch.add(work(1));
        assert!(!batch.takes(&work(1)));
        batch.clear();
        assert!(batch.is_empty() && batch.takes(&work(1)));
    }
}
