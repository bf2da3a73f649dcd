//! The last requests of a vendor, as they came.
//!
//! Every request of a benchmark passes here, so keeping one must not allocate:
//! each slot is a buffer that is written over, in the plain text of HTTP/1.1
//! (which HTTP/2 requests have as well as any, once their frames are undone).
//! Keeping the parsed request instead, which looks cheaper, held on to a dozen
//! small allocations a request until another core freed them. Credentials are kept
//! too: they are the simulator's own, and a test may want to look at them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::request;

use crate::ledger::lock;

/// The most of a body that is kept: three times what any vendor takes.
const MAX_BODY: usize = 16 * 1024;

/// A ring of requests.
pub(crate) struct RequestLog {
    slots: Vec<Mutex<Slot>>,
    next: AtomicU64,
}

#[derive(Default)]
struct Slot {
    /// One more than the number of the request; 0: none.
    nth: u64,
    at_ms: u64,
    connection: u64,
    text: Vec<u8>,
    /// Where in the text the body begins.
    body: usize,
}

/// A request as it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) at_ms: u64,
    pub(crate) connection: u64,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl RequestLog {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { slots: (0..capacity).map(|_| Mutex::default()).collect(), next: AtomicU64::new(0) }
    }

    /// Keeps a request in the place of the oldest one.
    pub(crate) fn keep(&self, at_ms: u64, connection: u64, head: &request::Parts, body: &[u8]) {
        let nth = self.next.fetch_add(1, Relaxed);
        let Some(slot) = self.slots.get((nth % self.slots.len().max(1) as u64) as usize) else {
            return;
        };
        let mut slot = lock(slot);
        slot.nth = nth + 1;
        slot.at_ms = at_ms;
        slot.connection = connection;
        let text = &mut slot.text;
        text.clear();
        text.extend_from_slice(head.method.as_str().as_bytes());
        text.push(b' ');
        let path = head.uri.path_and_query();
        text.extend_from_slice(path.map_or("", |path| path.as_str()).as_bytes());
        for (name, value) in &head.headers {
            // Neither names nor values can contain a line's end.
            text.push(b'\n');
            text.extend_from_slice(name.as_str().as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value.as_bytes());
        }
        let begin = text.len();
        text.extend_from_slice(&body[..body.len().min(MAX_BODY)]);
        slot.body = begin;
    }

    /// The last requests, newest first.
    pub(crate) fn last(&self, limit: usize) -> Vec<Logged> {
        let mut all: Vec<_> = self
            .slots
            .iter()
            .filter_map(|slot| {
                let slot = lock(slot);
                (slot.nth > 0).then(|| (slot.nth, slot.read()))
            })
            .collect();
        all.sort_by_key(|(nth, _)| std::cmp::Reverse(*nth));
        all.truncate(limit);
        all.into_iter().map(|(_, logged)| logged).collect()
    }

    pub(crate) fn clear(&self) {
        for slot in &self.slots {
            *lock(slot) = Slot::default();
        }
    }
}

impl Slot {
    fn read(&self) -> Logged {
        let (head, body) = self.text.split_at(self.body);
        let head = String::from_utf8_lossy(head);
        let mut lines = head.split('\n');
        let first = lines.next().unwrap_or_default();
        let (method, path) = first.split_once(' ').unwrap_or((first, ""));
        Logged {
            at_ms: self.at_ms,
            connection: self.connection,
            method: method.to_owned(),
            path: path.to_owned(),
            headers: lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body: body.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(log: &RequestLog, path: &str) {
        let request = http::Request::post(path)
            .header("authorization", "bearer secret")
            .header("apns-topic", "a: b")
            .body(())
            .unwrap();
        log.keep(7, 3, &request.into_parts().0, b"body\nof two lines");
    }

    #[test]
    fn request_reads_as_it_came() {
        let log = RequestLog::new(2);
        kept(&log, "/3/device/00?x=1");
        let logged = &log.last(9)[0];
        assert_eq!((logged.method.as_str(), logged.path.as_str()), ("POST", "/3/device/00?x=1"));
        assert_eq!((logged.at_ms, logged.connection), (7, 3));
        let headers = [("authorization", "bearer secret"), ("apns-topic", "a: b")];
        let expected = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(logged.headers, expected);
        assert_eq!(logged.body, b"body\nof two lines");
    }

    #[test]
    fn newest_come_first_and_the_oldest_goes() {
        let log = RequestLog::new(2);
        for path in ["/1", "/2", "/3"] {
            kept(&log, path);
        }
        let paths: Vec<_> = log.last(9).into_iter().map(|logged| logged.path).collect();
        assert_eq!(paths, ["/3", "/2"]);
        log.clear();
        assert!(log.last(9).is_empty());
    }

    #[test]
    fn log_of_no_length_keeps_nothing() {
        let log = RequestLog::new(0);
        kept(&log, "/1");
        assert!(log.last(9).is_empty());
    }
}
