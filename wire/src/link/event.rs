//! What happens to connections, told to whoever keeps a book of it.

use crate::coding::{CodingError, Reader, Write};
use crate::ids::Epoch;

/// A connection of a client began or ended. Told once, to the client's bridge, and not again on another link: a book of events is a
/// convenience, the truth about a session stands in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Whose connection.
    pub client: &'a str,
    /// The session's epoch, which orders the events of one client across nodes.
    pub epoch: Epoch,
    /// When, in ms of Unix time.
    pub at_ms: u64,
    /// What happened.
    pub kind: EventKind<'a>,
}

/// The kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind<'a> {
    /// A CONNACK with success went out, or the JSON protocol's welcome.
    Connected {
        /// `mqtt-3.1.1`, `mqtt-5` or `json`, as in [`Connection::protocol`](crate::presence::Connection::protocol).
        protocol: &'a str,
        /// A session was resumed.
        session_present: bool,
        /// Session expiry in seconds; 0: the session ends with its connection.
        session_expiry_s: u32,
    },
    /// The connection ended.
    Disconnected {
        /// The close reason's label, as in the metrics.
        reason: &'a str,
        /// The session ended with it.
        session_ended: bool,
    },
    /// The connection ended because the client connected elsewhere.
    TakenOver,
}

const CONNECTED: u8 = 0;
const DISCONNECTED: u8 = 1;
const TAKEN_OVER: u8 = 2;

impl<'a> Event<'a> {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_text(self.client);
        out.put_u64(self.epoch.0);
        out.put_u64(self.at_ms);
        match self.kind {
            EventKind::Connected { protocol, session_present, session_expiry_s } => {
                out.put_u8(CONNECTED);
                out.put_text(protocol);
                out.put_u8(u8::from(session_present));
                out.put_u32(session_expiry_s);
            }
            EventKind::Disconnected { reason, session_ended } => {
                out.put_u8(DISCONNECTED);
                out.put_text(reason);
                out.put_u8(u8::from(session_ended));
            }
            EventKind::TakenOver => out.put_u8(TAKEN_OVER),
        }
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, CodingError> {
        let client = reader.text()?;
        let epoch = Epoch(reader.u64()?);
        let at_ms = reader.u64()?;
        let kind = match reader.u8()? {
            CONNECTED => EventKind::Connected {
                protocol: reader.text()?,
                session_present: reader.u8()? != 0,
                session_expiry_s: reader.u32()?,
            },
            DISCONNECTED => {
                EventKind::Disconnected { reason: reader.text()?, session_ended: reader.u8()? != 0 }
            }
            TAKEN_OVER => EventKind::TakenOver,
            other => return Err(CodingError::UnknownValue { field: "event", value: u64::from(other) }),
        };
        Ok(Self { client, epoch, at_ms, kind })
    }
}
