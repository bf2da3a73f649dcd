//! APNs: pushes to devices, broadcasts, and the channels of these, answered as
//! Apple documents it.
//!
//! Apple has three kinds of hosts, and so has this: one for devices, which takes
//! broadcasts too (Apple's pages say so in one place), one for broadcasts, one for
//! channels. They share an account: its keys and its channels. Here is the credential, and the order of the checks: path, method,
//! credential, headers, size, token. A provider token is verified once and
//! remembered, on the connection (a comparison of bytes is all that most
//! requests cost) and for the whole vendor. `apns_headers` checks the headers,
//! `apns_device` knows the tokens, `apns_broadcast` and `apns_channels` the rest.
//!
//! Sources: APNs documentation, "Establishing a token-based connection to
//! APNs", "Establishing a certificate-based connection to APNs", "Handling
//! notification responses from APNs".

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED};
use http::{HeaderName, HeaderValue, Method, header, request};
use rustls_pki_types::CertificateDer;
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::apns_broadcast::{self, REQUEST_ID};
use super::apns_channels::{self, Channels};
use super::apns_device::{self, Environment, Reason};
use super::apns_headers::{self, APNS_ID, Sender, sent_id};
use super::jwt::{Jwt, Spelling};
use super::{
    Act, Answer, Call, Excess, Fault, Refusal, Streams, Vendor, Verdict, bearer, html_answer,
    with_retry_after,
};
use crate::identity;
use crate::ledger::lock;
use crate::server::manners::Rules;
use crate::station::Station;

/// "Not older than one hour at Apple's clock."
const TOKEN_AGE_S: u64 = 3600;
/// How far ahead of ours the sender's clock may be; not documented.
const CLOCK_SKEW_S: u64 = 300;
/// Verified tokens that are remembered; a sender has one or two.
const REMEMBERED: usize = 256;

/// What a host is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// Pushes to devices, and broadcasts.
    Devices,
    /// Broadcasts.
    Broadcasts,
    /// Managing channels.
    Channels,
}

/// The vendor in one environment, at one of its hosts.
pub(crate) struct Apns {
    station: Arc<Station>,
    host: Host,
    account: Arc<Account>,
}

/// What the hosts of an environment share.
pub(crate) struct Account {
    environment: Environment,
    /// By key id: the public key, and whether it belongs here. `AuthKey_ID.p8` is
    /// good in both environments, `AuthKey_ID.sandbox.p8` in one.
    keys: BTreeMap<String, (Vec<u8>, bool)>,
    topics: Vec<String>,
    /// Apps that may not broadcast.
    without_broadcast: Vec<String>,
    channels: Channels,
    max_streams: u32,
    relapses: bool,
    spelling: Spelling,
    token_interval: Duration,
    verified: Mutex<HashMap<String, Arc<ProviderToken>>>,
}

/// What a verified provider token says.
struct ProviderToken {
    key_id: String,
    /// Whether its key is one of this environment.
    belongs: bool,
    issued_s: u64,
}

/// What APNs remembers of one connection.
pub(crate) struct Session {
    /// The topic of the client certificate.
    certificate: Option<String>,
    last: Option<(HeaderValue, Arc<ProviderToken>)>,
    /// The key that the connection is bound to.
    key_id: Option<String>,
    /// Tokens that were used, and when first.
    tokens: Vec<(HeaderValue, u64)>,
}

impl Account {
    pub(crate) fn new(
        environment: Environment,
        keys: BTreeMap<String, Vec<u8>>,
        settings: &crate::Settings,
    ) -> Arc<Self> {
        let placed = |(name, key): (String, Vec<u8>)| match name.split_once('.') {
            Some((id, word)) => (id.to_owned(), (key, word == environment.word())),
            None => (name, (key, true)),
        };
        Arc::new(Self {
            environment,
            keys: keys.into_iter().map(placed).collect(),
            topics: settings.apns_topics.clone(),
            without_broadcast: settings.apns_without_broadcast.clone(),
            channels: Channels::default(),
            max_streams: settings.apns_max_streams,
            relapses: settings.apns_one_stream_after_rejection,
            spelling: match settings.apns_lenient_tokens {
                true => Spelling::Lenient,
                false => Spelling::Strict,
            },
            token_interval: settings.apns_token_interval,
            verified: Mutex::default(),
        })
    }

