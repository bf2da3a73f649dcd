//! The same key and body within 24 h is the same message.
//!
//! What has been committed is found in the store; what is being committed is held
//! here, so that a repeat that overtakes the first request waits for it instead of
//! becoming a second message. Whoever holds a key ([`Held`]) is alone with it; the
//! key is free again when that is dropped, so a refused message blocks nobody.

use std::borrow::Cow;
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{Context, SHA256, digest};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use tokio::sync::watch;

use super::json::Node;
use crate::model::Idempotency;

/// What a key must look like, for people.
pub const FORM: &str = "must be 1 to 255 printable ASCII characters";

/// 1 to 255 printable ASCII characters.
pub fn well_formed(key: &str) -> bool {
    (1..=255).contains(&key.len()) && key.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

/// The key that a request names: the header's, else the body's.
pub fn named<'n>(header: Option<&'n str>, body: &'n Node<'_>) -> Option<Cow<'n, str>> {
    let own = || body.get("idempotency_key").and_then(Node::text).filter(|key| well_formed(key));
    header.or_else(own).map(Cow::Borrowed)
}

/// Key and body as hashes. The key is scoped to the client.
pub fn hashes(client: &str, key: &str, body: &[u8]) -> Idempotency {
    let mut context = Context::new(&SHA256);
    context.update(client.as_bytes());
    context.update(&[0]);
    context.update(key.as_bytes());
    Idempotency { key: half(context.finish().as_ref()), body: half(digest(&SHA256, body).as_ref()) }
}

/// The first 16 bytes: 2^64 keys for an even chance that two collide.
fn half(hash: &[u8]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    half
}

type Keys = Mutex<HashMap<[u8; 16], Holder>>;

/// The keys whose messages are being committed.
#[derive(Debug, Default)]
pub struct InProgress(Arc<Keys>);

#[derive(Debug)]
struct Holder {
    body: [u8; 16],
    /// Closed when the holder is done.
    done: watch::Receiver<()>,
}

/// What came of asking for a key.
#[derive(Debug)]
pub enum Taken {
    /// It is ours until this is dropped.
    Held(Held),
    /// Another request with the same body has it; wait for the end of this.
    Busy(watch::Receiver<()>),
    /// Another request with another body has it.
    Mismatch,
}

/// A key that is held.
#[derive(Debug)]
pub struct Held {
    key: [u8; 16],
    keys: Arc<Keys>,
    _done: watch::Sender<()>,
}

impl InProgress {
    /// Takes the key, unless another request has it.
    pub fn take(&self, idempotency: Idempotency) -> Taken {
        let mut keys = self.0.lock().expect("no code panics while it holds this lock");
        match keys.entry(idempotency.key) {
            Entry::Occupied(entry) if entry.get().body == idempotency.body => {
                Taken::Busy(entry.get().done.clone())
            }
            Entry::Occupied(_) => Taken::Mismatch,
            Entry::Vacant(entry) => {
                let (sender, done) = watch::channel(());
                entry.insert(Holder { body: idempotency.body, done });
                let keys = Arc::clone(&self.0);
                Taken::Held(Held { key: idempotency.key, keys, _done: sender })
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The waiters wake when `_done` is dropped after this, and find it free.
        self.keys.lock().expect("no code panics while it holds this lock").remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_key_is_busy_for_the_same_body_and_a_mismatch_for_another() {
        let keys = InProgress::default();
        let first = hashes("shop", "k", b"{}");
        let Taken::Held(held) = keys.take(first) else { panic!("the key is free") };
        assert!(matches!(keys.take(first), Taken::Busy(_)));
        assert!(matches!(keys.take(hashes("shop", "k", b"{ }")), Taken::Mismatch));
        assert!(matches!(keys.take(hashes("bank", "k", b"{}")), Taken::Held(_)));
        drop(held);
        assert!(matches!(keys.take(first), Taken::Held(_)));
    }

    #[test]
    fn keys_are_printable_ascii() {
        for (key, good) in [
            ("a", true),
            ("order 7/a", true),
            (&"x".repeat(255), true),
            ("", false),
            (&"x".repeat(256), false),
            ("é", false),
            ("a\r\nb", false),
        ] {
            assert_eq!(well_formed(key), good, "{key:?}");
        }
    }
}
