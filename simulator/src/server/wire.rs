//! The bytes of a connection, between TLS and HTTP.
//!
//! An HTTP library serves politely: it answers PINGs, closes in order, and
//! writes the GOAWAY that it thinks right. A vendor in trouble does none of
//! that, and even a healthy APNs does what the `h2` crate has no call for: it
//! raises the stream limit of a live connection. So this stands below the
//! library and can fall silent, end with a reset, put a frame of its own on the
//! wire, and change the limit that a SETTINGS frame announces.
//!
//! It is also where breaches of the stream limit are seen. Only here is it known
//! in which order the client's HEADERS and our own last frames crossed the wire;
//! the library hides both behind its queues.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::frames::{self, ACK, Frames, HEADERS, Head, PING, RST_STREAM, SETTINGS};
use crate::ledger::lock;

/// The preface that an HTTP/2 client begins with (RFC 9113, section 3.4).
const CLIENT_PREFACE: usize = 24;

/// What the owner of a connection tells its wire, and hears from it.
#[derive(Default)]
pub(super) struct Signals {
    /// Swallow what is written, discard what is read.
    silent: AtomicBool,
    /// End with a reset.
    reset: AtomicBool,
    /// The stream limit that the next SETTINGS frame announces; 0: none.
    announce: AtomicU32,
    /// Frames to write at the next boundary.
    frames: Mutex<VecDeque<Vec<u8>>>,
    has_frames: AtomicBool,
    /// Streams that were opened beyond the limit.
    breaches: Mutex<Vec<u32>>,
    has_breaches: AtomicBool,
    /// PINGs of the client.
    pings: AtomicU32,
}

impl Signals {
    pub(super) fn fall_silent(&self) {
        self.silent.store(true, Relaxed);
    }

    pub(super) fn reset_at_end(&self) {
        self.reset.store(true, Relaxed);
    }

    /// Puts a frame on the wire when the library next flushes.
    pub(super) fn send(&self, frame: Vec<u8>) {
        lock(&self.frames).push_back(frame);
        self.has_frames.store(true, Relaxed);
    }

    /// Changes the limit in the next SETTINGS frame that the library sends.
    pub(super) fn announce(&self, limit: u32) {
        self.announce.store(limit, Relaxed);
    }

    /// PINGs that have come since this was last asked.
    pub(super) fn take_pings(&self) -> u32 {
        self.pings.swap(0, Relaxed)
    }

    /// Whether this stream was opened too early.
    pub(super) fn is_breach(&self, stream: u32) -> bool {
        if !self.has_breaches.load(Relaxed) {
            return false;
        }
        let mut breaches = lock(&self.breaches);
        let found = breaches.iter().position(|breach| *breach == stream);
        if let Some(found) = found {
            breaches.swap_remove(found);
            self.has_breaches.store(!breaches.is_empty(), Relaxed);
        }
        found.is_some()
    }
}

/// A connection's bytes.
pub(super) struct Wire {
    io: TlsStream<TcpStream>,
    signals: Arc<Signals>,
    /// `None` on a connection that does not speak HTTP/2.
    flow: Option<Flow>,
    /// Bytes of our own that are on their way out.
    held: Vec<u8>,
    held_from: usize,
}

/// Both directions of an HTTP/2 connection.
struct Flow {
    inbound: Frames,
    outbound: Frames,
    /// The limit that the client has acknowledged.
    limit: u32,
    /// Limits that it has been told and has not acknowledged, oldest first. Until
    /// then it may act on the old one or on the new one (RFC 9113, section 6.5.3).
    unacknowledged: VecDeque<u32>,
    open: u32,
    newest: u32,
}

impl Wire {
    /// A wire under HTTP/2 whose client may open so many streams at first.
    pub(super) fn http2(io: TlsStream<TcpStream>, limit: u32) -> (Self, Arc<Signals>) {
        let (mut wire, signals) = Self::http1(io);
        wire.flow = Some(Flow {
            inbound: Frames::after(CLIENT_PREFACE),
            outbound: Frames::after(0),
            limit,
            unacknowledged: VecDeque::new(),
            open: 0,
            newest: 0,
        });
        signals.announce(limit);
        (wire, signals)
    }

    /// A wire under HTTP/1.1.
    pub(super) fn http1(io: TlsStream<TcpStream>) -> (Self, Arc<Signals>) {
        let signals = Arc::new(Signals::default());
        let wire =
            Self { io, signals: Arc::clone(&signals), flow: None, held: Vec::new(), held_from: 0 };
        (wire, signals)
    }

