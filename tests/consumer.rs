//! The Kinesis consumer against the embedded endpoint, polling and fan-out.
//!
//! In: streams that are split, throttled, expired, deleted. Out: every record once and in order within its shard. Invariant:
//! nothing stored is missed.
#![cfg(feature = "demo")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aws_sdk_kinesis::Client;
use bytes::Bytes;
use serde_json::json;
use tokio::{sync::mpsc, time::timeout};
use trailwarden::{
    demo::endpoint::{Endpoint, Faults, Limits, Options},
    lease::{Notice, NoticeKind, Notices, local::Local},
    metrics::Metrics,
    position::{Position, ShardId},
    source::{
        Batch,
        kinesis::{Config, Consumer, Mode, Start},
    },
};

const FIRST: &str = "shardId-000000000000";

/// A consumer and the commits it makes of whatever it takes.
struct Run {
    consumer: Consumer,
    metrics: Metrics,
    local: Local,
    batches: mpsc::Receiver<Batch>,
    notices: mpsc::Receiver<Notice>,
    positions: BTreeMap<ShardId, Position>,
    seen: Vec<(ShardId, Bytes)>,
}

fn config(endpoint: &Endpoint, mode: Mode) -> Config {
    let (streams, url) = (vec!["s".to_owned()], Some(endpoint.url().to_owned()));
    let start = Start(Position::TrimHorizon);
    Config { streams, endpoint: url, mode, start, poll_interval_ms: 200, shard_bytes_per_s: 200_000_000, ..Config::default() }
}

async fn run(config: Config, positions: BTreeMap<ShardId, Position>) -> Run {
    let (sender, notices) = Notices::channel(64);
    let client: Client = trailwarden::source::kinesis::client(&config).await;
    let local = Local::start(&client, &config.streams, &config.start.0, positions.clone(), &sender);
    let metrics = Metrics::new();
    let (consumer, batches) = Consumer::start(config, client, local.grants(), sender, &metrics);
    Run { consumer, metrics, local, batches, notices, positions, seen: Vec::new() }
}

impl Run {
    /// Takes batches and commits them until `done`.
    async fn until(&mut self, done: impl Fn(&Self) -> bool) {
        let all = async {
            while !done(self) {
                let batch = self.batches.recv().await.expect("the consumer runs");
                self.seen.extend(batch.records.iter().map(|r| (batch.shard.clone(), r.data.clone())));
                self.positions.insert(batch.shard.clone(), batch.through.clone());
                self.local.committed(&batch.shard, &batch.through);
            }
        };
        timeout(Duration::from_secs(20), all).await.unwrap_or_else(|_| panic!("only {} records, {:?}", self.seen.len(), self.positions));
    }

    fn numbers(&self) -> Vec<u32> {
        self.seen.iter().map(|(_, data)| std::str::from_utf8(data).unwrap().trim_end_matches('.').parse().unwrap()).collect()
    }

    async fn notice(&mut self) -> NoticeKind {
        timeout(Duration::from_secs(10), self.notices.recv()).await.expect("a notice").unwrap().kind
    }
}

async fn start(shards: u32, limits: Limits) -> Endpoint {
    let endpoint = Endpoint::start(Options { limits, ..Options::default() }).await.unwrap();
    endpoint.create_stream("s", shards).unwrap();
    endpoint
}

/// Numbered records, each under its own key, so that a key's hash spreads them.
fn put(endpoint: &Endpoint, numbers: std::ops::Range<u32>) {
    endpoint.put("s", numbers.map(|n| (n.to_string(), Bytes::from(n.to_string())))).unwrap();
}

fn each_once(numbers: Vec<u32>, expected: std::ops::Range<u32>) {
    let mut sorted = numbers;
    sorted.sort_unstable();
    assert_eq!(sorted, expected.collect::<Vec<_>>());
}

