//! The tasks of a pool: opening a connection, and running it to its end.
//!
//! A connection's task is also the one that looks whether it lives ([`super::vital`]),
//! so that whoever finds it dead holds all of it: its socket goes, and h2 ends the
//! calls that are left.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use h2::PingPong;
use h2::client::SendRequest;
use tokio::time::sleep;

use super::connection::{Connection, readable};
use super::dial::{Dialled, Io, dial};
use super::metered::Meter;
use super::{ConnectionId, PoolSettings, Shared};

/// How often each connection is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// When two looks are further apart than this, it was we who stood still: what the
/// peer said meanwhile has not been read.
const OWN_PAUSE: Duration = Duration::from_secs(1);

impl Shared {
    pub(super) async fn open_one(self: Arc<Self>) {
        let dialled = dial(&self.settings, &self.meter).await;
        let mut started = None;
        let result = dialled.map(|Dialled { sender, driver, pinger, meter }| {
            let connection = self.connection(sender, pinger, meter);
            started = Some((connection.clone(), driver));
            connection
        });
        let next = self.state().opened(result, self.age(), self.bounds);
        // Not before: it must not end before it is known.
        if let Some((connection, driver)) = started {
            self.spawn(self.clone().drive(connection, driver));
        }
        self.carry_out(next);
        self.changed.notify_waiters();
    }

    fn connection(
        &self,
        sender: SendRequest<Bytes>,
        pinger: Option<PingPong>,
        meter: Arc<Meter>,
    ) -> Arc<Connection> {
        Arc::new(Connection::new(
            ConnectionId(self.next_id.fetch_add(1, Ordering::Relaxed)),
            sender,
            pinger,
            meter,
            self.settings.stream_limit,
            self.settings.one_stream_first,
            self.age().as_millis() as u64,
        ))
    }

    /// Runs a connection to its end, publishes what the peer allows, and takes
    /// it out of use as soon as the peer says GOAWAY.
    async fn drive(
        self: Arc<Self>,
        connection: Arc<Connection>,
        mut driver: h2::client::Connection<Io, Bytes>,
    ) {
        let mut leaving = false;
        let driving = poll_fn(|cx| {
            if let Poll::Ready(end) = driver.poll_unpin(cx) {
                return Poll::Ready(end);
            }
            if connection.set_peer_limit(driver.max_concurrent_send_streams()) {
                let next = self.state().advance(self.age(), self.bounds);
                self.carry_out(next);
            }
            if !leaving && let Err(reason) = connection.open() {
                leaving = true;
                self.retire(connection.id, &readable(&reason));
            }
            Poll::Pending
        });
        let reason = tokio::select! {
            // What has come is read before anything is judged by its absence.
            biased;
            end = driving => match end {
                Ok(()) => "closed by the peer".to_owned(),
                Err(error) => readable(&error.to_string()),
            },
            () = self.look_after(&connection) => {
                connection.bury();
                "silent".to_owned()
            }
        };
        // Ends the calls on it that are left.
        drop(driver);
        let next = self.state().ended(connection.id, &reason, self.age(), self.bounds);
        self.carry_out(next);
        self.changed.notify_waiters();
    }

    /// Pings a connection that may be dead, or has been idle for long; ends when it
    /// is dead.
    async fn look_after(&self, connection: &Connection) {
        let PoolSettings { ping_interval, idle_ping, .. } = self.settings;
        let mut pings = FuturesUnordered::new();
        let mut looked = self.age();
        loop {
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                Some(()) = pings.next() => {}
            }
            let now = self.age();
            let stood_still = now.saturating_sub(looked) > OWN_PAUSE;
            looked = now;
            if stood_still {
                continue;
            }
            if connection.is_dead(now, &self.meter) {
                return;
            }
            let vital = &connection.vital;
            let asks = match connection.in_flight() {
                0 => idle_ping.is_some_and(|interval| vital.is_idle(now, interval)),
                _ => vital.is_suspect(now, &self.meter),
            };
            let pinger = asks.then(|| vital.take_pinger(now, ping_interval)).flatten();
            pings.extend(pinger.map(|pinger| connection.vital.ping(pinger)));
        }
    }
}
