//! The inside of ntfy's message object, with our own keys beside ntfy's: stock
//! clients read what they know and leave the rest.
//!
//! `id`, `time`, `expires`, `event` and `topic` are the hub's. An override cannot
//! set them: a client that is shown another id would lose its place.

use serde_json::{Map, Value, json};

use crate::push::{Notification, merge};
use crate::template::Slot;
use crate::{Invalid, Payload, Priority, Push, Template};

/// Bytes of an event, at most. The `ntfy` command reads lines of 64 KiB; room is
/// left for the hub's keys and the framing.
const LARGEST: usize = 60 << 10;

/// What a message without text says (ntfy, "Publishing"): clients need some.
pub(super) const NO_TEXT: &str = "triggered";

/// ntfy's "high": shown at once, with sound.
const HIGH: u8 = 4;

/// Keys that are not the payload's.
const OURS: [&str; 6] = ["id", "time", "expires", "event", "topic", "pushyard"];

/// Builds it.
pub(super) fn encode(push: &Push) -> Result<Payload, Invalid> {
    let mut object = Map::new();
    if let Some(notification) = &push.notification {
        shown(&mut object, notification);
    }
    if push.priority == Priority::High {
        object.insert("priority".to_owned(), json!(HIGH));
    }
    if !push.data.is_empty() {
        object.insert("data".to_owned(), json!(push.data));
    }
    if let Some(key) = &push.collapse_key {
        object.insert("collapse_key".to_owned(), json!(key));
    }
    let mut object = Value::Object(object);
    let patch = push.patch("stream");
    if let Some(key) = patch.keys().find(|key| OURS.contains(&key.as_str())) {
        let detail = format!("overrides.stream must not set {key:?}; it is set for each delivery");
        return Err(Invalid::at("reserved_key", "/overrides/stream", detail));
    }
    merge(&mut object, Value::Object(patch));
    if object["message"].as_str().is_none_or(str::is_empty) {
        object["message"] = json!(NO_TEXT);
    }
    if let Some(Value::Array(actions)) = object.get_mut("actions") {
        name(actions);
    }
    object["pushyard"] = json!(Slot::Pushyard.marker());
    let body = Template::new(&object);
    let size = body.rendered_len(0);
    if size > LARGEST {
        let detail = format!("the message has {size} bytes; a stream event has at most {LARGEST}");
        return Err(Invalid::new("too_large", detail));
    }
    Ok(Payload { body, headers: Vec::new(), detail: None })
}

/// ntfy's clients know an action by its id, which its server gives; one of them
/// fails on an action without.
fn name(actions: &mut [Value]) {
    for (at, action) in actions.iter_mut().enumerate() {
        if let Value::Object(action) = action {
            action.entry("id").or_insert_with(|| json!(format!("action{at:04}")));
        }
    }
}

fn shown(object: &mut Map<String, Value>, notification: &Notification) {
    let Notification { title, body, image, url, sound, badge, category, thread, tag } =
        notification;
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            object.insert(key.to_owned(), value);
        }
    };
    let text =
        |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(Value::from);
    set("title", text(title));
    set("message", text(body));
    set("click", text(url));
    let name = |url: &String| url.rsplit('/').find(|part| !part.is_empty()).map(str::to_owned);
    set("attachment", image.as_ref().map(|url| json!({"name": name(url), "url": url})));
    set("sound", text(sound));
    set("badge", badge.map(Value::from));
    set("category", text(category));
    set("thread", text(thread));
    set("tag", text(tag));
}
