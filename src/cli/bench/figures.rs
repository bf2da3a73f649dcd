//! What a game day can be asked: each figure of a scenario's expectations, from
//! the samples, the ledger and the generator's account.
//!
//! Pure, so that the arithmetic can be tested without a router. Times of the
//! samples are known to a quarter of a second, those of arrivals to the
//! millisecond; counts in a span of time are those between the last sample
//! before its beginning and the last one within it.

use std::collections::HashMap;
use std::time::Duration;

use crate::cli::load::admin::{Metrics, Provider};
use crate::cli::load::control::Vendor;
use crate::cli::load::tally::{Ledger, Tally};
use crate::cli::scenario::{Expect, Figure};

/// Router and vendors at one moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// From the run's beginning.
    pub(super) at: Duration,
    pub(super) providers: Vec<Provider>,
    pub(super) vendors: Vec<Vendor>,
}

/// All that was seen.
#[derive(Debug)]
pub(super) struct Run {
    /// Unix milliseconds.
    pub(super) begun_ms: u64,
    pub(super) samples: Vec<Sample>,
    pub(super) ledger: Ledger,
    /// As they were at the end.
    pub(super) metrics: Metrics,
    /// The router's most memory, bytes.
    pub(super) rss: Option<u64>,
}

impl Run {
    /// A figure; `None` where the thing did not happen.
    pub(super) fn figure(&self, expect: &Expect, tally: &Tally) -> Option<f64> {
        let span = Span::of(expect);
        let of = expect.of.as_deref().unwrap_or("apns");
        let verdict = || self.ledger.verdict(tally);
        let ambiguous = || self.metrics.sum("pushyard_ambiguous_total", &[]);
        let state = |state: &str| self.state_after(of, state, expect.reason.as_deref(), &span);
        let picked = |at_ms: u64| span.holds(self.since_begin(at_ms));
        match expect.figure {
            Figure::Lost => Some(verdict().lost as f64),
            Figure::Duplicates => Some(verdict().duplicates as f64),
            Figure::DuplicatesBeyondAmbiguous => {
                Some(verdict().duplicates.saturating_sub(ambiguous()) as f64)
            }
            Figure::AcceptP99Ms => Some(tally.accept(|at| span.holds(at)).p99_ms),
            Figure::SentP99Ms => {
                let quantiles = self.ledger.arrival(tally, picked);
                (quantiles.count > 0).then_some(quantiles.p99_ms)
            }
            Figure::SentWithin5sShare => self.sent_within(tally, Duration::from_secs(5), &span),
            Figure::EjectedAfterS => state("ejected"),
            Figure::DegradedAfterS => state("degraded"),
            Figure::HealthyAfterS => state("healthy"),
            Figure::Ejections => Some(self.changes(of, Some("ejected"), &span)),
            Figure::StateChanges => Some(self.changes(of, None, &span)),
            Figure::ExtraCallsShare => {
                let attempts = self.metrics.sum("pushyard_attempts_total", &[]) as f64;
                share(attempts - tally.accepted.len() as f64, tally.accepted.len() as f64)
            }
            Figure::Calls => Some(self.counted(of, &span).0 as f64),
            Figure::TakenPerS => {
                let taken = self.counted(of, &span).1 as f64;
                let last = self.samples.last()?.at;
                let seconds = span.to.unwrap_or(last).checked_sub(span.from)?.as_secs_f64();
                share(taken, seconds)
            }
            Figure::TakenShare => {
                let (calls, taken) = self.counted(of, &span);
                share(taken as f64, calls as f64)
            }
            Figure::FirstTakenAfterS => {
                let arrived = self.ledger.arrivals().filter(|arrival| arrival.vendor == of);
                let times = arrived.map(|arrival| self.since_begin(arrival.at_ms));
                times
                    .filter(|at| span.holds(*at))
                    .map(|at| (at - span.from).as_secs_f64())
                    .min_by(f64::total_cmp)
            }
            Figure::RssMaxMib => self.rss.map(|bytes| bytes as f64 / 1_048_576.0),
        }
    }

    fn since_begin(&self, at_ms: u64) -> Duration {
        Duration::from_millis(at_ms.saturating_sub(self.begun_ms))
    }

    /// From the span's beginning to the first sample of that state, seconds.
    fn state_after(&self, id: &str, state: &str, reason: Option<&str>, span: &Span) -> Option<f64> {
        let fits = |provider: &Provider| {
            provider.id == id
                && provider.state == state
                && reason.is_none_or(|reason| provider.reason.as_deref() == Some(reason))
        };
        let mut within = self.samples.iter().filter(|sample| span.holds(sample.at));
        let first = within.find(|sample| sample.providers.iter().any(fits))?;
        Some((first.at - span.from).as_secs_f64())
    }

