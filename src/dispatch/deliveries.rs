//! Every unsettled delivery in 40 bytes, and its message in 48.
//!
//! The store is the truth; this is its index. A slow provider with a million
//! waiting deliveries costs disk and not memory, because bodies and addresses
//! are read back when they are needed ([`Entry::body`] is a window on them).
//! A stub is in one list at a time (a lane, a provider's ready queue, or none),
//! linked through the stubs themselves, so taking one out of the middle
//! (cancelled, expired, superseded) costs the same as taking the first.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashTable;
use pushyard_providers::{Outcome, Priority};
use smallvec::SmallVec;

use crate::clock::{Utc, millis};
use crate::model::{
    Body, DeliveryId, Durability, Message, MessageId, OnAmbiguous, Progress, Reason, State,
};
use crate::routing::ProviderIndex;

/// No stub, no entry.
pub(super) const NONE: u32 = u32::MAX;

/// A delivery's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct StubRef(pub(super) u32);

/// A message's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct EntryRef(pub(super) u32);

/// A client's position; clients are few.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ClientIndex(pub(super) u16);

/// A shape's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ShapeIndex(pub(super) u32);

/// Where a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In no list, and about to be put somewhere.
    Nowhere,
    /// In its lane: ready, or parked while no candidate is usable.
    Lane,
    /// Assigned to a provider's n-th candidate, waiting for a permit.
    Ready(ProviderIndex, u8),
    /// Its body is being read back.
    Loading,
    /// An attempt is in flight, or its intent is being written.
    Flight,
    /// Waiting for a time.
    Timer,
    /// Waiting for another delivery of its collapse key to land.
    Held,
    /// It may have ended the process before: waiting for its turn to go alone.
    Suspect,
    /// Settled; its record is on its way to the disk.
    Settled,
    /// Free.
    Free,
}

/// One unsettled delivery.
#[derive(Debug)]
pub(super) struct Stub {
    /// What has been tried; `None` while nothing has.
    pub(super) track: Option<Box<Track>>,
    pub(super) message: EntryRef,
    pub(super) shape: ShapeIndex,
    prev: u32,
    next: u32,
    sibling_prev: u32,
    sibling_next: u32,
    pub(super) n: u16,
    pub(super) place: Place,
    /// Its body was read back for its turn, which is counted: it goes next in its lane.
    pub(super) called: bool,
}

/// What has been tried of a delivery.
#[derive(Debug)]
pub(super) struct Track {
    /// Its record.
    pub(super) progress: Progress,
    /// Candidates of this round.
    pub(super) tried: SmallVec<[(ProviderIndex, u8); 2]>,
    /// Whether one of them failed, so that trying again at once would fail again.
    pub(super) failed: bool,
    /// Candidates that must rest until a moment.
    pub(super) resting: SmallVec<[(ProviderIndex, u8, Utc); 2]>,
    /// The candidate to repeat at, when that may replace or drop the copy.
    pub(super) repeat: Option<(ProviderIndex, u8)>,
    /// Whether the last attempt was such a repeat.
    pub(super) repeated: bool,
    /// The provider and outcome of the last attempt, until another one begins.
    pub(super) last: Option<(ProviderIndex, Outcome)>,
    /// Taken back while an attempt is in flight.
    pub(super) cancelled: bool,
    /// The device said that it has it while an attempt is in flight.
    pub(super) delivered: bool,
    /// May have ended the process before, and is the only such one that goes now.
    pub(super) alone: bool,
    /// A newer message of its collapse key has been picked meanwhile.
    pub(super) superseded: bool,
    /// Goes to all of a tier, and not all of that is over.
    pub(super) fan: Option<Fan>,
    /// Its client has been told that it is sent, and others of its tier are to come.
    pub(super) told_sent: bool,
    /// Had its last try, because nothing was usable and its life nearly over.
    pub(super) last_tried: bool,
}

/// A delivery that goes to all of a tier.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fan {
    /// Which tier.
    pub(super) tier: u8,
    /// Attempts in flight.
    pub(super) out: u8,
    /// Whether a vendor has it.
    pub(super) accepted: bool,
    /// How it ends if no vendor takes it, where that is known already.
    pub(super) end: Option<(State, Option<Reason>)>,
    /// A candidate is left for another round.
    pub(super) left: bool,
}

