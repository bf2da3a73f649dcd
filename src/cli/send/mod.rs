//! `pushyard send`: one message from the command line, or many from a file.
//!
//! It only builds what the API takes and shows what the API answers; what is
//! valid is the router's to say. `recipient` reads `--to`, `content` all else that
//! makes a message (`explain` takes the same two), `report` shows what became of it,
//! `batch` streams a file.

mod batch;
mod content;
mod recipient;
pub(in crate::cli) mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{ANSWER_TIMEOUT, Client};
use super::failure::Failure;
use super::ui::{self, Ui};
pub(super) use content::Content;
pub(super) use recipient::{Recipient, recipient};

const EXAMPLES: &str = "\
Examples:
  One device, and what became of it:
    pushyard send --to apns:9f86d081884c7d65 --title Paid --body 'Order 7 is on its way' --wait 10s
  A device that can be reached in two ways: the second is the failover
    pushyard send --to apns:9f86d081884c7d65,fcm:e1x7,ref=alice-phone --title Paid
  Two recipients, data only:
    pushyard send --to fcm:e1x7 --to fcm:k2b4 --data order=7 --ttl 4h
  A topic:
    pushyard send --to fcm:topic=news --title 'Doors open at eight'
  A file with a message on each line, as the API takes them, or a stream of them:
    pushyard send --file messages.ndjson
    generate | pushyard send --file -

Exit code 1 when anything was refused, or when a delivery failed within --wait.";

/// Send a message, or a file of messages
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SendArgs {
    /// A recipient: KIND:TOKEN, further addresses and fields after commas; repeat it for more
    ///
    /// KIND:FIELD=VALUE gives another field than the token, as in fcm:topic=news. After a comma
    /// stands another address of the same recipient (fcm:TOKEN), a field of the address before
    /// (app=com.example.shop, provider=fcm-eu), or ref= and region= of the recipient. user:NAME is
    /// a registered user. JSON as in the API's `to` works too.
    #[arg(long, value_name = "KIND:TOKEN", value_parser = recipient)]
    #[arg(required_unless_present = "file")]
    to: Vec<Recipient>,

    #[command(flatten)]
    content: Content,
    /// Sending it again with the same key within 24 hours sends nothing new
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,

    /// Wait this long (at most 60s) for what becomes of it
    #[arg(long, value_name = "DURATION", value_parser = wait)]
    wait: Option<Wait>,

    /// Send the messages in this file, one JSON object a line; - is standard input
    #[arg(long, value_name = "FILE", help_heading = "Many messages")]
    file: Option<PathBuf>,
}

/// `--wait`, as it was written and as it was understood.
#[derive(Clone, Debug)]
struct Wait {
    text: String,
    duration: Duration,
}

/// Sends what the options say.
pub(super) async fn run(args: SendArgs, client: Client, ui: &Ui) -> Result<ExitCode, Failure> {
    match &args.file {
        Some(file) if args.is_file_alone() => batch::run(&client, file, ui).await,
        Some(_) => Err(usage("--file goes with none of the options that make up a message")),
        None if args.content.is_empty() => {
            Err(usage("there is nothing to send: give it a --title, a --body or --data"))
        }
        None => send_one(&args, &client, ui).await,
    }
}

