//! What survives a crash: ordered rows in a few tables, changed by atomic batches.
//!
//! In: batches of row changes from the keeper and from delivery. Out: rows, the outbox in order of urgency, positions.
//! Invariant: a batch is there whole or not at all, and once `commit` returns it outlives the process (embedded store).

use std::ops::ControlFlow;

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::{
    alert::{Alert, Level},
    position::{Position, SequenceNumber, ShardId},
};

pub mod claim;
pub mod dynamo;
pub mod embedded;
pub mod keeper;
pub mod memory;
pub mod overlay;
pub mod quarantine;
pub mod shared;

pub use dynamo::DynamoStore;
pub use embedded::EmbeddedStore;
pub use memory::MemoryStore;

/// One ordered set of rows. The number is the table's place in `ALL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// What correlations keep of their matches.
    Evidence,
    /// Group → its names and values.
    Groups,
    /// Alert ids that have been issued, and which incident owns which cell.
    Fired,
    /// Windows to be judged, by due time.
    Timers,
    /// Alerts on their way to the sinks.
    Outbox,
    /// Shard → position.
    Positions,
    /// Schema, frontier, starts of learning.
    Meta,
    /// Small durable values of delivery: silences, dead letters, quarantine.
    Kv,
}

impl Table {
    pub const ALL: [Self; 8] = [Self::Evidence, Self::Groups, Self::Fired, Self::Timers, Self::Outbox, Self::Positions, Self::Meta, Self::Kv];

    pub fn name(self) -> &'static str {
        match self {
            Self::Evidence => "evidence",
            Self::Groups => "groups",
            Self::Fired => "fired",
            Self::Timers => "timers",
            Self::Outbox => "outbox",
            Self::Positions => "positions",
            Self::Meta => "meta",
            Self::Kv => "kv",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{path}: another process has this state file open; stop it, or give this one a state file of its own")]
    Locked { path: String },
    #[error("{path}: not a Trailwarden state file; move it away or configure another path (it was not changed)")]
    Foreign { path: String },
    #[error("{path}: the state file is damaged ({detail}); restore it from a copy or move it away to start afresh (it was not changed)")]
    Damaged { path: String, detail: String },
    #[error("{path}: written by a newer Trailwarden (schema {found}, this one knows {known}); run that version (the file was not changed)")]
    Newer { path: String, found: u32, known: u32 },
    #[error("{path}: no space left for the state; nothing of the last batch was kept. Free space and start again")]
    Full { path: String },
    #[error("{path}: {detail}; nothing of the last batch counts as kept")]
    Io { path: String, detail: String },
    #[error("a row of table {table} can't be read: {detail}")]
    Row { table: &'static str, detail: String },
    /// Nothing of the batch was kept; the same batch is judged again from fresh reads.
    #[error("another worker changed the same rows first")]
    Conflict,
    #[error("DynamoDB refuses {call} on table {table}: {detail}")]
    Refused { call: &'static str, table: String, detail: String },
    #[error("DynamoDB gave no answer to {call} on table {table} for {waited_s} s: {detail}; nothing was skipped, start again once it answers")]
    Unavailable { call: &'static str, table: String, waited_s: u64, detail: String },
}

impl StoreError {
    /// True for a lost race alone: a store that failed once stops the daemon, which resumes from the last batch.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Conflict)
    }
}

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// One change of one row. Later changes of a batch win over earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Put { table: Table, key: Box<[u8]>, value: Box<[u8]> },
    Delete { table: Table, key: Box<[u8]> },
}

impl Change {
    pub fn table(&self) -> Table {
        match self {
            Self::Put { table, .. } | Self::Delete { table, .. } => *table,
        }
    }
}

/// What a row must still be when a batch is committed; `None`: it must not be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    pub table: Table,
    pub key: Box<[u8]>,
    pub value: Option<Box<[u8]>>,
}

/// A row with its table: what `Store::group` gives.
pub type GroupRow = (Table, Vec<u8>, Vec<u8>);

/// Where an alert stands in the outbox: urgency first, then age, then id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutboxKey(pub [u8; 25]);

impl OutboxKey {
    /// None where the alert's id isn't 32 hex digits.
    pub fn of(alert: &Alert) -> Option<Self> {
        let mut key = [0; 25];
        key[0] = urgency(alert.rule.level);
        key[1..9].copy_from_slice(&time_key(alert.time_ms));
        key[9..].copy_from_slice(&unhex(&alert.id)?);
        Some(Self(key))
    }
}

/// A change of delivery's own rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvOp {
    /// Namespaces are short words of the code, never data.
    Put {
        namespace: &'static str,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Delete {
        namespace: &'static str,
        key: Vec<u8>,
    },
    /// Takes an alert out of the outbox in the same transaction.
    Remove(OutboxKey),
}

