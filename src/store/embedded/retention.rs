//! Letting go of what is old: messages after `retention` or beyond `max_bytes`,
//! dead letters after their own time or beyond their own number.
//!
//! Messages are drained in the order of acceptance, a few hundred in a step, each
//! step one transaction: what is still unsettled, or a dead letter, moves to
//! `kept`, the rest goes, and an hour's tables go when they are empty. Dropping
//! an hour at once would read all its pages to free them, gigabytes at a busy
//! site, and nobody's push is accepted meanwhile. The line up to which all is
//! drained is written in the same transaction, so that a crash between two steps
//! changes nothing.
//!
//! Ids of the last minute are never drained: one of them may still be on its way
//! to the store.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use super::Fault;
use super::apply::{Applied, ROW_OVERHEAD};
use super::tables::{
    self, DEAD, Hour, KEPT_MESSAGES, KEPT_OUT, META, OPEN, Rows, deliveries_of, first_at, last_of,
    last_of_hour, message_of, meta,
};
use super::users;
use crate::clock::{Utc, millis};
use crate::store::{Settings, record};

/// Messages in a step at most, and records of their deliveries: about 2 ms.
const STEP: usize = 512;
const STEP_OUTS: usize = 4096;

/// Dead letters looked at in a step.
const STEP_DEAD: usize = 2048;

/// Younger messages are never drained.
const YOUNGEST: Duration = Duration::from_secs(60);

/// Where rows are, how many bytes they have, and what is to go.
pub(super) struct Retention {
    settings: Settings,
    /// Bytes by hour, of every hour that has tables. An estimate: rows are
    /// counted when they are written, pages never.
    hours: BTreeMap<Hour, u64>,
    kept_bytes: u64,
    drained_upto: u128,
    /// Go on up to here.
    target: u128,
    /// Go on up to here, but only until there is room again; 0: there is.
    relief: u128,
    /// Go on after this dead letter, after this kept message.
    dead: Option<u128>,
    kept: Option<u128>,
    gone: bool,
}

/// One step's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Drain messages of an hour up to an id.
    Drain(Hour, u128),
    /// Look at dead letters after this one.
    Dead(u128),
    /// Look at kept messages after this one.
    Kept(u128),
    /// Let go of gone addresses that are old.
    Gone,
}

/// What a step has done, to be believed when its transaction is flushed.
pub(super) enum Done {
    /// Drained up to an id.
    Drained {
        /// Of which hour.
        hour: Hour,
        /// Up to which id.
        upto: u128,
        /// Bytes that went or were moved.
        gone: u64,
        /// Bytes that were moved.
        moved: u64,
        /// The hour has no tables any more.
        over: bool,
    },
    /// Dead letters there are now, and where to go on.
    Dead(u64, Option<u128>),
    /// Bytes that went from what is kept, and where to go on.
    Kept(u64, Option<u128>),
    /// Whether there are more gone addresses that are old.
    Gone(bool),
}

impl Retention {
    /// Of what is found in the file: hours that have tables and what was noted of them.
    pub(super) fn new(
        settings: Settings,
        hours: BTreeMap<Hour, u64>,
        kept_bytes: u64,
        drained_upto: u128,
    ) -> Self {
        let (target, relief, dead, kept, gone) = (0, 0, None, None, false);
        Self { settings, hours, kept_bytes, drained_upto, target, relief, dead, kept, gone }
    }

    /// Messages up to here are kept or gone.
    pub(super) fn drained_upto(&self) -> u128 {
        self.drained_upto
    }

    /// A batch has been flushed.
    pub(super) fn grown(&mut self, applied: &Applied) {
        for (hour, bytes) in &applied.bytes {
            *self.hours.entry(*hour).or_default() += bytes;
        }
        self.kept_bytes += applied.kept_bytes;
    }

    /// Looks for what has become old; once a minute.
    pub(super) fn look(&mut self, now: Utc) {
        let old = now.ms().saturating_sub(millis(self.settings.retention));
        self.target = self.target.max(before(Utc::from_ms(old).min(youngest(now))));
        if self.bytes() > self.room() {
            self.relief = before(youngest(now));
        }
        self.dead.get_or_insert(0);
        self.gone = true;
    }

    /// Looks at messages that are kept; once an hour.
    pub(super) fn look_at_kept(&mut self) {
        self.kept.get_or_insert(0);
    }

    /// The next step, if there is anything to do.
    pub(super) fn next(&self) -> Option<Step> {
        let target = self.target.max(self.relief);
        let oldest = self.hours.keys().next().copied();
        let drain = oldest.and_then(|hour| {
            let upto = target.min(last_of_hour(hour));
            let due = tables::first_of_hour(hour) <= target && self.drained_upto < upto;
            due.then_some(Step::Drain(hour, upto))
        });
        drain
            .or(self.dead.map(Step::Dead))
            .or(self.kept.map(Step::Kept))
            .or(self.gone.then_some(Step::Gone))
    }

