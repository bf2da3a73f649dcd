//! Every metric there is. Names and labels are a contract (docs/metrics.md);
//! labels have few values: never a token, a user, a topic or a message id.
//!
//! Counters are counted where things happen; gauges are read off the engine's
//! snapshot when someone scrapes, so nothing is computed for nobody.

use std::time::Duration;

use prometheus::{
    CounterVec, Encoder, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter,
    IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use pushyard_providers::stream::HubFigures;
use pushyard_providers::{Outcome, Priority};

/// What a route without a usable tier shows.
const NO_TIER: i64 = -1;
/// 1 ms to 60 s: from a healthy vendor's answer to a delivery that waited for one.
const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Rows of a commit: one, to the most that a batch takes.
const ROWS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0];

/// The five words of a provider's state; exactly one of them is 1.
pub const PROVIDER_STATES: [&str; 5] = ["healthy", "degraded", "ejected", "probing", "drained"];

/// All metrics, registered.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub(super) messages: IntCounterVec,
    pub(super) deliveries: IntCounterVec,
    pub(super) delivery_seconds: HistogramVec,
    pub(super) attempts: IntCounterVec,
    pub(super) attempt_seconds: HistogramVec,
    pub(super) ambiguous: IntCounterVec,
    pub(super) failovers: IntCounterVec,
    pub(super) probes: IntCounterVec,
    pub(super) addresses_gone: IntCounterVec,
    pub(super) http_requests: IntCounterVec,
    pub(super) client_events: IntCounterVec,
    events_pending: IntGauge,
    pub(super) alarm: IntGaugeVec,
    provider_state: IntGaugeVec,
    provider_success_ratio: GaugeVec,
    provider_in_flight: IntGaugeVec,
    provider_concurrency_limit: IntGaugeVec,
    provider_connections: IntGaugeVec,
    provider_credential_expiry: IntGaugeVec,
    parked: IntGaugeVec,
    route_usable_tier: IntGaugeVec,
    cost: CounterVec,
    queue_deliveries: IntGaugeVec,
    queue_oldest_seconds: GaugeVec,
    store_commit_seconds: Histogram,
    store_commit_rows: Histogram,
    store_commits: IntCounter,
    store_bytes: IntGauge,
    dead_letters: IntGauge,
    stream_subscribers: IntGauge,
    stream_topics: IntGauge,
    stream_backlog: IntGauge,
    stream_dropped: IntCounterVec,
    pub(super) config_reloads: IntCounterVec,
    pub(super) config_last_reload: IntGauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let new = Maker(Registry::new());
        let metrics = Self {
            messages: new.counters(
                "messages_total",
                "Messages offered, by client and what came of it.",
                &["client", "result"],
            ),
            deliveries: new.counters(
                "deliveries_total",
                "Deliveries that have settled.",
                &["route", "state"],
            ),
            delivery_seconds: new.histograms(
                "delivery_seconds",
                "From acceptance (or deliver_at) to sent.",
                &["route"],
            ),
            attempts: new.counters("attempts_total", "Calls to vendors.", &["provider", "outcome"]),
            attempt_seconds: new.histograms(
                "attempt_seconds",
                "Time of a call to a vendor.",
                &["provider"],
            ),
            ambiguous: new.counters(
                "ambiguous_total",
                "Calls whose end is unknown: each may have made a duplicate.",
                &["provider"],
            ),
            failovers: new.counters(
                "failovers_total",
                "Attempts that went to another provider because of the last outcome or of health.",
                &["route", "from", "to", "reason"],
            ),
            probes: new.counters("probes_total", "Active probes.", &["provider", "result"]),
            addresses_gone: new.counters(
                "addresses_gone_total",
                "Addresses that a vendor declared gone.",
                &["provider"],
            ),
            http_requests: new.counters(
                "http_requests_total",
                "Requests to our listeners, by route template.",
                &["listener", "path", "status"],
            ),
            client_events: new.counters(
                "client_events_total",
                "Events posted to clients, by what came of it.",
                &["client", "result"],
            ),
            events_pending: new.gauge("events_pending", "Client events not yet delivered."),
            alarm: new.gauges("alarm", "1 while someone should look.", &["name"]),
            provider_state: new.gauges(
                "provider_state",
                "1 for the state a provider is in.",
                &["provider", "state"],
            ),
            provider_success_ratio: new.float_gauges(
                "provider_success_ratio",
                "Share of successes in the passive window.",
                &["provider"],
            ),
            provider_in_flight: new.gauges("provider_in_flight", "Calls in flight.", &["provider"]),
            provider_concurrency_limit: new.gauges(
                "provider_concurrency_limit",
                "How many calls may be in flight now.",
                &["provider"],
            ),
            provider_connections: new.gauges(
                "provider_connections",
                "Open connections.",
                &["provider"],
            ),
            provider_credential_expiry: new.gauges(
                "provider_credential_expiry_timestamp_seconds",
                "When the credential ends, unix time.",
                &["provider"],
            ),
            parked: new.gauges(
                "parked_deliveries",
                "Deliveries that could go to a provider and wait.",
                &["provider"],
            ),
            route_usable_tier: new.gauges(
                "route_usable_tier",
                "The best tier with a usable provider, 0 the first; -1: none.",
                &["route"],
            ),
            cost: new.float_counters("cost_total", "Cost of accepted calls.", &["provider"]),
            queue_deliveries: new.gauges(
                "queue_deliveries",
                "Unsettled deliveries, by state.",
                &["state"],
            ),
            queue_oldest_seconds: new.float_gauges(
                "queue_oldest_seconds",
                "Age of the oldest delivery that waits.",
                &["route", "priority"],
            ),
            store_commit_seconds: new.histogram(
                "store_commit_seconds",
                "Time of a commit, flush included.",
                SECONDS,
            ),
            store_commit_rows: new.histogram("store_commit_rows", "Rows of a commit.", ROWS),
            store_commits: new.counter("store_commits_total", "Commits."),
            store_bytes: new.gauge("store_bytes", "Bytes that the store occupies."),
            dead_letters: new.gauge("dead_letters", "What could not be delivered and is kept."),
            stream_subscribers: new.gauge("stream_subscribers", "Devices that listen now."),
            stream_topics: new.gauge("stream_topics", "Topics that somebody listens to."),
            stream_backlog: new
                .gauge("stream_backlog_messages", "Messages kept for devices that are away."),
            stream_dropped: new.counters(
                "stream_dropped_total",
                "Subscribers that were dropped.",
                &["reason"],
            ),
            config_reloads: new.counters(
                "config_reloads_total",
                "Reloads of the configuration.",
                &["result"],
            ),
            config_last_reload: new
                .gauge("config_last_reload_success", "Whether the last reload was taken."),
            registry: Registry::new(),
        };
        for result in ["ok", "invalid"] {
            metrics.config_reloads.with_label_values(&[result]);
        }
        metrics.config_last_reload.set(1);
        let build = new.gauges("build_info", "1; what is running.", &["version", "revision"]);
        let revision = option_env!("PUSHYARD_REVISION").unwrap_or("unknown");
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), revision]).set(1);
        Self { registry: new.0, ..metrics }
    }
}

