//! The one task that owns the engine. It gathers what has happened (commands,
//! answers, flushes, reads, probes), hands it over as a batch with one reading of
//! the clock, and carries out the effects in their order. It has no `if` about
//! deliveries: what is decided is decided in the engine.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use pushyard_providers::{Answer, Call, Outcome, Processed, Written};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::handle::{Cancelled, Command, Received, Reconfigure, Rejected, Replayed};
use super::tell::tell;
use super::{AttemptId, Cut, Effect, Engine, Event, Fact, Found, Order, Refused, Snapshot, Token};
use crate::clock::{Clock, Now};
use crate::feedback::Receipts;
use crate::model::{Body, DeliveryId, MessageId};
use crate::routing::{Catalog, ProviderIndex};
use crate::stack::{Attempt, ProviderStack};
use crate::store::{Flushed, Health, Record, Store, StoreError};
use crate::telemetry::Telemetry;

/// Events of one kind taken in a batch at most, so that no kind starves another.
const BATCH: usize = 256;

/// How often the snapshot, the gauges and the notes are brought up to date.
const HOUSEKEEPING: Duration = Duration::from_millis(250);

/// How often those who wait no more are forgotten.
const SWEEP: Duration = Duration::from_secs(10);

/// Between two publications because a breaker has moved.
const PUBLISH_SPACING: Duration = Duration::from_millis(50);

/// A store that is not there is asked again after this.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// What the store's thread tells, without waiting for anyone.
#[derive(Debug, Default)]
pub struct FlushMark {
    upto: AtomicU64,
    broken: std::sync::Mutex<Option<String>>,
    wake: Notify,
    events: Arc<Notify>,
}

impl FlushMark {
    /// Called from the store's thread.
    pub fn told(&self, flushed: Flushed) {
        match flushed {
            Flushed::Upto(upto) => self.upto.store(upto, Ordering::Release),
            Flushed::Events => self.events.notify_one(),
            Flushed::Broken(text) => {
                *self.broken.lock().expect("no code panics while it holds this lock") = Some(text);
            }
        }
        self.wake.notify_one();
    }

    /// Notified when events for clients are on disk.
    pub fn events(&self) -> Arc<Notify> {
        self.events.clone()
    }

    /// Why writing has failed for good, if it has.
    pub fn broken(&self) -> Option<String> {
        self.broken.lock().expect("no code panics while it holds this lock").clone()
    }
}

/// What the driver works with.
pub struct Parts {
    /// Fed with what was recovered.
    pub engine: Engine,
    /// From the rest of the house.
    pub commands: mpsc::Receiver<Command>,
    /// Providers and routes, as the house sees them.
    pub catalog: Arc<ArcSwap<Catalog>>,
    /// By provider.
    pub stacks: Vec<ProviderStack>,
    /// Where records go.
    pub store: Arc<dyn Store>,
    /// How far they are on disk.
    pub flushed: Arc<FlushMark>,
    /// Makes the string that every payload carries.
    pub receipts: Arc<Receipts>,
    /// Tells the time.
    pub clock: Arc<Clock>,
    /// Where facts go.
    pub telemetry: Arc<Telemetry>,
    /// Where the engine's state is published.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// No new attempts from its cancellation on.
    pub drain: CancellationToken,
    /// Attempts in flight may end within this time after that.
    pub shutdown_timeout: Duration,
    /// A second signal: cut at once.
    pub cut: CancellationToken,
}

/// Someone who waits for an answer.
enum Reply {
    Submit(oneshot::Sender<Result<(), Rejected>>),
    Cancel(oneshot::Sender<Cancelled>),
    Receipt(oneshot::Sender<Received>),
    Replay(oneshot::Sender<Replayed>),
    Operate(oneshot::Sender<Result<(), Refused>>),
    Wait(oneshot::Sender<()>),
}

/// What they are told.
enum Told {
    Submitted(Result<(), Rejected>),
    Cancelled(Cancelled),
    Received(Received),
    Replayed(Replayed),
    Operated(Result<(), Refused>),
    Settled,
}

