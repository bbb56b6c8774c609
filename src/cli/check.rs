//! `check`: everything that is wrong or odd about rules, offline.
//!
//! In: folders of rules. Out: findings on stderr, a summary on stdout. Invariant: whatever passes here loads in `scan` and `run`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::emit;
use super::rules::{colour, counted, inputs, unfit};
use crate::pipeline::Detectors;
use crate::rule::ast::Profile;
use crate::rule::{self, Options};

/// Checks rules: errors that would stop a start, and warnings about rules that can't mean what they say.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 no error, 1 warnings with --strict, 2 errors.")]
pub struct Args {
    /// Folders or files of rules; `builtin` names the built-in ones, as does leaving them out
    #[arg(value_name = "DIR")]
    rules: Vec<PathBuf>,
    /// Warnings make exit code 1
    #[arg(long)]
    strict: bool,
    /// One line a finding: file:line:column: message
    #[arg(long)]
    short: bool,
}

/// # Errors
/// stdout that can't be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    // All profiles: a rule that does not run today is checked too.
    let mut loaded = rule::load(&inputs(&args.rules), &Options { profile: Profile::Paranoid, ..Options::default() });
    if !loaded.has_errors() {
        let errors = Detectors::new(&loaded.set).err().unwrap_or_default();
        loaded.diagnostics.extend(unfit(errors));
    }
    loaded.diagnostics.extend(rule::lint(&loaded.set));
    let errors = loaded.diagnostics.iter().filter(|found| found.is_error()).count();
    let warnings = loaded.diagnostics.len() - errors;
    for found in &loaded.diagnostics {
        let source = loaded.set.source(&found.file);
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
