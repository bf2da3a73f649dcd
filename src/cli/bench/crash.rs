//! `bench crash`: kill -9 under load, and an account of every delivery.
//!
//! The router is killed in the midst of its work, several times, and started
//! again on the same store and ports, while the load goes on. Calls that find
//! nobody listening are not accepted and count apart; calls that were cut off
//! may have been accepted or not, and whatever arrives of those is no
//! duplicate and no loss. What was answered with 202 must arrive.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::PlaceArgs;
use super::report::Report;
use crate::cli::load::config::Wish;
use crate::cli::load::figures::{Quantiles, rounded};
use crate::cli::load::generator::{Plan, Progress, open_loop};
use crate::cli::load::message::{Kind, Message};
use crate::cli::load::stage::Stage;
use crate::cli::load::tally::{Verdict, settle};
use crate::cli::load::{Failure, say, say_aside};
use crate::clock::Clock;

/// After the last start everything that was in flight is sent again at once.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct CrashArgs {
    /// Messages a second, each to one recipient
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// How long to send
    #[arg(long, default_value = "20s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// How often the router is killed, evenly spread
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=1000))]
    kills: u32,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Debug, Serialize)]
struct Figures {
    rate: u32,
    kills: u32,
    place: String,
    /// From each start after a kill to readiness.
    ready_after_kill_ms: Vec<f64>,
    /// Attempts that the router knows to be ambiguous, over all its lives; those
    /// of its last moments before a kill it cannot report.
    ambiguous: u64,
    accept: Quantiles,
    accept_to_vendor: Quantiles,
    #[serde(flatten)]
    verdict: Verdict,
}

/// Runs, prints, and returns how many deliveries were lost.
pub(super) async fn run(args: CrashArgs, json: bool) -> Result<u64, Failure> {
    let clock = Arc::new(Clock::default());
    let wish = Wish { tiers: vec![vec!["apns"], vec!["fcm"]], ..Wish::default() };
    let mut stage = Stage::start(args.place.dir.as_deref(), wish, Arc::clone(&clock)).await?;
    let message = Message::render(1, &[Kind::Apns, Kind::Fcm], rand::random());
    let plan = Plan { message, duration: args.duration };
    let progress = Arc::new(Progress::default());
    let sending = open_loop(stage.addresses().api, plan, args.rate, &clock, &progress);
    let killing = kill_now_and_then(&mut stage, &args, &clock, json);
    let (tally, killed) = match tokio::try_join!(sending, killing) {
        Ok(both) => both,
        Err(failure) => return Err(stage.explain(failure).await),
    };
    let ledger = settle(&mut stage, &tally, PATIENCE).await?;
    let figures = Figures {
        rate: args.rate,
        kills: args.kills,
        place: stage.place(),
        ready_after_kill_ms: killed.ready_ms,
        ambiguous: killed.ambiguous + ambiguous(&stage).await?,
        accept: tally.accept(|_| true),
        accept_to_vendor: ledger.arrival(&tally, |_| true),
        verdict: ledger.verdict(&tally),
    };
    stage.close().await;
    match json {
        true => say(serde_json::to_string(&figures)?),
        false => say(report(&figures)),
    }
    Ok(figures.verdict.lost)
}

#[derive(Default)]
struct Killed {
    ready_ms: Vec<f64>,
    ambiguous: u64,
}

async fn kill_now_and_then(
    stage: &mut Stage,
    args: &CrashArgs,
    clock: &Clock,
    json: bool,
) -> Result<Killed, Failure> {
    let begun = clock.now().instant;
    let mut killed = Killed::default();
    for at in moments(args.duration, args.kills) {
        tokio::time::sleep_until((begun + at).into()).await;
        stage.check().await?;
        killed.ambiguous += ambiguous(stage).await?;
        stage.kill_router().await?;
        stage.restart_router().await?;
        let ready = stage.ready();
        killed.ready_ms.push(rounded(ready.as_secs_f64() * 1000.0));
        if !json {
            let at = at.as_secs_f64();
            say_aside(format_args!("{at:5.1} s  killed; ready again after {ready:.0?}"));
        }
    }
    Ok(killed)
}

/// The moments that divide a time evenly.
fn moments(duration: Duration, count: u32) -> impl Iterator<Item = Duration> {
    (1..=count).map(move |nth| duration * nth / (count + 1))
}

async fn ambiguous(stage: &Stage) -> Result<u64, Failure> {
    Ok(stage.admin().metrics().await?.sum("pushyard_ambiguous_total", &[]))
}

fn report(figures: &Figures) -> String {
    let mut report = Report::new(&[String::new()]);
    report.line("kills", [figures.kills.to_string()]);
    let ready: Vec<_> = figures.ready_after_kill_ms.iter().map(|ms| format!("{ms:.0}")).collect();
    report.line("ready again after, ms", [ready.join(" ")]);
    report.quantiles("accept", &[figures.accept], false);
    report.quantiles("accept to vendor", &[figures.accept_to_vendor], false);
    report.verdicts(&[&figures.verdict]);
    report.line("ambiguous attempts", [figures.ambiguous.to_string()]);
    format!("{}\nstore in {}", report.text(), figures.place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_divide_the_time_evenly() {
        let seconds = |duration, count| {
            moments(Duration::from_secs(duration), count).map(|at| at.as_secs()).collect::<Vec<_>>()
        };
        assert_eq!(seconds(20, 3), [5, 10, 15]);
        assert_eq!(seconds(20, 0), [0; 0]);
    }
}
