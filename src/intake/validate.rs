//! A request body becomes a draft of a message, or the list of all its faults.
//!
//! Each field is read where its name stands in one `match`; a field that is not
//! there is unknown. What needs several fields (notification or data, the default
//! of `priority`) is decided after the walk. What a vendor can take is not known
//! here: encoding tells (`resolve`).

use std::collections::BTreeMap;
use std::time::Duration;

use pushyard_providers::registry::KINDS;
use pushyard_providers::{Notification, Priority, Push};

use super::fault::{At, Fault, Faults, did_you_mean, quoted};
use super::json::Node;
use super::recipients::{self, Recipients};
use super::time::{duration, rfc3339};
use crate::clock::Utc;
use crate::model::{Durability, OnAmbiguous};
use crate::routing::{Catalog, Route};

/// The longest life of a message, and the furthest `deliver_at`: what FCM and
/// most vendors keep a push for (*FCM: Set the lifespan of a message*).
const LONGEST: Duration = Duration::from_secs(28 * 24 * 3600);

/// The life of a message that names none.
const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);

const MAX_COLLAPSE_KEY: usize = 1024;
const MAX_METADATA: usize = 64;
const MAX_METADATA_KEY: usize = 64;
const MAX_METADATA_VALUE: usize = 1024;

/// Keys that payloads use themselves: APNs' own dictionary, and the string that
/// every payload carries.
const RESERVED_DATA: [&str; 2] = ["aps", "pushyard"];

/// The fields of a message.
pub const FIELDS: [&str; 13] = [
    "to",
    "notification",
    "data",
    "priority",
    "ttl",
    "collapse_key",
    "deliver_at",
    "route",
    "on_ambiguous",
    "durability",
    "overrides",
    "metadata",
    "idempotency_key",
];

/// The fields of a notification.
pub const NOTIFICATION_FIELDS: [&str; 9] =
    ["title", "body", "image", "url", "sound", "badge", "category", "thread", "tag"];

/// What a body is checked against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'c> {
    pub(super) catalog: &'c Catalog,
    pub(super) now: Utc,
    /// The key of the header `Idempotency-Key`.
    pub(super) header_key: Option<&'c str>,
}

/// A message without faults, not yet resolved.
#[derive(Debug)]
pub(super) struct Draft<'c> {
    pub(super) route: &'c Route,
    pub(super) deliver_at: Option<Utc>,
    pub(super) ttl: Duration,
    pub(super) on_ambiguous: OnAmbiguous,
    pub(super) durability: Durability,
    pub(super) push: Push,
    pub(super) to: Recipients,
    pub(super) metadata: BTreeMap<String, String>,
}

/// Reads a message.
pub(super) fn validate<'c>(body: &Node<'_>, rules: Rules<'c>) -> Result<Draft<'c>, Vec<Fault>> {
    let mut faults = Faults::default();
    let root = At::Root;
    let Node::Object(members) = body else {
        faults.wrong_type(root, "an object", body);
        return Err(faults.into_inner());
    };
    let mut message = Read::default();
    for (key, value) in members {
        let at = At::Key(&root, key);
        match &**key {
            "to" => message.to = Some(recipients::read(value, at, rules.catalog, &mut faults)),
            "notification" => message.notification = Some(notification(value, at, &mut faults)),
            "data" => {
                message.some_data = !matches!(value, Node::Object(pairs) if pairs.is_empty());
                message.data = data(value, at, &mut faults);
            }
            "priority" => message.priority = word(value, at, PRIORITIES, &mut faults),
            "ttl" => message.ttl = ttl(value, at, &mut faults),
            "collapse_key" => message.collapse_key = collapse_key(value, at, &mut faults),
            "deliver_at" => message.deliver_at = deliver_at(value, at, rules.now, &mut faults),
            "route" => message.route = faults.text(at, value).map(|name| (name, at)),
            "on_ambiguous" => message.on_ambiguous = word(value, at, ON_AMBIGUOUS, &mut faults),
            "durability" => message.durability = word(value, at, DURABILITY, &mut faults),
            "overrides" => message.overrides = overrides(value, at, &mut faults),
            "metadata" => message.metadata = metadata(value, at, &mut faults),
            "idempotency_key" => idempotency_key(value, at, rules.header_key, &mut faults),
            unknown => faults.unknown_field(root, unknown, FIELDS),
        }
    }
    message.finish(rules, faults)
}

/// The fields as they are read. `Some` of what may be required says that the field
/// is there at all, faulty or not.
#[derive(Default)]
struct Read<'n> {
    to: Option<Recipients>,
    notification: Option<Notification>,
    data: BTreeMap<String, String>,
    /// There are data, faulty or not.
    some_data: bool,
    priority: Option<Priority>,
    ttl: Option<Duration>,
    collapse_key: Option<String>,
    deliver_at: Option<Utc>,
    route: Option<(&'n str, At<'n>)>,
    on_ambiguous: Option<OnAmbiguous>,
    durability: Option<Durability>,
    overrides: BTreeMap<String, String>,
    metadata: BTreeMap<String, String>,
}

