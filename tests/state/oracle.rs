//! The naive evaluator: every rule by its definition over the whole set, no state, no order.
//!
//! In: a case. Out: the alert ids that must exist, with what they are about. Invariant: no code of the program but its types.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};
use trailwarden::rule::ast::{Comparison, Correlation, CorrelationKind, Expression, Meta, Rule, Scope, State};

use crate::world::{Case, Event};

type Group = Vec<Option<String>>;

/// One element of E(rule, group).
#[derive(Debug, Clone, PartialEq, PartialOrd)]
struct Item {
    time: i64,
    identity: Vec<u8>,
    tag: usize,
    /// Value tuple as text.
    tuple: Vec<String>,
    number: f64,
}

/// A window of a node that holds.
#[derive(Debug, Clone)]
struct Finding {
    id: String,
    scope: String,
    group: Group,
    anchor: i64,
}

fn id(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u32).to_le_bytes());
        hash.update(part);
    }
    hash.finalize()[..16].iter().map(|b| format!("{b:02x}")).collect()
}

fn tuple_bytes(values: &[Option<String>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in values {
        match value {
            None => bytes.push(0),
            Some(text) => {
                bytes.push(1);
                bytes.extend((text.len() as u32).to_be_bytes());
                bytes.extend(text.as_bytes());
            }
        }
    }
    bytes
}

fn key(meta: &Meta) -> &str {
    &meta.id.as_ref().unwrap().value
}

fn is_named(meta: &Meta, name: &str) -> bool {
    key(meta) == name || meta.name.as_ref().unwrap().value == name
}

fn scope<'a>(meta: &Meta, account: &'a str) -> &'a str {
    if meta.ext.scope == Scope::Organization { "organization" } else { account }
}

/// All combinations of the fields' values; a field without one is null, or leaves no combination.
fn combinations(event: &Event, fields: &[String], nulls: bool) -> Vec<Group> {
    let mut all: Vec<Group> = vec![vec![]];
    for field in fields {
        let values: Vec<Option<String>> = match event.field(field) {
            [] if nulls => vec![None],
            values => values.iter().map(|v| Some((*v).to_owned())).collect(),
        };
        all = all.iter().flat_map(|head| values.iter().map(move |v| [head.clone(), vec![v.clone()]].concat())).collect();
    }
    all
}

fn alias(c: &Correlation, child: &Meta, name: &str) -> String {
    let alias = c.aliases.iter().find(|a| a.name.value == name);
    let field = alias.and_then(|a| a.fields.iter().find(|(rule, _)| is_named(child, &rule.value)));
    field.map_or(name.to_owned(), |(_, field)| field.value.clone())
}

fn value_fields(c: &Correlation) -> Vec<String> {
    match &c.kind {
        CorrelationKind::ValueCount { fields } => fields.iter().map(|f| f.value.clone()).collect(),
        CorrelationKind::ValueSum { field } | CorrelationKind::ValueAvg { field } | CorrelationKind::ValuePercentile { field, .. } => {
            vec![field.value.clone()]
        }
        _ => vec![],
    }
}

fn numeric(c: &Correlation) -> bool {
    matches!(c.kind, CorrelationKind::ValueSum { .. } | CorrelationKind::ValueAvg { .. } | CorrelationKind::ValuePercentile { .. })
}

fn texts(fields: &[trailwarden::rule::ast::Spanned<String>]) -> Vec<String> {
    fields.iter().map(|f| f.value.clone()).collect()
}

type Evidence = BTreeMap<(String, Group), Vec<Item>>;

struct Oracle<'a> {
    case: &'a Case,
    /// Frontier at the end.
    end: i64,
}

