//! `bench stream`: how many devices one router holds, what each costs, and how long
//! a message takes to reach all of them.
//!
//! The router is a process of its own, with the devices' listener and nothing else
//! to do; the subscribers are real connections from this one. A message goes
//! through the API, is written to the store and to the backlog, both flushed, and
//! is then read from every connection: its time begins before the call. Reading
//! ten thousand sockets is work, too: on one machine this process takes its share
//! of the processor, which is told beside the router's.

mod crowd;

use std::net::SocketAddr;
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use self::crowd::{Crowd, TOPIC};
use super::PlaceArgs;
use super::report::{Report, mebibytes, or_dash};
use crate::cli::files;
use crate::cli::load::child::Child;
use crate::cli::load::figures::{Quantiles, rounded};
use crate::cli::load::process::{cpu, file_system, memory};
use crate::cli::load::stage::folder;
use crate::cli::load::wire::{self, Caller};
use crate::cli::load::{Failure, say, say_aside};
use crate::clock::Clock;

/// Open files of a process beside its subscribers: stores, listeners, pipes, libraries.
const OTHER_FILES: u64 = 100;

const EXAMPLES: &str = "\
Examples:
  pushyard bench stream --subscribers 10000
  pushyard bench stream --subscribers 10000 --format ws --messages 100 --json

Each subscriber is an open file, here and in the router. Both take as many as they
may; where that is not enough, raise the hard limit (as root: ulimit -Hn 200000).";

/// How a subscriber reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
    Ws,
    Sse,
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct StreamArgs {
    /// Connections that listen to one topic
    #[arg(long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    subscribers: u32,
    /// How they read
    #[arg(long, value_enum, default_value = "json")]
    format: Format,
    /// Messages, each sent when the one before has reached everyone
    #[arg(long, value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    messages: u32,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Debug, Serialize)]
struct Figures {
    format: &'static str,
    /// Connections that were there when the first message was sent.
    subscribers: u32,
    /// Of them, those that were still there after the last.
    subscribers_left: u32,
    /// For all of them to connect.
    connect_ms: f64,
    messages: u32,
    /// From before the call to the last subscriber, for each message.
    to_all: Quantiles,
    /// From before the call to a subscriber, for each message and subscriber.
    to_each: Quantiles,
    /// What never came.
    missing: u64,
    rss_idle_bytes: Option<u64>,
    /// With all subscribers, before the first message.
    rss_held_bytes: Option<u64>,
    rss_max_bytes: Option<u64>,
    rss_per_subscriber_bytes: Option<f64>,
    router_cpu_per_connect_us: Option<f64>,
    router_cpu_per_message_ms: Option<f64>,
    load_cpu_per_message_ms: Option<f64>,
    place: String,
}

/// Runs, prints, and returns how many messages did not reach a subscriber.
pub(super) async fn run(args: StreamArgs, json: bool) -> Result<u64, Failure> {
    enough_files(files::raise(), u64::from(args.subscribers))?;
    let clock = Arc::new(Clock::default());
    let mut router = Router::start(args.place.dir.as_deref(), args.subscribers).await?;
    let measured = measure(&args, &router, &clock, json).await;
    let figures = match measured {
        Ok(figures) => figures,
        // That the router has ended is a better reason than a broken connection.
        Err(failure) => return Err(router.child.check().await.err().unwrap_or(failure)),
    };
    // One that cannot be killed is gone already.
    let _ = router.child.kill().await;
    match json {
        true => say(serde_json::to_string(&figures)?),
        false => say(report(&figures)),
    }
    Ok(figures.missing)
}

async fn measure(
    args: &StreamArgs,
    router: &Router,
    clock: &Arc<Clock>,
    json: bool,
) -> Result<Figures, Failure> {
    let pid = router.child.pid();
    let moment = || (cpu(pid), cpu(process::id()));
    let (idle, start) = (memory(pid), moment());
    if !json {
        say_aside(format_args!("connecting {} subscribers …", args.subscribers));
    }
    let began = clock.now().instant;
    let mut crowd = Crowd::gather(router.stream, args.format, args.subscribers, clock).await?;
    let connected = clock.now().instant.saturating_duration_since(began);
    let (held, settled) = (memory(pid), moment());
    if !json {
        say_aside(format_args!("sending {} messages …", args.messages));
    }
    let (mut to_all, mut to_each, mut missing) = (Vec::new(), Vec::new(), 0);
    let mut api = Caller::new(router.api);
    for _ in 0..args.messages {
        crowd.expect();
        send(&mut api).await?;
        let arrived = crowd.arrived().await;
        missing += u64::from(args.subscribers).saturating_sub(arrived.len() as u64);
        to_all.extend(arrived.iter().max().copied());
        to_each.extend(arrived);
    }
    let end = moment();
    let used = |from: Option<Duration>, to: Option<Duration>| Some(to?.saturating_sub(from?));
    let share = |used: Option<Duration>, of: u32, unit: f64| {
        used.map(|used| rounded(used.as_secs_f64() * unit / f64::from(of)))
    };
    let grown = held.zip(idle).map(|(held, idle)| held.now.saturating_sub(idle.now) as f64);
    Ok(Figures {
        format: args.format.word(),
        subscribers: args.subscribers,
        subscribers_left: crowd.left(),
        connect_ms: rounded(connected.as_secs_f64() * 1000.0),
        messages: args.messages,
        to_all: Quantiles::of_us(to_all),
        to_each: Quantiles::of_us(to_each),
        missing,
        rss_idle_bytes: idle.map(|memory| memory.now),
        rss_held_bytes: held.map(|memory| memory.now),
        rss_max_bytes: memory(pid).map(|memory| memory.most),
        rss_per_subscriber_bytes: grown.map(|grown| (grown / f64::from(args.subscribers)).round()),
        router_cpu_per_connect_us: share(used(start.0, settled.0), args.subscribers, 1e6),
        router_cpu_per_message_ms: share(used(settled.0, end.0), args.messages, 1e3),
        load_cpu_per_message_ms: share(used(settled.1, end.1), args.messages, 1e3),
        place: router.place(),
    })
}

async fn send(api: &mut Caller) -> Result<(), Failure> {
    let body = format!(
        "{{\"to\":[{{\"addresses\":[{{\"kind\":\"stream\",\"topic\":\"{TOPIC}\"}}]}}],\
         \"notification\":{{\"title\":\"Order 7\",\"body\":\"Your order is on its way\"}},\
         \"ttl\":\"1h\"}}"
    );
    let reply = api.call(&wire::request("POST", "/v1/messages", body.as_bytes())).await?;
    if reply.status == 202 {
        return Ok(());
    }
    let told = String::from_utf8_lossy(reply.body);
    Err(format!("the router refused a message with {}: {told}", reply.status).into())
}

impl Format {
    fn word(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ws => "ws",
            Self::Sse => "sse",
        }
    }
}

