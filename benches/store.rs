//! What the durable path costs: `cargo bench --bench store`.
//!
//! Not a micro-benchmark, so without criterion: figures are taken over hundreds
//! of thousands of deliveries on a real directory (under `target/`, or where
//! `PUSHYARD_BENCH_DIR` says), CPU is that of the whole process, and each run
//! prints one line.
#![allow(clippy::print_stdout, reason = "a bench reports there")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use pushyard::clock::{Clock, Utc};
use pushyard::model::{
    Attempt, Body, Durability, IdGenerator, Idempotency, Message, OnAmbiguous, Progress, Recipient,
    State,
};
use pushyard::store::embedded::{Embedded, open};
use pushyard::store::{Flushed, Record, Settings, Store};
use pushyard_providers::{Address, Notification, Outcome, Push, registry};
use rand::SeedableRng;
use rand::rngs::StdRng;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    single_rows();
    for keys in [false, true] {
        deliveries(1, 400_000, 256, keys);
    }
    deliveries(1, 400_000, 768, false);
    deliveries(1, 400_000, 3072, false);
    deliveries(100, 1_000_000, 256, false);
    backlog(300_000);
    retention(300_000);
}

/// Commits of one row: the latency of an idle store.
fn single_rows() {
    let bench = Bench::new("single");
    let begun = bench.clock.now().instant;
    let store = bench.open();
    let opened = bench.clock.now().instant - begun;
    let messages = bench.messages(1, 2000, false);
    for body in &messages {
        bench.submit(&store, vec![Record::Accept(body.clone())]);
        bench.wait_for_all();
    }
    let mut times: Vec<Duration> = store.commit_times().into_iter().map(|(_, took)| took).collect();
    times.sort_unstable();
    let at = |part: usize| times[times.len() * part / 100];
    println!("empty: made in {opened:?}; 1 row a commit: p50 {:?}, p99 {:?}", at(50), at(99));
}

/// Accepts, outcomes and settlements together, as a running server writes them:
/// what becomes of the messages of a commit is in the next one.
fn deliveries(recipients: usize, total: usize, rows: usize, keys: bool) {
    let bench = Bench::new("deliveries");
    let store = bench.open();
    let accepts_in_a_lot = (rows / (recipients + 2)).max(1);
    let messages = bench.messages(recipients, total / recipients, keys);
    let outcome = Arc::new(sent(bench.now()));
    let begun = bench.clock.now().instant;
    let cpu = cpu_time();
    let mut before: &[Arc<Body>] = &[];
    for lot in messages.chunks(accepts_in_a_lot).chain([&[][..]]) {
        let mut records = settled(before, &outcome);
        records.extend(lot.iter().cloned().map(Record::Accept));
        bench.submit(&store, records);
        before = lot;
        bench.wait_for_all();
    }
    let (took, cpu) = (bench.clock.now().instant - begun, cpu_time() - cpu);
    let figures = store.figures();
    println!(
        "{recipients} recipients a message{}, {} rows a commit: {:.0} deliveries/s, {:.1} us CPU a \
         delivery, {} B of file a delivery",
        if keys { ", with keys" } else { "" },
        figures.rows / figures.commits,
        total as f64 / took.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / total as f64,
        figures.bytes / total as u64,
    );
}

fn settled(messages: &[Arc<Body>], outcome: &Arc<Progress>) -> Vec<Record> {
    let mut records = Vec::new();
    for body in messages {
        let message = body.message();
        let places = 0..u16::try_from(message.recipients.len()).expect("few");
        records.extend(places.map(|n| Record::Progress(message.id.delivery(n), outcome.clone())));
        records.push(Record::Settled(message.id));
    }
    records
}

/// A backlog of unsettled messages, an end without order, and a start.
fn backlog(total: usize) {
    let bench = Bench::new("backlog");
    let store = bench.open();
    for lot in bench.messages(1, total, false).chunks(1024) {
        for body in lot {
            bench.submit(&store, vec![Record::Accept(body.clone())]);
        }
        bench.wait_for_all();
    }
    let bytes = store.figures().bytes;
    drop(store);
    let begun = bench.clock.now().instant;
    let store = bench.open();
    let opened = bench.clock.now().instant;
    let mut found = 0;
    store.recover(&mut |_| found += 1).expect("the file is whole");
    let read = bench.clock.now().instant;
    println!(
        "{found} unsettled, {} MiB: opened in {:?}, read in {:?}",
        bytes >> 20,
        opened - begun,
        read - opened
    );
}

/// All that old messages cost when they go, and what it does to a commit.
fn retention(total: usize) {
    let mut bench = Bench::new("retention");
    bench.ago = Duration::from_secs(48 * 3600);
    let store = bench.open();
    let outcome = Arc::new(sent(bench.now()));
    let messages = bench.messages(1, total, false);
    let newest = messages[total - 1].message().id;
    for lot in messages.chunks(1024) {
        for body in lot {
            bench.submit(&store, vec![Record::Accept(body.clone())]);
        }
        bench.submit(&store, settled(lot, &outcome));
        bench.wait_for_all();
    }
    store.close();
    drop(store);
    bench.ago = Duration::ZERO;
    let fresh = bench.messages(1, 2000, false);
    let store = bench.open();
    let cpu = cpu_time();
    let begun = bench.clock.now().instant;
    for body in fresh {
        bench.submit(&store, vec![Record::Accept(body)]);
        bench.wait_for_all();
    }
    let mut times: Vec<Duration> = store.commit_times().into_iter().map(|(_, took)| took).collect();
    times.sort_unstable();
    while store.message(newest).expect("the file is whole").is_some() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let steps = times.len();
    println!(
        "{total} old messages go while 2000 are accepted: {:?} in all, {:?} of CPU, longest of \
         {steps} commits {:?}",
        bench.clock.now().instant - begun,
        cpu_time() - cpu,
        times.last().copied().unwrap_or_default(),
    );
}

