//! `bench latency`: how long a push takes at a fixed rate, and what a vendor's
//! fault does to that.
//!
//! Calls follow a timetable and count from when they were due. With `--fault`
//! the run is divided into what was accepted before, during and after faults:
//! the router's promise is that "during" differs from "before" by the time that
//! it takes to see the fault, and not by the length of it.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::PlaceArgs;
use super::fault::{Fault, Phase, steps};
use super::report::{Report, mebibytes};
use crate::cli::load::config::Wish;
use crate::cli::load::figures::{Quantiles, rounded};
use crate::cli::load::generator::{Plan, Progress, open_loop};
use crate::cli::load::message::{Kind, Message};
use crate::cli::load::process::memory;
use crate::cli::load::script::play;
use crate::cli::load::stage::Stage;
use crate::cli::load::tally::{Ledger, Tally, Verdict, settle};
use crate::cli::load::{Failure, say, say_aside};
use crate::clock::Clock;

/// What a fault has left waiting is sent when the vendor is used again: at the
/// latest after an ejection (30 s, up to half as much again by jitter) and a
/// slow start.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
pub(super) struct LatencyArgs {
    /// Messages a second, each to one recipient
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// How long to send
    #[arg(long, default_value = "20s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// A vendor's fault, as apns:failing:5s-15s; may be repeated. Modes: slow, failing,
    /// throttling, unauthorised, blackhole, refusing, unreachable, reset, goaway
    #[arg(long = "fault", value_name = "VENDOR:MODE:FROM-TO")]
    faults: Vec<Fault>,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Debug, Serialize)]
struct Figures {
    rate: u32,
    faults: Vec<String>,
    place: String,
    ready_ms: f64,
    /// By how much our own timer was late.
    timer_late: Quantiles,
    phases: Vec<PhaseFigures>,
    rss_idle_bytes: Option<u64>,
    rss_max_bytes: Option<u64>,
    #[serde(flatten)]
    verdict: Verdict,
}

#[derive(Debug, Serialize)]
struct PhaseFigures {
    phase: &'static str,
    accept: Quantiles,
    accept_to_vendor: Quantiles,
}

/// Runs, prints, and returns how many deliveries were lost.
pub(super) async fn run(args: LatencyArgs, json: bool) -> Result<u64, Failure> {
    let clock = Arc::new(Clock::default());
    let wish = Wish { tiers: vec![vec!["apns"], vec!["fcm"]], ..Wish::default() };
    let mut stage = Stage::start(args.place.dir.as_deref(), wish, Arc::clone(&clock)).await?;
    let idle = memory(stage.router_pid());
    if !json {
        let (rate, time) = (args.rate, args.duration.as_secs_f64());
        say_aside(format_args!("sending {rate} a second for {time} s …"));
    }
    let message = Message::render(1, &[Kind::Apns, Kind::Fcm], rand::random());
    let plan = Plan { message, duration: args.duration };
    let begun = clock.now();
    let progress = Arc::new(Progress::default());
    let sending = open_loop(stage.addresses().api, plan, args.rate, &clock, &progress);
    let steps = steps(&args.faults);
    let mut control = stage.control()?;
    let playing = play(&steps, begun.instant, &mut control, |step| {
        if !json {
            say_aside(format_args!("{:5.1} s  {}", step.at.as_secs_f64(), step.says));
        }
    });
    let (tally, ()) = match tokio::try_join!(sending, playing) {
        Ok(both) => both,
        Err(failure) => return Err(stage.explain(failure).await),
    };
    let ledger = settle(&mut stage, &tally, PATIENCE).await?;
    let figures = Figures {
        rate: args.rate,
        faults: args.faults.iter().map(ToString::to_string).collect(),
        place: stage.place(),
        ready_ms: rounded(stage.ready().as_secs_f64() * 1000.0),
        timer_late: Quantiles::of_us(tally.late_us.iter().copied()),
        phases: phases(&tally, &ledger, begun.utc.ms(), &args.faults),
        rss_idle_bytes: idle.map(|memory| memory.now),
        rss_max_bytes: memory(stage.router_pid()).map(|memory| memory.most),
        verdict: ledger.verdict(&tally),
    };
    stage.close().await;
    match json {
        true => say(serde_json::to_string(&figures)?),
        false => say(report(&figures)),
    }
    Ok(figures.verdict.lost)
}

/// One phase where there is no fault, else the three; a delivery belongs to the
/// phase in which it was accepted.
fn phases(tally: &Tally, ledger: &Ledger, begun_ms: u64, faults: &[Fault]) -> Vec<PhaseFigures> {
    let of = |name, which: &dyn Fn(Duration) -> bool| PhaseFigures {
        phase: name,
        accept: tally.accept(which),
        accept_to_vendor: ledger
            .arrival(tally, |at_ms| which(Duration::from_millis(at_ms.saturating_sub(begun_ms)))),
    };
    let mut phases = vec![of("all", &|_| true)];
    if !faults.is_empty() {
        let one = |phase: Phase| of(phase.word(), &move |time| Phase::at(time, faults) == phase);
        phases.extend(Phase::ALL.map(one));
    }
    phases
}

fn report(figures: &Figures) -> String {
    let phases = &figures.phases;
    let columns: Vec<_> = phases.iter().map(|phase| phase.phase.to_owned()).collect();
    let mut report = Report::new(&columns);
    report.line("deliveries", phases.iter().map(|phase| phase.accept_to_vendor.count.to_string()));
    let all = |of: fn(&PhaseFigures) -> Quantiles| phases.iter().map(of).collect::<Vec<_>>();
    report.quantiles("accept", &all(|phase| phase.accept), true);
    report.quantiles("accept to vendor", &all(|phase| phase.accept_to_vendor), true);
    let mut rest = Report::new(&[String::new()]);
    rest.line("router ready after", [format!("{:.0} ms", figures.ready_ms)]);
    rest.line("router memory, idle", [mebibytes(figures.rss_idle_bytes)]);
    rest.line("router memory, most", [mebibytes(figures.rss_max_bytes)]);
    rest.line("our own timer late, p99", [format!("{:.1} ms", figures.timer_late.p99_ms)]);
    for (vendor, count) in &figures.verdict.sent {
        rest.line(&format!("sent by {vendor}"), [count.to_string()]);
    }
    rest.verdicts(&[&figures.verdict]);
    format!("{}\n{}\nstore in {}", report.text(), rest.text(), figures.place)
}
