//! Explain, against what then happens: the push goes where it was said to go, with
//! the request that was shown, and asking leaves nothing behind.

use pushyard_simulator::{Behaviour, Mode};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::harness::{Router, World, apns, client, fcm, message, only, run};

const PATH: &str = "/v1/messages/explain";

async fn explain(router: &Router, message: &Value) -> Value {
    let (status, value) = router.call(Method::POST, PATH, Some(message)).await;
    assert_eq!(status, StatusCode::OK, "{value}");
    value["deliveries"][0].clone()
}

/// Why each provider is left out.
fn reason<'a>(delivery: &'a Value, provider: &str) -> &'a str {
    let mut excluded = delivery["excluded"].as_array().unwrap().iter();
    let found = excluded.find(|one| one["provider"] == provider);
    found.and_then(|one| one["reason"].as_str()).unwrap_or_default()
}

/// Messages and attempts so far.
async fn counted(router: &Router) -> Vec<String> {
    let metrics = router.get("/metrics").await;
    let counters = ["pushyard_messages_total", "pushyard_attempts_total"];
    let counts = |line: &&str| counters.iter().any(|counter| line.starts_with(counter));
    metrics.as_str().unwrap().lines().filter(counts).map(str::to_owned).collect()
}

/// What was said, and what then became of it.
async fn explain_then_send(router: &Router, message: &Value) -> (Value, Value) {
    let explained = explain(router, message).await;
    let sent = only(&router.settle(message).await).clone();
    assert_eq!(sent["provider"], explained["candidates"][0]["provider"], "{explained}\n{sent}");
    (explained, sent)
}

#[tokio::test]
async fn a_push_goes_where_it_was_said_to_go_whatever_has_happened() {
    let world = World::new().await;
    world.configure("[[routes]]\nname = \"fcm-first\"\ntiers = [[\"fcm\"], [\"apns\"]]\n");
    let router = world.router();
    let control = world.simulator.control();
    let both = message(&[apns("phone"), fcm("phone")]);

    let (healthy, _) = explain_then_send(&router, &both).await;
    assert_eq!(healthy["candidates"][0]["provider"], "apns", "{healthy}");
    assert_eq!(healthy["candidates"][0]["share"], 1.0, "{healthy}");

    let (status, _) = router.call(Method::POST, "/admin/v1/providers/apns/drain", None).await;
    assert_eq!(status, StatusCode::OK);
    let (drained, _) = explain_then_send(&router, &both).await;
    assert_eq!(reason(&drained, "apns"), "drained", "{drained}");
    router.call(Method::POST, "/admin/v1/providers/apns/resume", None).await;

    let busy = Behaviour { retry_after_s: Some(60), ..Behaviour::of(Mode::Throttling) };
    control.set("fcm", busy).unwrap();
    let fcm_first = json!({"route": "fcm-first", "to": both["to"], "data": {"a": "b"}});
    router.settle(&fcm_first).await;
    let (throttled, _) = explain_then_send(&router, &fcm_first).await;
    assert_eq!(reason(&throttled, "fcm"), "throttled", "{throttled}");
    assert!(throttled["excluded"][0]["until"].is_string(), "{throttled}");
}

#[tokio::test]
async fn an_ejected_provider_is_told_and_so_is_why_a_push_passed_it_over() {
    let world = World::new().await;
    let router = world.router();
    world.simulator.control().set_mode("apns", Mode::Refusing).unwrap();
    let both = message(&[apns("phone"), fcm("phone")]);
    let first = only(&router.settle(&both).await).clone();
    for _ in 0..5 {
        router.settle(&both).await;
    }
    let (explained, sent) = explain_then_send(&router, &both).await;
    assert_eq!(reason(&explained, "apns"), "ejected", "{explained}");
    let excluded = &explained["excluded"][0];
    assert_eq!(
        (&excluded["detail"], &excluded["state"]),
        (&json!("5 failures in a row"), &json!("ejected"))
    );

    let past = |delivery: &Value| format!("{PATH}?delivery={}", delivery["id"].as_str().unwrap());
    let (_, value) = router.call(Method::POST, &past(&first), None).await;
    let attempts = &value["deliveries"][0]["attempts"];
    assert_eq!(attempts[0]["moved"], Value::Null, "{value}");
    let moved = &attempts[1]["moved"];
    assert_eq!((&moved["from"], &moved["reason"]), (&json!("apns"), &json!("Unavailable")));
    let (_, value) = router.call(Method::POST, &past(&sent), None).await;
    let moved = &value["deliveries"][0]["attempts"][0]["moved"];
    assert_eq!((&moved["from"], &moved["reason"]), (&json!("apns"), &json!("ejected")), "{value}");
}

