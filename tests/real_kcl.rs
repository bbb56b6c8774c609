//! The Java Kinesis Client Library and this program on one application, each taking over from the other.
//!
//! In: kinesis-local, a DynamoDB, the library's MultiLangDaemon. Out: what each processed. Invariant: together they process
//! every record, and again only what was not yet checkpointed.
#![cfg(feature = "demo")]

mod support {
    pub mod servers;
    pub mod tools;
}

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use aws_sdk_kinesis::primitives::Blob;
use support::{
    servers::{self, Server},
    tools,
};
use tokio::{sync::mpsc, time::sleep};
use trailwarden::{
    lease::{
        Notices,
        config::Config as LeaseConfig,
        manager::{Checkpointer, Manager},
        row::{Naming, Row},
    },
    metrics::Metrics,
    position::Position,
    source::{
        Batch,
        kinesis::{Config, Consumer, Start},
    },
};

const FAILOVER: Duration = Duration::from_secs(3);
/// The library's daemon takes one to two minutes to its first record, more on a busy machine.
const JAVA: Duration = Duration::from_secs(300);
const FIRST: &str = "shardId-000000000000";

/// The library's daemon as a process.
struct Java {
    child: Child,
    log: PathBuf,
}

impl Drop for Java {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Java {
    fn processed(&self) -> Vec<u32> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().filter_map(|line| line.strip_prefix("record ")?.parse().ok()).collect()
    }

    async fn until(&mut self, wanted: std::ops::Range<u32>) -> Duration {
        let since = Instant::now();
        while !wanted.clone().all(|n| self.processed().contains(&n)) {
            assert!(since.elapsed() < JAVA, "the library processed {:?}", self.processed());
            assert!(self.child.try_wait().unwrap().is_none(), "the library's daemon has ended");
            sleep(Duration::from_millis(200)).await;
        }
        since.elapsed()
    }

