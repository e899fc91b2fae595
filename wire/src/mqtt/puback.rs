//! PUBACK (section 3.4).

use super::acknowledgement::{Acknowledgement, acknowledgement_packet};
use super::{
    AckProperties, DecodeError, FixedHeader, PacketId, PacketType, ProtocolVersion, ReasonCode,
    UserProperties,
};

acknowledgement_packet! {
    /// The receiver of a `QoS` 1 PUBLISH has taken it, or says why not (section 3.4).
    PubAck, "PUBACK"
}

#[cfg(test)]
mod tests {
    use super::super::Packet;
    use super::super::golden::{id, read, refusal, same};
    use super::*;

    #[test]
    fn success_is_four_bytes_in_both_versions() {
        // 3.1.1 figure 3.13; 5.0 section 3.4.2.1.
        let bytes = [0x40, 0x02, 0x12, 0x34];
        let packet = Packet::PubAck(PubAck::success(id(0x1234)));
        same(ProtocolVersion::V311, &bytes, &packet);
        same(ProtocolVersion::V5, &bytes, &packet);
    }

    #[test]
    fn a_reason_without_properties_is_five_bytes() {
        // Section 3.4.2.2.1: below 4 bytes there is no property length.
        let packet = PubAck::with_reason(id(1), ReasonCode::QuotaExceeded);
        same(ProtocolVersion::V5, &[0x40, 0x03, 0x00, 0x01, 0x97], &Packet::PubAck(packet));
    }

    #[test]
    fn properties_follow_the_reason() {
        let properties =
            AckProperties { reason_string: Some("no"), user_properties: (&[("k", "v")][..]).into() };
        let packet = PubAck { properties, ..PubAck::with_reason(id(1), ReasonCode::NotAuthorized) };
        let bytes = [
            0x40, 0x10, 0x00, 0x01, 0x87, 0x0C, // packet identifier, reason code, property length
            0x1F, 0x00, 0x02, b'n', b'o', // reason string
            0x26, 0x00, 0x01, b'k', 0x00, 0x01, b'v', // user property
        ];
        same(ProtocolVersion::V5, &bytes, &Packet::PubAck(packet));
    }

    #[test]
    fn the_long_form_of_success_is_read_too() {
        let expected = Ok(Packet::PubAck(PubAck::success(id(1))));
        assert_eq!(read(ProtocolVersion::V5, &[0x40, 0x03, 0x00, 0x01, 0x00]), expected);
        assert_eq!(read(ProtocolVersion::V5, &[0x40, 0x04, 0x00, 0x01, 0x00, 0x00]), expected);
    }

    #[test]
    fn version_3_1_1_is_written_without_a_reason() {
        let mut out = Vec::new();
        PubAck::with_reason(id(1), ReasonCode::NotAuthorized).encode(ProtocolVersion::V311, &mut out);
        assert_eq!(out, [0x40, 0x02, 0x00, 0x01]);
    }

    #[test]
    fn what_puback_may_not_carry_is_refused() {
        let refusal = |bytes| refusal(ProtocolVersion::V5, bytes);
        assert_eq!(refusal(&[0x40, 0x02, 0x00, 0x00]), DecodeError::PacketIdZero);
        let code = |code| DecodeError::InvalidReasonCode { packet: PacketType::PubAck, code };
        assert_eq!(refusal(&[0x40, 0x03, 0x00, 0x01, 0x92]), code(0x92));
        assert_eq!(refusal(&[0x40, 0x03, 0x00, 0x01, 0x03]), code(0x03));
        assert_eq!(refusal(&[0x40, 0x05, 0x00, 0x01, 0x00, 0x00, 0x00]), DecodeError::TrailingBytes);
        assert_eq!(refusal(&[0x40, 0x04, 0x00, 0x01, 0x00, 0x01]), DecodeError::Truncated);
    }
}
