//! Many subscribers of one topic, each a connection and a task that does little
//! but read: what a client library keeps for each would be measured instead.
//!
//! A message is known by a text that stands once in each, in every format. When
//! all have it the crowd says so; each has noted in its own place how long it took.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use super::Format;
use crate::cli::load::Failure;
use crate::clock::Clock;

/// What they listen to.
pub(super) const TOPIC: &str = "bench";

/// Stands once in every message, and in no other event.
const MARK: &[u8] = br#""event":"message""#;

/// Stands once in what every stream begins with.
const OPEN: &[u8] = br#""event":"open""#;

/// A ping without payload (RFC 6455, section 5.5.2). No text frame of ours has it:
/// 0x89 is no ASCII, and as the end of a length it is followed by a brace.
const PING: [u8; 2] = [0x89, 0];

/// The answer, masked with zeros.
const PONG: [u8; 6] = [0x8A, 0x80, 0, 0, 0, 0];

/// Connections that are being made at once: less than the listener's queue takes.
const CONNECTING: usize = 128;

/// Connections from one address of this machine; a system has about 28,000 ports for
/// each (Linux: net.ipv4.ip_local_port_range). All of 127.0.0.0/8 is ours.
const FROM_ONE_ADDRESS: u32 = 20_000;

/// For one connection, and for one message to reach all: more is a fault.
const PATIENCE: Duration = Duration::from_secs(60);

/// A subscriber that has not got the message.
const NOT_YET: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Crowd {
    shared: Arc<Shared>,
    /// They end with it.
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    clock: Arc<Clock>,
    began: Instant,
    /// When the message was sent, in microseconds from `began`.
    sent_us: AtomicU64,
    /// How long it took to each, in microseconds.
    took_us: Vec<AtomicU32>,
    /// How many have it.
    arrived: AtomicU32,
    /// How many are still there.
    left: AtomicU32,
    all: Notify,
}

impl Crowd {
    /// Connects all of them. When this returns, each has read the event `open`.
    pub(super) async fn gather(
        router: SocketAddr,
        format: Format,
        many: u32,
        clock: &Arc<Clock>,
    ) -> Result<Self, Failure> {
        let shared = Arc::new(Shared {
            clock: Arc::clone(clock),
            began: clock.now().instant,
            sent_us: AtomicU64::new(0),
            took_us: (0..many).map(|_| AtomicU32::new(NOT_YET)).collect(),
            arrived: AtomicU32::new(0),
            left: AtomicU32::new(many),
            all: Notify::new(),
        });
        let turns = Arc::new(Semaphore::new(CONNECTING));
        let (request, mut connecting) = (request(format), JoinSet::new());
        for number in 0..many {
            let (turns, request) = (Arc::clone(&turns), request.clone());
            connecting.spawn(async move {
                let _turn = turns.acquire().await.map_err(io::Error::other)?;
                let connected = connect(router, source(number), &request);
                let stream = tokio::time::timeout(PATIENCE, connected).await??;
                Ok::<_, io::Error>((number, stream))
            });
        }
        let mut tasks = JoinSet::new();
        while let Some(joined) = connecting.join_next().await {
            let connected = joined.map_err(io::Error::other).and_then(|connected| connected);
            let (number, stream) = connected.map_err(|error| {
                format!("subscriber {} could not connect: {error}", tasks.len() + 1)
            })?;
            tasks.spawn(Arc::clone(&shared).listen(number, stream));
        }
        Ok(Self { shared, _tasks: tasks })
    }

    /// The next message is about to be sent.
    pub(super) fn expect(&mut self) {
        for took in &self.shared.took_us {
            took.store(NOT_YET, Relaxed);
        }
        self.shared.arrived.store(0, Relaxed);
        self.shared.sent_us.store(self.shared.now_us(), Relaxed);
    }

    /// When all have it, or nobody waits any longer: how long it took, in
    /// microseconds, to each that has it.
    pub(super) async fn arrived(&self) -> Vec<u64> {
        let all = async {
            while self.shared.arrived.load(Relaxed) < self.left() {
                self.shared.all.notified().await;
            }
        };
        // Who has not got it is missing in what is returned.
        let _ = tokio::time::timeout(PATIENCE, all).await;
        let took = self.shared.took_us.iter().map(|took| took.load(Relaxed));
        took.filter(|took| *took != NOT_YET).map(u64::from).collect()
    }

    /// How many are still there.
    pub(super) fn left(&self) -> u32 {
        self.shared.left.load(Relaxed)
    }
}

