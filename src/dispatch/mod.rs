//! The way of a delivery after its message is on disk.
//!
//! Pure, but for one file: `deliveries` (what is unsettled), `fair` (whose turn
//! it is), `collapse` (the one promise about order), `delivery` (what an outcome
//! means), `gone` (addresses that vendors gave up), `retry` (when again), `engine` (all of it together: events in, effects
//! out). `driver` is the one task that feeds the engine and carries out its
//! effects; it has no `if` about deliveries.
#![warn(clippy::wildcard_enum_match_arm)]

mod collapse;
mod deliveries;
mod delivery;
mod driver;
mod engine;
mod fair;
mod gone;
mod handle;
mod operation;
mod retry;
mod settings;
mod tell;

pub use driver::{Driver, FlushMark, Parts};
pub use engine::{
    Asked, AttemptId, BARRED, Barred, Cut, Effect, Engine, Event, Explained, Fact, Found, KeyView,
    Order, ProviderView, QueueView, Reconfigured, Score, Seen, Snapshot, Token, Weighed,
};
pub use handle::{
    Cancelled, Command, Dispatcher, Received, Reconfigure, Rejected, Replayed, retry_after,
};
pub use operation::{Operation, Refused, Wish};
pub use settings::{Limits, Settings};
