//! The list of what can happen, and what is told of it: one place makes the log
//! line and the metric together. Nothing at `info` grows with traffic; what
//! repeats is told once a second with its count.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use pushyard_providers::{Answer, Outcome};
use tracing::{debug, error, info, warn};

use super::hub::{Hub, HubEvent};
use super::metrics::{Attempts, Metrics};
use crate::clock::{Clock, Now, millis};
use crate::model::{DeliveryId, Reason, State, TraceId};

/// A burst of failovers is one line in this time.
const BURST: Duration = Duration::from_secs(1);

/// What came of an offered message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageResult {
    /// Taken.
    Accepted,
    /// The first answer was given again.
    Replayed,
    /// It was faulty.
    Invalid,
    /// Its client was over its rate.
    RateLimited,
    /// There was no room for it.
    Rejected,
}

impl MessageResult {
    /// The label.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Replayed => "replayed",
            Self::Invalid => "invalid",
            Self::RateLimited => "rate_limited",
            Self::Rejected => "rejected",
        }
    }
}

/// What came of telling a client of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventResult {
    /// Its server took it.
    Told,
    /// It did not; it is tried again.
    Failed,
    /// It never did, and is not tried again.
    Dropped,
}

impl EventResult {
    /// The label.
    const fn word(self) -> &'static str {
        match self {
            Self::Told => "told",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

/// See the module. One for the process, shared.
#[derive(Debug)]
pub struct Telemetry {
    metrics: Metrics,
    clock: Arc<Clock>,
    hub: Hub,
    bursts: Mutex<HashMap<Failover, Burst>>,
}

/// What a burst of failovers has in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Failover {
    route: Arc<str>,
    from: Arc<str>,
    to: Arc<str>,
    reason: &'static str,
}

#[derive(Debug)]
struct Burst {
    told: Instant,
    untold: u64,
}

impl Telemetry {
    /// The configuration was read again, and taken or refused.
    pub fn reloaded(&self, taken: bool) {
        let result = if taken { "ok" } else { "invalid" };
        self.metrics.config_reloads.with_label_values(&[result]).inc();
        self.metrics.config_last_reload.set(i64::from(taken));
    }

    /// With all metrics at zero.
    pub fn new(clock: Arc<Clock>) -> Self {
        let hub = Hub::new(clock.now().utc);
        Self { metrics: Metrics::default(), clock, hub, bursts: Mutex::default() }
    }

    /// The metrics, to scrape and to get handles of.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What operators can watch.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The handles of one provider's calls.
    pub fn attempts_of(&self, provider: &str) -> Attempts {
        self.metrics.attempts_of(provider)
    }

    /// A message was offered.
    pub fn message(&self, client: &str, result: MessageResult) {
        self.metrics.messages.with_label_values(&[client, result.word()]).inc();
    }

    /// A client was told of an event, or was not.
    pub fn client_event(&self, client: &str, result: EventResult) {
        self.metrics.client_events.with_label_values(&[client, result.word()]).inc();
    }

    /// A request was answered.
    pub fn request(&self, listener: &str, path: &str, status: u16) {
        let status = status.to_string();
        self.metrics.http_requests.with_label_values(&[listener, path, &status]).inc();
    }

    /// An alarm goes on or off.
    pub fn alarm(&self, name: &'static str, on: bool) {
        let gauge = self.metrics.alarm.with_label_values(&[name]);
        let was_on = gauge.get() == 1;
        if on && !was_on {
            error!(alarm = name, "alarm");
        } else if !on && was_on {
            info!(alarm = name, "alarm is over");
        }
        if on != was_on {
            let word = |on: bool| Some(if on { "on" } else { "off" }.to_owned());
            self.publish(HubEvent {
                name: "alarm",
                from: word(was_on),
                to: word(on),
                reason: Some(name.to_owned()),
                ..HubEvent::default()
            });
        }
        gauge.set(i64::from(on));
    }

    /// An operator did something; `name` is that of the hub's event.
    pub fn operator(&self, event: HubEvent) {
        let by = event.by.as_deref();
        let (provider, route) = (event.provider.as_deref(), event.route.as_deref());
        let (what, reason) = (event.to.as_deref(), event.reason.as_deref());
        info!(by, what, provider, route, reason, "operator");
        self.publish(event);
    }

    /// A delivery has settled.
    pub fn settled(&self, event: &DeliverySettled<'_>) {
        let DeliverySettled { delivery, route, state, reason, took } = *event;
        self.metrics.deliveries.with_label_values(&[route, state.word()]).inc();
        if state == State::Sent {
            let seconds = self.metrics.delivery_seconds.with_label_values(&[route]);
            seconds.observe(took.as_secs_f64());
        }
        let reason = reason.map(Reason::word);
        debug!(%delivery, state = state.word(), reason, "delivery settled");
    }

