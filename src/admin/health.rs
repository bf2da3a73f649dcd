//! `/livez`, `/readyz`: always open, for probes of the platform.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::Shared;
use crate::api::Parameters;
use crate::store::Health;

/// The process answers.
pub(super) async fn live() -> Response {
    axum::Json(json!({"status": "ok"})).into_response()
}

/// `?routes=1`: a route without a usable provider counts as not ready.
#[derive(Debug, Deserialize)]
pub(super) struct ReadyQuery {
    routes: Option<String>,
}

/// Whether messages can be taken: the store is writable and no drain is on. A
/// vendor's outage does not make it unready: the queue must then absorb.
pub(super) async fn ready(
    State(state): Shared,
    Parameters(query): Parameters<ReadyQuery>,
) -> Response {
    let store = match state.store.health() {
        Health::Writable => "writable",
        Health::Full => "full",
        Health::Broken => "broken",
    };
    let draining = state.drain.is_cancelled();
    let snapshot = state.snapshot.load();
    let degraded: Vec<_> = snapshot
        .usable_tiers
        .iter()
        .filter(|(_, tier)| tier.is_none())
        .map(|(route, _)| &**route)
        .collect();
    let routes_count = query.routes.is_some_and(|value| value != "0");
    let ready = store == "writable" && !draining && (degraded.is_empty() || !routes_count);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "status": if ready { "ok" } else { "unready" },
        "store": store,
        "draining": draining,
        "degraded": degraded,
    });
    (status, axum::Json(body)).into_response()
}
