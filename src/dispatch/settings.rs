//! `[dispatch]` and `[limits]`, resolved.

use std::time::Duration;

/// `[dispatch]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Base of the delay between rounds.
    pub backoff: Duration,
    /// Its cap.
    pub max_backoff: Duration,
    /// Counted attempts after which a delivery fails: a guard, not a policy.
    pub max_attempts: u16,
    /// Bytes of message bodies held in memory; the rest is read back.
    pub body_cache: u64,
    /// How long attempts in flight may take to end at shutdown.
    pub shutdown_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            backoff: Duration::from_secs(2),
            max_backoff: Duration::from_secs(300),
            max_attempts: 25,
            body_cache: 32 << 20,
            shutdown_timeout: Duration::from_secs(25),
        }
    }
}

/// `[limits]`: bounds towards ourselves, checked before acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Unsettled deliveries.
    pub max_unsettled: u64,
    /// … of one client; half of that unless configured.
    pub max_client_unsettled: u64,
    /// Requests at once on the api listener.
    pub max_requests: usize,
    /// Bytes of a request body, and of a batch line.
    pub max_body: u64,
    /// Bytes of all request headers.
    pub max_header_bytes: u32,
    /// Request headers.
    pub max_headers: usize,
    /// Nesting of a JSON body.
    pub max_json_depth: usize,
    /// For a request's headers, and for a connection without a request.
    pub idle_timeout: Duration,
    /// For a request's body.
    pub body_timeout: Duration,
    /// Idempotency keys found again at most.
    pub max_idempotency_keys: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_unsettled: 2_000_000,
            max_client_unsettled: 1_000_000,
            max_requests: 1024,
            max_body: 4 << 20,
            max_header_bytes: 16 << 10,
            max_headers: 100,
            max_json_depth: 32,
            idle_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            max_idempotency_keys: 5_000_000,
        }
    }
}
