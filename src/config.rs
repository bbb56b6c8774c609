//! One YAML file: the tree of every module's own `Config`.
//!
//! In: a file. Out: `Config`, or everything that is wrong with file, line and column. Invariant: values of `${NAME}` and
//! `${file:PATH}` are in no message.

pub mod reference;
pub mod schema;
mod tree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::decode::log::FlowFormat;
use crate::rule::ast::Profile;
use crate::rule::diagnostic::{Diagnostic, Report, nearest, shorten};
use crate::rule::{IMPLICIT_LISTS, RuleSet};
use crate::sink::SinkError;
use crate::{admin, deliver, lease, route, sink, source, store};

/// The whole file.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The streams to read.
    pub kinesis: source::kinesis::Config,
    /// Shares the streams with other workers by leases in DynamoDB; without it this process reads them alone.
    #[serde(default)]
    pub leases: Option<lease::config::Config>,
    /// Which detectors run.
    #[serde(default)]
    pub rules: Rules,
    /// How logs are written, where their lines don't say it.
    #[serde(default)]
    pub logs: Logs,
    /// What survives a restart, and its bounds.
    #[serde(default)]
    pub state: State,
    /// Where alerts go, by name.
    #[serde(default)]
    pub sinks: BTreeMap<String, sink::Config>,
    /// Which alerts go where; without routes, all go to all sinks.
    #[serde(default)]
    pub routing: route::Config,
    /// How alerts are told.
    #[serde(default)]
    pub delivery: deliver::Config,
    /// The status page, the API and the metrics.
    #[serde(default)]
    pub admin: admin::Config,
    /// Threads that decode and match; by default one for each core.
    #[serde(default)]
    pub workers: Option<usize>,
}

#[derive(Debug, Default, Clone, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// `builtin` and folders of your own; by default the built-in detectors. A later rule replaces an earlier one of the same id.
    pub folders: Vec<PathBuf>,
    /// How loud: `quiet` (pages only), `standard` or `paranoid`.
    pub profile: ProfileWord,
    /// Values of the placeholders in rules: `own_accounts`, `own_networks`, `break_glass_roles`, `automation_principals`, …
    pub lists: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Logs {
    /// The fields of VPC flow logs, in the order in which your format has them, such as `version srcaddr dstaddr action`; by default
    /// those of version 2, and of a file with a header line those that it names.
    #[schemars(with = "Option<String>")]
    pub flow_format: Option<FlowFormat>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProfileWord {
    Quiet,
    #[default]
    Standard,
    Paranoid,
}

impl From<ProfileWord> for Profile {
    fn from(word: ProfileWord) -> Self {
        match word {
            ProfileWord::Quiet => Profile::Quiet,
            ProfileWord::Standard => Profile::Standard,
            ProfileWord::Paranoid => Profile::Paranoid,
        }
    }
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct State {
    /// The file that holds evidence, alerts on their way and positions. One process at a time. A fleet (`leases`) has `table` instead.
    pub path: PathBuf,
    /// Of a fleet: the DynamoDB table that holds evidence, incidents, alerts on their way and what delivery keeps, shared by all
    /// workers; by default the lease table's name with `-State`. It is made on demand where it is missing.
    pub table: Option<String>,
    /// Memory of what correlations look at, in bytes; what exceeds it lives in the file.
    pub memory_bytes: u64,
    /// Items that one rule may keep of one account.
    pub quota_items: u64,
    /// How late an event may come and still count, in seconds.
    pub lateness_seconds: u64,
    /// How long after its end a window with an upper bound is judged, in seconds.
    pub settle_seconds: u64,
}

impl Default for State {
    fn default() -> Self {
        let limits = store::keeper::Limits::default();
        Self {
            path: PathBuf::from("trailwarden.redb"),
            table: None,
            memory_bytes: limits.budget_bytes,
            quota_items: limits.quota_items,
            lateness_seconds: (limits.lateness_ms / 1000) as u64,
            settle_seconds: (limits.settle_ms / 1000) as u64,
        }
    }
}

impl State {
    /// The table of a fleet whose leases stand in `lease_table`.
    pub fn table(&self, lease_table: &str) -> String {
        self.table.clone().unwrap_or_else(|| format!("{lease_table}-State"))
    }

    pub fn limits(&self) -> store::keeper::Limits {
        store::keeper::Limits {
            budget_bytes: self.memory_bytes,
            quota_items: self.quota_items,
            lateness_ms: i64::try_from(self.lateness_seconds).unwrap_or(i64::MAX / 1000).saturating_mul(1000),
            settle_ms: i64::try_from(self.settle_seconds).unwrap_or(i64::MAX / 1000).saturating_mul(1000),
        }
    }
}

/// What is wrong, with the text that it is about.
#[derive(Debug)]
pub struct Wrong {
    pub text: String,
    pub found: Vec<Diagnostic>,
}

/// Reads and checks a file.
///
/// # Errors
/// Every finding, with its place.
pub fn load(path: &Path) -> Result<Config, Wrong> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&path.display().to_string(), &text, &|name| std::env::var(name).ok()),
        Err(error) => {
            let mut report = Report::new(path.display().to_string().into());
            report.error(Default::default(), format!("the config can't be read: {error}"));
            Err(Wrong { text: String::new(), found: report.found })
        }
    }
}

