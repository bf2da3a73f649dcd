//! The world: virtual time, vendors with faults, a disk that forgets, backends,
//! and the real engine in the middle. Everything follows from the seed. It does
//! what the driver does, and crashes between any two effects.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pushyard::clock::{Clock, Now, Utc};
use pushyard::dispatch::{
    AttemptId, Cut, Effect, Engine, Event, Fact, Operation, Order, Received, Reconfigured,
    Replayed, Token, Wish,
};
use pushyard::model::{Body, DeliveryId, IdGenerator, MessageId, State};
use pushyard::routing::{Balance, OverrideSpec, ProviderIndex};
use pushyard::store::{Health, Record};
use pushyard_providers::{Answer, Outcome};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::books::{Books, Pair, hold};
use super::disk::Disk;
use super::sight::Sight;
use super::traffic::Setup;
use super::vendor::{TIMEOUT, Vendor, Weather};

/// More effects than this of one pump: it would never end.
const MOST_EFFECTS: usize = 100_000;
/// Ticks that do nothing, in a second in which nothing is in flight.
const MOST_IDLE_TICKS: usize = 100;

/// How often the driver tells when it heard each vendor.
const HOUSEKEEPING: Duration = Duration::from_millis(250);

/// Something that is going to happen. Those with a number belong to one process.
#[derive(Debug)]
enum Happening {
    Submit,
    Flush(u32),
    Answer(u32, AttemptId, Answer),
    Read(u32, MessageId),
    Probed(u32, ProviderIndex, Answer),
    Sounded(usize),
    Looked(u32, DeliveryId),
    Cancel,
    Receipt,
    Replay,
    Operate,
    Reload,
    Wait,
    Look,
    Weather(usize),
    Capacity,
    StoreHealth,
    Drain,
    Drained(u32),
    Crash,
}

/// What a backend asked for.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Submit(MessageId),
    Cancel(MessageId),
    Receipt(DeliveryId),
    Replay(DeliveryId),
    Operate,
    Wait(MessageId),
}

/// A call in a vendor's hands.
#[derive(Clone, Copy, Debug)]
struct Calling {
    id: DeliveryId,
    pair: Pair,
    /// The vendor will say something.
    spoken: bool,
    /// A byte of it has left.
    written: bool,
}