/// See the module.
pub struct Driver {
    parts: Parts,
    replies: HashMap<Token, Reply>,
    /// When those who wait no more are forgotten next.
    next_sweep: std::time::Instant,
    /// When the snapshot was last published because something had moved.
    published: std::time::Instant,
    next_token: u64,
    calls: JoinSet<(AttemptId, Answer)>,
    /// Ends the call of an attempt.
    cutters: HashMap<AttemptId, oneshot::Sender<Cut>>,
    sounds: JoinSet<()>,
    probes: JoinSet<(ProviderIndex, Answer)>,
    reads: JoinSet<(MessageId, Option<Arc<Body>>)>,
    looks: JoinSet<(DeliveryId, Option<Box<Found>>)>,
    effects: Vec<Effect>,
    records: Vec<Record>,
    told_upto: u64,
    store_health: Health,
    memos: Vec<Option<String>>,
    catalog: Arc<Catalog>,
    /// Of the configuration that the engine is about to go over to.
    next_stacks: Option<Vec<ProviderStack>>,
}

impl Driver {
    /// Takes its parts over; nothing runs yet. `effects` are those of recovery.
    pub fn new(parts: Parts, effects: Vec<Effect>) -> Self {
        let catalog = parts.catalog.load_full();
        let memos = catalog.providers.iter().map(|built| built.provider.memo()).collect();
        let now = parts.clock.now().instant;
        Self {
            parts,
            replies: HashMap::new(),
            next_sweep: now + SWEEP,
            published: now,
            next_token: 0,
            calls: JoinSet::new(),
            cutters: HashMap::new(),
            sounds: JoinSet::new(),
            probes: JoinSet::new(),
            reads: JoinSet::new(),
            looks: JoinSet::new(),
            effects,
            records: Vec::new(),
            told_upto: 0,
            store_health: Health::Writable,
            memos,
            catalog,
            next_stacks: None,
        }
    }

    /// Runs until drained: no new attempts after `drain`, and what is in flight
    /// has ended, or has been cut and written down as ambiguous. Ends early when
    /// the store breaks; what the store then knows is what a restart will find.
    pub async fn run(mut self) {
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut drain_ends = None;
        self.turn(Vec::new());
        loop {
            let wake = tokio::time::Instant::from_std(self.wake_at());
            let mut events = Vec::new();
            let drain = self.parts.drain.clone();
            let second = self.parts.cut.clone();
            let deadline = drain_ends.unwrap_or(wake + Duration::from_secs(3600));
            tokio::select! {
                Some(command) = self.parts.commands.recv() => self.command(command, &mut events),
                Some(answered) = self.calls.join_next() => self.answered(answered, &mut events),
                () = self.parts.flushed.wake.notified() => {}
                Some(Ok((id, body))) = self.reads.join_next() => events.push(Event::Read(id, body)),
                Some(Ok((id, found))) = self.looks.join_next() => {
                    events.push(Event::Found(id, found));
                }
                Some(Ok((provider, answer))) = self.probes.join_next() => {
                    events.push(Event::Probed(provider, answer));
                }
                () = tokio::time::sleep_until(wake) => {
                    self.listen(&mut events);
                    events.push(Event::Tick);
                }
                _ = housekeeping.tick() => self.keep_house(&mut events),
                () = drain.cancelled(), if drain_ends.is_none() => {
                    drain_ends = Some(tokio::time::Instant::from_std(self.now().instant)
                        + self.parts.shutdown_timeout);
                    events.push(Event::Drain);
                }
                () = tokio::time::sleep_until(deadline), if drain_ends.is_some() => self.cut(&mut events),
                () = second.cancelled(), if drain_ends.is_some() => self.cut(&mut events),
            }
            self.gather(&mut events);
            self.turn(events);
            if self.parts.flushed.broken().is_some() {
                return;
            }
            if drain_ends.is_some() && self.parts.engine.in_flight() == 0 {
                break;
            }
        }
        self.keep_house(&mut Vec::new());
        self.parts.store.submit(std::mem::take(&mut self.records));
    }

    fn now(&self) -> Now {
        self.parts.clock.now()
    }

    fn wake_at(&self) -> std::time::Instant {
        self.parts.engine.wake_at(self.now())
    }

    /// What else is there already.
    fn gather(&mut self, events: &mut Vec<Event>) {
        for _ in 0..BATCH {
            let Ok(command) = self.parts.commands.try_recv() else { break };
            self.command(command, events);
        }
        for _ in 0..BATCH {
            let Some(answered) = self.calls.try_join_next() else { break };
            self.answered(answered, events);
        }
        let upto = self.parts.flushed.upto.load(Ordering::Acquire);
        if upto > self.told_upto {
            self.told_upto = upto;
            events.push(Event::Flushed(upto));
        }
    }

