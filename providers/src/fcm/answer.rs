//! What FCM's answer means: one table, read from the top, first match wins.
//!
//! FCM speaks in three voices, and they are believed in this order: the typed
//! entries of `error.details` (recognised by the end of their `@type`, wherever
//! they stand), then `error.status` (a google.rpc name), then the HTTP status,
//! which is all that is left when a front end answers in HTML. On project quota
//! the front door sends ErrorInfo without FcmError, so neither may be required.
//! What is missing or unknown is never a parse failure.
//!
//! An address is given up only on words that say so of the address itself: a
//! 404 without FcmError is a wrong project or base URL, and taking it for dead
//! tokens would delete a customer's whole user base.
//!
//! Sources: Firebase, *ErrorCode*, *FCM error codes*, *FCM throttling and
//! quotas*, *Best practices when sending FCM messages at scale*; google.rpc,
//! *error_details.proto*, *code.proto*.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::http::retry_after::{LONGEST, retry_after};
use crate::{Answer, Outcome, Part, Processed};

/// Without a word of FCM's own, a throttled project or device is left alone for
/// this long (*FCM throttling and quotas*: "default to 60 seconds").
const DEFAULT_WAIT: Duration = Duration::from_secs(60);

/// An answer as it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply<'a> {
    pub(super) status: StatusCode,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
    /// The address that was sent to, so that it can be struck out should FCM repeat it.
    pub(super) address: &'a str,
    /// The local wall clock, unix seconds.
    pub(super) now_s: u64,
}

/// Classifies an answer.
pub(super) fn classify(reply: Reply<'_>) -> Answer {
    let status = reply.status.as_u16();
    let body: Option<Value> = serde_json::from_slice(reply.body).ok();
    if reply.status.is_success() {
        return success(body.as_ref()).status(status);
    }
    let seen = Seen::new(status, body.as_ref());
    let row = ROWS.iter().find(|row| (row.when)(&seen)).unwrap_or(&LAST);
    let mut answer = Answer::new(row.outcome)
        .about(match row.about {
            About::Provider => Part::Provider,
            About::Device => Part::Device,
        })
        .status(status)
        .code(&seen.code())
        .detail(&masked(&seen.detail(), reply.address))
        .proof(&masked(&String::from_utf8_lossy(reply.body), reply.address));
    if row.outcome == Outcome::Ambiguous {
        answer.processed = Processed::Maybe;
    }
    answer.refreshable = row.mark == Mark::Refreshable;
    answer.unexpected = row.mark == Mark::Alarm;
    let told = retry_after(reply.headers, reply.now_s).or(seen.retry_delay);
    answer.retry_after = match row.about {
        About::Provider if row.outcome == Outcome::Throttled => told.or(Some(DEFAULT_WAIT)),
        // The quota of a device refills by the minute, whatever the front door asks for.
        About::Device if row.outcome == Outcome::Throttled => {
            Some(told.unwrap_or_default().max(DEFAULT_WAIT))
        }
        About::Provider | About::Device => told,
    };
    answer
}

/// 2xx: taken, if it says under which name.
fn success(body: Option<&Value>) -> Answer {
    match body.and_then(|body| body.get("name")).and_then(Value::as_str) {
        Some(name) => {
            let mut answer = Answer::new(Outcome::Accepted);
            answer.vendor_id = Some(name.chars().take(200).collect::<String>().into());
            answer
        }
        None => Answer::new(Outcome::Ambiguous)
            .processed(Processed::Maybe)
            .code("unreadable")
            .detail("success without the name of a message"),
    }
}

