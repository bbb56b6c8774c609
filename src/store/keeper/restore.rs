//! Taking up the thread: from what the store holds to a keeper that goes on as if it had never stopped.
//!
//! In: rows. Out: frontier, ends of learning, the index. Invariant: nothing is decided here; timers and windows are read when
//! they are due or touched.

use std::{collections::HashMap, ops::ControlFlow};

use super::{Id, Keeper, Kind, Mode, Result, Table, row_error, rows};
use crate::store::{key_time, time_key};

/// Row of the newest frontier, `time_key`.
pub(super) const FRONTIER: &[u8] = b"frontier";
/// Evidence of a rule that is gone stays this long behind the frontier: the rule may come back.
const ORPHAN_MS: i64 = 24 * 3_600_000;

/// What a pass over the evidence finds of one group.
#[derive(Default)]
struct Found {
    newest_ms: i64,
    items: u64,
}

impl Keeper {
    pub(super) fn restore(&mut self) -> Result<()> {
        self.restore_frontier()?;
        self.restore_learning()?;
        if !self.shared {
            self.restore_index()?;
        }
        self.rows.commit()
    }

    fn restore_learning(&mut self) -> Result<()> {
        let Mode::Live { start_ms } = self.mode else { return Ok(()) };
        for (index, node) in self.plan.nodes.iter().enumerate() {
            let Kind::NewValue { learning_ms } = node.kind else { continue };
            let key = [b"learn", &node.state[..]].concat();
            let end_ms = match self.rows.get(Table::Meta, &key)? {
                Some(row) => key_time(row.try_into().map_err(|_| row_error(Table::Meta, "an end of learning has a wrong length"))?),
                None => start_ms.saturating_add(learning_ms),
            };
            self.learnt_ms[index] = end_ms;
            self.rows.put(Table::Meta, &key, time_key(end_ms));
        }
        Ok(())
    }

    /// One pass over the keys of all evidence.
    fn restore_index(&mut self) -> Result<()> {
        let mut found: HashMap<Id, Found, foldhash::fast::RandomState> = HashMap::default();
        self.rows.scan(Table::Evidence, &[], &[], &mut |key, value| {
            let Some(group) = key.first_chunk::<16>() else { return ControlFlow::Continue(()) };
            let time_ms = match rows::read_evidence_key(key) {
                Some(item) => Some(item.time_ms),
                None => rows::RunsRow::read(value).and_then(|row| row.runs.newest()),
            };
            let group = found.entry(*group).or_insert(Found { newest_ms: i64::MIN, items: 0 });
            group.newest_ms = group.newest_ms.max(time_ms.unwrap_or(i64::MIN));
            group.items += 1;
            ControlFlow::Continue(())
        })?;
        let mut groups = Vec::new();
        self.rows.scan(Table::Groups, &[], &[], &mut |key, value| {
            if let (Ok(group), Some(row)) = (Id::try_from(key), rows::read_group(value)) {
                groups.push((group, row.state, row.scope));
            }
            ControlFlow::Continue(())
        })?;
        for (group, state, scope) in groups {
            let found = found.remove(&group).unwrap_or_default();
            match self.by_state.get(&state).copied() {
                Some(node) => {
                    let bucket = self.index.bucket(node, &scope);
                    (0..found.items.max(1)).for_each(|_| {
                        self.index.add(group, bucket, found.newest_ms);
                    });
                }
                None if found.newest_ms < self.frontier_ms.saturating_sub(ORPHAN_MS) => self.drop_orphan(&group)?,
                None => {}
            }
        }
        Ok(())
    }

    fn drop_orphan(&mut self, group: &Id) -> Result<()> {
        let mut keys = Vec::new();
        self.rows.scan(Table::Evidence, group, &[], &mut |key, _| {
            keys.push(key.to_vec());
            ControlFlow::Continue(())
        })?;
        keys.iter().for_each(|key| self.rows.delete(Table::Evidence, key));
        self.rows.delete(Table::Groups, group);
        Ok(())
    }
}
