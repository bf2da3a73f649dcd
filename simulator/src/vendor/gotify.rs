//! Gotify: `POST /message` with an application's token, `GET /message` with a
//! client's, `/health` and `/version`.
//!
//! Every token is a good one unless its text asks for a fault, so that tests need
//! no account; one that begins with `C` or `gtfyc` is a client's, which may read
//! and not send. Pages go backwards, by descending ids.
//!
//! Source: gotify/server, `api/message.go`, `api/health.go`, `auth/`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::{Method, StatusCode, header, request};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};

use super::self_hosted::{No, Recent, STREAMS, judge};
use super::{
    Answer, Call, Fault, Refusal, Streams, Vendor, Verdict, bearer, json_answer, with_retry_after,
};
use crate::clock;
use crate::ledger::Key;
use crate::station::Station;

/// The server.
pub(crate) struct Gotify {
    station: Arc<Station>,
    last_id: AtomicU64,
    messages: Recent<Value>,
}

impl Gotify {
    pub(crate) fn new(station: Arc<Station>) -> Self {
        Self { station, last_id: AtomicU64::new(0), messages: Recent::new() }
    }

    fn create(&self, call: &Call<'_>, token: &str) -> Verdict {
        if token.starts_with('C') || token.starts_with("gtfyc") {
            let text = "you are not allowed to access this api";
            return Verdict::refuse(error(StatusCode::FORBIDDEN, text));
        }
        if call.body.length > call.body.bytes.len() {
            return Verdict::refuse(error(StatusCode::PAYLOAD_TOO_LARGE, "too large"));
        }
        let body = match read(&call.body.bytes) {
            Ok(body) => body,
            Err(text) => return Verdict::refuse(error(StatusCode::BAD_REQUEST, text)),
        };
        let id = self.last_id.fetch_add(1, Relaxed) + 1;
        let mut message = json!({
            "appid": 1,
            "message": body["message"],
            "title": body["title"].as_str().unwrap_or("Simulated application"),
            "priority": body["priority"].as_i64().unwrap_or(0),
            "date": clock::rfc3339(call.now_ms),
        });
        if body["extras"].is_object() {
            message["extras"] = body["extras"].clone();
        }
        // The id stands first, as Go writes it.
        let rest = message.to_string();
        let ok = json_answer(StatusCode::OK, format!("{{\"id\":{id},{}", &rest[1..]));
        message["id"] = id.into();
        let pushyard = call.head.headers.get("x-pushyard").and_then(|value| value.to_str().ok());
        let key = pushyard.map_or_else(|| Key::Text(format!("gotify-{id}")), Key::of_pushyard);
        let verdict = judge(token, key, ok, no);
        if verdict.take.is_some() {
            self.messages.keep(message);
        }
        verdict
    }

    fn list(&self, query: &str) -> Verdict {
        let number = |name: &str| {
            let mut pairs = url::form_urlencoded::parse(query.as_bytes());
            pairs.find(|(key, _)| key == name).map(|(_, value)| value.parse::<u64>())
        };
        let (Ok(limit), Ok(since)) =
            (number("limit").unwrap_or(Ok(100)), number("since").unwrap_or(Ok(0)))
        else {
            return Verdict::refuse(error(StatusCode::BAD_REQUEST, "limit and since are numbers"));
        };
        if !(1..=200).contains(&limit) {
            return Verdict::refuse(error(StatusCode::BAD_REQUEST, "limit is from 1 to 200"));
        }
        let id = |message: &Value| message["id"].as_u64().unwrap_or(0);
        let older = |message: &Value| since == 0 || id(message) < since;
        let mut page: Vec<_> = self.messages.all().into_iter().rev().filter(older).collect();
        let more = page.len() as u64 > limit;
        page.truncate(limit as usize);
        let next = page.last().filter(|_| more).map_or(0, id);
        let paging = json!({ "size": page.len(), "since": next, "limit": limit });
        let body = json!({ "messages": page, "paging": paging });
        Verdict::refuse(json_answer(StatusCode::OK, body.to_string()))
    }
}

impl Vendor for Gotify {
    type Session = ();

