//! Devices, gone addresses, and messages by what they are.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Method;
use pushyard_providers::{Address, registry};
use serde_json::{Value, json};

use super::harness::{Answered, House, Setup, client, post, request, with};
use crate::api::Client;
use crate::clock::Utc;
use crate::dispatch::Rejected;
use crate::model::{Gone, MessageId, Progress, Proof, State};

fn phone() -> Value {
    json!({"addresses": [{"kind": "fcm", "token": "t"}]})
}

async fn put(house: &House, path: &str, body: &Value) -> Answered {
    let json = "application/json";
    house.send(with(request(Method::PUT, path, body.to_string()), "content-type", json)).await
}

async fn delete(house: &House, path: &str) -> Answered {
    house.send(request(Method::DELETE, path, Body::empty())).await
}

fn told(answer: &Answered) -> Vec<String> {
    assert_eq!(answer.problem(), (422, "invalid".to_owned()));
    let errors = answer.json()["errors"].as_array().unwrap().clone();
    let text = |error: &Value, field: &str| error[field].as_str().unwrap().to_owned();
    errors.iter().map(|e| format!("{} {}", text(e, "pointer"), text(e, "code"))).collect()
}

#[tokio::test]
async fn a_device_is_put_shown_and_removed() {
    let house = House::new(Setup::default());
    let path = "/v1/users/bob/devices/phone";
    assert_eq!(house.get(path).await.status, 404);
    let body = json!({"addresses": [{"kind": "fcm", "token": "t"}], "region": "eu",
        "metadata": {"os": "x"}});
    let first = put(&house, path, &body).await;
    assert_eq!(first.status, 201);
    let device = first.json();
    assert_eq!((&device["device"], &device["region"]), (&json!("phone"), &json!("eu")));
    assert_eq!(device["metadata"], json!({"os": "x"}));
    assert_eq!(device["addresses"][0]["registered_at"], device["updated_at"]);
    let again = put(&house, path, &phone()).await;
    assert_eq!((again.status.as_u16(), &again.json()["region"]), (200, &Value::Null));
    let user = house.get("/v1/users/bob").await.json();
    assert_eq!((&user["user"], &user["devices"][0]), (&json!("bob"), &again.json()));
    assert_eq!(house.get(path).await.json(), again.json());
    assert_eq!(delete(&house, path).await.status, 204);
    assert_eq!(delete(&house, path).await.status, 404);
    assert_eq!(house.get("/v1/users/bob").await.status, 404);
}

#[tokio::test]
async fn faults_of_a_device() {
    let house = House::new(Setup::default());
    for (body, expected) in [
        (json!([]), " wrong_type"),
        (json!({}), "/addresses required"),
        (json!({"addresses": []}), "/addresses out_of_range"),
        (json!({"addresses": [{"kind": "apn"}]}), "/addresses/0/kind unknown_kind"),
        (json!({"addresses": phone()["addresses"], "region": ""}), "/region out_of_range"),
        (
            json!({"addresses": phone()["addresses"], "metadata": {"a": 1}}),
            "/metadata/a wrong_type",
        ),
        (json!({"adresses": []}), "/adresses unknown_field | /addresses required"),
    ] {
        let answer = put(&house, "/v1/users/bob/devices/phone", &body).await;
        assert_eq!(told(&answer).join(" | "), expected, "{body}");
    }
    let long = "x".repeat(257);
    let answer = put(&house, &format!("/v1/users/{long}/devices/a%0Ab"), &phone()).await;
    assert_eq!(told(&answer), ["/path/user invalid_value", "/path/device invalid_value"]);
    assert!(house.world.lock().unwrap().devices.is_empty());
}

#[tokio::test]
async fn a_user_has_at_most_100_devices() {
    let house = House::new(Setup::default());
    for n in 0..100 {
        assert_eq!(put(&house, &format!("/v1/users/bob/devices/{n}"), &phone()).await.status, 201);
    }
    let answer = put(&house, "/v1/users/bob/devices/100", &phone()).await;
    assert_eq!(told(&answer), ["/path/device out_of_range"]);
    assert_eq!(put(&house, "/v1/users/bob/devices/99", &phone()).await.status, 200);
    assert_eq!(put(&house, "/v1/users/eve/devices/100", &phone()).await.status, 201);
}

#[tokio::test]
async fn a_user_becomes_a_delivery_for_each_device_in_its_place() {
    let house = House::new(Setup::default());
    put(&house, "/v1/users/bob/devices/b", &phone()).await;
    put(&house, "/v1/users/bob/devices/a", &phone()).await;
    let mut far = phone();
    far["region"] = json!("moon");
    put(&house, "/v1/users/eve/devices/far", &far).await;
    let direct = |name: &str| json!({"ref": name, "addresses": phone()["addresses"]});
    let body = json!({"to": [direct("first"), {"user": "bob"}, {"user": "nobody"}, direct("last")],
        "data": {"a": "b"}});
    let accepted = house.post(body.to_string()).await.json();
    let deliveries = accepted["deliveries"].as_array().unwrap();
    let refs: Vec<_> = deliveries.iter().map(|delivery| &delivery["ref"]).collect();
    assert_eq!(refs, ["first", "a", "b", "last"]);
    let unresolved = json!([{"index": 2, "user": "nobody", "reason": "no_devices"}]);
    assert_eq!(accepted["unresolved"], unresolved);
    // A provider of no region may serve any: only the route's own may not.
    let body = json!({"to": [{"user": "eve"}], "route": "europe", "data": {"a": "b"}});
    assert_eq!(told(&house.post(body.to_string()).await), ["/to/0 no_route"]);
}

