//! Whose turn it is.
//!
//! Deliveries that may go to the same candidates wait in one lane, by client and
//! priority. Each provider keeps its own turn over the clients that have work
//! for it (deficit round robin with a quantum of 16), so a client that floods
//! gets its share of each provider's calls and no more. Within a client high
//! goes before normal four to one; within a priority the oldest goes first, until
//! the oldest has waited for half a minute: then three of the newest go for each
//! of the oldest, so that fresh messages stay fast while a backlog drains.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use pushyard_providers::Priority;
use smallvec::SmallVec;

use super::deliveries::{ClientIndex, Deliveries, List, ShapeIndex, StubRef};
use crate::clock::{Now, Utc};
use crate::routing::{ProviderIndex, Shape};

/// Deliveries a client may take before it is the next one's turn.
const QUANTUM: u32 = 16;
/// Over ten times so many calls all clients with work get the same, to a tenth.
const FAIR_WITHIN: u32 = 100;
/// High-priority deliveries for each normal one.
const HIGH_SHARE: u8 = 4;
/// When the oldest has waited this long, fresh work goes first.
const BACKLOG: Duration = Duration::from_secs(30);
/// Newest deliveries for each oldest in a backlog.
const FRESH_SHARE: u8 = 3;

/// So many lanes of which nothing was wanted are asked again each time, ...
const FEW_SHUT: usize = 16;
/// ... and more of them only this often.
const REST: Duration = Duration::from_millis(50);

/// Lanes that are kept although no delivery uses them.
const KEPT_LANES: usize = 1024;

/// One client's deliveries in one lane.
#[derive(Debug, Default)]
struct Classes {
    high: Class,
    normal: Class,
    /// High-priority deliveries since the last normal one.
    high_in_row: u8,
}

#[derive(Debug, Default)]
struct Class {
    list: List,
    /// Newest deliveries since the last oldest one.
    fresh_in_row: u8,
}

impl Classes {
    fn class(&mut self, priority: Priority) -> &mut Class {
        match priority {
            Priority::High => &mut self.high,
            Priority::Normal => &mut self.normal,
        }
    }

    fn is_empty(&self) -> bool {
        self.high.list.is_empty() && self.normal.list.is_empty()
    }

    /// Which priority is next.
    fn turn(&self) -> Priority {
        let normal = self.high.list.is_empty()
            || (self.high_in_row >= HIGH_SHARE && !self.normal.list.is_empty());
        if normal { Priority::Normal } else { Priority::High }
    }
}

/// Deliveries of one shape.
#[derive(Debug)]
pub(super) struct Lane {
    /// What they have in common.
    pub(super) shape: Arc<Shape>,
    clients: SmallVec<[(ClientIndex, Classes); 1]>,
    /// Deliveries of this shape anywhere; at zero the lane is given up.
    users: usize,
    /// Planned before the last change: nothing goes from here.
    stale: bool,
}

impl Lane {
    /// Whether it was planned before the last change.
    pub(super) fn is_stale(&self) -> bool {
        self.stale
    }

    fn first(&self) -> Option<StubRef> {
        self.clients.iter().find_map(|(_, of)| of.high.list.first().or(of.normal.list.first()))
    }

    /// How many wait here.
    pub(super) fn len(&self) -> usize {
        self.clients.iter().map(|(_, of)| of.high.list.len() + of.normal.list.len()).sum()
    }

    fn classes(&mut self, client: ClientIndex) -> &mut Classes {
        let at = match self.clients.iter().position(|(known, _)| *known == client) {
            Some(at) => at,
            None => {
                self.clients.push((client, Classes::default()));
                self.clients.len() - 1
            }
        };
        &mut self.clients[at].1
    }
}

