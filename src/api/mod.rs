//! The backends' listener: authentication, parsing, problem JSON and the
//! description of all of it. What a message must look like is decided in `intake`,
//! what becomes of it in `dispatch`.

mod auth;
mod batch;
mod client;
mod docs;
mod explain;
mod gone;
mod layers;
mod list;
mod messages;
mod openapi;
mod page;
mod problem;
mod rate;
mod read;
mod receipts;
mod submit;
mod tokens;
#[cfg(test)]
mod tests;
mod users;
mod view;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Bytes;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, post};
use pushyard_providers::stream::{Hub, Tokens};
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use auth::{Authenticator, Caller};
pub use client::{Client, ClientKey, KeyHash};
pub use layers::{Admit, HEADROOM, HeaderLimit, Observe, RequestId};
pub use messages::{Wanted, message_view, no_message};
pub use page::{Page, bad_cursor};
pub use problem::{Code, Problem, panicked, unknown_method, unknown_path};
pub use read::{Media, Parameters, Segment, body, media};
pub use receipts::receive;
pub use submit::blocking;
pub use view::attempts;

use crate::clock::Clock;
use crate::dispatch::{Dispatcher, Limits};
use crate::feedback::{AddressNames, Receipts};
use crate::intake::Intake;
use crate::intake::idempotency::InProgress;
use crate::routing::Catalog;
use crate::store::Store;
use crate::telemetry::Telemetry;
use docs::Docs;
use submit::Commits;

/// What the api listener works with.
#[derive(Clone)]
pub struct ApiState {
    /// Providers and routes.
    pub catalog: Arc<ArcSwap<Catalog>>,
    /// Takes messages.
    pub dispatcher: Dispatcher,
    /// Has what has settled, and idempotency keys.
    pub store: Arc<dyn Store>,
    /// Knows receipts.
    pub receipts: Arc<Receipts>,
    /// Opens topics of the stream listener, where there is one.
    pub stream_tokens: Option<Arc<Tokens>>,
    /// Where stream devices listen, if they may see what is scheduled.
    pub stream_hub: Option<Arc<Hub>>,
    /// The time.
    pub clock: Arc<Clock>,
    /// Who may ask.
    pub authenticator: Arc<Authenticator>,
    /// `[limits]`.
    pub limits: Limits,
    /// Cancelled when no new messages are taken; ends all waiting, too.
    pub closed: CancellationToken,
    /// Counts messages and requests.
    pub telemetry: Arc<Telemetry>,
}

/// What the handlers share.
struct Shared {
    state: ApiState,
    intake: Intake,
    in_progress: InProgress,
    commits: Commits,
    registering: users::Registering,
    /// What addresses are called where they must not be shown.
    names: AddressNames,
    /// The description, serialised once.
    openapi: Bytes,
    /// The same as a page.
    docs: Docs,
}

/// All routes of the api listener; and the explanation of messages alone, for
/// listeners whose callers may ask for nothing else.
pub fn routers(state: ApiState) -> (Router, MethodRouter) {
    let (routes, document) = OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(messages::submit, list::list))
        .routes(routes!(batch::submit))
        .routes(routes!(explain::explain))
        .routes(routes!(list::cancel))
        .routes(routes!(messages::show, messages::cancel))
        .routes(routes!(receipts::receipt))
        .routes(routes!(tokens::make))
        .routes(routes!(users::show, users::erase))
        .routes(routes!(users::put_device, users::show_device, users::remove_device))
        .routes(routes!(gone::list))
        .routes(routes!(openapi::describe))
        .routes(routes!(docs::show))
        .split_for_parts();
    let document = openapi::complete(&document);
    let layers = ServiceBuilder::new()
        .layer(RequestId) // every answer has one
        .layer(Observe::new(Arc::clone(&state.telemetry), "api")) // and is counted
        .layer(CatchPanicLayer::custom(problem::panicked)) // a fault of ours is an answer, too
        .layer(HeaderLimit::new(&state.limits)) // 431
        .layer(Admit::new(state.limits.max_requests)) // refuses at once what is too much
        .layer(from_fn_with_state(Arc::clone(&state.authenticator), rate::tell)); // "slow down"
    let shared = Shared {
        intake: Intake::new(Arc::clone(&state.clock), rand::make_rng()),
        in_progress: InProgress::default(),
        commits: Commits::default(),
        registering: users::Registering::default(),
        docs: Docs::of(&document),
        openapi: document.to_string().into(),
        names: AddressNames::new(&state.store.server_key()),
        state,
    };
    let shared = Arc::new(shared);
    let explain = post(explain::explain).with_state(Arc::clone(&shared));
    let router = routes
        .fallback(problem::unknown_path)
        .method_not_allowed_fallback(problem::unknown_method)
        .layer(layers)
        .with_state(shared);
    (router, explain)
}
