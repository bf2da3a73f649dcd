//! Stub of apns.

use crate::registry::Kind;

/// The kind.
pub static KIND: Kind = Kind {
    name: "apns",
    fields: &[],
    check_address: |_| Ok(()),
    settings: &[],
    build: |_| Err(Vec::new()),
};
