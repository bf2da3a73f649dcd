//! What became of a message: the API's answers to `POST /v1/messages`, for people.
//!
//! Without `?wait` it is what was accepted, with it the view. One type reads both,
//! and everything in it may be missing, so that a router of another version is
//! still understood.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::Table;
use serde::Deserialize;

use crate::cli::failure::Failure;
use crate::cli::ui::{self, Ui};

/// Settled without having been sent.
const FAILED: [&str; 4] = ["failed", "expired", "cancelled", "unknown"];
/// Not settled.
const UNSETTLED: [&str; 3] = ["queued", "sending", "waiting"];

/// An accepted message, or its view.
#[derive(Debug, Deserialize)]
pub(super) struct Report {
    id: String,
    state: String,
    /// Deliveries by state; only in a view.
    #[serde(default)]
    counts: Option<BTreeMap<String, u64>>,
    #[serde(default)]
    deliveries: Deliveries,
    #[serde(default)]
    unresolved: Vec<Unresolved>,
    #[serde(default)]
    warnings: Vec<Warning>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Deliveries {
    /// Of an accepted message: all.
    All(Vec<Delivery>),
    /// Of a view: the first page.
    Page { items: Vec<Delivery>, next: Option<String> },
}

impl Default for Deliveries {
    fn default() -> Self {
        Self::All(Vec::new())
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Delivery {
    id: String,
    r#ref: Option<String>,
    state: String,
    reason: Option<String>,
    provider: Option<String>,
    attempts: Vec<Attempt>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Attempt {
    n: u64,
    provider: String,
    outcome: String,
    status: Option<u16>,
    code: Option<String>,
    detail: Option<String>,
    latency_ms: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::cli) struct Unresolved {
    pub(in crate::cli) user: String,
    pub(in crate::cli) reason: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::cli) struct Warning {
    pub(in crate::cli) pointer: String,
    pub(in crate::cli) detail: String,
}

impl Report {
    /// Whether a delivery is settled and did not reach a vendor.
    pub(super) fn any_failed(&self) -> bool {
        match &self.counts {
            Some(counts) => counts.iter().any(|(state, n)| is_failed(state) && *n > 0),
            None => self.deliveries.items().iter().any(|delivery| is_failed(&delivery.state)),
        }
    }

    /// Shows it: the deliveries on standard output, what is amiss on standard error.
    pub(super) fn say(&self, ui: &Ui) -> Result<(), Failure> {
        self.warn();
        ui::say(self.headline())?;
        let deliveries = self.deliveries.items();
        if !deliveries.is_empty() {
            ui::say("")?;
            ui::say(ui::shown(self.table(ui)))?;
        }
        if let Deliveries::Page { next: Some(_), .. } = &self.deliveries {
            let shown = deliveries.len();
            ui::aside(format_args!("{shown} deliveries are shown; the API's view has them all"));
        }
        Ok(())
    }

    fn warn(&self) {
        for warning in &self.warnings {
            let Warning { pointer, detail } = warning;
            ui::warning(&format!("{}: {}", ui::plain(pointer), ui::plain(detail)));
        }
        for Unresolved { user, reason } in &self.unresolved {
            ui::warning(&format!("user {} is not reached: {}", ui::plain(user), ui::plain(reason)));
        }
    }

    fn headline(&self) -> String {
        let id = ui::bold(ui::plain(&self.id));
        let Some(counts) = &self.counts else { return format!("message {id} accepted") };
        let mut line = format!("message {id} {}", ui::plain(&self.state));
        let unsettled: u64 = UNSETTLED.iter().filter_map(|state| counts.get(*state)).sum();
        if unsettled > 0 {
            line.push_str("; it goes on without being watched");
        }
        let counted: Vec<_> = counts
            .iter()
            .filter(|(_, n)| **n > 0)
            .map(|(state, n)| format!("{n} {}", ui::plain(state)))
            .collect();
        if !counted.is_empty() {
            // Writing into a string cannot fail.
            let _ = write!(line, " ({})", counted.join(", "));
        }
        line
    }

    fn table(&self, ui: &Ui) -> Table {
        let deliveries = self.deliveries.items();
        if self.counts.is_none() {
            let mut table = ui.table(&["DELIVERY", "REF"]);
            for delivery in deliveries {
                table.add_row([ui::cell(&delivery.id), ui::cell(delivery.reference())]);
            }
            return table;
        }
        let mut table = ui.table(&["DELIVERY", "REF", "STATE", "REASON", "PROVIDER", "ATTEMPTS"]);
        for delivery in deliveries {
            let attempts: Vec<_> = delivery.attempts.iter().map(Attempt::line).collect();
            table.add_row([
                ui::cell(&delivery.id),
                ui::cell(delivery.reference()),
                ui::state(&delivery.state),
                ui::cell(delivery.reason.as_deref().unwrap_or_default()),
                ui::cell(delivery.provider.as_deref().unwrap_or_default()),
                ui::lines(&attempts),
            ]);
        }
        table
    }
}

impl Deliveries {
    fn items(&self) -> &[Delivery] {
        match self {
            Self::All(items) | Self::Page { items, .. } => items,
        }
    }
}

impl Delivery {
    fn reference(&self) -> &str {
        self.r#ref.as_deref().unwrap_or_default()
    }
}

impl Attempt {
    /// `1 fcm Unavailable 503 UNAVAILABLE 12 ms`
    fn line(&self) -> String {
        let mut line = format!("{} {} {}", self.n, self.provider, self.outcome);
        let status = self.status.map(|status| status.to_string());
        // The detail repeats what a code says.
        let said = self.code.as_ref().or(self.detail.as_ref());
        for more in [status.as_ref(), said].into_iter().flatten() {
            line.push(' ');
            line.push_str(more);
        }
        if let Some(latency_ms) = self.latency_ms {
            let _ = write!(line, " {latency_ms} ms");
        }
        line
    }
}

fn is_failed(state: &str) -> bool {
    FAILED.contains(&state)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(json: &str) -> String {
        let report: Report = serde_json::from_str(json).unwrap();
        let table = ui::shown(report.table(&ui::without_terminal()));
        let text = format!("{}\n{table}", report.headline());
        anstream::adapter::strip_str(&text).to_string()
    }

    const VIEW: &str = r#"{"id":"0197-m","state":"partial","route":"default",
        "counts":{"sent":1,"failed":1,"queued":0},
        "deliveries":{"items":[
          {"id":"0197-a","ref":"alice-iphone","state":"sent","reason":null,"provider":"apns",
           "attempts":[
            {"n":1,"provider":"fcm","kind":"fcm","outcome":"Unavailable","status":503,
             "code":"UNAVAILABLE","detail":"try later","latency_ms":12},
            {"n":2,"provider":"apns","kind":"apns","outcome":"Accepted","status":200,
             "code":null,"detail":null,"latency_ms":38}]},
          {"id":"0197-b","ref":null,"state":"failed","reason":"no_route","provider":null,
           "attempts":[]}],"next":null}}"#;

    #[test]
    fn a_view_shows_each_delivery_with_its_attempts() {
        insta::assert_snapshot!(shown(VIEW), @r"
        message 0197-m partial (1 failed, 1 sent)
        DELIVERY  REF           STATE   REASON    PROVIDER  ATTEMPTS
        0197-a    alice-iphone  sent    -         apns      1 fcm Unavailable 503 UNAVAILABLE 12 ms
                                                            2 apns Accepted 200 38 ms
        0197-b    -             failed  no_route  -         -
        ");
    }

    #[test]
    fn an_accepted_message_shows_its_deliveries() {
        let accepted =
            r#"{"id":"0197-m","state":"queued","deliveries":[{"id":"0197-a","ref":"a"}]}"#;
        insta::assert_snapshot!(shown(accepted), @r"
        message 0197-m accepted
        DELIVERY  REF
        0197-a    a
        ");
    }

    #[test]
    fn a_message_that_is_not_settled_says_so() {
        let view = r#"{"id":"m","state":"sending","counts":{"waiting":2},
            "deliveries":{"items":[],"next":null}}"#;
        let report: Report = serde_json::from_str(view).unwrap();
        assert!(
            report.headline().ends_with(" sending; it goes on without being watched (2 waiting)")
        );
    }

    #[test]
    fn only_what_is_settled_and_unsent_counts_as_failed() {
        let failed = |state: &str, n: u64| {
            let json = format!(r#"{{"id":"m","state":"x","counts":{{"sent":1,"{state}":{n}}}}}"#);
            serde_json::from_str::<Report>(&json).unwrap().any_failed()
        };
        for state in FAILED {
            assert!(failed(state, 1), "{state}");
            assert!(!failed(state, 0), "{state}");
        }
        for state in ["queued", "sending", "waiting", "delivered"] {
            assert!(!failed(state, 1), "{state}");
        }
    }
}
