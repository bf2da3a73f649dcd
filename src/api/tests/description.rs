//! The description against the server that it describes: every route is in it and
//! is there, its fields are those that are read, its examples are taken.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::http::Method;
use serde_json::{Value, json};

use super::harness::{House, Setup, request, with};
use crate::api::openapi::examples;

async fn document(house: &House) -> Value {
    house.get("/openapi.json").await.json()
}

/// Path, method and operation of each call.
fn calls(document: &Value) -> Vec<(&str, &str, &Value)> {
    let items = document["paths"].as_object().unwrap().iter();
    let calls = items.flat_map(|(path, item)| {
        let operations = item.as_object().unwrap().iter();
        let operations = operations.filter(|(method, _)| *method != "parameters");
        operations.map(move |(method, operation)| (&**path, &**method, operation))
    });
    calls.collect()
}

/// The routes that the router itself says it has; what it adds for its fallback aside.
fn routes(house: &House) -> BTreeSet<String> {
    let shown = format!("{:?}", house.router);
    let quoted = shown.split('"').skip(1).step_by(2);
    let fallback = ["/", "/{*__private__axum_fallback}"];
    let routes = quoted.filter(|text| text.starts_with('/') && !fallback.contains(text));
    routes.map(str::to_owned).collect()
}

#[tokio::test]
async fn every_route_and_method_is_described_and_every_described_one_is_there() {
    let house = House::new(Setup::default());
    let document = document(&house).await;
    let mut described: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, method, _) in calls(&document) {
        let methods = described.entry(path.to_owned()).or_default();
        methods.insert(method.to_uppercase());
        if method == "get" {
            methods.insert("HEAD".to_owned());
        }
    }
    let described_paths: BTreeSet<String> = described.keys().cloned().collect();
    assert_eq!(described_paths, routes(&house));
    for (path, methods) in described {
        let refused = house.send(request(Method::TRACE, &path, Body::empty())).await;
        assert_eq!(refused.status, 405, "{path}");
        let allowed = refused.header("allow").unwrap().split(',').map(str::to_owned);
        assert_eq!(allowed.collect::<BTreeSet<_>>(), methods, "{path}");
    }
}

/// One line a call: what it takes, and how it may end.
fn lines(document: &Value) -> String {
    let words = |parameters: &Value| {
        let parameters = parameters.as_array().into_iter().flatten();
        let names = parameters.filter_map(|parameter| {
            let sign = if parameter["in"] == "query" { "?" } else { "" };
            Some(format!("{sign}{}", parameter["name"].as_str()?))
        });
        names.collect::<Vec<_>>().join(" ")
    };
    let line = |(path, method, call): (&str, &str, &Value)| {
        let open = if call["security"] == json!([{}]) { " open" } else { "" };
        let statuses = call["responses"].as_object().unwrap().keys();
        let statuses = statuses.map(String::as_str).collect::<Vec<_>>().join(" ");
        let id = call["operationId"].as_str().unwrap();
        format!("{method} {path} {id}{open}: {} -> {statuses}\n", words(&call["parameters"]))
    };
    calls(document).into_iter().map(line).collect()
}

#[tokio::test]
async fn the_description_names_every_call_with_its_parameters_and_answers() {
    let house = House::new(Setup::default());
    insta::assert_snapshot!(lines(&document(&house).await));
}

