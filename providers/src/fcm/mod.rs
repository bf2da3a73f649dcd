//! Firebase Cloud Messaging, HTTP v1: Android, Apple and browsers behind one
//! address, over one pool of HTTP/2 connections to `fcm.googleapis.com`.
//!
//! A call takes an access token ([`crate::auth::oauth`]): a service account's, or
//! inside Google Cloud the machine's own (`credentials = "metadata"`). It posts one message to one target. A call whose token could not be got
//! answers with the token endpoint's class and sends nothing.
//!
//! FCM knows no idempotency key: the same request sent twice arrives twice. What
//! softens that are the replace keys of each platform, which carry the delivery
//! id ([`payload`]), hence [`Dedup::Replaces`].

mod answer;
mod check;
mod payload;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use url::Url;

use self::answer::Reply;
use crate::address::{Field, FieldError, Need};
use crate::auth::metadata::MetadataServer;
use crate::auth::oauth::{Issuer, TokenSource};
use crate::auth::service_account::ServiceAccount;
use crate::clock::Clock;
use crate::http::client::{Client, ClientSettings};
use crate::http::pool::{Pool, PoolSettings};
use crate::http::tls;
use crate::registry::{Context, Kind};
use crate::settings::{Setting, SettingError, Shape};
use crate::template::Filling;
use crate::{
    Address, Answer, Call, CredentialGauge, Dedup, Gauge, Invalid, Outcome, Parts, Payload,
    ProbeProfile, Processed, Profile, Proves, Provider, Push, VendorRequest, Written,
};

/// The kind.
pub static KIND: Kind = Kind {
    name: "fcm",
    fields: &[
        Field { name: "token", need: Need::OneOf },
        Field { name: "fid", need: Need::OneOf },
        Field { name: "topic", need: Need::OneOf },
        Field { name: "condition", need: Need::OneOf },
        Field { name: "project", need: Need::Optional },
    ],
    check_address,
    settings: &[
        Setting {
            name: "credentials",
            shape: Shape::Choice(&["service_account", "metadata"]),
            required: false,
        },
        // Required unless the metadata server stands in.
        Setting { name: "service_account", shape: Shape::Secret, required: false },
        Setting { name: "metadata_server", shape: Shape::Text, required: false },
        Setting { name: "project_id", shape: Shape::Text, required: false },
    ],
    build: |context| Ok(Arc::new(Fcm::new(context)?)),
};

/// Fields of an address of which exactly one names the target.
const TARGETS: [&str; 4] = ["token", "fid", "topic", "condition"];

const ENDPOINT: &str = "https://fcm.googleapis.com";
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";

/// Google's front end ends a connection with more streams than this at once
/// (GOAWAY `exceeded_max_concurrent_streams`).
const STREAMS: u32 = 100;

/// *REST Resource: projects.messages*, `condition`.
const MOST_TOPICS: usize = 5;

/// Nobody subscribes to it, and with `validate_only` nothing is sent.
const PROBE_TOPIC: &str = "health-probe";

/// More frequent PINGs end in GOAWAY `too_many_pings`.
const PING_INTERVAL: Duration = Duration::from_secs(60);

static PROFILE: Profile = Profile {
    kind: "fcm",
    dedup: Dedup::Replaces,
    // *Best practices when sending FCM messages at scale*: first repeat not before 10 s.
    min_retry: Duration::from_secs(10),
    probe: ProbeProfile {
        proves: Proves::Sending,
        min_interval: Duration::from_secs(10),
        // A dry run may count against the project's quota.
        only_when_quiet: true,
    },
    ping_interval: Some(PING_INTERVAL),
};

struct Fcm {
    project: String,
    /// As the gauge names it.
    credential: &'static str,
    /// `…/v1/projects/{project}/messages:send`.
    uri: Uri,
    tokens: TokenSource,
    pool: Pool,
    clock: Arc<dyn Clock>,
    /// Whether the credential was taken the last time.
    credential_ok: AtomicBool,
}

