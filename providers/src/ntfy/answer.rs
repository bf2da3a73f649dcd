//! What ntfy's answer means: one table, read from the top, first match wins.
//!
//! ntfy says more by the code in its body (`{"code":42901,"http":429,"error":…}`)
//! than by the status, and sends no Retry-After: how long a quota lasts follows
//! from which it is. It never says that an address is dead, for a topic is there as
//! soon as somebody names it; only a name that can never be a topic is given up.
//!
//! Sources: binwiederhier/ntfy, `server/errors.go`, `docs/publish.md`
//! ("Limitations"), `docs/config.md` ("Rate limiting").

use std::time::Duration;

use serde_json::Value;

use crate::http::channel::{Reply, success_without_id};
use crate::http::retry_after::retry_after;
use crate::{Answer, Outcome, Part, Processed};

/// The request bucket gains one every 5 s (`docs/config.md`, "Rate limiting").
const BUCKET: Duration = Duration::from_secs(5);

const DAY_S: u64 = 24 * 60 * 60;

/// Classifies the answer to a publish. `topic` is struck out where ntfy repeats it.
pub(super) fn classify(reply: Reply<'_>, topic: &str) -> Answer {
    let status = reply.status.as_u16();
    let body: Option<Value> = serde_json::from_slice(reply.body).ok();
    if reply.status.is_success() {
        return success(&reply, body.as_ref()).status(status);
    }
    let code = body.as_ref().and_then(|b| b.get("code")).and_then(Value::as_u64);
    let said = body.as_ref().and_then(|b| b.get("error")).and_then(Value::as_str);
    let row = row(status, code.unwrap_or(0));
    let detail = match said {
        Some(said) if !topic.is_empty() => said.replace(topic, "***"),
        Some(said) => said.to_owned(),
        None => row.detail.to_owned(),
    };
    let code = code.map_or_else(|| format!("http_{status}"), |code| code.to_string());
    let mut answer =
        Answer::new(row.outcome).about(row.part).status(status).code(&code).detail(&detail);
    if row.outcome == Outcome::Ambiguous {
        answer.processed = Processed::Maybe;
    }
    answer.unexpected = row.look;
    answer.retry_after = retry_after(reply.headers, reply.now_s).or(match row.wait {
        Wait::Unsaid => None,
        Wait::Bucket => Some(BUCKET),
        Wait::Midnight => Some(Duration::from_secs(DAY_S - reply.now_s % DAY_S)),
    });
    answer
}

/// Classifies the answer of `/v1/health`.
pub(super) fn health(reply: Reply<'_>) -> Answer {
    let status = reply.status.as_u16();
    let body: Option<Value> = serde_json::from_slice(reply.body).ok();
    let healthy = body.and_then(|body| body.get("healthy")?.as_bool());
    let (outcome, detail) = match (status, healthy) {
        (200, Some(true)) => (Outcome::Accepted, "healthy"),
        (200, Some(false)) | (500..=599, _) => (Outcome::Unavailable, "the server is not healthy"),
        (429, _) => (Outcome::Throttled, "too many requests"),
        _ => (Outcome::Misconfigured, "the answer to /v1/health is not ntfy's"),
    };
    Answer::new(outcome).status(status).detail(detail)
}

struct Row {
    outcome: Outcome,
    part: Part,
    wait: Wait,
    /// Whether someone should look.
    look: bool,
    /// In place of ntfy's own words.
    detail: &'static str,
}

/// How long to leave it alone when the server does not say.
#[derive(Clone, Copy)]
enum Wait {
    Unsaid,
    Bucket,
    /// Daily quotas end at 00:00 UTC.
    Midnight,
}

