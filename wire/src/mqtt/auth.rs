//! AUTH (section 3.15): the steps of an extended authentication. MQTT 5 only.

use super::acknowledgement::decode_reason_code;
use super::properties::{PropertyReader, PropertyWriter};
use super::reader::Reader;
use super::writer::{Body, PropertyBlock, Sink, encode_packet};
use super::{DecodeError, FixedHeader, PacketType, PropertyId, ProtocolVersion, ReasonCode, UserProperties};

/// One step of an extended authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Auth<'a> {
    /// `Success`, `ContinueAuthentication` or `ReAuthenticate` `[MQTT-3.15.2-1]`.
    pub reason_code: ReasonCode,
    /// What the method needs.
    pub properties: AuthProperties<'a>,
}

/// The properties of AUTH (section 3.15.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuthProperties<'a> {
    /// Name of the method; there in every AUTH but the empty one, which means `Success`.
    pub authentication_method: Option<&'a str>,
    /// The method's data.
    pub authentication_data: Option<&'a [u8]>,
    /// For a human's eyes.
    pub reason_string: Option<&'a str>,
    /// In the sender's order.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Auth<'a> {
    /// Reads the body that follows `header`. In MQTT 3.1.1 the packet type is reserved.
    pub fn decode(
        header: FixedHeader,
        body: &'a [u8],
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::open(header, body, version)?;
        if reader.is_empty() {
            return Ok(Self::default());
        }
        let reason_code = decode_reason_code(PacketType::Auth, reader.u8()?)?;
        let properties = AuthProperties::decode(reader.property_block()?)?;
        reader.finish()?;
        Ok(Self { reason_code, properties })
    }

    /// Appends the packet to `out`. MQTT 3.1.1 has no such packet; nothing is written.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        debug_assert!(version == ProtocolVersion::V5, "AUTH belongs to MQTT 5");
        if version == ProtocolVersion::V5 {
            encode_packet(PacketType::Auth.first_byte(), self, version, out);
        }
    }
}

impl Body for Auth<'_> {
    fn write_body(&self, _: ProtocolVersion, sink: &mut impl Sink) {
        if *self != Self::default() {
            sink.u8(self.reason_code.into());
            sink.property_block(&self.properties);
        }
    }
}

impl<'a> AuthProperties<'a> {
    fn decode(block: &'a [u8]) -> Result<Self, DecodeError> {
        let mut properties = Self::default();
        let mut reader = PropertyReader::new("AUTH", block);
        while let Some(id) = reader.next()? {
            match id {
                PropertyId::AuthenticationMethod => reader.string(&mut properties.authentication_method)?,
                PropertyId::AuthenticationData => reader.binary(&mut properties.authentication_data)?,
                PropertyId::ReasonString => reader.string(&mut properties.reason_string)?,
                PropertyId::UserProperty => reader.user_property(&mut properties.user_properties)?,
                _ => return Err(reader.misplaced()),
            }
        }
        if properties.authentication_method.is_none() {
            return Err(DecodeError::AuthenticationMethodMissing);
        }
        Ok(properties)
    }
}

impl PropertyBlock for AuthProperties<'_> {
    fn write_properties(&self, sink: &mut impl Sink) {
        let mut writer = PropertyWriter::new(sink);
        writer.string(PropertyId::AuthenticationMethod, self.authentication_method);
        writer.binary(PropertyId::AuthenticationData, self.authentication_data);
        writer.string(PropertyId::ReasonString, self.reason_string);
        writer.user_properties(self.user_properties);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Packet;
    use super::super::golden::{refusal, same};
    use super::*;

    const V5: ProtocolVersion = ProtocolVersion::V5;

    #[test]
    fn success_without_properties_is_two_bytes() {
        // Section 3.15.2.1.
        same(V5, &[0xF0, 0x00], &Packet::Auth(Auth::default()));
    }

    #[test]
    fn a_step_carries_method_and_data() {
        let properties = AuthProperties {
            authentication_method: Some("m"),
            authentication_data: Some(b"d"),
            ..AuthProperties::default()
        };
        let bytes = [0xF0, 0x0A, 0x18, 0x08, 0x15, 0x00, 0x01, b'm', 0x16, 0x00, 0x01, b'd'];
        let packet = Auth { reason_code: ReasonCode::ContinueAuthentication, properties };
        same(V5, &bytes, &Packet::Auth(packet));
    }

    #[test]
    fn what_auth_may_not_carry_is_refused() {
        assert_eq!(refusal(ProtocolVersion::V311, &[0xF0, 0x00]), DecodeError::ReservedPacketType(15));
        assert_eq!(refusal(V5, &[0xF0, 0x02, 0x18, 0x00]), DecodeError::AuthenticationMethodMissing);
        let code = DecodeError::InvalidReasonCode { packet: PacketType::Auth, code: 0x80 };
        assert_eq!(refusal(V5, &[0xF0, 0x01, 0x80]), code);
        assert_eq!(refusal(V5, &[0xF0, 0x01, 0x18]), DecodeError::Truncated);
    }
}
