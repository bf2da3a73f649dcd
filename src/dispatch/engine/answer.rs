//! An attempt has ended: what it means for the provider, for the delivery, and
//! what happens next.

use pushyard_providers::{Answer, Outcome};

use super::super::deliveries::StubRef;
use super::super::delivery::{Situation, Tried, Verdict, counts, decide};
use super::super::fair::End;
use super::super::retry::backoff;
use super::{AttemptId, Cut, Effect, Engine, Fact, Flight};
use crate::clock::{Now, millis};
use crate::model::{Attempt, Excluded, Reason, State};
use crate::routing::{Candidate, Ended, LeftOut, Pass};

impl Engine {
    pub(super) fn answered(
        &mut self,
        attempt: AttemptId,
        answer: &Answer,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        // An answer to a call that was cut at shutdown has no attempt any more.
        let Some(flight) = self.flights.remove(&attempt) else { return };
        if flight.order.is_some() {
            // Cut while its intent was being written: no call was made.
            self.withdraw(&flight, now, effects);
            return;
        }
        let at = flight.stub;
        let elapsed = now.instant.saturating_duration_since(flight.started.instant);
        let key_alive = self.key_alive(&flight);
        let cut_by_us = flight.cut == Some(Cut::Ejected) && answer.outcome != Outcome::Accepted;
        let ended = Ended {
            permit: &flight.permit,
            keys: &flight.candidate.keys,
            answer,
            elapsed,
            address: flight.address,
        };
        let rng = &mut self.rng;
        if cut_by_us {
            // Nobody's fault: neither the keys nor the limit and the latency learn from it.
            self.board.withdraw(&flight.permit, &flight.candidate.keys, now.instant);
        } else {
            self.board.answered(&ended, now, &mut || rand::RngExt::random(rng));
        }
        self.dirty[flight.candidate.provider.at()] = true;
        self.record(&flight, answer, now);
        self.cleared(at);
        self.freshen(at, Some(&flight.body), now);
        effects.push(Effect::Tell(Fact::Attempted {
            delivery: self.deliveries.message_of(at).id.delivery(self.deliveries.stubs[at].n),
            trace: flight.body.message().trace.map(|trace| trace.id),
            provider: flight.candidate.provider,
            answer: Box::new(answer.clone()),
            elapsed,
        }));
        if answer.outcome == Outcome::AddressGone {
            self.address_gone(&flight, answer, now, effects);
        }
        let situation = self.situation(&flight, key_alive);
        let verdict = decide(answer, &situation);
        if self.track(at).fan.is_some() {
            self.fan_answered(&flight, answer, verdict, now, effects);
            return;
        }
        match verdict {
            Verdict::Settle(state, reason) => self.settle(at, state, reason, now, effects),
            Verdict::Repeat(after) => self.repeat(&flight, after, now, effects),
            Verdict::Next(tried) => self.go_on(&flight, tried, answer.outcome, now, effects),
        }
    }

    /// Whether the candidate answered someone since the attempt began: then it is
    /// alive, and a repeat there will replace the copy that may exist.
    fn key_alive(&self, flight: &Flight) -> bool {
        flight.candidate.keys.iter().all(|key| {
            let last = self.board.key_at(*key).health.last_success();
            last.is_some_and(|at| at >= flight.started.instant)
        })
    }

