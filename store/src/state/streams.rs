//! Streams: messages in order, kept as long as someone has yet to read them and the bounds allow.
//!
//! A stream of a filter exists while sessions hold the filter, and begins anew when the first one comes back. A
//! device's stream belongs to its session and exists here only while it holds messages or has lost some; otherwise its
//! session's cursor is all there is to know. Messages go from the front: once everyone has read them, or a bound cuts.

use std::collections::{HashMap, VecDeque};

use holdfast_wire::message::SharedMessage;
use holdfast_wire::session_record::{Offset, StreamKey};

use super::change::{Change, Journal, StreamId, StreamRow};
use super::deadlines::{Deadlines, Ending};
use super::readers::{Group, Marks, Readers};
use super::weights::Weights;
use crate::contract::StreamBounds;

/// All streams. What each may hold is in `bounds`; how many there are is bounded by the sessions that hold them.
pub(crate) struct Streams {
    by_key: HashMap<StreamKey, Stream>,
    bounds: StreamBounds,
    weights: Weights,
    next_id: StreamId,
}

struct Stream {
    id: StreamId,
    /// Offset of the log's first message; the log has no gaps, so a message's place follows from it.
    first: Offset,
    log: VecDeque<SharedMessage>,
    bytes: u64,
    /// What [`Deadlines`] holds for it; 0 for nothing. It may be earlier than the oldest message's real end, never later
    /// than when it was set.
    deadline_ms: u64,
    readers: Readers,
}

impl Streams {
    pub(crate) fn new(bounds: StreamBounds) -> Self {
        Self { by_key: HashMap::new(), bounds, weights: Weights::default(), next_id: 1 }
    }

    /// Bytes of encoded messages in all of them.
    pub(crate) fn bytes(&self) -> u64 {
        self.weights.total()
    }

    pub(crate) fn contains(&self, key: &StreamKey) -> bool {
        self.by_key.contains_key(key)
    }

    /// The filters that have a stream, in order.
    pub(crate) fn filters(&self) -> Vec<Box<str>> {
        let mut filters: Vec<_> = self
            .by_key
            .keys()
            .filter_map(|key| match key {
                StreamKey::Filter(filter) => Some(filter.clone()),
                StreamKey::Device(_) => None,
            })
            .collect();
        filters.sort_unstable();
        filters
    }

    /// One more session reads a filter's stream, from its end on. Gives the session's mark and where it is told to stand, which
    /// for a group's member is where the group stands.
    pub(crate) fn join(
        &mut self,
        key: &StreamKey,
        rests: bool,
        journal: &mut impl Journal,
    ) -> (Offset, Offset) {
        let stream = match self.by_key.get_mut(key) {
            Some(stream) => stream,
            None => self.create(key, 0, journal),
        };
        let end = stream.end();
        match &mut stream.readers {
            Readers::Each(marks) => {
                marks.add(end);
                (end, end)
            }
            Readers::Group(group) => {
                group.join(end, rests);
                stream.record_row(key, journal);
                (end, stream.cursor())
            }
        }
    }

    /// A session whose mark is `mark` reads no longer; the last one takes the stream with it.
    pub(crate) fn leave(
        &mut self,
        key: &StreamKey,
        mark: Offset,
        rests: bool,
        deadlines: &mut Deadlines,
        journal: &mut impl Journal,
    ) {
        let Some(stream) = self.by_key.get_mut(key) else { return };
        let end = stream.end();
        match &mut stream.readers {
            Readers::Each(marks) => marks.remove(mark),
            Readers::Group(group) => group.leave(mark, end, rests),
        }
        if stream.readers.is_empty() {
            return self.drop_stream(key, deadlines, journal);
        }
        stream.record_group(key, journal);
        stream.trim_settled(key, &mut self.weights, journal);
    }

    /// Moves a reader's mark, forward and within the stream. Gives where it is then.
    pub(crate) fn advance(
        &mut self,
        key: &StreamKey,
        from: Offset,
        to: Offset,
        rests: bool,
        deadlines: &mut Deadlines,
        journal: &mut impl Journal,
    ) -> Offset {
        let Some(stream) = self.by_key.get_mut(key) else { return from };
        let end = stream.end();
        let to = to.min(end);
        if to <= from {
            return from;
        }
        match &mut stream.readers {
            Readers::Each(marks) => {
                marks.remove(from);
                marks.add(to);
            }
            // What it left behind may be another's by now.
            Readers::Group(_) if rests => return from,
            Readers::Group(group) => group.advance(from, to),
        }
        stream.trim_settled(key, &mut self.weights, journal);
        if matches!(key, StreamKey::Device(_)) && to == end {
            self.drop_stream(key, deadlines, journal);
        }
        to
    }

