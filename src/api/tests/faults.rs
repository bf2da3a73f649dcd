//! Every fault of a request, and how it is told.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::Method;
use futures_util::stream;
use serde_json::{Map, Value, json};

use super::harness::{House, SMALL, Setup, post, request, with};
use crate::dispatch::Limits;

fn base() -> Value {
    serde_json::from_str(SMALL).unwrap()
}

/// The smallest message with one field set.
fn set(field: &str, value: Value) -> Value {
    let mut message = base();
    message[field] = value;
    message
}

fn recipient(recipient: Value) -> Value {
    set("to", Value::Array(vec![recipient]))
}

fn address(address: Value) -> Value {
    let addresses = Value::Array(vec![address]);
    recipient(Map::from_iter([("addresses".to_owned(), addresses)]).into())
}

/// `pointer code: detail` of each fault.
async fn faults(house: &House, body: &Value) -> Vec<String> {
    let answer = house.post(body.to_string()).await;
    assert_eq!(answer.status, 422, "{body}: {}", answer.json());
    assert_eq!(answer.problem().1, "invalid");
    let told = |fault: &Value| {
        let text = |field: &str| fault[field].as_str().unwrap().to_owned();
        format!("{} {}: {}", text("pointer"), text("code"), text("detail"))
    };
    answer.json()["errors"].as_array().unwrap().iter().map(told).collect()
}

async fn check(cases: Vec<(Value, &str)>) {
    let house = House::new(Setup::default());
    for (body, expected) in &cases {
        assert_eq!(faults(&house, body).await.join(" | "), *expected, "{body}");
    }
    assert_eq!(house.world.lock().unwrap().submissions, 0, "nothing was handed over");
    assert_eq!(house.counted("local", "invalid"), cases.len() as u64);
}

#[tokio::test]
async fn faults_of_recipients() {
    let good = || json!([{"kind": "fcm", "token": "t"}]);
    let many: Vec<Value> = vec![json!({"addresses": good()}); 1001];
    let seventeen: Vec<Value> = vec![json!({"kind": "fcm", "token": "t"}); 17];
    check(vec![
        (json!([]), " wrong_type: must be an object, not a list"),
        (json!("x"), " wrong_type: must be an object, not a string"),
        (set("to", json!([])), "/to out_of_range: must have 1 to 1000 recipients, not 0"),
        (set("to", json!(many)), "/to out_of_range: must have 1 to 1000 recipients, not 1001"),
        (set("to", json!({})), "/to wrong_type: must be a list of recipients, not an object"),
        (recipient(json!("x")), "/to/0 wrong_type: must be an object, not a string"),
        (recipient(json!({})), "/to/0/addresses required: is required"),
        (
            recipient(json!({"adresses": []})),
            "/to/0/adresses unknown_field: unknown field \"adresses\"; did you mean \"addresses\"? \
             | /to/0/addresses required: is required",
        ),
        (
            recipient(json!({"addresses": []})),
            "/to/0/addresses out_of_range: must have 1 to 16 addresses, not 0",
        ),
        (
            recipient(json!({"addresses": seventeen})),
            "/to/0/addresses out_of_range: must have 1 to 16 addresses, not 17",
        ),
        (
            recipient(json!({"addresses": {}})),
            "/to/0/addresses wrong_type: must be a list of addresses, not an object",
        ),
        (
            recipient(json!({"ref": "x".repeat(257), "addresses": good()})),
            "/to/0/ref out_of_range: must have 0 to 256 characters",
        ),
        (
            recipient(json!({"ref": 7, "addresses": good()})),
            "/to/0/ref wrong_type: must be a string, not a number",
        ),
        (
            recipient(json!({"region": "", "addresses": good()})),
            "/to/0/region out_of_range: must have 1 to 64 characters",
        ),
        (
            recipient(json!({"user": "bob", "ref": "x"})),
            "/to/0/user conflict: a user's devices bring their own ref, region and addresses; \
             give either the user or these",
        ),
        (recipient(json!({"user": "bob"})), "/to/0/user no_devices: this user has no devices"),
    ])
    .await;
}

