//! What the tests of the engine are built with: one that is fed by hand, with time
//! moved by hand, in front of one provider.

use std::time::{Duration, Instant};

use pushyard_providers::{Answer, Outcome, Push};

use super::*;
use crate::clock::Clock;
use crate::dispatch::Token;
use crate::model::{IdGenerator, Message, OnAmbiguous, Recipient};
use crate::routing::testing::{catalog, recipient, settings};
use crate::routing::{Balance, Cause, Member, Route, Status};

pub(super) const MS: Duration = Duration::from_millis(1);
/// What a push is worth where that does not matter.
const HOUR: Duration = Duration::from_secs(3600);
pub(super) const VENDOR: ProviderIndex = ProviderIndex(0);

/// An engine with one provider, and what it did so far.
pub(super) struct House {
    pub(super) engine: Engine,
    pub(super) now: Now,
    pub(super) began: Instant,
    ids: IdGenerator,
    rng: StdRng,
    /// When the vendor was heard.
    pub(super) heard: Instant,
    told: Instant,
    /// It answers when it is asked for a sign of life.
    pub(super) lives: bool,
    /// In milliseconds since the beginning.
    pub(super) sounds: Vec<u64>,
    pub(super) cuts: Vec<(u64, AttemptId, Cut)>,
    pub(super) calls: Vec<AttemptId>,
    written: u64,
    submitted: u64,
    pub(super) on_ambiguous: OnAmbiguous,
    /// Bodies that were read back.
    pub(super) reads: u64,
    bodies: HashMap<MessageId, Arc<Body>>,
}

impl House {
    pub(super) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(super) fn with(dispatch: Settings) -> Self {
        let now = Clock::default().now();
        let tiers = vec![vec![Member { provider: VENDOR, weight: 1.0 }]];
        let route = Route { name: "default".into(), tiers, balance: Balance::LeastLatency };
        let catalog = Arc::new(catalog(vec![settings("vendor")], vec![route]));
        let engine = Engine::new(catalog, dispatch, Limits::default(), now, 7);
        let mut house = Self {
            engine,
            now,
            began: now.instant,
            ids: IdGenerator::default(),
            rng: StdRng::seed_from_u64(7),
            heard: now.instant,
            told: now.instant,
            lives: false,
            sounds: Vec::new(),
            cuts: Vec::new(),
            calls: Vec::new(),
            written: 0,
            submitted: 0,
            on_ambiguous: OnAmbiguous::Resend,
            reads: 0,
            bodies: HashMap::new(),
        };
        house.listen();
        house
    }

    pub(super) fn ms(&self) -> u64 {
        self.now.instant.duration_since(self.began).as_millis() as u64
    }

    pub(super) fn on(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.engine.on(event, self.now, &mut effects);
        self.engine.pump(self.now, &mut effects);
        let (mut wrote, mut read) = (false, Vec::new());
        for effect in effects {
            match effect {
                Effect::Write(_) => {
                    self.written += 1;
                    wrote = true;
                }
                Effect::Call(order) => self.calls.push(order.attempt),
                Effect::Sound(_) => {
                    self.sounds.push(self.ms());
                    if self.lives {
                        self.heard = self.now.instant + MS;
                    }
                }
                Effect::Read(id) => read.push(id),
                Effect::Cut(attempt, cut) => self.cuts.push((self.ms(), attempt, cut)),
                Effect::Accepted(_)
                | Effect::Rejected(..)
                | Effect::Cancelled(..)
                | Effect::Settled(_)
                | Effect::Look(_)
                | Effect::Received(..)
                | Effect::Replayed(..)
                | Effect::Operated(..)
                | Effect::Catalog(_)
                | Effect::Probe(_)
                | Effect::Tell(_) => {}
            }
        }
        if wrote {
            self.on(Event::Flushed(self.written));
        }
        for id in read {
            self.reads += 1;
            self.on(Event::Read(id, self.bodies.get(&id).cloned()));
        }
    }

    pub(super) fn listen(&mut self) {
        self.told = self.now.instant;
        self.on(Event::Heard(VENDOR, self.heard));
    }

    /// A push comes and is called at once.
    pub(super) fn push(&mut self) -> AttemptId {
        let before = self.calls.len();
        self.submit(Duration::from_secs(3600));
        assert_eq!(self.calls.len(), before + 1, "called at once");
        self.calls[before]
    }

    /// A push comes that is worth so much time.
    pub(super) fn submit(&mut self, ttl: Duration) {
        self.submit_to(1, ttl);
    }

    /// A push to so many comes.
    pub(super) fn submit_to(&mut self, recipients: usize, ttl: Duration) {
        self.submit_for(vec![recipient(&[("t", "")]); recipients], ttl);
    }

    /// A push to a device of an app comes.
    pub(super) fn submit_app(&mut self, app: &str) {
        self.submit_for(vec![recipient(&[("t", app)])], HOUR);
    }

    fn submit_for(&mut self, recipients: Vec<Recipient>, ttl: Duration) {
        self.submitted += 1;
        let message = Message {
            id: self.ids.next(self.now.utc, &mut self.rng),
            client: "client".into(),
            route: "default".into(),
            deliver_at: None,
            ttl,
            on_ambiguous: self.on_ambiguous,
            durability: Durability::Disk,
            push: Push::default(),
            recipients,
            metadata: Default::default(),
            trace: None,
            idempotency: None,
            warnings: Vec::new(),
            unresolved: Vec::new(),
        };
        let body = Body::new(message);
        self.bodies.insert(body.message().id, body.clone());
        self.on(Event::Submitted(Token(self.submitted), body));
    }

    /// Time passes as the driver lets it: it wakes when the engine wants to, and
    /// four times a second.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now.instant + time;
        while self.now.instant < until {
            let wake = self.engine.wake_at(self.now).min(self.told + 250 * MS).min(until);
            self.now = self.now.plus(wake.max(self.now.instant + MS) - self.now.instant);
            self.listen();
            self.on(Event::Tick);
        }
    }

    pub(super) fn answer(&mut self, attempt: AttemptId, outcome: Outcome) {
        self.heard = self.now.instant;
        self.on(Event::Answered(attempt, Answer::new(outcome)));
    }

    pub(super) fn status(&self) -> Status {
        self.engine.board.key_at(self.engine.board.lane(VENDOR).key).health.status()
    }

    pub(super) fn ejected(&self) -> bool {
        matches!(self.status(), Status::Ejected { cause: Cause::Stall, .. })
    }

    pub(super) fn cut_at(&self) -> Vec<u64> {
        self.cuts.iter().map(|(at, ..)| *at).collect()
    }

    /// Its vendor goes out, and a canary has just failed. Five deliveries of an hour wait.
    pub(super) fn outage(&mut self) {
        for attempt in [0; 5].map(|_| self.push()) {
            self.answer(attempt, Outcome::Unavailable);
        }
        assert!(matches!(self.status(), Status::Ejected { .. }), "{:?}", self.status());
        self.pass(100 * MS);
        self.calls.clear();
    }
}
