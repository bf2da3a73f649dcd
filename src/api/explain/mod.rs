//! `POST /v1/messages/explain`: where a message would go, and why; and where one
//! went.
//!
//! A dry run reads the message as `POST /v1/messages` does and stops before
//! anything is taken: no rate is counted, no idempotency key looked up, nothing
//! handed over. `?delivery=` tells of one that was accepted: its attempts, each
//! with what moved it there, and where it would go now.
//!
//! The dispatcher is asked for one recipient at a time, when the one before has
//! been written: pushes go on between, and the answer for a thousand recipients is
//! never in memory as a whole.

mod mask;
mod moves;
mod view;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body as Answer, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use futures_util::{StreamExt, stream};
use pushyard_providers::{Address, Call, Written};
use serde::Deserialize;
use uuid::Uuid;

use self::mask::{MASK, Masker, RequestView};
use self::view::{DeliveryView, Explanation, Foot, Head, Past};
use super::Shared;
use super::auth::Caller;
use super::layers::Permit;
use super::messages::{json_bytes, no_message};
use super::problem::Problem;
use super::read::{self, Media};
use crate::clock::Utc;
use crate::dispatch::{Asked, Explained, Rejected, Weighed};
use crate::intake::{Offered, json};
use crate::model::{Body, DeliveryId, Progress, Reason, State as Delivered};

/// The life that is left is never told shorter than this, as in a real call.
const LEAST_TTL: Duration = Duration::from_secs(1);

#[derive(Debug, Deserialize)]
struct ExplainQuery {
    delivery: Option<String>,
}

/// Explain where a message would go.
///
/// A dry run of the message: for each recipient the candidates in order, each with
/// its state, its share of the traffic and the vendor's request as it would go out,
/// and why all others are left out. The draw between candidates happens when a
/// message is sent. Nothing is sent, stored or counted. With `?delivery=` and
/// without a body: one delivery that was accepted, with its attempts.
#[utoipa::path(
    post,
    path = "/v1/messages/explain",
    operation_id = "explainMessage",
    tag = "messages",
    params(("delivery" = Option<String>, Query, description = "The id of a delivery of yours, instead of a message.")),
    request_body(content = ref("#/components/schemas/Message"), description = "The message, as `POST /v1/messages` takes it; absent with `?delivery=`."),
    responses((status = 200, description = "Where each delivery would go, and why.", body = Explanation<'_>))
)]
pub(super) async fn explain(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let caller = shared.state.authenticator.caller(&parts.headers)?;
    let query: ExplainQuery = read::query(&parts.uri)?;
    let bytes = read::body(&parts.headers, body, &shared.state.limits).await?;
    let look = match &query.delivery {
        Some(id) => shared.past(id, &bytes, &caller).await?,
        None => shared.rehearsal(&parts.headers, &bytes, &caller).await?,
    };
    // The request lasts as long as its answer does.
    look.answer(shared, parts.extensions.get::<Permit>().cloned()).await
}

impl Shared {
    /// A message that might be sent.
    async fn rehearsal(
        &self,
        headers: &HeaderMap,
        bytes: &[u8],
        caller: &Arc<Caller>,
    ) -> Result<Look, Problem> {
        read::media(headers, Media::Json)?;
        let header_key = read::idempotency_key(headers)?;
        let node = json::parse(bytes, self.state.limits.max_json_depth)?;
        let devices = self.devices_named(caller, &node).await?;
        let offered = Offered {
            client: caller.name(),
            routes: caller.routes(),
            header_key,
            devices: &devices,
            idempotency: None,
            trace: None,
        };
        let body = self.intake.rehearse(&node, offered, &self.state.catalog.load())?;
        Ok(self.look(body, None, true))
    }

    /// A delivery that was accepted. Another's is as if it were not there.
    async fn past(&self, id: &str, bytes: &[u8], caller: &Arc<Caller>) -> Result<Look, Problem> {
        if !matches!(bytes.trim_ascii(), b"" | b"{}") {
            let detail = "cannot stand beside a body; send either a message or ?delivery=";
            return Err(Problem::parameter("delivery", detail));
        }
        let id: DeliveryId = id.parse().map_err(|()| no_delivery())?;
        let live = self.state.dispatcher.live(id.message()).await;
        let (message, stored) =
            self.stored(id.message(), caller).await.map_err(|problem| match problem {
                problem if problem == no_message() => no_delivery(),
                problem => problem,
            })?;
        let n = id.n();
        let recipient = message.recipients.get(usize::from(n)).ok_or_else(no_delivery)?;
        let of = |known: Vec<(u16, Progress)>| {
            known.into_iter().find(|(place, _)| *place == n).map(|(_, progress)| progress)
        };
        // What has settled on disk stays; the dispatcher may not know yet.
        let (stored, live) = (of(stored), of(live));
        let settled = stored.as_ref().is_some_and(|stored| stored.state.settled());
        let known = if settled { stored } else { live.or(stored) };
        let progress = known.unwrap_or_else(|| {
            let mut born = Progress::queued(message.id.accepted_at());
            if recipient.no_route {
                (born.state, born.reason) = (Delivered::Failed, Some(Reason::NoRoute));
            }
            born
        });
        let own = message.client == *caller.name();
        Ok(self.look(Body::new(message), Some((id, progress)), own))
    }

