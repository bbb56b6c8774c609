//! Rows in memory: for `scan`, `test`, `demo` and tests.
//!
//! In: batches. Out: rows in key order. Invariant: same answers as the embedded store; nothing outlives the process.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::{PoisonError, RwLock},
};

use super::{Change, Result, Store, Table, Visit};

type Rows = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// What a row costs besides its bytes: two boxes and its share of a tree node.
const ROW_OVERHEAD: u64 = 64;

#[derive(Default)]
struct Tables {
    rows: [Rows; Table::ALL.len()],
    bytes: u64,
}

#[derive(Default)]
pub struct MemoryStore {
    tables: RwLock<Tables>,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }
}

fn cost(key: &[u8], value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64 + ROW_OVERHEAD
}

impl Store for MemoryStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        Ok(tables.rows[table as usize].get(key).map(|value| value.to_vec()))
    }

    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], visit: Visit) -> Result<()> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let start = prefix.max(from);
        for (key, value) in tables.rows[table as usize].range::<[u8], _>((Bound::Included(start), Bound::Unbounded)) {
            if !key.starts_with(prefix) || visit(key, value) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, changes: Vec<Change>) -> Result<()> {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let Tables { rows, bytes } = &mut *tables;
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
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).bytes
    }
}
