//! The bytes that one turn has for connections.
//!
//! They lie in one arena for all connections. Each connection has a chain of segments of it, so its acknowledgements leave with one
//! write though they came up between those of others, and the many receivers of one message point at the same bytes.
//! After the flush nothing is kept but the capacity, which is bounded.

use crate::input::ConnectionId;

const NONE: u32 = u32::MAX;
/// Capacity kept between turns; more is given back.
const ARENA_KEPT_BYTES: usize = 4 << 20;
const SEGMENTS_KEPT: usize = 128 * 1024;

/// Bytes in the arena that several connections may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    start: u32,
    length: u32,
}

impl Run {
    pub(crate) fn length(self) -> usize {
        self.length as usize
    }

    /// The first `length` bytes.
    pub(crate) fn before(self, length: usize) -> Self {
        debug_assert!(length <= self.length());
        Self { start: self.start, length: length as u32 }
    }

    /// What follows the first `length` bytes.
    pub(crate) fn after(self, length: usize) -> Self {
        debug_assert!(length <= self.length());
        Self { start: self.start + length as u32, length: self.length - length as u32 }
    }
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    run: Run,
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct Chain {
    head: u32,
    tail: u32,
    bytes: u32,
}

const EMPTY: Chain = Chain { head: NONE, tail: NONE, bytes: 0 };

/// What is to be sent when the turn ends.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    arena: Vec<u8>,
    segments: Vec<Segment>,
    /// By slot.
    chains: Vec<Chain>,
    /// Connections with bytes, in the order of their first.
    touched: Vec<ConnectionId>,
    gathered: Vec<u8>,
    /// Sum of all segments: what the sockets will be given.
    bytes: usize,
}

impl Outbox {
    /// Makes room for a slot before it is used.
    pub(crate) fn reserve_slot(&mut self, slot: u32) {
        if self.chains.len() <= slot as usize {
            self.chains.resize(slot as usize + 1, EMPTY);
        }
    }

    /// Bytes waiting for all connections together.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes waiting for one connection.
    pub(crate) fn waiting(&self, id: ConnectionId) -> usize {
        self.chains[id.slot as usize].bytes as usize
    }

    /// Whether anything waits for this connection.
    #[cfg(test)]
    pub(crate) fn holds(&self, id: ConnectionId) -> bool {
        self.chains[id.slot as usize].head != NONE
    }

    /// Appends bytes for one connection.
    pub(crate) fn append(&mut self, id: ConnectionId, write: impl FnOnce(&mut Vec<u8>)) {
        let run = self.share(write);
        self.append_run(id, run);
    }

