//! How a persistent session stands towards the streams it reads.
//!
//! ```text
//!   Announcing ── every live bridge knows its filters ──> Reading ── end of all streams reached ──> Live
//!                                                            ^                                       │
//!                                                            └── queue was full, a gap was seen, ────┘
//!                                                                or a link was lost or came up
//! ```
//! While `Live`, messages come from the bridges as they are published and streams are not read. In the other phases a live message that stands in a stream is left
//! there and read in its turn. So after any interruption nothing is missing and nothing is out of order.
//!
//! Offsets of a stream only grow, even where the store has lost it and made it anew: a message that comes live then is a gap, and the gap is read. They go back
//! only with a store that has lost its last writes, which shows in a place that comes live again, or in an end that lies before what was read ([`Heard`]).

use std::collections::HashSet;

use holdfast_wire::session_record::{Cursor, Offset, StreamKey};
use holdfast_wire::topic::parse_shared;

use super::heard::Heard;
use super::sending::Sending;

/// Messages of which it is remembered, while streams are read, that they were read. One that stands in two streams further apart than this comes twice.
const READ_IDS_MAX: usize = 4_096;

/// A persistent session's streams.
#[derive(Debug)]
pub(crate) struct Durable {
    pub(crate) streams: Vec<StreamState>,
    pub(crate) phase: Phase,
    /// The store does not know all of `Session::progress`.
    pub(crate) unsaved: bool,
    /// Nobody has told yet how far the streams reach: all are to be read once before going live.
    pub(crate) ask_all: bool,
    /// Filters that the store is asked to forget: an answer to an older SUBSCRIBE does not open their streams again.
    pub(crate) forgetting: Vec<Box<str>>,
    /// A live message was left because the store had not yet opened a stream that it stands in: once it has, all are read. Until no
    /// SUBSCRIBE is under way.
    pub(crate) left_unopened: bool,
    /// The number of the question that wrote it back to a store which had forgotten it; 0: none. Answers to older questions say nothing of it.
    pub(crate) restored: u64,
    /// The store has answered that question.
    pub(crate) is_restored: bool,
    /// What was heard of the stream that is being read when it was asked about, if that was more than had been taken; else 0.
    asked_for: Offset,
    /// Counts reads; an answer to another than the last one is of a stream that was closed meanwhile.
    pub(crate) reads: u32,
    /// Ids of the messages taken from streams since `Reading` began: one that stands in several streams is delivered once, and so is one whose append was in
    /// doubt and which a bridge appended again, where the second comes live. Bounded by [`READ_IDS_MAX`]; forgotten some seconds after it has
    /// become `Live`.
    pub(crate) read_ids: HashSet<u64, rustc_hash::FxBuildHasher>,
    /// Until when those ids are kept, in ms of the monotonic clock; 0: for some seconds from when it is `Live` again.
    remembers_until_ms: u64,
    /// Somebody has been told to see to that.
    will_be_reminded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Waits until this many filters are known to every live bridge.
    Announcing(u32),
    /// Reads the streams, the one with this index first. `asked`: a read is under way.
    Reading {
        stream: u16,
        asked: bool,
    },
    Live,
}

#[derive(Debug)]
pub(crate) struct StreamState {
    pub(crate) key: StreamKey,
    /// The last offset taken into the session's queues.
    pub(crate) delivered: Offset,
    /// The last offset heard of.
    pub(crate) seen: Offset,
    /// What came live.
    pub(crate) heard: Heard,
    /// Places behind the first and up to the second went with the store's data before they were taken: nobody can read them any more.
    lost: (Offset, Offset),
    /// Its subscription is gone; the place is kept so that indexes stay, until another stream takes it.
    pub(crate) closed: bool,
}

/// What a live message is to a session, judged by its places in the session's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Live {
    /// It stands in none of them, or next in all: take it.
    Take,
    /// It was taken before, or will be read from a stream.
    Leave,
}

