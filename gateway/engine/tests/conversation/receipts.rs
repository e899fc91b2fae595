//! Proof on request: acknowledgements that say where the sink keeps a publication.

use holdfast_wire::link::{SettledAt, ToGateway};
use holdfast_wire::mqtt::{
    AckProperties, Connect, ConnectProperties, PubAck, PubComp, PubRec, PubRel, Publish, ReasonCode,
    UserProperties,
};

use crate::packets::{connect, connect_311, id, qos0, qos1, qos2};
use crate::stage::Shard;

const ASKS: [(&str, &str); 1] = [("holdfast-receipt", "offset")];

/// A client that asks for receipts.
fn asking(client_id: &str) -> Connect<'_> {
    let properties = ConnectProperties {
        user_properties: UserProperties::from(&ASKS[..]),
        ..ConnectProperties::default()
    };
    Connect { properties, ..connect(client_id) }
}

fn receipt<'a>(pairs: &'a [(&'a str, &'a str)]) -> AckProperties<'a> {
    AckProperties { reason_string: None, user_properties: UserProperties::from(pairs) }
}

#[test]
fn a_client_that_asks_is_told_where_its_publication_lies() {
    let shard = Shard::new();
    let client = shard.connects(&asking("c"));
    client.sends(qos1(1, "t", "x"));
    client.sends(qos2(2, "t", "y"));
    assert!(shard.bridge(0).hears_uplink("t", "x").wants_receipt);
    assert!(shard.bridge(0).hears_uplink("t", "y").wants_receipt);
    shard.bridge(0).settles_at(1, "frames", 41);
    let pairs = [("kafka-topic", "frames"), ("kafka-partition", "3"), ("kafka-offset", "41")];
    client.hears(PubAck { properties: receipt(&pairs), ..PubAck::success(id(1)) });
    let duplicate = SettledAt { sequence: 2, duplicate: true, topic: "frames", partition: 3, offset: 7 };
    shard.bridge(0).says(&ToGateway::SettledAt(duplicate));
    let pairs =
        [("kafka-topic", "frames"), ("kafka-partition", "3"), ("kafka-offset", "7"), ("duplicate", "true")];
    client.hears(PubRec { properties: receipt(&pairs), ..PubRec::success(id(2)) });
    client.sends(PubRel::success(id(2)));
    client.hears(PubComp::success(id(2)));
}

#[test]
fn a_receipt_waits_with_its_acknowledgement_for_those_before_it() {
    let shard = Shard::new();
    let client = shard.connects(&asking("c"));
    for packet_id in [5, 3, 4] {
        client.sends(qos1(packet_id, "t", "x"));
    }
    shard.bridge(0).settles_at(3, "frames", 43);
    shard.bridge(0).settles_at(2, "frames", 42);
    client.hears_nothing();
    // A sink that cannot tell settles plainly.
    shard.bridge(0).settles(1..=1);
    client.hears(PubAck::success(id(5)));
    for (packet_id, offset) in [(3, "42"), (4, "43")] {
        let pairs = [("kafka-topic", "frames"), ("kafka-partition", "3"), ("kafka-offset", offset)];
        client.hears(PubAck { properties: receipt(&pairs), ..PubAck::success(id(packet_id)) });
    }
}

#[test]
fn qos_0_and_those_who_do_not_ask_want_no_receipt() {
    let shard = Shard::new();
    let client = shard.connects(&asking("c"));
    client.sends(qos0("t", "x"));
    assert!(!shard.bridge(0).hears_uplink("t", "x").wants_receipt);
    for connect in [connect("d"), connect_311("e")] {
        let client = shard.connects(&connect);
        client.sends(qos1(1, "t", "x"));
        let uplink = shard.bridge(0).hears_uplink("t", "x");
        assert!(!uplink.wants_receipt);
        // A bridge that tells all the same tells in vain.
        shard.bridge(0).settles_at(uplink.sequence, "frames", 1);
        client.hears(PubAck::success(id(1)));
    }
    let pairs = [("holdfast-receipt", "everything")];
    let user_properties = UserProperties::from(&pairs[..]);
    let properties = ConnectProperties { user_properties, ..ConnectProperties::default() };
    let client = shard.connects(&Connect { properties, ..connect("f") });
    client.sends(qos1(1, "t", "x"));
    assert!(!shard.bridge(0).hears_uplink("t", "x").wants_receipt);
}

#[test]
fn a_client_that_wants_no_problem_information_gets_no_receipt() {
    let shard = Shard::new();
    let mut connect = asking("c");
    connect.properties.request_problem_information = Some(false);
    let client = shard.connects(&connect);
    client.sends(qos1(1, "t", "x"));
    assert!(!shard.bridge(0).hears_uplink("t", "x").wants_receipt);
    shard.bridge(0).settles_at(1, "frames", 41);
    client.hears(PubAck::success(id(1)));
}

#[test]
fn a_receipt_that_would_make_the_packet_too_large_is_left_out() {
    let shard = Shard::new();
    let pairs = [("kafka-topic", "frames"), ("kafka-partition", "3"), ("kafka-offset", "41")];
    let whole = PubAck { properties: receipt(&pairs), ..PubAck::success(id(1)) };
    for (room, expected) in [(0, whole), (1, PubAck::success(id(1)))] {
        let mut connect = asking("c");
        let probe = shard.connects(&connect);
        connect.properties.maximum_packet_size = Some((probe.bytes_of(&whole).len() - room) as u32);
        let client = shard.connects(&connect);
        shard.bridge(0).forgets();
        client.sends(qos1(1, "t", "x"));
        shard.bridge(0).settles_at(shard.bridge(0).hears_uplink("t", "x").sequence, "frames", 41);
        client.hears(expected);
    }
}

#[test]
fn a_receipt_that_makes_no_sense_is_not_passed_on() {
    let shard = Shard::new();
    let client = shard.connects(&asking("c"));
    for packet_id in 1..=3 {
        client.sends(qos1(packet_id, "t", "x"));
    }
    shard.bridge(0).settles_at(1, "frames", -1);
    shard.bridge(0).settles_at(2, &"x".repeat(70_000), 1);
    shard.bridge(0).refuses(3..=3, u8::from(ReasonCode::QuotaExceeded));
    client.hears(PubAck::success(id(1)));
    client.hears(PubAck::success(id(2)));
    client.hears(PubAck::with_reason(id(3), ReasonCode::QuotaExceeded));
}

#[test]
fn a_frame_that_moves_to_another_link_still_wants_its_receipt() {
    let shard = Shard::new();
    let client = shard.connects(&asking("c"));
    client.sends(qos1(1, "t", "x"));
    shard.bridge(0).goes_down();
    shard.bridge(0).comes_up();
    let uplink = shard.bridge(0).hears_uplink("t", "x");
    assert!(uplink.resent && uplink.wants_receipt);
    // What was published twice under one id is answered once, with the receipt.
    client.sends(Publish { dup: true, ..qos1(1, "t", "x") });
    shard.bridge(0).settles_at(uplink.sequence, "frames", 41);
    let pairs = [("kafka-topic", "frames"), ("kafka-partition", "3"), ("kafka-offset", "41")];
    client.hears(PubAck { properties: receipt(&pairs), ..PubAck::success(id(1)) });
    client.hears_nothing();
}
