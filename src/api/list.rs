//! `GET /v1/messages` and `POST /v1/messages/cancel`: messages by what they are.
//!
//! A list walks the store from the newest message backwards. What one call looks
//! at is bounded, so that a filter which nothing matches does not read the whole
//! file: the page is then short, or empty, and `next` says where to go on.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use utoipa::openapi::Object;
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::auth::Caller;
use super::gone::parse_since;
use super::messages::json;
use super::page::{PageQuery, bad_cursor, key_cursor, parse_key_cursor, parse_limit};
use super::problem::Problem;
use super::read::{self, Media};
use super::submit::blocking;
use super::view::{self, Head, Standing};
use crate::clock::Utc;
use crate::intake::{self, json as body_json};
use crate::model::{Message, MessageId, Progress, State as DeliveryState};
use crate::store::StoreError;

/// Messages that one call looks at, and bytes of their records.
const LOOKED_AT: usize = 5_000;
const LOOKED_AT_BYTES: usize = 16 << 20;

/// Cancellations that wait for the disk together.
const CANCELLING: usize = 64;

/// What is asked for.
#[derive(Debug, Default)]
struct Filter {
    reference: Option<String>,
    state: Option<DeliveryState>,
    since: Option<Utc>,
    metadata: BTreeMap<String, String>,
    limit: usize,
    before: Option<MessageId>,
}

/// How it is asked for.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what `Filter::parse` reads")]
struct FilterQuery {
    /// Messages to a recipient of this name.
    r#ref: Option<String>,
    #[param(schema_with = described)]
    state: Option<String>,
    /// Messages accepted at this time or later (RFC 3339).
    #[param(format = DateTime, example = "2026-11-24T00:00:00Z")]
    since: Option<String>,
    /// Messages with this label; may be given for several keys.
    #[param(rename = "metadata.KEY", example = "autumn")]
    metadata: Option<String>,
}

impl Filter {
    fn parse(pairs: Vec<(String, String)>) -> Result<Self, Problem> {
        let mut named: BTreeMap<String, String> = BTreeMap::new();
        let mut filter = Self::default();
        for (name, value) in pairs {
            if let Some(key) = name.strip_prefix("metadata.") {
                if filter.metadata.insert(key.to_owned(), value).is_some() {
                    return Err(Problem::parameter(&name, "is given twice"));
                }
            } else if let Some((name, _)) = named.get_key_value(&name) {
                return Err(Problem::parameter(name, "is given twice"));
            } else {
                named.insert(name, value);
            }
        }
        let get = |name: &str| named.get(name).map(String::as_str);
        filter.limit = parse_limit(get("limit"))?;
        filter.since = parse_since(get("since"))?;
        filter.state = get("state").map(parse_state).transpose()?;
        filter.before = get("cursor").map(parse_cursor).transpose()?;
        filter.reference = named.remove("ref");
        Ok(filter)
    }

    /// What the message alone can tell.
    fn matches(&self, message: &Message) -> bool {
        let reference = |wanted: &String| {
            message.recipients.iter().any(|recipient| recipient.reference.as_ref() == Some(wanted))
        };
        let label = |(key, value): (&String, &String)| message.metadata.get(key) == Some(value);
        self.reference.as_ref().is_none_or(reference) && self.metadata.iter().all(label)
    }
}

/// The states that a message can be in.
fn message_states() -> impl Iterator<Item = DeliveryState> {
    let states = DeliveryState::DELIVERY.into_iter();
    states.filter(|state| *state != DeliveryState::Waiting).chain([DeliveryState::Partial])
}

fn described() -> Object {
    let mut states = view::message_states();
    states.description = Some("Messages in this state.".to_owned());
    states
}

fn parse_state(text: &str) -> Result<DeliveryState, Problem> {
    message_states().find(|state| state.word() == text).ok_or_else(|| {
        let words: Vec<_> = message_states().map(DeliveryState::word).collect();
        Problem::parameter("state", &format!("must be one of {}", words.join(", ")))
    })
}

fn parse_cursor(text: &str) -> Result<MessageId, Problem> {
    let bytes: [u8; 16] = parse_key_cursor(text)?;
    MessageId::from_u128(u128::from_be_bytes(bytes)).ok_or_else(bad_cursor)
}

/// A page of messages.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MessagePage<'a> {
    /// Newest first.
    #[schema(value_type = Vec<Head<'_>>)]
    items: Vec<Head<'a>>,
    /// The `cursor` of the next page; null: this is the last.
    #[schema(required = true)]
    next: Option<String>,
}

