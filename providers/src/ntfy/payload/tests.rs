//! Bodies as they go out, and what is refused before they do.

use serde_json::{Value, json};

use super::{MAX_MESSAGE, encode};
use crate::template::Filling;
use crate::{Invalid, Notification, Priority, Push};

fn sent(push: &Push) -> Value {
    let filling = Filling {
        address: "alice-7f3a",
        delivery: "0197aaaa-bbbb-cccc-dddd-eeeeffff0000",
        pushyard: "",
        ttl: 60,
        expires_at: 0,
    };
    serde_json::from_slice(&encode(push).unwrap().body.render(&filling)).unwrap()
}

fn alert() -> Push {
    let notification = Notification {
        title: Some("Paid".to_owned()),
        body: Some("Grüße 🎉".to_owned()),
        ..Notification::default()
    };
    Push { notification: Some(notification), priority: Priority::High, ..Push::default() }
}

fn overriding(patch: &Value) -> Push {
    let mut push = alert();
    push.overrides.insert("ntfy".to_owned(), patch.to_string());
    push
}

fn text(length: usize) -> Push {
    let mut push = alert();
    push.notification.as_mut().unwrap().body = Some("a".repeat(length));
    push
}

fn refused(push: &Push) -> Invalid {
    encode(push).err().unwrap()
}

#[test]
fn an_alert() {
    insta::assert_json_snapshot!(sent(&alert()), @r#"
    {
      "message": "Grüße 🎉",
      "priority": 4,
      "sequence_id": "0197aaaa-bbbb-cccc-dddd-eeeeffff0000",
      "title": "Paid",
      "topic": "alice-7f3a"
    }
    "#);
}

#[test]
fn all_options() {
    let mut push = overriding(&json!({
        "tags": ["tada", "order"],
        "icon": "https://shop.example/icon.png",
        "delay": "30m",
        "markdown": true,
        "actions": [{"action": "view", "label": "Open", "url": "https://shop.example/7"}],
        "priority": 5,
    }));
    push.collapse_key = Some("order-7".to_owned());
    let notification = push.notification.as_mut().unwrap();
    notification.url = Some("https://shop.example/7".to_owned());
    notification.image = Some("https://shop.example/7.png".to_owned());
    insta::assert_json_snapshot!(sent(&push), @r#"
    {
      "actions": [
        {
          "action": "view",
          "label": "Open",
          "url": "https://shop.example/7"
        }
      ],
      "attach": "https://shop.example/7.png",
      "click": "https://shop.example/7",
      "delay": "30m",
      "icon": "https://shop.example/icon.png",
      "markdown": true,
      "message": "Grüße 🎉",
      "priority": 5,
      "sequence_id": "order-7",
      "tags": [
        "tada",
        "order"
      ],
      "title": "Paid",
      "topic": "alice-7f3a"
    }
    "#);
}

#[test]
fn data_only_is_sent_as_json_text() {
    let data = [("order".to_owned(), "7".to_owned())].into_iter().collect();
    insta::assert_json_snapshot!(sent(&Push { data, ..Push::default() }), @r#"
    {
      "message": "{\"order\":\"7\"}",
      "priority": 3,
      "sequence_id": "0197aaaa-bbbb-cccc-dddd-eeeeffff0000",
      "topic": "alice-7f3a"
    }
    "#);
}

#[test]
fn a_title_alone_is_the_text() {
    let mut push = alert();
    push.notification.as_mut().unwrap().body = None;
    let body = sent(&push);
    assert_eq!((&body["message"], body.get("title")), (&json!("Paid"), None));
}

#[test]
fn a_key_becomes_the_sequence_id_or_its_hash() {
    let id = |key: Option<&str>, tag: Option<&str>| {
        let mut push = alert();
        push.collapse_key = key.map(str::to_owned);
        push.notification.as_mut().unwrap().tag = tag.map(str::to_owned);
        sent(&push)["sequence_id"].as_str().unwrap().to_owned()
    };
    assert_eq!(id(None, None), "0197aaaa-bbbb-cccc-dddd-eeeeffff0000");
    assert_eq!(id(Some("order-7"), Some("tag")), "order-7");
    assert_eq!(id(None, Some("tag")), "tag");
    let hashed = id(Some("order/7"), None);
    assert!(crate::ntfy::is_topic(&hashed) && hashed.len() == 43, "{hashed}");
    assert_eq!(hashed, id(Some("order/7"), None));
}

#[test]
fn headers_are_set_on_the_request_but_for_our_own() {
    let headers = |patch: &Value| encode(&overriding(&json!({ "headers": patch })));
    let payload = headers(&json!({"X-Cache": "no", "X-Title": "Grüße", "X-Gone": null})).unwrap();
    let of =
        |name: &str| payload.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_bytes());
    assert_eq!(of("x-cache"), Some(&b"no"[..]));
    assert_eq!(of("x-title"), Some("Grüße".as_bytes()));
    assert_eq!(of("x-gone"), None);
    for (patch, told) in [
        (json!({"Authorization": "Bearer x"}), "/overrides/ntfy/headers/Authorization"),
        (json!({"x-pushyard": "x"}), "/overrides/ntfy/headers/x-pushyard"),
        (json!({"content-length": 1}), "/overrides/ntfy/headers/content-length"),
        (json!({"a/b": "x"}), "/overrides/ntfy/headers/a~1b"),
        (json!({"X-Cache": true}), "must be a string or a number"),
        (json!({"X-Cache": "a\nb"}), "cannot stand in a header"),
        (json!("X-Cache: no"), "/overrides/ntfy/headers: must be an object"),
    ] {
        let error = headers(&patch).err().unwrap();
        assert!(error.detail.contains(told), "{error:?}");
    }
}

#[test]
fn a_text_that_would_become_an_attachment_is_refused() {
    assert!(encode(&text(MAX_MESSAGE)).is_ok());
    let error = refused(&text(MAX_MESSAGE + 1));
    assert_eq!(error.code, "too_large");
    // Few bytes of text, and many of JSON.
    let mut escaped = alert();
    escaped.notification.as_mut().unwrap().body = Some("\u{1}".repeat(4000));
    assert_eq!(refused(&escaped).code, "too_large");
}

#[test]
fn what_ntfy_cannot_take_is_known_before_any_call() {
    let four = json!([{}, {}, {}, {}]);
    for (push, code, told) in [
        (Push::default(), "nothing_to_show", "needs a title"),
        (overriding(&json!({"topic": "other"})), "override", "/overrides/ntfy/topic"),
        (overriding(&json!({"priority": "high"})), "override", "/overrides/ntfy/priority"),
        (overriding(&json!({"priority": 6})), "override", "/overrides/ntfy/priority"),
        (overriding(&json!({"tags": "a,b"})), "override", "/overrides/ntfy/tags"),
        (overriding(&json!({"actions": four})), "override", "/overrides/ntfy/actions"),
        (overriding(&json!({"delay": 30})), "override", "/overrides/ntfy/delay"),
        (overriding(&json!({"markdown": "yes"})), "override", "/overrides/ntfy/markdown"),
    ] {
        let error = refused(&push);
        assert_eq!(error.code, code, "{error:?}");
        assert!(error.detail.contains(told), "{error:?}");
    }
}
