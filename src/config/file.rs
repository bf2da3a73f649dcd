//! The file as written: every key of this release, by section. What a section
//! can say for itself is settled here (shape, range, keys that contradict each
//! other); what needs another section, a secret or a vendor is left to `check`.
//!
//! Keys that exist and are not built yet are refused as such, so that nobody
//! believes them to work.

mod provider;

use std::net::SocketAddr;
use std::time::Duration;

use pushyard_providers::Kind;
use pushyard_providers::stream::HubSettings;

use super::error::Spot;
use super::read::Table;
use super::units::show_duration;
use super::value::{At, Field, Origin, nearest, one_of};
use crate::clock::Utc;
use crate::dispatch;
use crate::routing::{Balance, Rate};
use crate::store;
use crate::stream::{self, Access};
use crate::telemetry::{Format, LogSettings};

pub(super) use self::provider::{Own, Provider, Written};
use self::provider::{provider, rate};

/// The words of [`Format`].
const FORMATS: [&str; 3] = ["auto", "json", "text"];

/// The words of `[log] level`.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Of anything that is counted in memory.
const MANY: u64 = 1_000_000_000;

/// hyper's buffer for a request's head is never smaller.
const LEAST_HEADER_BYTES: u64 = 8 << 10;

/// `http::HeaderMap` holds no more.
const MOST_HEADERS: u64 = 24_576;

/// serde_json stops there by itself.
const MOST_JSON_DEPTH: u64 = 127;

/// ntfy's Android app ends a stream after 77 s of silence.
const LONGEST_KEEPALIVE: Duration = Duration::from_secs(70);

/// The whole file.
pub(super) struct File {
    pub(super) api_listen: Field<SocketAddr>,
    pub(super) api_tls: Option<Tls>,
    pub(super) admin_listen: Field<SocketAddr>,
    pub(super) admin_tls: Option<Tls>,
    pub(super) open_metrics: bool,
    pub(super) watch: bool,
    pub(super) admin_events: Option<Events>,
    pub(super) stream: Stream,
    pub(super) store: store::Settings,
    pub(super) clients: Vec<Client>,
    pub(super) providers: Vec<Provider>,
    pub(super) routes: Vec<Route>,
    pub(super) dispatch: dispatch::Settings,
    pub(super) limits: dispatch::Limits,
    pub(super) log: LogSettings,
}

/// `tls` of a listener.
pub(super) struct Tls {
    pub(super) spot: Spot,
    pub(super) cert: Field<String>,
    pub(super) key: Field<String>,
}

/// `[stream]`.
pub(super) struct Stream {
    pub(super) spot: Spot,
    pub(super) listen: Field<SocketAddr>,
    pub(super) secret: Field<Origin>,
    pub(super) tls: Option<Tls>,
    /// Without `listen` and `secret`.
    pub(super) settings: stream::Settings,
}

/// One of `[[clients]]`.
pub(super) struct Client {
    pub(super) spot: Spot,
    pub(super) name: Field<String>,
    pub(super) key: Field<Origin>,
    pub(super) key_sha256: Field<String>,
    pub(super) keys: Vec<Key>,
    pub(super) rate: Option<Rate>,
    pub(super) routes: Field<Vec<At<String>>>,
    pub(super) admin: bool,
    pub(super) events: Option<Events>,
}

/// One of a client's `keys`.
pub(super) struct Key {
    pub(super) spot: Spot,
    pub(super) key: Field<Origin>,
    pub(super) key_sha256: Field<String>,
    pub(super) expires: Field<Utc>,
}

/// Where events are posted: `events` of a client, or of `[admin]`.
pub(super) struct Events {
    pub(super) spot: Spot,
    pub(super) url: Field<String>,
    pub(super) secret: Field<Origin>,
    pub(super) types: Field<Vec<At<String>>>,
    pub(super) insecure_http: bool,
}

/// One of `[[routes]]`.
pub(super) struct Route {
    pub(super) spot: Spot,
    pub(super) name: Field<String>,
    pub(super) tiers: Field<Vec<At<Vec<At<String>>>>>,
    pub(super) balance: Balance,
    pub(super) weights: Field<Vec<(String, At<f64>)>>,
}

