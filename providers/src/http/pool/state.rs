//! What a pool knows, and the decisions it takes from that: pure, under one lock.
//!
//! Every change ends in [`State::advance`], which hands free streams to those
//! who wait, decides whether one more connection is to be opened, and fails the
//! waiting when none can be.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use super::connection::Connection;
use super::{ConnectionId, Failure, Permit};
use crate::Processed;

/// Reconnects wait 1 s, then twice as long each time, at most 60 s (Apple asks
/// not to open and close connections rapidly and names no figure).
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A lost connection is replaced at once when the pool was used within this time.
const TRAFFIC: Duration = Duration::from_secs(60);

/// A connection that is lost this young without having given an answer counts
/// as one that could not be opened.
const STILLBORN: Duration = Duration::from_secs(10);

pub(super) type Waiter = oneshot::Sender<Result<Permit, Failure>>;

/// All times are the pool's age.
#[derive(Default)]
pub(super) struct State {
    /// Connections that take streams.
    pub(super) open: Vec<Arc<Connection>>,
    /// Connections whose streams are ending.
    pub(super) draining: Vec<Arc<Connection>>,
    waiters: VecDeque<Waiter>,
    /// Whether one is being opened: one at a time, shared by all who wait.
    opening: bool,
    backoff: Backoff,
    /// When the pool was last asked for a stream.
    used: Duration,
    /// Where the search for the least loaded begins, so that equals take turns.
    turn: usize,
    closed: bool,
}

/// How many connections a pool holds.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) least: usize,
    pub(super) most: usize,
}

/// What a caller gets at once.
pub(super) enum Got {
    Stream(Arc<Connection>),
    /// A place in the queue.
    Place(oneshot::Receiver<Result<Permit, Failure>>),
}

/// What is to be done after a change, outside the lock.
#[must_use]
#[derive(Default)]
pub(super) struct Next {
    pub(super) grants: Vec<(Waiter, Arc<Connection>)>,
    pub(super) failed: Vec<Waiter>,
    pub(super) failure: Option<Failure>,
    pub(super) open: bool,
}

impl State {
    /// A stream on the least loaded connection, else a place in the queue, else
    /// the reason why waiting is of no use.
    pub(super) fn acquire(
        &mut self,
        now: Duration,
        bounds: Bounds,
    ) -> (Result<Got, Failure>, Next) {
        self.used = now;
        if self.closed {
            return (Err(shut()), Next::default());
        }
        if let Some(connection) = self.take_stream() {
            let open = self.wants_one(now, bounds);
            return (Ok(Got::Stream(connection)), Next { open, ..Next::default() });
        }
        if self.open.is_empty() && !self.opening && self.backoff.runs(now) {
            return (Err(self.backoff.failure()), Next::default());
        }
        let (place, receiver) = oneshot::channel();
        self.waiters.push_back(place);
        (Ok(Got::Place(receiver)), self.advance(now, bounds))
    }

    /// A call has ended, however it did.
    pub(super) fn release(
        &mut self,
        connection: &Connection,
        now: impl FnOnce() -> Duration,
        bounds: Bounds,
    ) -> Next {
        connection.give_stream_back();
        // The common case costs no look at the clock.
        if self.waiters.is_empty() { Next::default() } else { self.advance(now(), bounds) }
    }

    /// The attempt to open one has ended. A connection that nobody wants any
    /// more is handed back.
    pub(super) fn opened(
        &mut self,
        result: Result<Arc<Connection>, Failure>,
        now: Duration,
        bounds: Bounds,
    ) -> Next {
        self.opening = false;
        match result {
            Ok(connection) if self.closed => {
                connection.retire();
                self.draining.push(connection);
            }
            Ok(connection) => self.open.push(connection),
            Err(failure) => {
                self.backoff.failed(failure.clone(), now);
                if self.open.is_empty() {
                    let mut next = self.advance(now, bounds);
                    next.failed.extend(self.waiters.drain(..));
                    next.failure = Some(failure);
                    return next;
                }
            }
        }
        self.advance(now, bounds)
    }

    /// This connection takes no further stream: retired, or the peer said GOAWAY.
    pub(super) fn retire(
        &mut self,
        id: ConnectionId,
        reason: &str,
        now: Duration,
        bounds: Bounds,
    ) -> Next {
        let Some(at) = self.open.iter().position(|connection| connection.id == id) else {
            return Next::default();
        };
        let connection = self.open.swap_remove(at);
        connection.retire();
        let age = now.saturating_sub(Duration::from_millis(connection.opened_ms));
        if !connection.has_answered() && age < STILLBORN {
            self.backoff.failed(super::connection::unsent(reason.to_owned()), now);
        }
        self.draining.push(connection);
        self.advance(now, bounds)
    }

