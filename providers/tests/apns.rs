//! APNs against the simulator, which checks every request as strictly as Apple
//! documents and shares no code with the provider.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use futures_util::future::join_all;
use pushyard_providers::apns::KIND;
use pushyard_providers::clock::Clock as _;
use pushyard_providers::registry::Context;
use pushyard_providers::settings::{Value, Values};
use pushyard_providers::{
    Address, Answer, Call, Notification, Outcome, Part, Priority, Processed, Provider, Push,
    Secret, Written,
};
use pushyard_simulator::{Mode, Settings, Simulator, start};
use serde_json::json;
use uuid::Uuid;

use crate::SystemClock;

const APP: &str = "com.example.app";

/// A provider as the configuration would build it for this simulator.
struct World {
    simulator: Simulator,
    apns: Arc<dyn Provider>,
    dir: tempfile::TempDir,
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
        let key = std::fs::read_to_string(dir.path().join("AuthKey_SIMKEY0001.p8")).unwrap();
        let apns = provider(
            &simulator,
            [
                ("key", Value::Secret(Secret::new(key))),
                ("key_id", Value::Text("SIMKEY0001".to_owned())),
                ("team_id", Value::Text("SIMTEAM001".to_owned())),
                ("app", Value::Text(APP.to_owned())),
            ],
        );
        Self { simulator, apns, dir }
    }

    async fn send(&self, token: &str) -> Answer {
        self.apns.send(&call(&*self.apns, &alert(), token)).await
    }
}

/// A push that updates the Live Activities of a channel; the simulator knows those
/// whose text begins with `sim-`.
fn broadcast(apns: &dyn Provider, channel: &str) -> Call {
    let update = json!({"aps": {"timestamp": 1, "event": "update", "content-state": {"s": 1}}});
    let push = Push { overrides: overrides(&update), ..Push::default() };
    let channel = base64::engine::general_purpose::STANDARD.encode(channel);
    Call {
        address: Address::new(&KIND, &[("channel", &channel)], None, None).unwrap(),
        ..call(apns, &push, &token("ab"))
    }
}

