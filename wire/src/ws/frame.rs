//! Writing: the server's frames, never masked, never fragmented (RFC 6455, section 5.1).
//!
//! A data frame is [`write_header`] followed by the payload, which the caller appends itself so that a fan-out
//! need not copy it twice.

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::OpCode;

use super::CloseCode;

/// Bytes of the longest header a server writes: two, and a length of eight.
pub const HEADER_BYTES_MAX: usize = 10;

/// Bytes that the payload of a control frame may have (RFC 6455, section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment of the message begun before.
    Continuation = 0x0,
    /// The first fragment of a text message.
    Text = 0x1,
    /// The first fragment of a binary message.
    Binary = 0x2,
    /// The peer closes, or answers a close.
    Close = 0x8,
    /// To be answered with a pong of the same payload.
    Ping = 0x9,
    /// The answer to a ping, or a sign of life.
    Pong = 0xA,
}

/// Appends the header of a frame that is a whole message, or a control frame, of `payload_len` bytes.
pub fn write_header(out: &mut Vec<u8>, opcode: Opcode, payload_len: usize) {
    let header = FrameHeader { opcode: OpCode::from(opcode as u8), ..FrameHeader::default() };
    header.format(payload_len as u64, out).expect("writing to a Vec does not fail");
}

/// Bytes that [`write_header`] appends for a payload of this length.
pub const fn header_len(payload_len: usize) -> usize {
    match payload_len {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => HEADER_BYTES_MAX,
    }
}

/// Appends a close frame. Without a code its payload is empty and `reason` is ignored; a reason beyond 123
/// bytes is cut at a character.
pub fn write_close(out: &mut Vec<u8>, code: Option<CloseCode>, reason: &str) {
    let Some(code) = code else {
        write_header(out, Opcode::Close, 0);
        return;
    };
    let reason = &reason[..reason.floor_char_boundary(CONTROL_BYTES_MAX - 2)];
    write_header(out, Opcode::Close, 2 + reason.len());
    out.extend_from_slice(&code.code().to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// Appends a ping. A payload beyond 125 bytes is cut.
pub fn write_ping(out: &mut Vec<u8>, payload: &[u8]) {
    write_control(out, Opcode::Ping, payload);
}

/// Appends a pong, which repeats the payload of the ping that it answers. A payload beyond 125 bytes is cut.
pub fn write_pong(out: &mut Vec<u8>, payload: &[u8]) {
    write_control(out, Opcode::Pong, payload);
}

fn write_control(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    let payload = &payload[..payload.len().min(CONTROL_BYTES_MAX)];
    write_header(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(opcode: Opcode, payload_len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        write_header(&mut out, opcode, payload_len);
        out
    }

    /// RFC 6455, section 5.7.
    #[test]
    fn the_examples_of_the_rfc_are_written_byte_for_byte() {
        assert_eq!(header(Opcode::Text, 5), [0x81, 0x05]);
        assert_eq!(header(Opcode::Binary, 256), [0x82, 0x7E, 0x01, 0x00]);
        assert_eq!(header(Opcode::Binary, 65536), [0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0]);
        let mut ping = Vec::new();
        write_ping(&mut ping, b"Hello");
        assert_eq!(ping, *b"\x89\x05Hello");
        let mut pong = Vec::new();
        write_pong(&mut pong, b"Hello");
        assert_eq!(pong, *b"\x8A\x05Hello");
    }

    #[test]
    fn the_length_of_a_header_is_known_before_it_is_written() {
        for payload_len in [0, 1, 125, 126, 127, 65535, 65536, 16 << 20] {
            assert_eq!(header(Opcode::Binary, payload_len).len(), header_len(payload_len), "{payload_len}");
        }
    }

    #[test]
    fn a_close_frame_carries_its_code_and_reason() {
        let mut out = Vec::new();
        write_close(&mut out, Some(CloseCode::GOING_AWAY), "drain");
        assert_eq!(out, *b"\x88\x07\x03\xE9drain");
    }

    #[test]
    fn a_close_frame_without_a_code_is_empty() {
        let mut out = Vec::new();
        write_close(&mut out, None, "never sent");
        assert_eq!(out, [0x88, 0x00]);
    }

    #[test]
    fn a_reason_too_long_for_a_close_frame_is_cut_at_a_character() {
        let mut out = Vec::new();
        write_close(&mut out, Some(CloseCode::NORMAL), &"é".repeat(100));
        assert_eq!(out[1], 124, "the 62nd two-byte character would end at byte 124 of 123");
        assert!(std::str::from_utf8(&out[4..]).is_ok());
    }
}
