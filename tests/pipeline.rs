//! The daemon's loop without a stream: what becomes of batches, and of records that are read again.
//!
//! In: batches of one shard. Out: the outbox, the metrics, the quarantine. Invariant: everything read is matched, unmatched, a
//! duplicate or in quarantine, also after a replay.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use trailwarden::{
    admin::{Board, Replayed},
    lease::Grant,
    metrics::Metrics,
    pipeline::{
        Detectors, Tally,
        daemon::{self, Again, Parts, now_ms},
    },
    position::{Position, SequenceNumber, ShardId},
    rule::{Options, Source, load_texts},
    source::{Batch, Budget, Record},
    store::{MemoryStore, Store, StoreError, keeper::Limits, quarantine},
};

const RULES: &str = "
title: base
id: 5b1f7a52-7a55-4f1c-9f0e-0d0f9a3e0c01
name: base
level: low
logsource: {product: aws, service: cloudtrail}
detection: {s: {eventName: DeleteDBSnapshot}, condition: s}
---
title: purge
id: 5b1f7a52-7a55-4f1c-9f0e-0d0f9a3e0c02
level: high
correlation: {type: event_count, rules: [base], generate: true, group-by: [userIdentity.arn], timespan: 10m, condition: {gte: 4}}
";

const BASE: &str = "5b1f7a52-7a55-4f1c-9f0e-0d0f9a3e0c01";
const PURGE: &str = "5b1f7a52-7a55-4f1c-9f0e-0d0f9a3e0c02";

struct Run {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    batches: mpsc::Sender<Batch>,
    replays: mpsc::Sender<Again>,
    budget: Budget,
    ended: tokio::task::JoinHandle<Result<Tally, StoreError>>,
    /// Keep their other ends alive.
    _senders: (watch::Sender<Arc<Detectors>>, watch::Sender<trailwarden::lease::Grants>),
    sequence: u64,
}

fn shard() -> ShardId {
    ShardId("shardId-000000000000".into())
}

fn start(limits: Limits) -> Run {
    let loaded = load_texts(vec![Source { name: "x.yml".into(), text: RULES.into() }], &Options::default());
    assert!(!loaded.has_errors(), "{}", loaded.render(false));
    let (reload, detectors) = watch::channel(Arc::new(Detectors::new(&loaded.set).unwrap()));
    let (granted, grants) = watch::channel(Arc::new(BTreeMap::from([(shard(), Grant { counter: 0, from: Position::TrimHorizon })])));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let metrics = Arc::new(Metrics::new());
    let (batches, received) = mpsc::channel(4);
    let (replays, again) = mpsc::channel(4);
    let parts = Parts {
        detectors,
        store: store.clone(),
        limits,
        metrics: metrics.clone(),
        board: Board::new(now_ms()),
        workers: 2,
        flow_format: None,
        grants,
        overview: None,
        ledger: trailwarden::lease::ledger::Ledger::new("test", None),
        committed: Box::new(|_, _| {}),
        replays: again,
    };
    let ended = tokio::spawn(daemon::run(parts, received));
    Run { store, metrics, batches, replays, budget: Budget::new(1 << 20), ended, _senders: (reload, granted), sequence: 0 }
}

fn event(id: &str, user: &str, time_ms: i64) -> String {
    let time = trailwarden::event::time::format(time_ms);
    format!(
        "{{\"eventVersion\":\"1.11\",\"eventSource\":\"rds.amazonaws.com\",\"eventName\":\"DeleteDBSnapshot\",\"eventID\":\"{id}\",\
         \"eventTime\":\"{time}\",\"recipientAccountId\":\"111122223333\",\"userIdentity\":{{\"arn\":\"{user}\"}}}}"
    )
}

impl Run {
    async fn feed(&mut self, texts: &[String]) {
        let mut records = Vec::new();
        for text in texts {
            self.sequence += 1;
            let position = Position::After { sequence: SequenceNumber::new(&self.sequence.to_string()), sub_sequence: 0 };
            records.push(Record {
                data: Bytes::from(text.clone().into_bytes()),
                position,
                approximate_arrival_ms: now_ms() as u64,
                partition_key: String::new(),
                past_sub_sequence: None,
            });
        }
        let through = records.last().unwrap().position.clone();
        let batch = Batch {
            shard: shard(),
            counter: 0,
            records,
            through,
            millis_behind_latest: Some(0),
            asked_ms: now_ms(),
            shard_end: false,
            reservation: self.budget.reserve(1024).await,
        };
        self.batches.send(batch).await.unwrap();
    }

