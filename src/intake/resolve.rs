//! A draft meets the configuration: which provider can serve whom, and which
//! vendor can take the message at all.
//!
//! Both are known before anything is accepted, so a backend hears at once of what
//! could never arrive: what nobody can get is refused, what some cannot get is
//! accepted with a word about it. The payloads that are built to find out are
//! kept with the message; dispatch uses them.

use std::collections::BTreeMap;
use std::sync::Arc;

use pushyard_providers::{Address, Invalid, Push};
use smallvec::SmallVec;

use super::fault::{At, Fault, Faults, quoted};
use super::recipients::Recipients;
use crate::model::{Device, Encoded, MAX_DELIVERIES, Recipient, Unresolved, Warning};
use crate::routing::{Catalog, ProviderIndex, Route, Serves};

/// Providers of the route that serve somebody.
type Wanted = SmallVec<[ProviderIndex; 8]>;

/// What a draft's recipients and payloads come to.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) recipients: Vec<Recipient>,
    pub(super) unresolved: Vec<Unresolved>,
    pub(super) warnings: Vec<Warning>,
    /// By the serial number of the built provider.
    pub(super) encoded: SmallVec<[(u64, Encoded); 2]>,
}

/// What a message is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be sent: someone must be served.
    Send,
    /// To be explained: that nobody serves it is an answer, too.
    Look,
}

/// Resolves recipients and encodes once for each provider.
pub(super) fn resolve(
    to: Recipients,
    push: &Push,
    route: &Route,
    catalog: &Catalog,
    devices: &BTreeMap<String, Vec<Device>>,
    purpose: Purpose,
) -> Result<Resolved, Vec<Fault>> {
    let mut faults = Faults::default();
    let Recipients { devices: mut all, users } = to;
    let unresolved = expand(users, devices, &mut all, &mut faults);
    if all.len() > MAX_DELIVERIES {
        let detail = format!(
            "these users have {} devices and addresses together; a message has at most \
             {MAX_DELIVERIES} deliveries",
            all.len()
        );
        let mut faults = Faults::default();
        faults.push(At::Key(&At::Root, "to"), "out_of_range", detail);
        return Err(faults.into_inner());
    }
    let (recipients, wanted) = serve(all, route, catalog, &mut faults);
    let look = purpose == Purpose::Look && !recipients.is_empty();
    if wanted.is_empty() && !look {
        return Err(faults.into_inner());
    }
    let (encoded, warnings) = encode(push, &wanted, catalog)?;
    Ok(Resolved { recipients, unresolved, warnings, encoded })
}

/// Marks who cannot be served; the faults say why, in case it is everybody.
fn serve(
    devices: Vec<(u32, Recipient)>,
    route: &Route,
    catalog: &Catalog,
    faults: &mut Faults,
) -> (Vec<Recipient>, Wanted) {
    let (root, mut wanted) = (At::Root, Wanted::new());
    let to = At::Key(&root, "to");
    let mut recipients = Vec::with_capacity(devices.len());
    for (index, mut recipient) in devices {
        let mut nearest = Serves::OtherKind;
        for address in &recipient.addresses {
            for member in route.tiers.iter().flatten() {
                let serves = catalog.serves(member.provider, &recipient, address);
                nearest = nearer(nearest, serves);
                if serves == Serves::Yes && !wanted.contains(&member.provider) {
                    wanted.push(member.provider);
                }
            }
        }
        if nearest != Serves::Yes {
            recipient.no_route = true;
            let detail = no_route(nearest, &recipient, route);
            faults.push(At::Item(&to, index as usize), "no_route", detail);
        }
        recipients.push(recipient);
    }
    (recipients, wanted)
}

/// The one that tells more: an app that does not fit is nearer than a kind.
fn nearer(a: Serves, b: Serves) -> Serves {
    let rank = |serves| match serves {
        Serves::OtherKind => 0,
        Serves::OtherRegion => 1,
        Serves::OtherApp => 2,
        Serves::Yes => 3,
    };
    if rank(b) > rank(a) { b } else { a }
}

