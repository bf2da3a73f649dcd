//! Devices that are kept, addresses that are gone, and users that are forgotten.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::harness::{Router, World, fcm, message, only};

async fn put(router: &Router, user: &str, device: &str, address: Value) -> StatusCode {
    let path = format!("/v1/users/{user}/devices/{device}");
    let body = json!({"addresses": [address]});
    let (status, value) = router.call(Method::PUT, &path, Some(&body)).await;
    assert!(status.is_success(), "{value}");
    status
}

fn to_user(user: &str) -> Value {
    json!({"to": [{"user": user}], "notification": {"title": "Paid", "body": "Order 7"}})
}

#[tokio::test]
async fn a_message_to_a_user_reaches_each_device_also_after_kill_9() {
    let world = World::new().await;
    let router = world.router();
    assert_eq!(put(&router, "bob", "phone", fcm("phone")).await, StatusCode::CREATED);
    assert_eq!(put(&router, "bob", "tablet", fcm("tablet")).await, StatusCode::CREATED);
    assert_eq!(put(&router, "bob", "phone", fcm("phone-2")).await, StatusCode::OK);
    router.kill();
    let router = world.router();
    let view = router.settle(&to_user("bob")).await;
    assert_eq!(view["counts"], json!({"sent": 2}), "{view}");
    let items = view["deliveries"]["items"].as_array().unwrap();
    let refs: Vec<_> = items.iter().map(|item| item["ref"].as_str().unwrap()).collect();
    assert_eq!(refs, ["phone", "tablet"]);
    let user = router.get("/v1/users/bob").await;
    assert_eq!(user["devices"][0]["addresses"][0]["token"], "phone-2");
    let (status, problem) =
        router.call(Method::POST, "/v1/messages", Some(&to_user("nobody"))).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(problem["errors"][0]["code"], "no_devices", "{problem}");
}

#[tokio::test]
async fn a_gone_address_is_told_with_proof_not_tried_again_and_healed_by_registration() {
    let world = World::new().await;
    let router = world.router();
    put(&router, "bob", "phone", fcm("gone-bob")).await;
    let view = router.settle(&to_user("bob")).await;
    assert_eq!(
        (&only(&view)["state"], &only(&view)["reason"]),
        (&json!("failed"), &json!("unreachable"))
    );
    // Believed once the vendor has shown that it takes others.
    router.settle(&message(&[fcm("well")])).await;
    let gone = router.until("/v1/addresses/gone", |page| page["items"][0].is_object()).await;
    let item = &gone["items"][0];
    assert_eq!((&item["kind"], &item["token"]), (&json!("fcm"), &json!("gone-bob")), "{gone}");
    assert_eq!((&item["ref"], &item["user"]), (&json!("phone"), &json!("bob")));
    assert_eq!((&item["provider"], &item["proof"]["status"]), (&json!("fcm"), &json!(404)));
    assert!(item["proof"]["code"].is_string() && item["proof"]["body"].is_string(), "{gone}");
    assert!(item["at"].is_string(), "{gone}");
    let user = router.get("/v1/users/bob").await;
    assert!(user["devices"][0]["addresses"][0]["gone"]["fcm"].is_string(), "{user}");

    // Known before any attempt, also by the next process.
    router.kill();
    let router = world.router();
    for body in [to_user("bob"), message(&[fcm("gone-bob")])] {
        let view = router.settle(&body).await;
        assert_eq!(only(&view)["reason"], "unreachable");
        assert_eq!(only(&view)["attempts"], json!([]));
    }

    // Registered anew it is tried again; here it is found out once more.
    put(&router, "bob", "phone", fcm("gone-bob")).await;
    assert_eq!(router.get("/v1/addresses/gone").await["items"], json!([]));
    let view = router.settle(&to_user("bob")).await;
    assert_eq!(only(&view)["attempts"][0]["outcome"], "AddressGone", "{view}");
    router.settle(&message(&[fcm("well")])).await;
    assert_eq!(router.get("/v1/addresses/gone").await["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_forgotten_user_is_nowhere_any_more() {
    let world = World::new().await;
    let router = world.router();
    put(&router, "bob", "phone", fcm("gone-bob")).await;
    put(&router, "eve", "phone", fcm("eve")).await;
    let failed = router.settle(&to_user("bob")).await["id"].as_str().unwrap().to_owned();
    put(&router, "bob", "phone", fcm("bob")).await;
    let mut later = json!({"to": [{"user": "bob"}, {"user": "eve"}], "data": {"secret": "text"}});
    let tomorrow = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24);
    later["deliver_at"] = json!(tomorrow.to_string());
    let waiting = router.accept(&later).await["id"].as_str().unwrap().to_owned();

    let (status, erased) = router.call(Method::DELETE, "/v1/users/bob", None).await;
    assert_eq!(status, StatusCode::OK, "{erased}");
    let expected = json!({"user": "bob", "devices": 1, "messages": 2, "deliveries": 2,
        "cancelled": 1, "dead_letters": 1});
    assert_eq!(erased, expected);
    let (status, _) = router.call(Method::DELETE, "/v1/users/bob", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    router.kill();
    let router = world.router();
    let (status, _) = router.call(Method::GET, "/v1/users/bob", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let view = router.get(&format!("/v1/messages/{failed}")).await;
    assert_eq!((&only(&view)["ref"], &only(&view)["state"]), (&Value::Null, &json!("failed")));
    let view = router.get(&format!("/v1/messages/{waiting}")).await;
    assert_eq!(view["counts"], json!({"cancelled": 1, "queued": 1}), "{view}");
    assert_eq!(router.get("/v1/addresses/gone").await["items"], json!([]));
    assert_eq!(router.get("/v1/users/eve").await["devices"][0]["device"], "phone");
}

#[tokio::test]
async fn messages_are_found_again_and_taken_back_by_their_labels() {
    let world = World::new().await;
    let router = world.router();
    let tomorrow = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24);
    for n in 0..6 {
        let mut body = message(&[fcm(&format!("phone-{n}"))]);
        body["metadata"] = json!({"campaign": if n % 2 == 0 { "autumn" } else { "spring" }});
        body["deliver_at"] = json!(tomorrow.to_string());
        router.accept(&body).await;
    }
    let filter = json!({"metadata": {"campaign": "autumn"}});
    let (status, all) = router.call(Method::POST, "/v1/messages/cancel", Some(&filter)).await;
    assert_eq!((status, all), (StatusCode::ACCEPTED, json!({"messages": 3, "cancelled": 3})));
    let path = "/v1/messages?metadata.campaign=autumn&state=cancelled&limit=2";
    let page = router.until(path, |page| page["items"].as_array().unwrap().len() == 2).await;
    let next = page["next"].as_str().unwrap();
    let rest = router.get(&format!("{path}&cursor={next}")).await;
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next"]), (1, &Value::Null));
    let spring = router.get("/v1/messages?metadata.campaign=spring").await;
    let states = spring["items"].as_array().unwrap().iter().map(|item| &item["state"]);
    assert_eq!(states.collect::<Vec<_>>(), ["queued", "queued", "queued"]);
}
