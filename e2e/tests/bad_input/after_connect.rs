//! Packets on a connection that has a session: MQTT 5 hears a DISCONNECT with the reason, MQTT 3.1.1 just the end.

use holdfast_e2e::packet::{
    self, Connect, Version, acknowledge, binary, kind, message_expiry_s, packet, publish, publish_with,
    session_expiry_s, string, subscribe, topic_alias,
};
use holdfast_e2e::{Client, Gateway, Setup, Witness};

use super::{Memory, assert_closed, closed};

struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    /// What a DISCONNECT may say; where the specification leaves a choice, more than one.
    codes: &'static [u8],
    reasons: &'static [&'static str],
}

const fn case(
    name: &'static str,
    bytes: Vec<u8>,
    codes: &'static [u8],
    reasons: &'static [&'static str],
) -> Case {
    Case { name, bytes, codes, reasons }
}

const MALFORMED: &[&str] = &["malformed_packet"];
const PROTOCOL: &[&str] = &["protocol_error"];
const EITHER: &[&str] = &["malformed_packet", "protocol_error"];
const FROM_SERVER: &[&str] = &["server_packet_from_client", "protocol_error", "malformed_packet"];

#[test]
fn an_mqtt_5_client_hears_the_reason_of_its_end() {
    const V5: Version = Version::V5;
    let ids = |body: &[u8]| packet(0x82, body);
    let with_properties = |properties: &[u8]| publish_with(V5, 0, "a", 0, properties, b"x");
    let cases = vec![
        case("a second CONNECT", Connect::new(V5, "again").encode(), &[0x82], &["second_connect"]),
        case("the reserved packet type 0", vec![0, 0], &[0x81], MALFORMED),
        case("PINGREQ with a body", packet(0xC0, b"x"), &[0x81], MALFORMED),
        case("a remaining length of five bytes", vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1], &[0x81], MALFORMED),
        case("268 MB announced", vec![0x30, 0xFF, 0xFF, 0xFF, 0x7F], &[0x95], &["packet_too_large"]),
        // PUBLISH
        case("PUBLISH of QoS 3", publish(V5, 3, "a", 1, b"x"), &[0x81], MALFORMED),
        case("PUBLISH with packet id 0", publish(V5, 1, "a", 0, b"x"), &[0x81, 0x82], EITHER),
        case("DUP with QoS 0", publish_with(V5, 8, "a", 0, &[], b"x"), &[0x81, 0x82], EITHER),
        case("a topic with a wildcard", publish(V5, 0, "a/+", 0, b"x"), &[0x90], &["topic_name_invalid"]),
        case(
            "a topic with U+0000",
            publish(V5, 0, "a\0", 0, b"x"),
            &[0x81, 0x90],
            &["malformed_packet", "topic_name_invalid"],
        ),
        case(
            "a topic that is not UTF-8",
            packet(0x30, &[&binary(b"a\xff")[..], &[0], b"x"].concat()),
            &[0x81],
            MALFORMED,
        ),
        case(
            "no topic and no alias",
            publish(V5, 0, "", 0, b"x"),
            &[0x82, 0x90],
            &["protocol_error", "topic_name_invalid"],
        ),
        case("a topic longer than its packet", packet(0x30, &[0, 200, b'a', 0]), &[0x81], MALFORMED),
        case("topic alias 0", with_properties(&topic_alias(0)), &[0x94], &["topic_alias_invalid"]),
        case(
            "a topic alias beyond the maximum",
            with_properties(&topic_alias(65_535)),
            &[0x94],
            &["topic_alias_invalid"],
        ),
        case(
            "a topic alias that stands for nothing",
            publish_with(V5, 0, "", 0, &topic_alias(1), b"x"),
            &[0x82, 0x94],
            &["protocol_error", "topic_alias_invalid"],
        ),
        case("a subscription identifier from a client", with_properties(&[0x0B, 1]), &[0x82], PROTOCOL),
        case(
            "a property twice",
            with_properties(&[message_expiry_s(1), message_expiry_s(1)].concat()),
            &[0x82],
            PROTOCOL,
        ),
        case("a property of CONNECT", with_properties(&session_expiry_s(1)), &[0x81, 0x82], EITHER),
        case("a property that does not exist", with_properties(&[0x7E, 1]), &[0x81], MALFORMED),
        case("a payload format of 2", with_properties(&[0x01, 2]), &[0x81, 0x82], EITHER),
        case(
            "a response topic with a wildcard",
            with_properties(&[&[0x08][..], &string("a/#")].concat()),
            &[0x81, 0x82, 0x90],
            &["malformed_packet", "protocol_error", "topic_name_invalid"],
        ),
        case("a property length beyond the packet", packet(0x30, &[0, 1, b'a', 100]), &[0x81], MALFORMED),
        // SUBSCRIBE, UNSUBSCRIBE
        case(
            "SUBSCRIBE with the flags of PUBLISH",
            packet(0x80, &[0, 1, 0, 0, 1, b'a', 0]),
            &[0x81],
            MALFORMED,
        ),
        case("SUBSCRIBE with packet id 0", subscribe(V5, 0, "a", 0), &[0x81, 0x82], EITHER),
        case("SUBSCRIBE without a filter", ids(&[0, 1, 0]), &[0x81, 0x82], EITHER),
        case("SUBSCRIBE for QoS 3", subscribe(V5, 1, "a", 3), &[0x81, 0x82], EITHER),
        case("SUBSCRIBE with reserved options", subscribe(V5, 1, "a", 0x40), &[0x81, 0x82], EITHER),
        case("SUBSCRIBE with retain handling 3", subscribe(V5, 1, "a", 0x30), &[0x81, 0x82], EITHER),
        case("no local on a shared subscription", subscribe(V5, 1, "$share/g/a", 4), &[0x82], PROTOCOL),
        case("subscription identifier 0", ids(&[0, 1, 2, 0x0B, 0, 0, 1, b'a', 0]), &[0x81, 0x82], EITHER),
        case(
            "an empty filter",
            subscribe(V5, 1, "", 0),
            &[0x81, 0x82, 0x8F],
            &["malformed_packet", "protocol_error", "topic_filter_invalid"],
        ),
        case("UNSUBSCRIBE without a filter", packet(0xA2, &[0, 1, 0]), &[0x81, 0x82], EITHER),
        // Acknowledgements
        case("PUBREL with wrong flags", packet(0x60, &[0, 1]), &[0x81], MALFORMED),
        case("PUBACK with packet id 0", packet(0x40, &[0, 0]), &[0x81, 0x82], EITHER),
        case("PUBACK with a reason that is none", packet(0x40, &[0, 1, 0x7F]), &[0x81, 0x82], EITHER),
        case("half a PUBACK", packet(0x40, &[1]), &[0x81], MALFORMED),
        // The other direction's, and others
        case("CONNACK from a client", packet(0x20, &[0, 0, 0]), &[0x81, 0x82], FROM_SERVER),
        case("SUBACK from a client", packet(0x90, &[0, 1, 0, 0]), &[0x81, 0x82], FROM_SERVER),
        case("PINGRESP from a client", packet(0xD0, &[]), &[0x81, 0x82], FROM_SERVER),
        case("AUTH without a method in CONNECT", packet(0xF0, &[]), &[0x81, 0x82], EITHER),
        case("DISCONNECT with a wrong flag", vec![0xE1, 0], &[0x81], MALFORMED),
        case(
            "DISCONNECT that prolongs a session of length 0",
            packet(0xE0, &[&[0, 5][..], &session_expiry_s(60)].concat()),
            &[0x82],
            PROTOCOL,
        ),
    ];
    try_each(V5, cases);
}

