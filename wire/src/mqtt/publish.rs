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

impl PropertyBlock for Parts<'_> {
    fn write_properties(&self, sink: &mut impl Sink) {
        let mut writer = PropertyWriter::new(sink);
        writer.u32(PropertyId::MessageExpiryInterval, self.expiry_s);
        writer.u16(PropertyId::TopicAlias, self.topic_alias);
        writer.subscription_identifiers(self.subscription_ids.into());
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

#[cfg(test)]
mod tests {
    use super::super::Packet;
    use super::super::golden::{id, refusal, same};
    use super::*;

    const V311: ProtocolVersion = ProtocolVersion::V311;
    const V5: ProtocolVersion = ProtocolVersion::V5;

    fn publish<'a>(topic: &'a str, payload: &'a [u8]) -> Publish<'a> {
        Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic,
            packet_id: None,
            properties: PublishProperties::default(),
            payload,
        }
    }

    #[test]
    fn the_examples_of_section_3_3_2_are_read_and_written() {
        // Topic a/b, packet identifier 10.
        let packet = Packet::Publish(Publish {
            qos: QoS::AtLeastOnce,
            packet_id: Some(id(10)),
            ..publish("a/b", b"hi")
        });
        same(V311, &[0x32, 0x09, 0x00, 0x03, b'a', b'/', b'b', 0x00, 0x0A, b'h', b'i'], &packet);
        same(V5, &[0x32, 0x0A, 0x00, 0x03, b'a', b'/', b'b', 0x00, 0x0A, 0x00, b'h', b'i'], &packet);
    }

    #[test]
    fn quality_of_service_zero_has_no_identifier() {
        same(V311, &[0x31, 0x03, 0x00, 0x01, b'a'], &{
            Packet::Publish(Publish { retain: true, ..publish("a", b"") })
        });
    }

    #[test]
    fn every_property_has_its_place() {
        let properties = PublishProperties {
            payload_format_indicator: Some(true),
            message_expiry_interval_s: Some(60),
            topic_alias: Some(7),
            response_topic: Some("r"),
            correlation_data: Some(&[0xFF]),
            user_properties: (&[("k", "1"), ("k", "2")][..]).into(),
            subscription_identifiers: (&[1, 128][..]).into(),
            content_type: Some("t"),
        };
        let bytes = [
            0x30, 0x2C, 0x00, 0x00, 0x29, // empty topic, property length
            0x02, 0, 0, 0, 60, 0x23, 0, 7, 0x0B, 0x01, 0x0B, 0x80, 0x01, // the hop's own
            0x01, 1, 0x03, 0, 1, b't', 0x08, 0, 1, b'r', 0x09, 0, 1, 0xFF, //
            0x26, 0, 1, b'k', 0, 1, b'1', 0x26, 0, 1, b'k', 0, 1, b'2', //
        ];
        same(V5, &bytes, &Packet::Publish(Publish { properties, ..publish("", b"") }));
    }

    #[test]
    fn lists_are_found_between_other_properties() {
        let block = [
            0x26, 0, 1, b'a', 0, 0, 0x0B, 1, 0x01, 0, 0x26, 0, 1, b'b', 0, 0, 0x0B, 2, 0x03, 0, 0, 0x26, 0,
            1, b'c', 0, 0,
        ];
        let properties = PublishProperties::decode_block(&block).expect("valid");
        let names: Vec<&str> = properties.user_properties.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(properties.subscription_identifiers, SubscriptionIdentifiers::from(&[1, 2][..]));
    }

    #[test]
    fn what_publish_may_not_carry_is_refused() {
        assert!(matches!(refusal(V311, &[0x30, 3, 0, 1, b'#']), DecodeError::InvalidTopicName(_)));
        assert!(matches!(refusal(V311, &[0x30, 3, 0, 0, b'x']), DecodeError::InvalidTopicName(_)));
        assert_eq!(refusal(V5, &[0x30, 3, 0, 0, 0]), DecodeError::EmptyTopicWithoutAlias);
        assert_eq!(refusal(V5, &[0x30, 6, 0, 0, 3, 0x23, 0, 0]), DecodeError::TopicAliasZero);
        assert_eq!(refusal(V311, &[0x32, 5, 0, 1, b'a', 0, 0]), DecodeError::PacketIdZero);
        assert_eq!(refusal(V311, &[0x30, 4, 0, 3, b'a', b'b']), DecodeError::Truncated);
        let zero = DecodeError::PropertyOutOfRange(PropertyId::SubscriptionIdentifier);
        assert_eq!(refusal(V5, &[0x30, 6, 0, 1, b'a', 2, 0x0B, 0]), zero);
        let wildcard = refusal(V5, &[0x30, 8, 0, 1, b'a', 4, 0x08, 0, 1, b'+']);
        assert!(matches!(wildcard, DecodeError::InvalidTopicName(_)));
        let twice = DecodeError::DuplicateProperty(PropertyId::ContentType);
        assert_eq!(refusal(V5, &[0x30, 10, 0, 1, b'a', 6, 3, 0, 0, 3, 0, 0]), twice);
    }

    #[test]
    fn parts_and_packet_are_the_same_bytes() {
        let properties = PublishProperties {
            content_type: Some("t"),
            user_properties: (&[("k", "v")][..]).into(),
            ..PublishProperties::default()
        };
        let mut forwardable = Vec::new();
        properties.encode_forwardable(&mut forwardable);
        assert_eq!(forwardable.len(), properties.forwardable_len());
        let full = PublishProperties {
            message_expiry_interval_s: Some(9),
            topic_alias: Some(3),
            subscription_identifiers: (&[5, 6][..]).into(),
            ..properties
        };
        for version in [V311, V5] {
            for (qos, packet_id) in [(QoS::AtMostOnce, None), (QoS::ExactlyOnce, Some(id(77)))] {
                let packet =
                    Publish { qos, packet_id, retain: true, properties: full, ..publish("a/b", b"payload") };
                let mut expected = Vec::new();
                packet.encode(version, &mut expected);
                let mut written = Vec::new();
                encode_parts(
                    &mut written,
                    version,
                    false,
                    qos,
                    true,
                    "a/b",
                    packet_id,
                    &forwardable,
                    Some(9),
                    Some(3),
                    &[5, 6],
                    b"payload",
                );
                assert_eq!(written, expected);
                let length = encoded_len(
                    version,
                    false,
                    qos,
                    true,
                    "a/b",
                    packet_id,
                    &forwardable,
                    Some(9),
                    Some(3),
                    &[5, 6],
                    b"payload",
                );
                assert_eq!(length, expected.len());
            }
        }
    }

    #[test]
    fn an_encoded_packet_takes_another_identifier_and_dup() {
        let packet = Publish { qos: QoS::AtLeastOnce, packet_id: Some(id(1)), ..publish("a/b", &[0; 200]) };
        let mut encoded = Vec::new();
        packet.encode(V5, &mut encoded);
        assert!(set_packet_id(&mut encoded, id(0xABCD)) && set_dup(&mut encoded));
        let mut expected = Vec::new();
        Publish { packet_id: Some(id(0xABCD)), dup: true, ..packet }.encode(V5, &mut expected);
        assert_eq!(encoded, expected);
    }

    #[test]
    fn what_has_no_identifier_takes_none() {
        let mut qos_0 = [0x30, 0x05, 0x00, 0x01, b'a', 0x00, 0x00];
        assert!(!set_packet_id(&mut qos_0, id(1)) && !set_dup(&mut qos_0));
        assert!(!set_packet_id(&mut [0x32, 0x05, 0x00, 0x09, b'a'], id(1)));
        assert!(!set_packet_id(&mut [0x40, 0x02, 0x00, 0x01], id(1)));
        assert!(!set_packet_id(&mut [], id(1)) && !set_dup(&mut []));
        assert_eq!(qos_0, [0x30, 0x05, 0x00, 0x01, b'a', 0x00, 0x00]);
    }
}
