//! Why a delivery would go where: a look, and nothing but a look.
//!
//! It takes `&self`. No permit is taken, no token spent, no key made, no number
//! drawn and nothing written, so asking changes nothing of what is asked about. The
//! candidates come from the same gathering as those of dispatch, what the delivery
//! says of them from the same `own`, and the order from the functions that
//! `routing::plan` is made of: explain cannot tell another story than dispatch.
//! What dispatch leaves out in silence (another kind, app or region, a gone
//! address) is told here, with its reason.

mod judge;

use std::sync::Arc;
use std::time::Duration;

use pushyard_providers::Address;

use self::judge::{Judge, Unfit, Verdict};
use super::super::deliveries::StubRef;
use super::Engine;
use super::pick::{ask, own};
use super::view::{KeyView, key_view};
use crate::clock::{Now, Utc};
use crate::model::{Body, OnAmbiguous, Progress};
use crate::routing::{
    Balance, Candidate, Catalog, Closed, LeftOut, Outlook, Own, Pair, ProviderIndex, Shape, outlook,
};

/// Why someone may be left out, in the words of the API.
pub const BARRED: [&str; 12] = [
    "kind",
    "app",
    "region",
    "address_gone",
    LeftOut::AddressPaused.word(),
    LeftOut::ExcludedByDelivery.word(),
    LeftOut::Budget.word(),
    LeftOut::Drained.word(),
    LeftOut::Ejected.word(),
    LeftOut::Probing.word(),
    LeftOut::Throttled.word(),
    LeftOut::Saturated.word(),
];

/// A delivery that was accepted, or one that might be.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The message.
    pub body: Arc<Body>,
    /// Which of its recipients.
    pub n: u16,
    /// What is known of it, when it was accepted.
    pub record: Option<Progress>,
    /// Providers that cannot take the message, by serial number, each with what is
    /// wrong.
    pub unable: Vec<(u64, String)>,
}

/// Where a delivery would go now.
#[derive(Clone, Debug)]
pub struct Explained {
    /// What the indexes below mean.
    pub catalog: Arc<Catalog>,
    /// Best first.
    pub candidates: Vec<Weighed>,
    /// Everyone else, in the order of the route.
    pub excluded: Vec<Barred>,
    /// The first is tried only because every candidate is out.
    pub panic: bool,
    /// An operator has paused the route, or the client: it waits.
    pub paused: Option<&'static str>,
}

/// A provider and an address as they are seen at this moment.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Whom to call.
    pub provider: ProviderIndex,
    /// Which of the recipient's addresses.
    pub address: u8,
    /// In which tier of the route.
    pub tier: u8,
    /// The provider's state and why, in the words of the API.
    pub state: (&'static str, Option<&'static str>),
    /// All keys, the provider as a whole first.
    pub keys: Vec<KeyView>,
}

/// A usable candidate.
#[derive(Clone, Debug)]
pub struct Weighed {
    /// Who.
    pub seen: Seen,
    /// Its share of the traffic with these candidates, 0..1.
    pub share: f64,
    /// What it is compared by.
    pub score: Score,
}

/// What candidates of a tier are compared by.
#[derive(Clone, Copy, Debug)]
pub struct Score {
    /// How the tier shares.
    pub balance: Balance,
    /// What one more call would wait for an answer (PeakEWMA).
    pub rtt: Duration,
    /// Calls in flight at the provider.
    pub in_flight: u32,
    /// Its weight as configured, or as an operator has it.
    pub weight: f64,
    /// What slow start leaves of that, 0..1.
    pub ramp: f64,
    /// Money for a million calls.
    pub cost: f64,
}

/// Someone who is left out.
#[derive(Clone, Debug)]
pub struct Barred {
    /// Who.
    pub seen: Seen,
    /// Why, in the words of the API.
    pub reason: &'static str,
    /// The same for people.
    pub detail: String,
    /// When time alone may change it.
    pub until: Option<Utc>,
}

