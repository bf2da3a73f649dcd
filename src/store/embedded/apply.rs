//! Writes a batch into the tables, within one transaction.
//!
//! Three things follow from an outcome, beside its row: it ends the delivery's
//! intent (worked out in `batch`), it makes or unmakes a dead letter, and an
//! unsettled one, such as a replay's first, makes its message open again. The
//! row that it replaces tells which.
//!
//! Everything here only writes what the batch says, whatever was there before,
//! so that a batch can be applied again when the disk was full halfway.

use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use super::Fault;
use super::aside::set_aside;
use super::batch::{Batch, Out};
use super::operators::{write_actions, write_buried};
use super::outbox::write_events;
use super::tables::{
    self, DEAD, Hour, INTENTS, KEPT_MESSAGES, KEPT_OUT, NOTES, OPEN, Rows, SET_ASIDE, last_of,
    message_of,
};
use super::users;
use crate::model::State;
use crate::store::record;

/// Bytes that a row takes beside its value: the key, its place in the page, and
/// its share of what the tree needs and of pages that are not full.
pub(super) const ROW_OVERHEAD: u64 = 48;

/// What a batch has changed, to be believed when the transaction is flushed.
#[derive(Default)]
pub(super) struct Applied {
    /// Bytes added, by hour.
    pub(super) bytes: Vec<(Hour, u64)>,
    /// Bytes added to what is kept.
    pub(super) kept_bytes: u64,
    /// Dead letters there are now, if that has changed.
    pub(super) dead_letters: Option<u64>,
    /// Records set aside there are now, if that has changed.
    pub(super) set_aside: Option<u64>,
    /// Events that clients have not been told, if that has changed.
    pub(super) events: Option<u64>,
}

/// What the outcomes of a batch mean for other tables.
#[derive(Default)]
struct Consequences {
    reopened: Vec<u128>,
    died: Vec<(u128, u64)>,
    /// Dead letters only if their message had a ttl.
    expired: Vec<(u128, u64)>,
    revived: Vec<u128>,
}

/// Writes a sorted batch.
pub(super) fn apply(
    txn: &WriteTransaction,
    batch: &Batch,
    drained_upto: u128,
) -> Result<Applied, Fault> {
    let mut applied = Applied::default();
    let mut consequences = Consequences::default();
    write_messages(txn, batch, drained_upto, &mut applied)?;
    write_outs(txn, batch, drained_upto, &mut applied, &mut consequences)?;
    write_open(txn, batch, &consequences.reopened)?;
    write_dead(txn, &consequences, drained_upto, &mut applied)?;
    write_intents(txn, batch)?;
    write_notes(txn, batch)?;
    write_events(txn, batch, drained_upto, &mut applied)?;
    write_actions(txn, batch)?;
    write_buried(txn, batch, &mut applied)?;
    users::apply(txn, batch, drained_upto, &mut applied)?;
    write_aside(txn, batch, drained_upto, &mut applied)?;
    Ok(applied)
}

fn write_messages(
    txn: &WriteTransaction,
    batch: &Batch,
    drained_upto: u128,
    applied: &mut Applied,
) -> Result<(), Fault> {
    // None is as old as that; it would not be found in the table of its hour.
    let young = batch.messages.partition_point(|(key, _)| *key <= drained_upto);
    let (old, young) = batch.messages.split_at(young);
    if !old.is_empty() {
        let mut table = txn.open_table(KEPT_MESSAGES)?;
        for (key, row) in old {
            table.insert(*key, batch.row(row))?;
            applied.kept_bytes += row.len() as u64 + ROW_OVERHEAD;
        }
    }
    for rows in young.chunk_by(|(one, _), (other, _)| tables::hour(*one) == tables::hour(*other)) {
        let hour = tables::hour(rows[0].0);
        let mut table = txn.open_table(Rows::new(&tables::messages_name(hour)))?;
        let mut bytes = 0;
        for (key, row) in rows {
            table.insert(*key, batch.row(row))?;
            bytes += row.len() as u64 + ROW_OVERHEAD;
        }
        applied.bytes.push((hour, bytes));
    }
    Ok(())
}

fn write_outs(
    txn: &WriteTransaction,
    batch: &Batch,
    drained_upto: u128,
    applied: &mut Applied,
    consequences: &mut Consequences,
) -> Result<(), Fault> {
    let young = batch.outs.partition_point(|out| out.key <= last_of(drained_upto));
    let (old, young) = batch.outs.split_at(young);
    if !old.is_empty() {
        let kept = txn.open_table(KEPT_MESSAGES)?;
        let mut table = txn.open_table(KEPT_OUT)?;
        for out in old {
            // A receipt may come for a message that is long gone.
            if kept.get(message_of(out.key))?.is_some() {
                applied.kept_bytes += write_out(&mut table, batch, out, consequences)?;
            }
        }
    }
    for rows in young.chunk_by(|one, other| tables::hour(one.key) == tables::hour(other.key)) {
        let hour = tables::hour(rows[0].key);
        let mut table = txn.open_table(Rows::new(&tables::out_name(hour)))?;
        let mut bytes = 0;
        for out in rows {
            bytes += write_out(&mut table, batch, out, consequences)?;
        }
        applied.bytes.push((hour, bytes));
    }
    Ok(())
}

