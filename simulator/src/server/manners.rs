//! What a vendor expects of a connection beside its requests: that it is used,
//! and that it is not pinged all the time.
//!
//! Google's front end closes an idle connection with GOAWAY `session_timed_out`
//! (codedge-llc/pigeon issue 81) and one that is pinged too often with GOAWAY
//! `too_many_pings` (issues 52 and 92 there). As in gRPC's servers, where the
//! latter comes from, two early PINGs are forgiven.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::clock;

/// Early PINGs that are forgiven.
const FORGIVEN: u32 = 2;

/// A vendor's rules. The default has none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    /// How long a connection may be without a request, and the debug text of the
    /// GOAWAY then.
    pub(crate) idle: Option<(Duration, &'static str)>,
    /// How far apart PINGs must be, and the debug text of the GOAWAY otherwise.
    pub(crate) pings: Option<(Duration, &'static str)>,
    /// The debug text of a GOAWAY without a fault.
    pub(crate) farewell: &'static str,
}

/// How one connection has behaved.
pub(super) struct Manners {
    rules: Rules,
    idle: Option<Pin<Box<Sleep>>>,
    last_request: Instant,
    last_ping: Option<Instant>,
    early: u32,
}

impl Manners {
    pub(super) fn new(rules: Rules) -> Self {
        let now = clock::instant();
        let idle = rules.idle.map(|(limit, _)| Box::pin(tokio::time::sleep_until(now + limit)));
        Self { rules, idle, last_request: now, last_ping: None, early: 0 }
    }

    pub(super) fn farewell(&self) -> &'static str {
        self.rules.farewell
    }

    /// A request has come.
    pub(super) fn busy(&mut self) {
        if self.idle.is_some() {
            self.last_request = clock::instant();
        }
    }

    /// The farewell of a connection that was idle for too long, once.
    pub(super) fn poll_idle(&mut self, cx: &mut Context<'_>) -> Option<&'static str> {
        let (limit, farewell) = self.rules.idle?;
        loop {
            let sleep = self.idle.as_mut()?;
            if sleep.as_mut().poll(cx) == Poll::Pending {
                return None;
            }
            // Requests do not move the alarm; it looks at them when it rings.
            let until = self.last_request + limit;
            if until <= clock::instant() {
                self.idle = None;
                return Some(farewell);
            }
            sleep.as_mut().reset(until);
        }
    }

    /// The rebuke for PINGs that came too soon after others.
    pub(super) fn pinged(&mut self, pings: u32) -> Option<&'static str> {
        let (spacing, rebuke) = self.rules.pings.filter(|_| pings > 0)?;
        let now = clock::instant();
        let early = self.last_ping.is_some_and(|last| now.duration_since(last) < spacing);
        self.last_ping = Some(now);
        self.early += u32::from(early) + (pings - 1);
        (self.early > FORGIVEN).then_some(rebuke)
    }
}
