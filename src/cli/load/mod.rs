//! Traffic, and what it needs: the part that demo and bench share.
//!
//! The router and the vendor simulator run as processes of their own, exactly as
//! a user would run them (`stage`, `child`, `config`); this process makes the
//! messages (`message`), sends them (`generator`, `wire`), and holds what was
//! accepted against what the simulator says arrived (`tally`, `control`), or what the
//! router says of single messages (`history`). It
//! measures from outside: the HTTP API, the ledger, `/proc`. Nothing here is
//! used by the server.

pub(crate) mod admin;
pub(crate) mod child;
pub(crate) mod config;
pub(crate) mod control;
pub(crate) mod figures;
pub(crate) mod generator;
pub(crate) mod history;
pub(crate) mod message;
pub(crate) mod process;
pub(crate) mod script;
pub(crate) mod stage;
pub(crate) mod tally;
pub(crate) mod wire;

use std::fmt::Display;
use std::future::Future;
use std::io::{self, Write as _};

use tokio::signal::unix::{SignalKind, signal};

/// Why a run could not be carried out; for people. A run that was carried out
/// and lost something is not a failure but a result.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs a run until it ends or someone ends it: what it owns is dropped then,
/// its processes with it. Without this, a signal would leave them behind.
pub(crate) async fn until_interrupted<T>(
    run: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .map(signal)
        .into_iter()
        .collect::<io::Result<Vec<_>>>()?;
    let interrupted = std::future::poll_fn(|context| {
        let any = signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
        if any { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    });
    tokio::select! {
        ended = run => ended,
        () = interrupted => Err("interrupted".into()),
    }
}

/// A line on standard output. Whoever closed it does not want to read on.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// A line on standard error.
pub(crate) fn say_aside(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