/// A provider's turn over the clients.
#[derive(Debug, Default)]
struct Turn {
    ring: VecDeque<ClientIndex>,
    /// What the first in the ring may still take.
    deficit: u32,
    lanes: HashMap<ClientIndex, OfClient>,
    waiting: usize,
    /// Lanes of all clients that are shut.
    shut: usize,
    /// When they were last opened.
    reopened: Option<Instant>,
    /// Something may have changed since, and they were not asked.
    skipped: bool,
}

/// A client's lanes at a provider.
#[derive(Debug, Default)]
struct OfClient {
    open: VecDeque<ShapeIndex>,
    /// Nothing of them was wanted when they were asked: push services that are down,
    /// mostly, of which there may be thousands.
    shut: VecDeque<ShapeIndex>,
}

impl OfClient {
    fn is_empty(&self) -> bool {
        self.open.is_empty() && self.shut.is_empty()
    }
}

impl Turn {
    fn join(&mut self, client: ClientIndex, shape: ShapeIndex) {
        let lanes = self.lanes.entry(client).or_default();
        if !lanes.open.contains(&shape) && !lanes.shut.contains(&shape) {
            lanes.open.push_back(shape);
        }
        if !self.ring.contains(&client) {
            self.ring.push_back(client);
        }
    }

    /// Something of a lane is wanted now: it is asked although others rest.
    fn open(&mut self, client: ClientIndex, shape: ShapeIndex) {
        let Some(lanes) = self.lanes.get_mut(&client) else { return };
        if let Some(at) = lanes.shut.iter().position(|other| *other == shape) {
            lanes.shut.remove(at);
            lanes.open.push_front(shape);
            self.shut -= 1;
        }
    }

    /// A lane is given up.
    fn leave(&mut self, shape: ShapeIndex) {
        for lanes in self.lanes.values_mut() {
            lanes.open.retain(|other| *other != shape);
            let before = lanes.shut.len();
            lanes.shut.retain(|other| *other != shape);
            self.shut -= before - lanes.shut.len();
        }
    }

    /// Those that were shut are asked again.
    fn reopen(&mut self, now: Instant) {
        for lanes in self.lanes.values_mut() {
            lanes.open.append(&mut lanes.shut);
        }
        (self.shut, self.reopened) = (0, Some(now));
    }

    /// Whether it is time for that: always for a few, by and by for many, or each
    /// event would ask thousands in vain.
    fn reopens(&self, now: Instant) -> bool {
        self.shut <= FEW_SHUT || self.reopened.is_none_or(|reopened| now >= reopened + REST)
    }
}

/// All lanes and turns.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: Vec<Option<Lane>>,
    free: Vec<u32>,
    by_shape: HashMap<Arc<Shape>, ShapeIndex>,
    turns: Vec<Turn>,
    /// Lanes that were planned before the last change.
    stale: Vec<ShapeIndex>,
}

impl Lanes {
    pub(super) fn new(providers: usize) -> Self {
        Self { turns: (0..providers).map(|_| Turn::default()).collect(), ..Self::default() }
    }

    /// The lane of a shape; a delivery will use it.
    pub(super) fn join(&mut self, shape: Shape) -> ShapeIndex {
        if let Some(known) = self.by_shape.get(&shape) {
            let known = *known;
            self.lane_mut(known).users += 1;
            return known;
        }
        let shape = Arc::new(shape);
        let lane = Lane { shape: shape.clone(), clients: SmallVec::new(), users: 1, stale: false };
        let at = match self.free.pop() {
            Some(at) => {
                self.lanes[at as usize] = Some(lane);
                ShapeIndex(at)
            }
            None => {
                self.lanes.push(Some(lane));
                ShapeIndex(self.lanes.len() as u32 - 1)
            }
        };
        self.by_shape.insert(shape, at);
        at
    }

    /// A delivery uses the lane no more.
    pub(super) fn leave(&mut self, at: ShapeIndex) {
        let many = self.by_shape.len() > KEPT_LANES;
        let lane = self.lane_mut(at);
        lane.users -= 1;
        // A handful of shapes carry all traffic; keeping those for good is
        // cheaper than making them again for every message.
        if lane.users > 0 || !(many || lane.stale) {
            return;
        }
        let shape = lane.shape.clone();
        if self.by_shape.get(&shape) == Some(&at) {
            self.by_shape.remove(&shape);
        }
        self.give_up(at);
    }

