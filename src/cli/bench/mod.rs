//! `pushyard bench`: what the router does on this machine, measured from outside.
//!
//! Router and simulator are processes of their own, driven through their public
//! ports, so that the figures contain everything a user pays for: HTTP, the
//! durable commit, TLS and HTTP/2 towards the vendors. Each subcommand answers
//! one question: how much (`throughput`), how fast, also while a vendor fails
//! (`latency`), what a whole outage does (`failover`), whether a kill loses
//! anything (`crash`), and how many devices it holds (`stream`). A run that lost an accepted delivery ends with exit code
//! 1, whatever it measured.

mod attempts;
mod crash;
mod failover;
mod fault;
mod figures;
mod latency;
mod report;
mod stream;
mod throughput;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use super::load::message::Kind;
use super::load::{say_aside, until_interrupted};

/// Measure throughput, latency and safety against the vendor simulator
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Measure how many deliveries a second arrive at the vendor, and what one costs
    Throughput(throughput::ThroughputArgs),
    /// Measure latency at a fixed rate, also before, during and after faults
    Latency(latency::LatencyArgs),
    /// Rehearse an outage: play a scenario against a router, and check what it must show
    Failover(failover::FailoverArgs),
    /// Kill the router under load and count what was lost
    Crash(crash::CrashArgs),
    /// Hold many devices on the stream listener, and send to all of them
    Stream(stream::StreamArgs),
}

#[derive(Clone, Debug, Args)]
struct PlaceArgs {
    /// Folder to work in; choose a real disk [default: the system's for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// A vendor to send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Vendor {
    Apns,
    Fcm,
}

impl Vendor {
    fn id(self) -> &'static str {
        match self {
            Self::Apns => "apns",
            Self::Fcm => "fcm",
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Apns => Kind::Apns,
            Self::Fcm => Kind::Fcm,
        }
    }
}

/// Runs a measurement and prints it.
pub(super) async fn run(args: BenchArgs, json: bool) -> ExitCode {
    // Boxed: a measurement's state is large, and moved once.
    let ended = match args.bench {
        Bench::Throughput(args) => until_interrupted(Box::pin(throughput::run(args, json))).await,
        Bench::Latency(args) => until_interrupted(Box::pin(latency::run(args, json))).await,
        Bench::Failover(args) => until_interrupted(Box::pin(failover::run(args, json))).await,
        Bench::Crash(args) => until_interrupted(Box::pin(crash::run(args, json))).await,
        Bench::Stream(args) => until_interrupted(Box::pin(stream::run(args, json))).await,
    };
    match ended {
        Ok(0) => ExitCode::SUCCESS,
        Ok(lost) => {
            say_aside(format_args!("{lost} accepted deliveries were lost"));
            ExitCode::FAILURE
        }
        Err(failure) => {
            say_aside(format_args!("error: {failure}"));
            ExitCode::FAILURE
        }
    }
}
