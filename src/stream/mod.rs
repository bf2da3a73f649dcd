//! The devices' listener: ntfy's subscription protocol over the hub in
//! `pushyard_providers::stream`, so stock ntfy clients can read from it.
//!
//! Devices read here and send receipts. Publishing is the backends' affair and
//! goes through the api listener; here it is answered as a server answers that
//! forbids it (403, code 40301), but for UnifiedPush, where allowed (`unified`).

mod access;
mod question;
mod refusal;
mod session;
mod settings;
mod socket;
mod unified;
mod upcoming;
mod visitors;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use futures_util::stream;
use pushyard_providers::stream::{
    Form, Full, Hub, HubStats, Tokens, is_reserved, is_topic, network,
};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;

use self::question::Question;
use self::refusal::Refusal;
use self::session::{Seat, Session};
use self::visitors::Visitors;
use crate::api::{HeaderLimit, Observe, receive};
use crate::clock::Clock;
use crate::dispatch::{Dispatcher, Limits};
use crate::feedback::Receipts;
use crate::routing::Rate;
use crate::telemetry::Telemetry;

pub use access::Access;
pub use pushyard_providers::stream::KIND;
pub use settings::Settings;
pub use upcoming::Schedule;

/// Reads of the backlog at once. They block threads that all rooms share, and the
/// disk gains nothing from more.
pub const READERS: usize = 16;

/// What the listener works with.
#[derive(Clone)]
pub struct StreamState {
    /// Topics and their subscribers.
    pub hub: Arc<Hub>,
    /// What is to come; `None`: nobody is told before its time.
    pub schedule: Option<Schedule>,
    /// Turns at the backlog: [`READERS`].
    pub readers: Arc<Semaphore>,
    /// Tokens; `None`: whoever reaches the listener may listen.
    pub tokens: Option<Arc<Tokens>>,
    /// Whether UnifiedPush senders may publish.
    pub unifiedpush: bool,
    /// How many topics one address may listen to.
    pub max_topics_per_address: usize,
    /// How often one address may ask.
    pub rate: Option<Rate>,
    /// See [`Settings`].
    pub keepalive: Duration,
    /// The time.
    pub clock: Arc<Clock>,
    /// Knows receipts.
    pub receipts: Arc<Receipts>,
    /// Takes receipts.
    pub dispatcher: Dispatcher,
    /// `[limits]`: of a receipt's body.
    pub limits: Limits,
    /// Counts requests.
    pub telemetry: Arc<Telemetry>,
    /// Cancelled when the listener closes; ends all subscriptions.
    pub closed: CancellationToken,
}

struct Shared {
    state: StreamState,
    visitors: Visitors,
    /// WebSocket connections after their upgrade.
    sockets: Mutex<JoinSet<()>>,
}

/// All routes of the devices' listener.
pub fn router(state: StreamState) -> Router {
    let observe = Observe::new(Arc::clone(&state.telemetry), "stream");
    let headers = HeaderLimit::new(&state.limits);
    let visitors = Visitors::new(state.rate);
    let shared = Arc::new(Shared { state, visitors, sockets: Mutex::default() });
    Router::new()
        .route("/", get(page).put(forbidden).post(forbidden))
        .route("/v1/health", get(health))
        .route("/v1/stats", get(stats))
        .route("/v1/receipts", post(receipt))
        .route("/{topics}", get(topic_page).put(publish).post(publish))
        .route("/{topics}/{form}", get(subscribe).put(forbidden).delete(forbidden))
        .route("/{topics}/{sequence}/clear", put(forbidden))
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .layer(ServiceBuilder::new().layer(observe).layer(headers).layer(from_fn(cross_origin)))
        .with_state(shared)
}

/// Browsers on any page may read: what protects a topic is its token.
async fn cross_origin(request: Request, next: Next) -> Response {
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::OK.into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, PUT, POST, PATCH, DELETE"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "*"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn page() -> Response {
    let text = "<!DOCTYPE html><title>Pushyard</title><p>Subscribe with an ntfy client.</p>\n";
    ([(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))], text)
        .into_response()
}

async fn topic_page(
    State(shared): State<Arc<Shared>>,
    Path(topic): Path<String>,
    request: Request,
) -> Response {
    if !is_topic(&topic) {
        return Refusal::Unknown.into_response();
    }
    let asks = unified::is_meant(request.headers(), request.uri());
    if asks && unified::open(&shared.state, &topic) { unified::discovery() } else { page().await }
}

async fn health() -> Response {
    axum::Json(serde_json::json!({"healthy": true})).into_response()
}

async fn stats(State(shared): State<Arc<Shared>>) -> Response {
    let HubStats { messages, rate } = shared.state.hub.stats();
    axum::Json(serde_json::json!({"messages": messages, "messages_rate": rate})).into_response()
}

