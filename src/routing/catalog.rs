//! The providers and routes of one configuration, as built. Never changed: a
//! reload makes another one.

use std::sync::Arc;

use pushyard_providers::{Address, Gauge, Provider};

use super::{ProviderIndex, ProviderSettings, Route};
use crate::model::Recipient;

/// A built provider.
#[derive(Clone)]
pub struct Built {
    /// What the configuration says.
    pub settings: Arc<ProviderSettings>,
    /// The adapter.
    pub provider: Arc<dyn Provider>,
    /// Counts the providers built by this process: names this one for good.
    pub serial: u64,
    /// The configuration has it no more; its place is kept for what is in flight.
    pub retired: bool,
}

/// All providers and routes.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// By [`ProviderIndex`].
    pub providers: Vec<Built>,
    /// In the order of the configuration.
    pub routes: Vec<Route>,
}

impl Catalog {
    /// A provider. Indexes come from this same catalog, so it is there.
    pub fn provider(&self, index: ProviderIndex) -> &Built {
        &self.providers[index.at()]
    }

    /// The provider of this id.
    pub fn by_id(&self, id: &str) -> Option<ProviderIndex> {
        let is = |built: &Built| !built.retired && &*built.settings.id == id;
        let at = self.providers.iter().position(is)?;
        u16::try_from(at).ok().map(ProviderIndex)
    }

    /// The route of this name.
    pub fn route(&self, name: &str) -> Option<&Route> {
        self.routes.iter().find(|route| &*route.name == name)
    }

    /// The route of a message that names none: `default`, else the only one.
    pub fn default_route(&self) -> Option<&Route> {
        self.route("default").or(match &self.routes[..] {
            [only] => Some(only),
            _ => None,
        })
    }

    /// The figures of each provider, by id, in the order of the configuration.
    pub fn gauges(&self) -> Vec<(Arc<str>, Gauge)> {
        self.providers
            .iter()
            .filter(|built| !built.retired)
            .map(|built| (built.settings.id.clone(), built.provider.gauge()))
            .collect()
    }

    /// Whether this provider could ever serve the recipient at this address:
    /// kind, binding, app and region match.
    pub fn serves(&self, index: ProviderIndex, recipient: &Recipient, address: &Address) -> Serves {
        let Built { settings, provider, .. } = self.provider(index);
        if self.provider(index).retired
            || settings.kind != address.kind().name
            || address.provider().is_some_and(|id| id != &*settings.id)
        {
            return Serves::OtherKind;
        }
        if let (Some(wanted), Some(region)) = (&recipient.region, &settings.region)
            && wanted.as_str() != &**region
        {
            return Serves::OtherRegion;
        }
        if provider.serves(address) { Serves::Yes } else { Serves::OtherApp }
    }
}

/// Whether a provider could serve an address, or the first reason why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    /// It could.
    Yes,
    /// Another kind, or the address is bound to another provider.
    OtherKind,
    /// The account does not know the address's app.
    OtherApp,
    /// The recipient's data must not go there.
    OtherRegion,
}

impl std::fmt::Debug for Built {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Built").field(&self.settings).finish()
    }
}
