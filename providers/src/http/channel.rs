//! What the self-hosted channels (webhook, ntfy, Gotify) share: one server of the
//! operator's own, reached through the common client.
//!
//! Few pushes go there compared with the large vendors, and the peers speak
//! HTTP/1.1 as often as not, so they use [`Client`] and not the pool.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};

use super::client::{Answered, Client, ClientSettings};
use crate::clock::Clock;
use crate::registry::Context;
use crate::settings::{Setting, SettingError, Shape};
use crate::{Answer, Call, Gauge, Invalid, Outcome, Processed, VendorRequest, Written};

/// Lets `endpoint` be `http:` beyond this machine; the configuration reads it.
pub(crate) const INSECURE_HTTP: Setting =
    Setting { name: "insecure_http", shape: Shape::Flag, required: false };

/// The request header with `<delivery id>.<secret>`, for vendors whose message
/// has no place for it.
pub(crate) const PUSHYARD: HeaderName = HeaderName::from_static("x-pushyard");

/// One server.
pub(crate) struct Channel {
    client: Client,
    /// The endpoint without a slash at its end.
    base: String,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Whether the credential was taken the last time.
pub(crate) struct CredentialSeen(AtomicBool);

impl CredentialSeen {
    /// Good until an answer says otherwise.
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(true))
    }

    /// Keeps in mind what the answer shows of it.
    pub(crate) fn note(&self, answer: Answer) -> Answer {
        if answer.outcome == Outcome::AuthFailed {
            self.0.store(false, Ordering::Relaxed);
        } else if answer.outcome == Outcome::Accepted {
            self.0.store(true, Ordering::Relaxed);
        }
        answer
    }

    pub(crate) fn ok(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// An answer as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply<'a> {
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
    /// The local wall clock, unix seconds.
    pub(crate) now_s: u64,
}

impl Channel {
    /// `example` is an endpoint as it may be written.
    pub(crate) fn new(context: &Context, example: &str) -> Result<Self, SettingError> {
        let Some(endpoint) = &context.endpoint else {
            let detail = format!("is required for this kind, as in {example:?}");
            return Err(SettingError::new("endpoint", detail));
        };
        let client = Client::new(ClientSettings {
            ca: context.ca.clone(),
            connect_timeout: context.connect_timeout,
            timeout: context.timeout,
        });
        Ok(Self {
            client: client.map_err(|detail| SettingError::new("ca_file", detail))?,
            base: endpoint.as_str().trim_end_matches('/').to_owned(),
            clock: Arc::clone(&context.clock),
        })
    }

    /// A URL below the endpoint; `path` begins with a slash, or is empty for the
    /// endpoint itself.
    pub(crate) fn uri(&self, path: &str) -> Result<Uri, SettingError> {
        Uri::try_from(format!("{}{path}", self.base))
            .map_err(|error| SettingError::new("endpoint", error.to_string()))
    }

    /// One call, classified by the vendor's own table.
    pub(crate) async fn push(
        &self,
        request: VendorRequest,
        written: &Written,
        classify: impl FnOnce(Reply<'_>) -> Answer,
    ) -> Answer {
        match self.client.push(request, written).await {
            Ok(answered) => classify(self.reply(&answered)),
            Err(failure) => Answer::from(&failure),
        }
    }

    fn reply<'a>(&self, answered: &'a Answered) -> Reply<'a> {
        let Answered { status, headers, body, .. } = answered;
        Reply { status: *status, headers, body, now_s: self.clock.unix_s() }
    }

    /// Asks after the server's health.
    pub(crate) async fn get(&self, uri: Uri, classify: impl FnOnce(Reply<'_>) -> Answer) -> Answer {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = uri;
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::ACCEPT, json);
        match self.client.call(request).await {
            Ok(answered) => classify(self.reply(&answered)),
            // A question has no effect, so it does not matter how far it got.
            Err(failure) => Answer::new(Outcome::Unavailable)
                .code(failure.code)
                .detail(&failure.detail)
                .processed(failure.processed),
        }
    }
}

impl Reply<'_> {
    /// A web page: what answered is a proxy, a login or a web application, and
    /// not the service.
    pub(crate) fn is_html(&self) -> bool {
        let kind = self.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        kind.is_some_and(|kind| kind.trim_start().starts_with("text/html"))
            || self.body.trim_ascii_start().starts_with(b"<")
    }
}

/// A success that does not say under which id the message was taken. `owner`: whose
/// the endpoint is to be, as in "ntfy's".
pub(crate) fn success_without_id(reply: &Reply<'_>, owner: &str) -> Answer {
    if reply.is_html() {
        let detail =
            format!("a web page answered: endpoint is not {owner}, or a proxy is in between");
        let mut answer = Answer::new(Outcome::Misconfigured).code("html").detail(&detail);
        answer.unexpected = true;
        return answer;
    }
    Answer::new(Outcome::Ambiguous)
        .processed(Processed::Maybe)
        .code("unreadable")
        .detail("success without the id of a message")
}

/// The `x-pushyard` header of a call.
pub(crate) fn pushyard_header(call: &Call) -> Result<HeaderValue, Invalid> {
    HeaderValue::try_from(&*call.pushyard)
        .map_err(|_| invalid("pushyard", "the delivery's string cannot stand in a header"))
}

/// The client shows neither its connections nor their bytes.
pub(crate) fn gauge(kind: &'static str, ok: bool) -> Gauge {
    Gauge { credential: crate::CredentialGauge { kind, expires_at: None, ok }, ..Gauge::default() }
}

pub(crate) fn invalid(code: &'static str, detail: impl Into<String>) -> Invalid {
    Invalid::new(code, detail)
}
