//! A worker of a fleet: holds leases, renews them, takes what is free, hands over what it is asked for.
//!
//! In: the lease table, once a tick. Out: grants, and commits fenced by owner and counter. Invariant: a shard is granted
//! only while its lease was renewed within the failover time by this machine's clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use prometheus::IntCounter;
use tokio::{
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet},
};

use super::{
    Grant, Grants, GrantsView, Notices,
    config::Config,
    leader::{Leader, workers},
    plan::{self, Limits, Seen},
    row::{Naming, Row},
    shards,
    sync::Syncer,
    table::{Cost, Table, TableError},
};
use crate::{
    metrics::Metrics,
    position::{Position, ShardId},
};

/// A table that can't be reached at the start is tried this often.
const JOIN_TRIES: u32 = 5;
const JOIN_PAUSE: Duration = Duration::from_millis(200);
/// Renewals under way at once.
const RENEWALS: usize = 16;
/// A lease that is asked for is given up once nothing was committed for this long after its reading stopped.
const DRAINED: Duration = Duration::from_millis(1500);
/// The library's workers write their row every 30 s and count as dead after two misses.
const FOREIGN_ALIVE: Duration = Duration::from_secs(75);

/// What happened to leases.
struct Meters {
    metrics: Arc<Metrics>,
    taken: IntCounter,
    /// Taken after their reader had gone silent.
    expired: IntCounter,
    renewed: IntCounter,
    lost: IntCounter,
    /// Given up at the end or in a hand-over.
    released: IntCounter,
    errors: IntCounter,
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meters")
    }
}

impl Meters {
    fn new(metrics: Arc<Metrics>) -> Self {
        let event = |name| metrics.lease_event(name);
        let (taken, expired, renewed, lost, released) = (event("taken"), event("expired"), event("renewed"), event("lost"), event("released"));
        Self { taken, expired, renewed, lost, released, errors: event("failed"), metrics }
    }
}

/// Why a commit was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Another worker reads the shard now: what this one holds of it is to be dropped.
    #[error("the lease of {0} is lost")]
    Lost(ShardId),
    /// To be tried again.
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    List(#[from] shards::ListError),
}

impl CommitError {
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Lost(_))
    }
}

/// A lease in hand.
#[derive(Debug)]
struct Held {
    row: Row,
    /// The counter under which it was taken: the grant's.
    epoch: u64,
    renewed: Instant,
    /// Since when it is asked for, or last committed to after that.
    asked: Option<Instant>,
    kilobytes: f64,
}

type Lease = Arc<tokio::sync::Mutex<Held>>;

/// What the manager's task and its handle share.
#[derive(Debug)]
struct Core {
    config: Config,
    worker: String,
    naming: Naming,
    leases: Table,
    workers: Table,
    syncer: Syncer,
    held: Mutex<BTreeMap<ShardId, Lease>>,
    /// The shards whose parents are past, as of the last look.
    ready: Mutex<BTreeSet<ShardId>>,
    grants: watch::Sender<Grants>,
    meters: Meters,
    wake: Notify,
}

