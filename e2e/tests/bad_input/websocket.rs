//! Upgrades and WebSocket frames as they should not be, for both subprotocols.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use holdfast_e2e::packet::{Connect, Version};
use holdfast_e2e::wait::PATIENCE;
use holdfast_e2e::{Gateway, Setup, Witness};

use super::{Memory, assert_closed, closed};

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const JSON_PATH: &str = "/v1/devices/bad/socket";

/// What is wrong, the path, the bytes after the upgrade, the close code that is due, the reason that is counted.
type Case = (&'static str, &'static str, Vec<u8>, u16, &'static [&'static str]);

#[test]
fn a_request_that_is_no_upgrade_is_answered_in_http() {
    let gateway = Gateway::start();
    let cases = [
        ("another path", request("GET", "/nothing", &["Upgrade: websocket", KEY, VERSION, MQTT]), 404),
        ("another method", request("POST", "/mqtt", &["Upgrade: websocket", KEY, VERSION, MQTT]), 405),
        (
            "an old version",
            request("GET", "/mqtt", &["Upgrade: websocket", KEY, "Sec-WebSocket-Version: 8", MQTT]),
            426,
        ),
        ("no upgrade", request("GET", "/mqtt", &[]), 426),
        ("no key", request("GET", "/mqtt", &["Upgrade: websocket", VERSION, MQTT]), 400),
        (
            "a short key",
            request("GET", "/mqtt", &["Upgrade: websocket", "Sec-WebSocket-Key: abc", VERSION, MQTT]),
            400,
        ),
        ("no HTTP", "MQTT please\r\n\r\n".to_owned(), 400),
        ("a head of 100 KB", request("GET", "/mqtt", &[&format!("X: {}", "x".repeat(100_000))]), 431),
        ("300 headers", request("GET", "/mqtt", &vec!["X: y"; 300]), 431),
    ];
    for (name, request, status) in cases {
        let before = closed(&gateway, &["upgrade_refused"]);
        let mut socket = dial(gateway.ws());
        // A peer that is refused early may not get rid of all of it.
        let _ = socket.write_all(request.as_bytes());
        let answer = read_to_end(&mut socket);
        // A reset may overtake the answer to a head that is far too large.
        if status != 431 || !answer.is_empty() {
            // Where two things are wrong at once, either may be said.
            let allowed = if status == 426 || name == "no HTTP" { vec![400, 405, 426] } else { vec![status] };
            assert!(allowed.contains(&http_status(&answer)), "{name}: {}", String::from_utf8_lossy(&answer));
        }
        assert_closed(&gateway, &["upgrade_refused"], before, 1, name);
    }
}

#[test]
fn frames_against_the_protocol_end_with_their_close_code() {
    let gateway = Setup::new().set("mqtt.maximum_packet_size", 4096).start();
    let witness = Witness::start(gateway.mqtt());
    let memory = Memory::of(&gateway);
    let connect = Connect::new(Version::V311, "bad-ws").encode();
    let frame_json = br#"{"type":"ping"}"#;
    let protocol: &'static [&str] = &["websocket_protocol_error"];
    let cases: Vec<Case> = vec![
        ("an unmasked frame", "/mqtt", unmasked(BINARY, &connect), 1002, protocol),
        ("a reserved bit", "/mqtt", masked(BINARY | 0x40, &connect), 1002, protocol),
        ("an opcode that is none", "/mqtt", masked(0x83, &connect), 1002, protocol),
        ("a continuation of nothing", "/mqtt", masked(0x80, &connect), 1002, protocol),
        ("a ping in fragments", "/mqtt", masked(0x09, b"x"), 1002, protocol),
        ("a ping of 126 bytes", "/mqtt", masked(0x89, &[0; 126]), 1002, protocol),
        ("a close code that may not be sent", "/mqtt", masked(0x88, &[0x03, 0xED]), 1002, protocol),
        ("MQTT as text", "/mqtt", masked(TEXT, b"MQTT"), 1003, &["websocket_wrong_kind"]),
        ("JSON as binary", JSON_PATH, masked(BINARY, frame_json), 1003, &["websocket_wrong_kind"]),
        (
            "text that is not UTF-8",
            JSON_PATH,
            masked(TEXT, b"\xce\xba\xff"),
            1007,
            &["websocket_invalid_text"],
        ),
        (
            "a message that is too large",
            JSON_PATH,
            // 268 MB announced; the peer keeps them to itself.
            vec![TEXT, 0xFF, 0, 0, 0, 0, 0x0F, 0xFF, 0xFF, 0xFF, 1, 2, 3, 4],
            1009,
            &["websocket_message_too_large"],
        ),
    ];
    for (name, path, bytes, code, reasons) in cases {
        let before = closed(&gateway, reasons);
        let mut socket = open(gateway.ws(), path);
        socket.write_all(&bytes).unwrap();
        let heard = read_to_end(&mut socket);
        assert_eq!(last_close_code(&heard), Some(code), "{name}: {heard:02x?}");
        assert_closed(&gateway, reasons, before, 1, name);
    }
    memory.assert_flat(8);
    witness.finish();
}

