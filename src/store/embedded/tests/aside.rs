//! What is stored beside messages: events for clients, dead letters to look at,
//! and what operators did.

use std::sync::Arc;

use super::world::{World, accept, message, outcome, sent, settled};
use crate::clock::Utc;
use crate::model::{
    DeliveryEvent, DeliveryId, EventId, EventKind, Message, Progress, Reason, State,
};
use crate::store::{Action, DeadFilter, Record, Store, Write};

fn event(world: &World, n: u64, delivery: DeliveryId, kind: EventKind) -> Record {
    let event = DeliveryEvent {
        id: EventId::from_u128(0).after(world.now().utc, n),
        kind,
        delivery,
        state: State::Sent,
        reason: None,
        provider: Some("fcm".into()),
        address: (kind == EventKind::AddressGone).then_some(0),
    };
    Record::Event("shop".into(), Box::new(event))
}

fn labelled(world: &World) -> Message {
    let mut message = message(world, 2);
    message.metadata.insert("campaign".to_owned(), "autumn".to_owned());
    message
}

#[test]
fn events_say_what_their_message_says_and_stay_until_they_are_told() {
    let mut world = World::new();
    let store = world.open();
    let message = labelled(&world);
    let (first, second) = (message.id.delivery(0), message.id.delivery(1));
    world.write(
        &store,
        vec![
            accept(&message),
            sent(first),
            event(&world, 1, first, EventKind::Sent),
            event(&world, 2, second, EventKind::AddressGone),
        ],
    );
    drop(store);
    let store = world.open();
    assert_eq!(store.figures().events, 2);
    assert_eq!(store.event_clients().unwrap(), [Arc::from("shop")]);
    let events = store.events("shop", None, 10).unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!((events[0].kind, events[0].delivery), (EventKind::Sent, first));
    assert_eq!(events[0].reference.as_deref(), Some("r"));
    assert_eq!(events[0].metadata, [("campaign".to_owned(), "autumn".to_owned())]);
    assert_eq!(events[0].address, None);
    let (kind, token) = events[1].address.clone().unwrap();
    assert_eq!((&*kind, &*token), ("apns", "0123456789abcdef"));
    assert_eq!(store.events("shop", Some(events[0].id), 10).unwrap()[0].id, events[1].id);
    assert!(store.events("other", None, 10).unwrap().is_empty());

    let told = store.write(vec![Write::EventsDone("shop".into(), vec![events[0].id])]);
    told.blocking_recv().unwrap();
    assert_eq!(store.events("shop", None, 10).unwrap().len(), 1);
    assert_eq!(store.figures().events, 1);
}

#[test]
fn every_client_with_events_is_found() {
    let mut world = World::new();
    let store = world.open();
    let message = message(&world, 1);
    world.write(&store, vec![accept(&message)]);
    for client in ["b", "a", "a.b"] {
        let Record::Event(_, event) = event(&world, 7, message.id.delivery(0), EventKind::Sent)
        else {
            panic!("an event")
        };
        world.write(&store, vec![Record::Event(client.into(), event)]);
    }
    let clients = store.event_clients().unwrap();
    assert_eq!(clients, ["a", "a.b", "b"].map(Arc::from));
}

#[test]
fn dead_letters_are_found_by_what_they_died_of() {
    let mut world = World::new();
    let store = world.open();
    let died = |delivery: DeliveryId, reason, provider: &str, at| {
        let progress = Progress {
            state: State::Failed,
            reason: Some(reason),
            provider: Some(provider.into()),
            ..Progress::queued(at)
        };
        Record::Progress(delivery, Arc::new(progress))
    };
    let (one, mut two) = (message(&world, 2), message(&world, 1));
    two.client = "bank".into();
    let at = Utc::from_ms;
    world.write(&store, vec![accept(&one), accept(&two)]);
    world.write(
        &store,
        vec![
            died(one.id.delivery(0), Reason::Invalid, "apns", at(1000)),
            died(one.id.delivery(1), Reason::Unreachable, "fcm", at(2000)),
            died(two.id.delivery(0), Reason::Invalid, "fcm", at(3000)),
            settled(one.id),
            settled(two.id),
        ],
    );
    let found = |filter: DeadFilter| -> Vec<DeliveryId> {
        let part = store.dead_letters(&filter, None, 10).unwrap();
        assert_eq!(part.next, None);
        part.items.into_iter().map(|letter| letter.delivery).collect()
    };
    let (a, b, c) = (one.id.delivery(0), one.id.delivery(1), two.id.delivery(0));
    let any = DeadFilter::default;
    assert_eq!(found(any()), [c, b, a], "the latest first");
    assert_eq!(found(DeadFilter { reason: Some(Reason::Invalid), ..any() }), [c, a]);
    assert_eq!(found(DeadFilter { provider: Some("fcm".into()), ..any() }), [c, b]);
    assert_eq!(found(DeadFilter { client: Some("bank".into()), ..any() }), [c]);
    let (since, until) = (Some(at(2000)), Some(at(3000)));
    assert_eq!(found(DeadFilter { since, until, ..any() }), [b]);

    let first = store.dead_letters(&any(), None, 2).unwrap();
    let rest = store.dead_letters(&any(), first.next, 2).unwrap();
    assert_eq!((first.items.len(), rest.items.len(), rest.next), (2, 1, None));

    store.write(vec![Write::Buried(b)]).blocking_recv().unwrap();
    assert!(!store.is_dead(b).unwrap() && store.is_dead(a).unwrap());
    assert_eq!(found(any()), [c, a]);
    assert_eq!(store.figures().dead_letters, 2);
    // Replayed, it is none any more.
    world.write(&store, vec![outcome(a, State::Waiting)]);
    assert_eq!(found(any()), [c]);
}

#[test]
fn what_operators_did_is_kept_over_restarts() {
    let mut world = World::new();
    let store = world.open();
    for n in 0..5 {
        let action = Action {
            at: Utc::from_ms(n),
            who: "ops".into(),
            what: format!("drain providers/{n}"),
            why: (n == 0).then(|| "maintenance".to_owned()),
        };
        store.write(vec![Write::Action(action)]).blocking_recv().unwrap();
    }
    drop(store);
    let store = world.open();
    let first = store.actions(None, 3).unwrap();
    let numbers: Vec<u64> = first.items.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [5, 4, 3]);
    let rest = store.actions(first.next, 3).unwrap();
    assert_eq!((rest.items.len(), rest.next), (2, None));
    assert_eq!(rest.items[1].1.why.as_deref(), Some("maintenance"));
}

#[test]
fn who_waits_for_a_store_that_has_ended_is_told_that_it_will_never_be() {
    let mut world = World::new();
    let store = world.open();
    store.close();
    assert!(store.write(Vec::new()).blocking_recv().is_err());
}