impl Oracle<'_> {
    fn add(&self, evidence: &mut Evidence, place: (String, Group), item: Item) {
        let items = evidence.entry(place).or_default();
        if !items.contains(&item) {
            items.push(item);
        }
    }

    fn evidence(&self, c: &Correlation) -> Evidence {
        let mut evidence = Evidence::new();
        for (tag, reference) in c.rules.iter().enumerate() {
            let plain = self.case.rules.iter().position(|r| is_named(&r.meta, &reference.value) && r.meta.ext.state.is_none());
            match plain {
                Some(rule) => self.of_rule(c, tag, rule, &mut evidence),
                None => self.of_findings(c, tag, &reference.value, &mut evidence),
            }
        }
        evidence
    }

    fn of_rule(&self, c: &Correlation, tag: usize, rule: usize, evidence: &mut Evidence) {
        let child = &self.case.rules[rule].meta;
        let name = |fields: Vec<String>| fields.iter().map(|f| alias(c, child, f)).collect::<Vec<_>>();
        for event in self.case.events.iter().filter(|e| e.rules.contains(&rule)) {
            for group in combinations(event, &name(texts(&c.group_by)), true) {
                for values in combinations(event, &name(value_fields(c)), false) {
                    let tuple: Vec<String> = values.into_iter().flatten().collect();
                    let number = tuple.first().and_then(|t| t.parse::<f64>().ok());
                    if numeric(c) && number.is_none() {
                        continue;
                    }
                    let place = (scope(&c.meta, event.account).to_owned(), group.clone());
                    let identity = event.identity.to_vec();
                    self.add(evidence, place, Item { time: event.time_ms, identity, tag, tuple, number: number.unwrap_or(0.0) });
                }
            }
        }
    }

    fn of_findings(&self, c: &Correlation, tag: usize, name: &str, evidence: &mut Evidence) {
        let (child, names, findings) = self.findings_of(name);
        let place_of = |field: &String| names.iter().position(|n| *n == alias(c, child, field)).unwrap();
        for finding in findings {
            let group: Group = texts(&c.group_by).iter().map(|f| finding.group[place_of(f)].clone()).collect();
            let values: Group = value_fields(c).iter().map(|f| finding.group[place_of(f)].clone()).collect();
            if values.contains(&None) {
                continue;
            }
            let identity = (0..16).map(|i| u8::from_str_radix(&finding.id[2 * i..2 * i + 2], 16).unwrap()).collect();
            let tuple = values.into_iter().flatten().collect();
            self.add(evidence, (finding.scope, group), Item { time: finding.anchor, identity, tag, tuple, number: 0.0 });
        }
    }

    fn findings_of(&self, name: &str) -> (&Meta, Vec<String>, Vec<Finding>) {
        if let Some(c) = self.case.correlations.iter().find(|c| is_named(&c.meta, name)) {
            return (&c.meta, texts(&c.group_by), self.correlation(c));
        }
        let (index, rule) = self.case.rules.iter().enumerate().find(|(_, r)| is_named(&r.meta, name)).unwrap();
        let (State::NewValue { group_by, .. } | State::ValueDrop { group_by, .. } | State::Absence { group_by, .. }) =
            &rule.meta.ext.state.as_ref().unwrap().value;
        (&rule.meta, texts(group_by), self.state(index, rule))
    }

    /// Every window [a − T, a] that ends at an item.
    fn correlation(&self, c: &Correlation) -> Vec<Finding> {
        let span = c.timespan_ms as i64;
        let cell = span.max(3_600_000);
        let mut findings = Vec::new();
        for ((scope, group), items) in self.evidence(c) {
            for end in items.iter().map(|i| i.time).collect::<BTreeSet<_>>() {
                let window: Vec<&Item> = items.iter().filter(|i| i.time >= end - span && i.time <= end).collect();
                if holds(c, &window) {
                    let number = end.div_euclid(cell);
                    let id = id(&[key(&c.meta).as_bytes(), scope.as_bytes(), &tuple_bytes(&group), &number.to_be_bytes()]);
                    findings.push(Finding { id, scope: scope.clone(), group: group.clone(), anchor: end });
                }
            }
        }
        findings
    }

    fn state(&self, index: usize, rule: &Rule) -> Vec<Finding> {
        let matches = || self.case.events.iter().filter(move |e| e.rules.contains(&index));
        match &rule.meta.ext.state.as_ref().unwrap().value {
            State::NewValue { fields, group_by, memory_ms, learning_ms } => {
                let (fields, group_by, memory) = (texts(fields), texts(group_by), *memory_ms as i64);
                let mut seen: BTreeMap<(String, Group, Group), BTreeSet<i64>> = BTreeMap::new();
                for event in matches() {
                    for group in combinations(event, &group_by, true) {
                        for value in combinations(event, &fields, false) {
                            let place = (scope(&rule.meta, event.account).to_owned(), group.clone(), value);
                            seen.entry(place).or_default().insert(event.time_ms);
                        }
                    }
                }
                let first = seen.values().flatten().min().copied().unwrap_or(0);
                let learnt = *learning_ms as i64 + if self.case.replay { first } else { self.case.start_ms };
                let mut findings = Vec::new();
                for ((scope, group, value), times) in &seen {
                    for time in times.iter().filter(|t| **t > learnt && times.range(**t - memory..**t).next().is_none()) {
                        let parts = (key(&rule.meta).as_bytes(), scope.as_bytes(), tuple_bytes(group), tuple_bytes(value));
                        let id = id(&[parts.0, parts.1, &parts.2, &parts.3]);
                        findings.push(Finding { id, scope: scope.clone(), group: group.clone(), anchor: *time });
                    }
                }
                findings
            }
            State::ValueDrop { field, group_by, timespan_ms } => {
                let (span, group_by) = (*timespan_ms as i64, texts(group_by));
                let cell = span.max(3_600_000);
                let mut seen: BTreeMap<(String, Group), Vec<(i64, f64)>> = BTreeMap::new();
                for event in matches() {
                    for group in combinations(event, &group_by, true) {
                        let numbers = event.field(&field.value).iter().filter_map(|v| v.parse::<f64>().ok());
                        seen.entry((scope(&rule.meta, event.account).to_owned(), group)).or_default().extend(numbers.map(|n| (event.time_ms, n)));
                    }
                }
                let mut findings = Vec::new();
                for ((scope, group), points) in &seen {
                    for (time, value) in points {
                        if points.iter().any(|(t, v)| t < time && *t >= time - span && v > value) {
                            let number = time.div_euclid(cell);
                            let id = id(&[key(&rule.meta).as_bytes(), scope.as_bytes(), &tuple_bytes(group), &number.to_be_bytes()]);
                            findings.push(Finding { id, scope: scope.clone(), group: group.clone(), anchor: *time });
                        }
                    }
                }
                findings
            }
            State::Absence { group_by, timespan_ms } => self.absence(index, rule, &texts(group_by), *timespan_ms as i64),
        }
    }

    fn absence(&self, index: usize, rule: &Rule, group_by: &[String], span: i64) -> Vec<Finding> {
        let mut seen: BTreeMap<(String, Group), BTreeSet<i64>> = BTreeMap::new();
        for delivery in &self.case.deliveries {
            let event = &self.case.events[delivery.event];
            if event.rules.contains(&index) {
                for group in combinations(event, group_by, true) {
                    let time = if self.case.replay { event.time_ms } else { delivery.arrival_ms };
                    seen.entry((scope(&rule.meta, event.account).to_owned(), group)).or_default().insert(time);
                }
            }
        }
        let mut findings = Vec::new();
        for ((scope, group), times) in &seen {
            for last in times {
                let next = times.range(last + 1..).next().copied().unwrap_or(self.end);
                if next - last > span {
                    let id = id(&[key(&rule.meta).as_bytes(), scope.as_bytes(), &tuple_bytes(group), &last.to_be_bytes()]);
                    findings.push(Finding { id, scope: scope.clone(), group: group.clone(), anchor: last + span });
                }
            }
        }
        findings
    }
}

