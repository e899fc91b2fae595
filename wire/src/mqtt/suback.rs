//! SUBACK (section 3.9).

use super::acknowledgement::decode_reason_code;
use super::reader::Reader;
use super::writer::{Body, Sink, encode_packet};
use super::{AckProperties, DecodeError, FixedHeader, PacketId, PacketType, ProtocolVersion};

/// The failure code of MQTT 3.1.1, the only one it has.
const FAILURE_V311: u8 = 0x80;

/// The answer to SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// That of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// MQTT 5 only.
    pub properties: AckProperties<'a>,
    /// One for each filter, in the order of the SUBSCRIBE: the granted `QoS`, or a failure. Decoded codes are all
    /// valid here; [`ReasonCode::from_u8`](super::ReasonCode::from_u8) names them. In MQTT 3.1.1 every failure is
    /// written as 0x80.
    pub reason_codes: &'a [u8],
}

impl<'a> SubAck<'a> {
    /// Reads the body that follows `header`.
    pub fn decode(
        header: FixedHeader,
        body: &'a [u8],
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::open(header, body, version)?;
        let packet_id = reader.packet_id()?;
        let properties = match version {
            ProtocolVersion::V311 => AckProperties::default(),
            ProtocolVersion::V5 => AckProperties::decode("SUBACK", reader.property_block()?)?,
        };
        let reason_codes = reader.rest();
        if reason_codes.is_empty() {
            return Err(DecodeError::Truncated);
        }
        for code in reason_codes {
            validate_code(*code, version)?;
        }
        Ok(Self { packet_id, properties, reason_codes })
    }

    /// Appends the packet to `out`.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        encode_packet(PacketType::SubAck.first_byte(), self, version, out);
    }
}

impl Body for SubAck<'_> {
    fn write_body(&self, version: ProtocolVersion, sink: &mut impl Sink) {
        sink.packet_id(self.packet_id);
        match version {
            ProtocolVersion::V311 => {
                for code in self.reason_codes {
                    sink.u8((*code).min(FAILURE_V311));
                }
            }
            ProtocolVersion::V5 => {
                sink.property_block(&self.properties);
                sink.put(self.reason_codes);
            }
        }
    }
}

fn validate_code(code: u8, version: ProtocolVersion) -> Result<(), DecodeError> {
    match version {
        ProtocolVersion::V311 if matches!(code, 0..=2 | FAILURE_V311) => Ok(()),
        ProtocolVersion::V311 => Err(DecodeError::InvalidReasonCode { packet: PacketType::SubAck, code }),
        ProtocolVersion::V5 => decode_reason_code(PacketType::SubAck, code).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Packet;
    use super::super::golden::{id, refusal, same};
    use super::*;

    fn suback(reason_codes: &[u8]) -> SubAck<'_> {
        SubAck { packet_id: id(10), properties: AckProperties::default(), reason_codes }
    }

    #[test]
    fn the_example_of_3_1_1_figure_3_27_is_read_and_written() {
        let bytes = [0x90, 0x05, 0x00, 0x0A, 0x00, 0x02, 0x80];
        same(ProtocolVersion::V311, &bytes, &Packet::SubAck(suback(&[0x00, 0x02, 0x80])));
    }

    #[test]
    fn version_5_tells_why() {
        let bytes = [0x90, 0x06, 0x00, 0x0A, 0x00, 0x01, 0x8F, 0x9E];
        same(ProtocolVersion::V5, &bytes, &Packet::SubAck(suback(&[0x01, 0x8F, 0x9E])));
    }

    #[test]
    fn version_3_1_1_has_one_failure() {
        let mut out = Vec::new();
        suback(&[0x01, 0x8F]).encode(ProtocolVersion::V311, &mut out);
        assert_eq!(out, [0x90, 0x04, 0x00, 0x0A, 0x01, 0x80]);
    }

    #[test]
    fn what_suback_may_not_carry_is_refused() {
        let code = |code| DecodeError::InvalidReasonCode { packet: PacketType::SubAck, code };
        assert_eq!(refusal(ProtocolVersion::V311, &[0x90, 0x03, 0x00, 0x01, 0x8F]), code(0x8F));
        assert_eq!(refusal(ProtocolVersion::V5, &[0x90, 0x04, 0x00, 0x01, 0x00, 0x11]), code(0x11));
        assert_eq!(refusal(ProtocolVersion::V5, &[0x90, 0x03, 0x00, 0x01, 0x00]), DecodeError::Truncated);
    }
}
