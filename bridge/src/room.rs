//! Who waits for room: lanes take turns in the order in which they began to wait. Kafka's lanes wait so for librdkafka's queue, those of the spool for
//! the way to open.
//!
//! A device may go on over another link while its former one waits. So that its later frames do not overtake, whoever comes while somebody waits
//! waits as well, and nobody leaves the line before its frames are where none overtakes them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The lanes that wait.
#[derive(Default)]
pub(crate) struct Room {
    line: Mutex<Line>,
    /// Places in the line, for those who only look.
    waiting: AtomicUsize,
    /// There may be room, or it is somebody else's turn.
    pub(crate) news: Notify,
}

#[derive(Default)]
struct Line {
    /// Ascending; one for each lane at most.
    places: VecDeque<u64>,
    next: u64,
}

/// A lane's place in the line; given up when dropped.
pub(crate) struct Place {
    room: Arc<Room>,
    number: u64,
}

impl Room {
    /// Whether anybody waits.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// A place at the end of the line.
    pub(crate) fn queue(self: &Arc<Self>) -> Place {
        let mut line = self.line();
        let number = line.next;
        line.next += 1;
        line.places.push_back(number);
        self.waiting.store(line.places.len(), Ordering::Release);
        Place { room: Arc::clone(self), number }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    pub(crate) fn is_first(&self) -> bool {
        self.room.line().places.front() == Some(&self.number)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut line = self.room.line();
        if let Ok(at) = line.places.binary_search(&self.number) {
            line.places.remove(at);
        }
        self.room.waiting.store(line.places.len(), Ordering::Release);
        drop(line);
        self.room.news.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_came_first_has_its_turn_first() {
        let room = Arc::new(Room::default());
        assert!(!room.is_awaited());
        let (first, second, third) = (room.queue(), room.queue(), room.queue());
        assert!(first.is_first() && !second.is_first());
        drop(second);
        assert!(first.is_first() && !third.is_first());
        drop(first);
        assert!(third.is_first());
        drop(third);
        assert!(!room.is_awaited());
    }
}
