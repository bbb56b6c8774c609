//! What the daemon shows of itself: each part stored whole by whoever knows it, read by whoever asks.
//!
//! In: snapshots by the pipeline, delivery and the rule loader. Out: the same to the page and the API. Invariant: reading never
//! waits for a writer, and a snapshot is never half of two.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use arc_swap::ArcSwap;
use serde::Serialize;

use crate::{alert::Level, alert::view::SinkView};

/// No progress of the pipeline for so long makes `/healthz` fail.
const PULSE_MS: i64 = 60_000;

/// The parts of the daemon's state that are shown. Shared by `Arc`; `store` a part at start and whenever it has changed,
/// shards and rules every second or so.
pub struct Board {
    pub started_ms: i64,
    /// This worker's name in the lease table, or `embedded`.
    pub worker: ArcSwap<String>,
    /// The worker of the fleet that delivers; empty: this one, or not known.
    pub delivers: ArcSwap<String>,
    pub shards: ArcSwap<Vec<ShardView>>,
    pub rules: ArcSwap<Vec<RuleView>>,
    pub rule_set: ArcSwap<RuleSetView>,
    pub queues: ArcSwap<Vec<QueueView>>,
    pub sinks: ArcSwap<Vec<SinkView>>,
    rules_loaded: AtomicBool,
    leases_held: AtomicBool,
    draining: AtomicBool,
    pulse_ms: AtomicI64,
}

/// A shard of a stream, ours or another worker's.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ShardView {
    /// `stream/shardId-…`
    pub shard: String,
    /// The worker that holds its lease; empty: nobody.
    pub owner: String,
    pub ours: bool,
    /// From a record's arrival to its reading. Of another worker's shard what goes beyond the ten seconds that its telling takes; `None`: not known.
    pub lag_ms: Option<i64>,
    pub checkpoint_age_ms: Option<i64>,
    pub records: u64,
    /// `reading`, `waiting for its parents`, `throttled`, …
    pub state: String,
}

/// The kind of a rule that feeds correlations and makes no alert by itself.
pub const BASE: &str = "base";

/// A rule or correlation of the set in force.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleView {
    pub id: String,
    pub title: String,
    pub level: Level,
    pub tags: Vec<String>,
    /// `rule`, the kind of its correlation, or `BASE`.
    pub kind: String,
    pub matches: u64,
    pub findings: u64,
    pub last_fired_ms: Option<i64>,
    /// Thread time spent on it, estimated.
    pub cost_ms: f64,
}

/// The rule set as a whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RuleSetView {
    /// Of all documents in force; the same on every worker that runs the same rules.
    pub hash: String,
    pub rules: usize,
    pub loaded_ms: i64,
    /// Why the newest reload was not taken; the set in force is an older one then.
    pub reload_error: Option<String>,
    pub reload_error_ms: Option<i64>,
}

/// A bounded queue.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct QueueView {
    pub name: String,
    pub items: u64,
    pub bytes: u64,
    pub capacity_bytes: u64,
}

/// Whether the daemon does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Readiness {
    pub ready: bool,
    pub rules_loaded: bool,
    pub leases_held: bool,
    pub draining: bool,
}

impl Board {
    /// The set in force stays; a set that loads takes the error away.
    pub fn reload_failed(&self, error: String, now_ms: i64) {
        let view = RuleSetView { reload_error: Some(error), reload_error_ms: Some(now_ms), ..RuleSetView::clone(&self.rule_set.load()) };
        self.rule_set.store(Arc::new(view));
    }

    pub fn new(now_ms: i64) -> Arc<Self> {
        Arc::new(Self {
            started_ms: now_ms,
            worker: ArcSwap::from_pointee("embedded".to_owned()),
            delivers: ArcSwap::default(),
            shards: ArcSwap::default(),
            rules: ArcSwap::default(),
            rule_set: ArcSwap::default(),
            queues: ArcSwap::default(),
            sinks: ArcSwap::default(),
            rules_loaded: AtomicBool::new(false),
            leases_held: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            pulse_ms: AtomicI64::new(0),
        })
    }

    pub fn set_rules_loaded(&self, loaded: bool) {
        self.rules_loaded.store(loaded, Ordering::Relaxed);
    }

    /// True once this worker reads something, or knows that others read everything.
    pub fn set_leases_held(&self, held: bool) {
        self.leases_held.store(held, Ordering::Relaxed);
    }

    /// The daemon is on its way out: `/readyz` says 503 from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// The pipeline made progress, or knows that there is nothing to do.
    pub fn pulse(&self, now_ms: i64) {
        self.pulse_ms.store(now_ms, Ordering::Relaxed);
    }

    pub fn readiness(&self) -> Readiness {
        let rules_loaded = self.rules_loaded.load(Ordering::Relaxed);
        let leases_held = self.leases_held.load(Ordering::Relaxed);
        let draining = self.draining.load(Ordering::Relaxed);
        Readiness { ready: rules_loaded && leases_held && !draining, rules_loaded, leases_held, draining }
    }

    /// False while the pipeline has stood still for a minute. One that never moved is starting; readiness speaks for it.
    pub fn is_alive(&self, now_ms: i64) -> bool {
        let pulse_ms = self.pulse_ms.load(Ordering::Relaxed);
        pulse_ms == 0 || now_ms.saturating_sub(pulse_ms) < PULSE_MS
    }

    /// The newest record read, counted from its arrival, over the shards that are ours.
    pub fn max_lag_ms(&self) -> Option<i64> {
        self.shards.load().iter().filter(|s| s.ours).filter_map(|s| s.lag_ms).max()
    }
}

impl RuleView {
    /// It has shown that it works: by a finding, or for a base rule by a match.
    pub fn has_fired(&self) -> bool {
        self.findings > 0 || self.kind == BASE && self.matches > 0
    }
}

impl Readiness {
    pub fn why(self) -> &'static str {
        match self {
            Self { draining: true, .. } => "draining: the daemon is stopping",
            Self { rules_loaded: false, .. } => "no rules are loaded yet",
            Self { leases_held: false, .. } => "no lease is held yet",
            _ => "ready",
        }
    }
}
