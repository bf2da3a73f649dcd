//! The provider as a whole: settings, requests, and what answers set off.

use std::sync::Arc;
use std::time::Duration;

use http::header;
use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair};
use uuid::Uuid;

use super::{Apns, KIND};
use crate::clock::Clock;
use crate::http::pool::wire::{self, Listener, Wire};
use crate::registry::Context;
use crate::settings::Value;
use crate::{
    Address, Call, Notification, Outcome, Part, Processed, Provider, Push, Secret, Written,
};

const KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgjXgGwKE4/danoVde
D6ogLi8+XWmO5oxlrsMjxdbs25ihRANCAAS5k70661YQhQTvPqOgr8h12d8ZOH6l
AWGODZloYcDSsbCZ0TgwhiO8O+xBY2cTw/TOYiFrPjDUDbakCzxoSsyz
-----END PRIVATE KEY-----";
const TOKEN: &str = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0";
const APP: &str = "com.example.shop";

struct Fixed;

impl Clock for Fixed {
    fn unix_ms(&self) -> u64 {
        1_700_000_000_000
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn secret(text: &str) -> Value {
    Value::Secret(Secret::new(text.to_owned()))
}

fn context(values: &[(&'static str, Value)]) -> Context {
    let mut context = Context {
        values: crate::settings::Values::default(),
        endpoint: None,
        // Some root, so that the tests need none of the system's.
        ca: Some(certificate(&[], false).0.into_bytes()),
        connect_timeout: Duration::from_secs(20),
        timeout: Duration::from_secs(20),
        connections: 2,
        max_in_flight: 100,
        memo: None,
        clock: Arc::new(Fixed),
    };
    for (name, value) in values {
        context.values.insert(name, value.clone());
    }
    context
}

fn with_key() -> Vec<(&'static str, Value)> {
    vec![
        ("key", secret(KEY)),
        ("team_id", text("DEF123GHIJ")),
        ("key_id", text("ABC123DEFG")),
        ("app", text(APP)),
    ]
}

/// PEM of a certificate with these subject UIDs, and of its key.
fn certificate(uids: &[&str], several_topics: bool) -> (String, String) {
    let mut params = CertificateParams::new([]).unwrap();
    params.not_after = rcgen::date_time_ymd(2030, 1, 1);
    for uid in uids {
        let oid = DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 1]);
        params.distinguished_name.push(oid, *uid);
    }
    if several_topics {
        let oid = [1, 2, 840, 113_635, 100, 6, 3, 6];
        params.custom_extensions.push(CustomExtension::from_oid_content(&oid, vec![0x30, 0]));
    }
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn with_certificate(uids: &[&str], several_topics: bool) -> Vec<(&'static str, Value)> {
    let (certificate, key) = certificate(uids, several_topics);
    vec![("certificate", secret(&certificate)), ("certificate_key", secret(&key))]
}

fn address(app: Option<&str>) -> Address {
    let mut values = vec![("token", TOKEN)];
    values.extend(app.map(|app| ("app", app)));
    Address::new(&KIND, &values, None, None).unwrap()
}

const CHANNEL: &str = "dHN0LXNyY2gtY2hubA==";

/// A push that updates a Live Activity, for a channel.
fn broadcast(provider: &dyn Provider, overrides: &str) -> Call {
    let mut push = Push::default();
    push.overrides.insert("apns".to_owned(), overrides.to_owned());
    Call {
        payload: Arc::new(provider.encode(&push).unwrap()),
        address: Address::new(&KIND, &[("channel", CHANNEL)], None, None).unwrap(),
        ..call(provider, None)
    }
}

const UPDATE: &str =
    r#"{"aps":{"timestamp":1700000000,"event":"update","content-state":{"score":"1:0"}}}"#;

fn call(provider: &dyn Provider, overrides: Option<&str>) -> Call {
    let notification = Notification { body: Some("hi".to_owned()), ..Notification::default() };
    let mut push = Push { notification: Some(notification), ..Push::default() };
    push.overrides.extend(overrides.map(|text| ("apns".to_owned(), text.to_owned())));
    Call {
        payload: Arc::new(provider.encode(&push).unwrap()),
        address: address(None),
        delivery: Uuid::from_u128(0x0197_AAAA_BBBB_7CCC_8DDD_EEEE_FFFF_0001),
        reference: None,
        pushyard: "id.secret".into(),
        ttl: Duration::from_secs(60),
        expires_at: 1_700_000_060,
        written: Written::default(),
    }
}

#[test]
fn faults_of_the_settings_are_told_all_at_once_and_without_the_secrets() {
    let remove = |gone: &[&str]| {
        let mut values = with_key();
        values.retain(|(name, _)| !gone.contains(name));
        values
    };
    let plus = |mut values: Vec<(&'static str, Value)>, more: Vec<(&'static str, Value)>| {
        values.extend(more);
        values
    };
    let certificate = with_certificate(&[APP], false);
    for (values, keys) in [
        (vec![], &["key"][..]),
        (remove(&["team_id", "key_id"]), &["team_id", "key_id"]),
        (remove(&["app"]), &["app"]),
        (
            plus(
                remove(&["app", "key_id"]),
                vec![
                    ("app", text("no bundle")),
                    ("key_id", text("short")),
                    ("key", secret("hush")),
                ],
            ),
            &["key_id", "key", "app"],
        ),
        (plus(with_key(), vec![certificate[0].clone()]), &["certificate"]),
        (plus(with_key(), vec![certificate[1].clone()]), &["certificate_key"]),
        (vec![certificate[0].clone()], &["certificate_key"]),
        (vec![certificate[1].clone()], &["certificate"]),
        (vec![("certificate", secret("hush"))], &["certificate", "certificate_key"]),
        (
            plus(certificate.clone(), vec![("certificate_key", secret("hush"))]),
            &["certificate_key"],
        ),
        (with_certificate(&[APP], true), &["app"]),
        (
            plus(with_key(), vec![("apps", Value::List(vec!["a.b".to_owned(), "ä".to_owned()]))]),
            &["apps"],
        ),
    ] {
        let errors = Apns::new(&context(&values)).err().expect("it is refused");
        assert_eq!(errors.iter().map(|error| error.key).collect::<Vec<_>>(), keys, "{errors:?}");
        assert!(!format!("{errors:?}").contains("hush"));
    }
    for endpoint in ["http://127.0.0.1:1", "https://user@example.com", "https://example.com/?a=b"] {
        let endpoint = Some(endpoint.parse().unwrap());
        let errors = Apns::new(&Context { endpoint, ..context(&with_key()) }).err().unwrap();
        assert_eq!(errors[0].key, "endpoint");
    }
    let ca = Some(b"hush".to_vec());
    let errors = Apns::new(&Context { ca, ..context(&with_key()) }).err().unwrap();
    assert_eq!(errors[0].key, "ca_file");
}

#[test]
fn a_request_is_what_apples_page_asks_for() {
    let provider = Apns::new(&context(&with_key())).unwrap();
    let request = provider.request(&call(&provider, None)).unwrap();
    assert_eq!(request.uri, format!("https://api.push.apple.com/3/device/{TOKEN}").as_str());
    assert_eq!(request.method, "POST");
    let mut headers: Vec<String> = request
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    headers.sort();
    insta::assert_snapshot!(headers.join("\n"), @r#"
    apns-collapse-id: 0197aaaa-bbbb-7ccc-8ddd-eeeeffff0001
    apns-expiration: 1700000060
    apns-id: 0197aaaa-bbbb-7ccc-8ddd-eeeeffff0001
    apns-priority: 5
    apns-push-type: alert
    apns-topic: com.example.shop
    content-type: application/json
    "#);
    insta::assert_snapshot!(String::from_utf8_lossy(&request.body), @r#"
    {"aps":{"alert":{"body":"hi"}},"pushyard":"id.secret"}
    "#);
    assert!(request.headers["apns-id"].is_sensitive());
    assert!(!request.headers.contains_key(header::AUTHORIZATION));
}

#[test]
fn environment_endpoint_and_push_type_show_in_the_request() {
    let sandbox = [with_key(), vec![("environment", text("sandbox"))]].concat();
    let provider = Apns::new(&context(&sandbox)).unwrap();
    let voip = r#"{"headers":{"apns-push-type":"voip","apns-expiration":0}}"#;
    let request = provider.request(&call(&provider, Some(voip))).unwrap();
    assert_eq!(request.uri.host(), Some("api.sandbox.push.apple.com"));
    assert_eq!(request.headers["apns-topic"], "com.example.shop.voip");
    assert_eq!(request.headers["apns-expiration"], "0");

    let endpoint = Some("https://proxy.example:2197/apple/".parse().unwrap());
    let provider = Apns::new(&Context { endpoint, ..context(&with_key()) }).unwrap();
    let mut call = call(&provider, Some(r#"{"headers":{"apns-topic":"com.example.other"}}"#));
    call.expires_at = 0;
    let request = provider.request(&call).unwrap();
    let uri = format!("https://proxy.example:2197/apple/3/device/{TOKEN}");
    assert_eq!(request.uri, uri.as_str());
    assert_eq!(request.headers["apns-topic"], "com.example.other");
    assert_eq!(request.headers["apns-expiration"], "0");
}

#[test]
fn a_broadcast_is_what_apples_page_asks_for() {
    let provider = Apns::new(&context(&with_key())).unwrap();
    let request = provider.request(&broadcast(&provider, UPDATE)).unwrap();
    let uri = "https://api-broadcast.push.apple.com/4/broadcasts/apps/com.example.shop";
    assert_eq!(request.uri, uri);
    assert_eq!(request.method, "POST");
    let mut headers: Vec<String> = request
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    headers.sort();
    insta::assert_snapshot!(headers.join("\n"), @r#"
    apns-channel-id: dHN0LXNyY2gtY2hubA==
    apns-expiration: 1700000060
    apns-priority: 5
    apns-push-type: liveactivity
    apns-request-id: 0197aaaa-bbbb-7ccc-8ddd-eeeeffff0001
    content-type: application/json
    "#);
    insta::assert_snapshot!(String::from_utf8_lossy(&request.body), @r#"
    {"aps":{"content-state":{"score":"1:0"},"event":"update","timestamp":1700000000},"pushyard":"id.secret"}
    "#);
    assert!(request.headers["apns-request-id"].is_sensitive());
    // What only devices know is left out; what both know is the sender's word.
    let overrides = r#"{"aps":{"event":"end"},"headers":{"apns-topic":"com.example.other",
        "apns-collapse-id":"x","apns-expiration":0,"apns-priority":10}}"#;
    let request = provider.request(&broadcast(&provider, overrides)).unwrap();
    assert_eq!(request.headers["apns-expiration"], "0");
    assert_eq!(request.headers["apns-priority"], "10");
    assert_eq!(request.headers.len(), 6, "{:?}", request.headers);
}

#[test]
fn broadcasts_go_where_they_are_told() {
    let own = ("broadcast_endpoint", text("https://proxy.example/broadcasts/"));
    let sandbox = ("environment", text("sandbox"));
    let endpoint = || Some("https://127.0.0.1:2197/apple".parse().unwrap());
    for (endpoint, more, uri) in [
        (None, vec![sandbox], "https://api-broadcast.sandbox.push.apple.com/4"),
        (None, vec![own.clone()], "https://proxy.example/broadcasts/4"),
        (endpoint(), vec![own], "https://proxy.example/broadcasts/4"),
        (endpoint(), vec![], "https://127.0.0.1:2197/apple/4"),
        // Apple's second port is for devices.
        (
            Some("https://api.push.apple.com:2197".parse().unwrap()),
            vec![],
            "https://api-broadcast.push.apple.com/4",
        ),
    ] {
        let values = [with_key(), more].concat();
        let provider = Apns::new(&Context { endpoint, ..context(&values) }).unwrap();
        let request = provider.request(&broadcast(&provider, UPDATE)).unwrap();
        assert_eq!(request.uri, format!("{uri}/broadcasts/apps/{APP}").as_str());
    }
    let plain = [with_key(), vec![("broadcast_endpoint", text("http://127.0.0.1"))]].concat();
    let errors = Apns::new(&context(&plain)).err().unwrap();
    assert_eq!(errors.iter().map(|error| error.key).collect::<Vec<_>>(), ["broadcast_endpoint"]);
}

#[test]
fn what_a_target_does_not_take_is_refused_before_the_call() {
    let provider = Apns::new(&context(&with_key())).unwrap();
    let header = |name: &str, value: &str| {
        format!(r#"{{"aps":{{"event":"update"}},"headers":{{"{name}":{value}}}}}"#)
    };
    let pointer = |name: &str| format!("/overrides/apns/headers/{name}");
    for (overrides, told) in [
        (r#"{"aps":{"alert":"hi"}}"#.to_owned(), pointer("apns-push-type")),
        (header("apns-push-type", "null"), pointer("apns-push-type")),
        (header("apns-push-type", r#""alert""#), pointer("apns-push-type")),
        (header("apns-priority", "null"), pointer("apns-priority")),
        (header("apns-expiration", "null"), pointer("apns-expiration")),
        (r#"{"aps":{"event":"start"}}"#.to_owned(), "/overrides/apns/aps/event".to_owned()),
    ] {
        let invalid = provider.request(&broadcast(&provider, &overrides)).unwrap_err();
        assert_eq!(invalid.pointer, told, "{overrides}");
    }
    // 5120 bytes for a channel, 4096 for a device.
    let sized = |length: usize| {
        let fill = "x".repeat(length - 100);
        format!(r#"{{"aps":{{"event":"update","content-state":"{fill}"}}}}"#)
    };
    let large = broadcast(&provider, &sized(5000));
    assert!(provider.request(&large).is_ok());
    let invalid = provider.request(&Call { address: address(None), ..large }).unwrap_err();
    assert_eq!(invalid.code, "too_large");
    let small = broadcast(&provider, &sized(4000));
    assert!(provider.request(&Call { address: address(None), ..small }).is_ok());
    // A certificate may know its topic without our knowing it.
    let provider = Apns::new(&context(&with_certificate(&[], false))).unwrap();
    assert_eq!(provider.request(&broadcast(&provider, UPDATE)).unwrap_err().code, "app");
}

#[test]
fn a_channel_has_a_part_of_its_own_and_is_bounded_base64() {
    let provider = Apns::new(&context(&with_key())).unwrap();
    let address = |channel: &str| Address::new(&KIND, &[("channel", channel)], None, None);
    let parts = provider.parts(&address(CHANNEL).unwrap());
    let texts: Vec<_> = parts.iter().map(Part::text).collect();
    assert_eq!(texts, ["app:com.example.shop", "channels:com.example.shop"]);
    for (channel, good) in [
        ("a-_+/=", true),
        (&"a".repeat(1024), true),
        (&"a".repeat(1025), false),
        ("a b", false),
        ("ä", false),
        ("", false),
    ] {
        assert_eq!(address(channel).is_ok(), good, "{channel}");
    }
    let both = [("token", TOKEN), ("channel", CHANNEL)];
    for (values, told) in [
        (&both[..], ("", "needs exactly one of token, channel")),
        (&[("app", APP)], ("token", "is required")),
    ] {
        let faults = Address::new(&KIND, values, None, None).unwrap_err();
        let faults: Vec<_> = faults.iter().map(|fault| (fault.field, &*fault.detail)).collect();
        assert_eq!(faults, [told]);
    }
}

#[test]
fn an_address_is_served_by_its_app_and_has_it_as_its_part() {
    let others = ("apps", Value::List(vec!["com.example.news".to_owned()]));
    let (mut both, mut only_apps) = (with_key(), with_key());
    both.push(others.clone());
    only_apps.retain(|(name, _)| *name != "app");
    only_apps.push(others);
    let news = Some("com.example.news");
    for (values, app, part) in [
        (&both, None, Some(Some(APP))),
        (&both, Some(APP), Some(Some(APP))),
        (&both, news, Some(news)),
        (&both, Some("com.example.else"), None),
        (&only_apps, None, None),
        (&only_apps, news, Some(news)),
        // A certificate knows its topic, or Apple knows it.
        (&with_certificate(&[APP], false), None, Some(Some(APP))),
        (&with_certificate(&[APP], false), news, None),
        (&with_certificate(&[], false), None, Some(None)),
        (&with_certificate(&[], false), Some(APP), None),
    ] {
        let provider = Apns::new(&context(values)).unwrap();
        let address = address(app);
        assert_eq!(provider.serves(&address), part.is_some(), "{app:?}");
        let expected: Vec<Part> = part.flatten().map(Part::app).into_iter().collect();
        assert_eq!(provider.parts(&address).to_vec(), expected);
    }
}

#[test]
fn a_certificate_tells_when_it_ends_and_may_leave_the_topic_out() {
    let provider = Apns::new(&context(&with_certificate(&[], false))).unwrap();
    let credential = provider.gauge().credential;
    assert_eq!((credential.kind, credential.expires_at), ("certificate", Some(1_893_456_000)));
    assert_eq!(provider.memo(), None);
    let request = provider.request(&call(&provider, None)).unwrap();
    assert!(!request.headers.contains_key("apns-topic"));
    let named = Apns::new(&context(&with_certificate(&[APP], false))).unwrap();
    let request = named.request(&call(&named, None)).unwrap();
    assert_eq!(request.headers["apns-topic"], APP);
}

#[test]
fn a_token_is_hexadecimal_of_even_length_and_bounded() {
    for (token, good) in [
        (TOKEN, true),
        ("AB", true),
        (&"ab".repeat(512), true),
        (&"ab".repeat(513), false),
        ("abc", false),
        ("xy", false),
        ("../../x", false),
        ("äb", false),
        ("", false),
    ] {
        assert_eq!(Address::new(&KIND, &[("token", token)], None, None).is_ok(), good, "{token}");
    }
    assert!(Address::new(&KIND, &[("token", TOKEN), ("app", "a b")], None, None).is_err());
}

#[test]
fn the_minting_time_outlives_a_restart() {
    let context = context(&with_key());
    let first = Apns::new(&context).unwrap();
    assert_eq!(first.memo(), None);
    let memo = Some((1_700_000_000 - 1800).to_string());
    let again = Apns::new(&Context { memo: memo.clone(), ..context }).unwrap();
    assert_eq!(again.memo(), memo);
}

/// A provider and the first connection to its scripted peer.
async fn at_peer(listener: &Listener) -> Apns {
    let endpoint = Some(format!("https://127.0.0.1:{}", listener.port()).parse().unwrap());
    let ca = Some(listener.ca.clone());
    Apns::new(&Context { endpoint, ca, ..context(&with_key()) }).unwrap()
}

async fn refuse(peer: &mut Wire, status: u16, reason: &str) {
    let stream = peer.request().await;
    peer.begin_answer(stream, status).await;
    let body = format!(r#"{{"reason":"{reason}"}}"#);
    peer.write(wire::DATA, 1, stream, body.as_bytes()).await;
}

#[tokio::test]
async fn a_call_is_answered_and_a_connection_of_another_key_is_left() {
    let listener = Listener::bind(0, &[b"h2"]).await;
    let provider = at_peer(&listener).await;
    let call = call(&provider, None);
    let (answers, ()) = tokio::join!(
        async {
            let first = provider.send(&call).await;
            (first, provider.send(&call).await, provider.send(&call).await)
        },
        async {
            let mut peer = listener.accept(100).await;
            let stream = peer.request().await;
            peer.answer(stream, 200).await;
            refuse(&mut peer, 403, "UnrelatedKeyIdInToken").await;
            peer.until_closed().await;
            let mut fresh = listener.accept(100).await;
            refuse(&mut fresh, 403, "ExpiredProviderToken").await;
            let _keep = fresh.requests_until_now().await;
        }
    );
    let (accepted, unrelated, expired) = answers;
    assert_eq!((accepted.outcome, accepted.credential), (Outcome::Accepted, 1));
    assert_eq!((unrelated.outcome, unrelated.processed), (Outcome::Unavailable, Processed::No));
    assert_eq!(expired.outcome, Outcome::AuthFailed);
    // Minted a moment ago: a clock is wrong, and a new token would be no better.
    assert!(!expired.refreshable && expired.unexpected);
    assert!(!provider.refresh(expired.credential).await);
    assert!(!provider.gauge().credential.ok);
    assert!(provider.refresh(0).await);
}

#[tokio::test]
async fn a_broadcast_that_is_answered_does_not_hide_the_silence_of_the_host_of_devices() {
    let (devices, broadcasts) =
        (Listener::bind(0, &[b"h2"]).await, Listener::bind(0, &[b"h2"]).await);
    let at = |listener: &Listener| format!("https://127.0.0.1:{}", listener.port());
    let own = ("broadcast_endpoint", text(&at(&broadcasts)));
    let provider = Apns::new(&Context {
        endpoint: Some(at(&devices).parse().unwrap()),
        ca: Some([&devices.ca[..], &broadcasts.ca].concat()),
        ..context(&[with_key(), vec![own]].concat())
    })
    .unwrap();
    let to_device = call(&provider, None);
    let mut unanswered = provider.send(&to_device);
    let mut peer = tokio::select! {
        answer = &mut unanswered => unreachable!("nobody answered: {answer:?}"),
        peer = async {
            let mut peer = devices.accept(100).await;
            peer.request().await;
            peer.requests_until_now().await;
            peer
        } => peer,
    };
    let heard = provider.heard();
    let to_channel = broadcast(&provider, UPDATE);
    let (answer, _kept) = tokio::join!(provider.send(&to_channel), async {
        let mut peer = broadcasts.accept(100).await;
        let stream = peer.request().await;
        peer.answer(stream, 200).await;
        peer
    });
    assert_eq!(answer.outcome, Outcome::Accepted);
    assert_eq!(provider.heard(), heard, "devices are waiting");
    peer.answer(1, 200).await;
    assert_eq!(unanswered.await.outcome, Outcome::Accepted);
    assert!(provider.heard() > heard);
}

#[tokio::test]
async fn a_probe_opens_a_connection_and_sends_nothing() {
    let listener = Listener::bind(0, &[b"h2"]).await;
    let provider = at_peer(&listener).await;
    let (answer, ()) = tokio::join!(provider.probe(), async {
        let mut peer = listener.accept(100).await;
        while let Some(frame) = peer.frame().await {
            assert_ne!(frame.kind, wire::HEADERS);
        }
    });
    assert_eq!(answer.outcome, Outcome::Accepted);
    drop(listener);
    let answer = provider.probe().await;
    assert_eq!((answer.outcome, answer.processed), (Outcome::Unavailable, Processed::No));
    assert_eq!(answer.code.as_deref(), Some("connect"));
}
