//! The engine: events in, effects out.
//!
//! One task owns it, feeds it events and carries out the effects in their order
//! (`driver.rs`); a simulation does the same with made-up time, vendors and
//! crashes. There is no I/O, no clock and no task in it, so nothing of what
//! happens to a push can hide from a test.
//!
//! The way of a delivery: `Submitted` → written → `Flushed` → its lane
//! (`intake.rs`) → its turn at a provider → plan → permit → `Call` (`pick.rs`) →
//! `Answered` → decision → settled, or another candidate at once, or a wait
//! (`answer.rs`) → written → `Flushed` → told to those who wait for it.

mod answer;
mod effect;
mod events;
mod explain;
mod fan;
mod gone;
mod intake;
mod last_try;
mod loading;
mod operate;
mod pick;
mod probe;
mod recall;
mod reshape;
mod stall;
mod suspects;
mod view;

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use pushyard_providers::Part;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub use effect::{AttemptId, Cut, Effect, Event, Fact, Order, Token};
pub use explain::{Asked, BARRED, Barred, Explained, Score, Seen, Weighed};
pub use recall::Found;
pub use reshape::Reconfigured;
pub(super) use view::status_words;
pub use view::{KeyView, ProviderView, QueueView, Snapshot};

use super::collapse::Collapse;
use super::deliveries::{ClientIndex, Deliveries, List, Place, StubRef};
use super::fair::Lanes;
use super::gone::GoneAddresses;
use super::{Cancelled, Limits, Received, Settings};
use crate::clock::{Now, Utc};
use crate::model::{
    Body, DeliveryId, Durability, EventId, EventKinds, MessageId, PassedOver, Progress, Reason,
    State,
};
use crate::routing::{Board, Candidate, Catalog, Permit, ProviderIndex, Remembered, Window};
use crate::store::{Health, Record};

/// Lanes are looked at this often whatever happens: a wake-up that was missed
/// must not strand anyone.
const SAFETY_WAKE: std::time::Duration = std::time::Duration::from_secs(300);

/// What was spent is written this often; a crash forgets no more than that.
const SPENT_EVERY: std::time::Duration = std::time::Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    limits: Limits,
    catalog: Arc<Catalog>,
    board: Board,
    deliveries: Deliveries,
    lanes: Lanes,
    /// By provider: assigned, waiting for a permit.
    ready: Vec<List>,
    collapse: Collapse,
    gone: GoneAddresses,
    flights: HashMap<AttemptId, Flight>,
    next_attempt: u64,
    clients: Vec<Client>,
    /// What clients are told of, by name.
    subscribed: Vec<(Arc<str>, EventKinds)>,
    /// The latest event's.
    last_event: EventId,
    /// Counters of the routes, for `round_robin`.
    turns: Vec<u64>,
    probes: Vec<probe::Schedule>,
    /// By provider: whether it is silent.
    silences: Vec<stall::Silence>,
    /// Records written so far; a flush says how many of them are on disk.
    written: u64,
    /// So many of them are on disk.
    flushed: u64,
    /// What waits for the flush of the n-th record, in order.
    unflushed: VecDeque<(u64, AfterFlush)>,
    accepting: usize,
    oldest_accept: Option<Now>,
    waiters: HashMap<MessageId, Vec<Token>>,
    /// Cancellations of messages that are on disk, which the engine has not heard yet.
    early: Vec<(Token, MessageId, Vec<u16>)>,
    loading: loading::Loading,
    /// What is wanted of settled deliveries whose records are being looked up.
    inquiries: HashMap<DeliveryId, Vec<recall::Inquiry>>,
    suspects: suspects::Suspects,
    orders: operate::Orders,
    /// Addresses that are gone if their keys prove good.
    held_gone: HashMap<(ProviderIndex, u64), gone::Found>,
    bodies: u64,
    /// Providers whose queue may move.
    dirty: Vec<bool>,
    safety_wake: std::time::Instant,
    next_spent: std::time::Instant,
    /// When to look again for those whose life is nearly over.
    next_last_tries: std::time::Instant,
    /// Since when each provider as a whole has been in its state.
    since: Vec<Utc>,
    /// What time alone changes is looked at from then on, by whichever event
    /// comes first: a wake-up must not be lost to one that came just before it.
    due: std::time::Instant,
    drained: Window,
    store: Health,
    draining: bool,
    /// Until then intents are written for all: the process before ended badly.
    careful_until: Option<std::time::Instant>,
    rng: StdRng,
}

