//! Feeds a case to several workers that share a store, as moving leases, lost races and crashes would.
//!
//! In: a case, a store, how many workers. Out: the ids in the outbox, and every breach seen on the way. Invariant: a shard is read
//! again from its checkpoint, and only its owner checkpoints.
#![allow(dead_code)]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use trailwarden::{
    correlate::{Inputs, Plan},
    position::ShardId,
    store::{
        Change, GroupRow, Guard, Result, Store, StoreError, Table, Visit,
        keeper::{Limits, SharedKeeper},
    },
};

use crate::{
    drive::{self, Reader},
    oracle,
    world::{Case, Event, Rng},
};

/// A store whose commits fail now and then: half of them before anything is written, half after.
pub struct Faulty {
    store: Arc<dyn Store>,
    rng: AtomicU64,
    /// Of a thousand commits.
    pub failing: AtomicU64,
    batch_changes: usize,
}

impl Faulty {
    pub fn new(store: Arc<dyn Store>, seed: u64, batch_changes: usize) -> Self {
        Self { store, rng: AtomicU64::new(seed), failing: AtomicU64::new(0), batch_changes }
    }

    fn fails(&self) -> (bool, bool) {
        let mut rng = Rng(self.rng.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed));
        (rng.below(1000) < self.failing.load(Ordering::Relaxed), rng.chance(50))
    }
}

fn fault() -> StoreError {
    StoreError::Io { path: "fault".into(), detail: "injected".into() }
}

impl Store for Faulty {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.store.get(table, key)
    }

    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], visit: Visit) -> Result<()> {
        self.store.scan(table, prefix, from, visit)
    }

    fn commit(&self, changes: Vec<Change>) -> Result<()> {
        self.commit_if(&[], changes).map(|_| ())
    }

    fn commit_if(&self, guards: &[Guard], changes: Vec<Change>) -> Result<bool> {
        match self.fails() {
            (true, true) => Err(fault()),
            (true, false) => self.store.commit_if(guards, changes).and(Err(fault())),
            _ => self.store.commit_if(guards, changes),
        }
    }

    fn batch_changes(&self) -> usize {
        self.batch_changes
    }

    fn group(&self, group: &[u8; 16]) -> Result<Vec<GroupRow>> {
        self.store.group(group)
    }

    fn bytes(&self) -> u64 {
        self.store.bytes()
    }
}

fn limits() -> Limits {
    Limits::default()
}

struct Fleet<'a> {
    case: &'a Case,
    plan: Arc<Plan>,
    store: Arc<Faulty>,
    workers: Vec<Option<SharedKeeper>>,
    reader: Reader<'a>,
    /// Per shard.
    owner: Vec<usize>,
    checkpoint: Vec<usize>,
    now_ms: i64,
    crashes: u64,
    conflicts: u64,
}

fn offer(keeper: &mut SharedKeeper, case: &Case, plan: &Plan, event: &Event, arrival_ms: i64) -> Result<()> {
    let mut inputs = Inputs::default();
    for rule in &event.rules {
        plan.feeds(*rule).iter().for_each(|feed| drive::push(&mut inputs, feed, event, arrival_ms));
    }
    keeper.offer(&inputs, &mut Vec::new())?;
    for rule in event.rules.iter().filter(|r| plan.alerts(**r)) {
        keeper.alert(drive::single(&case.rules[*rule], event))?;
    }
    Ok(())
}

