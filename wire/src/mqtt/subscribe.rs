//! SUBSCRIBE (section 3.8).

use std::fmt;

use super::properties::{PropertyReader, PropertyWriter};
use super::reader::Reader;
use super::writer::{Body, PropertyBlock, Sink, encode_packet};
use super::{
    DecodeError, FixedHeader, PacketId, PacketType, PropertyId, ProtocolVersion, QoS, UserProperties,
};
use crate::topic;

const OPTION_QOS: u8 = 0b0000_0011;
const OPTION_NO_LOCAL: u8 = 0b0000_0100;
const OPTION_RETAIN_AS_PUBLISHED: u8 = 0b0000_1000;
const OPTION_RETAIN_HANDLING: u8 = 0b0011_0000;
const OPTION_RESERVED: u8 = 0b1100_0000;

/// A client asks for the messages that match its filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// SUBACK answers with the same.
    pub packet_id: PacketId,
    /// MQTT 5 only.
    pub properties: SubscribeProperties<'a>,
    /// At least one `[MQTT-3.8.3-2]`.
    pub filters: SubscribeFilters<'a>,
}

/// The properties of SUBSCRIBE (section 3.8.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubscribeProperties<'a> {
    /// Comes back with each message that matches; 1 to 268,435,455.
    pub subscription_identifier: Option<u32>,
    /// In the sender's order.
    pub user_properties: UserProperties<'a>,
}

/// What a subscription asks for besides its filter (section 3.8.3.1). MQTT 3.1.1 has the `QoS` only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SubscriptionOptions {
    /// The highest `QoS` at which messages are delivered.
    pub qos: QoS,
    /// Not the client's own messages. Never on a shared subscription `[MQTT-3.8.3-4]`.
    pub no_local: bool,
    /// The RETAIN flag of a message stays as its publisher set it.
    pub retain_as_published: bool,
    /// Whether retained messages are sent now.
    pub retain_handling: RetainHandling,
}

/// When the retained messages that match a new subscription are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// Each time it is subscribed.
    #[default]
    SendAtSubscribe = 0,
    /// Only if the subscription did not exist.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

/// The filters of a SUBSCRIBE with their options. Decoded ones were validated and are read again from the packet's
/// bytes at each iteration; ones to be encoded come [`From`] a slice.
#[derive(Clone, Copy)]
pub struct SubscribeFilters<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    Validated(&'a [u8]),
    Pairs(&'a [(&'a str, SubscriptionOptions)]),
}

impl<'a> Subscribe<'a> {
    /// Reads the body that follows `header`. One bad filter refuses the whole packet.
    pub fn decode(
        header: FixedHeader,
        body: &'a [u8],
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::open(header, body, version)?;
        let packet_id = reader.packet_id()?;
        let properties = match version {
            ProtocolVersion::V311 => SubscribeProperties::default(),
            ProtocolVersion::V5 => SubscribeProperties::decode(reader.property_block()?)?,
        };
        let filters = SubscribeFilters::validate(reader, version)?;
        Ok(Self { packet_id, properties, filters })
    }

    /// Appends the packet to `out`. For MQTT 3.1.1 all options but the `QoS` are left out.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        encode_packet(PacketType::Subscribe.first_byte(), self, version, out);
    }
}

impl Body for Subscribe<'_> {
    fn write_body(&self, version: ProtocolVersion, sink: &mut impl Sink) {
        sink.packet_id(self.packet_id);
        if version == ProtocolVersion::V5 {
            sink.property_block(&self.properties);
        }
        for (filter, options) in &self.filters {
            sink.string(filter);
            sink.u8(match version {
                ProtocolVersion::V311 => options.qos.into(),
                ProtocolVersion::V5 => options.to_byte(),
            });
        }
    }
}

impl<'a> SubscribeProperties<'a> {
    fn decode(block: &'a [u8]) -> Result<Self, DecodeError> {
        let mut properties = Self::default();
        let mut reader = PropertyReader::new("SUBSCRIBE", block);
        while let Some(id) = reader.next()? {
            match id {
                PropertyId::SubscriptionIdentifier => {
                    reader.subscription_identifier(&mut properties.subscription_identifier)?;
                }
                PropertyId::UserProperty => reader.user_property(&mut properties.user_properties)?,
                _ => return Err(reader.misplaced()),
            }
        }
        Ok(properties)
    }
}