#[derive(Debug)]
struct Client {
    name: Arc<str>,
    unsettled: u64,
    /// What it is told of.
    events: EventKinds,
}

/// An attempt that has begun.
#[derive(Debug)]
struct Flight {
    stub: StubRef,
    candidate: Candidate,
    permit: Permit,
    started: Now,
    /// When its call went out.
    called: Option<std::time::Instant>,
    /// Why its call was given up, if it was; what comes of that is on its way.
    cut: Option<Cut>,
    n: u32,
    /// Of the first: who of a better tier could not be used.
    passed_over: Option<PassedOver>,
    /// The address, as a hash.
    address: u64,
    /// What is sent.
    body: Arc<Body>,
    /// What to send; taken when the call goes out.
    order: Option<Order>,
}

/// What happens when a record is on disk.
#[derive(Debug)]
enum AfterFlush {
    /// A message is accepted.
    Accept(Token, Arc<Body>),
    /// An attempt may be made.
    Call(AttemptId),
    /// A delivery's end may be told.
    Forget(StubRef, Box<Fact>),
    /// What was to be kept is.
    Kept(Token),
    /// A backend may be told what was taken back.
    Cancelled(Token, Cancelled),
    /// The record of a settled delivery can be looked up.
    Inquire(DeliveryId, recall::Inquiry),
    /// An operator's order is kept.
    Operated(Token),
    /// A delivery that nobody holds can be looked up.
    Look(DeliveryId),
    /// A device may be told that its word was noted.
    Received(Token, Option<Box<Fact>>),
    /// A delivery may be tried again.
    Replayed(Token, DeliveryId),
}

impl Engine {
    /// Nothing to do yet. `seed` is where its chance comes from.
    pub fn new(
        catalog: Arc<Catalog>,
        settings: Settings,
        limits: Limits,
        now: Now,
        seed: u64,
    ) -> Self {
        let providers = catalog.providers.len();
        let mut engine = Self {
            settings,
            limits,
            board: Board::new(&catalog, now.instant),
            deliveries: Deliveries::default(),
            lanes: Lanes::new(providers),
            ready: vec![List::default(); providers],
            collapse: Collapse::default(),
            gone: GoneAddresses::default(),
            flights: HashMap::new(),
            next_attempt: 0,
            clients: Vec::new(),
            subscribed: Vec::new(),
            last_event: EventId::from_u128(0),
            turns: vec![0; catalog.routes.len()],
            probes: Vec::new(),
            silences: vec![stall::Silence::default(); providers],
            written: 0,
            flushed: 0,
            unflushed: VecDeque::new(),
            accepting: 0,
            oldest_accept: None,
            waiters: HashMap::new(),
            early: Vec::new(),
            loading: loading::Loading::new(providers),
            inquiries: HashMap::new(),
            suspects: suspects::Suspects::default(),
            held_gone: HashMap::new(),
            orders: operate::Orders {
                routes: catalog.routes.clone(),
                ..operate::Orders::default()
            },
            bodies: 0,
            dirty: vec![false; providers],
            safety_wake: now.instant + SAFETY_WAKE,
            next_spent: now.instant + SPENT_EVERY,
            next_last_tries: now.instant,
            since: vec![now.utc; providers],
            due: now.instant,
            drained: Window::new(std::time::Duration::from_secs(10), now.instant),
            store: Health::Writable,
            draining: false,
            careful_until: None,
            rng: StdRng::seed_from_u64(seed),
            catalog,
        };
        engine.schedule_probes(now);
        engine
    }

