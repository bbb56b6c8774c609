//! Rows in memory: for `scan`, `test`, `demo` and tests.
//!
//! In: batches. Out: rows in key order. Invariant: same answers as the embedded store; nothing outlives the process. Over its
//! budget all rows move to a temporary file, once.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    path::PathBuf,
    sync::{OnceLock, PoisonError, RwLock},
};

use super::{Change, EmbeddedStore, Guard, Result, Store, Table, Visit};

type Rows = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// What a row costs besides its bytes: two boxes and its share of a tree node.
const ROW_OVERHEAD: u64 = 64;

#[derive(Default)]
struct Tables {
    rows: [Rows; Table::ALL.len()],
    bytes: u64,
}

/// Rows in one batch when they move to disk.
const SPILL_ROWS: usize = 10_000;

#[derive(Default)]
pub struct MemoryStore {
    tables: RwLock<Tables>,
    /// Budget in bytes, and the folder of the temporary file.
    spill: Option<(u64, PathBuf)>,
    /// Set under the lock of `tables`, which is empty from then on.
    disk: OnceLock<EmbeddedStore>,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// One that moves to a temporary file in `folder` once its rows take more than `budget_bytes`.
    pub fn with_budget(budget_bytes: u64, folder: PathBuf) -> Self {
        Self { spill: Some((budget_bytes, folder)), ..Self::default() }
    }

    /// The rows have moved to disk.
    pub fn has_spilled(&self) -> bool {
        self.disk.get().is_some()
    }

    fn spill(&self, tables: &mut Tables) -> Result<()> {
        let Some((budget_bytes, folder)) = &self.spill else { return Ok(()) };
        if tables.bytes <= *budget_bytes {
            return Ok(());
        }
        let disk = EmbeddedStore::temporary(folder)?;
        let mut batch = Vec::with_capacity(SPILL_ROWS);
        for table in Table::ALL {
            while let Some((key, value)) = tables.rows[table as usize].pop_first() {
                batch.push(Change::Put { table, key, value });
                if batch.len() == SPILL_ROWS {
                    disk.commit(std::mem::take(&mut batch))?;
                }
            }
        }
        disk.commit(batch)?;
        tables.bytes = 0;
        // Only this thread holds the lock, and the cell was empty.
        let _ = self.disk.set(disk);
        Ok(())
    }
}

fn cost(key: &[u8], value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64 + ROW_OVERHEAD
}

impl Store for MemoryStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(disk) = self.disk.get() {
            return disk.get(table, key);
        }
        Ok(tables.rows[table as usize].get(key).map(|value| value.to_vec()))
    }

    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], visit: Visit) -> Result<()> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(disk) = self.disk.get() {
            return disk.scan(table, prefix, from, visit);
        }
        let start = prefix.max(from);
        for (key, value) in tables.rows[table as usize].range::<[u8], _>((Bound::Included(start), Bound::Unbounded)) {
            if !key.starts_with(prefix) || visit(key, value) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, changes: Vec<Change>) -> Result<()> {
        self.commit_if(&[], changes).map(|_| ())
    }

    fn commit_if(&self, guards: &[Guard], changes: Vec<Change>) -> Result<bool> {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(disk) = self.disk.get() {
            return disk.commit_if(guards, changes);
        }
        let Tables { rows, bytes } = &mut *tables;
        if guards.iter().any(|guard| rows[guard.table as usize].get(&guard.key) != guard.value.as_ref()) {
            return Ok(false);
        }
        for change in changes {
            match change {
                Change::Put { table, key, value } => {
                    *bytes += cost(&key, &value);
                    let length = key.len();
                    if let Some(old) = rows[table as usize].insert(key, value) {
                        *bytes -= (length + old.len()) as u64 + ROW_OVERHEAD;
                    }
                }
                Change::Delete { table, key } => {
                    if let Some(old) = rows[table as usize].remove(&key) {
                        *bytes -= cost(&key, &old);
                    }
                }
            }
        }
        self.spill(&mut tables)?;
        Ok(true)
    }

    fn bytes(&self) -> u64 {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).bytes
    }
}
