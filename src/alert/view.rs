//! What a person sees of alerts and sinks: rows of the status page and of the API.
//!
//! In: what delivery decided and counted. Out: values that serialize as the API documents them. Invariant: no address and no
//! secret of a sink is in them.

use serde::{Deserialize, Serialize};

use super::Alert;

/// How many of them the store keeps for the page.
pub const RECENT_ALERTS: usize = 500;

/// The kv namespace of `AlertView` rows, keyed by time and id so that the newest are the last.
pub const RECENT: &str = "recent";

/// What delivery did with an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Fate {
    /// It opened an incident and is on its way.
    Sent,
    /// It joined an incident that people have been told of.
    Grouped,
    /// Its rule fires in a storm: one notice counts them all.
    Storm,
    /// Archived only.
    Silenced { reason: String },
    /// No route takes it; shown here alone.
    Unrouted,
    /// What an earlier alert told of is over.
    Resolved,
}

/// An alert and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertView {
    #[serde(flatten)]
    pub fate: Fate,
    /// When delivery took it up, in milliseconds since the epoch.
    pub seen_ms: i64,
    /// The incident that people are told of: the alert's own, or its storm's.
    pub incident: String,
    pub account_name: Option<String>,
    pub sinks: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub test: bool,
    pub alert: Alert,
}

/// One sink's standing.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SinkView {
    pub name: String,
    pub kind: &'static str,
    /// Whether its newest request was accepted.
    pub up: bool,
    pub last_error: Option<String>,
    /// Notices that wait for it.
    pub pending: usize,
    /// How long the oldest of them has waited.
    pub oldest_ms: i64,
    pub delivered: u64,
    pub retried: u64,
    pub rejected: u64,
    pub dead_letters: u64,
    /// Until when it is left alone.
    pub paused_until_ms: i64,
    pub request_p50_ms: f64,
    pub request_p99_ms: f64,
}
