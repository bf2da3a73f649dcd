//! Connections: protocols, stream limits, and the ends that only a raw client
//! can tell apart.

use std::time::Duration;

use h2::Reason;
use pushyard_simulator::Behaviour;
use tokio::io::AsyncReadExt as _;

use crate::harness::{Client, Login, Push, Sim, hex, reqwest_client, soon, tls, until};

const TOKEN: &str = "00112233445566778899aabbccddeeff";

#[tokio::test]
async fn apns_takes_http2_without_alpn() {
    let sim = Sim::start().await;
    let client = Client::connect(&sim, "apns", Login::None, &[]).await.unwrap();
    assert_eq!(client.answer(&sim.push(TOKEN)).await.status, 200);
}

#[tokio::test]
async fn apns_refuses_other_protocols() {
    let sim = Sim::start().await;
    let refused = Client::connect(&sim, "apns", Login::None, &[b"http/1.1"]).await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn certificate_of_another_authority_is_refused() {
    let sim = Sim::start().await;
    let other = tempfile::tempdir().unwrap();
    let stranger = rcgen::generate_simple_self_signed(["stranger".to_owned()]).unwrap();
    let (chain, key) = (other.path().join("chain.pem"), other.path().join("key.pem"));
    std::fs::write(&chain, stranger.cert.pem()).unwrap();
    std::fs::write(&key, stranger.signing_key.serialize_pem()).unwrap();
    let login = Login::Certificate { chain, key };
    let ended = match Client::connect(&sim, "apns", login, &[b"h2"]).await {
        // With TLS 1.3 the client learns of it only when it reads.
        Ok(client) => client.send(&sim.push(TOKEN)).await.is_err(),
        Err(_) => true,
    };
    assert!(ended);
}

#[tokio::test]
async fn fcm_speaks_both_versions() {
    let sim = Sim::start().await;
    let (_client, bearer) = sim.fcm().await;
    let http2 = reqwest_client(&sim);
    for (alpn, client) in [("h2", Some(&http2)), ("http/1.1", None)] {
        let push = Push::fcm(&bearer, "ordinary-token");
        match client {
            Some(client) => {
                let url = format!("{}{}", sim.origin("fcm"), push.path);
                let answer = client.post(url).header("authorization", &bearer).body(push.body);
                let answer = soon(answer.send()).await.unwrap();
                assert_eq!(answer.version(), http::Version::HTTP_2);
                assert_eq!(answer.status(), 200);
            }
            None => {
                let mut stream = tls(&sim, "fcm", Login::None, &[alpn.as_bytes()]).await.unwrap();
                let text = http1(&mut stream, &push).await;
                assert!(text.starts_with("HTTP/1.1 200"), "{text}");
            }
        }
    }
    assert_eq!(sim.vendor("fcm").accepted, 2);
}

/// One request over HTTP/1.1, and all that comes back.
async fn http1(
    stream: &mut tokio_rustls::client::TlsStream<tokio::net::TcpStream>,
    push: &Push,
) -> String {
    use tokio::io::AsyncWriteExt as _;
    let mut text = format!("POST {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n", push.path);
    for (name, value) in &push.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {}\r\n\r\n{}", push.body.len(), push.body));
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // An end without a close_notify is an error, and no news here.
    let _ = soon(stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn http1_ends_without_an_answer_where_http2_has_frames() {
    let sim = Sim::start().await;
    let (_client, bearer) = sim.fcm().await;
    for token in ["lost-1", "reset-1", "goaway-1", "sim-refused-1"] {
        let mut stream = tls(&sim, "fcm", Login::None, &[b"http/1.1"]).await.unwrap();
        let text = http1(&mut stream, &Push::fcm(&bearer, token)).await;
        assert_eq!(text, "", "{token}");
    }
    assert_eq!(sim.vendor("fcm").accepted, 1, "only the lost one was taken");
}

#[tokio::test]
async fn apns_allows_one_stream_until_the_token_is_proven() {
    let sim = Sim::start().await;
    let client = sim.apns().await;
    let bad = client.answer(&sim.push(TOKEN).without("authorization")).await;
    assert_eq!(bad.reason(), "MissingProviderToken");
    assert_eq!(client.stream_limit(), 1);
    assert_eq!(client.answer(&sim.push("fa170400")).await.status, 400);
    until("the limit is raised", || client.stream_limit() == 1000).await;
    assert_eq!(sim.vendor("apns").breaches, 0);
}

#[tokio::test]
async fn many_streams_are_no_breach_once_the_limit_is_raised() {
    let sim = Sim::with(|settings| settings.apns_max_streams = 50).await;
    let client = sim.apns().await;
    client.answer(&sim.push(TOKEN)).await;
    until("the limit is raised", || client.stream_limit() == 50).await;
    for _ in 0..5 {
        let begun: Vec<_> = (0..50).map(|_| client.begin(&sim.push(TOKEN))).collect();
        for one in begun {
            assert_eq!(one.end().await.unwrap().status, 200);
        }
    }
    assert_eq!(sim.vendor("apns").breaches, 0);
    assert_eq!(sim.vendor("apns").accepted, 251);
}

#[tokio::test]
async fn stream_before_the_proof_is_refused_and_counted() {
    let sim = Sim::start().await;
    let client = sim.apns().await;
    // Both leave before the server's settings have come.
    let first = client.begin(&sim.push(&hex("slow300-")));
    let second = client.begin(&sim.push(TOKEN));
    let (first, second) = (first.end().await, second.end().await);
    let (good, refused) = if first.is_ok() { (first, second) } else { (second, first) };
    assert_eq!(good.unwrap().status, 200);
    let refused = refused.unwrap_err();
    assert!(refused.is_reset() && refused.reason() == Some(Reason::REFUSED_STREAM), "{refused}");
    assert_eq!(sim.vendor("apns").breaches, 1);
    assert_eq!(sim.vendor("apns").accepted, 1);
}

#[tokio::test]
async fn a_refused_push_brings_one_stream_back_until_one_is_taken() {
    let sim = Sim::with(|settings| settings.apns_one_stream_after_rejection = true).await;
    let client = sim.apns().await;
    assert_eq!(client.answer(&sim.push(TOKEN)).await.status, 200);
    until("the limit is raised", || client.stream_limit() == 1000).await;
    assert_eq!(client.answer(&sim.push("fa170410")).await.status, 410);
    assert_eq!(client.answer(&sim.push("fa170400")).await.status, 400);
    until("the limit falls", || client.stream_limit() == 1).await;
    let hanging = client.begin(&sim.push("fa17000c"));
    until("it is there", || sim.vendor("apns").in_flight == 1).await;
    drop(hanging);
    until("it is gone", || sim.vendor("apns").in_flight == 0).await;
    assert_eq!(client.answer(&sim.push(TOKEN)).await.status, 200);
    until("the limit is raised again", || client.stream_limit() == 1000).await;
    assert_eq!(sim.vendor("apns").breaches, 0);
}

#[tokio::test]
async fn the_limit_is_what_the_vendor_is_told_to_allow() {
    let sim = Sim::start().await;
    let client = sim.apns().await;
    client.answer(&sim.push(TOKEN)).await;
    until("the limit is raised", || client.stream_limit() == 1000).await;
    for (max_streams, told) in [(Some(3), 3), (None, 1000)] {
        let behaviour = Behaviour { max_streams, ..Behaviour::default() };
        sim.control().set("apns", behaviour).unwrap();
        until("it is told", || client.stream_limit() == told).await;
    }
    assert_eq!(client.answer(&sim.push(TOKEN)).await.status, 200);
}

#[tokio::test]
async fn the_alternative_port_is_the_same_vendor() {
    let sim = Sim::start().await;
    let client = Client::connect(&sim, "apns-alternative", Login::None, &[b"h2"]).await.unwrap();
    assert_eq!(client.answer(&sim.push(TOKEN)).await.status, 200);
    assert_eq!(sim.vendor("apns").accepted, 1);
}

#[tokio::test]
async fn requests_tell_their_connection() {
    let sim = Sim::start().await;
    let (one, two) = (sim.apns().await, sim.apns().await);
    for client in [&one, &one, &two] {
        client.answer(&sim.push(TOKEN)).await;
    }
    let requests = sim.control().requests(Some("apns"), 10).unwrap();
    let mut connections: Vec<_> = requests.iter().map(|request| request.connection).collect();
    connections.sort_unstable();
    assert_eq!(connections, [1, 1, 2]);
}

#[tokio::test]
async fn connection_goes_away_at_its_age() {
    let sim = Sim::start().await;
    let mut client = sim.apns().await;
    assert_eq!(client.answer(&sim.push(TOKEN)).await.status, 200);
    let behaviour =
        Behaviour { goaway_after_age: Some(Duration::from_millis(1)), ..Behaviour::default() };
    sim.control().set("apns", behaviour).unwrap();
    client.closed().await.unwrap();
}

#[tokio::test]
async fn fcm_goes_away_from_too_many_streams() {
    let sim = Sim::with(|settings| settings.fcm_max_streams = 10).await;
    let (_, bearer) = sim.fcm().await;
    // These are opened before the server's settings have come.
    let eager = Client::connect(&sim, "fcm", Login::None, &[b"h2"]).await.unwrap();
    let hanging = Push::fcm(&bearer, "hang-1");
    let mut begun: Vec<_> = (0..11).map(|_| eager.begin(&hanging)).collect();
    let error = begun.pop().unwrap().end().await.unwrap_err();
    assert!(error.is_go_away() && error.is_remote(), "{error}");
    assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));
    assert!(error.to_string().contains("exceeded_max_concurrent_streams"), "{error}");
    assert_eq!(sim.vendor("fcm").breaches, 1);
    until("the streams within the limit are taken", || sim.vendor("fcm").accepted == 10).await;
}

#[tokio::test]
async fn refused_stream_leaves_the_connection_alone() {
    let sim = Sim::start().await;
    let apns = sim.apns().await;
    let (fcm, bearer) = sim.fcm().await;
    for (client, push, good) in [
        (apns, sim.push("fa17000e"), sim.push(TOKEN)),
        (fcm, Push::fcm(&bearer, "sim-refused-1"), Push::fcm(&bearer, "good")),
    ] {
        let error = client.send(&push).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::REFUSED_STREAM));
        assert!(error.is_remote() && error.is_reset());
        assert_eq!(client.answer(&good).await.status, 200);
    }
    assert_eq!(sim.control().summary().unique, 2);
}

