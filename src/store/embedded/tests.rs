//! What the embedded store promises, on a real directory.
//!
//! `world` has the builders; `faults` puts the store on disks that fail, fill up
//! and forget; `retention` lets time pass.

mod aside;
mod faults;
mod retention;
mod users;
mod world;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use redb::TableDefinition;

use self::world::{World, accept, message, message_with_key, outcome, sent, settled};
use super::open::OpenError;
use super::tables::{self, META, Rows, meta};
use crate::model::{Reason, State};
use crate::store::{Intent, Record, Store, StoreError};

#[test]
fn what_was_submitted_is_found_again_by_a_reader_and_by_the_next_process() {
    let mut world = World::new();
    let message = message(&world, 3);
    let id = message.id;
    let store = world.open();
    world.write(&store, vec![accept(&message)]);
    world.write(&store, vec![outcome(id.delivery(1), State::Waiting)]);
    world.write(&store, vec![intent(id, 2)]);
    assert_eq!(store.message(id).unwrap().unwrap().client, message.client);
    assert_eq!(states(&store, id), [(1, State::Waiting)]);
    drop(store);

    for _ in 0..2 {
        let store = world.open();
        let found = world::recovered(&store);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].message.id, id);
        assert_eq!(found[0].message.recipients.len(), 3);
        assert_eq!(found[0].progress.len(), 1);
        assert_eq!(found[0].intents[0].1.n, 1);
    }
}

#[test]
fn a_message_is_open_until_it_has_settled_and_again_when_it_is_replayed() {
    let mut world = World::new();
    let message = message(&world, 1);
    let (id, delivery) = (message.id, message.id.delivery(0));
    let store = world.open();
    world.write(&store, vec![accept(&message)]);
    world.write(&store, vec![outcome(delivery, State::Failed), settled(id)]);
    assert!(world::recovered(&store).is_empty());
    assert_eq!(store.figures().dead_letters, 1);

    world.write(&store, vec![outcome(delivery, State::Waiting)]);
    assert_eq!(world::recovered(&store).len(), 1);
    assert_eq!(store.figures().dead_letters, 0);

    // Settling and being replayed within one commit leaves it open too.
    world.write(
        &store,
        vec![outcome(delivery, State::Failed), settled(id), outcome(delivery, State::Waiting)],
    );
    assert_eq!(world::recovered(&store).len(), 1);
    world.write(&store, vec![sent(delivery), settled(id)]);
    assert!(world::recovered(&store).is_empty());
}

#[test]
fn a_born_failed_delivery_that_is_replayed_is_open() {
    let mut world = World::new();
    let message = message(&world, 1);
    let store = world.open();
    world.write(&store, vec![accept(&message), settled(message.id)]);
    world.write(&store, vec![outcome(message.id.delivery(0), State::Waiting)]);
    assert_eq!(world::recovered(&store).len(), 1);
}

#[test]
fn an_outcome_ends_its_intent_and_the_next_intent_stands() {
    let mut world = World::new();
    let message = message(&world, 1);
    let delivery = message.id.delivery(0);
    let store = world.open();
    world.write(&store, vec![accept(&message), intent(message.id, 0)]);
    assert_eq!(world::recovered(&store)[0].intents.len(), 1);
    world.write(&store, vec![outcome(delivery, State::Sending), intent(message.id, 0)]);
    assert_eq!(world::recovered(&store)[0].intents.len(), 1);
    world.write(&store, vec![outcome(delivery, State::Waiting)]);
    assert_eq!(world::recovered(&store)[0].intents.len(), 0);
}

#[test]
fn expiry_makes_a_dead_letter_unless_the_message_was_now_or_never() {
    let mut world = World::new();
    let lasting = message(&world, 1);
    let mut fleeting = message(&world, 1);
    fleeting.ttl = Duration::ZERO;
    let store = world.open();
    for message in [&lasting, &fleeting] {
        world.write(&store, vec![accept(message)]);
        let expired = outcome(message.id.delivery(0), State::Expired);
        world.write(&store, vec![expired, settled(message.id)]);
    }
    assert_eq!(store.figures().dead_letters, 1);
}

#[test]
fn notes_are_there_at_the_next_start_until_they_are_removed() {
    let mut world = World::new();
    let note = |name: &str, value: Option<&str>| {
        Record::Note(name.to_owned(), value.map(|value| value.as_bytes().to_vec()))
    };
    let store = world.open();
    world.write(&store, vec![note("a", Some("1")), note("b", Some("2")), note("a", Some("3"))]);
    drop(store);
    let store = world.open();
    let both = [("a".to_owned(), b"3".to_vec()), ("b".to_owned(), b"2".to_vec())];
    assert_eq!(world.start.notes, both);
    world.write(&store, vec![note("a", None)]);
    drop(store);
    drop(world.open());
    assert_eq!(world.start.notes, both[1..]);
}