impl Durable {
    pub(crate) fn new(client: &str) -> Self {
        let device = StreamState::new(StreamKey::Device(client.into()), 0);
        Self {
            streams: vec![device],
            phase: Phase::Live,
            unsaved: false,
            ask_all: false,
            forgetting: Vec::new(),
            left_unopened: false,
            restored: 0,
            is_restored: false,
            asked_for: 0,
            reads: 0,
            read_ids: HashSet::default(),
            remembers_until_ms: 0,
            will_be_reminded: false,
        }
    }

    pub(crate) fn find(&self, key: &StreamKey) -> Option<u16> {
        self.streams.iter().position(|stream| !stream.closed && stream.key == *key).map(|index| index as u16)
    }

    /// Reads this stream from now on, behind `acked`.
    pub(crate) fn open_stream(&mut self, cursor: Cursor) {
        let StreamState { key, delivered, .. } = StreamState::new(cursor.stream, cursor.acked);
        if let Some(stream) = self.streams.iter_mut().find(|stream| !stream.closed && stream.key == key) {
            stream.delivered = stream.delivered.max(delivered);
            stream.seen = stream.seen.max(delivered);
            return;
        }
        let stream = StreamState::new(key, delivered);
        match self.streams.iter_mut().find(|stream| stream.closed) {
            Some(place) => *place = stream,
            None => self.streams.push(stream),
        }
    }

    /// Reads it no more. Its place may be given to another stream, or to the same one in a later life with offsets that begin anew, so nothing
    /// may point at it any longer: neither what is queued nor a read that is under way.
    pub(crate) fn close_stream(&mut self, key: &StreamKey, sending: Option<&mut Sending>) {
        let Some(index) = self.find(key) else { return };
        self.streams[usize::from(index)].closed = true;
        if let Some(sending) = sending {
            sending.forget_stream(index);
        }
        if let Phase::Reading { stream, asked: true } = self.phase
            && stream == index
        {
            self.reads += 1;
            self.phase = Phase::Reading { stream, asked: false };
        }
    }

    /// A message came live at these places, and came the way that each message at such a place comes once. Where one did before, the store has gone
    /// back: what follows is new again.
    pub(crate) fn hear(&mut self, places: &[(u16, Offset)], mut sending: Option<&mut Sending>) {
        for (stream, offset) in places {
            if self.streams[usize::from(*stream)].heard.note(*offset) {
                self.go_back(*stream, offset - 1, sending.as_deref_mut());
            }
        }
    }

    /// The store has lost what stood in a stream behind this place, and gives out other messages there.
    fn go_back(&mut self, index: u16, end: Offset, sending: Option<&mut Sending>) {
        let stream = &mut self.streams[usize::from(index)];
        stream.delivered = stream.delivered.min(end);
        stream.seen = stream.delivered;
        if let Some(sending) = sending {
            sending.forget_places(index, end.saturating_add(1)..);
        }
        // A read that is under way goes on from a place that is none.
        if let Phase::Reading { stream, asked: true } = self.phase
            && stream == index
        {
            self.reads += 1;
            self.phase = Phase::Reading { stream, asked: false };
        }
    }

    /// A read found a stream's end. True if all streams are to be read from the first one on: what was heard of this one before it was asked about is not
    /// there, so the store has gone back, and what came live since may stand at places that seemed known.
    pub(crate) fn find_end(&mut self, index: u16, end: Offset, sending: Option<&mut Sending>) -> bool {
        let is_less = end < self.asked_for;
        self.ask_all |= is_less;
        let stream = &mut self.streams[usize::from(index)];
        if end >= stream.delivered {
            stream.seen = if is_less { end } else { stream.seen.max(end) };
        } else if end == 0 {
            // There is none, or nothing ever stood in it. Should it be made anew, it begins behind what is known of it.
            stream.seen = stream.delivered;
        } else {
            stream.heard = Heard::default();
            self.go_back(index, end, sending);
        }
        is_less
    }