    fn give_up(&mut self, at: ShapeIndex) {
        self.lanes[at.0 as usize] = None;
        self.free.push(at.0);
        for turn in &mut self.turns {
            turn.leave(at);
        }
    }

    /// Providers have come.
    pub(super) fn grow(&mut self, providers: usize) {
        self.turns.resize_with(providers, Turn::default);
    }

    /// What was planned holds no more.
    pub(super) fn make_stale(&mut self) {
        self.by_shape.clear();
        self.stale.clear();
        for at in (0..self.lanes.len() as u32).map(ShapeIndex) {
            let Some(lane) = &mut self.lanes[at.0 as usize] else { continue };
            if lane.users == 0 {
                self.give_up(at);
            } else {
                lane.stale = true;
                self.stale.push(at);
            }
        }
    }

    /// One that waits in a stale lane.
    pub(super) fn first_stale(&mut self) -> Option<StubRef> {
        while let Some(at) = self.stale.last() {
            let lane = self.lanes[at.0 as usize].as_ref().filter(|lane| lane.stale);
            if let Some(first) = lane.and_then(Lane::first) {
                return Some(first);
            }
            // Those of it that wait elsewhere are planned anew when they come back.
            self.stale.pop();
        }
        None
    }

    /// A lane.
    pub(super) fn lane(&self, at: ShapeIndex) -> &Lane {
        self.lanes[at.0 as usize].as_ref().expect("a lane is kept as long as a delivery uses it")
    }

    fn lane_mut(&mut self, at: ShapeIndex) -> &mut Lane {
        self.lanes[at.0 as usize].as_mut().expect("a lane is kept as long as a delivery uses it")
    }

    /// All lanes.
    pub(super) fn all(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter().flatten()
    }

    /// Whether no delivery uses any lane; some lanes are kept all the same.
    pub(super) fn is_empty(&self) -> bool {
        self.all().all(|lane| lane.users == 0 && lane.clients.iter().all(|(_, c)| c.is_empty()))
            && self.turns.iter().all(|turn| turn.waiting == 0)
    }

    /// Deliveries waiting that could go to this provider.
    pub(super) fn waiting(&self, provider: ProviderIndex) -> usize {
        self.turns[provider.at()].waiting
    }

    /// Puts a delivery into its lane, behind the others or before them.
    pub(super) fn push(&mut self, deliveries: &mut Deliveries, at: StubRef, end: End) {
        let (client, priority) = (deliveries.message_of(at).client, deliveries.priority(at));
        let shape = deliveries.stubs[at].shape;
        let lane = self.lane_mut(shape);
        if lane.stale && !self.stale.contains(&shape) {
            self.stale.push(shape);
        }
        let lane = self.lane_mut(shape);
        let class = lane.classes(client).class(priority);
        match end {
            End::Back => class.list.push_back(&mut deliveries.stubs, at),
            End::Front | End::Called => class.list.push_front(&mut deliveries.stubs, at),
        }
        deliveries.stubs[at].called = end == End::Called;
        let lane_shape = lane.shape.clone();
        for provider in providers(&lane_shape) {
            let turn = &mut self.turns[provider.at()];
            turn.waiting += 1;
            turn.join(client, shape);
            if end == End::Called {
                turn.open(client, shape);
            }
        }
    }

    /// Takes a delivery out of its lane.
    pub(super) fn remove(&mut self, deliveries: &mut Deliveries, at: StubRef) {
        let (client, priority) = (deliveries.message_of(at).client, deliveries.priority(at));
        let shape = deliveries.stubs[at].shape;
        let lane = self.lane_mut(shape);
        lane.classes(client).class(priority).list.remove(&mut deliveries.stubs, at);
        let lane_shape = lane.shape.clone();
        for provider in providers(&lane_shape) {
            self.turns[provider.at()].waiting -= 1;
        }
    }

