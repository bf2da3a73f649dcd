//! The record of a delivery's progress: a few dozen bytes for one that went well.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::{
    Undecodable, outcome_from, outcome_number, reason_from, reason_number, state_from, state_number,
};
use crate::clock::Utc;
use crate::model::{Attempt, Excluded, PassedOver, Progress};

#[derive(Serialize, Deserialize)]
pub(super) struct StoredProgress<'a> {
    state: u8,
    at: u64,
    reason: Option<u8>,
    provider: Option<&'a str>,
    provider_message_id: Option<&'a str>,
    next_at: Option<u64>,
    counted: u16,
    tries: u32,
    rounds: u16,
    ambiguous: u16,
    crashes: u8,
    #[serde(borrow)]
    excluded: SmallVec<[StoredExcluded<'a>; 1]>,
    attempts: SmallVec<[StoredAttempt<'a>; 1]>,
}

#[derive(Serialize, Deserialize)]
enum StoredExcluded<'a> {
    Kind(&'a str),
    Candidate { provider: &'a str, address: u8, gone: bool, until: Option<u64> },
}

#[derive(Serialize, Deserialize)]
struct StoredAttempt<'a> {
    n: u32,
    provider: &'a str,
    kind: &'a str,
    address: u8,
    outcome: u8,
    status: Option<u16>,
    code: Option<&'a str>,
    detail: Option<&'a str>,
    started_at: u64,
    latency_ms: u32,
}

impl<'a> From<&'a Progress> for StoredProgress<'a> {
    fn from(progress: &'a Progress) -> Self {
        let Progress {
            state,
            reason,
            provider,
            provider_message_id,
            next_at,
            attempts,
            counted,
            tries,
            rounds,
            ambiguous,
            crashes,
            excluded,
            at,
            alone: _,
            replayed_at: _,
            passed_over: _,
        } = progress;
        Self {
            state: state_number(*state),
            at: at.ms(),
            reason: reason.map(reason_number),
            provider: provider.as_deref(),
            provider_message_id: provider_message_id.as_deref(),
            next_at: next_at.map(Utc::ms),
            counted: *counted,
            tries: *tries,
            rounds: *rounds,
            ambiguous: *ambiguous,
            crashes: *crashes,
            excluded: excluded.iter().map(StoredExcluded::from).collect(),
            attempts: attempts.iter().map(StoredAttempt::from).collect(),
        }
    }
}

impl StoredProgress<'_> {
    pub(super) fn into_progress(self) -> Result<Progress, Undecodable> {
        Ok(Progress {
            state: state_from(self.state)?,
            reason: self.reason.map(reason_from).transpose()?,
            provider: self.provider.map(Arc::from),
            provider_message_id: self.provider_message_id.map(Arc::from),
            next_at: self.next_at.map(Utc::from_ms),
            attempts: self
                .attempts
                .into_iter()
                .map(StoredAttempt::into_attempt)
                .collect::<Result<_, _>>()?,
            counted: self.counted,
            tries: self.tries,
            rounds: self.rounds,
            ambiguous: self.ambiguous,
            crashes: self.crashes,
            excluded: self.excluded.into_iter().map(StoredExcluded::into_excluded).collect(),
            at: Utc::from_ms(self.at),
            alone: 0,
            replayed_at: None,
            passed_over: None,
        })
    }
}

/// What few deliveries have.
#[derive(Serialize, Deserialize)]
pub(super) struct More {
    alone: u8,
    replayed_at: Option<u64>,
}

impl More {
    pub(super) fn of(progress: &Progress) -> Option<Self> {
        let Progress { alone, replayed_at, ref passed_over, .. } = *progress;
        // Who was passed over stands behind it.
        let any = alone > 0 || replayed_at.is_some() || passed_over.is_some();
        any.then(|| Self { alone, replayed_at: replayed_at.map(Utc::ms) })
    }

    pub(super) fn add_to(self, progress: &mut Progress) {
        progress.alone = self.alone;
        progress.replayed_at = self.replayed_at.map(Utc::from_ms);
    }
}

/// Behind [`More`], of those that went to a lesser tier first.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredPassedOver<'a> {
    provider: &'a str,
    reason: &'a str,
}

impl<'a> From<&'a PassedOver> for StoredPassedOver<'a> {
    fn from(PassedOver { provider, reason }: &'a PassedOver) -> Self {
        Self { provider, reason }
    }
}

impl From<StoredPassedOver<'_>> for PassedOver {
    fn from(StoredPassedOver { provider, reason }: StoredPassedOver<'_>) -> Self {
        Self { provider: provider.into(), reason: reason.into() }
    }
}

impl<'a> From<&'a Excluded> for StoredExcluded<'a> {
    fn from(excluded: &'a Excluded) -> Self {
        match excluded {
            Excluded::Kind(kind) => Self::Kind(kind),
            Excluded::Candidate { provider, address, gone, until } => Self::Candidate {
                provider,
                address: *address,
                gone: *gone,
                until: until.map(Utc::ms),
            },
        }
    }
}

impl StoredExcluded<'_> {
    fn into_excluded(self) -> Excluded {
        match self {
            Self::Kind(kind) => Excluded::Kind(kind.into()),
            Self::Candidate { provider, address, gone, until } => Excluded::Candidate {
                provider: provider.into(),
                address,
                gone,
                until: until.map(Utc::from_ms),
            },
        }
    }
}

impl<'a> From<&'a Attempt> for StoredAttempt<'a> {
    fn from(attempt: &'a Attempt) -> Self {
        let Attempt {
            n,
            provider,
            kind,
            address,
            outcome,
            status,
            code,
            detail,
            started_at,
            latency_ms,
        } = attempt;
        Self {
            n: *n,
            provider,
            kind,
            address: *address,
            outcome: outcome_number(*outcome),
            status: *status,
            code: code.as_deref(),
            detail: detail.as_deref(),
            started_at: started_at.ms(),
            latency_ms: *latency_ms,
        }
    }
}

impl StoredAttempt<'_> {
    fn into_attempt(self) -> Result<Attempt, Undecodable> {
        Ok(Attempt {
            n: self.n,
            provider: self.provider.into(),
            kind: self.kind.into(),
            address: self.address,
            outcome: outcome_from(self.outcome)?,
            status: self.status,
            code: self.code.map(Arc::from),
            detail: self.detail.map(Arc::from),
            started_at: Utc::from_ms(self.started_at),
            latency_ms: self.latency_ms,
        })
    }
}
