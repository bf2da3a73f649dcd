//! An address that a vendor declared gone, with the vendor's own words.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use pushyard_providers::Address;

use crate::clock::Utc;

/// See the module. It belongs to the client whose delivery found it out, because
/// that client alone may see the address and what was said of it.
#[derive(Clone, Debug)]
pub struct Gone {
    /// The client.
    pub client: Arc<str>,
    /// The provider that said so.
    pub provider: Arc<str>,
    /// The address.
    pub address: Address,
    /// The backend's name for the recipient.
    pub reference: Option<String>,
    /// The user, where the address was a registered device's.
    pub user: Option<String>,
    /// When we heard of it.
    pub at: Utc,
    /// Since when, as the vendor says.
    pub vendor_at: Option<Utc>,
    /// What it answered.
    pub proof: Proof,
}

/// The vendor's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// HTTP status.
    pub status: Option<u16>,
    /// Its code or reason.
    pub code: Option<Arc<str>>,
    /// The beginning of the body.
    pub body: Option<Arc<str>>,
}

impl Gone {
    /// It is believed for this long, as a dead letter is kept by default: then
    /// the address is tried again.
    pub const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

    /// That many at most; the oldest go first. In memory each takes about 40 bytes.
    pub const MOST: usize = 1_000_000;

    /// What it is found by.
    pub fn key(&self) -> u128 {
        gone_key(&self.client, &self.provider, &self.address)
    }
}

/// The name of (client, provider, address) for good: a part of a SHA-256, so that
/// neither a new compiler nor a crafted address changes what it means.
pub fn gone_key(client: &str, provider: &str, address: &Address) -> u128 {
    let mut context = Context::new(&SHA256);
    let mut text = |text: &str| {
        context.update(text.as_bytes());
        context.update(&[0]);
    };
    text(client);
    text(provider);
    text(address.kind().name);
    for (name, value) in address.values() {
        text(name);
        text(value);
    }
    let hash = context.finish();
    let mut key = [0; 16];
    key.copy_from_slice(&hash.as_ref()[..16]);
    u128::from_be_bytes(key)
}
