//! Being asked to end: SIGINT and SIGTERM, one after the other.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Catches both signals for as long as the process lives: dropping it does not
/// bring back the system's behaviour.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Catches them from now on.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next one. Loses none when it is cancelled.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
