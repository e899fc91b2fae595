//! Any packet, for those who take them as they come.

use super::reader::Reader;
use super::{
    Auth, ConnAck, Connect, DecodeError, Disconnect, FixedHeader, PacketType, ProtocolVersion, PubAck,
    PubComp, PubRec, PubRel, Publish, SubAck, Subscribe, UnsubAck, Unsubscribe,
};

/// One control packet, borrowed from the bytes it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is documented at its type")]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    ConnAck(ConnAck<'a>),
    Publish(Publish<'a>),
    PubAck(PubAck<'a>),
    PubRec(PubRec<'a>),
    PubRel(PubRel<'a>),
    PubComp(PubComp<'a>),
    Subscribe(Subscribe<'a>),
    SubAck(SubAck<'a>),
    Unsubscribe(Unsubscribe<'a>),
    UnsubAck(UnsubAck<'a>),
    PingReq,
    PingResp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

impl<'a> Packet<'a> {
    /// Reads the body that follows `header`; `body` is exactly `header.remaining_length` bytes. The version is
    /// the connection's; a CONNECT brings its own and ignores it.
    pub fn decode(
        header: FixedHeader,
        body: &'a [u8],
        version: ProtocolVersion,
    ) -> Result<Packet<'a>, DecodeError> {
        Ok(match header.packet_type {
            PacketType::Connect => Self::Connect(Connect::decode(header, body)?),
            PacketType::ConnAck => Self::ConnAck(ConnAck::decode(header, body, version)?),
            PacketType::Publish => Self::Publish(Publish::decode(header, body, version)?),
            PacketType::PubAck => Self::PubAck(PubAck::decode(header, body, version)?),
            PacketType::PubRec => Self::PubRec(PubRec::decode(header, body, version)?),
            PacketType::PubRel => Self::PubRel(PubRel::decode(header, body, version)?),
            PacketType::PubComp => Self::PubComp(PubComp::decode(header, body, version)?),
            PacketType::Subscribe => Self::Subscribe(Subscribe::decode(header, body, version)?),
            PacketType::SubAck => Self::SubAck(SubAck::decode(header, body, version)?),
            PacketType::Unsubscribe => Self::Unsubscribe(Unsubscribe::decode(header, body, version)?),
            PacketType::UnsubAck => Self::UnsubAck(UnsubAck::decode(header, body, version)?),
            PacketType::PingReq => {
                Reader::open(header, body, version)?;
                Self::PingReq
            }
            PacketType::PingResp => {
                Reader::open(header, body, version)?;
                Self::PingResp
            }
            PacketType::Disconnect => Self::Disconnect(Disconnect::decode(header, body, version)?),
            PacketType::Auth => Self::Auth(Auth::decode(header, body, version)?),
        })
    }

    /// Appends the packet to `out`. A CONNECT is written in its own version.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        match self {
            Self::Connect(packet) => packet.encode(out),
            Self::ConnAck(packet) => packet.encode(version, out),
            Self::Publish(packet) => packet.encode(version, out),
            Self::PubAck(packet) => packet.encode(version, out),
            Self::PubRec(packet) => packet.encode(version, out),
            Self::PubRel(packet) => packet.encode(version, out),
            Self::PubComp(packet) => packet.encode(version, out),
            Self::Subscribe(packet) => packet.encode(version, out),
            Self::SubAck(packet) => packet.encode(version, out),
            Self::Unsubscribe(packet) => packet.encode(version, out),
            Self::UnsubAck(packet) => packet.encode(version, out),
            Self::PingReq => out.extend_from_slice(&PINGREQ),
            Self::PingResp => out.extend_from_slice(&PINGRESP),
            Self::Disconnect(packet) => packet.encode(version, out),
            Self::Auth(packet) => packet.encode(version, out),
        }
    }

    /// Which of the fifteen it is.
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }
}

const PINGREQ: [u8; 2] = [PacketType::PingReq.first_byte(), 0];
const PINGRESP: [u8; 2] = [PacketType::PingResp.first_byte(), 0];

#[cfg(test)]
mod tests {
    use super::super::golden::{refusal, same};
    use super::*;

    #[test]
    fn pings_are_two_bytes() {
        for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
            same(version, &[0xC0, 0x00], &Packet::PingReq);
            same(version, &[0xD0, 0x00], &Packet::PingResp);
        }
    }

    #[test]
    fn a_ping_with_a_body_is_refused() {
        let error = DecodeError::InvalidLength { packet: PacketType::PingReq, length: 1 };
        assert_eq!(refusal(ProtocolVersion::V5, &[0xC0, 0x01, 0x00]), error);
    }

    #[test]
    fn a_body_of_another_length_than_announced_is_refused() {
        let header = FixedHeader::decode(&[0x40, 0x02]).expect("valid").expect("whole");
        let decode = |body| Packet::decode(header, body, ProtocolVersion::V5);
        assert_eq!(decode(&[0x00]), Err(DecodeError::Truncated));
        assert_eq!(decode(&[0x00, 0x01, 0x00]), Err(DecodeError::TrailingBytes));
    }
}
