//! What explain answers, for people: a line for each provider and address, the
//! first where the push would go, those that are left out below with the reason.
//!
//! Everything in it may be missing: the router may be of another version.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::Table;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::send::report::{Unresolved, Warning};
use crate::cli::ui::{self, Ui};
use crate::clock::Utc;

const TITLES: [&str; 7] = ["", "PROVIDER", "ADDRESS", "TIER", "STATE", "SHARE", "WHY"];
const ATTEMPT_TITLES: [&str; 7] =
    ["", "PROVIDER", "ADDRESS", "OUTCOME", "ANSWER", "TOOK", "WHY THERE"];

/// The answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Report {
    route: String,
    paused: Option<String>,
    deliveries: Vec<Delivery>,
    unresolved: Vec<Unresolved>,
    warnings: Vec<Warning>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Delivery {
    r#ref: Option<String>,
    id: Option<String>,
    state: Option<String>,
    reason: Option<String>,
    next_at: Option<String>,
    attempts: Vec<Attempt>,
    candidates: Vec<Candidate>,
    panic: bool,
    excluded: Vec<Excluded>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Attempt {
    n: u64,
    provider: String,
    address: String,
    outcome: String,
    status: Option<u16>,
    code: Option<String>,
    latency_ms: Option<u64>,
    moved: Option<Moved>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Moved {
    detail: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Candidate {
    provider: String,
    address: String,
    tier: u64,
    share: f64,
    state: String,
    keys: Vec<Key>,
    score: Score,
    request: Option<Request>,
    request_problem: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Key {
    part: String,
    state: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Score {
    balance: String,
    rtt_ms: f64,
    in_flight: u64,
    weight: f64,
    ramp: Option<f64>,
    cost_per_million: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Request {
    method: String,
    url: String,
    headers: BTreeMap<String, String>,
    body: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Excluded {
    provider: String,
    kind: String,
    address: String,
    tier: u64,
    state: String,
    reason: String,
    detail: String,
    until: Option<String>,
}

impl Report {
    /// Whether one that is not settled has nowhere to go now.
    pub(super) fn any_stranded(&self) -> bool {
        let stranded = |delivery: &Delivery| delivery.goes() && delivery.candidates.is_empty();
        self.deliveries.iter().any(stranded)
    }

    /// What is amiss with the message, on standard error.
    pub(super) fn warn(&self) {
        for Warning { pointer, detail } in &self.warnings {
            ui::warning(&format!("{}: {}", ui::plain(pointer), ui::plain(detail)));
        }
        for Unresolved { user, reason } in &self.unresolved {
            ui::warning(&format!("user {} is not reached: {}", ui::plain(user), ui::plain(reason)));
        }
    }

    /// All of it.
    pub(super) fn text(&self, requests: bool, now: Utc, ui: &Ui) -> String {
        let mut parts: Vec<String> = Vec::new();
        if let Some(paused) = &self.paused {
            let paused = ui::plain(paused);
            parts.push(format!("an operator has paused the {paused}: all of it waits"));
        }
        for delivery in &self.deliveries {
            let mut text = delivery.headline(&self.route, now);
            // Writing into a string cannot fail.
            if !delivery.attempts.is_empty() {
                let _ = write!(text, "\n{}", ui::shown(delivery.attempts(ui)));
            }
            if delivery.goes() {
                let _ = write!(text, "\n{}", ui::shown(delivery.places(now, ui)));
            }
            if requests {
                for candidate in &delivery.candidates {
                    let _ = write!(text, "\n\n{}", candidate.request());
                }
            }
            parts.push(text);
        }
        parts.join("\n\n")
    }
}

impl Delivery {
    /// Whether it may still go somewhere: it is a dry run, or not settled.
    fn goes(&self) -> bool {
        matches!(self.state.as_deref(), None | Some("queued" | "sending" | "waiting"))
    }

    fn headline(&self, route: &str, now: Utc) -> String {
        let who = match (&self.r#ref, &self.id) {
            (Some(name), _) => ui::bold(ui::plain(name)),
            (None, Some(id)) => ui::bold(ui::plain(id)),
            (None, None) => "this recipient".to_owned(),
        };
        let route = ui::plain(route);
        if let (Some(state), false) = (&self.state, self.goes()) {
            let reason = self.reason.as_ref().map(|reason| format!(" ({})", ui::plain(reason)));
            let reason = reason.unwrap_or_default();
            return format!("{who} on route {route} is {}{reason}", ui::plain(state));
        }
        let mut line = match self.candidates.first() {
            Some(first) if self.panic => {
                let provider = ui::bold(ui::plain(&first.provider));
                format!(
                    "{who} on route {route}: every candidate is out; {provider} is tried to see whether it is back"
                )
            }
            Some(first) => {
                let provider = ui::bold(ui::plain(&first.provider));
                format!("{who} on route {route} goes to {provider}")
            }
            None => format!("{who} on route {route} has nowhere to go now"),
        };
        if let Some(at) = &self.next_at {
            let _ = write!(line, ", {}", ahead(at, now));
        }
        line
    }

    fn places(&self, now: Utc, ui: &Ui) -> Table {
        let mut table = ui.table(&TITLES);
        for (at, candidate) in self.candidates.iter().enumerate() {
            table.add_row([
                ui::cell(&(at + 1).to_string()),
                ui::cell(&candidate.provider),
                ui::cell(&candidate.address),
                ui::cell(&(candidate.tier + 1).to_string()),
                ui::state(&candidate.state),
                ui::cell(&percent(candidate.share)),
                ui::cell(&candidate.why()),
            ]);
        }
        let mut told: Vec<(&str, &str)> = Vec::new();
        for excluded in &self.excluded {
            // One line will do for a provider that serves none of the addresses.
            let what = (&*excluded.provider, &*excluded.detail);
            if excluded.of_another_kind() && told.contains(&what) {
                continue;
            }
            told.push(what);
            table.add_row([
                ui::cell(""),
                ui::cell(&excluded.provider),
                ui::cell(if excluded.of_another_kind() { "" } else { &excluded.address }),
                ui::cell(&(excluded.tier + 1).to_string()),
                ui::state(&excluded.state),
                ui::cell(""),
                ui::cell(&excluded.why(now)),
            ]);
        }
        table
    }

    fn attempts(&self, ui: &Ui) -> Table {
        let mut table = ui.table(&ATTEMPT_TITLES);
        for attempt in &self.attempts {
            let status = attempt.status.map(|status| status.to_string());
            let answer: Vec<String> = status.into_iter().chain(attempt.code.clone()).collect();
            let took = attempt.latency_ms.map(|ms| format!("{ms} ms")).unwrap_or_default();
            let why = attempt.moved.as_ref().map_or("", |moved| &moved.detail);
            table.add_row([
                ui::cell(&attempt.n.to_string()),
                ui::cell(&attempt.provider),
                ui::cell(&attempt.address),
                ui::cell(&attempt.outcome),
                ui::cell(&answer.join(" ")),
                ui::cell(&took),
                ui::cell(why),
            ]);
        }
        table
    }
}

impl Candidate {
    /// `least_latency: 38 ms, 2 in flight, weight 3; app:com.example.shop healthy`
    fn why(&self) -> String {
        let Score { balance, rtt_ms, in_flight, weight, ramp, cost_per_million } = &self.score;
        let mut why = format!("{balance}: {rtt_ms} ms, {in_flight} in flight, weight {weight}");
        if let Some(ramp) = ramp.filter(|ramp| *ramp < 1.0) {
            let _ = write!(why, ", of which slow start leaves {}", percent(ramp));
        }
        if let Some(cost) = cost_per_million.filter(|cost| *cost > 0.0) {
            let _ = write!(why, ", {cost} for a million");
        }
        if let Some(problem) = &self.request_problem {
            let _ = write!(why, "; no request can be made: {problem}");
        }
        why + &parts(&self.keys)
    }

    /// What the vendor would get, as HTTP.
    fn request(&self) -> String {
        let title = ui::bold(format!("Request to {}", ui::plain(&self.provider)));
        let Some(Request { method, url, headers, body }) = &self.request else {
            return format!("{title}\nnone can be made");
        };
        let mut text = format!("{title}\n{} {}", ui::plain(method), ui::plain(url));
        for (name, value) in headers {
            let _ = write!(text, "\n{}: {}", ui::plain(name), ui::plain(value));
        }
        // A JSON value always serialises.
        let body = match body {
            Value::Null => return text,
            Value::String(body) => ui::plain(body),
            body => serde_json::to_string_pretty(body).unwrap_or_default(),
        };
        text + "\n\n" + &body
    }
}

impl Excluded {
    /// Whether the address is none of the provider's.
    fn of_another_kind(&self) -> bool {
        let kind = self.address.split(':').next();
        self.reason == "kind" && kind != Some(&*self.kind)
    }

    /// `ejected: 5 failures in a row, until … (in 25s)`
    fn why(&self, now: Utc) -> String {
        let until = self.until.as_ref().map(|until| format!("; {}", ahead(until, now)));
        let until = until.unwrap_or_default();
        format!("{}: {}{until}", self.reason, self.detail)
    }
}

/// The parts beside the provider as a whole, whose state stands in its own column.
fn parts(keys: &[Key]) -> String {
    let parts = keys.iter().filter(|key| !key.part.is_empty());
    parts.map(|key| format!("; {} {}", key.part, key.state)).collect()
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    // A trace of traffic is not none.
    if percent > 0.0 && percent < 1.0 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.0} %")
    }
}

/// `again in 25s`
fn ahead(at: &str, now: Utc) -> String {
    let time = at.parse::<Timestamp>().ok().and_then(|at| u64::try_from(at.as_millisecond()).ok());
    match time.map(|at| Utc::from_ms(at).since(now)) {
        Some(left) if left.as_secs() > 0 => format!("again in {}", ui::rough(left)),
        Some(_) => "again at once".to_owned(),
        None => format!("again at {at}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 25 s before the end of the ejection in `ejected.json`.
    const NOW: Utc = Utc::from_ms(1795546663329);

    fn report(json: &str) -> Report {
        serde_json::from_str(json).unwrap()
    }

    fn shown(json: &str, requests: bool) -> String {
        let text = report(json).text(requests, NOW, &ui::without_terminal());
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn with_everyone_healthy_the_better_tier_comes_first() {
        insta::assert_snapshot!(shown(include_str!("healthy.json"), false));
    }

    #[test]
    fn with_the_preferred_provider_ejected_the_other_comes_first_and_it_is_told_why() {
        insta::assert_snapshot!(shown(include_str!("ejected.json"), false));
    }

    #[test]
    fn residency_leaves_only_one() {
        insta::assert_snapshot!(shown(include_str!("region.json"), false));
    }

    #[test]
    fn a_past_delivery_shows_its_attempts_and_what_moved_it() {
        insta::assert_snapshot!(shown(include_str!("past.json"), false));
    }

    #[test]
    fn the_vendors_requests_are_shown_when_they_are_asked_for() {
        insta::assert_snapshot!(shown(include_str!("healthy.json"), true));
    }

    #[test]
    fn who_has_nowhere_to_go_is_a_failure_unless_it_has_settled() {
        let nowhere = r#"{"route":"r","deliveries":[{"ref":"a","candidates":[]}]}"#;
        assert!(report(nowhere).any_stranded());
        assert_eq!(
            shown(nowhere, false).lines().next(),
            Some("a on route r has nowhere to go now")
        );
        let settled = r#"{"deliveries":[{"id":"i","state":"sent","candidates":[]}]}"#;
        assert!(!report(settled).any_stranded());
        assert!(!report(include_str!("ejected.json")).any_stranded());
    }

    #[test]
    fn panic_and_pauses_are_told() {
        let text = shown(
            r#"{"route":"r","paused":"route","deliveries":[
                {"ref":"a","panic":true,"candidates":[{"provider":"apns"}]}]}"#,
            false,
        );
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("an operator has paused the route: all of it waits"));
        let told = "a on route r: every candidate is out; apns is tried to see whether it is back";
        assert_eq!(lines.nth(1), Some(told));
    }

    #[test]
    fn a_trace_of_traffic_is_not_none() {
        let shares = [(1.0, "100 %"), (0.42, "42 %"), (0.004, "0.4 %"), (0.0, "0 %")];
        for (share, shown) in shares {
            assert_eq!(percent(share), shown);
        }
    }
}
