//! HTTP/1.1 connections: what a plain client of the token endpoint may speak.
//!
//! Few come, so `hyper` serves them. Ends that HTTP/1.1 has no word for
//! (a refused stream, a GOAWAY) close the connection without an answer, which
//! is what a client of that version sees of a server that goes away.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;

use super::body::MAX_BODY;
use super::course::{World, answer_of};
use super::wire::{Signals, Wire};
use crate::clock;
use crate::faults::Behaviour;
use crate::ledger::lock;
use crate::station::{InFlight, sleep_until};
use crate::vendor::{Act, Body, Vendor};

/// Serves a connection until it ends.
pub(super) async fn serve<V: Vendor>(
    world: Arc<World<V>>,
    session: V::Session,
    (wire, signals): (Wire, Arc<Signals>),
    mut watch: watch::Receiver<Behaviour>,
    number: u64,
) {
    let session = Mutex::new(session);
    let service = service_fn(|request| respond(&world, &session, &signals, number, request));
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(wire), service);
    let mut connection = std::pin::pin!(connection);
    loop {
        tokio::select! {
            // An error is the client's own end, or one of ours by design.
            _ = &mut connection => return,
            changed = watch.changed() => {
                let behaviour = *watch.borrow_and_update();
                if changed.is_err() || behaviour.mode.hangs_up() {
                    return;
                }
                if behaviour.mutes() {
                    // Held open and left alone until the silence is over.
                    signals.fall_silent();
                    let _ = watch.changed().await;
                    return;
                }
            }
        }
    }
}

async fn respond<V: Vendor>(
    world: &World<V>,
    session: &Mutex<V::Session>,
    signals: &Signals,
    number: u64,
    request: http::Request<Incoming>,
) -> io::Result<http::Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let flight = InFlight::new(world.vendor.station(head.uri.path()), number);
    let body = Limited::new(body, MAX_BODY).collect().await;
    let bytes = body.map_err(io::Error::other)?.to_bytes();
    let body = Body { length: bytes.len(), bytes };
    let plan = world.plan(&mut lock(session), &flight, &head, &body);
    sleep_until(Some(clock::instant() + plan.delay)).await;
    if let Some(key) = plan.take {
        world.take(key, &flight);
    }
    sleep_until(Some(clock::instant() + plan.ack_delay)).await;
    match plan.act {
        Act::Silence => std::future::pending::<()>().await,
        Act::Reset => signals.reset_at_end(),
        Act::Answer(_) | Act::AnswerAndGoaway(..) | Act::Cut | Act::RefuseStream | Act::Goaway => {}
    }
    answer_of(plan.act)
        .map(|answer| answer.map(Full::new))
        .ok_or_else(|| io::ErrorKind::ConnectionReset.into())
}
