//! `--fault apns:failing:5s-15s`: one vendor's misbehaviour, and the phases that
//! it makes of a run.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use pushyard_simulator::Mode;
use serde_json::{Value, json};

use crate::cli::load::script::Step;

/// `Retry-After` of a throttling vendor, in seconds. Vendors seldom ask for
/// less, and a run is short.
const RETRY_AFTER_S: u64 = 1;

/// A vendor in a mode for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    vendor: String,
    mode: Mode,
    from: Duration,
    to: Duration,
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, ':');
        let (Some(vendor), Some(mode), Some(span)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err("write VENDOR:MODE:FROM-TO, such as apns:failing:5s-15s".to_owned());
        };
        if !["apns", "fcm"].contains(&vendor) {
            return Err(format!("unknown vendor {vendor:?}; there are apns, fcm"));
        }
        let mode = Mode::ALL.into_iter().find(|known| known.word() == mode).ok_or_else(|| {
            let known = Mode::ALL.map(Mode::word).join(", ");
            format!("unknown mode {mode:?}; there are {known}")
        })?;
        let (from, to) =
            span.split_once('-').ok_or_else(|| format!("{span:?} is not FROM-TO, as 5s-15s"))?;
        let time = |text: &str| {
            humantime::parse_duration(text).map_err(|error| format!("{text:?}: {error}"))
        };
        let (from, to) = (time(from)?, time(to)?);
        if from >= to {
            return Err(format!("{span:?} ends before it begins"));
        }
        Ok(Self { vendor: vendor.to_owned(), mode, from, to })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.from.as_secs_f64(), self.to.as_secs_f64());
        write!(f, "{}:{}:{from}s-{to}s", self.vendor, self.mode.word())
    }
}

/// A part of a run, as the faults divide it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No fault has begun.
    Before,
    /// Some fault is on.
    During,
    /// No fault is on any more, or none for the moment.
    After,
}

impl Phase {
    /// All of them, in order.
    pub(super) const ALL: [Self; 3] = [Self::Before, Self::During, Self::After];

    /// The phase of a moment, from the run's beginning.
    pub(super) fn at(time: Duration, faults: &[Fault]) -> Self {
        if faults.iter().any(|fault| (fault.from..fault.to).contains(&time)) {
            Self::During
        } else if faults.iter().all(|fault| time < fault.from) {
            Self::Before
        } else {
            Self::After
        }
    }

    /// Its name in tables.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::During => "during",
            Self::After => "after",
        }
    }
}

/// The faults as steps in order of time.
pub(super) fn steps(faults: &[Fault]) -> Vec<Step> {
    let step = |fault: &Fault, at, mode| Step {
        at,
        vendor: fault.vendor.clone(),
        behaviour: behaviour(mode),
        says: format!("{} {}", fault.vendor, mode.word()),
    };
    let mut steps: Vec<_> = faults
        .iter()
        .flat_map(|fault| {
            [step(fault, fault.from, fault.mode), step(fault, fault.to, Mode::Healthy)]
        })
        .collect();
    // Stable: where one fault ends as the next begins, the order is as written.
    steps.sort_by_key(|step| step.at);
    steps
}

fn behaviour(mode: Mode) -> Value {
    match mode {
        Mode::Throttling => json!({"mode": mode.word(), "retry_after_s": RETRY_AFTER_S}),
        Mode::Healthy
        | Mode::Slow
        | Mode::Failing
        | Mode::Unauthorised
        | Mode::Blackhole
        | Mode::Refusing
        | Mode::Unreachable
        | Mode::Reset
        | Mode::Goaway
        | Mode::Tls => json!({"mode": mode.word()}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Fault {
        text.parse().unwrap()
    }

    #[test]
    fn fault_is_read_and_shown_the_same() {
        for text in ["apns:failing:5s-15s", "fcm:throttling:0s-60s"] {
            assert_eq!(fault(text).to_string(), text);
        }
        assert_eq!(fault("apns:slow:500ms-1m").to_string(), "apns:slow:0.5s-60s");
    }

    #[test]
    fn mistakes_are_named_with_what_there_is() {
        for (text, wanted) in [
            ("apns", "VENDOR:MODE:FROM-TO"),
            ("apnt:failing:5s-15s", "apns, fcm"),
            ("apns:falling:5s-15s", "failing"),
            ("apns:failing:5s", "FROM-TO"),
            ("apns:failing:5-15", "5"),
            ("apns:failing:15s-5s", "ends before it begins"),
        ] {
            let error = text.parse::<Fault>().unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn phases_follow_the_faults() {
        let faults = [fault("apns:failing:5s-10s"), fault("fcm:slow:20s-25s")];
        let phase = |seconds| Phase::at(Duration::from_secs(seconds), &faults);
        assert_eq!(phase(4), Phase::Before);
        assert_eq!(phase(5), Phase::During);
        assert_eq!(phase(10), Phase::After);
        assert_eq!(phase(22), Phase::During);
        assert_eq!(phase(30), Phase::After);
        assert_eq!(Phase::at(Duration::ZERO, &[]), Phase::Before);
    }

    #[test]
    fn steps_are_in_order_of_time_whatever_the_order_of_options() {
        let steps = steps(&[fault("fcm:throttling:20s-25s"), fault("apns:failing:5s-10s")]);
        let seconds: Vec<_> = steps.iter().map(|step| step.at.as_secs()).collect();
        assert_eq!(seconds, [5, 10, 20, 25]);
        assert_eq!(steps[1].behaviour, json!({"mode": "healthy"}));
        assert_eq!(steps[2].behaviour["retry_after_s"], 1);
    }
}
