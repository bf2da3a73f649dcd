//! `pushyard serve`: runs the router until it is told to end.
//!
//! The first SIGTERM or SIGINT ends it in order: no new messages, attempts in
//! flight end, everything is written. A second one ends it at once, as a crash
//! would: what was accepted is on disk, and attempts in flight are made again.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::signals::Signals;
use crate::clock::Clock;
use crate::config::{self, SystemSources};
use crate::server::Server;
use crate::telemetry;

/// What `serve` and `check` read when they are not told otherwise.
pub(super) const DEFAULT_CONFIG: &str = "pushyard.toml";

const EXAMPLES: &str = "\
Examples:
  pushyard serve --config /etc/pushyard/pushyard.toml
  RUST_LOG=pushyard=debug pushyard serve

When it is ready it prints one line on standard output, also where a port is 0:
  listening {\"api\":\"127.0.0.1:8080\",\"admin\":\"127.0.0.1:9090\"}

Log lines go to standard error. SIGTERM or SIGINT ends it in order, a second one at once.";

/// Run the router
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ServeArgs {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

/// Runs it to its end.
pub(super) async fn run(args: ServeArgs) -> Result<ExitCode, Failure> {
    // Caught before anything is opened, so that nothing is ever left half open.
    let mut signals = Signals::new()
        .map_err(|error| Failure::told(format!("cannot catch SIGTERM and SIGINT: {error}")))?;
    // Read here only for the log, which must be there before the first line.
    let clock = Arc::new(Clock::default());
    let settings = config::load(&args.config, &SystemSources, clock)
        .map_err(|errors| Failure::told(format!("the configuration cannot be run\n{errors}")))?;
    telemetry::set_up(&settings.log);
    drop(settings);

    let start = Box::pin(Server::start(&args.config));
    let server = tokio::select! {
        started = start => started.map_err(|error| Failure::told(error.0))?,
        () = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    announce(&server);
    tokio::select! {
        reason = server.failed() => {
            return Err(Failure::told(format!("the router cannot go on: {reason}")));
        }
        () = signals.next() => tracing::info!("ending: a second signal ends it at once"),
    }
    tokio::select! {
        () = Box::pin(server.shutdown()) => {}
        () = signals.next() => tracing::warn!("ended at once: attempts in flight will be repeated"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Whoever started it may not listen: that is no reason not to run.
fn announce(server: &Server) {
    let places = json!({"api": server.api.to_string(), "admin": server.admin.to_string()});
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "listening {places}").and_then(|()| out.flush());
}
