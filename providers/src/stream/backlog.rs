//! The messages of the last hours, on disk: what a device that was away reads.
//!
//! A file of its own (`stream.redb`), because it is written by the provider and
//! not by the router's store, and may be deleted without losing a delivery. One
//! transaction takes all that waits; it is flushed before anybody is told.
//! Nothing of it is held in memory.

use std::path::Path;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};

use super::message::Message;

/// Row to (time, expires, topic, line).
const MESSAGES: TableDefinition<'_, u64, (u64, u64, &str, &[u8])> =
    TableDefinition::new("messages");
/// (Topic, row).
const TOPICS: TableDefinition<'_, (&str, u64), ()> = TableDefinition::new("topics");
/// How many of a topic.
const COUNTS: TableDefinition<'_, &str, u64> = TableDefinition::new("counts");
/// Id to row.
const IDS: TableDefinition<'_, &str, u64> = TableDefinition::new("ids");
/// (Expires, row).
const ENDS: TableDefinition<'_, (u64, u64), ()> = TableDefinition::new("ends");
/// Only `0`: the row to be used next. Rows never come again, or `since` would lie.
const NEXT: TableDefinition<'_, u8, u64> = TableDefinition::new("next");

/// Expired rows that one commit takes out, so that none is long.
const EXPIRED_AT_ONCE: usize = 4096;

/// Messages over all topics; the oldest go first. At 1 KiB each about 1 GiB.
const MOST: u64 = 1_000_000;

/// The file.
#[derive(Debug)]
pub(super) struct Backlog {
    db: Database,
    per_topic: u64,
}

/// What goes in.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) topic: String,
    pub(super) time: u64,
    pub(super) expires: u64,
    pub(super) line: Bytes,
}

/// A fault of the file, in redb's words.
pub(super) type Fault = Box<redb::Error>;

/// Redb has an error type for each operation, and one for all.
fn fault(error: impl Into<redb::Error>) -> Fault {
    Box::new(error.into())
}

impl Backlog {
    pub(super) fn open(path: &Path, per_topic: usize) -> Result<Self, Fault> {
        let db = Database::builder().set_cache_size(16 << 20).create(path).map_err(fault)?;
        let txn = db.begin_write().map_err(fault)?;
        txn.open_table(MESSAGES).map_err(fault)?;
        txn.open_table(TOPICS).map_err(fault)?;
        txn.open_table(COUNTS).map_err(fault)?;
        txn.open_table(IDS).map_err(fault)?;
        txn.open_table(ENDS).map_err(fault)?;
        txn.open_table(NEXT).map_err(fault)?;
        txn.commit().map_err(fault)?;
        Ok(Self { db, per_topic: per_topic as u64 })
    }

    /// Writes all of them and flushes; the row of each, `None` for a repeat.
    pub(super) fn write(&self, entries: &[Entry], now: u64) -> Result<Vec<Option<u64>>, Fault> {
        let mut txn = self.db.begin_write().map_err(fault)?;
        // Opening after a crash must not walk the whole file.
        txn.set_quick_repair(true);
        let mut rows = Vec::with_capacity(entries.len());
        {
            let mut tables = Tables::open(&txn)?;
            tables.expire(now)?;
            let mut next = tables.next.get(0).map_err(fault)?.map_or(1, |next| next.value());
            for entry in entries {
                if tables.ids.get(&*entry.id).map_err(fault)?.is_some() {
                    rows.push(None);
                    continue;
                }
                tables.insert(next, entry, self.per_topic)?;
                rows.push(Some(next));
                next += 1;
            }
            tables.next.insert(0, next).map_err(fault)?;
        }
        txn.commit().map_err(fault)?;
        Ok(rows)
    }

