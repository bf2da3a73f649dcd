//! The configuration file, and what it means: settings in which nothing invalid
//! can be said.
//!
//! Two steps. `file` reads the TOML as written, every key, unknown ones refused;
//! `check` resolves it: secrets are fetched, names looked up, providers built
//! once as a proof. All that is wrong is told at once, with file, line and key.
//! Defaults stand where each room declares its own settings, and nowhere else.
//!
//! The other files: `read` and `value` (the typed reader under `file`), `secret`
//! and `source` (environment and file system, handed in), `provider`
//! (the entries of their lists), `tls` (the listeners' certificates), `keys` (the
//! clients'), `error`, `units`, and for people `masked` and
//! `summary`.

mod check;
mod error;
mod events;
mod file;
mod keys;
mod masked;
mod provider;
mod read;
mod secret;
mod source;
mod summary;
mod tls;
mod units;
mod value;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use pushyard_providers::Kind;
use pushyard_providers::clock::Clock;
use pushyard_providers::registry::KINDS;
use toml::de::DeTable;

use self::check::Check;
use self::error::{Faults, Spot};
use self::read::Table;
use self::source::unreadable;
use crate::api::Client;
use crate::dispatch;
use crate::feedback::{OperatorTarget, Subscriber};
use crate::routing::Route;
use crate::store;
use crate::stream;
use crate::telemetry::LogSettings;

pub use error::{ConfigError, Errors};
pub use provider::ProviderEntry;
pub use source::{Sources, SystemSources};
pub use tls::Tls;

/// A configuration that can be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The api listener.
    pub server: ServerSettings,
    /// The admin listener.
    pub admin: AdminSettings,
    /// The store; its path is relative to the process's working directory.
    pub store: store::Settings,
    /// Who may send; none: whoever reaches the listener, which is on loopback then.
    pub clients: Vec<Client>,
    /// Those of them that are told of their deliveries.
    pub subscribers: Vec<Subscriber>,
    /// Where operators are told what happens.
    pub operators: Option<OperatorTarget>,
    /// `[stream]`.
    pub stream: stream::Settings,
    /// Whom the devices' listener proves to be; `None`: plain HTTP.
    pub stream_tls: Option<Tls>,
    /// By [`crate::routing::ProviderIndex`].
    pub providers: Vec<ProviderEntry>,
    /// At least one: `default` with all providers where the file has none.
    pub routes: Vec<Route>,
    /// How deliveries are tried.
    pub dispatch: dispatch::Settings,
    /// Bounds towards ourselves.
    pub limits: dispatch::Limits,
    /// The log.
    pub log: LogSettings,
    /// What is allowed and probably not meant, for people.
    pub warnings: Vec<String>,
}

/// `[server]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerSettings {
    /// Where backends connect; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whom the listener proves to be; `None`: plain HTTP.
    pub tls: Option<Tls>,
    /// Whether a changed configuration file is taken up without being told.
    pub watch: bool,
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminSettings {
    /// Where operators connect; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whom the listener proves to be; `None`: plain HTTP.
    pub tls: Option<Tls>,
    /// Whether `/metrics` needs no key.
    pub open_metrics: bool,
}

/// Reads and checks a configuration file. Secrets are read and providers are
/// built once, but nothing is opened and nobody is called.
///
/// # Errors
/// All that is wrong with it, at once.
pub fn load(path: &Path, sources: &dyn Sources, clock: Arc<dyn Clock>) -> Result<Settings, Errors> {
    load_with(path, sources, clock, KINDS, &RefCell::default())
}

/// The same with other kinds of providers; `asked` gathers the known keys.
fn load_with(
    path: &Path,
    sources: &dyn Sources,
    clock: Arc<dyn Clock>,
    kinds: &[&'static Kind],
    asked: &RefCell<BTreeSet<String>>,
) -> Result<Settings, Errors> {
    let name = path.display().to_string();
    let whole = |detail: String| Errors::of_file(name.clone(), detail);
    let bytes = sources.read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => whole("does not exist; name the file with --config".to_owned()),
        _ => whole(unreadable(&error)),
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        whole(format!("is not UTF-8 text (byte {at}); save it as UTF-8"))
    })?;
    let faults = Faults::new(name.clone(), &text);
    let document = match DeTable::parse(&text) {
        Ok(document) => document,
        Err(error) => {
            let offset = error.span().map_or(text.len(), |span| span.start);
            faults.add(&Spot { key: String::new(), offset }, error.message());
            return Err(faults.into_errors());
        }
    };
    let file = file::read(Table::root(document.get_ref(), &faults, asked), kinds);
    let check = Check {
        faults: &faults,
        sources,
        folder: path.parent().unwrap_or(Path::new("")),
        clock,
        warnings: RefCell::default(),
    };
    let settings = check.settings(file);
    let errors = faults.into_errors();
    if errors.errors.is_empty() { Ok(settings) } else { Err(errors) }
}

#[cfg(test)]
mod tests;
