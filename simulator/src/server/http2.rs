//! One HTTP/2 connection.
//!
//! One future serves it all: it accepts streams, and answers on the spot what
//! can be answered on the spot, which under load is every request (the body
//! comes in the same read as the headers). Only what has to wait becomes a
//! future of its own, in one `FuturesUnordered`; there is no task for a request.
//! This is what lets a benchmark measure the router and not its stand-in.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{Request, request};
use tokio::sync::watch;
use tokio::time::Instant;

use super::allowed::Allowed;
use super::body::Reading;
use super::course::{Plan, World};
use super::frames;
use super::manners::Manners;
use super::wire::{Signals, Wire};
use crate::clock;
use crate::faults::Behaviour;
use crate::station::{Counts, InFlight, sleep_until};
use crate::vendor::{Act, Answer, Body, Excess, Vendor};

/// The window of a stream and the one of a connection: no push comes near, so
/// that no client ever waits for one.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 1 << 26;

/// How long a connection stays for its client to close it after a GOAWAY.
const LINGER: Duration = Duration::from_secs(1);

/// Serves a connection until it ends.
pub(super) async fn serve<V: Vendor>(
    world: Arc<World<V>>,
    session: V::Session,
    (wire, signals): (Wire, Arc<Signals>),
    mut watch: watch::Receiver<Behaviour>,
    number: u64,
) {
    let streams = world.vendor.streams(&session);
    let handshake = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        // The wire announces the real limit and sees breaches of it; this one
        // is only to bound what a client can make us hold.
        .max_concurrent_streams(streams.proven.saturating_mul(2).saturating_add(1000))
        .handshake::<_, Bytes>(wire);
    let connection = tokio::select! {
        connection = handshake => connection,
        // A vendor that goes away does not wait for a preface.
        _ = watch.wait_for(|now| now.mutes() || now.mode.hangs_up()) => return,
    };
    if let Ok(connection) = connection {
        let behaviour = *watch.borrow();
        let mut serving = Serving {
            connection,
            signals,
            behaviour: changed(watch),
            waiting: FuturesUnordered::new(),
            stirred: false,
            allowed: Allowed::new(streams, &behaviour),
            number,
            began: clock::instant(),
            last_taken: 0,
            newest: 0,
            answers: 0,
            manners: Manners::new(world.vendor.manners()),
            cutoff: None,
            abandoned: Vec::new(),
            end: End::None,
            session,
            world,
        };
        serving.age(&behaviour);
        serving.await;
    }
}

struct Serving<V: Vendor> {
    connection: Connection<Wire, Bytes>,
    signals: Arc<Signals>,
    world: Arc<World<V>>,
    session: V::Session,
    /// As its requests are logged.
    number: u64,
    began: Instant,
    behaviour: BoxFuture<'static, watch::Receiver<Behaviour>>,
    waiting: FuturesUnordered<BoxFuture<'static, Next>>,
    /// Something was queued that the connection or `waiting` has not seen.
    stirred: bool,
    allowed: Allowed,
    /// The highest stream that was processed.
    last_taken: u32,
    /// The highest stream that was begun.
    newest: u32,
    /// Streams that were answered.
    answers: u32,
    manners: Manners,
    /// Streams above were disowned by a GOAWAY.
    cutoff: Option<u32>,
    /// Streams that nothing more is said on.
    abandoned: Vec<SendResponse<Bytes>>,
    end: End,
}

enum End {
    None,
    /// Once what is written is flushed.
    AfterFlush,
    /// Once nothing is waiting: then linger.
    WhenIdle,
    /// At the end of the lingering.
    Lingering,
}

/// A stream with what belongs to it.
struct Stream {
    respond: SendResponse<Bytes>,
    flight: InFlight,
    /// Whether its credential was good.
    proves: bool,
}

impl Stream {
    fn id(&self) -> u32 {
        self.respond.stream_id().as_u32()
    }
}

/// What a waiting future ends with.
enum Next {
    /// The body is complete.
    Arrived(Stream, request::Parts, Body),
    /// The time to take it has come.
    Take(Stream, Plan),
    /// The time to end it has come.
    Act(Stream, Act),
    /// The client gave it up.
    Gone,
    /// The client had its time to close.
    Lingered,
    /// The connection may be old enough to go away.
    Aged,
}

