//! What ends by itself, in the order in which it ends.
//!
//! Holds each thing at most once (whoever moves a deadline takes the old one out), so it is never longer than the
//! number of resting sessions, streams with messages and retained messages.

use std::collections::BTreeSet;

use holdfast_wire::ids::ClientId;
use holdfast_wire::session_record::StreamKey;

/// Something that ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    /// A resting session.
    Session(ClientId),
    /// The oldest message of a stream.
    OldestOf(StreamKey),
    /// A topic's retained message.
    Retained(Box<str>),
}

/// All deadlines, soonest first. Times are Unix ms.
#[derive(Default)]
pub(crate) struct Deadlines(BTreeSet<(u64, Ending)>);

impl Deadlines {
    /// Sets a deadline.
    pub(crate) fn set(&mut self, at_ms: u64, ending: Ending) {
        self.0.insert((at_ms, ending));
    }

    /// Takes back what [`Self::set`] set with the same arguments.
    pub(crate) fn clear(&mut self, at_ms: u64, ending: Ending) {
        self.0.remove(&(at_ms, ending));
    }

    /// Takes the soonest one out if its time has come.
    pub(crate) fn pop_due(&mut self, now_ms: u64) -> Option<Ending> {
        if self.0.first()?.0 > now_ms {
            return None;
        }
        self.0.pop_first().map(|(_, ending)| ending)
    }
}
