//! Placeholder head, rewritten with the engine.
mod handle;
mod settings;
pub use handle::{Cancelled, Command, Dispatcher, Rejected, retry_after};
pub use settings::{Limits, Settings};
