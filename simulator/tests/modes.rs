//! What a whole vendor can be made to do.

use std::time::Duration;

use pushyard_simulator::{Behaviour, Mode};
use tokio::net::TcpStream;

use crate::harness::{Client, Login, Push, Sim, bearer, now, soon, until};

const TOKEN: &str = "00112233445566778899aabbccddeeff";

fn set(sim: &Sim, vendor: &str, behaviour: Behaviour) {
    sim.control().set(vendor, behaviour).unwrap();
}

#[tokio::test]
async fn failing_vendor_answers_in_its_own_form() {
    let sim = Sim::start().await;
    let apns = sim.apns().await;
    let (fcm, bearer) = sim.fcm().await;
    for (status, reason, code) in [
        (None, "InternalServerError", "INTERNAL"),
        (Some(503), "ServiceUnavailable", "UNAVAILABLE"),
    ] {
        let behaviour =
            Behaviour { status, retry_after_s: Some(7), ..Behaviour::of(Mode::Failing) };
        set(&sim, "*", behaviour);
        let answer = apns.answer(&sim.push(TOKEN)).await;
        assert_eq!(answer.status.as_u16(), status.unwrap_or(500));
        assert_eq!((answer.reason().as_str(), answer.header("retry-after")), (reason, "7"));
        let answer = fcm.answer(&Push::fcm(&bearer, "t")).await;
        assert_eq!(answer.status.as_u16(), status.unwrap_or(500));
        assert_eq!(answer.fcm_code().as_deref(), Some(code));
    }
    assert_eq!(sim.control().summary().unique, 0);
}

#[tokio::test]
async fn throttling_vendor_says_when_to_come_back() {
    let sim = Sim::start().await;
    let apns = sim.apns().await;
    let (fcm, bearer) = sim.fcm().await;
    for retry_after_s in [None, Some(20)] {
        let behaviour = Behaviour { retry_after_s, ..Behaviour::of(Mode::Throttling) };
        set(&sim, "*", behaviour);
        let shown = retry_after_s.map_or(String::new(), |seconds: u64| seconds.to_string());
        let answer = apns.answer(&sim.push(TOKEN)).await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (429, "TooManyRequests"));
        assert_eq!(answer.header("retry-after"), shown);
        let answer = fcm.answer(&Push::fcm(&bearer, "t")).await;
        assert_eq!(answer.status, 429);
        assert_eq!(answer.header("retry-after"), shown);
        assert_eq!(answer.json()["error"]["details"][0]["reason"], "RATE_LIMIT_EXCEEDED");
        assert_eq!(answer.fcm_code(), None);
    }
}

#[tokio::test]
async fn unauthorised_vendor_refuses_the_credential() {
    let sim = Sim::start().await;
    let apns = sim.apns().await;
    let (fcm, bearer) = sim.fcm().await;
    set(&sim, "*", Behaviour::of(Mode::Unauthorised));
    let answer = apns.answer(&sim.push(TOKEN)).await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (403, "InvalidProviderToken"));
    let answer = fcm.answer(&Push::fcm(&bearer, "t")).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["error"]["status"]),
        (401, &"UNAUTHENTICATED".into())
    );
}

#[tokio::test]
async fn spare_key_stays_good_while_the_other_is_revoked() {
    let sim = Sim::start().await;
    set(&sim, "apns", Behaviour::of(Mode::Unauthorised));
    let key = sim.file("AuthKey_SIMSPARE01.p8");
    let spare = sim.push(TOKEN).header("authorization", &bearer(&key, "SIMSPARE01", now()));
    assert_eq!(sim.apns().await.answer(&spare).await.status, 200);
    let refused = sim.apns().await.answer(&sim.push(TOKEN)).await;
    assert_eq!(refused.reason(), "InvalidProviderToken");
}

#[tokio::test]
async fn latency_comes_before_taking() {
    let sim = Sim::start().await;
    let (fcm, bearer) = sim.fcm().await;
    for mode in [Mode::Slow, Mode::Healthy] {
        let behaviour =
            Behaviour { latency: Some(Duration::from_millis(100)), ..Behaviour::of(mode) };
        set(&sim, "fcm", behaviour);
        let taken = sim.vendor("fcm").accepted;
        let begun = fcm.begin(&Push::fcm(&bearer, "t"));
        until("it is there", || sim.vendor("fcm").in_flight == 1).await;
        assert_eq!(sim.vendor("fcm").accepted, taken);
        assert_eq!(begun.end().await.unwrap().status, 200);
        assert_eq!(sim.vendor("fcm").accepted, taken + 1);
    }
}

#[tokio::test]
async fn latency_is_spread_evenly() {
    let sim = Sim::start().await;
    let (fcm, bearer) = sim.fcm().await;
    // Of ten hours' spread no draw is soon.
    let behaviour =
        Behaviour { latency_spread: Duration::from_secs(36_000), ..Behaviour::default() };
    set(&sim, "fcm", behaviour);
    let begun: Vec<_> = (0..5).map(|_| fcm.begin(&Push::fcm(&bearer, "t"))).collect();
    until("they are there", || sim.vendor("fcm").in_flight == 5).await;
    assert_eq!(sim.vendor("fcm").accepted, 0);
    drop(begun);
}

