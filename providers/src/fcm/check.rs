//! What FCM would refuse and can be seen before asking it: the rules of
//! *REST Resource: projects.messages* that overrides and `data` can break.
//!
//! Errors point into the message that the backend sent (`/data/…`,
//! `/overrides/fcm/…`) and name keys, never values. Field names that nobody
//! documents are left to FCM: its API grows faster than any list here.

use serde_json::{Map, Value};

use super::payload::{PUSHYARD, ttl};
use crate::{Invalid, Push, pointer_token};

/// *REST Resource: projects.messages*: exactly one target, and that is the address.
const TARGETS: [&str; 4] = ["token", "fid", "topic", "condition"];

/// 28 days, the longest `ttl`.
const LONGEST_TTL_S: f64 = 2_419_200.0;

/// Objects whose keys are the app's or another vendor's, not fields of FCM.
const FOREIGN: [&str; 3] = ["data", "headers", "payload"];

/// The backend's overrides, with field names in FCM's documented spelling: its
/// parser also takes lowerCamelCase, and a `collapseKey` beside our
/// `collapse_key` would be refused as given twice.
///
/// # Errors
/// When they name a target.
pub(super) fn patch(patch: Map<String, Value>) -> Result<Map<String, Value>, Invalid> {
    let Value::Object(patch) = snake_case(Value::Object(patch), "") else {
        return Ok(Map::new());
    };
    match TARGETS.iter().find(|target| patch.contains_key(**target)) {
        Some(target) => Err(at(
            "target_override",
            &format!("/overrides/fcm/{target}"),
            "the address is the target, and it cannot be overridden",
        )),
        None => Ok(patch),
    }
}

/// The keys of the message's `data`.
///
/// # Errors
/// When FCM, or Pushyard, keeps one of them for itself.
pub(super) fn keys(push: &Push) -> Result<(), Invalid> {
    push.data.keys().try_for_each(|key| free(key, "/data"))
}

/// The merged message. Words that FCM takes in either case get the documented one.
///
/// # Errors
/// The first fault.
pub(super) fn message(message: &mut Value) -> Result<(), Invalid> {
    for part in ["data", "notification", "android", "apns", "webpush", "fcm_options"] {
        if message.get(part).is_some_and(|value| !value.is_object()) {
            return Err(at("not_object", &format!("/overrides/fcm/{part}"), "must be an object"));
        }
    }
    for strings in ["/data", "/android/data", "/webpush/data"] {
        for (key, pointer) in string_members(message, strings)? {
            free(key, pointer)?;
        }
    }
    for strings in ["/apns/headers", "/webpush/headers"] {
        string_members(message, strings)?;
    }
    for part in ["", "/android", "/apns", "/webpush"] {
        let pointer = format!("{part}/fcm_options/analytics_label");
        if message.pointer(&pointer).is_some_and(|label| !is_label(label)) {
            let rule = "must be 1 to 50 letters, digits or -_.~%";
            return Err(overridden("analytics_label", &pointer, rule));
        }
    }
    if message.pointer("/android/ttl").is_some_and(|value| !is_ttl(value)) {
        let rule = "must be seconds from \"0s\" to \"2419200s\" (28 days)";
        return Err(overridden("ttl", "/android/ttl", rule));
    }
    let link = message.pointer("/webpush/fcm_options/link");
    if link.is_some_and(|link| !link.as_str().is_some_and(|url| url.starts_with("https://"))) {
        return Err(overridden("link", "/webpush/fcm_options/link", "must be an https URL"));
    }
    priority(message)
}

fn priority(message: &mut Value) -> Result<(), Invalid> {
    let Some(priority) = message.pointer_mut("/android/priority") else { return Ok(()) };
    let word = priority.as_str().unwrap_or_default().to_ascii_uppercase();
    if word != "HIGH" && word != "NORMAL" {
        return Err(overridden("priority", "/android/priority", "must be HIGH or NORMAL"));
    }
    *priority = word.into();
    Ok(())
}

/// The keys of an object whose values must be strings, each with the object's pointer.
fn string_members<'a>(
    message: &'a Value,
    pointer: &'a str,
) -> Result<Vec<(&'a str, &'a str)>, Invalid> {
    let members = match message.pointer(pointer) {
        None => return Ok(Vec::new()),
        Some(Value::Object(members)) => members,
        Some(_) => return Err(overridden("not_object", pointer, "must be an object")),
    };
    match members.iter().find(|(_, value)| !value.is_string()) {
        Some((key, _)) => {
            let pointer = format!("{pointer}/{}", pointer_token(key));
            Err(overridden("not_string", &pointer, "must be a string: FCM takes no other value"))
        }
        None => Ok(members.keys().map(|key| (key.as_str(), pointer)).collect()),
    }
}

/// *REST Resource: projects.messages*, `data`: reserved words and prefixes.
fn free(key: &str, pointer: &str) -> Result<(), Invalid> {
    let reserved = ["from", "message_type", "notification", PUSHYARD].contains(&key)
        || key.starts_with("google")
        || key.starts_with("gcm");
    if !reserved {
        return Ok(());
    }
    let root = if pointer == "/data" { "" } else { "/overrides/fcm" };
    let detail = "is reserved (from, message_type, notification, pushyard, google…, gcm…); \
                  choose another key";
    Err(at("reserved_key", &format!("{root}{pointer}/{}", pointer_token(key)), detail))
}

fn is_label(label: &Value) -> bool {
    label.as_str().is_some_and(|text| text.len() <= 50 && is_name(text))
}

/// Whether a text is made of the characters of topics and labels.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~%".contains(&b))
}

fn is_ttl(value: &Value) -> bool {
    let Some(text) = value.as_str() else { return false };
    let Some(number) = text.strip_suffix('s') else { return false };
    let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let within = number.parse().is_ok_and(|s: f64| (0.0..=LONGEST_TTL_S).contains(&s));
    text == ttl() || (plain && within)
}

/// Renames the fields of FCM's own objects.
fn snake_case(value: Value, name: &str) -> Value {
    match value {
        Value::Object(members) if !FOREIGN.contains(&name) => Value::Object(
            members
                .into_iter()
                .map(|(key, value)| {
                    let key = snake(&key);
                    // A browser's notification options are camelCase by themselves.
                    let foreign = name == "webpush" && key == "notification";
                    let value = if foreign { value } else { snake_case(value, &key) };
                    (key, value)
                })
                .collect(),
        ),
        other => other,
    }
}

fn snake(key: &str) -> String {
    let mut out = String::with_capacity(key.len() + 4);
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn overridden(code: &'static str, pointer: &str, detail: &str) -> Invalid {
    at(code, &format!("/overrides/fcm{pointer}"), detail)
}

fn at(code: &'static str, pointer: &str, detail: &str) -> Invalid {
    Invalid::at(code, pointer, detail)
}
