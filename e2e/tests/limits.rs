//! What MQTT lets a server announce: each limit that is set is told in CONNACK, and held.

use holdfast_e2e::packet::{
    Connect, Packet, Version, kind, packet, publish, publish_with, session_expiry_s, string, subscribe,
    topic_alias,
};
use holdfast_e2e::wait::{PATIENCE, until_true};
use holdfast_e2e::{Client, Gateway, Setup};

const V5: Version = Version::V5;

fn strict_gateway() -> Gateway {
    Setup::new()
        .set("mqtt.maximum_qos", 1)
        .set("mqtt.retain_available", false)
        .set("mqtt.wildcard_subscription_available", false)
        .set("mqtt.subscription_identifier_available", false)
        .set("mqtt.shared_subscription_available", false)
        .set("mqtt.topic_alias_maximum", 0)
        .set("mqtt.receive_maximum", 5)
        .set("mqtt.maximum_packet_size", 2048)
        .set("mqtt.server_keep_alive_s_max", 30)
        .set("mqtt.session_expiry_s_max", 60)
        .start()
}

fn property(connack: &Packet, identifier: u8) -> Option<Vec<u8>> {
    connack.connack_properties().into_iter().find(|(found, _)| *found == identifier).map(|(_, value)| value)
}

#[test]
fn limits_that_are_set_are_announced() {
    let gateway = strict_gateway();
    let connect = Connect::new(V5, "device").keep_alive_s(600).property(&session_expiry_s(3600));
    let (_client, connack) = Client::connect(gateway.mqtt(), &connect);
    let told = |identifier| property(&connack, identifier);
    assert_eq!(told(0x24), Some(vec![1]), "maximum QoS");
    assert_eq!(told(0x25), Some(vec![0]), "retain available");
    assert_eq!(told(0x28), Some(vec![0]), "wildcard subscription available");
    assert_eq!(told(0x29), Some(vec![0]), "subscription identifier available");
    assert_eq!(told(0x2A), Some(vec![0]), "shared subscription available");
    // Absent means 0.
    assert!(told(0x22).is_none_or(|most| most == [0, 0]), "topic alias maximum");
    assert_eq!(told(0x21), Some(vec![0, 5]), "receive maximum");
    assert_eq!(told(0x27), Some(2048_u32.to_be_bytes().to_vec()), "maximum packet size");
    assert_eq!(told(0x13), Some(vec![0, 30]), "server keep alive");
    assert_eq!(told(0x11), Some(60_u32.to_be_bytes().to_vec()), "session expiry interval");
}

#[test]
fn what_a_client_asked_for_and_gets_is_not_repeated_to_it() {
    let gateway = Gateway::start();
    let connect = Connect::new(V5, "device").keep_alive_s(60).property(&session_expiry_s(600));
    let (_client, connack) = Client::connect(gateway.mqtt(), &connect);
    assert_eq!(property(&connack, 0x12), None, "it chose its client id itself [MQTT-3.2.2-16]");
    assert!(property(&connack, 0x13).is_none_or(|seconds| seconds == [0, 60]), "server keep alive");
    assert!(
        property(&connack, 0x11).is_none_or(|seconds| seconds == 600_u32.to_be_bytes()),
        "session expiry"
    );
    // It may not be sent unless it is 0 or 1.
    assert_eq!(property(&connack, 0x24), None, "maximum QoS");
}

#[test]
fn a_publication_beyond_a_limit_ends_the_connection_with_its_reason() {
    let gateway = strict_gateway();
    let cases = [
        ("QoS 2", publish(V5, 2, "a", 1, b"x"), 0x9B, "qos_not_supported"),
        ("RETAIN", publish_with(V5, 1, "a", 0, &[], b"x"), 0x9A, "retain_not_supported"),
        ("a topic alias", publish_with(V5, 0, "a", 0, &topic_alias(1), b"x"), 0x94, "topic_alias_invalid"),
        ("2 KiB", publish(V5, 0, "a", 0, &[b'x'; 2048]), 0x95, "packet_too_large"),
    ];
    for (name, bytes, code, reason) in cases {
        let mut client = Client::open(gateway.mqtt(), V5, "device");
        client.send(&bytes);
        let heard = client.receive_to_end();
        assert_eq!(
            heard.last().map(|last| (last.kind(), last.reason())),
            Some((kind::DISCONNECT, code)),
            "{name}"
        );
        until_true(reason, PATIENCE, || gateway.metrics().closed(reason) == 1);
    }
}

