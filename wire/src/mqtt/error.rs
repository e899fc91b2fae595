//! What can be wrong with bytes that claim to be MQTT. Always the peer's fault; [`DecodeError::reason_code`] is
//! what an MQTT 5 peer hears before its connection is closed.

use super::{PacketType, PropertyId, ReasonCode};
use crate::topic::TopicError;

/// Why bytes were refused. Nothing of a refused packet may be acted upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Type 0 in the fixed header `[section 2.1.2]`, or AUTH in MQTT 3.1.1.
    #[error("packet type {0} is reserved")]
    ReservedPacketType(u8),
    /// `[MQTT-2.1.3-1]`
    #[error("{packet:?} may not carry the header flags {flags:#06b}")]
    InvalidHeaderFlags {
        /// The packet that carries them.
        packet: PacketType,
        /// The low four bits of the first byte.
        flags: u8,
    },
    /// `[MQTT-3.3.1-4]`, and the will of a CONNECT `[MQTT-3.1.2-12]`.
    #[error("QoS 3 does not exist")]
    InvalidQoS,
    /// `[MQTT-3.3.1-2]`
    #[error("DUP is set on a QoS 0 PUBLISH")]
    DupWithQoS0,
    /// A variable byte integer has at most four bytes.
    #[error("variable byte integer is longer than four bytes")]
    VariableIntegerTooLong,
    /// `[MQTT-1.5.5-1]`; MQTT 5 only.
    #[error("variable byte integer is not in its shortest form")]
    VariableIntegerNotMinimal,
    /// The remaining length cannot be that of this packet type.
    #[error("{packet:?} cannot have a remaining length of {length}")]
    InvalidLength {
        /// The packet that announced it.
        packet: PacketType,
        /// What it announced, in bytes.
        length: u32,
    },
    /// A field reaches beyond the end of the packet.
    #[error("packet ends in the middle of a field")]
    Truncated,
    /// Bytes remain after the last field.
    #[error("packet has bytes after its last field")]
    TrailingBytes,
    /// `[MQTT-1.5.4-1]`
    #[error("string is not well-formed UTF-8")]
    InvalidUtf8,
    /// `[MQTT-1.5.4-2]`
    #[error("string contains U+0000")]
    NulInString,
    /// `[MQTT-2.2.1-3]`
    #[error("packet identifier is zero")]
    PacketIdZero,
    /// The identifier is none of the specification's.
    #[error("property identifier {0:#04x} does not exist")]
    UnknownProperty(u8),
    /// The property exists, but not in this packet.
    #[error("property {property:?} does not belong in {packet}")]
    PropertyNotAllowed {
        /// The misplaced property.
        property: PropertyId,
        /// Where it was found: a packet, or the will of one.
        packet: &'static str,
    },
    /// Only user properties, and the subscription identifiers of a PUBLISH, may repeat.
    #[error("property {0:?} is given twice")]
    DuplicateProperty(PropertyId),
    /// Zero where zero is forbidden, or a flag that is neither 0 nor 1.
    #[error("property {0:?} has a value that is not allowed")]
    PropertyOutOfRange(PropertyId),
    /// `[MQTT-3.3.2-8]`
    #[error("topic alias is zero")]
    TopicAliasZero,
    /// Protocol name or level is none that Holdfast speaks `[MQTT-3.1.2-1]`, `[MQTT-3.1.2-2]`.
    #[error("protocol name or version is not supported")]
    UnsupportedProtocol,
    /// `[MQTT-3.1.2-3]`
    #[error("reserved CONNECT flag is set")]
    ReservedConnectFlag,
    /// Will QoS or will retain without a will `[MQTT-3.1.2-11]`, `[MQTT-3.1.2-13]`.
    #[error("will QoS or will retain is set without a will")]
    WillFlagsWithoutWill,
    /// MQTT 3.1.1 `[MQTT-3.1.2-22]`.
    #[error("password without a user name")]
    PasswordWithoutUsername,
    /// MQTT 3.1.1 `[MQTT-3.1.3-8]`: the peer hears return code 2.
    #[error("empty client identifier without a clean session")]
    EmptyClientId,
    /// `[MQTT-3.1.2-30]` and section 3.15.2.2.2.
    #[error("authentication data without an authentication method")]
    AuthenticationMethodMissing,
    /// Bits 7 to 1 of the acknowledge flags are reserved `[MQTT-3.2.2-1]`.
    #[error("reserved acknowledge flag is set")]
    ReservedAcknowledgeFlag,
    /// `[MQTT-3.2.2-6]`
    #[error("session present in a CONNACK that refuses")]
    SessionPresentInRefusal,
    /// The code does not exist, or not in this packet.
    #[error("reason code {code:#04x} does not belong in {packet:?}")]
    InvalidReasonCode {
        /// The packet that carries it.
        packet: PacketType,
        /// The byte on the wire.
        code: u8,
    },
    /// `[MQTT-3.8.3-2]`, `[MQTT-3.10.3-2]`
    #[error("list of topic filters is empty")]
    NoTopicFilters,
    /// `[MQTT-3.8.3-5]`; in MQTT 3.1.1 all but the QoS is reserved (3.1.1 `[MQTT-3-8.3-4]`).
    #[error("reserved bits of the subscription options are set")]
    ReservedSubscriptionOptions,
    /// A maximum QoS or a retain handling of 3 (section 3.8.3.1).
    #[error("subscription option has a value that is not allowed")]
    SubscriptionOptionOutOfRange,
    /// `[MQTT-3.8.3-4]`
    #[error("no local is set on a shared subscription")]
    NoLocalOnShared,
    /// Section 3.3.2.1: an empty name needs an alias.
    #[error("topic name is empty and there is no topic alias")]
    EmptyTopicWithoutAlias,
    /// A topic name in PUBLISH, will or response topic `[MQTT-3.3.2-2]`, `[MQTT-3.3.2-14]`.
    #[error("invalid topic name: {0}")]
    InvalidTopicName(TopicError),
    /// A topic filter in SUBSCRIBE or UNSUBSCRIBE `[MQTT-4.7.1-1]`, `[MQTT-4.7.1-2]`, `[MQTT-4.8.2-1]`.
    #[error("invalid topic filter: {0}")]
    InvalidTopicFilter(TopicError),
}

