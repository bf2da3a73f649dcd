//! Bodies as they go out, and what is refused before they do.

use serde_json::{Value, json};

use super::{MAX_MESSAGE, encode};
use crate::template::Filling;
use crate::{Invalid, Notification, Priority, Push};

fn sent(push: &Push) -> Value {
    let filling = Filling { address: "", delivery: "", pushyard: "", ttl: 0, expires_at: 0 };
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

fn overriding(mut push: Push, patch: &Value) -> Push {
    push.overrides.insert("gotify".to_owned(), patch.to_string());
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
      "priority": 8,
      "title": "Paid"
    }
    "#);
}

#[test]
fn all_options() {
    let mut push = alert();
    push.data = [("order".to_owned(), "7".to_owned())].into_iter().collect();
    push.priority = Priority::Normal;
    let notification = push.notification.as_mut().unwrap();
    notification.url = Some("https://shop.example/7".to_owned());
    notification.image = Some("https://shop.example/7.png".to_owned());
    insta::assert_json_snapshot!(sent(&push), @r#"
    {
      "extras": {
        "client::notification": {
          "bigImageUrl": "https://shop.example/7.png",
          "click": {
            "url": "https://shop.example/7"
          }
        },
        "push::data": {
          "order": "7"
        }
      },
      "message": "Grüße 🎉",
      "priority": 5,
      "title": "Paid"
    }
    "#);
}

#[test]
fn data_only_is_shown_as_json() {
    let data = [("order".to_owned(), "7".to_owned())].into_iter().collect();
    insta::assert_json_snapshot!(sent(&Push { data, ..Push::default() }), @r#"
    {
      "extras": {
        "push::data": {
          "order": "7"
        }
      },
      "message": "{\"order\":\"7\"}",
      "priority": 5
    }
    "#);
}

#[test]
fn overrides_are_merged() {
    let patch = json!({
        "priority": 2,
        "extras": {"client::display": {"contentType": "text/markdown"}},
    });
    let body = sent(&overriding(alert(), &patch));
    assert_eq!(body["priority"], 2);
    assert_eq!(body["extras"]["client::display"]["contentType"], "text/markdown");
    assert_eq!(body["title"], "Paid");
}

#[test]
fn what_gotify_cannot_take_is_known_before_any_call() {
    let mut long = alert();
    long.notification.as_mut().unwrap().body = Some("a".repeat(MAX_MESSAGE + 1));
    for (push, code, told) in [
        (long, "too_large", "32769 bytes"),
        (Push::default(), "nothing_to_show", "needs a title"),
        (overriding(alert(), &json!({"message": ""})), "override", "/overrides/gotify/message"),
        (overriding(alert(), &json!({"message": 1})), "override", "/overrides/gotify/message"),
        (overriding(alert(), &json!({"priority": "high"})), "override", "/priority"),
        (overriding(alert(), &json!({"title": 1})), "override", "/title"),
        (overriding(alert(), &json!({"extras": []})), "override", "/extras"),
    ] {
        let error = refused(&push);
        assert_eq!(error.code, code, "{error:?}");
        assert!(error.detail.contains(told), "{error:?}");
    }
}
