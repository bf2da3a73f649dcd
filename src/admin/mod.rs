//! The operators' listener: liveness, readiness, metrics, and what can be seen
//! and done under `/admin/v1/`. It holds no state of its own: it reads the
//! snapshot that the dispatcher publishes.

mod audit;
mod console;
mod dead_letters;
mod events;
mod form;
mod health;
mod log;
mod operate;
mod view;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
use futures_util::future::BoxFuture;
use pushyard_providers::stream::Hub;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

use crate::api::{
    Authenticator, Code, HeaderLimit, Observe, Page, Parameters, Problem, RequestId, Segment,
    Wanted, message_view, no_message, panicked, unknown_method, unknown_path,
};
use crate::clock::Clock;
use crate::dispatch::{Dispatcher, Limits, Snapshot, Wish};
use crate::model::{DeliveryId, MessageId};
use crate::routing::Catalog;
use crate::store::Store;
use crate::telemetry::Telemetry;

/// Reads the configuration file again: what has changed, or all that is wrong.
pub type Reload =
    Arc<dyn Fn() -> BoxFuture<'static, Result<Reloaded, Vec<serde_json::Value>>> + Send + Sync>;

/// What a reload has changed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Reloaded {
    /// Sections that are in force now, as `providers.apns`.
    pub changed: Vec<String>,
    /// Keys that differ and are taken up at the next start.
    pub restart_needed: Vec<String>,
    /// Whether nothing had to be done.
    pub unchanged: bool,
}

/// What the admin listener looks at.
#[derive(Clone)]
pub struct AdminState {
    /// Providers and routes.
    pub catalog: Arc<ArcSwap<Catalog>>,
    /// The dispatcher's latest publication.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// The devices' own channel, where there is one: its figures.
    pub hub: Option<Arc<Hub>>,
    /// Whether it takes new messages, its figures, and what has settled.
    pub store: Arc<dyn Store>,
    /// The metrics.
    pub telemetry: Arc<Telemetry>,
    /// Who may ask.
    pub authenticator: Arc<Authenticator>,
    /// Whether `/metrics` is open to all.
    pub open_metrics: bool,
    /// The effective configuration, secrets masked.
    pub config: Arc<ArcSwap<serde_json::Value>>,
    /// Reads the configuration file again.
    pub reload: Reload,
    /// Does what operators want, and knows where unsettled deliveries stand.
    pub dispatcher: Dispatcher,
    /// Cancelled when a shutdown begins.
    pub drain: CancellationToken,
    /// Cancelled when the listener closes: ends what streams.
    pub closed: CancellationToken,
    /// `[limits]`: of request bodies.
    pub limits: Limits,
    /// The time.
    pub clock: Arc<Clock>,
}

/// All routes of the admin listener. `explain` explains messages to those who may
/// use it.
pub fn router(state: AdminState, explain: MethodRouter) -> Router {
    let explain = Router::new()
        .route("/admin/v1/explain", explain)
        .layer(from_fn_with_state(Arc::clone(&state.authenticator), only_operators));
    let wish = |wish| post(move |s, h, id, body| operate::provider(s, h, id, body, wish));
    let pause_route =
        |paused| post(move |s, h, name, body| operate::route_pause(s, h, name, body, paused));
    let pause_client =
        |paused| post(move |s, h, name, body| operate::client_pause(s, h, name, body, paused));
    Router::new()
        .route("/", get(console::page))
        .route("/console/{file}", get(console::asset))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics))
        .route("/admin/v1/providers", get(providers))
        .route("/admin/v1/providers/{id}", get(provider))
        .route("/admin/v1/routes", get(routes))
        .route("/admin/v1/providers/{id}/drain", wish(Wish::Drain))
        .route("/admin/v1/providers/{id}/eject", wish(Wish::Eject))
        .route("/admin/v1/providers/{id}/resume", wish(Wish::Resume))
        .route("/admin/v1/routes/{name}/pause", pause_route(true))
        .route("/admin/v1/routes/{name}/resume", pause_route(false))
        .route(
            "/admin/v1/routes/{name}/override",
            put(operate::put_override).delete(operate::delete_override),
        )
        .route("/admin/v1/messages/{id}", get(message))
        .route("/admin/v1/clients", get(clients))
        .route("/admin/v1/clients/{name}/pause", pause_client(true))
        .route("/admin/v1/clients/{name}/resume", pause_client(false))
        .route("/admin/v1/config", get(config))
        .route("/admin/v1/reload", post(reload))
        .route("/admin/v1/events", get(events::watch))
        .route("/admin/v1/dead-letters", get(dead_letters::list))
        .route("/admin/v1/dead-letters/replay", post(dead_letters::replay_many))
        .route("/admin/v1/dead-letters/{id}", delete(dead_letters::delete))
        .route("/admin/v1/dead-letters/{id}/replay", post(dead_letters::replay))
        .route("/admin/v1/log", put(log::put))
        .route("/admin/v1/audit", get(audit::list))
        .merge(explain.with_state(()))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(
            ServiceBuilder::new()
                .layer(RequestId)
                .layer(Observe::new(state.telemetry.clone(), "admin"))
                .layer(CatchPanicLayer::custom(panicked))
                .layer(HeaderLimit::new(&state.limits))
                .layer(from_fn(from_here)),
        )
        .with_state(Arc::new(state))
}

type Shared = State<Arc<AdminState>>;

