//! `trailwarden alert test`: sends a marked alert through a route, so that a person can see their pager ring.
//!
//! In: a level, a pillar. Out: the sinks that it went to. Invariant: the alert says everywhere that it is a test.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use serde_json::json;

use super::client::Daemon;

/// Try the alert routes of a running daemon.
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Example:
  trailwarden alert test --level critical"
)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Send a marked test alert the way that a real one would go
    Test(TestArgs),
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Level {
    Informational,
    Low,
    Medium,
    High,
    Critical,
}

#[derive(Debug, clap::Args)]
struct TestArgs {
    #[command(flatten)]
    daemon: Daemon,
    /// The level that it pretends to have
    #[arg(long, value_enum, default_value = "high")]
    level: Level,
    /// The pillar that it pretends to belong to, for routes that ask
    #[arg(long)]
    pillar: Option<String>,
}

/// # Errors
/// The daemon can't be reached, or refuses.
pub fn run(args: &Args) -> Result<ExitCode> {
    let Action::Test(test) = &args.action;
    let level = format!("{:?}", test.level).to_lowercase();
    let answer = test.daemon.post("/api/test-alert", &json!({ "level": level, "pillar": test.pillar }).to_string())?;
    if let Some(accepted) = answer["accepted"].as_str() {
        println!("the {level} test alert is {}", crate::alert::escape::terminal(accepted));
        return Ok(ExitCode::SUCCESS);
    }
    let sinks: Vec<&str> = answer["sinks"].as_array().into_iter().flatten().filter_map(|sink| sink.as_str()).collect();
    if sinks.is_empty() {
        eprintln!("no route takes a {level} alert{}", test.pillar.as_ref().map(|p| format!(" of pillar {p}")).unwrap_or_default());
        return Ok(ExitCode::from(1));
    }
    println!("a {level} test alert is on its way to {}", sinks.join(", "));
    Ok(ExitCode::SUCCESS)
}
