//! Where log lines go: standard error; human on a terminal, JSON otherwise.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// A filter such as `info` or `pushyard=debug`; `RUST_LOG` overrides it.
    pub level: String,
    /// How a line looks.
    pub format: Format,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: Format::Auto }
    }
}

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Human on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// The filter in force, to be exchanged. Like the log itself, one for the process.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// The words that are a filter by themselves.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Exchanges the filter, until the next start.
///
/// # Errors
/// What is wrong with it; the one before stays.
pub fn set_filter(text: &str) -> Result<(), String> {
    let filter = parse(text)?;
    let Some(handle) = FILTER.get() else {
        return Err("this process writes its log in another way".to_owned());
    };
    handle.reload(filter).map_err(|error| error.to_string())
}

/// A lone word that is no level would name a module, and silence all others: that
/// is never meant.
fn parse(text: &str) -> Result<EnvFilter, String> {
    let lone = !text.contains('=') && !text.contains(',');
    if lone && !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(text.trim())) {
        return Err(format!("{text:?} is no level; it must be one of {}", LEVELS.join(", ")));
    }
    EnvFilter::try_new(text)
        .map_err(|_| format!("{text:?} is no log filter; write it as in \"info,pushyard=debug\""))
}

/// Installs the log for the whole process. A second call changes nothing.
pub fn set_up(settings: &LogSettings) {
    let wanted = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|text| !text.is_empty());
    let wanted = wanted.map(|text| parse(&text));
    let configured = || parse(&settings.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, fault) = match wanted {
        Some(Ok(filter)) => (filter, None),
        Some(Err(fault)) => (configured(), Some(fault)),
        None => (configured(), None),
    };
    let (filter, handle) = reload::Layer::new(filter);
    let terminal = std::io::stderr().is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let json = match settings.format {
        Format::Auto => !terminal,
        Format::Json => true,
        Format::Text => false,
    };
    let base = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // An error means that a subscriber is there already, as in tests.
    let installed = if json {
        base.with(layer.json().flatten_event(true)).try_init()
    } else {
        base.with(layer.with_ansi(colour)).try_init()
    };
    if installed.is_ok() {
        let _ = FILTER.set(handle);
    }
    if let Some(fault) = fault {
        tracing::warn!("RUST_LOG is not used: {fault}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_level_or_directives_and_never_a_lone_module() {
        for good in ["info", "WARN", "pushyard=debug", "info,pushyard::dispatch=trace"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["", "inof", "pushyard", "pushyard=loud", "info,=="] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
