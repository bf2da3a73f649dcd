//! The one promise about order: an older message never follows a newer one of
//! the same client, address and collapse key onto a device.
//!
//! Kept in memory, for unsettled deliveries only. When a newer one is picked the
//! older ones that are not in flight are superseded, and only one is in flight at
//! a time: the next waits until that one has landed.

use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hash, Hasher};

use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;

use super::deliveries::StubRef;
use crate::model::{Message, MessageId, Recipient};

/// (client, address, collapse key), as a hash. Two that collide only wait for
/// each other; with 64 bits and two million deliveries that is one in ten million.
type Slot = u64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Collapse {
    /// Unsettled deliveries, oldest first.
    slots: HashMap<Slot, SmallVec<[(MessageId, StubRef); 2]>>,
    of: HashMap<StubRef, (MessageId, SmallVec<[Slot; 1]>)>,
    /// Who is in flight, by slot: at most one.
    flying: HashMap<Slot, (MessageId, StubRef)>,
}

impl Collapse {
    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.of.is_empty() && self.flying.is_empty()
    }

    /// A delivery of a message with a collapse key is unsettled.
    pub(super) fn join(&mut self, at: StubRef, message: &Message, recipient: &Recipient) {
        let Some(key) = &message.push.collapse_key else { return };
        let mut slots: SmallVec<[Slot; 1]> = SmallVec::new();
        for address in &recipient.addresses {
            let mut hasher = DefaultHasher::new();
            (&*message.client, key, address.kind().name).hash(&mut hasher);
            address.values().for_each(|value| value.hash(&mut hasher));
            let slot = hasher.finish();
            if !slots.contains(&slot) {
                slots.push(slot);
            }
        }
        for slot in &slots {
            self.slots.entry(*slot).or_default().push((message.id, at));
        }
        self.of.insert(at, (message.id, slots));
    }

    /// It is in flight.
    pub(super) fn take_off(&mut self, at: StubRef) {
        let Some((message, slots)) = self.of.get(&at) else { return };
        self.flying.extend(slots.iter().map(|slot| (*slot, (*message, at))));
    }

    /// It is so no more.
    pub(super) fn land(&mut self, at: StubRef) {
        let Some((_, slots)) = self.of.get(&at) else { return };
        for slot in slots {
            if self.flying.get(slot).is_some_and(|(_, flying)| *flying == at) {
                self.flying.remove(slot);
            }
        }
    }

    /// The others of its slots that are in flight. A message may name an address a
    /// thousand times, so the others are not looked through for each of them.
    pub(super) fn in_flight(&self, at: StubRef) -> SmallVec<[(StubRef, Age); 1]> {
        let Some((message, slots)) = self.of.get(&at) else { return SmallVec::new() };
        let flying = slots.iter().filter_map(|slot| self.flying.get(slot));
        let others = flying.filter(|(_, flying)| *flying != at);
        others.map(|(other, flying)| (*flying, Age::of(*other, *message))).collect()
    }

    /// It has settled.
    pub(super) fn leave(&mut self, at: StubRef) {
        let Some((_, slots)) = self.of.remove(&at) else { return };
        for slot in slots {
            if let Some(members) = self.slots.get_mut(&slot) {
                members.retain(|(_, member)| *member != at);
                if members.is_empty() {
                    self.slots.remove(&slot);
                }
            }
        }
    }

    /// The others of its slots, each with its age. By the messages' ids and not by
    /// the order of joining: a message in memory joins before an older one that
    /// waits for the disk.
    pub(super) fn others(&self, at: StubRef) -> SmallVec<[(StubRef, Age); 2]> {
        let mut found: SmallVec<[(StubRef, Age); 2]> = SmallVec::new();
        let Some((message, slots)) = self.of.get(&at) else { return found };
        // In one slot each stands once. A set: a message may name an address a thousand times.
        let several = slots.len() > 1;
        let mut known = HashSet::new();
        for slot in slots {
            for (other, member) in self.slots.get(slot).into_iter().flatten() {
                if *member != at && (!several || known.insert(*member)) {
                    found.push((*member, Age::of(*other, *message)));
                }
            }
        }
        found
    }
}

/// Whether another delivery's message was accepted before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// It came before.
    Older,
    /// It is of the same message, to the same address once more.
    Same,
    /// It came after.
    Newer,
}

impl Age {
    fn of(other: MessageId, mine: MessageId) -> Self {
        match other.cmp(&mine) {
            Ordering::Less => Self::Older,
            Ordering::Equal => Self::Same,
            Ordering::Greater => Self::Newer,
        }
    }
}

#[cfg(test)]
#[path = "collapse_tests.rs"]
mod tests;
