//! One open connection: how many streams it takes, a call on it, its driver.
//!
//! How many streams may be open is counted here and not left to h2, which
//! would queue what exceeds the peer's limit: a request in that queue waits
//! unseen past its deadline, and when the connection dies nobody can tell it
//! from one that was sent.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{PingPong, Reason, RecvStream};
use http::{Request, StatusCode};

use super::metered::Meter;
use super::vital::Vital;
use super::{ConnectionId, Failure, Response};
use crate::{Processed, Written};

/// Answers' bodies are cut here.
const MAX_BODY: usize = 64 << 10;

pub(super) struct Connection {
    pub(super) id: ConnectionId,
    /// `None` once it takes no further stream; h2 closes a connection when no
    /// sender is left and its streams have ended.
    sender: Mutex<Option<SendRequest<Bytes>>>,
    pub(super) meter: Arc<Meter>,
    /// What the peer allows at this moment.
    peer_limit: AtomicUsize,
    /// What we allow on top of that.
    own_limit: usize,
    /// Whether more than one stream may be open: at once, or after an answer
    /// that shows the credential accepted.
    proven: AtomicBool,
    /// Whether any answer came over it: it is of use.
    answered: AtomicBool,
    /// Changed under the pool's lock only.
    in_flight: AtomicUsize,
    /// Milliseconds of the pool's age: when it was opened.
    pub(super) opened_ms: u64,
    /// The same: when it was last used.
    pub(super) used_ms: AtomicU64,
    pub(super) vital: Vital,
    /// Found dead beside living ones; its calls end as such.
    dead: AtomicBool,
    /// One of these has told so.
    told: AtomicBool,
}

impl Connection {
    pub(super) fn new(
        id: ConnectionId,
        sender: SendRequest<Bytes>,
        pinger: Option<PingPong>,
        meter: Arc<Meter>,
        own_limit: Option<u32>,
        one_stream_first: bool,
        now_ms: u64,
    ) -> Self {
        Self {
            id,
            peer_limit: AtomicUsize::new(sender.current_max_send_streams()),
            sender: Mutex::new(Some(sender)),
            vital: Vital::new(meter.clone(), pinger),
            meter,
            own_limit: own_limit.map_or(usize::MAX, |limit| limit as usize),
            proven: AtomicBool::new(!one_stream_first),
            answered: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            opened_ms: now_ms,
            used_ms: AtomicU64::new(now_ms),
            dead: AtomicBool::new(false),
            told: AtomicBool::new(false),
        }
    }

