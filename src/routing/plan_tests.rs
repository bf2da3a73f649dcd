use std::sync::Arc;
use std::time::{Duration, Instant};

use pushyard_providers::{Answer, Outcome, Part};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Ask, Own, Plan, Shape, plan};
use crate::clock::{Clock, Now};
use crate::model::Recipient;
use crate::routing::testing::{catalog, recipient, settings};
use crate::routing::{
    Balance, Board, Budget, Catalog, Cause, Ended, Keys, LeftOut, Member, Pass, Period,
    ProviderIndex, ProviderSettings, Route,
};

const S: Duration = Duration::from_secs(1);

/// A route over some providers, and the question that is put to it.
pub(in crate::routing) struct Desk {
    catalog: Catalog,
    board: Board,
    now: Now,
    own: Vec<(usize, Own)>,
    pub(in crate::routing) saturated: Vec<u16>,
    pub(in crate::routing) affinity: u64,
    turn: u64,
    rng: StdRng,
}

impl Desk {
    /// Tiers of (provider, weight); provider n has id `n`.
    pub(in crate::routing) fn new(balance: Balance, tiers: &[&[(u16, f64)]]) -> Self {
        Self::with(balance, tiers, |_, _| {})
    }

    pub(in crate::routing) fn with(
        balance: Balance,
        tiers: &[&[(u16, f64)]],
        mend: impl Fn(u16, &mut ProviderSettings),
    ) -> Self {
        let count = tiers.iter().flat_map(|tier| tier.iter()).map(|(n, _)| n + 1).max().unwrap();
        let providers = (0..count).map(|n| {
            let mut settings = settings(&n.to_string());
            mend(n, &mut settings);
            settings
        });
        let member = |(n, weight): &(u16, f64)| {
            let provider = ProviderIndex(*n);
            Member { provider, weight: *weight }
        };
        let tiers = tiers.iter().map(|tier| tier.iter().map(member).collect()).collect();
        let route = Route { name: "route".into(), tiers, balance };
        let catalog = catalog(providers.collect(), vec![route]);
        let now = Clock::default().now();
        let board = Board::new(&catalog, now.instant);
        let (own, saturated, rng) = (Vec::new(), Vec::new(), StdRng::seed_from_u64(1));
        Self { catalog, board, now, own, saturated, affinity: 0, turn: 0, rng }
    }

    fn shape(&mut self, recipient: &Recipient) -> Shape {
        let (route, at) = (Arc::from("route"), self.now.instant);
        Shape::of(&self.catalog, &mut self.board, &route, recipient, |_, _| false, at)
    }

    /// Puts the question for a recipient, and hands it over with the board.
    pub(in crate::routing) fn ask<T>(
        &mut self,
        recipient: &Recipient,
        answer: impl FnOnce(&Ask<'_>, &Board, &mut StdRng) -> T,
    ) -> T {
        let shape = self.shape(recipient);
        let own = |n: usize| {
            let said = self.own.iter().find(|(at, _)| *at == n);
            said.map_or(Own::Free, |(_, own)| *own)
        };
        let providers = 0..self.catalog.providers.len() as u16;
        let saturated: Vec<bool> = providers.map(|n| self.saturated.contains(&n)).collect();
        let ask = Ask {
            shape: &shape,
            own: &own,
            saturated: &saturated,
            affinity: self.affinity,
            turn: self.turn,
            now: self.now.instant,
            utc: self.now.utc,
        };
        answer(&ask, &self.board, &mut self.rng)
    }

    fn plan_for(&mut self, recipient: &Recipient) -> Plan {
        self.ask(recipient, |ask, board, rng| plan(ask, board, &mut || rng.random()))
    }

    fn plan(&mut self) -> Plan {
        self.plan_for(&recipient(&[("token", "")]))
    }

    /// The candidate that comes first.
    pub(in crate::routing) fn first(&mut self) -> u8 {
        self.plan().order[0]
    }

    /// How often each candidate comes first in so many plans.
    pub(in crate::routing) fn shares(&mut self, plans: u64) -> Vec<f64> {
        let mut counts = vec![0.0; 8];
        for n in 0..plans {
            (self.affinity, self.turn) = (n, n);
            counts[usize::from(self.first())] += 1.0 / plans as f64;
        }
        counts
    }

    pub(in crate::routing) fn eject(&mut self, provider: u16, cause: Cause) {
        let key = self.board.lane(ProviderIndex(provider)).key;
        self.board.eject(key, cause, self.now.instant, 0.0);
    }

    fn keys(&self, provider: u16) -> Keys {
        Keys::from_slice(&[self.board.lane(ProviderIndex(provider)).key])
    }

    pub(in crate::routing) fn call(&mut self, provider: u16, answer: &Answer, elapsed: Duration) {
        let keys = self.keys(provider);
        let index = ProviderIndex(provider);
        let permit = self.board.admit(index, &keys, Pass::Usual, self.now.instant).unwrap();
        let ended = Ended { permit: &permit, keys: &keys, answer, elapsed, address: 0 };
        self.board.answered(&ended, self.now, &mut || 0.0);
    }

    pub(in crate::routing) fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        self.board.tick(self.now.instant);
    }

