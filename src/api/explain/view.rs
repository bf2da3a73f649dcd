//! The shapes that explain answers in.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::view::{self as message, AttemptView, UnresolvedShape, WarningShape};
use super::mask::RequestView;
use super::moves::{Moved, moves};
use crate::dispatch::{Barred, Explained, KeyView, Score, Seen, Weighed};
use crate::model::{DeliveryId, Message, Progress, Reason, Unresolved, Warning};
use crate::routing::Balance;

/// Where each delivery would go, and why.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes what `Head`, `DeliveryView`s and `Foot` come to")]
pub(super) struct Explanation<'a> {
    /// The route it takes.
    route: String,
    /// `route` or `client` when an operator has paused it: the message waits.
    #[schema(required = true)]
    paused: Option<String>,
    /// One for each recipient, in their order.
    #[schema(value_type = Vec<DeliveryView<'_>>)]
    deliveries: Vec<DeliveryView<'a>>,
    /// Users without devices. Absent when there are none.
    #[schema(nullable = false)]
    unresolved: Option<Vec<UnresolvedShape>>,
    /// What could not be done as asked. Absent when there is nothing.
    #[schema(nullable = false)]
    warnings: Option<Vec<WarningShape>>,
}

/// What is known before the first recipient.
#[derive(Serialize)]
pub(super) struct Head<'a> {
    route: &'a str,
    paused: Option<&'static str>,
    deliveries: [(); 0],
}

impl<'a> Head<'a> {
    /// Up to where the deliveries stand.
    pub(super) fn bytes(message: &'a Message, paused: Option<&'static str>) -> Vec<u8> {
        let head = Self { route: &message.route, paused, deliveries: [] };
        // Our own shapes into memory: serialising them does not fail.
        let mut bytes = serde_json::to_vec(&head).unwrap_or_default();
        bytes.truncate(bytes.len().saturating_sub(b"]}".len()));
        bytes
    }
}

/// What comes after the last.
#[derive(Serialize)]
pub(super) struct Foot<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    unresolved: &'a [Unresolved],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    warnings: &'a [Warning],
}

impl<'a> Foot<'a> {
    /// From where the deliveries end. Of one that was accepted its message has been
    /// answered already.
    pub(super) fn bytes(message: &'a Message, past: bool) -> Vec<u8> {
        let foot = if past {
            Self { unresolved: &[], warnings: &[] }
        } else {
            Self { unresolved: &message.unresolved, warnings: &message.warnings }
        };
        let rest = serde_json::to_vec(&foot).unwrap_or_default();
        let members = rest.get(1..).unwrap_or_default();
        let comma: &[u8] = if members.len() > 1 { b"]," } else { b"]" };
        [comma, members].concat()
    }
}

/// Where one delivery would go, and why.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ExplainedDelivery)]
pub(super) struct DeliveryView<'a> {
    /// The backend's name for the recipient.
    #[serde(rename = "ref")]
    #[schema(required = true)]
    reference: Option<&'a str>,
    /// Of a delivery that was accepted: its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = message::id, required = false)]
    id: Option<Uuid>,
    /// Of a delivery that was accepted: where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    state: Option<&'static str>,
    /// Of a delivery that was accepted: why it is there, if there is more to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<&'static str>,
    /// Of a delivery that was accepted: when it is tried again, if a time is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    next_at: Option<String>,
    /// Of a delivery that was accepted: the latest attempts, oldest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<AttemptMoved<'_>>>, nullable = false)]
    attempts: Option<Vec<AttemptMoved<'a>>>,
    /// Whom it may go to now, the first one first.
    #[schema(value_type = Vec<CandidateView<'_>>)]
    candidates: Vec<CandidateView<'a>>,
    /// Every candidate is out, and the first is tried to see whether it is back.
    panic: bool,
    /// Whom it does not go to now.
    #[schema(value_type = Vec<ExcludedView<'_>>)]
    excluded: Vec<ExcludedView<'a>>,
}

/// An attempt, and what moved the delivery there.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ExplainedAttempt)]
struct AttemptMoved<'a> {
    #[serde(flatten)]
    attempt: AttemptView<'a>,
    /// The address: its kind and a hash of it.
    address: String,
    /// What moved it there: the end of the attempt before, or who was passed over.
    #[schema(value_type = Option<Moved<'_>>, required = true)]
    moved: Option<Moved<'a>>,
}

/// A provider and an address that may be used now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Candidate)]
struct CandidateView<'a> {
    /// The provider's id.
    provider: &'a str,
    /// The address kind.
    kind: &'a str,
    /// The address: its kind and a hash of it.
    address: &'a str,
    /// The tier of the route, from 0.
    tier: u8,
    /// Its place, from 1.
    position: usize,
    /// How much of the traffic with these candidates begins here, 0 to 1.
    share: f64,
    /// The provider's state.
    state: &'static str,
    /// The health keys that it hangs on; part `""` is the provider as a whole.
    keys: Vec<KeyState>,
    /// What it is compared by within its tier.
    score: ScoreView,
    /// The request as it would go out; null when none can be made.
    #[schema(required = true)]
    request: Option<RequestView>,
    /// Why no request can be made. Absent when one can.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    request_problem: Option<String>,
}

/// A health key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KeyState)]
struct KeyState {
    /// Such as `app:com.example.shop`; empty: the provider as a whole.
    part: String,
    /// Its state.
    state: &'static str,
    /// Why, when it is not healthy.
    #[schema(required = true)]
    reason: Option<&'static str>,
}

