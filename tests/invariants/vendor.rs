//! The vendors of the world: adapters whose `send` is never called, and the
//! faults that answer in their place. Which copies a vendor really took is known
//! here and nowhere else, so duplicates can be counted.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use pushyard::model::DeliveryId;
use pushyard_providers::address::{Field, Need};
use pushyard_providers::{
    Address, Answer, Call, Dedup, Gauge, Invalid, Kind, Outcome, Part, Parts, Payload,
    ProbeProfile, Processed, Profile, Proves, Provider, Push, Template, VendorRequest,
};
use rand::RngExt;
use rand::rngs::StdRng;

const FIELDS: &[Field] =
    &[Field { name: "token", need: Need::Required }, Field { name: "app", need: Need::Optional }];

/// A kind whose addresses may name an app, which health is kept for.
pub(super) static ALPHA: Kind = kind("alpha");
/// Another kind, so that a message may be invalid for one and fine for the other.
pub(super) static BETA: Kind = kind("beta");

const fn kind(name: &'static str) -> Kind {
    Kind {
        name,
        fields: FIELDS,
        check_address: |_| Ok(()),
        settings: &[],
        build: |_| Err(Vec::new()),
    }
}

/// An attempt is cut after this long.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// An adapter that only declares itself.
pub(super) struct Fake(Profile);

impl Fake {
    pub(super) fn new(
        kind: &'static str,
        dedup: Dedup,
        min_retry: Duration,
        proves: Proves,
    ) -> Self {
        let min_interval = Duration::from_secs(5);
        let probe = ProbeProfile { proves, min_interval, only_when_quiet: true };
        Self(Profile { kind, dedup, min_retry, probe, ping_interval: None })
    }

    /// Its transport shows when a byte came.
    pub(super) fn showing_bytes(mut self) -> Self {
        self.0.ping_interval = Some(Duration::from_secs(10));
        self
    }
}

impl Provider for Fake {
    fn profile(&self) -> &Profile {
        &self.0
    }

    fn serves(&self, _: &Address) -> bool {
        true
    }

    fn parts(&self, address: &Address) -> Parts {
        address.get("app").map(Part::app).into_iter().collect()
    }

    fn encode(&self, _: &Push) -> Result<Payload, Invalid> {
        let body = Template::new(&serde_json::Value::Null);
        Ok(Payload { body, headers: Vec::new(), detail: None })
    }

    fn request(&self, _: &Call) -> Result<VendorRequest, Invalid> {
        Err(Invalid::new("simulated", ""))
    }

    fn send<'a>(&'a self, _: &'a Call) -> BoxFuture<'a, Answer> {
        unreachable!("the world answers calls itself")
    }

    fn refresh(&self, _: u64) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(false))
    }

    fn probe(&self) -> BoxFuture<'_, Answer> {
        unreachable!("the world answers probes itself")
    }

    fn gauge(&self) -> Gauge {
        Gauge::default()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// What is wrong with a vendor at the moment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Weather {
    Fine,
    Slow,
    /// So many of a hundred calls are refused with a 500.
    Errors(u32),
    /// So many of a hundred end ambiguously.
    Lossy(u32),
    /// Every call is throttled, with this wish to wait.
    Throttled(Option<Duration>),
    AuthFailed,
    Misconfigured,
    /// No answer at all.
    Silent,
    /// Anything.
    Wild,
}

/// A vendor: its weather, and the copies that it took.
#[derive(Debug)]
pub(super) struct Vendor {
    dedup: Dedup,
    pub(super) weather: Weather,
    /// The weather holds for this app alone, or for all.
    pub(super) only_app: Option<&'static str>,
    seen: BTreeSet<DeliveryId>,
    /// Devices that are gone, misfit or busy; never while the world heals.
    pub(super) odd_devices: bool,
}

/// A vendor's reaction to a call.
#[derive(Debug)]
pub(super) struct Reaction {
    pub(super) answer: Answer,
    pub(super) after: Duration,
    /// A copy was taken that the device will show.
    pub(super) taken: bool,
    /// The answer is the vendor's, and not a timeout of ours.
    pub(super) spoken: bool,
}

impl Vendor {
    pub(super) fn new(dedup: Dedup) -> Self {
        let (weather, seen) = (Weather::Fine, BTreeSet::new());
        Self { dedup, weather, only_app: None, seen, odd_devices: true }
    }

    /// Other weather, for a while.
    pub(super) fn turn(&mut self, rng: &mut StdRng) {
        self.only_app = [None, None, None, Some("app-1"), Some("app-2")][rng.random_range(0..5)];
        self.weather = match rng.random_range(0..16) {
            0..=4 => Weather::Fine,
            5 => Weather::Slow,
            6 => Weather::Errors(100),
            7 => Weather::Errors(rng.random_range(10..80)),
            8 => Weather::Lossy(rng.random_range(10..=100)),
            9 => Weather::Throttled(None),
            10 => Weather::Throttled(Some(Duration::from_secs(rng.random_range(0..120)))),
            11 => Weather::Throttled(Some(Duration::from_secs(rng.random_range(100..4000)))),
            12 => Weather::AuthFailed,
            13 => Weather::Misconfigured,
            14 => Weather::Silent,
            _ => Weather::Wild,
        };
    }

