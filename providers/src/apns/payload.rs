//! Message to APNs payload and headers: pure, once for a message.
//!
//! A notification becomes an `alert`, data alone a `background` push. `data`
//! keys stand at the root beside `aps`, where Apple's documentation puts an
//! app's own keys; `image` and `url` of the notification go there too unless
//! the data has a key of that name, because `aps` has no place for them. An
//! image sets `mutable-content`, so that the app's service extension is asked
//! to fetch it.
//!
//! `overrides.apns` is merged last, so every key of Apple's can be said. Its
//! `headers` object sets request headers instead: `apns-push-type` decides the
//! topic's suffix, the size limit and the default priority, and a type that
//! this table does not know passes through as it is. `null` leaves a header out.
//!
//! What a message for Live Activities has in `aps`, only its sender knows, so it is
//! given as overrides; `aps.event`, which no other push has, makes it one. Such a
//! message may go to an activity's own token or to a broadcast channel, which one
//! is not known here: each call checks what its own kind of target takes.
//!
//! Without a collapse key the delivery id is one, so that a repeat replaces the
//! push that may have arrived already. Apple takes 64 bytes: a longer key, or
//! one that cannot stand in a header, is replaced by the base64url of its
//! SHA-256, the same for every push with that key.
//!
//! Sources: Apple, "Sending notification requests to APNs", "Generating a
//! remote notification", "Pushing background updates to your app", "Starting and
//! updating Live Activities with ActivityKit push notifications", "Sending
//! broadcast push notification requests to APNs".

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use crate::push::merge;
use crate::template::Slot;
use crate::{Invalid, Notification, Payload, Priority, Push, Template, pointer_token};

pub(super) const COLLAPSE_ID: HeaderName = HeaderName::from_static("apns-collapse-id");
pub(super) const EXPIRATION: HeaderName = HeaderName::from_static("apns-expiration");
pub(super) const TOPIC: HeaderName = HeaderName::from_static("apns-topic");
const PRIORITY: HeaderName = HeaderName::from_static("apns-priority");
const PUSH_TYPE: HeaderName = HeaderName::from_static("apns-push-type");

/// Apple: "The maximum length of this key is 64 bytes", not characters.
pub(super) const MAX_COLLAPSE_ID: usize = 64;

/// The push type of Live Activities, the only one that a channel takes.
const LIVE_ACTIVITY: &str = "liveactivity";

/// Payload limits: 5 KB for VoIP and for broadcasts, 4 KB for everything else.
const MAX_LARGE: usize = 5120;
const MAX_OTHER: usize = 4096;

/// Root keys that `data` and `overrides` may not take.
const RESERVED: [&str; 2] = ["aps", "pushyard"];

/// What a call must know of the encoding beside its body and headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Encoded {
    /// What the push type adds to the bundle id to make the topic.
    pub(super) suffix: &'static str,
    /// Headers that the overrides have settled, by a value or by `null`.
    pub(super) settled: Settled,
    /// Whether it is for Live Activities: larger than a device takes it may be
    /// then, because a channel does.
    live: bool,
    /// Whether it starts an activity.
    starts: bool,
}

/// See [`Encoded::settled`]; otherwise they differ from call to call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) topic: bool,
    pub(super) expiration: bool,
    pub(super) collapse_id: bool,
}

/// Builds payload and headers. With a certificate some types are impossible.
pub(super) fn encode(push: &Push, token_login: bool) -> Result<Payload, Invalid> {
    let mut patch = push.patch("apns");
    let given = Given::take(&mut patch)?;
    let live = patch.get("aps").is_some_and(is_live).then_some(LIVE_ACTIVITY);
    let body = body(push, patch, given.push_type().or(live))?;
    let push_type = given.push_type().unwrap_or_else(|| natural_type(&body)).to_owned();
    if push_type == "location" && !token_login {
        return Err(Invalid::at(
            "push_type",
            "/overrides/apns/headers/apns-push-type",
            "location pushes need a provider token, not a certificate",
        ));
    }
    let starts = body["aps"]["event"] == "start";
    let body = Template::new(&body);
    let live = push_type == LIVE_ACTIVITY;
    let limit = if live || push_type == "voip" { MAX_LARGE } else { MAX_OTHER };
    check_size(&body, limit, &push_type)?;
    let suffix = suffix(&push_type);
    let (headers, settled) = given.into_headers(push, &push_type)?;
    let encoded = Encoded { suffix, settled, live, starts };
    Ok(Payload { body, headers, detail: Some(Arc::new(encoded)) })
}

/// Whether a device takes as much.
pub(super) fn fits_device(body: &Template, encoded: &Encoded) -> Result<(), Invalid> {
    if encoded.live { check_size(body, MAX_OTHER, LIVE_ACTIVITY) } else { Ok(()) }
}