#[test]
fn an_end_without_close_is_unclean_and_its_time_is_remembered() {
    let mut world = World::new();
    let store = world.open();
    assert!(world.start.clean);
    store.close();
    drop(store);
    let store = world.open();
    assert!(world.start.clean && world.start.unclean_ends.is_empty());
    drop(store);
    for ends in [1, 2, 16, 16] {
        for _ in world.start.unclean_ends.len()..ends {
            drop(world.open());
        }
        let seen = world.start.last_seen;
        drop(world.open());
        assert!(!world.start.clean);
        assert_eq!(world.start.unclean_ends.len(), (ends + 1).min(16));
        assert!(world.start.last_seen >= seen);
    }
}

#[test]
fn the_secret_for_receipts_is_made_once() {
    let mut world = World::new();
    let first = world.open().server_key();
    assert_ne!(first, [0; 32]);
    assert_eq!(world.open().server_key(), first);
}

#[test]
fn an_idle_store_notes_how_late_it_is() {
    let mut world = World::new();
    let store = world.open();
    world.pass(Duration::from_secs(3600));
    let later = world.now().utc;
    world.until(|| {
        let noted = store.shared.read(|txn| {
            let table = txn.open_table(META)?;
            Ok(table.get(meta::LAST_SEEN)?.map(|row| row.value().to_vec()))
        });
        u64::from_le_bytes(noted.unwrap().unwrap().try_into().unwrap()) >= later.ms()
    });
}

#[test]
fn close_flushes_all_and_takes_nothing_more() {
    let mut world = World::new();
    let store = world.open();
    let messages: Vec<_> = (0..300).map(|_| message(&world, 1)).collect();
    for message in &messages {
        store.submit(vec![accept(message)]);
    }
    store.close();
    assert_eq!(world.flushes.upto(), 300);
    store.submit(vec![accept(&messages[0])]);
    store.close();
    assert!(matches!(store.message(messages[0].id), Err(StoreError::Engine(_))));
    drop(store);
    assert_eq!(world::recovered(&world.open()).len(), 300);
}

#[test]
fn keys_are_found_in_memory_in_runs_and_after_a_restart_until_they_are_too_many() {
    let mut world = World::new();
    // A run holds a tenth: four keys.
    world.settings.max_idempotency_keys = 40;
    let mut store = world.open();
    let messages: Vec<_> = (0..60_u8).map(|n| message_with_key(&world, n)).collect();
    for message in &messages[..15] {
        world.write(&store, vec![accept(message)]);
    }
    for _ in 0..2 {
        for message in &messages[..15] {
            let key = message.idempotency.unwrap().key;
            assert_eq!(store.by_idempotency_key(&key).unwrap(), Some(message.id));
        }
        assert_eq!(store.by_idempotency_key(&[255; 16]).unwrap(), None);
        drop(store);
        store = world.open();
    }
    for message in &messages[15..] {
        world.write(&store, vec![accept(message)]);
    }
    world.pass(Duration::from_secs(2));
    world.until(|| store.figures().idempotency_evicted >= 20);
    let found = |n: usize| {
        let key = messages[n].idempotency.unwrap().key;
        store.by_idempotency_key(&key).unwrap()
    };
    assert_eq!(found(0), None);
    assert_eq!(found(59), Some(messages[59].id));

    world.pass(Duration::from_secs(24 * 3600 + 60));
    assert_eq!(found(59), None, "a day later it is forgotten");
}

#[test]
fn what_cannot_be_decoded_is_set_aside_and_the_rest_goes_on() {
    let mut world = World::new();
    let store = world.open();
    let messages: Vec<_> = (0..3).map(|_| message(&world, 2)).collect();
    let delivery = messages[1].id.delivery(0);
    for message in &messages {
        world.write(&store, vec![accept(message)]);
    }
    world.write(&store, vec![outcome(delivery, State::Waiting)]);
    store.close();
    drop(store);
    world.spoil(&tables::messages_name(hour(&messages[0])), messages[0].id.as_u128());
    world.spoil(&tables::out_name(hour(&messages[1])), delivery.as_u128());

    let store = world.open();
    let found = world::recovered(&store);
    assert_eq!(found.len(), 2);
    let (n, progress) = &found[0].progress[0];
    assert_eq!(
        (*n, progress.state, progress.reason),
        (0, State::Unknown, Some(Reason::Internal)),
        "whether it was sent is not known"
    );
    world.until(|| store.figures().set_aside == 2);
    assert_eq!(world::recovered(&store).len(), 2);
    assert_eq!(states(&store, messages[1].id), [(0, State::Unknown)]);
    assert!(matches!(store.message(messages[0].id), Err(StoreError::Undecodable(_))));
    assert_eq!(store.figures().dead_letters, 1);
    store.close();
    drop(store);
    drop(world.open());
    assert_eq!(world.start.set_aside, 2);
}

#[test]
fn only_the_owner_can_read_what_is_stored() {
    let mut world = World::new();
    world.settings.path = world.settings.path.join("deep/data");
    drop(world.open());
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&world.settings.path), 0o700);
    for file in ["pushyard.redb", "lock"] {
        assert_eq!(mode(&world.settings.path.join(file)), 0o600, "{file}");
    }
}

#[test]
fn a_ballast_is_laid_when_there_is_room() {
    let mut world = World::new();
    drop(world.open());
    assert_eq!(fs::metadata(world.settings.path.join("ballast")).unwrap().len(), 16 << 20);
}

