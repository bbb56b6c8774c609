//! `explain`: why a rule did or did not match, line by line.
//!
//! In: a rule's name and files of events. Out: for some events each line of the rule, the values it saw, and whether it held.
//! Invariant: memory stays bounded however many events there are.

mod probe;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::emit;
use super::rules::{RuleArgs, counted, loaded, named};
use crate::alert::escape;
use crate::decode::{Decoder, Item, Progress, Stream};
use crate::rule::ast::{Condition, Rule};
use crate::rule::{LinkedRule, RuleSet};
use crate::source::files::{self, Pieces};
use probe::{Probe, Shape, Verdict};

/// Shows why a rule did or did not match events, condition by condition.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  trailwarden explain --rule 'API call by an attack tool' events.json

Shown are the first events that match and those that came nearest. Exit codes: 0 done, 2 usage or rule error.")]
pub struct Args {
    /// The rule's id, name or title
    #[arg(long, value_name = "ID")]
    rule: String,
    /// Files and folders of events, in any wrapping; `-` is stdin
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Events shown of each kind, matches and misses
    #[arg(long, value_name = "N", default_value_t = 3)]
    limit: usize,
    #[command(flatten)]
    rules: RuleArgs,
}

/// What is kept of the input.
#[derive(Default)]
struct Kept {
    limit: usize,
    matches: Vec<(Verdict, String)>,
    /// Nearest first.
    misses: Vec<(usize, Verdict, String)>,
    matched: u64,
    judged: u64,
    other: u64,
    broken: u64,
}

/// # Errors
/// No such rule, rules with errors, or files that can't be read.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let loaded = loaded(&args.rules)?;
    let rule = find(&args.rule, &loaded.set)?;
    let mut probe = match Probe::new(rule, &loaded.set.own_accounts) {
        Ok(probe) => probe,
        Err(errors) => bail!("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    };
    let mut kept = Kept { limit: args.limit, ..Kept::default() };
    for path in files::walk(&args.paths)? {
        read(&path, &mut probe, &mut kept).with_context(|| path.display().to_string())?;
    }
    kept.misses = nearest(kept.misses);
    let mut page = Page { text: String::new(), colour: super::takes_colour(&std::io::stdout()) };
    page.write(rule, &probe, &kept, &loaded.set);
    emit(&page.text)?;
    Ok(ExitCode::SUCCESS)
}

fn find<'s>(name: &str, set: &'s RuleSet) -> anyhow::Result<&'s Rule> {
    let meta = named(name, set)?;
    let is = |linked: &&LinkedRule| std::ptr::eq(&linked.rule.meta, meta);
    if let Some(linked) = set.rules.iter().find(is) {
        return Ok(&linked.rule);
    }
    let correlation = set.correlations.iter().find(|linked| std::ptr::eq(&linked.correlation.meta, meta));
    let rules: Vec<_> = correlation.iter().flat_map(|linked| &linked.correlation.rules).map(|rule| rule.value.as_str()).collect();
    bail!("`{name}` is a correlation; explain the rules that it looks at: {}", rules.join(", "))
}

fn read(path: &Path, probe: &mut Probe, kept: &mut Kept) -> anyhow::Result<()> {
    let mut pieces = Pieces::open(path)?;
    let (mut decoder, mut stream) = (Decoder::default(), Stream::default());
    let name = path.display().to_string();
    loop {
        let more = pieces.more();
        let (piece, last) = pieces.piece();
        let length = piece.len();
        let progress = decoder.piece(piece, &mut stream, last || length >= files::MAX_PIECE_BYTES, &mut |item| match item {
            Item::Event(event) => match probe.judge(&event) {
                Some(verdict) => kept.take(verdict, probe, &name),
                None => kept.other += 1,
            },
            Item::Left(_) => kept.other += 1,
            Item::Defect(_) => kept.broken += 1,
        });
        pieces.consume(match progress {
            Progress::Done => length,
            Progress::NeedMore { at } => at,
        });
        if !more? || last {
            return Ok(());
        }
    }
}

impl Kept {
    fn take(&mut self, verdict: Verdict, probe: &Probe, file: &str) {
        self.judged += 1;
        if verdict.matched {
            self.matched += 1;
            if self.matches.len() < self.limit {
                self.matches.push((verdict, file.to_owned()));
            }
            return;
        }
        let score = probe.score(&verdict);
        let at = self.misses.partition_point(|(kept, ..)| *kept >= score);
        if at < self.limit {
            self.misses.insert(at, (score, verdict, file.to_owned()));
            self.misses.truncate(self.limit);
        }
    }
}