/// A row of the table.
struct Row {
    when: fn(&Seen<'_>) -> bool,
    outcome: Outcome,
    about: About,
    mark: Mark,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    Provider,
    Device,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Plain,
    /// A new access token may mend it.
    Refreshable,
    /// Someone should look: undocumented, or prevented by our own checks.
    Alarm,
}

const fn row(when: fn(&Seen<'_>) -> bool, outcome: Outcome, about: About, mark: Mark) -> Row {
    Row { when, outcome, about, mark }
}

/// Any other 4xx, FcmError `UNSPECIFIED_ERROR`: never a reason to delete anything.
const LAST: Row = row(|_| true, Outcome::MessageInvalid, About::Provider, Mark::Alarm);

#[rustfmt::skip]
static ROWS: &[Row] = {
    use About::{Device, Provider};
    use Mark::{Alarm, Plain, Refreshable};
    use Outcome::{AddressGone, Ambiguous, AuthFailed, MessageInvalid, Misconfigured, Throttled, Unavailable};
    &[
        // ErrorCode: "App instance was unregistered from FCM"; also after 270 days without contact.
        row(|s| s.is_4xx() && s.fcm_is("UNREGISTERED"), AddressGone, Device, Plain),
        // Apple's word inside a 400 INVALID_ARGUMENT: "APNs device token is disabled".
        row(|s| s.apns_in(&["Unregistered", "ExpiredToken"]), AddressGone, Device, Plain),
        // Apple's key or the VAPID key stored in Firebase. Android addresses of the
        // project still work, and a token does not tell its platform.
        row(|s| s.fcm_is("THIRD_PARTY_AUTH_ERROR") || s.fcm_is("APNS_AUTH_ERROR"), Misconfigured, Device, Alarm),
        // The token belongs to another Firebase project.
        row(|s| s.fcm_is("SENDER_ID_MISMATCH"), Misconfigured, Device, Plain),
        // The project, or the base URL: no word of the address.
        row(|s| s.family() == 404, Misconfigured, Provider, Plain),
        // Sandbox and production, or bundle ids, mixed up in that installation.
        row(|s| s.apns_in(&["BadDeviceToken", "DeviceTokenNotForTopic"]), Misconfigured, Device, Plain),
        // Apple's limit for one device, which FCM passes on.
        row(|s| s.apns_in(&["TooManyRequests"]), Throttled, Device, Plain),
        // ErrorCode: "A required message payload or token is not valid": the address
        // only where the evidence is about nothing else.
        row(|s| s.family() == 400 && s.blames_address(), AddressGone, Device, Plain),
        row(|s| s.family() == 400 && s.is_known_invalid(), MessageInvalid, Provider, Plain),
        // INVALID_ARGUMENT without a known form, FAILED_PRECONDITION, OUT_OF_RANGE, HTML.
        row(|s| s.family() == 400, MessageInvalid, Provider, Alarm),
        // ErrorInfo ACCESS_TOKEN_EXPIRED, or any other UNAUTHENTICATED.
        row(|s| s.family() == 401, AuthFailed, Provider, Refreshable),
        // SERVICE_DISABLED, a missing right: no new token mends that.
        row(|s| s.family() == 403, AuthFailed, Provider, Plain),
        // "Message rate exceeded" for a device or a topic, as against the project.
        row(|s| s.family() == 429 && s.quota_of("device"), Throttled, Device, Plain),
        row(|s| s.family() == 429 && s.quota_of("topic"), Throttled, Device, Plain),
        row(|s| s.family() == 429, Throttled, Provider, Plain),
        // A gateway or a deadline on their side: it may have been sent.
        row(|s| s.rpc == Some("DEADLINE_EXCEEDED") || matches!(s.family(), 408 | 502 | 504), Ambiguous, Provider, Plain),
        // INTERNAL, UNAVAILABLE, and every other 5xx.
        row(|s| s.family() >= 500, Unavailable, Provider, Plain),
        // Redirects are not followed: what stands there is not FCM.
        row(|s| s.status < 400, Misconfigured, Provider, Alarm),
    ]
};

/// What an error's body shows, as far as it can be read.
#[derive(Default)]
struct Seen<'a> {
    status: u16,
    /// FcmError's `errorCode`.
    fcm: Option<&'a str>,
    /// ApnsError's `reason`.
    apns: Option<&'a str>,
    /// BadRequest's fields.
    fields: Vec<&'a str>,
    /// QuotaFailure's subjects and descriptions.
    quotas: Vec<&'a str>,
    /// ErrorInfo's `reason`.
    info: Option<&'a str>,
    /// RetryInfo's `retryDelay`.
    retry_delay: Option<Duration>,
    /// `error.status`.
    rpc: Option<&'a str>,
    message: &'a str,
}

impl<'a> Seen<'a> {
    fn new(status: u16, body: Option<&'a Value>) -> Self {
        let mut seen = Self { status, ..Self::default() };
        let Some(error) = body.and_then(|body| body.get("error")) else { return seen };
        seen.rpc = text(error, "status");
        seen.message = text(error, "message").unwrap_or_default();
        for detail in list(error, "details") {
            seen.note(detail);
        }
        seen
    }

    fn note(&mut self, detail: &'a Value) {
        let name = text(detail, "@type").unwrap_or_default();
        if name.ends_with("google.firebase.fcm.v1.FcmError") {
            self.fcm = text(detail, "errorCode");
        } else if name.ends_with("google.firebase.fcm.v1.ApnsError") {
            self.apns = text(detail, "reason");
        } else if name.ends_with("google.rpc.BadRequest") {
            self.fields.extend(list(detail, "fieldViolations").filter_map(|v| text(v, "field")));
        } else if name.ends_with("google.rpc.QuotaFailure") {
            for violation in list(detail, "violations") {
                self.quotas.extend(text(violation, "subject"));
                self.quotas.extend(text(violation, "description"));
            }
        } else if name.ends_with("google.rpc.ErrorInfo") {
            self.info = text(detail, "reason");
        } else if name.ends_with("google.rpc.RetryInfo") {
            self.retry_delay = text(detail, "retryDelay").and_then(seconds);
        }
    }

