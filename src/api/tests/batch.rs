//! Many messages in one stream.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Method, Request};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower::ServiceExt;

use super::harness::{Answered, House, PANICS, SMALL, Setup, request, slow_client, until, with};
use crate::dispatch::{Limits, Rejected};

fn batch(body: impl Into<Body>) -> Request<Body> {
    let request = request(Method::POST, "/v1/messages/batch", body);
    with(request, "content-type", "application/x-ndjson")
}

fn lines(answer: &Answered) -> Vec<Value> {
    let text = std::str::from_utf8(&answer.body).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn each_line_is_answered_in_order_and_faulty_ones_stop_nothing() {
    let limits = Limits { max_body: 300, ..Limits::default() };
    let house = House::new(Setup { limits, ..Setup::default() });
    let mut panics: Value = serde_json::from_str(SMALL).unwrap();
    panics["notification"] = json!({"title": PANICS});
    let long = "x".repeat(400);
    let mut body = format!("{SMALL}\n\n{{\"to\":1}}\nnot json\n{panics}\n{long}\n").into_bytes();
    body.extend_from_slice(b"\"\xff\"\n");
    body.extend_from_slice(SMALL.as_bytes());
    let answer = house.send(batch(body)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let told = lines(&answer);
    let told: Vec<(u64, &str)> = told
        .iter()
        .map(|line| {
            let what = line["problem"]["code"].as_str().unwrap_or("accepted");
            assert_eq!(line["id"].is_string(), what == "accepted", "{line}");
            (line["line"].as_u64().unwrap(), what)
        })
        .collect();
    let expected = [
        (1, "accepted"),
        (3, "invalid"),
        (4, "malformed"),
        (5, "internal"),
        (6, "too_large"),
        (7, "malformed"),
        (8, "accepted"),
    ];
    assert_eq!(told, expected);
    assert_eq!(house.counted("local", "accepted"), 2);
    assert_eq!(house.counted("local", "invalid"), 4);
}

#[tokio::test]
async fn answers_come_while_the_body_is_still_being_sent() {
    let house = House::new(Setup::default());
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(1);
    let body =
        stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
    let response = house.router.clone().oneshot(batch(Body::from_stream(body))).await.unwrap();
    let mut answers = response.into_body().into_data_stream();
    for n in 1..=3 {
        sender.send(Ok(Bytes::from(format!("{SMALL}\n")))).await.unwrap();
        let answer = answers.next().await.unwrap().unwrap();
        let line: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(line["line"], n);
    }
    drop(sender);
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn lines_wait_for_the_disk_together_and_no_more_are_read_meanwhile() {
    let house = House::new(Setup::default());
    house.world.lock().unwrap().hold = true;
    let body = format!("{SMALL}\n").repeat(200);
    let release = async {
        until(|| house.world.lock().unwrap().held() == 64).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(house.world.lock().unwrap().held(), 64);
        house.world.lock().unwrap().release();
    };
    let (answer, ()) = tokio::join!(house.send(batch(body)), release);
    let numbers: Vec<_> =
        lines(&answer).iter().map(|line| line["line"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
    assert_eq!(house.world.lock().unwrap().messages.len(), 200);
}

#[tokio::test(start_paused = true)]
async fn rates_and_full_queues_slow_the_reading_and_fail_no_line() {
    let clients = vec![slow_client("shop", 10.0)];
    let house = House::new(Setup { clients, ..Setup::default() });
    house.world.lock().unwrap().rejections = vec![
        Rejected::QueueFull(Duration::from_secs(60)),
        Rejected::ClientQueueFull(Duration::from_secs(1)),
        Rejected::Overloaded(Duration::from_secs(1)),
    ];
    let before = house.clock.now().instant;
    let request = batch(format!("{SMALL}\n").repeat(20));
    let answer = house.send(with(request, "authorization", "Bearer key-shop")).await;
    assert!(lines(&answer).iter().all(|line| line["id"].is_string()));
    assert_eq!(house.counted("shop", "accepted"), 20);
    assert!(house.clock.now().instant - before >= Duration::from_millis(1900));
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_closed_after_its_answers() {
    let house = House::new(Setup::default());
    let first = stream::iter([Ok::<_, io::Error>(format!("{SMALL}\n{SMALL}"))]);
    let body = Body::from_stream(first.chain(stream::pending()));
    let response = house.router.clone().oneshot(batch(body)).await.unwrap();
    let mut answers = response.into_body().into_data_stream();
    assert!(answers.next().await.unwrap().is_ok());
    assert!(answers.next().await.unwrap().is_err(), "cut: it must not be taken for the end");
}

#[tokio::test]
async fn keys_stand_in_the_lines_and_not_in_the_header() {
    let house = House::new(Setup::default());
    let refused = house.send(with(batch(SMALL), "idempotency-key", "k")).await;
    assert_eq!(refused.problem(), (422, "invalid".to_owned()));
    let keyed = SMALL.replace(r#""data""#, r#""idempotency_key":"k","data""#);
    let answers = lines(&house.send(batch(format!("{keyed}\n{keyed}\r\n"))).await);
    assert_eq!(answers[0]["id"], answers[1]["id"]);
    assert_eq!(answers[1]["replayed"], true);
    let answers = lines(&house.send(batch(keyed.replace("t1", "t2"))).await);
    assert_eq!(answers[0]["problem"]["code"], "idempotency_mismatch");
}

#[tokio::test]
async fn what_is_not_lines_of_json_is_415_and_a_stopping_server_says_503() {
    let house = House::new(Setup::default());
    let csv = with(request(Method::POST, "/v1/messages/batch", SMALL), "content-type", "text/csv");
    assert_eq!(house.send(csv).await.problem(), (415, "unsupported_media_type".to_owned()));
    house.closed.cancel();
    assert_eq!(house.send(batch(SMALL)).await.problem(), (503, "shutting_down".to_owned()));
}

#[tokio::test]
async fn a_stream_keeps_its_place_among_the_requests_until_it_ends() {
    let limits = Limits { max_requests: 1, ..Limits::default() };
    let house = House::new(Setup { limits, ..Setup::default() });
    let silent = Body::from_stream(stream::pending::<io::Result<Bytes>>());
    let response = house.router.clone().oneshot(batch(silent)).await.unwrap();
    assert_eq!(house.get("/openapi.json").await.status, 503);
    drop(response);
    assert_eq!(house.get("/openapi.json").await.status, 200);
}
