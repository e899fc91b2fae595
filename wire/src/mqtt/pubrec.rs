//! PUBREC (section 3.5).

use super::acknowledgement::{Acknowledgement, acknowledgement_packet};
use super::{
    AckProperties, DecodeError, FixedHeader, PacketId, PacketType, ProtocolVersion, ReasonCode,
    UserProperties,
};

acknowledgement_packet! {
    /// The receiver of a `QoS` 2 PUBLISH has taken it, or says why not (section 3.5).
    PubRec, "PUBREC"
}
