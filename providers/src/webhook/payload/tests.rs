//! Bodies as they go out, and what is refused before they do.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{body, encode};
use crate::webhook::KIND;
use crate::{Address, Call, Notification, Priority, Push, Written};

fn call(push: &Push, address: &[(&str, &str)], reference: Option<&str>) -> Call {
    Call {
        payload: Arc::new(encode(push).unwrap()),
        address: Address::new(&KIND, address, None, None).unwrap(),
        delivery: Uuid::parse_str("018bcfe5-6800-7000-8000-000000000001").unwrap(),
        reference: reference.map(Into::into),
        pushyard: "018bcfe5-6800-7000-8000-000000000001.0123456789012345678901".into(),
        ttl: Duration::from_secs(3600),
        expires_at: 1_700_003_600,
        written: Written::default(),
    }
}

fn sent(call: &Call) -> Value {
    serde_json::from_slice(&body(call).unwrap()).unwrap()
}

fn alert() -> Push {
    let notification = Notification {
        title: Some("Paid".to_owned()),
        body: Some("Grüße 🎉".to_owned()),
        badge: Some(0),
        ..Notification::default()
    };
    Push {
        notification: Some(notification),
        data: [("order".to_owned(), "7".to_owned())].into_iter().collect(),
        priority: Priority::High,
        collapse_key: Some("order-7".to_owned()),
        ..Push::default()
    }
}

#[test]
fn an_alert_with_all_options() {
    let call = call(&alert(), &[("id", "alice")], Some("alice-iphone"));
    insta::assert_json_snapshot!(sent(&call), @r#"
    {
      "data": {
        "collapse_key": "order-7",
        "data": {
          "order": "7"
        },
        "expires_at": "2023-11-14T23:13:20.000Z",
        "id": "alice",
        "notification": {
          "badge": 0,
          "body": "Grüße 🎉",
          "title": "Paid"
        },
        "priority": "high",
        "pushyard": "018bcfe5-6800-7000-8000-000000000001.0123456789012345678901",
        "ref": "alice-iphone"
      },
      "timestamp": "2023-11-14T22:13:20.000Z",
      "type": "push"
    }
    "#);
}

#[test]
fn data_only_without_ref_id_and_end_of_life() {
    let push = Push { data: alert().data, ..Push::default() };
    let mut call = call(&push, &[], None);
    call.expires_at = 0;
    insta::assert_json_snapshot!(sent(&call), @r#"
    {
      "data": {
        "collapse_key": null,
        "data": {
          "order": "7"
        },
        "expires_at": null,
        "id": "018bcfe5-6800-7000-8000-000000000001",
        "notification": null,
        "priority": "normal",
        "pushyard": "018bcfe5-6800-7000-8000-000000000001.0123456789012345678901",
        "ref": null
      },
      "timestamp": "2023-11-14T22:13:20.000Z",
      "type": "push"
    }
    "#);
}

#[test]
fn every_attempt_sends_the_same_bytes() {
    let call = call(&alert(), &[], None);
    let mut later = call.clone();
    later.ttl = Duration::from_secs(5);
    assert_eq!(body(&call).unwrap(), body(&later).unwrap());
}

#[test]
fn overrides_reach_everything_but_what_a_delivery_fills_in() {
    let with = |patch: Value| {
        let mut push = alert();
        push.overrides.insert("webhook".to_owned(), patch.to_string());
        push
    };
    let push = with(json!({"type": "shop.push", "data": {"notification": null, "more": 1}}));
    let body = sent(&call(&push, &[], None));
    assert_eq!(body["type"], "shop.push");
    assert_eq!(body["data"]["more"], 1);
    assert_eq!(body["data"].get("notification"), None);
    for (patch, told) in [
        (json!({"timestamp": "x"}), "/overrides/webhook/timestamp"),
        (json!({"data": {"pushyard": "x"}}), "/overrides/webhook/data/pushyard"),
        (json!({"data": {"id": "x"}}), "/overrides/webhook/data/id"),
        (json!({"data": 1}), "/overrides/webhook/data: must stay an object"),
    ] {
        let error = encode(&with(patch)).err().unwrap();
        assert!(error.detail.starts_with(told), "{error:?}");
    }
}
