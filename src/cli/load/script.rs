//! Faults by a timetable: what happens to which vendor when.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::Failure;
use super::control::Control;

/// A change of a vendor's behaviour.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    /// When, from the run's beginning.
    pub(crate) at: Duration,
    /// Which vendor.
    pub(crate) vendor: String,
    /// How it behaves from then on, as the control port wants it.
    pub(crate) behaviour: Value,
    /// The same in words.
    pub(crate) says: String,
}

/// Carries out the steps, which are in order of time, and tells of each.
pub(crate) async fn play(
    steps: &[Step],
    begun: Instant,
    control: &mut Control,
    mut tell: impl FnMut(&Step),
) -> Result<(), Failure> {
    for step in steps {
        tokio::time::sleep_until((begun + step.at).into()).await;
        control.behave(&step.vendor, &step.behaviour).await?;
        tell(step);
    }
    Ok(())
}
