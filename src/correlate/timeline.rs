//! Points in order of time in blocks that carry a summary: the step function behind windows that slide.
//!
//! In: points in any order. Out: the function's value at a time, the first time in a range at which it is high enough.
//! Invariant: an insertion touches one block, a question reads one summary a block (`benches/state.rs` holds the cost).

/// A block is split in two at this length.
const BLOCK: usize = 256;

/// A change of the function at one time.
#[derive(Debug, Clone, Copy, Default)]
struct Step {
    time_ms: i64,
    delta: i128,
    /// An item stands here, so a window may end here.
    item: bool,
}

#[derive(Debug, Default)]
struct Block {
    steps: Vec<Step>,
    /// Of the steps: a question passes a block without touching them.
    first_ms: i64,
    last_ms: i64,
    sum: i128,
    /// Highest running sum, within the block, at an item; MIN where the block has none.
    best: i128,
}

impl Block {
    fn new(steps: Vec<Step>) -> Self {
        let mut block = Self { steps, first_ms: 0, last_ms: 0, sum: 0, best: i128::MIN };
        block.summarise();
        block
    }

    fn summarise(&mut self) {
        (self.sum, self.best) = (0, i128::MIN);
        (self.first_ms, self.last_ms) = (self.steps.first().map_or(0, |s| s.time_ms), self.steps.last().map_or(0, |s| s.time_ms));
        for step in &self.steps {
            self.sum += step.delta;
            if step.item {
                self.best = self.best.max(self.sum);
            }
        }
    }
}

/// A step function of time, zero at its beginning.
#[derive(Debug, Default)]
pub struct Timeline {
    blocks: Vec<Block>,
    len: usize,
}

impl Timeline {
    /// Adds `delta` from `from` on and takes it away behind `until`.
    pub fn add(&mut self, from: i64, until: i64, delta: i128) {
        self.step(from, delta, false);
        self.step(until.saturating_add(1), -delta, false);
    }

    /// Lets windows end at this time.
    pub fn mark(&mut self, time_ms: i64) {
        self.step(time_ms, 0, true);
    }

    fn step(&mut self, time_ms: i64, delta: i128, item: bool) {
        if self.blocks.is_empty() {
            self.blocks.push(Block::new(Vec::new()));
        }
        let at = self.blocks.partition_point(|b| b.first_ms <= time_ms).saturating_sub(1);
        let block = &mut self.blocks[at];
        match block.steps.binary_search_by_key(&time_ms, |s| s.time_ms) {
            Ok(i) if delta == 0 && block.steps[i].item => return,
            Ok(i) => {
                block.steps[i].delta += delta;
                block.steps[i].item |= item;
            }
            Err(i) => {
                block.steps.insert(i, Step { time_ms, delta, item });
                self.len += 1;
            }
        }
        if block.steps.len() > BLOCK {
            let upper = Block::new(block.steps.split_off(BLOCK / 2));
            block.summarise();
            self.blocks.insert(at + 1, upper);
        } else {
            block.summarise();
        }
    }

    /// The function's value at `time_ms`.
    pub fn at(&self, time_ms: i64) -> i128 {
        let mut sum = 0;
        for block in &self.blocks {
            if block.last_ms <= time_ms {
                sum += block.sum;
                continue;
            }
            return sum + block.steps.iter().take_while(|s| s.time_ms <= time_ms).map(|s| s.delta).sum::<i128>();
        }
        sum
    }

    /// The first item's time within `from..=until` at which the function is at least `least`.
    pub fn first_at_least(&self, from: i64, until: i64, least: i128) -> Option<i64> {
        let mut sum = 0;
        for block in &self.blocks {
            if block.first_ms > until {
                return None;
            }
            if block.last_ms >= from && block.best != i128::MIN && sum + block.best >= least {
                let mut here = sum;
                for step in &block.steps {
                    here += step.delta;
                    if step.item && step.time_ms >= from && step.time_ms <= until && here >= least {
                        return Some(step.time_ms);
                    }
                }
            }
            sum += block.sum;
        }
        None
    }

    /// Item times within `from..=until`.
    pub fn items(&self, from: i64, until: i64) -> impl Iterator<Item = i64> + '_ {
        self.blocks
            .iter()
            .skip_while(move |b| b.last_ms < from)
            .flat_map(|b| &b.steps)
            .take_while(move |s| s.time_ms <= until)
            .filter(move |s| s.item && s.time_ms >= from)
            .map(|s| s.time_ms)
    }

    /// Heap bytes, about.
    pub fn bytes(&self) -> usize {
        self.len * size_of::<Step>() * 3 / 2 + self.blocks.len() * size_of::<Block>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equals_a_plain_sum(steps in prop::collection::vec((0i64..400, 0i64..60, -3i128..6, any::<bool>()), 0..700), questions in prop::collection::vec((0i64..500, 0i64..200, 0i128..900), 20)) {
            let mut line = Timeline::default();
            let mut items = BTreeSet::new();
            for (from, length, delta, item) in &steps {
                line.add(*from, from + length, *delta);
                if *item {
                    line.mark(*from);
                    items.insert(*from);
                }
            }
            let at = |t: i64| steps.iter().filter(|(from, length, _, _)| *from <= t && t <= from + length).map(|s| s.2).sum::<i128>();
            for (from, length, least) in questions {
                prop_assert_eq!(line.at(from), at(from));
                let expected = items.range(from..=from + length).copied().find(|t| at(*t) >= least);
                prop_assert_eq!(line.first_at_least(from, from + length, least), expected);
                prop_assert_eq!(line.items(from, from + length).collect::<Vec<_>>(), items.range(from..=from + length).copied().collect::<Vec<_>>());
            }
        }
    }
}
