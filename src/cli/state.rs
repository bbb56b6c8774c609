//! `state list|show`: a look at what a stopped daemon remembers.
//!
//! In: a state file, the rules that name its groups. Out: groups, positions, items on stdout. Invariant: no row is changed.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::json;

use super::rules::{RuleArgs, counted, load};
use crate::alert::escape::terminal;
use crate::correlate::{Id, Node};
use crate::event::time;
use crate::store::keeper::{GroupView, groups, items};
use crate::store::{EmbeddedStore, Store};

/// Shows what correlations remember: groups, their evidence, the positions.
#[derive(Debug, clap::Args)]
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
    /// The daemon's state file; the daemon must be stopped
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
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

/// # Errors
/// A file that isn't there, isn't ours, is damaged or in use; rules with errors; no group of that name.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (What::List { common } | What::Show { common, .. }) = &args.what;
    if !common.state.is_file() {
        bail!("{}: there is no such file; it is `state` in the daemon's configuration", common.state.display());
    }
    let (detectors, _) = load(&common.rules)?;
    let nodes: HashMap<Id, &Node> = detectors.plan.nodes.iter().map(|node| (node.state, node)).collect();
    let store = EmbeddedStore::open(&common.state)?;
    match &args.what {
        What::List { .. } => list(&store, &nodes, common)?,
        What::Show { group, .. } => show(&store, &nodes, group, common)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(store: &dyn Store, nodes: &HashMap<Id, &Node>, common: &Common) -> anyhow::Result<()> {
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
    for (shard, position) in store.positions()? {
        println!("position  {}  {position:?}", terminal(&shard.to_string()));
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
