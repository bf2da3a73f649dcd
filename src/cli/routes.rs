//! `pushyard routes`: where messages of each route go (admin API).

use std::process::ExitCode;

use clap::Args;
use comfy_table::Table;
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use super::client::{ANSWER_TIMEOUT, Client};
use super::failure::Failure;
use super::ui::{self, Ui};

const EXAMPLES: &str = "\
Examples:
  pushyard routes
  pushyard routes --json | jq '.items[] | select(.usable_tier == null).name'";

const TITLES: [&str; 5] = ["ROUTE", "TIERS", "BALANCE", "USES TIER", "OVERRIDE"];

/// Show the routes, and which of their tiers is usable
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RoutesArgs {}

/// Shows them.
pub(super) async fn run(_: RoutesArgs, client: Client, ui: &Ui) -> Result<ExitCode, Failure> {
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
