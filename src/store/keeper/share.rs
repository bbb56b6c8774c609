//! Several keepers on the same rows: the groups of one batch are read fresh, judged, and committed if nobody was first.
//!
//! In: batches of matches and single findings; on the leader, the frontier. Out: the alerts that this worker issued. Invariant:
//! a batch's inputs are kept until its rows are; after a lost race the same inputs are judged again from fresh reads.
//!
//! What differs from a keeper that owns its rows: there is no index and no window from one batch to the next; a due window is
//! judged by whoever leads, which alone moves the frontier; nothing is swept, the store's own expiry collects garbage.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Counts, Inputs, Keeper, Limits, Meter, Mode, Plan, Result, Single, Table, hot::Hot, index::Index, restore, row_error};
use crate::{
    alert::Alert,
    correlate::Id,
    position::{Position, ShardId},
    store::{KvOp, Store, StoreError, key_time, kv_key, shared::SharedView, time_key},
};

/// Changes are committed once so many wait: below what one transaction takes, with room for one more match.
const SOFT_CHANGES: usize = 40;
/// How often one match is judged again after lost races, and the pauses between.
const ATTEMPTS: u32 = 500;
const PAUSE: Duration = Duration::from_millis(4);
const PAUSE_DOUBLINGS: u32 = 7;
/// A worker may stand still for this long before evidence that it needs is garbage.
const KEEP_SPARE_MS: i64 = 7 * 24 * 3_600_000;
/// Per shard: arrival time up to which its records are judged and committed, `time_key`.
const READ: &str = "read";

enum Step {
    Match(Arc<Inputs>, usize),
    Single(Box<Single>),
}

/// A keeper that shares its store with others. One worker's; its methods block, so they belong on a thread of their own.
pub struct SharedKeeper {
    keeper: Keeper,
    view: Arc<SharedView>,
    /// Not yet committed.
    steps: Vec<Step>,
    alerts: Vec<Alert>,
    /// As of the last commit.
    counts: Counts,
    meters: Vec<Meter>,
    conflicts: u64,
    seed: u64,
    /// What was read may be out of date: the next step begins with fresh reads. Batches without a match cost nothing so.
    stale: bool,
}

