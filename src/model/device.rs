//! A user of a client, and the devices that are kept of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use pushyard_providers::Address;

use crate::clock::Utc;

/// Devices of a user at most.
pub const MAX_DEVICES: usize = 100;

/// A user of one client; another client's user of the same name is another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User {
    /// The client.
    pub client: Arc<str>,
    /// The client's name for the user.
    pub name: String,
}

/// A recipient that is kept: a message to its user reaches it.
#[derive(Clone, Debug)]
pub struct Device {
    /// The client's name for it; the `ref` of its deliveries.
    pub name: String,
    /// The ways to reach it, each with the time of its registration.
    pub addresses: Vec<Address>,
    /// Only providers of this region, or of none, may serve it.
    pub region: Option<String>,
    /// The client's own labels.
    pub metadata: BTreeMap<String, String>,
    /// When it was put last.
    pub updated_at: Utc,
}
