//! HTTP/1.1 over a kept connection: as little of it as loopback needs.
//!
//! The generator shares its machine with the router it measures, so a call may
//! cost it only a write, a read and a glance at the answer; a client library
//! costs several times that. It speaks to our own listeners and the simulator's
//! control port alone: answers with a `Content-Length`, no redirects, no TLS.
//!
//! What a load generator must know, and a library tends to hide, is whether a
//! failed call can have been taken: [`Fault`] tells the two apart.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take: longer than anything that is worth measuring,
/// short enough that no run hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Head of an answer, at most. Ours have about 200 bytes.
const MAX_HEAD: usize = 16 * 1024;

/// Body of an answer, at most: a page of a thousand arrivals has 150 KiB.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) enum Fault {
    /// No connection: certainly not taken.
    Refused(io::Error),
    /// The connection broke, or time ran out, after a byte may have left: it may
    /// have been taken.
    Unanswered(io::Error),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(f, "no connection: {error}"),
            Self::Unanswered(error) => write!(f, "no answer: {error}"),
        }
    }
}

impl std::error::Error for Fault {}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply<'a> {
    /// Its HTTP status.
    pub(crate) status: u16,
    /// Its body.
    pub(crate) body: &'a [u8],
}

/// One peer, over one connection that is opened when it is needed.
#[derive(Debug)]
pub(crate) struct Caller {
    peer: SocketAddr,
    connection: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Caller {
    /// A caller of that peer; connects at the first call.
    pub(crate) fn new(peer: SocketAddr) -> Self {
        Self { peer, connection: None, buffer: Vec::new() }
    }

    /// Sends a whole request, head and body, and reads the answer.
    pub(crate) async fn call(&mut self, request: &[u8]) -> Result<Reply<'_>, Fault> {
        let mut stream = match self.connection.take().filter(still_open) {
            Some(stream) => stream,
            None => self.connect().await.map_err(Fault::Refused)?,
        };
        self.buffer.clear();
        let exchange = exchange(&mut stream, request, &mut self.buffer);
        let head = timeout(ANSWER_WITHIN, exchange)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(Fault::Unanswered)?;
        // Only a connection whose answer was read to its end is used again.
        if !head.closes {
            self.connection = Some(stream);
        }
        let body = &self.buffer[head.length..head.length + head.body];
        Ok(Reply { status: head.status, body })
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let stream = timeout(ANSWER_WITHIN, TcpStream::connect(self.peer))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Renders a request without headers of its own beyond what HTTP wants.
pub(crate) fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    request_as(None, method, path, body)
}

/// The same with a client's key.
pub(crate) fn request_as(key: Option<&str>, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let authorization =
        key.map_or_else(String::new, |key| format!("authorization: Bearer {key}\r\n"));
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         {authorization}content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// A server closes idle connections; one that did so must not be written to, or
/// a call that was never made would look like one that was not answered.
fn still_open(stream: &TcpStream) -> bool {
    let mut byte = [0];
    matches!(stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

async fn exchange(
    stream: &mut TcpStream,
    request: &[u8],
    buffer: &mut Vec<u8>,
) -> io::Result<Head> {
    stream.write_all(request).await?;
    let mut head = None;
    loop {
        if head.is_none() {
            head = parse_head(buffer)?;
        }
        if let Some(head) = head.filter(|head| buffer.len() >= head.length + head.body) {
            return Ok(head);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Bytes of the head, the empty line included.
    length: usize,
    /// Bytes of the body.
    body: usize,
    /// Whether the peer closes the connection after it.
    closes: bool,
}

/// Reads the head of an answer; `None` while it is not all there.
fn parse_head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() > MAX_HEAD {
            Err(unreadable("a head without end"))
        } else {
            Ok(None)
        };
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| unreadable("a head not of text"))?;
    let mut lines = text.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok())
        .ok_or_else(|| unreadable("no status line"))?;
    let mut head = Head { status, length: end + 4, body: 0, closes: false };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            head.body = value
                .parse()
                .ok()
                .filter(|length| *length <= MAX_BODY)
                .ok_or_else(|| unreadable("a body of unknown length"))?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(unreadable("a body in chunks"));
        } else if name.eq_ignore_ascii_case("connection") {
            head.closes = value.eq_ignore_ascii_case("close");
        }
    }
    Ok(Some(head))
}

fn unreadable(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the answer has {what}"))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn heads_are_read_whole_or_not_at_all() {
        let text = b"HTTP/1.1 202 Accepted\r\nContent-Length: 7\r\nconnection: close\r\n\r\n{...}";
        let end = text.len() - 5;
        assert_eq!(parse_head(&text[..end - 1]).unwrap(), None);
        let head = parse_head(text).unwrap();
        assert_eq!(head, Some(Head { status: 202, length: end, body: 7, closes: true }));
    }

    #[test]
    fn unreadable_heads_are_refused() {
        for text in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            assert!(parse_head(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn broken_connection_is_told_from_a_refused_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut caller = Caller::new(listener.local_addr().unwrap());
        let request = request("GET", "/", b"");
        let (fault, _) = tokio::join!(caller.call(&request), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 10];
            stream.read_exact(&mut bytes).await.unwrap();
        });
        assert!(matches!(fault, Err(Fault::Unanswered(_))), "{fault:?}");
        drop(listener);
        let fault = caller.call(&request).await;
        assert!(matches!(fault, Err(Fault::Refused(_))), "{fault:?}");
    }

    #[tokio::test]
    async fn connection_closed_while_idle_is_replaced() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut caller = Caller::new(listener.local_addr().unwrap());
        let request = request("GET", "/", b"");
        for _ in 0..2 {
            let answer = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = vec![0; request.len()];
                stream.read_exact(&mut bytes).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            };
            let (reply, ()) = tokio::join!(caller.call(&request), answer);
            assert_eq!(reply.unwrap().body, b"ok");
            // The close arrives in its own time; readiness tells when it has.
            caller.connection.as_ref().unwrap().readable().await.unwrap();
        }
    }
}
