//! The account of a run: what the router accepted, against what arrived.
//!
//! The ledger of the simulator is the judge. A delivery is lost when the router
//! answered 202 for it and no vendor ever took it; the wait for that is bounded,
//! so that a loss ends a run instead of hanging it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::Serialize;

use super::Failure;
use super::control::{Arrival, Summary};
use super::figures::Quantiles;
use super::stage::Stage;

/// How often the ledger and the queue are asked whether all has come to rest.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// What was sent in a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// The calls that were accepted.
    pub(crate) calls: Vec<Call>,
    /// The deliveries that were accepted in them.
    pub(crate) accepted: Vec<Accepted>,
    /// Calls that were refused, by reason.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Calls that got no answer; their messages may have been accepted.
    pub(crate) unanswered: u64,
    /// By how much our own timer was late, for each call that waited for it.
    pub(crate) late_us: Vec<u64>,
}

/// An accepted call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// When it was due, from the run's beginning.
    pub(crate) at: Duration,
    /// From then to the 202.
    pub(crate) took_us: u64,
    /// The message's id.
    pub(crate) message: u128,
}

/// An accepted delivery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accepted {
    /// Its id.
    pub(crate) delivery: u128,
    /// When its 202 came, in unix milliseconds.
    pub(crate) at_ms: u64,
}

impl Tally {
    /// Takes in what another sender of the same run sent.
    pub(crate) fn add(&mut self, other: Self) {
        self.calls.extend(other.calls);
        self.accepted.extend(other.accepted);
        for (why, count) in other.refused {
            *self.refused.entry(why).or_default() += count;
        }
        self.unanswered += other.unanswered;
        self.late_us.extend(other.late_us);
    }

    /// Of a sender that began so much later than the run: its calls in the run's time.
    pub(crate) fn begun_after(mut self, delay: Duration) -> Self {
        self.calls.iter_mut().for_each(|call| call.at += delay);
        self
    }

    /// From when due to 202, of the calls that a test picks.
    pub(crate) fn accept(&self, which: impl Fn(Duration) -> bool) -> Quantiles {
        let picked = self.calls.iter().filter(|call| which(call.at));
        Quantiles::of_us(picked.map(|call| call.took_us))
    }
}

