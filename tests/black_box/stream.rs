//! The devices' own channel: a message through the API reaches subscribers in
//! every form, survives kill -9, and nobody reads what is not theirs.

use std::time::Duration;

use reqwest::{Response, StatusCode, Version};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::edges::certify;
use super::harness::{PATIENCE, Router, World, client, client_builder, message, only, pushyard};

pub(super) async fn world(stream: &str) -> World {
    let world = World::new().await;
    let text = std::fs::read_to_string(world.config()).unwrap();
    let text = text.replace(r#"[["apns"], ["fcm"]]"#, r#"[["stream"]]"#);
    let more = format!(
        "[stream]\nlisten = \"127.0.0.1:0\"\n{stream}\n\
         [[providers]]\nid = \"stream\"\nkind = \"stream\"\n"
    );
    std::fs::write(world.config(), text + &more).unwrap();
    world
}

pub(super) fn to(topic: &str) -> Value {
    message(&[json!({"kind": "stream", "topic": topic})])
}

pub(super) async fn get(router: &Router, path: &str) -> Response {
    client().get(format!("{}{path}", router.stream())).send().await.unwrap()
}

/// The next piece of a stream that holds this text.
pub(super) async fn until(response: &mut Response, text: &str) -> String {
    let mut seen = String::new();
    let reading = async {
        while !seen.contains(text) {
            let chunk = response.chunk().await.unwrap().expect("the stream goes on");
            seen.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    };
    let read = tokio::time::timeout(PATIENCE, reading).await;
    assert!(read.is_ok(), "{text:?} never came: {seen}");
    seen
}

#[tokio::test]
async fn a_message_reaches_subscribers_in_every_form() {
    let world = world("").await;
    let router = world.router();
    let mut forms = Vec::new();
    for (form, kind) in [
        ("json", "application/x-ndjson; charset=utf-8"),
        ("sse", "text/event-stream; charset=utf-8"),
        ("raw", "text/plain; charset=utf-8"),
    ] {
        let mut response = get(&router, &format!("/alice,bob/{form}")).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], kind);
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
        let open = if form == "raw" { "\n" } else { r#""event":"open","topic":"alice,bob"}"# };
        until(&mut response, open).await;
        forms.push(response);
    }
    let mut socket =
        TcpStream::connect(router.stream().strip_prefix("http://").unwrap()).await.unwrap();
    let handshake = "GET /bob/ws HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\n\
                     upgrade: websocket\r\nsec-websocket-version: 13\r\n\
                     sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.write_all(handshake.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    while !contains(&received, b"\"event\":\"open\"") {
        assert!(socket.read_buf(&mut received).await.unwrap() > 0);
    }
    assert!(contains(&received, b"101 Switching Protocols"));
    assert!(contains(&received, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));

    let view = router.settle(&to("bob")).await;
    assert_eq!(only(&view)["state"], "sent", "{view}");
    let id = only(&view)["provider_message_id"].as_str().unwrap().to_owned();
    let line = until(&mut forms[0], "\n").await;
    let event: Value = serde_json::from_str(&line).unwrap();
    let mut keys: Vec<_> = event.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    let wanted =
        ["event", "expires", "id", "message", "priority", "pushyard", "time", "title", "topic"];
    assert_eq!(keys, wanted);
    assert_eq!((&event["id"], &event["message"]), (&json!(id), &json!("Order 7")));
    let delivery = only(&view)["id"].as_str().unwrap();
    assert!(event["pushyard"].as_str().unwrap().starts_with(delivery));
    assert_eq!(until(&mut forms[1], "\n\n").await, format!("data: {}\n\n", line.trim_end()));
    assert_eq!(until(&mut forms[2], "Order 7").await, "Order 7\n");
    while !contains(&received, line.trim_end().as_bytes()) {
        assert!(socket.read_buf(&mut received).await.unwrap() > 0);
    }
    // A masked ping is answered with its own payload.
    socket.write_all(&[0x89, 0x81, 1, 2, 3, 4, b'x' ^ 1]).await.unwrap();
    while !contains(&received, &[0x8A, 1, b'x']) {
        assert!(socket.read_buf(&mut received).await.unwrap() > 0);
    }
    // The device's own word, on its own listener.
    let (delivery, secret) = event["pushyard"].as_str().unwrap().split_once('.').unwrap();
    let receipt = json!({"delivery": delivery, "secret": secret});
    let url = format!("{}/v1/receipts", router.stream());
    let answer = client().post(url).json(&receipt).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    assert_eq!(router.terminate().await, Some(0), "open streams do not hold it up");
    while let Some(rest) = forms[0].chunk().await.unwrap() {
        assert!(rest.is_empty());
    }
}

