//! What a webhook receiver's answer means: one table, by status alone.
//!
//! The body is never looked at: it is the receiver's own, may be anything, and
//! may repeat ours. Read from the top, first match wins.
//!
//! Source: *Standard Webhooks*, "Deliverability and reliability", and RFC 9110
//! section 15 for what it does not mention.

use crate::http::channel::Reply;
use crate::http::retry_after::retry_after;
use crate::{Answer, Outcome, Processed};

/// Classifies an answer. All of them are about the provider as a whole: a webhook
/// has one endpoint.
pub(super) fn classify(reply: Reply<'_>) -> Answer {
    let status = reply.status.as_u16();
    if reply.status.is_success() {
        return Answer::new(Outcome::Accepted).status(status);
    }
    let (outcome, detail, look) = row(status);
    let mut answer =
        Answer::new(outcome).status(status).code(&format!("http_{status}")).detail(detail);
    if outcome == Outcome::Ambiguous {
        answer.processed = Processed::Maybe;
    }
    answer.unexpected = look == Look::Yes;
    answer.retry_after = retry_after(reply.headers, reply.now_s);
    answer
}

/// Whether someone should look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    No,
    Yes,
}

#[rustfmt::skip]
fn row(status: u16) -> (Outcome, &'static str, Look) {
    use Look::{No, Yes};
    use Outcome::{Ambiguous, AuthFailed, MessageInvalid, Misconfigured, Throttled, Unavailable};
    match status {
        // Not followed: a redirect could lead a signed message anywhere.
        300..=399 => (Misconfigured, "a redirect, which is not followed: set endpoint to where it leads", Yes),
        // The secret differs; renewing it is the operator's.
        401 | 403 => (AuthFailed, "the receiver refuses the signature or the request: compare the secrets", No),
        // Deployments answer so for a moment.
        404 => (Unavailable, "nothing there at the moment, or the wrong path in endpoint", No),
        405 => (Misconfigured, "the receiver takes no POST there: look at the path of endpoint", Yes),
        // A gateway or a timeout on their side: it may have arrived.
        408 | 502 | 504 => (Ambiguous, "a gateway does not know how it ended", No),
        // "410 Gone": the receiver asks to be disabled.
        410 => (Misconfigured, "the receiver asks not to be sent to any more", Yes),
        429 => (Throttled, "too many requests", No),
        400 | 413 | 415 | 422 => (MessageInvalid, "the receiver does not take this message", No),
        500..=599 => (Unavailable, "the receiver failed", No),
        _ => (MessageInvalid, "an answer that a webhook should not give", Yes),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, HeaderValue, StatusCode, header};

    use super::classify;
    use crate::http::channel::Reply;
    use crate::{
        Outcome::{
            self, Accepted, Ambiguous, AuthFailed, MessageInvalid, Misconfigured, Throttled,
            Unavailable,
        },
        Part, Processed,
    };

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const NOW_S: u64 = 784_111_777;

    fn answer(status: u16, wait: Option<&'static str>) -> crate::Answer {
        let mut headers = HeaderMap::new();
        if let Some(wait) = wait {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(wait));
        }
        let status = StatusCode::from_u16(status).unwrap();
        classify(Reply { status, headers: &headers, body: b"the secret payload", now_s: NOW_S })
    }

    #[test]
    fn every_status_has_its_class() {
        let table: &[(&[u16], Outcome, bool)] = &[
            (&[200, 201, 202, 204, 299], Accepted, false),
            (&[301, 302, 303, 304, 307, 308], Misconfigured, true),
            (&[400, 413, 415, 422], MessageInvalid, false),
            (&[401, 403], AuthFailed, false),
            (&[404], Unavailable, false),
            (&[405], Misconfigured, true),
            (&[410], Misconfigured, true),
            (&[429], Throttled, false),
            (&[408, 502, 504], Ambiguous, false),
            (&[500, 501, 503, 507, 599], Unavailable, false),
            (&[402, 409, 418, 451], MessageInvalid, true),
        ];
        for (statuses, outcome, unexpected) in table {
            for status in *statuses {
                let answer = answer(*status, None);
                assert_eq!(answer.outcome, *outcome, "{status}");
                assert_eq!(answer.unexpected, *unexpected, "{status}");
                assert_eq!(answer.part, Part::Provider, "{status}");
                assert!(!answer.refreshable, "{status}");
                assert_eq!(answer.status, Some(*status));
                let maybe = answer.processed == Processed::Maybe;
                assert_eq!(maybe, *outcome == Ambiguous, "{status}");
                let told = answer.detail.as_deref().unwrap_or_default();
                assert!(!told.contains("payload"), "{told}");
            }
        }
    }

    #[test]
    fn a_wait_is_taken_in_both_forms() {
        for (wait, seconds) in [("7", 7), ("Sun, 06 Nov 1994 08:50:07 GMT", 30)] {
            for status in [429, 503] {
                let expected = Some(Duration::from_secs(seconds));
                assert_eq!(answer(status, Some(wait)).retry_after, expected);
            }
        }
        assert_eq!(answer(429, None).retry_after, None);
    }
}
