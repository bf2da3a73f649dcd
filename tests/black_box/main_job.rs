//! The main job: a message goes in through HTTP and arrives at a vendor.

use pushyard_simulator::Mode;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::harness::{World, apns, client, fcm, message, only};

#[tokio::test]
async fn a_message_goes_to_each_vendor_and_is_shown_as_sent() {
    let world = World::new().await;
    let router = world.router();
    for (kind, address) in [("apns", apns("phone-1")), ("fcm", fcm("phone-2"))] {
        let view = router.settle(&message(&[address])).await;
        assert_eq!(view["state"], "sent", "{view}");
        let delivery = only(&view);
        assert_eq!(delivery["provider"], kind);
        assert!(delivery["provider_message_id"].is_string(), "{view}");
        assert_eq!(delivery["attempts"][0]["outcome"], "Accepted");
        assert_eq!(delivery["attempts"][0]["status"], 200);
    }
    let requests = world.simulator.control().requests(Some("apns"), 10).unwrap();
    let request = requests.iter().find(|r| r.path.starts_with("/3/device/")).unwrap();
    let body = request.json.as_ref().unwrap();
    assert_eq!(body["aps"]["alert"], json!({"title": "Paid", "body": "Order 7"}));
    assert_eq!(world.simulator.control().summary().unique, 2);
}

#[tokio::test]
async fn one_message_fans_out_to_many_recipients() {
    let world = World::new().await;
    let router = world.router();
    let to: Vec<_> = (0..300)
        .map(|n| {
            let address = if n % 2 == 0 { apns(&format!("a-{n}")) } else { fcm(&format!("f-{n}")) };
            json!({"ref": format!("device-{n}"), "addresses": [address]})
        })
        .collect();
    let view = router.settle(&json!({"to": to, "data": {"k": "v"}})).await;
    assert_eq!(view["counts"], json!({"sent": 300}));
    assert!(view["deliveries"]["next"].is_string(), "300 deliveries are more than a page");
    let summary = world.simulator.control().summary();
    assert_eq!((summary.unique, summary.duplicates), (300, 0));
}

#[tokio::test]
async fn the_trace_of_a_call_is_shown_and_logged_also_after_a_crash() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let world = World::new().await;
    world.configure("[log]\nlevel = \"pushyard=debug\"\n");
    let router = world.router();
    world.simulator.control().set_mode("fcm", Mode::Refusing).unwrap();
    let mut paths = Vec::new();
    for (path, media) in
        [("/v1/messages", "application/json"), ("/v1/messages/batch", "application/x-ndjson")]
    {
        for traceparent in [TRACE, "00-invalid"] {
            let request = client().post(format!("{}{path}", router.api()));
            let request = request.header("traceparent", traceparent).header("content-type", media);
            let body = message(&[fcm("phone")]).to_string();
            let answer = request.body(body).send().await.unwrap().text().await.unwrap();
            let accepted: Value = serde_json::from_str(&answer).unwrap();
            let path = format!("/v1/messages/{}", accepted["id"].as_str().unwrap());
            paths.push((path, (traceparent == TRACE).then_some(TRACE)));
        }
    }
    router.kill();
    let router = world.router();
    world.simulator.control().set_mode("fcm", Mode::Healthy).unwrap();
    for (path, trace) in paths {
        let view = router.until(&path, |view| view["state"] == "sent").await;
        assert_eq!(view["trace"].as_str(), trace, "{view}");
        let delivery = only(&view)["id"].as_str().unwrap().to_owned();
        let log = router.log();
        let attempt = |line: &&str| line.contains(&delivery) && line.contains("attempt");
        let line = log.lines().find(attempt).unwrap();
        let logged = line.contains("4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(logged, trace.is_some(), "{line}");
        assert_eq!(line.contains("trace_id"), trace.is_some(), "{line}");
    }
}