    fn record(&mut self, flight: &Flight, answer: &Answer, now: Now) {
        let settings = &self.catalog.provider(flight.candidate.provider).settings;
        let (provider, kind) = (settings.id.clone(), settings.kind);
        let elapsed = now.instant.saturating_duration_since(flight.started.instant);
        let fan = self.track(flight.stub).fan;
        let attempt = Attempt {
            // Those that are in flight together are counted as they end.
            n: fan.map_or(flight.n, |_| self.track(flight.stub).progress.tries + 1),
            provider: provider.clone(),
            kind: kind.into(),
            address: flight.candidate.address,
            outcome: answer.outcome,
            status: answer.status,
            code: answer.code.clone(),
            detail: answer.detail.clone(),
            started_at: flight.started.utc,
            latency_ms: u32::try_from(millis(elapsed)).unwrap_or(u32::MAX),
        };
        let track = self.track(flight.stub);
        track.repeated = track.repeat.take().is_some();
        track.last = Some((flight.candidate.provider, answer.outcome));
        let progress = &mut track.progress;
        progress.record(attempt);
        if let Some(over) = &flight.passed_over {
            progress.passed_over.get_or_insert_with(|| over.clone());
        }
        let sent = fan.is_some_and(|fan| fan.accepted);
        if !sent {
            progress.provider = Some(provider);
        }
        progress.counted += u16::from(counts(answer.outcome));
        if answer.outcome == Outcome::Ambiguous {
            progress.ambiguous += 1;
        }
        if answer.outcome == Outcome::Accepted && !sent {
            progress.provider_message_id = answer.vendor_id.clone();
        }
    }

    fn situation(&mut self, flight: &Flight, key_alive: bool) -> Situation {
        let built = self.catalog.provider(flight.candidate.provider);
        let dedup = built.provider.profile().dedup;
        let on_ambiguous = self.deliveries.message_of(flight.stub).policy.on_ambiguous;
        let max_attempts = self.settings.max_attempts;
        let track = self.track(flight.stub);
        Situation {
            on_ambiguous,
            dedup,
            repeated: track.repeated,
            key_alive,
            cancelled: track.cancelled,
            delivered: track.delivered,
            superseded: track.superseded,
            exhausted: track.progress.counted >= max_attempts,
            uncertain: track.progress.ambiguous > 0,
        }
    }

    /// The same candidate once more, now or after a moment.
    fn repeat(
        &mut self,
        flight: &Flight,
        after: std::time::Duration,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let at = flight.stub;
        if now.utc.plus(after) >= self.deliveries.dispatch_until(at) {
            self.lapse(at, now, effects);
            return;
        }
        let track = self.track(at);
        track.repeat = Some((flight.candidate.provider, flight.candidate.address));
        track.progress.state = State::Waiting;
        track.progress.reason = Some(Reason::Backoff);
        track.progress.next_at = Some(now.utc.plus(after));
        self.write_progress(at, now, effects);
        self.land(at, now);
        if after.is_zero() {
            self.enter(at, End::Front, now);
        } else {
            self.rest(at, now.instant + after, now);
        }
    }

    /// Another candidate: at once if one is usable, else after a wait.
    fn go_on(
        &mut self,
        flight: &Flight,
        tried: Tried,
        outcome: Outcome,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let at = flight.stub;
        self.land(at, now);
        self.mark_tried(flight, tried, now);
        let left = self.candidates_left(at, flight, tried);
        self.move_on(at, left, outcome, now, effects);
    }

    /// After an attempt that came to this; `left`: some candidate may still do.
    pub(super) fn move_on(
        &mut self,
        at: StubRef,
        left: bool,
        outcome: Outcome,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if !left {
            let reason = match outcome {
                Outcome::AddressGone => Reason::Unreachable,
                Outcome::Accepted
                | Outcome::MessageInvalid
                | Outcome::Throttled
                | Outcome::Unavailable
                | Outcome::AuthFailed
                | Outcome::Misconfigured
                | Outcome::Ambiguous => Reason::Invalid,
            };
            self.settle(at, State::Failed, Some(reason), now, effects);
            return;
        }
        if now.utc >= self.deliveries.dispatch_until(at) {
            self.lapse(at, now, effects);
            return;
        }
        let next =
            if self.draining || self.is_paused(at) { None } else { self.next_in_round(at, now) };
        match next {
            Some(candidate) => {
                let track = self.track(at);
                (track.progress.state, track.progress.reason) = (State::Waiting, None);
                self.write_progress(at, now, effects);
                // Behind those that wait there: a vendor that fails for all would hold up
                // the fresh ones of the next.
                self.assign(at, candidate, Pass::Usual, End::Back, now, effects);
            }
            None => self.end_round(at, now, effects),
        }
    }

