//! `/v1/messages`: take a message, show it, take it back.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::auth::Caller;
use super::openapi::requests::AcceptedOrView;
use super::page::{Page, PageQuery};
use super::problem::{Code, Problem};
use super::read::{self, Media, Segment, Traceparent};
use super::submit::{Submitted, blocking};
use super::view::{CancelledView, Standing, View, accepted_body, message_uuid};
use super::{ApiState, Shared};
use crate::dispatch::Dispatcher;
use crate::intake::time;
use crate::model::{DeliveryId, Message, MessageId, Progress};
use crate::store::{Store, StoreError};

/// The longest `?wait=`.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Says that the answer is that of an earlier request.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SubmitQuery {
    /// Wait until every delivery has settled, at most this long (at most 60s): a duration such as `10s`, or seconds.
    #[param(example = "10s", pattern = "^([0-9]|[1-5][0-9]|60)s?$")]
    wait: Option<String>,
}

#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what `read::idempotency_key` reads")]
struct IdempotencyKey {
    /// The same key and body within 24 h gives the first answer again; the same key with another body is refused. Printable ASCII characters. The body's `idempotency_key` is the same.
    #[param(
        rename = "Idempotency-Key",
        nullable = false,
        example = "order-4711-shipped",
        min_length = 1,
        max_length = 255,
        pattern = "^[ -~]*$"
    )]
    key: Option<String>,
}

/// Take a message.
///
/// Answered when it is on disk (or at once, with `"durability": "memory"`). With
/// `?wait=`, answered when every delivery has settled or the time is over,
/// whichever comes first.
#[utoipa::path(
    post,
    path = "/v1/messages",
    operation_id = "submitMessage",
    tag = "messages",
    params(SubmitQuery, IdempotencyKey, Traceparent),
    request_body(content = ref("#/components/schemas/Message")),
    responses(
        (status = 200, description = "With `?wait=`: every delivery has settled.", body = View<'_>, headers(("Idempotent-Replayed" = String, description = "`true` when an earlier request with this key was accepted."))),
        (status = 202, description = "Accepted. With `?wait=`: the time is over, and this is the view so far.", body = AcceptedOrView<'_>, headers(("Idempotent-Replayed" = String, description = "`true` when this is the first answer again."))),
    )
)]
pub(super) async fn submit(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let caller = shared.state.authenticator.caller(&parts.headers)?;
    let read = async {
        let wait = wait(read::query::<SubmitQuery>(&parts.uri)?.wait.as_deref())?;
        read::media(&parts.headers, Media::Json)?;
        let key = read::idempotency_key(&parts.headers)?;
        let bytes = read::body(&parts.headers, body, &shared.state.limits).await?;
        let submitted = shared.offer(&caller, key, read::trace(&parts.headers), &bytes).await?;
        Ok((submitted, wait))
    };
    let result = read.await;
    shared.count(&caller, result.as_ref().map(|(submitted, _)| submitted));
    let (submitted, wait) = result?;
    match wait {
        None => Ok(accepted(&submitted)),
        Some(wait) => shared.settled_view(&submitted, wait).await,
    }
}

/// Show a message.
///
/// Its state, how many deliveries are in each state, and a page of deliveries.
#[utoipa::path(
    get,
    path = "/v1/messages/{id}",
    operation_id = "getMessage",
    tag = "messages",
    params(PageQuery),
    responses((status = 200, description = "The message as it stands.", body = View<'_>))
)]
pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    Segment(id): Segment,
    request: Request,
) -> Result<Response, Problem> {
    let caller = shared.state.authenticator.caller(request.headers())?;
    let query: PageQuery = read::query(request.uri())?;
    let page = Page::parse(query.limit.as_deref(), query.cursor.as_deref())?;
    let ApiState { dispatcher, store, .. } = &shared.state;
    message_view(dispatcher, store, &caller, Wanted::Message(parse_id(&id)?, page)).await
}

/// What of a message is wanted.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    /// It, and a page of its deliveries.
    Message(MessageId, Page),
    /// It, and of its deliveries this one.
    Delivery(DeliveryId),
}