    /// Takes an event in. Call [`Engine::pump`] after the last one of a batch.
    pub fn on(&mut self, event: Event, now: Now, effects: &mut Vec<Effect>) {
        match event {
            Event::Submitted(token, body) => self.submitted(token, body, now, effects),
            Event::Recovered(found) => self.recovered(found, now, effects),
            Event::Restored(remembered) => self.restored(&remembered, now),
            Event::Spent(id, spent) => {
                if let Some(provider) = self.catalog.by_id(&id) {
                    self.board.restore_spent(provider, spent);
                }
            }
            Event::Subscribed(subscribed) => self.subscribe(subscribed),
            Event::Careful { time, safe } => {
                self.careful_until = Some(now.instant + time);
                if safe {
                    self.suspects.begin(now.instant, time);
                }
            }
            Event::Flushed(upto) => self.flushed(upto, now, effects),
            Event::Read(id, body) => self.read(id, body.as_ref(), now, effects),
            Event::Answered(attempt, answer) => self.answered(attempt, &answer, now, effects),
            Event::Cancel(token, id) => {
                let cancelled = self.cancel(id, None, now, effects);
                self.tell_cancelled(token, cancelled, effects);
            }
            Event::CancelPart(token, id, part) => self.cancel_part(token, id, part, now, effects),
            Event::Keep(token, records) => self.keep(token, records, now, effects),
            Event::Gone(gone) => self.gone.insert(gone.key(), gone.at),
            Event::Wait(token, id) => match self.deliveries.find(id) {
                Some(_) => self.waiters.entry(id).or_default().push(token),
                None => effects.push(Effect::Settled(token)),
            },
            Event::Left(left) => self.waiters.retain(|_, waiting| {
                waiting.retain(|token| !left.contains(token));
                !waiting.is_empty()
            }),
            Event::Receipt(token, id) => {
                self.inquire(id, recall::Inquiry::Receipt(token), now, effects);
            }
            Event::Replay(token, id) => {
                self.inquire(id, recall::Inquiry::Replay(token), now, effects);
            }
            Event::Found(id, found) => self.found(id, found, now, effects),
            Event::Operate(token, operation) => self.operate(token, operation, now, effects),
            Event::Ordered(name, value) => self.restore_order(&name, &value, now, effects),
            Event::Reconfigured(token, reconfigured) => {
                self.reconfigured(&reconfigured, now, effects);
                effects.push(Effect::Operated(token, Ok(())));
            }
            Event::Probed(provider, answer) => self.probed(provider, &answer, now, effects),
            Event::Capacity(provider, streams) => {
                self.board.capacity(provider, streams, now.instant);
                self.dirty[provider.at()] = true;
            }
            Event::Heard(provider, at) => self.heard(provider, at, now, effects),
            Event::Store(health) => self.store = health,
            Event::Note(name, value) => {
                self.write(Record::Note(name, value), effects);
            }
            Event::Drain => {
                self.draining = true;
                self.write_spent(effects);
            }
            Event::Tick => self.due = now.instant,
        }
    }

