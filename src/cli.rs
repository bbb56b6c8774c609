//! The command line: one file a subcommand.
//!
//! In: arguments. Out: an exit code. Invariant: findings go to stdout, everything else to stderr.

mod check;
pub mod rules;
mod scan;
mod test;

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

#[derive(Debug, Subcommand)]
pub enum Command {
    Scan(scan::Args),
    Check(check::Args),
    Test(test::Args),
    Rules(rules::show::Args),
}

impl Command {
    /// The level of logs that the command wants unless TRAILWARDEN_LOG says otherwise.
    pub fn log_level(&self) -> &'static str {
        match self {
            Command::Scan(_) | Command::Check(_) | Command::Test(_) | Command::Rules(_) => "warn",
        }
    }

    /// Runs it. An error is a usage, config or rule error: exit code 2.
    ///
    /// # Errors
    /// Whatever kept the command from doing its work.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Command::Scan(args) => scan::run(args),
            Command::Check(args) => Ok(check::run(&args)),
            Command::Test(args) => test::run(&args),
            Command::Rules(args) => rules::show::run(&args),
        }
    }
}
