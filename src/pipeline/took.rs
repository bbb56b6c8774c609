//! How long records took to decode and to match.
//!
//! In: the worker's clock, around each record and around one event in `SAMPLE`. Out: the shares, by batch. Invariant: a batch's shares
//! add up to what its records took; how they divide is an estimate, good over many batches.

use std::time::{Duration, Instant};

/// One event in so many is timed. Prime, and no divisor of the rules' own sample, so that the two seldom meet in one event.
const SAMPLE: u32 = 31;

/// Of one batch.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Took {
    pub decode: Duration,
    pub detect: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Stopwatch {
    /// Events since the last sample.
    since: u32,
    records: Duration,
    sampled: Duration,
}

/// Runs since an event's matching began; `clock` is what reading the clock takes by itself.
pub(super) struct Running {
    at: Instant,
    clock: Duration,
}

impl Stopwatch {
    pub fn record(&mut self, started: Instant) {
        self.records += started.elapsed();
    }

    /// For every `SAMPLE`th event.
    #[inline]
    pub fn event(&mut self) -> Option<Running> {
        self.since += 1;
        if self.since < SAMPLE {
            return None;
        }
        self.since = 0;
        let first = Instant::now();
        let at = Instant::now();
        Some(Running { at, clock: at - first })
    }

    pub fn judged(&mut self, running: &Running) {
        self.sampled += running.at.elapsed().saturating_sub(running.clock);
    }

    /// Since the last call.
    pub fn take(&mut self) -> Took {
        let records = std::mem::take(&mut self.records);
        let detect = (std::mem::take(&mut self.sampled) * SAMPLE).min(records);
        Took { decode: records - detect, detect }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_whole() {
        let mut watch = Stopwatch::default();
        let started = Instant::now();
        let sampled: Vec<_> = (0..SAMPLE * 3).filter_map(|_| watch.event()).collect();
        assert_eq!(sampled.len(), 3);
        std::thread::sleep(Duration::from_millis(2));
        sampled.iter().for_each(|running| watch.judged(running));
        watch.record(started);
        let Took { decode, detect } = watch.take();
        assert!(detect > Duration::ZERO && decode + detect >= Duration::from_millis(2) && decode + detect <= started.elapsed());
        assert_eq!(watch.take(), Took::default());
    }
}
