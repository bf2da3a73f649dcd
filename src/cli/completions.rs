//! `pushyard completions`: the script that lets a shell complete this program.

use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

use super::failure::Failure;
use super::ui;

const EXAMPLES: &str = "\
Examples:
  bash: pushyard completions bash > ~/.local/share/bash-completion/completions/pushyard
  zsh:  pushyard completions zsh > \"${fpath[1]}/_pushyard\"
  fish: pushyard completions fish > ~/.config/fish/completions/pushyard.fish";

/// Print the script that lets a shell complete this program
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints it.
pub(super) fn run(args: &CompletionsArgs, mut command: clap::Command) -> Result<ExitCode, Failure> {
    // Into memory first: the generator panics when it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "pushyard", &mut script);
    ui::say_bytes(&script)?;
    Ok(ExitCode::SUCCESS)
}
