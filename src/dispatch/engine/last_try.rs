//! Panic's last tries (docs/semantics.md, "Provider health"): every candidate of a
//! delivery is out, at least one for something that time may mend, and its life
//! ends within seconds. Waiting gains nothing any more, so it is tried once on the
//! best of them, a few a second for each key: a vendor that is down is not flooded
//! by a queue that expires.

use std::time::{Duration, Instant};

use super::super::deliveries::{Place, StubRef};
use super::super::fair::End;
use super::{Effect, Engine};
use crate::clock::Now;
use crate::routing::Pass;

/// A life that ends within this is nearly over.
const NEARLY_OVER: Duration = Duration::from_secs(5);
/// How often they are looked for: as often as a key takes one.
const EVERY: Duration = Duration::from_millis(100);
/// Deliveries looked at in one turn; the bound matters only where many cannot be tried.
const AT_ONCE: usize = 256;
/// Bodies read back for one turn: a key takes one in each.
const READS: usize = 8;

impl Engine {
    /// When to look for them; `None`: nothing is out that time may mend.
    pub(super) fn last_tries_wake(&self, now: Now) -> Option<Instant> {
        let may = !self.draining && self.board.any_out_for_a_time();
        let first = self.deliveries.first_end().filter(|_| may)?;
        let nearly_over = now.instant + first.since(now.utc).saturating_sub(NEARLY_OVER);
        Some(nearly_over.max(self.next_last_tries))
    }

    pub(super) fn last_tries(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.last_tries_wake(now).is_none_or(|at| now.instant < at) {
            return;
        }
        self.next_last_tries = now.instant + EVERY;
        let mut reads = 0;
        for at in self.deliveries.ending(now.utc.plus(NEARLY_OVER), AT_ONCE) {
            let read = self.last_try(at, reads < READS, now, effects);
            reads += usize::from(read);
        }
    }

    /// Returns whether its body is read back for that.
    fn last_try(
        &mut self,
        at: StubRef,
        may_read: bool,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let stub = &self.deliveries.stubs[at];
        let place = stub.place;
        // One that has settled is there until its end is on disk, but its lane may not be.
        if !matches!(place, Place::Lane | Place::Timer) {
            return false;
        }
        let tried = stub.track.as_ref().is_some_and(|track| track.last_tried);
        let due = self.deliveries.not_before(at) <= now.utc;
        // Those that were planned before a reload are planned anew first.
        let stale = self.is_stale(at);
        if tried || stale || !due || self.is_paused(at) || self.deliveries.uncertain(at) {
            return false;
        }
        let Some(candidate) = self.last_choice(at, now) else { return false };
        let provider = self.candidate(at, candidate).provider;
        if self.board.permit_at(provider, now.instant) != Some(now.instant) {
            return false;
        }
        if self.deliveries.message_of(at).body.is_none() {
            // One that waits for a time keeps it: its body is rarely needed.
            let reads = may_read && place == Place::Lane && !self.loading.is_full();
            if reads {
                self.read_back(at, None, effects);
            }
            return reads;
        }
        self.take_out(at);
        self.track(at).last_tried = true;
        self.assign(at, candidate, Pass::LastTry, End::Front, now, effects);
        false
    }
}