    /// A step has been flushed.
    pub(super) fn done(&mut self, done: &Done) {
        match done {
            Done::Drained { hour, upto, gone, moved, over } => {
                self.drained_upto = self.drained_upto.max(*upto);
                self.kept_bytes += moved;
                if *over {
                    self.hours.remove(hour);
                } else if let Some(bytes) = self.hours.get_mut(hour) {
                    *bytes = bytes.saturating_sub(*gone);
                }
                // A twentieth more than needed, so that it is not needed all the time.
                if self.bytes() <= self.room() / 20 * 19 {
                    self.relief = 0;
                }
            }
            Done::Dead(_, next) => self.dead = *next,
            Done::Kept(gone, next) => {
                self.kept_bytes = self.kept_bytes.saturating_sub(*gone);
                self.kept = *next;
            }
            Done::Gone(more) => self.gone = *more,
        }
    }

    /// For the next process.
    pub(super) fn encode_bytes(&self) -> Vec<u8> {
        let hours: Vec<(u64, u64)> = self.hours.iter().map(|(hour, n)| (*hour, *n)).collect();
        postcard::to_allocvec(&(hours, self.kept_bytes))
            .expect("a vector grows, and every length is known beforehand")
    }

    /// What [`Self::encode_bytes`] wrote.
    pub(super) fn decode_bytes(bytes: &[u8]) -> Option<(BTreeMap<Hour, u64>, u64)> {
        let (hours, kept): (Vec<(u64, u64)>, u64) = postcard::from_bytes(bytes).ok()?;
        Some((hours.into_iter().collect(), kept))
    }

    fn bytes(&self) -> u64 {
        self.hours.values().sum()
    }

    /// What is kept has bounds of its own. It takes room from the others, but not
    /// more than three quarters: where everything is unsettled, draining would
    /// only move it.
    fn room(&self) -> u64 {
        let Settings { max_bytes, .. } = self.settings;
        max_bytes.saturating_sub(self.kept_bytes).max(max_bytes / 4)
    }
}

fn youngest(now: Utc) -> Utc {
    Utc::from_ms(now.ms().saturating_sub(millis(YOUNGEST)))
}

/// The last id before a moment.
const fn before(at: Utc) -> u128 {
    first_at(at.ms()).saturating_sub(1)
}

/// Does a step.
pub(super) fn step(
    txn: &WriteTransaction,
    step: Step,
    drained_upto: u128,
    now: Utc,
    settings: &Settings,
) -> Result<Done, Fault> {
    match step {
        Step::Drain(hour, target) => drain(txn, hour, drained_upto, target),
        Step::Dead(after) => pass_dead(txn, after, now, settings),
        Step::Kept(after) => pass_kept(txn, after, now, settings),
        Step::Gone => Ok(Done::Gone(users::let_go(txn, now, STEP_DEAD)?)),
    }
}

type RowTable<'txn> = Table<'txn, u128, &'static [u8]>;

fn drain(
    txn: &WriteTransaction,
    hour: Hour,
    drained_upto: u128,
    target: u128,
) -> Result<Done, Fault> {
    let (messages_name, out_name) = (tables::messages_name(hour), tables::out_name(hour));
    let (mut gone, mut moved) = (0, 0);
    let (upto, over) = {
        let mut messages = txn.open_table(Rows::new(&messages_name))?;
        let mut out = txn.open_table(Rows::new(&out_name))?;
        let upto = end_of_step(&messages, &out, drained_upto, target)?;
        let outliving = outliving(txn, drained_upto, upto)?;
        for message in &outliving {
            moved += keep(txn, *message, &messages, &out)?;
        }
        let mut named = Vec::new();
        messages.retain_in(drained_upto + 1..=upto, |id, row| {
            gone += row.len() as u64 + ROW_OVERHEAD;
            if record::may_name_users(row) && !outliving.contains(&id) {
                named.push((id, row.to_vec()));
            }
            false
        })?;
        users::unlist(txn, &named)?;
        out.retain_in(drained_upto + 1..=last_of(upto), |_, row| {
            gone += row.len() as u64 + ROW_OVERHEAD;
            false
        })?;
        (upto, upto == last_of_hour(hour) && messages.is_empty()? && out.is_empty()?)
    };
    if over {
        txn.delete_table(Rows::new(&messages_name))?;
        txn.delete_table(Rows::new(&out_name))?;
    }
    txn.open_table(META)?.insert(meta::DRAINED_UPTO, &upto.to_le_bytes()[..])?;
    Ok(Done::Drained { hour, upto, gone, moved, over })
}

