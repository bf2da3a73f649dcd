//! Client events: signed, complete, at least once, also after kill -9.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::harness::{World, apns, fcm, message};
use super::receiver::{Receiver, SECRET};

const KEY: &str = "shop-key-0123456789";

/// One client, which is told at `url`.
fn client(url: &str, types: &str) -> String {
    format!(
        "[[clients]]\nname = \"shop\"\nkey = \"{KEY}\"\nadmin = true\n\
         events = {{ url = \"{url}\", secret = \"{SECRET}\", types = [{types}] }}\n"
    )
}

#[tokio::test]
async fn a_client_is_told_what_became_of_its_deliveries() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    world
        .configure(&client(&receiver.url, r#""delivery.sent", "delivery.failed", "address.gone""#));
    let router = world.router().with_key(KEY);
    let mut body = message(&[apns("gone-1"), fcm("phone")]);
    body["to"][0]["ref"] = json!("alice");
    body["metadata"] = json!({"campaign": "autumn"});
    let view = router.settle(&body).await;
    // Believed once the vendor has shown that it takes others.
    router.settle(&message(&[apns("well")])).await;
    receiver.until(|taken| taken.len() == 3).await;
    let taken = receiver.taken();
    let of = |kind: &str| -> Value {
        taken
            .iter()
            .find(|(_, body)| body["type"] == kind && body["data"]["ref"] == "alice")
            .unwrap()
            .1
            .clone()
    };
    let sent = of("delivery.sent");
    let delivery = &view["deliveries"]["items"][0]["id"];
    assert!(sent["timestamp"].is_string());
    assert_eq!(
        sent["data"],
        json!({
            "message": view["id"], "delivery": delivery, "ref": "alice", "state": "sent",
            "reason": null, "provider": "fcm", "metadata": {"campaign": "autumn"},
        })
    );
    let gone = of("address.gone");
    assert_eq!(
        (&gone["data"]["provider"], &gone["data"]["kind"]),
        (&json!("apns"), &json!("apns"))
    );
    assert_eq!(gone["data"]["token"], apns("gone-1")["token"]);
    router.until("/metrics", |text| pending(text) == Some(0)).await;
}

#[tokio::test]
async fn an_event_that_was_not_taken_is_told_after_kill_9_with_the_same_id() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    world.configure(&client(&receiver.url, r#""delivery.sent""#));
    receiver.refuse(&[500; 20]);
    let router = world.router().with_key(KEY);
    let mut expected = BTreeSet::new();
    for n in 0..20 {
        let view = router.settle(&message(&[fcm(&format!("phone-{n}"))])).await;
        expected.insert(view["deliveries"]["items"][0]["id"].as_str().unwrap().to_owned());
    }
    router.until("/metrics", |text| pending(text) == Some(20)).await;
    router.kill();
    let router = world.router().with_key(KEY);
    let told = |taken: &[(String, Value)]| -> BTreeSet<String> {
        let of = |body: &Value| body["data"]["delivery"].as_str().unwrap().to_owned();
        taken.iter().map(|(_, body)| of(body)).collect()
    };
    receiver.until(|taken| told(taken) == expected).await;
    router.until("/metrics", |text| pending(text) == Some(0)).await;
    let ids: BTreeSet<_> = receiver.taken().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), 20);
}

#[tokio::test]
async fn a_server_that_is_down_holds_up_no_other_client() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    // Nobody listens there.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = client(&format!("http://{nobody}/"), r#""delivery.sent""#);
    let bank = client(&receiver.url, r#""delivery.sent""#)
        .replace("\"shop\"", "\"bank\"")
        .replace(KEY, "bank-key-0123456789");
    world.configure(&format!("{silent}{bank}"));
    let router = world.router().with_key(KEY);
    for n in 0..10 {
        router.settle(&message(&[fcm(&format!("phone-{n}"))])).await;
    }
    let router = router.with_key("bank-key-0123456789");
    router.settle(&message(&[fcm("phone")])).await;
    receiver.until(|taken| taken.len() == 1).await;
    router.until("/metrics", |text| pending(text) == Some(10)).await;
}

fn pending(metrics: &Value) -> Option<u64> {
    let lines = metrics.as_str()?.lines();
    let mut values = lines.filter_map(|line| line.strip_prefix("pushyard_events_pending "));
    values.next()?.parse().ok()
}
