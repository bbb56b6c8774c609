//! Correlation documents.
//!
//! In: a document with a `correlation` part. Out: `Correlation`. Invariant: the kind has the fields, bounds and timespan
//! that it needs, and an expression's indexes point into `rules`.
//!
//! Format: Sigma 2.1.0 correlation rules; extended temporal conditions and `value_median` as pySigma has them.

use std::collections::HashSet;

use crate::rule::{
    ast::{Alias, Comparison, Condition, Correlation, CorrelationKind, Expression, Meta, Span, Spanned},
    condition,
    diagnostic::{Report, shorten},
    extension::{known_keys, timespan},
    meta::{choice, text, texts},
    yaml::{Kind, Node},
};

const KEYS: [&str; 7] = ["type", "rules", "group-by", "timespan", "condition", "aliases", "generate"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::rule) enum Type {
    EventCount,
    ValueCount,
    Temporal,
    TemporalOrdered,
    ValueSum,
    ValueAvg,
    ValuePercentile,
    ValueMedian,
}

pub(in crate::rule) const TYPES: [(&str, Type); 8] = [
    ("event_count", Type::EventCount),
    ("value_count", Type::ValueCount),
    ("temporal", Type::Temporal),
    ("temporal_ordered", Type::TemporalOrdered),
    ("value_sum", Type::ValueSum),
    ("value_avg", Type::ValueAvg),
    ("value_percentile", Type::ValuePercentile),
    ("value_median", Type::ValueMedian),
];

pub(in crate::rule) const OPERATORS: [(&str, Comparison); 6] = [
    ("lt", Comparison::Lt),
    ("lte", Comparison::Lte),
    ("gt", Comparison::Gt),
    ("gte", Comparison::Gte),
    ("eq", Comparison::Eq),
    ("neq", Comparison::Neq),
];

/// Errors have been reported when this is `None`.
pub(in crate::rule) fn parse(node: &Node, meta: Meta, report: &mut Report) -> Option<Correlation> {
    if !known_keys(node, &KEYS, "`correlation`", report) {
        return None;
    }
    let kind = match node.get("type") {
        Some(node) => choice(node, "correlation type", &TYPES, report),
        None => {
            let types = TYPES.map(|(name, _)| name).join(", ");
            report.error_hint(start_of(node), "a correlation needs its type", format!("add `type:` with one of: {types}"));
            None
        }
    };
    let timespan_ms = timespan(node, report);
    let group_by = node.get("group-by").filter(|node| !node.is_null()).map_or_else(Vec::new, |node| texts(node, "group-by", report));
    let mut rules = node.get("rules").map_or_else(Vec::new, |node| texts(node, "rules", report));
    let ordered = node.get("type").and_then(Node::text) == Some("temporal_ordered");
    // In an order the same rule may have two places.
    if !ordered {
        unique(&rules, "rule", report);
    }
    unique(&group_by, "group-by field", report);
    let generate = node.get("generate").is_some_and(|node| flag(node, "generate", report));
    let kind = kind?;
    let temporal = matches!(kind, Type::Temporal | Type::TemporalOrdered);
    let expression = match node.get("condition") {
        Some(condition) if matches!(condition.kind, Kind::Scalar { .. }) && !condition.is_null() => {
            if !temporal {
                let hint = "write a map, as in `condition: {gte: 10}`";
                report.error_hint(condition.span, "only temporal correlations have a condition over rules", hint);
                return None;
            }
            if node.get("rules").is_none() {
                rules = named_in(condition);
            }
            expression(condition, kind, &rules, report)?
        }
        _ => None,
    };
    if rules.is_empty() {
        report.error_hint(start_of(node), "a correlation needs `rules`", "list ids or names of rules");
        return None;
    }
    let condition = node.get("condition").filter(|condition| condition.entries().is_some() || !condition.text().is_some_and(|_| temporal));
    let (kind, bounds) = Thresholds { kind, rules: rules.len(), node, report }.read(condition)?;
    let aliases = aliases(node, &rules, &group_by, report);
    let timespan_ms = timespan_ms?;
    Some(Correlation { meta, kind, rules, group_by, aliases, timespan_ms, bounds, expression, generate })
}

