//! How long a sink is left alone after a failure.
//!
//! In: failures with the service's own wishes, successes. Out: the next instant at which to try. Invariant: waits grow to a cap, are
//! spread by jitter, and are never shorter than the service asked for.

use std::time::Duration;

const FIRST_MS: u64 = 1_000;
const CAP_MS: u64 = 60_000;

#[derive(Debug)]
pub struct Backoff {
    failures: u32,
    random: u64,
}

impl Backoff {
    /// `seed`: different for every sink and process, so that they don't knock in step.
    pub fn new(seed: u64) -> Self {
        Self { failures: 0, random: seed | 1 }
    }

    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The wait before the next try, in milliseconds.
    pub fn failed(&mut self, wish: Option<Duration>) -> i64 {
        let span = FIRST_MS.saturating_mul(1 << self.failures.min(16)).min(CAP_MS);
        self.failures = self.failures.saturating_add(1);
        // Between half and all of the span.
        let wait = span / 2 + self.next_random() % (span / 2 + 1);
        let wish = wish.map_or(0, |w| u64::try_from(w.as_millis()).unwrap_or(CAP_MS));
        i64::try_from(wait.max(wish)).unwrap_or(i64::MAX)
    }

    /// Xorshift: spread is all that is asked of it.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_heed_the_service() {
        let mut backoff = Backoff::new(7);
        for span in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            let wait = backoff.failed(None);
            assert!((span / 2..=span).contains(&wait), "{wait} of {span}");
        }
        assert!(backoff.failed(Some(Duration::from_secs(300))) >= 300_000);
        backoff.succeeded();
        assert!(backoff.failed(None) <= 1_000);
    }
}
