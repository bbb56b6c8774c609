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

    /// The second (since the epoch) at which the service wrote the record, as its number tells; `None` where the number has
    /// another layout. The layout is not documented by AWS: good for a warning, not for a decision.
    pub fn written_s(&self) -> Option<u64> {
        let bits = parse_bits(&self.0)?;
        let version_and_lead = (bits[0] & 0xf, bits[2] >> 56);
        // Bits, from the low end: version 4, shard 32, second 36, flags 8, index 64, filler 4, shard's second 36, lead 4.
        (version_and_lead == (2, 2)).then(|| (u128::from(bits[0]) | u128::from(bits[1]) << 64) >> 36 & 0xf_ffff_ffff).map(|s| s as u64)
    }
}

/// A decimal number of at most 192 bits as limbs, the lowest first.
pub fn parse_bits(digits: &str) -> Option<[u64; 3]> {
    let mut limbs = [0_u64; 3];
    for digit in digits.bytes() {
        let mut carry = u128::from(char::from(digit).to_digit(10)?);
        for limb in &mut limbs {
            let wide = u128::from(*limb) * 10 + carry;
            *limb = wide as u64;
            carry = wide >> 64;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(limbs)
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

    #[test]
    fn sequence_numbers_tell_their_second() {
        for (digits, expected) in [
            ("49590338271490256608559692538361571095921575989136588898", Some(1_545_084_650..1_545_084_651)),
            ("1", None),
            ("", None),
            ("12x", None),
            (&"9".repeat(129), None),
        ] {
            let got = SequenceNumber::new(digits).written_s();
            match expected {
                Some(range) => assert!(got.is_some_and(|s| range.contains(&s)), "{digits}: {got:?}"),
                None => assert_eq!(got, None, "{digits}"),
            }
        }
    }
}
