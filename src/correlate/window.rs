//! The items of one group, arranged so that a sliding window is a look-up.
//!
//! In: items in any order, repeats welcome. Out: at which times a window that ends there satisfies the rule. A window is
//! `[a − timespan, a]`, both ends included, and ends at an item. Invariant: answers depend on the set of items alone.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Id, Item,
    number::{self, Bound},
    plan::{By, Kind, Node},
    timeline::Timeline,
};
use crate::rule::ast::{Comparison, Expression};

mod drops;

use drops::Drops;

/// One group's items.
#[derive(Debug)]
pub enum Window {
    /// Counts, sums, averages, percentiles, plain `temporal`: step functions of time.
    Lines(Lines),
    /// Extended and ordered temporal: times by rule.
    Tags(Vec<BTreeSet<i64>>),
    Drops(Drops),
}

/// What the window counts, once while any of its occurrences is in the window.
pub type Key = (Id, Id);

#[derive(Debug, Default)]
pub struct Lines {
    seen: BTreeSet<(Key, i64)>,
    /// The first has the marks of the items.
    lines: Vec<Timeline>,
}

impl Window {
    pub fn new(node: &Node) -> Self {
        match &node.kind {
            Kind::Expression { .. } | Kind::Ordered { .. } => Self::Tags(vec![BTreeSet::new(); node.rules]),
            Kind::Drop => Self::Drops(Drops::default()),
            kind => Self::Lines(Lines { seen: BTreeSet::new(), lines: (0..kind.lines()).map(|_| Timeline::default()).collect() }),
        }
    }

    pub fn insert(&mut self, node: &Node, item: &Item) {
        match self {
            Self::Lines(lines) => lines.insert(node, item),
            Self::Tags(times) => {
                if let Some(times) = times.get_mut(usize::from(item.tag)) {
                    times.insert(item.time_ms);
                }
            }
            Self::Drops(drops) => drops.insert(item.time_ms, number::from_bytes(item.value)),
        }
    }

    /// The first time within `from..=until` at which a prompt rule's window holds.
    pub fn first_holding(&self, node: &Node, from: i64, until: i64) -> Option<i64> {
        match (self, &node.kind) {
            (Self::Lines(lines), Kind::Distinct { .. }) => lines.lines.first()?.first_at_least(from, until, node.least_count().unwrap_or(0) as i128),
            (Self::Lines(lines), Kind::Sum { bounds }) => lines.lines.first()?.first_at_least(from, until, number::least(bounds)),
            (Self::Tags(times), Kind::Expression { expression }) => first_present(times, expression, node.timespan_ms, from, until),
            (Self::Tags(times), Kind::Ordered { expression }) => first_ordered(times, expression, node.timespan_ms, from, until),
            (Self::Drops(drops), _) => drops.first_drop(node.timespan_ms, from, until),
            _ => None,
        }
    }

    /// Does the window that ends at `at` satisfy the rule?
    pub fn holds(&self, node: &Node, at: i64) -> bool {
        match (self, &node.kind) {
            (Self::Lines(lines), Kind::Distinct { bounds, .. }) => {
                let count = lines.at(0, at) * 1_000_000;
                bounds.iter().all(|b| b.holds(count))
            }
            (Self::Lines(lines), Kind::Sum { bounds }) => bounds.iter().all(|b| b.holds(lines.at(0, at))),
            (Self::Lines(lines), Kind::Average { bounds }) => {
                let (count, sum) = (lines.at(0, at), lines.at(1, at));
                count > 0 && bounds.iter().all(|b| Bound { op: b.op, micros: b.micros * count }.holds(sum))
            }
            (Self::Lines(lines), Kind::Percentile { percent_micros, bounds }) => lines.percentile_holds(*percent_micros, bounds, at),
            _ => self.first_holding_any(node, at),
        }
    }

    fn first_holding_any(&self, node: &Node, at: i64) -> bool {
        match (self, &node.kind) {
            (Self::Tags(times), Kind::Expression { expression }) => present(times, expression, at.saturating_sub(node.timespan_ms), at),
            _ => self.first_holding(node, at, at).is_some(),
        }
    }

