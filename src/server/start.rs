//! From a configuration file to a running router.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pushyard_providers::stream::{Hub, Tokens};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::reload::{Present, Reloader};
use super::tls::{Certificate, Certificates};
use super::{Server, Stops, listener};
use crate::admin::{self, AdminState};
use crate::api::{self, ApiState, Authenticator};
use crate::clock::{Clock, Now};
use crate::config::{self, ProviderEntry, Settings, SystemSources};
use crate::dispatch::{Dispatcher, Driver, Engine, Event, FlushMark, Parts};
use crate::feedback::{self, OperatorTarget, OutboxParts, Receipts, Subscriber};
use crate::intake;
use crate::routing::{Built, Catalog, ProviderIndex, Remembered};
use crate::stack::{Meter, ProviderStack, stack};
use crate::store::{self, Start, Store, embedded};
use crate::stream::{self, Schedule, StreamState};
use crate::telemetry::{self, Telemetry};

/// Commands to the dispatcher that may wait: each is a request that a listener
/// has admitted, and those are bounded by `max_requests`.
const INBOX: usize = 4096;

/// After an unclean end every attempt is written down before it is made, for
/// this long (docs/semantics.md, "Poison").
const CAREFUL: Duration = Duration::from_secs(60);

/// After so many of them within this time, what may have caused them goes alone.
const SAFE_AFTER: usize = 3;
const LATELY: Duration = Duration::from_secs(600);

