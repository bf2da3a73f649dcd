//! Whether to believe a vendor that says "this address is gone".
//!
//! A wrong environment or key looks exactly as if all devices had gone at once,
//! and whoever believes it throws away addresses that are good. So an address is
//! marked only while its key works otherwise: an Accepted within a day, and few of
//! its latest answers "gone". Until there is evidence it is held; when most
//! answers are "gone" nothing is believed, and what was held is dropped: whoever
//! is really gone will be told again. The delivery moves on in any case; this is
//! about the address. Numbers: docs/semantics.md, "Mass guard".

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

/// An Accepted older than this proves nothing any more.
const PROOF: Duration = Duration::from_secs(24 * 3600);
/// The share is judged over so many latest answers at least, and at most.
const LEAST: u32 = 20;
const MOST: u32 = 100;
/// So many in a row without an Accepted are a misconfiguration.
const ROW: u32 = 20;
/// Addresses held at most; the oldest gives way, and will be told again.
const MAX_HELD: usize = 1_000;
/// So many addresses without an Accepted between show that it is not one device's fault.
const SUSPECTS: usize = 3;

/// What to do about an address that the vendor says is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoneVerdict {
    /// Mark it and tell the backend.
    Mark,
    /// Not yet: it comes back from `Board::take_confirmed` once the key has
    /// proved good, or is dropped.
    Hold,
    /// Do not believe it.
    Refuse,
}

/// What one key's answers say of the key itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Guard {
    accepted: Option<Instant>,
    /// The latest answers, newest in bit 0: set means "gone".
    answers: u128,
    known: u32,
    row: u32,
    held: VecDeque<u64>,
    misconfigured: Suspects,
    refused: Suspects,
}

/// Distinct addresses for which one thing was said.
type Suspects = SmallVec<[u64; SUSPECTS]>;

impl Guard {
    /// The vendor took a push. Returns the addresses that this confirms as gone.
    pub(super) fn accepted(&mut self, most: f64, now: Instant) -> Vec<u64> {
        self.accepted = Some(now);
        self.row = 0;
        self.misconfigured.clear();
        self.refused.clear();
        self.remember(false);
        // That it took this one after it refused those is proof enough, also where
        // there are few answers: a small installation must hear of its gone addresses.
        if self.share() > most {
            return Vec::new();
        }
        self.held.drain(..).collect()
    }

    /// The vendor answered something else.
    pub(super) fn answered(&mut self) {
        self.row = 0;
        self.remember(false);
    }

    /// The vendor said "gone". Whether it has said nothing else for so long that
    /// the key must be wrong.
    pub(super) fn gone(&mut self, most: f64) -> bool {
        self.row += 1;
        self.remember(true);
        if self.fires(most) {
            self.held.clear();
        }
        self.row >= ROW && self.fires(most)
    }

    /// What to do about the address for which it has just said so.
    pub(super) fn judge(&mut self, address: u64, most: f64, now: Instant) -> GoneVerdict {
        let verdict = self.verdict(most, now);
        if verdict == GoneVerdict::Hold && !self.held.contains(&address) {
            if self.held.len() == MAX_HELD {
                self.held.pop_front();
            }
            self.held.push_back(address);
        }
        verdict
    }

    /// Whether most of the latest answers are "gone": an alarm.
    pub(super) fn fires(&self, most: f64) -> bool {
        self.known >= LEAST && self.share() > most
    }

    /// Another address for which the configuration is wrong; whether they are
    /// enough to say so of the key.
    pub(super) fn misconfigured(&mut self, address: u64) -> bool {
        suspect(&mut self.misconfigured, address)
    }

    /// The same for a credential that belongs to the address's origin.
    pub(super) fn refused(&mut self, address: u64) -> bool {
        suspect(&mut self.refused, address)
    }

    fn verdict(&self, most: f64, now: Instant) -> GoneVerdict {
        let proved = self.accepted.is_some_and(|at| now.saturating_duration_since(at) <= PROOF);
        if self.fires(most) {
            GoneVerdict::Refuse
        } else if proved && self.known >= LEAST {
            GoneVerdict::Mark
        } else {
            GoneVerdict::Hold
        }
    }

    fn share(&self) -> f64 {
        f64::from(self.answers.count_ones()) / f64::from(self.known.max(1))
    }

