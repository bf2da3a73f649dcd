//! Sends messages to the router, in one of two ways.
//!
//! *Open loop*: at a fixed rate by a timetable. A call that has to wait because
//! all others are stuck counts from when it was due, so that a stall shows in
//! full (else a router that stops for a second shows one slow call instead of a
//! thousand: "coordinated omission"). Where only our own timer was late, the
//! call counts from when it was made: that is no delay of the router's.
//!
//! *Closed loop*: so many calls at once, each followed by the next, and none
//! while more deliveries than a bound have been accepted and not arrived. What
//! arrives in that state can be sustained; what is accepted without the bound
//! could be mere queueing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::Failure;
use super::message::Message;
use super::tally::{Accepted, Call, Tally};
use super::wire::{Caller, Fault, Reply};
use crate::clock::Clock;

/// Connections of an open loop, at most: as many calls can be without an answer
/// before the timetable has to wait for one.
const OPEN_CONNECTIONS: usize = 256;

/// After a call that was not accepted a closed loop holds still this long: it
/// would spin.
const AFTER_REFUSAL: Duration = Duration::from_millis(20);

/// How far a run is: for those who watch it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Deliveries that the router accepted.
    pub(crate) accepted: AtomicU64,
    /// Calls that were refused.
    pub(crate) refused: AtomicU64,
    /// Calls without an answer.
    pub(crate) unanswered: AtomicU64,
}

/// What to send.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The message.
    pub(crate) message: Message,
    /// For how long.
    pub(crate) duration: Duration,
}

/// What holds a closed loop back.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Calls at once.
    pub(crate) calls: usize,
    /// Deliveries accepted and not arrived, about: calls under way come on top.
    pub(crate) backlog: u64,
    /// How many have arrived, told from outside.
    pub(crate) arrived: watch::Receiver<u64>,
}

/// Messages a second, by a timetable.
pub(crate) async fn open_loop(
    api: SocketAddr,
    plan: Plan,
    rate: u32,
    clock: &Arc<Clock>,
    progress: &Arc<Progress>,
) -> Result<Tally, Failure> {
    let total = (plan.duration.as_secs_f64() * f64::from(rate)) as u64;
    let line = Arc::new(Timetable { next: AtomicU64::new(0), total, rate: f64::from(rate) });
    let run = Run { api, begun: clock.now().instant, clock, progress };
    let mut workers = JoinSet::new();
    for _ in 0..OPEN_CONNECTIONS.min(usize::try_from(total).unwrap_or(usize::MAX)) {
        let (line, worker) = (Arc::clone(&line), run.worker(plan.message.clone()));
        workers.spawn(by_timetable(worker, line));
    }
    gather(workers).await
}

/// So many calls at once, each followed by the next.
pub(crate) async fn closed_loop(
    api: SocketAddr,
    plan: Plan,
    limits: Limits,
    clock: &Arc<Clock>,
    progress: &Arc<Progress>,
) -> Result<Tally, Failure> {
    let run = Run { api, begun: clock.now().instant, clock, progress };
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..limits.calls {
        let worker = run.worker(plan.message.clone());
        let (next, arrived) = (Arc::clone(&next), limits.arrived.clone());
        workers.spawn(one_after_another(worker, next, arrived, limits.backlog, plan.duration));
    }
    gather(workers).await
}

async fn gather(mut workers: JoinSet<Tally>) -> Result<Tally, Failure> {
    let mut all = Tally::default();
    while let Some(ended) = workers.join_next().await {
        all.add(ended.map_err(|error| format!("a sender of the load ended: {error}"))?);
    }
    Ok(all)
}

struct Timetable {
    next: AtomicU64,
    total: u64,
    /// Calls a second.
    rate: f64,
}

async fn by_timetable(mut worker: Worker, line: Arc<Timetable>) -> Tally {
    loop {
        let number = line.next.fetch_add(1, Relaxed);
        if number >= line.total {
            return worker.tally;
        }
        let due = worker.begun + Duration::from_secs_f64(number as f64 / line.rate);
        let counts_from = if due > worker.clock.now().instant {
            tokio::time::sleep_until(due.into()).await;
            let woken = worker.clock.now().instant;
            worker.tally.late_us.push(us(woken.saturating_duration_since(due)));
            woken
        } else {
            due
        };
        worker.send(number, counts_from).await;
    }
}

