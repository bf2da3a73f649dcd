//! `/v1/users`: devices that are kept, and forgetting a user.
//!
//! A registration is answered when it is on disk. Forgetting goes in rounds: what
//! is held is read, its deliveries are taken back, then it is erased in one
//! commit; and again, until nothing is held. So a message that is accepted in the
//! meantime is found by the next round, and a crash in the middle only means that
//! the call has to be repeated.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use pushyard_providers::Address;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use tokio::sync::{Mutex, MutexGuard};
use utoipa::ToSchema;

use super::Shared;
use super::auth::Caller;
use super::messages::json;
use super::problem::Problem;
use super::read::{self, Media, Segment, Segments};
use super::submit::blocking;
use crate::clock::Utc;
use crate::intake::{self, Fault, json as body_json};
use crate::model::{Device, MAX_DEVICES, Message, MessageId, User, gone_key};
use crate::store::{Record, Store, StoreError};

/// Messages that are erased in one round: one commit, about 10 ms.
const ROUND: usize = 256;

/// Registrations of one user one after the other, so that the bound of devices
/// holds; of different users mostly at once.
#[derive(Debug, Default)]
pub(super) struct Registering([Mutex<()>; 32]);

impl Registering {
    async fn of(&self, user: &User) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        user.hash(&mut hasher);
        // Below 32.
        self.0[(hasher.finish() % 32) as usize].lock().await
    }
}

/// A device as it is kept.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Device)]
pub(super) struct DeviceView<'a> {
    /// Its name; the `ref` of its deliveries.
    device: &'a str,
    /// The ways to reach it.
    #[schema(schema_with = super::openapi::requests::device_addresses)]
    addresses: Vec<AddressView<'a>>,
    /// Only providers of this region, or of none, may serve it.
    #[schema(required = true)]
    region: Option<&'a str>,
    /// Your own labels.
    metadata: &'a BTreeMap<String, String>,
    /// When it was put last.
    #[schema(format = DateTime)]
    updated_at: String,
}

/// A user and the devices that are kept.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
pub(super) struct UserView<'a> {
    /// The user.
    user: &'a str,
    /// By name.
    #[schema(value_type = Vec<DeviceView<'_>>)]
    devices: Vec<DeviceView<'a>>,
}

/// What was erased.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct Erased {
    /// The user.
    user: String,
    /// Devices.
    devices: u32,
    /// Messages that were to this user, alone or among others.
    messages: u32,
    /// Deliveries of these messages to this user.
    deliveries: u32,
    /// Of which so many were not yet sent and have been taken back.
    cancelled: u32,
    /// Of which so many were dead letters.
    dead_letters: u32,
}

#[derive(Debug)]
struct AddressView<'a> {
    address: &'a Address,
    gone: &'a [(Arc<str>, Utc)],
}

impl Serialize for AddressView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { address, gone } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", address.kind().name)?;
        for (name, value) in address.values() {
            map.serialize_entry(name, value)?;
        }
        if let Some(provider) = address.provider() {
            map.serialize_entry("provider", provider)?;
        }
        if let Some(at) = address.registered_at() {
            map.serialize_entry("registered_at", &Utc::from_ms(at).rfc3339())?;
        }
        if !gone.is_empty() {
            let at = gone.iter().map(|(provider, at)| (&**provider, at.rfc3339()));
            map.serialize_entry("gone", &at.collect::<BTreeMap<_, _>>())?;
        }
        map.end()
    }
}

/// A device, and where each of its addresses is gone.
struct Known {
    device: Device,
    gone: Vec<Vec<(Arc<str>, Utc)>>,
}

impl Known {
    fn view(&self) -> DeviceView<'_> {
        let Device { name, addresses, region, metadata, updated_at } = &self.device;
        let addresses = addresses.iter().zip(&self.gone);
        DeviceView {
            device: name,
            addresses: addresses.map(|(address, gone)| AddressView { address, gone }).collect(),
            region: region.as_deref(),
            metadata,
            updated_at: updated_at.rfc3339(),
        }
    }
}

