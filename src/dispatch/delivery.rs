//! The delivery state machine's decision: what an attempt's answer means for the
//! delivery it was made for. The table of docs/semantics.md, "Outcome classes",
//! in code; nothing else in the house turns an outcome into action on a delivery.

use std::time::Duration;

use pushyard_providers::{Answer, Dedup, Outcome, Part};

use crate::model::{OnAmbiguous, Reason, State};

/// Where a repeat replaces the visible copy, it goes out after this long, so
/// that a peer that is about to answer others has a chance to.
const REPLACING_REPEAT: Duration = Duration::from_secs(1);

/// A candidate that does not fit this delivery is looked at again after this long.
const MISCONFIGURED_REST: Duration = Duration::from_secs(600);

/// What the decision needs to know beside the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation {
    /// What the message wants after an unknown end.
    pub(super) on_ambiguous: OnAmbiguous,
    /// What the vendor does with a repeat.
    pub(super) dedup: Dedup,
    /// The attempt was already a repeat at the same candidate.
    pub(super) repeated: bool,
    /// The candidate's key had a success since the attempt began.
    pub(super) key_alive: bool,
    /// The backend has taken the message back meanwhile.
    pub(super) cancelled: bool,
    /// The device has said meanwhile that it has it.
    pub(super) delivered: bool,
    /// A newer message of the same collapse key has been picked meanwhile.
    pub(super) superseded: bool,
    /// The guard against endless repeats is reached with this attempt.
    pub(super) exhausted: bool,
    /// A vendor may have accepted an earlier attempt, or this one.
    pub(super) uncertain: bool,
}

/// What happens to the delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is settled.
    Settle(State, Option<Reason>),
    /// Another candidate; the tried one as said.
    Next(Tried),
    /// The same candidate once more.
    Repeat(Duration),
}

/// What becomes of the candidate that was tried, for this delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    /// It may be tried in the next round, not before this much time.
    NextRound(Option<Duration>),
    /// Its key is out; it may be tried when that is back.
    WhenUsable,
    /// Not before this much time, whatever the round.
    Rest(Duration),
    /// This address is gone there.
    Gone,
    /// The vendor cannot take the message: no address of this kind.
    KindExcluded,
}

/// See the module.
pub(super) fn decide(answer: &Answer, situation: &Situation) -> Verdict {
    if situation.delivered {
        return Verdict::Settle(State::Delivered, None);
    }
    match verdict(answer, situation) {
        // A taken-back delivery ends with its attempt, but for one that was accepted.
        Verdict::Next(_) | Verdict::Repeat(_) if situation.cancelled => {
            Verdict::Settle(State::Cancelled, Some(Reason::CancelledByClient))
        }
        Verdict::Next(_) | Verdict::Repeat(_) if situation.superseded => {
            Verdict::Settle(State::Cancelled, Some(Reason::Superseded))
        }
        // What the repeat said is about the repeat; the first copy may be there.
        Verdict::Next(_) if situation.uncertain && situation.on_ambiguous == OnAmbiguous::Stop => {
            Verdict::Settle(State::Unknown, Some(Reason::Ambiguous))
        }
        Verdict::Next(_) | Verdict::Repeat(_) if situation.exhausted => {
            Verdict::Settle(State::Failed, Some(Reason::AttemptsExhausted))
        }
        verdict @ (Verdict::Settle(..) | Verdict::Next(_) | Verdict::Repeat(_)) => verdict,
    }
}

fn verdict(answer: &Answer, situation: &Situation) -> Verdict {
    match answer.outcome {
        Outcome::Accepted => Verdict::Settle(State::Sent, None),
        Outcome::AddressGone => Verdict::Next(Tried::Gone),
        Outcome::MessageInvalid if answer.everywhere => {
            Verdict::Settle(State::Failed, Some(Reason::Invalid))
        }
        Outcome::MessageInvalid => Verdict::Next(Tried::KindExcluded),
        Outcome::Throttled => Verdict::Next(match (&answer.part, answer.retry_after) {
            (Part::Device, pause) => Tried::Rest(pause.unwrap_or(Duration::from_secs(1))),
            (Part::Provider | Part::Named(_), _) => Tried::WhenUsable,
        }),
        Outcome::Unavailable => Verdict::Next(Tried::NextRound(answer.retry_after)),
        // One refusal by an origin leaves its key in: only this candidate rests.
        Outcome::AuthFailed if answer.part.is_origin() => {
            Verdict::Next(Tried::Rest(MISCONFIGURED_REST))
        }
        Outcome::AuthFailed => Verdict::Next(Tried::WhenUsable),
        Outcome::Misconfigured => Verdict::Next(Tried::Rest(MISCONFIGURED_REST)),
        Outcome::Ambiguous => ambiguous(answer, situation),
    }
}

/// A byte may have left and no complete answer came: the only place where a
/// duplicate may be made, or a message lost, and the message says which.
fn ambiguous(answer: &Answer, situation: &Situation) -> Verdict {
    let may_repeat = !situation.repeated;
    match (situation.on_ambiguous, situation.dedup) {
        (OnAmbiguous::Stop, Dedup::Full) if may_repeat => Verdict::Repeat(Duration::ZERO),
        (OnAmbiguous::Stop, Dedup::Full | Dedup::Replaces | Dedup::None) => {
            Verdict::Settle(State::Unknown, Some(Reason::Ambiguous))
        }
        (OnAmbiguous::Resend, Dedup::Full) if may_repeat => Verdict::Repeat(Duration::ZERO),
        (OnAmbiguous::Resend, Dedup::Replaces) if may_repeat && situation.key_alive => {
            Verdict::Repeat(REPLACING_REPEAT)
        }
        (OnAmbiguous::Resend, Dedup::Full | Dedup::Replaces | Dedup::None) => {
            Verdict::Next(Tried::NextRound(answer.retry_after))
        }
    }
}