impl Fcm {
    fn new(context: Context) -> Result<Self, Vec<SettingError>> {
        let (issuer, project) = issuer(&context)?;
        let credential = match issuer {
            Issuer::Account { .. } => "service_account",
            Issuer::Metadata(_) => "metadata",
        };
        let endpoint = endpoint(&context).map_err(|error| vec![error])?;
        let uri = uri(&endpoint, &project).map_err(|error| vec![error])?;
        let ca_fault = |detail| vec![SettingError::new("ca_file", detail)];
        let client = Client::new(ClientSettings {
            ca: context.ca.clone(),
            connect_timeout: context.connect_timeout,
            timeout: context.timeout,
        });
        let tls = tls::client_config(context.ca.as_deref(), &[b"h2"], None).map_err(ca_fault)?;
        let pool = Pool::new(PoolSettings {
            origin: endpoint,
            tls,
            connect_timeout: context.connect_timeout,
            connections: context.connections,
            // As many as `max_in_flight` fills.
            max_connections: context
                .connections
                .max(context.max_in_flight.div_ceil(STREAMS as usize)),
            stream_limit: Some(STREAMS),
            one_stream_first: false,
            ping_interval: PING_INTERVAL,
            // An idle connection is closed by Google, and one that is pinged too.
            idle_ping: None,
        });
        let clock = Arc::clone(&context.clock);
        let tokens = TokenSource::new(issuer, client.map_err(ca_fault)?, context.clock);
        let credential_ok = AtomicBool::new(true);
        Ok(Self { project, credential, uri, tokens, pool, clock, credential_ok })
    }

    /// One call with the present token, classified.
    async fn post(&self, request: VendorRequest, target: &str, written: &Written) -> Answer {
        let token = match self.tokens.token().await {
            Ok(token) => token,
            Err(refusal) => return self.noted(*refusal),
        };
        let VendorRequest { method, uri, mut headers, body } = request;
        headers.insert(header::AUTHORIZATION, token.authorization);
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let mut answer = match self.pool.send(request, body, written).await {
            Ok(response) => answer::classify(Reply {
                status: response.status,
                headers: &response.headers,
                body: &response.body,
                address: target,
                now_s: self.clock.unix_s(),
            }),
            Err(failure) => Answer::from(&failure),
        };
        answer.credential = token.generation;
        self.noted(answer)
    }

    /// Keeps in mind what the answer shows of the credential.
    fn noted(&self, answer: Answer) -> Answer {
        if answer.outcome == Outcome::AuthFailed {
            self.credential_ok.store(false, Ordering::Relaxed);
        } else if answer.processed == Processed::Yes {
            self.credential_ok.store(true, Ordering::Relaxed);
        }
        answer
    }
}

impl Provider for Fcm {
    fn profile(&self) -> &Profile {
        &PROFILE
    }

    fn serves(&self, address: &Address) -> bool {
        address.get("project").is_none_or(|project| project == self.project)
    }

    fn parts(&self, _address: &Address) -> Parts {
        Parts::new()
    }

    fn encode(&self, push: &Push) -> Result<Payload, Invalid> {
        payload::encode(push)
    }

    fn request(&self, call: &Call) -> Result<VendorRequest, Invalid> {
        let target = target(&call.address)?;
        let filling = Filling {
            address: target.1,
            delivery: &payload::replace_key(call.delivery),
            pushyard: &call.pushyard,
            ttl: call.ttl.as_secs(),
            expires_at: call.expires_at,
        };
        let body = payload::body(&call.payload, target, &filling)?;
        let headers = call.payload.headers.iter().cloned().collect();
        Ok(VendorRequest { method: Method::POST, uri: self.uri.clone(), headers, body })
    }

    fn credential_headers(&self) -> Vec<HeaderName> {
        vec![header::AUTHORIZATION]
    }

    fn send<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Answer> {
        async move {
            let target = target(&call.address).map_or("", |(_, target)| target);
            match self.request(call) {
                Ok(request) => self.post(request, target, &call.written).await,
                Err(invalid) => Answer::from(&invalid),
            }
        }
        .boxed()
    }

    fn refresh(&self, used: u64) -> BoxFuture<'_, bool> {
        self.tokens.refresh(used).boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Answer> {
        async move {
            let body = format!(
                r#"{{"validate_only":true,"message":{{"topic":"{PROBE_TOPIC}","data":{{"p":"1"}}}}}}"#
            );
            let json = HeaderValue::from_static("application/json");
            let request = VendorRequest {
                method: Method::POST,
                uri: self.uri.clone(),
                headers: HeaderMap::from_iter([(header::CONTENT_TYPE, json)]),
                body: Bytes::from(body),
            };
            let mut answer = self.post(request, PROBE_TOPIC, &Written::default()).await;
            // A dry run's name is no message's.
            answer.vendor_id = None;
            answer
        }
        .boxed()
    }

    fn gauge(&self) -> Gauge {
        Gauge {
            connections: self.pool.connections(),
            stream_capacity: Some(self.pool.stream_capacity()),
            bytes_read: self.pool.bytes_read(),
            credential: CredentialGauge {
                kind: self.credential,
                // Neither a key file nor a machine's account has an end of its own.
                expires_at: None,
                ok: self.credential_ok.load(Ordering::Relaxed),
            },
        }
    }