#[test]
fn a_second_process_is_told_who_holds_the_store() {
    let mut world = World::new();
    let _store = world.open();
    let error = world.try_open().unwrap_err();
    assert!(matches!(error, OpenError::Locked(_, Some(pid)) if pid == std::process::id()));
    let text = error.to_string();
    assert!(text.contains(world.settings.path.to_str().unwrap()), "{text}");
}

#[test]
fn files_that_are_not_whole_or_not_ours_are_refused_by_name() {
    type Spoil = fn(&mut Vec<u8>);
    type Expected = fn(&OpenError) -> bool;
    let cases: [(&str, Spoil, Expected); 5] = [
        (
            "was not written by pushyard",
            |file| *file = b"something else".to_vec(),
            |error| matches!(error, OpenError::NotOurs(_)),
        ),
        (
            "has lost its end",
            |file| file.truncate(5),
            |error| matches!(error, OpenError::Truncated(..)),
        ),
        (
            "has lost its end",
            |file| file.truncate(100),
            |error| matches!(error, OpenError::Truncated(..)),
        ),
        (
            "has lost its end",
            |file| file.truncate(file.len() / 2),
            |error| matches!(error, OpenError::Truncated(..)),
        ),
        (
            "is damaged",
            |file| file[4096..].iter_mut().for_each(|byte| *byte ^= 0x55),
            |error| matches!(error, OpenError::Damaged(..)),
        ),
    ];
    for (words, spoil, expected) in cases {
        let mut world = World::new();
        let store = world.open();
        for _ in 0..50 {
            let message = message(&world, 1);
            world.write(&store, vec![accept(&message)]);
        }
        store.close();
        drop(store);
        let path = world.settings.path.join("pushyard.redb");
        let mut file = fs::read(&path).unwrap();
        spoil(&mut file);
        fs::write(&path, &file).unwrap();
        let error = world.try_open().unwrap_err();
        assert!(expected(&error), "{words}: {error:?}");
        let text = error.to_string();
        assert!(text.contains(words) && text.contains(path.to_str().unwrap()), "{text}");
        assert_eq!(fs::read(&path).unwrap(), file, "it was not touched");
    }
}

#[test]
fn a_foreign_database_and_a_later_layout_are_refused() {
    let mut world = World::new();
    let path = world.settings.path.join("pushyard.redb");
    fs::create_dir_all(&world.settings.path).unwrap();
    let db = redb::Database::create(&path).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(TableDefinition::<u64, u64>::new("theirs")).unwrap().insert(1, 2).unwrap();
    txn.commit().unwrap();
    drop(db);
    assert!(matches!(world.try_open(), Err(OpenError::NotOurs(_))));

    fs::remove_file(&path).unwrap();
    drop(world.open());
    let db = redb::Database::create(&path).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(META).unwrap().insert(meta::VERSION, &2_u32.to_le_bytes()[..]).unwrap();
    txn.commit().unwrap();
    drop(db);
    let error = world.try_open().unwrap_err();
    assert!(matches!(error, OpenError::Newer(_, 2)), "{error:?}");
    assert!(error.to_string().contains("run that version"));
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let mut world = World::new();
    let file = world.settings.path.join("file");
    fs::create_dir_all(&world.settings.path).unwrap();
    fs::write(&file, "").unwrap();
    world.settings.path = file.join("data");
    let error = world.try_open().unwrap_err();
    assert!(matches!(error, OpenError::NoDirectory(..)), "{error:?}");
    assert!(error.to_string().contains(world.settings.path.to_str().unwrap()));
}

#[test]
fn durations_of_commits_are_told_once() {
    let mut world = World::new();
    let store = world.open();
    let message = message(&world, 1);
    world.write(&store, vec![accept(&message), sent(message.id.delivery(0)), settled(message.id)]);
    let times = store.commit_times();
    assert!(times.iter().any(|(rows, took)| *rows == 3 && *took > Duration::ZERO));
    assert!(store.commit_times().iter().all(|(rows, _)| *rows == 0));
}

fn states(store: &super::Embedded, id: crate::model::MessageId) -> Vec<(u16, State)> {
    store.progress(id).unwrap().into_iter().map(|(n, progress)| (n, progress.state)).collect()
}

fn intent(id: crate::model::MessageId, n: u16) -> Record {
    let intent =
        Intent { n: 1, provider: "fcm".into(), address: 0, at: id.accepted_at(), alone: false };
    Record::Intent(id.delivery(n), intent)
}

fn hour(message: &crate::model::Message) -> tables::Hour {
    tables::hour(message.id.as_u128())
}

impl World {
    /// Makes a row something that no version can decode.
    fn spoil(&self, table: &str, key: u128) {
        let db = redb::Database::create(self.settings.path.join("pushyard.redb")).unwrap();
        let txn = db.begin_write().unwrap();
        let mut rows = txn.open_table(Rows::new(table)).unwrap();
        assert!(rows.insert(key, &[9, 9][..]).unwrap().is_some());
        drop(rows);
        txn.commit().unwrap();
    }
}
