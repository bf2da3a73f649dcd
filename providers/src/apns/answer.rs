//! What APNs' answer means: one table by reason, then one by HTTP status.
//!
//! The reason is believed before the status. A reason that is not listed
//! follows its status family and is marked unexpected; never does it make an
//! address gone, because that would let a slip of Apple's, or a proxy's, delete
//! a customer's users. What does not parse keeps its status and has no reason.
//!
//! `BadDeviceToken` says that a token is malformed *or of the other
//! environment*, which cannot be told apart: it comes out as [`AddressGone`],
//! and the router's mass guard decides whether that is believed. In the same
//! way a `410` is handed on with its timestamp in [`Answer::gone_at`], whatever
//! [`Address::registered_at`] says: an address that the app registered after
//! that moment is alive, and it is the router that compares them.
//!
//! A channel's answers are about its app's broadcasts where a device's would be
//! about the app or all of APNs: another host with quotas of its own gave them. A
//! refused credential is the same for both.
//!
//! Sources: Apple, "Handling notification responses from APNs", "Handling error
//! responses from Apple Push Notification service" (broadcast and channels).
//!
//! [`AddressGone`]: Outcome::AddressGone
//! [`Address::registered_at`]: crate::Address::registered_at

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::site::Target;
use crate::http::retry_after::{date, retry_after};
use crate::{Answer, Outcome, Part, Processed};

/// Apple takes a new provider token every 20 minutes.
const TOKEN_SPACING: Duration = Duration::from_secs(20 * 60);

/// Clocks that differ by more than this are named where a credential is refused.
const CLOCK_TOLERANCE_S: u64 = 60;

/// Apple's longest reason has 26 characters.
const LONGEST_REASON: usize = 64;

/// An answer as it came, and what the call knew.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply<'a> {
    pub(super) status: StatusCode,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
    pub(super) target: Target<'a>,
    /// The narrowest part of the address that has a name: its app, or its app's
    /// broadcasts; the provider where it has none.
    pub(super) part: &'a Part,
    /// Whether a newer provider token can be had than the one that was sent.
    pub(super) can_refresh: bool,
    /// The local wall clock, unix seconds.
    pub(super) now_s: u64,
}

/// What the call must do beside handing the answer on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Then {
    /// Nothing.
    #[default]
    Nothing,
    /// The connection is spoilt: open no further stream on it.
    Retire,
    /// Sign no provider token for 20 minutes.
    HoldTokens,
}

/// Classifies an answer.
pub(super) fn classify(reply: Reply<'_>) -> (Answer, Then) {
    let status = reply.status;
    if status.is_success() {
        let mut answer = Answer::new(Outcome::Accepted).status(status.as_u16());
        answer.vendor_id = vendor_id(reply.headers);
        return (answer, Then::Nothing);
    }
    let body: Value = serde_json::from_slice(reply.body).unwrap_or_default();
    let reason = body["reason"].as_str().filter(|reason| is_reason(reason)).unwrap_or("");
    let row = row_of(reason, status);
    let mut answer = Answer::new(row.outcome)
        .about(about(row, &reply))
        .status(status.as_u16())
        .processed(row.processed)
        .detail(&detail(row, reason, &reply))
        .proof(&String::from_utf8_lossy(reply.body));
    if !reason.is_empty() {
        answer = answer.code(reason);
    }
    answer.retry_after = retry_after(reply.headers, reply.now_s);
    answer.unexpected = row.mark == Mark::Alarm;
    if reason == "BadExpirationDate" && matches!(reply.target, Target::Channel(_)) {
        // Only Apple knows what the channel stores.
        answer.unexpected = false;
        answer = answer.detail("a channel without storage takes apns-expiration 0 alone");
    }
    match row.mark {
        Mark::Gone => answer.gone_at = body["timestamp"].as_u64(),
        Mark::Expired => {
            answer.refreshable = reply.can_refresh;
            answer.unexpected = !reply.can_refresh;
        }
        Mark::Then(Then::HoldTokens) => {
            let told = answer.retry_after.unwrap_or_default();
            answer.retry_after = Some(told.max(TOKEN_SPACING));
        }
        Mark::Plain | Mark::Alarm | Mark::Then(Then::Nothing | Then::Retire) => {}
    }
    let then = if let Mark::Then(then) = row.mark { then } else { Then::Nothing };
    (answer, then)
}

