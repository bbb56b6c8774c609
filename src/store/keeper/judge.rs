//! When windows are looked at: prompt ones at each delivery, settled ones as the frontier passes.
//!
//! In: an item just delivered, or the frontier. Out: calls of `fire`. Invariant: a settled window is judged once, by its timer;
//! a prompt window is evaluated at every delivery of an item that it contains.

use std::{ops::ControlFlow, sync::Arc, time::Instant};

use super::{
    Id, Item, Keeper, Mode, Node, Place, REPLAY_CHANGES, Result, Table, cell_of,
    hot::Loaded,
    row_error,
    rows::{self, Timer},
};
use crate::correlate::{Kind, window::Window};

/// Rows that one match takes away where rows are shared: what fits its transaction.
pub(super) const SHARED_FORGET: usize = 20;

/// How long timers of rules that the leader doesn't know are left alone, and how many.
const STRANGER_MS: i64 = 3_600_000;
const MAX_STRANGERS: usize = 10_000;

impl Keeper {
    /// Brings a group's window into memory.
    pub(super) fn load(&mut self, place: &Place, node: &Node, fresh: bool) -> Result<()> {
        if self.hot.has(&place.group) {
            return Ok(());
        }
        let mut loaded = Loaded::new(Window::new(node));
        if !fresh {
            self.rows.scan(Table::Evidence, &place.group, &[], &mut |key, _| {
                if let Some(item) = rows::read_evidence_key(key) {
                    loaded.window.insert(node, &item);
                    loaded.oldest_ms = loaded.oldest_ms.min(item.time_ms);
                    loaded.items += 1;
                }
                ControlFlow::Continue(())
            })?;
            let prefix = rows::cells_prefix(&place.group);
            self.rows.scan(Table::Fired, &prefix, &[], &mut |key, _| {
                if let Some(cell) = key.get(17..25).and_then(|c| c.try_into().ok()) {
                    loaded.fired.push(crate::store::key_time(cell));
                }
                ControlFlow::Continue(())
            })?;
            loaded.grown = loaded.items as usize;
        }
        self.hot.insert(place.group, loaded);
        Ok(())
    }

    /// All windows that contain the item: they end within a timespan of it, so in at most two cells.
    pub(super) fn fire_prompt(&mut self, place: &Place, node: &Node, item: &Item) -> Result<()> {
        let last = item.time_ms.saturating_add(node.timespan_ms);
        for cell in cell_of(item.time_ms, node.cell_ms)..=cell_of(last, node.cell_ms) {
            let from = item.time_ms.max(cell.saturating_mul(node.cell_ms));
            let until = last.min(cell.saturating_add(1).saturating_mul(node.cell_ms).saturating_sub(1));
            let Some(loaded) = self.hot.get(&place.group) else { return Ok(()) };
            let fired = loaded.fired.contains(&cell);
            if fired && !node.chained() {
                continue;
            }
            // A parent wants every window's end, an alert only the first.
            let mut ends = Vec::new();
            let mut next = Some(from);
            while let Some(at) = next.and_then(|from| loaded.window.first_holding(node, from, until)) {
                ends.push(at);
                next = if node.chained() { at.checked_add(1) } else { None };
            }
            let Some(first) = ends.first().copied() else { continue };
            if !fired && node.alerts {
                self.fire_cell(place, node, cell, first, false)?;
            }
            for at in ends {
                self.feed_cell(place, node, cell, at)?;
            }
        }
        Ok(())
    }

    pub(super) fn set_timer(&mut self, timer: &Timer) {
        let key = rows::timer_key(timer);
        // A timer set when already due belongs to an event that came after its window was judged.
        self.rows.put(Table::Timers, &key, [u8::from(timer.due_ms <= self.frontier_ms && !self.ended)]);
        if key[..] < self.timer_cursor[..] {
            self.timer_cursor = key.to_vec();
        }
    }

    /// Moves the frontier and judges everything that becomes due, in order of due time: children before the parents that wait
    /// for them. The frontier goes from due time to due time, so that a jump of it expires nothing that a parent still needs.
    pub(super) fn judge_until(&mut self, target_ms: i64) -> Result<()> {
        while self.judge_next(target_ms)? {
            if self.mode == Mode::Replay && self.rows.changes() >= REPLAY_CHANGES {
                self.rows.commit()?;
            }
        }
        self.frontier_ms = target_ms;
        Ok(())
    }