    fn hold(&mut self, bytes: &[u8]) {
        self.held.drain(..self.held_from);
        self.held_from = 0;
        self.held.extend_from_slice(bytes);
    }

    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.held_from < self.held.len() {
            let rest = &self.held[self.held_from..];
            let n = ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held_from += n;
        }
        Poll::Ready(Ok(()))
    }
}

impl Flow {
    fn received(&mut self, bytes: &[u8], signals: &Signals) {
        let Self { inbound, limit, unacknowledged, open, newest, .. } = self;
        inbound.pass(bytes, |head| {
            if head.kind == HEADERS && head.stream > *newest {
                *newest = head.stream;
                *open += 1;
                let most = unacknowledged.iter().fold(*limit, |most, told| most.max(*told));
                if *open > most {
                    lock(&signals.breaches).push(head.stream);
                    signals.has_breaches.store(true, Relaxed);
                }
            } else if head.kind == SETTINGS && head.flags & ACK != 0 {
                if let Some(acknowledged) = unacknowledged.pop_front() {
                    *limit = acknowledged;
                }
            } else if head.kind == RST_STREAM {
                *open = open.saturating_sub(1);
            } else if head.kind == PING && head.flags & ACK == 0 {
                signals.pings.fetch_add(1, Relaxed);
            }
        });
    }

    fn sent(&mut self, bytes: &[u8]) {
        let open = &mut self.open;
        self.outbound.pass(bytes, |head: Head| {
            if head.ends_stream() {
                *open = open.saturating_sub(1);
            }
        });
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.signals.silent.load(Relaxed) {
            let mut scratch = [0; 2048];
            let mut discarded = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut discarded))?;
            if discarded.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        if let Some(flow) = &mut this.flow {
            flow.received(&buf.filled()[before..], &this.signals);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.signals.silent.load(Relaxed) {
            return Poll::Ready(Ok(buf.len()));
        }
        ready!(this.poll_held(cx))?;
        let limit = this.signals.announce.load(Relaxed);
        if let Some(flow) = &mut this.flow
            && limit != 0
            && let Some((at, length)) = flow.outbound.settings_in(buf)
        {
            let frame = buf.get(at..at + 9 + length);
            if at > 0 {
                // What stands before it goes first.
                buf = &buf[..at];
            } else if let Some(frame) = frame {
                flow.sent(frame);
                flow.unacknowledged.push_back(limit);
                this.signals.announce.store(0, Relaxed);
                let written = frame.len();
                let announced = frames::announce(frame, limit);
                this.hold(&announced);
                // What is left of it is written before anything else.
                if let Poll::Ready(Err(error)) = this.poll_held(cx) {
                    return Poll::Ready(Err(error));
                }
                return Poll::Ready(Ok(written));
            }
        }
        let n = ready!(Pin::new(&mut this.io).poll_write(cx, buf))?;
        if let Some(flow) = &mut this.flow {
            flow.sent(&buf[..n]);
        }
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.signals.silent.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_held(cx))?;
        let at_boundary = this.flow.as_ref().is_some_and(|flow| flow.outbound.at_boundary());
        if at_boundary && this.signals.has_frames.swap(false, Relaxed) {
            let frames: Vec<u8> = lock(&this.signals.frames).drain(..).flatten().collect();
            this.hold(&frames);
            ready!(this.poll_held(cx))?;
        }
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.signals.silent.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_held(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.signals.reset.load(Relaxed) {
            // Should it fail the connection just ends politely.
            let _ = self.io.get_ref().0.set_zero_linger();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8) -> [u8; 9] {
        [0, 0, 0, kind, flags, 0, 0, 0, stream]
    }

    #[test]
    fn a_lower_limit_binds_the_client_once_it_has_acknowledged_it() {
        let signals = Signals::default();
        let mut flow = Flow {
            inbound: Frames::after(0),
            outbound: Frames::after(0),
            limit: 2,
            unacknowledged: VecDeque::from([1]),
            open: 0,
            newest: 0,
        };
        flow.received(&frame(HEADERS, 0, 1), &signals);
        flow.received(&frame(HEADERS, 0, 3), &signals);
        flow.received(&frame(SETTINGS, ACK, 0), &signals);
        flow.received(&frame(HEADERS, 0, 5), &signals);
        assert!(!signals.is_breach(1) && !signals.is_breach(3));
        assert!(signals.is_breach(5));
        // A higher one may be used before that.
        flow.unacknowledged.push_back(10);
        flow.received(&frame(HEADERS, 0, 7), &signals);
        assert!(!signals.is_breach(7));
    }
}
