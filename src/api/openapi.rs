//! `GET /openapi.json`: the description of this listener, made of the handlers
//! that serve it.
//!
//! What is answered describes itself. Requests are read by hand (so that all faults
//! are told at once); their shapes stand in [`requests`], and a test compares them
//! with the fields that are read. What calls have in common is said once and added
//! here: path parameters by their name, the problems that follow from what a call
//! takes (a key, a body, a query), and headers. [`PROBLEMS`] has the rest.

pub(super) mod examples;
pub(super) mod requests;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;

use super::Shared;
use super::messages::json_bytes;
use super::problem::{Code, ProblemShape};

/// The problems of a call, beside those that follow from what it takes.
const PROBLEMS: &[(&str, &[Code])] = &[
    (
        "submitMessage",
        &[
            Code::Forbidden,
            Code::IdempotencyInProgress,
            Code::IdempotencyMismatch,
            Code::RateLimited,
            Code::ClientQueueFull,
            Code::QueueFull,
            Code::StoreUnavailable,
            Code::ShuttingDown,
        ],
    ),
    (
        "explainMessage",
        &[Code::Forbidden, Code::NotFound, Code::StoreUnavailable, Code::ShuttingDown],
    ),
    // What else a line can be refused for is said in its answer.
    ("submitMessages", &[Code::Invalid, Code::ShuttingDown]),
    ("getMessage", READING),
    ("listMessages", READING),
    ("cancelMessage", &[Code::Settled, Code::StoreUnavailable]),
    ("cancelMessages", READING),
    ("receipt", &[Code::NotFound]),
    ("makeStreamToken", &[Code::NotFound]),
    ("putDevice", WRITING),
    ("getDevice", READING),
    ("removeDevice", WRITING),
    ("getUser", READING),
    ("eraseUser", WRITING),
    ("listGoneAddresses", READING),
];

/// The only call whose body may be absent: a query is in its place then.
const BODY_OR_QUERY: &str = "explainMessage";

const READING: &[Code] = &[Code::StoreUnavailable];
const WRITING: &[Code] = &[Code::StoreUnavailable, Code::ShuttingDown];

/// Where to go on from an answer: from a call and its status to another call, whose
/// parameters are found there (OpenAPI 3.1.0, "Link Object").
const LINKS: &[(&str, &str, &str, Places)] = &[
    ("submitMessage", "202", "getMessage", MESSAGE),
    ("submitMessage", "202", "cancelMessage", MESSAGE),
    ("putDevice", "200", "getDevice", DEVICE),
    ("putDevice", "201", "getDevice", DEVICE),
    ("putDevice", "201", "removeDevice", DEVICE),
    ("putDevice", "201", "getUser", USER),
    ("putDevice", "201", "eraseUser", USER),
];

/// Parameters, each with where its value stands.
type Places = &'static [(&'static str, &'static str)];

const MESSAGE: Places = &[("id", "$response.body#/id")];
const USER: Places = &[("user", "$request.path.user")];
const DEVICE: Places = &[("user", "$request.path.user"), ("device", "$request.path.device")];

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Pushyard",
        description = "One durable HTTP API in front of many push providers: hand over a message \
                       for some devices; each is reached through the best healthy provider.",
    ),
    tags(
        (name = "messages", description = "Sending, and what became of it."),
        (name = "users", description = "Devices that are kept, and forgetting a user."),
        (name = "addresses", description = "What vendors gave up."),
        (name = "stream", description = "The devices' own channel."),
        (name = "meta", description = "About this API."),
    ),
    components(schemas(ProblemShape)),
)]
struct Base;

/// The description before the calls are added to it.
pub(super) fn base() -> OpenApi {
    let mut document = Base::openapi();
    // The package's own licence and contact say nothing about using the API.
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    document
}

