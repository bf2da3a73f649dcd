//! The way of one offered message from its bytes to the disk, shared by the single
//! call and by every line of a batch: parsing, idempotency, intake, rate, commit.
//!
//! The rate is counted last, for what is about to be taken: an answer that is only
//! given again costs nothing, and neither does a body with faults. What that work
//! may cost the server is bounded by `max_requests` and `max_body`, not by rates.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::Shared;
use super::auth::Caller;
use super::problem::{Code, Problem};
use crate::intake::idempotency::{self, Held, Taken};
use crate::intake::{self, Offered, json};
use crate::model::{Body, Device, Durability, Idempotency, MAX_DELIVERIES, Message, Trace, User};
use crate::store::{Store, StoreError};
use crate::telemetry::MessageResult;

/// A repeat waits so long for the first request with its key (docs/semantics.md).
const WAIT_FOR_FIRST: Duration = Duration::from_secs(5);

/// How often a message that is not waited for is looked for in the store.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A message that has been accepted.
pub(super) enum Submitted {
    /// Just now.
    New(Arc<Body>),
    /// By an earlier request with the same key and body.
    Replayed(Box<Message>),
}

impl Submitted {
    pub(super) fn message(&self) -> &Message {
        match self {
            Self::New(body) => body.message(),
            Self::Replayed(message) => message,
        }
    }

    pub(super) fn replayed(&self) -> bool {
        matches!(self, Self::Replayed(_))
    }
}

/// What came of asking for an idempotency key.
enum Claim {
    /// The message is new; the key is ours.
    First(Held),
    /// It has been here before.
    Replay(Box<Message>),
}

/// Commits that must be seen to their end though the client has hung up: until
/// then their key is not free.
#[derive(Debug, Default)]
pub(super) struct Commits(Mutex<JoinSet<()>>);

impl Commits {
    fn spawn(&self, commit: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.0.lock().expect("no code panics while it holds this lock");
        while running.try_join_next().is_some() {}
        running.spawn(commit);
    }
}

impl Shared {
    /// Takes a message, or says why not. Nothing of a refused message is kept.
    pub(super) async fn offer(
        &self,
        caller: &Arc<Caller>,
        header_key: Option<&str>,
        trace: Option<Trace>,
        bytes: &[u8],
    ) -> Result<Submitted, Problem> {
        if self.state.closed.is_cancelled() {
            return Err(Problem::shutting_down());
        }
        let node = json::parse(bytes, self.state.limits.max_json_depth)?;
        let idempotency = idempotency::named(header_key, &node)
            .map(|key| idempotency::hashes(caller.name(), &key, bytes));
        let held = match idempotency {
            None => None,
            Some(idempotency) => match self.claim(idempotency).await? {
                Claim::First(held) => Some(held),
                Claim::Replay(message) => return Ok(Submitted::Replayed(message)),
            },
        };
        let devices = self.devices_named(caller, &node).await?;
        let offered = Offered {
            client: caller.name(),
            routes: caller.routes(),
            header_key,
            devices: &devices,
            idempotency,
            trace,
        };
        let body = self.intake.prepare(&node, offered, &self.state.catalog.load())?;
        drop(node);
        caller.count_message()?;
        match held {
            None => self.state.dispatcher.submit(Arc::clone(&body)).await?,
            Some(held) => self.commit(Arc::clone(&body), held).await?,
        }
        if let Some(hub) = &self.state.stream_hub {
            intake::coming::expect(hub, body.message());
        }
        Ok(Submitted::New(body))
    }

    /// The devices of the users that a message names; mostly it names none.
    pub(super) async fn devices_named(
        &self,
        caller: &Caller,
        node: &json::Node<'_>,
    ) -> Result<BTreeMap<String, Vec<Device>>, Problem> {
        let users = intake::users_named(node);
        if users.is_empty() {
            return Ok(BTreeMap::new());
        }
        let (store, client) = (Arc::clone(&self.state.store), Arc::clone(caller.name()));
        blocking(move || {
            let mut found = BTreeMap::new();
            let mut left = MAX_DELIVERIES as u64 + 1;
            for name in users {
                let user = User { client: Arc::clone(&client), name };
                let devices = store.devices(&user)?;
                left = left.saturating_sub(devices.len() as u64);
                found.insert(user.name, devices);
                if left == 0 {
                    // More than a message may have: it will be refused.
                    break;
                }
            }
            Ok::<_, StoreError>(found)
        })
        .await?
        .map_err(Problem::from)
    }

