//! What the configuration says about providers and routes, resolved.

use std::sync::Arc;
use std::time::Duration;

/// A provider's position in the configuration: how the core names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProviderIndex(pub u16);

impl ProviderIndex {
    /// For indexing.
    pub const fn at(self) -> usize {
        self.0 as usize
    }
}

/// What the core knows of a configured provider.
#[derive(Clone, Debug, PartialEq)]
pub struct ProviderSettings {
    /// Its id.
    pub id: Arc<str>,
    /// Its kind's name.
    pub kind: &'static str,
    /// Recipients with another region never go there.
    pub region: Option<Arc<str>>,
    /// Calls at once, at most.
    pub max_in_flight: u32,
    /// Calls a second, at most.
    pub rate: Option<Rate>,
    /// Money for a million accepted calls.
    pub cost_per_million: f64,
    /// Money that may be spent.
    pub budget: Option<Budget>,
    /// For one attempt.
    pub timeout: Duration,
    /// When to try again there.
    pub retry: RetrySettings,
    /// When it is taken out and let in again.
    pub health: HealthSettings,
    /// The active probe; `None`: off.
    pub probe: Option<ProbeSettings>,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Tokens that come in a second.
    pub per_second: f64,
    /// Tokens that may be saved up.
    pub burst: f64,
}

/// Money that may be spent at a provider.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// In one period.
    pub amount: f64,
    /// UTC days or months.
    pub period: Period,
    /// When it is spent: never call there again, instead of only as a last resort.
    pub hard: bool,
}

/// A budget's period, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// From midnight to midnight.
    Day,
    /// A calendar month.
    Month,
}

/// `retry` of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetrySettings {
    /// Not the same delivery again before; `None`: as the adapter says.
    pub min_delay: Option<Duration>,
    /// A vendor's Retry-After is honoured up to this.
    pub throttle_cap: Duration,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self { min_delay: None, throttle_cap: Duration::from_secs(24 * 3600) }
    }
}

/// `health` of a provider. The numbers' reasons are in docs/semantics.md, "Provider health".
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HealthSettings {
    /// Failures in a row that eject.
    pub consecutive_failures: u32,
    /// Length of the passive window.
    pub window: Duration,
    /// Ratio and latency never act on fewer samples.
    pub min_samples: u32,
    /// Success ratio that ejects.
    pub eject_below: f64,
    /// Success ratio that degrades.
    pub degraded_below: f64,
    /// Success ratio that ends being degraded.
    pub recover_above: f64,
    /// Latency (p95) that degrades.
    pub slow_above: Duration,
    /// Silence that means a stall.
    pub stall_after: Duration,
    /// First ejection.
    pub base_ejection: Duration,
    /// Longest ejection.
    pub max_ejection: Duration,
    /// Canaries in a row that must succeed.
    pub canary_successes: u32,
    /// Ramp after probation.
    pub slow_start: Duration,
    /// Share of AddressGone above which none is believed.
    pub mass_gone_above: f64,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            window: Duration::from_secs(30),
            min_samples: 20,
            eject_below: 0.5,
            degraded_below: 0.9,
            recover_above: 0.95,
            slow_above: Duration::from_secs(2),
            stall_after: Duration::from_secs(2),
            base_ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            canary_successes: 3,
            slow_start: Duration::from_secs(30),
            mass_gone_above: 0.5,
        }
    }
}

/// `probe` of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeSettings {
    /// Between two probes of a provider that is not ejected.
    pub interval: Duration,
    /// Between two probes of an ejected one.
    pub ejected_interval: Duration,
    /// For one probe.
    pub timeout: Duration,
}

impl Default for ProbeSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(15),
            ejected_interval: Duration::from_secs(5),
            timeout: Duration::from_secs(3),
        }
    }
}

/// A named policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Its name.
    pub name: Arc<str>,
    /// Members of each tier, best tier first.
    pub tiers: Vec<Vec<Member>>,
    /// How a tier's members share.
    pub balance: Balance,
}

/// A provider in a tier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Member {
    /// Which.
    pub provider: ProviderIndex,
    /// Its share; 1 unless configured.
    pub weight: f64,
}

/// How a tier's members share the work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// By weight, and a device stays with its provider.
    Weighted,
    /// In turn.
    RoundRobin,
    /// The quicker of two drawn at random.
    #[default]
    LeastLatency,
    /// The cheapest that has budget left.
    Cheapest,
    /// All of the first usable tier, for alarms.
    Broadcast,
}

impl Balance {
    /// The words used in configuration and API.
    pub const WORDS: [&str; 5] =
        ["weighted", "round_robin", "least_latency", "cheapest", "broadcast"];
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Weighted, Self::RoundRobin, Self::LeastLatency, Self::Cheapest, Self::Broadcast];

    /// The balance of a word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|balance| balance.word() == word)
    }

    /// The word used in configuration and API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Weighted => "weighted",
            Self::RoundRobin => "round_robin",
            Self::LeastLatency => "least_latency",
            Self::Cheapest => "cheapest",
            Self::Broadcast => "broadcast",
        }
    }
}
