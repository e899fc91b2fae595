//! Putting a state together again from what a disk kept.
//!
//! The order is streams, messages, what of them is settled, their collapse keys, then everything else; [`Restore::finish`] drops what nobody holds and
//! reaps sessions that were connected, since their owners died with the process. A session without expiry has no row, so
//! the will of one that was connected is lost with the process; a row for it would make each such connect wait for the disk.

use std::collections::HashMap;
use std::ops::Range;

use holdfast_wire::coding::CodingError;
use holdfast_wire::ids::ClientId;
use holdfast_wire::message::SharedMessage;
use holdfast_wire::session_record::{Offset, StreamKey};

use super::change::{Journal, StreamId, StreamRow};
use super::nodes::PackedOwner;
use super::ownership::will_falls_due_ms;
use super::sessions::{Session, rest_ends_ms, since_s};
use super::wills::LeftWill;
use super::{State, record_session, session_row};
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
    /// Clients that were connected and have a will.
    bereaved: Vec<ClientId>,
    now_ms: u64,
}

impl Restore {
    pub(crate) fn new(bounds: Bounds, epochs: Range<u64>, now_ms: u64) -> Self {
        Self { state: State::new(bounds, epochs), streams: HashMap::new(), bereaved: Vec::new(), now_ms }
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

    /// What members of a group have settled, in the order of their streams' ids and the first offsets.
    pub(crate) fn settled(&mut self, id: StreamId, first: Offset, last: Offset) -> Result<(), RestoreError> {
        let stream = self.streams.get(&id);
        if stream.is_none_or(|stream| !self.state.streams.restore_settled(stream, first, last)) {
            return Err(RestoreError::Contradiction(format!(
                "what is settled from {first} to {last} of a stream {id} is out of line"
            )));
        }
        Ok(())
    }

    pub(crate) fn collapse_key(
        &mut self,
        id: StreamId,
        offset: Offset,
        key: &str,
    ) -> Result<(), RestoreError> {
        let stream = self.streams.get(&id);
        if stream.is_none_or(|stream| !self.state.streams.restore_collapse_key(stream, offset, key)) {
            return Err(RestoreError::Contradiction(format!(
                "a collapse key of a stream {id} that does not exist"
            )));
        }
        Ok(())
    }

    pub(crate) fn will(&mut self, number: u64, row: &[u8]) -> Result<(), RestoreError> {
        let left = LeftWill::decode(row).map_err(|why| RestoreError::Row { what: "will", why })?;
        self.state.wills.restore(number, left);
        Ok(())
    }

    pub(crate) fn member(&mut self, group: &str, client: &str) {
        self.state.groups.restore(group, client);
    }

    pub(crate) fn session(&mut self, client: &str, row: &[u8]) -> Result<(), RestoreError> {
        let (epoch, mut since, mut details) =
            session_row::decode(row).map_err(|why| RestoreError::Row { what: "session", why })?;
        let client = ClientId::new(client);
        let rested = details.rests_until_ms.is_some();
        for cursor in &details.record.cursors {
            if !self.state.streams.restore_reader(&cursor.stream, cursor.acked) {
                let what = format!("session {client} reads {:?}, which does not exist", cursor.stream);
                return Err(RestoreError::Contradiction(what));
            }
        }
        if !rested {
            since = since_s(self.now_ms);
            if details.will.is_some() {
                self.bereaved.push(client.clone());
            }
        }
        let until =
            *details.rests_until_ms.get_or_insert_with(|| rest_ends_ms(self.now_ms, details.expiry_s));
        self.state.set_deadline(&client, until);
        let details = Some(Box::new(details));
        let session = Session { epoch, since_s: since, owner: PackedOwner::default(), details };
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
        for client in std::mem::take(&mut self.bereaved) {
            self.leave_will(&client, journal);
        }
        self.state
    }

    /// Lets the will of a client fall due that was connected. It is written down with the rest, so that another crash begins neither anew.
    fn leave_will(&mut self, client: &ClientId, journal: &mut impl Journal) {
        let Ok(number) = self.state.issue_epoch() else { return };
        let Some(session) = self.state.sessions.find_mut(client) else { return };
        session.epoch = number;
        let Some(details) = &mut session.details else { return };
        let Some(will) = details.will.take() else { return };
        record_session(client, number, session.since_s, details, journal);
        let due_ms = will_falls_due_ms(&will, details.expiry_s, self.now_ms);
        self.state.wills.leave(number, LeftWill { client: client.clone(), due_ms, will }, journal);
    }
}