    /// This connection is closed.
    pub(super) fn ended(
        &mut self,
        id: ConnectionId,
        reason: &str,
        now: Duration,
        bounds: Bounds,
    ) -> Next {
        let next = self.retire(id, reason, now, bounds);
        self.draining.retain(|connection| connection.id != id);
        next
    }

    /// The peer is of use: the next fault is the first one again.
    pub(super) fn proved(&mut self) {
        self.backoff = Backoff::default();
    }

    /// Takes no call any more and retires everything.
    pub(super) fn close(&mut self) -> Next {
        self.closed = true;
        for connection in self.open.drain(..) {
            connection.retire();
            self.draining.push(connection);
        }
        let failed = self.waiters.drain(..).collect();
        Next { failed, failure: Some(shut()), ..Next::default() }
    }

    /// Whether a call has a stream or waits for one.
    pub(super) fn is_busy(&self) -> bool {
        let mut connections = self.open.iter().chain(&self.draining);
        !self.waiters.is_empty() || connections.any(|connection| connection.in_flight() > 0)
    }

    /// Whether nothing is open any more, nor being opened.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.draining.is_empty() && !self.opening
    }

    pub(super) fn advance(&mut self, now: Duration, bounds: Bounds) -> Next {
        let mut next = Next::default();
        while let Some(waiter) = self.waiters.pop_front() {
            if waiter.is_closed() {
                continue;
            }
            match self.take_stream() {
                Some(connection) => next.grants.push((waiter, connection)),
                None => {
                    self.waiters.push_front(waiter);
                    break;
                }
            }
        }
        next.open = self.wants_one(now, bounds);
        if self.open.is_empty() && !self.opening && !self.waiters.is_empty() {
            next.failed.extend(self.waiters.drain(..));
            next.failure = Some(self.backoff.failure());
        }
        next
    }

    fn take_stream(&mut self) -> Option<Arc<Connection>> {
        let count = self.open.len();
        self.turn = self.turn.wrapping_add(1);
        let connection = (0..count)
            .map(|offset| &self.open[self.turn.wrapping_add(offset) % count])
            .filter(|connection| connection.in_flight() < connection.limit())
            .min_by_key(|connection| connection.in_flight())?;
        connection.take_stream(self.used);
        connection.used_ms.store(self.used.as_millis() as u64, Ordering::Relaxed);
        Some(connection.clone())
    }

    /// Whether to open one more now; if so, it counts as being opened.
    fn wants_one(&mut self, now: Duration, bounds: Bounds) -> bool {
        if self.closed || self.opening || self.backoff.runs(now) {
            return false;
        }
        let idle = now.saturating_sub(self.used) > TRAFFIC;
        let few = self.open.len() < bounds.least && !idle;
        // One whose limit is still provisional will take more in a moment.
        let crowded = !self.waiters.is_empty()
            && self.open.len() < bounds.most
            && self.open.iter().all(|connection| connection.is_proven());
        self.opening = few || crowded;
        self.opening
    }
}

fn shut() -> Failure {
    super::connection::unsent("the pool is closed".to_owned())
}

/// Faults in a row of opening connections.
#[derive(Default)]
struct Backoff {
    faults: u32,
    until: Duration,
    last: Option<Failure>,
}

impl Backoff {
    /// The first fault after a healthy time costs no wait: it may be a server
    /// that was taken away, and the next address is good.
    fn failed(&mut self, failure: Failure, now: Duration) {
        self.faults = self.faults.saturating_add(1);
        self.last = Some(failure);
        if let Some(doublings) = self.faults.checked_sub(2) {
            let wait = LONGEST_WAIT.min(FIRST_WAIT.saturating_mul(1 << doublings.min(6)));
            // Half of it is drawn, so that replicas do not come back together.
            self.until = now + wait.mul_f64(rand::random_range(0.5..=1.0));
        }
    }

    fn runs(&self, now: Duration) -> bool {
        now < self.until
    }

    fn failure(&self) -> Failure {
        let last = self.last.as_ref().map_or("", |failure| &failure.detail);
        let detail = format!("not trying again yet; last: {last}");
        Failure { processed: Processed::No, code: "connect", detail, again: false }
    }
}
