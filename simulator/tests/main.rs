//! The simulator from outside: real sockets, real TLS, raw HTTP/2 clients.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are tests, which clippy sees only in the functions themselves"
)]

mod apns;
mod broadcast;
mod connections;
mod control;
mod fcm;
mod harness;
mod load;
mod modes;
mod oauth;
mod self_hosted;