impl<V: Vendor> Future for Serving<V> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        while let Poll::Ready(watch) = this.behaviour.as_mut().poll(cx) {
            let behaviour = *watch.borrow();
            this.behaviour = changed(watch);
            if this.follow(&behaviour) {
                return Poll::Ready(());
            }
        }
        if let Some(farewell) = this.manners.poll_idle(cx) {
            this.go_away(this.newest, Reason::NO_ERROR, farewell);
        }
        loop {
            while !this.waiting.is_empty()
                && let Poll::Ready(Some(next)) = this.waiting.poll_next_unpin(cx)
            {
                if matches!(next, Next::Lingered) {
                    return Poll::Ready(());
                }
                this.proceed(next);
            }
            this.stirred = false;
            match this.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    this.begin(request, respond, cx);
                    continue;
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            let pings = this.signals.take_pings();
            if let Some(rebuke) = this.manners.pinged(pings) {
                this.go_away(this.newest, Reason::ENHANCE_YOUR_CALM, rebuke);
            }
            this.announce_limit();
            match this.end {
                // Accepting has flushed.
                End::AfterFlush => return Poll::Ready(()),
                End::WhenIdle if this.waiting.is_empty() && !this.stirred => this.linger(),
                End::None | End::WhenIdle | End::Lingering => {}
            }
            if !this.stirred {
                return Poll::Pending;
            }
        }
    }
}

impl<V: Vendor> Serving<V> {
    /// Takes up a new behaviour; true when it ends the connection.
    fn follow(&mut self, behaviour: &Behaviour) -> bool {
        self.allowed.most = behaviour.max_streams;
        self.age(behaviour);
        if behaviour.mutes() {
            // Nothing that is not taken yet will be.
            self.waiting.clear();
            self.signals.fall_silent();
            self.end = End::Lingering;
            return false;
        }
        // A connection that fell silent stays so; it ends with the silence, so
        // that nothing which was sent into it is ever taken.
        behaviour.mode.hangs_up() || matches!(self.end, End::Lingering)
    }

    /// A new stream.
    fn begin(
        &mut self,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        cx: &mut Context<'_>,
    ) {
        if matches!(self.end, End::AfterFlush | End::Lingering) {
            return self.abandoned.push(respond);
        }
        let (head, body) = request.into_parts();
        let station = self.world.vendor.station(head.uri.path());
        let flight = InFlight::new(station, self.number);
        let stream = Stream { flight, respond, proves: false };
        if self.signals.is_breach(stream.id()) {
            return self.breach(stream);
        }
        if self.disowned(stream.id()) {
            return self.abandon(stream);
        }
        self.newest = self.newest.max(stream.id());
        self.manners.busy();
        let mut reading = Reading::new(body);
        match reading.poll(cx) {
            Poll::Ready(Some(body)) => self.arrived(stream, &head, &body),
            Poll::Ready(None) => {}
            Poll::Pending => self.wait(async move {
                match std::future::poll_fn(|cx| reading.poll(cx)).await {
                    Some(body) => Next::Arrived(stream, head, body),
                    None => Next::Gone,
                }
            }),
        }
    }

    fn breach(&mut self, mut stream: Stream) {
        Counts::add(&stream.flight.station.counts.breaches);
        match self.allowed.streams.excess {
            Excess::Refuse => {
                stream.respond.send_reset(Reason::REFUSED_STREAM);
                self.stirred = true;
            }
            Excess::Goaway(debug) => {
                self.go_away_below(stream, Reason::ENHANCE_YOUR_CALM, debug);
            }
        }
    }

    fn proceed(&mut self, next: Next) {
        match next {
            Next::Arrived(stream, ..) | Next::Take(stream, _) if self.disowned(stream.id()) => {
                self.abandon(stream);
            }
            Next::Arrived(stream, head, body) => self.arrived(stream, &head, &body),
            Next::Take(stream, plan) => self.take(stream, plan),
            Next::Act(stream, act) => self.act(stream, act),
            Next::Aged => self.grow_old(),
            Next::Gone | Next::Lingered => {}
        }
    }

    /// Looks again when the connection is as old as the vendor lets one be.
    fn age(&mut self, behaviour: &Behaviour) {
        if let Some(age) = behaviour.goaway_after_age {
            let until = self.began + age;
            self.wait(async move {
                sleep_until(Some(until)).await;
                Next::Aged
            });
        }
    }

    fn grow_old(&mut self) {
        let most = self.world.vendor.front().behaviour().goaway_after_age;
        let is_old = most.is_some_and(|most| clock::instant() >= self.began + most);
        if is_old && self.cutoff.is_none() {
            self.go_away(self.newest, Reason::NO_ERROR, self.manners.farewell());
        }
    }

    fn arrived(&mut self, mut stream: Stream, head: &request::Parts, body: &Body) {
        let plan = self.world.plan(&mut self.session, &stream.flight, head, body);
        stream.proves = plan.proves;
        if plan.delay.is_zero() {
            self.take(stream, plan);
        } else {
            self.wait(pause(plan.delay, stream, |stream| Next::Take(stream, plan)));
        }
    }

    fn take(&mut self, stream: Stream, plan: Plan) {
        if let Some(key) = plan.take {
            self.world.take(key, &stream.flight);
            self.last_taken = self.last_taken.max(stream.id());
        }
        let act = plan.act;
        if plan.ack_delay.is_zero() {
            self.act(stream, act);
        } else {
            self.wait(pause(plan.ack_delay, stream, |stream| Next::Act(stream, act)));
        }
    }

