//! A pool of HTTP/2 connections to one origin.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};

use crate::{Processed, Written};

/// What a pool needs to know of its peer.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// Scheme, host and port.
    pub origin: url::Url,
    /// Trust roots and, where the vendor wants one, a client certificate.
    pub tls: Arc<rustls::ClientConfig>,
    /// For TCP, TLS and the peer's SETTINGS together.
    pub connect_timeout: Duration,
    /// Connections to hold while there is traffic.
    pub connections: usize,
    /// Connections at most, when all are at their peer's stream limit.
    pub max_connections: usize,
    /// Streams at once on a connection, below what the peer allows (FCM: 100).
    pub stream_limit: Option<u32>,
    /// One stream at a time until the peer's first answer that shows the
    /// credential accepted (anything but 401 and 403), as APNs asks.
    pub one_stream_first: bool,
}

/// A complete answer.
#[derive(Debug)]
pub struct Response {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// The first 64 KiB of the body; an endless body is cut there and its stream reset.
    pub body: Bytes,
    /// The connection it came over.
    pub connection: ConnectionId,
}

/// Names a connection of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub u64);

/// A call without a complete answer.
#[derive(Clone, Debug)]
pub struct Failure {
    /// `No`: certainly not processed. `Maybe`: a byte may have left.
    pub processed: Processed,
    /// `dns`, `connect`, `tls`, `no_h2`, `refused_stream`, `goaway`, `reset`, `closed`, …
    pub code: &'static str,
    /// One line for people.
    pub detail: String,
}

/// See the module.
#[derive(Debug)]
pub struct Pool {}

impl Pool {
    /// Makes a pool; connections are opened when the first call needs them.
    pub fn new(_settings: PoolSettings) -> Self {
        Self {}
    }

    /// Makes one call.
    ///
    /// # Errors
    /// [`Failure`] says whether the request may have been processed.
    pub async fn send(
        &self,
        _request: Request<()>,
        _body: Bytes,
        _written: &Written,
    ) -> Result<Response, Failure> {
        Err(Failure { processed: Processed::No, code: "connect", detail: String::new() })
    }

    /// Opens a fresh connection, waits for the peer's SETTINGS and closes it:
    /// shows name, network, TLS and front end alive, and nothing of the credential.
    ///
    /// # Errors
    /// [`Failure`] says at which step.
    pub async fn check(&self) -> Result<(), Failure> {
        Err(Failure { processed: Processed::No, code: "connect", detail: String::new() })
    }

    /// Opens no further stream on this connection and closes it when its
    /// streams have ended.
    pub fn retire(&self, _connection: ConnectionId) {}

    /// Open connections.
    pub fn connections(&self) -> usize {
        0
    }

    /// Streams that the open connections allow together.
    pub fn stream_capacity(&self) -> usize {
        0
    }

    /// Bytes read since start, under TLS.
    pub fn bytes_read(&self) -> u64 {
        0
    }

    /// Retires all connections and waits until they are closed.
    pub async fn close(&self) {}
}