/// Waits until all that was accepted has arrived and the router has nothing left
/// to do, for `patience` at most, and reads the ledger.
pub(crate) async fn settle(
    stage: &mut Stage,
    tally: &Tally,
    patience: Duration,
) -> Result<Ledger, Failure> {
    let (mut control, mut admin) = (stage.control()?, stage.admin());
    control.expect(tally.accepted.iter().map(|one| one.delivery)).await?;
    let rest = async {
        loop {
            stage.check().await?;
            let lost = control.summary().await?.lost;
            if lost == 0 && admin.metrics().await?.unsettled() == 0 {
                return Ok::<_, Failure>(());
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    // Out of patience is no failure of the run: the figures tell.
    tokio::time::timeout(patience, rest).await.unwrap_or(Ok(()))?;
    let summary = control.summary().await?;
    let arrivals = control.arrivals().await?;
    Ok(Ledger { summary, ..Ledger::of(arrivals) })
}

/// What the vendors took.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    summary: Summary,
    first: HashMap<u128, Arrival>,
}

/// Whether all is well, in numbers.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    /// Deliveries that the router accepted.
    pub(crate) accepted: u64,
    /// Different deliveries that arrived at each vendor first.
    pub(crate) sent: BTreeMap<String, u64>,
    /// Accepted and not arrived.
    pub(crate) lost: u64,
    /// Copies beyond the first.
    pub(crate) duplicates: u64,
    /// Arrived though no call for them was answered with 202.
    pub(crate) unexpected: u64,
    /// Pushes that the ledger had no room for; then the rest is not exact.
    pub(crate) untracked: u64,
    /// Calls that were refused, by reason.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Calls that got no answer.
    pub(crate) unanswered: u64,
}

impl Ledger {
    /// Of arrivals alone.
    pub(crate) fn of(arrivals: impl IntoIterator<Item = Arrival>) -> Self {
        let first = arrivals.into_iter().map(|arrival| (arrival.delivery, arrival)).collect();
        Self { summary: Summary::default(), first }
    }

    /// The account.
    pub(crate) fn verdict(&self, tally: &Tally) -> Verdict {
        let mut sent = BTreeMap::new();
        for arrival in self.first.values() {
            *sent.entry(arrival.vendor.clone()).or_default() += 1;
        }
        Verdict {
            accepted: tally.accepted.len() as u64,
            sent,
            lost: self.summary.lost,
            duplicates: self.summary.duplicates,
            unexpected: self.summary.unexpected,
            untracked: self.summary.untracked,
            refused: tally.refused.clone(),
            unanswered: tally.unanswered,
        }
    }

    /// From 202 to the first arrival, of the deliveries that a test of their
    /// acceptance (unix milliseconds) picks. Both ends are known to the
    /// millisecond; an arrival before its 202 was read counts as none.
    pub(crate) fn arrival(&self, tally: &Tally, which: impl Fn(u64) -> bool) -> Quantiles {
        let picked = tally.accepted.iter().filter(|one| which(one.at_ms));
        Quantiles::of_us(picked.filter_map(|one| {
            let arrival = self.first.get(&one.delivery)?;
            Some(arrival.at_ms.saturating_sub(one.at_ms) * 1000)
        }))
    }

    /// The first arrivals.
    pub(crate) fn arrivals(&self) -> impl Iterator<Item = &Arrival> {
        self.first.values()
    }

    /// Deliveries that first arrived in a span of time (unix milliseconds).
    pub(crate) fn arrived_in(&self, span: std::ops::Range<u64>) -> u64 {
        self.first.values().filter(|arrival| span.contains(&arrival.at_ms)).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(accepted: &[(u128, u64)]) -> Tally {
        let accepted = accepted.iter().map(|&(delivery, at_ms)| Accepted { delivery, at_ms });
        Tally { accepted: accepted.collect(), ..Tally::default() }
    }

    fn ledger(arrivals: &[(u128, &str, u64)]) -> Ledger {
        Ledger::of(arrivals.iter().map(|&(delivery, vendor, at_ms)| Arrival {
            delivery,
            vendor: vendor.to_owned(),
            at_ms,
        }))
    }

    #[test]
    fn arrival_is_measured_from_acceptance_and_never_negative() {
        let tally = tally(&[(1, 100), (2, 200), (3, 300)]);
        let ledger = ledger(&[(1, "apns", 110), (2, "apns", 190)]);
        let all = ledger.arrival(&tally, |_| true);
        // To three digits, as histograms keep them.
        assert_eq!((all.count, all.max_ms.round()), (2, 10.0));
        let second = ledger.arrival(&tally, |at_ms| at_ms >= 200);
        assert_eq!((second.count, second.max_ms), (1, 0.0));
    }

    #[test]
    fn arrivals_are_counted_by_vendor_and_by_span() {
        let ledger = ledger(&[(1, "apns", 100), (2, "fcm", 200), (3, "apns", 300)]);
        let verdict = ledger.verdict(&tally(&[]));
        assert_eq!(verdict.sent, BTreeMap::from([("apns".to_owned(), 2), ("fcm".to_owned(), 1)]));
        assert_eq!(ledger.arrived_in(100..300), 2);
    }

    #[test]
    fn tallies_add_up() {
        let mut all = tally(&[(1, 1)]);
        for _ in 0..2 {
            let mut one = tally(&[(2, 2)]);
            one.refused.insert("503 queue_full".to_owned(), 3);
            one.unanswered = 1;
            all.add(one);
        }
        assert_eq!((all.accepted.len(), all.unanswered), (3, 2));
        assert_eq!(all.refused["503 queue_full"], 6);
    }
}