/// Why a router did not start.
#[derive(Debug)]
pub enum StartError {
    /// The configuration is wrong.
    Config(config::Errors),
    /// A listener cannot be bound.
    Listen {
        /// The section of the file: `server`, `admin` or `stream`.
        name: &'static str,
        /// Where.
        address: SocketAddr,
        /// The system's words.
        error: std::io::Error,
    },
    /// The system's trust roots cannot be read.
    TrustRoots(String),
    /// The store cannot be opened.
    Store(embedded::OpenError),
    /// The stream's backlog cannot be opened.
    Backlog(String),
    /// What is stored cannot be read.
    Recover(store::StoreError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(errors) => errors.fmt(f),
            Self::Listen { name, address, error } => write!(
                f,
                "{name}.listen: cannot listen on {address}: {error}; \
                 stop what uses that address, or set another one in [{name}]"
            ),
            Self::TrustRoots(detail) => write!(f, "events cannot be posted: {detail}"),
            Self::Store(error) => error.fmt(f),
            Self::Backlog(detail) => write!(
                f,
                "the stream's backlog cannot be opened: {detail}; look at the file, or remove it: \
                 devices that are away then miss what it holds"
            ),
            Self::Recover(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

pub(super) async fn start(path: &Path) -> Result<Server, StartError> {
    let clock = Arc::new(Clock::default());
    let settings = config::load(path, &SystemSources, clock.clone()).map_err(StartError::Config)?;
    telemetry::set_up(&settings.log);
    for warning in &settings.warnings {
        warn!("{warning}");
    }
    let api = listen("server", settings.server.listen).await?;
    let admin = listen("admin", settings.admin.listen).await?;
    let flushed = Arc::new(FlushMark::default());
    let (store, found) = open(&settings, &clock, &flushed).await?;
    clock.not_before(found.last_seen);
    let stream = open_stream(&settings, &clock, &*store).await?;
    let hub = stream.as_ref().map(|stream| stream.hub.clone());
    let tokens = stream.as_ref().map(|stream| stream.tokens.clone());
    let catalog = Arc::new(catalog(&settings, &found, hub.as_ref()));
    let telemetry = Arc::new(Telemetry::new(clock.clone()));
    let engine = Engine::new(
        catalog.clone(),
        settings.dispatch,
        settings.limits,
        clock.now(),
        rand::random(),
    );
    let (engine, effects) =
        recover(engine, store.clone(), hub.clone(), &found, &settings, clock.now()).await?;
    let stops = Stops::default();
    let providers = Arc::new(ArcSwap::new(catalog.clone()));
    let (commands, inbox) = mpsc::channel(INBOX);
    let receipts = Arc::new(Receipts::new(&store.server_key()));
    let parts = Parts {
        stacks: stacks(&catalog, &telemetry, &clock),
        engine,
        commands: inbox,
        catalog: providers.clone(),
        store: store.clone(),
        flushed: flushed.clone(),
        receipts: receipts.clone(),
        clock: clock.clone(),
        telemetry: telemetry.clone(),
        snapshot: Arc::default(),
        drain: stops.drain.clone(),
        shutdown_timeout: settings.dispatch.shutdown_timeout,
        cut: stops.cut.clone(),
    };
    let snapshot = parts.snapshot.clone();
    let mut driver = JoinSet::new();
    driver.spawn(Driver::new(parts, effects).run());

    let authenticator = Arc::new(Authenticator::new(settings.clients.clone(), &clock));
    let dispatcher = Dispatcher::new(commands);
    let (subscribers, subscribed) = watch::channel(settings.subscribers.clone());
    let shown = Arc::new(ArcSwap::from_pointee(settings.masked()));
    let certificates = Certificates::new(&settings);
    let watched = certificates.any();
    let acceptor = |of: &Option<Arc<Certificate>>| of.as_ref().map(Certificate::acceptor);
    let (api_tls, admin_tls) = (acceptor(&certificates.server), acceptor(&certificates.admin));
    let stream_tls = acceptor(&certificates.stream);
    let reloader = Arc::new(Reloader {
        path: path.to_owned(),
        clock: clock.clone(),
        dispatcher: dispatcher.clone(),
        catalog: providers.clone(),
        authenticator: authenticator.clone(),
        shown: shown.clone(),
        subscribers,
        certificates,
        hub: hub.clone(),
        telemetry: telemetry.clone(),
        present: Mutex::new(Present { settings: settings.clone(), leaving: JoinSet::new() }),
    });
    let api_state = ApiState {
        catalog: providers.clone(),
        dispatcher: dispatcher.clone(),
        store: store.clone(),
        receipts: receipts.clone(),
        stream_tokens: tokens.clone(),
        stream_hub: hub.clone().filter(|_| settings.stream.scheduled),
        clock: clock.clone(),
        authenticator: authenticator.clone(),
        limits: settings.limits,
        closed: stops.intake.clone(),
        telemetry: telemetry.clone(),
    };
    let stop = &stops.listeners;
    let mut listeners = JoinSet::new();
    let outbox = OutboxParts {
        store: store.clone(),
        http: feedback::http_client().map_err(StartError::TrustRoots)?,
        telemetry: telemetry.clone(),
        clock: clock.clone(),
        arrived: flushed.events(),
    };
    tell(&mut listeners, outbox, subscribed, settings.operators.clone(), stop);
    let stream_at = stream.as_ref().map(|stream| local(&stream.listener));
    if let Some(Stream { listener: devices, hub, tokens }) = stream {
        let state = StreamState {
            hub,
            schedule: settings.stream.scheduled.then(|| Schedule {
                store: store.clone(),
                catalog: providers.clone(),
                receipts: receipts.clone(),
            }),
            readers: Arc::new(Semaphore::new(stream::READERS)),
            tokens: Some(tokens).filter(|_| !settings.stream.is_open()),
            unifiedpush: settings.stream.takes_unifiedpush(),
            max_topics_per_address: settings.stream.hub.max_topics_per_address,
            rate: settings.stream.rate(),
            keepalive: settings.stream.keepalive,
            clock: clock.clone(),
            receipts,
            dispatcher: dispatcher.clone(),
            limits: settings.limits,
            telemetry: telemetry.clone(),
            closed: stop.clone(),
        };
        let router = stream::router(state);
        listeners.spawn(listener::serve_devices(
            devices,
            router,
            settings.limits,
            stream_tls,
            stop.clone(),
        ));
    }
    let admin_state = AdminState {
        hub: hub.clone(),
        catalog: providers.clone(),
        snapshot,
        store: store.clone(),
        telemetry,
        authenticator,
        open_metrics: settings.admin.open_metrics,
        config: shown,
        reload: {
            let reloader = reloader.clone();
            Arc::new(move || {
                let reloader = reloader.clone();
                Box::pin(async move { reloader.reload().await.map_err(|errors| told(&errors)) })
            })
        },
        drain: stops.unready.clone(),
        dispatcher,
        closed: stops.listeners.clone(),
        limits: settings.limits,
        clock,
    };
    if settings.server.watch {
        let (reloader, stop) = (reloader.clone(), stop.clone());
        listeners.spawn(async move { reloader.watch(stop).await });
    }
    if watched {
        let (reloader, stop) = (reloader.clone(), stop.clone());
        listeners.spawn(async move { reloader.watch_certificates(stop).await });
    }
    let (api_at, admin_at) = (local(&api), local(&admin));
    let limits = settings.limits;
    let (router, explain) = api::routers(api_state);
    listeners.spawn(listener::serve(api, router, limits, api_tls, stop.clone()));
    let router = admin::router(admin_state, explain);
    listeners.spawn(listener::serve(admin, router, limits, admin_tls, stop.clone()));
    let stream = stream_at.map(tracing::field::display);
    info!(api = %api_at, admin = %admin_at, stream, "ready");
    Ok(Server {
        api: api_at,
        admin: admin_at,
        stream: stream_at,
        hub,
        stops,
        driver,
        listeners,
        catalog: providers,
        reloader,
        flushed,
        store,
    })
}

/// The faults of a configuration as the API tells them.
fn told(errors: &config::Errors) -> Vec<serde_json::Value> {
    // Strings and numbers always serialise.
    errors.errors.iter().filter_map(|error| serde_json::to_value(error).ok()).collect()
}

async fn listen(name: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Listen { name, address, error })
}

fn local(listener: &TcpListener) -> SocketAddr {
    // A bound socket has an address; the wildcard stands for "cannot say".
    listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
}

async fn open(
    settings: &Settings,
    clock: &Arc<Clock>,
    flushed: &Arc<FlushMark>,
) -> Result<(Arc<dyn Store>, Start), StartError> {
    let (settings, clock, flushed) = (settings.store.clone(), clock.clone(), flushed.clone());
    let opening = tokio::task::spawn_blocking(move || {
        let now = clock.clone();
        let told = Box::new(move |upto| flushed.told(upto));
        embedded::open(&settings, Arc::new(move || now.now()), told)
    });
    let (store, found) = opening
        .await
        .expect("opening a store returns its faults as errors")
        .map_err(StartError::Store)?;
    if found.set_aside > 0 {
        warn!(records = found.set_aside, "records that cannot be decoded were set aside");
    }
    Ok((store, found))
}

/// What the devices' listener works with.
struct Stream {
    listener: TcpListener,
    hub: Arc<Hub>,
    tokens: Arc<Tokens>,
}

/// Opens the devices' listener and what it tells, where one is configured.
async fn open_stream(
    settings: &Settings,
    clock: &Arc<Clock>,
    store: &dyn Store,
) -> Result<Option<Stream>, StartError> {
    let Some(address) = settings.stream.listen else { return Ok(None) };
    let listener = listen("stream", address).await?;
    let hub = open_hub(settings, clock).await?;
    Ok(Some(Stream { listener, hub, tokens: Arc::new(tokens(settings, store)) }))
}

/// Tells clients and operators what happens.
fn tell(
    tasks: &mut JoinSet<()>,
    outbox: OutboxParts,
    subscribed: watch::Receiver<Vec<Subscriber>>,
    operators: Option<OperatorTarget>,
    stop: &CancellationToken,
) {
    if let Some(operators) = operators {
        let OutboxParts { http, telemetry, clock, .. } = outbox.clone();
        tasks.spawn(feedback::tell_operators(operators, http, telemetry, clock, stop.clone()));
    }
    tasks.spawn(feedback::tell_clients(outbox, subscribed, stop.clone()));
}

/// The hub with its backlog, in the store's directory.
async fn open_hub(settings: &Settings, clock: &Arc<Clock>) -> Result<Arc<Hub>, StartError> {
    let (path, hub, clock) = (settings.store.path.clone(), settings.stream.bounds(), clock.clone());
    let opening = tokio::task::spawn_blocking(move || Hub::open(&path, hub, clock));
    opening
        .await
        .expect("opening the backlog returns its faults as errors")
        .map_err(StartError::Backlog)
}

/// What opens topics: made with the configured secret, or with one that only this
/// store has.
fn tokens(settings: &Settings, store: &dyn Store) -> Tokens {
    match &settings.stream.secret {
        Some(secret) => Tokens::new(secret.expose().as_bytes()),
        None => Tokens::new(&store.server_key()),
    }
}

/// Builds the providers, each with what it wanted to be remembered.
fn catalog(settings: &Settings, found: &Start, hub: Option<&Arc<Hub>>) -> Catalog {
    let memo = |id: &str| {
        let name = format!("memo/{id}");
        let (_, value) = found.notes.iter().find(|(known, _)| *known == name)?;
        String::from_utf8(value.clone()).ok()
    };
    let build = |(serial, entry): (usize, &ProviderEntry)| Built {
        settings: entry.settings.clone(),
        provider: entry.build(memo(&entry.settings.id), hub),
        serial: serial as u64,
        retired: false,
    };
    Catalog {
        providers: settings.providers.iter().enumerate().map(build).collect(),
        routes: settings.routes.clone(),
    }
}

pub(super) fn stacks(
    catalog: &Catalog,
    telemetry: &Arc<Telemetry>,
    clock: &Arc<Clock>,
) -> Vec<ProviderStack> {
    let stack_of = |(at, built): (usize, &Built)| {
        let attempts = telemetry.attempts_of(&built.settings.id);
        let meter = Meter {
            clock: clock.clone(),
            record: Arc::new(move |outcome, took| attempts.record(outcome, took)),
        };
        stack(ProviderIndex(at as u16), &built.provider, built.settings.timeout, &meter)
    };
    catalog.providers.iter().enumerate().map(stack_of).collect()
}

/// Feeds the engine with what is stored.
async fn recover(
    mut engine: Engine,
    store: Arc<dyn Store>,
    hub: Option<Arc<Hub>>,
    found: &Start,
    settings: &Settings,
    now: Now,
) -> Result<(Engine, Vec<crate::dispatch::Effect>), StartError> {
    let mut effects = Vec::new();
    let subscribed = settings.subscribers.iter().map(|one| (one.client.clone(), one.kinds));
    engine.on(Event::Subscribed(subscribed.collect()), now, &mut effects);
    for (name, value) in &found.notes {
        if name.starts_with("key/")
            && let Ok(remembered) = serde_json::from_slice::<Remembered>(value)
        {
            engine.on(Event::Restored(remembered), now, &mut effects);
        }
    }
    for (name, value) in &found.notes {
        if ["operator/", "pause/", "override/"].iter().any(|kind| name.starts_with(kind)) {
            engine.on(Event::Ordered(name.clone(), value.clone()), now, &mut effects);
        }
    }
    for (name, value) in &found.notes {
        if let Some(id) = name.strip_prefix("budget/")
            && let Ok(spent) = serde_json::from_slice(value)
        {
            engine.on(Event::Spent(id.into(), spent), now, &mut effects);
        }
    }
    let reading = tokio::task::spawn_blocking({
        let store = store.clone();
        move || {
            let mut gone = Vec::new();
            let read = store.gone((crate::clock::Utc::default(), 0), &mut |found| {
                gone.push(Event::Gone(Arc::new(found)));
                true
            });
            read.map(|()| gone)
        }
    });
    let gone = reading.await.expect("reading returns its faults as errors");
    for event in gone.map_err(StartError::Recover)? {
        engine.on(event, now, &mut effects);
    }
    if !found.clean {
        let lately = found.unclean_ends.iter().filter(|end| now.utc.since(**end) <= LATELY);
        let safe = lately.count() >= SAFE_AFTER;
        warn!("the process before did not end in order; writing down every attempt for a minute");
        if safe {
            warn!(
                "it was not the first in {LATELY:?}: deliveries that were in flight each time go \
                 one at a time"
            );
        }
        engine.on(Event::Careful { time: CAREFUL, safe }, now, &mut effects);
    }
    let hub = hub.filter(|_| settings.stream.scheduled);
    let reading = tokio::task::spawn_blocking(move || {
        let mut messages = 0_u64;
        let read = store.recover(&mut |found| {
            messages += 1;
            if let Some(hub) = &hub {
                intake::coming::expect(hub, &found.message);
            }
            engine.on(Event::Recovered(Box::new(found)), now, &mut effects);
        });
        read.map(|()| (engine, effects, messages))
    });
    let (engine, effects, messages) = reading
        .await
        .expect("recovery returns its faults as errors")
        .map_err(StartError::Recover)?;
    if messages > 0 {
        info!(messages, "unsettled messages were found in the store");
    }
    Ok((engine, effects))
}
