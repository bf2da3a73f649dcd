//! What a vendor is to the rest of the simulator.
//!
//! A vendor's module knows its wire behaviour and nothing of sockets: it is
//! given a request with its whole body and says what is to become of it. The
//! server carries that out over HTTP/2 or HTTP/1.1, after the vendor's current
//! behaviour had its say. A new vendor is one module here with one type that
//! implements [`Vendor`], and one line where the simulator starts its doors.

pub(crate) mod apns;
mod apns_broadcast;
mod apns_channels;
pub(crate) mod apns_device;
mod apns_headers;
pub(crate) mod fcm;
mod fcm_answer;
mod fcm_message;
pub(crate) mod gotify;
mod json_shape;
mod json_walk;
mod jwt;
pub(crate) mod ntfy;
mod ntfy_message;
pub(crate) mod oauth;
mod self_hosted;
pub(crate) mod webhook;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header, request};
use rustls_pki_types::CertificateDer;

use crate::ledger::Key;
use crate::server::manners::Rules;
use crate::station::Station;

/// A vendor's answer, ready to be sent.
pub(crate) type Answer = Response<Bytes>;

/// An answer in place of what was asked for; boxed, because it is the rare end.
pub(crate) type Refusal = Box<Answer>;

/// One vendor, or several that share an origin.
pub(crate) trait Vendor: Send + Sync + 'static {
    /// What is remembered for one connection.
    type Session: Send + Unpin + 'static;

    /// Begins a connection; the certificate is the client's, already verified.
    fn session(&self, certificate: Option<&CertificateDer<'_>>) -> Self::Session;

    /// The station whose behaviour rules the connections.
    fn front(&self) -> &Arc<Station>;

    /// The station that answers for a path of this origin.
    fn station(&self, path: &str) -> &Arc<Station>;

    /// How many streams a connection may have open, and what happens beyond.
    fn streams(&self, session: &Self::Session) -> Streams;

    /// What is expected of a connection beside its requests.
    fn manners(&self) -> Rules {
        Rules::default()
    }

    /// Checks the credential of a request; the error is the vendor's answer.
    fn authenticate(
        &self,
        session: &mut Self::Session,
        head: &request::Parts,
        now_ms: u64,
    ) -> Result<(), Refusal>;

    /// Whether the credential that this connection has proved stays good when the
    /// vendor takes the others no more.
    fn spared(&self, _session: &Self::Session) -> bool {
        false
    }

    /// Whether a request asks for nothing to be sent, whatever it is answered.
    fn is_dry_run(&self, _body: &Body) -> bool {
        false
    }

    /// Says what becomes of a request.
    fn judge(
        &self,
        session: &Self::Session,
        call: Call<'_>,
        authenticated: Result<(), Refusal>,
    ) -> Verdict;

    /// The form that this vendor gives to a fault of the whole vendor.
    fn fault(&self, fault: Fault, head: &request::Parts, now_ms: u64) -> Answer;
}

/// A request whose body is complete.
pub(crate) struct Call<'a> {
    pub(crate) head: &'a request::Parts,
    pub(crate) body: &'a Body,
    pub(crate) now_ms: u64,
}

/// The body of a request.
pub(crate) struct Body {
    /// Its bytes, or the first of them when it is far beyond any limit.
    pub(crate) bytes: Bytes,
    /// How long it was.
    pub(crate) length: usize,
}

/// A connection's limits on open streams.
pub(crate) struct Streams {
    /// Before the first authenticated request was answered.
    pub(crate) at_first: u32,
    /// After it.
    pub(crate) proven: u32,
    /// Whether a refused push brings the first limit back until one is taken.
    pub(crate) relapses: bool,
    /// What a stream beyond the limit gets.
    pub(crate) excess: Excess,
}

/// How a vendor answers a stream that ought not to have been opened.
#[derive(Clone, Copy)]
pub(crate) enum Excess {
    /// `RST_STREAM` with `REFUSED_STREAM`.
    Refuse,
    /// GOAWAY with `ENHANCE_YOUR_CALM` and this debug text.
    Goaway(&'static str),
}

/// What is to become of a request.
pub(crate) struct Verdict {
    /// The delivery that is taken, if one is.
    pub(crate) take: Option<Key>,
    /// How long before that.
    pub(crate) delay: Duration,
    /// Whether it was a dry run.
    pub(crate) probe: bool,
    /// How it ends.
    pub(crate) act: Act,
}

impl Verdict {
    /// Not taken, and this is why.
    pub(crate) fn refuse(answer: Answer) -> Self {
        Self::end(Act::Answer(answer))
    }

    /// Not taken, and ended so.
    pub(crate) fn end(act: Act) -> Self {
        Self { take: None, delay: Duration::ZERO, probe: false, act }
    }

    /// Taken at once, and ended so.
    pub(crate) fn take(key: Key, act: Act) -> Self {
        Self { take: Some(key), ..Self::end(act) }
    }

    /// A dry run that went well.
    pub(crate) fn probe(answer: Answer) -> Self {
        Self { probe: true, ..Self::refuse(answer) }
    }

    pub(crate) fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }
}

/// How a request ends.
pub(crate) enum Act {
    /// With an answer.
    Answer(Answer),
    /// With an answer, after which the connection goes away; the text is the
    /// debug data of the GOAWAY.
    AnswerAndGoaway(Answer, &'static str),
    /// Never.
    Silence,
    /// With the connection closed and no answer.
    Cut,
    /// With the connection reset.
    Reset,
    /// With `REFUSED_STREAM`.
    RefuseStream,
    /// With a GOAWAY below this stream.
    Goaway,
}

/// A fault of the whole vendor, before any check of the request.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    Failing(StatusCode, Option<u64>),
    Throttling(Option<u64>),
    Unauthorised,
}

/// An answer with a JSON body.
fn json_answer(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
    answer
}

/// What a front end in trouble answers instead of the vendor: not JSON.
fn html_answer(status: StatusCode) -> Answer {
    let reason = status.canonical_reason().unwrap_or("Error");
    let code = status.as_u16();
    let mut answer = Response::new(Bytes::from(format!(
        "<html><head><title>{code} {reason}</title></head><body><h1>{code} {reason}</h1></body></html>\n"
    )));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=UTF-8"));
    answer
}

fn with_retry_after(mut answer: Answer, seconds: Option<u64>) -> Answer {
    if let Some(seconds) = seconds {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// The token of an `Authorization: Bearer` value.
fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}
