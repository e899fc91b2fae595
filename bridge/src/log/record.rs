//! One frame in the log, and the batch that gathers frames on their way there.
//!
//! A record is a head of 16 bytes (length of the body, CRC-32C over offset and body, offset) and a body. All integers are little-endian. The
//! body names its optional fields in the first byte, so a frame costs 59 bytes beside its topic, client id and payload.

use std::io;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use holdfast_wire::coding::{CodingError, Reader, Write};
use holdfast_wire::ids::{Epoch, NodeId};
use holdfast_wire::message::Message;
use holdfast_wire::mqtt::{PacketId, QoS};
use serde::Serialize;

/// Bytes before a record's body.
pub(super) const HEAD_BYTES: usize = 16;
/// Shortest possible body: all optional fields absent, all texts empty.
pub(super) const BODY_BYTES_MIN: usize = 1 + 4 * 8 + 2 + 2 + 4;
/// Longest possible body: the largest record of a link carries more around its message than we do.
pub(super) const BODY_BYTES_MAX: usize = holdfast_wire::link::RECORD_BYTES_MAX;

/// A frame as the log keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRecord<'a> {
    /// Its place in the log, counted from 1; ignored when appending.
    pub offset: u64,
    /// The node that took it from the device.
    pub node: NodeId,
    /// The session's epoch there.
    pub epoch: Epoch,
    /// The packet id that the device gave; none with QoS 0 and for wills.
    pub packet_id: Option<PacketId>,
    /// The device marked it as sent again.
    pub dup: bool,
    /// The gateway sent it again because a link was lost.
    pub resent: bool,
    /// Event time that the device gave, in ms of Unix time; 0 if none.
    pub event_time_ms: u64,
    /// The publication: `publisher` is the client id, `published_at_ms` the time of arrival.
    pub message: Message<'a>,
}

const QOS_BITS: u8 = 0b0000_0011;
const RETAIN: u8 = 0b0000_0100;
const DUP: u8 = 0b0000_1000;
const RESENT: u8 = 0b0001_0000;
const PACKET_ID: u8 = 0b0010_0000;
const EVENT_TIME: u8 = 0b0100_0000;
const EXPIRY: u8 = 0b1000_0000;

impl<'a> LogRecord<'a> {
    fn write_body(&self, out: &mut Vec<u8>) {
        let message = &self.message;
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        out.put_u8(
            u8::from(message.qos)
                | flag(message.retain, RETAIN)
                | flag(self.dup, DUP)
                | flag(self.resent, RESENT)
                | flag(self.packet_id.is_some(), PACKET_ID)
                | flag(self.event_time_ms != 0, EVENT_TIME)
                | flag(message.expires_at_ms != 0, EXPIRY),
        );
        out.put_u64(message.id);
        out.put_u64(self.node.0);
        out.put_u64(self.epoch.0);
        out.put_u64(message.published_at_ms);
        if let Some(packet_id) = self.packet_id {
            out.put_u16(packet_id.get());
        }
        if self.event_time_ms != 0 {
            out.put_u64(self.event_time_ms);
        }
        if message.expires_at_ms != 0 {
            out.put_u64(message.expires_at_ms);
        }
        out.put_text(message.publisher);
        out.put_text(message.topic);
        out.put_bytes(message.properties);
        out.extend_from_slice(message.payload);
    }

    /// Reads a body that fills `bytes`; the payload is what remains behind the other fields.
    pub(super) fn read_body(offset: u64, bytes: &'a [u8]) -> Result<Self, CodingError> {
        let mut reader = Reader::new(bytes);
        let flags = reader.u8()?;
        let qos = QoS::try_from(flags & QOS_BITS)
            .map_err(|_| CodingError::UnknownValue { field: "QoS", value: u64::from(flags & QOS_BITS) })?;
        let id = reader.u64()?;
        let node = NodeId(reader.u64()?);
        let epoch = Epoch(reader.u64()?);
        let published_at_ms = reader.u64()?;
        let packet_id = if flags & PACKET_ID != 0 { PacketId::new(reader.u16()?) } else { None };
        let event_time_ms = if flags & EVENT_TIME != 0 { reader.u64()? } else { 0 };
        let expires_at_ms = if flags & EXPIRY != 0 { reader.u64()? } else { 0 };
        let publisher = reader.text()?;
        let topic = reader.text()?;
        let properties = reader.bytes()?;
        Ok(Self {
            offset,
            node,
            epoch,
            packet_id,
            dup: flags & DUP != 0,
            resent: flags & RESENT != 0,
            event_time_ms,
            message: Message {
                id,
                topic,
                qos,
                retain: flags & RETAIN != 0,
                publisher,
                published_at_ms,
                expires_at_ms,
                properties,
                payload: reader.rest(),
            },
        })
    }

