//! Addresses that a vendor declared gone, in memory: no attempt begins on one.
//!
//! A bounded set of keys with the moment of each. The store has what was said of
//! them (docs/semantics.md, "Gone addresses"); this is its index.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::clock::Utc;
use crate::model::Gone;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct GoneAddresses {
    at: HashMap<u128, Utc>,
    /// In the order of their coming; what has been healed or renewed since is
    /// passed over.
    order: VecDeque<(u128, Utc)>,
}

impl GoneAddresses {
    /// Whether none is known: then nobody need ask for a key.
    pub(super) fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// An address is gone. Of too many the oldest are forgotten: one more attempt
    /// at such an address finds out again.
    pub(super) fn insert(&mut self, key: u128, at: Utc) {
        self.at.insert(key, at);
        self.order.push_back((key, at));
        while self.at.len() > Gone::MOST || self.order.len() > 2 * self.at.len() + 64 {
            let Some((oldest, since)) = self.order.pop_front() else { return };
            if self.at.get(&oldest) != Some(&since) {
                continue;
            }
            if self.at.len() > Gone::MOST {
                self.at.remove(&oldest);
            } else {
                self.order.push_back((oldest, since));
            }
        }
    }

    /// It is live again; whether it was gone.
    pub(super) fn heal(&mut self, key: u128) -> bool {
        self.at.remove(&key).is_some()
    }

    /// Since when it is gone, if it still counts as gone.
    pub(super) fn since(&self, key: u128, now: Utc) -> Option<Utc> {
        self.at.get(&key).copied().filter(|at| now.since(*at) < Gone::KEPT)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_address_is_gone_until_it_is_healed_or_long_ago() {
        let mut gone = GoneAddresses::default();
        let at = Utc::from_ms(1_000);
        gone.insert(7, at);
        assert_eq!(gone.since(7, at), Some(at));
        assert_eq!(gone.since(7, at.plus(Gone::KEPT)), None);
        assert!(gone.heal(7) && !gone.heal(7) && gone.is_empty());
    }

    #[test]
    fn the_order_stays_as_short_as_the_set_however_often_an_address_comes_back() {
        let mut gone = GoneAddresses::default();
        for n in 0..10_000_u64 {
            gone.insert(u128::from(n % 3), Utc::from_ms(n));
        }
        assert_eq!(gone.since(0, Utc::from_ms(10_000)), Some(Utc::from_ms(9_999)));
        assert!(gone.order.len() <= 70, "{}", gone.order.len());
        assert_eq!(gone.since(1, Utc::from_ms(1).plus(Duration::ZERO)), Some(Utc::from_ms(9_997)));
    }
}
