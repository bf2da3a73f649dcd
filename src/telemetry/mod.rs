//! What can be seen from outside: metrics, log lines, and the list of events they
//! are made of. Nothing here decides, and nothing reads a metric back.

mod events;
mod hub;
mod log;
mod metrics;

pub use events::{DeliverySettled, EventResult, MessageResult, ProviderMoved, Telemetry};
pub use hub::{HUB_EVENTS, Hub, HubEvent};
pub use log::{Format, LogSettings, set_filter, set_up};
pub use metrics::{Attempts, Metrics, PROVIDER_STATES, ProviderGauges, Scrape};
