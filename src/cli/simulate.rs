//! `pushyard simulate`: the vendors' stand-in by itself, to rehearse outages with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use pushyard_simulator::{Announcement, Settings, Simulator};
use tempfile::TempDir;

use super::failure::Failure;
use super::load::control::Control;
use super::load::script::{Step, play};
use super::load::{self, say_aside};
use super::scenario::Scenario;
use super::signals::Signals;
use super::ui::{self, Ui};
use crate::clock::Clock;

const EXAMPLES: &str = "\
Examples:
  pushyard simulate
  pushyard simulate --dir simulated --apns 127.0.0.1:2197 --control 127.0.0.1:7070
  pushyard simulate --json --for 10m
  pushyard simulate --scenario blackhole

It writes credentials and a configuration for the router into its folder. Tokens may ask for a
fault: fcm:503-a, fcm:gone-b, fcm:slow250-c; APNs tokens carry the same text in hex, its channels
in base64, and channels that begin with sim- are there.";

/// Run the vendor simulator alone, with a control port for faults
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SimulateArgs {
    /// Folder for credentials and configuration, kept and used again [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Where the simulated APNs listens [default: a free port on 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    apns: Option<SocketAddr>,
    /// Where the simulated FCM and its token endpoint listen [default: a free port on 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    fcm: Option<SocketAddr>,
    /// Where faults are ordered and arrivals are read [default: a free port on 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    control: Option<SocketAddr>,
    /// Play a scenario's timeline: a shipped one's name (`bench failover --list`) or a file
    #[arg(long, value_name = "NAME|FILE")]
    scenario: Option<String>,
    /// End after this time, as 10m [default: SIGTERM or SIGINT ends it]
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    lasting: Option<Duration>,
}

/// Runs it until its time is over or someone ends it.
pub(super) async fn run(args: SimulateArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let failed = |error| Failure::told(format!("cannot start the simulator: {error}"));
    let mut signals = Signals::new().map_err(failed)?;
    // Read before anything starts: a fault in it changes nothing.
    let scenario =
        args.scenario.as_deref().map(Scenario::find).transpose().map_err(Failure::told)?;
    let place = Place::new(args.dir.clone()).map_err(failed)?;
    let simulator = pushyard_simulator::start(args.settings(place.path())).await.map_err(failed)?;
    announce(simulator.announcement(), ui)?;
    tokio::select! {
        () = until(args.lasting) => {}
        () = signals.next() => {}
        failure = rehearse(scenario.as_ref(), &simulator.announcement().control) => {
            return Err(failure);
        }
    }
    let told = if ui.json { Ok(()) } else { sum_up(&simulator) };
    simulator.shutdown().await;
    if let Some(kept) = place.close() {
        say_aside(format_args!("{} stays: a router has its store there", kept.display()));
    }
    told.map(|()| ExitCode::SUCCESS)
}

impl SimulateArgs {
    fn settings(&self, dir: PathBuf) -> Settings {
        let mut settings = Settings::in_dir(dir);
        settings.apns = self.apns.unwrap_or(settings.apns);
        settings.fcm = self.fcm.unwrap_or(settings.fcm);
        settings.control = self.control.unwrap_or(settings.control);
        settings
    }
}

/// The router's store, as the configuration that is made here has it.
const STORE: &str = "data";

/// Where its files are; a temporary folder goes with it.
enum Place {
    Given(PathBuf),
    Temporary(TempDir),
}

impl Place {
    fn new(dir: Option<PathBuf>) -> std::io::Result<Self> {
        Ok(match dir {
            Some(dir) => Self::Given(dir),
            None => {
                let dir = tempfile::Builder::new().prefix("pushyard-simulator-").tempdir()?;
                Self::Temporary(dir)
            }
        })
    }

    /// Removes what is temporary, unless a router that uses its configuration has put
    /// its store beside it: that router may still run. What stays is returned.
    fn close(self) -> Option<PathBuf> {
        match self {
            Self::Temporary(dir) if dir.path().join(STORE).exists() => Some(dir.keep()),
            Self::Given(_) | Self::Temporary(_) => None,
        }
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Given(dir) => dir.clone(),
            Self::Temporary(dir) => dir.path().to_owned(),
        }
    }
}

/// Plays a scenario, and then leaves the vendors as they are. Ends with a failure only.
async fn rehearse(scenario: Option<&Scenario>, control: &str) -> Failure {
    let played = async {
        if let Some(scenario) = scenario {
            let begun = Clock::default().now().instant;
            let mut control = Control::at(control)?;
            let tell = |step: &Step| {
                say_aside(format_args!("{:6.1} s  {}", step.at.as_secs_f64(), step.says));
            };
            play(&scenario.steps(), begun, &mut control, tell).await?;
        }
        std::future::pending::<Result<(), load::Failure>>().await
    };
    match played.await {
        Ok(()) => Failure::told("the scenario ended"),
        Err(failure) => Failure::told(failure.to_string()),
    }
}

async fn until(lasting: Option<Duration>) {
    match lasting {
        Some(lasting) => tokio::time::sleep(lasting).await,
        None => std::future::pending().await,
    }
}

fn announce(announcement: &Announcement, ui: &Ui) -> Result<(), Failure> {
    if ui.json {
        let line = serde_json::to_string(announcement)
            .map_err(|error| Failure::told(error.to_string()))?;
        return ui::say(line);
    }
    ui::say(introduction(announcement))
}

/// What one can do with it now.
fn introduction(announcement: &Announcement) -> String {
    let Announcement { control, ca_file, vendors, config } = announcement;
    let width = vendors.keys().map(|name| name.len()).max().unwrap_or(0).max("control".len()) + 2;
    let mut places: Vec<_> =
        vendors.iter().map(|(name, origin)| format!("  {name:<width$}{origin}\n")).collect();
    places.push(format!("  {:<width$}{control}\n  {:<width$}{ca_file}", "control", "trust"));
    format!(
        "{simulated}
{places}

{run}
  pushyard serve --config {config}
  pushyard send --to fcm:hello --title Hello --wait 5s
{fault}
  curl -X PUT {control}/vendors/fcm -d '{{\"mode\":\"failing\",\"status\":503,\"for\":\"30s\"}}'
  curl -X PUT {control}/vendors/apns -d '{{\"mode\":\"blackhole\"}}'
  curl -X PUT '{control}/vendors/*' -d '{{\"mode\":\"healthy\"}}'
{seen}
  curl {control}/vendors
  curl {control}/summary

Ctrl-C ends it.",
        simulated = ui::bold("Simulated vendors"),
        places = places.concat(),
        run = ui::bold("A router that uses them, and a message"),
        fault = ui::bold("Make them fail, and heal"),
        seen = ui::bold("What they have seen"),
    )
}

fn sum_up(simulator: &Simulator) -> Result<(), Failure> {
    let summary = simulator.control().summary();
    ui::say(format_args!(
        "{} messages arrived, {} of them more than once",
        summary.unique, summary.duplicates
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_introduction_has_commands_to_paste() {
        let announcement = Announcement {
            control: "http://127.0.0.1:7070".to_owned(),
            ca_file: "/simulated/ca.pem".to_owned(),
            vendors: BTreeMap::from([
                ("apns".to_owned(), "https://127.0.0.1:2197".to_owned()),
                ("fcm".to_owned(), "https://127.0.0.1:2198".to_owned()),
            ]),
            config: "/simulated/pushyard.toml".to_owned(),
        };
        let text = introduction(&announcement);
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
    }
}
