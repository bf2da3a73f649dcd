//! Payloads as the vendor sees them, and what is refused before any call.

use std::collections::BTreeMap;

use insta::assert_snapshot;
use serde_json::{Value, json};

use super::{Encoded, encode};
use crate::template::Filling;
use crate::{Invalid, Notification, Payload, Priority, Push};

fn alert(body: &str) -> Push {
    let notification = Notification { body: Some(body.to_owned()), ..Notification::default() };
    Push { notification: Some(notification), priority: Priority::High, ..Push::default() }
}

fn data(pairs: &[(&str, &str)]) -> Push {
    let data = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Push { data, ..Push::default() }
}

fn with(mut push: Push, overrides: &Value) -> Push {
    push.overrides = BTreeMap::from([("apns".to_owned(), overrides.to_string())]);
    push
}

/// Headers, a line each, and the body.
fn shown(push: &Push) -> String {
    let payload = encode(push, true).unwrap();
    let mut text: String = payload
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    text.push_str(&serde_json::to_string_pretty(&body(&payload)).unwrap());
    text
}

fn body(payload: &Payload) -> Value {
    let filling =
        Filling { address: "", delivery: "", pushyard: "id.secret", ttl: 0, expires_at: 0 };
    serde_json::from_slice(&payload.body.render(&filling)).unwrap()
}

fn header(payload: &Payload, name: &str) -> Option<String> {
    let mut values = payload.headers.iter().filter(|(header, _)| header == name);
    let value = values.next().map(|(_, v)| String::from_utf8_lossy(v.as_bytes()).into_owned());
    assert!(values.next().is_none(), "{name} stands once");
    value
}

fn detail(payload: &Payload) -> Encoded {
    *payload.detail.as_ref().unwrap().downcast_ref().unwrap()
}

fn refused(push: &Push) -> Invalid {
    encode(push, true).expect_err("it is refused")
}