/// What a row's answer is about, for this target.
fn about(row: &Row, reply: &Reply<'_>) -> Part {
    let channel = matches!(reply.target, Target::Channel(_));
    let of_broadcasts = match row.outcome {
        Outcome::Unavailable | Outcome::Ambiguous => true,
        // Too many to a channel are too many of the app's broadcasts.
        Outcome::Throttled => row.mark != Mark::Then(Then::HoldTokens),
        Outcome::Accepted
        | Outcome::AddressGone
        | Outcome::MessageInvalid
        | Outcome::AuthFailed
        | Outcome::Misconfigured => false,
    };
    match row.about {
        About::Provider | About::Device if channel && of_broadcasts => reply.part.clone(),
        About::Provider => Part::Provider,
        About::Device => Part::Device,
        About::App => reply.part.clone(),
    }
}

/// A row of the table.
struct Row {
    reason: &'static str,
    outcome: Outcome,
    about: About,
    mark: Mark,
    processed: Processed,
    hint: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    Provider,
    Device,
    App,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Plain,
    /// Someone should look: undocumented, or prevented by our own checks.
    Alarm,
    /// The body may say since when.
    Gone,
    /// A renewed provider token may be taken; if none can be had, a clock is wrong.
    Expired,
    /// The call has something to do.
    Then(Then),
}

const fn row(
    reason: &'static str,
    outcome: Outcome,
    about: About,
    mark: Mark,
    processed: Processed,
    hint: &'static str,
) -> Row {
    Row { reason, outcome, about, mark, processed, hint }
}

#[rustfmt::skip]
static REASONS: &[Row] = {
    use About::{App, Device, Provider};
    use Mark::{Alarm, Expired, Gone, Plain, Then as Do};
    use Outcome::{AddressGone, AuthFailed, MessageInvalid, Misconfigured, Throttled, Unavailable};
    use Processed::{No, Yes};
    &[
        // 400
        row("BadDeviceToken", AddressGone, Device, Plain, Yes, "the token is malformed or of the other environment"),
        row("DeviceTokenNotForTopic", Misconfigured, Device, Plain, Yes, "the token belongs to another app"),
        row("MissingTopic", Misconfigured, App, Plain, Yes, "the app's bundle id is not set"),
        row("BadTopic", Misconfigured, App, Plain, Yes, "the app's bundle id is wrong"),
        row("TopicDisallowed", Misconfigured, App, Plain, Yes, "this credential may not send to the app"),
        row("BadCollapseId", MessageInvalid, Provider, Alarm, Yes, ""),
        row("BadExpirationDate", MessageInvalid, Provider, Alarm, Yes, ""),
        row("BadMessageId", MessageInvalid, Provider, Alarm, Yes, ""),
        row("BadPriority", MessageInvalid, Provider, Alarm, Yes, ""),
        row("InvalidPushType", MessageInvalid, Provider, Alarm, Yes, "see apns-push-type"),
        row("PayloadEmpty", MessageInvalid, Provider, Alarm, Yes, ""),
        row("DuplicateHeaders", MessageInvalid, Provider, Alarm, Yes, ""),
        row("MissingDeviceToken", MessageInvalid, Provider, Alarm, Yes, ""),
        row("IdleTimeout", Unavailable, Provider, Plain, No, "the connection was idle for too long"),
        // 403
        row("ExpiredProviderToken", AuthFailed, Provider, Expired, Yes, "the provider token was taken for older than an hour"),
        row("InvalidProviderToken", AuthFailed, Provider, Plain, Yes, "key, key_id and team_id do not fit, or the key is revoked"),
        row("MissingProviderToken", AuthFailed, Provider, Plain, Yes, "neither provider token nor certificate arrived"),
        row("BadCertificate", AuthFailed, Provider, Plain, Yes, ""),
        row("BadCertificateEnvironment", AuthFailed, Provider, Plain, Yes, "the certificate is for the other environment"),
        row("Forbidden", AuthFailed, Provider, Plain, Yes, ""),
        // The connection has seen another key before (Apple binds it at the first push).
        row("UnrelatedKeyIdInToken", Unavailable, Provider, Do(Then::Retire), No, "the connection was bound to another key"),
        row("BadEnvironmentKeyIdInToken", AuthFailed, Provider, Plain, Yes, "the key is for the other environment"),
        row("BadEnvironmentKeyInToken", AuthFailed, Provider, Plain, Yes, "the key is for the other environment"),
        // 404, 405
        row("BadPath", MessageInvalid, Provider, Alarm, Yes, ""),
        row("MethodNotAllowed", MessageInvalid, Provider, Alarm, Yes, ""),
        // 410
        row("Unregistered", AddressGone, Device, Gone, Yes, "the token is inactive for the app"),
        row("ExpiredToken", AddressGone, Device, Gone, Yes, "the token has expired"),
        // 413: the size was checked before sending.
        row("PayloadTooLarge", MessageInvalid, Provider, Alarm, Yes, ""),
        // 429
        row("TooManyRequests", Throttled, Device, Plain, Yes, "too many pushes to one device"),
        row("TooManyProviderTokenUpdates", Throttled, Provider, Do(Then::HoldTokens), Yes, "provider tokens were renewed too often"),
        // 500, 503
        row("InternalServerError", Unavailable, Provider, Plain, Yes, ""),
        row("ServiceUnavailable", Unavailable, Provider, Plain, Yes, ""),
        row("Shutdown", Unavailable, Provider, Plain, No, "this server is going down"),
        // Broadcast and channels.
        row("FeatureNotEnabled", Misconfigured, App, Plain, Yes, "broadcast is not enabled for the app"),
        row("TopicMismatch", Misconfigured, App, Plain, Yes, ""),
        row("CannotCreateChannelConfig", Misconfigured, App, Plain, Yes, "10,000 channels are there already"),
        row("ChannelNotRegistered", AddressGone, Device, Plain, Yes, "there is no such channel in this environment"),
        row("MissingChannelId", MessageInvalid, Provider, Alarm, Yes, ""),
        row("BadChannelId", MessageInvalid, Provider, Alarm, Yes, ""),
        row("BadRequestParams", MessageInvalid, Provider, Alarm, Yes, ""),
        row("BadRequestPayload", MessageInvalid, Provider, Alarm, Yes, ""),
        row("MissingPushType", MessageInvalid, Provider, Alarm, Yes, ""),
        row("MissingChannelQueueSize", MessageInvalid, Provider, Alarm, Yes, ""),
    ]
};

