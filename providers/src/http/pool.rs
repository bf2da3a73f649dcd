//! A pool of HTTP/2 connections to one origin.
//!
//! Built on `h2` itself and not on a ready-made client, because failover needs
//! to know what those hide: whether the peer has certainly not processed a
//! request, how many streams it allows at this moment, and when a connection is
//! going away. A pool never repeats a call: it says what became of it.
//!
//! Connections are held as long as the peer lets them live; vendors take rapid
//! opening and closing for an attack. While there is traffic there are at least
//! two, so that the loss of one costs nobody a handshake, and more when all are
//! at their stream limit. One that is going away is replaced while its last
//! streams end.
//!
//! A connection may die alone, without a word. One that carries calls and is silent
//! for a second while others are heard gets a PING, and without an answer its calls
//! end, two to three seconds after they began instead of by their timeout. When all
//! are silent it is the router that judges, by [`Pool::heard`].
//!
//! While the peer cannot be reached, callers are told so at once and do not
//! wait for the next attempt: another provider may take their push.

mod connection;
mod dial;
mod drive;
mod metered;
mod state;
mod vital;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod wire;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, Request, StatusCode};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use self::connection::{Connection, readable, unsent};
use self::dial::{Dialled, dial};
use self::metered::Meter;
use self::state::{Bounds, Got, Next, State};
use self::vital::{PONG_WITHIN, SILENT_AFTER};
use crate::clock::instant;
use crate::{Answer, Outcome, Part, Processed, Written};

/// A pool holds at least as many connections while there is traffic.
const LEAST_CONNECTIONS: usize = 2;

/// How often a call looks for another connection when the one it was given has
/// gone away before a byte of it was written.
const TRIES: usize = 3;

/// For the polite end of a connection that was opened only to see that it can be.
const FAREWELL: Duration = Duration::from_millis(500);

/// What a pool needs to know of its peer.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// Scheme, host and port.
    pub origin: url::Url,
    /// Trust roots and, where the vendor wants one, a client certificate.
    pub tls: Arc<rustls::ClientConfig>,
    /// For TCP, TLS and the peer's SETTINGS together.
    pub connect_timeout: Duration,
    /// Connections to hold while there is traffic; fewer than two count as two.
    pub connections: usize,
    /// Connections at most, when all are at their peer's stream limit.
    pub max_connections: usize,
    /// Streams at once on a connection, below what the peer allows (FCM: 100).
    pub stream_limit: Option<u32>,
    /// One stream at a time until the peer's first answer that shows the
    /// credential accepted (anything but 401 and 403), as APNs asks.
    pub one_stream_first: bool,
    /// The peer bears a PING on a connection no more often than this.
    pub ping_interval: Duration,
    /// How long a connection may be idle before it is pinged; `None`: for ever.
    pub idle_ping: Option<Duration>,
}

/// A complete answer.
#[derive(Debug)]
pub struct Response {
    /// Status.
    pub status: StatusCode,
    /// Headers, at most 16 KiB.
    pub headers: HeaderMap,
    /// The first 64 KiB of the body; an endless body is cut there and its stream reset.
    pub body: Bytes,
    /// The connection it came over.
    pub connection: ConnectionId,
    /// Whether it is that connection's first answer.
    first_of_connection: bool,
}

/// Names a connection of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub u64);

/// A call without a complete answer.
#[derive(Clone, Debug)]
pub struct Failure {
    /// `No`: certainly not processed. `Maybe`: a byte may have left.
    pub processed: Processed,
    /// Before the request was written: `dns`, `connect` (also while a back-off
    /// runs), `tls`, `no_h2`, `settings`, `closed`. After it: `refused_stream`,
    /// `goaway` (both not processed), `reset`, `closed`, `silent`, `protocol`.
    pub code: &'static str,
    /// One line for people.
    pub detail: String,
    /// Another call of the same dead connection has told of it already: that is
    /// one failure of the vendor and not as many as there were calls.
    pub again: bool,
}

