//! All about one provider.

use std::fmt::Write;

use comfy_table::{Cell, Table};

use super::view::{Provider, ago, ahead, milliseconds};
use crate::cli::ui::{self, Ui};
use crate::clock::Utc;

/// What the API says of it, and its last errors, the latest first.
pub(super) fn text(provider: &Provider, now: Utc, ui: &Ui) -> String {
    let mut text = ui::shown(facts(provider, now, ui));
    for (title, table) in
        [("Parts", parts(provider, ui)), ("Last errors", errors(provider, now, ui))]
    {
        if !table.is_empty() {
            // Writing into a string cannot fail.
            let _ = write!(text, "\n\n{}\n{}", ui::bold(title), ui::shown(table));
        }
    }
    text
}

fn facts(provider: &Provider, now: Utc, ui: &Ui) -> Table {
    let window = &provider.window;
    let calls = format!(
        "{} ({} of {} calls in {} s)",
        provider.success().unwrap_or_else(|| "-".to_owned()),
        window.successes,
        window.successes + window.failures,
        window.seconds,
    );
    let latency = &provider.latency_ms;
    let quantiles = [("p50", latency.p50), ("p95", latency.p95), ("p99", latency.p99)];
    let quantiles = quantiles
        .into_iter()
        .filter(|(_, value)| value.is_some())
        .map(|(name, value)| format!("{name} {} ms", milliseconds(value)))
        .collect::<Vec<_>>()
        .join(", ");
    let rate = provider.rate.map(|rate| format!("{rate}/s")).unwrap_or_default();

    let mut sheet = ui.sheet();
    let mut fact = |name: &str, value: Cell| {
        sheet.add_row([Cell::new(name), value]);
    };
    fact("provider", ui::cell(&provider.id));
    fact("kind", ui::cell(&provider.kind));
    fact("state", ui::state(&provider.state));
    fact("why", ui::cell(&provider.why()));
    fact("since", ui::cell(&past(provider.since.as_deref(), now)));
    fact("until", ui::cell(&coming(provider.until.as_deref(), now)));
    if !provider.operator.is_null() {
        fact("operator", ui::cell(&provider.operator.to_string()));
    }
    fact("success", ui::cell(&calls));
    fact("latency", ui::cell(&quantiles));
    fact("in flight", ui::cell(&provider.load()));
    fact("rate", ui::cell(&rate));
    fact("connections", ui::cell(&provider.connections.to_string()));
    fact("parked", ui::cell(&provider.parked.to_string()));
    fact("paused until", ui::cell(&coming(provider.paused_until.as_deref(), now)));
    fact("credential", ui::cell(&credential(provider, now)));
    fact("last probe", ui::cell(&probe(provider, now)));
    fact("cost", ui::cell(&provider.cost.to_string()));
    sheet
}

fn parts(provider: &Provider, ui: &Ui) -> Table {
    let mut sheet = ui.sheet();
    for key in &provider.keys {
        let part = if key.part.is_empty() { "the provider as a whole" } else { &key.part };
        let reason = key.reason.as_deref().unwrap_or_default();
        sheet.add_row([ui::cell(part), ui::state(&key.state), ui::cell(reason)]);
    }
    sheet
}

fn errors(provider: &Provider, now: Utc, ui: &Ui) -> Table {
    let mut errors: Vec<_> = provider.last_errors.iter().collect();
    errors.sort_by_key(|error| ago(&error.at, now));
    let mut sheet = ui.sheet();
    for error in errors {
        sheet.add_row([
            ui::cell(&past(Some(&error.at), now)),
            ui::cell(&error.outcome),
            ui::cell(&error.answer()),
            ui::cell(error.detail.as_deref().unwrap_or_default()),
        ]);
    }
    sheet
}

fn credential(provider: &Provider, now: Utc) -> String {
    let credential = &provider.credential;
    let mut words: Vec<String> = credential.kind.iter().cloned().collect();
    match credential.ok {
        Some(true) => words.push("good".to_owned()),
        Some(false) => words.push("refused".to_owned()),
        None => {}
    }
    if credential.expires_at.is_some() {
        words.push(format!("expires {}", coming(credential.expires_at.as_deref(), now)));
    }
    words.join(", ")
}

fn probe(provider: &Provider, now: Utc) -> String {
    let Some(probe) = &provider.last_probe else { return String::new() };
    let verdict = if probe.ok { "good" } else { "failed" };
    let at = past(Some(&probe.at), now);
    match &probe.detail {
        Some(detail) => format!("{verdict}, {at}: {detail}"),
        None => format!("{verdict}, {at}"),
    }
}

/// `2026-12-01T08:02:45.000Z (15s ago)`
fn past(at: Option<&str>, now: Utc) -> String {
    let Some(at) = at else { return String::new() };
    match ago(at, now) {
        Some(ago) => format!("{at} ({} ago)", ui::rough(ago)),
        None => at.to_owned(),
    }
}

/// `2026-12-01T08:03:15.000Z (in 15s)`
fn coming(at: Option<&str>, now: Utc) -> String {
    let Some(at) = at else { return String::new() };
    match ahead(at, now) {
        Some(ahead) if ahead.is_zero() => format!("{at} (over)"),
        Some(ahead) => format!("{at} (in {})", ui::rough(ahead)),
        None => at.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::Page;
    use super::*;

    #[test]
    fn the_details_show_what_the_table_has_no_room_for() {
        let page: Page = serde_json::from_str(include_str!("providers.json")).unwrap();
        // 2026-12-01T08:03:00Z
        let now = Utc::from_ms(1_796_112_180_000);
        let text = text(&page.items[1], now, &ui::without_terminal());
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
    }
}
