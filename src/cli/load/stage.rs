//! Where a run takes place: simulator and router, each a process, in a folder of
//! their own that goes with them.
//!
//! The router may be killed and started again on the same store, ports and
//! configuration; the simulator, who judges it, lives through all of it.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tempfile::TempDir;

use super::Failure;
use super::admin::Admin;
use super::child::Child;
use super::config::{self, Addresses, Wish};
use super::control::Control;
use super::history::Reader;
use super::process;
use crate::clock::Clock;

/// A running pair. Dropping it ends both and removes the folder.
#[derive(Debug)]
pub(crate) struct Stage {
    // In this order: the processes die before their folder goes.
    router: Child,
    simulator: Child,
    addresses: Addresses,
    /// From the router's start to its readiness.
    ready: Duration,
    announcement: Announcement,
    wish: Wish,
    clock: Arc<Clock>,
    folder: TempDir,
}

/// What the simulator says of itself.
#[derive(Clone, Debug, Deserialize)]
struct Announcement {
    control: String,
    config: PathBuf,
}

/// What the router says of itself.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Listening {
    api: SocketAddr,
    admin: SocketAddr,
}

/// A new folder to work in, below `base` or below the system's for temporary files.
pub(crate) fn folder(base: Option<&Path>) -> Result<TempDir, Failure> {
    let mut folder = tempfile::Builder::new();
    folder.prefix("pushyard-");
    match base {
        Some(base) => folder.tempdir_in(base),
        None => folder.tempdir(),
    }
    .map_err(|error| format!("cannot make a folder to work in: {error}").into())
}

impl Stage {
    /// Starts both, in a new folder below `base` or below the system's folder
    /// for temporary files.
    pub(crate) async fn start(
        base: Option<&Path>,
        wish: Wish,
        clock: Arc<Clock>,
    ) -> Result<Self, Failure> {
        let folder = folder(base)?;

        let vendors = folder.path().join("vendors");
        let arguments = ["simulate", "--json", "--dir"].map(OsStr::new);
        let arguments = [&arguments[..], &[vendors.as_os_str()]].concat();
        let (simulator, line) = Child::start("simulator", &arguments).await?;
        let announcement: Announcement = serde_json::from_str(&line)
            .map_err(|error| format!("the simulator's announcement cannot be read: {error}"))?;

        let file = write_config(&announcement, &wish, &Addresses::any(), folder.path()).await?;
        let (router, addresses, ready) = start_router(&file, &clock).await?;
        Ok(Self { router, simulator, addresses, ready, announcement, wish, clock, folder })
    }

    /// Where the router listens.
    pub(crate) fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// How long the router took from its (last) start to readiness.
    pub(crate) fn ready(&self) -> Duration {
        self.ready
    }

    /// The simulator's control port.
    pub(crate) fn control(&self) -> Result<Control, Failure> {
        Control::at(&self.announcement.control)
    }

    /// The router's admin listener.
    pub(crate) fn admin(&self) -> Admin {
        Admin::at(self.addresses.admin, self.wish.operator_key())
    }

    /// The router's API, to read what it says of messages.
    pub(crate) fn reader(&self) -> Reader {
        Reader::of(self.addresses.api, self.wish.operator_key())
    }

    /// Who can give the router another configuration while it runs.
    pub(crate) fn reloader(&self) -> Reloader {
        let (announcement, wish) = (self.announcement.clone(), self.wish.clone());
        let (addresses, folder) = (self.addresses, self.folder.path().to_owned());
        Reloader { announcement, wish, addresses, folder, admin: self.admin() }
    }

    /// The router's process.
    pub(crate) fn router_pid(&self) -> u32 {
        self.router.pid()
    }

    /// The simulator's process.
    pub(crate) fn simulator_pid(&self) -> u32 {
        self.simulator.pid()
    }

    /// Fails when one of the two has ended, with its last words.
    pub(crate) async fn check(&mut self) -> Result<(), Failure> {
        self.simulator.check().await?;
        self.router.check().await
    }

    /// Why a call to one of the two failed: that it has ended, with its last
    /// words, is a better reason than the call's own.
    pub(crate) async fn explain(&mut self, noticed: Failure) -> Failure {
        self.check().await.err().unwrap_or(noticed)
    }

    /// Kills the router as a power cut would, and waits until it is gone.
    pub(crate) async fn kill_router(&mut self) -> Result<(), Failure> {
        self.router.kill().await
    }

    /// Starts a killed router again: the same store, ports and configuration.
    pub(crate) async fn restart_router(&mut self) -> Result<(), Failure> {
        let (announcement, folder) = (&self.announcement, self.folder.path());
        let file = write_config(announcement, &self.wish, &self.addresses, folder).await?;
        (self.router, self.addresses, self.ready) = start_router(&file, &self.clock).await?;
        Ok(())
    }

    /// The folder, and the file system that it is on.
    pub(crate) fn place(&self) -> String {
        let path = self.folder.path();
        match process::file_system(path) {
            Some(kind) => format!("{} ({kind})", path.display()),
            None => path.display().to_string(),
        }
    }

    /// Ends both, and removes the folder when they are gone.
    pub(crate) async fn close(mut self) {
        // One that cannot be killed is gone already.
        let _ = self.router.kill().await;
        let _ = self.simulator.kill().await;
    }
}

/// Changes the router's configuration in a run. It owns what it needs, so that the
/// run can go on beside it.
#[derive(Debug)]
pub(crate) struct Reloader {
    announcement: Announcement,
    wish: Wish,
    addresses: Addresses,
    folder: PathBuf,
    admin: Admin,
}

impl Reloader {
    /// Other keys for a provider from now on, as TOML.
    pub(crate) async fn change(&mut self, provider: &str, keys: &str) -> Result<(), Failure> {
        self.wish.changes.push((provider.to_owned(), keys.to_owned()));
        write_config(&self.announcement, &self.wish, &self.addresses, &self.folder).await?;
        self.admin.reload().await
    }
}

async fn write_config(
    announcement: &Announcement,
    wish: &Wish,
    addresses: &Addresses,
    folder: &Path,
) -> Result<PathBuf, Failure> {
    let unreadable = |error| format!("{}: {error}", announcement.config.display());
    let simulators = tokio::fs::read_to_string(&announcement.config).await.map_err(unreadable)?;
    let text = config::render(&simulators, wish, addresses, &folder.join("store"))?;
    let file = announcement.config.with_file_name("router.toml");
    tokio::fs::write(&file, text).await.map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(file)
}

async fn start_router(file: &Path, clock: &Clock) -> Result<(Child, Addresses, Duration), Failure> {
    let begun = clock.now().instant;
    let arguments = [OsStr::new("serve"), OsStr::new("--config"), file.as_os_str()];
    let (router, line) = Child::start("router", &arguments).await?;
    let ready = clock.now().instant.saturating_duration_since(begun);
    let listening: Listening = line
        .strip_prefix("listening ")
        .and_then(|json| serde_json::from_str(json).ok())
        .ok_or_else(|| format!("the router did not say where it listens, but: {line}"))?;
    Ok((router, Addresses { api: listening.api, admin: listening.admin }, ready))
}
