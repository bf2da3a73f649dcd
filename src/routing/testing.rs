//! What the tests of routing are built with: an adapter that only declares
//! itself, and a catalog of such.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use pushyard_providers::address::{Field, Need};
use pushyard_providers::{
    Address, Answer, Call, Dedup, Gauge, Invalid, Kind, Part, Parts, Payload, ProbeProfile,
    Profile, Proves, Provider, Push, VendorRequest,
};

use super::{Built, Catalog, HealthSettings, ProviderSettings, RetrySettings, Route};
use crate::model::Recipient;

/// A kind whose addresses may name an app.
pub(super) static KIND: Kind = Kind {
    name: "test",
    fields: &[
        Field { name: "token", need: Need::Required },
        Field { name: "app", need: Need::Optional },
    ],
    check_address: |_| Ok(()),
    settings: &[],
    build: |_| Err(Vec::new()),
};

/// A provider that only declares itself, and whose credential can be renewed or not.
pub(crate) struct Fake {
    profile: Profile,
    renews: bool,
    /// The credentials that were said to be refused.
    pub(crate) refused: Mutex<Vec<u64>>,
}

impl Fake {
    pub(crate) fn new(renews: bool) -> Self {
        let probe = ProbeProfile {
            proves: Proves::Nothing,
            min_interval: Duration::ZERO,
            only_when_quiet: false,
        };
        let profile = Profile {
            kind: KIND.name,
            dedup: Dedup::None,
            min_retry: Duration::ZERO,
            probe,
            ping_interval: None,
        };
        Self { profile, renews, refused: Mutex::default() }
    }
}

impl Provider for Fake {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn serves(&self, address: &Address) -> bool {
        address.get("app") != Some("unknown")
    }

    fn parts(&self, address: &Address) -> Parts {
        address.get("app").map(Part::app).into_iter().collect()
    }

    fn encode(&self, _: &Push) -> Result<Payload, Invalid> {
        Err(Invalid::new("test", ""))
    }

    fn request(&self, _: &Call) -> Result<VendorRequest, Invalid> {
        Err(Invalid::new("test", ""))
    }

    fn send<'a>(&'a self, _: &'a Call) -> BoxFuture<'a, Answer> {
        unreachable!("routing makes no call")
    }

    fn refresh(&self, credential: u64) -> BoxFuture<'_, bool> {
        self.refused.lock().unwrap().push(credential);
        Box::pin(std::future::ready(self.renews))
    }

    fn probe(&self) -> BoxFuture<'_, Answer> {
        unreachable!("routing makes no call")
    }

    fn gauge(&self) -> Gauge {
        Gauge::default()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        unreachable!("routing makes no call")
    }
}

/// Of a provider with this id and defaults else.
pub(crate) fn settings(id: &str) -> ProviderSettings {
    ProviderSettings {
        id: id.into(),
        kind: KIND.name,
        region: None,
        max_in_flight: 1000,
        rate: None,
        cost_per_million: 0.0,
        budget: None,
        timeout: Duration::from_secs(10),
        retry: RetrySettings::default(),
        health: HealthSettings::default(),
        probe: None,
    }
}

/// Providers with these settings, and routes.
pub(crate) fn catalog(providers: Vec<ProviderSettings>, routes: Vec<Route>) -> Catalog {
    let built = |(serial, settings): (usize, ProviderSettings)| {
        let provider = Arc::new(Fake::new(false));
        Built { settings: Arc::new(settings), provider, serial: serial as u64, retired: false }
    };
    Catalog { providers: providers.into_iter().enumerate().map(built).collect(), routes }
}

/// A recipient with an address for each (token, app); no app: empty.
pub(crate) fn recipient(addresses: &[(&str, &str)]) -> Recipient {
    let address = |(token, app): &(&str, &str)| {
        let mut values = vec![("token", *token)];
        if !app.is_empty() {
            values.push(("app", *app));
        }
        Address::new(&KIND, &values, None, None).unwrap()
    };
    let addresses = addresses.iter().map(address).collect();
    Recipient { reference: None, user: None, region: None, addresses, no_route: false }
}
