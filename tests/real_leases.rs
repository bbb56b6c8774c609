//! Workers of a fleet on a real lease table: who reads what, and whose commits count.
//!
//! In: workers that come, go, die and freeze. Out: rows in the form of the Kinesis Client Library. Invariant: a shard has one
//! reader, and a commit of any other is refused.
#![cfg(feature = "demo")]

mod support {
    pub mod servers;
    pub mod tools;
}

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use serde_json::json;
use support::servers::{self, Server};
use tokio::time::sleep;
use trailwarden::{
    demo::endpoint::{Endpoint, Faults, Limits, Options},
    lease::{
        Notices,
        config::Config,
        manager::{CommitError, Manager},
        row::{Naming, Row},
    },
    metrics::Metrics,
    position::{Position, SequenceNumber, ShardId},
};

const FAILOVER: Duration = Duration::from_secs(1);

struct Fleet {
    endpoint: Endpoint,
    _server: Server,
    dynamodb: aws_sdk_dynamodb::Client,
    kinesis: aws_sdk_kinesis::Client,
}

async fn fleet(shards: u32) -> Option<Fleet> {
    let server = servers::dynamodb()?;
    let endpoint = Endpoint::start(Options { limits: Limits::NONE, ..Options::default() }).await.unwrap();
    endpoint.create_stream("s", shards).unwrap();
    let dynamodb = aws_sdk_dynamodb::Client::new(&trailwarden::aws::load(None, Some(&server.url)).await);
    let kinesis = aws_sdk_kinesis::Client::new(&trailwarden::aws::load(None, Some(endpoint.url())).await);
    Some(Fleet { endpoint, _server: server, dynamodb, kinesis })
}

impl Fleet {
    async fn worker(&self, name: &str) -> Manager {
        self.metered(name, Arc::default()).await
    }

    async fn metered(&self, name: &str, metrics: Arc<Metrics>) -> Manager {
        let worker = Some(format!("trailwarden-{name}"));
        let config = Config { failover_ms: FAILOVER.as_millis() as u64, worker, ..Config::new("app") };
        let (notices, _) = Notices::channel(16);
        let naming = Naming::Single("s".to_owned());
        Manager::start(config, self.dynamodb.clone(), self.kinesis.clone(), naming, Position::TrimHorizon, notices, metrics).await.unwrap()
    }

    async fn rows(&self) -> BTreeMap<String, Row> {
        let items = self.dynamodb.scan().table_name("app").send().await.unwrap().items.unwrap_or_default();
        items.iter().filter_map(Row::from_item).map(|row| (row.key.clone(), row)).collect()
    }

    fn split(&self, shard: &str, at: u128) {
        let ask = json!({"StreamName": "s", "ShardToSplit": shard, "NewStartingHashKey": at.to_string()});
        self.endpoint.call("SplitShard", &ask).unwrap();
    }
}

/// Waits until a worker is granted exactly `count` shards; returns how long it took.
async fn granted(worker: &Manager, count: usize) -> Duration {
    let (since, mut grants) = (Instant::now(), worker.grants());
    let reached = tokio::time::timeout(Duration::from_secs(20), grants.wait_for(|g| g.len() == count)).await;
    assert!(reached.is_ok(), "{} was granted {:?}", worker.worker(), worker.grants().borrow().keys());
    since.elapsed()
}

fn shard(n: u32) -> ShardId {
    ShardId(format!("s/shardId-{n:012}").into())
}

fn after(n: u64) -> Position {
    Position::After { sequence: SequenceNumber::new(&n.to_string()), sub_sequence: 2 }
}

fn counter(worker: &Manager, shard: &ShardId) -> u64 {
    worker.grants().borrow()[shard].counter
}

