//! Problem JSON (RFC 9457) of the control port, in the router's own form, so
//! that whoever reads the one can read the other.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// One fault of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FieldFault {
    /// A JSON pointer.
    pub(super) pointer: String,
    pub(super) detail: String,
}

impl FieldFault {
    pub(super) fn new(field: &str, detail: impl Into<String>) -> Self {
        Self { pointer: format!("/{field}"), detail: detail.into() }
    }
}

/// Why a call is refused.
#[derive(Debug)]
pub(super) enum Problem {
    Malformed(String),
    NotFound(String),
    MethodNotAllowed,
    Invalid(Vec<FieldFault>),
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, code, title) = match &self {
            Self::Malformed(_) => (400, "malformed", "the body cannot be read"),
            Self::NotFound(_) => (404, "not_found", "there is no such thing"),
            Self::MethodNotAllowed => (405, "method_not_allowed", "not with this method"),
            Self::Invalid(_) => (422, "invalid", "the request is not valid"),
        };
        let (detail, faults) = match self {
            Self::Malformed(detail) | Self::NotFound(detail) => (detail, Vec::new()),
            Self::MethodNotAllowed => (title.to_owned(), Vec::new()),
            Self::Invalid(faults) => {
                let all: Vec<_> = faults.iter().map(|fault| fault.detail.as_str()).collect();
                (all.join("; "), faults)
            }
        };
        let mut body = json!({"type": format!("urn:pushyard:problem:{code}"), "code": code,
                              "title": title, "status": status, "detail": detail});
        if !faults.is_empty() {
            body["errors"] = faults
                .into_iter()
                .map(
                    |fault| json!({"pointer": fault.pointer, "detail": fault.detail, "code": code}),
                )
                .collect();
        }
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(body)).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}