async fn send_one(args: &SendArgs, client: &Client, ui: &Ui) -> Result<ExitCode, Failure> {
    let query: Vec<_> = args.wait.iter().map(|wait| ("wait", wait.text.as_str())).collect();
    let waits = args.wait.as_ref().map_or(Duration::ZERO, |wait| wait.duration);
    let mut call = client
        .call(Method::POST, &["v1", "messages"], &query)
        .timeout(ANSWER_TIMEOUT.saturating_add(waits))
        .json(&args.message());
    if let Some(key) = &args.idempotency_key {
        call = call.header("idempotency-key", key);
    }
    let reply = client.fetch(call).await?;
    if reply.headers.contains_key("idempotent-replayed") {
        ui::warning("this key was used before: the first answer is shown, and nothing was sent");
    }
    let report: report::Report = reply.read()?;
    if ui.json {
        ui::say_json(&reply.body)?;
    } else {
        report.say(ui)?;
    }
    Ok(if report.any_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl SendArgs {
    /// The body of `POST /v1/messages`.
    fn message(&self) -> Value {
        self.content.message(&self.to)
    }

    /// Whether nothing says what a message should be.
    fn is_file_alone(&self) -> bool {
        let nothing = json!({"to": []});
        self.message() == nothing && self.wait.is_none() && self.idempotency_key.is_none()
    }
}

fn usage(wrong: &str) -> Failure {
    Failure::Usage("send", wrong.to_owned())
}

fn wait(text: &str) -> Result<Wait, String> {
    let duration =
        humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 10s"))?;
    Ok(Wait { text: text.to_owned(), duration })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: SendArgs,
    }

    fn args(words: &[&str]) -> SendArgs {
        Line::try_parse_from(["send"].iter().chain(words)).unwrap().args
    }

    #[test]
    fn options_become_the_apis_message() {
        let everything = args(&[
            "--to",
            "apns:9f",
            "--to",
            "fcm:topic=news",
            "--title",
            "Paid",
            "--body",
            "Order 7",
            "--image",
            "https://i",
            "--click",
            "https://u",
            "--sound",
            "default",
            "--badge",
            "3",
            "--data",
            "order=7",
            "--data",
            "url=a=b",
            "--priority",
            "normal",
            "--ttl",
            "4h",
            "--collapse-key",
            "order-7",
            "--route",
            "eu",
            "--deliver-at",
            "2026-12-01T08:00:00Z",
            "--on-ambiguous",
            "stop",
            "--metadata",
            "campaign=autumn",
        ]);
        assert_eq!(
            everything.message(),
            json!({
                "to": [{"addresses": [{"kind": "apns", "token": "9f"}]},
                       {"addresses": [{"kind": "fcm", "topic": "news"}]}],
                "notification": {"title": "Paid", "body": "Order 7", "image": "https://i",
                                 "url": "https://u", "sound": "default", "badge": 3},
                "data": {"order": "7", "url": "a=b"},
                "priority": "normal", "ttl": "4h", "collapse_key": "order-7", "route": "eu",
                "deliver_at": "2026-12-01T08:00:00Z", "on_ambiguous": "stop",
                "metadata": {"campaign": "autumn"},
            })
        );
    }

    #[test]
    fn what_is_not_given_is_left_to_the_router() {
        let message = args(&["--to", "fcm:e1", "--data", "a=1"]).message();
        let to = json!([{"addresses": [{"kind": "fcm", "token": "e1"}]}]);
        assert_eq!(message, json!({"to": to, "data": {"a": "1"}}));
    }

    #[test]
    fn a_message_needs_content_and_a_file_stands_alone() {
        assert!(args(&["--to", "fcm:e1"]).content.is_empty());
        assert!(!args(&["--to", "fcm:e1", "--badge", "0"]).content.is_empty());
        assert!(args(&["--file", "-"]).is_file_alone());
        for more in [["--title", "Paid"], ["--wait", "1s"], ["--idempotency-key", "k"]] {
            let words: Vec<_> = ["--file", "-"].into_iter().chain(more).collect();
            assert!(!args(&words).is_file_alone(), "{more:?}");
        }
        assert!(Line::try_parse_from(["send", "--title", "Paid"]).is_err());
    }

    #[test]
    fn pairs_and_waits_are_checked() {
        for wrong in [["--data", "order"], ["--data", "=7"], ["--wait", "10"], ["--wait", "soon"]] {
            let words = ["send", "--to", "fcm:e1"].into_iter().chain(wrong);
            assert!(Line::try_parse_from(words).is_err(), "{wrong:?}");
        }
    }
}
