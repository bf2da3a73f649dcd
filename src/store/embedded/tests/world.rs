//! A directory, a clock that can be set forward, and what was flushed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use pushyard_providers::{Address, Notification, Push, registry};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;

use super::super::open::{OpenError, open};
use super::super::{Clock, Embedded, OnFlushed};
use crate::clock::{self, Now};
use crate::model::{
    Attempt, Body, DeliveryId, Durability, IdGenerator, Idempotency, Message, MessageId,
    OnAmbiguous, Progress, Recipient, State,
};
use crate::store::{Flushed, Record, Recovered, Settings, Start, Store};

const HOUR_MS: u64 = 3_600_000;

/// Nothing here takes as long, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct World {
    pub(super) settings: Settings,
    pub(super) start: Start,
    pub(super) flushes: Arc<Flushes>,
    clock: Arc<clock::Clock>,
    ahead: Arc<AtomicU64>,
    ids: Mutex<(IdGenerator, StdRng)>,
    _directory: TempDir,
}

impl World {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings {
            path: directory.path().join("data"),
            retention: Duration::from_secs(24 * 3600),
            max_bytes: 10 << 30,
            commit_delay: Duration::ZERO,
            min_free: 0,
            dead_letter_retention: Duration::from_secs(7 * 24 * 3600),
            max_dead_letters: 100_000,
            max_idempotency_keys: 5_000_000,
        };
        // It begins with an hour: when a table begins must not depend on when the test runs.
        let clock = Arc::<clock::Clock>::default();
        let ahead = HOUR_MS - clock.now().utc.ms() % HOUR_MS;
        Self {
            settings,
            start: Start::default(),
            flushes: Arc::default(),
            clock,
            ahead: Arc::new(AtomicU64::new(ahead)),
            ids: Mutex::new((IdGenerator::default(), StdRng::seed_from_u64(1))),
            _directory: directory,
        }
    }

    pub(super) fn open(&mut self) -> Arc<Embedded> {
        let (store, start) = self.try_open().unwrap();
        self.start = start;
        store
    }

    pub(super) fn try_open(&mut self) -> Result<(Arc<Embedded>, Start), OpenError> {
        let on_flushed = self.on_flushed();
        open(&self.settings, self.clock(), on_flushed)
    }

    /// Of a store that is opened now.
    pub(super) fn on_flushed(&mut self) -> OnFlushed {
        self.flushes = Arc::default();
        let flushes = self.flushes.clone();
        Box::new(move |flushed| flushes.note(flushed))
    }

    pub(super) fn clock(&self) -> Clock {
        let (clock, ahead) = (self.clock.clone(), self.ahead.clone());
        Arc::new(move || clock.now().plus(Duration::from_millis(ahead.load(Ordering::Relaxed))))
    }

    pub(super) fn now(&self) -> Now {
        (self.clock())()
    }

    /// Time goes by, on both clocks.
    pub(super) fn pass(&self, time: Duration) {
        self.ahead.fetch_add(clock::millis(time), Ordering::Relaxed);
    }

    /// Writes and waits until it is flushed.
    pub(super) fn write(&self, store: &Embedded, records: Vec<Record>) {
        let upto = self.flushes.submitted(records.len());
        store.submit(records);
        self.flushes.wait_for(upto);
    }

    /// Waits for something that nobody tells of.
    pub(super) fn until(&self, mut condition: impl FnMut() -> bool) {
        let begun = self.clock.now().instant;
        while !condition() {
            assert!(self.clock.now().instant - begun < PATIENCE, "it never came");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn id(&self) -> MessageId {
        let (ids, rng) = &mut *self.ids.lock().unwrap();
        ids.next(self.now().utc, rng)
    }
}

/// What `on_flushed` was told.
#[derive(Default)]
pub(super) struct Flushes {
    state: Mutex<Told>,
    told: Condvar,
}

#[derive(Default)]
struct Told {
    submitted: u64,
    upto: u64,
    broken: Option<String>,
}

impl Flushes {
    pub(super) fn submitted(&self, records: usize) -> u64 {
        let mut state = self.state.lock().unwrap();
        state.submitted += records as u64;
        state.submitted
    }

    pub(super) fn upto(&self) -> u64 {
        self.state.lock().unwrap().upto
    }

    pub(super) fn broken(&self) -> Option<String> {
        self.state.lock().unwrap().broken.clone()
    }

    pub(super) fn wait_for(&self, upto: u64) {
        let waited = self
            .told
            .wait_timeout_while(self.state.lock().unwrap(), PATIENCE, |told| told.upto < upto)
            .unwrap();
        assert!(!waited.1.timed_out(), "{upto} was never flushed: {:?}", waited.0.broken);
    }

    pub(super) fn wait_until_broken(&self) {
        let waited = self
            .told
            .wait_timeout_while(self.state.lock().unwrap(), PATIENCE, |told| told.broken.is_none())
            .unwrap();
        assert!(!waited.1.timed_out(), "it never broke");
    }

    fn note(&self, flushed: Flushed) {
        let mut state = self.state.lock().unwrap();
        match flushed {
            Flushed::Upto(upto) => {
                assert!(state.broken.is_none(), "nothing is flushed after it broke");
                assert!(upto > state.upto, "each one is told once");
                state.upto = upto;
            }
            Flushed::Events => {}
            Flushed::Broken(text) => state.broken = Some(text),
        }
        self.told.notify_all();
    }
}

pub(super) fn message(world: &World, recipients: usize) -> Message {
    let kind = registry::KINDS[0];
    let values: Vec<(&str, &str)> =
        kind.fields.iter().map(|field| (field.name, "0123456789abcdef")).take(1).collect();
    let address = Address::new(kind, &values, None, None).unwrap();
    let recipient = Recipient {
        reference: Some("r".to_owned()),
        user: None,
        region: None,
        addresses: vec![address],
        no_route: false,
    };
    Message {
        id: world.id(),
        client: "shop".into(),
        route: "default".into(),
        deliver_at: None,
        ttl: Duration::from_secs(3600),
        on_ambiguous: OnAmbiguous::Resend,
        durability: Durability::Disk,
        push: Push {
            notification: Some(Notification {
                body: Some("x".repeat(500)),
                ..Notification::default()
            }),
            ..Push::default()
        },
        recipients: vec![recipient; recipients],
        metadata: BTreeMap::new(),
        idempotency: None,
        warnings: Vec::new(),
        unresolved: Vec::new(),
        trace: None,
    }
}

pub(super) fn message_with_key(world: &World, n: u8) -> Message {
    // As spread as a hash's halves.
    let key = u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_le_bytes();
    Message { idempotency: Some(Idempotency { key, body: [n; 16] }), ..message(world, 1) }
}

pub(super) fn accept(message: &Message) -> Record {
    Record::Accept(Body::new(message.clone()))
}

pub(super) fn settled(id: MessageId) -> Record {
    Record::Settled(id)
}

pub(super) fn outcome(delivery: DeliveryId, state: State) -> Record {
    outcome_at(delivery, state, delivery.message().accepted_at())
}

pub(super) fn outcome_at(delivery: DeliveryId, state: State, at: clock::Utc) -> Record {
    Record::Progress(delivery, Arc::new(Progress { state, ..Progress::queued(at) }))
}

pub(super) fn sent(delivery: DeliveryId) -> Record {
    let at = delivery.message().accepted_at();
    let mut progress = Progress { state: State::Sent, ..Progress::queued(at) };
    progress.record(Attempt {
        n: 1,
        provider: "fcm".into(),
        kind: "fcm".into(),
        address: 0,
        outcome: pushyard_providers::Outcome::Accepted,
        status: Some(200),
        code: None,
        detail: None,
        started_at: at,
        latency_ms: 12,
    });
    Record::Progress(delivery, Arc::new(progress))
}

pub(super) fn recovered(store: &Embedded) -> Vec<Recovered> {
    let mut found = Vec::new();
    store.recover(&mut |one| found.push(one)).unwrap();
    found
}
