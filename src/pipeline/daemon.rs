//! The daemon's loop: batches of a stream to workers, what they find to the keeper, and back how far each shard is safe.
//!
//! In: batches in the order of their shards. Out: commits, and their positions to whoever holds the leases. Invariant: batches of one
//! shard pass one worker, hence the keeper, in order; when the batches end, everything read is committed before `run` returns.
//!
//! Three loops, each on a screen: `distribute` (a task), `work` (a thread a core), `keep` (one thread, in `keeping`).

use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, mpsc as std_mpsc};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot, watch};

use super::keeping::{self, Keeping};
use super::{Batch, Detectors, Tally, Worker};
use crate::admin::{Board, Replayed};
use crate::decode::log::FlowFormat;
use crate::lease::ledger::{Ledger, Mark};
use crate::lease::{GrantsView, OverviewView};
use crate::metrics::Metrics;
use crate::position::{Position, ShardId};
use crate::source;
use crate::store::keeper::Limits;
use crate::store::{Store, StoreError};

/// Batches that wait for one worker: their bytes count against the source's budget until they are worked.
const INBOX_BATCHES: usize = 8;
/// Findings that wait for the keeper.
const FOUND_BATCHES: usize = 64;

/// Hears of each commit: the positions that are safe now, and what became of their events. Also each second or so of nothing, as a sign
/// of life: a worker of a fleet may have no shard.
pub type Committed = Box<dyn FnMut(&[Mark], &Tally) + Send>;

/// What the daemon is made of.
pub struct Parts {
    pub detectors: watch::Receiver<Arc<Detectors>>,
    pub store: Arc<dyn Store>,
    pub limits: Limits,
    pub metrics: Arc<Metrics>,
    /// What the status page shows.
    pub board: Arc<Board>,
    pub workers: usize,
    /// Of VPC flow logs.
    pub flow_format: Option<FlowFormat>,
    /// The shards that are being read, for the frontier.
    pub grants: GrantsView,
    /// Of a fleet, whose workers share the store: all shards, and who leads.
    pub overview: Option<OverviewView>,
    /// Knows which leases are lost, and how old each checkpoint is.
    pub ledger: Ledger,
    /// Told after each commit.
    pub committed: Committed,
    /// Records of the quarantine that are to be read again.
    pub replays: mpsc::Receiver<Again>,
}

/// A record from the quarantine, to be read as if it came anew; no shard's position moves.
#[derive(Debug)]
pub struct Again {
    /// The shard that it came from: part of the identity of events without an id.
    pub source: String,
    pub data: Vec<u8>,
    pub arrival_ms: i64,
    /// Told once what was found is durable.
    pub answer: oneshot::Sender<Replayed>,
}

/// To a worker.
enum Job {
    Batch(source::Batch),
    Again(Again),
    /// Every batch that comes later is judged by these.
    Reload(Arc<Detectors>),
}

/// To the keeper.
pub(super) enum Done {
    Found(Box<Worked>),
    Again(Box<Reread>),
    /// The worker has switched; its later batches follow the new rules.
    Reloaded(Arc<Detectors>),
}

/// A batch that went through a worker.
pub(super) struct Worked {
    pub shard: ShardId,
    /// The grant's.
    pub counter: u64,
    pub through: Position,
    pub shard_end: bool,
    /// The end of the batch was the end of what the shard had at this time.
    pub caught_up_ms: Option<i64>,
    pub behind_ms: Option<u64>,
    pub newest_arrival_ms: Option<i64>,
    pub found: Batch,
    /// The rules that it was judged by.
    pub detectors: Arc<Detectors>,
}

/// A record of the quarantine that went through a worker.
pub(super) struct Reread {
    pub found: Batch,
    pub answer: oneshot::Sender<Replayed>,
    pub detectors: Arc<Detectors>,
}

