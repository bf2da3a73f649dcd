//! The devices' listener: ntfy's subscription protocol over the hub in
//! `pushyard_providers::stream`, so stock ntfy clients can read from it.
//!
//! Devices read here and send receipts. Publishing is the backends' affair and
//! goes through the api listener; here it is answered as a server answers that
//! forbids it (403, code 40301).

mod access;
mod question;
mod refusal;
mod session;
mod socket;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream;
use pushyard_providers::Secret;
use pushyard_providers::stream::{Form, Full, Hub, HubSettings, Tokens, is_topic};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;

use self::question::Question;
use self::refusal::Refusal;
use self::session::Session;
use crate::api::{HeaderLimit, Observe, receive};
use crate::dispatch::{Dispatcher, Limits};
use crate::feedback::Receipts;
use crate::telemetry::Telemetry;

pub use access::Access;
pub use pushyard_providers::stream::KIND;

/// `[stream]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where devices connect; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// Who may listen; `None`: whoever reaches a loopback address, else by token.
    pub access: Option<Access>,
    /// What tokens are made with; `None`: derived from the server's own.
    pub secret: Option<Secret>,
    /// The hub's bounds.
    pub hub: HubSettings,
    /// Silence on a stream is broken after this long.
    pub keepalive: Duration,
}

impl Settings {
    /// Whether no token is needed.
    pub fn is_open(&self) -> bool {
        match self.access {
            Some(Access::Open) => true,
            Some(Access::Token) => false,
            None => self.listen.is_none_or(|listen| listen.ip().is_loopback()),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: None,
            access: None,
            secret: None,
            hub: HubSettings {
                backlog: 1000,
                // As long as ntfy's own server keeps messages.
                backlog_ttl: Duration::from_secs(12 * 60 * 60),
                max_subscribers: 10_000,
                max_topics_per_address: 30,
            },
            // ntfy's default: its Android app gives up after 77 s of silence, many
            // proxies after 60 s.
            keepalive: Duration::from_secs(45),
        }
    }
}

/// What the listener works with.
#[derive(Clone)]
pub struct StreamState {
    /// Topics and their subscribers.
    pub hub: Arc<Hub>,
    /// Tokens; `None`: whoever reaches the listener may listen.
    pub tokens: Option<Arc<Tokens>>,
    /// See [`Settings`].
    pub keepalive: Duration,
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
    /// WebSocket connections after their upgrade.
    sockets: Mutex<JoinSet<()>>,
}

/// All routes of the devices' listener.
pub fn router(state: StreamState) -> Router {
    let observe = Observe::new(Arc::clone(&state.telemetry), "stream");
    let headers = HeaderLimit::new(&state.limits);
    let shared = Arc::new(Shared { state, sockets: Mutex::default() });
    Router::new()
        .route("/", get(page))
        .route("/v1/health", get(health))
        .route("/v1/receipts", post(receipt))
        .route("/{topics}", get(topic_page).put(forbidden).post(forbidden))
        .route("/{topics}/{form}", get(subscribe).put(forbidden).delete(forbidden))
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

async fn topic_page(Path(topic): Path<String>) -> Response {
    if is_topic(&topic) { page().await } else { Refusal::Unknown.into_response() }
}

async fn health() -> Response {
    axum::Json(serde_json::json!({"healthy": true})).into_response()
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
    let topics: Arc<[Box<str>]> = distinct(&topics)?;
    let question = Question::read(request.headers(), request.uri())?;
    let state = &shared.state;
    if let Some(tokens) = &state.tokens {
        let credential = access::credential(request.headers(), question.auth());
        access::check(tokens, credential.as_deref(), &topics, state.hub.now())?;
    }
    let Some(form) = form else {
        return Ok(axum::Json(serde_json::json!({"success": true})).into_response());
    };
    let upgrade = match form {
        Form::Ws => Some(socket::upgrade(&mut request)?),
        Form::Json | Form::Sse | Form::Raw => None,
    };
    let live = match question.poll {
        true => None,
        false => Some(state.hub.subscribe(Arc::clone(&topics), peer.ip()).map_err(full)?),
    };
    let session = Session::new(state, topics, live, question, form);
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

/// The topics of a path, each once.
fn distinct(list: &str) -> Result<Arc<[Box<str>]>, Refusal> {
    let mut topics: Vec<Box<str>> = Vec::new();
    for topic in list.split(',') {
        if !is_topic(topic) {
            return Err(Refusal::Topic);
        }
        if !topics.iter().any(|known| **known == *topic) {
            topics.push(topic.into());
        }
    }
    Ok(topics.into())
}

fn full(full: Full) -> Refusal {
    match full {
        Full::Subscribers => Refusal::Subscribers,
        Full::Topics => Refusal::Topics,
        Full::Closed => Refusal::Closed,
    }
}
