//! The commit loop, on its own thread.
//!
//! It takes what waits, commits it, says so, and takes what has come meanwhile:
//! batches grow with the load by themselves, and an idle store commits at once.
//! Between two commits there is at most one step of upkeep while work waits, and
//! one after the other while none does.
//!
//! `set_quick_repair` makes a commit flush twice and the next opening after a
//! crash instant. A commit of many rows pays a tenth for it, one of a single row
//! three times as much, so large ones have it, and one in each second.
//!
//! A failure ends the loop for good, except a full disk: then the database is
//! opened again in place (the engine refuses all work after a failed write), and
//! the same batch is tried until there is room. A flush that fails is never
//! repeated, whatever the reason it gives: the kernel may have dropped what was
//! to be written, and a second flush would not notice.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redb::WriteTransaction;

use super::apply::apply;
use super::batch::{Batch, MAX_ROWS, Work};
use super::disk::Disk;
use super::keys::{self, Spill};
use super::retention::{self, Done, Retention, Step};
use super::tables::{META, meta};
use super::{End, Fault, Inbox, OnFlushed, Shared, lock};
use crate::store::{Flushed, Health, Settings};

/// From so many rows on a commit is made for quick repair anyway.
const QUICK_ROWS: u64 = 64;

/// The disk's room is looked at, and a commit made for quick repair is owed, so often.
const TICK: Duration = Duration::from_secs(1);

/// `last_seen` is noted so often (docs/semantics.md, "Clocks").
const SEEN: Duration = Duration::from_secs(10);

/// Old rows are looked for so often, and those that are kept so often.
const LOOK: Duration = Duration::from_secs(60);
const LOOK_AT_KEPT: Duration = Duration::from_secs(3600);

/// While work waits, upkeep takes a step no more often than this.
const STEP: Duration = Duration::from_millis(20);

/// Why the loop ends.
enum Stop {
    /// Writing has failed.
    Broken(String),
    /// Nobody waits for the rest.
    Left,
}

/// The commit thread's own.
pub(super) struct Writer {
    shared: Arc<Shared>,
    settings: Settings,
    on_flushed: OnFlushed,
    engine: Engine,
    waiting: VecDeque<Work>,
    batch: Batch,
    flushed: u64,
    retention: Retention,
    spill: Option<Spill>,
    /// Keys must be in a run before their messages go.
    spill_now: bool,
    due: Due,
}

/// Commits, and opens the database again when the disk was full.
struct Engine {
    shared: Arc<Shared>,
    disk: Disk,
    quick: Instant,
    quick_owed: bool,
    /// How often in a row the disk was full.
    full: u32,
}

