//! The only place that turns a refusal into an answer: problem JSON (RFC 9457)
//! with one code for programs, one line for people, and every fault of the body.

use std::fmt;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};
use utoipa::ToSchema;

use crate::dispatch::Rejected;
use crate::intake::json::Malformed;
use crate::intake::{Fault, Refusal};
use crate::store::StoreError;
use crate::telemetry::MessageResult;

/// Why a request was refused: what `code` of a problem says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// 400: not JSON or UTF-8, trailing bytes, too deep, equal keys.
    Malformed,
    /// 401: no key, or an unknown one.
    Unauthenticated,
    /// 403: not allowed to this key.
    Forbidden,
    /// 404.
    NotFound,
    /// 405.
    MethodNotAllowed,
    /// 408: the body did not come in time. Sent without a body.
    Timeout,
    /// 409: the first request with this key is still being committed.
    IdempotencyInProgress,
    /// 409: nothing is left to cancel.
    Settled,
    /// 409: what is to be replayed or deleted is no dead letter.
    NotDead,
    /// 413: body too large.
    TooLarge,
    /// 415: not JSON, or encoded.
    UnsupportedMediaType,
    /// 422: all faults of the request at once.
    Invalid,
    /// 422: the key came with another body before.
    IdempotencyMismatch,
    /// 429: over the client's rate.
    RateLimited,
    /// 429: too much of this client is unsettled.
    ClientQueueFull,
    /// 500: a fault of ours.
    Internal,
    /// 503: too many requests at once.
    Overloaded,
    /// 503: too much is unsettled.
    QueueFull,
    /// 503: the disk is full or broken.
    StoreUnavailable,
    /// 503: the server is going down.
    ShuttingDown,
}

impl Code {
    /// All codes.
    pub const ALL: [Self; 20] = [
        Self::Malformed,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Timeout,
        Self::IdempotencyInProgress,
        Self::Settled,
        Self::NotDead,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::Invalid,
        Self::IdempotencyMismatch,
        Self::RateLimited,
        Self::ClientQueueFull,
        Self::Internal,
        Self::Overloaded,
        Self::QueueFull,
        Self::StoreUnavailable,
        Self::ShuttingDown,
    ];

    /// Its word, status and title.
    const fn row(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::Malformed => ("malformed", StatusCode::BAD_REQUEST, "The body cannot be read"),
            Self::Unauthenticated => {
                ("unauthenticated", StatusCode::UNAUTHORIZED, "A valid key is needed")
            }
            Self::Forbidden => ("forbidden", StatusCode::FORBIDDEN, "Not allowed to this key"),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND, "There is no such thing"),
            Self::MethodNotAllowed => (
                "method_not_allowed",
                StatusCode::METHOD_NOT_ALLOWED,
                "This path does not take that method",
            ),
            Self::Timeout => ("timeout", StatusCode::REQUEST_TIMEOUT, "The body came too slowly"),
            Self::IdempotencyInProgress => (
                "idempotency_in_progress",
                StatusCode::CONFLICT,
                "The first request with this key is still being committed",
            ),
            Self::Settled => ("settled", StatusCode::CONFLICT, "Every delivery has settled"),
            Self::NotDead => ("not_dead", StatusCode::CONFLICT, "It is no dead letter"),
            Self::TooLarge => ("too_large", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
            Self::UnsupportedMediaType => (
                "unsupported_media_type",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The body must be plain JSON",
            ),
            Self::Invalid => {
                ("invalid", StatusCode::UNPROCESSABLE_ENTITY, "The request has faults")
            }
            Self::IdempotencyMismatch => (
                "idempotency_mismatch",
                StatusCode::UNPROCESSABLE_ENTITY,
                "This key came with another body before",
            ),
            Self::RateLimited => {
                ("rate_limited", StatusCode::TOO_MANY_REQUESTS, "Over the client's rate")
            }
            Self::ClientQueueFull => (
                "client_queue_full",
                StatusCode::TOO_MANY_REQUESTS,
                "Too many deliveries of this client are unsettled",
            ),
            Self::Internal => {
                ("internal", StatusCode::INTERNAL_SERVER_ERROR, "A fault of the server")
            }
            Self::Overloaded => {
                ("overloaded", StatusCode::SERVICE_UNAVAILABLE, "Too many requests at once")
            }
            Self::QueueFull => {
                ("queue_full", StatusCode::SERVICE_UNAVAILABLE, "Too many deliveries are unsettled")
            }
            Self::StoreUnavailable => (
                "store_unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "The store cannot take messages",
            ),
            Self::ShuttingDown => {
                ("shutting_down", StatusCode::SERVICE_UNAVAILABLE, "The server is going down")
            }
        }
    }

    /// The word.
    pub const fn word(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status.
    pub const fn status(self) -> StatusCode {
        self.row().1
    }

    /// What an offered message that ends so counts as.
    pub const fn result(self) -> MessageResult {
        match self {
            Self::RateLimited => MessageResult::RateLimited,
            Self::ClientQueueFull
            | Self::Internal
            | Self::Overloaded
            | Self::QueueFull
            | Self::StoreUnavailable
            | Self::ShuttingDown
            | Self::IdempotencyInProgress => MessageResult::Rejected,
            Self::Malformed
            | Self::Unauthenticated
            | Self::Forbidden
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::Timeout
            | Self::Settled
            | Self::NotDead
            | Self::TooLarge
            | Self::UnsupportedMediaType
            | Self::Invalid
            | Self::IdempotencyMismatch => MessageResult::Invalid,
        }
    }
}

