//! Disks that fail, fill up, and forget what was not flushed.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redb::StorageBackend;

use super::super::Embedded;
use super::super::disk::Disk;
use super::super::open::open_on;
use super::world::{World, accept, message, message_with_key, recovered, sent, settled};
use crate::model::{Message, State};
use crate::store::{Health, Store, StoreError};

#[test]
fn whatever_a_crash_keeps_of_the_last_writes_nothing_flushed_is_lost() {
    for seed in 0..40 {
        let mut world = World::new();
        // With few keys there are runs of them, too.
        world.settings.max_idempotency_keys = [1000, 150][seed as usize % 2];
        let mut rng = StdRng::seed_from_u64(seed);
        let platter = Platter::default();
        for round in 0..3 {
            crash_once(&mut world, &platter, &mut rng, seed, round * 40);
        }
    }
}

/// Writes until the disk goes away at a random call, then looks at what is left.
fn crash_once(world: &mut World, platter: &Platter, rng: &mut StdRng, seed: u64, key: u8) {
    let store = world.open_on(platter);
    let before = recovered(&store).len();
    platter.set(Trouble::Gone { after: rng.random_range(0..120) });
    let mut batches: Vec<(u64, Message, bool)> = Vec::new();
    for n in 0..40 {
        let mut message = message(world, 2);
        message.idempotency = message_with_key(world, key + n).idempotency;
        let settles = rng.random_bool(0.5);
        let mut records = vec![accept(&message)];
        records.extend((0..2).map(|n| sent(message.id.delivery(n))));
        if settles {
            records.push(settled(message.id));
        }
        let upto = world.flushes.submitted(records.len());
        store.submit(records);
        batches.push((upto, message, settles));
        if rng.random_bool(0.3) && store.health() != Health::Broken {
            // Several commits, not one large one.
            std::thread::yield_now();
        }
    }
    world.until(|| world.flushes.broken().is_some() || world.flushes.upto() == batches[39].0);
    let flushed = world.flushes.upto();
    drop(store);
    platter.crash(rng);

    let store = world.open_on(platter);
    let open = recovered(&store);
    assert!(open.len() >= before, "seed {seed}");
    for (upto, message, settles) in batches {
        let id = message.id;
        let found = store.message(id).unwrap();
        let known = store.by_idempotency_key(&message.idempotency.unwrap().key).unwrap();
        assert_eq!(known, found.is_some().then_some(id), "seed {seed}");
        let out = store.progress(id).unwrap();
        let is_open = open.iter().any(|one| one.message.id == id);
        if upto <= flushed {
            assert!(found.is_some(), "seed {seed}: {id} was flushed");
        }
        // A batch is there as a whole or not at all.
        assert_eq!(out.len(), if found.is_some() { 2 } else { 0 }, "seed {seed}");
        assert_eq!(is_open, found.is_some() && !settles, "seed {seed}");
        assert!(out.iter().all(|(_, progress)| progress.state == State::Sent));
    }
    store.close();
}

#[test]
fn after_a_failed_flush_nothing_is_acknowledged_and_nothing_is_taken() {
    for error in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
        let mut world = World::new();
        let platter = Platter::default();
        let store = world.open_on(&platter);
        let first = message(&world, 1);
        world.write(&store, vec![accept(&first)]);
        platter.set(Trouble::NextFlush(error));
        let second = message(&world, 1);
        store.submit(vec![accept(&second)]);
        world.flushes.wait_until_broken();
        assert_eq!(store.health(), Health::Broken);
        for _ in 0..10 {
            store.submit(vec![accept(&message(&world, 1))]);
        }
        store.close();
        assert_eq!(world.flushes.upto(), 1);
        assert_eq!(store.health(), Health::Broken);
        drop(store);
        drop(world.open_on(&platter));
        assert!(!world.start.clean);
    }
}

#[test]
fn a_failed_write_breaks_it_too() {
    let mut world = World::new();
    let platter = Platter::default();
    let store = world.open_on(&platter);
    platter.set(Trouble::Gone { after: 0 });
    store.submit(vec![accept(&message(&world, 1))]);
    world.flushes.wait_until_broken();
    assert_eq!((store.health(), world.flushes.upto()), (Health::Broken, 0));
}

#[test]
fn a_full_disk_keeps_what_waits_and_goes_on_when_there_is_room() {
    let mut world = World::new();
    let platter = Platter::default();
    let store = world.open_on(&platter);
    let first = message(&world, 1);
    world.write(&store, vec![accept(&first)]);

    platter.fill_up();
    let mut submitted = 1;
    world.until(|| {
        submitted = world.flushes.submitted(1);
        store.submit(vec![accept(&message(&world, 50))]);
        store.health() == Health::Full
    });
    world.until(|| match store.message(first.id) {
        Ok(found) => found.is_some(),
        // It is being opened again.
        Err(StoreError::Engine(_)) => false,
        Err(error) => panic!("{error}"),
    });
    assert!(world.flushes.upto() < submitted, "nothing is acknowledged meanwhile");

    platter.set(Trouble::None);
    world.flushes.wait_for(submitted);
    world.until(|| store.health() == Health::Writable);
    assert_eq!(recovered(&store).len() as u64, submitted);
    let last = message(&world, 1);
    world.write(&store, vec![accept(&last)]);
    store.close();
    drop(store);
    drop(world.open_on(&platter));
    assert!(world.start.clean);
}

