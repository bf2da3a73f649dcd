//! The calls on single messages, from end to end.

use std::time::Duration;

use axum::body::Body;
use axum::http::Method;
use pushyard_providers::Outcome;
use serde_json::{Value, json};

use super::harness::{
    Answered, House, PANICS, SMALL, Setup, TOO_LARGE_FOR_APNS, client, post, request, slow_client,
    until, with,
};
use crate::api::Client;
use crate::clock::Utc;
use crate::dispatch::{Cancelled, Limits, Rejected};
use crate::model::{Attempt, Durability, MessageId, OnAmbiguous, Progress, Reason, State};
use crate::routing::Rate;

const FULL: &str = r#"{
  "to": [
    {"ref": "alice-iphone", "region": "eu", "addresses": [
      {"kind": "apns", "token": "9f00", "app": "com.example.shop",
       "registered_at": "2026-01-02T03:04:05Z"},
      {"kind": "fcm", "token": "e1", "provider": "fcm"}]},
    {"addresses": [{"kind": "fcm", "topic": "news"}]}],
  "notification": {"title": "Paid", "body": "Order 7", "image": "https://e.com/i.png",
                   "url": "https://e.com", "sound": "default", "badge": 3, "category": "order",
                   "thread": "orders", "tag": "order-7"},
  "data": {"order": "7"},
  "priority": "normal", "ttl": "4h", "collapse_key": "order-7",
  "route": "default", "on_ambiguous": "stop", "durability": "memory",
  "overrides": {"apns": {"aps": {"interruption-level": "time-sensitive"}}, "fcm": {"android": {}}},
  "metadata": {"campaign": "autumn"}
}"#;

fn id(answer: &Value) -> MessageId {
    answer["id"].as_str().unwrap().parse().unwrap()
}

fn at(state: State) -> Progress {
    Progress { state, ..Progress::queued(Utc::from_ms(1_764_576_000_007)) }
}

#[tokio::test]
async fn a_message_with_everything_is_taken_as_it_is() {
    let house = House::new(Setup::default());
    let answer = house.post(FULL).await;
    assert_eq!(answer.status, 202, "{}", answer.json());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let message_id = id(&answer.json());
    let expected = json!({"id": message_id.to_string(), "state": "queued", "deliveries": [
        {"id": message_id.delivery(0).to_string(), "ref": "alice-iphone"},
        {"id": message_id.delivery(1).to_string(), "ref": null}]});
    assert_eq!(answer.json(), expected);
    let message = house.world.lock().unwrap().messages[&message_id].clone();
    assert_eq!((&*message.client, &*message.route), ("local", "default"));
    assert_eq!(message.ttl, Duration::from_secs(4 * 3600));
    assert_eq!(message.on_ambiguous, OnAmbiguous::Stop);
    assert_eq!(message.durability, Durability::Memory);
    assert_eq!(message.push.priority.word(), "normal");
    assert_eq!(message.push.notification.as_ref().unwrap().badge, Some(3));
    let patch = r#"{"aps":{"interruption-level":"time-sensitive"}}"#;
    assert_eq!(message.push.overrides["apns"], patch);
    let addresses = &message.recipients[0].addresses;
    assert_eq!(addresses[0].get("app"), Some("com.example.shop"));
    assert_eq!(addresses[0].registered_at(), Some(1_767_323_045_000));
    assert_eq!(addresses[1].provider(), Some("fcm"));
    assert_eq!(house.counted("local", "accepted"), 1);
}

#[tokio::test]
async fn defaults_are_as_documented() {
    let house = House::new(Setup::default());
    let message = |body: &Value| house.world.lock().unwrap().messages[&id(body)].clone();
    let quiet = message(&house.post(SMALL).await.json());
    assert_eq!(quiet.push.priority.word(), "normal");
    assert_eq!(quiet.ttl, Duration::from_secs(24 * 3600));
    assert_eq!(quiet.on_ambiguous, OnAmbiguous::Resend);
    assert_eq!(quiet.durability, Durability::Disk);
    let mut loud: Value = serde_json::from_str(SMALL).unwrap();
    loud["notification"] = json!({"title": "hi"});
    loud["deliver_at"] = json!("2020-01-01T00:00:00Z");
    loud["ttl"] = json!(30);
    let loud = message(&house.post(loud.to_string()).await.json());
    assert_eq!(loud.push.priority.word(), "high");
    assert_eq!(loud.ttl, Duration::from_secs(30));
    assert_eq!(loud.deliver_at, None, "the past means now");
}

