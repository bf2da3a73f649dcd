//! A backlog whose bodies are on disk.

use std::time::Duration;

use pushyard_providers::Outcome;

use super::testing::{House, MS};
use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// No body stays in memory longer than it must.
fn house() -> House {
    House::with(Settings { body_cache: 0, ..Settings::default() })
}

#[test]
fn what_waits_is_read_back_when_its_turn_comes_and_not_before() {
    let mut house = house();
    house.outage();
    let (mut calls, before) = (0, house.reads);
    for _ in 0..600 {
        house.submit(HOUR);
        house.pass(100 * MS);
        for attempt in std::mem::take(&mut house.calls) {
            calls += 1;
            house.answer(attempt, Outcome::Unavailable);
        }
    }
    assert!(calls > 10, "canaries went: {calls}");
    let read = house.reads - before;
    assert!(read <= calls + 3, "{read} bodies read for {calls} calls");
}

#[test]
fn in_a_backlog_three_of_the_newest_go_for_each_of_the_oldest_though_all_are_read_back() {
    let mut house = house();
    house.outage();
    let ttl = HOUR / 2;
    for _ in 0..200 {
        house.submit(ttl);
    }
    let mut tried = Vec::new();
    while house.now.instant < house.began + Duration::from_secs(40) {
        house.pass(100 * MS);
        for attempt in std::mem::take(&mut house.calls) {
            tried.push(house.engine.flights[&attempt].body.message().id);
            house.answer(attempt, Outcome::Unavailable);
        }
    }
    let mut sent = Vec::new();
    for _ in 0..3000 {
        house.pass(10 * MS);
        for attempt in std::mem::take(&mut house.calls) {
            let message = house.engine.flights[&attempt].body.message().clone();
            sent.extend((message.ttl == ttl).then_some(message.id));
            house.answer(attempt, Outcome::Accepted);
        }
    }
    assert_eq!(sent.len(), 200);
    // Those that were canaries wait for their backoff.
    sent.retain(|id| !tried.contains(id));
    let mut all = sent.clone();
    all.sort();
    let half = all.len() / 2;
    let newest = sent[..half].iter().filter(|id| **id >= all[half]).count();
    assert!(newest * 10 >= half * 7, "{newest} of the first {half} are of the newer half");
    assert_eq!(house.engine.bodies, 0);
}

#[test]
fn planning_anew_reads_each_message_once_and_keeps_none() {
    let mut house = house();
    house.outage();
    for _ in 0..100 {
        house.submit_to(10, HOUR);
    }
    let before = house.reads;
    house.engine.plan_anew(house.now);
    house.pass(500 * MS);
    assert!(house.engine.lanes.first_stale().is_none());
    let read = house.reads - before;
    assert!((95..=105).contains(&read), "{read} bodies read");
    assert!(house.engine.bodies < 10_000, "{} bytes of bodies are kept", house.engine.bodies);
}

#[test]
fn who_waits_no_more_is_forgotten_before_the_delivery_settles() {
    let mut house = house();
    let attempt = house.push();
    let id = house.engine.flights[&attempt].body.message().id;
    for token in 7..10 {
        house.on(Event::Wait(Token(token), id));
    }
    house.on(Event::Left([Token(7), Token(9)].into()));
    assert_eq!(house.engine.waiters[&id], [Token(8)]);
    house.on(Event::Left([Token(8)].into()));
    assert!(house.engine.waiters.is_empty());
}

#[test]
fn a_backlog_of_many_lanes_is_read_back_as_fast_as_the_vendor_takes_it() {
    let mut house = house();
    for n in 0..600 {
        house.submit_app(&format!("app{}", n % 30));
    }
    let mut rounds = 0;
    // The vendor needs 10 ms for each; the limit begins at 20 calls, and grows.
    while house.engine.deliveries.unsettled() > 0 && rounds < 200 {
        for attempt in std::mem::take(&mut house.calls) {
            house.answer(attempt, Outcome::Accepted);
        }
        house.pass(10 * MS);
        rounds += 1;
    }
    assert!(rounds <= 10, "{rounds} rounds");
}
