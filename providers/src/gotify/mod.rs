//! A Gotify server of the operator's own: `POST /message` with an application's
//! token, which is the address. A message reaches all clients of the user that owns
//! the application.
//!
//! Gotify knows no idempotency key and replaces nothing: a repeat is a second
//! message ([`Dedup::None`]).

mod answer;
mod payload;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use crate::address::{Field, FieldError, Need};
use crate::http::channel::{Channel, INSECURE_HTTP, PUSHYARD, gauge, invalid, pushyard_header};
use crate::registry::{Context, Kind};
use crate::settings::SettingError;
use crate::template::Filling;
use crate::{
    Address, Answer, Call, Dedup, Gauge, Invalid, Payload, ProbeProfile, Profile, Proves, Provider,
    Push, VendorRequest,
};

/// The kind.
pub static KIND: Kind = Kind {
    name: "gotify",
    fields: &[Field { name: "app_token", need: Need::Required }],
    check_address,
    settings: &[INSECURE_HTTP],
    build: |context| Ok(Arc::new(Gotify::new(&context)?)),
};

/// Never `?token=`, which proxies write into their logs.
const KEY: HeaderName = HeaderName::from_static("x-gotify-key");

/// Their length depends on the version; this is only a cap.
const MAX_TOKEN: usize = 255;

static PROFILE: Profile = Profile {
    kind: "gotify",
    dedup: Dedup::None,
    min_retry: Duration::ZERO,
    probe: ProbeProfile {
        proves: Proves::Reach,
        min_interval: Duration::from_secs(5),
        only_when_quiet: false,
    },
    ping_interval: None,
};

struct Gotify {
    channel: Channel,
    message: Uri,
    health: Uri,
}

impl Gotify {
    fn new(context: &Context) -> Result<Self, Vec<SettingError>> {
        let built = Channel::new(context, "https://gotify.example.com").and_then(|channel| {
            Ok(Self { message: channel.uri("/message")?, health: channel.uri("/health")?, channel })
        });
        built.map_err(|error| vec![error])
    }
}

impl Provider for Gotify {
    fn profile(&self) -> &Profile {
        &PROFILE
    }

    fn encode(&self, push: &Push) -> Result<Payload, Invalid> {
        payload::encode(push)
    }

    fn request(&self, call: &Call) -> Result<VendorRequest, Invalid> {
        let mut headers: HeaderMap = call.payload.headers.iter().cloned().collect();
        let token = call.address.get("app_token").unwrap_or_default();
        let mut token = HeaderValue::try_from(token)
            .map_err(|_| invalid("bad_token", "the token cannot stand in a header"))?;
        token.set_sensitive(true);
        headers.insert(KEY, token);
        headers.insert(PUSHYARD, pushyard_header(call)?);
        // Without slots: every recipient gets the same.
        let filling = Filling { address: "", delivery: "", pushyard: "", ttl: 0, expires_at: 0 };
        let body = call.payload.body.render(&filling);
        Ok(VendorRequest { method: Method::POST, uri: self.message.clone(), headers, body })
    }

    fn send<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Answer> {
        async move {
            match self.request(call) {
                Ok(request) => self.channel.push(request, &call.written, answer::classify).await,
                Err(invalid) => Answer::from(&invalid),
            }
        }
        .boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Answer> {
        self.channel.get(self.health.clone(), answer::health).boxed()
    }

    fn gauge(&self) -> Gauge {
        // The provider has no credential: each address brings its own.
        gauge("", true)
    }
}

/// Opaque, but it stands in a header.
fn check_address(address: &Address) -> Result<(), FieldError> {
    let token = address.get("app_token").unwrap_or_default();
    if token.len() > MAX_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let detail = "must be an application's token as Gotify shows it: at most 255 visible \
                      ASCII characters";
        return Err(FieldError::new("app_token", detail));
    }
    Ok(())
}