    /// Streams that may be open on it.
    pub(super) fn limit(&self) -> usize {
        let told = self.peer_limit.load(Ordering::Relaxed).min(self.own_limit);
        if self.is_proven() { told } else { told.min(1) }
    }

    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    pub(super) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Under the pool's lock.
    pub(super) fn take_stream(&self, now: Duration) {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) == 0 {
            self.vital.busy(now);
        }
    }

    /// Under the pool's lock.
    pub(super) fn give_stream_back(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Opens no further stream; h2 closes the connection after the last.
    pub(super) fn retire(&self) {
        drop(self.sender().take());
    }

    /// Whether a stream can be opened. `Err` has the peer's reason, with a
    /// GOAWAY's debug data, which h2 shows only in its text.
    pub(super) fn open(&self) -> Result<(), String> {
        let mut sender = self.sender();
        let Some(current) = sender.as_mut() else { return Err("retired".to_owned()) };
        match current.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Ok(()),
            Poll::Ready(Err(error)) => Err(error.to_string()),
            // The stream opened last still waits inside h2: the reset of one
            // that was given up is not out yet. A clone remembers no such
            // stream, and its own one queues behind that for a moment.
            Poll::Pending => {
                let fresh = current.clone();
                *sender = Some(fresh);
                Ok(())
            }
        }
    }

    /// The means to send a PING, if it carries a call and the last PING is long
    /// enough ago.
    pub(super) fn take_pinger(&self, now: Duration, interval: Duration) -> Option<PingPong> {
        if self.in_flight() > 0 { self.vital.take_pinger(now, interval) } else { None }
    }

    /// Whether it gave no answer to a PING, and either others were heard since or
    /// nothing is lost with it.
    pub(super) fn is_dead(&self, now: Duration, pool: &Meter) -> bool {
        self.vital.is_silent(now) && (self.in_flight() == 0 || self.vital.is_outlived(pool))
    }

    /// Its calls are about to end: as those of a dead connection.
    pub(super) fn bury(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    /// What a call's end without an answer means.
    fn lost(&self, error: &h2::Error) -> Failure {
        if !self.dead.load(Ordering::Relaxed) {
            return lost(error);
        }
        Failure {
            processed: Processed::Maybe,
            code: "silent",
            detail: "the connection gave no answer to a PING".to_owned(),
            again: self.told.swap(true, Ordering::Relaxed),
        }
    }

    /// Makes one call.
    pub(super) async fn call(
        &self,
        request: Request<()>,
        body: Bytes,
        written: &Written,
    ) -> Result<Response, Failure> {
        let answer = self.begin(request, body, written)?;
        let (head, body) = answer.await.map_err(|error| self.lost(&error))?.into_parts();
        let first = self.mark_answered(head.status);
        let body = read(body).await?;
        Ok(Response {
            status: head.status,
            headers: head.headers,
            body,
            connection: self.id,
            first_of_connection: first,
        })
    }

    /// Hands the whole request to h2; its driver writes it.
    fn begin(
        &self,
        mut request: Request<()>,
        body: Bytes,
        written: &Written,
    ) -> Result<ResponseFuture, Failure> {
        *request.version_mut() = http::Version::HTTP_2;
        let mut sender = self.sender();
        let Some(sender) = sender.as_mut() else { return Err(unsent("retired".to_owned())) };
        written.set();
        let (answer, mut stream) = sender
            .send_request(request, body.is_empty())
            .map_err(|error| unsent(error.to_string()))?;
        if !body.is_empty() {
            // Fails only when the stream has ended already, and the answer's
            // future then has the reason.
            let _ended = stream.send_data(body, true);
        }
        Ok(answer)
    }

    /// Whether it is the connection's first answer.
    fn mark_answered(&self, status: StatusCode) -> bool {
        if status != StatusCode::UNAUTHORIZED && status != StatusCode::FORBIDDEN {
            self.proven.store(true, Ordering::Relaxed);
        }
        // A swap for each answer would pass the cache line around.
        !self.has_answered() && !self.answered.swap(true, Ordering::Relaxed)
    }

    /// Takes over what the peer allows; whether it is more than before.
    pub(super) fn set_peer_limit(&self, limit: usize) -> bool {
        limit > self.peer_limit.swap(limit, Ordering::Relaxed)
    }

    fn sender(&self) -> std::sync::MutexGuard<'_, Option<SendRequest<Bytes>>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a body up to its cut. Dropping the rest of a stream resets it.
async fn read(mut stream: RecvStream) -> Result<Bytes, Failure> {
    if stream.is_end_stream() {
        return Ok(Bytes::new());
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk.map_err(|error| cut(&error))?;
        // Fails only on more than what was received.
        let _given = stream.flow_control().release_capacity(chunk.len());
        if first.is_empty() {
            first = chunk;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&chunk);
        }
        if first.len().max(rest.len()) >= MAX_BODY {
            break;
        }
    }
    let mut body = if rest.is_empty() { first } else { rest.freeze() };
    body.truncate(MAX_BODY);
    Ok(body)
}

/// What the end of a stream without an answer says about processing. RFC 9113
/// sections 6.8 and 8.7 name the two proofs that a request was not processed; a
/// remote GOAWAY is h2's error only on streams above its last stream id.
fn lost(error: &h2::Error) -> Failure {
    if error.is_go_away() && error.is_remote() {
        let detail = readable(&error.to_string());
        return Failure { processed: Processed::No, code: "goaway", detail, again: false };
    }
    let refused = error.is_reset() && error.is_remote();
    if refused && error.reason() == Some(Reason::REFUSED_STREAM) {
        let detail = error.to_string();
        return Failure { processed: Processed::No, code: "refused_stream", detail, again: false };
    }
    cut(error)
}

/// The request was taken, or may have been.
fn cut(error: &h2::Error) -> Failure {
    let code = if error.is_reset() {
        "reset"
    } else if error.is_io() {
        "closed"
    } else {
        "protocol"
    };
    let detail = readable(&error.to_string());
    Failure { processed: Processed::Maybe, code, detail, again: false }
}

pub(super) fn unsent(detail: String) -> Failure {
    Failure { processed: Processed::No, code: "closed", detail, again: false }
}

/// h2 prints a GOAWAY's debug data escaped, as `(b"{\"reason\":\"…\"}")`.
pub(super) fn readable(text: &str) -> String {
    text.replace("\\\"", "\"").replace("(b\"", "(").replace("\")", ")")
}
