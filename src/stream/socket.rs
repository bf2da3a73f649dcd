//! The WebSocket form (RFC 6455), server side, as far as a channel that only
//! sends needs it: text frames out, pings both ways, close.
//!
//! Written here and not taken from a library: the frames that go out are made
//! once for all subscribers, which a library's sink would make anew for each, and
//! what comes in is at most a control frame of 125 bytes.

use std::io;
use std::time::Duration;

use aws_lc_rs::digest;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio_util::sync::CancellationToken;

use super::refusal::Refusal;
use super::session::Session;

/// RFC 6455, section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// For one frame to be taken by a peer; beyond it the peer is given up.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// Clients send nothing but control frames, whose payload is at most this (RFC
/// 6455, section 5.5).
const LARGEST: usize = 125;

const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// "Going away" (RFC 6455, section 7.4.1).
const GOING_AWAY: [u8; 4] = [0x80 | CLOSE, 2, 0x03, 0xE9];

/// An upgrade that is about to happen.
pub(super) struct Upgrade {
    pub(super) connection: OnUpgrade,
    pub(super) response: Response,
}

/// The answer to a handshake.
pub(super) fn upgrade(request: &mut Request) -> Result<Upgrade, Refusal> {
    let headers = request.headers();
    let has = |name: header::HeaderName, word: &str| {
        let text = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        text.split(',').any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    let good = request.version() == Version::HTTP_11
        && has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
        && has(header::SEC_WEBSOCKET_VERSION, "13");
    let accept = accept(headers).filter(|_| good).ok_or(Refusal::Upgrade)?;
    let connection = request.extensions_mut().remove::<OnUpgrade>().ok_or(Refusal::Upgrade)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(Upgrade { connection, response })
}

fn accept(headers: &HeaderMap) -> Option<HeaderValue> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?.to_str().ok()?;
    let hash = digest::digest(
        &digest::SHA1_FOR_LEGACY_USE_ONLY,
        format!("{}{GUID}", key.trim()).as_bytes(),
    );
    HeaderValue::try_from(STANDARD.encode(hash)).ok()
}

/// Serves a subscriber until one side ends it.
pub(super) async fn run(
    connection: OnUpgrade,
    session: Session,
    keepalive: Duration,
    closed: CancellationToken,
) {
    let Ok(upgraded) = connection.await else { return };
    let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
    let mut socket = Socket { reader, writer, inbox: Vec::new(), unanswered: false };
    // However it ended, there is nobody left to tell.
    let _ = socket.serve(session, keepalive, closed).await;
}

struct Socket {
    reader: ReadHalf<TokioIo<Upgraded>>,
    writer: WriteHalf<TokioIo<Upgraded>>,
    /// The beginning of a frame.
    inbox: Vec<u8>,
    /// A ping is out.
    unanswered: bool,
}

impl Socket {
    async fn serve(
        &mut self,
        mut session: Session,
        keepalive: Duration,
        closed: CancellationToken,
    ) -> io::Result<()> {
        let mut beat = tokio::time::interval(keepalive);
        beat.reset();
        let mut chunk = [0; 2 * LARGEST];
        loop {
            tokio::select! {
                next = session.next() => match next? {
                    Some(frame) => write(&mut self.writer, &frame).await?,
                    None => return write(&mut self.writer, &GOING_AWAY).await,
                },
                read = self.reader.read(&mut chunk) => {
                    let many = read?;
                    self.inbox.extend_from_slice(&chunk[..many]);
                    if many == 0 || self.take_frames().await? {
                        return Ok(());
                    }
                }
                _ = beat.tick() => {
                    if self.unanswered {
                        return Ok(());
                    }
                    self.unanswered = true;
                    write(&mut self.writer, &[0x80 | PING, 0]).await?;
                }
                () = closed.cancelled() => return write(&mut self.writer, &GOING_AWAY).await,
            }
        }
    }

    /// Answers what has come; whether the peer has said good-bye.
    async fn take_frames(&mut self) -> io::Result<bool> {
        while let Some((opcode, payload, length)) = frame(&self.inbox)? {
            self.inbox.drain(..length);
            match opcode {
                CLOSE => {
                    write(&mut self.writer, &control(CLOSE, &payload)).await?;
                    return Ok(true);
                }
                PING => write(&mut self.writer, &control(PONG, &payload)).await?,
                PONG => self.unanswered = false,
                // Data: nothing that a subscriber says means anything.
                _ => {}
            }
        }
        Ok(false)
    }
}

async fn write(writer: &mut WriteHalf<TokioIo<Upgraded>>, bytes: &[u8]) -> io::Result<()> {
    let writing = async {
        writer.write_all(bytes).await?;
        writer.flush().await
    };
    tokio::time::timeout(WRITE_TIME, writing).await?
}

fn control(opcode: u8, payload: &[u8]) -> Vec<u8> {
    // Not above `LARGEST`: it came in a frame that `frame` took.
    let mut frame = vec![0x80 | opcode, payload.len() as u8];
    frame.extend_from_slice(payload);
    frame
}

/// The first whole frame: opcode, payload unmasked, length (RFC 6455, section 5.2).
fn frame(bytes: &[u8]) -> io::Result<Option<(u8, Vec<u8>, usize)>> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let length = usize::from(second & 0x7F);
    let masked = second & 0x80 != 0;
    if !masked || length > LARGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let Some((mask, rest)) = rest.split_at_checked(4) else { return Ok(None) };
    let Some(payload) = rest.get(..length) else { return Ok(None) };
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    Ok(Some((first & 0x0F, payload.collect(), 6 + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_of_rfc_6455_is_answered() {
        let mut headers = HeaderMap::new();
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        headers.insert(header::SEC_WEBSOCKET_KEY, key);
        assert_eq!(accept(&headers).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn frames_are_read_whole_and_only_masked_and_small() {
        let hello = [0x89, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(frame(&hello).unwrap(), Some((PING, b"Hello".to_vec(), 11)));
        for end in 0..hello.len() {
            assert_eq!(frame(&hello[..end]).unwrap(), None, "{end}");
        }
        assert!(frame(&[0x89, 0x05]).is_err(), "not masked");
        assert!(frame(&[0x81, 0xFE, 1, 0]).is_err(), "too large");
    }
}