    /// How often the state changed, or changed to `to`.
    fn changes(&self, id: &str, to: Option<&str>, span: &Span) -> f64 {
        let within = self.samples.iter().filter(|sample| span.holds(sample.at));
        let states: Vec<_> = within
            .filter_map(|sample| sample.providers.iter().find(|provider| provider.id == id))
            .map(|provider| provider.state.as_str())
            .collect();
        let pairs = states.iter().zip(states.iter().skip(1));
        pairs.filter(|(old, new)| old != new && to.is_none_or(|to| **new == to)).count() as f64
    }

    /// Requests (without dry runs) and pushes taken of a vendor, or of all (`*`), in a span.
    fn counted(&self, name: &str, span: &Span) -> (u64, u64) {
        let before = self.samples.iter().rfind(|sample| sample.at <= span.from);
        let last = self.samples.iter().rfind(|sample| span.holds(sample.at));
        let count = |sample: Option<&Sample>| {
            let vendors = sample.into_iter().flat_map(|sample| &sample.vendors);
            let fitting = vendors.filter(|vendor| name == "*" || vendor.name == name);
            fitting.fold((0, 0), |sum: (u64, u64), vendor| {
                (sum.0 + vendor.requests.saturating_sub(vendor.probes), sum.1 + vendor.accepted)
            })
        };
        let (from, to) = (count(before), count(last));
        (to.0.saturating_sub(from.0), to.1.saturating_sub(from.1))
    }

    fn sent_within(&self, tally: &Tally, limit: Duration, span: &Span) -> Option<f64> {
        let limit_ms = limit.as_millis() as u64;
        let arrived: HashMap<_, _> =
            self.ledger.arrivals().map(|arrival| (arrival.delivery, arrival.at_ms)).collect();
        let accepted = tally.accepted.iter().filter(|one| span.holds(self.since_begin(one.at_ms)));
        let (mut all, mut in_time) = (0_u64, 0_u64);
        for one in accepted {
            all += 1;
            let at_ms = arrived.get(&one.delivery);
            in_time += u64::from(at_ms.is_some_and(|at_ms| *at_ms <= one.at_ms + limit_ms));
        }
        share(in_time as f64, all as f64)
    }
}

/// A part of the run.
struct Span {
    from: Duration,
    to: Option<Duration>,
}

impl Span {
    fn of(expect: &Expect) -> Self {
        Self { from: expect.from.unwrap_or_default(), to: expect.to }
    }

    fn holds(&self, at: Duration) -> bool {
        at >= self.from && self.to.is_none_or(|to| at < to)
    }
}

fn share(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_s: u64, state: &str, requests: u64) -> Sample {
        Sample {
            at: Duration::from_secs(at_s),
            providers: vec![Provider {
                id: "apns".to_owned(),
                state: state.to_owned(),
                reason: (state == "ejected").then(|| "stall".to_owned()),
                ..Provider::default()
            }],
            vendors: vec![Vendor {
                name: "apns".to_owned(),
                requests,
                probes: 0,
                accepted: requests / 2,
            }],
        }
    }

    fn figure(figure: Figure, from: u64, reason: Option<&str>) -> Option<f64> {
        let states = ["healthy", "ejected", "ejected", "probing", "ejected", "healthy"];
        let samples = (0..).zip(states).map(|(at, state)| sample(at, state, at * 10)).collect();
        let run = Run {
            begun_ms: 0,
            samples,
            ledger: Ledger::default(),
            metrics: Metrics::default(),
            rss: None,
        };
        let expect = Expect {
            figure,
            of: Some("apns".to_owned()),
            reason: reason.map(str::to_owned),
            from: Some(Duration::from_secs(from)),
            to: Some(Duration::from_secs(6)),
            at_most: None,
            at_least: None,
        };
        run.figure(&expect, &Tally::default())
    }

    #[test]
    fn figures_follow_from_the_samples() {
        let table = [
            (Figure::EjectedAfterS, 0, None, Some(1.0)),
            (Figure::EjectedAfterS, 3, Some("stall"), Some(1.0)),
            (Figure::EjectedAfterS, 0, Some("auth"), None),
            (Figure::DegradedAfterS, 0, None, None),
            (Figure::HealthyAfterS, 1, None, Some(4.0)),
            (Figure::Ejections, 0, None, Some(2.0)),
            (Figure::StateChanges, 0, None, Some(4.0)),
            (Figure::Calls, 2, None, Some(30.0)),
            (Figure::TakenPerS, 2, None, Some(3.75)),
            (Figure::TakenShare, 2, None, Some(0.5)),
            (Figure::RssMaxMib, 0, None, None),
            (Figure::SentP99Ms, 0, None, None),
        ];
        for (name, from, reason, expected) in table {
            assert_eq!(figure(name, from, reason), expected, "{name:?} from {from}");
        }
    }
}