impl Read<'_> {
    /// What several fields decide together.
    fn finish<'c>(self, rules: Rules<'c>, mut faults: Faults) -> Result<Draft<'c>, Vec<Fault>> {
        let root = At::Root;
        if self.to.is_none() {
            faults.required(At::Key(&root, "to"));
        }
        if self.notification.is_none() && !self.some_data {
            let detail = "a message needs a notification, data, or both";
            faults.push(At::Key(&root, "notification"), "required", detail);
        }
        let route = self.route(rules.catalog, &mut faults);
        let faults = faults.into_inner();
        let (Some(to), Some(route), true) = (self.to, route, faults.is_empty()) else {
            return Err(faults);
        };
        let priority = self.priority.unwrap_or(match self.notification {
            Some(_) => Priority::High,
            None => Priority::Normal,
        });
        Ok(Draft {
            route,
            deliver_at: self.deliver_at,
            ttl: self.ttl.unwrap_or(DEFAULT_TTL),
            on_ambiguous: self.on_ambiguous.unwrap_or_default(),
            durability: self.durability.unwrap_or_default(),
            push: Push {
                notification: self.notification,
                data: self.data,
                priority,
                collapse_key: self.collapse_key,
                overrides: self.overrides,
            },
            to,
            metadata: self.metadata,
        })
    }

    fn route<'c>(&self, catalog: &'c Catalog, faults: &mut Faults) -> Option<&'c Route> {
        let names = || catalog.routes.iter().map(|route| &*route.name);
        let root = At::Root;
        match self.route {
            Some((name, at)) => {
                let known = catalog.route(name);
                if known.is_none() {
                    let hint = did_you_mean(name, names());
                    faults.push(
                        at,
                        "unknown_route",
                        format!("unknown route {}{hint}", quoted(name)),
                    );
                }
                known
            }
            None => {
                let default = catalog.default_route();
                if default.is_none() {
                    let known: Vec<_> = names().collect();
                    let detail = format!("is required, one of: {}", known.join(", "));
                    faults.push(At::Key(&root, "route"), "required", detail);
                }
                default
            }
        }
    }
}

const PRIORITIES: &[(&str, Priority)] = &[("high", Priority::High), ("normal", Priority::Normal)];
const ON_AMBIGUOUS: &[(&str, OnAmbiguous)] =
    &[("resend", OnAmbiguous::Resend), ("stop", OnAmbiguous::Stop)];
const DURABILITY: &[(&str, Durability)] =
    &[("disk", Durability::Disk), ("memory", Durability::Memory)];

/// One of a few words.
fn word<T: Copy>(
    node: &Node<'_>,
    at: At<'_>,
    words: &[(&str, T)],
    faults: &mut Faults,
) -> Option<T> {
    let text = faults.text(at, node)?;
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    if found.is_none() {
        let known: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let detail = format!("must be {}, not {}", known.join(" or "), quoted(text));
        faults.push(at, "invalid_value", detail);
    }
    found
}

fn notification(node: &Node<'_>, at: At<'_>, faults: &mut Faults) -> Notification {
    let mut notification = Notification::default();
    let Node::Object(members) = node else {
        faults.wrong_type(at, "an object", node);
        return notification;
    };
    if members.is_empty() {
        faults.push(at, "required", "needs at least one of title and body, or another field");
    }
    for (key, value) in members {
        let here = At::Key(&at, key);
        let field = match &**key {
            "title" => &mut notification.title,
            "body" => &mut notification.body,
            "image" => &mut notification.image,
            "url" => &mut notification.url,
            "sound" => &mut notification.sound,
            "category" => &mut notification.category,
            "thread" => &mut notification.thread,
            "tag" => &mut notification.tag,
            "badge" => {
                notification.badge = badge(value, here, faults);
                continue;
            }
            unknown => {
                faults.unknown_field(at, unknown, NOTIFICATION_FIELDS);
                continue;
            }
        };
        *field = faults.text(here, value).map(str::to_owned);
    }
    notification
}

fn badge(node: &Node<'_>, at: At<'_>, faults: &mut Faults) -> Option<u32> {
    let Some(number) = node.whole() else {
        faults.wrong_type(at, "a whole number", node);
        return None;
    };
    let badge = u32::try_from(number).ok();
    if badge.is_none() {
        faults.push(at, "out_of_range", format!("must be between 0 and {}", u32::MAX));
    }
    badge
}