#[tokio::test]
async fn faults_of_addresses() {
    let one_of = "needs exactly one of token, fid, topic, condition";
    let missing = format!("/to/0/addresses/0 required: {one_of}");
    let several = format!("/to/0/addresses/0 conflict: {one_of}");
    let slip =
        "/to/0/addresses/0/tokn unknown_field: unknown field \"tokn\"; did you mean \"token\"?";
    check(vec![
        (address(json!(1)), "/to/0/addresses/0 wrong_type: must be an object, not a number"),
        (address(json!({"token": "t"})), "/to/0/addresses/0/kind required: is required"),
        (
            address(json!({"kind": 1})),
            "/to/0/addresses/0/kind wrong_type: must be a string, not a number",
        ),
        (
            address(json!({"kind": "apn", "token": "ab"})),
            "/to/0/addresses/0/kind unknown_kind: unknown kind \"apn\"; did you mean \"apns\"?",
        ),
        (address(json!({"kind": "apns"})), "/to/0/addresses/0/token required: is required"),
        (
            address(json!({"kind": "apns", "token": "ab", "channel": "YQ=="})),
            "/to/0/addresses/0 conflict: needs exactly one of token, channel",
        ),
        (
            address(json!({"kind": "apns", "token": 7})),
            "/to/0/addresses/0/token wrong_type: must be a string, not a number",
        ),
        (
            address(json!({"kind": "apns", "token": ""})),
            "/to/0/addresses/0/token invalid_value: must not be empty",
        ),
        (
            address(json!({"kind": "apns", "token": "xyz"})),
            "/to/0/addresses/0/token invalid_value: must be an even number of hexadecimal digits",
        ),
        (
            address(json!({"kind": "fcm", "token": "a\r\nb"})),
            "/to/0/addresses/0/token invalid_value: \
             must not contain line breaks or control characters",
        ),
        (
            address(json!({"kind": "fcm", "token": "x".repeat(4097)})),
            "/to/0/addresses/0/token out_of_range: must have at most 4096 bytes",
        ),
        (address(json!({"kind": "fcm"})), &missing),
        (address(json!({"kind": "fcm", "token": "t", "topic": "news"})), &several),
        (
            address(json!({"kind": "fcm", "token": null})),
            "/to/0/addresses/0/token wrong_type: \
             must be a string, not null; leave the field out instead",
        ),
        (address(json!({"kind": "fcm", "tokn": "t", "token": "t"})), slip),
        (
            address(json!({"kind": "fcm", "token": "t", "provider": "fmc"})),
            "/to/0/addresses/0/provider unknown_provider: \
             unknown provider \"fmc\"; did you mean \"fcm\"?",
        ),
        (
            address(json!({"kind": "fcm", "token": "t", "provider": "apns"})),
            "/to/0/addresses/0/provider conflict: provider \"apns\" is of kind \"apns\"",
        ),
        (
            address(json!({"kind": "fcm", "token": "t", "registered_at": "yesterday"})),
            "/to/0/addresses/0/registered_at invalid_value: \
             must be a time as RFC 3339 writes it, such as \"2026-12-01T08:00:00Z\"",
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_message_that_nobody_can_get_is_refused_with_the_nearest_reason() {
    let europe =
        |recipient: Value| json!({"to": [recipient], "data": {"a": "b"}, "route": "europe"});
    check(vec![
        (
            address(json!({"kind": "apns", "token": "ab", "app": "com.other"})),
            "/to/0 no_route: no provider of route \"default\" has the app or project of these \
             addresses (apns)",
        ),
        (
            address(json!({"kind": "fcm", "token": "t", "provider": "fcm-eu"})),
            "/to/0 no_route: no provider of route \"default\" serves any of: fcm; \
             an address is bound to \"fcm-eu\", which must be in the route",
        ),
        (
            europe(json!({"region": "us", "addresses": [{"kind": "fcm", "token": "t"}]})),
            "/to/0 no_route: no provider of route \"europe\" serves region \"us\" and one of: fcm",
        ),
        (
            europe(json!({"addresses": [{"kind": "apns", "token": "ab"}]})),
            "/to/0 no_route: no provider of route \"europe\" serves any of: apns",
        ),
    ])
    .await;
}

#[tokio::test]
async fn faults_of_content() {
    let nothing = "/notification required: a message needs a notification, data, or both";
    check(vec![
        (
            set("titel", json!(1)),
            "/titel unknown_field: unknown field \"titel\"; did you mean \"ttl\"?",
        ),
        (
            set("colapse_key", json!("x")),
            "/colapse_key unknown_field: unknown field \"colapse_key\"; \
             did you mean \"collapse_key\"?",
        ),
        (set("zzz", json!(1)), "/zzz unknown_field: unknown field \"zzz\""),
        (set("a/b", json!(1)), "/a~1b unknown_field: unknown field \"a/b\""),
        (json!({"to": base()["to"]}), nothing),
        (set("data", json!({})), nothing),
        (
            set("notification", json!({})),
            "/notification required: needs at least one of title and body, or another field",
        ),
        (
            set("notification", json!("hi")),
            "/notification wrong_type: must be an object, not a string",
        ),
        (
            set("notification", json!({"titel": "x"})),
            "/notification/titel unknown_field: unknown field \"titel\"; \
             did you mean \"title\"?",
        ),
        (
            set("notification", json!({"title": 1})),
            "/notification/title wrong_type: must be a string, not a number",
        ),
        (
            set("notification", json!({"badge": -1})),
            "/notification/badge out_of_range: must be between 0 and 4294967295",
        ),
        (
            set("notification", json!({"badge": "3"})),
            "/notification/badge wrong_type: must be a whole number, not a string",
        ),
        (set("data", json!({"n": 7})), "/data/n wrong_type: must be a string, not a number"),
        (set("data", json!([])), "/data wrong_type: must be an object of strings, not a list"),
        (
            set("data", json!({"aps": "x"})),
            "/data/aps invalid_value: the key \"aps\" is used by the payload itself; rename it",
        ),
        (
            set("data", json!({"pushyard": "x"})),
            "/data/pushyard invalid_value: \
             the key \"pushyard\" is used by the payload itself; rename it",
        ),
    ])
    .await;
}

#[tokio::test]
async fn faults_of_options() {
    let ttl_range = "/ttl out_of_range: must be between 0 s and 28 d";
    let ttl_text = "/ttl invalid_value: \
                    must be a duration such as \"30s\", \"4h\" or \"7d\", or a number of seconds";
    let time = "/deliver_at invalid_value: \
                must be a time as RFC 3339 writes it, such as \"2026-12-01T08:00:00Z\"";
    let key = "/idempotency_key invalid_value: must be 1 to 255 printable ASCII characters";
    let metadata: Map<String, Value> = (0..65).map(|n| (format!("k{n}"), json!("v"))).collect();
    check(vec![
        (
            set("priority", json!("urgent")),
            "/priority invalid_value: must be \"high\" or \"normal\", not \"urgent\"",
        ),
        (set("priority", json!(1)), "/priority wrong_type: must be a string, not a number"),
        (
            set("on_ambiguous", json!("ask")),
            "/on_ambiguous invalid_value: must be \"resend\" or \"stop\", not \"ask\"",
        ),
        (
            set("durability", json!("tape")),
            "/durability invalid_value: must be \"disk\" or \"memory\", not \"tape\"",
        ),
        (set("ttl", json!("29d")), ttl_range),
        (set("ttl", json!(-1)), ttl_range),
        (set("ttl", json!(2_419_201)), ttl_range),
        (set("ttl", json!("soon")), ttl_text),
        (set("ttl", json!("-4h")), ttl_text),
        (
            set("ttl", json!(1.5)),
            "/ttl wrong_type: must be a duration such as \"4h\", or a whole number of seconds, \
             not a number",
        ),
        (
            set("ttl", json!(true)),
            "/ttl wrong_type: must be a duration such as \"4h\", or a whole number of seconds, \
             not a boolean",
        ),
        (set("deliver_at", json!("tomorrow")), time),
        (set("deliver_at", json!("2026-02-30T08:00:00Z")), time),
        (
            set("deliver_at", json!("2999-01-01T00:00:00Z")),
            "/deliver_at out_of_range: must be at most 28 d ahead",
        ),
        (set("collapse_key", json!("")), "/collapse_key out_of_range: must have 1 to 1024 bytes"),
        (
            set("collapse_key", json!("x".repeat(1025))),
            "/collapse_key out_of_range: must have 1 to 1024 bytes",
        ),
        (
            set("collapse_key", json!("a\r\nb: c")),
            "/collapse_key invalid_value: must not contain line breaks or control characters",
        ),
        (
            set("route", json!("defualt")),
            "/route unknown_route: unknown route \"defualt\"; did you mean \"default\"?",
        ),
        (
            set("route", json!(null)),
            "/route wrong_type: must be a string, not null; leave the field out instead",
        ),
        (
            set("overrides", json!({"apn": {}})),
            "/overrides/apn unknown_kind: unknown kind \"apn\"; did you mean \"apns\"?",
        ),
        (
            set("overrides", json!({"apns": "x"})),
            "/overrides/apns wrong_type: \
             must be an object that is merged into the vendor's payload, not a string",
        ),
        (set("overrides", json!([])), "/overrides wrong_type: must be an object, not a list"),
        (set("metadata", json!(metadata)), "/metadata out_of_range: must have at most 64 entries"),
        (
            set("metadata", json!({"k": "v".repeat(1025)})),
            "/metadata/k out_of_range: must have at most 1024 bytes",
        ),
        (
            set("metadata", json!({"": "v"})),
            "/metadata/ out_of_range: a key must have 1 to 64 bytes",
        ),
        (
            set("metadata", json!({"k": 1})),
            "/metadata/k wrong_type: must be a string, not a number",
        ),
        (set("idempotency_key", json!("")), key),
        (set("idempotency_key", json!("schlüssel")), key),
        (
            set("idempotency_key", json!(7)),
            "/idempotency_key wrong_type: must be a string, not a number",
        ),
    ])
    .await;
}

#[tokio::test]
async fn all_faults_of_a_body_are_told_at_once() {
    let house = House::new(Setup::default());
    let body = r#"{
        "to": [
            {"addresses": [{"kind": "apns", "token": "zz"}, {"kind": "fcm"}]},
            {"addresses": [{"kind": "pager"}], "ref": "\n"}],
        "ttl": "1y", "priority": "low", "dta": {"a": 1}}"#;
    let answer = house.post(body).await;
    assert_eq!(answer.problem(), (422, "invalid".to_owned()));
    assert_eq!(answer.json()["detail"], "8 faults; see errors");
    let errors = answer.json()["errors"].as_array().unwrap().clone();
    let pointers: Vec<_> = errors.iter().map(|error| error["pointer"].as_str().unwrap()).collect();
    let expected = [
        "/to/0/addresses/0/token",
        "/to/0/addresses/1",
        "/to/1/addresses/0/kind",
        "/to/1/ref",
        "/ttl",
        "/priority",
        "/dta",
        "/notification",
    ];
    assert_eq!(pointers, expected);
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_400_with_line_and_column() {
    let house = House::new(Setup::default());
    let deep = format!("{{\"to\":{}1{}}}", "[".repeat(40), "]".repeat(40));
    let cases: [(Vec<u8>, &str); 7] = [
        (b"".to_vec(), "the body is empty; send a JSON object"),
        (
            b"to=alice".to_vec(),
            "this is not JSON at line 1 column 2; look at the quotes, commas and brackets there",
        ),
        (
            format!("{SMALL}\n{SMALL}").into_bytes(),
            "something follows the end of the JSON document at line 2 column 1",
        ),
        (
            format!("{SMALL},").into_bytes(),
            "something follows the end of the JSON document at line 1 column 70",
        ),
        (b"{\"to\":\"\xff\"}".to_vec(), "the body is not UTF-8 at line 1 column 8"),
        (deep.into_bytes(), "nested more than 32 levels deep at line 1 column 38"),
        (
            b"{\"ttl\":1,\"ttl\":2}".to_vec(),
            "the key \"ttl\" stands twice in one object at line 1 column 14",
        ),
    ];
    for (body, detail) in cases {
        let shown = String::from_utf8_lossy(&body).into_owned();
        let answer = house.post(body).await;
        assert_eq!(answer.problem(), (400, "malformed".to_owned()), "{shown}");
        assert_eq!(answer.json()["detail"], detail, "{shown}");
    }
}

#[tokio::test]
async fn problem_json_is_exactly_this() {
    let house = House::new(Setup::default());
    let answer = house.post(address(json!({"kind": "apn", "token": "ab"})).to_string()).await;
    insta::assert_snapshot!(String::from_utf8(answer.body).unwrap(), @r#"{"type":"urn:pushyard:problem:invalid","code":"invalid","title":"The request has faults","status":422,"detail":"/to/0/addresses/0/kind: unknown kind \"apn\"; did you mean \"apns\"?","errors":[{"pointer":"/to/0/addresses/0/kind","detail":"unknown kind \"apn\"; did you mean \"apns\"?","code":"unknown_kind"}]}"#);
    let answer = house.get("/nowhere").await;
    insta::assert_snapshot!(String::from_utf8(answer.body).unwrap(), @r#"{"type":"urn:pushyard:problem:not_found","code":"not_found","title":"There is no such thing","status":404,"detail":"this path does not exist on this listener"}"#);
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_declared_or_not() {
    let limits = Limits { max_body: 100, ..Limits::default() };
    let house = House::new(Setup { limits, ..Setup::default() });
    let declared = with(post("/v1/messages", " ".repeat(101)), "content-length", "101");
    let chunks = stream::iter((0..11).map(|_| Ok::<_, io::Error>(" ".repeat(10))));
    let streamed = post("/v1/messages", Body::from_stream(chunks));
    for request in [declared, streamed] {
        assert_eq!(house.send(request).await.problem(), (413, "too_large".to_owned()));
    }
    assert_eq!(house.post(SMALL).await.status, 202);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_in_time_is_408() {
    let house = House::new(Setup::default());
    let never = stream::pending::<Result<Vec<u8>, io::Error>>();
    let answer = house.send(post("/v1/messages", Body::from_stream(never))).await;
    assert_eq!(answer.status, 408);
    assert!(answer.body.is_empty());
    assert!(answer.header("x-request-id").is_some());
}

/// A body that comes piece by piece, a piece a second.
fn piecewise(piece: usize, pieces: usize) -> Body {
    Body::from_stream(stream::unfold(0, move |sent| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        (sent < pieces).then(|| (Ok::<_, io::Error>(vec![b' '; piece]), sent + 1))
    }))
}

#[tokio::test(start_paused = true)]
async fn a_body_slower_than_1_kib_a_second_is_408_long_before_the_timeout() {
    let house = House::new(Setup::default());
    let began = house.clock.now().instant;
    let answer = house.send(post("/v1/messages", piecewise(512, 29))).await;
    assert_eq!(answer.status, 408);
    assert!(answer.body.is_empty());
    let took = house.clock.now().instant - began;
    assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(15), "{took:?}");
    // Just fast enough, and read to its end: blanks are no message.
    let answer = house.send(post("/v1/messages", piecewise(1024, 28))).await;
    assert_eq!(answer.problem(), (400, "malformed".to_owned()));
}

#[tokio::test]
async fn what_is_not_plain_json_is_415() {
    let house = House::new(Setup::default());
    let declared =
        |kind: &str| with(request(Method::POST, "/v1/messages", SMALL), "content-type", kind);
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/x-ndjson"] {
        let answer = house.send(declared(kind)).await;
        assert_eq!(answer.problem(), (415, "unsupported_media_type".to_owned()), "{kind}");
    }
    for encoding in ["gzip", "identity"] {
        let request = with(post("/v1/messages", SMALL), "content-encoding", encoding);
        let answer = house.send(request).await;
        assert_eq!(answer.problem(), (415, "unsupported_media_type".to_owned()), "{encoding}");
    }
    for kind in ["application/json; charset=utf-8", "Application/JSON", "application/push+json"] {
        assert_eq!(house.send(declared(kind)).await.status, 202, "{kind}");
    }
    assert_eq!(house.send(request(Method::POST, "/v1/messages", SMALL)).await.status, 202);
}

#[tokio::test]
async fn bad_headers_and_parameters_are_422() {
    let house = House::new(Setup::default());
    let keyed = |key: &str| with(post("/v1/messages", SMALL), "idempotency-key", key);
    let in_body = set("idempotency_key", json!("b")).to_string();
    for request in [
        keyed(""),
        keyed(&"x".repeat(256)),
        keyed("schlüssel"),
        with(keyed("a"), "idempotency-key", "b"),
        with(post("/v1/messages", in_body), "idempotency-key", "a"),
        post("/v1/messages?wait=61s", SMALL),
        post("/v1/messages?wait=soon", SMALL),
        post("/v1/messages?wait=1s&wait=2s", SMALL),
        post("/v1/messages?wait=", SMALL),
    ] {
        let shown = format!("{} {:?}", request.uri(), request.headers().get("idempotency-key"));
        assert_eq!(house.send(request).await.problem(), (422, "invalid".to_owned()), "{shown}");
    }
    assert_eq!(house.world.lock().unwrap().submissions, 0);
}

#[tokio::test]
async fn another_method_is_405_with_what_is_allowed() {
    let house = House::new(Setup::default());
    for (method, path, allowed) in [
        (Method::PUT, "/v1/messages", "POST,GET,HEAD"),
        (Method::POST, "/v1/users/bob", "GET,HEAD,DELETE"),
        (Method::GET, "/v1/messages/batch", "POST"),
        (Method::PUT, "/v1/messages/0197", "GET,HEAD,DELETE"),
        (Method::POST, "/openapi.json", "GET,HEAD"),
    ] {
        let answer = house.send(request(method, path, Body::empty())).await;
        assert_eq!(answer.problem(), (405, "method_not_allowed".to_owned()), "{path}");
        assert_eq!(answer.header("allow"), Some(allowed), "{path}");
    }
}
