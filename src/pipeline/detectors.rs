//! A loaded rule set as the workers use it.
//!
//! In: parsed rules. Out: the engine and, per rule, what is captured of a match. Invariant: immutable; a reload makes a new one.

use std::sync::Arc;

use crate::alert::RuleInfo;
use crate::correlate::{FeedId, Plan, plan::Origin};
use crate::detect::{EVIDENCE_FIELDS, Engine, TOO_MANY_FIELDS};
use crate::event::FieldId;
use crate::rule::ast::{Correlation, Meta, Rule, Scope, Span};
use crate::rule::{LinkedCorrelation, LinkedRule, RuleSet};

#[derive(Debug)]
pub struct Detectors {
    pub engine: Engine,
    /// What feeds which correlation.
    pub plan: Arc<Plan>,
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
    /// The match is an alert by itself.
    pub alerts: bool,
    pub organization: bool,
    /// Group fields, then value fields, of each correlation that the rule feeds.
    pub feeds: Vec<(FeedId, Vec<FieldId>)>,
}

/// A piece of a summary template.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    /// `{a|b}`: the first of them that has a value.
    FirstOf(Vec<FieldId>),
}

/// A rule that is well-formed and yet can't run.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Unfit {
    /// As `Meta::file`.
    pub file: Arc<str>,
    pub span: Span,
    pub message: String,
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
    /// Rules that can't be compiled, correlations that can't be linked.
    pub fn new(set: &RuleSet) -> Result<Self, Vec<Unfit>> {
        let rules: Vec<Rule> = set.rules.iter().filter(|r| r.role.runs).map(|LinkedRule { rule, .. }| rule.clone()).collect();
        let running = set.correlations.iter().filter(|c| c.role.runs);
        let correlations: Vec<_> = running.map(|LinkedCorrelation { correlation, .. }| correlation.clone()).collect();
        let mut engine = Engine::new(&rules).map_err(|errors| {
            let unfit = |e: crate::detect::CompileError| Unfit { file: rules[e.rule].meta.file.clone(), span: e.span, message: e.message };
            errors.into_iter().map(unfit).collect::<Vec<_>>()
        })?;
        engine.own(&set.own_accounts);
        let plan = Plan::compile(&rules, &correlations).map_err(|faults| {
            let meta = |origin| match origin {
                Origin::Rule(index) => &rules[index].meta,
                Origin::Correlation(index) => &correlations[index].meta,
            };
            faults.into_iter().map(|f| Unfit { file: meta(f.origin).file.clone(), span: f.span, message: f.message }).collect::<Vec<_>>()
        })?;
        let mut captures = Vec::with_capacity(rules.len());
        for (index, rule) in rules.iter().enumerate() {
            captures.push(Capture::new(index, rule, &plan, &mut engine));
            if engine.schema().is_full() {
                return Err(vec![Unfit { file: rule.meta.file.clone(), span: Span::default(), message: TOO_MANY_FIELDS.to_owned() }]);
            }
        }
        let infos = rules.iter().map(|r| Arc::new(info(&r.meta))).collect();
        let evidence = Evidence { ids: EVIDENCE_FIELDS.map(|name| engine.field(name).expect("every schema has the evidence fields")) };
        Ok(Self { engine, plan: Arc::new(plan), infos, captures, evidence, rules, correlations })
    }
}

impl Capture {
    fn new(index: usize, rule: &Rule, plan: &Plan, engine: &mut Engine) -> Self {
        let ext = &rule.meta.ext;
        let pieces = template(ext.summary.as_ref().map_or(DEFAULT_SUMMARY, |s| &s.value)).into_iter();
        let summary = pieces.map(|(is_field, text)| match is_field {
            true => Piece::FirstOf(text.split('|').map(|name| engine.capture(index, name)).collect()),
            false => Piece::Text(text),
        });
        let summary = summary.collect();
        let group = ext.group.iter().map(|g| (g.value.clone(), engine.capture(index, &g.value))).collect();
        let feeds = plan.feeds(index).iter().map(|feed| {
            let fields = feed.group_by.iter().chain(&feed.values).map(|name| engine.capture(index, name));
            (feed.id, fields.collect())
        });
        let feeds = feeds.collect();
        Self { summary, group, alerts: plan.alerts(index), organization: ext.scope == Scope::Organization, feeds }
    }
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

    #[test]
    fn a_set_with_too_many_fields_is_refused() {
        use crate::rule::{Options, Source, load_texts};
        let keys: String = (0..9_000).map(|n| format!("        field{n}: x\n")).collect();
        let text = format!(
            "title: Wide\nlogsource:\n    product: aws\n    service: cloudtrail\ndetection:\n    selection:\n{keys}    condition: selection\n"
        );
        let loaded = load_texts(vec![Source { name: "wide.yml".into(), text: text.into() }], &Options::default());
        assert!(!loaded.has_errors());
        let unfit = Detectors::new(&loaded.set).unwrap_err();
        assert!(unfit[0].message.contains("more fields than"), "{unfit:?}");
    }
}
