//! What has become of a delivery: its state, why, and the attempts so far.

use std::sync::Arc;

use pushyard_providers::Outcome;
use serde::{Deserialize, Serialize};

use crate::clock::Utc;

/// A delivery's state; a message's derived state uses the same words and `Partial`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Stored, not yet tried.
    Queued,
    /// An attempt is in flight.
    Sending,
    /// Tried; the next attempt is scheduled or waits for a provider.
    Waiting,
    /// A vendor accepted it.
    Sent,
    /// The device said that it has it.
    Delivered,
    /// It cannot be delivered.
    Failed,
    /// Its life ended first.
    Expired,
    /// The backend took it back, or a newer message took its place.
    Cancelled,
    /// An attempt's end is unknown and the message forbids another.
    Unknown,
    /// Of a message only: its deliveries ended in different states.
    Partial,
}

impl State {
    /// All states of a delivery.
    pub const DELIVERY: [Self; 9] = [
        Self::Queued,
        Self::Sending,
        Self::Waiting,
        Self::Sent,
        Self::Delivered,
        Self::Failed,
        Self::Expired,
        Self::Cancelled,
        Self::Unknown,
    ];

    /// The word used in API, metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sending => "sending",
            Self::Waiting => "waiting",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
            Self::Partial => "partial",
        }
    }

    /// Whether it is final but for a receipt or a replay.
    pub const fn settled(self) -> bool {
        match self {
            Self::Queued | Self::Sending | Self::Waiting => false,
            Self::Sent
            | Self::Delivered
            | Self::Failed
            | Self::Expired
            | Self::Cancelled
            | Self::Unknown
            | Self::Partial => true,
        }
    }
}

/// Why a delivery is where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Every candidate is ejected, paused or drained; woken when one is usable.
    Parked,
    /// The configuration has no provider for it any more.
    NoCandidate,
    /// A vendor asked to wait.
    Throttled,
    /// Waiting for its next round.
    Backoff,
    /// No vendor can take the message.
    Invalid,
    /// Every address is gone.
    Unreachable,
    /// No provider of the route serves any of its addresses.
    NoRoute,
    /// The guard against endless repeats.
    AttemptsExhausted,
    /// It was in flight at too many crashes.
    Poison,
    /// Its life ended.
    Ttl,
    /// A newer message of the same collapse key took its place.
    Superseded,
    /// The backend cancelled it.
    CancelledByClient,
    /// An attempt's end is unknown.
    Ambiguous,
    /// A fault of ours.
    Internal,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 14] = [
        Self::Parked,
        Self::NoCandidate,
        Self::Throttled,
        Self::Backoff,
        Self::Invalid,
        Self::Unreachable,
        Self::NoRoute,
        Self::AttemptsExhausted,
        Self::Poison,
        Self::Ttl,
        Self::Superseded,
        Self::CancelledByClient,
        Self::Ambiguous,
        Self::Internal,
    ];

    /// The word used in API, metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Parked => "parked",
            Self::NoCandidate => "no_candidate",
            Self::Throttled => "throttled",
            Self::Backoff => "backoff",
            Self::Invalid => "invalid",
            Self::Unreachable => "unreachable",
            Self::NoRoute => "no_route",
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::Poison => "poison",
            Self::Ttl => "ttl",
            Self::Superseded => "superseded",
            Self::CancelledByClient => "cancelled_by_client",
            Self::Ambiguous => "ambiguous",
            Self::Internal => "internal",
        }
    }
}

/// One call to one provider, as recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Counted from 1 over the delivery's life.
    pub n: u32,
    /// The provider's id.
    pub provider: Arc<str>,
    /// The address kind.
    pub kind: Arc<str>,
    /// Which of the recipient's addresses.
    pub address: u8,
    /// What came of it.
    pub outcome: Outcome,
    /// HTTP status, if one came.
    pub status: Option<u16>,
    /// The vendor's code.
    pub code: Option<Arc<str>>,
    /// One line for people.
    pub detail: Option<Arc<str>>,
    /// When the call began.
    pub started_at: Utc,
    /// How long it took.
    pub latency_ms: u32,
}

