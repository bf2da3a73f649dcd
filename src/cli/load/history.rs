//! What the router says of single messages: their attempts, and the addresses that
//! it would report as gone.
//!
//! Read after a run, when all has settled, so that it costs the measured time
//! nothing. Times in it are the router's own, to the millisecond.

use std::collections::HashMap;
use std::net::SocketAddr;

use futures_util::future::try_join_all;
use serde::Deserialize;
use uuid::Uuid;

use super::Failure;
use super::wire::{Caller, request_as};

/// Messages are read over so many connections at once.
const CONNECTIONS: usize = 8;

/// An attempt that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// The provider's id.
    pub(crate) provider: String,
    /// Its outcome class.
    pub(crate) outcome: String,
    /// Unix milliseconds.
    pub(crate) begun_ms: u64,
    /// Unix milliseconds.
    pub(crate) ended_ms: u64,
}

/// A reader of the API.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    api: SocketAddr,
    key: Option<String>,
}

impl Reader {
    /// Of the API at that address, with a key that may see all messages.
    pub(crate) fn of(api: SocketAddr, key: Option<String>) -> Self {
        Self { api, key }
    }

    /// The attempts of each delivery of these messages, in order; of a message with
    /// many deliveries those of its view's first page.
    pub(crate) async fn attempts(
        &self,
        messages: &[u128],
    ) -> Result<HashMap<u128, Vec<Vec<Attempt>>>, Failure> {
        let lot = messages.len().div_ceil(CONNECTIONS).max(1);
        let lots = try_join_all(messages.chunks(lot).map(|lot| self.lot(lot))).await?;
        Ok(lots.into_iter().flatten().collect())
    }

    /// The providers of the addresses that are listed as gone, one for each address.
    pub(crate) async fn gone(&self) -> Result<Vec<String>, Failure> {
        #[derive(Deserialize)]
        struct Page {
            items: Vec<Item>,
            next: Option<String>,
        }
        #[derive(Deserialize)]
        struct Item {
            provider: String,
        }
        let mut caller = Caller::new(self.api);
        let (mut providers, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/addresses/gone?limit=1000{cursor}");
            let page: Page = serde_json::from_slice(self.get(&mut caller, &path).await?)?;
            providers.extend(page.items.into_iter().map(|item| item.provider));
            match page.next {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(providers),
            }
        }
    }

    async fn lot(&self, messages: &[u128]) -> Result<Vec<(u128, Vec<Vec<Attempt>>)>, Failure> {
        let mut caller = Caller::new(self.api);
        let mut all = Vec::new();
        for message in messages {
            let path = format!("/v1/messages/{}", Uuid::from_u128(*message));
            all.push((*message, read(self.get(&mut caller, &path).await?)?));
        }
        Ok(all)
    }

    async fn get<'a>(&self, caller: &'a mut Caller, path: &str) -> Result<&'a [u8], Failure> {
        let reply = caller
            .call(&request_as(self.key.as_deref(), "GET", path, b""))
            .await
            .map_err(|fault| format!("the router's {path}: {fault}"))?;
        match reply.status {
            200 => Ok(reply.body),
            status => Err(format!("the router answered GET {path} with {status}").into()),
        }
    }
}

/// A message's view: the ended attempts of each of its deliveries.
fn read(view: &[u8]) -> Result<Vec<Vec<Attempt>>, Failure> {
    #[derive(Deserialize)]
    struct View {
        deliveries: Deliveries,
    }
    #[derive(Deserialize)]
    struct Deliveries {
        items: Vec<Delivery>,
    }
    #[derive(Deserialize)]
    struct Delivery {
        attempts: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        provider: String,
        outcome: Option<String>,
        started_at: String,
        latency_ms: u64,
    }
    let view: View = serde_json::from_slice(view)
        .map_err(|error| format!("the view of a message cannot be read: {error}"))?;
    let ended = |item: Item| {
        let begun: jiff::Timestamp = item.started_at.parse().ok()?;
        let begun_ms = u64::try_from(begun.as_millisecond()).ok()?;
        let (provider, outcome) = (item.provider, item.outcome?);
        Some(Attempt { provider, outcome, begun_ms, ended_ms: begun_ms + item.latency_ms })
    };
    let deliveries = view.deliveries.items.into_iter();
    Ok(deliveries.map(|one| one.attempts.into_iter().filter_map(ended).collect()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_read_from_the_view_with_both_of_their_ends() {
        let view = br#"{"id":"x","deliveries":{"items":[{"id":"y","attempts":[
            {"n":1,"provider":"apns","outcome":"Unavailable","started_at":"1970-01-01T00:00:01.007Z","latency_ms":12},
            {"n":2,"provider":"fcm","outcome":null,"started_at":"1970-01-01T00:00:01.020Z","latency_ms":0}]}]}}"#;
        let deliveries = read(view).unwrap();
        assert_eq!(deliveries.len(), 1);
        let attempt = Attempt {
            provider: "apns".to_owned(),
            outcome: "Unavailable".to_owned(),
            begun_ms: 1007,
            ended_ms: 1019,
        };
        assert_eq!(deliveries[0], [attempt]);
    }
}
