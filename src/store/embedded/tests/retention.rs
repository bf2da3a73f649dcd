//! What goes with time, and what stays.

use std::time::Duration;

use super::world::{
    World, accept, message, message_with_key, outcome, outcome_at, recovered, sent, settled,
};
use crate::model::{Message, State};
use crate::store::Store;
use crate::store::embedded::Embedded;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn is_there(store: &Embedded, message: &Message) -> bool {
    store.message(message.id).unwrap().is_some()
}

#[test]
fn settled_messages_go_and_the_unsettled_and_the_dead_stay_and_can_be_changed() {
    let mut world = World::new();
    let mut store = world.open();
    let messages: Vec<_> = (0..4).map(|_| message(&world, 2)).collect();
    let [done, dead, open, parked] = &messages[..] else { unreachable!() };
    for message in &messages {
        world.write(&store, vec![accept(message)]);
    }
    for message in [done, dead] {
        let first = message.id.delivery(0);
        world.write(&store, vec![sent(first)]);
    }
    world.write(&store, vec![sent(done.id.delivery(1)), settled(done.id)]);
    world.write(&store, vec![outcome(dead.id.delivery(1), State::Failed), settled(dead.id)]);
    world.write(&store, vec![outcome(parked.id.delivery(1), State::Waiting)]);

    world.pass(DAY + Duration::from_secs(120));
    world.until(|| !is_there(&store, done));
    for again in 0..2 {
        assert!(is_there(&store, dead) && is_there(&store, open) && is_there(&store, parked));
        assert!(store.progress(done.id).unwrap().is_empty());
        assert_eq!(store.progress(dead.id).unwrap().len(), 2);
        assert_eq!(store.progress(parked.id).unwrap().len(), 1);
        assert_eq!(recovered(&store).len(), 2, "time {again}");
        assert_eq!(store.figures().dead_letters, 1);
        drop(store);
        store = world.open();
    }

    // A replay opens the message again where it is now.
    let now = world.now().utc;
    world.write(&store, vec![outcome_at(dead.id.delivery(1), State::Waiting, now)]);
    assert_eq!(recovered(&store).len(), 3);
    world.write(&store, vec![outcome_at(dead.id.delivery(1), State::Failed, now)]);
    world.write(&store, vec![settled(dead.id)]);
    assert_eq!(store.progress(dead.id).unwrap()[1].1.state, State::Failed);
    // A receipt for what is gone brings nothing back.
    world.write(&store, vec![outcome(done.id.delivery(0), State::Delivered)]);
    assert!(store.progress(done.id).unwrap().is_empty());

    // Settled at last, it stays readable as long as any other.
    world.write(&store, vec![outcome_at(parked.id.delivery(1), State::Sent, now)]);
    world.write(&store, vec![settled(parked.id)]);
    world.pass(Duration::from_secs(3600 + 120));
    world.write(&store, vec![settled(done.id)]);
    assert!(is_there(&store, parked));
    world.pass(DAY);
    world.until(|| !is_there(&store, parked));
    assert!(is_there(&store, dead) && is_there(&store, open));

    // Dead letters have a time of their own.
    world.pass(6 * DAY);
    world.until(|| store.figures().dead_letters == 0);
    world.pass(Duration::from_secs(3600));
    world.until(|| !is_there(&store, dead));
    assert!(is_there(&store, open), "what was accepted and has not settled stays");
}

#[test]
fn an_hour_of_many_messages_goes_in_steps_and_leaves_no_table() {
    let mut world = World::new();
    let store = world.open();
    let messages: Vec<_> = (0..1500).map(|_| message(&world, 4)).collect();
    for some in messages.chunks(100) {
        let records = some.iter().flat_map(|message| {
            let sent = (0..4).map(|n| sent(message.id.delivery(n)));
            std::iter::once(accept(message)).chain(sent).chain([settled(message.id)])
        });
        world.write(&store, records.collect());
    }
    world.pass(2 * DAY);
    let hours = || {
        let tables = store.shared.read(|txn| {
            let names = txn.list_tables()?.map(|table| redb::TableHandle::name(&table).to_owned());
            Ok(names.filter(|name| super::super::tables::hour_of_name(name).is_some()).count())
        });
        tables.unwrap()
    };
    assert!(hours() > 0);
    world.until(|| hours() == 0);
    assert!(messages.iter().all(|message| !is_there(&store, message)));
}

#[test]
fn the_oldest_go_first_when_there_are_too_many_bytes() {
    let mut world = World::new();
    world.settings.max_bytes = 600_000;
    let store = world.open();
    let mut messages = Vec::new();
    for _ in 0..10 {
        for _ in 0..100 {
            let message = message(&world, 1);
            let delivery = message.id.delivery(0);
            world.write(&store, vec![accept(&message), sent(delivery), settled(message.id)]);
            messages.push(message);
        }
        world.pass(Duration::from_secs(61));
    }
    world.until(|| !is_there(&store, &messages[50]));
    assert!(is_there(&store, messages.last().unwrap()));
    let kept = messages.iter().skip_while(|message| !is_there(&store, message));
    assert!(kept.clone().all(|message| is_there(&store, message)), "oldest first, without a gap");
    // A step more than needed may have gone.
    assert!(kept.count() > 400);
}

#[test]
fn too_many_dead_letters_are_let_go_of_oldest_first() {
    let mut world = World::new();
    world.settings.max_dead_letters = 5;
    let store = world.open();
    let messages: Vec<_> = (0..9).map(|_| message(&world, 1)).collect();
    for message in &messages {
        let failed = outcome_at(message.id.delivery(0), State::Failed, world.now().utc);
        world.write(&store, vec![accept(message), failed, settled(message.id)]);
    }
    world.pass(DAY + Duration::from_secs(120));
    world.until(|| store.figures().dead_letters == 5);
    world.pass(DAY + Duration::from_secs(3600));
    world.until(|| !is_there(&store, &messages[3]));
    assert!(messages[4..].iter().all(|message| is_there(&store, message)));
}

#[test]
fn keys_outlive_the_messages_that_brought_them() {
    let mut world = World::new();
    world.settings.retention = Duration::from_secs(1800);
    let mut store = world.open();
    let message = message_with_key(&world, 7);
    let key = message.idempotency.unwrap().key;
    let delivery = message.id.delivery(0);
    world.write(&store, vec![accept(&message), sent(delivery), settled(message.id)]);
    world.pass(Duration::from_secs(3000));
    world.until(|| !is_there(&store, &message));
    for _ in 0..2 {
        assert_eq!(store.by_idempotency_key(&key).unwrap(), Some(message.id));
        drop(store);
        store = world.open();
    }
}
