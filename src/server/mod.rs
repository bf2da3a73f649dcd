//! Builds the rooms from the settings, wires them, and takes them down in order.

pub mod listener;

use std::net::SocketAddr;
use std::path::Path;

/// A running router.
#[derive(Debug)]
pub struct Server {
    /// Where the api listener is.
    pub api: SocketAddr,
    /// Where the admin listener is.
    pub admin: SocketAddr,
}

/// Why a router did not start: one message for people, naming what and the remedy.
#[derive(Debug)]
pub struct StartError(pub String);

impl Server {
    /// Starts the router that the configuration file describes.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(_config: &Path) -> Result<Self, StartError> {
        Err(StartError("not built".to_owned()))
    }

    /// No new messages, no new attempts, attempts in flight end, all is written.
    pub async fn shutdown(self) {}

    /// Returns when the router cannot go on (the store broke): the reason.
    pub async fn failed(&self) -> String {
        std::future::pending().await
    }
}