#[tokio::test]
async fn a_stream_over_tls_outlives_an_exchange_of_its_certificate() {
    let world = world("tls = { cert = \"cert.pem\", key = \"key.pem\" }").await;
    let trusting = |pem: &str| {
        let root = reqwest::Certificate::from_pem(pem.as_bytes()).unwrap();
        client_builder().tls_certs_only([root])
    };
    let first = certify(&world);
    let router = world.router();
    let stream = router.stream().replacen("http://", "https://", 1);
    let mut streams = Vec::new();
    for (client, version) in
        [(trusting(&first), Version::HTTP_2), (trusting(&first).http1_only(), Version::HTTP_11)]
    {
        let asked = client.build().unwrap().get(format!("{stream}/bob/json")).send();
        let mut response = asked.await.unwrap();
        assert_eq!(response.version(), version);
        until(&mut response, "open").await;
        streams.push(response);
    }
    let second = trusting(&certify(&world)).build().unwrap();
    let health = format!("{stream}/v1/health");
    assert!(second.get(&health).send().await.is_err(), "the old one is in force");
    let reloaded = router.call(reqwest::Method::POST, "/admin/v1/reload", None).await;
    assert_eq!(reloaded.0, StatusCode::OK);
    assert_eq!(reloaded.1["changed"], json!(["stream.tls"]), "{}", reloaded.1);
    assert_eq!(reloaded.1["restart_needed"], json!([]), "{}", reloaded.1);
    assert_eq!(second.get(&health).send().await.unwrap().status(), StatusCode::OK);
    router.settle(&to("bob")).await;
    for response in &mut streams {
        until(response, "Order 7").await;
    }
}