/// See the module.
pub(super) struct World {
    rng: StdRng,
    pub(super) now: Now,
    setup: Setup,
    engine: Engine,
    disk: Disk,
    vendors: Vec<Vendor>,
    /// By vendor: when the last byte came.
    heard: Vec<Instant>,
    /// When the engine was told of that.
    told_heard: Instant,
    pub(super) books: Books,
    pub(super) sight: Sight,
    schedule: BTreeMap<(Instant, u64), Happening>,
    scheduled: u64,
    epoch: u32,
    calls: BTreeMap<AttemptId, Calling>,
    asked: BTreeMap<u64, Asked>,
    tokens: u64,
    ids: IdGenerator,
    reads: BTreeSet<MessageId>,
    flush_due: bool,
    store: Health,
    /// Faults go on.
    chaos: bool,
    draining: bool,
    effects: Vec<Effect>,
    idle_ticks: VecDeque<Instant>,
    pub(super) log: VecDeque<String>,
    /// Lines of it that a failure shows.
    shown: usize,
    /// Events that the engine was given.
    pub(super) events: u64,
    pub(super) crashes: u32,
    /// Calls that were given up in silence.
    pub(super) cuts: u32,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let instant = Clock::default().now().instant;
        let now = Now { instant, utc: Utc::from_ms(1_760_000_000_000) };
        let setup = Setup::draw(&mut rng);
        let dedups = setup.catalog.providers.iter().map(|built| built.provider.profile().dedup);
        let vendors: Vec<Vendor> = dedups.map(Vendor::new).collect();
        let engine = engine(&setup, now, &mut rng);
        let sight = Sight::new(&setup, now);
        let mut books = Books::default();
        books.max_attempts = setup.settings.max_attempts;
        let wide = setup.catalog.routes.iter().filter(|r| r.balance == Balance::Broadcast);
        books.wide = wide.map(|route| route.name.to_string()).collect();
        let mut world = Self {
            rng,
            now,
            setup,
            engine,
            disk: Disk::default(),
            heard: vec![instant; vendors.len()],
            told_heard: instant,
            vendors,
            books,
            sight,
            schedule: BTreeMap::new(),
            scheduled: 0,
            epoch: 0,
            calls: BTreeMap::new(),
            asked: BTreeMap::new(),
            tokens: 0,
            ids: IdGenerator::default(),
            reads: BTreeSet::new(),
            flush_due: false,
            store: Health::Writable,
            chaos: true,
            draining: false,
            effects: Vec::new(),
            idle_ticks: VecDeque::new(),
            log: VecDeque::new(),
            shown: super::number("PUSHYARD_LOG").unwrap_or(40) as usize,
            events: 0,
            crashes: 0,
            cuts: 0,
        };
        world.set_out();
        world
    }

    /// Chaos for so many steps, then calm until everything has settled.
    pub(super) fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            self.step();
        }
        self.calm_down();
        let limit = 200_000 + steps * 100;
        for n in 0.. {
            let looked_up = |asked: &Asked| !matches!(asked, Asked::Wait(_) | Asked::Submit(_));
            let quiet = self.disk.pending() == 0 && !self.asked.values().any(looked_up);
            if self.books.live.is_empty() && self.calls.is_empty() && quiet && !self.draining {
                break;
            }
            hold!(3, n < limit, "{} deliveries do not settle", self.books.live.len());
            self.step();
        }
        self.check_the_end();
    }

    fn set_out(&mut self) {
        for at in 0..self.vendors.len() {
            self.soon(1_000, 30_000, Happening::Weather(at));
        }
        for (ms, happening) in [
            (10, Happening::Submit),
            (3_000, Happening::Cancel),
            (3_000, Happening::Receipt),
            (20_000, Happening::Replay),
            (30_000, Happening::Operate),
            (60_000, Happening::Reload),
            (3_000, Happening::Wait),
            (500, Happening::Look),
            (10_000, Happening::Capacity),
            (60_000, Happening::StoreHealth),
            (200_000, Happening::Drain),
            (100_000, Happening::Crash),
        ] {
            self.soon(0, 2 * ms, happening);
        }
    }

    fn calm_down(&mut self) {
        self.note("calm");
        self.chaos = false;
        for vendor in &mut self.vendors {
            (vendor.weather, vendor.only_app) = (Weather::Fine, None);
        }
        let mut orders = Vec::new();
        for built in &self.setup.catalog.providers {
            let (id, wish) = (built.settings.id.clone(), Wish::Resume);
            orders.push(Operation::Provider { id, wish, reason: None, until: None });
        }
        for route in &self.setup.catalog.routes {
            orders.push(Operation::RoutePause { route: route.name.clone(), paused: false });
        }
        let ask = |order| Event::Operate(self.ask(Asked::Operate), order);
        let orders = orders.into_iter().map(ask).collect();
        self.turn(orders);
        if self.store != Health::Writable {
            self.store = Health::Writable;
            self.turn(vec![Event::Store(Health::Writable)]);
        }
    }

    fn check_the_end(&mut self) {
        self.sight.compare(&self.engine);
        hold!(16, self.engine.is_empty(), "something is kept after the end: {:?}", self.engine);
        for (id, entry) in &self.books.messages {
            let stored = &self.disk.messages[id];
            hold!(3, !stored.open, "{id} is open on disk");
            for (n, delivery) in entry.deliveries.iter().enumerate() {
                let durable = stored.progress.get(&(n as u16));
                hold!(21, durable == delivery.written.as_deref(), "{id} {n}");
            }
        }
        hold!(3, !self.asked.values().any(|a| matches!(a, Asked::Wait(_))), "someone waits still");
        self.count();
    }

    /// Without a restart the counters are the sum of the records.
    fn count(&self) {
        if self.books.restarted {
            return;
        }
        let mut sum = BTreeMap::new();
        for entry in self.books.messages.values() {
            for delivery in &entry.deliveries {
                let state = delivery.written.as_ref().map(|progress| progress.state);
                if state.is_some_and(|state| !state.settled()) {
                    continue;
                }
                *sum.entry(state.unwrap_or(pushyard::model::State::Failed)).or_default() += 1u64;
            }
        }
        hold!(23, sum == self.books.told, "told {:?}, written {sum:?}", self.books.told);
    }

    /// The next thing happens: one of the world's, or the engine's own time.
    fn step(&mut self) {
        self.keep_house();
        let wake = self.engine.wake_at(self.now);
        let next = self.schedule.first_key_value().map(|((at, _), _)| *at);
        if next.is_none_or(|next| wake < next) {
            // A task is woken late now and then.
            let late = if self.rng.random_bool(0.1) { self.rng.random_range(0..20) } else { 0 };
            self.advance(wake + Duration::from_millis(late));
            self.tick();
            return;
        }
        let (mut events, epoch) = (Vec::new(), self.epoch);
        while let Some(((at, _), happening)) = self.schedule.pop_first() {
            self.advance(at);
            self.happen(happening, &mut events);
            let soon = self.now.instant + Duration::from_millis(2);
            let more = self.schedule.first_key_value().is_some_and(|((at, _), _)| *at <= soon);
            // Sometimes a batch, as a driver that is behind would take.
            if !more || self.epoch != epoch || self.rng.random_bool(0.5) {
                break;
            }
        }
        if self.epoch != epoch {
            // Of a process that is gone.
            events.clear();
        }
        self.turn(events);
    }

    /// While calls are in flight the driver tells often enough whom it hears.
    fn keep_house(&mut self) {
        while !self.calls.is_empty() {
            let wake = self.engine.wake_at(self.now);
            let next = self.schedule.first_key_value().map_or(wake, |((at, _), _)| wake.min(*at));
            let due = self.told_heard + HOUSEKEEPING;
            if due >= next {
                return;
            }
            self.advance(due);
            let heard = self.listen();
            self.turn(heard);
        }
    }

    /// When each vendor was heard, of those that show it.
    fn listen(&mut self) -> Vec<Event> {
        self.told_heard = self.now.instant;
        let shows = |at: &usize| {
            let built = &self.setup.catalog.providers[*at];
            built.provider.profile().ping_interval.is_some()
        };
        let told = |at: usize| Event::Heard(ProviderIndex(at as u16), self.heard[at]);
        (0..self.vendors.len()).filter(shows).map(told).collect()
    }

    fn advance(&mut self, to: Instant) {
        let by = to.saturating_duration_since(self.now.instant);
        // Both clocks stay together only in whole milliseconds.
        let by = Duration::from_millis(by.as_nanos().div_ceil(1_000_000) as u64);
        self.now = self.now.plus(by);
    }

    fn tick(&mut self) {
        let calm = self.sight.flying() == 0;
        let mut events = self.listen();
        events.push(Event::Tick);
        let effects = self.turn(events);
        if !calm || effects > 0 {
            return;
        }
        self.idle_ticks.push_back(self.now.instant);
        let second = Duration::from_secs(1);
        while self.idle_ticks.front().is_some_and(|at| self.now.instant - *at > second) {
            self.idle_ticks.pop_front();
        }
        assert!(self.idle_ticks.len() < MOST_IDLE_TICKS, "the driver spins");
    }

    fn happen(&mut self, happening: Happening, events: &mut Vec<Event>) {
        if !matches!(happening, Happening::Flush(_)) {
            self.note(&format!("{happening:?}"));
        }
        match happening {
            Happening::Submit => {
                if self.chaos {
                    let pause = self.setup.pause.as_millis() as u64;
                    self.soon(0, 2 * pause + 1, Happening::Submit);
                    events.push(self.submit());
                }
            }
            Happening::Flush(epoch) if epoch == self.epoch => events.extend(self.flush()),
            Happening::Answer(epoch, attempt, answer) if epoch == self.epoch => {
                if let Some(Calling { pair, spoken: true, .. }) = self.calls.get(&attempt) {
                    self.heard[usize::from(pair.0)] = self.now.instant;
                }
                events.push(Event::Answered(attempt, answer));
            }
            Happening::Sounded(at) => {
                if self.vendors[at].lives() {
                    self.heard[at] = self.now.instant;
                }
            }
            Happening::Read(epoch, id) if epoch == self.epoch => {
                self.reads.remove(&id);
                let body = self.disk.messages.get(&id);
                events.push(Event::Read(id, body.map(|m| Body::new(m.body.message().clone()))));
            }
            Happening::Probed(epoch, provider, answer) if epoch == self.epoch => {
                events.push(Event::Probed(provider, answer));
            }
            Happening::Looked(epoch, id) if epoch == self.epoch => {
                events.push(Event::Found(id, self.disk.find(id).map(Box::new)));
            }
            // Of a process that is gone.
            Happening::Flush(_)
            | Happening::Looked(..)
            | Happening::Answer(..)
            | Happening::Read(..)
            | Happening::Probed(..) => {}
            Happening::Cancel => {
                self.soon(0, 6_000, Happening::Cancel);
                if let Some(id) = self.some_message().filter(|_| self.chaos) {
                    let token = self.ask(Asked::Cancel(id));
                    events.push(Event::Cancel(token, id));
                }
            }
            Happening::Receipt => {
                self.soon(0, 6_000, Happening::Receipt);
                if let Some(id) = self.any_delivery().filter(|_| self.chaos) {
                    let token = self.ask(Asked::Receipt(id));
                    events.push(Event::Receipt(token, id));
                }
            }
            Happening::Replay => {
                self.soon(0, 40_000, Happening::Replay);
                // An operator clicks twice now and then.
                let again = if self.rng.random_bool(0.2) { 2 } else { 1 };
                let id = self.any_delivery().filter(|_| self.chaos);
                for id in id.into_iter().cycle().take(again) {
                    let token = self.ask(Asked::Replay(id));
                    events.push(Event::Replay(token, id));
                }
            }
            Happening::Operate => {
                self.soon(0, 60_000, Happening::Operate);
                if self.chaos {
                    let order = self.some_order();
                    self.note(&format!("  {order:?}"));
                    events.push(Event::Operate(self.ask(Asked::Operate), order));
                }
            }
            Happening::Reload => {
                self.soon(0, 120_000, Happening::Reload);
                if self.chaos {
                    let providers = 0..self.setup.catalog.providers.len() as u16;
                    let changed =
                        providers.map(ProviderIndex).filter(|_| self.rng.random_bool(0.3));
                    let reconfigured = Reconfigured {
                        changed: changed.collect(),
                        catalog: self.setup.catalog.clone(),
                        settings: self.setup.settings,
                        limits: self.setup.limits,
                        subscribed: Vec::new(),
                    };
                    let token = self.ask(Asked::Operate);
                    events.push(Event::Reconfigured(token, Box::new(reconfigured)));
                }
            }
            Happening::Wait => {
                self.soon(0, 6_000, Happening::Wait);
                if let Some(id) = self.some_message().filter(|_| self.chaos) {
                    let token = self.ask(Asked::Wait(id));
                    events.push(Event::Wait(token, id));
                }
            }
            Happening::Look => {
                self.soon(0, 1_000 * if self.chaos { 1 } else { 60 }, Happening::Look);
                self.look();
            }
            Happening::Weather(at) => {
                if self.chaos {
                    self.soon(100, 60_000, Happening::Weather(at));
                    self.vendors[at].turn(&mut self.rng);
                    let weather = format!(
                        "{at}: {:?} {:?}",
                        self.vendors[at].weather, self.vendors[at].only_app
                    );
                    self.note(&weather);
                }
            }
            Happening::Capacity => {
                if self.chaos {
                    self.soon(0, 20_000, Happening::Capacity);
                }
                let at = self.rng.random_range(0..self.vendors.len());
                let streams = [None, Some(0), Some(10), Some(1000)][self.rng.random_range(0..4)];
                events.push(Event::Capacity(ProviderIndex(at as u16), streams));
            }
            Happening::StoreHealth => {
                if self.chaos {
                    self.soon(0, 60_000, Happening::StoreHealth);
                    let healths = [Health::Writable, Health::Writable, Health::Full];
                    self.store = healths[self.rng.random_range(0..3)];
                    events.push(Event::Store(self.store));
                }
            }
            Happening::Drain => {
                if self.chaos && !self.draining {
                    self.draining = true;
                    self.soon(0, 12_000, Happening::Drained(self.epoch));
                    events.push(Event::Drain);
                }
            }
            Happening::Drained(epoch) => {
                if epoch == self.epoch {
                    self.restart();
                }
            }
            Happening::Crash => {
                if self.chaos {
                    // Sometimes in the middle of the effects, sometimes between steps.
                    self.sight.doomed = true;
                    self.soon(1_000, 400_000, Happening::Crash);
                }
            }
        }
    }

    fn submit(&mut self) -> Event {
        let id = self.ids.next(self.now.utc, &mut self.rng);
        let message = self.setup.message(id, self.now.utc, &mut self.rng);
        let token = self.ask(Asked::Submit(id));
        Event::Submitted(token, Body::new(message))
    }

    fn ask(&mut self, asked: Asked) -> Token {
        let token = Token(self.tokens);
        self.tokens += 1;
        self.asked.insert(token.0, asked);
        token
    }

    /// A random prefix of what was handed over reaches the disk.
    fn flush(&mut self) -> Option<Event> {
        self.flush_due = false;
        let pending = self.disk.pending();
        if pending == 0 {
            return None;
        }
        let some = if self.rng.random() { pending } else { self.rng.random_range(1..=pending) };
        let (upto, records) = self.disk.flush(some);
        for record in &records {
            self.books.durable(record);
        }
        if some < pending {
            self.plan_flush();
        }
        Some(Event::Flushed(upto))
    }

    fn plan_flush(&mut self) {
        if !self.flush_due {
            self.flush_due = true;
            let most = [3, 10, 100, 700][self.rng.random_range(0..4)];
            self.soon(0, most, Happening::Flush(self.epoch));
        }
    }

    /// An attempt that was cut while it waited for its intent has made no call.
    fn answered(&mut self, attempt: AttemptId, answer: &Answer) {
        let Some(Calling { id, pair, .. }) = self.calls.remove(&attempt) else { return };
        self.books.answered(id, pair, answer.outcome, self.now);
        self.sight.answered(&self.books, id, pair, answer, self.now);
    }

    fn some_message(&mut self) -> Option<MessageId> {
        let live = self.books.live.len();
        if live == 0 {
            return None;
        }
        let at = self.rng.random_range(0..live);
        self.books.live.iter().nth(at).map(|id| id.message())
    }

    /// The same members in other tiers and with another balance. Only a broadcast may
    /// become one again: the books must know which messages are sent to many.
    fn some_override(&mut self, route: &Arc<str>, until: Option<Utc>) -> OverrideSpec {
        let catalog = &self.setup.catalog;
        let id = |at: ProviderIndex| catalog.provider(at).settings.id.to_string();
        let route = catalog.route(route).expect("it is one of the catalog's");
        let tiers = route.tiers.iter().rev().map(|tier| tier.iter().map(|m| id(m.provider)));
        let tiers = tiers.map(Iterator::collect).collect();
        let wide = route.balance == Balance::Broadcast;
        let balances = if wide { &Balance::ALL[..] } else { &Balance::ALL[..4] };
        let balance = balances[self.rng.random_range(0..balances.len())];
        let tiers = self.rng.random_bool(0.5).then_some(tiers);
        OverrideSpec { tiers, balance: Some(balance), until, ..OverrideSpec::default() }
    }

    fn some_order(&mut self) -> Operation {
        let catalog = self.setup.catalog.clone();
        let minute = self.now.utc.plus(Duration::from_secs(self.rng.random_range(1..120)));
        let until = self.rng.random_bool(0.7).then_some(minute);
        let route = catalog.routes[self.rng.random_range(0..catalog.routes.len())].name.clone();
        match self.rng.random_range(0..6) {
            0 => {
                let change = self.some_override(&route, until);
                let change = self.rng.random_bool(0.7).then_some(change);
                Operation::RouteOverride { route, change }
            }
            1 => Operation::RoutePause { route, paused: self.rng.random_bool(0.3) },
            n => {
                let at = self.rng.random_range(0..catalog.providers.len());
                let id = catalog.providers[at].settings.id.clone();
                let wish = [Wish::Drain, Wish::Eject, Wish::Resume, Wish::Resume][n - 2];
                Operation::Provider { id, wish, reason: Some("a test".to_owned()), until }
            }
        }
    }

    /// Some delivery of the last hundred messages, settled or not.
    fn any_delivery(&mut self) -> Option<DeliveryId> {
        let back = self.rng.random_range(0..100);
        let (id, entry) = self.books.messages.iter().rev().filter(|(_, e)| e.accepted).nth(back)?;
        let n = self.rng.random_range(0..entry.deliveries.len());
        Some(id.delivery(n as u16))
    }

    /// What can be seen of a message agrees with the books.
    fn look(&mut self) {
        let snapshot = self.engine.snapshot(self.now);
        let queue = snapshot.queue;
        hold!(23, queue.sending == self.sight.deliveries_flying() as u64, "{queue:?}");
        let Some(id) = self.some_message() else { return };
        let entry = self.books.entry(id);
        let seen = self.engine.live(id, self.now);
        for (n, delivery) in entry.deliveries.iter().enumerate() {
            let id = id.delivery(n as u16);
            let progress = seen.iter().find(|(place, _)| usize::from(*place) == n);
            if self.books.live.contains(&id) {
                let (_, progress) = progress.expect("an unsettled delivery can be seen");
                hold!(23, !progress.state.settled(), "{id} {progress:?}");
                let sending = progress.state == pushyard::model::State::Sending;
                hold!(23, sending == self.sight.flies(id), "{id} {progress:?}");
                hold!(23, self.engine.is_unsettled(id), "{id}");
            }
            hold!(23, progress.is_none_or(|(_, p)| !p.state.settled()), "{id} {delivery:?}");
        }
    }

    /// Gives the engine what has happened and carries out what it says. Returns
    /// the number of effects.
    fn turn(&mut self, events: Vec<Event>) -> usize {
        let mut effects = std::mem::take(&mut self.effects);
        for event in events {
            self.events += 1;
            if let Event::Answered(attempt, answer) = &event {
                self.answered(*attempt, answer);
            }
            self.sight.draining |= matches!(event, Event::Drain);
            let from = effects.len();
            self.engine.on(event, self.now, &mut effects);
            self.sight.inspect(&effects[from..], &self.engine, &self.books, self.now);
        }
        let from = effects.len();
        self.engine.pump(self.now, &mut effects);
        assert!(effects.len() < MOST_EFFECTS, "a pump without end");
        self.sight.inspect(&effects[from..], &self.engine, &self.books, self.now);
        self.sight.compare(&self.engine);
        let count = effects.len();
        for effect in effects.drain(..) {
            if self.sight.doomed && self.rng.random_bool(0.1) {
                self.crash();
                return count;
            }
            self.carry_out(effect);
        }
        self.effects = effects;
        if self.disk.pending() > 0 {
            self.plan_flush();
        }
        self.sight.watch(&self.engine, &self.books, &self.reads, self.now);
        count
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Write(record) => {
                self.note_record(&record);
                self.books.written(&record, self.now);
                self.disk.submit(record);
            }
            Effect::Accepted(token) => {
                let Some(Asked::Submit(id)) = self.asked.remove(&token.0) else {
                    panic!("nobody asked for {token:?}")
                };
                self.books.accepted(id, self.now);
            }
            Effect::Rejected(token, _) => {
                assert!(matches!(self.asked.remove(&token.0), Some(Asked::Submit(_))), "{token:?}");
            }
            Effect::Cancelled(token, _) => {
                let Some(Asked::Cancel(id)) = self.asked.remove(&token.0) else {
                    panic!("nobody asked for {token:?}")
                };
                self.books.cancelled(id);
            }
            Effect::Received(token, received) => {
                let Some(Asked::Receipt(id)) = self.asked.remove(&token.0) else {
                    panic!("nobody asked for {token:?}")
                };
                let durable = self.books.delivery(id).durable.as_ref();
                let noted = durable.is_some_and(|p| p.state == State::Delivered);
                hold!(1, noted == (received == Received::Noted), "{id} {received:?} {durable:?}");
            }
            Effect::Replayed(token, replayed) => {
                let Some(Asked::Replay(id)) = self.asked.remove(&token.0) else {
                    panic!("nobody asked for {token:?}")
                };
                let durable = self.books.delivery(id).durable.as_ref();
                let anew = durable.is_some_and(|p| p.replayed_at.is_some());
                hold!(1, anew || replayed != Replayed::Queued, "{id} {replayed:?} {durable:?}");
            }
            Effect::Operated(token, _) => {
                let asked = self.asked.remove(&token.0);
                assert!(matches!(asked, Some(Asked::Operate)), "nobody asked for {token:?}");
            }
            Effect::Catalog(_) => {}
            Effect::Look(id) => self.soon(0, 20, Happening::Looked(self.epoch, id)),
            Effect::Settled(token) => {
                let Some(Asked::Wait(id)) = self.asked.remove(&token.0) else {
                    panic!("nobody asked for {token:?}")
                };
                self.told_settled(id);
            }
            Effect::Call(order) => self.call(&order),
            Effect::Read(id) => {
                self.reads.insert(id);
                self.soon(0, 20, Happening::Read(self.epoch, id));
            }
            Effect::Probe(provider) => {
                let answer = self.vendors[provider.at()].probe(&mut self.rng);
                self.soon(5, 3_000, Happening::Probed(self.epoch, provider, answer));
            }
            Effect::Sound(provider) => self.soon(1, 100, Happening::Sounded(provider.at())),
            Effect::Cut(attempt, cut) => self.cut(attempt, &cut),
            Effect::Tell(Fact::Settled { delivery, state, reason, .. }) => {
                self.note(&format!("  told {delivery} {state:?} {reason:?}"));
                self.books.told(delivery, state, reason);
            }
            Effect::Tell(Fact::Moved(moved)) => self.note(&format!("  {moved:?}")),
            Effect::Tell(
                Fact::Attempted { .. } | Fact::FailedOver { .. } | Fact::Probed { .. },
            ) => {}
        }
    }

    /// Whoever waits for a message hears of it when its ends are on disk.
    fn told_settled(&self, id: MessageId) {
        let entry = self.books.entry(id);
        let memory = entry.body.message().durability == pushyard::model::Durability::Memory;
        for (n, delivery) in entry.deliveries.iter().enumerate() {
            let known = if memory { &delivery.written } else { &delivery.durable };
            let settled = known.as_ref().is_some_and(|progress| progress.state.settled());
            let born_failed = entry.body.message().recipients[n].no_route;
            let settled =
                settled || delivery.written.as_ref().is_some_and(|p| p.replayed_at.is_some());
            hold!(1, settled || born_failed, "{id} {n} is told to have settled");
        }
    }

    fn call(&mut self, order: &Order) {
        let message = order.body.message();
        let id = message.id.delivery(order.n);
        let provider = order.permit.provider();
        let pair = (provider.0, order.address);
        self.note(&format!("  call {id} at {pair:?}"));
        let built = self.setup.catalog.provider(provider).clone();
        let stop = message.on_ambiguous == pushyard::model::OnAmbiguous::Stop;
        let disk = message.durability == pushyard::model::Durability::Disk;
        hold!(2, !(stop && disk) || self.disk.has_intent(id), "{id} has no intent on disk");
        let never = message.now_or_never();
        assert_eq!(order.ttl.is_zero(), never, "{id} {:?}", order.ttl);
        let recipient = &message.recipients[usize::from(order.n)];
        let to = &recipient.addresses[usize::from(order.address)];
        let serves = self.setup.catalog.serves(provider, recipient, to);
        hold!(8, serves == pushyard::routing::Serves::Yes, "{id} at {pair:?}: {serves:?}");
        self.books.called(id, pair, &built.settings.id, built.provider.profile().dedup, self.now);
        let reaction = self.vendors[provider.at()].call(id, to, &mut self.rng);
        if reaction.taken {
            self.books.copied(id);
        }
        let written = reaction.spoken || reaction.answer.outcome == Outcome::Ambiguous;
        let calling = Calling { id, pair, spoken: reaction.spoken, written };
        self.calls.insert(order.attempt, calling);
        let ms = reaction.after.min(TIMEOUT).as_millis() as u64;
        self.soon(ms, ms + 1, Happening::Answer(self.epoch, order.attempt, reaction.answer));
    }

    /// The engine gives a call up: only where the vendor has been silent for long.
    fn cut(&mut self, attempt: AttemptId, cut: &Cut) {
        let Some(calling) = self.calls.get_mut(&attempt) else { return };
        calling.spoken = false;
        self.cuts += 1;
        let at = usize::from(calling.pair.0);
        let stall_after = self.setup.catalog.providers[at].settings.health.stall_after;
        let silent = self.now.instant.saturating_duration_since(self.heard[at]);
        let meant = *cut == Cut::Ejected || silent >= stall_after;
        assert!(meant, "{:?} is cut after {silent:?}", calling.id);
        let answer = cut.answer(calling.written);
        self.soon(0, 5, Happening::Answer(self.epoch, attempt, answer));
    }

    /// The process ends without order and another one begins.
    fn crash(&mut self) {
        self.note("CRASH");
        self.crashes += 1;
        self.disk.crash();
        self.books.crashed(self.disk.gone_since(), self.now);
        self.boot(false);
    }

    /// The process ends in order: what is in flight is cut and written down.
    fn restart(&mut self) {
        let mut attempts: Vec<AttemptId> = self.engine.attempts();
        attempts.sort_unstable();
        let epoch = self.epoch;
        self.turn(
            attempts
                .into_iter()
                .map(|at| Event::Answered(at, Cut::Shutdown.answer(true)))
                .collect(),
        );
        if self.epoch != epoch {
            return;
        }
        self.note("RESTART");
        let everything = self.disk.pending();
        let (_, records) = self.disk.flush(everything);
        for record in &records {
            self.books.durable(record);
        }
        let known = super::sight::known(&self.engine, self.now);
        self.disk.crash();
        self.books.crashed(self.disk.gone_since(), self.now);
        self.boot(true);
        super::sight::remembers(&known, &self.engine, self.now);
    }

    fn boot(&mut self, clean: bool) {
        self.epoch += 1;
        self.draining = false;
        self.flush_due = false;
        self.calls.clear();
        self.asked.clear();
        self.reads.clear();
        self.effects.clear();
        self.heard.fill(self.now.instant);
        self.store = Health::Writable;
        let down = Duration::from_millis(self.rng.random_range(100..20_000));
        self.advance(self.now.instant + down);
        self.recovers_twice(clean);
        self.engine = engine(&self.setup, self.now, &mut self.rng);
        let last_tries = self.sight.last_tries;
        self.sight = Sight::new(&self.setup, self.now);
        self.sight.last_tries = last_tries;
        self.books.restarted = true;
        let mut events = start(&self.disk, clean, self.is_safe());
        events.push(Event::Tick);
        if self.chaos {
            self.soon(1_000, 400_000, Happening::Drain);
        }
        self.turn(events);
    }

    /// Two starts on the same disk find the same, even when the first of them
    /// has written some of its records.
    fn recovers_twice(&mut self, clean: bool) {
        let first = self.recovered(&self.disk, clean).0;
        let (_, records) = self.recovered(&self.disk, clean);
        let mut disk = self.disk.clone();
        let some = self.rng.random_range(0..=records.len());
        records.into_iter().take(some).for_each(|record| disk.submit(record));
        disk.flush(some);
        let second = self.recovered(&disk, clean).0;
        for (id, live) in &first {
            let again = second.get(id);
            // An attempt that the crash cut settles a delivery that may not be
            // repeated; that record may be on disk by now.
            hold!(21, again.is_none_or(|again| again == live), "{id}: {live:?}, then {again:?}");
        }
        hold!(21, second.keys().all(|id| first.contains_key(id)), "more the second time");
    }

    #[expect(clippy::type_complexity, reason = "used once, and a name would say no more")]
    fn recovered(
        &self,
        disk: &Disk,
        clean: bool,
    ) -> (BTreeMap<DeliveryId, (u32, u16, u16, Option<Utc>)>, Vec<Record>) {
        let mut engine = engine(&self.setup, self.now, &mut StdRng::seed_from_u64(1));
        let mut effects = Vec::new();
        for event in start(disk, clean, self.is_safe()) {
            engine.on(event, self.now, &mut effects);
        }
        let records = effects.into_iter().filter_map(|effect| match effect {
            Effect::Write(record) => Some(record),
            _ => None,
        });
        let live = disk.messages.keys().flat_map(|id| {
            let live = engine.live(*id, self.now).into_iter();
            let unsettled = live.map(|(n, p)| (id.delivery(n), p));
            let figures =
                |p: pushyard::model::Progress| (p.tries, p.ambiguous, p.counted, p.next_at);
            unsettled
                .filter(|(id, _)| engine.is_unsettled(*id))
                .map(move |(id, p)| (id, figures(p)))
        });
        (live.collect(), records.collect())
    }

    /// Every third crash the suspects go alone.
    fn is_safe(&self) -> bool {
        self.crashes % 3 == 2
    }

    fn soon(&mut self, from_ms: u64, to_ms: u64, happening: Happening) {
        let after = Duration::from_millis(self.rng.random_range(from_ms..to_ms.max(from_ms + 1)));
        self.scheduled += 1;
        self.schedule.insert((self.now.instant + after, self.scheduled), happening);
    }

    fn note_record(&mut self, record: &Record) {
        match record {
            Record::Accept(body) => {
                let m = body.message();
                let text = format!(
                    "  accept {} x{} {} {:?} ttl {:?}",
                    m.id,
                    m.recipients.len(),
                    m.route,
                    m.on_ambiguous,
                    m.ttl
                );
                self.note(&text);
            }
            Record::Progress(id, p) => {
                let last = p.attempts.last().map(|a| (a.n, a.outcome));
                self.note(&format!(
                    "  {id} {:?} {:?} next {:?} last {last:?}",
                    p.state, p.reason, p.next_at
                ));
            }
            Record::Intent(id, intent) => self.note(&format!("  intent {id} {intent:?}")),
            Record::Settled(_) | Record::Event(..) => {}
            Record::Gone(gone) => self.note(&format!("  gone {:?}", gone.address)),
            Record::Healed(_) | Record::Device(..) | Record::Erase(..) => {}
            Record::Note(name, _) => self.note(&format!("  note {name}")),
        }
    }

    fn note(&mut self, text: &str) {
        if self.log.len() == self.shown {
            self.log.pop_front();
        }
        self.log.push_back(format!("{} {text}", self.now.utc.ms() - 1_760_000_000_000));
    }
}

fn engine(setup: &Setup, now: Now, rng: &mut StdRng) -> Engine {
    Engine::new(setup.catalog.clone(), setup.settings, setup.limits, now, rng.random())
}

/// What a process does first.
fn start(disk: &Disk, clean: bool, safe: bool) -> Vec<Event> {
    let careful = (!clean).then_some(Event::Careful { time: Duration::from_secs(60), safe });
    let notes = disk.remembered().into_iter().map(Event::Restored);
    let notes = notes.chain(disk.orders().into_iter().map(|(n, v)| Event::Ordered(n, v)));
    let messages = disk.recovered().into_iter().map(|found| Event::Recovered(Box::new(found)));
    let gone = disk.gone.values().cloned().map(Event::Gone);
    careful.into_iter().chain(notes).chain(gone).chain(messages).collect()
}