    /// Takes a call.
    pub(super) fn call(&mut self, id: DeliveryId, to: &Address, rng: &mut StdRng) -> Reaction {
        let mut reaction = self.react(to, rng);
        if reaction.taken && self.dedup == Dedup::Full {
            reaction.taken = self.seen.insert(id);
        }
        reaction
    }

    /// A probe's answer.
    pub(super) fn probe(&self, rng: &mut StdRng) -> Answer {
        let good = match self.weather {
            Weather::Fine | Weather::Slow | Weather::Throttled(_) | Weather::Misconfigured => true,
            Weather::Errors(share) | Weather::Lossy(share) => rng.random_range(0..100) >= share,
            Weather::AuthFailed => return Answer::new(Outcome::AuthFailed),
            Weather::Silent => false,
            Weather::Wild => rng.random(),
        };
        Answer::new(if good { Outcome::Accepted } else { Outcome::Unavailable })
    }

    /// Whether it gives a sign of life when it is asked for one.
    pub(super) fn lives(&self) -> bool {
        !matches!(self.weather, Weather::Silent) || self.only_app.is_some()
    }

    fn react(&mut self, to: &Address, rng: &mut StdRng) -> Reaction {
        let app = to.get("app");
        let part = app.map_or(Part::Provider, Part::app);
        let hit = self.only_app.is_none_or(|only| app == Some(only));
        let weather = if hit { self.weather } else { Weather::Fine };
        // A fault of one app is about that app; one of all, about the provider.
        let about = if self.only_app.is_some() { part } else { Part::Provider };
        let quick = Duration::from_millis(rng.random_range(5..200));
        let said = |outcome| Reaction {
            answer: Answer::new(outcome).about(about.clone()),
            after: quick,
            taken: outcome == Outcome::Accepted,
            spoken: true,
        };
        match weather {
            Weather::Errors(share) if rng.random_range(0..100) < share => {
                said(Outcome::Unavailable)
            }
            Weather::Lossy(share) if rng.random_range(0..100) < share => Reaction {
                answer: Answer::new(Outcome::Ambiguous).processed(Processed::Maybe),
                after: Duration::from_millis(rng.random_range(100..10_000)),
                taken: rng.random(),
                spoken: true,
            },
            Weather::Fine | Weather::Errors(_) | Weather::Lossy(_) => self.serve(to, quick),
            Weather::Slow => self.serve(to, Duration::from_millis(rng.random_range(900..5000))),
            Weather::Throttled(wish) => {
                let mut throttled = said(Outcome::Throttled);
                throttled.answer.retry_after = wish;
                throttled
            }
            Weather::AuthFailed => said(Outcome::AuthFailed),
            Weather::Misconfigured => said(Outcome::Misconfigured),
            Weather::Silent => {
                let written = rng.random_bool(0.7);
                let outcome = if written { Outcome::Ambiguous } else { Outcome::Unavailable };
                let taken = written && rng.random();
                Reaction { answer: Answer::new(outcome), after: TIMEOUT, taken, spoken: false }
            }
            Weather::Wild => {
                let outcome = Outcome::ALL[rng.random_range(0..Outcome::ALL.len())];
                let mut wild = said(outcome);
                wild.taken |= outcome == Outcome::Ambiguous && rng.random::<bool>();
                wild.after = Duration::from_millis(rng.random_range(1..12_000)).min(TIMEOUT);
                wild.answer.everywhere = outcome == Outcome::MessageInvalid && rng.random();
                if rng.random_bool(0.3) {
                    wild.answer.retry_after =
                        Some(Duration::from_millis(rng.random_range(0..90_000)));
                }
                wild
            }
        }
    }

    /// A vendor that works; what it says depends on the device.
    fn serve(&self, to: &Address, after: Duration) -> Reaction {
        let mut hasher = DefaultHasher::new();
        to.get("token").hash(&mut hasher);
        let device = |outcome| Answer::new(outcome).about(Part::Device);
        let answer = match hasher.finish() % 40 {
            0 | 1 => device(Outcome::AddressGone),
            2 if self.odd_devices => device(Outcome::Misconfigured),
            3 if self.odd_devices => {
                let mut throttled = device(Outcome::Throttled);
                throttled.retry_after = Some(Duration::from_secs(7));
                throttled
            }
            4 if self.odd_devices => device(Outcome::MessageInvalid),
            _ => {
                let mut accepted = Answer::new(Outcome::Accepted);
                accepted.vendor_id = Some(Arc::from("vendor-id"));
                accepted
            }
        };
        let taken = answer.outcome == Outcome::Accepted;
        Reaction { answer, after, taken, spoken: true }
    }
}
