//! Idempotency keys: which message came with a key within 24 hours.
//!
//! A row by key for each message would be the dearest of all: keys are random,
//! so each one dirties a page of its own. The key lives in the message's row
//! instead; the recent ones are held in memory and written in sorted lots, a
//! *run* each. Each run has a Bloom filter, so that looking up a key that is not
//! there (the common case) reads nothing from disk, however many runs there are.
//! After a restart the keys that no run holds yet are read from the messages
//! above the line noted in `spilled_upto`.
//!
//! The map is owned by the commit thread and read by everyone, under a mutex
//! that is held for a few instructions; keys appear with the flush of their
//! message.

use std::time::Duration;

use hashbrown::HashMap;
use redb::{ReadTransaction, ReadableDatabase, TableError, WriteTransaction};

use super::Fault;
use super::tables::{self, FILTERS, META, Run, first_at, meta};
use crate::clock::{Utc, millis};
use crate::store::record;

/// A key is found again for this long (docs/semantics.md, "Order of writes").
pub(super) const LIFE: Duration = Duration::from_secs(24 * 3600);

/// Keys in a run at most: about 2 MiB, one read of a filter each 64 k messages.
const LOT: u64 = 64 * 1024;

/// Keys written to a run in one commit: about 2 ms.
const STEP: usize = 8 * 1024;

/// Messages whose keys a restart reads from their rows at most, about 0.1 s.
const UNSPILLED: u64 = 256 * 1024;

/// … or of this time.
const UNSPILLED_TIME: Duration = Duration::from_secs(3600);

/// Ids are given before they are committed; by so much they may be out of order.
const DISORDER: Duration = Duration::from_secs(10);

/// A key's hash.
pub(super) type Key = [u8; 16];

/// All keys that are found again.
pub(super) struct Keys {
    /// Those that no run holds yet.
    recent: HashMap<Key, u128>,
    /// Those being written, sorted.
    lot: Vec<(Key, u128)>,
    /// Oldest first.
    runs: Vec<Known>,
    /// Accepted messages since the line was moved.
    messages: u64,
    /// The first of them.
    oldest: Option<u128>,
    newest: u128,
    limit: u64,
    evicted: u64,
}

/// A run.
#[derive(Clone)]
struct Known {
    number: u64,
    newest: u128,
    keys: u64,
    filter: Filter,
}

/// Where to look for a key.
pub(super) enum Found {
    /// Here it is.
    Message(u128),
    /// In these runs, newest first, or nowhere.
    Perhaps(Vec<u64>),
}

/// A lot on its way into a run.
pub(super) struct Spill {
    lot: Vec<(Key, u128)>,
    written: usize,
    into: Known,
}

impl Keys {
    /// None yet; of which the last `limit` are to be found again.
    pub(super) fn new(limit: u64) -> Self {
        Self {
            recent: HashMap::new(),
            lot: Vec::new(),
            runs: Vec::new(),
            messages: 0,
            oldest: None,
            newest: 0,
            limit: limit.max(1),
            evicted: 0,
        }
    }

    /// Takes in what a commit has flushed: its messages and their keys.
    pub(super) fn flushed(&mut self, first: u128, last: u128, messages: u64, keys: &[(Key, u128)]) {
        self.messages += messages;
        self.oldest.get_or_insert(first);
        self.newest = self.newest.max(last);
        self.recent.extend(keys.iter().copied());
    }

    /// Where `key` is.
    pub(super) fn find(&self, key: &Key) -> Found {
        if let Some(id) = self.recent.get(key) {
            return Found::Message(*id);
        }
        if let Ok(at) = self.lot.binary_search_by_key(key, |(known, _)| *known) {
            return Found::Message(self.lot[at].1);
        }
        let runs = self.runs.iter().rev().filter(|run| run.filter.may_hold(key));
        Found::Perhaps(runs.map(|run| run.number).collect())
    }

    /// Messages whose keys were given up because of the limit.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Messages from here on must keep their rows: their keys are nowhere else.
    pub(super) fn unspilled_from(&self) -> Option<u128> {
        let lot = self.lot.iter().map(|(_, id)| *id).min();
        lot.or_else(|| self.recent.values().copied().min())
    }

