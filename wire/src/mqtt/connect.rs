//! CONNECT (section 3.1), the only packet that says its version itself.

use super::properties::{Forwardable, PropertyReader, PropertyWriter};
use super::reader::Reader;
use super::writer::{Body, PropertyBlock, Sink, encode_packet};
use super::{DecodeError, FixedHeader, PacketType, PropertyId, ProtocolVersion, QoS, UserProperties};
use crate::topic;

const PROTOCOL_NAME: &[u8] = b"MQTT";

const FLAG_RESERVED: u8 = 0b0000_0001;
const FLAG_CLEAN_START: u8 = 0b0000_0010;
const FLAG_WILL: u8 = 0b0000_0100;
const FLAG_WILL_QOS: u8 = 0b0001_1000;
const FLAG_WILL_RETAIN: u8 = 0b0010_0000;
const FLAG_PASSWORD: u8 = 0b0100_0000;
const FLAG_USERNAME: u8 = 0b1000_0000;

/// A client asks to be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version that the whole connection will speak.
    pub version: ProtocolVersion,
    /// Forget the session of this client, if there is one. Called "clean session" in MQTT 3.1.1, where it also
    /// says that the session ends with the connection.
    pub clean_start: bool,
    /// The client sends something at least this often; 0 switches the rule off.
    pub keep_alive_s: u16,
    /// Empty: the server shall assign one (in MQTT 3.1.1 only with a clean session).
    pub client_id: &'a str,
    /// Published if the connection ends without a goodbye.
    pub will: Option<Will<'a>>,
    /// For authentication.
    pub username: Option<&'a str>,
    /// For authentication; any bytes.
    pub password: Option<&'a [u8]>,
    /// MQTT 5 only.
    pub properties: ConnectProperties<'a>,
}

/// The properties of CONNECT (section 3.1.2.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnectProperties<'a> {
    /// How long the session outlives its connection, in seconds; `u32::MAX` for ever; absent means 0.
    pub session_expiry_interval_s: Option<u32>,
    /// How many `QoS` 1 and 2 publications the client takes at once; never 0, absent means 65,535.
    pub receive_maximum: Option<u16>,
    /// The largest packet that the client takes, in bytes, header included; never 0, absent means no limit.
    pub maximum_packet_size: Option<u32>,
    /// The highest topic alias that the client takes; absent means 0.
    pub topic_alias_maximum: Option<u16>,
    /// The client wants response information in CONNACK; absent means no.
    pub request_response_information: Option<bool>,
    /// The client wants reason strings and user properties with failures; absent means yes.
    pub request_problem_information: Option<bool>,
    /// In the sender's order.
    pub user_properties: UserProperties<'a>,
    /// Name of the method of extended authentication.
    pub authentication_method: Option<&'a str>,
    /// The method's first data; never without a method.
    pub authentication_data: Option<&'a [u8]>,
}

/// The message that the server publishes when the connection ends without a goodbye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Will<'a> {
    /// `QoS` of the publication.
    pub qos: QoS,
    /// Whether the publication is retained.
    pub retain: bool,
    /// A valid topic name.
    pub topic: &'a str,
    /// At most 65,535 bytes.
    pub payload: &'a [u8],
    /// MQTT 5 only.
    pub properties: WillProperties<'a>,
}

