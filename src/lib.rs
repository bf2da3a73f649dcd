//! Pushyard: a push failover router. The modules in the order of a push.

pub mod cli;
pub mod config;
pub mod server;

pub mod admin;
pub mod api;
pub mod dispatch;
pub mod feedback;
pub mod intake;
pub mod routing;
pub mod stack;
pub mod store;

pub mod clock;
pub mod model;
pub mod telemetry;