    fn remember(&mut self, gone: bool) {
        let kept = (1 << MOST) - 1;
        self.answers = ((self.answers << 1) | u128::from(gone)) & kept;
        self.known = (self.known + 1).min(MOST);
    }
}

fn suspect(suspects: &mut Suspects, address: u64) -> bool {
    if suspects.len() < SUSPECTS && !suspects.contains(&address) {
        suspects.push(address);
    }
    let enough = suspects.len() == SUSPECTS;
    if enough {
        suspects.clear();
    }
    enough
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const HALF: f64 = 0.5;

    fn now() -> Instant {
        Clock::default().now().instant
    }

    fn gone(guard: &mut Guard, address: u64, now: Instant) -> GoneVerdict {
        guard.gone(HALF);
        guard.judge(address, HALF, now)
    }

    #[test]
    fn an_address_is_marked_only_while_its_key_works_otherwise() {
        let now = now();
        for (accepted, age_s, gone_before, verdict) in [
            (0, 0, 0, GoneVerdict::Hold),
            (18, 0, 0, GoneVerdict::Hold),
            (19, 0, 0, GoneVerdict::Mark),
            (19, 24 * 3600, 0, GoneVerdict::Mark),
            (19, 24 * 3600 + 1, 0, GoneVerdict::Hold),
            (50, 0, 49, GoneVerdict::Mark),
            (50, 0, 50, GoneVerdict::Refuse),
        ] {
            let mut guard = Guard::default();
            for _ in 0..accepted {
                guard.accepted(HALF, now);
            }
            for _ in 0..gone_before {
                guard.gone(HALF);
            }
            let at = now + Duration::from_secs(age_s);
            let context = format!("{accepted} accepted {age_s} s ago, {gone_before} gone");
            assert_eq!(gone(&mut guard, 1, at), verdict, "{context}");
        }
    }

    #[test]
    fn held_addresses_are_released_once_the_key_has_proved_good() {
        let (mut guard, now) = (Guard::default(), now());
        assert_eq!(gone(&mut guard, 1, now), GoneVerdict::Hold);
        assert_eq!(gone(&mut guard, 2, now), GoneVerdict::Hold);
        assert_eq!(gone(&mut guard, 1, now), GoneVerdict::Hold);
        // Most of the answers were "gone" until the third that was not.
        for _ in 0..2 {
            assert!(guard.accepted(HALF, now).is_empty());
        }
        assert_eq!(guard.accepted(HALF, now), [1, 2]);
        assert!(guard.accepted(HALF, now).is_empty());
    }

    #[test]
    fn held_addresses_are_dropped_when_the_guard_fires_and_never_grow_without_bound() {
        let (mut guard, now) = (Guard::default(), now());
        (0..19).for_each(|n| assert_eq!(gone(&mut guard, n, now), GoneVerdict::Hold));
        assert_eq!(gone(&mut guard, 19, now), GoneVerdict::Refuse);
        assert!(guard.fires(HALF));
        let released: usize = (0..200).map(|_| guard.accepted(HALF, now).len()).sum();
        assert_eq!(released, 0);
        assert!(!guard.fires(HALF), "it works again");

        let mut guard = Guard::default();
        guard.answered();
        for n in 0..5_000 {
            guard.judge(n, HALF, now);
        }
        assert_eq!(guard.held.len(), MAX_HELD);
    }

    #[test]
    fn twenty_in_a_row_say_that_the_key_is_wrong_and_nineteen_do_not() {
        let mut guard = Guard::default();
        assert!((0..19).all(|_| !guard.gone(HALF)));
        assert!(guard.gone(HALF));
        let mut guard = Guard::default();
        guard.accepted(HALF, now());
        assert!((0..19).all(|_| !guard.gone(HALF)));
        guard.answered();
        assert!((0..19).all(|_| !guard.gone(HALF)), "another answer breaks the row");
    }

    #[test]
    fn three_distinct_addresses_without_an_accepted_between_are_suspicious() {
        let mut guard = Guard::default();
        for (address, enough) in [(1, false), (1, false), (2, false), (2, false), (3, true)] {
            assert_eq!(guard.misconfigured(address), enough, "{address}");
        }
        assert!(!guard.refused(1) && !guard.refused(2));
        guard.accepted(HALF, now());
        assert!(!guard.refused(3) && !guard.refused(4));
        assert!(guard.refused(5));
    }
}
