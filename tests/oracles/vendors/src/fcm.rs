//! FCM's body: made with `fcm_v1`'s types, and read by them.
//!
//! Ours says more than a minimal message (each platform's part is always there), so
//! the same is said with their types in one case, and in all cases what we send must
//! survive being read and written by them: a field that they do not know, or of
//! another type, would be lost.

use std::collections::HashMap;

use fcm_v1::android::{AndroidConfig, AndroidMessagePriority, AndroidNotification};
use fcm_v1::apns::{ApnsConfig, ApnsFcmOptions};
use fcm_v1::message::{Message, Notification as TheirNotification};
use fcm_v1::webpush::{WebpushConfig, WebpushFcmOptions};
use pushyard_providers::Notification;
use serde_json::{Value, json};

use crate::Report;
use crate::ours::{self, EXPIRES, TTL_S};

pub fn compare(report: &mut Report) {
    let provider = ours::fcm();
    let text = |text: &str| Some(text.to_owned());
    let whole = Notification {
        title: text("Paid"),
        body: text("Order 7"),
        image: text("https://example.com/7.png"),
        url: text("https://example.com/7"),
        sound: text("ping"),
        badge: Some(3),
        category: text("order"),
        thread: text("orders"),
        tag: text("order-7"),
    };
    let body = |push, address: &[(&str, &str)]| {
        let (request, body) = ours::request(&*provider, &push, address);
        assert_eq!(request.uri.path(), "/v1/projects/my-project/messages:send");
        body["message"].clone()
    };
    let mut push = ours::push(Some(whole.clone()), &[("order", "7")], None);
    push.collapse_key = text("order-7");
    report.same("all of a notification", &body(push, &[("token", "t")]), &theirs());

    let shown = Notification { title: text("Paid"), ..Notification::default() };
    let patch = json!({
        "android": {"restricted_package_name": "com.example", "direct_boot_ok": true, "notification": {
            "icon": "i", "color": "#ff8800", "click_action": "OPEN", "body_loc_key": "b", "body_loc_args": ["1"],
            "title_loc_key": "t", "title_loc_args": ["2"], "channel_id": "orders", "ticker": "t", "sticky": true,
            "event_time": "2026-11-01T00:00:00Z", "local_only": true, "notification_priority": "PRIORITY_HIGH",
            "default_sound": true, "default_vibrate_timings": false, "default_light_settings": false,
            "vibrate_timings": ["0.5s"], "visibility": "PRIVATE"},
            "fcm_options": {"analytics_label": "a"}},
        "apns": {"payload": {"aps": {"interruption-level": "passive"}}, "fcm_options": {"analytics_label": "a"}},
        "webpush": {"notification": {"icon": "i"}, "fcm_options": {"analytics_label": "a"}},
        "fcm_options": {"analytics_label": "a"},
    });
    for (what, push, address) in [
        ("a title", ours::push(Some(shown.clone()), &[], None), ("token", "t")),
        ("data alone", ours::push(None, &[("order", "7")], None), ("token", "t")),
        ("to a topic", ours::push(Some(shown.clone()), &[], None), ("topic", "news")),
        ("to a condition", ours::push(Some(shown), &[], None), ("condition", "'a' in topics")),
        (
            "every field of theirs",
            ours::push(Some(whole), &[], Some(("fcm", patch))),
            ("token", "t"),
        ),
    ] {
        let ours = body(push, &[address]);
        report.same(what, &ours, &read_and_written(&ours));
    }
}

/// Through their types and back.
fn read_and_written(ours: &Value) -> Value {
    let mut given = ours.clone();
    // They cannot read a web part without options, and write an empty one.
    let bare = given["webpush"]["fcm_options"].is_null();
    if bare {
        given["webpush"]["fcm_options"] = json!({});
    }
    let read: Message = match serde_json::from_value(given) {
        Ok(read) => read,
        Err(error) => return format!("they cannot read it: {error}").into(),
    };
    let mut written = serde_json::to_value(read).expect("it serialises");
    if bare && let Some(part) = written["webpush"].as_object_mut() {
        part.remove("fcm_options");
    }
    written
}

fn theirs() -> Value {
    let text = |text: &str| Some(text.to_owned());
    let map =
        |value: Value| -> Option<HashMap<String, Value>> { serde_json::from_value(value).ok() };
    let message = Message {
        token: text("t"),
        data: map(json!({"order": "7", "pushyard": "id.secret"})),
        notification: Some(TheirNotification {
            title: text("Paid"),
            body: text("Order 7"),
            image: text("https://example.com/7.png"),
        }),
        android: Some(AndroidConfig {
            collapse_key: text("order-7"),
            priority: Some(AndroidMessagePriority::High),
            ttl: Some(format!("{TTL_S}s")),
            notification: Some(AndroidNotification {
                sound: text("ping"),
                tag: text("order-7"),
                notification_count: Some(3),
                ..AndroidNotification::default()
            }),
            ..AndroidConfig::default()
        }),
        apns: Some(ApnsConfig {
            headers: map(json!({
                "apns-priority": "10",
                "apns-expiration": EXPIRES.to_string(),
                "apns-collapse-id": "order-7",
            })),
            payload: map(json!({"aps": {
                "badge": 3, "sound": "ping", "thread-id": "orders", "category": "order", "mutable-content": 1,
            }})),
            fcm_options: Some(ApnsFcmOptions {
                image: text("https://example.com/7.png"),
                analytics_label: None,
            }),
        }),
        webpush: Some(WebpushConfig {
            headers: map(json!({"TTL": TTL_S.to_string(), "Urgency": "high", "Topic": "order-7"})),
            notification: map(json!({"tag": "order-7"})),
            fcm_options: WebpushFcmOptions {
                link: text("https://example.com/7"),
                analytics_label: None,
            },
            ..WebpushConfig::default()
        }),
        ..Message::default()
    };
    serde_json::to_value(message).expect("it serialises")
}
