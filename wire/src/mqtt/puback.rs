//! PUBACK (section 3.4).

use super::acknowledgement::{Acknowledgement, acknowledgement_packet};
use super::{
    AckProperties, DecodeError, FixedHeader, PacketId, PacketType, ProtocolVersion, ReasonCode,
    UserProperties,
};

acknowledgement_packet! {
    /// The receiver of a `QoS` 1 PUBLISH has taken it, or says why not (section 3.4).
    PubAck, "PUBACK"
}
