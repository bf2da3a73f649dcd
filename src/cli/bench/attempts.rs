//! What the attempts of single messages show: how quickly one followed another, and
//! what was still begun when the first refusal was known.
//!
//! Pure; the attempts come from the messages' views, with times to the millisecond.

use std::collections::HashMap;

use crate::cli::load::history::Attempt;

/// Two outcome classes as the API spells them.
const ACCEPTED: &str = "Accepted";
const AUTH_FAILED: &str = "AuthFailed";

/// The attempts of each delivery, by its message.
#[derive(Clone, Debug, Default)]
pub(super) struct Histories(HashMap<u128, Vec<Vec<Attempt>>>);

impl Histories {
    /// Of these messages.
    pub(super) fn of(messages: HashMap<u128, Vec<Vec<Attempt>>>) -> Self {
        Self(messages)
    }

    /// From the end of each failed attempt to the beginning of the next one, where that
    /// went to a provider at which the delivery had not been: what comes back to one is
    /// another round and has its delay. Microseconds; a test picks by the end.
    pub(super) fn failovers_us(&self, messages: &[u128], which: impl Fn(u64) -> bool) -> Vec<u64> {
        let mut all = Vec::new();
        for attempts in self.deliveries(messages) {
            for (at, next) in attempts.iter().enumerate().skip(1) {
                let (earlier, last) = (&attempts[..at], &attempts[at - 1]);
                let is_new = earlier.iter().all(|one| one.provider != next.provider);
                if is_new && last.outcome != ACCEPTED && which(last.ended_ms) {
                    all.push(next.begun_ms.saturating_sub(last.ended_ms) * 1000);
                }
            }
        }
        all
    }

    /// Calls that the provider was given after the answer to the first one that it
    /// refused for its credential: all before them were in flight then. `None`: it
    /// refused none. A test picks by the beginning.
    pub(super) fn calls_beyond_in_flight(
        &self,
        messages: &[u128],
        provider: &str,
        which: impl Fn(u64) -> bool,
    ) -> Option<u64> {
        let calls: Vec<_> = self
            .deliveries(messages)
            .flatten()
            .filter(|call| call.provider == provider && which(call.begun_ms))
            .collect();
        let refused = calls.iter().filter(|call| call.outcome == AUTH_FAILED);
        let known_ms = refused.map(|call| call.ended_ms).min()?;
        // Of one that began in the millisecond of the answer nobody can tell.
        Some(calls.iter().filter(|call| call.begun_ms > known_ms).count() as u64)
    }

    fn deliveries(&self, messages: &[u128]) -> impl Iterator<Item = &Vec<Attempt>> {
        messages.iter().filter_map(|message| self.0.get(message)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(provider: &str, outcome: &str, begun_ms: u64, ended_ms: u64) -> Attempt {
        let (provider, outcome) = (provider.to_owned(), outcome.to_owned());
        Attempt { provider, outcome, begun_ms, ended_ms }
    }

    fn histories(deliveries: &[Vec<Attempt>]) -> (Histories, Vec<u128>) {
        let each = (0..).zip(deliveries).map(|(id, attempts)| (id, vec![attempts.clone()]));
        (Histories::of(each.collect()), (0..deliveries.len() as u128).collect())
    }

    #[test]
    fn failover_is_timed_to_each_new_provider_and_not_into_the_next_round() {
        let (histories, messages) = histories(&[
            vec![
                attempt("apns", "Unavailable", 100, 110),
                attempt("fcm", "Unavailable", 113, 120),
                attempt("apns", "Accepted", 2120, 2130),
            ],
            vec![attempt("apns", "Accepted", 100, 105)],
            vec![
                attempt("apns", "Ambiguous", 50, 80),
                attempt("apns", "Unavailable", 1080, 1090),
                attempt("fcm", "Accepted", 1091, 1099),
            ],
        ]);
        assert_eq!(histories.failovers_us(&messages, |_| true), [3000, 1000]);
        assert_eq!(histories.failovers_us(&messages, |ended_ms| ended_ms < 1000), [3000]);
        assert_eq!(histories.failovers_us(&messages[2..], |_| true), [1000]);
        assert_eq!(histories.failovers_us(&[99], |_| true), [0_u64; 0]);
    }

    #[test]
    fn calls_begun_after_the_first_refusal_was_known_are_beyond_those_in_flight() {
        let (histories, messages) = histories(&[
            vec![attempt("apns", "Accepted", 90, 95)],
            vec![attempt("apns", "AuthFailed", 100, 110), attempt("fcm", "Accepted", 112, 115)],
            vec![attempt("apns", "AuthFailed", 109, 121)],
            vec![attempt("apns", "AuthFailed", 111, 122)],
            vec![attempt("apns", "Accepted", 500, 510)],
        ]);
        let beyond = |from: u64, to: u64| {
            histories.calls_beyond_in_flight(&messages, "apns", |at| (from..to).contains(&at))
        };
        assert_eq!(beyond(0, 200), Some(1));
        assert_eq!(beyond(0, 1000), Some(2));
        assert_eq!(beyond(0, 100), None);
        assert_eq!(histories.calls_beyond_in_flight(&messages, "fcm", |_| true), None);
    }
}
