//! Which candidates a delivery is offered to, in which order, and why the others
//! are left out. Dispatch and `explain` call the same function.
//!
//! A candidate is a (provider, address) pair. The candidates of a delivery follow
//! from its route and its addresses and are the same for all deliveries of the
//! same [`Shape`]; what is usable now follows from the [`Board`]. Tiers spill by
//! health: as long as the better tier's best member is healthy it gets
//! everything, and what its slow start or its failures cannot carry goes to the next
//! tier
//! (Envoy's priority levels, with its overprovisioning factor of 1.4).

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pushyard_providers::{Address, Parts};
use smallvec::SmallVec;

use super::board::{Board, Closed, Keys, LeftOut};
use super::budget::Over;
use super::catalog::{Catalog, Serves};
use super::health::Pass;
use super::{Balance, Member, ProviderIndex};
use crate::clock::Utc;
use crate::model::Recipient;

/// A delivery that waits for a time looks so often whether another candidate is back.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// A tier whose best member is this much less than healthy still gets all (Envoy: 1.4).
const OVERPROVISIONING: f64 = 1.4;

/// A (provider, address) pair.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Whom to call.
    pub provider: ProviderIndex,
    /// Which of the recipient's addresses.
    pub address: u8,
    /// In which tier of the route.
    pub tier: u8,
    /// Its share within the tier.
    pub weight: f64,
    /// Money for a million calls.
    pub cost: f64,
    /// All of them must be usable.
    pub keys: Keys,
}

/// What deliveries have in common for which the same is usable at any time: the
/// route and the candidates. Deliveries of one shape wait in one lane.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The route's name.
    pub route: Arc<str>,
    /// Its place in the catalog; `None` when the configuration has it no more.
    pub route_index: Option<u16>,
    /// How its tiers share.
    pub balance: Balance,
    /// Whether these deliveries must not be sent twice: a canary that ends in
    /// silence would end them.
    pub at_most_once: bool,
    /// In the order of the route's tiers, then of the addresses.
    pub candidates: Vec<Candidate>,
}

impl Shape {
    /// The candidates of a recipient on a route, leaving out what `excluded`
    /// (provider, address) says.
    pub fn of(
        catalog: &Catalog,
        board: &mut Board,
        route: &Arc<str>,
        recipient: &Recipient,
        excluded: impl Fn(ProviderIndex, u8) -> bool,
        now: Instant,
    ) -> Self {
        let keys = |provider: ProviderIndex, parts: Parts| {
            let mut keys = Keys::from_slice(&[board.lane(provider).key]);
            keys.extend(parts.iter().map(|part| board.key(provider, part, now)));
            keys
        };
        let fits =
            |pair: &Pair<'_>| pair.serves == Serves::Yes && !excluded(pair.provider, pair.address);
        Self::gather(catalog, route, recipient, fits, keys)
    }

    /// The same, looked at only: a key that nobody has named yet is not made, and is
    /// not among the candidate's keys. Nothing is known of it, so it is usable.
    /// `fits` is told of each pair of a provider and an address.
    pub fn look(
        catalog: &Catalog,
        board: &Board,
        route: &Arc<str>,
        recipient: &Recipient,
        fits: impl FnMut(&Pair<'_>) -> bool,
    ) -> Self {
        let keys = |provider: ProviderIndex, parts: Parts| {
            let mut keys = Keys::from_slice(&[board.lane(provider).key]);
            keys.extend(parts.iter().filter_map(|part| board.known_key(provider, part)));
            keys
        };
        Self::gather(catalog, route, recipient, fits, keys)
    }

    fn gather(
        catalog: &Catalog,
        route: &Arc<str>,
        recipient: &Recipient,
        mut fits: impl FnMut(&Pair<'_>) -> bool,
        mut keys: impl FnMut(ProviderIndex, Parts) -> Keys,
    ) -> Self {
        let found = catalog.routes.iter().position(|known| known.name == *route);
        let mut candidates = Vec::new();
        let tiers = found.map_or(&[][..], |at| &catalog.routes[at].tiers);
        for (tier, members) in tiers.iter().enumerate() {
            for member in members {
                for (address, target) in recipient.addresses.iter().enumerate() {
                    let Member { provider, weight } = *member;
                    let serves = catalog.serves(provider, recipient, target);
                    let (tier, address) = (tier as u8, address as u8);
                    if !fits(&Pair { provider, address, target, tier, serves }) {
                        continue;
                    }
                    let built = catalog.provider(provider);
                    let keys = keys(provider, built.provider.parts(target));
                    let cost = built.settings.cost_per_million;
                    candidates.push(Candidate { provider, address, tier, weight, cost, keys });
                }
            }
        }
        Self {
            route: route.clone(),
            route_index: found.map(|at| at as u16),
            balance: found.map(|at| catalog.routes[at].balance).unwrap_or_default(),
            at_most_once: false,
            candidates,
        }
    }
}

/// A provider of the route and an address of the recipient: a candidate if they fit.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// The provider.
    pub provider: ProviderIndex,
    /// Which of the recipient's addresses.
    pub address: u8,
    /// The address.
    pub target: &'a Address,
    /// In which tier of the route the provider stands.
    pub tier: u8,
    /// Whether the provider could ever serve it.
    pub serves: Serves,
}

impl PartialEq for Shape {
    fn eq(&self, other: &Self) -> bool {
        (&self.route, self.at_most_once) == (&other.route, other.at_most_once)
            && self.candidates == other.candidates
    }
}

impl Eq for Shape {}

impl Hash for Shape {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.route, self.at_most_once).hash(state);
        for candidate in &self.candidates {
            (candidate.provider, candidate.address, &candidate.keys).hash(state);
        }
    }
}

