//! What can be set on the vendors and asked of them.
//!
//! [`Control`] is the whole of it as plain calls, for tests that run in the same
//! process; `http` puts the same on a port, `wish` reads the behaviours that
//! come in there, and `problem` says what is wrong with them.

pub(crate) mod http;
mod problem;
mod wish;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;
use serde::ser::{SerializeStruct as _, Serializer};

use crate::clock;
use crate::faults::{Behaviour, Mode};
use crate::ledger::{Arrivals, Key, Ledger, Summary};
use crate::request_log::Logged;
use crate::station::Station;

/// A handle on a running simulator. Clones are the same handle.
#[derive(Clone)]
pub struct Control {
    ledger: Arc<Ledger>,
    stations: Arc<[Arc<Station>]>,
}

/// There is no vendor of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownVendor {
    /// The name that was asked for.
    pub name: String,
    /// The names that there are.
    pub known: Vec<&'static str>,
}

impl std::fmt::Display for UnknownVendor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = self.known.join(", ");
        write!(f, "unknown vendor {:?}; there are {known} and *", self.name)
    }
}

impl std::error::Error for UnknownVendor {}

/// A vendor at this moment.
#[derive(Clone, Debug, PartialEq)]
pub struct VendorStatus {
    /// `apns`, `apns-broadcast` (with the management of channels), the same two as
    /// `apns-sandbox…`, `fcm`, `fcm-oauth`, `ntfy`, `gotify`, `webhook`.
    pub name: &'static str,
    /// How it behaves.
    pub behaviour: Behaviour,
    /// Requests since the last reset, of any kind and with any end.
    pub requests: u64,
    /// Pushes that were taken since the last reset.
    pub accepted: u64,
    /// Requests that are not ended.
    pub in_flight: u64,
    /// Connections that are open.
    pub connections: u64,
    /// Dry runs and other pushes to nobody since the last reset.
    pub probes: u64,
    /// Streams that were opened beyond the limit since the last reset.
    pub breaches: u64,
}

impl Serialize for VendorStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let milliseconds = |time: std::time::Duration| time.as_millis() as u64;
        let mut item = serializer.serialize_struct("VendorStatus", 19)?;
        item.serialize_field("name", self.name)?;
        item.serialize_field("mode", &self.behaviour.mode)?;
        item.serialize_field("requests", &self.requests)?;
        item.serialize_field("accepted", &self.accepted)?;
        item.serialize_field("in_flight", &self.in_flight)?;
        item.serialize_field("connections", &self.connections)?;
        item.serialize_field("probes", &self.probes)?;
        item.serialize_field("breaches", &self.breaches)?;
        item.serialize_field("status", &self.behaviour.status)?;
        item.serialize_field("share", &self.behaviour.share)?;
        item.serialize_field("latency_ms", &self.behaviour.latency.map(milliseconds))?;
        item.serialize_field("latency_spread_ms", &milliseconds(self.behaviour.latency_spread))?;
        item.serialize_field("ack_latency_ms", &milliseconds(self.behaviour.ack_latency))?;
        item.serialize_field("retry_after_s", &self.behaviour.retry_after_s)?;
        item.serialize_field("limit_per_second", &self.behaviour.limit_per_second)?;
        item.serialize_field("goaway_after", &self.behaviour.goaway_after)?;
        let age = self.behaviour.goaway_after_age.map(|age| format!("{}ms", milliseconds(age)));
        item.serialize_field("goaway_after_age", &age)?;
        item.serialize_field("max_streams", &self.behaviour.max_streams)?;
        item.serialize_field("clock_offset_s", &self.behaviour.clock_offset_s)?;
        item.end()
    }
}

/// A request as a vendor received it.
#[derive(Clone, Debug, Serialize)]
pub struct RequestRecord {
    /// The vendor that received it.
    pub vendor: &'static str,
    /// When: RFC 3339, UTC.
    pub at: String,
    /// The number of the connection that it came over, from 1 for each vendor.
    pub connection: u64,
    /// Its method.
    pub method: String,
    /// Its path with the query.
    pub path: String,
    /// Its headers; as received, repeated ones are joined.
    pub headers: BTreeMap<String, String>,
    /// Its body, byte for byte where that is UTF-8.
    pub body: String,
    /// The body again, where it is JSON.
    pub json: Option<serde_json::Value>,
}