    /// Ejects a provider and lets it recover, so that its slow start begins now.
    pub(in crate::routing) fn start_slowly(&mut self, provider: u16) {
        self.eject(provider, Cause::Consecutive);
        self.pass(30 * S);
        for _ in 0..3 {
            self.call(provider, &Answer::new(Outcome::Accepted), S / 10);
            self.pass(S);
        }
    }

    fn why(&mut self, n: u8) -> Option<LeftOut> {
        let plan = self.plan();
        plan.left_out.iter().find(|(at, _)| *at == n).map(|(_, closed)| closed.why)
    }
}

#[test]
fn candidates_are_those_whose_kind_app_region_and_binding_match() {
    let tiers: &[&[(u16, f64)]] = &[&[(0, 1.0), (1, 1.0)]];
    let mut desk = Desk::with(Balance::LeastLatency, tiers, |n, settings| {
        settings.region = Some(["eu", "us"][usize::from(n)].into());
    });
    let pairs = |desk: &mut Desk, recipient: &Recipient| -> Vec<(u16, u8)> {
        let shape = desk.shape(recipient);
        shape.candidates.iter().map(|c| (c.provider.0, c.address)).collect()
    };
    let mut anywhere = recipient(&[("a", ""), ("b", "unknown"), ("c", "app")]);
    assert_eq!(pairs(&mut desk, &anywhere), [(0, 0), (0, 2), (1, 0), (1, 2)]);
    anywhere.region = Some("us".to_owned());
    assert_eq!(pairs(&mut desk, &anywhere), [(1, 0), (1, 2)]);
    anywhere.region = Some("jp".to_owned());
    assert_eq!(pairs(&mut desk, &anywhere), []);
}

#[test]
fn a_candidate_is_left_out_with_its_reason_and_the_time_to_look_again() {
    let mut desk = Desk::new(Balance::LeastLatency, &[&[(0, 1.0), (1, 1.0), (2, 1.0)]]);
    let soon = desk.now.instant + 3 * S;
    desk.eject(0, Cause::Auth);
    let mut busy = Answer::new(Outcome::Throttled);
    busy.retry_after = Some(9 * S);
    desk.call(1, &busy, S);
    desk.own = vec![(2, Own::Skip(LeftOut::AddressPaused, Some(soon)))];
    let plan = desk.plan();
    assert!(plan.order.is_empty() && !plan.panic);
    let whys: Vec<LeftOut> = plan.left_out.iter().map(|(_, closed)| closed.why).collect();
    assert_eq!(whys, [LeftOut::Ejected, LeftOut::Throttled, LeftOut::AddressPaused]);
    assert_eq!(plan.look_again(desk.now.instant), Some(soon));
}

