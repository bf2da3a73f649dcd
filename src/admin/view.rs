//! The shapes that the admin API answers with.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use pushyard_providers::stream::HubFigures;
use pushyard_providers::{Answer, Gauge};
use serde_json::{Value, json};

use super::AdminState;
use crate::clock::Utc;
use crate::dispatch::{ProviderView, Snapshot};
use crate::routing::{Catalog, Route};
use crate::store::Figures;
use crate::telemetry::{ProviderGauges, Scrape};

/// The snapshot as gauges.
pub(super) fn scrape<'a>(
    snapshot: &'a Snapshot,
    gauges: &'a [(Arc<str>, Gauge)],
    store: Figures,
    stream: HubFigures,
) -> Scrape<'a> {
    let provider = |(view, (_, gauge)): (&'a ProviderView, &'a (Arc<str>, Gauge))| ProviderGauges {
        id: &view.id,
        state: view.state,
        success_ratio: view.counts.ratio(),
        in_flight: view.in_flight,
        limit: view.limit,
        connections: gauge.connections as u64,
        parked: view.parked as u64,
        cost: view.cost,
        credential_expires_at: gauge.credential.expires_at,
    };
    let queue = &snapshot.queue;
    let age = |since: &Utc| snapshot.at.since(*since);
    Scrape {
        providers: snapshot.providers.iter().zip(gauges).map(provider).collect(),
        usable_tiers: snapshot.usable_tiers.iter().map(|(name, tier)| (&**name, *tier)).collect(),
        queue: [("queued", queue.queued), ("sending", queue.sending), ("waiting", queue.waiting)],
        oldest: queue.oldest.iter().map(|(route, p, since)| (&**route, *p, age(since))).collect(),
        store_bytes: store.bytes,
        dead_letters: store.dead_letters,
        stream,
        events_pending: store.events,
    }
}

/// The provider of this id, if one is configured.
pub(super) fn provider_by_id(state: &AdminState, id: &str) -> Option<Response> {
    let snapshot = state.snapshot.load();
    let gauges = state.catalog.load().gauges();
    let (_, gauge) = gauges.iter().find(|(known, _)| **known == *id)?;
    let view = snapshot.providers.iter().find(|view| *view.id == *id)?;
    Some(axum::Json(provider(view, gauge)).into_response())
}

pub(super) fn provider(view: &ProviderView, gauge: &Gauge) -> Value {
    let time = |at: Option<Utc>| at.map(Utc::rfc3339);
    let keys: Vec<Value> = view
        .keys
        .iter()
        .map(|(part, state, reason)| json!({"part": part, "state": state, "reason": reason}))
        .collect();
    let errors: Vec<Value> =
        view.last_errors.iter().map(|(at, answer)| error(*at, answer)).collect();
    json!({
        "id": &*view.id,
        "kind": view.kind,
        "state": view.state,
        "reason": view.reason,
        "since": view.since.rfc3339(),
        "until": time(view.until),
        "operator": view.hold.as_ref().map(|hold| json!({
            "wish": if hold.ejected { "eject" } else { "drain" },
            "reason": hold.reason,
            "since": hold.since.rfc3339(),
            "until": time(hold.until),
        })),
        "window": {
            "seconds": view.window_s,
            "successes": view.counts.successes,
            "failures": view.counts.failures,
            "ratio": (view.counts.ratio() * 1000.0).round() / 1000.0,
        },
        "latency_ms": {
            "p50": view.latency_ms[0],
            "p95": view.latency_ms[1],
            "p99": view.latency_ms[2],
        },
        "in_flight": view.in_flight,
        "limit": view.limit,
        "rate": view.rate,
        "connections": gauge.connections,
        "parked": view.parked,
        "paused_until": time(view.paused_until),
        "keys": keys,
        "credential": {
            "kind": gauge.credential.kind,
            "expires_at": gauge.credential.expires_at.map(|at| Utc::from_ms(at * 1000).rfc3339()),
            "ok": gauge.credential.ok,
        },
        "last_probe": view.last_probe.as_ref().map(|(at, ok, detail)| json!({
            "at": at.rfc3339(), "ok": ok, "detail": detail.as_deref(),
        })),
        "last_errors": errors,
        "cost": view.cost,
    })
}

fn error(at: Utc, answer: &Answer) -> Value {
    json!({
        "at": at.rfc3339(),
        "outcome": answer.outcome.word(),
        "status": answer.status,
        "code": answer.code.as_deref(),
        "detail": answer.detail.as_deref(),
    })
}

pub(super) fn route(route: &Route, catalog: &Catalog, snapshot: &Snapshot) -> Value {
    let id =
        |member: &crate::routing::Member| catalog.provider(member.provider).settings.id.clone();
    let tiers: Vec<Vec<_>> = route.tiers.iter().map(|tier| tier.iter().map(id).collect()).collect();
    let weights: serde_json::Map<String, Value> = route
        .tiers
        .iter()
        .flatten()
        .map(|member| (id(member).to_string(), json!(member.weight)))
        .collect();
    let usable = snapshot.usable_tiers.iter().find(|(name, _)| *name == route.name);
    json!({
        "name": &*route.name,
        "tiers": tiers,
        "weights": weights,
        "balance": route.balance.word(),
        "override": snapshot.overrides.get(&route.name).map(|spec| json!({
            "tiers": spec.tiers,
            "weights": spec.weights,
            "balance": spec.balance.map(crate::routing::Balance::word),
            "expires_at": spec.until.map(Utc::rfc3339),
            "reason": spec.reason,
        })),
        "paused": snapshot.paused_routes.contains(&route.name),
        "usable_tier": usable.and_then(|(_, tier)| *tier),
    })
}
