//! A provider as the admin API shows it, as far as people are shown it.
//!
//! Everything may be missing: the router may be of another version.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::clock::Utc;

/// A page of providers.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    pub(super) items: Vec<Provider>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Provider {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) state: String,
    pub(super) reason: Option<String>,
    pub(super) since: Option<String>,
    pub(super) until: Option<String>,
    /// An operator's word, whatever its shape.
    pub(super) operator: Value,
    pub(super) window: Window,
    pub(super) latency_ms: Latency,
    pub(super) in_flight: u64,
    pub(super) limit: Option<f64>,
    pub(super) rate: Option<f64>,
    pub(super) connections: u64,
    pub(super) parked: u64,
    pub(super) paused_until: Option<String>,
    pub(super) keys: Vec<Key>,
    pub(super) credential: Credential,
    pub(super) last_probe: Option<Probe>,
    pub(super) last_errors: Vec<LastError>,
    pub(super) cost: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Window {
    pub(super) seconds: f64,
    pub(super) successes: u64,
    pub(super) failures: u64,
    pub(super) ratio: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Latency {
    pub(super) p50: Option<f64>,
    pub(super) p95: Option<f64>,
    pub(super) p99: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Key {
    pub(super) part: String,
    pub(super) state: String,
    pub(super) reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Credential {
    pub(super) kind: Option<String>,
    pub(super) expires_at: Option<String>,
    pub(super) ok: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Probe {
    pub(super) at: String,
    pub(super) ok: bool,
    pub(super) detail: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LastError {
    pub(super) at: String,
    pub(super) outcome: String,
    pub(super) status: Option<u16>,
    pub(super) code: Option<String>,
    pub(super) detail: Option<String>,
}

impl Provider {
    /// Why it is in its state, an operator's word included.
    pub(super) fn why(&self) -> String {
        let reason = self.reason.as_deref().unwrap_or_default();
        let operator = !self.operator.is_null() && reason != "operator";
        let words = [reason, if operator { "operator" } else { "" }];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(", ")
    }

    /// Share of the window's calls that went well; none without calls.
    pub(super) fn success(&self) -> Option<String> {
        let calls = self.window.successes + self.window.failures;
        (calls > 0).then(|| format!("{:.1} %", self.window.ratio * 100.0))
    }

    /// Calls at once, and how many may be.
    pub(super) fn load(&self) -> String {
        match self.limit {
            Some(limit) => format!("{}/{limit}", self.in_flight),
            None => self.in_flight.to_string(),
        }
    }

    /// The error that happened last: the API does not say in which order they are.
    pub(super) fn last_error(&self) -> Option<&LastError> {
        self.last_errors.iter().max_by_key(|error| time(&error.at))
    }
}

impl LastError {
    /// What the vendor said, as `503 UNAVAILABLE`; empty when it said nothing.
    pub(super) fn answer(&self) -> String {
        let status = self.status.map(|status| status.to_string());
        status.into_iter().chain(self.code.clone()).collect::<Vec<_>>().join(" ")
    }
}

/// Milliseconds as people read them; sub-millisecond digits only where they matter.
pub(super) fn milliseconds(value: Option<f64>) -> String {
    match value {
        Some(ms) if ms < 10.0 => format!("{:.1}", ms).trim_end_matches(".0").to_owned(),
        Some(ms) => format!("{ms:.0}"),
        None => String::new(),
    }
}

/// How long ago a moment was; zero for one that is still to come.
pub(super) fn ago(at: &str, now: Utc) -> Option<Duration> {
    time(at).map(|at| now.since(at))
}

/// How far away a moment is; zero for one that is over.
pub(super) fn ahead(at: &str, now: Utc) -> Option<Duration> {
    time(at).map(|at| at.since(now))
}

/// The API's times are RFC 3339.
fn time(text: &str) -> Option<Utc> {
    let time: Timestamp = text.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok().map(Utc::from_ms)
}