    /// Writes it as one JSON object and a line feed. Times are in ms of Unix time; what is absent is `null`.
    pub fn write_json_line(&self, out: &mut dyn io::Write) -> io::Result<()> {
        #[derive(Serialize)]
        struct Line<'a> {
            offset: u64,
            client_id: &'a str,
            topic: &'a str,
            qos: u8,
            dup: bool,
            resent: bool,
            packet_id: Option<u16>,
            session: u64,
            node: String,
            received_at: u64,
            event_time: Option<u64>,
            payload_base64: String,
        }
        let line = Line {
            offset: self.offset,
            client_id: self.message.publisher,
            topic: self.message.topic,
            qos: self.message.qos.into(),
            dup: self.dup,
            resent: self.resent,
            packet_id: self.packet_id.map(PacketId::get),
            session: self.epoch.0,
            node: self.node.to_string(),
            received_at: self.message.published_at_ms,
            event_time: (self.event_time_ms != 0).then_some(self.event_time_ms),
            payload_base64: BASE64_STANDARD.encode(self.message.payload),
        };
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")
    }
}

/// Records on their way to the log, encoded as they come: pushing allocates nothing once the buffer has grown. Offsets and CRCs are
/// filled in by the appender, which alone knows the order of batches.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    records: u32,
    awaited: bool,
    /// Whatever its owner wants to know it by when it is given back; not stored.
    pub(crate) ticket: u64,
}

impl Batch {
    /// Encodes a record behind the others.
    pub fn push(&mut self, record: &LogRecord<'_>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEAD_BYTES]);
        record.write_body(&mut self.bytes);
        let length = self.bytes.len() - start - HEAD_BYTES;
        debug_assert!((BODY_BYTES_MIN..=BODY_BYTES_MAX).contains(&length));
        self.bytes[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
        self.records += 1;
        self.awaited |= record.message.qos > QoS::AtMostOnce;
    }

    /// Bytes gathered so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing has been pushed.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Records gathered so far.
    pub fn records(&self) -> u32 {
        self.records
    }

    /// Its records, in order; their offsets are what was there before.
    pub(crate) fn iter(&self) -> impl Iterator<Item = LogRecord<'_>> {
        self.parts().filter_map(|part| {
            let (_, body) = part.split_first_chunk::<HEAD_BYTES>()?;
            LogRecord::read_body(0, body).ok()
        })
    }

    /// A batch of the records in these runs, ascending, marked as sent again if that is wanted.
    pub(crate) fn select(&self, runs: &[std::ops::Range<u32>], resent: bool) -> Self {
        let mut selected = Self::default();
        let mut runs = runs.iter();
        let mut run = runs.next();
        for (number, part) in (0..).zip(self.parts()) {
            while run.is_some_and(|run| run.end <= number) {
                run = runs.next();
            }
            if run.is_some_and(|run| run.contains(&number)) {
                let start = selected.bytes.len();
                selected.bytes.extend_from_slice(part);
                let flags = &mut selected.bytes[start + HEAD_BYTES];
                if resent {
                    *flags |= RESENT;
                }
                selected.records += 1;
                selected.awaited |= *flags & QOS_BITS != 0;
            }
        }
        selected
    }

    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || {
            let length = u32::from_le_bytes(*rest.first_chunk()?) as usize;
            let (part, behind) = rest.split_at_checked(HEAD_BYTES + length)?;
            rest = behind;
            Some(part)
        })
    }

    /// Whether somebody waits to hear that it is stored: with QoS 0 nobody does.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.records = 0;
        self.awaited = false;
        self.ticket = 0;
    }

    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Gives the records consecutive offsets from `first_offset` and their CRCs.
    pub(super) fn seal(&mut self, first_offset: u64) {
        let mut rest = &mut self.bytes[..];
        let mut offset = first_offset;
        while let Some((head, body)) = rest.split_first_chunk_mut::<HEAD_BYTES>() {
            let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
            let (body, next) = body.split_at_mut(length);
            let offset_bytes = offset.to_le_bytes();
            let crc = crc32c::crc32c_append(crc32c::crc32c(&offset_bytes), body);
            head[4..8].copy_from_slice(&crc.to_le_bytes());
            head[8..16].copy_from_slice(&offset_bytes);
            rest = next;
            offset += 1;
        }
    }
}

