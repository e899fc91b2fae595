//! Packets on a connection that has no session yet.

use holdfast_e2e::packet::{self, Connect, Version, binary, kind, length, packet, string};
use holdfast_e2e::{Client, Gateway, Witness};

use super::{Memory, assert_closed, closed};

/// What the peer hears before the end.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Hears {
    /// The connection just ends.
    Nothing,
    /// CONNACK with this code of the peer's own version.
    Code(u8),
}

struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    hears: Hears,
    /// Where the specification leaves a choice, more than one.
    reasons: &'static [&'static str],
}

const fn case(name: &'static str, bytes: Vec<u8>, hears: Hears, reasons: &'static [&'static str]) -> Case {
    Case { name, bytes, hears, reasons }
}

const MALFORMED: &[&str] = &["malformed_packet"];
const PROTOCOL: &[&str] = &["protocol_error"];
const NOT_CONNECT: &[&str] = &["not_connect_first"];

#[test]
fn bytes_that_are_no_connect_are_answered_with_the_end() {
    let cases = vec![
        case(
            "HTTP on the MQTT port",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            Hears::Nothing,
            MALFORMED,
        ),
        case(
            "a TLS hello",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            Hears::Nothing,
            MALFORMED,
        ),
        case("the reserved packet type 0", vec![0, 0], Hears::Nothing, MALFORMED),
        case("CONNECT with flags", vec![0x1F, 0], Hears::Nothing, MALFORMED),
        case(
            "a remaining length of five bytes",
            vec![0x10, 0xFF, 0xFF, 0xFF, 0xFF, 1],
            Hears::Nothing,
            MALFORMED,
        ),
        case("PUBLISH first", packet::publish(Version::V5, 0, "a", 0, b"x"), Hears::Nothing, NOT_CONNECT),
        case("SUBSCRIBE first", packet::subscribe(Version::V311, 1, "a", 0), Hears::Nothing, NOT_CONNECT),
        case("PINGREQ first", packet::PINGREQ.to_vec(), Hears::Nothing, NOT_CONNECT),
        case("DISCONNECT first", packet::DISCONNECT.to_vec(), Hears::Nothing, NOT_CONNECT),
        case("CONNACK from a client", vec![0x20, 2, 0, 0], Hears::Nothing, NOT_CONNECT),
    ];
    try_each(Version::V5, cases);
}

#[test]
fn a_connect_against_the_rules_of_mqtt_5_hears_why() {
    let connect =
        |flags: u8, properties: &[u8], payload: &[u8]| connect_bytes("MQTT", 5, flags, properties, payload);
    let id = string("bad-v5");
    let cases = vec![
        case(
            "a later version",
            connect_bytes("MQTT", 6, 2, &[], &id),
            Hears::Code(0x84),
            &["unsupported_protocol_version"],
        ),
        case(
            "an unknown protocol",
            connect_bytes("MQTX", 5, 2, &[], &id),
            // No version to answer in: the form that all of them began with.
            Hears::Code(1),
            &["unsupported_protocol_version"],
        ),
        case("the reserved flag", connect(3, &[], &id), Hears::Code(0x81), MALFORMED),
        case(
            "a will of QoS 3",
            connect(0x1E, &[], &[&id[..], &[0], &string("w"), &string("x")].concat()),
            Hears::Code(0x81),
            MALFORMED,
        ),
        case("will flags without a will", connect(0x2A, &[], &id), Hears::Code(0x81), MALFORMED),
        case(
            "a client id that is not UTF-8",
            connect(2, &[], &binary(b"\xff\xfe")),
            Hears::Code(0x81),
            MALFORMED,
        ),
        case("a client id with U+0000", connect(2, &[], &string("a\0b")), Hears::Code(0x81), MALFORMED),
        case(
            "a client id with a surrogate",
            connect(2, &[], &binary(b"\xed\xa0\x80")),
            Hears::Code(0x81),
            MALFORMED,
        ),
        case("half the length of a client id", connect(2, &[], &[0]), Hears::Code(0x81), MALFORMED),
        case("a user name that is not there", connect(0x82, &[], &id), Hears::Code(0x81), MALFORMED),
        case(
            "bytes after the payload",
            connect(2, &[], &[&id[..], b"more"].concat()),
            Hears::Code(0x81),
            MALFORMED,
        ),
        case("a property twice", connect(2, &[0x21, 0, 5, 0x21, 0, 5], &id), Hears::Code(0x82), PROTOCOL),
        case("a receive maximum of 0", connect(2, &[0x21, 0, 0], &id), Hears::Code(0x82), PROTOCOL),
        case("a maximum packet size of 0", connect(2, &[0x27, 0, 0, 0, 0], &id), Hears::Code(0x82), PROTOCOL),
        case(
            "authentication data without a method",
            connect(2, &[0x16, 0, 1, 7], &id),
            Hears::Code(0x82),
            PROTOCOL,
        ),
        case("a property of another packet", connect(2, &[0x23, 0, 1], &id), Hears::Code(0x81), MALFORMED),
        case("a property that does not exist", connect(2, &[0x7F, 0], &id), Hears::Code(0x81), MALFORMED),
        case("a property that ends early", connect(2, &[0x11, 0, 0], &id), Hears::Code(0x81), MALFORMED),
        case(
            "a will topic with wildcards",
            connect(6, &[], &[&id[..], &[0], &string("a/#"), &string("x")].concat()),
            Hears::Code(0x90),
            &["topic_name_invalid"],
        ),
        case(
            "an unknown authentication method",
            connect(2, &[&[0x15][..], &string("telepathy")].concat(), &id),
            Hears::Code(0x8C),
            &["bad_authentication_method"],
        ),
    ];
    try_each(Version::V5, cases);
}

#[test]
fn a_connect_against_the_rules_of_mqtt_3_1_1_is_refused() {
    let connect = |flags: u8, payload: &[u8]| connect_311("MQTT", 4, flags, payload);
    let id = string("bad-v311");
    let cases = vec![
        case("MQTT 3.1", connect_311("MQIsdp", 3, 2, &id), Hears::Code(1), &["unsupported_protocol_version"]),
        case(
            "an empty client id with a session to keep",
            connect(0, &string("")),
            Hears::Code(2),
            &["client_identifier_not_valid"],
        ),
        case("the reserved flag", connect(3, &id), Hears::Nothing, MALFORMED),
        case(
            "a password without a user name",
            connect(0x42, &[&id[..], &string("secret")].concat()),
            Hears::Nothing,
            &["malformed_packet", "protocol_error"],
        ),
        case(
            "a will of QoS 3",
            connect(0x1E, &[&id[..], &string("w"), &string("x")].concat()),
            Hears::Nothing,
            MALFORMED,
        ),
        case("a client id that is not UTF-8", connect(2, &binary(b"\xc0\x80")), Hears::Nothing, MALFORMED),
        case("bytes after the payload", connect(2, &[&id[..], b"more"].concat()), Hears::Nothing, MALFORMED),
    ];
    try_each(Version::V311, cases);
}

#[test]
fn what_is_announced_to_be_huge_is_refused_before_it_comes() {
    let gateway = Gateway::start();
    let witness = Witness::start(gateway.mqtt());
    let memory = Memory::of(&gateway);
    let before = closed(&gateway, &["packet_too_large"]);
    for _ in 0..200 {
        let mut client = Client::dial(gateway.mqtt(), Version::V5);
        // 268,435,455 bytes, the largest that can be said; the peer keeps them to itself.
        client.send(&[0x10, 0xFF, 0xFF, 0xFF, 0x7F]);
        client.send(&[0, 4, b'M', b'Q', b'T', b'T']);
        client.receive_to_end();
    }
    assert_closed(&gateway, &["packet_too_large"], before, 200, "268 MB announced");
    memory.assert_flat(8);
    witness.finish();
}

#[track_caller]
fn try_each(version: Version, cases: Vec<Case>) {
    let gateway = Gateway::start();
    let witness = Witness::start(gateway.mqtt());
    for Case { name, bytes, hears, reasons } in cases {
        let before = closed(&gateway, reasons);
        let mut client = Client::dial(gateway.mqtt(), version);
        client.send(&bytes);
        let heard = client.receive_to_end();
        let codes: Vec<_> = heard
            .iter()
            .map(|packet| {
                assert_eq!(packet.kind(), kind::CONNACK, "{name}: {packet:?}");
                assert!(!packet.session_present(), "{name}: {packet:?} [MQTT-3.2.2-6]");
                Hears::Code(packet.connect_code())
            })
            .collect();
        let wanted = if hears == Hears::Nothing { vec![] } else { vec![hears] };
        assert_eq!(codes, wanted, "{name}");
        assert_closed(&gateway, reasons, before, 1, name);
    }
    // Whoever asks properly is still served.
    Client::connect(gateway.mqtt(), &Connect::new(version, "honest")).0.ping();
    witness.finish();
}

fn connect_bytes(protocol: &str, level: u8, flags: u8, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let head = [&string(protocol)[..], &[level, flags, 0, 60]].concat();
    packet(0x10, &[&head[..], &length(properties.len()), properties, payload].concat())
}

fn connect_311(protocol: &str, level: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    packet(0x10, &[&string(protocol)[..], &[level, flags, 0, 60], payload].concat())
}
