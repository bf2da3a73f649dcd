//! How often one address may ask, and how often it may bring a bad token: a token
//! bucket each.
//!
//! Addresses are forgotten in two generations: when the younger has [`HELD`] of
//! them, the older goes. That bounds memory without a search, whoever sends from
//! however many addresses; who is forgotten begins with a full bucket.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::refusal::Refusal;
use crate::routing::Rate;

/// Bad tokens of one address (ntfy: `visitor-auth-failure-limit-burst` and
/// `-replenish`). Good ones pass in any case: nobody can guess one, and behind a
/// proxy one device's mistake must not lock out the others.
const FAILURES: Rate = Rate { per_second: 1.0 / 60.0, burst: 30.0 };

/// Addresses of a generation; about 4 MiB in both [o].
const HELD: usize = 32_768;

/// The buckets of all addresses.
#[derive(Debug)]
pub(super) struct Visitors {
    requests: Option<Buckets>,
    failures: Buckets,
}

impl Visitors {
    /// `rate`: of requests, where they are bounded.
    pub(super) fn new(rate: Option<Rate>) -> Self {
        Self { requests: rate.map(Buckets::new), failures: Buckets::new(FAILURES) }
    }

    /// Counts a request.
    pub(super) fn ask(&self, address: IpAddr, now: Instant) -> Result<(), Refusal> {
        let Some(requests) = &self.requests else { return Ok(()) };
        requests.take(address, now).map_err(Refusal::Requests)
    }

    /// What a bad token is answered; counts it.
    pub(super) fn fail(&self, address: IpAddr, now: Instant) -> Refusal {
        match self.failures.take(address, now) {
            Ok(()) => Refusal::Unauthorized,
            Err(wait) => Refusal::Failures(wait),
        }
    }
}

#[derive(Debug)]
struct Buckets {
    rate: Rate,
    generations: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<IpAddr, Bucket>,
    old: HashMap<IpAddr, Bucket>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    level: f64,
    at: Instant,
}

impl Buckets {
    fn new(rate: Rate) -> Self {
        Self { rate, generations: Mutex::default() }
    }

    /// Takes one, or says after how long there is one.
    fn take(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = generations.bucket(address, Bucket { level: self.rate.burst, at: now });
        let came = now.saturating_duration_since(bucket.at).as_secs_f64() * self.rate.per_second;
        bucket.level = (bucket.level + came).min(self.rate.burst);
        bucket.at = now;
        if bucket.level >= 1.0 {
            bucket.level -= 1.0;
            return Ok(());
        }
        let wait = (1.0 - bucket.level) / self.rate.per_second;
        // A rate may be so small that no duration holds it.
        Err(Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX))
    }
}

impl Generations {
    fn bucket(&mut self, address: IpAddr, full: Bucket) -> &mut Bucket {
        if self.young.len() >= HELD && !self.young.contains_key(&address) {
            self.old = std::mem::take(&mut self.young);
        }
        let known = self.old.remove(&address).unwrap_or(full);
        self.young.entry(address).or_insert(known)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::clock::Clock;

    const ME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn a_bucket_empties_and_fills_by_address() {
        let now = Clock::default().now().instant;
        let visitors = Visitors::new(Some(Rate { per_second: 0.5, burst: 2.0 }));
        let later = |s| now + Duration::from_secs(s);
        let other = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(visitors.ask(ME, now), Ok(()));
        assert_eq!(visitors.ask(ME, now), Ok(()));
        assert_eq!(visitors.ask(ME, later(1)), Err(Refusal::Requests(Duration::from_secs(1))));
        assert_eq!(visitors.ask(other, later(1)), Ok(()));
        assert_eq!(visitors.ask(ME, later(2)), Ok(()));
        assert!(Visitors::new(None).ask(ME, now).is_ok());
    }

    #[test]
    fn bad_tokens_are_counted_thirty_and_one_a_minute() {
        let now = Clock::default().now().instant;
        let visitors = Visitors::new(None);
        for _ in 0..30 {
            assert_eq!(visitors.fail(ME, now), Refusal::Unauthorized);
        }
        assert_eq!(visitors.fail(ME, now), Refusal::Failures(Duration::from_secs(60)));
        assert_eq!(visitors.fail(ME, now + Duration::from_secs(60)), Refusal::Unauthorized);
    }

    #[test]
    fn addresses_are_held_in_bounds_and_who_comes_often_is_not_forgotten() {
        let now = Clock::default().now().instant;
        let buckets = Buckets::new(Rate { per_second: 1e-9, burst: 1000.0 });
        for n in 0..3 * HELD as u32 {
            buckets.take(IpAddr::from(n.to_be_bytes()), now).unwrap();
            if n % 1000 == 0 {
                buckets.take(ME, now).unwrap();
            }
        }
        let generations = buckets.generations.lock().unwrap();
        assert!(generations.young.len() + generations.old.len() <= 2 * HELD);
        let mine = generations.young.get(&ME).or(generations.old.get(&ME)).unwrap();
        assert_eq!(mine.level, 1000.0 - 99.0);
    }
}