impl Fleet<'_> {
    fn worker(&mut self, worker: usize) -> Option<&mut SharedKeeper> {
        if self.workers[worker].is_none() {
            self.workers[worker] = SharedKeeper::open(self.plan.clone(), self.store.clone(), self.case.start_ms, limits()).ok();
        }
        self.workers[worker].as_mut()
    }

    /// The process is gone; its shards are read again from their checkpoints.
    fn crash(&mut self, worker: usize) {
        self.crashes += 1;
        if let Some(keeper) = self.workers[worker].take() {
            self.conflicts += keeper.conflicts();
        }
        for shard in (0..self.owner.len()).filter(|s| self.owner[*s] == worker) {
            self.reader.at[shard] = self.checkpoint[shard];
        }
    }

    fn read(&mut self, shard: usize, most: u64) {
        let (worker, case, plan) = (self.owner[shard], self.case, self.plan.clone());
        for _ in 0..most {
            let Some((event, arrival_ms)) = self.reader.shards[shard].get(self.reader.at[shard]).copied() else { return };
            let Some(keeper) = self.worker(worker) else { return };
            if offer(keeper, case, &plan, event, arrival_ms).is_err() {
                return self.crash(worker);
            }
            self.reader.at[shard] += 1;
        }
    }

    fn read_to(&self, shard: usize) -> Option<i64> {
        let (deliveries, at) = (&self.reader.shards[shard], self.reader.at[shard]);
        match (deliveries.get(at), at.checked_sub(1)) {
            (None, _) => Some(self.now_ms),
            (Some(_), Some(last)) => Some(deliveries[last].1 - 1),
            _ => None,
        }
    }

    fn commit(&mut self, worker: usize) {
        let own: Vec<usize> = (0..self.owner.len()).filter(|s| self.owner[*s] == worker).collect();
        let read_to: Vec<_> = own.iter().filter_map(|s| Some((shard_id(*s), self.read_to(*s)?))).collect();
        let Some(keeper) = self.worker(worker) else { return };
        if keeper.commit(&[], &read_to).is_err() {
            return self.crash(worker);
        }
        own.iter().for_each(|s| self.checkpoint[*s] = self.reader.at[*s]);
    }

    fn lead(&mut self, worker: usize, frontier_ms: Option<i64>) -> bool {
        let shards: Vec<_> = (0..self.owner.len()).map(shard_id).collect();
        let now_ms = self.now_ms;
        let Some(keeper) = self.worker(worker) else { return false };
        let led = match frontier_ms {
            Some(frontier_ms) => keeper.lead_to(frontier_ms),
            None => keeper.lead(&shards, now_ms),
        };
        if led.is_err() {
            self.crash(worker);
        }
        led.is_ok()
    }
}

fn shard_id(shard: usize) -> ShardId {
    ShardId(shard.to_string().into())
}

/// Id → what it is; breaches.
pub fn run(case: &Case, store: Arc<dyn Store>, workers: usize, batch_changes: usize) -> (BTreeMap<String, String>, Vec<String>, [u64; 2]) {
    let mut rng = case.drive.clone();
    let store = Arc::new(Faulty::new(store, rng.next(), batch_changes));
    let mut fleet = Fleet {
        plan: drive::plan(case),
        store: store.clone(),
        workers: (0..workers).map(|_| None).collect(),
        reader: Reader::new(case),
        owner: (0..case.shards).map(|_| rng.below(workers as u64) as usize).collect(),
        checkpoint: vec![0; case.shards],
        now_ms: case.deliveries.iter().map(|d| d.arrival_ms).max().unwrap_or(0),
        crashes: 0,
        conflicts: 0,
        case,
    };
    store.failing.store(if case.crashes { 30 } else { 0 }, Ordering::Relaxed);
    let any = |rng: &mut Rng| rng.below(workers as u64) as usize;
    loop {
        let open: Vec<usize> = (0..case.shards).filter(|s| fleet.reader.at[*s] < fleet.reader.shards[*s].len()).collect();
        if open.is_empty() {
            // All is read once; what was not checkpointed is lost with a crash.
            (0..workers).for_each(|w| fleet.commit(w));
            if (0..case.shards).all(|s| fleet.checkpoint[s] == fleet.reader.shards[s].len()) {
                break;
            }
            continue;
        }
        let shard = rng.one(&open);
        fleet.read(shard, 1 + rng.below(3));
        if rng.chance(30) {
            let worker = any(&mut rng);
            fleet.commit(worker);
        }
        if rng.chance(20) {
            let worker = any(&mut rng);
            fleet.lead(worker, None);
        }
        if case.crashes && rng.chance(3) {
            let worker = any(&mut rng);
            fleet.crash(worker);
        }
        if rng.chance(10) {
            // The old owner keeps what it has read: a zombie, whose evidence comes late and again.
            let shard = rng.below(case.shards as u64) as usize;
            fleet.owner[shard] = any(&mut rng);
            fleet.reader.at[shard] = fleet.checkpoint[shard];
        }
    }
    for step in 0..rng.below(3) as i64 {
        let (worker, to_ms) = (any(&mut rng), fleet.now_ms + step * 1_000_000);
        fleet.lead(worker, Some(to_ms));
    }
    while !fleet.lead(0, Some(drive::end_ms(case))) {}
    store.failing.store(0, Ordering::Relaxed);
    fleet.conflicts += fleet.workers.iter().flatten().map(SharedKeeper::conflicts).sum::<u64>();
    let (ids, faults) = outbox(&*store);
    (ids, faults, [fleet.crashes, fleet.conflicts])
}

