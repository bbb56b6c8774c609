//! A finding made owned, told and routable: what people and machines outside get to see.
//!
//! In: a rule (or correlation) that fired, with the evidence. Out: `Alert`, whose id is the same on every replay.
//! Invariant: everything in it has been redacted; it is *not* escaped: each sink escapes for its own medium.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub mod escape;
pub mod ocsf;
pub mod redact;
pub mod view;

/// Sigma's levels as the outside sees them, in order of urgency.
pub use crate::rule::ast::Level;

/// The rule's half of an alert: shared by all alerts of the rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleInfo {
    pub id: String,
    pub title: String,
    pub level: Level,
    /// Sigma tags: `attack.t1490`, `pillar.backup`, `service.rds`, …
    pub tags: Vec<String>,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub false_positives: Vec<String>,
    /// What the person on call should do next.
    #[serde(default)]
    pub next: Option<String>,
    /// A rate or an absence is over when it has been quiet for so long: delivery then resolves its incident. `None` for a
    /// deed, which stays done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolve_after_ms: Option<u64>,
}

/// One event that an alert rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventRef {
    pub id: String,
    /// RFC 3339, UTC.
    pub time: String,
    /// CloudTrail's eventSource, or the log group.
    pub source: String,
    pub name: String,
}

/// An owned, routable finding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// 32 hex digits; the same for the same finding on any replay (DESIGN.md 3).
    pub id: String,
    /// The incident's key, PagerDuty's `dedup_key`: the id of the alert that opened it.
    pub incident: String,
    /// Milliseconds since the epoch of the newest event that made it fire.
    pub time_ms: i64,
    pub rule: Arc<RuleInfo>,
    pub account: String,
    pub region: String,
    /// Group-by names and values.
    pub group: Vec<(String, String)>,
    /// Who did what to which resource from where, in one line.
    pub summary: String,
    /// The first 100.
    pub events: Vec<EventRef>,
    /// Distinct identities.
    pub count: u64,
    /// The newest event came after its window had been judged.
    pub late: bool,
    /// Nothing fired: what the incident told of is over (an absent feed is back).
    #[serde(default, skip_serializing_if = "is_false")]
    pub resolved: bool,
    /// When the record that made it fire reached the stream, in milliseconds since the epoch: what its delivery is timed from. 0
    /// where no record did (a silence, a window that the frontier closed) or there is no stream.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub arrived_ms: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Alert {
    /// Takes secrets out of all text that came from events. What makes an alert calls it before the alert is kept or shown.
    pub fn redact(&mut self) {
        let clean = |text: &mut String| {
            if let std::borrow::Cow::Owned(redacted) = redact::redact(text) {
                *text = redacted;
            }
        };
        clean(&mut self.summary);
        self.group.iter_mut().for_each(|(_, value)| clean(value));
        for event in &mut self.events {
            clean(&mut event.name);
            clean(&mut event.source);
        }
    }

    /// The pillar tag's value, `backup` of `pillar.backup`.
    pub fn pillar(&self) -> Option<&str> {
        self.rule.tags.iter().find_map(|tag| tag.strip_prefix("pillar."))
    }
}

/// A level's word, as rules write it.
pub fn level_word(level: Level) -> &'static str {
    match level {
        Level::Informational => "informational",
        Level::Low => "low",
        Level::Medium => "medium",
        Level::High => "high",
        Level::Critical => "critical",
    }
}
