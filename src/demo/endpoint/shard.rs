//! A stream and its shards in memory: hash ranges, records, splits and merges.
//!
//! In: records with partition keys, reshard requests. Out: records by position. Invariant: the open shards' hash ranges
//! cover 0..=u128::MAX without gap or overlap.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use md5::{Digest as _, Md5};

use super::wire::ApiError;
use crate::position::parse_bits;

/// One stored record.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Rises by one a record over the whole stream.
    pub index: u64,
    pub sequence: Box<str>,
    pub arrival_ms: u64,
    pub partition_key: Box<str>,
    pub data: Bytes,
}

#[derive(Debug)]
pub struct Shard {
    pub number: u32,
    pub id: String,
    pub parents: Vec<u32>,
    pub children: Vec<u32>,
    pub range: (u128, u128),
    pub created_ms: u64,
    pub closed_ms: Option<u64>,
    /// The stream's index when the shard was opened and closed.
    pub first_index: u64,
    pub last_index: Option<u64>,
    pub records: VecDeque<Stored>,
    bytes: usize,
}

#[derive(Debug, Clone)]
pub struct Consumer {
    pub arn: String,
    pub created_ms: u64,
    /// By shard: when it was last subscribed to, and a number that only the newest subscription holds.
    pub subscriptions: BTreeMap<u32, (u64, u64)>,
}

#[derive(Debug)]
pub struct Stream {
    pub created_ms: u64,
    pub retention_hours: u64,
    pub max_record_bytes: usize,
    pub shards: Vec<Shard>,
    pub consumers: BTreeMap<String, Consumer>,
    retain_bytes: usize,
    next_index: u64,
}

/// The service's layout of a sequence number: see `SequenceNumber::written_s`.
fn sequence(created_ms: u64, index: u64, at_ms: u64, shard: u32) -> Box<str> {
    let low = 2_u128 | u128::from(shard) << 4 | u128::from(at_ms / 1000) << 36 | u128::from(index) << 80;
    // The index spans bits 80 to 143: its upper 16 bits lie in the third limb.
    let high = index >> 48 | (created_ms / 1000) << 20 | 2 << 56;
    let mut limbs = [low as u64, (low >> 64) as u64, high];
    let mut groups = [0_u64; 4];
    for group in &mut groups {
        let mut rest = 0_u128;
        for limb in limbs.iter_mut().rev() {
            let wide = rest << 64 | u128::from(*limb);
            *limb = (wide / 10_000_000_000_000_000_000) as u64;
            rest = wide % 10_000_000_000_000_000_000;
        }
        *group = rest as u64;
    }
    let text = format!("{}{:019}{:019}{:019}", groups[3], groups[2], groups[1], groups[0]);
    text.trim_start_matches('0').into()
}

/// The index inside a sequence number of this stream and shard.
fn index_of(digits: &str, created_ms: u64, shard: u32) -> Option<u64> {
    let bits = parse_bits(digits)?;
    let low = u128::from(bits[0]) | u128::from(bits[1]) << 64;
    let ours = bits[2] >> 20 == (created_ms / 1000) | 2 << 36 && (low >> 4) as u32 == shard;
    ours.then_some((low >> 80) as u64 | bits[2] << 48)
}

pub fn hash_of(partition_key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(partition_key.as_bytes()).into())
}

impl Shard {
    pub fn is_open(&self) -> bool {
        self.closed_ms.is_none()
    }

    /// The first record at or behind `index`, as an offset into `records`.
    pub fn offset(&self, index: u64) -> usize {
        self.records.partition_point(|r| r.index < index)
    }

    /// Everything up to the end has been read by a reader that stands at `index`.
    pub fn is_finished(&self, index: u64) -> bool {
        !self.is_open() && self.offset(index) == self.records.len()
    }
}

