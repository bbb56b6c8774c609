//! A worker's turns: one look at the table, what to take, whether it leads.
//!
//! In: the table's rows, once a tick. Out: leases taken; by the leader shards synced and hand-overs asked for. Invariant: all that is
//! decided holds for one look; the table's conditions refuse what has changed since.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{sync::Notify, task::JoinSet};

use super::{core::Core, is_ours};
use crate::lease::{
    OpenShard, Overview,
    leader::{Leader, workers},
    plan::{self, Limits, Seen},
    row::Row,
    table::TableError,
};

/// The library's workers write their row every 30 s and count as dead after two misses.
const FOREIGN_ALIVE: Duration = Duration::from_secs(75);
/// What a turn is given to end in, when the worker leaves.
const LAST_TICK: Duration = Duration::from_millis(300);

/// The task's own memory from one tick to the next.
pub(super) struct Turn {
    core: Arc<Core>,
    leader: Leader,
    workers: workers::Workers,
    living: BTreeSet<String>,
    /// By lease key.
    seen: BTreeMap<String, Standing>,
    beaten: Option<Instant>,
    beats: u64,
    synced: Option<Instant>,
    /// When a hand-over was last asked for.
    evened: Option<Instant>,
}

/// Since when a lease's counter stands, and since when its reader is the same.
struct Standing {
    counter: u64,
    unmoved: Instant,
    reader: Option<String>,
    kept: Instant,
}

impl Turn {
    pub(super) fn new(core: Arc<Core>, leader: Leader) -> Self {
        let (workers, living, seen) = (workers::Workers::default(), BTreeSet::new(), BTreeMap::new());
        Self { core, leader, workers, living, seen, beaten: None, beats: 0, synced: None, evened: Some(Instant::now()) }
    }

    pub(super) async fn run(mut self, stop: Arc<Notify>) {
        let core = Arc::clone(&self.core);
        let mut keeping = JoinSet::new();
        keeping.spawn(Arc::clone(&core).keep());
        loop {
            let since = Instant::now();
            let stopped = {
                let tick = self.tick();
                tokio::pin!(tick);
                tokio::select! {
                    // A lease whose taking is broken off would be nobody's until it expires.
                    () = stop.notified() => {
                        core.leaving.store(true, Ordering::Relaxed);
                        let _ = tokio::time::timeout(LAST_TICK, tick).await;
                        true
                    }
                    outcome = &mut tick => {
                        if let Err(error) = outcome {
                            core.meters.errors.inc();
                            tracing::warn!("leases: {error}");
                        }
                        false
                    }
                }
            };
            if stopped {
                break;
            }
            let rest = core.config.tick().saturating_sub(since.elapsed());
            tokio::select! {
                () = stop.notified() => break,
                () = core.wake.notified() => {}
                () = tokio::time::sleep(rest) => {}
            }
        }
        keeping.abort_all();
        self.leave().await;
    }

    async fn tick(&mut self) -> Result<(), TableError> {
        let core = Arc::clone(&self.core);
        let synced = self.synced.is_some();
        self.beat().await?;
        let rows = core.leases.leases().await?;
        let rows: Vec<Row> = rows.into_iter().filter(|row| core.naming.stream_of(&row.key).is_some()).collect();
        self.look(&rows);
        let ready = ready(&rows);
        if rows.iter().any(|row| row.reader().is_none() && ready.contains(row.key.as_str())) {
            // Somebody may have left: then the shares of the others are larger.
            self.count_living().await?;
        }
        let see = rows.iter().map(|row| {
            let Standing { unmoved, kept, .. } = &self.seen[&row.key];
            let held = core.shard_of(row).is_some_and(|shard| core.lease(&shard).is_some());
            Seen { row, unmoved: unmoved.elapsed(), kept: kept.elapsed(), ready: ready.contains(row.key.as_str()), held }
        });
        let seen: Vec<Seen<'_>> = see.collect();
        let config = &core.config;
        let limits = Limits { failover: config.failover(), tick: config.tick(), settle: config.settle(), most: config.max_leases };
        for row in plan::to_take(&seen, &core.worker, &self.living, &limits) {
            if self.is_leaving() {
                return Ok(());
            }
            core.take(row).await?;
        }
        let open = self.settle(&rows, &ready);
        core.publish().await;
        if self.is_leaving() {
            return Ok(());
        }
        let led = self.lead(&rows, &seen, &limits).await;
        core.overview.send_replace(Arc::new(Overview { leads: synced && self.leader.is_leading(), open }));
        led
    }

    /// Notes which counters have moved, and drops what the table says is another's.
    fn look(&mut self, rows: &[Row]) {
        let now = Instant::now();
        let mut seen = BTreeMap::new();
        for row in rows {
            let before = self.seen.remove(&row.key);
            let unmoved = before.as_ref().filter(|b| b.counter == row.counter).map_or(now, |b| b.unmoved);
            let kept = before.as_ref().filter(|b| b.reader.as_deref() == row.reader()).map_or(now, |b| b.kept);
            let standing = Standing { counter: row.counter, unmoved, reader: row.reader().map(str::to_owned), kept };
            seen.insert(row.key.clone(), standing);
        }
        self.seen = seen;
    }

