//! What the engine does by time alone: silence, and lives that end in an outage;
//! with time moved by hand.

use std::time::Duration;

use pushyard_providers::{Outcome, Part};

use super::testing::{House, MS, VENDOR};
use super::*;
use crate::dispatch::{Operation, Wish};
use crate::model::OnAmbiguous;
use crate::routing::Status;

#[test]
fn three_attempts_in_silence_eject_the_vendor_and_are_cut() {
    let mut house = House::new();
    let attempts = [house.push(), house.push(), house.push()];
    house.pass(1990 * MS);
    assert_eq!(house.sounds, [1000]);
    assert!(house.cuts.is_empty() && !house.ejected());
    house.pass(20 * MS);
    assert!(house.ejected(), "{:?}", house.status());
    let cut: Vec<_> = house.cuts.iter().map(|(_, attempt, _)| *attempt).collect();
    assert_eq!(cut, attempts);
    assert_eq!(house.cut_at(), [2000; 3]);
    // They are cut once, whatever their answers need to arrive.
    house.pass(3000 * MS);
    assert_eq!(house.cuts.len(), 3);
    for (_, attempt, cut) in house.cuts.clone() {
        house.on(Event::Answered(attempt, cut.answer(true)));
    }
    assert!(house.ejected());
}

#[test]
fn what_was_called_before_the_vendor_fell_silent_is_in_that_silence_too() {
    let mut house = House::new();
    for _ in 0..3 {
        house.push();
    }
    house.pass(500 * MS);
    house.heard = house.now.instant;
    house.pass(1990 * MS);
    assert!(!house.ejected());
    house.pass(20 * MS);
    assert!(house.ejected());
    assert_eq!(house.cut_at(), [2500; 3]);
}

#[test]
fn two_attempts_have_a_second_more_and_are_one_failure() {
    let mut house = House::new();
    house.push();
    house.push();
    house.pass(2990 * MS);
    assert!(house.cuts.is_empty());
    house.pass(20 * MS);
    assert_eq!(house.cut_at(), [3000; 2]);
    assert_eq!(house.cuts[0].2, Cut::Silence(Part::Provider));
    assert_eq!(house.cuts[1].2, Cut::Silence(Part::Device), "of no key");
    assert!(!house.ejected());
}

#[test]
fn a_vendor_that_lives_is_asked_again_and_never_cut() {
    let mut house = House::new();
    house.lives = true;
    for _ in 0..5 {
        house.push();
    }
    house.pass(Duration::from_secs(9));
    assert!(house.cuts.is_empty() && !house.ejected());
    assert_eq!(house.sounds, [1000, 2001, 3002, 4003, 5004, 6005, 7006, 8007]);
}

#[test]
fn what_is_usual_there_is_no_silence() {
    let mut house = House::new();
    for _ in 0..10 {
        let attempt = house.push();
        house.pass(1000 * MS);
        house.answer(attempt, Outcome::Accepted);
    }
    let asked = house.sounds.len();
    let began = house.ms();
    for _ in 0..3 {
        house.push();
    }
    house.pass(3990 * MS);
    assert_eq!(house.sounds[asked..], [began + 2000]);
    assert!(!house.ejected());
    house.pass(20 * MS);
    assert!(house.ejected());
}

#[test]
fn our_own_pause_is_not_the_vendors() {
    let mut house = House::new();
    for _ in 0..3 {
        house.push();
    }
    // The process stood still: what the vendor said is not read yet.
    house.now = house.now.plus(Duration::from_secs(5));
    house.listen();
    house.on(Event::Tick);
    assert!(house.cuts.is_empty() && house.sounds.is_empty());
    house.pass(1990 * MS);
    assert!(house.cuts.is_empty());
    house.pass(20 * MS);
    assert!(house.ejected());
}

#[test]
fn a_vendor_that_shows_no_bytes_is_never_stalled() {
    let mut house = House::new();
    house.engine.silences[0] = stall::Silence::default();
    for _ in 0..5 {
        house.push();
    }
    for _ in 0..20 {
        house.now = house.now.plus(500 * MS);
        house.on(Event::Tick);
    }
    assert!(house.cuts.is_empty() && house.sounds.is_empty() && !house.ejected());
}