impl Stream {
    pub fn new(now_ms: u64, count: u32, retain_bytes: usize) -> Self {
        let mut stream = Self {
            created_ms: now_ms,
            retention_hours: 24,
            max_record_bytes: 1 << 20,
            shards: Vec::new(),
            consumers: BTreeMap::new(),
            retain_bytes,
            next_index: 1,
        };
        for range in uniform(count) {
            stream.open(now_ms, range, &[]);
        }
        stream
    }

    fn open(&mut self, now_ms: u64, range: (u128, u128), parents: &[u32]) -> u32 {
        let number = self.shards.len() as u32;
        self.shards.push(Shard {
            number,
            id: format!("shardId-{number:012}"),
            parents: parents.to_vec(),
            children: Vec::new(),
            range,
            created_ms: now_ms,
            closed_ms: None,
            first_index: self.next_index,
            last_index: None,
            records: VecDeque::new(),
            bytes: 0,
        });
        self.next_index += 1;
        for parent in parents {
            self.shards[*parent as usize].children.push(number);
        }
        number
    }

    fn close(&mut self, now_ms: u64, number: u32) {
        let shard = &mut self.shards[number as usize];
        shard.closed_ms = Some(now_ms);
        shard.last_index = Some(self.next_index);
        self.next_index += 1;
    }

    pub fn open_count(&self) -> usize {
        self.shards.iter().filter(|s| s.is_open()).count()
    }

    pub fn find(&self, id: &str) -> Result<&Shard, ApiError> {
        let number = id.strip_prefix("shardId-").and_then(|n| n.parse::<usize>().ok());
        number.and_then(|n| self.shards.get(n)).ok_or_else(|| ApiError::not_found(format!("Shard {id} does not exist")))
    }

    pub fn horizon_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.retention_hours * 3_600_000)
    }

    /// A closed shard whose last record is past retention no longer exists for a caller.
    pub fn is_listed(&self, shard: &Shard, now_ms: u64) -> bool {
        shard.closed_ms.is_none_or(|closed| closed >= self.horizon_ms(now_ms))
    }

    pub fn sequence_at(&self, shard: &Shard, index: u64, at_ms: u64) -> Box<str> {
        sequence(self.created_ms, index, at_ms, shard.number)
    }

    pub fn index_of(&self, shard: &Shard, digits: &str) -> Result<u64, ApiError> {
        index_of(digits, self.created_ms, shard.number).ok_or_else(|| {
            let why = format!("StartingSequenceNumber {digits} used in GetShardIterator on shard {} is invalid.", shard.id);
            ApiError::new(400, "InvalidArgumentException", why)
        })
    }

    /// Stores one record; returns its shard's number and its sequence number.
    pub fn put(&mut self, now_ms: u64, partition_key: &str, hash: u128, data: Bytes) -> (u32, Box<str>) {
        let (created_ms, index, horizon_ms, retain_bytes) = (self.created_ms, self.next_index, self.horizon_ms(now_ms), self.retain_bytes);
        self.next_index += 1;
        let owner = |s: &&mut Shard| s.is_open() && s.range.0 <= hash && hash <= s.range.1;
        let shard = self.shards.iter_mut().find(owner).expect("the open shards cover all hash keys");
        let sequence = sequence(created_ms, index, now_ms, shard.number);
        shard.bytes += data.len();
        shard.records.push_back(Stored { index, sequence: sequence.clone(), arrival_ms: now_ms, partition_key: partition_key.into(), data });
        while shard.bytes > retain_bytes && shard.records.len() > 1 || shard.records.front().is_some_and(|r| r.arrival_ms < horizon_ms) {
            shard.bytes -= shard.records.pop_front().map_or(0, |r| r.data.len());
        }
        (shard.number, sequence)
    }

    /// Drops what is past retention.
    pub fn trim(&mut self, now_ms: u64) {
        let horizon_ms = self.horizon_ms(now_ms);
        for shard in &mut self.shards {
            while shard.records.front().is_some_and(|r| r.arrival_ms < horizon_ms) {
                shard.bytes -= shard.records.pop_front().map_or(0, |r| r.data.len());
            }
        }
    }

    pub fn split(&mut self, now_ms: u64, id: &str, at: u128) -> Result<(), ApiError> {
        let shard = self.find(id)?;
        let (number, (low, high)) = (shard.number, shard.range);
        if !shard.is_open() || at <= low || at > high {
            return Err(ApiError::new(400, "InvalidArgumentException", format!("NewStartingHashKey {at} can't split {id} ({low}..={high})")));
        }
        self.close(now_ms, number);
        self.open(now_ms, (low, at - 1), &[number]);
        self.open(now_ms, (at, high), &[number]);
        Ok(())
    }

    pub fn merge(&mut self, now_ms: u64, id: &str, adjacent: &str) -> Result<(), ApiError> {
        let (one, two) = (self.find(id)?, self.find(adjacent)?);
        let (low, high) = if one.range.0 < two.range.0 { (one, two) } else { (two, one) };
        if !one.is_open() || !two.is_open() || low.range.1.checked_add(1) != Some(high.range.0) {
            return Err(ApiError::new(400, "InvalidArgumentException", format!("{id} and {adjacent} are not two adjacent open shards")));
        }
        let (range, numbers) = ((low.range.0, high.range.1), [one.number, two.number]);
        numbers.iter().for_each(|n| self.close(now_ms, *n));
        self.open(now_ms, range, &numbers);
        Ok(())
    }

    /// Splits at the target's borders, then merges what lies between them.
    pub fn scale(&mut self, now_ms: u64, count: u32) -> Result<(), ApiError> {
        let target = uniform(count);
        for (low, _) in &target {
            let inside = self.shards.iter().find(|s| s.is_open() && s.range.0 < *low && *low <= s.range.1).map(|s| s.id.clone());
            if let Some(id) = inside {
                self.split(now_ms, &id, *low)?;
            }
        }
        for (low, high) in target {
            loop {
                let mut within: Vec<_> = self.shards.iter().filter(|s| s.is_open() && s.range.0 >= low && s.range.1 <= high).collect();
                within.sort_by_key(|s| s.range.0);
                let [first, second, ..] = within[..] else { break };
                let (first, second) = (first.id.clone(), second.id.clone());
                self.merge(now_ms, &first, &second)?;
            }
        }
        Ok(())
    }
}

