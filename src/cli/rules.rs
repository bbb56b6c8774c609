//! Loads rules for every command, and tells what is wrong with them.
//!
//! In: `--rules`. Out: a linked and compiled set, or everything that is wrong. Invariant: a broken rule stops the command.

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::bail;

use crate::pipeline::{Detectors, Unfit};
use crate::rule::ast::Profile;
use crate::rule::{self, Input, Options};

/// Options of every command that runs rules.
#[derive(Debug, Clone, clap::Args)]
pub struct RuleArgs {
    /// Folder or file of rules in place of the built-in ones; `builtin` names those (repeatable)
    #[arg(long = "rules", value_name = "DIR")]
    pub rules: Vec<PathBuf>,
    /// How loud: pages only, the usual, or everything
    #[arg(long, value_enum, default_value_t = ProfileArg::Standard)]
    pub profile: ProfileArg,
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

/// Loads and compiles. Errors are shown whole, on stderr.
///
/// # Errors
/// How many errors there were.
pub fn load(arguments: &RuleArgs) -> anyhow::Result<Detectors> {
    let options = Options { profile: arguments.profile.into(), ..Options::default() };
    let mut loaded = rule::load(&inputs(&arguments.rules), &options);
    loaded.diagnostics.retain(rule::diagnostic::Diagnostic::is_error);
    if loaded.has_errors() {
        eprintln!("{}\n", loaded.render(colour()));
        bail!("{} in the rules; `trailwarden check` shows the warnings too", counted(loaded.diagnostics.len(), "error"));
    }
    Detectors::new(&loaded.set).map_err(|unfit| anyhow::anyhow!("rules that can't run:{}", told(&unfit, &loaded.set)))
}

/// One line each.
pub fn told(unfit: &[Unfit], set: &rule::RuleSet) -> String {
    let line = |u: &Unfit| {
        let (line, column) = rule::diagnostic::line_and_column(set.source(&u.file), u.span.start as usize);
        format!("\n{}:{line}:{column}: {u}", u.file)
    };
    unfit.iter().map(line).collect()
}

/// Whether stderr takes colours.
pub fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// `1 error`, `2 errors`.
pub fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
