//! The ledger of one partition: outcomes come in any order, and become the offset that may be committed.
//!
//! Pure. It holds the records from the first one without an outcome on, never more than the bounds of [`Ledger::is_full`] and the one that
//! reached them.

use std::collections::VecDeque;

/// Records of one partition that were read and whose offset is not behind us.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Ascending by offset; there may be gaps, where a topic is compacted or a transaction ended.
    records: VecDeque<Entry>,
    open: usize,
    open_bytes: u64,
    /// The offset to read from if we died now, unless it was committed.
    committable: Option<i64>,
}

#[derive(Debug)]
struct Entry {
    offset: i64,
    bytes: u32,
    is_settled: bool,
}

impl Ledger {
    /// A record was read. False if it is known already, and must not be carried out again.
    pub(super) fn take(&mut self, offset: i64, bytes: u32) -> bool {
        if self.records.back().is_some_and(|last| last.offset >= offset) {
            return false;
        }
        self.records.push_back(Entry { offset, bytes, is_settled: false });
        self.open += 1;
        self.open_bytes += u64::from(bytes);
        true
    }

    /// The outcome of a record is known, and written down where it has to be.
    pub(super) fn settle(&mut self, offset: i64) {
        let Ok(at) = self.records.binary_search_by_key(&offset, |entry| entry.offset) else { return };
        let Some(entry) = self.records.get_mut(at).filter(|entry| !entry.is_settled) else { return };
        entry.is_settled = true;
        self.open -= 1;
        self.open_bytes -= u64::from(entry.bytes);
        while let Some(first) = self.records.front().filter(|first| first.is_settled) {
            self.committable = Some(first.offset + 1);
            self.records.pop_front();
        }
    }

    /// The offset behind which nothing is open, if it moved since it was asked for.
    pub(super) fn take_committable(&mut self) -> Option<i64> {
        self.committable.take()
    }

    /// Nothing came of the last commit: what it would have committed is to be committed again, unless there is more by now.
    pub(super) fn commit_failed(&mut self, offset: i64) {
        self.committable = Some(self.committable.map_or(offset, |newer| newer.max(offset)));
    }

    /// Records without an outcome.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Whether no more may be read. What was settled behind one that is open counts as well: it is read again after a death.
    pub(super) fn is_full(&self, records_max: usize, bytes_max: u64) -> bool {
        self.records.len() >= records_max || self.open_bytes >= bytes_max
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_committed_past_an_unknown_outcome() {
        let mut ledger = Ledger::default();
        assert!([10, 11, 14].into_iter().all(|offset| ledger.take(offset, 1)));
        ledger.settle(14);
        ledger.settle(11);
        assert_eq!(ledger.take_committable(), None);
        ledger.settle(10);
        assert_eq!((ledger.take_committable(), ledger.take_committable()), (Some(15), None));
        assert_eq!(ledger.open(), 0);
    }

    #[test]
    fn what_is_known_is_not_taken_again() {
        let mut ledger = Ledger::default();
        assert!(ledger.take(3, 1));
        assert!(!ledger.take(3, 1) && !ledger.take(2, 1));
        ledger.settle(99);
        assert_eq!(ledger.open(), 1);
    }

    #[test]
    fn a_commit_that_failed_is_made_up_for_by_the_next() {
        let mut ledger = Ledger::default();
        ledger.take(0, 1);
        ledger.take(1, 1);
        ledger.settle(0);
        let first = ledger.take_committable().unwrap();
        ledger.commit_failed(first);
        assert_eq!(ledger.take_committable(), Some(1));
        ledger.settle(1);
        ledger.commit_failed(first);
        assert_eq!(ledger.take_committable(), Some(2));
    }

    #[test]
    fn it_is_full_by_number_and_by_bytes() {
        let mut ledger = Ledger::default();
        ledger.take(0, 60);
        assert!(!ledger.is_full(2, 100));
        ledger.take(1, 60);
        assert!(ledger.is_full(3, 100) && ledger.is_full(2, 1_000));
        ledger.settle(1);
        assert!(!ledger.is_full(3, 100) && ledger.is_full(2, 1_000), "the first one holds up the commit");
    }

    proptest! {
        #[test]
        fn the_commit_is_always_the_first_open_record_or_the_end(
            gaps in proptest::collection::vec(1_i64..4, 1..60),
            order in any::<proptest::sample::Index>(),
            steps in 1_usize..7,
        ) {
            let offsets: Vec<i64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let mut ledger = Ledger::default();
            for &offset in &offsets {
                prop_assert!(ledger.take(offset, 1));
            }
            let mut left = offsets.clone();
            let mut committed = None;
            let mut at = order.index(offsets.len());
            while !left.is_empty() {
                at = (at + steps) % left.len();
                ledger.settle(left.remove(at));
                let before = committed;
                committed = ledger.take_committable().or(committed);
                prop_assert!(before <= committed);
                let first_open = left.iter().min().copied().unwrap_or(i64::MAX);
                let expected = offsets.iter().rfind(|offset| **offset < first_open).map(|offset| offset + 1);
                prop_assert_eq!(committed, expected);
            }
        }
    }
}
