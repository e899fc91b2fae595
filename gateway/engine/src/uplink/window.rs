//! The unsettled frames of one link, in the order of their sequence.
//!
//! ```text
//!   first                               next_sequence
//!     │ settled │ unsettled │ settled │ ... │
//!     └ entries ──────────────────────────────
//!   chunk 7: record record record   chunk 8: record ...      only frames with QoS > 0 keep their bytes
//! ```
//! Frames settle in any order; the front moves on once it is settled, and a chunk is freed when the front has left it.

use std::collections::VecDeque;

use holdfast_wire::mqtt::PacketId;

use super::WILL_BYTES_MAX;
use crate::input::ConnectionId;

const CHUNK_BYTES: usize = 64 * 1024;
/// A frame that stays unsettled for long while others settle holds the chunks behind it. Up to this many windows' worth of bytes may lie
/// between the front and the newest frame; then the link takes no more until the front settles.
const SPAN_FACTOR: usize = 4;

/// What a frame is owed once it is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Nothing.
    QoS0,
    /// PUBACK or JSON ack.
    QoS1,
    /// PUBREC.
    QoS2,
    /// The end of its session: the will of the connection, which is gone.
    Will,
    /// That the store need not keep it: the will of an earlier connection of the same client.
    OwedWill,
}

/// One frame on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) connection: ConnectionId,
    pub(crate) packet_id: Option<PacketId>,
    pub(crate) kind: Kind,
    settled: bool,
    chunk: u32,
    start: u32,
    length: u32,
}

impl Entry {
    pub(crate) fn unplaced(connection: ConnectionId, packet_id: Option<PacketId>, kind: Kind) -> Self {
        Self { connection, packet_id, kind, settled: false, chunk: 0, start: 0, length: 0 }
    }
}

#[derive(Debug)]
pub(crate) struct Window {
    /// Bound on `unsettled_bytes`, set by the bridge.
    pub(crate) bytes_max: usize,
    /// Sequence of the front entry.
    first: u64,
    entries: VecDeque<Entry>,
    unsettled: usize,
    unsettled_bytes: usize,
    /// Bytes of all entries from the front on, settled or not.
    spanned_bytes: usize,
    chunks: VecDeque<Vec<u8>>,
    /// Number of the front chunk; wraps.
    first_chunk: u32,
}