    /// Rule title and count of each alert in the outbox.
    async fn told(&self, alerts: usize) -> Vec<String> {
        for _ in 0..200 {
            let outbox = self.store.outbox_list(1_000).unwrap();
            if outbox.len() >= alerts {
                return outbox.into_iter().map(|(_, alert)| alert.rule.title.clone()).collect();
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("only {} of {alerts} alerts", self.store.outbox_list(1_000).unwrap().len());
    }

    fn metric(&self, line: &str) -> f64 {
        let text = self.metrics.render(now_ms());
        let found = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {line} in\n{text}")).parse().unwrap()
    }

    async fn replay(&self, data: &str) -> Replayed {
        let (answer, answered) = oneshot::channel();
        let again = Again { source: shard().0.to_string(), data: data.into(), arrival_ms: now_ms(), answer };
        self.replays.send(again).await.unwrap();
        answered.await.unwrap()
    }

    fn conserved(&self) {
        let outcome = |name: &str| self.metric(&format!("trailwarden_events_total{{outcome=\"{name}\"}}"));
        let sum: f64 = ["matched", "unmatched", "duplicate", "quarantined"].iter().map(|name| outcome(name)).sum();
        assert_eq!(sum, self.metric("trailwarden_events_read_total{source=\"kinesis\"}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quarantined_record_alerts_when_it_is_read_again() {
    let mut run = start(Limits::default());
    let now = now_ms();
    let good: Vec<String> = (0..3).map(|n| event(&format!("e{n}"), "mallory", now - 1_000 * n)).collect();
    run.feed(&good).await;
    run.feed(&["{\"eventName\": oops".to_owned()]).await;
    assert_eq!(run.told(3).await, ["base"; 3]);
    while quarantine::list(&*run.store, 10).unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    // What a later version, or a mended rule, can read: the fourth event completes the count.
    let replayed = run.replay(&event("e3", "mallory", now)).await;
    assert_eq!(replayed, Replayed { events: 1, findings: 1, still: None });
    let mut told = run.told(5).await;
    told.sort();
    assert_eq!(told, ["base", "base", "base", "base", "purge"], "durable before the answer");
    // Again: known, and nothing is told twice.
    assert_eq!(run.replay(&event("e3", "mallory", now)).await.findings, 1);
    let still = run.replay("{\"eventName\": oops").await;
    assert!(still.still.is_some() && still.findings == 0, "{still:?}");
    assert_eq!((run.told(5).await.len(), quarantine::list(&*run.store, 10).unwrap().len()), (5, 1));
    let matches = run.metric("trailwarden_rule_matches_total{level=\"low\",rule=\"5b1f7a52-7a55-4f1c-9f0e-0d0f9a3e0c01\"}");
    assert_eq!(matches, 5.0);
    drop(run.batches);
    let tally = run.ended.await.unwrap().unwrap();
    assert_eq!((tally.matched, tally.duplicate, tally.quarantined), (4, 1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_late_and_skewed_evidence_is_counted() {
    let mut run = start(Limits { quota_items: 50, ..Limits::default() });
    let now = now_ms();
    let mut texts = vec![event("future", "x", now + 3_600_000)];
    texts.extend((0..200).map(|n| event(&format!("e{n}"), &format!("user-{n}"), now)));
    run.feed(&texts).await;
    let told = run.told(202).await;
    assert_eq!(told.iter().filter(|title| title.starts_with("Evidence was lost")).count(), 1, "{told:?}");
    // The frontier has come to now, so an event of hours ago is too late for a window of ten minutes.
    tokio::time::sleep(Duration::from_millis(250)).await;
    run.feed(&[event("old", "x", now - 10 * 3_600_000)]).await;
    run.told(203).await;
    let evicted = run.metric("trailwarden_state_evictions_total");
    assert!(evicted >= 150.0, "{evicted}");
    assert_eq!(run.metric("trailwarden_rule_quota_hits_total{rule=\"5b1f7a52-7a55-4f1c-9f0e-0d0f9a3e0c02\"}"), evicted);
    assert_eq!((run.metric("trailwarden_events_skewed_total"), run.metric("trailwarden_events_late_total")), (1.0, 1.0));
    assert!(run.metric("trailwarden_memory_used_bytes{budget=\"evidence\"}") > 0.0);
    // Both kinds of rules are counted and timed: one event in 127 of the 202 was a sample.
    let matches = |rule: &str, level: &str| run.metric(&format!("trailwarden_rule_matches_total{{level=\"{level}\",rule=\"{rule}\"}}"));
    assert_eq!((matches(BASE, "low"), matches(PURGE, "high")), (202.0, 201.0));
    let costs = [BASE, PURGE].map(|rule| run.metric(&format!("trailwarden_rule_cost_seconds_total{{rule=\"{rule}\"}}")));
    assert!(costs.iter().all(|cost| (1e-7..10.0).contains(cost)), "{costs:?}");
    run.conserved();
}