#[tokio::test]
async fn a_second_post_with_the_same_key_is_the_same_message() {
    let world = World::new().await;
    let router = world.router();
    let mut body = message(&[fcm("phone")]);
    body["idempotency_key"] = json!("order-7");
    let first = router.accept(&body).await;
    let second = router.accept(&body).await;
    assert_eq!(first, second);
    body["notification"]["title"] = json!("Another");
    let (status, problem) = router.call(Method::POST, "/v1/messages", Some(&body)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(problem["code"], "idempotency_mismatch");
}

#[tokio::test]
async fn a_message_for_later_can_be_taken_back() {
    let world = World::new().await;
    let router = world.router();
    let mut body = message(&[fcm("phone")]);
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    body["deliver_at"] = json!(later.to_string());
    let id = router.accept(&body).await["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/messages/{id}");
    let (status, value) = router.call(Method::DELETE, &path, None).await;
    assert_eq!((status, &value["cancelled"]), (StatusCode::ACCEPTED, &json!(1)), "{value}");
    let view = router.until(&path, |view| view["state"] == "cancelled").await;
    assert_eq!(only(&view)["reason"], "cancelled_by_client");
    let (status, _) = router.call(Method::DELETE, &path, None).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(world.simulator.control().summary().unique, 0);
}

#[tokio::test]
async fn what_can_be_watched_is_there() {
    let world = World::new().await;
    let router = world.router();
    router.settle(&message(&[apns("phone")])).await;
    assert_eq!(router.get("/livez").await["status"], "ok");
    assert_eq!(router.get("/readyz").await["status"], "ok");
    let providers = router.get("/admin/v1/providers").await;
    assert_eq!(providers["items"][0]["id"], "apns");
    assert_eq!(providers["items"][0]["state"], "healthy");
    assert_eq!(providers["items"][0]["credential"]["kind"], "p8");
    let routes = router.get("/admin/v1/routes").await;
    assert_eq!(routes["items"][0]["tiers"], json!([["apns"], ["fcm"]]));
    assert_eq!(routes["items"][0]["usable_tier"], 0);
    let config = router.get("/admin/v1/config").await.to_string();
    assert!(config.contains("***") && !config.contains("PRIVATE KEY"), "{config}");
    let metrics = router.get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    for line in [
        "pushyard_attempts_total{outcome=\"Accepted\",provider=\"apns\"} 1",
        "pushyard_deliveries_total{route=\"default\",state=\"sent\"} 1",
        "pushyard_messages_total{client=\"local\",result=\"accepted\"} 1",
        "pushyard_provider_state{provider=\"fcm\",state=\"healthy\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn no_token_and_no_text_reaches_the_log_or_the_metrics() {
    let world = World::new().await;
    world.configure("[log]\nlevel = \"trace\"\n");
    let router = world.router();
    router.settle(&message(&[apns("secretdevice")])).await;
    router.settle(&message(&[fcm("sim-unregistered-secretdevice")])).await;
    let metrics = router.get("/metrics").await;
    let seen = format!("{}{}", router.log(), metrics.as_str().unwrap());
    let hex: String = "secretdevice".bytes().map(|byte| format!("{byte:02x}")).collect();
    for secret in ["secretdevice", &*hex, "Order 7", "Bearer ", "bearer "] {
        assert!(!seen.contains(secret), "{secret} was logged");
    }
}

#[tokio::test]
async fn a_drain_ends_with_exit_code_0_and_nothing_lost() {
    let world = World::new().await;
    let router = world.router();
    for n in 0..50 {
        router.accept(&message(&[fcm(&format!("slow250-{n}"))])).await;
    }
    let log = router.watch_log();
    assert_eq!(router.terminate().await, Some(0), "{}", log.lock().unwrap());
    let router = world.router();
    router
        .until("/metrics", |metrics| {
            let text = metrics.as_str().unwrap_or_default();
            text.contains("pushyard_queue_deliveries{state=\"queued\"} 0")
                && text.contains("pushyard_queue_deliveries{state=\"sending\"} 0")
                && text.contains("pushyard_queue_deliveries{state=\"waiting\"} 0")
        })
        .await;
    let summary = world.simulator.control().summary();
    assert_eq!((summary.unique, summary.duplicates), (50, 0), "{}", log.lock().unwrap());
}