    /// An attempt that had begun is given up before its call was made.
    pub(super) fn withdraw(&mut self, flight: &Flight, now: Now, effects: &mut Vec<Effect>) {
        let at = flight.stub;
        self.board.withdraw(&flight.permit, &flight.candidate.keys, now.instant);
        self.dirty[flight.candidate.provider.at()] = true;
        let pair = (flight.candidate.provider, flight.candidate.address);
        let others = self.leave_fan(at);
        let track = self.track(at);
        let accepted = track.fan.is_some_and(|fan| fan.accepted);
        if track.fan.is_some() {
            track.tried.retain(|tried| *tried != pair);
        }
        if others {
            return;
        }
        if !accepted && track.tried.is_empty() {
            // As if it had not begun.
            track.fan = None;
        }
        let until = self.deliveries.dispatch_until(at);
        let track = self.track(at);
        track.alone = false;
        if track.delivered {
            self.settle(at, State::Delivered, None, now, effects);
        } else if track.cancelled || track.superseded {
            let reason =
                if track.cancelled { Reason::CancelledByClient } else { Reason::Superseded };
            self.settle(at, State::Cancelled, Some(reason), now, effects);
        } else if now.utc >= until {
            self.lapse(at, now, effects);
        } else {
            let tried = track.progress.tries > 0;
            track.progress.state = match (accepted, tried) {
                (true, _) => State::Sent,
                (false, true) => State::Waiting,
                (false, false) => State::Queued,
            };
            (track.progress.reason, track.progress.next_at) = (None, None);
            // Takes the intent back: a crash must not take it for a call.
            self.write_progress(at, now, effects);
            self.land(at, now);
            self.enter(at, End::Front, now);
        }
    }

    /// A delivery is in flight no more, and lets those of its collapse key look again.
    pub(super) fn land(&mut self, at: StubRef, now: Now) {
        self.take_out(at);
        if self.deliveries.message_of(at).policy.collapses {
            for (other, _) in self.collapse.others(at) {
                if self.deliveries.stubs[other].place == super::Place::Held {
                    self.enter(other, End::Front, now);
                }
            }
        }
    }

    pub(super) fn mark_tried(&mut self, flight: &Flight, tried: Tried, now: Now) {
        let (provider, address) = (flight.candidate.provider, flight.candidate.address);
        let built = self.catalog.provider(provider);
        let profile = built.provider.profile();
        let least = built.settings.retry.min_delay.unwrap_or(profile.min_retry);
        let (id, kind) = (built.settings.id.clone(), built.settings.kind);
        let cap = built.settings.retry.throttle_cap;
        let track = self.track(flight.stub);
        track.resting.retain(|(.., until)| *until > now.utc);
        match tried {
            Tried::NextRound(retry_after) => {
                track.failed = true;
                track.tried.push((provider, address));
                let rest = retry_after.unwrap_or_default().min(cap).max(least);
                if !rest.is_zero() {
                    track.resting.push((provider, address, now.utc.plus(rest)));
                }
            }
            Tried::WhenUsable => track.tried.push((provider, address)),
            Tried::Rest(rest) => {
                track.resting.push((provider, address, now.utc.plus(rest.min(cap))));
            }
            Tried::Gone => track.progress.excluded.push(Excluded::Candidate {
                provider: id,
                address,
                gone: true,
                until: None,
            }),
            Tried::KindExcluded => track.progress.excluded.push(Excluded::Kind(kind.into())),
        }
    }

