//! OAuth access tokens: fetched once, kept, and renewed by one call at a time
//! however many pushes ask. They come for a service account's assertion
//! (RFC 7523) or from Google Cloud's metadata server ([`Issuer`]).
//!
//! A token is good to its end, but from 80 % of its life on the next push that
//! takes it also starts a renewal, which nobody waits for. There is no timer: a
//! provider without traffic needs no token. When a renewal fails, the old token
//! serves on; only when none is left do pushes fail, and then at once with the
//! last refusal, so that failover does not wait for the token endpoint. Between
//! two failed calls to it lies a back-off.
//!
//! The call runs as a task of its own and not in the push that started it: a push
//! that is cut by its deadline must not take the token of a thousand others along.
//!
//! A push whose credential could not be got answers with the token endpoint's
//! class ([`refusal`] has the table), `Processed::No`, for nothing was sent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::metadata::MetadataServer;
use super::service_account::ServiceAccount;
use crate::clock::Clock;
use crate::http::client::{Answered, Client};
use crate::http::pool::Failure;
use crate::http::retry_after::{self, retry_after};
use crate::{Answer, Outcome, Processed};

/// RFC 7523 section 2.1.
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The share of a token's life after which it is renewed, in percent
/// (docs/providers/fcm.md).
const RENEW_AT_PERCENT: u64 = 80;

/// The life of a token whose answer does not tell it: short, because a token
/// thought alive too long costs a refused push.
const UNTOLD_LIFE_S: u64 = 300;

/// Back-off between failed calls to the token endpoint: first and longest.
const FIRST_BACKOFF_MS: u64 = 1_000;
const LONGEST_BACKOFF_MS: u64 = 60_000;

/// A token that the vendor refused is renewed ahead of its time no more often
/// than this: were every new one refused too, the fault is elsewhere.
const REPAIR_SPACING_MS: u64 = 60_000;

/// A clock further off than this, in seconds, is named as the probable cause of
/// a refused assertion.
const CLOCK_TOLERANCE_S: i64 = 60;

/// Why there is no token: the answer of the push that wanted one.
pub type Refusal = Box<Answer>;

/// Who gives out the tokens. It has no `Debug`: there may be a key in it.
pub enum Issuer {
    /// The token endpoint that a key file names.
    Account {
        /// Whose assertions are exchanged. Boxed: its key is large.
        account: Box<ServiceAccount>,
        /// What the tokens are to be good for.
        scope: &'static str,
    },
    /// The metadata server of the machine.
    Metadata(MetadataServer),
}

/// The access tokens of one issuer.
pub struct TokenSource {
    shared: Arc<Shared>,
    tasks: Mutex<JoinSet<()>>,
}

/// An access token in use.
#[derive(Clone, Debug)]
pub struct AccessToken {
    /// `Bearer …`, marked sensitive.
    pub authorization: HeaderValue,
    /// Rises with each token; never 0.
    pub generation: u64,
    got_at_ms: u64,
    life_ms: u64,
}

struct Shared {
    issuer: Issuer,
    client: Client,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    generation: u64,
    token: Option<AccessToken>,
    failed: Option<Failed>,
    flight: Option<Flight>,
    repaired_at_ms: Option<u64>,
}

/// What a call under way will end in; `None` until it does.
type Flight = watch::Receiver<Option<Result<AccessToken, Refusal>>>;

/// The token endpoint's last refusal, and how long it is left in peace.
struct Failed {
    refusal: Refusal,
    in_a_row: u32,
    at_ms: u64,
    backoff_ms: u64,
}

impl TokenSource {
    /// Makes a source; the first push that needs a token fetches it.
    pub fn new(issuer: Issuer, client: Client, clock: Arc<dyn Clock>) -> Self {
        let shared = Shared { issuer, client, clock, state: Mutex::default() };
        Self { shared: Arc::new(shared), tasks: Mutex::default() }
    }

    /// A live token.
    ///
    /// # Errors
    /// The [`Refusal`], when there is none and none could be got.
    pub async fn token(&self) -> Result<AccessToken, Refusal> {
        let flight = {
            let now_ms = self.shared.clock.unix_ms();
            let mut state = self.shared.state();
            match state.live(now_ms) {
                Some(token) => {
                    if token.is_ageing(now_ms) && state.may_call(now_ms) {
                        self.depart(&mut state);
                    }
                    return Ok(token);
                }
                None => match (state.flying(), state.refusal(now_ms)) {
                    (Some(flight), _) => flight,
                    (None, Some(refusal)) => return Err(refusal),
                    (None, None) => self.depart(&mut state),
                },
            }
        };
        landed(flight).await
    }

