//! Where events are posted to, and the post itself: one signed request (Standard
//! Webhooks), which has arrived when the answer is 2xx. Whether it is made again
//! is for the caller to say.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use pushyard_providers::Secret;
use pushyard_providers::auth::standard_webhooks::Signer;
use pushyard_providers::http::client::{Client, ClientSettings};
use pushyard_providers::http::is_loopback;
use pushyard_providers::http::retry_after::retry_after;
use reqwest::Url;

use crate::clock::Utc;

/// For name, TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For a whole post (Standard Webhooks, "Operational considerations": 15 to 30 s).
const TIMEOUT: Duration = Duration::from_secs(15);

/// Where events are posted to, checked.
#[derive(Clone, PartialEq)]
pub struct Target {
    /// `https:`, or `http:` where that is allowed.
    pub url: Url,
    secret: Secret,
}

/// What is wrong with a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadTarget {
    /// With its URL.
    Url(String),
    /// With its secret.
    Secret(String),
}

impl Target {
    /// Checks both: the URL is `https:`, and `http:` only towards this machine or
    /// where `insecure_http` allows it; the secret is one of Standard Webhooks.
    ///
    /// # Errors
    /// What is wrong and what to do, without showing the secret.
    pub fn new(url: &str, secret: Secret, insecure_http: bool) -> Result<Self, BadTarget> {
        let fault = |detail: &str| Err(BadTarget::Url(detail.to_owned()));
        let Ok(url) = Url::parse(url) else {
            return fault("is no URL; write it as in \"https://example.com/pushyard\"");
        };
        match url.scheme() {
            "https" => {}
            "http" if insecure_http || is_loopback(&url) => {}
            "http" => {
                return fault(
                    "must begin with https:// (http:// only towards this machine, or with \
                     insecure_http = true)",
                );
            }
            _ => return fault("must begin with https://"),
        }
        if url.host_str().is_none_or(str::is_empty) {
            return fault("names no host");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return fault("must not hold a password; requests are signed with the secret");
        }
        Signer::new([&secret]).map_err(BadTarget::Secret)?;
        Ok(Self { url, secret })
    }
}

impl fmt::Debug for Target {
    /// Without path and query: they may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.url.host_str().unwrap_or_default())
    }
}

/// Posts to one target.
#[derive(Debug)]
pub(super) struct Poster {
    http: Client,
    url: String,
    signer: Signer,
}

/// Why a post has not arrived, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotTaken {
    /// One line for people, without the URL.
    pub(super) detail: String,
    /// When the receiver wants to be asked again.
    pub(super) retry_after: Option<Duration>,
}

/// The HTTP client that all targets share; connections are opened when needed.
///
/// # Errors
/// When the system's trust roots cannot be read.
pub fn http_client() -> Result<Client, String> {
    let (connect_timeout, timeout) = (CONNECT_TIMEOUT, TIMEOUT);
    Client::new(ClientSettings { ca: None, connect_timeout, timeout })
}

impl Poster {
    /// # Errors
    /// When the secret cannot be used, which [`Target::new`] has ruled out.
    pub(super) fn new(http: &Client, target: &Target) -> Result<Self, String> {
        let signer = Signer::new([&target.secret])?;
        Ok(Self { http: http.clone(), url: target.url.to_string(), signer })
    }

    /// Posts once. `id` is the same every time; the signature is of this moment.
    pub(super) async fn post(&self, id: &str, body: Bytes, now: Utc) -> Result<(), NotTaken> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header(header::CONTENT_TYPE, "application/json");
        for (name, value) in self.signer.headers(id, now.ms() / 1000, &body) {
            request = request.header(name, value);
        }
        let failed = |detail: String| NotTaken { detail, retry_after: None };
        let request = request.body(body).map_err(|error| failed(error.to_string()))?;
        let answered = self
            .http
            .call(request)
            .await
            .map_err(|failure| failed(format!("{}: {}", failure.code, failure.detail)))?;
        if answered.status.is_success() {
            return Ok(());
        }
        let retry_after = retry_after(&answered.headers, now.ms() / 1000);
        Err(NotTaken { detail: format!("status {}", answered.status.as_u16()), retry_after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn plain_http_is_for_this_machine_or_by_permission() {
        let target = |url: &str, insecure| {
            Target::new(url, Secret::new(SECRET.to_owned()), insecure).is_ok()
        };
        for (url, insecure, fine) in [
            ("https://example.com/hook?key=1", false, true),
            ("http://127.0.0.1:9/hook", false, true),
            ("http://[::1]:9/hook", false, true),
            ("http://localhost/hook", false, true),
            ("http://example.com/hook", false, false),
            ("http://example.com/hook", true, true),
            ("ftp://example.com/", true, false),
            ("example.com", false, false),
            ("https://user:pass@example.com/", false, false),
        ] {
            assert_eq!(target(url, insecure), fine, "{url}");
        }
    }

    #[test]
    fn a_target_shows_its_host_and_nothing_that_may_be_secret() {
        let secret = Secret::new(SECRET.to_owned());
        let target = Target::new("https://example.com/T0/B1?key=abc", secret, false).unwrap();
        assert_eq!(format!("{target:?}"), "Target(example.com)");
        let bad = Target::new("https://example.com/", Secret::new("short".to_owned()), false);
        assert!(matches!(bad, Err(BadTarget::Secret(_))));
    }
}
