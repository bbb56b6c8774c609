//! The fleet's state on a real DynamoDB: rows, guards, and promise 2 with leases that move.
//!
//! In: dynoxide or moto (tests/setup); `TRAILWARDEN_CASES` (50), `TRAILWARDEN_SEED`. Out: failures with the seed that repeats them.
//! Invariant: servers are on loopback and end with the test.

#[path = "state/drive.rs"]
mod drive;
#[path = "state/fleet.rs"]
mod fleet;
#[path = "state/oracle.rs"]
mod oracle;
#[path = "state/world.rs"]
mod world;
mod support {
    pub mod proxy;
    pub mod servers;
    pub mod tools;
}

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use support::{
    proxy::{Proxy, Spoil},
    servers::{self, Server},
};
use trailwarden::{
    metrics::Metrics,
    store::{Change, DynamoStore, Guard, MemoryStore, Store, StoreError, Table},
};
use world::Rng;

const KEEP_MS: i64 = 7 * 24 * 3_600_000;

/// One server, a fresh table for each store.
struct Real {
    server: Server,
    client: aws_sdk_dynamodb::Client,
    tables: AtomicU64,
    metrics: Arc<Metrics>,
    runtime: tokio::runtime::Runtime,
}

impl Real {
    fn start() -> Option<Self> {
        let server = servers::dynamodb()?;
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let client = aws_sdk_dynamodb::Client::new(&runtime.block_on(trailwarden::aws::load(Some("eu-west-1"), Some(&server.url))));
        Some(Self { server, client, tables: AtomicU64::new(0), metrics: Arc::new(Metrics::new()), runtime })
    }

    fn open(&self, table: &str) -> Result<DynamoStore, StoreError> {
        DynamoStore::open(self.client.clone(), table, KEEP_MS, &self.metrics)
    }

    fn fresh(&self) -> Arc<dyn Store> {
        let table = format!("state-{}", self.tables.fetch_add(1, Ordering::Relaxed));
        Arc::new(self.open(&table).unwrap())
    }
}

fn key(rng: &mut Rng, table: Table) -> Vec<u8> {
    let group = [rng.below(3) as u8; 16];
    let rest = [rng.below(4) as u8, 0, rng.below(3) as u8];
    match table {
        Table::Evidence => [&group[..], &rest].concat(),
        Table::Groups => group.to_vec(),
        Table::Fired if rng.chance(50) => [b"c", &group[..], &rest].concat(),
        Table::Fired => [b"i", &group[..]].concat(),
        Table::Meta if rng.chance(50) => [b"version ", &group[..]].concat(),
        Table::Kv => [rng.one(&["dead", "deadline", "kv"]).as_bytes(), &[0], &rest].concat(),
        _ => rest.to_vec(),
    }
}

