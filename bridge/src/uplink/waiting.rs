//! What a link brought while its lane waited for room in the sink: frames, and what must not overtake them.
//!
//! Pure. A frame in here was read and nothing else: nobody was told of it, nobody heard it, and a link that is replaced lets go of it as of what lies unread.
//! Bounded by the link's window: [`Uplinks::has_room`](super::Uplinks::has_room) counts these bytes too.

use std::collections::VecDeque;
use std::hash::Hasher;

use holdfast_wire::link::{Handover, ToBridge, Uplink, next_record};
use holdfast_wire::mqtt::QoS;
use rustc_hash::{FxHashSet, FxHasher};

use super::is_will;

/// Bytes from which on a chunk is full: about what one read brings, so that a batch of what waited is like any other.
const CHUNK_BYTES: usize = 256 << 10;

/// The records, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// None is empty.
    chunks: VecDeque<Chunk>,
    bytes: u64,
    will_bytes: u64,
}

#[derive(Debug, Default)]
struct Chunk {
    records: Vec<u8>,
    will_bytes: u64,
    /// Hashes of the clients whose frames are in here. Where two clients have one, a handover waits for no reason.
    publishers: FxHashSet<u64>,
}

impl Waiting {
    /// A frame that came at `now_ms`.
    pub(super) fn push_frame(&mut self, uplink: &Uplink<'_>, now_ms: u64) {
        let mut uplink = *uplink;
        if uplink.message.published_at_ms == 0 {
            uplink.message.published_at_ms = now_ms;
        }
        let publisher = hash(uplink.message.publisher);
        let before = self.bytes;
        self.push(&ToBridge::Uplink(uplink)).publishers.insert(publisher);
        if is_will(&uplink.message) {
            let bytes = self.bytes - before;
            self.will_bytes += bytes;
            self.chunks.back_mut().into_iter().for_each(|chunk| chunk.will_bytes += bytes);
        }
    }

    /// A handover behind frames of its client.
    pub(super) fn push_handover(&mut self, handover: &Handover<'_>) {
        self.push(&ToBridge::Handover(*handover));
    }

    /// Whether a frame of this client may be in here.
    pub(super) fn has_frames_of(&self, client: &str) -> bool {
        let client = hash(client);
        self.chunks.iter().any(|chunk| chunk.publishers.contains(&client))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Bytes of the records.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Those of wills among them.
    pub(super) fn will_bytes(&self) -> u64 {
        self.will_bytes
    }

    /// Gives out the oldest records, as many as make a batch.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        let chunk = self.chunks.pop_front()?;
        self.bytes -= chunk.records.len() as u64;
        self.will_bytes -= chunk.will_bytes;
        Some(chunk.records)
    }

    /// Lets go of everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Keeps frames with QoS 0 alone, and of these none that would overtake one of its client that is let go of.
    pub(super) fn forget_what_is_said_again(&mut self) {
        let mut forgotten = FxHashSet::default();
        for chunk in std::mem::take(self).chunks {
            let mut records = &chunk.records[..];
            while let Ok(Some(record)) = next_record(&mut records) {
                let Ok(ToBridge::Uplink(uplink)) = ToBridge::decode(record) else { continue };
                let publisher = hash(uplink.message.publisher);
                if uplink.message.qos > QoS::AtMostOnce {
                    forgotten.insert(publisher);
                } else if !forgotten.contains(&publisher) {
                    self.push_frame(&uplink, uplink.message.published_at_ms);
                }
            }
        }
    }

    fn push(&mut self, record: &ToBridge<'_>) -> &mut Chunk {
        if self.chunks.back().is_none_or(|chunk| chunk.records.len() >= CHUNK_BYTES) {
            self.chunks.push_back(Chunk::default());
        }
        let last = self.chunks.len() - 1;
        let chunk = &mut self.chunks[last];
        let before = chunk.records.len();
        record.encode(&mut chunk.records);
        self.bytes += (chunk.records.len() - before) as u64;
        chunk
    }
}

