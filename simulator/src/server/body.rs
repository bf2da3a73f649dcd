//! The body of a request on an HTTP/2 stream.
//!
//! A push comes in one DATA frame, and then its bytes are passed on as they are.
//! What comes in pieces is put together, up to a length that no vendor takes a
//! tenth of; beyond that only the length is counted, so that a huge body gets
//! its vendor's answer and costs no memory.

use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use h2::RecvStream;

use crate::vendor::Body;

/// The most that is kept of a body in pieces.
pub(super) const MAX_BODY: usize = 64 * 1024;

/// A body on its way.
pub(super) struct Reading {
    body: RecvStream,
    first: Option<Bytes>,
    rest: BytesMut,
    length: usize,
}

impl Reading {
    pub(super) fn new(body: RecvStream) -> Self {
        Self { body, first: None, rest: BytesMut::new(), length: 0 }
    }

    /// Ready with the body, or with nothing when the stream broke off.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Body>> {
        while !self.body.is_end_stream() {
            match self.body.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => self.add(data),
                Poll::Ready(Some(Err(_))) => return Poll::Ready(None),
                Poll::Ready(None) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        let bytes = match self.first.take() {
            Some(first) if self.rest.is_empty() => first,
            _ => std::mem::take(&mut self.rest).freeze(),
        };
        Poll::Ready(Some(Body { bytes, length: self.length }))
    }

    fn add(&mut self, data: Bytes) {
        // What is read is given back to the window; an error means that the
        // stream has ended, which the next poll tells.
        let _ = self.body.flow_control().release_capacity(data.len());
        self.length += data.len();
        match self.first.take() {
            None if self.rest.is_empty() => self.first = Some(data),
            first => {
                self.rest.extend_from_slice(&first.unwrap_or_default());
                let room = MAX_BODY.saturating_sub(self.rest.len()).min(data.len());
                self.rest.extend_from_slice(&data[..room]);
            }
        }
    }
}