#[test]
fn a_plain_notification_is_an_alert() {
    assert_snapshot!(shown(&alert("Order 7 is on its way")), @r#"
    content-type: application/json
    apns-push-type: alert
    apns-priority: 10
    {
      "aps": {
        "alert": {
          "body": "Order 7 is on its way"
        }
      },
      "pushyard": "id.secret"
    }
    "#);
}

#[test]
fn a_notification_with_everything() {
    let notification = Notification {
        title: Some("Paid".to_owned()),
        body: Some("Order \"7\"\n\u{1f4e6}".to_owned()),
        image: Some("https://example.com/7.png".to_owned()),
        url: Some("https://example.com/7".to_owned()),
        sound: Some("default".to_owned()),
        badge: Some(0),
        category: Some("order".to_owned()),
        thread: Some("orders".to_owned()),
        tag: Some("order-7".to_owned()),
    };
    let push = Push {
        notification: Some(notification),
        // The data's own `url` goes before the notification's.
        ..data(&[("order", "7"), ("url", "app://orders/7")])
    };
    assert_snapshot!(shown(&push), @r#"
    content-type: application/json
    apns-push-type: alert
    apns-priority: 5
    apns-collapse-id: order-7
    {
      "aps": {
        "alert": {
          "body": "Order \"7\"\n📦",
          "title": "Paid"
        },
        "badge": 0,
        "category": "order",
        "mutable-content": 1,
        "sound": "default",
        "thread-id": "orders"
      },
      "image": "https://example.com/7.png",
      "order": "7",
      "pushyard": "id.secret",
      "url": "app://orders/7"
    }
    "#);
}

#[test]
fn data_alone_is_a_background_push() {
    let push = Push { priority: Priority::High, ..data(&[("order", "7")]) };
    assert_snapshot!(shown(&push), @r#"
    content-type: application/json
    apns-push-type: background
    apns-priority: 5
    {
      "aps": {
        "content-available": 1
      },
      "order": "7",
      "pushyard": "id.secret"
    }
    "#);
}

#[test]
fn overrides_are_merged_last_and_set_headers() {
    let push = Push { collapse_key: Some("order-7".to_owned()), ..alert("hi") };
    let push = with(
        push,
        &json!({
            "aps": {"interruption-level": "time-sensitive", "alert": {"body": null, "title-loc-key": "T"}},
            "own": {"nested": [1, 2]},
            "headers": {"apns-priority": 1, "apns-expiration": "0", "apns-topic": "com.example.other",
                        "apns-collapse-id": null, "apns-new-thing": "yes"},
        }),
    );
    assert_snapshot!(shown(&push), @r#"
    content-type: application/json
    apns-push-type: alert
    apns-expiration: 0
    apns-new-thing: yes
    apns-priority: 1
    apns-topic: com.example.other
    {
      "aps": {
        "alert": {
          "title-loc-key": "T"
        },
        "interruption-level": "time-sensitive"
      },
      "own": {
        "nested": [
          1,
          2
        ]
      },
      "pushyard": "id.secret"
    }
    "#);
    let settled = detail(&encode(&push, true).unwrap()).settled;
    assert!(settled.topic && settled.expiration && settled.collapse_id);
}

#[test]
fn the_push_type_decides_suffix_and_priority() {
    for (push_type, suffix, priority) in [
        ("alert", "", "5"),
        ("background", "", "5"),
        ("voip", ".voip", "10"),
        ("complication", ".complication", "5"),
        ("fileprovider", ".pushkit.fileprovider", "5"),
        ("mdm", "", "5"),
        ("location", ".location-query", "5"),
        ("liveactivity", ".push-type.liveactivity", "5"),
        ("pushtotalk", ".voip-ptt", "10"),
        ("widgets", ".push-type.widgets", "5"),
        ("controls", ".push-type.controls", "5"),
        ("of-tomorrow", "", "5"),
    ] {
        let push = with(data(&[("k", "v")]), &json!({"headers": {"apns-push-type": push_type}}));
        let payload = encode(&push, true).unwrap();
        assert_eq!(header(&payload, "apns-push-type").as_deref(), Some(push_type));
        assert_eq!(header(&payload, "apns-priority").as_deref(), Some(priority), "{push_type}");
        assert_eq!(detail(&payload).suffix, suffix);
        let wakes = body(&payload)["aps"].get("content-available").is_some();
        assert_eq!(wakes, push_type == "background");
    }
    let location = with(data(&[]), &json!({"headers": {"apns-push-type": "location"}}));
    assert_eq!(encode(&location, false).err().unwrap().code, "push_type");
    // Something to show that came by an override makes it an alert.
    let shown = with(data(&[]), &json!({"aps": {"alert": "hi", "content-available": null}}));
    let payload = encode(&shown, true).unwrap();
    assert_eq!(header(&payload, "apns-push-type").as_deref(), Some("alert"));
}

#[test]
fn a_collapse_key_of_64_bytes_stays_and_a_longer_one_is_shortened() {
    let collapse = |key: &str| {
        let push = Push { collapse_key: Some(key.to_owned()), ..alert("hi") };
        let payload = encode(&push, true).unwrap();
        assert!(detail(&payload).settled.collapse_id);
        header(&payload, "apns-collapse-id").unwrap()
    };
    let fits = "ü".repeat(32);
    assert_eq!(collapse(&fits), fits);
    let long = format!("{fits}x");
    assert_eq!(collapse(&long).len(), 43);
    assert_eq!(collapse(&long), collapse(&long));
    assert_ne!(collapse(&long), collapse(&format!("{fits}y")));
    // What cannot stand in a header is shortened too.
    for odd in ["", " padded ", "line\nbreak"] {
        assert_eq!(collapse(odd).len(), 43);
    }
}

#[test]
fn without_a_collapse_key_the_delivery_gives_it_and_a_tag_is_one() {
    let payload = encode(&alert("hi"), true).unwrap();
    assert_eq!(header(&payload, "apns-collapse-id"), None);
    assert!(!detail(&payload).settled.collapse_id);
    let mut tagged = alert("hi");
    tagged.notification.as_mut().unwrap().tag = Some("order-7".to_owned());
    let payload = encode(&tagged, true).unwrap();
    assert_eq!(header(&payload, "apns-collapse-id").as_deref(), Some("order-7"));
}

#[test]
fn size_is_checked_to_the_byte() {
    // A channel takes 5120 bytes of a Live Activity, a device 4096: each call checks.
    for (push_type, limit) in [("alert", 4096), ("liveactivity", 5120), ("voip", 5120)] {
        let sized = |fill: usize| {
            with(alert(&"x".repeat(fill)), &json!({"headers": {"apns-push-type": push_type}}))
        };
        let empty = encode(&sized(0), true).unwrap().body.rendered_len(0);
        assert!(encode(&sized(limit - empty), true).is_ok());
        let invalid = refused(&sized(limit - empty + 1));
        assert_eq!(invalid.code, "too_large");
        let detail =
            format!("{} bytes of payload; APNs takes {limit} for {push_type} pushes", limit + 1);
        assert_eq!(invalid.detail, detail);
    }
}

#[test]
fn an_event_makes_a_push_for_live_activities() {
    let update = json!({"aps": {"timestamp": 1_700_000_000, "event": "update",
                                "content-state": {"score": "1:0"}}});
    assert_snapshot!(shown(&with(data(&[("match", "7")]), &update)), @r#"
    content-type: application/json
    apns-push-type: liveactivity
    apns-priority: 5
    {
      "aps": {
        "content-state": {
          "score": "1:0"
        },
        "event": "update",
        "timestamp": 1700000000
      },
      "match": "7",
      "pushyard": "id.secret"
    }
    "#);
    // A type that is given is the sender's word.
    let mut named = update;
    named["headers"] = json!({"apns-push-type": "alert"});
    let payload = encode(&with(alert("hi"), &named), true).unwrap();
    assert_eq!(header(&payload, "apns-push-type").as_deref(), Some("alert"));
}

#[test]
fn what_apns_would_refuse_is_refused_with_its_pointer() {
    let headers = |headers: Value| with(alert("hi"), &json!({"headers": headers}));
    for (push, code, told) in [
        (data(&[("aps", "x")]), "reserved_key", "/data/aps: this key is taken"),
        (data(&[("pushyard", "x")]), "reserved_key", "/data/pushyard: this key is taken"),
        (
            with(alert("hi"), &json!({"pushyard": "x"})),
            "reserved_key",
            "/overrides/apns/pushyard: this key is taken",
        ),
        (
            with(alert("hi"), &json!({"aps": null})),
            "override",
            "/overrides/apns/aps: must stay an object",
        ),
        (
            with(alert("hi"), &json!({"headers": []})),
            "override",
            "/overrides/apns/headers: must be an object",
        ),
        (
            headers(json!({"authorization": "bearer x"})),
            "override",
            "/overrides/apns/headers/authorization: the credential is the provider's",
        ),
        (
            headers(json!({"apns-id": "x"})),
            "override",
            "/overrides/apns/headers/apns-id: this is the delivery's id",
        ),
        (
            headers(json!({"host": "x"})),
            "override",
            "/overrides/apns/headers/host: only headers that begin with apns- can be set",
        ),
        (
            headers(json!({"a/b": "x"})),
            "override",
            "/overrides/apns/headers/a~1b: is no header's name",
        ),
        (
            headers(json!({"apns-topic": ["x"]})),
            "override",
            "/overrides/apns/headers/apns-topic: must be a string or a number",
        ),
        (
            headers(json!({"apns-topic": "a\nb"})),
            "override",
            "/overrides/apns/headers/apns-topic: cannot stand in a header",
        ),
        (
            headers(json!({"apns-priority": 7})),
            "override",
            "/overrides/apns/headers/apns-priority: must be 1, 5 or 10",
        ),
        (
            headers(json!({"apns-expiration": "soon"})),
            "override",
            "/overrides/apns/headers/apns-expiration: must be in unix seconds, or 0",
        ),
        (
            headers(json!({"apns-collapse-id": format!("{}x", "ü".repeat(32))})),
            "override",
            "/overrides/apns/headers/apns-collapse-id: must have at most 64 bytes",
        ),
        (
            headers(json!({"apns-push-type": ""})),
            "override",
            "/overrides/apns/headers/apns-push-type: must not be empty",
        ),
        (
            with(
                data(&[]),
                &json!({"headers": {"apns-push-type": "background", "apns-priority": 10}}),
            ),
            "override",
            "/overrides/apns/headers/apns-priority: background pushes must not have 10",
        ),
    ] {
        let invalid = refused(&push);
        assert_eq!((invalid.code, invalid.to_string()), (code, told.to_owned()));
        assert_eq!(invalid.pointer, told.split(": ").next().unwrap());
    }
    let fits = headers(json!({"apns-collapse-id": "ü".repeat(32)}));
    assert!(encode(&fits, true).is_ok());
}