    fn session(&self, _certificate: Option<&CertificateDer<'_>>) {}

    fn front(&self) -> &Arc<Station> {
        &self.station
    }

    fn station(&self, _path: &str) -> &Arc<Station> {
        &self.station
    }

    fn streams(&self, _session: &()) -> Streams {
        STREAMS
    }

    fn authenticate(
        &self,
        _session: &mut (),
        head: &request::Parts,
        _now_ms: u64,
    ) -> Result<(), Refusal> {
        token(head).map(|_| ()).ok_or_else(|| Box::new(unauthorized()))
    }

    fn judge(&self, _session: &(), call: Call<'_>, authenticated: Result<(), Refusal>) -> Verdict {
        let (method, path) = (&call.head.method, call.head.uri.path());
        match (method, path) {
            (&Method::GET, "/health") => {
                let body = json!({ "health": "green", "database": "green" });
                Verdict::probe(json_answer(StatusCode::OK, body.to_string()))
            }
            (&Method::GET, "/version") => {
                let body = json!({ "version": "2.6.3", "commit": "", "buildDate": "" });
                Verdict::refuse(json_answer(StatusCode::OK, body.to_string()))
            }
            (&Method::POST | &Method::GET, "/message") => match (authenticated, token(call.head)) {
                (Err(answer), _) => Verdict::refuse(*answer),
                (Ok(()), token) if method == Method::POST => {
                    self.create(&call, &token.unwrap_or_default())
                }
                (Ok(()), _) => self.list(call.head.uri.query().unwrap_or_default()),
            },
            _ => Verdict::refuse(error(StatusCode::NOT_FOUND, "page not found")),
        }
    }

    fn fault(&self, fault: Fault, head: &request::Parts, _now_ms: u64) -> Answer {
        if head.uri.path() == "/health"
            && let Fault::Failing(..) = fault
        {
            let body = json!({ "health": "orange", "database": "red" });
            return json_answer(StatusCode::INTERNAL_SERVER_ERROR, body.to_string());
        }
        match fault {
            Fault::Failing(status, wait) => with_retry_after(error(status, "failing"), wait),
            Fault::Throttling(wait) => no(No::Throttled(wait)),
            Fault::Unauthorised => unauthorized(),
        }
    }
}

/// The token, in one of its three places.
fn token(head: &request::Parts) -> Option<String> {
    let header = head.headers.get("x-gotify-key").and_then(|value| value.to_str().ok());
    let bearer = || head.headers.get(header::AUTHORIZATION).and_then(bearer);
    let query = || {
        let query = head.uri.query().unwrap_or_default();
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs.find(|(key, _)| key == "token").map(|(_, value)| value.into_owned())
    };
    let token = header.or_else(bearer).map(str::to_owned).or_else(query)?;
    (!token.is_empty()).then_some(token)
}

fn read(body: &[u8]) -> Result<Value, &'static str> {
    let body: Value = serde_json::from_slice(body).map_err(|_| "the body is not JSON")?;
    if body["message"].as_str().is_none_or(str::is_empty) {
        return Err("Field 'message' is required");
    }
    if !body["title"].is_null() && !body["title"].is_string() {
        return Err("title must be a string");
    }
    if !body["priority"].is_null() && !body["priority"].is_i64() {
        return Err("priority must be a number");
    }
    if !body["extras"].is_null() && !body["extras"].is_object() {
        return Err("extras must be an object");
    }
    Ok(body)
}

fn no(no: No) -> Answer {
    match no {
        No::Gone | No::Unauthorised => unauthorized(),
        No::Bad => error(StatusCode::BAD_REQUEST, "bad request"),
        No::Throttled(wait) => {
            with_retry_after(error(StatusCode::TOO_MANY_REQUESTS, "too many requests"), wait)
        }
        No::Internal => error(StatusCode::INTERNAL_SERVER_ERROR, "database is locked"),
        No::Unavailable => error(StatusCode::SERVICE_UNAVAILABLE, "not now"),
    }
}

fn unauthorized() -> Answer {
    error(StatusCode::UNAUTHORIZED, "you need to provide a valid access token")
}

fn error(status: StatusCode, text: &str) -> Answer {
    let body = json!({
        "error": status.canonical_reason().unwrap_or("Error"),
        "errorCode": status.as_u16(),
        "errorDescription": text,
    });
    json_answer(status, body.to_string())
}
