//! Apple Push Notification service, over one pool of HTTP/2 connections.
//!
//! A call goes to `/3/device/{token}` with a provider token of the team's key
//! ([`crate::auth::es256`]) or over connections that log in with a certificate.
//! A connection is bound to one team and key by its first push, so a provider
//! has exactly one key and one pool.
//!
//! Apple does not drop a second push with the same `apns-id`; what makes a
//! repeat harmless is the same `apns-collapse-id`, hence [`Dedup::Replaces`].
//! The suffix of the topic follows from the push type ([`payload`]); health is
//! kept by the app's bundle id without it.
//!
//! There is no dry run, and a push to an invented token counts as an error on
//! its connection, so a probe opens a connection and sends nothing.

mod answer;
mod apps;
mod login;
mod payload;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use url::Url;

use self::answer::{Reply, Then};
use self::apps::{Apps, is_bundle};
use self::login::Login;
use self::payload::{COLLAPSE_ID, EXPIRATION, Encoded, Settled, TOPIC};
use crate::address::{Field, FieldError, Need};
use crate::auth::es256::ProviderToken;
use crate::clock::Clock;
use crate::http::pool::{Pool, PoolSettings};
use crate::registry::{Context, Kind};
use crate::settings::{Setting, SettingError, Shape};
use crate::template::Filling;
use crate::{
    Address, Answer, Call, CredentialGauge, Dedup, Gauge, Invalid, Outcome, Part, Parts, Payload,
    ProbeProfile, Processed, Profile, Proves, Provider, Push, VendorRequest,
};

/// The kind.
pub static KIND: Kind = Kind {
    name: "apns",
    fields: &[
        Field { name: "token", need: Need::Required },
        Field { name: "app", need: Need::Optional },
    ],
    check_address,
    settings: &[
        Setting {
            name: "environment",
            shape: Shape::Choice(&["production", "sandbox"]),
            required: false,
        },
        Setting { name: "team_id", shape: Shape::Text, required: false },
        Setting { name: "key_id", shape: Shape::Text, required: false },
        Setting { name: "key", shape: Shape::Secret, required: false },
        Setting { name: "certificate", shape: Shape::Secret, required: false },
        Setting { name: "certificate_key", shape: Shape::Secret, required: false },
        Setting { name: "app", shape: Shape::Text, required: false },
        Setting { name: "apps", shape: Shape::List, required: false },
    ],
    build: |context| Ok(Arc::new(Apns::new(&context)?)),
};

const ID: HeaderName = HeaderName::from_static("apns-id");

const PRODUCTION: &str = "https://api.push.apple.com";
const SANDBOX: &str = "https://api.sandbox.push.apple.com";

/// Tokens vary in length and Apple asks not to assume one; this is only a cap.
const MAX_TOKEN: usize = 1024;

/// Connections at most: stream limits fall to 1 after a refused push, and it
/// takes several connections to keep a batch moving then.
const MAX_CONNECTIONS: usize = 16;

/// PINGs that come more often are answered with GOAWAY; Apple names no figure.
const PING_INTERVAL: Duration = Duration::from_secs(10);

static PROFILE: Profile = Profile {
    kind: "apns",
    dedup: Dedup::Replaces,
    // Apple advises 15 minutes after a 5xx; the router's own back-off serves
    // recipients without another address better, and `retry` can follow Apple.
    min_retry: Duration::ZERO,
    probe: ProbeProfile {
        proves: Proves::Reach,
        min_interval: Duration::from_secs(60),
        only_when_quiet: true,
    },
    ping_interval: Some(PING_INTERVAL),
};

struct Apns {
    login: Login,
    pool: Pool,
    scheme: Scheme,
    authority: Authority,
    /// The endpoint's path, when it is a proxy's, and `/3/device/`.
    path: String,
    apps: Apps,
    clock: Arc<dyn Clock>,
    /// Whether the credential was taken the last time.
    credential_ok: AtomicBool,
}

impl Apns {
    fn new(context: &Context) -> Result<Self, Vec<SettingError>> {
        let mut errors = Vec::new();
        let endpoint = endpoint(context).map_err(|error| errors.push(error));
        let login = Login::new(context).map_err(|faults| errors.extend(faults));
        let apps = Apps::new(&context.values).map_err(|faults| errors.extend(faults));
        let (Ok((scheme, authority, path, origin)), Ok((login, tls)), Ok(mut apps)) =
            (endpoint, login, apps)
        else {
            return Err(errors);
        };
        if let Login::Certificate(certificate) = &login {
            apps.take_certificate(certificate);
        }
        if apps.is_empty() {
            return Err(vec![SettingError::new(
                "app",
                "is required: the bundle id of the app, or several in `apps`",
            )]);
        }
        let pool = Pool::new(PoolSettings {
            origin,
            tls,
            connect_timeout: context.connect_timeout,
            connections: context.connections,
            max_connections: context.connections.max(MAX_CONNECTIONS),
            stream_limit: None,
            one_stream_first: matches!(login, Login::Token(_)),
        });
        let clock = context.clock.clone();
        let credential_ok = AtomicBool::new(true);
        Ok(Self { login, pool, scheme, authority, path, apps, clock, credential_ok })
    }

