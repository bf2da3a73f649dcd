use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use proptest::prelude::{ProptestConfig, prop_assert, proptest};
use pushyard_providers::{Priority, Push};

use super::{End, Lanes, Wanted};
use crate::clock::{Clock, Now, Utc};
use crate::dispatch::deliveries::{ClientIndex, Deliveries, ShapeIndex, StubRef};
use crate::model::{Durability, IdGenerator, Message, OnAmbiguous};
use crate::routing::{Balance, Candidate, Keys, ProviderIndex, Shape};

const PROVIDER: ProviderIndex = ProviderIndex(0);
const NOW: Utc = Utc::from_ms(1_760_000_000_000);

/// A moment, on both clocks.
fn moment(utc: Utc) -> Now {
    static BEGAN: LazyLock<Instant> = LazyLock::new(|| Clock::default().now().instant);
    Now { utc, instant: *BEGAN + utc.since(NOW) }
}

fn either(now: bool) -> Wanted {
    if now { Wanted::Now } else { Wanted::No }
}

/// Lanes in front of one provider.
struct Queue {
    deliveries: Deliveries,
    lanes: Lanes,
    ids: IdGenerator,
}

impl Queue {
    fn new() -> Self {
        let (deliveries, ids) = (Deliveries::default(), IdGenerator::default());
        Self { deliveries, lanes: Lanes::new(1), ids }
    }

    fn lane(&mut self, route: &str) -> ShapeIndex {
        let candidate = Candidate {
            provider: PROVIDER,
            address: 0,
            tier: 0,
            weight: 1.0,
            cost: 0.0,
            keys: Keys::new(),
        };
        self.lanes.join(Shape {
            route: route.into(),
            route_index: Some(0),
            balance: Balance::LeastLatency,
            at_most_once: false,
            candidates: vec![candidate],
        })
    }

    /// One delivery of a client, accepted at `at`.
    fn push(&mut self, client: u16, priority: Priority, route: &str, at: Utc) -> StubRef {
        let id = self.ids.next(at, &mut rand::rng());
        let message = Message {
            id,
            client: "client".into(),
            route: route.into(),
            deliver_at: None,
            ttl: Duration::from_secs(3600),
            on_ambiguous: OnAmbiguous::Resend,
            durability: Durability::Disk,
            push: Push { priority, ..Push::default() },
            recipients: Vec::new(),
            metadata: std::collections::BTreeMap::new(),
            idempotency: None,
            warnings: Vec::new(),
            unresolved: Vec::new(),
            trace: None,
        };
        let lane = self.lane(route);
        let entry = self.deliveries.add_message(&message, ClientIndex(client));
        let stub = self.deliveries.add_delivery(entry, 0, lane);
        self.lanes.push(&mut self.deliveries, stub, End::Back);
        stub
    }

    fn take(&mut self, now: Utc) -> Option<StubRef> {
        let next =
            self.lanes.next(&self.deliveries, PROVIDER, moment(now), &mut |_, _| Wanted::Now)?;
        self.lanes.take(&mut self.deliveries, next, PROVIDER);
        Some(next)
    }

    /// Takes so many, and says what of them is counted how often.
    fn counts<K: std::hash::Hash + Eq>(
        &mut self,
        calls: usize,
        mut key: impl FnMut(&mut Self, StubRef) -> K,
    ) -> HashMap<K, usize> {
        let mut counts = HashMap::new();
        for _ in 0..calls {
            let at = self.take(NOW).unwrap();
            *counts.entry(key(self, at)).or_default() += 1;
        }
        counts
    }
}

