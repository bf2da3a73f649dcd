//! FCM against the simulator, which checks every message as strictly as Google
//! documents and shares no code with the provider.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use pushyard_providers::clock::Clock as _;
use pushyard_providers::fcm::KIND;
use pushyard_providers::registry::Context;
use pushyard_providers::settings::{Value, Values};
use pushyard_providers::{
    Address, Answer, Call, Notification, Outcome, Part, Priority, Processed, Provider, Push,
    Secret, Written,
};
use pushyard_simulator::{Behaviour, Mode, Settings, Simulator, start};
use serde_json::json;
use uuid::Uuid;

use crate::SystemClock;

/// A provider as the configuration would build it for this simulator.
struct World {
    simulator: Simulator,
    fcm: Arc<dyn Provider>,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::in_dir(dir.path());
        change(&mut settings);
        let simulator = start(settings).await.unwrap();
        let file = std::fs::read_to_string(dir.path().join("service-account.json")).unwrap();
        let mut values = Values::default();
        values.insert("service_account", Value::Secret(Secret::new(file)));
        let context = Context {
            values,
            endpoint: Some(simulator.announcement().vendors["fcm"].parse().unwrap()),
            ca: Some(std::fs::read(&simulator.announcement().ca_file).unwrap()),
            connect_timeout: Duration::from_secs(3),
            timeout: Duration::from_secs(10),
            connections: 2,
            max_in_flight: 1000,
            memo: None,
            clock: Arc::new(SystemClock),
        };
        Self { simulator, fcm: (KIND.build)(context).unwrap(), _dir: dir }
    }

    fn call(&self, push: &Push, address: &[(&str, &str)]) -> Call {
        let delivery = Uuid::now_v7();
        Call {
            payload: Arc::new(self.fcm.encode(push).unwrap()),
            address: Address::new(&KIND, address, None, None).unwrap(),
            delivery,
            reference: None,
            pushyard: format!("{delivery}.0123456789012345678901").into(),
            ttl: Duration::from_secs(60),
            expires_at: SystemClock.unix_s() + 60,
            written: Written::default(),
        }
    }

    async fn send(&self, token: &str) -> Answer {
        self.fcm.send(&self.call(&alert(), &[("token", token)])).await
    }

    fn oauth_requests(&self) -> u64 {
        self.simulator.control().vendor("fcm-oauth").unwrap().requests
    }
}

fn alert() -> Push {
    let notification = Notification {
        title: Some("Paid".to_owned()),
        body: Some("Order 7".to_owned()),
        ..Notification::default()
    };
    Push { notification: Some(notification), priority: Priority::High, ..Push::default() }
}

fn everything() -> Push {
    let some = |text: &str| Some(text.to_owned());
    let overrides = json!({
        "android": {"notification": {"channel_id": "orders"}, "data": {"only": "android"}},
        "fcm_options": {"analytics_label": "autumn"},
    });
    Push {
        notification: Some(Notification {
            title: some("Paid"),
            body: some("Order 7"),
            image: some("https://shop.example/7.png"),
            url: some("https://shop.example/7"),
            sound: some("default"),
            badge: Some(3),
            category: some("order"),
            thread: some("orders"),
            tag: some("order-7"),
        }),
        data: [("order".to_owned(), "7".to_owned())].into_iter().collect(),
        priority: Priority::Normal,
        collapse_key: some("order/7"),
        overrides: [("fcm".to_owned(), overrides.to_string())].into_iter().collect(),
    }
}

#[tokio::test]
async fn every_payload_passes_the_vendors_validation() {
    let world = World::new().await;
    let data_only = Push { notification: None, ..everything() };
    for push in [alert(), everything(), data_only] {
        for address in [
            ("token", "e1"),
            ("fid", "f1"),
            ("topic", "news"),
            ("condition", "'a' in topics && ('b' in topics || 'c' in topics)"),
        ] {
            let call = world.call(&push, &[address]);
            let answer = world.fcm.send(&call).await;
            assert_eq!(answer.outcome, Outcome::Accepted, "{address:?}: {answer:?}");
            assert!(answer.vendor_id.unwrap().starts_with("projects/"));
        }
    }
    let summary = world.simulator.control().summary();
    assert_eq!((summary.unique, summary.duplicates), (12, 0), "by the `pushyard` string");
}

