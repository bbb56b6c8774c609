//! One shard's reader: its place, and what to do about each failure.
//!
//! In: a grant. Out: batches until the shard's end. Invariant: the place moves only when a batch has been handed over.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_sdk_kinesis::types::Record as SdkRecord;
use tokio::sync::mpsc;

use super::{
    Mode, Shared,
    client::{Backoff, Failure, Resumed, convert},
};
use crate::{
    lease::{
        Grant, NoticeKind,
        shards::{self, ListError},
    },
    position::{Position, ShardId},
    source::{Batch, Reservation},
};

/// A stream keeps its records at least this long.
const LEAST_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// What a reader does after a failure.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask anew from the place, with whatever iterator there is.
    Again,
    /// The iterator is of no use.
    Renew,
    /// The shard is past.
    Over,
}

/// What an answer tells of the shard's tip.
pub struct Tip {
    /// How far the answer's end is behind it.
    pub behind_ms: Option<u64>,
    /// The answer knows of everything that was in the shard at this time, milliseconds since the epoch.
    pub asked_ms: i64,
}

impl Tip {
    fn unknown() -> Self {
        Self { behind_ms: None, asked_ms: now_ms() }
    }
}

/// Milliseconds since the epoch.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

pub struct Reader {
    pub shared: Arc<Shared>,
    pub stream: String,
    /// `shardId-…`
    pub name: String,
    shard: ShardId,
    counter: u64,
    pub place: Position,
    /// The place that reading resumed at, until the first records have shown whether it still exists.
    pub resume: Option<Position>,
    pub backoff: Backoff,
    out: mpsc::Sender<Batch>,
    /// When the shard's tip was last reached: within retention of that, nothing can have been lost.
    tip_seen: Option<Instant>,
    /// Raised since the last success, so that a lasting trouble is told once.
    raised: HashSet<NoticeKind>,
}

impl Reader {
    pub fn new(shared: Arc<Shared>, shard: &ShardId, grant: &Grant, out: mpsc::Sender<Batch>) -> Self {
        let (stream, name) = shards::split_id(shard);
        Self {
            shared,
            stream: stream.to_owned(),
            name: name.to_owned(),
            shard: shard.clone(),
            counter: grant.counter,
            place: grant.from.clone(),
            resume: Some(grant.from.clone()),
            backoff: Backoff::new(200, 10_000),
            out,
            tip_seen: None,
            raised: HashSet::new(),
        }
    }

    pub async fn run(mut self) -> ShardId {
        if self.hand_over(Vec::new(), Tip::unknown(), false, Reservation::default()).await.is_some() {
            match self.shared.config.mode {
                Mode::Polling => self.poll().await,
                Mode::FanOut => self.fan_out().await,
            }
        }
        self.shard
    }

