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

    /// The version in the first bytes of a CONNECT's body, even if the rest is missing or broken: a refusal must
    /// be written in it. `Ok(None)`: fewer than seven bytes are there, and so far they are right.
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
