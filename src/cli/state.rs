//! `state list|show`: a look at what a stopped daemon remembers, or a fleet, running or not.
//!
//! In: a state file or table, the rules that name its groups. Out: groups, positions, items on stdout. Invariant: no row is changed.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use serde_json::json;

use super::rules::{RuleArgs, counted, load};
use crate::alert::escape::terminal;
use crate::correlate::{Id, Node};
use crate::event::time;
use crate::lease::config::Config as Fleet;
use crate::lease::table::{Cost, Table};
use crate::metrics::Metrics;
use crate::position::Position;
use crate::store::keeper::{GroupView, groups, items};
use crate::store::{DynamoStore, EmbeddedStore, Store};

/// Shows what correlations remember: groups, their evidence, the positions.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden state list --state trailwarden.redb
  trailwarden state list --table trailwarden-state")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Positions, alerts on their way, and one line a group
    List {
        #[command(flatten)]
        common: Common,
    },
    /// The evidence of one group
    Show {
        /// The group as `list` names it; its first digits are enough
        group: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, clap::Args)]
struct Common {
    /// The daemon's state file, in place of the config's; the daemon must be stopped
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// The state table of a fleet, in place of the config's; it may be running
    #[arg(long, value_name = "NAME", conflicts_with = "state")]
    table: Option<String>,
    /// URL of another DynamoDB endpoint than AWS's
    #[arg(long, value_name = "URL", requires = "table")]
    endpoint: Option<String>,
    /// AWS region of the table; by default that of the environment or profile
    #[arg(long, requires = "table")]
    region: Option<String>,
    #[command(flatten)]
    rules: RuleArgs,
    /// Lines at most
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

/// What is looked at.
enum Kept {
    File(PathBuf),
    Table { name: String, fleet: Fleet },
}

impl Common {
    /// By `--state` or `--table`, else by the config.
    fn kept(&self) -> anyhow::Result<Kept> {
        if let Some(path) = &self.state {
            return Ok(Kept::File(path.clone()));
        }
        if let Some(name) = &self.table {
            // As `state.table` is named by default; only positions depend on it.
            let leases = name.strip_suffix("-State").unwrap_or(name);
            let fleet = Fleet { endpoint: self.endpoint.clone(), region: self.region.clone(), ..Fleet::new(leases) };
            return Ok(Kept::Table { name: name.clone(), fleet });
        }
        let path = self.rules.config.as_deref().context("whose state? Name --config FILE, --state FILE or --table NAME")?;
        let config = super::run::load(path)?;
        Ok(match config.leases {
            Some(fleet) => Kept::Table { name: config.state.table(&fleet.table), fleet },
            None => Kept::File(config.state.path),
        })
    }
}

/// # Errors
/// A file or table that isn't there, isn't ours, is damaged or in use; rules with errors; no group of that name.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (What::List { common } | What::Show { common, .. }) = &args.what;
    let kept = common.kept()?;
    let (detectors, _) = load(&common.rules)?;
    let nodes: HashMap<Id, &Node> = detectors.plan.nodes.iter().map(|node| (node.state, node)).collect();
    match kept {
        Kept::File(path) if !path.is_file() => {
            bail!("{}: there is no such file; it is `state.path` in the daemon's config", path.display())
        }
        Kept::File(path) => {
            let store = EmbeddedStore::open(&path)?;
            let positions = || Ok(store.positions()?.into_iter().map(|(shard, position)| (shard.to_string(), position)).collect());
            look(&args.what, &store, &nodes, positions)?;
        }
        Kept::Table { name, fleet } => {
            let runtime = tokio::runtime::Runtime::new()?;
            let store = DynamoStore::look(runtime.block_on(fleet.state_client()), &name)?;
            look(&args.what, &store, &nodes, || runtime.block_on(checkpoints(&fleet)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

type Positions = Vec<(String, Position)>;

/// Of a fleet they stand in the lease table.
async fn checkpoints(fleet: &Fleet) -> anyhow::Result<Positions> {
    let cost = Arc::new(Cost::new(&Metrics::new()));
    let leases = Table { client: fleet.client().await, name: fleet.table.clone(), cost };
    let rows = leases.leases().await.with_context(|| format!("the positions stand in the lease table `{}`", fleet.table))?;
    let mut positions: Positions = rows.into_iter().filter_map(|row| Some((row.key, row.checkpoint?))).collect();
    positions.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(positions)
}

fn look(what: &What, store: &dyn Store, nodes: &HashMap<Id, &Node>, positions: impl FnOnce() -> anyhow::Result<Positions>) -> anyhow::Result<()> {
    match what {
        What::List { common } => list(store, nodes, common, positions),
        What::Show { group, common } => show(store, nodes, group, common),
    }
}

fn list(store: &dyn Store, nodes: &HashMap<Id, &Node>, common: &Common, positions: impl FnOnce() -> anyhow::Result<Positions>) -> anyhow::Result<()> {
    let found = groups(store, common.limit)?;
    if common.format == Format::Json {
        for group in &found {
            println!(
                "{}",
                json!({
                    "group": group.group,
                    "rule": nodes.get(&group.state).map(|n| &n.rule),
                    "scope": group.scope,
                    "values": named(group, nodes),
                    "items": group.items,
                    "oldest": time::format(group.oldest_ms),
                    "newest": time::format(group.newest_ms),
                })
            );
        }
        return Ok(());
    }
    // Without its leases, the rest can still be shown.
    match positions() {
        Ok(positions) => positions.iter().for_each(|(shard, position)| println!("position  {}  {position:?}", terminal(shard))),
        Err(error) => eprintln!("no positions: {}", terminal(&format!("{error:#}"))),
    }
    println!("outbox    {} on their way", counted(store.outbox_len()?, "alert"));
    for group in &found {
        println!("{}  {}", group.group, line(group, nodes));
    }
    if found.len() == common.limit {
        println!("… the first {}; --limit shows more", common.limit);
    }
    Ok(())
}

fn named(group: &GroupView, nodes: &HashMap<Id, &Node>) -> Vec<(String, Option<String>)> {
    let names = nodes.get(&group.state).map(|n| n.group_by.as_slice()).unwrap_or_default();
    let name = |at: usize| names.get(at).cloned().unwrap_or_else(|| format!("field {}", at + 1));
    group.values.iter().enumerate().map(|(at, value)| (name(at), value.clone())).collect()
}

fn line(group: &GroupView, nodes: &HashMap<Id, &Node>) -> String {
    let title = nodes.get(&group.state).map_or("(a rule that isn't loaded)", |n| &n.meta.title.value);
    let values: Vec<String> = named(group, nodes).into_iter().map(|(name, value)| format!("{name}={}", value.as_deref().unwrap_or("null"))).collect();
    let text = format!(
        "{title}  {} {}  {}, {} to {}",
        group.scope,
        values.join(", "),
        counted(group.items as usize, "item"),
        time::format(group.oldest_ms),
        time::format(group.newest_ms)
    );
    terminal(&text).to_string()
}

fn show(store: &dyn Store, nodes: &HashMap<Id, &Node>, prefix: &str, common: &Common) -> anyhow::Result<()> {
    let mut found = groups(store, usize::MAX)?;
    found.retain(|group| group.group.starts_with(prefix));
    let group = match found.as_slice() {
        [] => bail!("no group begins with `{prefix}`; `trailwarden state list` names them"),
        [group] => group,
        several => bail!("{} begin with `{prefix}`; give more digits", counted(several.len(), "group")),
    };
    let node = nodes.get(&group.state).context("the group's rule isn't loaded; name its folder with --rules")?;
    let id = u128::from_str_radix(&group.group, 16).context("a group is 32 hex digits")?.to_be_bytes();
    if common.format == Format::Text {
        println!("{}", line(group, nodes));
    }
    for item in items(store, &id, node.values, common.limit)? {
        if common.format == Format::Json {
            let (at, event) = (time::format(item.time_ms), json!({"id": item.event_id, "source": item.source, "name": item.name}));
            println!("{}", json!({"time": at, "rule": item.tag, "value": item.value, "event": event}));
            continue;
        }
        let value = item.value.map(|v| format!("  value {v}")).unwrap_or_default();
        println!("{}", terminal(&format!("{}  {} {} {}{value}", time::format(item.time_ms), item.source, item.name, item.event_id)));
    }
    Ok(())
}
