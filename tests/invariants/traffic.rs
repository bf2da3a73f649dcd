//! What backends send in the world, and the configuration that it is sent
//! through: drawn from the seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pushyard::clock::Utc;
use pushyard::dispatch::{Limits, Settings};
use pushyard::model::{Durability, Message, MessageId, OnAmbiguous, Recipient};
use pushyard::routing::{
    Balance, Built, Catalog, HealthSettings, Member, ProbeSettings, ProviderIndex,
    ProviderSettings, Rate, RetrySettings, Route, Serves,
};
use pushyard_providers::{Address, Dedup, Priority, Proves, Push};
use rand::RngExt;
use rand::rngs::StdRng;

use super::vendor::{ALPHA, BETA, Fake, TIMEOUT};

/// How a world is set up.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) catalog: Arc<Catalog>,
    pub(super) settings: Settings,
    pub(super) limits: Limits,
    /// Between two messages, on average.
    pub(super) pause: Duration,
    pub(super) devices: u32,
}

const DEDUPS: [Dedup; 3] = [Dedup::Full, Dedup::Replaces, Dedup::None];
const PROVES: [Proves; 4] = [Proves::Nothing, Proves::Reach, Proves::Credential, Proves::Sending];

impl Setup {
    pub(super) fn draw(rng: &mut StdRng) -> Self {
        let providers: Vec<Built> =
            (0..rng.random_range(2..5)).map(|at| provider(at, rng)).collect();
        let catalog = Catalog { routes: routes(providers.len(), rng), providers };
        let mut settings = Settings::default();
        let mut limits = Limits::default();
        if rng.random_bool(0.4) {
            // Nearly every body has to be read back.
            settings.body_cache = rng.random_range(0..20_000);
        }
        if rng.random_bool(0.3) {
            limits.max_unsettled = rng.random_range(20..200);
            limits.max_client_unsettled = limits.max_unsettled / 2;
        }
        let pause = Duration::from_millis([20, 100, 500, 3000][rng.random_range(0..4)]);
        let devices = [5, 40, 1000][rng.random_range(0..3)];
        Self { catalog: Arc::new(catalog), settings, limits, pause, devices }
    }

    /// A message of this id.
    pub(super) fn message(&self, id: MessageId, now: Utc, rng: &mut StdRng) -> Message {
        let one_of = |rng: &mut StdRng, of: &[u64]| of[rng.random_range(0..of.len())];
        let count = if rng.random_bool(0.8) { 1 } else { rng.random_range(1..=20) };
        let route = &self.catalog.routes[rng.random_range(0..self.catalog.routes.len())];
        let mut recipients: Vec<Recipient> = (0..count).map(|_| self.recipient(now, rng)).collect();
        for recipient in &mut recipients {
            recipient.no_route = !self.could_serve(route, recipient);
        }
        let mut push = Push { priority: Priority::High, ..Push::default() };
        if rng.random_bool(0.3) {
            push.priority = Priority::Normal;
        }
        if rng.random_bool(0.3) {
            push.collapse_key = Some(format!("key-{}", rng.random_range(0..3)));
        }
        let delay = Duration::from_secs(one_of(rng, &[1, 5, 60, 600]));
        let pick = |rng: &mut StdRng, share: f64| rng.random_bool(share);
        Message {
            id,
            client: format!("client-{}", rng.random_range(0..3)).into(),
            route: route.name.clone(),
            deliver_at: pick(rng, 0.1).then(|| now.plus(delay)),
            ttl: Duration::from_secs(one_of(
                rng,
                &[0, 5, 30, 30, 120, 120, 600, 600, 3600, 10_000],
            )),
            on_ambiguous: if pick(rng, 0.3) { OnAmbiguous::Stop } else { OnAmbiguous::Resend },
            durability: if pick(rng, 0.1) { Durability::Memory } else { Durability::Disk },
            push,
            recipients,
            metadata: BTreeMap::new(),
            idempotency: None,
            warnings: Vec::new(),
            unresolved: Vec::new(),
            trace: None,
        }
    }

    fn recipient(&self, now: Utc, rng: &mut StdRng) -> Recipient {
        let device = rng.random_range(0..self.devices);
        let mut addresses = Vec::new();
        for kind in [&ALPHA, &BETA] {
            for nth in 0..2 {
                if !rng.random_bool(if nth == 0 { 0.7 } else { 0.1 }) {
                    continue;
                }
                let token = format!("{}-{device}-{nth}", kind.name);
                let app = ["app-1", "app-2"][(device % 2) as usize];
                let mut values = vec![("token", &*token)];
                if device % 5 != 0 {
                    values.push(("app", app));
                }
                // Mostly registered just now: else all would be gone before long.
                let registered_at = rng.random_bool(0.8).then(|| now.ms());
                addresses.push(Address::new(kind, &values, None, registered_at).unwrap());
            }
        }
        let region = (device % 7 == 0).then(|| "eu".to_owned());
        Recipient { reference: None, user: None, region, addresses, no_route: false }
    }

    fn could_serve(&self, route: &Route, recipient: &Recipient) -> bool {
        let serves =
            |at: ProviderIndex, to: &Address| self.catalog.serves(at, recipient, to) == Serves::Yes;
        let mut members = route.tiers.iter().flatten();
        members.any(|member| recipient.addresses.iter().any(|to| serves(member.provider, to)))
    }
}

fn provider(at: usize, rng: &mut StdRng) -> Built {
    let kind = if rng.random() { ALPHA.name } else { BETA.name };
    let dedup = DEDUPS[rng.random_range(0..3)];
    let min_retry = Duration::from_secs([0, 0, 10][rng.random_range(0..3)]);
    let proves = PROVES[rng.random_range(0..4)];
    let burst = f64::from(rng.random_range(1..20));
    let settings = ProviderSettings {
        id: format!("{kind}-{at}").into(),
        kind,
        region: rng.random_bool(0.2).then(|| "us".into()),
        max_in_flight: [1, 4, 50, 1000][rng.random_range(0..4)],
        rate: rng.random_bool(0.3).then_some(Rate { per_second: burst * 2.0, burst }),
        cost_per_million: f64::from(rng.random_range(0..3)),
        budget: None,
        timeout: TIMEOUT,
        retry: RetrySettings::default(),
        health: HealthSettings::default(),
        probe: rng.random_bool(0.5).then(ProbeSettings::default),
    };
    let fake = Fake::new(kind, dedup, min_retry, proves);
    let provider = Arc::new(if rng.random_bool(0.7) { fake.showing_bytes() } else { fake });
    Built { settings: Arc::new(settings), provider, serial: at as u64, retired: false }
}

/// A route over all providers, and one over the first alone.
fn routes(providers: usize, rng: &mut StdRng) -> Vec<Route> {
    let member = |at: usize, rng: &mut StdRng| Member {
        provider: ProviderIndex(at as u16),
        weight: f64::from(rng.random_range(1..4)),
    };
    let mut tiers: Vec<Vec<Member>> = vec![Vec::new()];
    for at in 0..providers {
        if !tiers[tiers.len() - 1].is_empty() && rng.random() {
            tiers.push(Vec::new());
        }
        let last = tiers.len() - 1;
        tiers[last].push(member(at, rng));
    }
    let balance = Balance::ALL[rng.random_range(0..Balance::ALL.len())];
    let all = Route { name: "all".into(), tiers, balance };
    let first = vec![vec![member(0, rng)]];
    vec![all.clone(), all, Route { name: "first".into(), tiers: first, balance }]
}