#[test]
fn an_mqtt_3_1_1_client_sees_only_the_end() {
    const V311: Version = Version::V311;
    let cases = vec![
        case("a second CONNECT", Connect::new(V311, "again").encode(), &[], &["second_connect"]),
        case("AUTH, which it does not have", vec![0xF0, 0], &[], EITHER),
        case("PUBLISH of QoS 3", publish(V311, 3, "a", 1, b"x"), &[], MALFORMED),
        case("PUBLISH with packet id 0", publish(V311, 2, "a", 0, b"x"), &[], EITHER),
        case("DUP with QoS 0", publish_with(V311, 8, "a", 0, &[], b"x"), &[], EITHER),
        case(
            "a topic with a wildcard",
            publish(V311, 0, "#", 0, b"x"),
            &[],
            &["topic_name_invalid", "malformed_packet", "protocol_error"],
        ),
        case(
            "an empty topic",
            publish(V311, 0, "", 0, b"x"),
            &[],
            &["topic_name_invalid", "malformed_packet", "protocol_error"],
        ),
        case("SUBSCRIBE with reserved bits", subscribe(V311, 1, "a", 4), &[], EITHER),
        case("SUBSCRIBE without a filter", packet(0x82, &[0, 1]), &[], EITHER),
        case(
            "a filter with a misplaced wildcard",
            subscribe(V311, 1, "a/#/b", 0),
            &[],
            &["topic_filter_invalid", "malformed_packet", "protocol_error"],
        ),
        case("PUBACK with a reason code", packet(0x40, &[0, 1, 0]), &[], MALFORMED),
        case("DISCONNECT with a body", packet(0xE0, &[0]), &[], MALFORMED),
        case("268 MB announced", vec![0x30, 0xFF, 0xFF, 0xFF, 0x7F], &[], &["packet_too_large"]),
    ];
    try_each(V311, cases);
}