#[tokio::test]
async fn rows_have_the_librarys_form() {
    let Some(fleet) = fleet(1).await else { return };
    let metrics = Arc::new(Metrics::new());
    let worker = fleet.metered("a", Arc::clone(&metrics)).await;
    granted(&worker, 1).await;
    worker.checkpointer().commit(&shard(0), counter(&worker, &shard(0)), &after(77), 5).await.unwrap();
    sleep(FAILOVER / 2).await;
    let item = fleet.dynamodb.scan().table_name("app").send().await.unwrap().items.unwrap().pop().unwrap();
    let kinds: BTreeMap<&str, &str> = item
        .iter()
        .map(|(name, value)| {
            let kind = match value {
                AttributeValue::S(_) => "S",
                AttributeValue::N(_) => "N",
                AttributeValue::Ss(_) => "SS",
                other => panic!("{name}: {other:?}"),
            };
            (name.as_str(), kind)
        })
        .collect();
    let expected = BTreeMap::from([
        ("leaseKey", "S"),
        ("leaseOwner", "S"),
        ("leaseCounter", "N"),
        ("checkpoint", "S"),
        ("checkpointSubSequenceNumber", "N"),
        ("ownerSwitchesSinceCheckpoint", "N"),
        ("startingHashKey", "S"),
        ("endingHashKey", "S"),
        ("throughputKBps", "N"),
    ]);
    assert_eq!(kinds, expected);
    assert_eq!((&item["checkpoint"], &item["checkpointSubSequenceNumber"]), (&AttributeValue::S("77".into()), &AttributeValue::N("2".into())));
    let leader = fleet.dynamodb.get_item().table_name("app-CoordinatorState").key("key", AttributeValue::S("Leader".into()));
    let leader = leader.send().await.unwrap().item.unwrap();
    assert_eq!(leader["ownerName"], AttributeValue::S("trailwarden-a".into()));
    assert!(["leaseDuration", "recordVersionNumber"].iter().all(|name| leader[*name].is_s()));
    let workers = fleet.dynamodb.scan().table_name("app-WorkerMetricStats").send().await.unwrap().items.unwrap();
    assert_eq!(workers[0]["wid"], AttributeValue::S("trailwarden-a".into()));
    assert!(metrics.dynamodb_capacity_units.get() > 3.0);
    assert_eq!(metrics.fleet.leading.get(), 1);
}

#[tokio::test]
async fn after_a_polite_end_another_takes_over_at_once() {
    let Some(fleet) = fleet(4).await else { return };
    let (a, b) = (fleet.worker("a").await, fleet.worker("b").await);
    granted(&b, 2).await;
    granted(&a, 2).await;
    let mine = a.grants().borrow().keys().next().unwrap().clone();
    a.checkpointer().commit(&mine, counter(&a, &mine), &after(5), 0).await.unwrap();
    let since = Instant::now();
    a.shutdown().await;
    granted(&b, 4).await;
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    println!("takeover after a polite end: {:?}", since.elapsed());
    assert_eq!(b.grants().borrow()[&mine].from, after(5));
}

