//! Serves a router over TCP, HTTP/1.1 and HTTP/2 on one port, within limits that
//! hold before any handler sees a request.
//!
//! The version is told from a connection's first bytes here, and not by
//! `hyper-util`, whose own look at them has no time limit: a peer that connects
//! and stays silent would be kept for ever. From then on hyper's timer ends what
//! sends no complete header in time, idle connections among them; HTTP/2
//! connections are asked for a sign of life instead. Under TLS the version is told
//! by ALPN, and the handshake has its own time limit.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::patient::Patient;
use crate::api::{HEADROOM, RequestId};
use crate::dispatch::Limits;

/// HTTP/2 streams of one connection at once.
const MAX_STREAMS: u32 = 200;

/// HTTP/2 streams that were reset before we took them; more end the connection
/// (CVE-2023-44487, "rapid reset").
const MAX_PENDING_RESETS: usize = 20;

/// Requests that are being answered when the listener stops may take this long.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// When the process has no file descriptor left, a little later it may.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The least that hyper can bound a header's bytes to.
const LEAST_HEADER_BYTES: usize = 8192;

/// What an HTTP/2 client sends first (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A device that takes nothing for this long is not there, or does not read.
const WRITE_STALL: Duration = Duration::from_secs(10);

/// How often an incomplete preface is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A peer that wants to speak TLS has said so within this time, round trips to the
/// other side of the world included.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The first byte of a connection under TLS: a record with a handshake message (RFC
/// 8446, section 5.1). No HTTP method begins with it.
const TLS_RECORD: u8 = 22;

/// What a peer gets that speaks HTTP to a listener with TLS.
const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\
    content-type: text/plain\r\ncontent-length: 54\r\n\r\nthis port speaks HTTPS; write https:// in the address\n";

/// Serves until `stop` is cancelled; then takes no more connections, ends the idle
/// ones, and gives requests that are being answered [`LAST_ANSWERS`]. With `tls`,
/// connections without it are turned away.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    tls: Option<TlsAcceptor>,
    stop: CancellationToken,
) {
    run(listener, router, limits, tls, None, stop).await;
}

/// The same for devices, whose answers have no end: one that takes nothing of what
/// is written to it for [`WRITE_STALL`] is cut.
pub async fn serve_devices(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    tls: Option<TlsAcceptor>,
    stop: CancellationToken,
) {
    run(listener, router, limits, tls, Some(WRITE_STALL), stop).await;
}

async fn run(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    tls: Option<TlsAcceptor>,
    write_stall: Option<Duration>,
    stop: CancellationToken,
) {
    let connection = Connection {
        http1: http1(limits),
        http2: http2(limits),
        router: router.layer(RequestId),
        limits,
        tls,
        write_stall,
        stop: stop.clone(),
    };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(connection.clone().serve(stream, peer));
                }
                Err(error) => pause(&error).await,
            }
        }
    }
    drop(listener);
    let last = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_ANSWERS, last).await.is_err() {
        warn!(cut = connections.len(), "requests were cut when the listener closed");
    }
}

/// A connection that broke before we took it is its peer's affair; anything else
/// is ours and does not mend by asking at once again.
async fn pause(error: &io::Error) {
    let peers = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    );
    if !peers {
        warn!(%error, "connections cannot be taken");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

fn http1(limits: Limits) -> http1::Builder {
    let header_bytes = limits.max_header_bytes.saturating_mul(HEADROOM as u32);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle_timeout)
        .max_buf_size(LEAST_HEADER_BYTES.max(header_bytes as usize))
        .max_headers(limits.max_headers.saturating_mul(HEADROOM));
    builder
}

fn http2(limits: Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.idle_timeout)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_header_list_size(limits.max_header_bytes.saturating_mul(HEADROOM as u32));
    builder
}

#[derive(Clone)]
struct Connection {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    router: Router,
    limits: Limits,
    tls: Option<TlsAcceptor>,
    write_stall: Option<Duration>,
    stop: CancellationToken,
}

impl Connection {
    async fn serve(self, stream: TcpStream, peer: SocketAddr) {
        // Answers are small and waited for.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        // Each way is a future of its own on the heap: in one, every idle connection
        // would hold the room that the largest of them takes while it begins.
        if let Some(tls) = self.tls.clone() {
            return Box::pin(self.serve_tls(tls, stream, peer)).await;
        }
        let version = self.within(self.limits.idle_timeout, is_http2(&stream)).await;
        let Some(http2) = version else { return };
        let stream = Patient::new(stream, self.write_stall);
        Box::pin(self.converse(stream, http2, peer)).await;
    }

