//! Another configuration while everything runs.
//!
//! The file is read and checked whole, and what has changed is built, before
//! anything is touched: an invalid file changes nothing. Then the dispatcher goes
//! over in one step. Providers keep their places for as long as the process
//! lives, so that attempts in flight end where they began; what has not changed
//! keeps its connections, health and limits.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pushyard_providers::stream::Hub;
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::start::stacks;
use super::tls::{self, Certificates, identities};
use crate::admin::Reloaded;
use crate::api::Authenticator;
use crate::clock::Clock;
use crate::config::{self, Errors, ProviderEntry, Settings, SystemSources};
use crate::dispatch::{Dispatcher, Limits, Reconfigure, Reconfigured};
use crate::feedback::Subscriber;
use crate::routing::{Built, Catalog, ProviderIndex, Route};
use crate::telemetry::{HubEvent, Telemetry};

/// Calls in flight at a provider that was replaced may end within its timeout
/// and this.
const GRACE: Duration = Duration::from_secs(1);

/// With `watch`, the file is looked at this often.
const LOOK: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Reloader {
    /// The configuration file.
    pub(super) path: PathBuf,
    /// The time.
    pub(super) clock: Arc<Clock>,
    /// Goes over to it.
    pub(super) dispatcher: Dispatcher,
    /// Providers and routes as they are in force.
    pub(super) catalog: Arc<ArcSwap<Catalog>>,
    /// Who may ask.
    pub(super) authenticator: Arc<Authenticator>,
    /// What `GET config` shows.
    pub(super) shown: Arc<ArcSwap<Value>>,
    /// Who is told of deliveries; the outbox ends with it.
    pub(super) subscribers: watch::Sender<Vec<Subscriber>>,
    /// Whom the listeners prove to be.
    pub(super) certificates: Certificates,
    /// What stream providers publish into.
    pub(super) hub: Option<Arc<Hub>>,
    /// Counts reloads.
    pub(super) telemetry: Arc<Telemetry>,
    /// What is in force; also so that two reloads do not meet.
    pub(super) present: Mutex<Present>,
}

/// What is in force.
pub(super) struct Present {
    /// As it was read.
    pub(super) settings: Settings,
    /// Says good-bye to vendors through what was replaced.
    pub(super) leaving: JoinSet<()>,
}

impl Reloader {
    /// Reads the file again and goes over to it.
    ///
    /// # Errors
    /// All that is wrong with it; nothing is changed then.
    pub(super) async fn reload(&self) -> Result<Reloaded, Errors> {
        let mut present = self.present.lock().await;
        let read = self.read().await;
        self.telemetry.reloaded(read.is_ok());
        let settings = read.inspect_err(|errors| warn!("the configuration stays: {errors}"))?;
        for warning in &settings.warnings {
            warn!("{warning}");
        }
        let reloaded = compare(&present.settings, &settings);
        if !reloaded.unchanged {
            self.take(&mut present, settings).await;
        }
        self.telemetry.operator(HubEvent {
            name: "reload",
            to: Some(reloaded.changed.join(", ")),
            ..HubEvent::default()
        });
        info!(changed = ?reloaded.changed, restart_needed = ?reloaded.restart_needed, "reloaded");
        Ok(reloaded)
    }

