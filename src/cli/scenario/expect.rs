//! What a scenario expects: a figure, the part of the run that it is of, and its
//! bounds. `docs/game-days.md` says how each figure is measured.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::read::{some_duration, some_station};

/// What one figure must be.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct Expect {
    pub(in crate::cli) figure: Spanned<Figure>,
    /// The vendor or provider that it is of.
    #[serde(default, deserialize_with = "some_station")]
    pub(in crate::cli) of: Option<String>,
    /// With this reason alone, where it is about states.
    #[serde(default)]
    pub(in crate::cli) reason: Option<String>,
    /// The streams of this name alone, where it is about messages.
    #[serde(default)]
    pub(in crate::cli) traffic: Option<Spanned<String>>,
    /// The part of the run that it is about; open ends are those of the run.
    #[serde(default, deserialize_with = "some_duration")]
    pub(in crate::cli) from: Option<Duration>,
    #[serde(default, deserialize_with = "some_duration")]
    pub(in crate::cli) to: Option<Duration>,
    /// Where the part ends that it is compared with; none: with the first step.
    #[serde(default, deserialize_with = "some_duration")]
    pub(in crate::cli) baseline_to: Option<Duration>,
    /// The unsettled deliveries from which memory is counted.
    #[serde(default = "hundred_thousand")]
    pub(in crate::cli) unsettled_from: u64,
    #[serde(default)]
    pub(in crate::cli) at_most: Option<f64>,
    #[serde(default)]
    pub(in crate::cli) at_least: Option<f64>,
}

/// What can be expected.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(in crate::cli) enum Figure {
    Lost,
    Duplicates,
    DuplicatesBeyondAmbiguous,
    Ambiguous,
    AcceptP99Ms,
    AcceptP99Times,
    SentP99Ms,
    SentP99Times,
    #[serde(rename = "sent_within_5s_share")]
    SentWithin5sShare,
    SentShare,
    FailoverP99Ms,
    EjectedAfterS,
    PartEjectedAfterS,
    DegradedAfterS,
    HealthyAfterS,
    Ejections,
    StateChanges,
    ExtraCallsShare,
    Calls,
    CallsPerS,
    CallsBeyondInFlight,
    Refreshes,
    TakenPerS,
    TakenShare,
    RefusedShare,
    FirstTakenAfterS,
    GoneReported,
    InFlightOverRamp,
    RssMaxMib,
    RssPerDeliveryBytes,
}

impl Figure {
    /// Whether it is about messages, so that it can be of some streams alone.
    pub(super) fn is_of_messages(self) -> bool {
        matches!(
            self,
            Self::AcceptP99Ms
                | Self::AcceptP99Times
                | Self::SentP99Ms
                | Self::SentP99Times
                | Self::SentWithin5sShare
                | Self::SentShare
                | Self::FailoverP99Ms
                | Self::CallsBeyondInFlight
        )
    }

    /// Whether it compares with an earlier part of the run.
    pub(super) fn has_baseline(self) -> bool {
        matches!(self, Self::AcceptP99Times | Self::SentP99Times)
    }

    /// Whether it is of the attempts of single messages, which are read one by one.
    pub(in crate::cli) fn is_of_attempts(self) -> bool {
        matches!(self, Self::FailoverP99Ms | Self::CallsBeyondInFlight)
    }
}

fn hundred_thousand() -> u64 {
    100_000
}
