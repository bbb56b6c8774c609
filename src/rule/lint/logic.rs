//! What follows from a rule's conditions alone: contradictions, dead filters, rules that match almost everything.
//!
//! In: a rule. Out: warnings. Invariant: only lines that must hold are reasoned about, and only fields with one value.

use std::collections::{HashMap, HashSet};

use super::{facts, is_cloudtrail, is_urgent, name_of};
use crate::rule::{
    ast::{Block, Condition, Item, Part, Rule, Selection, Span, Target, Test},
    diagnostic::{Report, shorten},
};

/// Indexes of the selections that the conditions name.
pub(super) fn used<'a>(conditions: impl IntoIterator<Item = &'a Condition>) -> HashSet<usize> {
    fn walk(condition: &Condition, used: &mut HashSet<usize>) {
        match condition {
            Condition::Selection(index) => {
                used.insert(*index);
            }
            Condition::Not(inner) => walk(inner, used),
            Condition::And(parts) | Condition::Or(parts) => parts.iter().for_each(|part| walk(part, used)),
        }
    }
    let mut used = HashSet::new();
    conditions.into_iter().for_each(|condition| walk(condition, &mut used));
    used
}

/// Every line of a block, those inside `field[any]` left out.
pub(super) fn items(block: &Block) -> Vec<&Item> {
    match block {
        Block::All(items) => items.iter().collect(),
        Block::Any(blocks) => blocks.iter().flat_map(items).collect(),
    }
}

/// Not one that a filter added, whose own place is elsewhere.
pub(super) fn is_own(rule: &Rule, selection: &Selection) -> bool {
    let place = selection.name.span.start;
    selection.file == rule.meta.file && (rule.meta.span.start..=rule.meta.span.end).contains(&place)
}

pub(super) fn check(rule: &Rule, alerts: bool, report: &mut Report) {
    for condition in &rule.conditions {
        let mut must = Must::new(&rule.selections);
        must.add(&condition.value);
        if let Some((field, span)) = &must.contradiction {
            let message = format!("`{}` would need two values at once: the condition can't be true", shorten(field));
            report.warn(*span, message, "one value, or `or` in the condition");
            continue;
        }
        if let Some(index) = must.both() {
            let name = &name_of(&rule.selections, index).value;
            report.warn(condition.span, format!("`{}` must hold and must not: the condition can't be true", shorten(name)), "check `not`");
            continue;
        }
        must.dead_filters(rule, report);
        // A state or correlation narrows what is broad by itself.
        if is_cloudtrail(&rule.logsource) && alerts {
            breadth(rule, &condition.value, condition.span, report);
        }
    }
}

/// What must hold for a condition to be true.
#[derive(Clone)]
struct Must<'a> {
    selections: &'a [Selection],
    /// By field: the values it may have, folded; `None` in it is a missing field.
    values: HashMap<&'a str, HashSet<Option<String>>>,
    positive: HashSet<usize>,
    negative: HashSet<usize>,
    /// The conditions under `not`.
    filters: Vec<&'a Condition>,
    contradiction: Option<(String, Span)>,
}

impl<'a> Must<'a> {
    fn new(selections: &'a [Selection]) -> Self {
        let (values, positive, negative) = (HashMap::new(), HashSet::new(), HashSet::new());
        Self { selections, values, positive, negative, filters: Vec::new(), contradiction: None }
    }

    fn add(&mut self, condition: &'a Condition) {
        match condition {
            Condition::And(parts) => parts.iter().for_each(|part| self.add(part)),
            Condition::Selection(index) => {
                self.positive.insert(*index);
                let selections = self.selections;
                self.add_block(&selections[*index].body);
            }
            Condition::Not(inner) => {
                self.filters.push(inner);
                match &**inner {
                    Condition::Selection(index) => {
                        self.negative.insert(*index);
                    }
                    Condition::Or(parts) => self.negative.extend(parts.iter().filter_map(|part| match part {
                        Condition::Selection(index) => Some(*index),
                        _ => None,
                    })),
                    _ => {}
                }
            }
            Condition::Or(_) => {}
        }
    }

    fn add_block(&mut self, block: &'a Block) {
        let Block::All(items) = block else { return };
        for item in items {
            let Target::Field(field) = &item.target else { continue };
            let Some(allowed) = allowed(item).filter(|_| facts::is_single(&field.value)) else { continue };
            let values = self.values.entry(&field.value).or_insert_with(|| allowed.clone());
            values.retain(|value| allowed.contains(value));
            if values.is_empty() && self.contradiction.is_none() {
                self.contradiction = Some((field.value.clone(), item.span));
            }
        }
    }

