//! `--to`: one recipient in a word of the command line.
//!
//! `KIND:TOKEN` is one address; what follows after a comma is a further address
//! of the same recipient, a field of the address before it, or `ref=` and
//! `region=` of the recipient. The kinds and their fields are the registry's, so
//! a new vendor needs nothing here. A comma that starts none of these belongs to
//! the value, as in a URL. What cannot be said so can be said in JSON, as in the
//! API's `to`; that also reaches a router which knows more kinds than this program.

use pushyard_providers::Kind;
use pushyard_providers::address::Need;
use pushyard_providers::registry::{self, KINDS};
use serde_json::{Map, Value, json};

/// Fields that an address of every kind has.
const COMMON_FIELDS: [&str; 1] = ["provider"];
/// Fields of the recipient itself.
const RECIPIENT_FIELDS: [&str; 2] = ["ref", "region"];

/// An element of the API's `to`.
#[derive(Clone)]
pub(in crate::cli) struct Recipient(pub(super) Value);

impl std::fmt::Debug for Recipient {
    /// Without the tokens.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recipient(***)")
    }
}

/// Reads `--to`.
///
/// # Errors
/// What is wrong with it, for people.
pub(in crate::cli) fn recipient(text: &str) -> Result<Recipient, String> {
    if text.starts_with('{') {
        return serde_json::from_str(text)
            .map(Recipient)
            .map_err(|error| format!("it begins as JSON but is none: {error}"));
    }
    if let Some(user) = text.strip_prefix("user:") {
        return Ok(Recipient(json!({"user": user})));
    }
    let mut recipient = Map::new();
    let mut addresses: Vec<Address> = Vec::new();
    for part in parts(text) {
        match part {
            Part::Address(kind, rest) => addresses.push(Address::new(&kind, &rest)?),
            Part::Field(name, value) if RECIPIENT_FIELDS.contains(&name.as_str()) => {
                recipient.insert(name, Value::String(value));
            }
            Part::Field(name, value) => match addresses.last_mut() {
                Some(address) => address.set(&name, value)?,
                None => return Err(format!("`{name}=` stands before any address")),
            },
        }
    }
    let addresses = addresses.into_iter().map(Address::json).collect();
    recipient.insert("addresses".to_owned(), addresses);
    Ok(Recipient(Value::Object(recipient)))
}

enum Part {
    /// The kind's name and what stands behind its colon.
    Address(String, String),
    Field(String, String),
}

/// Cuts at the commas that start something. The first part is always an address,
/// so that a mistyped kind is named as one.
fn parts(text: &str) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for piece in text.split(',') {
        let kind = piece.split_once(':').filter(|(name, _)| registry::kind(name).is_some());
        let field = piece.split_once('=').filter(|(name, _)| is_field(name));
        match (kind, field, parts.last_mut()) {
            (Some((kind, rest)), _, _) => parts.push(Part::Address(kind.into(), rest.into())),
            (None, Some((name, value)), Some(_)) => {
                parts.push(Part::Field(name.into(), value.into()));
            }
            (None, None, Some(Part::Address(_, value) | Part::Field(_, value))) => {
                value.push(',');
                value.push_str(piece);
            }
            (None, _, None) => {
                let (kind, rest) = piece.split_once(':').unwrap_or((piece, ""));
                parts.push(Part::Address(kind.to_owned(), rest.to_owned()));
            }
        }
    }
    parts
}

fn is_field(name: &str) -> bool {
    let mut of_kinds = KINDS.iter().flat_map(|kind| kind.fields).map(|field| field.name);
    COMMON_FIELDS.contains(&name)
        || RECIPIENT_FIELDS.contains(&name)
        || of_kinds.any(|field| field == name)
}

struct Address {
    kind: &'static Kind,
    fields: Map<String, Value>,
}

impl Address {
    /// `rest` is `field=value`, or the value of the field that every address of
    /// this kind has.
    fn new(name: &str, rest: &str) -> Result<Self, String> {
        let Some(kind) = registry::kind(name) else { return Err(unknown_kind(name)) };
        let mut address = Self { kind, fields: Map::new() };
        let named = rest.split_once('=').filter(|(name, _)| address.has(name));
        let (name, value) = match named {
            Some(named) => named,
            None => (principal_field(kind), rest),
        };
        if value.is_empty() {
            return Err(format!("after `{}:` there is no {name}", kind.name));
        }
        address.set(name, value.to_owned())?;
        Ok(address)
    }