    /// Notes that a message was taken which another way may bring as well. False if it had been.
    pub(crate) fn note_read(&mut self, id: u64) -> bool {
        if self.read_ids.len() >= READ_IDS_MAX {
            self.read_ids.clear();
        }
        self.read_ids.insert(id)
    }

    /// Judges a message that a bridge delivers, by its places in streams and its id. Marks what it has seen; a gap starts reading.
    pub(crate) fn judge_live(&mut self, positions: &[(u16, Offset)], id: u64) -> Live {
        if positions.is_empty() {
            return Live::Take;
        }
        let mut gap = false;
        let mut new = false;
        for (stream, offset) in positions {
            let stream = &mut self.streams[usize::from(*stream)];
            stream.seen = stream.seen.max(*offset);
            new |= *offset > stream.delivered;
            gap |= *offset > stream.delivered + 1;
        }
        if !new {
            return Live::Leave;
        }
        match self.phase {
            Phase::Live if gap => {
                self.read_again();
                Live::Leave
            }
            Phase::Live if self.read_ids.contains(&id) => {
                self.mark_delivered(positions);
                Live::Leave
            }
            Phase::Live => Live::Take,
            Phase::Announcing(_) | Phase::Reading { .. } => Live::Leave,
        }
    }

    /// Notes that a message with these places is in the session's queues, or was rightly passed over.
    pub(crate) fn mark_delivered(&mut self, positions: &[(u16, Offset)]) {
        for (stream, offset) in positions {
            let stream = &mut self.streams[usize::from(*stream)];
            stream.delivered = stream.delivered.max(*offset);
            stream.seen = stream.seen.max(*offset);
        }
    }

    /// Whether a place is one that the store has lost before this session took it. What comes live from there comes no other way.
    pub(crate) fn is_lost(&self, index: u16, place: Offset) -> bool {
        let (behind, end) = self.streams[usize::from(index)].lost;
        behind < place && place <= end
    }

    /// Goes back to reading the streams.
    pub(crate) fn read_again(&mut self) {
        if self.phase == Phase::Live {
            self.phase = Phase::Reading { stream: 0, asked: false };
        }
    }

    /// Begins to read all streams anew from where the session stands in each; the answer to a read that is under way counts no more.
    pub(crate) fn read_all_again(&mut self) {
        self.ask_all = true;
        // Those who wait for the bridges begin after that anyway.
        if !matches!(self.phase, Phase::Announcing(_)) {
            self.reads += 1;
            self.phase = Phase::Reading { stream: 0, asked: false };
        }
    }

    /// The store has forgotten its streams and made them anew, or some of them. What is made anew begins behind all that was known, and is read from its
    /// beginning on, as messages may stand in it that nobody could deliver; but for those that have come already.
    pub(crate) fn begin_anew(&mut self, cursors: Vec<Cursor>, mut sending: Option<&mut Sending>) {
        for stream in &mut self.streams {
            stream.seen = stream.delivered;
        }
        for cursor in cursors {
            let Some(index) = self.find(&cursor.stream) else {
                self.open_stream(cursor);
                continue;
            };
            // What is queued from before settles nothing that stands there now.
            if let Some(sending) = &mut sending {
                sending.forget_places(index, ..=cursor.acked);
            }
            let stream = &mut self.streams[usize::from(index)];
            if is_group(&cursor.stream) {
                // What its members have left behind is this one's.
                (stream.delivered, stream.seen) = (cursor.acked, cursor.acked);
            } else if cursor.acked > stream.delivered {
                stream.lost = (stream.delivered, cursor.acked);
            }
        }
        self.read_all_again();
    }

