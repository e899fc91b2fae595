//! Streams: messages in order, kept as long as someone has yet to read them and the bounds allow.
//!
//! A stream of a filter exists while sessions hold the filter, and begins anew when the first one comes back, at an offset made of the time: behind
//! all that it ever had, so that nobody who knew it before takes what is new for what it has had. A
//! device's stream belongs to its session and exists here only while it holds messages or has lost some; otherwise its
//! session's cursor is all there is to know. Messages go from the front: once everyone has read them, or a bound cuts. From
//! the middle goes only what another message under the same collapse key replaces.

use std::collections::{HashMap, VecDeque};

use holdfast_wire::ids::ClientId;
use holdfast_wire::message::SharedMessage;
use holdfast_wire::session_record::{Offset, StreamKey};

use super::change::{Change, Journal, StreamId, StreamRow};
use super::claims::{Claim, MessagePage};
use super::deadlines::{Deadlines, Ending};
use super::readers::{Group, Readers};
use super::runs::Runs;
use super::weights::Weights;
use crate::contract::{StreamBounds, WhenFull};
use crate::metrics::{Dropped, count_dropped};

/// All streams. What each may hold is in `bounds`; how many there are is bounded by the sessions that hold them.
pub(crate) struct Streams {
    by_key: HashMap<StreamKey, Stream>,
    bounds: StreamBounds,
    weights: Weights,
    next_id: StreamId,
    /// Readers may be on their way back: what everyone who is there has settled is kept for them.
    is_young: bool,
}

struct Stream {
    id: StreamId,
    /// Everything up to here is gone.
    cut: Offset,
    /// The last offset that was given out.
    end: Offset,
    /// In the order of the offsets, which have a gap where a message was replaced.
    log: VecDeque<(Offset, SharedMessage)>,
    bytes: u64,
    /// Only with collapse keys: where the last message under each stands, or stood. Those that are gone are cleared away before
    /// they are more than those that are not.
    #[expect(clippy::box_collection, reason = "most streams have none, and a map is six times as large")]
    keys: Option<Box<HashMap<Box<str>, Offset>>>,
    /// What [`Deadlines`] holds for it; 0 for nothing. It may be earlier than the oldest message's real end, never later
    /// than when it was set.
    deadline_ms: u64,
    readers: Readers,
}

impl Streams {
    pub(crate) fn new(bounds: StreamBounds) -> Self {
        Self { by_key: HashMap::new(), bounds, weights: Weights::default(), next_id: 1, is_young: false }
    }

    /// Bytes of encoded messages in all of them.
    pub(crate) fn bytes(&self) -> u64 {
        self.weights.total()
    }