impl DecodeError {
    /// What an MQTT 5 peer hears, in CONNACK if it was refused in its CONNECT and in DISCONNECT later. A 3.1.1
    /// peer hears of a refused CONNECT only, and only of [`UnsupportedProtocol`](Self::UnsupportedProtocol) and
    /// [`EmptyClientId`](Self::EmptyClientId); otherwise its connection just closes.
    pub const fn reason_code(&self) -> ReasonCode {
        match self {
            Self::ReservedPacketType(_)
            | Self::InvalidHeaderFlags { .. }
            | Self::InvalidQoS
            | Self::DupWithQoS0
            | Self::VariableIntegerTooLong
            | Self::VariableIntegerNotMinimal
            | Self::InvalidLength { .. }
            | Self::Truncated
            | Self::TrailingBytes
            | Self::InvalidUtf8
            | Self::NulInString
            | Self::UnknownProperty(_)
            | Self::PropertyNotAllowed { .. }
            | Self::ReservedConnectFlag
            | Self::WillFlagsWithoutWill
            | Self::PasswordWithoutUsername
            | Self::ReservedAcknowledgeFlag
            | Self::ReservedSubscriptionOptions => ReasonCode::MalformedPacket,
            Self::PacketIdZero
            | Self::DuplicateProperty(_)
            | Self::PropertyOutOfRange(_)
            | Self::AuthenticationMethodMissing
            | Self::SessionPresentInRefusal
            | Self::InvalidReasonCode { .. }
            | Self::NoTopicFilters
            | Self::SubscriptionOptionOutOfRange
            | Self::NoLocalOnShared
            | Self::EmptyTopicWithoutAlias => ReasonCode::ProtocolError,
            Self::TopicAliasZero => ReasonCode::TopicAliasInvalid,
            Self::UnsupportedProtocol => ReasonCode::UnsupportedProtocolVersion,
            Self::EmptyClientId => ReasonCode::ClientIdentifierNotValid,
            Self::InvalidTopicName(_) => ReasonCode::TopicNameInvalid,
            Self::InvalidTopicFilter(_) => ReasonCode::TopicFilterInvalid,
        }
    }
}
