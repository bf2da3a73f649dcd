//! Each figure from a made-up run.

use std::collections::BTreeMap;

use toml::Spanned;

use super::*;
use crate::cli::load::control::Arrival;
use crate::cli::load::history::Attempt;
use crate::cli::load::tally::{Accepted, Call};

fn sample(at_s: u64, state: &str, requests: u64) -> Sample {
    Sample {
        at: Duration::from_secs(at_s),
        providers: vec![Provider {
            id: "apns".to_owned(),
            state: state.to_owned(),
            reason: (state == "ejected").then(|| "stall".to_owned()),
            in_flight: at_s * 2,
            limit: 8,
            ..Provider::default()
        }],
        vendors: ["apns", "fcm-oauth"]
            .map(|name| Vendor {
                name: name.to_owned(),
                requests,
                probes: 0,
                accepted: requests / 2,
            })
            .into(),
        unsettled: at_s * 1000,
        rss: Some(1_000_000 + at_s * 50_000),
    }
}

fn expect(figure: Figure) -> Expect {
    Expect {
        figure: Spanned::new(0..0, figure),
        of: Some("apns".to_owned()),
        reason: None,
        traffic: None,
        from: None,
        to: Some(Duration::from_secs(6)),
        baseline_to: None,
        unsettled_from: 2000,
        at_most: None,
        at_least: None,
    }
}

fn run() -> Run {
    let states = ["healthy", "ejected", "ejected", "probing", "ejected", "healthy"];
    let samples = (0..).zip(states).map(|(at, state)| sample(at, state, at * 10)).collect();
    Run { samples, ..Run::default() }
}

#[test]
fn figures_follow_from_the_samples() {
    let table = [
        (Figure::EjectedAfterS, 0, None, Some(1.0)),
        (Figure::EjectedAfterS, 3, Some("stall"), Some(1.0)),
        (Figure::EjectedAfterS, 0, Some("auth"), None),
        (Figure::PartEjectedAfterS, 0, None, None),
        (Figure::DegradedAfterS, 0, None, None),
        (Figure::HealthyAfterS, 1, None, Some(4.0)),
        (Figure::Ejections, 0, None, Some(2.0)),
        (Figure::StateChanges, 0, None, Some(4.0)),
        (Figure::Calls, 2, None, Some(30.0)),
        (Figure::CallsPerS, 2, None, Some(7.5)),
        (Figure::Refreshes, 3, None, Some(20.0)),
        (Figure::TakenPerS, 2, None, Some(3.75)),
        (Figure::TakenShare, 2, None, Some(0.5)),
        (Figure::RefusedShare, 2, None, Some(0.5)),
        (Figure::InFlightOverRamp, 0, None, Some(1.0)),
        (Figure::RssMaxMib, 0, None, None),
        (Figure::RssPerDeliveryBytes, 0, None, Some(50.0)),
        (Figure::GoneReported, 0, None, Some(0.0)),
        (Figure::Ambiguous, 0, None, Some(0.0)),
        (Figure::SentP99Ms, 0, None, None),
        (Figure::AcceptP99Ms, 0, None, None),
        (Figure::SentShare, 0, None, None),
        (Figure::FailoverP99Ms, 0, None, None),
        (Figure::CallsBeyondInFlight, 0, None, None),
    ];
    for (figure, from, reason, expected) in table {
        let reason = reason.map(str::to_owned);
        let from = Some(Duration::from_secs(from));
        let seen = run().figure(&Expect { reason, from, ..expect(figure) });
        assert_eq!(seen, expected, "{figure:?} from {from:?}");
    }
}

#[test]
fn ejection_of_a_part_is_one_of_its_own() {
    let app = |at_s, state: &str, app: &str| {
        let mut sample = sample(at_s, state, 0);
        let part = |part: &str, state: &str| Part {
            part: part.to_owned(),
            state: state.to_owned(),
            reason: Some("misconfigured".to_owned()),
        };
        sample.providers[0].keys = vec![part(WHOLE, state), part("app:shop", app)];
        sample
    };
    let samples = vec![
        app(0, "healthy", "healthy"),
        app(1, "healthy", "ejected"),
        app(2, "ejected", "ejected"),
        app(3, "healthy", "probing"),
        app(4, "healthy", "ejected"),
    ];
    let run = Run { samples, ..Run::default() };
    let seen = |figure, reason: Option<&str>| {
        run.figure(&Expect { reason: reason.map(str::to_owned), ..expect(figure) })
    };
    assert_eq!(seen(Figure::PartEjectedAfterS, Some("misconfigured")), Some(1.0));
    assert_eq!(seen(Figure::PartEjectedAfterS, Some("auth")), None);
    assert_eq!(seen(Figure::EjectedAfterS, None), Some(2.0));
    assert_eq!(seen(Figure::Ejections, None), Some(3.0));
}

#[test]
fn memory_that_never_had_so_many_deliveries_to_hold_has_no_growth() {
    for unsettled_from in [5000, 9000] {
        let expect = Expect { unsettled_from, ..expect(Figure::RssPerDeliveryBytes) };
        assert_eq!(run().figure(&expect), None, "{unsettled_from}");
    }
}

