//! Posts what happens to operators' own server (`[admin] events`), signed as
//! client events are. What is posted comes from the hub, which holds the last
//! thousand events in memory: nothing here survives a restart, and an event that
//! is not taken within ten minutes is left for the next one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pushyard_providers::http::client::Client;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::target::{Poster, Target};
use crate::clock::Clock;
use crate::telemetry::{HubEvent, Telemetry};

/// Between two tries.
const AGAIN: Duration = Duration::from_secs(10);

/// An event that is not taken within this time is left.
const LIFE: Duration = Duration::from_secs(600);

/// Where operators are told, and of what.
#[derive(Clone, Debug, PartialEq)]
pub struct OperatorTarget {
    /// Their server.
    pub target: Target,
    /// Names of the hub's events; empty: all.
    pub types: Vec<&'static str>,
}

/// Posts until `stop`, one after the other.
pub async fn run(
    wanted: OperatorTarget,
    http: Client,
    telemetry: Arc<Telemetry>,
    clock: Arc<Clock>,
    stop: CancellationToken,
) {
    let poster = match Poster::new(&http, &wanted.target) {
        Ok(poster) => poster,
        Err(detail) => return tracing::error!(detail, "operators are not told"),
    };
    let mut seen = telemetry.hub().now();
    loop {
        let next = tokio::select! {
            () = stop.cancelled() => return,
            next = telemetry.hub().after(seen) => next,
        };
        seen = next.id;
        if wanted.types.is_empty() || wanted.types.contains(&next.name) {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tell(&poster, &next, &clock) => {}
            }
        }
    }
}

async fn tell(poster: &Poster, event: &HubEvent, clock: &Clock) {
    let id = format!("operator-{}", event.id);
    let body = json!({
        "type": event.name,
        "timestamp": event.at.rfc3339(),
        "data": event.data(),
    });
    let body = Bytes::from(body.to_string());
    loop {
        let now = clock.now().utc;
        let Err(not_taken) = poster.post(&id, body.clone(), now).await else { return };
        if now.since(event.at) >= LIFE {
            tracing::warn!(
                event = event.name,
                detail = not_taken.detail,
                "operators were not told"
            );
            return;
        }
        tokio::time::sleep(not_taken.retry_after.unwrap_or(AGAIN).min(LIFE)).await;
    }
}