fn start_of(node: &Node) -> Span {
    Span { end: node.span.start, ..node.span }
}

fn flag(node: &Node, what: &str, report: &mut Report) -> bool {
    node.as_bool().unwrap_or_else(|| {
        report.error_hint(node.span, format!("`{what}` must be true or false"), "write it without quotes");
        false
    })
}

fn unique(entries: &[Spanned<String>], what: &str, report: &mut Report) {
    let mut seen = HashSet::new();
    for entry in entries {
        if !seen.insert(entry.value.as_str()) {
            report.error_hint(entry.span, format!("{what} `{}` stands twice", shorten(&entry.value)), "remove one");
        }
    }
}

/// The rules that an extended condition names, where `rules` is left out.
fn named_in(condition: &Node) -> Vec<Spanned<String>> {
    let words = condition.text().unwrap_or_default().split(|character: char| character.is_whitespace() || matches!(character, '(' | ')'));
    let names = words.filter(|word| !word.is_empty() && !["and", "or", "not"].iter().any(|keyword| word.eq_ignore_ascii_case(keyword)));
    let mut seen = HashSet::new();
    names.filter(|name| seen.insert(name.to_owned())).map(|name| Spanned { value: name.to_owned(), span: condition.span }).collect()
}

/// `Some(None)`: the expression says what the type means anyway.
fn expression(node: &Node, kind: Type, rules: &[Spanned<String>], report: &mut Report) -> Option<Option<Spanned<Expression>>> {
    let names: Vec<&str> = rules.iter().map(|rule| rule.value.as_str()).collect();
    let condition = condition::parse(node, &names, "rule", report)?;
    let mut used = HashSet::new();
    mark_used(&condition.value, &mut used);
    for (index, rule) in rules.iter().enumerate() {
        if !used.contains(&index) {
            let message = format!("rule `{}` is listed but not in the condition", shorten(&rule.value));
            report.error_hint(rule.span, message, "use it in the condition, or remove it");
        }
    }
    let every = (0..rules.len()).map(Condition::Selection).collect::<Vec<_>>();
    let all = if every.len() == 1 { every[0].clone() } else { Condition::And(every) };
    if condition.value == all {
        return Some(None);
    }
    if kind == Type::TemporalOrdered && has_not(&condition.value) {
        report.error_hint(node.span, "an event that must not come has no place in an order", "use type temporal, or chain correlations");
        return None;
    }
    Some(Some(Spanned { value: to_expression(condition.value), span: node.span }))
}

fn has_not(condition: &Condition) -> bool {
    match condition {
        Condition::Selection(_) => false,
        Condition::Not(_) => true,
        Condition::And(parts) | Condition::Or(parts) => parts.iter().any(has_not),
    }
}

fn mark_used(condition: &Condition, used: &mut HashSet<usize>) {
    match condition {
        Condition::Selection(index) => {
            used.insert(*index);
        }
        Condition::Not(inner) => mark_used(inner, used),
        Condition::And(parts) | Condition::Or(parts) => parts.iter().for_each(|part| mark_used(part, used)),
    }
}

fn to_expression(condition: Condition) -> Expression {
    let all = |parts: Vec<Condition>| parts.into_iter().map(to_expression).collect();
    match condition {
        Condition::Selection(index) => Expression::Rule(index),
        Condition::Not(inner) => Expression::Not(Box::new(to_expression(*inner))),
        Condition::And(parts) => Expression::And(all(parts)),
        Condition::Or(parts) => Expression::Or(all(parts)),
    }
}

