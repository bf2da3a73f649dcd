//! What operators order: drains, pauses, other routes. Each order is in force and
//! on disk, and so is the record of who gave it, when the call is answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use pushyard_providers::pointer_token;

use super::form::{self, Form};
use super::{AdminState, Shared, audit, view};
use crate::api::{Caller, Problem, Segment};
use crate::clock::Utc;
use crate::dispatch::{Operation, Refused, Wish};
use crate::intake::json::Node;
use crate::routing::{Balance, OverrideSpec, Route};
use crate::telemetry::HubEvent;

/// An order is seen when the dispatcher publishes next; it does so each 250 ms.
const SEEN: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

pub(super) async fn provider(
    State(state): Shared,
    headers: HeaderMap,
    Segment(id): Segment,
    body: Body,
    wish: Wish,
) -> Result<Response, Problem> {
    let caller = state.authenticator.admin(&headers)?;
    let bytes = form::bytes(&state, &headers, body).await?;
    let mut form = Form::new(&bytes, &state, &["reason", "expires_in"])?;
    let reason = form.text("reason");
    let until = form.duration("expires_in").map(|time| state.clock.now().utc.plus(time));
    form.finish()?;
    let verb = wish.verb();
    let id: Arc<str> = id.into();
    let operation = Operation::Provider { id: id.clone(), wish, reason: reason.clone(), until };
    let event = HubEvent { provider: Some(id.clone()), ..operator(verb, reason) };
    Order { name: format!("{verb} providers/{id}"), until, event }
        .give(&state, &caller, operation)
        .await?;
    let shown = view::provider_by_id(&state, &id);
    shown.ok_or_else(|| Problem::not_found("no provider of this id is configured"))
}

pub(super) async fn route_pause(
    State(state): Shared,
    headers: HeaderMap,
    Segment(name): Segment,
    body: Body,
    paused: bool,
) -> Result<Response, Problem> {
    let caller = state.authenticator.admin(&headers)?;
    let reason = reason_of(&state, &headers, body).await?;
    let (verb, route) = (pause_verb(paused), Arc::<str>::from(name));
    let event = HubEvent { route: Some(route.clone()), ..operator(verb, reason) };
    Order { name: format!("{verb} routes/{route}"), until: None, event }
        .give(&state, &caller, Operation::RoutePause { route: route.clone(), paused })
        .await?;
    shown_route(&state, &route)
}

pub(super) async fn client_pause(
    State(state): Shared,
    headers: HeaderMap,
    Segment(name): Segment,
    body: Body,
    paused: bool,
) -> Result<Response, Problem> {
    let caller = state.authenticator.admin(&headers)?;
    let reason = reason_of(&state, &headers, body).await?;
    if !state.authenticator.knows(&name) {
        return Err(Problem::not_found("no client of this name is configured"));
    }
    let verb = pause_verb(paused);
    let event = operator(&format!("{verb} clients/{name}"), reason);
    let operation = Operation::ClientPause { client: name.as_str().into(), paused };
    Order { name: format!("{verb} clients/{name}"), until: None, event }
        .give(&state, &caller, operation)
        .await?;
    let body = serde_json::json!({"name": name, "paused": paused});
    Ok(axum::Json(body).into_response())
}

const fn pause_verb(paused: bool) -> &'static str {
    if paused { "pause" } else { "resume" }
}

pub(super) async fn put_override(
    State(state): Shared,
    headers: HeaderMap,
    Segment(name): Segment,
    body: Body,
) -> Result<Response, Problem> {
    let caller = state.authenticator.admin(&headers)?;
    let bytes = form::bytes(&state, &headers, body).await?;
    let spec = override_spec(&state, &name, &bytes)?;
    let route: Arc<str> = name.into();
    let (until, reason) = (spec.until, spec.reason.clone());
    let operation = Operation::RouteOverride { route: route.clone(), change: Some(spec) };
    let event =
        HubEvent { name: "route.override", route: Some(route.clone()), ..operator("set", reason) };
    Order { name: format!("override routes/{route}"), until, event }
        .give(&state, &caller, operation)
        .await?;
    shown_route(&state, &route)
}