/// Whether an attempt with this outcome counts against the guard: what was not
/// an attempt at sending does not.
pub(super) fn counts(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Accepted
        | Outcome::MessageInvalid
        | Outcome::Unavailable
        | Outcome::Misconfigured
        | Outcome::Ambiguous => true,
        Outcome::AddressGone | Outcome::Throttled | Outcome::AuthFailed => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Situation = Situation {
        on_ambiguous: OnAmbiguous::Resend,
        dedup: Dedup::Replaces,
        repeated: false,
        key_alive: false,
        cancelled: false,
        delivered: false,
        superseded: false,
        exhausted: false,
        uncertain: false,
    };

    fn of(outcome: Outcome) -> Verdict {
        decide(&Answer::new(outcome), &CALM)
    }

    #[test]
    fn each_outcome_moves_the_delivery_as_the_table_says() {
        for (outcome, verdict) in [
            (Outcome::Accepted, Verdict::Settle(State::Sent, None)),
            (Outcome::AddressGone, Verdict::Next(Tried::Gone)),
            (Outcome::MessageInvalid, Verdict::Next(Tried::KindExcluded)),
            (Outcome::Throttled, Verdict::Next(Tried::WhenUsable)),
            (Outcome::Unavailable, Verdict::Next(Tried::NextRound(None))),
            (Outcome::AuthFailed, Verdict::Next(Tried::WhenUsable)),
            (Outcome::Misconfigured, Verdict::Next(Tried::Rest(MISCONFIGURED_REST))),
            (Outcome::Ambiguous, Verdict::Next(Tried::NextRound(None))),
        ] {
            assert_eq!(of(outcome), verdict, "{outcome}");
        }
    }

    #[test]
    fn a_message_that_no_vendor_can_take_fails_at_once() {
        let mut answer = Answer::new(Outcome::MessageInvalid);
        answer.everywhere = true;
        assert_eq!(decide(&answer, &CALM), Verdict::Settle(State::Failed, Some(Reason::Invalid)));
    }

    #[test]
    fn an_unknown_end_is_repeated_only_where_the_copy_is_dropped_or_replaced() {
        use Dedup::{Full, None as Nothing, Replaces};
        let unknown = Verdict::Settle(State::Unknown, Some(Reason::Ambiguous));
        let next = Verdict::Next(Tried::NextRound(None));
        let (now, soon) = (Verdict::Repeat(Duration::ZERO), Verdict::Repeat(REPLACING_REPEAT));
        use OnAmbiguous::{Resend, Stop};
        for (on_ambiguous, dedup, key_alive, repeated, verdict) in [
            (Resend, Full, false, false, now),
            (Resend, Full, false, true, next),
            (Resend, Replaces, true, false, soon),
            (Resend, Replaces, true, true, next),
            (Resend, Replaces, false, false, next),
            (Resend, Nothing, true, false, next),
            (Stop, Full, false, false, now),
            (Stop, Full, false, true, unknown),
            (Stop, Replaces, true, false, unknown),
            (Stop, Nothing, true, false, unknown),
        ] {
            let situation = Situation { on_ambiguous, dedup, key_alive, repeated, ..CALM };
            let answer = Answer::new(Outcome::Ambiguous);
            assert_eq!(decide(&answer, &situation), verdict, "{situation:?}");
        }
    }

    #[test]
    fn no_other_candidate_follows_an_unknown_end_that_must_not_be_repeated() {
        let on_ambiguous = OnAmbiguous::Stop;
        let repeat = Situation { on_ambiguous, uncertain: true, dedup: Dedup::Full, ..CALM };
        for outcome in [Outcome::Unavailable, Outcome::Throttled, Outcome::AddressGone] {
            let unknown = Verdict::Settle(State::Unknown, Some(Reason::Ambiguous));
            assert_eq!(decide(&Answer::new(outcome), &repeat), unknown, "{outcome}");
        }
        let sent = Verdict::Settle(State::Sent, None);
        assert_eq!(decide(&Answer::new(Outcome::Accepted), &repeat), sent);
    }

    #[test]
    fn a_device_that_has_it_is_believed_whatever_its_vendor_says() {
        let delivered = Situation { delivered: true, cancelled: true, uncertain: true, ..CALM };
        for outcome in Outcome::ALL {
            let verdict = decide(&Answer::new(outcome), &delivered);
            assert_eq!(verdict, Verdict::Settle(State::Delivered, None), "{outcome}");
        }
    }

    #[test]
    fn a_cancelled_delivery_is_sent_only_if_its_attempt_was_accepted() {
        let cancelled = Situation { cancelled: true, ..CALM };
        assert_eq!(
            decide(&Answer::new(Outcome::Accepted), &cancelled),
            Verdict::Settle(State::Sent, None)
        );
        for outcome in Outcome::ALL.into_iter().skip(1) {
            assert_eq!(
                decide(&Answer::new(outcome), &cancelled),
                Verdict::Settle(State::Cancelled, Some(Reason::CancelledByClient)),
                "{outcome}"
            );
        }
    }
}
