//! Stub of fcm.

use crate::registry::Kind;

/// The kind.
pub static KIND: Kind = Kind {
    name: "fcm",
    fields: &[],
    check_address: |_| Ok(()),
    settings: &[],
    build: |_| Err(Vec::new()),
};
