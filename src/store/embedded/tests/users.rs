//! Devices, gone addresses, and what is left of a user that is forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pushyard_providers::{Address, registry};
use redb::ReadableTableMetadata;

use super::world::{World, accept, message, outcome, sent, settled};
use crate::clock::Utc;
use crate::model::{Device, Gone, Message, Proof, State, Unresolved, User};
use crate::store::embedded::Embedded;
use crate::store::embedded::tables::KEPT_MESSAGES;
use crate::store::{Held, Record, Store};

const TOKEN: &str = "0123456789abcdef";

fn user(name: &str) -> User {
    User { client: "shop".into(), name: name.to_owned() }
}

fn address(token: &str) -> Address {
    let kind = registry::kind("fcm").unwrap();
    Address::new(kind, &[("token", token)], None, Some(1_000)).unwrap()
}

fn device(user: &User, name: &str) -> Record {
    let device = Device {
        name: name.to_owned(),
        addresses: vec![address(TOKEN)],
        region: Some("eu".to_owned()),
        metadata: BTreeMap::from([("os".to_owned(), "x".to_owned())]),
        updated_at: Utc::from_ms(2_000),
    };
    Record::Device(user.clone(), name.to_owned(), Some(Arc::new(device)))
}

fn gone(name: &str, token: &str, at: Utc) -> Gone {
    Gone {
        client: "shop".into(),
        provider: "fcm".into(),
        address: address(token),
        reference: Some("r".to_owned()),
        user: Some(name.to_owned()),
        at,
        vendor_at: Some(Utc::from_ms(3)),
        proof: Proof { status: Some(404), code: Some("X".into()), body: Some("words".into()) },
    }
}

fn all_gone(store: &Embedded) -> Vec<Gone> {
    let mut found = Vec::new();
    let each = &mut |gone| {
        found.push(gone);
        true
    };
    store.gone((Utc::default(), 0), each).unwrap();
    found
}

fn to(world: &World, users: &[&str]) -> Message {
    let mut message = message(world, users.len());
    for (recipient, name) in message.recipients.iter_mut().zip(users) {
        recipient.user = Some((*name).to_owned());
    }
    message
}

fn names(store: &Embedded, user: &User) -> Vec<String> {
    store.devices(user).unwrap().into_iter().map(|device| device.name).collect()
}

#[test]
fn devices_are_there_at_the_next_start_and_each_users_are_his_own() {
    let mut world = World::new();
    let store = world.open();
    let (bob, bobby) = (user("bob"), user("bobby"));
    let other = User { client: "bank".into(), name: "bob".to_owned() };
    let records = vec![
        device(&bob, "tablet"),
        device(&bob, "phone"),
        device(&bobby, "phone"),
        device(&other, "watch"),
    ];
    world.write(&store, records);
    world.write(&store, vec![Record::Device(bob.clone(), "tablet".to_owned(), None)]);
    drop(store);
    let store = world.open();
    assert_eq!(names(&store, &bob), ["phone"]);
    assert_eq!(names(&store, &other), ["watch"]);
    let kept = &store.devices(&bob).unwrap()[0];
    assert_eq!((kept.region.as_deref(), kept.updated_at), (Some("eu"), Utc::from_ms(2_000)));
    assert_eq!(kept.addresses[0].get("token"), Some(TOKEN));
    assert_eq!(kept.metadata["os"], "x");
}

#[test]
fn a_gone_address_is_listed_once_by_its_last_moment_until_it_is_healed_or_old() {
    let mut world = World::new();
    let store = world.open();
    let now = world.now().utc;
    let write = |gone: Gone| world.write(&store, vec![Record::Gone(Arc::new(gone))]);
    write(gone("bob", "a", now));
    write(gone("bob", "b", now.plus(Duration::from_millis(1))));
    write(gone("bob", "a", now.plus(Duration::from_millis(2))));
    drop(store);
    let store = world.open();
    let found = all_gone(&store);
    let tokens: Vec<_> = found.iter().map(|gone| gone.address.get("token").unwrap()).collect();
    assert_eq!(tokens, ["b", "a"]);
    assert_eq!(
        (&found[0].proof, found[0].vendor_at),
        (&gone("", "b", now).proof, Some(Utc::from_ms(3)))
    );
    assert_eq!(store.held(&user("bob"), 10).unwrap().gone, 2);
    world.write(&store, vec![Record::Healed(found[0].key())]);
    assert_eq!(store.gone_at(found[0].key()).unwrap(), None);
    assert_eq!(store.gone_at(found[1].key()).unwrap(), Some(found[1].at));
    world.pass(Gone::KEPT + Duration::from_secs(120));
    world.until(|| all_gone(&store).is_empty());
    assert_eq!(store.held(&user("bob"), 10).unwrap(), Held::default());
}