/// What a delivery itself has to say about a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// Nothing.
    Free,
    /// It must not go there: not before that moment, if there is one.
    Skip(LeftOut, Option<Instant>),
}

/// The question.
pub struct Ask<'a> {
    /// The delivery's candidates.
    pub shape: &'a Shape,
    /// What the delivery says about the n-th of them.
    pub own: &'a dyn Fn(usize) -> Own,
    /// By provider, whether one would wait more than a second there: it is left out
    /// as long as another candidate would not wait.
    pub saturated: &'a [bool],
    /// The same for the same device, so that it stays with its provider.
    pub affinity: u64,
    /// The route's counter, for `round_robin`.
    pub turn: u64,
    /// Now.
    pub now: Instant,
    /// The same on the wall clock, for budgets.
    pub utc: Utc,
}

/// The answer.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Positions in the shape's candidates, best first.
    pub order: SmallVec<[u8; 8]>,
    /// The others, each with the reason and when to look again.
    pub left_out: SmallVec<[(u8, Closed); 4]>,
    /// The first is tried only because every candidate is out.
    pub panic: bool,
}

impl Plan {
    /// What the first may pass.
    pub fn pass(&self) -> Pass {
        if self.panic { Pass::Panic } else { Pass::Usual }
    }

    /// When time alone may make a left-out candidate usable; `None`: something
    /// must happen first.
    pub fn look_again(&self, now: Instant) -> Option<Instant> {
        let at = self.left_out.iter().filter_map(|(_, closed)| closed.at).min()?;
        let event =
            |closed: &Closed| closed.at.is_none() && closed.why != LeftOut::ExcludedByDelivery;
        // What comes back by an event would not be noticed until then.
        let unknown = self.left_out.iter().any(|(_, closed)| event(closed));
        Some(if unknown { at.min(now + LOOK_AGAIN) } else { at })
    }
}

/// See the module. `chance` draws numbers in 0..1.
pub fn plan(ask: &Ask<'_>, board: &Board, chance: &mut dyn FnMut() -> f64) -> Plan {
    let mut plan = usable(ask, board);
    draw_order(ask, board, &mut plan.order, chance);
    plan
}

/// The usable candidates, not in order yet, and the others.
pub(super) fn usable(ask: &Ask<'_>, board: &Board) -> Plan {
    let plan = filter(ask, board, Pass::Usual);
    if plan.order.is_empty() && may_panic(ask, board, &plan) {
        let second = filter(ask, board, Pass::Panic);
        if !second.order.is_empty() {
            return Plan { panic: true, ..second };
        }
    }
    plan
}

/// Where a delivery whose life is nearly over is tried once more; `None` where a
/// candidate is usable, or nothing lets it through.
pub fn last_choice(ask: &Ask<'_>, board: &Board, chance: &mut dyn FnMut() -> f64) -> Option<u8> {
    let usual = filter(ask, board, Pass::Usual);
    if !usual.order.is_empty() || !may_panic(ask, board, &usual) {
        return None;
    }
    let mut last = filter(ask, board, Pass::LastTry).order;
    draw_order(ask, board, &mut last, chance);
    last.first().copied()
}

/// Panic only where an ejection is what keeps the delivery from going.
fn may_panic(ask: &Ask<'_>, board: &Board, plan: &Plan) -> bool {
    plan.left_out.iter().any(|(n, closed)| {
        closed.why == LeftOut::Ejected
            && board.ejected_transiently(&ask.shape.candidates[usize::from(*n)].keys)
    })
}

