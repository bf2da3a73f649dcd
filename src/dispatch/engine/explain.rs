//! Why a delivery would go where: a look, and nothing but a look.
//!
//! It takes `&self`. No permit is taken, no token spent, no key made, no number
//! drawn and nothing written, so asking changes nothing of what is asked about. The
//! candidates come from the same gathering as those of dispatch, what the delivery
//! says of them from the same `own`, and the order from the functions that
//! `routing::plan` is made of: explain cannot tell another story than dispatch.
//! What dispatch leaves out in silence (another kind, app or region, a gone
//! address) is told here, with its reason.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pushyard_providers::Address;

use super::super::deliveries::{StubRef, Track};
use super::Engine;
use super::pick::{SATURATED, ask, own};
use super::view::{KeyView, key_view, utc_of};
use crate::clock::{Now, Utc};
use crate::model::{Body, Excluded, Progress};
use crate::routing::{
    Balance, Candidate, Catalog, Cause, Closed, HealthSettings, Key, Keys, LeftOut, Outlook, Own,
    Pair, Pass, ProviderIndex, Serves, Shape, Status, outlook,
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

/// What was found out before anyone was asked whether it is usable now.
struct Unfit {
    provider: ProviderIndex,
    address: u8,
    tier: u8,
    reason: &'static str,
    detail: String,
    until: Option<Utc>,
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

/// What there is to say of a pair.
enum Verdict {
    Fits,
    Told(Box<Unfit>),
    /// The pair is none: each of the two fits another one.
    Untold,
}

/// Finds the words.
struct Judge<'a> {
    engine: &'a Engine,
    asked: &'a Asked,
    record: Option<&'a Progress>,
    now: Now,
}

impl Judge<'_> {
    /// What keeps a pair from being a candidate at all.
    fn unfit(&self, pair: &Pair<'_>) -> Verdict {
        let Pair { provider, address, tier, .. } = *pair;
        let found = match pair.serves {
            Serves::Yes => self.gone(pair).or_else(|| self.excluded(pair)),
            Serves::OtherKind => match self.other_kind(pair) {
                Some(detail) => Some(("kind", detail, None)),
                None => return Verdict::Untold,
            },
            Serves::OtherApp => {
                let detail = "this provider does not have the address's app or project".to_owned();
                Some(("app", detail, None))
            }
            Serves::OtherRegion => Some(("region", self.other_region(provider), None)),
        };
        match found {
            None => Verdict::Fits,
            Some((reason, detail, until)) => {
                Verdict::Told(Box::new(Unfit { provider, address, tier, reason, detail, until }))
            }
        }
    }

    /// A provider without an address of its kind, and an address without a provider
    /// of its kind, are told; every pair of two that fit others would be noise.
    fn other_kind(&self, pair: &Pair<'_>) -> Option<String> {
        let engine = self.engine;
        let settings = &engine.catalog.provider(pair.provider).settings;
        let (wanted, kind) = (settings.kind, pair.target.kind().name);
        if wanted == kind {
            let bound = pair.target.provider().unwrap_or_default();
            return Some(format!("this address is bound to provider {bound:?}"));
        }
        let message = self.asked.body.message();
        let recipient = &message.recipients[usize::from(self.asked.n)];
        if recipient.addresses.iter().all(|address| address.kind().name != wanted) {
            return Some(format!("the recipient has no {wanted} address"));
        }
        let route = engine.catalog.route(&message.route);
        let mut members = route.into_iter().flat_map(|route| route.tiers.iter().flatten());
        let served =
            members.any(|member| engine.catalog.provider(member.provider).settings.kind == kind);
        (!served).then(|| format!("no provider of route {:?} is of kind {kind}", &*message.route))
    }

    fn other_region(&self, provider: ProviderIndex) -> String {
        let recipient = &self.asked.body.message().recipients[usize::from(self.asked.n)];
        let wanted = recipient.region.as_deref().unwrap_or_default();
        let region = self.engine.catalog.provider(provider).settings.region.as_deref();
        let region = region.unwrap_or_default();
        format!("the recipient is in region {wanted:?}, this provider in {region:?}")
    }

    fn gone(&self, pair: &Pair<'_>) -> Option<(&'static str, String, Option<Utc>)> {
        let client = &self.asked.body.message().client;
        let since = self.engine.gone_since(client, pair.provider, pair.target, self.now);
        since.map(|since| {
            let detail = format!("the vendor declared it gone at {}", since.rfc3339());
            ("address_gone", detail, None)
        })
    }

    /// What the delivery's own record says.
    fn excluded(&self, pair: &Pair<'_>) -> Option<(&'static str, String, Option<Utc>)> {
        let settings = &self.engine.catalog.provider(pair.provider).settings;
        let word = LeftOut::ExcludedByDelivery.word();
        self.record?.excluded.iter().find_map(|excluded| match excluded {
            Excluded::Kind(kind) if **kind == *settings.kind => {
                let detail = format!("{kind} cannot take this message");
                Some((word, detail, None))
            }
            Excluded::Candidate { provider, address, gone, until }
                if *provider == settings.id && *address == pair.address =>
            {
                match until {
                    None if *gone => {
                        let detail = "the vendor declared it gone".to_owned();
                        Some(("address_gone", detail, None))
                    }
                    None => Some((word, REFUSED_HERE.to_owned(), None)),
                    Some(until) if *until > self.now.utc => {
                        Some((word, REFUSED_HERE.to_owned(), Some(*until)))
                    }
                    Some(_) => None,
                }
            }
            Excluded::Kind(_) | Excluded::Candidate { .. } => None,
        })
    }

    /// What is wrong with the message for a provider that cannot take it.
    fn unable(&self, provider: ProviderIndex) -> Option<&str> {
        let serial = self.engine.catalog.provider(provider).serial;
        let mut unable = self.asked.unable.iter();
        unable.find(|(number, _)| *number == serial).map(|(_, detail)| &**detail)
    }

    /// Why a candidate is not usable now, for people.
    fn detail(&self, candidate: &Candidate, closed: Closed, track: Option<&Track>) -> String {
        let board = &self.engine.board;
        let lane = board.lane(candidate.provider);
        let key = self.closing(candidate);
        let part = key.map_or(String::new(), |key| match key.part.text() {
            "" => String::new(),
            part => format!(" ({part})"),
        });
        match closed.why {
            LeftOut::ExcludedByDelivery => self.own_words(candidate, track),
            LeftOut::AddressPaused => "the vendor asked to wait with this device".to_owned(),
            LeftOut::Budget => "its budget is spent, and hard".to_owned(),
            // The operator's own words are for operators.
            LeftOut::Drained => "drained by an operator".to_owned(),
            LeftOut::Ejected if board.held(candidate.provider).is_some() => {
                "ejected by an operator".to_owned()
            }
            LeftOut::Ejected => {
                let health = &lane.settings.health;
                let cause = key.map(|key| cause(key.health.status(), health));
                cause.unwrap_or_default() + &part
            }
            LeftOut::Probing => {
                format!("on probation: one canary at a time, one a second{part}")
            }
            LeftOut::Throttled => {
                let paused = key.is_some_and(|key| {
                    key.paused_until.is_some_and(|until| until > self.now.instant)
                });
                let what = if paused {
                    "the vendor asked to wait"
                } else {
                    "it comes back slowly from the vendor's pause"
                };
                format!("{what}{part}")
            }
            LeftOut::Saturated => {
                let seconds = SATURATED.as_secs();
                format!("a call would wait longer than {seconds} s for a permit")
            }
        }
    }

    fn own_words(&self, candidate: &Candidate, track: Option<&Track>) -> String {
        if let Some(unable) = self.unable(candidate.provider) {
            return unable.to_owned();
        }
        let pair = (candidate.provider, candidate.address);
        let tried = track.is_some_and(|track| track.tried.contains(&pair));
        let resting = track.is_some_and(|track| {
            track.resting.iter().any(|(provider, address, _)| (*provider, *address) == pair)
        });
        if tried {
            "tried in this round already".to_owned()
        } else if resting {
            REFUSED_HERE.to_owned()
        } else {
            "an attempt may have been accepted, and the message forbids a copy".to_owned()
        }
    }

    /// When time alone may let it in.
    fn until(&self, candidate: &Candidate, closed: Closed) -> Option<Utc> {
        let held = self.engine.board.held(candidate.provider);
        match held.filter(|_| matches!(closed.why, LeftOut::Ejected | LeftOut::Drained)) {
            Some(hold) => hold.until,
            None => closed.at.map(|at: Instant| utc_of(at, self.now)),
        }
    }

    /// The first key that lets nothing through.
    fn closing(&self, candidate: &Candidate) -> Option<&Key> {
        let board = &self.engine.board;
        let closed = |key: &&crate::routing::KeyIndex| {
            board.open(&Keys::from_slice(&[**key]), Pass::Usual, self.now.instant).is_err()
        };
        candidate.keys.iter().find(closed).map(|key| board.key_at(*key))
    }
}

/// A mismatch of account and address: no other delivery's matter.
const REFUSED_HERE: &str = "the vendor refused this delivery here";

/// Why a breaker is open, for people.
fn cause(status: Status, settings: &HealthSettings) -> String {
    let (Status::Ejected { cause, .. }
    | Status::Probing { cause, .. }
    | Status::Degraded { cause, .. }) = status
    else {
        return String::new();
    };
    match cause {
        Cause::Consecutive => format!("{} failures in a row", settings.consecutive_failures),
        Cause::Ratio => {
            let percent = settings.eject_below * 100.0;
            format!("fewer than {percent:.0} % of its calls succeeded")
        }
        Cause::Latency => "its answers are slow".to_owned(),
        Cause::Stall => "it has fallen silent: calls in flight, and not a byte".to_owned(),
        Cause::Auth => "it refused the credential".to_owned(),
        Cause::Misconfigured => "it says that the configuration is wrong".to_owned(),
        Cause::Probe => "its probes failed".to_owned(),
        Cause::Operator => "put back on probation by an operator".to_owned(),
    }
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
