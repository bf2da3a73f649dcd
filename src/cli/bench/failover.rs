//! `bench failover`: a game day. A scenario is played against a router in its
//! own process, and each expectation of it is held against what was seen.
//!
//! What is seen comes from outside: the admin API and the vendors' counts are
//! read four times a second, the ledger of the simulator says what arrived when,
//! and the generator what was accepted when. An expectation that is not met ends
//! the command with exit code 1.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::future::try_join_all;
use serde::Serialize;

use super::PlaceArgs;
use super::attempts::Histories;
use super::figures::{Run, Sample};
use super::report::Report;
use crate::cli::load::config::{OPERATOR, Wish, key};
use crate::cli::load::figures::rounded;
use crate::cli::load::generator::{Plan, Progress, open_loop};
use crate::cli::load::message::{Asked, Kind, Message};
use crate::cli::load::process::memory;
use crate::cli::load::script::play;
use crate::cli::load::stage::{Reloader, Stage};
use crate::cli::load::tally::{Verdict, settle};
use crate::cli::load::{Failure, say, say_aside};
use crate::cli::scenario::{Figure, Priority, Reload, SHIPPED, Scenario, Traffic, Vendor};
use crate::clock::Clock;

/// How often the router and the vendors are asked how they are.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Messages a second where a scenario does not say.
const RATE: u32 = 500;

/// Messages that are read back for their attempts, at most: what a minute at 500 a
/// second leaves is read whole, and a longer one by an even sample.
const READ_BACK: usize = 30_000;

const EXAMPLES: &str = "\
Examples:
  pushyard bench failover --list
  pushyard bench failover --scenario blackhole
  pushyard bench failover --scenario throttled --short --json
  pushyard bench failover --scenario my-outage.toml --rate 100";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct FailoverArgs {
    /// A shipped scenario's name, or a file
    #[arg(long, value_name = "NAME|FILE", required_unless_present = "list")]
    scenario: Option<String>,
    /// Messages a second in place of the scenario's, shared as it shares them
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Option<u32>,
    /// Shorten the timeline as far as the scenario allows
    #[arg(long)]
    short: bool,
    /// List the shipped scenarios and end
    #[arg(long, conflicts_with_all = ["scenario", "rate", "short"])]
    list: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Debug, Serialize)]
struct Figures {
    scenario: String,
    about: String,
    seconds: f64,
    place: String,
    expectations: Vec<Checked>,
    #[serde(flatten)]
    verdict: Verdict,
}

/// An expectation with what was seen.
#[derive(Debug, Serialize)]
struct Checked {
    figure: Figure,
    of: Option<String>,
    reason: Option<String>,
    traffic: Option<String>,
    from_s: Option<f64>,
    to_s: Option<f64>,
    at_least: Option<f64>,
    at_most: Option<f64>,
    /// `None`: it did not happen, or could not be seen.
    seen: Option<f64>,
    met: bool,
}

/// Runs, prints, and returns how many deliveries were lost.
pub(super) async fn run(args: FailoverArgs, json: bool) -> Result<u64, Failure> {
    let Some(name) = args.scenario.filter(|_| !args.list) else {
        list()?;
        return Ok(0);
    };
    let mut scenario = Scenario::find(&name)?;
    if args.short {
        scenario = scenario.shortened();
    }
    let streams = streams(&scenario, args.rate);
    let clock = Arc::new(Clock::default());
    let second = match scenario.first {
        Vendor::Apns => Vendor::Fcm,
        Vendor::Fcm => Vendor::Apns,
    };
    let wish = Wish {
        tiers: [scenario.first, second].map(|vendor| vec![vendor.id()]).into(),
        provider: scenario.provider.clone(),
        clients: clients(&streams),
        ..Wish::default()
    };
    let mut stage = Stage::start(args.place.dir.as_deref(), wish, Arc::clone(&clock)).await?;
    if !json {
        let seconds = scenario.duration.as_secs_f64();
        say_aside(format_args!("{} ({seconds} s)", scenario.about));
    }
    let mut run = match watched(&mut stage, &scenario, streams, &clock, json).await {
        Ok(run) => run,
        Err(failure) => return Err(stage.explain(failure).await),
    };
    read_back(&stage, &scenario, &mut run).await?;
    let expectations: Vec<_> = scenario
        .expect
        .iter()
        .map(|expect| {
            let seen = run.figure(expect).map(rounded);
            // What was never seen meets nothing: an ejection that did not come is late.
            let met = match seen {
                Some(seen) => {
                    expect.at_most.is_none_or(|most| seen <= most)
                        && expect.at_least.is_none_or(|least| seen >= least)
                }
                None => false,
            };
            Checked {
                figure: *expect.figure.get_ref(),
                of: expect.of.clone(),
                reason: expect.reason.clone(),
                traffic: expect.traffic.as_ref().map(|name| name.get_ref().clone()),
                from_s: expect.from.map(|time| time.as_secs_f64()),
                to_s: expect.to.map(|time| time.as_secs_f64()),
                at_least: expect.at_least,
                at_most: expect.at_most,
                seen,
                met,
            }
        })
        .collect();
    let figures = Figures {
        scenario: name,
        about: scenario.about,
        seconds: scenario.duration.as_secs_f64(),
        place: stage.place(),
        expectations,
        verdict: run.ledger.verdict(&run.tally),
    };
    stage.close().await;
    match json {
        true => say(serde_json::to_string(&figures)?),
        false => say(report(&figures)),
    }
    let missed = figures.expectations.iter().filter(|checked| !checked.met).count();
    if missed > 0 {
        let all = figures.expectations.len();
        return Err(format!("{missed} of {all} expectations were not met").into());
    }
    Ok(figures.verdict.lost)
}

