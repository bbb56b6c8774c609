//! The kinds that live on runs of times: a value never seen before, a group that falls silent.
//!
//! In: sightings by event time (`new_value`) or by arrival (`absence`). Out: calls of `fire`. Invariant: judged from the runs,
//! which are a function of the set of times; what can still change is left to a timer.

use super::{
    Item, Keeper, Mode, Node, Place, Result, Table, row_error,
    rows::{self, RunsRow, Timer},
};
use crate::correlate::{Kind, silence_id, value_id};

impl Keeper {
    pub(super) fn seen_value(&mut self, place: &Place, node: &Node, item: &Item, tuple: &[u8], payload: Vec<u8>) -> Result<bool> {
        if item.time_ms < self.horizon(node) {
            self.counts.expired += 1;
            return Ok(false);
        }
        if self.mode == Mode::Replay {
            let learnt = &mut self.learnt_ms[place.node];
            *learnt = (*learnt).min(item.time_ms);
        }
        let (mut row, known) = self.sight(place, node, item, tuple)?;
        // What a finding would tell of is the sighting that began the newest run.
        if row.runs.iter().next_back().is_some_and(|run| run.0 == item.time_ms) || row.payload.is_empty() {
            row.payload = payload;
        }
        self.judge_runs(place, node, &item.value, &row, Some(item.time_ms))?;
        self.rows.put(Table::Evidence, &rows::runs_key(&place.group, &item.value), row.write());
        Ok(known)
    }

    pub(super) fn seen_group(&mut self, place: &Place, node: &Node, arrival: &Item, payload: Vec<u8>) -> Result<bool> {
        let (mut row, known) = self.sight(place, node, arrival, &[])?;
        if row.runs.newest() == Some(arrival.time_ms) {
            row.payload = payload;
        }
        if row.runs.iter().next_back().is_some_and(|run| run == (arrival.time_ms, arrival.time_ms)) && row.judged_ms < arrival.time_ms {
            self.back(place, node, &row)?;
        }
        self.await_silence(place, node, &mut row);
        self.rows.put(Table::Evidence, &rows::runs_key(&place.group, &[0; 16]), row.write());
        Ok(known)
    }

    /// Joins a sighting to the row's runs.
    fn sight(&mut self, place: &Place, node: &Node, item: &Item, tuple: &[u8]) -> Result<(RunsRow, bool)> {
        let value = if matches!(node.kind, Kind::Absence) { [0; 16] } else { item.value };
        let stored = if self.meet(place, node) { None } else { self.runs(place, &value)? };
        let new = stored.is_none();
        let mut row = stored.unwrap_or_else(|| RunsRow::new(tuple));
        let known = row.recent.contains(&item.identity);
        if !known {
            self.meters[place.node].matches += 1;
            row.remember(item.identity);
        }
        row.runs.insert(item.time_ms, node.timespan_ms);
        if new {
            let bucket = self.index.bucket(place.node, place.scope);
            self.index.add(place.group, bucket, item.time_ms);
            self.hold_quota(place, item.time_ms)?;
        } else {
            self.index.touch(&place.group, item.time_ms);
        }
        Ok((row, known))
    }

    fn runs(&self, place: &Place, value: &[u8; 16]) -> Result<Option<RunsRow>> {
        let Some(bytes) = self.rows.get(Table::Evidence, &rows::runs_key(&place.group, value))? else { return Ok(None) };
        RunsRow::read(&bytes).map(Some).ok_or_else(|| row_error(Table::Evidence, "a row of runs is cut short"))
    }

    pub(super) fn judge_value(&mut self, place: &Place, node: &Node, value: &[u8; 16]) -> Result<()> {
        match self.runs(place, value)? {
            Some(row) => self.judge_runs(place, node, value, &row, None),
            None => Ok(()),
        }
    }

    /// A run that begins after learning is a finding, once nothing that may still come could join it to the run before or
    /// add to what was learnt. An earlier sighting of the same value would give the same id, so an alert needn't wait for
    /// one; a chain wants the run's beginning and does.
    fn judge_runs(&mut self, place: &Place, node: &Node, value: &[u8; 16], row: &RunsRow, seen_ms: Option<i64>) -> Result<()> {
        let Kind::NewValue { learning_ms } = node.kind else { return Ok(()) };
        let settle_ms = self.limits.settle_ms;
        let learnt_ms = match self.mode {
            Mode::Live { .. } => self.learnt_ms[place.node],
            Mode::Replay => self.learnt_ms[place.node].saturating_add(learning_ms),
        };
        let learning_over = self.ended || learnt_ms.saturating_add(settle_ms) <= self.frontier_ms;
        let mut before: Option<i64> = None;
        let runs: Vec<(i64, i64)> = row.runs.iter().collect();
        for (start, end) in runs {
            // What is yet to come lies behind the frontier by `settle` at most; a shard that lags may still bridge the gap.
            let open_from = start.min(self.frontier_ms);
            let near = before.replace(end).is_some_and(|end| end.saturating_add(node.timespan_ms + settle_ms) >= open_from);
            if seen_ms.is_some_and(|seen| seen < start || seen > end) {
                continue;
            }
            let settled = learning_over && (self.ended || start.saturating_add(settle_ms) <= self.frontier_ms);
            let sure = settled || (learning_over && !near);
            if !settled && (!sure || node.chained()) {
                let base = if self.mode == Mode::Replay { start } else { learnt_ms.max(start) };
                self.set_timer(&Timer { due_ms: base.saturating_add(settle_ms), group: place.group, value: *value });
            }
            if start <= learnt_ms {
                continue;
            }
            let id = value_id(&node.rule, place.scope, place.tuple, &row.tuple);
            if settled {
                self.feed_parents(place, node, &id, start)?;
            }
            if sure {
                self.fire_run(place, node, id, start, row)?;
            }
        }
        Ok(())
    }

    pub(super) fn judge_silence(&mut self, place: &Place, node: &Node) -> Result<()> {
        let Some(mut row) = self.runs(place, &[0; 16])? else { return Ok(()) };
        row.timer_ms = None;
        let now_ms = if self.ended { self.newest_ms } else { self.frontier_ms };
        let runs: Vec<(i64, i64)> = row.runs.iter().collect();
        for (_, last) in runs {
            // A run that another follows may still be joined to it by another shard: only the frontier tells.
            if last > row.judged_ms && last.saturating_add(node.timespan_ms) < now_ms {
                let id = silence_id(&node.rule, place.scope, place.tuple, last);
                // A chain sees a silence at the moment that proves it.
                self.feed_parents(place, node, &id, last.saturating_add(node.timespan_ms))?;
                self.fire_run(place, node, id, last, &row)?;
                row.judged_ms = last;
            }
        }
        row.runs.forget(row.judged_ms);
        if !self.ended {
            self.await_silence(place, node, &mut row);
        }
        self.rows.put(Table::Evidence, &rows::runs_key(&place.group, &[0; 16]), row.write());
        Ok(())
    }

    /// A timer for the group's earliest run that was not judged, unless that or an earlier one is on its way.
    fn await_silence(&mut self, place: &Place, node: &Node, row: &mut RunsRow) {
        let next = row.runs.iter().map(|run| run.1).find(|last| *last > row.judged_ms);
        let due_ms = next.map(|last| last.saturating_add(node.timespan_ms).saturating_add(1));
        if let Some(due_ms) = due_ms.filter(|due| row.timer_ms.is_none_or(|timer| *due < timer)) {
            self.set_timer(&Timer { due_ms, group: place.group, value: [0; 16] });
            row.timer_ms = Some(due_ms);
        }
    }
}