/// A running worker. Dropping it is a crash: its leases expire. `shutdown` is the polite way.
#[derive(Debug)]
pub struct Manager {
    core: Arc<Core>,
    task: Option<JoinHandle<()>>,
    stop: Arc<Notify>,
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Manager {
    /// Joins the application's fleet; makes its tables where they are missing.
    pub async fn start(
        config: Config,
        dynamodb: aws_sdk_dynamodb::Client,
        kinesis: aws_sdk_kinesis::Client,
        naming: Naming,
        start: Position,
        notices: Notices,
        metrics: Arc<Metrics>,
    ) -> Result<Self, TableError> {
        let cost = Arc::new(Cost::new(&metrics));
        let table = |suffix: &str| Table { client: dynamodb.clone(), name: format!("{}{suffix}", config.table), cost: Arc::clone(&cost) };
        let (leases, coordinator, workers) = (table(""), table("-CoordinatorState"), table("-WorkerMetricStats"));
        for (table, key, owner_index) in [(&leases, "leaseKey", true), (&coordinator, "key", false), (&workers, "wid", false)] {
            let mut tries = 0;
            while let Err(error) = table.create(key, owner_index).await {
                tries += 1;
                if tries >= JOIN_TRIES || matches!(error, TableError::Denied { .. }) {
                    return Err(error);
                }
                tracing::warn!("joining the fleet: {error}");
                tokio::time::sleep(JOIN_PAUSE * tries).await;
            }
        }
        let worker = config.worker.clone().unwrap_or_else(worker_id);
        let syncer = Syncer::new(kinesis, leases.clone(), naming.clone(), start, notices, Arc::clone(&metrics));
        let core = Arc::new(Core {
            worker: worker.clone(),
            naming,
            leases,
            workers,
            syncer,
            held: Mutex::default(),
            ready: Mutex::default(),
            grants: watch::channel(Grants::default()).0,
            meters: Meters::new(metrics),
            wake: Notify::new(),
            config,
        });
        let stop = Arc::new(Notify::new());
        let leader = Leader::new(coordinator, &worker, core.config.leader_lease());
        let task = tokio::spawn(Turn::new(Arc::clone(&core), leader).run(Arc::clone(&stop)));
        Ok(Self { core, task: Some(task), stop })
    }

    pub fn worker(&self) -> &str {
        &self.core.worker
    }

    pub fn grants(&self) -> GrantsView {
        self.core.grants.subscribe()
    }

    /// A handle for the committing side.
    pub fn checkpointer(&self) -> Checkpointer {
        Checkpointer { core: Arc::clone(&self.core) }
    }

    /// Gives every lease up at once, for others to take within their next tick. Commits must be over.
    pub async fn shutdown(mut self) {
        self.stop.notify_one();
        if let Some(task) = self.task.take() {
            let _ = tokio::time::timeout(Duration::from_secs(5), task).await;
        }
    }
}

/// Commits positions under the grants that they were read under.
#[derive(Debug, Clone)]
pub struct Checkpointer {
    core: Arc<Core>,
}

impl Checkpointer {
    /// Moves the checkpoint of `shard` to `position`. `counter` is the grant's. Committing a shard's end makes its children's
    /// leases first.
    pub async fn commit(&self, shard: &ShardId, counter: u64, position: &Position, bytes: u64) -> Result<(), CommitError> {
        let core = &self.core;
        let lost = || {
            core.meters.metrics.fleet.refused_commits.inc();
            CommitError::Lost(shard.clone())
        };
        let lease = core.lease(shard).ok_or_else(lost)?;
        let mut held = lease.lock().await;
        if held.epoch != counter {
            return Err(lost());
        }
        held.kilobytes += bytes as f64 / 1000.0;
        // A reader that began again behind the checkpoint has nothing to commit yet, nor has one that has only begun.
        if position <= held.row.position() || matches!(position, Position::TrimHorizon | Position::Latest | Position::AtTimestamp(_)) {
            return Ok(());
        }
        let children = if *position == Position::ShardEnd { core.syncer.children_of(&held.row).await? } else { Vec::new() };
        let Some(row) = core.leases.checkpoint(&held.row, &core.worker, position, &children).await? else {
            drop(held);
            core.lose(shard);
            return Err(lost());
        };
        (held.row, held.renewed) = (row, Instant::now());
        if held.asked.is_some() {
            held.asked = Some(Instant::now());
        }
        drop(held);
        if *position == Position::ShardEnd {
            core.remove(shard);
            core.wake.notify_one();
        }
        Ok(())
    }
}

impl Core {
    fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lease(&self, shard: &ShardId) -> Option<Lease> {
        Self::lock(&self.held).get(shard).cloned()
    }

    fn all(&self) -> Vec<(ShardId, Lease)> {
        Self::lock(&self.held).iter().map(|(shard, lease)| (shard.clone(), Arc::clone(lease))).collect()
    }

    fn remove(&self, shard: &ShardId) {
        Self::lock(&self.held).remove(shard);
        self.revoke(shard);
    }

    fn lose(&self, shard: &ShardId) {
        tracing::info!(%shard, "the lease is lost");
        self.meters.lost.inc();
        self.remove(shard);
    }

    fn revoke(&self, shard: &ShardId) {
        self.grants.send_if_modified(|grants| {
            let granted = grants.contains_key(shard);
            if granted {
                let mut next = BTreeMap::clone(grants);
                next.remove(shard);
                *grants = Arc::new(next);
            }
            granted
        });
    }