#[test]
fn filters_against_the_grammar_are_refused_one_way_or_the_other() {
    let gateway = Gateway::start();
    let filters = [
        "a/#/b",
        "a#",
        "a+/b",
        "$share/",
        "$share/g",
        "$share//a",
        "$share/g+/a",
        "$share/g#/a",
        "$share/g/",
    ];
    for filter in filters {
        let mut client = Client::open(gateway.mqtt(), Version::V5, "filters");
        client.send(&subscribe(Version::V5, 1, filter, 1));
        let answer = client.receive();
        // The specification allows both: a code for the filter or the end of the connection.
        let code = if answer.kind() == kind::SUBACK { *answer.body.last().unwrap() } else { answer.reason() };
        assert!([0x80, 0x81, 0x82, 0x8F].contains(&code), "{filter}: {answer:?}");
    }
}

#[test]
fn a_packet_of_just_the_maximum_size_passes_and_one_more_byte_does_not() {
    const MAXIMUM: usize = 10_000;
    let gateway = Setup::new().set("mqtt.maximum_packet_size", MAXIMUM).start();
    let mut client = Client::open(gateway.mqtt(), Version::V5, "large");
    // Fixed header 3, topic 3, packet id 2, property length 1.
    client.send(&publish(Version::V5, 1, "a", 1, &vec![b'x'; MAXIMUM - 9]));
    assert_eq!(client.receive_kind(kind::PUBACK).id(), 1);
    client.send(&publish(Version::V5, 1, "a", 2, &vec![b'x'; MAXIMUM - 8]));
    let goodbye = client.receive_to_end();
    assert_eq!(goodbye.last().map(|last| (last.kind(), last.reason())), Some((kind::DISCONNECT, 0x95)));
}

#[test]
fn more_in_flight_than_the_receive_maximum_is_the_end() {
    let gateway = Setup::new().set("mqtt.receive_maximum", 3).start();
    let before = closed(&gateway, &["receive_maximum_exceeded"]);
    let mut client = Client::open(gateway.mqtt(), Version::V5, "greedy");
    // A QoS 2 exchange stays open for as long as its PUBREL is withheld.
    for id in 1..=3 {
        client.send(&publish(Version::V5, 2, "a", id, b"x"));
        assert_eq!(client.receive_kind(kind::PUBREC).id(), id);
    }
    client.send(&publish(Version::V5, 2, "a", 4, b"x"));
    let heard = client.receive_to_end();
    assert_eq!(heard.last().map(|last| (last.kind(), last.reason())), Some((kind::DISCONNECT, 0x93)));
    assert_closed(&gateway, &["receive_maximum_exceeded"], before, 1, "a fourth in flight");
}

#[test]
fn acknowledgements_of_what_was_never_sent_do_no_harm() {
    let gateway = Gateway::start();
    for version in [Version::V311, Version::V5] {
        let mut client = Client::open(gateway.mqtt(), version, "confused");
        client.send(&acknowledge(kind::PUBACK, 999));
        client.send(&acknowledge(kind::PUBREC, 999));
        client.send(&acknowledge(kind::PUBREL, 999));
        client.send(&acknowledge(kind::PUBCOMP, 999));
        // Answers may come (PUBREL for PUBREC, PUBCOMP for PUBREL, with "packet identifier not found"), or the end
        // of the connection in MQTT 5 as a protocol error; nothing else.
        client.send(packet::PINGREQ);
        loop {
            let answer = client.receive();
            match answer.kind() {
                kind::PUBREL | kind::PUBCOMP => assert_eq!(answer.id(), 999),
                kind::PINGRESP => break,
                kind::DISCONNECT => {
                    assert_eq!(answer.reason(), 0x82);
                    break;
                }
                _ => panic!("{answer:?}"),
            }
        }
    }
}

#[track_caller]
fn try_each(version: Version, cases: Vec<Case>) {
    let gateway = Gateway::start();
    let witness = Witness::start(gateway.mqtt());
    let memory = Memory::of(&gateway);
    for Case { name, bytes, codes, reasons } in cases {
        let before = closed(&gateway, reasons);
        let mut client = Client::open(gateway.mqtt(), version, "bad");
        client.send(&bytes);
        let heard = client.receive_to_end();
        if version == Version::V5 {
            let [goodbye] = &heard[..] else { panic!("{name}: one DISCONNECT was due: {heard:?}") };
            assert_eq!(goodbye.kind(), kind::DISCONNECT, "{name}");
            assert!(
                codes.contains(&goodbye.reason()),
                "{name}: {:#04x}, not one of {codes:#04x?}",
                goodbye.reason()
            );
        } else {
            assert_eq!(heard, [], "{name}: MQTT 3.1.1 has no goodbye from a server");
        }
        assert_closed(&gateway, reasons, before, 1, name);
    }
    memory.assert_flat(8);
    witness.finish();
}
