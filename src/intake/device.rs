//! Requests beside messages: a user's device, and which messages to take back.

use std::collections::BTreeMap;

use pushyard_providers::Address;

use super::fault::{At, Fault, Faults};
use super::json::Node;
use super::recipients::{self, MAX_REF, MAX_REGION, MAX_USER};
use super::validate;
use crate::clock::Utc;
use crate::model::{Device, Message};
use crate::routing::Catalog;

/// The fields of a device.
pub const DEVICE_FIELDS: [&str; 3] = ["addresses", "region", "metadata"];

const FILTER_FIELDS: [&str; 2] = ["metadata", "ref"];

/// The device that a body describes, registered now: an address that does not say
/// when the app registered it was registered with this request.
///
/// # Errors
/// All faults of the body.
pub fn device(
    body: &Node<'_>,
    name: &str,
    now: Utc,
    catalog: &Catalog,
) -> Result<Device, Vec<Fault>> {
    let mut faults = Faults::default();
    let root = At::Root;
    let (mut addresses, mut region, mut metadata) = (None, None, BTreeMap::new());
    let Node::Object(members) = body else {
        faults.wrong_type(root, "an object", body);
        return Err(faults.into_inner());
    };
    for (key, value) in members {
        let at = At::Key(&root, key);
        match &**key {
            "addresses" => addresses = Some(recipients::list(value, at, catalog, &mut faults)),
            "region" if *value == Node::Null => {}
            "region" => region = recipients::bounded(value, at, 1, MAX_REGION, &mut faults),
            "metadata" => metadata = validate::metadata(value, at, &mut faults),
            unknown => faults.unknown_field(root, unknown, DEVICE_FIELDS),
        }
    }
    if addresses.is_none() {
        faults.required(At::Key(&root, "addresses"));
    }
    let faults = faults.into_inner();
    let (Some(addresses), true) = (addresses, faults.is_empty()) else { return Err(faults) };
    let addresses = addresses.iter().map(|address| registered(address, now)).collect();
    Ok(Device { name: name.to_owned(), addresses, region, metadata, updated_at: now })
}

fn registered(address: &Address, now: Utc) -> Address {
    if address.registered_at().is_some() {
        return address.clone();
    }
    let values: Vec<_> = address.values().collect();
    // It has been checked: the time alone is new.
    Address::new(address.kind(), &values, address.provider(), Some(now.ms()))
        .unwrap_or_else(|_| address.clone())
}

/// What is wrong with a name in a path (`user` or `device`), if anything is.
pub fn name_fault(field: &str, name: &str) -> Option<Fault> {
    let most = if field == "user" { MAX_USER } else { MAX_REF };
    let detail = if name.chars().any(char::is_control) {
        "must not contain line breaks or control characters".to_owned()
    } else if name.is_empty() || name.chars().count() > most {
        format!("must have 1 to {most} characters")
    } else {
        return None;
    };
    Some(Fault { pointer: format!("/path/{field}"), detail, code: "invalid_value" })
}

/// Which messages are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CancelFilter {
    /// All of these labels.
    pub metadata: BTreeMap<String, String>,
    /// Deliveries to the recipients of this name alone.
    pub reference: Option<String>,
}

impl CancelFilter {
    /// The places of the deliveries that are meant; none: the message is not.
    pub fn of(&self, message: &Message) -> Vec<u16> {
        let labels = |(key, value): (&String, &String)| message.metadata.get(key) == Some(value);
        if !self.metadata.iter().all(labels) {
            return Vec::new();
        }
        let meant = |name: &Option<String>| self.reference.is_none() || *name == self.reference;
        let recipients = message.recipients.iter().enumerate();
        // At most MAX_DELIVERIES.
        recipients.filter(|(_, r)| meant(&r.reference)).map(|(n, _)| n as u16).collect()
    }
}

/// The filter that a body describes.
///
/// # Errors
/// All faults of the body; an empty filter is one.
pub fn cancel_filter(body: &Node<'_>) -> Result<CancelFilter, Vec<Fault>> {
    let mut faults = Faults::default();
    let root = At::Root;
    let mut filter = CancelFilter::default();
    let Node::Object(members) = body else {
        faults.wrong_type(root, "an object", body);
        return Err(faults.into_inner());
    };
    for (key, value) in members {
        let at = At::Key(&root, key);
        match &**key {
            "metadata" => filter.metadata = validate::metadata(value, at, &mut faults),
            "ref" => filter.reference = recipients::bounded(value, at, 1, MAX_REF, &mut faults),
            unknown => faults.unknown_field(root, unknown, FILTER_FIELDS),
        }
    }
    let mut faults = faults.into_inner();
    if faults.is_empty() && filter == CancelFilter::default() {
        let mut empty = Faults::default();
        empty.push(root, "required", "needs at least one label in metadata, or a ref");
        faults = empty.into_inner();
    }
    if faults.is_empty() { Ok(filter) } else { Err(faults) }
}
