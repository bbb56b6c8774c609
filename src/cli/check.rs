//! `check`: everything that is wrong or odd about rules, offline.
//!
//! In: folders of rules, a config. Out: findings on stderr, a summary on stdout. Invariant: whatever passes here loads in `scan` and `run`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::emit;
use super::rules::{colour, counted, inputs, unfit};
use crate::config::unused_lists;
use crate::pipeline::Detectors;
use crate::rule::ast::Profile;
use crate::rule::{self, Lists, Options};

/// Checks rules: errors that would stop a start, and warnings about rules that can't mean what they say.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden check my-rules/
  trailwarden check --config trailwarden.yml --strict --short

Exit codes: 0 no error, 1 warnings with --strict, 2 errors.")]
pub struct Args {
    /// Folders or files of rules; `builtin` names the built-in ones, as does leaving them out
    #[arg(value_name = "DIR")]
    rules: Vec<PathBuf>,
    /// Checks this config too, with its lists and, unless a DIR is named, its folders of rules
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Warnings make exit code 1
    #[arg(long)]
    strict: bool,
    /// One line a finding: file:line:column: message
    #[arg(long)]
    short: bool,
}

/// # Errors
/// A config with errors, or stdout that can't be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let wanted = match &args.config {
        Some(path) => super::run::load(path)?.rules,
        None => crate::config::Rules::default(),
    };
    let folders = if args.rules.is_empty() { &wanted.folders } else { &args.rules };
    // All profiles: a rule that does not run today is checked too.
    let options = Options { lists: Lists::new(wanted.lists.clone()), profile: Profile::Paranoid };
    let mut loaded = rule::load(&inputs(folders), &options);
    if !loaded.has_errors() {
        let errors = Detectors::new(&loaded.set).err().unwrap_or_default();
        loaded.diagnostics.extend(unfit(errors));
    }
    loaded.diagnostics.extend(rule::lint(&loaded.set));
    // Empty where none is named: rules alone are checked.
    let (config, text) = match &args.config {
        Some(path) => (path.display().to_string(), std::fs::read_to_string(path)?),
        None => Default::default(),
    };
    loaded.diagnostics.extend(unused_lists(&config, &text, &wanted.lists, &loaded.set));
    let errors = loaded.diagnostics.iter().filter(|found| found.is_error()).count();
    let warnings = loaded.diagnostics.len() - errors;
    for found in &loaded.diagnostics {
        let source = if *found.file == *config { &text } else { loaded.set.source(&found.file) };
        if args.short { eprintln!("{}", found.one_line(source)) } else { eprintln!("{}\n", found.render(source, colour())) }
    }
    emit(&format!(
        "{}, {}, {}: {}, {}\n",
        counted(loaded.set.rules.len(), "rule"),
        counted(loaded.set.correlations.len(), "correlation"),
        counted(loaded.set.filters.len(), "filter"),
        counted(errors, "error"),
        counted(warnings, "warning")
    ))?;
    Ok(match (errors, warnings) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(u8::from(args.strict)),
        _ => ExitCode::from(2),
    })
}
