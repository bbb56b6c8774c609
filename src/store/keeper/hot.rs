//! Windows of the groups that were busy last.
//!
//! In: groups as they are used. Out: their windows, without reading the store again. Invariant: a window can be dropped at any
//! time; its rows say the same.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::correlate::{Id, window::Window};

/// A window, and what else of its group is asked for at each item.
pub struct Loaded {
    pub window: Window,
    /// Cells that have fired.
    pub fired: Vec<i64>,
    /// Items added since fired cells were last thinned out.
    pub grown: usize,
    pub oldest_ms: i64,
    pub items: u64,
    bytes: usize,
    used: u64,
}

/// What a window costs besides what it says of itself: its slot and the first allocations.
const WINDOW_OVERHEAD: usize = 512;

impl Loaded {
    pub fn new(window: Window) -> Self {
        Self { window, fired: Vec::new(), grown: 0, oldest_ms: i64::MAX, items: 0, bytes: 0, used: 0 }
    }
}

pub struct Hot {
    windows: HashMap<Id, Loaded, RandomState>,
    bytes: usize,
    budget_bytes: usize,
    clock: u64,
    /// Windows dropped over the budget.
    pub spilled: u64,
}

impl Hot {
    pub fn new(budget_bytes: usize) -> Self {
        Self { windows: HashMap::default(), bytes: 0, budget_bytes, clock: 0, spilled: 0 }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    pub fn has(&self, group: &Id) -> bool {
        self.windows.contains_key(group)
    }

    pub fn get(&mut self, group: &Id) -> Option<&mut Loaded> {
        self.clock += 1;
        let loaded = self.windows.get_mut(group)?;
        loaded.used = self.clock;
        Some(loaded)
    }

    pub fn insert(&mut self, group: Id, loaded: Loaded) {
        self.remove(&group);
        self.windows.insert(group, loaded);
        self.measure(&group);
    }

    pub fn remove(&mut self, group: &Id) {
        if let Some(old) = self.windows.remove(group) {
            self.bytes -= old.bytes;
        }
    }

    /// To be called after a window has changed; over the budget the longest unused windows go.
    pub fn measure(&mut self, group: &Id) {
        self.clock += 1;
        if let Some(loaded) = self.windows.get_mut(group) {
            loaded.used = self.clock;
            self.bytes -= loaded.bytes;
            loaded.bytes = loaded.window.bytes() + WINDOW_OVERHEAD;
            self.bytes += loaded.bytes;
        }
        if self.bytes > self.budget_bytes && self.windows.len() > 1 {
            self.drop_unused(group);
        }
    }

    /// Down to three quarters of the budget, so that the sort is paid for by many windows.
    fn drop_unused(&mut self, keep: &Id) {
        let mut by_use: Vec<(u64, Id)> = self.windows.iter().map(|(group, loaded)| (loaded.used, *group)).collect();
        by_use.sort_unstable();
        for (_, group) in by_use {
            if self.bytes <= self.budget_bytes / 4 * 3 {
                break;
            }
            if group != *keep {
                self.spilled += 1;
                self.remove(&group);
            }
        }
        if self.windows.capacity() > 4 * self.windows.len() + 1024 {
            self.windows.shrink_to_fit();
        }
    }
}
