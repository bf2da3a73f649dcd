//! What becomes of a request: the vendor's behaviour first, then its judgement.
//!
//! The result is a plan in time, the same for HTTP/2 and HTTP/1.1: wait, take,
//! wait, act. *Taking* is the moment that counts. A push whose plan ends before
//! it (the connection died, the vendor fell silent) was never taken, and does
//! not appear in the ledger; one that was taken and is answered late, or never,
//! does. A router that is killed in between must deliver the first again and
//! makes a duplicate of the second, so the two may not be mixed up.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::{HeaderValue, StatusCode, header, request};

use crate::clock;
use crate::faults::{Behaviour, Mode};
use crate::ledger::{Key, Ledger};
use crate::station::{Counts, InFlight};
use crate::vendor::{Act, Answer, Body, Call, Fault, Vendor, Verdict};

/// `slow` without a `latency_ms`.
const SLOW: Duration = Duration::from_secs(3);

/// A vendor with what it shares with the others.
pub(crate) struct World<V> {
    pub(crate) vendor: V,
    pub(crate) ledger: Arc<Ledger>,
}

/// The course of one request.
pub(super) struct Plan {
    /// How long before it is taken, or answered when it is not.
    pub(super) delay: Duration,
    /// The delivery, when it is to be taken.
    pub(super) take: Option<Key>,
    /// How long between that and the end.
    pub(super) ack_delay: Duration,
    pub(super) act: Act,
    /// Whether its credential was good.
    pub(super) proves: bool,
}

impl<V: Vendor> World<V> {
    /// Decides over a request.
    pub(super) fn plan(
        &self,
        session: &mut V::Session,
        flight: &InFlight,
        head: &request::Parts,
        body: &Body,
    ) -> Plan {
        let station = &flight.station;
        let behaviour = station.behaviour();
        let now_ms = clock::unix_ms().saturating_add_signed(behaviour.clock_offset_s * 1000);
        let authenticated = self.vendor.authenticate(session, head, now_ms);
        let proves = authenticated.is_ok();
        let spared = behaviour.mode == Mode::Unauthorised && proves && self.vendor.spared(session);
        let fault = if spared { None } else { self.fault(&behaviour, flight, head, now_ms) };
        let faulty = fault.is_some();
        let verdict = match fault {
            Some(act) => Verdict::end(act),
            None => {
                let call = Call { head, body, now_ms };
                self.vendor.judge(session, call, authenticated)
            }
        };
        let mut verdict = verdict;
        if let Act::Answer(answer) | Act::AnswerAndGoaway(answer, _) = &mut verdict.act {
            date(answer, &behaviour, now_ms);
        }
        if verdict.probe || (faulty && self.vendor.is_dry_run(body)) {
            Counts::add(&station.counts.probes);
        }
        station.log.keep(now_ms, flight.connection, head, &body.bytes);
        let slow = behaviour.mode == Mode::Slow && !faulty && station.drawn(behaviour.share);
        let delay = match (behaviour.mode, behaviour.latency) {
            (Mode::Slow, latency) if slow => latency.unwrap_or(SLOW),
            (Mode::Slow, _) | (_, None) => Duration::ZERO,
            (_, Some(latency)) => latency,
        };
        let spread = match behaviour.latency_spread {
            Duration::ZERO => Duration::ZERO,
            most => most.mul_f64(station.draw()),
        };
        Plan {
            delay: delay + spread + verdict.delay,
            take: verdict.take,
            ack_delay: behaviour.ack_latency,
            act: verdict.act,
            proves,
        }
    }

    /// Takes a push.
    pub(super) fn take(&self, key: Key, flight: &InFlight) {
        let station = &flight.station;
        station.counts.accepted.fetch_add(1, Relaxed);
        self.ledger.record(key, station.name, clock::unix_ms());
    }

    /// What the vendor's behaviour makes of a request, whatever it says.
    fn fault(
        &self,
        behaviour: &Behaviour,
        flight: &InFlight,
        head: &request::Parts,
        now_ms: u64,
    ) -> Option<Act> {
        let station = &flight.station;
        let answer = |fault: Fault| Act::Answer(self.vendor.fault(fault, head, now_ms));
        if let Some(limit) = behaviour.limit_per_second
            && !station.within_pace(limit)
        {
            return Some(answer(Fault::Throttling(behaviour.retry_after_s)));
        }
        if matches!(behaviour.mode, Mode::Healthy | Mode::Slow) || !station.drawn(behaviour.share) {
            return None;
        }
        match behaviour.mode {
            Mode::Healthy | Mode::Slow => None,
            Mode::Failing => {
                let status = behaviour.status.and_then(|status| StatusCode::from_u16(status).ok());
                Some(answer(Fault::Failing(
                    status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                    behaviour.retry_after_s,
                )))
            }
            Mode::Throttling => Some(answer(Fault::Throttling(behaviour.retry_after_s))),
            Mode::Unauthorised => Some(answer(Fault::Unauthorised)),
            // The next three reach a request only for a share, or for a station
            // that shares its origin with another and cannot shut the door.
            Mode::Blackhole | Mode::Unreachable => Some(Act::Silence),
            Mode::Refusing | Mode::Tls => Some(Act::Cut),
            Mode::Reset => Some(Act::Reset),
            Mode::Goaway => Some(Act::Goaway),
        }
    }
}

/// Dates what someone may look at the date of: refusals, and all answers of a
/// vendor whose clock is wrong. The rest saves the time under load.
fn date(answer: &mut Answer, behaviour: &Behaviour, now_ms: u64) {
    if answer.status().is_success() && behaviour.clock_offset_s == 0 {
        return;
    }
    if let Ok(value) = HeaderValue::from_str(&clock::http_date(now_ms)) {
        answer.headers_mut().insert(header::DATE, value);
    }
}

/// The answer of an act, if it has one.
pub(super) fn answer_of(act: Act) -> Option<Answer> {
    match act {
        Act::Answer(answer) | Act::AnswerAndGoaway(answer, _) => Some(answer),
        Act::Silence | Act::Cut | Act::Reset | Act::RefuseStream | Act::Goaway => None,
    }
}