    /// Finds or verifies a token. Its age is not part of that: it changes.
    fn verify(&self, token: &str) -> Option<Arc<ProviderToken>> {
        if let Some(known) = lock(&self.verified).get(token) {
            return Some(Arc::clone(known));
        }
        let jwt = Jwt::read(token, self.spelling)?;
        let key_id = jwt.header.kid.clone()?;
        let (key, belongs) = self.keys.get(&key_id)?;
        let good = jwt.header.alg == "ES256"
            && jwt.text("iss") == Some(identity::TEAM_ID)
            && (jwt.is_signed_by(&ECDSA_P256_SHA256_FIXED, key)
                || self.spelling == Spelling::Lenient
                    && jwt.is_signed_by(&ECDSA_P256_SHA256_ASN1, key));
        let issued_s = jwt.time("iat").filter(|_| good)?;
        let verified = Arc::new(ProviderToken { key_id, belongs: *belongs, issued_s });
        let mut all = lock(&self.verified);
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(token.to_owned(), Arc::clone(&verified));
        Some(verified)
    }

    /// Admits a token that this connection did not use last: it is verified,
    /// and held against what the connection is bound to.
    fn admit(
        &self,
        session: &mut Session,
        value: &HeaderValue,
        now_ms: u64,
    ) -> Result<Arc<ProviderToken>, Reason> {
        let verified =
            bearer(value).and_then(|token| self.verify(token)).ok_or(Reason::INVALID_TOKEN)?;
        if !verified.belongs {
            return Err(Reason(403, "BadEnvironmentKeyIdInToken"));
        }
        let bound = session.key_id.as_ref();
        if bound.is_some_and(|bound| *bound != verified.key_id) {
            return Err(Reason(403, "UnrelatedKeyIdInToken"));
        }
        if !session.tokens.iter().any(|(used, _)| used == value) {
            let interval = self.token_interval.as_millis() as u64;
            let newest = session.tokens.iter().map(|(_, at)| *at).max();
            if newest.is_some_and(|at| now_ms.saturating_sub(at) < interval) {
                return Err(Reason(429, "TooManyProviderTokenUpdates"));
            }
            session.key_id = Some(verified.key_id.clone());
            session.tokens.push((value.clone(), now_ms));
        }
        Ok(verified)
    }
}

impl Apns {
    pub(crate) fn new(station: &Arc<Station>, host: Host, account: &Arc<Account>) -> Self {
        Self { station: Arc::clone(station), host, account: Arc::clone(account) }
    }

    /// Judges a push to a device.
    fn judge_device(
        &self,
        sender: &Sender<'_>,
        call: &Call<'_>,
        authenticated: Result<(), Refusal>,
        id: &HeaderValue,
    ) -> Result<Verdict, Refusal> {
        let token = device(call.head).map_err(Reason::refusal)?;
        authenticated?;
        apns_headers::check(sender, call).map_err(Reason::refusal)?;
        Ok(apns_device::judge(call, self.account.environment, token, id))
    }

    fn judge_broadcast(
        &self,
        sender: &Sender<'_>,
        call: &Call<'_>,
        authenticated: Result<(), Refusal>,
        id: &HeaderValue,
    ) -> Result<Verdict, Refusal> {
        let Account { channels, environment, without_broadcast, .. } = &*self.account;
        let app = apns_broadcast::app(call.head).map_err(Reason::refusal)?;
        authenticated?;
        apns_broadcast::allowed(sender, app, without_broadcast).map_err(Reason::refusal)?;
        Ok(apns_broadcast::judge(call, (channels, *environment), app, id))
    }

    fn manage(
        &self,
        sender: &Sender<'_>,
        call: &Call<'_>,
        authenticated: Result<(), Refusal>,
    ) -> Result<Verdict, Refusal> {
        let (app, what) = apns_channels::managed(call.head).map_err(Reason::refusal)?;
        authenticated?;
        apns_broadcast::allowed(sender, app, &self.account.without_broadcast)
            .map_err(Reason::refusal)?;
        Ok(Verdict::refuse(self.account.channels.manage(app, what, call)))
    }
}

impl Vendor for Apns {
    type Session = Session;

    fn session(&self, certificate: Option<&CertificateDer<'_>>) -> Session {
        Session {
            certificate: certificate.and_then(topic_of_certificate),
            last: None,
            key_id: None,
            tokens: Vec::new(),
        }
    }

    fn front(&self) -> &Arc<Station> {
        &self.station
    }

    fn station(&self, _path: &str) -> &Arc<Station> {
        &self.station
    }

    fn streams(&self, session: &Session) -> Streams {
        Streams {
            // Only token authentication has to prove itself first.
            at_first: match session.certificate {
                Some(_) => self.account.max_streams,
                None => 1,
            },
            proven: self.account.max_streams,
            relapses: self.account.relapses && session.certificate.is_none(),
            excess: Excess::Refuse,
        }
    }

