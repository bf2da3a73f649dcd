//! How a message is shown: as accepted, and as it stands.
//!
//! The acceptance is made of the message alone, so that a repeat with the same
//! idempotency key gets the first answer again, however far the deliveries are.
//!
//! Where a delivery stands is known to two: the store has what has settled, the
//! dispatcher what has not. The dispatcher must be asked first: what settles
//! between the two questions is then in the store, and would otherwise be in
//! neither answer. A delivery that neither knows is `queued`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use utoipa::ToSchema;
use uuid::Uuid;

use super::page::Page;
use crate::model::{
    Attempt, Message, MessageId, Progress, Reason, State, Unresolved, Warning, message_state,
};

/// What a backend is told when its message has been accepted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Accepted<'a> {
    /// The message's id, a UUIDv7.
    #[schema(schema_with = id)]
    id: Uuid,
    /// Always `queued`.
    #[schema(example = "queued")]
    state: &'static str,
    /// One for each recipient, in their order.
    #[schema(value_type = Vec<AcceptedDelivery<'_>>)]
    deliveries: Vec<AcceptedDelivery<'a>>,
    /// Recipients that could not be turned into deliveries. Absent when there are none.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(value_type = Vec<UnresolvedShape>, required = false)]
    unresolved: &'a [Unresolved],
    /// What could not be done as asked, though the message was accepted. Absent when there is nothing.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(value_type = Vec<WarningShape>, required = false)]
    warnings: &'a [Warning],
}

/// A delivery that has been accepted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AcceptedDelivery<'a> {
    /// The delivery's id, a UUIDv7.
    #[schema(schema_with = id)]
    id: Uuid,
    /// The backend's name for the recipient.
    #[serde(rename = "ref")]
    #[schema(required = true)]
    reference: Option<&'a str>,
}

impl<'a> Accepted<'a> {
    pub(super) fn of(message: &'a Message) -> Self {
        let delivery = |(n, recipient): (usize, &'a crate::model::Recipient)| AcceptedDelivery {
            id: delivery_id(message.id, n),
            reference: recipient.reference.as_deref(),
        };
        Self {
            id: message_uuid(message.id),
            state: State::Queued.word(),
            deliveries: message.recipients.iter().enumerate().map(delivery).collect(),
            unresolved: &message.unresolved,
            warnings: &message.warnings,
        }
    }
}

/// The body of the 202 of a message; the same at every time.
pub(super) fn accepted_body(message: &Message) -> Vec<u8> {
    // An id and a name for each, and some.
    let mut body = Vec::with_capacity(128 + 96 * message.recipients.len());
    // Strings and ids into memory: it does not fail.
    let _ = serde_json::to_writer(&mut body, &Accepted::of(message));
    body
}

/// A message as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct View<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    /// A page of its deliveries.
    deliveries: Deliveries<'a>,
}

/// A message as it stands, without its deliveries.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MessageHead)]
pub(super) struct Head<'a> {
    /// The message's id.
    #[schema(schema_with = id)]
    id: Uuid,
    /// `queued` while nothing was attempted, `sending` while anything is unsettled; then what its deliveries share, or `partial`.
    #[schema(schema_with = message_states)]
    state: &'static str,
    /// The route it takes.
    route: &'a str,
    /// `high` or `normal`.
    priority: &'static str,
    /// When it was accepted.
    #[schema(format = DateTime)]
    accepted_at: String,
    /// When its life ends.
    #[schema(format = DateTime)]
    expires_at: String,
    /// The backend's own labels.
    metadata: &'a BTreeMap<String, String>,
    /// The `traceparent` that it came with. Absent when there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    trace: Option<String>,
    /// How many deliveries are in each state; states without any are absent.
    #[schema(value_type = BTreeMap<String, u32>)]
    counts: Counts,
}

/// A page of deliveries.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Deliveries<'a> {
    /// In the order of the recipients.
    #[schema(value_type = Vec<Delivery<'_>>)]
    items: Vec<Delivery<'a>>,
    /// The `cursor` of the next page; null: this is the last.
    #[schema(required = true)]
    next: Option<String>,
}

/// A delivery as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Delivery<'a> {
    /// The delivery's id.
    #[schema(schema_with = id)]
    id: Uuid,
    /// The backend's name for the recipient.
    #[serde(rename = "ref")]
    #[schema(required = true)]
    reference: Option<&'a str>,
    /// Where it is.
    #[schema(schema_with = delivery_states)]
    state: &'static str,
    /// Why it is there.
    #[schema(schema_with = reasons, required = true)]
    reason: Option<&'static str>,
    /// The provider that accepted it, or was tried last.
    #[schema(required = true)]
    provider: Option<&'a str>,
    /// The accepting vendor's id for it.
    #[schema(required = true)]
    provider_message_id: Option<&'a str>,
    /// When it is tried again, if a time is set.
    #[schema(format = DateTime, required = true)]
    next_at: Option<String>,
    /// The latest attempts, oldest first, at most 16.
    #[schema(value_type = Vec<AttemptView<'_>>)]
    attempts: Vec<AttemptView<'a>>,
}