    /// Begins a run when it is time to, or when `now_please`.
    pub(super) fn begin_spill(&mut self, now: Utc, now_please: bool) -> Option<Spill> {
        let old = self.oldest.is_some_and(|id| since(id, now) > UNSPILLED_TIME);
        let due = self.recent.len() as u64 >= self.lot_size()
            || self.messages >= UNSPILLED
            || old
            || (now_please && !self.recent.is_empty());
        if !due || self.messages == 0 && self.recent.is_empty() {
            return None;
        }
        self.lot = self.recent.drain().collect();
        self.lot.sort_unstable();
        let keys = self.lot.len() as u64;
        // A lot that is small because few messages have keys joins the run before it.
        let mut into = match self.runs.last() {
            Some(last) if last.keys + keys <= self.lot_size() => last.clone(),
            last => Known {
                number: last.map_or(0, |last| last.number + 1),
                newest: 0,
                keys: 0,
                filter: Filter::of(self.lot_size().max(keys)),
            },
        };
        into.newest = into.newest.max(self.newest);
        into.keys += keys;
        for (key, _) in &self.lot {
            into.filter.add(key);
        }
        self.messages = 0;
        self.oldest = None;
        Some(Spill { lot: self.lot.clone(), written: 0, into })
    }

    /// The run is whole and flushed.
    pub(super) fn end_spill(&mut self, spill: Spill) {
        self.lot = Vec::new();
        if spill.lot.is_empty() {
            return;
        }
        match self.runs.last_mut() {
            Some(last) if last.number == spill.into.number => *last = spill.into,
            _ => self.runs.push(spill.into),
        }
    }

    /// The oldest run, when nobody looks into it any more or the limit is reached.
    pub(super) fn run_to_drop(&self, now: Utc) -> Option<u64> {
        let held: u64 = self.runs.iter().map(|run| run.keys).sum();
        let all = held + self.lot.len() as u64 + self.recent.len() as u64;
        let oldest = self.runs.first()?;
        (all > self.limit || since(oldest.newest, now) > LIFE).then_some(oldest.number)
    }

    /// The run is gone.
    pub(super) fn dropped(&mut self, number: u64, now: Utc) {
        let Some(at) = self.runs.iter().position(|run| run.number == number) else { return };
        let run = self.runs.remove(at);
        if since(run.newest, now) <= LIFE {
            self.evicted += run.keys;
        }
    }

    /// A tenth of all, so that no more than that is given up at once.
    fn lot_size(&self) -> u64 {
        (self.limit / 10).clamp(1, LOT)
    }
}

impl Spill {
    /// Writes the next part; how far the run is then.
    pub(super) fn step(&self, txn: &WriteTransaction) -> Result<usize, Fault> {
        let end = self.lot.len().min(self.written + STEP);
        if !self.lot.is_empty() {
            let mut run = txn.open_table(Run::new(&tables::run_name(self.into.number)))?;
            for (key, id) in &self.lot[self.written..end] {
                run.insert(key, id)?;
            }
        }
        if end == self.lot.len() {
            if !self.lot.is_empty() {
                txn.open_table(FILTERS)?.insert(self.into.number, &*self.into.encode())?;
            }
            let line = self.into.newest.to_le_bytes();
            txn.open_table(META)?.insert(meta::SPILLED_UPTO, &line[..])?;
        }
        Ok(end)
    }

    /// The part is flushed; whether the run is whole.
    pub(super) fn stepped(&mut self, written: usize) -> bool {
        self.written = written;
        written == self.lot.len()
    }
}

/// Removes a run.
pub(super) fn drop_run(txn: &WriteTransaction, number: u64) -> Result<(), Fault> {
    txn.open_table(FILTERS)?.remove(number)?;
    txn.delete_table(Run::new(&tables::run_name(number)))?;
    Ok(())
}

