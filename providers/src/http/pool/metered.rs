//! Counts the bytes of a socket, under TLS, and remembers when the last one came.
//!
//! A stall is "requests in flight and not one byte from the peer": seen here
//! even an answer to a PING, or half a TLS record, is a sign of life. Only not
//! before the peer's SETTINGS: whatever stands in front of a dead service
//! accepts connections, and shakes hands, for as long as one likes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::clock::instant;

/// Bytes in both directions.
#[derive(Debug)]
pub(super) struct Meter {
    read: AtomicU64,
    written: AtomicU64,
    /// The pool's birth, which microseconds count from: a living neighbour answers
    /// within a millisecond, and that must not look like the time of the question.
    born: Instant,
    /// When the last byte came that is a sign of life.
    heard_us: AtomicU64,
    /// Whether the peer's SETTINGS have come.
    settled: AtomicBool,
}

impl Meter {
    pub(super) fn new(born: Instant) -> Self {
        Self {
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            born,
            heard_us: AtomicU64::new(0),
            settled: AtomicBool::new(false),
        }
    }

    pub(super) fn born(&self) -> Instant {
        self.born
    }

    /// The last sign of life, in microseconds of the pool's age; 0 before the first.
    pub(super) fn heard_us(&self) -> u64 {
        self.heard_us.load(Ordering::Relaxed)
    }

    fn hear(&self, now_us: u64) {
        self.heard_us.store(now_us, Ordering::Relaxed);
    }

    fn now_us(&self) -> u64 {
        instant().saturating_duration_since(self.born).as_micros() as u64
    }

    /// The peer's SETTINGS have come over this connection: it lives, and from
    /// here on every byte of it says so.
    pub(super) fn settle(&self, pool: &Self) {
        self.settled.store(true, Ordering::Relaxed);
        let now = self.now_us();
        self.hear(now);
        pool.hear(now);
    }

    pub(super) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}

/// A socket that counts into its own meter and its pool's.
#[derive(Debug)]
pub(super) struct Metered<T> {
    inner: T,
    own: Arc<Meter>,
    pool: Arc<Meter>,
}

impl<T> Metered<T> {
    pub(super) fn new(inner: T, own: Arc<Meter>, pool: Arc<Meter>) -> Self {
        Self { inner, own, pool }
    }

    fn wrote(&self, result: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = result {
            self.own.written.fetch_add(*bytes as u64, Ordering::Relaxed);
            self.pool.written.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        let bytes = (buf.filled().len() - before) as u64;
        if bytes > 0 {
            self.own.read.fetch_add(bytes, Ordering::Relaxed);
            self.pool.read.fetch_add(bytes, Ordering::Relaxed);
            if self.own.settled.load(Ordering::Relaxed) {
                let now = self.own.now_us();
                self.own.hear(now);
                self.pool.hear(now);
            }
        }
        result
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