    /// Reloads whenever the file has changed and then stood still for a moment: an
    /// editor or a deployment may write it in several steps. Runs until stopped.
    pub(super) async fn watch(&self, stop: CancellationToken) {
        let mut known = self.stamp().await;
        let mut before = known;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => return,
            }
            let now = self.stamp().await;
            if now.is_some() && now != known && now == before {
                known = now;
                // What is wrong with it is in the log.
                let _ = self.reload().await;
            }
            before = now;
        }
    }

    /// Takes up renewed certificates, the rest of the configuration untouched. What
    /// cannot be used is told each time: the old one ends some day. Runs until stopped.
    pub(super) async fn watch_certificates(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(tls::LOOK) => {}
                () = stop.cancelled() => return,
            }
            let mut present = self.present.lock().await;
            tls::renew_all(&mut present.settings).await;
            self.certificates.exchange(&present.settings);
        }
    }

    async fn stamp(&self) -> Option<(std::time::SystemTime, u64)> {
        let found = tokio::fs::metadata(&self.path).await.ok()?;
        Some((found.modified().ok()?, found.len()))
    }

    async fn read(&self) -> Result<Settings, Errors> {
        let (path, clock) = (self.path.clone(), self.clock.clone());
        // Files are read, keys parsed and trust roots loaded.
        let reading =
            tokio::task::spawn_blocking(move || config::load(&path, &SystemSources, clock));
        reading.await.expect("loading a configuration returns its faults as errors")
    }

    async fn take(&self, present: &mut Present, settings: Settings) {
        let before = self.catalog.load_full();
        let Next { catalog, changed, replaced } =
            next(&before, &present.settings, &settings, self.hub.as_ref());
        let catalog = Arc::new(catalog);
        let stacks = stacks(&catalog, &self.telemetry, &self.clock);
        let (dispatch, limits) = (settings.dispatch, settings.limits);
        let subscribed = settings.subscribers.iter().map(|one| (one.client.clone(), one.kinds));
        let subscribed = subscribed.collect();
        let reconfigured =
            Reconfigured { catalog, changed, settings: dispatch, limits, subscribed };
        // Refused only when the server is going down.
        let _ = self.dispatcher.reconfigure(Reconfigure { reconfigured, stacks }).await;
        self.authenticator.replace(settings.clients.clone(), &self.clock);
        self.subscribers.send_replace(settings.subscribers.clone());
        self.certificates.exchange(&settings);
        self.shown.store(Arc::new(settings.masked()));
        while present.leaving.try_join_next().is_some() {}
        for built in replaced {
            present.leaving.spawn(async move {
                tokio::time::sleep(built.settings.timeout + GRACE).await;
                built.provider.close().await;
            });
        }
        present.settings = settings;
    }
}

/// The providers and routes to go over to.
struct Next {
    catalog: Catalog,
    /// Built anew.
    changed: Vec<ProviderIndex>,
    /// What was built before.
    replaced: Vec<Built>,
}

fn next(before: &Catalog, old: &Settings, new: &Settings, hub: Option<&Arc<Hub>>) -> Next {
    let mut next = Next { catalog: Catalog::default(), changed: Vec::new(), replaced: Vec::new() };
    let entry = |settings: &Settings, id: &str| {
        settings.providers.iter().find(|entry| &*entry.settings.id == id).cloned()
    };
    let mut serial = before.providers.iter().map(|built| built.serial).max().unwrap_or(0);
    let mut build = |entry: &ProviderEntry, memo: Option<String>| {
        serial += 1;
        let (settings, provider) = (entry.settings.clone(), entry.build(memo, hub));
        Built { settings, provider, serial, retired: false }
    };
    for (at, built) in before.providers.iter().enumerate() {
        // The configuration allows no more providers than the index has numbers.
        let index = ProviderIndex(at as u16);
        let id = &*built.settings.id;
        let now = match (entry(old, id), entry(new, id)) {
            (_, None) => Built { retired: true, ..built.clone() },
            (Some(old), Some(new)) if !built.retired && old.builds_the_same(&new) => {
                Built { settings: new.settings, ..built.clone() }
            }
            (_, Some(new)) => {
                let memo = built.provider.memo().filter(|_| built.settings.kind == new.kind.name);
                next.changed.push(index);
                build(&new, memo)
            }
        };
        if now.serial != built.serial || now.retired != built.retired {
            next.replaced.push(built.clone());
        }
        next.catalog.providers.push(now);
    }
    for entry in &new.providers {
        if next.catalog.by_id(&entry.settings.id).is_none() {
            next.catalog.providers.push(build(entry, None));
        }
    }
    next.catalog.routes =
        new.routes.iter().map(|route| placed(route, new, &next.catalog)).collect();
    next
}