/// By status alone: not Apple's voice, or one of its words that is new to us.
fn row_of(reason: &str, status: StatusCode) -> &'static Row {
    use Outcome::{Ambiguous, AuthFailed, MessageInvalid, Throttled, Unavailable};
    static UNKNOWN_401_403: Row = other(AuthFailed, Mark::Alarm, Processed::Yes);
    static UNKNOWN_429: Row = other(Throttled, Mark::Alarm, Processed::Yes);
    static UNKNOWN_4XX: Row = other(MessageInvalid, Mark::Alarm, Processed::Yes);
    // A proxy that cannot know what became of the request.
    static GATEWAY: Row = other(Ambiguous, Mark::Plain, Processed::Maybe);
    // Also whatever is no error of HTTP at all: a redirect is no answer of Apple's.
    static UNKNOWN_REST: Row = other(Unavailable, Mark::Alarm, Processed::Yes);
    static SILENT_5XX: Row = other(Unavailable, Mark::Plain, Processed::Yes);

    let known = REASONS.iter().find(|row| row.reason == reason);
    match (known, status.as_u16()) {
        (Some(row), _) if row.outcome != Outcome::AddressGone || status.is_client_error() => row,
        (_, 401 | 403) => &UNKNOWN_401_403,
        (_, 429) => &UNKNOWN_429,
        (_, 400..=499) => &UNKNOWN_4XX,
        (_, 502 | 504) => &GATEWAY,
        (_, 500..=599) if reason.is_empty() => &SILENT_5XX,
        (_, _) => &UNKNOWN_REST,
    }
}

const fn other(outcome: Outcome, mark: Mark, processed: Processed) -> Row {
    row("", outcome, About::Provider, mark, processed, "")
}

/// A single word, so that nothing else of a body reaches records and logs.
fn is_reason(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= LONGEST_REASON
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-. ".contains(&b))
        // A device token that came back as a reason is no reason.
        && !(text.len() >= 32 && text.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn detail(row: &Row, reason: &str, reply: &Reply<'_>) -> String {
    let mut text = match (row.hint, reason) {
        ("", "") => format!("HTTP {} without a reason", reply.status.as_u16()),
        ("", reason) => reason.to_owned(),
        (hint, _) => hint.to_owned(),
    };
    let skew = date(reply.headers).map_or(0, |theirs| theirs.abs_diff(reply.now_s));
    if row.outcome == Outcome::AuthFailed && skew > CLOCK_TOLERANCE_S {
        text.push_str(&format!("; our clock and the vendor's differ by {skew} s"));
    }
    text
}

/// In the sandbox `apns-unique-id` names the push in Apple's delivery log;
/// `apns-id`, for broadcasts `apns-request-id`, is our own delivery id come back.
fn vendor_id(headers: &HeaderMap) -> Option<std::sync::Arc<str>> {
    let names = ["apns-unique-id", "apns-id", "apns-request-id"];
    let header = names.iter().find_map(|name| headers.get(*name))?;
    let text = header.to_str().ok()?;
    Some(text.get(..text.len().min(64))?.into())
}

#[cfg(test)]
mod tests;