impl Window {
    pub(crate) fn new() -> Self {
        Self {
            bytes_max: 0,
            first: 1,
            entries: VecDeque::new(),
            unsettled: 0,
            unsettled_bytes: 0,
            spanned_bytes: 0,
            chunks: VecDeque::new(),
            first_chunk: 0,
        }
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub(crate) fn unsettled(&self) -> usize {
        self.unsettled
    }

    pub(crate) fn takes_more(&self) -> bool {
        self.unsettled_bytes < self.bytes_max && self.spanned_bytes < self.bytes_max * SPAN_FACTOR
    }

    /// Nobody can be held back for a will, so it may lie beyond the bound.
    pub(crate) fn takes_will(&self) -> bool {
        let bytes_max = self.bytes_max + WILL_BYTES_MAX;
        self.unsettled_bytes < bytes_max && self.spanned_bytes < bytes_max * SPAN_FACTOR
    }

    /// Enough is free that waking a waiting connection is worth it.
    pub(crate) fn has_room_again(&self) -> bool {
        self.unsettled_bytes <= self.bytes_max / 4 * 3 && self.takes_more()
    }

    /// Notes that `record` was sent with [`Window::next_sequence`].
    pub(crate) fn push(
        &mut self,
        connection: ConnectionId,
        packet_id: Option<PacketId>,
        kind: Kind,
        record: &[u8],
    ) {
        let mut entry = Entry::unplaced(connection, packet_id, kind);
        entry.length = record.len() as u32;
        if kind != Kind::QoS0 {
            if self.chunks.back().is_none_or(|chunk| chunk.len() + record.len() > CHUNK_BYTES) {
                self.chunks.push_back(Vec::with_capacity(CHUNK_BYTES.max(record.len())));
            }
            let chunk = self.chunks.back_mut().expect("one was pushed above if there was none");
            entry.start = chunk.len() as u32;
            chunk.extend_from_slice(record);
        }
        entry.chunk = self.first_chunk.wrapping_add(self.chunks.len().saturating_sub(1) as u32);
        self.unsettled += 1;
        self.unsettled_bytes += record.len();
        self.spanned_bytes += record.len();
        self.entries.push_back(entry);
    }

    /// Settles what of the run is still unsettled. A run beyond what was sent is cut: it can only come from a confused bridge.
    pub(crate) fn settle(&mut self, first: u64, last: u64, mut each: impl FnMut(&Entry)) {
        let first = first.max(self.first);
        let last = last.min(self.next_sequence() - 1);
        for sequence in first..=last {
            let entry = &mut self.entries[(sequence - self.first) as usize];
            if !entry.settled {
                entry.settled = true;
                self.unsettled -= 1;
                self.unsettled_bytes -= entry.length as usize;
                each(entry);
            }
        }
        self.advance();
    }

    /// Empties the window, handing out unsettled frames in order, with their bytes if they keep any.
    pub(crate) fn drain(&mut self, mut each: impl FnMut(Entry, Option<&[u8]>)) {
        let next = self.next_sequence();
        for entry in std::mem::take(&mut self.entries) {
            if entry.settled {
                continue;
            }
            let record = (entry.kind != Kind::QoS0).then(|| {
                let chunk = &self.chunks[entry.chunk.wrapping_sub(self.first_chunk) as usize];
                &chunk[entry.start as usize..(entry.start + entry.length) as usize]
            });
            each(entry, record);
        }
        *self = Self { bytes_max: self.bytes_max, first: next, ..Self::new() };
    }

    fn advance(&mut self) {
        while let Some(front) = self.entries.front() {
            if !front.settled {
                break;
            }
            self.spanned_bytes -= front.length as usize;
            self.entries.pop_front();
            self.first += 1;
        }
        let Some(front) = self.entries.front() else {
            // One chunk is kept for the next burst, emptied.
            self.chunks.truncate(1);
            if let Some(chunk) = self.chunks.front_mut() {
                chunk.clear();
                chunk.shrink_to(CHUNK_BYTES);
            }
            self.entries.shrink_to(CHUNK_BYTES / size_of::<Entry>());
            return;
        };
        let keep_from = front.chunk;
        while self.first_chunk != keep_from && self.chunks.len() > 1 {
            self.chunks.pop_front();
            self.first_chunk = self.first_chunk.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECTION: ConnectionId = ConnectionId { slot: 0, generation: 0 };

    fn window() -> Window {
        Window { bytes_max: 1_000, ..Window::new() }
    }

    fn push(window: &mut Window, kind: Kind, record: &[u8]) -> u64 {
        let sequence = window.next_sequence();
        window.push(CONNECTION, None, kind, record);
        sequence
    }

    fn left(window: &mut Window) -> Vec<Option<Vec<u8>>> {
        let mut left = Vec::new();
        window.drain(|_, record| left.push(record.map(<[u8]>::to_vec)));
        left
    }

    #[test]
    fn frames_settle_in_any_order_and_each_once() {
        let mut window = window();
        for record in [b"one", b"two", b"thr"] {
            push(&mut window, Kind::QoS1, record);
        }
        let mut settled = 0;
        window.settle(2, 3, |_| settled += 1);
        window.settle(2, 9, |_| settled += 1);
        assert_eq!((settled, window.unsettled(), window.next_sequence()), (2, 1, 4));
        assert_eq!(left(&mut window), [Some(b"one".to_vec())]);
        assert_eq!(window.next_sequence(), 4);
    }

    #[test]
    fn qos_0_keeps_no_bytes_but_counts() {
        let mut window = window();
        push(&mut window, Kind::QoS0, &[0; 999]);
        assert!(window.takes_more());
        push(&mut window, Kind::QoS0, &[0; 1]);
        assert!(!window.takes_more());
        assert!(window.chunks.is_empty());
        window.settle(1, 1, |_| ());
        assert!(window.has_room_again());
        assert_eq!(left(&mut window), [None]);
    }

    #[test]
    fn a_frame_that_never_settles_cannot_hold_bytes_without_bound() {
        let mut window = window();
        push(&mut window, Kind::QoS1, b"stuck");
        let mut pushed = 0;
        while window.takes_more() {
            let sequence = push(&mut window, Kind::QoS1, &[0; 100]);
            window.settle(sequence, sequence, |_| ());
            pushed += 1;
            assert!(pushed < 100);
        }
        window.settle(1, 1, |_| ());
        assert!(window.has_room_again());
        assert_eq!(window.spanned_bytes, 0);
    }

    #[test]
    fn chunks_go_when_the_front_has_left_them() {
        let mut window = Window { bytes_max: usize::MAX / SPAN_FACTOR, ..Window::new() };
        for number in 0_u32..10_000 {
            push(&mut window, Kind::QoS1, &number.to_le_bytes().repeat(25));
        }
        assert!(window.chunks.len() > 10);
        window.settle(1, 9_990, |_| ());
        assert_eq!(window.chunks.len(), 1);
        let left = left(&mut window);
        assert_eq!(left.len(), 10);
        assert_eq!(left[0].as_deref().unwrap()[..4], 9_990_u32.to_le_bytes());
    }

    #[test]
    fn qos_0_and_1_mix_without_losing_their_bytes() {
        let mut window = Window { bytes_max: usize::MAX / SPAN_FACTOR, ..Window::new() };
        push(&mut window, Kind::QoS0, b"none");
        push(&mut window, Kind::QoS1, b"kept");
        window.settle(1, 1, |_| ());
        push(&mut window, Kind::QoS1, b"also");
        assert_eq!(left(&mut window), [Some(b"kept".to_vec()), Some(b"also".to_vec())]);
    }
}
