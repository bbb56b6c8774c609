//! The keeper of this process: with rows of its own, or with rows that a fleet shares.
//!
//! In: matches, the times up to which shards are read. Out: alerts. Invariant: what is told of a shard to the fleet follows the
//! evidence of its records, never precedes it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    alert::Alert,
    correlate::{Inputs, Plan},
    lease::{OpenShard, OverviewView},
    position::{Position, ShardId},
    store::{
        Result, Store,
        keeper::{Counts, Held, Keeper, Limits, Meter, Mode, SharedKeeper, Single},
    },
};

/// A worker tells the fleet so often how far it has read, and the leader judges what has become due: windows settle for minutes,
/// and every row told is paid for.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// From a reading to what others know of it, at most.
pub(super) const TOLD_LATE_MS: i64 = 2 * TELL_EVERY.as_millis() as i64;

/// Takes what workers have found.
pub(super) trait Judge {
    fn offer(&mut self, inputs: &Inputs, known: &mut Vec<bool>) -> Result<()>;
    fn alert(&mut self, single: Single) -> Result<bool>;
}

impl Judge for Keeper {
    fn offer(&mut self, inputs: &Inputs, known: &mut Vec<bool>) -> Result<()> {
        Keeper::offer(self, inputs, known)
    }

    fn alert(&mut self, single: Single) -> Result<bool> {
        Keeper::alert(self, single)
    }
}

pub(super) enum AnyKeeper {
    Own(Box<Keeper>),
    Shared(Box<Shared>),
}

pub(super) struct Shared {
    keeper: SharedKeeper,
    overview: OverviewView,
    told: Option<Instant>,
    /// As the fleet's workers have told.
    read_to: BTreeMap<ShardId, i64>,
    /// Read to their end since the last telling.
    ended: Vec<ShardId>,
    /// Issued while telling or leading.
    alerts: Vec<Alert>,
}

impl Judge for AnyKeeper {
    fn offer(&mut self, inputs: &Inputs, known: &mut Vec<bool>) -> Result<()> {
        match self {
            Self::Own(keeper) => keeper.offer(inputs, known),
            Self::Shared(shared) => shared.keeper.offer(inputs, known),
        }
    }

    fn alert(&mut self, single: Single) -> Result<bool> {
        match self {
            Self::Own(keeper) => keeper.alert(single),
            Self::Shared(shared) => shared.keeper.alert(single),
        }
    }
}

impl AnyKeeper {
    /// Shared where there is an overview of a fleet.
    pub fn open(plan: Arc<Plan>, store: Arc<dyn Store>, now_ms: i64, limits: Limits, overview: Option<OverviewView>) -> Result<Self> {
        let Some(overview) = overview else {
            return Ok(Self::Own(Box::new(Keeper::open(plan, store, Mode::Live { start_ms: now_ms }, limits, true)?)));
        };
        let keeper = SharedKeeper::open(plan, store, now_ms, limits)?;
        let (read_to, ended, alerts) = (BTreeMap::new(), Vec::new(), Vec::new());
        Ok(Self::Shared(Box::new(Shared { keeper, overview, told: None, read_to, ended, alerts })))
    }

    pub fn replan(self, plan: Arc<Plan>, now_ms: i64) -> Result<Self> {
        Ok(match self {
            Self::Own(keeper) => Self::Own(Box::new(keeper.replan(plan)?)),
            Self::Shared(shared) => {
                let Shared { keeper, overview, told, read_to, ended, alerts } = *shared;
                let keeper = keeper.replan(plan, now_ms)?;
                Self::Shared(Box::new(Shared { keeper, overview, told, read_to, ended, alerts }))
            }
        })
    }

    /// Lets time pass. `read_to`: per shard that is read here the time up to which its records have been offered; `i64::MIN`, where
    /// nothing is known yet. Of a fleet, the leader judges by what all have told.
    pub fn advance(&mut self, read_to: &[(ShardId, i64)]) -> Result<()> {
        match self {
            Self::Own(keeper) => keeper.advance(read_to.iter().map(|(_, ms)| *ms).min().unwrap_or(i64::MIN)),
            Self::Shared(shared) => shared.advance(read_to),
        }
    }

    /// All records of the shard have been offered.
    pub fn ended(&mut self, shard: &ShardId) {
        if let Self::Shared(shared) = self {
            shared.ended.push(shard.clone());
        }
    }

    /// What was offered is durable after this. A fleet keeps positions in its lease table, not here.
    pub fn commit(&mut self, positions: &[(ShardId, Position)]) -> Result<Vec<Alert>> {
        match self {
            Self::Own(keeper) => keeper.commit(positions),
            Self::Shared(shared) => {
                let mut alerts = std::mem::take(&mut shared.alerts);
                alerts.extend(shared.keeper.commit(&[], &[])?);
                Ok(alerts)
            }
        }
    }

    pub fn pending(&self) -> usize {
        match self {
            Self::Own(keeper) => keeper.pending(),
            Self::Shared(shared) => shared.keeper.pending() + shared.alerts.len(),
        }
    }

    pub fn counts(&self) -> Counts {
        match self {
            Self::Own(keeper) => keeper.counts(),
            Self::Shared(shared) => shared.keeper.counts(),
        }
    }

    /// Nobody counts what a whole fleet holds.
    pub fn held(&self) -> Held {
        match self {
            Self::Own(keeper) => keeper.held(),
            Self::Shared(_) => Held::default(),
        }
    }

    /// Of a fleet: every open shard, and up to which arrival time its reader says that it has read.
    pub fn open_shards(&self) -> Vec<(OpenShard, Option<i64>)> {
        let Self::Shared(shared) = self else { return Vec::new() };
        let overview = shared.overview.borrow().clone();
        overview.open.iter().map(|open| (open.clone(), shared.read_to.get(&open.shard).copied())).collect()
    }

    /// Races lost to other workers so far.
    pub fn conflicts(&self) -> u64 {
        match self {
            Self::Own(_) => 0,
            Self::Shared(shared) => shared.keeper.conflicts(),
        }
    }

    pub fn take_meters(&mut self) -> Vec<(String, Meter)> {
        match self {
            Self::Own(keeper) => keeper.take_meters(),
            Self::Shared(shared) => shared.keeper.take_meters(),
        }
    }
}

impl Shared {
    fn advance(&mut self, read_to: &[(ShardId, i64)]) -> Result<()> {
        if self.told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return Ok(());
        }
        self.told = Some(Instant::now());
        let known: Vec<_> = read_to.iter().filter(|(_, ms)| *ms > i64::MIN).cloned().collect();
        self.alerts.extend(self.keeper.commit(&[], &known)?);
        for shard in std::mem::take(&mut self.ended) {
            self.keeper.forget_shard(&shard)?;
        }
        self.read_to = self.keeper.read_to()?;
        let overview = self.overview.borrow().clone();
        // Without an open shard nothing is known of how far reading has come: the streams may not have been listed yet.
        let frontier = overview.open.iter().map(|open| self.read_to.get(&open.shard).copied().unwrap_or(i64::MIN)).min();
        if let (true, Some(frontier_ms)) = (overview.leads, frontier) {
            self.keeper.lead_to(frontier_ms)?;
            self.alerts.extend(self.keeper.commit(&[], &[])?);
        }
        Ok(())
    }
}