#[test]
fn an_app_that_is_out_takes_only_its_own_addresses_along() {
    let mut desk = Desk::new(Balance::LeastLatency, &[&[(0, 1.0)]]);
    let both = recipient(&[("a", "ill"), ("b", "well")]);
    let at = desk.now.instant;
    let ill = desk.board.key(ProviderIndex(0), &Part::app("ill"), at);
    desk.board.eject(ill, Cause::Auth, at, 0.0);
    assert_eq!(desk.plan_for(&both).order[..], [1]);
}

#[test]
fn everything_goes_to_the_better_tier_while_one_of_it_is_healthy() {
    let mut desk =
        Desk::new(Balance::RoundRobin, &[&[(0, 1.0), (1, 1.0)], &[(2, 1.0)], &[(3, 1.0)]]);
    desk.eject(0, Cause::Consecutive);
    for _ in 0..100 {
        assert_eq!(desk.plan().order[..], [1, 2, 3]);
    }
    desk.eject(1, Cause::Consecutive);
    assert_eq!(desk.plan().order[..], [2, 3]);
}

#[test]
fn what_a_slow_start_cannot_carry_spills_to_the_next_tier() {
    let mut desk = Desk::new(Balance::LeastLatency, &[&[(0, 1.0)], &[(1, 1.0)]]);
    desk.start_slowly(0);
    // Its last canary was a second ago; at 10 s the ramp is a third, times 1.4.
    desk.pass(9 * S);
    let shares = desk.shares(4000);
    assert!((shares[0] - 1.4 / 3.0).abs() < 0.03, "{shares:?}");
    // Above 1 / 1.4 of full weight it carries all again.
    desk.pass(12 * S);
    assert!(desk.shares(100)[0] > 0.999);
}

#[test]
fn the_drawn_tier_comes_first_then_those_after_it_then_those_before() {
    let mut desk = Desk::new(Balance::LeastLatency, &[&[(0, 1.0)], &[(1, 1.0)], &[(2, 1.0)]]);
    desk.start_slowly(0);
    let mut seen: Vec<Vec<u8>> = (0..200).map(|_| desk.plan().order.to_vec()).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen, [vec![0, 1, 2], vec![1, 2, 0]]);
}

#[test]
fn a_saturated_candidate_is_passed_over_where_another_would_not_wait() {
    let mut desk = Desk::new(Balance::LeastLatency, &[&[(0, 1.0)], &[(1, 1.0)]]);
    desk.saturated = vec![0];
    assert_eq!(desk.plan().order[..], [1]);
    assert_eq!(desk.why(0), Some(LeftOut::Saturated));
    desk.saturated = vec![0, 1];
    assert_eq!(desk.plan().order[..], [0, 1], "where all are, they stand as they are");
}

#[test]
fn least_latency_prefers_the_quick_the_idle_and_the_heavy() {
    let tier: &[&[(u16, f64)]] = &[&[(0, 1.0), (1, 1.0)]];
    let mut desk = Desk::new(Balance::LeastLatency, tier);
    desk.pass(60 * S);
    desk.call(0, &Answer::new(Outcome::Accepted), S / 10);
    desk.call(1, &Answer::new(Outcome::Accepted), S / 5);
    assert_eq!(desk.first(), 0);
    let keys = desk.keys(0);
    for _ in 0..2 {
        desk.board.admit(ProviderIndex(0), &keys, Pass::Usual, desk.now.instant).unwrap();
    }
    assert_eq!(desk.first(), 1, "three times 0.1 s is more than 0.2 s");

    let mut desk = Desk::new(Balance::LeastLatency, &[&[(0, 1.0), (1, 2.0)]]);
    assert_eq!(desk.first(), 1, "with the same latency the weight decides");
}

#[test]
fn a_provider_that_fails_quickly_does_not_attract_traffic() {
    let mut desk = Desk::new(Balance::LeastLatency, &[&[(0, 1.0), (1, 1.0)]]);
    desk.call(0, &Answer::new(Outcome::Unavailable), S / 1000);
    for _ in 0..20 {
        assert_eq!(desk.first(), 1);
    }
}

