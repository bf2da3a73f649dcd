//! A provider has room: whose delivery goes, to which candidate, and the attempt
//! begins.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use pushyard_providers::Address;
use rand::RngExt;
use rand::rngs::StdRng;
use smallvec::SmallVec;

use super::super::collapse::Age;
use super::super::deliveries::{Deliveries, List, Place, StubRef, Track};
use super::super::fair::{End, Wanted};
use super::{AfterFlush, AttemptId, Effect, Engine, Fact, Flight, Order};
use crate::clock::Now;
use crate::model::{Body, Durability, OnAmbiguous, PassedOver, Reason, State};
use crate::routing::{
    Ask, Balance, Board, Candidate, LeftOut, Over, Own, Pass, Plan, ProviderIndex, Shape,
    last_choice, plan,
};
use crate::store::{Intent, Record};

/// One would wait longer than this for a permit: the provider is saturated.
pub(super) const SATURATED: Duration = Duration::from_secs(1);

/// A ready queue holds at most this share of what may be in flight: long enough
/// that a freed permit is used at once, short enough that fairness between
/// clients is decided late.
const READY_SHARE: u32 = 4;

/// The life that is left is never told shorter than this: a vendor takes whole seconds.
const LEAST_TTL: Duration = Duration::from_secs(1);

/// What a delivery whose turn it may be is to do.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// Go to this candidate.
    Go { candidate: u8, pass: Pass, passed_over: Option<(ProviderIndex, LeftOut)> },
    /// Have its body read first.
    Read,
    /// The same, when fewer are being read.
    ReadLater,
    /// Wait for a moment; this delivery alone, not its lane.
    Wait(Instant),
    /// Its round is over: what is left of its candidates is out.
    EndRound,
    /// It must not be tried anywhere else.
    GiveUp,
}

/// What came of an attempt's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Began {
    /// It has begun.
    Yes,
    /// The provider has no permit free.
    NoPermit,
    /// A key of the candidate lets nothing through any more.
    Closed,
    /// The delivery has settled, or waits for another one.
    Aside,
}

impl Engine {
    pub(super) fn pump_provider(
        &mut self,
        provider: ProviderIndex,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.start_ready(provider, now, effects);
        while !self.draining && room(&self.board, &self.ready, provider, now.instant) {
            let Some((at, turn)) = self.draw(provider, now) else { break };
            match turn {
                Turn::Go { candidate, pass, passed_over } => {
                    let to = self.candidate(at, candidate).provider;
                    self.lanes.take(&mut self.deliveries, at, to);
                    self.deliveries.stubs[at].place = Place::Nowhere;
                    self.tell_passed_over(at, to, passed_over, effects);
                    self.assign(at, candidate, pass, End::Back, now, effects);
                }
                Turn::Read => {
                    self.lanes.count(&self.deliveries, at);
                    self.read_back(at, Some(provider), effects);
                }
                Turn::Wait(until) => {
                    self.take_out(at);
                    self.rest(at, until, now);
                }
                Turn::EndRound => {
                    self.take_out(at);
                    self.end_round(at, now, effects);
                }
                Turn::GiveUp => self.lapse(at, now, effects),
                // It is never drawn: its lane stays for the next draw.
                Turn::ReadLater => {}
            }
        }
    }

    /// The delivery whose turn it is at the provider, and what it is to do. A canary
    /// is one that may be sent twice, if there is any: the others end with an
    /// attempt that ends in silence.
    fn draw(&mut self, provider: ProviderIndex, now: Now) -> Option<(StubRef, Turn)> {
        let mut spared = false;
        let drawn = self.draw_one(provider, Some(&mut spared), now);
        if drawn.is_some() || !spared {
            return drawn;
        }
        self.lanes.reopen(provider, now.instant);
        self.draw_one(provider, None, now)
    }

