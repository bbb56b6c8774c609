//! Loads rules for every command, and tells what is wrong with them.
//!
//! In: `--rules`. Out: a compiled set, or everything that is wrong. Invariant: a broken rule stops the command.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};

use crate::pipeline::RuleSet;
use crate::rule::Lists;
use crate::rule::ast::Document;
use crate::rule::sigma;

pub fn load(folders: &[PathBuf]) -> anyhow::Result<RuleSet> {
    let built_in = [PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/detectors"))];
    let folders = if folders.is_empty() { &built_in[..] } else { folders };
    let mut rules = Vec::new();
    let mut errors = 0;
    for path in crate::source::files::walk(folders)?.iter().filter(|p| is_rule(p)) {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let parsed = sigma::parse(&Arc::from(path.display().to_string()), &text, &Lists::default());
        for diagnostic in parsed.diagnostics.iter().filter(|d| d.is_error()) {
            errors += 1;
            eprintln!("{}", diagnostic.render(&text, false));
        }
        rules.extend(parsed.documents.into_iter().filter_map(|d| match d {
            Document::Rule(rule) => Some(rule),
            _ => None,
        }));
    }
    if errors > 0 {
        bail!("{errors} errors in the rules");
    }
    RuleSet::new(rules).map_err(|errors| anyhow::anyhow!("{errors:?}"))
}

fn is_rule(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    (name.ends_with(".yml") || name.ends_with(".yaml")) && !name.ends_with(".cases.yml")
}
