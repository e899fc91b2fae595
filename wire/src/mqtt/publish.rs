//! PUBLISH (section 3.3). Besides the packet itself, the encoder of a fan-out: a message's forwardable properties
//! stay the encoded block they came as, and [`encode_parts`] puts them between a new header and the payload.

use super::properties::{Forwardable, PropertyReader, PropertyWriter};
use super::reader::Reader;
use super::writer::{Body, Measure, PropertyBlock, Sink, encode_packet, variable_integer_length};
use super::{
    DecodeError, FixedHeader, MAX_REMAINING_LENGTH, PacketId, PacketType, PropertyId, ProtocolVersion, QoS,
    SubscriptionIdentifiers, UserProperties,
};
use crate::topic;

const FLAG_DUP: u8 = 0b1000;

/// A message on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// It may have been sent before. Never with `QoS` 0 `[MQTT-3.3.1-2]`.
    pub dup: bool,
    /// How surely it is delivered.
    pub qos: QoS,
    /// To the server: keep it. To a client: it was kept.
    pub retain: bool,
    /// A valid topic name; in MQTT 5 it is empty if a topic alias stands for it.
    pub topic: &'a str,
    /// There if, and only if, the `QoS` is above 0 `[MQTT-2.2.1-2]`. Without it a packet is written with `QoS` 0.
    pub packet_id: Option<PacketId>,
    /// MQTT 5 only.
    pub properties: PublishProperties<'a>,
    /// The application's bytes, to the end of the packet.
    pub payload: &'a [u8],
}

/// The properties of PUBLISH (section 3.3.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PublishProperties<'a> {
    /// True: the payload is UTF-8. Whether that holds is not checked here.
    pub payload_format_indicator: Option<bool>,
    /// Lifetime in seconds; absent means for ever.
    pub message_expiry_interval_s: Option<u32>,
    /// Stands for the topic; never 0.
    pub topic_alias: Option<u16>,
    /// A valid topic name for answers.
    pub response_topic: Option<&'a str>,
    /// Ties an answer to its request.
    pub correlation_data: Option<&'a [u8]>,
    /// In the sender's order.
    pub user_properties: UserProperties<'a>,
    /// Only from server to client `[MQTT-3.3.4-6]`; the direction is not checked here.
    pub subscription_identifiers: SubscriptionIdentifiers<'a>,
    /// What the payload is, in the application's words.
    pub content_type: Option<&'a str>,
}

impl<'a> Publish<'a> {
    /// Reads the body that follows `header`.
    pub fn decode(
        header: FixedHeader,
        body: &'a [u8],
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::open(header, body, version)?;
        let topic = reader.string()?;
        let qos = header.qos();
        let packet_id = if qos == QoS::AtMostOnce { None } else { Some(reader.packet_id()?) };
        let properties = match version {
            ProtocolVersion::V311 => PublishProperties::default(),
            ProtocolVersion::V5 => PublishProperties::decode_block(reader.property_block()?)?,
        };
        if !topic.is_empty() || version == ProtocolVersion::V311 {
            topic::validate_name(topic).map_err(DecodeError::InvalidTopicName)?;
        } else if properties.topic_alias.is_none() {
            return Err(DecodeError::EmptyTopicWithoutAlias);
        }
        Ok(Self {
            dup: header.dup(),
            qos,
            retain: header.retain(),
            topic,
            packet_id,
            properties,
            payload: reader.rest(),
        })
    }

    /// Appends the packet to `out`.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        encode_packet(first_byte(self.dup, self.qos, self.retain, self.packet_id), self, version, out);
    }
}

impl Body for Publish<'_> {
    fn write_body(&self, version: ProtocolVersion, sink: &mut impl Sink) {
        sink.string(self.topic);
        if let Some(id) = written_id(self.qos, self.packet_id) {
            sink.packet_id(id);
        }
        if version == ProtocolVersion::V5 {
            sink.property_block(&self.properties);
        }
        sink.put(self.payload);
    }
}

