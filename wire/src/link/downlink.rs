//! Messages on their way to sessions, what became of them, and word of sessions that moved.

use crate::coding::{CodingError, Reader, Write};
use crate::ids::{Epoch, NodeId, Owner, ShardId};
use crate::message::Message;
use crate::session_record::{Cursor, StreamKey};

/// A message for sessions of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deliver<'a> {
    /// The shard reports the outcome under this number; 0 asks for no report.
    pub delivery: u64,
    /// Whom it is for.
    pub target: Target<'a>,
    /// Where it stands in streams of the store: a persistent session that reads one of them settles it with its cursor.
    pub positions: Positions,
    /// The message.
    pub message: Message<'a>,
}

/// Places of one message in streams; empty, and without an allocation, for what is not stored.
pub type Positions = Vec<Cursor>;

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// Every session of the shard with a matching ordinary subscription.
    Subscribers,
    /// The session of this client, if it holds a matching subscription.
    Device(&'a str),
    /// One connected member of `$share/{group}/{filter}`.
    Group {
        /// The group's name.
        group: &'a str,
        /// The filter behind it.
        filter: &'a str,
    },
}

impl<'a> Deliver<'a> {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_u64(self.delivery);
        match self.target {
            Target::Subscribers => out.put_u8(0),
            Target::Device(client) => {
                out.put_u8(1);
                out.put_text(client);
            }
            Target::Group { group, filter } => {
                out.put_u8(2);
                out.put_text(group);
                out.put_text(filter);
            }
        }
        out.put_u16(self.positions.len() as u16);
        for position in &self.positions {
            position.stream.encode(out);
            out.put_u64(position.acked);
        }
        self.message.encode(out);
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, CodingError> {
        let delivery = reader.u64()?;
        let target = match reader.u8()? {
            0 => Target::Subscribers,
            1 => Target::Device(reader.text()?),
            2 => Target::Group { group: reader.text()?, filter: reader.text()? },
            other => return Err(CodingError::UnknownValue { field: "target", value: u64::from(other) }),
        };
        let mut positions = Positions::new();
        for _ in 0..reader.u16()? {
            positions.push(Cursor { stream: StreamKey::read(reader)?, acked: reader.u64()? });
        }
        Ok(Self { delivery, target, positions, message: Message::read(reader)? })
    }
}

/// What became of a delivery that asked for a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The delivery's number.
    pub delivery: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// The ways a delivery can end at a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The device acknowledged it, or it was QoS 0 and was handed to the socket.
    Delivered,
    /// The connection went away and the session, saved in the store, holds it.
    Kept,
    /// The session is not here (any more).
    NotHere,
    /// The session is here and holds no matching subscription.
    NotSubscribed,
    /// The session's queue is full.
    QueueFull,
    /// Its message expiry passed before it was sent.
    Expired,
    /// It was sent, or waited to be sent, when the connection of a session that does not persist went away.
    ConnectionLost,
    /// It is larger than the client's maximum packet size (MQTT-3.1.2-24).
    TooLarge,
    /// The device answered with an error reason code.
    RefusedByDevice,
    /// QoS 2, sent, and the session ended before the device said whether it has it: no other may be given it (MQTT-4.8.2-5).
    InDoubt,
}

impl Report {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.put_u64(self.delivery);
        out.put_u8(self.outcome.code());
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, CodingError> {
        Ok(Self { delivery: reader.u64()?, outcome: Outcome::read(reader)? })
    }
}

