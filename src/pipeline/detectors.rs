//! A loaded rule set as the workers use it.
//!
//! In: parsed rules. Out: the engine and, per rule, what is captured of a match. Invariant: immutable; a reload makes a new one.

use std::sync::Arc;

use crate::alert::RuleInfo;
use crate::detect::{CompileError, EVIDENCE_FIELDS, Engine};
use crate::event::FieldId;
use crate::rule::ast::{Correlation, Meta, Rule};
use crate::rule::{LinkedCorrelation, LinkedRule, RuleSet};

#[derive(Debug)]
pub struct Detectors {
    pub engine: Engine,
    /// Those that run.
    pub rules: Vec<Rule>,
    pub correlations: Vec<Correlation>,
    /// As alerts tell them, by rule.
    pub infos: Vec<Arc<RuleInfo>>,
    pub(super) captures: Vec<Capture>,
    pub(super) evidence: Evidence,
}

/// What is kept of a rule's match.
#[derive(Debug)]
pub(super) struct Capture {
    pub summary: Vec<Piece>,
    pub group: Vec<(String, FieldId)>,
}

/// A piece of a summary template.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    /// `{a|b}`: the first of them that has a value.
    FirstOf(Vec<FieldId>),
}

/// Ids of `EVIDENCE_FIELDS`, by name.
#[derive(Debug)]
pub(super) struct Evidence {
    ids: [FieldId; EVIDENCE_FIELDS.len()],
}

impl Evidence {
    /// # Panics
    /// For a name that isn't one of `EVIDENCE_FIELDS`: all callers name theirs in the source.
    pub fn id(&self, name: &str) -> FieldId {
        let at = EVIDENCE_FIELDS.iter().position(|f| *f == name).expect("an evidence field");
        self.ids[at]
    }
}

const DEFAULT_SUMMARY: &str = "{userIdentity.arn} called {eventName} from {sourceIPAddress}";

impl Detectors {
    /// # Errors
    /// Rules that can't be compiled.
    pub fn new(set: &RuleSet) -> Result<Self, Vec<CompileError>> {
        let rules: Vec<Rule> = set.rules.iter().filter(|r| r.role.runs).map(|LinkedRule { rule, .. }| rule.clone()).collect();
        let running = set.correlations.iter().filter(|c| c.role.runs);
        let correlations = running.map(|LinkedCorrelation { correlation, .. }| correlation.clone()).collect();
        let templates: Vec<_> = rules.iter().map(|r| template(r.meta.ext.summary.as_ref().map_or(DEFAULT_SUMMARY, |s| &s.value))).collect();
        let names = templates.iter().flatten().filter(|(is_field, _)| *is_field).flat_map(|(_, text)| text.split('|'));
        let groups = rules.iter().flat_map(|r| &r.meta.ext.group).map(|g| g.value.as_str());
        let engine = Engine::new(&rules, names.chain(groups))?;
        let id = |name: &str| engine.field(name).expect("captured fields are in the schema");
        let captures = rules.iter().zip(&templates).map(|(rule, template)| Capture {
            summary: template.iter().map(|(is_field, text)| piece(*is_field, text, id)).collect(),
            group: rule.meta.ext.group.iter().map(|g| (g.value.clone(), id(&g.value))).collect(),
        });
        let captures = captures.collect();
        let infos = rules.iter().map(|r| Arc::new(info(&r.meta))).collect();
        let evidence = Evidence { ids: EVIDENCE_FIELDS.map(id) };
        Ok(Self { engine, infos, captures, evidence, rules, correlations })
    }
}

fn piece(is_field: bool, text: &str, id: impl Fn(&str) -> FieldId) -> Piece {
    if is_field { Piece::FirstOf(text.split('|').map(id).collect()) } else { Piece::Text(text.to_owned()) }
}

fn info(meta: &Meta) -> RuleInfo {
    let name = meta.id.as_ref().or(meta.name.as_ref()).unwrap_or(&meta.title);
    RuleInfo {
        id: name.value.clone(),
        title: meta.title.value.clone(),
        level: meta.level,
        tags: meta.tags.iter().map(|t| t.value.clone()).collect(),
        description: meta.description.clone(),
        false_positives: meta.false_positives.clone(),
        next: meta.ext.next.clone(),
        resolve_after_ms: meta.ext.resolve_after_ms,
    }
}

/// Splits `text {field|other} text`; true marks fields. A bracket without its partner is text.
fn template(text: &str) -> Vec<(bool, String)> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{')
        && let Some((field, behind)) = after.split_once('}')
    {
        if !before.is_empty() {
            pieces.push((false, before.to_owned()));
        }
        pieces.push((true, field.to_owned()));
        rest = behind;
    }
    if !rest.is_empty() {
        pieces.push((false, rest.to_owned()));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates() {
        let field = |name: &str| (true, name.to_owned());
        let text = |name: &str| (false, name.to_owned());
        assert_eq!(template("{a.b} shared {c}!"), [field("a.b"), text(" shared "), field("c"), text("!")]);
        assert_eq!(template("no { partner"), [text("no { partner")]);
    }
}
