//! Faults on demand, and a clock that tests may push forward.
//!
//! In: rates and a seed. Out: what to do to one call. Invariant: with all rates 0 no call is touched.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::wire::ApiError;

/// What goes wrong, as shares of the reading calls (0 to 1). Writes are never touched, so that a test knows what is stored.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    pub seed: u64,
    /// 500 InternalFailure.
    pub error_rate: f64,
    pub throttle_rate: f64,
    /// The connection is closed without an answer.
    pub reset_rate: f64,
    /// GetRecords says that its iterator has expired.
    pub expired_rate: f64,
    pub delay_rate: f64,
    pub delay_ms: u64,
    /// Every read of records is refused for want of `kms:Decrypt`.
    pub kms_denied: bool,
}

/// What happens to one call.
pub enum Verdict {
    Answer,
    Fail(ApiError),
    Reset,
}

#[derive(Debug, Default)]
pub struct FaultState {
    faults: Faults,
    rolls: u64,
}

impl FaultState {
    pub fn set(&mut self, faults: Faults) {
        *self = Self { rolls: faults.seed, faults };
    }

    /// A number in 0..1 (splitmix64).
    fn roll(&mut self) -> f64 {
        self.rolls = self.rolls.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.rolls;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// The delay before, and the fate of, one call of `operation`.
    pub fn judge(&mut self, operation: &str) -> (Duration, Verdict) {
        let reads_records = matches!(operation, "GetRecords" | "SubscribeToShard");
        if !reads_records && !matches!(operation, "GetShardIterator" | "ListShards" | "DescribeStreamSummary") {
            return (Duration::ZERO, Verdict::Answer);
        }
        if self.faults.kms_denied && reads_records {
            let why = "User is not authorized to perform: kms:Decrypt on the stream's key";
            return (Duration::ZERO, Verdict::Fail(ApiError::new(400, "KMSAccessDeniedException", why)));
        }
        let delay_ms = if self.roll() < self.faults.delay_rate { (self.roll() * self.faults.delay_ms as f64) as u64 } else { 0 };
        let mut roll = self.roll();
        let mut within = |rate: f64| {
            let hit = (0.0..rate).contains(&roll);
            roll -= rate;
            hit
        };
        let verdict = if within(self.faults.error_rate) {
            Verdict::Fail(ApiError::new(500, "InternalFailure", "The request failed for an unknown reason"))
        } else if within(self.faults.throttle_rate) {
            Verdict::Fail(ApiError::throttled("Rate exceeded (injected)"))
        } else if within(self.faults.reset_rate) {
            Verdict::Reset
        } else if within(self.faults.expired_rate) && operation == "GetRecords" {
            Verdict::Fail(ApiError::new(400, "ExpiredIteratorException", "Iterator expired (injected)"))
        } else {
            Verdict::Answer
        };
        (Duration::from_millis(delay_ms), verdict)
    }
}

/// The machine's time plus what tests have added.
#[derive(Debug, Default)]
pub struct Clock {
    ahead_ms: AtomicU64,
}

impl Clock {
    pub fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_millis() as u64 + self.ahead_ms.load(Ordering::Relaxed)
    }

    pub fn advance(&self, by: Duration) {
        self.ahead_ms.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
    }
}