async fn resharding(mode: Mode) {
    let endpoint = start(2, Limits::NONE).await;
    put(&endpoint, 0..100);
    let mut run = run(config(&endpoint, mode), BTreeMap::new()).await;
    run.until(|r| r.seen.len() >= 100).await;
    for (count, numbers) in [(4, 100..200), (3, 200..300), (1, 300..400)] {
        endpoint.call("UpdateShardCount", &json!({"StreamName": "s", "TargetShardCount": count})).unwrap();
        put(&endpoint, numbers.clone());
        run.until(|r| r.seen.len() as u32 >= numbers.end).await;
    }
    each_once(run.numbers(), 0..400);
    // A key's records keep their order: here, within each shard.
    let mut by_shard: BTreeMap<&ShardId, u32> = BTreeMap::new();
    for ((shard, _), n) in run.seen.iter().zip(run.numbers()) {
        assert!(by_shard.insert(shard, n).is_none_or(|before| before < n), "{shard}");
    }
    assert!(run.positions.values().filter(|p| **p == Position::ShardEnd).count() >= 6);
}

#[tokio::test]
async fn polling_follows_splits_and_merges() {
    resharding(Mode::Polling).await;
}

#[tokio::test]
async fn fan_out_follows_splits_and_merges() {
    resharding(Mode::FanOut).await;
}

#[tokio::test]
async fn a_restart_goes_on_behind_the_commit() {
    for mode in [Mode::Polling, Mode::FanOut] {
        let endpoint = start(2, Limits::NONE).await;
        put(&endpoint, 0..50);
        let mut first = run(config(&endpoint, mode), BTreeMap::new()).await;
        first.until(|r| r.seen.len() == 50).await;
        let positions = first.positions.clone();
        drop(first);
        endpoint.advance(Duration::from_secs(6));
        put(&endpoint, 50..80);
        let mut second = run(config(&endpoint, mode), positions).await;
        second.until(|r| r.seen.len() >= 30).await;
        each_once(second.numbers(), 50..80);
        assert!(second.notices.try_recv().is_err());
    }
}

#[tokio::test]
async fn latest_holds_over_a_restart_before_the_first_record() {
    let endpoint = start(1, Limits::NONE).await;
    put(&endpoint, 0..10);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let config = Config { start: Start(Position::Latest), ..config(&endpoint, Mode::Polling) };
    let mut first = run(config.clone(), BTreeMap::new()).await;
    first.until(|r| r.positions.len() == 1).await;
    let positions = first.positions.clone();
    drop(first);
    put(&endpoint, 10..20);
    let mut second = run(config, positions).await;
    second.until(|r| r.seen.len() >= 10).await;
    each_once(second.numbers(), 10..20);
}