/// What has become of a delivery so far: its record in the store. A delivery
/// without one is `queued`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Where it is.
    pub state: State,
    /// Why.
    pub reason: Option<Reason>,
    /// The provider that accepted it, or was tried last.
    pub provider: Option<Arc<str>>,
    /// The accepting vendor's id for it.
    pub provider_message_id: Option<Arc<str>>,
    /// When it is tried again, if a time is set.
    pub next_at: Option<Utc>,
    /// The latest attempts, oldest first, at most [`Progress::KEPT_ATTEMPTS`].
    pub attempts: Vec<Attempt>,
    /// Attempts so far that count against the guard.
    pub counted: u16,
    /// All attempts so far.
    pub tries: u32,
    /// Rounds through the candidates so far.
    pub rounds: u16,
    /// Attempts whose end is unknown.
    pub ambiguous: u16,
    /// Unclean ends of the process in a row at which it was in flight.
    pub crashes: u8,
    /// Those of them at which it was the only suspect in flight.
    pub alone: u8,
    /// When an operator had it tried again: its life began anew then.
    pub replayed_at: Option<Utc>,
    /// Candidates that are not tried again for this delivery.
    pub excluded: Vec<Excluded>,
    /// Who of a better tier could not be used when it was tried first.
    #[serde(default)]
    pub passed_over: Option<PassedOver>,
    /// When its state last changed.
    pub at: Utc,
}

impl Progress {
    /// Attempts whose detail is kept.
    pub const KEPT_ATTEMPTS: usize = 16;

    /// Of a delivery that has just been accepted.
    pub fn queued(at: Utc) -> Self {
        Self {
            state: State::Queued,
            reason: None,
            provider: None,
            provider_message_id: None,
            next_at: None,
            attempts: Vec::new(),
            counted: 0,
            tries: 0,
            rounds: 0,
            ambiguous: 0,
            crashes: 0,
            alone: 0,
            replayed_at: None,
            excluded: Vec::new(),
            passed_over: None,
            at,
        }
    }

    /// Adds an attempt and drops the oldest beyond what is kept.
    pub fn record(&mut self, attempt: Attempt) {
        self.tries = attempt.n;
        if self.attempts.len() == Self::KEPT_ATTEMPTS {
            self.attempts.remove(0);
        }
        self.attempts.push(attempt);
    }
}

/// A provider that stood before the one that was tried first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    /// Its id.
    pub provider: Arc<str>,
    /// Why it could not be used, in the word of explain: `ejected`, `throttled`, …
    pub reason: Arc<str>,
}

/// A candidate that a delivery does not use again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Excluded {
    /// Every address of this kind: the vendor cannot take the message.
    Kind(Arc<str>),
    /// This address at this provider: gone there, or a mismatch.
    Candidate {
        /// The provider's id.
        provider: Arc<str>,
        /// Which of the recipient's addresses.
        address: u8,
        /// Whether the vendor said that the address is gone.
        gone: bool,
        /// From then on it may be tried again; `None`: never.
        until: Option<Utc>,
    },
}

/// A message's state, derived from its deliveries' states.
pub fn message_state(states: impl IntoIterator<Item = State>) -> State {
    let (mut any, mut untouched, mut unsettled) = (false, true, false);
    let mut common: Option<State> = None;
    let mut mixed = false;
    for state in states {
        any = true;
        untouched &= state == State::Queued;
        unsettled |= !state.settled();
        common = match common {
            None => Some(state),
            Some(seen) if seen == state => Some(seen),
            // Some delivered and some sent: all have been sent.
            Some(State::Sent | State::Delivered)
                if matches!(state, State::Sent | State::Delivered) =>
            {
                Some(State::Sent)
            }
            seen @ Some(_) => {
                mixed = true;
                seen
            }
        };
    }
    match common {
        Some(_) if any && untouched => State::Queued,
        Some(_) if unsettled => State::Sending,
        Some(state) if !mixed => state,
        Some(_) => State::Partial,
        None => State::Queued,
    }
}

#[cfg(test)]
mod tests {
    use super::State::{
        Cancelled, Delivered, Expired, Failed, Partial, Queued, Sending, Sent, Waiting,
    };
    use super::{State, message_state};

    #[test]
    fn a_messages_state_follows_from_its_deliveries() {
        let cases: [(&[State], State); 9] = [
            (&[Queued, Queued], Queued),
            (&[Queued, Sent], Sending),
            (&[Waiting, Failed], Sending),
            (&[Queued, Failed], Sending),
            (&[Sent, Delivered], Sent),
            (&[Delivered, Delivered], Delivered),
            (&[Expired, Expired], Expired),
            (&[Cancelled, Sent], Partial),
            (&[Sending], Sending),
        ];
        for (states, expected) in cases {
            assert_eq!(message_state(states.iter().copied()), expected, "{states:?}");
        }
    }
}