    /// A session's connection has ended, and the session rests.
    pub(crate) fn rest(&mut self, key: &StreamKey, mark: Offset, journal: &mut impl Journal) {
        let Some(stream) = self.by_key.get_mut(key) else { return };
        let end = stream.end();
        if let Readers::Group(group) = &mut stream.readers {
            group.rest(mark, end);
            stream.record_row(key, journal);
        }
    }

    /// A session was opened again. Gives where it reads on from, which is its mark from now on.
    pub(crate) fn resume(
        &mut self,
        key: &StreamKey,
        mark: Offset,
        rested: bool,
        persistent: bool,
        journal: &mut impl Journal,
    ) -> Offset {
        let Some(stream) = self.by_key.get_mut(key) else { return mark };
        let cursor = stream.cursor();
        let Readers::Group(group) = &mut stream.readers else { return mark };
        group.resume(mark, cursor, rested, persistent);
        stream.record_row(key, journal);
        cursor
    }

    /// Where a reader of the stream is told to stand: a member where its group does, any other at its mark.
    pub(crate) fn stands_at(&self, key: &StreamKey, mark: Offset) -> Offset {
        match self.by_key.get(key) {
            Some(stream) if matches!(stream.readers, Readers::Group(_)) => stream.cursor(),
            _ => mark,
        }
    }

    /// Cuts what the bounds of a stream do not let stand beside one more message of `length` bytes.
    pub(crate) fn make_way(&mut self, key: &StreamKey, length: u64, now_ms: u64, journal: &mut impl Journal) {
        let bounds = StreamBounds {
            messages_max: self.bounds.messages_max.saturating_sub(1),
            bytes_max: self.bounds.bytes_max.saturating_sub(length),
            ..self.bounds
        };
        if let Some(stream) = self.by_key.get_mut(key) {
            let cut = stream.count_beyond(&bounds, now_ms);
            stream.trim(key, cut, &mut self.weights, journal);
        }
    }

    /// Cuts the oldest messages of whichever stream is the heaviest until all weigh no more than `bytes_max` together. Gives
    /// how many messages went.
    pub(crate) fn cut_to(&mut self, bytes_max: u64, journal: &mut impl Journal) -> u64 {
        let mut gone = 0;
        while let Some(excess) = self.bytes().checked_sub(bytes_max).filter(|excess| *excess > 0)
            && let Some((key, next)) = self.weights.heaviest()
        {
            let key = key.clone();
            let Some(stream) = self.by_key.get_mut(&key) else { break };
            let enough = excess.min((stream.bytes - next).max(1));
            let cut = stream.count_weighing(enough);
            stream.trim(&key, cut, &mut self.weights, journal);
            gone += cut as u64;
        }
        gone
    }

    /// Appends. `reader_at` is where the device stands whose stream this is, to make the stream if there is none; other streams
    /// must exist. Room for it was made with [`Self::make_way`]; a message that is too old to be kept is gone at once.
    pub(crate) fn append(
        &mut self,
        key: &StreamKey,
        reader_at: Option<Offset>,
        message: &SharedMessage,
        now_ms: u64,
        deadlines: &mut Deadlines,
        journal: &mut impl Journal,
    ) -> Option<Offset> {
        if let Some(acked) = reader_at
            && !self.contains(key)
            && let Readers::Each(marks) = &mut self.create(key, acked, journal).readers
        {
            marks.add(acked);
        }
        let bounds = self.bounds;
        let stream = self.by_key.get_mut(key)?;
        stream.push(key, message, &mut self.weights);
        let (id, offset) = (stream.id, stream.end());
        journal.record(|| Change::Message(id, offset, message.clone()));
        let cut = stream.count_beyond(&bounds, now_ms);
        stream.trim(key, cut, &mut self.weights, journal);
        stream.watch_age(key, &bounds, deadlines);
        Some(offset)
    }