    fn turn(&mut self, events: Vec<Event>) {
        let now = self.now();
        for event in events {
            self.parts.engine.on(event, now, &mut self.effects);
        }
        self.parts.engine.pump(now, &mut self.effects);
        let (mut moved, mut another) = (false, false);
        for effect in std::mem::take(&mut self.effects) {
            moved |= matches!(effect, Effect::Tell(Fact::Moved(_)));
            another |= matches!(effect, Effect::Catalog(_));
            self.carry_out(effect);
        }
        // In an outage of many origins something moves at every turn.
        let spaced = now.instant.saturating_duration_since(self.published) >= PUBLISH_SPACING;
        if another || (moved && spaced) {
            self.publish(now);
            self.published = now.instant;
        }
        if !self.records.is_empty() {
            self.parts.store.submit(std::mem::take(&mut self.records));
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Write(record) => self.records.push(record),
            Effect::Call(order) => self.call(*order),
            Effect::Tell(fact) => tell(&fact, &self.catalog, &self.parts.telemetry),
            Effect::Read(id) => self.read(id),
            Effect::Look(id) => self.look(id),
            Effect::Probe(provider) => self.probe(provider),
            Effect::Sound(provider) => self.sound(provider),
            // One that has ended meanwhile has its answer on the way.
            Effect::Cut(attempt, cut) => {
                let cutter = self.cutters.remove(&attempt);
                drop(cutter.map(|cutter| cutter.send(cut)));
            }
            Effect::Accepted(token) => self.answer(token, Told::Submitted(Ok(()))),
            Effect::Rejected(token, rejected) => {
                self.answer(token, Told::Submitted(Err(rejected)));
            }
            Effect::Cancelled(token, cancelled) => self.answer(token, Told::Cancelled(cancelled)),
            Effect::Received(token, received) => self.answer(token, Told::Received(received)),
            Effect::Replayed(token, replayed) => self.answer(token, Told::Replayed(replayed)),
            Effect::Settled(token) => self.answer(token, Told::Settled),
            Effect::Operated(token, done) => self.answer(token, Told::Operated(done)),
            Effect::Catalog(catalog) => {
                self.memos.resize(catalog.providers.len(), None);
                // Not before: calls ordered until here are encoded by the old providers.
                if let Some(stacks) = self.next_stacks.take() {
                    self.parts.stacks = stacks;
                }
                self.catalog = catalog.clone();
                self.parts.catalog.store(catalog);
            }
        }
    }

    /// Answers someone who waits. A receiver that is gone does not wait any more.
    fn answer(&mut self, token: Token, told: Told) {
        match (self.replies.remove(&token), told) {
            (Some(Reply::Submit(reply)), Told::Submitted(told)) => drop(reply.send(told)),
            (Some(Reply::Cancel(reply)), Told::Cancelled(told)) => drop(reply.send(told)),
            (Some(Reply::Receipt(reply)), Told::Received(told)) => drop(reply.send(told)),
            (Some(Reply::Replay(reply)), Told::Replayed(told)) => drop(reply.send(told)),
            (Some(Reply::Operate(reply)), Told::Operated(told)) => drop(reply.send(told)),
            (Some(Reply::Wait(reply)), Told::Settled) => drop(reply.send(())),
            // Each token is answered once, and with what it asked for.
            (Some(_) | None, _) => {}
        }
    }

    fn command(&mut self, command: Command, events: &mut Vec<Event>) {
        match command {
            Command::Submit(body, reply) => {
                let token = self.token(Reply::Submit(reply));
                events.push(Event::Submitted(token, body));
            }
            Command::Cancel(id, reply) => {
                let token = self.token(Reply::Cancel(reply));
                events.push(Event::Cancel(token, id));
            }
            Command::Receipt(id, reply) => {
                let token = self.token(Reply::Receipt(reply));
                events.push(Event::Receipt(token, id));
            }
            Command::Replay(id, reply) => {
                let token = self.token(Reply::Replay(reply));
                events.push(Event::Replay(token, id));
            }
            Command::Operate(operation, reply) => {
                let token = self.token(Reply::Operate(reply));
                events.push(Event::Operate(token, operation));
            }
            Command::Reconfigure(reconfigure, reply) => {
                let token = self.token(Reply::Operate(reply));
                let Reconfigure { reconfigured, stacks } = *reconfigure;
                self.next_stacks = Some(stacks);
                events.push(Event::Reconfigured(token, Box::new(reconfigured)));
            }
            Command::CancelPart(id, deliveries, reply) => {
                let token = self.token(Reply::Cancel(reply));
                events.push(Event::CancelPart(token, id, deliveries));
            }
            Command::Keep(records, reply) => {
                let token = self.token(Reply::Submit(reply));
                events.push(Event::Keep(token, records));
            }
            Command::Wait(id, reply) => {
                let token = self.token(Reply::Wait(reply));
                events.push(Event::Wait(token, id));
            }
            Command::Live(id, reply) => {
                let now = self.now();
                drop(reply.send(self.parts.engine.live(id, now)));
            }
            Command::Explain(asked, reply) => {
                let now = self.now();
                drop(reply.send(self.parts.engine.explain(&asked, now)));
            }
        }
    }