    fn has(&self, field: &str) -> bool {
        COMMON_FIELDS.contains(&field) || self.kind.fields.iter().any(|f| f.name == field)
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        let kind = self.kind.name;
        if !self.has(name) {
            return Err(format!("an {kind} address has no `{name}`"));
        }
        match self.fields.insert(name.to_owned(), Value::String(value)) {
            Some(_) => Err(format!("`{name}` is there twice in one {kind} address")),
            None => Ok(()),
        }
    }

    fn json(mut self) -> Value {
        self.fields.insert("kind".to_owned(), Value::from(self.kind.name));
        Value::Object(self.fields)
    }
}

/// The field that a bare value is for: the first that an address must have, or
/// else may have.
fn principal_field(kind: &Kind) -> &'static str {
    let must = |need| matches!(need, Need::Required | Need::OneOf | Need::Unless(_));
    let first = kind.fields.iter().find(|field| must(field.need)).or(kind.fields.first());
    first.map_or("token", |field| field.name)
}

fn unknown_kind(name: &str) -> String {
    let near = KINDS
        .iter()
        .map(|kind| (strsim::damerau_levenshtein(kind.name, name), kind.name))
        .filter(|(distance, _)| *distance <= 2)
        .min();
    // The value may be a token that was given without its kind: do not repeat it.
    let known = KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ");
    match near {
        Some((_, near)) => format!("unknown kind {name:?}; did you mean {near:?}?"),
        None => format!("it does not begin with a kind and a colon; the kinds are {known}, user"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipient_is_read_as_it_is_written() {
        let cases = [
            ("apns:9f86", json!({"addresses": [{"kind": "apns", "token": "9f86"}]})),
            // FCM's tokens have colons.
            ("fcm:e1:APA91b-_", json!({"addresses": [{"kind": "fcm", "token": "e1:APA91b-_"}]})),
            ("ntfy:alice", json!({"addresses": [{"kind": "ntfy", "topic": "alice"}]})),
            ("gotify:Ax1", json!({"addresses": [{"kind": "gotify", "app_token": "Ax1"}]})),
            ("webhook:alice", json!({"addresses": [{"kind": "webhook", "id": "alice"}]})),
            ("fcm:topic=news", json!({"addresses": [{"kind": "fcm", "topic": "news"}]})),
            (
                "fcm:condition='a' in topics && 'b' in topics",
                json!({"addresses":
                    [{"kind": "fcm", "condition": "'a' in topics && 'b' in topics"}]}),
            ),
            // Not a field's name: a token with padding.
            ("fcm:abc=", json!({"addresses": [{"kind": "fcm", "token": "abc="}]})),
            (
                "apns:9f86,app=com.example.shop,fcm:e1,provider=fcm-eu,ref=alice,region=eu",
                json!({"ref": "alice", "region": "eu", "addresses": [
                    {"kind": "apns", "token": "9f86", "app": "com.example.shop"},
                    {"kind": "fcm", "token": "e1", "provider": "fcm-eu"}]}),
            ),
            (
                "apns:9f86,ref=a,b",
                json!({"ref": "a,b",
                "addresses": [{"kind": "apns", "token": "9f86"}]}),
            ),
            ("user:bob", json!({"user": "bob"})),
            (r#"{"user":"bob","region":"eu"}"#, json!({"user": "bob", "region": "eu"})),
        ];
        for (text, expected) in cases {
            assert_eq!(recipient(text).unwrap().0, expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_repeating_a_token() {
        let secret = "9f86d081884c7d659a2feaa0c55ad015";
        let cases = [
            ("apn:9f86".to_owned(), r#"unknown kind "apn"; did you mean "apns"?"#),
            (
                secret.to_owned(),
                "it does not begin with a kind and a colon; the kinds are apns, fcm, ntfy, gotify, webhook, stream, user",
            ),
            (
                String::new(),
                "it does not begin with a kind and a colon; the kinds are apns, fcm, ntfy, gotify, webhook, stream, user",
            ),
            ("apns:".to_owned(), "after `apns:` there is no token"),
            ("fcm:topic=".to_owned(), "after `fcm:` there is no topic"),
            ("apns:9f86,topic=news".to_owned(), "an apns address has no `topic`"),
            ("apns:9f86,token=9f87".to_owned(), "`token` is there twice in one apns address"),
        ];
        for (text, expected) in cases {
            assert_eq!(recipient(&text).unwrap_err(), expected, "{text}");
        }
        assert!(recipient("{").unwrap_err().starts_with("it begins as JSON but is none"));
    }
}
