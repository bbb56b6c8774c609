//! References to edges: rules to feeds, correlations to parents.
//!
//! In: all rules and correlations of a set. Out: the linked plan, or every fault at once. Invariant: findings only flow from
//! a node to nodes that judge later than it.

use std::collections::HashMap;

use super::{Correlation, CorrelationKind, Fault, Feed, FeedId, Node, Origin, Parent, Plan, Rule, Scope, compile};
use crate::rule::ast::{Alias, Spanned, State};

#[derive(Clone, Copy)]
enum Target {
    Rule(usize),
    Node(usize),
}

struct Linker<'a> {
    rules: &'a [&'a Rule],
    correlations: &'a [&'a Correlation],
    nodes: Vec<Node>,
    feeds: Vec<Vec<Feed>>,
    /// Referred to; referred to with `generate`.
    uses: HashMap<(bool, usize), (bool, bool)>,
    targets: HashMap<&'a str, Target>,
    faults: Vec<Fault>,
}

pub(super) fn plan(rules: &[&Rule], correlations: &[&Correlation]) -> Result<Plan, Vec<Fault>> {
    let mut linker = Linker {
        rules,
        correlations,
        nodes: Vec::new(),
        feeds: vec![Vec::new(); rules.len()],
        uses: HashMap::new(),
        targets: HashMap::new(),
        faults: Vec::new(),
    };
    linker.make_nodes();
    for index in 0..linker.nodes.len() {
        if let Origin::Correlation(correlation) = linker.nodes[index].origin {
            linker.link(index, correlation);
        }
    }
    linker.order();
    linker.finish()
}

impl<'a> Linker<'a> {
    fn make_nodes(&mut self) {
        for (index, rule) in self.rules.iter().enumerate() {
            let target = match compile::state_rule(index, rule) {
                None => Target::Rule(index),
                Some(Err(fault)) => {
                    self.faults.push(fault);
                    Target::Rule(index)
                }
                Some(Ok(node)) => {
                    let values = match &rule.meta.ext.state.as_ref().map(|s| &s.value) {
                        Some(State::NewValue { fields, .. }) => fields.iter().map(|f| f.value.clone()).collect(),
                        Some(State::ValueDrop { field, .. }) => vec![field.value.clone()],
                        _ => Vec::new(),
                    };
                    let feed = Feed { id: FeedId(0), node: self.nodes.len(), tag: 0, group_by: node.group_by.clone(), values };
                    self.feeds[index].push(feed);
                    self.nodes.push(node);
                    Target::Node(self.nodes.len() - 1)
                }
            };
            self.name(&rule.meta, target);
        }
        for (index, correlation) in self.correlations.iter().enumerate() {
            match compile::correlation(index, correlation) {
                Ok(node) => {
                    self.nodes.push(node);
                    self.name(&correlation.meta, Target::Node(self.nodes.len() - 1));
                }
                Err(fault) => self.faults.push(fault),
            }
        }
    }

    fn name(&mut self, meta: &'a super::Meta, target: Target) {
        for name in [&meta.id, &meta.name].into_iter().flatten() {
            self.targets.entry(&name.value).or_insert(target);
        }
    }

    fn link(&mut self, parent: usize, correlation: usize) {
        let source = self.correlations[correlation];
        let values: Vec<&Spanned<String>> = match &source.kind {
            CorrelationKind::ValueCount { fields } => fields.iter().collect(),
            CorrelationKind::ValueSum { field } | CorrelationKind::ValueAvg { field } | CorrelationKind::ValuePercentile { field, .. } => {
                vec![field]
            }
            _ => Vec::new(),
        };
        for (tag, reference) in source.rules.iter().enumerate() {
            let Some(target) = self.targets.get(reference.value.as_str()).copied() else {
                let message = format!("no rule or correlation has the id or name `{}`", reference.value);
                self.fault(correlation, reference, message);
                continue;
            };
            let used = match target {
                Target::Rule(rule) => (false, rule),
                Target::Node(node) => (true, node),
            };
            let entry = self.uses.entry(used).or_insert((true, false));
            entry.1 |= source.generate;
            match target {
                Target::Rule(rule) => {
                    let names = |fields: &[&Spanned<String>]| fields.iter().map(|f| aliased(source, self.rules[rule], &f.value).to_owned()).collect();
                    let group_by = names(&source.group_by.iter().collect::<Vec<_>>());
                    let feed = Feed { id: FeedId(0), node: parent, tag: tag as u16, group_by, values: names(&values) };
                    self.feeds[rule].push(feed);
                }
                Target::Node(child) => self.link_node(child, parent, tag as u16, correlation, &values),
            }
        }
    }

