//! Users' devices, gone addresses, and forgetting a user.
//!
//! Keys are the client, the user and what follows, with a zero between: names
//! hold no control characters. Whatever names a user is listed under the user in
//! `held` (messages and gone addresses by a letter and their key), so that
//! forgetting one is a walk over what there is and not over the whole file.
//!
//! An erased row is written anew without what is erased. The engine then frees the
//! old page and uses it again; until it does, its bytes are in the file but no read
//! leads to them.

use std::sync::Arc;

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use super::Fault;
use super::apply::Applied;
use super::batch::Batch;
use super::tables::{
    self, DEAD, DEVICES, GONE, GONE_KEYS, HELD, KEPT_MESSAGES, KEPT_OUT, Rows, SET_ASIDE, aside,
    deliveries_of, message_of,
};
use crate::clock::{Utc, millis};
use crate::model::{Device, Gone, Message, MessageId, User};
use crate::store::record::{self, Undecodable};
use crate::store::{Held, StoreError};

/// What a row in [`HELD`] stands for.
const MESSAGE: u8 = b'm';
const GONE_ADDRESS: u8 = b'g';

/// A change to these tables; rows stand in the batch's buffer.
pub(super) enum Change {
    /// A device is put or removed.
    Device(Vec<u8>, Option<std::ops::Range<usize>>),
    /// A message names a user.
    Holds(Vec<u8>),
    /// An address is gone.
    Gone(Arc<Gone>, std::ops::Range<usize>),
    /// It is live again.
    Healed(u128),
    /// A user is forgotten, as far as it is in these messages.
    Erase(User, Vec<MessageId>),
}

/// The key of something of a user.
pub(super) fn key(user: &User, rest: &[u8]) -> Vec<u8> {
    let User { client, name } = user;
    [client.as_bytes(), &[0], name.as_bytes(), &[0], rest].concat()
}

/// All keys of a user are from the first of these up to the second.
fn bounds(user: &User) -> (Vec<u8>, Vec<u8>) {
    let first = key(user, &[]);
    let mut end = first.clone();
    end.pop();
    end.push(1);
    (first, end)
}

fn held_key(user: &User, what: u8, id: u128) -> Vec<u8> {
    let mut rest = [0; 17];
    rest[0] = what;
    rest[1..].copy_from_slice(&id.to_be_bytes());
    key(user, &rest)
}

/// What a message adds to [`HELD`]. Mostly nothing.
pub(super) fn holds(message: &Message) -> impl Iterator<Item = Vec<u8>> + '_ {
    message.users().into_iter().map(|name| {
        let user = User { client: message.client.clone(), name: name.to_owned() };
        held_key(&user, MESSAGE, message.id.as_u128())
    })
}

/// Makes the changes of a batch.
pub(super) fn apply(
    txn: &WriteTransaction,
    batch: &Batch,
    drained_upto: u128,
    applied: &mut Applied,
) -> Result<(), Fault> {
    for change in &batch.changes {
        match change {
            Change::Device(key, Some(row)) => {
                txn.open_table(DEVICES)?.insert(&**key, batch.row(row))?;
            }
            Change::Device(key, None) => {
                txn.open_table(DEVICES)?.remove(&**key)?;
            }
            Change::Holds(key) => {
                txn.open_table(HELD)?.insert(&**key, ())?;
            }
            Change::Gone(gone, row) => add_gone(txn, gone, batch.row(row))?,
            Change::Healed(key) => remove_gone(txn, *key)?,
            Change::Erase(user, messages) => {
                erase(txn, user, messages, drained_upto)?;
                applied.dead_letters = Some(txn.open_table(DEAD)?.len()?);
                applied.set_aside = Some(txn.open_table(SET_ASIDE)?.len()?);
            }
        }
    }
    Ok(())
}

fn add_gone(txn: &WriteTransaction, gone: &Gone, row: &[u8]) -> Result<(), Fault> {
    let key = gone.key();
    remove_gone(txn, key)?;
    txn.open_table(GONE)?.insert((gone.at.ms(), key), row)?;
    txn.open_table(GONE_KEYS)?.insert(key, gone.at.ms())?;
    if let Some(name) = &gone.user {
        let user = User { client: gone.client.clone(), name: name.clone() };
        txn.open_table(HELD)?.insert(&*held_key(&user, GONE_ADDRESS, key), ())?;
    }
    Ok(())
}