/// `code` is 0 where the answer is not ntfy's own.
#[rustfmt::skip]
fn row(status: u16, code: u64) -> Row {
    use Outcome::{AddressGone, Ambiguous, AuthFailed, MessageInvalid, Misconfigured, Throttled, Unavailable};
    use Part::{Device, Provider};
    use Wait::{Bucket, Midnight, Unsaid};
    let (outcome, part, wait, look, detail) = match (status, code) {
        (300..=399, _) => (Misconfigured, Provider, Unsaid, true, "a redirect, which is not followed: set endpoint to where it leads"),
        // Topic invalid, topic not allowed: it can never be one.
        (400, 40009 | 40010) => (AddressGone, Device, Unsaid, false, ""),
        // Delay, priority, UTF-8, attachment, actions, icon, templates.
        (400, 40004..=40007 | 40011 | 40013 | 40015 | 40018 | 40021 | 40041..=40045) => (MessageInvalid, Provider, Unsaid, false, ""),
        // E-mail, attachments, calls: off on this server.
        (400, 40001 | 40014 | 40032) => (MessageInvalid, Provider, Unsaid, false, ""),
        // Our own checks should have prevented it.
        (400, _) => (MessageInvalid, Provider, Unsaid, true, "the message was refused"),
        (401, _) => (AuthFailed, Provider, Unsaid, false, "the credential was refused"),
        // Also a topic that another user has reserved: no word of the others.
        (403, _) => (Misconfigured, Device, Unsaid, false, "this credential may not publish to the topic"),
        // There is no unknown topic.
        (404, _) => (Misconfigured, Provider, Unsaid, false, "no ntfy at this path: look at endpoint"),
        // Only proxies answer these three.
        (408 | 502 | 504, _) => (Ambiguous, Provider, Unsaid, false, "a gateway does not know how it ended"),
        (413, _) => (MessageInvalid, Provider, Unsaid, false, "too large"),
        // The request bucket of the visitor, which is us.
        (429, 42901) => (Throttled, Provider, Bucket, false, ""),
        // E-mails, attachment bandwidth, messages, calls: by the day.
        (429, 42902 | 42905 | 42908 | 42910) => (Throttled, Provider, Midnight, false, ""),
        // The server is full of topics; its operator must act.
        (429, 42904) => (Unavailable, Provider, Unsaid, true, ""),
        // Too many refused logins.
        (429, 42909) => (AuthFailed, Provider, Unsaid, false, ""),
        (429, _) => (Throttled, Provider, Bucket, false, "too many requests"),
        // `base-url` is not set.
        (500, 50003) => (Misconfigured, Provider, Unsaid, true, ""),
        // A UnifiedPush topic nobody is there to be charged for: only that topic.
        (507, _) => (Unavailable, Device, Unsaid, false, "nobody subscribes to the topic"),
        (500..=599, _) => (Unavailable, Provider, Unsaid, false, "the server failed"),
        _ => (MessageInvalid, Provider, Unsaid, true, "an answer that ntfy does not document"),
    };
    Row { outcome, part, wait, look, detail }
}

