//! The reason codes of MQTT 5 (table 2-6): one enum for all packets, and which of them each packet may carry.

use super::PacketType;

macro_rules! reason_codes {
    ($( $(#[$doc:meta])* $name:ident = $value:literal in $packets:expr; )+) => {
        /// Why, or how well. Values from 0x80 up are failures. 0x00 has three names in the specification; the
        /// other two are [`NormalDisconnection`](Self::NormalDisconnection) and [`GrantedQoS0`](Self::GrantedQoS0).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        #[repr(u8)]
        pub enum ReasonCode { $( $(#[$doc])* $name = $value, )+ }

        impl ReasonCode {
            /// The code with this value, if the specification has one.
            pub const fn from_u8(value: u8) -> Option<Self> {
                match value { $( $value => Some(Self::$name), )+ _ => None }
            }

            /// The packets that may carry it, one bit for each packet type.
            const fn packets(self) -> u16 {
                match self { $( Self::$name => $packets, )+ }
            }
        }
    };
}

const CONNACK: u16 = 1 << PacketType::ConnAck as u16;
const PUBACK: u16 = 1 << PacketType::PubAck as u16;
const PUBREC: u16 = 1 << PacketType::PubRec as u16;
const PUBREL: u16 = 1 << PacketType::PubRel as u16;
const PUBCOMP: u16 = 1 << PacketType::PubComp as u16;
const SUBACK: u16 = 1 << PacketType::SubAck as u16;
const UNSUBACK: u16 = 1 << PacketType::UnsubAck as u16;
const DISCONNECT: u16 = 1 << PacketType::Disconnect as u16;
const AUTH: u16 = 1 << PacketType::Auth as u16;
const PUBLISHED: u16 = PUBACK | PUBREC;
const SUBSCRIBED: u16 = SUBACK | UNSUBACK;

reason_codes! {
    /// It was done. Also "Normal disconnection" and "Granted `QoS` 0".
    #[default]
    Success = 0x00 in CONNACK | PUBLISHED | PUBREL | PUBCOMP | SUBSCRIBED | DISCONNECT | AUTH;
    /// The subscription stands, with `QoS` 1 at most.
    GrantedQoS1 = 0x01 in SUBACK;
    /// The subscription stands, with `QoS` 2 at most.
    GrantedQoS2 = 0x02 in SUBACK;
    /// The client leaves and wants its will published.
    DisconnectWithWillMessage = 0x04 in DISCONNECT;
    /// Accepted, but nobody listens.
    NoMatchingSubscribers = 0x10 in PUBLISHED;
    /// There was nothing to unsubscribe from.
    NoSubscriptionExisted = 0x11 in UNSUBACK;
    /// The next step of an authentication exchange.
    ContinueAuthentication = 0x18 in AUTH;
    /// The client starts an authentication exchange on an open connection.
    ReAuthenticate = 0x19 in AUTH;
    /// A failure that its sender does not want to explain.
    UnspecifiedError = 0x80 in CONNACK | PUBLISHED | SUBSCRIBED | DISCONNECT;
    /// The bytes are not MQTT.
    MalformedPacket = 0x81 in CONNACK | DISCONNECT;
    /// The packet is well-formed and forbidden.
    ProtocolError = 0x82 in CONNACK | DISCONNECT;
    /// The packet is valid but this implementation does not take it.
    ImplementationSpecificError = 0x83 in CONNACK | PUBLISHED | SUBSCRIBED | DISCONNECT;
    /// The server does not speak this version.
    UnsupportedProtocolVersion = 0x84 in CONNACK;
    /// The client identifier is valid UTF-8 but not allowed.
    ClientIdentifierNotValid = 0x85 in CONNACK;
    /// The credentials are wrong.
    BadUserNameOrPassword = 0x86 in CONNACK;
    /// The client may not do this.
    NotAuthorized = 0x87 in CONNACK | PUBLISHED | SUBSCRIBED | DISCONNECT;
    /// The server cannot serve now.
    ServerUnavailable = 0x88 in CONNACK;
    /// The server is too busy; try again later.
    ServerBusy = 0x89 in CONNACK | DISCONNECT;
    /// The client has been banned by an operator.
    Banned = 0x8A in CONNACK;
    /// The server is going away.
    ServerShuttingDown = 0x8B in DISCONNECT;
    /// The authentication method is not supported, or not the one in use.
    BadAuthenticationMethod = 0x8C in CONNACK | DISCONNECT;
    /// Nothing was received for one and a half times the keep alive.
    KeepAliveTimeout = 0x8D in DISCONNECT;
    /// Another connection uses the same client identifier.
    SessionTakenOver = 0x8E in DISCONNECT;
    /// The topic filter is not accepted.
    TopicFilterInvalid = 0x8F in SUBSCRIBED | DISCONNECT;
    /// The topic name is not accepted.
    TopicNameInvalid = 0x90 in CONNACK | PUBLISHED | DISCONNECT;
    /// The packet identifier is already in use.
    PacketIdentifierInUse = 0x91 in PUBLISHED | SUBSCRIBED;
    /// The packet identifier is not known.
    PacketIdentifierNotFound = 0x92 in PUBREL | PUBCOMP;
    /// More unacknowledged publications than the receive maximum.
    ReceiveMaximumExceeded = 0x93 in DISCONNECT;
    /// The topic alias is zero or beyond the maximum.
    TopicAliasInvalid = 0x94 in DISCONNECT;
    /// The packet is larger than the maximum packet size.
    PacketTooLarge = 0x95 in CONNACK | DISCONNECT;
    /// Messages come too fast.
    MessageRateTooHigh = 0x96 in DISCONNECT;
    /// A limit of the server or of an operator is reached.
    QuotaExceeded = 0x97 in CONNACK | PUBLISHED | SUBACK | DISCONNECT;
    /// An operator closed the connection.
    AdministrativeAction = 0x98 in DISCONNECT;
    /// The payload is not what its format indicator says.
    PayloadFormatInvalid = 0x99 in CONNACK | PUBLISHED | DISCONNECT;
    /// The server does not retain messages.
    RetainNotSupported = 0x9A in CONNACK | DISCONNECT;
    /// The `QoS` is above the server's maximum.
    QoSNotSupported = 0x9B in CONNACK | DISCONNECT;
    /// Use another server for a while.
    UseAnotherServer = 0x9C in CONNACK | DISCONNECT;
    /// Use another server from now on.
    ServerMoved = 0x9D in CONNACK | DISCONNECT;
    /// The server has no shared subscriptions.
    SharedSubscriptionsNotSupported = 0x9E in SUBACK | DISCONNECT;
    /// Connections come too fast.
    ConnectionRateExceeded = 0x9F in CONNACK | DISCONNECT;
    /// The connection has lived as long as it may.
    MaximumConnectTime = 0xA0 in DISCONNECT;
    /// The server has no subscription identifiers.
    SubscriptionIdentifiersNotSupported = 0xA1 in SUBACK | DISCONNECT;
    /// The server has no wildcard subscriptions.
    WildcardSubscriptionsNotSupported = 0xA2 in SUBACK | DISCONNECT;
}

#[allow(non_upper_case_globals, reason = "second names of a variant, written like a variant")]
impl ReasonCode {
    /// 0x00 in a DISCONNECT: the will is dropped.
    pub const NormalDisconnection: Self = Self::Success;
    /// 0x00 in a SUBACK: the subscription stands, with `QoS` 0.
    pub const GrantedQoS0: Self = Self::Success;
}

impl ReasonCode {
    /// Whether it says that the thing was not done: 0x80 and above.
    pub const fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// Whether table 2-6 lists it for this packet.
    pub const fn allowed_in(self, packet: PacketType) -> bool {
        self.packets() & (1 << packet as u16) != 0
    }
}

impl From<ReasonCode> for u8 {
    fn from(code: ReasonCode) -> u8 {
        code as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forty_three_codes_survive_the_way_through_a_byte() {
        let known: Vec<ReasonCode> = (0..=255).filter_map(ReasonCode::from_u8).collect();
        assert_eq!(known.len(), 43);
        assert!(known.iter().all(|code| ReasonCode::from_u8(u8::from(*code)) == Some(*code)));
        assert!(known.iter().all(|code| code.packets() != 0));
    }

    #[test]
    fn failures_begin_at_0x80() {
        assert!(!ReasonCode::ReAuthenticate.is_error());
        assert!(ReasonCode::UnspecifiedError.is_error());
    }

    #[test]
    fn a_code_belongs_only_where_table_2_6_lists_it() {
        assert!(ReasonCode::PacketIdentifierNotFound.allowed_in(PacketType::PubRel));
        assert!(!ReasonCode::PacketIdentifierNotFound.allowed_in(PacketType::PubAck));
        assert!(ReasonCode::NormalDisconnection.allowed_in(PacketType::Disconnect));
        assert!(!ReasonCode::QuotaExceeded.allowed_in(PacketType::UnsubAck));
        assert!(!ReasonCode::Success.allowed_in(PacketType::Publish));
    }
}