struct Thresholds<'a, 'r> {
    kind: Type,
    rules: usize,
    node: &'a Node,
    report: &'r mut Report,
}

type Bounds = Vec<(Comparison, f64)>;

impl Thresholds<'_, '_> {
    fn read(mut self, condition: Option<&Node>) -> Option<(CorrelationKind, Bounds)> {
        let temporal = matches!(self.kind, Type::Temporal | Type::TemporalOrdered);
        let Some(condition) = condition else {
            if temporal {
                return Some((self.plain_kind(), Vec::new()));
            }
            self.report.error_hint(start_of(self.node), "this correlation needs a condition", "add one, as in `condition: {gte: 10}`");
            return None;
        };
        let Some(entries) = condition.entries() else {
            self.report.error_hint(
                condition.span,
                format!("this condition must be a map, not {}", condition.what()),
                "write one, as in `condition: {gte: 10}`",
            );
            return None;
        };
        let before = self.report.error_count();
        let mut bounds = Vec::new();
        for (key, value) in entries {
            match key.text().unwrap_or_default() {
                "field" | "percentile" => {}
                name => match OPERATORS.iter().find(|(operator, _)| *operator == name) {
                    Some((_, op)) => bounds.extend(self.bound(value).map(|number| (*op, number))),
                    None => {
                        let known = OPERATORS.iter().map(|(name, _)| *name).chain(["field", "percentile"]);
                        self.report.unknown(key.span, "key of the condition", name, known);
                    }
                },
            }
        }
        let kind = self.kind_with_fields(condition);
        if bounds.is_empty() && self.report.error_count() == before {
            self.report.error_hint(condition.span, "the condition compares with nothing", "add `gte: 10` or the like");
        }
        if self.report.error_count() == before && !satisfiable(&bounds) {
            self.report.warn(condition.span, "no number is in this range: the correlation can't fire", "check the bounds");
        }
        let met = |number: f64| bounds.iter().all(|(op, bound)| holds(*op, number, *bound));
        if temporal && !(0..=self.rules).any(|count| met(count as f64)) {
            let message = format!("there are only {} rules: the correlation can't fire", self.rules);
            self.report.warn(condition.span, message, "the number counts different rules");
        }
        (self.report.error_count() == before).then_some((kind?, bounds))
    }

    fn bound(&mut self, value: &Node) -> Option<f64> {
        let counts = matches!(self.kind, Type::EventCount | Type::ValueCount | Type::Temporal | Type::TemporalOrdered);
        let number = value.as_number().and_then(|number| number.parse::<f64>().ok());
        match number {
            Some(number) if !counts || (number >= 0.0 && number.fract() == 0.0) => Some(number),
            _ => {
                let what = if counts { "a whole number of 0 or more" } else { "a number" };
                self.report.error_hint(value.span, format!("the bound must be {what}"), "write it without quotes");
                None
            }
        }
    }

    fn kind_with_fields(&mut self, condition: &Node) -> Option<CorrelationKind> {
        let fields = condition.get("field").map_or_else(Vec::new, |node| texts(node, "field", self.report));
        if let Some(node) = condition.get("percentile").filter(|_| self.kind != Type::ValuePercentile) {
            self.report.error_hint(node.span, "only value_percentile has a percentile", "remove it");
        }
        if matches!(self.kind, Type::EventCount | Type::Temporal | Type::TemporalOrdered) {
            if let Some(node) = condition.get("field") {
                self.report.error_hint(
                    node.span,
                    "this type counts events or rules, not a field's values",
                    "use type value_count, or remove `field`",
                );
            }
            return Some(self.plain_kind());
        }
        if self.kind == Type::ValueCount && !fields.is_empty() {
            return Some(CorrelationKind::ValueCount { fields });
        }
        let [field] = fields.as_slice() else {
            let message = if fields.is_empty() { "this type needs `field` in its condition" } else { "this type takes one field" };
            self.report.error_hint(condition.span, message, "name the field whose values count");
            return None;
        };
        let field = field.clone();
        Some(match self.kind {
            Type::ValueSum => CorrelationKind::ValueSum { field },
            Type::ValueAvg => CorrelationKind::ValueAvg { field },
            Type::ValueMedian => CorrelationKind::ValuePercentile { field, percentile: 50.0 },
            _ => CorrelationKind::ValuePercentile { field, percentile: self.percentile(condition)? },
        })
    }

