//! How calls reach vendors: a pool of HTTP/2 connections for the vendors that
//! take thousands of pushes a second, and a small common client for peers that
//! are asked rarely (token endpoints, and the low-rate kinds to come).

pub(crate) mod channel;
pub mod client;
pub mod pool;
pub mod retry_after;
pub mod tls;

/// Whether a URL leads to this machine: plain HTTP is safe there.
pub fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}