    fn both(&self) -> Option<usize> {
        self.positive.intersection(&self.negative).copied().min()
    }

    /// Filters that need what the rest of the condition excludes.
    fn dead_filters(&self, rule: &Rule, report: &mut Report) {
        for filter in &self.filters {
            let parts = match filter {
                Condition::Or(parts) => parts.as_slice(),
                single => std::slice::from_ref(*single),
            };
            for part in parts {
                let mut with = self.clone();
                with.add(part);
                if let (Some((field, _)), Condition::Selection(index)) = (with.contradiction, part)
                    && is_own(rule, &self.selections[*index])
                {
                    let name = name_of(self.selections, *index);
                    let message = format!("filter `{}` can never apply: `{}` has another value by then", shorten(&name.value), shorten(&field));
                    report.warn(name.span, message, "remove it, or correct its values");
                }
            }
        }
    }
}

/// The only values that make the line true; `None` if they can't be listed.
fn allowed(item: &Item) -> Option<HashSet<Option<String>>> {
    if item.negated || (item.all && item.tests.len() > 1) {
        return None;
    }
    item.tests
        .iter()
        .map(|test| match &test.value {
            Test::Text { pattern, .. } => pattern.as_plain().map(|text| Some(text.to_lowercase())),
            Test::Number(text) => Some(Some(text.clone())),
            Test::Bool(value) => Some(Some(value.to_string())),
            Test::Null => Some(None),
            _ => None,
        })
        .collect()
}

/// Warns of rules that say next to nothing, and of urgent ones that say no more than a routine call's name.
fn breadth(rule: &Rule, condition: &Condition, span: Span, report: &mut Report) {
    let weigh = |little: fn(&Item) -> bool| is_broad(condition, &rule.selections, little);
    if weigh(says_nothing) {
        report.warn(span, "this would match almost every event", "name an eventName or another detail of what happened");
    } else if is_urgent(rule.meta.level) && weigh(says_routine) {
        let message = "an urgent level for a call that every estate makes all day".to_owned();
        report.warn(span, message, "test what the call does (requestParameters), or lower the level");
    }
}

/// Whether the condition is true for whatever passes `little`.
fn is_broad(condition: &Condition, selections: &[Selection], little: fn(&Item) -> bool) -> bool {
    match condition {
        Condition::Selection(index) => block_is_broad(&selections[*index].body, little),
        // A filter takes away a part; what remains is as broad as the rest.
        Condition::Not(_) => true,
        Condition::And(parts) => parts.iter().all(|part| is_broad(part, selections, little)),
        Condition::Or(parts) => parts.iter().any(|part| is_broad(part, selections, little)),
    }
}

fn block_is_broad(block: &Block, little: fn(&Item) -> bool) -> bool {
    match block {
        Block::All(items) => items.iter().all(little),
        Block::Any(blocks) => blocks.iter().any(|block| block_is_broad(block, little)),
    }
}

fn says_nothing(item: &Item) -> bool {
    let Target::Field(field) = &item.target else { return false };
    let any = |test: &Test| match test {
        Test::Text { pattern, .. } => pattern.0.iter().all(|part| matches!(part, Part::Star | Part::Question)) && !pattern.0.is_empty(),
        Test::Exists(exists) => *exists,
        _ => false,
    };
    let always_there = ["eventName", "eventSource", "userIdentity.type", "awsRegion", "userAgent", "sourceIPAddress"].contains(&&*field.value);
    let common = |test: &Test| matches!(test, Test::Text { pattern, .. } if pattern.as_plain().is_some_and(|text| facts::COMMON_IDENTITIES.iter().any(|known| known.eq_ignore_ascii_case(text))));
    if field.value == "userIdentity.type" {
        return item.negated || item.tests.iter().any(|test| common(&test.value) || any(&test.value));
    }
    facts::says_little(&field.value) || item.negated || (always_there && item.tests.iter().any(|test| any(&test.value)))
}

fn says_routine(item: &Item) -> bool {
    let Target::Field(field) = &item.target else { return false };
    let routine = |test: &Test| matches!(test, Test::Text { pattern, .. } if pattern.as_plain().is_some_and(|text| facts::ROUTINE.iter().any(|known| known.eq_ignore_ascii_case(text))));
    match field.value.as_str() {
        "eventSource" => true,
        "eventName" => item.tests.iter().any(|test| routine(&test.value)),
        _ => says_nothing(item),
    }
}