    /// What to read next while `Reading`; becomes `Live` once no stream has more.
    pub(crate) fn next_read(&mut self) -> Option<(StreamKey, Offset)> {
        let Phase::Reading { mut stream, asked: false } = self.phase else { return None };
        while usize::from(stream) < self.streams.len() {
            let state = &self.streams[usize::from(stream)];
            if !state.closed && (self.ask_all || state.seen > state.delivered) {
                return Some(self.ask(stream));
            }
            stream += 1;
        }
        // A message may have come to an earlier stream while a later one was read.
        let behind = self.streams.iter().position(|stream| !stream.closed && stream.seen > stream.delivered);
        if let Some(behind) = behind {
            return Some(self.ask(behind as u16));
        }
        self.phase = Phase::Live;
        self.ask_all = false;
        self.remembers_until_ms = 0;
        None
    }

    fn ask(&mut self, index: u16) -> (StreamKey, Offset) {
        let stream = &self.streams[usize::from(index)];
        self.asked_for = if stream.seen > stream.delivered { stream.seen } else { 0 };
        self.reads += 1;
        self.phase = Phase::Reading { stream: index, asked: true };
        (stream.key.clone(), stream.delivered)
    }

    /// Whether somebody has to be told to call [`Durable::forget_read`] at `until_ms`: it has become `Live` with ids to forget, and nobody has been told yet.
    pub(crate) fn begins_to_remember(&mut self, until_ms: u64) -> bool {
        if self.phase != Phase::Live || self.read_ids.is_empty() || self.remembers_until_ms != 0 {
            return false;
        }
        self.remembers_until_ms = until_ms;
        !std::mem::replace(&mut self.will_be_reminded, true)
    }

    /// Forgets what it has read. If it has read again since somebody was told, not yet: when to call again, or nothing while it reads.
    pub(crate) fn forget_read(&mut self, now_ms: u64) -> Option<u64> {
        let lives = self.phase == Phase::Live && self.remembers_until_ms != 0;
        if lives && self.remembers_until_ms > now_ms {
            return Some(self.remembers_until_ms);
        }
        self.will_be_reminded = false;
        if lives {
            self.read_ids = HashSet::default();
            self.remembers_until_ms = 0;
        }
        None
    }

    /// Where a resume must begin: before the first message that is pending and thus saved nowhere else. Inflight messages
    /// are saved with the session.
    pub(crate) fn cursors(&self, sending: Option<&Sending>) -> Vec<Cursor> {
        let mut acked: Vec<Offset> = self.streams.iter().map(|stream| stream.delivered).collect();
        for item in sending.into_iter().flat_map(|sending| &sending.pending) {
            for (stream, offset) in &item.positions {
                let acked = &mut acked[usize::from(*stream)];
                *acked = (*acked).min(offset - 1);
            }
        }
        self.streams
            .iter()
            .zip(acked)
            .filter(|(stream, _)| !stream.closed)
            .map(|(stream, acked)| Cursor { stream: stream.key.clone(), acked })
            .collect()
    }
}

fn is_group(stream: &StreamKey) -> bool {
    matches!(stream, StreamKey::Filter(filter) if parse_shared(filter).is_some())
}

impl StreamState {
    pub(crate) fn new(key: StreamKey, acked: Offset) -> Self {
        Self { key, delivered: acked, seen: acked, heard: Heard::default(), lost: (0, 0), closed: false }
    }

