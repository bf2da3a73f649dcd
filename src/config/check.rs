//! What one section cannot say for itself: names that must be unique or exist,
//! listeners that need a key, secrets that must be there. Everything that is
//! wrong is told at once; what is only odd becomes a warning.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use pushyard_providers::clock::Clock;

use super::error::{Faults, Spot};
use super::file;
use super::provider::provider;
use crate::api::{Client, KeyHash};

use super::source::Sources;
use super::value::{At, Field, nearest};
use super::{AdminSettings, ProviderEntry, ServerSettings, Settings};
use crate::routing::{Balance, Member, ProviderIndex, Route};
use crate::stream;

/// A client's key below this many characters can be guessed.
pub(super) const SHORTEST_KEY: usize = 16;

/// Names become labels, parts of URLs and of store keys.
const LONGEST_NAME: usize = 64;

/// More would not fit a [`ProviderIndex`].
const MOST_PROVIDERS: usize = u16::MAX as usize;

/// A credential that ends within this many days is worth a warning.
const SOON_DAYS: u64 = 30;

/// The route that there is when the file has none; also that of messages which name none.
const IMPLICIT_ROUTE: &str = "default";

const API_LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);
const ADMIN_LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 9090);

/// What the checks look at.
pub(super) struct Check<'a> {
    pub(super) faults: &'a Faults<'a>,
    pub(super) sources: &'a dyn Sources,
    /// The configuration file's folder.
    pub(super) folder: &'a Path,
    pub(super) clock: Arc<dyn Clock>,
    /// What is allowed and probably not meant.
    pub(super) warnings: RefCell<Vec<String>>,
}