    fn look(&self, body: Arc<Body>, past: Option<(DeliveryId, Progress)>, own: bool) -> Look {
        let unable = self.unable(&body);
        Look { body, past, unable, own }
    }

    /// Providers of the route that cannot take the message.
    fn unable(&self, body: &Body) -> Vec<(u64, String)> {
        let catalog = self.state.catalog.load();
        let route = catalog.route(&body.message().route);
        let members = route.into_iter().flat_map(|route| route.tiers.iter().flatten());
        let unable = members.filter_map(|member| {
            let built = catalog.provider(member.provider);
            let kind = built.settings.kind;
            let wanted = |address: &Address| address.kind().name == kind;
            if !body.message().recipients.iter().any(|r| r.addresses.iter().any(wanted)) {
                return None;
            }
            let invalid = body.payload(built.serial, &*built.provider).err()?;
            let detail = format!("{kind} cannot take this message: {invalid} ({})", invalid.code);
            Some((built.serial, detail))
        });
        unable.collect()
    }
}

/// What is to be explained.
struct Look {
    body: Arc<Body>,
    /// Of a delivery that was accepted.
    past: Option<(DeliveryId, Progress)>,
    unable: Vec<(u64, String)>,
    /// It is the caller's own message: it may see what is in it.
    own: bool,
}

impl Look {
    async fn answer(
        self,
        shared: Arc<Shared>,
        permit: Option<Permit>,
    ) -> Result<Response, Problem> {
        // At most MAX_DELIVERIES.
        let all = self.body.message().recipients.len() as u16;
        let places = self.past.as_ref().map_or(0..all, |(id, _)| id.n()..id.n() + 1);
        let first = self.ask(&shared, places.start).await?;
        let head = Head::bytes(self.body.message(), first.paused);
        let begun = places.start;
        let item = Bytes::from(self.item(&shared, begun, &first));
        let foot = Foot::bytes(self.body.message(), self.past.is_some());
        let look = Arc::new(self);
        let others = stream::iter(places.skip(1)).then(move |n| {
            let (look, shared) = (Arc::clone(&look), Arc::clone(&shared));
            let _ = &permit;
            async move {
                let explained = look.ask(&shared, n).await;
                // The server goes down: the answer breaks off.
                let explained = explained.map_err(|_| io::Error::other("shutting down"))?;
                let mut item = vec![b','];
                item.extend(look.item(&shared, n, &explained));
                Ok::<_, io::Error>(Bytes::from(item))
            }
        });
        let begin = stream::iter([Ok(Bytes::from(head)), Ok(item)]);
        let end = stream::iter([Ok(Bytes::from(foot))]);
        Ok(json_bytes(StatusCode::OK, Answer::from_stream(begin.chain(others).chain(end))))
    }

    async fn ask(&self, shared: &Shared, n: u16) -> Result<Explained, Rejected> {
        let asked = Asked {
            body: Arc::clone(&self.body),
            n,
            record: self.past.as_ref().map(|(_, progress)| progress.clone()),
            unable: self.unable.clone(),
        };
        shared.state.dispatcher.explain(asked).await
    }

    /// What is answered of one recipient.
    fn item(&self, shared: &Shared, n: u16, explained: &Explained) -> Vec<u8> {
        let recipient = &self.body.message().recipients[usize::from(n)];
        let names: Vec<String> =
            recipient.addresses.iter().map(|address| shared.names.name(address)).collect();
        let now = shared.state.clock.now().utc;
        let request = |weighed: &Weighed| self.request(explained, weighed, n, now);
        let past = self.past.as_ref().map(|(id, progress)| Past { id: *id, progress });
        let reference = recipient.reference.as_deref();
        let view = DeliveryView::of(reference, explained, &names, &request, past.as_ref());
        // Our own shapes into memory: serialising them does not fail.
        serde_json::to_vec(&view).unwrap_or_default()
    }

    /// The vendor's request, masked; or what is wrong with it.
    fn request(
        &self,
        explained: &Explained,
        weighed: &Weighed,
        n: u16,
        now: Utc,
    ) -> Result<RequestView, String> {
        let message = self.body.message();
        let built = explained.catalog.provider(weighed.seen.provider);
        let recipient = &message.recipients[usize::from(n)];
        let address = &recipient.addresses[usize::from(weighed.seen.address)];
        // One that is not sent has no id.
        let delivery = self.past.as_ref().map_or(Uuid::nil(), |(id, _)| id.uuid());
        let payload = self.body.payload(built.serial, &*built.provider);
        let never = message.now_or_never();
        let expires_at = message.expires_at();
        let call = Call {
            payload: payload.map_err(|invalid| invalid.to_string())?,
            address: address.clone(),
            delivery,
            reference: recipient.reference.as_deref().map(Into::into),
            pushyard: format!("{delivery}.{MASK}").into(),
            ttl: if never { Duration::ZERO } else { expires_at.since(now).max(LEAST_TTL) },
            expires_at: if never { 0 } else { expires_at.ms().div_ceil(1000) },
            written: Written::default(),
        };
        let request = built.provider.request(&call).map_err(|invalid| invalid.to_string())?;
        let id = delivery.to_string();
        let masker = Masker::new(address, &id);
        let mut view = masker.view(&request, &built.provider.credential_headers());
        if !self.own {
            view.hide_body();
        }
        Ok(view)
    }
}

fn no_delivery() -> Problem {
    Problem::not_found("there is no delivery of this id, or it is no longer kept")
}
