//! How many client sockets a process may hold: connections are files, and so is what the log, the store, the links and the admin server need to
//! go on. Devices never get all of them.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The client sockets of all shards together. Bound: `sockets_max`; full: the next connection is closed as it comes. Each shard looks before it
/// takes one, so all of them at once may go beyond it by one each, for which the reserve has room.
#[derive(Debug)]
pub(crate) struct SocketRoom {
    sockets_max: usize,
    taken: AtomicUsize,
}

/// Files that are kept from devices, besides those that are open before the first one comes: for segments of the log, requests of operators, links.
const RESERVE: u64 = 64;

/// ... and for each shard, which has a link to each bridge that may still come.
const RESERVE_PER_SHARD: u64 = 16;

impl SocketRoom {
    /// Leaves to devices what a process that may have `files_max` files open does not need itself; none: any number.
    pub(crate) fn within(files_max: Option<u64>, shards: u16) -> Self {
        let sockets_max = files_max.map_or(usize::MAX, |files| sockets_max(files, files_open(), shards));
        Self { sockets_max, taken: AtomicUsize::new(0) }
    }

    /// How many there may be.
    pub(crate) fn sockets_max(&self) -> usize {
        self.sockets_max
    }

    /// Whether the next connection has to be refused.
    pub(crate) fn is_full(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.sockets_max
    }

    /// One more is open.
    pub(super) fn take(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// One was closed.
    pub(super) fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for SocketRoom {
    /// Without a bound.
    fn default() -> Self {
        Self::within(None, 1)
    }
}

/// A process with few files keeps half of what is left: fewer devices are served well rather than none.
fn sockets_max(files_max: u64, open: u64, shards: u16) -> usize {
    let left = files_max.saturating_sub(open);
    let reserve = (RESERVE + RESERVE_PER_SHARD * u64::from(shards)).min(left.div_ceil(2));
    usize::try_from(left - reserve).unwrap_or(usize::MAX)
}

/// Files that this process has open now.
fn files_open() -> u64 {
    // A sandbox without /proc; a node with its bridge has about as many.
    const GUESS: u64 = 64;
    fs::read_dir("/proc/self/fd").map_or(GUESS, |files| files.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_get_what_the_process_does_not_need_itself() {
        assert_eq!(sockets_max(1_048_576, 40, 2), 1_048_576 - 40 - 64 - 32);
        assert_eq!(sockets_max(100, 40, 2), 30);
        assert_eq!(sockets_max(40, 40, 2), 0);
        assert_eq!(sockets_max(30, 40, 2), 0);
    }

    #[test]
    fn it_is_full_until_one_leaves() {
        let room = SocketRoom { sockets_max: 2, taken: AtomicUsize::new(0) };
        room.take();
        assert!(!room.is_full());
        room.take();
        assert!(room.is_full());
        room.give_back();
        assert!(!room.is_full());
    }
}
