//! The headers of an APNs request, and the size of its payload: what Apple
//! documents as an error, and no more. A push type that does not suit its topic
//! is *not* an error there ("may be delayed or dropped"), so it is none here.
//!
//! Source: APNs documentation, "Sending notification requests to APNs".

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::Call;
use super::apns_device::Reason;

pub(super) const APNS_ID: HeaderName = HeaderName::from_static("apns-id");
pub(super) const PUSH_TYPE: HeaderName = HeaderName::from_static("apns-push-type");
pub(super) const TOPIC: HeaderName = HeaderName::from_static("apns-topic");
pub(super) const PRIORITY: HeaderName = HeaderName::from_static("apns-priority");
pub(super) const EXPIRATION: HeaderName = HeaderName::from_static("apns-expiration");
const COLLAPSE_ID: HeaderName = HeaderName::from_static("apns-collapse-id");

/// Headers that may stand once.
const SINGLE: [HeaderName; 7] =
    [header::AUTHORIZATION, APNS_ID, PUSH_TYPE, TOPIC, PRIORITY, EXPIRATION, COLLAPSE_ID];

const PUSH_TYPES: [&str; 11] = [
    "alert",
    "background",
    "voip",
    "complication",
    "fileprovider",
    "mdm",
    "location",
    "liveactivity",
    "pushtotalk",
    "widgets",
    "controls",
];

/// Who sends: what the topic is held against.
pub(super) enum Sender<'a> {
    /// By token: the account owns these topics; none named means all.
    Token(&'a [String]),
    /// By certificate: it has one topic, and those below it.
    Certificate(&'a str),
}

/// The first fault of the headers or of the payload's size.
pub(super) fn check(sender: &Sender<'_>, call: &Call<'_>) -> Result<(), Reason> {
    let headers = &call.head.headers;
    check_repeated(headers)?;
    if let Some(id) = headers.get(APNS_ID)
        && !is_uuid(id.as_bytes())
    {
        return Err(Reason(400, "BadMessageId"));
    }
    let push_type = check_push_type(headers, sender)?;
    check_topic(headers, sender)?;
    check_priority(headers, push_type)?;
    if let Some(value) = headers.get(EXPIRATION)
        && text(value).is_none_or(|text| text.parse::<u64>().is_err())
    {
        return Err(Reason(400, "BadExpirationDate"));
    }
    if let Some(value) = headers.get(COLLAPSE_ID)
        && !(1..=64).contains(&value.len())
    {
        return Err(Reason(400, "BadCollapseId"));
    }
    let limit = if push_type == Some("voip") { 5120 } else { 4096 };
    match call.body.length {
        0 => Err(Reason(400, "PayloadEmpty")),
        length if length > limit => Err(Reason(413, "PayloadTooLarge")),
        _ => Ok(()),
    }
}

fn check_repeated(headers: &HeaderMap) -> Result<(), Reason> {
    // Equal counts mean that no name at all stands twice.
    let repeated = headers.len() != headers.keys_len()
        && SINGLE.iter().any(|name| headers.get_all(name).iter().nth(1).is_some());
    if repeated {
        return Err(Reason(400, "DuplicateHeaders"));
    }
    Ok(())
}

fn check_push_type<'h>(
    headers: &'h HeaderMap,
    sender: &Sender<'_>,
) -> Result<Option<&'h str>, Reason> {
    let Some(value) = headers.get(PUSH_TYPE) else {
        return Ok(None);
    };
    let push_type = text(value).filter(|text| PUSH_TYPES.contains(text));
    // Location pushes need token authentication.
    let needs_token = push_type == Some("location") && matches!(sender, Sender::Certificate(_));
    if push_type.is_none() || needs_token {
        return Err(Reason(400, "InvalidPushType"));
    }
    Ok(push_type)
}

