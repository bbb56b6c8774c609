//! A fleet under kills, zombies, steals, splits and merges: nothing is missed, no checkpoint ever goes back.
//!
//! In: rounds of random trouble from a printed seed (`TRAILWARDEN_SEED`, `TRAILWARDEN_ROUNDS`). Out: the union of what the
//! workers processed. Invariant: every record that was stored is in it, and each lease's checkpoint only rises.
#![cfg(feature = "demo")]

mod support {
    pub mod proxy;
    pub mod servers;
    pub mod tools;
    pub mod trouble;
}

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use support::{
    proxy::Spoil,
    servers,
    trouble::{FAILOVER_MS, Scene, Worker, rows, trouble, watch},
};
use tokio::time::sleep;
use trailwarden::{
    demo::endpoint::Endpoint,
    lease::{Notices, config::Config as LeaseConfig, manager::Manager, row::Naming},
    metrics::Metrics,
    position::Position,
    source::{
        Batch,
        kinesis::{Config, Consumer, Mode, Start},
    },
};

const WORKERS: usize = 3;

/// A worker as a process of its own: the test binary runs itself with these set.
const KINESIS: &str = "CHAOS_KINESIS";
const DYNAMODB: &str = "CHAOS_DYNAMODB";
const LOG: &str = "CHAOS_LOG";
/// Set for a run with enhanced fan-out.
const FAN_OUT: &str = "CHAOS_FAN_OUT";

#[test]
fn chaos_worker() {
    let Ok(kinesis) = std::env::var(KINESIS) else { return };
    let (dynamodb, log) = (std::env::var(DYNAMODB).unwrap(), std::env::var(LOG).unwrap());
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work(&kinesis, &dynamodb, Path::new(&log)));
}

async fn work(kinesis_url: &str, dynamodb_url: &str, log: &Path) {
    let mut log = File::options().create(true).append(true).open(log).unwrap();
    let (endpoint, start) = (Some(kinesis_url.to_owned()), Start(Position::TrimHorizon));
    let mode = if std::env::var_os(FAN_OUT).is_some() { Mode::FanOut } else { Mode::Polling };
    let config = Config { streams: vec!["s".to_owned()], endpoint, mode, start, poll_interval_ms: 250, ..Config::default() };
    let kinesis = trailwarden::source::kinesis::client(&config).await;
    let dynamodb = aws_sdk_dynamodb::Client::new(&trailwarden::aws::load(None, Some(dynamodb_url)).await);
    let (notices, _receiver) = Notices::channel(64);
    let leases = LeaseConfig { failover_ms: FAILOVER_MS, ..LeaseConfig::new("app") };
    let naming = Naming::Single("s".to_owned());
    let metrics = Arc::new(Metrics::new());
    let manager =
        Manager::start(leases, dynamodb, kinesis.clone(), naming, Position::TrimHorizon, notices.clone(), Arc::clone(&metrics)).await.unwrap();
    let checkpointer = manager.checkpointer();
    let (consumer, mut batches) = Consumer::start(config, kinesis, manager.grants(), notices, &metrics);
    let mut consumer = Some(consumer);
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    loop {
        let batch = tokio::select! {
            batch = batches.recv() => batch,
            _ = terminated.recv() => { consumer = None; continue }
        };
        let Some(batch) = batch else { break };
        // As the daemon does: one commit a shard for all that has come by now.
        let more = std::iter::from_fn(|| batches.try_recv().ok()).take(255);
        let mut commits = BTreeMap::new();
        for batch in std::iter::once(batch).chain(more) {
            write_down(&mut log, &batch);
            commits.insert(batch.shard.clone(), (batch.counter, batch.through.clone()));
        }
        for (shard, (counter, through)) in commits {
            loop {
                match checkpointer.commit(&shard, counter, &through, 0).await {
                    Err(error) if error.is_retryable() => sleep(Duration::from_millis(100)).await,
                    Err(_) => break writeln!(log, "refused").unwrap(),
                    Ok(()) => break,
                }
            }
        }
    }
    drop(consumer);
    manager.shutdown().await;
}

/// One write a batch, which outlives a kill.
fn write_down(log: &mut File, batch: &Batch) {
    let text: String = batch.records.iter().map(|r| format!("{}\n", String::from_utf8_lossy(&r.data))).collect();
    log.write_all(text.as_bytes()).unwrap();
}

fn start_worker(number: usize, kinesis: &str, dynamodb: &str, folder: &Path) -> Worker {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["chaos_worker", "--exact", "--nocapture"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.env(KINESIS, kinesis).env(DYNAMODB, dynamodb).env(LOG, folder.join(format!("{number}.log")));
    command.env("HOSTNAME", format!("w{number}"));
    Worker { child: command.spawn().unwrap() }
}

/// Puts numbered records until told to stop.
async fn load(endpoint: Arc<Endpoint>, stored: Arc<AtomicU32>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let first = stored.load(Ordering::Relaxed);
        endpoint.put("s", (first..first + 20).map(|n| (n.to_string(), Bytes::from(n.to_string())))).unwrap();
        stored.store(first + 20, Ordering::Relaxed);
        sleep(Duration::from_millis(40)).await;
    }
}

/// What all workers wrote down: the distinct numbers, how many there were in all, and how many commits were refused.
fn processed(folder: &Path) -> (BTreeSet<u32>, usize, usize) {
    let (mut seen, mut lines, mut refused) = (BTreeSet::new(), 0, 0);
    for file in fs::read_dir(folder).unwrap() {
        for line in fs::read_to_string(file.unwrap().path()).unwrap().lines() {
            match line.parse() {
                Ok(n) => {
                    seen.insert(n);
                    lines += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    (seen, lines, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_loses_nothing() {
    let Some(dynamodb) = servers::dynamodb() else { return };
    let Scene { seed, rounds, mut random, endpoint, table, proxy, folder } =
        Scene::new(&dynamodb.url, Spoil { throttled: 50, failed: 20, lost: 30 }).await;
    let mut number = 0;
    let mut start = || {
        number += 1;
        start_worker(number, endpoint.url(), &proxy.url, folder.path())
    };
    let mut workers: Vec<Worker> = (0..WORKERS).map(|_| start()).collect();
    let (stored, stop) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let loading = tokio::spawn(load(Arc::clone(&endpoint), Arc::clone(&stored), Arc::clone(&stop)));
    let done = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn(watch(table.clone(), Arc::clone(&done)));
    for round in 0..rounds {
        sleep(Duration::from_millis(500 + random.below(1500) as u64)).await;
        let name = trouble(&mut random, &endpoint, &table, &mut workers, &mut start).await;
        println!("round {round}: {name}, {} stored", stored.load(Ordering::Relaxed));
        assert!(!watching.is_finished(), "see the watcher's panic");
    }
    stop.store(true, Ordering::Relaxed);
    loading.await.unwrap();
    let (total, since) = (stored.load(Ordering::Relaxed), Instant::now());
    while processed(folder.path()).0.len() < total as usize && since.elapsed() < Duration::from_secs(40) {
        sleep(Duration::from_millis(200)).await;
    }
    done.store(true, Ordering::Relaxed);
    watching.await.unwrap();
    let (seen, lines, refused) = processed(folder.path());
    let missing: Vec<_> = (0..total).filter(|n| !seen.contains(n)).collect();
    println!("{total} records, {} processed again, {refused} commits refused, caught up in {:?}", lines - seen.len(), since.elapsed());
    assert!(
        missing.is_empty(),
        "seed {seed}: {} records missing, first {:?}; leases: {:#?}",
        missing.len(),
        &missing[..missing.len().min(5)],
        rows(&table).await
    );
}