/// A message as it stands: what both this listener and the operators' one show.
///
/// # Errors
/// 404 for what is not kept, or not this caller's; 503 when the store
/// cannot be read.
pub async fn message_view(
    dispatcher: &Dispatcher,
    store: &Arc<dyn Store>,
    caller: &Caller,
    wanted: Wanted,
) -> Result<Response, Problem> {
    let (id, page, least) = match wanted {
        Wanted::Message(id, page) => (id, page, 0),
        Wanted::Delivery(id) => {
            let place = usize::from(id.n());
            (id.message(), Page::only(place), place + 1)
        }
    };
    // First the dispatcher, then the store: see `view`.
    let live = dispatcher.live(id).await;
    let (message, stored) = stored(store, id, caller).await?;
    if message.recipients.len() < least {
        return Err(no_message());
    }
    let view = Standing::of(&message, &live, &stored).view(page);
    Ok(json(StatusCode::OK, &view))
}

/// Take back what is not yet sent.
///
/// A delivery with an attempt in flight is taken back unless that is accepted.
#[utoipa::path(
    delete,
    path = "/v1/messages/{id}",
    operation_id = "cancelMessage",
    tag = "messages",
    responses((status = 202, description = "What was left is taken back.", body = CancelledView))
)]
pub(super) async fn cancel(
    State(shared): State<Arc<Shared>>,
    Segment(id): Segment,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = shared.state.authenticator.caller(&headers)?;
    let id = parse_id(&id)?;
    let (message, _) = shared.stored(id, &caller).await?;
    let found = shared.state.dispatcher.cancel(id).await;
    if found.cancelled == 0 && found.in_flight == 0 {
        return Err(Problem::new(Code::Settled, "every delivery of this message has settled"));
    }
    // At most MAX_DELIVERIES.
    let all = message.recipients.len() as u32;
    let view = CancelledView {
        id: message_uuid(id),
        cancelled: found.cancelled,
        in_flight: found.in_flight,
        settled: all.saturating_sub(found.cancelled + found.in_flight),
    };
    Ok(json(StatusCode::ACCEPTED, &view))
}

impl Shared {
    /// A message that this caller may see, and what the store has of its
    /// deliveries. Another's is as if it were not there.
    pub(super) async fn stored(
        &self,
        id: MessageId,
        caller: &Caller,
    ) -> Result<(Message, Vec<(u16, Progress)>), Problem> {
        stored(&self.state.store, id, caller).await
    }

    /// Waits for the last delivery, the end of the time or of the server.
    async fn settled_view(
        &self,
        submitted: &Submitted,
        wait: Duration,
    ) -> Result<Response, Problem> {
        let message = submitted.message();
        tokio::select! {
            () = self.state.dispatcher.settled(message.id) => {}
            () = tokio::time::sleep(wait) => {}
            () = self.state.closed.cancelled() => {}
        }
        let live = self.state.dispatcher.live(message.id).await;
        let (store, id) = (Arc::clone(&self.state.store), message.id);
        let stored = blocking(move || store.progress(id)).await??;
        let standing = Standing::of(message, &live, &stored);
        let status = if standing.settled() { StatusCode::OK } else { StatusCode::ACCEPTED };
        Ok(marked(json(status, &standing.view(Page::default())), submitted))
    }
}

async fn stored(
    store: &Arc<dyn Store>,
    id: MessageId,
    caller: &Caller,
) -> Result<(Message, Vec<(u16, Progress)>), Problem> {
    let store = Arc::clone(store);
    let (message, progress) =
        blocking(move || Ok::<_, StoreError>((store.message(id)?, store.progress(id)?))).await??;
    message
        .filter(|message| caller.is_admin() || message.client == *caller.name())
        .map(|message| (message, progress))
        .ok_or_else(no_message)
}

fn wait(text: Option<&str>) -> Result<Option<Duration>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let seconds = || text.parse().ok().map(Duration::from_secs);
    time::duration(text)
        .or_else(seconds)
        .filter(|wait| *wait <= LONGEST_WAIT)
        .map(Some)
        .ok_or_else(|| Problem::parameter("wait", "must be a duration of at most 60s, such as 10s"))
}

fn parse_id(text: &str) -> Result<MessageId, Problem> {
    text.parse().map_err(|()| no_message())
}

/// 404.
pub fn no_message() -> Problem {
    Problem::not_found("there is no message of this id, or it is no longer kept")
}

fn accepted(submitted: &Submitted) -> Response {
    let body = accepted_body(submitted.message());
    marked(json_bytes(StatusCode::ACCEPTED, body), submitted)
}

fn marked(mut response: Response, submitted: &Submitted) -> Response {
    if submitted.replayed() {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

pub(super) fn json(status: StatusCode, shape: &impl Serialize) -> Response {
    // Our own shapes into memory: serialising them does not fail.
    json_bytes(status, serde_json::to_vec(shape).unwrap_or_default())
}

pub(super) fn json_bytes(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