    /// `spared`: those that must not be sent twice are not drawn as canaries, and
    /// whether there was one is noted.
    fn draw_one(
        &mut self,
        provider: ProviderIndex,
        mut spared: Option<&mut bool>,
        now: Now,
    ) -> Option<(StubRef, Turn)> {
        let saturated = self.saturated(now.instant);
        let Self { lanes, deliveries, board, ready, loading, turns, rng, orders, clients, .. } =
            self;
        let mut decided = None;
        let mut table = Table {
            deliveries,
            board,
            ready,
            saturated: &saturated,
            turns,
            // No more than may go: what is read stays in memory until it does.
            loading_full: loading.is_full()
                || loading.drawn_at(provider) >= most_ready(board, provider, now.instant),
            rng,
            now,
        };
        let at = lanes.next(table.deliveries, provider, now, &mut |at, shape| {
            let client = deliveries.message_of(at).client;
            if orders.pause(&shape.route, &clients[usize::from(client.0)].name) {
                return Wanted::No;
            }
            decided = table.consider(at, shape, provider);
            if let (Some(spared), Some(Turn::Go { candidate, .. }), true) =
                (&mut spared, decided, shape.at_most_once)
                && table.board.tries_out(&shape.candidates[usize::from(candidate)].keys)
            {
                (**spared, decided) = (true, None);
            }
            match decided {
                Some(Turn::ReadLater) => Wanted::Soon,
                Some(_) => Wanted::Now,
                None => Wanted::No,
            }
        })?;
        decided.map(|turn| (at, turn))
    }

    /// Which providers would let one wait too long.
    pub(super) fn saturated(&self, now: Instant) -> SmallVec<[bool; 8]> {
        (0..self.ready.len())
            .map(|at| {
                let provider = ProviderIndex(at as u16);
                if self.board.permit_at(provider, now) == Some(now) {
                    return false;
                }
                let waiting = self.lanes.waiting(provider) + self.ready[at].len();
                if self.served_soon(provider, now).is_some_and(|served| waiting > served) {
                    return true;
                }
                let rtt = self.board.lane(provider).latency.rtt().as_secs_f64().max(1e-4);
                let by_limit = f64::from(self.board.allowed(provider, now)) / rtt;
                waiting as f64 > by_limit * SATURATED.as_secs_f64()
            })
            .collect()
    }

    /// Of a provider that is held by its pace, or has been full for a while: how
    /// many that wait there will have gone in a second, as far as the last one tells.
    fn served_soon(&self, provider: ProviderIndex, now: Instant) -> Option<usize> {
        if self.board.permit_at(provider, now).is_some_and(|at| at > now) {
            let rate = self.board.lane(provider).settings.rate?;
            return Some((rate.per_second * SATURATED.as_secs_f64()) as usize);
        }
        let (since, returned) = self.board.full(provider, now)?;
        (now.saturating_duration_since(since) >= SATURATED).then_some(returned as usize)
    }

    /// Those that would wait too long for a permit go elsewhere, if they can.
    fn leave_queue(&mut self, provider: ProviderIndex, now: Now, effects: &mut Vec<Effect>) {
        let Some(served) = self.served_soon(provider, now.instant) else { return };
        let mut next = self.ready[provider.at()].first();
        for place in 0.. {
            let Some(at) = next else { return };
            // What begins elsewhere may have taken the next one out (superseded).
            if !matches!(self.deliveries.stubs[at].place, Place::Ready(here, _) if here == provider)
            {
                return;
            }
            next = self.deliveries.stubs.after(at);
            // One that may not go to two vendors stays with its first.
            if place < served || self.deliveries.uncertain(at) {
                continue;
            }
            let plan = self.plan_of(at, now);
            let Some(first) = plan.order.first().copied().filter(|_| !plan.panic) else { continue };
            let other = self.candidate(at, first).provider;
            if other != provider && room(&self.board, &self.ready, other, now.instant) {
                self.take_out(at);
                self.tell_passed_over(at, other, Some((provider, LeftOut::Saturated)), effects);
                self.assign(at, first, Pass::Usual, End::Back, now, effects);
            }
        }
    }

    /// Gives a delivery that is in no list to a candidate: it begins at once, or
    /// waits for a permit there.
    pub(super) fn assign(
        &mut self,
        at: StubRef,
        candidate: u8,
        pass: Pass,
        end: End,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let provider = self.candidate(at, candidate).provider;
        let first = end == End::Front || self.ready[provider.at()].is_empty();
        let began =
            if first { self.begin(at, candidate, pass, now, effects) } else { Began::NoPermit };
        match began {
            Began::Yes | Began::Aside => {}
            Began::NoPermit if pass == Pass::Usual => {
                self.deliveries.stubs[at].place = Place::Ready(provider, candidate);
                let queue = &mut self.ready[provider.at()];
                match end {
                    End::Back => queue.push_back(&mut self.deliveries.stubs, at),
                    End::Front | End::Called => queue.push_front(&mut self.deliveries.stubs, at),
                }
            }
            Began::NoPermit | Began::Closed => self.enter(at, End::Front, now),
        }
    }

