//! Payloads as they go out, and what is refused before they do.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{body, encode};
use crate::template::Filling;
use crate::{Invalid, Notification, Priority, Push};

const FILLING: Filling<'_> = Filling {
    address: "",
    delivery: "0197aaaabbbbccccddddeeeeffff0000",
    pushyard: "0197aaaa-bbbb-cccc-dddd-eeeeffff0000.0123456789012345678901",
    ttl: 3600,
    expires_at: 1_700_003_600,
};

fn alert() -> Push {
    let notification = Notification {
        title: Some("Paid".to_owned()),
        body: Some("Order 7".to_owned()),
        ..Notification::default()
    };
    Push { notification: Some(notification), priority: Priority::High, ..Push::default() }
}

fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn overriding(mut push: Push, patch: &Value) -> Push {
    push.overrides.insert("fcm".to_owned(), patch.to_string());
    push
}

fn sent(push: &Push, target: (&str, &str)) -> Value {
    let payload = encode(push).unwrap();
    serde_json::from_slice(&body(&payload, target, &FILLING).unwrap()).unwrap()
}

fn to_token(push: &Push) -> Value {
    sent(push, ("token", "e1"))
}

fn refused(push: &Push) -> Invalid {
    encode(push).err().unwrap()
}

#[test]
fn an_alert() {
    insta::assert_json_snapshot!(to_token(&alert()), @r#"
    {
      "message": {
        "android": {
          "notification": {
            "tag": "0197aaaabbbbccccddddeeeeffff0000"
          },
          "priority": "HIGH",
          "ttl": "3600s"
        },
        "apns": {
          "headers": {
            "apns-collapse-id": "0197aaaabbbbccccddddeeeeffff0000",
            "apns-expiration": "1700003600",
            "apns-priority": "10"
          }
        },
        "data": {
          "pushyard": "0197aaaa-bbbb-cccc-dddd-eeeeffff0000.0123456789012345678901"
        },
        "notification": {
          "body": "Order 7",
          "title": "Paid"
        },
        "token": "e1",
        "webpush": {
          "headers": {
            "TTL": "3600",
            "Topic": "0197aaaabbbbccccddddeeeeffff0000",
            "Urgency": "high"
          },
          "notification": {
            "tag": "0197aaaabbbbccccddddeeeeffff0000"
          }
        }
      }
    }
    "#);
}

#[test]
fn data_only() {
    let push = Push { data: data(&[("order", "7")]), ..Push::default() };
    insta::assert_json_snapshot!(to_token(&push), @r#"
    {
      "message": {
        "android": {
          "priority": "NORMAL",
          "ttl": "3600s"
        },
        "apns": {
          "headers": {
            "apns-collapse-id": "0197aaaabbbbccccddddeeeeffff0000",
            "apns-expiration": "1700003600",
            "apns-priority": "5"
          },
          "payload": {
            "aps": {
              "content-available": 1
            }
          }
        },
        "data": {
          "order": "7",
          "pushyard": "0197aaaa-bbbb-cccc-dddd-eeeeffff0000.0123456789012345678901"
        },
        "token": "e1",
        "webpush": {
          "headers": {
            "TTL": "3600",
            "Topic": "0197aaaabbbbccccddddeeeeffff0000",
            "Urgency": "normal"
          }
        }
      }
    }
    "#);
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
        data: data(&[("order", "7")]),
        priority: Priority::Normal,
        collapse_key: some("order/7"),
        overrides: BTreeMap::new(),
    }
}

#[test]
fn all_options() {
    insta::assert_json_snapshot!(to_token(&everything()), @r#"
    {
      "message": {
        "android": {
          "collapse_key": "order/7",
          "notification": {
            "notification_count": 3,
            "sound": "default",
            "tag": "order-7"
          },
          "priority": "NORMAL",
          "ttl": "3600s"
        },
        "apns": {
          "fcm_options": {
            "image": "https://shop.example/7.png"
          },
          "headers": {
            "apns-collapse-id": "order/7",
            "apns-expiration": "1700003600",
            "apns-priority": "5"
          },
          "payload": {
            "aps": {
              "badge": 3,
              "category": "order",
              "mutable-content": 1,
              "sound": "default",
              "thread-id": "orders"
            }
          }
        },
        "data": {
          "order": "7",
          "pushyard": "0197aaaa-bbbb-cccc-dddd-eeeeffff0000.0123456789012345678901"
        },
        "notification": {
          "body": "Order 7",
          "image": "https://shop.example/7.png",
          "title": "Paid"
        },
        "token": "e1",
        "webpush": {
          "fcm_options": {
            "link": "https://shop.example/7"
          },
          "headers": {
            "TTL": "3600",
            "Topic": "XUviL-eRMqBAybJlRY8PwZvPNbGNo2ic",
            "Urgency": "normal"
          },
          "notification": {
            "tag": "order-7"
          }
        }
      }
    }
    "#);
}

#[test]
fn overrides_are_merged_in_either_spelling() {
    let patch = json!({
        "android": {
            "collapseKey": "mine", "priority": "normal", "ttl": "3.5s",
            "notification": {"channelId": "orders", "sound": null},
            "data": {"onlyAndroid": "1"},
        },
        "apns": {"headers": {"apns-priority": "5"}, "payload": {"myKey": {"aB": 1}}},
        "webpush": {"notification": {"requireInteraction": true}, "headers": null},
        "fcmOptions": {"analyticsLabel": "autumn_2026~1"},
    });
    insta::assert_json_snapshot!(to_token(&overriding(alert(), &patch)), @r#"
    {
      "message": {
        "android": {
          "collapse_key": "mine",
          "data": {
            "onlyAndroid": "1",
            "pushyard": "0197aaaa-bbbb-cccc-dddd-eeeeffff0000.0123456789012345678901"
          },
          "notification": {
            "channel_id": "orders",
            "tag": "0197aaaabbbbccccddddeeeeffff0000"
          },
          "priority": "NORMAL",
          "ttl": "3.5s"
        },
        "apns": {
          "headers": {
            "apns-collapse-id": "0197aaaabbbbccccddddeeeeffff0000",
            "apns-expiration": "1700003600",
            "apns-priority": "5"
          },
          "payload": {
            "myKey": {
              "aB": 1
            }
          }
        },
        "data": {
          "pushyard": "0197aaaa-bbbb-cccc-dddd-eeeeffff0000.0123456789012345678901"
        },
        "fcm_options": {
          "analytics_label": "autumn_2026~1"
        },
        "notification": {
          "body": "Order 7",
          "title": "Paid"
        },
        "token": "e1",
        "webpush": {
          "notification": {
            "requireInteraction": true,
            "tag": "0197aaaabbbbccccddddeeeeffff0000"
          }
        }
      }
    }
    "#);
}

#[test]
fn each_kind_of_target_has_its_own_key_and_is_escaped() {
    let push = Push { data: data(&[("a", "b")]), ..Push::default() };
    for (kind, target) in [
        ("token", "e1:APA91b\"\\"),
        ("fid", "f1"),
        ("topic", "news"),
        ("condition", "'a' in topics && 'b' in topics"),
    ] {
        let sent = sent(&push, (kind, target));
        assert_eq!(sent["message"][kind], target);
        let targets = ["token", "fid", "topic", "condition"];
        assert_eq!(targets.iter().filter(|key| sent["message"].get(key).is_some()).count(), 1);
    }
}

#[test]
fn the_receipt_string_stays_whatever_the_overrides() {
    let patch = json!({
        "data": null, "android": {"data": {"a": "b"}}, "webpush": {"data": {"a": "b"}}
    });
    let sent = to_token(&overriding(alert(), &patch));
    for pointer in ["/message/data", "/message/android/data", "/message/webpush/data"] {
        assert_eq!(sent.pointer(pointer).unwrap()["pushyard"], FILLING.pushyard);
    }
    let nothing = json!({"android": null, "apns": null, "webpush": null, "notification": null});
    let sent = to_token(&overriding(alert(), &nothing));
    assert_eq!(sent, json!({"message": {"token": "e1", "data": {"pushyard": FILLING.pushyard}}}));
}

#[test]
fn now_or_never_is_so_on_every_platform() {
    let payload = encode(&alert()).unwrap();
    let now = Filling { ttl: 0, expires_at: 0, ..FILLING };
    let sent: Value =
        serde_json::from_slice(&body(&payload, ("token", "e1"), &now).unwrap()).unwrap();
    assert_eq!(sent["message"]["android"]["ttl"], "0s");
    assert_eq!(sent["message"]["apns"]["headers"]["apns-expiration"], "0");
    assert_eq!(sent["message"]["webpush"]["headers"]["TTL"], "0");
}

#[test]
fn long_or_odd_collapse_keys_are_hashed_where_they_do_not_fit() {
    for (key, collapse_id, topic) in [
        ("order-7", "order-7", "order-7"),
        ("order/7", "order/7", "XUviL-eRMqBAybJlRY8PwZvPNbGNo2ic"),
        (&"k".repeat(32), &*"k".repeat(32), &*"k".repeat(32)),
        (&"k".repeat(64), &*"k".repeat(64), "JRm0m89p_qwnCsPIYxU56MrtTH5qYsbM"),
    ] {
        let mut push = alert();
        push.collapse_key = Some(key.to_owned());
        let sent = to_token(&push);
        assert_eq!(sent["message"]["apns"]["headers"]["apns-collapse-id"], collapse_id);
        assert_eq!(sent["message"]["webpush"]["headers"]["Topic"], topic);
        assert_eq!(sent["message"]["android"]["collapse_key"], key);
    }
    for key in ["k".repeat(65), "ä".repeat(33), "ä".to_owned()] {
        let mut push = alert();
        push.collapse_key = Some(key.clone());
        let sent = to_token(&push);
        let id = sent["message"]["apns"]["headers"]["apns-collapse-id"].as_str().unwrap();
        assert_eq!(id.len(), 43, "base64url of a SHA-256, for {key}");
        assert_eq!(sent["message"]["webpush"]["headers"]["Topic"], id[..32]);
    }
}

#[test]
fn a_badge_alone_shows_nothing_on_android() {
    let notification = Notification { badge: Some(0), ..Notification::default() };
    let push = Push { notification: Some(notification), ..Push::default() };
    let sent = to_token(&push);
    assert_eq!(sent["message"]["apns"]["payload"], json!({"aps": {"badge": 0}}));
    assert_eq!(sent["message"].get("notification"), None);
    assert_eq!(sent["message"]["android"].get("notification"), None);
    assert_eq!(sent["message"]["webpush"].get("notification"), None);
}

#[test]
fn an_override_of_the_target_is_refused() {
    for target in ["token", "fid", "topic", "condition"] {
        let invalid = refused(&overriding(alert(), &json!({ target: "elsewhere" })));
        assert_eq!(invalid.code, "target_override");
        assert_eq!(invalid.pointer, format!("/overrides/fcm/{target}"));
        assert!(!invalid.detail.contains("elsewhere"));
    }
}

#[test]
fn reserved_keys_are_refused_by_name() {
    for key in ["from", "message_type", "notification", "pushyard", "google.x", "googleX", "gcm.n"]
    {
        let push = Push { data: data(&[("ok", "1"), (key, "hidden")]), ..Push::default() };
        let invalid = refused(&push);
        assert_eq!(invalid.code, "reserved_key");
        assert_eq!(invalid.pointer, format!("/data/{key}"));
        let patch = json!({"android": {"data": {key: "hidden"}}});
        let invalid = refused(&overriding(alert(), &patch));
        assert_eq!(invalid.pointer, format!("/overrides/fcm/android/data/{key}"));
        assert!(!invalid.detail.contains("hidden"));
    }
    for key in ["collapse_key", "froms", "a.google"] {
        assert!(encode(&Push { data: data(&[(key, "1")]), ..Push::default() }).is_ok(), "{key}");
    }
}

#[test]
fn overrides_that_fcm_would_refuse_are_refused_with_a_pointer() {
    for (patch, code, pointer) in [
        (json!({"data": {"n": 4711}}), "not_string", "/data/n"),
        (json!({"data": {"a/b": {}}}), "not_string", "/data/a~1b"),
        (json!({"android": {"data": {"n": true}}}), "not_string", "/android/data/n"),
        (json!({"webpush": {"data": {"n": []}}}), "not_string", "/webpush/data/n"),
        (
            json!({"apns": {"headers": {"apns-priority": 5}}}),
            "not_string",
            "/apns/headers/apns-priority",
        ),
        (json!({"webpush": {"headers": 1}}), "not_object", "/webpush/headers"),
        (json!({"android": {"data": "x"}}), "not_object", "/android/data"),
        (json!({"data": "x"}), "not_object", "/data"),
        (json!({"android": 7}), "not_object", "/android"),
        (json!({"notification": []}), "not_object", "/notification"),
        (json!({"android": {"ttl": "2419201s"}}), "ttl", "/android/ttl"),
        (json!({"android": {"ttl": "-1s"}}), "ttl", "/android/ttl"),
        (json!({"android": {"ttl": "1h"}}), "ttl", "/android/ttl"),
        (json!({"android": {"ttl": "infs"}}), "ttl", "/android/ttl"),
        (json!({"android": {"ttl": 5}}), "ttl", "/android/ttl"),
        (json!({"android": {"priority": "max"}}), "priority", "/android/priority"),
        (json!({"android": {"priority": 10}}), "priority", "/android/priority"),
        (
            json!({"fcm_options": {"analytics_label": ""}}),
            "analytics_label",
            "/fcm_options/analytics_label",
        ),
        (
            json!({"android": {"fcm_options": {"analytics_label": "a b"}}}),
            "analytics_label",
            "/android/fcm_options/analytics_label",
        ),
        (
            json!({"apns": {"fcmOptions": {"analyticsLabel": "x".repeat(51)}}}),
            "analytics_label",
            "/apns/fcm_options/analytics_label",
        ),
        (
            json!({"webpush": {"fcm_options": {"link": "http://a.example"}}}),
            "link",
            "/webpush/fcm_options/link",
        ),
    ] {
        let invalid = refused(&overriding(alert(), &patch));
        assert_eq!(invalid.code, code, "{patch}");
        assert_eq!(invalid.pointer, format!("/overrides/fcm{pointer}"), "{patch}");
        assert!(!invalid.detail.contains("4711"));
    }
    for ttl in ["0s", "3.5s", "2419200s"] {
        assert!(encode(&overriding(alert(), &json!({"android": {"ttl": ttl}}))).is_ok(), "{ttl}");
    }
}

#[test]
fn payloads_are_measured_against_the_limit_of_their_target() {
    // key `x`, key `pushyard` and its value
    let rest = 1 + 8 + 59;
    // `aps.content-available = 1`, what Apple devices get besides
    let aps = 3 + 17 + 1;
    let of =
        |bytes: usize| Push { data: data(&[("x", &"ä".repeat(bytes / 2))]), ..Push::default() };
    let fitting = |most: usize| (most - rest - aps) / 2 * 2;
    assert!(encode(&of(fitting(4096))).is_ok());
    let invalid = refused(&of(fitting(4096) + 2));
    assert_eq!(invalid.code, "too_large");
    assert!(invalid.detail.contains("4096"));
    for (kind, bytes, fits) in [
        ("token", fitting(2048) + 2, true),
        ("fid", fitting(2048) + 2, true),
        ("topic", fitting(2048), true),
        ("topic", fitting(2048) + 2, false),
        ("condition", fitting(2048) + 2, false),
    ] {
        let payload = encode(&of(bytes)).unwrap();
        let body = body(&payload, (kind, "x"), &FILLING);
        assert_eq!(body.is_ok(), fits, "{kind} {bytes}");
        if let Err(invalid) = body {
            assert_eq!(invalid.code, "too_large");
        }
    }
}

#[test]
fn a_platform_part_counts_for_its_platform_only() {
    let big = "x".repeat(3000);
    let patch = json!({
        "android": {"data": {"big": big}},
        "webpush": {"data": {"big": big}},
        "apns": {"payload": {"big": big}},
    });
    assert!(encode(&overriding(alert(), &patch)).is_ok());
}