/// The properties of a will (section 3.1.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WillProperties<'a> {
    /// How long the server waits before it publishes the will, in seconds; absent means 0.
    pub delay_interval_s: Option<u32>,
    /// True: the payload is UTF-8.
    pub payload_format_indicator: Option<bool>,
    /// Lifetime of the publication in seconds; absent means for ever.
    pub message_expiry_interval_s: Option<u32>,
    /// What the payload is, in the application's words.
    pub content_type: Option<&'a str>,
    /// A valid topic name for answers.
    pub response_topic: Option<&'a str>,
    /// Ties an answer to its request.
    pub correlation_data: Option<&'a [u8]>,
    /// In the sender's order `[MQTT-3.1.3-10]`.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Connect<'a> {
    /// Reads the body that follows `header`.
    pub fn decode(header: FixedHeader, body: &'a [u8]) -> Result<Self, DecodeError> {
        // The name and the level come first, so that a stranger hears of the version rather than of the rest.
        let version = Self::peek_version(body)?.ok_or(DecodeError::Truncated)?;
        let mut reader = Reader::open(header, body, version)?;
        reader.binary()?;
        reader.u8()?;
        let flags = Flags::decode(reader.u8()?, version)?;
        let keep_alive_s = reader.u16()?;
        let properties = match version {
            ProtocolVersion::V311 => ConnectProperties::default(),
            ProtocolVersion::V5 => ConnectProperties::decode(reader.property_block()?)?,
        };
        let client_id = reader.string()?;
        if version == ProtocolVersion::V311 && client_id.is_empty() && !flags.clean_start {
            return Err(DecodeError::EmptyClientId);
        }
        let will = match flags.will {
            Some((qos, retain)) => Some(Will::decode(qos, retain, &mut reader, version)?),
            None => None,
        };
        let username = if flags.username { Some(reader.string()?) } else { None };
        let password = if flags.password { Some(reader.binary()?) } else { None };
        reader.finish()?;
        Ok(Self {
            version,
            clean_start: flags.clean_start,
            keep_alive_s,
            client_id,
            will,
            username,
            password,
            properties,
        })
    }

    /// The version in which to answer a CONNECT that was refused: its own if the body says so, else the one that a
    /// peer with its protocol level is likelier to understand.
    pub fn answer_version(body: &[u8]) -> ProtocolVersion {
        match body {
            [0, 4, b'M', b'Q', b'T', b'T', level, ..] if *level >= ProtocolVersion::V5.level() => {
                ProtocolVersion::V5
            }
            _ => ProtocolVersion::V311,
        }
    }

    /// The version in the first bytes of a CONNECT's body, whatever follows. `Ok(None)`: fewer than seven bytes are
    /// there, and so far they are right.
    pub fn peek_version(body: &[u8]) -> Result<Option<ProtocolVersion>, DecodeError> {
        const PREFIX: [u8; 6] = [0, 4, b'M', b'Q', b'T', b'T'];
        let known = body.len().min(PREFIX.len());
        if body[..known] != PREFIX[..known] {
            return Err(DecodeError::UnsupportedProtocol);
        }
        let Some(level) = body.get(PREFIX.len()) else { return Ok(None) };
        ProtocolVersion::from_level(*level).map(Some).ok_or(DecodeError::UnsupportedProtocol)
    }

    /// Appends the packet to `out`, in the version that it names.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode_packet(PacketType::Connect.first_byte(), self, self.version, out);
    }
}

impl Body for Connect<'_> {
    fn write_body(&self, version: ProtocolVersion, sink: &mut impl Sink) {
        sink.binary(PROTOCOL_NAME);
        sink.u8(version.level());
        sink.u8(self.flags());
        sink.u16(self.keep_alive_s);
        if version == ProtocolVersion::V5 {
            sink.property_block(&self.properties);
        }
        sink.string(self.client_id);
        if let Some(will) = &self.will {
            if version == ProtocolVersion::V5 {
                sink.property_block(&will.properties);
            }
            sink.string(will.topic);
            sink.binary(will.payload);
        }
        if let Some(username) = self.username {
            sink.string(username);
        }
        if let Some(password) = self.password {
            sink.binary(password);
        }
    }
}

impl Connect<'_> {
    fn flags(&self) -> u8 {
        let mut flags = 0;
        if self.clean_start {
            flags |= FLAG_CLEAN_START;
        }
        if let Some(will) = &self.will {
            flags |= FLAG_WILL | (will.qos as u8) << 3;
            if will.retain {
                flags |= FLAG_WILL_RETAIN;
            }
        }
        if self.username.is_some() {
            flags |= FLAG_USERNAME;
        }
        if self.password.is_some() {
            flags |= FLAG_PASSWORD;
        }
        flags
    }
}

struct Flags {
    clean_start: bool,
    will: Option<(QoS, bool)>,
    username: bool,
    password: bool,
}

impl Flags {
    fn decode(flags: u8, version: ProtocolVersion) -> Result<Self, DecodeError> {
        if flags & FLAG_RESERVED != 0 {
            return Err(DecodeError::ReservedConnectFlag);
        }
        let qos = QoS::try_from((flags & FLAG_WILL_QOS) >> 3).map_err(|_| DecodeError::InvalidQoS)?;
        let retain = flags & FLAG_WILL_RETAIN != 0;
        let will = flags & FLAG_WILL != 0;
        if !will && (retain || qos != QoS::AtMostOnce) {
            return Err(DecodeError::WillFlagsWithoutWill);
        }
        let username = flags & FLAG_USERNAME != 0;
        let password = flags & FLAG_PASSWORD != 0;
        if version == ProtocolVersion::V311 && password && !username {
            return Err(DecodeError::PasswordWithoutUsername);
        }
        let clean_start = flags & FLAG_CLEAN_START != 0;
        Ok(Self { clean_start, will: will.then_some((qos, retain)), username, password })
    }
}

