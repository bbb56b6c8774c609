//! Enhanced fan-out: records pushed over a subscription that is renewed every five minutes.
//!
//! In: a reader's place. Out: batches. Invariant: at most one event of a shard is held besides what the budget covers, for
//! the next is taken off the connection only when the last has been handed over.

use std::time::Duration;

use aws_sdk_kinesis::{
    error::{DisplayErrorContext, ProvideErrorMetadata as _},
    types::{ConsumerStatus, SubscribeToShardEventStream},
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    Shared,
    client::{Backoff, Failure, starting_position},
    counted,
    shard::{Next, Reader, Tip, now_ms},
};
use crate::position::{Position, SequenceNumber};

/// The service sends an event at least every five seconds; silence for longer is a dead connection.
const SILENCE: Duration = Duration::from_secs(30);
/// A subscription is refused within this time of the last one.
const REFUSED: Duration = Duration::from_secs(5);
const ACTIVATION_CHECK: Duration = Duration::from_millis(500);
const ACTIVATION_CHECKS: u32 = 240;

/// How a subscription ended.
enum Ended {
    /// The shard is past, or nobody listens.
    Over,
    /// Renew from the place.
    Renew,
    Failed(Failure),
}

impl Reader {
    pub async fn fan_out(&mut self) {
        // Where the last subscription stood, which may be behind no record at all.
        let mut continuation: Option<SequenceNumber> = None;
        // A worker that was killed leaves a subscription behind, which gives way within five seconds of its making.
        let mut refused_wait = Backoff::new(800, 800);
        loop {
            let since = Instant::now();
            let failure = match self.subscribe(&mut continuation).await {
                Ended::Over => return,
                Ended::Renew => {
                    // One that ends young was cut: the service refuses the next until five seconds have passed.
                    sleep(REFUSED.saturating_sub(since.elapsed())).await;
                    continue;
                }
                Ended::Failed(Failure::InUse(_)) => {
                    let refused = Failure::InUse("another subscription of this consumer and shard".to_owned());
                    tracing::debug!(shard = self.name, "{refused}");
                    sleep(refused_wait.next()).await;
                    continue;
                }
                Ended::Failed(failure) => failure,
            };
            if matches!(failure, Failure::NotFound(_)) {
                self.forget_consumer().await;
            }
            match self.recover(failure).await {
                Next::Again => {}
                Next::Renew => continuation = None,
                Next::Over => return,
            }
        }
    }

    /// One subscription from its request to its end.
    async fn subscribe(&mut self, continuation: &mut Option<SequenceNumber>) -> Ended {
        let arn = match self.consumer().await {
            Ok(arn) => arn,
            Err(failure) => return Ended::Failed(failure),
        };
        let from = match continuation {
            Some(sequence) => starting_position(&Position::After { sequence: sequence.clone(), sub_sequence: 0 }, true),
            None => starting_position(&self.place, false),
        };
        let ask = self.shared.client.subscribe_to_shard().consumer_arn(arn).shard_id(&self.name).starting_position(from);
        let answer = ask.send().await.map_err(|e| Failure::of("SubscribeToShard", &e));
        let mut events = match counted(&self.shared.meters.subscribe, answer) {
            Ok(answer) => answer.event_stream,
            Err(failure) => return Ended::Failed(failure),
        };
        tracing::debug!(shard = self.name, ?continuation, "subscribed");
        // An event was made after the one before it, which is the nearest to its time that is known here.
        let mut asked_ms = now_ms();
        loop {
            let event = match timeout(SILENCE, events.recv()).await {
                Err(_) => return Ended::Failed(Failure::Transient(format!("no event for {SILENCE:?}"))),
                Ok(Ok(Some(SubscribeToShardEventStream::SubscribeToShardEvent(event)))) => event,
                Ok(Ok(Some(_))) => continue,
                Ok(Ok(None)) => return Ended::Renew,
                Ok(Err(error)) => {
                    let whole = || DisplayErrorContext(&error).to_string();
                    return Ended::Failed(Failure::from_code("SubscribeToShard", error.code(), error.message().unwrap_or_default(), whole));
                }
            };
            self.succeeded();
            let before_ms = std::mem::replace(&mut asked_ms, now_ms());
            let shard_end = event.child_shards.as_ref().is_some_and(|c| !c.is_empty());
            let bytes = event.records.iter().map(|r| r.data.as_ref().len()).sum();
            let reservation = self.reserve(bytes).await;
            let tip = Tip { behind_ms: Some(event.millis_behind_latest.max(0) as u64), asked_ms: before_ms };
            if self.hand_over(event.records, tip, shard_end, reservation).await.is_none() || shard_end {
                return Ended::Over;
            }
            if !event.continuation_sequence_number.is_empty() {
                *continuation = Some(SequenceNumber::new(&event.continuation_sequence_number));
            }
        }
    }

    /// The consumer's ARN, registered once a stream.
    async fn consumer(&self) -> Result<String, Failure> {
        let known = self.shared.consumers.get(&self.stream);
        let mut known = known.ok_or_else(|| Failure::Transient(format!("stream {} is not configured", self.stream)))?.lock().await;
        if known.is_none() {
            *known = Some(register(&self.shared, &self.stream).await?);
        }
        Ok(known.clone().unwrap_or_default())
    }

    /// The consumer or its stream may have been made anew: its ARN is looked up again.
    async fn forget_consumer(&self) {
        if let Some(known) = self.shared.consumers.get(&self.stream) {
            *known.lock().await = None;
        }
    }
}

/// Finds or registers the consumer and waits until it is active.
async fn register(shared: &Shared, stream: &str) -> Result<String, Failure> {
    let (client, name) = (&shared.client, &shared.config.fan_out_consumer);
    let summary = client.describe_stream_summary().stream_name(stream).send().await;
    let summary = summary.map_err(|e| Failure::of("DescribeStreamSummary", &e))?.stream_description_summary;
    let stream_arn = summary.ok_or_else(|| Failure::Transient("no stream summary".to_owned()))?.stream_arn;
    match client.register_stream_consumer().stream_arn(&stream_arn).consumer_name(name).send().await {
        Ok(_) => tracing::info!(stream, consumer = name, "registered for enhanced fan-out"),
        Err(error) => match Failure::of("RegisterStreamConsumer", &error) {
            Failure::InUse(_) => {}
            other => return Err(other),
        },
    }
    for _ in 0..ACTIVATION_CHECKS {
        let answer = client.describe_stream_consumer().stream_arn(&stream_arn).consumer_name(name).send().await;
        let found = answer.map_err(|e| Failure::of("DescribeStreamConsumer", &e))?.consumer_description;
        if let Some(found) = found.filter(|c| c.consumer_status == ConsumerStatus::Active) {
            return Ok(found.consumer_arn);
        }
        sleep(ACTIVATION_CHECK).await;
    }
    Err(Failure::Transient(format!("consumer {name} of {stream} does not become active")))
}