fn holds(c: &Correlation, window: &[&Item]) -> bool {
    let distinct = |of: &dyn Fn(&Item) -> Vec<u8>| window.iter().map(|i| of(i)).collect::<BTreeSet<_>>().len() as f64;
    let seen: BTreeSet<usize> = window.iter().map(|i| i.tag).collect();
    // One event's value counts once, whichever rules matched it.
    let mut values: Vec<(Vec<u8>, f64)> = window.iter().map(|i| (i.identity.clone(), i.number)).collect();
    values.sort_by(|a, b| a.partial_cmp(b).unwrap());
    values.dedup();
    let mut numbers: Vec<f64> = values.iter().map(|v| v.1).collect();
    numbers.sort_by(f64::total_cmp);
    let lower = c.bounds.iter().all(|b| matches!(b.0, Comparison::Gt | Comparison::Gte));
    match &c.kind {
        CorrelationKind::EventCount => within(c, distinct(&|i| i.identity.clone())),
        CorrelationKind::ValueCount { .. } => within(c, distinct(&|i| tuple_bytes(&i.tuple.iter().cloned().map(Some).collect::<Vec<_>>()))),
        CorrelationKind::Temporal => match &c.expression {
            Some(expression) => truth(&expression.value, &seen),
            None if c.bounds.is_empty() => seen.len() == c.rules.len(),
            None => within(c, seen.len() as f64),
        },
        CorrelationKind::TemporalOrdered => {
            let all = Expression::And((0..c.rules.len()).map(Expression::Rule).collect());
            let expression = c.expression.as_ref().map_or(&all, |e| &e.value);
            !chains(expression, window, &[i64::MIN]).is_empty()
        }
        // With lower bounds only, negative values take nothing away.
        CorrelationKind::ValueSum { .. } if lower => within(c, numbers.iter().map(|n| n.max(0.0)).sum()),
        CorrelationKind::ValueSum { .. } => within(c, numbers.iter().sum()),
        CorrelationKind::ValueAvg { .. } => c.bounds.iter().all(|(op, bound)| compare(*op, numbers.iter().sum(), bound * numbers.len() as f64)),
        CorrelationKind::ValuePercentile { percentile, .. } => {
            let rank = ((percentile * numbers.len() as f64) / 100.0).ceil().max(1.0) as usize;
            within(c, numbers[rank - 1])
        }
    }
}

