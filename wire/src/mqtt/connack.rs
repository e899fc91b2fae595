//! CONNACK (section 3.2): the server lets a client in, or says why not.

use super::acknowledgement::decode_reason_code;
use super::properties::{PropertyReader, PropertyWriter};
use super::reader::Reader;
use super::writer::{Body, PropertyBlock, Sink, encode_packet};
use super::{
    DecodeError, FixedHeader, PacketType, PropertyId, ProtocolVersion, QoS, ReasonCode, UserProperties,
};

/// The answer to CONNECT.
///
/// MQTT 3.1.1 has return codes of its own (its table 3.1), which stand for reason codes as follows. Reason codes
/// that are not in the table are written as 3, "server unavailable".
///
/// | Return code | Reason code read | Reason codes written so |
/// | --- | --- | --- |
/// | 0 | `Success` | `Success` |
/// | 1 | `UnsupportedProtocolVersion` | `UnsupportedProtocolVersion` |
/// | 2 | `ClientIdentifierNotValid` | `ClientIdentifierNotValid` |
/// | 3 | `ServerUnavailable` | all others |
/// | 4 | `BadUserNameOrPassword` | `BadUserNameOrPassword`, `BadAuthenticationMethod` |
/// | 5 | `NotAuthorized` | `NotAuthorized`, `Banned` |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// The server has kept the client's session. Written as false in a refusal `[MQTT-3.2.2-6]`.
    pub session_present: bool,
    /// `Success`, or why the connection is about to close.
    pub reason_code: ReasonCode,
    /// MQTT 5 only.
    pub properties: ConnAckProperties<'a>,
}

/// The properties of CONNACK (section 3.2.2.3). For each, absent means what the field says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnAckProperties<'a> {
    /// The session expiry that the server uses, in seconds; absent: the one in CONNECT.
    pub session_expiry_interval_s: Option<u32>,
    /// How many `QoS` 1 and 2 publications the server takes at once; never 0; absent: 65,535.
    pub receive_maximum: Option<u16>,
    /// The highest `QoS` that the server takes, 0 or 1; absent: 2. `ExactlyOnce` is not written.
    pub maximum_qos: Option<QoS>,
    /// Whether the server retains messages; absent: yes.
    pub retain_available: Option<bool>,
    /// The largest packet that the server takes, in bytes, header included; never 0; absent: no limit.
    pub maximum_packet_size: Option<u32>,
    /// The client identifier that the server gave to a client without one.
    pub assigned_client_identifier: Option<&'a str>,
    /// The highest topic alias that the server takes; absent: 0.
    pub topic_alias_maximum: Option<u16>,
    /// For a human's eyes.
    pub reason_string: Option<&'a str>,
    /// In the sender's order.
    pub user_properties: UserProperties<'a>,
    /// Whether filters may have wildcards; absent: yes.
    pub wildcard_subscription_available: Option<bool>,
    /// Whether subscriptions may have identifiers; absent: yes.
    pub subscription_identifiers_available: Option<bool>,
    /// Whether there are shared subscriptions; absent: yes.
    pub shared_subscription_available: Option<bool>,
    /// The keep alive that the client must use instead of its own, in seconds.
    pub server_keep_alive_s: Option<u16>,
    /// A basis for response topics.
    pub response_information: Option<&'a str>,
    /// Another server to use.
    pub server_reference: Option<&'a str>,
    /// Name of the method of extended authentication.
    pub authentication_method: Option<&'a str>,
    /// The method's data.
    pub authentication_data: Option<&'a [u8]>,
}

impl<'a> ConnAck<'a> {
    /// Reads the body that follows `header`.
    pub fn decode(
        header: FixedHeader,
        body: &'a [u8],
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::open(header, body, version)?;
        let session_present = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::ReservedAcknowledgeFlag),
        };
        let code = reader.u8()?;
        let (reason_code, properties) = match version {
            ProtocolVersion::V311 => (from_return_code(code)?, ConnAckProperties::default()),
            ProtocolVersion::V5 => (
                decode_reason_code(PacketType::ConnAck, code)?,
                ConnAckProperties::decode(reader.property_block()?)?,
            ),
        };
        reader.finish()?;
        if session_present && reason_code != ReasonCode::Success {
            return Err(DecodeError::SessionPresentInRefusal);
        }
        Ok(Self { session_present, reason_code, properties })
    }

    /// Appends the packet to `out`.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        encode_packet(PacketType::ConnAck.first_byte(), self, version, out);
    }
}

impl Body for ConnAck<'_> {
    fn write_body(&self, version: ProtocolVersion, sink: &mut impl Sink) {
        sink.u8((self.session_present && self.reason_code == ReasonCode::Success).into());
        match version {
            ProtocolVersion::V311 => sink.u8(to_return_code(self.reason_code)),
            ProtocolVersion::V5 => {
                sink.u8(self.reason_code.into());
                sink.property_block(&self.properties);
            }
        }
    }
}

