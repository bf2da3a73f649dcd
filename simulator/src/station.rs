//! A vendor as the control port sees it: behaviour, counters, last requests.
//!
//! Vendors differ in what they answer; what can be set on them and counted is
//! the same, and lives here. Counters are relaxed atomics: each is read for
//! itself, by people and tests that wait for it to reach a value.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock;
use crate::faults::Behaviour;
use crate::ledger::lock;
use crate::request_log::RequestLog;

/// One vendor's shared state.
pub(crate) struct Station {
    pub(crate) name: &'static str,
    pub(crate) counts: Counts,
    behaviour: watch::Sender<Behaviour>,
    draws: AtomicU64,
    /// Connections since the start.
    met: AtomicU64,
    pace: Window,
    pub(crate) log: RequestLog,
}

/// What a vendor has counted since the last reset; the gauges (`in_flight`,
/// `connections`) stand for what is there now.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) requests: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) probes: AtomicU64,
    pub(crate) breaches: AtomicU64,
}

impl Counts {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    fn reset(&self) {
        for counter in [&self.requests, &self.accepted, &self.probes, &self.breaches] {
            counter.store(0, Relaxed);
        }
    }
}

impl Station {
    pub(crate) fn new(name: &'static str, log_capacity: usize, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            name,
            counts: Counts::default(),
            behaviour: watch::Sender::new(Behaviour::default()),
            draws: AtomicU64::new(seed),
            met: AtomicU64::new(0),
            pace: Window::new(Duration::from_secs(1)),
            log: RequestLog::new(log_capacity),
        })
    }

    pub(crate) fn behaviour(&self) -> Behaviour {
        *self.behaviour.borrow()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Behaviour> {
        self.behaviour.subscribe()
    }

    pub(crate) fn behave(&self, behaviour: Behaviour) {
        self.behaviour.send_replace(behaviour);
    }

    /// Returns to health when a behaviour's time is over. Runs for ever.
    pub(crate) async fn expire_behaviours(self: Arc<Self>) {
        let mut watch = self.watch();
        loop {
            let lasts = watch.borrow_and_update().lasts;
            let until = lasts.map(|lasts| clock::instant() + lasts);
            tokio::select! {
                changed = watch.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = sleep_until(until) => {
                    // A behaviour that was set in this very moment wins.
                    if !watch.has_changed().unwrap_or(true) {
                        self.behave(Behaviour::default());
                    }
                }
            }
        }
    }

    /// Draws whether a share of the requests includes this one. The draws are a
    /// hash of a counter (the finaliser of SplitMix64): even, without a pattern
    /// that a retry could fall in step with, and the same in each run.
    pub(crate) fn drawn(&self, share: f64) -> bool {
        share >= 1.0 || self.draw() < share
    }

    /// An even draw from 0 to 1.
    pub(crate) fn draw(&self) -> f64 {
        let n = self.draws.fetch_add(1, Relaxed);
        let mut z = n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        // 53 bits are what a double holds exactly.
        (z >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Whether one more request fits a limit per second.
    pub(crate) fn within_pace(&self, limit: u32) -> bool {
        self.pace.take(limit, clock::instant())
    }

    pub(crate) fn reset(&self) {
        self.behave(Behaviour::default());
        self.counts.reset();
        self.pace.reset();
        self.log.clear();
    }
}

/// A count that starts again after each period: never more than the limit in
/// one period, the first of which begins with the first request.
pub(crate) struct Window {
    period: Duration,
    state: Mutex<(Option<Instant>, u32)>,
}

impl Window {
    pub(crate) fn new(period: Duration) -> Self {
        Self { period, state: Mutex::default() }
    }

    pub(crate) fn take(&self, limit: u32, now: Instant) -> bool {
        let mut state = lock(&self.state);
        let (began, count) = &mut *state;
        if began.is_none_or(|began| now.duration_since(began) >= self.period) {
            *began = Some(now);
            *count = 0;
        }
        let fits = *count < limit;
        *count += u32::from(fits);
        fits
    }

    pub(crate) fn reset(&self) {
        *lock(&self.state) = (None, 0);
    }
}

/// A request that is not answered yet: one more in flight while it lives.
pub(crate) struct InFlight {
    pub(crate) station: Arc<Station>,
    /// The number of its connection.
    pub(crate) connection: u64,
}

impl InFlight {
    pub(crate) fn new(station: &Arc<Station>, connection: u64) -> Self {
        Counts::add(&station.counts.requests);
        Counts::add(&station.counts.in_flight);
        Self { station: Arc::clone(station), connection }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.station.counts.in_flight.fetch_sub(1, Relaxed);
    }
}

/// A connection that is counted while it lives.
pub(crate) struct Connected {
    station: Arc<Station>,
    /// From 1.
    pub(crate) number: u64,
}

impl Connected {
    pub(crate) fn new(station: &Arc<Station>) -> Self {
        Counts::add(&station.counts.connections);
        let number = station.met.fetch_add(1, Relaxed) + 1;
        Self { station: Arc::clone(station), number }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.station.counts.connections.fetch_sub(1, Relaxed);
    }
}

/// Sleeps until then; for ever without a time.
pub(crate) async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_is_met_and_repeats() {
        let hits = |seed| {
            let station = Station::new("apns", 0, seed);
            (0..10_000).map(|_| station.drawn(0.3)).collect::<Vec<_>>()
        };
        let first = hits(7);
        let met = first.iter().filter(|hit| **hit).count();
        assert!((2_800..3_200).contains(&met), "{met}");
        assert_eq!(first, hits(7));
    }

    #[test]
    fn window_never_lets_more_than_its_limit_through() {
        let window = Window::new(Duration::from_secs(1));
        let start = clock::instant();
        let passed = (0..50).filter(|_| window.take(10, start)).count();
        assert_eq!(passed, 10);
        assert!(window.take(10, start + Duration::from_secs(1)));
    }
}