/// What Apple would refuse of a broadcast. `headers` are those of the call.
pub(super) fn check_broadcast(encoded: &Encoded, headers: &HeaderMap) -> Result<(), Invalid> {
    if headers.get(PUSH_TYPE).is_none_or(|value| value != LIVE_ACTIVITY) {
        let detail = "must be liveactivity: a channel takes nothing else";
        return Err(bad_header("apns-push-type", detail));
    }
    if let Some(missing) = [PRIORITY, EXPIRATION].iter().find(|name| !headers.contains_key(*name)) {
        return Err(bad_header(missing.as_str(), "must not be left out of a broadcast"));
    }
    if encoded.starts {
        let detail = "a broadcast cannot start an activity, only update and end it";
        return Err(Invalid::at("override", "/overrides/apns/aps/event", detail));
    }
    Ok(())
}

/// The topic is the bundle id and this, by push type.
fn suffix(push_type: &str) -> &'static str {
    match push_type {
        "voip" => ".voip",
        "complication" => ".complication",
        "fileprovider" => ".pushkit.fileprovider",
        "location" => ".location-query",
        "liveactivity" => ".push-type.liveactivity",
        "pushtotalk" => ".voip-ptt",
        "widgets" => ".push-type.widgets",
        "controls" => ".push-type.controls",
        // alert, background; mdm, whose topic is the address's `app` as it is;
        // and types to come, for which `apns-topic` can be set.
        _ => "",
    }
}

/// Only a push for Live Activities has an `event`.
fn is_live(aps: &Value) -> bool {
    aps.get("event").is_some_and(Value::is_string)
}

/// For Live Activities; or whether something is to be shown or heard.
fn natural_type(body: &Value) -> &'static str {
    if is_live(&body["aps"]) {
        return LIVE_ACTIVITY;
    }
    let shows = ["alert", "badge", "sound"].iter().any(|key| body["aps"].get(key).is_some());
    if shows { "alert" } else { "background" }
}

fn body(
    push: &Push,
    patch: Map<String, Value>,
    given_type: Option<&str>,
) -> Result<Value, Invalid> {
    let mut root = Map::new();
    for (key, value) in &push.data {
        if RESERVED.contains(&key.as_str()) {
            return Err(Invalid::at(
                "reserved_key",
                format!("/data/{}", pointer_token(key)),
                "this key is taken",
            ));
        }
        root.insert(key.clone(), Value::from(value.as_str()));
    }
    let mut aps = Map::new();
    match &push.notification {
        Some(notification) => show(notification, &mut aps, &mut root),
        // What any other type wants to find in `aps`, only its sender knows.
        None if given_type.is_none_or(|given| given == "background") => {
            aps.insert("content-available".to_owned(), 1.into());
        }
        None => {}
    }
    root.insert("aps".to_owned(), Value::Object(aps));
    if patch.contains_key("pushyard") {
        return Err(Invalid::at("reserved_key", "/overrides/apns/pushyard", "this key is taken"));
    }
    let mut root = Value::Object(root);
    merge(&mut root, Value::Object(patch));
    if !root["aps"].is_object() {
        return Err(Invalid::at("override", "/overrides/apns/aps", "must stay an object"));
    }
    root["pushyard"] = Slot::Pushyard.marker().into();
    Ok(root)
}

fn show(notification: &Notification, aps: &mut Map<String, Value>, root: &mut Map<String, Value>) {
    let Notification { title, body, image, url, sound, badge, category, thread, tag: _ } =
        notification;
    let mut alert = Map::new();
    put(&mut alert, "title", title.as_deref());
    put(&mut alert, "body", body.as_deref());
    if !alert.is_empty() {
        aps.insert("alert".to_owned(), Value::Object(alert));
    }
    put(aps, "sound", sound.as_deref());
    put(aps, "badge", *badge);
    put(aps, "category", category.as_deref());
    put(aps, "thread-id", thread.as_deref());
    if image.is_some() {
        aps.insert("mutable-content".to_owned(), 1.into());
    }
    for (key, value) in [("image", image), ("url", url)] {
        if !root.contains_key(key) {
            put(root, key, value.as_deref());
        }
    }
}

fn put(map: &mut Map<String, Value>, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        map.insert(key.to_owned(), value.into());
    }
}

fn check_size(body: &Template, limit: usize, push_type: &str) -> Result<(), Invalid> {
    let length = body.rendered_len(0);
    if length <= limit {
        return Ok(());
    }
    let detail = format!("{length} bytes of payload; APNs takes {limit} for {push_type} pushes");
    Err(Invalid::new("too_large", detail))
}

/// The headers that `overrides.apns.headers` names; `None` leaves one out.
struct Given(Vec<(HeaderName, Option<String>)>);