    async fn serve_tls(self, tls: TlsAcceptor, stream: TcpStream, peer: SocketAddr) {
        let shaken = Box::pin(shake(&tls, stream, self.write_stall));
        let Some(mut stream) = self.within(HANDSHAKE, shaken).await else { return };
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Box::pin(self.converse(stream, false, peer)).await;
        }
        // hyper would wait for it without a limit.
        let mut preface = [0; PREFACE.len()];
        let read = stream.read_exact(&mut preface);
        if self.within(self.limits.idle_timeout, read).await.is_some() {
            let (read, write) = tokio::io::split(stream);
            let stream = tokio::io::join(io::Cursor::new(preface).chain(read), write);
            Box::pin(self.converse(stream, true, peer)).await;
        }
    }

    /// What a connection begins with; `None` when its peer is gone or silent for too
    /// long, or we stop: there is nothing to answer.
    async fn within<T>(
        &self,
        time: Duration,
        beginning: impl Future<Output = io::Result<T>>,
    ) -> Option<T> {
        tokio::select! {
            begun = tokio::time::timeout(time, beginning) => match begun {
                Ok(Ok(begun)) => Some(begun),
                Ok(Err(error)) => {
                    debug!(%error, "a connection did not begin");
                    None
                }
                Err(_) => None,
            },
            () = self.stop.cancelled() => None,
        }
    }

    async fn converse<S>(self, stream: S, http2: bool, peer: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = self.router.map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            request
        });
        let (io, service) = (TokioIo::new(stream), TowerToHyperService::new(router));
        let result = if http2 {
            let connection = self.http2.serve_connection(io, service);
            let conversed =
                until_told(connection, http2::Connection::graceful_shutdown, &self.stop);
            Box::pin(conversed).await
        } else {
            let connection = self.http1.serve_connection(io, service).with_upgrades();
            let shut_down = http1::UpgradeableConnection::graceful_shutdown;
            Box::pin(until_told(connection, shut_down, &self.stop)).await
        };
        if let Err(error) = result {
            debug!(%error, "a connection ended early");
        }
    }
}

/// Runs a connection to its end, which we ask for when we stop.
async fn until_told<C: Future>(
    connection: C,
    shut_down: impl FnOnce(Pin<&mut C>),
    stop: &CancellationToken,
) -> C::Output {
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            shut_down(connection.as_mut());
            connection.await
        }
    }
}

/// The handshake. Whoever speaks HTTP instead is told so in it.
async fn shake(
    tls: &TlsAcceptor,
    mut stream: TcpStream,
    write_stall: Option<Duration>,
) -> io::Result<TlsStream<Patient>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first[0] != TLS_RECORD {
        // What is left unread would turn the close into a reset, which can overtake
        // the answer.
        let _ = stream.try_read(&mut [0; LEAST_HEADER_BYTES]);
        stream.write_all(SPEAK_TLS).await?;
        stream.shutdown().await?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not TLS"));
    }
    tls.accept(Patient::new(stream, write_stall)).await
}

