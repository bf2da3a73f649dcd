//! The store of the world: what was handed over waits, a flush makes the first
//! so many of it durable, and a crash forgets the rest.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use pushyard::clock::Utc;
use pushyard::dispatch::Found;
use pushyard::model::{Body, DeliveryId, Gone, MessageId, Progress};
use pushyard::routing::Remembered;
use pushyard::store::{Intent, Record, Recovered};

/// A message as it is on disk.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) body: Arc<Body>,
    pub(super) progress: BTreeMap<u16, Progress>,
    pub(super) intents: BTreeMap<u16, Intent>,
    pub(super) open: bool,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pending: VecDeque<Record>,
    /// Records durable since it was opened.
    flushed: u64,
    pub(super) messages: BTreeMap<MessageId, Stored>,
    notes: BTreeMap<String, Vec<u8>>,
    pub(super) gone: BTreeMap<u128, Arc<Gone>>,
}

impl Disk {
    pub(super) fn submit(&mut self, record: Record) {
        self.pending.push_back(record);
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Makes the next `count` durable; says how many are since it was opened,
    /// and which those were.
    pub(super) fn flush(&mut self, count: usize) -> (u64, Vec<Record>) {
        let count = count.min(self.pending.len());
        let records: Vec<Record> = self.pending.drain(..count).collect();
        for record in &records {
            self.apply(record);
        }
        self.flushed += records.len() as u64;
        (self.flushed, records)
    }

    /// What was not durable is lost; the file is opened anew.
    pub(super) fn crash(&mut self) {
        self.pending.clear();
        self.flushed = 0;
    }

    /// Whether the vendor may be called for an attempt that was written down.
    pub(super) fn has_intent(&self, id: DeliveryId) -> bool {
        self.messages.get(&id.message()).is_some_and(|m| m.intents.contains_key(&id.n()))
    }

    /// What a start finds: messages with something unsettled, oldest first.
    pub(super) fn recovered(&self) -> Vec<Recovered> {
        self.messages
            .values()
            .filter(|stored| stored.open)
            .map(|stored| Recovered {
                message: stored.body.message().clone(),
                progress: stored.progress.iter().map(|(n, p)| (*n, p.clone())).collect(),
                intents: stored.intents.iter().map(|(n, i)| (*n, i.clone())).collect(),
            })
            .collect()
    }

    /// What a look at one delivery finds.
    pub(super) fn find(&self, id: DeliveryId) -> Option<Found> {
        let stored = self.messages.get(&id.message())?;
        let progress = stored.progress.get(&id.n()).cloned();
        Some(Found { body: Body::new(stored.body.message().clone()), progress })
    }

    /// Orders of operators.
    pub(super) fn orders(&self) -> Vec<(String, Vec<u8>)> {
        let kinds = ["operator/", "pause/", "override/"];
        let orders = self.notes.iter().filter(|(n, _)| kinds.iter().any(|k| n.starts_with(k)));
        orders.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Since when addresses are gone.
    pub(super) fn gone_since(&self) -> BTreeMap<u128, Utc> {
        self.gone.iter().map(|(key, gone)| (*key, gone.at)).collect()
    }

    pub(super) fn remembered(&self) -> Vec<Remembered> {
        let keys = self.notes.iter().filter(|(name, _)| name.starts_with("key/"));
        keys.map(|(_, value)| serde_json::from_slice(value).unwrap()).collect()
    }

    fn apply(&mut self, record: &Record) {
        match record {
            Record::Accept(body) => {
                let (body, open) = (body.clone(), true);
                let (progress, intents) = (BTreeMap::new(), BTreeMap::new());
                let stored = Stored { body, progress, intents, open };
                self.messages.insert(stored.body.message().id, stored);
            }
            Record::Intent(id, intent) => {
                self.stored(*id).intents.insert(id.n(), intent.clone());
            }
            Record::Progress(id, progress) => {
                let stored = self.stored(*id);
                stored.intents.remove(&id.n());
                stored.open |= !progress.state.settled();
                stored.progress.insert(id.n(), (**progress).clone());
            }
            Record::Settled(id) => {
                let stored = self.messages.get_mut(id).expect("a settled message was accepted");
                stored.open = false;
            }
            Record::Gone(gone) => {
                self.gone.insert(gone.key(), gone.clone());
            }
            Record::Healed(key) => {
                self.gone.remove(key);
            }
            // The world has no users.
            Record::Device(..) | Record::Erase(..) => {}
            Record::Note(name, Some(value)) => {
                self.notes.insert(name.clone(), value.clone());
            }
            Record::Event(..) => {}
            Record::Note(name, None) => {
                self.notes.remove(name);
            }
        }
    }

    fn stored(&mut self, id: DeliveryId) -> &mut Stored {
        self.messages.get_mut(&id.message()).expect("a delivery's message was accepted before")
    }
}
