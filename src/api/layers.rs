//! What every request to a listener meets before its handler, one layer a subject.
//!
//! They are written as plain `tower` layers instead of being put together from
//! `tower-http` where that would cost more than the few lines here: an id that is
//! checked before it is taken over, a count with the route's template, and a
//! bound that turns requests away at once, and that a streaming answer can keep
//! to itself until it ends.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::MatchedPath;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use axum::response::IntoResponse;
use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Layer, Service};

use super::problem::{Code, Problem};
use crate::dispatch::Limits;
use crate::telemetry::Telemetry;

/// The header that names a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Every answer carries `X-Request-Id`: the caller's, if it sent one of 1 to 128
/// printable characters, else a new one.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestId;

/// Every answer is counted by listener, route template and status.
#[derive(Clone, Debug)]
pub struct Observe {
    telemetry: Arc<Telemetry>,
    listener: &'static str,
}

impl Observe {
    /// Counts as requests to this listener.
    pub fn new(telemetry: Arc<Telemetry>, listener: &'static str) -> Self {
        Self { telemetry, listener }
    }
}

/// At most so many requests at once; more are refused, not queued: a queue here
/// would only make everyone slow.
#[derive(Clone, Debug)]
pub struct Admit(Arc<Semaphore>);

impl Admit {
    /// One bound for all routes that this same layer is put around.
    pub fn new(max_requests: usize) -> Self {
        Self(Arc::new(Semaphore::new(max_requests.min(Semaphore::MAX_PERMITS))))
    }
}

/// A header beyond these bounds is 431, without a body. hyper bounds headers too,
/// higher ([`HEADROOM`]): what it refuses itself has no `X-Request-Id`.
#[derive(Clone, Copy, Debug)]
pub struct HeaderLimit {
    headers: usize,
    bytes: usize,
}

impl HeaderLimit {
    /// As configured.
    pub fn new(limits: &Limits) -> Self {
        Self { headers: limits.max_headers, bytes: limits.max_header_bytes as usize }
    }

    fn exceeded(&self, headers: &HeaderMap) -> bool {
        let bytes: usize =
            headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        headers.len() > self.headers || bytes > self.bytes
    }
}

/// How many times the configured bounds of headers the HTTP layer itself takes.
pub const HEADROOM: usize = 2;

/// A request's place among those at once; a handler whose answer streams keeps a
/// clone until the end.
#[derive(Clone, Debug)]
pub(super) struct Permit(#[expect(dead_code, reason = "held")] Arc<OwnedSemaphorePermit>);

/// A layer's service: the layer and what is inside.
#[derive(Clone, Debug)]
pub struct Around<L, S> {
    layer: L,
    inner: S,
}

impl<S> Layer<S> for RequestId {
    type Service = Around<Self, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Around { layer: *self, inner }
    }
}

impl<S> Layer<S> for Observe {
    type Service = Around<Self, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Around { layer: self.clone(), inner }
    }
}

impl<S> Layer<S> for HeaderLimit {
    type Service = Around<Self, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Around { layer: *self, inner }
    }
}

impl<S> Layer<S> for Admit {
    type Service = Around<Self, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Around { layer: self.clone(), inner }
    }
}

type Answer<B> = BoxFuture<'static, Result<Response<B>, Infallible>>;

impl<S, In, Out> Service<Request<In>> for Around<RequestId, S>
where
    S: Service<Request<In>, Response = Response<Out>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Out>;
    type Error = Infallible;
    type Future = Answer<Out>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<In>) -> Self::Future {
        let id = request.headers().get(REQUEST_ID).filter(|id| printable(id)).cloned();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            // A layer further in has given one to what it answered.
            let headers = response.headers_mut();
            headers.entry(REQUEST_ID).or_insert_with(|| id.unwrap_or_else(new_id));
            Ok(response)
        })
    }
}

fn printable(id: &HeaderValue) -> bool {
    (1..=128).contains(&id.len()) && id.as_bytes().iter().all(|byte| (0x20..0x7f).contains(byte))
}

fn new_id() -> HeaderValue {
    let id = format!("{:032x}", rand::random::<u128>());
    HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("0"))
}

impl<S, In, Out> Service<Request<In>> for Around<Observe, S>
where
    S: Service<Request<In>, Response = Response<Out>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Out>;
    type Error = Infallible;
    type Future = Answer<Out>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<In>) -> Self::Future {
        let path = request.extensions().get::<MatchedPath>().cloned();
        let Observe { telemetry, listener } = self.layer.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            let path = path.as_ref().map_or("other", MatchedPath::as_str);
            telemetry.request(listener, path, response.status().as_u16());
            Ok(response)
        })
    }
}

impl<S, In, Out> Service<Request<In>> for Around<HeaderLimit, S>
where
    S: Service<Request<In>, Response = Response<Out>, Error = Infallible>,
    S::Future: Send + 'static,
    Out: Default + Send + 'static,
{
    type Response = Response<Out>;
    type Error = Infallible;
    type Future = Answer<Out>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<In>) -> Self::Future {
        if self.layer.exceeded(request.headers()) {
            let mut response = Response::new(Out::default());
            *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            return Box::pin(std::future::ready(Ok(response)));
        }
        Box::pin(self.inner.call(request))
    }
}

impl<S, In> Service<Request<In>> for Around<Admit, S>
where
    S: Service<Request<In>, Response = axum::response::Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = axum::response::Response;
    type Error = Infallible;
    type Future = Answer<axum::body::Body>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<In>) -> Self::Future {
        let Ok(permit) = Arc::clone(&self.layer.0).try_acquire_owned() else {
            let detail = "too many requests at once (limits.max_requests); try again";
            return Box::pin(
                async move { Ok(Problem::new(Code::Overloaded, detail).into_response()) },
            );
        };
        let permit = Permit(Arc::new(permit));
        request.extensions_mut().insert(permit.clone());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let _permit = permit;
            answer.await
        })
    }
}