    /// Replaces the token of generation `used` because the vendor refused it; as
    /// [`crate::Provider::refresh`] has it. With 0 it sees to it that there is one.
    pub async fn refresh(&self, used: u64) -> bool {
        let flight = {
            let now_ms = self.shared.clock.unix_ms();
            let mut state = self.shared.state();
            let live = state.live(now_ms);
            if live.as_ref().is_some_and(|token| token.generation > used) {
                return true;
            }
            match state.flying() {
                Some(flight) => flight,
                None if !state.may_call(now_ms) => return false,
                None => {
                    if live.is_some() && !state.may_repair(now_ms) {
                        return false;
                    }
                    // The vendor has refused it: without a new one, pushes fail at once.
                    state.token = None;
                    self.depart(&mut state)
                }
            }
        };
        landed(flight).await.is_ok()
    }

    /// Ends a call under way.
    pub async fn close(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks());
        tasks.shutdown().await;
    }

    /// Starts a call to the token endpoint. The caller holds the state, so there
    /// is no second one.
    fn depart(&self, state: &mut State) -> Flight {
        let (landing, flight) = watch::channel(None);
        let shared = Arc::clone(&self.shared);
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let result = shared.fetch().await;
            shared.state().flight = None;
            landing.send_replace(Some(result));
        });
        state.flight = Some(flight.clone());
        flight
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    async fn fetch(&self) -> Result<AccessToken, Refusal> {
        // From before the call, so that a slow answer shortens the life we reckon with.
        let got_at_ms = self.clock.unix_ms();
        let grant = self.call(got_at_ms / 1000).await;
        let now_ms = self.clock.unix_ms();
        let mut state = self.state();
        match grant {
            Ok(Grant { authorization, life_s }) => {
                state.generation += 1;
                let token = AccessToken {
                    authorization,
                    generation: state.generation,
                    got_at_ms,
                    life_ms: life_s.saturating_mul(1000),
                };
                state.token = Some(token.clone());
                state.failed = None;
                Ok(token)
            }
            Err(refusal) => {
                let in_a_row = state.failed.as_ref().map_or(0, |failed| failed.in_a_row) + 1;
                let asked = refusal.retry_after.map_or(0, |wait| wait.as_millis() as u64);
                let backoff_ms = backoff_ms(in_a_row).max(asked);
                state.failed =
                    Some(Failed { refusal: refusal.clone(), in_a_row, at_ms: now_ms, backoff_ms });
                Err(refusal)
            }
        }
    }

    async fn call(&self, now_s: u64) -> Result<Grant, Refusal> {
        let answered = match &self.issuer {
            Issuer::Account { account, scope } => {
                let assertion = account.assertion(scope, now_s).map_err(|detail| {
                    refused(Outcome::AuthFailed, "oauth_refused", &format!("cannot sign: {detail}"))
                })?;
                let form = [("grant_type", GRANT_TYPE), ("assertion", assertion.expose())];
                self.client.post_form(&account.token_uri, &form).await
            }
            Issuer::Metadata(server) => {
                let request = server.request().map_err(|detail| unavailable(&detail))?;
                self.client.call(request).await
            }
        };
        let answered = answered.map_err(|failure| unreachable(&failure))?;
        let is_metadata = matches!(self.issuer, Issuer::Metadata(_));
        if is_metadata && !MetadataServer::is_its(&answered.headers) {
            let mut refusal = unavailable("what answers there is not Google's metadata server");
            refusal.unexpected = true;
            return Err(refusal);
        }
        match answered.status {
            StatusCode::OK => grant(&answered),
            _ => Err(refusal(&answered, now_s)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn live(&self, now_ms: u64) -> Option<AccessToken> {
        self.token.clone().filter(|token| token.age_ms(now_ms) < token.life_ms)
    }

    /// The call under way. One whose task died without a word is none.
    fn flying(&self) -> Option<Flight> {
        self.flight.clone().filter(|flight| flight.has_changed().is_ok())
    }

    /// Whether a call may be made now: none is under way, and no back-off runs.
    fn may_call(&self, now_ms: u64) -> bool {
        self.flying().is_none() && self.refusal(now_ms).is_none()
    }

    /// The last refusal while its back-off runs, with the time that is left of
    /// the wait that the peer had asked for.
    fn refusal(&self, now_ms: u64) -> Option<Refusal> {
        let failed = self.failed.as_ref()?;
        // A wall clock that was set back ends the back-off: better a call too
        // early than an hour without any.
        let elapsed_ms = now_ms.checked_sub(failed.at_ms)?;
        let left_ms = failed.backoff_ms.checked_sub(elapsed_ms).filter(|left| *left > 0)?;
        let mut refusal = failed.refusal.clone();
        refusal.retry_after = refusal.retry_after.map(|_| Duration::from_millis(left_ms));
        Some(refusal)
    }

    /// Whether a refused token may be replaced now; takes note that it is.
    fn may_repair(&mut self, now_ms: u64) -> bool {
        let last = self.repaired_at_ms.and_then(|at_ms| now_ms.checked_sub(at_ms));
        let may = last.is_none_or(|since_ms| since_ms >= REPAIR_SPACING_MS);
        if may {
            self.repaired_at_ms = Some(now_ms);
        }
        may
    }
}

impl AccessToken {
    fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.got_at_ms)
    }

    fn is_ageing(&self, now_ms: u64) -> bool {
        self.age_ms(now_ms) >= self.life_ms / 100 * RENEW_AT_PERCENT
    }
}

