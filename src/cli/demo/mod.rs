//! `pushyard demo`: the router among failing vendors, in a minute and on one
//! machine.
//!
//! Nothing to set up: router and simulator are this same program in processes of
//! their own, on free loopback ports, with a generated configuration in a folder
//! that goes with them. Messages come at a steady rate, vendors fail by a
//! script, and at the end an account by the simulator's ledger says whether
//! every accepted message arrived. Exit code 1 when one did not.

mod script;
mod show;
mod summary;
mod watch;

use std::cell::RefCell;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use self::show::Show;
use self::summary::{Failovers, Summary};
use self::watch::Watch;
use super::load::config::Wish;
use super::load::generator::{Plan, Progress, open_loop};
use super::load::message::{Kind, Message};
use super::load::script::play;
use super::load::stage::Stage;
use super::load::tally::settle;
use super::load::{Failure, say, say_aside, until_interrupted};
use crate::clock::Clock;

/// How often one looks. Faster than that no one reads.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// After the stream has ended all is healthy; what waits is due within the
/// longest ejection and FCM's shortest retry delay.
const PATIENCE: Duration = Duration::from_secs(60);

/// Show the router among failing vendors: nothing to set up, a minute long
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// How long to send
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Messages a second
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// A line a second instead of a screen that is redrawn
    #[arg(long)]
    plain: bool,
}

/// Runs the demo and prints its account.
pub(super) async fn run(args: DemoArgs, json: bool) -> ExitCode {
    match until_interrupted(Box::pin(demo(&args, json))).await {
        Ok(summary) if summary.verdict.lost == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(failure) => {
            say_aside(format_args!("error: {failure}"));
            ExitCode::FAILURE
        }
    }
}

async fn demo(args: &DemoArgs, json: bool) -> Result<Summary, Failure> {
    let clock = Arc::new(Clock::default());
    let wish = Wish {
        tiers: vec![vec!["apns"], vec!["fcm"]],
        provider: script::temper(args.duration),
        ..Wish::default()
    };
    let mut stage = Stage::start(None, wish, Arc::clone(&clock)).await?;
    if !json {
        welcome(&stage, args);
    }
    let message = Message::render(1, &[Kind::Apns, Kind::Fcm], rand::random());
    let plan = Plan { message, duration: args.duration };
    let progress = Arc::new(Progress::default());
    let begun = clock.now().instant;
    let steps = script::steps(args.duration);
    let mut control = stage.control()?;
    let watch =
        Watch::new(stage.admin(), stage.control()?, Arc::clone(&progress), Arc::clone(&clock));
    // Script and watcher both show something, never at the same moment: they
    // take turns in one task.
    let show = RefCell::new(Show::new(args.duration, args.plain, json));

    let running = async {
        let sending = open_loop(stage.addresses().api, plan, args.rate, &clock, &progress);
        let playing = play(&steps, begun, &mut control, |step| {
            show.borrow().event(step.at, &step.says);
        });
        let (tally, ()) = tokio::try_join!(sending, playing)?;
        show.borrow().event(args.duration, "the last message is sent; waiting for what is left");
        let ledger = settle(&mut stage, &tally, PATIENCE).await?;
        Ok::<_, Failure>((tally, ledger))
    };
    let ended = tokio::select! {
        ended = running => ended,
        failure = keep_looking(watch, &show) => Err(failure),
    };
    // The screen is wiped before anything else is printed.
    drop(show);
    let (tally, ledger) = match ended {
        Ok(both) => both,
        Err(failure) => return Err(stage.explain(failure).await),
    };
    let failovers = stage.admin().metrics().await?;
    let failovers = failovers.failovers().into_iter();
    let summary = Summary {
        verdict: ledger.verdict(&tally),
        failovers: failovers
            .map(|(from, to, count)| Failovers { from: from.to_owned(), to: to.to_owned(), count })
            .collect(),
        accept: tally.accept(|_| true),
        accept_to_vendor: ledger.arrival(&tally, |_| true),
    };
    stage.close().await;
    match json {
        true => say(serde_json::to_string(&summary)?),
        false => say(format_args!("\n{}", summary.text())),
    }
    Ok(summary)
}

fn welcome(stage: &Stage, args: &DemoArgs) {
    let addresses = stage.addresses();
    let (api, admin) = (addresses.api, addresses.admin);
    say(format_args!(
        "{} messages a second for {} s, each to a device that APNs reaches, or else FCM.\n\
         Vendors are simulated and will fail. While it runs:\n\
         \n  api        http://{api}/v1/messages\n  console    http://{admin}/\n  providers  http://{admin}/admin/v1/providers\n  \
         metrics    http://{admin}/metrics\n",
        args.rate,
        args.duration.as_secs_f64(),
    ));
}

/// Looks until it is dropped; the return value is why it could not.
async fn keep_looking(mut watch: Watch, show: &RefCell<Show>) -> Failure {
    loop {
        let (sight, events) = match watch.look().await {
            Ok(seen) => seen,
            Err(failure) => return failure,
        };
        for event in events {
            show.borrow().event(sight.at, &event);
        }
        show.borrow_mut().sight(&sight);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