    /// An attempt has ended. Its counters are the stack's; here is what is left
    /// to tell.
    pub fn attempted(
        &self,
        delivery: DeliveryId,
        trace: Option<TraceId>,
        provider: &str,
        answer: &Answer,
        took: Duration,
    ) {
        let (status, code) = (answer.status, answer.code.as_deref());
        if answer.outcome == Outcome::AddressGone {
            self.metrics.addresses_gone.with_label_values(&[provider]).inc();
        }
        if answer.unexpected {
            warn!(provider, status, code, "vendor answered what its documentation does not list");
        }
        debug!(
            %delivery,
            trace_id = trace.map(display),
            provider,
            outcome = answer.outcome.word(),
            status,
            code,
            detail = answer.detail.as_deref(),
            latency_ms = millis(took),
            "attempt"
        );
    }

    /// A probe has ended.
    pub fn probed(&self, provider: &str, ok: bool, answer: &Answer) {
        let result = if ok { "ok" } else { "fail" };
        self.metrics.probes.with_label_values(&[provider, result]).inc();
        let (code, detail) = (answer.code.as_deref(), answer.detail.as_deref());
        debug!(provider, ok, code, detail, "probe");
    }

    /// A breaker moved.
    pub fn provider_moved(&self, event: &ProviderMoved<'_>) {
        let ProviderMoved { provider, part, from, to, reason } = *event;
        if to == "ejected" {
            warn!(provider, part, from, to, reason, "provider state changed");
        } else {
            info!(provider, part, from, to, reason, "provider state changed");
        }
        self.publish(HubEvent {
            name: "provider.state",
            provider: Some(provider.into()),
            part: Some(part.to_owned()),
            from: Some(from.to_owned()),
            to: Some(to.to_owned()),
            reason: reason.map(str::to_owned),
            ..HubEvent::default()
        });
    }

    /// A delivery went to another provider: counted at once, told as a burst.
    pub fn failed_over(
        &self,
        route: &Arc<str>,
        from: &Arc<str>,
        to: &Arc<str>,
        reason: &'static str,
    ) {
        let (route, from, to) = (route.clone(), from.clone(), to.clone());
        self.failover(&Failover { route, from, to, reason });
    }

    fn failover(&self, failover: &Failover) {
        let Failover { route, from, to, reason } = failover;
        self.metrics.failovers.with_label_values(&[&**route, &**from, &**to, *reason]).inc();
        let now = self.clock.now().instant;
        let mut bursts = self.bursts.lock().expect("no code panics while it holds this lock");
        let burst = bursts
            .entry(failover.clone())
            .or_insert(Burst { told: now.checked_sub(BURST).unwrap_or(now), untold: 0 });
        burst.untold += 1;
        if now.saturating_duration_since(burst.told) >= BURST {
            self.tell_burst(failover, burst, now);
        }
    }

    /// Tells bursts that have ended, once a second.
    pub fn flush(&self, now: Now) {
        let mut bursts = self.bursts.lock().expect("no code panics while it holds this lock");
        for (failover, burst) in bursts.iter_mut() {
            let due = now.instant.saturating_duration_since(burst.told) >= BURST;
            if burst.untold > 0 && due {
                self.tell_burst(failover, burst, now.instant);
            }
        }
        bursts.retain(|_, burst| {
            now.instant.saturating_duration_since(burst.told) < 60 * BURST || burst.untold > 0
        });
    }

    fn tell_burst(&self, failover: &Failover, burst: &mut Burst, now: Instant) {
        let Failover { route, from, to, reason } = failover;
        let count = burst.untold;
        warn!(route = &**route, from = &**from, to = &**to, reason, count, "failover");
        self.publish(HubEvent {
            name: "failover",
            route: Some(route.clone()),
            from: Some(from.to_string()),
            to: Some(to.to_string()),
            reason: Some((*reason).to_owned()),
            count: Some(count),
            ..HubEvent::default()
        });
        *burst = Burst { told: now, untold: 0 };
    }

    fn publish(&self, event: HubEvent) {
        self.hub.publish(HubEvent { at: self.clock.now().utc, ..event });
    }
}

/// A delivery has settled.
#[derive(Clone, Copy, Debug)]
pub struct DeliverySettled<'a> {
    /// Which.
    pub delivery: DeliveryId,
    /// On which route.
    pub route: &'a str,
    /// As what.
    pub state: State,
    /// Why.
    pub reason: Option<Reason>,
    /// Since acceptance, or since it was to be delivered.
    pub took: Duration,
}

/// A breaker moved.
#[derive(Clone, Copy, Debug)]
pub struct ProviderMoved<'a> {
    /// Whose.
    pub provider: &'a str,
    /// Of which part; empty: the whole.
    pub part: &'a str,
    /// The state before.
    pub from: &'static str,
    /// The state after.
    pub to: &'static str,
    /// Why.
    pub reason: Option<&'static str>,
}