/// What members of a tier are compared by.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Score)]
struct ScoreView {
    /// How the tier shares.
    balance: &'static str,
    /// What one more call would wait for an answer, in milliseconds.
    rtt_ms: u64,
    /// Calls in flight at the provider.
    in_flight: u32,
    /// Its weight.
    #[schema(value_type = f64)]
    weight: Value,
    /// What slow start leaves of the weight, 0 to 1.
    #[schema(value_type = f64)]
    ramp: Value,
    /// Money for a million calls. Absent where it does not decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, nullable = false)]
    cost_per_million: Option<Value>,
}

/// A provider and an address that are not used now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Excluded)]
struct ExcludedView<'a> {
    /// The provider's id.
    provider: &'a str,
    /// The provider's kind.
    kind: &'a str,
    /// The address: its kind and a hash of it.
    address: &'a str,
    /// The tier of the route, from 0.
    tier: u8,
    /// Why.
    #[schema(schema_with = reasons)]
    reason: &'static str,
    /// The same for people.
    detail: &'a str,
    /// When time alone may let it in; null: something must happen first.
    #[schema(format = DateTime, required = true)]
    until: Option<String>,
    /// The provider's state.
    state: &'static str,
    /// The health keys that it hangs on.
    keys: Vec<KeyState>,
}

/// Of a delivery that was accepted.
pub(super) struct Past<'a> {
    pub(super) id: DeliveryId,
    pub(super) progress: &'a Progress,
}

impl<'a> DeliveryView<'a> {
    /// `names` are those of the recipient's addresses; `request` makes a
    /// candidate's.
    pub(super) fn of(
        reference: Option<&'a str>,
        explained: &'a Explained,
        names: &'a [String],
        request: &dyn Fn(&Weighed) -> Result<RequestView, String>,
        past: Option<&Past<'a>>,
    ) -> Self {
        let candidates = explained.candidates.iter().enumerate().map(|(at, weighed)| {
            let (request, problem) = match request(weighed) {
                Ok(request) => (Some(request), None),
                Err(problem) => (None, Some(problem)),
            };
            candidate(at, weighed, explained, names, request, problem)
        });
        let attempts = past.map(|past| {
            let attempts = &past.progress.attempts;
            let moved = |(attempt, moved)| attempt_moved(attempt, moved, names);
            attempts.iter().zip(moves(past.progress)).map(moved).collect()
        });
        Self {
            reference,
            id: past.map(|past| past.id.uuid()),
            state: past.map(|past| past.progress.state.word()),
            reason: past.and_then(|past| past.progress.reason).map(Reason::word),
            next_at: past.and_then(|past| past.progress.next_at).map(|at| at.rfc3339()),
            attempts,
            candidates: candidates.collect(),
            panic: explained.panic,
            excluded: explained.excluded.iter().map(|b| excluded(b, explained, names)).collect(),
        }
    }
}

fn attempt_moved<'a>(
    attempt: &'a crate::model::Attempt,
    moved: Option<Moved<'a>>,
    names: &[String],
) -> AttemptMoved<'a> {
    let address = names.get(usize::from(attempt.address)).cloned().unwrap_or_default();
    AttemptMoved { attempt: message::attempt(attempt), address, moved }
}

fn candidate<'a>(
    at: usize,
    weighed: &Weighed,
    explained: &'a Explained,
    names: &'a [String],
    request: Option<RequestView>,
    request_problem: Option<String>,
) -> CandidateView<'a> {
    let Weighed { seen, share, score } = weighed;
    let (provider, kind, address) = who(seen, explained, names);
    CandidateView {
        provider,
        kind,
        address,
        tier: seen.tier,
        position: at + 1,
        share: (share * 1e4).round() / 1e4,
        state: seen.state.0,
        keys: seen.keys.iter().map(key).collect(),
        score: self::score(score),
        request,
        request_problem,
    }
}

fn excluded<'a>(
    barred: &'a Barred,
    explained: &'a Explained,
    names: &'a [String],
) -> ExcludedView<'a> {
    let Barred { seen, reason, detail, until } = barred;
    let (provider, kind, address) = who(seen, explained, names);
    ExcludedView {
        provider,
        kind,
        address,
        tier: seen.tier,
        reason,
        detail,
        until: until.map(|until| until.rfc3339()),
        state: seen.state.0,
        keys: seen.keys.iter().map(key).collect(),
    }
}

fn who<'a>(
    seen: &Seen,
    explained: &'a Explained,
    names: &'a [String],
) -> (&'a str, &'a str, &'a str) {
    let settings = &explained.catalog.provider(seen.provider).settings;
    let name = names.get(usize::from(seen.address)).map_or("", String::as_str);
    (&settings.id, settings.kind, name)
}

fn key((part, state, reason): &KeyView) -> KeyState {
    KeyState { part: part.clone(), state, reason: *reason }
}

fn score(score: &Score) -> ScoreView {
    let Score { balance, rtt, in_flight, weight, ramp, cost } = *score;
    ScoreView {
        balance: balance.word(),
        rtt_ms: u64::try_from(rtt.as_millis()).unwrap_or(u64::MAX),
        in_flight,
        weight: number(weight),
        ramp: number((ramp * 1e4).round() / 1e4),
        cost_per_million: (balance == Balance::Cheapest).then(|| number(cost)),
    }
}

/// A whole number without its point, as people write it into a configuration.
fn number(value: f64) -> Value {
    // Below this all whole numbers are exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT { (value as i64).into() } else { value.into() }
}

fn reasons() -> utoipa::openapi::Object {
    message::words(crate::dispatch::BARRED).build()
}
