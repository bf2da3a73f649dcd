//! `pushyard check`: whether a configuration can be run, and what would run.
//!
//! It reads what `serve` would read, secrets included, and opens nothing. Errors
//! go to standard error in the form that editors jump to, `file:line:column:`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::failure::Failure;
use super::serve::DEFAULT_CONFIG;
use super::ui::{self, Ui};
use crate::clock::Clock;
use crate::config::{self, Errors, Settings, SystemSources};

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
    if ui.json {
        ui::say(verdict(&checked))?;
    } else {
        match &checked {
            Ok(settings) => {
                for line in settings.summary() {
                    ui::say(ui::plain(&line))?;
                }
            }
            Err(errors) => ui::aside(errors),
        }
    }
    Ok(if checked.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn verdict(checked: &Result<Settings, Errors>) -> Value {
    match checked {
        Ok(settings) => json!({"ok": true, "summary": settings.summary()}),
        Err(errors) => json!({"ok": false, "errors": errors.errors}),
    }
}