#[test]
fn among_many_each_has_a_chance_and_the_slowest_the_least() {
    let tier: &[&[(u16, f64)]] = &[&[(0, 1.0), (1, 1.0), (2, 1.0), (3, 1.0)]];
    let mut desk = Desk::new(Balance::LeastLatency, tier);
    desk.pass(60 * S);
    for n in 0..4 {
        desk.call(n, &Answer::new(Outcome::Accepted), S / 10 * (u32::from(n) + 1));
    }
    let shares = desk.shares(4000);
    assert!(shares[0] > shares[1] && shares[1] > shares[2] && shares[2] > shares[3], "{shares:?}");
    assert!(shares[0] < 0.7, "the best one is not stampeded: {shares:?}");
}

#[test]
fn weighted_shares_follow_the_weights_and_a_device_stays_with_its_provider() {
    let mut desk = Desk::new(Balance::Weighted, &[&[(0, 3.0), (1, 1.0)]]);
    let shares = desk.shares(8000);
    assert!((shares[0] - 0.75).abs() < 0.02, "{shares:?}");
    for device in 0..50 {
        desk.affinity = device;
        let first = desk.first();
        for _ in 0..5 {
            assert_eq!(desk.first(), first);
        }
    }
}

#[test]
fn an_absent_members_share_is_spread_evenly_and_nobody_else_moves() {
    let mut desk = Desk::new(Balance::Weighted, &[&[(0, 1.0), (1, 1.0), (2, 1.0)]]);
    let before: Vec<u8> =
        (0..3000).map(|device| (desk.affinity = device, desk.first()).1).collect();
    desk.eject(2, Cause::Auth);
    let mut moved = [0u32, 0];
    for (device, first) in before.into_iter().enumerate() {
        desk.affinity = device as u64;
        let now = desk.first();
        if first == 2 {
            moved[usize::from(now)] += 1;
        } else {
            assert_eq!(now, first);
        }
    }
    assert!(moved[0].abs_diff(moved[1]) < 150, "{moved:?}");
}