/// The head of a record, not yet believed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) body_bytes: usize,
    pub(super) crc: u32,
    pub(super) offset: u64,
}

impl Head {
    /// `None` if no record can have this head.
    pub(super) fn read(bytes: &[u8; HEAD_BYTES]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (body_bytes, crc, offset) = (reader.u32().ok()? as usize, reader.u32().ok()?, reader.u64().ok()?);
        (BODY_BYTES_MIN..=BODY_BYTES_MAX).contains(&body_bytes).then_some(Self { body_bytes, crc, offset })
    }

    pub(super) fn matches(self, body: &[u8]) -> bool {
        crc32c::crc32c_append(crc32c::crc32c(&self.offset.to_le_bytes()), body) == self.crc
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::log) fn sample(payload: &[u8]) -> LogRecord<'_> {
        LogRecord {
            offset: 1,
            node: NodeId(0xabc),
            epoch: Epoch(7),
            packet_id: PacketId::new(9),
            dup: true,
            resent: false,
            event_time_ms: 0,
            message: Message {
                id: 77,
                topic: "plant/7/temperature",
                qos: QoS::AtLeastOnce,
                retain: false,
                publisher: "sensor-7",
                published_at_ms: 1_732_150_000_123,
                expires_at_ms: 0,
                properties: &[1, 1],
                payload,
            },
        }
    }

    #[test]
    fn a_record_survives_its_encoding_with_and_without_optional_fields() {
        let full = LogRecord {
            event_time_ms: 5,
            resent: true,
            message: Message { expires_at_ms: 9, retain: true, ..sample(b"21.5").message },
            ..sample(b"")
        };
        let bare = LogRecord { packet_id: None, dup: false, ..sample(b"") };
        for record in [full, bare, sample(b"x")] {
            let mut batch = Batch::default();
            batch.push(&record);
            batch.seal(1);
            let (head, body) = batch.as_bytes().split_first_chunk().unwrap();
            let head = Head::read(head).unwrap();
            assert!(head.matches(body));
            assert_eq!(LogRecord::read_body(head.offset, body), Ok(record));
        }
    }

    #[test]
    fn selected_records_are_the_same_but_for_the_mark() {
        let mut batch = Batch::default();
        let payloads = [&b"0"[..], b"1", b"2", b"3", b"4"];
        for payload in payloads {
            batch.push(&sample(payload));
        }
        batch.seal(100);
        let selected = batch.select(&[0..1, 3..5], true);
        let expected: Vec<_> = [0, 3, 4]
            .iter()
            .map(|&at: &usize| LogRecord { offset: 0, resent: true, ..sample(payloads[at]) })
            .collect();
        assert_eq!(selected.iter().collect::<Vec<_>>(), expected);
        assert_eq!(selected.records(), 3);
    }

    #[test]
    fn a_small_frame_costs_what_the_module_says() {
        let record =
            LogRecord { message: Message { properties: &[], ..sample(b"12345678").message }, ..sample(b"") };
        let mut batch = Batch::default();
        batch.push(&record);
        assert_eq!(batch.len(), 59 + "plant/7/temperature".len() + "sensor-7".len() + 8);
    }

    #[test]
    fn the_json_line_carries_the_fields_of_the_command_line() {
        let mut line = Vec::new();
        sample(b"21.5").write_json_line(&mut line).unwrap();
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"offset\":1,\"client_id\":\"sensor-7\",\"topic\":\"plant/7/temperature\",\"qos\":1,\"dup\":true,\"resent\":false,\"packet_id\":9,\
             \"session\":7,\"node\":\"0000000000000abc\",\"received_at\":1732150000123,\"event_time\":null,\"payload_base64\":\"MjEuNQ==\"}\n",
        );
    }
}
