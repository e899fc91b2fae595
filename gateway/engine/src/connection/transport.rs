//! How a packet or message is wrapped for its connection: bare on TCP, one WebSocket frame each on WebSocket.

use holdfast_wire::ws::Opcode;
use holdfast_wire::ws::frame::{HEADER_BYTES_MAX, header_len, write_header};

use crate::input::ConnectionId;
use crate::outbox::Outbox;

/// The wrapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Framing {
    Plain,
    /// MQTT over WebSocket (MQTT-6.0.0-1).
    Binary,
    /// JSON over WebSocket.
    Text,
}

impl Framing {
    /// Appends one packet or message, wrapped.
    pub(crate) fn send(self, outbox: &mut Outbox, id: ConnectionId, write: impl FnOnce(&mut Vec<u8>)) {
        outbox.append(id, |out| self.wrap(out, write));
    }

    /// Writes one packet or message, wrapped. Its length is known only afterwards, so room is left for the longest header and closed up.
    pub(crate) fn wrap(self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let opcode = match self {
            Self::Plain => return write(out),
            Self::Binary => Opcode::Binary,
            Self::Text => Opcode::Text,
        };
        let start = out.len();
        out.resize(start + HEADER_BYTES_MAX, 0);
        write(out);
        let length = out.len() - start - HEADER_BYTES_MAX;
        let mut header = Vec::with_capacity(HEADER_BYTES_MAX);
        write_header(&mut header, opcode, length);
        out.copy_within(start + HEADER_BYTES_MAX.., start + header.len());
        out.truncate(start + header.len() + length);
        out[start..start + header.len()].copy_from_slice(&header);
    }

    /// Appends the header for a payload of known length.
    pub(crate) fn write_header(self, out: &mut Vec<u8>, length: usize) {
        match self {
            Self::Plain => {}
            Self::Binary => write_header(out, Opcode::Binary, length),
            Self::Text => write_header(out, Opcode::Text, length),
        }
    }

    /// Bytes that the wrapping adds.
    pub(crate) fn overhead(self, length: usize) -> usize {
        match self {
            Self::Plain => 0,
            Self::Binary | Self::Text => header_len(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_any_length_has_the_shortest_header() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let mut out = b"before".to_vec();
            Framing::Binary.wrap(&mut out, |out| out.resize(out.len() + length, 7));
            let mut expected = b"before".to_vec();
            Framing::Binary.write_header(&mut expected, length);
            expected.resize(expected.len() + length, 7);
            assert_eq!(out, expected);
            assert_eq!(out.len(), 6 + length + Framing::Binary.overhead(length));
        }
    }
}
