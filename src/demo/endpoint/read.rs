//! Iterators, GetRecords, and the limits of reading.
//!
//! In: an iterator. Out: records behind it. Invariant: an iterator names a position of one incarnation of one stream, and
//! dies five minutes after it was given out.

use std::{collections::HashMap, io::Write as _};

use serde_json::Value;

use super::{
    Limits,
    shard::{Shard, Stored, Stream},
    wire::{ApiError, text, timestamp_ms, write_records},
};

const ITERATOR_LIFE_MS: u64 = 300_000;
const MAX_ANSWER_BYTES: usize = 10 << 20;
const MAX_ANSWER_RECORDS: u64 = 10_000;

/// A position that a caller may hold: the next index to read.
struct Iterator {
    stream: String,
    created_ms: u64,
    shard: u32,
    next_index: u64,
    issued_ms: u64,
}

impl Iterator {
    fn seal(&self) -> String {
        let plain = format!("{}/{}/{}/{}/{}", self.stream, self.created_ms, self.shard, self.next_index, self.issued_ms);
        base64_simd::URL_SAFE_NO_PAD.encode_to_string(plain.as_bytes())
    }

    fn open(sealed: &str) -> Option<Self> {
        let plain = String::from_utf8(base64_simd::URL_SAFE_NO_PAD.decode_to_vec(sealed).ok()?).ok()?;
        let mut parts = plain.split('/');
        let stream = parts.next()?.to_owned();
        let mut number = || parts.next()?.parse::<u64>().ok();
        let (created_ms, shard, next_index, issued_ms) = (number()?, number()? as u32, number()?, number()?);
        Some(Self { stream, created_ms, shard, next_index, issued_ms })
    }
}

/// Where a reader starts that gives `kind` and its parameters: of GetShardIterator, and of SubscribeToShard's
/// StartingPosition, which names its members otherwise.
pub fn start_index(stream: &Stream, shard: &Shard, kind: &str, sequence: &Value, at: &Value) -> Result<u64, ApiError> {
    let index_of = || {
        let digits = sequence.as_str().ok_or_else(|| ApiError::new(400, "InvalidArgumentException", "the sequence number is missing"))?;
        stream.index_of(shard, digits)
    };
    let tip = shard.records.back().map_or(shard.first_index, |r| r.index + 1);
    match kind {
        "TRIM_HORIZON" => Ok(0),
        "LATEST" => Ok(tip),
        "AT_SEQUENCE_NUMBER" => index_of(),
        "AFTER_SEQUENCE_NUMBER" => index_of().map(|i| i + 1),
        "AT_TIMESTAMP" => {
            let at_ms = timestamp_ms(at).ok_or_else(|| ApiError::invalid("Timestamp is missing"))?;
            let offset = shard.records.partition_point(|r| r.arrival_ms < at_ms);
            Ok(shard.records.get(offset).map_or(tip, |r| r.index))
        }
        other => Err(ApiError::invalid(format!("ShardIteratorType {other} is unknown"))),
    }
}

/// GetShardIterator's answer.
pub fn iterator(name: &str, stream: &Stream, input: &Value, now_ms: u64) -> Result<String, ApiError> {
    let shard = stream.find(text(input, "ShardId")?)?;
    let kind = text(input, "ShardIteratorType")?;
    let next_index = start_index(stream, shard, kind, &input["StartingSequenceNumber"], &input["Timestamp"])?;
    Ok(Iterator { stream: name.to_owned(), created_ms: stream.created_ms, shard: shard.number, next_index, issued_ms: now_ms }.seal())
}

/// What one read found, still to be written as JSON outside the lock.
pub struct Answer {
    pub records: Vec<Stored>,
    pub behind_ms: u64,
    /// `None` at the end of a closed shard.
    pub next: Option<String>,
    /// The ChildShards member, empty unless at the end.
    pub children: String,
}

/// Up to `limit` records and 10 MB of `shard` from `next_index` on, and the index to go on from.
pub fn collect(shard: &Shard, next_index: u64, limit: u64, now_ms: u64) -> (Vec<Stored>, u64, u64) {
    let (mut records, mut bytes) = (Vec::new(), 0);
    for record in shard.records.range(shard.offset(next_index)..) {
        bytes += record.data.len() + record.partition_key.len();
        if records.len() as u64 >= limit || bytes > MAX_ANSWER_BYTES && !records.is_empty() {
            break;
        }
        records.push(record.clone());
    }
    let next_index = records.last().map_or(next_index, |r| r.index + 1);
    let behind_ms = shard.records.get(shard.offset(next_index)).map_or(0, |r| now_ms.saturating_sub(r.arrival_ms).max(1));
    (records, next_index, behind_ms)
}

