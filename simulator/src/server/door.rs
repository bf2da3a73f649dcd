//! A vendor's port, and whether it is open.
//!
//! Three states. *Open*: connections are accepted. *Refusing*: nothing listens,
//! so the kernel answers with a reset. *Unreachable*: a listener that nobody
//! accepts from and whose queue is full, so the kernel drops every attempt.
//! Through all of them one bound socket that never listens keeps the port: were
//! it given up, another process could have it when the vendor comes back.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::course::World;
use super::tls::Offer;
use super::wire::Wire;
use super::{http1, http2};
use crate::clock;
use crate::faults::{Behaviour, Mode};
use crate::station::{Connected, sleep_until};
use crate::vendor::Vendor;

/// How many attempts may wait to be accepted while the door is open.
const BACKLOG: u32 = 1024;
/// How long a client may take for the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A port that is ours, and what it is at the moment.
pub(crate) struct Door {
    address: SocketAddr,
    /// Bound and never listening: keeps the port.
    _keeper: TcpSocket,
    state: State,
}

enum State {
    Open(TcpListener),
    Refusing,
    /// The listener, and the connection that fills its queue.
    Unreachable(#[expect(dead_code, reason = "held for being open")] (TcpListener, TcpStream)),
}

impl Door {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        // Sockets that may share a port would share one with a stranger as well,
        // and take a part of its connections: so it is tried alone first.
        drop(std::net::TcpListener::bind(address)?);
        let keeper = socket(address)?;
        let address = keeper.local_addr()?;
        let state = State::Open(socket(address)?.listen(BACKLOG)?);
        Ok(Self { address, _keeper: keeper, state })
    }

    /// As in a URL.
    pub(crate) fn origin(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Takes on the state that a behaviour asks for.
    async fn follow(&mut self, behaviour: &Behaviour) -> io::Result<()> {
        match (behaviour.mode, &self.state) {
            (Mode::Refusing, State::Refusing) | (Mode::Unreachable, State::Unreachable(_)) => {}
            (Mode::Refusing, _) => self.state = State::Refusing,
            (Mode::Unreachable, _) => {
                // The old listener goes first: two that listen share the
                // attempts between them.
                self.state = State::Refusing;
                self.state = State::Unreachable(full_listener(self.address).await?);
            }
            (_, State::Open(_)) => {}
            (_, State::Refusing | State::Unreachable(_)) => {
                self.state = State::Refusing;
                self.state = State::Open(socket(self.address)?.listen(BACKLOG)?);
            }
        }
        Ok(())
    }

    async fn accept(&self) -> io::Result<TcpStream> {
        match &self.state {
            State::Open(listener) => Ok(listener.accept().await?.0),
            State::Refusing | State::Unreachable(_) => std::future::pending().await,
        }
    }
}

/// A bound socket that others of ours may share the port with.
fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// With a backlog of 0 the queue holds one connection; ours fills it, and the
/// kernel then drops every attempt without a word.
async fn full_listener(address: SocketAddr) -> io::Result<(TcpListener, TcpStream)> {
    let listener = socket(address)?.listen(0)?;
    let filling = TcpStream::connect(address).await?;
    Ok((listener, filling))
}

/// Keeps a vendor's door until it is told to stop.
pub(crate) async fn keep<V: Vendor>(
    mut door: Door,
    tls: Arc<ServerConfig>,
    offer: Offer,
    world: Arc<World<V>>,
    stop: CancellationToken,
) {
    let mut watch = world.vendor.front().watch();
    let acceptor = TlsAcceptor::from(tls);
    let mut connections = JoinSet::new();
    // When a step fails (no descriptors left, a port that cannot be had again
    // yet) it is tried again a little later.
    let mut again = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            changed = watch.changed() => {
                if changed.is_err() {
                    break;
                }
                again = Some(clock::instant());
            }
            () = sleep_until(again) => {
                let behaviour = *watch.borrow_and_update();
                let failed = door.follow(&behaviour).await.is_err();
                again = failed.then(|| clock::instant() + RETRY);
            }
            accepted = door.accept() => match accepted {
                Ok(stream) => {
                    let connection = connect(stream, acceptor.clone(), offer, Arc::clone(&world));
                    connections.spawn(connection);
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(door);
    connections.shutdown().await;
}

const RETRY: Duration = Duration::from_millis(20);

/// One connection, from its first byte.
async fn connect<V: Vendor>(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    offer: Offer,
    world: Arc<World<V>>,
) {
    let mut watch = world.vendor.front().watch();
    if watch.borrow().mode == Mode::Tls {
        return refuse_handshake(stream).await;
    }
    // Small answers must not wait for the client's acknowledgements.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else {
        return;
    };
    let connected = Connected::new(world.vendor.front());
    let (session, is_http2) = {
        let (_, tls) = stream.get_ref();
        let certificate = tls.peer_certificates().and_then(<[_]>::first);
        let is_http2 = match tls.alpn_protocol() {
            Some(protocol) => protocol == b"h2",
            None => offer == Offer::Http2,
        };
        (world.vendor.session(certificate), is_http2)
    };
    let behaviour = *watch.borrow_and_update();
    let (wire, signals) = if is_http2 {
        let at_first = world.vendor.streams(&session).at_first;
        Wire::http2(stream, behaviour.max_streams.map_or(at_first, |most| most.min(at_first)))
    } else {
        Wire::http1(stream)
    };
    if behaviour.mutes() {
        // Accepted, and never a byte of HTTP.
        signals.fall_silent();
        hold(wire, watch).await;
    } else if behaviour.mode.hangs_up() {
        // Shut while this one was in the handshake.
    } else if is_http2 {
        http2::serve(world, session, (wire, signals), watch, connected.number).await;
    } else {
        http1::serve(world, session, (wire, signals), watch, connected.number).await;
    }
}

/// Answers the client's first bytes with a fatal alert, as a server does whose
/// certificate is gone.
async fn refuse_handshake(mut stream: TcpStream) {
    // RFC 8446, section 6: alert (21), legacy version 3.3, two bytes: fatal (2),
    // handshake_failure (40).
    const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 40];
    // What is not read would turn our close into a reset that overtakes the alert.
    let mut hello = [0; 4096];
    let said = async {
        if stream.read(&mut hello).await? == 0 {
            return Ok(0);
        }
        stream.write_all(&ALERT).await?;
        stream.shutdown().await?;
        stream.read(&mut hello).await
    };
    // Whether the client waited for it is its own affair.
    let _ = tokio::time::timeout(HANDSHAKE, said).await;
}

/// Reads and discards until the client closes or the silence ends.
async fn hold(mut wire: Wire, mut watch: tokio::sync::watch::Receiver<Behaviour>) {
    let mut scratch = [0; 1];
    tokio::select! {
        _ = wire.read(&mut scratch) => {}
        _ = watch.wait_for(|behaviour| !behaviour.mutes()) => {}
    }
}
