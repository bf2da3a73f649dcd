//! What a good file means.

use std::path::PathBuf;
use std::time::Duration;

use super::super::Settings;
use super::{APNS, FCM, KEY, load};
use crate::api::KeyHash;
use crate::routing::{Balance, Budget, Period, Rate};

fn good(text: &str) -> Settings {
    load(text).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn without_routes_all_providers_are_one_tier_of_the_default_route() {
    let settings = good(&format!("{APNS}{FCM}"));
    let [route] = &settings.routes[..] else { panic!("one route") };
    assert_eq!((&*route.name, route.balance), ("default", Balance::LeastLatency));
    let tiers: Vec<Vec<_>> = route
        .tiers
        .iter()
        .map(|tier| tier.iter().map(|member| (member.provider.0, member.weight)).collect())
        .collect();
    assert_eq!(tiers, [[(0, 1.0), (1, 1.0)]]);
}

#[test]
fn paths_are_relative_to_the_configuration_file() {
    let settings = good("");
    assert_eq!(settings.store.path, PathBuf::from("conf/data"));
    let settings = good("[store]\npath = \"/var/lib/pushyard\"");
    assert_eq!(settings.store.path, PathBuf::from("/var/lib/pushyard"));
}

#[test]
fn one_client_may_hold_half_of_the_queue_unless_said_otherwise() {
    assert_eq!(good("limits.max_unsettled = 10").limits.max_client_unsettled, 5);
    assert_eq!(good("limits.max_unsettled = 1").limits.max_client_unsettled, 1);
    let text = "limits = { max_unsettled = 10, max_client_unsettled = 10 }";
    assert_eq!(good(text).limits.max_client_unsettled, 10);
}

#[test]
fn the_store_forgets_idempotency_keys_at_the_limit_of_the_limits() {
    let settings = good("limits.max_idempotency_keys = 7");
    assert_eq!((settings.limits.max_idempotency_keys, settings.store.max_idempotency_keys), (7, 7));
}

#[test]
fn clients_keys_are_held_as_hashes_and_either_opens() {
    let other = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let text = format!(
        "[[clients]]\nname = \"shop\"\nkey = {{ env = \"PUSHYARD_SHOP_KEY\" }}\n\
         key_sha256 = \"{other}\"\nrate = {{ per_second = 500 }}\nroutes = [\"default\"]"
    );
    let settings = good(&text);
    let client = &settings.clients[0];
    // The digest of "test".
    assert_eq!(client.keys, [KeyHash::of(KEY.as_bytes()).into(), KeyHash::of(b"test").into()]);
    assert_eq!(client.rate, Some(Rate { per_second: 500.0, burst: 500.0 }));
    assert_eq!(client.routes.as_deref(), Some(&["default".into()][..]));
    assert!(!client.admin);
}

#[test]
fn a_client_may_have_several_keys_and_those_that_end_are_told_of() {
    // It is 2027-01-15, 08:00.
    let text = "[[clients]]
name = \"shop\"
keys = [
    { key = { env = \"PUSHYARD_SHOP_KEY\" }, expires = \"2027-01-15T08:00:00Z\" },
    { key = \"key-for-a-fortnight\", expires = 2027-01-29T07:59:59Z },
    { key = \"key-for-a-fortnight-and-more\", expires = 2027-01-29T08:00:00Z },
    { key_sha256 = \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" },
]";
    let settings = good(text);
    let keys = &settings.clients[0].keys;
    assert_eq!(keys[0].hash, KeyHash::of(KEY.as_bytes()));
    assert_eq!(keys[0].expires.map(crate::clock::Utc::ms), Some(1_800_000_000_000));
    assert_eq!(keys[3], KeyHash::of(b"test").into());
    let told: Vec<_> = settings.warnings.iter().filter(|text| text.contains("a key")).collect();
    insta::assert_debug_snapshot!(told, @r##"
    [
        "clients.shop: a key of it expired at 2027-01-15T08:00:00.000Z and opens nothing; remove it",
        "clients.shop: a key of it expires in 13 days, at 2027-01-29T07:59:59.000Z; add the next one to keys",
    ]
    "##);
}

#[test]
fn a_providers_common_keys_reach_the_core_and_the_vendors_module() {
    let text = format!(
        "{APNS}
endpoint = \"https://localhost:2197\"
ca_file = \"ca.pem\"
region = \"eu\"
budget = {{ per_month = 200, hard = true }}
cost_per_million = 1.5
timeout = \"2s\"
connections = 4
max_in_flight = 10
probe = false
health = {{ window = \"1m\", slow_start = \"0s\" }}
retry = {{ min_delay = \"15m\" }}"
    );
    let settings = good(&text);
    let entry = &settings.providers[0];
    let core = &entry.settings;
    assert_eq!(core.region.as_deref(), Some("eu"));
    let budget = Budget { amount: 200.0, period: Period::Month, hard: true };
    assert_eq!(core.budget, Some(budget));
    assert_eq!((core.cost_per_million, core.max_in_flight), (1.5, 10));
    assert_eq!((core.probe, core.rate), (None, None));
    assert_eq!(core.health.window, Duration::from_secs(60));
    assert_eq!(core.health.slow_start, Duration::ZERO);
    assert_eq!(core.retry.min_delay, Some(Duration::from_secs(15 * 60)));
    let context = &entry.context;
    assert_eq!(context.endpoint.as_ref().unwrap().as_str(), "https://localhost:2197/");
    assert_eq!((context.connections, context.max_in_flight), (4, 10));
    // A connection gets no more time than the whole attempt.
    assert_eq!((context.timeout, context.connect_timeout), (core.timeout, core.timeout));
    assert!(context.ca.as_ref().is_some_and(|pem| pem.starts_with(b"-----BEGIN CERTIFICATE")));
    assert_eq!(entry.credential().kind, "p8");
    assert_eq!(entry.build(Some("no memo of ours".to_owned()), None).profile().kind, "apns");
}

#[test]
fn weights_and_tiers_stand_in_the_order_of_the_file() {
    let text = format!(
        "{APNS}{FCM}[[routes]]\nname = \"r\"\nbalance = \"weighted\"\n\
         tiers = [[\"fcm\", \"apns\"]]\nweights = {{ fcm = 3 }}"
    );
    let route = &good(&text).routes[0];
    let members: Vec<_> =
        route.tiers[0].iter().map(|member| (member.provider.0, member.weight)).collect();
    assert_eq!((members, route.balance), (vec![(1, 3.0), (0, 1.0)], Balance::Weighted));
}

#[test]
fn a_listener_for_others_needs_a_key_that_they_must_have() {
    let client = "[[clients]]\nname = \"shop\"\nkey = { env = \"PUSHYARD_SHOP_KEY\" }\n";
    let api = "[server]\nlisten = \"0.0.0.0:8080\"\n";
    let admin = "[admin]\nlisten = \"[::]:9090\"\n";
    assert!(load(api).is_err() && load(admin).is_err());
    assert!(load(&format!("{api}{client}")).is_ok());
    assert!(load(&format!("{admin}{client}")).is_err());
    assert!(load(&format!("{api}{admin}{client}admin = true")).is_ok());
    assert!(load("[server]\nlisten = \"[::1]:0\"\n[admin]\nlisten = \"127.0.0.2:0\"").is_ok());
}

#[test]
fn equal_files_mean_equal_settings_and_one_changed_key_shows() {
    let text = format!("{APNS}{FCM}");
    assert_eq!(good(&text), good(&text));
    let changed = good(&format!("{APNS}{FCM}project_id = \"other\""));
    let before = good(&text);
    assert_eq!(before.providers[0], changed.providers[0]);
    assert_ne!(before.providers[1], changed.providers[1]);
    assert_eq!(before.routes, changed.routes);
}

#[test]
fn the_summary_says_what_would_run() {
    let text = format!(
        "{APNS}{FCM}region = \"eu\"\nendpoint = \"https://127.0.0.1:8443\"\n\
         [[routes]]\nname = \"first\"\ntiers = [[\"apns\"]]\n\
         [[routes]]\nname = \"second\"\nbalance = \"round_robin\"\n\
         tiers = [[\"apns\"], [\"apns2\"]]\nweights = {{ apns = 2 }}\n\
         [[clients]]\nname = \"shop\"\nkey = \"short\"\nrate = {{ per_second = 500 }}\n\
         routes = [\"first\"]\nadmin = true\n{}",
        APNS.replace("id = \"apns\"", "id = \"apns2\"")
    );
    insta::assert_snapshot!(good(&text).summary().join("\n"), @r##"
    api       http://127.0.0.1:8080
    admin     http://127.0.0.1:9090 (/metrics open)
    store     conf/data (embedded): settled messages stay 24h or until 10GiB
    disk      about 2.9 GiB for 2000000 unsettled deliveries (1.5 KiB each), 256MiB stay free
    provider  apns: apns at the vendor's endpoint, p8
    provider  fcm: fcm at https://127.0.0.1:8443, service_account, region eu
    provider  apns2: apns at the vendor's endpoint, p8
    route     first: [apns], least_latency
    route     second: [apns ×2] then [apns2], round_robin
    client    shop: routes first, 500 a second, admin
    warning   clients.shop: its key is shorter than 16 characters and can be guessed; draw a longer one
    warning   providers.fcm: is in no route and will get nothing
    warning   no route is called "default": a message that names no route will be refused
    warning   routes.second: weights do nothing with balance = "round_robin"
    "##);
    insta::assert_snapshot!(good("").summary().join("\n"), @r##"
    api       http://127.0.0.1:8080
    admin     http://127.0.0.1:9090 (/metrics open)
    store     conf/data (embedded): settled messages stay 24h or until 10GiB
    disk      about 2.9 GiB for 2000000 unsettled deliveries (1.5 KiB each), 256MiB stay free
    route     default: nobody, least_latency
    warning   no provider is configured: every message will be refused; add [[providers]]
    warning   no client is configured: whoever can reach the loopback address may send; add [[clients]] with a key
    "##);
}