fn outbox(store: &dyn Store) -> (BTreeMap<String, String>, Vec<String>) {
    let (mut ids, mut faults) = (BTreeMap::new(), Vec::new());
    for (_, alert) in store.outbox_list(usize::MAX).unwrap().iter().filter(|(_, alert)| !alert.resolved) {
        let about = format!("{} {:?} {} in {}", alert.rule.id, alert.group, alert.account, alert.incident);
        if let Some(other) = ids.insert(alert.id.clone(), about.clone()) {
            faults.push(format!("{} is in the outbox twice: {other}; {about}", alert.id));
        }
    }
    (ids, faults)
}

pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

fn differences(case: &Case, store: Arc<dyn Store>, workers: usize, batch_changes: usize) -> (String, [u64; 2]) {
    let (ids, faults, seen) = run(case, store, workers, batch_changes);
    let expected = oracle::ids(case);
    let mut text = faults.join("\n");
    for (id, what) in expected.iter().filter(|(id, _)| !ids.contains_key(*id)) {
        text += &format!("\nmissing {id}: {what}");
    }
    for (id, what) in ids.iter().filter(|(id, _)| !expected.contains_key(*id)) {
        text += &format!("\nunexpected {id}: {what}");
    }
    (text, seen)
}

/// Which cases, and how they are run.
pub struct Draw<'a> {
    pub salt: u64,
    pub workers: &'a [usize],
    pub batch_changes: &'a [usize],
    pub most_events: usize,
}

pub fn check(make: &mut dyn FnMut() -> Arc<dyn Store>, cases: u64, draw: &Draw) {
    let first = number("TRAILWARDEN_SEED", 1);
    println!("seeds {first}..{}", first + cases);
    let (mut ids, mut seen) = (0, [0; 2]);
    for seed in first..first + cases {
        let mut rng = Rng(seed ^ draw.salt);
        let mut case = loop {
            let case = Case::new(&mut rng);
            if case.events.len() <= draw.most_events {
                break case;
            }
        };
        case.replay = false;
        for workers in draw.workers {
            let limit = rng.one(draw.batch_changes);
            let (wrong, [crashes, conflicts]) = differences(&case, make(), *workers, limit);
            assert!(
                wrong.is_empty(),
                "TRAILWARDEN_SEED={seed} TRAILWARDEN_CASES=1 repeats it ({workers} workers, {limit} changes):\n{wrong}\n{case}"
            );
            seen = [seen[0] + crashes, seen[1] + conflicts];
        }
        ids += oracle::ids(&case).len();
    }
    println!("{cases} cases, {ids} alert ids, {} crashes, {} lost races, all as the oracle has them", seen[0], seen[1]);
    assert!(ids as u64 >= cases / 2, "cases that find nothing prove nothing");
    assert!(cases < 20 || (seen[0] > 0 && seen[1] > 0), "neither crashes nor lost races prove nothing");
}
