//! What ntfy takes as a message, by JSON or by headers, and what it makes of it.
//!
//! Sources: binwiederhier/ntfy, `server/server.go`, `server/util.go`,
//! `docs/publish.md`.

use serde_json::{Map, Value, json};

use super::Call;
use super::ntfy::parameter;

/// A code of ntfy's and its text.
pub(super) type Fault = (u64, &'static str);

/// A text that fills this becomes an attachment, and those are off here.
const MAX_MESSAGE: usize = 4096;

const RESERVED: [&str; 10] =
    ["docs", "static", "file", "app", "metrics", "account", "settings", "signup", "login", "v1"];

/// A field and whether a value has its type.
type Field = (&'static str, fn(&Value) -> bool);

/// The fields of a JSON publish, and whether each has its type.
const FIELDS: [Field; 17] = [
    ("topic", Value::is_string),
    ("message", Value::is_string),
    ("title", Value::is_string),
    ("priority", Value::is_i64),
    ("tags", is_strings),
    ("click", Value::is_string),
    ("icon", Value::is_string),
    ("attach", Value::is_string),
    ("filename", Value::is_string),
    ("markdown", Value::is_boolean),
    ("actions", Value::is_array),
    ("delay", Value::is_string),
    ("email", Value::is_string),
    ("call", Value::is_string),
    ("cache", Value::is_string),
    ("firebase", Value::is_string),
    ("sequence_id", Value::is_string),
];

/// `PUT` or `POST /`.
pub(super) fn from_json(body: &[u8], now_ms: u64) -> Result<Value, Fault> {
    let Ok(Value::Object(given)) = serde_json::from_slice(body) else {
        return Err((40024, "invalid request: request body must be valid JSON"));
    };
    let typed = |(name, fits): &Field| given.get(*name).is_none_or(fits);
    if !FIELDS.iter().all(typed) {
        return Err((40024, "invalid request: request body must be valid JSON"));
    }
    let topic = given.get("topic").and_then(Value::as_str).unwrap_or_default();
    if !is_topic(topic) {
        return Err((40009, "invalid request: topic invalid"));
    }
    checked(given, now_ms)
}

/// `PUT` or `POST /{topic}`, and `GET /{topic}/publish`.
pub(super) fn from_headers(call: &Call<'_>, topic: &str) -> Result<Value, Fault> {
    let get = |names: &[&str]| parameter(call.head, names);
    if call.body.length >= MAX_MESSAGE {
        return Err((40014, "invalid request: attachments not allowed"));
    }
    let Ok(body) = std::str::from_utf8(&call.body.bytes) else {
        return Err((40014, "invalid request: attachments not allowed"));
    };
    let mut given = Map::new();
    given.insert("topic".to_owned(), topic.into());
    let text = match body.trim() {
        "" => get(&["x-message", "message", "m"]).unwrap_or_default().replace("\\n", "\n"),
        body => body.to_owned(),
    };
    given.insert("message".to_owned(), text.into());
    for (field, names) in [
        ("title", &["x-title", "title", "t"][..]),
        ("click", &["x-click", "click"]),
        ("icon", &["x-icon", "icon"]),
        ("attach", &["x-attach", "attach", "a"]),
        ("delay", &["x-delay", "delay", "x-at", "at", "x-in", "in"]),
        ("sequence_id", &["x-sequence-id", "sequence-id", "sid"]),
    ] {
        if let Some(value) = get(names) {
            given.insert(field.to_owned(), value.into());
        }
    }
    if let Some(tags) = get(&["x-tags", "tags", "tag", "ta"]) {
        given.insert("tags".to_owned(), tags.split(',').map(str::trim).collect());
    }
    if let Some(priority) = get(&["x-priority", "priority", "prio", "p"]) {
        given.insert("priority".to_owned(), named_priority(&priority)?.into());
    }
    if let Some(actions) = get(&["x-actions", "actions", "action"]) {
        // The short form is not read here, only counted as what it is.
        let actions = serde_json::from_str(&actions)
            .map_err(|_| (40018, "invalid request: actions invalid"))?;
        given.insert("actions".to_owned(), actions);
    }
    checked(given, call.now_ms)
}

/// `^[-_A-Za-z0-9]{1,64}$`.
pub(super) fn is_topic(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=64).contains(&text.len()) && text.bytes().all(fits)
}

fn checked(mut given: Map<String, Value>, now_ms: u64) -> Result<Value, Fault> {
    let text = |name: &str| given.get(name).and_then(Value::as_str).unwrap_or_default();
    if RESERVED.contains(&text("topic")) {
        return Err((40010, "invalid request: topic name is not allowed"));
    }
    if text("message").len() >= MAX_MESSAGE {
        return Err((40014, "invalid request: attachments not allowed"));
    }
    let priority = given.get("priority").and_then(Value::as_i64).unwrap_or(3);
    if !(0..=5).contains(&priority) {
        return Err((40007, "invalid request: priority invalid"));
    }
    let is_url = |url: &str| url.starts_with("http://") || url.starts_with("https://");
    if !text("attach").is_empty() && !is_url(text("attach")) {
        return Err((40013, "invalid request: attachment URL is invalid"));
    }
    if !text("icon").is_empty() && !is_url(text("icon")) {
        return Err((40021, "invalid request: icon URL is invalid"));
    }
    if let Some(actions) = given.get("actions")
        && !actions
            .as_array()
            .is_some_and(|actions| actions.len() <= 3 && actions.iter().all(is_action))
    {
        return Err((40018, "invalid request: actions invalid"));
    }
    let delay = delay_s(text("delay"), now_ms / 1000)?;
    let attachment = text("attach").to_owned();
    let shown = match text("message") {
        "" if !attachment.is_empty() => "You received a file".to_owned(),
        "" => "triggered".to_owned(),
        message => message.to_owned(),
    };
    given.insert("message".to_owned(), shown.into());
    if priority == 3 || priority == 0 {
        given.remove("priority");
    }
    if !attachment.is_empty() {
        given.insert("attachment".to_owned(), json!({ "name": "attachment", "url": attachment }));
    }
    if given.get("markdown") == Some(&Value::Bool(true)) {
        given.insert("content_type".to_owned(), "text/markdown".into());
    }
    for done in ["attach", "delay", "markdown", "email", "call", "cache", "firebase", "filename"] {
        given.remove(done);
    }
    given.insert("time".to_owned(), (now_ms / 1000 + delay).into());
    Ok(Value::Object(given))
}

fn is_strings(value: &Value) -> bool {
    value.as_array().is_some_and(|items| items.iter().all(Value::is_string))
}

/// A known type, a label, and what that type needs.
fn is_action(action: &Value) -> bool {
    let has = |name: &str| action[name].as_str().is_some_and(|text| !text.is_empty());
    has("label")
        && match action["action"].as_str() {
            Some("view" | "http") => has("url"),
            Some("broadcast") => true,
            Some("copy") => has("value"),
            Some(_) | None => false,
        }
}

fn named_priority(text: &str) -> Result<i64, Fault> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "min" => Ok(1),
        "2" | "low" => Ok(2),
        "" | "3" | "default" => Ok(3),
        "4" | "high" => Ok(4),
        "5" | "max" | "urgent" => Ok(5),
        _ => Err((40007, "invalid request: priority invalid")),
    }
}

/// A unix time, or a number with a unit; English phrases are not read here.
fn delay_s(text: &str, now_s: u64) -> Result<u64, Fault> {
    if text.is_empty() {
        return Ok(0);
    }
    const UNREADABLE: Fault = (40004, "invalid delay parameter: unable to parse delay");
    let delay = match text.parse::<u64>() {
        Ok(at) => at.saturating_sub(now_s),
        Err(_) => {
            let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            let number: u64 = text[..end].parse().map_err(|_| UNREADABLE)?;
            let unit = match text[end..].trim() {
                "s" | "sec" | "second" | "seconds" => 1,
                "m" | "min" | "minute" | "minutes" => 60,
                "h" | "hour" | "hours" => 3600,
                "d" | "day" | "days" => 86_400,
                _ => return Err(UNREADABLE),
            };
            number.saturating_mul(unit)
        }
    };
    match delay {
        0..10 => Err((40005, "invalid delay parameter: too small")),
        10..=259_200 => Ok(delay),
        _ => Err((40006, "invalid delay parameter: too large")),
    }
}
