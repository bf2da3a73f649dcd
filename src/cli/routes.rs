//! `pushyard routes`: where messages of each route go (admin API).

use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::Table;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{ANSWER_TIMEOUT, Client};
use super::failure::Failure;
use super::order::{self, Lasting, Order};
use super::ui::{self, Ui};
use crate::routing::Balance;

const EXAMPLES: &str = "\
Examples:
  pushyard routes
  pushyard routes pause marketing --reason \"wrong campaign\"
  pushyard routes override default --tiers fcm/apns,ntfy --expires-in 1h
  pushyard routes restore default
  pushyard routes --json | jq '.items[] | select(.usable_tier == null).name'";

const TITLES: [&str; 5] = ["ROUTE", "TIERS", "BALANCE", "USES TIER", "OVERRIDE"];

/// Show the routes, and which of their tiers is usable
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct RoutesArgs {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Let its deliveries wait; new messages are taken
    Pause(Order),
    /// Let them go on
    Resume(Order),
    /// Use other tiers or another balance until it is restored
    Override(OverrideArgs),
    /// Use it as configured
    Restore(Order),
}

#[derive(Debug, Args)]
struct OverrideArgs {
    #[command(flatten)]
    lasting: Lasting,
    /// Provider ids: tiers separated by /, members by commas
    #[arg(long, value_name = "TIERS")]
    tiers: Option<String>,
    /// How members of a tier share
    #[arg(long, value_parser = Balance::WORDS)]
    balance: Option<String>,
}

impl OverrideArgs {
    fn body(&self) -> Value {
        let mut body = self.lasting.body();
        let tiers = self.tiers.as_ref().map(|text| {
            let tier = |ids: &str| json!(ids.split(',').map(str::trim).collect::<Vec<_>>());
            json!(text.split('/').map(tier).collect::<Vec<_>>())
        });
        let balance = self.balance.as_ref().map(|word| json!(word));
        for (key, value) in [("tiers", tiers), ("balance", balance)] {
            if let (Some(value), Some(body)) = (value, body.as_object_mut()) {
                body.insert(key.to_owned(), value);
            }
        }
        body
    }
}

impl Action {
    async fn give(&self, client: &Client, ui: &Ui) -> Result<(), Failure> {
        let (name, verb, method, body, done) = match self {
            Self::Pause(order) => (
                &order.name,
                "pause",
                Method::POST,
                Some(order.body()),
                "waits until it is resumed",
            ),
            Self::Resume(order) => {
                (&order.name, "resume", Method::POST, Some(order.body()), "goes on")
            }
            Self::Override(args) => {
                let name = &args.lasting.order.name;
                (name, "override", Method::PUT, Some(args.body()), "is changed")
            }
            Self::Restore(order) => {
                (&order.name, "override", Method::DELETE, None, "is as configured")
            }
        };
        let done = format!("{name} {done}");
        order::give(client, ui, method, &["routes", name, verb], body.as_ref(), &done).await
    }
}

/// Shows them.
pub(super) async fn run(args: RoutesArgs, client: Client, ui: &Ui) -> Result<ExitCode, Failure> {
    if let Some(action) = &args.action {
        action.give(&client, ui).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let call = client.call(Method::GET, &["admin", "v1", "routes"], &[("limit", "1000")]);
    let reply = client.fetch(call.timeout(ANSWER_TIMEOUT)).await?;
    if ui.json {
        ui::say_json(&reply.body)?;
    } else {
        let page: Page = reply.read()?;
        ui::say(ui::shown(table(&page.items, ui)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(routes: &[Route], ui: &Ui) -> Table {
    let mut table = ui.table(&TITLES);
    for route in routes {
        let member = |id: &String| match route.weights.get(id).and_then(Value::as_f64) {
            Some(weight) if weight != 1.0 => format!("{id} ×{weight}"),
            Some(_) | None => id.clone(),
        };
        let tier = |ids: &Vec<String>| ids.iter().map(member).collect::<Vec<_>>().join(", ");
        let tiers: Vec<String> = route.tiers.iter().map(tier).collect();
        let usable = route.usable_tier.map(|tier| (tier + 1).to_string());
        let changed = if route.changed.is_null() { "" } else { "yes" };
        table.add_row([
            ui::cell(&route.name),
            ui::cell(&tiers.join(" then ")),
            ui::cell(&route.balance),
            ui::cell(usable.as_deref().unwrap_or("none")),
            ui::cell(changed),
        ]);
    }
    table
}

#[derive(Debug, Deserialize)]
struct Page {
    items: Vec<Route>,
}

#[derive(Debug, Deserialize)]
struct Route {
    name: String,
    tiers: Vec<Vec<String>>,
    weights: serde_json::Map<String, Value>,
    balance: String,
    #[serde(rename = "override")]
    changed: Value,
    usable_tier: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_without_a_usable_tier_is_seen() {
        let page = r#"{"items":[
            {"name":"default","tiers":[["apns","fcm"],["ntfy"]],"weights":{"apns":3,"fcm":1,"ntfy":1},
             "balance":"least_latency","override":null,"usable_tier":0},
            {"name":"alarms","tiers":[["fcm"]],"weights":{"fcm":1},
             "balance":"weighted","override":{"reason":"test"},"usable_tier":null}],"next":null}"#;
        let page: Page = serde_json::from_str(page).unwrap();
        let shown = ui::shown(table(&page.items, &ui::without_terminal()));
        insta::assert_snapshot!(anstream::adapter::strip_str(&shown).to_string(), @r"
        ROUTE    TIERS                   BALANCE        USES TIER  OVERRIDE
        default  apns ×3, fcm then ntfy  least_latency  1          -
        alarms   fcm                     weighted       none       yes
        ");
    }
}