fn list() -> Result<(), Failure> {
    for (name, _) in SHIPPED {
        say(format_args!("{name:<18} {}", Scenario::find(name)?.about));
    }
    Ok(())
}

/// The streams of messages, scaled to `rate` messages a second together.
fn streams(scenario: &Scenario, rate: Option<u32>) -> Vec<Traffic> {
    let mut streams = scenario.traffic.clone();
    if streams.is_empty() {
        streams.push(Traffic {
            name: None,
            from: None,
            client: None,
            priority: None,
            rate: RATE,
            recipients: 1,
            addresses: vec![Vendor::Apns, Vendor::Fcm],
            apns_prefix: String::new(),
        });
    }
    let all: u64 = streams.iter().map(|stream| u64::from(stream.rate)).sum();
    for stream in &mut streams {
        if let Some(rate) = rate {
            let scaled = u64::from(stream.rate) * u64::from(rate) / all.max(1);
            stream.rate = u32::try_from(scaled).unwrap_or(u32::MAX);
        }
        stream.rate = stream.rate.max(1);
    }
    streams
}

/// The clients that send, where the scenario names any.
fn clients(streams: &[Traffic]) -> Vec<String> {
    let named = streams.iter().filter_map(|stream| stream.client.as_ref());
    let names: BTreeSet<_> = named.map(|client| client.get_ref().clone()).collect();
    names.into_iter().collect()
}