    /// Moves what can move now, and tells what changed.
    pub fn pump(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let ticks = now.instant >= self.due;
        if ticks {
            self.tick(now, effects);
        }
        self.release_suspects(now);
        self.mark_confirmed(now, effects);
        let stale = self.freshen_some(now, effects);
        while let Some(at) = self.dirty.iter().position(|dirty| *dirty) {
            self.dirty[at] = false;
            // The catalog holds no more providers than the index has numbers.
            self.pump_provider(ProviderIndex(at as u16), now, effects);
        }
        let mut whole = false;
        for moved in self.board.take_moved() {
            if moved.part == Part::Provider {
                self.since[moved.provider.at()] = now.utc;
                whole = true;
            }
            // An ejected provider is probed more often.
            self.schedule_probe(moved.provider, now.instant);
            effects.push(Effect::Tell(Fact::Moved(moved)));
        }
        if now.instant >= self.next_spent {
            self.next_spent = now.instant + SPENT_EVERY;
            self.write_spent(effects);
        }
        for remembered in self.board.take_remembered(now) {
            self.write_remembered(&remembered, effects);
        }
        if whole {
            // What went elsewhere, or waited, may go at once.
            self.lanes.reopen_all(now.instant);
        }
        let next = if stale || whole { now.instant } else { self.next_due(now) };
        // What was due stays due until it has been looked at: a token that comes
        // just now is no reason to wake any more, but nobody has taken it yet.
        self.due = if ticks { next } else { self.due.min(next) };
    }

    /// When to send a [`Event::Tick`], if nothing else happens before.
    pub fn wake_at(&self, now: Now) -> std::time::Instant {
        // Work that is due now has been done by the pump; what remains of it
        // waits for an event.
        self.due.max(now.instant + std::time::Duration::from_millis(1))
    }

    fn next_due(&self, now: Now) -> std::time::Instant {
        let on_utc = self.deliveries.wake_at().map(|at| now.instant + at.since(now.utc));
        let permits = (0..self.ready.len()).filter_map(|at| self.permit_wake(at, now));
        let shut = self.lanes.wake_at(now.instant);
        let suspects = self.suspects.wake_at(now.instant);
        let orders = self.orders_wake(now);
        let silences = self.silence_wake();
        let last_tries = self.last_tries_wake(now);
        let board = self.board.wake_at(now.instant);
        [board, on_utc, self.probe_wake(), suspects, orders, silences, last_tries, shut]
            .into_iter()
            .flatten()
            .chain(permits)
            .fold(self.safety_wake, std::time::Instant::min)
    }

    /// Attempts in flight.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// The attempts in flight, for cutting them at shutdown.
    pub fn attempts(&self) -> Vec<AttemptId> {
        self.flights.keys().copied().collect()
    }

    /// The board, to look at.
    pub fn board(&self) -> &Board {
        &self.board
    }

    fn tick(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.board.tick(now.instant);
        while let Some(at) = self.deliveries.due(now.utc) {
            self.enter(at, super::fair::End::Front, now);
        }
        while let Some(message) = self.deliveries.expired(now.utc) {
            self.expire(message, now, effects);
        }
        while let Some(at) = self.deliveries.replay_over(now.utc) {
            self.expire_one(at, now, effects);
        }
        self.end_orders(now, effects);
        self.last_tries(now, effects);
        self.probe_due(now, effects);
        if now.instant >= self.safety_wake {
            self.safety_wake = now.instant + SAFETY_WAKE;
        }
        // Pauses end, ramps rise and tokens come by time alone.
        self.dirty.fill(true);
    }

    fn write(&mut self, record: Record, effects: &mut Vec<Effect>) -> u64 {
        self.written += 1;
        effects.push(Effect::Write(record));
        self.written
    }

    fn write_remembered(&mut self, remembered: &Remembered, effects: &mut Vec<Effect>) {
        let name = format!("key/{}/{}", remembered.provider, remembered.part);
        let gone = remembered.paused_until.is_none() && remembered.ejected.is_none();
        // A record of strings and numbers always serialises.
        let value = (!gone).then(|| serde_json::to_vec(remembered).unwrap_or_default());
        self.write(Record::Note(name, value), effects);
    }

    fn write_spent(&mut self, effects: &mut Vec<Effect>) {
        for (id, spent) in self.board.take_spent() {
            // A record of two numbers always serialises.
            let value = serde_json::to_vec(&spent).unwrap_or_default();
            self.write(Record::Note(format!("budget/{id}"), Some(value)), effects);
        }
    }

    fn restored(&mut self, remembered: &Remembered, now: Now) {
        if let Some(provider) = self.catalog.by_id(&remembered.provider) {
            self.board.restore(provider, remembered, now);
        }
    }

