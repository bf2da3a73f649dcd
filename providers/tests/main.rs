//! The providers against the vendor simulator, in one binary: each further one
//! would be another link of everything.
#![allow(clippy::unwrap_used, reason = "an arrangement that fails fails its test")]

mod apns;
mod fcm;

use std::time::{SystemTime, UNIX_EPOCH};

use pushyard_providers::clock::Clock;

/// The real time: the simulator judges credentials by it.
struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "no other clock agrees with the simulator's")]
    fn unix_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
    }
}