/// Refuses what another site's page would do through an operator's browser: on
/// loopback, without clients, there is no key that such a page would lack. Browsers
/// say on loopback where a request comes from (Fetch Metadata, "The
/// `Sec-Fetch-Site` HTTP Request Header"); programs do not. What only reads needs
/// no refusal: the answer is not shown to another site's page.
async fn from_here(request: Request, next: Next) -> Result<Response, Problem> {
    let site = request.headers().get("sec-fetch-site").map(HeaderValue::as_bytes);
    let foreign = site.is_some_and(|site| site != b"same-origin" && site != b"none");
    if foreign && !request.method().is_safe() {
        let detail = "another site's page asked for this; open the console itself";
        return Err(Problem::new(Code::Forbidden, detail));
    }
    Ok(next.run(request).await)
}

async fn only_operators(
    State(authenticator): State<Arc<Authenticator>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    authenticator.admin(request.headers())?;
    Ok(next.run(request).await)
}

async fn metrics(State(state): Shared, headers: HeaderMap) -> Response {
    if !state.open_metrics
        && let Err(problem) = state.authenticator.admin(&headers)
    {
        return problem.into_response();
    }
    let (snapshot, gauges) = (state.snapshot.load(), state.catalog.load().gauges());
    let stream = state.hub.as_ref().map(|hub| hub.figures()).unwrap_or_default();
    let scrape = view::scrape(&snapshot, &gauges, state.store.figures(), stream);
    let text = state.telemetry.metrics().scrape(&scrape);
    // The text format's content type (Prometheus, "Exposition formats").
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn providers(
    State(state): Shared,
    headers: HeaderMap,
    Parameters(page): Parameters<PageQuery>,
) -> Result<Response, Problem> {
    state.authenticator.admin(&headers)?;
    let snapshot = state.snapshot.load();
    let gauges = state.catalog.load().gauges();
    let all = snapshot.providers.iter().zip(&gauges);
    let items = all.map(|(view, (_, gauge))| view::provider(view, gauge)).collect();
    Ok(page.page(items)?.into_response())
}

async fn provider(
    State(state): Shared,
    headers: HeaderMap,
    Segment(id): Segment,
) -> Result<Response, Problem> {
    state.authenticator.admin(&headers)?;
    view::provider_by_id(&state, &id)
        .ok_or_else(|| Problem::not_found("no provider of this id is configured"))
}

async fn routes(
    State(state): Shared,
    headers: HeaderMap,
    Parameters(page): Parameters<PageQuery>,
) -> Result<Response, Problem> {
    state.authenticator.admin(&headers)?;
    let (catalog, snapshot) = (state.catalog.load(), state.snapshot.load());
    let items =
        catalog.routes.iter().map(|route| view::route(route, &catalog, &snapshot)).collect();
    Ok(page.page(items)?.into_response())
}

async fn reload(State(state): Shared, headers: HeaderMap) -> Result<Response, Problem> {
    let caller = state.authenticator.admin(&headers)?;
    match (state.reload)().await {
        Ok(reloaded) => {
            if !reloaded.unchanged {
                let changed = reloaded.changed.join(", ");
                audit::record(&state, &caller, "reload".to_owned(), Some(changed)).await?;
            }
            Ok(axum::Json(reloaded).into_response())
        }
        Err(errors) => Ok(invalid_config(&errors)),
    }
}

/// 422 with the faults of the file, each with line, column and key: places that
/// a pointer into a JSON body could not name.
fn invalid_config(errors: &[serde_json::Value]) -> Response {
    let body = serde_json::json!({
        "type": "urn:pushyard:problem:invalid_config",
        "code": "invalid_config",
        "title": "The configuration has faults",
        "status": 422,
        "detail": "nothing was changed; mend the file and reload again",
        "errors": errors,
    });
    let kind = [(header::CONTENT_TYPE, "application/problem+json")];
    (StatusCode::UNPROCESSABLE_ENTITY, kind, body.to_string()).into_response()
}

/// A message by its own id; or the one delivery of it whose id it is, because
/// that is what devices and vendors report.
async fn message(
    State(state): Shared,
    headers: HeaderMap,
    Segment(id): Segment,
    Parameters(query): Parameters<PageQuery>,
) -> Result<Response, Problem> {
    let caller = state.authenticator.admin(&headers)?;
    let page = Page::parse(query.limit.as_deref(), query.cursor.as_deref())?;
    let wanted = match (id.parse::<MessageId>(), id.parse::<DeliveryId>()) {
        (Ok(message), _) => Wanted::Message(message, page),
        (_, Ok(delivery)) => Wanted::Delivery(delivery),
        (Err(()), Err(())) => return Err(no_message()),
    };
    message_view(&state.dispatcher, &state.store, &caller, wanted).await
}

/// Who may send, and whom an operator has paused.
async fn clients(
    State(state): Shared,
    headers: HeaderMap,
    Parameters(page): Parameters<PageQuery>,
) -> Result<Response, Problem> {
    state.authenticator.admin(&headers)?;
    let snapshot = state.snapshot.load();
    let item = |(name, admin): (Arc<str>, bool)| {
        let paused = snapshot.paused_clients.contains(&name);
        serde_json::json!({"name": name, "admin": admin, "paused": paused})
    };
    let items = state.authenticator.clients().into_iter().map(item).collect();
    Ok(page.page(items)?.into_response())
}

async fn config(State(state): Shared, headers: HeaderMap) -> Result<Response, Problem> {
    state.authenticator.admin(&headers)?;
    Ok(axum::Json(&**state.config.load()).into_response())
}

/// `?limit=&cursor=`.
#[derive(Debug, Deserialize)]
struct PageQuery {
    limit: Option<String>,
    cursor: Option<String>,
}

impl PageQuery {
    fn page(
        &self,
        items: Vec<serde_json::Value>,
    ) -> Result<axum::Json<serde_json::Value>, Problem> {
        let page = Page::parse(self.limit.as_deref(), self.cursor.as_deref())?;
        Ok(axum::Json(page.of(items)))
    }
}
