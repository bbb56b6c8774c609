//! `trailwarden healthcheck`: asks the daemon on this machine whether it is well, for a container that has no curl.
//!
//! In: an address. Out: exit 0 or 1. Invariant: it ends within some seconds whatever the daemon does.

use std::process::ExitCode;

use anyhow::Result;

use super::client::Daemon;

/// Ask a running daemon whether it is well: exit 0 or 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example, in an ECS task definition:\n  \"healthCheck\": { \"command\": [\"CMD\", \"/trailwarden\", \"healthcheck\"] }")]
pub struct Args {
    #[command(flatten)]
    daemon: Daemon,
    /// Ask whether it is ready: rules loaded, leases held, not draining
    #[arg(long)]
    ready: bool,
}

/// # Errors
/// None: what goes wrong is a failed check, said on stderr.
pub fn run(args: &Args) -> Result<ExitCode> {
    match args.daemon.probe(if args.ready { "/readyz" } else { "/healthz" }) {
        Ok((200, _)) => Ok(ExitCode::SUCCESS),
        Ok((status, text)) => {
            eprintln!("answered {status}: {}", crate::alert::escape::terminal(text.trim()));
            Ok(ExitCode::from(1))
        }
        Err(error) => {
            eprintln!("{error:#}");
            Ok(ExitCode::from(1))
        }
    }
}