impl Track {
    pub(super) fn new(progress: Progress) -> Self {
        Self {
            progress,
            tried: SmallVec::new(),
            failed: false,
            resting: SmallVec::new(),
            repeat: None,
            repeated: false,
            last: None,
            cancelled: false,
            delivered: false,
            alone: false,
            superseded: false,
            fan: None,
            told_sent: false,
            last_tried: false,
        }
    }
}

/// One message with something unsettled.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: MessageId,
    pub(super) body: Option<Arc<Body>>,
    delay_ms: u32,
    ttl_ms: u32,
    first: u32,
    pub(super) unsettled: u16,
    pub(super) unflushed: u16,
    pub(super) client: ClientIndex,
    pub(super) policy: Policy,
}

/// What a message asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub(super) priority: Priority,
    pub(super) on_ambiguous: OnAmbiguous,
    pub(super) durability: Durability,
    pub(super) collapses: bool,
}

impl Entry {
    fn new(message: &Message, client: ClientIndex) -> Self {
        let delay = message.not_before().since(message.id.accepted_at());
        Self {
            id: message.id,
            body: None,
            // 28 days are below 2^32 ms; validation allows no more.
            delay_ms: u32::try_from(millis(delay)).unwrap_or(u32::MAX),
            ttl_ms: u32::try_from(millis(message.ttl)).unwrap_or(u32::MAX),
            first: NONE,
            unsettled: 0,
            unflushed: 0,
            client,
            policy: Policy {
                priority: message.push.priority,
                on_ambiguous: message.on_ambiguous,
                durability: message.durability,
                collapses: message.push.collapse_key.is_some(),
            },
        }
    }

    pub(super) fn not_before(&self) -> Utc {
        Utc::from_ms(self.id.accepted_at().ms() + u64::from(self.delay_ms))
    }

    pub(super) fn now_or_never(&self) -> bool {
        self.ttl_ms == 0
    }

    pub(super) fn expires_at(&self) -> Utc {
        Utc::from_ms(self.not_before().ms() + u64::from(self.ttl_ms))
    }

    /// See [`Message::dispatch_until`].
    pub(super) fn dispatch_until(&self) -> Utc {
        if self.now_or_never() {
            self.not_before().plus(Message::NOW_OR_NEVER)
        } else {
            self.expires_at()
        }
    }
}

/// A list of stubs, linked through them.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    head: u32,
    tail: u32,
    len: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { head: NONE, tail: NONE, len: 0 }
    }
}

impl List {
    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn first(&self) -> Option<StubRef> {
        (self.head != NONE).then_some(StubRef(self.head))
    }

    pub(super) fn last(&self) -> Option<StubRef> {
        (self.tail != NONE).then_some(StubRef(self.tail))
    }

    pub(super) fn push_back(&mut self, stubs: &mut Stubs, at: StubRef) {
        stubs[at].prev = self.tail;
        stubs[at].next = NONE;
        match self.last() {
            Some(last) => stubs[last].next = at.0,
            None => self.head = at.0,
        }
        self.tail = at.0;
        self.len += 1;
    }

    pub(super) fn push_front(&mut self, stubs: &mut Stubs, at: StubRef) {
        stubs[at].next = self.head;
        stubs[at].prev = NONE;
        match self.first() {
            Some(first) => stubs[first].prev = at.0,
            None => self.tail = at.0,
        }
        self.head = at.0;
        self.len += 1;
    }

    pub(super) fn remove(&mut self, stubs: &mut Stubs, at: StubRef) {
        let (prev, next) = (stubs[at].prev, stubs[at].next);
        match prev {
            NONE => self.head = next,
            _ => stubs[StubRef(prev)].next = next,
        }
        match next {
            NONE => self.tail = prev,
            _ => stubs[StubRef(next)].prev = prev,
        }
        (stubs[at].prev, stubs[at].next) = (NONE, NONE);
        self.len -= 1;
    }
}

/// All stubs; freed places are used again. In chunks, because one vector would be
/// copied whole when it grows: 40 MB at a million, while everything waits.
#[derive(Debug, Default)]
pub(super) struct Stubs {
    chunks: Vec<Vec<Stub>>,
    free: Vec<u32>,
}

