//! Whether so much of a stream can't be decoded that a person should hear of it.
//!
//! In: the tally of each commit. Out: a sentence, once the share is over its bound. Invariant: the same sentence of the same tallies;
//! whoever tells it makes one alert an hour of it.

use std::collections::VecDeque;

use super::Tally;

/// The share is that of so long a time.
const WINDOW_MS: i64 = 300_000;
const SLICE_MS: i64 = 10_000;
const AGAIN_MS: i64 = 60_000;
/// One in so many, as in `deploy/prometheus/rules.yml`.
const SHARE: u64 = 1_000;
/// Fewer are a producer's slip: they are counted and kept, and the metric shows them.
const LEAST: u64 = 5;

#[derive(Debug, Default)]
pub struct Unreadable {
    /// Start of a slice, quarantined, read.
    slices: VecDeque<(i64, u64, u64)>,
    /// Not before this is it said again.
    quiet_until_ms: i64,
}

impl Unreadable {
    /// What to say now, if anything.
    pub fn note(&mut self, tally: &Tally, now_ms: i64) -> Option<String> {
        let slice = now_ms.div_euclid(SLICE_MS) * SLICE_MS;
        if self.slices.back().is_none_or(|(at, ..)| *at != slice) {
            self.slices.push_back((slice, 0, 0));
        }
        let (_, quarantined, read) = self.slices.back_mut()?;
        *quarantined += tally.quarantined;
        *read += tally.read();
        while self.slices.front().is_some_and(|(at, ..)| *at <= now_ms.saturating_sub(WINDOW_MS)) {
            self.slices.pop_front();
        }
        let (quarantined, read) = self.slices.iter().fold((0, 0), |sum, slice| (sum.0 + slice.1, sum.1 + slice.2));
        if tally.quarantined == 0 || quarantined < LEAST || quarantined * SHARE <= read || now_ms < self.quiet_until_ms {
            return None;
        }
        self.quiet_until_ms = now_ms.saturating_add(AGAIN_MS);
        Some(format!("{quarantined} of the last {read} events could not be decoded and are kept aside"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(quarantined: u64, unmatched: u64) -> Tally {
        Tally { quarantined, unmatched, ..Tally::default() }
    }

    #[test]
    fn a_share_and_a_least_number_make_it_worth_telling() {
        for (tallies, expected) in [
            (&[(0, 4, 0)][..], None),
            (&[(0, 5, 0)], Some("5 of the last 5 events could not be decoded and are kept aside")),
            (&[(0, 9, 9_991)], None),
            (&[(0, 11, 9_989)], Some("11 of the last 10000 events could not be decoded and are kept aside")),
            // A trickle over a day is not a rate.
            (&[(0, 4, 0), (300_000, 4, 0)], None),
            (&[(0, 4, 0), (290_000, 4, 0)], Some("8 of the last 8 events could not be decoded and are kept aside")),
            // Said a moment ago.
            (&[(0, 9, 0), (59_999, 9, 0)], None),
            (&[(0, 9, 0), (60_000, 9, 0)], Some("18 of the last 18 events could not be decoded and are kept aside")),
            // What went well since adds nothing to tell.
            (&[(0, 9, 0), (1_000, 0, 1)], None),
        ] {
            let mut rate = Unreadable::default();
            let said = tallies.iter().map(|(at, quarantined, unmatched)| rate.note(&tally(*quarantined, *unmatched), *at));
            assert_eq!(said.last().flatten().as_deref(), expected, "{tallies:?}");
        }
    }
}