    /// Begins attempts for those that are assigned, as far as permits go.
    fn start_ready(&mut self, provider: ProviderIndex, now: Now, effects: &mut Vec<Effect>) {
        if self.draining {
            return;
        }
        while let Some(at) = self.ready[provider.at()].first() {
            let Place::Ready(_, candidate) = self.deliveries.stubs[at].place else { return };
            match self.begin(at, candidate, Pass::Usual, now, effects) {
                Began::Yes | Began::Aside => {}
                Began::NoPermit => {
                    self.leave_queue(provider, now, effects);
                    return;
                }
                Began::Closed => {
                    self.take_out(at);
                    self.enter(at, End::Front, now);
                }
            }
        }
    }

    fn begin(
        &mut self,
        at: StubRef,
        candidate: u8,
        pass: Pass,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Began {
        let entry = self.deliveries.message_of(at);
        let Some(body) = entry.body.clone() else { return Began::Closed };
        if now.utc >= self.deliveries.dispatch_until(at) {
            self.lapse(at, now, effects);
            return Began::Aside;
        }
        let candidate = self.candidate(at, candidate).clone();
        let n = usize::from(self.deliveries.stubs[at].n);
        let address = &body.message().recipients[n].addresses[usize::from(candidate.address)];
        let paused = self.board.address_paused(candidate.provider, || hash(address), now.instant);
        if paused.is_some() {
            return Began::Closed;
        }
        if self.is_gone(&body, candidate.provider, address, now) {
            self.leave_gone(at, &candidate, now, effects);
            return Began::Aside;
        }
        match self.others_in_flight(at) {
            Some(Age::Older | Age::Same) => {
                self.take_out(at);
                self.deliveries.stubs[at].place = Place::Held;
                return Began::Aside;
            }
            Some(Age::Newer) => {
                self.settle(at, State::Cancelled, Some(Reason::Superseded), now, effects);
                return Began::Aside;
            }
            None => {}
        }
        let Some(permit) = self.board.admit(candidate.provider, &candidate.keys, pass, now.instant)
        else {
            let open = self.board.open(&candidate.keys, pass, now.instant).is_ok();
            return if open { Began::NoPermit } else { Began::Closed };
        };
        self.take_out(at);
        self.supersede_older(at, now, effects);
        self.take_off(at, candidate, permit, body, now, effects);
        self.fan_out(at, now, effects);
        Began::Yes
    }

    /// The attempt begins: its intent is written first where it must not be made twice.
    pub(super) fn take_off(
        &mut self,
        at: StubRef,
        candidate: Candidate,
        permit: crate::routing::Permit,
        body: std::sync::Arc<Body>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.tell_failover(at, candidate.provider, effects);
        self.join_fan(at, &candidate, permit.pass());
        self.deliveries.stubs[at].place = Place::Flight;
        self.collapse.take_off(at);
        if let Some(track) = &mut self.deliveries.stubs[at].track {
            // Elsewhere it is no repeat.
            track.repeat =
                track.repeat.filter(|pair| *pair == (candidate.provider, candidate.address));
        }
        let (stub, entry) = (&self.deliveries.stubs[at], self.deliveries.message_of(at));
        let n = stub.track.as_ref().map_or(0, |track| track.progress.tries) + 1;
        let passed_over = (n == 1).then(|| self.passed_over(at, &candidate, &body, now)).flatten();
        let attempt = AttemptId(self.next_attempt);
        self.next_attempt += 1;
        let expires_at = self.deliveries.expires_at(at);
        let left = expires_at.since(now.utc).max(LEAST_TTL);
        let never = entry.now_or_never();
        let order = Order {
            attempt,
            permit: permit.clone(),
            n: stub.n,
            address: candidate.address,
            ttl: if never { Duration::ZERO } else { left },
            expires_at,
            body: body.clone(),
        };
        let address = &order.body.message().recipients[usize::from(stub.n)].addresses
            [usize::from(candidate.address)];
        let address = hash(address);
        let (delivery, policy) = (entry.id.delivery(stub.n), entry.policy);
        let careful = self.is_careful(now);
        let alone = stub.track.as_ref().is_some_and(|track| track.alone);
        let intent = (policy.on_ambiguous == OnAmbiguous::Stop || careful || alone)
            && policy.durability == Durability::Disk;
        let provider = self.catalog.provider(candidate.provider).settings.id.clone();
        let record = Intent { n, provider, address: candidate.address, at: now.utc, alone };
        let mut flight = Flight {
            stub: at,
            candidate,
            permit,
            started: now,
            called: None,
            cut: None,
            n,
            passed_over,
            address,
            order: Some(order),
            body,
        };
        if intent {
            self.flights.insert(attempt, flight);
            let upto = self.write(Record::Intent(delivery, record), effects);
            self.unflushed.push_back((upto, AfterFlush::Call(attempt)));
        } else {
            effects.extend(flight.call(now));
            self.flights.insert(attempt, flight);
        }
    }

    /// The first of a better tier than the candidate's that cannot be used now, for
    /// the record: the backend may ask why its push did not go there.
    fn passed_over(
        &self,
        at: StubRef,
        candidate: &Candidate,
        body: &Body,
        now: Now,
    ) -> Option<PassedOver> {
        let stub = &self.deliveries.stubs[at];
        let addresses = &body.message().recipients[usize::from(stub.n)].addresses;
        let shape = &self.lanes.lane(stub.shape).shape;
        let mut better = shape.candidates.iter().filter(|other| other.tier < candidate.tier);
        better.find_map(|other| {
            let address = addresses.get(usize::from(other.address));
            // What is noted of the delivery itself is this attempt's.
            let why = match own(None, address, other, &self.board, now) {
                Own::Skip(why, _) => why,
                Own::Free if self.board.over_budget(other.provider, now.utc) == Over::Hard => {
                    LeftOut::Budget
                }
                Own::Free => match self.board.open(&other.keys, Pass::Usual, now.instant) {
                    Err(closed) => closed.why,
                    Ok(()) if self.saturated(now.instant)[other.provider.at()] => {
                        LeftOut::Saturated
                    }
                    // Its slow start left this one to the next tier.
                    Ok(()) => return None,
                },
            };
            let provider = self.catalog.provider(other.provider).settings.id.clone();
            Some(PassedOver { provider, reason: why.word().into() })
        })
    }

    /// Whether another message of the same collapse key is in flight to the same
    /// address: a newer one waits until that has landed, an older one is too late.
    fn others_in_flight(&mut self, at: StubRef) -> Option<Age> {
        let mut found = None;
        for (other, age) in self.collapse.in_flight(at) {
            self.track(other).superseded |= age == Age::Older;
            found = if age == Age::Newer { Some(age) } else { found.or(Some(age)) };
        }
        found
    }

    fn supersede_older(&mut self, at: StubRef, now: Now, effects: &mut Vec<Effect>) {
        for (other, age) in self.collapse.others(at) {
            let settled =
                matches!(self.deliveries.stubs[other].place, Place::Settled | Place::Free);
            if age == Age::Older && !settled {
                self.settle(other, State::Cancelled, Some(Reason::Superseded), now, effects);
            }
        }
    }

    /// The n-th candidate of a delivery.
    pub(super) fn candidate(&self, at: StubRef, n: u8) -> &Candidate {
        &self.lanes.lane(self.deliveries.stubs[at].shape).shape.candidates[usize::from(n)]
    }

    /// Plans a delivery that has just had an attempt.
    pub(super) fn plan_of(&mut self, at: StubRef, now: Now) -> Plan {
        self.asked(at, now, &mut |table, shape| table.plan(at, shape))
    }

    /// Where a delivery whose life is nearly over may be tried once more.
    pub(super) fn last_choice(&mut self, at: StubRef, now: Now) -> Option<u8> {
        self.asked(at, now, &mut |table, shape| table.last_choice(at, shape))
    }

    fn asked<T>(
        &mut self,
        at: StubRef,
        now: Now,
        question: &mut dyn FnMut(&mut Table<'_>, &Shape) -> T,
    ) -> T {
        let saturated = self.saturated(now.instant);
        let shape = self.lanes.lane(self.deliveries.stubs[at].shape).shape.clone();
        let Self { deliveries, board, ready, turns, rng, .. } = self;
        let mut table = Table {
            deliveries,
            board,
            ready,
            saturated: &saturated,
            turns,
            loading_full: false,
            rng,
            now,
        };
        question(&mut table, &shape)
    }

    /// Has a delivery's body read; `drawn_at` says at whose turn it was drawn.
    pub(super) fn read_back(
        &mut self,
        at: StubRef,
        drawn_at: Option<ProviderIndex>,
        effects: &mut Vec<Effect>,
    ) {
        self.take_out(at);
        self.deliveries.stubs[at].place = Place::Loading;
        let id = self.deliveries.message_of(at).id;
        if self.loading.add(id, at, drawn_at) {
            effects.push(Effect::Read(id));
        }
    }

    /// A delivery waits for a moment.
    pub(super) fn rest(&mut self, at: StubRef, until: Instant, now: Now) {
        // Up to a whole millisecond: what wakes too early looks, and waits again.
        let left = until.saturating_duration_since(now.instant);
        let until = now.utc.plus(left + Duration::from_nanos(999_999));
        self.track(at).progress.next_at = Some(until);
        self.release_body(at);
        self.deliveries.wait(at, until);
    }

    /// When a provider that has work gets its next token, or has been full so long
    /// that others should be asked.
    pub(super) fn permit_wake(&self, at: usize, now: Now) -> Option<Instant> {
        let provider = ProviderIndex(at as u16);
        if self.ready[at].is_empty() && self.lanes.waiting(provider) == 0 {
            return None;
        }
        if let Some(next) = self.board.permit_at(provider, now.instant) {
            return (next > now.instant).then_some(next);
        }
        let (since, _) = self.board.full(provider, now.instant)?;
        // Later it is looked at in steps: what came back is forgotten by and by.
        let step = SATURATED / 4;
        let steps = now.instant.saturating_duration_since(since).div_duration_f64(step) as u32 + 1;
        Some(since + SATURATED.max(step.saturating_mul(steps)))
    }

    /// A better tier's provider was passed over because of its health.
    fn tell_passed_over(
        &self,
        at: StubRef,
        to: ProviderIndex,
        passed_over: Option<(ProviderIndex, LeftOut)>,
        effects: &mut Vec<Effect>,
    ) {
        let tried = self.deliveries.stubs[at].track.as_ref().is_some_and(|t| t.last.is_some());
        let Some((from, why)) = passed_over.filter(|(from, _)| *from != to && !tried) else {
            return;
        };
        let reason = match why {
            LeftOut::Ejected | LeftOut::Probing => "ejected",
            LeftOut::Throttled | LeftOut::Drained => "paused",
            LeftOut::Saturated => "saturated",
            LeftOut::ExcludedByDelivery | LeftOut::AddressPaused | LeftOut::Budget => return,
        };
        let route = self.lanes.lane(self.deliveries.stubs[at].shape).shape.route.clone();
        effects.push(Effect::Tell(Fact::FailedOver { route, from, to, reason }));
    }

    /// The last attempt was elsewhere.
    fn tell_failover(&mut self, at: StubRef, to: ProviderIndex, effects: &mut Vec<Effect>) {
        let route = self.lanes.lane(self.deliveries.stubs[at].shape).shape.route.clone();
        let Some(track) = &mut self.deliveries.stubs[at].track else { return };
        let last = track.last.take();
        if let Some((from, outcome)) = last.filter(|(from, _)| *from != to) {
            let reason = outcome.word();
            effects.push(Effect::Tell(Fact::FailedOver { route, from, to, reason }));
        }
    }
}

/// Whether another delivery may be assigned to the provider. A provider whose
/// breaker is not closed queues nothing: canaries go one by one.
fn room(board: &Board, ready: &[List], provider: ProviderIndex, now: Instant) -> bool {
    ready[provider.at()].len() < most_ready(board, provider, now)
}

/// Deliveries that may wait for a permit of the provider, assigned to it.
fn most_ready(board: &Board, provider: ProviderIndex, now: Instant) -> usize {
    let pace = board.lane(provider).settings.rate.map_or(f64::MAX, |rate| rate.per_second);
    let most = board.allowed(provider, now).min(pace as u32) / READY_SHARE;
    most.max(1) as usize
}

/// Everything that decides whose turn it is, borrowed together.
struct Table<'a> {
    deliveries: &'a Deliveries,
    board: &'a Board,
    ready: &'a [List],
    saturated: &'a [bool],
    turns: &'a mut [u64],
    loading_full: bool,
    rng: &'a mut StdRng,
    now: Now,
}

impl<'a> Table<'a> {
    /// What a delivery is to do if its turn at `provider` is now; `None`: stay.
    fn consider(&mut self, at: StubRef, shape: &Shape, provider: ProviderIndex) -> Option<Turn> {
        let entry = self.deliveries.message_of(at);
        if entry.body.is_none() {
            let read = if self.loading_full { Turn::ReadLater } else { Turn::Read };
            return self.any_open(shape).then_some(read);
        }
        match self.repeat(at, shape) {
            Some(candidate) => {
                return Some(Turn::Go { candidate, pass: Pass::Usual, passed_over: None });
            }
            None if self.deliveries.uncertain(at) => return Some(Turn::GiveUp),
            None => {}
        }
        let plan = self.plan(at, shape);
        let track = self.deliveries.stubs[at].track.as_ref();
        let tried = track.is_some_and(|track| !track.tried.is_empty());
        // In panic each key that is out takes its own canary, and not the best one alone:
        // nobody knows which vendor is back first.
        let here = |n: &u8| shape.candidates[usize::from(*n)].provider == provider;
        let own = plan.order.iter().copied().find(|n| plan.panic && here(n));
        let Some(first) = own.or(plan.order.first().copied()) else {
            if tried {
                return Some(Turn::EndRound);
            }
            let own = plan.left_out.iter().any(|(_, closed)| match closed.why {
                LeftOut::ExcludedByDelivery | LeftOut::AddressPaused => true,
                LeftOut::Budget
                | LeftOut::Drained
                | LeftOut::Ejected
                | LeftOut::Probing
                | LeftOut::Throttled
                | LeftOut::Saturated => false,
            });
            return plan.look_again(self.now.instant).filter(|_| own).map(Turn::Wait);
        };
        let chosen = &shape.candidates[usize::from(first)];
        if plan.panic && track.is_some_and(|track| track.fan.is_some()) {
            // Some of its tier have it, and none of the others is usable.
            return Some(Turn::EndRound);
        }
        // A canary queues nowhere.
        let canary_waits = plan.panic
            && (self.board.permit_at(chosen.provider, self.now.instant) != Some(self.now.instant)
                || !self.ready[chosen.provider.at()].is_empty());
        if canary_waits || !self.goes_now(chosen.provider, provider) {
            // One who cannot go here at all must not stand before those who can.
            if !self.cannot_go(at, shape, provider) {
                return None;
            }
            if canary_waits {
                let until = self.now.instant + SATURATED;
                return Some(if tried { Turn::EndRound } else { Turn::Wait(until) });
            }
        }
        if shape.balance == Balance::RoundRobin
            && let Some(turn) = shape.route_index.and_then(|at| self.turns.get_mut(usize::from(at)))
        {
            *turn = turn.wrapping_add(1);
        }
        let passed_over = plan.left_out.iter().find_map(|(n, closed)| {
            let other = &shape.candidates[usize::from(*n)];
            (other.tier < chosen.tier).then_some((other.provider, closed.why))
        });
        Some(Turn::Go { candidate: first, pass: plan.pass(), passed_over })
    }

