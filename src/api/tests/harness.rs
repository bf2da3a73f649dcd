//! A router over a driver and a store that do as a test says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, Method, Request, StatusCode};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use pushyard_providers::stream::Tokens;
use pushyard_providers::template::{Filling, Slot};
use pushyard_providers::{
    Address, Answer, Call, Dedup, Gauge, Invalid, Outcome, Parts, Payload, ProbeProfile, Profile,
    Proves, Provider, Push, Template, VendorRequest,
};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::api::{ApiState, Authenticator, Client, KeyHash, routers};
use crate::clock::{Clock, Utc};
use crate::dispatch::{
    Cancelled, Command, Dispatcher, Engine, Limits, Received, Rejected, Replayed, Settings,
};
use crate::feedback::Receipts;
use crate::model::{self, DeliveryId, Device, EventId, Gone, Message, MessageId, Progress, User};
use crate::routing::{
    Balance, Built, Catalog, HealthSettings, Member, ProviderIndex, ProviderSettings, Rate,
    RetrySettings, Route,
};
use crate::store::{
    Actions, DeadFilter, DeadLetters, Figures, Health, Held, OutboxEvent, Record, Recovered, Store,
    StoreError, Write,
};
use crate::telemetry::{Scrape, Telemetry};

/// A title that apns of this house does not take.
pub(super) const TOO_LARGE_FOR_APNS: &str = "too large for apns";

/// A title at which encoding panics.
pub(super) const PANICS: &str = "panics";

/// The smallest message.
pub(super) const SMALL: &str =
    r#"{"to":[{"addresses":[{"kind":"fcm","token":"t1"}]}],"data":{"a":"b"}}"#;

struct TestProvider {
    profile: Profile,
    app: Option<&'static str>,
}

impl Provider for TestProvider {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn serves(&self, address: &Address) -> bool {
        address.get("app").is_none_or(|app| Some(app) == self.app)
    }

    fn parts(&self, _: &Address) -> Parts {
        Parts::new()
    }

    fn encode(&self, push: &Push) -> Result<Payload, Invalid> {
        let title = push.notification.as_ref().and_then(|n| n.title.as_deref());
        assert_ne!(title, Some(PANICS), "as the test wants it");
        if self.profile.kind == "apns" && title == Some(TOO_LARGE_FOR_APNS) {
            let detail = "the payload has 5000 bytes, at most 4096 are taken".to_owned();
            return Err(Invalid::new("too_large", detail));
        }
        if push.overrides.get(self.profile.kind).is_some_and(|patch| patch.contains("refused")) {
            let pointer = format!("/overrides/{}/refused", self.profile.kind);
            return Err(Invalid::at("override", pointer, "is refused"));
        }
        let body = serde_json::json!({"to": Slot::Address.marker(), "title": title});
        Ok(Payload { body: Template::new(&body), headers: Vec::new(), detail: None })
    }

    fn request(&self, call: &Call) -> Result<VendorRequest, Invalid> {
        let token = call.address.get("token").unwrap_or_default();
        let filling = Filling { address: token, delivery: "", pushyard: "", ttl: 0, expires_at: 0 };
        let uri = format!("https://{}.example/send/{token}", self.profile.kind);
        let pushyard = call.pushyard.parse().unwrap();
        Ok(VendorRequest {
            method: Method::POST,
            uri: uri.parse().unwrap(),
            headers: [(HeaderName::from_static("x-push"), pushyard)].into_iter().collect(),
            body: call.payload.body.render(&filling),
        })
    }

    fn send<'a>(&'a self, _: &'a Call) -> BoxFuture<'a, Answer> {
        async { Answer::new(Outcome::Accepted) }.boxed()
    }

    fn refresh(&self, _: u64) -> BoxFuture<'_, bool> {
        async { false }.boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Answer> {
        async { Answer::new(Outcome::Accepted) }.boxed()
    }