    /// Tells which shards may be read, and the table's figures; returns all open shards.
    fn settle(&self, rows: &[Row], ready: &BTreeSet<&str>) -> Vec<OpenShard> {
        let core = &self.core;
        let (mut readable, mut open) = (BTreeSet::new(), Vec::new());
        let (mut foreign, mut unassigned) = (0, 0);
        for row in rows.iter().filter(|r| !r.is_finished()) {
            let Some(shard) = core.shard_of(row) else { continue };
            let is_ready = ready.contains(row.key.as_str());
            open.push(OpenShard { shard: shard.clone(), reader: row.reader().map(str::to_owned), ready: is_ready });
            if is_ready {
                readable.insert(shard);
            }
            match row.reader() {
                None => unassigned += usize::from(is_ready),
                Some(reader) if reader != core.worker => foreign += 1,
                Some(_) => {}
            }
        }
        *Core::lock(&core.ready) = readable;
        core.meters.metrics.set_leases(Core::lock(&core.held).len(), foreign, unassigned);
        open
    }

    async fn beat(&mut self) -> Result<(), TableError> {
        let core = Arc::clone(&self.core);
        let every = core.config.beat_interval();
        if self.beaten.is_some_and(|since| since.elapsed() < every) {
            return Ok(());
        }
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.beats += 1;
        workers::beat(&core.workers, &core.worker, now_s, self.beats).await?;
        self.beaten = Some(Instant::now());
        self.count_living().await
    }

    async fn count_living(&mut self) -> Result<(), TableError> {
        let ours = self.core.config.beat_interval() * 3;
        let alive = |worker: &str| if is_ours(worker) { ours } else { FOREIGN_ALIVE };
        self.living = self.workers.living(&self.core.workers, alive).await?;
        Ok(())
    }

    fn is_leaving(&self) -> bool {
        self.core.leaving.load(Ordering::Relaxed)
    }

    async fn lead(&mut self, rows: &[Row], seen: &[Seen<'_>], limits: &Limits) -> Result<(), TableError> {
        let core = Arc::clone(&self.core);
        // The library's leader never retakes the lock of one that was killed, so where it runs it leads.
        if self.living.iter().any(|worker| !is_ours(worker)) {
            self.leader.release().await?;
            core.meters.metrics.fleet.leading.set(0);
            // Until the first rows exist nobody can do anything: whoever sees it makes them.
            if !rows.is_empty() {
                return Ok(());
            }
        } else {
            let leading = self.leader.lead().await?;
            core.meters.metrics.fleet.leading.set(leading.into());
            if !leading {
                return Ok(());
            }
        }
        if self.synced.is_none_or(|since| since.elapsed() >= core.config.sync_interval()) || rows.is_empty() {
            match core.syncer.sync(seen).await {
                Ok(made) => {
                    self.synced = Some(Instant::now());
                    if made > 0 {
                        core.wake.notify_one();
                    }
                }
                Err(error) => {
                    core.meters.errors.inc();
                    tracing::warn!("shard sync: {error}");
                }
            }
            for worker in self.workers.stale(FOREIGN_ALIVE * 4) {
                workers::remove(&core.workers, &worker).await?;
            }
        }
        let by_rate = self.evened.is_none_or(|since| since.elapsed() >= core.config.sync_interval());
        if let Some((row, to)) = plan::to_hand_over(seen, &self.living, limits, by_rate)
            && core.leases.hand_over(row, &to).await?
        {
            self.evened = Some(Instant::now());
            tracing::info!(lease = row.key, from = row.owner, to, "asks for a hand-over");
        }
        Ok(())
    }

    /// Clears the owner of every lease, the lock and the worker's row.
    async fn leave(mut self) {
        let core = self.core;
        // First, so that whoever sees the free leases counts this worker no more.
        if let Err(error) = workers::remove(&core.workers, &core.worker).await {
            tracing::warn!("{error}");
        }
        let mut releases = JoinSet::new();
        for (shard, lease) in core.all() {
            let core = Arc::clone(&core);
            releases.spawn(async move {
                core.remove(&shard);
                let row = lease.lock().await.row.clone();
                match core.leases.release(&row, &core.worker).await {
                    Ok(_) => core.meters.released.inc(),
                    Err(error) => tracing::warn!(%shard, "{error}"),
                }
            });
        }
        let (_, released) = tokio::join!(releases.join_all(), self.leader.release());
        if let Err(error) = released {
            tracing::warn!("{error}");
        }
    }
}

/// The keys of the leases whose shards aren't past, but their parents are.
fn ready(rows: &[Row]) -> BTreeSet<&str> {
    let open: BTreeSet<&str> = rows.iter().filter(|row| !row.is_finished()).map(|row| row.key.as_str()).collect();
    let waits = |row: &&Row| {
        let (prefix, _) = row.key.split_at(row.key.len() - row.shard().len());
        row.parents.iter().any(|parent| open.contains(format!("{prefix}{parent}").as_str()))
    };
    rows.iter().filter(|row| !row.is_finished() && !waits(row)).map(|row| row.key.as_str()).collect()
}
