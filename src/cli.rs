//! The command line: one file a subcommand.
//!
//! In: arguments. Out: an exit code. Invariant: findings go to stdout, everything else to stderr.

mod alert;
mod check;
mod client;
mod completions;
#[cfg(feature = "demo")]
mod demo;
mod explain;
mod healthcheck;
mod kept;
mod notices;
mod reload;
pub mod rules;
mod run;
mod scan;
mod schema;
mod service;
mod tail;
mod state;
mod test;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Watches AWS databases: CloudTrail, database logs and metrics through Sigma detectors to alerts.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "Examples:
  trailwarden scan cloudtrail/               what the built-in detectors find in a folder of CloudTrail files
  zcat log.gz | trailwarden scan - --format json
  trailwarden scan --rules builtin --rules my-rules/ --fail-on high events.json

Exit codes: 0 done, 1 a finding at or above --fail-on, 2 usage, config or rule error, 3 records quarantined.";

/// Whether what goes to `stream` may be coloured: a terminal, unless `NO_COLOR` has a value.
pub fn takes_colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[derive(Debug, Subcommand)]
pub enum Command {
    #[cfg(feature = "demo")]
    Demo(demo::Args),
    Run(run::Args),
    Scan(scan::Args),
    Check(check::Args),
    Test(test::Args),
    Explain(explain::Args),
    Rules(rules::show::Args),
    Completions(completions::Args),
    /// Prints the manual page (roff)
    Man,
    /// Prints the JSON Schema of a kind of file
    #[command(after_help = "Example: trailwarden schema config > trailwarden.schema.json")]
    Schema {
        #[arg(value_enum)]
        of: schema::Of,
    },
    Tail(tail::Args),
    Alert(alert::Args),
    Quarantine(kept::QuarantineArgs),
    DeadLetter(kept::DeadLetterArgs),
    Healthcheck(healthcheck::Args),
    State(state::Args),
}

impl Command {
    /// The level of logs that the command wants unless TRAILWARDEN_LOG says otherwise.
    pub fn log_level(&self) -> &'static str {
        match self {
            #[cfg(feature = "demo")]
            Command::Demo(_) => "error",
            Command::Run(_) => "info",
            _ => "warn",
        }
    }

    /// Runs it. An error is a usage, config or rule error: exit code 2.
    ///
    /// # Errors
    /// Whatever kept the command from doing its work.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            #[cfg(feature = "demo")]
            Command::Demo(args) => demo::run(&args),
            Command::Run(args) => run::run(&args),
            Command::Scan(args) => scan::run(args),
            Command::Check(args) => check::run(&args),
            Command::Test(args) => test::run(&args),
            Command::Explain(args) => explain::run(&args),
            Command::Rules(args) => rules::show::run(&args),
            Command::Completions(args) => completions::run(&args),
            Command::Man => completions::man(),
            Command::Schema { of } => schema::run(of),
            Command::Tail(args) => tail::run(&args),
            Command::Alert(args) => alert::run(&args),
            Command::Quarantine(args) => kept::quarantine(&args),
            Command::DeadLetter(args) => kept::dead_letter(&args),
            Command::Healthcheck(args) => healthcheck::run(&args),
            Command::State(args) => state::run(&args),
        }
    }
}

/// Writes to stdout. A reader that went away (`| head`) is no error: it has what it wanted.
///
/// # Errors
/// stdout that can't be written for another reason.
fn emit(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn every_help_has_an_example() {
        let mut cli = Cli::command();
        // The manual has neither options nor files.
        for command in cli.get_subcommands_mut().filter(|command| command.get_name() != "man") {
            let (name, help) = (command.get_name().to_owned(), command.render_help().to_string());
            assert!(help.contains("Example") && help.contains(&format!("trailwarden {name}")) || name == "healthcheck", "{name}: {help}");
        }
    }
}
