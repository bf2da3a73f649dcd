//! ntfy: publishing as JSON, by headers and by GET; subscribing in json, sse and
//! raw; `/v1/health`.
//!
//! A subscription is answered with what is cached and then ended, `poll` or not:
//! enough to see a message arrive, and clients come again by themselves. Attachments
//! are off, so a text that fills the limit is refused (40014). Anyone may use any
//! topic, but for those that begin with `private-`, which want the account.
//!
//! Sources: binwiederhier/ntfy, `server/server.go`, `server/errors.go`,
//! `docs/publish.md`, `docs/subscribe/api.md`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderValue, Method, StatusCode, header, request};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};

use super::ntfy_message::{from_headers, from_json, is_topic};
use super::self_hosted::{No, Recent, STREAMS, judge};
use super::{
    Answer, Call, Fault, Refusal, Streams, Vendor, Verdict, json_answer, with_retry_after,
};
use crate::ledger::Key;
use crate::station::Station;

/// The account's access token, user and password.
pub(crate) const TOKEN: &str = "tk_simulated00000000000000000000";
pub(crate) const USER: &str = "simulated";
pub(crate) const PASSWORD: &str = "simulated-password";

/// 12 hours, the default `cache-duration`.
const CACHE_S: u64 = 12 * 3600;

/// Twice the message limit.
const MAX_JSON: usize = 8192;

/// The server.
pub(crate) struct Ntfy {
    station: Arc<Station>,
    messages: Recent<Value>,
}

impl Ntfy {
    pub(crate) fn new(station: Arc<Station>) -> Self {
        Self { station, messages: Recent::new() }
    }

    fn publish(&self, call: &Call<'_>, topic: Option<&str>) -> Verdict {
        let read = match topic {
            Some(topic) => from_headers(call, topic),
            None if call.body.length > MAX_JSON => Err((41303, "JSON body too large")),
            None => from_json(&call.body.bytes, call.now_ms),
        };
        let mut message = match read {
            Ok(message) => message,
            Err((code, text)) => return Verdict::refuse(error(code, text)),
        };
        let topic = message["topic"].as_str().unwrap_or_default().to_owned();
        if !may_use(&topic, call.head) {
            return Verdict::refuse(error(40301, "forbidden"));
        }
        let id = id();
        message["id"] = id.as_str().into();
        message["event"] = "message".into();
        message["expires"] = (call.now_ms / 1000 + CACHE_S).into();
        let ok = json_answer(StatusCode::OK, format!("{message}\n"));
        let pushyard = call.head.headers.get("x-pushyard").and_then(|value| value.to_str().ok());
        let key = pushyard.map_or_else(|| Key::Text(id), Key::of_pushyard);
        let verdict = judge(&topic, key, ok, no);
        if verdict.take.is_some() {
            self.messages.keep(message);
        }
        verdict
    }

    fn subscribe(&self, call: &Call<'_>, topics: &str, form: &str) -> Verdict {
        if topics.split(',').any(|topic| !may_use(topic, call.head)) {
            return Verdict::refuse(error(40301, "forbidden"));
        }
        let parameter = |names: &[&str]| parameter(call.head, names);
        let poll = parameter(&["x-poll", "poll", "po"]);
        let poll = poll.is_some_and(|poll| ["1", "yes", "true"].contains(&&*poll));
        let since = parameter(&["x-since", "since", "si"]);
        let cached: Vec<Value> = self.messages.all();
        let of_topic = |message: &Value| {
            topics.split(',').any(|topic| message["topic"].as_str() == Some(topic))
        };
        let Ok(from) = since_when(since.as_deref(), poll, &cached, call.now_ms / 1000) else {
            return Verdict::refuse(error(40008, "invalid request: since parameter is invalid"));
        };
        let mut events = Vec::new();
        if !poll {
            let at = call.now_ms / 1000;
            events.push(json!({ "id": id(), "time": at, "event": "open", "topic": topics }));
        }
        let mut kept: Vec<_> =
            cached.into_iter().skip(from.skip).filter(|m| of_topic(m) && from.takes(m)).collect();
        if from.latest {
            kept.drain(..kept.len().saturating_sub(1));
        }
        events.extend(kept);
        let (kind, text) = written(form, &events);
        let mut answer = Answer::new(text.into());
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        Verdict::refuse(answer)
    }
}

impl Vendor for Ntfy {
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
        match credential(head) {
            Credential::Bad => Err(Box::new(error(40101, "unauthorized"))),
            Credential::None | Credential::Good => Ok(()),
        }
    }

    fn judge(&self, _session: &(), call: Call<'_>, authenticated: Result<(), Refusal>) -> Verdict {
        let path = call.head.uri.path();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let writes = call.head.method == Method::POST || call.head.method == Method::PUT;
        let reads = call.head.method == Method::GET;
        if reads && path == "/v1/health" {
            return Verdict::probe(json_answer(StatusCode::OK, "{\"healthy\":true}\n"));
        }
        if let Err(answer) = authenticated {
            return Verdict::refuse(*answer);
        }
        match parts.as_slice() {
            [""] if writes => self.publish(&call, None),
            [topic] if writes && is_topic(topic) => self.publish(&call, Some(topic)),
            [topic, "publish" | "send" | "trigger"] if reads && is_topic(topic) => {
                self.publish(&call, Some(topic))
            }
            [topics, form @ ("json" | "sse" | "raw" | "auth")]
                if reads && topics.split(',').all(is_topic) =>
            {
                self.subscribe(&call, topics, form)
            }
            _ => Verdict::refuse(error(40401, "page not found")),
        }
    }

    fn fault(&self, fault: Fault, _head: &request::Parts, _now_ms: u64) -> Answer {
        match fault {
            Fault::Failing(StatusCode::INTERNAL_SERVER_ERROR, _) => no(No::Internal),
            Fault::Failing(status, wait) => {
                let code = u64::from(status.as_u16()) * 100 + 1;
                let body = json!({ "code": code, "http": status.as_u16(), "error": "failing" });
                with_retry_after(json_answer(status, format!("{body}\n")), wait)
            }
            Fault::Throttling(wait) => no(No::Throttled(wait)),
            Fault::Unauthorised => no(No::Unauthorised),
        }
    }
}

