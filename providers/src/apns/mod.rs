//! Apple Push Notification service, over one pool of HTTP/2 connections.
//!
//! A call goes to `/3/device/{token}`, or to a channel of Live Activities
//! ([`site`]), with a provider token of the team's key ([`crate::auth::es256`]) or
//! over connections that log in with a certificate. A connection is bound to one
//! team and key by its first push, so a provider has exactly one key.
//!
//! Apple does not drop a second push with the same `apns-id`; what makes a
//! repeat harmless is the same `apns-collapse-id`, hence [`Dedup::Replaces`].
//! The suffix of the topic follows from the push type ([`payload`]); health is
//! kept by the app's bundle id without it, and for an app's broadcasts by a part
//! of their own: they go to another host and have quotas of their own, and what
//! ails them must not stop pushes to devices.
//!
//! There is no dry run, and a push to an invented token counts as an error on
//! its connection, so a probe opens a connection and sends nothing.

mod answer;
mod apps;
mod login;
mod payload;
mod site;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};

use self::answer::{Reply, Then};
use self::apps::Apps;
use self::login::Login;
use self::payload::{COLLAPSE_ID, EXPIRATION, Encoded, Settled, TOPIC};
use self::site::{Place, Site, Target, places};
use crate::address::{Field, Need};
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
        Field { name: "token", need: Need::Unless("channel") },
        Field { name: "channel", need: Need::Optional },
        Field { name: "app", need: Need::Optional },
    ],
    check_address: site::check_address,
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
        Setting { name: "broadcast_endpoint", shape: Shape::Text, required: false },
    ],
    build: |context| Ok(Arc::new(Apns::new(&context)?)),
};

const ID: HeaderName = HeaderName::from_static("apns-id");
const REQUEST_ID: HeaderName = HeaderName::from_static("apns-request-id");
const CHANNEL_ID: HeaderName = HeaderName::from_static("apns-channel-id");

/// Connections at most: stream limits fall to 1 after a refused push, and it
/// takes several connections to keep a batch moving then.
const MAX_CONNECTIONS: usize = 16;

/// Apple: check the health of a connection that was idle for about an hour.
const IDLE_PING: Duration = Duration::from_secs(45 * 60);

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
    devices: Site,
    /// `None`: at the same place as devices.
    broadcasts: Option<Site>,
    apps: Apps,
    clock: Arc<dyn Clock>,
    /// Whether the credential was taken the last time.
    credential_ok: AtomicBool,
}

impl Apns {
    fn new(context: &Context) -> Result<Self, Vec<SettingError>> {
        let mut errors = Vec::new();
        let places = places(context).map_err(|faults| errors.extend(faults));
        let login = Login::new(context).map_err(|faults| errors.extend(faults));
        let apps = Apps::new(&context.values).map_err(|faults| errors.extend(faults));
        let (Ok((devices, broadcasts)), Ok((login, tls)), Ok(mut apps)) = (places, login, apps)
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
        let site = |place: Place| Site {
            pool: Pool::new(PoolSettings {
                origin: place.origin.clone(),
                tls: tls.clone(),
                connect_timeout: context.connect_timeout,
                connections: context.connections,
                max_connections: context.connections.max(MAX_CONNECTIONS),
                stream_limit: None,
                one_stream_first: matches!(login, Login::Token(_)),
                ping_interval: PING_INTERVAL,
                idle_ping: Some(IDLE_PING),
            }),
            place,
        };
        let broadcasts = (broadcasts != devices).then(|| site(broadcasts));
        let devices = site(devices);
        let clock = context.clock.clone();
        let credential_ok = AtomicBool::new(true);
        Ok(Self { login, devices, broadcasts, apps, clock, credential_ok })
    }

    fn site(&self, target: Target<'_>) -> &Site {
        match (target, &self.broadcasts) {
            (Target::Channel(_), Some(broadcasts)) => broadcasts,
            (Target::Channel(_), None) | (Target::Device(_), _) => &self.devices,
        }
    }

    fn sites(&self) -> impl Iterator<Item = &Site> {
        std::iter::once(&self.devices).chain(&self.broadcasts)
    }

    /// The request of a push to a device.
    fn to_device(&self, call: &Call, token: &str) -> Result<(http::Uri, HeaderMap), Invalid> {
        let encoded = encoded(call)?;
        payload::fits_device(&call.payload.body, encoded)?;
        let uri = self.devices.place.uri(&format!("/3/device/{token}"))?;
        let Encoded { suffix, settled, .. } = *encoded;
        let Settled { topic, expiration, collapse_id } = settled;
        let mut headers = HeaderMap::with_capacity(8);
        headers.extend(call.payload.headers.iter().cloned());
        if !topic && let Some(topic) = self.topic(&call.address, suffix)? {
            headers.insert(TOPIC, topic);
        }
        if !expiration {
            headers.insert(EXPIRATION, call.expires_at.into());
        }
        let mut id = delivery_id(call)?;
        if !collapse_id {
            headers.insert(COLLAPSE_ID, id.clone());
        }
        id.set_sensitive(true);
        headers.insert(ID, id);
        Ok((uri, headers))
    }

