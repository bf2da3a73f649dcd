//! What could not be delivered: to look at, to try again, to let go of.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::form::{self, Form};
use super::{AdminState, Shared, audit};
use crate::api::{Code, Page, Parameters, Problem, Segment, attempts, bad_cursor, blocking};
use crate::dispatch::Replayed;
use crate::intake::time;
use crate::model::{DeliveryId, Reason};
use crate::store::{DeadFilter, DeadLetter, Write};

/// `?reason=&provider=&client=&since=&until=&limit=&cursor=`.
#[derive(Debug, Deserialize)]
pub(super) struct Query {
    reason: Option<String>,
    provider: Option<String>,
    client: Option<String>,
    since: Option<String>,
    until: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

impl Query {
    fn filter(&self) -> Result<DeadFilter, Problem> {
        let moment = |name: &str, text: &Option<String>| {
            let Some(text) = text else { return Ok(None) };
            time::rfc3339(text).map(Some).ok_or_else(|| {
                Problem::parameter(name, "must be a time, as in 2026-12-01T08:00:00Z")
            })
        };
        let known = |text: &String| {
            reason(text).ok_or_else(|| Problem::parameter("reason", &unknown_reason()))
        };
        Ok(DeadFilter {
            reason: self.reason.as_ref().map(known).transpose()?,
            provider: self.provider.clone(),
            client: self.client.clone(),
            since: moment("since", &self.since)?,
            until: moment("until", &self.until)?,
        })
    }
}

fn reason(word: &str) -> Option<Reason> {
    Reason::ALL.into_iter().find(|reason| reason.word() == word)
}

fn unknown_reason() -> String {
    format!("must be one of {}", Reason::ALL.map(Reason::word).join(", "))
}

pub(super) async fn list(
    State(state): Shared,
    headers: HeaderMap,
    Parameters(query): Parameters<Query>,
) -> Result<Response, Problem> {
    state.authenticator.admin(&headers)?;
    let filter = query.filter()?;
    let limit = Page::parse(query.limit.as_deref(), None)?.limit();
    let before = match query.cursor.as_deref().map(str::parse::<DeliveryId>) {
        None => None,
        Some(Ok(id)) => Some(id),
        Some(Err(())) => return Err(bad_cursor()),
    };
    let store = state.store.clone();
    let found = blocking(move || store.dead_letters(&filter, before, limit)).await??;
    let items: Vec<Value> = found.items.iter().map(shown).collect();
    let next = found.next.map(|id| id.to_string());
    Ok(axum::Json(json!({"items": items, "next": next})).into_response())
}

fn shown(letter: &DeadLetter) -> Value {
    let progress = &letter.progress;
    json!({
        "id": letter.delivery.to_string(),
        "message": letter.delivery.message().to_string(),
        "client": letter.client,
        "ref": letter.reference,
        "state": progress.state.word(),
        "reason": progress.reason.map(Reason::word),
        "at": letter.at.rfc3339(),
        "attempts": attempts(&progress.attempts),
        "replayable": true,
    })
}

pub(super) async fn delete(
    State(state): Shared,
    headers: HeaderMap,
    Segment(id): Segment,
) -> Result<StatusCode, Problem> {
    let caller = state.authenticator.admin(&headers)?;
    let delivery = known(&state, &id).await?;
    audit::record(&state, &caller, format!("delete dead-letters/{delivery}"), None).await?;
    let buried = state.store.write(vec![Write::Buried(delivery)]).await;
    buried.map_err(|_| Problem::shutting_down())?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tries one again.
pub(super) async fn replay(
    State(state): Shared,
    headers: HeaderMap,
    Segment(id): Segment,
) -> Result<Response, Problem> {
    let caller = state.authenticator.admin(&headers)?;
    let delivery: DeliveryId = id.parse().map_err(|()| unknown())?;
    match state.dispatcher.replay(delivery).await {
        Replayed::Queued => {
            audit::record(&state, &caller, format!("replay dead-letters/{delivery}"), None).await?;
            let body = json!({"id": delivery.to_string(), "state": "waiting"});
            Ok((StatusCode::ACCEPTED, axum::Json(body)).into_response())
        }
        Replayed::NotDead => Err(not_dead()),
        Replayed::Unknown => Err(unknown()),
        Replayed::Rejected(rejected) => Err(rejected.into()),
    }
}

/// How many one call replays unless it says otherwise.
const REPLAYED: usize = 1000;

/// … and at most: it is answered when they are all on disk.
const MOST_REPLAYED: usize = 100_000;

/// Dead letters read in one go.
const LOT: usize = 256;

/// Tries those that a filter lets through again, the latest first.
pub(super) async fn replay_many(
    State(state): Shared,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let caller = state.authenticator.admin(&headers)?;
    let bytes = form::bytes(&state, &headers, body).await?;
    let keys = ["reason", "provider", "client", "since", "until", "limit"];
    let mut form = Form::new(&bytes, &state, &keys)?;
    let word = form.text("reason");
    let filter = DeadFilter {
        reason: word.as_deref().and_then(reason),
        provider: form.text("provider"),
        client: form.text("client"),
        since: form.moment("since"),
        until: form.moment("until"),
    };
    if word.is_some() && filter.reason.is_none() {
        form.fault("/reason", unknown_reason(), "invalid_value");
    }
    let limit = form.whole("limit", 1, MOST_REPLAYED).unwrap_or(REPLAYED);
    form.finish()?;
    let why = String::from_utf8_lossy(&bytes).into_owned();
    audit::record(&state, &caller, "replay dead-letters".to_owned(), Some(why)).await?;
    let replayed = replay_all(&state, filter, limit).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(json!({ "replayed": replayed }))).into_response())
}

