//! The common client for peers that are asked rarely: token endpoints, and the
//! vendors of low rate.
//!
//! It is `reqwest` with everything off that would act behind the router's back:
//! redirects (a token must not follow one), cookies, proxies of the environment
//! and above all repeats. reqwest repeats by itself after GOAWAY and
//! REFUSED_STREAM unless told not to, which would make attempt counts and the
//! bound on duplicates wrong. HTTP/2 or HTTP/1.1, whichever the peer picks.
//!
//! A call ends in an answer, at most [`LONGEST_BODY`] of its body, or in a
//! [`Failure`] that says whether the peer may have seen the request. Everything
//! before the connection stands is `Processed::No`; afterwards a [`Client::call`]
//! cannot see which bytes left, so all but a refused stream is `Maybe`.
//! [`Client::push`] watches the body of the request and knows more.

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};

use super::pool::Failure;
use super::tls;
use crate::{Processed, VendorRequest, Written};

/// Bodies are read to here and dropped after: an endless answer must not fill
/// the memory, and no vendor's is longer.
pub const LONGEST_BODY: usize = 64 * 1024;

/// What a client needs to know.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// PEM of a trust root beside the system's.
    pub ca: Option<Vec<u8>>,
    /// For name, TCP and TLS together.
    pub connect_timeout: Duration,
    /// For the whole call, connection and body included.
    pub timeout: Duration,
}

/// See the module. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Client(reqwest::Client);

/// A complete answer.
#[derive(Debug)]
pub struct Answered {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// The first [`LONGEST_BODY`] of the body.
    pub body: Bytes,
}

impl Client {
    /// Makes a client; connections are opened when a call needs them.
    ///
    /// # Errors
    /// What is wrong with the trust root, without showing it.
    pub fn new(settings: ClientSettings) -> Result<Self, String> {
        let ClientSettings { ca, connect_timeout, timeout } = settings;
        let tls = tls::client_config(ca.as_deref(), &[b"h2", b"http/1.1"], None)?;
        reqwest::Client::builder()
            // A copy, because reqwest wants it by value; its parts are shared.
            .tls_backend_preconfigured(Arc::unwrap_or_clone(tls))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .user_agent(concat!("pushyard/", env!("CARGO_PKG_VERSION")))
            // A little shorter than the whole call's limit in any case: were that
            // one to end a connection attempt, nobody could tell that nothing was sent.
            .connect_timeout(connect_timeout.min(timeout.mul_f32(0.9)))
            .timeout(timeout)
            .build()
            .map(Self)
            .map_err(|error| reason(&error))
    }

    /// Posts a form (`application/x-www-form-urlencoded`).
    ///
    /// # Errors
    /// [`Failure`] says whether the request may have been processed.
    pub async fn post_form(
        &self,
        url: &url::Url,
        fields: &[(&str, &str)],
    ) -> Result<Answered, Failure> {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields.iter().copied())
            .finish();
        let request = Request::post(url.as_str())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .body(Bytes::from(body));
        match request {
            Ok(request) => self.call(request).await,
            Err(error) => Err(unsent("request", error.to_string())),
        }
    }

    /// Makes one call, never a second.
    ///
    /// # Errors
    /// [`Failure`] says whether the request may have been processed.
    pub async fn call(&self, request: Request<Bytes>) -> Result<Answered, Failure> {
        let request = reqwest::Request::try_from(request)
            .map_err(|error| unsent("request", reason(&error.without_url())))?;
        self.execute(request).await
    }

    /// The same for a push: `written` is set when the request goes out. A call that
    /// fails before that was certainly not processed, whatever went wrong; so a
    /// kept connection that the peer has closed in the meantime costs nothing.
    ///
    /// # Errors
    /// [`Failure`] says whether the request may have been processed.
    pub async fn push(
        &self,
        request: VendorRequest,
        written: &Written,
    ) -> Result<Answered, Failure> {
        let VendorRequest { method, uri, mut headers, body } = request;
        // Said here, for a body that is watched does not tell its length.
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        let seen = written.clone();
        let body = Full::new(body).map_frame(move |frame| {
            seen.set();
            frame
        });
        let mut request = Request::new(reqwest::Body::wrap(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let request = reqwest::Request::try_from(request)
            .map_err(|error| unsent("request", reason(&error.without_url())))?;
        self.execute(request).await.map_err(|failure| match written.is_set() {
            true => failure,
            false => Failure { processed: Processed::No, ..failure },
        })
    }

    async fn execute(&self, request: reqwest::Request) -> Result<Answered, Failure> {
        let mut response = self.0.execute(request).await.map_err(failure)?;
        let mut body = BytesMut::new();
        while body.len() < LONGEST_BODY {
            let Some(chunk) = response.chunk().await.map_err(failure)? else { break };
            let room = LONGEST_BODY - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
        Ok(Answered {
            status: response.status(),
            headers: std::mem::take(response.headers_mut()),
            body: body.freeze(),
        })
    }
}

/// Tells apart what was certainly not sent from what may have been.
fn failure(error: reqwest::Error) -> Failure {
    // The URL may hold a secret (webhooks), and whoever reads this knows the peer.
    let error = error.without_url();
    let detail = reason(&error);
    if error.is_dns() {
        return unsent("dns", detail);
    }
    if error.is_connect() {
        let code = if caused_by::<rustls::Error>(&error) { "tls" } else { "connect" };
        return unsent(code, detail);
    }
    if error.is_builder() {
        return unsent("request", detail);
    }
    let h2 = sources(&error).find_map(|source| source.downcast_ref::<h2::Error>());
    // RFC 9113 sections 6.8 and 8.7: neither was processed.
    if h2.is_some_and(|e| e.is_reset() && e.reason() == Some(h2::Reason::REFUSED_STREAM)) {
        return unsent("refused_stream", detail);
    }
    if h2.is_some_and(|e| e.is_go_away() && e.is_remote()) {
        return unsent("goaway", detail);
    }
    let code = if error.is_timeout() {
        "timeout"
    } else if h2.is_some_and(h2::Error::is_reset) {
        "reset"
    } else {
        "closed"
    };
    Failure { processed: Processed::Maybe, code, detail, again: false }
}

fn unsent(code: &'static str, detail: String) -> Failure {
    Failure { processed: Processed::No, code, detail, again: false }
}

/// The error and its causes in one line: reqwest's own text says little more
/// than "error sending request".
fn reason(error: &reqwest::Error) -> String {
    let mut line = error.to_string();
    for source in sources(error) {
        let text = source.to_string();
        if !line.contains(&text) {
            // Writing to a String cannot fail.
            let _ = write!(line, ": {text}");
        }
    }
    line
}

/// Whether an error of type `T` is among the causes.
fn caused_by<T: Error + 'static>(error: &reqwest::Error) -> bool {
    sources(error).any(|source| source.is::<T>())
}

/// The causes, outermost first. An I/O error names as its source the source of
/// what it wraps, which would leave out the wrapped error itself.
fn sources(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |source| {
        let io = source.downcast_ref::<std::io::Error>();
        match io.and_then(std::io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => <dyn Error>::source(*source),
        }
    })
}

#[cfg(test)]
mod tests;