    fn is_4xx(&self) -> bool {
        (400..500).contains(&self.status)
    }

    fn fcm_is(&self, code: &str) -> bool {
        self.fcm == Some(code)
    }

    fn apns_in(&self, reasons: &[&str]) -> bool {
        self.apns.is_some_and(|reason| reasons.contains(&reason))
    }

    /// The HTTP status that FcmError, or else `error.status`, stands for
    /// (*ErrorCode*; google.rpc *code.proto*); the real one where neither is known.
    fn family(&self) -> u16 {
        let of_fcm = self.fcm.and_then(|code| match code {
            "INVALID_ARGUMENT" => Some(400),
            "QUOTA_EXCEEDED" => Some(429),
            "INTERNAL" => Some(500),
            "UNAVAILABLE" => Some(503),
            _ => None,
        });
        let of_rpc = self.rpc.and_then(|name| match name {
            "INVALID_ARGUMENT" | "FAILED_PRECONDITION" | "OUT_OF_RANGE" => Some(400),
            "UNAUTHENTICATED" => Some(401),
            "PERMISSION_DENIED" => Some(403),
            "NOT_FOUND" => Some(404),
            "RESOURCE_EXHAUSTED" => Some(429),
            "INTERNAL" => Some(500),
            "UNAVAILABLE" => Some(503),
            "DEADLINE_EXCEEDED" => Some(504),
            _ => None,
        });
        of_fcm.or(of_rpc).unwrap_or(self.status)
    }

    /// Whether a 400 is about the address and nothing else. The text is no
    /// contract, so it is matched loosely, and only under INVALID_ARGUMENT.
    fn blames_address(&self) -> bool {
        if !self.fields.is_empty() {
            let address = ["message.token", "message.fid"];
            return self.fields.iter().all(|field| address.contains(field));
        }
        let text = self.message.to_ascii_lowercase();
        let invalid = self.fcm_is("INVALID_ARGUMENT") || self.rpc == Some("INVALID_ARGUMENT");
        invalid
            && self.apns.is_none()
            && text.contains("registration token")
            && (text.contains("not valid")
                || text.contains("not a valid")
                || text.contains("invalid"))
    }

    /// An INVALID_ARGUMENT that says what it means.
    fn is_known_invalid(&self) -> bool {
        !self.fields.is_empty() || self.apns.is_some()
    }

    /// Whether the quota that is used up is that of a device or a topic. Whole
    /// words count, and a project's name does not: it may be anything.
    fn quota_of(&self, what: &str) -> bool {
        let names = |text: &str| {
            let told = text.split("consumer").next().unwrap_or_default();
            let mut words = told.split(|c: char| !c.is_ascii_alphanumeric());
            !told.starts_with("project") && words.any(|word| word.eq_ignore_ascii_case(what))
        };
        self.quotas.iter().any(|text| names(text)) || names(self.message)
    }

    /// The most telling of the codes.
    fn code(&self) -> String {
        let known = self.fcm.or(self.info).or(self.rpc);
        known.map_or_else(|| format!("http_{}", self.status), str::to_owned)
    }

    /// A line for people: what Apple said, which fields, and Google's own words,
    /// as far as they do not repeat the payload.
    fn detail(&self) -> String {
        let mut parts = Vec::new();
        if let Some(reason) = self.apns {
            parts.push(format!("APNs says {reason}"));
        }
        if !self.fields.is_empty() {
            parts.push(format!("refused: {}", self.fields.join(", ")));
        }
        if !self.message.is_empty() {
            parts.push(without_value(self.message).to_owned());
        }
        parts.join("; ")
    }
}

fn masked(detail: &str, address: &str) -> String {
    if address.is_empty() { detail.to_owned() } else { detail.replace(address, "***") }
}

/// "Invalid value at 'message.data[0].value' (TYPE_STRING), 12345": Google
/// repeats the value, which is content, behind the parenthesis.
fn without_value(message: &str) -> &str {
    match message.find("Invalid value") {
        Some(_) => message.split_inclusive(')').next().unwrap_or_default(),
        None => message,
    }
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// A protobuf duration in JSON: `"30s"`, `"1.5s"`.
fn seconds(text: &str) -> Option<Duration> {
    let seconds = text.strip_suffix('s')?.parse::<f64>().ok()?;
    Duration::try_from_secs_f64(seconds).ok().map(|wait| wait.min(LONGEST))
}

#[cfg(test)]
mod tests;