    /// Whether the delivery itself rules out every candidate at the provider.
    fn cannot_go(&self, at: StubRef, shape: &Shape, provider: ProviderIndex) -> bool {
        let view = self.view();
        let mut here = shape.candidates.iter().filter(|c| c.provider == provider);
        here.all(|c| view.own(at, c) != Own::Free)
    }

    /// A delivery drawn at one provider's turn may go to another one only where
    /// nobody waits for that: else it would jump that one's queue.
    fn goes_now(&self, chosen: ProviderIndex, drawn_at: ProviderIndex) -> bool {
        let now = self.now.instant;
        room(self.board, self.ready, chosen, now)
            && (chosen == drawn_at
                || (self.ready[chosen.at()].is_empty()
                    && self.board.permit_at(chosen, now) == Some(now)))
    }

    fn plan(&mut self, at: StubRef, shape: &Shape) -> Plan {
        self.ask(at, shape, plan)
    }

    fn last_choice(&mut self, at: StubRef, shape: &Shape) -> Option<u8> {
        self.ask(at, shape, last_choice)
    }

    fn ask<T>(
        &mut self,
        at: StubRef,
        shape: &Shape,
        answer: fn(&Ask<'_>, &Board, &mut dyn FnMut() -> f64) -> T,
    ) -> T {
        let view = self.view();
        let own = |n: usize| view.own(at, &shape.candidates[n]);
        let ask = ask(shape, &own, self.saturated, view.address(at, 0), self.turns, self.now);
        answer(&ask, self.board, &mut || self.rng.random())
    }

    /// The candidate that a copy is to be repeated at.
    fn repeat(&self, at: StubRef, shape: &Shape) -> Option<u8> {
        let wanted = self.deliveries.stubs[at].track.as_ref()?.repeat?;
        let n = shape.candidates.iter().position(|c| (c.provider, c.address) == wanted)?;
        let open =
            self.board.open(&shape.candidates[n].keys, Pass::Usual, self.now.instant).is_ok();
        let free = self.view().own(at, &shape.candidates[n]) == Own::Free;
        (open && free).then_some(n as u8)
    }

    fn view(&self) -> View<'a> {
        View { deliveries: self.deliveries, board: self.board, now: self.now }
    }