fn write_out(
    table: &mut Table<'_, u128, &'static [u8]>,
    batch: &Batch,
    out: &Out,
    consequences: &mut Consequences,
) -> Result<u64, Fault> {
    let row = batch.row(&out.row);
    let (before, grown) = match table.insert(out.key, row)? {
        Some(old) => {
            let head = record::decode_progress_head(old.value()).ok();
            (head.map(|head| head.state), row.len().saturating_sub(old.value().len()) as u64)
        }
        None => (None, row.len() as u64 + ROW_OVERHEAD),
    };
    consequences.add(out, before, batch);
    Ok(grown)
}

impl Consequences {
    fn add(&mut self, out: &Out, before: Option<State>, batch: &Batch) {
        match out.state {
            State::Failed | State::Unknown => self.died.push((out.key, out.at.ms())),
            State::Expired => self.expired.push((out.key, out.at.ms())),
            State::Queued
            | State::Sending
            | State::Waiting
            | State::Sent
            | State::Delivered
            | State::Cancelled
            | State::Partial => {
                if before.is_some_and(may_be_dead) {
                    self.revived.push(out.key);
                }
            }
        }
        // A delivery without a row before was mostly part of an open message; but
        // one that was born failed and is replayed was not.
        let message = message_of(out.key);
        if !out.state.settled() && (before.is_none_or(State::settled) || batch.closes(message)) {
            self.reopened.push(message);
        }
    }
}

const fn may_be_dead(state: State) -> bool {
    matches!(state, State::Failed | State::Unknown | State::Expired)
}

fn write_open(txn: &WriteTransaction, batch: &Batch, reopened: &[u128]) -> Result<(), Fault> {
    if batch.open.is_empty() && reopened.is_empty() {
        return Ok(());
    }
    let mut table = txn.open_table(OPEN)?;
    for (key, open) in &batch.open {
        if *open {
            table.insert(*key, ())?;
        } else {
            table.remove(*key)?;
        }
    }
    for key in reopened {
        table.insert(*key, ())?;
    }
    Ok(())
}

fn write_dead(
    txn: &WriteTransaction,
    consequences: &Consequences,
    drained_upto: u128,
    applied: &mut Applied,
) -> Result<(), Fault> {
    let Consequences { reopened: _, died, expired, revived } = consequences;
    if died.is_empty() && expired.is_empty() && revived.is_empty() {
        return Ok(());
    }
    let mut table = txn.open_table(DEAD)?;
    for (key, at) in died {
        table.insert(*key, at)?;
    }
    for deliveries in
        expired.chunk_by(|(one, _), (other, _)| message_of(*one) == message_of(*other))
    {
        if had_ttl(txn, message_of(deliveries[0].0), drained_upto)? {
            for (key, at) in deliveries {
                table.insert(*key, at)?;
            }
        }
    }
    for key in revived {
        table.remove(*key)?;
    }
    applied.dead_letters = Some(table.len()?);
    Ok(())
}

/// Whether the message was more than "now or never": nobody replays one of those.
fn had_ttl(txn: &WriteTransaction, message: u128, drained_upto: u128) -> Result<bool, Fault> {
    let name = tables::messages_name(tables::hour(message));
    let table =
        txn.open_table(if message <= drained_upto { KEPT_MESSAGES } else { Rows::new(&name) })?;
    let row = table.get(message)?;
    Ok(row.is_some_and(|row| {
        record::decode_message_head(row.value()).is_ok_and(|head| head.ttl_ms > 0)
    }))
}

fn write_intents(txn: &WriteTransaction, batch: &Batch) -> Result<(), Fault> {
    if batch.intents.is_empty() {
        return Ok(());
    }
    let mut table = txn.open_table(INTENTS)?;
    // Mostly there are none, and outcomes need not look for theirs.
    if table.is_empty()? && batch.intents.iter().all(|(_, row)| row.is_none()) {
        return Ok(());
    }
    for (key, row) in &batch.intents {
        match row {
            Some(row) => table.insert(*key, batch.row(row))?,
            None => table.remove(*key)?,
        };
    }
    Ok(())
}

fn write_notes(txn: &WriteTransaction, batch: &Batch) -> Result<(), Fault> {
    if batch.notes.is_empty() {
        return Ok(());
    }
    let mut table = txn.open_table(NOTES)?;
    for (name, value) in &batch.notes {
        match value {
            Some(value) => table.insert(&**name, &**value)?,
            None => table.remove(&**name)?,
        };
    }
    Ok(())
}

fn write_aside(
    txn: &WriteTransaction,
    batch: &Batch,
    drained_upto: u128,
    applied: &mut Applied,
) -> Result<(), Fault> {
    let mut any = false;
    for damaged in &batch.damaged {
        any |= set_aside(txn, *damaged, drained_upto)?;
    }
    if any {
        applied.set_aside = Some(txn.open_table(SET_ASIDE)?.len()?);
        applied.dead_letters = Some(txn.open_table(DEAD)?.len()?);
    }
    Ok(())
}
