//! Changes not yet committed, seen through by every read of the keeper.
//!
//! In: row changes. Out: rows as they will stand after the next commit. Invariant: dropping it forgets exactly the
//! uncommitted changes, which is what a crash does.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::Arc,
};

use super::{Change, Result, Store, Table, Visit};

/// A pending row; `None` where it is to be deleted.
type Pending = BTreeMap<Box<[u8]>, Option<Box<[u8]>>>;

pub struct Overlay {
    store: Arc<dyn Store>,
    pending: [Pending; Table::ALL.len()],
    changes: usize,
}

impl Overlay {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, pending: Default::default(), changes: 0 }
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Changes since the last commit.
    pub fn changes(&self) -> usize {
        self.changes
    }

    /// Forgets the uncommitted changes.
    pub fn drop_changes(&mut self) {
        self.pending = Default::default();
        self.changes = 0;
    }

    pub fn put(&mut self, table: Table, key: &[u8], value: impl Into<Box<[u8]>>) {
        self.set(table, key, Some(value.into()));
    }

    pub fn delete(&mut self, table: Table, key: &[u8]) {
        self.set(table, key, None);
    }

    fn set(&mut self, table: Table, key: &[u8], value: Option<Box<[u8]>>) {
        let rows = &mut self.pending[table as usize];
        match rows.get_mut(key) {
            Some(row) => *row = value,
            None => {
                rows.insert(key.into(), value);
                self.changes += 1;
            }
        }
    }

    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Put { table, key, value } => self.set(table, &key, Some(value)),
            Change::Delete { table, key } => self.set(table, &key, None),
        }
    }

    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.pending[table as usize].get(key) {
            Some(row) => Ok(row.as_ref().map(|value| value.to_vec())),
            None => self.store.get(table, key),
        }
    }

    pub fn scan(&self, table: Table, prefix: &[u8], from: &[u8], visit: Visit) -> Result<()> {
        let start = prefix.max(from);
        let mut pending = self.pending[table as usize]
            .range::<[u8], _>((Bound::Included(start), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .peekable();
        let mut flow = ControlFlow::Continue(());
        self.store.scan(table, prefix, from, &mut |key, value| {
            while let Some((ours, row)) = pending.next_if(|(ours, _)| ours.as_ref() < key) {
                if let Some(row) = row {
                    flow = visit(ours, row);
                    if flow.is_break() {
                        return flow;
                    }
                }
            }
            flow = match pending.next_if(|(ours, _)| ours.as_ref() == key) {
                Some((ours, Some(row))) => visit(ours, row),
                Some((_, None)) => ControlFlow::Continue(()),
                None => visit(key, value),
            };
            flow
        })?;
        while let (ControlFlow::Continue(()), Some((key, row))) = (flow, pending.next()) {
            if let Some(row) = row {
                flow = visit(key, row);
            }
        }
        Ok(())
    }

    /// The first row at or after `from`.
    pub fn first(&self, table: Table, from: &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let mut found = None;
        self.scan(table, &[], from, &mut |key, value| {
            found = Some((key.to_vec(), value.to_vec()));
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// Hands all changes to the store as one batch. After an error nothing of it counts, and the overlay is of no more use.
    pub fn commit(&mut self) -> Result<()> {
        let mut batch = Vec::with_capacity(self.changes);
        for table in Table::ALL {
            for (key, row) in std::mem::take(&mut self.pending[table as usize]) {
                batch.push(match row {
                    Some(value) => Change::Put { table, key, value },
                    None => Change::Delete { table, key },
                });
            }
        }
        self.changes = 0;
        if batch.is_empty() { Ok(()) } else { self.store.commit(batch) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::store::MemoryStore;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn reads_as_if_committed(ops in prop::collection::vec((0u8..24, any::<bool>(), 0u8..8), 0..60), commits in 1usize..9, from in 0u8..24) {
            let mut overlay = Overlay::new(Arc::new(MemoryStore::new()));
            let mut model = BTreeMap::new();
            for (i, (key, put, value)) in ops.iter().enumerate() {
                if *put {
                    overlay.put(Table::Evidence, &[*key], vec![*value]);
                    model.insert(vec![*key], vec![*value]);
                } else {
                    overlay.delete(Table::Evidence, &[*key]);
                    model.remove(&vec![*key]);
                }
                if i % commits == 0 {
                    overlay.commit().unwrap();
                }
                prop_assert_eq!(overlay.get(Table::Evidence, &[*key]).unwrap(), model.get(&vec![*key]).cloned());
            }
            let mut rows = Vec::new();
            overlay.scan(Table::Evidence, &[], &[from], &mut |key, value| {
                rows.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            }).unwrap();
            prop_assert_eq!(rows, model.range(vec![from]..).map(|(k, v)| (k.clone(), v.clone())).collect::<Vec<_>>());
            prop_assert_eq!(overlay.first(Table::Evidence, &[from]).unwrap(), model.range(vec![from]..).next().map(|(k, v)| (k.clone(), v.clone())));
        }
    }
}