    /// Reads on behind `after`. None if there is no such stream.
    pub(crate) fn read(
        &self,
        key: &StreamKey,
        after: Offset,
        messages_max: u32,
        bytes_max: u32,
    ) -> Option<(Vec<(Offset, SharedMessage)>, Offset)> {
        let stream = self.by_key.get(key)?;
        let from = after.saturating_add(1).max(stream.first);
        let skip = usize::try_from(from - stream.first).unwrap_or(usize::MAX).min(stream.log.len());
        let mut messages = Vec::new();
        let mut bytes = 0;
        for (message, offset) in stream.log.range(skip..).zip(from..).take(messages_max as usize) {
            if bytes >= u64::from(bytes_max) && !messages.is_empty() {
                break;
            }
            bytes += message.as_bytes().len() as u64;
            messages.push((offset, message.clone()));
        }
        Some((messages, stream.end()))
    }

    /// Cuts what has grown too old; called when a stream's deadline has come.
    pub(crate) fn cut_aged(
        &mut self,
        key: &StreamKey,
        now_ms: u64,
        deadlines: &mut Deadlines,
        journal: &mut impl Journal,
    ) {
        let bounds = self.bounds;
        let Some(stream) = self.by_key.get_mut(key) else { return };
        stream.deadline_ms = 0;
        let cut = stream.count_beyond(&bounds, now_ms);
        stream.trim(key, cut, &mut self.weights, journal);
        stream.watch_age(key, &bounds, deadlines);
    }

    /// Puts a stream back that a disk kept. Its messages and readers follow.
    pub(crate) fn restore(&mut self, key: StreamKey, row: StreamRow) {
        let mut stream = Stream::new(row.id, row.end, &key);
        if let Readers::Group(group) = &mut stream.readers {
            *group = Group::left_behind(row.left_behind);
        }
        self.next_id = self.next_id.max(row.id + 1);
        self.by_key.insert(key, stream);
    }

    /// Puts a message back, in order. False if it does not follow the one before it.
    pub(crate) fn restore_message(
        &mut self,
        key: &StreamKey,
        offset: Offset,
        message: &SharedMessage,
    ) -> bool {
        let Some(stream) = self.by_key.get_mut(key) else { return false };
        if stream.log.is_empty() {
            stream.first = offset;
        } else if offset != stream.end() + 1 {
            return false;
        }
        stream.push(key, message, &mut self.weights);
        true
    }

    /// Puts a reader back where it stood. False if a filter's stream is not there.
    pub(crate) fn restore_reader(&mut self, key: &StreamKey, mark: Offset, rested: bool) -> bool {
        let Some(stream) = self.by_key.get_mut(key) else { return matches!(key, StreamKey::Device(_)) };
        match &mut stream.readers {
            Readers::Each(marks) => marks.add(mark),
            Readers::Group(group) => group.restore(mark, rested),
        }
        true
    }

    /// After all readers are back: drops streams that nobody reads, and watches the age of the others.
    pub(crate) fn finish_restore(&mut self, deadlines: &mut Deadlines, journal: &mut impl Journal) {
        let bounds = self.bounds;
        let mut unread = Vec::new();
        for (key, stream) in &mut self.by_key {
            if stream.readers.is_empty() {
                unread.push(key.clone());
            } else {
                stream.watch_age(key, &bounds, deadlines);
            }
        }
        for key in unread {
            self.drop_stream(&key, deadlines, journal);
        }
    }

    fn create(&mut self, key: &StreamKey, end: Offset, journal: &mut impl Journal) -> &mut Stream {
        let stream = Stream::new(self.next_id, end, key);
        self.next_id += 1;
        stream.record_row(key, journal);
        self.by_key.entry(key.clone()).or_insert(stream)
    }

    fn drop_stream(&mut self, key: &StreamKey, deadlines: &mut Deadlines, journal: &mut impl Journal) {
        let Some(stream) = self.by_key.remove(key) else { return };
        self.weights.change(stream.id, key, stream.bytes, 0);
        if stream.deadline_ms != 0 {
            deadlines.clear(stream.deadline_ms, Ending::OldestOf(key.clone()));
        }
        if !stream.log.is_empty() {
            journal.record(|| Change::Trimmed(stream.id, stream.first, stream.end()));
        }
        journal.record(|| Change::StreamGone(key.clone()));
    }
}