    /// After an exclusion the delivery has another shape; whether any candidate
    /// is left in it.
    pub(super) fn candidates_left(&mut self, at: StubRef, flight: &Flight, tried: Tried) -> bool {
        match tried {
            Tried::Gone | Tried::KindExcluded => {}
            Tried::NextRound(_) | Tried::WhenUsable | Tried::Rest(_) => return true,
        }
        let catalog = self.catalog.clone();
        let out = |candidate: &Candidate| match tried {
            Tried::Gone => {
                (candidate.provider, candidate.address)
                    == (flight.candidate.provider, flight.candidate.address)
            }
            Tried::KindExcluded => {
                let kind = |of: &Candidate| catalog.provider(of.provider).settings.kind;
                kind(candidate) == kind(&flight.candidate)
            }
            Tried::NextRound(_) | Tried::WhenUsable | Tried::Rest(_) => false,
        };
        self.keep_candidates(at, |candidate| !out(candidate))
    }

    /// Leaves a delivery, which is in no list, only some of its candidates; whether
    /// any is left.
    pub(super) fn keep_candidates(
        &mut self,
        at: StubRef,
        mut keep: impl FnMut(&Candidate) -> bool,
    ) -> bool {
        let old = self.deliveries.stubs[at].shape;
        let mut shape = (*self.lanes.lane(old).shape).clone();
        shape.candidates.retain(|candidate| keep(candidate));
        let left = !shape.candidates.is_empty();
        self.deliveries.stubs[at].shape = self.lanes.join(shape);
        self.lanes.leave(old);
        left
    }

    /// The next candidate of this round that is usable now.
    fn next_in_round(&mut self, at: StubRef, now: Now) -> Option<u8> {
        let plan = self.plan_of(at, now);
        // What is tried only in panic is a canary, and goes through the lane.
        plan.order.first().copied().filter(|_| !plan.panic)
    }

    /// Every candidate has been tried or is out: wait for a time, or for a key.
    pub(super) fn end_round(&mut self, at: StubRef, now: Now, effects: &mut Vec<Effect>) {
        let fan = self.deliveries.stubs[at].track.as_mut().and_then(|track| track.fan.take());
        if fan.is_some_and(|fan| fan.accepted) {
            self.settle(at, State::Sent, None, now, effects);
            return;
        }
        if self.deliveries.message_of(at).now_or_never() && !self.draining {
            self.lapse(at, now, effects);
            return;
        }
        let failed = {
            let track = self.track(at);
            track.progress.rounds = track.progress.rounds.saturating_add(1);
            track.tried.clear();
            std::mem::take(&mut track.failed)
        };
        // The same question without what this round has tried.
        let plan = self.plan_of(at, now);
        let usable = !plan.order.is_empty() && !plan.panic;
        let rested = plan
            .left_out
            .iter()
            .any(|(_, closed)| closed.why == LeftOut::ExcludedByDelivery && closed.at.is_some());
        if failed {
            // Also where all are out by now: one that was a canary must not be the
            // next one as well, or a long outage would use up its attempts.
            let chance = self.chance();
            let rounds = self.track(at).progress.rounds;
            let until = now.instant + backoff(&self.settings, rounds, chance);
            self.wait_until(at, until, Reason::Backoff, now, effects);
        } else if let Some(until) = plan.look_again(now.instant).filter(|_| !usable && rested) {
            self.wait_until(at, until, Reason::Backoff, now, effects);
        } else {
            let throttled =
                plan.left_out.iter().all(|(_, closed)| closed.why == LeftOut::Throttled);
            let reason = if throttled { Reason::Throttled } else { Reason::Parked };
            let progress = &mut self.track(at).progress;
            (progress.state, progress.reason) = (State::Waiting, Some(reason));
            progress.next_at = None;
            self.write_progress(at, now, effects);
            self.release_body(at);
            self.enter(at, End::Back, now);
        }
    }

    fn wait_until(
        &mut self,
        at: StubRef,
        until: std::time::Instant,
        reason: Reason,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.rest(at, until, now);
        let progress = &mut self.track(at).progress;
        (progress.state, progress.reason) = (State::Waiting, Some(reason));
        self.write_progress(at, now, effects);
    }
}
