//! Records that could not be decoded: kept whole, shown redacted, ready to be decoded again.
//!
//! In: a record's bytes with where they came from and why they were refused. Out: rows to list, inspect and replay. Invariant: the
//! keep is bounded in rows and bytes; the oldest go first.

use serde::{Deserialize, Serialize};

use super::{KvOp, Result, Store, StoreError};
use crate::redact;

const NAMESPACE: &str = "quarantine";

/// Rows kept.
pub const RECORDS: usize = 1_000;
/// Of one record; a longer one keeps its beginning and can't be replayed.
pub const RECORD_BYTES: usize = 1 << 20;
/// What `shown` gives of the bytes.
const SHOWN_BYTES: usize = 4_096;

/// One record kept aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantinedRecord {
    /// Names it in the API; made by `new`.
    pub id: String,
    pub at_ms: i64,
    /// The shard or file that it came from.
    pub source: String,
    /// Its sequence number, or its offset.
    pub position: String,
    pub reason: String,
    /// Whole length in bytes.
    pub length: usize,
    /// Base64 of the first `RECORD_BYTES`.
    bytes: String,
}

/// A record as people see it: text without secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownRecord {
    pub id: String,
    pub at_ms: i64,
    pub source: String,
    pub position: String,
    pub reason: String,
    pub length: usize,
    /// The beginning, redacted, bytes that are no text replaced; left out in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl QuarantinedRecord {
    /// `sequence`: tells apart records of one millisecond.
    pub fn new(at_ms: i64, sequence: u64, source: &str, position: &str, reason: &str, bytes: &[u8]) -> Self {
        Self {
            id: format!("{:012x}-{sequence:x}", at_ms.max(0)),
            at_ms,
            source: source.into(),
            position: position.into(),
            reason: reason.into(),
            length: bytes.len(),
            bytes: base64_simd::STANDARD.encode_to_string(&bytes[..bytes.len().min(RECORD_BYTES)]),
        }
    }

    /// The change that keeps it, for a batch of the caller's own.
    pub fn keep(&self) -> Option<KvOp> {
        Some(KvOp::Put { namespace: NAMESPACE, key: self.id.clone().into_bytes(), value: serde_json::to_vec(self).ok()? })
    }

    /// All bytes, where they were kept whole.
    pub fn whole(&self) -> Option<Vec<u8>> {
        base64_simd::STANDARD.decode_to_vec(&self.bytes).ok().filter(|bytes| bytes.len() == self.length)
    }

    pub fn shown(&self) -> ShownRecord {
        let bytes = base64_simd::STANDARD.decode_to_vec(&self.bytes).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES)]).into_owned();
        let text = crate::alert::redact::redact(&text).into_owned();
        let mut statements = Vec::new();
        let changed = redact::redact(text.as_bytes(), &mut statements);
        let text = if changed { String::from_utf8_lossy(&statements).into_owned() } else { text };
        ShownRecord { text: Some(text), ..self.summary() }
    }

    fn summary(&self) -> ShownRecord {
        let Self { id, at_ms, source, position, reason, length, .. } = self.clone();
        ShownRecord { id, at_ms, source, position, reason, length, text: None }
    }
}

/// Newest first.
pub fn list(store: &dyn Store, limit: usize) -> Result<Vec<ShownRecord>> {
    let rows = store.kv_scan(NAMESPACE, &[])?;
    rows.iter().rev().take(limit).map(|(_, row)| Ok(read(row)?.summary())).collect()
}

pub fn get(store: &dyn Store, id: &str) -> Result<Option<QuarantinedRecord>> {
    store.kv_get(NAMESPACE, id.as_bytes())?.map(|row| read(&row)).transpose()
}

/// The change that lets it go.
pub fn release(id: &str) -> KvOp {
    KvOp::Delete { namespace: NAMESPACE, key: id.as_bytes().to_vec() }
}

/// Drops the oldest of too many; returns how many are kept.
pub fn sweep(store: &dyn Store) -> Result<usize> {
    let rows = store.kv_scan(NAMESPACE, &[])?;
    let over = rows.len().saturating_sub(RECORDS);
    let kept = rows.len() - over;
    let ops: Vec<KvOp> = rows.into_iter().take(over).map(|(key, _)| KvOp::Delete { namespace: NAMESPACE, key }).collect();
    if !ops.is_empty() {
        store.kv_write(&ops)?;
    }
    Ok(kept)
}

fn read(row: &[u8]) -> Result<QuarantinedRecord> {
    serde_json::from_slice(row).map_err(|e| StoreError::Row { table: NAMESPACE, detail: format!("line {} column {}", e.line(), e.column()) })
}
