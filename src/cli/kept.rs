//! `trailwarden quarantine` and `trailwarden dead-letter`: what was kept aside, listed, shown and tried again.
//!
//! In: the daemon's API. Out: a table, one row's JSON, or what became of a replay. Invariant: what is shown is redacted and harmless
//! on a terminal.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use serde_json::Value;

use super::client::{Daemon, segment};
use crate::{alert::escape::terminal, sink::form::rfc3339};

/// Records that could not be decoded: list, show, decode again.
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Examples:
  trailwarden quarantine list
  trailwarden quarantine replay --all"
)]
pub struct QuarantineArgs {
    #[command(subcommand)]
    action: Action,
}

/// Alerts that a sink refused for good: list, show, send again.
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    after_help = "Examples:
  trailwarden dead-letter list
  trailwarden dead-letter replay --all"
)]
pub struct DeadLetterArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// One line each
    List {
        #[command(flatten)]
        daemon: Daemon,
    },
    /// One of them, whole but redacted, as JSON
    Show {
        id: String,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Try one again, or all
    Replay {
        #[arg(required_unless_present = "all")]
        id: Option<String>,
        #[arg(long, conflicts_with = "id")]
        all: bool,
        #[command(flatten)]
        daemon: Daemon,
    },
}

/// # Errors
/// The daemon can't be reached, or refuses.
pub fn quarantine(args: &QuarantineArgs) -> Result<ExitCode> {
    let columns = |row: &Value| vec![row["source"].clone(), row["position"].clone(), row["length"].clone(), row["reason"].clone()];
    run(&args.action, "/api/quarantine", columns)
}

/// # Errors
/// The daemon can't be reached, or refuses.
pub fn dead_letter(args: &DeadLetterArgs) -> Result<ExitCode> {
    let columns = |row: &Value| {
        vec![row["sink"].clone(), row["notice"]["incident"].clone(), row["notice"]["alert"]["rule"]["title"].clone(), row["why"].clone()]
    };
    run(&args.action, "/api/dead-letters", columns)
}

fn run(action: &Action, path: &str, columns: impl Fn(&Value) -> Vec<Value>) -> Result<ExitCode> {
    match action {
        Action::List { daemon } => {
            for row in rows(daemon, path)? {
                let at = rfc3339(row["at_ms"].as_i64().unwrap_or(0));
                let cells: Vec<String> = columns(&row).iter().map(plain).collect();
                println!("{}  {at}  {}", plain(&row["id"]), cells.join("  "));
            }
        }
        Action::Show { id, daemon } => {
            let row = daemon.get(&format!("{path}/{}", segment(id)))?;
            println!("{}", crate::alert::escape::json(serde_json::to_string(&row)?));
        }
        Action::Replay { id, daemon, .. } => {
            let ids: Vec<String> = match id {
                Some(id) => vec![id.clone()],
                None => rows(daemon, path)?.iter().map(|row| plain(&row["id"])).collect(),
            };
            let mut failed = false;
            for id in ids {
                match daemon.post(&format!("{path}/{}/replay", segment(&id)), "") {
                    Ok(answer) => match answer["still"].as_str() {
                        Some(why) => {
                            failed = true;
                            println!("{id}  still can't be decoded: {}", terminal(why));
                        }
                        None => println!("{id}  {}", told(&answer)),
                    },
                    Err(error) => {
                        failed = true;
                        eprintln!("{id}  {error:#}");
                    }
                }
            }
            if failed {
                return Ok(ExitCode::from(1));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn told(answer: &Value) -> String {
    if let Some(accepted) = answer["accepted"].as_str() {
        return terminal(accepted).into_owned();
    }
    match answer["events"].as_u64() {
        Some(events) => format!("decoded: {events} events, {} findings", answer["findings"]),
        None => "queued for its sink again".into(),
    }
}

fn rows(daemon: &Daemon, path: &str) -> Result<Vec<Value>> {
    Ok(daemon.get(path)?.as_array().cloned().unwrap_or_default())
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => terminal(text).into_owned(),
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}
