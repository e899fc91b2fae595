//! PUBCOMP (section 3.7).

use super::acknowledgement::{Acknowledgement, acknowledgement_packet};
use super::{
    AckProperties, DecodeError, FixedHeader, PacketId, PacketType, ProtocolVersion, ReasonCode,
    UserProperties,
};

acknowledgement_packet! {
    /// The receiver of a `QoS` 2 PUBLISH has forgotten its packet identifier (section 3.7).
    PubComp, "PUBCOMP"
}

#[cfg(test)]
mod tests {
    use super::super::Packet;
    use super::super::golden::{id, refusal, same};
    use super::*;

    #[test]
    fn success_is_four_bytes_in_both_versions() {
        let packet = Packet::PubComp(PubComp::success(id(0x0A0B)));
        same(ProtocolVersion::V311, &[0x70, 0x02, 0x0A, 0x0B], &packet);
        same(ProtocolVersion::V5, &[0x70, 0x02, 0x0A, 0x0B], &packet);
    }

    #[test]
    fn a_reason_is_read_and_written() {
        let packet = PubComp::with_reason(id(1), ReasonCode::PacketIdentifierNotFound);
        same(ProtocolVersion::V5, &[0x70, 0x03, 0x00, 0x01, 0x92], &Packet::PubComp(packet));
        let properties = AckProperties { reason_string: Some("?"), ..AckProperties::default() };
        let bytes = [0x70, 0x08, 0x00, 0x01, 0x92, 0x04, 0x1F, 0x00, 0x01, b'?'];
        same(ProtocolVersion::V5, &bytes, &Packet::PubComp(PubComp { properties, ..packet }));
    }

    #[test]
    fn a_reason_of_another_packet_is_refused() {
        let error = DecodeError::InvalidReasonCode { packet: PacketType::PubComp, code: 0x80 };
        assert_eq!(refusal(ProtocolVersion::V5, &[0x70, 0x03, 0x00, 0x01, 0x80]), error);
        assert_eq!(refusal(ProtocolVersion::V5, &[0x70, 0x02, 0x00, 0x00]), DecodeError::PacketIdZero);
    }
}