/// Ends early, with what was done so far, when the queue takes no more; a refusal
/// of the very first is the caller's answer.
async fn replay_all(
    state: &Arc<AdminState>,
    filter: DeadFilter,
    limit: usize,
) -> Result<usize, Problem> {
    let (mut replayed, mut before) = (0, None);
    loop {
        let (store, wanted) = (state.store.clone(), filter.clone());
        let most = LOT.min(limit - replayed);
        let part = blocking(move || store.dead_letters(&wanted, before, most)).await??;
        let lot = part.items.iter().map(|letter| state.dispatcher.replay(letter.delivery));
        for answer in futures_util::future::join_all(lot).await {
            match answer {
                Replayed::Queued => replayed += 1,
                // Someone else was quicker.
                Replayed::NotDead | Replayed::Unknown => {}
                Replayed::Rejected(rejected) if replayed == 0 => return Err(rejected.into()),
                Replayed::Rejected(_) => return Ok(replayed),
            }
        }
        before = part.next;
        if before.is_none() || replayed >= limit {
            return Ok(replayed);
        }
    }
}

fn unknown() -> Problem {
    Problem::not_found("no delivery of this id is kept")
}

fn not_dead() -> Problem {
    Problem::new(Code::NotDead, "this delivery is no dead letter")
}

/// The dead letter of this id: 404 when there never was such a delivery, 409 when
/// it is not dead.
async fn known(state: &Arc<AdminState>, id: &str) -> Result<DeliveryId, Problem> {
    let delivery: DeliveryId = id.parse().map_err(|()| unknown())?;
    let store = state.store.clone();
    let (dead, message) = blocking(move || -> Result<_, crate::store::StoreError> {
        Ok((store.is_dead(delivery)?, store.message(delivery.message())?))
    })
    .await??;
    let there = message.is_some_and(|m| usize::from(delivery.n()) < m.recipients.len());
    match (dead, there) {
        (true, _) => Ok(delivery),
        (false, true) => Err(not_dead()),
        (false, false) => Err(unknown()),
    }
}