impl PropertyBlock for SubscribeProperties<'_> {
    fn write_properties(&self, sink: &mut impl Sink) {
        let mut writer = PropertyWriter::new(sink);
        if let Some(identifier) = self.subscription_identifier {
            writer.subscription_identifier(identifier);
        }
        writer.user_properties(self.user_properties);
    }
}

impl SubscriptionOptions {
    /// This `QoS`, and the rest as MQTT 3.1.1 has it.
    pub const fn at(qos: QoS) -> Self {
        Self {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        }
    }

    /// The options byte of MQTT 5.
    pub const fn to_byte(self) -> u8 {
        let mut byte = self.qos as u8 | (self.retain_handling as u8) << 4;
        if self.no_local {
            byte |= OPTION_NO_LOCAL;
        }
        if self.retain_as_published {
            byte |= OPTION_RETAIN_AS_PUBLISHED;
        }
        byte
    }

    /// Reads the options byte of MQTT 5.
    pub fn from_byte(byte: u8) -> Result<Self, DecodeError> {
        if byte & OPTION_RESERVED != 0 {
            return Err(DecodeError::ReservedSubscriptionOptions);
        }
        Ok(Self {
            qos: QoS::try_from(byte & OPTION_QOS).map_err(|_| DecodeError::SubscriptionOptionOutOfRange)?,
            no_local: byte & OPTION_NO_LOCAL != 0,
            retain_as_published: byte & OPTION_RETAIN_AS_PUBLISHED != 0,
            retain_handling: match (byte & OPTION_RETAIN_HANDLING) >> 4 {
                0 => RetainHandling::SendAtSubscribe,
                1 => RetainHandling::SendIfNew,
                2 => RetainHandling::DoNotSend,
                _ => return Err(DecodeError::SubscriptionOptionOutOfRange),
            },
        })
    }
}

impl<'a> SubscribeFilters<'a> {
    /// The filters in the packet's order; a filter may come twice, and the later one counts.
    pub fn iter(&self) -> SubscribeFiltersIter<'a> {
        SubscribeFiltersIter(self.0)
    }

    /// How many there are; walks the list.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is none, which no decoded packet has.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    fn validate(mut reader: Reader<'a>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let list = reader.rest();
        if list.is_empty() {
            return Err(DecodeError::NoTopicFilters);
        }
        while !reader.is_empty() {
            let filter = reader.string()?;
            topic::validate_filter(filter).map_err(DecodeError::InvalidTopicFilter)?;
            let byte = reader.u8()?;
            if version == ProtocolVersion::V311 && byte & !OPTION_QOS != 0 {
                return Err(DecodeError::ReservedSubscriptionOptions);
            }
            let options = SubscriptionOptions::from_byte(byte)?;
            if options.no_local && topic::parse_shared(filter).is_some() {
                return Err(DecodeError::NoLocalOnShared);
            }
        }
        Ok(Self(Source::Validated(list)))
    }
}

/// Iterates over [`SubscribeFilters`].
#[derive(Clone)]
pub struct SubscribeFiltersIter<'a>(Source<'a>);

impl<'a> Iterator for SubscribeFiltersIter<'a> {
    type Item = (&'a str, SubscriptionOptions);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::Validated(list) => {
                let mut reader = Reader::new(list);
                let filter = reader.string().ok()?;
                let options = SubscriptionOptions::from_byte(reader.u8().ok()?).ok()?;
                *list = reader.rest();
                Some((filter, options))
            }
            Source::Pairs(pairs) => {
                let (first, rest) = pairs.split_first()?;
                *pairs = rest;
                Some(*first)
            }
        }
    }
}

impl<'a> IntoIterator for &SubscribeFilters<'a> {
    type Item = (&'a str, SubscriptionOptions);
    type IntoIter = SubscribeFiltersIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> From<&'a [(&'a str, SubscriptionOptions)]> for SubscribeFilters<'a> {
    fn from(pairs: &'a [(&'a str, SubscriptionOptions)]) -> Self {
        Self(Source::Pairs(pairs))
    }
}

impl PartialEq for SubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscribeFilters<'_> {}

