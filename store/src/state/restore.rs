//! Putting a state together again from what a disk kept.
//!
//! The order is streams, messages, sessions, retained messages; [`Restore::finish`] then drops what nobody holds and
//! turns sessions that were connected into resting ones, since their owners died with the process.

use std::collections::HashMap;
use std::ops::Range;

use holdfast_wire::coding::CodingError;
use holdfast_wire::ids::ClientId;
use holdfast_wire::message::SharedMessage;
use holdfast_wire::session_record::{Offset, StreamKey};

use super::change::{Journal, StreamId, StreamRow};
use super::nodes::PackedOwner;
use super::sessions::{Session, rest_ends_ms};
use super::{State, session_row};
use crate::contract::Bounds;

/// Why what a disk kept does not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RestoreError {
    /// A row cannot be read.
    #[error("a {what} cannot be read: {why}")]
    Row {
        /// Which kind of row.
        what: &'static str,
        /// What is wrong with it.
        why: CodingError,
    },
    /// Rows contradict one another.
    #[error("{0}")]
    Contradiction(String),
}

/// A state that is being put together.
pub(crate) struct Restore {
    state: State,
    streams: HashMap<StreamId, StreamKey>,
    now_ms: u64,
}

impl Restore {
    pub(crate) fn new(bounds: Bounds, epochs: Range<u64>, now_ms: u64) -> Self {
        Self { state: State::new(bounds, epochs), streams: HashMap::new(), now_ms }
    }

    pub(crate) fn stream(&mut self, key: StreamKey, row: StreamRow) {
        self.streams.insert(row.id, key.clone());
        self.state.streams.restore(key, row);
    }

    /// Messages come in the order of their streams' ids and offsets.
    pub(crate) fn message(&mut self, id: StreamId, offset: Offset, bytes: &[u8]) -> Result<(), RestoreError> {
        let message = SharedMessage::from_bytes(bytes)
            .map_err(|why| RestoreError::Row { what: "message of a stream", why })?;
        let key = self.streams.get(&id).ok_or_else(|| {
            RestoreError::Contradiction(format!("messages of a stream {id} that does not exist"))
        })?;
        if !self.state.streams.restore_message(key, offset, &message) {
            return Err(RestoreError::Contradiction(format!("message {offset} of {key:?} is out of line")));
        }
        Ok(())
    }

    pub(crate) fn session(&mut self, client: &str, row: &[u8]) -> Result<(), RestoreError> {
        let (epoch, mut details) =
            session_row::decode(row).map_err(|why| RestoreError::Row { what: "session", why })?;
        let client = ClientId::new(client);
        let rested = details.rests_until_ms.is_some();
        for cursor in &details.record.cursors {
            if !self.state.streams.restore_reader(&cursor.stream, cursor.acked, rested) {
                let what = format!("session {client} reads {:?}, which does not exist", cursor.stream);
                return Err(RestoreError::Contradiction(what));
            }
        }
        let until =
            *details.rests_until_ms.get_or_insert_with(|| rest_ends_ms(self.now_ms, details.expiry_s));
        self.state.set_deadline(&client, until);
        let session = Session { epoch, owner: PackedOwner::default(), details: Some(Box::new(details)) };
        self.state.sessions.insert(client, session);
        Ok(())
    }

    pub(crate) fn retained(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let message = SharedMessage::from_bytes(bytes)
            .map_err(|why| RestoreError::Row { what: "retained message", why })?;
        self.state.retained.restore(message, &mut self.state.deadlines);
        Ok(())
    }

    pub(crate) fn finish(mut self, journal: &mut impl Journal) -> State {
        self.state.streams.finish_restore(&mut self.state.deadlines, journal);
        self.state
    }
}