fn rows(store: &dyn Store, table: Table, prefix: &[u8], from: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let visit = &mut |key: &[u8], value: &[u8]| {
        found.push((key.to_vec(), value.to_vec()));
        if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    store.scan(table, prefix, from, visit).unwrap();
    found
}

#[test]
fn rows_are_as_in_memory() {
    let Some(real) = Real::start() else { return };
    let (dynamo, memory) = (real.fresh(), MemoryStore::new());
    let mut rng = Rng(fleet::number("TRAILWARDEN_SEED", 1));
    let mut refused = 0;
    for round in 0..150 {
        let table = Table::ALL[rng.below(8) as usize];
        let guards: Vec<Guard> = (0..rng.below(3))
            .map(|_| {
                let table = rng.one(&[Table::Fired, Table::Meta]);
                let key = key(&mut rng, table);
                let value = if rng.chance(70) { memory.get(table, &key).unwrap() } else { Some(vec![9]) };
                Guard { table, key: key.into(), value: value.map(Into::into) }
            })
            .collect();
        // One guard a row, as the view makes them.
        let guards: Vec<_> = guards.into_iter().map(|g| ((g.table, g.key.clone()), g)).collect::<BTreeMap<_, _>>().into_values().collect();
        let changes: Vec<Change> = (0..rng.below(8))
            .map(|_| {
                let table = if rng.chance(50) { table } else { Table::ALL[rng.below(8) as usize] };
                let key = key(&mut rng, table).into();
                let large = if rng.chance(2) { 700_000 } else { rng.below(20) as usize };
                if rng.chance(70) { Change::Put { table, key, value: vec![round as u8; large].into() } } else { Change::Delete { table, key } }
            })
            .collect();
        let done = memory.commit_if(&guards, changes.clone()).unwrap();
        assert_eq!(dynamo.commit_if(&guards, changes).unwrap(), done, "round {round}: {guards:?}");
        refused += u32::from(!done);
        let at = key(&mut rng, table);
        assert_eq!(dynamo.get(table, &at).unwrap(), memory.get(table, &at).unwrap());
        let prefix = &at[..rng.below(at.len() as u64 + 1) as usize];
        let (from, limit) = (if rng.chance(50) { vec![] } else { key(&mut rng, table) }, 1 + rng.below(9) as usize);
        // A group's version is no row of a list.
        let plain = |mut found: Vec<(Vec<u8>, Vec<u8>)>| {
            found.retain(|(key, _)| table != Table::Meta || !key.starts_with(b"version "));
            found
        };
        let (ours, theirs) = (rows(&*dynamo, table, prefix, &from, limit), plain(rows(&memory, table, prefix, &from, 1000)));
        assert_eq!(ours, theirs[..theirs.len().min(limit)], "{table:?} {prefix:?} {from:?}");
        let group = [rng.below(3) as u8; 16];
        let sorted = |store: &dyn Store| {
            let mut rows = store.group(&group).unwrap();
            assert!(rows.iter().skip(1).all(|row| row.0 != Table::Meta), "the version comes first");
            rows.sort();
            rows
        };
        assert_eq!(sorted(&*dynamo), sorted(&memory));
    }
    assert!(refused > 10, "guards that always hold prove nothing");
    let units = |call| real.metrics.dynamodb_state_units(call).get();
    assert!(units("TransactWriteItems") > 100.0 && units("Query") > 10.0 && units("GetItem") > 10.0);
}

/// Over 100 rows are several transactions, over a page several pages.
#[test]
fn many_rows_come_back() {
    let Some(real) = Real::start() else { return };
    let store = real.fresh();
    let put = |n: u32| Change::Put { table: Table::Evidence, key: [&[5; 16][..], &n.to_be_bytes()].concat().into(), value: vec![7; 9_000].into() };
    store.commit((0..250).map(put).collect()).unwrap();
    assert_eq!(rows(&*store, Table::Evidence, &[5; 16], &[], 1000).len(), 250);
    assert_eq!(store.group(&[5; 16]).unwrap().len(), 250);
}

#[test]
fn foreign_tables_are_refused() {
    use aws_sdk_dynamodb::types::{AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};
    let Some(real) = Real::start() else { return };
    let make = real.client.create_table().table_name("other").billing_mode(BillingMode::PayPerRequest);
    let make = make.attribute_definitions(AttributeDefinition::builder().attribute_name("p").attribute_type(ScalarAttributeType::S).build().unwrap());
    let make = make.key_schema(KeySchemaElement::builder().attribute_name("p").key_type(KeyType::Hash).build().unwrap());
    real.runtime.block_on(make.send()).unwrap();
    assert!(matches!(real.open("other"), Err(StoreError::Foreign { .. })));
    drop(real.open("state").unwrap());
    drop(real.open("state").unwrap());
    let mark = [&b"trailwarden"[..], &9u32.to_be_bytes()].concat();
    let b = |bytes: &[u8]| AttributeValue::B(bytes.into());
    let put = real.client.put_item().table_name("state").item("p", b(b"m")).item("s", b(b"mschema"));
    real.runtime.block_on(put.item("v", b(&mark)).send()).unwrap();
    match real.open("state") {
        Err(StoreError::Newer { found, known, .. }) => assert_eq!((found, known), (9, 1)),
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[test]
fn property_fleet_ids_on_dynamodb() {
    let Some(real) = Real::start() else { return };
    let cases = if std::env::var_os("TRAILWARDEN_LONG").is_some() { 200 } else { fleet::number("TRAILWARDEN_CASES", 50) };
    let draw = fleet::Draw { salt: 0xd1_4a30, workers: &[1, 8], batch_changes: &[100], most_events: 14 };
    fleet::check(&mut || real.fresh(), cases, &draw);
}

/// Half of the calls throttled, and more failed or answered in vain: slower, but nothing is lost or told twice.
#[test]
fn throttled_calls_lose_nothing() {
    let Some(mut real) = Real::start() else { return };
    let spoil = Spoil { throttled: 500, failed: 50, lost: 50 };
    let proxy = real.runtime.block_on(Proxy::start(&real.server.url, spoil, 7));
    real.client = aws_sdk_dynamodb::Client::new(&real.runtime.block_on(trailwarden::aws::load(Some("eu-west-1"), Some(&proxy.url))));
    let draw = fleet::Draw { salt: 0x7407, workers: &[3], batch_changes: &[100], most_events: 5 };
    fleet::check(&mut || real.fresh(), 2, &draw);
    let calls = real.metrics.aws_call("dynamodb", "TransactWriteItems");
    assert!(calls.throttled.get() * 2 > calls.ok.get() && calls.failed.get() > 0, "{} throttled", calls.throttled.get());
}
