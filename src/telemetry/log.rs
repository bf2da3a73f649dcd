//! Where log lines go: standard error; human on a terminal, JSON otherwise.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

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

/// Installs the log for the whole process. A second call changes nothing.
pub fn set_up(settings: &LogSettings) {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(&settings.level))
        .unwrap_or_else(|_| EnvFilter::new("info"));
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
    let _ = if json {
        base.with(layer.json().flatten_event(true)).try_init()
    } else {
        base.with(layer.with_ansi(colour)).try_init()
    };
}
