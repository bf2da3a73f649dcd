//! The contract between the router and the push vendors, and one module a vendor.
//!
//! A [`Provider`] is one configured connection to one vendor account. It turns a
//! [`Push`] into the vendor's payload, makes one call at a time, and says what
//! the answer means as an [`Outcome`]. That is all: it knows nothing of routes,
//! retries, health or other providers, and it never repeats a call by itself.
//! The router reads three things of an [`Answer`] (`outcome`, `part`,
//! `retry_after`); the rest is for people.
//!
//! A vendor's folder has three files: `payload.rs` (pure: message to bytes),
//! `answer.rs` (pure: status, headers and body to an [`Answer`], as one table)
//! and `mod.rs` (settings, credential, the call). [`registry`] is the only list
//! of kinds.
#![warn(missing_docs)]

pub mod address;
pub mod auth;
pub mod clock;
pub mod http;
pub mod outcome;
pub mod push;
pub mod registry;
pub mod secret;
pub mod settings;
pub mod template;

pub mod apns;
pub mod fcm;
pub mod gotify;
pub mod ntfy;
pub mod stream;
pub mod webhook;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ::http::{HeaderName, HeaderValue};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use smallvec::SmallVec;
use uuid::Uuid;

pub use address::Address;
pub use outcome::{Answer, Outcome, Part, Processed};
pub use push::{Notification, Priority, Push};
pub use registry::Kind;
pub use secret::Secret;
pub use template::Template;

/// The parts of an address that health is kept for, beside the provider as a
/// whole: an APNs topic, a Web Push origin. Mostly none or one.
pub type Parts = SmallVec<[Part; 1]>;

/// One configured connection to one vendor account.
pub trait Provider: Send + Sync + 'static {
    /// What a plan must know beforehand: address kind, what a repeat does, shortest retry delay.
    fn profile(&self) -> &Profile;

    /// Whether this account can reach the address: its app or project matches.
    /// The kind has been compared already.
    fn serves(&self, _address: &Address) -> bool {
        true
    }

    /// The parts of an address that health is kept for; empty: the provider alone.
    fn parts(&self, _address: &Address) -> Parts {
        Parts::new()
    }

    /// Builds the vendor's payload. Pure; done once for a message, shared by its recipients.
    ///
    /// # Errors
    /// [`Invalid`] when this vendor cannot take the message: too large, or an
    /// override that is not what the vendor's format allows.
    fn encode(&self, push: &Push) -> Result<Payload, Invalid>;

    /// The request that a call would make, without its credential. Pure; `send`
    /// sends exactly this, and `explain` shows it masked.
    ///
    /// # Errors
    /// [`Invalid`] when the address cannot stand in a request.
    fn request(&self, call: &Call) -> Result<VendorRequest, Invalid>;

    /// The headers that `send` adds for the credential: `explain` shows that they
    /// go out, and nothing of what is in them.
    fn credential_headers(&self) -> Vec<HeaderName> {
        Vec::new()
    }

    /// Makes one call and classifies the answer. Never repeats, never waits for
    /// a permit, never logs. Cancelling the future gives the call up; whether a
    /// byte had left by then is what [`Call::written`] tells.
    fn send<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Answer>;

    /// Renews the credential, single-flight. `used` is the generation that the
    /// refused call carried ([`Answer::credential`]): when the present one is
    /// newer, nothing is renewed and the answer is `true` at once. `false` where
    /// the credential is too young or cannot be renewed.
    fn refresh(&self, _used: u64) -> BoxFuture<'_, bool> {
        std::future::ready(false).boxed()
    }

    /// The cheapest call that shows the vendor reachable and, where it can, the
    /// credential good. Never visible to a user.
    fn probe(&self) -> BoxFuture<'_, Answer>;

    /// Figures that the router publishes and that bound what may be in flight.
    fn gauge(&self) -> Gauge;

    /// What must outlive a restart (APNs: when the token was minted), as the
    /// text that [`registry::Context::memo`] hands back. `None`: nothing.
    fn memo(&self) -> Option<String> {
        None
    }

    /// When the last byte came from the vendor, over whichever connection.
    /// `None`: the transport does not show it, and no stall rule applies.
    fn heard(&self) -> Option<Instant> {
        None
    }

    /// Asks for a sign of life that [`Provider::heard`] would show, no more often
    /// than [`Profile::ping_interval`] allows, and takes connections out of use
    /// that stay silent. The future ends when the sign has come, or is overdue.
    fn sound(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Ends its connections after the calls in flight have been answered.
    fn close(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}

/// What a kind of provider declares about itself.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The address kind that it serves.
    pub kind: &'static str,
    /// How a repeat with the same key behaves at the vendor.
    pub dedup: Dedup,
    /// Not earlier than this does the vendor want the same push again.
    pub min_retry: Duration,
    /// What the active probe proves, and how often the vendor bears it.
    pub probe: ProbeProfile,
    /// How often an HTTP/2 PING is borne while a request stalls; `None` where
    /// the transport shows no bytes and no stall rule applies.
    pub ping_interval: Option<Duration>,
}

/// How the vendor treats a second push with the same idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dedup {
    /// The vendor drops the repeat.
    Full,
    /// The repeat replaces the visible one on the device.
    Replaces,
    /// The user may see two.
    None,
}

/// What an active probe is good for.
#[derive(Clone, Copy, Debug)]
pub struct ProbeProfile {
    /// What a good answer shows.
    pub proves: Proves,
    /// The vendor bears it no more often than this.
    pub min_interval: Duration,
    /// Probe only while nothing else tells of the provider: ejected, or idle.
    pub only_when_quiet: bool,
}

