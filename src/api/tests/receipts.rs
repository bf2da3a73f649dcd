//! Devices' receipts: no key, one secret a delivery.

use serde_json::json;

use super::harness::{House, Setup, client, post, receipts};
use crate::model::DeliveryId;

fn delivery() -> DeliveryId {
    "0197f000-0000-7000-8000-000000000001".parse().unwrap()
}

fn secret() -> String {
    receipts().string(delivery()).split_once('.').unwrap().1.to_owned()
}

#[tokio::test]
async fn a_device_that_knows_the_secret_needs_no_key() {
    let house = House::new(Setup { clients: vec![client("shop")], ..Setup::default() });
    let body = json!({"delivery": delivery().to_string(), "secret": secret()}).to_string();
    let answer = house.send(post("/v1/receipts", body)).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
    assert_eq!(house.world.lock().unwrap().receipts, [delivery()]);
}

#[tokio::test]
async fn a_wrong_secret_is_as_good_as_an_unknown_delivery() {
    let house = House::new(Setup::default());
    let other = "0197f000-0000-7000-8000-000000000002";
    for (delivery, secret) in [
        (delivery().to_string(), "AAAAAAAAAAAAAAAAAAAAAA".to_owned()),
        (delivery().to_string(), String::new()),
        (other.to_owned(), secret()),
        ("no id".to_owned(), secret()),
    ] {
        let body = json!({ "delivery": delivery, "secret": secret }).to_string();
        let answer = house.send(post("/v1/receipts", body)).await;
        assert_eq!(answer.problem(), (404, "not_found".to_owned()), "{delivery}");
    }
    assert!(house.world.lock().unwrap().receipts.is_empty());
}

#[tokio::test]
async fn a_body_that_is_no_receipt_is_refused_with_pointers() {
    let house = House::new(Setup::default());
    let answer = house.send(post("/v1/receipts", r#"{"delivery": 7}"#)).await;
    assert_eq!(answer.problem(), (422, "invalid".to_owned()));
    let pointers: Vec<_> =
        answer.json()["errors"].as_array().unwrap().iter().map(|e| e["pointer"].clone()).collect();
    assert_eq!(pointers, ["/delivery", "/secret"]);
    let answer = house.send(post("/v1/receipts", "{")).await;
    assert_eq!(answer.problem().0, 400);
}