/// One call to one provider.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Attempt)]
pub(super) struct AttemptView<'a> {
    /// Counted from 1 over the delivery's life.
    n: u32,
    /// The provider's id.
    provider: &'a str,
    /// The address kind.
    kind: &'a str,
    /// What came of it.
    #[schema(schema_with = outcomes)]
    outcome: &'static str,
    /// HTTP status, if one came.
    #[schema(required = true)]
    status: Option<u16>,
    /// The vendor's own code.
    #[schema(required = true)]
    code: Option<&'a str>,
    /// One line for people.
    #[schema(required = true)]
    detail: Option<&'a str>,
    /// When the call began.
    #[schema(format = DateTime)]
    started_at: String,
    /// How long it took, in milliseconds.
    latency_ms: u32,
}

/// Deliveries by state.
#[derive(Debug, Default)]
pub(super) struct Counts([u32; State::DELIVERY.len()]);

/// Where all deliveries of a message stand.
pub(super) struct Standing<'a> {
    message: &'a Message,
    deliveries: Vec<Stand<'a>>,
}

/// Where one stands.
#[derive(Clone, Copy)]
struct Stand<'a> {
    state: State,
    reason: Option<Reason>,
    progress: Option<&'a Progress>,
}

impl<'a> Standing<'a> {
    /// `live` is the dispatcher's answer, and was asked for before `stored` was read.
    pub(super) fn of(
        message: &'a Message,
        live: &'a [(u16, Progress)],
        stored: &'a [(u16, Progress)],
    ) -> Self {
        let born = message.recipients.iter().map(|recipient| Stand {
            state: if recipient.no_route { State::Failed } else { State::Queued },
            reason: recipient.no_route.then_some(Reason::NoRoute),
            progress: None,
        });
        let mut standing = Self { message, deliveries: born.collect() };
        standing.put(stored);
        // What has settled on disk stays; the dispatcher may not know yet.
        let unsettled = live.iter().filter(|(n, _)| !standing.settled_at(*n));
        let unsettled: Vec<_> = unsettled.collect();
        for entry in unsettled {
            standing.put(std::slice::from_ref(entry));
        }
        standing
    }

    fn put(&mut self, known: &'a [(u16, Progress)]) {
        for (n, progress) in known {
            if let Some(stand) = self.deliveries.get_mut(usize::from(*n)) {
                let (state, reason) = (progress.state, progress.reason);
                *stand = Stand { state, reason, progress: Some(progress) };
            }
        }
    }

    fn settled_at(&self, n: u16) -> bool {
        self.deliveries.get(usize::from(n)).is_some_and(|stand| stand.state.settled())
    }

    /// Whether nothing is left to do.
    pub(super) fn settled(&self) -> bool {
        self.deliveries.iter().all(|stand| stand.state.settled())
    }

    /// The message's state.
    pub(super) fn state(&self) -> State {
        message_state(self.deliveries.iter().map(|stand| stand.state))
    }

    /// How it is shown in a list.
    pub(super) fn head(&self) -> Head<'a> {
        let message = self.message;
        Head {
            id: message_uuid(message.id),
            state: self.state().word(),
            route: &message.route,
            priority: message.push.priority.word(),
            accepted_at: message.id.accepted_at().rfc3339(),
            expires_at: message.expires_at().rfc3339(),
            metadata: &message.metadata,
            trace: message.trace.map(|trace| trace.to_string()),
            counts: self.counts(),
        }
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for stand in &self.deliveries {
            counts.add(stand.state);
        }
        counts
    }

    /// How it is shown.
    pub(super) fn view(&self, page: Page) -> View<'a> {
        let Self { message, deliveries } = self;
        let (range, next) = page.of_many(deliveries.len());
        let items = range.map(|n| delivery(message, n, deliveries[n])).collect();
        View { head: self.head(), deliveries: Deliveries { items, next } }
    }
}

