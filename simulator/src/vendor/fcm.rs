//! FCM: `POST /v1/projects/{project}/messages:send`, and the token endpoint on
//! the same origin.
//!
//! The order of the checks is that of Google's front door: credential, project,
//! body, quota, and only then the target. A dry run (`validate_only`) passes all
//! of them and is counted as a probe; it never enters the ledger.
//!
//! Sources: Firebase documentation, "Method: projects.messages.send", "FCM error
//! codes", "FCM throttling and quotas".

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header, request};
use rustls_pki_types::CertificateDer;
use tokio::time::Instant;

use super::oauth::OAuth;
use super::{
    Act, Answer, Call, Excess, Fault, Refusal, Streams, Vendor, Verdict, bearer, fcm_answer,
    fcm_message, html_answer, json_answer,
};
use crate::clock;
use crate::faults::{Quirk, numbered};
use crate::identity;
use crate::ledger::{Key, lock};
use crate::server::manners::Rules;
use crate::station::{Station, Window};

/// Where the token endpoint is.
pub(crate) const TOKEN_PATH: &str = "/token";
/// Where a machine's own tokens are; on Google's machines this is a host of its own.
const METADATA_PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/token";

const MINUTE: Duration = Duration::from_secs(60);

/// The vendor.
pub(crate) struct Fcm {
    station: Arc<Station>,
    oauth: OAuth,
    max_streams: u32,
    quota_per_minute: Option<u32>,
    minute: Window,
    ramp: Option<(u32, Mutex<Ramp>)>,
    device_per_minute: Option<u32>,
    devices: Mutex<Devices>,
    rules: Rules,
    /// Makes message names unique.
    sent: AtomicU64,
}

/// What each device got in the present minute, by a hash of its token.
#[derive(Default)]
struct Devices {
    began: Option<Instant>,
    counts: HashMap<u64, u32, RandomState>,
}

impl Devices {
    /// Whether one more fits the limit.
    fn take(&mut self, device: &str, limit: u32, now: Instant) -> bool {
        if self.began.is_none_or(|began| now.duration_since(began) >= MINUTE) {
            self.began = Some(now);
            self.counts.clear();
        }
        let device = self.counts.hasher().hash_one(device);
        let count = self.counts.entry(device).or_default();
        *count = count.saturating_add(1);
        *count <= limit
    }
}

/// How much was sent in this second and in the one before.
#[derive(Default)]
struct Ramp {
    began: Option<Instant>,
    now: u32,
    before: u32,
}

impl Ramp {
    /// Whether one more is no steeper than so many a second more than before.
    fn take(&mut self, slope: u32, now: Instant) -> bool {
        match self.began.map(|began| now.saturating_duration_since(began).as_secs()) {
            Some(0) => {}
            passed => {
                self.before = if passed == Some(1) { self.now } else { 0 };
                self.began = Some(now);
                self.now = 0;
            }
        }
        let fits = self.now < self.before.saturating_add(slope);
        self.now += u32::from(fits);
        fits
    }
}

/// What is remembered of one connection: the last credential that was good, so
/// that the next request costs a comparison.
#[derive(Default)]
pub(crate) struct Session {
    last: Option<(HeaderValue, u64)>,
}

impl Fcm {
    pub(crate) fn new(station: Arc<Station>, oauth: OAuth, settings: &crate::Settings) -> Self {
        Self {
            station,
            oauth,
            max_streams: settings.fcm_max_streams,
            quota_per_minute: settings.fcm_quota_per_minute,
            minute: Window::new(MINUTE),
            ramp: settings.fcm_ramp_per_second.map(|slope| (slope, Mutex::default())),
            device_per_minute: settings.fcm_device_per_minute,
            devices: Mutex::default(),
            rules: Rules {
                idle: Some((settings.fcm_idle, "session_timed_out")),
                pings: Some((settings.fcm_ping_spacing, "too_many_pings")),
                farewell: "",
            },
            sent: AtomicU64::new(0),
        }
    }

