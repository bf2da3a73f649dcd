//! What operators look at and did: dead letters, and their own actions.

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::Fault;
use super::apply::Applied;
use super::batch::{Batch, Damaged};
use super::read;
use super::tables::{ACTIONS, DEAD};
use crate::clock::Utc;
use crate::model::{DeliveryId, Message, MessageId, Progress};
use crate::store::{Actions, DeadFilter, DeadLetter, DeadLetters, record};

/// Actions kept; older ones go.
const MAX_ACTIONS: u64 = 10_000;

/// Dead letters that one call looks at, at most: about 50 ms.
const SCAN: usize = 10_000;

/// Writes what operators did, and lets go of what is too old.
pub(super) fn write_actions(txn: &WriteTransaction, batch: &Batch) -> Result<(), Fault> {
    if batch.actions.is_empty() {
        return Ok(());
    }
    let mut table = txn.open_table(ACTIONS)?;
    let mut number = table.last()?.map_or(0, |(number, _)| number.value());
    let mut row = Vec::new();
    for action in &batch.actions {
        number += 1;
        row.clear();
        record::encode_action(action, &mut row);
        table.insert(number, &*row)?;
    }
    while table.len()? > MAX_ACTIONS {
        table.pop_first()?;
    }
    Ok(())
}

/// Removes dead letters that nobody wants any more. Their messages go with the
/// others that are kept for nothing.
pub(super) fn write_buried(
    txn: &WriteTransaction,
    batch: &Batch,
    applied: &mut Applied,
) -> Result<(), Fault> {
    if batch.buried.is_empty() {
        return Ok(());
    }
    let mut table = txn.open_table(DEAD)?;
    for key in &batch.buried {
        table.remove(*key)?;
    }
    applied.dead_letters = Some(table.len()?);
    Ok(())
}

/// Whether the delivery is a dead letter.
pub(super) fn is_dead(txn: &ReadTransaction, delivery: DeliveryId) -> Result<bool, Fault> {
    Ok(txn.open_table(DEAD)?.get(delivery.as_u128())?.is_some())
}

/// Dead letters, the latest accepted first.
pub(super) fn dead_letters(
    txn: &ReadTransaction,
    filter: &DeadFilter,
    before: Option<DeliveryId>,
    most: usize,
    damaged: &mut Vec<Damaged>,
) -> Result<DeadLetters, Fault> {
    let mut found = DeadLetters::default();
    let mut last: Option<Known> = None;
    let end = before.map_or(u128::MAX, DeliveryId::as_u128);
    let table = txn.open_table(DEAD)?;
    for (seen, row) in table.range(..end)?.rev().enumerate() {
        if found.items.len() == most || seen == SCAN {
            return Ok(found);
        }
        let (key, at) = row?;
        let Some(delivery) = DeliveryId::from_u128(key.value()) else { continue };
        found.next = Some(delivery);
        let at = Utc::from_ms(at.value());
        if !filter.takes_time(at) {
            continue;
        }
        let known = match last.take().filter(|known| known.id == delivery.message()) {
            Some(known) => known,
            None => Known::read(txn, delivery.message(), damaged)?,
        };
        found.items.extend(known.letter(delivery, at, filter));
        last = Some(known);
    }
    found.next = None;
    Ok(found)
}

/// A message with the progress of its deliveries.
struct Known {
    id: MessageId,
    message: Option<Message>,
    progress: Vec<(u16, Progress)>,
}

impl Known {
    fn read(
        txn: &ReadTransaction,
        id: MessageId,
        damaged: &mut Vec<Damaged>,
    ) -> Result<Self, Fault> {
        let message = read::message(txn, id)?.unwrap_or_else(|_| {
            damaged.push(Damaged::Message(id.as_u128()));
            None
        });
        Ok(Self { id, message, progress: read::progress(txn, id, damaged)? })
    }

    fn letter(&self, delivery: DeliveryId, at: Utc, filter: &DeadFilter) -> Option<DeadLetter> {
        let message = self.message.as_ref()?;
        let (_, progress) = self.progress.iter().find(|(n, _)| *n == delivery.n())?;
        filter.takes(&message.client, progress).then(|| DeadLetter {
            delivery,
            client: message.client.clone(),
            reference: message
                .recipients
                .get(usize::from(delivery.n()))
                .and_then(|recipient| recipient.reference.clone()),
            progress: progress.clone(),
            at,
        })
    }
}

/// What operators did, the latest first. One that cannot be decoded is left out.
pub(super) fn actions(
    txn: &ReadTransaction,
    before: Option<u64>,
    most: usize,
) -> Result<Actions, Fault> {
    let mut found = Actions::default();
    let table = txn.open_table(ACTIONS)?;
    for row in table.range(..before.unwrap_or(u64::MAX))?.rev() {
        if found.items.len() == most {
            found.next = found.items.last().map(|(number, _)| *number);
            return Ok(found);
        }
        let (number, row) = row?;
        if let Ok(action) = record::decode_action(row.value()) {
            found.items.push((number.value(), action));
        }
    }
    Ok(found)
}