    /// The delivery whose turn it is at a provider, left in its lane. `wanted`
    /// says whether a lane's next delivery may go there; it is asked once for
    /// each of a client's lanes, beginning with the client whose turn it is.
    pub(super) fn next(
        &mut self,
        deliveries: &Deliveries,
        provider: ProviderIndex,
        now: Now,
        wanted: &mut dyn FnMut(StubRef, &Shape) -> Wanted,
    ) -> Option<StubRef> {
        let turn = &mut self.turns[provider.at()];
        if turn.reopens(now.instant) {
            turn.reopen(now.instant);
        }
        let unasked = turn.shut;
        for _ in 0..turn.ring.len() {
            let client = *self.turns[provider.at()].ring.front()?;
            if let Some(found) = self.next_of(deliveries, provider, client, now.utc, wanted) {
                return Some(found);
            }
            let turn = &mut self.turns[provider.at()];
            turn.ring.pop_front();
            turn.deficit = 0;
            if turn.lanes.get(&client).is_some_and(|lanes| !lanes.is_empty()) {
                turn.ring.push_back(client);
            } else {
                turn.lanes.remove(&client);
            }
        }
        let turn = &mut self.turns[provider.at()];
        turn.skipped = unasked > 0;
        None
    }

    /// The lanes of which nothing was wanted are asked again: something else is.
    pub(super) fn reopen(&mut self, provider: ProviderIndex, now: Instant) {
        self.turns[provider.at()].reopen(now);
    }

    /// The same at every provider: one of them has come or gone.
    pub(super) fn reopen_all(&mut self, now: Instant) {
        self.turns.iter_mut().for_each(|turn| turn.reopen(now));
    }