    fn judge_message(&self, call: &Call<'_>) -> Verdict {
        if call.body.length > call.body.bytes.len() {
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            return Verdict::refuse(html_answer(status));
        }
        let message = match fcm_message::read(&call.body.bytes) {
            Ok(message) => message,
            Err(fault) => return Verdict::refuse(fcm_answer::invalid(fault)),
        };
        // Whether dry runs use up quota is not documented; assume that they do.
        if let Some(quota) = self.quota_per_minute
            && !self.minute.take(quota, clock::instant())
        {
            return Verdict::refuse(fcm_answer::project_quota(None));
        }
        if let Some((slope, ramp)) = &self.ramp
            && !lock(ramp).take(*slope, clock::instant())
        {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return Verdict::refuse(fcm_answer::failing(status, None));
        }
        let name = self.name(call.now_ms);
        if message.validate_only {
            return judge_dry_run(&message.target, &name, call.now_ms);
        }
        if let Some(limit) = self.device_per_minute
            && message.is_device
            && !lock(&self.devices).take(&message.target, limit, clock::instant())
        {
            return Verdict::refuse(fcm_answer::device_quota(&message.target));
        }
        let key = message.key.unwrap_or_else(|| Key::Text(name.clone()));
        judge_target(&message.target, key, &name, call.now_ms)
    }

    fn name(&self, now_ms: u64) -> String {
        let n = self.sent.fetch_add(1, Relaxed);
        format!("projects/{}/messages/0:{now_ms}%{n:016x}", identity::PROJECT)
    }
}

impl Vendor for Fcm {
    type Session = Session;

    fn session(&self, _certificate: Option<&CertificateDer<'_>>) -> Session {
        Session::default()
    }

    fn front(&self) -> &Arc<Station> {
        &self.station
    }

    fn station(&self, path: &str) -> &Arc<Station> {
        if is_tokens(path) { &self.oauth.station } else { &self.station }
    }

    fn streams(&self, _session: &Session) -> Streams {
        Streams {
            at_first: self.max_streams,
            proven: self.max_streams,
            relapses: false,
            excess: Excess::Goaway("exceeded_max_concurrent_streams"),
        }
    }

    fn manners(&self) -> Rules {
        self.rules
    }

    fn authenticate(
        &self,
        session: &mut Session,
        head: &request::Parts,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        if is_tokens(head.uri.path()) {
            return Ok(());
        }
        let value = head
            .headers
            .get(header::AUTHORIZATION)
            .ok_or_else(|| Box::new(fcm_answer::unauthenticated()))?;
        if let Some((last, expiry)) = &session.last
            && last == value
            && *expiry > now_ms
        {
            return Ok(());
        }
        let expiry = bearer(value)
            .and_then(|token| self.oauth.expiry_ms(token))
            .filter(|expiry| *expiry > now_ms)
            .ok_or_else(|| Box::new(fcm_answer::unauthenticated()))?;
        session.last = Some((value.clone(), expiry));
        Ok(())
    }

    fn judge(
        &self,
        _session: &Session,
        call: Call<'_>,
        authenticated: Result<(), Refusal>,
    ) -> Verdict {
        let path = call.head.uri.path();
        if path == TOKEN_PATH {
            return self.oauth.judge(&call);
        }
        if path == METADATA_PATH {
            return self.oauth.judge_metadata(&call);
        }
        let project = path
            .strip_prefix("/v1/projects/")
            .and_then(|rest| rest.strip_suffix("/messages:send"))
            .filter(|project| !project.is_empty() && !project.contains('/'));
        let Some(project) = project else {
            return Verdict::refuse(fcm_answer::no_path());
        };
        if call.head.method != Method::POST {
            return Verdict::refuse(html_answer(StatusCode::METHOD_NOT_ALLOWED));
        }
        if let Err(answer) = authenticated {
            return Verdict::refuse(*answer);
        }
        if project != identity::PROJECT {
            return Verdict::refuse(fcm_answer::no_project());
        }
        self.judge_message(&call)
    }

    fn is_dry_run(&self, body: &super::Body) -> bool {
        fcm_message::read(&body.bytes).is_ok_and(|message| message.validate_only)
    }

    fn fault(&self, fault: Fault, head: &request::Parts, _now_ms: u64) -> Answer {
        if is_tokens(head.uri.path()) {
            return OAuth::fault(fault, head);
        }
        match fault {
            Fault::Failing(status, retry_after_s) => fcm_answer::failing(status, retry_after_s),
            Fault::Throttling(retry_after_s) => fcm_answer::project_quota(retry_after_s),
            Fault::Unauthorised => fcm_answer::unauthenticated(),
        }
    }
}

/// Whether a path of this origin is about access tokens.
fn is_tokens(path: &str) -> bool {
    path == TOKEN_PATH || path == METADATA_PATH
}

fn accepted(name: &str) -> Answer {
    json_answer(StatusCode::OK, format!("{{\"name\":\"{name}\"}}\n"))
}