    fn link_node(&mut self, child: usize, parent: usize, tag: u16, correlation: usize, values: &[&Spanned<String>]) {
        let source = self.correlations[correlation];
        let reference = &source.rules[usize::from(tag)];
        if self.nodes[child].scope == Scope::Organization && self.nodes[parent].scope == Scope::Account {
            let message = format!("`{}` has `scope: organization`, so this needs it too", reference.value);
            self.fault(correlation, reference, message);
        }
        let mut places = |fields: &[&Spanned<String>]| {
            let mut found = Vec::new();
            for field in fields {
                let name = aliased_node(&source.aliases, &self.nodes[child], &field.value);
                match self.nodes[child].group_by.iter().position(|g| g == name) {
                    Some(place) => found.push(place),
                    None => {
                        let message = format!("`{}` isn't in the group-by of `{}`: its findings have no such field", field.value, reference.value);
                        self.faults.push(Fault { origin: Origin::Correlation(correlation), span: field.span, message });
                    }
                }
            }
            found
        };
        let group_by = places(&source.group_by.iter().collect::<Vec<_>>());
        let values = places(values);
        self.nodes[child].parents.push(Parent { node: parent, tag, group_by, values });
    }

    fn fault(&mut self, correlation: usize, at: &Spanned<String>, message: String) {
        self.faults.push(Fault { origin: Origin::Correlation(correlation), span: at.span, message });
    }

    /// Depths along the edges; what keeps growing is a cycle.
    fn order(&mut self) {
        for node in &mut self.nodes {
            node.depth = i64::from(!node.prompt);
        }
        for _ in 0..=self.nodes.len() {
            let mut changed = false;
            for child in 0..self.nodes.len() {
                for i in 0..self.nodes[child].parents.len() {
                    let parent = self.nodes[child].parents[i].node;
                    let least = self.nodes[child].depth + i64::from(!self.nodes[parent].prompt);
                    if self.nodes[parent].depth < least {
                        self.nodes[parent].depth = least;
                        changed = true;
                    }
                }
            }
            if !changed {
                break;
            }
        }
        self.refuse_cycles();
    }

    fn refuse_cycles(&mut self) {
        let mut open: Vec<usize> = vec![0; self.nodes.len()];
        for node in &self.nodes {
            node.parents.iter().for_each(|p| open[p.node] += 1);
        }
        let mut ready: Vec<usize> = (0..open.len()).filter(|n| open[*n] == 0).collect();
        let mut done = 0;
        while let Some(node) = ready.pop() {
            done += 1;
            for parent in self.nodes[node].parents.clone() {
                open[parent.node] -= 1;
                if open[parent.node] == 0 {
                    ready.push(parent.node);
                }
            }
        }
        if done == open.len() {
            return;
        }
        for (node, _) in open.iter().enumerate().filter(|(_, n)| **n > 0) {
            let node = &self.nodes[node];
            let message = "this correlation refers to itself, directly or through others".into();
            self.faults.push(Fault { origin: node.origin, span: node.meta.span, message });
        }
    }

    fn finish(mut self) -> Result<Plan, Vec<Fault>> {
        if !self.faults.is_empty() {
            return Err(self.faults);
        }
        let alone = |uses: &HashMap<_, (bool, bool)>, key| uses.get(&key).is_none_or(|(_, generate)| *generate);
        for (index, node) in self.nodes.iter_mut().enumerate() {
            node.alerts = alone(&self.uses, (true, index));
        }
        let alerts = (0..self.rules.len()).map(|rule| self.rules[rule].meta.ext.state.is_none() && alone(&self.uses, (false, rule))).collect();
        let mut by_id = Vec::new();
        for (rule, feeds) in self.feeds.iter_mut().enumerate() {
            for (place, feed) in feeds.iter_mut().enumerate() {
                feed.id = FeedId(by_id.len() as u32);
                by_id.push((rule, place));
            }
        }
        Ok(Plan { nodes: self.nodes, feeds: self.feeds, alerts, by_id })
    }
}

fn matches(meta: &super::Meta, reference: &str) -> bool {
    [&meta.id, &meta.name].into_iter().flatten().any(|name| name.value == reference)
}

fn find<'a>(aliases: &'a [Alias], meta: &super::Meta, name: &'a str) -> &'a str {
    let alias = aliases.iter().find(|a| a.name.value == name);
    alias.and_then(|a| a.fields.iter().find(|(rule, _)| matches(meta, &rule.value))).map_or(name, |(_, field)| &field.value)
}

fn aliased<'a>(source: &'a Correlation, rule: &Rule, name: &'a str) -> &'a str {
    find(&source.aliases, &rule.meta, name)
}

fn aliased_node<'a>(aliases: &'a [Alias], node: &Node, name: &'a str) -> &'a str {
    find(aliases, &node.meta, name)
}