    /// The request of a broadcast. A message may go to devices and to channels,
    /// so what only the former know is left out here.
    fn to_channel(&self, call: &Call, channel: &str) -> Result<(http::Uri, HeaderMap), Invalid> {
        let encoded = encoded(call)?;
        let app = self.apps.find(&call.address).ok_or_else(|| {
            Invalid::new("app", "a broadcast needs the app's bundle id: give `app`")
        })?;
        let site = self.site(Target::Channel(channel));
        let uri = site.place.uri(&format!("/4/broadcasts/apps/{}", app.bundle()))?;
        let mut headers = HeaderMap::with_capacity(8);
        headers.extend(call.payload.headers.iter().cloned());
        headers.remove(TOPIC);
        headers.remove(COLLAPSE_ID);
        if !encoded.settled.expiration {
            headers.insert(EXPIRATION, call.expires_at.into());
        }
        payload::check_broadcast(encoded, &headers)?;
        let mut channel = HeaderValue::from_str(channel)
            .map_err(|_| Invalid::new("bad_address", "the channel cannot stand in a header"))?;
        channel.set_sensitive(true);
        headers.insert(CHANNEL_ID, channel);
        let mut id = delivery_id(call)?;
        id.set_sensitive(true);
        headers.insert(REQUEST_ID, id);
        Ok((uri, headers))
    }

    fn topic(&self, address: &Address, suffix: &str) -> Result<Option<HeaderValue>, Invalid> {
        match self.apps.find(address) {
            Some(app) => app.topic(suffix).map(Some),
            None if self.apps.serve(address) => Ok(None),
            None => Err(Invalid::new("app", "this provider does not serve the app")),
        }
    }

    /// The narrowest part that an answer can be about, beside the address itself.
    fn part(&self, address: &Address) -> Part {
        self.parts(address).pop().unwrap_or_default()
    }

    /// Makes the call and classifies its answer.
    async fn post(&self, request: VendorRequest, call: &Call) -> Answer {
        let target = Target::of(&call.address);
        let pool = &self.site(target).pool;
        let token = match &self.login {
            Login::Certificate(_) => None,
            Login::Token(mint) => match mint.token() {
                Ok(token) => Some(token),
                Err(error) => return self.unsigned(&error),
            },
        };
        let generation = token.as_ref().map_or(0, |token| token.generation);
        let (request, body) = signed(request, token);
        let mut answer = match pool.send(request, body, &call.written).await {
            Ok(response) => {
                let (answer, then) = answer::classify(Reply {
                    status: response.status,
                    headers: &response.headers,
                    body: &response.body,
                    target,
                    part: &self.part(&call.address),
                    can_refresh: !response.status.is_success() && self.can_refresh(generation),
                    now_s: self.clock.unix_s(),
                });
                match then {
                    Then::Nothing => {}
                    Then::Retire => pool.retire(response.connection),
                    Then::HoldTokens => self.hold_tokens(generation),
                }
                self.note(&answer);
                answer
            }
            Err(failure) => match target {
                Target::Channel(_) if !failure.again => {
                    Answer::from(&failure).about(self.part(&call.address))
                }
                Target::Device(_) | Target::Channel(_) => Answer::from(&failure),
            },
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
        let Some(app) = self.apps.find(address) else { return Parts::new() };
        match Target::of(address) {
            Target::Device(_) => Parts::from_iter([app.part.clone()]),
            Target::Channel(_) => Parts::from_iter([app.part.clone(), app.channels.clone()]),
        }
    }

    fn encode(&self, push: &Push) -> Result<Payload, Invalid> {
        payload::encode(push, matches!(self.login, Login::Token(_)))
    }

    fn request(&self, call: &Call) -> Result<VendorRequest, Invalid> {
        let (uri, headers) = match Target::of(&call.address) {
            Target::Device(token) => self.to_device(call, token)?,
            Target::Channel(channel) => self.to_channel(call, channel)?,
        };
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
            match self.devices.pool.check().await {
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
        let pools = || self.sites().map(|site| &site.pool);
        Gauge {
            connections: pools().map(Pool::connections).sum(),
            stream_capacity: Some(
                pools().map(Pool::stream_capacity).fold(0, usize::saturating_add),
            ),
            bytes_read: pools().map(Pool::bytes_read).sum(),
            credential: CredentialGauge { kind, expires_at, ok },
        }
    }

    fn memo(&self) -> Option<String> {
        match &self.login {
            Login::Token(mint) => mint.memo(),
            Login::Certificate(_) => None,
        }
    }

    /// By the host of devices while calls to it are under way, else by that of
    /// broadcasts: what one says must not hide the other's silence, and that of
    /// broadcasts alone must not stop pushes to devices.
    fn heard(&self) -> Option<Instant> {
        let asked = self.sites().find(|site| site.pool.is_busy()).unwrap_or(&self.devices);
        Some(asked.pool.heard())
    }

    fn sound(&self) -> BoxFuture<'_, ()> {
        join_all(self.sites().map(|site| site.pool.sound())).map(|_| ()).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        join_all(self.sites().map(|site| site.pool.close())).map(|_| ()).boxed()
    }
}

/// What the call's payload was encoded with.
fn encoded(call: &Call) -> Result<&Encoded, Invalid> {
    let encoded = call.payload.detail.as_ref().and_then(|detail| detail.downcast_ref());
    encoded.ok_or_else(|| {
        Invalid::new("internal", "the payload was encoded by another kind of provider")
    })
}

fn delivery_id(call: &Call) -> Result<HeaderValue, Invalid> {
    let mut buffer = uuid::Uuid::encode_buffer();
    let id: &str = call.delivery.as_hyphenated().encode_lower(&mut buffer);
    HeaderValue::from_str(id)
        .map_err(|_| Invalid::new("internal", "the delivery id cannot stand in a header"))
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