/// 2xx: taken, if it says under which id.
fn success(reply: &Reply<'_>, body: Option<&Value>) -> Answer {
    if let Some(id) = body.and_then(|body| body.get("id")).and_then(Value::as_str) {
        let mut answer = Answer::new(Outcome::Accepted);
        answer.vendor_id = Some(id.chars().take(64).collect::<String>().into());
        return answer;
    }
    success_without_id(reply, "ntfy's")
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
            self, Accepted, AddressGone, Ambiguous, AuthFailed, MessageInvalid, Misconfigured,
            Throttled, Unavailable,
        },
        Part, Processed,
    };

    /// 21:00:00 UTC: three hours before the daily quotas end.
    const NOW_S: u64 = 20_000 * 86_400 + 21 * 3600;

    /// Status, codes, and what they mean; the wait in seconds.
    type Row<'a> = (u16, &'a [u64], Outcome, Part, Option<u64>);

    fn with(status: u16, headers: &HeaderMap, body: &str) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        let reply = Reply { status, headers, body: body.as_bytes(), now_s: NOW_S };
        classify(reply, "alice-7f3a")
    }

    fn error(status: u16, code: u64) -> Answer {
        let body = format!(
            r#"{{"code":{code},"http":{status},"error":"refused for alice-7f3a","link":"https://ntfy.sh/docs"}}"#
        );
        let answer = with(status, &HeaderMap::new(), &body);
        assert_eq!(answer.code.as_deref(), Some(code.to_string().as_str()));
        assert_eq!(answer.detail.as_deref(), Some("refused for ***"));
        answer
    }

    #[test]
    fn every_code_has_its_class() {
        const DAY: Option<u64> = Some(3 * 3600);
        let rows: &[Row<'_>] = &[
            (400, &[40009, 40010], AddressGone, Part::Device, None),
            (400, &[40004, 40005, 40006, 40007], MessageInvalid, Part::Provider, None),
            (400, &[40011, 40013, 40015, 40018, 40021], MessageInvalid, Part::Provider, None),
            (400, &[40041, 40042, 40043, 40044, 40045], MessageInvalid, Part::Provider, None),
            (400, &[40001, 40014, 40032], MessageInvalid, Part::Provider, None),
            (401, &[40101], AuthFailed, Part::Provider, None),
            (403, &[40301], Misconfigured, Part::Device, None),
            (404, &[40401], Misconfigured, Part::Provider, None),
            (413, &[41301, 41302, 41303], MessageInvalid, Part::Provider, None),
            (429, &[42901], Throttled, Part::Provider, Some(5)),
            (429, &[42902, 42905, 42908, 42910], Throttled, Part::Provider, DAY),
            (429, &[42904], Unavailable, Part::Provider, None),
            (429, &[42909], AuthFailed, Part::Provider, None),
            (429, &[42903, 42906, 42907], Throttled, Part::Provider, Some(5)),
            (500, &[50001, 50002, 50004], Unavailable, Part::Provider, None),
            (500, &[50003], Misconfigured, Part::Provider, None),
            (507, &[50701], Unavailable, Part::Device, None),
        ];
        for (status, codes, outcome, part, wait) in rows {
            for code in *codes {
                let answer = error(*status, *code);
                assert_eq!((answer.outcome, &answer.part), (*outcome, part), "{code}");
                assert_eq!(answer.retry_after, wait.map(Duration::from_secs), "{code}");
                assert_eq!(answer.processed, Processed::Yes, "{code}");
                assert!(!answer.refreshable, "{code}");
            }
        }
    }

    #[test]
    fn answers_without_a_code_are_taken_by_their_status() {
        for (status, outcome, part) in [
            (301, Misconfigured, Part::Provider),
            (400, MessageInvalid, Part::Provider),
            (401, AuthFailed, Part::Provider),
            (403, Misconfigured, Part::Device),
            (404, Misconfigured, Part::Provider),
            (408, Ambiguous, Part::Provider),
            (413, MessageInvalid, Part::Provider),
            (418, MessageInvalid, Part::Provider),
            (429, Throttled, Part::Provider),
            (500, Unavailable, Part::Provider),
            (503, Unavailable, Part::Provider),
            (502, Ambiguous, Part::Provider),
            (504, Ambiguous, Part::Provider),
            (507, Unavailable, Part::Device),
        ] {
            let answer = with(status, &HeaderMap::new(), "<html>proxy</html>");
            assert_eq!((answer.outcome, &answer.part), (outcome, &part), "{status}");
            assert_eq!(answer.processed == Processed::Maybe, outcome == Ambiguous, "{status}");
        }
    }

    #[test]
    fn success_is_what_names_a_message() {
        let none = HeaderMap::new();
        let html = HeaderMap::from_iter([(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        )]);
        for (headers, body, outcome) in [
            (&none, r#"{"id":"hwQ2YpKdmg","time":1,"event":"message","topic":"t"}"#, Accepted),
            (&none, "<!doctype html><title>ntfy</title>", Misconfigured),
            (&html, "ntfy", Misconfigured),
            (&none, "", Ambiguous),
            (&none, r#"{"id":"#, Ambiguous),
            (&none, r#"{"ok":true}"#, Ambiguous),
        ] {
            assert_eq!(with(200, headers, body).outcome, outcome, "{body}");
        }
        let answer = with(200, &none, r#"{"id":"hwQ2YpKdmg"}"#);
        assert_eq!(answer.vendor_id.as_deref(), Some("hwQ2YpKdmg"));
    }

    #[test]
    fn a_wait_that_a_server_or_proxy_names_is_kept() {
        let headers = HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static("40"))]);
        for code in [42901, 42908] {
            let answer = with(429, &headers, &format!(r#"{{"code":{code}}}"#));
            assert_eq!(answer.retry_after, Some(Duration::from_secs(40)));
        }
    }

    #[test]
    fn health_says_so_itself() {
        for (status, body, outcome) in [
            (200, r#"{"healthy":true}"#, Accepted),
            (200, r#"{"healthy":false}"#, Unavailable),
            (503, "", Unavailable),
            (429, "", Throttled),
            (200, "<html>", Misconfigured),
            (404, "", Misconfigured),
        ] {
            let headers = HeaderMap::new();
            let status = StatusCode::from_u16(status).unwrap();
            let reply = Reply { status, headers: &headers, body: body.as_bytes(), now_s: NOW_S };
            assert_eq!(health(reply).outcome, outcome, "{status} {body}");
        }
    }
}