/// Stubs in a chunk: 160 KiB.
const CHUNK: usize = 4096;

impl std::ops::Index<StubRef> for Stubs {
    type Output = Stub;

    fn index(&self, at: StubRef) -> &Stub {
        &self.chunks[at.0 as usize / CHUNK][at.0 as usize % CHUNK]
    }
}

impl std::ops::IndexMut<StubRef> for Stubs {
    fn index_mut(&mut self, at: StubRef) -> &mut Stub {
        &mut self.chunks[at.0 as usize / CHUNK][at.0 as usize % CHUNK]
    }
}

impl Stubs {
    fn insert(&mut self, stub: Stub) -> StubRef {
        if let Some(at) = self.free.pop().map(StubRef) {
            self[at] = stub;
            return at;
        }
        // max_unsettled keeps this far below 2^32.
        let at = StubRef(self.len() as u32);
        match self.chunks.last_mut().filter(|last| last.len() < CHUNK) {
            Some(last) => last.push(stub),
            None => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(stub);
                self.chunks.push(chunk);
            }
        }
        at
    }

    /// Places, free ones among them.
    fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }

    /// The one behind in its list.
    pub(super) fn after(&self, at: StubRef) -> Option<StubRef> {
        let next = self[at].next;
        (next != NONE).then_some(StubRef(next))
    }

    fn remove(&mut self, at: StubRef) {
        self[at].place = Place::Free;
        self[at].track = None;
        self.free.push(at.0);
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    pub(super) stubs: Stubs,
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    by_id: HashTable<u32>,
    /// (dispatch_until in ms, message), for messages with something unsettled.
    expiry: BTreeSet<(u64, EntryRef)>,
    /// (next_at in ms, delivery).
    timers: BTreeSet<(u64, StubRef)>,
    /// (dispatch_until in ms, delivery) of those that an operator had tried again:
    /// they have a life of their own.
    replayed: BTreeSet<(u64, StubRef)>,
    unsettled: u64,
}