    fn manners(&self) -> Rules {
        Rules { farewell: r#"{"reason":"Shutdown"}"#, ..Rules::default() }
    }

    fn authenticate(
        &self,
        session: &mut Session,
        head: &request::Parts,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        let refuse = |reason: Reason| Err(Box::new(reason.answer()));
        let Some(value) = head.headers.get(header::AUTHORIZATION) else {
            return match session.certificate {
                Some(_) => Ok(()),
                None => refuse(Reason(403, "MissingProviderToken")),
            };
        };
        let is_last = |(last, _): &&(HeaderValue, _)| last == value;
        let known = session.last.as_ref().filter(is_last);
        let (token, is_new) = match known {
            Some((_, token)) => (Arc::clone(token), false),
            None => match self.account.admit(session, value, now_ms) {
                Ok(token) => (token, true),
                Err(reason) => return refuse(reason),
            },
        };
        let now_s = now_ms / 1000;
        if now_s.saturating_sub(token.issued_s) > TOKEN_AGE_S {
            return refuse(Reason(403, "ExpiredProviderToken"));
        }
        if token.issued_s > now_s + CLOCK_SKEW_S {
            return refuse(Reason::INVALID_TOKEN);
        }
        if is_new {
            session.last = Some((value.clone(), token));
        }
        Ok(())
    }

    fn spared(&self, session: &Session) -> bool {
        session.key_id.as_deref() == Some(identity::SPARE_KEY_ID)
    }

    fn judge(
        &self,
        session: &Session,
        call: Call<'_>,
        authenticated: Result<(), Refusal>,
    ) -> Verdict {
        let name = id_header(call.head);
        let id = sent_id(&call.head.headers, &name);
        let by_token = call.head.headers.contains_key(header::AUTHORIZATION);
        let sender = match &session.certificate {
            Some(topic) if !by_token => Sender::Certificate(topic),
            _ => Sender::Token(&self.account.topics),
        };
        let judged = match self.host {
            Host::Devices if is_broadcast(call.head) => {
                self.judge_broadcast(&sender, &call, authenticated, &id)
            }
            Host::Devices => self.judge_device(&sender, &call, authenticated, &id),
            Host::Broadcasts => self.judge_broadcast(&sender, &call, authenticated, &id),
            Host::Channels => self.manage(&sender, &call, authenticated),
        };
        let mut verdict = judged.unwrap_or_else(|answer| Verdict::refuse(*answer));
        if let Act::Answer(answer) | Act::AnswerAndGoaway(answer, _) = &mut verdict.act {
            answer.headers_mut().insert(name, id);
        }
        verdict
    }

    fn fault(&self, fault: Fault, head: &request::Parts, _now_ms: u64) -> Answer {
        let (answer, retry_after_s) = match fault {
            Fault::Failing(status, retry_after_s) => {
                let answer = match status.as_u16() {
                    500 => Reason(500, "InternalServerError").answer(),
                    503 => Reason(503, "ServiceUnavailable").answer(),
                    // No other comes from Apple itself.
                    _ => html_answer(status),
                };
                (answer, retry_after_s)
            }
            Fault::Throttling(retry_after_s) => {
                (Reason(429, "TooManyRequests").answer(), retry_after_s)
            }
            Fault::Unauthorised => (Reason::INVALID_TOKEN.answer(), None),
        };
        let mut answer = with_retry_after(answer, retry_after_s);
        let name = id_header(head);
        let id = sent_id(&head.headers, &name);
        answer.headers_mut().insert(name, id);
        answer
    }
}

fn is_broadcast(head: &request::Parts) -> bool {
    head.uri.path().starts_with("/4/")
}

/// The header that names a request and comes back with its answer.
fn id_header(head: &request::Parts) -> HeaderName {
    if head.uri.path().starts_with("/3/") { APNS_ID } else { REQUEST_ID }
}

/// The device token of a request with the right path and method.
fn device(head: &request::Parts) -> Result<&str, Reason> {
    let path = head.uri.path();
    let token = path
        .strip_prefix("/3/device/")
        .or_else(|| (path == "/3/device").then_some(""))
        .filter(|token| !token.contains('/'))
        .ok_or(Reason(404, "BadPath"))?;
    if head.method != Method::POST {
        return Err(Reason(405, "MethodNotAllowed"));
    }
    if token.is_empty() {
        return Err(Reason(400, "MissingDeviceToken"));
    }
    Ok(token)
}

/// The subject's `UID`, which is the topic of a certificate.
fn topic_of_certificate(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let uid = Oid::from(&identity::UID).ok()?;
    let topic = parsed.subject().iter_by_oid(&uid).next()?;
    topic.as_str().ok().map(str::to_owned)
}