impl KvOp {
    fn change(&self) -> Change {
        match self {
            Self::Put { namespace, key, value } => Change::Put { table: Table::Kv, key: kv_key(namespace, key).into(), value: value.clone().into() },
            Self::Delete { namespace, key } => Change::Delete { table: Table::Kv, key: kv_key(namespace, key).into() },
            Self::Remove(key) => remove(key),
        }
    }
}

/// Gets each row in key order; `Break` ends the scan. It must not call the store again.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// Rows, read by several threads at once. The methods with a body are the same for every store.
pub trait Store: Send + Sync {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Visits the rows whose key begins with `prefix` and is not below `from`, in key order.
    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], visit: Visit) -> Result<()>;

    /// All changes or none. An error means that none of them counts.
    fn commit(&self, changes: Vec<Change>) -> Result<()>;

    /// `commit`, if every guard holds at that moment. False: one didn't, and nothing was changed.
    fn commit_if(&self, guards: &[Guard], changes: Vec<Change>) -> Result<bool>;

    /// Rows of groups are of use for so long after they were written: for stores that collect garbage by themselves.
    fn keep_for(&self, _keep_ms: i64) {}

    /// How many rows one batch may change where it must be there whole.
    fn batch_changes(&self) -> usize {
        usize::MAX
    }

    /// All rows of one group of evidence. Its version is read before the others, so none of them is older than it says.
    fn group(&self, group: &[u8; 16]) -> Result<Vec<GroupRow>> {
        let mut rows = Vec::new();
        for (table, prefix) in [(Table::Meta, version_key(group)), (Table::Groups, group.to_vec())] {
            rows.extend(self.get(table, &prefix)?.map(|value| (table, prefix, value)));
        }
        for (table, prefix) in [(Table::Fired, [b"c", &group[..]].concat()), (Table::Evidence, group.to_vec())] {
            self.scan(table, &prefix, &[], &mut |key, value| {
                rows.push((table, key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            })?;
        }
        Ok(rows)
    }

    /// Bytes of rows, keys included: estimated in memory, the file's length on disk.
    fn bytes(&self) -> u64;

    /// The first `limit` alerts: critical before high, then the older first.
    fn outbox_list(&self, limit: usize) -> Result<Vec<(OutboxKey, Alert)>> {
        let mut rows = Vec::new();
        self.scan(Table::Outbox, &[], &[], &mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            if rows.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        rows.truncate(limit);
        rows.into_iter()
            .map(|(key, value)| {
                let key = key.try_into().map_err(|_| row_error(Table::Outbox, "its key has a wrong length"))?;
                let alert = serde_json::from_slice(&value).map_err(|e| row_error(Table::Outbox, e))?;
                Ok((OutboxKey(key), alert))
            })
            .collect()
    }

    /// Alerts on their way.
    fn outbox_len(&self) -> Result<usize> {
        let mut n = 0;
        self.scan(Table::Outbox, &[], &[], &mut |_, _| {
            n += 1;
            ControlFlow::Continue(())
        })?;
        Ok(n)
    }

    /// One already removed is no error.
    fn outbox_remove(&self, keys: &[OutboxKey]) -> Result<()> {
        self.commit(keys.iter().map(remove).collect())
    }

    /// Rows of a namespace whose key begins with `prefix`, in key order.
    fn kv_scan(&self, namespace: &'static str, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.kv_first(namespace, prefix, usize::MAX)
    }

    /// The first `limit` of them.
    fn kv_first(&self, namespace: &'static str, prefix: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let start = kv_key(namespace, prefix);
        let mut rows = Vec::new();
        if limit == 0 {
            return Ok(rows);
        }
        self.scan(Table::Kv, &start, &[], &mut |key, value| {
            rows.push((key[namespace.len() + 1..].to_vec(), value.to_vec()));
            if rows.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(rows)
    }

    /// Visits the rows of a namespace whose key is not below `from`.
    fn kv_from(&self, namespace: &'static str, from: &[u8], visit: Visit) -> Result<()> {
        self.scan(Table::Kv, &kv_key(namespace, &[]), &kv_key(namespace, from), &mut |key, value| visit(&key[namespace.len() + 1..], value))
    }

    fn kv_get(&self, namespace: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.get(Table::Kv, &kv_key(namespace, key))
    }

    /// One atomic batch over any namespaces and the outbox.
    fn kv_write(&self, ops: &[KvOp]) -> Result<()> {
        self.commit(ops.iter().map(KvOp::change).collect())
    }

    /// `kv_write`, if this row still is as it was read. False: it isn't, and nothing was changed.
    fn kv_write_if(&self, namespace: &'static str, key: &[u8], row: &[u8], ops: &[KvOp]) -> Result<bool> {
        let guard = Guard { table: Table::Kv, key: kv_key(namespace, key).into(), value: Some(row.into()) };
        self.commit_if(&[guard], ops.iter().map(KvOp::change).collect())
    }

    /// Where each shard stands; written by the keeper in the batch that holds its findings.
    fn positions(&self) -> Result<Vec<(ShardId, Position)>> {
        let mut rows = Vec::new();
        self.scan(Table::Positions, &[], &[], &mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })?;
        rows.into_iter()
            .map(|(key, value)| {
                let shard = String::from_utf8(key).map_err(|e| row_error(Table::Positions, e))?;
                let text = String::from_utf8(value).map_err(|e| row_error(Table::Positions, e))?;
                let position = read_position(&text).ok_or_else(|| row_error(Table::Positions, &text))?;
                Ok((ShardId(shard.into()), position))
            })
            .collect()
    }
}

/// Runs store work without holding up the other tasks of the thread, where the runtime has other threads.
pub fn blocking<T>(work: impl FnOnce() -> T) -> T {
    if matches!(Handle::try_current().map(|h| h.runtime_flavor()), Ok(RuntimeFlavor::MultiThread)) {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

/// The row that puts an alert into the outbox; `None` where its id isn't 32 hex digits.
pub fn outbox_row(alert: &Alert) -> Option<Change> {
    let value = serde_json::to_vec(alert).ok()?;
    Some(Change::Put { table: Table::Outbox, key: Box::new(OutboxKey::of(alert)?.0), value: value.into() })
}

/// The row that says how far a shard has been read.
pub fn position_row(shard: &ShardId, position: &Position) -> Change {
    Change::Put { table: Table::Positions, key: shard.0.as_bytes().into(), value: write_position(position).into_bytes().into() }
}

/// The row in `Table::Meta` that changes with every change of a group, where several workers share it.
pub(crate) fn version_key(group: &[u8; 16]) -> Vec<u8> {
    [VERSION, &group[..]].concat()
}

/// What such keys begin with.
pub(crate) const VERSION: &[u8] = b"version ";

fn remove(key: &OutboxKey) -> Change {
    Change::Delete { table: Table::Outbox, key: Box::new(key.0) }
}

fn kv_key(namespace: &str, key: &[u8]) -> Vec<u8> {
    [namespace.as_bytes(), &[0], key].concat()
}

fn row_error(table: Table, detail: impl ToString) -> StoreError {
    StoreError::Row { table: table.name(), detail: detail.to_string() }
}

fn urgency(level: Level) -> u8 {
    match level {
        Level::Critical => 0,
        Level::High => 1,
        Level::Medium => 2,
        Level::Low => 3,
        Level::Informational => 4,
    }
}

/// Milliseconds since the epoch so that bytes order as times do, those before 1970 included.
pub(crate) fn time_key(time_ms: i64) -> [u8; 8] {
    (time_ms.cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

pub(crate) fn key_time(key: [u8; 8]) -> i64 {
    (u64::from_be_bytes(key) ^ (1 << 63)).cast_signed()
}

pub(crate) fn unhex(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

fn write_position(position: &Position) -> String {
    match position {
        Position::TrimHorizon => "trim_horizon".into(),
        Position::Latest => "latest".into(),
        Position::AtTimestamp(ms) => format!("at {ms}"),
        Position::After { sequence, sub_sequence } => format!("after {} {sub_sequence}", sequence.as_str()),
        Position::ShardEnd => "shard_end".into(),
    }
}

fn read_position(text: &str) -> Option<Position> {
    let mut words = text.split(' ');
    Some(match words.next()? {
        "trim_horizon" => Position::TrimHorizon,
        "latest" => Position::Latest,
        "at" => Position::AtTimestamp(words.next()?.parse().ok()?),
        "after" => Position::After { sequence: SequenceNumber::new(words.next()?), sub_sequence: words.next()?.parse().ok()? },
        "shard_end" => Position::ShardEnd,
        _ => return None,
    })
}

#[cfg(test)]
pub(crate) mod tests;
