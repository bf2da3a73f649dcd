//! Bad input to the real binary: a clear problem that names the field and the
//! remedy, and nothing is changed.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::harness::{World, apns, client, fcm, message};

/// One bad body: what it is, its bytes, and what the problem must say.
struct Case {
    name: &'static str,
    body: Vec<u8>,
    status: u16,
    code: &'static str,
    /// Pointer and a part of the detail of one of the faults.
    fault: Option<(&'static str, &'static str)>,
}

fn case(name: &'static str, body: impl Into<Vec<u8>>, status: u16, code: &'static str) -> Case {
    Case { name, body: body.into(), status, code, fault: None }
}

fn invalid(name: &'static str, body: &Value, pointer: &'static str, says: &'static str) -> Case {
    let body = body.to_string().into_bytes();
    Case { name, body, status: 422, code: "invalid", fault: Some((pointer, says)) }
}

fn with(key: &str, value: Value) -> Value {
    let mut body = message(&[fcm("phone")]);
    body[key] = value;
    body
}

fn to(recipient: &Value) -> Value {
    json!({"to": [recipient], "data": {"a": "b"}})
}

fn cases() -> Vec<Case> {
    let good = message(&[fcm("phone")]).to_string();
    let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
    let many: Vec<_> = (0..1001).map(|n| json!({"addresses": [fcm(&n.to_string())]})).collect();
    let addresses: Vec<_> = (0..17).map(|n| fcm(&n.to_string())).collect();
    vec![
        case("not JSON", "hello", 400, "malformed"),
        case("not UTF-8", b"{\"to\":\"\xff\"}".to_vec(), 400, "malformed"),
        case("trailing bytes", format!("{good} x"), 400, "malformed"),
        case("too deep", format!("{{\"to\":{deep}}}"), 400, "malformed"),
        case("duplicate keys", r#"{"to":[],"to":[]}"#, 400, "malformed"),
        case("empty body", "", 400, "malformed"),
        case("too big", format!("{{\"a\":\"{}\"}}", "x".repeat(5 << 20)), 413, "too_large"),
        invalid("not an object", &json!([]), "", ""),
        invalid("nothing to send", &json!({"to": [{"addresses": [fcm("p")]}]}), "", "notification"),
        invalid("empty to", &json!({"to": [], "data": {}}), "/to", ""),
        invalid("too many recipients", &json!({"to": many, "data": {"a": "b"}}), "/to", "1000"),
        invalid(
            "too many addresses",
            &to(&json!({"addresses": addresses})),
            "/to/0/addresses",
            "16",
        ),
        invalid(
            "unknown kind",
            &to(&json!({"addresses": [{"kind": "apn", "token": "aa"}]})),
            "/to/0/addresses/0/kind",
            "did you mean \"apns\"?",
        ),
        invalid("unknown field", &with("notificaton", json!({})), "/notificaton", "notification"),
        invalid("wrong type", &with("ttl", json!([])), "/ttl", ""),
        invalid("ttl too long", &with("ttl", json!("29d")), "/ttl", "28"),
        invalid("ttl without a unit", &with("ttl", json!("soon")), "/ttl", ""),
        invalid("bad date", &with("deliver_at", json!("tomorrow")), "/deliver_at", "3339"),
        invalid("data must be strings", &with("data", json!({"n": 1})), "/data/n", "string"),
        invalid("unknown route", &with("route", json!("defualt")), "/route", "default"),
        invalid(
            "line breaks in a token",
            &to(&json!({"addresses": [fcm("abc\r\nX: y")]})),
            "/to/0/addresses/0/token",
            "line breaks",
        ),
        invalid(
            "a token that is no hex",
            &to(&json!({"addresses": [{"kind": "apns", "token": "zz"}]})),
            "/to/0/addresses/0/token",
            "hexadecimal",
        ),
        invalid(
            "two targets in one address",
            &to(&json!({"addresses": [{"kind": "fcm", "token": "a", "topic": "b"}]})),
            "/to/0/addresses/0",
            "exactly one",
        ),
        invalid(
            "no provider of the route serves it",
            &to(&json!({"addresses": [{"kind": "apns", "token": "aa", "app": "com.other"}]})),
            "/to/0",
            "",
        ),
        invalid(
            "too large for every vendor",
            &with("data", json!({"a": "x".repeat(5000)})),
            "",
            "",
        ),
    ]
}

#[tokio::test]
async fn each_bad_body_gets_a_problem_that_names_the_place_and_the_remedy() {
    let world = World::new().await;
    let router = world.router();
    let http = client();
    let mut faults = Vec::new();
    for Case { name, body, status, code, fault } in cases() {
        let answer = http
            .post(format!("{}/v1/messages", router.api()))
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
            .unwrap();
        let (got, kind) = (answer.status().as_u16(), answer.headers()["content-type"].clone());
        let problem: Value = answer.json().await.unwrap();
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        let told = fault.is_none_or(|(pointer, says)| {
            errors.iter().any(|error| {
                let detail = error["detail"].as_str().unwrap_or_default();
                (pointer.is_empty() || error["pointer"] == pointer) && detail.contains(says)
            })
        });
        let type_ = format!("urn:pushyard:problem:{code}");
        if got != status
            || problem["code"] != code
            || problem["type"] != type_.as_str()
            || kind != "application/problem+json"
            || !told
        {
            faults.push(format!("{name}: {got} {problem}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(world.simulator.control().summary().unique, 0);
}

#[tokio::test]
async fn all_faults_of_a_body_are_told_at_once() {
    let world = World::new().await;
    let router = world.router();
    let body = json!({
        "to": [{"addresses": [{"kind": "apn", "token": "aa"}, {"kind": "fcm"}]}],
        "notification": {"titel": "x"},
        "ttl": -1,
    });
    let (status, problem) = router.call(reqwest::Method::POST, "/v1/messages", Some(&body)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let pointers: Vec<_> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["pointer"].as_str().unwrap())
        .collect();
    for pointer in ["/to/0/addresses/0/kind", "/to/0/addresses/1", "/notification/titel", "/ttl"] {
        assert!(
            pointers.iter().any(|p| p.starts_with(pointer)),
            "{pointer} is not in {pointers:?}"
        );
    }
}

#[tokio::test]
async fn without_the_right_key_nobody_is_let_in() {
    let world = World::new().await;
    world.configure(
        "[[clients]]\nname = \"shop\"\nkey = \"shop-key-0123456789\"\n\
         [[clients]]\nname = \"ops\"\nkey = \"ops-key-0123456789\"\nadmin = true\n",
    );
    let router = world.router();
    let http = client();
    for (key, path, status) in [
        (None, "/v1/messages", 401),
        (Some("wrong"), "/v1/messages", 401),
        (Some("shop-key-0123456789"), "/v1/messages", 202),
    ] {
        let mut request =
            http.post(format!("{}{path}", router.api())).json(&message(&[apns("phone")]));
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{key:?}");
        if status == 401 {
            assert_eq!(answer.headers()["www-authenticate"], "Bearer");
            let problem = answer.text().await.unwrap();
            assert!(problem.contains("unauthenticated") && !problem.contains("wrong"), "{problem}");
        }
    }
    let (status, _) = router.call(reqwest::Method::GET, "/admin/v1/providers", None).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let (status, _) = router.call(reqwest::Method::GET, "/readyz", None).await;
    assert_eq!(status, StatusCode::OK, "health is always open");
}

#[tokio::test]
async fn a_broken_line_of_a_batch_gets_its_problem_and_the_rest_goes_on() {
    let world = World::new().await;
    let router = world.router();
    let good = message(&[fcm("phone")]).to_string();
    let body = format!("{good}\n\n{{broken\n{good}\n{{\"to\":[]}}\n{good}");
    let answer = client()
        .post(format!("{}/v1/messages/batch", router.api()))
        .header("content-type", "application/x-ndjson")
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let text = answer.text().await.unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<_> = lines.iter().map(|line| line["line"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 3, 4, 5, 6], "{text}");
    assert_eq!(lines[1]["problem"]["code"], "malformed");
    assert_eq!(lines[3]["problem"]["code"], "invalid");
    let accepted = lines.iter().filter(|line| line["id"].is_string()).count();
    assert_eq!(accepted, 3, "{text}");
}