/// Looks a key up in these runs.
pub(super) fn look_up(
    txn: &ReadTransaction,
    runs: &[u64],
    key: &Key,
) -> Result<Option<u128>, Fault> {
    for number in runs {
        let run = match txn.open_table(Run::new(&tables::run_name(*number))) {
            Ok(run) => run,
            // Dropped since the filter was asked.
            Err(TableError::TableDoesNotExist(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        if let Some(id) = run.get(key)? {
            return Ok(Some(id.value()));
        }
    }
    Ok(None)
}

/// Whether a message found by key is young enough.
pub(super) fn is_alive(id: u128, now: Utc) -> bool {
    since(id, now) <= LIFE
}

/// Finds the runs and reads the keys that are in none. Runs that are not whole
/// are removed.
pub(super) fn load(db: &redb::Database, limit: u64) -> Result<Keys, Fault> {
    let mut keys = Keys::new(limit);
    let txn = db.begin_read()?;
    for row in txn.open_table(FILTERS)?.range::<u64>(..)? {
        let (number, row) = row?;
        keys.runs.extend(Known::decode(number.value(), row.value()));
    }
    let spilled_upto = txn
        .open_table(META)?
        .get(meta::SPILLED_UPTO)?
        .and_then(|row| Some(u128::from_le_bytes(row.value().try_into().ok()?)))
        .unwrap_or(0);
    let from = spilled_upto.saturating_sub(first_at(millis(DISORDER)));
    let mut whole_less = Vec::new();
    let mut hours = Vec::new();
    for table in txn.list_tables()? {
        let name = redb::TableHandle::name(&table);
        hours.extend(tables::hour_of_name(name).filter(|hour| *hour >= tables::hour(from)));
        let run = tables::run_of_name(name);
        whole_less.extend(run.filter(|n| keys.runs.iter().all(|run| run.number != *n)));
    }
    hours.sort_unstable();
    hours.dedup();
    for hour in hours {
        read_unspilled(&txn, hour, from, &mut keys)?;
    }
    drop(txn);
    if !whole_less.is_empty() {
        let txn = db.begin_write()?;
        for number in whole_less {
            drop_run(&txn, number)?;
        }
        txn.commit()?;
    }
    Ok(keys)
}

fn read_unspilled(
    txn: &ReadTransaction,
    hour: tables::Hour,
    from: u128,
    keys: &mut Keys,
) -> Result<(), Fault> {
    let table = match txn.open_table(tables::Rows::new(&tables::messages_name(hour))) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for row in table.range(from..)? {
        let (id, row) = row?;
        let id = id.value();
        // One that cannot be decoded is set aside when it is needed.
        let key = record::decode_message_head(row.value()).ok().and_then(|head| head.key);
        match key {
            Some(key) => keys.flushed(id, id, 1, &[(key, id)]),
            None => keys.flushed(id, id, 1, &[]),
        }
    }
    Ok(())
}

fn since(id: u128, now: Utc) -> Duration {
    now.since(Utc::from_ms((id >> 80) as u64))
}

impl Known {
    fn encode(&self) -> Vec<u8> {
        let words = self.filter.0.iter().flat_map(|word| word.to_le_bytes());
        let head = self.newest.to_le_bytes().into_iter().chain(self.keys.to_le_bytes());
        head.chain(words).collect()
    }

    fn decode(number: u64, row: &[u8]) -> Option<Self> {
        let (newest, rest) = row.split_first_chunk()?;
        let (keys, words) = rest.split_first_chunk()?;
        let words = words.as_chunks().0;
        Some(Self {
            number,
            newest: u128::from_le_bytes(*newest),
            keys: u64::from_le_bytes(*keys),
            filter: Filter(words.iter().map(|word| u64::from_le_bytes(*word)).collect()),
        })
    }
}

/// A Bloom filter: 12 bits and 7 probes for each key make one miss in 300 read
/// a run for nothing. Keys are hashes already, so their halves do for hashing
/// (Kirsch and Mitzenmacher, "Less Hashing, Same Performance").
#[derive(Clone)]
struct Filter(Vec<u64>);

impl Filter {
    const BITS_PER_KEY: u64 = 12;
    const PROBES: u64 = 7;

    fn of(keys: u64) -> Self {
        let words = (keys * Self::BITS_PER_KEY).div_ceil(64);
        Self(vec![0; usize::try_from(words).unwrap_or(usize::MAX)])
    }

    fn add(&mut self, key: &Key) {
        for bit in self.bits(key) {
            self.0[bit / 64] |= 1 << (bit % 64);
        }
    }

    fn may_hold(&self, key: &Key) -> bool {
        !self.0.is_empty() && self.bits(key).all(|bit| self.0[bit / 64] & (1 << (bit % 64)) != 0)
    }

    fn bits(&self, key: &Key) -> impl Iterator<Item = usize> + use<> {
        let number = u128::from_le_bytes(*key);
        let (first, step) = (number as u64, (number >> 64) as u64 | 1);
        let bits = self.0.len() as u64 * 64;
        (0..Self::PROBES).map(move |n| (first.wrapping_add(n.wrapping_mul(step)) % bits) as usize)
    }
}
