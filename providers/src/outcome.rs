//! What an attempt's answer means.
//!
//! A value and not an error: every variant is an expected way to end. Only a
//! vendor's `answer.rs` makes one from a status and a body; only the router's
//! delivery state machine and health turn one into action.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The class of an attempt's answer. Spelled this way in API, metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Outcome {
    /// The vendor took the push.
    Accepted,
    /// The address is permanently dead.
    AddressGone,
    /// This vendor cannot take this request as it is; another may.
    MessageInvalid,
    /// Not now: the vendor, an app or a device is over its rate.
    Throttled,
    /// The vendor said no, or could not be reached: nothing was taken.
    Unavailable,
    /// The credential was refused.
    AuthFailed,
    /// The vendor says that our configuration and this address do not fit.
    Misconfigured,
    /// A byte may have left and no complete answer came.
    Ambiguous,
}

impl Outcome {
    /// All classes, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Accepted,
        Self::AddressGone,
        Self::MessageInvalid,
        Self::Throttled,
        Self::Unavailable,
        Self::AuthFailed,
        Self::Misconfigured,
        Self::Ambiguous,
    ];

    /// The word used in API, metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::AddressGone => "AddressGone",
            Self::MessageInvalid => "MessageInvalid",
            Self::Throttled => "Throttled",
            Self::Unavailable => "Unavailable",
            Self::AuthFailed => "AuthFailed",
            Self::Misconfigured => "Misconfigured",
            Self::Ambiguous => "Ambiguous",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The narrowest thing that an outcome is about, and what health is kept for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Part {
    /// The provider as a whole; spelled `""`.
    #[default]
    Provider,
    /// This address or topic alone; says nothing about the provider.
    Device,
    /// `app:com.example.shop`, `channels:com.example.shop`, `origin:https://push.example`.
    Named(Arc<str>),
}

impl Part {
    /// An APNs topic, or what a vendor calls an app.
    pub fn app(name: &str) -> Self {
        Self::Named(format!("app:{name}").into())
    }

    /// The origin of an address that brings its own URL.
    pub fn origin(origin: &str) -> Self {
        Self::Named(format!("origin:{origin}").into())
    }

    /// Whether it is the origin of an address that brings its own URL.
    pub fn is_origin(&self) -> bool {
        self.text().starts_with("origin:")
    }

    /// The text used in API and logs.
    pub fn text(&self) -> &str {
        match self {
            Self::Provider => "",
            Self::Device => "device",
            Self::Named(name) => name,
        }
    }
}

/// Whether the vendor's application may have seen the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processed {
    /// Certainly not: REFUSED_STREAM, a GOAWAY below our stream, never written,
    /// or an answer whose documentation says so. Safe to repeat at once.
    No,
    /// It cannot be known.
    Maybe,
    /// It answered.
    Yes,
}

/// One answer, classified.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What it means.
    pub outcome: Outcome,
    /// The narrowest thing it is about.
    pub part: Part,
    /// Not before this much time has passed; any class may have one.
    pub retry_after: Option<Duration>,
    /// Whether the vendor's application may have seen the request.
    pub processed: Processed,
    /// With `AuthFailed`: a renewed credential may be taken.
    pub refreshable: bool,
    /// With `MessageInvalid`: no vendor at all can take it.
    pub everywhere: bool,
    /// The vendor said something that its documentation does not list, or that
    /// our own checks should have prevented: someone should look.
    pub unexpected: bool,
    /// With `AddressGone`: since when, in unix milliseconds, if the vendor said so.
    pub gone_at: Option<u64>,
    /// Which generation of the credential the call carried; 0 where there is none.
    pub credential: u64,
    /// HTTP status, if one came.
    pub status: Option<u16>,
    /// The vendor's own code or reason, or ours for what never got so far
    /// (`connect`, `timeout`, `tls`).
    pub code: Option<Arc<str>>,
    /// One line for people; never a token or payload.
    pub detail: Option<Arc<str>>,
    /// The vendor's id for the push.
    pub vendor_id: Option<Arc<str>>,
    /// With `AddressGone`: the beginning of the vendor's answer, as proof.
    pub body: Option<Arc<str>>,
}

impl Answer {
    /// An answer of this class about the provider as a whole, with nothing else known.
    pub fn new(outcome: Outcome) -> Self {
        Self {
            outcome,
            part: Part::Provider,
            retry_after: None,
            processed: Processed::Yes,
            refreshable: false,
            everywhere: false,
            unexpected: false,
            gone_at: None,
            credential: 0,
            status: None,
            code: None,
            detail: None,
            vendor_id: None,
            body: None,
        }
    }

    /// The same, about `part`.
    #[must_use]
    pub fn about(mut self, part: Part) -> Self {
        self.part = part;
        self
    }

    /// The same, with the vendor's code.
    #[must_use]
    pub fn code(mut self, code: &str) -> Self {
        self.code = Some(bounded(code, 64));
        self
    }

    /// The same, with a line for people, cut at 200 characters.
    #[must_use]
    pub fn detail(mut self, detail: &str) -> Self {
        self.detail = Some(bounded(detail, 200));
        self
    }

    /// The same, with the vendor's answer where that is proof of a gone address,
    /// cut at 500 characters.
    #[must_use]
    pub fn proof(mut self, body: &str) -> Self {
        if self.outcome == Outcome::AddressGone && !body.is_empty() {
            self.body = Some(bounded(body, 500));
        }
        self
    }

    /// The same, with the HTTP status.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// The same, with what is known about processing.
    #[must_use]
    pub fn processed(mut self, processed: Processed) -> Self {
        self.processed = processed;
        self
    }
}

/// Vendors' words are bounded before they are stored: an endless body must not
/// become an endless record. Control characters are dropped, for they would
/// reach logs and terminals.
fn bounded(text: &str, most: usize) -> Arc<str> {
    text.chars().filter(|c| !c.is_control()).take(most).collect::<String>().into()
}
