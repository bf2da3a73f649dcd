//! The keys of a client: one or several, so that the next can be given out before
//! the last one ends. Each is held as a hash, and stands in the file once: of two
//! alike nobody could say which client is asking, or until when.

use super::check::{Check, SHORTEST_KEY};
use super::file::{self, Key};
use super::value::{At, Field, Origin};
use crate::api::{Client, ClientKey, KeyHash};
use crate::clock::Utc;

/// A key that ends within this many days is worth a warning: its client is often
/// somebody else's, and has to be told.
const SOON_DAYS: u64 = 14;

const MS_A_DAY: u64 = 86_400_000;

impl Check<'_> {
    /// The keys of this client. `taken` are those of the clients before it.
    pub(super) fn keys(
        &self,
        written: &file::Client,
        taken: &mut Vec<(KeyHash, String)>,
    ) -> Vec<ClientKey> {
        let name = written.name.get().map_or("", |name| name.value.as_str());
        if written.key.is_absent() && written.key_sha256.is_absent() && written.keys.is_empty() {
            let detail =
                "needs a key: key = { env = \"NAME\" }, or key_sha256 = \"<64 hex digits>\"";
            self.faults.add(&written.spot, detail);
        }
        let mut found = vec![
            (self.key(written.key.clone(), name), None),
            (self.hashed_key(written.key_sha256.clone()), None),
        ];
        found.extend(written.keys.iter().map(|key| (self.entry(key, name), expires(key))));
        let mut keys = Vec::new();
        for (at, expires) in found {
            let Some(At { value: hash, spot }) = at else { continue };
            match taken.iter().find(|(known, _)| *known == hash) {
                Some((_, of)) if of == name => {
                    self.faults.add(&spot, "is a key of this client already; remove one of them");
                }
                Some((_, of)) => {
                    let detail =
                        format!("is a key of client {of:?}, too; give each client its own");
                    self.faults.add(&spot, detail);
                }
                None => taken.push((hash, name.to_owned())),
            }
            keys.push(ClientKey { hash, expires });
        }
        keys
    }

    /// Warns of keys that open nothing any more, or soon.
    pub(super) fn warn_of_keys(&self, clients: &[Client]) {
        let now = Utc::from_ms(self.clock.unix_ms());
        for client in clients {
            let name = &client.name;
            for end in client.keys.iter().filter_map(|key| key.expires) {
                let days = end.ms().saturating_sub(now.ms()) / MS_A_DAY;
                let moment = end.rfc3339();
                if end <= now {
                    self.warn(format!(
                        "clients.{name}: a key of it expired at {moment} and opens nothing; \
                         remove it"
                    ));
                } else if days < SOON_DAYS {
                    self.warn(format!(
                        "clients.{name}: a key of it expires in {days} days, at {moment}; add the \
                         next one to keys"
                    ));
                }
            }
        }
    }

    /// One of `keys`.
    fn entry(&self, written: &Key, client: &str) -> Option<At<KeyHash>> {
        match (&written.key, &written.key_sha256) {
            (Field::Absent, Field::Absent) => {
                self.faults.add(&written.spot, "needs key or key_sha256");
                None
            }
            (key, Field::Absent) => self.key(key.clone(), client),
            (Field::Absent, hash) => self.hashed_key(hash.clone()),
            (_, _) => {
                let detail = "has key and key_sha256; write an entry for each";
                self.faults.add(&written.spot, detail);
                None
            }
        }
    }

    fn key(&self, written: Field<Origin>, client: &str) -> Option<At<KeyHash>> {
        let At { value, spot } = written.at()?;
        let key = self.secret(value, &spot)?;
        if !key.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            let detail = "must be visible ASCII without spaces: it is sent in a header";
            self.faults.add(&spot, detail);
            return None;
        }
        if key.expose().len() < SHORTEST_KEY {
            self.warn(format!(
                "clients.{client}: its key is shorter than {SHORTEST_KEY} characters and can be \
                 guessed; draw a longer one"
            ));
        }
        Some(At { value: KeyHash::of(key.expose().as_bytes()), spot })
    }

    fn hashed_key(&self, written: Field<String>) -> Option<At<KeyHash>> {
        let At { value, spot } = written.at()?;
        let Some(value) = KeyHash::from_hex(&value) else {
            let detail =
                "must be 64 hexadecimal digits, as `printf %s KEY | sha256sum` prints them";
            self.faults.add(&spot, detail);
            return None;
        };
        Some(At { value, spot })
    }
}

fn expires(written: &Key) -> Option<Utc> {
    written.expires.get().map(|at| at.value)
}