#[tokio::test]
async fn goaway_disowns_the_stream_and_lets_the_others_finish() {
    let sim = Sim::start().await;
    for token in [hex("goaway-1"), "fa17000f".into()] {
        let mut client = sim.apns().await;
        client.answer(&sim.push(TOKEN)).await;
        until("the limit is raised", || client.stream_limit() > 1).await;
        let slow = client.begin(&sim.push(&hex("slow200-")));
        until("it is there", || sim.vendor("apns").in_flight == 1).await;
        let error = client.send(&sim.push(&token)).await.unwrap_err();
        assert!(error.is_go_away() && error.is_remote(), "{error}");
        assert_eq!(error.reason(), Some(Reason::NO_ERROR));
        assert_eq!(slow.end().await.unwrap().status, 200);
        client.closed().await.unwrap();
    }
    assert_eq!(sim.vendor("apns").accepted, 4);
}

#[tokio::test]
async fn goaway_never_disowns_what_was_taken() {
    let sim = Sim::start().await;
    let (client, bearer) = sim.fcm().await;
    // The goaway is decided after the second stream was answered.
    let late = client.begin(&Push::fcm(&bearer, "slow200-").delivery("first"));
    until("it is there", || sim.vendor("fcm").in_flight == 1).await;
    assert_eq!(client.answer(&Push::fcm(&bearer, "good").delivery("second")).await.status, 200);
    let error = client.send(&Push::fcm(&bearer, "sim-goaway-1")).await.unwrap_err();
    assert!(error.is_go_away(), "{error}");
    assert_eq!(late.end().await.unwrap().status, 200);
    assert_eq!(sim.control().summary().unique, 2);
}