/// Those of which some line held; else one, as a sample of what there is.
fn nearest(misses: Vec<(usize, Verdict, String)>) -> Vec<(usize, Verdict, String)> {
    let near = misses.iter().filter(|(score, ..)| *score > 0).count().max(1);
    misses.into_iter().take(near).collect()
}

struct Page {
    text: String,
    colour: bool,
}

impl Page {
    fn line(&mut self, indent: usize, holds: bool, what: &str) {
        let mark = match (holds, self.colour) {
            (true, true) => "\u{1b}[32mtrue \u{1b}[0m",
            (false, true) => "\u{1b}[31mfalse\u{1b}[0m",
            (true, false) => "true ",
            (false, false) => "false",
        };
        let _ = writeln!(self.text, "{:indent$}{mark}  {what}", "");
    }

    fn write(&mut self, rule: &Rule, probe: &Probe, kept: &Kept, set: &RuleSet) {
        let _ = writeln!(self.text, "{} ({})", rule.meta.title.value, rule.meta.key());
        let matches = kept.matches.iter().map(|(verdict, file)| ("matched", verdict, file));
        let misses = kept.misses.iter().map(|(_, verdict, file)| ("no match", verdict, file));
        for (what, verdict, file) in matches.chain(misses) {
            let _ = writeln!(self.text, "\n{what}: {}  ({})", escape::terminal(&verdict.label), escape::terminal(file));
            self.event(rule, probe, verdict, set);
        }
        let others = if kept.other > 0 { format!("; {} of other log sources", kept.other) } else { String::new() };
        let broken = if kept.broken > 0 { format!("; {} that could not be decoded", kept.broken) } else { String::new() };
        let events = counted(usize::try_from(kept.judged).unwrap_or(usize::MAX), "event");
        let _ = writeln!(self.text, "\n{} of {events} matched{others}{broken}", kept.matched);
    }

    fn event(&mut self, rule: &Rule, probe: &Probe, verdict: &Verdict, set: &RuleSet) {
        let source = set.source(&rule.meta.file);
        for condition in &rule.conditions {
            let text = line_of(source, condition.span.start, condition.span.end);
            self.line(2, probe.holds(&condition.value, verdict), &format!("condition: {text}"));
        }
        let mut shown = vec![false; rule.selections.len()];
        rule.conditions.iter().for_each(|condition| mark(&condition.value, &mut shown));
        for (index, selection) in rule.selections.iter().enumerate().filter(|(index, _)| shown[*index]) {
            let shape = probe.selection(index);
            self.line(4, verdict.holds(shape), &selection.name.value);
            self.shape(shape, verdict, set.source(&selection.file), 6);
        }
    }

    fn shape(&mut self, shape: &Shape, verdict: &Verdict, source: &str, indent: usize) {
        match shape {
            Shape::All(parts) => parts.iter().for_each(|part| self.shape(part, verdict, source, indent)),
            Shape::Any(parts) => {
                for (number, part) in parts.iter().enumerate() {
                    self.line(indent, verdict.holds(part), &format!("alternative {}", number + 1));
                    self.shape(part, verdict, source, indent + 2);
                }
            }
            Shape::Line { span, fields, .. } => {
                let saw: Vec<_> = match fields.as_slice() {
                    [] => vec!["any value".to_owned()],
                    [field] => vec![verdict.values(field)],
                    several => several.iter().map(|field| format!("{field} = {}", verdict.values(field))).collect(),
                };
                let line = line_of(source, span.start, span.end);
                self.line(indent, verdict.holds(shape), &format!("{line}   <- {}", escape::terminal(&saw.join("; "))));
            }
        }
    }
}

fn mark(condition: &Condition, shown: &mut [bool]) {
    match condition {
        Condition::Selection(index) => shown[*index] = true,
        Condition::Not(inner) => mark(inner, shown),
        Condition::And(parts) | Condition::Or(parts) => parts.iter().for_each(|part| mark(part, shown)),
    }
}

/// A piece of a rule on one line.
fn line_of(source: &str, start: u32, end: u32) -> String {
    const MAX_LETTERS: usize = 100;
    let piece = source.get(start as usize..end as usize).unwrap_or_default();
    let words = piece.split_whitespace().collect::<Vec<_>>().join(" ");
    let cut: String = words.chars().take(MAX_LETTERS).collect();
    if cut.len() < words.len() { format!("{cut}…") } else { cut }
}

#[cfg(test)]
mod tests;
