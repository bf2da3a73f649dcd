//! `POST /v1/stream/tokens`: a backend asks for what its device needs to listen to
//! a topic. Nothing is stored: the token says itself until when it is good.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use pushyard_providers::stream::is_topic;
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::problem::Problem;
use super::read::{self, Media};
use crate::clock::Utc;
use crate::intake::Fault;
use crate::intake::json::{Node, parse};
use crate::intake::time::duration;

const DEFAULT_LIFE: Duration = Duration::from_secs(30 * 86_400);

/// A token cannot be taken back alone: a year is long enough for a mistake.
const LONGEST_LIFE: Duration = Duration::from_secs(366 * 86_400);

/// What is wanted.
#[derive(Debug, ToSchema)]
#[schema(as = StreamTokenRequest)]
#[expect(dead_code, reason = "describes what `fields` reads")]
pub(super) struct TokenRequest {
    /// The topic that it opens.
    #[schema(example = "alice-7f3a", pattern = "^[-_A-Za-z0-9]{1,64}$")]
    topic: String,
    /// For how long; at most 366d.
    #[schema(example = "30d", default = "30d", nullable = false, pattern = "^[0-9]+(s|m|h|d)$")]
    ttl: Option<String>,
}

/// What a device listens with.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StreamToken)]
pub(super) struct Token {
    /// Sent as `Authorization: Bearer`, as the password of Basic, or in `?auth=`.
    token: String,
    /// From then on it opens nothing.
    expires_at: String,
}

/// Make a token that opens a topic of the stream listener.
#[utoipa::path(
    post,
    path = "/v1/stream/tokens",
    operation_id = "makeStreamToken",
    tag = "stream",
    request_body(content = TokenRequest, description = "Which topic, and for how long."),
    responses((status = 200, body = Token, description = "The token."))
)]
pub(super) async fn make(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Token>, Problem> {
    let state = &shared.state;
    state.authenticator.caller(&headers)?;
    let tokens = state
        .stream_tokens
        .as_ref()
        .ok_or_else(|| Problem::not_found("there is no stream listener; set listen in [stream]"))?;
    read::media(&headers, Media::Json)?;
    let bytes = read::body(&headers, body, &state.limits).await?;
    let (topic, life) = fields(&parse(&bytes, state.limits.max_json_depth)?)?;
    let end = state.clock.now().utc.plus(life).ms() / 1000;
    let expires_at = Utc::from_ms(end * 1000).rfc3339();
    Ok(Json(Token { token: tokens.make(&topic, end), expires_at }))
}

fn fields(node: &Node<'_>) -> Result<(String, Duration), Problem> {
    let mut faults = Vec::new();
    let mut fault = |pointer: &str, detail: &str, code| {
        faults.push(Fault { pointer: pointer.to_owned(), detail: detail.to_owned(), code });
    };
    let topic = node.get("topic").and_then(Node::text);
    match topic {
        Some(topic) if is_topic(topic) => {}
        Some(_) => {
            fault(
                "/topic",
                "must be 1 to 64 letters, digits, - or _, and not reserved",
                "invalid_value",
            );
        }
        None => fault("/topic", "is required, and is a string", "required"),
    }
    let life = match node.get("ttl") {
        None => Some(DEFAULT_LIFE),
        Some(ttl) => ttl.text().and_then(duration),
    };
    let within = Duration::from_secs(1)..=LONGEST_LIFE;
    let life = life.filter(|life| within.contains(life));
    if life.is_none() {
        fault("/ttl", "must be a duration from \"1s\" to \"366d\", as in \"30d\"", "invalid_value");
    }
    match (topic, life) {
        (Some(topic), Some(life)) if faults.is_empty() => Ok((topic.to_owned(), life)),
        _ => Err(Problem::invalid(faults)),
    }
}
