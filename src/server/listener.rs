//! Serves a router over TCP, HTTP/1.1 and HTTP/2 on one port, within limits that
//! hold before any handler sees a request.
//!
//! The version is told from a connection's first bytes here, and not by
//! `hyper-util`, whose own look at them has no time limit: a peer that connects
//! and stays silent would be kept for ever. From then on hyper's timer ends what
//! sends no complete header in time, idle connections among them; HTTP/2
//! connections are asked for a sign of life instead.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::patient::Patient;
use crate::api::{HEADROOM, HeaderLimit, RequestId};
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

/// Serves until `stop` is cancelled; then takes no more connections, ends the idle
/// ones, and gives requests that are being answered [`LAST_ANSWERS`].
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: CancellationToken) {
    run(listener, router, limits, None, stop).await;
}

/// The same for devices, whose answers have no end: one that takes nothing of what
/// is written to it for [`WRITE_STALL`] is cut.
pub async fn serve_devices(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    run(listener, router, limits, Some(WRITE_STALL), stop).await;
}

async fn run(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    write_stall: Option<Duration>,
    stop: CancellationToken,
) {
    let connection = Connection {
        http1: Arc::new(builder(limits).http1_only()),
        http2: Arc::new(builder(limits).http2_only()),
        router: router.layer(HeaderLimit::new(&limits)).layer(RequestId),
        limits,
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

fn builder(limits: Limits) -> auto::Builder<TokioExecutor> {
    let header_bytes = limits.max_header_bytes.saturating_mul(HEADROOM as u32);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let mut http1 = builder.http1();
    http1
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle_timeout)
        .max_buf_size(LEAST_HEADER_BYTES.max(header_bytes as usize))
        .max_headers(limits.max_headers.saturating_mul(HEADROOM));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.idle_timeout)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_header_list_size(header_bytes);
    builder
}

#[derive(Clone)]
struct Connection {
    http1: Arc<auto::Builder<TokioExecutor>>,
    http2: Arc<auto::Builder<TokioExecutor>>,
    router: Router,
    limits: Limits,
    write_stall: Option<Duration>,
    stop: CancellationToken,
}

impl Connection {
    async fn serve(self, stream: TcpStream, peer: SocketAddr) {
        // Answers are small and waited for.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let version = tokio::time::timeout(self.limits.idle_timeout, is_http2(&stream));
        let http2 = tokio::select! {
            version = version => match version {
                Ok(Ok(http2)) => http2,
                // Gone, or silent for too long: there is nothing to answer.
                Ok(Err(_)) | Err(_) => return,
            },
            () = self.stop.cancelled() => return,
        };
        let builder = if http2 { &self.http2 } else { &self.http1 };
        let router = self.router.map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            request
        });
        let io = TokioIo::new(Patient::new(stream, self.write_stall));
        let connection =
            builder.serve_connection_with_upgrades(io, TowerToHyperService::new(router));
        let mut connection = std::pin::pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            debug!(%error, "a connection ended early");
        }
    }
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
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    use super::*;

    struct Serving {
        address: SocketAddr,
        stop: CancellationToken,
        tasks: JoinSet<()>,
        entered: Arc<Notify>,
        release: Arc<Notify>,
    }

    async fn serving(limits: Limits) -> Serving {
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
        tasks.spawn(serve(listener, router, limits, stop.clone()));
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
