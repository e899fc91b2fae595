//! Publications on their way up, and how they were settled.

use crate::coding::{CodingError, Reader, Write};
use crate::ids::Epoch;
use crate::message::Message;
use crate::mqtt::PacketId;

/// Bytes of wills that a shard may have on their way to one bridge beyond its window, as nobody can be held back for them; the bridge reads on in spite of them. As many
/// wait at a shard without a link. Beyond it they are left to the store, which gives them to a bridge.
pub const WILL_BYTES_MAX: usize = 8 << 20;

/// A publication of a device. Unsettled ones with QoS > 0 are sent again, in order and with the same `sequence`, when a
/// link to the same or another bridge takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uplink<'a> {
    /// Counts the uplinks of one shard to one bridge, without gaps, from 1.
    pub sequence: u64,
    /// The publisher's session.
    pub epoch: Epoch,
    /// The packet id that the publisher gave; none with QoS 0 and for wills.
    pub packet_id: Option<PacketId>,
    /// The publisher marked it as sent again.
    pub dup: bool,
    /// The shard sends it again because a link was lost.
    pub resent: bool,
    /// The publisher wants to know where the sink keeps it: settled by [`SettledAt`] if the sink can tell.
    pub wants_receipt: bool,
    /// Event time that the device gave, in ms of Unix time; 0 if it gave none.
    pub event_time_ms: u64,
    /// The publication; its publisher is the client id that keys the record. A will has an id already
    /// ([`WillRecord::published`](crate::store::WillRecord::published)); every other publication is given one by the bridge.
    pub message: Message<'a>,
}

const DUP: u8 = 0b001;
const RESENT: u8 = 0b010;
const WANTS_RECEIPT: u8 = 0b100;

impl<'a> Uplink<'a> {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_u64(self.sequence);
        out.put_u64(self.epoch.0);
        out.put_u16(self.packet_id.map_or(0, PacketId::get));
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        out.put_u8(flag(self.dup, DUP) | flag(self.resent, RESENT) | flag(self.wants_receipt, WANTS_RECEIPT));
        out.put_u64(self.event_time_ms);
        self.message.encode(out);
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, CodingError> {
        let sequence = reader.u64()?;
        let epoch = Epoch(reader.u64()?);
        let packet_id = PacketId::new(reader.u16()?);
        let flags = reader.u8()?;
        Ok(Self {
            sequence,
            epoch,
            packet_id,
            dup: flags & DUP != 0,
            resent: flags & RESENT != 0,
            wants_receipt: flags & WANTS_RECEIPT != 0,
            event_time_ms: reader.u64()?,
            message: Message::read(reader)?,
        })
    }
}

/// A run of uplinks that were settled alike. Runs may arrive in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The first sequence of the run.
    pub first: u64,
    /// The last sequence of the run; not below `first`.
    pub last: u64,
    /// 0: everything that owes the frame has it. Otherwise the MQTT 5 reason code (0x80 and above) of a refusal for good.
    pub reason_code: u8,
}

impl Settled {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_u64(self.first);
        out.put_u64(self.last);
        out.put_u8(self.reason_code);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, CodingError> {
        Ok(Self { first: reader.u64()?, last: reader.u64()?, reason_code: reader.u8()? })
    }
}

/// An uplink that asked for a receipt was settled without an error, and the sink says where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettledAt<'a> {
    /// Which uplink.
    pub sequence: u64,
    /// It had been stored before, and was recognised.
    pub duplicate: bool,
    /// The Kafka topic.
    pub topic: &'a str,
    /// The topic's partition.
    pub partition: i32,
    /// The record's offset in it.
    pub offset: i64,
}

impl<'a> SettledAt<'a> {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_u64(self.sequence);
        out.put_u8(u8::from(self.duplicate));
        out.put_text(self.topic);
        out.put_u32(self.partition.cast_unsigned());
        out.put_u64(self.offset.cast_unsigned());
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, CodingError> {
        Ok(Self {
            sequence: reader.u64()?,
            duplicate: reader.u8()? != 0,
            topic: reader.text()?,
            partition: reader.u32()?.cast_signed(),
            offset: reader.u64()?.cast_signed(),
        })
    }
}
