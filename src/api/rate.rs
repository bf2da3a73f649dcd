//! How much a client may send: the bucket of its `rate`, and what every answer to
//! it says of that, so that a backend can slow down before it is refused.
//!
//! The limiter itself only tells when it counts a message. So the moment at which
//! the bucket will be full again is kept beside it, and what is left is computed
//! from that for calls that count nothing.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use governor::clock::Clock as GovernorClock;
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::auth::Authenticator;
use crate::clock::Clock;
use crate::routing::Rate;

/// An empty bucket is full after this long, however slow its rate is. The limiter
/// counts nanoseconds in 64 bits, adds such times up, and panics beyond them.
const LONGEST_WINDOW: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The bucket of a client.
#[derive(Debug)]
pub(super) struct Limiter {
    bucket: Bucket,
    clock: Arc<Clock>,
    began: Instant,
    /// Messages that the full bucket lets through.
    burst: u32,
    /// In which one more comes.
    period: Duration,
    /// Nanoseconds after `began`. Each count moves it on, so that of two at once the
    /// later one stays. Up to a period late: the limiter tells whole messages.
    full_at: AtomicU64,
}

type Bucket = RateLimiter<NotKeyed, InMemoryState, Ticks, StateInformationMiddleware>;

/// What a bucket lets through at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Messages that the full bucket lets through.
    limit: u32,
    /// In which an empty bucket is full.
    window: Duration,
    /// Messages that it lets through now.
    remaining: u32,
    /// Until it is full, if nothing is sent.
    reset: Duration,
}

/// Says on every answer to a client with a rate what is left of it, in the headers
/// of both forms that clients read (IETF draft "RateLimit header fields for HTTP":
/// three fields up to draft 07, two since).
pub(super) async fn tell(
    State(authenticator): State<Arc<Authenticator>>,
    request: Request,
    next: Next,
) -> Response {
    let caller = authenticator.rated(request.headers());
    let mut response = next.run(request).await;
    if let Some(standing) = caller.and_then(|caller| caller.standing()) {
        standing.tell(response.headers_mut());
    }
    response
}

impl Limiter {
    /// A full bucket.
    pub(super) fn new(rate: Rate, clock: &Arc<Clock>) -> Self {
        // A saturating cast: a burst is a count of messages, at least one.
        let burst = NonZeroU32::new(rate.burst as u32).unwrap_or(NonZeroU32::MIN);
        let period = Duration::try_from_secs_f64(1.0 / rate.per_second).unwrap_or(Duration::MAX);
        // A period below the clock's nanosecond is no limit in practice.
        let period = period.clamp(Duration::from_nanos(1), LONGEST_WINDOW / burst.get());
        let quota = Quota::with_period(period).unwrap_or(Quota::per_second(NonZeroU32::MAX));
        let ticks = Ticks(Arc::clone(clock));
        Self {
            bucket: RateLimiter::direct_with_clock(quota.allow_burst(burst), ticks)
                .with_middleware(),
            began: clock.now().instant,
            clock: Arc::clone(clock),
            burst: burst.get(),
            period,
            full_at: AtomicU64::new(0),
        }
    }

    /// Counts one message.
    ///
    /// # Errors
    /// How long to wait until it can be counted.
    pub(super) fn count(&self) -> Result<(), Duration> {
        match self.bucket.check() {
            Ok(left) => {
                let used = self.burst.saturating_sub(left.remaining_burst_capacity());
                let full_at = self.now().saturating_add(nanos(self.period.saturating_mul(used)));
                self.full_at.fetch_max(full_at, Ordering::Relaxed);
                Ok(())
            }
            Err(not_until) => Err(not_until.wait_time_from(self.clock.now().instant)),
        }
    }

    pub(super) fn standing(&self) -> Standing {
        let reset = self.full_at.load(Ordering::Relaxed).saturating_sub(self.now());
        let missing = reset.div_ceil(nanos(self.period).max(1));
        Standing {
            limit: self.burst,
            window: self.period.saturating_mul(self.burst),
            remaining: self.burst.saturating_sub(u32::try_from(missing).unwrap_or(u32::MAX)),
            reset: Duration::from_nanos(reset),
        }
    }

    fn now(&self) -> u64 {
        nanos(self.clock.now().instant.saturating_duration_since(self.began))
    }
}

impl Standing {
    fn tell(self, headers: &mut HeaderMap) {
        let Self { limit, window, remaining, reset } = self;
        let (window, reset) = (seconds(window).max(1), seconds(reset));
        headers.insert("ratelimit-limit", limit.into());
        headers.insert("ratelimit-remaining", remaining.into());
        headers.insert("ratelimit-reset", reset.into());
        for (name, text) in [
            ("ratelimit-policy", format!("\"messages\";q={limit};w={window}")),
            ("ratelimit", format!("\"messages\";r={remaining};t={reset}")),
        ] {
            // Digits and these signs are a value.
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(name, value);
            }
        }
    }
}

/// Whole seconds, rounded up: then it is true.
fn seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The house's clock as the limiter reads it.
#[derive(Clone, Debug)]
struct Ticks(Arc<Clock>);

impl GovernorClock for Ticks {
    type Instant = Instant;

    fn now(&self) -> Instant {
        self.0.now().instant
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(per_second: f64, burst: f64) -> Limiter {
        Limiter::new(Rate { per_second, burst }, &Arc::default())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_falls_with_each_message_and_comes_back_in_its_pace() {
        let limiter = limiter(2.0, 3.0);
        let full = Standing {
            limit: 3,
            window: Duration::from_millis(1500),
            remaining: 3,
            reset: Duration::ZERO,
        };
        assert_eq!(limiter.standing(), full);
        for (n, remaining) in [2, 1, 0].into_iter().enumerate() {
            limiter.count().unwrap();
            let reset = Duration::from_millis(500 * (n as u64 + 1));
            assert_eq!(limiter.standing(), Standing { remaining, reset, ..full });
        }
        // A refusal costs nothing.
        assert_eq!(limiter.count(), Err(Duration::from_millis(500)));
        assert_eq!(limiter.standing().reset, Duration::from_millis(1500));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(limiter.standing().remaining, 1);
        tokio::time::advance(Duration::from_millis(999)).await;
        assert_eq!(limiter.standing().remaining, 2);
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(limiter.standing(), full);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_said_to_be_left_is_never_more_than_there_is() {
        let limiter = limiter(7.0, 5.0);
        for step in 0..2000_u64 {
            tokio::time::advance(Duration::from_millis(step * 37 % 211)).await;
            let said = limiter.standing().remaining;
            let taken = (0..said).take_while(|_| limiter.count().is_ok()).count();
            assert_eq!(taken, said as usize, "step {step}");
        }
    }

    #[test]
    fn rates_at_the_ends_of_what_can_be_said_do_not_overflow() {
        for (per_second, burst) in
            [(1e-300, 1.0), (1e300, 1e300), (1e-9, 4e9), (f64::MIN_POSITIVE, 0.0)]
        {
            let limiter = limiter(per_second, burst);
            limiter.count().unwrap();
            let mut headers = HeaderMap::new();
            limiter.standing().tell(&mut headers);
            assert_eq!(headers.len(), 5);
        }
    }
}
