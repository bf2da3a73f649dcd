//! The wall clock as adapters see it: handed in, so that tests can set it.

/// Tells the time that credentials and expirations are made of.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the unix epoch, UTC.
    fn unix_ms(&self) -> u64;

    /// Seconds since the unix epoch, UTC.
    fn unix_s(&self) -> u64 {
        self.unix_ms() / 1000
    }
}
