//! What arrived, how often, and whether it should have.
//!
//! This is the judge of "never lost, duplicated only when unknown", so it must
//! neither miss an arrival nor grow without bound, and it must be cheap: it is
//! written to for every push of a benchmark. A delivery is known by 128 bits:
//! its id when that is a UUID (the router's are), else a digest of its text,
//! which is then kept for showing. Copies are counted in shards, so that two
//! cores seldom wait for each other; the order of first arrivals is one list,
//! which only a first copy has to lock.

use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest;
use hashbrown::{HashMap, HashSet};
use serde::Serialize;

use crate::clock;

const SHARDS: usize = 16;

/// One delivery as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Id(u128),
    Text(String),
}

impl Key {
    /// Reads a delivery id.
    pub(crate) fn of(text: &str) -> Self {
        // Only the canonical form: any other spelling has to be shown again as
        // it was, or a caller would not find its own id.
        match uuid::Uuid::try_parse(text) {
            Ok(id) if text.len() == 36 && !text.bytes().any(|b| b.is_ascii_uppercase()) => {
                Self::Id(id.as_u128())
            }
            _ => Self::Text(text.to_owned()),
        }
    }

    /// Reads the `pushyard` string, `<delivery id>.<secret>`.
    pub(crate) fn of_pushyard(text: &str) -> Self {
        Self::of(text.split_once('.').map_or(text, |(id, _)| id))
    }

    fn number(&self) -> u128 {
        match self {
            Self::Id(id) => *id,
            Self::Text(text) => {
                let digest = digest::digest(&digest::SHA256, text.as_bytes());
                let mut first = [0; 16];
                first.copy_from_slice(&digest.as_ref()[..16]);
                u128::from_be_bytes(first)
            }
        }
    }
}

/// A delivery that arrived.
#[derive(Clone, Debug, Serialize)]
pub struct Arrival {
    /// The delivery id; where a push had none, its `apns-id` or a made-up name.
    pub delivery: String,
    /// The vendor that it arrived at first.
    pub vendor: &'static str,
    /// How often it was taken, over all vendors.
    pub copies: u32,
    /// When it was first taken: RFC 3339, UTC.
    pub first_at: String,
}

/// One page of arrivals, in the order in which they were first taken.
#[derive(Clone, Debug, Serialize)]
pub struct Arrivals {
    /// The arrivals.
    pub items: Vec<Arrival>,
    /// Where the next page begins; `None` when nothing more has arrived yet.
    pub next: Option<String>,
}

/// The ledger's verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Different deliveries that arrived.
    pub unique: u64,
    /// Copies beyond the first.
    pub duplicates: u64,
    /// Deliveries that were expected and have not arrived.
    pub lost: u64,
    /// Deliveries that arrived and were not expected; zero while nothing was
    /// ever expected.
    pub unexpected: u64,
    /// Pushes that the ledger was too full to tell apart. While this is not
    /// zero the other figures are lower bounds.
    pub untracked: u64,
}

/// Everything that was taken since the last reset.
pub(crate) struct Ledger {
    shards: [Mutex<HashMap<u128, u32>>; SHARDS],
    order: Mutex<Order>,
    expected: Mutex<HashSet<u128>>,
    capacity: usize,
}

#[derive(Default)]
struct Order {
    firsts: Vec<First>,
    names: HashMap<u128, String>,
    untracked: u64,
}

#[derive(Clone, Copy)]
struct First {
    number: u128,
    at_ms: u64,
    vendor: &'static str,
}

