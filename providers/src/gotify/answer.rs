//! What Gotify's answer means: one table, read from the top, first match wins.
//!
//! Gotify itself answers JSON (`{"error","errorCode","errorDescription"}`). The
//! address is an application's token, so Gotify's own 401 means that the address
//! is gone. A 401 without Gotify's words comes from a proxy in front: taking that
//! for dead addresses would delete every one of them.
//!
//! Sources: Gotify, *REST API*; gotify/server, `auth/`, `api/message.go`,
//! `api/health.go`.

use serde_json::Value;

use crate::http::channel::{Reply, success_without_id};
use crate::http::retry_after::retry_after;
use crate::{Answer, Outcome, Part, Processed};

/// Classifies the answer to a message.
pub(super) fn classify(reply: Reply<'_>) -> Answer {
    let status = reply.status.as_u16();
    if reply.status.is_success() {
        return success(&reply).status(status);
    }
    let body: Option<Value> = serde_json::from_slice(reply.body).ok();
    let said = body.as_ref().and_then(|body| body.get("error")).and_then(Value::as_str);
    let row = row(status, said.is_some());
    let mut answer = Answer::new(row.outcome).about(row.part).status(status);
    answer = answer.code(&format!("http_{status}")).detail(said.unwrap_or(row.detail));
    if row.outcome == Outcome::Ambiguous {
        answer.processed = Processed::Maybe;
    }
    answer.unexpected = row.look;
    answer.retry_after = retry_after(reply.headers, reply.now_s);
    answer
}

/// Classifies the answer of `/health`.
pub(super) fn health(reply: Reply<'_>) -> Answer {
    let status = reply.status.as_u16();
    let body: Option<Value> = serde_json::from_slice(reply.body).ok();
    let word = |key: &str| body.as_ref().and_then(|body| body.get(key)).and_then(Value::as_str);
    let outcome = match (status, word("health")) {
        (200, Some(_)) => Outcome::Accepted,
        (429, _) => Outcome::Throttled,
        (500..=599, _) => Outcome::Unavailable,
        _ => Outcome::Misconfigured,
    };
    let detail = match (word("health"), word("database")) {
        (Some(health), Some(database)) => format!("health {health}, database {database}"),
        _ => "the answer to /health is not Gotify's".to_owned(),
    };
    Answer::new(outcome).status(status).detail(&detail)
}

struct Row {
    outcome: Outcome,
    part: Part,
    /// Whether someone should look.
    look: bool,
    /// In place of Gotify's own words.
    detail: &'static str,
}

/// `own`: Gotify itself speaks, and not a proxy in front of it.
#[rustfmt::skip]
fn row(status: u16, own: bool) -> Row {
    use Outcome::{AddressGone, Ambiguous, MessageInvalid, Misconfigured, Throttled, Unavailable};
    use Part::{Device, Provider};
    let (outcome, part, look, detail) = match status {
        300..=399 => (Misconfigured, Provider, true, "a redirect, which is not followed: set endpoint to where it leads"),
        400 => (MessageInvalid, Provider, false, "the message was refused"),
        // The application was deleted, or its token changed.
        401 if own => (AddressGone, Device, false, ""),
        401 => (Misconfigured, Provider, true, "a proxy in front of Gotify wants a login"),
        // A client's token where an application's is needed.
        403 => (Misconfigured, Device, false, "this token may not send"),
        404 => (Misconfigured, Provider, false, "no Gotify at this path: look at endpoint"),
        // Only proxies answer these three.
        408 | 502 | 504 => (Ambiguous, Provider, false, "a gateway does not know how it ended"),
        413 => (MessageInvalid, Provider, false, "too large for the proxy in front of Gotify"),
        429 => (Throttled, Provider, false, "too many requests"),
        500..=599 => (Unavailable, Provider, false, "the server failed"),
        _ => (MessageInvalid, Provider, true, "an answer that Gotify does not document"),
    };
    Row { outcome, part, look, detail }
}

/// 2xx: taken, if it says under which number.
fn success(reply: &Reply<'_>) -> Answer {
    if let Some(id) = id(reply.body) {
        let mut answer = Answer::new(Outcome::Accepted);
        answer.vendor_id = Some(id.to_string().into());
        return answer;
    }
    success_without_id(reply, "Gotify's")
}

