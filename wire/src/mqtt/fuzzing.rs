//! Bodies of the fuzz targets: plain functions, which tests run on seeds and on arbitrary bytes too.

use super::{DecodeError, FixedHeader, Packet, ProtocolVersion, PublishProperties, publish};

/// Reads bytes as one packet of either version. What was understood can be written, and is then understood as the
/// same; and each list that was validated can be walked.
pub fn fuzz_packet(bytes: &[u8]) {
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        // An error says itself: its text and its reason code exist for each.
        match read(bytes, version) {
            Ok(None) => {}
            Ok(Some(packet)) => written_is_the_same(&packet, version),
            Err(error) => assert!(error.reason_code().is_error() && !error.to_string().is_empty()),
        }
    }
}

/// Reads bytes as a block of forwardable properties; what is forwarded of it is forwarded as it is ever after.
pub fn fuzz_properties(bytes: &[u8]) {
    let Ok(properties) = PublishProperties::decode_block(bytes) else { return };
    let mut block = Vec::new();
    properties.encode_forwardable(&mut block);
    let forwarded = PublishProperties::decode_block(&block).expect("what was forwarded can be read");
    let mut again = Vec::new();
    forwarded.encode_forwardable(&mut again);
    assert_eq!(again, block);
    assert_eq!(forwarded.user_properties, properties.user_properties);
    assert_eq!(forwarded.forwardable_len(), block.len());
}

fn read(bytes: &[u8], version: ProtocolVersion) -> Result<Option<Packet<'_>>, DecodeError> {
    let Some(header) = FixedHeader::decode(bytes)? else { return Ok(None) };
    let Some(packet) = bytes.get(..header.packet_length()) else { return Ok(None) };
    Packet::decode(header, &packet[header.header_length.into()..], version).map(Some)
}

fn written_is_the_same(packet: &Packet<'_>, version: ProtocolVersion) {
    let version = match packet {
        Packet::Connect(connect) => connect.version,
        _ => version,
    };
    let mut written = Vec::new();
    packet.encode(version, &mut written);
    assert_eq!(read(&written, version), Ok(Some(*packet)));
    if let Packet::Publish(publication) = packet
        && let Some(id) = publication.packet_id
    {
        assert!(publish::set_packet_id(&mut written, id.next()));
        let renumbered = publish::Publish { packet_id: Some(id.next()), ..*publication };
        assert_eq!(read(&written, version), Ok(Some(Packet::Publish(renumbered))));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn arbitrary_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            fuzz_packet(&bytes);
            fuzz_properties(&bytes);
        }

        #[test]
        fn arbitrary_bodies_are_read_without_harm(
            first in any::<u8>(),
            body in proptest::collection::vec(prop_oneof![0..8_u8, any::<u8>()], 0..120),
        ) {
            fuzz_packet(&[&[first, body.len() as u8][..], &body].concat());
        }
    }
}
