//! The pool against a peer that is scripted frame by frame (`wire.rs`).

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use tokio::net::TcpListener;

use super::wire::{self, Listener};
use super::{Failure, Pool, PoolSettings, Response};
use crate::http::tls::client_config;
use crate::{Processed, Written};

const H2: &[&[u8]] = &[b"h2"];
const REFUSED_STREAM: u32 = 7;
const INTERNAL_ERROR: u32 = 2;

fn settings(listener: &Listener) -> PoolSettings {
    settings_for(&format!("https://127.0.0.1:{}", listener.port()), &listener.ca)
}

fn settings_for(origin: &str, ca: &[u8]) -> PoolSettings {
    PoolSettings {
        origin: origin.parse().unwrap(),
        tls: client_config(Some(ca), H2, None).unwrap(),
        connect_timeout: Duration::from_secs(20),
        connections: 2,
        max_connections: 4,
        stream_limit: None,
        one_stream_first: false,
        ping_interval: Duration::from_secs(60),
        idle_ping: None,
    }
}

/// A pool and the listener that it speaks to.
async fn pair() -> (Pool, Listener) {
    let listener = Listener::bind(0, H2).await;
    (Pool::new(settings(&listener)), listener)
}

async fn call(pool: &Pool) -> Result<Response, Failure> {
    call_written(pool, &Written::default()).await
}

async fn call_written(pool: &Pool, written: &Written) -> Result<Response, Failure> {
    let request = Request::post("https://localhost/3/device/00").body(()).unwrap();
    pool.send(request, Bytes::from_static(b"{}"), written).await
}

fn failure(result: Result<Response, Failure>) -> (Processed, &'static str) {
    let failure = result.unwrap_err();
    (failure.processed, failure.code)
}

#[tokio::test]
async fn a_call_gets_its_answer_and_both_directions_are_counted() {
    let (pool, listener) = pair().await;
    let written = Written::default();
    let (answer, ()) = tokio::join!(call_written(&pool, &written), async {
        let mut peer = listener.accept(10).await;
        let stream = peer.request().await;
        peer.begin_answer(stream, 400).await;
        peer.write(wire::DATA, 0, stream, b"{\"reason\":").await;
        peer.write(wire::DATA, 1, stream, b"\"BadTopic\"}").await;
        let _keep = peer.requests_until_now().await;
    });
    let answer = answer.unwrap();
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(&answer.body[..], b"{\"reason\":\"BadTopic\"}");
    assert!(written.is_set());
    assert!(pool.bytes_read() > 0 && pool.bytes_written() > 0);
}

#[tokio::test]
async fn the_peers_stream_limit_is_kept_and_the_rest_waits_here() {
    let (pool, listener) = pair().await;
    let (first, second, ()) = tokio::join!(call(&pool), call(&pool), async {
        let mut peer = listener.accept(1).await;
        let stream = peer.request().await;
        assert_eq!(peer.requests_until_now().await, [0; 0]);
        peer.answer(stream, 200).await;
        let stream = peer.request().await;
        peer.answer(stream, 200).await;
        let _keep = peer.requests_until_now().await;
    });
    assert!(first.is_ok() && second.is_ok());
}

#[tokio::test]
async fn a_stream_limit_that_is_lowered_holds_from_then_on() {
    let (pool, listener) = pair().await;
    let (_, mut peer) = tokio::join!(call(&pool), async {
        let mut peer = listener.accept(10).await;
        let stream = peer.request().await;
        peer.allow(1).await;
        assert_eq!(peer.requests_until_now().await, [0; 0]);
        peer.answer(stream, 200).await;
        peer
    });
    let (first, second, ()) = tokio::join!(call(&pool), call(&pool), async {
        let stream = peer.request().await;
        assert_eq!(peer.requests_until_now().await, [0; 0]);
        peer.answer(stream, 200).await;
        let stream = peer.request().await;
        peer.answer(stream, 200).await;
        let _keep = peer.requests_until_now().await;
    });
    assert!(first.is_ok() && second.is_ok());
}

