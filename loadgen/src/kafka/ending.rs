//! When a topic has been read: at its end, and for long enough. Pure; time is an argument.
//!
//! The first end proves little. A spool may still send again what Kafka has, and an original that hung in a broker may be written behind its copy:
//! whoever stopped there would report no duplicates and no disorder without having looked. So it is read on for a quiet time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How far reading has come.
#[derive(Debug)]
pub(super) struct Ending {
    /// Whether each partition has been read to its present end.
    at_end: BTreeMap<i32, bool>,
    quiet: Duration,
    patience: Duration,
    /// The beginning, until there is one.
    last_record: Instant,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Read on.
    Read,
    /// Nothing more is to be expected, if the brokers still answer.
    Ask,
    /// These could not be read to their end.
    GiveUp(Vec<i32>),
}

impl Ending {
    /// Before it is over nothing comes for `quiet`. `patience` with what is missing counts from the last record too, and is never shorter.
    pub(super) fn new(
        partitions: impl IntoIterator<Item = i32>,
        patience: Duration,
        quiet: Duration,
        now: Instant,
    ) -> Self {
        let at_end = partitions.into_iter().map(|partition| (partition, false)).collect();
        Self { at_end, quiet, patience: patience.max(quiet), last_record: now }
    }

    pub(super) fn handle_record(&mut self, partition: i32, now: Instant) {
        self.at_end.insert(partition, false);
        self.last_record = now;
    }

    pub(super) fn handle_end(&mut self, partition: i32) {
        self.at_end.insert(partition, true);
    }

    /// `misses` says whether acknowledged frames are not there yet; it is asked only when it matters.
    pub(super) fn poll_next(&self, now: Instant, misses: impl FnOnce() -> bool) -> Next {
        let since_record = now.saturating_duration_since(self.last_record);
        if !self.at_end.values().all(|at_end| *at_end) {
            return if since_record < self.patience { Next::Read } else { Next::GiveUp(self.unread()) };
        }
        if since_record >= self.quiet && (since_record >= self.patience || !misses()) {
            Next::Ask
        } else {
            Next::Read
        }
    }

    /// Whether brokers that do not answer in the end are still waited for.
    pub(super) fn is_patient(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_record) < self.patience + self.quiet
    }

    pub(super) fn partitions(&self) -> Vec<i32> {
        self.at_end.keys().copied().collect()
    }

    fn unread(&self) -> Vec<i32> {
        self.at_end.iter().filter_map(|(partition, at_end)| (!at_end).then_some(*partition)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn ending() -> (Ending, Instant) {
        let start = Instant::now();
        (Ending::new([0, 1], 30 * S, 5 * S, start), start)
    }

    #[test]
    fn the_first_end_is_not_taken_for_the_last() {
        let (mut ending, start) = ending();
        ending.handle_record(0, start);
        ending.handle_end(0);
        ending.handle_end(1);
        assert_eq!(ending.poll_next(start, || false), Next::Read);
        // A spool sends again what is there already.
        ending.handle_record(1, start + 4 * S);
        assert_eq!(ending.poll_next(start + 6 * S, || false), Next::Read);
        ending.handle_end(1);
        assert_eq!(ending.poll_next(start + 8 * S, || false), Next::Read);
        assert_eq!(ending.poll_next(start + 9 * S, || false), Next::Ask);
    }

    #[test]
    fn what_is_missing_is_waited_for_as_long_as_patience_lasts() {
        let (mut ending, start) = ending();
        ending.handle_end(0);
        ending.handle_end(1);
        assert_eq!(ending.poll_next(start + 29 * S, || true), Next::Read);
        // Then it is lost, which the verdict says.
        assert_eq!(ending.poll_next(start + 30 * S, || true), Next::Ask);
    }

    #[test]
    fn a_partition_that_never_came_to_its_end_is_given_up_by_name() {
        let (mut ending, start) = ending();
        ending.handle_end(0);
        assert_eq!(ending.poll_next(start + 29 * S, || false), Next::Read);
        assert_eq!(ending.poll_next(start + 30 * S, || false), Next::GiveUp(vec![1]));
    }

    #[test]
    fn whoever_has_no_patience_waits_for_quiet_all_the_same() {
        let start = Instant::now();
        let mut ending = Ending::new([0], Duration::ZERO, 5 * S, start);
        ending.handle_end(0);
        assert_eq!(ending.poll_next(start + 4 * S, || true), Next::Read);
        assert_eq!(ending.poll_next(start + 5 * S, || true), Next::Ask);
        // Brokers that do not answer then are given as long again.
        assert!(ending.is_patient(start + 9 * S) && !ending.is_patient(start + 10 * S));
    }
}
