//! A lease as the Kinesis Client Library 3.x keeps it in DynamoDB.
//!
//! In: items of the lease table. Out: `Row`s, and items as the library writes them. Invariant: an item that is not a lease
//! (the coordinator's and the workers' rows of newer layouts) is left alone.

use std::collections::HashMap;

use aws_sdk_dynamodb::{error::DisplayErrorContext, types::AttributeValue};

use super::table::TableError;
use crate::position::{Position, SequenceNumber};

pub type Item = HashMap<String, AttributeValue>;

/// When reading a stream from LATEST began: an attribute of our own beside the library's, which has no place for it. It
/// keeps a lease that changes hands before its first commit from losing what came in between.
const START_MS: &str = "trailwardenStartMs";

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row {
    /// `shardId-…`, or `account:stream:epoch:shardId-…` where an application reads several streams.
    pub key: String,
    /// The worker that reads, or during a hand-over the one that will.
    pub owner: Option<String>,
    /// During a hand-over the worker that still reads.
    pub checkpoint_owner: Option<String>,
    pub counter: u64,
    pub checkpoint: Option<Position>,
    pub owner_switches: u64,
    pub parents: Vec<String>,
    pub children: Vec<String>,
    pub range: Option<(u128, u128)>,
    pub throughput_kbps: Option<f64>,
    pub start_ms: Option<u64>,
}

fn text<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

fn number<T: std::str::FromStr>(item: &Item, name: &str) -> Option<T> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

fn texts(item: &Item, name: &str) -> Vec<String> {
    item.get(name).and_then(|v| v.as_ss().ok()).cloned().unwrap_or_default()
}

pub fn s(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

pub fn n(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// The library's text and sub-sequence number of a position.
pub fn checkpoint_text(position: &Position) -> (String, u64) {
    match position {
        Position::TrimHorizon => ("TRIM_HORIZON".to_owned(), 0),
        // The library takes a timestamp from its configuration only; ours stands in START_MS.
        Position::Latest | Position::AtTimestamp(_) => ("LATEST".to_owned(), 0),
        Position::ShardEnd => ("SHARD_END".to_owned(), 0),
        Position::After { sequence, sub_sequence } => (sequence.as_str().to_owned(), *sub_sequence),
    }
}

fn position(text: &str, sub_sequence: u64, start_ms: Option<u64>) -> Option<Position> {
    Some(match (text, start_ms) {
        ("TRIM_HORIZON", _) => Position::TrimHorizon,
        ("LATEST" | "AT_TIMESTAMP", Some(ms)) => Position::AtTimestamp(ms),
        ("LATEST" | "AT_TIMESTAMP", None) => Position::Latest,
        ("SHARD_END", _) => Position::ShardEnd,
        (digits, _) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            Position::After { sequence: SequenceNumber::new(digits), sub_sequence }
        }
        _ => return None,
    })
}

impl Row {
    /// `None` where the item is not a lease.
    pub fn from_item(item: &Item) -> Option<Self> {
        let start_ms = number(item, START_MS);
        let checkpoint = position(text(item, "checkpoint")?, number(item, "checkpointSubSequenceNumber").unwrap_or(0), start_ms)?;
        let hash_key = |name| text(item, name).and_then(|t| t.parse().ok());
        Some(Self {
            key: text(item, "leaseKey")?.to_owned(),
            owner: text(item, "leaseOwner").map(str::to_owned),
            checkpoint_owner: text(item, "checkpointOwner").map(str::to_owned),
            counter: number(item, "leaseCounter")?,
            checkpoint: Some(checkpoint),
            owner_switches: number(item, "ownerSwitchesSinceCheckpoint").unwrap_or(0),
            parents: texts(item, "parentShardId"),
            children: texts(item, "childShardIds"),
            range: hash_key("startingHashKey").zip(hash_key("endingHashKey")),
            throughput_kbps: number(item, "throughputKBps"),
            start_ms,
        })
    }

    /// A new lease's item. `stream`: the serialized name of the stream, where an application reads several.
    pub fn to_item(&self, stream: Option<&str>) -> Item {
        let (checkpoint, sub_sequence) = checkpoint_text(self.position());
        let mut item = Item::from([
            ("leaseKey".to_owned(), s(&self.key)),
            ("leaseCounter".to_owned(), n(self.counter)),
            ("ownerSwitchesSinceCheckpoint".to_owned(), n(self.owner_switches)),
            ("checkpoint".to_owned(), s(checkpoint)),
            ("checkpointSubSequenceNumber".to_owned(), n(sub_sequence)),
        ]);
        let mut put = |name: &str, value| drop(item.insert(name.to_owned(), value));
        if !self.parents.is_empty() {
            put("parentShardId", AttributeValue::Ss(self.parents.clone()));
        }
        if let Some((low, high)) = self.range {
            put("startingHashKey", s(low.to_string()));
            put("endingHashKey", s(high.to_string()));
        }
        if let Position::AtTimestamp(ms) = self.position() {
            put(START_MS, n(ms));
        }
        if let Some(stream) = stream {
            put("streamName", s(stream));
            put("shardId", s(self.shard()));
        }
        item
    }

    /// `shardId-…`
    pub fn shard(&self) -> &str {
        self.key.rsplit_once(':').map_or(&self.key, |(_, shard)| shard)
    }

    pub fn position(&self) -> &Position {
        self.checkpoint.as_ref().unwrap_or(&Position::TrimHorizon)
    }

    /// The worker that may read and commit now.
    pub fn reader(&self) -> Option<&str> {
        self.checkpoint_owner.as_deref().or(self.owner.as_deref())
    }

    pub fn is_finished(&self) -> bool {
        *self.position() == Position::ShardEnd
    }
}

/// How lease keys name shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Naming {
    /// One stream: the key is the shard's id.
    Single(String),
    /// Several: by the serialized name `account:stream:epoch`.
    Multi(Vec<(String, String)>),
}