impl<'a> ConnectProperties<'a> {
    fn decode(block: &'a [u8]) -> Result<Self, DecodeError> {
        let mut properties = Self::default();
        let mut reader = PropertyReader::new("CONNECT", block);
        while let Some(id) = reader.next()? {
            match id {
                PropertyId::SessionExpiryInterval => reader.u32(&mut properties.session_expiry_interval_s)?,
                PropertyId::ReceiveMaximum => reader.u16_above_zero(&mut properties.receive_maximum)?,
                PropertyId::MaximumPacketSize => {
                    reader.u32_above_zero(&mut properties.maximum_packet_size)?;
                }
                PropertyId::TopicAliasMaximum => reader.u16(&mut properties.topic_alias_maximum)?,
                PropertyId::RequestResponseInformation => {
                    reader.flag(&mut properties.request_response_information)?;
                }
                PropertyId::RequestProblemInformation => {
                    reader.flag(&mut properties.request_problem_information)?;
                }
                PropertyId::UserProperty => reader.user_property(&mut properties.user_properties)?,
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

impl PropertyBlock for ConnectProperties<'_> {
    fn write_properties(&self, sink: &mut impl Sink) {
        let mut writer = PropertyWriter::new(sink);
        writer.u32(PropertyId::SessionExpiryInterval, self.session_expiry_interval_s);
        writer.u16(PropertyId::ReceiveMaximum, self.receive_maximum);
        writer.u32(PropertyId::MaximumPacketSize, self.maximum_packet_size);
        writer.u16(PropertyId::TopicAliasMaximum, self.topic_alias_maximum);
        writer.flag(PropertyId::RequestResponseInformation, self.request_response_information);
        writer.flag(PropertyId::RequestProblemInformation, self.request_problem_information);
        writer.user_properties(self.user_properties);
        writer.string(PropertyId::AuthenticationMethod, self.authentication_method);
        writer.binary(PropertyId::AuthenticationData, self.authentication_data);
    }
}

impl<'a> Will<'a> {
    fn decode(
        qos: QoS,
        retain: bool,
        reader: &mut Reader<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let properties = match version {
            ProtocolVersion::V311 => WillProperties::default(),
            ProtocolVersion::V5 => WillProperties::decode(reader.property_block()?)?,
        };
        let topic = reader.string()?;
        topic::validate_name(topic).map_err(DecodeError::InvalidTopicName)?;
        Ok(Self { qos, retain, topic, payload: reader.binary()?, properties })
    }
}

impl<'a> WillProperties<'a> {
    fn decode(block: &'a [u8]) -> Result<Self, DecodeError> {
        let mut properties = Self::default();
        let mut reader = PropertyReader::new("the will of CONNECT", block);
        while let Some(id) = reader.next()? {
            match id {
                PropertyId::WillDelayInterval => reader.u32(&mut properties.delay_interval_s)?,
                PropertyId::PayloadFormatIndicator => {
                    reader.flag(&mut properties.payload_format_indicator)?;
                }
                PropertyId::MessageExpiryInterval => reader.u32(&mut properties.message_expiry_interval_s)?,
                PropertyId::ContentType => reader.string(&mut properties.content_type)?,
                PropertyId::ResponseTopic => reader.topic_name(&mut properties.response_topic)?,
                PropertyId::CorrelationData => reader.binary(&mut properties.correlation_data)?,
                PropertyId::UserProperty => reader.user_property(&mut properties.user_properties)?,
                _ => return Err(reader.misplaced()),
            }
        }
        Ok(properties)
    }

    /// Appends, without a length, what goes unaltered to the will's subscribers. The block reads back through
    /// [`PublishProperties::decode_block`](super::PublishProperties::decode_block).
    pub fn encode_forwardable(&self, out: &mut Vec<u8>) {
        self.forwardable().write(out);
    }

    fn forwardable(&self) -> Forwardable<'a> {
        Forwardable {
            payload_format_indicator: self.payload_format_indicator,
            response_topic: self.response_topic,
            correlation_data: self.correlation_data,
            user_properties: self.user_properties,
            content_type: self.content_type,
        }
    }
}

impl PropertyBlock for WillProperties<'_> {
    fn write_properties(&self, sink: &mut impl Sink) {
        let mut writer = PropertyWriter::new(sink);
        writer.u32(PropertyId::WillDelayInterval, self.delay_interval_s);
        writer.u32(PropertyId::MessageExpiryInterval, self.message_expiry_interval_s);
        self.forwardable().write(sink);
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{read, refusal, same};
    use super::super::{Packet, PublishProperties};
    use super::*;

    const V311: ProtocolVersion = ProtocolVersion::V311;
    const V5: ProtocolVersion = ProtocolVersion::V5;

    fn connect(version: ProtocolVersion, client_id: &str) -> Connect<'_> {
        Connect {
            version,
            clean_start: true,
            keep_alive_s: 10,
            client_id,
            will: None,
            username: None,
            password: None,
            properties: ConnectProperties::default(),
        }
    }

    #[test]
    fn the_example_of_3_1_1_figure_3_6_is_read_and_written() {
        let will = Will {
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: "w",
            payload: b"bye",
            properties: WillProperties::default(),
        };
        let packet =
            Connect { will: Some(will), username: Some("u"), password: Some(b"p"), ..connect(V311, "c") };
        let bytes = [
            0x10, 0x1B, 0x00, 0x04, b'M', b'Q', b'T', b'T', 0x04, 0xCE, 0x00, 0x0A, // figure 3.6
            0x00, 0x01, b'c', 0x00, 0x01, b'w', 0x00, 0x03, b'b', b'y', b'e', // client identifier, will
            0x00, 0x01, b'u', 0x00, 0x01, b'p', // user name, password
        ];
        same(V311, &bytes, &Packet::Connect(packet));
    }

    #[test]
    fn the_example_of_5_0_figure_3_6_is_read_and_written() {
        let will = Will {
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: "w",
            payload: b"",
            properties: WillProperties { delay_interval_s: Some(5), ..WillProperties::default() },
        };
        let packet = Connect {
            will: Some(will),
            username: Some("u"),
            password: Some(b"p"),
            properties: ConnectProperties {
                session_expiry_interval_s: Some(10),
                ..ConnectProperties::default()
            },
            ..connect(V5, "")
        };
        let bytes = [
            0x10, 0x23, 0x00, 0x04, b'M', b'Q', b'T', b'T', 0x05, 0xCE, 0x00, 0x0A, // figure 3.6
            0x05, 0x11, 0x00, 0x00, 0x00, 0x0A, // properties: session expiry interval 10
            0x00, 0x00, 0x05, 0x18, 0x00, 0x00, 0x00, 0x05, // client identifier, will delay 5
            0x00, 0x01, b'w', 0x00, 0x00, 0x00, 0x01, b'u', 0x00, 0x01, b'p',
        ];
        same(V5, &bytes, &Packet::Connect(packet));
        assert_eq!(read(V311, &bytes), Ok(Packet::Connect(packet)), "a CONNECT brings its own version");
    }

    #[test]
    fn a_password_may_come_alone_in_version_5_only() {
        let bytes =
            |level| [0x10, 16, 0, 4, b'M', b'Q', b'T', b'T', level, 0x42, 0, 0, 0, 0, 1, b'x', 0, 0].to_vec();
        assert!(matches!(refusal(V311, &bytes(4)), DecodeError::PasswordWithoutUsername));
        let packet = read(V5, &[0x10, 16, 0, 4, b'M', b'Q', b'T', b'T', 5, 0x42, 0, 0, 0, 0, 0, 0, 1, b'x'])
            .map(|packet| matches!(packet, Packet::Connect(connect) if connect.password == Some(b"x")));
        assert_eq!(packet, Ok(true));
    }

    #[test]
    fn other_protocols_are_told_that_the_version_is_not_supported() {
        let refused = |body: &[u8]| {
            let bytes = [&[0x10, body.len() as u8], body].concat();
            refusal(V5, &bytes)
        };
        for body in [
            &b"\x00\x06MQIsdp\x03\x02\x00\x3C\x00\x01c"[..],
            b"\x00\x04MQTT\x03\x02\x00\x3C\x00\x01c",
            b"\x00\x04MQTT\x06\x02\x00\x3C\x00\x00\x01c",
            b"\x00\x04mqtt\x04\x02\x00\x3C\x00\x01c",
        ] {
            assert_eq!(refused(body), DecodeError::UnsupportedProtocol);
        }
        assert_eq!(
            DecodeError::UnsupportedProtocol.reason_code(),
            super::super::ReasonCode::UnsupportedProtocolVersion
        );
        assert_eq!(Connect::answer_version(b"\x00\x04MQTT\x06\x02"), V5);
        assert_eq!(Connect::answer_version(b"\x00\x06MQIsdp\x03"), V311);
    }

    #[test]
    fn the_version_is_seen_as_soon_as_it_is_there() {
        assert_eq!(Connect::peek_version(b"\x00\x04MQ"), Ok(None));
        assert_eq!(Connect::peek_version(b"\x00\x04MQTT\x05"), Ok(Some(V5)));
        assert_eq!(Connect::peek_version(b"\x00\x05"), Err(DecodeError::UnsupportedProtocol));
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused() {
        let with_flags =
            |flags| refusal(V311, &[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, flags, 0, 0, 0, 1, b'c']);
        assert_eq!(with_flags(0x03), DecodeError::ReservedConnectFlag);
        assert_eq!(with_flags(0x0A), DecodeError::WillFlagsWithoutWill);
        assert_eq!(with_flags(0x22), DecodeError::WillFlagsWithoutWill);
        assert_eq!(with_flags(0x1E), DecodeError::InvalidQoS);
        assert_eq!(with_flags(0x06), DecodeError::Truncated, "a will is announced and missing");
    }

    #[test]
    fn an_empty_client_identifier_needs_a_clean_session_in_3_1_1() {
        let error = refusal(V311, &[0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 4, 0x00, 0, 0, 0, 0]);
        assert_eq!(error, DecodeError::EmptyClientId);
        let anonymous = Connect { clean_start: false, keep_alive_s: 0, ..connect(V5, "") };
        let bytes = [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 5, 0x00, 0, 0, 0, 0, 0];
        same(V5, &bytes, &Packet::Connect(anonymous));
    }

    #[test]
    fn properties_are_held_to_their_rules() {
        let with_properties = |block: &[u8]| {
            let mut bytes = vec![0x10, 13 + block.len() as u8, 0, 4, b'M', b'Q', b'T', b'T', 5, 0x02, 0, 0];
            bytes.push(block.len() as u8);
            bytes.extend_from_slice(block);
            bytes.extend_from_slice(&[0, 0]);
            refusal(V5, &bytes)
        };
        let out_of_range = DecodeError::PropertyOutOfRange;
        assert_eq!(with_properties(&[0x21, 0, 0]), out_of_range(PropertyId::ReceiveMaximum));
        assert_eq!(with_properties(&[0x27, 0, 0, 0, 0]), out_of_range(PropertyId::MaximumPacketSize));
        assert_eq!(with_properties(&[0x17, 2]), out_of_range(PropertyId::RequestProblemInformation));
        assert_eq!(
            with_properties(&[0x22, 0, 1, 0x22, 0, 1]),
            DecodeError::DuplicateProperty(PropertyId::TopicAliasMaximum)
        );
        assert!(matches!(with_properties(&[0x23, 0, 1]), DecodeError::PropertyNotAllowed { .. }));
        assert_eq!(with_properties(&[0x04, 0]), DecodeError::UnknownProperty(4));
        assert_eq!(with_properties(&[0x16, 0, 0]), DecodeError::AuthenticationMethodMissing);
        assert_eq!(with_properties(&[0x11, 0, 0]), DecodeError::Truncated);
    }

    #[test]
    fn a_will_needs_a_topic_name_without_wildcards() {
        let bytes = [0x10, 18, 0, 4, b'M', b'Q', b'T', b'T', 4, 0x06, 0, 0, 0, 1, b'c', 0, 1, b'#', 0, 0];
        assert!(matches!(refusal(V311, &bytes), DecodeError::InvalidTopicName(_)));
    }

    #[test]
    fn what_a_will_forwards_reads_back_as_the_properties_of_a_publication() {
        let properties = WillProperties {
            delay_interval_s: Some(1),
            message_expiry_interval_s: Some(2),
            content_type: Some("text"),
            user_properties: (&[("a", "1"), ("a", "2")][..]).into(),
            ..WillProperties::default()
        };
        let mut block = Vec::new();
        properties.encode_forwardable(&mut block);
        let expected = PublishProperties {
            content_type: Some("text"),
            user_properties: properties.user_properties,
            ..PublishProperties::default()
        };
        assert_eq!(PublishProperties::decode_block(&block), Ok(expected));
    }
}
