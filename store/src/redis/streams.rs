//! Streams: appending to them, reading them, and which filters have one.

use std::rc::Rc;

use futures_util::future::join_all;
use holdfast_wire::message::SharedMessage;
use holdfast_wire::session_record::{Cursor, Offset, StreamKey};
use redis::Value;

use super::answer::{Answer, Word};
use super::dispatch::Worker;
use super::partition::Partition;
use super::sessions::OFFSET_MAX;
use crate::contract::{Reply, StoreError, WhenFull};
use crate::metrics::{Dropped, count_dropped};

/// A stream as the functions name it.
fn name(stream: &StreamKey) -> Vec<u8> {
    let (kind, text) = match stream {
        StreamKey::Filter(filter) => ("f", filter),
        StreamKey::Device(client) => ("d", client),
    };
    [kind.as_bytes(), text.as_bytes()].concat()
}

/// A message that is to be appended.
#[derive(Clone)]
pub(super) struct Item {
    pub(super) message: SharedMessage,
    pub(super) how: How,
}

/// How it is to be appended.
#[derive(Clone)]
pub(super) enum How {
    /// In place of what waits in a device's stream under the same key, if there is one.
    Under(Option<Rc<str>>),
    /// To the stream of a group, and nobody may claim it for so many ms.
    OnHold(u32),
}

/// What became of a message in one stream.
pub(super) enum Part {
    /// It stands there.
    Taken(Cursor),
    /// The stream keeps what it has.
    Full(StreamKey),
    /// There is no such stream.
    None,
}

/// What became of it in all of them.
#[derive(Default)]
pub(super) struct Appended {
    at: Vec<Cursor>,
    full: Vec<StreamKey>,
}

impl Appended {
    pub(super) fn add(&mut self, part: Part) {
        match part {
            Part::Taken(cursor) => self.at.push(cursor),
            Part::Full(stream) => self.full.push(stream),
            Part::None => {}
        }
    }
}

impl From<Appended> for Reply {
    /// In the order of the streams: their answers come as their servers are.
    fn from(Appended { mut at, mut full }: Appended) -> Self {
        at.sort_unstable_by(|a, b| a.stream.cmp(&b.stream));
        full.sort_unstable();
        Self::Appended { at, full }
    }
}

impl Worker {
    /// Whether a message fits into the store beside the retained ones even if all these streams exist.
    pub(super) fn surely_fits(&self, streams: usize, message: &SharedMessage) -> bool {
        message.as_bytes().len() as u64 * streams as u64 <= self.room_for_streams()
    }

    fn room_for_streams(&self) -> u64 {
        self.bounds.message_bytes_max.saturating_sub(self.room.borrow().retained_bytes())
    }

    /// Appends to streams that may be too many for the store: asks first which of them exist.
    pub(super) async fn append_if_it_fits(
        &self,
        streams: Vec<StreamKey>,
        item: &Item,
    ) -> Result<Reply, StoreError> {
        let asked = streams.into_iter().map(|stream| async {
            let call = self.server.call("exists", Partition::of_stream(&stream));
            let mut answer = self.server.answer(call.arg(self.now()).arg(name(&stream))).await?;
            answer.word()?;
            Ok::<_, StoreError>((answer.number()? == 1).then_some(stream))
        });
        let mut targets = Vec::new();
        for exists in join_all(asked).await {
            targets.extend(exists?);
        }
        if !self.surely_fits(targets.len(), &item.message) {
            return Err(StoreError::Full(format!(
                "a message of {} bytes for {} streams does not fit into {} bytes",
                item.message.as_bytes().len(),
                targets.len(),
                self.room_for_streams()
            )));
        }
        let mut outcome = Appended::default();
        let parts = targets.into_iter().map(|stream| self.append_to(stream, item));
        for part in join_all(parts).await {
            outcome.add(part?);
        }
        self.make_room().await?;
        Ok(outcome.into())
    }

    /// Appends to one stream.
    pub(super) async fn append_to(&self, stream: StreamKey, item: &Item) -> Result<Part, StoreError> {
        let Item { message, how } = item;
        let partition = Partition::of_stream(&stream);
        let bounds = &self.bounds.stream;
        let keeps_what_it_has = bounds.when_full == WhenFull::DropNewest;
        let function = if matches!(how, How::OnHold(_)) { "hold" } else { "append" };
        let call = self.server.call(function, partition).arg(self.now()).arg(name(&stream));
        let call = call.arg(message.as_bytes()).arg(bounds.messages_max).arg(bounds.bytes_max);
        let call = call.arg(bounds.age_ms_max).arg(u8::from(keeps_what_it_has));
        let call = match how {
            How::Under(collapse_key) => call.arg(collapse_key.as_deref()),
            How::OnHold(for_ms) => call.arg(*for_ms),
        };
        let mut answer = self.server.answer(call).await?;
        match answer.word()? {
            Word::Ok => {
                let acked = answer.number()?;
                self.room.borrow_mut().set_stream_bytes(partition, answer.number()?);
                count_dropped(Dropped::StreamFull, answer.number()?);
                Ok(Part::Taken(Cursor { stream, acked }))
            }
            Word::Full => Err(StoreError::Full(format!(
                "a message of {} bytes is more than a stream may hold",
                message.as_bytes().len()
            ))),
            Word::Kept => {
                count_dropped(Dropped::Refused, 1);
                Ok(Part::Full(stream))
            }
            Word::None | Word::Join => {
                self.note_missing(answer.number()?);
                Ok(Part::None)
            }
        }
    }

    /// What was asked for is not there; its partition says with 1 that it may be on its way back.
    pub(super) fn note_missing(&self, begins: u64) {
        if begins == 1 {
            self.health.note_beginning();
        }
    }

    pub(super) async fn read(
        &self,
        stream: &StreamKey,
        after: Offset,
        messages_max: u32,
        bytes_max: u32,
    ) -> Result<Reply, StoreError> {
        let call = self.server.call("read", Partition::of_stream(stream)).arg(name(stream));
        let call = call.arg(after.min(OFFSET_MAX)).arg(messages_max).arg(bytes_max);
        let mut answer = self.server.answer(call).await?;
        answer.word()?;
        read_messages(answer)
    }

    pub(super) async fn durable_filters(&self) -> Result<Reply, StoreError> {
        let asked = Partition::all().map(|partition| async move {
            let mut command = redis::cmd("SMEMBERS");
            command.arg(self.server.key(partition, "f"));
            // RESP 2 knows no sets; a client of RESP 3 would be given one.
            match self.server.send(&command).await? {
                Value::Set(members) => Answer::new(Value::Array(members)),
                other => Answer::new(other),
            }
        });
        let mut filters = Vec::new();
        for members in join_all(asked).await {
            let mut members = members?;
            while !members.is_empty() {
                filters.push(members.text()?);
            }
        }
        filters.sort_unstable();
        Ok(Reply::Filters(filters))
    }
}

/// What a reading function answers behind its word: the end, the first message's offset, and what there is from there on.
pub(super) fn read_messages(mut answer: Answer) -> Result<Reply, StoreError> {
    let (end, from) = (answer.number()?, answer.number()?);
    let (mut messages, mut at) = (Vec::new(), from);
    while !answer.is_empty() {
        match answer.message_or_gap()? {
            Ok(message) => {
                messages.push((at, message));
                at += 1;
            }
            Err(gap) => at += gap,
        }
    }
    Ok(Reply::Messages { messages, end })
}
