//! What a game day can be asked: each figure of a scenario's expectations, from
//! the samples, the ledger and the generator's account.
//!
//! Pure, so that the arithmetic can be tested without a router. Times of the
//! samples are known to a quarter of a second, those of arrivals to the
//! millisecond; counts in a span of time are those between the last sample
//! before its beginning and the last one within it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::attempts::Histories;
use crate::cli::load::admin::{Metrics, Part, Provider, WHOLE};
use crate::cli::load::control::Vendor;
use crate::cli::load::figures::Quantiles;
use crate::cli::load::tally::{Ledger, Tally};
use crate::cli::scenario::{Expect, Figure};

/// A baseline counts as this much at least, in milliseconds: twice next to nothing is
/// still next to nothing, and a timer's grain would decide.
const LEAST_BASELINE_MS: f64 = 5.0;

const EJECTED: &str = "ejected";

/// Router and vendors at one moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// From the run's beginning.
    pub(super) at: Duration,
    pub(super) providers: Vec<Provider>,
    pub(super) vendors: Vec<Vendor>,
    /// Deliveries that are not settled.
    pub(super) unsettled: u64,
    /// The router's memory, bytes.
    pub(super) rss: Option<u64>,
}

/// All that was seen.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Unix milliseconds.
    pub(super) begun_ms: u64,
    /// When the first thing happened, where it was not at the beginning.
    pub(super) first_step: Option<Duration>,
    /// What was sent, all of it and by the name of its stream.
    pub(super) tally: Tally,
    pub(super) streams: BTreeMap<String, Tally>,
    pub(super) samples: Vec<Sample>,
    pub(super) ledger: Ledger,
    /// The attempts of the messages that were read back.
    pub(super) histories: Histories,
    /// The provider of each address that is listed as gone.
    pub(super) gone: Vec<String>,
    /// As they were at the end.
    pub(super) metrics: Metrics,
    /// The router's most memory, bytes.
    pub(super) rss: Option<u64>,
}

impl Run {
    /// A figure; `None` where the thing did not happen.
    pub(super) fn figure(&self, expect: &Expect) -> Option<f64> {
        let span = Span::of(expect);
        let of = expect.of.as_deref().unwrap_or("apns");
        let tally = self.tally(expect);
        let verdict = || self.ledger.verdict(tally);
        let ambiguous = || self.metrics.sum("pushyard_ambiguous_total", &[]);
        let fits = |why: Option<&str>| expect.reason.as_deref().is_none_or(|it| why == Some(it));
        let state = |state: &str| {
            self.first_shown(of, &span, |one| one.state == state && fits(one.reason.as_deref()))
        };
        let picked = |at_ms: u64| span.holds(self.since_begin(at_ms));
        match *expect.figure.get_ref() {
            Figure::Lost => Some(verdict().lost as f64),
            Figure::Duplicates => Some(verdict().duplicates as f64),
            Figure::DuplicatesBeyondAmbiguous => {
                Some(verdict().duplicates.saturating_sub(ambiguous()) as f64)
            }
            Figure::Ambiguous => {
                Some(self.metrics.sum("pushyard_ambiguous_total", &[("provider", of)]) as f64)
            }
            Figure::AcceptP99Ms => p99(tally.accept(|at| span.holds(at))),
            Figure::AcceptP99Times => self.times(expect, &|span| tally.accept(|at| span.holds(at))),
            Figure::SentP99Ms => p99(self.ledger.arrival(tally, picked)),
            Figure::SentP99Times => self.times(expect, &|span| {
                self.ledger.arrival(tally, |at_ms| span.holds(self.since_begin(at_ms)))
            }),
            Figure::SentWithin5sShare => self.sent_within(tally, Duration::from_secs(5), &span),
            Figure::SentShare => self.sent_share(tally, of, &span),
            Figure::FailoverP99Ms => {
                p99(Quantiles::of_us(self.histories.failovers_us(&self.messages(expect), picked)))
            }
            Figure::EjectedAfterS => state(EJECTED),
            Figure::PartEjectedAfterS => self.first_shown(of, &span, |one| {
                let ejected = |key: &Part| key.state == EJECTED && fits(key.reason.as_deref());
                one.keys.iter().filter(|key| key.part != WHOLE).any(ejected)
            }),
            Figure::DegradedAfterS => state("degraded"),
            Figure::HealthyAfterS => state("healthy"),
            Figure::Ejections => Some(self.ejections(of, &span)),
            Figure::StateChanges => Some(self.changes(of, &span)),
            Figure::ExtraCallsShare => {
                let attempts = self.metrics.sum("pushyard_attempts_total", &[]) as f64;
                share(attempts - tally.accepted.len() as f64, tally.accepted.len() as f64)
            }
            Figure::Calls => Some(self.counted(of, &span).0 as f64),
            Figure::CallsPerS => self.per_second(self.counted(of, &span).0, &span),
            Figure::CallsBeyondInFlight => self
                .histories
                .calls_beyond_in_flight(&self.messages(expect), of, picked)
                .map(|calls| calls as f64),
            Figure::Refreshes => Some(self.counted("fcm-oauth", &span).0 as f64),
            Figure::TakenPerS => self.per_second(self.counted(of, &span).1, &span),
            Figure::TakenShare => {
                let (calls, taken) = self.counted(of, &span);
                share(taken as f64, calls as f64)
            }
            Figure::RefusedShare => {
                let (calls, taken) = self.counted(of, &span);
                share(calls.saturating_sub(taken) as f64, calls as f64)
            }
            Figure::FirstTakenAfterS => {
                let arrived = self.ledger.arrivals().filter(|arrival| arrival.vendor == of);
                let times = arrived.map(|arrival| self.since_begin(arrival.at_ms));
                times
                    .filter(|at| span.holds(*at))
                    .map(|at| (at - span.from).as_secs_f64())
                    .min_by(f64::total_cmp)
            }
            Figure::GoneReported => {
                Some(self.gone.iter().filter(|provider| *provider == of).count() as f64)
            }
            Figure::InFlightOverRamp => self.in_flight_over_ramp(of, &span),
            Figure::RssMaxMib => self.rss.map(|bytes| bytes as f64 / 1_048_576.0),
            Figure::RssPerDeliveryBytes => self.rss_per_delivery(expect.unsettled_from),
        }
    }

