//! Storm control: a rule that opens incident after incident gets a few pages, then one that counts.
//!
//! In: a rule's new incident and the time. Out: a page of its own, or the storm's key. Invariant: other rules are not touched,
//! and the storm's count is exact.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StormConfig {
    /// So many incidents of one rule within `window_seconds` get a page each; further ones share one.
    #[serde(default = "default_incidents")]
    pub incidents: usize,
    /// A storm is over when the rule has opened nothing for so long.
    #[serde(default = "default_window_seconds")]
    pub window_seconds: u64,
    /// How often an open incident or storm that grows is told again, with its count.
    #[serde(default = "default_update_seconds")]
    pub update_seconds: u64,
}

fn default_incidents() -> usize {
    5
}

fn default_window_seconds() -> u64 {
    600
}

fn default_update_seconds() -> u64 {
    60
}

impl Default for StormConfig {
    fn default() -> Self {
        Self { incidents: default_incidents(), window_seconds: default_window_seconds(), update_seconds: default_update_seconds() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// An incident with a page of its own.
    Own,
    /// Counted by the storm incident of this key.
    Storm { key: String },
}

/// One rule's recent past; durable, so that a restart in a storm pages nobody anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StormRow {
    /// When the newest incidents with pages of their own opened; at most `incidents` many.
    opened_ms: VecDeque<i64>,
    /// Since when, and when it was last fed.
    storm_ms: Option<(i64, i64)>,
}

/// One row a rule: as many as rules are loaded.
#[derive(Debug)]
pub struct StormControl {
    config: StormConfig,
    rules: HashMap<String, StormRow>,
}

impl StormControl {
    pub fn new(config: StormConfig) -> Self {
        Self { config, rules: HashMap::new() }
    }

    /// A row read back from the store.
    pub fn restore(&mut self, rule: String, row: StormRow) {
        self.rules.insert(rule, row);
    }

    pub fn row(&self, rule: &str) -> Option<&StormRow> {
        self.rules.get(rule)
    }

    /// A new incident of the rule.
    pub fn judge(&mut self, rule: &str, now_ms: i64) -> Verdict {
        let window_ms = i64::try_from(self.config.window_seconds).unwrap_or(i64::MAX / 1000).saturating_mul(1000);
        let row = self.rules.entry(rule.to_owned()).or_default();
        if let Some((since_ms, fed_ms)) = row.storm_ms
            && now_ms.saturating_sub(fed_ms) < window_ms
        {
            row.storm_ms = Some((since_ms, now_ms.max(fed_ms)));
            return Verdict::Storm { key: key(rule, since_ms) };
        }
        row.storm_ms = None;
        while row.opened_ms.front().is_some_and(|at| now_ms.saturating_sub(*at) >= window_ms) {
            row.opened_ms.pop_front();
        }
        if row.opened_ms.len() < self.config.incidents.max(1) {
            row.opened_ms.push_back(now_ms);
            return Verdict::Own;
        }
        row.storm_ms = Some((now_ms, now_ms));
        Verdict::Storm { key: key(rule, now_ms) }
    }
}

fn key(rule: &str, since_ms: i64) -> String {
    format!("storm-{rule}-{since_ms}")
}