impl Deliveries {
    /// Unsettled deliveries.
    pub(super) fn unsettled(&self) -> u64 {
        self.unsettled
    }

    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.stubs.len() == self.stubs.free.len()
            && self.entries.len() == self.free.len()
            && self.by_id.is_empty()
            && self.expiry.is_empty()
            && self.timers.is_empty()
            && self.replayed.is_empty()
            && self.unsettled == 0
    }

    /// Takes a message in, without deliveries yet.
    pub(super) fn add_message(&mut self, message: &Message, client: ClientIndex) -> EntryRef {
        let entry = Entry::new(message, client);
        let until = entry.dispatch_until().ms();
        let at = match self.free.pop() {
            Some(at) => at,
            None => {
                self.entries.push(None);
                self.entries.len() as u32 - 1
            }
        };
        self.entries[at as usize] = Some(entry);
        let entries = &self.entries;
        self.by_id.insert_unique(hash(message.id), at, |other| {
            entries[*other as usize].as_ref().map_or(0, |entry| hash(entry.id))
        });
        self.expiry.insert((until, EntryRef(at)));
        EntryRef(at)
    }

    /// When a delivery's life began: with its message's, or with its replay.
    pub(super) fn not_before(&self, at: StubRef) -> Utc {
        self.replayed_at(at).unwrap_or_else(|| self.message_of(at).not_before())
    }

    /// When a delivery's life ends, as its vendor is told.
    pub(super) fn expires_at(&self, at: StubRef) -> Utc {
        let entry = self.message_of(at);
        let ttl = u64::from(entry.ttl_ms);
        self.replayed_at(at).map_or_else(|| entry.expires_at(), |at| Utc::from_ms(at.ms() + ttl))
    }

    /// No attempt at a delivery begins from then on; see [`Message::dispatch_until`].
    pub(super) fn dispatch_until(&self, at: StubRef) -> Utc {
        let entry = self.message_of(at);
        match self.replayed_at(at) {
            Some(at) if entry.now_or_never() => at.plus(Message::NOW_OR_NEVER),
            Some(_) => self.expires_at(at),
            None => entry.dispatch_until(),
        }
    }

    /// What goes first: a replay is never urgent.
    pub(super) fn priority(&self, at: StubRef) -> Priority {
        let priority = self.message_of(at).policy.priority;
        self.replayed_at(at).map_or(priority, |_| Priority::Normal)
    }

    fn replayed_at(&self, at: StubRef) -> Option<Utc> {
        self.stubs[at].track.as_ref()?.progress.replayed_at
    }

    /// A delivery lives anew, or has ended.
    pub(super) fn note_replay(&mut self, at: StubRef, lives: bool) {
        if self.replayed_at(at).is_some() {
            let until = (self.dispatch_until(at).ms(), at);
            if lives {
                self.replayed.insert(until)
            } else {
                self.replayed.remove(&until)
            };
        }
    }

    /// A replayed delivery whose life is over, taken out of the calendar.
    pub(super) fn replay_over(&mut self, now: Utc) -> Option<StubRef> {
        let (until, at) = *self.replayed.first()?;
        (until <= now.ms()).then(|| {
            self.replayed.pop_first();
            at
        })
    }

    /// A delivery that is held in memory, by its place in its message.
    pub(super) fn find_delivery(&self, id: DeliveryId) -> Option<StubRef> {
        let message = self.find(id.message())?;
        self.of_message(message).into_iter().find(|at| self.stubs[*at].n == id.n())
    }

    /// Takes a delivery in.
    pub(super) fn add_delivery(&mut self, message: EntryRef, n: u16, shape: ShapeIndex) -> StubRef {
        let first = self.entry(message).first;
        let at = self.stubs.insert(Stub {
            track: None,
            message,
            shape,
            prev: NONE,
            next: NONE,
            sibling_prev: NONE,
            sibling_next: first,
            n,
            place: Place::Nowhere,
            called: false,
        });
        if first != NONE {
            self.stubs[StubRef(first)].sibling_prev = at.0;
        }
        let entry = self.entry_mut(message);
        entry.first = at.0;
        entry.unsettled += 1;
        entry.unflushed += 1;
        self.unsettled += 1;
        at
    }

    /// A delivery has settled; its stub stays until its record is on disk.
    /// Returns how many of its message have not.
    pub(super) fn settle(&mut self, at: StubRef) -> u16 {
        self.stubs[at].place = Place::Settled;
        self.unsettled -= 1;
        let message = self.stubs[at].message;
        let entry = self.entry_mut(message);
        entry.unsettled -= 1;
        let (left, until) = (entry.unsettled, entry.dispatch_until().ms());
        if left == 0 {
            self.expiry.remove(&(until, message));
        }
        left
    }

    /// The record of a settled delivery is on disk. Returns the message's id
    /// when it was the last one.
    pub(super) fn forget(&mut self, at: StubRef) -> Option<MessageId> {
        let Stub { message, sibling_prev, sibling_next, .. } = self.stubs[at];
        match sibling_prev {
            NONE => self.entry_mut(message).first = sibling_next,
            _ => self.stubs[StubRef(sibling_prev)].sibling_next = sibling_next,
        }
        if sibling_next != NONE {
            self.stubs[StubRef(sibling_next)].sibling_prev = sibling_prev;
        }
        self.stubs.remove(at);
        let entry = self.entry_mut(message);
        entry.unflushed -= 1;
        (entry.unflushed == 0).then(|| self.remove_message(message))
    }

    fn remove_message(&mut self, at: EntryRef) -> MessageId {
        let id = self.entry(at).id;
        if let Ok(found) = self.by_id.find_entry(hash(id), |other| *other == at.0) {
            found.remove();
        }
        self.entries[at.0 as usize] = None;
        self.free.push(at.0);
        id
    }

    /// The message of this id, if something of it is unsettled or unflushed.
    pub(super) fn find(&self, id: MessageId) -> Option<EntryRef> {
        let same = |at: &u32| self.entries[*at as usize].as_ref().is_some_and(|e| e.id == id);
        self.by_id.find(hash(id), same).map(|at| EntryRef(*at))
    }

    /// A message. References to a message live only as long as its deliveries.
    pub(super) fn entry(&self, at: EntryRef) -> &Entry {
        self.entries[at.0 as usize].as_ref().expect("a stub's message is kept as long as the stub")
    }

    /// The same, to change it.
    pub(super) fn entry_mut(&mut self, at: EntryRef) -> &mut Entry {
        self.entries[at.0 as usize].as_mut().expect("a stub's message is kept as long as the stub")
    }

    /// The message of a delivery.
    pub(super) fn message_of(&self, at: StubRef) -> &Entry {
        self.entry(self.stubs[at].message)
    }

    /// Whether a vendor may have accepted a delivery that must not be sent twice.
    pub(super) fn uncertain(&self, at: StubRef) -> bool {
        self.message_of(at).policy.on_ambiguous == OnAmbiguous::Stop
            && self.stubs[at].track.as_ref().is_some_and(|track| track.progress.ambiguous > 0)
    }

    /// A message's deliveries that are held in memory.
    pub(super) fn of_message(&self, at: EntryRef) -> Vec<StubRef> {
        let mut found = Vec::new();
        let mut next = self.entry(at).first;
        while next != NONE {
            found.push(StubRef(next));
            next = self.stubs[StubRef(next)].sibling_next;
        }
        found
    }

    /// Sets a delivery's timer.
    pub(super) fn wait(&mut self, at: StubRef, until: Utc) {
        self.stubs[at].place = Place::Timer;
        self.timers.insert((until.ms(), at));
    }

    /// Takes a delivery's timer away.
    pub(super) fn stop_waiting(&mut self, at: StubRef, until: Utc) {
        self.timers.remove(&(until.ms(), at));
    }

    /// The deliveries that wait for a time.
    pub(super) fn waiting_for_a_time(&self) -> impl Iterator<Item = StubRef> {
        self.timers.iter().map(|(_, at)| *at)
    }

    /// A delivery whose time has come, taken out.
    pub(super) fn due(&mut self, now: Utc) -> Option<StubRef> {
        let (at, stub) = *self.timers.first()?;
        (at <= now.ms()).then(|| {
            self.timers.pop_first();
            self.stubs[stub].place = Place::Nowhere;
            stub
        })
    }

    /// A message whose life is over, taken out of the calendar.
    pub(super) fn expired(&mut self, now: Utc) -> Option<EntryRef> {
        let (until, message) = *self.expiry.first()?;
        (until <= now.ms()).then(|| {
            self.expiry.pop_first();
            message
        })
    }

    /// When the first life ends.
    pub(super) fn first_end(&self) -> Option<Utc> {
        let expiry = self.expiry.first().map(|(at, _)| *at);
        let replayed = self.replayed.first().map(|(at, _)| *at);
        expiry.into_iter().chain(replayed).min().map(Utc::from_ms)
    }

    /// Deliveries whose life ends by then, so many at most.
    pub(super) fn ending(&self, by: Utc, most: usize) -> Vec<StubRef> {
        let by = by.ms();
        let messages = self.expiry.iter().take(most).take_while(|(at, _)| *at <= by);
        let replayed = self.replayed.iter().take(most).take_while(|(at, _)| *at <= by);
        let of_messages = messages.flat_map(|(_, message)| self.of_message(*message));
        let unreplayed = of_messages.filter(|at| self.replayed_at(*at).is_none());
        unreplayed.chain(replayed.map(|(_, at)| *at)).take(most).collect()
    }

    /// Unsettled deliveries that something has been tried of. Walks all stubs: for
    /// a snapshot, not for each event.
    pub(super) fn tried(&self) -> u64 {
        let tried = |stub: &&Stub| {
            let live = !matches!(stub.place, Place::Free | Place::Settled | Place::Flight);
            live && stub.track.is_some()
        };
        self.stubs.chunks.iter().flatten().filter(tried).count() as u64
    }

    /// The next moment at which `due` or `expired` has something.
    pub(super) fn wake_at(&self) -> Option<Utc> {
        let timer = self.timers.first().map(|(at, _)| Utc::from_ms(*at));
        timer.into_iter().chain(self.first_end()).min()
    }
}

/// Ids are random in their last bits before the delivery's number, so some of
/// those are as good a hash as any.
fn hash(id: MessageId) -> u64 {
    let id = id.as_u128();
    (id >> 14) as u64 ^ (id >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::{Entry, Stub};

    #[test]
    fn an_unsettled_delivery_costs_what_the_documentation_says() {
        assert!(size_of::<Stub>() <= 40, "{}", size_of::<Stub>());
        assert!(size_of::<Option<Entry>>() <= 64, "{}", size_of::<Option<Entry>>());
    }
}
