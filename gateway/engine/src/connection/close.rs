//! Every way to lose a connection is one row of this table.

use holdfast_wire::mqtt::{DecodeError, ReasonCode};
use holdfast_wire::ws;

/// How loud a close is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Every day, per device.
    Debug,
    /// An operator may want to see it.
    Info,
    /// Somebody does something wrong.
    Warn,
}

macro_rules! close_reasons {
    ($( $(#[$doc:meta])* $name:ident, $label:literal, $code:expr, $ws:expr, $level:ident; )+) => {
        /// Why a connection ended.
        ///
        /// The columns: what an MQTT 5 peer hears in DISCONNECT (or CONNACK before the session stands; `None`: nothing is sent), the
        /// WebSocket close code, the level it is logged with. A 3.1.1 peer hears a CONNACK return code before
        /// its session stands and just the end of the connection afterwards (MQTT 3.1.1 has no DISCONNECT from the server).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum CloseReason { $( $(#[$doc])* $name, )+ }

        impl CloseReason {
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();
            /// All of them, in the order of their discriminants.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )+ ];

            /// Value of the label `reason` of the metric.
            pub const fn label(self) -> &'static str {
                match self { $( Self::$name => $label, )+ }
            }

            /// What an MQTT 5 peer hears.
            pub const fn reason_code(self) -> Option<ReasonCode> {
                match self { $( Self::$name => $code, )+ }
            }

            /// What a WebSocket peer hears.
            pub const fn close_code(self) -> ws::CloseCode {
                match self { $( Self::$name => $ws, )+ }
            }

            /// How loud it is in the log.
            pub const fn level(self) -> Level {
                match self { $( Self::$name => Level::$level, )+ }
            }
        }
    };
}

use ReasonCode as R;
use ws::CloseCode as W;

close_reasons! {
    /// The client said goodbye: DISCONNECT, or a close frame of a JSON device.
    ClientDisconnected, "client_disconnected", None, W::NORMAL, Debug;
    /// The client said goodbye and asked for its will (0x04).
    ClientDisconnectedWithWill, "client_disconnected_with_will", None, W::NORMAL, Debug;
    /// The socket ended without a goodbye.
    PeerClosed, "peer_closed", None, W::GOING_AWAY, Debug;
    /// The socket was reset.
    PeerReset, "peer_reset", None, W::GOING_AWAY, Debug;
    /// The peer's kernel acknowledged nothing for `tcp.user_timeout_ms`.
    PeerTimedOut, "peer_timed_out", None, W::GOING_AWAY, Debug;
    /// Nothing came for one and a half times the keep alive (MQTT-3.1.2-22).
    KeepAliveTimeout, "keep_alive_timeout", Some(R::KeepAliveTimeout), W::GOING_AWAY, Debug;
    /// The CONNECT, or the upgrade before it, was not finished in time.
    ConnectTimeout, "connect_timeout", None, W::POLICY_VIOLATION, Info;
    /// The same client id connected elsewhere (MQTT-3.1.4-3).
    SessionTakenOver, "session_taken_over", Some(R::SessionTakenOver), W::POLICY_VIOLATION, Info;
    /// The node drains.
    ServerShuttingDown, "server_shutting_down", Some(R::ServerShuttingDown), W::SERVICE_RESTART, Debug;
    /// An operator disconnected the client.
    AdministrativeAction, "administrative_action", Some(R::AdministrativeAction), W::POLICY_VIOLATION, Info;
    /// The bytes are not MQTT.
    MalformedPacket, "malformed_packet", Some(R::MalformedPacket), W::PROTOCOL_ERROR, Warn;
    /// Well-formed and forbidden.
    ProtocolError, "protocol_error", Some(R::ProtocolError), W::PROTOCOL_ERROR, Warn;
    /// The first packet is not CONNECT (MQTT-3.1.0-1).
    NotConnectFirst, "not_connect_first", None, W::PROTOCOL_ERROR, Warn;
    /// A second CONNECT (MQTT-3.1.0-2).
    SecondConnect, "second_connect", Some(R::ProtocolError), W::PROTOCOL_ERROR, Warn;
    /// A packet that only a server may send.
    ServerPacketFromClient, "server_packet_from_client", Some(R::ProtocolError), W::PROTOCOL_ERROR, Warn;
    /// Neither 3.1.1 nor 5 (MQTT-3.1.2-2).
    UnsupportedProtocolVersion, "unsupported_protocol_version", Some(R::UnsupportedProtocolVersion), W::PROTOCOL_ERROR, Info;
    /// The client id is too long, or empty where it may not be (MQTT-3.1.3-8).
    ClientIdentifierNotValid, "client_identifier_not_valid", Some(R::ClientIdentifierNotValid), W::POLICY_VIOLATION, Info;
    /// An authentication method that is not known here (MQTT-4.12.0-1).
    BadAuthenticationMethod, "bad_authentication_method", Some(R::BadAuthenticationMethod), W::POLICY_VIOLATION, Info;
    /// The packet is larger than `mqtt.maximum_packet_size`.
    PacketTooLarge, "packet_too_large", Some(R::PacketTooLarge), W::MESSAGE_TOO_BIG, Warn;
    /// More unacknowledged publications than `mqtt.receive_maximum` (MQTT-3.3.4-9).
    ReceiveMaximumExceeded, "receive_maximum_exceeded", Some(R::ReceiveMaximumExceeded), W::POLICY_VIOLATION, Warn;
    /// A topic alias of 0, beyond the maximum, or unknown (MQTT-3.3.2-8, MQTT-3.3.2-9).
    TopicAliasInvalid, "topic_alias_invalid", Some(R::TopicAliasInvalid), W::PROTOCOL_ERROR, Warn;
    /// A topic name with wildcards or the like.
    TopicNameInvalid, "topic_name_invalid", Some(R::TopicNameInvalid), W::PROTOCOL_ERROR, Warn;
    /// A topic filter against the grammar.
    TopicFilterInvalid, "topic_filter_invalid", Some(R::TopicFilterInvalid), W::PROTOCOL_ERROR, Warn;
    /// A QoS above `mqtt.maximum_qos` (MQTT-3.2.2-11).
    QosNotSupported, "qos_not_supported", Some(R::QoSNotSupported), W::POLICY_VIOLATION, Warn;
    /// RETAIN where `mqtt.retain_available` is false (MQTT-3.2.2-14).
    RetainNotSupported, "retain_not_supported", Some(R::RetainNotSupported), W::POLICY_VIOLATION, Warn;
    /// A 3.1.1 client's publication was refused for good; that version has no other way to say so.
    PublicationRefused, "publication_refused", Some(R::ImplementationSpecificError), W::POLICY_VIOLATION, Warn;
    /// The client does not read what it is sent, and the bound on what waits for it is reached.
    SlowConsumer, "slow_consumer", Some(R::QuotaExceeded), W::POLICY_VIOLATION, Warn;
    /// The session store cannot be reached, so the session cannot be opened.
    StoreUnavailable, "store_unavailable", Some(R::ServerUnavailable), W::TRY_AGAIN_LATER, Warn;
    /// Another owner opened the session, as the store says.
    Fenced, "fenced", Some(R::SessionTakenOver), W::POLICY_VIOLATION, Info;
    /// The node was declared dead while it did not run or could not reach the store: its sessions belong to whoever opens them next.
    NodeBuried, "node_buried", Some(R::ServerShuttingDown), W::SERVICE_RESTART, Debug;
    /// The HTTP request is not an upgrade we take.
    UpgradeRefused, "upgrade_refused", None, W::PROTOCOL_ERROR, Warn;
    /// The peer broke the WebSocket protocol (1002).
    WebSocketProtocolError, "websocket_protocol_error", Some(R::ProtocolError), W::PROTOCOL_ERROR, Warn;
    /// A WebSocket text is not UTF-8 (1007).
    WebSocketInvalidText, "websocket_invalid_text", Some(R::MalformedPacket), W::INVALID_PAYLOAD, Warn;
    /// A text frame where MQTT wants binary ones (MQTT-6.0.0-1), or the other way round.
    WebSocketWrongKind, "websocket_wrong_kind", Some(R::MalformedPacket), W::UNSUPPORTED_DATA, Warn;
    /// A WebSocket message is longer than allowed (1009).
    WebSocketMessageTooLarge, "websocket_message_too_large", Some(R::PacketTooLarge), W::MESSAGE_TOO_BIG, Warn;
}

impl From<DecodeError> for CloseReason {
    fn from(error: DecodeError) -> Self {
        match error.reason_code() {
            R::UnsupportedProtocolVersion => Self::UnsupportedProtocolVersion,
            R::ClientIdentifierNotValid => Self::ClientIdentifierNotValid,
            R::TopicAliasInvalid => Self::TopicAliasInvalid,
            R::TopicNameInvalid => Self::TopicNameInvalid,
            R::TopicFilterInvalid => Self::TopicFilterInvalid,
            R::ProtocolError => Self::ProtocolError,
            _ => Self::MalformedPacket,
        }
    }
}

impl From<ws::Error> for CloseReason {
    fn from(error: ws::Error) -> Self {
        match error.close_code() {
            W::INVALID_PAYLOAD => Self::WebSocketInvalidText,
            W::MESSAGE_TOO_BIG => Self::WebSocketMessageTooLarge,
            _ => Self::WebSocketProtocolError,
        }
    }
}

impl CloseReason {
    /// Whether the client's will is to be published, by whomever: not when it said goodbye properly (MQTT-3.14.4-3).
    pub(crate) const fn leaves_will(self) -> bool {
        !matches!(self, Self::ClientDisconnected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_label_of_its_own_and_its_place_in_the_counters() {
        for (index, reason) in CloseReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert_eq!(CloseReason::ALL.iter().filter(|other| other.label() == reason.label()).count(), 1);
        }
    }
}
