//! `PUT /admin/v1/log`: another log filter, until the next start.

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::form::{self, Form};
use super::{Shared, audit};
use crate::api::Problem;
use crate::intake::Fault;
use crate::telemetry::{HubEvent, set_filter};

pub(super) async fn put(
    State(state): Shared,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let caller = state.authenticator.admin(&headers)?;
    let bytes = form::bytes(&state, &headers, body).await?;
    let mut form = Form::new(&bytes, &state, &["filter"])?;
    let filter = form.text("filter");
    if form.get("filter").is_none() {
        form.fault("/filter", "is required, as in \"pushyard=debug\"", "required");
    }
    form.finish()?;
    // Only now: a call with any fault changes nothing.
    if let Some(filter) = &filter
        && let Err(detail) = set_filter(filter)
    {
        let (pointer, code) = ("/filter".to_owned(), "invalid_value");
        return Err(Problem::invalid(vec![Fault { pointer, detail, code }]));
    }
    audit::record(&state, &caller, "set log".to_owned(), filter.clone()).await?;
    state.telemetry.operator(HubEvent {
        name: "operator",
        to: Some("log".to_owned()),
        reason: filter.clone(),
        by: Some(caller.name().clone()),
        ..HubEvent::default()
    });
    Ok(axum::Json(json!({"filter": filter})).into_response())
}
