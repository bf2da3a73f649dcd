//! The wall clock as adapters see it: handed in, so that tests can set it.
//!
//! Ages and delays inside a transport are another matter: they are measured on
//! the runtime's own clock, which tests stop and move (`tokio::time::pause`).

use tokio::time::Instant;

/// Tells the time that credentials and expirations are made of.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the unix epoch, UTC.
    fn unix_ms(&self) -> u64;

    /// Seconds since the unix epoch, UTC.
    fn unix_s(&self) -> u64 {
        self.unix_ms() / 1000
    }
}

/// The runtime's monotonic clock, for ages and delays inside a transport.
#[expect(clippy::disallowed_methods, reason = "the one place in this crate that asks for it")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}