fn enough_files(limit: Option<u64>, subscribers: u64) -> Result<(), Failure> {
    let needed = subscribers + OTHER_FILES;
    match limit {
        Some(limit) if limit < needed => Err(format!(
            "{subscribers} subscribers need {needed} open files, and this process may have \
             {limit}: raise the hard limit (as root: ulimit -Hn {needed}), or take at most \
             --subscribers {}",
            limit.saturating_sub(OTHER_FILES)
        )
        .into()),
        Some(_) | None => Ok(()),
    }
}

/// The router, in a folder of its own that goes with it.
struct Router {
    // In this order: the process dies before its folder goes.
    child: Child,
    folder: TempDir,
    api: SocketAddr,
    stream: SocketAddr,
}

#[derive(Deserialize)]
struct Listening {
    api: SocketAddr,
    stream: SocketAddr,
}

impl Router {
    async fn start(base: Option<&Path>, subscribers: u32) -> Result<Self, Failure> {
        let folder = folder(base)?;
        // Pings come seldom, so that they do not count as messages' work.
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [stream]\nlisten = \"127.0.0.1:0\"\nmax_subscribers = {subscribers}\n\
             keepalive = \"70s\"\n[[providers]]\nid = \"stream\"\nkind = \"stream\"\n"
        );
        let file = folder.path().join("router.toml");
        let written = tokio::fs::write(&file, text).await;
        written.map_err(|error| format!("{}: {error}", file.display()))?;
        let arguments = ["serve".as_ref(), "--config".as_ref(), file.as_os_str()];
        let (child, line) = Child::start("router", &arguments).await?;
        let Listening { api, stream } = line
            .strip_prefix("listening ")
            .and_then(|json| serde_json::from_str(json).ok())
            .ok_or_else(|| format!("the router did not say where it listens, but: {line}"))?;
        Ok(Self { child, folder, api, stream })
    }

    fn place(&self) -> String {
        let path = self.folder.path();
        match file_system(path) {
            Some(kind) => format!("{} ({kind})", path.display()),
            None => path.display().to_string(),
        }
    }
}

fn report(figures: &Figures) -> String {
    let mut report = Report::new(&[figures.format.to_owned()]);
    report.line("subscribers held", [figures.subscribers_left.to_string()]);
    report.line("all connected after", [format!("{:.0} ms", figures.connect_ms)]);
    let kibibytes = figures.rss_per_subscriber_bytes.map(|bytes| bytes / 1024.0);
    report.line("router memory a subscriber", [or_dash(kibibytes, "KiB")]);
    report.line("router memory, idle", [mebibytes(figures.rss_idle_bytes)]);
    report.line("router memory, all connected", [mebibytes(figures.rss_held_bytes)]);
    report.line("router memory, most", [mebibytes(figures.rss_max_bytes)]);
    report.line("messages", [figures.messages.to_string()]);
    let longest = |quantiles: &Quantiles| [format!("{:.1} ms", quantiles.max_ms)];
    for (name, quantiles) in [("to all", &figures.to_all), ("to each", &figures.to_each)] {
        report.quantiles(name, &[*quantiles], false);
        report.line(&format!("{name} max"), longest(quantiles));
    }
    report.line("router CPU to connect one", [or_dash(figures.router_cpu_per_connect_us, "us")]);
    report.line("router CPU a message", [or_dash(figures.router_cpu_per_message_ms, "ms")]);
    report.line("load CPU a message", [or_dash(figures.load_cpu_per_message_ms, "ms")]);
    report.line("missing", [figures.missing.to_string()]);
    format!("{}\nstore in {}", report.text(), figures.place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_files_are_told_with_what_to_do() {
        assert!(enough_files(None, 1_000_000).is_ok());
        assert!(enough_files(Some(1124), 1024).is_ok());
        let told = enough_files(Some(1024), 10_000).unwrap_err().to_string();
        for part in ["10100 open files", "ulimit -Hn 10100", "--subscribers 924"] {
            assert!(told.contains(part), "{told}");
        }
    }
}
