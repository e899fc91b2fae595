//! The fixed header (section 2.1): packet type, flags, remaining length.
//!
//! What is wrong with a packet is said as early as its first bytes tell, so that nothing is buffered for a packet
//! that will be refused: [`FixedHeader::decode`] refuses what no version allows, [`FixedHeader::check_for`] what
//! the connection's version rules out. The caller compares [`FixedHeader::packet_length`] with its maximum packet
//! size before it reads on.

use super::{DecodeError, ProtocolVersion, QoS};

/// The largest remaining length that four bytes can say: 256 MiB less one.
pub const MAX_REMAINING_LENGTH: u32 = 268_435_455;

/// The control packet types (table 2-1). All but AUTH exist in both versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum PacketType {
    /// Client to server: may I?
    Connect = 1,
    /// Server to client: the answer to CONNECT.
    ConnAck = 2,
    /// A message, either way.
    Publish = 3,
    /// End of `QoS` 1.
    PubAck = 4,
    /// `QoS` 2, second step.
    PubRec = 5,
    /// `QoS` 2, third step.
    PubRel = 6,
    /// End of `QoS` 2.
    PubComp = 7,
    /// Client to server: topic filters.
    Subscribe = 8,
    /// Server to client: one code for each filter.
    SubAck = 9,
    /// Client to server: filters to forget.
    Unsubscribe = 10,
    /// Server to client: the answer to UNSUBSCRIBE.
    UnsubAck = 11,
    /// Client to server: I live.
    PingReq = 12,
    /// Server to client: so do I.
    PingResp = 13,
    /// Goodbye; in MQTT 5 either way.
    Disconnect = 14,
    /// Steps of an authentication exchange; MQTT 5 only.
    Auth = 15,
}

impl PacketType {
    /// The type with this number; `None` for 0, which is reserved, and for what does not fit four bits.
    pub const fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// The first byte of a packet of this type, with the flags that table 2-2 prescribes (none set in PUBLISH).
    pub const fn first_byte(self) -> u8 {
        (self as u8) << 4 | self.prescribed_flags()
    }

    const fn prescribed_flags(self) -> u8 {
        match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        }
    }

    /// The least and the most that the remaining length can be in any version.
    const fn length_bounds(self) -> (u32, u32) {
        match self {
            // Protocol name, level, flags, keep alive, empty client identifier.
            Self::Connect => (12, MAX_REMAINING_LENGTH),
            Self::ConnAck | Self::PubAck | Self::PubRec | Self::PubRel | Self::PubComp | Self::UnsubAck => {
                (2, MAX_REMAINING_LENGTH)
            }
            // A topic of one byte, or an empty one with the property length.
            Self::Publish | Self::SubAck => (3, MAX_REMAINING_LENGTH),
            // An empty list of filters is a protocol error of its own, not a wrong length.
            Self::Subscribe | Self::Unsubscribe => (2, MAX_REMAINING_LENGTH),
            Self::PingReq | Self::PingResp => (0, 0),
            Self::Disconnect | Self::Auth => (0, MAX_REMAINING_LENGTH),
        }
    }

    /// The most that the remaining length can be in MQTT 3.1.1, where acknowledgements have no properties.
    const fn length_max_v311(self) -> u32 {
        match self {
            Self::ConnAck | Self::PubAck | Self::PubRec | Self::PubRel | Self::PubComp | Self::UnsubAck => 2,
            Self::Disconnect => 0,
            _ => MAX_REMAINING_LENGTH,
        }
    }
}

/// The first two to five bytes of each packet. Values out of [`FixedHeader::decode`] are valid in at least one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedHeader {
    /// High four bits of the first byte.
    pub packet_type: PacketType,
    /// Low four bits of the first byte.
    pub flags: u8,
    /// Bytes that follow this header; at most [`MAX_REMAINING_LENGTH`].
    pub remaining_length: u32,
    /// Bytes of the header itself, 2 to 5.
    pub header_length: u8,
}

impl FixedHeader {
    /// Reads the header at the start of `bytes`. `Ok(None)`: all is well so far and more bytes are needed.
    pub const fn decode(bytes: &[u8]) -> Result<Option<FixedHeader>, DecodeError> {
        let [first, length @ ..] = bytes else { return Ok(None) };
        let (packet_type, flags) = match split_first_byte(*first) {
            Ok(parts) => parts,
            Err(error) => return Err(error),
        };
        let mut remaining_length = 0;
        let mut index = 0;
        while index < 4 {
            if index == length.len() {
                return Ok(None);
            }
            remaining_length |= ((length[index] & 0x7F) as u32) << (7 * index);
            let more = length[index] & 0x80 != 0;
            index += 1;
            if !more {
                let header_length = 1 + index as u8;
                return Self { packet_type, flags, remaining_length, header_length }.checked();
            }
        }
        Err(DecodeError::VariableIntegerTooLong)
    }

    /// Length of the whole packet in bytes, header included: at most 268,435,460.
    pub const fn packet_length(&self) -> usize {
        self.header_length as usize + self.remaining_length as usize
    }

    /// DUP of a PUBLISH; meaningless in other packets.
    pub const fn dup(&self) -> bool {
        self.flags & 0b1000 != 0
    }

    /// `QoS` of a PUBLISH; meaningless in other packets.
    pub const fn qos(&self) -> QoS {
        match self.flags >> 1 & 0b11 {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        }
    }

    /// RETAIN of a PUBLISH; meaningless in other packets.
    pub const fn retain(&self) -> bool {
        self.flags & 1 != 0
    }

