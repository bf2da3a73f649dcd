//! The whole: the real binary on free ports against the simulator over TLS.

mod bad_config;
mod bad_input;
mod crash;
mod docs;
mod edges;
mod events;
mod explain;
mod failover;
mod game_day;
mod harness;
mod main_job;
mod reload;
mod self_hosted;
mod operators;
mod receiver;
mod stream;
mod stream_bounds;
mod registry;
