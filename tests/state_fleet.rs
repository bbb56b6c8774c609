//! Promise 2 for a fleet: the set of alert ids is that of a naive evaluation, whoever reads which shard and whatever fails when.
//!
//! In: `TRAILWARDEN_CASES` (500), `TRAILWARDEN_SEED`. Out: failures with the seed that repeats them. Invariant: the oracle shares types
//! with the program, never code.

#[path = "state/drive.rs"]
mod drive;
#[path = "state/fleet.rs"]
mod fleet;
#[path = "state/oracle.rs"]
mod oracle;
#[path = "state/world.rs"]
mod world;

use std::sync::Arc;

use trailwarden::store::{MemoryStore, Store};

#[test]
fn property_fleet_ids_in_memory() {
    let mut make = || Arc::new(MemoryStore::new()) as Arc<dyn Store>;
    let cases = fleet::number("TRAILWARDEN_CASES", 500) / 2;
    let draw = fleet::Draw { salt: 0xf1ee7, workers: &[1, 8], batch_changes: &[100, 100, 12], most_events: 60 };
    fleet::check(&mut make, cases, &draw);
}
