//! A message as subscribers get it: ntfy's message object in one line of JSON,
//! and the same framed for each form of subscription.
//!
//! A form is made when the first subscriber wants it and then shared, so that a
//! message to ten thousand subscribers is encoded once. The object is put
//! together here and not in the payload, because id, times and topic are known
//! only when it is published.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest;
use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use uuid::Uuid;

/// Characters of an id, as ntfy's clients expect them.
pub const ID_LENGTH: usize = 12;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A message without priority counts as this (ntfy, "Message priority").
const DEFAULT_PRIORITY: u8 = 3;

/// Where a message's lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Newline-delimited JSON.
    Json,
    /// Server-sent events.
    Sse,
    /// The text alone, one line a message.
    Raw,
    /// A WebSocket text frame.
    Ws,
}

/// One published message. Shared by all who get it.
#[derive(Debug)]
pub struct Message {
    /// Rises over all topics, in the order of publishing.
    pub row: u64,
    /// Its topic.
    pub topic: Box<str>,
    /// Unix seconds.
    pub time: u64,
    /// Unix seconds; not shown from then on.
    pub expires: u64,
    line: Bytes,
    seen: OnceLock<Seen>,
    sse: OnceLock<Bytes>,
    raw: OnceLock<Bytes>,
    ws: OnceLock<Bytes>,
    weight: Option<Weight>,
}

/// What filters look at.
#[derive(Debug, Default, Deserialize)]
pub struct Seen {
    /// `id`.
    #[serde(default)]
    pub id: String,
    /// `title`.
    #[serde(default)]
    pub title: String,
    /// `message`.
    #[serde(default)]
    pub message: String,
    /// `priority`, 3 when there is none.
    #[serde(default = "default_priority")]
    pub priority: u8,
    /// `tags`.
    #[serde(default)]
    pub tags: Vec<String>,
}

fn default_priority() -> u8 {
    DEFAULT_PRIORITY
}

/// Bytes of messages that are alive in some subscriber's queue.
#[derive(Debug)]
struct Weight(Arc<AtomicUsize>, usize);

impl Drop for Weight {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl Message {
    /// `line` is the object's JSON with a newline at its end.
    pub fn new(row: u64, topic: &str, time: u64, expires: u64, line: Bytes) -> Self {
        Self {
            row,
            topic: topic.into(),
            time,
            expires,
            line,
            seen: OnceLock::new(),
            sse: OnceLock::new(),
            raw: OnceLock::new(),
            ws: OnceLock::new(),
            weight: None,
        }
    }

    /// The same, counted in `bytes` as long as it lives.
    pub(super) fn weighed(mut self, bytes: &Arc<AtomicUsize>) -> Self {
        bytes.fetch_add(self.line.len(), Ordering::Relaxed);
        self.weight = Some(Weight(Arc::clone(bytes), self.line.len()));
        self
    }

    /// What filters look at. What an override made unreadable has nothing in it.
    pub fn seen(&self) -> &Seen {
        self.seen.get_or_init(|| serde_json::from_slice(&self.line).unwrap_or_default())
    }

