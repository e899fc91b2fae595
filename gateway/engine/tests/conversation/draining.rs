//! A node that leaves: everyone is told, evenly over time, and owed acknowledgements come first.

use holdfast_engine::{AcceptRefused, CloseReason, Listener};
use holdfast_wire::mqtt::{Connect, ProtocolVersion, PubAck, ReasonCode, Will, WillProperties};
use holdfast_wire::store::Request;

use crate::packets::{connect, connect_311, id, qos1, refused, resume, will};
use crate::stage::Shard;
use crate::websocket::{cut_frame, heard_behind_upgrade, opens};

fn drains(shard: &Shard, spread_ms: u64) {
    shard.input(|engine, now| engine.handle_drain(now, spread_ms));
}

#[test]
fn who_waits_for_a_session_is_refused_with_the_code_that_sends_clients_elsewhere() {
    let shard = Shard::new();
    shard.store_holds();
    let client = shard.client();
    client.sends(connect("c"));
    drains(&shard, 0);
    shard.clock_advances_ms(1_000);
    client.hears(refused(ReasonCode::ServerUnavailable));
}

#[test]
fn a_draining_node_takes_nobody_and_tells_everybody() {
    let shard = Shard::new();
    let new = shard.connects(&connect("new"));
    let old = shard.connects(&connect_311("old"));
    let silent = shard.client();
    let device = opens(&shard, "/v1/devices/d/socket", "holdfast.v1");
    heard_behind_upgrade(&device);
    assert!(!shard.stage().engine.is_drained());
    drains(&shard, 0);
    new.hears_goodbye(CloseReason::ServerShuttingDown);
    old.hears_the_end(CloseReason::ServerShuttingDown);
    silent.hears_the_end(CloseReason::ServerShuttingDown);
    let goodbye = String::from_utf8(cut_frame(&mut device.takes_bytes()).1).expect("text");
    assert!(goodbye.starts_with(r#"{"type":"goodbye","reason":"drain","retry_after_ms":"#), "{goodbye}");
    let accepted = shard.accepts(Listener::Mqtt, ProtocolVersion::V5);
    assert_eq!(accepted.err(), Some(AcceptRefused::Draining));
    assert!(shard.stage().engine.is_drained());
}

#[test]
fn goodbyes_are_spread_over_the_time_that_is_given() {
    let shard = Shard::new();
    let names: Vec<_> = (0..1_024).map(|number| format!("c{number}")).collect();
    for name in &names {
        shard.connects(&connect(name));
    }
    drains(&shard, 10_000);
    for tenth in 0..10_u32 {
        let left = shard.stage().engine.connections();
        assert!(left.abs_diff(1_024 - 102 * tenth) <= 10, "{left} are left after {tenth} tenths");
        shard.clock_advances_ms(1_000);
    }
    assert_eq!(shard.stage().engine.connections(), 0);
}

#[test]
fn owed_acknowledgements_are_given_before_the_goodbye() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.sends(qos1(1, "t", "x"));
    drains(&shard, 0);
    client.hears_nothing();
    // Nothing more is taken from it.
    client.sends(qos1(2, "t", "y"));
    assert!(client.unread() > 0);
    shard.bridge(0).settles(1..=1);
    shard.clock_advances_ms(50);
    client.hears(PubAck::success(id(1)));
    client.hears_goodbye(CloseReason::ServerShuttingDown);
    assert!(shard.stage().engine.is_drained());
}

#[test]
fn an_acknowledgement_that_never_comes_holds_the_drain_only_so_long() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.sends(qos1(1, "t", "x"));
    drains(&shard, 1_000);
    shard.clock_advances_ms(5_900);
    client.hears_nothing();
    shard.clock_advances_ms(200);
    client.hears_goodbye(CloseReason::ServerShuttingDown);
    // The frame is still on its way to the bridge.
    assert!(!shard.stage().engine.is_drained());
    shard.bridge(0).settles(1..=1);
    assert!(shard.stage().engine.is_drained());
}

#[test]
fn sessions_are_saved_and_wills_published_before_it_is_over() {
    let shard = Shard::new();
    let client = shard.connects(&Connect { will: Some(will("gone", "c")), ..resume("c") });
    shard.store_holds();
    drains(&shard, 0);
    client.hears_goodbye(CloseReason::ServerShuttingDown);
    shard.bridge(0).hears_uplink("gone", "c");
    assert!(!shard.stage().engine.is_drained());
    shard.bridge(0).settles(1..=1);
    assert!(!shard.stage().engine.is_drained());
    shard.store_answers();
    assert!(shard.stage().engine.is_drained());
}

#[test]
fn wills_with_a_delay_are_left_to_the_store_and_not_waited_for() {
    let shard = Shard::new();
    let properties = WillProperties { delay_interval_s: Some(60), ..WillProperties::default() };
    let client =
        shard.connects(&Connect { will: Some(Will { properties, ..will("gone", "c") }), ..resume("c") });
    shard.store_was_asked();
    drains(&shard, 0);
    client.hears_goodbye(CloseReason::ServerShuttingDown);
    assert!(matches!(&shard.store_was_asked()[..], [Request::Close { will: Some(_), .. }]));
    shard.bridge(0).hears_nothing();
    assert!(shard.stage().engine.is_drained());
}