impl Metrics {
    /// The handles of one provider's calls.
    pub fn attempts_of(&self, provider: &str) -> Attempts {
        Attempts {
            by_outcome: Outcome::ALL
                .map(|outcome| self.attempts.with_label_values(&[provider, outcome.word()])),
            seconds: self.attempt_seconds.with_label_values(&[provider]),
            ambiguous: self.ambiguous.with_label_values(&[provider]),
        }
    }

    /// A commit took place.
    pub fn committed(&self, rows: u32, took: Duration) {
        self.store_commits.inc();
        self.store_commit_rows.observe(f64::from(rows));
        self.store_commit_seconds.observe(took.as_secs_f64());
    }

    /// Everything in the Prometheus text format, with gauges as given.
    pub fn scrape(&self, now: &Scrape<'_>) -> Vec<u8> {
        self.forget_gauges();
        for provider in &now.providers {
            self.read_provider(provider);
        }
        for (route, tier) in &now.usable_tiers {
            let tier = tier.map_or(NO_TIER, i64::from);
            self.route_usable_tier.with_label_values(&[*route]).set(tier);
        }
        for (state, count) in now.queue {
            self.queue_deliveries.with_label_values(&[state]).set(signed(count));
        }
        for (route, priority, age) in &now.oldest {
            self.queue_oldest_seconds
                .with_label_values(&[*route, priority.word()])
                .set(age.as_secs_f64());
        }
        self.store_bytes.set(signed(now.store_bytes));
        self.dead_letters.set(signed(now.dead_letters));
        self.stream_subscribers.set(signed(now.stream.subscribers));
        self.stream_topics.set(signed(now.stream.topics));
        self.stream_backlog.set(signed(now.stream.backlog));
        let dropped = self.stream_dropped.with_label_values(&["slow"]);
        dropped.inc_by(now.stream.dropped_slow.saturating_sub(dropped.get()));
        self.events_pending.set(signed(now.events_pending));
        let mut text = Vec::new();
        // Writing into memory cannot fail; a family that cannot be written is left out.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        text
    }