impl Stream {
    fn new(id: StreamId, end: Offset, key: &StreamKey) -> Self {
        let readers = match key {
            StreamKey::Filter(filter) if filter.starts_with("$share/") => Readers::Group(Group::new()),
            _ => Readers::Each(Marks::default()),
        };
        Self { id, first: end + 1, log: VecDeque::new(), bytes: 0, deadline_ms: 0, readers }
    }

    fn end(&self) -> Offset {
        self.first + self.log.len() as u64 - 1
    }

    /// Where a group stands. A mark from before a cut stands where the cut ended.
    fn cursor(&self) -> Offset {
        self.readers.settled().unwrap_or_default().max(self.first - 1)
    }

    fn push(&mut self, key: &StreamKey, message: &SharedMessage, weights: &mut Weights) {
        let before = self.bytes;
        self.bytes += message.as_bytes().len() as u64;
        self.log.push_back(message.clone());
        weights.change(self.id, key, before, self.bytes);
    }

    /// Cuts what everyone has read.
    fn trim_settled(&mut self, key: &StreamKey, weights: &mut Weights, journal: &mut impl Journal) {
        let settled = self.readers.settled().unwrap_or_default();
        self.trim(key, (settled + 1).saturating_sub(self.first) as usize, weights, journal);
    }

    /// How many messages at the front are beyond the bounds.
    fn count_beyond(&self, bounds: &StreamBounds, now_ms: u64) -> usize {
        let mut bytes = self.bytes;
        let beyond = |(place, message): (usize, &SharedMessage)| {
            let too_many = self.log.len() - place > bounds.messages_max as usize;
            let goes = too_many || bytes > bounds.bytes_max || ends_ms(message, bounds) <= now_ms;
            bytes -= message.as_bytes().len() as u64;
            goes
        };
        self.log.iter().enumerate().map(beyond).take_while(|goes| *goes).count()
    }

    /// How many messages at the front it takes to free `bytes`.
    fn count_weighing(&self, bytes: u64) -> usize {
        let mut freed = 0;
        let more = |message: &&SharedMessage| {
            let goes = freed < bytes;
            freed += message.as_bytes().len() as u64;
            goes
        };
        self.log.iter().take_while(more).count()
    }

    fn trim(&mut self, key: &StreamKey, count: usize, weights: &mut Weights, journal: &mut impl Journal) {
        let count = count.min(self.log.len());
        if count == 0 {
            return;
        }
        let (id, from, before) = (self.id, self.first, self.bytes);
        self.bytes -= self.log.drain(..count).map(|message| message.as_bytes().len() as u64).sum::<u64>();
        self.first += count as u64;
        weights.change(id, key, before, self.bytes);
        journal.record(|| Change::Trimmed(id, from, from + count as u64 - 1));
        if self.log.is_empty() {
            // The offsets must go on where they were although no message shows where that was.
            self.record_row(key, journal);
        }
        if self.log.capacity() > 64 && self.log.len() * 4 < self.log.capacity() {
            self.log.shrink_to(self.log.len() * 2);
        }
    }

    fn watch_age(&mut self, key: &StreamKey, bounds: &StreamBounds, deadlines: &mut Deadlines) {
        if self.deadline_ms == 0
            && let Some(oldest) = self.log.front()
        {
            self.deadline_ms = ends_ms(oldest, bounds);
            deadlines.set(self.deadline_ms, Ending::OldestOf(key.clone()));
        }
    }

    fn record_group(&self, key: &StreamKey, journal: &mut impl Journal) {
        if matches!(self.readers, Readers::Group(_)) {
            self.record_row(key, journal);
        }
    }

    fn record_row(&self, key: &StreamKey, journal: &mut impl Journal) {
        let row = StreamRow { id: self.id, end: self.end(), left_behind: self.readers.to_keep() };
        journal.record(|| Change::Stream(key.clone(), row));
    }
}

/// When a message has reached the age that a stream allows; never 0.
fn ends_ms(message: &SharedMessage, bounds: &StreamBounds) -> u64 {
    message.view().published_at_ms.saturating_add(bounds.age_ms_max).max(1)
}
