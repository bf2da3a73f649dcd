//! Self-hosted channels: a push reaches a webhook, ntfy and Gotify through the real
//! binary, and takes over when a large vendor fails.

use pushyard_simulator::Mode;
use reqwest::Method;
use serde_json::{Value, json};

use super::harness::{World, apns, message, only, run};

/// The three, and a route that tries APNs before the webhook.
fn configure(world: &World, secret: &str) {
    let vendors = &world.simulator.announcement().vendors;
    world.configure(&format!(
        r#"
[[providers]]
id = "ntfy"
kind = "ntfy"
endpoint = "{ntfy}"
token = "tk_simulated00000000000000000000"
ca_file = "ca.pem"
[[providers]]
id = "gotify"
kind = "gotify"
endpoint = "{gotify}"
ca_file = "ca.pem"
[[providers]]
id = "webhook"
kind = "webhook"
endpoint = "{webhook}/push"
secret = {secret}
ca_file = "ca.pem"
[[routes]]
name = "own"
tiers = [["apns"], ["webhook", "ntfy", "gotify"]]
"#,
        ntfy = vendors["ntfy"],
        gotify = vendors["gotify"],
        webhook = vendors["webhook"],
    ));
}

const PRESENT: &str = r#"{ file = "webhook.secret" }"#;

fn own(addresses: &[Value]) -> Value {
    let mut message = message(addresses);
    message["route"] = json!("own");
    message
}

/// The last push that a vendor received.
fn received(world: &World, vendor: &str) -> pushyard_simulator::RequestRecord {
    let requests = world.simulator.control().requests(Some(vendor), 10).unwrap();
    requests.into_iter().find(|request| request.method == Method::POST.as_str()).unwrap()
}

#[tokio::test]
async fn a_message_reaches_each_of_the_three_and_carries_its_pushyard_string() {
    let world = World::new().await;
    configure(&world, PRESENT);
    let router = world.router();
    for (vendor, address) in [
        ("ntfy", json!({"kind": "ntfy", "topic": "private-alice"})),
        ("gotify", json!({"kind": "gotify", "app_token": "Aphone"})),
        ("webhook", json!({"kind": "webhook", "id": "alice"})),
    ] {
        let mut body = own(&[address]);
        body["to"][0]["ref"] = json!("alice-phone");
        let view = router.settle(&body).await;
        let delivery = only(&view);
        assert_eq!((&delivery["state"], &delivery["provider"]), (&json!("sent"), &json!(vendor)));
        let id = delivery["id"].as_str().unwrap();
        let request = received(&world, vendor);
        let pushyard = match vendor {
            "webhook" => {
                let body = request.json.as_ref().unwrap();
                assert_eq!(request.headers["webhook-id"], id);
                assert_eq!(body["type"], "push");
                assert_eq!(body["data"]["ref"], "alice-phone");
                assert_eq!(body["data"]["notification"]["title"], "Paid");
                body["data"]["pushyard"].as_str().unwrap().to_owned()
            }
            _ => request.headers["x-pushyard"].clone(),
        };
        assert!(pushyard.starts_with(&format!("{id}.")) && pushyard.len() == 59, "{pushyard}");
    }
    let summary = world.simulator.control().summary();
    assert_eq!((summary.unique, summary.duplicates), (3, 0));
}

#[tokio::test]
async fn a_published_message_is_there_for_its_subscribers() {
    let world = World::new().await;
    configure(&world, PRESENT);
    let router = world.router();
    let view = router.settle(&own(&[json!({"kind": "ntfy", "topic": "alice"})])).await;
    let ca = std::fs::read(&world.simulator.announcement().ca_file).unwrap();
    let ca = reqwest::Certificate::from_pem(&ca).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build().unwrap();
    let url = format!("{}/alice/json?poll=1", world.simulator.announcement().vendors["ntfy"]);
    let text = client.get(url).send().await.unwrap().text().await.unwrap();
    let event: Value = serde_json::from_str(text.trim_end()).unwrap();
    assert_eq!((&event["title"], &event["message"]), (&json!("Paid"), &json!("Order 7")));
    assert_eq!(event["id"], only(&view)["provider_message_id"]);
}

