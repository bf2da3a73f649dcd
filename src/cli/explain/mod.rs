//! `pushyard explain`: why a message would go where, and why a delivery went where
//! it went.
//!
//! It asks the router for a dry run: nothing is sent, stored or counted. Who has no
//! message at hand need not make one up: where it goes hardly depends on what is
//! in it.

mod report;

use std::process::ExitCode;

use clap::Args;
use reqwest::Method;
use serde_json::json;

use super::client::{ANSWER_TIMEOUT, Client};
use super::failure::Failure;
use super::send::{Content, Recipient, recipient};
use super::ui::{self, Ui};
use crate::clock::Clock;

const EXAMPLES: &str = "\
Examples:
  Where a push to a device with two addresses would go, and why:
    pushyard explain --to apns:9f86d081884c7d65,fcm:e1x7
  The same with the requests that the vendors would get:
    pushyard explain --to apns:9f86d081884c7d65,fcm:e1x7 --title Paid --requests
  For a recipient whose data must stay in a region:
    pushyard explain --to apns:9f86d081884c7d65,fcm:e1x7,region=eu
  What became of a delivery, and what moved it from attempt to attempt:
    pushyard explain --delivery 0197f000-0000-7000-8000-000000000001

Nothing is sent. Without a title, a text or data, a push with the title Test is explained.
Exit code 1 when a recipient has nowhere to go now.";

/// Explain where a message would go, or why a delivery went where it did
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExplainArgs {
    /// A recipient: KIND:TOKEN, further addresses and fields after commas; repeat it for more
    ///
    /// As in 'pushyard send'.
    #[arg(long, value_name = "KIND:TOKEN", value_parser = recipient)]
    #[arg(required_unless_present = "delivery")]
    to: Vec<Recipient>,

    #[command(flatten)]
    content: Content,

    /// Explain this delivery, which was accepted, instead of a message
    #[arg(long, value_name = "ID", conflicts_with = "to")]
    delivery: Option<String>,

    /// Show the requests that the vendors would get, with tokens and credentials masked
    #[arg(long)]
    requests: bool,
}

/// Asks, and shows the answer.
pub(super) async fn run(args: ExplainArgs, client: Client, ui: &Ui) -> Result<ExitCode, Failure> {
    let path = ["v1", "messages", "explain"];
    let call = match &args.delivery {
        Some(_) if !args.content.is_bare() => {
            let wrong = "--delivery goes with none of the options that make up a message";
            return Err(Failure::Usage("explain", wrong.to_owned()));
        }
        Some(id) => client.call(Method::POST, &path, &[("delivery", id)]),
        None => {
            let mut message = args.content.message(&args.to);
            if args.content.is_empty() {
                message["notification"] = json!({"title": "Test"});
            }
            client.call(Method::POST, &path, &[]).json(&message)
        }
    };
    let reply = client.fetch(call.timeout(ANSWER_TIMEOUT)).await?;
    let report: report::Report = reply.read()?;
    if ui.json {
        ui::say_json(&reply.body)?;
    } else {
        report.warn();
        ui::say(report.text(args.requests, Clock::default().now().utc, ui))?;
    }
    Ok(if report.any_stranded() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