/// Two streams, a message a second each: `quick` takes 1 ms and goes to FCM, `slow`
/// takes 8 ms in the first two seconds and 24 ms later, and goes to APNs.
fn two_streams() -> Run {
    let mut run = Run { begun_ms: 1_000_000, ..Run::default() };
    let mut arrivals = Vec::new();
    for second in 0..5_u64 {
        let slow_ms = if second < 2 { 8 } else { 24 };
        for (name, vendor, took_ms, id) in [
            ("quick", "fcm", 1, u128::from(second)),
            ("slow", "apns", slow_ms, u128::from(second) + 100),
        ] {
            let at_ms = run.begun_ms + second * 1000;
            let at = Duration::from_secs(second);
            let one = Tally {
                calls: vec![Call { at, took_us: took_ms * 1000, message: id }],
                accepted: vec![Accepted { delivery: id, at_ms }],
                ..Tally::default()
            };
            run.tally.add(one.clone());
            run.streams.entry(name.to_owned()).or_default().add(one);
            let (delivery, vendor) = (id, vendor.to_owned());
            arrivals.push(Arrival { delivery, vendor, at_ms: at_ms + took_ms });
        }
    }
    run.ledger = Ledger::of(arrivals);
    run
}

#[test]
fn figures_of_messages_are_of_the_named_streams() {
    let seen = |figure, traffic: Option<&str>, from_s| {
        let traffic = traffic.map(|name| Spanned::new(0..0, name.to_owned()));
        let from = Some(Duration::from_secs(from_s));
        two_streams().figure(&Expect { traffic, from, ..expect(figure) }).map(f64::round)
    };
    assert_eq!(seen(Figure::SentP99Ms, None, 0), Some(24.0));
    assert_eq!(seen(Figure::SentP99Ms, Some("quick"), 0), Some(1.0));
    assert_eq!(seen(Figure::AcceptP99Ms, Some("slow"), 2), Some(24.0));
    assert_eq!(seen(Figure::SentShare, Some("slow"), 0), Some(1.0));
    assert_eq!(seen(Figure::SentShare, Some("quick"), 0), Some(0.0));
    let half = two_streams().figure(&expect(Figure::SentShare));
    assert_eq!(half, Some(0.5));
}

#[test]
fn ratio_is_to_the_same_streams_before_and_a_baseline_has_a_floor() {
    let seen = |figure, traffic: &str, baseline_s: Option<u64>, first_step_s: Option<u64>| {
        let run = Run { first_step: first_step_s.map(Duration::from_secs), ..two_streams() };
        let traffic = Some(Spanned::new(0..0, traffic.to_owned()));
        let baseline_to = baseline_s.map(Duration::from_secs);
        let from = Some(Duration::from_secs(2));
        let seen = run.figure(&Expect { traffic, baseline_to, from, ..expect(figure) });
        seen.map(|times| (times * 10.0).round() / 10.0)
    };
    for figure in [Figure::SentP99Times, Figure::AcceptP99Times] {
        assert_eq!(seen(figure, "slow", Some(2), None), Some(3.0));
        assert_eq!(seen(figure, "slow", None, Some(2)), Some(3.0));
        // 1 ms by 1 ms, which counts as 5.
        assert_eq!(seen(figure, "quick", Some(2), None), Some(0.2));
        assert_eq!(seen(figure, "slow", None, None), None);
    }
}

#[test]
fn attempts_are_those_of_the_messages_that_were_due_in_the_span() {
    let attempt = |provider: &str, outcome: &str, begun_ms, ended_ms| {
        let (provider, outcome) = (provider.to_owned(), outcome.to_owned());
        Attempt { provider, outcome, begun_ms, ended_ms }
    };
    let mut run = two_streams();
    let moved = |second: u64, gap_ms| {
        let at = run.begun_ms + second * 1000;
        vec![
            attempt("apns", "AuthFailed", at, at + 5),
            attempt("fcm", "Accepted", at + 5 + gap_ms, at + 9),
        ]
    };
    let histories = BTreeMap::from([(100, vec![moved(0, 40)]), (104, vec![moved(4, 3)])]);
    run.histories = Histories::of(histories.into_iter().collect());
    let from = |from_s| Some(Duration::from_secs(from_s));
    let seen = |from, figure| run.figure(&Expect { from, ..expect(figure) }).map(f64::round);
    assert_eq!(seen(from(0), Figure::FailoverP99Ms), Some(40.0));
    assert_eq!(seen(from(3), Figure::FailoverP99Ms), Some(3.0));
    assert_eq!(seen(from(0), Figure::CallsBeyondInFlight), Some(1.0));
    assert_eq!(seen(from(3), Figure::CallsBeyondInFlight), Some(0.0));
}

#[test]
fn gone_addresses_are_counted_by_provider() {
    let gone = ["apns", "fcm", "apns"].map(str::to_owned).into();
    let run = Run { gone, ..Run::default() };
    assert_eq!(run.figure(&expect(Figure::GoneReported)), Some(2.0));
}
