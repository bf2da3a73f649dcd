//! The demo's end: what was promised, and whether it was kept.

use serde::Serialize;

use crate::cli::load::figures::Quantiles;
use crate::cli::load::tally::Verdict;

/// The account of a demo.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    /// What was accepted, sent, lost.
    #[serde(flatten)]
    pub(super) verdict: Verdict,
    /// Failovers, by where from and where to.
    pub(super) failovers: Vec<Failovers>,
    /// From when a message was due to its 202.
    pub(super) accept: Quantiles,
    /// From the 202 to the first arrival at a vendor.
    pub(super) accept_to_vendor: Quantiles,
}

/// Failovers from one provider to another.
#[derive(Debug, Serialize)]
pub(super) struct Failovers {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) count: u64,
}

impl Summary {
    /// The account for people.
    pub(super) fn text(&self) -> String {
        let verdict = &self.verdict;
        let mut lines = vec![line("accepted", verdict.accepted)];
        lines.extend(verdict.sent.iter().map(|(vendor, n)| line(&format!("sent by {vendor}"), n)));
        lines.extend(
            self.failovers
                .iter()
                .map(|one| line(&format!("failovers {} to {}", one.from, one.to), one.count)),
        );
        lines.push(line("lost", verdict.lost));
        lines.push(line("duplicates", verdict.duplicates));
        lines.extend(verdict.refused.iter().map(|(why, n)| line(&format!("refused: {why}"), n)));
        if verdict.unanswered > 0 {
            lines.push(line("calls without an answer", verdict.unanswered));
        }
        lines.push(latency("accept", &self.accept));
        lines.push(latency("accept to vendor", &self.accept_to_vendor));
        lines.push(String::new());
        lines.push(match verdict.lost {
            0 => "Every accepted message reached a vendor.".to_owned(),
            lost => format!("{lost} accepted messages never reached a vendor."),
        });
        lines.join("\n")
    }
}

fn line(name: &str, value: impl std::fmt::Display) -> String {
    format!("  {name:<24} {value:>9}")
}

fn latency(name: &str, quantiles: &Quantiles) -> String {
    let (p50, p99) = (quantiles.p50_ms, quantiles.p99_ms);
    format!("  {name:<24} {p50:>9.1} ms p50   {p99:.1} ms p99   {:.1} ms longest", quantiles.max_ms)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn summary_tells_lost_even_when_there_is_none() {
        let verdict = Verdict {
            accepted: 12_000,
            sent: BTreeMap::from([("apns".to_owned(), 7000), ("fcm".to_owned(), 5000)]),
            lost: 0,
            duplicates: 0,
            unexpected: 0,
            untracked: 0,
            refused: BTreeMap::new(),
            unanswered: 0,
        };
        let failovers = vec![Failovers { from: "apns".to_owned(), to: "fcm".to_owned(), count: 9 }];
        let (accept, accept_to_vendor) = Default::default();
        let text = Summary { verdict, failovers, accept, accept_to_vendor }.text();
        for wanted in ["sent by apns", "failovers apns to fcm", "lost", "Every accepted message"] {
            assert!(text.contains(wanted), "{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