impl Control {
    pub(crate) fn new(ledger: Arc<Ledger>, stations: Vec<Arc<Station>>) -> Self {
        Self { ledger, stations: stations.into() }
    }

    /// Sets how a vendor behaves from now on; `*` sets it for all.
    pub fn set(&self, vendor: &str, behaviour: Behaviour) -> Result<(), UnknownVendor> {
        for station in self.named(vendor)? {
            station.behave(behaviour);
        }
        Ok(())
    }

    /// Sets a mode with nothing else.
    pub fn set_mode(&self, vendor: &str, mode: Mode) -> Result<(), UnknownVendor> {
        self.set(vendor, Behaviour::of(mode))
    }

    /// All vendors.
    pub fn vendors(&self) -> Vec<VendorStatus> {
        self.stations.iter().map(|station| status(station)).collect()
    }

    /// One vendor.
    pub fn vendor(&self, name: &str) -> Result<VendorStatus, UnknownVendor> {
        let found = self.stations.iter().find(|station| station.name == name);
        found.map(|station| status(station)).ok_or_else(|| self.unknown(name))
    }

    /// Deliveries in the order of their first arrival, from a position on; the
    /// position of the next page comes with each.
    pub fn arrivals(&self, from: usize, limit: usize) -> Arrivals {
        self.ledger.arrivals(from, limit)
    }

    /// Names deliveries that ought to arrive.
    pub fn expect<'a>(&self, deliveries: impl IntoIterator<Item = &'a str>) {
        self.ledger.expect(deliveries.into_iter().map(Key::of));
    }

    /// The ledger's verdict on all that has arrived.
    pub fn summary(&self) -> Summary {
        self.ledger.summary()
    }

    /// The last requests of a vendor or of all, newest first.
    pub fn requests(
        &self,
        vendor: Option<&str>,
        limit: usize,
    ) -> Result<Vec<RequestRecord>, UnknownVendor> {
        let mut all: Vec<_> = self
            .named(vendor.unwrap_or("*"))?
            .flat_map(|station| {
                let logged = station.log.last(limit);
                logged.into_iter().map(|request| (station.name, request))
            })
            .collect();
        all.sort_by_key(|(_, request)| std::cmp::Reverse(request.at_ms));
        all.truncate(limit);
        Ok(all.into_iter().map(|(name, request)| record(name, request)).collect())
    }

    /// Back to the start: everything healthy, nothing counted, nothing
    /// expected. Connections and access tokens stay.
    pub fn reset(&self) {
        for station in self.stations.iter() {
            station.reset();
        }
        self.ledger.reset();
    }

    fn named(&self, vendor: &str) -> Result<impl Iterator<Item = &Arc<Station>>, UnknownVendor> {
        let vendor = vendor.to_owned();
        if vendor != "*" && !self.stations.iter().any(|station| station.name == vendor) {
            return Err(self.unknown(&vendor));
        }
        Ok(self.stations.iter().filter(move |station| vendor == "*" || station.name == vendor))
    }

    fn unknown(&self, name: &str) -> UnknownVendor {
        UnknownVendor {
            name: name.to_owned(),
            known: self.stations.iter().map(|station| station.name).collect(),
        }
    }
}

fn status(station: &Station) -> VendorStatus {
    let counts = &station.counts;
    VendorStatus {
        name: station.name,
        behaviour: station.behaviour(),
        requests: counts.requests.load(Relaxed),
        accepted: counts.accepted.load(Relaxed),
        in_flight: counts.in_flight.load(Relaxed),
        connections: counts.connections.load(Relaxed),
        probes: counts.probes.load(Relaxed),
        breaches: counts.breaches.load(Relaxed),
    }
}

fn record(vendor: &'static str, request: Logged) -> RequestRecord {
    let mut headers = BTreeMap::<String, String>::new();
    for (name, value) in request.headers {
        headers
            .entry(name)
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(&value);
            })
            .or_insert(value);
    }
    RequestRecord {
        vendor,
        at: clock::rfc3339(request.at_ms),
        connection: request.connection,
        method: request.method,
        path: request.path,
        headers,
        json: serde_json::from_slice(&request.body).ok(),
        body: String::from_utf8_lossy(&request.body).into_owned(),
    }
}
