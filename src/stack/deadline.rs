//! One attempt's deadline. Cutting a call makes its end ambiguous if a byte of
//! it may have left; that is why the message's ttl never shortens it.

use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use pushyard_providers::{Answer, Outcome, Processed};
use tower::Service;

use super::{Attempt, Refused};

#[derive(Clone)]
pub(super) struct Deadline<S> {
    pub(super) inner: S,
    pub(super) timeout: Duration,
}

impl<S> Service<Attempt> for Deadline<S>
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
        let (timeout, written) = (self.timeout, attempt.call.written.clone());
        let call = self.inner.call(attempt);
        Box::pin(async move {
            match tokio::time::timeout(timeout, call).await {
                Ok(answer) => answer,
                Err(_) => Ok(cut(written.is_set(), timeout)),
            }
        })
    }
}

fn cut(written: bool, timeout: Duration) -> Answer {
    let (outcome, processed) = if written {
        (Outcome::Ambiguous, Processed::Maybe)
    } else {
        (Outcome::Unavailable, Processed::No)
    };
    let detail = format!("no answer within {}", humantime::format_duration(timeout));
    Answer::new(outcome).processed(processed).code("timeout").detail(&detail)
}
