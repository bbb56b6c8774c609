//! What is wrong with a rule, where, and what to do about it.
//!
//! In: findings of the parser, the loader and the lints, each with its place. Out: text with file:line:column, the piece of
//! source and a hint. Invariant: a reader of rules never stops at the first error; it reports and goes on.

use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::rule::ast::Span;

/// More than this many findings in one file are cut off with a note: a generated file could have millions.
pub const MAX_FINDINGS_PER_FILE: usize = 500;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The rule works, but probably not as meant.
    Warning,
    /// The document is left out; a start with it fails.
    Error,
}

/// One finding about one place of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    pub file: Arc<str>,
    pub span: Span,
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// With the piece of source, for people. `source` is the text of `self.file`, empty if it could not be read.
    pub fn render(&self, source: &str, colour: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let window = Window::around(source, self.span);
        let mut group = level.primary_title(self.message.as_str()).element(
            Snippet::source(window.text).line_start(window.line).path(&*self.file).annotation(AnnotationKind::Primary.span(window.start..window.end)),
        );
        if let Some(hint) = &self.hint {
            group = group.element(Level::HELP.message(hint.as_str()));
        }
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }

    /// On one line, for logs and editors: `file:line:column: error: message (hint)`.
    pub fn one_line(&self, source: &str) -> String {
        let (line, column) = line_and_column(source, self.span.start as usize);
        let kind = if self.is_error() { "error" } else { "warning" };
        let hint = self.hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        format!("{}:{line}:{column}: {kind}: {}{hint}", self.file, self.message)
    }
}

/// 1-based; the column counts characters.
pub fn line_and_column(source: &str, offset: usize) -> (usize, usize) {
    let before = &source[..floor_boundary(source, offset)];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The lines that a span touches (the first three): rendering cost stays independent of the file's size.
struct Window<'a> {
    text: &'a str,
    line: usize,
    start: usize,
    end: usize,
}

impl<'a> Window<'a> {
    fn around(source: &'a str, span: Span) -> Self {
        let start = floor_boundary(source, span.start as usize);
        let end = floor_boundary(source, (span.end as usize).max(start)).max(start);
        let first = source[..start].rfind('\n').map_or(0, |at| at + 1);
        let mut last = first;
        for _ in 0..3 {
            last = source[last..].find('\n').map_or(source.len(), |at| last + at + 1);
            if last >= end {
                break;
            }
        }
        let text = source[first..last].trim_end_matches(['\n', '\r']);
        let clip = |at: usize| (at - first).min(text.len());
        Self { text, line: source[..first].matches('\n').count() + 1, start: clip(start), end: clip(end) }
    }
}

fn floor_boundary(source: &str, offset: usize) -> usize {
    source.floor_char_boundary(offset.min(source.len()))
}

/// Collects the findings of one file.
#[derive(Debug)]
pub struct Report {
    pub file: Arc<str>,
    pub found: Vec<Diagnostic>,
}

impl Report {
    pub fn new(file: Arc<str>) -> Self {
        Self { file, found: Vec::new() }
    }

    pub fn error(&mut self, span: Span, message: impl Into<String>) {
        self.push(Severity::Error, span, message.into(), None);
    }

    pub fn error_hint(&mut self, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Severity::Error, span, message.into(), Some(hint.into()));
    }

    pub fn warn(&mut self, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Severity::Warning, span, message.into(), Some(hint.into()));
    }

    /// `unknown thing `x``, with the nearest of `known` as the hint, else the list itself.
    pub fn unknown<'a>(&mut self, span: Span, what: &str, name: &str, known: impl IntoIterator<Item = &'a str> + Clone) {
        let hint = match nearest(name, known.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known: {}", known.into_iter().collect::<Vec<_>>().join(", ")),
        };
        self.error_hint(span, format!("unknown {what} `{}`", shorten(name)), hint);
    }

    /// How many errors there are so far: lets a caller see whether the part it just parsed had any.
    pub fn error_count(&self) -> usize {
        self.found.iter().filter(|found| found.is_error()).count()
    }

    fn push(&mut self, severity: Severity, span: Span, message: String, hint: Option<String>) {
        if self.found.len() < MAX_FINDINGS_PER_FILE {
            self.found.push(Diagnostic { severity, file: self.file.clone(), span, message, hint });
        } else if self.found.len() == MAX_FINDINGS_PER_FILE {
            let message = format!("more than {MAX_FINDINGS_PER_FILE} findings; the rest of this file is not shown");
            self.found.push(Diagnostic { severity: Severity::Error, file: self.file.clone(), span, message, hint: None });
        }
    }
}

