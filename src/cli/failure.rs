//! How a subcommand ends when it does not do what was asked.

use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::client::Refusal;
use super::{Cli, ui};
use crate::cli::ui::Ui;

/// Why a subcommand ended early.
#[derive(Debug)]
pub(super) enum Failure {
    /// It could not be done; the reason is for people.
    Told(String),
    /// Nobody there: nothing was sent; the reason is for people.
    Unreachable(String),
    /// The router answered, and said no.
    Refused(Box<Refusal>),
    /// The options make no sense together; the subcommand, and what is wrong.
    Usage(&'static str, String),
    /// Nobody reads standard output any more.
    ReaderGone,
}

impl Failure {
    /// It could not be done, because of this.
    pub(super) fn told(reason: impl Into<String>) -> Self {
        Self::Told(reason.into())
    }

    /// Says it, and gives the exit code.
    pub(super) fn end(self, ui: &Ui) -> ExitCode {
        match self {
            Self::Told(reason) | Self::Unreachable(reason) => ui::error(&reason),
            // Machines read the problem where they would have read the result.
            // Whether they still do no longer matters.
            Self::Refused(refusal) if ui.json && refusal.is_json() => {
                let _ = ui::say_json(refusal.body());
            }
            Self::Refused(refusal) => ui::error(&refusal.to_string()),
            Self::Usage(subcommand, wrong) => {
                let mut command = Cli::command();
                command.build();
                let told = match command.find_subcommand_mut(subcommand) {
                    Some(found) => found.error(ErrorKind::ArgumentConflict, wrong),
                    None => command.error(ErrorKind::ArgumentConflict, wrong),
                };
                return end_with_usage(&told);
            }
            Self::ReaderGone => return ExitCode::SUCCESS,
        }
        ExitCode::FAILURE
    }
}

/// What clap has to say: help and version, or what it could not understand.
pub(super) fn end_with_usage(told: &clap::Error) -> ExitCode {
    // A reader who is gone does not want to be told that.
    let _ = told.print();
    // clap's codes are 0 and 2.
    ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(2))
}