    /// What is not there any more must not show its last value for ever.
    fn forget_gauges(&self) {
        for gauge in [
            &self.provider_state,
            &self.provider_in_flight,
            &self.provider_concurrency_limit,
            &self.provider_connections,
            &self.provider_credential_expiry,
            &self.parked,
            &self.route_usable_tier,
        ] {
            gauge.reset();
        }
        self.provider_success_ratio.reset();
        self.queue_oldest_seconds.reset();
    }

    fn read_provider(&self, provider: &ProviderGauges<'_>) {
        let id = &[provider.id];
        for state in PROVIDER_STATES {
            let is = i64::from(state == provider.state);
            self.provider_state.with_label_values(&[provider.id, state]).set(is);
        }
        self.provider_success_ratio.with_label_values(id).set(provider.success_ratio);
        self.provider_in_flight.with_label_values(id).set(i64::from(provider.in_flight));
        self.provider_concurrency_limit.with_label_values(id).set(i64::from(provider.limit));
        self.provider_connections.with_label_values(id).set(signed(provider.connections));
        self.parked.with_label_values(id).set(signed(provider.parked));
        let cost = self.cost.with_label_values(id);
        cost.inc_by((provider.cost - cost.get()).max(0.0));
        if let Some(expires_at) = provider.credential_expires_at {
            self.provider_credential_expiry.with_label_values(id).set(signed(expires_at));
        }
    }
}

/// What the gauges show at a scrape.
#[derive(Debug, Default)]
pub struct Scrape<'a> {
    /// Each provider.
    pub providers: Vec<ProviderGauges<'a>>,
    /// The best usable tier of each route, 0 the first; `None`: none.
    pub usable_tiers: Vec<(&'a str, Option<u8>)>,
    /// Unsettled deliveries by state.
    pub queue: [(&'static str, u64); 3],
    /// Age of the oldest that waits, by route and priority.
    pub oldest: Vec<(&'a str, Priority, Duration)>,
    /// Bytes that the store occupies.
    pub store_bytes: u64,
    /// What could not be delivered and is kept.
    pub dead_letters: u64,
    /// The devices' own channel.
    pub stream: HubFigures,
    /// Client events not yet delivered.
    pub events_pending: u64,
}

/// A provider's gauges.
#[derive(Debug)]
pub struct ProviderGauges<'a> {
    /// Its id.
    pub id: &'a str,
    /// One of [`PROVIDER_STATES`].
    pub state: &'static str,
    /// Share of successes in the window.
    pub success_ratio: f64,
    /// Calls in flight.
    pub in_flight: u32,
    /// How many there may be.
    pub limit: u32,
    /// Open connections.
    pub connections: u64,
    /// Deliveries that could go there and wait.
    pub parked: u64,
    /// Cost of accepted calls so far.
    pub cost: f64,
    /// When the credential ends, unix seconds.
    pub credential_expires_at: Option<u64>,
}

/// One provider's call metrics, looked up once.
#[derive(Clone)]
pub struct Attempts {
    by_outcome: [IntCounter; 8],
    seconds: Histogram,
    ambiguous: IntCounter,
}

impl Attempts {
    /// A call ended.
    pub fn record(&self, outcome: Outcome, took: Duration) {
        // `Outcome::ALL` is in the order of the variants' numbers.
        self.by_outcome[outcome as usize].inc();
        self.seconds.observe(took.as_secs_f64());
        if outcome == Outcome::Ambiguous {
            self.ambiguous.inc();
        }
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Makes metrics and registers them under the common prefix.
struct Maker(Registry);

/// Names are constants of this file, valid and distinct; the test below makes them all.
const NAMES_ARE_VALID: &str = "metric names in this file are valid and distinct";

impl Maker {
    fn add<M: prometheus::core::Collector + Clone + 'static>(
        &self,
        metric: prometheus::Result<M>,
    ) -> M {
        let metric = metric.expect(NAMES_ARE_VALID);
        self.0.register(Box::new(metric.clone())).expect(NAMES_ARE_VALID);
        metric
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(opts(name, help), labels))
    }

    fn float_counters(&self, name: &str, help: &str, labels: &[&str]) -> CounterVec {
        self.add(CounterVec::new(opts(name, help), labels))
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::with_opts(opts(name, help)))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(opts(name, help), labels))
    }

    fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.add(GaugeVec::new(opts(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::with_opts(opts(name, help)))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        self.add(HistogramVec::new(histogram_opts(name, help, SECONDS), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.add(Histogram::with_opts(histogram_opts(name, help, buckets)))
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("pushyard")
}

fn histogram_opts(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::new(name, help).namespace("pushyard").buckets(buckets.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_can_be_registered_and_scraped() {
        let text = Metrics::default().scrape(&Scrape::default());
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("pushyard_build_info{"), "{text}");
        assert!(text.contains("pushyard_store_commit_seconds_bucket"), "{text}");
    }
}