fn hash(client: &str) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(client.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use holdfast_wire::ids::{Epoch, NodeId, Owner, ShardId};
    use holdfast_wire::message::Message;
    use holdfast_wire::mqtt::QoS;

    use super::*;

    fn frame<'a>(sequence: u64, publisher: &'a str, payload: &'a [u8]) -> Uplink<'a> {
        let message = Message {
            id: 0,
            topic: "t",
            qos: QoS::AtLeastOnce,
            retain: false,
            publisher,
            published_at_ms: 0,
            expires_at_ms: 0,
            properties: &[],
            payload,
        };
        Uplink {
            sequence,
            epoch: Epoch(1),
            packet_id: None,
            dup: false,
            resent: false,
            wants_receipt: false,
            event_time_ms: 0,
            message,
        }
    }

    #[test]
    fn records_come_out_in_their_order_by_the_batch_and_with_the_time_they_came() {
        let mut waiting = Waiting::default();
        let payload = vec![b'x'; CHUNK_BYTES / 4];
        for sequence in 1..=9 {
            waiting.push_frame(&frame(sequence, "d", &payload), 1_000 + sequence);
        }
        assert!(waiting.bytes() > 9 * payload.len() as u64);
        let (mut sequences, mut batches) = (Vec::new(), 0);
        while let Some(records) = waiting.take() {
            batches += 1;
            assert!(records.len() < 2 * CHUNK_BYTES);
            let mut rest = &records[..];
            while let Some(raw) = next_record(&mut rest).unwrap() {
                let Ok(ToBridge::Uplink(uplink)) = ToBridge::decode(raw) else { panic!("no frame") };
                assert_eq!(uplink.message.published_at_ms, 1_000 + uplink.sequence);
                sequences.push(uplink.sequence);
            }
        }
        assert_eq!(sequences, (1..=9).collect::<Vec<_>>());
        assert_eq!((batches, waiting.bytes(), waiting.is_empty()), (3, 0, true));
    }

    #[test]
    fn what_nobody_says_again_is_kept_unless_it_would_overtake_what_somebody_does() {
        let mut waiting = Waiting::default();
        let mut push = |sequence, publisher, qos, payload: &[u8]| {
            let mut frame = frame(sequence, publisher, payload);
            frame.message.qos = qos;
            waiting.push_frame(&frame, 1);
        };
        let large = vec![b'x'; CHUNK_BYTES];
        push(1, "a", QoS::AtMostOnce, b"x");
        push(2, "a", QoS::AtLeastOnce, &large);
        push(3, "a", QoS::AtMostOnce, b"x");
        push(4, "b", QoS::AtMostOnce, &large);
        push(5, "b", QoS::ExactlyOnce, b"x");
        waiting.push_handover(&Handover {
            client: "b",
            epoch: Epoch(2),
            owner: Owner { node: NodeId(1), shard: ShardId(0) },
            session: b"",
            owes_will: false,
        });
        waiting.forget_what_is_said_again();
        let mut kept = Vec::new();
        while let Some(records) = waiting.take() {
            let mut rest = &records[..];
            while let Some(raw) = next_record(&mut rest).unwrap() {
                let Ok(ToBridge::Uplink(uplink)) = ToBridge::decode(raw) else { panic!("no frame") };
                kept.push(uplink.sequence);
            }
        }
        assert_eq!((kept, waiting.bytes()), (vec![1, 4], 0));
    }

    #[test]
    fn bytes_of_wills_are_counted_by_themselves() {
        let mut waiting = Waiting::default();
        let payload = vec![b'x'; CHUNK_BYTES];
        let mut will = frame(1, "a", &payload);
        will.message.id = 7;
        waiting.push_frame(&will, 1);
        let bytes = waiting.bytes();
        waiting.push_frame(&frame(2, "b", b"x"), 1);
        assert_eq!(waiting.will_bytes(), bytes);
        waiting.take();
        assert_eq!(waiting.will_bytes(), 0);
        assert!(waiting.bytes() > 0);
    }

    #[test]
    fn it_knows_whose_frames_wait_for_as_long_as_they_do() {
        let mut waiting = Waiting::default();
        waiting.push_frame(&frame(1, "a", &vec![b'x'; CHUNK_BYTES]), 1);
        waiting.push_frame(&frame(2, "b", b"x"), 1);
        assert!(waiting.has_frames_of("a") && waiting.has_frames_of("b") && !waiting.has_frames_of("c"));
        waiting.take();
        assert!(!waiting.has_frames_of("a") && waiting.has_frames_of("b"));
        waiting.clear();
        assert!(!waiting.has_frames_of("b"));
        assert_eq!(waiting.bytes(), 0);
    }
}
