//! A webhook receiver that follows Standard Webhooks to the letter.
//!
//! It holds two secrets, the present one and the one before, and takes a request
//! when any signature of either fits and the timestamp is within five minutes. It
//! remembers ids, and says so when one comes again. `data.id` of the body is the
//! address, which may ask for a fault.
//!
//! Source: *Standard Webhooks*, "Verifying webhooks", "Signature scheme".

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method, StatusCode, header, request};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};

use super::self_hosted::{No, Recent, STREAMS, judge};
use super::{
    Answer, Call, Fault, Refusal, Streams, Vendor, Verdict, json_answer, with_retry_after,
};
use crate::ledger::Key;
use crate::station::Station;

/// How far a timestamp may be off, in seconds.
const TOLERANCE_S: u64 = 5 * 60;

/// The receiver.
pub(crate) struct Webhook {
    station: Arc<Station>,
    secrets: Vec<hmac::Key>,
    seen: Recent<String>,
}

impl Webhook {
    /// `secrets`: `whsec_…`; a secret that cannot be read fits no signature.
    pub(crate) fn new(station: Arc<Station>, secrets: &[String]) -> Self {
        let key = |secret: &String| {
            let bytes = STANDARD.decode(secret.strip_prefix("whsec_")?).ok()?;
            Some(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
        };
        Self { station, secrets: secrets.iter().filter_map(key).collect(), seen: Recent::new() }
    }

    fn verify(&self, headers: &HeaderMap, body: &[u8], now_ms: u64) -> Result<String, Refusal> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let (Some(id), Some(at), Some(signatures)) =
            (text("webhook-id"), text("webhook-timestamp"), text("webhook-signature"))
        else {
            return Err(Box::new(refusal(StatusCode::BAD_REQUEST, "missing required headers")));
        };
        let Ok(at_s) = at.parse::<u64>() else {
            return Err(Box::new(refusal(StatusCode::BAD_REQUEST, "invalid timestamp")));
        };
        if at_s.abs_diff(now_ms / 1000) > TOLERANCE_S {
            return Err(Box::new(refusal(
                StatusCode::UNAUTHORIZED,
                "timestamp outside of the tolerance",
            )));
        }
        let message = [format!("{id}.{at}.").as_bytes(), body].concat();
        let fits = |signature: &[u8]| {
            self.secrets.iter().any(|key| hmac::verify(key, &message, signature).is_ok())
        };
        // Versions that it does not know are passed over.
        let mut known = signatures.split(' ').filter_map(|s| s.strip_prefix("v1,"));
        if known.any(|text| STANDARD.decode(text).is_ok_and(|signature| fits(&signature))) {
            return Ok(id.to_owned());
        }
        Err(Box::new(refusal(StatusCode::UNAUTHORIZED, "no matching signature found")))
    }
}

impl Vendor for Webhook {
    type Session = ();

    fn session(&self, _certificate: Option<&CertificateDer<'_>>) {}

    fn front(&self) -> &Arc<Station> {
        &self.station
    }

    fn station(&self, _path: &str) -> &Arc<Station> {
        &self.station
    }

    fn streams(&self, _session: &()) -> Streams {
        STREAMS
    }

    fn authenticate(
        &self,
        _session: &mut (),
        _head: &request::Parts,
        _now_ms: u64,
    ) -> Result<(), Refusal> {
        // The signature covers the body: it is checked when that is there.
        Ok(())
    }

    fn judge(&self, _session: &(), call: Call<'_>, _authenticated: Result<(), Refusal>) -> Verdict {
        if call.head.method != Method::POST {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            return Verdict::refuse(refusal(status, "only POST"));
        }
        if call.body.length > call.body.bytes.len() {
            return Verdict::refuse(refusal(StatusCode::PAYLOAD_TOO_LARGE, "too large"));
        }
        let kind = call.head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if !kind.is_some_and(|kind| kind.starts_with("application/json")) {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Verdict::refuse(refusal(status, "not application/json"));
        }
        let id = match self.verify(&call.head.headers, &call.body.bytes, call.now_ms) {
            Ok(id) => id,
            Err(answer) => return Verdict::refuse(*answer),
        };
        let Ok(body) = serde_json::from_slice::<Value>(&call.body.bytes) else {
            return Verdict::refuse(refusal(StatusCode::BAD_REQUEST, "not JSON"));
        };
        let data = &body["data"];
        if !body["type"].is_string() || !body["timestamp"].is_string() || !data.is_object() {
            let text = "type, timestamp and data are required";
            return Verdict::refuse(refusal(StatusCode::UNPROCESSABLE_ENTITY, text));
        }
        let key = data["pushyard"].as_str().map_or_else(|| Key::of(&id), Key::of_pushyard);
        let duplicate = self.seen.all().contains(&id);
        let ok = json_answer(StatusCode::OK, json!({ "duplicate": duplicate }).to_string());
        let verdict = judge(data["id"].as_str().unwrap_or_default(), key, ok, no);
        if verdict.take.is_some() && !duplicate {
            self.seen.keep(id);
        }
        verdict
    }

    fn fault(&self, fault: Fault, _head: &request::Parts, _now_ms: u64) -> Answer {
        match fault {
            Fault::Failing(status, wait) => with_retry_after(refusal(status, "failing"), wait),
            Fault::Throttling(wait) => no(No::Throttled(wait)),
            Fault::Unauthorised => no(No::Unauthorised),
        }
    }
}

fn no(no: No) -> Answer {
    match no {
        No::Gone => refusal(StatusCode::GONE, "do not send to me any more"),
        No::Bad => refusal(StatusCode::UNPROCESSABLE_ENTITY, "not understood"),
        No::Throttled(wait) => {
            with_retry_after(refusal(StatusCode::TOO_MANY_REQUESTS, "slow down"), wait)
        }
        No::Internal => refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal error"),
        No::Unavailable => refusal(StatusCode::SERVICE_UNAVAILABLE, "not now"),
        No::Unauthorised => refusal(StatusCode::UNAUTHORIZED, "no matching signature found"),
    }
}

fn refusal(status: StatusCode, text: &str) -> Answer {
    json_answer(status, json!({ "error": text }).to_string())
}