    /// The first of what is due at `target_ms`; false where nothing is.
    pub(super) fn judge_next(&mut self, target_ms: i64) -> Result<bool> {
        let Some((key, late)) = self.next_timer()? else { return Ok(false) };
        let timer = rows::read_timer_key(&key).ok_or_else(|| row_error(Table::Timers, "its key has a wrong length"))?;
        if timer.due_ms > target_ms {
            return Ok(false);
        }
        self.frontier_ms = self.frontier_ms.max(timer.due_ms);
        self.timer_cursor.clone_from(&key);
        let row = self.rows.get(Table::Groups, &timer.group)?;
        let group = row.as_deref().map(|row| rows::read_group(row).ok_or_else(|| row_error(Table::Groups, "it is cut short"))).transpose()?;
        let node = group.as_ref().and_then(|group| self.by_state.get(&group.state).copied());
        if self.shared && group.is_some() && node.is_none() && self.spare(&timer, &key, target_ms) {
            return Ok(true);
        }
        self.rows.delete(Table::Timers, &key);
        // The group may have been evicted, its rule edited away: then there is nothing to judge.
        let (Some(group), Some(node)) = (group, node) else { return Ok(true) };
        let plan = Arc::clone(&self.plan);
        let place = Place { node, group: timer.group, scope: &group.scope, tuple: &group.tuple };
        let since = Instant::now();
        self.judge(&place, &plan.nodes[node], &timer, late == [1])?;
        self.meters[node].cost += since.elapsed();
        Ok(true)
    }

    /// The first timer that is not a stranger's.
    fn next_timer(&self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let mut first = None;
        self.rows.scan(Table::Timers, &[], &self.timer_cursor, &mut |key, value| {
            if self.strangers.contains(key) {
                return ControlFlow::Continue(());
            }
            first = Some((key.to_vec(), value.to_vec()));
            ControlFlow::Break(())
        })?;
        Ok(first)
    }

    /// While a fleet is given new rules, its leader may not know one that others have already: its timers are left for a leader that
    /// does, for some time.
    fn spare(&mut self, timer: &Timer, key: &[u8], target_ms: i64) -> bool {
        let spared = timer.due_ms.saturating_add(STRANGER_MS) > target_ms && self.strangers.len() < MAX_STRANGERS;
        if spared {
            self.strangers.insert(key.into());
        } else {
            self.strangers.remove(key);
        }
        spared
    }

    fn judge(&mut self, place: &Place, node: &Node, timer: &Timer, late: bool) -> Result<()> {
        match node.kind {
            Kind::NewValue { .. } => self.judge_value(place, node, &timer.value),
            Kind::Absence => self.judge_silence(place, node),
            _ => {
                let at = timer.due_ms.saturating_sub(self.limits.settle_ms * node.depth);
                self.judge_window(place, node, at, late)
            }
        }
    }

    fn judge_window(&mut self, place: &Place, node: &Node, at: i64, late: bool) -> Result<()> {
        self.load(place, node, false)?;
        let Some(loaded) = self.hot.get(&place.group) else { return Ok(()) };
        let holds = loaded.window.holds(node, at);
        let cell = cell_of(at, node.cell_ms);
        let fired = loaded.fired.contains(&cell);
        self.hot.measure(&place.group);
        if holds {
            if !fired && node.alerts {
                self.fire_cell(place, node, cell, at, late)?;
            }
            self.feed_cell(place, node, cell, at)?;
        }
        Ok(())
    }

    /// A fired cell keeps only what windows that end in the next one can need. Parents need every window's end, so what
    /// feeds one keeps all.
    pub(super) fn thin(&mut self, place: &Place, node: &Node, item: &Item) -> Result<()> {
        let (Some(keep), false) = (node.least_count(), node.chained()) else { return Ok(()) };
        let cell = cell_of(item.time_ms, node.cell_ms);
        let Some(loaded) = self.hot.get(&place.group) else { return Ok(()) };
        if loaded.grown < 2 * keep + 64 || !loaded.fired.contains(&cell) {
            return Ok(());
        }
        loaded.grown = 0;
        let from = cell.saturating_mul(node.cell_ms);
        let until = from.saturating_add(node.cell_ms - 1);
        let kept = loaded.window.thin(node, from, until, keep);
        let (Some(mut kept), Mode::Live { .. }) = (kept, self.mode) else { return Ok(()) };
        let mut gone: Vec<Vec<u8>> = Vec::new();
        self.rows.scan(
            Table::Evidence,
            &place.group,
            &rows::evidence_from(&place.group, from),
            &mut |key, _| match rows::read_evidence_key(key) {
                Some(item) if item.time_ms <= until => {
                    if !kept.remove(&(crate::correlate::window::key(&node.kind, &item), item.time_ms)) {
                        gone.push(key.to_vec());
                    }
                    ControlFlow::Continue(())
                }
                _ => ControlFlow::Break(()),
            },
        )?;
        self.forget(&place.group, &gone);
        Ok(())
    }

    /// Deletes some rows of a group that stays.
    pub(super) fn forget(&mut self, group: &Id, keys: &[Vec<u8>]) {
        // Shared rows are changed few at a time; the rest goes when the group is read again.
        let keys = if self.shared { &keys[..keys.len().min(SHARED_FORGET)] } else { keys };
        keys.iter().for_each(|key| self.rows.delete(Table::Evidence, key));
        self.index.shrink(group, keys.len() as u64);
        if let Some(loaded) = self.hot.get(group) {
            loaded.items = loaded.items.saturating_sub(keys.len() as u64);
        }
    }
}
