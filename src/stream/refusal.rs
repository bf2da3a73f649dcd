//! Refusals as ntfy's clients read them: JSON with `code`, `http` and `error` and
//! no other key, ended by a newline (one client fails on keys that it does not
//! know).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Why a device is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A priority that is none.
    Priority,
    /// A `since` that is none.
    Since,
    /// A topic that can be none.
    Topic,
    /// `/ws` without an upgrade.
    Upgrade,
    /// A bad credential.
    Unauthorized,
    /// No credential, or not for this.
    Forbidden,
    /// No such page.
    Unknown,
    /// `max_topics_per_address`.
    Topics,
    /// `max_subscribers`.
    Subscribers,
    /// The server goes down.
    Closed,
}

impl Refusal {
    /// ntfy's code, the HTTP status, and a line for people.
    const fn row(self) -> (u32, StatusCode, &'static str) {
        match self {
            Self::Priority => (40007, StatusCode::BAD_REQUEST, "invalid priority parameter"),
            Self::Since => (40008, StatusCode::BAD_REQUEST, "invalid since parameter"),
            Self::Topic => (
                40009,
                StatusCode::BAD_REQUEST,
                "invalid topic: 1 to 64 letters, digits, - or _, and no name of the server's own",
            ),
            Self::Upgrade => (
                40016,
                StatusCode::BAD_REQUEST,
                "client not using the websocket protocol (version 13, over HTTP/1.1)",
            ),
            Self::Unauthorized => (40101, StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::Forbidden => (40301, StatusCode::FORBIDDEN, "forbidden"),
            Self::Unknown => (40401, StatusCode::NOT_FOUND, "page not found"),
            Self::Topics => (
                42903,
                StatusCode::TOO_MANY_REQUESTS,
                "limit reached: too many topics from this address (stream.max_topics_per_address)",
            ),
            Self::Subscribers => (
                42903,
                StatusCode::TOO_MANY_REQUESTS,
                "limit reached: too many subscribers (stream.max_subscribers)",
            ),
            Self::Closed => {
                (50001, StatusCode::SERVICE_UNAVAILABLE, "the server is going down; come back")
            }
        }
    }
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
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("30"));
        }
        response
    }
}
