//! FCM's error answers, in the forms that Google's front door and FCM itself
//! give them: `error.status` is the name of `google.rpc`, FCM's own word is in a
//! typed detail, and some errors have only the details of the front door.
//!
//! Sources: Firebase documentation, "ErrorCode" and "FCM error codes"; forms as
//! reported in firebase/firebase-admin-go issue 719 (quota) and
//! olucurious/PyFCM issue 334 (401).

use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::fcm_message;
use super::{Answer, html_answer, json_answer, with_retry_after};
use crate::clock;

/// An error with its details.
fn error(status: u16, name: &str, message: &str, details: &[Value]) -> Answer {
    let mut error = json!({"code": status, "message": message, "status": name});
    if !details.is_empty() {
        error["details"] = details.into();
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json_answer(status, format!("{:#}\n", json!({"error": error})))
}

fn fcm_error(code: &str) -> Value {
    json!({"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code})
}

fn apns_error(status: u16, reason: &str) -> Value {
    json!({"@type": "type.googleapis.com/google.firebase.fcm.v1.ApnsError",
           "statusCode": status, "reason": reason})
}

fn error_info(reason: &str, metadata: &Value) -> Value {
    json!({"@type": "type.googleapis.com/google.rpc.ErrorInfo",
           "reason": reason, "domain": "googleapis.com", "metadata": metadata})
}

fn bad_request(violations: &[(String, String)]) -> Value {
    let violations: Vec<_> = violations
        .iter()
        .map(|(field, description)| json!({"field": field, "description": description}))
        .collect();
    json!({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations})
}

/// A body that FCM does not take.
pub(super) fn invalid(fault: fcm_message::Fault) -> Answer {
    const NAME: &str = "INVALID_ARGUMENT";
    match fault {
        fcm_message::Fault::Syntax(text) => {
            let message = format!("Invalid JSON payload received. {text}");
            error(400, NAME, &message, &[])
        }
        fcm_message::Fault::Shape(violations) => {
            let violations: Vec<_> = violations
                .into_iter()
                .map(|violation| (violation.field, violation.description))
                .collect();
            let message = violations
                .iter()
                .map(|(_, description)| description.as_str())
                .collect::<Vec<_>>()
                .join("\n");
            error(400, NAME, &message, &[bad_request(&violations)])
        }
        fcm_message::Fault::Size(limit) => {
            let message = format!(
                "Message is too big: the payload may have {limit} bytes of keys and values."
            );
            error(400, NAME, &message, &[fcm_error(NAME)])
        }
    }
}

/// A target that is no registration token.
pub(super) fn bad_token() -> Answer {
    let text = "The registration token is not a valid FCM registration token";
    let violation = ("message.token".to_owned(), text.to_owned());
    error(
        400,
        "INVALID_ARGUMENT",
        text,
        &[fcm_error("INVALID_ARGUMENT"), bad_request(&[violation])],
    )
}

pub(super) fn unregistered() -> Answer {
    error(404, "NOT_FOUND", "Requested entity was not found.", &[fcm_error("UNREGISTERED")])
}

/// A dead token of Apple's, hidden in a 400.
pub(super) fn apns_gone() -> Answer {
    error(
        400,
        "INVALID_ARGUMENT",
        "APNs device token is disabled.",
        &[fcm_error("INVALID_ARGUMENT"), apns_error(410, "Unregistered")],
    )
}

pub(super) fn sender_mismatch() -> Answer {
    error(403, "PERMISSION_DENIED", "SenderId mismatch", &[fcm_error("SENDER_ID_MISMATCH")])
}

/// The Apple key that is stored in Firebase is bad.
pub(super) fn third_party() -> Answer {
    error(
        401,
        "UNAUTHENTICATED",
        "Auth error from APNS or Web Push Service",
        &[apns_error(403, "InvalidProviderToken"), fcm_error("THIRD_PARTY_AUTH_ERROR")],
    )
}

/// The bearer is unknown or has expired.
pub(super) fn unauthenticated() -> Answer {
    let mut answer = error(
        401,
        "UNAUTHENTICATED",
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login \
         cookie or other valid authentication credential.",
        &[error_info(
            "ACCESS_TOKEN_EXPIRED",
            &json!({"service": "fcm.googleapis.com",
                    "method": "google.firebase.fcm.v1.FcmService.SendMessage"}),
        )],
    );
    answer.headers_mut().insert(
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static("Bearer realm=\"https://accounts.google.com/\""),
    );
    answer
}

/// There is no such project: 404 without a word of FCM's.
pub(super) fn no_project() -> Answer {
    error(404, "NOT_FOUND", "Requested entity was not found.", &[])
}

/// The path is none of the API's.
pub(super) fn no_path() -> Answer {
    html_answer(StatusCode::NOT_FOUND)
}

/// The quota of the message's own target, as the error reference describes it.
pub(super) fn quota_exceeded(retry_after_s: Option<u64>) -> Answer {
    let answer =
        error(429, "RESOURCE_EXHAUSTED", "Quota exceeded.", &[fcm_error("QUOTA_EXCEEDED")]);
    with_retry_after(answer, retry_after_s)
}

/// The same, with a date in place of the seconds.
pub(super) fn quota_exceeded_until(unix_ms: u64) -> Answer {
    let mut answer = quota_exceeded(None);
    let date = HeaderValue::from_str(&clock::http_date(unix_ms));
    answer.headers_mut().insert(header::RETRY_AFTER, date.expect("an HTTP date is plain ASCII"));
    answer
}

/// One device gets too many.
pub(super) fn device_quota(token: &str) -> Answer {
    let violation = json!({"subject": format!("device:{token}"),
        "description": "Message rate exceeded for this device: DeviceMessageRateExceeded"});
    error(
        429,
        "RESOURCE_EXHAUSTED",
        "Device message rate exceeded.",
        &[
            fcm_error("QUOTA_EXCEEDED"),
            json!({"@type": "type.googleapis.com/google.rpc.QuotaFailure",
                   "violations": [violation]}),
        ],
    )
}

/// The project sends too much: the front door's answer, without FCM's word.
pub(super) fn project_quota(retry_after_s: Option<u64>) -> Answer {
    let answer = error(
        429,
        "RESOURCE_EXHAUSTED",
        "Quota exceeded for quota metric 'Send requests' and limit 'Send requests per minute' of \
         service 'fcm.googleapis.com' for consumer 'projects/simulated-project'.",
        &[error_info(
            "RATE_LIMIT_EXCEEDED",
            &json!({"service": "fcm.googleapis.com",
                    "quota_metric": "fcm.googleapis.com/send_requests",
                    "quota_limit": "SendsPerMinutePerProject",
                    "quota_limit_value": "600000",
                    "consumer": "projects/simulated-project"}),
        )],
    );
    with_retry_after(answer, retry_after_s)
}

/// A fault of the server, by its status; 403: the API is not enabled.
pub(super) fn failing(status: StatusCode, retry_after_s: Option<u64>) -> Answer {
    let answer = match status.as_u16() {
        403 => error(
            403,
            "PERMISSION_DENIED",
            "Firebase Cloud Messaging API has not been used in project simulated-project before or \
             it is disabled.",
            &[error_info(
                "SERVICE_DISABLED",
                &json!({"service": "fcm.googleapis.com", "consumer": "projects/simulated-project"}),
            )],
        ),
        500 => error(500, "INTERNAL", "Internal error encountered.", &[fcm_error("INTERNAL")]),
        503 => error(
            503,
            "UNAVAILABLE",
            "The service is currently unavailable.",
            &[fcm_error("UNAVAILABLE")],
        ),
        504 => error(
            504,
            "DEADLINE_EXCEEDED",
            "Deadline expired before operation could complete.",
            &[],
        ),
        // The front end's.
        _ => html_answer(status),
    };
    with_retry_after(answer, retry_after_s)
}