    /// Messages of these topics after a row, oldest first, at most `most`.
    pub(super) fn read(
        &self,
        topics: &[Box<str>],
        after: u64,
        now: u64,
        most: usize,
    ) -> Result<Vec<Message>, Fault> {
        let txn = self.db.begin_read().map_err(fault)?;
        let index = txn.open_table(TOPICS).map_err(fault)?;
        let messages = txn.open_table(MESSAGES).map_err(fault)?;
        let mut rows = Vec::new();
        for topic in topics {
            let range = (&**topic, after.saturating_add(1))..=(&**topic, u64::MAX);
            for found in index.range(range).map_err(fault)?.take(most) {
                rows.push(found.map_err(fault)?.0.value().1);
            }
        }
        rows.sort_unstable();
        rows.dedup();
        rows.truncate(most);
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            let Some(value) = messages.get(row).map_err(fault)? else { continue };
            let (time, expires, topic, line) = value.value();
            // Kept in the answer even when expired: the reader goes on after it.
            let line = if expires > now { Bytes::copy_from_slice(line) } else { Bytes::new() };
            found.push(Message::new(row, topic, time, expires, line));
        }
        Ok(found)
    }

    /// The row of the last message of each topic that is not expired.
    pub(super) fn latest(&self, topics: &[Box<str>], now: u64) -> Result<Vec<Message>, Fault> {
        let txn = self.db.begin_read().map_err(fault)?;
        let index = txn.open_table(TOPICS).map_err(fault)?;
        let messages = txn.open_table(MESSAGES).map_err(fault)?;
        let mut found = Vec::new();
        for topic in topics {
            for at in index.range((&**topic, 0)..=(&**topic, u64::MAX)).map_err(fault)?.rev() {
                let row = at.map_err(fault)?.0.value().1;
                let Some(value) = messages.get(row).map_err(fault)? else { continue };
                let (time, expires, topic, line) = value.value();
                if expires > now {
                    let line = Bytes::copy_from_slice(line);
                    found.push(Message::new(row, topic, time, expires, line));
                    break;
                }
            }
        }
        found.sort_unstable_by_key(|message| message.row);
        Ok(found)
    }

    /// The row of an id, if it is still there.
    pub(super) fn row_of(&self, id: &str) -> Result<Option<u64>, Fault> {
        let txn = self.db.begin_read().map_err(fault)?;
        let ids = txn.open_table(IDS).map_err(fault)?;
        Ok(ids.get(id).map_err(fault)?.map(|row| row.value()))
    }

    /// How many there ever were.
    pub(super) fn ever(&self) -> Result<u64, Fault> {
        let txn = self.db.begin_read().map_err(fault)?;
        let next = txn.open_table(NEXT).map_err(fault)?.get(0).map_err(fault)?;
        Ok(next.map_or(0, |next| next.value() - 1))
    }

    /// How many there are, over all topics.
    pub(super) fn len(&self) -> Result<u64, Fault> {
        let txn = self.db.begin_read().map_err(fault)?;
        txn.open_table(MESSAGES).map_err(fault)?.len().map_err(fault)
    }
}

struct Tables<'t> {
    messages: redb::Table<'t, u64, (u64, u64, &'static str, &'static [u8])>,
    topics: redb::Table<'t, (&'static str, u64), ()>,
    counts: redb::Table<'t, &'static str, u64>,
    ids: redb::Table<'t, &'static str, u64>,
    ends: redb::Table<'t, (u64, u64), ()>,
    next: redb::Table<'t, u8, u64>,
}

impl<'t> Tables<'t> {
    fn open(txn: &'t redb::WriteTransaction) -> Result<Self, Fault> {
        Ok(Self {
            messages: txn.open_table(MESSAGES).map_err(fault)?,
            topics: txn.open_table(TOPICS).map_err(fault)?,
            counts: txn.open_table(COUNTS).map_err(fault)?,
            ids: txn.open_table(IDS).map_err(fault)?,
            ends: txn.open_table(ENDS).map_err(fault)?,
            next: txn.open_table(NEXT).map_err(fault)?,
        })
    }

    fn insert(&mut self, row: u64, entry: &Entry, per_topic: u64) -> Result<(), Fault> {
        let topic = &*entry.topic;
        let count = self.counts.get(topic).map_err(fault)?.map_or(0, |count| count.value());
        if count >= per_topic {
            let oldest = {
                let mut of_topic =
                    self.topics.range((topic, 0)..=(topic, u64::MAX)).map_err(fault)?;
                of_topic.next().transpose().map_err(fault)?.map(|(key, _)| key.value().1)
            };
            if let Some(oldest) = oldest {
                self.remove(oldest)?;
            }
        }
        if self.messages.len().map_err(fault)? >= MOST {
            let oldest = self.messages.first().map_err(fault)?.map(|(row, _)| row.value());
            if let Some(oldest) = oldest {
                self.remove(oldest)?;
            }
        }
        let count = self.counts.get(topic).map_err(fault)?.map_or(0, |count| count.value());
        let value = (entry.time, entry.expires, topic, &*entry.line);
        self.messages.insert(row, value).map_err(fault)?;
        self.topics.insert((topic, row), ()).map_err(fault)?;
        self.counts.insert(topic, count + 1).map_err(fault)?;
        self.ids.insert(&*entry.id, row).map_err(fault)?;
        self.ends.insert((entry.expires, row), ()).map_err(fault)?;
        Ok(())
    }