/// Register a device.
///
/// Puts the whole of it: what was there before is replaced. An address that a vendor
/// declared gone is live again when it is registered anew.
#[utoipa::path(
    put,
    path = "/v1/users/{user}/devices/{device}",
    operation_id = "putDevice",
    tag = "users",
    request_body(content = ref("#/components/schemas/DeviceRequest")),
    responses(
        (status = 200, description = "Replaced.", body = DeviceView<'_>),
        (status = 201, description = "New.", body = DeviceView<'_>),
    )
)]
pub(super) async fn put_device(
    State(shared): State<Arc<Shared>>,
    Segments(user, name): Segments,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let caller = shared.state.authenticator.caller(&parts.headers)?;
    read::media(&parts.headers, Media::Json)?;
    let bytes = read::body(&parts.headers, body, &shared.state.limits).await?;
    let node = body_json::parse(&bytes, shared.state.limits.max_json_depth)?;
    let now = shared.state.clock.now().utc;
    let device = intake::device(&node, &name, now, &shared.state.catalog.load());
    drop(node);
    let names = [("user", &user), ("device", &name)];
    let faults = names.into_iter().filter_map(|(field, name)| intake::name_fault(field, name));
    let mut faults: Vec<Fault> = faults.collect();
    let device = match device {
        Ok(device) if faults.is_empty() => Arc::new(device),
        Ok(_) => return Err(Problem::invalid(faults)),
        Err(more) => {
            faults.extend(more);
            return Err(Problem::invalid(faults));
        }
    };
    let user = own(&caller, user);
    let _one_by_one = shared.registering.of(&user).await;
    let known = shared.devices(&user).await?;
    let new = known.iter().all(|known| known.name != name);
    if new && known.len() >= MAX_DEVICES {
        let detail = format!("a user has at most {MAX_DEVICES} devices; remove one first");
        let pointer = "/path/device".to_owned();
        return Err(Problem::invalid(vec![Fault { pointer, detail, code: "out_of_range" }]));
    }
    let record = Record::Device(user.clone(), name, Some(Arc::clone(&device)));
    shared.state.dispatcher.keep(vec![record]).await?;
    let known = shared.known(&user, vec![Device::clone(&device)]).await?;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(json(status, &known.first().map(Known::view)))
}

/// Show a device.
#[utoipa::path(
    get,
    path = "/v1/users/{user}/devices/{device}",
    operation_id = "getDevice",
    tag = "users",
    responses((status = 200, description = "The device.", body = DeviceView<'_>))
)]
pub(super) async fn show_device(
    State(shared): State<Arc<Shared>>,
    Segments(user, name): Segments,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let user = own(&*shared.state.authenticator.caller(&headers)?, user);
    let mut devices = shared.devices(&user).await?;
    devices.retain(|device| device.name == name);
    let known = shared.known(&user, devices).await?;
    let known = known.first().ok_or_else(no_device)?;
    Ok(json(StatusCode::OK, &known.view()))
}

/// Remove a device.
///
/// Messages that have been accepted for it are still delivered.
#[utoipa::path(
    delete,
    path = "/v1/users/{user}/devices/{device}",
    operation_id = "removeDevice",
    tag = "users",
    responses((status = 204, description = "Removed."))
)]
pub(super) async fn remove_device(
    State(shared): State<Arc<Shared>>,
    Segments(user, name): Segments,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let user = own(&*shared.state.authenticator.caller(&headers)?, user);
    let _one_by_one = shared.registering.of(&user).await;
    if shared.devices(&user).await?.iter().all(|device| device.name != name) {
        return Err(no_device());
    }
    shared.state.dispatcher.keep(vec![Record::Device(user, name, None)]).await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Show a user's devices.
#[utoipa::path(
    get,
    path = "/v1/users/{user}",
    operation_id = "getUser",
    tag = "users",
    responses((status = 200, description = "The user.", body = UserView<'_>))
)]
pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    Segment(name): Segment,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let user = own(&*shared.state.authenticator.caller(&headers)?, name);
    let devices = shared.devices(&user).await?;
    if devices.is_empty() {
        return Err(no_user());
    }
    let known = shared.known(&user, devices).await?;
    let view = UserView { user: &user.name, devices: known.iter().map(Known::view).collect() };
    Ok(json(StatusCode::OK, &view))
}

