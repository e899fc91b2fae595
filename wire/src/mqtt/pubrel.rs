//! PUBREL (section 3.6).

use super::acknowledgement::{Acknowledgement, acknowledgement_packet};
use super::{
    AckProperties, DecodeError, FixedHeader, PacketId, PacketType, ProtocolVersion, ReasonCode,
    UserProperties,
};

acknowledgement_packet! {
    /// The sender of a `QoS` 2 PUBLISH has seen PUBREC and will not send it again (section 3.6).
    PubRel, "PUBREL"
}
