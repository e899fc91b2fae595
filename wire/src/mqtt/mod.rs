//! MQTT 3.1.1 and 5.0, from bytes to packets and back.
//!
//! Everything here is a view: a decoded packet borrows from the bytes it was read from, lists are checked once
//! while decoding and walked again from the raw slice, and nothing is allocated. It knows no connection and no
//! direction: whether a peer may send a given packet now is decided by who calls.
//!
//! Start with [`FixedHeader::decode`], which tells how long a packet is, then [`Packet::decode`]. Hot paths call
//! a packet's own `decode` and `encode`. Sentence numbers such as `[MQTT-3.3.1-4]` are those of MQTT 5.0 unless
//! said otherwise.

mod acknowledgement;
pub mod auth;
pub mod connack;
pub mod connect;
pub mod disconnect;
mod error;
pub mod fixed_header;
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod golden;
mod ids;
mod packet;
pub mod properties;
pub mod puback;
pub mod pubcomp;
pub mod publish;
pub mod pubrec;
pub mod pubrel;
mod reader;
mod reason_code;
pub mod suback;
pub mod subscribe;
pub mod unsuback;
pub mod unsubscribe;
mod writer;

pub use acknowledgement::AckProperties;
pub use auth::{Auth, AuthProperties};
pub use connack::{ConnAck, ConnAckProperties};
pub use connect::{Connect, ConnectProperties, Will, WillProperties};
pub use disconnect::{Disconnect, DisconnectProperties};
pub use error::DecodeError;
pub use fixed_header::{FixedHeader, MAX_REMAINING_LENGTH, PacketType};
pub use ids::{PacketId, ProtocolVersion, QoS};
pub use packet::Packet;
pub use properties::{PropertyId, SubscriptionIdentifiers, UserProperties};
pub use puback::PubAck;
pub use pubcomp::PubComp;
pub use publish::{Publish, PublishProperties};
pub use pubrec::PubRec;
pub use pubrel::PubRel;
pub use reason_code::ReasonCode;
pub use suback::SubAck;
pub use subscribe::{RetainHandling, Subscribe, SubscribeFilters, SubscribeProperties, SubscriptionOptions};
pub use unsuback::UnsubAck;
pub use unsubscribe::{Unsubscribe, UnsubscribeFilters, UnsubscribeProperties};
