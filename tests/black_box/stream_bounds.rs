//! The devices' listener towards who asks too much, and towards senders from
//! outside: every refusal in ntfy's words, and nobody else harmed.

use std::net::{IpAddr, Ipv4Addr};

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::harness::{Router, client, client_builder, only};
use super::stream::{figure, get, to, until, world};

/// Status and ntfy's code of a refusal, which has no key that clients do not know.
async fn refusal(response: Response) -> (u16, u64) {
    let status = response.status().as_u16();
    let waits = response.headers().contains_key("retry-after");
    assert_eq!(waits, status == 429 || status == 503, "{status}");
    let error: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    let keys: Vec<_> = error.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["code", "error", "http"]);
    assert_eq!(error["http"], json!(status));
    (status, error["code"].as_u64().unwrap())
}

/// A client that comes from another address of this machine.
fn from(last: u8) -> reqwest::Client {
    let address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
    client_builder().local_address(address).build().unwrap()
}

async fn subscribe(client: &reqwest::Client, router: &Router, path: &str) -> Response {
    client.get(format!("{}{path}", router.stream())).send().await.unwrap()
}

#[tokio::test]
async fn each_bound_refuses_by_its_own_name_and_others_are_served() {
    let bounds = "max_subscribers = 5\nmax_subscribers_per_address = 3\n\
                  max_subscribers_per_topic = 2\nmax_topics = 4\nmax_topics_per_address = 2";
    let world = world(bounds).await;
    let router = world.router();
    let (one, two) = (from(1), from(2));
    let mut held = Vec::new();
    for (client, path) in [(&one, "/a/json"), (&one, "/a,b/sse"), (&two, "/c/raw")] {
        let response = subscribe(client, &router, path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        held.push(response);
    }
    for (client, path, code, key) in [
        (&one, "/c/json", 42903, "max_topics_per_address"),
        (&two, "/a/json", 42903, "max_subscribers_per_topic"),
        (&from(3), "/d,e/json", 42904, "max_topics"),
    ] {
        let response = subscribe(client, &router, path).await;
        let text = response.text().await.unwrap();
        assert!(text.contains(&format!("\"code\":{code}")), "{path}: {text}");
        assert!(text.contains(&format!("stream.{key})")), "{path}: {text}");
    }
    held.push(subscribe(&one, &router, "/b/json").await);
    assert_eq!(refusal(subscribe(&one, &router, "/b/json").await).await, (429, 42903));
    held.push(subscribe(&two, &router, "/c/json").await);
    // All places are taken: a poll finds none either, and who listens is served.
    for path in ["/d/json", "/d/json?poll=1"] {
        assert_eq!(refusal(subscribe(&from(4), &router, path).await).await, (429, 42903));
    }
    router.settle(&to("a")).await;
    until(&mut held[0], "Order 7").await;
    until(&mut held[1], "Order 7").await;
}

#[tokio::test]
async fn who_floods_with_topics_is_refused_early_and_leaves_nothing() {
    let world = world("").await;
    let router = world.router();
    let mut kept = get(&router, "/mine/json").await;
    until(&mut kept, "open").await;
    let many: Vec<_> = (0..3000).map(|n| format!("t{n}")).collect();
    for round in 0..50 {
        let path = format!("/{}/json?poll={}", many.join(","), round % 2);
        assert_eq!(refusal(get(&router, &path).await).await, (429, 42903));
    }
    // Coming and going leaves no topic behind.
    for n in 0..200 {
        let mut brief = get(&router, &format!("/brief{n}/json")).await;
        until(&mut brief, "open").await;
    }
    let left = |text: &Value| {
        let now = ["pushyard_stream_subscribers", "pushyard_stream_topics"];
        now.map(|name| figure(text, name)) == [Some(1.0), Some(1.0)]
    };
    router.until("/metrics", left).await;
    router.settle(&to("mine")).await;
    until(&mut kept, "Order 7").await;
}

#[tokio::test]
async fn who_asks_too_often_waits_and_another_address_does_not() {
    let world = world("rate = { per_second = 0.01, burst = 3 }").await;
    let router = world.router();
    let one = from(1);
    for _ in 0..3 {
        let polled = subscribe(&one, &router, "/a/json?poll=1").await;
        assert_eq!(polled.status(), StatusCode::OK);
    }
    let refused = subscribe(&one, &router, "/a/json?poll=1").await;
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((90..=101).contains(&wait), "{wait}");
    assert_eq!(refusal(refused).await, (429, 42901));
    assert_eq!(subscribe(&from(2), &router, "/a/json?poll=1").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn many_bad_tokens_are_refused_and_a_good_one_passes() {
    let world = world("access = \"token\"").await;
    let router = world.router();
    let body = json!({"topic": "alice", "ttl": "1h"});
    let (_, made) = router.call(Method::POST, "/v1/stream/tokens", Some(&body)).await;
    let ask = async |token: &str| {
        let url = format!("{}/alice/auth", router.stream());
        client().get(url).bearer_auth(token).send().await.unwrap()
    };
    for _ in 0..30 {
        assert_eq!(refusal(ask("wrong").await).await, (401, 40101));
    }
    assert_eq!(refusal(ask("wrong").await).await, (429, 42909));
    assert_eq!(ask(made["token"].as_str().unwrap()).await.status(), StatusCode::OK);
}

async fn push(router: &Router, path: &str, body: &[u8], header: (&str, &str)) -> Response {
    let request = client().post(format!("{}{path}", router.stream())).body(body.to_vec());
    request.header(header.0, header.1).send().await.unwrap()
}

#[tokio::test]
async fn a_unifiedpush_sender_reaches_a_distributor_without_a_credential() {
    let world = world("access = \"token\"\nunifiedpush = true").await;
    let router = world.router();
    let body = json!({"topic": "upAbCdEf123456", "ttl": "1h"});
    let (_, made) = router.call(Method::POST, "/v1/stream/tokens", Some(&body)).await;
    let asked = client()
        .get(format!("{}/upAbCdEf123456/json", router.stream()))
        .bearer_auth(made["token"].as_str().unwrap());
    let mut distributor = asked.send().await.unwrap();
    until(&mut distributor, "open").await;

    let found = get(&router, "/upAbCdEf123456?up=1").await;
    assert_eq!(found.headers()["access-control-allow-origin"], "*");
    assert_eq!(found.text().await.unwrap(), r#"{"unifiedpush":{"version":1}}"#);

    let vapid = ("authorization", "vapid t=a.b.c, k=d");
    let taken = push(&router, "/upAbCdEf123456?up=1", &[0xFF, 0x00], vapid).await;
    assert_eq!(taken.status(), StatusCode::OK);
    assert_eq!(taken.headers()["content-type"], "application/json");
    let told = taken.text().await.unwrap();
    let message: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(message["topic"], "upAbCdEf123456");
    assert_eq!((&message["message"], &message["encoding"]), (&json!("/wA="), &json!("base64")));
    assert_eq!(until(&mut distributor, "\n").await, told);
    // Plain Web Push says only how it is encrypted.
    let encrypted = ("content-encoding", "aes128gcm");
    let whole = [b' '; 4096];
    let taken = push(&router, "/upAbCdEf123456", &whole, encrypted).await;
    assert_eq!(taken.status(), StatusCode::OK);
    until(&mut distributor, &" ".repeat(4096)).await;

    for (path, body, header, wanted) in [
        ("/upAbCdEf123456?up=1", &[b'x'; 4097][..], ("ttl", "60"), (413, 41301)),
        ("/upAbCdEf123456", b"x", ("ttl", "60"), (403, 40301)),
        ("/alice?up=1", b"x", ("ttl", "60"), (403, 40301)),
        ("/up%20x?up=1", b"x", ("ttl", "60"), (400, 40009)),
    ] {
        assert_eq!(refusal(push(&router, path, body, header).await).await, wanted, "{path}");
    }
    let stats = get(&router, "/v1/stats").await.text().await.unwrap();
    assert!(stats.starts_with(r#"{"messages":2,"messages_rate":0.00"#), "{stats}");
}

#[tokio::test]
async fn where_unifiedpush_is_off_nobody_is_told_otherwise() {
    let world = world("unifiedpush = false").await;
    let router = world.router();
    let page = get(&router, "/upAbCdEf123456?up=1").await.text().await.unwrap();
    assert!(!page.contains("unifiedpush"), "{page}");
    let refused = push(&router, "/upAbCdEf123456?up=1", b"x", ("ttl", "60")).await;
    assert_eq!(refusal(refused).await, (403, 40301));
}

#[tokio::test]
async fn publishing_is_refused_in_each_of_its_ways() {
    let world = world("").await;
    let router = world.router();
    let view = router.settle(&to("a")).await;
    assert_eq!(only(&view)["state"], "sent", "{view}");
    for (method, path, wanted) in [
        (Method::POST, "/", (403, 40301)),
        (Method::PUT, "/a", (403, 40301)),
        (Method::GET, "/a/trigger", (403, 40301)),
        (Method::PUT, "/a/sequence", (403, 40301)),
        (Method::PUT, "/a/sequence/clear", (403, 40301)),
        (Method::DELETE, "/a/sequence", (403, 40301)),
        (Method::GET, "/docs/json", (400, 40010)),
        (Method::GET, "/v1/account", (404, 40401)),
    ] {
        let url = format!("{}{path}", router.stream());
        let response = client().request(method, url).send().await.unwrap();
        assert_eq!(refusal(response).await, wanted, "{path}");
    }
}
