//! What stateful detection costs: `cargo bench --bench state`.
//!
//! In: synthetic matches. Out: a line a figure, with its bar. Invariant: everything goes through the keeper, as in the daemon; costs
//! are the thread's CPU time, commits the wall clock's.
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use cpu_time::ThreadTime;
use trailwarden::{
    correlate::{Feed, Head, Id, Inputs, Plan},
    position::{Position, SequenceNumber, ShardId},
    rule::ast::{Comparison, Correlation, CorrelationKind},
    store::{
        EmbeddedStore, MemoryStore, Store,
        keeper::{Keeper, Limits, Mode, index::Index},
    },
};

#[path = "../tests/state/world.rs"]
mod world;

use world::{Rng, at, correlation, rule};

static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK_BYTES: AtomicUsize = AtomicUsize::new(0);

struct Counting;

fn grow(bytes: usize) {
    let live = LIVE_BYTES.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK_BYTES.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: hands every call to the system's allocator unchanged; the counters are plain atomics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const T0: i64 = 1_700_000_000_000;

fn live() -> usize {
    LIVE_BYTES.load(Ordering::Relaxed)
}

fn identity(n: u64) -> Id {
    trailwarden::correlate::digest(&[&n.to_be_bytes()])
}

fn count(kind: CorrelationKind, least: f64) -> Correlation {
    let mut c = correlation("c", kind, &["r0"], &["g"], 3_600_000);
    c.bounds = vec![(Comparison::Gte, least)];
    c
}

fn plan(c: Correlation) -> Arc<Plan> {
    Arc::new(Plan::compile(&[rule("r0")], &[c]).expect("a plan"))
}

fn keeper(plan: &Arc<Plan>, store: Arc<dyn Store>, limits: Limits) -> Keeper {
    Keeper::open(plan.clone(), store, Mode::Live { start_ms: T0 }, limits, true).expect("a keeper")
}

fn push(inputs: &mut Inputs, feed: &Feed, n: u64, time_ms: i64, group: &str, value: &str) {
    inputs.push(Head {
        feed: feed.id,
        time_ms,
        arrival_ms: time_ms,
        identity: identity(n),
        account: "111122223333",
        region: "eu-west-1",
        event_id: "0e0ed6f5-6f1c-4a5a-9a4e-3f0d6a3b1c11",
        source: "rds.amazonaws.com",
        name: "DescribeDBInstances",
        summary: "",
    });
    inputs.field([group]);
    if !feed.values.is_empty() {
        inputs.field([value]);
    }
}

/// Time of `offer` and `commit` for `matches` matches in batches of 1,000.
fn feed(keeper: &mut Keeper, plan: &Plan, matches: u64, mut each: impl FnMut(u64) -> (i64, String, String)) -> Duration {
    let feed = &plan.feeds(0)[0];
    let (mut inputs, mut known, mut spent) = (Inputs::default(), Vec::new(), Duration::ZERO);
    for n in 0..matches {
        let (time_ms, group, value) = each(n);
        push(&mut inputs, feed, n, time_ms, &group, &value);
        if inputs.len() == 1000 || n + 1 == matches {
            let start = ThreadTime::now();
            keeper.offer(&inputs, &mut known).expect("offered");
            keeper.commit(&[]).expect("committed");
            spent += start.elapsed();
            inputs.clear();
            known.clear();
        }
    }
    spent
}

fn micros(spent: Duration, matches: u64) -> f64 {
    spent.as_secs_f64() * 1e6 / matches as f64
}

fn cost_per_match() {
    for (name, kind, groups) in [
        ("event_count, 1,000 groups", CorrelationKind::EventCount, 1_000),
        ("event_count, 100,000 groups", CorrelationKind::EventCount, 100_000),
        ("value_count, 1,000 groups", CorrelationKind::ValueCount { fields: vec![at("v".into())] }, 1_000),
        ("value_sum, 1,000 groups", CorrelationKind::ValueSum { field: at("v".into()) }, 1_000),
        ("value_percentile (settled), 1,000 groups", CorrelationKind::ValuePercentile { field: at("v".into()), percentile: 95.0 }, 1_000),
    ] {
        let plan = plan(count(kind, 1e9));
        let mut keeper = keeper(&plan, Arc::new(MemoryStore::new()), Limits::default());
        let mut rng = Rng(7);
        let matches = 200_000;
        let spent = feed(&mut keeper, &plan, matches, |n| (T0 + n as i64 * 10, format!("p{}", rng.below(groups)), rng.below(500).to_string()));
        println!("cost per match: {name}: {:.2} µs", micros(spent, matches));
    }
}

fn cardinality() {
    for (order, late_ms) in [("in order", 0), ("up to 5 min out of order", 300_000)] {
        for distinct in [1_000, 10_000, 100_000] {
            let plan = plan(count(CorrelationKind::ValueCount { fields: vec![at("v".into())] }, distinct as f64 + 1.0));
            let mut keeper = keeper(&plan, Arc::new(MemoryStore::new()), Limits::default());
            let mut rng = Rng(9);
            let spent = feed(&mut keeper, &plan, distinct, |n| {
                let time_ms = T0 + n as i64 * 3_000_000 / distinct as i64 - rng.below(late_ms + 1) as i64;
                (time_ms, "one".into(), format!("value {n}"))
            });
            println!("value_count, one group, {distinct} distinct values, {order}: {:.2} µs a match", micros(spent, distinct));
        }
    }
}

fn idle_groups() {
    let before = live();
    let mut index = Index::default();
    let bucket = index.bucket(0, "111122223333");
    let groups = 1_000_000;
    for n in 0..groups {
        index.add(identity(n), bucket, T0);
    }
    let bytes = (live() - before) as f64 / groups as f64;
    println!("index: {bytes:.1} bytes per idle group at {groups} groups (bar: 64)");
    assert!(bytes <= 64.0);
}

fn flood() {
    let budget_bytes = 160 << 20;
    let folder = std::env::temp_dir();
    for (name, quota_items) in [("no quota", 2_000_000), ("quota of 200,000 items", 200_000)] {
        let plan = plan(count(CorrelationKind::EventCount, 5.0));
        let before = live();
        PEAK_BYTES.store(before, Ordering::Relaxed);
        let store = Arc::new(MemoryStore::with_budget(32 << 20, folder.clone()));
        let limits = Limits { budget_bytes, quota_items, ..Limits::default() };
        let mut keeper = keeper(&plan, store, limits);
        let slow = |n: u64| (T0 + n as i64, "attacker".to_owned(), String::new());
        feed(&mut keeper, &plan, 4, slow);
        let principals = 1_000_000;
        let start = ThreadTime::now();
        let feed_one = &plan.feeds(0)[0];
        let (mut inputs, mut known) = (Inputs::default(), Vec::new());
        for n in 0..principals {
            push(&mut inputs, feed_one, 1_000 + n, T0 + 1_000 + n as i64, &format!("principal-{n}"), "");
            if inputs.len() == 1000 {
                keeper.offer(&inputs, &mut known).expect("offered");
                keeper.commit(&[]).expect("committed");
                inputs.clear();
                known.clear();
            }
        }
        let spent = start.elapsed();
        push(&mut inputs, feed_one, 10, T0 + 1_500_000, "attacker", "");
        keeper.offer(&inputs, &mut known).expect("offered");
        let alerts = keeper.commit(&[]).expect("committed");
        let caught = alerts.iter().any(|a| a.rule.id == "c" && a.group[0].1 == "attacker");
        let peak = PEAK_BYTES.load(Ordering::Relaxed) - before;
        println!(
            "flood of {principals} principals, {name}: attacker caught at N: {caught}; peak heap {} MB, keeper {} MB of {} MB, {} evicted, {:.2} µs a match",
            peak >> 20,
            keeper.held().memory_bytes >> 20,
            budget_bytes >> 20,
            keeper.counts().evicted,
            micros(spent, principals)
        );
        assert!(caught);
    }
}

fn commits() {
    let folder = std::env::temp_dir().join(format!("trailwarden-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let store = Arc::new(EmbeddedStore::open(&folder.join("state.redb")).expect("a store"));
    let plan = plan(count(CorrelationKind::EventCount, 20.0));
    let mut keeper = keeper(&plan, store, Limits::default());
    let feed_one = &plan.feeds(0)[0];
    let (mut inputs, mut known, mut took) = (Inputs::default(), Vec::new(), Vec::new());
    let mut rng = Rng(3);
    let begun = Instant::now();
    // 1,000 items a second, a commit every 100 ms, for 15 s.
    for tick in 0..150u64 {
        for n in 0..100 {
            let n = tick * 100 + n;
            push(&mut inputs, feed_one, n, T0 + n as i64, &format!("p{}", rng.below(5_000)), "");
        }
        let start = Instant::now();
        keeper.offer(&inputs, &mut known).expect("offered");
        keeper.advance(T0 + tick as i64 * 100).expect("advanced");
        let position = Position::After { sequence: SequenceNumber::new(&tick.to_string()), sub_sequence: 0 };
        keeper.commit(&[(ShardId("shard".into()), position)]).expect("committed");
        took.push(start.elapsed());
        inputs.clear();
        known.clear();
        std::thread::sleep((Duration::from_millis(100) * (tick as u32 + 1)).saturating_sub(begun.elapsed()));
    }
    took.sort_unstable();
    let at = |share: usize| took[took.len() * share / 100].as_secs_f64() * 1e3;
    println!("commit at 1,000 items a second: p50 {:.1} ms, p99 {:.1} ms (bar: 50)", at(50), at(99));
    let _ = std::fs::remove_dir_all(&folder);
}

fn main() {
    idle_groups();
    cost_per_match();
    cardinality();
    flood();
    commits();
}