/// Forget a user.
///
/// Takes back what is not yet sent, and erases what is held: the devices, the
/// addresses and names in messages (the whole content where a message was for this
/// user alone), dead letters, and entries of the list of gone addresses. What is
/// addressed to a device by its address, and not by the user, is not known to be
/// this user's.
#[utoipa::path(
    delete,
    path = "/v1/users/{user}",
    operation_id = "eraseUser",
    tag = "users",
    responses((status = 200, description = "Nothing is held any more.", body = Erased))
)]
pub(super) async fn erase(
    State(shared): State<Arc<Shared>>,
    Segment(name): Segment,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let user = own(&*shared.state.authenticator.caller(&headers)?, name);
    let _one_by_one = shared.registering.of(&user).await;
    let mut erased = Erased { user: user.name.clone(), ..Erased::default() };
    let mut rounds = 0_u32;
    loop {
        let (store, whose) = (Arc::clone(&shared.state.store), user.clone());
        let held = blocking(move || store.held(&whose, ROUND)).await??;
        if held.devices == 0 && held.gone == 0 && held.messages.is_empty() {
            break;
        }
        rounds += 1;
        erased.devices += held.devices;
        for message in &held.messages {
            shared.take_back(&user, *message, &mut erased).await?;
        }
        let record = Record::Erase(user.clone(), held.messages);
        shared.state.dispatcher.keep(vec![record]).await?;
    }
    if rounds == 0 {
        return Err(no_user());
    }
    Ok(json(StatusCode::OK, &erased))
}

impl Shared {
    async fn devices(&self, user: &User) -> Result<Vec<Device>, Problem> {
        let (store, user) = (Arc::clone(&self.state.store), user.clone());
        Ok(blocking(move || store.devices(&user)).await??)
    }

    /// Looks where addresses are gone.
    async fn known(&self, user: &User, devices: Vec<Device>) -> Result<Vec<Known>, Problem> {
        let (store, client) = (Arc::clone(&self.state.store), Arc::clone(&user.client));
        let catalog = self.state.catalog.load_full();
        let gone_of = move |address: &Address| {
            let mut gone = Vec::new();
            for built in &catalog.providers {
                let settings = &built.settings;
                if settings.kind == address.kind().name
                    && let Some(at) = store.gone_at(gone_key(&client, &settings.id, address))?
                {
                    gone.push((Arc::clone(&settings.id), at));
                }
            }
            Ok::<_, StoreError>(gone)
        };
        let look = move || {
            let known = |device: Device| {
                let gone = device.addresses.iter().map(&gone_of).collect::<Result<_, _>>()?;
                Ok::<_, StoreError>(Known { device, gone })
            };
            devices.into_iter().map(known).collect::<Result<Vec<_>, _>>()
        };
        Ok(blocking(look).await??)
    }

    /// Takes back the user's deliveries of a message, and counts them.
    async fn take_back(
        &self,
        user: &User,
        id: MessageId,
        erased: &mut Erased,
    ) -> Result<(), Problem> {
        let (store, name) = (Arc::clone(&self.state.store), user.name.clone());
        let Some((places, dead)) = blocking(move || places(&*store, id, &name)).await?? else {
            return Ok(());
        };
        erased.messages += 1;
        // A message has at most MAX_DELIVERIES.
        erased.deliveries += places.len() as u32;
        erased.dead_letters += dead;
        erased.cancelled += self.state.dispatcher.cancel_part(id, places).await.cancelled;
        Ok(())
    }
}

/// The user's deliveries of a message and how many of them are dead letters. A
/// message that is not there, or cannot be read, has none.
fn places(
    store: &dyn Store,
    id: MessageId,
    user: &str,
) -> Result<Option<(Vec<u16>, u32)>, StoreError> {
    let message = match store.message(id) {
        Ok(Some(message)) => message,
        Ok(None) | Err(StoreError::Undecodable(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let places = places_of(&message, user);
    let dead = store.dead_of(id)?.iter().filter(|n| places.contains(n)).count();
    Ok(Some((places, dead as u32)))
}

fn places_of(message: &Message, user: &str) -> Vec<u16> {
    let recipients = message.recipients.iter().enumerate();
    let own = recipients.filter(|(_, recipient)| recipient.user.as_deref() == Some(user));
    own.map(|(n, _)| n as u16).collect()
}

fn own(caller: &Caller, name: String) -> User {
    User { client: Arc::clone(caller.name()), name }
}

fn no_user() -> Problem {
    Problem::not_found("nothing is held about a user of this name")
}

fn no_device() -> Problem {
    Problem::not_found("this user has no device of this name")
}
