//! A client as configured. Its keys are held as hashes: whoever reads the
//! process's memory or a dump of the settings finds none.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;

use crate::clock::Utc;
use crate::routing::Rate;

/// One of `[[clients]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Client {
    /// Its name; unique. In metrics, and the owner of its messages.
    pub name: Arc<str>,
    /// Any of them opens; at least one, and no other client's.
    pub keys: Vec<ClientKey>,
    /// Messages that it may send.
    pub rate: Option<Rate>,
    /// The routes that it may name; `None`: all.
    pub routes: Option<Vec<Arc<str>>>,
    /// Whether it may use the admin API and see what belongs to other clients.
    pub admin: bool,
}

/// One of a client's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientKey {
    /// What it is known by.
    pub hash: KeyHash,
    /// From when on it opens nothing; `None`: never.
    pub expires: Option<Utc>,
}

impl From<KeyHash> for ClientKey {
    /// A key that never expires.
    fn from(hash: KeyHash) -> Self {
        Self { hash, expires: None }
    }
}

/// SHA-256 of a client's key. Keys are drawn at random and long, so one round
/// without salt is enough (a slow hash is for passwords, and would cost every
/// request its time).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash of a key, as a client sends it.
    pub fn of(key: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, key).as_ref());
        Self(hash)
    }

    /// From 64 hexadecimal digits, as `sha256sum` prints them.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = [pair[0], pair[1]].map(|digit| char::from(digit).to_digit(16));
            *byte = u8::try_from(high? * 16 + low?).ok()?;
        }
        Some(Self(hash))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A weak key could be found from its hash.
        f.write_str("***")
    }
}