#[test]
fn round_robin_takes_each_member_in_turn() {
    let mut desk = Desk::new(Balance::RoundRobin, &[&[(0, 1.0), (1, 1.0), (2, 1.0)]]);
    let firsts: Vec<u8> = (0..6).map(|turn| (desk.turn = turn, desk.first()).1).collect();
    assert_eq!(firsts, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn cheapest_looks_at_money_first_and_at_quickness_between_equals() {
    let tier: &[&[(u16, f64)]] = &[&[(0, 1.0), (1, 1.0), (2, 1.0)]];
    let mut desk = Desk::with(Balance::Cheapest, tier, |n, settings| {
        settings.cost_per_million = [5.0, 1.0, 1.0][usize::from(n)];
    });
    desk.pass(60 * S);
    for (n, ms) in [(0, 10), (1, 300), (2, 100)] {
        desk.call(n, &Answer::new(Outcome::Accepted), Duration::from_millis(ms));
    }
    assert_eq!(desk.plan().order[..], [2, 1, 0]);
}

#[test]
fn in_panic_a_candidate_that_time_may_mend_takes_a_canary_and_one_that_needs_a_person_does_not() {
    let mut desk = Desk::new(Balance::LeastLatency, &[&[(0, 1.0)], &[(1, 1.0)]]);
    desk.eject(0, Cause::Auth);
    desk.eject(1, Cause::Consecutive);
    let panic = desk.plan();
    assert!(panic.panic);
    assert_eq!(panic.order[..], [1]);
    let (index, keys) = (ProviderIndex(1), desk.keys(1));
    desk.board.admit(index, &keys, Pass::Panic, desk.now.instant).unwrap();
    let waits = desk.plan();
    assert!(waits.order.is_empty() && !waits.panic, "its canary is out");
}

#[test]
fn there_is_no_panic_while_another_candidate_is_usable_or_only_paused() {
    let mut desk = Desk::new(Balance::LeastLatency, &[&[(0, 1.0)], &[(1, 1.0)]]);
    desk.eject(0, Cause::Consecutive);
    assert!(!desk.plan().panic);

    let mut desk = Desk::new(Balance::LeastLatency, &[&[(0, 1.0)]]);
    desk.call(0, &Answer::new(Outcome::Throttled), S);
    let plan = desk.plan();
    assert!(plan.order.is_empty() && !plan.panic);
}

#[test]
fn a_moment_that_has_passed_is_no_reason_to_look_again() {
    let mut desk = Desk::new(Balance::LeastLatency, &[&[(0, 1.0)]]);
    let past: Instant = desk.now.instant;
    desk.now = desk.now.plus(S);
    desk.own = vec![(0, Own::Skip(LeftOut::ExcludedByDelivery, Some(past)))];
    assert_eq!(desk.plan().look_again(desk.now.instant), None);
}

#[test]
fn a_spent_budget_takes_a_provider_out_if_hard_and_else_puts_it_last_under_cheapest() {
    for (hard, order) in [(true, vec![1]), (false, vec![1, 0])] {
        let mut desk = Desk::with(Balance::Cheapest, &[&[(0, 1.0), (1, 1.0)]], |n, settings| {
            settings.cost_per_million = if n == 0 { 1e6 } else { 2e6 };
            let budget = Budget { amount: 1.0, period: Period::Day, hard };
            settings.budget = Some(budget).filter(|_| n == 0);
        });
        assert_eq!(desk.first(), 0, "the cheaper one, while it has budget left");
        let keys = desk.keys(0);
        let permit =
            desk.board.admit(ProviderIndex(0), &keys, Pass::Usual, desk.now.instant).unwrap();
        let answer = Answer::new(Outcome::Accepted);
        let elapsed = Duration::from_millis(1);
        let ended = Ended { permit: &permit, keys: &keys, answer: &answer, elapsed, address: 0 };
        desk.board.answered(&ended, desk.now, &mut || 0.5);
        let plan = desk.plan();
        assert_eq!(plan.order.to_vec(), order);
        let out = plan.left_out.iter().any(|(n, closed)| *n == 0 && closed.why == LeftOut::Budget);
        assert_eq!(out, hard);
    }
}

#[test]
fn of_two_drawn_members_the_quicker_goes_first_and_the_slowest_never() {
    let tiers: &[&[(u16, f64)]] = &[&[(0, 1.0), (1, 1.0), (2, 1.0), (3, 1.0)]];
    let mut desk = Desk::new(Balance::LeastLatency, tiers);
    desk.pass(60 * S);
    for (provider, ms) in [(0, 40), (1, 10), (2, 80), (3, 20)] {
        desk.call(provider, &Answer::new(Outcome::Accepted), S * ms / 1000);
    }
    let shares = desk.shares(6_000);
    // Of the six pairs the quickest is in three, the next best of two, the third of one.
    for (provider, share) in [(1, 3.0 / 6.0), (3, 2.0 / 6.0), (0, 1.0 / 6.0), (2, 0.0)] {
        assert!((shares[provider] - share).abs() < 0.03, "{provider}: {shares:?}");
    }
}

#[test]
fn a_degraded_tier_sends_on_what_its_success_ratio_cannot_carry() {
    // 1.4 × 0.6 = 0.84; with a ratio of 0.72 the first tier still carries all.
    for (good, bad, first) in [(60, 40, 0.84), (72, 28, 1.0)] {
        let tiers: &[&[(u16, f64)]] = &[&[(0, 1.0)], &[(1, 1.0)]];
        let mut desk = Desk::with(Balance::LeastLatency, tiers, |_, settings| {
            settings.health.consecutive_failures = 1000;
        });
        for n in 0..good + bad {
            let outcome = if n < good { Outcome::Accepted } else { Outcome::Unavailable };
            desk.call(0, &Answer::new(outcome), S / 10);
        }
        let shares = desk.shares(4_000);
        assert!((shares[0] - first).abs() < 0.03, "{good} good: {shares:?}");
    }
}