#[tokio::test]
async fn the_request_that_is_shown_is_the_one_that_goes_out_and_asking_leaves_nothing() {
    let world = World::new().await;
    let router = world.router();
    let control = world.simulator.control();
    let both = message(&[apns("secret-phone"), fcm("secret-token")]);
    let before = counted(&router).await;
    let text = explain(&router, &both).await.to_string();
    let hex: String = "secret-phone".bytes().map(|byte| format!("{byte:02x}")).collect();
    assert!(!text.contains("secret-") && !text.contains(&hex), "{text}");
    assert_eq!(router.get("/v1/messages").await["items"], json!([]), "nothing is stored");
    assert_eq!(control.vendor("apns").unwrap().accepted, 0, "nothing is sent");
    assert_eq!(before, counted(&router).await, "nothing is counted");
    let metrics = router.get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    let path = "path=\"/v1/messages/explain\"";
    assert!(metrics.contains(path), "{metrics}");
    assert!(!router.log().contains("Order 7"), "{}", router.log());

    let explained = explain(&router, &both).await;
    let shown = &explained["candidates"][0]["request"];
    router.settle(&both).await;
    let requests = control.requests(Some("apns"), 10).unwrap();
    let request = requests.iter().find(|request| request.path.starts_with("/3/device/")).unwrap();
    for header in ["apns-topic", "apns-push-type", "apns-priority", "content-type"] {
        let went = request.headers.iter().find(|(name, _)| *name == header);
        assert_eq!(shown["headers"][header], went.unwrap().1.as_str(), "{header}");
    }
    assert_eq!(request.json.as_ref().unwrap()["aps"], shown["body"]["aps"]);
    assert_eq!(shown["headers"]["authorization"], "***");
    assert!(shown["url"].as_str().unwrap().ends_with("/3/device/***"), "{shown}");
    assert_eq!(shown["body"]["aps"]["alert"], json!({"title": "Paid", "body": "Order 7"}));
}

#[tokio::test]
async fn bad_input_is_refused_as_for_a_message_and_by_the_command_line() {
    let world = World::new().await;
    let router = world.router();
    let wrong = message(&[json!({"kind": "apn", "token": "aa"})]);
    let (status, explained) = router.call(Method::POST, PATH, Some(&wrong)).await;
    let (_, sent) = router.call(Method::POST, "/v1/messages", Some(&wrong)).await;
    assert_eq!((status, &explained), (StatusCode::UNPROCESSABLE_ENTITY, &sent));
    let unknown = format!("{PATH}?delivery=0197f000-0000-7000-8000-000000000001");
    let (status, _) = router.call(Method::POST, &unknown, None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);

    let url = router.api().to_owned();
    // The simulator lives on this thread: it must go on meanwhile.
    let ran = tokio::task::spawn_blocking(move || {
        let explain = |words: &[&str]| run(&[&["explain", "--url", &url], words].concat());
        [
            explain(&["--to", "apns:9f86,fcm:e1x7,ref=alice"]),
            explain(&["--to", "ntfy:alice"]),
            explain(&["--to", "apns:9f8"]),
            explain(&["--to", "fcm:e1x7", "--delivery", "x"]),
            explain(&["--delivery", "x", "--title", "Paid"]),
        ]
    });
    let [good, nowhere, bad, both, mixed] = ran.await.unwrap();
    assert_eq!(good.0, Some(0), "{good:?}");
    assert!(good.1.starts_with("alice on route default goes to apns\n"), "{good:?}");
    assert_eq!(nowhere.0, Some(1), "{nowhere:?}");
    assert!(nowhere.1.contains("has nowhere to go now"), "{nowhere:?}");
    assert_eq!(bad.0, Some(1), "{bad:?}");
    assert!(bad.2.contains("/to/0/addresses/0/token"), "{bad:?}");
    assert_eq!((both.0, mixed.0), (Some(2), Some(2)), "{both:?} {mixed:?}");
}

#[tokio::test]
async fn operators_explain_on_their_own_listener_and_nobody_else_does() {
    let world = World::new().await;
    world.configure(
        "[[clients]]\nname = \"ops\"\nkey = \"key-of-the-operators\"\nadmin = true\n\
         [[clients]]\nname = \"shop\"\nkey = \"key-of-the-web-shop\"\n",
    );
    let router = world.router().with_key("key-of-the-operators");
    let url = format!("{}/admin/v1/explain", router.admin());
    let ask = |key: &str| {
        let body = message(&[apns("phone"), fcm("phone")]);
        client().post(&url).bearer_auth(key).json(&body).send()
    };
    let answer = ask("key-of-the-operators").await.unwrap();
    assert_eq!(answer.status(), 200);
    let told: Value = answer.json().await.unwrap();
    assert_eq!(told["deliveries"][0]["candidates"][0]["provider"], "apns", "{told}");
    assert_eq!(ask("key-of-the-web-shop").await.unwrap().status(), 403);
    assert_eq!(ask("key-of-nobody-at-all").await.unwrap().status(), 401);
}
