//! Reading messages and deliveries, in the tables of their hour or in `kept`.
//!
//! A message is in one of the two: it is moved within one transaction, and a
//! read sees one snapshot. The hour is tried first, for that is where the young
//! ones are.

use redb::{ReadOnlyTable, ReadTransaction, TableError, TableHandle};

use super::Fault;
use super::aside::lost;
use super::batch::Damaged;
use super::tables::{
    self, Hour, INTENTS, KEPT_MESSAGES, KEPT_OUT, OPEN, Rows, SET_ASIDE, aside, deliveries_of,
};
use crate::model::{DeliveryId, Message, MessageId, Progress};
use crate::store::Recovered;
use crate::store::record::{self, Undecodable};

type Table = ReadOnlyTable<u128, &'static [u8]>;

/// A message; `Err` inside when its record cannot be decoded.
pub(super) fn message(
    txn: &ReadTransaction,
    id: MessageId,
) -> Result<Result<Option<Message>, Undecodable>, Fault> {
    let key = id.as_u128();
    let places = Places::at(txn, tables::hour(key))?;
    if let Some(row) = places.message(key)? {
        return Ok(record::decode_message(id, row.value()).map(Some));
    }
    if let Some(set_aside) = existing(txn.open_table(SET_ASIDE))?
        && set_aside.get((aside::MESSAGE, key))?.is_some()
    {
        return Ok(Err(Undecodable::set_aside()));
    }
    Ok(Ok(None))
}

/// The records of a message's deliveries. One that cannot be decoded is added
/// to `damaged`, and what it will be instead is in its place.
pub(super) fn progress(
    txn: &ReadTransaction,
    id: MessageId,
    damaged: &mut Vec<Damaged>,
) -> Result<Vec<(u16, Progress)>, Fault> {
    Places::at(txn, tables::hour(id.as_u128()))?.progress(id, damaged)
}

/// Messages before an id, newest first. Those of hours are younger than those kept.
pub(super) fn newest(
    txn: &ReadTransaction,
    before: u128,
    each: &mut dyn FnMut(Message, usize) -> bool,
    damaged: &mut Vec<Damaged>,
) -> Result<(), Fault> {
    let mut names = Vec::new();
    for table in txn.list_tables()? {
        let name = table.name();
        names.extend(tables::messages_hour(name).filter(|hour| *hour <= tables::hour(before)));
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    let hours = names.into_iter().map(tables::messages_name);
    for name in hours.chain([KEPT_MESSAGES.name().to_owned()]) {
        let Some(table) = existing(txn.open_table(Rows::new(&name)))? else { continue };
        for row in table.range(..before)?.rev() {
            let (id, row) = row?;
            let Some(id) = MessageId::from_u128(id.value()) else { continue };
            match record::decode_message(id, row.value()) {
                Ok(message) => {
                    if !each(message, row.value().len()) {
                        return Ok(());
                    }
                }
                Err(_) => damaged.push(Damaged::Message(id.as_u128())),
            }
        }
    }
    Ok(())
}

/// Part of a recovery.
#[derive(Default)]
pub(super) struct Lot {
    /// The messages.
    pub(super) recovered: Vec<Recovered>,
    /// What could not be decoded.
    pub(super) damaged: Vec<Damaged>,
    /// Go on after this one; `None` at the end.
    pub(super) last: Option<u128>,
}

/// The next `most` open messages after `after`.
pub(super) fn open_messages(txn: &ReadTransaction, after: u128, most: usize) -> Result<Lot, Fault> {
    let mut lot = Lot::default();
    let intents = txn.open_table(INTENTS)?;
    let mut places: Option<Places> = None;
    for row in txn.open_table(OPEN)?.range(after + 1..)?.take(most) {
        let key = row?.0.value();
        lot.last = Some(key);
        let place = match places.take() {
            Some(place) if place.hour == tables::hour(key) => place,
            _ => Places::at(txn, tables::hour(key))?,
        };
        recover_message(key, &place, &intents, &mut lot)?;
        places = Some(place);
    }
    Ok(lot)
}

fn recover_message(key: u128, place: &Places, intents: &Table, lot: &mut Lot) -> Result<(), Fault> {
    let (Some(id), Some(row)) = (MessageId::from_u128(key), place.message(key)?) else {
        lot.damaged.push(Damaged::Missing(key));
        return Ok(());
    };
    let Ok(message) = record::decode_message(id, row.value()) else {
        lot.damaged.push(Damaged::Message(key));
        return Ok(());
    };
    let mut progress = place.progress(id, &mut lot.damaged)?;
    let mut begun = Vec::new();
    for row in intents.range(deliveries_of(key))? {
        let (delivery, row) = row?;
        let Some(delivery) = DeliveryId::from_u128(delivery.value()) else { continue };
        match record::decode_intent(row.value()) {
            Ok(intent) => begun.push((delivery.n(), intent)),
            Err(_) => {
                lot.damaged.push(Damaged::Intent(delivery.as_u128()));
                progress.retain(|(n, _)| *n != delivery.n());
                progress.push((delivery.n(), lost(id)));
            }
        }
    }
    progress.sort_by_key(|(n, _)| *n);
    lot.recovered.push(Recovered { message, progress, intents: begun });
    Ok(())
}

/// The tables that a message of one hour can be in.
struct Places {
    hour: Hour,
    messages: [Option<Table>; 2],
    out: [Option<Table>; 2],
}

impl Places {
    fn at(txn: &ReadTransaction, hour: Hour) -> Result<Self, Fault> {
        let open = |name: &str| existing(txn.open_table(Rows::new(name)));
        Ok(Self {
            hour,
            messages: [
                open(&tables::messages_name(hour))?,
                existing(txn.open_table(KEPT_MESSAGES))?,
            ],
            out: [open(&tables::out_name(hour))?, existing(txn.open_table(KEPT_OUT))?],
        })
    }

    fn message(
        &self,
        key: u128,
    ) -> Result<Option<redb::AccessGuard<'static, &'static [u8]>>, Fault> {
        for table in self.messages.iter().flatten() {
            if let Some(row) = table.get(key)? {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    fn progress(
        &self,
        id: MessageId,
        damaged: &mut Vec<Damaged>,
    ) -> Result<Vec<(u16, Progress)>, Fault> {
        let mut found = Vec::new();
        for table in self.out.iter().flatten() {
            for row in table.range(deliveries_of(id.as_u128()))? {
                let (delivery, row) = row?;
                let Some(delivery) = DeliveryId::from_u128(delivery.value()) else { continue };
                let progress = record::decode_progress(row.value()).unwrap_or_else(|_| {
                    damaged.push(Damaged::Progress(delivery.as_u128()));
                    lost(id)
                });
                found.push((delivery.n(), progress));
            }
            if !found.is_empty() {
                break;
            }
        }
        Ok(found)
    }
}

/// A table that may not be there.
fn existing<T>(table: Result<T, TableError>) -> Result<Option<T>, Fault> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