/// Reads every section.
pub(super) fn read(mut root: Table<'_>, kinds: &[&'static Kind]) -> File {
    root.later(&["egress"]);
    let mut server = root.table("server");
    let api_listen = server.address("listen");
    let api_tls = tls(&mut server);
    let watch = server.flag("watch").or(false);
    server.finish();
    let mut admin = root.table("admin");
    let admin_listen = admin.address("listen");
    let admin_tls = tls(&mut admin);
    let open_metrics = admin.flag("open_metrics").or(true);
    let admin_events = events(&mut admin);
    admin.finish();
    let limits = limits(root.table("limits"));
    let store = store(root.table("store"), limits.max_idempotency_keys);
    let file = File {
        api_listen,
        api_tls,
        watch,
        admin_listen,
        admin_tls,
        open_metrics,
        admin_events,
        stream: stream(root.table("stream")),
        store,
        clients: root.tables("clients").into_iter().map(client).collect(),
        providers: root.tables("providers").into_iter().map(|t| provider(t, kinds)).collect(),
        routes: root.tables("routes").into_iter().map(route).collect(),
        dispatch: dispatch(root.table("dispatch")),
        limits,
        log: log(root.table("log")),
    };
    root.finish();
    file
}

fn tls(of: &mut Table<'_>) -> Option<Tls> {
    let mut table = of.table("tls");
    let tls = Tls { spot: table.spot.clone(), cert: table.text("cert"), key: table.text("key") };
    let is_there = table.is_there();
    table.finish();
    is_there.then_some(tls)
}

fn stream(mut table: Table<'_>) -> Stream {
    let default = stream::Settings::default();
    let spot = table.spot.clone();
    let (listen, secret) = (table.address("listen"), table.secret("secret"));
    let tls = tls(&mut table);
    let word = table.word("access", &Access::WORDS, &[]).at().map(|at| at.value);
    let places = |table: &mut Table<'_>, key| table.whole(key, 1..=1_000_000);
    let max_subscribers = places(&mut table, "max_subscribers").or(default.hub.max_subscribers);
    let max_subscribers_per_address =
        places(&mut table, "max_subscribers_per_address").at().map(|at| at.value);
    let hub = HubSettings {
        backlog: table.whole("backlog", 1..=100_000).or(default.hub.backlog),
        backlog_ttl: table.duration("backlog_ttl").or(default.hub.backlog_ttl),
        max_subscribers,
        max_subscribers_per_address: max_subscribers,
        max_subscribers_per_topic: places(&mut table, "max_subscribers_per_topic")
            .or(max_subscribers),
        max_topics: places(&mut table, "max_topics").or(default.hub.max_topics),
        max_topics_per_address: places(&mut table, "max_topics_per_address")
            .or(default.hub.max_topics_per_address),
    };
    let keepalive = table.duration("keepalive").or(default.keepalive);
    if keepalive < Duration::from_secs(1) || keepalive > LONGEST_KEEPALIVE {
        table.fault_at("keepalive", "must be from 1s to 70s: clients give up after 77s of silence");
    }
    let unifiedpush = table.flag("unifiedpush").at().map(|at| at.value);
    let scheduled = table.flag("scheduled").or(default.scheduled);
    let rate = rate(&mut table);
    table.finish();
    let access = [Access::Open, Access::Token].into_iter().find(|one| Some(one.word()) == word);
    let settings = stream::Settings {
        access,
        unifiedpush,
        scheduled,
        hub,
        max_subscribers_per_address,
        rate,
        keepalive,
        ..default
    };
    Stream { spot, listen, secret, tls, settings }
}

fn store(mut table: Table<'_>, max_idempotency_keys: u64) -> store::Settings {
    let default = store::Settings::default();
    // The word says nothing yet; that it may be written keeps files valid.
    let _: Field<_> = table.word("engine", &["embedded"], &["jetstream"]);
    let settings = store::Settings {
        path: table.text("path").at().map_or(default.path, |path| path.value.into()),
        retention: table.duration("retention").or(default.retention),
        max_bytes: table.size("max_bytes", 64 << 20..=u64::MAX).or(default.max_bytes),
        commit_delay: table.duration_or_zero("commit_delay").or(default.commit_delay),
        min_free: table.size("min_free", 0..=u64::MAX).or(default.min_free),
        dead_letter_retention: table
            .duration("dead_letter_retention")
            .or(default.dead_letter_retention),
        max_dead_letters: table.whole("max_dead_letters", 0..=MANY).or(default.max_dead_letters),
        max_idempotency_keys,
    };
    if settings.commit_delay > Duration::from_secs(1) {
        table
            .fault_at("commit_delay", "must be at most 1s: every accepted message waits this long");
    }
    table.finish();
    settings
}

fn client(mut table: Table<'_>) -> Client {
    let client = Client {
        spot: table.spot.clone(),
        name: table.text("name"),
        key: table.secret("key"),
        key_sha256: table.text("key_sha256"),
        keys: table.tables("keys").into_iter().map(key).collect(),
        rate: rate(&mut table),
        routes: table.texts("routes"),
        admin: table.flag("admin").or(false),
        events: events(&mut table),
    };
    table.finish();
    client
}

