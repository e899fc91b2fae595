//! What a peer can do wrong on an open WebSocket, and the close code it hears.

use super::CloseCode;

/// The peer broke the protocol; the connection is failed with [`Error::close_code`] (RFC 6455, section 7.1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A reserved bit is set though no extension was negotiated.
    #[error("a reserved bit is set and no extension was negotiated")]
    ReservedBits,
    /// The opcode is not assigned.
    #[error("opcode {0} is reserved")]
    ReservedOpcode(u8),
    /// A client must mask every frame.
    #[error("the frame is not masked")]
    NotMasked,
    /// Ping, pong and close are never fragmented.
    #[error("a control frame is fragmented")]
    FragmentedControl,
    /// Control frames carry 125 bytes at most.
    #[error("a control frame is longer than 125 bytes")]
    ControlTooLong,
    /// A continuation frame without a message to continue.
    #[error("a continuation frame continues nothing")]
    NothingToContinue,
    /// A new message begins before the last fragment of the former one.
    #[error("a message begins inside another one")]
    MessageInsideMessage,
    /// The length is not written in its shortest form, or its highest bit is set.
    #[error("the payload length is not in its shortest form")]
    LengthForm,
    /// The message is larger than the connection's bound, or would be with the frame just announced.
    #[error("the message is larger than {0} bytes")]
    MessageTooBig(u32),
    /// Text, or the reason of a close frame, is not UTF-8.
    #[error("text is not UTF-8")]
    InvalidUtf8,
    /// A close frame whose payload is one byte long.
    #[error("a close frame carries half a code")]
    HalfCloseCode,
    /// A close code that may not travel.
    #[error("{0} is not a close code that may be sent")]
    CloseCode(u16),
}

impl Error {
    /// The code of the close frame that answers this.
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::MessageTooBig(_) => CloseCode::MESSAGE_TOO_BIG,
            Self::InvalidUtf8 => CloseCode::INVALID_PAYLOAD,
            Self::ReservedBits
            | Self::ReservedOpcode(_)
            | Self::NotMasked
            | Self::FragmentedControl
            | Self::ControlTooLong
            | Self::NothingToContinue
            | Self::MessageInsideMessage
            | Self::LengthForm
            | Self::HalfCloseCode
            | Self::CloseCode(_) => CloseCode::PROTOCOL_ERROR,
        }
    }
}