/// A dry run is answered as the push would be, but nothing is taken.
fn judge_dry_run(target: &str, name: &str, now_ms: u64) -> Verdict {
    let real = judge_target(target, Key::Id(0), name, now_ms);
    match real.act {
        Act::Answer(answer) if real.take.is_some() => Verdict::probe(answer).after(real.delay),
        act => Verdict { probe: true, ..Verdict::end(act) },
    }
}

/// What the target asks for.
fn judge_target(target: &str, key: Key, name: &str, now_ms: u64) -> Verdict {
    if let Some(special) = target.strip_prefix("sim-") {
        return judge_special(special, target, key, name, now_ms);
    }
    match Quirk::of(target) {
        None => Verdict::take(key, Act::Answer(accepted(name))),
        Some(Quirk::Gone) => Verdict::refuse(fcm_answer::unregistered()),
        Some(Quirk::Bad) => Verdict::refuse(fcm_answer::bad_token()),
        Some(Quirk::Throttled { retry_after_s }) => {
            Verdict::refuse(fcm_answer::quota_exceeded(retry_after_s))
        }
        Some(Quirk::Internal) => {
            Verdict::refuse(fcm_answer::failing(StatusCode::INTERNAL_SERVER_ERROR, None))
        }
        Some(Quirk::Unavailable) => {
            Verdict::refuse(fcm_answer::failing(StatusCode::SERVICE_UNAVAILABLE, None))
        }
        Some(Quirk::Unauthorised) => Verdict::refuse(fcm_answer::unauthenticated()),
        Some(Quirk::Slow(delay)) => Verdict::take(key, Act::Answer(accepted(name))).after(delay),
        Some(Quirk::Hang) => Verdict::take(key, Act::Silence),
        Some(Quirk::Lost) => Verdict::take(key, Act::Cut),
        Some(Quirk::Reset) => Verdict::end(Act::Reset),
        Some(Quirk::Goaway) => Verdict::end(Act::Goaway),
        Some(Quirk::Html502) => Verdict::refuse(html_answer(StatusCode::BAD_GATEWAY)),
    }
}

/// The answers that only FCM gives, by what follows `sim-`.
fn judge_special(special: &str, target: &str, key: Key, name: &str, now_ms: u64) -> Verdict {
    const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
    let word = special
        .strip_prefix("quota-device-")
        .map(|_| "quota-device")
        .or_else(|| special.split_once('-').map(|(word, _)| word))
        .unwrap_or(special);
    let answer = match word {
        "unregistered" => fcm_answer::unregistered(),
        "apnsgone" => fcm_answer::apns_gone(),
        "badtoken" => fcm_answer::bad_token(),
        "mismatch" => fcm_answer::sender_mismatch(),
        "thirdparty" => fcm_answer::third_party(),
        "quota-device" => fcm_answer::device_quota(target),
        "429date" => fcm_answer::quota_exceeded_until(now_ms + 5_000),
        "500" => fcm_answer::failing(StatusCode::INTERNAL_SERVER_ERROR, None),
        "503ra" => fcm_answer::failing(UNAVAILABLE, Some(5)),
        "504" => fcm_answer::failing(StatusCode::GATEWAY_TIMEOUT, None),
        "html502" => html_answer(StatusCode::BAD_GATEWAY),
        "hang" => return Verdict::take(key, Act::Silence),
        "drop" => return Verdict::take(key, Act::Cut),
        "refused" => return Verdict::end(Act::RefuseStream),
        "goaway" => return Verdict::end(Act::Goaway),
        _ => {
            if let Some(seconds) = numbered(word, "429ra") {
                fcm_answer::quota_exceeded(Some(seconds))
            } else if let Some(seconds) = numbered(word, "503ra") {
                fcm_answer::failing(UNAVAILABLE, Some(seconds))
            } else {
                let delay = numbered(word, "delay").unwrap_or(0);
                return Verdict::take(key, Act::Answer(accepted(name)))
                    .after(Duration::from_millis(delay));
            }
        }
    };
    Verdict::refuse(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_grows_by_its_slope_each_second_and_starts_anew_after_a_pause() {
        let start = clock::instant();
        let mut ramp = Ramp::default();
        let mut taken = |second: u64| {
            let now = start + Duration::from_secs(second);
            (0..100).filter(|_| ramp.take(10, now)).count()
        };
        assert_eq!([0, 1, 2, 4].map(&mut taken), [10, 20, 30, 10]);
    }
}
