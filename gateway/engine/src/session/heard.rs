//! Which places of one stream a session has heard live.
//!
//! Each place of a stream comes live to a session once at most. One that comes again holds another message, so the store has gone back: it failed over to a
//! server that had not heard of its last writes, and gives their places out once more. What was read from the stream says nothing of that, as a message that
//! was read may come live much later.

use holdfast_wire::session_record::Offset;

/// Places from the first one that was heard on, with a note of those that were passed over. 24 bytes for each stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// 0: none was heard.
    from: Offset,
    to: Offset,
    /// Bit n: the place n before `to` was not heard. Two bridges may be late by this much; nothing is said of what lies before.
    passed_over: u64,
}

impl Heard {
    /// A message came live at this place. True if one has before.
    pub(crate) fn note(&mut self, place: Offset) -> bool {
        if place > self.to {
            self.go_on(place);
            return false;
        }
        let back = self.to - place;
        let is_late = back < u64::from(u64::BITS) && self.passed_over & (1 << back) != 0;
        if is_late {
            self.passed_over &= !(1 << back);
        }
        if is_late || place < self.from {
            return false;
        }
        *self = Self { from: place, to: place, passed_over: 0 };
        true
    }

    fn go_on(&mut self, place: Offset) {
        let step = place - self.to;
        if self.from == 0 || step >= u64::from(u64::BITS) {
            *self = Self { from: place, to: place, passed_over: 0 };
            return;
        }
        // Those that are too far back to be noted any longer, the latest of them at the lowest bit.
        let lost = self.passed_over >> (u64::from(u64::BITS) - step);
        if lost != 0 {
            let back = u64::from(u64::BITS) - step + u64::from(lost.trailing_zeros());
            self.from = self.to - back + 1;
        }
        let between = (1 << step) - 2;
        self.passed_over = self.passed_over << step | between;
        self.to = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(places: impl IntoIterator<Item = Offset>) -> Heard {
        let mut heard = Heard::default();
        assert!(places.into_iter().all(|place| !heard.note(place)));
        heard
    }

    #[test]
    fn a_place_that_comes_again_was_given_out_twice() {
        let mut heard = heard(400..=500);
        assert!(!heard.note(399), "what came before is not known");
        assert!(heard.note(491));
        assert!(!heard.note(492), "it goes on from there");
        assert!(heard.note(492));
    }

    #[test]
    fn what_is_late_comes_once() {
        let mut heard = heard([5, 9, 7, 6, 8, 40]);
        assert!(!heard.note(20));
        assert!(heard.note(20));
    }

    #[test]
    fn nothing_is_said_of_what_lies_before_a_place_that_was_passed_over_long_ago() {
        let mut heard = heard((1..=10).chain(12..=100));
        assert!(!heard.note(11), "it may be late");
        assert!(!heard.note(5));
        assert!(heard.note(12));
        let mut heard = super::tests::heard([1, 200]);
        assert!(!heard.note(1) && !heard.note(199));
        assert!(heard.note(200));
    }
}