/// String to string. What is wrong with an entry beyond its type, `check` says.
fn strings(
    node: &Node<'_>,
    at: At<'_>,
    faults: &mut Faults,
    mut check: impl FnMut(&str, &str, At<'_>, &mut Faults),
) -> BTreeMap<String, String> {
    let mut pairs = BTreeMap::new();
    let Node::Object(members) = node else {
        faults.wrong_type(at, "an object of strings", node);
        return pairs;
    };
    for (key, value) in members {
        let here = At::Key(&at, key);
        if let Some(text) = faults.text(here, value) {
            check(key, text, here, faults);
            pairs.insert(key.clone().into_owned(), text.to_owned());
        }
    }
    pairs
}

fn data(node: &Node<'_>, at: At<'_>, faults: &mut Faults) -> BTreeMap<String, String> {
    strings(node, at, faults, |key, _, here, faults| {
        if RESERVED_DATA.contains(&key) {
            let detail = format!("the key \"{key}\" is used by the payload itself; rename it");
            faults.push(here, "invalid_value", detail);
        }
    })
}

pub(super) fn metadata(
    node: &Node<'_>,
    at: At<'_>,
    faults: &mut Faults,
) -> BTreeMap<String, String> {
    let pairs = strings(node, at, faults, |key, value, here, faults| {
        if key.is_empty() || key.len() > MAX_METADATA_KEY {
            let detail = format!("a key must have 1 to {MAX_METADATA_KEY} bytes");
            faults.push(here, "out_of_range", detail);
        }
        if value.len() > MAX_METADATA_VALUE {
            let detail = format!("must have at most {MAX_METADATA_VALUE} bytes");
            faults.push(here, "out_of_range", detail);
        }
    });
    if pairs.len() > MAX_METADATA {
        faults.push(at, "out_of_range", format!("must have at most {MAX_METADATA} entries"));
    }
    pairs
}

fn ttl(node: &Node<'_>, at: At<'_>, faults: &mut Faults) -> Option<Duration> {
    const RANGE: &str = "must be between 0 s and 28 d";
    let ttl = match (node.whole(), node.text()) {
        (Some(seconds), _) => match u64::try_from(seconds) {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => {
                faults.push(at, "out_of_range", RANGE);
                return None;
            }
        },
        (None, Some(text)) => match duration(text) {
            Some(ttl) => ttl,
            None => {
                let detail =
                    "must be a duration such as \"30s\", \"4h\" or \"7d\", or a number of seconds";
                faults.push(at, "invalid_value", detail);
                return None;
            }
        },
        (None, None) => {
            faults.wrong_type(at, "a duration such as \"4h\", or a whole number of seconds", node);
            return None;
        }
    };
    if ttl > LONGEST {
        faults.push(at, "out_of_range", RANGE);
    }
    Some(ttl)
}

/// The past means now.
fn deliver_at(node: &Node<'_>, at: At<'_>, now: Utc, faults: &mut Faults) -> Option<Utc> {
    let text = faults.text(at, node)?;
    let Some(time) = rfc3339(text) else {
        let detail = "must be a time as RFC 3339 writes it, such as \"2026-12-01T08:00:00Z\"";
        faults.push(at, "invalid_value", detail);
        return None;
    };
    if time > now.plus(LONGEST) {
        faults.push(at, "out_of_range", "must be at most 28 d ahead");
    }
    (time > now).then_some(time)
}

fn collapse_key(node: &Node<'_>, at: At<'_>, faults: &mut Faults) -> Option<String> {
    let text = faults.text(at, node)?;
    if text.is_empty() || text.len() > MAX_COLLAPSE_KEY {
        let detail = format!("must have 1 to {MAX_COLLAPSE_KEY} bytes");
        faults.push(at, "out_of_range", detail);
    } else if text.chars().any(char::is_control) {
        let detail = "must not contain line breaks or control characters";
        faults.push(at, "invalid_value", detail);
    }
    Some(text.to_owned())
}

fn overrides(node: &Node<'_>, at: At<'_>, faults: &mut Faults) -> BTreeMap<String, String> {
    let mut patches = BTreeMap::new();
    let Node::Object(members) = node else {
        faults.wrong_type(at, "an object", node);
        return patches;
    };
    for (kind, patch) in members {
        let here = At::Key(&at, kind);
        if pushyard_providers::registry::kind(kind).is_none() {
            let hint = did_you_mean(kind, KINDS.iter().map(|kind| kind.name));
            faults.push(here, "unknown_kind", format!("unknown kind {}{hint}", quoted(kind)));
        } else if let (Node::Object(_), Ok(text)) = (patch, serde_json::to_string(patch)) {
            patches.insert(kind.clone().into_owned(), text);
        } else {
            faults.wrong_type(here, "an object that is merged into the vendor's payload", patch);
        }
    }
    patches
}

fn idempotency_key(node: &Node<'_>, at: At<'_>, header: Option<&str>, faults: &mut Faults) {
    let Some(key) = faults.text(at, node) else { return };
    if !super::idempotency::well_formed(key) {
        faults.push(at, "invalid_value", super::idempotency::FORM);
    } else if header.is_some_and(|header| header != key) {
        let detail = "differs from the header Idempotency-Key; send one of them";
        faults.push(at, "conflict", detail);
    }
}
