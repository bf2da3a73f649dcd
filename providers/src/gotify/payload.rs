//! A message as Gotify takes it (Gotify, *REST API: create message*; *Message
//! extras*): title, text, priority, and extras by namespace.
//!
//! The app shows the URL as what a tap opens and the picture below the text. The
//! data of a push goes into `extras` as `push::data`, where programs that
//! read the stream find it. Nothing differs between recipients: the address is an
//! application token, and stands in a header.

use http::{HeaderValue, header};
use serde_json::{Map, Value, json};

use crate::http::channel::invalid;
use crate::push::merge;
use crate::{Invalid, Payload, Priority, Push, Template};

/// Gotify's Android app makes a sound from 4 on and vibrates from 8 on.
const HIGH: i64 = 8;
const NORMAL: i64 = 5;

/// Our own bound. Gotify has none, but its answer repeats the message, and an
/// answer is read to 64 KiB; nobody reads more on a lock screen.
const MAX_MESSAGE: usize = 32 * 1024;

/// Builds the body.
///
/// # Errors
/// When there is nothing to show, it is too large, or an override has the wrong type.
pub(super) fn encode(push: &Push) -> Result<Payload, Invalid> {
    let mut body = message(push);
    merge(&mut body, Value::Object(push.patch("gotify")));
    check(&body)?;
    Ok(Payload {
        body: Template::new(&body),
        headers: vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))],
        detail: None,
    })
}

fn message(push: &Push) -> Value {
    let mut body = Map::new();
    if let Some((title, text)) = push.plain_text() {
        body.insert("message".to_owned(), text.into());
        if let Some(title) = title {
            body.insert("title".to_owned(), title.into());
        }
    }
    let priority = match push.priority {
        Priority::High => HIGH,
        Priority::Normal => NORMAL,
    };
    body.insert("priority".to_owned(), priority.into());
    let extras = extras(push);
    if !extras.is_empty() {
        body.insert("extras".to_owned(), Value::Object(extras));
    }
    Value::Object(body)
}

fn extras(push: &Push) -> Map<String, Value> {
    let mut extras = Map::new();
    let mut shown = Map::new();
    let notification = push.notification.as_ref();
    if let Some(url) = notification.and_then(|n| n.url.as_deref()) {
        shown.insert("click".to_owned(), json!({ "url": url }));
    }
    if let Some(image) = notification.and_then(|n| n.image.as_deref()) {
        shown.insert("bigImageUrl".to_owned(), image.into());
    }
    if !shown.is_empty() {
        extras.insert("client::notification".to_owned(), Value::Object(shown));
    }
    if !push.data.is_empty() {
        extras.insert("push::data".to_owned(), json!(push.data));
    }
    extras
}

fn check(body: &Value) -> Result<(), Invalid> {
    let wrong =
        |key: &str, rule: &str| invalid("override", format!("/overrides/gotify/{key}: {rule}"));
    match &body["message"] {
        Value::String(text) if text.trim().is_empty() => {
            return Err(wrong("message", "must not be empty"));
        }
        Value::String(text) if text.len() > MAX_MESSAGE => {
            let detail =
                format!("{} bytes of text; at most {MAX_MESSAGE} go to Gotify", text.len());
            return Err(invalid("too_large", detail));
        }
        Value::String(_) => {}
        Value::Null => {
            let detail = "Gotify shows text: the push needs a title, a body or data";
            return Err(invalid("nothing_to_show", detail));
        }
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            return Err(wrong("message", "must be a string"));
        }
    }
    if !body["title"].is_null() && !body["title"].is_string() {
        return Err(wrong("title", "must be a string"));
    }
    if !body["priority"].is_null() && !body["priority"].is_i64() {
        return Err(wrong("priority", "must be a whole number"));
    }
    if !body["extras"].is_null() && !body["extras"].is_object() {
        return Err(wrong("extras", "must be an object"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
