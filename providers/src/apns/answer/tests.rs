//! Every documented answer, a row each.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};

use super::{Reply, Target, Then, classify};
use crate::http::pool::Failure;
use crate::{Answer, Outcome, Part, Processed};

use Outcome::{
    Accepted, AddressGone, Ambiguous, AuthFailed, MessageInvalid, Misconfigured, Throttled,
    Unavailable,
};
use Processed::{Maybe, No, Yes};

fn app() -> Part {
    Part::app("com.example.shop")
}

fn reply(status: u16, body: &str) -> (Answer, Then) {
    reply_with(status, body, &HeaderMap::new(), true)
}

fn reply_with(status: u16, body: &str, headers: &HeaderMap, can_refresh: bool) -> (Answer, Then) {
    let part = app();
    reply_to(status, body, headers, (Target::Device("ab"), &part), can_refresh)
}

fn reply_to(
    status: u16,
    body: &str,
    headers: &HeaderMap,
    (target, part): (Target<'_>, &Part),
    can_refresh: bool,
) -> (Answer, Then) {
    classify(Reply {
        status: StatusCode::from_u16(status).unwrap(),
        headers,
        body: body.as_bytes(),
        target,
        part,
        can_refresh,
        now_s: 1_700_000_000,
    })
}

fn broadcasts() -> Part {
    Part::Named("channels:com.example.shop".into())
}

/// An answer about a broadcast.
fn broadcast(status: u16, reason: &str) -> (Answer, Then) {
    let body = format!(r#"{{"reason":"{reason}"}}"#);
    let part = broadcasts();
    reply_to(status, &body, &HeaderMap::new(), (Target::Channel("ab=="), &part), true)
}

fn reason(status: u16, reason: &str) -> (Answer, Then) {
    reply(status, &format!(r#"{{"reason":"{reason}"}}"#))
}

#[test]
fn every_reason_has_its_class() {
    let (device, whole) = (Part::Device, Part::Provider);
    for (status, code, outcome, part, processed, unexpected) in [
        (400, "BadDeviceToken", AddressGone, &device, Yes, false),
        (400, "DeviceTokenNotForTopic", Misconfigured, &device, Yes, false),
        (400, "MissingTopic", Misconfigured, &app(), Yes, false),
        (400, "BadTopic", Misconfigured, &app(), Yes, false),
        (400, "TopicDisallowed", Misconfigured, &app(), Yes, false),
        (400, "BadCollapseId", MessageInvalid, &whole, Yes, true),
        (400, "BadExpirationDate", MessageInvalid, &whole, Yes, true),
        (400, "BadMessageId", MessageInvalid, &whole, Yes, true),
        (400, "BadPriority", MessageInvalid, &whole, Yes, true),
        (400, "InvalidPushType", MessageInvalid, &whole, Yes, true),
        (400, "PayloadEmpty", MessageInvalid, &whole, Yes, true),
        (400, "DuplicateHeaders", MessageInvalid, &whole, Yes, true),
        (400, "MissingDeviceToken", MessageInvalid, &whole, Yes, true),
        (404, "BadPath", MessageInvalid, &whole, Yes, true),
        (405, "MethodNotAllowed", MessageInvalid, &whole, Yes, true),
        (400, "IdleTimeout", Unavailable, &whole, No, false),
        (400, "NeverHeardOf", MessageInvalid, &whole, Yes, true),
        (403, "ExpiredProviderToken", AuthFailed, &whole, Yes, false),
        (403, "InvalidProviderToken", AuthFailed, &whole, Yes, false),
        (403, "MissingProviderToken", AuthFailed, &whole, Yes, false),
        (403, "BadCertificate", AuthFailed, &whole, Yes, false),
        (403, "BadCertificateEnvironment", AuthFailed, &whole, Yes, false),
        (403, "Forbidden", AuthFailed, &whole, Yes, false),
        (403, "NeverHeardOf", AuthFailed, &whole, Yes, true),
        (403, "UnrelatedKeyIdInToken", Unavailable, &whole, No, false),
        (403, "BadEnvironmentKeyIdInToken", AuthFailed, &whole, Yes, false),
        (403, "BadEnvironmentKeyInToken", AuthFailed, &whole, Yes, false),
        (410, "Unregistered", AddressGone, &device, Yes, false),
        (410, "ExpiredToken", AddressGone, &device, Yes, false),
        (410, "NeverHeardOf", MessageInvalid, &whole, Yes, true),
        (413, "PayloadTooLarge", MessageInvalid, &whole, Yes, true),
        (429, "TooManyRequests", Throttled, &device, Yes, false),
        (429, "TooManyProviderTokenUpdates", Throttled, &whole, Yes, false),
        (429, "NeverHeardOf", Throttled, &whole, Yes, true),
        (500, "InternalServerError", Unavailable, &whole, Yes, false),
        (500, "NeverHeardOf", Unavailable, &whole, Yes, true),
        (503, "ServiceUnavailable", Unavailable, &whole, Yes, false),
        (503, "Shutdown", Unavailable, &whole, No, false),
        (502, "", Ambiguous, &whole, Maybe, false),
        (504, "", Ambiguous, &whole, Maybe, false),
        (507, "", Unavailable, &whole, Yes, false),
        (301, "", Unavailable, &whole, Yes, true),
        // Never gone by a word that comes with another family's status.
        (500, "Unregistered", Unavailable, &whole, Yes, true),
    ] {
        let (answer, _) = reason(status, code);
        let got = (answer.outcome, &answer.part, answer.processed, answer.unexpected);
        assert_eq!(got, (outcome, part, processed, unexpected), "{status} {code}");
        assert_eq!(answer.status, Some(status));
        assert_eq!(answer.code.as_deref(), (!code.is_empty()).then_some(code));
        assert_eq!(answer.refreshable, code == "ExpiredProviderToken", "{code}");
        assert!(answer.detail.is_some() && !answer.everywhere && answer.gone_at.is_none());
    }
}

#[test]
fn every_answer_to_a_broadcast_has_its_class_and_leaves_devices_alone() {
    let (device, whole, broadcasts) = (Part::Device, Part::Provider, broadcasts());
    for (status, code, outcome, part, processed, unexpected) in [
        (400, "FeatureNotEnabled", Misconfigured, &broadcasts, Yes, false),
        (400, "TopicDisallowed", Misconfigured, &broadcasts, Yes, false),
        (403, "TopicMismatch", Misconfigured, &broadcasts, Yes, false),
        (400, "CannotCreateChannelConfig", Misconfigured, &broadcasts, Yes, false),
        (400, "ChannelNotRegistered", AddressGone, &device, Yes, false),
        (400, "MissingChannelId", MessageInvalid, &whole, Yes, true),
        (400, "BadChannelId", MessageInvalid, &whole, Yes, true),
        (400, "BadRequestParams", MessageInvalid, &whole, Yes, true),
        (400, "BadRequestPayload", MessageInvalid, &whole, Yes, true),
        (400, "MissingPushType", MessageInvalid, &whole, Yes, true),
        (400, "InvalidPushType", MessageInvalid, &whole, Yes, true),
        (400, "BadPriority", MessageInvalid, &whole, Yes, true),
        (400, "MissingChannelQueueSize", MessageInvalid, &whole, Yes, true),
        // The channel's storage decides, which only Apple knows.
        (400, "BadExpirationDate", MessageInvalid, &whole, Yes, false),
        (400, "NeverHeardOf", MessageInvalid, &whole, Yes, true),
        (404, "BadPath", MessageInvalid, &whole, Yes, true),
        (405, "MethodNotAllowed", MessageInvalid, &whole, Yes, true),
        (410, "NeverHeardOf", MessageInvalid, &whole, Yes, true),
        (413, "PayloadTooLarge", MessageInvalid, &whole, Yes, true),
        (403, "ExpiredProviderToken", AuthFailed, &whole, Yes, false),
        (403, "InvalidProviderToken", AuthFailed, &whole, Yes, false),
        (403, "UnrelatedKeyIdInToken", Unavailable, &broadcasts, No, false),
        (429, "TooManyRequests", Throttled, &broadcasts, Yes, false),
        (429, "TooManyProviderTokenUpdates", Throttled, &whole, Yes, false),
        (429, "NeverHeardOf", Throttled, &broadcasts, Yes, true),
        (500, "InternalServerError", Unavailable, &broadcasts, Yes, false),
        (503, "ServiceUnavailable", Unavailable, &broadcasts, Yes, false),
        (503, "Shutdown", Unavailable, &broadcasts, No, false),
        (502, "", Ambiguous, &broadcasts, Maybe, false),
        (504, "", Ambiguous, &broadcasts, Maybe, false),
        (507, "", Unavailable, &broadcasts, Yes, false),
    ] {
        let (answer, _) = broadcast(status, code);
        let got = (answer.outcome, &answer.part, answer.processed, answer.unexpected);
        assert_eq!(got, (outcome, part, processed, unexpected), "{status} {code}");
        assert_eq!(answer.code.as_deref(), (!code.is_empty()).then_some(code));
    }
    let (policy, _) = broadcast(400, "BadExpirationDate");
    assert!(policy.detail.unwrap().contains("apns-expiration 0"));
}

#[test]
fn success_carries_apples_id() {
    let mut headers = HeaderMap::new();
    headers.insert("apns-id", HeaderValue::from_static("0197-echo"));
    let (answer, then) = reply_with(200, "", &headers, true);
    assert_eq!((answer.outcome, then), (Accepted, Then::Nothing));
    assert_eq!(answer.vendor_id.as_deref(), Some("0197-echo"));
    let mut echo = HeaderMap::new();
    echo.insert("apns-request-id", HeaderValue::from_static("0197-request"));
    let answer = reply_with(200, "", &echo, true).0;
    assert_eq!(answer.vendor_id.as_deref(), Some("0197-request"));
    headers.insert("apns-unique-id", HeaderValue::from_static("unique"));
    assert_eq!(reply_with(200, "", &headers, true).0.vendor_id.as_deref(), Some("unique"));
}

#[test]
fn a_body_that_does_not_parse_keeps_the_status_and_has_no_reason() {
    for body in [
        "",
        "<html><body>Bad Gateway</body></html>",
        r#"{"reason":"Unregis"#,
        r#"{"reason":null}"#,
        r#"{"reason":7}"#,
        r#"["Unregistered"]"#,
        r#"{"reason":"<script>"}"#,
        r#"{"reason":"00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0"}"#,
    ] {
        let (answer, _) = reply(410, body);
        assert_eq!((answer.outcome, answer.status), (MessageInvalid, Some(410)), "{body}");
        assert_eq!(answer.code, None);
        assert_eq!(answer.detail.as_deref(), Some("HTTP 410 without a reason"));
        assert_eq!(reply(503, body).0.outcome, Unavailable);
        assert_eq!(reply(502, body).0.outcome, Ambiguous);
    }
}

#[test]
fn a_410_says_since_when() {
    for (body, gone_at) in [
        (r#"{"reason":"Unregistered","timestamp":1700000000123}"#, Some(1_700_000_000_123)),
        (r#"{"reason":"ExpiredToken"}"#, None),
        (r#"{"reason":"Unregistered","timestamp":"soon"}"#, None),
        (r#"{"reason":"Unregistered","timestamp":-1}"#, None),
    ] {
        let (answer, _) = reply(410, body);
        assert_eq!((answer.outcome, answer.gone_at), (AddressGone, gone_at), "{body}");
    }
}

#[test]
fn an_expired_token_is_refreshable_unless_it_is_young_and_then_a_clock_is_wrong() {
    let mut headers = HeaderMap::new();
    // 1,700,000,000 is 22:13:20; the peer's clock is an hour ahead.
    headers.insert("date", HeaderValue::from_static("Tue, 14 Nov 2023 23:13:20 GMT"));
    let body = r#"{"reason":"ExpiredProviderToken"}"#;
    let (old, _) = reply_with(403, body, &headers, true);
    assert!(old.refreshable && !old.unexpected);
    let (young, _) = reply_with(403, body, &headers, false);
    assert!(!young.refreshable && young.unexpected);
    let detail = young.detail.unwrap();
    assert!(detail.contains("our clock and the vendor's differ by 3600 s"), "{detail}");
}

#[test]
fn a_wait_that_is_told_is_kept_and_token_updates_wait_20_minutes() {
    let mut headers = HeaderMap::new();
    headers.insert("retry-after", HeaderValue::from_static("7"));
    for (status, code, silent, told) in [
        (429, "TooManyRequests", None, 7),
        (429, "TooManyProviderTokenUpdates", Some(1200), 1200),
        (503, "ServiceUnavailable", None, 7),
        (403, "Forbidden", None, 7),
    ] {
        let body = format!(r#"{{"reason":"{code}"}}"#);
        assert_eq!(reply(status, &body).0.retry_after, silent.map(Duration::from_secs), "{code}");
        let (answer, _) = reply_with(status, &body, &headers, true);
        assert_eq!(answer.retry_after, Some(Duration::from_secs(told)), "{code}");
    }
    headers.insert("retry-after", HeaderValue::from_static("Tue, 14 Nov 2023 22:14:20 GMT"));
    let (answer, _) = reply_with(503, "", &headers, true);
    assert_eq!(answer.retry_after, Some(Duration::from_secs(60)));
}

#[test]
fn two_answers_leave_the_call_something_to_do() {
    assert_eq!(reason(403, "UnrelatedKeyIdInToken").1, Then::Retire);
    assert_eq!(reason(429, "TooManyProviderTokenUpdates").1, Then::HoldTokens);
    assert_eq!(reason(503, "Shutdown").1, Then::Nothing);
}

#[test]
fn a_call_without_an_answer_is_unavailable_only_when_surely_unprocessed() {
    for (processed, outcome) in [(No, Unavailable), (Maybe, Ambiguous)] {
        let answer = Answer::from(&Failure {
            processed,
            code: "reset",
            detail: "stream reset".to_owned(),
            again: false,
        });
        assert_eq!((answer.outcome, answer.processed), (outcome, processed));
        assert_eq!(answer.code.as_deref(), Some("reset"));
        assert_eq!(answer.status, None);
    }
}