enum Credential {
    None,
    Good,
    Bad,
}

/// Basic, Bearer, Basic with an empty user, or `?auth=`; other schemes are ignored.
fn credential(head: &request::Parts) -> Credential {
    let header = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let query = || {
        let text = parameter(head, &["auth"])?;
        String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    };
    let Some(text) = header.map(str::to_owned).or_else(query) else { return Credential::None };
    let (scheme, value) = text.split_once(' ').unwrap_or((&text, ""));
    let good = if scheme.eq_ignore_ascii_case("bearer") {
        value == TOKEN
    } else if scheme.eq_ignore_ascii_case("basic") {
        let pair = STANDARD.decode(value).ok().and_then(|pair| String::from_utf8(pair).ok());
        pair.is_some_and(|pair| pair == format!("{USER}:{PASSWORD}") || pair == format!(":{TOKEN}"))
    } else {
        return Credential::None;
    };
    if good { Credential::Good } else { Credential::Bad }
}

fn may_use(topic: &str, head: &request::Parts) -> bool {
    !topic.starts_with("private-") || matches!(credential(head), Credential::Good)
}

/// A header, or a query parameter in lower case; the header wins.
pub(super) fn parameter(head: &request::Parts, names: &[&str]) -> Option<String> {
    let header = names.iter().find_map(|name| head.headers.get(*name));
    if let Some(value) = header {
        return Some(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    let query = head.uri.query().unwrap_or_default();
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.find(|(key, _)| names.contains(&&**key)).map(|(_, value)| value.into_owned())
}

/// Which of the cached messages a subscriber gets.
#[derive(Default)]
struct From {
    skip: usize,
    at_least: u64,
    latest: bool,
    nothing: bool,
}

impl From {
    fn takes(&self, message: &Value) -> bool {
        !self.nothing && message["time"].as_u64().unwrap_or(0) >= self.at_least
    }
}

fn since_when(since: Option<&str>, poll: bool, cached: &[Value], now_s: u64) -> Result<From, ()> {
    match since {
        None => Ok(From { nothing: !poll, ..From::default() }),
        Some("all") => Ok(From::default()),
        Some("none") => Ok(From { nothing: true, ..From::default() }),
        Some("latest") => Ok(From { latest: true, ..From::default() }),
        // The test for an id runs before that for a number; an unknown id is all.
        Some(id) if id.len() == 12 && id.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            let found = cached.iter().position(|message| message["id"].as_str() == Some(id));
            Ok(From { skip: found.map_or(0, |at| at + 1), ..From::default() })
        }
        Some(text) => {
            let at_least = match text.parse::<u64>() {
                Ok(at) => at,
                Err(_) => {
                    let (number, unit) = text.split_at(text.len().saturating_sub(1));
                    let seconds = match unit {
                        "s" => 1,
                        "m" => 60,
                        "h" => 3600,
                        _ => return Err(()),
                    };
                    now_s.saturating_sub(number.parse::<u64>().map_err(|_| ())? * seconds)
                }
            };
            Ok(From { at_least, ..From::default() })
        }
    }
}

fn written(form: &str, events: &[Value]) -> (&'static str, String) {
    let is_message = |event: &Value| event["event"] == "message";
    match form {
        "auth" => ("application/json", "{\"success\":true}\n".to_owned()),
        "sse" => {
            let one = |event: &Value| match is_message(event) {
                true => format!("data: {event}\n\n"),
                false => {
                    let name = event["event"].as_str().unwrap_or_default();
                    format!("event: {name}\ndata: {event}\n\n")
                }
            };
            ("text/event-stream; charset=utf-8", events.iter().map(one).collect())
        }
        "raw" => {
            let one = |event: &Value| match event["message"].as_str() {
                Some(text) => format!("{}\n", text.replace('\n', " ")),
                None => "\n".to_owned(),
            };
            ("text/plain; charset=utf-8", events.iter().map(one).collect())
        }
        _ => {
            let one = |event: &Value| format!("{event}\n");
            ("application/x-ndjson; charset=utf-8", events.iter().map(one).collect())
        }
    }
}

/// 12 characters, random.
fn id() -> String {
    let number: u128 = rand::random();
    uuid::Uuid::from_u128(number).simple().to_string()[..12].to_owned()
}

fn no(no: No) -> Answer {
    match no {
        // ntfy never says that a topic is gone; the nearest is one that cannot be.
        No::Gone => error(40010, "invalid request: topic name is not allowed"),
        No::Bad => error(40018, "invalid request: actions invalid"),
        No::Throttled(wait) => {
            with_retry_after(error(42901, "limit reached: too many requests"), wait)
        }
        No::Internal => error(50001, "internal server error"),
        No::Unavailable => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            let body = json!({ "code": 50301, "http": 503, "error": "not now" });
            json_answer(status, format!("{body}\n"))
        }
        No::Unauthorised => error(40101, "unauthorized"),
    }
}

/// An error as ntfy writes it; its status is the front of its code.
fn error(code: u64, text: &str) -> Answer {
    let http = code / 100;
    let status = u16::try_from(http).ok().and_then(|http| StatusCode::from_u16(http).ok());
    let body = json!({ "code": code, "http": http, "error": text });
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = json_answer(status, format!("{body}\n"));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
