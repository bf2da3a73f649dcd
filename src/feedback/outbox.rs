//! Tells clients what became of their deliveries, from the store: at least once,
//! also after kill -9.
//!
//! Each client with events has a worker of its own, so that one whose server is
//! down holds up nobody else. A worker reads its client's events in order, has a
//! few posts under way at once, and removes an event when the client's server has
//! answered 2xx. What fails is tried again later while the others go on; when too
//! much waits for its time, no more is read: it is safe where it is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pushyard_providers::http::client::Client;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::target::{NotTaken, Poster, Target};
use crate::clock::Clock;
use crate::model::{EventId, EventKinds, Reason};
use crate::store::{OutboxEvent, Store, Write};
use crate::telemetry::{EventResult, Telemetry};

/// Posts under way at once for one client.
const AT_ONCE: usize = 8;

/// Events read from the store in one go.
const PAGE: usize = 64;

/// Events of one client that may wait for their next try in memory.
const WAITING: usize = 256;

/// Delays before the second try, the third and so on, then the last again
/// (*Standard Webhooks*, "Deliverability and reliability"). Each is drawn within
/// a tenth around it.
const DELAYS: [Duration; 8] = [
    Duration::from_secs(5),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(5 * 3600),
    Duration::from_secs(10 * 3600),
    Duration::from_secs(14 * 3600),
    Duration::from_secs(20 * 3600),
];

/// An event that cannot be told for so long is dropped.
const LIFE: Duration = Duration::from_secs(72 * 3600);

/// A server that takes nothing at all is tried again this often, so that it does
/// not have to wait for hours when it is back.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// After so many failures in a row a server is down, and when it answers again
/// all that waits is due.
const DOWN: u32 = 8;

/// A client that wants to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscriber {
    /// Its name.
    pub client: Arc<str>,
    /// Where its server is.
    pub target: Target,
    /// Of what.
    pub kinds: EventKinds,
}

/// What the outbox works with.
#[derive(Clone)]
pub struct OutboxParts {
    /// Where the events are.
    pub store: Arc<dyn Store>,
    /// Makes the posts.
    pub http: Client,
    /// Counts what came of them.
    pub telemetry: Arc<Telemetry>,
    /// The time.
    pub clock: Arc<Clock>,
    /// Notified when there are new events on disk.
    pub arrived: Arc<Notify>,
}

/// Runs until `stop`: a worker for each subscriber, made anew when they change.
/// Events of clients that are no subscribers any more are dropped.
pub async fn run(
    parts: OutboxParts,
    mut subscribers: watch::Receiver<Vec<Subscriber>>,
    stop: CancellationToken,
) {
    loop {
        let wanted = subscribers.borrow_and_update().clone();
        drop_strangers(&parts, &wanted).await;
        let (mut workers, mut wakes) = (JoinSet::new(), Vec::new());
        let round = stop.child_token();
        for subscriber in &wanted {
            match Poster::new(&parts.http, &subscriber.target) {
                Ok(poster) => {
                    let wake = Arc::new(Notify::new());
                    wakes.push(wake.clone());
                    let worker = Worker::new(parts.clone(), subscriber, poster, wake);
                    workers.spawn(worker.run(round.clone()));
                }
                Err(detail) => tracing::error!(client = &*subscriber.client, detail, "no events"),
            }
        }
        let changed = loop {
            tokio::select! {
                () = stop.cancelled() => break false,
                changed = subscribers.changed() => break changed.is_ok(),
                () = parts.arrived.notified() => wakes.iter().for_each(|wake| wake.notify_one()),
            }
        };
        round.cancel();
        while workers.join_next().await.is_some() {}
        if !changed {
            return;
        }
    }
}

/// Nobody will ever ask for these.
async fn drop_strangers(parts: &OutboxParts, wanted: &[Subscriber]) {
    let Some(clients) = read(&parts.store, |store| store.event_clients()).await else { return };
    let known = |client: &Arc<str>| wanted.iter().any(|subscriber| subscriber.client == *client);
    for client in clients.into_iter().filter(|client| !known(client)) {
        let mut dropped = 0;
        loop {
            let of = client.clone();
            let page = read(&parts.store, move |store| store.events(&of, None, 4096)).await;
            let ids: Vec<EventId> = page.into_iter().flatten().map(|event| event.id).collect();
            if ids.is_empty() {
                break;
            }
            dropped += ids.len();
            if parts.store.write(vec![Write::EventsDone(client.clone(), ids)]).await.is_err() {
                return;
            }
        }
        tracing::warn!(client = &*client, dropped, "events of a client that wants none any more");
    }
}

/// Reads from the store on a thread that may wait; what cannot be read now is
/// read later.
async fn read<T: Send + 'static>(
    store: &Arc<dyn Store>,
    read: impl FnOnce(&dyn Store) -> Result<T, crate::store::StoreError> + Send + 'static,
) -> Option<T> {
    let store = store.clone();
    let read = tokio::task::spawn_blocking(move || read(&*store)).await.ok()?;
    read.inspect_err(|error| tracing::error!(%error, "events cannot be read")).ok()
}

