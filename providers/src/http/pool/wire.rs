//! The peer in the pool's tests: frames by hand over real TLS.
//!
//! A server library would not let a test say GOAWAY with a last stream id of
//! its choice, nor break off in the middle. Header blocks are single bytes of
//! HPACK's static table (RFC 7541, appendix A).

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

/// A listening socket with a certificate for `localhost` and 127.0.0.1.
pub(crate) struct Listener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
    pub(crate) ca: Vec<u8>,
}

impl Listener {
    pub(crate) async fn bind(port: u16, alpn: &[&[u8]]) -> Self {
        let tcp = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let key = KeyPair::generate().unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self { tcp, acceptor, ca: certificate.pem().into_bytes() }
    }

    /// The same certificate on another port.
    pub(crate) async fn moved_to(self, port: u16) -> Self {
        Self { tcp: TcpListener::bind(("127.0.0.1", port)).await.unwrap(), ..self }
    }

    pub(crate) fn port(&self) -> u16 {
        self.tcp.local_addr().unwrap().port()
    }

    /// The next connection, which has been told how many streams it may have.
    pub(crate) async fn accept(&self, streams: u32) -> Wire {
        let (socket, _) = self.tcp.accept().await.unwrap();
        let mut stream = self.acceptor.accept(socket).await.unwrap();
        let mut preface = [0; PREFACE];
        stream.read_exact(&mut preface).await.unwrap();
        let mut wire = Wire { stream };
        wire.allow(streams).await;
        wire
    }

    /// A connection that ends in the handshake or after it.
    pub(crate) async fn accept_tls(&self) {
        let (socket, _) = self.tcp.accept().await.unwrap();
        if let Ok(mut stream) = self.acceptor.accept(socket).await {
            let _gone = stream.read(&mut [0]).await;
        }
    }
}

pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// One connection, seen from the server.
pub(crate) struct Wire {
    stream: TlsStream<TcpStream>,
}

impl Wire {
    /// The next frame that is no SETTINGS acknowledgement; `None` at the end.
    /// SETTINGS are acknowledged by the way.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.stream.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let frame = Frame { kind: head[3], flags: head[4], stream, payload };
            match (frame.kind, frame.flags & ACK) {
                (SETTINGS, ACK) => {}
                (SETTINGS, _) => self.write(SETTINGS, ACK, 0, &[]).await,
                _ => return Some(frame),
            }
        }
    }

    /// Waits for a whole request and gives its stream.
    pub(crate) async fn request(&mut self) -> u32 {
        loop {
            let frame = self.frame().await.expect("the client stays");
            if matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0 {
                return frame.stream;
            }
        }
    }

    /// The streams of all requests that the client had sent when a PING reached it.
    pub(crate) async fn requests_until_now(&mut self) -> Vec<u32> {
        self.write(PING, 0, 0, &[0; 8]).await;
        let mut streams = Vec::new();
        loop {
            let frame = self.frame().await.expect("the client stays");
            match frame.kind {
                HEADERS => streams.push(frame.stream),
                PING => return streams,
                _ => {}
            }
        }
    }

    /// Reads on until a frame of this kind comes.
    pub(crate) async fn until(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.frame().await.expect("the client stays");
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Reads on until the client has closed.
    pub(crate) async fn until_closed(&mut self) {
        while self.frame().await.is_some() {}
    }

    /// SETTINGS with MAX_CONCURRENT_STREAMS.
    pub(crate) async fn allow(&mut self, streams: u32) {
        let mut payload = vec![0, 3];
        payload.extend(streams.to_be_bytes());
        self.write(SETTINGS, 0, 0, &payload).await;
    }

    /// Answers without a body.
    pub(crate) async fn answer(&mut self, stream: u32, status: u16) {
        self.write(HEADERS, END_HEADERS | END_STREAM, stream, &block(status)).await;
    }

    /// The beginning of an answer with a body.
    pub(crate) async fn begin_answer(&mut self, stream: u32, status: u16) {
        self.write(HEADERS, END_HEADERS, stream, &block(status)).await;
    }

    /// A header block that does not end, until the client breaks off.
    pub(crate) async fn endless_headers(&mut self, stream: u32) {
        // "x: " and 100 letters: a literal that no table is to keep.
        let field = [&[0x00, 1, b'x', 100][..], &[b'y'; 100]].concat();
        let block = [block(200), field.repeat(100)].concat();
        self.write(HEADERS, 0, stream, &block).await;
        for _ in 0..1000 {
            self.write(CONTINUATION, 0, stream, &field.repeat(100)).await;
        }
    }

    pub(crate) async fn reset(&mut self, stream: u32, code: u32) {
        self.write(RST_STREAM, 0, stream, &code.to_be_bytes()).await;
    }

    pub(crate) async fn go_away(&mut self, last: u32, debug: &[u8]) {
        let mut payload = last.to_be_bytes().to_vec();
        payload.extend(0_u32.to_be_bytes());
        payload.extend(debug);
        self.write(GOAWAY, 0, 0, &payload).await;
    }

    pub(crate) async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        // The client may have gone: what it saw is what the test is about.
        let _gone = self.stream.write_all(&frame).await;
        let _gone = self.stream.flush().await;
    }
}

/// `:status`: 200 and 400 are in the static table, others are written out.
fn block(status: u16) -> Vec<u8> {
    match status {
        200 => vec![0x88],
        400 => vec![0x8c],
        other => [&[0x08, 3], other.to_string().as_bytes()].concat(),
    }
}