    fn percentile(&mut self, condition: &Node) -> Option<f64> {
        let Some(node) = condition.get("percentile") else {
            self.report.warn(condition.span, "no percentile is given: the median is taken", "add `percentile: 95` or the like");
            return Some(50.0);
        };
        let number = node.as_number().and_then(|number| number.parse::<f64>().ok()).filter(|number| (0.0..=100.0).contains(number));
        if number.is_none() {
            self.report.error_hint(node.span, "a percentile is a number from 0 to 100", "write it without quotes");
        }
        number
    }

    /// The kinds without a field.
    fn plain_kind(&self) -> CorrelationKind {
        match self.kind {
            Type::Temporal => CorrelationKind::Temporal,
            Type::TemporalOrdered => CorrelationKind::TemporalOrdered,
            _ => CorrelationKind::EventCount,
        }
    }
}

fn holds(op: Comparison, number: f64, bound: f64) -> bool {
    match op {
        Comparison::Lt => number < bound,
        Comparison::Lte => number <= bound,
        Comparison::Gt => number > bound,
        Comparison::Gte => number >= bound,
        Comparison::Eq => number == bound,
        Comparison::Neq => number != bound,
    }
}

/// Whether any number meets all bounds: if one does, then one at, just below or just above a bound.
fn satisfiable(bounds: &[(Comparison, f64)]) -> bool {
    let near = bounds.iter().flat_map(|(_, bound)| [*bound, bound - 0.5, bound + 0.5]);
    bounds.is_empty() || near.into_iter().any(|number| bounds.iter().all(|(op, bound)| holds(*op, number, *bound)))
}

fn aliases(node: &Node, rules: &[Spanned<String>], group_by: &[Spanned<String>], report: &mut Report) -> Vec<Alias> {
    let Some(node) = node.get("aliases").filter(|node| !node.is_null()) else { return Vec::new() };
    let Some(entries) = node.entries() else {
        report.error_hint(node.span, format!("`aliases` must be a map, not {}", node.what()), "write `alias: {rule: field}`");
        return Vec::new();
    };
    let mut aliases = Vec::new();
    for (name, mapping) in entries {
        let Some(name) = text(name, "alias", report) else { continue };
        let Some(pairs) = mapping.entries() else {
            report.error_hint(mapping.span, format!("an alias must be a map, not {}", mapping.what()), "write `rule: field` under it");
            continue;
        };
        if !group_by.iter().any(|field| field.value == name.value) {
            report.warn(name.span, format!("alias `{}` is not in `group-by`: it does nothing", shorten(&name.value)), "add it there");
        }
        let mut fields = Vec::new();
        for (rule, field) in pairs {
            let (Some(rule), Some(field)) = (text(rule, "rule", report), text(field, "field", report)) else { continue };
            if !rules.iter().any(|known| known.value == rule.value) {
                report.unknown(rule.span, "rule", &rule.value, rules.iter().map(|rule| rule.value.as_str()));
            }
            fields.push((rule, field));
        }
        for rule in rules.iter().filter(|rule| !fields.iter().any(|(known, _)| known.value == rule.value)) {
            let message = format!("alias `{}` has no field for rule `{}`", shorten(&name.value), shorten(&rule.value));
            report.warn(name.span, message, "its events are taken to have a field of the alias's own name");
        }
        aliases.push(Alias { name, fields });
    }
    aliases
}

#[cfg(test)]
mod tests;
