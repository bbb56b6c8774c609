//! The rows that delivery keeps: incidents, notices that wait, dead letters, silences, storms.
//!
//! In: rows of the store's kv table. Out: types, and the keys that put urgent and old first. Invariant: a waiting notice's key
//! orders by urgency, then by the time at which it was queued.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    alert::{Alert, Level},
    sink::{Action, Notice},
    store::{KvOp, Store, StoreError},
};

pub const INCIDENT: &str = "incident";
pub const PENDING: &str = "pending";
pub const DEAD: &str = "dead";
pub const SILENCE: &str = "silence";
pub const STORM: &str = "storm";
const META: &str = "delivery";

/// What people are told of as one thing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    pub key: String,
    /// The newest alert.
    pub alert: Alert,
    pub alerts: u64,
    pub opened_ms: i64,
    pub last_ms: i64,
    pub storm: bool,
    pub resolved: bool,
    #[serde(default)]
    pub acknowledged: bool,
    pub account_name: Option<String>,
    /// By sink: what it has been told.
    pub told: BTreeMap<String, Told>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub state: ToldState,
    /// The count in the newest notice that the sink took.
    pub alerts: u64,
    pub at_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToldState {
    /// A notice waits.
    Queued,
    Told,
    /// Resolved or refused: no updates.
    Ended,
}

/// What waits for a sink.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    pub what: What,
    pub queued_ms: i64,
    /// A copy waits for the fallback sink as well.
    #[serde(default)]
    pub mirrored: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Told as it stands when it is sent.
    Incident { key: String, action: Action, note: Option<String> },
    /// One alert for an archive, a test, a replayed letter.
    Own(Box<Notice>),
}

/// A notice that a sink refused for good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub id: String,
    pub sink: String,
    pub why: String,
    pub at_ms: i64,
    pub notice: Notice,
}

impl Incident {
    pub fn notice(&self, action: Action, note: Option<String>) -> Notice {
        Notice {
            action,
            incident: self.key.clone(),
            alert: self.alert.clone(),
            alerts: self.alerts,
            opened_ms: self.opened_ms,
            account_name: self.account_name.clone(),
            storm: self.storm,
            test: false,
            note,
        }
    }
}

/// 0 for critical; a resolve comes after all triggers.
pub fn urgency(level: Level, action: Action) -> u8 {
    match (action, level) {
        (Action::Resolve | Action::Acknowledge, _) => 5,
        (_, Level::Critical) => 0,
        (_, Level::High) => 1,
        (_, Level::Medium) => 2,
        (_, Level::Low) => 3,
        (_, Level::Informational) => 4,
    }
}

/// The prefix of a sink's waiting notices.
pub fn lane(sink: &str) -> Vec<u8> {
    [sink.as_bytes(), &[0]].concat()
}

/// `unique` keeps apart what was queued in the same millisecond.
pub fn pending_key(sink: &str, urgency: u8, queued_ms: i64, unique: &str) -> Vec<u8> {
    [&lane(sink)[..], &[urgency], &time_bytes(queued_ms), unique.as_bytes()].concat()
}

/// The time in a waiting notice's key.
pub fn queued_at(key: &[u8]) -> Option<i64> {
    let name = key.iter().position(|b| *b == 0)?;
    let time = key.get(name + 2..name + 10)?;
    i64::try_from(u64::from_be_bytes(time.try_into().ok()?)).ok()
}

/// Orders as the times do, for times since the epoch.
pub fn time_bytes(time_ms: i64) -> [u8; 8] {
    u64::try_from(time_ms).unwrap_or(0).to_be_bytes()
}

/// How many processes have opened this store before, counted by this call.
pub fn next_start(store: &dyn Store) -> Result<u64, StoreError> {
    let starts = get::<u64>(store, META, "starts")?.unwrap_or(0);
    store.kv_write(&[put(META, "starts", &(starts + 1))?])?;
    Ok(starts)
}

pub fn put<T: Serialize>(namespace: &'static str, key: impl Into<Vec<u8>>, row: &T) -> Result<KvOp, StoreError> {
    let value = serde_json::to_vec(row).map_err(|e| row_error(namespace, &e))?;
    Ok(KvOp::Put { namespace, key: key.into(), value })
}

pub fn read<T: DeserializeOwned>(namespace: &'static str, value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|e| row_error(namespace, &e))
}

pub fn get<T: DeserializeOwned>(store: &dyn Store, namespace: &'static str, key: &str) -> Result<Option<T>, StoreError> {
    store.kv_get(namespace, key.as_bytes())?.map(|value| read(namespace, &value)).transpose()
}

pub fn all<T: DeserializeOwned>(store: &dyn Store, namespace: &'static str) -> Result<Vec<(Vec<u8>, T)>, StoreError> {
    store.kv_scan(namespace, &[])?.into_iter().map(|(key, value)| Ok((key, read(namespace, &value)?))).collect()
}

fn row_error(table: &'static str, error: &serde_json::Error) -> StoreError {
    // The text of the error could quote the row; its place is enough.
    StoreError::Row { table, detail: format!("line {} column {}", error.line(), error.column()) }
}