    async fn terminate(&mut self) {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        let since = Instant::now();
        while self.child.try_wait().unwrap().is_none() && since.elapsed() < Duration::from_secs(60) {
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// This program's worker.
struct Ours {
    manager: Option<Manager>,
    checkpointer: Checkpointer,
    _consumer: Consumer,
    batches: mpsc::Receiver<Batch>,
    processed: Vec<u32>,
}

impl Ours {
    async fn until(&mut self, wanted: std::ops::Range<u32>) -> Duration {
        let since = Instant::now();
        while !wanted.clone().all(|n| self.processed.contains(&n)) {
            let batch = tokio::time::timeout(Duration::from_secs(60), self.batches.recv()).await;
            let batch = batch.unwrap_or_else(|_| panic!("only {:?}", self.processed)).unwrap();
            self.processed.extend(batch.records.iter().map(|r| String::from_utf8_lossy(&r.data).parse::<u32>().unwrap()));
            let _ = self.checkpointer.commit(&batch.shard, batch.counter, &batch.through, 0).await;
        }
        since.elapsed()
    }
}

struct Stage {
    kinesis: Server,
    dynamodb: Server,
    jars: PathBuf,
    folder: tempfile::TempDir,
    client: aws_sdk_kinesis::Client,
    table: aws_sdk_dynamodb::Client,
}

fn jars() -> Option<PathBuf> {
    let lib = tools::tools().join("venv/lib");
    let found = fs::read_dir(lib).ok().and_then(|mut d| d.find_map(|e| Some(e.ok()?.path().join("site-packages/amazon_kclpy/jars"))));
    let found = found.filter(|jars| jars.is_dir());
    if found.is_none() {
        tools::left_out("the Java Kinesis Client Library", "run tests/setup");
    }
    found
}

async fn stage() -> Option<Stage> {
    let jars = jars()?;
    tools::tool("java")?;
    let (kinesis, dynamodb) = (servers::kinesis_local()?, servers::dynamodb()?);
    let client = aws_sdk_kinesis::Client::new(&trailwarden::aws::load(None, Some(&kinesis.url)).await);
    let table = aws_sdk_dynamodb::Client::new(&trailwarden::aws::load(None, Some(&dynamodb.url)).await);
    client.create_stream().stream_name("s").shard_count(2).send().await.unwrap();
    sleep(Duration::from_millis(500)).await;
    Some(Stage { kinesis, dynamodb, jars, folder: tempfile::tempdir().unwrap(), client, table })
}

impl Stage {
    async fn put(&self, numbers: std::ops::Range<u32>) {
        for n in numbers {
            let put = self.client.put_record().stream_name("s").partition_key(n.to_string()).data(Blob::new(n.to_string()));
            put.send().await.unwrap();
        }
    }

    async fn ours(&self, name: &str) -> Ours {
        let (notices, _) = Notices::channel(16);
        let (worker, failover_ms) = (Some(format!("trailwarden-{name}")), FAILOVER.as_millis() as u64);
        let leases = LeaseConfig { failover_ms, worker, ..LeaseConfig::new("app") };
        let naming = Naming::Single("s".to_owned());
        let start = Start(Position::TrimHorizon);
        let metrics = Arc::new(Metrics::new());
        let manager = Manager::start(leases, self.table.clone(), self.client.clone(), naming, start.0.clone(), notices.clone(), Arc::clone(&metrics))
            .await
            .unwrap();
        let endpoint = Some(self.kinesis.url.clone());
        let config = Config { streams: vec!["s".to_owned()], endpoint, start, poll_interval_ms: 250, ..Config::default() };
        let (consumer, batches) = Consumer::start(config, self.client.clone(), manager.grants(), notices, &metrics);
        let checkpointer = manager.checkpointer();
        Ours { manager: Some(manager), checkpointer, _consumer: consumer, batches, processed: Vec::new() }
    }

    fn java(&self, name: &str) -> Java {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kcl/daemon"));
        command.arg(&self.jars).args([&self.kinesis.url, &self.dynamodb.url, "app", "s"]).arg(self.folder.path());
        command.arg(name).arg(FAILOVER.as_millis().to_string());
        let out = fs::File::create(self.folder.path().join(format!("{name}.out"))).unwrap();
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        Java { child: command.spawn().unwrap(), log: self.folder.path().join(format!("{name}.log")) }
    }

    async fn rows(&self) -> BTreeMap<String, Row> {
        let items = self.table.scan().table_name("app").send().await.unwrap().items.unwrap_or_default();
        items.iter().filter_map(Row::from_item).map(|row| (row.key.clone(), row)).collect()
    }
}

fn cover(total: u32, parts: &[&[u32]], most_again: usize) {
    let all: Vec<u32> = parts.concat();
    let seen: BTreeSet<u32> = all.iter().copied().collect();
    let missing: Vec<_> = (0..total).filter(|n| !seen.contains(n)).collect();
    assert!(missing.is_empty(), "missing {missing:?}");
    let again = all.len() - seen.len();
    println!("{total} records, {again} processed again");
    assert!(again <= most_again, "{again} processed again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interop_each_takes_over_from_the_other_after_a_polite_end() {
    let Some(stage) = stage().await else { return };
    stage.put(0..50).await;
    let mut first = stage.ours("first").await;
    first.until(0..50).await;
    first.manager.take().unwrap().shutdown().await;
    let left = stage.rows().await;
    assert!(left.values().all(|row| row.owner.is_none() && matches!(row.position(), Position::After { .. })), "{left:?}");

    stage.put(50..100).await;
    let mut java = stage.java("java1");
    println!("the library went on after {:?}", java.until(50..100).await);
    let mut second = stage.ours("second").await;
    let since = Instant::now();
    java.terminate().await;
    println!("the library ended after {:?}", since.elapsed());
    stage.put(100..150).await;
    second.until(100..150).await;
    println!("we went on {:?} after its end was asked for", since.elapsed());
    // Records that either had in hand, unchecked, at a hand-over.
    cover(150, &[&first.processed, &java.processed(), &second.processed], 50);
}

/// All the rest takes many minutes: the library is slow to start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interop_long_kills_splits_and_merges() {
    if std::env::var_os("TRAILWARDEN_LONG").is_none() {
        return tools::left_out("kills, splits and merges beside the library", "tests/long");
    }
    let Some(stage) = stage().await else { return };
    let mut java = stage.java("java1");
    stage.put(0..50).await;
    java.until(0..50).await;
    let mut ours = stage.ours("first").await;
    java.child.kill().unwrap();
    java.child.wait().unwrap();
    let since = Instant::now();
    stage.put(50..100).await;
    ours.until(50..100).await;
    println!("we went on {:?} after its kill", since.elapsed());

    let middle = (1_u128 << 126).to_string();
    stage.client.split_shard().stream_name("s").shard_to_split(FIRST).new_starting_hash_key(middle).send().await.unwrap();
    sleep(Duration::from_millis(500)).await;
    stage.put(100..150).await;
    ours.until(100..150).await;
    let mut later = stage.java("java2");
    // The library leads as soon as it lives; until then we are killed as nobody's leader.
    let lives = Instant::now();
    while !fs::read_to_string(stage.folder.path().join("java2.out")).unwrap_or_default().contains("is new leader") {
        assert!(lives.elapsed() < JAVA, "the library does not lead");
        let _ = tokio::time::timeout(Duration::from_millis(300), ours.until(0..u32::MAX)).await;
    }
    drop(ours.manager.take());
    stage.put(150..200).await;
    println!("the library went on {:?} after our kill", later.until(150..200).await);
    let (two, three) = ("shardId-000000000002", "shardId-000000000003");
    stage.client.merge_shards().stream_name("s").shard_to_merge(two).adjacent_shard_to_merge(three).send().await.unwrap();
    sleep(Duration::from_millis(500)).await;
    stage.put(200..250).await;
    later.until(200..250).await;
    let mut last = stage.ours("last").await;
    later.terminate().await;
    stage.put(250..300).await;
    last.until(250..300).await;
    cover(300, &[&java.processed(), &ours.processed, &later.processed(), &last.processed], 120);
}