/// `variables` looks up `${NAME}`.
///
/// # Errors
/// Every finding, with its place.
pub fn parse(name: &str, text: &str, variables: &dyn Fn(&str) -> Option<String>) -> Result<Config, Wrong> {
    let mut report = Report::new(name.into());
    let config = tree::read::<Config>(text, variables, &mut report);
    if let Some(config) = &config {
        check(config, text, &mut report);
    }
    match config {
        Some(config) if report.error_count() == 0 => Ok(config),
        _ => Err(Wrong { text: text.to_owned(), found: report.found }),
    }
}

/// What types can't say.
fn check(config: &Config, text: &str, report: &mut Report) {
    let place = |key: &str| tree::place(text, &[key]);
    if config.kinesis.streams.is_empty() {
        report.error_hint(place("kinesis"), "no stream to read", "name at least one under `kinesis.streams`");
    }
    if let Some(fleet) = &config.leases
        && let Err(why) = fleet.check()
    {
        report.error_hint(place("leases"), why, "the default of 10000 suits most fleets");
    }
    if config.leases.is_none() && config.state.table.is_some() {
        report.error_hint(place("state"), "`state.table` is a fleet's, and there are no `leases`", "add `leases: {table: …}`, or name a `path`");
    }
    let names: Vec<&String> = config.sinks.keys().collect();
    if let Err(error) = route::Router::new(&config.routing, &names) {
        report.error(place("routing"), error.to_string());
    }
    for (name, sink) in &config.sinks {
        if let Err(error) = sink::Sink::check(name, sink) {
            let SinkError::Config { key, .. } = &error;
            let path: Vec<&str> = ["sinks", name].into_iter().chain(key.split('.')).collect();
            report.error(tree::place(text, &path), error.to_string());
        }
    }
    if let Some(fallback) = config.delivery.fallback.as_ref().filter(|name| !config.sinks.contains_key(*name)) {
        report.error(place("delivery"), format!("delivery.fallback: no sink is called `{fallback}`"));
    }
    if config.workers == Some(0) {
        report.error_hint(place("workers"), "no worker would decode anything", "leave the key out for one worker a core");
    }
}

/// Warns of lists that no rule of the set names: nothing comes of their values. `name`, `text`: the file that `lists` are from.
pub fn unused_lists(name: &str, text: &str, lists: &BTreeMap<String, Vec<String>>, set: &RuleSet) -> Vec<Diagnostic> {
    let mut used = set.lists();
    used.extend(IMPLICIT_LISTS);
    let mut report = Report::new(name.into());
    for list in lists.keys().filter(|list| !used.contains(list.as_str())) {
        let near = nearest(list, used.iter().copied().filter(|name| !lists.contains_key(*name)));
        let hint = near.map_or_else(
            || "remove it, or name it in a rule, between `%` under a key with `|expand`".into(),
            |near| format!("did you mean `{near}`?"),
        );
        report.warn(tree::place(text, &["rules", "lists", list]), format!("no rule uses the list `{}`", shorten(list)), hint);
    }
    report.found
}

#[cfg(test)]
mod tests;
