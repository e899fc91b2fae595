//! Letters from other threads to a shard.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mio::Waker;

/// A shard's mailbox; clones post to the same one. Posting never blocks beyond a short lock.
///
/// Bound: [`post`](Mailbox::post) takes what is bounded where it comes from (one reply for each request that the engine has open,
/// a few commands of the node); what anyone may cause goes through [`ask`](Mailbox::ask), which refuses when
/// [`ASKS_MAX`] letters wait.
#[derive(Debug)]
pub(crate) struct Mailbox<T>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    letters: Mutex<VecDeque<T>>,
    /// The shard looks into the mailbox before it sleeps, so nobody need wake it.
    attended: AtomicBool,
    waker: Waker,
}

/// Letters that may wait before [`Mailbox::ask`] refuses.
const ASKS_MAX: usize = 1_024;

/// The mailbox is full; the shard is busy or stuck.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MailboxFull;

impl<T> Mailbox<T> {
    /// `waker` ends the sleep of the shard that reads this mailbox.
    pub(crate) fn new(waker: Waker) -> Self {
        Self(Arc::new(Shared { letters: Mutex::default(), attended: AtomicBool::new(false), waker }))
    }

    /// Adds a letter whose number is bounded by its sender.
    pub(crate) fn post(&self, letter: T) {
        self.lock().push_back(letter);
        self.wake();
    }

    /// Adds a letter that someone outside caused.
    pub(crate) fn ask(&self, letter: T) -> Result<(), MailboxFull> {
        let mut letters = self.lock();
        if letters.len() >= ASKS_MAX {
            return Err(MailboxFull);
        }
        letters.push_back(letter);
        drop(letters);
        self.wake();
        Ok(())
    }

    /// Moves all letters behind those in `into`, in the order they were posted.
    pub(crate) fn take(&self, into: &mut VecDeque<T>) {
        into.append(&mut self.lock());
    }

    /// The shard is about to sleep: from now on letters wake it. False if letters wait already.
    pub(crate) fn leave(&self) -> bool {
        // Sequentially consistent, like the swap in `wake`: either the sender sees that nobody attends, or the shard
        // sees its letter.
        self.0.attended.store(false, Ordering::SeqCst);
        self.lock().is_empty()
    }

    /// The shard is awake: until it leaves again it will look by itself.
    pub(crate) fn attend(&self) {
        self.0.attended.store(true, Ordering::SeqCst);
    }

    fn wake(&self) {
        if !self.0.attended.swap(true, Ordering::SeqCst) {
            // Fails only if the poll is gone, and its shard with it.
            let _ = self.0.waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.0.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll, Token};

    use super::*;

    fn mailbox() -> (Poll, Mailbox<u32>) {
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(0)).unwrap();
        (poll, Mailbox::new(waker))
    }

    #[test]
    fn a_sleeping_shard_is_woken_once_for_many_letters() {
        let (mut poll, mailbox) = mailbox();
        assert!(mailbox.leave());
        let sender = mailbox.clone();
        std::thread::spawn(move || (0..100).for_each(|letter| sender.post(letter))).join().unwrap();
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
        assert_eq!(events.iter().count(), 1);
        let mut letters = VecDeque::new();
        mailbox.take(&mut letters);
        assert!(letters.into_iter().eq(0..100));
    }

    #[test]
    fn a_letter_posted_while_the_shard_is_awake_keeps_it_from_sleeping() {
        let (mut poll, mailbox) = mailbox();
        mailbox.attend();
        mailbox.post(1);
        assert!(!mailbox.leave());
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        assert!(events.is_empty(), "no wake-up was needed");
    }

    #[test]
    fn asking_is_refused_when_too_much_waits_but_replies_still_get_in() {
        let (_poll, mailbox) = mailbox();
        (0..ASKS_MAX as u32).for_each(|letter| mailbox.ask(letter).unwrap());
        assert_eq!(mailbox.ask(0), Err(MailboxFull));
        mailbox.post(7);
        let mut letters = VecDeque::new();
        mailbox.take(&mut letters);
        assert_eq!(letters.back(), Some(&7));
    }
}