#[tokio::test]
async fn after_a_crash_another_takes_over_within_failover_and_the_zombie_is_refused() {
    let Some(fleet) = fleet(2).await else { return };
    let a = fleet.worker("a").await;
    granted(&a, 2).await;
    let metrics = Arc::new(Metrics::new());
    let b = fleet.metered("b", Arc::clone(&metrics)).await;
    granted(&b, 1).await;
    let (zombie, held) = (a.checkpointer(), a.grants().borrow().clone());
    assert_eq!(held.len(), 1);
    let (mine, grant) = held.iter().next().unwrap();
    zombie.commit(mine, grant.counter, &after(5), 0).await.unwrap();
    let since = Instant::now();
    drop(a);
    granted(&b, 2).await;
    println!("takeover after a crash: {:?} with a failover time of {FAILOVER:?}", since.elapsed());
    assert!(since.elapsed() < FAILOVER + Duration::from_secs(2), "{:?}", since.elapsed());
    assert_eq!(zombie.commit(mine, grant.counter, &after(6), 0).await, Err(CommitError::Lost(mine.clone())));
    let (_, key) = mine.0.split_once('/').unwrap();
    assert_eq!(*fleet.rows().await[key].position(), after(5));
    b.checkpointer().commit(mine, counter(&b, mine), &after(7), 0).await.unwrap();
    let row = fleet.rows().await[key].clone();
    assert_eq!((row.position(), row.owner.as_deref(), row.owner_switches), (&after(7), Some("trailwarden-b"), 0));
    // The lock of the dead leader is taken over too.
    let led = Instant::now();
    while metrics.fleet.leading.get() == 0 {
        assert!(led.elapsed() < FAILOVER * 3 + Duration::from_secs(5), "nobody leads");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_newcomer_is_handed_its_share_and_nothing_is_committed_twice() {
    let Some(fleet) = fleet(6).await else { return };
    let a = fleet.worker("a").await;
    granted(&a, 6).await;
    let before = a.grants().borrow().clone();
    let b = fleet.worker("b").await;
    granted(&b, 3).await;
    granted(&a, 3).await;
    for (shard, grant) in b.grants().borrow().clone().iter() {
        assert!(matches!(a.checkpointer().commit(shard, before[shard].counter, &after(1), 0).await, Err(CommitError::Lost(_))));
        b.checkpointer().commit(shard, grant.counter, &after(2), 0).await.unwrap();
    }
    let rows = fleet.rows().await;
    assert!(rows.values().all(|r| r.checkpoint_owner.is_none()), "{rows:?}");
}

#[tokio::test]
async fn children_follow_their_parents_end() {
    let Some(fleet) = fleet(1).await else { return };
    let (a, b) = (fleet.worker("a").await, fleet.worker("b").await);
    let holder = loop {
        if let Some(holder) = [&a, &b].into_iter().find(|w| w.grants().borrow().len() == 1) {
            break holder;
        }
        sleep(Duration::from_millis(20)).await;
    };
    fleet.endpoint.put("s", [("k".to_owned(), Bytes::from_static(b"x"))]).unwrap();
    fleet.split("shardId-000000000000", 1 << 100);
    holder.checkpointer().commit(&shard(0), counter(holder, &shard(0)), &Position::ShardEnd, 0).await.unwrap();
    let parent = fleet.rows().await["shardId-000000000000"].clone();
    assert_eq!(parent.children.len(), 2);
    let child = fleet.rows().await["shardId-000000000001"].clone();
    assert_eq!((child.parents, child.range), (vec![parent.key.clone()], Some((0, (1 << 100) - 1))));
    granted(&a, 1).await;
    granted(&b, 1).await;
    for worker in [&a, &b] {
        let grants = worker.grants().borrow().clone();
        let (child, grant) = grants.iter().next().unwrap();
        assert_eq!(grant.from, Position::TrimHorizon);
        worker.checkpointer().commit(child, grant.counter, &after(9), 0).await.unwrap();
    }
    let since = Instant::now();
    while fleet.rows().await.contains_key(&parent.key) {
        assert!(since.elapsed() < FAILOVER * 16 + Duration::from_secs(5), "the finished lease stays");
        sleep(Duration::from_millis(100)).await;
    }
    assert!(since.elapsed() > FAILOVER * 5, "the finished lease goes while another may still act on an older look");
}

#[tokio::test]
async fn whoever_lost_a_shard_makes_no_leases_at_its_end() {
    let Some(fleet) = fleet(1).await else { return };
    let a = fleet.worker("a").await;
    granted(&a, 1).await;
    fleet.split("shardId-000000000000", 1 << 100);
    let stolen = fleet.dynamodb.update_item().table_name("app").key("leaseKey", AttributeValue::S("shardId-000000000000".into()));
    let stolen = stolen.update_expression("SET leaseOwner = :x, leaseCounter = leaseCounter + :n");
    let values = [(":x", AttributeValue::S("trailwarden-x".into())), (":n", AttributeValue::N("7".into()))];
    let grant = counter(&a, &shard(0));
    let stolen = values.into_iter().fold(stolen, |ask, (name, value)| ask.expression_attribute_values(name, value));
    stolen.send().await.unwrap();
    let ended = a.checkpointer().commit(&shard(0), grant, &Position::ShardEnd, 0).await;
    assert!(matches!(ended, Err(CommitError::Lost(_))), "{ended:?}");
    assert_eq!(fleet.rows().await.into_keys().collect::<Vec<_>>(), ["shardId-000000000000"]);
}

#[tokio::test]
async fn several_streams_share_one_table() {
    let Some(fleet) = fleet(2).await else { return };
    fleet.endpoint.create_stream("other", 1).unwrap();
    let streams = ["s".to_owned(), "other".to_owned()];
    let naming = Naming::resolve(&fleet.kinesis, &streams).await.unwrap();
    let config = Config { failover_ms: FAILOVER.as_millis() as u64, endpoint: Some(fleet._server.url.clone()), ..Config::new("app") };
    let (notices, _) = Notices::channel(16);
    let dynamodb = config.client().await;
    let a = Manager::start(config, dynamodb, fleet.kinesis.clone(), naming, Position::Latest, notices, Arc::default()).await.unwrap();
    granted(&a, 3).await;
    let other = ShardId("other/shardId-000000000000".into());
    assert!(matches!(a.grants().borrow()[&other].from, Position::AtTimestamp(_)));
    a.checkpointer().commit(&other, counter(&a, &other), &after(4), 0).await.unwrap();
    a.checkpointer().commit(&other, counter(&a, &other), &after(3), 0).await.unwrap();
    let rows = fleet.rows().await;
    let row = rows.values().find(|r| r.key.starts_with("000000000000:other:")).unwrap();
    assert_eq!(row.position(), &after(4), "never back");
}

#[tokio::test]
async fn a_deleted_lease_comes_back() {
    let Some(fleet) = fleet(2).await else { return };
    let metrics = Arc::new(Metrics::new());
    let a = fleet.metered("a", Arc::clone(&metrics)).await;
    granted(&a, 2).await;
    fleet.dynamodb.delete_item().table_name("app").key("leaseKey", AttributeValue::S("shardId-000000000001".into())).send().await.unwrap();
    granted(&a, 1).await;
    granted(&a, 2).await;
    assert_eq!(metrics.lease_event("lost").get(), 1);
}

#[tokio::test]
async fn rows_of_other_kinds_are_left_alone() {
    let Some(fleet) = fleet(1).await else { return };
    let a = fleet.worker("a").await;
    granted(&a, 1).await;
    let foreign = [("leaseKey", "Leader"), ("entityType", "COORDINATOR_STATE"), ("ownerName", "someone")];
    let item = foreign.iter().map(|(name, value)| ((*name).to_owned(), AttributeValue::S((*value).to_owned()))).collect();
    fleet.dynamodb.put_item().table_name("app").set_item(Some(item)).send().await.unwrap();
    sleep(FAILOVER * 2).await;
    granted(&a, 1).await;
    let kept = fleet.dynamodb.get_item().table_name("app").key("leaseKey", AttributeValue::S("Leader".into())).send().await.unwrap();
    assert_eq!(kept.item.unwrap().len(), 3);
}

/// At the shortest failover time, with every answer of the stream slower than that, and rates that waver.
#[tokio::test]
async fn slow_calls_and_wavering_rates_cost_no_lease() {
    let Some(fleet) = fleet(6).await else { return };
    let metrics = [(); 2].map(|()| Arc::new(Metrics::new()));
    let workers = [fleet.metered("a", metrics[0].clone()).await, fleet.metered("b", metrics[1].clone()).await];
    granted(&workers[0], 3).await;
    granted(&workers[1], 3).await;
    let events = |name: &'static str| metrics.iter().map(|m| m.lease_event(name).get()).sum::<u64>();
    let before = ["lost", "expired", "failed"].map(events);
    let moved = events("released");
    fleet.endpoint.set_faults(Faults { delay_rate: 1.0, delay_ms: 10_000, ..Faults::default() });
    let (since, mut step) = (Instant::now(), 1_u64);
    // Two rounds of shard sync fall into it.
    while since.elapsed() < FAILOVER * 14 {
        for worker in &workers {
            // The others live by their renewals alone.
            for (shard, grant) in worker.grants().borrow().clone().iter().take(1) {
                let bytes = step.wrapping_mul(6_364_136_223_846_793_005) >> 46;
                let outcome = worker.checkpointer().commit(shard, grant.counter, &after(step), bytes).await;
                assert!(outcome.is_ok() || !worker.grants().borrow().contains_key(shard), "{shard}: {outcome:?}");
                step += 1;
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(["lost", "expired", "failed"].map(events), before);
    assert!(events("released") - moved <= 3, "{} leases were moved for wavering rates", events("released") - moved);
}
