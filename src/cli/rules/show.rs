//! `rules list|coverage|show`: what is loaded.
//!
//! In: rules. Out: tables, JSON or a rule's source on stdout. Invariant: what is listed as running runs in `scan` with the same
//! options.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::bail;
use serde_json::json;

use super::{RuleArgs, loaded};
use crate::rule::ast::Meta;
use crate::rule::coverage::{Coverage, coverage};
use crate::rule::diagnostic::nearest;
use crate::rule::{Loaded, Role};

/// Shows the rules that are loaded and what they cover.
#[derive(Debug, clap::Args)]
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
        What::List { rules, format } => list(&loaded(rules)?, *format),
        What::Coverage { rules, format } => cover(&coverage(&loaded(rules)?.set), *format)?,
        What::Show { rule, rules } => show(rule, &loaded(rules)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(loaded: &Loaded, format: Format) {
    for (meta, role) in loaded.set.metas() {
        match format {
            Format::Json => println!("{}", as_json(meta, role)),
            Format::Text => {
                let note = match role {
                    Role { runs: false, .. } => "  (off in this profile)",
                    Role { alerts: false, .. } => "  (only feeds correlations)",
                    _ => "",
                };
                println!("{:<13}  {:<36}  {}{note}", name_of(meta), meta.key(), meta.title.value);
            }
        }
    }
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

fn cover(coverage: &Coverage, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        println!("{}", serde_json::to_string(coverage)?);
        return Ok(());
    }
    print!("{}", matrix(coverage));
    Ok(())
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

fn show(name: &str, loaded: &Loaded) -> anyhow::Result<()> {
    let is =
        |meta: &&Meta| meta.title.value.eq_ignore_ascii_case(name) || meta.key() == name || meta.name.as_ref().is_some_and(|own| own.value == name);
    let metas = || loaded.set.metas().map(|(meta, _)| meta);
    let Some(meta) = metas().find(is) else {
        let known = metas().flat_map(|meta| [meta.key(), &meta.title.value]);
        match nearest(name, known) {
            Some(near) => bail!("no rule `{name}`; did you mean `{near}`?"),
            None => bail!("no rule `{name}`; `trailwarden rules list` names them"),
        }
    };
    let source = loaded.set.source(&meta.file);
    println!("# {}\n{}", meta.file, source[meta.span.start as usize..meta.span.end as usize].trim_end());
    Ok(())
}
