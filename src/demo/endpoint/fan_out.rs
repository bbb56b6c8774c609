//! SubscribeToShard: records pushed over one long answer.
//!
//! In: a consumer, a shard, a position. Out: event-stream frames for at most five minutes. Invariant: of a consumer and a
//! shard only the newest subscription is served.

use std::{io::Write as _, sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    Shared,
    read::{children, collect, start_index},
    wire::{ApiError, event, exception, text, write_records},
};

const LIFE_MS: u64 = 300_000;
/// A second subscription within this time is refused.
const REFUSE_MS: u64 = 5_000;
/// An idle subscription says so this often.
const IDLE: Duration = Duration::from_secs(2);
const MAX_EVENT_BYTES: usize = 1 << 20;
const MAX_EVENT_RECORDS: u64 = 10_000;

/// A granted subscription.
pub struct Subscription {
    stream: String,
    created_ms: u64,
    consumer: String,
    shard: u32,
    generation: u64,
    next_index: u64,
    until_ms: u64,
}

/// The stream and the consumer that an ARN `…:stream/NAME/consumer/CONSUMER:TIME` names.
pub fn names_in(arn: &str) -> Option<(&str, &str)> {
    let (stream, consumer) = arn.split_once(":stream/")?.1.split_once("/consumer/")?;
    Some((stream, consumer.split(':').next()?))
}

pub fn subscribe(shared: &Shared, input: &Value) -> Result<Subscription, ApiError> {
    let arn = text(input, "ConsumerARN")?;
    let unknown = || ApiError::not_found(format!("Consumer {arn} does not exist"));
    let (name, consumer) = names_in(arn).ok_or_else(unknown)?;
    let now_ms = shared.clock.now_ms();
    let mut streams = shared.streams.lock().expect("no holder panics");
    let stream = streams.get_mut(name).ok_or_else(unknown)?;
    let shard = stream.find(text(input, "ShardId")?)?;
    let position = &input["StartingPosition"];
    let (number, kind) = (shard.number, text(position, "Type")?);
    let next_index = start_index(stream, shard, kind, &position["SequenceNumber"], &position["Timestamp"])?;
    let (created_ms, generation) = (stream.created_ms, shared.next_number());
    let entry = stream.consumers.get_mut(consumer).filter(|c| c.arn == arn).ok_or_else(unknown)?;
    if let Some((since_ms, _)) = entry.subscriptions.get(&number)
        && now_ms.saturating_sub(*since_ms) < REFUSE_MS
    {
        let why = format!("Another active subscription exists for this consumer: {arn}");
        return Err(ApiError::new(400, "ResourceInUseException", why));
    }
    entry.subscriptions.insert(number, (now_ms, generation));
    let (stream, consumer) = (name.to_owned(), consumer.to_owned());
    Ok(Subscription { stream, created_ms, consumer, shard: number, generation, next_index, until_ms: now_ms + LIFE_MS })
}

/// One turn's outcome.
enum Turn {
    Push { frame: Vec<u8>, bytes: usize },
    Idle { frame: Vec<u8> },
    Last { frame: Vec<u8> },
    Over,
}

impl Subscription {
    fn turn(&mut self, shared: &Shared) -> Turn {
        let now_ms = shared.clock.now_ms();
        let (records, behind_ms, ended, continuation) = {
            let streams = shared.streams.lock().expect("no holder panics");
            let Some(stream) = streams.get(&self.stream).filter(|s| s.created_ms == self.created_ms) else {
                return Turn::Last { frame: exception(&ApiError::not_found(format!("Stream {} does not exist", self.stream))) };
            };
            let newest = stream.consumers.get(&self.consumer).and_then(|c| c.subscriptions.get(&self.shard));
            if newest.is_none_or(|(_, generation)| *generation != self.generation) {
                return Turn::Last { frame: exception(&ApiError::new(400, "ResourceInUseException", "Another subscription took over")) };
            }
            if now_ms >= self.until_ms {
                return Turn::Over;
            }
            let shard = &stream.shards[self.shard as usize];
            let mut records = collect(shard, self.next_index, MAX_EVENT_RECORDS, now_ms).0;
            let mut bytes = 0;
            let fitting = records.iter().take_while(|r| (bytes == 0, bytes += r.data.len()).0 || bytes <= MAX_EVENT_BYTES).count();
            records.truncate(fitting);
            self.next_index = records.last().map_or(self.next_index, |r| r.index + 1);
            let behind_ms = shard.records.get(shard.offset(self.next_index)).map_or(0, |r| now_ms.saturating_sub(r.arrival_ms).max(1));
            let ended = shard.is_finished(self.next_index).then(|| children(stream, shard));
            let reached = self.next_index.saturating_sub(1).max(shard.first_index);
            let continuation = records.last().map_or_else(|| stream.sequence_at(shard, reached, now_ms), |r| r.sequence.clone());
            (records, behind_ms, ended, continuation)
        };
        let bytes = records.iter().map(|r| r.data.len()).sum();
        let mut body = vec![b'{'];
        write_records(&mut body, &records);
        match &ended {
            Some(children) => body.extend_from_slice(children.as_bytes()),
            None => drop(write!(body, ",\"ContinuationSequenceNumber\":\"{continuation}\"")),
        }
        let _ = write!(body, ",\"MillisBehindLatest\":{behind_ms}}}");
        let frame = event("SubscribeToShardEvent", &body);
        match (ended.is_some(), records.is_empty()) {
            (true, _) => Turn::Last { frame },
            (false, true) => Turn::Idle { frame },
            (false, false) => Turn::Push { frame, bytes },
        }
    }

    /// Pushes until the end; returns early when the reader has gone.
    pub async fn run(mut self, shared: Arc<Shared>, out: mpsc::Sender<Bytes>) {
        if out.send(event("initial-response", b"{}").into()).await.is_err() {
            return;
        }
        let mut quiet_since = tokio::time::Instant::now() - IDLE;
        loop {
            let stored = shared.stored.notified();
            let (frame, pause, last) = match self.turn(&shared) {
                Turn::Over => return,
                Turn::Last { frame } => (frame, Duration::ZERO, true),
                Turn::Push { frame, bytes } => (frame, Duration::from_secs_f64(bytes as f64 / shared.limits.read_bytes_per_s), false),
                Turn::Idle { .. } if quiet_since.elapsed() < IDLE => {
                    let _ = tokio::time::timeout(Duration::from_millis(100), stored).await;
                    if out.is_closed() {
                        return;
                    }
                    continue;
                }
                Turn::Idle { frame } => (frame, Duration::ZERO, false),
            };
            quiet_since = tokio::time::Instant::now();
            if out.send(frame.into()).await.is_err() || last {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    }
}
