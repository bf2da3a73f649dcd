//! Explain: what may be sent, and what was.

use axum::http::Method;
use pushyard_providers::Outcome;
use serde_json::{Value, json};

use super::harness::{
    Answered, House, SMALL, Setup, TOO_LARGE_FOR_APNS, client, post, request, with,
};
use crate::api::Client;
use crate::clock::Utc;
use crate::model::{Attempt, DeliveryId, MessageId, Progress, State};

const PATH: &str = "/v1/messages/explain";

async fn explain(house: &House, message: &Value) -> Answered {
    house.send(post(PATH, message.to_string())).await
}

fn both() -> Value {
    json!({"to": [{"ref": "alice", "addresses": [
        {"kind": "apns", "token": "9f00", "app": "com.example.shop"},
        {"kind": "fcm", "token": "e1"}]}],
        "notification": {"title": "Paid"}, "idempotency_key": "k"})
}

/// Provider and reason of what is left out.
fn left_out(delivery: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let excluded = delivery["excluded"].as_array().unwrap().iter();
    excluded.map(|one| (text(&one["provider"]), text(&one["reason"]))).collect()
}

/// A message of the shop's, accepted, with one delivery that has been tried twice.
async fn tried(house: &House, key: &str) -> DeliveryId {
    let accepted = house.send(with(post("/v1/messages", both().to_string()), "authorization", key));
    let id: MessageId = accepted.await.json()["id"].as_str().unwrap().parse().unwrap();
    let attempt = |n, provider: &str, address, outcome| Attempt {
        n,
        provider: provider.into(),
        kind: provider.into(),
        address,
        outcome,
        status: Some(if outcome == Outcome::Accepted { 200 } else { 503 }),
        code: None,
        detail: None,
        started_at: Utc::from_ms(1_764_576_000_000 + 20 * u64::from(n)),
        latency_ms: 12,
    };
    let attempts =
        vec![attempt(1, "apns", 0, Outcome::Unavailable), attempt(2, "fcm", 1, Outcome::Accepted)];
    let sent = Progress { state: State::Sent, attempts, ..Progress::queued(Utc::from_ms(0)) };
    house.world.lock().unwrap().progress.insert(id, vec![(0, sent)]);
    id.delivery(0)
}

#[tokio::test]
async fn a_dry_run_says_where_and_why_and_with_which_request() {
    let house = House::new(Setup::default());
    let answer = explain(&house, &both()).await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    let value = answer.json();
    assert_eq!((&value["route"], &value["paused"]), (&json!("default"), &Value::Null));
    let delivery = &value["deliveries"][0];
    assert_eq!((&delivery["ref"], &delivery["panic"]), (&json!("alice"), &json!(false)));
    assert_eq!(delivery["excluded"], json!([]), "each address has its provider");
    let first = &delivery["candidates"][0];
    let name = first["address"].as_str().unwrap();
    assert!(name.len() == "apns:".len() + 8 && name.starts_with("apns:"), "{name}");
    let mut expected = json!({
        "provider": "apns", "kind": "apns", "address": name, "tier": 0, "position": 1,
        "share": 1.0, "state": "healthy",
        "keys": [{"part": "", "state": "healthy", "reason": null}],
        "score": {"balance": "least_latency", "rtt_ms": 1000, "in_flight": 0, "weight": 1,
                  "ramp": 1},
        "request": {"method": "POST", "url": "https://apns.example/send/***",
                    "headers": {"x-push": "00000000-0000-0000-0000-000000000000.***"},
                    "body": {"to": "***", "title": "Paid"}},
    });
    assert_eq!(*first, expected);
    let second = &delivery["candidates"][1];
    expected = json!({"provider": "fcm", "position": 2, "share": 0.0});
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(second[name], *value, "{name}");
    }
    let text = value.to_string();
    assert!(!text.contains("9f00") && !text.contains("\"e1\""), "{text}");
}

#[tokio::test]
async fn a_dry_run_leaves_nothing_behind() {
    let house = House::new(Setup::default());
    let before = house.metrics();
    explain(&house, &both()).await;
    assert_eq!(house.world.lock().unwrap().submissions, 0);
    let told = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.contains("http_requests_total"));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(told(&before), told(&house.metrics()), "no message is counted");
    let sent = house.post(both().to_string()).await;
    assert_eq!(sent.header("idempotent-replayed"), None, "its key is free");
}