/// When what was done last.
struct Due {
    tick: Instant,
    seen: Instant,
    look: Option<Instant>,
    look_at_kept: Option<Instant>,
    step: Instant,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        settings: Settings,
        disk: Disk,
        retention: Retention,
        on_flushed: OnFlushed,
    ) -> Self {
        let now = (shared.clock)().instant;
        let engine =
            Engine { shared: shared.clone(), disk, quick: now, quick_owed: false, full: 0 };
        Self {
            shared,
            settings,
            on_flushed,
            engine,
            waiting: VecDeque::new(),
            batch: Batch::default(),
            flushed: 0,
            retention,
            spill: None,
            spill_now: false,
            due: Due { tick: now, seen: now, look: None, look_at_kept: None, step: now },
        }
    }

    /// Looks at the disk's room, before anybody asks.
    pub(super) fn look_at_room(&mut self) {
        let free = self.engine.disk.free();
        if free.is_some_and(|free| free < self.settings.min_free) {
            self.shared.set_health(Health::Full);
        } else {
            self.shared.set_health(Health::Writable);
            self.engine.disk.lay_ballast(self.settings.min_free);
        }
    }

    /// The loop.
    pub(super) fn run(mut self) {
        let stop = match catch_unwind(AssertUnwindSafe(|| self.serve())) {
            Ok(Ok(())) => return,
            Ok(Err(stop)) => stop,
            Err(_) => Stop::Broken("the engine gave up over a damaged page".to_owned()),
        };
        self.shared.end(End::AtOnce);
        lock(&self.shared.inbox).work.clear();
        match stop {
            Stop::Broken(text) => {
                self.shared.set_health(Health::Broken);
                (self.on_flushed)(Flushed::Broken(text));
            }
            Stop::Left => {}
        }
    }

    fn serve(&mut self) -> Result<(), Stop> {
        loop {
            let end = self.take_work();
            if end == Some(End::AtOnce) {
                return Ok(());
            }
            while let Some(work) = self.waiting.pop_front_if(|work| self.batch.takes(work)) {
                self.batch.add(work);
            }
            if !self.batch.is_empty() {
                self.commit()?;
            } else if end == Some(End::InOrder) {
                return self.end_in_order();
            }
            self.upkeep()?;
        }
    }

    /// Takes all that has been submitted; waits when there is nothing to do.
    fn take_work(&mut self) -> Option<End> {
        let idle = if self.has_upkeep() { Duration::ZERO } else { TICK };
        let mut inbox = lock(&self.shared.inbox);
        if self.waiting.is_empty() {
            let nothing = |inbox: &mut Inbox| inbox.work.is_empty() && inbox.end.is_none();
            inbox = wait(&self.shared, inbox, idle, nothing);
            if !inbox.work.is_empty() && !self.settings.commit_delay.is_zero() {
                let alone = |inbox: &mut Inbox| inbox.records < MAX_ROWS && inbox.end.is_none();
                inbox = wait(&self.shared, inbox, self.settings.commit_delay, alone);
            }
        }
        self.waiting.extend(inbox.work.drain(..));
        inbox.records = 0;
        inbox.end
    }

    fn commit(&mut self) -> Result<(), Stop> {
        let Self { engine, batch, retention, .. } = self;
        batch.sort();
        let rows = batch.records();
        let applied =
            engine.transact(rows, &mut |txn| apply(txn, batch, retention.drained_upto()))?;
        retention.grown(&applied);
        if let Some(dead) = applied.dead_letters {
            self.shared.dead_letters.store(dead, Ordering::Relaxed);
        }
        if let Some(aside) = applied.set_aside {
            self.shared.set_aside.store(aside, Ordering::Relaxed);
        }
        if let (Some((first, _)), Some((last, _))) = (batch.messages.first(), batch.messages.last())
        {
            let messages = batch.messages.len() as u64;
            lock(&self.shared.keys).flushed(*first, *last, messages, &batch.keys);
        }
        if let Some(events) = applied.events {
            self.shared.events.store(events, Ordering::Relaxed);
        }
        let events = !batch.events.is_empty();
        for told in batch.told.drain(..) {
            // Whoever does not wait need not be told.
            let _ = told.send(());
        }
        batch.clear();
        if rows > 0 {
            self.flushed += rows;
            (self.on_flushed)(Flushed::Upto(self.flushed));
        }
        if events {
            (self.on_flushed)(Flushed::Events);
        }
        Ok(())
    }

    fn end_in_order(&mut self) -> Result<(), Stop> {
        let now = (self.shared.clock)().utc;
        let bytes = self.retention.encode_bytes();
        self.engine.transact(QUICK_ROWS, &mut |txn| {
            let mut table = txn.open_table(META)?;
            table.insert(meta::CLEAN, &[1][..])?;
            table.insert(meta::LAST_SEEN, &now.ms().to_le_bytes()[..])?;
            table.insert(meta::BYTES, &*bytes)?;
            Ok(())
        })
    }

    fn has_upkeep(&self) -> bool {
        self.spill.is_some() || self.spill_now || self.retention.next().is_some()
    }

    fn upkeep(&mut self) -> Result<(), Stop> {
        let now = (self.shared.clock)().instant;
        if now.saturating_duration_since(self.due.tick) >= TICK {
            self.due.tick = now;
            self.tick(now)?;
        }
        let busy = !self.waiting.is_empty() || !lock(&self.shared.inbox).work.is_empty();
        if busy && now.saturating_duration_since(self.due.step) < STEP {
            return Ok(());
        }
        self.due.step = now;
        if self.keys_step()? { Ok(()) } else { self.retention_step() }
    }

    fn tick(&mut self, now: Instant) -> Result<(), Stop> {
        self.look_at_room();
        let after = |last: Option<Instant>, time| {
            last.is_none_or(|last| now.saturating_duration_since(last) >= time)
        };
        if after(self.due.look, LOOK) {
            self.due.look = Some(now);
            self.retention.look((self.shared.clock)().utc);
        }
        if after(self.due.look_at_kept, LOOK_AT_KEPT) {
            self.due.look_at_kept = Some(now);
            self.retention.look_at_kept();
        }
        let seen = now.saturating_duration_since(self.due.seen) >= SEEN;
        if seen {
            self.due.seen = now;
        }
        if seen || self.engine.quick_owed {
            self.note_seen()?;
        }
        Ok(())
    }

    fn note_seen(&mut self) -> Result<(), Stop> {
        let now = (self.shared.clock)().utc;
        let bytes = self.retention.encode_bytes();
        self.engine.transact(QUICK_ROWS, &mut |txn| {
            let mut table = txn.open_table(META)?;
            table.insert(meta::LAST_SEEN, &now.ms().to_le_bytes()[..])?;
            table.insert(meta::BYTES, &*bytes)?;
            Ok(())
        })
    }

    /// A step with idempotency keys; whether there was one.
    fn keys_step(&mut self) -> Result<bool, Stop> {
        let now = (self.shared.clock)().utc;
        if self.spill.is_none() {
            self.spill = lock(&self.shared.keys).begin_spill(now, self.spill_now);
            self.spill_now = false;
        }
        if let Some(mut spill) = self.spill.take() {
            let written = self.engine.transact(0, &mut |txn| spill.step(txn))?;
            if spill.stepped(written) {
                lock(&self.shared.keys).end_spill(spill);
            } else {
                self.spill = Some(spill);
            }
            return Ok(true);
        }
        let run = lock(&self.shared.keys).run_to_drop(now);
        let Some(run) = run else { return Ok(false) };
        lock(&self.shared.keys).dropped(run, now);
        self.engine.transact(0, &mut |txn| keys::drop_run(txn, run))?;
        Ok(true)
    }

    fn retention_step(&mut self) -> Result<(), Stop> {
        let Some(mut step) = self.retention.next() else { return Ok(()) };
        let drained_upto = self.retention.drained_upto();
        if let Step::Drain(_, upto) = &mut step
            && let Some(first) = lock(&self.shared.keys).unspilled_from()
            && first <= *upto
        {
            // These keys stand in the messages alone: first into a run with them.
            *upto = first - 1;
            if *upto <= drained_upto {
                self.spill_now = true;
                return Ok(());
            }
        }
        let now = (self.shared.clock)().utc;
        let Self { engine, settings, .. } = self;
        let done = engine
            .transact(0, &mut |txn| retention::step(txn, step, drained_upto, now, settings))?;
        self.retention.done(&done);
        if let Done::Dead(dead_letters, _) = done {
            self.shared.dead_letters.store(dead_letters, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Engine {
    /// Runs `work` in a transaction and flushes it. Where the disk is full it is
    /// run again, until it fits.
    fn transact<T>(
        &mut self,
        rows: u64,
        work: &mut dyn FnMut(&WriteTransaction) -> Result<T, Fault>,
    ) -> Result<T, Stop> {
        loop {
            match self.attempt(rows, work) {
                Ok(done) => {
                    self.full = 0;
                    return Ok(done);
                }
                Err(_) if self.shared.signs.only_full() => self.wait_for_room()?,
                Err(Fault(text)) => return Err(Stop::Broken(text)),
            }
        }
    }

    fn attempt<T>(
        &mut self,
        rows: u64,
        work: &mut dyn FnMut(&WriteTransaction) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let begun = (self.shared.clock)().instant;
        let db = self.shared.db.read().unwrap_or_else(PoisonError::into_inner);
        let db = db.as_ref().ok_or_else(|| Fault("the file is not open".to_owned()))?;
        let mut txn = db.begin_write()?;
        let quick = rows >= QUICK_ROWS || begun.saturating_duration_since(self.quick) >= TICK;
        txn.set_quick_repair(quick);
        let done = work(&txn)?;
        txn.commit()?;
        if quick {
            self.quick = begun;
        }
        self.quick_owed = !quick;
        let took = (self.shared.clock)().instant.saturating_duration_since(begun);
        self.shared.note_commit(rows, took);
        Ok(done)
    }

    /// The disk is full: gives the ballast's room back and opens the database
    /// again. The first time the work is tried at once, for the ballast may be
    /// enough, later once a second.
    fn wait_for_room(&mut self) -> Result<(), Stop> {
        self.shared.set_health(Health::Full);
        *self.shared.db.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.disk.drop_ballast();
        loop {
            if self.full > 0 {
                self.pause()?;
            }
            self.full += 1;
            match self.disk.database() {
                Ok(db) => {
                    *self.shared.db.write().unwrap_or_else(PoisonError::into_inner) = Some(db);
                    return Ok(());
                }
                Err(_) if self.shared.signs.only_full() => {}
                Err(error) => return Err(Stop::Broken(error.to_string())),
            }
        }
    }

    /// Waits a second. Whoever ends the store now does not wait for the disk.
    fn pause(&self) -> Result<(), Stop> {
        let inbox = lock(&self.shared.inbox);
        match wait(&self.shared, inbox, TICK, |inbox| inbox.end.is_none()).end {
            Some(_) => Err(Stop::Left),
            None => Ok(()),
        }
    }
}

fn wait<'a>(
    shared: &'a Shared,
    mut inbox: MutexGuard<'a, Inbox>,
    most: Duration,
    while_true: impl FnMut(&mut Inbox) -> bool,
) -> MutexGuard<'a, Inbox> {
    inbox.asleep = true;
    let waited = shared.arrived.wait_timeout_while(inbox, most, while_true);
    let mut inbox = waited.unwrap_or_else(PoisonError::into_inner).0;
    inbox.asleep = false;
    inbox
}
