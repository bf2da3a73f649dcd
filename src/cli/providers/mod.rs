//! `pushyard providers`: how the router sees its providers (admin API).

mod details;
mod table;
mod view;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use reqwest::Method;

use super::client::{ANSWER_TIMEOUT, Client, Reply};
use super::failure::Failure;
use super::order::{self, Lasting, Order};
use super::ui::{self, Ui};
use crate::clock::Clock;
use view::{Page, Provider};

/// Between two looks of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// The largest page that the API gives: more providers than anyone has.
const PAGE: &str = "1000";
/// Cursor to the top left, and everything behind it erased (ECMA-48: CUP, ED).
const CLEAR: &[u8] = b"\x1b[H\x1b[J";

const EXAMPLES: &str = "\
Examples:
  pushyard providers
  pushyard providers --watch
  pushyard providers apns
  pushyard providers drain apns --reason \"key rotation\" --expires-in 30m
  pushyard providers resume apns
  pushyard providers --json | jq -r '.items[] | select(.state != \"healthy\").id'";

/// Show the state of the providers
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct ProvidersArgs {
    #[command(subcommand)]
    action: Option<Action>,
    /// Show all about this one
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Look again each second
    #[arg(short, long)]
    watch: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Send nothing new there; what is in flight ends
    Drain(Lasting),
    /// The same, and let it come back on probation
    Eject(Lasting),
    /// Use it again
    Resume(Order),
}

impl Action {
    async fn give(&self, client: &Client, ui: &Ui) -> Result<(), Failure> {
        let (verb, name, body) = match self {
            Self::Drain(order) => ("drain", &order.order.name, order.body()),
            Self::Eject(order) => ("eject", &order.order.name, order.body()),
            Self::Resume(order) => ("resume", &order.name, order.body()),
        };
        let done = match self {
            Self::Drain(_) => format!("{name} gets nothing new; what is in flight ends"),
            Self::Eject(_) => format!("{name} is ejected until it is resumed"),
            Self::Resume(_) => format!("{name} is used again"),
        };
        order::give(client, ui, Method::POST, &["providers", name, verb], Some(&body), &done).await
    }
}

/// Shows them, once or for as long as someone watches.
pub(super) async fn run(args: ProvidersArgs, client: Client, ui: &Ui) -> Result<ExitCode, Failure> {
    if let Some(action) = &args.action {
        action.give(&client, ui).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let clock = Clock::default();
    let look = Look { client: &client, id: args.id.as_deref(), ui, clock: &clock };
    if !args.watch {
        look.show(&look.ask().await?)?;
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        let answer = look.ask().await;
        if ui.terminal && !ui.json {
            ui::say_bytes(CLEAR)?;
        }
        match answer {
            Ok(reply) => look.show(&reply)?,
            // It may come back: that is what one watches for.
            Err(Failure::Unreachable(reason) | Failure::Told(reason)) => ui::error(&reason),
            Err(ended) => return Err(ended),
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

struct Look<'a> {
    client: &'a Client,
    id: Option<&'a str>,
    ui: &'a Ui,
    clock: &'a Clock,
}

impl Look<'_> {
    async fn ask(&self) -> Result<Reply, Failure> {
        let path = ["admin", "v1", "providers"];
        let call = match self.id {
            Some(id) => self.client.call(Method::GET, &[&path[..], &[id]].concat(), &[]),
            None => self.client.call(Method::GET, &path, &[("limit", PAGE)]),
        };
        self.client.fetch(call.timeout(ANSWER_TIMEOUT)).await
    }

    fn show(&self, reply: &Reply) -> Result<(), Failure> {
        if self.ui.json {
            return ui::say_json(&reply.body);
        }
        let now = self.clock.now().utc;
        if self.id.is_some() {
            let provider: Provider = reply.read()?;
            return ui::say(details::text(&provider, now, self.ui));
        }
        let page: Page = reply.read()?;
        ui::say(ui::shown(table::table(&page.items, now, self.ui)))
    }
}