/// The `ChildShards` member with a leading comma.
pub fn children(stream: &Stream, shard: &Shard) -> String {
    let one = |number: &u32| {
        let child = &stream.shards[*number as usize];
        let parents: Vec<_> = child.parents.iter().map(|p| format!("\"{}\"", stream.shards[*p as usize].id)).collect();
        let (low, high) = child.range;
        format!(
            r#"{{"ShardId":"{}","ParentShards":[{}],"HashKeyRange":{{"StartingHashKey":"{low}","EndingHashKey":"{high}"}}}}"#,
            child.id,
            parents.join(",")
        )
    };
    format!(",\"ChildShards\":[{}]", shard.children.iter().map(one).collect::<Vec<_>>().join(","))
}

/// The stream that an iterator belongs to, still unverified.
pub fn stream_of(input: &Value) -> Result<String, ApiError> {
    let sealed = text(input, "ShardIterator")?;
    Iterator::open(sealed).map(|i| i.stream).ok_or_else(|| ApiError::new(400, "InvalidArgumentException", "Invalid ShardIterator."))
}

/// GetRecords without its limits' bookkeeping of writes.
pub fn get(stream: &Stream, input: &Value, budgets: &mut Budgets, limits: &Limits, now_ms: u64) -> Result<Answer, ApiError> {
    let invalid = || ApiError::new(400, "InvalidArgumentException", "Invalid ShardIterator.");
    let at = Iterator::open(text(input, "ShardIterator")?).ok_or_else(invalid)?;
    if now_ms.saturating_sub(at.issued_ms) >= ITERATOR_LIFE_MS {
        let why = format!("Iterator expired. The iterator was created at time {} while right now it is {now_ms}", at.issued_ms);
        return Err(ApiError::new(400, "ExpiredIteratorException", why));
    }
    if at.created_ms != stream.created_ms {
        return Err(ApiError::not_found(format!("Shard of an earlier stream {} does not exist", at.stream)));
    }
    let shard = stream.shards.get(at.shard as usize).ok_or_else(invalid)?;
    let limit = input["Limit"].as_u64().unwrap_or(MAX_ANSWER_RECORDS);
    if limit == 0 || limit > MAX_ANSWER_RECORDS {
        return Err(ApiError::invalid(format!("Limit {limit} is not within 1 and {MAX_ANSWER_RECORDS}")));
    }
    budgets.admit(&at.stream, at.shard, limits, now_ms)?;
    let (records, next_index, behind_ms) = collect(shard, at.next_index, limit, now_ms);
    let bytes: usize = records.iter().map(|r| r.data.len() + r.partition_key.len()).sum();
    budgets.spend(&at.stream, at.shard, bytes);
    let finished = shard.is_finished(next_index);
    let next = (!finished).then(|| Iterator { next_index, issued_ms: now_ms, ..at }.seal());
    Ok(Answer { records, behind_ms, next, children: if finished { children(stream, shard) } else { String::new() } })
}

impl Answer {
    pub fn body(&self) -> Vec<u8> {
        let mut out = vec![b'{'];
        write_records(&mut out, &self.records);
        if let Some(next) = &self.next {
            let _ = write!(out, ",\"NextShardIterator\":\"{next}\"");
        }
        let _ = write!(out, "{},\"MillisBehindLatest\":{}}}", self.children, self.behind_ms);
        out
    }
}

/// What each shard may still give: 5 calls and 2 MB a second.
#[derive(Debug, Default)]
pub struct Budgets {
    shards: HashMap<(String, u32), Budget>,
}

#[derive(Debug)]
struct Budget {
    window_ms: u64,
    calls: u32,
    /// Negative: bytes to wait for.
    bytes: f64,
    filled_ms: u64,
}

impl Budgets {
    fn admit(&mut self, stream: &str, shard: u32, limits: &Limits, now_ms: u64) -> Result<(), ApiError> {
        let fresh = Budget { window_ms: now_ms, calls: 0, bytes: limits.read_bytes_per_s, filled_ms: now_ms };
        let budget = self.shards.entry((stream.to_owned(), shard)).or_insert(fresh);
        let earned = now_ms.saturating_sub(budget.filled_ms) as f64 / 1000.0 * limits.read_bytes_per_s;
        budget.bytes = (budget.bytes + earned).min(limits.read_bytes_per_s);
        budget.filled_ms = now_ms;
        if now_ms >= budget.window_ms + 1000 {
            (budget.window_ms, budget.calls) = (now_ms, 0);
        }
        budget.calls += 1;
        if budget.calls > limits.reads_per_s || budget.bytes < 0.0 {
            return Err(ApiError::throttled(format!("Rate exceeded for shard shardId-{shard:012} in stream {stream}")));
        }
        Ok(())
    }

    fn spend(&mut self, stream: &str, shard: u32, bytes: usize) {
        if let Some(budget) = self.shards.get_mut(&(stream.to_owned(), shard)) {
            // An answer of nearly 10 MB costs five seconds whatever was saved before.
            let saved = if bytes >= 9_500_000 { 0.0 } else { budget.bytes };
            budget.bytes = saved - bytes as f64;
        }
    }
}