fn check_topic(headers: &HeaderMap, sender: &Sender<'_>) -> Result<(), Reason> {
    let Some(value) = headers.get(TOPIC) else {
        return match sender {
            // Without a header the certificate's subject is the topic.
            Sender::Certificate(_) => Ok(()),
            Sender::Token(_) => Err(Reason(400, "MissingTopic")),
        };
    };
    let topic = text(value)
        .filter(|topic| !topic.is_empty() && !topic.contains(char::is_whitespace))
        .ok_or(Reason(400, "BadTopic"))?;
    let is_of = |bundle: &str| {
        topic
            .strip_prefix(bundle)
            .is_some_and(|suffix| suffix.is_empty() || suffix.starts_with('.'))
    };
    let allowed = match sender {
        Sender::Certificate(bundle) => is_of(bundle),
        Sender::Token(bundles) => bundles.is_empty() || bundles.iter().any(|b| is_of(b)),
    };
    allowed.then_some(()).ok_or(Reason(400, "TopicDisallowed"))
}

fn check_priority(headers: &HeaderMap, push_type: Option<&str>) -> Result<(), Reason> {
    match headers.get(PRIORITY).map(HeaderValue::as_bytes) {
        None | Some(b"5" | b"1") => Ok(()),
        // "Using priority 10 is an error" for what stays in the background.
        Some(b"10") if push_type != Some("background") => Ok(()),
        Some(_) => Err(Reason(400, "BadPriority")),
    }
}

/// The sender's id, under whichever name, or one that is made for it.
pub(super) fn sent_id(headers: &HeaderMap, name: &HeaderName) -> HeaderValue {
    match headers.get(name) {
        Some(id) if is_uuid(id.as_bytes()) => id.clone(),
        _ => HeaderValue::from_str(&uuid::Uuid::now_v7().to_string())
            .expect("a UUID is hex digits and hyphens"),
    }
}

/// 8-4-4-4-12 hex digits.
pub(super) fn is_uuid(text: &[u8]) -> bool {
    text.len() == 36
        && text.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::vendor::Body;

    /// Checks a good push that differs in one header.
    fn checked(name: &str, value: &str, length: usize) -> Result<(), &'static str> {
        let good = [
            ("apns-topic", "com.example.app"),
            ("apns-push-type", "alert"),
            ("apns-priority", "10"),
        ];
        let mut request = http::Request::new(());
        for (good_name, good_value) in good {
            request.headers_mut().insert(good_name, HeaderValue::from_static(good_value));
        }
        let name = HeaderName::try_from(name).unwrap();
        request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
        let body = Body { bytes: Bytes::new(), length };
        let (head, ()) = request.into_parts();
        let call = Call { head: &head, body: &body, now_ms: 0 };
        let topics = ["com.example.app".to_owned()];
        check(&Sender::Token(&topics), &call).map_err(|reason| reason.1)
    }

    #[test]
    fn documented_faults_have_their_reasons() {
        let long = "é".repeat(33);
        let table = [
            ("apns-id", "01970000-0000-7000-8000-00000000000a", Ok(())),
            ("apns-id", "019700000000-7000-8000-00000000000a", Err("BadMessageId")),
            ("apns-push-type", "liveactivity", Ok(())),
            ("apns-push-type", "shout", Err("InvalidPushType")),
            ("apns-push-type", "background", Err("BadPriority")),
            ("apns-topic", "com.example.app.voip", Ok(())),
            ("apns-topic", "", Err("BadTopic")),
            ("apns-topic", "com.example.apple", Err("TopicDisallowed")),
            ("apns-priority", "5", Ok(())),
            ("apns-priority", "7", Err("BadPriority")),
            ("apns-expiration", "0", Ok(())),
            ("apns-expiration", "-1", Err("BadExpirationDate")),
            ("apns-expiration", "soon", Err("BadExpirationDate")),
            ("apns-collapse-id", "order-7", Ok(())),
            ("apns-collapse-id", &long, Err("BadCollapseId")),
        ];
        for (name, value, expected) in table {
            assert_eq!(checked(name, value, 10), expected, "{name}: {value}");
        }
    }

    #[test]
    fn payload_limit_depends_on_the_type() {
        let table = [
            ("alert", 4096, Ok(())),
            ("alert", 4097, Err("PayloadTooLarge")),
            ("voip", 5120, Ok(())),
            ("voip", 5121, Err("PayloadTooLarge")),
            ("alert", 0, Err("PayloadEmpty")),
        ];
        for (push_type, length, expected) in table {
            assert_eq!(checked("apns-push-type", push_type, length), expected);
        }
    }
}
