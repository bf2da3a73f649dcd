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
        max_subscribers_per_address: 2,
        max_subscribers_per_topic: 3,
        max_topics: 4,
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
async fn places_and_topics_are_bounded_in_all_and_by_address_and_topic() {
    let (_dir, hub) = hub(HubSettings {
        max_subscribers: 4,
        max_subscribers_per_address: 2,
        max_subscribers_per_topic: 2,
        max_topics: 5,
        max_topics_per_address: 3,
        ..small()
    });
    let listen = |names: &[&str], from| hub.subscribe(topics(names), address(from));
    let first = listen(&["a", "b"], 1).unwrap();
    assert_eq!(listen(&["b", "c", "d"], 1).unwrap_err(), Full::AddressTopics);
    let again = listen(&["a"], 1).unwrap();
    assert_eq!(listen(&["b"], 1).unwrap_err(), Full::AddressSubscribers);
    assert_eq!(hub.place(address(1)).unwrap_err(), Full::AddressSubscribers);
    assert_eq!(listen(&["a"], 2).unwrap_err(), Full::TopicSubscribers);
    let other = listen(&["c", "d"], 2).unwrap();
    assert_eq!(listen(&["e", "f"], 3).unwrap_err(), Full::Topics);
    let polls = hub.place(address(3)).unwrap();
    assert_eq!(listen(&["e"], 4).unwrap_err(), Full::Subscribers);
    drop((first, again, polls));
    let figures = hub.figures();
    assert_eq!((figures.subscribers, figures.topics), (1, 2));
    // Nothing that was given back is counted, nor what was refused.
    listen(&["x", "y", "z"], 1).unwrap();
    drop(other);
    assert_eq!((hub.figures().subscribers, hub.figures().topics), (0, 0));
}

#[tokio::test]
async fn text_from_outside_is_kept_for_its_life_and_counted() {
    let (_dir, hub) = hub(small());
    let text = Text::new(&[0xFF, 0xFE]).unwrap();
    let line = hub.publish_text("upabc", &text, Duration::from_secs(30)).await.unwrap();
    let value: Value = serde_json::from_slice(&line).unwrap();
    let id = value["id"].as_str().unwrap().to_owned();
    assert_eq!(
        value,
        json!({"id": id, "time": NOW, "expires": NOW + 30, "event": "message", "topic": "upabc",
               "message": "//4=", "encoding": "base64"})
    );
    let day = Duration::from_secs(86_400);
    let longer = hub.publish_text("upabc", &text, day).await.unwrap();
    let longer: Value = serde_json::from_slice(&longer).unwrap();
    assert_eq!(longer["expires"], json!(NOW + 60), "no longer than the backlog keeps");
    hub.publish_text("upabc", &text, Duration::ZERO).await.unwrap();
    let (kept, _) = hub.after(&topics(&["upabc"]), 0).unwrap();
    assert_eq!(kept.len(), 2, "for now or never is not kept");
    assert_eq!(hub.stats(), HubStats { messages: 3, rate: 3.0 / 600.0 });
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
    let filling = Filling { address: "", delivery: "", pushyard: "p", ttl: 0, expires_at: 0 };
    let body = payload::encode(&push).unwrap().body.render(&filling);
    let value: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&value["message"], &value["tags"]), (&json!("triggered"), &json!(["x"])));
    let actions = r#"{"actions":[{"action":"view","label":"a","url":"https://a"},{"id":"mine"}]}"#;
    push.overrides.insert("stream".to_owned(), actions.to_owned());
    let body = payload::encode(&push).unwrap().body.render(&filling);
    let value: Value = serde_json::from_slice(&body).unwrap();
    let ids = (&value["actions"][0]["id"], &value["actions"][1]["id"]);
    assert_eq!(ids, (&json!("action0000"), &json!("mine")), "clients need an id");
    push.data.insert("large".to_owned(), "x".repeat(61 << 10));
    assert_eq!(payload::encode(&push).unwrap_err().code, "too_large");
}