#[test]
fn bad_mqtt_inside_good_frames_is_bad_mqtt() {
    let gateway = Gateway::start();
    let cases: [(&str, &[u8], &[&str]); 3] = [
        ("garbage", &[0, 0, 0, 0], &["malformed_packet"]),
        ("PINGREQ first", &[0xC0, 0], &["not_connect_first"]),
        ("268 MB announced", &[0x10, 0xFF, 0xFF, 0xFF, 0x7F], &["packet_too_large"]),
    ];
    for (name, bytes, reasons) in cases {
        let before = closed(&gateway, reasons);
        let mut socket = open(gateway.ws(), "/mqtt");
        socket.write_all(&masked(BINARY, bytes)).unwrap();
        read_to_end(&mut socket);
        assert_closed(&gateway, reasons, before, 1, name);
    }
}

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const VERSION: &str = "Sec-WebSocket-Version: 13";
const MQTT: &str = "Sec-WebSocket-Protocol: mqtt";

fn request(method: &str, path: &str, headers: &[&str]) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n{}\r\n\r\n", headers.join("\r\n"))
}

fn dial(ws: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect_timeout(&ws, PATIENCE).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A socket that has been upgraded.
fn open(ws: SocketAddr, path: &str) -> TcpStream {
    let mut socket = dial(ws);
    let protocol = if path == "/mqtt" { MQTT } else { "Sec-WebSocket-Protocol: holdfast.v1" };
    socket
        .write_all(request("GET", path, &["Upgrade: websocket", KEY, VERSION, protocol]).as_bytes())
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert_eq!(http_status(&head), 101, "{}", String::from_utf8_lossy(&head));
    // RFC 6455, 1.3, has this key and its answer.
    assert!(String::from_utf8_lossy(&head).contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    socket
}

/// A frame with its mask. `first` is FIN, the reserved bits and the opcode.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        long => {
            frame.push(0x80 | 0x7E);
            frame.extend_from_slice(&(long as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, payload.len() as u8][..], payload].concat()
}

/// Everything until the end, orderly or not.
fn read_to_end(socket: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match socket.read(&mut chunk) {
            Ok(0) => return heard,
            Ok(count) => heard.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("still open: {heard:02x?}")
            }
            Err(_) => return heard,
        }
    }
}

fn http_status(answer: &[u8]) -> u16 {
    std::str::from_utf8(answer)
        .ok()
        .and_then(|text| text.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .unwrap_or_default()
}

/// The code of the close frame that ends what was heard; frames of a server are not masked.
fn last_close_code(mut heard: &[u8]) -> Option<u16> {
    let mut code = None;
    while let [first, length, rest @ ..] = heard {
        let (length, rest) = match length {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            short => (usize::from(*short), rest),
        };
        if *first == 0x88 {
            code = Some(u16::from_be_bytes([rest[0], rest[1]]));
        }
        heard = &rest[length..];
    }
    code
}