/// What a good answer to a probe shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proves {
    /// There is no probe.
    Nothing,
    /// Name, network, TLS and the vendor's front end.
    Reach,
    /// That, and that the credential is taken.
    Credential,
    /// That, and that a send would be accepted.
    Sending,
}

/// A vendor's payload for one message, shared by all its recipients.
#[derive(Clone)]
pub struct Payload {
    /// The body, with slots for what differs between recipients.
    pub body: Template,
    /// Request headers that are the same for all recipients.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What else the adapter wants to remember of the encoding; its own type.
    pub detail: Option<Arc<dyn Any + Send + Sync>>,
}

/// One delivery as handed to a provider: everything that differs between two
/// recipients of the same message.
#[derive(Clone)]
pub struct Call {
    /// The message's payload as `encode` of this same provider built it.
    pub payload: Arc<Payload>,
    /// The address to reach.
    pub address: Address,
    /// The delivery id: idempotency key and correlation id at every vendor.
    pub delivery: Uuid,
    /// The backend's name for the recipient, for vendors that hand it on.
    pub reference: Option<Arc<str>>,
    /// `<delivery id>.<secret>`, the string that every payload carries so that
    /// the app can drop duplicates and send a receipt.
    pub pushyard: Arc<str>,
    /// The time that is left of the message's life, at least 1 s; zero means
    /// now or never.
    pub ttl: Duration,
    /// When the message's life ends, unix seconds; 0 with a zero `ttl`.
    pub expires_at: u64,
    /// Set by the transport just before the first byte of the request goes out.
    pub written: Written,
}

/// Whether a byte of a request may have left. Shared between the transport,
/// which sets it, and the deadline layer, which reads it when it cuts a call:
/// set means the end is ambiguous, unset that nothing was sent.
#[derive(Clone, Debug, Default)]
pub struct Written(Arc<AtomicBool>);

impl Written {
    /// A byte is about to leave.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether one may have left.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The request that a call makes, before the credential is added.
#[derive(Clone)]
pub struct VendorRequest {
    /// HTTP method.
    pub method: ::http::Method,
    /// Absolute URL.
    pub uri: ::http::Uri,
    /// Headers without the credential.
    pub headers: ::http::HeaderMap,
    /// The body as it goes out.
    pub body: bytes::Bytes,
}

/// Why a vendor cannot take a message or an address: known before any call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// A short code such as `too_large`, shown as the attempt's code.
    pub code: &'static str,
    /// Where in the message that the backend sent, as a JSON pointer (RFC 6901),
    /// such as `/overrides/apns/aps`; empty: the message as a whole, or its address.
    pub pointer: String,
    /// What is wrong and what to do, without the content itself.
    pub detail: String,
}

/// What a call comes to that is known to be wrong before it is made.
impl From<&Invalid> for Answer {
    fn from(invalid: &Invalid) -> Self {
        Self::new(Outcome::MessageInvalid)
            .code(invalid.code)
            .detail(&invalid.to_string())
            .processed(Processed::No)
    }
}

/// A key as it stands in a JSON pointer (RFC 6901 section 3).
pub fn pointer_token(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

impl Invalid {
    /// Of the message as a whole, or of its address.
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self::at(code, "", detail)
    }

    /// Of one place in the message.
    pub fn at(code: &'static str, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { code, pointer: pointer.into(), detail: detail.into() }
    }
}

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let separator = if self.pointer.is_empty() { "" } else { ": " };
        write!(f, "{}{separator}{}", self.pointer, self.detail)
    }
}

/// Figures of a provider at this moment.
#[derive(Clone, Debug, Default)]
pub struct Gauge {
    /// Open connections.
    pub connections: usize,
    /// How many streams the open connections' peers allow together; `None`
    /// where the transport has no such limit.
    pub stream_capacity: Option<usize>,
    /// Bytes read from the peer since start, under TLS: what a stall rule watches.
    pub bytes_read: u64,
    /// The credential in use.
    pub credential: CredentialGauge,
}

/// What can be told about a credential without showing it.
#[derive(Clone, Debug, Default)]
pub struct CredentialGauge {
    /// `p8`, `certificate`, `service_account`, `metadata`, `token`, or empty.
    pub kind: &'static str,
    /// When the credential itself ends (a certificate's `notAfter`), unix
    /// seconds; `None` where it has no end of its own.
    pub expires_at: Option<u64>,
    /// Whether the vendor took it the last time it was used.
    pub ok: bool,
}

impl std::fmt::Debug for VendorRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The path may hold a token, a header too, and the body is the user's.
        let (host, bytes) = (self.uri.host().unwrap_or_default(), self.body.len());
        write!(f, "VendorRequest({} {host}, {bytes} bytes)", self.method)
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A payload is the user's; its size is all that may be seen.
        write!(f, "Payload({} bytes)", self.body.rendered_len(0))
    }
}

#[cfg(test)]
mod tests {
    use super::VendorRequest;

    #[test]
    fn a_request_shows_neither_token_nor_header_nor_payload() {
        let request = VendorRequest {
            method: ::http::Method::POST,
            uri: ::http::Uri::from_static("https://push.example/3/device/t0ken?auth=s3cret"),
            headers: [(::http::header::AUTHORIZATION, "bearer s3cret".parse().unwrap())]
                .into_iter()
                .collect(),
            body: "the user's words".into(),
        };
        assert_eq!(format!("{request:?}"), "VendorRequest(POST push.example, 16 bytes)");
    }
}
