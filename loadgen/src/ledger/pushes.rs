//! The pushes to one device: sent, answered, received.

use super::FindingKind;
use crate::sequences::SequenceSet;

/// What the sender of a push was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PushOutcome {
    /// The device acknowledged it.
    Delivered,
    /// The device is away; it waits in the store.
    Queued,
    /// Its time to live ended first.
    Expired,
    /// Not accepted, with a reason.
    Refused,
    /// No outcome: the request failed. The push may have happened or not.
    Unknown,
}

impl PushOutcome {
    const COUNT: usize = 5;
}

/// Sequence numbers are given out in order by the notifier.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PushRecord {
    sent: u64,
    unsent: u64,
    outcomes: [SequenceSet; PushOutcome::COUNT],
    received: SequenceSet,
    received_again: u64,
    unexplained: u64,
}

impl PushRecord {
    /// The next push is about to be requested: its sequence number.
    pub fn requested(&mut self) -> u64 {
        self.sent += 1;
        self.sent - 1
    }

    /// A push was due and the run ended before it could be requested.
    pub fn not_requested(&mut self) {
        self.unsent += 1;
    }

    /// A push was requested and answered.
    pub fn answered(&mut self, sequence: u64, outcome: PushOutcome) {
        self.sent = self.sent.max(sequence + 1);
        self.outcomes[outcome as usize].insert(sequence);
    }

    /// The device received it; false if it had done so before.
    pub fn received(&mut self, sequence: u64) -> bool {
        let first = self.received.insert(sequence);
        self.received_again += u64::from(!first);
        first
    }

    /// The device received something that is no push of this run to it.
    pub fn received_unexplained(&mut self) {
        self.unexplained += 1;
    }

    /// Joins what the notifier knows with what the device knows.
    pub fn join(&mut self, notifier: Self) {
        self.sent = notifier.sent;
        self.unsent = notifier.unsent;
        self.outcomes = notifier.outcomes;
    }

    /// Requests made.
    pub fn sent_count(&self) -> u64 {
        self.sent
    }

    /// Pushes that were due and never requested.
    pub fn unsent_count(&self) -> u64 {
        self.unsent
    }

    /// Requests that were answered so.
    pub fn outcome_count(&self, outcome: PushOutcome) -> u64 {
        self.outcomes[outcome as usize].len()
    }

    /// Different pushes that came.
    pub fn received_count(&self) -> u64 {
        self.received.len()
    }

    /// Copies beyond the first.
    pub fn duplicated_count(&self) -> u64 {
        self.received_again
    }

    /// What came and was never sent: broken, of another run, for another device, or with a number not given out.
    pub fn unexplained_count(&self) -> u64 {
        let numbered =
            self.received.ranges().iter().map(|range| range.end.saturating_sub(self.sent.max(range.start)));
        self.unexplained + numbered.sum::<u64>()
    }

    /// Promised by their outcome and never received.
    pub fn lost_count(&self) -> u64 {
        self.count(FindingKind::PushLost)
    }

    /// Received although the outcome had ruled it out.
    pub fn contradicted_count(&self) -> u64 {
        self.count(FindingKind::PushContradicted)
    }

    fn count(&self, kind: FindingKind) -> u64 {
        self.findings().filter(|(found, _)| *found == kind).count() as u64
    }

    /// Every broken promise.
    pub(super) fn findings(&self) -> impl Iterator<Item = (FindingKind, u64)> + '_ {
        let lost = [PushOutcome::Delivered, PushOutcome::Queued]
            .into_iter()
            .flat_map(|outcome| self.outcomes[outcome as usize].missing_from(&self.received))
            .flatten()
            .map(|sequence| (FindingKind::PushLost, sequence));
        let contradicted = [PushOutcome::Expired, PushOutcome::Refused]
            .into_iter()
            .flat_map(|outcome| self.outcomes[outcome as usize].ranges().iter().cloned())
            .flatten()
            .filter(|sequence| self.received.contains(*sequence))
            .map(|sequence| (FindingKind::PushContradicted, sequence));
        lost.chain(contradicted)
    }
}