    /// The first time within `from..=until` at which the window holds, whatever the rule's kind.
    pub fn first_in(&self, node: &Node, from: i64, until: i64) -> Option<i64> {
        if node.prompt {
            return self.first_holding(node, from, until);
        }
        match self {
            Self::Lines(lines) => lines.lines.first()?.items(from, until).find(|at| self.holds(node, *at)),
            Self::Tags(times) => {
                let mut all: Vec<i64> = times.iter().flat_map(|t| t.range(from..=until).copied()).collect();
                all.sort_unstable();
                all.into_iter().find(|at| self.holds(node, *at))
            }
            Self::Drops(_) => None,
        }
    }

    /// Forgets of the times `from..=until` what no window that ends later can need: a count that takes `keep` distinct things
    /// needs the newest occurrence of the `keep` newest. Returns what stays of that range; `None` where all does.
    pub fn thin(&mut self, node: &Node, from: i64, until: i64, keep: usize) -> Option<BTreeSet<(Key, i64)>> {
        let (Self::Lines(lines), Kind::Distinct { .. }) = (&mut *self, &node.kind) else { return None };
        let mut newest: BTreeMap<Key, i64> = BTreeMap::new();
        for (key, time_ms) in lines.seen.iter().filter(|o| o.1 >= from && o.1 <= until) {
            newest.insert(*key, *time_ms);
        }
        let mut by_age: Vec<(i64, Key)> = newest.into_iter().map(|(key, time_ms)| (time_ms, key)).collect();
        by_age.sort_unstable();
        let kept: BTreeSet<(Key, i64)> = by_age.into_iter().rev().take(keep).map(|(time_ms, key)| (key, time_ms)).collect();
        let seen = std::mem::take(&mut lines.seen);
        lines.lines[0] = Timeline::default();
        for (key, time_ms) in seen {
            if time_ms < from || time_ms > until || kept.contains(&(key, time_ms)) {
                lines.add(node, key, time_ms, 0);
            }
        }
        Some(kept)
    }

    /// Heap bytes, about.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Lines(lines) => lines.seen.len() * size_of::<(Key, i64)>() * 3 / 2 + lines.lines.iter().map(Timeline::bytes).sum::<usize>(),
            Self::Tags(times) => times.iter().map(|t| 24 + t.len() * 12).sum(),
            Self::Drops(drops) => drops.bytes(),
        }
    }
}

impl Lines {
    fn at(&self, line: usize, time_ms: i64) -> i128 {
        self.lines[line].at(time_ms)
    }

    /// An occurrence adds its weight to the windows that no neighbouring occurrence of the same key already covers.
    fn insert(&mut self, node: &Node, item: &Item) {
        self.add(node, key(&node.kind, item), item.time_ms, number::from_bytes(item.value));
    }

    fn add(&mut self, node: &Node, key: Key, t: i64, value: i128) {
        let span = node.timespan_ms;
        self.lines[0].mark(t);
        if !self.seen.insert((key, t)) {
            return;
        }
        let before = self.seen.range((key, i64::MIN)..(key, t)).next_back().map(|o| o.1);
        let after = self.seen.range((key, t.saturating_add(1))..=(key, i64::MAX)).next().map(|o| o.1);
        let from = before.map_or(t, |b| t.max(b.saturating_add(span).saturating_add(1)));
        let until = after.map_or(t.saturating_add(span), |a| t.saturating_add(span).min(a - 1));
        if from > until {
            return;
        }
        for (i, line) in self.lines.iter_mut().enumerate() {
            let weight = weight(node, i, value);
            if weight != 0 {
                line.add(from, until, weight);
            }
        }
    }

    /// Nearest rank: the ⌈p·n/100⌉-th smallest, told from how many values lie below and at the bound.
    fn percentile_holds(&self, percent_micros: i128, bounds: &[Bound], at: i64) -> bool {
        let count = self.at(0, at);
        let rank = ((percent_micros * count + 99_999_999) / 100_000_000).clamp(1, count.max(1));
        count > 0
            && bounds.iter().enumerate().all(|(i, bound)| {
                let below = self.at(1 + 2 * i, at) >= rank;
                let at_most = self.at(2 + 2 * i, at) >= rank;
                match bound.op {
                    Comparison::Lt => below,
                    Comparison::Lte => at_most,
                    Comparison::Gt => !at_most,
                    Comparison::Gte => !below,
                    Comparison::Eq => at_most && !below,
                    Comparison::Neq => below || !at_most,
                }
            })
    }
}

