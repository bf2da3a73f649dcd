//! The only list of kinds. A new vendor is one line in [`KINDS`].

use std::sync::Arc;
use std::time::Duration;

use crate::address::{Address, Field, FieldError};
use crate::clock::Clock;
use crate::settings::{Setting, SettingError, Values};
use crate::{Provider, apns, fcm, gotify, ntfy, stream, webhook};

/// Every kind that this build knows.
pub static KINDS: &[&Kind] =
    &[&apns::KIND, &fcm::KIND, &ntfy::KIND, &gotify::KIND, &webhook::KIND, &stream::KIND];

/// The kind of this name.
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.name == name)
}

/// A kind of provider and of address.
pub struct Kind {
    /// The word in configuration and API.
    pub name: &'static str,
    /// The fields of an address of this kind.
    pub fields: &'static [Field],
    /// What a field's value must look like, beyond being there.
    pub check_address: fn(&Address) -> Result<(), FieldError>,
    /// The keys it adds to `[[providers]]`.
    pub settings: &'static [Setting],
    /// Builds a provider. Opens no connection and makes no call.
    pub build: fn(Context) -> Built,
}

/// A provider, or all that is wrong with its settings.
pub type Built = Result<Arc<dyn Provider>, Vec<SettingError>>;

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// What a provider is built from: the kind's own settings and those that all have.
#[derive(Clone)]
pub struct Context {
    /// The kind's own settings.
    pub values: Values,
    /// Another address than the vendor's: a proxy, a region, the simulator.
    pub endpoint: Option<url::Url>,
    /// PEM of an extra trust root for this provider's endpoint and token endpoint.
    pub ca: Option<Vec<u8>>,
    /// For one connection to stand, TLS included.
    pub connect_timeout: Duration,
    /// For one attempt; also bounds a credential's refresh.
    pub timeout: Duration,
    /// Connections to hold at least.
    pub connections: usize,
    /// Calls at once, at most.
    pub max_in_flight: usize,
    /// What [`Provider::memo`] gave before the restart.
    pub memo: Option<String>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
}
