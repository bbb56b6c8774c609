//! Times joined to runs: what `new_value` and `absence` keep of all arrivals.
//!
//! In: times in any order. Out: maximal runs whose neighbours lie no further apart than the span. Invariant: the runs are a
//! function of the set of times alone.

/// Sorted, apart by more than the span.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Runs(Vec<(i64, i64)>);

impl Runs {
    /// True if the runs changed.
    pub fn insert(&mut self, time_ms: i64, span_ms: i64) -> bool {
        let at = self.0.partition_point(|run| run.1.saturating_add(span_ms) < time_ms);
        let joins = self.0.get(at).is_some_and(|run| run.0 <= time_ms.saturating_add(span_ms));
        if !joins {
            self.0.insert(at, (time_ms, time_ms));
            return true;
        }
        let old = self.0[at];
        self.0[at] = (old.0.min(time_ms), old.1.max(time_ms));
        if let Some(next) = self.0.get(at + 1).copied()
            && next.0 <= self.0[at].1.saturating_add(span_ms)
        {
            self.0[at].1 = next.1;
            self.0.remove(at + 1);
        }
        self.0[at] != old
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (i64, i64)> + '_ {
        self.0.iter().copied()
    }

    /// Newest time.
    pub fn newest(&self) -> Option<i64> {
        self.0.last().map(|run| run.1)
    }

    /// Drops runs that ended before; the newest stays.
    pub fn forget(&mut self, before_ms: i64) {
        let newest = self.newest();
        self.0.retain(|run| run.1 >= before_ms || Some(run.1) == newest);
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.0.len() as u32).to_be_bytes());
        for (first, last) in &self.0 {
            out.extend_from_slice(&first.to_be_bytes());
            out.extend_from_slice(&last.to_be_bytes());
        }
    }

    /// The runs and what stands behind them.
    pub fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (count, mut rest) = bytes.split_first_chunk::<4>()?;
        let mut runs = Vec::new();
        for _ in 0..u32::from_be_bytes(*count) {
            let (first, after) = rest.split_first_chunk::<8>()?;
            let (last, after) = after.split_first_chunk::<8>()?;
            runs.push((i64::from_be_bytes(*first), i64::from_be_bytes(*last)));
            rest = after;
        }
        Some((Self(runs), rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_order_gives_the_same_runs() {
        let times = [0, 10, 15, 40, 41, 90];
        let expected = vec![(0, 15), (40, 41), (90, 90)];
        for turn in 0..times.len() {
            for reverse in [false, true] {
                let mut order = times.to_vec();
                order.rotate_left(turn);
                if reverse {
                    order.reverse();
                }
                let mut runs = Runs::default();
                order.iter().chain(&times).for_each(|t| {
                    runs.insert(*t, 10);
                });
                assert_eq!(runs.0, expected, "{order:?}");
            }
        }
    }

    #[test]
    fn reads_what_it_wrote() {
        let mut runs = Runs::default();
        [5, -100, 70].iter().for_each(|t| {
            runs.insert(*t, 10);
        });
        let mut bytes = Vec::new();
        runs.write(&mut bytes);
        bytes.extend_from_slice(b"tail");
        assert_eq!(Runs::read(&bytes), Some((runs.clone(), &b"tail"[..])));
        assert_eq!(Runs::read(&bytes[..7]), None);
        runs.forget(60);
        assert_eq!(runs.0, [(70, 70)]);
    }
}
