//! The Kinesis consumer: one reader a granted shard, all into one channel bounded in bytes.
//!
//! In: grants. Out: batches, in order within a shard. Invariant: a reader never goes past what it has handed over, and
//! whatever fails is tried again from there.

use std::{collections::BTreeMap, sync::Arc};

use aws_sdk_kinesis::Client;
use prometheus::IntCounter;
use tokio::{
    sync::{Mutex, mpsc},
    task::{AbortHandle, JoinHandle, JoinSet},
};

pub use self::config::{Config, Mode, Start};
use self::{client::Failure, shard::Reader};
use super::{Batch, Budget};
use crate::{
    lease::{Grant, GrantsView, Notices},
    metrics::{CallMetrics, Latency, Metrics, QueueMetrics},
    position::ShardId,
};

mod client;
mod config;
mod fan_out;
mod poll;
mod shard;

/// Batches under way besides their bytes: empty ones cost none.
const BATCHES: usize = 256;

/// What the readers count.
struct Meters {
    get_records: CallMetrics,
    get_iterator: CallMetrics,
    subscribe: CallMetrics,
    fetch: Latency,
    /// The batches under way and their bytes.
    queue: QueueMetrics,
    /// The checkpoint's record has left the stream.
    past_retention: IntCounter,
    recreated: IntCounter,
    gone: IntCounter,
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meters")
    }
}

impl Meters {
    fn new(metrics: &Metrics, budget_bytes: usize) -> Self {
        let call = |operation| metrics.aws_call("kinesis", operation);
        Self {
            get_records: call("GetRecords"),
            get_iterator: call("GetShardIterator"),
            subscribe: call("SubscribeToShard"),
            fetch: metrics.stage("fetch"),
            queue: metrics.queue("records", budget_bytes as u64),
            past_retention: metrics.source_gap("retention"),
            recreated: metrics.source_gap("recreated"),
            gone: metrics.source_gap("gone"),
        }
    }
}

/// Counts a call by its outcome and hands it on.
fn counted<T>(call: &CallMetrics, outcome: Result<T, Failure>) -> Result<T, Failure> {
    match &outcome {
        Ok(_) => call.ok.inc(),
        Err(Failure::Throttled(_)) => call.throttled.inc(),
        Err(_) => call.failed.inc(),
    }
    outcome
}

/// What all readers share.
#[derive(Debug)]
struct Shared {
    config: Config,
    client: Client,
    budget: Budget,
    notices: Notices,
    meters: Meters,
    /// By stream: the registered fan-out consumer's ARN.
    consumers: BTreeMap<String, Mutex<Option<String>>>,
}

/// Makes the client that `config` asks for.
pub async fn client(config: &Config) -> Client {
    Client::new(&crate::aws::load(config.region.as_deref(), config.endpoint.as_deref()).await)
}

/// The running readers; dropping it stops them.
#[derive(Debug)]
pub struct Consumer {
    supervisor: JoinHandle<()>,
    shared: Arc<Shared>,
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

impl Consumer {
    /// Reads whatever `grants` shows. The channel ends once the consumer is dropped and its last batch is taken.
    pub fn start(config: Config, client: Client, grants: GrantsView, notices: Notices, metrics: &Metrics) -> (Self, mpsc::Receiver<Batch>) {
        let (out, batches) = mpsc::channel(BATCHES);
        let consumers = config.streams.iter().map(|s| (s.clone(), Mutex::default())).collect();
        let budget = Budget::new(config.budget_bytes);
        let meters = Meters::new(metrics, config.budget_bytes);
        let shared = Arc::new(Shared { config, client, budget, notices, meters, consumers });
        let supervisor = tokio::spawn(supervise(Arc::clone(&shared), grants, out));
        (Self { supervisor, shared }, batches)
    }

    pub fn budget(&self) -> &Budget {
        &self.shared.budget
    }
}

/// Keeps exactly the granted shards' readers running.
async fn supervise(shared: Arc<Shared>, mut grants: GrantsView, out: mpsc::Sender<Batch>) {
    let mut readers: JoinSet<ShardId> = JoinSet::new();
    // A reader that has come to its shard's end stays listed until its grant goes.
    let mut running: BTreeMap<ShardId, (Grant, AbortHandle)> = BTreeMap::new();
    loop {
        let wanted = Arc::clone(&grants.borrow_and_update());
        running.retain(|shard, (grant, reader)| {
            let kept = wanted.get(shard).is_some_and(|g| g.counter == grant.counter);
            if !kept {
                reader.abort();
            }
            kept
        });
        for (shard, grant) in wanted.iter() {
            if !running.contains_key(shard) {
                let reader = Reader::new(Arc::clone(&shared), shard, grant, out.clone());
                let handle = readers.spawn(reader.run());
                running.insert(shard.clone(), (grant.clone(), handle));
            }
        }
        tokio::select! {
            changed = grants.changed() => if changed.is_err() { return },
            Some(ended) = readers.join_next_with_id() => if let Err(error) = ended && error.is_panic() {
                tracing::error!("a shard's reader failed and is started again: {error}");
                running.retain(|_, (_, reader)| reader.id() != error.id());
            },
        }
    }
}