    fn heard(&self) -> Option<Instant> {
        Some(self.pool.heard())
    }

    fn sound(&self) -> BoxFuture<'_, ()> {
        self.pool.sound().boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            self.pool.close().await;
            self.tokens.close().await;
        }
        .boxed()
    }
}

fn check_address(address: &Address) -> Result<(), FieldError> {
    if let Some(topic) = address.get("topic") {
        if topic.starts_with("/topics/") {
            return Err(FieldError::new("topic", "must stand without /topics/ before it"));
        }
        if !check::is_name(topic) {
            return Err(FieldError::new("topic", "must be letters, digits or -_.~%"));
        }
    }
    if let Some(condition) = address.get("condition") {
        let topics = condition.matches("in topics").count();
        if topics == 0 {
            let detail = "must be like 'a' in topics && 'b' in topics";
            return Err(FieldError::new("condition", detail));
        }
        if topics > MOST_TOPICS {
            return Err(FieldError::new("condition", "must not name more than 5 topics"));
        }
    }
    match address.get("project") {
        Some(project) if !is_project(project) => {
            Err(FieldError::new("project", "is no project id"))
        }
        Some(_) | None => Ok(()),
    }
}

/// The field and value that name whom to send to.
fn target(address: &Address) -> Result<(&'static str, &str), Invalid> {
    let set = |field: &&'static str| address.get(field).map(|value| (*field, value));
    TARGETS.iter().find_map(set).ok_or_else(|| {
        Invalid::new("no_target", "the address has neither token, fid, topic nor condition")
    })
}

/// Who gives out access tokens, and the project that is sent for.
fn issuer(context: &Context) -> Result<(Issuer, String), Vec<SettingError>> {
    let one = |key, detail: &str| Err(vec![SettingError::new(key, detail)]);
    let file = context.values.secret("service_account");
    let server = context.values.text("metadata_server");
    if context.values.text("credentials") == Some("metadata") {
        if file.is_some() {
            return one("service_account", "must be left out with credentials = \"metadata\"");
        }
        let Some(project) = context.values.text("project_id") else {
            // The server knows it too, but then each check of a configuration
            // would need the network.
            return one("project_id", "is required with credentials = \"metadata\"");
        };
        let project = checked_project(project).map_err(|error| vec![error])?;
        let server = MetadataServer::new(server, SCOPE).map_err(|error| vec![error])?;
        return Ok((Issuer::Metadata(server), project));
    }
    if server.is_some() {
        return one("metadata_server", "is used only with credentials = \"metadata\"");
    }
    let Some(file) = file else {
        return one(
            "service_account",
            "is required for kind \"fcm\"; or credentials = \"metadata\" inside Google Cloud",
        );
    };
    let account = Box::new(ServiceAccount::parse(file)?);
    let project = project(context, &account).map_err(|error| vec![error])?;
    Ok((Issuer::Account { account, scope: SCOPE }, project))
}

fn project(context: &Context, account: &ServiceAccount) -> Result<String, SettingError> {
    match context.values.text("project_id") {
        Some(project) => checked_project(project),
        None if is_project(&account.project_id) => Ok(account.project_id.clone()),
        None => Err(SettingError::new(
            "service_account",
            "field `project_id` is no project id; give `project_id` beside `service_account`",
        )),
    }
}

fn checked_project(project: &str) -> Result<String, SettingError> {
    if is_project(project) {
        return Ok(project.to_owned());
    }
    let detail = "is no project id: letters, digits, hyphens, as in the Firebase console";
    Err(SettingError::new("project_id", detail))
}

/// Ids, numbers, and `example.com:id` of a domain: what can stand in the path.
fn is_project(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 100
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:_".contains(&b))
        && text.bytes().any(|b| b.is_ascii_alphanumeric())
}

fn endpoint(context: &Context) -> Result<Url, SettingError> {
    match &context.endpoint {
        Some(endpoint) => Ok(endpoint.clone()),
        None => {
            Url::parse(ENDPOINT).map_err(|error| SettingError::new("endpoint", error.to_string()))
        }
    }
}

/// The one URL of all sends. An endpoint may have a path: a proxy's.
fn uri(endpoint: &Url, project: &str) -> Result<Uri, SettingError> {
    let base = endpoint.as_str().trim_end_matches('/');
    Uri::try_from(format!("{base}/v1/projects/{project}/messages:send"))
        .map_err(|error| SettingError::new("endpoint", error.to_string()))
}

#[cfg(test)]
mod tests;
