//! Where records come from: batches of bytes with their position, bounded in bytes.
//!
//! In: Kinesis (here), files and stdin. Out: `Batch`es. Invariant: a batch counts against the budget until it is dropped, so
//! that whoever is slow slows the reading.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::position::{Position, ShardId};

pub mod files;
pub mod kinesis;

/// A record as its stream keeps it: still aggregated, compressed and enveloped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub data: Bytes,
    /// Just behind this record.
    pub position: Position,
    /// When the stream received it, milliseconds since the epoch; 0 where unknown.
    pub approximate_arrival_ms: u64,
    pub partition_key: String,
    /// The user records of this aggregate up to and with this one are past already.
    pub past_sub_sequence: Option<u64>,
}

/// Records of one shard, in order.
#[derive(Debug)]
pub struct Batch {
    pub shard: ShardId,
    /// The grant's: a commit of `through` names it.
    pub counter: u64,
    pub records: Vec<Record>,
    /// Where the shard is read on once all of these records are past. The first batch of a shard is empty and says where
    /// its reading begins.
    pub through: Position,
    /// How far the end of this batch is behind the shard's end; `None` where the source can't tell.
    pub millis_behind_latest: Option<u64>,
    /// When the batch was asked for, milliseconds since the epoch: where nothing is behind it, the shard is read up to this time,
    /// however long the batch lay about since.
    pub asked_ms: i64,
    /// Nothing follows in this shard.
    pub shard_end: bool,
    pub reservation: Reservation,
}

/// Bytes that may be under way between the stream and the detectors.
#[derive(Debug, Clone)]
pub struct Budget {
    free: Arc<Semaphore>,
    total_kib: u32,
}

/// A share of the budget, given back when dropped.
#[derive(Debug, Default)]
pub struct Reservation(Option<OwnedSemaphorePermit>);

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

impl Budget {
    pub fn new(bytes: usize) -> Self {
        let total_kib = kib(bytes).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize) as u32);
        Self { free: Arc::new(Semaphore::new(total_kib as usize)), total_kib }
    }

    /// Waits, first come first served, until `bytes` are free; more than the whole budget waits for the whole.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        let permit = Arc::clone(&self.free).acquire_many_owned(kib(bytes).min(self.total_kib)).await;
        Reservation(Some(permit.expect("the semaphore is never closed")))
    }

    /// The same without a wait; `None` where one would be needed.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        let permit = Arc::clone(&self.free).try_acquire_many_owned(kib(bytes).min(self.total_kib)).ok()?;
        Some(Reservation(Some(permit)))
    }

    /// Bytes under way now.
    pub fn used_bytes(&self) -> usize {
        (self.total_kib as usize - self.free.available_permits()) << 10
    }
}

impl Reservation {
    /// Gives back what is over `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.0 {
            let over = permit.num_permits().saturating_sub(kib(bytes) as usize);
            drop(permit.split(over));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_budget_is_given_back_and_waited_for() {
        let budget = Budget::new(10 << 10);
        let mut first = budget.reserve(8 << 10).await;
        let blocked = tokio::time::timeout(Duration::from_millis(20), budget.reserve(4 << 10)).await;
        assert!(blocked.is_err());
        first.shrink(5000);
        assert_eq!(budget.used_bytes(), 5 << 10);
        let second = budget.reserve(4 << 10).await;
        drop((first, second));
        drop(budget.reserve(1 << 30).await);
        assert_eq!(budget.used_bytes(), 0);
    }
}
