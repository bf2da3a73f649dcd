//! What operators see and do: events, dead letters, the log's filter, the audit.

use pushyard_simulator::Mode;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::harness::{PATIENCE, Router, World, apns, client, fcm, message, only, run};
use super::receiver::{Receiver, SECRET};

/// Reads the operators' events as they come.
struct Watch {
    response: reqwest::Response,
    text: String,
}

impl Watch {
    async fn begin(router: &Router, last: Option<&str>) -> Self {
        let mut request = client().get(format!("{}/admin/v1/events", router.admin()));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next event of this name: its id and its data.
    async fn next(&mut self, name: &str) -> (String, Value) {
        let reading = async {
            loop {
                while let Some((event, rest)) = self.text.split_once("\n\n") {
                    let field = |key: &str| {
                        event.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default()
                    };
                    let found = (field("id: ").to_owned(), serde_json::from_str(field("data: ")));
                    let named = field("event: ") == name;
                    self.text = rest.to_owned();
                    if let (true, (id, Ok(data))) = (named, found) {
                        return (id, data);
                    }
                }
                let chunk = self.response.chunk().await.unwrap().expect("the stream goes on");
                self.text.push_str(std::str::from_utf8(&chunk).unwrap());
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("no {name}"))
    }
}

#[tokio::test]
async fn failovers_are_told_as_they_happen_and_again_to_whoever_missed_them() {
    let world = World::new().await;
    let router = world.router();
    let mut watch = Watch::begin(&router, None).await;
    router.settle(&message(&[apns("503-phone"), fcm("phone")])).await;
    let (id, data) = watch.next("failover").await;
    for (key, value) in
        [("route", "default"), ("from", "apns"), ("to", "fcm"), ("reason", "Unavailable")]
    {
        assert_eq!(data[key], value, "{data}");
    }
    assert_eq!(data["count"], 1);
    assert!(data["by"].is_null() && data["at"].is_string());
    drop(watch);
    let before = (id.parse::<u64>().unwrap() - 1).to_string();
    let (again, data) = Watch::begin(&router, Some(&before)).await.next("failover").await;
    assert_eq!((again, &data["to"]), (id, &json!("fcm")));
}

#[tokio::test]
async fn a_message_is_found_by_its_own_id_and_by_that_of_a_delivery() {
    let world = World::new().await;
    let router = world.router();
    let mut many = message(&[fcm("phone-0")]);
    for n in 1..5 {
        let recipient = json!({"ref": format!("r{n}"), "addresses": [fcm(&format!("phone-{n}"))]});
        many["to"].as_array_mut().unwrap().push(recipient);
    }
    let view = router.settle(&many).await;
    let id = view["id"].as_str().unwrap();
    assert_eq!(router.get(&format!("/admin/v1/messages/{id}")).await, view);
    let third = &view["deliveries"]["items"][3];
    let path = format!("/admin/v1/messages/{}", third["id"].as_str().unwrap());
    let found = router.get(&path).await;
    assert_eq!((&found["id"], &found["counts"]), (&view["id"], &view["counts"]));
    assert_eq!(found["deliveries"]["items"], json!([third]));
    // A delivery's id is its message's and its place from 1; there are five.
    let sixth = format!("{}6", &id[..id.len() - 1]);
    for unknown in ["x", "019785d8-0000-7000-8000-000000000000", &*sixth] {
        let path = format!("/admin/v1/messages/{unknown}");
        let (status, _) = router.call(Method::GET, &path, None).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{unknown}");
    }
}

#[tokio::test]
async fn another_sites_page_can_change_nothing_through_an_operators_browser() {
    let world = World::new().await;
    let router = world.router();
    let drain = |site: &'static str| {
        let url = format!("{}/admin/v1/providers/apns/drain", router.admin());
        client().post(url).header("sec-fetch-site", site).send()
    };
    for foreign in ["cross-site", "same-site"] {
        assert_eq!(drain(foreign).await.unwrap().status(), StatusCode::FORBIDDEN, "{foreign}");
    }
    assert_eq!(router.get("/admin/v1/providers/apns").await["state"], "healthy");
    assert_eq!(drain("same-origin").await.unwrap().status(), StatusCode::OK);
    assert_eq!(router.get("/admin/v1/providers/apns").await["state"], "drained");
}

#[tokio::test]
async fn clients_are_listed_with_who_is_paused() {
    let world = World::new().await;
    let router = world.router();
    let local = |paused| json!([{"name": "local", "admin": true, "paused": paused}]);
    assert_eq!(router.get("/admin/v1/clients").await["items"], local(false));
    router.call(Method::POST, "/admin/v1/clients/local/pause", None).await;
    assert_eq!(router.get("/admin/v1/clients").await["items"], local(true));
    router.call(Method::POST, "/admin/v1/clients/local/resume", None).await;
    assert_eq!(router.get("/admin/v1/clients").await["items"], local(false));
}

#[tokio::test]
async fn operators_are_told_by_signed_webhook() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    world.configure("");
    let text = std::fs::read_to_string(world.config()).unwrap();
    let events = format!(
        "[admin]\nevents = {{ url = \"{}\", secret = \"{SECRET}\", types = [\"failover\"] }}",
        receiver.url
    );
    std::fs::write(world.config(), text.replace("[admin]", &events)).unwrap();
    let router = world.router();
    receiver.refuse(&[500]);
    router.settle(&message(&[apns("503-phone"), fcm("phone")])).await;
    receiver.until(|taken| !taken.is_empty()).await;
    let (_, body) = receiver.taken().remove(0);
    assert_eq!(body["type"], "failover");
    assert_eq!(body["data"]["from"], "apns");
}

