//! `to`: recipients and their addresses, as the request has them.

use pushyard_providers::Address;
use pushyard_providers::address::Need;
use pushyard_providers::registry::{self, KINDS, Kind};
use smallvec::SmallVec;

use super::fault::{At, Faults, did_you_mean, quoted};
use super::json::{Member, Node};
use super::time::rfc3339;
use crate::model::Recipient;
use crate::routing::Catalog;

/// Recipients of a message at most.
pub const MAX_RECIPIENTS: usize = 1000;

/// Addresses of a recipient at most.
pub const MAX_ADDRESSES: usize = 16;

pub(super) const MAX_REF: usize = 256;
pub(super) const MAX_USER: usize = 256;
pub(super) const MAX_REGION: usize = 64;

/// The longest known is a web push endpoint or an FCM condition, both far below.
const MAX_ADDRESS_FIELD: usize = 4096;

/// The fields of a recipient.
pub const RECIPIENT_FIELDS: [&str; 4] = ["ref", "region", "addresses", "user"];

/// The fields that an address of any kind may have.
pub const ADDRESS_FIELDS: [&str; 3] = ["kind", "provider", "registered_at"];

/// Those that were read without a fault.
#[derive(Debug, Default)]
pub(super) struct Recipients {
    /// With their place in `to`.
    pub(super) devices: Vec<(u32, Recipient)>,
    /// Users of the registry, with their place in `to`.
    pub(super) users: Vec<(u32, String)>,
}

/// Reads `to`.
pub(super) fn read(
    node: &Node<'_>,
    at: At<'_>,
    catalog: &Catalog,
    faults: &mut Faults,
) -> Recipients {
    let mut read = Recipients::default();
    let Node::Array(items) = node else {
        faults.wrong_type(at, "a list of recipients", node);
        return read;
    };
    if items.is_empty() || items.len() > MAX_RECIPIENTS {
        let detail = format!("must have 1 to {MAX_RECIPIENTS} recipients, not {}", items.len());
        faults.push(at, "out_of_range", detail);
        return read;
    }
    read.devices.reserve_exact(items.len());
    for (index, item) in items.iter().enumerate() {
        match recipient(item, At::Item(&at, index), catalog, faults) {
            // At most MAX_RECIPIENTS.
            Some(Whom::Device(recipient)) => read.devices.push((index as u32, recipient)),
            Some(Whom::User(user)) => read.users.push((index as u32, user)),
            None => {}
        }
    }
    read
}

/// The users that a message names, each once: whose devices are needed to take it.
pub fn users_named(body: &Node<'_>) -> Vec<String> {
    let Some(Node::Array(items)) = body.get("to") else { return Vec::new() };
    let named = items.iter().filter_map(|item| item.get("user")?.text());
    let mut users: Vec<String> = named.map(str::to_owned).collect();
    users.sort_unstable();
    users.dedup();
    users
}

enum Whom {
    Device(Recipient),
    User(String),
}

fn recipient(node: &Node<'_>, at: At<'_>, catalog: &Catalog, faults: &mut Faults) -> Option<Whom> {
    let Node::Object(members) = node else {
        faults.wrong_type(at, "an object", node);
        return None;
    };
    let (mut reference, mut region, mut addresses, mut user) = (None, None, None, None);
    for (key, value) in members {
        let here = At::Key(&at, key);
        match &**key {
            "ref" => reference = bounded(value, here, 0, MAX_REF, faults),
            "region" => region = bounded(value, here, 1, MAX_REGION, faults),
            "addresses" => addresses = Some(list(value, here, catalog, faults)),
            "user" => user = Some(bounded(value, here, 1, MAX_USER, faults)),
            unknown => faults.unknown_field(at, unknown, RECIPIENT_FIELDS),
        }
    }
    match (user, addresses) {
        (None, Some(addresses)) => Some(Whom::Device(Recipient {
            reference,
            user: None,
            region,
            addresses,
            no_route: false,
        })),
        (None, None) => {
            faults.required(At::Key(&at, "addresses"));
            None
        }
        (Some(user), addresses) => {
            if addresses.is_some() || reference.is_some() || region.is_some() {
                let detail = "a user's devices bring their own ref, region and addresses; \
                              give either the user or these";
                faults.push(At::Key(&at, "user"), "conflict", detail);
            }
            user.map(Whom::User)
        }
    }
}

/// A string of so many characters, without control characters.
pub(super) fn bounded(
    node: &Node<'_>,
    at: At<'_>,
    least: usize,
    most: usize,
    faults: &mut Faults,
) -> Option<String> {
    let text = faults.text(at, node)?;
    // Bytes first: counting characters is for the long ones only.
    if text.len() < least || (text.len() > most && text.chars().count() > most) {
        let detail = format!("must have {least} to {most} characters");
        faults.push(at, "out_of_range", detail);
    } else if text.chars().any(char::is_control) {
        faults.push(at, "invalid_value", "must not contain line breaks or control characters");
    }
    Some(text.to_owned())
}

