//! The provider over a real hub: what a subscriber gets, and what an answer says.

use std::net::Ipv4Addr;

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::Written;
use crate::clock::Clock;

struct Fixed;

impl Clock for Fixed {
    fn unix_ms(&self) -> u64 {
        1_800_000_000_000
    }
}

const NOW: u64 = 1_800_000_000;

fn hub(settings: HubSettings) -> (tempfile::TempDir, Arc<Hub>) {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::open(dir.path(), settings, Arc::new(Fixed)).unwrap();
    (dir, hub)
}

fn small() -> HubSettings {
    HubSettings {
        backlog: 1000,
        backlog_ttl: Duration::from_secs(60),
        max_subscribers: 3,
        max_topics_per_address: 2,
    }
}

fn push() -> Push {
    serde_json::from_value(json!({
        "notification": {"title": "Paid", "body": "Order 7", "url": "https://a/b", "badge": 3},
        "data": {"order": "7"}, "priority": "High", "collapse_key": null, "overrides": {}
    }))
    .unwrap()
}

fn call(provider: &dyn Provider, push: &Push, topic: &str, delivery: u128, ends: u64) -> Call {
    Call {
        payload: Arc::new(provider.encode(push).unwrap()),
        address: Address::new(&KIND, &[("topic", topic)], None, None).unwrap(),
        delivery: Uuid::from_u128(delivery),
        reference: None,
        pushyard: "d.s".into(),
        ttl: Duration::from_secs(30),
        expires_at: ends,
        written: Written::default(),
    }
}

fn topics(names: &[&str]) -> Arc<[Box<str>]> {
    names.iter().map(|name| Box::from(*name)).collect()
}

fn address(last: u8) -> std::net::IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

#[tokio::test]
async fn a_message_reaches_the_subscriber_and_the_backlog_once() {
    let (_dir, hub) = hub(small());
    let provider = provider(hub.clone());
    let mut listening = hub.subscribe(topics(&["t"]), address(1)).unwrap();
    let call = call(&*provider, &push(), "t", 1, NOW + 30);
    let first = provider.send(&call).await;
    let again = provider.send(&call).await;
    assert_eq!((first.outcome, again.outcome), (Outcome::Accepted, Outcome::Accepted));
    assert_eq!(first.vendor_id, again.vendor_id);
    let message = listening.next().await.unwrap();
    let line = message.bytes(Form::Json);
    let value: Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(
        value,
        json!({"id": first.vendor_id.unwrap().as_ref(), "time": NOW, "expires": NOW + 30,
               "event": "message", "topic": "t", "title": "Paid", "message": "Order 7",
               "click": "https://a/b", "badge": 3, "priority": 4, "data": {"order": "7"},
               "pushyard": "d.s"})
    );
    let (kept, _) = hub.after(&topics(&["t"]), 0).unwrap();
    assert_eq!(kept.len(), 1, "the repeat is dropped");
    assert_eq!(kept[0].bytes(Form::Json), line);
}

#[tokio::test]
async fn now_or_never_needs_somebody_who_listens() {
    let (_dir, hub) = hub(small());
    let provider = provider(hub.clone());
    let call = call(&*provider, &push(), "t", 1, 0);
    let nobody = provider.send(&call).await;
    assert_eq!((nobody.outcome, nobody.part), (Outcome::Unavailable, Part::Device));
    let mut listening = hub.subscribe(topics(&["t"]), address(1)).unwrap();
    assert_eq!(provider.send(&call).await.outcome, Outcome::Accepted);
    assert!(listening.next().await.is_some());
    assert_eq!(hub.figures().backlog, 0);
}

#[tokio::test]
async fn who_does_not_read_is_dropped_and_the_other_goes_on() {
    let (_dir, hub) = hub(small());
    let provider = provider(hub.clone());
    let mut silent = hub.subscribe(topics(&["t", "u"]), address(1)).unwrap();
    let mut reading = hub.subscribe(topics(&["t"]), address(2)).unwrap();
    for n in 0..=QUEUE as u128 {
        provider.send(&call(&*provider, &push(), "t", n, NOW + 30)).await;
        assert!(reading.next().await.is_some());
    }
    for _ in 0..QUEUE {
        assert!(silent.next().await.is_some());
    }
    assert!(silent.next().await.is_none());
    assert_eq!(hub.figures().dropped_slow, 1);
}

#[tokio::test]
async fn topics_of_an_address_and_subscribers_are_bounded() {
    let (_dir, hub) = hub(small());
    let first = hub.subscribe(topics(&["a", "b"]), address(1)).unwrap();
    assert_eq!(hub.subscribe(topics(&["c"]), address(1)).unwrap_err(), Full::Topics);
    let again = hub.subscribe(topics(&["a"]), address(1)).unwrap();
    let _other = hub.subscribe(topics(&["c"]), address(2)).unwrap();
    assert_eq!(hub.subscribe(topics(&["c"]), address(3)).unwrap_err(), Full::Subscribers);
    drop((first, again));
    assert_eq!(hub.figures().subscribers, 1);
    assert_eq!(hub.figures().topics, 1);
    hub.subscribe(topics(&["x", "y"]), address(1)).unwrap();
}

#[test]
fn topics_are_those_of_ntfy() {
    for (topic, good) in [
        ("a", true),
        ("alice-7f3a_X", true),
        (&*"x".repeat(64), true),
        (&"x".repeat(65), false),
        ("", false),
        ("v1", false),
        ("a b", false),
        ("a/b", false),
        ("ä", false),
    ] {
        assert_eq!(is_topic(topic), good, "{topic}");
    }
}

#[test]
fn what_is_the_hubs_cannot_be_overridden_and_an_event_has_its_bound() {
    let mut push = push();
    push.overrides.insert("stream".to_owned(), r#"{"id":"x"}"#.to_owned());
    assert_eq!(payload::encode(&push).unwrap_err().code, "reserved_key");
    push.overrides.insert("stream".to_owned(), r#"{"tags":["x"],"message":null}"#.to_owned());
    let body = payload::encode(&push).unwrap().body.render(&Filling {
        address: "",
        delivery: "",
        pushyard: "p",
        ttl: 0,
        expires_at: 0,
    });
    let value: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&value["message"], &value["tags"]), (&json!("triggered"), &json!(["x"])));
    push.data.insert("large".to_owned(), "x".repeat(61 << 10));
    assert_eq!(payload::encode(&push).unwrap_err().code, "too_large");
}
