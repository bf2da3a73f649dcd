//! Refusals as ntfy's clients read them: JSON with `code`, `http` and `error` and
//! no other key, ended by a newline (one client fails on keys that it does not
//! know).

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pushyard_providers::stream::Full;

/// Why a device is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A priority that is none.
    Priority,
    /// A `since` that is none.
    Since,
    /// A topic that can be none.
    Topic,
    /// A topic that the server keeps for itself.
    Reserved,
    /// A body that broke off.
    Broken,
    /// A body that came too slowly.
    Slow,
    /// A body that is too large.
    Large,
    /// `/ws` without an upgrade.
    Upgrade,
    /// A bad credential.
    Unauthorized,
    /// No credential, or not for this.
    Forbidden,
    /// No such page.
    Unknown,
    /// The rate of an address; one more after so long.
    Requests(Duration),
    /// Too many bad tokens from an address; one more after so long.
    Failures(Duration),
    /// A bound on subscribers or topics.
    Full(Full),
    /// The backlog cannot be written.
    Backlog,
    /// The server goes down.
    Closed,
}

impl Refusal {
    /// ntfy's code, the HTTP status, and a line for people.
    const fn row(self) -> (u32, StatusCode, &'static str) {
        match self {
            Self::Priority => (40007, StatusCode::BAD_REQUEST, "invalid priority parameter"),
            Self::Since => (40008, StatusCode::BAD_REQUEST, "invalid since parameter"),
            Self::Topic => {
                (40009, StatusCode::BAD_REQUEST, "invalid topic: 1 to 64 letters, digits, - or _")
            }
            Self::Reserved => (
                40010,
                StatusCode::BAD_REQUEST,
                "invalid topic: the server keeps this name for itself",
            ),
            Self::Broken => (40000, StatusCode::BAD_REQUEST, "the body ended early"),
            Self::Slow => (40000, StatusCode::REQUEST_TIMEOUT, "the body came too slowly"),
            Self::Large => (
                41301,
                StatusCode::PAYLOAD_TOO_LARGE,
                "a message has at most 4096 bytes; nothing of it was taken",
            ),
            Self::Upgrade => (
                40016,
                StatusCode::BAD_REQUEST,
                "client not using the websocket protocol (version 13, over HTTP/1.1)",
            ),
            Self::Unauthorized => (40101, StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::Forbidden => (40301, StatusCode::FORBIDDEN, "forbidden"),
            Self::Unknown => (40401, StatusCode::NOT_FOUND, "page not found"),
            Self::Requests(_) => (
                42901,
                StatusCode::TOO_MANY_REQUESTS,
                "limit reached: too many requests from this address (stream.rate)",
            ),
            Self::Failures(_) => (
                42909,
                StatusCode::TOO_MANY_REQUESTS,
                "limit reached: too many auth failures from this address",
            ),
            Self::Full(full) => bound(full),
            Self::Backlog => {
                (50001, StatusCode::SERVICE_UNAVAILABLE, "messages cannot be kept; come back")
            }
            Self::Closed => {
                (50001, StatusCode::SERVICE_UNAVAILABLE, "the server is going down; come back")
            }
        }
    }

    /// Seconds. Who is over a bound comes back when somebody may have left.
    fn retry_after(self) -> u64 {
        match self {
            Self::Requests(wait) | Self::Failures(wait) => wait.as_secs().saturating_add(1),
            _ => 30,
        }
    }
}

/// Of the bounds ntfy knows two: what one visitor holds, and all topics.
const fn bound(full: Full) -> (u32, StatusCode, &'static str) {
    let (code, error) = match full {
        Full::Subscribers => {
            (42903, "limit reached: too many subscribers (stream.max_subscribers)")
        }
        Full::AddressSubscribers => (
            42903,
            "limit reached: too many subscribers from this address \
             (stream.max_subscribers_per_address)",
        ),
        Full::TopicSubscribers => (
            42903,
            "limit reached: too many subscribers of this topic (stream.max_subscribers_per_topic)",
        ),
        Full::AddressTopics => (
            42903,
            "limit reached: too many topics from this address (stream.max_topics_per_address)",
        ),
        Full::Topics => (42904, "limit reached: too many topics (stream.max_topics)"),
        Full::Closed => return Refusal::Closed.row(),
    };
    (code, StatusCode::TOO_MANY_REQUESTS, error)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (code, status, error) = self.row();
        let http = status.as_u16();
        // Constant text without anything to escape.
        let body = format!("{{\"code\":{code},\"http\":{http},\"error\":\"{error}\"}}\n");
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(self.retry_after()));
        }
        response
    }
}
