//! The records of a user's device and of a gone address.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::message::StoredAddress;
use super::{Undecodable, decode, encode};
use crate::clock::Utc;
use crate::model::{Device, Gone, Proof};

#[derive(Serialize, Deserialize)]
struct StoredDevice<'a> {
    name: &'a str,
    region: Option<&'a str>,
    updated_at: u64,
    #[serde(borrow)]
    addresses: SmallVec<[StoredAddress<'a>; 1]>,
    metadata: Vec<(&'a str, &'a str)>,
}

#[derive(Serialize, Deserialize)]
struct StoredGone<'a> {
    client: &'a str,
    provider: &'a str,
    #[serde(borrow)]
    address: StoredAddress<'a>,
    reference: Option<&'a str>,
    user: Option<&'a str>,
    at: u64,
    vendor_at: Option<u64>,
    status: Option<u16>,
    code: Option<&'a str>,
    body: Option<&'a str>,
}

/// Adds a device's record to `into`.
pub(in crate::store) fn encode_device(device: &Device, into: &mut Vec<u8>) {
    let Device { name, addresses, region, metadata, updated_at } = device;
    let stored = StoredDevice {
        name,
        region: region.as_deref(),
        updated_at: updated_at.ms(),
        addresses: addresses.iter().map(StoredAddress::from).collect(),
        metadata: metadata.iter().map(|(key, value)| (&**key, &**value)).collect(),
    };
    encode(&stored, into);
}

/// A device from its record.
pub(in crate::store) fn decode_device(bytes: &[u8]) -> Result<Device, Undecodable> {
    let stored: StoredDevice<'_> = decode(bytes)?;
    Ok(Device {
        name: stored.name.to_owned(),
        addresses: stored
            .addresses
            .iter()
            .map(StoredAddress::to_address)
            .collect::<Result<_, _>>()?,
        region: stored.region.map(str::to_owned),
        metadata: stored
            .metadata
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        updated_at: Utc::from_ms(stored.updated_at),
    })
}

/// Adds a gone address's record to `into`.
pub(in crate::store) fn encode_gone(gone: &Gone, into: &mut Vec<u8>) {
    let Gone { client, provider, address, reference, user, at, vendor_at, proof } = gone;
    let Proof { status, code, body } = proof;
    let stored = StoredGone {
        client,
        provider,
        address: StoredAddress::from(address),
        reference: reference.as_deref(),
        user: user.as_deref(),
        at: at.ms(),
        vendor_at: vendor_at.map(Utc::ms),
        status: *status,
        code: code.as_deref(),
        body: body.as_deref(),
    };
    encode(&stored, into);
}

/// A gone address from its record.
pub(in crate::store) fn decode_gone(bytes: &[u8]) -> Result<Gone, Undecodable> {
    let stored: StoredGone<'_> = decode(bytes)?;
    Ok(Gone {
        client: stored.client.into(),
        provider: stored.provider.into(),
        address: stored.address.to_address()?,
        reference: stored.reference.map(str::to_owned),
        user: stored.user.map(str::to_owned),
        at: Utc::from_ms(stored.at),
        vendor_at: stored.vendor_at.map(Utc::from_ms),
        proof: Proof {
            status: stored.status,
            code: stored.code.map(Arc::from),
            body: stored.body.map(Arc::from),
        },
    })
}
