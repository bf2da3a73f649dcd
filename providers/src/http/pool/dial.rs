//! Opens one connection: name, TCP, TLS, ALPN, the peer's SETTINGS.
//!
//! The name is looked up each time and the addresses are taken in random order,
//! because vendors spread their load by DNS and ask not to have it cached
//! (Apple, "Sending notification requests to APNs"). A further address is tried
//! when the last one has not answered within 250 ms, as in RFC 8305, so that
//! one dead address among ten costs a quarter of a second and not the whole
//! `connect_timeout`.
//!
//! A connection counts as open only when the peer's SETTINGS are there. h2
//! would open streams before that, up to a number of its own choice; APNs
//! allows a single one, and the peer's limit is not known yet.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::poll_fn;
use futures_util::stream::{FuturesUnordered, StreamExt};
use h2::PingPong;
use h2::client::{Builder, Connection, SendRequest};
use rand::seq::SliceRandom;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::metered::{Meter, Metered};
use super::{Failure, PoolSettings};
use crate::Processed;

/// "Connection Attempt Delay" of RFC 8305 section 5.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// For the stream limit: the peer's SETTINGS are not there yet. No peer that
/// means to serve us says 0.
const NOT_TOLD: usize = 0;

/// Received bytes that may wait on a connection and on a stream. Answers are a
/// few hundred bytes; the connection's window leaves room for a thousand at once.
const CONNECTION_WINDOW: u32 = 1 << 20;
const STREAM_WINDOW: u32 = (1 << 16) - 1;

/// Answers' headers, at most.
const MAX_HEADERS: u32 = 16 << 10;

/// How many given-up streams h2 remembers, and how long, so that their late
/// answers are dropped in silence: an answer to a forgotten stream counts as a
/// fault, and a thousand of them close the connection.
const FORGET_AT: usize = 4096;
const FORGET_AFTER: Duration = Duration::from_secs(15);

pub(super) type Io = TlsStream<Metered<TcpStream>>;

/// A connection whose SETTINGS have arrived.
pub(super) struct Dialled {
    pub(super) sender: SendRequest<Bytes>,
    pub(super) driver: Connection<Io, Bytes>,
    pub(super) pinger: Option<PingPong>,
    pub(super) meter: Arc<Meter>,
}

/// Opens one connection within `connect_timeout`.
pub(super) async fn dial(settings: &PoolSettings, pool: &Arc<Meter>) -> Result<Dialled, Failure> {
    let mut step = "dns";
    let opened = timeout(settings.connect_timeout, steps(settings, pool, &mut step)).await;
    match opened {
        Ok(result) => result,
        Err(_) => {
            let waited = humantime::format_duration(settings.connect_timeout);
            Err(failure(step, format!("no connection within {waited}")))
        }
    }
}

async fn steps(
    settings: &PoolSettings,
    pool: &Arc<Meter>,
    step: &mut &'static str,
) -> Result<Dialled, Failure> {
    let mut addresses = resolve(&settings.origin).await?;
    addresses.shuffle(&mut rand::rng());

    *step = "connect";
    let socket = connect_any(addresses).await?;
    socket.set_nodelay(true).map_err(|error| failure("connect", error.to_string()))?;

    *step = "tls";
    let meter = Arc::new(Meter::new(pool.born()));
    let socket = Metered::new(socket, meter.clone(), pool.clone());
    let stream = TlsConnector::from(settings.tls.clone())
        .connect(server_name(&settings.origin)?, socket)
        .await
        .map_err(|error| failure("tls", error.to_string()))?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(failure("no_h2", "the peer does not speak HTTP/2 (ALPN)".to_owned()));
    }

    *step = "settings";
    let (sender, mut driver) = builder()
        .handshake(stream)
        .await
        .map_err(|error| failure("settings", error.to_string()))?;
    settings_arrive(&mut driver).await?;
    meter.settle(pool);
    let pinger = driver.ping_pong();
    Ok(Dialled { sender, driver, pinger, meter })
}

async fn resolve(origin: &url::Url) -> Result<Vec<SocketAddr>, Failure> {
    let port = origin.port_or_known_default().unwrap_or(443);
    let name = match origin.host() {
        Some(url::Host::Domain(name)) => name,
        Some(url::Host::Ipv4(address)) => return Ok(vec![(address, port).into()]),
        Some(url::Host::Ipv6(address)) => return Ok(vec![(address, port).into()]),
        None => return Err(failure("dns", "the endpoint has no host".to_owned())),
    };
    let found: Vec<_> = tokio::net::lookup_host((name, port))
        .await
        .map_err(|error| failure("dns", format!("{name}: {error}")))?
        .collect();
    if found.is_empty() {
        return Err(failure("dns", format!("{name}: no address")));
    }
    Ok(found)
}

/// Connects to the first address that answers, one more every 250 ms, and at
/// once after a refusal.
async fn connect_any(addresses: Vec<SocketAddr>) -> Result<TcpStream, Failure> {
    let mut waiting = addresses.into_iter();
    let mut racing = FuturesUnordered::new();
    let mut last = failure("connect", "no address".to_owned());
    loop {
        let more = match waiting.next() {
            Some(address) => {
                racing.push(TcpStream::connect(address).map(move |r| (address, r)));
                true
            }
            None if racing.is_empty() => return Err(last),
            None => false,
        };
        // Either the next address is due, or one of those under way has ended.
        tokio::select! {
            ended = racing.next() => match ended {
                Some((_, Ok(socket))) => return Ok(socket),
                Some((address, Err(error))) => {
                    last = failure("connect", format!("{address}: {error}"));
                }
                None => {}
            },
            () = sleep(NEXT_ADDRESS), if more => {}
        }
    }
}

fn server_name(origin: &url::Url) -> Result<ServerName<'static>, Failure> {
    match origin.host() {
        Some(url::Host::Domain(name)) => ServerName::try_from(name.to_owned())
            .map_err(|_| failure("tls", format!("{name} cannot stand in a certificate"))),
        Some(url::Host::Ipv4(address)) => Ok(std::net::IpAddr::from(address).into()),
        Some(url::Host::Ipv6(address)) => Ok(std::net::IpAddr::from(address).into()),
        None => Err(failure("tls", "the endpoint has no host".to_owned())),
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(NOT_TOLD)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_window_size(STREAM_WINDOW)
        .max_header_list_size(MAX_HEADERS)
        .max_concurrent_reset_streams(FORGET_AT)
        .reset_stream_duration(FORGET_AFTER);
    builder
}

/// Polls the connection until the peer has said how many streams it takes.
async fn settings_arrive(driver: &mut Connection<Io, Bytes>) -> Result<(), Failure> {
    poll_fn(|cx| match driver.poll_unpin(cx) {
        Poll::Ready(Ok(())) => {
            Poll::Ready(Err(failure("settings", "closed by the peer".to_owned())))
        }
        Poll::Ready(Err(error)) => Poll::Ready(Err(failure("settings", error.to_string()))),
        Poll::Pending if driver.max_concurrent_send_streams() == NOT_TOLD => Poll::Pending,
        Poll::Pending => Poll::Ready(Ok(())),
    })
    .await
}

fn failure(code: &'static str, detail: String) -> Failure {
    Failure { processed: Processed::No, code, detail, again: false }
}
