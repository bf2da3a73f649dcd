//! `pushyard dead-letters`: what could not be delivered, and trying it again
//! (admin API).

use std::process::ExitCode;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::client::{ANSWER_TIMEOUT, Client, Reply};
use super::failure::Failure;
use super::ui::{self, Ui};

const EXAMPLES: &str = "\
Examples:
  pushyard dead-letters
  pushyard dead-letters --provider apns --reason invalid
  pushyard dead-letters replay 0197f000-0000-7000-8000-000000000001
  pushyard dead-letters replay --provider apns --since 2026-12-01T08:00:00Z --limit 500
  pushyard dead-letters delete 0197f000-0000-7000-8000-000000000001";

const TITLES: [&str; 7] = ["DELIVERY", "CLIENT", "REF", "STATE", "REASON", "AT", "LAST ANSWER"];

/// Show what could not be delivered, or try it again
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct DeadLettersArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    filter: Filter,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Try one again, or all that a filter lets through
    Replay(ReplayArgs),
    /// Let go of one
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
struct ReplayArgs {
    /// This one
    #[arg(value_name = "ID", required_unless_present_any = FILTERS, conflicts_with_all = FILTERS)]
    id: Option<String>,
    #[command(flatten)]
    filter: Filter,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 1000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

const FILTERS: [&str; 5] = ["reason", "provider", "client", "since", "until"];

#[derive(Debug, Args)]
struct DeleteArgs {
    /// This one
    #[arg(value_name = "ID")]
    id: String,
}

#[derive(Debug, Args)]
struct Filter {
    /// Ended for this reason, such as `attempts_exhausted`
    #[arg(long)]
    reason: Option<String>,
    /// Tried last at this provider
    #[arg(long, value_name = "ID")]
    provider: Option<String>,
    /// Sent by this client
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    /// Ended at this time or later, as in 2026-12-01T08:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Ended before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

impl Filter {
    fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let values = [&self.reason, &self.provider, &self.client, &self.since, &self.until];
        FILTERS.into_iter().zip(values).filter_map(|(key, value)| Some((key, value.as_deref()?)))
    }
}

/// Shows them, or does what is asked.
pub(super) async fn run(
    args: DeadLettersArgs,
    client: Client,
    ui: &Ui,
) -> Result<ExitCode, Failure> {
    match &args.action {
        None => list(&args, &client, ui).await?,
        Some(Action::Replay(replay)) => again(replay, &client, ui).await?,
        Some(Action::Delete(delete)) => {
            let path = ["admin", "v1", "dead-letters", &delete.id];
            client.fetch(client.call(Method::DELETE, &path, &[]).timeout(ANSWER_TIMEOUT)).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: &DeadLettersArgs, client: &Client, ui: &Ui) -> Result<(), Failure> {
    let limit = args.limit.to_string();
    let mut query: Vec<(&str, &str)> = args.filter.pairs().collect();
    query.push(("limit", &limit));
    let call = client.call(Method::GET, &["admin", "v1", "dead-letters"], &query);
    let reply = client.fetch(call.timeout(ANSWER_TIMEOUT)).await?;
    if ui.json {
        return ui::say_json(&reply.body);
    }
    let page: Page = reply.read()?;
    let mut table = ui.table(&TITLES);
    for letter in &page.items {
        let answer = letter.attempts.last().map(|attempt| {
            let code = attempt.code.as_deref().unwrap_or_default();
            format!("{}: {} {code}", attempt.provider, attempt.outcome)
        });
        table.add_row([
            ui::cell(&letter.id),
            ui::cell(&letter.client),
            ui::cell(letter.reference.as_deref().unwrap_or_default()),
            ui::cell(&letter.state),
            ui::cell(letter.reason.as_deref().unwrap_or_default()),
            ui::cell(&letter.at),
            ui::cell(answer.as_deref().unwrap_or_default().trim()),
        ]);
    }
    ui::say(ui::shown(table))
}

async fn again(args: &ReplayArgs, client: &Client, ui: &Ui) -> Result<(), Failure> {
    let path = ["admin", "v1", "dead-letters"];
    let call = match &args.id {
        Some(id) => client.call(Method::POST, &[&path[..], &[id, "replay"]].concat(), &[]),
        None => {
            let mut wanted = json!({ "limit": args.limit });
            for (key, value) in args.filter.pairs() {
                wanted[key] = json!(value);
            }
            client.call(Method::POST, &[&path[..], &["replay"]].concat(), &[]).json(&wanted)
        }
    };
    let reply: Reply = client.fetch(call).await?;
    if ui.json {
        return ui::say_json(&reply.body);
    }
    match (&args.id, reply.read::<Replayed>()?.replayed) {
        (Some(id), _) => ui::say(format!("{id} is tried again")),
        (None, count) => ui::say(format!("{} are tried again", count.unwrap_or_default())),
    }
}

#[derive(Debug, Deserialize)]
struct Page {
    items: Vec<Letter>,
}

#[derive(Debug, Deserialize)]
struct Letter {
    id: String,
    client: String,
    #[serde(rename = "ref")]
    reference: Option<String>,
    state: String,
    reason: Option<String>,
    at: String,
    attempts: Vec<Attempt>,
}

#[derive(Debug, Deserialize)]
struct Attempt {
    provider: String,
    outcome: String,
    code: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Replayed {
    replayed: Option<u64>,
}
