//! The stand-ins of self-hosted servers, as an ordinary HTTP client meets them.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Sim, now, reqwest_client};

const ID: &str = "0197aaaa-bbbb-7ccc-8ddd-eeeeffff0000";

/// A client that trusts the simulator, and one vendor's origin.
struct Http {
    client: reqwest::Client,
    origin: String,
}

impl Http {
    fn new(sim: &Sim, vendor: &str) -> Self {
        let announcement = sim.simulator.announcement();
        let client = reqwest_client(sim);
        Self { client, origin: announcement.vendors[vendor].clone() }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.origin))
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let answer = self.request(Method::GET, path).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }
}

async fn answer(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
}

fn signed(http: &Http, secret: &str, at: u64, id: &str, body: &str) -> RequestBuilder {
    let key = STANDARD.decode(secret.trim().strip_prefix("whsec_").unwrap()).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let signature = STANDARD.encode(hmac::sign(&key, format!("{id}.{at}.{body}").as_bytes()));
    http.post("/push")
        .header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", at)
        .header("webhook-signature", format!("v9,ignored v1,{signature}"))
        .body(body.to_owned())
}

fn push(address: &str) -> String {
    let data = json!({ "id": address, "pushyard": format!("{ID}.secret") });
    json!({ "type": "push", "timestamp": "2026-12-01T08:00:00.000Z", "data": data }).to_string()
}

#[tokio::test]
async fn a_webhook_takes_two_secrets_and_remembers_ids() {
    let sim = Sim::start().await;
    let http = Http::new(&sim, "webhook");
    for (n, file) in ["webhook.secret", "webhook-old.secret"].iter().enumerate() {
        let secret = std::fs::read_to_string(sim.dir.path().join(file)).unwrap();
        let taken = answer(signed(&http, &secret, now(), ID, &push("alice"))).await;
        assert_eq!(taken, (200, json!({ "duplicate": n == 1 })));
    }
    let summary = sim.simulator.control().summary();
    assert_eq!((summary.unique, summary.duplicates), (1, 1));
}

#[tokio::test]
async fn a_webhook_refuses_what_is_not_signed_now_by_a_secret_of_its_own() {
    let sim = Sim::start().await;
    let http = Http::new(&sim, "webhook");
    let secret = std::fs::read_to_string(sim.dir.path().join("webhook.secret")).unwrap();
    let other = format!("whsec_{}", STANDARD.encode([7; 32]));
    let now = now();
    for (request, status) in [
        (signed(&http, &other, now, ID, &push("a")), 401),
        (signed(&http, &secret, now - 400, ID, &push("a")), 401),
        (signed(&http, &secret, now + 400, ID, &push("a")), 401),
        (signed(&http, &secret, now, ID, &push("a")).body(push("b")), 401),
        (http.post("/push").header("content-type", "application/json").body("{}"), 400),
        (signed(&http, &secret, now, ID, "not json"), 400),
        (signed(&http, &secret, now, ID, "{}"), 422),
        (signed(&http, &secret, now, ID, &push("gone-1")), 410),
        (signed(&http, &secret, now, ID, &push("429ra7-1")), 429),
    ] {
        assert_eq!(answer(request).await.0, status);
    }
    assert_eq!(sim.simulator.control().summary().unique, 0);
}

#[tokio::test]
async fn ntfy_takes_json_and_headers_and_shows_both_to_subscribers() {
    let sim = Sim::start().await;
    let http = Http::new(&sim, "ntfy");
    let json = json!({"topic": "alice", "message": "Grüße", "title": "T", "priority": 4,
        "tags": ["tada"], "sequence_id": "order-7"});
    let (status, first) =
        answer(http.post("/").header("x-pushyard", format!("{ID}.s")).json(&json)).await;
    assert_eq!((status, &first["event"], &first["priority"]), (200, &json!("message"), &json!(4)));
    assert_eq!(first["id"].as_str().unwrap().len(), 12);
    let put = http.request(Method::PUT, "/alice").header("Title", "Second").header("Tags", "a, b");
    let (status, second) = answer(put.body("two\nlines")).await;
    assert_eq!((status, &second["tags"]), (200, &json!(["a", "b"])));

    let (_, text) = http.get("/alice/json?poll=1").await;
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, [first.clone(), second.clone()]);
    assert_eq!(http.get("/alice/raw?poll=1").await.1, "Grüße\ntwo lines\n");
    let after = format!("/alice/sse?poll=1&since={}", first["id"].as_str().unwrap());
    assert_eq!(http.get(&after).await.1, format!("data: {second}\n\n"));
    for (since, count) in [("all", 2), ("none", 0), ("latest", 1), ("10m", 2), ("1", 2)] {
        let (_, text) = http.get(&format!("/alice/json?poll=1&since={since}")).await;
        assert_eq!(text.lines().count(), count, "{since}");
    }
    assert_eq!(http.get("/alice/json?since=soon").await.0, 400);
    let (_, open) = http.get("/alice,bob/json").await;
    let open: Value = serde_json::from_str(open.trim_end()).unwrap();
    assert_eq!((&open["event"], &open["topic"]), (&json!("open"), &json!("alice,bob")));
    assert_eq!(sim.simulator.control().arrivals(0, 9).items[0].delivery, ID);
}