#[tokio::test]
async fn who_cannot_be_served_is_born_failed_and_unknown_users_are_told() {
    let house = House::new(Setup::default());
    let body = json!({"to": [
        {"ref": "a", "addresses": [{"kind": "fcm", "token": "t"}]},
        {"user": "bob"},
        {"ref": "c", "addresses": [{"kind": "apns", "token": "ab", "app": "com.other"}]},
    ], "data": {"a": "b"}});
    let answer = house.post(body.to_string()).await;
    assert_eq!(answer.status, 202);
    let accepted = answer.json();
    let unresolved = json!([{"index": 1, "user": "bob", "reason": "no_devices"}]);
    assert_eq!(accepted["unresolved"], unresolved);
    assert_eq!(accepted["deliveries"].as_array().unwrap().len(), 2);
    let view = house.get(&format!("/v1/messages/{}", id(&accepted))).await.json();
    assert_eq!(view["counts"], json!({"queued": 1, "failed": 1}));
    assert_eq!(view["deliveries"]["items"][1]["reason"], "no_route");
    assert_eq!(view["state"], "sending");
}

#[tokio::test]
async fn a_vendor_that_cannot_take_the_message_is_a_warning_and_the_last_one_a_fault() {
    let house = House::new(Setup::default());
    let body = |addresses: Value| {
        json!({"to": [{"addresses": addresses}], "notification": {"title": TOO_LARGE_FOR_APNS}})
            .to_string()
    };
    let both = json!([{"kind": "apns", "token": "ab"}, {"kind": "fcm", "token": "t"}]);
    let answer = house.post(body(both)).await;
    assert_eq!(answer.status, 202);
    let reason = "apns cannot take this message: \
                  the payload has 5000 bytes, at most 4096 are taken (too_large)";
    let warning = json!([{"pointer": "", "detail": format!("{reason}; it is left out")}]);
    assert_eq!(answer.json()["warnings"], warning);
    let answer = house.post(body(json!([{"kind": "apns", "token": "ab"}]))).await;
    assert_eq!(answer.problem(), (422, "invalid".to_owned()));
    let fault = json!([{"pointer": "", "detail": reason, "code": "too_large"}]);
    assert_eq!(answer.json()["errors"], fault);
}

#[tokio::test]
async fn what_a_vendor_refuses_is_pointed_at() {
    let house = House::new(Setup::default());
    let body = |addresses: Value| {
        json!({
            "to": [{"addresses": addresses}],
            "data": {"a": "b"},
            "overrides": {"apns": {"refused": 1}},
        })
        .to_string()
    };
    let both = json!([{"kind": "apns", "token": "ab"}, {"kind": "fcm", "token": "t"}]);
    let warned = house.post(body(both)).await;
    assert_eq!(warned.status, 202);
    assert_eq!(warned.json()["warnings"][0]["pointer"], "/overrides/apns/refused");
    let refused = house.post(body(json!([{"kind": "apns", "token": "ab"}]))).await;
    assert_eq!(refused.problem(), (422, "invalid".to_owned()));
    assert_eq!(refused.json()["errors"][0]["pointer"], "/overrides/apns/refused");
}