struct Bench {
    settings: Settings,
    clock: Arc<Clock>,
    flushes: Arc<Flushes>,
    ids: Mutex<(IdGenerator, StdRng)>,
    /// Messages were accepted so long ago.
    ago: Duration,
}

#[derive(Default)]
struct Flushes {
    /// Submitted, flushed.
    counts: Mutex<(u64, u64)>,
    told: Condvar,
}

impl Flushes {
    fn reset(&self) {
        *self.counts.lock().expect("no panic under it") = (0, 0);
    }
}

impl Bench {
    fn new(name: &str) -> Self {
        let directory = std::env::var_os("PUSHYARD_BENCH_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
        let path = directory.join("store-bench").join(name);
        // From an earlier run, if there was one.
        let _ = std::fs::remove_dir_all(&path);
        Self {
            settings: Settings {
                path,
                retention: Duration::from_secs(24 * 3600),
                max_bytes: 10 << 30,
                commit_delay: Duration::ZERO,
                min_free: 0,
                dead_letter_retention: Duration::from_secs(7 * 24 * 3600),
                max_dead_letters: 100_000,
                max_idempotency_keys: 5_000_000,
            },
            clock: Arc::default(),
            flushes: Arc::default(),
            ids: Mutex::new((IdGenerator::default(), StdRng::seed_from_u64(1))),
            ago: Duration::ZERO,
        }
    }

    fn open(&self) -> Arc<Embedded> {
        self.flushes.reset();
        let (clock, flushes) = (self.clock.clone(), self.flushes.clone());
        let on_flushed = Box::new(move |flushed: Flushed| match flushed {
            Flushed::Upto(upto) => {
                flushes.counts.lock().expect("no panic under it").1 = upto;
                flushes.told.notify_one();
            }
            Flushed::Events => {}
            Flushed::Broken(text) => panic!("{text}"),
        });
        open(&self.settings, Arc::new(move || clock.now()), on_flushed).expect("an empty disk").0
    }

    fn now(&self) -> Utc {
        let ms = self.clock.now().utc.ms();
        Utc::from_ms(ms - u64::try_from(self.ago.as_millis()).expect("days"))
    }

    fn submit(&self, store: &Embedded, records: Vec<Record>) {
        self.flushes.counts.lock().expect("no panic under it").0 += records.len() as u64;
        store.submit(records);
    }

    fn wait_for_all(&self) {
        let counts = self.flushes.counts.lock().expect("no panic under it");
        drop(self.flushes.told.wait_while(counts, |(submitted, flushed)| flushed < submitted));
    }

    fn messages(&self, recipients: usize, count: usize, keys: bool) -> Vec<Arc<Body>> {
        let kind = registry::kind("fcm").expect("a kind of this build");
        let token = "t".repeat(160);
        let address = Address::new(kind, &[("token", &token)], None, None).expect("a valid token");
        let recipient = Recipient {
            reference: Some("alice-iphone".to_owned()),
            user: None,
            region: None,
            addresses: vec![address],
            no_route: false,
        };
        let (ids, rng) = &mut *self.ids.lock().expect("no panic under it");
        let mut message = |n: usize| {
            let id = ids.next(self.now(), rng);
            Body::new(Message {
                id,
                client: "shop".into(),
                route: "default".into(),
                deliver_at: None,
                ttl: Duration::from_secs(24 * 3600),
                on_ambiguous: OnAmbiguous::Resend,
                durability: Durability::Disk,
                push: Push {
                    notification: Some(Notification {
                        title: Some("Paid".to_owned()),
                        body: Some("x".repeat(480)),
                        ..Notification::default()
                    }),
                    ..Push::default()
                },
                recipients: vec![recipient.clone(); recipients],
                metadata: BTreeMap::new(),
                idempotency: keys.then(|| hash(n)),
                warnings: Vec::new(),
                unresolved: Vec::new(),
                trace: None,
            })
        };
        (0..count).map(&mut message).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // A full disk is no reason to fail a bench that is over.
        let _ = std::fs::remove_dir_all(&self.settings.path);
    }
}

/// Spread as a real hash is.
fn hash(n: usize) -> Idempotency {
    let mut state = n as u128 + 1;
    for _ in 0..3 {
        state = state.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        state ^= state >> 61;
    }
    Idempotency { key: state.to_le_bytes(), body: [1; 16] }
}

fn sent(at: Utc) -> Progress {
    let mut progress = Progress {
        state: State::Sent,
        provider: Some("fcm".into()),
        provider_message_id: Some("projects/my-project/messages/0:1500415314455276".into()),
        ..Progress::queued(at)
    };
    progress.record(Attempt {
        n: 1,
        provider: "fcm".into(),
        kind: "fcm".into(),
        address: 0,
        outcome: Outcome::Accepted,
        status: Some(200),
        code: None,
        detail: None,
        started_at: at,
        latency_ms: 40,
    });
    progress
}

/// User and system time of this process, in steps of 10 ms.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15, counted after the name, which may hold spaces (proc(5)).
    let after = stat.rsplit(')').next().unwrap_or_default();
    let fields = after.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