/// The answer repeats the message and may have been cut for its length, so its
/// beginning is enough: Gotify puts the id first.
fn id(body: &[u8]) -> Option<u64> {
    if let Ok(whole) = serde_json::from_slice::<Value>(body) {
        return whole.get("id")?.as_u64();
    }
    let rest = body.strip_prefix(br#"{"id":"#)?;
    let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    (rest.get(end) == Some(&b',')).then(|| std::str::from_utf8(&rest[..end]).ok()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, HeaderValue, StatusCode, header};

    use super::{classify, health};
    use crate::http::channel::Reply;
    use crate::{
        Answer,
        Outcome::{
            self, Accepted, AddressGone, Ambiguous, MessageInvalid, Misconfigured, Throttled,
            Unavailable,
        },
        Part, Processed,
    };

    fn with(status: u16, kind: &'static str, body: &str, read: fn(Reply<'_>) -> Answer) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("9"));
        let status = StatusCode::from_u16(status).unwrap();
        read(Reply { status, headers: &headers, body: body.as_bytes(), now_s: 0 })
    }

    #[test]
    fn every_answer_has_its_class() {
        let said = r#"{"error":"Unauthorized","errorCode":401,"errorDescription":"x"}"#;
        let page = "<html>login</html>";
        let rows: &[(u16, &str, Outcome, Part, bool)] = &[
            (200, r#"{"id":25,"appid":5,"message":"m"}"#, Accepted, Part::Provider, false),
            (200, r#"{"appid":5}"#, Ambiguous, Part::Provider, false),
            (200, "", Ambiguous, Part::Provider, false),
            (200, page, Misconfigured, Part::Provider, true),
            (302, "", Misconfigured, Part::Provider, true),
            (400, said, MessageInvalid, Part::Provider, false),
            (401, said, AddressGone, Part::Device, false),
            (401, page, Misconfigured, Part::Provider, true),
            (401, "", Misconfigured, Part::Provider, true),
            (403, said, Misconfigured, Part::Device, false),
            (404, said, Misconfigured, Part::Provider, false),
            (408, "", Ambiguous, Part::Provider, false),
            (413, page, MessageInvalid, Part::Provider, false),
            (418, page, MessageInvalid, Part::Provider, true),
            (429, page, Throttled, Part::Provider, false),
            (500, said, Unavailable, Part::Provider, false),
            (503, page, Unavailable, Part::Provider, false),
            (507, page, Unavailable, Part::Provider, false),
            (502, page, Ambiguous, Part::Provider, false),
            (504, page, Ambiguous, Part::Provider, false),
        ];
        for (status, body, outcome, part, look) in rows {
            let answer = with(*status, "application/json", body, classify);
            let row = format!("{status} {body}");
            assert_eq!((answer.outcome, &answer.part), (*outcome, part), "{row}");
            assert_eq!(answer.unexpected, *look, "{row}");
            assert_eq!(answer.processed == Processed::Maybe, *outcome == Ambiguous, "{row}");
            assert!(!answer.refreshable, "{row}");
            if *status > 299 {
                assert_eq!(answer.retry_after, Some(Duration::from_secs(9)), "{row}");
            }
        }
    }

    #[test]
    fn a_page_is_known_by_its_type_as_well() {
        let answer = with(200, "text/html; charset=utf-8", "login", classify);
        assert_eq!(answer.outcome, Misconfigured);
    }

    #[test]
    fn the_id_is_found_though_the_answer_was_cut() {
        let cut = format!(r#"{{"id":4711,"appid":1,"message":"{}"#, "a".repeat(100));
        let answer = with(200, "application/json", &cut, classify);
        assert_eq!(answer.vendor_id.as_deref(), Some("4711"));
        for torn in [r#"{"id":47"#, r#"{"id":"x","#, r#"{"id":,"#] {
            assert_eq!(with(200, "application/json", torn, classify).outcome, Ambiguous, "{torn}");
        }
    }

    #[test]
    fn health_is_green_or_it_is_not() {
        for (status, body, outcome) in [
            (200, r#"{"health":"green","database":"green"}"#, Accepted),
            (500, r#"{"health":"orange","database":"red"}"#, Unavailable),
            (503, "", Unavailable),
            (429, "", Throttled),
            (200, "<html>", Misconfigured),
            (404, "", Misconfigured),
            (302, "", Misconfigured),
        ] {
            let answer = with(status, "application/json", body, health);
            assert_eq!(answer.outcome, outcome, "{status} {body}");
        }
    }
}