impl Check<'_> {
    /// The resolved settings. They mean nothing unless no fault was added.
    pub(super) fn settings(&self, file: file::File) -> Settings {
        let ids: Vec<_> = file.providers.iter().map(|provider| provider.id.clone()).collect();
        self.unique(&ids, "provider");
        if let Some(first) = file.providers.first()
            && ids.len() > MOST_PROVIDERS
        {
            self.faults
                .add(&first.spot, format!("at most {MOST_PROVIDERS} providers are possible"));
        }
        let providers: Vec<_> =
            file.providers.into_iter().filter_map(|written| provider(self, written)).collect();
        let names: Vec<_> = file.routes.iter().map(|route| route.name.clone()).collect();
        let routes = self.routes(file.routes, &names, &ids);
        self.listeners(&file.api_listen, &file.admin_listen, &file.clients);
        self.ports([
            ("server", &file.api_listen, Some(API_LISTEN.into())),
            ("admin", &file.admin_listen, Some(ADMIN_LISTEN.into())),
            ("stream", &file.stream.listen, None),
        ]);
        let subscribers = self.subscribers(&file.clients);
        let operators = file.admin_events.as_ref().and_then(|events| self.operators(events));
        let clients = self.clients(file.clients, &known(&names));
        let server = ServerSettings {
            listen: file.api_listen.clone().or(API_LISTEN.into()),
            tls: self.tls(file.api_tls.as_ref()),
            watch: file.watch,
        };
        let admin = AdminSettings {
            listen: file.admin_listen.clone().or(ADMIN_LISTEN.into()),
            tls: self.tls(file.admin_tls.as_ref()),
            open_metrics: file.open_metrics,
        };
        let stream_tls = self.tls(file.stream.tls.as_ref());
        let stream = self.stream(file.stream, &providers);
        let mut store = file.store;
        store.path = self.folder.join(store.path);
        let mut settings = Settings {
            server,
            admin,
            store,
            clients,
            subscribers,
            operators,
            stream,
            stream_tls,
            providers,
            routes,
            dispatch: file.dispatch,
            limits: file.limits,
            log: file.log,
            warnings: Vec::new(),
        };
        self.warn_of_nothing(&settings);
        self.warn_of_keys(&settings.clients);
        self.warn_of_providers(&settings);
        self.warn_of_routes(&settings.routes);
        settings.warnings = self.warnings.take();
        settings
    }

    /// A stream provider needs the listener, and the listener somebody who publishes.
    fn stream(&self, file: file::Stream, providers: &[ProviderEntry]) -> stream::Settings {
        let mut published = providers.iter().filter(|entry| entry.kind.name == stream::KIND.name);
        match (published.next(), &file.listen) {
            (Some(entry), Field::Absent) => self.faults.add(
                &file.spot.missing("listen"),
                format!(
                    "is required: provider {:?} publishes to it; write listen = \"127.0.0.1:8082\"",
                    entry.settings.id
                ),
            ),
            (None, Field::Is(_)) => self.warn(
                "stream.listen is set and no provider has kind = \"stream\": nothing will be \
                 published there",
            ),
            (Some(_) | None, _) => {}
        }
        let secret = file.secret.at().and_then(|at| {
            let secret = self.secret(at.value, &at.spot)?;
            if secret.expose().len() < SHORTEST_KEY {
                self.warn("stream.secret is shorter than 16 characters and can be guessed");
            }
            Some(secret)
        });
        let listen = file.listen.at().map(|at| at.value);
        let settings = stream::Settings { listen, secret, ..file.settings };
        if settings.is_open() && listen.is_some_and(|at| !at.ip().is_loopback()) {
            self.warn(match settings.takes_unifiedpush() {
                true => {
                    "stream.access is \"open\": whoever knows a topic can read it, and write into \
                     it as a UnifiedPush sender; unifiedpush = false forbids the latter"
                }
                false => "stream.access is \"open\": whoever knows a topic can read it",
            });
        }
        settings
    }

    /// A listener that others can reach needs a key that they must have.
    fn listeners(
        &self,
        api: &Field<SocketAddr>,
        admin: &Field<SocketAddr>,
        clients: &[file::Client],
    ) {
        let open = |at: &&At<SocketAddr>| !at.value.ip().is_loopback();
        if let Some(at) = api.get().filter(open)
            && clients.is_empty()
        {
            self.faults.add(
                &at.spot,
                "can be reached from other machines and no client is configured; \
                 add [[clients]] with a key, or listen on 127.0.0.1",
            );
        }
        if let Some(at) = admin.get().filter(open)
            && !clients.iter().any(|client| client.admin)
        {
            self.faults.add(
                &at.spot,
                "can be reached from other machines and no client has admin = true; \
                 add one to [[clients]], or listen on 127.0.0.1",
            );
        }
    }

    /// Two listeners cannot have one port, unless each has an address of its own.
    fn ports(&self, listeners: [(&str, &Field<SocketAddr>, Option<SocketAddr>); 3]) {
        let at = |field: &Field<SocketAddr>, default| field.get().map(|at| at.value).or(default);
        for (n, (name, field, default)) in listeners.iter().enumerate() {
            for (other, known, known_default) in &listeners[..n] {
                let Some((one, two)) = at(field, *default).zip(at(known, *known_default)) else {
                    continue;
                };
                // What is written down is at fault, and not a default.
                let (spot, whose, theirs) = match (field.get(), known.get()) {
                    (Some(at), _) => (&at.spot, other, two),
                    (None, Some(at)) => (&at.spot, name, one),
                    (None, None) => continue,
                };
                if meet(one, two) {
                    self.faults.add(
                        spot,
                        format!("is where the {whose} listener is, {theirs}; use another port"),
                    );
                }
            }
        }
    }

    fn routes(
        &self,
        written: Vec<file::Route>,
        names: &[Field<String>],
        ids: &[Field<String>],
    ) -> Vec<Route> {
        if written.is_empty() {
            return vec![implicit_route(ids.len())];
        }
        self.unique(names, "route");
        written.into_iter().filter_map(|route| self.route(route, ids)).collect()
    }

    fn route(&self, written: file::Route, ids: &[Field<String>]) -> Option<Route> {
        let name = self.required(&written.name, &written.spot, "name");
        if let Some(name) = name {
            self.fault_if(&name.spot, check_name(&name.value));
        }
        let name = name.map(|at| at.value.as_str().into());
        let tiers = self.required(&written.tiers, &written.spot, "tiers")?;
        let members: Vec<_> = tiers.value.iter().flat_map(|tier| &tier.value).collect();
        if tiers.value.is_empty() {
            self.faults.add(&tiers.spot, "names no provider; write tiers = [[\"apns\", \"fcm\"]]");
        }
        for tier in tiers.value.iter().filter(|tier| tier.value.is_empty()) {
            self.faults.add(&tier.spot, "is empty; name a provider or remove the tier");
        }
        self.members(&members, ids);
        let weights = written.weights.at().map_or_else(Vec::new, |at| at.value);
        self.weights(&weights, &members);
        let weight = |id: &str| {
            weights.iter().find(|(of, _)| of == id).map_or(1.0, |(_, weight)| weight.value)
        };
        let mut resolved = Vec::new();
        for tier in &tiers.value {
            let members = tier.value.iter().filter_map(|at| {
                let provider = position(ids, &at.value)?;
                Some(Member { provider, weight: weight(&at.value) })
            });
            let members: Vec<_> = members.collect();
            if !members.is_empty() && members.iter().all(|member| member.weight == 0.0) {
                let detail = "has only members of weight 0; give one of them a weight above 0";
                self.faults.add(&tier.spot, detail);
            }
            resolved.push(members);
        }
        Some(Route { name: name?, tiers: resolved, balance: written.balance })
    }

    /// Every member is a provider, and stands once.
    fn members(&self, members: &[&At<String>], ids: &[Field<String>]) {
        let known = || ids.iter().filter_map(Field::get).map(|id| id.value.as_str());
        for (at, member) in members.iter().enumerate() {
            if !known().any(|id| id == member.value) {
                let near = nearest(&member.value, known());
                let detail = format!("no provider has the id {:?}{near}", member.value);
                self.faults.add(&member.spot, detail);
            } else if members[..at].iter().any(|before| before.value == member.value) {
                let detail =
                    format!("{:?} stands in this route already; name it once", member.value);
                self.faults.add(&member.spot, detail);
            }
        }
    }

    fn weights(&self, weights: &[(String, At<f64>)], members: &[&At<String>]) {
        for (id, weight) in weights {
            if !members.iter().any(|member| member.value == *id) {
                let near = nearest(id, members.iter().map(|member| member.value.as_str()));
                self.faults.add(&weight.spot, format!("{id:?} is in no tier of this route{near}"));
            }
        }
    }

    fn clients(&self, written: Vec<file::Client>, routes: &[&str]) -> Vec<Client> {
        let names: Vec<_> = written.iter().map(|client| client.name.clone()).collect();
        self.unique(&names, "client");
        let mut taken: Vec<(KeyHash, String)> = Vec::new();
        written.into_iter().filter_map(|client| self.client(client, routes, &mut taken)).collect()
    }

    fn client(
        &self,
        written: file::Client,
        routes: &[&str],
        taken: &mut Vec<(KeyHash, String)>,
    ) -> Option<Client> {
        let name = self.required(&written.name, &written.spot, "name");
        if let Some(name) = name {
            self.fault_if(&name.spot, check_name(&name.value));
        }
        let keys = self.keys(&written, taken);
        let bound = written.routes.at().map(|at| self.bound(at, routes));
        Some(Client {
            name: name?.value.as_str().into(),
            keys,
            rate: written.rate,
            routes: bound,
            admin: written.admin,
        })
    }

    /// The routes that a client may name.
    fn bound(&self, at: At<Vec<At<String>>>, routes: &[&str]) -> Vec<Arc<str>> {
        if at.value.is_empty() {
            let detail = "names no route, so that this client could send nothing; \
                          name one, or remove the key to allow all";
            self.faults.add(&at.spot, detail);
        }
        let mut bound = Vec::new();
        for At { value, spot } in at.value {
            if routes.contains(&value.as_str()) {
                bound.push(value.into());
            } else {
                let near = nearest(&value, routes.iter().copied());
                self.faults.add(&spot, format!("no route has the name {value:?}{near}"));
            }
        }
        bound
    }

    fn warn_of_nothing(&self, settings: &Settings) {
        if settings.providers.is_empty() {
            self.warn(
                "no provider is configured: every message will be refused; add [[providers]]",
            );
        }
        if settings.clients.is_empty() {
            self.warn(
                "no client is configured: whoever can reach the loopback address may send; \
                 add [[clients]] with a key",
            );
        }
    }

    fn warn_of_providers(&self, settings: &Settings) {
        let now = self.clock.unix_s();
        for (at, entry) in settings.providers.iter().enumerate() {
            let id = &entry.settings.id;
            let mut members = settings.routes.iter().flat_map(|route| route.tiers.iter().flatten());
            if !members.any(|member| member.provider.at() == at) {
                self.warn(format!("providers.{id}: is in no route and will get nothing"));
            }
            let Some(end) = entry.credential().expires_at else { continue };
            let days = end.saturating_sub(now) / 86_400;
            if end <= now {
                self.warn(format!("providers.{id}: its credential has expired; renew it"));
            } else if days < SOON_DAYS {
                self.warn(format!("providers.{id}: its credential ends in {days} days; renew it"));
            }
        }
    }

    fn warn_of_routes(&self, routes: &[Route]) {
        if routes.len() > 1 && !routes.iter().any(|route| &*route.name == IMPLICIT_ROUTE) {
            self.warn(
                "no route is called \"default\": a message that names no route will be refused",
            );
        }
        for route in routes {
            let weighs = route.tiers.iter().flatten().any(|member| member.weight != 1.0);
            let unused = match route.balance {
                Balance::RoundRobin | Balance::Broadcast => weighs,
                Balance::Weighted | Balance::LeastLatency | Balance::Cheapest => false,
            };
            if unused {
                let (name, balance) = (&route.name, route.balance.word());
                self.warn(format!(
                    "routes.{name}: weights do nothing with balance = \"{balance}\""
                ));
            }
        }
    }

    pub(super) fn warn(&self, text: impl Into<String>) {
        self.warnings.borrow_mut().push(text.into());
    }

    /// No two of these names are alike.
    fn unique(&self, names: &[Field<String>], what: &str) {
        let names: Vec<_> = names.iter().filter_map(Field::get).collect();
        for (at, name) in names.iter().enumerate() {
            if let Some(first) = names[..at].iter().find(|before| before.value == name.value) {
                let table = first.spot.key.split('.').next().unwrap_or_default();
                self.faults.add(
                    &name.spot,
                    format!("{:?} is taken by {table}; each {what} needs its own", name.value),
                );
            }
        }
    }

    /// The value; its absence is a fault.
    pub(super) fn required<'f, T>(
        &self,
        field: &'f Field<T>,
        table: &Spot,
        key: &str,
    ) -> Option<&'f At<T>> {
        if field.is_absent() {
            self.faults.add(&table.missing(key), "is required");
        }
        field.get()
    }

    /// A fault here, if there is one.
    pub(super) fn fault_if(&self, spot: &Spot, checked: Result<(), String>) {
        if let Err(detail) = checked {
            self.faults.add(spot, detail);
        }
    }
}

