//! A message as FCM wants it (Firebase, *REST Resource: projects.messages*).
//!
//! One body serves Android, Apple and the web, because a token does not tell its
//! platform: each platform's part is always there. The target is left out of the
//! template and put in front by [`body`], for the name of its key depends on the
//! address: the rest is built once for all kinds of targets.
//!
//! What FCM would refuse is refused here where it can be seen without asking: a
//! 400 for each of a thousand recipients costs the project's quota.
//!
//! The *replace* key of a message without keys of its own is the delivery id, so
//! that a repeat takes the first one's place on the screen. It never goes into
//! Android's `collapse_key`: a device keeps only four of those (*Collapsible
//! message types*), and a key for each delivery would evict the app's own.
//!
//! `category` does not become Android's `click_action`: an app without an intent
//! filter of that name would not open at all. `url` reaches browsers only; FCM has
//! no such field for apps. Overrides reach both.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderName, HeaderValue, header};
use serde_json::{Map, Value, json};

use super::check;
use crate::push::merge;
use crate::template::{Filling, Slot};
use crate::{Invalid, Notification, Payload, Priority, Push, Template};

/// *Message types*: 4096 bytes of payload to a device, 2048 to topics.
const MOST_TO_DEVICE: usize = 4096;
const MOST_TO_TOPIC: usize = 2048;

/// `<delivery id>.<secret>`.
const PUSHYARD_LEN: usize = 36 + 1 + 22;

/// The key of that string in `data`.
pub(super) const PUSHYARD: &str = "pushyard";

/// What FCM counts of a payload, in bytes, as well as we know it.
struct Weight(usize);

/// The message without its target.
///
/// # Errors
/// What FCM would refuse, with a pointer into the message.
pub(super) fn encode(push: &Push) -> Result<Payload, Invalid> {
    let patch = check::patch(push.patch("fcm"))?;
    check::keys(push)?;
    let mut message = message(push);
    merge(&mut message, Value::Object(patch));
    check::message(&mut message)?;
    let weight = Weight(weight(&message));
    fits(&weight, MOST_TO_DEVICE)?;
    add_pushyard(&mut message);
    Ok(Payload {
        body: Template::new(&message),
        headers: vec![
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            // What the vendor's own clients send: it selects the typed errors.
            (HeaderName::from_static("x-goog-api-format-version"), HeaderValue::from_static("2")),
        ],
        detail: Some(Arc::new(weight)),
    })
}

