//! Who reads a stream, and up to where everything in it is settled.
//!
//! Each reader of a stream has a mark: the last offset that it has settled, by its own word. What is at or below the
//! lowest mark nobody needs any more. A shared subscription's group divides a stream among its members:
//!
//! ```text
//!              claim                        save
//! nobody's ────────────> one member's ────────────────> settled: goes as soon as nothing before it is unsettled
//!    ^                         │                            ^
//!    └──── given back <────────┘ rests, leaves, ends        │ taken
//!               ^                                           │
//!               └────── on hold ────────────────────────────┘
//!                      not taken, or its time is over
//! ```
//!
//! What is anyone's, and in which order each has it, stands in `runs`. Members count for themselves what they claim: a member's number is its session's
//! cursor plus the place among what it holds. So a member that holds nothing is a cursor in its session and one in a number here.

use std::collections::BTreeMap;

use holdfast_wire::session_record::{Offset, StreamKey};

use super::runs::Runs;

/// The readers of one stream.
pub(crate) enum Readers {
    /// Each reads all of it, connected or not.
    Each(Marks),
    /// The members of a shared subscription's group.
    Group(Box<Group>),
}

/// How many readers stand at each offset: the lowest one is found without asking them all. Never longer than the
/// number of readers, nor of offsets.
#[derive(Default)]
pub(crate) struct Marks(BTreeMap<Offset, u32>);

/// A group.
pub(crate) struct Group {
    /// Connected and resting.
    pub(crate) members: u32,
    pub(crate) runs: Runs,
}

impl Marks {
    pub(crate) fn add(&mut self, mark: Offset) {
        *self.0.entry(mark).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, mark: Offset) {
        if let Some(count) = self.0.get_mut(&mark) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&mark);
            }
        }
    }

    fn lowest(&self) -> Option<Offset> {
        self.0.keys().next().copied()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Readers {
    /// Those of a stream that ends here; nobody yet.
    pub(crate) fn new(key: &StreamKey, end: Offset) -> Self {
        if is_groups(key) {
            Self::Group(Box::new(Group { members: 0, runs: Runs::new(end) }))
        } else {
            Self::Each(Marks::default())
        }
    }

    /// Everything up to here is settled with everyone; none if nobody has a mark.
    pub(crate) fn settled(&self) -> Option<Offset> {
        match self {
            Self::Each(marks) => marks.lowest(),
            Self::Group(group) => Some(group.runs.settled()),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Each(marks) => marks.is_empty(),
            Self::Group(group) => group.members == 0,
        }
    }
}

/// Whether a stream is a shared subscription's group's.
pub(crate) fn is_groups(key: &StreamKey) -> bool {
    matches!(key, StreamKey::Filter(filter) if filter.starts_with("$share/"))
}
