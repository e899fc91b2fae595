//! Who reads a stream, and up to where everything in it is settled.
//!
//! Each reader of a stream has a mark: the last offset that it has settled, by its own word. What is at or below the
//! lowest mark nobody needs any more. A shared subscription's group divides a stream among its members, so a member's mark
//! says nothing of what the others hold. Members come and go; what one that goes has not settled must reach another:
//!
//! ```text
//!          join: at the end, nothing of it is its own              rest, leave
//! (absent) ─────────────────────────────────────────> connected ───────────────> left behind (the lowest mark of all)
//!                                                         ^                              │
//!                                                         └────────── resume ────────────┘
//!                         takes over what was left behind: it stands there, and reads everything from there on
//! ```
//!
//! So a member at rest is asked about once and never again, however long it rests.

use std::collections::BTreeMap;

use holdfast_wire::session_record::Offset;

/// Stands for "nothing was left behind"; beyond every offset.
pub(crate) const NOTHING_LEFT: Offset = Offset::MAX;

/// The readers of one stream.
pub(crate) enum Readers {
    /// Each reads all of it, connected or not.
    Each(Marks),
    /// The members of a shared subscription's group.
    Group(Group),
}

/// How many readers stand at each offset: the lowest one is found without asking them all. Never longer than the
/// number of readers, nor of offsets.
#[derive(Default)]
pub(crate) struct Marks(BTreeMap<Offset, u32>);

/// A group's members.
pub(crate) struct Group {
    connected: Marks,
    resting: u32,
    /// Behind this offset stands what members that rest or are gone have not settled; [`NOTHING_LEFT`] for nothing.
    /// There is always a connected member or something left: the group stands somewhere.
    left_behind: Offset,
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

impl Group {
    pub(crate) fn new() -> Self {
        Self { connected: Marks::default(), resting: 0, left_behind: NOTHING_LEFT }
    }

    /// As a disk kept it, without its members.
    pub(crate) fn left_behind(offset: Offset) -> Self {
        Self { left_behind: offset, ..Self::new() }
    }

    /// A member comes, at the stream's end: what stands in it already is held by others, or was left behind.
    pub(crate) fn join(&mut self, end: Offset, rests: bool) {
        self.connected.add(end);
        if rests {
            self.rest(end, end);
        }
    }

    /// A connected member settles more.
    pub(crate) fn advance(&mut self, from: Offset, to: Offset) {
        self.connected.remove(from);
        self.connected.add(to);
    }

    /// A connected member's connection has ended.
    pub(crate) fn rest(&mut self, mark: Offset, end: Offset) {
        self.leave(mark, end, false);
        self.resting += 1;
    }

    /// A member is gone: from the group, or altogether.
    pub(crate) fn leave(&mut self, mark: Offset, end: Offset, rests: bool) {
        if rests {
            self.resting = self.resting.saturating_sub(1);
            return;
        }
        self.connected.remove(mark);
        // Who has settled everything leaves nothing; but the last one leaves word of where the group stands.
        if mark < end || self.connected.is_empty() {
            self.left_behind = self.left_behind.min(mark);
        }
    }

    /// A member's session was opened and reads on from `stands_at`, which is the group's cursor. It takes over what was
    /// left behind, unless it ends with its connection and thus may end unnoticed.
    pub(crate) fn resume(&mut self, mark: Offset, stands_at: Offset, rested: bool, persistent: bool) {
        if rested {
            self.resting = self.resting.saturating_sub(1);
        } else {
            self.connected.remove(mark);
        }
        self.connected.add(stands_at);
        self.left_behind = if persistent { NOTHING_LEFT } else { stands_at };
    }

    /// A member that a disk kept. One that was connected left behind what it had not settled.
    pub(crate) fn restore(&mut self, mark: Offset, rested: bool) {
        self.resting += 1;
        if !rested {
            self.left_behind = self.left_behind.min(mark);
        }
    }
}

impl Readers {
    /// Everything up to here is settled with everyone; none if nobody has a mark.
    pub(crate) fn settled(&self) -> Option<Offset> {
        match self {
            Self::Each(marks) => marks.lowest(),
            Self::Group(group) => {
                let left = (group.left_behind != NOTHING_LEFT).then_some(group.left_behind);
                group.connected.lowest().into_iter().chain(left).min()
            }
        }
    }

    /// What a disk keeps of a group; 0 for other streams.
    pub(crate) fn to_keep(&self) -> Offset {
        match self {
            Self::Each(_) => 0,
            Self::Group(group) => group.left_behind,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Each(marks) => marks.is_empty(),
            Self::Group(group) => group.connected.is_empty() && group.resting == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stands_at(group: Group) -> (Group, Option<Offset>) {
        let readers = Readers::Group(group);
        let settled = readers.settled();
        let Readers::Group(group) = readers else { unreachable!() };
        (group, settled)
    }

    #[test]
    fn who_opens_takes_over_what_was_left_behind_and_rest_costs_nothing_after_that() {
        let mut group = Group::new();
        group.join(0, false);
        group.join(0, false);
        group.rest(0, 10);
        group.advance(0, 10);
        let (mut group, settled) = stands_at(group);
        assert_eq!(settled, Some(0));
        group.resume(10, 0, false, true);
        group.advance(0, 10);
        let (_, settled) = stands_at(group);
        assert_eq!(settled, Some(10));
    }

    #[test]
    fn what_a_session_without_expiry_took_up_stays_left_behind() {
        let mut group = Group::new();
        group.join(3, false);
        group.rest(3, 9);
        group.resume(3, 3, true, false);
        group.advance(3, 9);
        let (_, settled) = stands_at(group);
        assert_eq!(settled, Some(3));
    }
}