/// Sends, plays the timeline, waits until all has settled, and looks on.
async fn watched(
    stage: &mut Stage,
    scenario: &Scenario,
    streams: Vec<Traffic>,
    clock: &Arc<Clock>,
    json: bool,
) -> Result<Run, Failure> {
    let begun = clock.now();
    let mut samples = Vec::new();
    let (mut admin, mut control) = (stage.admin(), stage.control()?);
    let pid = stage.router_pid();
    let looking = async {
        loop {
            let providers = admin.providers().await?;
            let vendors = control.vendors().await?;
            let at = clock.now().instant.saturating_duration_since(begun.instant);
            let unsettled = admin.metrics().await?.unsettled();
            let rss = memory(pid).map(|memory| memory.now);
            samples.push(Sample { at, providers, vendors, unsettled, rss });
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let working = async {
        let progress = Arc::new(Progress::default());
        let api = stage.addresses().api;
        let guarded = streams.iter().any(|stream| stream.client.is_some());
        let sending = try_join_all(streams.iter().map(async |stream| {
            let from = stream.from.unwrap_or_default();
            let duration = scenario.duration.saturating_sub(from);
            let plan = Plan { message: message(stream, guarded), duration };
            tokio::time::sleep_until((begun.instant + from).into()).await;
            let tally = open_loop(api, plan, stream.rate, clock, &progress).await?;
            Ok::<_, Failure>(tally.begun_after(from))
        }));
        let steps = scenario.steps();
        let mut control = stage.control()?;
        let tell = |at: Duration, says: &str| {
            if !json {
                say_aside(format_args!("{:6.1} s  {says}", at.as_secs_f64()));
            }
        };
        let playing = play(&steps, begun.instant, &mut control, |step| tell(step.at, &step.says));
        let changing = change(&scenario.reload, begun.instant, stage.reloader(), &tell);
        let (tallies, (), ()) = tokio::try_join!(sending, playing, changing)?;
        let mut run = Run { first_step: scenario.first_step(), ..Run::default() };
        for (stream, one) in streams.iter().zip(tallies) {
            if let Some(name) = &stream.name {
                run.streams.entry(name.clone()).or_default().add(one.clone());
            }
            run.tally.add(one);
        }
        run.ledger = settle(stage, &run.tally, scenario.patience).await?;
        run.metrics = stage.admin().metrics().await?;
        Ok::<_, Failure>(run)
    };
    let run = tokio::select! {
        ended = working => ended?,
        ended = looking => return ended,
    };
    let rss = memory(pid).map(|memory| memory.most);
    Ok(Run { begun_ms: begun.utc.ms(), samples, rss, ..run })
}

/// Gives the router its other configurations, each at its time.
async fn change(
    reloads: &[Reload],
    begun: Instant,
    mut reloader: Reloader,
    tell: &impl Fn(Duration, &str),
) -> Result<(), Failure> {
    let mut reloads: Vec<_> = reloads.iter().collect();
    reloads.sort_by_key(|reload| reload.at);
    for reload in reloads {
        tokio::time::sleep_until((begun + reload.at).into()).await;
        let (provider, keys) = (reload.provider.id(), reload.keys.get_ref());
        reloader.change(provider, keys).await?;
        tell(reload.at, &format!("the router gets another configuration for {provider}"));
    }
    Ok(())
}

/// Reads what the expectations need of single messages, and the gone addresses.
async fn read_back(stage: &Stage, scenario: &Scenario, run: &mut Run) -> Result<(), Failure> {
    let reader = stage.reader();
    let wanted = scenario.expect.iter().filter(|expect| expect.figure.get_ref().is_of_attempts());
    let mut messages = BTreeSet::new();
    for expect in wanted {
        let all = run.messages(expect);
        messages.extend(all.iter().step_by(all.len().div_ceil(READ_BACK).max(1)));
    }
    let messages: Vec<u128> = messages.into_iter().collect();
    run.histories = Histories::of(reader.attempts(&messages).await?);
    run.gone = reader.gone().await?;
    Ok(())
}

/// A stream's messages; where clients have keys, those of nobody are the operator's.
fn message(stream: &Traffic, guarded: bool) -> Message {
    let client = stream.client.as_ref().map(|client| client.get_ref().as_str());
    let key = client.or(guarded.then_some(OPERATOR)).map(key);
    let asked = Asked {
        apns: &stream.apns_prefix,
        priority: stream.priority.map(Priority::word),
        key: key.as_deref(),
    };
    let kinds: Vec<_> = stream
        .addresses
        .iter()
        .map(|vendor| match vendor {
            Vendor::Apns => Kind::Apns,
            Vendor::Fcm => Kind::Fcm,
        })
        .collect();
    Message::asking(stream.recipients.into(), &kinds, rand::random(), asked)
}

fn report(figures: &Figures) -> String {
    let mut report = Report::new(&["expected", "seen", ""].map(str::to_owned));
    for checked in &figures.expectations {
        let mut name = serde_json::json!(checked.figure).as_str().unwrap_or_default().to_owned();
        for part in [&checked.of, &checked.reason, &checked.traffic].into_iter().flatten() {
            name = format!("{name} {part}");
        }
        if checked.from_s.is_some() || checked.to_s.is_some() {
            let second = |time: Option<f64>| time.map_or(String::new(), |time| format!("{time}"));
            name = format!("{name} [{}-{} s]", second(checked.from_s), second(checked.to_s));
        }
        let bound = |sign: &str, bound: Option<f64>| bound.map(|bound| format!("{sign} {bound}"));
        let bounds = [bound(">=", checked.at_least), bound("<=", checked.at_most)];
        let expected: Vec<_> = bounds.into_iter().flatten().collect();
        let seen = checked.seen.map_or_else(|| "never".to_owned(), |seen| seen.to_string());
        let met = if checked.met { "met" } else { "MISSED" };
        report.line(&name, [expected.join(", "), seen, met.to_owned()]);
    }
    let mut rest = Report::new(&[String::new()]);
    for (vendor, count) in &figures.verdict.sent {
        rest.line(&format!("sent by {vendor}"), [count.to_string()]);
    }
    rest.verdicts(&[&figures.verdict]);
    format!("{}\n{}\nstore in {}", report.text(), rest.text(), figures.place)
}
