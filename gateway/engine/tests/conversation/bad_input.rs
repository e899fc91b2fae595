//! What a peer may not send: each breach costs its own connection, and says why where the version can.

use holdfast_engine::{CloseReason, EngineConfig, MqttConfig};
use holdfast_wire::mqtt::{
    Auth, Packet, PubAck, Publish, PublishProperties, ReasonCode, SubscriptionIdentifiers,
};

use crate::packets::{accepted_311, connect, connect_311, id, qos0, qos1, suback, unsuback};
use crate::stage::Shard;

/// Whoever sends these bytes is closed for this reason, in either version.
#[track_caller]
fn closes(shard: &Shard, bytes: &[u8], reason: CloseReason) {
    let client = shard.connects(&connect("c"));
    client.sends_bytes(bytes);
    client.hears_goodbye(reason);
    let old = shard.connects(&connect_311("old"));
    old.sends_bytes(bytes);
    old.hears_the_end(reason);
}

#[test]
fn packets_that_only_a_server_sends_end_the_connection() {
    let shard = Shard::new();
    for packet in [
        Packet::ConnAck(accepted_311(false)),
        Packet::SubAck(suback(1, &[0])),
        Packet::UnsubAck(unsuback(1, &[0])),
        Packet::PingResp,
    ] {
        let client = shard.connects(&connect("c"));
        client.sends(packet);
        client.hears_goodbye(CloseReason::ServerPacketFromClient);
        let old = shard.connects(&connect_311("old"));
        old.sends(packet);
        old.hears_the_end(CloseReason::ServerPacketFromClient);
    }
}

#[test]
fn auth_without_a_method_is_a_protocol_error() {
    let client = Shard::new().connects(&connect("c"));
    client.sends(Auth { reason_code: ReasonCode::ReAuthenticate, ..Auth::default() });
    client.hears_goodbye(CloseReason::ProtocolError);
}

#[test]
fn bytes_that_are_not_mqtt_end_the_connection() {
    let shard = Shard::new();
    let breaches: [&[u8]; 8] = [
        // No such packet type.
        &[0x00, 0x00],
        // A remaining length of five bytes.
        &[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01],
        // Reserved flags.
        &[0xC1, 0x00],
        &[0x80, 0x00],
        // QoS 3.
        &[0x36, 0x03, 0x00, 0x01, b't'],
        // A topic longer than its packet.
        &[0x30, 0x03, 0x00, 0x09, b't'],
        // A topic that is not UTF-8.
        &[0x30, 0x03, 0x00, 0x01, 0xFF],
        // PUBACK without its packet id.
        &[0x40, 0x01, 0x00],
    ];
    for bytes in breaches {
        closes(&shard, bytes, CloseReason::MalformedPacket);
    }
}

#[test]
fn a_packet_id_of_zero_ends_the_connection() {
    let shard = Shard::new();
    let client = shard.connects(&connect_311("c"));
    client.sends_bytes(&[0x32, 0x05, 0x00, 0x01, b't', 0x00, 0x00]);
    let closed = shard.stage().sockets[&client.id].closed;
    assert!(matches!(closed, Some(CloseReason::MalformedPacket | CloseReason::ProtocolError)), "{closed:?}");
}

#[test]
fn topics_and_filters_against_the_grammar_end_the_connection() {
    let shard = Shard::new();
    for topic in ["a/#", "+", "a\0b"] {
        let client = shard.connects(&connect("c"));
        client.sends(qos0(topic, "x"));
        let closed = shard.stage().sockets[&client.id].closed;
        assert!(
            matches!(closed, Some(CloseReason::TopicNameInvalid | CloseReason::MalformedPacket)),
            "{topic:?}: {closed:?}"
        );
    }
    for filter in ["a#", "a/#/b", "a+", "$share//a", "$share/g"] {
        let client = shard.connects(&connect("c"));
        client.sends(crate::packets::subscribe(1, &[(filter, crate::packets::AT_MOST_ONCE)]));
        client.hears_goodbye(CloseReason::TopicFilterInvalid);
    }
}

#[test]
fn subscription_identifiers_from_a_client_are_a_protocol_error() {
    let client = Shard::new().connects(&connect("c"));
    let identifiers = [1];
    let properties = PublishProperties {
        subscription_identifiers: SubscriptionIdentifiers::from(&identifiers[..]),
        ..PublishProperties::default()
    };
    client.sends(Publish { properties, ..qos0("t", "x") });
    client.hears_goodbye(CloseReason::ProtocolError);
}

#[test]
fn a_packet_that_is_too_large_is_refused_by_its_header() {
    let mqtt = MqttConfig { maximum_packet_size: 1_024, ..MqttConfig::default() };
    let shard = Shard::with(EngineConfig { mqtt, ..EngineConfig::default() });
    let client = shard.connects(&connect("c"));
    let fitting = "x".repeat(1_024 - 3 - 2 - 1 - 1);
    client.sends(qos0("t", &fitting));
    shard.bridge(0).hears_uplink("t", &fitting);
    // 3 + 1,022 bytes; not one of its body has come.
    client.sends_bytes(&[0x30, 0xFE, 0x07]);
    client.hears_goodbye(CloseReason::PacketTooLarge);
    // Before CONNECT as well, and then nobody is told anything.
    let stranger = shard.client();
    stranger.sends_bytes(&[0x10, 0xFF, 0xFF, 0xFF, 0x7F]);
    stranger.hears_the_end(CloseReason::PacketTooLarge);
}

#[test]
fn what_follows_a_breach_is_not_looked_at() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    let mut bytes = client.bytes_of(&qos1(1, "t", "before"));
    bytes.extend([0x00, 0x00]);
    bytes.extend(client.bytes_of(&qos1(2, "t", "behind")));
    client.sends_bytes(&bytes);
    shard.bridge(0).hears_uplink("t", "before");
    shard.bridge(0).hears_nothing();
    client.hears_goodbye(CloseReason::MalformedPacket);
}

#[test]
fn one_breach_costs_nobody_else() {
    let shard = Shard::new();
    let good = shard.connects(&connect("good"));
    good.sends(qos1(1, "t", "x"));
    let bad = shard.connects(&connect("bad"));
    bad.sends_bytes(&[0xFF; 64]);
    shard.bridge(0).settles(1..=1);
    good.hears(PubAck::success(id(1)));
}