pub(super) fn list(
    node: &Node<'_>,
    at: At<'_>,
    catalog: &Catalog,
    faults: &mut Faults,
) -> Vec<Address> {
    let Node::Array(items) = node else {
        faults.wrong_type(at, "a list of addresses", node);
        return Vec::new();
    };
    if items.is_empty() || items.len() > MAX_ADDRESSES {
        let detail = format!("must have 1 to {MAX_ADDRESSES} addresses, not {}", items.len());
        faults.push(at, "out_of_range", detail);
        return Vec::new();
    }
    let each = items.iter().enumerate();
    each.filter_map(|(n, item)| address(item, At::Item(&at, n), catalog, faults)).collect()
}

fn address(node: &Node<'_>, at: At<'_>, catalog: &Catalog, faults: &mut Faults) -> Option<Address> {
    let Node::Object(members) = node else {
        faults.wrong_type(at, "an object", node);
        return None;
    };
    let kind = kind(members, at, faults)?;
    let mut sound = true;
    let mut provider = None;
    let mut registered_at = None;
    let mut values: SmallVec<[(&str, &str); 4]> = SmallVec::new();
    for (key, value) in members {
        let here = At::Key(&at, key);
        match &**key {
            "kind" => {}
            "provider" => {
                provider = binding(value, here, kind, catalog, faults);
                sound &= provider.is_some();
            }
            "registered_at" => {
                registered_at = registered(value, here, faults);
                sound &= registered_at.is_some();
            }
            name if kind.fields.iter().any(|field| field.name == name) => {
                match address_field(value, here, faults) {
                    Some(text) => values.push((name, text)),
                    None => sound = false,
                }
            }
            unknown => {
                let own = kind.fields.iter().map(|field| field.name);
                faults.unknown_field(at, unknown, own.chain(ADDRESS_FIELDS));
                sound = false;
            }
        }
    }
    match Address::new(kind, &values, provider, registered_at) {
        Ok(address) => sound.then_some(address),
        Err(errors) => {
            for error in errors {
                let given = values.iter().any(|(name, _)| *name == error.field);
                // What is there and faulty has been told already.
                let named = members.iter().any(|(name, _)| name == error.field);
                let told = !given && (named || (error.field.is_empty() && !sound));
                if !told {
                    let code = code(kind, error.field, given, &values);
                    field_fault(at, error.field, code, error.detail, faults);
                }
            }
            None
        }
    }
}

fn field_fault(at: At<'_>, field: &str, code: &'static str, detail: String, faults: &mut Faults) {
    if field.is_empty() {
        faults.push(at, code, detail);
    } else {
        faults.push(At::Key(&at, field), code, detail);
    }
}

/// The code of what the kind says about one of its fields, or (`""`) about
/// several of which exactly one is wanted.
fn code(kind: &Kind, field: &str, given: bool, values: &[(&str, &str)]) -> &'static str {
    let choice = |name: &str| {
        let exclusive = |need| matches!(need, Need::OneOf | Need::Unless(_));
        kind.fields.iter().any(|field| field.name == name && exclusive(field.need))
    };
    match field {
        "" if values.iter().any(|(name, _)| choice(name)) => "conflict",
        "" => "required",
        _ if given => "invalid_value",
        _ => "required",
    }
}

fn kind(members: &[Member<'_>], at: At<'_>, faults: &mut Faults) -> Option<&'static Kind> {
    let here = At::Key(&at, "kind");
    let Some((_, value)) = members.iter().find(|(key, _)| key == "kind") else {
        faults.required(here);
        return None;
    };
    let name = faults.text(here, value)?;
    let kind = registry::kind(name);
    if kind.is_none() {
        let hint = did_you_mean(name, KINDS.iter().map(|kind| kind.name));
        faults.push(here, "unknown_kind", format!("unknown kind {}{hint}", quoted(name)));
    }
    kind
}

fn address_field<'n>(node: &'n Node<'_>, at: At<'_>, faults: &mut Faults) -> Option<&'n str> {
    let text = faults.text(at, node)?;
    if text.len() > MAX_ADDRESS_FIELD {
        let detail = format!("must have at most {MAX_ADDRESS_FIELD} bytes");
        faults.push(at, "out_of_range", detail);
        return None;
    }
    Some(text)
}

/// The provider that the address is bound to: there must be such a one, of its kind.
fn binding<'n>(
    node: &'n Node<'_>,
    at: At<'_>,
    kind: &Kind,
    catalog: &Catalog,
    faults: &mut Faults,
) -> Option<&'n str> {
    let id = faults.text(at, node)?;
    let of_kind = || catalog.providers.iter().filter(|built| built.settings.kind == kind.name);
    match catalog.by_id(id).map(|index| catalog.provider(index)) {
        Some(built) if built.settings.kind == kind.name => Some(id),
        Some(built) => {
            let detail = format!("provider {} is of kind \"{}\"", quoted(id), built.settings.kind);
            faults.push(at, "conflict", detail);
            None
        }
        None => {
            let hint = did_you_mean(id, of_kind().map(|built| &*built.settings.id));
            faults.push(at, "unknown_provider", format!("unknown provider {}{hint}", quoted(id)));
            None
        }
    }
}

fn registered(node: &Node<'_>, at: At<'_>, faults: &mut Faults) -> Option<u64> {
    let text = faults.text(at, node)?;
    let time = rfc3339(text);
    if time.is_none() {
        let detail = "must be a time as RFC 3339 writes it, such as \"2026-12-01T08:00:00Z\"";
        faults.push(at, "invalid_value", detail);
    }
    time.map(crate::clock::Utc::ms)
}
