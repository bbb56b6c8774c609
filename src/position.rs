//! Where a record stands: the vocabulary shared by sources, leases and stores.
//!
//! In: what a source reports with each record. Out: totally ordered positions. Invariant: positions of one shard order as
//! its records do.

use std::{fmt, sync::Arc};

/// Names a stream's shard, or a file in `scan`: `stream/shardId-…`, a path, `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub Arc<str>);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A Kinesis sequence number (≤ 129 decimal digits in the wild, 186 bits): compared as a number, written as text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SequenceNumber(Arc<str>);

impl SequenceNumber {
    /// `digits` as the service gave them; leading zeros are dropped so that text and number agree.
    pub fn new(digits: &str) -> Self {
        let kept = digits.trim_start_matches('0');
        Self(Arc::from(if kept.is_empty() { "0" } else { kept }))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.len(), &*self.0).cmp(&(other.0.len(), &*other.0))
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Just behind this record (and, in a KPL aggregate, this user record of it).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Position {
    TrimHorizon,
    Latest,
    /// Milliseconds since the epoch.
    AtTimestamp(u64),
    After {
        sequence: SequenceNumber,
        sub_sequence: u64,
    },
    /// Every record of a closed shard is past.
    ShardEnd,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_order_as_numbers() {
        for (low, high) in [
            ("9", "10"),
            ("0099", "100"),
            ("49590338271490256608559692538361571095921575989136588898", "49590338271490256608559692538361571095921575989136588899"),
        ] {
            assert!(SequenceNumber::new(low) < SequenceNumber::new(high), "{low} < {high}");
        }
    }
}
