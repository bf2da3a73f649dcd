//! The simulator from outside: real sockets, real TLS, raw HTTP/2 clients.

mod apns;
mod connections;
mod control;
mod fcm;
mod harness;
mod load;
mod modes;
mod oauth;
