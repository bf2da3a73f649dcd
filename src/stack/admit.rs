//! No permit from the board for this provider, no call.

use std::task::{Context, Poll};

use futures_util::future::{Either, Ready, ready};
use pushyard_providers::Answer;
use tower::Service;

use super::{Attempt, Refused};
use crate::routing::ProviderIndex;

#[derive(Clone)]
pub(super) struct Admit<S> {
    pub(super) inner: S,
    pub(super) provider: ProviderIndex,
}

impl<S: Service<Attempt, Response = Answer, Error = Refused>> Service<Attempt> for Admit<S> {
    type Response = Answer;
    type Error = Refused;
    type Future = Either<S::Future, Ready<Result<Answer, Refused>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Refused>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        if attempt.permit.provider() == self.provider {
            Either::Left(self.inner.call(attempt))
        } else {
            Either::Right(ready(Err(Refused)))
        }
    }
}
