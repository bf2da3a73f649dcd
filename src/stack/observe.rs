//! Measures a call: how long it took and what it meant. The outermost layer, so
//! that it sees what the engine sees.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use pushyard_providers::{Answer, Outcome};
use tower::Service;

use super::{Attempt, Refused};
use crate::clock::Clock;

/// Where a call's measure goes; the names of the metrics are telemetry's.
#[derive(Clone)]
pub struct Meter {
    /// Tells the time.
    pub clock: Arc<Clock>,
    /// Takes the measure.
    pub record: Arc<dyn Fn(Outcome, Duration) + Send + Sync>,
}

#[derive(Clone)]
pub(super) struct Observe<S> {
    pub(super) inner: S,
    pub(super) meter: Meter,
}

impl<S> Service<Attempt> for Observe<S>
where
    S: Service<Attempt, Response = Answer, Error = Refused>,
    S::Future: Send + 'static,
{
    type Response = Answer;
    type Error = Refused;
    type Future = BoxFuture<'static, Result<Answer, Refused>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Refused>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        let meter = self.meter.clone();
        let started = meter.clock.now().instant;
        let call = self.inner.call(attempt);
        Box::pin(async move {
            let answer = call.await?;
            let took = meter.clock.now().instant.saturating_duration_since(started);
            (meter.record)(answer.outcome, took);
            Ok(answer)
        })
    }
}
