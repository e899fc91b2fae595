//! UNSUBACK (section 3.11).

use super::acknowledgement::decode_reason_code;
use super::reader::Reader;
use super::writer::{Body, Sink, encode_packet};
use super::{AckProperties, DecodeError, FixedHeader, PacketId, PacketType, ProtocolVersion};

/// The answer to UNSUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// That of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// MQTT 5 only.
    pub properties: AckProperties<'a>,
    /// One for each filter, in the order of the UNSUBSCRIBE. Decoded codes are all valid here;
    /// [`ReasonCode::from_u8`](super::ReasonCode::from_u8) names them. MQTT 3.1.1 has none: nothing is written.
    pub reason_codes: &'a [u8],
}

impl<'a> UnsubAck<'a> {
    /// Reads the body that follows `header`.
    pub fn decode(
        header: FixedHeader,
        body: &'a [u8],
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::open(header, body, version)?;
        let packet_id = reader.packet_id()?;
        if version == ProtocolVersion::V311 {
            reader.finish()?;
            return Ok(Self { packet_id, properties: AckProperties::default(), reason_codes: &[] });
        }
        let properties = AckProperties::decode("UNSUBACK", reader.property_block()?)?;
        let reason_codes = reader.rest();
        if reason_codes.is_empty() {
            return Err(DecodeError::Truncated);
        }
        for code in reason_codes {
            decode_reason_code(PacketType::UnsubAck, *code)?;
        }
        Ok(Self { packet_id, properties, reason_codes })
    }

    /// Appends the packet to `out`.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        encode_packet(PacketType::UnsubAck.first_byte(), self, version, out);
    }
}

impl Body for UnsubAck<'_> {
    fn write_body(&self, version: ProtocolVersion, sink: &mut impl Sink) {
        sink.packet_id(self.packet_id);
        if version == ProtocolVersion::V5 {
            sink.property_block(&self.properties);
            sink.put(self.reason_codes);
        }
    }
}