#[tokio::test]
async fn shutdown_is_answered_and_then_the_connection_goes() {
    let sim = Sim::start().await;
    let mut client = sim.apns().await;
    let answer = client.answer(&sim.push("fa171503")).await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (503, "Shutdown"));
    client.closed().await.unwrap();
}

#[tokio::test]
async fn lost_push_is_taken_and_the_connection_closed() {
    let sim = Sim::start().await;
    let (_, bearer) = sim.fcm().await;
    let mut taken = 0;
    for (vendor, push) in [
        ("apns", sim.push(&hex("lost-1"))),
        ("apns", sim.push("fa17000d")),
        ("fcm", Push::fcm(&bearer, "lost-1")),
        ("fcm", Push::fcm(&bearer, "sim-drop-1")),
    ] {
        let client = Client::connect(&sim, vendor, Login::None, &[b"h2"]).await.unwrap();
        let error = client.send(&push).await.unwrap_err();
        assert!(!error.is_go_away() && !error.is_reset(), "{error}");
        taken += 1;
        assert_eq!(sim.control().summary().unique, taken);
    }
}

#[tokio::test]
async fn reset_push_is_not_taken() {
    let sim = Sim::start().await;
    let (_, bearer) = sim.fcm().await;
    for (vendor, push) in
        [("apns", sim.push(&hex("reset-1"))), ("fcm", Push::fcm(&bearer, "reset-1"))]
    {
        let client = Client::connect(&sim, vendor, Login::None, &[b"h2"]).await.unwrap();
        let error = client.send(&push).await.unwrap_err();
        let kind = error.get_io().map(std::io::Error::kind);
        assert_eq!(kind, Some(std::io::ErrorKind::ConnectionReset), "{error}");
    }
    assert_eq!(sim.control().summary().unique, 0);
}