#[tokio::test]
async fn bad_input_is_told_as_for_a_message() {
    let house = House::new(Setup::default());
    for body in [
        "{".to_owned(),
        "{}".to_owned(),
        json!({"to": [], "data": {"a": "b"}, "ttl": "soon", "rout": "x"}).to_string(),
        json!({"to": [{"addresses": [{"kind": "apn", "token": "t"}]}], "data": {}}).to_string(),
        json!({"to": [{"user": "nobody"}], "data": {"a": "b"}}).to_string(),
        json!({"to": [{"addresses": [{"kind": "fcm", "token": "t"}]}], "data": {"a": "b"},
               "overrides": {"fcm": {"refused": 1}}})
        .to_string(),
    ] {
        let (sent, explained) =
            (house.post(body.clone()).await, house.send(post(PATH, body)).await);
        assert!(sent.status.is_client_error(), "{}", sent.json());
        assert_eq!(explained.problem(), sent.problem());
        assert_eq!(explained.json()["errors"], sent.json()["errors"]);
    }
    let plain = with(request(Method::POST, PATH, SMALL), "content-type", "text/plain");
    assert_eq!(house.send(plain).await.problem(), (415, "unsupported_media_type".to_owned()));
    let get = house.send(request(Method::GET, PATH, "")).await;
    assert_eq!((get.status.as_u16(), get.header("allow")), (405, Some("POST")));
}

#[tokio::test]
async fn keys_and_routes_are_those_of_a_message() {
    let shop = Client { routes: Some(vec!["default".into()]), ..client("shop") };
    let house = House::new(Setup { clients: vec![shop], ..Setup::default() });
    assert_eq!(explain(&house, &both()).await.problem().0, 401);
    let mut message = both();
    message["route"] = "europe".into();
    let call = with(post(PATH, message.to_string()), "authorization", "Bearer key-shop");
    assert_eq!(house.send(call).await.problem(), (403, "forbidden".to_owned()));
}

#[tokio::test]
async fn that_nobody_serves_a_recipient_is_an_answer() {
    let house = House::new(Setup::default());
    let other_app = json!({"kind": "apns", "token": "9f00", "app": "com.example.other"});
    let cases = [
        (json!([other_app]), "default", None, vec![("apns", "app"), ("fcm", "kind")]),
        (json!([{"kind": "fcm", "token": "t"}]), "europe", Some("us"), vec![("fcm-eu", "region")]),
        (
            json!([{"kind": "ntfy", "topic": "t"}]),
            "default",
            None,
            vec![("apns", "kind"), ("fcm", "kind")],
        ),
    ];
    for (addresses, route, region, expected) in cases {
        let mut recipient = json!({"addresses": addresses});
        if let Some(region) = region {
            recipient["region"] = region.into();
        }
        let message = json!({"to": [recipient], "data": {"a": "b"}, "route": route});
        let answer = explain(&house, &message).await;
        assert_eq!(answer.status, 200, "{}", answer.json());
        let value = answer.json();
        let delivery = &value["deliveries"][0];
        assert_eq!(delivery["candidates"], json!([]));
        let expected: Vec<_> =
            expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        assert_eq!(left_out(delivery), expected);
    }
}

#[tokio::test]
async fn a_vendor_that_cannot_take_the_message_is_left_out_with_what_is_wrong() {
    let house = House::new(Setup::default());
    let mut message = both();
    message["notification"]["title"] = TOO_LARGE_FOR_APNS.into();
    let value = explain(&house, &message).await.json();
    let delivery = &value["deliveries"][0];
    assert_eq!(delivery["candidates"][0]["provider"], "fcm");
    assert_eq!(left_out(delivery), [("apns".to_owned(), "excluded_by_delivery".to_owned())]);
    let detail = delivery["excluded"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("5000 bytes") && detail.contains("too_large"), "{detail}");
    assert_eq!(value["warnings"].as_array().unwrap().len(), 1, "{value}");
}