/// A refused request. Small, because it travels in every `Result`.
#[derive(Clone, PartialEq, Eq)]
pub struct Problem(Box<Inner>);

#[derive(Clone, PartialEq, Eq)]
struct Inner {
    code: Code,
    detail: String,
    errors: Vec<Fault>,
    retry_after: Option<Duration>,
}

impl Problem {
    /// With one line for people: what was wrong, and what to do.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self(Box::new(Inner { code, detail, errors: Vec::new(), retry_after: None }))
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(Code::NotFound, detail)
    }

    /// 422 with the faults of the body.
    pub fn invalid(errors: Vec<Fault>) -> Self {
        let detail = match &errors[..] {
            [one] if one.pointer.is_empty() => one.detail.clone(),
            [one] => format!("{}: {}", one.pointer, one.detail),
            many => format!("{} faults; see errors", many.len()),
        };
        let mut problem = Self::new(Code::Invalid, detail);
        problem.0.errors = errors;
        problem
    }

    /// 422 for a query parameter; its pointer is `/query/` and its name.
    pub fn parameter(name: &str, detail: &str) -> Self {
        let told = format!("query parameter `{name}`: {detail}");
        let mut problem = Self::new(Code::Invalid, told);
        let (pointer, detail) = (format!("/query/{name}"), detail.to_owned());
        problem.0.errors = vec![Fault { pointer, detail, code: "invalid_value" }];
        problem
    }

    /// The same, to be tried again after this long.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// What it says to programs.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// When to try again, of those that pass by themselves.
    pub fn wait(&self) -> Option<Duration> {
        self.0.retry_after
    }

    fn headers(&self, response: &mut Response) {
        let status = self.0.code.status();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let passes = status == StatusCode::TOO_MANY_REQUESTS
            || status == StatusCode::SERVICE_UNAVAILABLE
            || self.0.retry_after.is_some();
        if passes {
            let after = self.0.retry_after.unwrap_or(SHORTEST_WAIT);
            let share = rand::random_range(SPREAD);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds(after, share)));
        }
    }
}

/// `Retry-After` is between these (docs/semantics.md, "Limits"),
/// give or take the spread: those who were refused together come back apart.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const SPREAD: std::ops::RangeInclusive<f64> = 0.9..=1.1;

/// Whole seconds, rounded up: who comes a moment early is refused again.
fn seconds(after: Duration, share: f64) -> u64 {
    let seconds = after.clamp(SHORTEST_WAIT, LONGEST_WAIT).as_secs_f64() * share;
    // A saturating cast of 1 to 66.
    seconds.ceil() as u64
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Problem({}: {})", self.0.code.word(), self.0.detail)
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Inner { code, detail, errors, retry_after: _ } = &*self.0;
        let (word, status, title) = code.row();
        let mut problem = serializer.serialize_struct("Problem", 6)?;
        problem.serialize_field("type", &format_args!("urn:pushyard:problem:{word}"))?;
        problem.serialize_field("code", word)?;
        problem.serialize_field("title", title)?;
        problem.serialize_field("status", &status.as_u16())?;
        problem.serialize_field("detail", detail)?;
        if !errors.is_empty() {
            problem.serialize_field("errors", errors)?;
        }
        problem.end()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.0.code.status();
        // It comes from the HTTP layer, like those that hyper answers by itself.
        let mut response = if self.0.code == Code::Timeout {
            Response::new(Body::empty())
        } else {
            // Strings and numbers: serialising them does not fail.
            let body = serde_json::to_vec(&self).unwrap_or_default();
            let mut response = Response::new(Body::from(body));
            let kind = HeaderValue::from_static("application/problem+json");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        };
        *response.status_mut() = status;
        self.headers(&mut response);
        response
    }
}