#[tokio::test]
async fn one_stream_only_until_an_answer_shows_the_credential_accepted() {
    let listener = Listener::bind(0, H2).await;
    let pool = Pool::new(PoolSettings { one_stream_first: true, ..settings(&listener) });
    let calls = async { tokio::join!(call(&pool), call(&pool), call(&pool), call(&pool)) };
    let (answers, ()) = tokio::join!(calls, async {
        let mut peer = listener.accept(100).await;
        for status in [403, 400] {
            let stream = peer.request().await;
            assert_eq!(peer.requests_until_now().await, [0; 0]);
            peer.answer(stream, status).await;
        }
        // Proven by the 400: the others come together.
        let streams = [peer.request().await, peer.request().await];
        for stream in streams {
            peer.answer(stream, 200).await;
        }
        let _keep = peer.requests_until_now().await;
    });
    assert!(answers.0.is_ok() && answers.1.is_ok() && answers.2.is_ok() && answers.3.is_ok());
}

#[tokio::test]
async fn a_goaway_spares_streams_below_and_a_replacement_opens_meanwhile() {
    let (pool, listener) = pair().await;
    let (one, other, ()) = tokio::join!(call(&pool), call(&pool), async {
        let mut peer = listener.accept(10).await;
        let streams = [peer.request().await, peer.request().await];
        assert_eq!(streams, [1, 3]);
        let _second = listener.accept(10).await;
        peer.go_away(1, br#"{"reason":"Shutdown"}"#).await;
        let _replacement = listener.accept(10).await;
        peer.answer(1, 200).await;
        peer.until_closed().await;
    });
    let (below, above) = if one.is_ok() { (one, other) } else { (other, one) };
    assert_eq!(below.unwrap().status, StatusCode::OK);
    let above = above.unwrap_err();
    assert_eq!((above.processed, above.code), (Processed::No, "goaway"));
    assert!(above.detail.contains(r#"{"reason":"Shutdown"}"#), "{}", above.detail);
}

#[tokio::test]
async fn only_proofs_of_the_protocol_make_a_lost_call_unprocessed() {
    enum End {
        Reset(u32),
        Close,
        GoAwayThenClose,
        CloseInBody,
    }
    for (end, expected) in [
        (End::Reset(REFUSED_STREAM), (Processed::No, "refused_stream")),
        (End::Reset(INTERNAL_ERROR), (Processed::Maybe, "reset")),
        (End::Close, (Processed::Maybe, "closed")),
        (End::GoAwayThenClose, (Processed::Maybe, "closed")),
        (End::CloseInBody, (Processed::Maybe, "closed")),
    ] {
        let (pool, listener) = pair().await;
        let (result, _peer) = tokio::join!(call(&pool), async {
            let mut peer = listener.accept(10).await;
            let stream = peer.request().await;
            match end {
                End::Reset(code) => {
                    peer.reset(stream, code).await;
                    return Some(peer);
                }
                End::Close => {}
                End::GoAwayThenClose => peer.go_away(stream, b"").await,
                End::CloseInBody => peer.begin_answer(stream, 200).await,
            }
            None
        });
        assert_eq!(failure(result), expected);
    }
}

#[tokio::test]
async fn an_unreachable_peer_fails_fast_until_a_check_reaches_it() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let late = Listener::bind(0, H2).await; // for its certificate
    let origin = format!("https://127.0.0.1:{port}");
    let pool = Pool::new(settings_for(&origin, &late.ca));
    let written = Written::default();
    assert_eq!(failure(call_written(&pool, &written).await), (Processed::No, "connect"));
    assert!(!written.is_set());
    // The first fault is retried at once; from the second on a back-off runs.
    let detail = loop {
        let failure = call(&pool).await.unwrap_err();
        if failure.detail.starts_with("not trying again yet") {
            break failure.detail;
        }
    };
    assert!(detail.contains(&format!("127.0.0.1:{port}")), "{detail}");
    assert_eq!(pool.check().await.unwrap_err().code, "connect");
    let back = late.moved_to(port).await;
    let (check, answer, ()) = tokio::join!(
        pool.check(),
        async {
            // A back-off that runs answers at once: try until the check has ended it.
            loop {
                match call(&pool).await {
                    Ok(answer) => break answer,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        },
        async {
            let mut checked = back.accept(10).await;
            let mut peer = back.accept(10).await;
            let stream = peer.request().await;
            peer.answer(stream, 200).await;
            checked.until_closed().await;
            let _keep = peer.requests_until_now().await;
        }
    );
    check.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn callers_that_wait_for_a_connection_share_one_attempt() {
    let (pool, listener) = pair().await;
    let calls = futures_util::future::join_all((0..50).map(|_| call(&pool)));
    let (answers, ()) = tokio::join!(calls, async {
        let mut peer = listener.accept(100).await;
        for _ in 0..50 {
            let stream = peer.request().await;
            peer.answer(stream, 200).await;
        }
        let _keep = peer.requests_until_now().await;
    });
    assert!(answers.iter().all(Result::is_ok));
    // The second is still in its handshake, which nobody answers.
    assert_eq!(pool.connections(), 1);
}

#[tokio::test]
async fn further_connections_open_when_all_are_full_up_to_the_most() {
    let listener = Listener::bind(0, H2).await;
    let pool = Pool::new(PoolSettings { max_connections: 3, ..settings(&listener) });
    let calls = futures_util::future::join_all((0..5).map(|_| call(&pool)));
    let (answers, ()) = tokio::join!(calls, async {
        let mut peers =
            [listener.accept(1).await, listener.accept(1).await, listener.accept(1).await];
        for peer in &mut peers {
            let stream = peer.request().await;
            assert_eq!(peer.requests_until_now().await, [0; 0]);
            peer.answer(stream, 200).await;
        }
        let mut left = futures_util::future::select_all(
            peers.iter_mut().map(|peer| Box::pin(serve_rest(peer))),
        );
        while !pool_is_done(&pool) {
            tokio::select! { _ = &mut left => break, () = tokio::task::yield_now() => {} }
        }
    });
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(pool.connections(), 3);
}

async fn serve_rest(peer: &mut wire::Wire) {
    while let Some(frame) = peer.frame().await {
        if frame.kind == wire::DATA {
            peer.answer(frame.stream, 200).await;
        }
    }
}

/// Answers every request, and gives back what its body took of the window.
async fn serve_all(peer: &mut wire::Wire) {
    while let Some(frame) = peer.frame().await {
        if frame.kind == wire::DATA {
            let length = u32::try_from(frame.payload.len()).unwrap();
            peer.write(wire::WINDOW_UPDATE, 0, 0, &length.to_be_bytes()).await;
            peer.answer(frame.stream, 200).await;
        }
    }
}

fn pool_is_done(pool: &Pool) -> bool {
    pool.shared.state().open.iter().all(|connection| connection.in_flight() == 0)
}

#[tokio::test]
async fn an_endless_body_is_cut_and_its_stream_reset() {
    let (pool, listener) = pair().await;
    let (answer, ()) = tokio::join!(call(&pool), async {
        let mut peer = listener.accept(10).await;
        let stream = peer.request().await;
        peer.begin_answer(stream, 200).await;
        // As much as the first windows allow, then as they are opened further.
        let mut window = 65_535_usize;
        let mut sent = 0;
        loop {
            while sent + 16_000 <= window {
                peer.write(wire::DATA, 0, stream, &[b'x'; 16_000]).await;
                sent += 16_000;
            }
            let frame = peer.frame().await.unwrap();
            match frame.kind {
                wire::RST_STREAM => break,
                wire::WINDOW_UPDATE if frame.stream == stream => {
                    window += u32::from_be_bytes(frame.payload.try_into().unwrap()) as usize;
                }
                _ => {}
            }
        }
    });
    let body = answer.unwrap().body;
    assert_eq!(body.len(), 64 << 10);
    assert!(body.iter().all(|byte| *byte == b'x'));
}

#[tokio::test]
async fn a_call_that_is_given_up_resets_its_stream_and_frees_its_place() {
    let (pool, listener) = pair().await;
    let mut given_up = Box::pin(call(&pool));
    let mut peer = tokio::select! {
        _ = &mut given_up => unreachable!("nobody answered"),
        peer = async {
            let mut peer = listener.accept(1).await;
            peer.request().await;
            peer
        } => peer,
    };
    drop(given_up);
    let (next, ()) = tokio::join!(call(&pool), async {
        assert_eq!(peer.until(wire::RST_STREAM).await.stream, 1);
        let stream = peer.request().await;
        peer.answer(stream, 200).await;
        let _keep = peer.requests_until_now().await;
    });
    assert!(next.is_ok());
}

#[tokio::test]
async fn a_retired_connection_ends_its_streams_and_takes_no_more() {
    let (pool, listener) = pair().await;
    let (first, mut old) = tokio::join!(call(&pool), async {
        let mut peer = listener.accept(10).await;
        let stream = peer.request().await;
        peer.answer(stream, 200).await;
        peer
    });
    let mut second = listener.accept(10).await;
    let retired = first.unwrap().connection;
    pool.retire(retired);
    old.until_closed().await;
    // Both that follow go over connections opened since.
    let (answer, ()) = tokio::join!(call(&pool), async {
        let stream = second.request().await;
        second.answer(stream, 200).await;
        let _keep = second.requests_until_now().await;
    });
    assert_ne!(answer.unwrap().connection, retired);
}

#[tokio::test]
async fn close_lets_calls_in_flight_end_and_refuses_new_ones() {
    let (pool, listener) = pair().await;
    let (answer, ()) = tokio::join!(call(&pool), async {
        let mut peer = listener.accept(10).await;
        let mut second = listener.accept(10).await;
        let stream = peer.request().await;
        let close = async {
            pool.close().await;
        };
        let ((), ()) = tokio::join!(close, async {
            second.until_closed().await;
            assert_eq!(failure(call(&pool).await), (Processed::No, "closed"));
            peer.answer(stream, 200).await;
            peer.until_closed().await;
        });
    });
    assert!(answer.is_ok());
    assert_eq!(pool.connections(), 0);
}

#[tokio::test]
async fn a_name_is_resolved_and_all_its_addresses_are_tried() {
    let listener = Listener::bind(0, H2).await;
    let origin = format!("https://localhost:{}", listener.port());
    let pool = Pool::new(settings_for(&origin, &listener.ca));
    let (check, ()) = tokio::join!(pool.check(), async {
        listener.accept(10).await.until_closed().await;
    });
    check.unwrap();
    let unknown = Pool::new(settings_for("https://no-such-name.invalid", &listener.ca));
    assert_eq!(unknown.check().await.unwrap_err().code, "dns");
}

#[tokio::test]
async fn a_peer_without_http2_or_with_a_foreign_certificate_gets_no_request() {
    let plain = Listener::bind(0, &[]).await;
    let pool = Pool::new(settings(&plain));
    let (result, ()) = tokio::join!(call(&pool), plain.accept_tls());
    assert_eq!(failure(result), (Processed::No, "no_h2"));

    let (trusted, foreign) = (Listener::bind(0, H2).await, Listener::bind(0, H2).await);
    let origin = format!("https://127.0.0.1:{}", foreign.port());
    let pool = Pool::new(settings_for(&origin, &trusted.ca));
    let (result, ()) = tokio::join!(call(&pool), foreign.accept_tls());
    assert_eq!(failure(result), (Processed::No, "tls"));
}

#[tokio::test]
async fn a_peer_that_accepts_and_says_nothing_is_given_up_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = Listener::bind(0, H2).await;
    let origin = format!("https://{}", silent.local_addr().unwrap());
    let connect_timeout = Duration::from_millis(50);
    let pool = Pool::new(PoolSettings { connect_timeout, ..settings_for(&origin, &listener.ca) });
    assert_eq!(failure(call(&pool).await), (Processed::No, "tls"));
}

#[tokio::test]
async fn a_peer_that_hangs_up_before_any_answer_counts_as_unreachable() {
    let (pool, listener) = pair().await;
    let hang_up = async {
        loop {
            drop(listener.accept(10).await);
        }
    };
    let fails_fast = async {
        loop {
            let failure = call(&pool).await.unwrap_err();
            if failure.detail.starts_with("not trying again yet") {
                assert_eq!((failure.processed, failure.code), (Processed::No, "connect"));
                break;
            }
        }
    };
    tokio::select! { () = hang_up => {}, () = fails_fast => {} }
}

#[tokio::test]
async fn a_connection_on_which_a_call_was_given_up_in_silence_takes_no_more() {
    let (pool, listener) = pair().await;
    let mut given_up = Box::pin(call(&pool));
    let mut silent = tokio::select! {
        _ = &mut given_up => unreachable!("nobody answered"),
        peer = async {
            let mut peer = listener.accept(10).await;
            peer.request().await;
            peer
        } => peer,
    };
    let mut fresh = listener.accept(10).await;
    // The other connection stands before the clock is moved.
    while pool.connections() < 2 {
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    tokio::time::advance(super::SILENT_AFTER).await;
    tokio::time::resume();
    drop(given_up);
    silent.until_closed().await;
    let (answer, ()) = tokio::join!(call(&pool), async {
        let stream = fresh.request().await;
        fresh.answer(stream, 200).await;
        let _keep = fresh.requests_until_now().await;
    });
    assert!(answer.is_ok());
}

#[tokio::test]
async fn a_sign_of_life_is_a_ping_where_one_is_due_and_else_a_fresh_connection() {
    let (pool, listener) = pair().await;
    let mut calls = Box::pin(call(&pool));
    let mut peer = tokio::select! {
        _ = &mut calls => unreachable!("nobody answered"),
        peer = async {
            let mut peer = listener.accept(10).await;
            peer.request().await;
            peer
        } => peer,
    };
    let _idle = listener.accept(10).await;
    let heard = pool.heard();
    let ((), ()) = tokio::join!(pool.sound(), async {
        let ping = peer.until(wire::PING).await;
        peer.write(wire::PING, 1, 0, &ping.payload).await;
    });
    let answered = pool.heard();
    assert!(answered > heard);
    let ((), _fresh) = tokio::join!(pool.sound(), async {
        let mut fresh = listener.accept(10).await;
        fresh.until_closed().await;
    });
    assert!(pool.heard() > answered);
    assert_eq!(peer.requests_until_now().await, [0; 0], "no second PING came before this one");
    assert_eq!(pool.connections(), 2, "a living peer loses no connection");
}

#[tokio::test]
async fn a_peer_that_gives_no_sign_of_life_loses_all_its_connections() {
    let (pool, listener) = pair().await;
    let mut given_up = Box::pin(call(&pool));
    let mut silent = tokio::select! {
        _ = &mut given_up => unreachable!("nobody answered"),
        peer = async {
            let mut peer = listener.accept(10).await;
            peer.request().await;
            peer
        } => peer,
    };
    let mut idle = listener.accept(10).await;
    while pool.connections() < 2 {
        tokio::task::yield_now().await;
    }
    let heard = pool.heard();
    pool.sound().await;
    assert_eq!(pool.heard(), heard, "not a byte came");
    // Without a call on it there is no reason to keep it.
    idle.until_closed().await;
    drop(given_up);
    silent.until_closed().await;
}

#[tokio::test]
async fn a_dead_connection_beside_a_living_one_ends_its_calls_as_one_failure() {
    let (pool, listener) = pair().await;
    let calls = async { tokio::join!(call(&pool), call(&pool), call(&pool), call(&pool)) };
    let mut calls = Box::pin(calls);
    // All four wait for the first connection, which takes them and says no more.
    let mut dead = tokio::select! {
        _ = &mut calls => unreachable!("nobody answered"),
        peer = async {
            let mut peer = listener.accept(4).await;
            for _ in 0..4 {
                peer.request().await;
            }
            peer
        } => peer,
    };
    let mut living = listener.accept(100).await;
    let traffic = async {
        loop {
            call(&pool).await.unwrap();
        }
    };
    let answered = serve_all(&mut living);
    let (a, b, c, d) = tokio::select! {
        ended = calls => ended,
        () = traffic => unreachable!("it goes on"),
        () = answered => unreachable!("the client stays"),
    };
    let failures = [a, b, c, d].map(|result| result.unwrap_err());
    for failure in &failures {
        assert_eq!((failure.processed, failure.code), (Processed::Maybe, "silent"));
    }
    assert_eq!(failures.iter().filter(|failure| !failure.again).count(), 1);
    assert_eq!(dead.until(wire::PING).await.flags, 0, "it was asked before");
    dead.until_closed().await;
}

#[tokio::test]
async fn a_slow_answer_is_waited_for_while_pings_are_answered() {
    let (pool, listener) = pair().await;
    let mut slow_call = Box::pin(call(&pool));
    let mut slow = tokio::select! {
        _ = &mut slow_call => unreachable!("nobody answered"),
        peer = async {
            let mut peer = listener.accept(1).await;
            peer.request().await;
            peer
        } => peer,
    };
    let mut living = listener.accept(100).await;
    let traffic = async {
        loop {
            call(&pool).await.unwrap();
        }
    };
    let answered = serve_all(&mut living);
    let pings = async {
        let ping = slow.until(wire::PING).await;
        slow.write(wire::PING, 1, 0, &ping.payload).await;
        // Longer than a dead one would have been left alone.
        tokio::time::sleep(super::PONG_WITHIN * 2).await;
        slow.answer(1, 200).await;
        std::future::pending::<()>().await;
    };
    let answer = tokio::select! {
        answer = slow_call => answer,
        () = traffic => unreachable!("it goes on"),
        () = answered => unreachable!("the client stays"),
        () = pings => unreachable!("it never ends"),
    };
    assert_eq!(answer.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn an_idle_connection_is_pinged_and_closed_when_it_gives_no_answer() {
    let listener = Listener::bind(0, H2).await;
    let often = Duration::from_millis(1);
    let (ping_interval, idle_ping) = (often, Some(often));
    let pool = Pool::new(PoolSettings { ping_interval, idle_ping, ..settings(&listener) });
    let (answer, mut peer) = tokio::join!(call(&pool), async {
        let mut peer = listener.accept(10).await;
        let stream = peer.request().await;
        peer.answer(stream, 200).await;
        peer
    });
    assert!(answer.is_ok());
    let ping = peer.until(wire::PING).await;
    peer.write(wire::PING, 1, 0, &ping.payload).await;
    // The next one is not answered.
    peer.until(wire::PING).await;
    peer.until_closed().await;
}

#[tokio::test]
async fn headers_without_end_are_no_answer() {
    let (pool, listener) = pair().await;
    let (result, ()) = tokio::join!(call(&pool), async {
        let mut peer = listener.accept(10).await;
        let stream = peer.request().await;
        peer.endless_headers(stream).await;
    });
    assert_eq!(result.unwrap_err().processed, Processed::Maybe);
}