    /// The messages that an expectation is about, by the time when they were due: those
    /// that must be read back for it.
    pub(super) fn messages(&self, expect: &Expect) -> Vec<u128> {
        let span = Span::of(expect);
        let calls = self.tally(expect).calls.iter().filter(|call| span.holds(call.at));
        calls.map(|call| call.message).collect()
    }

    /// What was sent by the streams that an expectation is about.
    fn tally(&self, expect: &Expect) -> &Tally {
        let name = expect.traffic.as_ref().map(|name| name.get_ref().as_str());
        name.and_then(|name| self.streams.get(name)).unwrap_or(&self.tally)
    }

    /// The p99 of the span by that of the baseline.
    fn times(&self, expect: &Expect, of: &dyn Fn(&Span) -> Quantiles) -> Option<f64> {
        let baseline =
            Span { from: Duration::ZERO, to: Some(expect.baseline_to.or(self.first_step)?) };
        let before = p99(of(&baseline))?.max(LEAST_BASELINE_MS);
        Some(p99(of(&Span::of(expect)))? / before)
    }

    fn per_second(&self, count: u64, span: &Span) -> Option<f64> {
        let to = span.to.unwrap_or(self.samples.last()?.at);
        share(count as f64, to.checked_sub(span.from)?.as_secs_f64())
    }

    fn since_begin(&self, at_ms: u64) -> Duration {
        Duration::from_millis(at_ms.saturating_sub(self.begun_ms))
    }

    /// From the span's beginning to the first sample that shows it so, seconds.
    fn first_shown(&self, id: &str, span: &Span, fits: impl Fn(&Provider) -> bool) -> Option<f64> {
        let first = self.shown(id, span).find(|(_, provider)| fits(provider))?;
        Some((first.0 - span.from).as_secs_f64())
    }

    /// How often the state changed.
    fn changes(&self, id: &str, span: &Span) -> f64 {
        let states: Vec<_> = self.shown(id, span).map(|(_, one)| one.state.as_str()).collect();
        states.iter().zip(states.iter().skip(1)).filter(|(old, new)| old != new).count() as f64
    }

    /// How often the provider or a part of it became ejected.
    fn ejections(&self, id: &str, span: &Span) -> f64 {
        let ejected: Vec<_> = self.shown(id, span).map(|(_, one)| ejected(one)).collect();
        let pairs = ejected.iter().zip(ejected.iter().skip(1));
        pairs.map(|(old, new)| new.difference(old).count()).sum::<usize>() as f64
    }

    fn shown<'a>(
        &'a self,
        id: &'a str,
        span: &'a Span,
    ) -> impl Iterator<Item = (Duration, &'a Provider)> {
        let within = self.samples.iter().filter(|sample| span.holds(sample.at));
        within.filter_map(move |sample| {
            Some((sample.at, sample.providers.iter().find(|provider| provider.id == id)?))
        })
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

    /// The most calls in flight beyond what the limit, its ramp included, allows and one.
    fn in_flight_over_ramp(&self, id: &str, span: &Span) -> Option<f64> {
        let within = self.samples.iter().filter(|sample| span.holds(sample.at));
        let shown = within.flat_map(|sample| &sample.providers).filter(|one| one.id == id);
        shown.map(|one| one.in_flight as f64 - (one.limit as f64 + 1.0)).max_by(f64::total_cmp)
    }

    /// Growth of memory from the first sample with so many unsettled deliveries to the
    /// one with the most, by the growth of their number.
    fn rss_per_delivery(&self, from: u64) -> Option<f64> {
        let first = self.samples.iter().find(|sample| sample.unsettled >= from)?;
        let most = self.samples.iter().max_by_key(|sample| sample.unsettled)?;
        let growth = most.rss? as f64 - first.rss? as f64;
        share(growth, (most.unsettled - first.unsettled) as f64)
    }

    /// Of the deliveries that arrived anywhere, the share that arrived there first.
    fn sent_share(&self, tally: &Tally, vendor: &str, span: &Span) -> Option<f64> {
        let arrived: HashMap<_, _> = self
            .ledger
            .arrivals()
            .map(|arrival| (arrival.delivery, arrival.vendor.as_str()))
            .collect();
        let accepted = tally.accepted.iter().filter(|one| span.holds(self.since_begin(one.at_ms)));
        let (mut all, mut there) = (0_u64, 0_u64);
        for at in accepted.filter_map(|one| arrived.get(&one.delivery)) {
            all += 1;
            there += u64::from(*at == vendor);
        }
        share(there as f64, all as f64)
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

/// The parts that are ejected, the whole among them.
fn ejected(provider: &Provider) -> HashSet<&str> {
    let keys = provider.keys.iter().filter(|key| key.part != WHOLE && key.state == EJECTED);
    let whole = (provider.state == EJECTED).then_some(WHOLE);
    keys.map(|key| key.part.as_str()).chain(whole).collect()
}

fn p99(quantiles: Quantiles) -> Option<f64> {
    (quantiles.count > 0).then_some(quantiles.p99_ms)
}

fn share(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

#[cfg(test)]
#[path = "figures_tests.rs"]
mod tests;
