//! One rule file: text to documents.
//!
//! In: a file's name and text. Out: its well-formed documents, and findings about the rest. Invariant: a document with an
//! error is not among them; its neighbours are.
//!
//! Format: Sigma 2.1.0 rules, correlations and filters, one or more YAML documents a file.

use std::sync::Arc;

use crate::rule::{
    ast::{Document, Rule, Span},
    correlation, detection,
    diagnostic::{Diagnostic, Report},
    filter, meta,
    modifier::Lists,
    yaml::{self, Node},
};

/// What one file gave.
#[derive(Debug)]
pub struct Parsed {
    pub documents: Vec<Document>,
    pub diagnostics: Vec<Diagnostic>,
    /// Ids and names of documents with errors: references to them are not errors of their own.
    pub refused: Vec<String>,
}

/// Parses the text of `file`; `lists` fill the placeholders of `expand`.
pub fn parse(file: &Arc<str>, text: &str, lists: &Lists) -> Parsed {
    let mut report = Report::new(file.clone());
    let mut parsed = Parsed { documents: Vec::new(), diagnostics: Vec::new(), refused: Vec::new() };
    let nodes = yaml::parse(text, &mut report);
    // Keys that stand twice are found while the tree is built.
    let broken: Vec<Span> = report.found.iter().filter(|found| found.is_error()).map(|found| found.span).collect();
    for node in nodes {
        let before = report.error_count();
        let document = document(&node, lists, &mut report);
        let is_whole = !broken.iter().any(|span| (node.span.start..=node.span.end).contains(&span.start));
        match document.filter(|_| is_whole && report.error_count() == before) {
            Some(document) => parsed.documents.push(document),
            None => parsed.refused.extend(["id", "name"].iter().filter_map(|key| Some(node.get(key)?.text()?.to_owned()))),
        }
    }
    parsed.diagnostics = report.found;
    if parsed.documents.is_empty() && parsed.diagnostics.is_empty() {
        let mut report = Report::new(file.clone());
        report.warn(Span::default(), "the file has no document", "write a rule, or remove the file");
        parsed.diagnostics = report.found;
    }
    parsed
}

fn document(node: &Node, lists: &Lists, report: &mut Report) -> Option<Document> {
    if node.entries().is_none() {
        report.error_hint(node.span, format!("a rule is a map, not {}", node.what()), "it begins with `title:`");
        return None;
    }
    if let Some(action) = node.get("action") {
        let hint = "write each rule out as its own document; YAML anchors can share parts within one";
        report.error_hint(action.span, "rule collections with `action` are gone from Sigma 2", hint);
        return None;
    }
    let parts = ["detection", "correlation", "filter"].map(|key| node.get(key));
    if parts.iter().flatten().count() > 1 {
        report.error_hint(node.span, "a document is one of rule, correlation and filter", "write two documents, with `---` between them");
        return None;
    }
    match parts {
        [Some(detection), ..] => rule(node, detection, lists, report).map(Document::Rule),
        [_, Some(part), _] => {
            let meta = meta::parse(node, report)?;
            if let Some(state) = &meta.ext.state {
                report.error_hint(state.span, "a state belongs to a rule, not to a correlation", "move it to one of the rules");
            }
            correlation::parse(part, meta, report).map(Document::Correlation)
        }
        [_, _, Some(part)] => filter::parse(node, part, lists, report).map(Document::Filter),
        [None, None, None] => {
            meta::parse(node, report);
            report.error_hint(node.span, "the document detects nothing", "add `detection:`, `correlation:` or `filter:`");
            None
        }
    }
}

fn rule(node: &Node, detection: &Node, lists: &Lists, report: &mut Report) -> Option<Rule> {
    // All three are read before the first `?`: all errors in one run.
    let meta = meta::parse(node, report);
    let logsource = meta::logsource(node, report);
    let detection = detection::parse(detection, &[], lists, report)?;
    Some(Rule { meta: meta?, logsource: logsource?, selections: detection.selections, conditions: detection.conditions })
}

#[cfg(test)]
mod tests;