#[tokio::test]
async fn keys_are_needed_as_soon_as_there_are_clients() {
    let ops = Client { admin: true, ..client("ops") };
    let bound = Client { routes: Some(vec!["europe".into()]), ..client("bound") };
    let clients = vec![client("shop"), client("bank"), ops, bound];
    let house = House::new(Setup { clients, ..Setup::default() });
    let as_ = |request, name: &str| with(request, "authorization", &format!("Bearer key-{name}"));
    for request in [
        post("/v1/messages", SMALL),
        as_(post("/v1/messages", SMALL), "nobody"),
        post("/v1/messages/batch", SMALL),
        request(Method::GET, "/v1/messages/x", Body::empty()),
        request(Method::DELETE, "/v1/messages/x", Body::empty()),
    ] {
        let answer = house.send(request).await;
        assert_eq!(answer.problem(), (401, "unauthenticated".to_owned()));
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    let accepted = house.send(as_(post("/v1/messages", SMALL), "shop")).await;
    assert_eq!(accepted.status, 202);
    let path = format!("/v1/messages/{}", id(&accepted.json()));
    for (name, status) in [("shop", 200), ("bank", 404), ("ops", 200)] {
        let get = as_(request(Method::GET, &path, Body::empty()), name);
        assert_eq!(house.send(get).await.status, status, "{name}");
    }
    let forbidden = house.send(as_(post("/v1/messages", SMALL), "bound")).await;
    assert_eq!(forbidden.problem(), (403, "forbidden".to_owned()));
    assert_eq!(house.get("/openapi.json").await.status, 200);
    assert_eq!(house.counted("shop", "accepted"), 1);
}

#[tokio::test]
async fn a_rejection_says_when_to_come_again() {
    let house = House::new(Setup::default());
    let after = Duration::from_millis(1500);
    for (rejected, status, code, seconds) in [
        (Rejected::QueueFull(after), 503, "queue_full", 2..=2),
        (Rejected::ClientQueueFull(Duration::from_secs(7)), 429, "client_queue_full", 7..=8),
        (Rejected::Overloaded(Duration::ZERO), 503, "overloaded", 1..=2),
        (Rejected::StoreUnavailable(after), 503, "store_unavailable", 2..=2),
        (Rejected::ShuttingDown, 503, "shutting_down", 5..=6),
    ] {
        house.world.lock().unwrap().rejections.push(rejected);
        let answer = house.post(SMALL).await;
        assert_eq!(answer.problem(), (status, code.to_owned()));
        let told: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!(seconds.contains(&told), "{code}: {told}");
    }
    assert_eq!(house.counted("local", "rejected"), 5);
}

#[tokio::test(start_paused = true)]
async fn a_client_over_its_rate_is_429_until_its_time_has_come() {
    let house = House::new(Setup { clients: vec![slow_client("shop", 0.5)], ..Setup::default() });
    let send = || house.send(with(post("/v1/messages", SMALL), "authorization", "Bearer key-shop"));
    assert_eq!(send().await.status, 202);
    let refused = send().await;
    assert_eq!(refused.problem(), (429, "rate_limited".to_owned()));
    assert!(matches!(refused.header("retry-after"), Some("2" | "3")));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(send().await.status, 202);
    assert_eq!(house.counted("shop", "rate_limited"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_with_a_rate_is_told_what_is_left_with_every_answer() {
    let rate = Some(Rate { per_second: 0.5, burst: 2.0 });
    let clients = vec![Client { rate, ..client("shop") }, client("free")];
    let house = House::new(Setup { clients, ..Setup::default() });
    let told = |answer: &Answered| {
        let names = ["", "-limit", "-remaining", "-reset", "-policy"];
        let values = names.map(|name| answer.header(&format!("ratelimit{name}")));
        values.map(|value| value.unwrap_or("none").to_owned()).join(" ")
    };
    let policy = "\"messages\";q=2;w=4";
    for (request, status, left) in [
        (request(Method::GET, "/v1/messages", ""), 200, "\"messages\";r=2;t=0 2 2 0"),
        (post("/v1/messages", SMALL), 202, "\"messages\";r=1;t=2 2 1 2"),
        (post("/v1/messages", "{}"), 422, "\"messages\";r=1;t=2 2 1 2"),
        (post("/v1/messages", SMALL), 202, "\"messages\";r=0;t=4 2 0 4"),
        (post("/v1/messages", SMALL), 429, "\"messages\";r=0;t=4 2 0 4"),
        (request(Method::GET, "/v1/messages/x", ""), 404, "\"messages\";r=0;t=4 2 0 4"),
    ] {
        let answer = house.send(with(request, "authorization", "Bearer key-shop")).await;
        assert_eq!(answer.status, status);
        assert_eq!(told(&answer), format!("{left} {policy}"));
    }
    for key in ["Bearer key-free", "Bearer wrong"] {
        let answer = house.send(with(post("/v1/messages", SMALL), "authorization", key)).await;
        assert_eq!(told(&answer), "none none none none none");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_and_a_faulty_body_cost_nothing_of_the_rate() {
    let house = House::new(Setup { clients: vec![slow_client("shop", 0.5)], ..Setup::default() });
    let send = |body: &'static str, key: &str| {
        let request = with(post("/v1/messages", body), "authorization", "Bearer key-shop");
        house.send(with(request, "idempotency-key", key))
    };
    for (body, status) in [("{", 400), ("{}", 422)] {
        assert_eq!(send(body, "other").await.status, status);
    }
    assert_eq!(send(SMALL, "k").await.status, 202);
    // The burst of one is used up; what is answered already is answered again.
    for _ in 0..3 {
        let again = send(SMALL, "k").await;
        assert_eq!(
            (again.status.as_u16(), again.header("idempotent-replayed")),
            (202, Some("true"))
        );
        assert_eq!(send("{}", "other").await.status, 422);
    }
    assert_eq!(send(SMALL, "new").await.status, 429);
}

#[tokio::test]
async fn a_faulty_query_parameter_is_named_in_errors() {
    let house = House::new(Setup::default());
    let answer = house.send(post("/v1/messages?wait=2h", SMALL)).await;
    assert_eq!(answer.problem(), (422, "invalid".to_owned()));
    assert_eq!(answer.json()["errors"][0]["pointer"], "/query/wait");
    assert_eq!(answer.json()["errors"][0]["code"], "invalid_value");
}

#[tokio::test]
async fn the_same_key_and_body_gives_the_first_answer_again() {
    let house = House::new(Setup::default());
    let send = |body: &str, key: &str| {
        house.send(with(post("/v1/messages", body.to_owned()), "idempotency-key", key))
    };
    let first = send(SMALL, "k 1").await;
    assert_eq!((first.status.as_u16(), first.header("idempotent-replayed")), (202, None));
    let again = send(SMALL, "k 1").await;
    assert_eq!((again.status.as_u16(), &again.body), (202, &first.body));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let other = send(&SMALL.replace("t1", "t2"), "k 1").await;
    assert_eq!(other.problem(), (422, "idempotency_mismatch".to_owned()));
    assert_ne!(send(SMALL, "k 2").await.body, first.body);
    assert_eq!(house.world.lock().unwrap().submissions, 2);
    assert_eq!(house.counted("local", "replayed"), 1);
}

#[tokio::test]
async fn the_key_may_stand_in_the_body() {
    let house = House::new(Setup::default());
    let body = SMALL.replace(r#""data""#, r#""idempotency_key":"k","data""#);
    let first = house.post(body.clone()).await;
    let both = house.send(with(post("/v1/messages", body), "idempotency-key", "k")).await;
    assert_eq!(both.body, first.body);
}

#[tokio::test]
async fn a_refused_message_leaves_its_key_free() {
    let house = House::new(Setup::default());
    house.world.lock().unwrap().rejections.push(Rejected::Overloaded(Duration::ZERO));
    let send = || house.send(with(post("/v1/messages", SMALL), "idempotency-key", "k"));
    assert_eq!(send().await.status, 503);
    let accepted = send().await;
    assert_eq!(accepted.status, 202);
    assert_eq!(accepted.header("idempotent-replayed"), None);
}

#[tokio::test]
async fn a_repeat_that_overtakes_the_commit_waits_for_it() {
    let house = House::new(Setup::default());
    house.world.lock().unwrap().hold = true;
    let send = || house.send(with(post("/v1/messages", SMALL), "idempotency-key", "k"));
    let release = async {
        until(|| house.world.lock().unwrap().held() == 1).await;
        house.world.lock().unwrap().release();
    };
    let (first, second, ()) = tokio::join!(send(), send(), release);
    assert_eq!(first.body, second.body);
    assert_eq!(house.world.lock().unwrap().submissions, 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_frees_no_key_and_a_repeat_does_not_wait_for_ever() {
    let house = House::new(Setup::default());
    house.world.lock().unwrap().hold = true;
    let send = || house.send(with(post("/v1/messages", SMALL), "idempotency-key", "k"));
    tokio::select! {
        answer = send() => panic!("is held: {answer:?}"),
        () = until(|| house.world.lock().unwrap().held() == 1) => {}
    }
    let repeat = send().await;
    assert_eq!(repeat.problem(), (409, "idempotency_in_progress".to_owned()));
    house.world.lock().unwrap().release();
    let replayed = send().await;
    assert_eq!(replayed.header("idempotent-replayed"), Some("true"));
    assert_eq!(house.world.lock().unwrap().messages.len(), 1);
}

#[tokio::test]
async fn the_view_is_exactly_this() {
    let house = House::new(Setup::default());
    let message = id(&house.post(FULL).await.json());
    let attempt = Attempt {
        n: 1,
        provider: "fcm".into(),
        kind: "fcm".into(),
        address: 1,
        outcome: Outcome::Unavailable,
        status: Some(503),
        code: Some("UNAVAILABLE".into()),
        detail: None,
        started_at: Utc::from_ms(1_764_576_000_007),
        latency_ms: 12,
    };
    let sent = Progress {
        provider: Some("apns".into()),
        provider_message_id: Some("v-1".into()),
        attempts: vec![attempt],
        ..at(State::Sent)
    };
    let waiting = Progress {
        reason: Some(Reason::Backoff),
        next_at: Some(Utc::from_ms(1_764_576_002_000)),
        ..at(State::Waiting)
    };
    {
        let mut world = house.world.lock().unwrap();
        world.progress.insert(message, vec![(0, sent)]);
        // The dispatcher is a moment behind the store.
        world.live.insert(message, vec![(0, at(State::Sending)), (1, waiting)]);
    }
    let answer = house.get(&format!("/v1/messages/{message}")).await;
    assert_eq!(answer.status, 200);
    let expires_at = message.accepted_at().plus(Duration::from_secs(4 * 3600));
    let mut text = String::from_utf8(answer.body).unwrap();
    for (shown, short) in [
        (message.to_string(), "MESSAGE"),
        (message.delivery(0).to_string(), "DELIVERY-0"),
        (message.delivery(1).to_string(), "DELIVERY-1"),
        (message.accepted_at().rfc3339(), "ACCEPTED"),
        (expires_at.rfc3339(), "EXPIRES"),
    ] {
        text = text.replace(&shown, short);
    }
    insta::assert_snapshot!(text, @r#"{"id":"MESSAGE","state":"sending","route":"default","priority":"normal","accepted_at":"ACCEPTED","expires_at":"EXPIRES","metadata":{"campaign":"autumn"},"counts":{"waiting":1,"sent":1},"deliveries":{"items":[{"id":"DELIVERY-0","ref":"alice-iphone","state":"sent","reason":null,"provider":"apns","provider_message_id":"v-1","next_at":null,"attempts":[{"n":1,"provider":"fcm","kind":"fcm","outcome":"Unavailable","status":503,"code":"UNAVAILABLE","detail":null,"started_at":"2025-12-01T08:00:00.007Z","latency_ms":12}]},{"id":"DELIVERY-1","ref":null,"state":"waiting","reason":"backoff","provider":null,"provider_message_id":null,"next_at":"2025-12-01T08:00:02.000Z","attempts":[]}],"next":null}}"#);
}

#[tokio::test]
async fn deliveries_are_paged() {
    let house = House::new(Setup::default());
    let to: Vec<Value> = (0..250)
        .map(|n| json!({"ref": n.to_string(), "addresses": [{"kind": "fcm", "token": "t"}]}))
        .collect();
    let body = json!({"to": to, "data": {"a": "b"}}).to_string();
    let path = format!("/v1/messages/{}", id(&house.post(body).await.json()));
    let (mut seen, mut query) = (Vec::new(), String::from("?limit=90"));
    loop {
        let view = house.get(&format!("{path}{query}")).await.json();
        assert_eq!(view["counts"], json!({"queued": 250}));
        let items = view["deliveries"]["items"].as_array().unwrap().clone();
        seen.extend(items.iter().map(|item| item["ref"].as_str().unwrap().to_owned()));
        match view["deliveries"]["next"].as_str() {
            Some(next) => query = format!("?limit=90&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, (0..250).map(|n| n.to_string()).collect::<Vec<_>>());
    let first = house.get(&path).await.json();
    assert_eq!(first["deliveries"]["items"].as_array().unwrap().len(), 100);
    for query in ["limit=0", "limit=1001", "limit=x", "cursor=x"] {
        let parameter = query.split('=').next().unwrap();
        let answer = house.get(&format!("{path}?{query}")).await;
        assert_eq!(answer.problem(), (422, "invalid".to_owned()), "{query}");
        assert_eq!(answer.json()["errors"][0]["pointer"], format!("/query/{parameter}"));
    }
}

#[tokio::test]
async fn what_is_not_there_is_404() {
    let house = House::new(Setup::default());
    let unknown = "/v1/messages/0197a3c0-0000-7000-8000-000000000000";
    for path in ["/", "/v1", "/v1/messages/", unknown, "/v1/messages/no-id", "/v2/messages"] {
        assert_eq!(house.get(path).await.problem(), (404, "not_found".to_owned()), "{path}");
    }
    let delete = request(Method::DELETE, unknown, Body::empty());
    assert_eq!(house.send(delete).await.problem(), (404, "not_found".to_owned()));
}

#[tokio::test]
async fn a_cancellation_counts_and_a_settled_message_is_409() {
    let house = House::new(Setup::default());
    let message = id(&house.post(FULL).await.json());
    let path = format!("/v1/messages/{message}");
    let delete = || house.send(request(Method::DELETE, &path, Body::empty()));
    house.world.lock().unwrap().cancelled = Cancelled { cancelled: 1, in_flight: 0 };
    let answer = delete().await;
    assert_eq!(answer.status, 202);
    let expected = json!({"id": message.to_string(), "cancelled": 1, "in_flight": 0, "settled": 1});
    assert_eq!(answer.json(), expected);
    house.world.lock().unwrap().cancelled = Cancelled::default();
    assert_eq!(delete().await.problem(), (409, "settled".to_owned()));
}

#[tokio::test]
async fn waiting_ends_with_the_last_delivery() {
    let house = House::new(Setup::default());
    let settle = async {
        until(|| house.world.lock().unwrap().waiting() == 1).await;
        let mut world = house.world.lock().unwrap();
        let message = *world.messages.keys().next().unwrap();
        world.progress.insert(message, vec![(0, at(State::Sent))]);
        world.settle();
    };
    let (answer, ()) = tokio::join!(house.send(post("/v1/messages?wait=60s", SMALL)), settle);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["state"], "sent");
    assert_eq!(answer.json()["deliveries"]["items"][0]["state"], "sent");
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_with_the_time_or_with_the_server() {
    let house = House::new(Setup::default());
    let answer = house.send(post("/v1/messages?wait=10s", SMALL)).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.json()["counts"], json!({"queued": 1}));
    let stop = async {
        until(|| house.world.lock().unwrap().waiting() == 2).await;
        house.closed.cancel();
    };
    let before = house.clock.now().instant;
    let (answer, ()) = tokio::join!(house.send(post("/v1/messages?wait=60", SMALL)), stop);
    assert_eq!(answer.status, 202);
    assert!(house.clock.now().instant - before < Duration::from_secs(30));
    assert_eq!(house.post(SMALL).await.problem(), (503, "shutting_down".to_owned()));
}

#[tokio::test]
async fn every_answer_carries_a_request_id() {
    let house = House::new(Setup::default());
    let mine = with(request(Method::GET, "/nowhere", Body::empty()), "x-request-id", "my id 1");
    assert_eq!(house.send(mine).await.header("x-request-id"), Some("my id 1"));
    for bad in ["", &"x".repeat(129)] {
        let request = with(post("/v1/messages", "{"), "x-request-id", bad);
        let answer = house.send(request).await;
        assert_eq!(answer.header("x-request-id").map(str::len), Some(32));
    }
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_next_request_is_served() {
    let house = House::new(Setup::default());
    let mut body: Value = serde_json::from_str(SMALL).unwrap();
    body["notification"] = json!({"title": PANICS});
    assert_eq!(house.post(body.to_string()).await.problem(), (500, "internal".to_owned()));
    assert_eq!(house.post(SMALL).await.status, 202);
}

#[tokio::test]
async fn too_many_requests_at_once_are_turned_away() {
    let limits = Limits { max_requests: 2, ..Limits::default() };
    let house = House::new(Setup { limits, ..Setup::default() });
    house.world.lock().unwrap().hold = true;
    let third = async {
        until(|| house.world.lock().unwrap().held() == 2).await;
        // Another route: the bound is one for all.
        let refused = house.get("/openapi.json").await;
        assert_eq!(refused.problem(), (503, "overloaded".to_owned()));
        assert!(matches!(refused.header("retry-after"), Some("1" | "2")));
        house.world.lock().unwrap().release();
    };
    let (first, second, ()) = tokio::join!(house.post(SMALL), house.post(SMALL), third);
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (202, 202));
    assert_eq!(house.get("/openapi.json").await.status, 200);
}

#[tokio::test]
async fn requests_are_counted_by_template_never_by_id() {
    let house = House::new(Setup::default());
    for path in ["/v1/messages/no-id", "/nowhere", "/v1/messages/batch"] {
        house.get(path).await;
    }
    let large = "x".repeat(Limits::default().max_header_bytes as usize);
    let refused = with(request(Method::GET, "/v1/messages", Body::empty()), "x-large", &large);
    assert_eq!(house.send(refused).await.status, 431);
    let text = house.metrics();
    for line in [
        r#"pushyard_http_requests_total{listener="api",path="/v1/messages/{id}",status="404"} 1"#,
        r#"pushyard_http_requests_total{listener="api",path="other",status="404"} 1"#,
        r#"pushyard_http_requests_total{listener="api",path="/v1/messages/batch",status="405"} 1"#,
        r#"pushyard_http_requests_total{listener="api",path="/v1/messages",status="431"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}
