//! For the byte-level tests of each packet.

use super::{DecodeError, FixedHeader, Packet, PacketId, ProtocolVersion};

/// These bytes and this packet are the same thing, read and written.
#[track_caller]
pub(super) fn same(version: ProtocolVersion, bytes: &[u8], packet: &Packet<'_>) {
    assert_eq!(read(version, bytes).as_ref(), Ok(packet));
    let mut written = Vec::new();
    packet.encode(version, &mut written);
    assert_eq!(written, bytes, "{packet:?}");
}

/// What these bytes, one whole packet, are read as.
pub(super) fn read(version: ProtocolVersion, bytes: &[u8]) -> Result<Packet<'_>, DecodeError> {
    let header = FixedHeader::decode(bytes)?.expect("a test's packet has a whole header");
    Packet::decode(header, &bytes[header.header_length.into()..], version)
}

/// Why these bytes are refused.
#[track_caller]
pub(super) fn refusal(version: ProtocolVersion, bytes: &[u8]) -> DecodeError {
    read(version, bytes).expect_err("these bytes are to be refused")
}

pub(super) fn id(id: u16) -> PacketId {
    PacketId::new(id).expect("a test's identifier is above zero")
}