    /// As it goes to a subscriber.
    pub fn bytes(&self, form: Form) -> Bytes {
        let object = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        match form {
            Form::Json => self.line.clone(),
            Form::Sse => self.sse.get_or_init(|| sse(None, object)).clone(),
            Form::Raw => self.raw.get_or_init(|| raw(&self.seen().message)).clone(),
            Form::Ws => self.ws.get_or_init(|| text_frame(object)).clone(),
        }
    }
}

/// An event that is no message (`open`, `keepalive`); empty where a form has none.
pub fn event(name: &str, topics: &str, time: u64, form: Form) -> Bytes {
    // Topics are checked and names are ours: nothing to escape.
    let id = new_id();
    let object = format!(r#"{{"id":"{id}","time":{time},"event":"{name}","topic":"{topics}"}}"#);
    match form {
        Form::Json => Bytes::from(object + "\n"),
        Form::Sse => sse(Some(name), object.as_bytes()),
        Form::Raw => Bytes::from_static(b"\n"),
        Form::Ws => text_frame(object.as_bytes()),
    }
}

/// Puts the object together from what only publishing knows and the payload's
/// object, which has at least one member.
pub(super) fn line(id: &str, time: u64, expires: u64, topic: &str, rest: &[u8]) -> Bytes {
    let head = format!(
        r#"{{"id":"{id}","time":{time},"expires":{expires},"event":"message","topic":"{topic}","#
    );
    let rest = rest.strip_prefix(b"{").unwrap_or(rest);
    let mut line = BytesMut::with_capacity(head.len() + rest.len() + 1);
    line.put_slice(head.as_bytes());
    line.put_slice(rest);
    line.put_u8(b'\n');
    line.freeze()
}

/// The id under which a delivery appears in a topic. Derived, so that a repeat
/// has the same one: the backlog drops it, and so does a client that saw it.
pub(super) fn id(delivery: Uuid, topic: &str) -> String {
    let mut text = delivery.as_bytes().to_vec();
    text.extend_from_slice(topic.as_bytes());
    let hash = digest::digest(&digest::SHA256, &text);
    let mut number = [0; 16];
    number.copy_from_slice(&hash.as_ref()[..16]);
    id_of(u128::from_be_bytes(number))
}

/// An id that nothing else has.
pub(super) fn new_id() -> String {
    id_of(rand::random())
}

fn id_of(mut number: u128) -> String {
    let mut id = String::with_capacity(ID_LENGTH);
    for _ in 0..ID_LENGTH {
        id.push(char::from(ALPHABET[(number % 62) as usize]));
        number /= 62;
    }
    id
}

fn sse(name: Option<&str>, object: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(object.len() + 32);
    if let Some(name) = name {
        out.put_slice(b"event: ");
        out.put_slice(name.as_bytes());
        out.put_u8(b'\n');
    }
    out.put_slice(b"data: ");
    out.put_slice(object);
    out.put_slice(b"\n\n");
    out.freeze()
}

fn raw(text: &str) -> Bytes {
    Bytes::from(text.replace(['\n', '\r'], " ") + "\n")
}

/// An unmasked, unfragmented text frame (RFC 6455, section 5.2).
fn text_frame(text: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(text.len() + 10);
    out.put_u8(0x81);
    match u16::try_from(text.len()) {
        Ok(length) if length < 126 => out.put_u8(length as u8),
        Ok(length) => {
            out.put_u8(126);
            out.put_u16(length);
        }
        Err(_) => {
            out.put_u8(127);
            out.put_u64(text.len() as u64);
        }
    }
    out.put_slice(text);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_what_ntfys_clients_read() {
        let rest = br#"{"message":"a\nb","title":"T"}"#;
        let line = line("abcdefghijkl", 7, 9, "t", rest);
        let object = r#"{"id":"abcdefghijkl","time":7,"expires":9,"event":"message","topic":"t","message":"a\nb","title":"T"}"#;
        let message = Message::new(1, "t", 7, 9, line);
        assert_eq!(message.bytes(Form::Json), format!("{object}\n"));
        assert_eq!(message.bytes(Form::Sse), format!("data: {object}\n\n"));
        assert_eq!(message.bytes(Form::Raw), "a b\n");
        let frame = message.bytes(Form::Ws);
        assert_eq!(frame[..2], [0x81, object.len() as u8]);
        assert_eq!(&frame[2..], object.as_bytes());
        assert_eq!(text_frame(&[b'x'; 300])[..4], [0x81, 126, 1, 44]);
        assert_eq!(text_frame(&vec![b'x'; 70_000])[..10], [0x81, 127, 0, 0, 0, 0, 0, 1, 17, 112]);
    }

    #[test]
    fn open_and_keepalive_have_four_keys_and_a_blank_line_in_raw() {
        let text = String::from_utf8(event("open", "a,b", 5, Form::Json).to_vec()).unwrap();
        let (id, rest) = text[7..].split_at(12);
        assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{text}");
        assert_eq!(rest, "\",\"time\":5,\"event\":\"open\",\"topic\":\"a,b\"}\n");
        assert!(event("keepalive", "a", 5, Form::Sse).starts_with(b"event: keepalive\ndata: {"));
        assert_eq!(event("open", "a", 5, Form::Raw), "\n");
    }

    #[test]
    fn an_id_is_the_deliverys_and_the_topics() {
        let delivery = Uuid::from_u128(7);
        assert_eq!(id(delivery, "a"), id(delivery, "a"));
        assert_ne!(id(delivery, "a"), id(delivery, "b"));
        assert_ne!(id(delivery, "a"), id(Uuid::from_u128(8), "a"));
        assert_eq!(id(delivery, "a").len(), ID_LENGTH);
    }
}
