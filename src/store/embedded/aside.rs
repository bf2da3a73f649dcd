//! Setting aside what cannot be decoded: its bytes are kept, and the rest goes on.
//!
//! Each case is looked at again here, in the transaction that changes it: two
//! readers may have found the same record, and one of them is late.

use redb::{ReadableTable, WriteTransaction};

use super::Fault;
use super::batch::Damaged;
use super::tables::{
    self, DEAD, INTENTS, KEPT_MESSAGES, KEPT_OUT, OPEN, Rows, SET_ASIDE, aside, message_of,
};
use crate::model::{MessageId, Progress, Reason, State};
use crate::store::record;

/// What a delivery is whose progress or intent is lost: whether it was sent is
/// not known any more.
pub(super) fn lost(message: MessageId) -> Progress {
    let state = State::Unknown;
    Progress { state, reason: Some(Reason::Internal), ..Progress::queued(message.accepted_at()) }
}

/// Sets a record aside; whether there was anything to do.
pub(super) fn set_aside(
    txn: &WriteTransaction,
    damaged: Damaged,
    drained_upto: u128,
) -> Result<bool, Fault> {
    match damaged {
        Damaged::Message(id) => message(txn, id, drained_upto),
        Damaged::Missing(id) => missing(txn, id),
        Damaged::Progress(id) => progress(txn, id, drained_upto),
        Damaged::Intent(id) => intent(txn, id, drained_upto),
    }
}

fn message(txn: &WriteTransaction, id: u128, drained_upto: u128) -> Result<bool, Fault> {
    let name = tables::messages_name(tables::hour(id));
    let mut messages =
        txn.open_table(if id <= drained_upto { KEPT_MESSAGES } else { Rows::new(&name) })?;
    let raw = messages.get(id)?.map(|row| row.value().to_vec());
    let Some(raw) = raw.filter(|raw| match MessageId::from_u128(id) {
        Some(known) => record::decode_message(known, raw).is_err(),
        None => true,
    }) else {
        return Ok(false);
    };
    messages.remove(id)?;
    txn.open_table(SET_ASIDE)?.insert((aside::MESSAGE, id), &*raw)?;
    txn.open_table(OPEN)?.remove(id)?;
    Ok(true)
}

fn missing(txn: &WriteTransaction, id: u128) -> Result<bool, Fault> {
    if txn.open_table(OPEN)?.remove(id)?.is_none() {
        return Ok(false);
    }
    txn.open_table(SET_ASIDE)?.insert((aside::MESSAGE, id), &b""[..])?;
    Ok(true)
}

fn progress(txn: &WriteTransaction, id: u128, drained_upto: u128) -> Result<bool, Fault> {
    let raw = {
        let name = tables::out_name(tables::hour(id));
        let out = txn.open_table(out_table(&name, id, drained_upto))?;
        out.get(id)?.map(|row| row.value().to_vec())
    };
    let Some(raw) = raw.filter(|raw| record::decode_progress(raw).is_err()) else {
        return Ok(false);
    };
    txn.open_table(SET_ASIDE)?.insert((aside::PROGRESS, id), &*raw)?;
    write_lost(txn, id, drained_upto)?;
    Ok(true)
}

fn intent(txn: &WriteTransaction, id: u128, drained_upto: u128) -> Result<bool, Fault> {
    let raw = {
        let mut intents = txn.open_table(INTENTS)?;
        let raw = intents.get(id)?.map(|row| row.value().to_vec());
        let raw = raw.filter(|raw| record::decode_intent(raw).is_err());
        if raw.is_some() {
            intents.remove(id)?;
        }
        raw
    };
    let Some(raw) = raw else { return Ok(false) };
    txn.open_table(SET_ASIDE)?.insert((aside::INTENT, id), &*raw)?;
    write_lost(txn, id, drained_upto)?;
    Ok(true)
}

fn write_lost(txn: &WriteTransaction, id: u128, drained_upto: u128) -> Result<(), Fault> {
    let Some(message) = MessageId::from_u128(message_of(id)) else { return Ok(()) };
    let progress = lost(message);
    let mut row = Vec::new();
    record::encode_progress(&progress, &mut row);
    let name = tables::out_name(tables::hour(id));
    txn.open_table(out_table(&name, id, drained_upto))?.insert(id, &*row)?;
    txn.open_table(DEAD)?.insert(id, progress.at.ms())?;
    Ok(())
}

fn out_table(name: &str, id: u128, drained_upto: u128) -> Rows<'_> {
    if message_of(id) <= drained_upto { KEPT_OUT } else { Rows::new(name) }
}
