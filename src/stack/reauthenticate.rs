//! A refused credential that can be renewed: one single-flight refresh, one
//! repeat. A call that was made with an older credential than the present one is
//! repeated without a refresh; the provider knows which that is.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use pushyard_providers::{Answer, Outcome, Provider};
use tower::{Service, ServiceExt};

use super::{Attempt, Refused};

#[derive(Clone)]
pub(super) struct Reauthenticate<S> {
    pub(super) inner: S,
    pub(super) provider: Arc<dyn Provider>,
}

impl<S> Service<Attempt> for Reauthenticate<S>
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
        let (mut again, provider) = (self.inner.clone(), self.provider.clone());
        let first = self.inner.call(attempt.clone());
        Box::pin(async move {
            let answer = first.await?;
            let stale = answer.outcome == Outcome::AuthFailed && answer.refreshable;
            if stale && provider.refresh(answer.credential).await {
                return again.ready().await?.call(attempt).await;
            }
            Ok(answer)
        })
    }
}