/// `count` equal slices of the hash space.
fn uniform(count: u32) -> Vec<(u128, u128)> {
    let count = u128::from(count.max(1));
    let step = u128::MAX / count;
    (0..count).map(|i| (if i == 0 { 0 } else { i * step + 1 }, if i + 1 == count { u128::MAX } else { (i + 1) * step })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::SequenceNumber;

    #[test]
    fn sequence_numbers_carry_index_shard_and_time() {
        for (index, shard) in [(1, 0), (77, 3), (u64::MAX, u32::MAX), (1 << 48, 9)] {
            let text = sequence(1_700_000_000_000, index, 1_700_000_123_456, shard);
            assert_eq!(index_of(&text, 1_700_000_000_999, shard), Some(index), "{text}");
            assert_eq!(index_of(&text, 1_700_000_001_000, shard), None, "another incarnation of the stream");
            assert_eq!(SequenceNumber::new(&text).written_s(), Some(1_700_000_123));
        }
        assert!(sequence(5_000, 9, 7_000, 1) < sequence(5_000, 10, 6_000, 1));
    }

    #[test]
    fn resharding_keeps_the_hash_space_covered() {
        let mut stream = Stream::new(1_000, 3, usize::MAX);
        for count in [6, 4, 1, 5, 8] {
            stream.scale(2_000, count).unwrap();
            let mut open: Vec<_> = stream.shards.iter().filter(|s| s.is_open()).map(|s| s.range).collect();
            open.sort_unstable();
            assert_eq!(open.len(), count as usize);
            assert_eq!((open[0].0, open[open.len() - 1].1), (0, u128::MAX));
            assert!(open.windows(2).all(|w| w[0].1 + 1 == w[1].0), "{open:?}");
        }
        assert!(stream.split(3_000, "shardId-000000000000", 5).is_err(), "a closed shard");
    }
}
