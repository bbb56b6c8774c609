//! What the status page shows of the pipeline.
//!
//! In: the keeper's view of shards and rules. Out: fresh snapshots on the board, at most every second. Invariant: showing costs
//! nothing per event.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::Detectors;
use crate::admin::Board;
use crate::admin::status::{BASE, RuleSetView, RuleView, ShardView};
use crate::alert::Alert;
use crate::metrics::RuleMetrics;

const EVERY_MS: i64 = 1_000;

pub(super) struct Showing {
    board: Arc<Board>,
    shown_ms: i64,
    /// Rule id → when it last fired.
    fired_ms: BTreeMap<String, i64>,
}

impl Showing {
    pub fn new(board: Arc<Board>, detectors: &Detectors, now_ms: i64) -> Self {
        let showing = Self { board, shown_ms: 0, fired_ms: BTreeMap::new() };
        showing.rules_loaded(detectors, now_ms);
        showing
    }

    pub fn rules_loaded(&self, detectors: &Detectors, now_ms: i64) {
        let rules = detectors.rules.len() + detectors.correlations.len();
        let view = RuleSetView { hash: hash(detectors), rules, loaded_ms: now_ms, reload_error: None, reload_error_ms: None };
        self.board.rule_set.store(Arc::new(view));
        self.board.set_rules_loaded(true);
    }

    pub fn fired(&mut self, alerts: &[Alert]) {
        for alert in alerts {
            self.fired_ms.insert(alert.rule.id.clone(), alert.time_ms);
        }
    }

    /// A sign of life; true where a snapshot is due.
    pub fn is_due(&self, now_ms: i64) -> bool {
        self.board.pulse(now_ms);
        now_ms - self.shown_ms >= EVERY_MS
    }

    pub fn show(&mut self, detectors: &Detectors, meters: &BTreeMap<String, RuleMetrics>, shards: Vec<ShardView>, now_ms: i64) {
        self.shown_ms = now_ms;
        // A worker whose share is empty is ready too, as long as others read everything.
        let all_read = !shards.is_empty() && shards.iter().all(|shard| !shard.owner.is_empty());
        self.board.set_leases_held(all_read || shards.iter().any(|shard| shard.ours));
        self.board.shards.store(Arc::new(shards));
        // A rule that is judged as a correlation of its own is shown as that.
        let rules = detectors.infos.iter().zip(&detectors.captures).filter(|(info, _)| !detectors.plan.nodes.iter().any(|n| n.rule == info.id));
        let rules = rules.map(|(info, capture)| {
            let kind = if capture.alerts { "rule" } else { BASE };
            (info.id.clone(), info.title.clone(), info.level, info.tags.clone(), kind.to_owned())
        });
        let nodes = detectors.plan.nodes.iter().map(|node| {
            let kind = if node.alerts { node.kind.name() } else { BASE };
            let tags = node.meta.tags.iter().map(|t| t.value.clone()).collect();
            (node.rule.clone(), node.meta.title.value.clone(), node.meta.level, tags, kind.to_owned())
        });
        let view = |(id, title, level, tags, kind): (String, String, _, Vec<String>, String)| {
            let meter = meters.get(&id);
            let count = |of: fn(&RuleMetrics) -> u64| meter.map_or(0, of);
            let (matches, findings) = (count(|m| m.matches.get()), count(|m| m.findings.get()));
            let cost_ms = meter.map_or(0.0, |m| m.cost_seconds.get() * 1e3);
            let last_fired_ms = self.fired_ms.get(&id).copied();
            RuleView { id, title, level, tags, kind, matches, findings, last_fired_ms, cost_ms }
        };
        self.board.rules.store(Arc::new(rules.chain(nodes).map(view).collect()));
    }
}

/// The same for the same rules, on every worker.
fn hash(detectors: &Detectors) -> String {
    let mut hasher = Sha256::new();
    for rule in &detectors.rules {
        hasher.update(format!("{:?}{:?}", rule.selections, rule.conditions));
    }
    for correlation in &detectors.correlations {
        hasher.update(format!("{correlation:?}"));
    }
    let digest = hasher.finalize();
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
