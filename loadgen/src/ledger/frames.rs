//! The frames of one device: sent, acknowledged, found.

use std::ops::Range;

use crate::sequences::SequenceSet;

/// Sequence numbers are given out in order when a frame is first sent, so what was sent is a number, not a set.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FrameRecord {
    sent: u64,
    resent: u64,
    acked: SequenceSet,
    refused: SequenceSet,
    /// Sent again under a new packet id because the session was gone: the gateway cannot know it for the same.
    republished: SequenceSet,
    found: SequenceSet,
    /// Found in a record that says that it was sent before.
    found_resent: SequenceSet,
    found_last: Option<u64>,
    /// Where the first of them was found.
    partition: Option<u32>,
    scattered: u64,
    duplicated: u64,
    duplicated_explained: u64,
    originals_behind: u64,
    reordered: u64,
    never_sent_due: u64,
}

/// What finding a frame meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    First,
    Reordered,
    /// In another partition than the first frame of its device: readers have no order between the two.
    Scattered,
    Again {
        explained: bool,
    },
    NeverSent,
}

impl FrameRecord {
    /// A frame is written to the connection for the first time.
    pub fn sent(&mut self, sequence: u64) {
        self.sent = self.sent.max(sequence + 1);
    }

    /// It is written again, with DUP where the protocol has it.
    pub fn resent(&mut self) {
        self.resent += 1;
    }

    /// It is sent again as if it were new, since the session is gone.
    pub fn republished(&mut self, sequence: u64) {
        self.republished.insert(sequence);
    }

    /// The gateway acknowledged it; false if it had done so before.
    pub fn acked(&mut self, sequence: u64) -> bool {
        self.acked.insert(sequence)
    }

    /// The gateway answered that it will not take it (an error reason code): neither kept nor lost.
    pub fn refused(&mut self, sequence: u64) {
        self.refused.insert(sequence);
    }

    /// Frames that were due and never sent, as the run ended first.
    pub fn left_unsent(&mut self, frames: u64) {
        self.never_sent_due += frames;
    }

    /// It stands in the log.
    pub(super) fn found(&mut self, sequence: u64, resent: bool, partition: u32) -> Found {
        if sequence >= self.sent {
            return Found::NeverSent;
        }
        let is_scattered = *self.partition.get_or_insert(partition) != partition;
        self.scattered += u64::from(is_scattered);
        // Which of two copies is told from the other does not matter: a broker that hung may write the first one behind the second.
        let told = self.found_resent.contains(sequence) || resent;
        if resent {
            self.found_resent.insert(sequence);
        }
        if !self.found.insert(sequence) {
            self.duplicated += 1;
            let explained = told || self.republished.contains(sequence);
            self.duplicated_explained += u64::from(explained);
            self.originals_behind += u64::from(told && !resent);
            return Found::Again { explained };
        }
        // Its first copy counts: a copy that comes later is a duplicate, not a disorder.
        let late = self.found_last.is_some_and(|last| sequence < last);
        self.found_last = Some(self.found_last.map_or(sequence, |last| last.max(sequence)));
        if late {
            self.reordered += 1;
            return Found::Reordered;
        }
        if is_scattered { Found::Scattered } else { Found::First }
    }

    /// Frames sent at least once.
    pub fn sent_count(&self) -> u64 {
        self.sent
    }

    /// Times a frame was sent again.
    pub fn resent_count(&self) -> u64 {
        self.resent + self.republished.len()
    }

    /// Frames that were acknowledged.
    pub fn acked_count(&self) -> u64 {
        self.acked.len()
    }

    /// Frames that were refused with a reason.
    pub fn refused_count(&self) -> u64 {
        self.refused.len()
    }

    /// Different frames found.
    pub fn found_count(&self) -> u64 {
        self.found.len()
    }

    /// Found beyond the first time: all, and those a reader can recognise.
    pub fn duplicated_count(&self) -> (u64, u64) {
        (self.duplicated, self.duplicated_explained)
    }

    /// Of those, the ones without a mark of their own that stand behind a copy that has one.
    pub fn originals_behind_count(&self) -> u64 {
        self.originals_behind
    }

    /// Found for the first time after a later one.
    pub fn reordered_count(&self) -> u64 {
        self.reordered
    }

    /// Found in another partition than the first frame of this device.
    pub fn scattered_count(&self) -> u64 {
        self.scattered
    }

    /// Due and never sent.
    pub fn unsent_count(&self) -> u64 {
        self.never_sent_due
    }

    /// Acknowledged and not found, as ranges. Final only once all of the log was observed.
    pub fn lost(&self) -> Vec<Range<u64>> {
        self.acked.missing_from(&self.found)
    }
}