#[tokio::test]
async fn acknowledgement_comes_after_taking() {
    let sim = Sim::start().await;
    let (fcm, bearer) = sim.fcm().await;
    let behaviour = Behaviour { ack_latency: Duration::from_millis(100), ..Behaviour::default() };
    set(&sim, "fcm", behaviour);
    let mut begun = fcm.begin(&Push::fcm(&bearer, "t"));
    until("it is taken", || sim.vendor("fcm").accepted == 1).await;
    assert!(!begun.has_ended());
    assert_eq!(begun.end().await.unwrap().status, 200);
}

#[tokio::test]
async fn share_leaves_the_rest_healthy() {
    let sim = Sim::start().await;
    let (fcm, bearer) = sim.fcm().await;
    let behaviour = Behaviour { share: 0.3, ..Behaviour::of(Mode::Failing) };
    set(&sim, "fcm", behaviour);
    let mut failed = 0;
    for _ in 0..200 {
        failed += u32::from(fcm.answer(&Push::fcm(&bearer, "t")).await.status == 500);
    }
    assert!((30..90).contains(&failed), "{failed} of 200");
    assert_eq!(sim.vendor("fcm").accepted, u64::from(200 - failed));
}

#[tokio::test]
async fn behaviour_ends_by_itself() {
    let sim = Sim::start().await;
    let (fcm, bearer) = sim.fcm().await;
    let behaviour =
        Behaviour { lasts: Some(Duration::from_millis(100)), ..Behaviour::of(Mode::Failing) };
    set(&sim, "fcm", behaviour);
    assert_eq!(fcm.answer(&Push::fcm(&bearer, "t")).await.status, 500);
    until("it is healthy", || sim.vendor("fcm").behaviour.mode == Mode::Healthy).await;
    assert_eq!(fcm.answer(&Push::fcm(&bearer, "t")).await.status, 200);
}

#[tokio::test]
async fn limit_per_second_holds_in_any_mode() {
    let sim = Sim::start().await;
    let (fcm, bearer) = sim.fcm().await;
    let behaviour = Behaviour { limit_per_second: Some(3), ..Behaviour::default() };
    set(&sim, "fcm", behaviour);
    let mut throttled = 0;
    for _ in 0..12 {
        throttled += u32::from(fcm.answer(&Push::fcm(&bearer, "t")).await.status == 429);
    }
    // On a machine that is slow enough the burst may span two seconds.
    assert!(throttled >= 6, "{throttled}");
}

#[tokio::test]
async fn reset_and_goaway_take_nothing() {
    let sim = Sim::start().await;
    let (_, bearer) = sim.fcm().await;
    for mode in [Mode::Reset, Mode::Goaway] {
        sim.control().set_mode("*", mode).unwrap();
        for (vendor, push) in [("apns", sim.push(TOKEN)), ("fcm", Push::fcm(&bearer, "t"))] {
            let client = Client::connect(&sim, vendor, Login::None, &[b"h2"]).await.unwrap();
            let error = client.send(&push).await.unwrap_err();
            assert_eq!(error.is_go_away() && error.is_remote(), mode == Mode::Goaway, "{error}");
        }
    }
    assert_eq!(sim.control().summary().unique, 0);
}

#[tokio::test]
async fn blackhole_swallows_old_and_new_connections() {
    let sim = Sim::with(|settings| settings.fcm_max_streams = 50).await;
    let (old, bearer) = sim.fcm().await;
    old.answer(&Push::fcm(&bearer, "t")).await;
    // Begun before, and not taken yet: it never will be.
    let slow = old.begin(&Push::fcm(&bearer, "slow50-"));
    until("it is there", || sim.vendor("fcm").in_flight == 1).await;
    sim.control().set_mode("fcm", Mode::Blackhole).unwrap();
    until("it is given up", || sim.vendor("fcm").in_flight == 0).await;

    let mut swallowed = old.begin(&Push::fcm(&bearer, "t"));
    // A new one is accepted, with TLS, and hears nothing, not even settings.
    let new = Client::connect(&sim, "fcm", Login::None, &[b"h2"]).await.unwrap();
    let mut unheard = new.begin(&Push::fcm(&bearer, "t"));
    until("it is accepted", || sim.vendor("fcm").connections >= 2).await;
    assert_ne!(new.stream_limit(), 50);
    assert!(!swallowed.has_ended() && !unheard.has_ended());

    sim.control().set_mode("fcm", Mode::Healthy).unwrap();
    assert!(swallowed.end().await.is_err(), "what was sent into it is lost");
    assert!(unheard.end().await.is_err());
    assert!(slow.end().await.is_err());
    let fresh = Client::connect(&sim, "fcm", Login::None, &[b"h2"]).await.unwrap();
    assert_eq!(fresh.answer(&Push::fcm(&bearer, "t")).await.status, 200);
    assert_eq!(sim.vendor("fcm").accepted, 2);
}