fn remove_gone(txn: &WriteTransaction, key: u128) -> Result<(), Fault> {
    let at = txn.open_table(GONE_KEYS)?.remove(key)?.map(|at| at.value());
    let Some(at) = at else { return Ok(()) };
    let mut table = txn.open_table(GONE)?;
    let Some(row) = table.remove((at, key))? else { return Ok(()) };
    if let Ok(Gone { client, user: Some(name), .. }) = record::decode_gone(row.value()) {
        let user = User { client, name };
        txn.open_table(HELD)?.remove(&*held_key(&user, GONE_ADDRESS, key))?;
    }
    Ok(())
}

/// Removes gone addresses that are old or too many; whether there may be more.
pub(super) fn let_go(txn: &WriteTransaction, now: Utc, most: usize) -> Result<bool, Fault> {
    let old = now.ms().saturating_sub(millis(Gone::KEPT));
    let mut over = Vec::new();
    {
        let table = txn.open_table(GONE)?;
        let mut too_many = table.len()?.saturating_sub(Gone::MOST as u64);
        for row in table.range::<(u64, u128)>(..)?.take(most) {
            let (at, key) = row?.0.value();
            if at >= old && too_many == 0 {
                break;
            }
            too_many = too_many.saturating_sub(1);
            over.push(key);
        }
    }
    for key in &over {
        remove_gone(txn, *key)?;
    }
    Ok(over.len() == most)
}

/// Messages that go for good are no longer held of anybody.
pub(super) fn unlist(txn: &WriteTransaction, messages: &[(u128, Vec<u8>)]) -> Result<(), Fault> {
    if messages.is_empty() {
        return Ok(());
    }
    let mut held = txn.open_table(HELD)?;
    for (id, row) in messages {
        let Some(id) = MessageId::from_u128(*id) else { continue };
        let Ok(message) = record::decode_message(id, row) else { continue };
        for key in holds(&message) {
            held.remove(&*key)?;
        }
    }
    Ok(())
}

fn erase(
    txn: &WriteTransaction,
    user: &User,
    messages: &[MessageId],
    drained_upto: u128,
) -> Result<(), Fault> {
    let (first, end) = bounds(user);
    txn.open_table(DEVICES)?.retain_in(&*first..&*end, |_, _| false)?;
    for message in messages {
        erase_from(txn, user, *message, drained_upto)?;
        txn.open_table(HELD)?.remove(&*held_key(user, MESSAGE, message.as_u128()))?;
    }
    let gone = gone_of(&txn.open_table(HELD)?, user)?;
    for key in gone {
        remove_gone(txn, key)?;
        txn.open_table(HELD)?.remove(&*held_key(user, GONE_ADDRESS, key))?;
    }
    Ok(())
}

fn erase_from(
    txn: &WriteTransaction,
    user: &User,
    id: MessageId,
    drained_upto: u128,
) -> Result<(), Fault> {
    let number = id.as_u128();
    let kept = number <= drained_upto;
    let (messages_name, out_name) =
        (tables::messages_name(tables::hour(number)), tables::out_name(tables::hour(number)));
    let mut messages =
        txn.open_table(if kept { KEPT_MESSAGES } else { Rows::new(&messages_name) })?;
    let row = messages.get(number)?.map(|row| row.value().to_vec());
    let decoded = row.map(|row| record::decode_message(id, &row));
    let Some(Ok(mut message)) = decoded else {
        // What cannot be decoded cannot be told apart: it goes as a whole.
        messages.remove(number)?;
        txn.open_table(SET_ASIDE)?.remove((aside::MESSAGE, number))?;
        return Ok(());
    };
    let of_user = |n: u128| {
        let recipient = usize::try_from(n).ok().and_then(|n| message.recipients.get(n));
        recipient.is_some_and(|recipient| recipient.user.as_deref() == Some(&*user.name))
    };
    let mut out = txn.open_table(if kept { KEPT_OUT } else { Rows::new(&out_name) })?;
    let mut dead = txn.open_table(DEAD)?;
    for delivery in deliveries_of(number).take(message.recipients.len()) {
        if of_user(delivery - number - 1) {
            forget_words(&mut out, delivery)?;
            dead.remove(delivery)?;
        }
    }
    message.erase(&user.name);
    let mut row = Vec::new();
    record::encode_message(&message, &mut row);
    messages.insert(number, &*row)?;
    Ok(())
}