    fn client(&mut self, name: &Arc<str>) -> ClientIndex {
        let at = match self.clients.iter().position(|client| client.name == *name) {
            Some(at) => at,
            None => {
                let events = self.subscription_of(name);
                self.clients.push(Client { name: name.clone(), unsettled: 0, events });
                self.clients.len() - 1
            }
        };
        // Clients come from the configuration, which holds far fewer.
        ClientIndex(at as u16)
    }

    /// Whether intents are written for all.
    fn is_careful(&self, now: Now) -> bool {
        self.careful_until.is_some_and(|until| now.instant < until)
    }

    /// A number in 0..1.
    fn chance(&mut self) -> f64 {
        self.rng.random()
    }

    /// Ends a delivery: writes its record, and tells it once that is on disk.
    fn settle(
        &mut self,
        at: StubRef,
        state: State,
        reason: Option<Reason>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.take_out(at);
        let (state, reason) = self.end_of(at, state, reason);
        let began = self.deliveries.not_before(at);
        self.deliveries.note_replay(at, false);
        let entry = self.deliveries.message_of(at);
        let (id, client, policy) = (entry.id, entry.client, entry.policy);
        let stub = &mut self.deliveries.stubs[at];
        let (n, shape) = (stub.n, stub.shape);
        // The device's word was told when it came, during the attempt.
        let told = stub
            .track
            .as_ref()
            .is_some_and(|track| track.delivered || (track.told_sent && state == State::Sent));
        let mut progress = stub
            .track
            .take()
            .map_or_else(|| Progress::queued(id.accepted_at()), |track| track.progress);
        (progress.state, progress.reason, progress.next_at) = (state, reason, None);
        progress.at = now.utc;
        let route = self.lanes.lane(shape).shape.route.clone();
        let fact = Fact::Settled {
            delivery: id.delivery(n),
            route,
            state,
            reason,
            took: now.utc.since(began),
        };
        let progress = Arc::new(progress);
        let mut upto = self.write(Record::Progress(id.delivery(n), progress.clone()), effects);
        if !told {
            self.announce(client, id.delivery(n), &progress, now, effects);
        }
        if self.deliveries.settle(at) == 0 {
            upto = self.write(Record::Settled(id), effects);
        }
        self.clients[client.0 as usize].unsettled -= 1;
        self.drained.record(true, now.instant);
        self.lanes.leave(shape);
        if policy.collapses {
            self.release_held(at, now);
        }
        if policy.durability == Durability::Memory {
            self.forget(at, fact, effects);
        } else {
            self.unflushed.push_back((upto, AfterFlush::Forget(at, Box::new(fact))));
        }
    }

    /// Takes a delivery out of whatever list it is in.
    fn take_out(&mut self, at: StubRef) {
        match self.deliveries.stubs[at].place {
            Place::Lane => self.lanes.remove(&mut self.deliveries, at),
            Place::Ready(provider, _) => {
                self.ready[provider.at()].remove(&mut self.deliveries.stubs, at);
            }
            Place::Timer => {
                let until = self.timer_of(at);
                self.deliveries.stop_waiting(at, until);
            }
            Place::Loading => {
                let id = self.deliveries.message_of(at).id;
                if let Some(provider) = self.loading.remove(id, at) {
                    self.dirty[provider.at()] = true;
                }
            }
            Place::Flight => self.collapse.land(at),
            Place::Nowhere | Place::Held | Place::Suspect | Place::Settled | Place::Free => {}
        }
        self.deliveries.stubs[at].place = Place::Nowhere;
    }

    /// The moment a delivery's timer is set to.
    fn timer_of(&self, at: StubRef) -> Utc {
        let next_at = self.deliveries.stubs[at].track.as_ref().and_then(|t| t.progress.next_at);
        next_at.unwrap_or_else(|| self.deliveries.not_before(at))
    }