    /// Counts what came of an offered message.
    pub(super) fn count(&self, caller: &Caller, result: Result<&Submitted, &Problem>) {
        let result = match result {
            Ok(Submitted::New(_)) => MessageResult::Accepted,
            Ok(Submitted::Replayed(_)) => MessageResult::Replayed,
            Err(problem) => problem.code().result(),
        };
        self.state.telemetry.message(caller.name(), result);
    }

    /// Takes the key, or finds the message that came with it.
    async fn claim(&self, idempotency: Idempotency) -> Result<Claim, Problem> {
        let held = tokio::time::timeout(WAIT_FOR_FIRST, self.hold(idempotency)).await;
        let held = held.unwrap_or_else(|_| {
            let detail = "the first request with this key has not been answered yet; repeat it";
            let problem = Problem::new(Code::IdempotencyInProgress, detail);
            Err(problem.retry_after(Duration::from_secs(1)))
        })?;
        let store = Arc::clone(&self.state.store);
        match blocking(move || found(&*store, &idempotency)).await?? {
            None => Ok(Claim::First(held)),
            Some(message) if message.idempotency == Some(idempotency) => {
                Ok(Claim::Replay(Box::new(message)))
            }
            Some(_) => Err(mismatch()),
        }
    }

    async fn hold(&self, idempotency: Idempotency) -> Result<Held, Problem> {
        loop {
            match self.in_progress.take(idempotency) {
                Taken::Held(held) => return Ok(held),
                Taken::Mismatch => return Err(mismatch()),
                // Ends when the holder lets go, whatever came of it.
                Taken::Busy(mut done) => while done.changed().await.is_ok() {},
            }
        }
    }

    /// Hands a message with a key over. In a task of its own, because the message
    /// may be taken though its client hangs up: a repeat that came in between
    /// would find the key free and nothing in the store yet.
    async fn commit(&self, body: Arc<Body>, held: Held) -> Result<(), Problem> {
        let (tell, told) = oneshot::channel();
        let (dispatcher, store) = (self.state.dispatcher.clone(), Arc::clone(&self.state.store));
        self.commits.spawn(async move {
            let result = dispatcher.submit(Arc::clone(&body)).await;
            let taken = result.is_ok();
            // Nobody listens when the client has hung up.
            let _ = tell.send(result);
            let message = body.message();
            if let (true, Durability::Memory, Some(idempotency)) =
                (taken, message.durability, message.idempotency)
            {
                // Answered before it was written: held until it can be found.
                let look = until_found(store, idempotency);
                let _ = tokio::time::timeout(WAIT_FOR_FIRST, look).await;
            }
            drop(held);
        });
        let result = told.await.map_err(|_| Problem::shutting_down())?;
        result.map_err(Problem::from)
    }
}

fn mismatch() -> Problem {
    let detail = "the same idempotency key came with another body within 24 h; \
                  repeat the first body, or take a new key";
    Problem::new(Code::IdempotencyMismatch, detail)
}

fn found(store: &dyn Store, idempotency: &Idempotency) -> Result<Option<Message>, StoreError> {
    match store.by_idempotency_key(&idempotency.key)? {
        Some(id) => store.message(id),
        None => Ok(None),
    }
}

async fn until_found(store: Arc<dyn Store>, idempotency: Idempotency) {
    loop {
        let store = Arc::clone(&store);
        let look = blocking(move || store.by_idempotency_key(&idempotency.key)).await;
        // A store that cannot be read is found out by those who need it.
        if !matches!(look, Ok(Ok(None))) {
            return;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Reads from the store on a thread that may wait for the disk.
///
/// # Errors
/// 500: the read itself failed by a fault of ours.
pub async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(read).await.map_err(|_| Problem::internal())
}
