//! One part of a vendor fails: an app with a bad key, a push service that is down.

use std::time::Duration;

use pushyard_providers::{Answer, Outcome, Part};

use super::testing::{House, MS};
use super::*;
use crate::routing::Status;

/// Ten apps get a push each every 100 ms for two minutes; the first one's are answered
/// so. Returns when a push of each app was called, and how long after it came.
fn ten_apps(house: &mut House, bad: Outcome) -> Vec<Vec<(u64, u64)>> {
    let mut called = vec![Vec::new(); 10];
    for _ in 0..1200 {
        for app in 0..10 {
            house.submit_app(&format!("app{app}"));
            answer(house, bad, &mut called);
        }
        house.pass(100 * MS);
        answer(house, bad, &mut called);
    }
    called
}

fn answer(house: &mut House, bad: Outcome, called: &mut [Vec<(u64, u64)>]) {
    while !house.calls.is_empty() {
        for attempt in std::mem::take(&mut house.calls) {
            let message = house.engine.flights[&attempt].body.message();
            let app = message.recipients[0].addresses[0].get("app").unwrap_or_default();
            let waited = house.now.utc.since(message.id.accepted_at());
            let at = app.strip_prefix("app").and_then(|n| n.parse::<usize>().ok()).unwrap();
            let part = Part::app(app);
            called[at].push((house.ms(), waited.as_millis() as u64));
            let outcome = if at == 0 { bad } else { Outcome::Accepted };
            house.heard = house.now.instant;
            house.on(Event::Answered(attempt, Answer::new(outcome).about(part)));
        }
    }
}

#[test]
fn one_part_of_ten_is_down_and_nothing_changes_for_the_nine() {
    let mut sound = House::new();
    let before = ten_apps(&mut sound, Outcome::Accepted);
    for bad in [Outcome::Unavailable, Outcome::AuthFailed, Outcome::Ambiguous] {
        let mut house = House::new();
        let called = ten_apps(&mut house, bad);
        assert_eq!(called[1..], before[1..], "{bad:?}: each of the nine's goes when it went");
        assert!(matches!(house.status(), Status::Healthy { .. }), "{bad:?}: {:?}", house.status());
        let canaries = called[0].iter().filter(|(at, _)| *at >= 1000).count();
        assert!((1..=125).contains(&canaries), "{bad:?}: {canaries} canaries in two minutes");
        assert!(house.engine.deliveries.unsettled() >= 1000, "{bad:?}: those of the one wait");
    }
}

#[test]
fn a_part_that_comes_back_is_sent_what_waited_and_the_others_wait_for_nothing() {
    let mut house = House::new();
    let _ = ten_apps(&mut house, Outcome::Unavailable);
    let mut called = vec![Vec::new(); 10];
    for _ in 0..900 {
        house.submit_app("app1");
        answer(&mut house, Outcome::Accepted, &mut called);
        house.pass(100 * MS);
        answer(&mut house, Outcome::Accepted, &mut called);
    }
    assert!(called[1].iter().all(|(_, waited)| *waited == 0));
    assert_eq!(house.engine.deliveries.unsettled(), 0);
    assert!(house.now.instant.duration_since(house.began) <= Duration::from_secs(211));
}