impl SharedKeeper {
    /// `start_ms`: where learning begins unless another worker has begun it.
    ///
    /// # Errors
    /// What the store says.
    pub fn open(plan: Arc<Plan>, store: Arc<dyn Store>, start_ms: i64, limits: Limits) -> Result<Self> {
        store.keep_for(Self::keep_ms(&plan, &limits));
        let mut attempt = 0;
        loop {
            let view = Arc::new(SharedView::new(Arc::clone(&store)));
            match Keeper::open_as(plan.clone(), view.clone(), Mode::Live { start_ms }, limits, true, true) {
                Ok(keeper) => {
                    let (steps, alerts, counts, meters) = (Vec::new(), Vec::new(), Counts::default(), keeper.meters.clone());
                    return Ok(Self { keeper, view, steps, alerts, counts, meters, conflicts: 0, seed: 1, stale: true });
                }
                Err(error) if error.is_retryable() && attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// How long a row may be of use after it was written.
    pub fn keep_ms(plan: &Plan, limits: &Limits) -> i64 {
        let longest = plan.nodes.iter().map(|node| 2 * node.timespan_ms + limits.lateness_ms + limits.settle_ms * node.depth);
        longest.max().unwrap_or(0).saturating_add(KEEP_SPARE_MS)
    }

    /// Takes over edited rules. What is pending must have been committed.
    ///
    /// # Errors
    /// What the store says.
    pub fn replan(self, plan: Arc<Plan>, start_ms: i64) -> Result<Self> {
        let mut next = Self::open(plan, Arc::clone(self.view.store()), start_ms, self.keeper.limits)?;
        (next.counts, next.keeper.counts, next.conflicts) = (self.counts, self.counts, self.conflicts);
        Ok(next)
    }

    /// As `Keeper::offer`.
    ///
    /// # Errors
    /// What the store says; the batch's records must then be read again.
    pub fn offer(&mut self, inputs: &Inputs, known: &mut Vec<bool>) -> Result<()> {
        let inputs = Arc::new(inputs.clone());
        for at in 0..inputs.len() {
            known.push(self.step(Step::Match(inputs.clone(), at))?);
        }
        Ok(())
    }

    /// As `Keeper::alert`.
    ///
    /// # Errors
    /// What the store says.
    pub fn alert(&mut self, single: Single) -> Result<bool> {
        self.step(Step::Single(Box::new(single)))
    }

    /// Commits what waits. `positions` and `read_to` (per shard the arrival time up to which all records have been offered; now,
    /// where caught up) follow in a transaction of their own, so that they never tell of what is not there. The caller checkpoints after this.
    /// Returns the alerts that this worker issued.
    ///
    /// # Errors
    /// What the store says; nothing was checkpointed.
    pub fn commit(&mut self, positions: &[(ShardId, Position)], read_to: &[(ShardId, i64)]) -> Result<Vec<Alert>> {
        self.flush()?;
        let positions = positions.iter().map(|(shard, position)| super::position_row(shard, position));
        let read_to = read_to.iter().map(|(shard, ms)| super::super::Change::Put {
            table: Table::Kv,
            key: kv_key(READ, shard.0.as_bytes()).into(),
            value: time_key(*ms).into(),
        });
        let changes: Vec<_> = positions.chain(read_to).collect();
        for changes in changes.chunks(SOFT_CHANGES) {
            self.view.store().commit(changes.to_vec())?;
        }
        self.stale = true;
        Ok(std::mem::take(&mut self.alerts))
    }

    /// For the leader: judges what is due once every one of `shards` (all that are open, whoever reads them) has been read so far, and
    /// moves the frontier there. `now_ms` where there is no open shard. A shard that nobody has told of holds it back. Returns the frontier.
    ///
    /// # Errors
    /// What the store says.
    pub fn lead(&mut self, shards: &[ShardId], now_ms: i64) -> Result<i64> {
        let read = self.read_to()?;
        let of = |shard: &ShardId| read.get(shard).copied().unwrap_or(i64::MIN);
        self.lead_to(shards.iter().map(of).min().unwrap_or(now_ms))
    }

    /// Up to which arrival time each shard is judged and committed, as its reader told last.
    ///
    /// # Errors
    /// What the store says.
    pub fn read_to(&self) -> Result<BTreeMap<ShardId, i64>> {
        let rows = self.view.store().kv_scan(READ, &[])?;
        let read = |(shard, row): (Vec<u8>, Vec<u8>)| {
            let shard = String::from_utf8(shard).map_err(|e| row_error(Table::Kv, e))?;
            let time = row.try_into().map_err(|_| row_error(Table::Kv, "a time has a wrong length"))?;
            Ok((ShardId(shard.into()), key_time(time)))
        };
        rows.into_iter().map(read).collect()
    }

    /// `lead`, to a frontier of the caller's own.
    ///
    /// # Errors
    /// What the store says.
    pub fn lead_to(&mut self, frontier_ms: i64) -> Result<i64> {
        self.flush()?;
        for attempt in 0..ATTEMPTS {
            self.keeper.refresh(&self.view)?;
            match self.lead_once(frontier_ms, attempt > 0) {
                Ok(frontier_ms) => return Ok(frontier_ms),
                Err(error) if error.is_retryable() => self.lost_race(attempt),
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Conflict)
    }

    /// `singly`: each window in a transaction of its own.
    fn lead_once(&mut self, frontier_ms: i64, singly: bool) -> Result<i64> {
        self.view.set_whole(!singly);
        let stored_ms = self.keeper.frontier_ms;
        let target_ms = frontier_ms.max(stored_ms);
        while self.keeper.judge_next(target_ms)? {
            if singly || self.keeper.pending() >= SOFT_CHANGES {
                self.keep()?;
            }
        }
        self.keeper.frontier_ms = target_ms;
        if target_ms != stored_ms {
            self.keeper.rows.put(Table::Meta, restore::FRONTIER, time_key(target_ms));
        }
        self.keep()?;
        Ok(target_ms)
    }

    /// A shard that is read to its end and gone is forgotten.
    ///
    /// # Errors
    /// What the store says.
    pub fn forget_shard(&self, shard: &ShardId) -> Result<()> {
        self.view.store().kv_write(&[KvOp::Delete { namespace: READ, key: shard.0.as_bytes().to_vec() }])
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// As `Keeper::take_meters`.
    pub fn take_meters(&mut self) -> Vec<(String, Meter)> {
        let meters = self.keeper.take_meters();
        self.meters.clone_from(&self.keeper.meters);
        meters
    }

    /// Races lost to other workers so far.
    pub fn conflicts(&self) -> u64 {
        self.conflicts
    }

    /// Changes that wait for the next commit.
    pub fn pending(&self) -> usize {
        self.keeper.pending()
    }

    fn step(&mut self, step: Step) -> Result<bool> {
        if std::mem::take(&mut self.stale) {
            self.keeper.refresh(&self.view)?;
        }
        let known = self.keeper.run(&step)?;
        self.steps.push(step);
        if self.keeper.pending() >= SOFT_CHANGES {
            self.flush()?;
        }
        Ok(known)
    }

    /// Commits the waiting steps; after a lost race one by one, each from fresh reads.
    fn flush(&mut self) -> Result<()> {
        self.view.set_whole(self.steps.len() > 1);
        match self.keep() {
            Err(error) if error.is_retryable() => self.lost_race(0),
            other => return other,
        }
        self.view.set_whole(false);
        for step in std::mem::take(&mut self.steps) {
            self.again(&step)?;
        }
        Ok(())
    }

    fn again(&mut self, step: &Step) -> Result<()> {
        for attempt in 0..ATTEMPTS {
            self.keeper.refresh(&self.view)?;
            self.keeper.run(step)?;
            match self.keep() {
                Err(error) if error.is_retryable() => self.lost_race(attempt),
                other => return other,
            }
        }
        Err(StoreError::Conflict)
    }

    fn keep(&mut self) -> Result<()> {
        match self.keeper.keep() {
            Ok(alerts) => {
                self.alerts.extend(alerts);
                self.counts = self.keeper.counts;
                self.meters.clone_from(&self.keeper.meters);
                self.steps.clear();
                Ok(())
            }
            Err(error) => {
                self.keeper.counts = self.counts;
                self.keeper.meters.clone_from(&self.meters);
                Err(error)
            }
        }
    }

    /// Waits a random part of a pause that doubles, so that two workers don't meet again.
    fn lost_race(&mut self, attempt: u32) {
        self.conflicts += 1;
        self.seed =
            self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(self.conflicts ^ std::process::id() as u64 ^ (&raw const *self as u64));
        let pause = PAUSE * (1 << attempt.min(PAUSE_DOUBLINGS));
        std::thread::sleep(pause.mul_f64((self.seed >> 33) as f64 / (1u64 << 31) as f64));
    }
}

impl Keeper {
    fn run(&mut self, step: &Step) -> Result<bool> {
        match step {
            Step::Match(inputs, at) => inputs.get(*at).map_or(Ok(false), |entry| self.offer_one(&entry)),
            Step::Single(single) => self.alert((**single).clone()),
        }
    }

    /// Evidence, ids and alerts of the steps so far, without a position.
    fn keep(&mut self) -> Result<Vec<Alert>> {
        self.tell()?;
        self.rows.commit()?;
        Ok(std::mem::take(&mut self.alerts))
    }

    /// Forgets what was read and what was not committed.
    fn refresh(&mut self, view: &SharedView) -> Result<()> {
        view.forget();
        self.rows.drop_changes();
        self.index = Index::default();
        self.hot = Hot::new((self.limits.budget_bytes / 4) as usize);
        self.firings.clear();
        self.alerts.clear();
        self.timer_cursor.clear();
        self.restore_frontier()
    }

    /// Shared rows: writes the group's row with every new item, so that it lives as long as they do.
    pub(super) fn meet_shared(&mut self, group: &Id, row: Vec<u8>) {
        self.rows.put(Table::Groups, group, row);
    }

    pub(super) fn restore_frontier(&mut self) -> Result<()> {
        self.frontier_ms = match self.rows.get(Table::Meta, restore::FRONTIER)? {
            Some(row) => key_time(row.try_into().map_err(|_| row_error(Table::Meta, "the frontier has a wrong length"))?),
            None => i64::MIN,
        };
        Ok(())
    }
}
