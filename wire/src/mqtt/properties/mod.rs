//! Properties (section 2.2.2): identifiers, their types, and how a block of them is read and written.
//!
//! Which properties a packet may carry is said beside the packet: each has a struct of its own whose decoder
//! matches on [`PropertyId`] and refuses the rest. What may repeat is kept as a view of the block:
//! [`UserProperties`] and [`SubscriptionIdentifiers`].

mod read;
mod subscription_identifiers;
mod user;
mod write;

pub(super) use read::PropertyReader;
pub use subscription_identifiers::SubscriptionIdentifiers;
pub use user::UserProperties;
pub(super) use write::{Forwardable, PropertyWriter};

use super::DecodeError;
use super::reader::Reader;

/// The property identifiers (table 2-4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the specification's, and each struct documents its field")]
pub enum PropertyId {
    PayloadFormatIndicator = 0x01,
    MessageExpiryInterval = 0x02,
    ContentType = 0x03,
    ResponseTopic = 0x08,
    CorrelationData = 0x09,
    SubscriptionIdentifier = 0x0B,
    SessionExpiryInterval = 0x11,
    AssignedClientIdentifier = 0x12,
    ServerKeepAlive = 0x13,
    AuthenticationMethod = 0x15,
    AuthenticationData = 0x16,
    RequestProblemInformation = 0x17,
    WillDelayInterval = 0x18,
    RequestResponseInformation = 0x19,
    ResponseInformation = 0x1A,
    ServerReference = 0x1C,
    ReasonString = 0x1F,
    ReceiveMaximum = 0x21,
    TopicAliasMaximum = 0x22,
    TopicAlias = 0x23,
    MaximumQoS = 0x24,
    RetainAvailable = 0x25,
    UserProperty = 0x26,
    MaximumPacketSize = 0x27,
    WildcardSubscriptionAvailable = 0x28,
    SubscriptionIdentifierAvailable = 0x29,
    SharedSubscriptionAvailable = 0x2A,
}

impl PropertyId {
    /// The property with this identifier. All are below 0x80, so one byte of the variable byte integer suffices.
    pub const fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            0x01 => Self::PayloadFormatIndicator,
            0x02 => Self::MessageExpiryInterval,
            0x03 => Self::ContentType,
            0x08 => Self::ResponseTopic,
            0x09 => Self::CorrelationData,
            0x0B => Self::SubscriptionIdentifier,
            0x11 => Self::SessionExpiryInterval,
            0x12 => Self::AssignedClientIdentifier,
            0x13 => Self::ServerKeepAlive,
            0x15 => Self::AuthenticationMethod,
            0x16 => Self::AuthenticationData,
            0x17 => Self::RequestProblemInformation,
            0x18 => Self::WillDelayInterval,
            0x19 => Self::RequestResponseInformation,
            0x1A => Self::ResponseInformation,
            0x1C => Self::ServerReference,
            0x1F => Self::ReasonString,
            0x21 => Self::ReceiveMaximum,
            0x22 => Self::TopicAliasMaximum,
            0x23 => Self::TopicAlias,
            0x24 => Self::MaximumQoS,
            0x25 => Self::RetainAvailable,
            0x26 => Self::UserProperty,
            0x27 => Self::MaximumPacketSize,
            0x28 => Self::WildcardSubscriptionAvailable,
            0x29 => Self::SubscriptionIdentifierAvailable,
            0x2A => Self::SharedSubscriptionAvailable,
            _ => return None,
        })
    }

    /// Steps over a value of this property's type.
    fn skip_value(self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        match self {
            Self::PayloadFormatIndicator
            | Self::RequestProblemInformation
            | Self::RequestResponseInformation
            | Self::MaximumQoS
            | Self::RetainAvailable
            | Self::WildcardSubscriptionAvailable
            | Self::SubscriptionIdentifierAvailable
            | Self::SharedSubscriptionAvailable => reader.u8().map(drop),
            Self::ServerKeepAlive | Self::ReceiveMaximum | Self::TopicAliasMaximum | Self::TopicAlias => {
                reader.u16().map(drop)
            }
            Self::MessageExpiryInterval
            | Self::SessionExpiryInterval
            | Self::WillDelayInterval
            | Self::MaximumPacketSize => reader.u32().map(drop),
            Self::SubscriptionIdentifier => reader.variable_integer().map(drop),
            Self::ContentType
            | Self::ResponseTopic
            | Self::CorrelationData
            | Self::AssignedClientIdentifier
            | Self::AuthenticationMethod
            | Self::AuthenticationData
            | Self::ResponseInformation
            | Self::ServerReference
            | Self::ReasonString => reader.binary().map(drop),
            Self::UserProperty => reader.binary().and_then(|_| reader.binary()).map(drop),
        }
    }
}

/// Steps through a block that was validated when it was decoded, to the next value of `wanted`, and leaves
/// `reader` in front of it. False at the end.
fn seek(reader: &mut Reader<'_>, wanted: PropertyId) -> bool {
    while let Some(id) = reader.u8().ok().and_then(PropertyId::from_u8) {
        if id == wanted {
            return true;
        }
        if id.skip_value(reader).is_err() {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specification_has_twenty_seven_properties() {
        let known: Vec<PropertyId> = (0..=255).filter_map(PropertyId::from_u8).collect();
        assert_eq!(known.len(), 27);
        assert!(known.iter().all(|id| PropertyId::from_u8(*id as u8) == Some(*id)));
    }
}