    /// When lanes that were not asked want to be. Where that time has passed the
    /// provider has no room, and the next one to come back asks them.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let skipped = self.turns.iter().filter(|turn| turn.skipped);
        let due = skipped.filter_map(|turn| turn.reopened).map(|reopened| reopened + REST);
        due.filter(|due| *due > now).min()
    }

    fn next_of(
        &mut self,
        deliveries: &Deliveries,
        provider: ProviderIndex,
        client: ClientIndex,
        now: Utc,
        wanted: &mut dyn FnMut(StubRef, &Shape) -> Wanted,
    ) -> Option<StubRef> {
        let count = self.turns[provider.at()].lanes.get(&client)?.open.len();
        for _ in 0..count {
            let shape = *self.turns[provider.at()].lanes.get(&client)?.open.front()?;
            let peeked = self.peek(deliveries, shape, client, now);
            let (lane_shape, stale) = (self.lane(shape).shape.clone(), self.lane(shape).stale);
            let answer = peeked.filter(|_| !stale).map(|at| wanted(at, &lane_shape));
            if answer == Some(Wanted::Now) {
                return peeked;
            }
            let turn = &mut self.turns[provider.at()];
            let lanes = turn.lanes.get_mut(&client)?;
            lanes.open.pop_front();
            if answer == Some(Wanted::Soon) {
                lanes.open.push_back(shape);
            } else if peeked.is_some() {
                lanes.shut.push_back(shape);
                turn.shut += 1;
            }
            // An empty lane joins again with its next delivery.
        }
        None
    }

    fn peek(
        &mut self,
        deliveries: &Deliveries,
        shape: ShapeIndex,
        client: ClientIndex,
        now: Utc,
    ) -> Option<StubRef> {
        let classes = self.lane_mut(shape).classes(client);
        if classes.is_empty() {
            return None;
        }
        let class = classes.class(classes.turn());
        let first = class.list.first()?;
        if deliveries.stubs[first].called {
            return Some(first);
        }
        let waited = now.since(deliveries.not_before(first));
        if waited > BACKLOG && class.fresh_in_row < FRESH_SHARE {
            class.list.last()
        } else {
            Some(first)
        }
    }

    /// A delivery that `next` named is assigned to a provider: counts it against
    /// its client's turn there, and takes it out of its lane.
    pub(super) fn take(
        &mut self,
        deliveries: &mut Deliveries,
        at: StubRef,
        provider: ProviderIndex,
    ) {
        self.count(deliveries, at);
        let client = deliveries.message_of(at).client;
        self.remove(deliveries, at);
        self.charge(provider, client);
    }

    /// A delivery that `next` named has its turn among its client's: at once, or by
    /// being called up.
    pub(super) fn count(&mut self, deliveries: &Deliveries, at: StubRef) {
        if deliveries.stubs[at].called {
            return;
        }
        let (client, priority) = (deliveries.message_of(at).client, deliveries.priority(at));
        let classes = self.lane_mut(deliveries.stubs[at].shape).classes(client);
        classes.high_in_row = match priority {
            Priority::High => classes.high_in_row.saturating_add(1),
            Priority::Normal => 0,
        };
        let class = classes.class(priority);
        class.fresh_in_row =
            if class.list.first() == Some(at) { 0 } else { class.fresh_in_row.saturating_add(1) };
    }

    /// One of the client's calls at the provider. Its next one comes from another
    /// of its lanes: one that is always full must not hide the others.
    fn charge(&mut self, provider: ProviderIndex, client: ClientIndex) {
        let turn = &mut self.turns[provider.at()];
        if let Some(lanes) = turn.lanes.get_mut(&client).filter(|lanes| lanes.open.len() > 1) {
            lanes.open.rotate_left(1);
        }
        if turn.ring.front() != Some(&client) {
            return;
        }
        if turn.deficit == 0 {
            // With many clients a whole quantum would leave some without a turn
            // among a thousand calls.
            let clients = u32::try_from(turn.ring.len()).unwrap_or(u32::MAX);
            turn.deficit = QUANTUM.min(FAIR_WITHIN / clients.max(1)).max(1);
        }
        turn.deficit -= 1;
        if turn.deficit == 0 {
            turn.ring.rotate_left(1);
        }
    }

    /// The oldest waiting delivery of each (route, priority).
    pub(super) fn oldest(&self, deliveries: &Deliveries) -> Vec<(Arc<str>, Priority, Utc)> {
        let mut oldest: Vec<(Arc<str>, Priority, Utc)> = Vec::new();
        for lane in self.all() {
            for (_, classes) in &lane.clients {
                for (priority, class) in
                    [(Priority::High, &classes.high), (Priority::Normal, &classes.normal)]
                {
                    let Some(first) = class.list.first() else { continue };
                    let since = deliveries.not_before(first);
                    match oldest
                        .iter_mut()
                        .find(|(route, p, _)| *route == lane.shape.route && *p == priority)
                    {
                        Some((.., known)) => *known = since.min(*known),
                        None => oldest.push((lane.shape.route.clone(), priority, since)),
                    }
                }
            }
        }
        oldest
    }
}

/// Whether a lane's next delivery may go to a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// It is its turn.
    Now,
    /// What it waits for is ours, and over in a moment.
    Soon,
    /// Not as things are.
    No,
}

/// At which end of its class a delivery joins its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Behind the others.
    Back,
    /// Before them: it had its turn already.
    Front,
    /// Before them, and next whatever is fresher: its body was read back because its
    /// turn had come.
    Called,
}

/// The providers of a shape, each once.
pub(super) fn providers(shape: &Shape) -> SmallVec<[ProviderIndex; 4]> {
    let mut found: SmallVec<[ProviderIndex; 4]> = SmallVec::new();
    for candidate in &shape.candidates {
        if !found.contains(&candidate.provider) {
            found.push(candidate.provider);
        }
    }
    found
}

#[cfg(test)]
#[path = "fair_tests.rs"]
mod tests;
