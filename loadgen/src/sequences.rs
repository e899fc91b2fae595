//! A set of sequence numbers as sorted ranges: a device whose frames are acknowledged in order costs one range,
//! however many frames it sent.

use std::ops::Range;

/// Sorted, disjoint, never touching ranges. Grows with the number of gaps, which the unacknowledged window and the
/// losses bound, not with the number of frames.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "Vec<(u64, u64)>", try_from = "Vec<(u64, u64)>")]
pub struct SequenceSet {
    ranges: Vec<Range<u64>>,
}

/// Pairs of start and end that are no ranges, or not in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a set of sequence numbers")]
pub struct NotASet;

impl From<SequenceSet> for Vec<(u64, u64)> {
    fn from(set: SequenceSet) -> Self {
        set.ranges.into_iter().map(|range| (range.start, range.end)).collect()
    }
}

impl TryFrom<Vec<(u64, u64)>> for SequenceSet {
    type Error = NotASet;

    fn try_from(pairs: Vec<(u64, u64)>) -> Result<Self, NotASet> {
        let are_ranges = pairs.iter().all(|(start, end)| start < end);
        let are_apart = pairs.windows(2).all(|pair| pair[0].1 < pair[1].0);
        if !are_ranges || !are_apart {
            return Err(NotASet);
        }
        Ok(Self { ranges: pairs.into_iter().map(|(start, end)| start..end).collect() })
    }
}

impl SequenceSet {
    /// Adds one number; false if it was there already. `u64::MAX` has no place in a range and is never added.
    pub fn insert(&mut self, sequence: u64) -> bool {
        if sequence == u64::MAX {
            return false;
        }
        // The first range that begins behind the number; its predecessor may hold or touch the number.
        let next = self.ranges.partition_point(|range| range.start <= sequence);
        let joins_next = self.ranges.get(next).is_some_and(|range| range.start == sequence + 1);
        if let Some(previous) = next.checked_sub(1) {
            if sequence < self.ranges[previous].end {
                return false;
            }
            if sequence == self.ranges[previous].end {
                if joins_next {
                    self.ranges[previous].end = self.ranges[next].end;
                    self.ranges.remove(next);
                } else {
                    self.ranges[previous].end += 1;
                }
                return true;
            }
        }
        if joins_next {
            self.ranges[next].start = sequence;
        } else {
            self.ranges.insert(next, sequence..sequence + 1);
        }
        true
    }

    /// Whether the number is in the set.
    pub fn contains(&self, sequence: u64) -> bool {
        let next = self.ranges.partition_point(|range| range.start <= sequence);
        next.checked_sub(1).is_some_and(|previous| sequence < self.ranges[previous].end)
    }

    /// How many numbers are in the set.
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Whether nothing was ever added.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges in ascending order.
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// The numbers of this set that `other` does not hold, as ascending ranges.
    pub fn missing_from(&self, other: &Self) -> Vec<Range<u64>> {
        let mut missing = Vec::new();
        let mut index = 0;
        for range in &self.ranges {
            let mut start = range.start;
            while start < range.end {
                while other.ranges.get(index).is_some_and(|held| held.end <= start) {
                    index += 1;
                }
                match other.ranges.get(index) {
                    Some(held) if held.start <= start => start = held.end,
                    held => {
                        let end = held.map_or(range.end, |held| held.start.min(range.end));
                        missing.push(start..end);
                        start = end;
                    }
                }
            }
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_in_order_stay_one_range() {
        let mut set = SequenceSet::default();
        for sequence in 0..10_000 {
            assert!(set.insert(sequence));
        }
        assert_eq!((set.ranges().len(), set.len()), (1, 10_000));
    }

    #[test]
    fn the_last_number_that_closes_a_gap_joins_its_neighbours() {
        let mut set = SequenceSet::default();
        for sequence in [0, 2, 1] {
            assert!(set.insert(sequence));
        }
        assert_eq!((set.ranges().len(), set.len()), (1, 3));
        assert!(!set.insert(1));
    }

    #[test]
    fn what_is_written_is_read_back_and_what_is_no_set_is_refused() {
        let read = |text: &str| serde_json::from_str::<SequenceSet>(text);
        let set = read("[[0,3],[5,6]]").unwrap();
        assert_eq!((set.len(), serde_json::to_string(&set).unwrap().as_str()), (4, "[[0,3],[5,6]]"));
        for bad in ["[[3,0]]", "[[1,1]]", "[[5,6],[0,3]]", "[[0,3],[3,4]]", "[[0]]"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_plain_set(left in prop::collection::vec(0..60_u64, 0..80), right in prop::collection::vec(0..60_u64, 0..80)) {
            let build = |numbers: &[u64]| {
                let (mut ranges, mut plain) = (SequenceSet::default(), BTreeSet::new());
                for number in numbers {
                    assert_eq!(ranges.insert(*number), plain.insert(*number));
                }
                (ranges, plain)
            };
            let (left, left_plain) = build(&left);
            let (right, right_plain) = build(&right);
            prop_assert_eq!(left.len(), left_plain.len() as u64);
            for number in 0..61 {
                prop_assert_eq!(left.contains(number), left_plain.contains(&number));
            }
            for pair in left.ranges().windows(2) {
                prop_assert!(pair[0].end < pair[1].start);
            }
            let missing: Vec<u64> = left.missing_from(&right).into_iter().flatten().collect();
            let expected: Vec<u64> = left_plain.difference(&right_plain).copied().collect();
            prop_assert_eq!(missing, expected);
        }
    }
}
