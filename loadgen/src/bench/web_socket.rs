//! The client side of WebSocket, as far as idle connections need it: one upgrade, whole packets in single frames.
//! The fleet's devices, which have to be right in everything, use tokio-tungstenite instead.

const MASKED: u8 = 0x80;
const TWO_BYTE_LENGTH: u8 = 0x7E;

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    /// MQTT over TCP.
    Tcp,
    /// MQTT in binary frames.
    WebSocketMqtt,
    /// Holdfast's JSON protocol in text frames.
    WebSocketJson,
}

/// The request for an upgrade. The key is the one of RFC 6455: nothing here depends on it being random.
pub(super) fn upgrade(path: &str, subprotocol: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
    )
    .into_bytes()
}

/// The length of the answer's head once it is whole; `Err` if it refuses.
pub(super) fn upgraded(bytes: &[u8]) -> Result<Option<usize>, ()> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    if bytes.starts_with(b"HTTP/1.1 101") { Ok(Some(end + 4)) } else { Err(()) }
}

/// A binary frame, masked with zeros, which RFC 6455 allows and costs nothing. For payloads below 64 KiB.
pub(super) fn frame(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x82];
    match payload.len() {
        length @ 0..126 => out.push(MASKED | length as u8),
        length => {
            out.push(MASKED | TWO_BYTE_LENGTH);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out
}

/// Header and payload length of an unmasked frame; `None`: more bytes are needed.
pub(super) fn frame_lengths(bytes: &[u8]) -> Option<(usize, usize)> {
    match bytes.get(1)? & 0x7F {
        126 => Some((4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])))),
        127 => {
            let length = bytes.get(2..10)?.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
            Some((10, length))
        }
        length => Some((2, usize::from(length))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_lengths_of_the_specification() {
        assert_eq!(frame(&[7; 3]), [0x82, 0x83, 0, 0, 0, 0, 7, 7, 7]);
        assert_eq!(frame(&[7; 300])[..4], [0x82, 0xFE, 1, 44]);
        assert_eq!(frame_lengths(&[0x82, 5]), Some((2, 5)));
        assert_eq!(frame_lengths(&[0x82, 126, 1]), None);
        assert_eq!(frame_lengths(&[0x82, 126, 1, 44]), Some((4, 300)));
        assert_eq!(frame_lengths(&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]), Some((10, 65_536)));
    }

    #[test]
    fn an_upgrade_is_taken_or_refused_once_the_head_is_whole() {
        assert_eq!(upgraded(b"HTTP/1.1 101 Switching Protocols\r\n"), Ok(None));
        assert_eq!(upgraded(b"HTTP/1.1 101 Switching Protocols\r\n\r\nrest"), Ok(Some(36)));
        assert_eq!(upgraded(b"HTTP/1.1 503 Busy\r\n\r\n"), Err(()));
    }
}