impl fmt::Debug for SubscribeFilters<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Packet;
    use super::super::golden::{id, refusal, same};
    use super::*;

    const V311: ProtocolVersion = ProtocolVersion::V311;
    const V5: ProtocolVersion = ProtocolVersion::V5;

    #[test]
    fn the_examples_of_section_3_8_3_are_read_and_written() {
        let filters = [
            ("a/b", SubscriptionOptions::at(QoS::AtLeastOnce)),
            ("c/d", SubscriptionOptions::at(QoS::ExactlyOnce)),
        ];
        let packet = Packet::Subscribe(Subscribe {
            packet_id: id(10),
            properties: SubscribeProperties::default(),
            filters: (&filters[..]).into(),
        });
        let list = [0x00, 0x03, b'a', b'/', b'b', 0x01, 0x00, 0x03, b'c', b'/', b'd', 0x02];
        same(V311, &[&[0x82, 0x0E, 0x00, 0x0A][..], &list].concat(), &packet);
        same(V5, &[&[0x82, 0x0F, 0x00, 0x0A, 0x00][..], &list].concat(), &packet);
    }

    #[test]
    fn options_and_identifier_are_read_and_written() {
        let options = SubscriptionOptions {
            qos: QoS::AtLeastOnce,
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::DoNotSend,
        };
        let filters = [("#", options)];
        let properties =
            SubscribeProperties { subscription_identifier: Some(268_435_455), ..Default::default() };
        let packet = Subscribe { packet_id: id(1), properties, filters: (&filters[..]).into() };
        let bytes =
            [0x82, 0x0C, 0x00, 0x01, 0x05, 0x0B, 0xFF, 0xFF, 0xFF, 0x7F, 0x00, 0x01, b'#', 0b0010_1101];
        same(V5, &bytes, &Packet::Subscribe(packet));
    }

    #[test]
    fn every_options_byte_is_read_as_it_is_written_or_refused() {
        let valid: Vec<u8> = (0..=255).filter(|byte| SubscriptionOptions::from_byte(*byte).is_ok()).collect();
        assert_eq!(valid.len(), 3 * 2 * 2 * 3);
        for byte in valid {
            assert_eq!(SubscriptionOptions::from_byte(byte).map(SubscriptionOptions::to_byte), Ok(byte));
        }
    }

    #[test]
    fn what_subscribe_may_not_carry_is_refused() {
        let with_options = |version, options| match version {
            V311 => refusal(version, &[0x82, 6, 0, 1, 0, 1, b'a', options]),
            V5 => refusal(version, &[0x82, 7, 0, 1, 0, 0, 1, b'a', options]),
        };
        assert_eq!(with_options(V311, 0x04), DecodeError::ReservedSubscriptionOptions);
        assert_eq!(with_options(V5, 0x40), DecodeError::ReservedSubscriptionOptions);
        assert_eq!(with_options(V5, 0x03), DecodeError::SubscriptionOptionOutOfRange);
        assert_eq!(with_options(V5, 0x30), DecodeError::SubscriptionOptionOutOfRange);
        assert_eq!(refusal(V311, &[0x82, 2, 0, 1]), DecodeError::NoTopicFilters);
        assert_eq!(refusal(V5, &[0x82, 3, 0, 1, 0]), DecodeError::NoTopicFilters);
        assert_eq!(refusal(V311, &[0x82, 6, 0, 0, 0, 1, b'a', 0]), DecodeError::PacketIdZero);
        assert_eq!(refusal(V311, &[0x82, 5, 0, 1, 0, 1, b'a']), DecodeError::Truncated);
        let filter = refusal(V311, &[0x82, 7, 0, 1, 0, 2, b'a', b'#', 0]);
        assert!(matches!(filter, DecodeError::InvalidTopicFilter(_)));
        let zero = DecodeError::PropertyOutOfRange(PropertyId::SubscriptionIdentifier);
        assert_eq!(refusal(V5, &[0x82, 9, 0, 1, 2, 0x0B, 0, 0, 1, b'a', 0]), zero);
        let twice = DecodeError::DuplicateProperty(PropertyId::SubscriptionIdentifier);
        assert_eq!(refusal(V5, &[0x82, 11, 0, 1, 4, 0x0B, 1, 0x0B, 1, 0, 1, b'a', 0]), twice);
    }

    #[test]
    fn no_local_does_not_go_with_a_shared_filter() {
        let bytes = [&[0x82, 0x10, 0x00, 0x01, 0x00, 0x00, 0x0A], &b"$share/g/a"[..], &[0x04]].concat();
        assert_eq!(refusal(V5, &[&[0x82, 0x10], &bytes[2..]].concat()), DecodeError::NoLocalOnShared);
    }
}
