//! `GET /admin/v1/events`: what happens, as server-sent events (WHATWG HTML,
//! section 9.2). Whoever comes with `Last-Event-ID` gets what it has missed, of
//! the last thousand; a comment every 15 seconds keeps proxies from closing.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::stream::unfold;

use super::Shared;
use crate::api::Problem;
use crate::telemetry::HubEvent;

const COMMENT: Duration = Duration::from_secs(15);

pub(super) async fn watch(State(state): Shared, headers: HeaderMap) -> Result<Response, Problem> {
    state.authenticator.admin(&headers)?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.trim().parse().ok());
    let seen: u64 = last.unwrap_or_else(|| state.telemetry.hub().now());
    let closed = state.closed.clone();
    let events = unfold((state, seen), |(state, seen)| async move {
        let next = state.telemetry.hub().after(seen).await;
        Some((Ok::<_, Infallible>(told(&next)), (state, next.id)))
    });
    let events = events.take_until(closed.cancelled_owned());
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(COMMENT)).into_response())
}

fn told(event: &HubEvent) -> Event {
    // No newline can be in it: JSON escapes them.
    Event::default().id(event.id.to_string()).event(event.name).data(event.data().to_string())
}