/// Appends a PUBLISH put together from its parts, without building a [`Publish`] for each receiver.
///
/// `forwardable` is a block from [`PublishProperties::encode_forwardable`], copied as it is; with `expiry_s`,
/// `topic_alias` and `subscription_ids` it is left out for MQTT 3.1.1. The topic may be empty if an alias stands for
/// it. Nothing is written if the packet would exceed [`MAX_REMAINING_LENGTH`]; callers compare [`encoded_len`] with
/// the receiver's maximum packet size before.
#[expect(
    clippy::too_many_arguments,
    reason = "the parts of a PUBLISH, named once where they are put together"
)]
pub fn encode_parts(
    out: &mut Vec<u8>,
    version: ProtocolVersion,
    dup: bool,
    qos: QoS,
    retain: bool,
    topic: &str,
    packet_id: Option<PacketId>,
    forwardable: &[u8],
    expiry_s: Option<u32>,
    topic_alias: Option<u16>,
    subscription_ids: &[u32],
    payload: &[u8],
) {
    let parts =
        Parts { qos, topic, packet_id, forwardable, expiry_s, topic_alias, subscription_ids, payload };
    encode_packet(first_byte(dup, qos, retain, packet_id), &parts, version, out);
}

/// Length in bytes of what [`encode_parts`] appends for the same parts. The flags weigh nothing; they are taken so
/// that both are called alike.
#[expect(clippy::too_many_arguments, reason = "the same parts as encode_parts takes")]
pub fn encoded_len(
    version: ProtocolVersion,
    _dup: bool,
    qos: QoS,
    _retain: bool,
    topic: &str,
    packet_id: Option<PacketId>,
    forwardable: &[u8],
    expiry_s: Option<u32>,
    topic_alias: Option<u16>,
    subscription_ids: &[u32],
    payload: &[u8],
) -> usize {
    let parts =
        Parts { qos, topic, packet_id, forwardable, expiry_s, topic_alias, subscription_ids, payload };
    let body = parts.body_length(version);
    1 + variable_integer_length(body) + body as usize
}

/// Gives an encoded PUBLISH of `QoS` 1 or 2 another packet identifier: a fan-out encodes once and writes the
/// identifier of each receiver. False, and nothing changed, if `encoded` is no such packet.
#[must_use]
pub fn set_packet_id(encoded: &mut [u8], id: PacketId) -> bool {
    let Ok(Some(header)) = FixedHeader::decode(encoded) else { return false };
    if header.packet_type != PacketType::Publish || header.qos() == QoS::AtMostOnce {
        return false;
    }
    let Some(body) = encoded.get_mut(header.header_length.into()..) else { return false };
    let Some(topic_length) = body.first_chunk().map(|length| u16::from_be_bytes(*length)) else {
        return false;
    };
    let start = 2 + usize::from(topic_length);
    let Some(field) = body.get_mut(start..start + 2) else { return false };
    field.copy_from_slice(&id.get().to_be_bytes());
    true
}

/// Sets DUP on an encoded PUBLISH of `QoS` 1 or 2 `[MQTT-3.3.1-1]`. False, and nothing changed, if `encoded` is no
/// such packet.
#[must_use]
pub fn set_dup(encoded: &mut [u8]) -> bool {
    match FixedHeader::decode(encoded) {
        Ok(Some(header)) if header.packet_type == PacketType::Publish && header.qos() != QoS::AtMostOnce => {
            encoded[0] |= FLAG_DUP;
            true
        }
        _ => false,
    }
}

struct Parts<'a> {
    qos: QoS,
    topic: &'a str,
    packet_id: Option<PacketId>,
    forwardable: &'a [u8],
    expiry_s: Option<u32>,
    topic_alias: Option<u16>,
    subscription_ids: &'a [u32],
    payload: &'a [u8],
}

impl Parts<'_> {
    fn write_own_properties(&self, sink: &mut impl Sink) {
        let mut writer = PropertyWriter::new(sink);
        writer.u32(PropertyId::MessageExpiryInterval, self.expiry_s);
        writer.u16(PropertyId::TopicAlias, self.topic_alias);
        writer.subscription_identifiers(self.subscription_ids.into());
    }
}