/// The body for one recipient: the target in front of what [`encode`] made.
///
/// # Errors
/// When it is too large for this kind of target.
pub(super) fn body(
    payload: &Payload,
    (kind, target): (&str, &str),
    filling: &Filling<'_>,
) -> Result<Bytes, Invalid> {
    let weight = payload.detail.as_ref().and_then(|detail| detail.downcast_ref::<Weight>());
    if let (Some(weight), "topic" | "condition") = (weight, kind) {
        fits(weight, MOST_TO_TOPIC)?;
    }
    let message = payload.body.render(filling);
    let target = Value::from(target).to_string();
    let mut body = BytesMut::with_capacity(message.len() + target.len() + 32);
    body.put(&br#"{"message":{""#[..]);
    body.put(kind.as_bytes());
    body.put(&br#"":"#[..]);
    body.put(target.as_bytes());
    body.put_u8(b',');
    // `data` is always in it, so what follows its brace is a member.
    body.put(message.slice(1..));
    body.put_u8(b'}');
    Ok(body.freeze())
}

fn fits(weight: &Weight, most: usize) -> Result<(), Invalid> {
    if weight.0 <= most {
        return Ok(());
    }
    let detail = format!("{} bytes of payload, and FCM takes {most}", weight.0);
    Err(Invalid::new("too_large", detail))
}

fn message(push: &Push) -> Value {
    // A notification of nothing but a badge or a sound shows nothing: to Android
    // and browsers it is data, or they would show an empty one.
    let shown = push
        .notification
        .as_ref()
        .filter(|n| n.title.is_some() || n.body.is_some() || n.image.is_some());
    let mut message = json!({
        "data": push.data,
        "android": android(push, shown),
        "apns": apns(push),
        "webpush": webpush(push, shown),
    });
    if let Some(notification) = shown {
        message["notification"] = present([
            ("title", notification.title.as_deref().map(Value::from)),
            ("body", notification.body.as_deref().map(Value::from)),
            ("image", notification.image.as_deref().map(Value::from)),
        ]);
    }
    message
}

fn android(push: &Push, shown: Option<&Notification>) -> Value {
    let notification = shown.map(|notification| {
        let tag = notification.tag.clone().unwrap_or_else(|| Slot::Delivery.marker());
        // An int32 there.
        let badge = notification.badge.map(|badge| badge.min(i32::MAX as u32));
        present([
            ("tag", Some(tag.into())),
            ("sound", notification.sound.as_deref().map(Value::from)),
            ("notification_count", badge.map(Value::from)),
        ])
    });
    let priority = match push.priority {
        Priority::High => "HIGH",
        Priority::Normal => "NORMAL",
    };
    present([
        ("priority", Some(priority.into())),
        ("ttl", Some(ttl().into())),
        ("collapse_key", push.collapse_key.as_deref().map(Value::from)),
        ("notification", notification),
    ])
}

/// Apple's own header names and payload; FCM fills in alert and data.
fn apns(push: &Push) -> Value {
    let shown = push.notification.as_ref();
    // *Sending Notification Requests to APNs*: a background push must have 5.
    let priority = match (push.priority, shown) {
        (Priority::High, Some(_)) => "10",
        (Priority::Normal, Some(_)) | (Priority::High | Priority::Normal, None) => "5",
    };
    let replaces = push.collapse_key.as_deref().or(shown.and_then(|n| n.tag.as_deref()));
    let collapse_id = replaces.map_or_else(
        || Slot::Delivery.marker(),
        |key| shortened(key, 64, |byte| byte.is_ascii_graphic() || byte == b' '),
    );
    let image = shown.and_then(|n| n.image.as_deref());
    let aps = present([
        ("content-available", shown.is_none().then(|| 1.into())),
        ("badge", shown.and_then(|n| n.badge).map(Value::from)),
        ("sound", shown.and_then(|n| n.sound.as_deref()).map(Value::from)),
        ("thread-id", shown.and_then(|n| n.thread.as_deref()).map(Value::from)),
        ("category", shown.and_then(|n| n.category.as_deref()).map(Value::from)),
        // The app's own extension fetches the picture, and only if told to.
        ("mutable-content", image.map(|_| 1.into())),
    ]);
    present([
        (
            "headers",
            Some(json!({
                "apns-priority": priority,
                "apns-expiration": Slot::Expires.marker(),
                "apns-collapse-id": collapse_id,
            })),
        ),
        // Left out when empty, so that nobody can take it for a payload without alert.
        ("payload", (aps != json!({})).then(|| json!({ "aps": aps }))),
        ("fcm_options", image.map(|image| json!({ "image": image }))),
    ])
}

fn webpush(push: &Push, shown: Option<&Notification>) -> Value {
    // RFC 8030 section 5.4: at most 32 characters of the URL-safe alphabet.
    let topic = push.collapse_key.as_deref().map_or_else(
        || Slot::Delivery.marker(),
        |key| {
            shortened(key, 32, |byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        },
    );
    let tag = shown.map(|n| n.tag.clone().unwrap_or_else(|| Slot::Delivery.marker()));
    let link = shown.and_then(|n| n.url.as_deref()).filter(|url| url.starts_with("https://"));
    present([
        (
            "headers",
            Some(json!({
                "TTL": Slot::Ttl.marker(),
                "Urgency": push.priority.word(),
                "Topic": topic,
            })),
        ),
        ("notification", tag.map(|tag| json!({ "tag": tag }))),
        ("fcm_options", link.map(|link| json!({ "link": link }))),
    ])
}

/// What [`Slot::Delivery`] is filled with: 32 characters, which is all that a Web
/// Push topic takes.
pub(super) fn replace_key(delivery: uuid::Uuid) -> String {
    delivery.simple().to_string()
}

/// A duration in protobuf's JSON form.
pub(super) fn ttl() -> String {
    format!("{}s", Slot::Ttl.marker())
}

/// A key that is too long, or has bytes that cannot stand there, becomes its
/// SHA-256: the same key still gives the same text.
fn shortened(key: &str, most: usize, fits: impl Fn(u8) -> bool) -> String {
    if !key.is_empty() && key.len() <= most && key.bytes().all(fits) {
        return key.to_owned();
    }
    let mut hash = URL_SAFE_NO_PAD.encode(digest(&SHA256, key.as_bytes()));
    hash.truncate(most);
    hash
}

/// An object of the members that there are.
fn present<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    let members = members.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(members.collect())
}

/// Last, so that no override can take it away. A platform's `data` replaces the
/// common one, so it gets its own.
fn add_pushyard(message: &mut Value) {
    let marker = Slot::Pushyard.marker();
    message["data"][PUSHYARD] = marker.as_str().into();
    for platform in ["android", "webpush"] {
        if let Some(data) = message.pointer_mut(&format!("/{platform}/data")) {
            data[PUSHYARD] = marker.as_str().into();
        }
    }
}

/// The bytes that count: keys and values of what the app and the screen get, on
/// the platform that gets most. FCM does not say how it counts, and the last word
/// is its answer; options such as `ttl` are left out, lest we refuse what it takes.
fn weight(message: &Value) -> usize {
    let of = |pointer: &str| message.pointer(pointer).map_or(0, bytes_of);
    let data = |pointer: &str| match message.pointer(pointer) {
        Some(own) => bytes_of(own),
        None => of("/data"),
    };
    let android = data("/android/data") + of("/android/notification");
    let apple = of("/data") + of("/apns/payload");
    let web = data("/webpush/data") + of("/webpush/notification");
    of("/notification") + android.max(apple).max(web) + PUSHYARD.len() + PUSHYARD_LEN
}

fn bytes_of(value: &Value) -> usize {
    match value {
        Value::Null => 0,
        Value::Bool(_) | Value::Number(_) => value.to_string().len(),
        // The only slot in what is counted; its marker happens to be as long as
        // the id without hyphens, but should not have to be.
        Value::String(text) if *text == Slot::Delivery.marker() => 32,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(bytes_of).sum(),
        Value::Object(members) => bytes_of_members(members),
    }
}

fn bytes_of_members(members: &Map<String, Value>) -> usize {
    members.iter().map(|(key, value)| key.len() + bytes_of(value)).sum()
}

#[cfg(test)]
mod tests;
