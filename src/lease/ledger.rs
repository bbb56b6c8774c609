//! From positions that the store holds to checkpoints that hold for everyone.
//!
//! In: marks, each made after its findings are durable. Out: checkpoints, and which leases turned out to be lost. Invariant: a mark
//! waits until it is written, refused, or replaced by a later one of its shard; nothing is checkpointed that was not marked.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::Notify,
    task::{JoinHandle, JoinSet},
};

use super::{
    GrantsView, OverviewView,
    local::Local,
    manager::{Checkpointer, CommitError, Manager},
};
use crate::position::{Position, ShardId};

/// Checkpoints under way at once; every shard has one mark waiting at most.
const AT_ONCE: usize = 16;
/// A checkpoint that failed is tried again after about this, doubled up to `RETRY_MOST_MS`.
const RETRY_MS: u64 = 100;
const RETRY_MOST_MS: u64 = 2_000;
/// The last checkpoints may take this long; then the leases are given up as they are, and what follows is read again.
const DRAIN: Duration = Duration::from_secs(2);

/// How far a shard is safe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub shard: ShardId,
    /// The grant's, under which the records were read.
    pub counter: u64,
    pub position: Position,
    /// Bytes of records since the mark before.
    pub bytes: u64,
}

/// Takes marks on the committing side; a cheap handle.
#[derive(Debug, Clone)]
pub struct Ledger(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The name of this worker, as others see it.
    worker: String,
    local: Option<Local>,
    waiting: Mutex<BTreeMap<ShardId, Mark>>,
    marked: Notify,
    closed: AtomicBool,
    known: Mutex<BTreeMap<ShardId, Known>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// Grants up to and with this counter are lost.
    lost: Option<u64>,
    checkpointed_ms: Option<i64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

impl Ledger {
    /// Marks go to `local`; without it they wait for whoever writes them.
    pub fn new(worker: &str, local: Option<Local>) -> Self {
        let (waiting, known) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { worker: worker.to_owned(), local, waiting, marked: Notify::new(), closed: AtomicBool::new(false), known }))
    }

    /// These positions are durable, with all that they led to.
    pub fn mark(&self, marks: &[Mark]) {
        for mark in marks {
            if let Some(local) = &self.0.local {
                local.committed(&mark.shard, &mark.position);
                self.checkpointed(&mark.shard);
            } else {
                self.wait_for(mark.clone());
            }
        }
        self.0.marked.notify_one();
    }

    /// A mark waits; one that is there already is older, or of the same records.
    fn wait_for(&self, mut mark: Mark) {
        let mut waiting = lock(&self.0.waiting);
        if let Some(before) = waiting.remove(&mark.shard) {
            mark.bytes += before.bytes;
        }
        waiting.insert(mark.shard.clone(), mark);
    }

    /// A mark that failed waits again, unless a later one does.
    fn retry(&self, mark: Mark) {
        lock(&self.0.waiting).entry(mark.shard.clone()).or_insert(mark);
    }

    fn checkpointed(&self, shard: &ShardId) {
        lock(&self.0.known).entry(shard.clone()).or_default().checkpointed_ms = Some(now_ms());
    }

    fn lose(&self, mark: &Mark) {
        lock(&self.0.known).entry(mark.shard.clone()).or_default().lost = Some(mark.counter);
    }

    /// What was read under this grant counts for nothing any more: another worker reads it.
    pub fn is_lost(&self, shard: &ShardId, counter: u64) -> bool {
        lock(&self.0.known).get(shard).and_then(|k| k.lost).is_some_and(|lost| counter <= lost)
    }

    /// When the shard's checkpoint was last written; milliseconds since the epoch.
    pub fn checkpointed_ms(&self, shard: &ShardId) -> Option<i64> {
        lock(&self.0.known).get(shard)?.checkpointed_ms
    }

    pub fn worker(&self) -> &str {
        &self.0.worker
    }

    /// Writes marks until closed and empty.
    async fn write(self, checkpointer: Checkpointer) {
        let mut failures = 0_u32;
        loop {
            let marks = std::mem::take(&mut *lock(&self.0.waiting));
            if marks.is_empty() {
                if self.0.closed.load(Ordering::Acquire) {
                    return;
                }
                self.0.marked.notified().await;
                continue;
            }
            let failed = self.write_all(marks.into_values().collect(), &checkpointer).await;
            failures = if failed { failures + 1 } else { 0 };
            if failed {
                tokio::time::sleep(pause(failures)).await;
            }
        }
    }

    /// True where some are to be tried again.
    async fn write_all(&self, marks: Vec<Mark>, checkpointer: &Checkpointer) -> bool {
        let mut failed = false;
        for part in marks.chunks(AT_ONCE) {
            let mut writes = JoinSet::new();
            for mark in part.iter().cloned() {
                let checkpointer = checkpointer.clone();
                writes.spawn(async move {
                    let outcome = checkpointer.commit(&mark.shard, mark.counter, &mark.position, mark.bytes).await;
                    (mark, outcome)
                });
            }
            for (mark, outcome) in writes.join_all().await {
                match outcome {
                    Ok(()) => self.checkpointed(&mark.shard),
                    Err(CommitError::Lost(_)) => {
                        tracing::info!(shard = %mark.shard, "a checkpoint was refused: another worker reads the shard");
                        self.lose(&mark);
                    }
                    Err(error) => {
                        tracing::warn!(shard = %mark.shard, "the checkpoint is tried again: {error}");
                        // Its bytes have been counted.
                        self.retry(Mark { bytes: 0, ..mark });
                        failed = true;
                    }
                }
            }
        }
        failed
    }
}

/// Drawn from its whole range, so that workers don't march in step.
fn pause(failures: u32) -> Duration {
    use std::hash::{BuildHasher as _, RandomState};
    let ceiling = (RETRY_MS << failures.min(8)).min(RETRY_MOST_MS);
    Duration::from_millis(ceiling / 4 + RandomState::new().hash_one(failures) % ceiling)
}

/// Whoever grants the shards: this process for itself, or a fleet by its table.
#[derive(Debug)]
pub struct Leases {
    grants: GrantsView,
    ledger: Ledger,
    fleet: Option<(Manager, JoinHandle<()>)>,
}

impl Leases {
    /// One process reads everything.
    pub fn alone(local: Local) -> Self {
        Self { grants: local.grants(), ledger: Ledger::new("this process", Some(local)), fleet: None }
    }

    pub fn fleet(manager: Manager) -> Self {
        let (grants, ledger) = (manager.grants(), Ledger::new(manager.worker(), None));
        let writer = tokio::spawn(ledger.clone().write(manager.checkpointer()));
        Self { grants, ledger, fleet: Some((manager, writer)) }
    }

    pub fn grants(&self) -> GrantsView {
        self.grants.clone()
    }

    /// Of a fleet: all shards of the streams.
    pub fn overview(&self) -> Option<OverviewView> {
        self.fleet.as_ref().map(|(manager, _)| manager.overview())
    }

    pub fn ledger(&self) -> Ledger {
        self.ledger.clone()
    }

    /// Writes what is marked, then gives every lease up, for others to take at once. Reading and committing must be over.
    pub async fn end(self) {
        let Some((manager, writer)) = self.fleet else { return };
        self.ledger.0.closed.store(true, Ordering::Release);
        self.ledger.0.marked.notify_one();
        let stop = writer.abort_handle();
        if tokio::time::timeout(DRAIN, writer).await.is_err() {
            stop.abort();
            tracing::warn!("the last checkpoints could not be written: the next worker reads their records again");
        }
        manager.shutdown().await;
    }
}