#[tokio::test]
async fn each_answer_has_its_class() {
    use Outcome::{AddressGone, Ambiguous, AuthFailed, Misconfigured, Throttled, Unavailable};
    let world = World::new().await;
    for (token, outcome, part, wait_s) in [
        ("sim-unregistered-1", AddressGone, Part::Device, None),
        ("sim-apnsgone-1", AddressGone, Part::Device, None),
        ("sim-badtoken-1", AddressGone, Part::Device, None),
        ("sim-mismatch-1", Misconfigured, Part::Device, None),
        ("sim-thirdparty-1", Misconfigured, Part::Device, None),
        ("sim-quota-device-1", Throttled, Part::Device, Some(60)),
        ("sim-429ra5-1", Throttled, Part::Provider, Some(5)),
        ("429-1", Throttled, Part::Provider, Some(60)),
        ("sim-500-1", Unavailable, Part::Provider, None),
        ("sim-503ra-1", Unavailable, Part::Provider, Some(5)),
        ("sim-504-1", Ambiguous, Part::Provider, None),
        ("sim-html502-1", Ambiguous, Part::Provider, None),
        ("sim-drop-1", Ambiguous, Part::Provider, None),
        ("sim-refused-1", Unavailable, Part::Provider, None),
        ("401-1", AuthFailed, Part::Provider, None),
    ] {
        let answer = world.send(token).await;
        assert_eq!((answer.outcome, &answer.part), (outcome, &part), "{token}: {answer:?}");
        assert_eq!(answer.retry_after, wait_s.map(Duration::from_secs), "{token}");
        assert!(!format!("{answer:?}").contains(token), "{answer:?}");
    }
    let dated = world.send("sim-429date-1").await.retry_after.unwrap();
    assert!((3..=6).contains(&dated.as_secs()), "{dated:?}");
    assert_eq!(world.send("sim-refused-1").await.processed, Processed::No);
}

#[tokio::test]
async fn the_vendor_has_the_last_word_on_size() {
    let world = World::new().await;
    // Within our count of the payload, and over the simulator's, which also
    // counts options and headers: FCM does not say.
    let push = Push {
        data: [("x".to_owned(), "y".repeat(4000))].into_iter().collect(),
        ..Push::default()
    };
    let answer = world.fcm.send(&world.call(&push, &[("token", "e1")])).await;
    assert_eq!((answer.outcome, answer.processed), (Outcome::MessageInvalid, Processed::Yes));
}

#[tokio::test]
async fn a_thousand_pushes_at_once_take_one_token_and_keep_to_the_stream_limit() {
    let world = World::new().await;
    let calls: Vec<_> = (0..1000).map(|_| world.call(&alert(), &[("token", "e1")])).collect();
    let answers = join_all(calls.iter().map(|call| world.fcm.send(call))).await;
    assert!(answers.iter().all(|answer| answer.outcome == Outcome::Accepted));
    assert_eq!(world.oauth_requests(), 1);
    let control = world.simulator.control();
    assert_eq!(control.vendor("fcm").unwrap().breaches, 0);
    let summary = control.summary();
    assert_eq!((summary.unique, summary.duplicates), (1000, 0));
}

#[tokio::test]
async fn a_refused_access_token_is_repaired_by_one_refresh() {
    let world = World::new().await;
    assert_eq!(world.send("e1").await.outcome, Outcome::Accepted);
    world.simulator.control().set_mode("fcm", Mode::Unauthorised).unwrap();
    let refused = world.send("e1").await;
    assert_eq!((refused.outcome, refused.refreshable), (Outcome::AuthFailed, true));
    world.simulator.control().set_mode("fcm", Mode::Healthy).unwrap();
    assert!(world.fcm.refresh(refused.credential).await);
    let answer = world.send("e1").await;
    assert_eq!((answer.outcome, answer.credential), (Outcome::Accepted, 2));
    assert_eq!(world.oauth_requests(), 2);
}

