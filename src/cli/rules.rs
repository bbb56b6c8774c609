//! Loads rules for every command, and tells what is wrong with them.
//!
//! In: `--rules`. Out: a linked and compiled set, or everything that is wrong. Invariant: a broken rule stops the command.

pub mod show;

use std::path::PathBuf;

use anyhow::bail;

use crate::config::{Config, Logs};
use crate::pipeline::{Detectors, Unfit};
use crate::rule::ast::{Meta, Profile};
use crate::rule::diagnostic::{Diagnostic, Severity, nearest};
use crate::rule::{self, Input, Lists, Loaded, Options, RuleSet};

/// Options of every command that runs rules.
#[derive(Debug, Clone, clap::Args)]
pub struct RuleArgs {
    /// Folder or file of rules in place of the built-in ones; `builtin` names those (repeatable)
    #[arg(long = "rules", value_name = "DIR")]
    pub rules: Vec<PathBuf>,
    /// How loud: pages only, the usual, or everything [default: the config's, or else standard]
    #[arg(long, value_enum, hide_default_value = true)]
    pub profile: Option<ProfileArg>,
    /// Runs the rules as this config of `run` does: with its lists, its profile and, without --rules, its folders
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl RuleArgs {
    fn config(&self) -> anyhow::Result<Option<Config>> {
        self.config.as_deref().map(super::run::load).transpose()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ProfileArg {
    Quiet,
    Standard,
    Paranoid,
}

impl From<ProfileArg> for Profile {
    fn from(profile: ProfileArg) -> Self {
        match profile {
            ProfileArg::Quiet => Profile::Quiet,
            ProfileArg::Standard => Profile::Standard,
            ProfileArg::Paranoid => Profile::Paranoid,
        }
    }
}

/// As on the command line: nothing means the built-in detectors.
pub fn inputs(arguments: &[PathBuf]) -> Vec<Input> {
    if arguments.is_empty() { vec![Input::Builtin] } else { arguments.iter().map(|a| Input::from_argument(a)).collect() }
}

/// Loads and links. Errors are shown whole, on stderr; warnings are left to `check`.
///
/// # Errors
/// How many errors there were, in the rules or in the config.
pub fn loaded(arguments: &RuleArgs) -> anyhow::Result<Loaded> {
    wanted(arguments, arguments.config()?.map(|config| config.rules).unwrap_or_default())
}

fn wanted(arguments: &RuleArgs, wanted: crate::config::Rules) -> anyhow::Result<Loaded> {
    let folders = if arguments.rules.is_empty() { &wanted.folders } else { &arguments.rules };
    let profile = arguments.profile.map_or_else(|| wanted.profile.into(), Profile::from);
    let loaded = rule::load(&inputs(folders), &Options { lists: Lists::new(wanted.lists), profile });
    without_errors(loaded)
}

fn without_errors(mut loaded: Loaded) -> anyhow::Result<Loaded> {
    loaded.diagnostics.retain(Diagnostic::is_error);
    if loaded.has_errors() {
        eprintln!("{}\n", loaded.render(colour()));
        bail!("{} in the rules; `trailwarden check` shows the warnings too", counted(loaded.diagnostics.len(), "error"));
    }
    Ok(loaded)
}

/// Loads and compiles, and says how logs are written.
///
/// # Errors
/// How many errors there were; they are on stderr.
pub fn load(arguments: &RuleArgs) -> anyhow::Result<(Detectors, Logs)> {
    let (rules, logs) = arguments.config()?.map(|config| (config.rules, config.logs)).unwrap_or_default();
    let mut loaded = wanted(arguments, rules)?;
    match Detectors::new(&loaded.set) {
        Ok(detectors) => Ok((detectors, logs)),
        Err(errors) => {
            loaded.diagnostics = unfit(errors);
            without_errors(loaded).and_then(|_| bail!("rules that can't be compiled"))
        }
    }
}

/// Rules that can't be compiled, as findings.
pub fn unfit(errors: Vec<Unfit>) -> Vec<Diagnostic> {
    let found = |error: Unfit| Diagnostic { severity: Severity::Error, message: error.to_string(), file: error.file, span: error.span, hint: None };
    errors.into_iter().map(found).collect()
}

/// The same, for people.
pub fn told(errors: Vec<Unfit>, set: &RuleSet) -> String {
    let told: Vec<_> = unfit(errors).iter().map(|found| found.render(set.source(&found.file), colour())).collect();
    told.join("\n\n")
}

/// The rule or correlation of this id, name or title.
///
/// # Errors
/// None has it.
pub fn named<'s>(name: &str, set: &'s RuleSet) -> anyhow::Result<&'s Meta> {
    let is =
        |meta: &&Meta| meta.title.value.eq_ignore_ascii_case(name) || meta.key() == name || meta.name.as_ref().is_some_and(|own| own.value == name);
    let metas = || set.metas().map(|(meta, _)| meta);
    metas().find(is).ok_or_else(|| match nearest(name, metas().flat_map(|meta| [meta.key(), &meta.title.value])) {
        Some(near) => anyhow::anyhow!("no rule `{name}`; did you mean `{near}`?"),
        None => anyhow::anyhow!("no rule `{name}`; `trailwarden rules list` names them"),
    })
}

/// Whether stderr takes colours.
pub fn colour() -> bool {
    super::takes_colour(&std::io::stderr())
}

/// `1 error`, `2 errors`.
pub fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