/// How far a step goes: so many messages, and so many records of deliveries.
fn end_of_step(
    messages: &RowTable<'_>,
    out: &RowTable<'_>,
    drained_upto: u128,
    target: u128,
) -> Result<u128, Fault> {
    let upto = match messages.range(drained_upto + 1..=target)?.nth(STEP - 1) {
        Some(last) => last?.0.value(),
        None => target,
    };
    match out.range(drained_upto + 1..=last_of(upto))?.nth(STEP_OUTS) {
        // At least the first message with its deliveries, however many these are.
        Some(first_beyond) => {
            let message = message_of(first_beyond?.0.value());
            match messages.range(drained_upto + 1..message)?.next_back() {
                Some(before) => Ok(before?.0.value()),
                None => Ok(message),
            }
        }
        None => Ok(upto),
    }
}

/// Messages of a step that are unsettled or have a dead letter.
fn outliving(txn: &WriteTransaction, after: u128, upto: u128) -> Result<BTreeSet<u128>, Fault> {
    let mut outliving = BTreeSet::new();
    for row in txn.open_table(OPEN)?.range(after + 1..=upto)? {
        outliving.insert(row?.0.value());
    }
    for row in txn.open_table(DEAD)?.range(after + 1..=last_of(upto))? {
        outliving.insert(message_of(row?.0.value()));
    }
    Ok(outliving)
}

/// Copies a message to `kept`; the bytes.
fn keep(
    txn: &WriteTransaction,
    message: u128,
    messages: &RowTable<'_>,
    out: &RowTable<'_>,
) -> Result<u64, Fault> {
    let Some(row) = messages.get(message)? else { return Ok(0) };
    let mut bytes = row.value().len() as u64 + ROW_OVERHEAD;
    txn.open_table(KEPT_MESSAGES)?.insert(message, row.value())?;
    let mut kept = txn.open_table(KEPT_OUT)?;
    for row in out.range(deliveries_of(message))? {
        let (key, row) = row?;
        bytes += row.value().len() as u64 + ROW_OVERHEAD;
        kept.insert(key.value(), row.value())?;
    }
    Ok(bytes)
}

/// Dead letters whose time is over, and the oldest of those that are too many.
/// Their messages go with the others that are kept for nothing.
fn pass_dead(
    txn: &WriteTransaction,
    after: u128,
    now: Utc,
    settings: &Settings,
) -> Result<Done, Fault> {
    let mut table = txn.open_table(DEAD)?;
    let mut too_many = table.len()?.saturating_sub(settings.max_dead_letters);
    let old = now.ms().saturating_sub(millis(settings.dead_letter_retention));
    let (mut over, mut last, mut seen) = (Vec::new(), None, 0);
    for row in table.range(after + 1..)?.take(STEP_DEAD) {
        let (key, at) = row?;
        seen += 1;
        last = Some(key.value());
        if too_many > 0 {
            too_many -= 1;
            over.push(key.value());
        } else if at.value() < old {
            over.push(key.value());
        }
    }
    for key in over {
        table.remove(key)?;
    }
    Ok(Done::Dead(table.len()?, last.filter(|_| seen == STEP_DEAD)))
}

/// Kept messages that have settled in the end, long enough ago.
fn pass_kept(
    txn: &WriteTransaction,
    after: u128,
    now: Utc,
    settings: &Settings,
) -> Result<Done, Fault> {
    let old = Utc::from_ms(now.ms().saturating_sub(millis(settings.retention)));
    let mut messages = txn.open_table(KEPT_MESSAGES)?;
    let mut out = txn.open_table(KEPT_OUT)?;
    let (open, dead) = (txn.open_table(OPEN)?, txn.open_table(DEAD)?);
    let (mut over, mut last, mut seen, mut gone) = (Vec::new(), None, 0, 0);
    for row in messages.range(after + 1..)?.take(STEP) {
        let key = row?.0.value();
        seen += 1;
        last = Some(key);
        let needed = open.get(key)?.is_some() || dead.range(deliveries_of(key))?.next().is_some();
        if !needed && settled_before(&out, key, old)? {
            over.push(key);
        }
    }
    for key in over {
        if let Some(row) = messages.remove(key)? {
            gone += row.value().len() as u64 + ROW_OVERHEAD;
            if record::may_name_users(row.value()) {
                users::unlist(txn, &[(key, row.value().to_vec())])?;
            }
        }
        out.retain_in(deliveries_of(key), |_, row| {
            gone += row.len() as u64 + ROW_OVERHEAD;
            false
        })?;
    }
    Ok(Done::Kept(gone, last.filter(|_| seen == STEP)))
}

fn settled_before(out: &RowTable<'_>, message: u128, old: Utc) -> Result<bool, Fault> {
    for row in out.range(deliveries_of(message))? {
        let head = record::decode_progress_head(row?.1.value());
        if head.is_ok_and(|head| head.at >= old) {
            return Ok(false);
        }
    }
    Ok(true)
}