#[tokio::test]
async fn dead_letters_are_listed_by_what_they_died_of_and_deleted() {
    let world = World::new().await;
    let router = world.router();
    let mut gone = message(&[apns("gone-phone")]);
    gone["to"][0]["ref"] = json!("alice");
    let view = router.settle(&gone).await;
    assert_eq!(only(&view)["state"], "failed");
    let id = only(&view)["id"].as_str().unwrap().to_owned();
    let page = router.get("/admin/v1/dead-letters?reason=unreachable&provider=apns").await;
    assert_eq!(page["next"], Value::Null);
    let letter = &page["items"][0];
    for (key, value) in [
        ("id", json!(id)),
        ("message", view["id"].clone()),
        ("client", json!("local")),
        ("ref", json!("alice")),
        ("state", json!("failed")),
        ("reason", json!("unreachable")),
        ("replayable", json!(true)),
    ] {
        assert_eq!(letter[key], value, "{key}: {letter}");
    }
    assert_eq!(letter["attempts"][0]["outcome"], "AddressGone");
    for none in ["reason=invalid", "provider=fcm", "client=shop", "until=2020-01-01T00:00:00Z"] {
        let page = router.get(&format!("/admin/v1/dead-letters?{none}")).await;
        assert_eq!(page["items"], json!([]), "{none}");
    }
    for bad in ["reason=bored", "since=yesterday", "cursor=x", "limit=0"] {
        let (status, _) =
            router.call(Method::GET, &format!("/admin/v1/dead-letters?{bad}"), None).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{bad}");
    }
    let (code, shown, said) = command(&router, &["dead-letters", "--reason", "unreachable"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(shown.contains(&id) && shown.contains("alice"), "{shown}");
    let (code, _, said) = command(&router, &["dead-letters", "replay", "not-an-id"]).await;
    assert_eq!(code, Some(1), "{said}");
    let path = format!("/admin/v1/dead-letters/{id}");
    let (status, _) = router.call(Method::DELETE, &path, None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (status, problem) = router.call(Method::DELETE, &path, None).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("not_dead")));
    let unknown = "/admin/v1/dead-letters/0197f000-0000-7000-8000-000000000001";
    let (status, _) = router.call(Method::DELETE, unknown, None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let audit = router.get("/admin/v1/audit").await;
    assert_eq!(audit["items"][0]["what"], format!("delete dead-letters/{id}"));
    assert_eq!(audit["items"][0]["who"], "local");
}

#[tokio::test]
async fn the_logs_filter_is_changed_at_run_time_and_a_bad_one_changes_nothing() {
    let world = World::new().await;
    let router = world.router();
    let put = |filter: Value| {
        let body = json!({ "filter": filter });
        let router = &router;
        async move { router.call(Method::PUT, "/admin/v1/log", Some(&body)).await }
    };
    for bad in [json!("pushyard=loud"), json!("inof"), json!(7), Value::Null] {
        let (status, problem) = put(bad.clone()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{bad}");
        assert_eq!(problem["errors"][0]["pointer"], "/filter", "{problem}");
    }
    assert_eq!(put(json!("pushyard=debug")).await.0, StatusCode::OK);
    router.settle(&message(&[fcm("phone")])).await;
    let told = async {
        while !router.log().contains("delivery settled") {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("debug lines are written");
    // Kept over a restart.
    router.kill();
    let audit = world.router().get("/admin/v1/audit").await;
    assert_eq!(audit["items"][0]["what"], "set log");
    assert_eq!(audit["items"][0]["why"], "pushyard=debug");
}

/// Runs a command against the router's admin listener.
async fn command(router: &Router, words: &[&str]) -> (Option<i32>, String, String) {
    let admin = router.admin().to_owned();
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let running = tokio::task::spawn_blocking(move || {
        let all = ["--admin-url", &admin].into_iter().chain(words.iter().map(String::as_str));
        run(&all.collect::<Vec<_>>())
    });
    running.await.unwrap()
}

fn fcm_is(world: &World, mode: Mode) {
    world.simulator.control().set_mode("fcm", mode).unwrap();
}

#[tokio::test]
async fn a_dead_letter_is_replayed_and_delivered() {
    let world = World::new().await;
    // One attempt, and it is given up.
    world.configure("[dispatch]\nmax_attempts = 1\n");
    let router = world.router();
    fcm_is(&world, Mode::Failing);
    let view = router.settle(&message(&[fcm("phone")])).await;
    assert_eq!(only(&view)["reason"], "attempts_exhausted", "{view}");
    let id = only(&view)["id"].as_str().unwrap().to_owned();
    fcm_is(&world, Mode::Healthy);
    let path = format!("/admin/v1/dead-letters/{id}/replay");
    let (status, answer) = router.call(Method::POST, &path, None).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    let message = format!("/v1/messages/{}", view["id"].as_str().unwrap());
    router.until(&message, |view| only(view)["state"] == "sent").await;
    let (status, problem) = router.call(Method::POST, &path, None).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("not_dead")));
    let unknown = "/admin/v1/dead-letters/0197f000-0000-7000-8000-000000000001/replay";
    assert_eq!(router.call(Method::POST, unknown, None).await.0, StatusCode::NOT_FOUND);
    let page = router.get("/admin/v1/dead-letters").await;
    assert_eq!(page["items"], json!([]));
}

#[tokio::test]
async fn dead_letters_are_replayed_by_what_they_died_of() {
    let world = World::new().await;
    world.configure("[dispatch]\nmax_attempts = 1\n");
    let router = world.router();
    router.settle(&message(&[fcm("gone-phone")])).await;
    fcm_is(&world, Mode::Failing);
    for n in 0..3 {
        router.settle(&message(&[fcm(&format!("phone-{n}"))])).await;
    }
    fcm_is(&world, Mode::Healthy);
    let replay = |body: Value| {
        let router = &router;
        async move { router.call(Method::POST, "/admin/v1/dead-letters/replay", Some(&body)).await }
    };
    let (status, problem) = replay(json!({"reason": "bored", "limit": 0, "why": 1})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let pointers: Vec<&Value> =
        problem["errors"].as_array().unwrap().iter().map(|error| &error["pointer"]).collect();
    assert_eq!(pointers, ["/why", "/reason", "/limit"]);
    let (status, answer) = replay(json!({"reason": "attempts_exhausted", "limit": 2})).await;
    assert_eq!((status, &answer["replayed"]), (StatusCode::ACCEPTED, &json!(2)));
    let (_, answer) = replay(json!({"reason": "attempts_exhausted"})).await;
    assert_eq!(answer["replayed"], 1);
    router
        .until("/admin/v1/dead-letters", |page| page["items"].as_array().unwrap().len() == 1)
        .await;
}

#[tokio::test]
async fn a_receipt_makes_a_delivery_delivered_and_is_told() {
    let (world, receiver) = (World::new().await, Receiver::start().await);
    world.configure(&format!(
        "[[clients]]\nname = \"shop\"\nkey = \"shop-key-0123456789\"\n\
         events = {{ url = \"{}\", secret = \"{SECRET}\", types = [\"delivery.delivered\"] }}\n",
        receiver.url
    ));
    let router = world.router().with_key("shop-key-0123456789");
    let view = router.settle(&message(&[fcm("phone")])).await;
    let id = only(&view)["id"].as_str().unwrap();
    let requests = world.simulator.control().requests(Some("fcm"), 1).unwrap();
    let request: Value = serde_json::from_str(&requests[0].body).unwrap();
    let string = request["message"]["data"]["pushyard"].as_str().unwrap();
    let (delivery, secret) = string.split_once('.').unwrap();
    assert_eq!(delivery, id);
    let wrong = json!({"delivery": delivery, "secret": "AAAAAAAAAAAAAAAAAAAAAA"});
    assert_eq!(
        router.call(Method::POST, "/v1/receipts", Some(&wrong)).await.0,
        StatusCode::NOT_FOUND
    );
    let receipt = json!({"delivery": delivery, "secret": secret});
    for _ in 0..2 {
        let (status, _) = router.call(Method::POST, "/v1/receipts", Some(&receipt)).await;
        assert_eq!(status, StatusCode::NO_CONTENT);
    }
    let path = format!("/v1/messages/{}", view["id"].as_str().unwrap());
    assert_eq!(only(&router.get(&path).await)["state"], "delivered");
    receiver.until(|taken| !taken.is_empty()).await;
    assert_eq!(receiver.taken()[0].1["data"]["delivery"], delivery);
}

#[tokio::test]
async fn a_drained_provider_gets_nothing_also_after_a_restart_until_it_is_resumed() {
    let world = World::new().await;
    let router = world.router();
    let (status, told, errors) = command(&router, &["providers", "drain", "apns"]).await;
    assert_eq!(status, Some(0), "{told}{errors}");
    let view = router.get("/admin/v1/providers/apns").await;
    assert_eq!(
        (&view["state"], &view["reason"]),
        (&json!("drained"), &json!("operator")),
        "{view}"
    );
    assert_eq!(view["operator"]["wish"], "drain", "{view}");
    let both = || message(&[apns("drained"), fcm("drained")]);
    assert_eq!(only(&router.settle(&both()).await)["provider"], "fcm");
    router.kill();
    let router = world.router();
    assert_eq!(only(&router.settle(&both()).await)["provider"], "fcm");
    let (status, ..) = command(&router, &["providers", "resume", "apns"]).await;
    assert_eq!(status, Some(0));
    assert_eq!(only(&router.settle(&both()).await)["provider"], "apns");
    let audit = router.get("/admin/v1/audit").await.to_string();
    assert!(audit.contains("drain providers/apns") && audit.contains("resume"), "{audit}");
    let (status, _) = router.call(Method::POST, "/admin/v1/providers/nobody/drain", None).await;
    assert_eq!(status.as_u16(), 404);
}

#[tokio::test]
async fn a_route_is_changed_for_a_time_and_what_it_names_is_checked() {
    let world = World::new().await;
    let router = world.router();
    let path = "/admin/v1/routes/default/override";
    let wrong = json!({"tiers": [["apns", "nobody"], []], "weights": {"fcm": -1}});
    let (status, told) = router.call(Method::PUT, path, Some(&wrong)).await;
    assert_eq!(status.as_u16(), 422, "{told}");
    let pointers: Vec<_> =
        told["errors"].as_array().unwrap().iter().map(|e| e["pointer"].as_str().unwrap()).collect();
    assert!(pointers.contains(&"/tiers/0/1") && pointers.contains(&"/tiers/1"), "{told}");

    let other = json!({"tiers": [["fcm"], ["apns"]], "expires_in": "2s", "reason": "a test"});
    let (status, told) = router.call(Method::PUT, path, Some(&other)).await;
    assert_eq!((status.as_u16(), &told["tiers"]), (200, &json!([["fcm"], ["apns"]])), "{told}");
    let both = || message(&[apns("o"), fcm("o")]);
    assert_eq!(only(&router.settle(&both()).await)["provider"], "fcm");
    // It ends by itself.
    router.until("/admin/v1/routes", |page| page["items"][0]["override"].is_null()).await;
    assert_eq!(only(&router.settle(&both()).await)["provider"], "apns");
    let (status, _) = router.call(Method::DELETE, path, None).await;
    assert_eq!(status.as_u16(), 404);
}

#[tokio::test]
async fn deliveries_of_a_paused_route_wait_and_go_on_when_it_is_resumed() {
    let world = World::new().await;
    let router = world.router();
    let (status, told) = router.call(Method::POST, "/admin/v1/routes/default/pause", None).await;
    assert_eq!(status.as_u16(), 200, "{told}");
    let accepted = router.accept(&message(&[apns("p"), fcm("p")])).await;
    let path = format!("/v1/messages/{}", accepted["id"].as_str().unwrap());
    assert_eq!(router.get(&path).await["state"], "queued");
    router.call(Method::POST, "/admin/v1/clients/local/pause", None).await;
    let refused = router.call(Method::POST, "/v1/messages", Some(&message(&[apns("q")]))).await;
    assert_eq!(
        (refused.0.as_u16(), &refused.1["code"]),
        (503, &json!("overloaded")),
        "{refused:?}"
    );
    router.call(Method::POST, "/admin/v1/clients/local/resume", None).await;
    assert_eq!(router.get(&path).await["state"], "queued");
    router.call(Method::POST, "/admin/v1/routes/default/resume", None).await;
    router.until(&path, |view| view["state"] == "sent").await;
}
