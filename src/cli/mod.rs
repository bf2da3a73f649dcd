//! The command line: one file a subcommand.
//!
//! Everything but `serve`, `check` and `simulate` is a client of a router that
//! runs elsewhere, and speaks to it through the public HTTP API alone, so that
//! the two may be of different versions. Standard output carries the result and
//! nothing else, standard error everything that is said on the way.
//!
//! Exit codes: 0; 1 when something was refused or failed; 2 for a command line
//! that cannot be understood. Someone who stops reading standard output (`| head`)
//! has what they wanted: that is 0, and quiet.

mod bench;
mod check;
mod client;
mod completions;
mod dead_letters;
mod demo;
mod events;
mod explain;
mod failure;
mod files;
mod load;
mod order;
mod providers;
mod routes;
mod scenario;
mod send;
mod serve;
mod signals;
mod simulate;
mod ui;

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use reqwest::Url;
use secrecy::SecretString;

use client::Client;
use failure::Failure;
use ui::Ui;

/// Where `[server] listen` is unless configured.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";
/// Where `[admin] listen` is unless configured.
const DEFAULT_ADMIN_URL: &str = "http://127.0.0.1:9090";

const EXAMPLES: &str = "\
Examples:
  pushyard check --config pushyard.toml
  pushyard serve --config pushyard.toml
  pushyard send --to apns:9f86d081884c7d65 --title Paid --body 'Order 7 is on its way' --wait 10s
  pushyard providers --watch
  pushyard demo

'pushyard help COMMAND' says more about a command.";

/// A push failover router: one durable API in front of APNs, FCM and other push providers
#[derive(Debug, Parser)]
#[command(name = "pushyard", bin_name = "pushyard", version, after_help = EXAMPLES)]
#[command(arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every subcommand takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Print JSON for machines: the API's, unchanged
    #[arg(long, global = true)]
    json: bool,

    /// Where the router's API is
    #[arg(long, global = true, value_name = "URL", env = "PUSHYARD_URL", hide_env_values = true)]
    #[arg(default_value = DEFAULT_URL, value_parser = client::base_url)]
    url: Url,

    /// Where the router's admin listener is
    #[arg(long, global = true, value_name = "URL", hide_env_values = true)]
    #[arg(env = "PUSHYARD_ADMIN_URL", default_value = DEFAULT_ADMIN_URL)]
    #[arg(value_parser = client::base_url)]
    admin_url: Url,

    /// The client's key; better from the environment, where no process list shows it
    #[arg(long, global = true, value_name = "KEY", env = "PUSHYARD_KEY", hide_env_values = true)]
    key: Option<SecretString>,
}

impl Global {
    /// A client of the api listener.
    fn api(&self) -> Result<Client, Failure> {
        Client::new(&self.url, self.key.clone(), "the router's API (--url, PUSHYARD_URL)")
    }

    /// A client of the admin listener.
    fn admin(&self) -> Result<Client, Failure> {
        let what = "the router's admin listener (--admin-url, PUSHYARD_ADMIN_URL)";
        Client::new(&self.admin_url, self.key.clone(), what)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Check(check::CheckArgs),
    Send(Box<send::SendArgs>),
    Explain(Box<explain::ExplainArgs>),
    Providers(providers::ProvidersArgs),
    Routes(routes::RoutesArgs),
    Events(events::EventsArgs),
    DeadLetters(dead_letters::DeadLettersArgs),
    Simulate(simulate::SimulateArgs),
    Demo(demo::DemoArgs),
    Bench(bench::BenchArgs),
    Completions(completions::CompletionsArgs),
}

/// Runs the command line that this process was started with.
pub fn main() -> ExitCode {
    main_with(std::env::args_os())
}

fn main_with(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(told) => return failure::end_with_usage(&told),
    };
    // Without one reqwest panics. An error means that there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ui = Ui::new(cli.global.json);
    run(cli, &ui).unwrap_or_else(|failure| failure.end(&ui))
}

fn run(cli: Cli, ui: &Ui) -> Result<ExitCode, Failure> {
    let global = cli.global;
    match cli.command {
        Command::Serve(args) => block_on(serve::run(args)),
        Command::Check(args) => check::run(&args, ui),
        Command::Send(args) => block_on(send::run(*args, global.api()?, ui)),
        Command::Explain(args) => block_on(explain::run(*args, global.api()?, ui)),
        Command::Providers(args) => block_on(providers::run(args, global.admin()?, ui)),
        Command::Routes(args) => block_on(routes::run(args, global.admin()?, ui)),
        Command::Events(args) => block_on(events::run(args, global.admin()?, ui)),
        Command::DeadLetters(args) => block_on(dead_letters::run(args, global.admin()?, ui)),
        Command::Simulate(args) => block_on(simulate::run(args, ui)),
        Command::Demo(args) => block_on(async { Ok(demo::run(args, ui.json).await) }),
        Command::Bench(args) => block_on(async { Ok(bench::run(args, ui.json).await) }),
        Command::Completions(args) => completions::run(&args, Cli::command()),
    }
}

/// Runs a subcommand to its end. What still runs then is left behind: a thread
/// that reads standard input cannot be waited for.
fn block_on(command: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("pushyard")
        .build()
        .map_err(|error| Failure::told(format!("cannot start worker threads: {error}")))?;
    let ended = runtime.block_on(Box::pin(command));
    runtime.shutdown_background();
    ended
}

#[cfg(test)]
mod tests;