impl Shared {
    fn now_us(&self) -> u64 {
        let passed = self.clock.now().instant.saturating_duration_since(self.began);
        u64::try_from(passed.as_micros()).unwrap_or(u64::MAX)
    }

    async fn listen(self: Arc<Self>, number: u32, mut stream: TcpStream) {
        // How it ended does not matter: it is not there any more.
        let _ = self.read(number, &mut stream).await;
        self.left.fetch_sub(1, Relaxed);
        self.all.notify_one();
    }

    async fn read(&self, number: u32, stream: &mut TcpStream) -> io::Result<()> {
        let mut finder = Finder::default();
        let mut chunk = [0; 1024];
        loop {
            let many = stream.read(&mut chunk).await?;
            if many == 0 {
                return Ok(());
            }
            if finder.look(&chunk[..many]) {
                let took = self.now_us().saturating_sub(self.sent_us.load(Relaxed));
                let took = u32::try_from(took).unwrap_or(NOT_YET - 1);
                self.took_us[number as usize].store(took, Relaxed);
                if self.arrived.fetch_add(1, Relaxed) + 1 >= self.left.load(Relaxed) {
                    self.all.notify_one();
                }
            }
            if contains(&chunk[..many], &PING) {
                stream.write_all(&PONG).await?;
            }
        }
    }
}

/// Finds [`MARK`] in pieces, however it is cut.
#[derive(Default)]
struct Finder {
    /// The end of what came before, which may be its beginning.
    tail: Vec<u8>,
}

impl Finder {
    fn look(&mut self, chunk: &[u8]) -> bool {
        self.tail.extend_from_slice(chunk);
        let found = contains(&self.tail, MARK);
        let keep = if found { 0 } else { self.tail.len().min(MARK.len() - 1) };
        self.tail.drain(..self.tail.len() - keep);
        // A large chunk was seldom: what one held need not be held on.
        self.tail.shrink_to(MARK.len());
        found
    }
}

fn contains(all: &[u8], part: &[u8]) -> bool {
    all.windows(part.len()).any(|window| window == part)
}

fn request(format: Format) -> Arc<[u8]> {
    let upgrade = match format {
        // The key of RFC 6455, section 1.3: nobody needs another one here.
        Format::Ws => {
            "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        }
        Format::Json | Format::Sse => "",
    };
    let form = format.word();
    format!("GET /{TOPIC}/{form} HTTP/1.1\r\nhost: localhost\r\n{upgrade}\r\n").into_bytes().into()
}

/// Where a subscriber connects from: 127.0.0.1, then the addresses after it.
fn source(number: u32) -> Ipv4Addr {
    let first = u32::from(Ipv4Addr::LOCALHOST);
    Ipv4Addr::from(first + number / FROM_ONE_ADDRESS)
}

async fn connect(router: SocketAddr, source: Ipv4Addr, request: &[u8]) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // The first needs no choice, and not every system has the others.
    if source != Ipv4Addr::LOCALHOST {
        socket.bind((IpAddr::V4(source), 0).into())?;
    }
    let mut stream = socket.connect(router).await?;
    stream.write_all(request).await?;
    let mut seen = Vec::new();
    while !contains(&seen, OPEN) {
        let ended = stream.read_buf(&mut seen).await? == 0;
        // A refusal is one line of JSON behind its head.
        let refused = !seen.starts_with(b"HTTP/1.1 200") && !seen.starts_with(b"HTTP/1.1 101");
        if ended || (refused && contains(&seen, b"\r\n\r\n") && seen.ends_with(b"}\n")) {
            let told = String::from_utf8_lossy(&seen);
            let told = told.lines().last().unwrap_or_default();
            return Err(io::Error::other(format!("the router hung up: {told}")));
        }
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_found_once_however_it_is_cut() {
        let line = br#"{"id":"x","event":"message","topic":"bench"}"#;
        for cut in 0..line.len() {
            let mut finder = Finder::default();
            let found = [&line[..cut], &line[cut..], b"\n"].map(|piece| finder.look(piece));
            assert_eq!(found.iter().filter(|found| **found).count(), 1, "{cut}");
        }
        assert!(!Finder::default().look(br#"{"event":"keepalive"}"#));
    }

    #[test]
    fn sources_change_before_ports_run_out() {
        let of = |number| source(number).octets();
        assert_eq!((of(0), of(19_999)), ([127, 0, 0, 1], [127, 0, 0, 1]));
        assert_eq!((of(20_000), of(99_999)), ([127, 0, 0, 2], [127, 0, 0, 5]));
    }
}
