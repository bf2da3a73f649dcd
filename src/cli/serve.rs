//! `pushyard serve`: runs the router until it is told to end.
//!
//! The first SIGTERM or SIGINT ends it in order: no new messages, attempts in
//! flight end, everything is written. A second one does not wait for attempts in
//! flight, a third one for nothing at all: what was accepted is on disk.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::files;
use super::signals::{Signals, Told};
use crate::server::Server;

/// What `serve` and `check` read when they are not told otherwise.
pub(super) const DEFAULT_CONFIG: &str = "pushyard.toml";

const EXAMPLES: &str = "\
Examples:
  pushyard serve --config /etc/pushyard/pushyard.toml
  RUST_LOG=pushyard=debug pushyard serve

When it is ready it prints one line on standard output, also where a port is 0:
  listening {\"api\":\"127.0.0.1:8080\",\"admin\":\"127.0.0.1:9090\",\"stream\":\"127.0.0.1:8082\"}
\"stream\" is there when [stream] has an address.

Log lines go to standard error. SIGTERM or SIGINT ends it in order; a second
one cuts what is in flight.";

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
    // The stream listener holds a connection for each device.
    files::raise();
    // Caught before anything is opened, so that nothing is ever left half open.
    let mut signals = Signals::new()
        .map_err(|error| Failure::told(format!("cannot catch SIGTERM and SIGINT: {error}")))?;
    let start = Box::pin(Server::start(&args.config));
    let mut server = tokio::select! {
        started = start => started.map_err(|error| {
            // Below each other: there may be many, and editors jump to each.
            Failure::told(format!("the router did not start\n{error}"))
        })?,
        () = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    announce(&server);
    loop {
        tokio::select! {
            reason = server.failed() => {
                return Err(Failure::told(format!("the router cannot go on: {reason}")));
            }
            told = signals.told() => match told {
                Told::End => break,
                Told::Reload => server.reload().await,
            },
        }
    }
    end(server, &mut signals).await;
    Ok(ExitCode::SUCCESS)
}

async fn end(server: Server, signals: &mut Signals) {
    let at_once = CancellationToken::new();
    let mut ending = Box::pin(server.shutdown(&at_once));
    tokio::select! {
        () = &mut ending => return,
        () = signals.next() => at_once.cancel(),
    }
    tracing::warn!("told again to end: attempts in flight are cut");
    tokio::select! {
        () = ending => {}
        () = signals.next() => tracing::warn!("told a third time: left as a crash would"),
    }
}

/// Whoever started it may not listen: that is no reason not to run.
fn announce(server: &Server) {
    let mut out = std::io::stdout().lock();
    let (api, admin) = (server.api(), server.admin());
    let stream = server.stream().map_or_else(String::new, |at| format!(r#","stream":"{at}""#));
    // None of them has a character that JSON would escape.
    let _ = writeln!(out, r#"listening {{"api":"{api}","admin":"{admin}"{stream}}}"#)
        .and_then(|()| out.flush());
}
