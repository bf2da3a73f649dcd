//! Our own self-hosted channel: devices hold an HTTP connection to the router's
//! stream listener and read ntfy's subscription protocol from it, so stock ntfy
//! clients are its clients.
//!
//! This is the one vendor that lives in the process. `send` publishes into the
//! [`Hub`]; the listener in front of it is the router's (`src/stream/`). Accepted
//! means on disk in the backlog, or, for "now or never", handed to a live
//! subscriber. A repeat of a delivery has the same id and is dropped, hence
//! [`Dedup::Full`].

mod backlog;
mod hub;
mod listeners;
mod message;
mod pace;
mod payload;
mod text;
mod token;
mod upcoming;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Uri};

use crate::address::{Address, Field, FieldError, Need};
use crate::registry::Kind;
use crate::template::Filling;
use crate::{
    Answer, Call, Dedup, Gauge, Invalid, Outcome, Part, Payload, ProbeProfile, Processed, Profile,
    Proves, Provider, Push, VendorRequest,
};

pub use hub::{BacklogBroken, Coming, Hub, HubFigures, HubSettings, HubStats};
pub use listeners::{Full, Place, QUEUE, Subscription, network};
pub use message::{Form, ID_LENGTH, Message, Seen, event};
pub use text::{LARGEST_TEXT, Text};
pub use token::Tokens;

/// The kind. Built from settings alone it has no hub and takes nothing; the
/// router builds the one that runs with [`provider`].
pub static KIND: Kind = Kind {
    name: "stream",
    fields: &[Field { name: "topic", need: Need::Required }],
    check_address,
    settings: &[],
    build: |_| Ok(Arc::new(Stream { hub: None })),
};

/// Characters of a topic (ntfy: `^[-_A-Za-z0-9]{1,64}$`).
const LONGEST_TOPIC: usize = 64;

/// Names that the paths of an ntfy server begin with; no topic of ntfy's either.
const RESERVED: [&str; 10] =
    ["docs", "static", "file", "app", "metrics", "account", "settings", "signup", "login", "v1"];

static PROFILE: Profile = Profile {
    kind: "stream",
    dedup: Dedup::Full,
    min_retry: Duration::ZERO,
    // It is here: as long as we run, it can be reached.
    probe: ProbeProfile {
        proves: Proves::Nothing,
        min_interval: Duration::ZERO,
        only_when_quiet: true,
    },
    ping_interval: None,
};

/// The provider that publishes into this hub.
pub fn provider(hub: Arc<Hub>) -> Arc<dyn Provider> {
    Arc::new(Stream { hub: Some(hub) })
}

/// Whether this may be a topic's name.
pub fn is_topic(name: &str) -> bool {
    (1..=LONGEST_TOPIC).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        && !is_reserved(name)
}

/// Whether an ntfy server keeps the name for itself.
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

struct Stream {
    hub: Option<Arc<Hub>>,
}

impl Provider for Stream {
    fn profile(&self) -> &Profile {
        &PROFILE
    }

    fn encode(&self, push: &Push) -> Result<Payload, Invalid> {
        payload::encode(push)
    }

    fn request(&self, call: &Call) -> Result<VendorRequest, Invalid> {
        let topic = topic(call)?;
        let body = call.payload.body.render(&filling(call, topic));
        // A topic's characters are those of a path.
        let uri = Uri::try_from(format!("/{topic}")).map_err(|_| no_topic())?;
        Ok(VendorRequest { method: Method::POST, uri, headers: HeaderMap::new(), body })
    }

    fn send<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Answer> {
        async move {
            let topic = match topic(call) {
                Ok(topic) => topic,
                Err(invalid) => return Answer::from(&invalid),
            };
            let Some(hub) = &self.hub else {
                let answer = Answer::new(Outcome::Unavailable).processed(Processed::No);
                return answer.code("no_listener").detail("no [stream] listener is running");
            };
            let rest = call.payload.body.render(&filling(call, topic));
            let id = message::id(call.delivery, topic);
            let ends = (call.expires_at > 0).then_some(call.expires_at);
            call.written.set();
            let end = hub.publish(id.clone(), topic, ends, &rest).await;
            answer(end, &id)
        }
        .boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Answer> {
        std::future::ready(Answer::new(Outcome::Accepted)).boxed()
    }

    fn gauge(&self) -> Gauge {
        let mut gauge = Gauge::default();
        gauge.credential.ok = true;
        gauge
    }
}

/// What the end of a publishing means.
fn answer(end: hub::Published, id: &str) -> Answer {
    match end {
        hub::Published::Taken | hub::Published::Repeat => {
            let mut answer = Answer::new(Outcome::Accepted).status(200);
            answer.vendor_id = Some(id.into());
            answer
        }
        hub::Published::Nobody => Answer::new(Outcome::Unavailable)
            .about(Part::Device)
            .processed(Processed::No)
            .code("nobody_listens")
            .detail("a message for now or never, and no subscriber is connected"),
        hub::Published::Broken => Answer::new(Outcome::Unavailable)
            .processed(Processed::No)
            .code("backlog")
            .detail("the backlog cannot be written; look at the disk and restart"),
    }
}

fn filling<'a>(call: &'a Call, topic: &'a str) -> Filling<'a> {
    Filling {
        address: topic,
        delivery: "",
        pushyard: &call.pushyard,
        ttl: call.ttl.as_secs(),
        expires_at: call.expires_at,
    }
}

fn topic(call: &Call) -> Result<&str, Invalid> {
    call.address.get("topic").ok_or_else(no_topic)
}

fn no_topic() -> Invalid {
    Invalid::new("no_topic", "the address has no topic")
}

fn check_address(address: &Address) -> Result<(), FieldError> {
    match address.get("topic") {
        Some(topic) if !is_topic(topic) => Err(FieldError::new(
            "topic",
            "must be 1 to 64 letters, digits, - or _, and not reserved",
        )),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
