use std::time::Duration;

use pushyard_providers::{Answer, Outcome};

use super::super::plan::tests::Desk;
use super::{Outlook, outlook};
use crate::routing::testing::recipient;
use crate::routing::{Balance, Cause, LeftOut};

const S: Duration = Duration::from_secs(1);

const BALANCES: [Balance; 4] =
    [Balance::Weighted, Balance::RoundRobin, Balance::LeastLatency, Balance::Cheapest];

fn look(desk: &mut Desk) -> Outlook {
    desk.ask(&recipient(&[("token", "")]), |ask, board, _| outlook(ask, board))
}

/// The shares by candidate, as many as `Desk::shares` counts.
fn told(desk: &mut Desk) -> Vec<f64> {
    let Outlook { plan, shares } = look(desk);
    let mut by_candidate = vec![0.0; 8];
    for (n, share) in plan.order.iter().zip(shares) {
        by_candidate[usize::from(*n)] = share;
    }
    by_candidate
}

/// Four in the first tier and one in the second, each of another quickness.
fn busy(balance: Balance) -> Desk {
    let first: &[(u16, f64)] = &[(0, 3.0), (1, 1.0), (2, 2.0), (3, 1.0)];
    let mut desk = Desk::with(balance, &[first, &[(4, 1.0)]], |n, settings| {
        settings.cost_per_million = f64::from(n % 3);
    });
    desk.pass(60 * S);
    for n in 0..5 {
        desk.call(n, &Answer::new(Outcome::Accepted), S / 50 * (u32::from(n) + 1));
    }
    desk
}

#[test]
fn the_shares_are_what_plans_come_to() {
    for balance in BALANCES {
        for ejected in [None, Some(0), Some(2)] {
            let mut desk = busy(balance);
            if let Some(provider) = ejected {
                desk.eject(provider, Cause::Consecutive);
            }
            let (told, counted) = (told(&mut desk), desk.shares(20_000));
            for (told, counted) in told.iter().zip(&counted) {
                assert!((told - counted).abs() < 0.02, "{balance:?}: {told} is {counted}");
            }
            assert!((told.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{balance:?}: {told:?}");
        }
    }
}

#[test]
fn what_a_slow_start_cannot_carry_is_the_next_tiers_share() {
    let mut desk = Desk::new(Balance::LeastLatency, &[&[(0, 1.0)], &[(1, 1.0)]]);
    desk.start_slowly(0);
    desk.pass(9 * S);
    let (told, counted) = (told(&mut desk), desk.shares(20_000));
    assert!((told[0] - 1.4 / 3.0).abs() < 0.01 && (told[0] - counted[0]).abs() < 0.02);
    assert_eq!(look(&mut desk).plan.order[..], [1, 0], "the one that carries more stands first");
}

#[test]
fn the_first_of_a_weighted_tier_is_where_this_device_goes() {
    let mut desk = busy(Balance::Weighted);
    for device in 0..200 {
        desk.affinity = device;
        let first = look(&mut desk).plan.order[0];
        assert_eq!(desk.first(), first);
    }
}

#[test]
fn several_addresses_at_one_provider_share_nothing_more_than_that_providers_part() {
    let mut desk = Desk::new(Balance::Weighted, &[&[(0, 1.0), (1, 1.0)]]);
    let two = recipient(&[("a", ""), ("b", "")]);
    let Outlook { plan, shares } = desk.ask(&two, |ask, board, _| outlook(ask, board));
    let of = |provider: usize| -> f64 {
        let own = plan.order.iter().zip(&shares).filter(|(n, _)| usize::from(**n) / 2 == provider);
        own.map(|(_, share)| share).sum()
    };
    assert!((of(0) - 0.5).abs() < 1e-9 && (of(1) - 0.5).abs() < 1e-9, "{plan:?} {shares:?}");
}

#[test]
fn who_is_left_out_has_the_plans_reason_and_no_share() {
    let mut desk = Desk::new(Balance::LeastLatency, &[&[(0, 1.0)], &[(1, 1.0)], &[(2, 1.0)]]);
    desk.eject(0, Cause::Auth);
    desk.saturated = vec![1];
    let Outlook { plan, shares } = look(&mut desk);
    let whys: Vec<_> = plan.left_out.iter().map(|(n, closed)| (*n, closed.why)).collect();
    assert_eq!(whys, [(0, LeftOut::Ejected), (1, LeftOut::Saturated)]);
    assert_eq!((&plan.order[..], &shares[..]), (&[2][..], &[1.0][..]));
}

#[test]
fn a_broadcast_goes_to_all_of_the_first_usable_tier() {
    let first: &[(u16, f64)] = &[(0, 1.0), (1, 1.0), (2, 1.0)];
    let mut desk = Desk::new(Balance::Broadcast, &[first, &[(3, 1.0)]]);
    desk.eject(1, Cause::Auth);
    let Outlook { plan, shares } = look(&mut desk);
    let mut all: Vec<(u8, f64)> = plan.order.iter().copied().zip(shares).collect();
    all.sort_by_key(|(n, _)| *n);
    assert_eq!(all, [(0, 1.0), (2, 1.0), (3, 0.0)]);
}

#[test]
fn in_panic_it_says_so() {
    let mut desk = Desk::new(Balance::LeastLatency, &[&[(0, 1.0)]]);
    desk.eject(0, Cause::Consecutive);
    let Outlook { plan, shares } = look(&mut desk);
    assert!(plan.panic && plan.order[..] == [0] && shares == [1.0]);
}

#[test]
fn without_a_usable_candidate_nothing_is_shared() {
    let mut desk = Desk::new(Balance::RoundRobin, &[&[(0, 1.0)]]);
    desk.eject(0, Cause::Auth);
    let Outlook { plan, shares } = look(&mut desk);
    assert!(plan.order.is_empty() && shares.is_empty());
}
