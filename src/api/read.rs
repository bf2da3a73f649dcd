//! What all calls read of a request: its media type, its body within the limits,
//! its query parameters and its idempotency key.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};
use bytes::BytesMut;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::problem::{Code, Problem};
use crate::dispatch::Limits;
use crate::intake::{Fault, idempotency};
use crate::model::Trace;

/// The header that names an idempotency key.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The header with a trace (W3C Trace Context).
const TRACEPARENT: &str = "traceparent";

/// The header with a trace, described.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what `trace` reads")]
pub(super) struct Traceparent {
    /// W3C Trace Context: shown as the `trace` of what is sent, and logged with each attempt. An invalid one is ignored.
    #[param(nullable = false, example = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]
    traceparent: Option<String>,
}

/// What a body may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// One JSON document.
    Json,
    /// A JSON document a line.
    Lines,
}

/// Refuses what is declared to be something else, or compressed. A body without a
/// declared type is taken at its word.
///
/// # Errors
/// 415.
pub fn media(headers: &HeaderMap, media: Media) -> Result<(), Problem> {
    let refuse = |detail: &str| Err(Problem::new(Code::UnsupportedMediaType, detail));
    if headers.contains_key(CONTENT_ENCODING) {
        return refuse("send the body without Content-Encoding");
    }
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let declared = value.to_str().unwrap_or_default();
    let essence = declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let json = essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    let lines = matches!(
        &*essence,
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonl"
    );
    match media {
        Media::Json if json => Ok(()),
        Media::Json => refuse("send Content-Type: application/json"),
        Media::Lines if lines || json => Ok(()),
        Media::Lines => refuse("send Content-Type: application/x-ndjson"),
    }
}

/// A body that is too large is still read up to this many times the limit before
/// it is refused: a peer that is cut while it writes sees a broken connection and
/// never the answer that tells it why.
const READ_BEFORE_REFUSAL: u64 = 4;

/// A body may begin this slowly: networks of phones wake up.
const GRACE: Duration = Duration::from_secs(5);

/// Beyond that it must bring at least so much in a second, on average
/// (docs/semantics.md, "Limits").
const LEAST_BYTES_PER_SECOND: f64 = 1024.0;

/// Why a body was not read to its end.
enum Unread {
    /// It broke off.
    Broken,
    /// It came too slowly.
    Slow,
}

/// The whole body, within its size and its time.
///
/// # Errors
/// 400, 408 or 413.
pub async fn body(headers: &HeaderMap, body: Body, limits: &Limits) -> Result<Bytes, Problem> {
    let most = limits.max_body.saturating_mul(READ_BEFORE_REFUSAL);
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if declared.is_some_and(|declared: u64| declared > most) {
        return Err(too_large(limits));
    }
    match tokio::time::timeout(limits.body_timeout, gather(body, limits.max_body, most)).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => Err(too_large(limits)),
        Ok(Err(Unread::Broken)) => Err(Problem::new(Code::Malformed, "the body ended early")),
        Ok(Err(Unread::Slow)) | Err(_) => {
            Err(Problem::new(Code::Timeout, "the body came too slowly"))
        }
    }
}

/// The body, if it has at most `kept` bytes; what is beyond that is read up to
/// `most` and dropped. Each byte buys the time in which the next must come.
async fn gather(mut body: Body, kept: u64, most: u64) -> Result<Option<Bytes>, Unread> {
    let mut length = 0;
    let mut whole = BytesMut::new();
    let mut patience = std::pin::pin!(tokio::time::sleep(GRACE));
    loop {
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            () = patience.as_mut() => return Err(Unread::Slow),
        };
        let Some(frame) = frame else { break };
        let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
        let bought = Duration::from_secs_f64(data.len() as f64 / LEAST_BYTES_PER_SECOND);
        let until = patience.deadline() + bought;
        patience.as_mut().reset(until);
        length += data.len() as u64;
        if length > most {
            break;
        }
        if length > kept {
            whole = BytesMut::new();
        } else if whole.is_empty() && body.is_end_stream() {
            // Mostly the body is one frame: no need to copy it.
            return Ok(Some(data));
        } else {
            whole.extend_from_slice(&data);
        }
    }
    Ok((length <= kept).then(|| whole.freeze()))
}

/// The one segment of a path that varies. What is no UTF-8 names nothing.
#[derive(Debug)]
pub struct Segment(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(segment)| Self(segment)).map_err(|_| Problem::not_found("no such id"))
    }
}

/// The two segments of a path that vary.
#[derive(Debug)]
pub(super) struct Segments(pub(super) String, pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Segments {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        path.map(|Path((one, other))| Self(one, other))
            .map_err(|_| Problem::not_found("no such name"))
    }
}

/// The query parameters of a call.
#[derive(Debug)]
pub struct Parameters<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        query(&parts.uri).map(Self)
    }
}

/// 413.
pub(super) fn too_large(limits: &Limits) -> Problem {
    let detail = format!("at most {} bytes (limits.max_body)", limits.max_body);
    Problem::new(Code::TooLarge, detail)
}

/// The query parameters. Unknown ones are left alone.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    Query::try_from_uri(uri).map(|Query(query)| query).map_err(|_| {
        let detail = "the query cannot be read; is a parameter given twice?".to_owned();
        Problem::invalid(vec![Fault { pointer: "/query".to_owned(), detail, code: "malformed" }])
    })
}

/// The trace that a request is part of, if it is part of one and says so properly.
pub(super) fn trace(headers: &HeaderMap) -> Option<Trace> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let trace = Trace::parse(values.next()?.as_bytes());
    // Two of them say nothing (W3C Trace Context, section 3.2).
    trace.filter(|_| values.next().is_none())
}

/// The key of the header, if there is one.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let fault = |detail: &str, code| {
        let detail = format!("header Idempotency-Key: {detail}");
        Err(Problem::invalid(vec![Fault { pointer: "/idempotency_key".into(), detail, code }]))
    };
    if values.any(|other| other != value) {
        return fault("is given twice, and differs", "conflict");
    }
    match value.to_str().ok().filter(|key| idempotency::well_formed(key)) {
        Some(key) => Ok(Some(key)),
        None => fault(idempotency::FORM, "invalid_value"),
    }
}
