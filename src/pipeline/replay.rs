//! A bounded input from its first byte to its last: `scan`, and the detectors' own cases.
//!
//! In: workers' batches, in any order. Out: alerts. Invariant: the set of alerts doesn't depend on the order of the batches.

use std::sync::Arc;

use super::keeper::Judge;
use super::{Batch, Detectors, Tally};
use crate::alert::Alert;
use crate::store::keeper::{Counts, Keeper, Limits, Mode};
use crate::store::{MemoryStore, Result};

pub struct Replay {
    keeper: Keeper,
    newest_ms: i64,
    known: Vec<bool>,
    tally: Tally,
}

impl Replay {
    /// # Errors
    /// What the store says.
    pub fn new(detectors: &Detectors) -> Result<Self> {
        let limits = Limits::default();
        let store = Arc::new(MemoryStore::with_budget(limits.budget_bytes, std::env::temp_dir()));
        let keeper = Keeper::open(detectors.plan.clone(), store, Mode::Replay, limits, false)?;
        Ok(Self { keeper, newest_ms: i64::MIN, known: Vec::new(), tally: Tally::default() })
    }

    /// Takes what a worker found. Alerts of single events come at once, those of correlations from `finish`.
    ///
    /// # Errors
    /// What the store says.
    pub fn take(&mut self, batch: &mut Batch) -> Result<Vec<Alert>> {
        let duplicates = offer(&mut self.keeper, batch, &mut self.known)?;
        self.newest_ms = self.newest_ms.max(batch.newest_ms);
        batch.tally.matched -= duplicates;
        batch.tally.duplicate += duplicates;
        self.tally.add(&batch.tally);
        self.keeper.commit(&[])
    }

    /// Judges every window.
    ///
    /// # Errors
    /// What the store says.
    pub fn finish(&mut self) -> Result<Vec<Alert>> {
        self.keeper.finish(self.newest_ms)?;
        self.keeper.commit(&[])
    }

    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    pub fn counts(&self) -> Counts {
        self.keeper.counts()
    }
}

/// Hands a batch's matches to the keeper; answers how many of its events were known in full.
pub(super) fn offer(keeper: &mut impl Judge, batch: &mut Batch, known: &mut Vec<bool>) -> Result<u64> {
    known.clear();
    keeper.offer(&batch.inputs, known)?;
    // Matches come event by event; an event is a duplicate if each of its matches is known.
    let mut events: Vec<(u32, bool)> = batch.input_events.iter().copied().zip(known.iter().copied()).collect();
    for (event, single) in batch.singles.drain(..) {
        events.push((event, keeper.alert(single)?));
    }
    events.sort_unstable();
    Ok(events.chunk_by(|a, b| a.0 == b.0).filter(|matches| matches.iter().all(|(_, known)| *known)).count() as u64)
}
