//! `test`: runs the detectors' own cases.
//!
//! In: `*.cases.yml` beside rules. Out: what failed, on stdout; JUnit XML where asked. Invariant: the events go through the
//! same decoder and engine as those of a stream; the clock is that of the cases.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};

use super::emit;
use super::rules::{colour, counted, told};
use crate::pipeline::{Detectors, Replay, Worker};
use crate::rule::ast::Profile;
use crate::rule::cases::{self, Case, CaseFile, Expected};
use crate::rule::diagnostic::{Diagnostic, line_and_column};
use crate::rule::{LinkedRule, Lists, Options, RuleSet, Source, builtin, load_texts};

/// Runs the detectors' own test cases (`<name>.cases.yml` beside `<name>.yml`).
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden test my-rules/
  trailwarden test my-rules/ --junit results.xml

Exit codes: 0 all passed, 1 a case failed, 2 a rule or a cases file has errors.")]
pub struct Args {
    /// Folder of detectors; without it the built-in ones
    folder: Option<PathBuf>,
    /// Writes the results as JUnit XML too
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// A cases file and the rule file beside it.
struct Pair {
    cases: Source,
    rule: Source,
}

struct Outcome {
    name: String,
    /// `None`: passed.
    failure: Option<String>,
    line: usize,
}

struct Suite {
    file: Arc<str>,
    outcomes: Vec<Outcome>,
    seconds: f64,
}

/// # Errors
/// Files that can't be read, rules or cases with errors.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let (pairs, untested) = match &args.folder {
        Some(folder) => from_folder(folder)?,
        None => built_in(),
    };
    if pairs.is_empty() {
        bail!("no `*.cases.yml` in {}", args.folder.as_deref().unwrap_or(Path::new("builtin")).display());
    }
    let mut suites = Vec::with_capacity(pairs.len());
    let mut broken = 0;
    for pair in pairs {
        match suite(&pair) {
            Ok(suite) => suites.push(suite),
            Err(told) => {
                broken += 1;
                eprintln!("{told}\n");
            }
        }
    }
    if let Some(path) = &args.junit {
        std::fs::write(path, junit(&suites)).with_context(|| path.display().to_string())?;
    }
    let (text, failed) = told_of(&suites, untested, start.elapsed().as_secs_f64());
    emit(&text)?;
    if broken > 0 {
        bail!("{} with errors", counted(broken, "cases file"));
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
}

/// Also how many rule files have no cases.
fn from_folder(folder: &Path) -> anyhow::Result<(Vec<Pair>, usize)> {
    let files = crate::source::files::walk(&[folder.to_owned()])?;
    let read = |path: &Path| -> anyhow::Result<Source> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Ok(Source { name: path.display().to_string().into(), text: text.into() })
    };
    let mut pairs = Vec::new();
    let mut rules = 0;
    for path in &files {
        let Some(name) = path.to_str().filter(|name| name.ends_with(".yml") || name.ends_with(".yaml")) else { continue };
        let Some(stem) = name.strip_suffix(builtin::CASES) else {
            rules += 1;
            continue;
        };
        let rule = PathBuf::from(format!("{stem}.yml"));
        if !rule.exists() {
            bail!("{name}: there is no rule file `{}` beside it", rule.display());
        }
        pairs.push(Pair { cases: read(path)?, rule: read(&rule)? });
    }
    let untested = rules - pairs.len();
    Ok((pairs, untested))
}

fn built_in() -> (Vec<Pair>, usize) {
    let source = |(name, text): (&'static str, &'static str)| Source { name: name.into(), text: text.into() };
    let cases = |name: &str| name.strip_suffix(".yml").map(|stem| format!("{stem}{}", builtin::CASES));
    let mut untested = 0;
    let pairs = builtin::detectors().filter_map(|rule| {
        let name = cases(rule.0)?;
        let found = builtin::FILES.iter().find(|(file, _)| *file == name);
        untested += usize::from(found.is_none());
        Some(Pair { cases: source(*found?), rule: source(rule) })
    });
    (pairs.collect(), untested)
}

/// `Err`: what is wrong with the files, for people.
fn suite(pair: &Pair) -> Result<Suite, String> {
    let start = Instant::now();
    let (file, found) = cases::parse(&pair.cases.name, &pair.cases.text);
    let errors: Vec<&Diagnostic> = found.iter().filter(|found| found.is_error()).collect();
    if !errors.is_empty() {
        let told: Vec<_> = errors.iter().map(|found| found.render(&pair.cases.text, colour())).collect();
        return Err(told.join("\n\n"));
    }
    let set = rules_of(pair, &file)?;
    let stateful = !set.correlations.is_empty() || set.rules.iter().any(|r| r.rule.meta.ext.state.is_some());
    let set = Arc::new(Detectors::new(&set).map_err(|errors| told(errors, &set))?);
    let outcomes = file.cases.iter().map(|case| Outcome {
        name: case.name.clone(),
        failure: if stateful { judge_all(case, &set, &pair.cases.text) } else { judge(case, &set, &pair.cases.text) },
        line: line_and_column(&pair.cases.text, case.span.start as usize).0,
    });
    Ok(Suite { file: pair.cases.name.clone(), outcomes: outcomes.collect(), seconds: start.elapsed().as_secs_f64() })
}