pub(super) async fn delete_override(
    State(state): Shared,
    headers: HeaderMap,
    Segment(name): Segment,
) -> Result<StatusCode, Problem> {
    let caller = state.authenticator.admin(&headers)?;
    let route: Arc<str> = name.into();
    let operation = Operation::RouteOverride { route: route.clone(), change: None };
    let event = HubEvent {
        name: "route.override",
        route: Some(route.clone()),
        ..operator("cleared", None)
    };
    Order { name: format!("end override routes/{route}"), until: None, event }
        .give(&state, &caller, operation)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

fn operator(what: &str, reason: Option<String>) -> HubEvent {
    HubEvent { name: "operator", to: Some(what.to_owned()), reason, ..HubEvent::default() }
}

async fn reason_of(
    state: &AdminState,
    headers: &HeaderMap,
    body: Body,
) -> Result<Option<String>, Problem> {
    let bytes = form::bytes(state, headers, body).await?;
    let mut form = Form::new(&bytes, state, &["reason"])?;
    let reason = form.text("reason");
    form.finish()?;
    Ok(reason)
}

/// An order as it is written down and told.
struct Order {
    name: String,
    until: Option<Utc>,
    event: HubEvent,
}

impl Order {
    /// Gives it, writes down who did, and waits until it can be seen.
    async fn give(
        self,
        state: &AdminState,
        caller: &Arc<Caller>,
        operation: Operation,
    ) -> Result<(), Problem> {
        let begun = state.clock.now().utc;
        state.dispatcher.operate(operation).await.map_err(|refused| match refused {
            Refused::Unknown => Problem::not_found("nothing of this name is configured"),
            Refused::Nothing => Problem::not_found("there is nothing to take back"),
            Refused::ShuttingDown => Problem::shutting_down(),
        })?;
        let until = self.until.map(|until| format!("until {}", until.rfc3339()));
        let why: Vec<String> = self.event.reason.iter().cloned().chain(until).collect();
        let why = (!why.is_empty()).then(|| why.join("; "));
        audit::record(state, caller, self.name, why).await?;
        state.telemetry.operator(HubEvent { by: Some(caller.name().clone()), ..self.event });
        let seen = async {
            while state.snapshot.load().at <= begun {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        // Should it not come, what is shown is a moment old.
        let _ = tokio::time::timeout(SEEN, seen).await;
        Ok(())
    }
}

fn shown_route(state: &AdminState, name: &str) -> Result<Response, Problem> {
    let (catalog, snapshot) = (state.catalog.load(), state.snapshot.load());
    let route = catalog.routes.iter().find(|route| &*route.name == name);
    let route = route.ok_or_else(|| Problem::not_found("no route of this name is configured"))?;
    Ok(axum::Json(view::route(route, &catalog, &snapshot)).into_response())
}

/// Reads and checks an override: every provider is there and stands once, no tier
/// is empty, and somebody in each has a weight.
fn override_spec(state: &AdminState, name: &str, bytes: &[u8]) -> Result<OverrideSpec, Problem> {
    let catalog = state.catalog.load();
    let route = catalog.routes.iter().find(|route| &*route.name == name);
    let route = route.ok_or_else(|| Problem::not_found("no route of this name is configured"))?;
    let keys = ["tiers", "weights", "balance", "expires_in", "reason"];
    let mut form = Form::new(bytes, state, &keys)?;
    let known: Vec<&str> = catalog
        .providers
        .iter()
        .filter(|built| !built.retired)
        .map(|built| &*built.settings.id)
        .collect();
    let id =
        |member: &crate::routing::Member| catalog.provider(member.provider).settings.id.to_string();
    let tiers = form.get("tiers").cloned().map(|node| tiers(&node, &known, &mut form));
    let members: Vec<Vec<String>> = tiers
        .clone()
        .unwrap_or_else(|| route.tiers.iter().map(|tier| tier.iter().map(id).collect()).collect());
    let weights = form.get("weights").cloned();
    let weights = weights.map(|node| self::weights(&node, &members, &mut form));
    check_weights(route, &members, weights.as_ref(), &id, &mut form);
    let balance = form.text("balance");
    let balance = balance.map(|word| {
        let found = Balance::of_word(&word);
        if found.is_none() {
            let detail = format!("must be one of {}", Balance::WORDS.join(", "));
            form.fault("/balance", detail, "invalid_value");
        }
        found.unwrap_or_default()
    });
    if tiers.is_none() && weights.is_none() && balance.is_none() {
        form.fault("", "changes nothing: give tiers, weights or balance", "required");
    }
    let until = form.duration("expires_in").map(|time| state.clock.now().utc.plus(time));
    let reason = form.text("reason");
    form.finish()?;
    Ok(OverrideSpec { tiers, weights, balance, until, reason })
}

fn tiers(node: &Node<'_>, known: &[&str], form: &mut Form<'_>) -> Vec<Vec<String>> {
    let wanted = "must be a list of lists of provider ids, as in [[\"apns\"],[\"fcm\"]]";
    let Node::Array(lists) = node else {
        form.fault("/tiers", wanted, "invalid_type");
        return Vec::new();
    };
    if lists.is_empty() {
        form.fault("/tiers", "names no provider", "invalid_value");
    }
    let mut tiers: Vec<Vec<String>> = Vec::new();
    for (at, list) in lists.iter().enumerate() {
        let pointer = format!("/tiers/{at}");
        tiers.push(Vec::new());
        let Node::Array(ids) = list else {
            form.fault(&pointer, wanted, "invalid_type");
            continue;
        };
        if ids.is_empty() {
            form.fault(
                &pointer,
                "is empty; name a provider, or leave the tier out",
                "invalid_value",
            );
        }
        for (place, id) in ids.iter().enumerate() {
            let pointer = format!("/tiers/{at}/{place}");
            match id.text() {
                None => form.fault(&pointer, wanted, "invalid_type"),
                Some(id) if !known.contains(&id) => {
                    let detail =
                        format!("no provider has the id {id:?}; there are {}", known.join(", "));
                    form.fault(&pointer, detail, "unknown_provider");
                }
                Some(id) if tiers.iter().flatten().any(|before| before == id) => {
                    form.fault(&pointer, format!("{id:?} stands here twice"), "invalid_value");
                }
                Some(id) => tiers[at].push(id.to_owned()),
            }
        }
    }
    tiers
}

fn weights(node: &Node<'_>, members: &[Vec<String>], form: &mut Form<'_>) -> BTreeMap<String, f64> {
    let Node::Object(pairs) = node else {
        form.fault("/weights", "must be an object, as in {\"apns\": 3}", "invalid_type");
        return BTreeMap::new();
    };
    let mut weights = BTreeMap::new();
    for (id, value) in pairs {
        let pointer = format!("/weights/{}", pointer_token(id));
        let number = match value {
            Node::Integer(number) => Some(*number as f64),
            Node::Number(number) => Some(*number),
            Node::Null | Node::Bool(_) | Node::Text(_) | Node::Array(_) | Node::Object(_) => None,
        };
        match number.filter(|number| number.is_finite() && *number >= 0.0) {
            None => form.fault(&pointer, "must be a number that is not below 0", "invalid_value"),
            Some(_) if !members.iter().flatten().any(|member| *member == **id) => {
                form.fault(&pointer, "is in no tier of this route", "unknown_provider");
            }
            Some(number) => {
                weights.insert(id.to_string(), number);
            }
        }
    }
    weights
}

/// A tier of which nobody has a weight would get nothing.
fn check_weights(
    route: &Route,
    members: &[Vec<String>],
    weights: Option<&BTreeMap<String, f64>>,
    id: &dyn Fn(&crate::routing::Member) -> String,
    form: &mut Form<'_>,
) {
    let configured: BTreeMap<String, f64> =
        route.tiers.iter().flatten().map(|member| (id(member), member.weight)).collect();
    let weight = |member: &String| {
        let known = weights.and_then(|weights| weights.get(member)).or(configured.get(member));
        known.copied().unwrap_or(1.0)
    };
    for (at, tier) in members.iter().enumerate() {
        if !tier.is_empty() && tier.iter().all(|member| weight(member) == 0.0) {
            let pointer =
                if weights.is_some() { "/weights".to_owned() } else { format!("/tiers/{at}") };
            form.fault(
                &pointer,
                format!("gives no member of tier {at} a weight above 0"),
                "invalid_value",
            );
        }
    }
}