/// A route that names providers by their place in the file, by their place in
/// the catalog.
fn placed(route: &Route, settings: &Settings, catalog: &Catalog) -> Route {
    let mut route = route.clone();
    for member in route.tiers.iter_mut().flatten() {
        let id = &settings.providers[member.provider.at()].settings.id;
        // All of them were put into the catalog.
        member.provider = catalog.by_id(id).unwrap_or(member.provider);
    }
    route
}

/// What a reload changes, and what it cannot.
fn compare(old: &Settings, new: &Settings) -> Reloaded {
    let mut changed: Vec<String> = Vec::new();
    let ids = |settings: &Settings| {
        let each =
            settings.providers.iter().map(|entry| (entry.settings.id.to_string(), entry.clone()));
        each.collect::<Vec<_>>()
    };
    differing("providers", &ids(old), &ids(new), &mut changed);
    differing("routes", &routes(old), &routes(new), &mut changed);
    let clients = |settings: &Settings| {
        let each = settings.clients.iter().map(|client| (client.name.to_string(), client.clone()));
        each.collect::<Vec<_>>()
    };
    differing("clients", &clients(old), &clients(new), &mut changed);
    if old.subscribers != new.subscribers {
        changed.push("clients".to_owned());
    }
    if old.dispatch != new.dispatch {
        changed.push("dispatch".to_owned());
    }
    let queue = |limits: &Limits| (limits.max_unsettled, limits.max_client_unsettled);
    if queue(&old.limits) != queue(&new.limits) {
        changed.push("limits".to_owned());
    }
    let tls = identities(old).into_iter().zip(identities(new));
    let tls: Vec<_> = tls.map(|((key, old), (_, new))| (key, old, new)).collect();
    let renewed = tls.iter().filter(|(_, old, new)| old.is_some() && new.is_some() && old != new);
    changed.extend(renewed.map(|(key, ..)| (*key).to_owned()));
    let came_or_went = tls.iter().filter(|(_, old, new)| old.is_some() != new.is_some());
    let restart: Vec<String> = [
        ("server.listen", old.server.listen != new.server.listen),
        ("admin.listen", old.admin.listen != new.admin.listen),
        ("admin.open_metrics", old.admin.open_metrics != new.admin.open_metrics),
        ("admin.events", old.operators != new.operators),
        ("stream", old.stream != new.stream),
        ("store", old.store != new.store),
        ("limits", of_listeners(&old.limits) != of_listeners(&new.limits)),
        ("log", old.log != new.log),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(key, _)| key)
    .chain(came_or_went.map(|(key, ..)| *key))
    .map(str::to_owned)
    .collect();
    let unchanged = changed.is_empty();
    Reloaded { changed, restart_needed: restart, unchanged }
}

/// The limits that the listeners were started with.
fn of_listeners(limits: &Limits) -> Limits {
    let free = Limits::default();
    let (max_unsettled, max_client_unsettled) = (free.max_unsettled, free.max_client_unsettled);
    Limits { max_unsettled, max_client_unsettled, ..*limits }
}

/// Routes by name, with the names of their providers: places differ between files.
fn routes(settings: &Settings) -> Vec<(String, Value)> {
    let id = |at: ProviderIndex| settings.providers[at.at()].settings.id.to_string();
    let shown = |route: &Route| {
        let tiers: Vec<Vec<(String, f64)>> = route
            .tiers
            .iter()
            .map(|tier| tier.iter().map(|member| (id(member.provider), member.weight)).collect())
            .collect();
        (route.name.to_string(), json!({"tiers": tiers, "balance": route.balance.word()}))
    };
    settings.routes.iter().map(shown).collect()
}

fn differing<T: PartialEq>(
    section: &str,
    old: &[(String, T)],
    new: &[(String, T)],
    changed: &mut Vec<String>,
) {
    let find = |all: &[(String, T)], name: &str| all.iter().position(|(known, _)| known == name);
    for (name, value) in new {
        if find(old, name).is_none_or(|at| old[at].1 != *value) {
            changed.push(format!("{section}.{name}"));
        }
    }
    for (name, _) in old {
        if find(new, name).is_none() {
            changed.push(format!("{section}.{name}"));
        }
    }
}
