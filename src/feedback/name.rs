//! How an address is named where it must not be shown: its kind, and eight digits
//! that are the same for the same address and tell nothing else of it. Without the
//! key nobody can find out by trying whether a token or a topic is behind them.

use aws_lc_rs::hmac;
use pushyard_providers::Address;

/// Keeps these names apart from receipt secrets, which have the same key.
const PURPOSE: &[u8] = b"address\0";

/// Names addresses.
#[derive(Debug)]
pub struct AddressNames {
    key: hmac::Key,
}

impl AddressNames {
    /// From the server's key, which is the store's.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// Such as `apns:5c1f09ab`.
    pub fn name(&self, address: &Address) -> String {
        let kind = address.kind().name;
        let mut context = hmac::Context::with_key(&self.key);
        context.update(PURPOSE);
        context.update(kind.as_bytes());
        for (field, value) in address.values() {
            for text in [field, value] {
                context.update(&[0]);
                context.update(text.as_bytes());
            }
        }
        let tag = context.sign();
        let digits: String = tag.as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{kind}:{digits}")
    }
}

#[cfg(test)]
mod tests {
    use pushyard_providers::registry;

    use super::*;

    fn apns(token: &str) -> Address {
        let kind = registry::kind("apns").unwrap();
        Address::new(kind, &[("token", token)], None, None).unwrap()
    }

    #[test]
    fn a_name_is_the_same_for_the_same_address_and_key_alone() {
        let names = AddressNames::new(&[1; 32]);
        let name = names.name(&apns("aa"));
        assert!(name.len() == 13 && name.starts_with("apns:"), "{name}");
        assert_eq!(name, names.name(&apns("aa")));
        assert_ne!(name, names.name(&apns("ab")));
        assert_ne!(name, AddressNames::new(&[2; 32]).name(&apns("aa")));
    }
}
