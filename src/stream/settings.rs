//! `[stream]`: what is open and what is bounded follows from where the listener is.
//!
//! On a loopback address only this machine connects: people who try it out, tests,
//! or a proxy, behind which all devices are one address. So there nobody needs a
//! token and no bound counts addresses, unless the file says so.

use std::net::SocketAddr;
use std::time::Duration;

use pushyard_providers::Secret;
use pushyard_providers::stream::HubSettings;

use super::access::Access;
use crate::routing::Rate;

const MAX_SUBSCRIBERS: usize = 10_000;

/// A household or an office behind one address has tens of devices, a carrier's
/// NAT hundreds; a tenth of all leaves room for others [o].
const PER_ADDRESS: usize = 1000;

/// All devices behind one address may come back at once after a restart, and then
/// poll: ntfy's server gives each visitor 60 and 0.2 a second, which counts one
/// person and not a network [o].
const RATE: Rate = Rate { per_second: 5.0, burst: 300.0 };

/// `[stream]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where devices connect; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// Who may listen; `None`: whoever reaches a loopback address, else by token.
    pub access: Option<Access>,
    /// What tokens are made with; `None`: derived from the server's own.
    pub secret: Option<Secret>,
    /// Whether UnifiedPush senders may publish; `None`: where no token is needed.
    pub unifiedpush: Option<bool>,
    /// Whether who asks for what is scheduled is shown it before its time.
    pub scheduled: bool,
    /// The hub's bounds, but for what is counted by address.
    pub hub: HubSettings,
    /// `None`: see [`Settings::bounds`].
    pub max_subscribers_per_address: Option<usize>,
    /// `None`: see [`Settings::rate`].
    pub rate: Option<Rate>,
    /// Silence on a stream is broken after this long.
    pub keepalive: Duration,
}

impl Settings {
    /// Whether no token is needed.
    pub fn is_open(&self) -> bool {
        match self.access {
            Some(Access::Open) => true,
            Some(Access::Token) => false,
            None => self.is_near(),
        }
    }

    /// Whether UnifiedPush senders may publish.
    pub fn takes_unifiedpush(&self) -> bool {
        self.unifiedpush.unwrap_or_else(|| self.is_open())
    }

    /// The hub's bounds.
    pub fn bounds(&self) -> HubSettings {
        let all = self.hub.max_subscribers;
        let default = if self.is_near() { all } else { PER_ADDRESS.min(all) };
        HubSettings {
            max_subscribers_per_address: self.max_subscribers_per_address.unwrap_or(default),
            ..self.hub
        }
    }

    /// How often one address may ask; `None`: as often as it likes.
    pub fn rate(&self) -> Option<Rate> {
        self.rate.or_else(|| (!self.is_near()).then_some(RATE))
    }

    fn is_near(&self) -> bool {
        self.listen.is_none_or(|listen| listen.ip().is_loopback())
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: None,
            access: None,
            secret: None,
            unifiedpush: None,
            scheduled: true,
            hub: HubSettings {
                backlog: 1000,
                // As long as ntfy's own server keeps messages.
                backlog_ttl: Duration::from_secs(12 * 60 * 60),
                max_subscribers: MAX_SUBSCRIBERS,
                max_subscribers_per_address: MAX_SUBSCRIBERS,
                max_subscribers_per_topic: MAX_SUBSCRIBERS,
                // Three for each subscriber: its own, and two that it shares [o].
                max_topics: 3 * MAX_SUBSCRIBERS,
                max_topics_per_address: 30,
            },
            max_subscribers_per_address: None,
            rate: None,
            // ntfy's default: its Android app gives up after 77 s of silence, many
            // proxies after 60 s.
            keepalive: Duration::from_secs(45),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_can_reach_is_bounded_by_address_and_what_is_near_is_not() {
        let at = |listen: &str| Settings {
            listen: Some(listen.parse().unwrap()),
            ..Settings::default()
        };
        for (listen, open, per_address, rate) in [
            ("127.0.0.1:1", true, 10_000, None),
            ("[::1]:1", true, 10_000, None),
            ("0.0.0.0:1", false, 1000, Some(RATE)),
        ] {
            let settings = at(listen);
            assert_eq!((settings.is_open(), settings.takes_unifiedpush()), (open, open));
            assert_eq!(settings.bounds().max_subscribers_per_address, per_address, "{listen}");
            assert_eq!(settings.rate(), rate, "{listen}");
        }
        let few = HubSettings { max_subscribers: 7, ..Settings::default().hub };
        let settings = Settings { hub: few, unifiedpush: Some(true), ..at("0.0.0.0:1") };
        assert_eq!(settings.bounds().max_subscribers_per_address, 7);
        assert!(settings.takes_unifiedpush());
    }
}
