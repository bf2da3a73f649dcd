//! Figures as tables: a line for each figure, a column for each run or phase, so
//! that a table stays within 80 columns however much is measured.

use comfy_table::{CellAlignment, Table, presets};

use crate::cli::load::figures::Quantiles;
use crate::cli::load::tally::Verdict;

/// A table whose first column names the figures.
#[derive(Debug)]
pub(super) struct Report {
    table: Table,
    columns: usize,
}

impl Report {
    /// A table with these columns beside the names.
    pub(super) fn new(columns: &[String]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(std::iter::once(String::new()).chain(columns.iter().cloned()));
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        Self { table, columns: columns.len() }
    }

    /// A line.
    pub(super) fn line(&mut self, name: &str, values: impl IntoIterator<Item = String>) {
        let values = values.into_iter().take(self.columns);
        self.table.add_row(std::iter::once(name.to_owned()).chain(values));
    }

    /// The lines of a latency.
    pub(super) fn quantiles(&mut self, name: &str, quantiles: &[Quantiles], with_p999: bool) {
        let mut line = |quantile: &str, of: fn(&Quantiles) -> f64| {
            let values = quantiles.iter().map(|one| match one.count {
                0 => "-".to_owned(),
                _ => format!("{:.1} ms", of(one)),
            });
            self.line(&format!("{name} {quantile}"), values);
        };
        line("p50", |one| one.p50_ms);
        line("p99", |one| one.p99_ms);
        if with_p999 {
            line("p99.9", |one| one.p999_ms);
        }
    }

    /// The lines of what became of everything.
    pub(super) fn verdicts(&mut self, verdicts: &[&Verdict]) {
        let mut line = |name: &str, of: fn(&Verdict) -> u64| {
            self.line(name, verdicts.iter().map(|one| of(one).to_string()));
        };
        line("accepted", |one| one.accepted);
        line("sent", |one| one.sent.values().sum());
        line("lost", |one| one.lost);
        line("duplicates", |one| one.duplicates);
        if verdicts.iter().any(|one| one.untracked > 0) {
            line("untracked", |one| one.untracked);
        }
        for (why, _) in verdicts.iter().flat_map(|one| &one.refused) {
            let count = |one: &&Verdict| one.refused.get(why).copied().unwrap_or(0).to_string();
            self.line(&format!("refused: {why}"), verdicts.iter().map(count));
        }
        if verdicts.iter().any(|one| one.unanswered > 0) {
            self.line(
                "calls without an answer",
                verdicts.iter().map(|one| one.unanswered.to_string()),
            );
            let unexpected = verdicts.iter().map(|one| one.unexpected.to_string());
            self.line("  of those, sent", unexpected);
        }
    }

    /// The table as text.
    pub(super) fn text(&self) -> String {
        self.table.trim_fmt()
    }
}

/// Bytes for people: `12.3 MiB`.
pub(super) fn mebibytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{:.1} MiB", bytes as f64 / 1_048_576.0))
}

/// A figure that may be unknown, with its unit.
pub(super) fn or_dash(value: Option<f64>, unit: &str) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1} {unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_fits_eighty_columns_with_four_runs() {
        let mut report = Report::new(&["1", "100", "1000", "5000"].map(str::to_owned));
        let quantiles =
            Quantiles { count: 9, p50_ms: 1.0, p99_ms: 12_345.6, ..Quantiles::default() };
        report.quantiles("accept to vendor", &[quantiles; 4], true);
        report.line("router memory, most", vec![mebibytes(Some(123 << 20)); 4]);
        let text = report.text();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("12345.6 ms"), "{text}");
    }

    #[test]
    fn figures_that_are_unknown_are_dashes() {
        let mut report = Report::new(&["all".to_owned()]);
        report.quantiles("accept", &[Quantiles::default()], false);
        assert!(report.text().lines().skip(1).all(|line| line.trim_end().ends_with('-')));
        assert_eq!((mebibytes(None), or_dash(None, "us")), ("-".to_owned(), "-".to_owned()));
    }
}