/// No answer came: what was certainly not processed is a plain no.
impl From<&Failure> for Answer {
    fn from(failure: &Failure) -> Self {
        let outcome = match failure.processed {
            Processed::No => Outcome::Unavailable,
            Processed::Maybe | Processed::Yes => Outcome::Ambiguous,
        };
        let part = if failure.again { Part::Device } else { Part::Provider };
        Self::new(outcome)
            .about(part)
            .code(failure.code)
            .detail(&failure.detail)
            .processed(failure.processed)
    }
}

/// See the module.
pub struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    /// Makes a pool; connections are opened when the first call needs them.
    pub fn new(settings: PoolSettings) -> Self {
        let least = settings.connections.max(LEAST_CONNECTIONS);
        let bounds = Bounds { least, most: settings.max_connections.max(least) };
        let born = instant();
        let shared = Shared {
            settings,
            bounds,
            born,
            meter: Arc::new(Meter::new(born)),
            sounding: tokio::sync::Mutex::default(),
            state: Mutex::default(),
            tasks: Mutex::default(),
            next_id: AtomicU64::new(1),
            changed: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Makes one call. Dropping the future resets the stream.
    ///
    /// # Errors
    /// [`Failure`] says whether the request may have been processed.
    pub async fn send(
        &self,
        request: Request<()>,
        body: Bytes,
        written: &Written,
    ) -> Result<Response, Failure> {
        let mut permit = self.permit().await?;
        let result = permit.connection.call(request, body, written).await;
        permit.finished = true;
        if let Ok(Response { first_of_connection: true, .. }) = &result {
            self.shared.state().proved();
        }
        result
    }

    /// Opens a fresh connection, waits for the peer's SETTINGS and closes it:
    /// shows name, network, TLS and front end alive, and nothing of the
    /// credential. Ignores a back-off that runs, and ends it when it succeeds.
    ///
    /// # Errors
    /// [`Failure`] says at which step.
    pub async fn check(&self) -> Result<(), Failure> {
        let Dialled { sender, driver, .. } =
            dial(&self.shared.settings, &self.shared.meter).await?;
        self.shared.state().proved();
        drop(sender);
        // Whether the peer hears our good-bye changes nothing.
        let _heard = timeout(FAREWELL, driver).await;
        Ok(())
    }

    /// Asks for a sign of life, which [`Pool::heard`] then tells: a PING on each
    /// connection that carries a call, on none more often than the peer bears it;
    /// where none is due, a fresh connection with its SETTINGS. Ends when that
    /// has come, or has not come for long enough: what stayed silent takes no
    /// further call, so that whoever comes next finds a fresh connection. While
    /// one sign is awaited, no other is asked for.
    pub async fn sound(&self) {
        let Ok(_one_at_a_time) = self.shared.sounding.try_lock() else { return };
        let asked = self.shared.age();
        let asked_us = asked.as_micros() as u64;
        let interval = self.shared.settings.ping_interval;
        let open = self.shared.state().open.clone();
        let pings: Vec<_> = open
            .iter()
            .filter_map(|connection| {
                let pinger = connection.take_pinger(asked, interval)?;
                Some((connection, pinger))
            })
            .collect();
        let pinged: Vec<_> = pings.iter().map(|(connection, _)| connection.id).collect();
        if pings.is_empty() {
            // How it failed is seen by who opens the next one.
            let _failure = self.check().await;
        } else {
            let pings = pings.into_iter().map(|(connection, pinger)| connection.vital.ping(pinger));
            let _late = timeout(PONG_WITHIN, join_all(pings)).await;
        }
        let dead = self.shared.meter.heard_us() < asked_us;
        for connection in open {
            let silent = connection.meter.heard_us() < asked_us;
            if silent && (dead || pinged.contains(&connection.id)) {
                self.shared.retire(connection.id, "silent");
            }
        }
    }

    /// When the last byte came from the peer, over whichever connection; not
    /// before the pool was made.
    pub fn heard(&self) -> std::time::Instant {
        let heard = Duration::from_micros(self.shared.meter.heard_us());
        (self.shared.born + heard).into_std()
    }

    /// Whether calls are under way, with or without a stream.
    pub fn is_busy(&self) -> bool {
        self.shared.state().is_busy()
    }

    /// Opens no further stream on this connection and closes it when its
    /// streams have ended.
    pub fn retire(&self, connection: ConnectionId) {
        self.shared.retire(connection, "retired");
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        let state = self.shared.state();
        state.open.len() + state.draining.len()
    }

    /// Streams that the open connections allow together.
    pub fn stream_capacity(&self) -> usize {
        let state = self.shared.state();
        state.open.iter().fold(0, |sum, connection| sum.saturating_add(connection.limit()))
    }

    /// Bytes read since start, under TLS.
    pub fn bytes_read(&self) -> u64 {
        self.shared.meter.read()
    }

    /// Bytes written since start, under TLS.
    pub fn bytes_written(&self) -> u64 {
        self.shared.meter.written()
    }

    /// Retires all connections and waits until they are closed. Calls in flight
    /// are answered; calls that have no stream yet fail.
    pub async fn close(&self) {
        let next = self.shared.state().close();
        self.shared.carry_out(next);
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            if self.shared.state().is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// A stream on a connection that still takes one.
    async fn permit(&self) -> Result<Permit, Failure> {
        let mut reason = String::new();
        for _ in 0..TRIES {
            let (got, next) = self.shared.state().acquire(self.shared.age(), self.shared.bounds);
            self.shared.carry_out(next);
            let permit = match got? {
                Got::Stream(connection) => Permit::new(&self.shared, connection),
                Got::Place(place) => match place.await {
                    Ok(permit) => permit?,
                    Err(_) => return Err(unsent("the pool is closed".to_owned())),
                },
            };
            match permit.connection.open() {
                Ok(()) => return Ok(permit),
                Err(why) => {
                    reason = readable(&why);
                    self.shared.retire(permit.connection.id, &reason);
                }
            }
        }
        Err(unsent(reason))
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({}, {} open)", self.shared.settings.origin, self.connections())
    }
}

impl Drop for Pool {
    /// Tasks hold the shared half: without this they would keep each other alive.
    fn drop(&mut self) {
        let next = self.shared.state().close();
        self.shared.carry_out(next);
        self.shared.tasks().abort_all();
    }
}

/// A stream that may be opened on a connection; counted back when dropped.
struct Permit {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    since: Duration,
    /// What the connection had read at that time.
    read: u64,
    /// Whether the call came to an end of its own.
    finished: bool,
}

impl Permit {
    fn new(shared: &Arc<Shared>, connection: Arc<Connection>) -> Self {
        let (since, read) = (shared.age(), connection.meter.read());
        Self { shared: shared.clone(), connection, since, read, finished: false }
    }

    /// Given up after a while in which not a byte came over the connection.
    fn found_silence(&self) -> bool {
        !self.finished
            && self.read == self.connection.meter.read()
            && self.shared.age().saturating_sub(self.since) >= SILENT_AFTER
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let shared = &self.shared;
        let next = shared.state().release(&self.connection, || shared.age(), shared.bounds);
        shared.carry_out(next);
        if self.found_silence() {
            shared.retire(self.connection.id, "silent");
        }
    }
}

/// What calls, openings and connections' drivers share.
struct Shared {
    settings: PoolSettings,
    bounds: Bounds,
    born: Instant,
    meter: Arc<Meter>,
    /// Held while a sign of life is awaited.
    sounding: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    /// Openings and drivers, ended with the pool.
    tasks: Mutex<JoinSet<()>>,
    next_id: AtomicU64,
    /// Told when a connection is closed or an opening has ended.
    changed: Notify,
}

impl Shared {
    fn age(&self) -> Duration {
        instant().saturating_duration_since(self.born)
    }

    fn retire(self: &Arc<Self>, connection: ConnectionId, reason: &str) {
        let next = self.state().retire(connection, reason, self.age(), self.bounds);
        self.carry_out(next);
    }

    /// Does, outside the lock, what a change has led to.
    fn carry_out(self: &Arc<Self>, next: Next) {
        for (waiter, connection) in next.grants {
            // One that went away meanwhile drops its permit, which is the way
            // to the next in the queue.
            let _gone = waiter.send(Ok(Permit::new(self, connection)));
        }
        for waiter in next.failed {
            let failure = next.failure.clone().unwrap_or_else(|| unsent(String::new()));
            let _gone = waiter.send(Err(failure));
        }
        if next.open {
            self.spawn(self.clone().open_one());
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
