//! `run`: the daemon.
//!
//! In: a config file. Out: alerts at their sinks, until SIGTERM. Invariant: what is wrong with the config or the rules is told
//! before anything is read.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use tokio::sync::watch;

use super::rules;
use super::service::{Service, stop_signal};
use crate::config::{self, Config};
use crate::pipeline::Detectors;
use crate::rule::{Lists, Options};

/// Reads the streams of the config and alerts, until SIGTERM. SIGHUP or a changed rules folder loads the rules anew.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  trailwarden run --config /etc/trailwarden.yml

A least config:
  kinesis: {streams: [audit]}
  sinks: {pager: {pagerduty: {routing_key: '${PAGERDUTY_KEY}'}}}")]
pub struct Args {
    /// The config file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// # Errors
/// A config, rules or a state file that can't be used; a store that fails.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = load(&args.config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(serve(config));
    // A call that hangs does not hold the process.
    runtime.shutdown_background();
    ended.map(|()| ExitCode::SUCCESS)
}

/// The config, or its errors on stderr.
///
/// # Errors
/// How many errors there are.
pub fn load(path: &std::path::Path) -> anyhow::Result<Config> {
    config::load(path).map_err(|wrong| {
        wrong.found.iter().for_each(|d| eprintln!("{}", d.render(&wrong.text, rules::colour())));
        anyhow::anyhow!("{} in the config", rules::counted(wrong.found.len(), "error"))
    })
}

/// The detectors that a config asks for.
///
/// # Errors
/// Rule errors, whole.
pub fn detectors(wanted: &config::Rules) -> anyhow::Result<Detectors> {
    let options = Options { lists: Lists::new(wanted.lists.clone()), profile: wanted.profile.into() };
    let mut loaded = crate::rule::load(&rules::inputs(&wanted.folders), &options);
    loaded.diagnostics.retain(crate::rule::diagnostic::Diagnostic::is_error);
    if loaded.has_errors() {
        bail!("{}", loaded.render(false));
    }
    Detectors::new(&loaded.set).map_err(|unfit| anyhow::anyhow!("rules that can't run:\n{}", rules::told(unfit, &loaded.set)))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let (reload, current) = watch::channel(Arc::new(detectors(&config.rules)?));
    let rules_config = config.rules.clone();
    let service = Service::start(config, current).await?;
    tracing::info!(address = %service.address, "the status page, the API and the metrics are served");
    super::reload::start(rules_config, reload, service.board.clone(), service.metrics.clone())?;
    let tally = service.finish(stop_signal()).await?;
    tracing::info!(events = tally.events, matched = tally.matched, quarantined = tally.quarantined, "ended in order");
    Ok(())
}