fn filter(ask: &Ask<'_>, board: &Board, pass: Pass) -> Plan {
    let mut plan = Plan::default();
    for (n, candidate) in ask.shape.candidates.iter().enumerate() {
        let closed = match (ask.own)(n) {
            Own::Skip(why, at) => Some(Closed { why, at }),
            Own::Free if board.over_budget(candidate.provider, ask.utc) == Over::Hard => {
                Some(Closed { why: LeftOut::Budget, at: None })
            }
            Own::Free => board.open(&candidate.keys, pass, ask.now).err(),
        };
        // A moment that has passed is no reason to look again.
        let future = |closed: Closed| Closed { at: closed.at.filter(|at| *at > ask.now), ..closed };
        match closed.map(future) {
            Some(closed) => plan.left_out.push((n as u8, closed)),
            None => plan.order.push(n as u8),
        }
    }
    spill(ask, &mut plan);
    plan
}

/// A saturated candidate is left out where another would not wait; where all
/// would, they stand as they are.
fn spill(ask: &Ask<'_>, plan: &mut Plan) {
    if plan.order.len() < 2 {
        return;
    }
    let saturated = |n: &u8| ask.saturated[ask.shape.candidates[usize::from(*n)].provider.at()];
    let full: SmallVec<[u8; 8]> = plan.order.iter().copied().filter(saturated).collect();
    if full.is_empty() || full.len() == plan.order.len() {
        return;
    }
    plan.order.retain(|n| !full.contains(n));
    let why = Closed { why: LeftOut::Saturated, at: None };
    plan.left_out.extend(full.into_iter().map(|n| (n, why)));
}

/// Draws the tier that comes first, and puts the usable in their order.
fn draw_order(
    ask: &Ask<'_>,
    board: &Board,
    usable: &mut SmallVec<[u8; 8]>,
    chance: &mut dyn FnMut() -> f64,
) {
    if usable.len() < 2 {
        return;
    }
    let drawn = draw_tier(&tier_loads(ask, board, usable), chance);
    let mut ranked = ranked(ask, board, usable, drawn);
    if ask.shape.balance == Balance::LeastLatency {
        two_choices(&mut ranked, chance);
    }
    *usable = ranked.into_iter().map(|ranked| ranked.n).collect();
}

/// A usable candidate in its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranked {
    /// Of its tier: those of the first tier have the lowest.
    rank: u8,
    /// Within the tier; smaller is better.
    pub(super) score: f64,
    /// Its position in the shape's candidates.
    pub(super) n: u8,
}

/// The usable candidates in their order when this tier comes first: then those of
/// the tiers after it, then those before.
pub(super) fn ranked(
    ask: &Ask<'_>,
    board: &Board,
    usable: &[u8],
    first: u8,
) -> SmallVec<[Ranked; 8]> {
    let candidate = |n: u8| &ask.shape.candidates[usize::from(n)];
    // In the order of the shape, so the last one has the last tier.
    let last = usable.last().map_or(0, |n| candidate(*n).tier);
    let place = |n: &u8| {
        let tier = candidate(*n).tier;
        let rank = if tier >= first { tier } else { tier + last + 1 };
        Ranked { rank, score: score(ask, board, candidate(*n)), n: *n }
    };
    let mut all: SmallVec<[Ranked; 8]> = usable.iter().map(place).collect();
    all.sort_by(|a, b| a.rank.cmp(&b.rank).then(a.score.total_cmp(&b.score)).then(a.n.cmp(&b.n)));
    all
}

/// What each tier carries of the work, best tier first; together 1, unless
/// nothing is carried at all. A tier's availability is that of its best member: our
/// members are whole vendors, and one healthy vendor serves the tier.
pub(super) fn tier_loads(ask: &Ask<'_>, board: &Board, usable: &[u8]) -> SmallVec<[(u8, f64); 4]> {
    let mut tiers: SmallVec<[(u8, f64); 4]> = SmallVec::new();
    for n in usable {
        let candidate = &ask.shape.candidates[usize::from(*n)];
        let availability = board.availability(&candidate.keys, ask.now);
        match tiers.last_mut() {
            Some((tier, best)) if *tier == candidate.tier => *best = best.max(availability),
            _ => tiers.push((candidate.tier, availability)),
        }
    }
    // The first usable tier of a broadcast gets everything, ill as it may be.
    if tiers.len() == 1 || ask.shape.balance == Balance::Broadcast {
        for (n, (_, load)) in tiers.iter_mut().enumerate() {
            *load = f64::from(u8::from(n == 0));
        }
        return tiers;
    }
    let mut left = 1.0;
    for (_, load) in &mut tiers {
        let health = (OVERPROVISIONING * *load).min(1.0);
        *load = health.min(left);
        left -= *load;
    }
    let sum: f64 = tiers.iter().map(|(_, load)| load).sum();
    if sum > 0.0 {
        tiers.iter_mut().for_each(|(_, load)| *load /= sum);
    }
    tiers
}