async fn one_after_another(
    mut worker: Worker,
    next: Arc<AtomicU64>,
    mut arrived: watch::Receiver<u64>,
    backlog: u64,
    duration: Duration,
) -> Tally {
    let end = worker.begun + duration;
    loop {
        let progress = Arc::clone(&worker.progress);
        let room = arrived.wait_for(|arrived| progress.accepted.load(Relaxed) < arrived + backlog);
        // No: the run is over, or nobody counts the arrivals any more.
        let open = matches!(tokio::time::timeout_at(end.into(), room).await, Ok(Ok(_)));
        let now = worker.clock.now().instant;
        if !open || now >= end {
            return worker.tally;
        }
        if !worker.send(next.fetch_add(1, Relaxed), now).await {
            tokio::time::sleep(AFTER_REFUSAL).await;
        }
    }
}

struct Run<'a> {
    api: SocketAddr,
    begun: Instant,
    clock: &'a Arc<Clock>,
    progress: &'a Arc<Progress>,
}

impl Run<'_> {
    fn worker(&self, message: Message) -> Worker {
        Worker {
            caller: Caller::new(self.api),
            message,
            begun: self.begun,
            clock: Arc::clone(self.clock),
            progress: Arc::clone(self.progress),
            tally: Tally::default(),
        }
    }
}

/// One connection, its messages and what became of them.
struct Worker {
    caller: Caller,
    message: Message,
    begun: Instant,
    clock: Arc<Clock>,
    progress: Arc<Progress>,
    tally: Tally,
}

impl Worker {
    /// Whether the message was accepted.
    async fn send(&mut self, number: u64, counts_from: Instant) -> bool {
        let recipients = self.message.recipients();
        let reply = self.caller.call(self.message.numbered(number)).await;
        let now = self.clock.now();
        match reply.map(|reply| answer(&reply)) {
            Ok(Ok((message, deliveries))) => {
                self.progress.accepted.fetch_add(recipients, Relaxed);
                let took = now.instant.saturating_duration_since(counts_from);
                let at = counts_from.saturating_duration_since(self.begun);
                self.tally.calls.push(Call { at, took_us: us(took), message });
                let at_ms = now.utc.ms();
                let accepted = |delivery| Accepted { delivery, at_ms };
                self.tally.accepted.extend(deliveries.into_iter().map(accepted));
                true
            }
            Ok(Err(why)) => self.refused(why),
            Err(Fault::Refused(_)) => self.refused("no connection".to_owned()),
            Err(Fault::Unanswered(_)) => {
                self.progress.unanswered.fetch_add(1, Relaxed);
                self.tally.unanswered += 1;
                false
            }
        }
    }

    fn refused(&mut self, why: String) -> bool {
        self.progress.refused.fetch_add(1, Relaxed);
        *self.tally.refused.entry(why).or_default() += 1;
        false
    }
}

/// The ids of the message and of its deliveries, or why there are none.
fn answer(reply: &Reply<'_>) -> Result<(u128, Vec<u128>), String> {
    #[derive(Deserialize)]
    struct Answer {
        id: Uuid,
        deliveries: Vec<Delivery>,
    }
    #[derive(Deserialize)]
    struct Delivery {
        id: Uuid,
    }
    #[derive(Deserialize)]
    struct Problem {
        code: String,
    }
    if reply.status == 202 {
        let answer: Answer = serde_json::from_slice(reply.body)
            .map_err(|error| format!("202 with a body that cannot be read: {error}"))?;
        let deliveries = answer.deliveries.iter().map(|delivery| delivery.id.as_u128());
        return Ok((answer.id.as_u128(), deliveries.collect()));
    }
    Err(match serde_json::from_slice::<Problem>(reply.body) {
        Ok(problem) => format!("{} {}", reply.status, problem.code),
        Err(_) => reply.status.to_string(),
    })
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_deliveries_are_read_from_the_answer() {
        let body = br#"{"id":"01970000-0000-7000-8000-000000000001","state":"queued","deliveries":[
            {"id":"01970000-0000-7000-8000-000000000002","ref":null},
            {"id":"01970000-0000-7000-8000-000000000003","ref":"x"}]}"#;
        let (message, deliveries) = answer(&Reply { status: 202, body }).unwrap();
        assert_eq!((message & 0xff, deliveries.len()), (1, 2));
        assert_eq!(deliveries[1] & 0xff, 3);
    }

    #[test]
    fn refusals_are_told_by_status_and_code() {
        let problem = br#"{"type":"urn:pushyard:problem:queue_full","code":"queue_full"}"#;
        let why = |status, body| answer(&Reply { status, body }).unwrap_err();
        assert_eq!(why(503, &problem[..]), "503 queue_full");
        assert_eq!(why(408, b""), "408");
    }
}