    fn token(&mut self, reply: Reply) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.replies.insert(token, reply);
        token
    }

    fn call(&mut self, order: Order) {
        let index = order.permit.provider();
        let stack = self.parts.stacks[index.at()].clone();
        let built = self.catalog.provider(index).clone();
        let receipts = self.parts.receipts.clone();
        let (cutter, mut cut) = oneshot::channel();
        self.cutters.insert(order.attempt, cutter);
        self.calls.spawn(async move {
            let attempt = order.attempt;
            let written = Written::default();
            let seen = written.clone();
            let call = async move {
                let message = order.body.message();
                let delivery = message.id.delivery(order.n);
                let recipient = &message.recipients[usize::from(order.n)];
                let payload = match order.body.payload(built.serial, &*built.provider) {
                    Ok(payload) => payload,
                    Err(invalid) => {
                        return Answer::new(Outcome::MessageInvalid)
                            .code(invalid.code)
                            .detail(&invalid.to_string());
                    }
                };
                let never = order.ttl.is_zero();
                let call = Call {
                    payload,
                    address: recipient.addresses[usize::from(order.address)].clone(),
                    delivery: delivery.uuid(),
                    reference: recipient.reference.as_deref().map(Into::into),
                    pushyard: receipts.string(delivery),
                    ttl: order.ttl,
                    expires_at: if never { 0 } else { order.expires_at.ms().div_ceil(1000) },
                    written,
                };
                let answer = stack.oneshot(Attempt { permit: order.permit, call }).await;
                answer.unwrap_or_else(|_| internal(Processed::No))
            };
            let answer = tokio::select! {
                biased;
                answer = AssertUnwindSafe(call).catch_unwind() => answer,
                Ok(cut) = &mut cut => Ok(cut.answer(seen.is_set())),
            };
            let processed = if seen.is_set() { Processed::Maybe } else { Processed::No };
            (attempt, answer.unwrap_or_else(|_| internal(processed)))
        });
    }

    fn probe(&mut self, index: ProviderIndex) {
        let built = self.catalog.provider(index).clone();
        let timeout = built.settings.probe.map_or(Duration::from_secs(3), |probe| probe.timeout);
        self.probes.spawn(async move {
            let probe = AssertUnwindSafe(async { built.provider.probe().await }).catch_unwind();
            let answer = match tokio::time::timeout(timeout, probe).await {
                Ok(answer) => answer.unwrap_or_else(|_| internal(Processed::No)),
                Err(_) => Answer::new(Outcome::Unavailable)
                    .code("timeout")
                    .detail("no answer to the probe"),
            };
            (index, answer)
        });
    }

    fn sound(&mut self, index: ProviderIndex) {
        let built = self.catalog.provider(index).clone();
        while self.sounds.try_join_next().is_some() {}
        self.sounds.spawn(async move { built.provider.sound().await });
    }

    /// When each provider was heard last.
    fn listen(&self, events: &mut Vec<Event>) {
        for (at, built) in self.catalog.providers.iter().enumerate() {
            let heard = built.provider.heard();
            events.extend(heard.map(|heard| Event::Heard(ProviderIndex(at as u16), heard)));
        }
    }

    /// A call's answer as an event; a task that was cut at the end has been
    /// answered for.
    fn answered(
        &mut self,
        answered: Result<(AttemptId, Answer), tokio::task::JoinError>,
        events: &mut Vec<Event>,
    ) {
        let Ok((attempt, answer)) = answered else { return };
        self.cutters.remove(&attempt);
        events.push(Event::Answered(attempt, answer));
    }

    fn read(&mut self, id: MessageId) {
        let store = self.parts.store.clone();
        self.reads.spawn(async move {
            let message = patiently(move || store.message(id)).await.inspect_err(|error| {
                tracing::error!(message = %id, %error, "a message cannot be read back");
            });
            (id, message.ok().flatten().map(Body::new))
        });
    }

    fn look(&mut self, id: DeliveryId) {
        let store = self.parts.store.clone();
        self.looks.spawn(async move {
            let found = patiently(move || held(&*store, id)).await.inspect_err(|error| {
                tracing::error!(delivery = %id, %error, "a delivery cannot be looked up");
            });
            (id, found.ok().flatten().map(Box::new))
        });
    }

    /// Attempts that are still in flight are cut: a byte may have left.
    fn cut(&mut self, events: &mut Vec<Event>) {
        self.calls.abort_all();
        for attempt in self.parts.engine.attempts() {
            // A byte may have left.
            events.push(Event::Answered(attempt, Cut::Shutdown.answer(true)));
        }
    }

    fn publish(&self, now: Now) {
        self.parts.snapshot.store(Arc::new(self.parts.engine.snapshot(now)));
    }

    /// A backend that asked with `?wait=` for what is parked has long hung up: it
    /// costs no memory until that has settled.
    fn forget_who_left(&mut self, events: &mut Vec<Event>) {
        let left = |_: &Token, reply: &mut Reply| match reply {
            Reply::Wait(sender) => sender.is_closed(),
            Reply::Submit(_)
            | Reply::Cancel(_)
            | Reply::Receipt(_)
            | Reply::Replay(_)
            | Reply::Operate(_) => false,
        };
        let left: HashSet<Token> = self.replies.extract_if(left).map(|(token, _)| token).collect();
        if !left.is_empty() {
            events.push(Event::Left(left));
        }
    }

    fn keep_house(&mut self, events: &mut Vec<Event>) {
        let now = self.now();
        self.publish(now);
        self.parts.telemetry.flush(now);
        self.parts.telemetry.alarm("clock_step", self.parts.clock.step_held_back());
        self.listen(events);
        if now.instant >= self.next_sweep {
            self.next_sweep = now.instant + SWEEP;
            self.forget_who_left(events);
        }
        let board = self.parts.engine.board();
        self.parts.telemetry.alarm("network", board.network_down(now.instant));
        self.parts.telemetry.alarm("mass_gone", board.mass_gone());
        for (rows, took) in self.parts.store.commit_times() {
            self.parts.telemetry.metrics().committed(rows, took);
        }
        let health = self.parts.store.health();
        if health != self.store_health {
            self.store_health = health;
            self.parts.telemetry.alarm("store", health != Health::Writable);
            events.push(Event::Store(health));
        }
        let catalog = self.catalog.clone();
        for (at, built) in catalog.providers.iter().enumerate() {
            let streams = built.provider.gauge().stream_capacity;
            let streams = streams.and_then(|streams| u32::try_from(streams).ok());
            events.push(Event::Capacity(ProviderIndex(at as u16), streams));
            let memo = built.provider.memo();
            if memo != self.memos[at] {
                self.memos[at].clone_from(&memo);
                let name = format!("memo/{}", built.settings.id);
                events.push(Event::Note(name, memo.map(String::into_bytes)));
            }
        }
    }
}