#[test]
fn what_is_held_of_a_user_goes_with_its_message() {
    let mut world = World::new();
    let store = world.open();
    let message = to(&world, &["bob"]);
    world.write(&store, vec![accept(&message), sent(message.id.delivery(0)), settled(message.id)]);
    assert_eq!(store.held(&user("bob"), 10).unwrap().messages, [message.id]);
    world.pass(Duration::from_secs(25 * 3600));
    world.until(|| store.held(&user("bob"), 10).unwrap() == Held::default());
    assert!(store.message(message.id).unwrap().is_none());
}

#[test]
fn erasing_leaves_no_trace_of_the_user_and_all_of_the_others() {
    let mut world = World::new();
    let mut store = world.open();
    let bob = user("bob");
    let (alone, mut both) = (to(&world, &["bob"]), to(&world, &["bob", "eve"]));
    both.unresolved.push(Unresolved { index: 2, user: "bob".into(), reason: "no_devices".into() });
    let now = world.now().utc;
    for message in [&alone, &both] {
        world.write(&store, vec![accept(message)]);
    }
    let failed = outcome(alone.id.delivery(0), State::Failed);
    let records = vec![
        failed,
        settled(alone.id),
        device(&bob, "phone"),
        Record::Gone(Arc::new(gone("bob", TOKEN, now))),
    ];
    world.write(&store, records);
    assert_eq!(store.figures().dead_letters, 1);
    assert_eq!(store.dead_of(alone.id).unwrap(), [0]);
    let held = store.held(&bob, 10).unwrap();
    assert_eq!((held.devices, held.gone, &*held.messages), (1, 1, &[alone.id, both.id][..]));

    // Twice: a crash after the first leaves the caller without an answer.
    for _ in 0..2 {
        world.write(&store, vec![Record::Erase(bob.clone(), held.messages.clone())]);
        drop(store);
        store = world.open();
        assert_eq!(store.held(&bob, 10).unwrap(), Held::default());
        assert!(names(&store, &bob).is_empty() && all_gone(&store).is_empty());
        let erased = store.message(alone.id).unwrap().unwrap();
        assert_eq!(erased.push.notification, None);
        assert!(
            erased.recipients[0].addresses.is_empty() && erased.recipients[0].reference.is_none()
        );
        assert_eq!(store.progress(alone.id).unwrap()[0].1.state, State::Failed);
        assert_eq!(store.figures().dead_letters, 0);
        let shared = store.message(both.id).unwrap().unwrap();
        assert!(shared.push.notification.is_some() && shared.unresolved.is_empty());
        assert!(shared.recipients[0].addresses.is_empty());
        assert_eq!(shared.recipients[1].user.as_deref(), Some("eve"));
        assert_eq!(shared.recipients[1].addresses.len(), 1);
    }
    assert_eq!(store.held(&user("eve"), 10).unwrap().messages, [both.id]);
}

#[test]
fn messages_are_walked_from_the_newest_through_hours_and_what_is_kept() {
    let mut world = World::new();
    let store = world.open();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let message = message(&world, 1);
        world.write(&store, vec![accept(&message)]);
        ids.insert(0, message.id);
        world.pass(Duration::from_secs(3700));
    }
    let walk = |before, most: usize| {
        let mut seen = Vec::new();
        let each = &mut |message: Message, size| {
            assert!(size > 500, "with the bytes of its record");
            seen.push(message.id);
            seen.len() < most
        };
        store.newest(before, each).unwrap();
        seen
    };
    assert_eq!(walk(None, 9), ids);
    assert_eq!(walk(Some(ids[0]), 1), ids[1..2]);
    // Unsettled ones are moved when their hours are drained.
    world.pass(Duration::from_secs(25 * 3600));
    let newest = message(&world, 1);
    world.write(&store, vec![accept(&newest)]);
    ids.insert(0, newest.id);
    let kept = |txn: &redb::ReadTransaction| Ok(txn.open_table(KEPT_MESSAGES)?.len()?);
    world.until(|| store.shared.read(kept).unwrap() == 3);
    assert_eq!(walk(None, 9), ids);
}
