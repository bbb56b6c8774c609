//! Promise 2: the set of alert ids is that of a naive evaluation, whatever the order, repeats, shards, crashes and store.
//!
//! In: `TRAILWARDEN_CASES` (500; a tenth of it on disk), `TRAILWARDEN_SEED`. Out: failures with the seed that repeats them.
//! Invariant: the oracle shares types with the program, never code.

#[path = "state/drive.rs"]
mod drive;
#[path = "state/oracle.rs"]
mod oracle;
#[path = "state/world.rs"]
mod world;

use std::sync::Arc;

use trailwarden::store::{EmbeddedStore, MemoryStore, Store};

use drive::{Stores, run};
use world::{Case, Rng};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

/// What differs between the program and the oracle; empty where nothing does.
fn differences(case: &Case, stores: &mut dyn Stores) -> String {
    let found = run(case, stores);
    let expected = oracle::ids(case);
    let mut text = found.faults.join("\n");
    for (id, what) in &expected {
        if !found.ids.contains_key(id) {
            text += &format!("\nmissing {id}: {what}");
        }
    }
    for (id, what) in &found.ids {
        if !expected.contains_key(id) {
            text += &format!("\nunexpected {id}: {what}");
        }
    }
    text
}

/// Leaves out events as long as the case still fails.
fn shrink(mut case: Case, stores: &mut dyn Stores) -> Case {
    let mut at = 0;
    while at < case.events.len() {
        let smaller = case.without(at);
        if differences(&smaller, stores).is_empty() {
            at += 1;
        } else {
            case = smaller;
        }
    }
    case
}

fn check(stores: &mut dyn Stores, cases: u64, salt: u64) {
    let first = number("TRAILWARDEN_SEED", 1);
    println!("seeds {first}..{}", first + cases);
    let mut ids = 0;
    for seed in first..first + cases {
        let case = Case::new(&mut Rng(seed ^ salt));
        let wrong = differences(&case, stores);
        if !wrong.is_empty() {
            let small = shrink(case, stores);
            let wrong = differences(&small, stores);
            panic!("TRAILWARDEN_SEED={seed} TRAILWARDEN_CASES=1 repeats it:\n{wrong}\n{small}");
        }
        ids += oracle::ids(&case).len();
    }
    println!("{cases} cases, {ids} alert ids, all as the oracle has them");
    assert!(ids as u64 >= cases / 2, "cases that find nothing prove nothing");
}

struct Memory(Arc<MemoryStore>);

impl Stores for Memory {
    fn empty(&mut self) -> Arc<dyn Store> {
        self.0 = Arc::new(MemoryStore::new());
        self.reopen()
    }

    fn reopen(&mut self) -> Arc<dyn Store> {
        self.0.clone()
    }
}

#[test]
fn property_alert_ids_in_memory() {
    check(&mut Memory(Arc::default()), number("TRAILWARDEN_CASES", 500), 0);
}

/// Seeds that found a fault, each mended since.
const FAILED_ONCE: [u64; 1] = [3499];

/// Cases that once failed, by what was wrong. Seeds name other cases once `Case::new` changes; the keeper's own tests stay.
#[test]
fn property_of_seeds_that_once_failed() {
    // A value that is seen all the time looked new while the shard with its last sightings lagged.
    for seed in FAILED_ONCE {
        let case = Case::new(&mut Rng(seed));
        let wrong = differences(&case, &mut Memory(Arc::default()));
        assert!(wrong.is_empty(), "seed {seed}:\n{wrong}\n{case}");
    }
}

/// A redb file, closed and opened again at each crash.
struct Disk {
    folder: tempfile::TempDir,
    files: u64,
}

impl Stores for Disk {
    fn empty(&mut self) -> Arc<dyn Store> {
        let _ = std::fs::remove_file(self.path());
        self.files += 1;
        self.reopen()
    }

    fn reopen(&mut self) -> Arc<dyn Store> {
        Arc::new(EmbeddedStore::open(&self.path()).unwrap())
    }
}

impl Disk {
    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join(format!("{}.redb", self.files))
    }
}

#[test]
fn property_alert_ids_on_disk() {
    let cases = number("TRAILWARDEN_CASES", 500).div_ceil(10);
    check(&mut Disk { folder: tempfile::tempdir().unwrap(), files: 0 }, cases, 0xd15c);
}

/// Memory that moves to disk in the middle of a case.
struct Spilling(tempfile::TempDir, Arc<MemoryStore>);

impl Stores for Spilling {
    fn empty(&mut self) -> Arc<dyn Store> {
        self.1 = Arc::new(MemoryStore::with_budget(2_000, self.0.path().into()));
        self.reopen()
    }

    fn reopen(&mut self) -> Arc<dyn Store> {
        self.1.clone()
    }
}

#[test]
fn property_alert_ids_while_spilling() {
    check(&mut Spilling(tempfile::tempdir().unwrap(), Arc::default()), number("TRAILWARDEN_CASES", 500).div_ceil(10), 0x5b111);
}