#[tokio::test]
async fn what_is_not_written_is_not_answered_as_done() {
    let house = House::new(Setup::default());
    house.world.lock().unwrap().rejections.push(Rejected::StoreUnavailable(Duration::ZERO));
    let answer = put(&house, "/v1/users/bob/devices/phone", &phone()).await;
    assert_eq!(answer.problem(), (503, "store_unavailable".to_owned()));
    assert_eq!(house.get("/v1/users/bob").await.status, 404);
}

fn clients() -> Setup {
    let ops = Client { admin: true, ..client("ops") };
    Setup { clients: vec![client("shop"), client("bank"), ops], ..Setup::default() }
}

async fn get_as(house: &House, name: &str, path: &str) -> Answered {
    let key = format!("Bearer key-{name}");
    house.send(with(request(Method::GET, path, Body::empty()), "authorization", &key)).await
}

#[tokio::test]
async fn users_gone_addresses_and_messages_belong_to_their_client() {
    let house = House::new(clients());
    let as_shop = |request| with(request, "authorization", "Bearer key-shop");
    let put = request(Method::PUT, "/v1/users/bob/devices/phone", phone().to_string());
    assert_eq!(house.send(as_shop(put)).await.status, 201);
    let body = json!({"to": [{"user": "bob"}], "data": {"a": "b"}}).to_string();
    assert_eq!(house.send(as_shop(post("/v1/messages", body))).await.status, 202);
    house.world.lock().unwrap().gone.push(gone("t", 5));
    for (name, user, items) in [("shop", 200, 1), ("bank", 404, 0), ("ops", 404, 1)] {
        assert_eq!(get_as(&house, name, "/v1/users/bob").await.status, user, "{name}");
        for path in ["/v1/messages", "/v1/addresses/gone"] {
            let page = get_as(&house, name, path).await.json();
            assert_eq!(page["items"].as_array().unwrap().len(), items, "{name} {path}");
            assert_eq!(page["next"], Value::Null);
        }
    }
    let erase = request(Method::DELETE, "/v1/users/bob", Body::empty());
    let erased = house.send(as_shop(erase)).await.json();
    assert_eq!((&erased["devices"], &erased["messages"]), (&json!(1), &json!(1)), "{erased}");
    assert_eq!((&erased["deliveries"], &erased["cancelled"]), (&json!(1), &json!(1)));
}

fn gone(token: &str, at: u64) -> Gone {
    let kind = registry::kind("fcm").unwrap();
    Gone {
        client: "shop".into(),
        provider: "fcm".into(),
        address: Address::new(kind, &[("token", token)], None, None).unwrap(),
        reference: Some("phone".to_owned()),
        user: None,
        at: Utc::from_ms(at),
        vendor_at: None,
        proof: Proof { status: Some(404), code: Some("UNREGISTERED".into()), body: None },
    }
}

