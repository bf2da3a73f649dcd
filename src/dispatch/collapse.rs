//! The one promise about order: an older message never follows a newer one of
//! the same client, address and collapse key onto a device.
//!
//! Kept in memory, for unsettled deliveries only. When a newer one is picked the
//! older ones that are not in flight are superseded, and only one is in flight at
//! a time: the next waits until that one has landed.

use std::hash::{DefaultHasher, Hash, Hasher};

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::deliveries::StubRef;
use crate::model::{Message, Recipient};

/// (client, address, collapse key), as a hash. Two that collide only wait for
/// each other; with 64 bits and two million deliveries that is one in ten million.
type Slot = u64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Collapse {
    /// Unsettled deliveries, oldest first.
    slots: HashMap<Slot, SmallVec<[StubRef; 2]>>,
    of: HashMap<StubRef, SmallVec<[Slot; 1]>>,
}

impl Collapse {
    /// A delivery of a message with a collapse key is unsettled.
    pub(super) fn join(&mut self, at: StubRef, message: &Message, recipient: &Recipient) {
        let Some(key) = &message.push.collapse_key else { return };
        let slots: SmallVec<[Slot; 1]> = recipient
            .addresses
            .iter()
            .map(|address| {
                let mut hasher = DefaultHasher::new();
                (&*message.client, key, address.kind().name).hash(&mut hasher);
                address.values().for_each(|value| value.hash(&mut hasher));
                hasher.finish()
            })
            .collect();
        for slot in &slots {
            self.slots.entry(*slot).or_default().push(at);
        }
        self.of.insert(at, slots);
    }

    /// It has settled.
    pub(super) fn leave(&mut self, at: StubRef) {
        for slot in self.of.remove(&at).unwrap_or_default() {
            if let Some(members) = self.slots.get_mut(&slot) {
                members.retain(|member| *member != at);
                if members.is_empty() {
                    self.slots.remove(&slot);
                }
            }
        }
    }

    /// The others of its slots, each with whether it is older.
    pub(super) fn others(&self, at: StubRef) -> SmallVec<[(StubRef, Age); 2]> {
        let mut found: SmallVec<[(StubRef, Age); 2]> = SmallVec::new();
        for slot in self.of.get(&at).into_iter().flatten() {
            let mut age = Age::Older;
            for member in self.slots.get(slot).into_iter().flatten() {
                if *member == at {
                    age = Age::Newer;
                } else if !found.iter().any(|(known, _)| known == member) {
                    found.push((*member, age));
                }
            }
        }
        found
    }
}

/// Which of two messages was accepted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// It came before.
    Older,
    /// It came after.
    Newer,
}