/// An event and how often it was tried.
#[derive(Debug)]
struct Telling {
    event: OutboxEvent,
    tries: usize,
}

struct Worker {
    parts: OutboxParts,
    client: Arc<str>,
    poster: Arc<Poster>,
    wake: Arc<Notify>,
    /// Read up to here.
    read_upto: Option<EventId>,
    /// There may be more to read.
    more: bool,
    ready: VecDeque<OutboxEvent>,
    waiting: BTreeMap<(Instant, EventId), Telling>,
    posts: JoinSet<(Telling, Result<(), NotTaken>)>,
    /// Failures since the last success.
    failures: u32,
    last_try: Instant,
}

impl Worker {
    fn new(parts: OutboxParts, subscriber: &Subscriber, poster: Poster, wake: Arc<Notify>) -> Self {
        let last_try = parts.clock.now().instant;
        Self {
            parts,
            client: subscriber.client.clone(),
            poster: Arc::new(poster),
            wake,
            read_upto: None,
            more: true,
            ready: VecDeque::new(),
            waiting: BTreeMap::new(),
            posts: JoinSet::new(),
            failures: 0,
            last_try,
        }
    }

    async fn run(mut self, stop: CancellationToken) {
        let wake = self.wake.clone();
        loop {
            self.fill().await;
            let next = tokio::time::Instant::from_std(self.next_try());
            let may_wait = self.posts.len() < AT_ONCE;
            tokio::select! {
                () = stop.cancelled() => break,
                Some(Ok((telling, result))) = self.posts.join_next() => self.ended(telling, result),
                () = wake.notified() => self.more = true,
                () = tokio::time::sleep_until(next), if may_wait => {}
            }
        }
        // Posts under way may still be answered; the rest is told after the next start.
        while let Some(Ok((telling, result))) = self.posts.join_next().await {
            self.ended(telling, result);
        }
    }

    /// Begins as many posts as may be under way.
    async fn fill(&mut self) {
        while self.posts.len() < AT_ONCE {
            if let Some(telling) = self.due() {
                self.post(telling);
            } else if let Some(event) = self.ready.pop_front() {
                self.post(Telling { event, tries: 0 });
            } else if self.more && self.waiting.len() < WAITING {
                self.read().await;
            } else {
                return;
            }
        }
    }

    /// One that has waited long enough.
    fn due(&mut self) -> Option<Telling> {
        let now = self.parts.clock.now().instant;
        let first = self.waiting.first_key_value().map(|((at, _), _)| *at)?;
        let stuck = self.stuck() && now.saturating_duration_since(self.last_try) >= LOOK_AGAIN;
        (first <= now || stuck).then(|| self.waiting.pop_first()).flatten().map(|(_, next)| next)
    }

    fn next_try(&self) -> Instant {
        let now = self.parts.clock.now().instant;
        let later = now + 60 * LOOK_AGAIN;
        let first = self.waiting.first_key_value().map_or(later, |((at, _), _)| *at);
        if self.stuck() { first.min(self.last_try + LOOK_AGAIN) } else { first }
    }

    /// Nothing is taken, and nothing more is read.
    fn stuck(&self) -> bool {
        self.failures >= DOWN && !self.waiting.is_empty()
    }

    async fn read(&mut self) {
        self.more = false;
        let (client, after) = (self.client.clone(), self.read_upto);
        let page = read(&self.parts.store, move |store| store.events(&client, after, PAGE)).await;
        let Some(page) = page else { return };
        self.more = page.len() == PAGE;
        self.read_upto = page.last().map(|event| event.id).or(self.read_upto);
        self.ready.extend(page);
    }

    fn post(&mut self, telling: Telling) {
        let now = self.parts.clock.now();
        self.last_try = now.instant;
        let poster = self.poster.clone();
        self.posts.spawn(async move {
            let (id, body) = (telling.event.id.to_string(), body(&telling.event));
            let result = poster.post(&id, body, now.utc).await;
            (telling, result)
        });
    }

    fn ended(&mut self, telling: Telling, result: Result<(), NotTaken>) {
        match result {
            Ok(()) => self.told(&telling),
            Err(not_taken) => self.failed(telling, &not_taken),
        }
    }

    fn told(&mut self, telling: &Telling) {
        self.parts.telemetry.client_event(&self.client, EventResult::Told);
        self.done(telling.event.id);
        if self.failures >= DOWN {
            tracing::info!(client = &*self.client, "its server takes events again");
            let now = self.parts.clock.now().instant;
            let waiting = std::mem::take(&mut self.waiting);
            self.waiting = waiting.into_iter().map(|((_, id), next)| ((now, id), next)).collect();
        }
        self.failures = 0;
    }