#[tokio::test]
async fn gone_addresses_are_paged_by_their_moment() {
    let house = House::new(Setup::default());
    house.world.lock().unwrap().gone = (0..5).map(|n| gone(&n.to_string(), 1_000 * n)).collect();
    let mut seen = Vec::new();
    let since = "/v1/addresses/gone?limit=2&since=1970-01-01T00:00:01Z";
    let mut path = since.to_owned();
    loop {
        let page = house.get(&path).await.json();
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["token"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("{since}&cursor={next}");
    }
    assert_eq!(seen, ["1", "2", "3", "4"]);
    let first = &house.get("/v1/addresses/gone").await.json()["items"][0];
    let expected = json!({"kind": "fcm", "token": "0", "ref": "phone", "user": null,
        "provider": "fcm", "at": "1970-01-01T00:00:00.000Z", "vendor_at": null,
        "proof": {"status": 404, "code": "UNREGISTERED", "body": null}});
    assert_eq!(*first, expected);
}

#[tokio::test]
async fn messages_are_listed_newest_first_and_by_what_they_are() {
    let house = House::new(Setup::default());
    let mut ids = Vec::new();
    for n in 0..5 {
        let to = json!([{"ref": format!("r{n}"), "addresses": phone()["addresses"]}]);
        let campaign = ["a", "b"][n % 2];
        let labels = json!({"campaign": campaign, "n": n.to_string()});
        let body = json!({"to": to, "data": {"a": "b"}, "metadata": labels});
        let answer = house.post(body.to_string()).await.json();
        ids.push(answer["id"].as_str().unwrap().to_owned());
    }
    ids.reverse();
    let sent = Progress { state: State::Sent, ..Progress::queued(Utc::from_ms(0)) };
    let newest: MessageId = ids[0].parse().unwrap();
    house.world.lock().unwrap().progress.insert(newest, vec![(0, sent)]);
    let listed = |query: &str| {
        let (house, path) = (&house, format!("/v1/messages?{query}"));
        async move {
            let page = house.get(&path).await.json();
            let items = page["items"].as_array().unwrap().clone();
            let ids = items.iter().map(|item| item["id"].as_str().unwrap().to_owned());
            (ids.collect::<Vec<_>>(), page["next"].as_str().map(str::to_owned))
        }
    };
    assert_eq!(listed("").await, (ids.clone(), None));
    assert_eq!(listed("metadata.campaign=b").await.0, [ids[1].clone(), ids[3].clone()]);
    assert_eq!(listed("metadata.campaign=b&metadata.n=1").await.0, ids[3..4]);
    assert_eq!(listed("ref=r2").await.0, ids[2..3]);
    assert_eq!(listed("state=sent").await.0, ids[..1]);
    assert_eq!(listed("since=2999-01-01T00:00:00Z").await.0, Vec::<String>::new());
    let (page, next) = listed("limit=3").await;
    assert_eq!(page, ids[..3]);
    assert_eq!(
        listed(&format!("limit=3&cursor={}", next.unwrap())).await,
        (ids[3..].to_vec(), None)
    );
    let head = &house.get("/v1/messages?limit=1").await.json()["items"][0];
    assert_eq!((&head["state"], &head["counts"]), (&json!("sent"), &json!({"sent": 1})));
    assert_eq!((&head["route"], &head["priority"]), (&json!("default"), &json!("normal")));
    assert_eq!(head["metadata"]["campaign"], "a");
    assert!(head["accepted_at"].is_string() && head["expires_at"].is_string());
    assert!(head.get("deliveries").is_none());
}

#[tokio::test]
async fn a_bad_query_is_told_with_its_place() {
    let house = House::new(Setup::default());
    for (path, expected) in [
        ("/v1/messages?cursor=x", "/query/cursor"),
        ("/v1/messages?cursor=AAAA", "/query/cursor"),
        ("/v1/messages?state=waiting", "/query/state"),
        ("/v1/messages?state=Sent", "/query/state"),
        ("/v1/messages?since=yesterday", "/query/since"),
        ("/v1/messages?limit=0", "/query/limit"),
        ("/v1/messages?metadata.a=1&metadata.a=2", "/query/metadata.a"),
        ("/v1/messages?ref=1&ref=2", "/query/ref"),
        ("/v1/addresses/gone?since=1", "/query/since"),
        ("/v1/addresses/gone?cursor=AAAA", "/query/cursor"),
        ("/v1/addresses/gone?limit=1001", "/query/limit"),
    ] {
        assert_eq!(told(&house.get(path).await), [format!("{expected} invalid_value")], "{path}");
    }
    let answer = house.get("/v1/addresses/gone?limit=1&limit=2").await;
    assert_eq!(told(&answer), ["/query malformed"]);
}

#[tokio::test]
async fn messages_are_taken_back_by_labels_and_recipient() {
    let house = House::new(Setup::default());
    let to = |names: &[&str]| -> Value {
        let recipient = |name: &&str| json!({"ref": name, "addresses": phone()["addresses"]});
        names.iter().map(recipient).collect()
    };
    for (names, campaign) in [(&["r1", "r2"][..], "a"), (&["r2"], "b"), (&["r3"], "a")] {
        let body = json!({"to": to(names), "data": {"a": "b"}, "metadata": {"campaign": campaign}});
        assert_eq!(house.post(body.to_string()).await.status, 202);
    }
    for (filter, messages, cancelled) in [
        (json!({"metadata": {"campaign": "a"}}), 2, 3),
        (json!({"ref": "r2"}), 2, 2),
        (json!({"metadata": {"campaign": "a"}, "ref": "r2"}), 1, 1),
        (json!({"metadata": {"campaign": "z"}}), 0, 0),
    ] {
        let answer = house.send(post("/v1/messages/cancel", filter.to_string())).await;
        let expected = json!({"messages": messages, "cancelled": cancelled});
        assert_eq!((answer.status.as_u16(), answer.json()), (202, expected), "{filter}");
    }
    let places = |world: &super::harness::World| -> Vec<Vec<u16>> {
        world.taken_back.iter().map(|(_, places)| places.clone()).collect()
    };
    let world = Arc::clone(&house.world);
    assert!(places(&world.lock().unwrap()).contains(&vec![1]), "of the first the second alone");
    for (body, expected) in [
        (json!({}), " required"),
        (json!({"metadata": {}}), " required"),
        (json!({"metadata": {"a": 1}}), "/metadata/a wrong_type"),
        (json!({"metdata": {}}), "/metdata unknown_field"),
        (json!([]), " wrong_type"),
    ] {
        let answer = house.send(post("/v1/messages/cancel", body.to_string())).await;
        assert_eq!(told(&answer), [expected], "{body}");
    }
}
