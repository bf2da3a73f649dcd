//! Pushyard: a push failover router. The modules in the order of a push.

pub mod cli;
pub mod server;
pub mod config;

pub mod api;
pub mod admin;
pub mod stream;
pub mod intake;
pub mod store;
pub mod dispatch;
pub mod routing;
pub mod stack;
pub mod feedback;

pub mod telemetry;
pub mod model;
pub mod clock;