pub fn key(kind: &Kind, item: &Item) -> Key {
    match kind {
        Kind::Distinct { by: By::Identity, .. } => (item.identity, [0; 16]),
        Kind::Distinct { by: By::Value, .. } => (item.value, [0; 16]),
        Kind::Distinct { by: By::Rule, .. } => (u128::from(item.tag).to_be_bytes(), [0; 16]),
        _ => (item.identity, item.value),
    }
}

fn weight(node: &Node, line: usize, value: i128) -> i128 {
    match (&node.kind, line) {
        (Kind::Sum { .. }, _) if node.prompt => value.max(0),
        (Kind::Sum { .. }, _) | (Kind::Average { .. }, 1) => value,
        (Kind::Percentile { bounds, .. }, 1..) => {
            let bound = &bounds[(line - 1) / 2];
            i128::from(if line % 2 == 1 { value < bound.micros } else { value <= bound.micros })
        }
        _ => 1,
    }
}

/// Some item of the rule within `from..=until`.
fn seen(times: &[BTreeSet<i64>], rule: usize, from: i64, until: i64) -> bool {
    times.get(rule).is_some_and(|t| t.range(from..=until).next().is_some())
}

fn present(times: &[BTreeSet<i64>], expression: &Expression, from: i64, until: i64) -> bool {
    match expression {
        Expression::Rule(rule) => seen(times, *rule, from, until),
        Expression::Not(inner) => !present(times, inner, from, until),
        Expression::And(parts) => parts.iter().all(|e| present(times, e, from, until)),
        Expression::Or(parts) => parts.iter().any(|e| present(times, e, from, until)),
    }
}

/// The next item of any rule at or after `from`.
fn next_item<'a>(times: impl Iterator<Item = &'a BTreeSet<i64>>, from: i64) -> Option<i64> {
    times.filter_map(|t| t.range(from..).next()).min().copied()
}

/// Without `not`, a window that fails can only hold once a rule that it lacks is seen: each step goes to the next such item.
fn first_present(times: &[BTreeSet<i64>], expression: &Expression, span: i64, from: i64, until: i64) -> Option<i64> {
    let mut at = next_item(times.iter(), from)?;
    while at <= until {
        let start = at.saturating_sub(span);
        if present(times, expression, start, at) {
            return Some(at);
        }
        let lacking = times.iter().enumerate().filter(|(rule, _)| !seen(times, *rule, start, at)).map(|(_, t)| t);
        at = next_item(lacking, at.checked_add(1)?)?;
    }
    None
}

/// The earliest end of a chain whose items are not before `start`: each rule's second is not before its predecessor's.
fn chain_end(times: &[BTreeSet<i64>], expression: &Expression, start: i64, second: i64) -> Option<i64> {
    match expression {
        Expression::Rule(rule) => times.get(*rule)?.range(start.max(second.saturating_mul(1000))..).next().copied(),
        Expression::And(parts) => {
            let mut end = i64::MIN;
            let mut second = second;
            for part in parts {
                end = end.max(chain_end(times, part, start, second)?);
                second = end.div_euclid(1000);
            }
            Some(end)
        }
        Expression::Or(parts) => parts.iter().filter_map(|e| chain_end(times, e, start, second)).min(),
        // `plan` refuses `not` in an order.
        Expression::Not(_) => None,
    }
}

/// If the earliest chain that starts in the window ends behind it, no window before that end can hold.
fn first_ordered(times: &[BTreeSet<i64>], expression: &Expression, span: i64, from: i64, until: i64) -> Option<i64> {
    let mut at = next_item(times.iter(), from)?;
    while at <= until {
        let start = at.saturating_sub(span);
        let end = chain_end(times, expression, start, start.div_euclid(1000))?;
        if end <= at {
            return Some(at);
        }
        at = end;
    }
    None
}