#[tokio::test]
async fn hanging_push_is_taken_and_never_answered() {
    let sim = Sim::start().await;
    let (fcm, bearer) = sim.fcm().await;
    for (token, nth) in [("hang-1", 1), ("sim-hang-1", 2)] {
        let begun = fcm.begin(&Push::fcm(&bearer, token));
        until("it is taken", || sim.vendor("fcm").accepted == nth).await;
        assert_eq!(sim.vendor("fcm").in_flight, 1);
        // Given up by the client, it is forgotten.
        drop(begun);
        until("it is gone", || sim.vendor("fcm").in_flight == 0).await;
    }
    let apns = sim.apns().await;
    let begun = apns.begin(&sim.push("fa17000c"));
    until("it is taken", || sim.vendor("apns").accepted == 1).await;
    drop(begun);
}

#[tokio::test]
async fn connection_that_dies_takes_what_was_not_taken_with_it() {
    let sim = Sim::start().await;
    let (client, bearer) = sim.fcm().await;
    let before = sim.vendor("fcm").connections;
    let begun = client.begin(&Push::fcm(&bearer, "slow60000-"));
    until("it is there", || sim.vendor("fcm").in_flight == 1).await;
    drop(begun);
    drop(client);
    until("it is gone", || sim.vendor("fcm").connections == before - 1).await;
    assert_eq!(sim.control().summary().unique, 0);
    assert_eq!(sim.vendor("fcm").in_flight, 0);
}

#[tokio::test]
async fn connection_goes_away_after_its_number_of_answers() {
    let sim = Sim::start().await;
    let behaviour = Behaviour { goaway_after: Some(3), ..Behaviour::default() };
    sim.control().set("apns", behaviour).unwrap();
    let mut client = sim.apns().await;
    for _ in 0..3 {
        assert_eq!(client.answer(&sim.push(TOKEN)).await.status, 200);
    }
    client.closed().await.unwrap();
    assert!(client.send(&sim.push(TOKEN)).await.is_err());
    assert_eq!(sim.vendor("apns").accepted, 3);
}

#[tokio::test]
async fn idle_fcm_connection_is_closed_without_a_fault() {
    let sim = Sim::with(|settings| settings.fcm_idle = Duration::from_millis(50)).await;
    let (mut client, _) = sim.fcm().await;
    assert!(client.closed().await.is_ok(), "NO_ERROR");
}

#[tokio::test]
async fn fcm_punishes_frequent_pings() {
    let sim = Sim::start().await;
    let stream = tls(&sim, "fcm", Login::None, &[b"h2"]).await.unwrap();
    let (_send, mut connection) = h2::client::handshake(stream).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    let pinging = async {
        while pings.ping(h2::Ping::opaque()).await.is_ok() {}
        std::future::pending::<()>().await
    };
    let ended = tokio::select! {
        ended = soon(connection) => ended,
        () = pinging => unreachable!(),
    };
    let error = ended.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));
    assert!(error.to_string().contains("too_many_pings"), "{error}");
}