impl Naming {
    /// One stream needs no lookup; of several each is named with its account and the second of its creation.
    pub async fn resolve(kinesis: &aws_sdk_kinesis::Client, streams: &[String]) -> Result<Self, TableError> {
        if let [stream] = streams {
            return Ok(Self::Single(stream.clone()));
        }
        let mut all = Vec::new();
        for stream in streams {
            let failed = |message: String| TableError::Failed { call: "DescribeStreamSummary", table: stream.clone(), message };
            let answer = kinesis.describe_stream_summary().stream_name(stream).send().await;
            let answer = answer.map_err(|e| failed(DisplayErrorContext(&e).to_string()))?;
            let summary = answer.stream_description_summary.ok_or_else(|| failed("no summary".to_owned()))?;
            let account = summary.stream_arn.split(':').nth(4).unwrap_or_default();
            all.push((stream.clone(), format!("{account}:{stream}:{}", summary.stream_creation_timestamp.secs())));
        }
        Ok(Self::Multi(all))
    }

    /// The stream's name and its serialized form (`None` for one stream).
    pub fn streams(&self) -> Vec<(&str, Option<&str>)> {
        match self {
            Self::Single(stream) => vec![(stream, None)],
            Self::Multi(all) => all.iter().map(|(stream, serialized)| (stream.as_str(), Some(serialized.as_str()))).collect(),
        }
    }

    /// The stream that a key belongs to, if it is one of ours.
    pub fn stream_of(&self, key: &str) -> Option<&str> {
        match self {
            Self::Single(stream) => (!key.contains(':')).then_some(stream),
            Self::Multi(all) => {
                let (serialized, _) = key.rsplit_once(':')?;
                all.iter().find(|(_, s)| s == serialized).map(|(stream, _)| stream.as_str())
            }
        }
    }

    pub fn key(&self, serialized: Option<&str>, shard: &str) -> String {
        serialized.map_or_else(|| shard.to_owned(), |stream| format!("{stream}:{shard}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_keep_their_form() {
        let after = Position::After { sequence: SequenceNumber::new("49590338271490256608559692538361571095921575989136588898"), sub_sequence: 3 };
        for (checkpoint, stream) in [
            (Position::TrimHorizon, None),
            (Position::Latest, None),
            (Position::AtTimestamp(5), None),
            (Position::ShardEnd, None),
            (after, Some("123456789012:s:1700000000")),
        ] {
            let key = stream.map_or("shardId-000000000001".to_owned(), |s| format!("{s}:shardId-000000000001"));
            let start_ms = if let Position::AtTimestamp(ms) = checkpoint { Some(ms) } else { None };
            let parents = vec!["shardId-000000000000".to_owned()];
            let row = Row { key, checkpoint: Some(checkpoint), parents, range: Some((7, u128::MAX)), start_ms, ..Row::default() };
            let item = row.to_item(stream);
            assert_eq!(item["leaseCounter"], n(0));
            assert_eq!(item.contains_key("shardId"), stream.is_some());
            assert_eq!(Row::from_item(&item), Some(row));
        }
    }

    #[test]
    fn other_entities_are_no_leases() {
        for item in [
            vec![("leaseKey", s("Leader")), ("entityType", s("COORDINATOR_STATE")), ("ownerName", s("w"))],
            vec![("leaseKey", s("worker")), ("entityType", s("WORKER_METRIC_STATS")), ("lut", n(5))],
            vec![("leaseKey", s("k")), ("leaseCounter", n(1)), ("checkpoint", s("WHO KNOWS"))],
            vec![("leaseKey", s("k")), ("checkpoint", s("LATEST"))],
        ] {
            let item = item.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            assert_eq!(Row::from_item(&item), None, "{item:?}");
        }
    }

    #[test]
    fn keys_belong_to_their_stream() {
        let single = Naming::Single("s".to_owned());
        let multi = Naming::Multi(vec![("a".to_owned(), "1:a:7".to_owned()), ("b".to_owned(), "1:b:8".to_owned())]);
        for (naming, key, expected) in [
            (&single, "shardId-1", Some("s")),
            (&single, "1:a:7:shardId-1", None),
            (&multi, "1:b:8:shardId-1", Some("b")),
            (&multi, "1:b:9:shardId-1", None),
            (&multi, "shardId-1", None),
        ] {
            assert_eq!(naming.stream_of(key), expected, "{key}");
        }
        assert_eq!(multi.key(Some("1:a:7"), "shardId-1"), "1:a:7:shardId-1");
    }
}
