//! Who gets a delivery: candidates, tiers, balance, and what is known of every
//! provider. Pure throughout: no socket, no clock, no task, no log. Time and
//! chance are arguments, so a simulation can drive it at a million steps a second.
//!
//! In reading order: what the configuration says (`settings`), what was built of
//! it (`catalog`), the state of one key (`window`, `latency`, `limits`,
//! `health`, `gone`, `budget`), of all of them (`board`), the decision (`plan`), and
//! the decision as people may look at it (`outlook`).
#![warn(clippy::wildcard_enum_match_arm)]

mod board;
mod budget;
mod catalog;
mod gone;
mod health;
mod hold;
mod latency;
mod limits;
mod outlook;
mod plan;
mod ramp;
mod settings;
#[cfg(test)]
pub(crate) mod testing;
mod window;

pub use board::{
    Board, Closed, Ended, Key, KeyIndex, Keys, Lane, LeftOut, Moved, Permit, Remembered,
};
pub use budget::{Over, Spending, Spent};
pub use catalog::{Built, Catalog, Serves};
pub use gone::GoneVerdict;
pub use health::{Cause, Gate, Health, Move, Pass, Status};
pub use hold::{Hold, OverrideSpec, Overrides};
pub use outlook::{Outlook, outlook};
pub use plan::{Ask, Candidate, Own, Pair, Plan, Shape, last_choice, plan};
pub use settings::{
    Balance, Budget, HealthSettings, Member, Period, ProbeSettings, ProviderIndex,
    ProviderSettings, Rate, RetrySettings, Route,
};
pub use window::{Counts, Window};
