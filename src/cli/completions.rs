//! `completions` and `man`: what shells and manual pages want to know of the command line.
//!
//! In: the clap command. Out: text on stdout. Invariant: nothing is written elsewhere.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, emit};

/// Prints a shell's completion script.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: trailwarden completions bash > /etc/bash_completion.d/trailwarden")]
pub struct Args {
    #[arg(value_enum)]
    shell: Shell,
}

/// # Errors
/// stdout that can't be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "trailwarden", &mut script);
    emit(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// The manual page, those of the subcommands behind it.
///
/// # Errors
/// stdout that can't be written.
pub fn man() -> anyhow::Result<ExitCode> {
    let mut page = Vec::new();
    let mut command = Cli::command();
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
        let name = format!("trailwarden-{}", subcommand.get_name());
        clap_mangen::Man::new(subcommand.clone().display_name(name)).render(&mut page)?;
    }
    emit(&String::from_utf8_lossy(&page))?;
    Ok(ExitCode::SUCCESS)
}