/// The known name that a typing mistake away from `name`, if one is: at most a third of its letters differ.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Longer names cost more than a hint is worth.
    const MAX_NAME: usize = 80;
    let length = name.chars().count();
    if length == 0 || length > MAX_NAME {
        return None;
    }
    known
        .into_iter()
        .filter(|candidate| candidate.len() <= MAX_NAME)
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= length.max(candidate.chars().count()) / 3)
        .min_by_key(|(distance, candidate)| (*distance, !candidate.starts_with(name)))
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap of neighbours) between two names; letter case is ignored.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().flat_map(char::to_lowercase).collect();
    let right: Vec<char> = right.chars().flat_map(char::to_lowercase).collect();
    let (mut older, mut old): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=right.len()).collect());
    for (i, from) in left.iter().enumerate() {
        let mut new = vec![i + 1];
        for (j, to) in right.iter().enumerate() {
            let mut cost = (old[j] + usize::from(from != to)).min(old[j + 1] + 1).min(new[j] + 1);
            if i > 0 && j > 0 && *from == right[j - 1] && left[i - 1] == *to {
                cost = cost.min(older[j - 1] + 1);
            }
            new.push(cost);
        }
        older = std::mem::replace(&mut old, new);
    }
    old[right.len()]
}

/// Names in messages are the file's own text: keep them to a length that fits a line.
pub fn shorten(name: &str) -> String {
    const MAX: usize = 60;
    if name.chars().count() <= MAX { name.to_owned() } else { name.chars().take(MAX).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(start: u32, end: u32, hint: Option<&str>) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            file: "rules/x.yml".into(),
            span: Span { start, end },
            message: "unknown modifier `cotains`".into(),
            hint: hint.map(str::to_owned),
        }
    }

    #[test]
    fn shows_file_line_column_source_and_hint() {
        let source = "title: é\ndetection:\n  selection:\n    name|cotains: x\n";
        let start = source.find("cotains").unwrap() as u32;
        let found = sample(start, start + 7, Some("did you mean `contains`?"));
        let text = found.render(source, false);
        for part in ["error: unknown modifier `cotains`", "rules/x.yml:4:10", "name|cotains: x", "^^^^^^^", "did you mean `contains`?"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
        assert!(found.render(source, true).contains('\u{1b}'));
        assert_eq!(found.one_line(source), "rules/x.yml:4:10: error: unknown modifier `cotains` (did you mean `contains`?)");
    }

    #[test]
    fn renders_any_span_of_any_text() {
        for source in ["", "a", "é\n\u{feff}\u{1b}[31m\nx", "a\r\nb\r\n\r\n", "\n\n\n\n\n"] {
            for start in 0..8 {
                for end in 0..8 {
                    sample(start, end, None).render(source, false);
                    sample(start, end, None).one_line(source);
                }
            }
        }
    }

    #[test]
    fn finds_the_name_that_was_meant() {
        let known = ["contains", "startswith", "endswith", "cased", "re", "cidr", "all"];
        for (name, expected) in [
            ("cotains", Some("contains")),
            ("Contains", Some("contains")),
            ("startwith", Some("startswith")),
            ("cdir", Some("cidr")),
            ("regex", None),
            ("", None),
            ("completely_else", None),
        ] {
            assert_eq!(nearest(name, known), expected, "{name}");
        }
    }

    #[test]
    fn a_flood_of_findings_is_cut() {
        let mut report = Report::new("x".into());
        for _ in 0..10_000 {
            report.error(Span::default(), "again");
        }
        assert_eq!(report.found.len(), MAX_FINDINGS_PER_FILE + 1);
    }
}
