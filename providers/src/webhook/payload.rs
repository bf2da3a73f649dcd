//! A message as a webhook carries it: type, time and everything that the backend
//! said, for a receiver that knows what to do with it.
//!
//! The time is that of the delivery's acceptance, which its id holds: so every
//! attempt sends the same bytes under the same id, and a receiver may compare.
//! The body is built for each call and not spliced, because members that differ
//! between recipients may be null.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderValue, header};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::http::channel::invalid;
use crate::push::merge;
use crate::{Call, Invalid, Notification, Payload, Push, Template};

/// What a call fills in, below `data`.
const OURS: [&str; 4] = ["id", "ref", "expires_at", "pushyard"];

/// The body without what differs between recipients.
struct Frame(Value);

/// Builds the body.
///
/// # Errors
/// When an override takes a key that is filled in later, or the body's shape.
pub(super) fn encode(push: &Push) -> Result<Payload, Invalid> {
    let patch = push.patch("webhook");
    if patch.contains_key("timestamp") {
        return Err(taken("timestamp"));
    }
    if let Some(key) = OURS.iter().find(|key| patch.get("data").and_then(|d| d.get(key)).is_some())
    {
        return Err(taken(&format!("data/{key}")));
    }
    let mut body = json!({
        "type": "push",
        "timestamp": null,
        "data": {
            "notification": push.notification.as_ref().map(shown),
            "data": push.data,
            "collapse_key": push.collapse_key,
            "priority": push.priority.word(),
        },
    });
    merge(&mut body, Value::Object(patch));
    if !body["data"].is_object() {
        return Err(invalid("override", "/overrides/webhook/data: must stay an object"));
    }
    Ok(Payload {
        body: Template::new(&body),
        headers: vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))],
        detail: Some(Arc::new(Frame(body))),
    })
}

/// The body of one call.
///
/// # Errors
/// When the payload is another provider's.
pub(super) fn body(call: &Call) -> Result<Bytes, Invalid> {
    let frame = call.payload.detail.as_ref().and_then(|detail| detail.downcast_ref::<Frame>());
    let Some(Frame(frame)) = frame else {
        return Err(invalid("internal", "this payload was not built for a webhook"));
    };
    let mut body = frame.clone();
    let delivery = call.delivery.to_string();
    let id = call.address.get("id").unwrap_or(&delivery);
    let accepted = accepted_at(call.delivery).map(rfc3339);
    let expires = (call.expires_at > 0).then(|| rfc3339(Duration::from_secs(call.expires_at)));
    body["timestamp"] = json!(accepted);
    body["data"]["id"] = json!(id);
    body["data"]["ref"] = json!(call.reference.as_deref());
    body["data"]["expires_at"] = json!(expires);
    body["data"]["pushyard"] = json!(&*call.pushyard);
    Ok(Bytes::from(body.to_string()))
}

/// Only what was said: a receiver need not tell null from absent.
fn shown(notification: &Notification) -> Value {
    let members = serde_json::to_value(notification).unwrap_or_default();
    let members: Map<_, _> = match members {
        Value::Object(members) => members.into_iter().filter(|(_, v)| !v.is_null()).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    };
    Value::Object(members)
}

/// The moment in a UUIDv7.
fn accepted_at(delivery: Uuid) -> Option<Duration> {
    let (seconds, nanos) = delivery.get_timestamp()?.to_unix();
    Some(Duration::new(seconds, nanos))
}

fn rfc3339(since_epoch: Duration) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + since_epoch).to_string()
}

fn taken(key: &str) -> Invalid {
    invalid(
        "reserved_key",
        format!("/overrides/webhook/{key}: this key is filled in for each delivery"),
    )
}

#[cfg(test)]
mod tests;
