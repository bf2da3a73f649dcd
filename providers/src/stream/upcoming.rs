//! Which deliveries are for a topic later: what `?scheduled=1` is answered from.
//!
//! Hints and no more: which message, and when. Whether it is still to be sent is
//! looked up by who reads, so nothing here must be told of what is taken back. A
//! hint goes when its time has come. There are at most [`MOST`]; beyond that the
//! latest are not known.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

/// Hints over all topics; about 150 bytes each [o].
const MOST: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct Upcoming(Mutex<Hints>);

#[derive(Debug, Default)]
struct Hints {
    /// Time (unix seconds) and delivery.
    topics: HashMap<Box<str>, BTreeSet<(u64, u128)>>,
    times: BTreeSet<(u64, u128, Box<str>)>,
}

impl Upcoming {
    /// A delivery is for this topic at `time` (unix seconds).
    pub(super) fn expect(&self, topic: &str, time: u64, delivery: u128, now: u64) {
        let mut hints = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hints.forget(now);
        if time <= now {
            return;
        }
        hints.topics.entry(topic.into()).or_default().insert((time, delivery));
        hints.times.insert((time, delivery, topic.into()));
        if hints.times.len() > MOST {
            let latest = hints.times.pop_last();
            hints.leave(latest);
        }
    }

    /// The next `most` of a topic, soonest first.
    pub(super) fn of(&self, topic: &str, most: usize, now: u64) -> Vec<(u64, u128)> {
        let mut hints = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hints.forget(now);
        let of_topic = hints.topics.get(topic).into_iter().flatten();
        of_topic.take(most).copied().collect()
    }
}

impl Hints {
    fn forget(&mut self, now: u64) {
        while self.times.first().is_some_and(|(time, ..)| *time <= now) {
            let first = self.times.pop_first();
            self.leave(first);
        }
    }

    fn leave(&mut self, hint: Option<(u64, u128, Box<str>)>) {
        let Some((time, delivery, topic)) = hint else { return };
        let Some(of_topic) = self.topics.get_mut(&topic) else { return };
        of_topic.remove(&(time, delivery));
        if of_topic.is_empty() {
            self.topics.remove(&topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_come_soonest_first_and_go_when_their_time_has_come() {
        let upcoming = Upcoming::default();
        for (topic, time, delivery) in [("a", 30, 1), ("a", 20, 2), ("b", 25, 3), ("a", 10, 4)] {
            upcoming.expect(topic, time, delivery, 10);
        }
        assert_eq!(upcoming.of("a", 9, 10), [(20, 2), (30, 1)]);
        assert_eq!(upcoming.of("a", 1, 10), [(20, 2)]);
        assert_eq!(upcoming.of("a", 9, 20), [(30, 1)]);
        assert_eq!(upcoming.of("a", 9, 30), []);
        assert!(upcoming.0.lock().unwrap().topics.is_empty(), "b went with its time");
    }

    #[test]
    fn beyond_the_bound_the_latest_are_not_known() {
        let upcoming = Upcoming::default();
        for number in 0..=MOST as u64 {
            upcoming.expect("a", 1000 - number % 500, u128::from(number), 1);
        }
        let hints = upcoming.0.lock().unwrap();
        assert_eq!((hints.times.len(), hints.topics["a"].len()), (MOST, MOST));
        assert_eq!(hints.times.last().unwrap().0, 1000);
    }
}