fn provider<const N: usize>(
    simulator: &Simulator,
    settings: [(&'static str, Value); N],
) -> Arc<dyn Provider> {
    let mut values = Values::default();
    for (name, value) in settings {
        values.insert(name, value);
    }
    let broadcasts = simulator.announcement().vendors["apns-broadcast"].clone();
    values.insert("broadcast_endpoint", Value::Text(broadcasts));
    let context = Context {
        values,
        endpoint: Some(simulator.announcement().vendors["apns"].parse().unwrap()),
        ca: Some(std::fs::read(&simulator.announcement().ca_file).unwrap()),
        connect_timeout: Duration::from_secs(3),
        timeout: Duration::from_secs(10),
        connections: 2,
        max_in_flight: 1000,
        memo: None,
        clock: Arc::new(SystemClock),
    };
    (KIND.build)(context).unwrap()
}

fn call(apns: &dyn Provider, push: &Push, token: &str) -> Call {
    let delivery = Uuid::now_v7();
    Call {
        payload: Arc::new(apns.encode(push).unwrap()),
        address: Address::new(&KIND, &[("token", token)], None, None).unwrap(),
        delivery,
        reference: None,
        pushyard: format!("{delivery}.0123456789012345678901").into(),
        ttl: Duration::from_secs(60),
        expires_at: SystemClock.unix_s() + 60,
        written: Written::default(),
    }
}

/// A code of the simulator's as a device token of the usual length.
fn token(code: &str) -> String {
    format!("{code:0<64}")
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
        collapse_key: Some("ü".repeat(33)),
        overrides: overrides(&json!({"aps": {"interruption-level": "time-sensitive"}})),
    }
}

fn overrides(patch: &serde_json::Value) -> std::collections::BTreeMap<String, String> {
    [("apns".to_owned(), patch.to_string())].into_iter().collect()
}

#[tokio::test]
async fn every_payload_passes_the_vendors_validation() {
    let world = World::new().await;
    let data_only = Push { notification: None, overrides: overrides(&json!({})), ..everything() };
    let of_type = |push_type: &str| Push {
        overrides: overrides(&json!({"headers": {"apns-push-type": push_type}})),
        ..alert()
    };
    let mut pushes = vec![alert(), everything(), data_only];
    for push_type in
        ["voip", "complication", "fileprovider", "location", "liveactivity", "pushtotalk"]
    {
        pushes.push(of_type(push_type));
    }
    let count = pushes.len();
    for push in pushes {
        let call = call(&*world.apns, &push, &token("ab"));
        let answer = world.apns.send(&call).await;
        assert_eq!(answer.outcome, Outcome::Accepted, "{push:?}: {answer:?}");
        assert_eq!(answer.vendor_id.as_deref(), Some(call.delivery.to_string().as_str()));
        assert_eq!((answer.credential, call.written.is_set()), (1, true));
    }
    let summary = world.simulator.control().summary();
    assert_eq!((summary.unique as usize, summary.duplicates), (count, 0), "by `pushyard`");
}

#[tokio::test]
async fn each_code_has_its_class() {
    use Outcome::{
        Accepted, AddressGone, Ambiguous, MessageInvalid, Misconfigured, Throttled, Unavailable,
    };
    use Processed::{Maybe, No, Yes};
    let world = World::new().await;
    let (device, whole) = (Part::Device, Part::Provider);
    for (code, outcome, part, processed, word) in [
        ("fa170410", AddressGone, &device, Yes, Some("Unregistered")),
        ("fa171410", AddressGone, &device, Yes, Some("Unregistered")),
        ("fa172410", AddressGone, &device, Yes, Some("ExpiredToken")),
        ("fa170400", AddressGone, &device, Yes, Some("BadDeviceToken")),
        ("fa171400", Misconfigured, &device, Yes, Some("DeviceTokenNotForTopic")),
        ("fa170429", Throttled, &device, Yes, Some("TooManyRequests")),
        ("fa170500", Unavailable, &whole, Yes, Some("InternalServerError")),
        ("fa170503", Unavailable, &whole, Yes, Some("ServiceUnavailable")),
        ("fa171503", Unavailable, &whole, No, Some("Shutdown")),
        ("fa170502", Ambiguous, &whole, Maybe, None),
        ("fa17000a", MessageInvalid, &whole, Yes, Some("NoReasonThatAppleKnows")),
        ("fa17000b0005", Accepted, &whole, Yes, None),
        ("fa17000d", Ambiguous, &whole, Maybe, Some("closed")),
        ("fa17000e", Unavailable, &whole, No, Some("refused_stream")),
        ("fa17000f", Unavailable, &whole, No, Some("goaway")),
    ] {
        let token = token(code);
        let answer = world.send(&token).await;
        let got = (answer.outcome, &answer.part, answer.processed, answer.code.as_deref());
        assert_eq!(got, (outcome, part, processed, word), "{code}: {answer:?}");
        assert!(!format!("{answer:?}").contains(&token), "{answer:?}");
    }
    let long_ago = world.send(&token("fa171410")).await.gone_at;
    assert_eq!(long_ago, Some(1_000_000_000_000));
    // None of these left the provider worse off.
    assert_eq!(world.send(&token("ab")).await.outcome, Outcome::Accepted);
    assert_eq!(world.simulator.control().vendor("apns").unwrap().breaches, 0);
}

#[tokio::test]
async fn a_broadcast_passes_the_vendors_validation_and_each_answer_has_its_class() {
    use Outcome::{
        Accepted, AddressGone, Ambiguous, AuthFailed, MessageInvalid, Throttled, Unavailable,
    };
    let world = World::new().await;
    let broadcasts = Part::Named(format!("channels:{APP}").into());
    for (channel, outcome, part, word) in [
        ("sim-a", Accepted, &Part::Provider, None),
        ("nobody", AddressGone, &Part::Device, Some("ChannelNotRegistered")),
        ("bad-a", MessageInvalid, &Part::Provider, Some("BadChannelId")),
        // It stores nothing, so it takes no time to live.
        ("sim0-a", MessageInvalid, &Part::Provider, Some("BadExpirationDate")),
        ("429-a", Throttled, &broadcasts, Some("TooManyRequests")),
        ("500-a", Unavailable, &broadcasts, Some("InternalServerError")),
        ("401-a", AuthFailed, &Part::Provider, Some("InvalidProviderToken")),
        ("lost-a", Ambiguous, &broadcasts, Some("closed")),
    ] {
        let call = broadcast(&*world.apns, channel);
        let answer = world.apns.send(&call).await;
        let got = (answer.outcome, &answer.part, answer.code.as_deref());
        assert_eq!(got, (outcome, part, word), "{channel}: {answer:?}");
        if outcome == Accepted {
            assert_eq!(answer.vendor_id.as_deref(), Some(call.delivery.to_string().as_str()));
        }
    }
    let control = world.simulator.control();
    assert_eq!(control.vendor("apns-broadcast").unwrap().accepted, 2, "one was lost");
    // What ails the host of broadcasts is nothing to devices.
    control.set_mode("apns-broadcast", Mode::Refusing).unwrap();
    let answer = world.apns.send(&broadcast(&*world.apns, "sim-a")).await;
    // Refused, or cut off over a connection that had not ended yet.
    assert!(matches!(answer.outcome, Unavailable | Ambiguous), "{answer:?}");
    assert_eq!(answer.part, broadcasts);
    assert_eq!(world.send(&token("ab")).await.outcome, Accepted);
    assert_eq!(control.vendor("apns").unwrap().breaches, 0);
}

#[tokio::test]
async fn refused_pushes_among_many_keep_to_the_one_stream_they_leave() {
    let world = World::with(|settings| settings.apns_one_stream_after_rejection = true).await;
    // Each third token is none.
    let calls: Vec<_> = (0..300)
        .map(|n| call(&*world.apns, &alert(), &token(if n % 3 == 0 { "fa170400" } else { "ab" })))
        .collect();
    let answers = join_all(calls.iter().map(|call| world.apns.send(call))).await;
    let accepted = answers.iter().filter(|answer| answer.outcome == Outcome::Accepted).count();
    let gone = answers.iter().filter(|answer| answer.outcome == Outcome::AddressGone).count();
    assert_eq!((accepted, gone), (200, 100));
    assert_eq!(world.simulator.control().vendor("apns").unwrap().breaches, 0);
}

#[tokio::test]
async fn a_call_that_is_given_up_had_left_and_spoils_nothing() {
    let world = World::new().await;
    let call = call(&*world.apns, &alert(), &token("fa17000c"));
    tokio::select! {
        answer = world.apns.send(&call) => unreachable!("nobody answers: {answer:?}"),
        () = async {
            while world.simulator.control().summary().unique == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        } => {}
    }
    assert!(call.written.is_set());
    assert_eq!(world.send(&token("ab")).await.outcome, Outcome::Accepted);
}

#[tokio::test]
async fn a_thousand_pushes_at_once_keep_to_the_stream_limits() {
    for max_streams in [1000, 10] {
        let world = World::with(|settings| settings.apns_max_streams = max_streams).await;
        let calls: Vec<_> = (0..1000).map(|_| call(&*world.apns, &alert(), &token("ab"))).collect();
        let answers = join_all(calls.iter().map(|call| world.apns.send(call))).await;
        for answer in answers {
            assert_eq!(answer.outcome, Outcome::Accepted, "{answer:?}");
        }
        let control = world.simulator.control();
        assert_eq!(control.vendor("apns").unwrap().breaches, 0);
        let summary = control.summary();
        assert_eq!((summary.unique, summary.duplicates), (1000, 0));
    }
}

#[tokio::test]
async fn each_fault_of_the_vendor_has_its_class() {
    use Processed::{No, Yes};
    for (mode, outcome, processed) in [
        (Mode::Failing, Outcome::Unavailable, Yes),
        (Mode::Throttling, Outcome::Throttled, Yes),
        (Mode::Unauthorised, Outcome::AuthFailed, Yes),
        (Mode::Refusing, Outcome::Unavailable, No),
        (Mode::Reset, Outcome::Ambiguous, Processed::Maybe),
        (Mode::Goaway, Outcome::Unavailable, No),
    ] {
        let world = World::new().await;
        world.simulator.control().set_mode("apns", mode).unwrap();
        let answer = world.send(&token("ab")).await;
        assert_eq!((answer.outcome, answer.processed), (outcome, processed), "{answer:?}");
        assert!(!answer.refreshable);
        assert_eq!(world.apns.gauge().credential.ok, outcome != Outcome::AuthFailed);
        world.simulator.control().set_mode("apns", Mode::Healthy).unwrap();
        // The probe ends a back-off.
        assert_eq!(world.apns.probe().await.outcome, Outcome::Accepted);
        let answer = world.send(&token("ab")).await;
        assert_eq!(answer.outcome, Outcome::Accepted, "after {mode:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_probe_reaches_the_vendor_without_a_request() {
    let world = World::new().await;
    assert_eq!(world.apns.probe().await.outcome, Outcome::Accepted);
    assert_eq!(world.simulator.control().vendor("apns").unwrap().requests, 0);
    world.simulator.control().set_mode("apns", Mode::Refusing).unwrap();
    assert_eq!(world.apns.probe().await.outcome, Outcome::Unavailable);
}

#[tokio::test]
async fn a_certificate_logs_in_and_knows_its_topic() {
    let world = World::new().await;
    let file = |name: &str| {
        let text = std::fs::read_to_string(world.dir.path().join(name)).unwrap();
        Value::Secret(Secret::new(text))
    };
    let apns = provider(
        &world.simulator,
        [("certificate", file("apns-client.pem")), ("certificate_key", file("apns-client.key"))],
    );
    let call = call(&*apns, &alert(), &token("ab"));
    assert_eq!(apns.parts(&call.address).to_vec(), [Part::app(APP)]);
    let answer = apns.send(&call).await;
    assert_eq!((answer.outcome, answer.credential), (Outcome::Accepted, 0));
    assert!(apns.gauge().credential.expires_at.unwrap() > SystemClock.unix_s());
}

#[tokio::test]
async fn the_minting_time_is_kept_on_the_half_hour_and_closing_ends_all_connections() {
    let world = World::new().await;
    assert_eq!(world.send(&token("ab")).await.outcome, Outcome::Accepted);
    let issued: u64 = world.apns.memo().unwrap().parse().unwrap();
    assert_eq!(issued % 1800, 0);
    world.apns.close().await;
    assert_eq!(world.apns.gauge().connections, 0);
    let answer = world.send(&token("ab")).await;
    assert_eq!((answer.outcome, answer.processed), (Outcome::Unavailable, Processed::No));
}