fn from_return_code(code: u8) -> Result<ReasonCode, DecodeError> {
    Ok(match code {
        0 => ReasonCode::Success,
        1 => ReasonCode::UnsupportedProtocolVersion,
        2 => ReasonCode::ClientIdentifierNotValid,
        3 => ReasonCode::ServerUnavailable,
        4 => ReasonCode::BadUserNameOrPassword,
        5 => ReasonCode::NotAuthorized,
        code => return Err(DecodeError::InvalidReasonCode { packet: PacketType::ConnAck, code }),
    })
}

const fn to_return_code(reason: ReasonCode) -> u8 {
    match reason {
        ReasonCode::Success => 0,
        ReasonCode::UnsupportedProtocolVersion => 1,
        ReasonCode::ClientIdentifierNotValid => 2,
        ReasonCode::BadUserNameOrPassword | ReasonCode::BadAuthenticationMethod => 4,
        ReasonCode::NotAuthorized | ReasonCode::Banned => 5,
        _ => 3,
    }
}

impl<'a> ConnAckProperties<'a> {
    fn decode(block: &'a [u8]) -> Result<Self, DecodeError> {
        let mut properties = Self::default();
        let mut reader = PropertyReader::new("CONNACK", block);
        while let Some(id) = reader.next()? {
            match id {
                PropertyId::SessionExpiryInterval => reader.u32(&mut properties.session_expiry_interval_s)?,
                PropertyId::ReceiveMaximum => reader.u16_above_zero(&mut properties.receive_maximum)?,
                PropertyId::MaximumQoS => reader.maximum_qos(&mut properties.maximum_qos)?,
                PropertyId::RetainAvailable => reader.flag(&mut properties.retain_available)?,
                PropertyId::MaximumPacketSize => {
                    reader.u32_above_zero(&mut properties.maximum_packet_size)?;
                }
                PropertyId::AssignedClientIdentifier => {
                    reader.string(&mut properties.assigned_client_identifier)?;
                }
                PropertyId::TopicAliasMaximum => reader.u16(&mut properties.topic_alias_maximum)?,
                PropertyId::ReasonString => reader.string(&mut properties.reason_string)?,
                PropertyId::UserProperty => reader.user_property(&mut properties.user_properties)?,
                PropertyId::WildcardSubscriptionAvailable => {
                    reader.flag(&mut properties.wildcard_subscription_available)?;
                }
                PropertyId::SubscriptionIdentifierAvailable => {
                    reader.flag(&mut properties.subscription_identifiers_available)?;
                }
                PropertyId::SharedSubscriptionAvailable => {
                    reader.flag(&mut properties.shared_subscription_available)?;
                }
                PropertyId::ServerKeepAlive => reader.u16(&mut properties.server_keep_alive_s)?,
                PropertyId::ResponseInformation => reader.string(&mut properties.response_information)?,
                PropertyId::ServerReference => reader.string(&mut properties.server_reference)?,
                PropertyId::AuthenticationMethod => reader.string(&mut properties.authentication_method)?,
                PropertyId::AuthenticationData => reader.binary(&mut properties.authentication_data)?,
                _ => return Err(reader.misplaced()),
            }
        }
        if properties.authentication_data.is_some() && properties.authentication_method.is_none() {
            return Err(DecodeError::AuthenticationMethodMissing);
        }
        Ok(properties)
    }
}

