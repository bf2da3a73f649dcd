//! A request that the peer's application certainly did not process is repeated
//! once, at once: gRPC calls it a transparent retry. It is no attempt: nothing is
//! counted. What never reached a connection is not repeated here; failing over
//! is quicker than connecting again.

use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use pushyard_providers::{Answer, Processed};
use tower::{Service, ServiceExt};

use super::{Attempt, Refused};

#[derive(Clone)]
pub(super) struct RepeatUnprocessed<S> {
    pub(super) inner: S,
}

impl<S> Service<Attempt> for RepeatUnprocessed<S>
where
    S: Service<Attempt, Response = Answer, Error = Refused> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Answer;
    type Error = Refused;
    type Future = BoxFuture<'static, Result<Answer, Refused>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Refused>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        let mut again = self.inner.clone();
        let first = self.inner.call(attempt.clone());
        Box::pin(async move {
            let answer = first.await?;
            let reached = attempt.call.written.is_set();
            if answer.processed == Processed::No && reached {
                return again.ready().await?.call(attempt).await;
            }
            Ok(answer)
        })
    }
}
