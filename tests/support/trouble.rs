//! Trouble for a fleet: kills, zombies, steals, splits and merges, drawn from a seed.
//!
//! In: workers as processes, the embedded endpoint, the lease table. Out: one trouble a call. Invariant: a checkpoint that goes back
//! fails the test.
#![allow(dead_code)]

use std::{
    collections::BTreeMap,
    process::{Child, Command, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tempfile::TempDir;
use tokio::time::sleep;
use trailwarden::{
    demo::endpoint::{Endpoint, Faults, Options},
    lease::{
        row::Row,
        table::{Cost, Table},
    },
    metrics::Metrics,
    position::Position,
};

use super::proxy::{Proxy, Spoil};

pub const FAILOVER_MS: u64 = 1000;

/// What troubles befall: a stream whose calls fail, the leases, and the way by which workers reach these and their state.
pub struct Scene {
    pub seed: u64,
    pub rounds: u32,
    pub random: Random,
    pub endpoint: Arc<Endpoint>,
    /// Straight, not through the proxy.
    pub table: Table,
    /// Calls throttled, failed, and made with their answer lost.
    pub proxy: Proxy,
    pub folder: TempDir,
}

impl Scene {
    /// Seed and rounds are `TRAILWARDEN_SEED` and `TRAILWARDEN_ROUNDS`, or of this process and 20.
    pub async fn new(dynamodb_url: &str, spoil: Spoil) -> Self {
        let from_env = |name: &str| std::env::var(name).ok();
        let rounds = from_env("TRAILWARDEN_ROUNDS").and_then(|n| n.parse().ok()).unwrap_or(20);
        let seed = from_env("TRAILWARDEN_SEED").and_then(|n| n.parse().ok()).unwrap_or_else(|| u64::from(std::process::id()));
        println!("seed {seed}, {rounds} rounds");
        let endpoint = Arc::new(Endpoint::start(Options::default()).await.unwrap());
        endpoint.create_stream("s", 2).unwrap();
        endpoint.set_faults(Faults { seed, error_rate: 0.03, throttle_rate: 0.03, reset_rate: 0.02, expired_rate: 0.02, ..Faults::default() });
        let client = aws_sdk_dynamodb::Client::new(&trailwarden::aws::load(None, Some(dynamodb_url)).await);
        let table = Table { client, name: "app".to_owned(), cost: Arc::new(Cost::new(&Metrics::new())) };
        let proxy = Proxy::start(dynamodb_url, spoil, seed).await;
        Self { seed, rounds, random: Random(seed), endpoint, table, proxy, folder: tempfile::tempdir().unwrap() }
    }
}

/// A process that reads the stream; killed when dropped.
pub struct Worker {
    pub child: Child,
}

impl Worker {
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(sent.success(), "kill -{name}");
    }

    /// Asks it to end, as ECS does; how it ended, and after how long.
    pub async fn terminate(&mut self) -> (ExitStatus, Duration) {
        self.signal("TERM");
        let since = Instant::now();
        loop {
            if let Some(ended) = self.child.try_wait().unwrap() {
                return (ended, since.elapsed());
            }
            assert!(since.elapsed() < Duration::from_secs(10), "a worker does not end");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }
}

pub async fn rows(table: &Table) -> Vec<Row> {
    table.leases().await.unwrap_or_default()
}

/// Fails as soon as a checkpoint goes back.
pub async fn watch(table: Table, stop: Arc<AtomicBool>) {
    let mut furthest: BTreeMap<String, Position> = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        for row in rows(&table).await {
            let now = row.position().clone();
            if let Some(before) = furthest.insert(row.key.clone(), now.clone()) {
                assert!(before <= now, "the checkpoint of {} went back from {before:?} to {now:?}", row.key);
            }
        }
        sleep(Duration::from_millis(30)).await;
    }
}

/// One round's trouble; returns its name.
pub async fn trouble(
    random: &mut Random,
    endpoint: &Endpoint,
    table: &Table,
    workers: &mut [Worker],
    start: &mut impl FnMut() -> Worker,
) -> &'static str {
    let victim = random.below(workers.len());
    match random.below(7) {
        0 | 1 => {
            workers[victim] = start();
            "kill -9"
        }
        2 => {
            workers[victim].signal("STOP");
            sleep(Duration::from_millis(FAILOVER_MS * 2 + random.below(1000) as u64)).await;
            workers[victim].signal("CONT");
            "zombie"
        }
        3 => {
            let (_, took) = workers[victim].terminate().await;
            if took > Duration::from_secs(3) {
                println!("a worker took {took:?} to end");
            }
            workers[victim] = start();
            "terminate"
        }
        4 => {
            let rows = rows(table).await;
            let open: Vec<_> = rows.iter().filter(|r| !r.is_finished() && r.owner.is_some()).collect();
            if let Some(row) = open.get(random.below(open.len().max(1))) {
                let thieves: Vec<_> = rows.iter().filter_map(|r| r.owner.clone()).filter(|o| Some(o) != row.owner.as_ref()).collect();
                if let Some(thief) = thieves.first() {
                    let _ = table.take(row, thief).await;
                }
            }
            "steal"
        }
        5 => {
            let count = 2 + random.below(4);
            let _ = endpoint.call("UpdateShardCount", &json!({"StreamName": "s", "TargetShardCount": count}));
            "reshard"
        }
        _ => {
            let listed = endpoint.call("ListShards", &json!({"StreamName": "s", "ShardFilter": {"Type": "AT_LATEST"}})).unwrap();
            let open = listed["Shards"].as_array().unwrap();
            if open.len() < 6 {
                let shard = &open[random.below(open.len())];
                let border = |name: &str| shard["HashKeyRange"][name].as_str().unwrap().parse::<u128>().unwrap();
                let middle = border("StartingHashKey") / 2 + border("EndingHashKey") / 2 + 1;
                let _ = endpoint
                    .call("SplitShard", &json!({"StreamName": "s", "ShardToSplit": shard["ShardId"], "NewStartingHashKey": middle.to_string()}));
            }
            "split"
        }
    }
}