impl PropertyBlock for ConnAckProperties<'_> {
    fn write_properties(&self, sink: &mut impl Sink) {
        let mut writer = PropertyWriter::new(sink);
        writer.u32(PropertyId::SessionExpiryInterval, self.session_expiry_interval_s);
        writer.u16(PropertyId::ReceiveMaximum, self.receive_maximum);
        writer.qos(PropertyId::MaximumQoS, self.maximum_qos.filter(|qos| *qos != QoS::ExactlyOnce));
        writer.flag(PropertyId::RetainAvailable, self.retain_available);
        writer.u32(PropertyId::MaximumPacketSize, self.maximum_packet_size);
        writer.string(PropertyId::AssignedClientIdentifier, self.assigned_client_identifier);
        writer.u16(PropertyId::TopicAliasMaximum, self.topic_alias_maximum);
        writer.string(PropertyId::ReasonString, self.reason_string);
        writer.user_properties(self.user_properties);
        writer.flag(PropertyId::WildcardSubscriptionAvailable, self.wildcard_subscription_available);
        writer.flag(PropertyId::SubscriptionIdentifierAvailable, self.subscription_identifiers_available);
        writer.flag(PropertyId::SharedSubscriptionAvailable, self.shared_subscription_available);
        writer.u16(PropertyId::ServerKeepAlive, self.server_keep_alive_s);
        writer.string(PropertyId::ResponseInformation, self.response_information);
        writer.string(PropertyId::ServerReference, self.server_reference);
        writer.string(PropertyId::AuthenticationMethod, self.authentication_method);
        writer.binary(PropertyId::AuthenticationData, self.authentication_data);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Packet;
    use super::super::golden::{read, refusal, same};
    use super::*;

    fn connack(reason_code: ReasonCode) -> ConnAck<'static> {
        ConnAck { session_present: false, reason_code, properties: ConnAckProperties::default() }
    }

    #[test]
    fn acceptance_is_four_bytes_in_3_1_1_and_five_in_5_0() {
        let packet = Packet::ConnAck(ConnAck { session_present: true, ..connack(ReasonCode::Success) });
        same(ProtocolVersion::V311, &[0x20, 0x02, 0x01, 0x00], &packet);
        same(ProtocolVersion::V5, &[0x20, 0x03, 0x01, 0x00, 0x00], &packet);
    }

    #[test]
    fn return_codes_of_3_1_1_stand_for_reason_codes() {
        // 3.1.1 table 3.1.
        for (code, reason) in [
            (1, ReasonCode::UnsupportedProtocolVersion),
            (2, ReasonCode::ClientIdentifierNotValid),
            (3, ReasonCode::ServerUnavailable),
            (4, ReasonCode::BadUserNameOrPassword),
            (5, ReasonCode::NotAuthorized),
        ] {
            same(ProtocolVersion::V311, &[0x20, 0x02, 0x00, code], &Packet::ConnAck(connack(reason)));
        }
        assert_eq!(to_return_code(ReasonCode::Banned), 5);
        assert_eq!(to_return_code(ReasonCode::ServerBusy), 3);
        let error = DecodeError::InvalidReasonCode { packet: PacketType::ConnAck, code: 6 };
        assert_eq!(refusal(ProtocolVersion::V311, &[0x20, 0x02, 0x00, 0x06]), error);
    }

    #[test]
    fn every_property_has_its_place() {
        let properties = ConnAckProperties {
            session_expiry_interval_s: Some(1),
            receive_maximum: Some(2),
            maximum_qos: Some(QoS::AtLeastOnce),
            retain_available: Some(true),
            maximum_packet_size: Some(3),
            assigned_client_identifier: Some("c"),
            topic_alias_maximum: Some(4),
            reason_string: Some("r"),
            user_properties: (&[("k", "v")][..]).into(),
            wildcard_subscription_available: Some(false),
            subscription_identifiers_available: Some(true),
            shared_subscription_available: Some(false),
            server_keep_alive_s: Some(5),
            response_information: Some("i"),
            server_reference: Some("s"),
            authentication_method: Some("m"),
            authentication_data: Some(b"d"),
        };
        let bytes = [
            0x20, 0x3F, 0x00, 0x00, 0x3C, // acknowledge flags, reason code, property length
            0x11, 0, 0, 0, 1, 0x21, 0, 2, 0x24, 1, 0x25, 1, 0x27, 0, 0, 0, 3, //
            0x12, 0, 1, b'c', 0x22, 0, 4, 0x1F, 0, 1, b'r', 0x26, 0, 1, b'k', 0, 1, b'v', //
            0x28, 0, 0x29, 1, 0x2A, 0, 0x13, 0, 5, 0x1A, 0, 1, b'i', 0x1C, 0, 1, b's', //
            0x15, 0, 1, b'm', 0x16, 0, 1, b'd', //
        ];
        let packet = ConnAck { properties, ..connack(ReasonCode::Success) };
        same(ProtocolVersion::V5, &bytes, &Packet::ConnAck(packet));
    }

    #[test]
    fn a_refusal_has_no_session() {
        let bytes = [0x20, 0x03, 0x01, 0x87, 0x00];
        assert_eq!(refusal(ProtocolVersion::V5, &bytes), DecodeError::SessionPresentInRefusal);
        let mut out = Vec::new();
        ConnAck { session_present: true, ..connack(ReasonCode::Banned) }
            .encode(ProtocolVersion::V5, &mut out);
        let written = read(ProtocolVersion::V5, &out);
        assert_eq!(written, Ok(Packet::ConnAck(connack(ReasonCode::Banned))));
    }

    #[test]
    fn what_connack_may_not_carry_is_refused() {
        let refusal = |bytes| refusal(ProtocolVersion::V5, bytes);
        assert_eq!(refusal(&[0x20, 0x03, 0x02, 0x00, 0x00]), DecodeError::ReservedAcknowledgeFlag);
        assert_eq!(refusal(&[0x20, 0x02, 0x00, 0x00]), DecodeError::Truncated);
        let two = DecodeError::PropertyOutOfRange(PropertyId::MaximumQoS);
        assert_eq!(refusal(&[0x20, 0x05, 0x00, 0x00, 0x02, 0x24, 0x02]), two);
    }
}
