//! A stand-in for push vendors: APNs, FCM with its token endpoint, ntfy, Gotify, and
//! a receiver of webhooks.
//!
//! It speaks the vendors' protocols over real TLS and HTTP/2, checks what a
//! sender does as strictly as their documentation allows, fails on demand, and
//! keeps a ledger of what arrived. Tests judge the router by it, people rehearse
//! outages with it, and benchmarks run against it. Because it judges the
//! router's vendor modules it shares no code with them.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use pushyard_simulator::{Mode, Settings, start};
//!
//! let simulator = start(Settings::in_dir("simulated")).await?;
//! // … a router runs with the configuration that `announcement` names …
//! let control = simulator.control();
//! control.set_mode("apns", Mode::Blackhole).expect("apns is there");
//! assert_eq!(control.summary().lost, 0);
//! simulator.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod clock;
mod control;
mod faults;
mod identity;
mod ledger;
mod request_log;
mod server;
mod settings;
mod station;
mod vendor;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use control::{Control, RequestRecord, UnknownVendor, VendorStatus};
pub use faults::{Behaviour, Mode};
pub use ledger::{Arrival, Arrivals, Summary};
pub use settings::Settings;

use identity::Identity;
use ledger::Ledger;
use server::World;
use server::door::Door;
use server::tls::Offer;
use station::Station;
use vendor::apns::{Account, Apns, Host};
use vendor::apns_device::Environment;
use vendor::fcm::{Fcm, TOKEN_PATH};
use vendor::gotify::Gotify;
use vendor::ntfy::Ntfy;
use vendor::oauth::OAuth;
use vendor::webhook::Webhook;

/// Where a simulator is to be found: the one line that it announces itself with.
#[derive(Clone, Debug, Serialize)]
pub struct Announcement {
    /// The control port's URL.
    pub control: String,
    /// The certificate authority of all vendors, as a PEM file.
    pub ca_file: String,
    /// The vendors' origins, by name.
    pub vendors: BTreeMap<String, String>,
    /// A configuration for the router that uses them all.
    pub config: String,
}