#[test]
fn an_operators_ejection_cuts_what_is_in_flight_and_blames_no_key() {
    let mut house = House::new();
    let attempts: Vec<AttemptId> = (0..8).map(|_| house.push()).collect();
    let order = |wish| {
        let id = "vendor".into();
        let order = Operation::Provider { id, wish, reason: None, until: None };
        Event::Operate(Token(0), order)
    };
    house.on(order(Wish::Drain));
    assert!(house.cuts.is_empty(), "a drained provider's calls end by themselves");
    house.on(order(Wish::Eject));
    house.on(order(Wish::Eject));
    let cut: Vec<_> = house.cuts.iter().map(|(_, attempt, _)| *attempt).collect();
    assert_eq!(cut, attempts, "each once");
    let learnt = |house: &House| {
        let lane = house.engine.board.lane(VENDOR);
        let allowed = house.engine.board.allowed(VENDOR, house.now.instant);
        (allowed, lane.latency.rtt(), lane.in_flight)
    };
    let before = learnt(&house);
    for (_, attempt, cut) in house.cuts.clone() {
        house.on(Event::Answered(attempt, cut.answer(true)));
    }
    assert!(matches!(house.status(), Status::Healthy { .. }), "{:?}", house.status());
    assert_eq!(learnt(&house), (before.0, before.1, 0), "nor the limit and the latency");
}

/// Lets time pass, and each call fail at once; when a last try was made.
fn last_tries(house: &mut House, time: Duration) -> Vec<u64> {
    let mut tried = Vec::new();
    let until = house.now.instant + time;
    while house.now.instant < until {
        house.pass(10 * MS);
        for attempt in std::mem::take(&mut house.calls) {
            if house.engine.flights[&attempt].permit.is_last_try() {
                tried.push(house.ms());
            }
            house.answer(attempt, Outcome::Unavailable);
        }
    }
    tried
}

#[test]
fn in_an_outage_each_delivery_is_tried_once_more_before_its_life_ends() {
    let mut house = House::new();
    house.outage();
    for _ in 0..3 {
        house.submit(Duration::from_secs(20));
    }
    let tried = last_tries(&mut house, Duration::from_secs(21));
    // Their lives end 20.1 s after the beginning.
    assert_eq!(tried.len(), 3, "{tried:?}");
    assert!((15_100..15_500).contains(&tried[0]), "{tried:?}");
    assert!(tried.windows(2).all(|pair| pair[1] - pair[0] >= 100), "{tried:?}");
    assert_eq!(house.engine.deliveries.unsettled(), 5, "those of an hour wait on");
}

#[test]
fn a_flood_of_deliveries_that_expire_does_not_flood_the_vendor() {
    let mut house = House::new();
    house.outage();
    for _ in 0..500 {
        house.submit(Duration::from_secs(4));
    }
    let tried = last_tries(&mut house, Duration::from_secs(5)).len();
    assert!((30..=40).contains(&tried), "ten a second for four seconds: {tried}");
}

#[test]
fn a_canary_is_one_that_may_be_sent_twice_if_there_is_any() {
    let mut house = House::new();
    house.outage();
    // The first canary may go at once.
    house.submit(Duration::from_secs(3600));
    let ttl = Duration::from_secs(1800);
    for on_ambiguous in [OnAmbiguous::Stop, OnAmbiguous::Stop, OnAmbiguous::Resend] {
        house.on_ambiguous = on_ambiguous;
        house.submit(ttl);
    }
    let mut sent = Vec::new();
    while sent.len() < 3 {
        house.pass(100 * MS);
        for attempt in std::mem::take(&mut house.calls) {
            let body = house.engine.flights[&attempt].body.clone();
            // Others are those of the outage.
            sent.extend((body.message().ttl == ttl).then_some(body.message().on_ambiguous));
            house.answer(attempt, Outcome::Accepted);
        }
    }
    assert_eq!(sent, [OnAmbiguous::Resend, OnAmbiguous::Stop, OnAmbiguous::Stop]);
}