    /// Whether it is worth reading the body: some candidate could be tried.
    fn any_open(&self, shape: &Shape) -> bool {
        let now = self.now.instant;
        let may = |candidate: &Candidate, pass: Pass| {
            room(self.board, self.ready, candidate.provider, now)
                && self.board.open(&candidate.keys, pass, now).is_ok()
        };
        shape.candidates.iter().any(|candidate| may(candidate, Pass::Usual))
            || shape.candidates.iter().any(|candidate| may(candidate, Pass::Panic))
    }
}

/// The part of the table that is only looked at.
struct View<'a> {
    deliveries: &'a Deliveries,
    board: &'a Board,
    now: Now,
}

impl View<'_> {
    /// One of a delivery's addresses, if its body is in memory.
    fn address(&self, at: StubRef, n: u8) -> Option<&Address> {
        let stub = &self.deliveries.stubs[at];
        let body = self.deliveries.entry(stub.message).body.as_ref()?;
        body.message().recipients.get(usize::from(stub.n))?.addresses.get(usize::from(n))
    }

    /// What the delivery itself has to say about a candidate.
    fn own(&self, at: StubRef, candidate: &Candidate) -> Own {
        let track = self.deliveries.stubs[at].track.as_deref();
        own(track, self.address(at, candidate.address), candidate, self.board, self.now)
    }
}

