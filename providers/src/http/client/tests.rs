//! The client against peers that misbehave in one way each.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{Client, ClientSettings, LONGEST_BODY};
use crate::Processed;

/// What the peer does with a request that it has read.
#[derive(Clone)]
enum Peer {
    Answers(String),
    /// Writes a body without end.
    Floods,
    Closes,
    Hangs,
}

struct Server {
    port: u16,
    requests: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(peer: Peer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                // The requests of these tests fit into one read.
                let _ = stream.read(&mut [0; 4096]).await;
                counted.fetch_add(1, Ordering::SeqCst);
                match &peer {
                    Peer::Answers(text) => drop(stream.write_all(text.as_bytes()).await),
                    Peer::Floods => {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
                    }
                    Peer::Closes => {}
                    Peer::Hangs => drop(stream.read(&mut [0; 1]).await),
                }
            }
        });
        Self { port, requests, _tasks: tasks }
    }

    fn uri(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}/secret-path", self.port)
    }
}

fn client(timeout: Duration) -> Client {
    Client::new(ClientSettings { ca: None, connect_timeout: timeout, timeout }).unwrap()
}

fn request(uri: &str) -> Request<Bytes> {
    Request::post(uri).body(Bytes::from_static(b"body")).unwrap()
}

const PATIENT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn an_answer_has_status_headers_and_body() {
    let text = "HTTP/1.1 418 Teapot\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\nno";
    let server = Server::start(Peer::Answers(text.to_owned())).await;
    let answered = client(PATIENT).call(request(&server.uri("http"))).await.unwrap();
    assert_eq!((answered.status.as_u16(), &answered.body[..]), (418, &b"no"[..]));
    assert_eq!(answered.headers["retry-after"], "7");
}

#[tokio::test]
async fn an_endless_body_is_cut() {
    let server = Server::start(Peer::Floods).await;
    let answered = client(PATIENT).call(request(&server.uri("http"))).await.unwrap();
    assert_eq!(answered.body.len(), LONGEST_BODY);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let other = Server::start(Peer::Closes).await;
    let location = other.uri("http");
    let text =
        format!("HTTP/1.1 307 Temporary\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
    let server = Server::start(Peer::Answers(text)).await;
    let answered = client(PATIENT).call(request(&server.uri("http"))).await.unwrap();
    assert_eq!(answered.status.as_u16(), 307);
    assert_eq!(other.requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn failures_tell_whether_the_peer_may_have_seen_the_request() {
    let short = Duration::from_millis(200);
    let truncated = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx".to_owned();
    let not_tls = "HTTP/1.1 400 Bad Request\r\n\r\n".to_owned();
    for (peer, scheme, timeout, processed, code) in [
        (Peer::Closes, "http", PATIENT, Processed::Maybe, "closed"),
        (Peer::Hangs, "http", short, Processed::Maybe, "timeout"),
        (Peer::Answers(truncated), "http", PATIENT, Processed::Maybe, "closed"),
        (Peer::Answers(not_tls), "https", PATIENT, Processed::No, "tls"),
        (Peer::Hangs, "https", short, Processed::No, "connect"),
    ] {
        let server = Server::start(peer).await;
        let failure = client(timeout).call(request(&server.uri(scheme))).await.unwrap_err();
        assert_eq!((failure.processed, failure.code), (processed, code), "{}", failure.detail);
        assert!(!failure.detail.contains("secret-path"), "{}", failure.detail);
        assert_eq!(server.requests.load(Ordering::SeqCst), 1, "no repeat after {code}");
    }
}

#[tokio::test]
async fn what_never_left_is_certainly_not_processed() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    // Too long for a name, so that no name server is asked.
    let nameless = "x".repeat(64);
    for (uri, code) in [
        (format!("http://{gone}/"), "connect"),
        (format!("http://{nameless}/"), "dns"),
        ("/no-host".to_owned(), "request"),
    ] {
        let failure = client(PATIENT).call(request(&uri)).await.unwrap_err();
        assert_eq!((failure.processed, failure.code), (Processed::No, code), "{}", failure.detail);
    }
}