#[test]
fn each_of_n_clients_with_work_gets_at_least_nine_tenths_of_its_share() {
    for clients in [2, 3, 7, 20, 50, 100] {
        let mut queue = Queue::new();
        for client in 0..clients {
            // The first one floods.
            for _ in 0..if client == 0 { 3000 } else { 600 } {
                queue.push(client, Priority::High, "default", NOW);
            }
        }
        let counts = queue.counts(1000, |queue, at| queue.deliveries.message_of(at).client.0);
        let share = 900 / usize::from(clients);
        for client in 0..clients {
            let got = counts.get(&client).copied().unwrap_or(0);
            assert!(got >= share, "client {client} of {clients} got {got}, not {share}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    /// Invariant 17, whatever lanes and priorities the clients' work has, and whoever
    /// floods.
    #[test]
    fn no_client_with_work_gets_less_than_its_share(
        clients in 2u16..30,
        flood in 0usize..3000,
        kinds in proptest::collection::vec((0u8..4, proptest::bool::ANY), 1..20),
    ) {
        let mut queue = Queue::new();
        let each = 1000 / usize::from(clients) * 2 + 50;
        let mut kinds = kinds.iter().cycle();
        for client in 0..clients {
            for _ in 0..each + if client == 0 { flood } else { 0 } {
                let (route, high) = kinds.next().expect("a cycle does not end");
                let priority = if *high { Priority::High } else { Priority::Normal };
                queue.push(client, priority, &format!("route-{route}"), NOW);
            }
        }
        let counts = queue.counts(1000, |queue, at| queue.deliveries.message_of(at).client.0);
        for client in 0..clients {
            let got = counts.get(&client).copied().unwrap_or(0);
            prop_assert!(got >= 900 / usize::from(clients), "client {client} got {got}");
        }
    }
}

#[test]
fn high_goes_before_normal_four_to_one() {
    let mut queue = Queue::new();
    for _ in 0..100 {
        queue.push(0, Priority::Normal, "default", NOW);
        queue.push(0, Priority::High, "default", NOW);
    }
    let counts = queue.counts(100, |queue, at| queue.deliveries.message_of(at).policy.priority);
    assert_eq!((counts[&Priority::High], counts[&Priority::Normal]), (80, 20));
}

#[test]
fn the_oldest_goes_first_until_it_has_waited_for_half_a_minute() {
    let mut queue = Queue::new();
    let all: Vec<StubRef> = (0..8).map(|_| queue.push(0, Priority::High, "default", NOW)).collect();
    assert_eq!(queue.take(NOW.plus(Duration::from_secs(30))), Some(all[0]));
    let late = NOW.plus(Duration::from_secs(31));
    let order: Vec<StubRef> = (0..5).filter_map(|_| queue.take(late)).collect();
    // Three of the newest for each of the oldest.
    assert_eq!(order, [all[7], all[6], all[5], all[1], all[4]]);
}

#[test]
fn one_that_was_called_up_goes_next_whatever_is_fresher_and_has_had_its_turn() {
    let mut queue = Queue::new();
    let all: Vec<StubRef> = (0..8).map(|_| queue.push(0, Priority::High, "default", NOW)).collect();
    let late = NOW.plus(Duration::from_secs(31));
    let next = queue.lanes.next(&queue.deliveries, PROVIDER, moment(late), &mut |_, _| Wanted::Now);
    assert_eq!(next, Some(all[7]));
    queue.lanes.count(&queue.deliveries, all[7]);
    queue.lanes.remove(&mut queue.deliveries, all[7]);
    let fresh = queue.push(0, Priority::High, "default", NOW);
    queue.lanes.push(&mut queue.deliveries, all[7], End::Called);
    let order: Vec<StubRef> = (0..5).filter_map(|_| queue.take(late)).collect();
    assert_eq!(order, [all[7], fresh, all[6], all[0], all[5]]);
}

#[test]
fn a_lane_that_is_always_full_does_not_hide_another_of_the_same_client() {
    let mut queue = Queue::new();
    for _ in 0..1000 {
        queue.push(0, Priority::High, "crowded", NOW);
    }
    let lonely = queue.push(0, Priority::High, "lonely", NOW);
    let first: Vec<StubRef> = (0..4).filter_map(|_| queue.take(NOW)).collect();
    assert!(first.contains(&lonely));
}

#[test]
fn a_delivery_that_is_not_wanted_stays_and_others_are_asked() {
    let mut queue = Queue::new();
    let first = queue.push(0, Priority::High, "closed", NOW);
    let second = queue.push(1, Priority::High, "open", NOW);
    let open = |_: StubRef, shape: &Shape| either(&*shape.route == "open");
    let next = queue.lanes.next(&queue.deliveries, PROVIDER, moment(NOW), &mut { open });
    assert_eq!(next, Some(second));
    queue.lanes.remove(&mut queue.deliveries, first);
    queue.lanes.remove(&mut queue.deliveries, second);
    assert_eq!(queue.take(NOW), None);
    assert_eq!(queue.lanes.waiting(PROVIDER), 0);
}

#[test]
fn thousands_of_lanes_that_nothing_goes_from_are_asked_twenty_times_a_second_and_not_each_time() {
    let mut queue = Queue::new();
    for n in 0..1000 {
        queue.push(0, Priority::High, &format!("down-{n}"), NOW);
    }
    let mut asked = 0;
    let mut open = String::from("up");
    for ms in 0..1000 {
        let now = NOW.plus(Duration::from_millis(ms));
        queue.push(0, Priority::High, "up", now);
        if ms == 990 {
            open = String::from("down-7");
        }
        let mut wanted = |_: StubRef, shape: &Shape| {
            asked += 1;
            either(*shape.route == *"up" || *shape.route == *open)
        };
        // Each event draws until there is no more.
        let mut drawn = 0;
        while let Some(at) = queue.lanes.next(&queue.deliveries, PROVIDER, moment(now), &mut wanted)
        {
            queue.lanes.take(&mut queue.deliveries, at, PROVIDER);
            drawn += 1;
        }
        assert_eq!(drawn, 1, "at {ms} ms");
    }
    assert!((20_000..25_000).contains(&asked), "{asked}");
    // One that has opened is found when its time to be asked comes, ...
    let wake = queue.lanes.wake_at(moment(NOW).instant).unwrap();
    assert_eq!(wake, moment(NOW.plus(Duration::from_millis(1000))).instant);
    let now = NOW.plus(Duration::from_millis(1000));
    let mut wanted = |_: StubRef, shape: &Shape| either(*shape.route == *open);
    let found = queue.lanes.next(&queue.deliveries, PROVIDER, moment(now), &mut wanted).unwrap();
    queue.lanes.take(&mut queue.deliveries, found, PROVIDER);
    // ... and all are again when something else is asked for.
    queue.lanes.reopen(PROVIDER, moment(now).instant);
    let all = (0..2000).map_while(|_| queue.take(now)).count();
    assert_eq!(all, 999);
}

#[test]
fn what_was_called_up_is_asked_at_once_though_its_lane_rested_and_so_are_all_after_a_move() {
    let mut queue = Queue::new();
    let all: Vec<StubRef> =
        (0..20).map(|n| queue.push(0, Priority::High, &format!("route-{n}"), NOW)).collect();
    let mut none = |_: StubRef, _: &Shape| Wanted::No;
    assert_eq!(queue.lanes.next(&queue.deliveries, PROVIDER, moment(NOW), &mut none), None);
    let soon = NOW.plus(Duration::from_millis(1));
    assert_eq!(queue.take(soon), None, "all rest");
    queue.lanes.remove(&mut queue.deliveries, all[7]);
    queue.lanes.push(&mut queue.deliveries, all[7], End::Called);
    assert_eq!(queue.take(soon), Some(all[7]));
    assert_eq!(queue.take(soon), None);
    queue.lanes.reopen_all(moment(soon).instant);
    assert_eq!((0..30).map_while(|_| queue.take(soon)).count(), 19);
}

#[test]
fn lanes_that_wait_for_a_moment_are_asked_each_time_and_one_that_leaves_counts_no_more() {
    let mut queue = Queue::new();
    let all: Vec<StubRef> =
        (0..40).map(|n| queue.push(0, Priority::High, &format!("route-{n}"), NOW)).collect();
    let mut soon = |_: StubRef, _: &Shape| Wanted::Soon;
    assert_eq!(queue.lanes.next(&queue.deliveries, PROVIDER, moment(NOW), &mut soon), None);
    assert_eq!((0..50).map_while(|_| queue.take(NOW)).count(), all.len());
    // Of three that were called up one leaves from the middle, and the shares hold again
    // when the others have gone.
    let late = NOW.plus(Duration::from_secs(31));
    let all: Vec<StubRef> = (0..8).map(|_| queue.push(0, Priority::High, "default", NOW)).collect();
    for at in &all[..3] {
        queue.lanes.remove(&mut queue.deliveries, *at);
        queue.lanes.push(&mut queue.deliveries, *at, End::Called);
    }
    queue.lanes.remove(&mut queue.deliveries, all[1]);
    let order: Vec<StubRef> = (0..6).map_while(|_| queue.take(late)).collect();
    assert_eq!(order, [all[2], all[0], all[7], all[6], all[5], all[3]]);
}