#[tokio::test]
async fn the_description_has_keys_headers_and_problems() {
    let house = House::new(Setup::default());
    let document = document(&house).await;
    assert_eq!(document["openapi"], "3.1.0");
    let submit = &document["paths"]["/v1/messages"]["post"];
    assert_eq!(submit["security"], json!([{"key": []}]));
    for (status, header) in [
        ("503", "Retry-After"),
        ("409", "Retry-After"),
        ("202", "X-Request-Id"),
        ("202", "Idempotent-Replayed"),
        ("429", "RateLimit-Remaining"),
        ("401", "WWW-Authenticate"),
        ("405", "Allow"),
        ("431", "X-Request-Id"),
    ] {
        assert!(submit["responses"][status]["headers"][header].is_object(), "{status} {header}");
    }
    let problems = &submit["responses"]["422"]["content"]["application/problem+json"];
    let codes: Vec<_> = problems["examples"].as_object().unwrap().keys().collect();
    assert_eq!(codes, ["idempotency_mismatch", "invalid"]);
    for status in ["408", "431"] {
        assert!(submit["responses"][status].get("content").is_none(), "{status} has no body");
    }
    let mut references = Vec::new();
    references_of(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

fn references_of(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get("$ref") {
                found.push(reference.clone());
            }
            object.values().for_each(|value| references_of(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references_of(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test]
async fn the_description_has_the_fields_that_are_read() {
    use crate::intake::{DEVICE_FIELDS, FIELDS, NOTIFICATION_FIELDS, RECIPIENT_FIELDS};
    let house = House::new(Setup::default());
    let document = document(&house).await;
    let schemas = &document["components"]["schemas"];
    for (schema, read) in [
        ("Message", &FIELDS[..]),
        ("Notification", &NOTIFICATION_FIELDS),
        ("Recipient", &RECIPIENT_FIELDS),
        ("DeviceRequest", &DEVICE_FIELDS),
    ] {
        let schema_of = &schemas[schema];
        let ways =
            schema_of["oneOf"].as_array().map_or(vec![schema_of], |all| all.iter().collect());
        let described: BTreeSet<&str> = ways
            .into_iter()
            .flat_map(|way| way["properties"].as_object().expect(schema).keys())
            .map(String::as_str)
            .collect();
        assert_eq!(described, read.iter().copied().collect(), "{schema}");
    }
    assert_eq!(schemas["Message"]["required"], json!(["to"]));
}

#[tokio::test]
async fn every_body_has_an_example_and_the_requests_are_taken() {
    let house = House::new(Setup::default());
    let document = document(&house).await;
    let phone = r#"{"addresses": [{"kind": "fcm", "token": "t"}]}"#;
    house.send(request(Method::PUT, "/v1/users/alice/devices/phone", phone)).await;
    let all = examples::all();
    for (path, method, call) in calls(&document) {
        let id = call["operationId"].as_str().unwrap();
        let of_place = |place: &str| all.get(id).and_then(|places| places.get(place));
        for (status, response) in call["responses"].as_object().unwrap() {
            let json = response["content"].as_object().is_some_and(|content| {
                content
                    .keys()
                    .any(|kind| kind.ends_with("json") && kind != "application/problem+json")
            });
            if json && id != "describe" {
                assert!(of_place(status).is_some(), "{id} {status} has no example");
            }
        }
        let Some(content) = call["requestBody"]["content"].as_object() else { continue };
        let kind = content.keys().next().unwrap();
        for (name, body) in of_place("request").unwrap_or_else(|| panic!("{id} has no example")) {
            let path = path.replace("{user}", "alice").replace("{device}", "phone");
            let method = method.to_uppercase().parse::<Method>().unwrap();
            let sent = with(request(method, &path, body.get().to_owned()), "content-type", kind);
            let answer = house.send(sent).await;
            // A receipt's secret cannot be an example's.
            let unknown = id == "receipt" && answer.status == 404;
            assert!(answer.status.is_success() || unknown, "{id}, {name}: {answer:?}");
        }
    }
    let described: BTreeSet<&str> =
        calls(&document).iter().map(|(.., call)| call["operationId"].as_str().unwrap()).collect();
    assert!(all.keys().all(|id| described.contains(id)), "an example of a call that is not there");
}

#[tokio::test]
async fn the_page_names_every_call_and_refers_to_nothing_outside() {
    let house = House::new(Setup::default());
    let document = document(&house).await;
    let answer = house.get("/docs").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    let page = String::from_utf8(answer.body).unwrap();
    for (path, method, call) in calls(&document) {
        let id = call["operationId"].as_str().unwrap();
        assert!(page.contains(&format!("<article id=\"{id}\">")), "{id}");
        let shown = format!("<span class=\"{method}\">{}</span> {path}</p>", method.to_uppercase());
        assert!(page.contains(&shown), "{shown}");
    }
    for code in document["components"]["examples"].as_object().unwrap().keys() {
        assert!(page.contains(&format!("<td><code>{code}</code></td>")), "{code}");
    }
    // The only addresses: this page's own places, this listener, and where curl goes.
    for link in page.split("href=\"").skip(1) {
        let to = link.split('"').next().unwrap();
        let inside = to.strip_prefix('#');
        assert!(to == "/openapi.json" || inside.is_some(), "{to}");
        let there = inside.is_none_or(|id| page.contains(&format!("id=\"{id}\"")));
        assert!(there, "#{to} leads nowhere");
    }
    for outside in ["<script", "<link", "<img", "<iframe", "src=", "url(", "@import", "//fonts"] {
        assert!(!page.contains(outside), "{outside}");
    }
}
