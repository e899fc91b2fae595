//! PUBCOMP (section 3.7).

use super::acknowledgement::{Acknowledgement, acknowledgement_packet};
use super::{
    AckProperties, DecodeError, FixedHeader, PacketId, PacketType, ProtocolVersion, ReasonCode,
    UserProperties,
};

acknowledgement_packet! {
    /// The receiver of a `QoS` 2 PUBLISH has forgotten its packet identifier (section 3.7).
    PubComp, "PUBCOMP"
}