impl PropertyBlock for Parts<'_> {
    fn write_properties(&self, sink: &mut impl Sink) {
        self.write_own_properties(sink);
        sink.put(self.forwardable);
    }
}

impl Body for Parts<'_> {
    fn write_body(&self, version: ProtocolVersion, sink: &mut impl Sink) {
        sink.string(self.topic);
        if let Some(id) = written_id(self.qos, self.packet_id) {
            sink.packet_id(id);
        }
        if version == ProtocolVersion::V5 {
            sink.property_block(self);
        }
        sink.put(self.payload);
    }
}

/// `QoS` and packet identifier come together or not at all `[MQTT-2.2.1-2]`.
fn written_id(qos: QoS, packet_id: Option<PacketId>) -> Option<PacketId> {
    packet_id.filter(|_| qos != QoS::AtMostOnce)
}

fn first_byte(dup: bool, qos: QoS, retain: bool, packet_id: Option<PacketId>) -> u8 {
    debug_assert!(qos == QoS::AtMostOnce || packet_id.is_some(), "QoS above 0 needs a packet identifier");
    let mut first = PacketType::Publish.first_byte() | u8::from(retain);
    if written_id(qos, packet_id).is_some() {
        first |= (qos as u8) << 1;
        if dup {
            first |= FLAG_DUP;
        }
    }
    first
}

impl<'a> PublishProperties<'a> {
    /// Reads a property block without its length: that of a PUBLISH, or one that
    /// [`encode_forwardable`](Self::encode_forwardable) wrote.
    pub fn decode_block(block: &'a [u8]) -> Result<Self, DecodeError> {
        let mut properties = Self::default();
        let mut reader = PropertyReader::new("PUBLISH", block);
        while let Some(id) = reader.next()? {
            match id {
                PropertyId::PayloadFormatIndicator => {
                    reader.flag(&mut properties.payload_format_indicator)?;
                }
                PropertyId::MessageExpiryInterval => reader.u32(&mut properties.message_expiry_interval_s)?,
                PropertyId::TopicAlias => reader.topic_alias(&mut properties.topic_alias)?,
                PropertyId::ResponseTopic => reader.topic_name(&mut properties.response_topic)?,
                PropertyId::CorrelationData => reader.binary(&mut properties.correlation_data)?,
                PropertyId::UserProperty => reader.user_property(&mut properties.user_properties)?,
                PropertyId::SubscriptionIdentifier => {
                    reader.subscription_identifiers(&mut properties.subscription_identifiers)?;
                }
                PropertyId::ContentType => reader.string(&mut properties.content_type)?,
                _ => return Err(reader.misplaced()),
            }
        }
        Ok(properties)
    }

    /// Appends, without a length, what goes unaltered to subscribers: payload format indicator, content type,
    /// response topic, correlation data and user properties in their order. Alias, subscription identifiers and
    /// expiry are each hop's own.
    pub fn encode_forwardable(&self, out: &mut Vec<u8>) {
        self.forwardable().write(out);
    }

    /// Length in bytes of the block that [`encode_forwardable`](Self::encode_forwardable) appends.
    pub fn forwardable_len(&self) -> usize {
        let mut measure = Measure::default();
        self.forwardable().write(&mut measure);
        measure.saturated() as usize
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

impl PropertyBlock for PublishProperties<'_> {
    fn write_properties(&self, sink: &mut impl Sink) {
        let mut writer = PropertyWriter::new(sink);
        writer.u32(PropertyId::MessageExpiryInterval, self.message_expiry_interval_s);
        writer.u16(PropertyId::TopicAlias, self.topic_alias);
        writer.subscription_identifiers(self.subscription_identifiers);
        self.forwardable().write(sink);
    }
}

const _: () = assert!(MAX_REMAINING_LENGTH < u32::MAX, "a saturated length is recognised as too long");
