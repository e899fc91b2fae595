//! Retained messages that new subscriptions of a session are still to be sent.
//!
//! ```text
//!  SUBACK ──> queued ──> its turn ──> a page is asked for ──> its messages ──> RetainedEnd ── no more ──> done
//!                           ^                                                      │ more, or cut short
//!                           └────────── the client has taken enough ───────────────┘
//! ```

use std::collections::VecDeque;

use holdfast_wire::mqtt::QoS;

use super::subscription::Options;

/// A session's reads, one after the other. A session without any has none of this (promise P9).
#[derive(Debug, Default)]
pub(crate) struct RetainedReads {
    /// The first is under way or next. Each filter that is held waits at most once, so `limits.subscriptions_max` bounds them; the one under
    /// way stays beside them until its page has ended, even if its filter is given up or subscribed to again.
    reads: VecDeque<RetainedRead>,
    /// The token of the page that is under way.
    pub(crate) asked: Option<u64>,
}

/// Retained messages for one new subscription.
#[derive(Clone, Debug)]
pub(crate) struct RetainedRead {
    pub(crate) filter: Box<str>,
    pub(crate) options: Options,
    /// 0: none.
    pub(crate) identifier: u32,
    /// The last topic that was taken; empty to begin.
    pub(crate) after: Box<str>,
    page: Page,
}

/// How the page under way does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    /// No message of it has come.
    Empty,
    /// Some were taken, and all that came.
    Taken,
    /// There was no room for one: it and those behind it are read again.
    Cut,
    /// Nobody wants it any more.
    Unwanted,
}

impl RetainedRead {
    pub(crate) fn new(filter: Box<str>, options: Options, identifier: u32) -> Self {
        Self { filter, options, identifier, after: Box::default(), page: Page::Empty }
    }

    /// The QoS that a retained message goes out with.
    pub(crate) fn qos(&self, published: QoS) -> QoS {
        published.min(self.options.qos)
    }
}

impl RetainedReads {
    /// Puts a read behind the others, in the place of one of the same filter that has not begun.
    pub(crate) fn push(&mut self, read: RetainedRead) {
        let begun = usize::from(self.asked.is_some());
        match self.reads.iter_mut().skip(begun).find(|held| held.filter == read.filter) {
            Some(held) => *held = read,
            None => self.reads.push_back(read),
        }
    }

    /// Nobody wants the retained messages of this filter any longer.
    pub(crate) fn forget(&mut self, filter: &str) {
        let begun = usize::from(self.asked.is_some());
        if let Some(index) = self.reads.iter().skip(begun).position(|read| *read.filter == *filter) {
            self.reads.remove(begun + index);
        }
        if let Some(first) = self.reads.front_mut().filter(|first| begun == 1 && *first.filter == *filter) {
            first.page = Page::Unwanted;
        }
    }

    /// The read whose turn it is, if no page is under way.
    pub(crate) fn next(&self) -> Option<&RetainedRead> {
        self.reads.front().filter(|_| self.asked.is_none())
    }

    /// A message of the page under way came: the read that it is for, if it is to be taken.
    pub(crate) fn take(&mut self, topic: &str, has_room: bool) -> Option<&RetainedRead> {
        let read = self.reads.front_mut()?;
        match read.page {
            Page::Cut | Page::Unwanted => None,
            Page::Empty | Page::Taken if !has_room => {
                read.page = Page::Cut;
                None
            }
            Page::Empty | Page::Taken => {
                read.page = Page::Taken;
                read.after = topic.into();
                Some(read)
            }
        }
    }

    /// The page under way has come to its end; `more`: the bridge has more behind it.
    pub(crate) fn end_page(&mut self, more: bool) {
        self.asked = None;
        let Some(read) = self.reads.front_mut() else { return };
        // An empty page with more behind it would be asked for again for ever.
        let goes_on = match std::mem::replace(&mut read.page, Page::Empty) {
            Page::Cut => true,
            Page::Taken => more,
            Page::Empty | Page::Unwanted => false,
        };
        if !goes_on {
            self.reads.pop_front();
        }
    }

    /// The page under way will not be answered: what has not come is asked for again.
    pub(crate) fn lose_page(&mut self) {
        if let Some(read) = self.reads.front_mut()
            && read.page != Page::Unwanted
        {
            read.page = Page::Cut;
        }
        self.end_page(false);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.reads.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(filter: &str) -> RetainedRead {
        let options = Options { qos: QoS::AtLeastOnce, no_local: false, retain_as_published: false };
        RetainedRead::new(filter.into(), options, 0)
    }

    fn next(reads: &RetainedReads) -> Option<(&str, &str)> {
        reads.next().map(|read| (&*read.filter, &*read.after))
    }

    #[test]
    fn a_filter_waits_only_once() {
        let mut reads = RetainedReads::default();
        for filter in ["a", "b", "a", "b"] {
            reads.push(read(filter));
        }
        assert_eq!(reads.reads.len(), 2);
        reads.asked = Some(1);
        for filter in ["a", "a"] {
            reads.push(read(filter));
        }
        assert_eq!(reads.reads.len(), 3, "the one under way, and once more from the beginning");
    }

    #[test]
    fn a_page_that_was_cut_short_is_read_on_behind_what_was_taken() {
        let mut reads = RetainedReads::default();
        reads.push(read("#"));
        reads.asked = Some(1);
        assert!(reads.take("a", true).is_some());
        assert!(reads.take("b", false).is_none());
        // Room again, but not before the ones that were left out.
        assert!(reads.take("c", true).is_none());
        reads.end_page(false);
        assert_eq!(next(&reads), Some(("#", "a")));
        reads.asked = Some(2);
        assert!(reads.take("b", true).is_some());
        reads.lose_page();
        assert_eq!(next(&reads), Some(("#", "b")));
    }

    #[test]
    fn a_read_ends_when_there_is_no_more_or_nobody_wants_it() {
        let mut reads = RetainedReads::default();
        for filter in ["a", "b", "c", "d"] {
            reads.push(read(filter));
        }
        reads.asked = Some(1);
        reads.forget("a");
        reads.forget("c");
        assert!(reads.take("a", true).is_none());
        reads.end_page(true);
        assert_eq!(next(&reads), Some(("b", "")));
        reads.asked = Some(2);
        // More that never comes.
        reads.end_page(true);
        assert_eq!(next(&reads), Some(("d", "")));
        reads.asked = Some(3);
        assert!(reads.take("d", true).is_some());
        reads.end_page(false);
        assert!(reads.is_empty());
    }
}