#[tokio::test]
async fn blackhole_answers_no_ping() {
    let sim = Sim::start().await;
    let stream = crate::harness::tls(&sim, "apns", Login::None, &[b"h2"]).await.unwrap();
    let (_send, mut connection) = h2::client::handshake(stream).await.unwrap();
    let mut ping = connection.ping_pong().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    soon(ping.ping(h2::Ping::opaque())).await.unwrap();
    sim.control().set_mode("apns", Mode::Blackhole).unwrap();
    let unanswered =
        tokio::time::timeout(Duration::from_millis(200), ping.ping(h2::Ping::opaque()));
    assert!(unanswered.await.is_err());
}

#[tokio::test]
async fn refusing_vendor_closes_and_refuses_and_comes_back_on_its_port() {
    let sim = Sim::start().await;
    let mut client = sim.apns().await;
    client.answer(&sim.push(TOKEN)).await;
    let address = sim.address("apns");
    for _ in 0..2 {
        sim.control().set_mode("apns", Mode::Refusing).unwrap();
        let _ = client.closed().await;
        // While the door shuts an attempt may still be let in, or be reset.
        let refused = async {
            loop {
                let attempt = TcpStream::connect(&address).await.map_err(|error| error.kind());
                if attempt.is_err_and(|kind| kind == std::io::ErrorKind::ConnectionRefused) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        soon(refused).await;
        sim.control().set_mode("apns", Mode::Healthy).unwrap();
        let open = async {
            while TcpStream::connect(&address).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        soon(open).await;
        client = sim.apns().await;
        assert_eq!(client.answer(&sim.push(TOKEN)).await.status, 200);
    }
}

#[tokio::test]
async fn unreachable_vendor_leaves_attempts_unanswered() {
    let sim = Sim::start().await;
    let old = sim.apns().await;
    old.answer(&sim.push(TOKEN)).await;
    let address = sim.address("apns");
    sim.control().set_mode("apns", Mode::Unreachable).unwrap();
    // Attempts before the door has shut may still succeed, or be refused while
    // it changes; one that neither succeeds nor fails is what is wanted.
    let unanswered = async {
        loop {
            let attempt = TcpStream::connect(&address);
            if tokio::time::timeout(Duration::from_millis(150), attempt).await.is_err() {
                return;
            }
        }
    };
    soon(unanswered).await;
    let silent = old.begin(&sim.push(TOKEN));
    let waiting = TcpStream::connect(&address);
    sim.control().set_mode("apns", Mode::Healthy).unwrap();
    // The kernel tries again after a second, and is let in then.
    soon(waiting).await.unwrap();
    assert!(silent.end().await.is_err(), "what was sent into it is lost");
    let client = sim.apns().await;
    assert_eq!(client.answer(&sim.push(TOKEN)).await.status, 200);
    assert_eq!(sim.vendor("apns").accepted, 2);
}

#[tokio::test]
async fn token_endpoint_fails_alone() {
    let sim = Sim::start().await;
    let (fcm, bearer) = sim.fcm().await;
    let claims = crate::harness::Claims::good(&sim);
    let table = [
        (Mode::Failing, 500, "internal_failure"),
        (Mode::Throttling, 429, "rate_limit_exceeded"),
        (Mode::Unauthorised, 400, "invalid_grant"),
    ];
    for (mode, status, error) in table {
        sim.control().set_mode("fcm-oauth", mode).unwrap();
        let answer = fcm.token(&sim, &claims).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (status, &error.into()));
        assert_eq!(fcm.answer(&Push::fcm(&bearer, "t")).await.status, 200);
    }
    assert_eq!(sim.vendor("fcm-oauth").requests, 4);
    assert_eq!(sim.vendor("fcm").requests, 3);
}

#[tokio::test]
async fn handshake_is_refused_with_an_alert() {
    let sim = Sim::start().await;
    let mut old = sim.apns().await;
    set(&sim, "apns", Behaviour::of(Mode::Tls));
    let _ = old.closed().await;
    let refused = Client::connect(&sim, "apns", Login::None, &[b"h2"]).await;
    let error = refused.err().unwrap().to_string();
    assert!(error.contains("HandshakeFailure"), "{error}");
    set(&sim, "apns", Behaviour::default());
    assert_eq!(sim.apns().await.answer(&sim.push(TOKEN)).await.status, 200);
}

#[tokio::test]
async fn vendor_judges_by_its_own_clock_and_shows_it() {
    let sim = Sim::start().await;
    set(&sim, "apns", Behaviour { clock_offset_s: 7200, ..Behaviour::default() });
    let answer = sim.apns().await.answer(&sim.push(TOKEN)).await;
    assert_eq!(answer.reason(), "ExpiredProviderToken");
    let date = jiff::fmt::rfc2822::parse(answer.header("date")).unwrap().timestamp().as_second();
    assert!(date.abs_diff(now() as i64 + 7200) < 60, "{}", answer.header("date"));
}