/// A running simulator. Dropping it ends it; [`Simulator::shutdown`] also waits
/// until its ports are free.
pub struct Simulator {
    announcement: Announcement,
    control: Control,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Simulator {
    /// Where it is to be found.
    pub fn announcement(&self) -> &Announcement {
        &self.announcement
    }

    /// What the control port does, as calls.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Ends it: closes all connections and gives up the ports.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Starts a simulator; when this returns it answers on all its ports.
///
/// Fails when the folder cannot be written, when a key in it cannot be read, or
/// when a port is taken.
pub async fn start(settings: Settings) -> io::Result<Simulator> {
    let dir = settings.dir.clone();
    // Making an RSA key takes long enough to hold up a runtime.
    let identity = tokio::task::spawn_blocking(move || Identity::prepare(&dir))
        .await
        .map_err(io::Error::other)??;
    let dir = std::path::absolute(&settings.dir)?;

    let apns_door = Door::open(settings.apns)?;
    let alternative_door = Door::open(settings.apns_alternative)?;
    let broadcast_door = Door::open(settings.apns_broadcast)?;
    let channels_door = Door::open(settings.apns_channels)?;
    let sandbox_door = Door::open(settings.apns_sandbox)?;
    let sandbox_broadcast_door = Door::open(settings.apns_sandbox_broadcast)?;
    let sandbox_channels_door = Door::open(settings.apns_sandbox_channels)?;
    let fcm_door = Door::open(settings.fcm)?;
    let [ntfy_door, gotify_door, webhook_door] =
        [Door::open(settings.ntfy)?, Door::open(settings.gotify)?, Door::open(settings.webhook)?];
    let control_port = TcpListener::bind(settings.control).await?;
    let apns_origin = apns_door.origin();
    let broadcast_origin = broadcast_door.origin();
    let fcm_origin = fcm_door.origin();
    let ntfy_origin = ntfy_door.origin();
    let gotify_origin = gotify_door.origin();
    let webhook_origin = webhook_door.origin();

    let router = identity::Router {
        api_listen: &settings.api_listen,
        admin_listen: &settings.admin_listen,
        apns: &apns_origin,
        apns_broadcast: &broadcast_origin,
        fcm: &fcm_origin,
        ntfy: &ntfy_origin,
        gotify: &gotify_origin,
        webhook: &webhook_origin,
    };
    let config = identity.write_files(&dir, &router)?;
    let announcement = Announcement {
        control: format!("http://{}", control_port.local_addr()?),
        ca_file: shown(&std::path::absolute(&identity.ca_file)?),
        config: shown(&config),
        vendors: BTreeMap::from([
            ("apns".to_owned(), apns_origin),
            ("apns-alternative".to_owned(), alternative_door.origin()),
            ("apns-broadcast".to_owned(), broadcast_origin),
            ("apns-channels".to_owned(), channels_door.origin()),
            ("apns-sandbox".to_owned(), sandbox_door.origin()),
            ("apns-sandbox-broadcast".to_owned(), sandbox_broadcast_door.origin()),
            ("apns-sandbox-channels".to_owned(), sandbox_channels_door.origin()),
            ("fcm".to_owned(), fcm_origin.clone()),
            ("ntfy".to_owned(), ntfy_origin),
            ("gotify".to_owned(), gotify_origin),
            ("webhook".to_owned(), webhook_origin),
        ]),
    };

    let station = |name| Station::new(name, settings.request_log, settings.seed);
    let (ntfy, gotify, webhook) = (station("ntfy"), station("gotify"), station("webhook"));
    let mut stations =
        vec![station("apns"), station("fcm"), station("fcm-oauth"), station("apns-sandbox")];
    stations.extend([&ntfy, &gotify, &webhook].map(Arc::clone));
    let (broadcast, sandbox_broadcast) =
        (station("apns-broadcast"), station("apns-sandbox-broadcast"));
    stations.extend([&broadcast, &sandbox_broadcast].map(Arc::clone));
    let ledger = Arc::new(Ledger::new(settings.ledger_capacity));
    let account = |environment| Account::new(environment, identity.apns_keys.clone(), &settings);
    let (production, sandbox) = (account(Environment::Production), account(Environment::Sandbox));
    let oauth = OAuth::new(
        Arc::clone(&stations[2]),
        identity.account_key.clone(),
        format!("{fcm_origin}{TOKEN_PATH}"),
        settings.token_expires_in,
    );
    let fcm = Fcm::new(Arc::clone(&stations[1]), oauth, &settings);

    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    for station in &stations {
        let expiring = Arc::clone(station).expire_behaviours();
        let stop = stop.clone();
        tasks.spawn(async move { stop.run_until_cancelled(expiring).await.unwrap_or(()) });
    }
    let tls = server::tls::config(&identity, Offer::Http2)?;
    let apns = |station, host, account| {
        let vendor = Apns::new(station, host, account);
        Arc::new(World { vendor, ledger: Arc::clone(&ledger) })
    };
    let devices = apns(&stations[0], Host::Devices, &production);
    let apns_worlds = [
        (apns_door, Arc::clone(&devices)),
        (alternative_door, devices),
        (broadcast_door, apns(&broadcast, Host::Broadcasts, &production)),
        (channels_door, apns(&broadcast, Host::Channels, &production)),
        (sandbox_door, apns(&stations[3], Host::Devices, &sandbox)),
        (sandbox_broadcast_door, apns(&sandbox_broadcast, Host::Broadcasts, &sandbox)),
        (sandbox_channels_door, apns(&sandbox_broadcast, Host::Channels, &sandbox)),
    ];
    for (door, world) in apns_worlds {
        let stop = stop.clone();
        tasks.spawn(server::door::keep(door, tls.clone(), Offer::Http2, world, stop));
    }
    tasks.spawn(server::door::keep(
        fcm_door,
        server::tls::config(&identity, Offer::Either)?,
        Offer::Either,
        Arc::new(World { vendor: fcm, ledger: Arc::clone(&ledger) }),
        stop.clone(),
    ));
    let tls = server::tls::config(&identity, Offer::Either)?;
    let vendor = Ntfy::new(ntfy);
    let ntfy = Arc::new(World { vendor, ledger: Arc::clone(&ledger) });
    tasks.spawn(server::door::keep(ntfy_door, tls.clone(), Offer::Either, ntfy, stop.clone()));
    let vendor = Gotify::new(gotify);
    let gotify = Arc::new(World { vendor, ledger: Arc::clone(&ledger) });
    tasks.spawn(server::door::keep(gotify_door, tls.clone(), Offer::Either, gotify, stop.clone()));
    let vendor = Webhook::new(webhook, &identity.webhook_secrets);
    let webhook = Arc::new(World { vendor, ledger: Arc::clone(&ledger) });
    tasks.spawn(server::door::keep(webhook_door, tls, Offer::Either, webhook, stop.clone()));
    let control = Control::new(ledger, stations);
    tasks.spawn(control::http::serve(control_port, control.clone(), stop.clone()));
    Ok(Simulator { announcement, control, stop, tasks })
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
