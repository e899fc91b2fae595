//! Close codes: which may travel, and the names of those that Holdfast sends (RFC 6455, section 7.4).

use std::fmt;

/// A close code that may stand in a close frame.
///
/// 1005, 1006 and 1015 exist only inside an API and never on the wire; everything below 1000, the unassigned
/// part of 1000-2999 and everything from 5000 on is refused as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The purpose of the connection has been fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// The node goes down, or its devices move elsewhere.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke the WebSocket protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// Data of a kind that is not accepted here, such as text where MQTT is spoken ([MQTT-6.0.0-1]).
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// The content of a message contradicts its type: text that is not UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// A rule of this server was broken for which there is no better code.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// The message is larger than this connection may send.
    pub const MESSAGE_TOO_BIG: Self = Self(1009);
    /// The server met a condition that it did not expect.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// The service restarts; the client should come back after a random delay.
    pub const SERVICE_RESTART: Self = Self(1012);
    /// The service is overloaded; the client should come back later.
    pub const TRY_AGAIN_LATER: Self = Self(1013);

    /// The code, if one may be sent or received in a close frame: 1000-1003, 1007-1014, 3000-4999.
    pub const fn new(code: u16) -> Option<Self> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(Self(code)),
            _ => None,
        }
    }

    /// The number on the wire.
    pub const fn code(self) -> u16 {
        self.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_may_not_travel_are_refused() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert_eq!(CloseCode::new(code), None, "{code}");
        }
    }

    #[test]
    fn assigned_registered_and_private_codes_are_taken() {
        for code in [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 3999, 4000, 4999] {
            assert_eq!(CloseCode::new(code).map(CloseCode::code), Some(code));
        }
    }
}
