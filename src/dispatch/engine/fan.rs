//! `broadcast`: every usable candidate of the first usable tier is sent to, for
//! alarms (docs/semantics.md, "Routing"). The attempts are those of one delivery
//! and go out at once; it is `sent` with the first Accepted and settles when all
//! have ended. Only where none was accepted does it go on as any other one does.
//!
//! What cannot go at once (no permit, or each attempt must be written down first)
//! follows when those in flight have landed. A delivery that must not be sent twice
//! goes to one candidate, as everywhere.

use pushyard_providers::{Answer, Outcome};

use super::super::deliveries::{Fan, StubRef};
use super::super::delivery::{Tried, Verdict};
use super::super::fair::End;
use super::{Effect, Engine, Flight};
use crate::clock::Now;
use crate::model::{OnAmbiguous, Reason, State};
use crate::routing::{Balance, Candidate, Pass};

impl Engine {
    /// An attempt begins: of a delivery that goes to all of the tier, one of many.
    pub(super) fn join_fan(&mut self, at: StubRef, candidate: &Candidate, pass: Pass) {
        let balance = self.lanes.lane(self.deliveries.stubs[at].shape).shape.balance;
        let twice = self.deliveries.message_of(at).policy.on_ambiguous == OnAmbiguous::Resend;
        let wide = balance == Balance::Broadcast && twice && pass == Pass::Usual;
        let tier = candidate.tier;
        let track = self.track(at);
        // One that has begun goes on as such, whatever has become of its route.
        if !wide && track.fan.is_none() {
            return;
        }
        track.tried.push((candidate.provider, candidate.address));
        let new = Fan { tier, out: 0, accepted: false, end: None, left: false };
        track.fan.get_or_insert(new).out += 1;
    }

    /// Sends a delivery, which has just begun somewhere, to the others of its tier.
    pub(super) fn fan_out(&mut self, at: StubRef, now: Now, effects: &mut Vec<Effect>) {
        let Some(body) = self.deliveries.message_of(at).body.clone() else { return };
        let to = &body.message().recipients[usize::from(self.deliveries.stubs[at].n)].addresses;
        let track = self.track(at);
        let one_by_one = track.fan.is_none() || track.alone;
        if one_by_one || self.is_careful(now) {
            return;
        }
        let plan = self.plan_of(at, now);
        for n in plan.order.iter().filter(|_| !plan.panic) {
            let candidate = self.candidate(at, *n).clone();
            let provider = candidate.provider;
            let waits = !self.ready[provider.at()].is_empty();
            if waits || self.is_gone(&body, provider, &to[usize::from(candidate.address)], now) {
                continue;
            }
            let keys = &candidate.keys;
            if let Some(permit) = self.board.admit(provider, keys, Pass::Usual, now.instant) {
                self.take_off(at, candidate, permit, body.clone(), now, effects);
            }
        }
    }

    /// One of the attempts is over; whether others are still in flight.
    pub(super) fn leave_fan(&mut self, at: StubRef) -> bool {
        let Some(fan) = &mut self.track(at).fan else { return false };
        fan.out -= 1;
        fan.out > 0
    }

    /// One of the attempts was answered.
    pub(super) fn fan_answered(
        &mut self,
        flight: &Flight,
        answer: &Answer,
        verdict: Verdict,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let at = flight.stub;
        let in_flight = self.leave_fan(at);
        let tried = match verdict {
            Verdict::Settle(state, reason) => {
                self.note_end(at, answer.outcome, (state, reason));
                None
            }
            // The others go out meanwhile; a repeat would be one more copy.
            Verdict::Repeat(_) => Some(Tried::NextRound(answer.retry_after)),
            Verdict::Next(tried) => Some(tried),
        };
        if let Some(tried) = tried {
            self.mark_tried(flight, tried, now);
            let left = self.candidates_left(at, flight, tried);
            if let Some(fan) = &mut self.track(at).fan {
                fan.left = left;
            }
        }
        let Some(fan) = self.track(at).fan else { return };
        if in_flight {
            self.write_fan(at, fan, now, effects);
        } else {
            self.landed(flight, fan, answer.outcome, now, effects);
        }
    }

    fn note_end(&mut self, at: StubRef, outcome: Outcome, end: (State, Option<Reason>)) {
        let Some(fan) = &mut self.track(at).fan else { return };
        if outcome == Outcome::Accepted && end.0 == State::Sent {
            fan.accepted = true;
        } else {
            fan.end = Some(end);
        }
    }

    /// Nothing of the delivery is in flight any more.
    fn landed(
        &mut self,
        flight: &Flight,
        fan: Fan,
        outcome: Outcome,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let at = flight.stub;
        self.land(at, now);
        if let Some((state, reason)) = fan.end {
            self.settle(at, state, reason, now, effects);
            return;
        }
        let track = self.track(at);
        let taken_back = track.cancelled || track.superseded;
        let over = taken_back || self.draining || now.utc >= self.deliveries.dispatch_until(at);
        let plan = self.plan_of(at, now);
        if !over && !plan.panic && !plan.order.is_empty() {
            self.write_fan(at, fan, now, effects);
            self.enter(at, End::Front, now);
        } else if fan.accepted {
            self.settle(at, State::Sent, None, now, effects);
        } else {
            self.track(at).fan = None;
            self.move_on(at, fan.left, outcome, now, effects);
        }
    }

    /// The record while other attempts are to come. A crash finds it sent if it is.
    fn write_fan(&mut self, at: StubRef, fan: Fan, now: Now, effects: &mut Vec<Effect>) {
        let track = self.track(at);
        track.progress.state = match (track.delivered, fan.accepted) {
            // The device's word has been written, and is not taken back.
            (true, _) => State::Delivered,
            (false, true) => State::Sent,
            (false, false) => State::Waiting,
        };
        (track.progress.reason, track.progress.next_at) = (None, None);
        self.write_progress(at, now, effects);
        let track = self.track(at);
        let progress = track.progress.clone();
        // Its event is on disk with it: a crash would leave it untold.
        if fan.accepted && !track.told_sent && !track.delivered {
            track.told_sent = true;
            let entry = self.deliveries.message_of(at);
            let (client, id) = (entry.client, entry.id.delivery(self.deliveries.stubs[at].n));
            self.announce(client, id, &progress, now, effects);
        }
    }

    /// A delivery that some vendor has ends as sent, whatever became of the rest.
    pub(super) fn end_of(
        &self,
        at: StubRef,
        state: State,
        reason: Option<Reason>,
    ) -> (State, Option<Reason>) {
        let track = self.deliveries.stubs[at].track.as_ref();
        let accepted = track.and_then(|track| track.fan).is_some_and(|fan| fan.accepted);
        if accepted && state != State::Delivered { (State::Sent, None) } else { (state, reason) }
    }
}
