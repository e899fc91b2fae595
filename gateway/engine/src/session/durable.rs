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
//! The stream of a shared subscription's group is divided among its members. A message in it is claimed, never delivered live, and offsets are the session's own
//! count of what it has claimed. So no gap tells of anything; somebody has to say that something may wait:
//!
//! ```text
//!   nothing known ── a bridge says so, it has joined, or all streams are read again ──> something may wait ── its turn, and room ──> claimed
//!         ^                                                                                  ^── the store has more ──────────────────┤
//!         └──────────────────────────── the store has no more ────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Offsets of another stream only grow, even where the store has lost it and made it anew: a message that comes live then is a gap, and the gap is read. They go back
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
    /// Until when those ids are kept, in ms of the monotonic clock; 0: not said yet. With further ones they are kept for some seconds from when it is `Live` again.
    remembers_until_ms: u64,
    /// Something was read since that was set.
    has_read: bool,
    /// Somebody has been told to see to that.
    will_be_reminded: bool,
}

/// What to ask a stream for next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NextRead {
    pub(crate) key: StreamKey,
    /// Behind this offset.
    pub(crate) after: Offset,
    /// It is the stream of a group: what is asked for is claimed.
    pub(crate) is_claim: bool,
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
    /// The last offset taken into the session's queues; in the stream of a group, the last one of the session's own count.
    pub(crate) delivered: Offset,
    /// The last offset heard of.
    pub(crate) seen: Offset,
    /// What came live.
    pub(crate) heard: Heard,
    /// Places behind the first and up to the second went with the store's data before they were taken: nobody can read them any more.
    lost: (Offset, Offset),
    /// Its subscription is gone; the place is kept so that indexes stay, until another stream takes it.
    pub(crate) closed: bool,
    /// It is the stream of a shared subscription's group.
    pub(crate) is_group: bool,
    /// Somebody has said, since it was last asked, that something may wait in the group's stream.
    pub(crate) waits: bool,
    /// A claim was not answered, and is to be made again.
    failed: bool,
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
            has_read: false,
            will_be_reminded: false,
        }
    }

    pub(crate) fn find(&self, key: &StreamKey) -> Option<u16> {
        self.streams.iter().position(|stream| !stream.closed && stream.key == *key).map(|index| index as u16)
    }

    /// Reads this stream from now on, behind `acked`. In that of a group something may have waited for a member to come ([`Durable::claim_what_waits`]).
    pub(crate) fn open_stream(&mut self, cursor: Cursor) {
        let StreamState { key, delivered, .. } = StreamState::new(cursor.stream, cursor.acked);
        if let Some(stream) = self.streams.iter_mut().find(|stream| !stream.closed && stream.key == key) {
            // It has joined again.
            stream.waits |= stream.is_group && delivered > stream.delivered;
            stream.delivered = stream.delivered.max(delivered);
            stream.seen = stream.seen.max(delivered);
            return;
        }
        let mut stream = StreamState::new(key, delivered);
        stream.waits = stream.is_group;
        match self.streams.iter_mut().find(|stream| stream.closed) {
            Some(place) => *place = stream,
            None => self.streams.push(stream),
        }
    }

    /// Reads it no more. Its place may be given to another stream, or to the same one in a later life with offsets that begin anew, so nothing
    /// may point at it any longer: neither what is queued nor a read that is under way. What was claimed of a group's stream and not sent is no longer
    /// the session's, as the store gives it to other members.
    pub(crate) fn close_stream(&mut self, key: &StreamKey, mut sending: Option<&mut Sending>) {
        let Some(index) = self.find(key) else { return };
        let stream = &mut self.streams[usize::from(index)];
        stream.closed = true;
        if stream.is_group
            && let Some(sending) = sending.as_deref_mut()
        {
            // It may be claimed again, should the session come back to the group.
            sending.drop_pending(index, |item| _ = self.read_ids.remove(&item.message.view().id));
        }
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

    /// A claim was answered up to what was delivered last; there is more if its `end` lies beyond. False if the store says so and has given nothing, so that
    /// there is no use in asking it again at once.
    pub(crate) fn find_claimed(&mut self, index: u16, is_anything: bool, end: Offset) -> bool {
        let stream = &mut self.streams[usize::from(index)];
        let is_more = end > stream.delivered;
        stream.waits |= is_more;
        is_anything || !is_more
    }

    /// Something may wait in the stream of a group.
    pub(crate) fn note_waiting(&mut self, index: u16) {
        self.streams[usize::from(index)].waits = true;
        self.read_again();
    }

    /// The session is to claim what may wait for it, if that has not begun.
    pub(crate) fn claim_what_waits(&mut self) {
        if self.streams.iter().any(|stream| !stream.closed && stream.waits) {
            self.read_again();
        }
    }

    /// The stream that was asked could not answer, and is to be asked again with the next save. True if others are read meanwhile: what is claimed has no place among
    /// what comes live, and the store's other parts may well answer.
    pub(crate) fn ask_later(&mut self, index: u16) -> bool {
        let stream = &mut self.streams[usize::from(index)];
        let is_group = stream.is_group;
        (stream.waits, stream.failed) = (false, is_group);
        self.phase = Phase::Reading { stream: index + u16::from(is_group), asked: false };
        is_group
    }

    /// Claims that failed are made again: the store may have carried them out, and nobody else is given what it gave.
    pub(crate) fn claim_again(&mut self) {
        for index in 0..self.streams.len() {
            if std::mem::take(&mut self.streams[index].failed) {
                self.note_waiting(index as u16);
            }
        }
    }

    /// Notes that a message was taken which another way may bring as well. False if it had been.
    pub(crate) fn note_read(&mut self, id: u64) -> bool {
        if self.read_ids.len() >= READ_IDS_MAX {
            self.read_ids.clear();
        }
        self.has_read = true;
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
            if cursor.acked > stream.delivered && stream.is_group {
                // It has joined again, and counts anew. Otherwise its count goes on, also where the store knows less of it.
                (stream.delivered, stream.seen) = (cursor.acked, cursor.acked);
            } else if cursor.acked > stream.delivered {
                stream.lost = (stream.delivered, cursor.acked);
            }
        }
        self.read_all_again();
    }

    /// What to read next while `Reading`; becomes `Live` once no stream has more.
    pub(crate) fn next_read(&mut self) -> Option<NextRead> {
        let Phase::Reading { stream, asked: false } = self.phase else { return None };
        if let Some(next) = self.next_of_pass(stream) {
            return Some(self.ask(next));
        }
        // All were asked. A group's stream that has more each time must not have the others asked again with it.
        self.ask_all = false;
        // A message may have come to an earlier stream while a later one was read.
        if let Some(behind) = self.next_of_pass(0) {
            return Some(self.ask(behind));
        }
        self.phase = Phase::Live;
        None
    }

    /// Whether what is to be read next is claimed. Changes nothing.
    pub(crate) fn is_next_a_claim(&self) -> bool {
        let Phase::Reading { stream, asked: false } = self.phase else { return false };
        let behind = || self.streams.iter().position(|stream| !stream.closed && stream.is_behind());
        let next = self.next_of_pass(stream).map(usize::from).or_else(behind);
        next.is_some_and(|next| self.streams[next].is_group)
    }

    /// The first stream from this one on that is to be asked.
    fn next_of_pass(&self, from: u16) -> Option<u16> {
        let mut rest = self.streams.iter().enumerate().skip(usize::from(from));
        let is_next = |stream: &StreamState| !stream.closed && (self.ask_all || stream.is_behind());
        rest.find(|(_, stream)| is_next(stream)).map(|(index, _)| index as u16)
    }

    fn ask(&mut self, index: u16) -> NextRead {
        let stream = &mut self.streams[usize::from(index)];
        self.asked_for = if stream.seen > stream.delivered { stream.seen } else { 0 };
        // What is said from now on may be of something that this question does not find.
        stream.waits = false;
        self.reads += 1;
        self.phase = Phase::Reading { stream: index, asked: true };
        NextRead { key: stream.key.clone(), after: stream.delivered, is_claim: stream.is_group }
    }

    /// Whether somebody has to be told to call [`Durable::forget_read`] at `until_ms`: it has become `Live` with ids to forget, and nobody has been told yet.
    pub(crate) fn begins_to_remember(&mut self, until_ms: u64) -> bool {
        let is_said = self.remembers_until_ms != 0 && !self.has_read;
        if self.phase != Phase::Live || self.read_ids.is_empty() || is_said {
            return false;
        }
        (self.remembers_until_ms, self.has_read) = (until_ms, false);
        !std::mem::replace(&mut self.will_be_reminded, true)
    }

    /// Forgets what it has read. If it has read more since somebody was told, not yet: when to call again, or nothing while it reads.
    pub(crate) fn forget_read(&mut self, now_ms: u64) -> Option<u64> {
        let is_all = self.remembers_until_ms != 0 && !self.has_read;
        if is_all && self.remembers_until_ms > now_ms {
            return Some(self.remembers_until_ms);
        }
        self.will_be_reminded = false;
        if is_all {
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

impl StreamState {
    pub(crate) fn new(key: StreamKey, acked: Offset) -> Self {
        let is_group = matches!(&key, StreamKey::Filter(filter) if parse_shared(filter).is_some());
        let (delivered, seen) = (acked, acked);
        let (heard, lost) = (Heard::default(), (0, 0));
        Self { key, delivered, seen, heard, lost, closed: false, is_group, waits: false, failed: false }
    }

    /// Whether it is the open stream of this filter.
    pub(crate) fn is_of(&self, filter: &str) -> bool {
        !self.closed && matches!(&self.key, StreamKey::Filter(name) if **name == *filter)
    }

    fn is_behind(&self) -> bool {
        if self.is_group { self.waits } else { self.seen > self.delivered }
    }
}

#[cfg(test)]
mod tests;
