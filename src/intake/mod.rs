//! A request becomes one message and its deliveries, or hears all that is wrong
//! with it. Knows nothing of HTTP: front doors of other products come here too.
//!
//! In order: `json` reads the body strictly, `validate` and `recipients` check
//! every field, `resolve` matches recipients with providers and encodes, and
//! [`Intake::prepare`] gives the result its id. `idempotency` answers whether the
//! message has been here before.

pub mod coming;
mod device;
mod fault;
pub mod idempotency;
pub mod json;
mod recipients;
mod resolve;
pub mod time;
mod validate;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use rand::SeedableRng;
use rand::rngs::StdRng;

pub use device::{CancelFilter, DEVICE_FIELDS, cancel_filter, device, name_fault};
pub use fault::Fault;
pub use recipients::{
    ADDRESS_FIELDS, MAX_ADDRESSES, MAX_RECIPIENTS, RECIPIENT_FIELDS, users_named,
};
pub use validate::{FIELDS, NOTIFICATION_FIELDS};

use crate::clock::Clock;
use crate::model::{Body, Device, IdGenerator, Idempotency, Message, MessageId, Trace};
use crate::routing::Catalog;
use json::Node;
use resolve::Purpose;
use validate::Rules;

/// Makes messages of requests.
#[derive(Debug)]
pub struct Intake {
    ids: Mutex<(IdGenerator, StdRng)>,
    clock: Arc<Clock>,
}

/// Who offers a message, and under which key.
#[derive(Clone, Copy, Debug)]
pub struct Offered<'a> {
    /// The client.
    pub client: &'a Arc<str>,
    /// The routes that it may name; `None`: all.
    pub routes: Option<&'a [Arc<str>]>,
    /// The key of the header `Idempotency-Key`.
    pub header_key: Option<&'a str>,
    /// The devices of the users that it names, see [`users_named`].
    pub devices: &'a BTreeMap<String, Vec<Device>>,
    /// The key's and the body's hashes, when there is a key.
    pub idempotency: Option<Idempotency>,
    /// The trace that the call is part of.
    pub trace: Option<Trace>,
}

/// Why a request does not become a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// All that is wrong with it.
    Faults(Vec<Fault>),
    /// It names a route that is not for this client.
    RouteForbidden(Arc<str>),
}

impl Intake {
    /// Ids take their time from `clock` and their chance from `rng`.
    pub fn new(clock: Arc<Clock>, rng: StdRng) -> Self {
        Self { ids: Mutex::new((IdGenerator::default(), rng)), clock }
    }

    /// The message that a body asks for, accepted at this moment, with the
    /// payloads of the vendors that will be used.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn prepare(
        &self,
        body: &Node<'_>,
        offered: Offered<'_>,
        catalog: &Catalog,
    ) -> Result<Arc<Body>, Refusal> {
        self.read(body, offered, catalog, Purpose::Send, || self.next_id())
    }

    /// The same of a message that is only looked at: it has an id of no meaning,
    /// and may be one that nobody could get.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn rehearse(
        &self,
        body: &Node<'_>,
        offered: Offered<'_>,
        catalog: &Catalog,
    ) -> Result<Arc<Body>, Refusal> {
        let id = || {
            let mut rng = StdRng::seed_from_u64(0);
            IdGenerator::default().next(self.clock.now().utc, &mut rng)
        };
        self.read(body, offered, catalog, Purpose::Look, id)
    }

    fn read(
        &self,
        body: &Node<'_>,
        offered: Offered<'_>,
        catalog: &Catalog,
        purpose: Purpose,
        id: impl FnOnce() -> MessageId,
    ) -> Result<Arc<Body>, Refusal> {
        let rules = Rules { catalog, now: self.clock.now().utc, header_key: offered.header_key };
        let draft = validate::validate(body, rules).map_err(Refusal::Faults)?;
        let route = draft.route;
        if offered.routes.is_some_and(|allowed| !allowed.contains(&route.name)) {
            return Err(Refusal::RouteForbidden(route.name.clone()));
        }
        let (to, devices) = (draft.to, offered.devices);
        let resolved = resolve::resolve(to, &draft.push, route, catalog, devices, purpose)
            .map_err(Refusal::Faults)?;
        let message = Message {
            id: id(),
            client: Arc::clone(offered.client),
            route: Arc::clone(&route.name),
            deliver_at: draft.deliver_at,
            ttl: draft.ttl,
            on_ambiguous: draft.on_ambiguous,
            durability: draft.durability,
            push: draft.push,
            recipients: resolved.recipients,
            metadata: draft.metadata,
            idempotency: offered.idempotency,
            warnings: resolved.warnings,
            unresolved: resolved.unresolved,
            trace: offered.trace,
        };
        Ok(Body::encoded(message, resolved.encoded))
    }

    fn next_id(&self) -> MessageId {
        let mut ids = self.ids.lock().expect("no code panics while it holds this lock");
        let (ids, rng) = &mut *ids;
        // Read under the lock, so that later ids never hold an earlier time.
        ids.next(self.clock.now().utc, rng)
    }
}
