//! A worker of a fleet: holds leases, renews them, takes what is free, hands over what it is asked for.
//!
//! In: the lease table, once a tick (`turn`). Out: grants, and commits fenced by owner and counter. Invariant: a shard is granted
//! only while its lease was renewed within the failover time by this machine's clock.

use std::{
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

use self::{
    core::{Core, Meters},
    turn::Turn,
};
use super::{
    Grants, GrantsView, Notices, OverviewView,
    config::Config,
    leader::Leader,
    row::Naming,
    shards,
    sync::Syncer,
    table::{Cost, Table, TableError},
};
use crate::{
    metrics::Metrics,
    position::{Position, ShardId},
};

mod core;
mod turn;

/// A table that can't be reached at the start is tried this often.
const JOIN_TRIES: u32 = 5;
const JOIN_PAUSE: Duration = Duration::from_millis(200);
/// For giving all leases up; those that are not expire.
const LEAVE: Duration = Duration::from_secs(2);

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
        let syncer = Syncer::new(kinesis, leases.clone(), naming.clone(), start, notices, Arc::clone(&metrics), config.linger());
        let core = Arc::new(Core {
            worker: worker.clone(),
            naming,
            leases,
            workers,
            syncer,
            held: Mutex::default(),
            ready: Mutex::default(),
            grants: watch::channel(Grants::default()).0,
            overview: watch::channel(Arc::default()).0,
            meters: Meters::new(metrics),
            wake: Notify::new(),
            leaving: AtomicBool::new(false),
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

    pub fn overview(&self) -> OverviewView {
        self.core.overview.subscribe()
    }

    /// A handle for the committing side.
    pub fn checkpointer(&self) -> Checkpointer {
        Checkpointer { core: Arc::clone(&self.core) }
    }

    /// Gives every lease up at once, for others to take within their next tick. Commits must be over.
    pub async fn shutdown(mut self) {
        self.stop.notify_one();
        if let Some(task) = self.task.take() {
            let _ = tokio::time::timeout(LEAVE, task).await;
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
        // Listing shards may take long, and renewals wait for the lease.
        let children = match position {
            Position::ShardEnd => {
                let row = lease.lock().await.row.clone();
                // As it is now: a worker that sleeps on past its lease would make children anew that others have read and deleted.
                match core.leases.lease(&row.key).await?.filter(|now| now.reader() == Some(&core.worker)) {
                    Some(now) if now.is_finished() => Vec::new(),
                    Some(_) => core.syncer.children_of(&row).await?,
                    None => {
                        core.lose(shard);
                        return Err(lost());
                    }
                }
            }
            _ => Vec::new(),
        };
        let mut held = lease.lock().await;
        if held.epoch != counter {
            return Err(lost());
        }
        held.kilobytes += bytes as f64 / 1000.0;
        // A reader that began again behind the checkpoint has nothing to commit yet, nor has one that has only begun.
        if position <= held.row.position() || matches!(position, Position::TrimHorizon | Position::Latest | Position::AtTimestamp(_)) {
            return Ok(());
        }
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
