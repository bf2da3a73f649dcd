//! UnifiedPush: a sender that knows a topic's address puts a Web Push payload into
//! it, and a distributor such as ntfy's app hands it to an app.
//!
//! This is the one way to publish from outside. The address is the secret, so no
//! credential is asked for, and `Authorization` of Web Push (RFC 8292) means
//! nothing here. Where topics need tokens only those that begin with `up` can be
//! written, as on a private ntfy server: their names are drawn for this. The
//! answer comes when the message is in the backlog, on disk.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use pushyard_providers::stream::{BacklogBroken, LARGEST_TEXT, Text};

use super::StreamState;
use super::question::Parameters;
use super::refusal::Refusal;
use crate::api::{self, Code};
use crate::dispatch::Limits;

/// What the topics of UnifiedPush begin with (ntfy, "UnifiedPush").
const PREFIX: &str = "up";

/// Without a `TTL`, the backlog's own bound decides.
const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);

/// Whether senders may write into this topic.
pub(super) fn open(state: &StreamState, topic: &str) -> bool {
    state.unifiedpush && (state.tokens.is_none() || topic.starts_with(PREFIX))
}

/// Whether a request means UnifiedPush: it says so, or it is encrypted as nothing
/// else is (RFC 8291).
pub(super) fn is_meant(headers: &HeaderMap, uri: &Uri) -> bool {
    let encrypted = headers.get(header::CONTENT_ENCODING).is_some_and(|is| is == "aes128gcm");
    encrypted || Parameters::read(headers, uri).truth(&["x-unifiedpush", "unifiedpush", "up"])
}

/// What a distributor asks before it gives an address away.
pub(super) fn discovery() -> Response {
    axum::Json(serde_json::json!({"unifiedpush": {"version": 1}})).into_response()
}

/// Publishes the body.
pub(super) async fn publish(
    state: &StreamState,
    topic: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let limits = Limits { max_body: LARGEST_TEXT as u64, ..state.limits };
    let bytes =
        api::body(headers, body, &limits).await.map_err(|problem| match problem.code() {
            Code::TooLarge => Refusal::Large,
            Code::Timeout => Refusal::Slow,
            _ => Refusal::Broken,
        })?;
    let text = Text::new(&bytes).ok_or(Refusal::Large)?;
    // RFC 8030, section 5.2. ntfy's own server does not ask for it.
    let life = headers.get("ttl").and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let life = life.map_or(LONGEST, Duration::from_secs);
    let line = state.hub.publish_text(topic, &text, life).await;
    let mut answer = line.map_err(|BacklogBroken| Refusal::Backlog)?.into_response();
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(answer)
}
