//! `bench throughput`: deliveries a second, as the vendor sees them.
//!
//! What counts is what arrives at the vendor within a window, while the backlog
//! between acceptance and arrival is bounded: a rate that could go on for ever.
//! Processor time is read from outside for router, simulator and this process,
//! because on one machine each takes from the others: a figure in which the
//! generator needs as much as the router says little about the router.

use std::process;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::sync::watch;

use super::report::{Report, mebibytes, or_dash};
use super::{PlaceArgs, Vendor};
use crate::cli::load::config::Wish;
use crate::cli::load::control::Control;
use crate::cli::load::figures::{Quantiles, per_second, rounded};
use crate::cli::load::generator::{Limits, Plan, Progress, closed_loop};
use crate::cli::load::message::Message;
use crate::cli::load::process::{cpu, memory};
use crate::cli::load::stage::Stage;
use crate::cli::load::tally::{Ledger, Tally, Verdict, settle};
use crate::cli::load::{Failure, say, say_aside};
use crate::clock::Clock;

/// How often the arrivals are counted for the bound on the backlog: often enough
/// that the bound is not felt, seldom enough that counting costs nothing.
const COUNT_EVERY: Duration = Duration::from_millis(10);

/// The backlog drains at the measured rate; a minute is far more than it needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Deliveries in the calls under way, by default, whatever the recipients: about
/// what fills a group commit without queueing for it.
const DELIVERIES_AT_ONCE: u64 = 256;

#[derive(Debug, Args)]
pub(super) struct ThroughputArgs {
    /// Recipients of each message; one run for each value
    #[arg(long, value_name = "N", num_args = 1.., value_delimiter = ',', default_values_t = [1, 100],
          value_parser = clap::value_parser!(u64).range(1..=1000))]
    recipients: Vec<u64>,
    /// How long to measure
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// How long to run before that
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    warmup: Duration,
    /// Calls at once [default: 256 divided by the recipients, at least 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    concurrency: Option<u64>,
    /// Deliveries between acceptance and arrival, at most
    #[arg(long, value_name = "N", default_value_t = 5000)]
    backlog: u64,
    /// The vendor to send to
    #[arg(long, value_enum, default_value = "apns")]
    vendor: Vendor,
    #[command(flatten)]
    place: PlaceArgs,
}

/// One run's figures. Processor time is in microseconds a delivery.
#[derive(Debug, Serialize)]
struct Row {
    recipients: u64,
    concurrency: u64,
    backlog: u64,
    vendor: &'static str,
    place: String,
    ready_ms: f64,
    #[serde(flatten)]
    measured: Measured,
    rss_idle_bytes: Option<u64>,
    rss_max_bytes: Option<u64>,
    #[serde(flatten)]
    verdict: Verdict,
}

/// What happened within the window.
#[derive(Debug, Serialize)]
struct Measured {
    deliveries_per_second: f64,
    router_cpu_us: Option<f64>,
    simulator_cpu_us: Option<f64>,
    load_cpu_us: Option<f64>,
    router_cores: Option<f64>,
    accept: Quantiles,
    accept_to_vendor: Quantiles,
}

/// Runs, prints, and returns how many deliveries were lost.
pub(super) async fn run(args: ThroughputArgs, json: bool) -> Result<u64, Failure> {
    let mut rows = Vec::new();
    for &recipients in &args.recipients {
        if !json {
            let time = (args.warmup + args.duration).as_secs_f64();
            say_aside(format_args!("measuring {recipients} to a message for {time} s …"));
        }
        rows.push(measure(&args, recipients).await?);
    }
    match json {
        true => say(serde_json::to_string(&rows)?),
        false => say(report(&rows)),
    }
    Ok(rows.iter().map(|row| row.verdict.lost).sum())
}

async fn measure(args: &ThroughputArgs, recipients: u64) -> Result<Row, Failure> {
    let clock = Arc::new(Clock::default());
    let wish = Wish { tiers: vec![vec![args.vendor.id()]], ..Wish::default() };
    let mut stage = Stage::start(args.place.dir.as_deref(), wish, Arc::clone(&clock)).await?;
    let idle = memory(stage.router_pid());
    let concurrency =
        args.concurrency.unwrap_or_else(|| (DELIVERIES_AT_ONCE / recipients).clamp(8, 256));

    let progress = Arc::new(Progress::default());
    let (tell, arrived) = watch::channel(0);
    let plan = Plan {
        message: Message::render(recipients, &[args.vendor.kind()], rand::random()),
        duration: args.warmup + args.duration,
    };
    let limits = Limits { calls: concurrency as usize, backlog: args.backlog, arrived };
    let sending = closed_loop(stage.addresses().api, plan, limits, &clock, &progress);
    let window = Window::watch(&stage, &clock, args);
    let counting = count_arrivals(stage.control()?, tell);
    let ended = tokio::select! {
        both = async { tokio::try_join!(sending, window) } => both,
        failure = counting => Err(failure),
    };
    let (tally, window) = match ended {
        Ok(both) => both,
        Err(failure) => return Err(stage.explain(failure).await),
    };
    let ledger = settle(&mut stage, &tally, PATIENCE).await?;
    let row = Row {
        recipients,
        concurrency,
        backlog: args.backlog,
        vendor: args.vendor.id(),
        place: stage.place(),
        ready_ms: rounded(stage.ready().as_secs_f64() * 1000.0),
        rss_idle_bytes: idle.map(|memory| memory.now),
        rss_max_bytes: memory(stage.router_pid()).map(|memory| memory.most),
        measured: window.measured(&tally, &ledger, args.warmup),
        verdict: ledger.verdict(&tally),
    };
    stage.close().await;
    Ok(row)
}