    /// Grants what is held, not asked for, and whose parents are past.
    async fn publish(&self) {
        let ready = Self::lock(&self.ready).clone();
        let current = Arc::clone(&self.grants.borrow());
        let mut next = BTreeMap::new();
        for (shard, lease) in self.all() {
            let held = lease.lock().await;
            if ready.contains(&shard) && held.asked.is_none() && held.renewed.elapsed() < self.config.failover() {
                let fresh = || Grant { counter: held.epoch, from: held.row.position().clone() };
                // A shard that is being read keeps its grant: its reader knows better where it stands.
                let grant = current.get(&shard).filter(|g| g.counter == held.epoch).cloned().unwrap_or_else(fresh);
                next.insert(shard, grant);
            }
        }
        self.grants.send_if_modified(|grants| {
            let changed = **grants != next;
            if changed {
                *grants = Arc::new(next);
            }
            changed
        });
    }

    fn shard_of(&self, row: &Row) -> Option<ShardId> {
        self.naming.stream_of(&row.key).map(|stream| shards::shard_id(stream, row.shard()))
    }

    /// One lease's renewal, and what it tells.
    async fn renew(self: Arc<Self>, shard: ShardId, lease: Lease) {
        let mut held = lease.lock().await;
        if held.renewed.elapsed() < self.config.renew_interval() {
            return;
        }
        let since_s = held.renewed.elapsed().as_secs_f64().max(0.001);
        let before = held.row.throughput_kbps.unwrap_or(0.0);
        let throughput_kbps = before.mul_add(0.5, held.kilobytes / since_s * 0.5);
        match self.leases.renew(&held.row, &self.worker, (throughput_kbps * 1000.0).round() / 1000.0).await {
            Ok(Some(row)) => {
                self.meters.renewed.inc();
                if row.checkpoint_owner.is_some() && held.asked.is_none() {
                    tracing::info!(%shard, next = row.owner, "asked to hand over");
                    held.asked = Some(Instant::now());
                    self.revoke(&shard);
                }
                (held.row, held.renewed, held.kilobytes) = (row, Instant::now(), 0.0);
            }
            Ok(None) => {
                drop(held);
                self.lose(&shard);
            }
            Err(error) => {
                self.meters.errors.inc();
                tracing::warn!(%shard, "{error}");
                // Another may read it by now: reading stops, and the lease is ours again only if it can be renewed.
                if held.renewed.elapsed() >= self.config.failover() {
                    self.revoke(&shard);
                }
            }
        }
    }

    async fn renew_all(self: &Arc<Self>) {
        for part in self.all().chunks(RENEWALS) {
            let mut renewals = JoinSet::new();
            for (shard, lease) in part {
                renewals.spawn(Arc::clone(self).renew(shard.clone(), Arc::clone(lease)));
            }
            renewals.join_all().await;
        }
    }

    async fn take(&self, row: &Row) -> Result<(), TableError> {
        let Some(shard) = self.shard_of(row) else { return Ok(()) };
        let silent = row.reader().is_some_and(|reader| reader != self.worker);
        if let Some(row) = self.leases.take(row, &self.worker).await? {
            tracing::info!(%shard, worker = self.worker, silent, "took the lease");
            if silent { &self.meters.expired } else { &self.meters.taken }.inc();
            let epoch = row.counter;
            let held = Held { row, epoch, renewed: Instant::now(), asked: None, kilobytes: 0.0 };
            Self::lock(&self.held).insert(shard, Arc::new(tokio::sync::Mutex::new(held)));
        }
        Ok(())
    }

    /// Gives up what was asked for and is drained.
    async fn hand_over_drained(&self) -> Result<(), TableError> {
        for (shard, lease) in self.all() {
            let held = lease.lock().await;
            if held.asked.is_some_and(|since| since.elapsed() >= DRAINED) {
                let row = held.row.clone();
                drop(held);
                self.remove(&shard);
                if self.leases.release(&row, &self.worker).await? {
                    self.meters.released.inc();
                    tracing::info!(%shard, next = row.owner, "handed over");
                }
            }
        }
        Ok(())
    }
}

/// The task's own memory from one tick to the next.
struct Turn {
    core: Arc<Core>,
    leader: Leader,
    workers: workers::Workers,
    living: BTreeSet<String>,
    /// By lease key: its counter and since when it stands.
    seen: BTreeMap<String, (u64, Instant)>,
    beaten: Option<Instant>,
    beats: u64,
    synced: Option<Instant>,
}

impl Turn {
    fn new(core: Arc<Core>, leader: Leader) -> Self {
        let (workers, living, seen) = (workers::Workers::default(), BTreeSet::new(), BTreeMap::new());
        Self { core, leader, workers, living, seen, beaten: None, beats: 0, synced: None }
    }

