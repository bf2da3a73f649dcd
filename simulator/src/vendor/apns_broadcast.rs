//! `POST /4/broadcasts/apps/{bundle}`: one push for all Live Activities that
//! listen to a channel.
//!
//! Four headers are required here that are optional or unknown for a device, and
//! two that devices know must be absent. The suffix of the topic is not written.
//!
//! Sources: APNs documentation, "Sending broadcast push notification requests to
//! APNs", "Handling error responses from Apple Push Notification service".

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header, request};
use serde::Deserialize;

use super::apns_channels::{self, CHANNEL_ID, Channels, Storage};
use super::apns_device::{Environment, Reason, accepted, of_quirk};
use super::apns_headers::{EXPIRATION, PRIORITY, PUSH_TYPE, Sender, TOPIC, is_uuid};
use super::{Call, Verdict};
use crate::faults::Quirk;
use crate::ledger::Key;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("apns-request-id");

const SINGLE: [HeaderName; 6] =
    [header::AUTHORIZATION, REQUEST_ID, CHANNEL_ID, PUSH_TYPE, PRIORITY, EXPIRATION];

/// Broadcasts may be larger than other pushes.
const LIMIT: usize = 5120;

#[derive(Deserialize)]
struct Payload<'a> {
    aps: Aps<'a>,
    #[serde(borrow, default)]
    pushyard: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Aps<'a> {
    #[serde(borrow, default)]
    event: Option<Cow<'a, str>>,
}

/// The app of a broadcast's path.
pub(super) fn app(head: &request::Parts) -> Result<&str, Reason> {
    let app = head.uri.path().strip_prefix("/4/broadcasts/apps/");
    let app = app.filter(|app| !app.is_empty() && !app.contains('/'));
    let app = app.ok_or(Reason(404, "BadPath"))?;
    if head.method == Method::POST { Ok(app) } else { Err(Reason(405, "MethodNotAllowed")) }
}

/// Whether the sender may broadcast for the app.
pub(super) fn allowed(sender: &Sender<'_>, app: &str, disabled: &[String]) -> Result<(), Reason> {
    let known = match sender {
        Sender::Certificate(bundle) if *bundle != app => return Err(Reason(403, "TopicMismatch")),
        Sender::Certificate(_) => true,
        Sender::Token(bundles) => bundles.is_empty() || bundles.iter().any(|bundle| bundle == app),
    };
    // The suffix that a device's topic has.
    if !known || app.contains(".push-type.") {
        return Err(Reason(400, "TopicDisallowed"));
    }
    if disabled.iter().any(|bundle| bundle == app) {
        return Err(Reason(400, "FeatureNotEnabled"));
    }
    Ok(())
}

/// Judges a broadcast whose path and sender are good.
pub(super) fn judge(
    call: &Call<'_>,
    (channels, environment): (&Channels, Environment),
    app: &str,
    id: &HeaderValue,
) -> Verdict {
    let (key, channel) = match checked(call, channels, app, id) {
        Ok(good) => good,
        Err(reason) => return Verdict::refuse(reason.answer()),
    };
    let text = apns_channels::text(channel).unwrap_or_default();
    match Quirk::of(&text) {
        None => Verdict::take(key, accepted(environment)),
        Some(quirk) => {
            let gone = Verdict::refuse(Reason::NO_CHANNEL.answer());
            of_quirk(quirk, key, gone, (Reason::BAD_CHANNEL, environment))
        }
    }
}

/// The delivery and the channel, or the first fault.
fn checked<'c>(
    call: &Call<'c>,
    channels: &Channels,
    app: &str,
    id: &HeaderValue,
) -> Result<(Key, &'c str), Reason> {
    let headers = &call.head.headers;
    if SINGLE.iter().any(|name| headers.get_all(name).iter().nth(1).is_some()) {
        return Err(Reason(400, "DuplicateHeaders"));
    }
    let has_foreign_id = headers.get(REQUEST_ID).is_some_and(|id| !is_uuid(id.as_bytes()));
    if has_foreign_id || headers.contains_key(TOPIC) {
        return Err(Reason(400, "BadRequestParams"));
    }
    match headers.get(PUSH_TYPE).map(HeaderValue::as_bytes) {
        Some(b"liveactivity") => {}
        Some(_) => return Err(Reason(400, "InvalidPushType")),
        None => return Err(Reason(400, "MissingPushType")),
    }
    if !matches!(headers.get(PRIORITY).map(HeaderValue::as_bytes), Some(b"1" | b"5" | b"10")) {
        return Err(Reason(400, "BadPriority"));
    }
    let channel = apns_channels::id(headers)?;
    let storage = channels.storage(app, channel)?;
    match expiration(headers) {
        Some(0) => {}
        Some(_) if storage == Storage::Newest => {}
        Some(_) | None => return Err(Reason(400, "BadExpirationDate")),
    }
    match call.body.length {
        0 => return Err(Reason(400, "PayloadEmpty")),
        length if length > LIMIT => return Err(Reason(413, "PayloadTooLarge")),
        _ => {}
    }
    let payload = serde_json::from_slice::<Payload<'_>>(&call.body.bytes).ok();
    // A broadcast can update and end activities; it starts none.
    let payload = payload
        .filter(|payload| matches!(payload.aps.event.as_deref(), Some("update" | "end")))
        .ok_or(Reason(400, "BadRequestPayload"))?;
    let key = match &payload.pushyard {
        Some(pushyard) => Key::of_pushyard(pushyard),
        None => Key::of(id.to_str().unwrap_or_default()),
    };
    Ok((key, channel))
}

fn expiration(headers: &HeaderMap) -> Option<u64> {
    headers.get(EXPIRATION)?.to_str().ok()?.parse().ok()
}
