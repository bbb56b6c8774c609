//! `rules list|coverage|show`: what is loaded.
//!
//! In: rules. Out: tables, JSON or a rule's source on stdout. Invariant: what is listed as running runs in `scan` with the same
//! options.

use std::fmt::Write;
use std::process::ExitCode;

use serde_json::json;

use super::{RuleArgs, loaded, named};
use crate::cli::emit;
use crate::rule::ast::Meta;
use crate::rule::coverage::{Coverage, coverage};
use crate::rule::{Loaded, Role};

/// Shows the rules that are loaded and what they cover.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden rules list --profile quiet
  trailwarden rules coverage --rules builtin --rules my-rules/
  trailwarden rules show 'API call by an attack tool'")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// One line a rule: level, id, title
    List {
        #[command(flatten)]
        rules: RuleArgs,
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// How many rules watch each pillar of each service, and which MITRE techniques they name
    Coverage {
        #[command(flatten)]
        rules: RuleArgs,
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// A rule's source
    Show {
        /// Its id, name or title
        rule: String,
        #[command(flatten)]
        rules: RuleArgs,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

/// # Errors
/// Rules with errors, or no rule of that name.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.what {
        What::List { rules, format } => emit(&list(&loaded(rules)?, *format))?,
        What::Coverage { rules, format } => emit(&cover(&coverage(&loaded(rules)?.set), *format)?)?,
        What::Show { rule, rules } => emit(&show(rule, &loaded(rules)?)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(loaded: &Loaded, format: Format) -> String {
    let mut text = String::new();
    for (meta, role) in loaded.set.metas() {
        match format {
            Format::Json => {
                let _ = writeln!(text, "{}", as_json(meta, role));
            }
            Format::Text => {
                let note = match role {
                    Role { runs: false, .. } => "  (off in this profile)",
                    Role { alerts: false, .. } => "  (only feeds correlations)",
                    _ => "",
                };
                let _ = writeln!(text, "{:<13}  {:<36}  {}{note}", name_of(meta), meta.key(), meta.title.value);
            }
        }
    }
    text
}

fn name_of(meta: &Meta) -> String {
    format!("{:?}", meta.level).to_lowercase()
}

fn as_json(meta: &Meta, role: Role) -> serde_json::Value {
    let tags: Vec<_> = meta.tags.iter().map(|tag| &tag.value).collect();
    json!({
        "id": meta.key(), "title": meta.title.value, "level": meta.level, "tags": tags, "file": &*meta.file,
        "runs": role.runs, "alerts": role.alerts, "description": meta.description, "falsepositives": meta.false_positives,
        "next": meta.ext.next,
    })
}

fn cover(coverage: &Coverage, format: Format) -> anyhow::Result<String> {
    Ok(match format {
        Format::Json => serde_json::to_string(coverage)? + "\n",
        Format::Text => matrix(coverage),
    })
}

fn matrix(coverage: &Coverage) -> String {
    let pillars = coverage.pillars();
    let first = coverage.cells.keys().map(String::len).max().unwrap_or(0).max("service".len());
    let mut text = format!("{:<first$}", "service");
    pillars.iter().for_each(|pillar| text.push_str(&format!("  {pillar}")));
    text.push('\n');
    for (service, row) in &coverage.cells {
        let _ = write!(text, "{service:<first$}");
        for pillar in &pillars {
            let count = row.get(*pillar).map_or_else(|| "·".to_owned(), usize::to_string);
            let _ = write!(text, "  {count:>width$}", width = pillar.len());
        }
        text.push('\n');
    }
    let _ = writeln!(text, "\n{} detectors, {} MITRE techniques:", coverage.detectors, coverage.parents().len());
    let techniques: Vec<_> = coverage.techniques.iter().map(|(technique, count)| format!("{technique} ({count})")).collect();
    techniques.chunks(8).for_each(|line| {
        let _ = writeln!(text, "  {}", line.join("  "));
    });
    if !coverage.untagged.is_empty() {
        let _ = writeln!(text, "\nwithout a pillar.* or service.* tag: {}", coverage.untagged.len());
    }
    text
}

fn show(name: &str, loaded: &Loaded) -> anyhow::Result<String> {
    let meta = named(name, &loaded.set)?;
    let source = loaded.set.source(&meta.file);
    Ok(format!("# {}\n{}\n", meta.file, source[meta.span.start as usize..meta.span.end as usize].trim_end()))
}
