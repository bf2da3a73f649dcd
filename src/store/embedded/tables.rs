//! The tables in the file, and where a row belongs.
//!
//! Rows of messages and deliveries stand in tables named by the hour of
//! acceptance, which is in every id. So the rows that are written lie close
//! together, the old ones far from them, and an hour that is over is dropped
//! with its pages. What outlives its hour (unsettled, or a dead letter) is moved
//! to the `kept` tables.
//!
//! `drained_upto` ([`meta`]) is the line between the two: messages up to it are
//! in `kept` or gone, those above it in the tables of their hour.

use std::ops::RangeInclusive;

use redb::TableDefinition;

/// Rows by id.
pub(super) type Rows<'a> = TableDefinition<'a, u128, &'static [u8]>;

/// Messages with something unsettled.
pub(super) const OPEN: TableDefinition<'_, u128, ()> = TableDefinition::new("open");

/// Attempts that were about to be made, by delivery.
pub(super) const INTENTS: Rows<'_> = Rows::new("intents");

/// Deliveries that ended badly, with the moment (unix ms).
pub(super) const DEAD: TableDefinition<'_, u128, u64> = TableDefinition::new("dead");

/// Events that clients are to be told, by client and id.
pub(super) const EVENTS: TableDefinition<'_, (&str, u128), &[u8]> = TableDefinition::new("events");

/// What operators did, by number.
pub(super) const ACTIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("actions");

/// Messages that outlive their hour.
pub(super) const KEPT_MESSAGES: Rows<'_> = Rows::new("kept/messages");

/// The records of their deliveries.
pub(super) const KEPT_OUT: Rows<'_> = Rows::new("kept/out");

/// Devices by client, user and name ([`users`](super::users)).
pub(super) const DEVICES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("devices");

/// By client and user: the messages and gone addresses that name the user.
pub(super) const HELD: TableDefinition<'_, &[u8], ()> = TableDefinition::new("held");

/// Gone addresses by the moment (unix ms) and the key.
pub(super) const GONE: TableDefinition<'_, (u64, u128), &[u8]> = TableDefinition::new("gone");

/// The moment of each, by the key.
pub(super) const GONE_KEYS: TableDefinition<'_, u128, u64> = TableDefinition::new("gone/keys");

/// Records that cannot be decoded, by what they were ([`aside`]) and id.
pub(super) const SET_ASIDE: TableDefinition<'_, (u8, u128), &[u8]> =
    TableDefinition::new("set_aside");

/// Small state by name.
pub(super) const NOTES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("notes");

/// The store's own state by name ([`meta`]).
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// The filter of each run of idempotency keys; a run without one is not whole.
pub(super) const FILTERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("keys");

/// A run of idempotency keys.
pub(super) type Run<'a> = TableDefinition<'a, &'static [u8; 16], u128>;

/// Names in [`META`].
pub(super) mod meta {
    /// Whose file it is.
    pub(crate) const FORMAT: &str = "format";
    /// The version of this layout, a little-endian u32.
    pub(crate) const VERSION: &str = "version";
    /// The secret that receipts are derived from.
    pub(crate) const SERVER_KEY: &str = "server_key";
    /// `[1]`: the process before ended in order.
    pub(crate) const CLEAN: &str = "clean";
    /// The latest moment that was noted, unix ms.
    pub(crate) const LAST_SEEN: &str = "last_seen";
    /// When processes ended without order, unix ms each.
    pub(crate) const UNCLEAN_ENDS: &str = "unclean_ends";
    /// Messages up to here are in `kept` or gone.
    pub(crate) const DRAINED_UPTO: &str = "drained_upto";
    /// The idempotency keys of messages up to here are in runs.
    pub(crate) const SPILLED_UPTO: &str = "spilled_upto";
    /// Bytes by hour.
    pub(crate) const BYTES: &str = "bytes";
}

/// What a row in [`SET_ASIDE`] was.
pub(super) mod aside {
    /// A message.
    pub(crate) const MESSAGE: u8 = 0;
    /// A delivery's progress.
    pub(crate) const PROGRESS: u8 = 1;
    /// An intent.
    pub(crate) const INTENT: u8 = 2;
}

const HOUR_MS: u64 = 3_600_000;

/// Bits of an id that number a message's deliveries.
const DELIVERY_MASK: u128 = (1 << 14) - 1;

/// Hours since 1970.
pub(super) type Hour = u64;

/// The hour of acceptance in an id.
pub(super) const fn hour(id: u128) -> Hour {
    (id >> 80) as u64 / HOUR_MS
}

/// The lowest id of an hour.
pub(super) const fn first_of_hour(hour: Hour) -> u128 {
    first_at(hour * HOUR_MS)
}

/// The last id of an hour.
pub(super) const fn last_of_hour(hour: Hour) -> u128 {
    first_at((hour + 1) * HOUR_MS) - 1
}

/// The lowest id that a message accepted at `ms` (unix) can have.
pub(super) const fn first_at(ms: u64) -> u128 {
    (ms as u128) << 80
}

/// The message that a delivery belongs to.
pub(super) const fn message_of(delivery: u128) -> u128 {
    delivery & !DELIVERY_MASK
}

/// A message's deliveries.
pub(super) const fn deliveries_of(message: u128) -> RangeInclusive<u128> {
    message + 1..=message | DELIVERY_MASK
}

/// The last id that belongs to a message.
pub(super) const fn last_of(message: u128) -> u128 {
    message | DELIVERY_MASK
}

const MESSAGES: &str = "messages/";
const OUT: &str = "out/";
const KEYS: &str = "keys/";

/// The name of an hour's table of messages.
pub(super) fn messages_name(hour: Hour) -> String {
    format!("{MESSAGES}{hour}")
}

/// The name of an hour's table of progress.
pub(super) fn out_name(hour: Hour) -> String {
    format!("{OUT}{hour}")
}

/// The name of a run of idempotency keys.
pub(super) fn run_name(number: u64) -> String {
    format!("{KEYS}{number}")
}

/// The hour that a table of this name belongs to.
pub(super) fn hour_of_name(name: &str) -> Option<Hour> {
    name.strip_prefix(MESSAGES).or_else(|| name.strip_prefix(OUT))?.parse().ok()
}

/// The hour of a table of messages.
pub(super) fn messages_hour(name: &str) -> Option<Hour> {
    name.strip_prefix(MESSAGES)?.parse().ok()
}

/// The number of the run that a table of this name is.
pub(super) fn run_of_name(name: &str) -> Option<u64> {
    name.strip_prefix(KEYS)?.parse().ok()
}
