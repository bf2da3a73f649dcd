//! `pushyard events`: what happens, as it happens (admin API).

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use reqwest::{Method, Response};
use serde::Deserialize;

use super::client::Client;
use super::failure::Failure;
use super::ui::{self, Ui, plain};

/// A router that is away is asked this often whether it is back.
const AGAIN: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  pushyard events
  pushyard events --all
  pushyard events --json | jq 'select(.to == \"ejected\")'";

/// Show what happens: state changes, failovers, alarms, operators' actions
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct EventsArgs {
    /// First what the router still holds, the last thousand
    #[arg(short, long)]
    all: bool,
}

/// Shows events until it is stopped: a router that was there once is waited for.
pub(super) async fn run(args: EventsArgs, client: Client, ui: &Ui) -> Result<ExitCode, Failure> {
    let mut seen = args.all.then(|| "0".to_owned());
    let mut stream = open(&client, seen.as_deref()).await?;
    ui::aside("Events as they happen; Ctrl-C ends this.");
    loop {
        follow(&mut stream, &mut seen, ui).await?;
        ui::warning("the stream has ended; asking for it again until the router is back");
        stream = loop {
            tokio::time::sleep(AGAIN).await;
            // Behind the last event that was shown, if any: their ids rise over restarts.
            match open(&client, seen.as_deref()).await {
                Ok(stream) => break stream,
                Err(Failure::Refused(refusal)) if refusal.is_callers() => {
                    return Err(Failure::Refused(refusal));
                }
                Err(_) => {}
            }
        };
        ui::aside("The router is back.");
    }
}

async fn open(client: &Client, seen: Option<&str>) -> Result<Response, Failure> {
    let mut request = client.call(Method::GET, &["admin", "v1", "events"], &[]);
    if let Some(seen) = seen {
        request = request.header("last-event-id", seen);
    }
    client.open(request).await
}

/// Shows what comes until the stream ends or breaks.
async fn follow(stream: &mut Response, seen: &mut Option<String>, ui: &Ui) -> Result<(), Failure> {
    let mut text = Vec::new();
    while let Ok(Some(chunk)) = stream.chunk().await {
        text.extend_from_slice(&chunk);
        // An event ends with an empty line (WHATWG HTML, section 9.2.5).
        while let Some(end) = text.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = text.drain(..end + 2).collect();
            let event = String::from_utf8_lossy(&event);
            show(&event, ui)?;
            *seen = field(&event, "id: ").map(str::to_owned).or(seen.take());
        }
    }
    Ok(())
}

fn field<'e>(event: &'e str, key: &str) -> Option<&'e str> {
    event.lines().find_map(|line| line.strip_prefix(key))
}

fn show(event: &str, ui: &Ui) -> Result<(), Failure> {
    let Some(data) = field(event, "data: ") else { return Ok(()) };
    if ui.json {
        return ui::say_json(data.as_bytes());
    }
    match serde_json::from_str::<Data>(data) {
        Ok(data) => ui::say(plain(&line(field(event, "event: ").unwrap_or_default(), &data))),
        Err(error) => Err(Failure::told(format!("this is not a router's event: {error}"))),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Data {
    at: String,
    provider: Option<String>,
    part: Option<String>,
    from: Option<String>,
    to: Option<String>,
    reason: Option<String>,
    route: Option<String>,
    count: Option<u64>,
    by: Option<String>,
}

/// `2026-12-01T08:00:00.000Z  failover  route default: apns → fcm, Unavailable, 12 times`
fn line(name: &str, data: &Data) -> String {
    let mut about: Vec<String> = Vec::new();
    let part = data.part.as_deref().filter(|part| !part.is_empty());
    about.extend(data.route.as_ref().map(|route| format!("route {route}:")));
    about.extend(data.provider.as_ref().map(|provider| match part {
        Some(part) => format!("{provider} ({part}):"),
        None => format!("{provider}:"),
    }));
    about.extend(match (&data.from, &data.to) {
        (Some(from), Some(to)) => Some(format!("{from} → {to}")),
        (None, Some(to)) => Some(to.clone()),
        (Some(_) | None, None) => None,
    });
    about.extend(data.reason.as_ref().map(|reason| format!("({reason})")));
    about.extend(data.count.filter(|count| *count > 1).map(|count| format!("{count} times")));
    about.extend(data.by.as_ref().map(|by| format!("by {by}")));
    format!("{}  {name:<14}  {}", data.at, about.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let of = |name, json: &str| line(name, &serde_json::from_str(json).unwrap());
        let failover = r#"{"at":"2026-12-01T08:00:00.000Z","provider":null,"part":null,
            "from":"apns","to":"fcm","reason":"Unavailable","route":"default","count":12,"by":null}"#;
        let moved = r#"{"at":"2026-12-01T08:00:01.000Z","provider":"apns","part":"app:a",
            "from":"healthy","to":"ejected","reason":"auth","route":null,"count":null,"by":null}"#;
        insta::assert_snapshot!([of("failover", failover), of("provider.state", moved)].join("\n"), @r"
        2026-12-01T08:00:00.000Z  failover        route default: apns → fcm (Unavailable) 12 times
        2026-12-01T08:00:01.000Z  provider.state  apns (app:a): healthy → ejected (auth)
        ");
    }
}