#[tokio::test]
async fn faults_lose_nothing() {
    let faults = Faults {
        seed: 7,
        error_rate: 0.15,
        throttle_rate: 0.15,
        reset_rate: 0.1,
        expired_rate: 0.1,
        delay_rate: 0.2,
        delay_ms: 30,
        ..Faults::default()
    };
    for mode in [Mode::Polling, Mode::FanOut] {
        let endpoint = start(3, Limits::NONE).await;
        endpoint.set_faults(faults.clone());
        let mut run = run(config(&endpoint, mode), BTreeMap::new()).await;
        for part in 0..5 {
            put(&endpoint, part * 40..(part + 1) * 40);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        run.until(|r| r.seen.len() >= 200).await;
        each_once(run.numbers(), 0..200);
    }
}

#[tokio::test]
async fn an_expired_iterator_is_renewed_from_the_place() {
    let endpoint = start(1, Limits::NONE).await;
    put(&endpoint, 0..10);
    let mut run = run(config(&endpoint, Mode::Polling), BTreeMap::new()).await;
    run.until(|r| r.seen.len() >= 10).await;
    endpoint.advance(Duration::from_secs(301));
    put(&endpoint, 10..20);
    run.until(|r| r.seen.len() >= 20).await;
    each_once(run.numbers(), 0..20);
}

#[tokio::test]
async fn subscriptions_are_renewed_after_five_minutes() {
    let endpoint = start(1, Limits::NONE).await;
    let mut run = run(config(&endpoint, Mode::FanOut), BTreeMap::new()).await;
    for part in 0..3 {
        put(&endpoint, part * 10..(part + 1) * 10);
        run.until(|r| r.seen.len() as u32 >= (part + 1) * 10).await;
        endpoint.advance(Duration::from_secs(301));
    }
    each_once(run.numbers(), 0..30);
    assert!(endpoint.calls("SubscribeToShard") >= 3);
}

#[tokio::test]
async fn a_checkpoint_past_retention_is_told_and_reading_goes_on() {
    for mode in [Mode::Polling, Mode::FanOut] {
        let endpoint = start(1, Limits::NONE).await;
        put(&endpoint, 0..10);
        let mut first = run(config(&endpoint, mode), BTreeMap::new()).await;
        first.until(|r| r.seen.len() == 10).await;
        let positions = first.positions.clone();
        drop(first);
        put(&endpoint, 10..20);
        endpoint.advance(Duration::from_secs(25 * 3600));
        put(&endpoint, 20..30);
        let mut second = run(config(&endpoint, mode), positions).await;
        second.until(|r| r.seen.len() >= 10).await;
        each_once(second.numbers(), 20..30);
        assert_eq!(second.notice().await, NoticeKind::CheckpointPastRetention);
    }
}

#[tokio::test]
async fn a_stream_made_anew_is_read_from_its_beginning() {
    for mode in [Mode::Polling, Mode::FanOut] {
        let endpoint = start(1, Limits::NONE).await;
        put(&endpoint, 0..10);
        let mut run = run(config(&endpoint, mode), BTreeMap::new()).await;
        run.until(|r| r.seen.len() == 10).await;
        endpoint.call("DeleteStream", &json!({"StreamName": "s"})).unwrap();
        assert_eq!(run.notice().await, NoticeKind::StreamMissing);
        endpoint.advance(Duration::from_secs(2));
        endpoint.create_stream("s", 1).unwrap();
        put(&endpoint, 10..20);
        run.until(|r| r.seen.len() >= 20).await;
        each_once(run.numbers(), 0..20);
        assert_eq!(run.notice().await, NoticeKind::StreamRecreated);
    }
}

#[tokio::test]
async fn an_ended_shard_that_is_open_again_is_read() {
    let endpoint = start(1, Limits::NONE).await;
    put(&endpoint, 0..10);
    let positions = BTreeMap::from([(ShardId(format!("s/{FIRST}").into()), Position::ShardEnd)]);
    let mut run = run(config(&endpoint, Mode::Polling), positions).await;
    run.until(|r| r.seen.len() >= 10).await;
    assert_eq!(run.notice().await, NoticeKind::StreamRecreated);
}

#[tokio::test]
async fn a_denied_key_is_told_with_the_remedy() {
    for mode in [Mode::Polling, Mode::FanOut] {
        let endpoint = start(1, Limits::NONE).await;
        endpoint.set_faults(Faults { kms_denied: true, ..Faults::default() });
        let mut run = run(config(&endpoint, mode), BTreeMap::new()).await;
        let notice = timeout(Duration::from_secs(10), run.notices.recv()).await.unwrap().unwrap();
        assert_eq!(notice.kind, NoticeKind::KmsDenied);
        assert!(notice.message.contains("kms:Decrypt"), "{}", notice.message);
        endpoint.set_faults(Faults::default());
        put(&endpoint, 0..5);
        run.until(|r| r.seen.len() >= 5).await;
    }
}

#[tokio::test]
async fn several_streams_and_a_missing_one() {
    let endpoint = start(1, Limits::NONE).await;
    put(&endpoint, 0..5);
    let config = Config { streams: vec!["later".to_owned(), "s".to_owned()], ..config(&endpoint, Mode::Polling) };
    let mut run = run(config, BTreeMap::new()).await;
    run.until(|r| r.seen.len() >= 5).await;
    assert_eq!(run.notice().await, NoticeKind::StreamMissing);
    endpoint.create_stream("later", 2).unwrap();
    endpoint.put("later", [("k".to_owned(), Bytes::from_static(b"5"))]).unwrap();
    run.until(|r| r.seen.len() >= 6).await;
    each_once(run.numbers(), 0..6);
}

#[tokio::test]
async fn the_limits_of_the_service_are_never_hit() {
    let endpoint = start(1, Limits::AWS).await;
    let config = Config { shard_bytes_per_s: 2_000_000, ..config(&endpoint, Mode::Polling) };
    endpoint.put("s", (0..40_u32).map(|n| (n.to_string(), Bytes::from(format!("{n:.<60000}"))))).unwrap();
    let mut run = run(config, BTreeMap::new()).await;
    run.until(|r| r.seen.len() >= 40).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(run.metrics.aws_call("kinesis", "GetRecords").throttled.get(), 0);
}

/// Polling as it is configured by default: records that flow are handed over after a quarter of a second on average, which leaves the
/// shard's limits room for another consumer that asks once a second, as most do; a quiet shard is asked once a second too.
#[tokio::test]
async fn a_busy_shard_is_asked_sooner_with_room_for_another_consumer() {
    let endpoint = start(1, Limits::AWS).await;
    let of = |poll_interval_ms| Config { poll_interval_ms, shard_bytes_per_s: 2_000_000, ..config(&endpoint, Mode::Polling) };
    let (mut ours, mut other) = (run(of(1_000), BTreeMap::new()).await, run(of(2_000), BTreeMap::new()).await);
    let mut ages = Vec::new();
    let mut take = async |beats: u32, from: Option<u32>| {
        let mut reads = 0;
        for beat in 0..beats {
            if let Some(from) = from {
                put(&endpoint, from + beat..from + beat + 1);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            while other.batches.try_recv().is_ok() {}
            while let Ok(batch) = ours.batches.try_recv() {
                reads += 1;
                ages.extend(batch.records.iter().map(|record| endpoint.now_ms().saturating_sub(record.approximate_arrival_ms)));
            }
        }
        reads
    };
    take(20, Some(0)).await;
    let busy = take(80, Some(20)).await;
    take(30, None).await;
    let quiet = take(80, None).await;
    ages.sort_unstable();
    println!("{busy} reads in 4 s of flow, {quiet} in 4 s of quiet; median age {} ms, greatest {} ms", ages[50], ages[99]);
    assert!(ages.len() == 100 && ages[50] < 450 && (6..=9).contains(&busy) && (3..=5).contains(&quiet));
    for run in [&ours, &other] {
        assert_eq!(run.metrics.aws_call("kinesis", "GetRecords").throttled.get(), 0);
    }
}

#[tokio::test]
async fn a_slow_reader_stops_the_asking_within_the_budget() {
    let endpoint = start(4, Limits::NONE).await;
    endpoint.call("UpdateMaxRecordSize", &json!({"StreamName": "s", "MaxRecordSizeInKiB": 10_240})).unwrap();
    let big = Bytes::from(vec![b'.'; 5 << 20]);
    endpoint.put("s", (0..24).map(|n| (n.to_string(), big.clone()))).unwrap();
    endpoint.put("s", [("x".to_owned(), Bytes::from(vec![b'.'; 10 << 20]))]).unwrap();
    let config = Config { budget_bytes: 40 << 20, ..config(&endpoint, Mode::Polling) };
    let mut run = run(config, BTreeMap::new()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(run.consumer.budget().used_bytes() <= 40 << 20);
    assert!(endpoint.calls("GetRecords") <= 5, "{} reads while nothing was taken", endpoint.calls("GetRecords"));
    run.until(|r| r.seen.iter().map(|(_, data)| data.len()).sum::<usize>() >= 26 * (5 << 20)).await;
    let ids: BTreeSet<_> = run.seen.iter().map(|(shard, _)| shard).collect();
    assert_eq!((run.seen.len(), ids.len()), (25, 4));
}