impl Outcome {
    fn code(self) -> u8 {
        match self {
            Self::Delivered => 0,
            Self::Kept => 1,
            Self::NotHere => 2,
            Self::NotSubscribed => 3,
            Self::QueueFull => 4,
            Self::Expired => 5,
            Self::ConnectionLost => 6,
            Self::TooLarge => 7,
            Self::RefusedByDevice => 8,
            Self::InDoubt => 9,
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, CodingError> {
        Ok(match reader.u8()? {
            0 => Self::Delivered,
            1 => Self::Kept,
            2 => Self::NotHere,
            3 => Self::NotSubscribed,
            4 => Self::QueueFull,
            5 => Self::Expired,
            6 => Self::ConnectionLost,
            7 => Self::TooLarge,
            8 => Self::RefusedByDevice,
            9 => Self::InDoubt,
            other => return Err(CodingError::UnknownValue { field: "outcome", value: u64::from(other) }),
        })
    }
}

/// A session changed its owner. The new owner says so to a bridge, which passes it on to the former owner; that one closes its connection
/// with "session taken over" if its epoch is older, and answers with a [`Handover`] over the same bridge, each time the same: once all that the client has said there
/// is settled, whichever bridges it went to, or after 300 ms. A bridge that cannot pass it on says [`NotLinked`](super::ToGateway::NotLinked).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Takeover<'a> {
    /// Whose session.
    pub client: &'a str,
    /// The new owner's epoch.
    pub epoch: Epoch,
    /// Who owned it before.
    pub former: Owner,
    /// Who owns it now, and is told by a [`Handover`] what the former owner knows beyond the store.
    pub owner: Owner,
}

impl<'a> Takeover<'a> {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_text(self.client);
        out.put_u64(self.epoch.0);
        write_owner(self.former, out);
        write_owner(self.owner, out);
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, CodingError> {
        Ok(Self {
            client: reader.text()?,
            epoch: Epoch(reader.u64()?),
            former: read_owner(reader)?,
            owner: read_owner(reader)?,
        })
    }
}

/// What a former owner knows of a session beyond what it has saved. It cannot write to the store any more, so it tells the new owner, which waits for it
/// a moment before it resumes the session, or publishes the will that the store answered it
/// ([`Opened::will`](crate::store::Opened::will)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover<'a> {
    /// Whose session.
    pub client: &'a str,
    /// The new owner's epoch, as the [`Takeover`] named it.
    pub epoch: Epoch,
    /// The new owner.
    pub owner: Owner,
    /// Cursors, received QoS 2 ids and inflight messages as an encoded `SessionRecord`; empty if the store knows all there is.
    pub session: &'a [u8],
    /// The will of the connection that the new owner displaced is neither published nor taken back, and is the new owner's now. Not so if the client had
    /// said goodbye, if the former owner has published it already, or if that connection never was accepted.
    pub owes_will: bool,
}

impl<'a> Handover<'a> {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_text(self.client);
        out.put_u64(self.epoch.0);
        write_owner(self.owner, out);
        out.put_bytes(self.session);
        out.put_u8(u8::from(self.owes_will));
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, CodingError> {
        Ok(Self {
            client: reader.text()?,
            epoch: Epoch(reader.u64()?),
            owner: read_owner(reader)?,
            session: reader.bytes()?,
            owes_will: reader.u8()? != 0,
        })
    }
}

/// What became of messages of a [`Handover`] that the store did not have. Their former owner reports them accordingly; if it hears nothing for 5 s, as
/// [`Outcome::ConnectionLost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandoverSettled<'a> {
    /// Whose session.
    pub client: &'a str,
    /// The new owner's epoch, as the [`Takeover`] named it.
    pub epoch: Epoch,
    /// Whom to tell.
    pub former: Owner,
    /// [`Outcome::Kept`]: the new owner has saved them. [`Outcome::ConnectionLost`]: it went on without them. [`Outcome::InDoubt`]: the session has ended.
    pub outcome: Outcome,
}

impl<'a> HandoverSettled<'a> {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_text(self.client);
        out.put_u64(self.epoch.0);
        write_owner(self.former, out);
        out.put_u8(self.outcome.code());
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, CodingError> {
        Ok(Self {
            client: reader.text()?,
            epoch: Epoch(reader.u64()?),
            former: read_owner(reader)?,
            outcome: Outcome::read(reader)?,
        })
    }
}

fn write_owner(owner: Owner, out: &mut Vec<u8>) {
    out.put_u64(owner.node.0);
    out.put_u16(owner.shard.0);
}

fn read_owner(reader: &mut Reader<'_>) -> Result<Owner, CodingError> {
    Ok(Owner { node: NodeId(reader.u64()?), shard: ShardId(reader.u16()?) })
}