fn within(c: &Correlation, value: f64) -> bool {
    c.bounds.iter().all(|(op, bound)| compare(*op, value, *bound))
}

fn compare(op: Comparison, value: f64, bound: f64) -> bool {
    match op {
        Comparison::Lt => value < bound,
        Comparison::Lte => value <= bound,
        Comparison::Gt => value > bound,
        Comparison::Gte => value >= bound,
        Comparison::Eq => value == bound,
        Comparison::Neq => value != bound,
    }
}

fn truth(expression: &Expression, seen: &BTreeSet<usize>) -> bool {
    match expression {
        Expression::Rule(rule) => seen.contains(rule),
        Expression::Not(inner) => !truth(inner, seen),
        Expression::And(parts) => parts.iter().all(|p| truth(p, seen)),
        Expression::Or(parts) => parts.iter().any(|p| truth(p, seen)),
    }
}

/// Every second at which the expression can have come true, after any of `starts`.
fn chains(expression: &Expression, window: &[&Item], starts: &[i64]) -> Vec<i64> {
    let mut ends: Vec<i64> = match expression {
        Expression::Rule(rule) => {
            let seconds = window.iter().filter(|i| i.tag == *rule).map(|i| i.time.div_euclid(1000));
            seconds.filter(|s| starts.iter().any(|start| start <= s)).collect()
        }
        Expression::And(parts) => parts.iter().fold(starts.to_vec(), |starts, part| chains(part, window, &starts)),
        Expression::Or(parts) => parts.iter().flat_map(|part| chains(part, window, starts)).collect(),
        Expression::Not(_) => unreachable!("refused in an order"),
    };
    ends.sort_unstable();
    ends.dedup();
    ends
}

fn alerts(case: &Case, meta: &Meta) -> bool {
    let users: Vec<&Correlation> = case.correlations.iter().filter(|c| c.rules.iter().any(|r| is_named(meta, &r.value))).collect();
    users.is_empty() || users.iter().any(|c| c.generate)
}

/// Alert id → what it is.
pub fn ids(case: &Case) -> BTreeMap<String, String> {
    let end = match case.replay {
        true => case.events.iter().map(|e| e.time_ms).max().unwrap_or(0),
        false => crate::drive::end_ms(case),
    };
    let oracle = Oracle { case, end };
    let mut ids = BTreeMap::new();
    let mut tell = |meta: &Meta, finding: &Finding| {
        ids.insert(finding.id.clone(), format!("{} {} {:?} at {}", key(meta), finding.scope, finding.group, finding.anchor));
    };
    for c in case.correlations.iter().filter(|c| alerts(case, &c.meta)) {
        oracle.correlation(c).iter().for_each(|f| tell(&c.meta, f));
    }
    for (index, rule) in case.rules.iter().enumerate().filter(|(_, r)| alerts(case, &r.meta)) {
        if rule.meta.ext.state.is_some() {
            oracle.state(index, rule).iter().for_each(|f| tell(&rule.meta, f));
            continue;
        }
        for event in case.events.iter().filter(|e| e.rules.contains(&index)) {
            let scope = scope(&rule.meta, event.account);
            let id = id(&[key(&rule.meta).as_bytes(), scope.as_bytes(), &event.identity]);
            tell(&rule.meta, &Finding { id, scope: scope.to_owned(), group: vec![], anchor: event.time_ms });
        }
    }
    ids
}