#[tokio::test]
async fn a_live_token_outlasts_an_outage_of_the_token_endpoint() {
    let world = World::new().await;
    assert!(world.fcm.refresh(0).await);
    world.simulator.control().set_mode("fcm-oauth", Mode::Failing).unwrap();
    assert_eq!(world.send("e1").await.outcome, Outcome::Accepted);
}

#[tokio::test]
async fn without_a_token_the_token_endpoints_class_is_the_answer() {
    for (mode, outcome, code) in [
        (Mode::Failing, Outcome::Unavailable, "oauth_unavailable"),
        (Mode::Throttling, Outcome::Throttled, "oauth_throttled"),
        (Mode::Unauthorised, Outcome::AuthFailed, "invalid_grant"),
    ] {
        let world = World::new().await;
        world.simulator.control().set_mode("fcm-oauth", mode).unwrap();
        let answer = world.send("e1").await;
        assert_eq!((answer.outcome, answer.code.as_deref()), (outcome, Some(code)));
        assert_eq!(answer.processed, Processed::No);
        assert_eq!(world.simulator.control().summary().unique, 0);
    }
}

#[tokio::test]
async fn the_projects_quota_throttles_the_provider_for_a_minute() {
    let world = World::with(|settings| settings.fcm_quota_per_minute = Some(1)).await;
    assert_eq!(world.send("e1").await.outcome, Outcome::Accepted);
    let answer = world.send("e1").await;
    assert_eq!((answer.outcome, &answer.part), (Outcome::Throttled, &Part::Provider));
    assert_eq!(answer.retry_after, Some(Duration::from_secs(60)));
    assert_eq!(answer.code.as_deref(), Some("RATE_LIMIT_EXCEEDED"));
}

#[tokio::test]
async fn a_probe_is_counted_as_one_and_reaches_nobody() {
    let world = World::new().await;
    assert_eq!(world.fcm.probe().await.outcome, Outcome::Accepted);
    let vendor = world.simulator.control().vendor("fcm").unwrap();
    assert_eq!((vendor.probes, vendor.accepted), (1, 0));
}

#[tokio::test]
async fn a_machines_own_account_sends_without_a_key_file() {
    let world = World::new().await;
    let announcement = world.simulator.announcement();
    let origin = &announcement.vendors["fcm"];
    let mut values = Values::default();
    for (name, value) in [
        ("credentials", "metadata"),
        ("metadata_server", origin.as_str()),
        ("project_id", "simulated-project"),
    ] {
        values.insert(name, Value::Text(value.to_owned()));
    }
    let context = Context {
        values,
        endpoint: Some(origin.parse().unwrap()),
        ca: Some(std::fs::read(&announcement.ca_file).unwrap()),
        connect_timeout: Duration::from_secs(3),
        timeout: Duration::from_secs(10),
        connections: 2,
        max_in_flight: 1000,
        memo: None,
        clock: Arc::new(SystemClock),
    };
    let fcm = (KIND.build)(context).unwrap();
    let call = world.call(&alert(), &[("token", "a-token")]);
    let answer = fcm.send(&call).await;
    assert_eq!(answer.outcome, Outcome::Accepted, "{answer:?}");
    assert_eq!((fcm.gauge().credential.kind, world.oauth_requests()), ("metadata", 1));
}

#[tokio::test]
async fn an_api_that_is_not_enabled_is_no_matter_of_the_token() {
    let world = World::new().await;
    let behaviour = Behaviour { status: Some(403), ..Behaviour::of(Mode::Failing) };
    world.simulator.control().set("fcm", behaviour).unwrap();
    let answer = world.send("t").await;
    assert_eq!((answer.outcome, answer.part), (Outcome::AuthFailed, Part::Provider));
    assert!(!answer.refreshable);
    assert_eq!(answer.code.as_deref(), Some("SERVICE_DISABLED"));
}
