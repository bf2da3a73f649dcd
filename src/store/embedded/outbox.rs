//! Events that clients are to be told: written with the outcome that they tell,
//! removed when they have been told.
//!
//! What is told of the message (the recipient's `ref`, the metadata) is copied
//! into the event's row here, in the transaction that has the message: a client
//! may be out of reach for longer than its messages are kept, and the engine has
//! let go of most bodies by the time a delivery settles.

use std::sync::Arc;

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::Fault;
use super::apply::Applied;
use super::batch::Batch;
use super::tables::{self, EVENTS, KEPT_MESSAGES, Rows};
use crate::model::{EventId, Message, MessageId};
use crate::store::{OutboxEvent, record};

/// Writes the batch's events and removes those that are done.
pub(super) fn write_events(
    txn: &WriteTransaction,
    batch: &Batch,
    drained_upto: u128,
    applied: &mut Applied,
) -> Result<(), Fault> {
    if batch.events.is_empty() && batch.events_done.is_empty() {
        return Ok(());
    }
    let mut table = txn.open_table(EVENTS)?;
    let mut row = Vec::new();
    // The deliveries of a message mostly settle together.
    let mut last: Option<(MessageId, Option<Message>)> = None;
    for (client, event) in &batch.events {
        let id = event.delivery.message();
        let message = match last.take().filter(|(known, _)| *known == id) {
            Some((_, message)) => message,
            None => message_of(txn, id, drained_upto)?,
        };
        row.clear();
        record::encode_event(event, message.as_ref(), &mut row);
        table.insert((&**client, event.id.as_u128()), &*row)?;
        last = Some((id, message));
    }
    for (client, id) in &batch.events_done {
        table.remove((&**client, id.as_u128()))?;
    }
    applied.events = Some(table.len()?);
    Ok(())
}

/// One that cannot be read says nothing; it is set aside when it is needed.
fn message_of(
    txn: &WriteTransaction,
    id: MessageId,
    drained_upto: u128,
) -> Result<Option<Message>, Fault> {
    let key = id.as_u128();
    let name = tables::messages_name(tables::hour(key));
    let table =
        txn.open_table(if key <= drained_upto { KEPT_MESSAGES } else { Rows::new(&name) })?;
    let row = table.get(key)?;
    Ok(row.and_then(|row| record::decode_message(id, row.value()).ok()))
}

/// A client's next events. One that cannot be decoded is given as its id alone.
pub(super) fn events(
    txn: &ReadTransaction,
    client: &str,
    after: Option<EventId>,
    most: usize,
) -> Result<Vec<Result<OutboxEvent, EventId>>, Fault> {
    let from = after.map_or(0, |id| id.as_u128() + 1);
    let table = txn.open_table(EVENTS)?;
    let mut events = Vec::new();
    for row in table.range((client, from)..=(client, u128::MAX))?.take(most) {
        let (key, row) = row?;
        let id = EventId::from_u128(key.value().1);
        events.push(record::decode_event(id, row.value()).map_err(|_| id));
    }
    Ok(events)
}

/// The clients that events wait for.
pub(super) fn clients(txn: &ReadTransaction) -> Result<Vec<Arc<str>>, Fault> {
    let table = txn.open_table(EVENTS)?;
    let mut clients: Vec<Arc<str>> = Vec::new();
    loop {
        // From client to client, however many events lie between.
        let from = clients.last().cloned().unwrap_or_default();
        let next = match clients.is_empty() {
            true => table.range(("", 0)..)?.next(),
            false => {
                let after =
                    (std::ops::Bound::Excluded((&*from, u128::MAX)), std::ops::Bound::Unbounded);
                table.range::<(&str, u128)>(after)?.next()
            }
        };
        match next {
            Some(row) => clients.push(row?.0.value().0.into()),
            None => return Ok(clients),
        }
    }
}