impl From<Malformed> for Problem {
    fn from(malformed: Malformed) -> Self {
        Self::new(Code::Malformed, malformed.0)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Faults(faults) => Self::invalid(faults),
            Refusal::RouteForbidden(route) => {
                Self::new(Code::Forbidden, format!("this key may not use route \"{route}\""))
            }
        }
    }
}

impl From<Rejected> for Problem {
    fn from(rejected: Rejected) -> Self {
        let (code, detail, after) = match rejected {
            Rejected::QueueFull(after) => {
                (Code::QueueFull, "too many deliveries wait; try again later", after)
            }
            Rejected::ClientQueueFull(after) => (
                Code::ClientQueueFull,
                "too many deliveries of this client wait; try again later",
                after,
            ),
            Rejected::Overloaded(after) => {
                (Code::Overloaded, "too many messages wait for the disk; try again later", after)
            }
            Rejected::StoreUnavailable(after) => {
                (Code::StoreUnavailable, "the store cannot take messages; try again later", after)
            }
            Rejected::ShuttingDown => return Self::shutting_down(),
        };
        Self::new(code, detail).retry_after(after)
    }
}

impl Problem {
    /// 500; the log has the rest.
    pub fn internal() -> Self {
        Self::new(Code::Internal, "a fault of the server; it has been logged")
    }

    /// 503, until another process has taken over.
    pub fn shutting_down() -> Self {
        Self::new(Code::ShuttingDown, "the server is going down; try again")
            .retry_after(Duration::from_secs(5))
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        // The engine's words may name paths; they are for the log.
        tracing::error!(%error, "the store could not be read");
        Self::new(Code::StoreUnavailable, "the store could not be read; try again later")
            .retry_after(Duration::from_secs(5))
    }
}

/// A path that is not there.
pub async fn unknown_path() -> Problem {
    Problem::not_found("this path does not exist on this listener")
}

/// A method that the path does not take. The router adds `Allow`.
pub async fn unknown_method() -> Problem {
    Problem::new(Code::MethodNotAllowed, "see the header Allow")
}

/// A panic: a fault of ours, told in full to the log only.
pub fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    Problem::internal().into_response()
}

/// The shape of a problem, for the description.
#[derive(Debug, ToSchema)]
#[schema(as = Problem)]
#[expect(dead_code, reason = "describes what `Problem` serialises to")]
pub(super) struct ProblemShape {
    /// `urn:pushyard:problem:` and the code.
    #[schema(example = "urn:pushyard:problem:invalid")]
    r#type: String,
    /// What went wrong, for programs.
    #[schema(schema_with = codes)]
    code: String,
    /// What went wrong, for people.
    title: String,
    /// The HTTP status again.
    status: u16,
    /// This very case: what was wrong, where, and what to do.
    detail: String,
    /// All faults of the body.
    #[schema(nullable = false)]
    errors: Option<Vec<Fault>>,
}

fn codes() -> utoipa::openapi::Object {
    let words = Code::ALL.iter().filter(|code| **code != Code::Timeout).map(|code| code.word());
    utoipa::openapi::ObjectBuilder::new()
        .schema_type(utoipa::openapi::schema::Type::String)
        .enum_values(Some(words))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_1_to_60_seconds_give_or_take_a_tenth_and_rounded_up() {
        for (after_ms, share, expected) in [
            (0, 0.9, 1),
            (0, 1.0, 1),
            (0, 1.1, 2),
            (1_200, 1.0, 2),
            (20_000, 0.9, 18),
            (20_000, 1.1, 22),
            (3_600_000, 0.9, 54),
            (3_600_000, 1.1, 66),
        ] {
            let after = Duration::from_millis(after_ms);
            assert_eq!(seconds(after, share), expected, "{after:?} {share}");
        }
    }
}
