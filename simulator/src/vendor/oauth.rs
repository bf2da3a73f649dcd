//! Google's token endpoint: a signed assertion in, an access token out.
//!
//! The metadata server of a machine in Google's cloud gives out the same tokens
//! without an assertion, to whoever sends the header that no browser would.
//!
//! Both live on FCM's origin, but are a station of its own: that it
//! is down while FCM is up is an outage of its own kind, which a router with a
//! good cached token must not notice. The signature is verified for real, and
//! the claims as RFC 7523, section 3, and Google's page "Using OAuth 2.0 for
//! server to server applications" ask.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256;
use http::{HeaderValue, Method, StatusCode, header, request};
use serde_json::json;
use url::form_urlencoded;

use super::jwt::{Jwt, Spelling};
use super::{Answer, Call, Fault, Verdict, html_answer, json_answer, with_retry_after};
use crate::identity;
use crate::ledger::lock;
use crate::station::Station;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const SCOPES: [&str; 2] = [
    "https://www.googleapis.com/auth/firebase.messaging",
    "https://www.googleapis.com/auth/cloud-platform",
];
/// How far ahead of ours the sender's clock may be; not documented.
const CLOCK_SKEW_S: u64 = 300;
/// The longest that an assertion may be valid.
const MAX_LIFE_S: u64 = 3600;

/// The token endpoint, and the tokens it gave out.
pub(crate) struct OAuth {
    pub(super) station: Arc<Station>,
    /// The service account's public key.
    key: Vec<u8>,
    /// The only audience that it takes: its own URL.
    audience: String,
    expires_in_s: u64,
    /// Token to the time when it expires. A new one does not revoke the others.
    tokens: Mutex<HashMap<String, u64>>,
}

impl OAuth {
    pub(crate) fn new(
        station: Arc<Station>,
        key: Vec<u8>,
        audience: String,
        expires_in_s: u64,
    ) -> Self {
        Self { station, key, audience, expires_in_s, tokens: Mutex::default() }
    }

    /// When a token expires; `None` for one that was never given out.
    pub(super) fn expiry_ms(&self, token: &str) -> Option<u64> {
        lock(&self.tokens).get(token).copied()
    }

    pub(super) fn judge(&self, call: &Call<'_>) -> Verdict {
        if call.head.method != Method::POST {
            return Verdict::refuse(html_answer(StatusCode::METHOD_NOT_ALLOWED));
        }
        match self.check(call) {
            Ok(()) => Verdict::refuse(self.grant(call.now_ms)),
            Err(refusal) => Verdict::refuse(refusal.answer()),
        }
    }

    /// The metadata server ("About VM metadata"): a GET with `Metadata-Flavor:
    /// Google`, which the answer has as well.
    pub(super) fn judge_metadata(&self, call: &Call<'_>) -> Verdict {
        const FLAVOR: &str = "metadata-flavor";
        let google = HeaderValue::from_static("Google");
        let mut answer = if call.head.method != Method::GET {
            html_answer(StatusCode::METHOD_NOT_ALLOWED)
        } else if call.head.headers.get(FLAVOR) != Some(&google) {
            html_answer(StatusCode::FORBIDDEN)
        } else {
            self.grant(call.now_ms)
        };
        answer.headers_mut().insert(FLAVOR, google);
        Verdict::refuse(answer)
    }

    fn check(&self, call: &Call<'_>) -> Result<(), Refusal> {
        const FORM: &str = "application/x-www-form-urlencoded";
        let is_form = call
            .head
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.split(';').next().unwrap_or("").trim() == FORM);
        if !is_form {
            return Err(Refusal("invalid_request", "The body is not a form."));
        }
        let value = |name: &str| {
            form_urlencoded::parse(&call.body.bytes)
                .find(|(key, _)| key == name)
                .map(|(_, value)| value)
        };
        if value("grant_type").as_deref() != Some(GRANT) {
            return Err(Refusal(
                "unsupported_grant_type",
                "Invalid grant_type: a JWT bearer is needed.",
            ));
        }
        let assertion = value("assertion")
            .ok_or(Refusal("invalid_request", "Missing required parameter: assertion"))?;
        self.check_assertion(&assertion, call.now_ms / 1000)
    }

    fn check_assertion(&self, assertion: &str, now_s: u64) -> Result<(), Refusal> {
        let jwt = Jwt::read(assertion, Spelling::Strict)
            .ok_or(Refusal("invalid_grant", "Bad Request"))?;
        if jwt.header.alg != "RS256" || !jwt.is_signed_by(&RSA_PKCS1_2048_8192_SHA256, &self.key) {
            return Err(Refusal("invalid_grant", "Invalid JWT Signature."));
        }
        if jwt.text("iss") != Some(identity::ACCOUNT) {
            return Err(Refusal("invalid_grant", "Invalid grant: account not found"));
        }
        if jwt.text("aud") != Some(&self.audience) {
            return Err(Refusal("invalid_grant", "Invalid JWT: Failed audience check."));
        }
        let (Some(issued), Some(expires)) = (jwt.time("iat"), jwt.time("exp")) else {
            return Err(Refusal::TIMES);
        };
        let lives = expires.saturating_sub(issued);
        if expires <= now_s || issued > now_s + CLOCK_SKEW_S || lives == 0 || lives > MAX_LIFE_S {
            return Err(Refusal::TIMES);
        }
        let scope = jwt.text("scope").unwrap_or("");
        if !scope.split(' ').any(|scope| SCOPES.contains(&scope)) {
            return Err(Refusal(
                "invalid_scope",
                "Invalid OAuth scope or ID token audience provided.",
            ));
        }
        Ok(())
    }

    fn grant(&self, now_ms: u64) -> Answer {
        let token = format!("ya29.simulated-{:032x}", rand::random::<u128>());
        let mut tokens = lock(&self.tokens);
        // Google answers 401 for an expired token as for an unknown one, so
        // nothing is lost with it.
        tokens.retain(|_, expiry| *expiry > now_ms);
        tokens.insert(token.clone(), now_ms + self.expires_in_s * 1000);
        drop(tokens);
        let body = json!({"access_token": token, "expires_in": self.expires_in_s,
                          "token_type": "Bearer"});
        json_answer(StatusCode::OK, body.to_string())
    }

    /// The form of a fault of the whole endpoint.
    pub(super) fn fault(fault: Fault, _head: &request::Parts) -> Answer {
        match fault {
            Fault::Failing(status, retry_after_s) => with_retry_after(
                json_answer(status, r#"{"error":"internal_failure"}"#),
                retry_after_s,
            ),
            Fault::Throttling(retry_after_s) => with_retry_after(
                json_answer(
                    StatusCode::TOO_MANY_REQUESTS,
                    r#"{"error":"rate_limit_exceeded","error_description":"Too many requests."}"#,
                ),
                retry_after_s,
            ),
            Fault::Unauthorised => {
                Refusal("invalid_grant", "Invalid grant: account not found").answer()
            }
        }
    }
}

/// An error of RFC 6749, section 5.2, with its description.
struct Refusal(&'static str, &'static str);

impl Refusal {
    const TIMES: Self = Self(
        "invalid_grant",
        "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable \
         timeframe. Check your iat and exp values in the JWT claim.",
    );

    fn answer(&self) -> Answer {
        let body = json!({"error": self.0, "error_description": self.1});
        json_answer(StatusCode::BAD_REQUEST, body.to_string())
    }
}
