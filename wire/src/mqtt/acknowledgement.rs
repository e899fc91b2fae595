//! PUBACK, PUBREC, PUBREL and PUBCOMP have one layout (sections 3.4 to 3.7): packet identifier, and in MQTT 5 a
//! reason code and properties, each of which may be left out from the end. It stands here once; each packet's own
//! file names it, says which reason codes it carries, and shows its bytes.

use super::properties::{PropertyReader, PropertyWriter};
use super::reader::Reader;
use super::writer::{Body, PropertyBlock, Sink, encode_packet};
use super::{
    DecodeError, FixedHeader, PacketId, PacketType, PropertyId, ProtocolVersion, ReasonCode, UserProperties,
};

/// The properties of PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AckProperties<'a> {
    /// For a human's eyes. To be left out if the client asked for no problem information.
    pub reason_string: Option<&'a str>,
    /// In the sender's order. To be left out if the client asked for no problem information.
    pub user_properties: UserProperties<'a>,
}

impl<'a> AckProperties<'a> {
    pub(super) fn decode(packet: &'static str, block: &'a [u8]) -> Result<Self, DecodeError> {
        let mut properties = Self::default();
        let mut reader = PropertyReader::new(packet, block);
        while let Some(id) = reader.next()? {
            match id {
                PropertyId::ReasonString => reader.string(&mut properties.reason_string)?,
                PropertyId::UserProperty => reader.user_property(&mut properties.user_properties)?,
                _ => return Err(reader.misplaced()),
            }
        }
        Ok(properties)
    }
}

impl PropertyBlock for AckProperties<'_> {
    fn write_properties(&self, sink: &mut impl Sink) {
        let mut writer = PropertyWriter::new(sink);
        writer.string(PropertyId::ReasonString, self.reason_string);
        writer.user_properties(self.user_properties);
    }
}

/// What the four packets hold, before it takes the name of one of them.
#[derive(Clone, Copy)]
pub(super) struct Acknowledgement<'a> {
    pub(super) packet_id: PacketId,
    pub(super) reason_code: ReasonCode,
    pub(super) properties: AckProperties<'a>,
}

impl<'a> Acknowledgement<'a> {
    pub(super) fn decode(
        name: &'static str,
        header: FixedHeader,
        body: &'a [u8],
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::open(header, body, version)?;
        let packet_id = reader.packet_id()?;
        let mut acknowledgement =
            Self { packet_id, reason_code: ReasonCode::Success, properties: AckProperties::default() };
        if version == ProtocolVersion::V5 && !reader.is_empty() {
            acknowledgement.reason_code = decode_reason_code(header.packet_type, reader.u8()?)?;
            if !reader.is_empty() {
                acknowledgement.properties = AckProperties::decode(name, reader.property_block()?)?;
            }
        }
        reader.finish()?;
        Ok(acknowledgement)
    }

    pub(super) fn encode(self, packet: PacketType, version: ProtocolVersion, out: &mut Vec<u8>) {
        let short = self.reason_code == ReasonCode::Success && self.properties == AckProperties::default();
        if short || version == ProtocolVersion::V311 {
            let [high, low] = self.packet_id.get().to_be_bytes();
            out.extend_from_slice(&[packet.first_byte(), 2, high, low]);
        } else {
            encode_packet(packet.first_byte(), &self, version, out);
        }
    }
}

impl Body for Acknowledgement<'_> {
    fn write_body(&self, _: ProtocolVersion, sink: &mut impl Sink) {
        sink.packet_id(self.packet_id);
        sink.u8(self.reason_code.into());
        if self.properties.has_properties() {
            sink.property_block(&self.properties);
        }
    }
}

/// A reason code that exists and belongs in this packet.
pub(super) fn decode_reason_code(packet: PacketType, code: u8) -> Result<ReasonCode, DecodeError> {
    ReasonCode::from_u8(code)
        .filter(|reason| reason.allowed_in(packet))
        .ok_or(DecodeError::InvalidReasonCode { packet, code })
}

/// Declares one of the four packets.
macro_rules! acknowledgement_packet {
    ($(#[$doc:meta])* $name:ident, $wire_name:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name<'a> {
            /// The PUBLISH that it speaks of.
            pub packet_id: PacketId,
            /// MQTT 3.1.1 has none: `Success` is read, whatever it is nothing is written.
            pub reason_code: ReasonCode,
            /// MQTT 5 only.
            pub properties: AckProperties<'a>,
        }

        impl<'a> $name<'a> {
            /// Success, without properties: four bytes in both versions.
            pub const fn success(packet_id: PacketId) -> Self {
                Self::with_reason(packet_id, ReasonCode::Success)
            }

            /// This reason, without properties.
            pub const fn with_reason(packet_id: PacketId, reason_code: ReasonCode) -> Self {
                let properties =
                    AckProperties { reason_string: None, user_properties: UserProperties::EMPTY };
                Self { packet_id, reason_code, properties }
            }

            /// Reads the body that follows `header`.
            pub fn decode(
                header: FixedHeader,
                body: &'a [u8],
                version: ProtocolVersion,
            ) -> Result<Self, DecodeError> {
                let Acknowledgement { packet_id, reason_code, properties } =
                    Acknowledgement::decode($wire_name, header, body, version)?;
                Ok(Self { packet_id, reason_code, properties })
            }

            /// Appends the packet to `out`, in the short form if it says no more than success.
            pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
                let Self { packet_id, reason_code, properties } = *self;
                Acknowledgement { packet_id, reason_code, properties }.encode(PacketType::$name, version, out);
            }
        }
    };
}

pub(super) use acknowledgement_packet;