    /// Whether it is the open stream of this filter.
    pub(crate) fn is_of(&self, filter: &str) -> bool {
        !self.closed && matches!(&self.key, StreamKey::Filter(name) if **name == *filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Durable {
        let mut durable = Durable::new("d");
        durable.open_stream(Cursor { stream: StreamKey::Filter("a/#".into()), acked: 4 });
        durable
    }

    #[test]
    fn a_message_that_was_read_and_comes_live_at_a_later_place_is_left_until_it_is_forgotten() {
        let mut durable = live();
        durable.read_ids.insert(7);
        assert!(durable.begins_to_remember(5_000));
        assert!(!durable.begins_to_remember(6_000), "somebody sees to it already");
        assert_eq!(durable.judge_live(&[(1, 5)], 7), Live::Leave);
        assert_eq!(durable.judge_live(&[(1, 6)], 8), Live::Take, "no gap was left");
        assert_eq!(durable.forget_read(5_000), None);
        assert!(durable.read_ids.is_empty() && !durable.begins_to_remember(9_000));
    }

    #[test]
    fn what_is_read_meanwhile_is_kept_for_its_own_time() {
        let mut durable = live();
        durable.read_ids.insert(7);
        assert!(durable.begins_to_remember(5_000));
        durable.read_again();
        assert!(durable.next_read().is_none() && durable.phase == Phase::Live);
        assert!(!durable.begins_to_remember(9_900), "one reminder at a time");
        assert_eq!(durable.forget_read(5_000), Some(9_900));
        durable.read_again();
        assert_eq!(durable.forget_read(9_900), None);
        assert!(!durable.read_ids.is_empty(), "it reads");
        assert!(durable.next_read().is_none() && durable.begins_to_remember(15_000));
    }

    #[test]
    fn the_next_message_is_taken_once() {
        let mut durable = live();
        assert_eq!(durable.judge_live(&[(1, 5)], 1), Live::Take);
        durable.mark_delivered(&[(1, 5)]);
        assert_eq!(durable.judge_live(&[(1, 5)], 1), Live::Leave);
        assert_eq!(durable.phase, Phase::Live);
    }

    #[test]
    fn a_gap_is_read_from_the_stream_before_going_on() {
        let mut durable = live();
        assert_eq!(durable.judge_live(&[(1, 6)], 1), Live::Leave);
        assert_eq!(durable.next_read(), Some((StreamKey::Filter("a/#".into()), 4)));
        assert_eq!(durable.next_read(), None, "one read at a time");
        durable.mark_delivered(&[(1, 6)]);
        durable.phase = Phase::Reading { stream: 1, asked: false };
        assert_eq!(durable.next_read(), None);
        assert_eq!(durable.phase, Phase::Live);
    }

    #[test]
    fn a_message_that_comes_while_another_stream_is_read_is_read_too() {
        let mut durable = live();
        durable.phase = Phase::Reading { stream: 0, asked: false };
        durable.ask_all = true;
        assert!(durable.next_read().is_some());
        durable.ask_all = false;
        assert_eq!(durable.judge_live(&[(0, 1)], 1), Live::Leave);
        durable.phase = Phase::Reading { stream: 2, asked: false };
        assert_eq!(durable.next_read(), Some((StreamKey::Device("d".into()), 0)));
    }

    #[test]
    fn the_place_of_a_closed_stream_is_used_again_without_its_past() {
        let mut durable = live();
        durable.phase = Phase::Reading { stream: 1, asked: false };
        durable.ask_all = true;
        assert!(durable.next_read().is_some());
        let read = durable.reads;
        let key = StreamKey::Filter("a/#".into());
        durable.close_stream(&key, None);
        assert_ne!(durable.reads, read, "the answer to the read that is under way counts no more");
        durable.open_stream(Cursor { stream: key.clone(), acked: 0 });
        assert_eq!((durable.streams.len(), durable.find(&key)), (2, Some(1)));
        assert_eq!(durable.streams[1].delivered, 0);
    }

    #[test]
    fn a_stream_that_is_made_anew_is_read_from_its_beginning_and_what_has_come_of_it_is_not_read_again() {
        // It may have come live before the session was back.
        for had in [4, 1_002] {
            let mut durable = live();
            (durable.streams[1].delivered, durable.streams[1].seen) = (had, had + 3);
            durable.begin_anew(vec![Cursor { stream: StreamKey::Filter("a/#".into()), acked: 1_000 }], None);
            durable.phase = Phase::Reading { stream: 1, asked: false };
            assert_eq!(durable.next_read(), Some((StreamKey::Filter("a/#".into()), had)));
        }
    }

    #[test]
    fn a_member_that_is_back_reads_what_its_group_has_left_behind() {
        let mut durable = live();
        let group = |acked| Cursor { stream: StreamKey::Filter("$share/g/a".into()), acked };
        durable.open_stream(group(500));
        durable.begin_anew(vec![group(480)], None);
        assert_eq!(durable.streams[2].delivered, 480);
    }

    #[test]
    fn an_end_before_what_was_read_says_that_the_store_went_back() {
        let mut durable = live();
        durable.mark_delivered(&[(1, 500)]);
        durable.find_end(1, 490, None);
        assert_eq!(durable.judge_live(&[(1, 491)], 1), Live::Take);
        durable.mark_delivered(&[(1, 500)]);
        durable.streams[1].seen = 510;
        durable.find_end(1, 0, None);
        assert_eq!(durable.next_read(), None, "nobody waits for what a stream had that is no more");
        durable.read_again();
        assert_eq!(durable.judge_live(&[(1, 9_001)], 2), Live::Leave, "made anew, it begins behind that");
        assert_eq!(durable.next_read(), Some((StreamKey::Filter("a/#".into()), 500)));
    }

    #[test]
    fn a_place_that_was_heard_of_and_is_not_there_is_asked_for_once() {
        // The stream of one that began anew, and that of one which had read on: neither has what a message that was on its way says.
        for (taken, heard_of, end) in [(0, 41, 0), (480, 495, 490), (480, 495, 480)] {
            let mut durable = Durable::new("d");
            durable.streams[0].delivered = taken;
            durable.streams[0].seen = heard_of;
            durable.read_again();
            assert_eq!(durable.next_read(), Some((StreamKey::Device("d".into()), taken)));
            durable.mark_delivered(&[(0, end)]);
            assert!(durable.find_end(0, end, None), "all are read once more, for what came meanwhile");
            durable.phase = Phase::Reading { stream: 0, asked: false };
            assert!(durable.next_read().is_some());
            assert!(!durable.find_end(0, end, None));
            durable.phase = Phase::Reading { stream: 1, asked: false };
            assert_eq!(durable.next_read(), None);
            assert_eq!(durable.phase, Phase::Live);
        }
    }

    #[test]
    fn a_place_that_comes_live_again_is_taken_again_and_what_was_queued_of_it_settles_it_no_more() {
        let mut durable = live();
        for place in 5..=9 {
            durable.hear(&[(1, place)], None);
            assert_eq!(durable.judge_live(&[(1, place)], place), Live::Take);
            durable.mark_delivered(&[(1, place)]);
        }
        durable.read_all_again();
        assert!(durable.next_read().is_some());
        let read = durable.reads;
        durable.hear(&[(1, 8)], None);
        assert_eq!(durable.judge_live(&[(1, 8)], 20), Live::Leave, "it is read");
        durable.phase = Phase::Reading { stream: 1, asked: false };
        assert!(durable.reads >= read);
        assert_eq!(durable.next_read(), Some((StreamKey::Filter("a/#".into()), 7)));
    }

    #[test]
    fn a_resume_begins_before_the_first_pending_message() {
        use crate::session::sending::Item;
        use holdfast_wire::message::{Message, SharedMessage};
        use holdfast_wire::mqtt::QoS;
        let mut durable = live();
        durable.mark_delivered(&[(1, 9)]);
        let message = SharedMessage::new(&Message {
            id: 1,
            topic: "a/b",
            qos: QoS::AtLeastOnce,
            retain: false,
            publisher: "",
            published_at_ms: 0,
            expires_at_ms: 0,
            properties: &[],
            payload: &[],
        });
        let mut sending = Sending::default();
        sending.push_pending(Item {
            message,
            qos: QoS::AtLeastOnce,
            retain: false,
            subscription_ids: [].into(),
            report: None,
            positions: [(1, 8)].into(),
        });
        assert_eq!(durable.cursors(Some(&sending))[1].acked, 7);
        assert_eq!(durable.cursors(None)[1].acked, 9);
    }
}