/// The question that the engine puts to routing: dispatch to get a plan, explain to
/// get an outlook. `first` is the first of the recipient's addresses, if it is known.
pub(super) fn ask<'a>(
    shape: &'a Shape,
    own: &'a dyn Fn(usize) -> Own,
    saturated: &'a [bool],
    first: Option<&Address>,
    turns: &[u64],
    now: Now,
) -> Ask<'a> {
    Ask {
        shape,
        own,
        saturated,
        affinity: match shape.balance {
            Balance::Weighted => first.map_or(0, hash),
            Balance::RoundRobin
            | Balance::LeastLatency
            | Balance::Cheapest
            | Balance::Broadcast => 0,
        },
        turn: shape.route_index.and_then(|at| turns.get(usize::from(at)).copied()).unwrap_or(0),
        now: now.instant,
        utc: now.utc,
    }
}

/// What a delivery of which this has been tried has to say about a candidate.
pub(super) fn own(
    track: Option<&Track>,
    address: Option<&Address>,
    candidate: &Candidate,
    board: &Board,
    now: Now,
) -> Own {
    let pair = (candidate.provider, candidate.address);
    if let Some(track) = track {
        let other_tier = track.fan.is_some_and(|fan| fan.tier != candidate.tier);
        if track.tried.contains(&pair) || other_tier {
            return Own::Skip(LeftOut::ExcludedByDelivery, None);
        }
        let mut resting = track.resting.iter();
        let resting = resting.find(|(p, a, until)| (*p, *a) == pair && *until > now.utc);
        if let Some((.., until)) = resting {
            let at = now.instant + until.since(now.utc);
            return Own::Skip(LeftOut::ExcludedByDelivery, Some(at));
        }
    }
    let paused = address.and_then(|address| {
        board.address_paused(candidate.provider, || hash(address), now.instant)
    });
    paused.map_or(Own::Free, |until| Own::Skip(LeftOut::AddressPaused, Some(until)))
}

/// An address as the board knows it.
pub(super) fn hash(address: &Address) -> u64 {
    let mut hasher = DefaultHasher::new();
    address.kind().name.hash(&mut hasher);
    address.values().for_each(|value| value.hash(&mut hasher));
    hasher.finish()
}
