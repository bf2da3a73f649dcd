//! What all calls read of a request: its media type, its body within the limits,
//! its query parameters and its idempotency key.

use axum::body::{Body, Bytes};
use axum::extract::Query;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::problem::{Code, Problem};
use crate::dispatch::Limits;
use crate::intake::{Fault, idempotency};

/// The header that names an idempotency key.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// What a body may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    /// One JSON document.
    Json,
    /// A JSON document a line.
    Lines,
}

/// Refuses what is declared to be something else, or compressed. A body without a
/// declared type is taken at its word.
pub(super) fn media(headers: &HeaderMap, media: Media) -> Result<(), Problem> {
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

/// The whole body, within its size and its time.
pub(super) async fn body(
    headers: &HeaderMap,
    body: Body,
    limits: &Limits,
) -> Result<Bytes, Problem> {
    let most = usize::try_from(limits.max_body).unwrap_or(usize::MAX);
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if declared.is_some_and(|declared: u64| declared > limits.max_body) {
        return Err(too_large(limits));
    }
    let collect = Limited::new(body, most).collect();
    match tokio::time::timeout(limits.body_timeout, collect).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(limits)),
        Ok(Err(_)) => Err(Problem::new(Code::Malformed, "the body ended early")),
        Err(_) => Err(Problem::new(Code::Timeout, "the body came too slowly")),
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
        Problem::new(Code::Invalid, "the query cannot be read; is a parameter given twice?")
    })
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
