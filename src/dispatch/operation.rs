//! What an operator can order at run time.

use std::sync::Arc;

use crate::clock::Utc;
use crate::routing::OverrideSpec;

/// An order. It is in force, and kept over restarts, when it has been answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Of a provider.
    Provider {
        /// Its id.
        id: Arc<str>,
        /// What is to become of it.
        wish: Wish,
        /// In the operator's words.
        reason: Option<String>,
        /// The order ends then by itself.
        until: Option<Utc>,
    },
    /// Deliveries of a route wait, or go on.
    RoutePause {
        /// Its name.
        route: Arc<str>,
        /// Whether they wait.
        paused: bool,
    },
    /// A client's new messages are refused and its deliveries wait, or go on.
    ClientPause {
        /// Its name.
        client: Arc<str>,
        /// Whether they wait.
        paused: bool,
    },
    /// A route is changed, or as configured again.
    RouteOverride {
        /// Its name.
        route: Arc<str>,
        /// How; `None`: as configured.
        change: Option<OverrideSpec>,
    },
}

/// What is to become of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing new goes there; what is in flight ends.
    Drain,
    /// The same, and it comes back on probation.
    Eject,
    /// It is used again; where it was ejected, on probation.
    Resume,
}

impl Wish {
    /// What the operator does.
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Eject => "eject",
            Self::Resume => "resume",
        }
    }
}

/// Why an order was not taken. Nothing is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no provider, route or client of that name.
    Unknown,
    /// There is nothing to take back.
    Nothing,
    /// The server is going down.
    ShuttingDown,
}