impl Given {
    /// Takes `headers` out of the patch.
    fn take(patch: &mut Map<String, Value>) -> Result<Self, Invalid> {
        let headers = match patch.remove("headers") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(headers)) => headers,
            Some(_) => return Err(bad_header("", "must be an object")),
        };
        let one = |(name, value): (String, Value)| {
            let header = header_name(&name)?;
            let text = match value {
                Value::Null => None,
                Value::String(text) => Some(text),
                Value::Number(number) => Some(number.to_string()),
                Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                    return Err(bad_header(&name, "must be a string or a number"));
                }
            };
            check_header(&header, text.as_deref())?;
            Ok((header, text))
        };
        headers.into_iter().map(one).collect::<Result<_, _>>().map(Self)
    }

    /// The value of a header; the outer `None`: it is not named at all.
    fn get(&self, header: &HeaderName) -> Option<Option<&str>> {
        self.0.iter().find(|(name, _)| name == header).map(|(_, value)| value.as_deref())
    }

    fn push_type(&self) -> Option<&str> {
        self.get(&PUSH_TYPE).flatten()
    }

    /// All headers that are the same for every recipient.
    fn into_headers(
        self,
        push: &Push,
        push_type: &str,
    ) -> Result<(Vec<(HeaderName, HeaderValue)>, Settled), Invalid> {
        let collapse_id = collapse_id(push);
        let settled = Settled {
            topic: self.get(&TOPIC).is_some(),
            expiration: self.get(&EXPIRATION).is_some(),
            collapse_id: self.get(&COLLAPSE_ID).is_some() || collapse_id.is_some(),
        };
        let priority = self.get(&PRIORITY).flatten();
        if push_type == "background" && priority == Some("10") {
            return Err(bad_header("apns-priority", "background pushes must not have 10"));
        }
        let mut headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        if self.get(&PUSH_TYPE).is_none() {
            headers.push((PUSH_TYPE, value("apns-push-type", push_type)?));
        }
        if self.get(&PRIORITY).is_none() {
            let priority = natural_priority(push.priority, push_type);
            headers.push((PRIORITY, HeaderValue::from_static(priority)));
        }
        if let (Some(id), None) = (collapse_id, self.get(&COLLAPSE_ID)) {
            headers.push((COLLAPSE_ID, value("apns-collapse-id", &id)?));
        }
        for (header, text) in self.0 {
            if let Some(text) = text {
                let value = value(header.as_str(), &text)?;
                headers.push((header, value));
            }
        }
        Ok((headers, settled))
    }
}

/// "background": 5 only; calls are for now; else as urgent as the message is.
fn natural_priority(priority: Priority, push_type: &str) -> &'static str {
    match (push_type, priority) {
        ("background", _) => "5",
        ("voip" | "pushtotalk", _) | (_, Priority::High) => "10",
        (_, Priority::Normal) => "5",
    }
}

/// What the message itself says; a newer push of the same replaces the older.
fn collapse_id(push: &Push) -> Option<String> {
    let tag = push.notification.as_ref().and_then(|notification| notification.tag.as_deref());
    let key = push.collapse_key.as_deref().or(tag)?;
    // Header values neither begin nor end with white space (RFC 9113 section 8.2.1).
    let fits = key.len() <= MAX_COLLAPSE_ID
        && !key.is_empty()
        && key.trim() == key
        && !key.chars().any(char::is_control);
    if fits {
        return Some(key.to_owned());
    }
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
    Some(BASE64.encode(hash))
}

/// Only Apple's own headers, and of those not the id, which is ours.
fn header_name(name: &str) -> Result<HeaderName, Invalid> {
    let header = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| bad_header(name, "is no header's name"))?;
    match header.as_str() {
        "authorization" => Err(bad_header(name, "the credential is the provider's")),
        "apns-id" => Err(bad_header(name, "this is the delivery's id")),
        other if other.starts_with("apns-") => Ok(header),
        _ => Err(bad_header(name, "only headers that begin with apns- can be set")),
    }
}

/// What Apple would refuse for every recipient.
fn check_header(header: &HeaderName, text: Option<&str>) -> Result<(), Invalid> {
    let Some(text) = text else { return Ok(()) };
    let fault = if *header == PRIORITY {
        (!["1", "5", "10"].contains(&text)).then_some("must be 1, 5 or 10")
    } else if *header == EXPIRATION {
        text.parse::<u64>().is_err().then_some("must be in unix seconds, or 0")
    } else if *header == COLLAPSE_ID {
        (text.len() > MAX_COLLAPSE_ID).then_some("must have at most 64 bytes")
    } else {
        text.is_empty().then_some("must not be empty")
    };
    fault.map_or(Ok(()), |fault| Err(bad_header(header.as_str(), fault)))
}

fn value(header: &str, text: &str) -> Result<HeaderValue, Invalid> {
    HeaderValue::try_from(text).map_err(|_| bad_header(header, "cannot stand in a header"))
}

fn bad_header(name: &str, fault: &str) -> Invalid {
    // A name of the sender's may be anything: bound it.
    let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    let separator = if name.is_empty() { "" } else { "/" };
    let pointer = format!("/overrides/apns/headers{separator}{}", pointer_token(&name));
    Invalid::at("override", pointer, fault)
}

#[cfg(test)]
mod tests;
