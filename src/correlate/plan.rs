//! From rules and correlations to the graph of what feeds what.
//!
//! In: a checked rule set. Out: per rule, which fields of its matches are captured for which node; per node, its condition in
//! the form that windows answer. Invariant: the graph has no cycle, and every reference and group-by field is resolved.

use std::borrow::Borrow;

use super::{
    HOUR_MS, Id, digest,
    number::{self, Bound},
};
use crate::rule::ast::{Comparison, Correlation, CorrelationKind, Expression, Meta, Rule, Scope, Span, State};

mod compile;
mod link;

/// Numbers a feed through all rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeedId(pub u32);

/// One way in which a rule's matches become evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    pub id: FeedId,
    /// Index into `Plan::nodes`.
    pub node: usize,
    /// Which of the correlation's rules this is.
    pub tag: u16,
    /// Field paths of the event, in the order of the node's `group_by`.
    pub group_by: Vec<String>,
    /// Field paths whose values are kept.
    pub values: Vec<String>,
}

/// What distinct things a count counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Identity,
    Value,
    Rule,
}

/// A stateful condition.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `event_count`, `value_count`, plain `temporal`.
    Distinct {
        by: By,
        bounds: Vec<Bound>,
    },
    Sum {
        bounds: Vec<Bound>,
    },
    Average {
        bounds: Vec<Bound>,
    },
    Percentile {
        /// Millionths of a percent.
        percent_micros: i128,
        bounds: Vec<Bound>,
    },
    /// Extended `temporal`.
    Expression {
        expression: Expression,
    },
    Ordered {
        expression: Expression,
    },
    NewValue {
        learning_ms: i64,
    },
    Drop,
    Absence,
}

impl Kind {
    /// Step functions that a window of this kind keeps.
    pub(super) fn lines(&self) -> usize {
        match self {
            Self::Average { .. } => 2,
            Self::Percentile { bounds, .. } => 1 + 2 * bounds.len(),
            _ => 1,
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Distinct { by: By::Identity, .. } => "event_count",
            Self::Distinct { by: By::Value, .. } => "value_count",
            Self::Distinct { by: By::Rule, .. } | Self::Expression { .. } => "temporal",
            Self::Sum { .. } => "value_sum",
            Self::Average { .. } => "value_avg",
            Self::Percentile { .. } => "value_percentile",
            Self::Ordered { .. } => "temporal_ordered",
            Self::NewValue { .. } => "new_value",
            Self::Drop => "value_drop",
            Self::Absence => "absence",
        }
    }
}

/// What an item keeps of the value fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    None,
    /// A hash of the tuple.
    Tuple,
    Number,
}

/// A parent correlation that gets this node's findings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    pub node: usize,
    pub tag: u16,
    /// For each of the parent's group-by names: its place in this node's.
    pub group_by: Vec<usize>,
    /// The same for the parent's value fields.
    pub values: Vec<usize>,
}

/// Where a node comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A rule with `trailwarden.state`.
    Rule(usize),
    Correlation(usize),
}

/// One stateful rule.
#[derive(Debug, Clone)]
pub struct Node {
    pub origin: Origin,
    /// The id that alert ids are made of: the rule's id, else its name, else its title.
    pub rule: String,
    pub meta: Meta,
    /// Names the evidence: hash of kind, rules, group-by, values and timespan.
    pub state: Id,
    pub scope: Scope,
    pub group_by: Vec<String>,
    /// For `new_value` its memory.
    pub timespan_ms: i64,
    pub cell_ms: i64,
    pub kind: Kind,
    pub values: Values,
    /// Names of the value fields.
    pub fields: Vec<String>,
    /// How many rules feed it.
    pub rules: usize,
    /// Fires the moment it is true; else its windows are judged at the frontier.
    pub prompt: bool,
    /// Settled rules from here down the chain: a window is judged this many times `settle` after its end.
    pub depth: i64,
    pub parents: Vec<Parent>,
    /// It alerts by itself: nothing refers to it, or something does with `generate`.
    pub alerts: bool,
}

impl Node {
    /// Its findings are evidence of another correlation.
    pub fn chained(&self) -> bool {
        !self.parents.is_empty()
    }

    /// Distinct things that fire a prompt count; what a fired cell must keep.
    pub fn least_count(&self) -> Option<usize> {
        match &self.kind {
            Kind::Distinct { bounds, .. } if self.prompt => {
                let least = number::least(bounds);
                usize::try_from(least.div_euclid(1_000_000) + i128::from(least.rem_euclid(1_000_000) != 0)).ok()
            }
            _ => None,
        }
    }
}

/// What is wrong with a rule set, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub origin: Origin,
    pub span: Span,
    pub message: String,
}

/// The whole graph.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub nodes: Vec<Node>,
    feeds: Vec<Vec<Feed>>,
    alerts: Vec<bool>,
    /// Feed id → (rule, place in its feeds).
    by_id: Vec<(usize, usize)>,
}

impl Plan {
    /// References may name a rule by id or name; one to a rule with `trailwarden.state` means that state's findings.
    pub fn compile<R: Borrow<Rule>, C: Borrow<Correlation>>(rules: &[R], correlations: &[C]) -> Result<Self, Vec<Fault>> {
        let rules: Vec<&Rule> = rules.iter().map(Borrow::borrow).collect();
        let correlations: Vec<&Correlation> = correlations.iter().map(Borrow::borrow).collect();
        link::plan(&rules, &correlations)
    }

    /// Where the matches of rule `rule` go.
    pub fn feeds(&self, rule: usize) -> &[Feed] {
        self.feeds.get(rule).map_or(&[], Vec::as_slice)
    }

    /// Does a match of rule `rule` alert by itself?
    pub fn alerts(&self, rule: usize) -> bool {
        self.alerts.get(rule).copied().unwrap_or(true)
    }

    pub fn feed(&self, id: FeedId) -> Option<&Feed> {
        let (rule, place) = *self.by_id.get(id.0 as usize)?;
        self.feeds.get(rule)?.get(place)
    }
}

#[cfg(test)]
pub(crate) mod tests;