fn delivery<'a>(message: &'a Message, n: usize, stand: Stand<'a>) -> Delivery<'a> {
    let progress = stand.progress;
    let attempts = progress.map_or(&[][..], |progress| &progress.attempts);
    Delivery {
        id: delivery_id(message.id, n),
        reference: message.recipients[n].reference.as_deref(),
        state: stand.state.word(),
        reason: stand.reason.map(Reason::word),
        provider: progress.and_then(|progress| progress.provider.as_deref()),
        provider_message_id: progress.and_then(|progress| progress.provider_message_id.as_deref()),
        next_at: progress.and_then(|progress| progress.next_at).map(|at| at.rfc3339()),
        attempts: attempts.iter().map(attempt).collect(),
    }
}

/// Attempts as they are shown.
pub fn attempts(attempts: &[Attempt]) -> serde_json::Value {
    // Strings and numbers: it does not fail.
    serde_json::to_value(attempts.iter().map(attempt).collect::<Vec<_>>()).unwrap_or_default()
}

pub(super) fn attempt(attempt: &Attempt) -> AttemptView<'_> {
    AttemptView {
        n: attempt.n,
        provider: &attempt.provider,
        kind: &attempt.kind,
        outcome: attempt.outcome.word(),
        status: attempt.status,
        code: attempt.code.as_deref(),
        detail: attempt.detail.as_deref(),
        started_at: attempt.started_at.rfc3339(),
        latency_ms: attempt.latency_ms,
    }
}

impl Counts {
    fn add(&mut self, state: State) {
        if let Some(at) = State::DELIVERY.iter().position(|known| *known == state) {
            self.0[at] += 1;
        }
    }
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (state, count) in State::DELIVERY.iter().zip(self.0).filter(|(_, count)| *count > 0) {
            map.serialize_entry(state.word(), &count)?;
        }
        map.end()
    }
}

/// The answer to a cancellation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Cancelled)]
pub(super) struct CancelledView {
    /// The message's id.
    #[schema(schema_with = id)]
    pub(super) id: Uuid,
    /// Deliveries taken back.
    pub(super) cancelled: u32,
    /// Deliveries with an attempt in flight: taken back unless it is accepted.
    pub(super) in_flight: u32,
    /// Deliveries that had settled before.
    pub(super) settled: u32,
}

pub(super) fn message_uuid(id: MessageId) -> Uuid {
    Uuid::from_u128(id.as_u128())
}

fn delivery_id(message: MessageId, n: usize) -> Uuid {
    // A message has at most MAX_DELIVERIES, which fits.
    message.delivery(n as u16).uuid()
}

/// A recipient that could not be turned into deliveries.
#[derive(Debug, ToSchema)]
#[schema(as = Unresolved)]
#[expect(dead_code, reason = "describes what `Unresolved` serialises to")]
pub(super) struct UnresolvedShape {
    /// Its place in `to`.
    index: u32,
    /// The user that was named.
    user: String,
    /// `no_devices`.
    reason: String,
}

/// Something in an accepted message that the backend should mend.
#[derive(Debug, ToSchema)]
#[schema(as = Warning)]
#[expect(dead_code, reason = "describes what `Warning` serialises to")]
pub(super) struct WarningShape {
    /// JSON pointer into the request; empty: the whole.
    pointer: String,
    /// What, and what to do.
    detail: String,
}

pub(super) fn words(
    words: impl IntoIterator<Item = &'static str>,
) -> utoipa::openapi::ObjectBuilder {
    utoipa::openapi::ObjectBuilder::new()
        .schema_type(utoipa::openapi::schema::Type::String)
        .enum_values(Some(words))
}

/// An id, wherever one is shown.
pub(super) fn id() -> utoipa::openapi::Object {
    let uuid = utoipa::openapi::SchemaFormat::Custom("uuid".to_owned());
    utoipa::openapi::ObjectBuilder::new()
        .schema_type(utoipa::openapi::schema::Type::String)
        .format(Some(uuid))
        .description(Some("A UUIDv7."))
        .build()
}

fn delivery_states() -> utoipa::openapi::Object {
    words(State::DELIVERY.map(State::word)).build()
}

/// The states of a message, wherever one is described.
pub(super) fn message_states() -> utoipa::openapi::Object {
    let states = State::DELIVERY.iter().filter(|state| **state != State::Waiting);
    words(states.chain([&State::Partial]).map(|state| state.word())).build()
}

fn outcomes() -> utoipa::openapi::Object {
    words(pushyard_providers::Outcome::ALL.map(pushyard_providers::Outcome::word)).build()
}

fn reasons() -> utoipa::openapi::Object {
    use utoipa::openapi::schema::{SchemaType, Type};
    let words = Reason::ALL.map(|reason| serde_json::Value::from(reason.word()));
    utoipa::openapi::ObjectBuilder::new()
        .schema_type(SchemaType::Array(vec![Type::String, Type::Null]))
        .enum_values(Some(words.into_iter().chain([serde_json::Value::Null])))
        .build()
}