    /// Bytes of the budget, with the wait for them counted.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        let (budget, queue) = (&self.shared.budget, &self.shared.meters.queue);
        let reservation = match budget.try_reserve(bytes) {
            Some(reservation) => reservation,
            None => {
                queue.waits.inc();
                budget.reserve(bytes).await
            }
        };
        queue.bytes.set(budget.used_bytes() as i64);
        reservation
    }

    /// Sends one answer's records on and moves the place. `None` when nobody listens.
    pub async fn hand_over(&mut self, sdk: Vec<SdkRecord>, tip: Tip, shard_end: bool, mut reservation: Reservation) -> Option<()> {
        let Tip { behind_ms, asked_ms } = tip;
        let (records, resumed) = convert(sdk, self.resume.as_ref());
        if resumed == Resumed::Missing && self.tip_seen.is_none_or(|seen| seen.elapsed() > LEAST_RETENTION / 2) {
            self.tell_of_gap(records.first().map_or(0, |r| r.approximate_arrival_ms));
        }
        if behind_ms == Some(0) {
            self.tip_seen = Some(Instant::now());
        }
        // At the tip with nothing found, whatever comes later is new.
        if resumed != Resumed::Pending || records.is_empty() && behind_ms == Some(0) {
            self.resume = None;
        }
        let bytes: usize = records.iter().map(|r| r.data.len()).sum();
        reservation.shrink(bytes);
        let queue = &self.shared.meters.queue;
        queue.bytes.set(self.shared.budget.used_bytes() as i64);
        queue.items.set((self.out.max_capacity() - self.out.capacity()) as i64);
        let through = if shard_end { Position::ShardEnd } else { records.last().map_or_else(|| self.place.clone(), |r| r.position.clone()) };
        let (shard, counter) = (self.shard.clone(), self.counter);
        let batch = Batch { shard, counter, records, through: through.clone(), millis_behind_latest: behind_ms, asked_ms, shard_end, reservation };
        self.out.send(batch).await.ok()?;
        self.place = through;
        Some(())
    }

    pub fn succeeded(&mut self) {
        self.backoff.reset();
        self.raised.clear();
    }

    fn raise_once(&mut self, kind: NoticeKind, message: String) {
        if self.raised.insert(kind) {
            self.shared.notices.raise(kind, &self.shard, message);
        }
    }

    fn tell_of_gap(&mut self, first_arrival_ms: u64) {
        self.shared.meters.past_retention.inc();
        let written = match &self.place {
            Position::After { sequence, .. } => sequence.written_s().map(|s| format!(", written at {}", utc(s * 1000))),
            _ => None,
        };
        let message = format!(
            "the checkpoint's record{} is no longer in the stream; reading goes on at {}, what lay between may be lost. Raise the stream's retention, \
             or look into why reading stood still.",
            written.unwrap_or_default(),
            utc(first_arrival_ms)
        );
        self.raise_once(NoticeKind::CheckpointPastRetention, message);
    }

    /// Counts, tells and waits as `failure` asks for.
    pub async fn recover(&mut self, failure: Failure) -> Next {
        let next = self.weigh(failure).await;
        if next == Next::Renew {
            // A position is asked for by its record, which comes again.
            self.resume = Some(self.place.clone());
        }
        next
    }

    async fn weigh(&mut self, failure: Failure) -> Next {
        tracing::debug!(shard = %self.shard, kind = failure.kind(), "{failure}");
        match failure {
            // The first one is renewed at once; a row of them must not become a busy loop.
            Failure::Expired => {
                let wait = self.backoff.next();
                tokio::time::sleep(wait.min(Duration::from_millis(200))).await;
                return Next::Renew;
            }
            Failure::Invalid(message) if matches!(self.place, Position::After { .. }) => {
                self.shared.meters.recreated.inc();
                let message = format!("the checkpoint is not of this stream ({message}): it was made anew, and is read from its beginning");
                self.raise_once(NoticeKind::StreamRecreated, message);
                self.place = Position::TrimHorizon;
                return Next::Renew;
            }
            Failure::NotFound(_) => return self.look_for_shard().await,
            Failure::Kms(_) => {
                self.raise_once(NoticeKind::KmsDenied, failure.to_string());
                self.slow_down().await;
            }
            Failure::Denied { .. } => {
                self.raise_once(NoticeKind::AccessDenied, failure.to_string());
                self.slow_down().await;
            }
            Failure::Throttled(_) | Failure::InUse(_) | Failure::Invalid(_) | Failure::Transient(_) => {
                tokio::time::sleep(self.backoff.next()).await;
            }
        }
        Next::Again
    }

    /// A person must act first: no use in asking often.
    async fn slow_down(&mut self) {
        let wait = self.backoff.next();
        tokio::time::sleep(wait.max(Duration::from_secs(1))).await;
    }

    /// The service knows no such shard: is it gone, or the whole stream?
    async fn look_for_shard(&mut self) -> Next {
        match shards::list(&self.shared.client, &self.stream).await {
            Err(ListError::Missing(_)) => {
                let message = format!("stream {} does not exist; it is waited for", self.stream);
                self.raise_once(NoticeKind::StreamMissing, message);
                self.slow_down().await;
                Next::Renew
            }
            Ok(listed) if listed.iter().all(|s| s.id != self.name) => {
                let message = format!("{} is gone from the stream: what was not read of it is lost", self.name);
                self.shared.meters.gone.inc();
                self.raise_once(NoticeKind::ShardGone, message);
                let _ = self.hand_over(Vec::new(), Tip::unknown(), true, Reservation::default()).await;
                Next::Over
            }
            Ok(_) | Err(_) => {
                tokio::time::sleep(self.backoff.next()).await;
                Next::Renew
            }
        }
    }
}

fn utc(ms: u64) -> String {
    jiff::Timestamp::from_millisecond(ms as i64).map(|t| t.to_string()).unwrap_or_default()
}
