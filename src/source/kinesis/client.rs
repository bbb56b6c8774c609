//! The calls of one shard's reader, with every failure sorted by what to do about it.
//!
//! In: positions and iterators. Out: records, or a `Failure`. Invariant: a failure that a person must mend carries the words
//! for it.

use std::time::Duration;

use aws_sdk_kinesis::{
    Client,
    config::http::HttpResponse,
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
    operation::get_records::GetRecordsOutput,
    primitives::DateTime,
    types::{ShardIteratorType, StartingPosition},
};
use bytes::Bytes;

use crate::{
    position::{Position, SequenceNumber},
    source::Record,
};

/// The first bytes of a KPL aggregate.
const KPL_MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];

/// Why a call gave nothing, by what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("the iterator has expired")]
    Expired,
    #[error("throttled: {0}")]
    Throttled(String),
    #[error("not found: {0}")]
    NotFound(String),
    /// The position is not of this stream.
    #[error("invalid position: {0}")]
    Invalid(String),
    #[error("in use: {0}")]
    InUse(String),
    #[error("the stream's KMS key refuses to decrypt ({0}); allow the task role kms:Decrypt on it, in the role and in the key's policy")]
    Kms(String),
    #[error("{call} is refused ({message}); allow the task role kinesis:{call} on the stream")]
    Denied { call: &'static str, message: String },
    #[error("{0}")]
    Transient(String),
}

impl Failure {
    /// Sorts an SDK error of `call`.
    pub fn of<E>(call: &'static str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        Self::from_code(call, error.code(), error.message().unwrap_or_default(), || DisplayErrorContext(error).to_string())
    }

    pub fn from_code(call: &'static str, code: Option<&str>, message: &str, whole: impl FnOnce() -> String) -> Self {
        let message = || message.to_owned();
        match code.unwrap_or_default() {
            "ExpiredIteratorException" => Self::Expired,
            "ProvisionedThroughputExceededException" | "LimitExceededException" | "KMSThrottlingException" | "ThrottlingException" => {
                Self::Throttled(message())
            }
            "ResourceNotFoundException" => Self::NotFound(message()),
            "InvalidArgumentException" | "ValidationException" => Self::Invalid(message()),
            "ResourceInUseException" => Self::InUse(message()),
            "KMSAccessDeniedException" | "KMSDisabledException" | "KMSInvalidStateException" | "KMSNotFoundException" | "KMSOptInRequired" => {
                Self::Kms(format!("{}: {}", code.unwrap_or_default(), message()))
            }
            "AccessDeniedException" | "UnrecognizedClientException" | "InvalidSignatureException" | "ExpiredTokenException" => {
                Self::Denied { call, message: format!("{}: {}", code.unwrap_or_default(), message()) }
            }
            _ => Self::Transient(whole()),
        }
    }

    /// A name for counters.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Expired => "expired_iterator",
            Self::Throttled(_) => "throttled",
            Self::NotFound(_) => "not_found",
            Self::Invalid(_) => "invalid_position",
            Self::InUse(_) => "in_use",
            Self::Kms(_) => "kms",
            Self::Denied { .. } => "denied",
            Self::Transient(_) => "transient",
        }
    }
}

/// How a position is asked for. A record's own position is asked *at*, not behind: whether it is still there tells whether
/// anything behind it may be lost, and an aggregate may be past only in part.
fn starting(position: &Position) -> (ShardIteratorType, Option<&SequenceNumber>, Option<DateTime>) {
    match position {
        Position::TrimHorizon => (ShardIteratorType::TrimHorizon, None, None),
        Position::Latest | Position::ShardEnd => (ShardIteratorType::Latest, None, None),
        Position::AtTimestamp(ms) => (ShardIteratorType::AtTimestamp, None, Some(DateTime::from_millis(*ms as i64))),
        Position::After { sequence, .. } => (ShardIteratorType::AtSequenceNumber, Some(sequence), None),
    }
}

pub async fn iterator(client: &Client, stream: &str, shard: &str, position: &Position) -> Result<String, Failure> {
    let (kind, sequence, at) = starting(position);
    let ask = client.get_shard_iterator().stream_name(stream).shard_id(shard).shard_iterator_type(kind);
    let ask = ask.set_starting_sequence_number(sequence.map(|s| s.as_str().to_owned())).set_timestamp(at);
    let answer = ask.send().await.map_err(|e| Failure::of("GetShardIterator", &e))?;
    answer.shard_iterator.ok_or_else(|| Failure::Transient("GetShardIterator gave no iterator".to_owned()))
}

/// SubscribeToShard's form of a position. `resumed`: the position is a continuation number, of which no record need exist.
pub fn starting_position(position: &Position, resumed: bool) -> StartingPosition {
    let (kind, sequence, at) = starting(position);
    let kind = if resumed && sequence.is_some() { ShardIteratorType::AfterSequenceNumber } else { kind };
    let builder = StartingPosition::builder().r#type(kind).set_sequence_number(sequence.map(|s| s.as_str().to_owned())).set_timestamp(at);
    builder.build().expect("the type is set")
}