fn contains(all: &[u8], part: &[u8]) -> bool {
    all.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn what_was_accepted_is_there_after_kill_9_and_since_an_id_goes_on() {
    let world = world("").await;
    let router = world.router();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let view = router.settle(&to("away")).await;
        ids.push(only(&view)["provider_message_id"].as_str().unwrap().to_owned());
    }
    router.kill();
    let router = world.router();
    let ids_of = async |query: &str| -> Vec<String> {
        let text = get(&router, &format!("/away/json?poll=1{query}")).await.text().await.unwrap();
        let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["id"].clone();
        text.lines().map(|line| id(line).as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids_of("").await, ids);
    assert_eq!(ids_of("&since=all").await, ids);
    assert_eq!(ids_of(&format!("&since={}", ids[0])).await, ids[1..]);
    assert_eq!(ids_of("&since=unknownid000").await, ids);
    assert_eq!(ids_of("&since=latest").await, ids[2..]);
    assert_eq!(ids_of("&since=none").await, [""; 0]);
    assert_eq!(ids_of("&since=1h&message=Order+7").await, ids);
    assert_eq!(ids_of("&title=other").await, [""; 0]);
    let view = router.settle(&to("away")).await;
    ids.push(only(&view)["provider_message_id"].as_str().unwrap().to_owned());
    assert_eq!(ids_of(&format!("&since={}", ids[2])).await, ids[3..]);
}

#[tokio::test]
async fn what_is_scheduled_is_shown_to_who_asks_until_it_is_taken_back() {
    let world = world("").await;
    let router = world.router();
    let now = router.settle(&to("later")).await;
    let sent = only(&now)["provider_message_id"].as_str().unwrap().to_owned();
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    let mut scheduled = to("later");
    scheduled["deliver_at"] = json!(soon.to_string());
    let post = reqwest::Method::POST;
    let (_, accepted) = router.call(post, "/v1/messages", Some(&scheduled)).await;
    let delivery = accepted["deliveries"][0]["id"].as_str().unwrap().to_owned();
    let polled = async |router: &Router, query: &str| -> Vec<Value> {
        let text = get(router, &format!("/later/json?poll=1{query}")).await.text().await.unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert_eq!(polled(&router, "").await.len(), 1, "nobody is shown what they did not ask for");
    assert_eq!(polled(&router, "&since=latest&scheduled=1").await.len(), 1);
    assert_eq!(polled(&router, "&since=none&scheduled=1").await.len(), 0);
    for query in ["&scheduled=1", "&sched=true&since=all", "&since=1h&scheduled=1"] {
        let found = polled(&router, query).await;
        assert_eq!((found.len(), &found[0]["id"]), (2, &json!(sent)), "{query}");
        let coming = &found[1];
        assert_eq!(coming["message"], "Order 7");
        assert_eq!(coming["time"], json!(soon.as_second()), "{coming}");
        assert!(coming["pushyard"].as_str().unwrap().starts_with(&delivery), "{coming}");
    }
    assert_eq!(polled(&router, "&scheduled=1&title=other").await.len(), 0, "filters hold");
    router.kill();
    let router = world.router();
    assert_eq!(polled(&router, "&scheduled=1").await.len(), 2, "it is known after kill -9");
    let path = format!("/v1/messages/{}", accepted["id"].as_str().unwrap());
    let (status, _) = router.call(reqwest::Method::DELETE, &path, None).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let gone = async {
        while polled(&router, "&scheduled=1").await.len() > 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
}

#[tokio::test]
async fn a_token_opens_its_topic_and_nothing_else() {
    let world = world("access = \"token\"").await;
    let router = world.router();
    let body = json!({"topic": "alice", "ttl": "1h"});
    let (status, made) = router.call(reqwest::Method::POST, "/v1/stream/tokens", Some(&body)).await;
    assert_eq!(status, StatusCode::OK, "{made}");
    let token = made["token"].as_str().unwrap();
    let ask = async |path: &str, token: Option<&str>| {
        let mut request = client().get(format!("{}{path}", router.stream()));
        if let Some(token) = token {
            request = request.basic_auth("", Some(token));
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(ask("/alice/auth", Some(token)).await, (200, "{\"success\":true}".to_owned()));
    assert_eq!(ask("/alice/json?poll=1", Some(token)).await.0, 200);
    for (path, token, status, code) in [
        ("/alice/json", None, 403, 40301),
        ("/alice/json", Some("wrong"), 401, 40101),
        ("/bob/json", Some(token), 401, 40101),
        ("/alice,bob/auth", Some(token), 403, 40301),
        ("/a%20b/json", Some(token), 400, 40009),
        ("/alice/json?since=x", Some(token), 400, 40008),
        ("/alice/ws", Some(token), 400, 40016),
        ("/alice/nothing", None, 404, 40401),
        ("/alice/publish", Some(token), 403, 40301),
    ] {
        let (found, text) = ask(path, token).await;
        let error: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((found, &error["code"]), (status, &json!(code)), "{path}");
        let keys: Vec<_> = error.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["code", "error", "http"], "{path}");
    }
}

#[tokio::test]
async fn too_many_topics_of_an_address_are_refused() {
    let world = world("max_topics_per_address = 2").await;
    let router = world.router();
    let mut first = get(&router, "/a,b/json").await;
    until(&mut first, "open").await;
    let refused = get(&router, "/c/json").await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.text().await.unwrap().starts_with(r#"{"code":42903,"http":429,"#));
    drop(first);
    let coming = async {
        while get(&router, "/c/json").await.status() != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, coming).await.unwrap();
}

#[tokio::test]
async fn a_subscriber_that_never_reads_is_dropped_while_another_goes_on() {
    let world = world("backlog = 100000").await;
    let router = world.router();
    let mut silent =
        TcpStream::connect(router.stream().strip_prefix("http://").unwrap()).await.unwrap();
    silent.write_all(b"GET /flood/json HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut reading = get(&router, "/flood/json").await;
    until(&mut reading, "open").await;
    router.until("/metrics", |text| figure(text, "pushyard_stream_subscribers") == Some(2.0)).await;
    let mut large = to("flood");
    large["data"] = json!({"filling": "x".repeat(50_000)});
    let lines = format!("{large}\n").repeat(400);
    let flooding = async {
        let url = format!("{}/v1/messages/batch", router.api());
        let answer = client().post(url).header("content-type", "application/x-ndjson");
        let text = answer.body(lines).send().await.unwrap().text().await.unwrap();
        assert_eq!(text.lines().filter(|line| line.contains("\"id\"")).count(), 400);
    };
    let reading = async {
        let mut seen = 0;
        while seen < 400 {
            let chunk = reading.chunk().await.unwrap().expect("who reads is served");
            seen += chunk.iter().filter(|byte| **byte == b'\n').count();
        }
    };
    tokio::time::timeout(PATIENCE, async { tokio::join!(flooding, reading) }).await.unwrap();
    router.until("/metrics", |text| figure(text, "pushyard_stream_subscribers") == Some(1.0)).await;
    drop(silent);
}

pub(super) fn figure(text: &Value, name: &str) -> Option<f64> {
    let line = text.as_str()?.lines().find(|line| line.starts_with(name))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test]
async fn the_bench_holds_subscribers_of_each_format_and_reaches_all() {
    for format in ["json", "ws", "sse"] {
        let bench = move || {
            let words = ["bench", "stream", "--subscribers", "20", "--messages", "2", "--json"];
            pushyard().args(words).args(["--format", format]).output().unwrap()
        };
        let ended = tokio::task::spawn_blocking(bench).await.unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        let figures: Value = serde_json::from_slice(&ended.stdout).unwrap();
        assert_eq!((&figures["format"], &figures["missing"]), (&json!(format), &json!(0)));
        assert_eq!(figures["subscribers_left"], 20, "{figures}");
        assert_eq!(figures["to_each"]["count"], 40, "{figures}");
        assert_eq!(figures["to_all"]["count"], 2, "{figures}");
    }
}
