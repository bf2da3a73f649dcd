//! What an APNs device token asks for.
//!
//! A device token is hex, so the quirks that every vendor knows by a prefix are
//! that prefix in hex; `fa17` (no text begins so) and four digits ask for what
//! only APNs answers:
//!
//! | digits | |
//! |---|---|
//! | `0410` `1410` | 410 `Unregistered`, invalid since now, since long ago |
//! | `2410` | 410 `ExpiredToken`, without a time |
//! | `0400` `1400` | `BadDeviceToken`, `DeviceTokenNotForTopic` |
//! | `0429` `0500` `0503` | `TooManyRequests`, `InternalServerError`, `ServiceUnavailable` |
//! | `1503` | `Shutdown`, then GOAWAY |
//! | `0502` | 502 with HTML |
//! | `000a` | 400 with a reason that does not exist |
//! | `000b` | taken after as many milliseconds as the next four digits say |
//! | `000c` | taken, never answered |
//! | `000d` | taken, then the connection is closed |
//! | `000e` | `REFUSED_STREAM` |
//! | `000f` | GOAWAY below the stream |

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde::Deserialize;

use super::{Act, Answer, Call, Refusal, Verdict, html_answer, with_retry_after};
use crate::faults::Quirk;
use crate::ledger::Key;

/// What the text of a sandbox token begins with.
const SANDBOX: &str = "sandbox-";

/// Apple's two worlds: each has device tokens and channels of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Environment {
    Production,
    Sandbox,
}

impl Environment {
    /// The word in a key's file name.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Sandbox => "sandbox",
        }
    }
}

/// A status with Apple's word for it.
#[derive(Clone, Copy)]
pub(super) struct Reason(pub(super) u16, pub(super) &'static str);

impl Reason {
    pub(super) const INVALID_TOKEN: Self = Self(403, "InvalidProviderToken");
    const BAD_DEVICE_TOKEN: Self = Self(400, "BadDeviceToken");
    pub(super) const BAD_CHANNEL: Self = Self(400, "BadChannelId");
    pub(super) const NO_CHANNEL: Self = Self(400, "ChannelNotRegistered");

    pub(super) fn refusal(self) -> Refusal {
        Box::new(self.answer())
    }

    pub(super) fn answer(self) -> Answer {
        answer(self.0, format!("{{\"reason\":\"{}\"}}", self.1))
    }
}

fn answer(status: u16, body: String) -> Answer {
    let mut answer = Response::new(Bytes::from(body));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// 410; the timestamp is in milliseconds.
fn gone(reason: &str, timestamp: Option<u64>) -> Verdict {
    let timestamp = timestamp.map_or(String::new(), |ms| format!(",\"timestamp\":{ms}"));
    Verdict::refuse(answer(410, format!("{{\"reason\":\"{reason}\"{timestamp}}}")))
}

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow, default)]
    pushyard: Option<Cow<'a, str>>,
}

/// Judges a push that is well-formed but for its payload and its token.
pub(super) fn judge(
    call: &Call<'_>,
    environment: Environment,
    token: &str,
    id: &HeaderValue,
) -> Verdict {
    let refuse = |reason: Reason| Verdict::refuse(reason.answer());
    let Some(text) = Text::of(token) else {
        return refuse(Reason::BAD_DEVICE_TOKEN);
    };
    if token.bytes().all(|byte| byte == b'0') {
        // The address that health probes use: the answer shows that the service
        // is there and the credential is good.
        return Verdict { probe: true, ..refuse(Reason::BAD_DEVICE_TOKEN) };
    }
    let Ok(payload) = serde_json::from_slice::<Payload<'_>>(&call.body.bytes) else {
        // Not documented for device pushes; the reason that Apple names for
        // broadcasts whose payload it cannot read.
        return refuse(Reason(400, "BadRequestPayload"));
    };
    let key = match &payload.pushyard {
        Some(pushyard) => Key::of_pushyard(pushyard),
        None => Key::of(id.to_str().unwrap_or_default()),
    };
    if let Some(code) = Code::of(token) {
        return judge_code(code, key, (call.now_ms, environment));
    }
    // Apple does not tell a token of the other environment from a broken one.
    let wanted = match (environment, text.as_str().strip_prefix(SANDBOX)) {
        (Environment::Production, None) => text.as_str(),
        (Environment::Sandbox, Some(rest)) => rest,
        (Environment::Production, Some(_)) | (Environment::Sandbox, None) => {
            return refuse(Reason::BAD_DEVICE_TOKEN);
        }
    };
    match Quirk::of(wanted) {
        None => Verdict::take(key, accepted(environment)),
        Some(quirk) => {
            let gone = gone("Unregistered", Some(call.now_ms));
            of_quirk(quirk, key, gone, (Reason::BAD_DEVICE_TOKEN, environment))
        }
    }
}

