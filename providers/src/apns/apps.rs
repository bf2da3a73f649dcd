//! Which apps a provider serves, and what their topics are called.
//!
//! An address that names no app has the provider's `app`; one that names an app
//! is served when it is that one or stands in `apps`. Only a certificate for a
//! single topic may go without any of these: Apple then knows the topic.

use http::HeaderValue;

use super::login::Certificate;
use crate::settings::{SettingError, Values};
use crate::{Address, Invalid, Part};

/// The apps of a provider.
#[derive(Default)]
pub(super) struct Apps {
    /// The app of addresses that name none.
    default: Option<App>,
    others: Vec<App>,
    /// The certificate has one topic, so requests may go without.
    implied: bool,
}

/// An app, with what calls need of it made once.
pub(super) struct App {
    bundle: String,
    topic: HeaderValue,
    pub(super) part: Part,
    /// The part of its broadcast channels.
    pub(super) channels: Part,
}

impl Apps {
    /// Reads `app` and `apps`.
    pub(super) fn new(values: &Values) -> Result<Self, Vec<SettingError>> {
        let mut errors = Vec::new();
        let mut app = |key: &'static str, bundle: &str| {
            let app = App::new(bundle);
            if app.is_none() {
                let detail = "is no bundle id: letters, digits, hyphens and dots";
                errors.push(SettingError::new(key, detail));
            }
            app
        };
        let default = values.text("app").and_then(|bundle| app("app", bundle));
        let others = values.list("apps").iter().filter_map(|bundle| app("apps", bundle)).collect();
        if errors.is_empty() { Ok(Self { default, others, implied: false }) } else { Err(errors) }
    }

    /// Takes from a certificate what it says of its topic.
    pub(super) fn take_certificate(&mut self, certificate: &Certificate) {
        self.implied = !certificate.needs_topic;
        if self.default.is_none() {
            self.default = certificate.topic.as_deref().and_then(App::new);
        }
    }

    /// Whether no address at all could be served.
    pub(super) fn is_empty(&self) -> bool {
        self.default.is_none() && self.others.is_empty() && !self.implied
    }

    /// Whether the address's app is one of these.
    pub(super) fn serve(&self, address: &Address) -> bool {
        self.find(address).is_some() || (address.get("app").is_none() && self.implied)
    }

    /// The app of an address; `None` where it is not served, or where only the
    /// certificate knows it.
    pub(super) fn find(&self, address: &Address) -> Option<&App> {
        match address.get("app") {
            None => self.default.as_ref(),
            Some(bundle) => self.default.iter().chain(&self.others).find(|a| a.bundle == bundle),
        }
    }
}

impl App {
    fn new(bundle: &str) -> Option<Self> {
        let topic = HeaderValue::try_from(bundle).ok().filter(|_| is_bundle(bundle))?;
        let channels = Part::Named(format!("channels:{bundle}").into());
        Some(Self { bundle: bundle.to_owned(), topic, part: Part::app(bundle), channels })
    }

    /// Its bundle id.
    pub(super) fn bundle(&self) -> &str {
        &self.bundle
    }

    /// The topic of a push type with this suffix.
    pub(super) fn topic(&self, suffix: &str) -> Result<HeaderValue, Invalid> {
        if suffix.is_empty() {
            return Ok(self.topic.clone());
        }
        HeaderValue::try_from(format!("{}{suffix}", self.bundle))
            .map_err(|_| Invalid::new("app", "the bundle id cannot stand in a header"))
    }
}

/// Apple allows letters, digits, hyphens and dots; topics of MDM look the same.
pub(super) fn is_bundle(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}