/// Tells how many have arrived, until it is dropped.
async fn count_arrivals(mut control: Control, tell: watch::Sender<u64>) -> Failure {
    loop {
        match control.taken().await {
            Ok(taken) => tell.send_replace(taken),
            Err(failure) => return failure,
        };
        tokio::time::sleep(COUNT_EVERY).await;
    }
}

/// The measured stretch of a run: moments at both ends.
struct Window {
    begin: Moment,
    end: Moment,
}

#[derive(Clone, Copy)]
struct Moment {
    at_ms: u64,
    router: Option<Duration>,
    simulator: Option<Duration>,
    load: Option<Duration>,
}

impl Window {
    async fn watch(stage: &Stage, clock: &Clock, args: &ThroughputArgs) -> Result<Self, Failure> {
        let moment = || Moment {
            at_ms: clock.now().utc.ms(),
            router: cpu(stage.router_pid()),
            simulator: cpu(stage.simulator_pid()),
            load: cpu(process::id()),
        };
        tokio::time::sleep(args.warmup).await;
        let begin = moment();
        tokio::time::sleep(args.duration).await;
        Ok(Self { begin, end: moment() })
    }

    fn measured(&self, tally: &Tally, ledger: &Ledger, warmup: Duration) -> Measured {
        let span = self.begin.at_ms..self.end.at_ms;
        let time = Duration::from_millis(span.end - span.start);
        let arrived = ledger.arrived_in(span.clone());
        let used = |of: fn(&Moment) -> Option<Duration>| {
            Some(of(&self.end)?.saturating_sub(of(&self.begin)?).as_secs_f64())
        };
        let each = |of: fn(&Moment) -> Option<Duration>| {
            used(of).filter(|_| arrived > 0).map(|used| rounded(used * 1e6 / arrived as f64))
        };
        Measured {
            deliveries_per_second: per_second(arrived, time),
            router_cpu_us: each(|moment| moment.router),
            simulator_cpu_us: each(|moment| moment.simulator),
            load_cpu_us: each(|moment| moment.load),
            router_cores: used(|moment| moment.router)
                .map(|used| rounded(used / time.as_secs_f64())),
            accept: tally.accept(|at| at >= warmup),
            accept_to_vendor: ledger.arrival(tally, |at_ms| span.contains(&at_ms)),
        }
    }
}

fn report(rows: &[Row]) -> String {
    let columns: Vec<_> =
        rows.iter().map(|row| format!("{} to a message", row.recipients)).collect();
    let mut report = Report::new(&columns);
    let mut line = |name: &str, of: &dyn Fn(&Row) -> String| report.line(name, rows.iter().map(of));
    line("deliveries/s", &|row| format!("{:.0}", row.measured.deliveries_per_second));
    line("router CPU a delivery", &|row| or_dash(row.measured.router_cpu_us, "us"));
    line("simulator CPU a delivery", &|row| or_dash(row.measured.simulator_cpu_us, "us"));
    line("load CPU a delivery", &|row| or_dash(row.measured.load_cpu_us, "us"));
    line("router cores used", &|row| or_dash(row.measured.router_cores, ""));
    let all = |of: fn(&Row) -> Quantiles| rows.iter().map(of).collect::<Vec<_>>();
    report.quantiles("accept", &all(|row| row.measured.accept), false);
    report.quantiles("accept to vendor", &all(|row| row.measured.accept_to_vendor), false);
    let mut line = |name: &str, of: &dyn Fn(&Row) -> String| report.line(name, rows.iter().map(of));
    line("router memory, idle", &|row| mebibytes(row.rss_idle_bytes));
    line("router memory, most", &|row| mebibytes(row.rss_max_bytes));
    line("calls at once", &|row| row.concurrency.to_string());
    report.verdicts(&rows.iter().map(|row| &row.verdict).collect::<Vec<_>>());
    let places: Vec<_> = rows.iter().map(|row| row.place.as_str()).collect();
    format!("{}\nstore in {}", report.text(), places.join(", "))
}
