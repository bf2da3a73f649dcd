//! Builds the rooms from the settings, wires them, and takes them down in order:
//! first no intake, last the store.

pub mod listener;
mod patient;
mod reload;
mod start;
mod tls;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use pushyard_providers::stream::Hub;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::reload::Reloader;
use crate::dispatch::FlushMark;

use crate::routing::Catalog;
use crate::store::Store;

pub use start::StartError;

/// Between "not ready" and "no new messages": load balancers need a moment to
/// see the former (Kubernetes takes endpoints out concurrently with SIGTERM).
const UNREADY_BEFORE_REFUSAL: Duration = Duration::from_secs(2);

/// For the polite end of connections to vendors.
const FAREWELL: Duration = Duration::from_secs(1);

/// Answers that are being written when the listeners close may take this long.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// What ends what, in the order in which a shutdown cancels them.
#[derive(Clone, Debug, Default)]
struct Stops {
    /// `/readyz` says 503.
    unready: CancellationToken,
    /// New messages are refused, and those who wait for a view get it as it is.
    intake: CancellationToken,
    /// No new attempts.
    drain: CancellationToken,
    /// Attempts in flight are cut.
    cut: CancellationToken,
    /// The listeners close.
    listeners: CancellationToken,
}

/// A running router.
pub struct Server {
    api: SocketAddr,
    admin: SocketAddr,
    stream: Option<SocketAddr>,
    hub: Option<Arc<Hub>>,
    stops: Stops,
    driver: JoinSet<()>,
    listeners: JoinSet<()>,
    catalog: Arc<ArcSwap<Catalog>>,
    reloader: Arc<Reloader>,
    flushed: Arc<FlushMark>,
    store: Arc<dyn Store>,
}

impl Server {
    /// Starts the router that the configuration file describes. When this
    /// returns, it takes messages.
    ///
    /// # Errors
    /// [`StartError`]: what is wrong, where, and what to do.
    pub async fn start(config: &Path) -> Result<Self, StartError> {
        start::start(config).await
    }

    /// Where the api listener is.
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// Where the admin listener is.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Where the devices' listener is, if there is one.
    pub fn stream(&self) -> Option<SocketAddr> {
        self.stream
    }

    /// Reads the configuration file again; what is wrong with it is in the log,
    /// and nothing is changed then.
    pub async fn reload(&self) {
        let _ = self.reloader.reload().await;
    }

    /// Not ready; then no new messages; then no new attempts; what is in flight
    /// ends, or is cut when `at_once` is cancelled or its time is over, and is
    /// written down as ambiguous; all is flushed.
    pub async fn shutdown(mut self, at_once: &CancellationToken) {
        info!("shutting down");
        self.stops.unready.cancel();
        tokio::select! {
            () = tokio::time::sleep(UNREADY_BEFORE_REFUSAL) => {}
            () = at_once.cancelled() => {}
        }
        self.stops.intake.cancel();
        self.stops.drain.cancel();
        let cut = self.stops.cut.clone();
        tokio::select! {
            _ = self.driver.join_next() => {}
            () = async { at_once.cancelled().await; cut.cancel(); std::future::pending().await } => {}
        }
        self.stops.listeners.cancel();
        let last = async { while self.listeners.join_next().await.is_some() {} };
        // Whoever has not read its answer by then will not.
        let _ = tokio::time::timeout(LAST_ANSWERS, last).await;
        let catalog = self.catalog.load_full();
        let close = catalog.providers.iter().map(|built| built.provider.close());
        // Vendors hear a good-bye; one that does not listen is left.
        let _ = tokio::time::timeout(FAREWELL, join_all(close)).await;
        let (store, hub) = (self.store.clone(), self.hub.take());
        let closing = move || {
            if let Some(hub) = hub {
                hub.close();
            }
            store.close();
        };
        // A panic in there has been reported by its own thread.
        let _ = tokio::task::spawn_blocking(closing).await;
        info!("all is written; goodbye");
    }

    /// Returns when the router cannot go on: the store broke. The reason is for
    /// people; the process ends, and recovers at its next start.
    pub async fn failed(&mut self) -> String {
        // The driver ends by itself only for this.
        let _ = self.driver.join_next().await;
        self.flushed.broken().unwrap_or_else(|| "the dispatcher ended".to_owned())
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server(api {}, admin {})", self.api, self.admin)
    }
}
