//! DISCONNECT (section 3.14): the last packet of a connection. In MQTT 3.1.1 only the client sends it, empty.

use super::acknowledgement::decode_reason_code;
use super::properties::{PropertyReader, PropertyWriter};
use super::reader::Reader;
use super::writer::{Body, PropertyBlock, Sink, encode_packet};
use super::{DecodeError, FixedHeader, PacketType, PropertyId, ProtocolVersion, ReasonCode, UserProperties};

/// A goodbye.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Disconnect<'a> {
    /// Why. MQTT 3.1.1 has none: `NormalDisconnection` is read, and nothing is written.
    pub reason_code: ReasonCode,
    /// MQTT 5 only.
    pub properties: DisconnectProperties<'a>,
}

/// The properties of DISCONNECT (section 3.14.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DisconnectProperties<'a> {
    /// Only from the client `[MQTT-3.14.2-2]`: how long the session shall live on, in seconds. The direction is
    /// not checked here.
    pub session_expiry_interval_s: Option<u32>,
    /// For a human's eyes.
    pub reason_string: Option<&'a str>,
    /// In the sender's order.
    pub user_properties: UserProperties<'a>,
    /// Only from the server: another server to use.
    pub server_reference: Option<&'a str>,
}

impl<'a> Disconnect<'a> {
    /// This reason, without properties.
    pub fn with_reason(reason_code: ReasonCode) -> Self {
        Self { reason_code, properties: DisconnectProperties::default() }
    }

    /// Reads the body that follows `header`.
    pub fn decode(
        header: FixedHeader,
        body: &'a [u8],
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::open(header, body, version)?;
        let mut disconnect = Self::default();
        if !reader.is_empty() {
            disconnect.reason_code = decode_reason_code(PacketType::Disconnect, reader.u8()?)?;
        }
        if !reader.is_empty() {
            disconnect.properties = DisconnectProperties::decode(reader.property_block()?)?;
        }
        reader.finish()?;
        Ok(disconnect)
    }

    /// Appends the packet to `out`, in the shortest form that says all.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        encode_packet(PacketType::Disconnect.first_byte(), self, version, out);
    }
}

impl Body for Disconnect<'_> {
    fn write_body(&self, version: ProtocolVersion, sink: &mut impl Sink) {
        let has_properties = self.properties.has_properties();
        if version == ProtocolVersion::V311
            || (self.reason_code == ReasonCode::NormalDisconnection && !has_properties)
        {
            return;
        }
        sink.u8(self.reason_code.into());
        if has_properties {
            sink.property_block(&self.properties);
        }
    }
}

impl<'a> DisconnectProperties<'a> {
    fn decode(block: &'a [u8]) -> Result<Self, DecodeError> {
        let mut properties = Self::default();
        let mut reader = PropertyReader::new("DISCONNECT", block);
        while let Some(id) = reader.next()? {
            match id {
                PropertyId::SessionExpiryInterval => reader.u32(&mut properties.session_expiry_interval_s)?,
                PropertyId::ReasonString => reader.string(&mut properties.reason_string)?,
                PropertyId::UserProperty => reader.user_property(&mut properties.user_properties)?,
                PropertyId::ServerReference => reader.string(&mut properties.server_reference)?,
                _ => return Err(reader.misplaced()),
            }
        }
        Ok(properties)
    }
}

impl PropertyBlock for DisconnectProperties<'_> {
    fn write_properties(&self, sink: &mut impl Sink) {
        let mut writer = PropertyWriter::new(sink);
        writer.u32(PropertyId::SessionExpiryInterval, self.session_expiry_interval_s);
        writer.string(PropertyId::ReasonString, self.reason_string);
        writer.user_properties(self.user_properties);
        writer.string(PropertyId::ServerReference, self.server_reference);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Packet;
    use super::super::golden::{read, refusal, same};
    use super::*;

    const V5: ProtocolVersion = ProtocolVersion::V5;

    #[test]
    fn a_normal_goodbye_is_two_bytes_in_both_versions() {
        let packet = Packet::Disconnect(Disconnect::default());
        same(ProtocolVersion::V311, &[0xE0, 0x00], &packet);
        same(V5, &[0xE0, 0x00], &packet);
        assert_eq!(read(V5, &[0xE0, 0x01, 0x00]), Ok(packet));
        assert_eq!(read(V5, &[0xE0, 0x02, 0x00, 0x00]), Ok(packet));
    }

    #[test]
    fn reason_and_properties_are_read_and_written() {
        let packet = Disconnect::with_reason(ReasonCode::SessionTakenOver);
        same(V5, &[0xE0, 0x01, 0x8E], &Packet::Disconnect(packet));
        let properties = DisconnectProperties {
            session_expiry_interval_s: Some(7),
            reason_string: Some("r"),
            user_properties: (&[("k", "v")][..]).into(),
            server_reference: Some("s"),
        };
        let bytes = [
            0xE0, 0x16, 0x04, 0x14, 0x11, 0, 0, 0, 7, 0x1F, 0, 1, b'r', 0x26, 0, 1, b'k', 0, 1, b'v', 0x1C,
            0, 1, b's',
        ];
        let packet = Disconnect { reason_code: ReasonCode::DisconnectWithWillMessage, properties };
        same(V5, &bytes, &Packet::Disconnect(packet));
    }

    #[test]
    fn what_disconnect_may_not_carry_is_refused() {
        let code = DecodeError::InvalidReasonCode { packet: PacketType::Disconnect, code: 0x84 };
        assert_eq!(refusal(V5, &[0xE0, 0x01, 0x84]), code);
        assert_eq!(refusal(V5, &[0xE0, 0x03, 0x00, 0x00, 0x00]), DecodeError::TrailingBytes);
        let length = DecodeError::InvalidLength { packet: PacketType::Disconnect, length: 1 };
        assert_eq!(refusal(ProtocolVersion::V311, &[0xE0, 0x01, 0x00]), length);
    }
}