impl Engine {
    /// See the module.
    pub fn explain(&self, asked: &Asked, now: Now) -> Explained {
        let message = asked.body.message();
        let recipient = &message.recipients[usize::from(asked.n)];
        let live = asked.record.as_ref();
        let live = live.and_then(|_| self.deliveries.find_delivery(message.id.delivery(asked.n)));
        let track = live.and_then(|at| self.deliveries.stubs[at].track.as_deref());
        let record = track.map(|track| &track.progress).or(asked.record.as_ref());
        let judge = Judge { engine: self, asked, record, now };
        let mut unfit = Vec::new();
        let fits = |pair: &Pair<'_>| match judge.unfit(pair) {
            Verdict::Fits => true,
            Verdict::Told(told) => {
                unfit.push(*told);
                false
            }
            Verdict::Untold => false,
        };
        let shape = Shape::look(&self.catalog, &self.board, &message.route, recipient, fits);
        let at_most_once = message.on_ambiguous == OnAmbiguous::Stop;
        let shape = Shape { at_most_once, ..shape };
        let own = |n: usize| {
            let candidate = &shape.candidates[n];
            if judge.unable(candidate.provider).is_some() {
                return Own::Skip(LeftOut::ExcludedByDelivery, None);
            }
            let address = recipient.addresses.get(usize::from(candidate.address));
            own(track, address, candidate, &self.board, now)
        };
        let saturated = self.saturated(now.instant);
        let first = recipient.addresses.first();
        let ask = ask(&shape, &own, &saturated, first, &self.turns, now);
        let mut outlook = outlook(&ask, &self.board);
        if let Some(at) = live {
            self.repeats(at, &shape, &mut outlook);
        }
        let Outlook { plan, shares } = outlook;
        let seen =
            |provider, address, tier| self.seen(provider, address, tier, &recipient.addresses);
        let candidates = plan.order.iter().zip(shares).map(|(n, share)| {
            let candidate = &shape.candidates[usize::from(*n)];
            let seen = seen(candidate.provider, candidate.address, candidate.tier);
            Weighed { seen, share, score: self.score(candidate, shape.balance, now) }
        });
        let mut excluded: Vec<Barred> = unfit
            .into_iter()
            .map(|unfit| {
                let Unfit { provider, address, tier, reason, detail, until } = unfit;
                Barred { seen: seen(provider, address, tier), reason, detail, until }
            })
            .collect();
        excluded.extend(plan.left_out.iter().map(|(n, closed)| {
            let candidate = &shape.candidates[usize::from(*n)];
            Barred {
                seen: seen(candidate.provider, candidate.address, candidate.tier),
                reason: closed.why.word(),
                detail: judge.detail(candidate, *closed, track),
                until: judge.until(candidate, *closed),
            }
        }));
        // As the route has them; of a tier in its own order.
        excluded.sort_by_key(|barred| barred.seen.tier);
        Explained {
            catalog: self.catalog.clone(),
            candidates: candidates.collect(),
            excluded,
            panic: plan.panic,
            paused: self.orders.paused(&message.route, &message.client),
        }
    }

    /// One whose last attempt may have been accepted goes back to the same candidate
    /// where that is asked for, and nowhere else where the message forbids a copy.
    fn repeats(&self, at: StubRef, shape: &Shape, outlook: &mut Outlook) {
        let wanted = self.deliveries.stubs[at].track.as_ref().and_then(|track| track.repeat);
        let Outlook { plan, shares } = outlook;
        let place = wanted.and_then(|pair| {
            let is = |n: &u8| {
                let candidate = &shape.candidates[usize::from(*n)];
                (candidate.provider, candidate.address) == pair
            };
            plan.order.iter().position(is)
        });
        match place {
            Some(place) => {
                plan.order[..=place].rotate_right(1);
                shares.fill(0.0);
                shares[0] = 1.0;
            }
            None if self.deliveries.uncertain(at) => {
                let why = Closed { why: LeftOut::ExcludedByDelivery, at: None };
                plan.left_out.extend(plan.order.drain(..).map(|n| (n, why)));
                shares.clear();
            }
            None => {}
        }
    }

    fn seen(&self, provider: ProviderIndex, address: u8, tier: u8, addresses: &[Address]) -> Seen {
        let mut keys = vec![key_view(self.board.key_at(self.board.lane(provider).key))];
        let built = self.catalog.provider(provider);
        // Only an address of its own kind has parts at a provider.
        let target = addresses.get(usize::from(address));
        let target = target.filter(|target| target.kind().name == built.settings.kind);
        for part in target.map(|target| built.provider.parts(target)).into_iter().flatten() {
            keys.push(match self.board.known_key(provider, &part) {
                Some(key) => key_view(self.board.key_at(key)),
                // Nothing is known of it yet.
                None => (part.text().to_owned(), "healthy", None),
            });
        }
        Seen { provider, address, tier, state: self.provider_words(provider), keys }
    }

    fn score(&self, candidate: &Candidate, balance: Balance, now: Now) -> Score {
        let lane = self.board.lane(candidate.provider);
        Score {
            balance,
            rtt: lane.latency.rtt(),
            in_flight: lane.in_flight,
            weight: candidate.weight,
            ramp: self.board.ramp(&candidate.keys, now.instant),
            cost: candidate.cost,
        }
    }
}

#[cfg(test)]
mod tests;