fn key(mut table: Table<'_>) -> Key {
    let key = Key {
        spot: table.spot.clone(),
        key: table.secret("key"),
        key_sha256: table.text("key_sha256"),
        expires: table.moment("expires"),
    };
    table.finish();
    key
}

fn events(of: &mut Table<'_>) -> Option<Events> {
    let mut table = of.table("events");
    let events = Events {
        spot: table.spot.clone(),
        url: table.text("url"),
        secret: table.secret("secret"),
        types: table.texts("types"),
        insecure_http: table.flag("insecure_http").or(false),
    };
    let is_there = table.is_there();
    table.finish();
    is_there.then_some(events)
}

fn route(mut table: Table<'_>) -> Route {
    let spot = table.spot.clone();
    let name = table.text("name");
    let tiers = table.texts_of_texts("tiers", "[[\"apns\", \"fcm\"], [\"backup\"]]");
    let word = table.word("balance", &Balance::WORDS, &[]).or(Balance::default().word());
    let balance = Balance::of_word(word).unwrap_or_default();
    let weights = table.amounts("weights");
    table.finish();
    Route { spot, name, tiers, balance, weights }
}

fn dispatch(mut table: Table<'_>) -> dispatch::Settings {
    let default = dispatch::Settings::default();
    let settings = dispatch::Settings {
        backoff: table.duration("backoff").or(default.backoff),
        max_backoff: table.duration("max_backoff").or(default.max_backoff),
        max_attempts: table.whole("max_attempts", 1..=10_000).or(default.max_attempts),
        body_cache: table.size("body_cache", 1 << 20..=u64::MAX).or(default.body_cache),
        shutdown_timeout: table.duration("shutdown_timeout").or(default.shutdown_timeout),
    };
    if settings.backoff > settings.max_backoff {
        table.fault(format!(
            "must have backoff ≤ max_backoff; they are {} and {}",
            show_duration(settings.backoff),
            show_duration(settings.max_backoff)
        ));
    }
    table.finish();
    settings
}

fn limits(mut table: Table<'_>) -> dispatch::Limits {
    let default = dispatch::Limits::default();
    let max_unsettled = table.whole("max_unsettled", 1..=MANY).or(default.max_unsettled);
    let of_client = table.whole("max_client_unsettled", 1..=MANY);
    if of_client.get().is_some_and(|at| at.value > max_unsettled) {
        table.fault_at(
            "max_client_unsettled",
            format!("must not be above max_unsettled, which is {max_unsettled}"),
        );
    }
    let limits = dispatch::Limits {
        max_unsettled,
        max_client_unsettled: of_client.or((max_unsettled / 2).max(1)),
        max_requests: table.whole("max_requests", 1..=1_000_000).or(default.max_requests),
        max_body: table.size("max_body", 1 << 10..=1 << 30).or(default.max_body),
        max_header_bytes: table
            .size("max_header_bytes", LEAST_HEADER_BYTES..=1 << 20)
            .at()
            .and_then(|at| u32::try_from(at.value).ok())
            .unwrap_or(default.max_header_bytes),
        max_headers: table.whole("max_headers", 1..=MOST_HEADERS).or(default.max_headers),
        max_json_depth: table
            .whole("max_json_depth", 1..=MOST_JSON_DEPTH)
            .or(default.max_json_depth),
        idle_timeout: table.duration("idle_timeout").or(default.idle_timeout),
        body_timeout: table.duration("body_timeout").or(default.body_timeout),
        max_idempotency_keys: table
            .whole("max_idempotency_keys", 0..=MANY)
            .or(default.max_idempotency_keys),
    };
    table.finish();
    limits
}

fn log(mut table: Table<'_>) -> LogSettings {
    let default = LogSettings::default();
    let format = match table.word("format", &FORMATS, &[]).or("auto") {
        "json" => Format::Json,
        "text" => Format::Text,
        _ => Format::Auto,
    };
    let level = table.text("level").or(default.level);
    if let Err(detail) = check_level(&level) {
        table.fault_at("level", detail);
    }
    table.finish();
    LogSettings { level, format }
}

/// A level, or directives such as `pushyard=debug`. A lone word that is no level
/// would name a module, and silence all others: that is never meant.
fn check_level(level: &str) -> Result<(), String> {
    if !level.contains('=') && !level.contains(',') {
        if LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
            return Ok(());
        }
        return Err(match nearest(level, LEVELS.into_iter()) {
            near if near.is_empty() => format!("{level:?} is no level; it {}", one_of(&LEVELS)),
            near => format!("{level:?} is no level{near}"),
        });
    }
    tracing_subscriber::EnvFilter::try_new(level)
        .map(drop)
        .map_err(|_| format!("{level:?} is no log filter; write it as in \"info,pushyard=debug\""))
}
