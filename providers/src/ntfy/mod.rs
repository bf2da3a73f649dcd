//! A ntfy server, the operator's own or ntfy.sh: one publish for each delivery,
//! as JSON to the server's root.
//!
//! Whoever knows a topic may subscribe to it, and ntfy says nothing of subscribers:
//! accepted means that the server has the message. The sequence id lets newer
//! servers and apps replace what they show ([`Dedup::Replaces`]); older ones ignore
//! it and show a repeat twice.
//!
//! There is no dry run. `/v1/health` shows that the server is there, and proves
//! nothing of the credential.

mod answer;
mod payload;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};

use crate::address::{Field, FieldError, Need};
use crate::http::channel::{
    Channel, CredentialSeen, INSECURE_HTTP, PUSHYARD, gauge, pushyard_header,
};
use crate::registry::{Context, Kind};
use crate::settings::{Setting, SettingError, Shape, Values};
use crate::template::Filling;
use crate::{
    Address, Answer, Call, Dedup, Gauge, Invalid, Payload, ProbeProfile, Profile, Proves, Provider,
    Push, VendorRequest,
};

/// The kind.
pub static KIND: Kind = Kind {
    name: "ntfy",
    fields: &[Field { name: "topic", need: Need::Required }],
    check_address,
    settings: &[
        Setting { name: "token", shape: Shape::Secret, required: false },
        Setting { name: "username", shape: Shape::Text, required: false },
        Setting { name: "password", shape: Shape::Secret, required: false },
        INSECURE_HTTP,
    ],
    build: |context| Ok(Arc::new(Ntfy::new(&context)?)),
};

/// Names that the server keeps for itself (`server/server.go`).
const RESERVED: [&str; 10] =
    ["docs", "static", "file", "app", "metrics", "account", "settings", "signup", "login", "v1"];

static PROFILE: Profile = Profile {
    kind: "ntfy",
    dedup: Dedup::Replaces,
    min_retry: Duration::ZERO,
    probe: ProbeProfile {
        proves: Proves::Reach,
        // As often as the request bucket gains one, should the server count it.
        min_interval: Duration::from_secs(5),
        only_when_quiet: true,
    },
    ping_interval: None,
};

struct Ntfy {
    channel: Channel,
    publish: Uri,
    health: Uri,
    login: Login,
    /// Whether the credential was taken the last time.
    credential: CredentialSeen,
}

/// What goes into `Authorization`.
struct Login {
    kind: &'static str,
    value: Option<HeaderValue>,
}

impl Ntfy {
    fn new(context: &Context) -> Result<Self, Vec<SettingError>> {
        let channel = Channel::new(context, "https://ntfy.example.com").and_then(|channel| {
            let (publish, health) = (channel.uri("/")?, channel.uri("/v1/health")?);
            Ok((channel, publish, health))
        });
        match (channel, login(&context.values)) {
            (Ok((channel, publish, health)), Ok(login)) => {
                Ok(Self { channel, publish, health, login, credential: CredentialSeen::new() })
            }
            (Err(error), Err(other)) => Err(vec![error, other]),
            (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(vec![error]),
        }
    }
}

impl Provider for Ntfy {
    fn profile(&self) -> &Profile {
        &PROFILE
    }

    fn encode(&self, push: &Push) -> Result<Payload, Invalid> {
        payload::encode(push)
    }

    fn request(&self, call: &Call) -> Result<VendorRequest, Invalid> {
        let mut headers = HeaderMap::new();
        for (name, value) in &call.payload.headers {
            headers.insert(name, value.clone());
        }
        headers.insert(PUSHYARD, pushyard_header(call)?);
        let filling = Filling {
            address: topic(call),
            delivery: &call.delivery.to_string(),
            pushyard: &call.pushyard,
            ttl: call.ttl.as_secs(),
            expires_at: call.expires_at,
        };
        let body = call.payload.body.render(&filling);
        Ok(VendorRequest { method: Method::POST, uri: self.publish.clone(), headers, body })
    }

    fn credential_headers(&self) -> Vec<HeaderName> {
        self.login.value.iter().map(|_| header::AUTHORIZATION).collect()
    }

    fn send<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Answer> {
        async move {
            let mut request = match self.request(call) {
                Ok(request) => request,
                Err(invalid) => return Answer::from(&invalid),
            };
            if let Some(login) = &self.login.value {
                request.headers.insert(header::AUTHORIZATION, login.clone());
            }
            let classify =
                |reply: crate::http::channel::Reply<'_>| answer::classify(reply, topic(call));
            self.credential.note(self.channel.push(request, &call.written, classify).await)
        }
        .boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Answer> {
        self.channel.get(self.health.clone(), answer::health).boxed()
    }

    fn gauge(&self) -> Gauge {
        gauge(self.login.kind, self.credential.ok())
    }
}

fn topic(call: &Call) -> &str {
    call.address.get("topic").unwrap_or_default()
}

fn check_address(address: &Address) -> Result<(), FieldError> {
    let topic = address.get("topic").unwrap_or_default();
    if !is_topic(topic) {
        return Err(FieldError::new("topic", "must be 1 to 64 letters, digits, - or _"));
    }
    if RESERVED.contains(&topic) {
        return Err(FieldError::new("topic", "is a name that ntfy keeps for itself"));
    }
    Ok(())
}

/// `^[-_A-Za-z0-9]{1,64}$` (`server/server.go`).
fn is_topic(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=payload::MAX_TOPIC).contains(&text.len()) && text.bytes().all(fits)
}

/// A token, a user with a password, or nothing for a server that is open to all.
fn login(values: &Values) -> Result<Login, SettingError> {
    let token = values.secret("token");
    let (username, password) = (values.text("username"), values.secret("password"));
    let (key, kind, text) = match (token, username, password) {
        (None, None, None) => return Ok(Login { kind: "", value: None }),
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
            let detail = "cannot stand beside username and password; keep one of the two";
            return Err(SettingError::new("token", detail));
        }
        (None, Some(_), None) => {
            return Err(SettingError::new("password", "is required beside username"));
        }
        (None, None, Some(_)) => {
            return Err(SettingError::new("username", "is required beside password"));
        }
        (Some(token), None, None) => ("token", "token", format!("Bearer {}", token.expose())),
        (None, Some(username), Some(password)) => {
            if username.contains(':') {
                // RFC 7617 section 2: the first colon ends the user's name.
                return Err(SettingError::new("username", "must not contain a colon"));
            }
            let pair = STANDARD.encode(format!("{username}:{}", password.expose()));
            ("password", "password", format!("Basic {pair}"))
        }
    };
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| SettingError::new(key, "must be visible ASCII on one line"))?;
    value.set_sensitive(true);
    Ok(Login { kind, value: Some(value) })
}

#[cfg(test)]
mod tests;
