//! What outlives a connection: a session as the store keeps it and as any node can take it up again.
//!
//! The store reads subscriptions and cursors out of it (they hold streams alive); everything else is opaque to it.

use crate::coding::{CodingError, Reader, Write};
use crate::message::SharedMessage;
use crate::mqtt::{PacketId, QoS};

/// A queue in the store which many sessions (or one) read, each with a cursor of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamKey {
    /// Everything with QoS > 0 that matches this filter, for all persistent sessions that hold it. A shared subscription's
    /// filter stands here with its `$share/{group}/`, and is divided among the group's members, each with a count of its own.
    Filter(Box<str>),
    /// Pushes to one client that was away.
    Device(Box<str>),
}

impl StreamKey {
    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, text) = match self {
            Self::Filter(filter) => (0, filter),
            Self::Device(client) => (1, client),
        };
        out.put_u8(kind);
        out.put_text(text);
    }

    /// Reads an encoding that other fields may follow.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, CodingError> {
        match reader.u8()? {
            0 => Ok(Self::Filter(reader.text()?.into())),
            1 => Ok(Self::Device(reader.text()?.into())),
            other => Err(CodingError::UnknownValue { field: "stream kind", value: u64::from(other) }),
        }
    }
}

/// Place of a message in a stream; 0 is before all. Below 2^53. A filter's only grow, whatever becomes of its stream meanwhile; a device's only within
/// a session, as that of a new one begins at 0 again.
pub type Offset = u64;

/// One subscription of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionRecord {
    /// The filter as the client gave it, with `$share/{group}/` if shared.
    pub filter: Box<str>,
    /// Maximum QoS granted.
    pub qos: QoS,
    /// MQTT 5 option: not to be sent what the client itself published.
    pub no_local: bool,
    /// MQTT 5 option: RETAIN as the publisher set it.
    pub retain_as_published: bool,
    /// MQTT 5 subscription identifier, 1 to 268,435,455; 0 means none.
    pub identifier: u32,
}

/// How far a session has read a stream: everything up to and including `acked` is settled with the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The stream.
    pub stream: StreamKey,
    /// The last settled message.
    pub acked: Offset,
}

/// How far a message sent to the client has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InflightState {
    /// PUBLISH with QoS 1 sent, PUBACK awaited.
    AwaitingPubAck,
    /// PUBLISH with QoS 2 sent, PUBREC awaited.
    AwaitingPubRec,
    /// PUBREL sent, PUBCOMP awaited; the message itself is no longer needed.
    AwaitingPubComp,
}

/// A message that was sent and is not acknowledged: a resume sends it again with the same packet id
/// (MQTT-4.4.0-1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InflightRecord {
    /// The packet id in use.
    pub packet_id: PacketId,
    /// How far it has come.
    pub state: InflightState,
    /// Subscription identifiers it was sent with.
    pub subscription_ids: Box<[u32]>,
    /// RETAIN as it was sent.
    pub retain: bool,
    /// The message; none when only PUBCOMP is awaited.
    pub message: Option<SharedMessage>,
    /// The stream places it settles once acknowledged.
    pub positions: Vec<Cursor>,
}

/// A session at rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionRecord {
    /// All subscriptions.
    pub subscriptions: Vec<SubscriptionRecord>,
    /// One cursor for each stream that the subscriptions with QoS > 0 read.
    pub cursors: Vec<Cursor>,
    /// QoS 2 packet ids received and not yet released by PUBREL (MQTT-4.3.3-10).
    pub received: Vec<PacketId>,
    /// Messages sent and not acknowledged, in the order they were sent.
    pub inflight: Vec<InflightRecord>,
}

/// First byte of the encoding; a store that meets another one says so and does not guess.
pub const FORMAT_VERSION: u8 = 1;

impl SessionRecord {
    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(FORMAT_VERSION);
        out.put_u32(self.subscriptions.len() as u32);
        for subscription in &self.subscriptions {
            subscription.encode(out);
        }
        encode_cursors(&self.cursors, out);
        out.put_u32(self.received.len() as u32);
        for id in &self.received {
            out.put_u16(id.get());
        }
        out.put_u32(self.inflight.len() as u32);
        for inflight in &self.inflight {
            inflight.encode(out);
        }
    }

    /// Reads an encoding that fills `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodingError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != FORMAT_VERSION {
            return Err(CodingError::UnknownValue { field: "session format", value: u64::from(version) });
        }
        // Growing a vector as the entries turn up, not by the count that stands before them: a damaged count must
        // not reserve memory.
        let mut record = Self::default();
        for _ in 0..reader.u32()? {
            record.subscriptions.push(SubscriptionRecord::read(&mut reader)?);
        }
        record.cursors = read_cursors(&mut reader)?;
        for _ in 0..reader.u32()? {
            record.received.push(read_packet_id(&mut reader)?);
        }
        for _ in 0..reader.u32()? {
            record.inflight.push(InflightRecord::read(&mut reader)?);
        }
        reader.finish()?;
        Ok(record)
    }
}