    fn uri(&self, token: &str) -> Result<Uri, Invalid> {
        let path = format!("{}{token}", self.path);
        let path = PathAndQuery::from_maybe_shared(bytes::Bytes::from(path));
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = path.ok();
        Uri::from_parts(parts)
            .map_err(|_| Invalid::new("bad_token", "the token cannot stand in a request"))
    }

    /// The headers of one call, without the credential.
    fn headers(&self, call: &Call) -> Result<HeaderMap, Invalid> {
        let encoded = call.payload.detail.as_ref().and_then(|detail| detail.downcast_ref());
        let Encoded { suffix, settled } = encoded.copied().ok_or_else(|| {
            Invalid::new("internal", "the payload was encoded by another kind of provider")
        })?;
        let Settled { topic, expiration, collapse_id } = settled;
        let mut headers = HeaderMap::with_capacity(8);
        headers.extend(call.payload.headers.iter().cloned());
        if !topic && let Some(topic) = self.topic(&call.address, suffix)? {
            headers.insert(TOPIC, topic);
        }
        if !expiration {
            headers.insert(EXPIRATION, call.expires_at.into());
        }
        let mut buffer = uuid::Uuid::encode_buffer();
        let id: &str = call.delivery.as_hyphenated().encode_lower(&mut buffer);
        let mut id = HeaderValue::from_str(id)
            .map_err(|_| Invalid::new("internal", "the delivery id cannot stand in a header"))?;
        if !collapse_id {
            headers.insert(COLLAPSE_ID, id.clone());
        }
        id.set_sensitive(true);
        headers.insert(ID, id);
        Ok(headers)
    }

    fn topic(&self, address: &Address, suffix: &str) -> Result<Option<HeaderValue>, Invalid> {
        match self.apps.find(address) {
            Some(app) => app.topic(suffix).map(Some),
            None if self.apps.serve(address) => Ok(None),
            None => Err(Invalid::new("app", "this provider does not serve the app")),
        }
    }

    fn part(&self, address: &Address) -> Part {
        self.apps.find(address).map_or(Part::Provider, |app| app.part.clone())
    }

    /// Makes the call and classifies its answer.
    async fn post(&self, request: VendorRequest, call: &Call) -> Answer {
        let token = match &self.login {
            Login::Certificate(_) => None,
            Login::Token(mint) => match mint.token() {
                Ok(token) => Some(token),
                Err(error) => return self.unsigned(&error),
            },
        };
        let generation = token.as_ref().map_or(0, |token| token.generation);
        let (request, body) = signed(request, token);
        let mut answer = match self.pool.send(request, body, &call.written).await {
            Ok(response) => {
                let (answer, then) = answer::classify(Reply {
                    status: response.status,
                    headers: &response.headers,
                    body: &response.body,
                    app: &self.part(&call.address),
                    can_refresh: !response.status.is_success() && self.can_refresh(generation),
                    now_s: self.clock.unix_s(),
                });
                match then {
                    Then::Nothing => {}
                    Then::Retire => self.pool.retire(response.connection),
                    Then::HoldTokens => self.hold_tokens(generation),
                }
                self.note(&answer);
                answer
            }
            Err(failure) => Answer::from(&failure),
        };
        answer.credential = generation;
        answer
    }

    /// Keeps in mind what an answer shows of the credential.
    fn note(&self, answer: &Answer) {
        let refused = answer.outcome == Outcome::AuthFailed;
        if refused || answer.processed == Processed::Yes {
            self.credential_ok.store(!refused, Ordering::Relaxed);
        }
    }

    fn unsigned(&self, error: &str) -> Answer {
        self.credential_ok.store(false, Ordering::Relaxed);
        Answer::new(Outcome::AuthFailed).code("signing").detail(error).processed(Processed::No)
    }

    fn can_refresh(&self, used: u64) -> bool {
        match &self.login {
            Login::Token(mint) => mint.can_refresh(used),
            Login::Certificate(_) => false,
        }
    }

    fn hold_tokens(&self, used: u64) {
        match &self.login {
            Login::Token(mint) => mint.hold(used),
            Login::Certificate(_) => {}
        }
    }
}

impl Provider for Apns {
    fn profile(&self) -> &Profile {
        &PROFILE
    }

