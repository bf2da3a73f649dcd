//! Examples of the description: bodies from `examples.json`, by call and, within
//! it, by `request`, status, or the name of a parameter; and one problem of each
//! code. Tests send the requests and compare the answers with their shapes.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::api::problem::{Code, Problem};
use crate::intake::Fault;

const TEXT: &str = include_str!("examples.json");

/// By call; then by `request` or status; then by what it shows.
type Examples<'a> = BTreeMap<&'a str, BTreeMap<&'a str, BTreeMap<&'a str, &'a RawValue>>>;

/// What the file has, as it is written there.
pub(in crate::api) fn all() -> Examples<'static> {
    // A test reads it.
    serde_json::from_str(TEXT).unwrap_or_default()
}

/// Puts the examples of a call where its bodies are described.
pub(super) fn add(id: &str, operation: &mut Value) {
    for (place, examples) in all().get(id).into_iter().flatten() {
        let body = match *place {
            "request" => &mut operation["requestBody"],
            status => &mut operation["responses"][status],
        };
        let shown = |(summary, text): (&&str, &&RawValue)| {
            let value: Value = serde_json::from_str(text.get()).unwrap_or_default();
            ((*summary).to_owned(), json!({"value": value}))
        };
        for (_, content) in super::members(&mut body["content"]) {
            content["examples"] = examples.iter().map(shown).collect::<Map<_, _>>().into();
        }
    }
}

/// A problem of each code, for all calls that may end with it.
pub(super) fn problems() -> Value {
    let shown = |code: &Code| (code.word().to_owned(), json!({"value": problem(*code)}));
    // One has no body, the other is the operators'.
    let told = |code: &&Code| !matches!(code, Code::Timeout | Code::NotDead);
    Code::ALL.iter().filter(told).map(shown).collect::<Map<_, _>>().into()
}

fn problem(code: Code) -> Problem {
    let detail = match code {
        Code::Malformed => {
            "this is not JSON at line 3 column 12; look at the quotes, commas and brackets there"
        }
        Code::Unauthenticated => "send the header Authorization: Bearer <key>",
        Code::Forbidden => "this key may not use route \"marketing\"",
        Code::NotFound => "there is no message of this id, or it is no longer kept",
        Code::MethodNotAllowed => "see the header Allow",
        Code::Timeout => "the body came too slowly",
        Code::IdempotencyInProgress => {
            "the first request with this key is not answered yet; try again"
        }
        Code::Settled => "every delivery of this message has settled",
        Code::NotDead => "this delivery is no dead letter",
        Code::TooLarge => "at most 4194304 bytes (limits.max_body)",
        Code::UnsupportedMediaType => "send Content-Type: application/json",
        Code::Invalid => {
            return Problem::invalid(vec![
                Fault {
                    pointer: "/to/0/addresses/1/kind".to_owned(),
                    detail: "unknown kind \"apn\"; did you mean \"apns\"?".to_owned(),
                    code: "unknown_kind",
                },
                Fault {
                    pointer: "/ttl".to_owned(),
                    detail: "must be between 0 s and 28 d".to_owned(),
                    code: "out_of_range",
                },
            ]);
        }
        Code::IdempotencyMismatch => {
            "this idempotency key came with another body; use a new key for a new message"
        }
        Code::RateLimited => "this client sends more than its configured rate; slow down",
        Code::ClientQueueFull => "too many deliveries of this client wait; try again later",
        Code::Internal => "a fault of the server; it has been logged",
        Code::Overloaded => "too many requests at once (limits.max_requests); try again",
        Code::QueueFull => "too many deliveries wait; try again later",
        Code::StoreUnavailable => "the store cannot take messages; try again later",
        Code::ShuttingDown => "the server is going down; try again",
    };
    Problem::new(code, detail)
}