async fn receipt(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Body) -> Response {
    let StreamState { receipts, dispatcher, limits, .. } = &shared.state;
    receive(receipts, dispatcher, limits, &headers, body).await.into_response()
}

async fn forbidden() -> Refusal {
    Refusal::Forbidden
}

async fn unknown() -> Refusal {
    Refusal::Unknown
}

async fn publish(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(topic): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    if !unified::is_meant(&parts.headers, &parts.uri) || !unified::open(&shared.state, &topic) {
        return Err(Refusal::Forbidden);
    }
    check_topic(&topic)?;
    shared.admit(peer)?;
    unified::publish(&shared.state, &topic, &parts.headers, body).await
}

impl Shared {
    /// Counts a request of an address.
    fn admit(&self, peer: SocketAddr) -> Result<(), Refusal> {
        self.visitors.ask(network(peer.ip()), self.state.clock.now().instant)
    }

    /// Whether these topics are open to who asks.
    fn check(
        &self,
        peer: SocketAddr,
        headers: &HeaderMap,
        question: &Question,
        topics: &[Box<str>],
    ) -> Result<(), Refusal> {
        let Some(tokens) = &self.state.tokens else { return Ok(()) };
        let credential = access::credential(headers, question.auth());
        let checked = access::check(tokens, credential.as_deref(), topics, self.state.hub.now());
        checked.map_err(|refusal| match refusal {
            Refusal::Unauthorized => {
                self.visitors.fail(network(peer.ip()), self.state.clock.now().instant)
            }
            other => other,
        })
    }
}

async fn subscribe(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path((topics, form)): Path<(String, String)>,
    mut request: Request,
) -> Result<Response, Refusal> {
    let form = match &*form {
        "json" => Some(Form::Json),
        "sse" => Some(Form::Sse),
        "raw" => Some(Form::Raw),
        "ws" => Some(Form::Ws),
        "auth" => None,
        "publish" | "send" | "trigger" => return Err(Refusal::Forbidden),
        _ => return Err(Refusal::Unknown),
    };
    shared.admit(peer)?;
    let topics: Arc<[Box<str>]> = distinct(&topics, shared.state.max_topics_per_address)?;
    let question = Question::read(request.headers(), request.uri())?;
    let state = &shared.state;
    shared.check(peer, request.headers(), &question, &topics)?;
    let Some(form) = form else {
        return Ok(axum::Json(serde_json::json!({"success": true})).into_response());
    };
    let upgrade = match form {
        Form::Ws => Some(socket::upgrade(&mut request)?),
        Form::Json | Form::Sse | Form::Raw => None,
    };
    let seat = match question.poll {
        true => state.hub.place(peer.ip()).map(|place| Seat::Poll { _place: place }),
        false => state.hub.subscribe(Arc::clone(&topics), peer.ip()).map(Seat::Live),
    };
    let session = Session::new(state, topics, seat.map_err(Refusal::Full)?, question, form);
    Ok(match upgrade {
        Some(upgrade) => {
            let mut sockets = shared.sockets.lock().expect("no code panics while it holds this");
            while sockets.try_join_next().is_some() {}
            let (keepalive, closed) = (state.keepalive, state.closed.clone());
            sockets.spawn(socket::run(upgrade.connection, session, keepalive, closed));
            upgrade.response
        }
        None => streamed(session, form),
    })
}

fn streamed(session: Session, form: Form) -> Response {
    let chunks = stream::try_unfold(session, |mut session| async {
        Ok::<_, std::io::Error>(session.next().await?.map(|chunk| (chunk, session)))
    });
    let kind = match form {
        // The charset is needed: the Android app takes Latin-1 otherwise.
        Form::Json | Form::Ws => "application/x-ndjson; charset=utf-8",
        Form::Sse => "text/event-stream; charset=utf-8",
        Form::Raw => "text/plain; charset=utf-8",
    };
    let mut response = Response::new(Body::from_stream(chunks));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The topics of a path, each once. No more are looked at than anybody may have: a
/// path has room for thousands.
fn distinct(list: &str, most: usize) -> Result<Arc<[Box<str>]>, Refusal> {
    let mut topics: Vec<Box<str>> = Vec::new();
    for topic in list.split(',') {
        check_topic(topic)?;
        if topics.iter().any(|known| **known == *topic) {
            continue;
        }
        if topics.len() == most {
            return Err(Refusal::Full(Full::AddressTopics));
        }
        topics.push(topic.into());
    }
    Ok(topics.into())
}

fn check_topic(topic: &str) -> Result<(), Refusal> {
    match topic {
        _ if is_topic(topic) => Ok(()),
        _ if is_reserved(topic) => Err(Refusal::Reserved),
        _ => Err(Refusal::Topic),
    }
}