/// Whether the connection begins with the HTTP/2 preface. Takes nothing away.
async fn is_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut seen = [0; PREFACE.len()];
    loop {
        let many = stream.peek(&mut seen).await?;
        if many == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if seen[..many] != PREFACE[..many] {
            return Ok(false);
        }
        if many == PREFACE.len() {
            return Ok(true);
        }
        // Peeking is ready at once as long as a byte is there.
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::routing::{get, post};
    use tokio::sync::Notify;

    use super::*;
    use crate::api::HeaderLimit;

    struct Serving {
        address: SocketAddr,
        stop: CancellationToken,
        tasks: JoinSet<()>,
        entered: Arc<Notify>,
        release: Arc<Notify>,
    }

    async fn serving(limits: Limits) -> Serving {
        serving_with(limits, None).await
    }

    async fn serving_with(limits: Limits, tls: Option<TlsAcceptor>) -> Serving {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let held = (entered.clone(), release.clone());
        let router = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/", post(|body: String| async move { body }))
            .route(
                "/held",
                get(move || async move {
                    held.0.notify_one();
                    held.1.notified().await;
                    "released"
                }),
            );
        // As every router does.
        let router = router.layer(HeaderLimit::new(&limits));
        tasks.spawn(serve(listener, router, limits, tls, stop.clone()));
        Serving { address, stop, tasks, entered, release }
    }

    /// What the server answers to these bytes, until it closes.
    async fn talk(address: SocketAddr, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is an end as well.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn localhost() -> (TlsAcceptor, rustls::RootCertStore) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        (TlsAcceptor::from(Arc::new(config)), roots)
    }

    async fn shake_hands(
        address: SocketAddr,
        roots: &rustls::RootCertStore,
        alpn: &[&[u8]],
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = TcpStream::connect(address).await?;
        connector.connect("localhost".try_into().unwrap(), stream).await
    }

    fn quick() -> Limits {
        Limits { idle_timeout: Duration::from_millis(200), ..Limits::default() }
    }

    #[tokio::test]
    async fn http1_is_answered_and_an_idle_connection_is_closed() {
        let serving = serving(quick()).await;
        let answer = talk(serving.address, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.ends_with("hello"), "{answer}");
    }

    #[tokio::test]
    async fn silence_half_a_header_and_half_a_preface_end_the_connection() {
        let serving = serving(quick()).await;
        for bytes in [&b""[..], b"GET / HT", b"PRI * HTTP/2.0\r\n", b"P"] {
            let answer = talk(serving.address, bytes).await;
            assert!(!answer.contains("200"), "{answer}");
        }
    }

    #[tokio::test]
    async fn too_many_or_too_large_headers_are_431() {
        let limits = Limits { max_headers: 20, ..quick() };
        let serving = serving(limits).await;
        let many = "x: y\r\n".repeat(50);
        let large = format!("x: {}\r\n", "y".repeat(40_000));
        for headers in [many, large] {
            let request = format!("GET / HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
            let answer = talk(serving.address, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
        }
    }

    #[tokio::test]
    async fn headers_a_little_over_the_bounds_are_431_with_a_request_id_and_no_body() {
        let limits = Limits { max_headers: 20, ..quick() };
        let serving = serving(limits).await;
        let large = format!("x: {}\r\n", "y".repeat(20_000));
        for headers in ["x: y\r\n".repeat(30), large] {
            let id = "x-request-id: mine\r\n";
            let request = format!("GET / HTTP/1.1\r\nhost: a\r\n{id}{headers}\r\n");
            let answer = talk(serving.address, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
            assert!(answer.contains("x-request-id: mine\r\n"), "{answer}");
            assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        }
        let fits = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(15));
        assert!(talk(serving.address, fits.as_bytes()).await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn http2_with_prior_knowledge_is_answered() {
        let serving = serving(quick()).await;
        let stream = TcpStream::connect(serving.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let request = http::Request::get("http://a/").body(String::new()).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    }

    #[tokio::test]
    async fn under_tls_the_version_is_what_alpn_says() {
        let (tls, roots) = localhost();
        let serving = serving_with(quick(), Some(tls)).await;
        for alpn in [&[][..], &[b"http/1.1".as_slice()], &[b"other", b"http/1.1"]] {
            let mut stream = shake_hands(serving.address, &roots, alpn).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200", "{alpn:?}");
        }
        let stream = shake_hands(serving.address, &roots, &[b"h2", b"http/1.1"]).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let request = http::Request::get("https://a/").body(String::new()).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
        // Nothing in common is no HTTP/1.1 (RFC 7301, section 3.2).
        assert!(shake_hands(serving.address, &roots, &[b"other"]).await.is_err());
    }

    #[tokio::test]
    async fn silence_after_the_handshake_ends_the_connection() {
        let (tls, roots) = localhost();
        let serving = serving_with(quick(), Some(tls)).await;
        for (alpn, bytes) in [
            (b"http/1.1".as_slice(), &b""[..]),
            (b"http/1.1", b"GET / HT"),
            (b"h2", b""),
            (b"h2", b"PRI * HTTP/2.0\r\n"),
            (b"h2", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
        ] {
            let mut stream = shake_hands(serving.address, &roots, &[alpn]).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            assert!(!String::from_utf8_lossy(&answer).contains("200"), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn http_to_a_listener_with_tls_is_told_so_and_closed() {
        let serving = serving_with(quick(), Some(localhost().0)).await;
        for bytes in [&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], PREFACE] {
            let answer = talk(serving.address, bytes).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 400 "), "{answer}");
            assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
            assert!(body.contains("https://"), "{answer}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_half_a_handshake_end_after_its_time() {
        let serving = serving_with(Limits::default(), Some(localhost().0)).await;
        for bytes in [&b""[..], &[TLS_RECORD, 3, 1, 1, 0]] {
            let clock = crate::clock::Clock::default();
            let began = clock.now().instant;
            assert_eq!(talk(serving.address, bytes).await, "");
            assert!(clock.now().instant - began >= HANDSHAKE);
        }
    }

    #[tokio::test]
    async fn a_stop_lets_requests_end_and_takes_no_new_ones() {
        let mut serving = serving(Limits::default()).await;
        let mut stream = TcpStream::connect(serving.address).await.unwrap();
        stream.write_all(b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let idle = TcpStream::connect(serving.address).await.unwrap();
        serving.entered.notified().await;
        serving.stop.cancel();
        // The listener is gone as soon as nobody can connect.
        while TcpStream::connect(serving.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        serving.release.notify_one();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("released"), "{answer}");
        serving.tasks.join_next().await.unwrap().unwrap();
        drop(idle);
    }
}