#[test]
fn a_store_on_a_full_disk_can_be_closed() {
    let mut world = World::new();
    let platter = Platter::default();
    let store = world.open_on(&platter);
    platter.set(Trouble::Full { from: 0 });
    store.submit(vec![accept(&message(&world, 1))]);
    world.until(|| store.health() == Health::Full);
    store.close();
    assert_eq!(world.flushes.upto(), 0);
    platter.set(Trouble::None);
    drop(store);
    drop(world.open_on(&platter));
    assert!(!world.start.clean, "it could not be noted");
}

#[test]
fn little_room_is_told_before_anything_fails() {
    let mut world = World::new();
    world.settings.min_free = 1000;
    let platter = Platter::default();
    platter.0.lock().unwrap().free = 999;
    let store = world.open_on(&platter);
    assert_eq!(store.health(), Health::Full);
    // What is stored keeps draining.
    world.write(&store, vec![accept(&message(&world, 1))]);
    platter.0.lock().unwrap().free = 1000;
    world.pass(Duration::from_secs(2));
    world.until(|| store.health() == Health::Writable);
}

impl World {
    fn open_on(&mut self, platter: &Platter) -> Arc<Embedded> {
        let on_flushed = self.on_flushed();
        let (opened, asked) = (platter.clone(), platter.clone());
        let disk = Disk::other(
            Box::new(move || Ok(Box::new(opened.clone()))),
            Box::new(move || Ok(asked.0.lock().unwrap().free)),
        );
        platter.set(Trouble::None);
        let name = std::path::Path::new("platter");
        let (store, start) =
            open_on(disk, name, None, &self.settings, self.clock(), on_flushed).unwrap();
        self.start = start;
        store
    }
}

/// A disk in memory.
#[derive(Clone, Debug, Default)]
struct Platter(Arc<Mutex<Surface>>);

#[derive(Debug)]
struct Surface {
    now: Vec<u8>,
    flushed: Vec<u8>,
    unflushed: Vec<Change>,
    trouble: Trouble,
    free: u64,
}

#[derive(Clone, Debug)]
enum Change {
    Length(u64),
    Bytes(u64, Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    /// What is written from there on finds no room.
    Full {
        from: u64,
    },
    /// The next flush fails, those after it do not.
    NextFlush(io::ErrorKind),
    /// After so many calls that change something, all fail.
    Gone {
        after: u32,
    },
}

impl Default for Surface {
    fn default() -> Self {
        let (now, flushed, unflushed) = (Vec::new(), Vec::new(), Vec::new());
        Self { now, flushed, unflushed, trouble: Trouble::None, free: u64::MAX }
    }
}

impl Platter {
    fn set(&self, trouble: Trouble) {
        self.0.lock().unwrap().trouble = trouble;
    }

    /// What is allocated can be written again, but nothing more.
    fn fill_up(&self) {
        let mut surface = self.0.lock().unwrap();
        surface.trouble = Trouble::Full { from: surface.now.len() as u64 };
    }

    /// The power goes: of what was not flushed some is there and some is not,
    /// and the last block may be there in part.
    fn crash(&self, rng: &mut StdRng) {
        let mut state = self.0.lock().unwrap();
        let mut left = state.flushed.clone();
        for change in std::mem::take(&mut state.unflushed) {
            match change {
                Change::Length(length) => left.resize(length as usize, 0),
                Change::Bytes(at, mut bytes) if rng.random_bool(0.5) => {
                    if rng.random_bool(0.2) {
                        bytes.truncate(bytes.len() / 512 * 512 / 2);
                    }
                    let end = at as usize + bytes.len();
                    if left.len() < end {
                        left.resize(end, 0);
                    }
                    left[at as usize..end].copy_from_slice(&bytes);
                }
                Change::Bytes(..) => {}
            }
        }
        state.now.clone_from(&left);
        state.flushed = left;
    }
}

impl Surface {
    fn change(&mut self, change: Change) -> io::Result<()> {
        match &mut self.trouble {
            Trouble::Full { from } => {
                if let Change::Bytes(at, bytes) = &change
                    && at + bytes.len() as u64 > *from
                {
                    return Err(io::ErrorKind::StorageFull.into());
                }
            }
            Trouble::Gone { after: 0 } => return Err(io::Error::other("the disk is gone")),
            Trouble::Gone { after } => *after -= 1,
            Trouble::None | Trouble::NextFlush(_) => {}
        }
        match &change {
            Change::Length(length) => self.now.resize(*length as usize, 0),
            Change::Bytes(at, bytes) => {
                self.now[*at as usize..*at as usize + bytes.len()].copy_from_slice(bytes);
            }
        }
        self.unflushed.push(change);
        Ok(())
    }
}

impl StorageBackend for Platter {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock().unwrap();
        let at = offset as usize;
        let found = state.now.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().change(Change::Length(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        match &mut state.trouble {
            Trouble::NextFlush(kind) => {
                let kind = *kind;
                state.trouble = Trouble::None;
                return Err(kind.into());
            }
            Trouble::Gone { after: 0 } => return Err(io::Error::other("the disk is gone")),
            Trouble::Gone { after } => *after -= 1,
            Trouble::None | Trouble::Full { .. } => {}
        }
        let changes = std::mem::take(&mut state.unflushed);
        for change in changes {
            match change {
                Change::Length(length) => state.flushed.resize(length as usize, 0),
                Change::Bytes(at, bytes) => {
                    let end = at as usize + bytes.len();
                    state.flushed[at as usize..end].copy_from_slice(&bytes);
                }
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().change(Change::Bytes(offset, data.to_vec()))
    }
}