    /// Lets those of the same collapse key go that waited for this delivery.
    fn release_held(&mut self, at: StubRef, now: Now) {
        let others = self.collapse.others(at);
        self.collapse.leave(at);
        for (other, _) in others {
            if self.deliveries.stubs[other].place == Place::Held {
                self.enter(other, super::fair::End::Front, now);
            }
        }
    }

    /// A delivery's end is on disk, or need not be: it is told, and its place is free.
    fn forget(&mut self, at: StubRef, fact: Fact, effects: &mut Vec<Effect>) {
        effects.push(Effect::Tell(fact));
        let message = self.deliveries.stubs[at].message;
        let entry = self.deliveries.entry(message);
        if entry.unflushed == 1
            && let Some(body) = &entry.body
        {
            self.bodies = self.bodies.saturating_sub(weight(body));
        }
        if let Some(id) = self.deliveries.forget(at) {
            for token in self.waiters.remove(&id).unwrap_or_default() {
                effects.push(Effect::Settled(token));
            }
        }
    }

    /// Takes back deliveries that a backend has found in the store; the flush that
    /// put them there may not have been told yet.
    fn cancel_part(
        &mut self,
        token: Token,
        id: MessageId,
        part: Vec<u16>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let accepting = |(_, then): &(u64, AfterFlush)| match then {
            AfterFlush::Accept(_, body) => body.message().id == id,
            AfterFlush::Call(_)
            | AfterFlush::Forget(..)
            | AfterFlush::Kept(_)
            | AfterFlush::Cancelled(..)
            | AfterFlush::Inquire(..)
            | AfterFlush::Operated(_)
            | AfterFlush::Look(_)
            | AfterFlush::Received(..)
            | AfterFlush::Replayed(..) => false,
        };
        if self.deliveries.find(id).is_none() && self.unflushed.iter().any(accepting) {
            self.early.push((token, id, part));
            return;
        }
        let cancelled = self.cancel(id, Some(&part), now, effects);
        self.tell_cancelled(token, cancelled, effects);
    }

