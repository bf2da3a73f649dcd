//! The control port, as a program in another language would use it.

use std::time::Duration;

use pushyard_simulator::{Mode, Settings};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Push, Sim, hex, reqwest_client, soon};

const ONE: &str = "01970000-0000-7000-8000-000000000001";
const TWO: &str = "01970000-0000-7000-8000-000000000002";

struct Port {
    url: String,
    client: reqwest::Client,
}

impl Port {
    fn of(sim: &Sim) -> Self {
        Self { url: sim.simulator.announcement().control.clone(), client: reqwest_client(sim) }
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let answer = soon(self.client.get(format!("{}{path}", self.url)).send()).await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    async fn call(&self, method: reqwest::Method, path: &str, body: &str) -> (StatusCode, Value) {
        let request = self.client.request(method, format!("{}{path}", self.url));
        let answer = soon(request.body(body.to_owned()).send()).await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn put(&self, path: &str, body: &str) -> (StatusCode, Value) {
        self.call(reqwest::Method::PUT, path, body).await
    }

    async fn post(&self, path: &str, body: &str) -> StatusCode {
        self.call(reqwest::Method::POST, path, body).await.0
    }
}

#[tokio::test]
async fn announcement_is_one_line_with_everything() {
    let sim = Sim::start().await;
    let line = serde_json::to_value(sim.simulator.announcement()).unwrap();
    for name in ["apns", "fcm"] {
        assert!(line["vendors"][name].as_str().unwrap().starts_with("https://127.0.0.1:"));
    }
    assert!(line["control"].as_str().unwrap().starts_with("http://127.0.0.1:"));
    for name in ["ca_file", "config"] {
        assert!(std::path::Path::new(line[name].as_str().unwrap()).is_file());
    }
    assert_eq!(line.as_object().unwrap().len(), 4);
    let config = std::fs::read_to_string(sim.file("pushyard.toml")).unwrap();
    for part in [sim.origin("apns"), sim.origin("fcm"), "AuthKey_SIMKEY0001.p8"] {
        assert!(config.contains(part), "{part}");
    }
}

#[tokio::test]
async fn modes_are_set_for_one_or_all() {
    let sim = Sim::start().await;
    let port = Port::of(&sim);
    let (status, set) = port.put("/vendors/apns", r#"{"mode":"slow","latency_ms":5}"#).await;
    assert_eq!((status.as_u16(), &set["items"][0]["mode"]), (200, &"slow".into()));
    assert_eq!(sim.vendor("apns").behaviour.latency, Some(Duration::from_millis(5)));
    port.put("/vendors/*", r#"{"mode":"failing","status":503,"for":"1h"}"#).await;
    let (_, all) = port.get("/vendors").await;
    let items = all["items"].as_array().unwrap();
    let names: Vec<_> = items.iter().map(|item| item["name"].as_str().unwrap()).collect();
    let expected = [
        "apns",
        "fcm",
        "fcm-oauth",
        "apns-sandbox",
        "ntfy",
        "gotify",
        "webhook",
        "apns-broadcast",
        "apns-sandbox-broadcast",
    ];
    assert_eq!(names, expected);
    for item in items {
        assert_eq!(item["mode"], "failing");
        for key in ["requests", "accepted", "in_flight", "connections", "probes", "breaches"] {
            assert!(item[key].is_u64(), "{key}");
        }
    }
    port.put("/vendors/fcm-oauth", "{}").await;
    assert_eq!(sim.vendor("fcm-oauth").behaviour.mode, Mode::Healthy);
    assert_eq!(sim.vendor("fcm").behaviour.mode, Mode::Failing);
}

#[tokio::test]
async fn faulty_wishes_are_named() {
    let sim = Sim::start().await;
    let port = Port::of(&sim);
    let (status, problem) = port.put("/vendors/apple", "{}").await;
    assert_eq!((status.as_u16(), &problem["code"]), (404, &"not_found".into()));
    assert!(problem["detail"].as_str().unwrap().contains("\"apple\""));
    let (status, problem) = port.put("/vendors/apns", r#"{"mood":"bad"}"#).await;
    assert_eq!((status.as_u16(), &problem["errors"][0]["pointer"]), (422, &"/mood".into()));
    let (status, problem) = port.put("/vendors/apns", r#"{"mode":"sleepy"}"#).await;
    assert_eq!(status, 422);
    assert!(problem["errors"][0]["detail"].as_str().unwrap().contains("sleepy"));
    assert_eq!(port.put("/vendors/apns", "{").await.0, 400);
    assert_eq!(port.get("/nowhere").await.0, 404);
    assert_eq!(port.put("/summary", "").await.0, 405);
    assert_eq!(port.get("/arrivals?cursor=x").await.0, 422);
    assert_eq!(port.get("/requests?vendor=apple").await.0, 404);
}

#[tokio::test]
async fn ledger_is_read_and_judged() {
    let sim = Sim::start().await;
    let port = Port::of(&sim);
    let (fcm, bearer) = sim.fcm().await;
    fcm.answer(&Push::fcm(&bearer, "t").delivery(ONE)).await;
    fcm.answer(&Push::fcm(&bearer, "t").delivery(ONE)).await;
    let apns = sim.apns().await;
    apns.answer(&sim.push(&hex("token")).delivery("odd-id")).await;
    let (_, page) = port.get("/arrivals?limit=1").await;
    assert_eq!(page["items"][0]["delivery"], ONE);
    assert_eq!(
        (&page["items"][0]["copies"], &page["items"][0]["vendor"]),
        (&2.into(), &"fcm".into())
    );
    assert!(page["items"][0]["first_at"].as_str().unwrap().ends_with('Z'));
    let next = page["next"].as_str().unwrap();
    let (_, page) = port.get(&format!("/arrivals?cursor={next}")).await;
    assert_eq!((&page["items"][0]["delivery"], &page["next"]), (&"odd-id".into(), &Value::Null));

    let (_, summary) = port.get("/summary").await;
    let plain = json!({"unique": 2, "duplicates": 1, "lost": 0, "unexpected": 0});
    for (key, value) in plain.as_object().unwrap() {
        assert_eq!(&summary[key], value, "{key}");
    }
    assert_eq!(port.post("/expect", &format!("\"{ONE}\"\n\n\"{TWO}\"\n")).await, 204);
    assert_eq!(port.post("/expect", "nonsense").await, 422);
    let (_, summary) = port.get("/summary").await;
    assert_eq!((&summary["lost"], &summary["unexpected"]), (&1.into(), &1.into()));
}

#[tokio::test]
async fn requests_are_shown_as_received_with_secrets_masked() {
    let sim = Sim::start().await;
    let port = Port::of(&sim);
    let apns = sim.apns().await;
    apns.answer(&sim.push("0011").delivery(ONE).header("apns-collapse-id", "order-7")).await;
    let (_, requests) = port.get("/requests?vendor=apns&limit=5").await;
    let item = &requests["items"][0];
    assert_eq!((&item["method"], &item["path"]), (&"POST".into(), &"/3/device/0011".into()));
    assert_eq!(item["headers"]["apns-collapse-id"], "order-7");
    let authorization = item["headers"]["authorization"].as_str().unwrap();
    assert!(authorization.starts_with("bearer ey"), "a JWT as it came: {authorization}");
    assert!(item["body"].as_str().unwrap().contains(ONE));
    assert_eq!(item["json"]["aps"]["alert"], "hello");
}

#[tokio::test]
async fn only_the_last_requests_are_kept() {
    let sim = Sim::with(|settings| settings.request_log = 3).await;
    let apns = sim.apns().await;
    for n in 0..5 {
        apns.answer(&sim.push(&format!("000{n}"))).await;
    }
    let requests = sim.control().requests(Some("apns"), 10).unwrap();
    let paths: Vec<_> = requests.iter().map(|request| request.path.as_str()).collect();
    assert_eq!(paths, ["/3/device/0004", "/3/device/0003", "/3/device/0002"]);
}

#[tokio::test]
async fn reset_goes_back_to_the_start() {
    let sim = Sim::start().await;
    let port = Port::of(&sim);
    let (fcm, bearer) = sim.fcm().await;
    fcm.answer(&Push::fcm(&bearer, "t").delivery(ONE)).await;
    port.put("/vendors/*", r#"{"mode":"failing"}"#).await;
    assert_eq!(port.post("/reset", "").await, 204);
    let status = sim.vendor("fcm");
    assert_eq!((status.requests, status.accepted, status.behaviour.mode), (0, 0, Mode::Healthy));
    assert_eq!(sim.control().summary().unique, 0);
    assert!(sim.control().requests(None, 10).unwrap().is_empty());
    assert_eq!(fcm.answer(&Push::fcm(&bearer, "t")).await.status, 200, "the token still counts");
}

#[tokio::test]
async fn shutdown_frees_the_ports_and_a_restart_keeps_the_identity() {
    let sim = Sim::start().await;
    let (address, control) = (sim.address("apns"), sim.simulator.announcement().control.clone());
    let client = sim.apns().await;
    let account = sim.account();
    let files = ["ca.pem", "AuthKey_SIMKEY0001.p8", "apns-client.pem"];
    let before = files.map(|name| std::fs::read(sim.file(name)).unwrap());
    let Sim { simulator, dir } = sim;
    simulator.shutdown().await;
    drop(client);
    let mut settings = Settings::in_dir(dir.path());
    settings.apns = address.parse().unwrap();
    settings.control = control.replace("http://", "").parse().unwrap();
    let simulator = pushyard_simulator::start(settings).await.unwrap();
    let sim = Sim { simulator, dir };
    assert_eq!(before, files.map(|name| std::fs::read(sim.file(name)).unwrap()));
    assert_eq!(account["private_key"], sim.account()["private_key"]);
    assert_eq!(sim.apns().await.answer(&sim.push("0011")).await.status, 200);
}

#[tokio::test]
async fn taken_port_is_refused_at_the_start() {
    let sim = Sim::start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::in_dir(dir.path());
    settings.apns = sim.address("apns").parse().unwrap();
    let Err(error) = pushyard_simulator::start(settings).await else {
        panic!("two simulators share a port");
    };
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}
