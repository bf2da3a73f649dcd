//! Pushyard: a push failover router. The modules in the order of a push.

pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dispatch;
pub mod feedback;
pub mod intake;
pub mod model;
pub mod routing;
pub mod server;
pub mod stack;
pub mod store;
pub mod telemetry;
