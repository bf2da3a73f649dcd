//! Whether one connection lives.
//!
//! A PING is the only question that a peer must answer at once, and vendors bear
//! few of them, so it is asked last: when a connection carries calls, has been
//! silent for a second, and others were heard meanwhile. Without an answer it is
//! dead. Where no other was heard, the peer may be dead, or slow, or the network:
//! that is for the router to judge, which sees the provider as a whole.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use h2::{Ping, PingPong};

use super::metered::Meter;

/// A connection is suspected dead when a call on it was given up after at least
/// this long without a byte from the peer: further calls go elsewhere. One that
/// carries calls may be asked then.
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(1);

/// A living peer answers a PING within this time.
pub(super) const PONG_WITHIN: Duration = Duration::from_secs(1);

/// Another connection must have been heard so much later for one to be silent by
/// itself.
const OUTLIVED_BY: Duration = Duration::from_millis(500);

/// Signs of life of one connection. All times are the pool's age.
pub(super) struct Vital {
    meter: Arc<Meter>,
    /// Since when it carries calls without a break, in microseconds.
    busy_us: AtomicU64,
    /// Sends PINGs; `None` while the answer to one is awaited, and after one
    /// that was given up.
    pinger: Mutex<Option<PingPong>>,
    /// When the last one went out, in microseconds; 0: none did.
    pinged_us: AtomicU64,
}

impl Vital {
    pub(super) fn new(meter: Arc<Meter>, pinger: Option<PingPong>) -> Self {
        Self {
            meter,
            busy_us: AtomicU64::new(0),
            pinger: Mutex::new(pinger),
            pinged_us: AtomicU64::new(0),
        }
    }

    /// It carries a call again.
    pub(super) fn busy(&self, now: Duration) {
        self.busy_us.store(micros(now), Ordering::Relaxed);
    }

    /// The means to send a PING, if the last one is long enough ago.
    pub(super) fn take_pinger(&self, now: Duration, interval: Duration) -> Option<PingPong> {
        let last = self.pinged_us.load(Ordering::Relaxed);
        if last > 0 && micros(now).saturating_sub(last) < micros(interval) {
            return None;
        }
        let pinger = self.pinger.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        self.pinged_us.store(micros(now).max(1), Ordering::Relaxed);
        Some(pinger)
    }

    /// Whether one that carries calls has been silent while others were heard.
    pub(super) fn is_suspect(&self, now: Duration, pool: &Meter) -> bool {
        let since = self.meter.heard_us().max(self.busy_us.load(Ordering::Relaxed));
        let silent = micros(now).saturating_sub(since) >= micros(SILENT_AFTER);
        silent && pool.heard_us() >= since + micros(OUTLIVED_BY)
    }

    /// Whether nothing has come for so long.
    pub(super) fn is_idle(&self, now: Duration, interval: Duration) -> bool {
        micros(now).saturating_sub(self.meter.heard_us()) >= micros(interval)
    }

    /// Whether a PING got no answer in time, nor did anything else come.
    pub(super) fn is_silent(&self, now: Duration) -> bool {
        let asked = self.pinged_us.load(Ordering::Relaxed);
        asked > self.meter.heard_us() && micros(now).saturating_sub(asked) >= micros(PONG_WITHIN)
    }

    /// Whether others were heard since it was asked.
    pub(super) fn is_outlived(&self, pool: &Meter) -> bool {
        pool.heard_us() >= self.pinged_us.load(Ordering::Relaxed) + micros(OUTLIVED_BY)
    }

    /// Sends a PING and waits for its answer.
    pub(super) async fn ping(&self, mut pinger: PingPong) {
        if pinger.ping(Ping::opaque()).await.is_ok() {
            *self.pinger.lock().unwrap_or_else(PoisonError::into_inner) = Some(pinger);
        }
    }
}

fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}
