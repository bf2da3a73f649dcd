//! What the stand-ins of self-hosted servers have in common: what an address
//! asks for, in the vendor's own words of refusal, and a bounded history.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::{Act, Answer, Excess, Streams, Verdict, html_answer};
use crate::faults::Quirk;
use crate::ledger::{Key, lock};

/// An ordinary web server's limit.
pub(super) const STREAMS: Streams =
    Streams { at_first: 250, proven: 250, relapses: false, excess: Excess::Refuse };

/// A refusal that an address asks for.
#[derive(Clone, Copy)]
pub(super) enum No {
    Gone,
    Bad,
    Throttled(Option<u64>),
    Internal,
    Unavailable,
    Unauthorised,
}

/// What becomes of a request that is good, if its address does not ask for a fault.
pub(super) fn judge(address: &str, key: Key, ok: Answer, refuse: impl Fn(No) -> Answer) -> Verdict {
    let no = |no| Verdict::refuse(refuse(no));
    match Quirk::of(address) {
        None => Verdict::take(key, Act::Answer(ok)),
        Some(Quirk::Gone) => no(No::Gone),
        Some(Quirk::Bad) => no(No::Bad),
        Some(Quirk::Throttled { retry_after_s }) => no(No::Throttled(retry_after_s)),
        Some(Quirk::Internal) => no(No::Internal),
        Some(Quirk::Unavailable) => no(No::Unavailable),
        Some(Quirk::Unauthorised) => no(No::Unauthorised),
        Some(Quirk::Slow(delay)) => Verdict::take(key, Act::Answer(ok)).after(delay),
        Some(Quirk::Hang) => Verdict::take(key, Act::Silence),
        Some(Quirk::Lost) => Verdict::take(key, Act::Cut),
        Some(Quirk::Reset) => Verdict::end(Act::Reset),
        Some(Quirk::Goaway) => Verdict::end(Act::Goaway),
        Some(Quirk::Html502) => Verdict::refuse(html_answer(http::StatusCode::BAD_GATEWAY)),
    }
}

/// The last of something; the oldest goes when it is full.
pub(super) struct Recent<T>(Mutex<VecDeque<T>>);

impl<T: Clone> Recent<T> {
    const CAPACITY: usize = 1000;

    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    pub(super) fn keep(&self, item: T) {
        let mut items = lock(&self.0);
        if items.len() >= Self::CAPACITY {
            items.pop_front();
        }
        items.push_back(item);
    }

    /// Oldest first.
    pub(super) fn all(&self) -> Vec<T> {
        lock(&self.0).iter().cloned().collect()
    }
}
