//! Sockets on their way out, in the order in which patience with them ends.

use std::collections::VecDeque;

use holdfast_engine::ConnectionId;

use super::socket::Stage;

/// How long a stage of closing may take, in ms.
pub(crate) const STAGE_MS_MAX: u64 = 1_000;

/// Deadlines of closing sockets. All stages last equally long, so the queue is sorted by itself. An entry whose socket is gone or a
/// stage further stays until its time and means nothing then.
///
/// Bound: two entries for each connection closed within the last [`STAGE_MS_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Lingering {
    queue: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    due_ms: u64,
    id: ConnectionId,
    stage: Stage,
}

impl Lingering {
    /// The socket entered `stage`.
    pub(crate) fn push(&mut self, id: ConnectionId, stage: Stage, now_ms: u64) {
        self.queue.push_back(Entry { due_ms: now_ms + STAGE_MS_MAX, id, stage });
    }

    /// A socket whose time is up, if it still is in the stage given with it.
    pub(crate) fn pop_due(&mut self, now_ms: u64) -> Option<(ConnectionId, Stage)> {
        self.queue.pop_front_if(|entry| entry.due_ms <= now_ms).map(|entry| (entry.id, entry.stage))
    }

    /// When to look again.
    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        self.queue.front().map(|entry| entry.due_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_come_due_in_the_order_they_began_to_close() {
        let id = |slot| ConnectionId { slot, generation: 0 };
        let mut lingering = Lingering::default();
        lingering.push(id(1), Stage::Flushing, 100);
        lingering.push(id(2), Stage::Lingering, 150);
        assert_eq!(lingering.next_due_ms(), Some(100 + STAGE_MS_MAX));
        assert_eq!(lingering.pop_due(99 + STAGE_MS_MAX), None);
        assert_eq!(lingering.pop_due(100 + STAGE_MS_MAX), Some((id(1), Stage::Flushing)));
        assert_eq!(lingering.pop_due(100 + STAGE_MS_MAX), None);
        assert_eq!(lingering.pop_due(150 + STAGE_MS_MAX), Some((id(2), Stage::Lingering)));
        assert_eq!(lingering.next_due_ms(), None);
    }
}