/// The tier that comes first.
fn draw_tier(loads: &[(u8, f64)], chance: &mut dyn FnMut() -> f64) -> u8 {
    let Some((first, load)) = loads.first().copied() else { return 0 };
    // With everything healthy the first tier carries all, and no number is drawn;
    // where none carries anything, the first is as good as any.
    if load >= 1.0 || loads.iter().all(|(_, load)| *load <= 0.0) {
        return first;
    }
    let mut drawn = chance();
    for (tier, load) in loads {
        drawn -= load;
        if drawn <= 0.0 {
            return *tier;
        }
    }
    first
}

/// Smaller is better.
fn score(ask: &Ask<'_>, board: &Board, candidate: &Candidate) -> f64 {
    let weight = candidate.weight * board.ramp(&candidate.keys, ask.now);
    match ask.shape.balance {
        Balance::Weighted => rendezvous(ask.affinity, candidate.provider, weight),
        Balance::RoundRobin => turn(ask, candidate),
        Balance::LeastLatency | Balance::Broadcast => quickness(board, candidate, weight),
        // Money in whole units first, quickness as the tie-break below them.
        // One whose budget is over comes last.
        Balance::Cheapest => {
            let over = board.over_budget(candidate.provider, ask.utc) != Over::No;
            let money = if over { f64::MAX / 2.0 } else { candidate.cost * 1e6 };
            money + quickness(board, candidate, weight).min(1e5)
        }
    }
}

/// PeakEWMA: what one more call would wait for.
fn quickness(board: &Board, candidate: &Candidate, weight: f64) -> f64 {
    if weight <= 0.0 {
        return f64::MAX;
    }
    let lane = board.lane(candidate.provider);
    let rtt = lane.latency.rtt().max(Duration::from_micros(1)).as_secs_f64();
    rtt * f64::from(lane.in_flight + 1) / weight
}

/// Power of two choices among the first tier's members, best first: of two drawn
/// at random the better one goes first. So the best one is not stampeded on a
/// figure that is out of date, and the worst one gets nothing.
fn two_choices(sorted: &mut [Ranked], chance: &mut dyn FnMut() -> f64) {
    let members = competing(sorted);
    if members <= 2 {
        return;
    }
    let one = (chance() * members as f64) as usize;
    // The second among the others.
    let other = (chance() * (members - 1) as f64) as usize;
    let other = if other >= one { other + 1 } else { other };
    sorted[..=one.min(other)].rotate_right(1);
}

/// How many of the first tier may be drawn: one of weight 0 is a last resort.
pub(super) fn competing(sorted: &[Ranked]) -> usize {
    let Some(first) = sorted.first().map(|ranked| ranked.rank) else { return 0 };
    sorted.iter().take_while(|other| other.rank == first && other.score < f64::MAX).count()
}

/// Weighted rendezvous hashing: the member with the smallest −ln(u)/weight,
/// where u is a hash of device and member in 0..1. The same device goes to the
/// same member while that is there, and an absent one's share is spread evenly.
fn rendezvous(affinity: u64, provider: ProviderIndex, weight: f64) -> f64 {
    if weight <= 0.0 {
        return f64::MAX;
    }
    let hash = mix(affinity ^ mix(u64::from(provider.0) + 1));
    // 53 bits make a double in 0..1; half a step keeps it away from 0.
    let uniform = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -uniform.ln() / weight
}

/// SplitMix64's finaliser: every input bit reaches every output bit.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The members of a tier, turned by the route's counter.
fn turn(ask: &Ask<'_>, candidate: &Candidate) -> f64 {
    let tier: SmallVec<[ProviderIndex; 8]> = ask
        .shape
        .candidates
        .iter()
        .filter(|other| other.tier == candidate.tier)
        .map(|other| other.provider)
        .collect();
    let mut members = tier;
    members.dedup();
    let at = members.iter().position(|member| *member == candidate.provider).unwrap_or(0) as u64;
    let count = members.len().max(1) as u64;
    ((at + count - ask.turn % count) % count) as f64
}

#[cfg(test)]
#[path = "plan_tests.rs"]
pub(super) mod tests;