/// Runs until `batches` ends, or the store fails.
///
/// # Errors
/// The store's: nothing that failed to commit counts, and a restart goes on from the last commit.
pub async fn run(mut parts: Parts, batches: mpsc::Receiver<source::Batch>) -> Result<Tally, StoreError> {
    let detectors = parts.detectors.borrow_and_update().clone();
    let (to_keeper, from_workers) = std_mpsc::sync_channel(FOUND_BATCHES);
    let mut inboxes = Vec::with_capacity(parts.workers);
    for number in 0..parts.workers.max(1) {
        let (inbox, jobs) = mpsc::channel(INBOX_BATCHES);
        let worker = Worker::new(detectors.clone()).with_flow_format(parts.flow_format.clone());
        let to_keeper = to_keeper.clone();
        spawn(&format!("worker-{number}"), move || work(worker, jobs, &to_keeper));
        inboxes.push(inbox);
    }
    drop(to_keeper);
    let (ended, end) = oneshot::channel();
    let keeping = Keeping::open(&mut parts, detectors, inboxes.len(), now_ms())?;
    let (reloads, replays) = (parts.detectors, parts.replays);
    spawn("keeper", move || {
        let _ = ended.send(keeping::keep(keeping, &from_workers));
    });
    distribute(batches, reloads, replays, inboxes).await;
    // A keeper that ends without a word has panicked: the panic has been told, and nothing after it was committed.
    end.await.unwrap_or_else(|_| std::process::abort())
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).expect("a thread can be started");
}

/// Milliseconds since the epoch.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// Hands each batch to its shard's worker. Ends with the batches, or when the workers are gone.
async fn distribute(
    mut batches: mpsc::Receiver<source::Batch>,
    mut reloads: watch::Receiver<Arc<Detectors>>,
    mut replays: mpsc::Receiver<Again>,
    inboxes: Vec<mpsc::Sender<Job>>,
) {
    let hasher = foldhash::fast::FixedState::default();
    let mut reloading = true;
    loop {
        tokio::select! {
            batch = batches.recv() => {
                let Some(batch) = batch else { return };
                let mut hash = hasher.build_hasher();
                hash.write(batch.shard.0.as_bytes());
                let worker = hash.finish() as usize % inboxes.len();
                if inboxes[worker].send(Job::Batch(batch)).await.is_err() {
                    return;
                }
            }
            Some(again) = replays.recv() => {
                if inboxes[0].send(Job::Again(again)).await.is_err() {
                    return;
                }
            }
            changed = reloads.changed(), if reloading => {
                reloading = changed.is_ok();
                let detectors = reloads.borrow_and_update().clone();
                for inbox in inboxes.iter().filter(|_| reloading) {
                    let _ = inbox.send(Job::Reload(detectors.clone())).await;
                }
            }
        }
    }
}

/// Decodes and matches until there is nothing more to do.
fn work(mut worker: Worker, mut jobs: mpsc::Receiver<Job>, to_keeper: &std_mpsc::SyncSender<Done>) {
    while let Some(job) = jobs.blocking_recv() {
        let done = match job {
            Job::Reload(detectors) => {
                worker.reload(detectors.clone());
                Done::Reloaded(detectors)
            }
            Job::Again(Again { source, data, arrival_ms, answer }) => {
                worker.record(&source, &data, arrival_ms);
                let (found, detectors) = (worker.take(), worker.detectors().clone());
                Done::Again(Box::new(Reread { found, answer, detectors }))
            }
            Job::Batch(batch) => {
                for record in &batch.records {
                    worker.record_after(&batch.shard.0, &record.data, record.past_sub_sequence, record.approximate_arrival_ms as i64);
                }
                Done::Found(Box::new(Worked {
                    newest_arrival_ms: batch.records.last().map(|r| r.approximate_arrival_ms as i64),
                    shard: batch.shard,
                    counter: batch.counter,
                    through: batch.through,
                    shard_end: batch.shard_end,
                    caught_up_ms: (batch.millis_behind_latest == Some(0)).then_some(batch.asked_ms),
                    behind_ms: batch.millis_behind_latest,
                    found: worker.take(),
                    detectors: worker.detectors().clone(),
                }))
            }
        };
        if to_keeper.send(done).is_err() {
            return;
        }
    }
}