/// What a quirk makes of a push; `gone` and `bad` are the answers about the
/// address itself.
pub(super) fn of_quirk(
    quirk: Quirk,
    key: Key,
    gone: Verdict,
    (bad, environment): (Reason, Environment),
) -> Verdict {
    let refuse = |reason: Reason| Verdict::refuse(reason.answer());
    match quirk {
        Quirk::Gone => gone,
        Quirk::Bad => refuse(bad),
        Quirk::Throttled { retry_after_s } => Verdict::refuse(with_retry_after(
            Reason(429, "TooManyRequests").answer(),
            retry_after_s,
        )),
        Quirk::Internal => refuse(Reason(500, "InternalServerError")),
        Quirk::Unavailable => refuse(Reason(503, "ServiceUnavailable")),
        Quirk::Unauthorised => refuse(Reason::INVALID_TOKEN),
        Quirk::Slow(delay) => Verdict::take(key, accepted(environment)).after(delay),
        Quirk::Hang => Verdict::take(key, Act::Silence),
        Quirk::Lost => Verdict::take(key, Act::Cut),
        Quirk::Reset => Verdict::end(Act::Reset),
        Quirk::Goaway => Verdict::end(Act::Goaway),
        Quirk::Html502 => Verdict::refuse(html_answer(StatusCode::BAD_GATEWAY)),
    }
}

/// Apple's name for a push in its delivery log, which the sandbox tells.
const UNIQUE_ID: HeaderName = HeaderName::from_static("apns-unique-id");

pub(super) fn accepted(environment: Environment) -> Act {
    let mut answer = Response::new(Bytes::new());
    if environment == Environment::Sandbox {
        let id = HeaderValue::from_str(&uuid::Uuid::now_v7().to_string())
            .expect("a UUID is hex digits and hyphens");
        answer.headers_mut().insert(UNIQUE_ID, id);
    }
    Act::Answer(answer)
}

fn judge_code(code: Code, key: Key, (now_ms, environment): (u64, Environment)) -> Verdict {
    let refuse = |status, reason| Verdict::refuse(Reason(status, reason).answer());
    match code.digits {
        0x0410 => gone("Unregistered", Some(now_ms)),
        // In 2001: before any registration that a test could make up.
        0x1410 => gone("Unregistered", Some(1_000_000_000_000)),
        0x2410 => gone("ExpiredToken", None),
        0x0400 => refuse(400, "BadDeviceToken"),
        0x1400 => refuse(400, "DeviceTokenNotForTopic"),
        0x0429 => refuse(429, "TooManyRequests"),
        0x0500 => refuse(500, "InternalServerError"),
        0x0503 => refuse(503, "ServiceUnavailable"),
        0x1503 => Verdict::end(Act::AnswerAndGoaway(
            Reason(503, "Shutdown").answer(),
            r#"{"reason":"Shutdown"}"#,
        )),
        0x0502 => Verdict::refuse(html_answer(StatusCode::BAD_GATEWAY)),
        0x000a => refuse(400, "NoReasonThatAppleKnows"),
        0x000b => Verdict::take(key, accepted(environment)).after(code.wait),
        0x000c => Verdict::take(key, Act::Silence),
        0x000d => Verdict::take(key, Act::Cut),
        0x000e => Verdict::end(Act::RefuseStream),
        0x000f => Verdict::end(Act::Goaway),
        _ => Verdict::take(key, accepted(environment)),
    }
}

/// `fa17` and what follows it.
#[derive(Clone, Copy)]
struct Code {
    digits: u16,
    wait: Duration,
}

impl Code {
    fn of(token: &str) -> Option<Self> {
        let (magic, rest) = token.split_at_checked(4)?;
        if !magic.eq_ignore_ascii_case("fa17") {
            return None;
        }
        let number = |text: Option<&str>| u16::from_str_radix(text?, 16).ok();
        Some(Self {
            digits: number(rest.get(..4))?,
            wait: Duration::from_millis(number(rest.get(4..8)).unwrap_or(0).into()),
        })
    }
}

/// The beginning of the text that a token spells in hex: as much as the sandbox's
/// mark and the longest quirk need, without allocating.
struct Text {
    bytes: [u8; 24],
    length: usize,
}

impl Text {
    /// `None` when the token is not hex or has an odd length.
    fn of(token: &str) -> Option<Self> {
        let token = token.as_bytes();
        if !token.len().is_multiple_of(2) || !token.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut text = Self { bytes: [0; 24], length: 0 };
        let value = |digit: u8| char::from(digit).to_digit(16).unwrap_or(0) as u8;
        for (slot, pair) in text.bytes.iter_mut().zip(token.chunks_exact(2)) {
            let byte = (value(pair[0]) << 4) | value(pair[1]);
            if !byte.is_ascii_graphic() {
                break;
            }
            *slot = byte;
            text.length += 1;
        }
        Some(text)
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_spell_text_in_hex() {
        assert_eq!(Text::of("676f6e652d31").unwrap().as_str(), "gone-1");
        assert_eq!(Text::of("fa170410").unwrap().as_str(), "");
        assert!(Text::of("abc").is_none());
        assert!(Text::of("zz").is_none());
    }

    #[test]
    fn code_has_a_wait_where_it_needs_one() {
        let code = Code::of("FA17000b00ff0000").unwrap();
        assert_eq!(code.digits, 0x000b);
        assert_eq!(code.wait, Duration::from_millis(255));
        assert!(Code::of("fa18000b").is_none());
        assert!(Code::of("fa17").is_none());
    }
}
