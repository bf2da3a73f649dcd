//! The layers around one call to a provider, read downwards in the order in
//! which the call meets them.
//!
//! The engine decides across calls; a layer looks after one call and keeps no
//! verdict of its own. So there is no limit, no breaker and no retry here: those
//! come with the call's permit.

mod admit;
mod deadline;
mod observe;
mod reauthenticate;
mod repeat;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use pushyard_providers::{Answer, Call, Provider};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder};

use crate::routing::{Permit, ProviderIndex};

pub use observe::Meter;

/// One attempt: a call and the right to make it.
#[derive(Clone)]
pub struct Attempt {
    /// From the board.
    pub permit: Permit,
    /// What to send to whom.
    pub call: Call,
}

/// No call was made: the permit was for another provider. It is no attempt and
/// counts against nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// A provider behind its layers.
pub type ProviderStack = BoxCloneSyncService<Attempt, Answer, Refused>;

/// Puts the layers around a provider.
pub fn stack(
    index: ProviderIndex,
    provider: &Arc<dyn Provider>,
    timeout: Duration,
    meter: &Meter,
) -> ProviderStack {
    let service = ServiceBuilder::new()
        .layer_fn(|inner| observe::Observe { inner, meter: meter.clone() })
        // No permit from the board for this provider, no call.
        .layer_fn(|inner| admit::Admit { inner, provider: index })
        // A byte may have left: ambiguous. None did: unavailable.
        .layer_fn(|inner| deadline::Deadline { inner, timeout })
        // A refused credential that can be renewed: one refresh, one repeat.
        .layer_fn(|inner| reauthenticate::Reauthenticate { inner, provider: provider.clone() })
        // Certainly not processed by the peer: once more, on a fresh connection.
        .layer_fn(|inner| repeat::RepeatUnprocessed { inner })
        .service(Sender(provider.clone()));
    BoxCloneSyncService::new(service)
}

/// The innermost service: the provider itself.
#[derive(Clone)]
struct Sender(Arc<dyn Provider>);

impl Service<Attempt> for Sender {
    type Response = Answer;
    type Error = Refused;
    type Future = BoxFuture<'static, Result<Answer, Refused>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refused>> {
        // Whether a call may be made is the permit's to say.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        let provider = self.0.clone();
        Box::pin(async move { Ok(provider.send(&attempt.call).await) })
    }
}

#[cfg(test)]
mod tests;
