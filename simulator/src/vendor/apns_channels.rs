//! APNs' broadcast channels: the table of an environment, and the requests that
//! manage it. They come to a host of their own, under the same credential.
//!
//! A test needs no management to have a channel: an id whose text begins with
//! `sim-` is there and stores, one with `sim0-` is there and stores nothing, and
//! the quirks that device tokens know are channels, too.
//!
//! Sources: APNs documentation, "Sending channel management requests to APNs",
//! "Handling error responses from Apple Push Notification service".

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, request};
use serde_json::{Value, json};

use super::apns_device::Reason;
use super::{Answer, Call, json_answer};
use crate::ledger::lock;

pub(super) const CHANNEL_ID: HeaderName = HeaderName::from_static("apns-channel-id");

/// "At most 10,000 channels" for an app in an environment.
const MOST: usize = 10_000;
/// Bytes of an id that is given out.
const ID: usize = 16;
/// The only push type of a channel.
const PUSH_TYPE: &str = "LiveActivity";

/// What becomes of a broadcast that a device was not there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Storage {
    /// Policy 0.
    Nothing,
    /// Policy 1.
    Newest,
}

/// The channels of an environment, by app and id.
#[derive(Default)]
pub(super) struct Channels(Mutex<HashMap<String, BTreeMap<String, Storage>>>);

impl Channels {
    /// What a channel stores.
    pub(super) fn storage(&self, app: &str, id: &str) -> Result<Storage, Reason> {
        let text = text(id)?;
        if text.starts_with("sim-") || crate::faults::Quirk::of(&text).is_some() {
            return Ok(Storage::Newest);
        }
        if text.starts_with("sim0-") {
            return Ok(Storage::Nothing);
        }
        let all = lock(&self.0);
        let known = all.get(app).and_then(|channels| channels.get(id));
        known.copied().ok_or(Reason::NO_CHANNEL)
    }

    fn create(&self, app: &str, storage: Storage) -> Result<String, Reason> {
        let id = STANDARD.encode(rand::random::<[u8; ID]>());
        let mut all = lock(&self.0);
        let channels = all.entry(app.to_owned()).or_default();
        if channels.len() >= MOST {
            return Err(Reason(400, "CannotCreateChannelConfig"));
        }
        channels.insert(id.clone(), storage);
        Ok(id)
    }

    fn delete(&self, app: &str, id: &str) -> Result<(), Reason> {
        let gone = lock(&self.0).get_mut(app).and_then(|channels| channels.remove(id));
        gone.map(|_| ()).ok_or(Reason::NO_CHANNEL)
    }

    fn list(&self, app: &str) -> Vec<String> {
        lock(&self.0).get(app).map(|all| all.keys().cloned().collect()).unwrap_or_default()
    }

    /// Carries out a request that manages the channels of an app.
    pub(super) fn manage(&self, app: &str, what: Managed, call: &Call<'_>) -> Answer {
        let done = match (what, &call.head.method) {
            (Managed::Channels, &Method::POST) => self.created(app, call),
            (Managed::Channels, &Method::GET) => self.read(app, &call.head.headers),
            (Managed::Channels, &Method::DELETE) => {
                let deleted = id(&call.head.headers).and_then(|id| self.delete(app, id));
                deleted.map(|()| empty(StatusCode::NO_CONTENT))
            }
            (Managed::AllChannels, &Method::GET) => {
                let list = json!({"channels": self.list(app)});
                Ok(json_answer(StatusCode::OK, list.to_string()))
            }
            (Managed::Channels | Managed::AllChannels, _) => Err(Reason(405, "MethodNotAllowed")),
        };
        done.unwrap_or_else(Reason::answer)
    }

    fn created(&self, app: &str, call: &Call<'_>) -> Result<Answer, Reason> {
        let body: Value = serde_json::from_slice(&call.body.bytes)
            .map_err(|_| Reason(400, "BadRequestPayload"))?;
        match body["push-type"].as_str() {
            Some(PUSH_TYPE) => {}
            Some(_) => return Err(Reason(400, "InvalidPushType")),
            None => return Err(Reason(400, "MissingPushType")),
        }
        let storage = match body["message-storage-policy"].as_u64() {
            Some(0) => Storage::Nothing,
            Some(1) => Storage::Newest,
            // Undocumented, but what is answered.
            Some(_) | None => return Err(Reason(400, "MissingChannelQueueSize")),
        };
        let id = self.create(app, storage)?;
        let mut answer = empty(StatusCode::CREATED);
        let value = HeaderValue::try_from(id).expect("base64 is plain ASCII");
        answer.headers_mut().insert(CHANNEL_ID, value);
        Ok(answer)
    }

    fn read(&self, app: &str, headers: &HeaderMap) -> Result<Answer, Reason> {
        let policy = match self.storage(app, id(headers)?)? {
            Storage::Nothing => 0,
            Storage::Newest => 1,
        };
        let body = json!({"message-storage-policy": policy, "push-type": PUSH_TYPE});
        Ok(json_answer(StatusCode::OK, body.to_string()))
    }
}

/// What is managed.
#[derive(Clone, Copy)]
pub(super) enum Managed {
    /// One channel, named by a header, or a new one.
    Channels,
    /// All of them.
    AllChannels,
}

/// The app and what is managed, of a path such as `/1/apps/{bundle}/channels`.
pub(super) fn managed(head: &request::Parts) -> Result<(&str, Managed), Reason> {
    let parts = head.uri.path().strip_prefix("/1/apps/").and_then(|rest| rest.split_once('/'));
    match parts {
        Some((app, "channels")) if !app.is_empty() => Ok((app, Managed::Channels)),
        Some((app, "all-channels")) if !app.is_empty() => Ok((app, Managed::AllChannels)),
        Some(_) | None => Err(Reason(404, "BadPath")),
    }
}

/// The channel that a request is about.
pub(super) fn id(headers: &HeaderMap) -> Result<&str, Reason> {
    let value = headers.get(CHANNEL_ID).ok_or(Reason(400, "MissingChannelId"))?;
    let id = value.to_str().map_err(|_| Reason::BAD_CHANNEL)?;
    text(id).map(|_| id)
}

/// The text that an id is the base64 of, where it is text.
pub(super) fn text(id: &str) -> Result<String, Reason> {
    let bytes = STANDARD.decode(id).map_err(|_| Reason::BAD_CHANNEL)?;
    if bytes.is_empty() {
        return Err(Reason::BAD_CHANNEL);
    }
    Ok(String::from_utf8(bytes).unwrap_or_default())
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = Answer::new(Bytes::new());
    *answer.status_mut() = status;
    answer
}
