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

#[cfg(test)]
mod tests {
    use super::super::Packet;
    use super::super::golden::{id, refusal, same};
    use super::*;

    fn unsuback(reason_codes: &[u8]) -> UnsubAck<'_> {
        UnsubAck { packet_id: id(10), properties: AckProperties::default(), reason_codes }
    }

    #[test]
    fn version_3_1_1_has_no_codes() {
        // 3.1.1 figure 3.32.
        same(ProtocolVersion::V311, &[0xB0, 0x02, 0x00, 0x0A], &Packet::UnsubAck(unsuback(&[])));
    }

    #[test]
    fn version_5_has_a_code_for_each_filter() {
        let bytes = [0xB0, 0x05, 0x00, 0x0A, 0x00, 0x00, 0x11];
        same(ProtocolVersion::V5, &bytes, &Packet::UnsubAck(unsuback(&[0x00, 0x11])));
    }

    #[test]
    fn what_unsuback_may_not_carry_is_refused() {
        let code = DecodeError::InvalidReasonCode { packet: PacketType::UnsubAck, code: 1 };
        assert_eq!(refusal(ProtocolVersion::V5, &[0xB0, 0x04, 0x00, 0x01, 0x00, 0x01]), code);
        assert_eq!(refusal(ProtocolVersion::V5, &[0xB0, 0x03, 0x00, 0x01, 0x00]), DecodeError::Truncated);
    }
}
