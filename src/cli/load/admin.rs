//! The router's admin listener, as its client: what it says of its providers,
//! and its metrics.

use std::net::SocketAddr;

use serde::Deserialize;

use super::Failure;
use super::wire::{Caller, request_as};

/// A connection to the admin listener.
#[derive(Debug)]
pub(crate) struct Admin {
    caller: Caller,
    key: Option<String>,
}

/// A provider as the admin API shows it; the part that a run shows.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Provider {
    /// Its id.
    pub(crate) id: String,
    /// One of the five states.
    pub(crate) state: String,
    /// Why it is in that state.
    pub(crate) reason: Option<String>,
    /// Until when nothing is sent to it, where a vendor asked for that.
    #[serde(default)]
    pub(crate) paused_until: Option<String>,
    /// Quantiles over the last while.
    pub(crate) latency_ms: Latency,
    /// Attempts that have no outcome yet.
    pub(crate) in_flight: u64,
    /// How many there may be now; in slow start its ramp is in it.
    #[serde(default)]
    pub(crate) limit: u64,
    /// Its parts with a health of their own: apps, origins, and the whole.
    #[serde(default)]
    pub(crate) keys: Vec<Part>,
}

/// What the admin API calls the part that is the provider as a whole.
pub(crate) const WHOLE: &str = "";

/// A part of a provider.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Part {
    /// Its name: `app:…`, `origin:…`; [`WHOLE`].
    pub(crate) part: String,
    /// One of the states.
    pub(crate) state: String,
    /// Why it is in that state.
    pub(crate) reason: Option<String>,
}

/// Quantiles of a provider's latency, in milliseconds; none without samples.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
}

impl Admin {
    /// A client of the listener at that address, with the key that it wants, if any.
    pub(crate) fn at(peer: SocketAddr, key: Option<String>) -> Self {
        Self { caller: Caller::new(peer), key }
    }

    /// Lets the router read its configuration again. Fails when it refuses it.
    pub(crate) async fn reload(&mut self) -> Result<(), Failure> {
        self.call("POST", "/admin/v1/reload").await.map(|_| ())
    }

    /// All providers.
    pub(crate) async fn providers(&mut self) -> Result<Vec<Provider>, Failure> {
        #[derive(Deserialize)]
        struct Page {
            items: Vec<Provider>,
        }
        let page: Page = serde_json::from_slice(self.get("/admin/v1/providers").await?)
            .map_err(|error| format!("the list of providers cannot be read: {error}"))?;
        Ok(page.items)
    }

    /// A scrape.
    pub(crate) async fn metrics(&mut self) -> Result<Metrics, Failure> {
        Ok(Metrics::parse(&String::from_utf8_lossy(self.get("/metrics").await?)))
    }

    async fn get(&mut self, path: &str) -> Result<&[u8], Failure> {
        self.call("GET", path).await
    }

    async fn call(&mut self, method: &str, path: &str) -> Result<&[u8], Failure> {
        let reply = self
            .caller
            .call(&request_as(self.key.as_deref(), method, path, b""))
            .await
            .map_err(|fault| format!("the router's {path}: {fault}"))?;
        match reply.status {
            200..300 => Ok(reply.body),
            status => Err(format!("the router answered {method} {path} with {status}").into()),
        }
    }
}

/// Samples in Prometheus' text format.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Metrics {
    /// Reads the text; comments and lines that cannot be read are passed over.
    pub(crate) fn parse(text: &str) -> Self {
        Self { samples: text.lines().filter_map(sample).collect() }
    }

    /// The sum of a counter over all series that have these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let fits = |sample: &&Sample| {
            sample.name == name
                && labels.iter().all(|(name, value)| sample.label(name) == Some(value))
        };
        self.samples.iter().filter(fits).map(|sample| sample.value).sum::<f64>() as u64
    }

    /// The failovers so far, by where from and where to.
    pub(crate) fn failovers(&self) -> Vec<(&str, &str, u64)> {
        let mut pairs = Vec::<(&str, &str, u64)>::new();
        for sample in self.samples.iter().filter(|one| one.name == "pushyard_failovers_total") {
            let (Some(from), Some(to)) = (sample.label("from"), sample.label("to")) else {
                continue;
            };
            let count = sample.value as u64;
            match pairs.iter_mut().find(|pair| (pair.0, pair.1) == (from, to)) {
                Some(pair) => pair.2 += count,
                None => pairs.push((from, to, count)),
            }
        }
        pairs
    }

    /// Deliveries that are not settled.
    pub(crate) fn unsettled(&self) -> u64 {
        self.sum("pushyard_queue_deliveries", &[])
    }
}

impl Sample {
    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// `name{label="value",…} value`. Our label values hold neither quotes nor
/// backslashes (ids and words), so their escapes are not undone.
fn sample(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, labels)) = series.split_once('{') else {
        return Some(Sample { name: series.to_owned(), labels: Vec::new(), value });
    };
    let labels = labels
        .strip_suffix('}')?
        .split("\",")
        .filter_map(|label| {
            let (name, value) = label.split_once("=\"")?;
            Some((name.trim().to_owned(), value.trim_end_matches('"').to_owned()))
        })
        .collect();
    Some(Sample { name: name.to_owned(), labels, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
# HELP pushyard_failovers_total Next attempts that went to another provider.
# TYPE pushyard_failovers_total counter
pushyard_failovers_total{from="apns",reason="Unavailable",route="default",to="fcm"} 12
pushyard_failovers_total{from="apns",reason="ejected",route="default",to="fcm"} 30
pushyard_failovers_total{from="fcm",reason="Throttled",route="default",to="apns"} 5
pushyard_queue_deliveries{state="queued"} 1
pushyard_queue_deliveries{state="waiting"} 2
pushyard_dead_letters 0
pushyard_store_commit_seconds_sum 0.25
"#;

    #[test]
    fn counters_are_summed_over_the_labels_not_named() {
        let metrics = Metrics::parse(TEXT);
        assert_eq!(metrics.sum("pushyard_failovers_total", &[]), 47);
        assert_eq!(metrics.sum("pushyard_failovers_total", &[("from", "apns")]), 42);
        let both = [("from", "apns"), ("reason", "ejected")];
        assert_eq!(metrics.sum("pushyard_failovers_total", &both), 30);
        assert_eq!(metrics.sum("pushyard_unheard_of", &[]), 0);
        assert_eq!(metrics.unsettled(), 3);
    }

    #[test]
    fn failovers_are_summed_over_reasons() {
        let metrics = Metrics::parse(TEXT);
        assert_eq!(metrics.failovers(), [("apns", "fcm", 42), ("fcm", "apns", 5)]);
    }
}