/// What the cases are about: the file as a whole where it correlates, else its one rule or the one that they name.
fn rules_of(pair: &Pair, cases: &CaseFile) -> Result<RuleSet, String> {
    let options = Options { lists: Lists::new(cases.lists.clone()), profile: Profile::Paranoid };
    let mut loaded = load_texts(vec![pair.rule.clone()], &options);
    if loaded.has_errors() {
        loaded.diagnostics.retain(Diagnostic::is_error);
        return Err(loaded.render(colour()));
    }
    if !loaded.set.correlations.is_empty() {
        return Ok(loaded.set);
    }
    let mut rules = loaded.set.rules.into_iter();
    let is = |name: &str| {
        let name = name.to_owned();
        move |linked: &LinkedRule| {
            let meta = &linked.rule.meta;
            meta.title.value == name || [&meta.id, &meta.name].into_iter().flatten().any(|named| named.value == name)
        }
    };
    let rule = match &cases.rule {
        Some(name) => rules.find(is(&name.value)).ok_or_else(|| format!("{}: no rule `{}` in {}", pair.cases.name, name.value, pair.rule.name)),
        None => match (rules.next(), rules.next()) {
            (Some(rule), None) => Ok(rule),
            (None, _) => Err(format!("{}: there is no rule", pair.rule.name)),
            _ => Err(format!("{}: several rules in {}; say which with `rule:`", pair.cases.name, pair.rule.name)),
        },
    };
    Ok(RuleSet { rules: vec![rule?], sources: loaded.set.sources, own_accounts: loaded.set.own_accounts, ..RuleSet::default() })
}

/// The case as a whole, through correlations: what is wrong, if something is.
fn judge_all(case: &Case, set: &Arc<Detectors>, source: &str) -> Option<String> {
    let mut worker = Worker::new(set.clone());
    let mut replay = match Replay::new(set) {
        Ok(replay) => replay,
        Err(error) => return Some(error.to_string()),
    };
    let mut alerts = 0;
    for event in &case.events {
        worker.batch.clear();
        worker.record("cases", &event.data, event.time_ms);
        if let Some(quarantined) = worker.batch.quarantined.first() {
            let line = line_and_column(source, event.span.start as usize).0;
            return Some(format!("event `{}` in line {line} can't be decoded: {:?}", event.label, quarantined.reason));
        }
        match replay.take(&mut worker.batch) {
            Ok(found) => alerts += found.len(),
            Err(error) => return Some(error.to_string()),
        }
    }
    alerts += replay.finish().map_or(0, |found| found.len());
    let raised = format!("{} raised", counted(alerts, "alert"));
    match case.expected {
        Expected::Match if alerts == 0 => Some("must alert and does not".to_owned()),
        Expected::NoMatch if alerts > 0 => Some(format!("must not alert; {raised}")),
        Expected::Alerts(expected) if expected != alerts => Some(format!("{} expected, {raised}", counted(expected, "alert"))),
        _ => None,
    }
}

/// What is wrong, if something is.
fn judge(case: &Case, set: &Arc<Detectors>, source: &str) -> Option<String> {
    let mut worker = Worker::new(set.clone());
    let mut matches = 0;
    for event in &case.events {
        worker.batch.clear();
        worker.record("cases", &event.data, event.time_ms);
        let place = || format!("event `{}` in line {}", event.label, line_and_column(source, event.span.start as usize).0);
        if let Some(quarantined) = worker.batch.quarantined.first() {
            return Some(format!("{} can't be decoded: {:?}", place(), quarantined.reason));
        }
        let matched = worker.batch.tally.matched > 0;
        matches += usize::from(matched);
        match case.expected {
            Expected::Match if !matched => return Some(format!("{} must match and does not", place())),
            Expected::NoMatch if matched => return Some(format!("{} must not match and does", place())),
            _ => {}
        }
    }
    match case.expected {
        Expected::Alerts(expected) if expected != matches => Some(format!("{} expected, {matches} raised", counted(expected, "alert"))),
        _ => None,
    }
}

/// Also the number of failures.
fn told_of(suites: &[Suite], untested: usize, seconds: f64) -> (String, usize) {
    let (mut text, mut failed) = (String::new(), 0);
    for suite in suites {
        for outcome in &suite.outcomes {
            if let Some(failure) = &outcome.failure {
                failed += 1;
                let _ = writeln!(text, "FAIL {}:{}: {}: {failure}", suite.file, outcome.line, outcome.name);
            }
        }
    }
    let cases: usize = suites.iter().map(|suite| suite.outcomes.len()).sum();
    let without = if untested > 0 { format!("; {} without cases", counted(untested, "rule file")) } else { String::new() };
    let _ = writeln!(text, "{} of {} passed in {} ({seconds:.2} s){without}", cases - failed, counted(cases, "case"), counted(suites.len(), "file"));
    (text, failed)
}

fn junit(suites: &[Suite]) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"trailwarden\">\n");
    for suite in suites {
        let failures = suite.outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
        let (file, count) = (escape(&suite.file), suite.outcomes.len());
        let _ = writeln!(xml, "  <testsuite name=\"{file}\" tests=\"{count}\" failures=\"{failures}\" errors=\"0\" time=\"{:.3}\">", suite.seconds);
        for outcome in &suite.outcomes {
            let name = escape(&outcome.name);
            let _ = match &outcome.failure {
                None => writeln!(xml, "    <testcase classname=\"{file}\" name=\"{name}\"/>"),
                Some(failure) => {
                    let failure = escape(failure);
                    writeln!(
                        xml,
                        "    <testcase classname=\"{file}\" name=\"{name}\"><failure message=\"{failure}\">{file}:{}</failure></testcase>",
                        outcome.line
                    )
                }
            };
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

/// For XML text and attributes; characters that XML 1.0 can't hold become U+FFFD.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}