    /// Refuses what this header alone rules out on a connection of this version: AUTH and over-long
    /// acknowledgements in 3.1.1, a remaining length not in its shortest form in 5 `[MQTT-1.5.5-1]`.
    /// Each packet's `decode` does this too; call it earlier to refuse before the body has arrived.
    pub const fn check_for(&self, version: ProtocolVersion) -> Result<(), DecodeError> {
        match version {
            ProtocolVersion::V311 => {
                if matches!(self.packet_type, PacketType::Auth) {
                    return Err(DecodeError::ReservedPacketType(PacketType::Auth as u8));
                }
                if self.remaining_length > self.packet_type.length_max_v311() {
                    return Err(self.invalid_length());
                }
            }
            ProtocolVersion::V5 => {
                let shortest = match self.remaining_length {
                    0..=0x7F => 2,
                    0x80..=0x3FFF => 3,
                    0x4000..=0x001F_FFFF => 4,
                    _ => 5,
                };
                if self.header_length > shortest {
                    return Err(DecodeError::VariableIntegerNotMinimal);
                }
            }
        }
        Ok(())
    }

    const fn checked(self) -> Result<Option<Self>, DecodeError> {
        let (least, most) = self.packet_type.length_bounds();
        if self.remaining_length < least || self.remaining_length > most {
            return Err(self.invalid_length());
        }
        Ok(Some(self))
    }

    const fn invalid_length(self) -> DecodeError {
        DecodeError::InvalidLength { packet: self.packet_type, length: self.remaining_length }
    }
}

const fn split_first_byte(first: u8) -> Result<(PacketType, u8), DecodeError> {
    let flags = first & 0x0F;
    let Some(packet_type) = PacketType::from_u8(first >> 4) else {
        return Err(DecodeError::ReservedPacketType(first >> 4));
    };
    if !matches!(packet_type, PacketType::Publish) {
        if flags != packet_type.prescribed_flags() {
            return Err(DecodeError::InvalidHeaderFlags { packet: packet_type, flags });
        }
    } else if flags & 0b0110 == 0b0110 {
        return Err(DecodeError::InvalidQoS);
    } else if flags & 0b1110 == 0b1000 {
        return Err(DecodeError::DupWithQoS0);
    }
    Ok((packet_type, flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<Option<FixedHeader>, DecodeError> {
        FixedHeader::decode(bytes)
    }

    #[test]
    fn a_header_says_type_flags_and_lengths() {
        let header = decode(&[0x3D, 0xC1, 0x02]).expect("valid").expect("whole");
        assert_eq!(header.packet_type, PacketType::Publish);
        assert_eq!((header.dup(), header.qos(), header.retain()), (true, QoS::ExactlyOnce, true));
        assert_eq!((header.remaining_length, header.header_length, header.packet_length()), (321, 3, 324));
    }

    #[test]
    fn a_header_cut_short_needs_more_bytes() {
        for bytes in [&[][..], &[0x30], &[0x30, 0x80], &[0x30, 0xFF, 0xFF], &[0x30, 0xFF, 0xFF, 0xFF]] {
            assert_eq!(decode(bytes), Ok(None));
        }
    }

    #[test]
    fn the_first_byte_alone_refuses_what_no_version_allows() {
        assert_eq!(decode(&[0x00]), Err(DecodeError::ReservedPacketType(0)));
        assert_eq!(decode(&[0x36]), Err(DecodeError::InvalidQoS));
        assert_eq!(decode(&[0x38]), Err(DecodeError::DupWithQoS0));
        for first in [0x11, 0x2F, 0x41, 0x60, 0x80, 0x83, 0xA0, 0xC8, 0xE2, 0xF1] {
            assert!(matches!(decode(&[first]), Err(DecodeError::InvalidHeaderFlags { .. })), "{first:#04x}");
        }
    }

    #[test]
    fn every_type_is_accepted_with_its_prescribed_flags() {
        for packet_type in (1..=15).filter_map(PacketType::from_u8) {
            assert_eq!(decode(&[packet_type.first_byte()]), Ok(None), "{packet_type:?}");
        }
    }

    #[test]
    fn a_remaining_length_of_five_bytes_is_refused_before_the_fifth() {
        assert_eq!(decode(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF]), Err(DecodeError::VariableIntegerTooLong));
        let largest = decode(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]).expect("valid").expect("whole");
        assert_eq!(largest.remaining_length, MAX_REMAINING_LENGTH);
    }

    #[test]
    fn a_length_that_the_type_cannot_have_is_refused_before_the_body() {
        for bytes in [[0xC0, 1], [0xD0, 1], [0x10, 11], [0x40, 1], [0x30, 2], [0x82, 1], [0x90, 2]] {
            assert!(matches!(decode(&bytes), Err(DecodeError::InvalidLength { .. })), "{bytes:?}");
        }
    }

    #[test]
    fn the_version_rules_out_more_before_the_body() {
        let header = |bytes: &[u8]| decode(bytes).expect("valid").expect("whole");
        let padded = header(&[0x30, 0x83, 0x00]);
        assert_eq!(padded.check_for(ProtocolVersion::V5), Err(DecodeError::VariableIntegerNotMinimal));
        assert_eq!(
            padded.check_for(ProtocolVersion::V311),
            Ok(()),
            "3.1.1 does not ask for the shortest form"
        );
        let auth = header(&[0xF0, 0x00]);
        assert_eq!(auth.check_for(ProtocolVersion::V311), Err(DecodeError::ReservedPacketType(15)));
        let long_puback = header(&[0x40, 0x03]);
        assert_eq!(long_puback.check_for(ProtocolVersion::V5), Ok(()));
        assert!(long_puback.check_for(ProtocolVersion::V311).is_err());
        assert!(header(&[0xE0, 0x01]).check_for(ProtocolVersion::V311).is_err());
    }
}