/// List messages.
///
/// Newest first. One call looks at 5,000 messages or 16 MiB of them at most: with a
/// filter a page may be short or empty, and is not the last as long as it has a `next`.
#[utoipa::path(
    get,
    path = "/v1/messages",
    operation_id = "listMessages",
    tag = "messages",
    params(FilterQuery, PageQuery),
    responses((status = 200, description = "A page.", body = MessagePage<'_>))
)]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Problem> {
    let caller = shared.state.authenticator.caller(request.headers())?;
    let filter = Arc::new(Filter::parse(read::query(request.uri())?)?);
    let (messages, next) = shared.walk(&caller, &filter).await?;
    let mut live = Vec::with_capacity(messages.len());
    for message in &messages {
        // Before the store is asked: what settles in between is then in the store.
        live.push(shared.state.dispatcher.live(message.id).await);
    }
    let (store, ids) = (Arc::clone(&shared.state.store), ids(&messages));
    let read = move || ids.into_iter().map(|id| store.progress(id)).collect::<Result<Vec<_>, _>>();
    let stored: Vec<Vec<(u16, Progress)>> = blocking(read).await??;
    let standings = messages.iter().zip(&live).zip(&stored);
    let items = standings
        .map(|((message, live), stored)| Standing::of(message, live, stored))
        .filter(|standing| filter.state.is_none_or(|wanted| standing.state() == wanted))
        .map(|standing| standing.head())
        .collect();
    Ok(json(StatusCode::OK, &MessagePage { items, next: next.map(cursor) }))
}

fn ids(messages: &[Message]) -> Vec<MessageId> {
    messages.iter().map(|message| message.id).collect()
}

fn cursor(id: MessageId) -> String {
    key_cursor(&id.as_u128().to_be_bytes())
}

/// What was taken back.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct CancelledMessages {
    /// Messages of which something was taken back.
    messages: u32,
    /// Deliveries taken back.
    cancelled: u32,
}

/// Take back all messages of a kind.
///
/// Of your messages that have the labels (and to the recipients of that name), what
/// is not yet sent. A delivery with an attempt in flight is taken back, too, unless
/// that is accepted, but is not counted.
#[utoipa::path(
    post,
    path = "/v1/messages/cancel",
    operation_id = "cancelMessages",
    tag = "messages",
    request_body(content = ref("#/components/schemas/CancelRequest")),
    responses((status = 202, description = "What was left is taken back.", body = CancelledMessages))
)]
pub(super) async fn cancel(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let caller = shared.state.authenticator.caller(&parts.headers)?;
    read::media(&parts.headers, Media::Json)?;
    let bytes = read::body(&parts.headers, body, &shared.state.limits).await?;
    let node = body_json::parse(&bytes, shared.state.limits.max_json_depth)?;
    let filter = intake::cancel_filter(&node).map_err(Problem::invalid)?;
    drop(node);
    let (store, client) = (Arc::clone(&shared.state.store), Arc::clone(caller.name()));
    let found = blocking(move || {
        let mut found = Vec::new();
        // The client's own, for an admin, too: a slip must not reach everybody's.
        store.recover(&mut |open| {
            if open.message.client == client {
                let places = filter.of(&open.message);
                found.extend((!places.is_empty()).then_some((open.message.id, places)));
            }
        })?;
        Ok::<_, StoreError>(found)
    })
    .await??;
    let dispatcher = &shared.state.dispatcher;
    let each = |(id, places)| dispatcher.cancel_part(id, places);
    let counted = stream::iter(found).map(each).buffer_unordered(CANCELLING);
    let all = counted.fold(CancelledMessages::default(), |mut all, found| async move {
        all.messages += u32::from(found.cancelled > 0);
        all.cancelled += found.cancelled;
        all
    });
    Ok(json(StatusCode::ACCEPTED, &all.await))
}

impl Shared {
    /// The messages that match as far as they tell by themselves, and where to go on.
    async fn walk(
        &self,
        caller: &Caller,
        filter: &Arc<Filter>,
    ) -> Result<(Vec<Message>, Option<MessageId>), Problem> {
        let (store, filter) = (Arc::clone(&self.state.store), Arc::clone(filter));
        let (client, admin) = (Arc::clone(caller.name()), caller.is_admin());
        let walk = move || {
            let (mut found, mut last) = (Vec::new(), None);
            let (mut looked_at, mut bytes, mut more) = (0, 0, false);
            store.newest(filter.before, &mut |message, size| {
                if filter.since.is_some_and(|since| message.id.accepted_at() < since) {
                    return false;
                }
                if found.len() == filter.limit || looked_at == LOOKED_AT || bytes > LOOKED_AT_BYTES
                {
                    more = true;
                    return false;
                }
                looked_at += 1;
                bytes += size;
                last = Some(message.id);
                if (admin || message.client == client) && filter.matches(&message) {
                    found.push(message);
                }
                true
            })?;
            Ok::<_, StoreError>((found, last.filter(|_| more)))
        };
        Ok(blocking(walk).await??)
    }
}
