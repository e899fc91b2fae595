//! UNSUBSCRIBE (section 3.10).

use std::fmt;

use super::properties::{PropertyReader, PropertyWriter};
use super::reader::Reader;
use super::writer::{Body, PropertyBlock, Sink, encode_packet};
use super::{DecodeError, FixedHeader, PacketId, PacketType, PropertyId, ProtocolVersion, UserProperties};
use crate::topic;

/// A client gives up filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// UNSUBACK answers with the same.
    pub packet_id: PacketId,
    /// MQTT 5 only.
    pub properties: UnsubscribeProperties<'a>,
    /// At least one `[MQTT-3.10.3-2]`.
    pub filters: UnsubscribeFilters<'a>,
}

/// The properties of UNSUBSCRIBE (section 3.10.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UnsubscribeProperties<'a> {
    /// In the sender's order.
    pub user_properties: UserProperties<'a>,
}

/// The filters of an UNSUBSCRIBE. Decoded ones were validated and are read again from the packet's bytes at each
/// iteration; ones to be encoded come [`From`] a slice.
#[derive(Clone, Copy)]
pub struct UnsubscribeFilters<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    Validated(&'a [u8]),
    Strings(&'a [&'a str]),
}

impl<'a> Unsubscribe<'a> {
    /// Reads the body that follows `header`. One bad filter refuses the whole packet.
    pub fn decode(
        header: FixedHeader,
        body: &'a [u8],
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::open(header, body, version)?;
        let packet_id = reader.packet_id()?;
        let properties = match version {
            ProtocolVersion::V311 => UnsubscribeProperties::default(),
            ProtocolVersion::V5 => UnsubscribeProperties::decode(reader.property_block()?)?,
        };
        let filters = UnsubscribeFilters::validate(reader)?;
        Ok(Self { packet_id, properties, filters })
    }

    /// Appends the packet to `out`.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        encode_packet(PacketType::Unsubscribe.first_byte(), self, version, out);
    }
}

impl Body for Unsubscribe<'_> {
    fn write_body(&self, version: ProtocolVersion, sink: &mut impl Sink) {
        sink.packet_id(self.packet_id);
        if version == ProtocolVersion::V5 {
            sink.property_block(&self.properties);
        }
        for filter in &self.filters {
            sink.string(filter);
        }
    }
}

impl<'a> UnsubscribeProperties<'a> {
    fn decode(block: &'a [u8]) -> Result<Self, DecodeError> {
        let mut properties = Self::default();
        let mut reader = PropertyReader::new("UNSUBSCRIBE", block);
        while let Some(id) = reader.next()? {
            match id {
                PropertyId::UserProperty => reader.user_property(&mut properties.user_properties)?,
                _ => return Err(reader.misplaced()),
            }
        }
        Ok(properties)
    }
}

impl PropertyBlock for UnsubscribeProperties<'_> {
    fn write_properties(&self, sink: &mut impl Sink) {
        PropertyWriter::new(sink).user_properties(self.user_properties);
    }
}

impl<'a> UnsubscribeFilters<'a> {
    /// The filters in the packet's order.
    pub fn iter(&self) -> UnsubscribeFiltersIter<'a> {
        UnsubscribeFiltersIter(self.0)
    }

    /// How many there are; walks the list.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is none, which no decoded packet has.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    fn validate(mut reader: Reader<'a>) -> Result<Self, DecodeError> {
        let list = reader.rest();
        if list.is_empty() {
            return Err(DecodeError::NoTopicFilters);
        }
        while !reader.is_empty() {
            topic::validate_filter(reader.string()?).map_err(DecodeError::InvalidTopicFilter)?;
        }
        Ok(Self(Source::Validated(list)))
    }
}

/// Iterates over [`UnsubscribeFilters`].
#[derive(Clone)]
pub struct UnsubscribeFiltersIter<'a>(Source<'a>);

impl<'a> Iterator for UnsubscribeFiltersIter<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        match &mut self.0 {
            Source::Validated(list) => {
                let mut reader = Reader::new(list);
                let filter = reader.string().ok()?;
                *list = reader.rest();
                Some(filter)
            }
            Source::Strings(strings) => {
                let (first, rest) = strings.split_first()?;
                *strings = rest;
                Some(first)
            }
        }
    }
}

impl<'a> IntoIterator for &UnsubscribeFilters<'a> {
    type Item = &'a str;
    type IntoIter = UnsubscribeFiltersIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> From<&'a [&'a str]> for UnsubscribeFilters<'a> {
    fn from(strings: &'a [&'a str]) -> Self {
        Self(Source::Strings(strings))
    }
}

impl PartialEq for UnsubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UnsubscribeFilters<'_> {}

impl fmt::Debug for UnsubscribeFilters<'_> {
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
    fn the_examples_of_section_3_10_3_are_read_and_written() {
        let filters = ["a/b", "c/d"];
        let packet = Packet::Unsubscribe(Unsubscribe {
            packet_id: id(10),
            properties: UnsubscribeProperties::default(),
            filters: (&filters[..]).into(),
        });
        let list = [0x00, 0x03, b'a', b'/', b'b', 0x00, 0x03, b'c', b'/', b'd'];
        same(V311, &[&[0xA2, 0x0C, 0x00, 0x0A][..], &list].concat(), &packet);
        same(V5, &[&[0xA2, 0x0D, 0x00, 0x0A, 0x00][..], &list].concat(), &packet);
    }

    #[test]
    fn what_unsubscribe_may_not_carry_is_refused() {
        assert_eq!(refusal(V311, &[0xA2, 2, 0, 1]), DecodeError::NoTopicFilters);
        assert_eq!(refusal(V5, &[0xA2, 3, 0, 1, 0]), DecodeError::NoTopicFilters);
        assert_eq!(refusal(V311, &[0xA2, 5, 0, 0, 0, 1, b'a']), DecodeError::PacketIdZero);
        let empty = refusal(V311, &[0xA2, 4, 0, 1, 0, 0]);
        assert!(matches!(empty, DecodeError::InvalidTopicFilter(_)));
        let misplaced = refusal(V5, &[0xA2, 8, 0, 1, 2, 0x0B, 1, 0, 1, b'a']);
        assert!(matches!(misplaced, DecodeError::PropertyNotAllowed { .. }));
    }
}
