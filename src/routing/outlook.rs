//! What a plan would be, for people to look at: the same candidates in the same
//! order as [`plan`](super::plan) gives, each with its share of the traffic, and
//! without anything being drawn.
//!
//! It stands on the very functions that `plan` is made of, so the two cannot
//! disagree about who is usable, what a tier carries or who is better. Where `plan`
//! draws a number, this says how likely each end is: the tier that carries most
//! stands first, and a candidate's share is that of its tier times that within it.

use super::board::Board;
use super::plan::{Ask, Plan, Ranked, competing, ranked, tier_loads, usable};
use super::{Balance, ProviderIndex};

/// See the module.
#[derive(Clone, Debug)]
pub struct Outlook {
    /// Who is usable, best first, and who is not. The order within the first tier
    /// is that of this device now; over all devices the shares hold.
    pub plan: Plan,
    /// In the plan's order: how much of the traffic with these candidates begins
    /// here, 0..1. Together 1, unless no candidate is usable; of a broadcast each of
    /// the first tier gets all.
    pub shares: Vec<f64>,
}

/// See the module.
pub fn outlook(ask: &Ask<'_>, board: &Board) -> Outlook {
    let mut plan = usable(ask, board);
    let loads = tier_loads(ask, board, &plan.order);
    // Of equals the better tier: it was there first.
    let first =
        loads.iter().fold((0, -1.0), |best, load| if load.1 > best.1 { *load } else { best });
    let order = ranked(ask, board, &plan.order, first.0);
    let mut shares = vec![0.0; order.len()];
    for (tier, load) in loads {
        let of_tier = |ranked: &Ranked| ask.shape.candidates[usize::from(ranked.n)].tier == tier;
        let Some(from) = order.iter().position(of_tier) else { continue };
        let members = order[from..].iter().take_while(|ranked| of_tier(ranked)).count();
        let within = within(ask, board, &order[from..from + members]);
        for (share, within) in shares[from..].iter_mut().zip(within) {
            *share = load * within;
        }
    }
    plan.order = order.into_iter().map(|ranked| ranked.n).collect();
    Outlook { plan, shares }
}

/// How the members of a tier, best first, share what it carries.
fn within(ask: &Ask<'_>, board: &Board, members: &[Ranked]) -> Vec<f64> {
    match ask.shape.balance {
        Balance::LeastLatency => of_two_choices(members),
        Balance::Weighted => of_weights(ask, board, members),
        Balance::RoundRobin => of_turns(ask, board, members),
        Balance::Cheapest => all_to_the_first(members.len()),
        // One that must not be sent twice goes to one of them.
        Balance::Broadcast if ask.shape.at_most_once => all_to_the_first(members.len()),
        Balance::Broadcast => vec![1.0; members.len()],
    }
}

fn all_to_the_first(members: usize) -> Vec<f64> {
    (0..members).map(|at| f64::from(u8::from(at == 0))).collect()
}

/// Two of n are drawn and the better one goes first: the k-th best is that in
/// n − 1 − k of the n(n − 1)/2 pairs.
fn of_two_choices(members: &[Ranked]) -> Vec<f64> {
    let n = competing(members);
    if n <= 2 {
        return all_to_the_first(members.len());
    }
    let pairs = (n * (n - 1) / 2) as f64;
    (0..members.len()).map(|k| (n - 1).saturating_sub(k) as f64 / pairs).collect()
}

/// Rendezvous hashing gives each provider its weight's share of the devices; of
/// several addresses at one provider the first.
fn of_weights(ask: &Ask<'_>, board: &Board, members: &[Ranked]) -> Vec<f64> {
    let mut seen: Vec<ProviderIndex> = Vec::new();
    let weights: Vec<f64> = members
        .iter()
        .map(|member| {
            let candidate = &ask.shape.candidates[usize::from(member.n)];
            if seen.contains(&candidate.provider) {
                return 0.0;
            }
            seen.push(candidate.provider);
            candidate.weight.max(0.0) * board.ramp(&candidate.keys, ask.now)
        })
        .collect();
    let sum: f64 = weights.iter().sum();
    if sum <= 0.0 {
        return all_to_the_first(members.len());
    }
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// Each turn of the route's counter is one member's; an absent one's goes to the next.
fn of_turns(ask: &Ask<'_>, board: &Board, members: &[Ranked]) -> Vec<f64> {
    let of_tier: Vec<u8> = members.iter().map(|member| member.n).collect();
    let tier = members.first().map_or(0, |m| ask.shape.candidates[usize::from(m.n)].tier);
    let mut providers: Vec<ProviderIndex> = Vec::new();
    for candidate in ask.shape.candidates.iter().filter(|candidate| candidate.tier == tier) {
        if !providers.contains(&candidate.provider) {
            providers.push(candidate.provider);
        }
    }
    let mut shares = vec![0.0; members.len()];
    let mut in_shape = of_tier.clone();
    in_shape.sort_unstable();
    for turn in 0..providers.len() as u64 {
        let ask = Ask { turn, ..*ask };
        let winner = ranked(&ask, board, &in_shape, tier).first().map(|ranked| ranked.n);
        if let Some(at) = of_tier.iter().position(|n| Some(*n) == winner) {
            shares[at] += 1.0 / providers.len() as f64;
        }
    }
    shares
}

#[cfg(test)]
#[path = "outlook_tests.rs"]
mod tests;