    /// `part`: these deliveries of it alone.
    fn cancel(
        &mut self,
        id: MessageId,
        part: Option<&[u16]>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Cancelled {
        let mut cancelled = Cancelled::default();
        let Some(message) = self.deliveries.find(id) else { return cancelled };
        for at in self.deliveries.of_message(message) {
            if part.is_some_and(|part| !part.contains(&self.deliveries.stubs[at].n)) {
                continue;
            }
            match self.deliveries.stubs[at].place {
                Place::Settled | Place::Free => {}
                Place::Flight => {
                    self.track(at).cancelled = true;
                    cancelled.in_flight += 1;
                }
                Place::Nowhere
                | Place::Lane
                | Place::Ready(..)
                | Place::Loading
                | Place::Timer
                | Place::Held
                | Place::Suspect => {
                    let reason = Some(Reason::CancelledByClient);
                    let (end, _) = self.end_of(at, State::Cancelled, reason);
                    self.settle(at, State::Cancelled, reason, now, effects);
                    cancelled.cancelled += u32::from(end == State::Cancelled);
                }
            }
        }
        cancelled
    }

    /// What was taken back is told when that is on disk: a crash before would send it.
    fn tell_cancelled(&mut self, token: Token, cancelled: Cancelled, effects: &mut Vec<Effect>) {
        if cancelled.cancelled == 0 {
            effects.push(Effect::Cancelled(token, cancelled));
        } else {
            self.unflushed.push_back((self.written, AfterFlush::Cancelled(token, cancelled)));
        }
    }

    fn flushed(&mut self, upto: u64, now: Now, effects: &mut Vec<Effect>) {
        self.flushed = upto;
        while self.unflushed.front().is_some_and(|(record, _)| *record <= upto) {
            let Some((_, then)) = self.unflushed.pop_front() else { return };
            match then {
                AfterFlush::Accept(token, body) => {
                    self.accepting -= 1;
                    self.oldest_accept = (self.accepting > 0).then_some(now);
                    effects.push(Effect::Accepted(token));
                    self.load(&body, now, effects);
                    self.cancel_early(body.message().id, now, effects);
                }
                AfterFlush::Kept(token) => effects.push(Effect::Accepted(token)),
                AfterFlush::Call(attempt) => self.call(attempt, now, effects),
                AfterFlush::Forget(at, fact) => self.forget(at, *fact, effects),
                AfterFlush::Cancelled(token, cancelled) => {
                    effects.push(Effect::Cancelled(token, cancelled));
                }
                AfterFlush::Operated(token) => effects.push(Effect::Operated(token, Ok(()))),
                AfterFlush::Look(id) => effects.push(Effect::Look(id)),
                AfterFlush::Inquire(id, inquiry) => self.inquire(id, inquiry, now, effects),
                AfterFlush::Received(token, fact) => {
                    effects.extend(fact.map(|fact| Effect::Tell(*fact)));
                    effects.push(Effect::Received(token, Received::Noted));
                }
                AfterFlush::Replayed(token, id) => self.replayed(token, id, now, effects),
            }
        }
    }

    fn cancel_early(&mut self, id: MessageId, now: Now, effects: &mut Vec<Effect>) {
        while let Some(at) = self.early.iter().position(|(_, early, _)| *early == id) {
            let (token, _, part) = self.early.swap_remove(at);
            let cancelled = self.cancel(id, Some(&part), now, effects);
            self.tell_cancelled(token, cancelled, effects);
        }
    }

    /// An intent is on disk: the call is made, unless something has come between.
    fn call(&mut self, attempt: AttemptId, now: Now, effects: &mut Vec<Effect>) {
        let Some(flight) = self.flights.get(&attempt) else { return };
        if self.may_still_call(flight, now) {
            let flight = self.flights.get_mut(&attempt);
            effects.extend(flight.and_then(|flight| flight.call(now)));
        } else if let Some(flight) = self.flights.remove(&attempt) {
            self.withdraw(&flight, now, effects);
        }
    }

    fn may_still_call(&self, flight: &Flight, now: Now) -> bool {
        let stub = &self.deliveries.stubs[flight.stub];
        let taken_back =
            stub.track.as_ref().is_some_and(|t| t.cancelled || t.superseded || t.delivered);
        let provider = flight.candidate.provider;
        let paused = self.board.address_paused(provider, || flight.address, now.instant);
        !self.draining
            && !taken_back
            && paused.is_none()
            && !self.flies_to_gone(flight, now)
            && now.utc < self.deliveries.dispatch_until(flight.stub)
            && self.board.holds(&flight.permit, &flight.candidate.keys, now.instant)
    }
}

impl Flight {
    /// Its call goes out.
    fn call(&mut self, now: Now) -> Option<Effect> {
        let order = self.order.take()?;
        self.called = Some(now.instant);
        Some(Effect::Call(Box::new(order)))
    }
}

/// What a body weighs in memory, roughly.
fn weight(body: &Body) -> u64 {
    // Itself, its labels, and what two vendors' payloads need beside the text.
    const MESSAGE: usize = 1536;
    // Itself, and one address of one value.
    const RECIPIENT: usize = 320;
    let message = body.message();
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let push = &message.push;
    let shown = push.notification.as_ref().map_or(0, |n| text(&n.title) + text(&n.body));
    let data: usize = push.data.iter().map(|(key, value)| key.len() + value.len()).sum();
    let overrides: usize = push.overrides.values().map(String::len).sum();
    // The encoded payload holds the same text again.
    let content = 2 * (shown + data + overrides);
    (MESSAGE + content + message.recipients.len() * RECIPIENT) as u64
}

#[cfg(test)]
mod backlog_tests;
#[cfg(test)]
mod parts_tests;
#[cfg(test)]
mod stall_tests;
#[cfg(test)]
mod testing;