/// Vendors' words and ids go from a delivery's attempts; what came of them stays.
fn forget_words(out: &mut Table<'_, u128, &'static [u8]>, delivery: u128) -> Result<(), Fault> {
    let row = out.get(delivery)?.map(|row| row.value().to_vec());
    let Some(Ok(mut progress)) = row.map(|row| record::decode_progress(&row)) else {
        return Ok(());
    };
    progress.provider_message_id = None;
    for attempt in &mut progress.attempts {
        attempt.detail = None;
    }
    let mut row = Vec::new();
    record::encode_progress(&progress, &mut row);
    out.insert(delivery, &*row)?;
    Ok(())
}

fn gone_of(held: &impl ReadableTable<&'static [u8], ()>, user: &User) -> Result<Vec<u128>, Fault> {
    let mut keys = Vec::new();
    walk_held(held, user, &mut |what, id| {
        keys.extend((what == GONE_ADDRESS).then_some(id));
        what == GONE_ADDRESS
    })?;
    Ok(keys)
}

fn walk_held(
    held: &impl ReadableTable<&'static [u8], ()>,
    user: &User,
    each: &mut dyn FnMut(u8, u128) -> bool,
) -> Result<(), Fault> {
    let (first, end) = bounds(user);
    for row in held.range::<&[u8]>(&*first..&*end)? {
        let (key, _) = row?;
        let rest = key.value().get(first.len()..).and_then(<[u8]>::split_first);
        let Some((what, id)) = rest else { continue };
        let Ok(id) = id.try_into() else { continue };
        if !each(*what, u128::from_be_bytes(id)) {
            break;
        }
    }
    Ok(())
}

/// A user's devices.
pub(super) fn devices(
    txn: &ReadTransaction,
    user: &User,
) -> Result<Result<Vec<Device>, StoreError>, Fault> {
    let (first, end) = bounds(user);
    let mut devices = Vec::new();
    for row in txn.open_table(DEVICES)?.range::<&[u8]>(&*first..&*end)? {
        match record::decode_device(row?.1.value()) {
            Ok(device) => devices.push(device),
            Err(error) => return Ok(Err(Undecodable::into(error))),
        }
    }
    Ok(Ok(devices))
}

/// What is held about a user.
pub(super) fn held(txn: &ReadTransaction, user: &User, most: usize) -> Result<Held, Fault> {
    let (first, end) = bounds(user);
    let devices = txn.open_table(DEVICES)?.range::<&[u8]>(&*first..&*end)?.count();
    let mut held = Held { devices: devices as u32, ..Held::default() };
    walk_held(&txn.open_table(HELD)?, user, &mut |what, id| {
        match what {
            MESSAGE => held.messages.extend(MessageId::from_u128(id)),
            _ => held.gone += 1,
        }
        held.messages.len() < most
    })?;
    Ok(held)
}

/// Gone addresses behind a place, oldest first. One that cannot be decoded is
/// passed over: it is as if the vendor had not said so yet.
pub(super) fn gone(
    txn: &ReadTransaction,
    after: (u64, u128),
    each: &mut dyn FnMut(Gone) -> bool,
) -> Result<(), Fault> {
    use std::ops::Bound::{Excluded, Unbounded};
    for row in txn.open_table(GONE)?.range::<(u64, u128)>((Excluded(after), Unbounded))? {
        if let Ok(gone) = record::decode_gone(row?.1.value())
            && !each(gone)
        {
            break;
        }
    }
    Ok(())
}

/// Since when an address is gone.
pub(super) fn gone_at(txn: &ReadTransaction, key: u128) -> Result<Option<Utc>, Fault> {
    Ok(txn.open_table(GONE_KEYS)?.get(key)?.map(|at| Utc::from_ms(at.value())))
}

/// A message's dead letters.
pub(super) fn dead_of(txn: &ReadTransaction, id: MessageId) -> Result<Vec<u16>, Fault> {
    let number = id.as_u128();
    let mut dead = Vec::new();
    for row in txn.open_table(DEAD)?.range(deliveries_of(number))? {
        let delivery = row?.0.value();
        // At most MAX_DELIVERIES.
        dead.push((delivery - message_of(delivery) - 1) as u16);
    }
    Ok(dead)
}