impl SubscriptionRecord {
    const NO_LOCAL: u8 = 0b0100;
    const RETAIN_AS_PUBLISHED: u8 = 0b1000;

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_text(&self.filter);
        let mut flags = u8::from(self.qos);
        flags |= if self.no_local { Self::NO_LOCAL } else { 0 };
        flags |= if self.retain_as_published { Self::RETAIN_AS_PUBLISHED } else { 0 };
        out.put_u8(flags);
        out.put_u32(self.identifier);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, CodingError> {
        let filter = reader.text()?.into();
        let flags = reader.u8()?;
        Ok(Self {
            filter,
            qos: QoS::try_from(flags & 0b11)
                .map_err(|_| CodingError::UnknownValue { field: "QoS", value: u64::from(flags & 0b11) })?,
            no_local: flags & Self::NO_LOCAL != 0,
            retain_as_published: flags & Self::RETAIN_AS_PUBLISHED != 0,
            identifier: reader.u32()?,
        })
    }
}

impl InflightRecord {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16(self.packet_id.get());
        out.put_u8(match self.state {
            InflightState::AwaitingPubAck => 0,
            InflightState::AwaitingPubRec => 1,
            InflightState::AwaitingPubComp => 2,
        });
        out.put_u8(u8::from(self.retain));
        out.put_u32(self.subscription_ids.len() as u32);
        for id in &self.subscription_ids {
            out.put_u32(*id);
        }
        out.put_bytes(self.message.as_ref().map_or(&[][..], SharedMessage::as_bytes));
        encode_cursors(&self.positions, out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, CodingError> {
        let packet_id = read_packet_id(reader)?;
        let state = match reader.u8()? {
            0 => InflightState::AwaitingPubAck,
            1 => InflightState::AwaitingPubRec,
            2 => InflightState::AwaitingPubComp,
            other => {
                return Err(CodingError::UnknownValue { field: "inflight state", value: u64::from(other) });
            }
        };
        let retain = reader.u8()? != 0;
        let mut subscription_ids = Vec::new();
        for _ in 0..reader.u32()? {
            subscription_ids.push(reader.u32()?);
        }
        let message = match reader.bytes()? {
            [] => None,
            bytes => Some(SharedMessage::from_bytes(bytes)?),
        };
        Ok(Self {
            packet_id,
            state,
            subscription_ids: subscription_ids.into(),
            retain,
            message,
            positions: read_cursors(reader)?,
        })
    }
}

fn encode_cursors(cursors: &[Cursor], out: &mut Vec<u8>) {
    out.put_u32(cursors.len() as u32);
    for cursor in cursors {
        cursor.stream.encode(out);
        out.put_u64(cursor.acked);
    }
}

fn read_cursors(reader: &mut Reader<'_>) -> Result<Vec<Cursor>, CodingError> {
    let mut cursors = Vec::new();
    for _ in 0..reader.u32()? {
        cursors.push(Cursor { stream: StreamKey::read(reader)?, acked: reader.u64()? });
    }
    Ok(cursors)
}

fn read_packet_id(reader: &mut Reader<'_>) -> Result<PacketId, CodingError> {
    PacketId::new(reader.u16()?).ok_or(CodingError::UnknownValue { field: "packet id", value: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;

    fn sample() -> SessionRecord {
        let position = Cursor { stream: StreamKey::Filter("alerts/#".into()), acked: 41 };
        SessionRecord {
            subscriptions: vec![SubscriptionRecord {
                filter: "alerts/#".into(),
                qos: QoS::ExactlyOnce,
                no_local: true,
                retain_as_published: false,
                identifier: 7,
            }],
            cursors: vec![position.clone(), Cursor { stream: StreamKey::Device("d-1".into()), acked: 0 }],
            received: vec![PacketId::new(9).unwrap()],
            inflight: vec![
                InflightRecord {
                    packet_id: PacketId::new(1).unwrap(),
                    state: InflightState::AwaitingPubRec,
                    subscription_ids: [7].into(),
                    retain: false,
                    message: Some(SharedMessage::new(&Message {
                        id: 3,
                        topic: "alerts/fire",
                        qos: QoS::ExactlyOnce,
                        retain: false,
                        publisher: "",
                        published_at_ms: 1,
                        expires_at_ms: 0,
                        properties: &[],
                        payload: b"now",
                    })),
                    positions: vec![position],
                },
                InflightRecord {
                    packet_id: PacketId::new(2).unwrap(),
                    state: InflightState::AwaitingPubComp,
                    subscription_ids: [].into(),
                    retain: false,
                    message: None,
                    positions: vec![],
                },
            ],
        }
    }

    #[test]
    fn a_session_survives_its_encoding() {
        let mut bytes = Vec::new();
        sample().encode(&mut bytes);
        assert_eq!(SessionRecord::decode(&bytes), Ok(sample()));
    }

    #[test]
    fn every_strict_prefix_is_refused() {
        let mut bytes = Vec::new();
        sample().encode(&mut bytes);
        for length in 0..bytes.len() {
            assert!(SessionRecord::decode(&bytes[..length]).is_err(), "a prefix of {length} bytes was taken");
        }
    }

    #[test]
    fn a_record_of_another_format_version_is_named_as_such() {
        assert_eq!(
            SessionRecord::decode(&[9]),
            Err(CodingError::UnknownValue { field: "session format", value: 9 })
        );
    }
}