    fn gauge(&self) -> Gauge {
        Gauge::default()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

fn built(
    serial: u64,
    id: &str,
    kind: &'static str,
    app: Option<&'static str>,
    region: Option<&str>,
) -> Built {
    let probe = ProbeProfile {
        proves: Proves::Nothing,
        min_interval: Duration::from_secs(10),
        only_when_quiet: true,
    };
    let profile = Profile {
        kind,
        dedup: Dedup::None,
        min_retry: Duration::from_secs(1),
        probe,
        ping_interval: None,
    };
    let settings = ProviderSettings {
        id: id.into(),
        kind,
        region: region.map(Arc::from),
        max_in_flight: 10,
        rate: None,
        cost_per_million: 0.0,
        budget: None,
        timeout: Duration::from_secs(10),
        retry: RetrySettings::default(),
        health: HealthSettings::default(),
        probe: None,
    };
    let provider = Arc::new(TestProvider { profile, app });
    Built { settings: Arc::new(settings), provider, serial, retired: false }
}

/// `default`: apns (app com.example.shop) and fcm; `europe`: fcm-eu of region eu.
fn catalog() -> Catalog {
    let member = |at: &u16| Member { provider: ProviderIndex(*at), weight: 1.0 };
    let route = |name: &str, providers: &[u16]| Route {
        name: name.into(),
        tiers: vec![providers.iter().map(member).collect()],
        balance: Balance::default(),
    };
    Catalog {
        providers: vec![
            built(1, "apns", "apns", Some("com.example.shop"), None),
            built(2, "fcm", "fcm", None, None),
            built(3, "fcm-eu", "fcm", None, Some("eu")),
        ],
        routes: vec![route("default", &[0, 1]), route("europe", &[2])],
    }
}

type Reply = oneshot::Sender<Result<(), Rejected>>;

/// What a test says to the driver, and what the store holds.
#[derive(Default)]
pub(super) struct World {
    /// Answers to submissions, first come first served; then all are taken.
    pub(super) rejections: Vec<Rejected>,
    /// Submissions are not answered while this is set.
    pub(super) hold: bool,
    /// What the dispatcher says of each message.
    pub(super) live: BTreeMap<MessageId, Vec<(u16, Progress)>>,
    /// What a cancellation finds.
    pub(super) cancelled: Cancelled,
    /// What the store has of each message.
    pub(super) progress: BTreeMap<MessageId, Vec<(u16, Progress)>>,
    pub(super) messages: BTreeMap<MessageId, Message>,
    pub(super) submissions: usize,
    pub(super) devices: BTreeMap<((String, String), String), Device>,
    /// By moment.
    pub(super) gone: Vec<Gone>,
    /// Deliveries that were taken back in part.
    pub(super) taken_back: Vec<(MessageId, Vec<u16>)>,
    keys: BTreeMap<[u8; 16], MessageId>,
    held: Vec<(Arc<model::Body>, Reply)>,
    waiting: Vec<oneshot::Sender<()>>,
    /// Deliveries that devices say they have.
    pub(super) receipts: Vec<DeliveryId>,
}

impl World {
    fn submit(&mut self, body: Arc<model::Body>, reply: Reply) {
        self.submissions += 1;
        if self.hold {
            self.held.push((body, reply));
            return;
        }
        let rejected = (!self.rejections.is_empty()).then(|| self.rejections.remove(0));
        if rejected.is_none() {
            self.take(body.message().clone());
        }
        let _ = reply.send(rejected.map_or(Ok(()), Err));
    }

    fn take(&mut self, message: Message) {
        if let Some(idempotency) = message.idempotency {
            self.keys.insert(idempotency.key, message.id);
        }
        self.messages.insert(message.id, message);
    }

    fn keep(&mut self, record: Record) {
        match record {
            Record::Device(user, name, device) => {
                let key = ((user.client.to_string(), user.name), name);
                match device {
                    Some(device) => drop(self.devices.insert(key, Device::clone(&device))),
                    None => drop(self.devices.remove(&key)),
                }
            }
            Record::Erase(user, messages) => {
                let own = (user.client.to_string(), user.name.clone());
                self.devices.retain(|(owner, _), _| *owner != own);
                for id in messages {
                    self.messages.entry(id).and_modify(|message| message.erase(&user.name));
                }
            }
            other => panic!("not from the api: {other:?}"),
        }
    }

    /// Takes the submissions that were held.
    pub(super) fn release(&mut self) {
        self.hold = false;
        for (body, reply) in std::mem::take(&mut self.held) {
            self.take(body.message().clone());
            let _ = reply.send(Ok(()));
        }
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Tells those who wait that everything has settled.
    pub(super) fn settle(&mut self) {
        for reply in self.waiting.drain(..) {
            let _ = reply.send(());
        }
    }
}

struct FakeStore(Arc<Mutex<World>>);

impl Store for FakeStore {
    fn submit(&self, _: Vec<Record>) {}

    fn message(&self, id: MessageId) -> Result<Option<Message>, StoreError> {
        Ok(self.0.lock().unwrap().messages.get(&id).cloned())
    }

    fn progress(&self, id: MessageId) -> Result<Vec<(u16, Progress)>, StoreError> {
        Ok(self.0.lock().unwrap().progress.get(&id).cloned().unwrap_or_default())
    }

    fn by_idempotency_key(&self, key: &[u8; 16]) -> Result<Option<MessageId>, StoreError> {
        Ok(self.0.lock().unwrap().keys.get(key).copied())
    }

    fn recover(&self, each: &mut dyn FnMut(Recovered)) -> Result<(), StoreError> {
        for message in self.0.lock().unwrap().messages.values().cloned() {
            each(Recovered { message, progress: Vec::new(), intents: Vec::new() });
        }
        Ok(())
    }

    fn newest(
        &self,
        before: Option<MessageId>,
        each: &mut dyn FnMut(Message, usize) -> bool,
    ) -> Result<(), StoreError> {
        let world = self.0.lock().unwrap();
        let older = |(id, _): &(&MessageId, &Message)| before.is_none_or(|before| **id < before);
        for (_, message) in world.messages.iter().rev().filter(older) {
            if !each(message.clone(), 100) {
                break;
            }
        }
        Ok(())
    }

    fn devices(&self, user: &User) -> Result<Vec<Device>, StoreError> {
        let devices = self.0.lock().unwrap().devices.clone();
        let own = devices
            .into_iter()
            .filter(|((owner, _), _)| *owner == (user.client.to_string(), user.name.clone()));
        Ok(own.map(|(_, device)| device).collect())
    }

    fn held(&self, user: &User, most: usize) -> Result<Held, StoreError> {
        let devices = self.devices(user)?.len() as u32;
        let world = self.0.lock().unwrap();
        let of_user = |message: &&Message| {
            message.client == user.client && message.users().contains(&&*user.name)
        };
        let messages = world.messages.values().filter(of_user).map(|message| message.id);
        Ok(Held { devices, gone: 0, messages: messages.take(most).collect() })
    }

    fn gone(
        &self,
        after: (Utc, u128),
        each: &mut dyn FnMut(Gone) -> bool,
    ) -> Result<(), StoreError> {
        let world = self.0.lock().unwrap();
        for gone in world.gone.iter().filter(|gone| (gone.at, gone.key()) > after) {
            if !each(gone.clone()) {
                break;
            }
        }
        Ok(())
    }

    fn gone_at(&self, key: u128) -> Result<Option<Utc>, StoreError> {
        let world = self.0.lock().unwrap();
        Ok(world.gone.iter().find(|gone| gone.key() == key).map(|gone| gone.at))
    }

    fn dead_of(&self, message: MessageId) -> Result<Vec<u16>, StoreError> {
        let failed =
            |(n, progress): (u16, Progress)| (progress.state == model::State::Failed).then_some(n);
        Ok(self.progress(message)?.into_iter().filter_map(failed).collect())
    }

    fn server_key(&self) -> [u8; 32] {
        [0; 32]
    }

    fn health(&self) -> Health {
        Health::Writable
    }

    fn figures(&self) -> Figures {
        Figures::default()
    }

    fn write(&self, _: Vec<Write>) -> oneshot::Receiver<()> {
        oneshot::channel().1
    }

    fn events(
        &self,
        _: &str,
        _: Option<EventId>,
        _: usize,
    ) -> Result<Vec<OutboxEvent>, StoreError> {
        Ok(Vec::new())
    }

    fn event_clients(&self) -> Result<Vec<Arc<str>>, StoreError> {
        Ok(Vec::new())
    }

    fn dead_letters(
        &self,
        _: &DeadFilter,
        _: Option<DeliveryId>,
        _: usize,
    ) -> Result<DeadLetters, StoreError> {
        Ok(DeadLetters::default())
    }

    fn is_dead(&self, _: DeliveryId) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn actions(&self, _: Option<u64>, _: usize) -> Result<Actions, StoreError> {
        Ok(Actions::default())
    }

    fn commit_times(&self) -> Vec<(u32, Duration)> {
        Vec::new()
    }

    fn close(&self) {}
}

/// As every house here knows them.
pub(super) fn receipts() -> Receipts {
    Receipts::new(&[7; 32])
}

/// How a house differs from the usual one.
#[derive(Default)]
pub(super) struct Setup {
    pub(super) clients: Vec<Client>,
    pub(super) limits: Limits,
}

/// A router and the world behind it.
pub(super) struct House {
    pub(super) router: Router,
    pub(super) world: Arc<Mutex<World>>,
    pub(super) closed: CancellationToken,
    pub(super) clock: Arc<Clock>,
    telemetry: Arc<Telemetry>,
    _driver: JoinSet<()>,
}

impl House {
    pub(super) fn new(setup: Setup) -> Self {
        let world: Arc<Mutex<World>> = Arc::default();
        let (commands, inbox) = mpsc::channel(64);
        let mut driver = JoinSet::new();
        driver.spawn(drive(inbox, Arc::clone(&world)));
        let (clock, closed) = (Arc::new(Clock::default()), CancellationToken::new());
        let telemetry = Arc::new(Telemetry::new(Arc::clone(&clock)));
        let (router, _) = routers(ApiState {
            stream_tokens: Some(Arc::new(Tokens::new(b"secret"))),
            stream_hub: None,
            catalog: Arc::new(ArcSwap::from_pointee(catalog())),
            dispatcher: Dispatcher::new(commands),
            store: Arc::new(FakeStore(Arc::clone(&world))),
            authenticator: Arc::new(Authenticator::new(setup.clients, &clock)),
            receipts: Arc::new(receipts()),
            clock: Arc::clone(&clock),
            limits: setup.limits,
            closed: closed.clone(),
            telemetry: Arc::clone(&telemetry),
        });
        Self { router, world, closed, telemetry, clock, _driver: driver }
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answered {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answered { status: parts.status, headers: parts.headers, body: body.to_vec() }
    }

    pub(super) async fn post(&self, body: impl Into<Body>) -> Answered {
        self.send(post("/v1/messages", body)).await
    }

    pub(super) async fn get(&self, path: &str) -> Answered {
        self.send(request(Method::GET, path, Body::empty())).await
    }

    /// The metrics as text.
    pub(super) fn metrics(&self) -> String {
        let text = self.telemetry.metrics().scrape(&Scrape {
            usable_tiers: Vec::new(),
            providers: Vec::new(),
            queue: [("queued", 0), ("sending", 0), ("waiting", 0)],
            oldest: Vec::new(),
            store_bytes: 0,
            stream: Default::default(),
            dead_letters: 0,
            events_pending: 0,
        });
        String::from_utf8(text).unwrap()
    }

    /// The counter `pushyard_messages_total` of a client and a result.
    pub(super) fn counted(&self, client: &str, result: &str) -> u64 {
        let name = format!("pushyard_messages_total{{client=\"{client}\",result=\"{result}\"}} ");
        let text = self.metrics();
        let value = text.lines().find_map(|line| line.strip_prefix(&name));
        value.map_or(0, |value| value.parse().unwrap())
    }
}

async fn drive(mut inbox: mpsc::Receiver<Command>, world: Arc<Mutex<World>>) {
    while let Some(command) = inbox.recv().await {
        let mut world = world.lock().unwrap();
        match command {
            Command::Submit(body, reply) => world.submit(body, reply),
            Command::Cancel(_, reply) => drop(reply.send(world.cancelled)),
            Command::Operate(_, reply) | Command::Reconfigure(_, reply) => {
                reply.send(Ok(())).ok();
            }
            Command::CancelPart(id, places, reply) => {
                let cancelled = places.len() as u32;
                world.taken_back.push((id, places));
                let _ = reply.send(Cancelled { cancelled, in_flight: 0 });
            }
            Command::Keep(records, reply) => {
                let rejected = (!world.rejections.is_empty()).then(|| world.rejections.remove(0));
                if rejected.is_none() {
                    records.into_iter().for_each(|record| world.keep(record));
                }
                let _ = reply.send(rejected.map_or(Ok(()), Err));
            }
            Command::Wait(_, reply) => world.waiting.push(reply),
            Command::Receipt(id, reply) => {
                world.receipts.push(id);
                let _ = reply.send(Received::Noted);
            }
            Command::Replay(_, reply) => {
                let _ = reply.send(Replayed::Unknown);
            }
            Command::Live(id, reply) => {
                drop(reply.send(world.live.get(&id).cloned().unwrap_or_default()));
            }
            Command::Explain(asked, reply) => {
                let now = Clock::default().now();
                let (settings, limits) = (Settings::default(), Limits::default());
                let engine = Engine::new(Arc::new(catalog()), settings, limits, now, 7);
                let _ = reply.send(engine.explain(&asked, now));
            }
        }
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answered {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Status and code, and that it is a problem at all.
    pub(super) fn problem(&self) -> (u16, String) {
        let problem = self.json();
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{problem}");
        assert_eq!(problem["status"], self.status.as_u16(), "{problem}");
        let code = problem["code"].as_str().unwrap().to_owned();
        assert_eq!(problem["type"], format!("urn:pushyard:problem:{code}"));
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
        (self.status.as_u16(), code)
    }
}

pub(super) fn request(method: Method, path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder().method(method).uri(path).body(body.into()).unwrap()
}

pub(super) fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    with(request(Method::POST, path, body), "content-type", "application/json")
}

pub(super) fn with(mut request: Request<Body>, name: &'static str, value: &str) -> Request<Body> {
    request.headers_mut().append(name, value.parse().unwrap());
    request
}

pub(super) fn client(name: &str) -> Client {
    let keys = vec![KeyHash::of(format!("key-{name}").as_bytes()).into()];
    Client { name: name.into(), keys, rate: None, routes: None, admin: false }
}

pub(super) fn slow_client(name: &str, per_second: f64) -> Client {
    Client { rate: Some(Rate { per_second, burst: 1.0 }), ..client(name) }
}

/// Yields until the condition holds.
pub(super) async fn until(mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("in 30 s");
}