#[test]
fn a_subscription_beyond_a_limit_is_refused() {
    let gateway = strict_gateway();
    let with_identifier = packet(0x82, &[&[0, 1, 2, 0x0B, 1][..], &string("a"), &[0]].concat());
    let cases = [
        ("a wildcard", subscribe(V5, 1, "a/#", 0), 0xA2),
        ("a shared subscription", subscribe(V5, 1, "$share/g/a", 0), 0x9E),
        ("a subscription identifier", with_identifier, 0xA1),
    ];
    for (name, bytes, code) in cases {
        let mut client = Client::open(gateway.mqtt(), V5, "device");
        client.send(&bytes);
        // The specification allows the answer and the end of the connection.
        let answer = client.receive();
        let heard =
            if answer.kind() == kind::SUBACK { *answer.body.last().unwrap() } else { answer.reason() };
        assert_eq!(heard, code, "{name}: {answer:?}");
    }
}

#[test]
fn a_subscription_above_the_maximum_qos_is_granted_and_lowered_on_delivery() {
    let gateway = strict_gateway();
    let mut client = Client::open(gateway.mqtt(), V5, "device");
    // What publishers may not reach needs no refusal [MQTT-3.2.2-10].
    assert!(client.subscribe("a", 2) <= 2);
    client.send(&publish(V5, 1, "a", 1, b"x"));
    let (mut acknowledged, mut delivered) = (false, false);
    while !(acknowledged && delivered) {
        let packet = client.receive();
        if packet.kind() == kind::PUBACK {
            acknowledged = true;
        } else {
            assert_eq!(packet.publish(V5).qos, 1);
            delivered = true;
        }
    }
}

#[test]
fn a_will_beyond_a_limit_is_refused_with_the_connect() {
    let gateway = strict_gateway();
    // Flags: will retain, will QoS 2.
    for (flags, code) in [(0b10_0110, 0x9A), (0b1_0110, 0x9B)] {
        let head = [&string("MQTT")[..], &[5, flags, 0, 0, 0], &string("device")].concat();
        let bytes = packet(0x10, &[&head[..], &[0], &string("will"), &string("x")].concat());
        let mut client = Client::dial(gateway.mqtt(), V5);
        client.send(&bytes);
        let heard = client.receive_to_end();
        assert_eq!(heard.first().map(Packet::connect_code), Some(code), "flags {flags:#b}");
    }
}

#[test]
fn mqtt_3_1_1_is_held_to_the_same_limits() {
    let gateway = strict_gateway();
    let mut client = Client::open(gateway.mqtt(), Version::V311, "device");
    assert_eq!(client.subscribe("a/#", 1), 0x80, "its only way to refuse a filter");
    client.send(&publish(Version::V311, 2, "a", 1, b"x"));
    assert_eq!(client.receive_to_end(), []);
}

#[test]
fn subscriptions_of_one_session_are_bounded() {
    let gateway = Setup::new().set("limits.subscriptions_max", 10).start();
    let mut client = Client::open(gateway.mqtt(), V5, "device");
    let granted: Vec<_> = (0..12).map(|number| client.subscribe(&format!("a/{number}"), 1)).collect();
    assert_eq!(granted[..10], [1; 10]);
    assert_eq!(granted[10..], [0x97; 2], "quota exceeded");
    assert_eq!(client.subscribe("a/3", 0), 0, "replacing one takes no room");
}