    fn failed(&mut self, mut telling: Telling, not_taken: &NotTaken) {
        let now = self.parts.clock.now();
        self.failures = self.failures.saturating_add(1);
        if self.failures == DOWN {
            let detail = &not_taken.detail;
            tracing::warn!(client = &*self.client, detail, "its server does not take events");
        }
        let id = telling.event.id;
        if now.utc.since(id.at()) >= LIFE {
            self.parts.telemetry.client_event(&self.client, EventResult::Dropped);
            tracing::warn!(client = &*self.client, event = %id, "event was never taken; dropped");
            self.done(id);
            return;
        }
        self.parts.telemetry.client_event(&self.client, EventResult::Failed);
        tracing::debug!(client = &*self.client, event = %id, detail = not_taken.detail, "event");
        let delay = DELAYS[telling.tries.min(DELAYS.len() - 1)];
        let delay = delay.mul_f64(0.9 + 0.2 * rand::random::<f64>());
        let delay = delay.max(not_taken.retry_after.unwrap_or_default()).min(LIFE);
        telling.tries += 1;
        self.waiting.insert((now.instant + delay, id), telling);
    }

    fn done(&self, id: EventId) {
        // Should it not reach the disk, it is told once more.
        drop(self.parts.store.write(vec![Write::EventsDone(self.client.clone(), vec![id])]));
    }
}

/// What is posted; the same bytes every time.
fn body(event: &OutboxEvent) -> Bytes {
    let metadata: serde_json::Map<String, serde_json::Value> =
        event.metadata.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    let mut data = json!({
        "message": event.delivery.message().to_string(),
        "delivery": event.delivery.to_string(),
        "ref": event.reference,
        "state": event.state.word(),
        "reason": event.reason.map(Reason::word),
        "provider": event.provider,
        "metadata": metadata,
    });
    if let Some((kind, token)) = &event.address {
        data["kind"] = json!(kind);
        data["token"] = json!(token);
    }
    let body = json!({
        "type": event.kind.word(),
        "timestamp": event.id.at().rfc3339(),
        "data": data,
    });
    body.to_string().into()
}

#[cfg(test)]
mod tests {
    use pushyard_providers::Secret;

    use super::super::target::http_client;
    use super::*;
    use crate::clock::Utc;
    use crate::model::{DeliveryEvent, EventKind, State};
    use crate::store::{Record, Settings, embedded};

    /// A store in a folder of its own, with one event of "shop" of this moment.
    fn store_with_event(at: Utc) -> (tempfile::TempDir, Arc<dyn Store>) {
        let folder = tempfile::tempdir().unwrap();
        let settings =
            Settings { path: folder.path().join("data"), min_free: 0, ..Settings::default() };
        let clock = Clock::default();
        let flushed = Box::new(|_| {});
        let (store, _) = embedded::open(&settings, Arc::new(move || clock.now()), flushed).unwrap();
        let event = DeliveryEvent {
            id: EventId::from_u128(0).after(at, 1),
            kind: EventKind::Sent,
            delivery: "0197f000-0000-7000-8000-000000000001".parse().unwrap(),
            state: State::Sent,
            reason: None,
            provider: None,
            address: None,
        };
        store.submit(vec![Record::Event("shop".into(), Box::new(event))]);
        store.write(Vec::new()).blocking_recv().unwrap();
        assert_eq!(store.figures().events, 1);
        (folder, store)
    }

    /// Nobody listens there.
    fn nobody() -> Subscriber {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        let target = Target::new(&format!("http://{address}/"), secret, false).unwrap();
        Subscriber { client: "shop".into(), target, kinds: EventKinds::ALL }
    }

    /// Runs the outbox until nothing is left to tell; what was counted.
    fn run_until_empty(store: &Arc<dyn Store>, subscribers: Vec<Subscriber>) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let clock = Arc::new(Clock::default());
        let telemetry = Arc::new(Telemetry::new(clock.clone()));
        let parts = OutboxParts {
            store: store.clone(),
            http: http_client().unwrap(),
            telemetry: telemetry.clone(),
            clock,
            arrived: Arc::default(),
        };
        let (_subscribers, subscribed) = watch::channel(subscribers);
        runtime.block_on(async {
            let empty = async {
                while store.figures().events > 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::select! {
                () = run(parts, subscribed, CancellationToken::new()) => {}
                ended = tokio::time::timeout(Duration::from_secs(30), empty) => ended.unwrap(),
            }
        });
        let scrape = crate::telemetry::Scrape::default();
        String::from_utf8(telemetry.metrics().scrape(&scrape)).unwrap()
    }

    #[test]
    fn an_event_that_was_never_taken_is_dropped_in_the_end_and_counted() {
        let old = Utc::from_ms(Clock::default().now().utc.ms() - crate::clock::millis(LIFE) - 1);
        let (_folder, store) = store_with_event(old);
        let metrics = run_until_empty(&store, vec![nobody()]);
        let counted = "pushyard_client_events_total{client=\"shop\",result=\"dropped\"} 1";
        assert!(metrics.contains(counted), "{metrics}");
    }

    #[test]
    fn events_of_a_client_that_wants_none_any_more_are_dropped() {
        let (_folder, store) = store_with_event(Clock::default().now().utc);
        let metrics = run_until_empty(&store, Vec::new());
        assert!(!metrics.contains("pushyard_client_events_total{"));
    }
}