    fn act(&mut self, mut stream: Stream, act: Act) {
        self.stirred = true;
        match act {
            Act::Answer(answer) => self.answer(stream, answer),
            Act::AnswerAndGoaway(answer, debug) => {
                let last = stream.id().max(self.last_taken);
                self.answer(stream, answer);
                self.go_away(last, Reason::NO_ERROR, debug);
            }
            Act::Silence => self.wait(async move {
                // Held whole, so that the stream stays open and counts as in
                // flight, until the client is done with it.
                let mut stream = stream;
                let reset = std::future::poll_fn(|cx| stream.respond.poll_reset(cx));
                let _ = reset.await;
                Next::Gone
            }),
            Act::Cut => {
                self.abandon(stream);
                self.end = End::AfterFlush;
            }
            Act::Reset => {
                self.abandon(stream);
                self.signals.reset_at_end();
                self.end = End::AfterFlush;
            }
            Act::RefuseStream => stream.respond.send_reset(Reason::REFUSED_STREAM),
            Act::Goaway => self.go_away_below(stream, Reason::NO_ERROR, ""),
        }
    }

    fn answer(&mut self, mut stream: Stream, answer: Answer) {
        self.last_taken = self.last_taken.max(stream.id());
        let (head, body) = answer.into_parts();
        let head = http::Response::from_parts(head, ());
        self.answers = self.answers.saturating_add(1);
        self.allowed.answered(head.status(), stream.proves);
        let behaviour = stream.flight.station.behaviour();
        if behaviour.goaway_after.is_some_and(|most| self.answers >= most) && self.cutoff.is_none()
        {
            self.go_away(self.newest, Reason::NO_ERROR, self.manners.farewell());
        }
        // An error here means that the client has closed the stream.
        if let Ok(mut sending) = stream.respond.send_response(head, body.is_empty())
            && !body.is_empty()
        {
            let _ = sending.send_data(body, true);
        }
    }

    /// Disowns a stream with a GOAWAY. What was processed above it cannot be
    /// disowned: then the stream is refused by itself, which says the same.
    fn go_away_below(&mut self, mut stream: Stream, reason: Reason, debug: &str) {
        let below = stream.id().saturating_sub(2);
        if self.last_taken > below {
            stream.respond.send_reset(Reason::REFUSED_STREAM);
        } else {
            self.abandon(stream);
        }
        self.go_away(below.max(self.last_taken), reason, debug);
    }

    fn go_away(&mut self, last: u32, reason: Reason, debug: &str) {
        self.stirred = true;
        // A later GOAWAY may only lower it (RFC 9113, section 6.8).
        let last = self.cutoff.map_or(last, |cutoff| cutoff.min(last));
        self.cutoff = Some(last);
        self.signals.send(frames::goaway(last, reason, debug));
        self.end = End::WhenIdle;
    }

    /// Says nothing more on a stream. Dropping its handle would: the library
    /// then resets the stream, with a code of its own.
    fn abandon(&mut self, stream: Stream) {
        self.abandoned.push(stream.respond);
    }

    fn disowned(&self, stream: u32) -> bool {
        self.cutoff.is_some_and(|cutoff| stream > cutoff)
    }

    fn linger(&mut self) {
        self.end = End::Lingering;
        self.signals.fall_silent();
        let until = clock::instant() + LINGER;
        self.wait(async move {
            sleep_until(Some(until)).await;
            Next::Lingered
        });
    }

    fn announce_limit(&mut self) {
        let limit = self.allowed.now();
        if limit == self.allowed.announced {
            return;
        }
        // Fails while the client has not acknowledged the settings before; its
        // acknowledgement brings us here again.
        if self.connection.set_initial_window_size(STREAM_WINDOW).is_ok() {
            self.signals.announce(limit);
            self.allowed.announced = limit;
            self.stirred = true;
        }
    }

    fn wait(&mut self, next: impl Future<Output = Next> + Send + 'static) {
        self.waiting.push(Box::pin(next));
        self.stirred = true;
    }
}

/// Waits, unless the client gives the stream up.
async fn pause(delay: Duration, mut stream: Stream, then: impl FnOnce(Stream) -> Next) -> Next {
    let until = clock::instant() + delay;
    let slept = {
        let sleep = std::pin::pin!(sleep_until(Some(until)));
        let reset = std::future::poll_fn(|cx| stream.respond.poll_reset(cx));
        matches!(select(sleep, reset).await, Either::Left(_))
    };
    if slept { then(stream) } else { Next::Gone }
}

/// The next change of behaviour.
fn changed(
    mut watch: watch::Receiver<Behaviour>,
) -> BoxFuture<'static, watch::Receiver<Behaviour>> {
    Box::pin(async move {
        if watch.changed().await.is_err() {
            // The station is gone, and with it the task that polls this.
            std::future::pending::<()>().await;
        }
        watch
    })
}