    fn serves(&self, address: &Address) -> bool {
        self.apps.serve(address)
    }

    fn parts(&self, address: &Address) -> Parts {
        self.apps.find(address).map(|app| app.part.clone()).into_iter().collect()
    }

    fn encode(&self, push: &Push) -> Result<Payload, Invalid> {
        payload::encode(push, matches!(self.login, Login::Token(_)))
    }

    fn request(&self, call: &Call) -> Result<VendorRequest, Invalid> {
        let uri = self.uri(call.address.get("token").unwrap_or_default())?;
        let headers = self.headers(call)?;
        // The payload has no slot but `pushyard`.
        let body = call.payload.body.render(&Filling {
            address: "",
            delivery: "",
            pushyard: &call.pushyard,
            ttl: 0,
            expires_at: 0,
        });
        Ok(VendorRequest { method: Method::POST, uri, headers, body })
    }

    fn credential_headers(&self) -> Vec<HeaderName> {
        match &self.login {
            Login::Token(_) => vec![header::AUTHORIZATION],
            // It is shown to the vendor once for each connection.
            Login::Certificate(_) => Vec::new(),
        }
    }

    fn send<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Answer> {
        async move {
            match self.request(call) {
                Ok(request) => self.post(request, call).await,
                Err(invalid) => Answer::from(&invalid),
            }
        }
        .boxed()
    }

    fn refresh(&self, used: u64) -> BoxFuture<'_, bool> {
        let renewed = match &self.login {
            Login::Token(mint) => mint.refresh(used),
            Login::Certificate(_) => false,
        };
        std::future::ready(renewed).boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Answer> {
        async move {
            match self.pool.check().await {
                Ok(()) => Answer::new(Outcome::Accepted).detail("a connection stands"),
                Err(failure) => Answer::from(&failure),
            }
        }
        .boxed()
    }

    fn gauge(&self) -> Gauge {
        let (kind, expires_at) = match &self.login {
            Login::Token(_) => ("p8", None),
            Login::Certificate(certificate) => ("certificate", Some(certificate.expires_at)),
        };
        let ok = self.credential_ok.load(Ordering::Relaxed);
        Gauge {
            connections: self.pool.connections(),
            stream_capacity: Some(self.pool.stream_capacity()),
            bytes_read: self.pool.bytes_read(),
            credential: CredentialGauge { kind, expires_at, ok },
        }
    }

    fn memo(&self) -> Option<String> {
        match &self.login {
            Login::Token(mint) => mint.memo(),
            Login::Certificate(_) => None,
        }
    }

    fn heard(&self) -> Option<Instant> {
        Some(self.pool.heard())
    }

    fn sound(&self) -> BoxFuture<'_, ()> {
        self.pool.sound(PING_INTERVAL).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.pool.close().boxed()
    }
}

fn check_address(address: &Address) -> Result<(), FieldError> {
    let token = address.get("token").unwrap_or_default();
    if !token.len().is_multiple_of(2) || !token.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(FieldError::new("token", "must be an even number of hexadecimal digits"));
    }
    if token.len() > MAX_TOKEN {
        return Err(FieldError::new("token", "must have at most 1024 digits"));
    }
    match address.get("app") {
        Some(app) if !is_bundle(app) => {
            Err(FieldError::new("app", "is no bundle id: letters, digits, hyphens and dots"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Scheme, authority and path of requests, and the origin to connect to.
fn endpoint(context: &Context) -> Result<(Scheme, Authority, String, Url), SettingError> {
    let fault = |detail: &str| SettingError::new("endpoint", detail);
    let origin = match &context.endpoint {
        Some(endpoint) => endpoint.clone(),
        None => {
            let sandbox = context.values.text("environment") == Some("sandbox");
            let text = if sandbox { SANDBOX } else { PRODUCTION };
            Url::parse(text).map_err(|error| fault(&error.to_string()))?
        }
    };
    if origin.scheme() != "https" {
        return Err(fault("must begin with https: APNs is spoken over TLS only"));
    }
    if !origin.username().is_empty() || origin.password().is_some() || origin.query().is_some() {
        return Err(fault("must not have a user, a password or a query"));
    }
    let authority = Authority::try_from(origin.authority()).map_err(|e| fault(&e.to_string()))?;
    let path = format!("{}/3/device/", origin.path().trim_end_matches('/'));
    Ok((Scheme::HTTPS, authority, path, origin))
}

fn signed(request: VendorRequest, token: Option<ProviderToken>) -> (Request<()>, bytes::Bytes) {
    let VendorRequest { method, uri, mut headers, body } = request;
    if let Some(token) = token {
        headers.insert(header::AUTHORIZATION, token.authorization);
    }
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    (request, body)
}

#[cfg(test)]
mod tests;
