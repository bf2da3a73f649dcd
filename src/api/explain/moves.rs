//! What moved a delivery from one attempt to the next: a failover, a repeat, a new
//! round. Read out of the attempts themselves, by the rules that the dispatcher
//! moves by (docs/semantics.md, "Outcome classes" and "Rounds, retry, ttl").

use std::time::Duration;

use pushyard_providers::Outcome;
use serde::Serialize;
use utoipa::ToSchema;

use crate::model::{Attempt, PassedOver, Progress};

/// Why an attempt was made where it was.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Moved<'a> {
    /// The provider of the attempt before; of the first attempt one of a better tier
    /// that could not be used.
    from: &'a str,
    /// How that attempt ended, or why that provider could not be used.
    reason: &'a str,
    /// The same for people.
    detail: String,
}

/// For each attempt what moved the delivery there. `None`: it was the first and
/// nobody was passed over, or the one before is not kept any more.
pub(super) fn moves(progress: &Progress) -> Vec<Option<Moved<'_>>> {
    let attempts = &progress.attempts;
    let mut moves = between(attempts);
    if let (Some(over), Some(first)) = (&progress.passed_over, moves.first_mut())
        && attempts.first().is_some_and(|attempt| attempt.n == 1)
    {
        let PassedOver { provider, reason } = over;
        let detail = format!("{provider} stands before it and was passed over: {reason}");
        *first = Some(Moved { from: provider, reason, detail });
    }
    moves
}

fn between(attempts: &[Attempt]) -> Vec<Option<Moved<'_>>> {
    let mut round: Vec<(&str, u8)> = Vec::new();
    let mut before: Option<&Attempt> = None;
    attempts
        .iter()
        .map(|attempt| {
            let here = (&*attempt.provider, attempt.address);
            let moved = before.map(|before| {
                if together(before, attempt) {
                    let detail = "sent to all of the tier at once".to_owned();
                    return Moved { from: &before.provider, reason: BROADCAST, detail };
                }
                let from = &*before.provider;
                let how = how(before, attempt, round.contains(&here));
                let detail = format!("{}: {how}", ended(before));
                if how == NEXT_ROUND {
                    round.clear();
                }
                Moved { from, reason: before.outcome.word(), detail }
            });
            round.push(here);
            before = Some(attempt);
            moved
        })
        .collect()
}

/// The balance of the route, where that is the reason.
const BROADCAST: &str = "broadcast";

/// Whether an attempt had begun before the one before it ended: only a broadcast
/// does that, and goes on after an Accepted.
fn together(before: &Attempt, attempt: &Attempt) -> bool {
    let ended = before.started_at.plus(Duration::from_millis(before.latency_ms.into()));
    before.outcome == Outcome::Accepted || attempt.started_at < ended
}

const NEXT_ROUND: &str = "every candidate had been tried, so the next round, after a wait";

fn how(before: &Attempt, attempt: &Attempt, tried: bool) -> &'static str {
    let same = before.provider == attempt.provider;
    let same_address = same && before.address == attempt.address;
    match before.outcome {
        Outcome::Ambiguous if same_address => {
            "the same again, because the vendor drops a repeat or the device shows it once"
        }
        Outcome::Throttled if same_address => "the same again, when it had waited",
        Outcome::AddressGone if same => "the next address, at once",
        Outcome::Accepted
        | Outcome::AddressGone
        | Outcome::MessageInvalid
        | Outcome::Throttled
        | Outcome::Unavailable
        | Outcome::AuthFailed
        | Outcome::Misconfigured
        | Outcome::Ambiguous => {
            if tried {
                NEXT_ROUND
            } else {
                "the next candidate, at once"
            }
        }
    }
}

/// Such as `apns ended Unavailable (503 UNAVAILABLE)`.
fn ended(attempt: &Attempt) -> String {
    let status = attempt.status.map(|status| status.to_string());
    let said = status.into_iter().chain(attempt.code.as_deref().map(str::to_owned));
    let said = said.collect::<Vec<_>>().join(" ");
    let said = if said.is_empty() { said } else { format!(" ({said})") };
    format!("{} ended {}{said}", attempt.provider, attempt.outcome.word())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Utc;

    fn attempt(provider: &str, address: u8, outcome: Outcome) -> Attempt {
        Attempt {
            n: 1,
            provider: provider.into(),
            kind: "test".into(),
            address,
            outcome,
            status: Some(503).filter(|_| outcome == Outcome::Unavailable),
            code: None,
            detail: None,
            started_at: Utc::from_ms(0),
            latency_ms: 0,
        }
    }

    #[test]
    fn attempts_of_a_broadcast_did_not_move_anywhere() {
        let mut attempts = [
            attempt("apns", 0, Outcome::Unavailable),
            attempt("fcm", 1, Outcome::Accepted),
            attempt("ntfy", 2, Outcome::Accepted),
        ];
        attempts[0].latency_ms = 20;
        let reasons: Vec<_> = between(&attempts)
            .iter()
            .map(|moved| moved.as_ref().map(|moved| moved.reason))
            .collect();
        assert_eq!(reasons, [None, Some(BROADCAST), Some(BROADCAST)]);
    }

    #[test]
    fn each_move_has_the_end_of_the_attempt_before_and_what_followed_from_it() {
        let attempts = [
            attempt("apns", 0, Outcome::Unavailable),
            attempt("fcm", 1, Outcome::Ambiguous),
            attempt("fcm", 1, Outcome::Unavailable),
            attempt("apns", 0, Outcome::Throttled),
            attempt("apns", 0, Outcome::AddressGone),
            attempt("apns", 2, Outcome::MessageInvalid),
            attempt("ntfy", 3, Outcome::Accepted),
        ];
        let details: Vec<String> = between(&attempts)
            .into_iter()
            .map(|moved| moved.map_or_else(|| "-".to_owned(), |moved| moved.detail))
            .collect();
        insta::assert_snapshot!(details.join("\n"), @r"
        -
        apns ended Unavailable (503): the next candidate, at once
        fcm ended Ambiguous: the same again, because the vendor drops a repeat or the device shows it once
        fcm ended Unavailable (503): every candidate had been tried, so the next round, after a wait
        apns ended Throttled: the same again, when it had waited
        apns ended AddressGone: the next address, at once
        apns ended MessageInvalid: the next candidate, at once
        ");
    }

    #[test]
    fn of_the_first_attempt_it_is_told_who_was_passed_over_as_long_as_it_is_kept() {
        let over = PassedOver { provider: "apns".into(), reason: "ejected".into() };
        let mut progress = Progress {
            attempts: vec![attempt("fcm", 1, Outcome::Accepted)],
            passed_over: Some(over),
            ..Progress::queued(Utc::from_ms(0))
        };
        let detail = "apns stands before it and was passed over: ejected".to_owned();
        let moved = Moved { from: "apns", reason: "ejected", detail };
        assert_eq!(moves(&progress), [Some(moved)]);
        progress.attempts[0].n = 2;
        assert_eq!(moves(&progress), [None]);
    }

    #[test]
    fn a_new_round_begins_anew() {
        let fails = |provider| attempt(provider, 0, Outcome::Unavailable);
        let attempts = [fails("apns"), fails("fcm"), fails("apns"), fails("fcm"), fails("apns")];
        let rounds: Vec<bool> = between(&attempts)
            .iter()
            .map(|moved| moved.as_ref().is_some_and(|moved| moved.detail.contains("round")))
            .collect();
        assert_eq!(rounds, [false, false, true, false, true]);
    }
}
