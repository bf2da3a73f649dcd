//! The small HTTP client to a router: its API and its admin listener.
//!
//! It turns what can go wrong into sentences that say what to do: nobody there,
//! a problem (RFC 9457), an answer that is not the router's. It never repeats a
//! call: whoever sends a message twice should know.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use pushyard_providers::http::is_loopback;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header, redirect, retry};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::failure::Failure;
use super::ui::plain;

/// A router that takes longer for a connection is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For a whole answer, beyond what the call was asked to wait.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Of an answer that is no problem JSON, what is shown.
const SHOWN_CHARACTERS: usize = 200;

/// A client of one listener.
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    key: Option<SecretString>,
    /// The listener in words, with the option that says where it is.
    what: &'static str,
}

/// A whole answer that is not a refusal.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) headers: header::HeaderMap,
    pub(super) body: Bytes,
}

impl Client {
    /// Opens no connection.
    ///
    /// # Errors
    /// When the system's trust roots cannot be read.
    pub(super) fn new(
        base: &Url,
        key: Option<SecretString>,
        what: &'static str,
    ) -> Result<Self, Failure> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .user_agent(concat!("pushyard/", env!("CARGO_PKG_VERSION")));
        if is_loopback(base) {
            // A proxy's loopback is not ours.
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| {
            Failure::told(format!("cannot set up an HTTP client: {}", innermost(&error)))
        })?;
        Ok(Self { http, base: base.clone(), key, what })
    }

    /// A call to the path of these segments, each escaped as it needs.
    pub(super) fn call(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> RequestBuilder {
        let mut url = self.base.clone();
        // Only a URL that cannot be a base has no segments; `base_url` lets none in.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.http.request(method, url);
        match &self.key {
            Some(key) => request.bearer_auth(key.expose_secret()),
            None => request,
        }
    }

    /// Makes a call and reads its answer.
    pub(super) async fn fetch(&self, request: RequestBuilder) -> Result<Reply, Failure> {
        let response = self.open(request).await?;
        let headers = response.headers().clone();
        let body = response.bytes().await.map_err(|error| self.broken(&error))?;
        Ok(Reply { headers, body })
    }

    /// Makes a call and reads its answer up to the body.
    pub(super) async fn open(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| self.broken(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let retry_after = response.headers().get(header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()).map(plain);
        let body = response.bytes().await.map_err(|error| self.broken(&error))?;
        Err(Failure::Refused(Box::new(Refusal { status, retry_after, body })))
    }

    /// What is told when the network fails.
    pub(super) fn broken(&self, error: &reqwest::Error) -> Failure {
        let reason = innermost(error);
        let Self { base, what, .. } = self;
        if error.is_connect() {
            Failure::Unreachable(format!("cannot reach {what} at {base}: {reason}"))
        } else if error.is_timeout() {
            Failure::told(format!("{what} at {base} does not answer in time"))
        } else {
            Failure::told(format!("lost the connection to {what} at {base}: {reason}"))
        }
    }
}

impl Reply {
    /// The body in the shape that the API promises.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Failure::told(format!("this is not a router's answer: {error}")))
    }
}

/// Reads `--url` and `--admin-url`.
///
/// # Errors
/// What is wrong with it, for people.
pub(super) fn base_url(text: &str) -> Result<Url, String> {
    let example = "give it as http://127.0.0.1:8080";
    let url = Url::parse(text).map_err(|error| format!("{error}; {example}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("it begins with neither http:// nor https://; {example}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a key has no place in it; use --key or PUSHYARD_KEY".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it must end with its path".to_owned());
    }
    Ok(url)
}

/// The router's no.
pub(super) struct Refusal {
    status: StatusCode,
    /// In seconds, or a date.
    retry_after: Option<String>,
    body: Bytes,
}

impl Refusal {
    /// Whether it is for the caller to mend, and not for the server or one before it.
    pub(super) fn is_callers(&self) -> bool {
        self.status.is_client_error() && self.status != StatusCode::TOO_MANY_REQUESTS
    }

    /// The body as it came.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Whether the body is what `--json` promises.
    pub(super) fn is_json(&self) -> bool {
        serde_json::from_slice::<serde::de::IgnoredAny>(&self.body).is_ok()
    }
}

impl fmt::Debug for Refusal {
    /// Without the body: it may quote what was sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusal").field("status", &self.status).finish_non_exhaustive()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match serde_json::from_slice::<Problem>(&self.body) {
            Ok(problem) if problem.is_told() => write!(f, "{problem}")?,
            Ok(_) | Err(_) => {
                let text = String::from_utf8_lossy(&self.body);
                let shown: String = text.chars().take(SHOWN_CHARACTERS).collect();
                write!(f, "the answer is {}", self.status)?;
                if !shown.trim().is_empty() {
                    write!(f, ": {}", plain(shown.trim()))?;
                }
            }
        }
        if self.status == StatusCode::UNAUTHORIZED {
            write!(f, "\n  --key or PUSHYARD_KEY takes the client's key")?;
        }
        if let Some(after) = &self.retry_after {
            // A number, or a date (RFC 9110, section 10.2.3).
            let unit = if after.bytes().all(|b| b.is_ascii_digit()) { " s" } else { "" };
            write!(f, "\n  try again after {after}{unit}")?;
        }
        Ok(())
    }
}