#[tokio::test]
async fn every_recipient_is_answered_for_in_order() {
    let house = House::new(Setup::default());
    let to: Vec<Value> = (0..500)
        .map(|n| json!({"ref": n.to_string(), "addresses": [{"kind": "fcm", "token": "t"}]}))
        .collect();
    let value = explain(&house, &json!({"to": to, "data": {"a": "b"}})).await.json();
    let told: Vec<String> = value["deliveries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|delivery| delivery["ref"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(told, (0..500).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn users_are_their_devices() {
    let house = House::new(Setup::default());
    let device = json!({"addresses": [{"kind": "fcm", "token": "t"}]}).to_string();
    let path = "/v1/users/bob/devices/phone";
    let put = with(request(Method::PUT, path, device), "content-type", "application/json");
    assert_eq!(house.send(put).await.status, 201);
    let to = json!([{"user": "bob"}, {"user": "nobody"}]);
    let value = explain(&house, &json!({"to": to, "data": {"a": "b"}})).await.json();
    assert_eq!(value["deliveries"][0]["ref"], "phone", "{value}");
    assert_eq!(value["unresolved"][0]["user"], "nobody", "{value}");
}

#[tokio::test]
async fn a_past_delivery_tells_what_moved_it() {
    let house = House::new(Setup { clients: vec![client("shop")], ..Setup::default() });
    let id = tried(&house, "Bearer key-shop").await;
    let path = format!("{PATH}?delivery={id}");
    let call = with(request(Method::POST, &path, ""), "authorization", "Bearer key-shop");
    let value = house.send(call).await.json();
    let delivery = &value["deliveries"][0];
    assert_eq!((&delivery["id"], &delivery["state"]), (&json!(id.to_string()), &json!("sent")));
    let attempts = delivery["attempts"].as_array().unwrap();
    assert_eq!(attempts[0]["moved"], Value::Null);
    assert_eq!(
        attempts[1]["moved"],
        json!({"from": "apns", "reason": "Unavailable",
               "detail": "apns ended Unavailable (503): the next candidate, at once"})
    );
    assert!(attempts[1]["address"].as_str().unwrap().starts_with("fcm:"), "{value}");
    assert_eq!((&attempts[1]["n"], &attempts[1]["outcome"]), (&json!(2), &json!("Accepted")));
    let request = &delivery["candidates"][0]["request"];
    assert_eq!(request["headers"]["x-push"], format!("{id}.***"), "the secret is masked");
    assert_eq!(request["body"]["title"], "Paid", "it is the caller's own");
}

#[tokio::test]
async fn anothers_delivery_is_not_there_and_an_admin_sees_no_payload() {
    let admin = Client { admin: true, ..client("ops") };
    let clients = vec![client("shop"), client("bank"), admin];
    let house = House::new(Setup { clients, ..Setup::default() });
    let id = tried(&house, "Bearer key-shop").await;
    let unknown = format!("{}", id.message().delivery(7));
    for (id, key, expected) in [
        (id.to_string(), "Bearer key-bank", 404),
        (unknown, "Bearer key-shop", 404),
        (id.message().to_string(), "Bearer key-shop", 404),
        ("x".to_owned(), "Bearer key-shop", 404),
    ] {
        let path = format!("{PATH}?delivery={id}");
        let call = with(request(Method::POST, &path, ""), "authorization", key);
        assert_eq!(house.send(call).await.problem().0, expected, "{id}");
    }
    let path = format!("{PATH}?delivery={id}");
    let call = with(request(Method::POST, &path, ""), "authorization", "Bearer key-ops");
    let value = house.send(call).await.json();
    assert_eq!(value["deliveries"][0]["candidates"][0]["request"]["body"], "***", "{value}");
    assert!(!value.to_string().contains("Paid"));
}

#[tokio::test]
async fn a_delivery_and_a_message_do_not_go_together() {
    let house = House::new(Setup::default());
    let id = tried(&house, "").await;
    let path = format!("{PATH}?delivery={id}");
    let answer = house.send(post(&path, both().to_string())).await;
    assert_eq!(answer.problem(), (422, "invalid".to_owned()));
    assert_eq!(answer.json()["errors"][0]["pointer"], "/query/delivery");
    assert_eq!(house.send(post(&path, "{}")).await.status, 200, "an empty one says nothing");
}