async fn landed(mut flight: Flight) -> Result<AccessToken, Refusal> {
    let landed = flight.wait_for(Option::is_some).await;
    match landed.as_deref() {
        Ok(Some(result)) => result.clone(),
        // Closed, or its task panicked.
        Ok(None) | Err(_) => Err(unavailable("the renewal of the token was given up")),
    }
}

/// 1 s, doubled with each failure in a row to 60 s, and up to a quarter more so
/// that the providers of one fleet do not come together.
fn backoff_ms(in_a_row: u32) -> u64 {
    let doubled = FIRST_BACKOFF_MS << in_a_row.saturating_sub(1).min(6);
    let backoff = doubled.min(LONGEST_BACKOFF_MS);
    backoff + rand::random_range(0..=backoff / 4)
}

/// What the token endpoint grants (RFC 6749 section 5.1).
struct Grant {
    authorization: HeaderValue,
    life_s: u64,
}

fn grant(answered: &Answered) -> Result<Grant, Refusal> {
    #[derive(Deserialize)]
    struct Body {
        access_token: String,
        expires_in: Option<serde_json::Value>,
    }
    let unreadable = || {
        let mut refusal = unavailable("answered 200 without a token that can be read");
        refusal.unexpected = true;
        refusal
    };
    let body: Body = serde_json::from_slice(&answered.body).map_err(|_| unreadable())?;
    let bearer = format!("Bearer {}", body.access_token);
    let mut authorization = HeaderValue::try_from(bearer).map_err(|_| unreadable())?;
    authorization.set_sensitive(true);
    let life_s = body.expires_in.as_ref().and_then(serde_json::Value::as_u64);
    // A life of nothing would mean a call for each push.
    Ok(Grant { authorization, life_s: life_s.unwrap_or(UNTOLD_LIFE_S).max(1) })
}

/// What an answer of the token endpoint other than 200 means ("Using OAuth 2.0
/// for server to server applications", error codes; RFC 6749 section 5.2).
fn refusal(answered: &Answered, now_s: u64) -> Refusal {
    #[derive(Default, Deserialize)]
    struct Body {
        error: Option<String>,
        error_description: Option<String>,
    }
    let body: Body = serde_json::from_slice(&answered.body).unwrap_or_default();
    let status = answered.status.as_u16();
    let mut detail = format!("answered {status}");
    if let Some(error) = &body.error {
        detail = format!("{detail} {error}");
    }
    // An endpoint that repeats our assertion ("eyJ…") must not bring it into a log.
    if let Some(text) = body.error_description.filter(|text| !text.contains("eyJ")) {
        detail = format!("{detail}: {text}");
    }
    let mut refusal = match status {
        429 => refused(Outcome::Throttled, "oauth_throttled", &detail),
        408 | 500..=599 => unavailable(&detail),
        // A deleted or disabled key, a vanished account, a wrong `aud` or clock
        // (`invalid_grant`), `invalid_scope`, `invalid_client`, a missing right.
        400..=499 => {
            let offset = clock_offset(answered, now_s).map(|offset| format!("{offset}; "));
            let detail = format!("{}{detail}", offset.unwrap_or_default());
            refused(Outcome::AuthFailed, body.error.as_deref().unwrap_or("oauth_refused"), &detail)
        }
        // Redirects are not followed, and success without 200 is not documented.
        _ => {
            let mut refusal = unavailable(&detail);
            refusal.unexpected = true;
            refusal
        }
    };
    refusal.status = Some(status);
    refusal.retry_after = retry_after(&answered.headers, now_s);
    refusal
}

/// The local clock's error, if it is large enough to be why an assertion is refused.
fn clock_offset(answered: &Answered, now_s: u64) -> Option<String> {
    let offset = now_s as i64 - retry_after::date(&answered.headers)? as i64;
    let direction = if offset > 0 { "ahead of" } else { "behind" };
    (offset.abs() > CLOCK_TOLERANCE_S).then(|| {
        format!("the local clock is {} s {direction} the token endpoint's", offset.unsigned_abs())
    })
}

fn unreachable(failure: &Failure) -> Refusal {
    unavailable(&format!("{}: {}", failure.code, failure.detail))
}

fn unavailable(detail: &str) -> Refusal {
    refused(Outcome::Unavailable, "oauth_unavailable", detail)
}

fn refused(outcome: Outcome, code: &str, detail: &str) -> Refusal {
    let detail = format!("token endpoint: {detail}");
    Box::new(Answer::new(outcome).code(code).detail(&detail).processed(Processed::No))
}

#[cfg(test)]
pub(crate) mod tests;
