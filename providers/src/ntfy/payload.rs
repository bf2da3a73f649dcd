//! A message as ntfy takes it (ntfy, *Publish as JSON*): JSON and not headers,
//! because JSON carries any text as it is.
//!
//! ntfy has no place for an app's data: it shows text. A push that shows nothing
//! therefore goes out as its data in JSON, for programs that subscribe. Tags,
//! actions, icon, delay and all else that a notification does not have come by
//! `overrides.ntfy`, and request headers (`X-Cache`, `X-Firebase`) by its `headers`.
//!
//! What makes a repeat harmless is the sequence id: newer servers and apps show the
//! latest message of one id. It is the collapse key or the tag, else the delivery id.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, HeaderValue, header};
use serde_json::{Map, Value};

use crate::http::channel::{PUSHYARD, invalid};
use crate::push::merge;
use crate::template::Slot;
use crate::{Invalid, Payload, Priority, Push, Template, pointer_token};

/// *Limitations*: "messages can be up to 4,096 bytes", and the server already
/// makes an attachment of one that fills the limit.
const MAX_MESSAGE: usize = 4095;

/// The server reads twice the message limit of a JSON body.
const MAX_BODY: usize = 8192;

/// The longest topic.
pub(super) const MAX_TOPIC: usize = 64;

/// *Action buttons*: "up to three".
const MAX_ACTIONS: usize = 3;

/// 4 is `high`, which the server also forwards to Firebase as urgent; 3 is its
/// own default.
const HIGH: i64 = 4;
const NORMAL: i64 = 3;

/// Fields that are text (*Publish as JSON*).
const TEXTS: [&str; 12] = [
    "message",
    "title",
    "click",
    "icon",
    "attach",
    "filename",
    "delay",
    "email",
    "call",
    "cache",
    "firebase",
    "sequence_id",
];

/// Headers that are the transport's or ours.
const KEPT: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::HOST,
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::TE,
    PUSHYARD,
];

/// Builds the body.
///
/// # Errors
/// When there is nothing to show, it is too large, or an override has the wrong type.
pub(super) fn encode(push: &Push) -> Result<Payload, Invalid> {
    let mut patch = push.patch("ntfy");
    let mut headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    headers.extend(given_headers(patch.remove("headers"))?);
    if patch.contains_key("topic") {
        return Err(wrong("topic", "the address is the topic, and it cannot be overridden"));
    }
    let mut body = message(push);
    merge(&mut body, Value::Object(patch));
    check(&body)?;
    body["topic"] = Slot::Address.marker().into();
    let body = Template::new(&body);
    let length = body.rendered_len(MAX_TOPIC);
    if length > MAX_BODY {
        let detail = format!("{length} bytes of JSON; ntfy takes {MAX_BODY}");
        return Err(invalid("too_large", detail));
    }
    Ok(Payload { body, headers, detail: None })
}

fn message(push: &Push) -> Value {
    let mut body = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(key.to_owned(), value);
        }
    };
    if let Some((title, text)) = push.plain_text() {
        put("title", title.map(Value::from));
        put("message", Some(text.into()));
    }
    let notification = push.notification.as_ref();
    put("click", notification.and_then(|n| n.url.as_deref()).map(Value::from));
    // Whatever else it is, the server could not show it.
    let image = notification.and_then(|n| n.image.as_deref());
    let image = image.filter(|url| url.starts_with("https://") || url.starts_with("http://"));
    put("attach", image.map(Value::from));
    let priority = match push.priority {
        Priority::High => HIGH,
        Priority::Normal => NORMAL,
    };
    put("priority", Some(priority.into()));
    let tag = notification.and_then(|n| n.tag.as_deref());
    let key = push.collapse_key.as_deref().or(tag);
    put("sequence_id", Some(key.map_or_else(|| Slot::Delivery.marker(), sequence_id).into()));
    Value::Object(body)
}

/// The server takes what it takes as a topic; another key becomes its hash, so
/// that the same key still gives the same id.
fn sequence_id(key: &str) -> String {
    if super::is_topic(key) {
        return key.to_owned();
    }
    URL_SAFE_NO_PAD.encode(digest(&SHA256, key.as_bytes()))
}

/// What the server would refuse for every recipient.
fn check(body: &Value) -> Result<(), Invalid> {
    if let Some(field) =
        TEXTS.iter().find(|field| !body[**field].is_null() && !body[**field].is_string())
    {
        return Err(wrong(field, "must be a string"));
    }
    match body["message"].as_str().map(str::len) {
        None if body["attach"].is_null() => {
            let detail = "ntfy shows text: the push needs a title, a body or data";
            return Err(invalid("nothing_to_show", detail));
        }
        Some(length) if length > MAX_MESSAGE => {
            let detail = format!("{length} bytes of text; ntfy takes {MAX_MESSAGE}");
            return Err(invalid("too_large", detail));
        }
        Some(_) | None => {}
    }
    let priority = &body["priority"];
    if !priority.is_null() && !priority.as_i64().is_some_and(|n| (1..=5).contains(&n)) {
        return Err(wrong("priority", "must be a whole number from 1 (min) to 5 (max)"));
    }
    let strings = |list: &Vec<Value>| list.iter().all(Value::is_string);
    if !body["tags"].is_null() && !body["tags"].as_array().is_some_and(strings) {
        return Err(wrong("tags", "must be a list of strings"));
    }
    let few = |list: &Vec<Value>| list.len() <= MAX_ACTIONS && list.iter().all(Value::is_object);
    if !body["actions"].is_null() && !body["actions"].as_array().is_some_and(few) {
        return Err(wrong("actions", "must be a list of at most 3 objects"));
    }
    if !body["markdown"].is_null() && !body["markdown"].is_boolean() {
        return Err(wrong("markdown", "must be true or false"));
    }
    Ok(())
}

/// The headers that `overrides.ntfy.headers` names.
fn given_headers(given: Option<Value>) -> Result<Vec<(HeaderName, HeaderValue)>, Invalid> {
    let given = match given {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(given)) => given,
        Some(_) => return Err(wrong("headers", "must be an object")),
    };
    let mut headers = Vec::with_capacity(given.len());
    for (name, value) in given {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                return Err(bad_header(&name, "must be a string or a number"));
            }
        };
        let header = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| bad_header(&name, "is no header's name"))?;
        if KEPT.contains(&header) {
            return Err(bad_header(&name, "cannot be set: it is the provider's own"));
        }
        // From bytes, because ntfy takes UTF-8 in headers.
        let value = HeaderValue::from_bytes(text.as_bytes())
            .map_err(|_| bad_header(&name, "cannot stand in a header"))?;
        headers.push((header, value));
    }
    Ok(headers)
}

fn bad_header(name: &str, fault: &str) -> Invalid {
    // A name of the sender's may be anything: escape it as a pointer, and bound it.
    let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    wrong(&format!("headers/{}", pointer_token(&name)), fault)
}

fn wrong(key: &str, fault: &str) -> Invalid {
    invalid("override", format!("/overrides/ntfy/{key}: {fault}"))
}

#[cfg(test)]
mod tests;