    fn expire(&mut self, now: u64) -> Result<(), Fault> {
        let mut rows = Vec::new();
        for end in self.ends.range(..=(now, u64::MAX)).map_err(fault)?.take(EXPIRED_AT_ONCE) {
            rows.push(end.map_err(fault)?.0.value().1);
        }
        rows.into_iter().try_for_each(|row| self.remove(row))
    }

    fn remove(&mut self, row: u64) -> Result<(), Fault> {
        let Some((expires, topic, id)) = self.messages.remove(row).map_err(fault)?.map(|value| {
            let (_, expires, topic, line) = value.value();
            (expires, topic.to_owned(), id_in(line).to_owned())
        }) else {
            return Ok(());
        };
        self.topics.remove((&*topic, row)).map_err(fault)?;
        self.ids.remove(&*id).map_err(fault)?;
        self.ends.remove((expires, row)).map_err(fault)?;
        let count = self.counts.get(&*topic).map_err(fault)?.map_or(0, |count| count.value());
        if count > 1 {
            self.counts.insert(&*topic, count - 1).map_err(fault)?;
        } else {
            self.counts.remove(&*topic).map_err(fault)?;
        }
        Ok(())
    }
}

/// A line begins with its id ([`super::message::line`]).
fn id_in(line: &[u8]) -> &str {
    let id = line.get(br#"{"id":""#.len()..).and_then(|rest| rest.get(..super::message::ID_LENGTH));
    id.and_then(|id| std::str::from_utf8(id).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::message::line;

    fn entry(n: u64, topic: &str, expires: u64) -> Entry {
        let id = format!("{n:012}");
        let line = line(&id, n, expires, topic, br#"{"message":"m"}"#);
        Entry { id, topic: topic.to_owned(), time: n, expires, line }
    }

    fn rows(backlog: &Backlog, topics: &[&str], after: u64, now: u64) -> Vec<u64> {
        let topics: Vec<Box<str>> = topics.iter().map(|topic| Box::from(*topic)).collect();
        let found = backlog.read(&topics, after, now, 100).unwrap();
        let alive = found.into_iter().filter(|message| message.expires > now);
        alive.map(|message| message.row).collect()
    }

    #[test]
    fn rows_are_read_in_order_over_topics_and_survive_a_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stream.redb");
        let backlog = Backlog::open(&path, 10).unwrap();
        let entries = [entry(1, "a", 100), entry(2, "b", 100), entry(3, "a", 50), entry(1, "a", 9)];
        let written = backlog.write(&entries, 10).unwrap();
        assert_eq!(written, [Some(1), Some(2), Some(3), None], "the repeat is dropped");
        drop(backlog);
        let backlog = Backlog::open(&path, 10).unwrap();
        assert_eq!(rows(&backlog, &["a", "b", "a"], 0, 10), [1, 2, 3]);
        assert_eq!(rows(&backlog, &["a"], 1, 10), [3]);
        assert_eq!(rows(&backlog, &["a", "b"], 0, 50), [1, 2], "expired is not shown");
        assert_eq!(backlog.row_of("000000000002").unwrap(), Some(2));
        assert_eq!(backlog.row_of("nosuchid0000").unwrap(), None);
        let latest = backlog.latest(&["a".into(), "b".into()], 60).unwrap();
        assert_eq!(latest.iter().map(|message| message.row).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_topic_keeps_its_newest_and_what_expired_leaves_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let backlog = Backlog::open(&dir.path().join("stream.redb"), 2).unwrap();
        let entries: Vec<_> = (1..=5).map(|n| entry(n, "a", 100)).collect();
        backlog.write(&entries, 10).unwrap();
        assert_eq!(rows(&backlog, &["a"], 0, 10), [4, 5]);
        assert_eq!(backlog.row_of("000000000001").unwrap(), None);
        backlog.write(&[entry(6, "b", 200)], 100).unwrap();
        assert_eq!(backlog.len().unwrap(), 1);
        backlog.write(&[], 200).unwrap();
        assert_eq!(backlog.len().unwrap(), 0);
        assert_eq!(backlog.write(&[entry(7, "a", 300)], 200).unwrap(), [Some(7)]);
    }
}
