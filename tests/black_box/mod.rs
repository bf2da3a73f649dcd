//! The whole: the real binary on free ports against the simulator over TLS.

mod bad_config;
mod bad_input;
mod crash;
mod failover;
mod harness;
mod main_job;
mod registry;