impl Ledger {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            order: Mutex::default(),
            expected: Mutex::default(),
            capacity,
        }
    }

    /// Takes a push.
    pub(crate) fn record(&self, key: Key, vendor: &'static str, at_ms: u64) {
        let number = key.number();
        if let Some(copies) = lock(self.shard(number)).get_mut(&number) {
            *copies = copies.saturating_add(1);
            return;
        }
        // The list is locked first and the shard again under it, so that two
        // first copies at once cannot both enter it.
        let mut order = lock(&self.order);
        let mut shard = lock(self.shard(number));
        if let Some(copies) = shard.get_mut(&number) {
            *copies = copies.saturating_add(1);
        } else if order.firsts.len() >= self.capacity {
            order.untracked += 1;
        } else {
            shard.insert(number, 1);
            order.firsts.push(First { number, at_ms, vendor });
            if let Key::Text(text) = key {
                order.names.insert(number, text);
            }
        }
    }

    /// Adds deliveries that ought to arrive.
    pub(crate) fn expect(&self, keys: impl IntoIterator<Item = Key>) {
        let mut expected = lock(&self.expected);
        expected.extend(keys.into_iter().map(|key| key.number()));
    }

    pub(crate) fn arrivals(&self, from: usize, limit: usize) -> Arrivals {
        let (firsts, names, total) = {
            let order = lock(&self.order);
            let from = from.min(order.firsts.len());
            let to = from.saturating_add(limit).min(order.firsts.len());
            let firsts = order.firsts[from..to].to_vec();
            let names: Vec<_> =
                firsts.iter().map(|first| order.names.get(&first.number).cloned()).collect();
            (firsts, names, order.firsts.len())
        };
        let end = from.saturating_add(firsts.len());
        let items = firsts
            .iter()
            .zip(names)
            .map(|(first, name)| Arrival {
                delivery: name.unwrap_or_else(|| uuid::Uuid::from_u128(first.number).to_string()),
                vendor: first.vendor,
                copies: self.copies(first.number),
                first_at: clock::rfc3339(first.at_ms),
            })
            .collect();
        Arrivals { items, next: (end < total).then(|| end.to_string()) }
    }

    pub(crate) fn summary(&self) -> Summary {
        let expected = lock(&self.expected);
        let mut summary = Summary { untracked: lock(&self.order).untracked, ..Summary::default() };
        let mut met = 0;
        for shard in &self.shards {
            for (number, copies) in lock(shard).iter() {
                summary.unique += 1;
                summary.duplicates += u64::from(copies - 1);
                met += u64::from(expected.contains(number));
            }
        }
        if !expected.is_empty() {
            summary.lost = (expected.len() as u64).saturating_sub(met);
            summary.unexpected = summary.unique - met;
        }
        summary
    }

    pub(crate) fn reset(&self) {
        lock(&self.expected).clear();
        let mut order = lock(&self.order);
        for shard in &self.shards {
            *lock(shard) = HashMap::new();
        }
        *order = Order::default();
    }

    fn copies(&self, number: u128) -> u32 {
        lock(self.shard(number)).get(&number).copied().unwrap_or(0)
    }

    fn shard(&self, number: u128) -> &Mutex<HashMap<u128, u32>> {
        // The last bits of a UUID are random in every version in use.
        &self.shards[(number % SHARDS as u128) as usize]
    }
}

/// A panic elsewhere leaves no half-made state behind these locks: each holder
/// makes one change.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "01970000-0000-7000-8000-000000000001";
    const TWO: &str = "01970000-0000-7000-8000-000000000002";

    #[test]
    fn copies_beyond_the_first_are_duplicates() {
        let ledger = Ledger::new(10);
        for (text, vendor) in [(ONE, "apns"), (ONE, "fcm"), (TWO, "fcm")] {
            ledger.record(Key::of_pushyard(&format!("{text}.secret")), vendor, 1);
        }
        let summary = ledger.summary();
        assert_eq!((summary.unique, summary.duplicates), (2, 1));
        let page = ledger.arrivals(0, 10);
        assert_eq!(page.items[0].delivery, ONE);
        assert_eq!((page.items[0].copies, page.items[0].vendor), (2, "apns"));
        assert_eq!(page.next, None);
    }

    #[test]
    fn expectations_find_the_lost_and_the_unexpected() {
        let ledger = Ledger::new(10);
        ledger.record(Key::of(ONE), "apns", 1);
        ledger.record(Key::of("some-text"), "apns", 1);
        assert_eq!(ledger.summary().unexpected, 0);
        ledger.expect([Key::of(ONE), Key::of(TWO)]);
        let summary = ledger.summary();
        assert_eq!((summary.lost, summary.unexpected), (1, 1));
    }

    #[test]
    fn pages_follow_the_order_of_arrival() {
        let ledger = Ledger::new(10);
        for text in ["c", "a", "b"] {
            ledger.record(Key::of(text), "apns", 1);
        }
        let page = ledger.arrivals(0, 2);
        assert_eq!(page.items[0].delivery, "c");
        assert_eq!(page.next.as_deref(), Some("2"));
        assert_eq!(ledger.arrivals(2, 2).items[0].delivery, "b");
    }

    #[test]
    fn full_ledger_counts_what_it_cannot_tell_apart() {
        let ledger = Ledger::new(1);
        for text in ["a", "b", "a"] {
            ledger.record(Key::of(text), "apns", 1);
        }
        let summary = ledger.summary();
        assert_eq!((summary.unique, summary.duplicates, summary.untracked), (1, 1, 1));
    }

    #[test]
    fn reset_forgets_arrivals_and_expectations() {
        let ledger = Ledger::new(10);
        ledger.record(Key::of(ONE), "apns", 1);
        ledger.expect([Key::of(TWO)]);
        ledger.reset();
        assert_eq!(ledger.summary(), Summary::default());
    }
}
