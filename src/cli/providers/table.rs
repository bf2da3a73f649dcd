//! All providers, a line each.

use comfy_table::{CellAlignment, Table};

use super::view::{LastError, Provider, ago, milliseconds};
use crate::cli::ui::{self, Ui};
use crate::clock::Utc;

const TITLES: [&str; 12] = [
    "PROVIDER",
    "KIND",
    "STATE",
    "WHY",
    "SINCE",
    "SUCCESS",
    "P50 MS",
    "P99 MS",
    "IN FLIGHT",
    "CONNS",
    "PARKED",
    "LAST ERROR",
];
/// Columns of numbers.
const NUMBERS: std::ops::Range<usize> = 5..11;

/// The providers in the API's order.
pub(super) fn table(providers: &[Provider], now: Utc, ui: &Ui) -> Table {
    let mut table = ui.table(&TITLES);
    for provider in providers {
        let since = provider.since.as_deref().and_then(|since| ago(since, now));
        table.add_row([
            ui::cell(&provider.id),
            ui::cell(&provider.kind),
            ui::state(&provider.state),
            ui::cell(&provider.why()),
            ui::cell(&since.map(ui::rough).unwrap_or_default()),
            ui::cell(&provider.success().unwrap_or_default()),
            ui::cell(&milliseconds(provider.latency_ms.p50)),
            ui::cell(&milliseconds(provider.latency_ms.p99)),
            ui::cell(&provider.load()),
            ui::cell(&provider.connections.to_string()),
            ui::cell(&provider.parked.to_string()),
            ui::cell(&provider.last_error().map(|error| brief(error, now)).unwrap_or_default()),
        ]);
    }
    for number in NUMBERS {
        if let Some(column) = table.column_mut(number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// `503 UNAVAILABLE, 2m ago`
fn brief(error: &LastError, now: Utc) -> String {
    let answer = error.answer();
    let said = if answer.is_empty() { &error.outcome } else { &answer };
    match ago(&error.at, now) {
        Some(ago) => format!("{said}, {} ago", ui::rough(ago)),
        None => said.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::Page;
    use super::*;

    #[test]
    fn the_table_shows_each_provider_with_its_latest_error() {
        let page: Page = serde_json::from_str(include_str!("providers.json")).unwrap();
        // 2026-12-01T08:03:00Z
        let now = Utc::from_ms(1_796_112_180_000);
        let table = ui::shown(table(&page.items, now, &ui::without_terminal()));
        insta::assert_snapshot!(anstream::adapter::strip_str(&table).to_string());
    }

    #[test]
    fn a_router_of_another_version_is_shown_as_far_as_it_goes() {
        let page: Page =
            serde_json::from_str(r#"{"items":[{"id":"apns","new":1}],"next":null}"#).unwrap();
        let table = table(&page.items, Utc::from_ms(0), &ui::without_terminal()).trim_fmt();
        assert!(table.contains("apns"));
    }
}
