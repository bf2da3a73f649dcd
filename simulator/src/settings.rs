//! What a simulator can be told before it starts.
//!
//! Everything has a default except the folder: the simulator writes private
//! keys there, and a place for those is never guessed. Ports default to 0, so
//! that any number of simulators run side by side.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// How a simulator is set up. [`Settings::in_dir`] gives the defaults.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the authority, the credentials and the router's configuration are
    /// written; keys that are already there are used again.
    pub dir: PathBuf,
    /// Where APNs listens.
    pub apns: SocketAddr,
    /// Where APNs' sandbox listens. It knows only device tokens whose text begins
    /// with `sandbox-`, and production knows none of those.
    pub apns_sandbox: SocketAddr,
    /// Where the same APNs listens a second time, as Apple does on port 2197 for
    /// networks that let nothing else through.
    pub apns_alternative: SocketAddr,
    /// Where APNs takes broadcasts to the channels of Live Activities.
    pub apns_broadcast: SocketAddr,
    /// Where APNs' channels are managed (2196 at Apple's).
    pub apns_channels: SocketAddr,
    /// Where APNs' sandbox takes broadcasts.
    pub apns_sandbox_broadcast: SocketAddr,
    /// Where the channels of APNs' sandbox are managed (2195 at Apple's).
    pub apns_sandbox_channels: SocketAddr,
    /// Where FCM and its token endpoint listen.
    pub fcm: SocketAddr,
    /// Where ntfy listens.
    pub ntfy: SocketAddr,
    /// Where Gotify listens.
    pub gotify: SocketAddr,
    /// Where the receiver of webhooks listens.
    pub webhook: SocketAddr,
    /// Where the control port listens.
    pub control: SocketAddr,
    /// `[server] listen` in the generated configuration.
    pub api_listen: String,
    /// `[admin] listen` in the generated configuration.
    pub admin_listen: String,
    /// Streams that an APNs connection may have open once it has proved its
    /// token; before that it is one (APNs documentation, "Establishing a
    /// token-based connection to APNs").
    pub apns_max_streams: u32,
    /// Whether an APNs connection is back to one stream after a refused push (410
    /// excepted) until the next one is taken, as observed in the field
    /// (jchambers/pushy issue 732).
    pub apns_one_stream_after_rejection: bool,
    /// Whether provider tokens may also be spelt as Apple tolerates it: plain or
    /// padded base64, DER signatures.
    pub apns_lenient_tokens: bool,
    /// Apps for which broadcasts are not enabled.
    pub apns_without_broadcast: Vec<String>,
    /// Topics that the account owns; empty means that every topic is its own.
    pub apns_topics: Vec<String>,
    /// How long a connection must stay with a provider token before it may
    /// bring another one.
    pub apns_token_interval: Duration,
    /// Streams that an FCM connection may have open: about what Google's front
    /// end allows.
    pub fcm_max_streams: u32,
    /// Messages a minute that the Firebase project may send; `None`: no limit.
    pub fcm_quota_per_minute: Option<u32>,
    /// Messages a minute that one device may get; `None`: no limit, so that a
    /// load test may use one token. Google's is 240 ("FCM throttling and quotas").
    pub fcm_device_per_minute: Option<u32>,
    /// How many more messages FCM takes in one second than it got in the second
    /// before; what is above gets 503, as those who do not ramp up are warned of
    /// ("Best practices when sending FCM messages at scale"). `None`: any number.
    pub fcm_ramp_per_second: Option<u32>,
    /// How long an FCM connection may be idle before it is closed with GOAWAY
    /// `session_timed_out`.
    pub fcm_idle: Duration,
    /// How far apart the PINGs on an FCM connection must be: the third that
    /// comes earlier gets GOAWAY `too_many_pings`.
    pub fcm_ping_spacing: Duration,
    /// `expires_in` of the access tokens, in seconds.
    pub token_expires_in: u64,
    /// Deliveries that the ledger remembers one by one; those beyond are only
    /// counted. One takes about 80 bytes.
    pub ledger_capacity: usize,
    /// Requests that are kept as received, for each vendor.
    pub request_log: usize,
    /// Seeds the draws of `share`, so that a run can be repeated.
    pub seed: u64,
}

impl Settings {
    /// The defaults: free ports on loopback, files in `dir`.
    pub fn in_dir(dir: impl Into<PathBuf>) -> Self {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            dir: dir.into(),
            apns: any_port,
            apns_sandbox: any_port,
            apns_alternative: any_port,
            apns_broadcast: any_port,
            apns_channels: any_port,
            apns_sandbox_broadcast: any_port,
            apns_sandbox_channels: any_port,
            fcm: any_port,
            ntfy: any_port,
            gotify: any_port,
            webhook: any_port,
            control: any_port,
            api_listen: "127.0.0.1:8080".to_owned(),
            admin_listen: "127.0.0.1:9090".to_owned(),
            apns_max_streams: 1000,
            apns_one_stream_after_rejection: false,
            apns_lenient_tokens: false,
            apns_without_broadcast: Vec::new(),
            apns_topics: Vec::new(),
            apns_token_interval: Duration::from_secs(20 * 60),
            fcm_max_streams: 100,
            fcm_quota_per_minute: None,
            fcm_device_per_minute: None,
            fcm_ramp_per_second: None,
            fcm_idle: Duration::from_secs(10 * 60),
            fcm_ping_spacing: Duration::from_secs(45),
            token_expires_in: 3599,
            ledger_capacity: 4_000_000,
            request_log: 1000,
            seed: 0,
        }
    }
}
