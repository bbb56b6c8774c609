//! Values over time, to find the lower after the higher.
//!
//! In: (time, value) in any order. Out: the first time in a range whose value lies below an earlier one of the span.
//! Invariant: only strictly earlier times count, so two values of one millisecond are no drop.

/// A block is split in two at this length.
const BLOCK: usize = 128;

/// All values of one time: their extremes are all that matters.
#[derive(Debug, Clone, Copy)]
struct Point {
    time_ms: i64,
    low: i128,
    high: i128,
}

#[derive(Debug, Default)]
struct Block {
    points: Vec<Point>,
    high: i128,
}

impl Block {
    fn new(points: Vec<Point>) -> Self {
        let high = points.iter().map(|p| p.high).max().unwrap_or(i128::MIN);
        Self { points, high }
    }
}

#[derive(Debug, Default)]
pub struct Drops {
    blocks: Vec<Block>,
    len: usize,
}

impl Drops {
    pub fn insert(&mut self, time_ms: i64, value: i128) {
        if self.blocks.is_empty() {
            self.blocks.push(Block::new(Vec::new()));
        }
        let at = self.blocks.partition_point(|b| b.points.first().is_some_and(|p| p.time_ms <= time_ms)).saturating_sub(1);
        let block = &mut self.blocks[at];
        match block.points.binary_search_by_key(&time_ms, |p| p.time_ms) {
            Ok(i) => {
                block.points[i].low = block.points[i].low.min(value);
                block.points[i].high = block.points[i].high.max(value);
            }
            Err(i) => {
                block.points.insert(i, Point { time_ms, low: value, high: value });
                self.len += 1;
            }
        }
        block.high = block.high.max(value);
        if block.points.len() > BLOCK {
            let upper = Block::new(block.points.split_off(BLOCK / 2));
            *block = Block::new(std::mem::take(&mut block.points));
            self.blocks.insert(at + 1, upper);
        }
    }

    /// The first time within `from..=until` that has a higher value in the span before it.
    pub fn first_drop(&self, span_ms: i64, from: i64, until: i64) -> Option<i64> {
        let points = self.blocks.iter().skip_while(|b| b.points.last().is_some_and(|p| p.time_ms < from)).flat_map(|b| &b.points);
        points
            .skip_while(|p| p.time_ms < from)
            .take_while(|p| p.time_ms <= until)
            .find(|p| self.highest(p.time_ms.saturating_sub(span_ms), p.time_ms.saturating_sub(1)) > p.low)
            .map(|p| p.time_ms)
    }

    /// Highest value within `from..=until`; MIN if there is none.
    fn highest(&self, from: i64, until: i64) -> i128 {
        let mut high = i128::MIN;
        for block in &self.blocks {
            let (Some(first), Some(last)) = (block.points.first(), block.points.last()) else { continue };
            if first.time_ms > until {
                break;
            }
            if last.time_ms < from || block.high <= high {
                continue;
            }
            if first.time_ms >= from && last.time_ms <= until {
                high = block.high;
                continue;
            }
            let here = block.points.iter().filter(|p| p.time_ms >= from && p.time_ms <= until).map(|p| p.high);
            high = here.fold(high, i128::max);
        }
        high
    }

    /// Heap bytes, about.
    pub fn bytes(&self) -> usize {
        self.len * size_of::<Point>() * 3 / 2 + self.blocks.len() * size_of::<Block>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equals_all_pairs(points in prop::collection::vec((0i64..600, -5i128..5), 0..500), span in 1i64..50, from in 0i64..600, length in 0i64..300) {
            let mut drops = Drops::default();
            points.iter().for_each(|(t, v)| drops.insert(*t, *v));
            let dropped = |(t, v): &(i64, i128)| points.iter().any(|(u, w)| u < t && *u >= t - span && w > v);
            let expected = points.iter().filter(|p| p.0 >= from && p.0 <= from + length && dropped(p)).map(|p| p.0).min();
            prop_assert_eq!(drops.first_drop(span, from, from + length), expected);
        }
    }
}
