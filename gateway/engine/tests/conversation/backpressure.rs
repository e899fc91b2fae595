//! Bridges that take no more: devices are not read, nothing with QoS > 0 is lost, QoS 0 is dropped and counted.

use holdfast_engine::EngineConfig;
use holdfast_wire::link::ToGateway;
use holdfast_wire::mqtt::{Packet, PubAck};

use crate::packets::{connect, id, qos0, qos1};
use crate::stage::Shard;

/// A shard whose one bridge allows a single unsettled frame.
fn tight() -> Shard {
    let shard = Shard::without_links(EngineConfig::default(), 1);
    shard.bridge(0).comes_up_with_window(1);
    shard
}

#[test]
fn a_client_is_not_read_while_its_bridge_takes_no_more() {
    let shard = tight();
    let client = shard.connects(&connect("c"));
    client.sends(qos1(1, "t", "1"));
    client.sends(qos1(2, "t", "2"));
    client.sends(qos1(3, "t", "3"));
    shard.bridge(0).hears_uplink("t", "1");
    shard.bridge(0).hears_nothing();
    assert!(client.unread() > 0 && shard.device("c").paused);
    for (sequence, payload) in [(1, "2"), (2, "3")] {
        shard.bridge(0).settles(sequence..=sequence);
        client.hears(PubAck::success(id(sequence as u16)));
        shard.bridge(0).hears_uplink("t", payload);
        shard.bridge(0).hears_nothing();
    }
    assert_eq!(client.unread(), 0);
    shard.bridge(0).settles(3..=3);
    client.hears(PubAck::success(id(3)));
    assert!(!shard.device("c").paused);
    assert!(shard.stats().paused > 0);
}

#[test]
fn what_came_with_one_read_waits_in_order() {
    let shard = tight();
    let client = shard.connects(&connect("c"));
    let mut bytes = Vec::new();
    for packet_id in 1..=5 {
        bytes.extend(client.bytes_of(&qos1(packet_id, "t", &packet_id.to_string())));
    }
    bytes.extend(client.bytes_of(&Packet::PingReq));
    client.sends_bytes(&bytes);
    for sequence in 1..=5_u16 {
        shard.bridge(0).hears_uplink("t", &sequence.to_string());
        shard.bridge(0).hears_nothing();
        shard.bridge(0).settles(sequence.into()..=sequence.into());
        client.hears(PubAck::success(id(sequence)));
        if sequence == 4 {
            // The last publication is on its way, so what stands behind it is taken.
            client.hears(Packet::PingResp);
        }
    }
}

#[test]
fn qos_0_without_credit_is_dropped_and_counted() {
    let shard = tight();
    let client = shard.connects(&connect("c"));
    let mut bytes = client.bytes_of(&qos1(1, "t", "1"));
    bytes.extend(client.bytes_of(&qos0("t", "lost")));
    bytes.extend(client.bytes_of(&Packet::PingReq));
    client.sends_bytes(&bytes);
    client.hears(Packet::PingResp);
    shard.bridge(0).hears_uplink("t", "1");
    shard.bridge(0).hears_nothing();
    assert_eq!(shard.stats().dropped_no_credit, 1);
}

#[test]
fn everyone_who_waits_is_let_go_on_in_turn() {
    let shard = tight();
    let names = ["c", "d", "e", "f"];
    let clients = names.map(|name| shard.connects(&connect(name)));
    for client in &clients {
        client.sends(qos1(1, "t", "x"));
        client.sends(qos1(2, "t", "x"));
    }
    for sequence in 1..=8 {
        shard.bridge(0).hears_uplink("t", "x");
        shard.bridge(0).hears_nothing();
        shard.bridge(0).settles(sequence..=sequence);
    }
    for client in &clients {
        client.hears(PubAck::success(id(1)));
        client.hears(PubAck::success(id(2)));
    }
}

#[test]
fn a_wider_window_lets_those_who_wait_go_on() {
    let shard = tight();
    let client = shard.connects(&connect("c"));
    client.sends(qos1(1, "t", "1"));
    client.sends(qos1(2, "t", "2"));
    shard.bridge(0).says(&ToGateway::WindowBytes(1 << 20));
    shard.bridge(0).hears_uplink("t", "1");
    shard.bridge(0).hears_uplink("t", "2");
}

#[test]
fn without_a_bridge_clients_connect_and_wait() {
    let shard = Shard::without_links(EngineConfig::default(), 1);
    let client = shard.connects(&connect("c"));
    client.sends(qos1(1, "t", "1"));
    assert!(client.unread() > 0);
    shard.bridge(0).comes_up();
    shard.bridge(0).hears_uplink("t", "1");
    assert_eq!(client.unread(), 0);
}

#[test]
fn who_leaves_while_it_waits_does_not_hold_up_the_others() {
    let shard = tight();
    let first = shard.connects(&connect("c"));
    let second = shard.connects(&connect("d"));
    first.sends(qos1(1, "t", "1"));
    first.sends(qos1(2, "t", "never"));
    second.sends(qos1(1, "t", "2"));
    first.vanishes();
    shard.bridge(0).settles(1..=1);
    shard.bridge(0).hears_uplink("t", "1");
    shard.bridge(0).hears_uplink("t", "2");
}