/// A problem (RFC 9457), as far as people are shown it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Problem {
    status: u16,
    code: String,
    title: String,
    detail: String,
    errors: Vec<Fault>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fault {
    pointer: String,
    detail: String,
}

impl Problem {
    /// Whether there is anything in it: any JSON object reads as one.
    fn is_told(&self) -> bool {
        !self.detail.is_empty() || !self.title.is_empty()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = if self.detail.is_empty() { &self.title } else { &self.detail };
        write!(f, "{} ({} {})", plain(told), self.status, plain(&self.code))?;
        // Of a single fault the detail may say it all.
        let repeated = |fault: &Fault| self.errors.len() == 1 && told.contains(&fault.detail);
        for fault in self.errors.iter().filter(|fault| !repeated(fault)) {
            let pointer = if fault.pointer.is_empty() { "the body" } else { &fault.pointer };
            write!(f, "\n  {}: {}", plain(pointer), plain(&fault.detail))?;
        }
        Ok(())
    }
}

/// The innermost cause: what the system said.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, retry_after: Option<&str>, body: &'static str) -> String {
        let status = StatusCode::from_u16(status).unwrap();
        let retry_after = retry_after.map(str::to_owned);
        Refusal { status, retry_after, body: Bytes::from_static(body.as_bytes()) }.to_string()
    }

    #[test]
    fn a_problem_is_told_with_each_field_that_is_wrong() {
        let told = refusal(
            422,
            None,
            r#"{"type":"urn:pushyard:problem:invalid","code":"invalid","title":"Invalid","status":422,
                "detail":"one field is wrong","errors":[{"pointer":"/to/0/addresses/0/kind",
                "detail":"unknown kind \"apn\"; did you mean \"apns\"?","code":"unknown_kind"}]}"#,
        );
        insta::assert_snapshot!(told, @r#"
        one field is wrong (422 invalid)
          /to/0/addresses/0/kind: unknown kind "apn"; did you mean "apns"?
        "#);
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let full = refusal(
            503,
            Some("7"),
            r#"{"code":"queue_full","title":"Queue full","status":503,"detail":"the queue is full"}"#,
        );
        insta::assert_snapshot!(full, @r"
        the queue is full (503 queue_full)
          try again after 7 s
        ");
        let stranger =
            refusal(401, None, r#"{"code":"unauthenticated","title":"No key","status":401}"#);
        insta::assert_snapshot!(stranger, @r"
        No key (401 unauthenticated)
          --key or PUSHYARD_KEY takes the client's key
        ");
    }

    #[test]
    fn an_answer_that_is_not_the_routers_is_shown_and_cannot_steer_the_terminal() {
        let told = refusal(502, None, "<html>\u{1b}[2Jbad gateway</html>");
        assert_eq!(told, "the answer is 502 Bad Gateway: <html>\u{fffd}[2Jbad gateway</html>");
        assert_eq!(refusal(502, None, ""), "the answer is 502 Bad Gateway");
    }

    #[test]
    fn a_base_url_needs_its_scheme_and_no_key() {
        assert!(base_url("http://127.0.0.1:8080").is_ok());
        assert!(base_url("https://push.example.com/pushyard/").is_ok());
        let wrong =
            ["127.0.0.1:8080", "localhost:8080", "ftp://h", "http://k@h", "http://h/?a=1", ""];
        for text in wrong {
            assert!(base_url(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_path_is_appended_to_the_bases_and_escaped() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let base = base_url("https://push.example.com/pushyard/").unwrap();
        let client = Client::new(&base, None, "the API").unwrap();
        let call = client.call(Method::GET, &["v1", "a/b"], &[("wait", "10s")]);
        let url = call.build().unwrap().url().to_string();
        assert_eq!(url, "https://push.example.com/pushyard/v1/a%2Fb?wait=10s");
    }

    #[test]
    fn loopback_is_known_by_name_and_number() {
        for (url, loopback) in [
            ("http://localhost:1", true),
            ("http://127.0.0.2", true),
            ("http://[::1]:1", true),
            ("http://10.0.0.1", false),
            ("http://localhost.example.com", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), loopback, "{url}");
        }
    }
}