fn no_route(nearest: Serves, recipient: &Recipient, route: &Route) -> String {
    let mut kinds: Vec<&str> = recipient.addresses.iter().map(|a| a.kind().name).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let kinds = kinds.join(", ");
    let route = &route.name;
    match nearest {
        Serves::OtherRegion => {
            let region = quoted(recipient.region.as_deref().unwrap_or_default());
            format!("no provider of route \"{route}\" serves region {region} and one of: {kinds}")
        }
        Serves::OtherApp => format!(
            "no provider of route \"{route}\" has the app or project of these addresses ({kinds})"
        ),
        Serves::OtherKind | Serves::Yes => {
            let bound = recipient.addresses.iter().find_map(Address::provider);
            let bound = bound.map_or(String::new(), |id| {
                format!("; an address is bound to {}, which must be in the route", quoted(id))
            });
            format!("no provider of route \"{route}\" serves any of: {kinds}{bound}")
        }
    }
}

/// Each user becomes a recipient for each device, in the user's place; who has
/// none is told.
fn expand(
    users: Vec<(u32, String)>,
    devices: &BTreeMap<String, Vec<Device>>,
    all: &mut Vec<(u32, Recipient)>,
    faults: &mut Faults,
) -> Vec<Unresolved> {
    let root = At::Root;
    let to = At::Key(&root, "to");
    let mut unresolved = Vec::with_capacity(users.len());
    let any = !users.is_empty();
    for (index, user) in users {
        let known = devices.get(&user).map_or(&[][..], Vec::as_slice);
        all.extend(known.iter().map(|device| (index, recipient(&user, device))));
        if !known.is_empty() {
            continue;
        }
        let item = At::Item(&to, index as usize);
        faults.push(At::Key(&item, "user"), "no_devices", "this user has no devices");
        unresolved.push(Unresolved { index, user, reason: "no_devices".to_owned() });
    }
    if any {
        // Stable: devices of one user stay in their order.
        all.sort_by_key(|(index, _)| *index);
    }
    unresolved
}

fn recipient(user: &str, device: &Device) -> Recipient {
    Recipient {
        reference: Some(device.name.clone()),
        user: Some(user.to_owned()),
        region: device.region.clone(),
        addresses: device.addresses.clone(),
        no_route: false,
    }
}

type Payloads = SmallVec<[(u64, Encoded); 2]>;

/// A vendor that cannot take the message is a warning, and a fault when none can.
fn encode(
    push: &Push,
    wanted: &Wanted,
    catalog: &Catalog,
) -> Result<(Payloads, Vec<Warning>), Vec<Fault>> {
    let mut encoded = Payloads::new();
    let mut refused: Vec<(&'static str, Invalid)> = Vec::new();
    for index in wanted {
        let built = catalog.provider(*index);
        let payload = built.provider.encode(push).map(Arc::new);
        if let Err(invalid) = &payload {
            let told = (built.settings.kind, invalid.clone());
            // Two providers of a kind mostly refuse for the same reason.
            if !refused.contains(&told) {
                refused.push(told);
            }
        }
        encoded.push((built.serial, payload));
    }
    let told = |kind: &str, invalid: &Invalid| {
        format!("{kind} cannot take this message: {} ({})", invalid.detail, invalid.code)
    };
    if !encoded.is_empty() && encoded.iter().all(|(_, payload)| payload.is_err()) {
        let fault = |(kind, invalid): (&'static str, Invalid)| Fault {
            code: invalid.code,
            detail: told(kind, &invalid),
            pointer: invalid.pointer,
        };
        return Err(refused.into_iter().map(fault).collect());
    }
    let warning = |(kind, invalid): (&'static str, Invalid)| Warning {
        detail: told(kind, &invalid) + "; it is left out",
        pointer: invalid.pointer,
    };
    Ok((encoded, refused.into_iter().map(warning).collect()))
}