/// The whole description, of the calls' own.
pub(super) fn complete(calls: &OpenApi) -> Value {
    // Strings and lists: serialising them does not fail.
    let mut document = serde_json::to_value(calls).unwrap_or_default();
    for (name, shape) in requests::shapes() {
        document["components"]["schemas"][name] = shape;
    }
    document["components"]["headers"] = headers();
    document["components"]["parameters"] = json!({"X-Request-Id": request_id()});
    document["components"]["examples"] = examples::problems();
    document["components"]["securitySchemes"] = json!({"key": {
        "type": "http",
        "scheme": "bearer",
        "description": "A client's key. Without configured clients none is needed.",
    }});
    for (path, item) in members(&mut document["paths"]) {
        for (_, operation) in members(item) {
            complete_operation(path, operation);
        }
        item["parameters"] = path_parameters(path);
    }
    document
}

/// The members of an object; none of anything else.
fn members(value: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    value.as_object_mut().into_iter().flatten()
}

fn complete_operation(path: &str, operation: &mut Value) {
    let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
    // One without a key says so itself.
    let keyed = operation.get("security").is_none();
    if keyed {
        operation["security"] = json!([{"key": []}]);
    }
    if let Some(body) = operation.get_mut("requestBody") {
        body["required"] = json!(id != BODY_OR_QUERY);
    }
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in problems(&id, path, operation, keyed) {
        let codes = by_status.entry(code.status().as_u16()).or_default();
        if !codes.contains(&code) {
            codes.push(code);
        }
    }
    for (status, codes) in by_status {
        operation["responses"][status.to_string()] = problem(status, &codes);
    }
    operation["responses"]["431"] =
        json!({"description": "The headers are too many or too large. Without a body."});
    for (status, response) in members(&mut operation["responses"]) {
        if keyed && (status.starts_with('2') || status == "429") {
            for name in RATE {
                response["headers"][name] = reference("headers", name);
            }
        }
        response["headers"]["X-Request-Id"] = reference("headers", "X-Request-Id");
    }
    for (_, status, to, parameters) in LINKS.iter().filter(|(from, ..)| *from == id) {
        let parameters: Map<_, _> =
            parameters.iter().map(|(name, at)| ((*name).to_owned(), json!(at))).collect();
        operation["responses"][*status]["links"][*to] =
            json!({"operationId": to, "parameters": parameters});
    }
    examples::add(&id, operation);
}

/// What a call may end with instead of what was asked for.
fn problems(id: &str, path: &str, operation: &Value, keyed: bool) -> Vec<Code> {
    let mut codes = vec![Code::MethodNotAllowed, Code::Internal, Code::Overloaded];
    if keyed {
        codes.push(Code::Unauthenticated);
    }
    if path.contains('{') {
        codes.push(Code::NotFound);
    }
    let content = &operation["requestBody"]["content"];
    if content.is_object() {
        codes.push(Code::UnsupportedMediaType);
    }
    if content.get("application/json").is_some() {
        codes.extend([Code::Malformed, Code::Timeout, Code::TooLarge, Code::Invalid]);
    }
    let parameters = operation["parameters"].as_array();
    if parameters.into_iter().flatten().any(|parameter| parameter["in"] == "query") {
        codes.push(Code::Invalid);
    }
    let own = PROBLEMS.iter().filter(|(name, _)| *name == id);
    codes.extend(own.flat_map(|(_, codes)| *codes));
    codes
}

fn problem(status: u16, codes: &[Code]) -> Value {
    let words: Vec<_> = codes.iter().map(|code| format!("`{}`", code.word())).collect();
    let mut response = json!({"description": words.join(", "), "headers": {}});
    if codes.contains(&Code::Timeout) {
        response["description"] = json!("The body came too slowly. Without a body.");
    } else {
        let example = |code: &Code| (code.word().to_owned(), reference("examples", code.word()));
        response["content"]["application/problem+json"] = json!({
            "schema": reference("schemas", "Problem"),
            "examples": codes.iter().map(example).collect::<Map<_, _>>(),
        });
    }
    let passes = matches!(status, 429 | 503) || codes.contains(&Code::IdempotencyInProgress);
    for (name, wanted) in
        [("Retry-After", passes), ("WWW-Authenticate", status == 401), ("Allow", status == 405)]
    {
        if wanted {
            response["headers"][name] = reference("headers", name);
        }
    }
    response
}