    /// Writes bytes that are nobody's yet.
    pub(crate) fn share(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Run {
        let start = self.arena.len();
        write(&mut self.arena);
        Run { start: start as u32, length: (self.arena.len() - start) as u32 }
    }

    /// Appends shared bytes for one connection.
    pub(crate) fn append_run(&mut self, id: ConnectionId, run: Run) {
        if run.length == 0 {
            return;
        }
        self.bytes += run.length as usize;
        let chain = &mut self.chains[id.slot as usize];
        let place = self.segments.len() as u32;
        let bytes = chain.bytes + run.length;
        if chain.tail == NONE {
            *chain = Chain { head: place, tail: place, bytes: 0 };
            self.touched.push(id);
        } else {
            let tail = &mut self.segments[chain.tail as usize];
            if tail.run.start + tail.run.length == run.start {
                tail.run.length += run.length;
                chain.bytes = bytes;
                return;
            }
            tail.next = place;
            chain.tail = place;
        }
        self.chains[id.slot as usize].bytes = bytes;
        self.segments.push(Segment { run, next: NONE });
    }

    /// Forgets what waits for a connection whose socket is gone.
    pub(crate) fn discard(&mut self, slot: u32) {
        let chain = std::mem::replace(&mut self.chains[slot as usize], EMPTY);
        if chain.head != NONE {
            // The slot's next tenant must not find itself under this one's name.
            self.touched.retain(|id| id.slot != slot);
        }
    }

    /// Hands out each connection's bytes in one piece, in the order in which connections were first written to.
    pub(crate) fn flush(&mut self, mut send: impl FnMut(ConnectionId, &[u8])) {
        for id in self.touched.drain(..) {
            let chain = std::mem::replace(&mut self.chains[id.slot as usize], EMPTY);
            if chain.head == NONE {
                continue;
            }
            let first = self.segments[chain.head as usize];
            if first.next == NONE {
                send(id, slice(&self.arena, first.run));
                continue;
            }
            self.gathered.clear();
            let mut at = chain.head;
            while at != NONE {
                let segment = self.segments[at as usize];
                self.gathered.extend_from_slice(slice(&self.arena, segment.run));
                at = segment.next;
            }
            send(id, &self.gathered);
        }
        self.bytes = 0;
        self.arena.clear();
        self.arena.shrink_to(ARENA_KEPT_BYTES);
        self.gathered.clear();
        self.gathered.shrink_to(ARENA_KEPT_BYTES);
        self.segments.clear();
        self.segments.shrink_to(SEGMENTS_KEPT);
        self.touched.shrink_to(SEGMENTS_KEPT);
    }
}

fn slice(arena: &[u8], run: Run) -> &[u8] {
    &arena[run.start as usize..(run.start + run.length) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(slot: u32) -> ConnectionId {
        ConnectionId { slot, generation: 0 }
    }

    fn flushed(outbox: &mut Outbox) -> Vec<(u32, Vec<u8>)> {
        let mut sent = Vec::new();
        outbox.flush(|id, bytes| sent.push((id.slot, bytes.to_vec())));
        sent
    }

    #[test]
    fn interleaved_bytes_leave_in_one_piece_for_each_connection() {
        let mut outbox = Outbox::default();
        outbox.reserve_slot(1);
        for (slot, byte) in [(0, b'a'), (1, b'x'), (0, b'b'), (1, b'y'), (0, b'c')] {
            outbox.append(id(slot), |out| out.push(byte));
        }
        assert_eq!(outbox.bytes(), 5);
        assert_eq!(flushed(&mut outbox), [(0, b"abc".to_vec()), (1, b"xy".to_vec())]);
        assert_eq!(flushed(&mut outbox), []);
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn shared_bytes_reach_everyone_between_bytes_of_their_own() {
        let mut outbox = Outbox::default();
        outbox.reserve_slot(1);
        let head = outbox.share(|out| out.extend_from_slice(b"head-"));
        let tail = outbox.share(|out| out.extend_from_slice(b"-tail"));
        for slot in [0, 1] {
            outbox.append_run(id(slot), head);
            outbox.append(id(slot), |out| out.push(b'0' + slot as u8));
            outbox.append_run(id(slot), tail);
        }
        assert_eq!(flushed(&mut outbox), [(0, b"head-0-tail".to_vec()), (1, b"head-1-tail".to_vec())]);
    }

    #[test]
    fn a_connection_that_is_gone_is_sent_nothing() {
        let mut outbox = Outbox::default();
        outbox.reserve_slot(0);
        outbox.append(id(0), |out| out.push(1));
        outbox.discard(0);
        assert!(!outbox.holds(id(0)));
        assert_eq!(flushed(&mut outbox), []);
    }

    #[test]
    fn the_next_tenant_of_a_slot_is_sent_its_own_bytes_under_its_own_name() {
        let mut outbox = Outbox::default();
        outbox.reserve_slot(0);
        outbox.append(id(0), |out| out.push(1));
        assert_eq!(outbox.waiting(id(0)), 1);
        outbox.discard(0);
        let next = ConnectionId { slot: 0, generation: 1 };
        outbox.append(next, |out| out.extend_from_slice(&[2, 3]));
        outbox.append(next, |out| out.push(4));
        assert_eq!(outbox.waiting(next), 3);
        let mut sent = Vec::new();
        outbox.flush(|id, bytes| sent.push((id, bytes.to_vec())));
        assert_eq!(sent, [(next, vec![2, 3, 4])]);
        assert_eq!(outbox.waiting(next), 0);
    }
}
