//! MQTT over WebSocket: the upgrade, packets in frames however they are cut, and the closing handshake.

use holdfast_engine::{CloseReason, Listener};
use holdfast_wire::mqtt::{Packet, ProtocolVersion};

use crate::client::Client;
use crate::packets::{AT_LEAST_ONCE, accepted, connect, message, qos0, suback, subscribe};
use crate::stage::Shard;

/// What a client's frame is.
pub(crate) const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// A request that asks for a WebSocket here, of this subprotocol.
pub(crate) fn upgrade(path: &str, subprotocol: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
    )
    .into_bytes()
}

/// A client's frame, masked as it must be. Bit 7 of `first` is FIN.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [1, 2, 3, 4];
    let mut out = vec![first];
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length => {
            // Masked, and the length follows in two bytes.
            out.push(0xFE);
            out.extend((length as u16).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// A frame that is a whole message.
pub(crate) fn whole(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(0x80 | opcode, payload)
}

/// Cuts the first frame off what a client heard: its opcode and payload.
#[track_caller]
pub(crate) fn cut_frame(heard: &mut Vec<u8>) -> (u8, Vec<u8>) {
    let (header, length) = match heard[1] {
        126 => (4, usize::from(u16::from_be_bytes([heard[2], heard[3]]))),
        length @ 0..126 => (2, usize::from(length)),
        _ => panic!("a server's frame is not masked, and none here is that long"),
    };
    assert_eq!(heard[0] & 0xF0, 0x80, "a server's frame is whole");
    let opcode = heard[0] & 0x0F;
    let frame: Vec<_> = heard.drain(..header + length).collect();
    (opcode, frame[header..].to_vec())
}

/// A WebSocket that was asked for and granted.
#[track_caller]
pub(crate) fn opens(shard: &Shard, path: &str, subprotocol: &str) -> Client {
    let client = shard.accepts(Listener::WebSocket, ProtocolVersion::V5).expect("there is room");
    client.sends_bytes(&upgrade(path, subprotocol));
    client
}

/// Everything that was heard behind the upgrade's response.
#[track_caller]
pub(crate) fn heard_behind_upgrade(client: &Client) -> Vec<u8> {
    let heard = client.takes_bytes();
    let end = heard.windows(4).position(|window| window == b"\r\n\r\n").expect("a response") + 4;
    assert!(heard.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&heard));
    heard[end..].to_vec()
}

#[track_caller]
fn connected(shard: &Shard) -> Client {
    let client = opens(shard, "/mqtt", "mqtt");
    assert_eq!(heard_behind_upgrade(&client), b"");
    client.sends_bytes(&whole(BINARY, &client.bytes_of(&connect("c"))));
    let (opcode, packet) = cut_frame(&mut client.takes_bytes());
    assert_eq!((opcode, packet), (BINARY, client.bytes_of(&accepted())));
    client
}

#[test]
fn each_packet_comes_in_a_binary_frame_of_its_own() {
    let shard = Shard::new();
    let client = connected(&shard);
    client.sends_bytes(&whole(BINARY, &client.bytes_of(&subscribe(1, &[("a", AT_LEAST_ONCE)]))));
    shard.bridge(0).publishes(&message("a", &"x".repeat(300)));
    let mut heard = client.takes_bytes();
    assert_eq!(cut_frame(&mut heard), (BINARY, client.bytes_of(&suback(1, &[1]))));
    let (opcode, packet) = cut_frame(&mut heard);
    assert_eq!((opcode, packet.len()), (BINARY, 3 + 2 + 1 + 2 + 1 + 300));
    assert_eq!(heard, b"");
    assert!(shard.device("c").websocket);
}

#[test]
fn packets_may_be_cut_into_frames_in_any_way() {
    let shard = Shard::new();
    let client = connected(&shard);
    let mut packets = Vec::new();
    for payload in ["1", "2", "3"] {
        packets.extend(client.bytes_of(&qos0("t", payload)));
    }
    // A message of two frames, a ping between them, and bytes one at a time.
    let mut bytes = frame(BINARY, &packets[..5]);
    bytes.extend(whole(PING, b"still there?"));
    bytes.extend(frame(0x80, &packets[5..9]));
    bytes.extend(whole(BINARY, &packets[9..]));
    for byte in bytes {
        client.sends_bytes(&[byte]);
    }
    for payload in ["1", "2", "3"] {
        shard.bridge(0).hears_uplink("t", payload);
    }
    assert_eq!(cut_frame(&mut client.takes_bytes()), (PONG, b"still there?".to_vec()));
}

#[test]
fn everything_may_come_with_one_read() {
    let shard = Shard::new();
    let client = shard.accepts(Listener::WebSocket, ProtocolVersion::V5).expect("there is room");
    let mut bytes = upgrade("/mqtt", "mqtt");
    bytes.extend(whole(BINARY, &client.bytes_of(&connect("c"))));
    bytes.extend(whole(BINARY, &client.bytes_of(&Packet::PingReq)));
    client.sends_bytes(&bytes);
    let mut heard = heard_behind_upgrade(&client);
    assert_eq!(cut_frame(&mut heard).1, client.bytes_of(&accepted()));
    assert_eq!(cut_frame(&mut heard).1, client.bytes_of(&Packet::PingResp));
}

#[test]
fn a_request_that_comes_in_pieces_is_put_together() {
    let shard = Shard::new();
    let client = shard.accepts(Listener::WebSocket, ProtocolVersion::V5).expect("there is room");
    for byte in upgrade("/mqtt", "mqtt") {
        client.hears_nothing();
        client.sends_bytes(&[byte]);
    }
    heard_behind_upgrade(&client);
}

#[test]
fn requests_for_something_else_are_refused() {
    let shard = Shard::new();
    let refusals: [(Vec<u8>, &str); 6] = [
        (upgrade("/mqtt", "chat"), "HTTP/1.1 400"),
        (upgrade("/elsewhere", "mqtt"), "HTTP/1.1 404"),
        (upgrade("/v1/devices/d/socket", "mqtt"), "HTTP/1.1 400"),
        (b"POST /mqtt HTTP/1.1\r\n\r\n".to_vec(), "HTTP/1.1 405"),
        (b"GET /mqtt HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), "HTTP/1.1 4"),
        (vec![0x10, 0x0C], "HTTP/1.1 400"),
    ];
    for (request, expected) in refusals {
        let client = shard.accepts(Listener::WebSocket, ProtocolVersion::V5).expect("there is room");
        client.sends_bytes(&request);
        let heard = String::from_utf8(client.takes_bytes()).expect("HTTP");
        assert!(heard.starts_with(expected), "{heard}");
        client.hears_the_end(CloseReason::UpgradeRefused);
    }
}

#[test]
fn a_close_frame_is_answered_and_counts_as_no_goodbye() {
    let shard = Shard::new();
    let client = connected(&shard);
    client.sends_bytes(&whole(CLOSE, &1000_u16.to_be_bytes()));
    let mut heard = client.takes_bytes();
    let last = std::iter::from_fn(|| (!heard.is_empty()).then(|| cut_frame(&mut heard))).last();
    assert_eq!(last, Some((CLOSE, 1000_u16.to_be_bytes().to_vec())));
    client.hears_the_end(CloseReason::PeerClosed);
}

#[test]
fn breaches_of_the_websocket_protocol_end_it_with_the_fitting_code() {
    let shard = Shard::new();
    let mut unmasked = vec![0x82, 2];
    unmasked.extend([0xC0, 0]);
    let breaches: [(Vec<u8>, u16, CloseReason); 4] = [
        (whole(TEXT, b"text"), 1003, CloseReason::WebSocketWrongKind),
        (unmasked, 1002, CloseReason::WebSocketProtocolError),
        (whole(0x3, b"reserved"), 1002, CloseReason::WebSocketProtocolError),
        (whole(BINARY, &[0x00, 0x00]), 1002, CloseReason::MalformedPacket),
    ];
    for (bytes, code, reason) in breaches {
        let client = connected(&shard);
        client.sends_bytes(&bytes);
        let mut heard = client.takes_bytes();
        let last = std::iter::from_fn(|| (!heard.is_empty()).then(|| cut_frame(&mut heard))).last();
        let (opcode, payload) = last.expect("a close frame");
        assert_eq!((opcode, &payload[..2]), (CLOSE, &code.to_be_bytes()[..]), "{reason:?}");
        client.hears_the_end(reason);
    }
}

#[test]
fn an_upgrade_must_be_finished_in_time() {
    let shard = Shard::new();
    let client = shard.accepts(Listener::WebSocket, ProtocolVersion::V5).expect("there is room");
    client.sends_bytes(b"GET /mqtt HTTP/1.1\r\n");
    let upgraded = opens(&shard, "/mqtt", "mqtt");
    heard_behind_upgrade(&upgraded);
    shard.clock_advances_ms(10_500);
    client.hears_the_end(CloseReason::ConnectTimeout);
    assert!(!upgraded.takes_bytes().is_empty(), "a close frame");
    upgraded.hears_the_end(CloseReason::ConnectTimeout);
    assert_eq!(shard.stage().engine.half_open(), 0);
}
