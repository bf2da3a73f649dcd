//! Every documented answer, one row each, with its details in every order.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::{Reply, classify};
use crate::Outcome::{
    self, Accepted, AddressGone, Ambiguous, AuthFailed, MessageInvalid, Misconfigured, Throttled,
    Unavailable,
};
use crate::{Answer, Part, Processed};

const TOKEN: &str = "e1-the-token";

/// Tue, 14 Nov 2023 22:13:20 GMT.
const NOW_S: u64 = 1_700_000_000;

const GOOGLE_HTML: &str = "<!DOCTYPE html><html lang=en><title>Error</title>";

fn reply(status: u16, headers: &[(&'static str, &str)], body: &[u8]) -> Answer {
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
        .collect();
    let status = StatusCode::from_u16(status).unwrap();
    classify(Reply { status, headers: &headers, body, address: TOKEN, now_s: NOW_S })
}

fn error(status: u16, rpc: &str, message: &str, details: &[Value]) -> Vec<u8> {
    let error = json!({"code": status, "message": message, "status": rpc, "details": details});
    json!({ "error": error }).to_string().into_bytes()
}

fn typed(name: &str, mut content: Value) -> Value {
    content["@type"] = format!("type.googleapis.com/{name}").into();
    content
}

fn fcm(code: &str) -> Value {
    typed("google.firebase.fcm.v1.FcmError", json!({"errorCode": code}))
}

fn apns(reason: &str) -> Value {
    typed("google.firebase.fcm.v1.ApnsError", json!({"statusCode": 400, "reason": reason}))
}

fn bad(field: &str) -> Value {
    typed(
        "google.rpc.BadRequest",
        json!({"fieldViolations": [{"field": field, "description": "?"}]}),
    )
}

fn quota(subject: &str, description: &str) -> Value {
    let violation = json!({"subject": subject, "description": description});
    typed("google.rpc.QuotaFailure", json!({ "violations": [violation] }))
}

fn info(reason: &str) -> Value {
    typed("google.rpc.ErrorInfo", json!({"reason": reason, "domain": "googleapis.com"}))
}

fn retry_info(delay: &str) -> Value {
    typed("google.rpc.RetryInfo", json!({"retryDelay": delay}))
}

/// Outcome, `device` or the provider, and `!` for an alarm, `r` for refreshable.
type Meaning = (Outcome, &'static str, &'static str);

fn meaning(answer: &Answer) -> Meaning {
    let part = match &answer.part {
        Part::Provider => "",
        Part::Device => "device",
        Part::Named(name) => panic!("FCM has no part {name}"),
    };
    let mark = match (answer.unexpected, answer.refreshable) {
        (true, false) => "!",
        (false, true) => "r",
        (false, false) => "",
        (true, true) => panic!("both marks"),
    };
    (answer.outcome, part, mark)
}

#[test]
#[rustfmt::skip]
fn every_documented_answer_has_its_class_whatever_the_order_of_its_details() {
    let unknown = || typed("google.rpc.LocalizedMessage", json!({"locale": "en", "message": "?"}));
    let invalid_token = "The registration token is not a valid FCM registration token";
    let too_many = "Quota exceeded for quota metric 'Sends' and limit 'Sends per minute per project'";
    let rows: Vec<(u16, &str, &str, Vec<Value>, Meaning)> = vec![
        (404, "NOT_FOUND", "Requested entity was not found.", vec![fcm("UNREGISTERED")], (AddressGone, "device", "")),
        (404, "NOT_FOUND", "", vec![fcm("UNREGISTERED"), apns("Unregistered"), unknown()], (AddressGone, "device", "")),
        (404, "NOT_FOUND", "Project not found", vec![], (Misconfigured, "", "")),
        (404, "NOT_FOUND", "", vec![info("RESOURCE_NOT_FOUND"), unknown()], (Misconfigured, "", "")),
        (404, "NOT_FOUND", "", vec![fcm("SOMETHING_NEW")], (Misconfigured, "", "")),
        (400, "INVALID_ARGUMENT", "APNs device token is disabled", vec![fcm("INVALID_ARGUMENT"), apns("Unregistered"), unknown()], (AddressGone, "device", "")),
        (400, "INVALID_ARGUMENT", "", vec![fcm("INVALID_ARGUMENT"), apns("ExpiredToken")], (AddressGone, "device", "")),
        (400, "INVALID_ARGUMENT", "", vec![fcm("INVALID_ARGUMENT"), apns("BadDeviceToken"), unknown()], (Misconfigured, "device", "")),
        (400, "INVALID_ARGUMENT", "", vec![fcm("INVALID_ARGUMENT"), apns("DeviceTokenNotForTopic")], (Misconfigured, "device", "")),
        (400, "INVALID_ARGUMENT", "", vec![bad("message.token"), fcm("INVALID_ARGUMENT"), unknown()], (AddressGone, "device", "")),
        (400, "INVALID_ARGUMENT", "", vec![bad("message.fid")], (AddressGone, "device", "")),
        (400, "INVALID_ARGUMENT", invalid_token, vec![fcm("INVALID_ARGUMENT"), unknown()], (AddressGone, "device", "")),
        (400, "INVALID_ARGUMENT", "Invalid registration token", vec![], (AddressGone, "device", "")),
        (400, "INVALID_ARGUMENT", "", vec![bad("message.token"), bad("message.data[0].value")], (MessageInvalid, "", "")),
        (400, "INVALID_ARGUMENT", invalid_token, vec![bad("message.data[0].value")], (MessageInvalid, "", "")),
        (400, "INVALID_ARGUMENT", "", vec![bad("message.data[0].value"), fcm("INVALID_ARGUMENT"), unknown()], (MessageInvalid, "", "")),
        (400, "INVALID_ARGUMENT", "", vec![apns("PayloadTooLarge"), fcm("INVALID_ARGUMENT")], (MessageInvalid, "", "")),
        (400, "INVALID_ARGUMENT", "", vec![apns("BadCollapseId")], (MessageInvalid, "", "")),
        (400, "INVALID_ARGUMENT", "Android message is too big", vec![fcm("INVALID_ARGUMENT")], (MessageInvalid, "", "!")),
        (400, "INVALID_ARGUMENT", "", vec![], (MessageInvalid, "", "!")),
        (400, "FAILED_PRECONDITION", invalid_token, vec![], (MessageInvalid, "", "!")),
        (401, "UNAUTHENTICATED", "", vec![fcm("THIRD_PARTY_AUTH_ERROR"), unknown()], (Misconfigured, "device", "!")),
        (401, "UNAUTHENTICATED", "", vec![fcm("THIRD_PARTY_AUTH_ERROR"), apns("BadEnvironmentKeyInToken"), unknown()], (Misconfigured, "device", "!")),
        (401, "UNAUTHENTICATED", "", vec![fcm("APNS_AUTH_ERROR")], (Misconfigured, "device", "!")),
        (401, "UNAUTHENTICATED", "", vec![info("ACCESS_TOKEN_EXPIRED"), unknown()], (AuthFailed, "", "r")),
        (401, "UNAUTHENTICATED", "", vec![], (AuthFailed, "", "r")),
        (403, "PERMISSION_DENIED", "SenderId mismatch", vec![fcm("SENDER_ID_MISMATCH"), unknown()], (Misconfigured, "device", "")),
        (403, "PERMISSION_DENIED", "", vec![info("SERVICE_DISABLED"), unknown()], (AuthFailed, "", "")),
        (403, "PERMISSION_DENIED", "", vec![], (AuthFailed, "", "")),
        (429, "RESOURCE_EXHAUSTED", "", vec![quota("device:e1", "Device message rate exceeded"), fcm("QUOTA_EXCEEDED"), unknown()], (Throttled, "device", "")),
        (429, "RESOURCE_EXHAUSTED", "Device message rate exceeded.", vec![fcm("QUOTA_EXCEEDED")], (Throttled, "device", "")),
        (429, "RESOURCE_EXHAUSTED", "", vec![quota("", "Topic message rate exceeded"), fcm("QUOTA_EXCEEDED")], (Throttled, "device", "")),
        (429, "RESOURCE_EXHAUSTED", "", vec![fcm("QUOTA_EXCEEDED"), unknown()], (Throttled, "", "")),
        (429, "RESOURCE_EXHAUSTED", too_many, vec![info("RATE_LIMIT_EXCEEDED"), unknown()], (Throttled, "", "")),
        (429, "RESOURCE_EXHAUSTED", "", vec![quota("project:topic-device", "Message rate exceeded")], (Throttled, "", "")),
        (429, "RESOURCE_EXHAUSTED", "Quota exceeded for consumer 'projects/my-topic-device'", vec![], (Throttled, "", "")),
        (429, "RESOURCE_EXHAUSTED", "", vec![], (Throttled, "", "")),
        (400, "INVALID_ARGUMENT", "", vec![apns("TooManyRequests")], (Throttled, "device", "")),
        (500, "INTERNAL", "", vec![fcm("INTERNAL"), unknown()], (Unavailable, "", "")),
        (503, "UNAVAILABLE", "", vec![fcm("UNAVAILABLE"), unknown()], (Unavailable, "", "")),
        (504, "DEADLINE_EXCEEDED", "", vec![], (Ambiguous, "", "")),
        (500, "DEADLINE_EXCEEDED", "", vec![], (Ambiguous, "", "")),
        (500, "UNKNOWN", "", vec![fcm("UNSPECIFIED_ERROR")], (Unavailable, "", "")),
        (418, "UNKNOWN", "", vec![fcm("UNSPECIFIED_ERROR"), unknown()], (MessageInvalid, "", "!")),
        (409, "ABORTED", "", vec![unknown()], (MessageInvalid, "", "!")),
        // The parts that disagree: details before error.status before the HTTP status.
        (500, "UNAVAILABLE", "", vec![], (Unavailable, "", "")),
        (400, "PERMISSION_DENIED", "", vec![fcm("SENDER_ID_MISMATCH")], (Misconfigured, "device", "")),
        (400, "UNAVAILABLE", "", vec![fcm("QUOTA_EXCEEDED")], (Throttled, "", "")),
        (500, "NOT_FOUND", "", vec![fcm("UNREGISTERED")], (Misconfigured, "", "")),
    ];
    for (status, rpc, message, details, meant) in rows {
        for turn in 0..details.len().max(1) {
            for reversed in [false, true] {
                let mut details = details.clone();
                details.rotate_left(turn);
                if reversed { details.reverse() }
                let answer = reply(status, &[], &error(status, rpc, message, &details));
                assert_eq!(meaning(&answer), meant, "{status} {rpc} {message} {details:?}");
                assert_eq!(answer.status, Some(status));
                let processed = if meant.0 == Ambiguous { Processed::Maybe } else { Processed::Yes };
                assert_eq!(answer.processed, processed);
            }
        }
    }
}

#[test]
#[rustfmt::skip]
fn without_a_readable_body_the_http_status_decides_and_nothing_is_deleted() {
    for (status, meant) in [
        (302, (Misconfigured, "", "!")), (400, (MessageInvalid, "", "!")), (401, (AuthFailed, "", "r")),
        (403, (AuthFailed, "", "")), (404, (Misconfigured, "", "")), (405, (MessageInvalid, "", "!")),
        (408, (Ambiguous, "", "")), (410, (MessageInvalid, "", "!")), (413, (MessageInvalid, "", "!")),
        (414, (MessageInvalid, "", "!")), (415, (MessageInvalid, "", "!")), (429, (Throttled, "", "")),
        (431, (MessageInvalid, "", "!")), (500, (Unavailable, "", "")), (501, (Unavailable, "", "")),
        (502, (Ambiguous, "", "")), (503, (Unavailable, "", "")), (504, (Ambiguous, "", "")),
        (520, (Unavailable, "", "")), (999, (Unavailable, "", "")), (200, (Ambiguous, "", "")),
        (204, (Ambiguous, "", "")),
    ] {
        let endless = vec![b'['; 64 * 1024];
        let odd: [&[u8]; 8] = [
            b"", GOOGLE_HTML.as_bytes(), b"[]", b"null", b"{\"error\":7}", b"\xff\xfe",
            br#"{"error":{"status":5,"message":[],"details":{"@type":1}}}"#, &endless,
        ];
        for body in odd {
            let answer = reply(status, &[], body);
            assert_eq!(meaning(&answer), meant, "{status} {:?}", String::from_utf8_lossy(&body[..body.len().min(40)]));
        }
    }
}

#[test]
fn success_tells_the_name_of_the_message() {
    let answer = reply(200, &[], br#"{"name":"projects/my-project/messages/0:15"}"#);
    assert_eq!(meaning(&answer), (Accepted, "", ""));
    assert_eq!(answer.vendor_id.as_deref(), Some("projects/my-project/messages/0:15"));
}

#[test]
#[rustfmt::skip]
fn the_wait_is_retry_after_else_retry_info_else_a_minute_for_quotas() {
    let date = "Tue, 14 Nov 2023 22:14:00 GMT";
    let project = |details: &[Value]| error(429, "RESOURCE_EXHAUSTED", "", details);
    let device = error(429, "RESOURCE_EXHAUSTED", "Device message rate exceeded", &[]);
    let internal = |details: &[Value]| error(503, "UNAVAILABLE", "", details);
    for (status, header, body, wait) in [
        (429, Some("5"), project(&[]), Some(5.0)),
        (429, Some(date), project(&[]), Some(40.0)),
        (429, Some("garbage"), project(&[]), Some(60.0)),
        (429, Some("garbage"), project(&[retry_info("30s")]), Some(30.0)),
        (429, Some("5"), project(&[retry_info("30s")]), Some(5.0)),
        (429, None, project(&[retry_info("1.5s")]), Some(1.5)),
        (429, None, project(&[retry_info("-1s")]), Some(60.0)),
        (429, None, project(&[retry_info("soon")]), Some(60.0)),
        (429, None, project(&[retry_info("1e300s")]), Some(60.0)),
        (429, None, project(&[]), Some(60.0)),
        (429, Some("999999999"), project(&[]), Some(86_400.0)),
        (429, None, device.clone(), Some(60.0)),
        (429, Some("5"), device.clone(), Some(60.0)),
        (429, Some("300"), device, Some(300.0)),
        (503, Some("20"), internal(&[]), Some(20.0)),
        (503, None, internal(&[retry_info("7s")]), Some(7.0)),
        (503, None, internal(&[]), None),
        (403, Some("20"), b"".to_vec(), Some(20.0)),
    ] {
        let headers: Vec<_> = header.map(|text| ("retry-after", text)).into_iter().collect();
        let answer = reply(status, &headers, &body);
        assert_eq!(answer.retry_after, wait.map(Duration::from_secs_f64), "{status} {header:?}");
    }
}

#[test]
fn people_see_what_google_said_but_neither_the_payload_nor_the_address() {
    for (status, rpc, message, details, code, detail) in [
        (
            404,
            "NOT_FOUND",
            "Requested entity was not found.",
            vec![fcm("UNREGISTERED")],
            "UNREGISTERED",
            "Requested entity was not found.",
        ),
        (
            400,
            "INVALID_ARGUMENT",
            "no",
            vec![apns("Unregistered"), fcm("INVALID_ARGUMENT")],
            "INVALID_ARGUMENT",
            "APNs says Unregistered; no",
        ),
        (
            400,
            "INVALID_ARGUMENT",
            "Invalid value at 'message.data[0].value' (TYPE_STRING), 4711",
            vec![bad("message.data[0].value")],
            "INVALID_ARGUMENT",
            "refused: message.data[0].value; Invalid value at 'message.data[0].value' (TYPE_STRING)",
        ),
        (
            403,
            "PERMISSION_DENIED",
            "API not enabled",
            vec![info("SERVICE_DISABLED")],
            "SERVICE_DISABLED",
            "API not enabled",
        ),
        (
            400,
            "INVALID_ARGUMENT",
            "bad token e1-the-token",
            vec![],
            "INVALID_ARGUMENT",
            "bad token ***",
        ),
    ] {
        let answer = reply(status, &[], &error(status, rpc, message, &details));
        assert_eq!(answer.code.as_deref(), Some(code));
        assert_eq!(answer.detail.as_deref(), Some(detail));
    }
    assert_eq!(reply(502, &[], GOOGLE_HTML.as_bytes()).code.as_deref(), Some("http_502"));
}