    async fn run(mut self, stop: Arc<Notify>) {
        let core = Arc::clone(&self.core);
        loop {
            let since = Instant::now();
            tokio::select! {
                () = stop.notified() => break,
                outcome = self.tick() => if let Err(error) = outcome {
                    core.meters.errors.inc();
                    tracing::warn!("leases: {error}");
                },
            }
            let rest = core.config.tick().saturating_sub(since.elapsed());
            tokio::select! {
                () = stop.notified() => break,
                () = core.wake.notified() => {}
                () = tokio::time::sleep(rest) => {}
            }
        }
        self.leave().await;
    }

    async fn tick(&mut self) -> Result<(), TableError> {
        let core = Arc::clone(&self.core);
        core.renew_all().await;
        core.hand_over_drained().await?;
        self.beat().await?;
        let rows = core.leases.leases().await?;
        let rows: Vec<Row> = rows.into_iter().filter(|row| core.naming.stream_of(&row.key).is_some()).collect();
        self.look(&rows);
        let seen: Vec<Seen<'_>> = rows.iter().map(|row| Seen { row, unmoved: self.seen[&row.key].1.elapsed() }).collect();
        let limits = Limits { failover: core.config.failover(), tick: core.config.tick(), most: core.config.max_leases };
        for row in plan::to_take(&seen, &core.worker, &self.living, &limits) {
            core.take(row).await?;
        }
        self.settle(&rows);
        core.publish().await;
        self.lead(&rows, &seen, &limits).await
    }

    /// Notes which counters have moved, and drops what the table says is another's.
    fn look(&mut self, rows: &[Row]) {
        let now = Instant::now();
        let mut seen = BTreeMap::new();
        for row in rows {
            let since = match self.seen.get(&row.key) {
                Some((counter, since)) if *counter == row.counter => *since,
                _ => now,
            };
            seen.insert(row.key.clone(), (row.counter, since));
        }
        self.seen = seen;
    }

    /// Which shards may be read, and the figures of the table.
    fn settle(&self, rows: &[Row]) {
        let core = &self.core;
        let mut ready = BTreeSet::new();
        let (mut foreign, mut unassigned) = (0, 0);
        for row in rows.iter().filter(|r| !r.is_finished()) {
            let Some(shard) = core.shard_of(row) else { continue };
            let (prefix, _) = row.key.split_at(row.key.len() - row.shard().len());
            let past = |parent: &String| rows.iter().find(|r| r.key == format!("{prefix}{parent}")).is_none_or(Row::is_finished);
            if row.parents.iter().all(past) {
                ready.insert(shard);
            }
            match row.reader() {
                None => unassigned += 1,
                Some(reader) if reader != core.worker => foreign += 1,
                Some(_) => {}
            }
        }
        *Core::lock(&core.ready) = ready;
        core.meters.metrics.set_leases(Core::lock(&core.held).len(), foreign, unassigned);
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
        let alive = |worker: &str| if is_ours(worker) { every * 3 } else { FOREIGN_ALIVE };
        self.living = self.workers.living(&core.workers, alive).await?;
        Ok(())
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
            match core.syncer.sync(rows).await {
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
        if let Some((row, to)) = plan::to_hand_over(seen, &self.living, limits)
            && core.leases.hand_over(row, &to).await?
        {
            tracing::info!(lease = row.key, from = row.owner, to, "asks for a hand-over");
        }
        Ok(())
    }

    /// Clears the owner of every lease, the lock and the worker's row.
    async fn leave(mut self) {
        let core = self.core;
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
        let rest = async {
            workers::remove(&core.workers, &core.worker).await?;
            self.leader.release().await
        };
        let (_, rest) = tokio::join!(releases.join_all(), rest);
        if let Err(error) = rest {
            tracing::warn!("{error}");
        }
    }
}

const OURS: &str = "trailwarden-";

fn is_ours(worker: &str) -> bool {
    worker.starts_with(OURS)
}

/// A name that no other process has had: after a restart the old one's leases are another's.
fn worker_id() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "host".to_owned());
    format!("{OURS}{host}-{:016x}", RandomState::new().hash_one(std::process::id()))
}
