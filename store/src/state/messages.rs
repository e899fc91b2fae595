//! Messages that come into streams, and those that are retained.

use holdfast_wire::message::SharedMessage;
use holdfast_wire::session_record::{Cursor, StreamKey};
use holdfast_wire::store::{Reply, StoreError};
use tracing::warn;

use super::State;
use super::change::Journal;

impl State {
    pub(super) fn append(
        &mut self,
        mut streams: Vec<StreamKey>,
        message: &SharedMessage,
        collapse_key: Option<&str>,
        now_ms: u64,
        journal: &mut impl Journal,
    ) -> Result<Reply, StoreError> {
        streams.sort_unstable();
        streams.dedup();
        let mut targets = Vec::with_capacity(streams.len());
        for key in streams {
            match &key {
                StreamKey::Filter(_) if self.streams.contains(&key) => targets.push((key, None)),
                StreamKey::Filter(_) => {}
                StreamKey::Device(client) => {
                    let session = self.sessions.find(client).filter(|session| !session.is_over(now_ms));
                    let stands = session.and_then(|session| session.details.as_ref()?.cursor(&key));
                    if stands.is_some() {
                        targets.push((key, stands));
                    }
                }
            }
        }
        let bytes = message.as_bytes().len() as u64;
        if bytes > self.bounds.stream.bytes_max && !targets.is_empty() {
            return Err(StoreError::Full(format!(
                "a message of {bytes} bytes is more than a stream may hold"
            )));
        }
        let room_max = self.bounds.message_bytes_max.saturating_sub(self.retained.bytes());
        let Some(rest_max) = room_max.checked_sub(bytes * targets.len() as u64) else {
            return Err(StoreError::Full(format!(
                "a message of {bytes} bytes for {} streams does not fit into {room_max} bytes",
                targets.len()
            )));
        };
        let (mut taken, mut full) = (Vec::with_capacity(targets.len()), Vec::new());
        for (stream, reader_at) in targets {
            if self.streams.make_way(&stream, bytes, collapse_key, now_ms, journal) {
                taken.push((stream, reader_at));
            } else {
                full.push(stream);
            }
        }
        if !taken.is_empty() {
            self.cut_to(rest_max, journal);
        }
        let mut appended = Vec::with_capacity(taken.len());
        for (stream, reader_at) in taken {
            let offset = self.streams.append(
                &stream,
                reader_at,
                message,
                collapse_key,
                now_ms,
                &mut self.deadlines,
                journal,
            );
            if let Some(acked) = offset {
                appended.push(Cursor { stream, acked });
            }
        }
        Ok(Reply::Appended { at: appended, full })
    }

    pub(super) fn retain(
        &mut self,
        message: SharedMessage,
        journal: &mut impl Journal,
    ) -> Result<Reply, StoreError> {
        let view = message.view();
        if !view.payload.is_empty() {
            let others = self.retained.bytes() - self.retained.bytes_of(view.topic);
            let bytes = others + message.as_bytes().len() as u64;
            if bytes > self.bounds.message_bytes_max / 2 {
                return Err(StoreError::Full(format!("it holds {others} bytes of other retained messages")));
            }
            self.cut_to(self.bounds.message_bytes_max - bytes, journal);
        }
        self.retained.retain(message, &mut self.deadlines, journal);
        Ok(Reply::Done)
    }

    /// Cuts streams, the heaviest first, until they weigh no more than this together.
    fn cut_to(&mut self, bytes_max: u64, journal: &mut impl Journal) {
        let before = self.cut_for_room;
        self.cut_for_room += self.streams.cut_to(bytes_max, journal);
        // Anyone can fill the store, so it is said at the first message, the second, the fourth, and so on.
        if before.checked_ilog2() != self.cut_for_room.checked_ilog2() {
            warn!(
                messages = self.cut_for_room,
                "the store is full; its largest streams have lost their oldest messages"
            );
        }
    }

    /// A device's stream that holds nothing ends where its reader stands.
    pub(super) fn end_without_stream(&self, stream: &StreamKey) -> u64 {
        let StreamKey::Device(client) = stream else { return 0 };
        let details = self.sessions.find(client).and_then(|session| session.details.as_ref());
        details.and_then(|details| details.cursor(stream)).unwrap_or_default()
    }
}