/// Reads from a store that may not be there for a while, as on a full disk: what it
/// holds is not lost, so the answer is waited for.
async fn patiently<T: Send + 'static>(
    read: impl Fn() -> Result<T, StoreError> + Clone + Send + 'static,
) -> Result<T, StoreError> {
    loop {
        let read = read.clone();
        let answer = tokio::task::spawn_blocking(read).await;
        match answer {
            Ok(Err(StoreError::Engine(_))) => tokio::time::sleep(READ_AGAIN).await,
            Ok(answer) => return answer,
            Err(_) => return Err(StoreError::Undecodable("reading it panicked".to_owned())),
        }
    }
}

/// What the store holds of a delivery.
fn held(store: &dyn Store, id: DeliveryId) -> Result<Option<Found>, StoreError> {
    let Some(message) = store.message(id.message())? else { return Ok(None) };
    let progress = store.progress(id.message())?;
    let progress = progress.into_iter().find(|(n, _)| *n == id.n()).map(|(_, known)| known);
    Ok(Some(Found { body: Body::new(message), progress }))
}

/// A fault of ours: before the call nothing was sent, after it nobody knows.
fn internal(processed: Processed) -> Answer {
    let outcome = match processed {
        Processed::No | Processed::Yes => Outcome::MessageInvalid,
        Processed::Maybe => Outcome::Ambiguous,
    };
    Answer::new(outcome).processed(processed).code("internal")
}
