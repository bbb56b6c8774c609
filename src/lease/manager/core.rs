//! What a worker's tasks share: the leases in hand, and the writes that concern one of them.
//!
//! In: rows of the table. Out: grants; leases renewed, taken and given up. Invariant: a shard is granted only while its lease was
//! renewed within the failover time by this machine's clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::{Duration, Instant},
};

use prometheus::IntCounter;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};

use crate::{
    lease::{
        Grant, Grants, Overview,
        config::Config,
        row::{Naming, Row},
        shards,
        sync::Syncer,
        table::{Table, TableError},
    },
    metrics::Metrics,
    position::ShardId,
};

/// Renewals under way at once.
const RENEWALS: usize = 16;
/// A lease that is asked for is given up once nothing was committed for this long after its reading stopped.
const DRAINED: Duration = Duration::from_millis(1500);

/// What happened to leases.
pub(super) struct Meters {
    pub(super) metrics: Arc<Metrics>,
    pub(super) taken: IntCounter,
    /// Taken after their reader had gone silent.
    pub(super) expired: IntCounter,
    pub(super) renewed: IntCounter,
    pub(super) lost: IntCounter,
    /// Given up at the end or in a hand-over.
    pub(super) released: IntCounter,
    pub(super) errors: IntCounter,
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meters")
    }
}

impl Meters {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        let event = |name| metrics.lease_event(name);
        let (taken, expired, renewed, lost, released) = (event("taken"), event("expired"), event("renewed"), event("lost"), event("released"));
        Self { taken, expired, renewed, lost, released, errors: event("failed"), metrics }
    }
}

/// A lease in hand.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) row: Row,
    /// The counter under which it was taken: the grant's.
    pub(super) epoch: u64,
    pub(super) renewed: Instant,
    /// Since when it is asked for, or last committed to after that.
    pub(super) asked: Option<Instant>,
    pub(super) kilobytes: f64,
}

pub(super) type Lease = Arc<tokio::sync::Mutex<Held>>;

/// What the manager's task and its handle share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) config: Config,
    pub(super) worker: String,
    pub(super) naming: Naming,
    pub(super) leases: Table,
    pub(super) workers: Table,
    pub(super) syncer: Syncer,
    pub(super) held: Mutex<BTreeMap<ShardId, Lease>>,
    /// The shards whose parents are past, as of the last look.
    pub(super) ready: Mutex<BTreeSet<ShardId>>,
    pub(super) grants: watch::Sender<Grants>,
    pub(super) overview: watch::Sender<Arc<Overview>>,
    pub(super) meters: Meters,
    pub(super) wake: Notify,
    /// Nothing more is taken.
    pub(super) leaving: AtomicBool,
}

impl Core {
    pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lease(&self, shard: &ShardId) -> Option<Lease> {
        Self::lock(&self.held).get(shard).cloned()
    }

    pub(super) fn all(&self) -> Vec<(ShardId, Lease)> {
        Self::lock(&self.held).iter().map(|(shard, lease)| (shard.clone(), Arc::clone(lease))).collect()
    }

    pub(super) fn remove(&self, shard: &ShardId) {
        Self::lock(&self.held).remove(shard);
        self.revoke(shard);
    }

    pub(super) fn lose(&self, shard: &ShardId) {
        tracing::info!(%shard, "the lease is lost");
        self.meters.lost.inc();
        self.remove(shard);
    }

    pub(super) fn revoke(&self, shard: &ShardId) {
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
    pub(super) async fn publish(&self) {
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

    pub(super) fn shard_of(&self, row: &Row) -> Option<ShardId> {
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

    /// Renews, and gives up what is drained, until aborted. Apart from the turns: nothing that is slow there may cost a lease.
    pub(super) async fn keep(self: Arc<Self>) {
        let pause = self.config.renew_interval() / 2;
        loop {
            self.renew_all().await;
            if let Err(error) = self.hand_over_drained().await {
                self.meters.errors.inc();
                tracing::warn!("a hand-over: {error}");
            }
            tokio::time::sleep(pause).await;
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

    pub(super) async fn take(&self, row: &Row) -> Result<(), TableError> {
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