#[tokio::test]
async fn ntfy_refuses_by_its_own_codes() {
    let sim = Sim::start().await;
    let http = Http::new(&sim, "ntfy");
    let json = |body: Value| http.post("/").json(&body);
    let topic = |topic: &str| json(json!({"topic": topic, "message": "m"}));
    let with = |key: &str, value: Value| json(json!({"topic": "t", "message": "m", key: value}));
    for (request, status, code) in [
        (topic("a b"), 400, 40009),
        (topic("docs"), 400, 40010),
        (with("priority", json!("high")), 400, 40024),
        (with("priority", json!(6)), 400, 40007),
        (with("tags", json!("a")), 400, 40024),
        (with("actions", json!([{"action": "view", "label": "x"}])), 400, 40018),
        (with("attach", json!("x")), 400, 40013),
        (with("icon", json!("x")), 400, 40021),
        (with("delay", json!("soon")), 400, 40004),
        (with("delay", json!("5s")), 400, 40005),
        (with("delay", json!("4d")), 400, 40006),
        (with("message", json!("a".repeat(4096))), 400, 40014),
        (with("message", json!("a".repeat(9000))), 413, 41303),
        (http.post("/t").body("a".repeat(4096)), 400, 40014),
        (http.post("/a/b/c").body("m"), 404, 40401),
        (topic("private-x"), 403, 40301),
        (topic("t").header("authorization", "Bearer tk_wrong"), 401, 40101),
        (topic("429-x"), 429, 42901),
        (topic("500-x"), 500, 50001),
    ] {
        let (got, body) = answer(request).await;
        assert_eq!((got, &body["code"], &body["http"]), (status, &json!(code), &json!(status)));
        assert!(body["error"].is_string());
    }
    assert!(answer(with("message", json!("a".repeat(4095)))).await.0 == 200);
}

#[tokio::test]
async fn ntfy_knows_its_account_in_each_form() {
    let sim = Sim::start().await;
    let http = Http::new(&sim, "ntfy");
    let token = "tk_simulated00000000000000000000";
    let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
    for (value, status) in [
        (format!("Bearer {token}"), 200),
        (basic("simulated:simulated-password"), 200),
        (basic(&format!(":{token}")), 200),
        (basic("simulated:wrong"), 401),
        ("WebPush x".to_owned(), 403),
    ] {
        let request = http.post("/private-x").header("authorization", value).body("m");
        assert_eq!(answer(request).await.0, status);
    }
    assert_eq!(http.get("/v1/health").await.1, "{\"healthy\":true}\n");
}

#[tokio::test]
async fn gotify_wants_an_applications_token_and_pages_backwards() {
    let sim = Sim::start().await;
    let http = Http::new(&sim, "gotify");
    let create =
        |token: &str, body: Value| http.post("/message").header("x-gotify-key", token).json(&body);
    for n in 1..=5 {
        let (status, message) = answer(create("A1", json!({"message": format!("m{n}")}))).await;
        assert_eq!((status, &message["id"]), (200, &json!(n)));
    }
    let (_, text) = http.get("/message?limit=2&since=5&token=C1").await;
    let page: Value = serde_json::from_str(&text).unwrap();
    let ids: Vec<_> = page["messages"].as_array().unwrap().iter().map(|m| &m["id"]).collect();
    assert_eq!(ids, [&json!(4), &json!(3)]);
    assert_eq!(page["paging"]["since"], 3);
    for (request, status) in [
        (http.post("/message").json(&json!({"message": "m"})), 401),
        (create("gone-1", json!({"message": "m"})), 401),
        (create("C1", json!({"message": "m"})), 403),
        (create("A1", json!({"title": "t"})), 400),
        (create("A1", json!({"message": "m", "priority": "high"})), 400),
        (create("503-1", json!({"message": "m"})), 503),
        (http.post("/messages").header("x-gotify-key", "A1"), 404),
    ] {
        let (got, body) = answer(request).await;
        assert_eq!((got, &body["errorCode"]), (status, &json!(status)));
    }
    assert_eq!(http.get("/health").await.1, r#"{"database":"green","health":"green"}"#);
    assert_eq!(sim.vendor("gotify").accepted, 5);
}