    /// Whether readers may be on their way back.
    pub(crate) fn set_young(&mut self, is_young: bool) {
        self.is_young = is_young;
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

    /// One more session reads a filter's stream, from its end on. Gives the session's mark; a group's member begins a count of its own, larger than
    /// any that it had before.
    pub(crate) fn join(&mut self, key: &StreamKey, now_ms: u64, journal: &mut impl Journal) -> Offset {
        let stream = match self.by_key.get_mut(key) {
            Some(stream) => stream,
            None => self.create(key, beginning(now_ms), journal),
        };
        let end = stream.end;
        match &mut stream.readers {
            Readers::Each(marks) => {
                marks.add(end);
                end
            }
            Readers::Group(group) => {
                group.members += 1;
                beginning(now_ms)
            }
        }
    }

    /// A session reads a filter's stream that has read it before. While readers are on their way back it has been one all along, so it begins with what the
    /// others' return has found. Gives its mark.
    pub(crate) fn join_again(&mut self, key: &StreamKey, now_ms: u64, journal: &mut impl Journal) -> Offset {
        if self.is_young
            && let Some(stream) = self.by_key.get_mut(key)
            && let Readers::Each(marks) = &mut stream.readers
        {
            marks.add(stream.cut);
            return stream.cut;
        }
        self.join(key, now_ms, journal)
    }

    /// A session whose mark is `mark` reads no longer; the last one takes the stream with it.
    pub(crate) fn leave(
        &mut self,
        key: &StreamKey,
        client: &ClientId,
        mark: Offset,
        deadlines: &mut Deadlines,
        journal: &mut impl Journal,
    ) {
        let Some(stream) = self.by_key.get_mut(key) else { return };
        match &mut stream.readers {
            Readers::Each(marks) => marks.remove(mark),
            Readers::Group(group) => {
                group.runs.give_back(client);
                group.members = group.members.saturating_sub(1);
            }
        }
        if stream.readers.is_empty() {
            return self.drop_stream(key, deadlines, journal);
        }
        if !self.is_young || stream.is_group() {
            stream.trim_settled(key, &mut self.weights, journal);
        }
    }

    /// Moves a reader's mark, forward and within the stream; that of a group's member as far as it says. Gives where it is then.
    pub(crate) fn advance(
        &mut self,
        key: &StreamKey,
        client: &ClientId,
        from: Offset,
        to: Offset,
        deadlines: &mut Deadlines,
        journal: &mut impl Journal,
    ) -> Offset {
        let Some(stream) = self.by_key.get_mut(key) else { return from };
        let end = stream.end;
        let to = if stream.is_group() { to } else { to.min(end) };
        if to <= from {
            return from;
        }
        match &mut stream.readers {
            Readers::Each(marks) => {
                marks.remove(from);
                marks.add(to);
                if !self.is_young || matches!(key, StreamKey::Device(_)) {
                    stream.trim_settled(key, &mut self.weights, journal);
                }
            }
            Readers::Group(group) => {
                let settled = group.runs.settle(client, to - from);
                stream.settle(key, &settled, &mut self.weights, journal);
            }
        }
        if matches!(key, StreamKey::Device(_)) && to == end {
            self.drop_stream(key, deadlines, journal);
        }
        to
    }

    /// A session's connection has ended, and the session rests: what it holds of a group's stream is free. A disk knows it as free
    /// already.
    pub(crate) fn rest(&mut self, key: &StreamKey, client: &ClientId) {
        if let Some(group) = self.group_mut(key) {
            group.runs.give_back(client);
        }
    }

    /// Makes room for one more message of `length` bytes within the stream's own bounds: what it replaces under its collapse key goes,
    /// and what the bounds do not let stand beside it. False if the stream is full and keeps what it has.
    pub(crate) fn make_way(
        &mut self,
        key: &StreamKey,
        length: u64,
        collapse_key: Option<&str>,
        now_ms: u64,
        journal: &mut impl Journal,
    ) -> bool {
        let beside = StreamBounds {
            messages_max: self.bounds.messages_max.saturating_sub(1),
            bytes_max: self.bounds.bytes_max.saturating_sub(length),
            ..self.bounds
        };
        let weights = &mut self.weights;
        let Some(stream) = self.by_key.get_mut(key) else { return true };
        stream.trim_aged(key, &beside, now_ms, weights, journal);
        if stream.count_beyond(&beside) > 0 {
            // What is kept for those who come back goes before anything that is still to be read.
            stream.trim_settled(key, weights, journal);
        }
        let replaced = stream.find_under(key, collapse_key);
        if beside.when_full == WhenFull::DropNewest {
            let bytes = replaced.map_or(0, |place| stream.log[place].1.as_bytes().len() as u64);
            let messages = stream.log.len() - usize::from(replaced.is_some());
            if messages > beside.messages_max as usize || stream.bytes - bytes > beside.bytes_max {
                count_dropped(Dropped::Refused, 1);
                return false;
            }
        }
        if let Some(place) = replaced {
            stream.remove(key, place, weights, journal);
        }
        let cut = stream.count_beyond(&beside);
        count_dropped(Dropped::StreamFull, cut as u64);
        stream.trim(key, cut, weights, journal);
        true
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
        count_dropped(Dropped::StoreFull, gone);
        gone
    }

    /// Appends. `reader_at` is where the device stands whose stream this is, to make the stream if there is none; other streams
    /// must exist. Room for it was made with [`Self::make_way`]; a message that is too old to be kept is gone at once.
    #[expect(clippy::too_many_arguments, reason = "the fields of `Request::Append`, and what it touches")]
    pub(crate) fn append(
        &mut self,
        key: &StreamKey,
        reader_at: Option<Offset>,
        message: &SharedMessage,
        collapse_key: Option<&str>,
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
        let offset = stream.end + 1;
        let id = stream.id;
        stream.push(key, offset, message, &mut self.weights);
        journal.record(|| Change::Message(id, offset, message.clone()));
        if let (StreamKey::Device(_), Some(collapse_key)) = (key, collapse_key) {
            stream.put_under(collapse_key, offset);
            journal.record(|| Change::CollapseKey(id, offset, collapse_key.into()));
        }
        stream.trim_aged(key, &bounds, now_ms, &mut self.weights, journal);
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
        let skip = stream.log.partition_point(|(offset, _)| *offset <= after);
        let mut page = MessagePage::new(messages_max, bytes_max);
        for (offset, message) in stream.log.range(skip..) {
            if !page.has_room() {
                break;
            }
            page.push(*offset, message);
        }
        Some((page.messages, stream.end))
    }

    /// Says what a group's member claims: see [`Claim`]. None if there is no such group.
    pub(crate) fn claim(
        &mut self,
        key: &StreamKey,
        client: &ClientId,
        base: &mut Offset,
        claim: &Claim,
        now_ms: u64,
    ) -> Option<(Vec<(Offset, SharedMessage)>, Offset)> {
        let Stream { readers, log, end, .. } = self.by_key.get_mut(key)?;
        let Readers::Group(group) = readers else { return None };
        group.runs.end_holds(now_ms);
        Some(claim.carry_out(&mut group.runs, client, base, log, *end))
    }

    /// What was just appended to a group's stream is on hold.
    pub(crate) fn hold(&mut self, key: &StreamKey, offset: Offset, until_ms: u64) {
        if let Some(group) = self.group_mut(key) {
            group.runs.hold(offset, until_ms);
        }
    }

    /// A hold in a group's stream ends.
    pub(crate) fn end_hold(
        &mut self,
        key: &StreamKey,
        offset: Offset,
        taken: bool,
        journal: &mut impl Journal,
    ) {
        if self.group_mut(key).is_some_and(|group| group.runs.end_hold(offset, taken))
            && let Some(stream) = self.by_key.get_mut(key)
        {
            stream.settle(key, &[(offset, offset)], &mut self.weights, journal);
        }
    }

    /// How many messages stand behind `after`.
    pub(crate) fn count_behind(&self, key: &StreamKey, after: Offset) -> u64 {
        self.by_key.get(key).map_or(0, |stream| {
            (stream.log.len() - stream.log.partition_point(|(offset, _)| *offset <= after)) as u64
        })
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
        stream.trim_aged(key, &bounds, now_ms, &mut self.weights, journal);
        stream.watch_age(key, &bounds, deadlines);
    }

    /// Puts a stream back that a disk kept. Its messages and readers follow.
    pub(crate) fn restore(&mut self, key: StreamKey, row: StreamRow) {
        self.next_id = self.next_id.max(row.id + 1);
        let stream = Stream::new(row.id, row.end, &key);
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
        match stream.log.back() {
            None => {
                stream.cut = offset.saturating_sub(1);
                if let Readers::Group(group) = &mut stream.readers {
                    group.runs = Runs::new(stream.cut);
                }
            }
            // Only a device's stream has gaps.
            Some((last, _))
                if offset == last + 1 || offset > *last && matches!(key, StreamKey::Device(_)) => {}
            Some(_) => return false,
        }
        stream.push(key, offset, message, &mut self.weights);
        true
    }

    /// Puts back what members of a group have settled, in order and behind the messages. False if it does not follow what came before it.
    pub(crate) fn restore_settled(&mut self, key: &StreamKey, first: Offset, last: Offset) -> bool {
        let Some(stream) = self.by_key.get_mut(key).filter(|stream| last <= stream.end) else { return false };
        match &mut stream.readers {
            Readers::Group(group) => group.runs.restore_settled(first, last),
            Readers::Each(_) => false,
        }
    }

    /// Puts the collapse key of a message back, in the order of the messages. False if there is no such stream.
    pub(crate) fn restore_collapse_key(
        &mut self,
        key: &StreamKey,
        offset: Offset,
        collapse_key: &str,
    ) -> bool {
        let Some(stream) = self.by_key.get_mut(key) else { return false };
        stream.put_under(collapse_key, offset);
        true
    }

    /// Puts a reader back where it stood. False if a filter's stream is not there.
    pub(crate) fn restore_reader(&mut self, key: &StreamKey, mark: Offset) -> bool {
        let Some(stream) = self.by_key.get_mut(key) else { return matches!(key, StreamKey::Device(_)) };
        match &mut stream.readers {
            Readers::Each(marks) => marks.add(mark),
            Readers::Group(group) => group.members += 1,
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

    fn group_mut(&mut self, key: &StreamKey) -> Option<&mut Group> {
        match &mut self.by_key.get_mut(key)?.readers {
            Readers::Group(group) => Some(group),
            Readers::Each(_) => None,
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
        if let (Some((first, _)), Some((last, _))) = (stream.log.front(), stream.log.back()) {
            journal.record(|| Change::Trimmed(stream.id, *first, *last));
        }
        journal.record(|| Change::StreamGone(key.clone()));
    }
}

impl Stream {
    fn new(id: StreamId, end: Offset, key: &StreamKey) -> Self {
        let readers = Readers::new(key, end);
        Self { id, cut: end, end, log: VecDeque::new(), bytes: 0, keys: None, deadline_ms: 0, readers }
    }

    fn is_group(&self) -> bool {
        matches!(self.readers, Readers::Group(_))
    }

    fn push(&mut self, key: &StreamKey, offset: Offset, message: &SharedMessage, weights: &mut Weights) {
        let before = self.bytes;
        self.bytes += message.as_bytes().len() as u64;
        self.end = self.end.max(offset);
        self.log.push_back((offset, message.clone()));
        weights.change(self.id, key, before, self.bytes);
    }

    /// The place of the message that waits under a collapse key.
    fn find_under(&self, key: &StreamKey, collapse_key: Option<&str>) -> Option<usize> {
        let StreamKey::Device(_) = key else { return None };
        let offset = self.keys.as_ref()?.get(collapse_key?)?;
        self.log.binary_search_by_key(offset, |(offset, _)| *offset).ok()
    }

    fn put_under(&mut self, collapse_key: &str, offset: Offset) {
        self.keys.get_or_insert_default().insert(collapse_key.into(), offset);
    }

    /// Takes out what another message replaces.
    fn remove(&mut self, key: &StreamKey, place: usize, weights: &mut Weights, journal: &mut impl Journal) {
        let Some((offset, message)) = self.log.remove(place) else { return };
        let (id, before) = (self.id, self.bytes);
        self.bytes -= message.as_bytes().len() as u64;
        weights.change(id, key, before, self.bytes);
        journal.record(|| Change::Trimmed(id, offset, offset));
    }

    /// Members of a group have settled these: cuts what nobody needs any more, and writes down what stands behind something unsettled.
    fn settle(
        &mut self,
        key: &StreamKey,
        settled: &[(Offset, Offset)],
        weights: &mut Weights,
        journal: &mut impl Journal,
    ) {
        self.trim_settled(key, weights, journal);
        for (first, last) in settled.iter().filter(|(_, last)| *last > self.cut) {
            journal.record(|| Change::Settled(self.id, *first, *last));
        }
    }

    /// Cuts what everyone has read.
    fn trim_settled(&mut self, key: &StreamKey, weights: &mut Weights, journal: &mut impl Journal) {
        let settled = self.readers.settled().unwrap_or_default();
        // Most often nothing, or the first one.
        let read = self.log.front().is_some_and(|(offset, _)| *offset <= settled);
        if read {
            self.trim(key, self.log.partition_point(|(offset, _)| *offset <= settled), weights, journal);
        }
    }

    /// Cuts what is too old.
    fn trim_aged(
        &mut self,
        key: &StreamKey,
        bounds: &StreamBounds,
        now_ms: u64,
        weights: &mut Weights,
        journal: &mut impl Journal,
    ) {
        let aged = |(_, message): &&(Offset, SharedMessage)| ends_ms(message, bounds) <= now_ms;
        let cut = self.log.iter().take_while(aged).count();
        count_dropped(Dropped::TooOld, cut as u64);
        self.trim(key, cut, weights, journal);
    }

    /// How many messages at the front are more than the bounds allow, in number or in bytes.
    fn count_beyond(&self, bounds: &StreamBounds) -> usize {
        let mut bytes = self.bytes;
        let beyond = |(place, (_, message)): (usize, &(Offset, SharedMessage))| {
            let too_many = self.log.len() - place > bounds.messages_max as usize;
            let goes = too_many || bytes > bounds.bytes_max;
            bytes -= message.as_bytes().len() as u64;
            goes
        };
        self.log.iter().enumerate().map(beyond).take_while(|goes| *goes).count()
    }

    /// How many messages at the front it takes to free `bytes`.
    fn count_weighing(&self, bytes: u64) -> usize {
        let mut freed = 0;
        let more = |(_, message): &&(Offset, SharedMessage)| {
            let goes = freed < bytes;
            freed += message.as_bytes().len() as u64;
            goes
        };
        self.log.iter().take_while(more).count()
    }

    fn trim(&mut self, key: &StreamKey, count: usize, weights: &mut Weights, journal: &mut impl Journal) {
        let Some(last) = count.min(self.log.len()).checked_sub(1) else { return };
        let (id, from, to, before) = (self.id, self.log[0].0, self.log[last].0, self.bytes);
        self.bytes -=
            self.log.drain(..=last).map(|(_, message)| message.as_bytes().len() as u64).sum::<u64>();
        self.cut = to;
        if let Readers::Group(group) = &mut self.readers {
            group.runs.cut(to);
        }
        weights.change(id, key, before, self.bytes);
        journal.record(|| Change::Trimmed(id, from, to));
        if self.log.is_empty() {
            // The offsets must go on where they were although no message shows where that was.
            self.record_row(key, journal);
        }
        if self.log.capacity() > 64 && self.log.len() * 4 < self.log.capacity() {
            self.log.shrink_to(self.log.len() * 2);
        }
        self.forget_keys();
    }

    /// Clears collapse keys away whose messages are gone, once they may be more than half.
    fn forget_keys(&mut self) {
        let few = 2 * self.log.len() + 8;
        let Some(keys) = self.keys.as_deref_mut().filter(|keys| keys.len() > few) else { return };
        let log = &self.log;
        keys.retain(|_, offset| log.binary_search_by_key(offset, |(offset, _)| *offset).is_ok());
        if keys.is_empty() {
            self.keys = None;
        }
    }

    fn watch_age(&mut self, key: &StreamKey, bounds: &StreamBounds, deadlines: &mut Deadlines) {
        if self.deadline_ms == 0
            && let Some((_, oldest)) = self.log.front()
        {
            self.deadline_ms = ends_ms(oldest, bounds);
            deadlines.set(self.deadline_ms, Ending::OldestOf(key.clone()));
        }
    }

    fn record_row(&self, key: &StreamKey, journal: &mut impl Journal) {
        journal.record(|| Change::Stream(key.clone(), StreamRow { id: self.id, end: self.end }));
    }
}

/// Where the offsets of a stream begin that is made now: behind all that it had before it was lost, as long as it was given less than a message each
/// microsecond. So does the count of a member that joins a group. Below 2^53 until the year 2255, as Redis counts in doubles.
pub(crate) fn beginning(now_ms: u64) -> Offset {
    now_ms.saturating_mul(1_000)
}

/// When a message has reached the age that a stream allows; never 0.
fn ends_ms(message: &SharedMessage, bounds: &StreamBounds) -> u64 {
    message.view().published_at_ms.saturating_add(bounds.age_ms_max).max(1)
}