#[tokio::test]
async fn the_webhook_takes_over_when_apns_fails() {
    let world = World::new().await;
    configure(&world, PRESENT);
    let router = world.router();
    world.simulator.control().set_mode("apns", Mode::Failing).unwrap();
    let view = router.settle(&own(&[apns("phone"), json!({"kind": "webhook"})])).await;
    let delivery = only(&view);
    assert_eq!((&delivery["state"], &delivery["provider"]), (&json!("sent"), &json!("webhook")));
    assert_eq!(delivery["attempts"][0]["outcome"], "Unavailable", "{view}");
}

#[tokio::test]
async fn a_wrong_webhook_secret_is_an_auth_failure_and_ejects() {
    let world = World::new().await;
    configure(&world, r#""whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw""#);
    let router = world.router();
    let both = [json!({"kind": "webhook", "id": "a"}), json!({"kind": "ntfy", "topic": "alice"})];
    let mut message = own(&both);
    message["to"][0]["addresses"][1]["provider"] = json!("ntfy");
    world.simulator.control().set_mode("ntfy", Mode::Failing).unwrap();
    message["ttl"] = json!("0s");
    let view = router.settle(&message).await;
    let outcomes: Vec<_> =
        only(&view)["attempts"].as_array().unwrap().iter().map(|a| a["outcome"].clone()).collect();
    assert!(outcomes.contains(&json!("AuthFailed")), "{view}");
    let view = router.until("/admin/v1/providers/webhook", |v| v["state"] == "ejected").await;
    assert_eq!(view["reason"], "auth");
}

#[tokio::test]
async fn a_secret_is_replaced_without_a_refused_request() {
    let world = World::new().await;
    // The receiver knows only the second of them.
    configure(
        &world,
        r#"["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", { file = "webhook-old.secret" }]"#,
    );
    let router = world.router();
    let view = router.settle(&own(&[json!({"kind": "webhook", "id": "a"})])).await;
    assert_eq!(only(&view)["state"], "sent", "{view}");
}

#[tokio::test]
async fn dead_addresses_and_lost_answers_end_as_each_vendor_allows() {
    let world = World::new().await;
    configure(&world, PRESENT);
    let router = world.router();
    for gone in [
        json!({"kind": "gotify", "app_token": "gone-1"}),
        json!({"kind": "ntfy", "topic": "gone-1"}),
    ] {
        let view = router.settle(&own(&[gone])).await;
        let delivery = only(&view);
        assert_eq!(
            (&delivery["state"], &delivery["reason"]),
            (&json!("failed"), &json!("unreachable"))
        );
    }
    let mut stop = own(&[json!({"kind": "gotify", "app_token": "lost-1"})]);
    stop["on_ambiguous"] = json!("stop");
    assert_eq!(only(&router.settle(&stop).await)["state"], "unknown");
}

#[tokio::test]
async fn a_text_that_ntfy_would_not_show_is_known_at_intake() {
    let world = World::new().await;
    configure(&world, PRESENT);
    let router = world.router();
    let mut long = own(&[json!({"kind": "ntfy", "topic": "alice"})]);
    long["notification"]["body"] = json!("a".repeat(4096));
    let (status, problem) = router.call(Method::POST, "/v1/messages", Some(&long)).await;
    assert_eq!(status, 422, "{problem}");
    assert_eq!(world.simulator.control().vendor("ntfy").unwrap().accepted, 0);
}

#[tokio::test]
async fn send_knows_the_three_kinds() {
    let world = World::new().await;
    configure(&world, PRESENT);
    let router = world.router();
    for to in ["ntfy:alice", "gotify:Aphone", "webhook:alice"] {
        let api = router.api().to_owned();
        let sent = tokio::task::spawn_blocking(move || {
            run(&[
                "send", "--url", &api, "--to", to, "--route", "own", "--title", "Hi", "--wait",
                "20s",
            ])
        });
        let (code, stdout, stderr) = sent.await.unwrap();
        assert_eq!(code, Some(0), "{to}: {stdout}{stderr}");
    }
}