/// Names become labels, parts of URLs and of store keys.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let begins_well = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    if begins_well && name.len() <= LONGEST_NAME && name.bytes().all(inner) {
        return Ok(());
    }
    Err(format!(
        "must be 1 to {LONGEST_NAME} letters, digits or any of . _ -, and begin with a letter or digit"
    ))
}

/// The names of the routes that there will be.
fn known(names: &[Field<String>]) -> Vec<&str> {
    if names.is_empty() {
        return vec![IMPLICIT_ROUTE];
    }
    names.iter().filter_map(Field::get).map(|name| name.value.as_str()).collect()
}

/// Without any `[[routes]]`: all providers, as equals.
fn implicit_route(providers: usize) -> Route {
    let index = |at: usize| u16::try_from(at).ok().map(ProviderIndex);
    let members: Vec<_> =
        (0..providers).filter_map(index).map(|provider| Member { provider, weight: 1.0 }).collect();
    let tiers = if members.is_empty() { Vec::new() } else { vec![members] };
    Route { name: IMPLICIT_ROUTE.into(), tiers, balance: Balance::default() }
}

fn position(ids: &[Field<String>], id: &str) -> Option<ProviderIndex> {
    let at = ids.iter().position(|known| known.get().is_some_and(|at| at.value == id))?;
    u16::try_from(at).ok().map(ProviderIndex)
}

/// Whether one of two listeners would be in the other's way: all addresses are those of
/// the other one, too, and those of IPv6 also those of IPv4.
fn meet(one: SocketAddr, other: SocketAddr) -> bool {
    let all = |at: SocketAddr| at.ip().is_unspecified();
    let same_family = one.is_ipv4() == other.is_ipv4();
    let covers = |wide: SocketAddr| all(wide) && (same_family || wide.is_ipv6());
    let same = one.ip() == other.ip();
    one.port() == other.port() && one.port() != 0 && (same || covers(one) || covers(other))
}
