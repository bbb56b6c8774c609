//! What each rule costs, estimated from a sample of the events.
//!
//! In: one event in `SAMPLE`, timed rule by rule. Out: by rule, the time of all events since the last asking. Invariant: between the
//! samples no clock is read, and nothing is allocated once there is room for every rule.

use std::time::{Duration, Instant};

/// One event in so many is timed. A prime, so that batches of a round size don't always show the same place.
pub const SAMPLE: u32 = 127;

#[derive(Debug, Default)]
pub(super) struct Costs {
    /// Events since the last sample.
    since: u32,
    /// By rule.
    sampled: Vec<Duration>,
    fresh: bool,
}

/// Times the rules of one event, each from the end of the one before.
pub(super) struct Watch {
    at: Instant,
    /// What reading the clock takes by itself.
    clock: Duration,
}

impl Costs {
    /// For every `SAMPLE`th event; `rules` is how many there are.
    #[inline]
    pub fn watch(&mut self, rules: usize) -> Option<Watch> {
        if self.sampled.len() < rules {
            self.sampled.resize(rules, Duration::ZERO);
        }
        self.since += 1;
        if self.since < SAMPLE {
            return None;
        }
        self.since = 0;
        self.fresh = true;
        let first = Instant::now();
        let at = Instant::now();
        Some(Watch { at, clock: at - first })
    }

    pub fn add(&mut self, rule: u32, watch: &mut Watch) {
        let now = Instant::now();
        self.sampled[rule as usize] += (now - watch.at).saturating_sub(watch.clock);
        watch.at = now;
    }

    /// Rules and estimates, of those that were sampled.
    pub fn take(&mut self) -> Vec<(u32, Duration)> {
        if !std::mem::take(&mut self.fresh) {
            return Vec::new();
        }
        let cost = |(rule, sampled): (u32, &mut Duration)| (rule, std::mem::take(sampled) * SAMPLE);
        (0u32..).zip(&mut self.sampled).filter(|(_, sampled)| !sampled.is_zero()).map(cost).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_in_many_is_timed_and_stands_for_all() {
        let mut costs = Costs::default();
        let mut timed = 0;
        for _ in 0..3 * SAMPLE {
            let Some(mut watch) = costs.watch(4) else { continue };
            timed += 1;
            std::thread::sleep(Duration::from_millis(2));
            costs.add(3, &mut watch);
            costs.add(1, &mut watch);
        }
        assert_eq!(timed, 3);
        let told = costs.take();
        let slow = told.iter().find(|(rule, _)| *rule == 3).expect("the slow rule was timed").1;
        assert!(slow >= Duration::from_millis(6) * SAMPLE, "{told:?}");
        assert!(told.iter().all(|(rule, cost)| *rule == 3 || *cost < slow / 2), "{told:?}");
        assert_eq!(costs.take(), [], "told once");
    }
}
