//! The simulator's control port, as its client: faults to set, and the ledger,
//! which alone says what was lost and what came twice.

use std::net::SocketAddr;

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::Failure;
use super::wire::{Caller, request};

/// Ids in one call of `/expect`: 40 bytes each.
const EXPECTED_AT_ONCE: usize = 100_000;

/// A connection to the control port.
#[derive(Debug)]
pub(crate) struct Control {
    caller: Caller,
}

/// A vendor's counts.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Vendor {
    /// Its name.
    pub(crate) name: String,
    /// Requests, of any kind and with any end.
    pub(crate) requests: u64,
    /// Those of them that were dry runs.
    pub(crate) probes: u64,
    /// Pushes that were taken.
    pub(crate) accepted: u64,
}

/// A delivery's first arrival.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// The delivery.
    pub(crate) delivery: u128,
    /// Where it arrived first.
    pub(crate) vendor: String,
    /// When, in unix milliseconds.
    pub(crate) at_ms: u64,
}

/// The ledger's verdict.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Summary {
    /// Copies beyond the first.
    pub(crate) duplicates: u64,
    /// Expected and not there.
    pub(crate) lost: u64,
    /// There and not expected.
    pub(crate) unexpected: u64,
    /// Pushes that it had no room to tell apart; the others are then too low.
    #[serde(default)]
    pub(crate) untracked: u64,
}

impl Control {
    /// A client of the control port at that URL.
    pub(crate) fn at(url: &str) -> Result<Self, Failure> {
        let peer: SocketAddr = url
            .strip_prefix("http://")
            .and_then(|rest| rest.trim_end_matches('/').parse().ok())
            .ok_or_else(|| format!("the simulator's control port is {url:?}, not on an address"))?;
        Ok(Self { caller: Caller::new(peer) })
    }

    /// Sets how a vendor behaves from now on.
    pub(crate) async fn behave(&mut self, vendor: &str, behaviour: &Value) -> Result<(), Failure> {
        let path = format!("/vendors/{vendor}");
        self.call("PUT", &path, behaviour.to_string().as_bytes()).await.map(|_| ())
    }

    /// Pushes that all vendors together have taken, copies included.
    pub(crate) async fn taken(&mut self) -> Result<u64, Failure> {
        Ok(self.vendors().await?.iter().map(|vendor| vendor.accepted).sum())
    }

    /// What each vendor has counted.
    pub(crate) async fn vendors(&mut self) -> Result<Vec<Vendor>, Failure> {
        #[derive(Deserialize)]
        struct Vendors {
            items: Vec<Vendor>,
        }
        let vendors: Vendors = serde_json::from_slice(self.call("GET", "/vendors", b"").await?)?;
        Ok(vendors.items)
    }

    /// Tells the ledger what ought to arrive.
    pub(crate) async fn expect(
        &mut self,
        deliveries: impl Iterator<Item = u128>,
    ) -> Result<(), Failure> {
        let mut lines = String::new();
        let mut count = 0;
        for delivery in deliveries {
            lines.push_str(&format!("\"{}\"\n", Uuid::from_u128(delivery)));
            count += 1;
            if count % EXPECTED_AT_ONCE == 0 {
                self.call("POST", "/expect", lines.as_bytes()).await?;
                lines.clear();
            }
        }
        self.call("POST", "/expect", lines.as_bytes()).await.map(|_| ())
    }

    /// The ledger's verdict as it is now.
    pub(crate) async fn summary(&mut self) -> Result<Summary, Failure> {
        Ok(serde_json::from_slice(self.call("GET", "/summary", b"").await?)?)
    }

    /// All first arrivals, in their order.
    pub(crate) async fn arrivals(&mut self) -> Result<Vec<Arrival>, Failure> {
        let mut arrivals = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/arrivals?limit=1000&cursor={cursor}");
            let page: Page<'_> = serde_json::from_slice(self.call("GET", &path, b"").await?)?;
            for item in &page.items {
                arrivals.extend(item.read());
            }
            match page.next {
                Some(next) => cursor = next.to_owned(),
                None => return Ok(arrivals),
            }
        }
    }

    async fn call(&mut self, method: &str, path: &str, body: &[u8]) -> Result<&[u8], Failure> {
        let reply = self
            .caller
            .call(&request(method, path, body))
            .await
            .map_err(|fault| format!("the simulator's {path}: {fault}"))?;
        match reply.status {
            200..300 => Ok(reply.body),
            status => {
                let text = String::from_utf8_lossy(reply.body);
                Err(format!("the simulator answered {method} {path} with {status}: {text}").into())
            }
        }
    }
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    items: Vec<Item<'a>>,
    next: Option<&'a str>,
}

#[derive(Deserialize)]
struct Item<'a> {
    delivery: &'a str,
    vendor: &'a str,
    first_at: &'a str,
}

impl Item<'_> {
    /// `None` for a push that is not a delivery of the router: a probe.
    fn read(&self) -> Option<Arrival> {
        let delivery = Uuid::try_parse(self.delivery).ok()?.as_u128();
        let at: jiff::Timestamp = self.first_at.parse().ok()?;
        let at_ms = u64::try_from(at.as_millisecond()).ok()?;
        Some(Arrival { delivery, vendor: self.vendor.to_owned(), at_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_of_arrivals_is_read_without_what_is_no_delivery() {
        let page: Page<'_> = serde_json::from_str(
            r#"{"items":[
                {"delivery":"01970000-0000-7000-8000-000000000001","vendor":"apns","copies":1,
                 "first_at":"2026-11-24T11:05:27.123Z"},
                {"delivery":"some-text","vendor":"fcm","copies":1,
                 "first_at":"2026-11-24T11:05:27.124Z"}],"next":"2"}"#,
        )
        .unwrap();
        let arrivals: Vec<_> = page.items.iter().filter_map(Item::read).collect();
        assert_eq!(arrivals.len(), 1);
        assert_eq!(arrivals[0].delivery, 0x0197_0000_0000_7000_8000_0000_0000_0001);
        assert_eq!(arrivals[0].at_ms % 100_000, 27_123);
        assert_eq!(page.next, Some("2"));
    }

    #[test]
    fn control_port_must_be_an_address() {
        assert!(Control::at("http://127.0.0.1:4711").is_ok());
        assert!(Control::at("https://example.com").is_err());
    }
}