pub async fn records(client: &Client, iterator: &str) -> Result<GetRecordsOutput, Failure> {
    client.get_records().shard_iterator(iterator).send().await.map_err(|e| Failure::of("GetRecords", &e))
}

/// What became of the record that a reader resumed at.
#[derive(Debug, PartialEq, Eq)]
pub enum Resumed {
    /// Nothing to look for, or nothing seen yet.
    Pending,
    Found,
    /// The first record is a later one: those between are lost, if there were any.
    Missing,
}

/// Turns the SDK's records into ours and drops what `resume` has past.
pub fn convert(sdk: Vec<aws_sdk_kinesis::types::Record>, resume: Option<&Position>) -> (Vec<Record>, Resumed) {
    let mut resumed = Resumed::Pending;
    let mut records = Vec::with_capacity(sdk.len());
    for record in sdk {
        let sequence = SequenceNumber::new(&record.sequence_number);
        let data = Bytes::from(record.data.into_inner());
        let mut past_sub_sequence = None;
        if let Some(Position::After { sequence: past, sub_sequence }) = resume {
            if resumed == Resumed::Pending {
                resumed = if sequence <= *past { Resumed::Found } else { Resumed::Missing };
            }
            if sequence == *past && data.starts_with(&KPL_MAGIC) {
                past_sub_sequence = Some(*sub_sequence);
            } else if sequence <= *past {
                continue;
            }
        }
        records.push(Record {
            data,
            position: Position::After { sequence, sub_sequence: 0 },
            approximate_arrival_ms: record.approximate_arrival_timestamp.and_then(|t| t.to_millis().ok()).map_or(0, |ms| ms.max(0) as u64),
            partition_key: record.partition_key.unwrap_or_default(),
            past_sub_sequence,
        });
    }
    (records, resumed)
}

/// Waits that double up to a bound, each drawn from its whole range so that readers don't march in step.
#[derive(Debug)]
pub struct Backoff {
    failures: u32,
    first_ms: u64,
    most_ms: u64,
}

impl Backoff {
    pub fn new(first_ms: u64, most_ms: u64) -> Self {
        Self { failures: 0, first_ms, most_ms }
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }

    pub fn next(&mut self) -> Duration {
        use std::hash::{BuildHasher as _, RandomState};
        let ceiling = (self.first_ms << self.failures.min(16)).min(self.most_ms);
        self.failures += 1;
        // A fresh RandomState has fresh keys: a random number without a generator of our own.
        Duration::from_millis(ceiling / 4 + RandomState::new().hash_one(self.failures) % (ceiling - ceiling / 4).max(1))
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_kinesis::{primitives::Blob, types::Record as SdkRecord};

    use super::*;

    fn records(sequences: &[(u64, &[u8])]) -> Vec<SdkRecord> {
        let one = |(n, data): &(u64, &[u8])| SdkRecord::builder().sequence_number(n.to_string()).data(Blob::new(*data)).build().unwrap();
        sequences.iter().map(one).collect()
    }

    #[test]
    fn what_is_past_is_dropped_and_a_gap_is_seen() {
        let after = |n: u64, sub_sequence| Position::After { sequence: SequenceNumber::new(&n.to_string()), sub_sequence };
        let kpl: &[u8] = &[0xf3, 0x89, 0x9a, 0xc2, 1];
        for (sdk, resume, expected, resumed) in [
            (vec![(7, &b"a"[..]), (8, b"b")], None, vec![(7, None), (8, None)], Resumed::Pending),
            (vec![(7, b"a"), (8, b"b")], Some(after(7, 0)), vec![(8, None)], Resumed::Found),
            (vec![(7, kpl), (8, b"b")], Some(after(7, 3)), vec![(7, Some(3)), (8, None)], Resumed::Found),
            (vec![(9, b"a")], Some(after(7, 0)), vec![(9, None)], Resumed::Missing),
            (vec![], Some(after(7, 0)), vec![], Resumed::Pending),
            (vec![(9, b"a")], Some(Position::TrimHorizon), vec![(9, None)], Resumed::Pending),
        ] {
            let (got, seen) = convert(records(&sdk), resume.as_ref());
            let expected: Vec<_> = expected.into_iter().map(|(n, past)| (after(n, 0), past)).collect();
            assert_eq!(got.into_iter().map(|r| (r.position, r.past_sub_sequence)).collect::<Vec<_>>(), expected);
            assert_eq!(seen, resumed);
        }
    }

    #[test]
    fn backoff_grows_to_its_bound() {
        let mut backoff = Backoff::new(100, 1000);
        for ceiling in [100, 200, 400, 800, 1000, 1000] {
            let ms = backoff.next().as_millis() as u64;
            assert!((ceiling / 4..ceiling).contains(&ms), "{ms} of {ceiling}");
        }
    }
}