/// What a client with a rate is told.
const RATE: [&str; 5] =
    ["RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "RateLimit", "RateLimit-Policy"];

fn headers() -> Value {
    let header = |description: &str, kind: &str, example: Value| {
        // Only the word of a rate may be missing, where there is none.
        let required = !description.contains("a rate");
        let schema = json!({"type": kind});
        json!({
            "description": description,
            "required": required,
            "schema": schema,
            "example": example,
        })
    };
    json!({
        "X-Request-Id": header(
            "Names this request; yours, if you sent one of 1 to 128 printable characters.",
            "string",
            json!("9b1c6f0e7a2d4c55b1f0c3a9d8e7f601"),
        ),
        "Retry-After": header("Seconds after which to try again, at least 1.", "integer", json!(2)),
        "WWW-Authenticate": header("How to show who you are.", "string", json!("Bearer")),
        "Allow": header("The methods that this path takes.", "string", json!("GET,HEAD")),
        "RateLimit-Limit":
            header("With a rate: messages that may be sent at once.", "integer", json!(10)),
        "RateLimit-Remaining":
            header("With a rate: those that may be sent now.", "integer", json!(9)),
        "RateLimit-Reset":
            header("With a rate: seconds until all may be sent.", "integer", json!(1)),
        "RateLimit": header(
            "With a rate: the same as the newer draft says it.",
            "string",
            json!("\"messages\";r=9;t=1"),
        ),
        "RateLimit-Policy":
            header("With a rate: what it is.", "string", json!("\"messages\";q=10;w=2")),
    })
}

fn request_id() -> Value {
    json!({
        "name": "X-Request-Id",
        "in": "header",
        "description": "Your name for this request; the answer has it again. One that is not \
                        of 1 to 128 printable characters is replaced.",
        "schema": {"type": "string"},
        "example": "9b1c6f0e7a2d4c55b1f0c3a9d8e7f601",
    })
}

/// What varies in a path, and what every call takes.
fn path_parameters(path: &str) -> Value {
    let segments = path.split('/').filter_map(|segment| segment.strip_prefix('{'));
    let names = segments.filter_map(|segment| segment.strip_suffix('}'));
    let mut parameters: Vec<Value> = names.map(path_parameter).collect();
    parameters.push(reference("parameters", "X-Request-Id"));
    parameters.into()
}

fn path_parameter(name: &str) -> Value {
    let (description, schema, example) = match name {
        "id" => {
            let uuid = json!({"type": "string", "format": "uuid"});
            ("The message's id.", uuid, "0197a1b2-3c4d-7e5f-8a9b-0c1d2e3f4000")
        }
        "user" => ("Your name for the user.", requests::name(), "alice"),
        "device" => {
            let description = "Your name for the device. A user has at most 100.";
            (description, requests::name(), "alice-iphone")
        }
        _ => ("", json!({"type": "string"}), ""),
    };
    json!({
        "name": name,
        "in": "path",
        "required": true,
        "description": description,
        "schema": schema,
        "example": example,
    })
}

fn reference(place: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{place}/{name}")})
}

/// Describe this API.
///
/// In OpenAPI 3.1, for programs. For people there is `/docs`.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "describe",
    tag = "meta",
    security(()),
    responses((status = 200, description = "An OpenAPI document.", body = Object))
)]
pub(super) async fn describe(State(shared): State<Arc<Shared>>) -> Response {
    json_bytes(StatusCode::OK, Bytes::clone(&shared.openapi))
}
