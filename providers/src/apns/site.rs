//! Whom a call is for, and where it goes: a device by `/3/device/{token}`, a
//! broadcast channel by `/4/broadcasts/apps/{bundle id}`.
//!
//! Apple's pages name two hosts for broadcasts, the one of device pushes in their
//! prose and one of its own in their worked examples. The latter is the default
//! and `broadcast_endpoint` another. Whoever sets `endpoint` and not that means
//! both, for a proxy that broadcasts go around would be none; unless it is Apple's
//! own on its second port (2197). Each origin has its own connections, so that trouble with one host is not taken for the other's.

use bytes::Bytes;
use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};
use url::Url;

use super::apps::is_bundle;
use crate::address::FieldError;
use crate::http::pool::Pool;
use crate::registry::Context;
use crate::settings::SettingError;
use crate::{Address, Invalid};

const PRODUCTION: &str = "https://api.push.apple.com";
const SANDBOX: &str = "https://api.sandbox.push.apple.com";

/// *Sending broadcast push notification requests to APNs*, the examples' hosts.
const BROADCAST: &str = "https://api-broadcast.push.apple.com";
const BROADCAST_SANDBOX: &str = "https://api-broadcast.sandbox.push.apple.com";

/// Tokens and channel ids vary in length and Apple asks not to assume one; this
/// is only a cap.
const MAX_ID: usize = 1024;

/// Whom a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// A device, or one Live Activity on it.
    Device(&'a str),
    /// All Live Activities that listen to a channel.
    Channel(&'a str),
}

impl<'a> Target<'a> {
    /// An address has one of the two.
    pub(super) fn of(address: &'a Address) -> Self {
        match address.get("channel") {
            Some(channel) => Self::Channel(channel),
            None => Self::Device(address.get("token").unwrap_or_default()),
        }
    }
}

/// The kind's own rules for an address.
pub(super) fn check_address(address: &Address) -> Result<(), FieldError> {
    match Target::of(address) {
        Target::Device(token) => check_token(token)?,
        Target::Channel(channel) => check_channel(channel)?,
    }
    match address.get("app") {
        Some(app) if !is_bundle(app) => {
            Err(FieldError::new("app", "is no bundle id: letters, digits, hyphens and dots"))
        }
        Some(_) | None => Ok(()),
    }
}

fn check_token(token: &str) -> Result<(), FieldError> {
    if !token.len().is_multiple_of(2) || !token.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(FieldError::new("token", "must be an even number of hexadecimal digits"));
    }
    if token.len() > MAX_ID {
        return Err(FieldError::new("token", "must have at most 1024 digits"));
    }
    Ok(())
}

/// Apple gives out base64; what else its channel ids are is not documented.
fn check_channel(channel: &str) -> Result<(), FieldError> {
    if !channel.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=-_".contains(&b)) {
        return Err(FieldError::new("channel", "must be base64, as Apple gave it out"));
    }
    if channel.len() > MAX_ID {
        return Err(FieldError::new("channel", "must have at most 1024 characters"));
    }
    Ok(())
}

/// Where requests go: an origin, and the path of a proxy before Apple's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) origin: Url,
    authority: Authority,
    path: String,
}

impl Place {
    fn new(key: &'static str, origin: Url) -> Result<Self, SettingError> {
        let fault = |detail: &str| SettingError::new(key, detail);
        if origin.scheme() != "https" {
            return Err(fault("must begin with https: APNs is spoken over TLS only"));
        }
        if !origin.username().is_empty() || origin.password().is_some() || origin.query().is_some()
        {
            return Err(fault("must not have a user, a password or a query"));
        }
        let authority =
            Authority::try_from(origin.authority()).map_err(|e| fault(&e.to_string()))?;
        let path = origin.path().trim_end_matches('/').to_owned();
        Ok(Self { origin, authority, path })
    }

    /// The URL of a request; `path` begins with a slash.
    pub(super) fn uri(&self, path: &str) -> Result<Uri, Invalid> {
        let path = Bytes::from(format!("{}{path}", self.path));
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = PathAndQuery::from_maybe_shared(path).ok();
        Uri::from_parts(parts)
            .map_err(|_| Invalid::new("bad_address", "the address cannot stand in a request"))
    }
}

/// The places of device pushes and of broadcasts, as the settings have them.
pub(super) fn places(context: &Context) -> Result<(Place, Place), Vec<SettingError>> {
    let own = context.endpoint.as_ref().filter(|endpoint| !is_apples(endpoint));
    let sandbox = context.values.text("environment") == Some("sandbox");
    let parsed = |key, text: &str| {
        Url::parse(text).map_err(|error| SettingError::new(key, error.to_string()))
    };
    let devices = match &context.endpoint {
        Some(endpoint) => Ok(endpoint.clone()),
        None => parsed("endpoint", if sandbox { SANDBOX } else { PRODUCTION }),
    };
    let devices = devices.and_then(|origin| Place::new("endpoint", origin));
    let key = "broadcast_endpoint";
    let broadcasts = match (context.values.text(key), own) {
        (Some(text), _) => parsed(key, text).and_then(|origin| Place::new(key, origin)),
        (None, Some(_)) => devices.clone(),
        (None, None) => parsed(key, if sandbox { BROADCAST_SANDBOX } else { BROADCAST })
            .and_then(|origin| Place::new(key, origin)),
    };
    match (devices, broadcasts) {
        (Ok(devices), Ok(broadcasts)) => Ok((devices, broadcasts)),
        (Err(fault), Ok(_)) | (Ok(_), Err(fault)) => Err(vec![fault]),
        // One that both have is told once.
        (Err(one), Err(other)) if one == other => Err(vec![one]),
        (Err(one), Err(other)) => Err(vec![one, other]),
    }
}

fn is_apples(endpoint: &Url) -> bool {
    endpoint.host_str().is_some_and(|host| host.ends_with(".push.apple.com"))
}

/// A place with its connections.
pub(super) struct Site {
    pub(super) place: Place,
    pub(super) pool: Pool,
}
