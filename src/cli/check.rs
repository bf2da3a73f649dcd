//! `pushyard check`: whether a configuration can be run, and what would run.
//!
//! It reads what `serve` would read, secrets included, and opens nothing. Errors
//! go to standard error in the form that editors jump to, `file:line:column:`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::failure::Failure;
use super::serve::DEFAULT_CONFIG;
use super::ui::{self, Ui};
use crate::clock::Clock;
use crate::config::{self, ConfigError, SystemSources};

const EXAMPLES: &str = "\
Examples:
  pushyard check --config /etc/pushyard/pushyard.toml
  pushyard check --json | jq -r '.errors[] | \"\\(.line): \\(.detail)\"'

Exit code 1 when it cannot be run; all errors are told at once.";

/// Check a configuration, and say what would run
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CheckArgs {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

/// Checks it.
pub(super) fn run(args: &CheckArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let clock = Arc::new(Clock::default());
    let checked = config::load(&args.config, &SystemSources, clock);
    let verdict = match checked {
        Ok(settings) => Verdict { ok: true, summary: Some(settings.summary()), errors: None },
        Err(found) => Verdict { ok: false, summary: None, errors: Some(found.errors) },
    };
    if ui.json {
        let json = serde_json::to_vec(&verdict)
            .map_err(|error| Failure::told(format!("cannot write JSON: {error}")))?;
        ui::say_json(&json)?;
    } else {
        verdict.tell()?;
    }
    Ok(if verdict.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// As `--json` shows it.
#[derive(Serialize)]
struct Verdict {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<ConfigError>>,
}

impl Verdict {
    fn tell(&self) -> Result<(), Failure> {
        for error in self.errors.iter().flatten() {
            ui::aside(ui::plain(&error.to_string()));
        }
        self.summary.iter().flatten().try_for_each(|line| ui::say(ui::plain(line)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_is_as_machines_expect_it() {
        let json = |verdict: &Verdict| serde_json::to_string(verdict).unwrap();
        let good = Verdict { ok: true, summary: Some(vec!["api".to_owned()]), errors: None };
        assert_eq!(json(&good), r#"{"ok":true,"summary":["api"]}"#);
        let error = ConfigError {
            file: "a.toml".to_owned(),
            line: 3,
            column: 1,
            key: "server.lisen".to_owned(),
            detail: "unknown key".to_owned(),
        };
        let bad = Verdict { ok: false, summary: None, errors: Some(vec![error]) };
        let expected = r#"{"ok":false,"errors":[{"file":"a.toml","line":3,"column":1,"key":"server.lisen","detail":"unknown key"}]}"#;
        assert_eq!(json(&bad), expected);
    }
}
