//! `GET /admin/v1/audit`: what operators did, the latest first; and how it gets
//! there: on disk before the call is answered, so that nothing was done that
//! nobody can be asked about.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{AdminState, PageQuery, Shared};
use crate::api::{Caller, Code, Page, Parameters, Problem, bad_cursor, blocking};
use crate::store::{Action, Write};

pub(super) async fn list(
    State(state): Shared,
    headers: HeaderMap,
    Parameters(query): Parameters<PageQuery>,
) -> Result<Response, Problem> {
    state.authenticator.admin(&headers)?;
    let limit = Page::parse(query.limit.as_deref(), None)?.limit();
    let before = match query.cursor.as_deref().map(str::parse) {
        None => None,
        Some(Ok(number)) => Some(number),
        Some(Err(_)) => return Err(bad_cursor()),
    };
    let store = state.store.clone();
    let found = blocking(move || store.actions(before, limit)).await??;
    let item = |(number, action): &(u64, Action)| -> Value {
        json!({
            "id": number.to_string(),
            "at": action.at.rfc3339(),
            "who": action.who,
            "what": action.what,
            "why": action.why,
        })
    };
    let items: Vec<Value> = found.items.iter().map(item).collect();
    let next = found.next.map(|number| number.to_string());
    Ok(axum::Json(json!({"items": items, "next": next})).into_response())
}

/// Writes down what is being done, and returns when that is on disk.
///
/// # Errors
/// 503 when the store takes nothing any more.
pub(super) async fn record(
    state: &AdminState,
    caller: &Arc<Caller>,
    what: String,
    why: Option<String>,
) -> Result<(), Problem> {
    let action = Action { at: state.clock.now().utc, who: caller.name().clone(), what, why };
    state.store.write(vec![Write::Action(action)]).await.map_err(|_| {
        Problem::new(Code::StoreUnavailable, "the store takes nothing any more; see the log")
    })
}
