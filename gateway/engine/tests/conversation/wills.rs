//! Wills: when they are published, when not, and when later.

use holdfast_engine::{CloseReason, EngineConfig};
use holdfast_wire::mqtt::{Connect, Disconnect, Packet, ReasonCode, UserProperties, Will, WillProperties};

use crate::packets::{connect, connect_311, expiring, resume, will};
use crate::stage::Shard;

fn with_will(client_id: &str) -> Connect<'_> {
    Connect { will: Some(will("gone", "alas")), ..connect(client_id) }
}

fn delayed(delay_s: u32) -> Will<'static> {
    let properties = WillProperties { delay_interval_s: Some(delay_s), ..WillProperties::default() };
    Will { properties, ..will("gone", "alas") }
}

#[test]
fn a_client_that_vanishes_leaves_its_will() {
    let shard = Shard::new();
    shard.connects(&with_will("c")).vanishes();
    let uplink = shard.bridge(0).hears_uplink("gone", "alas");
    assert_eq!((uplink.packet_id, uplink.message.view().publisher), (None, "c"));
    assert_eq!(shard.stats().wills, 1);
}

#[test]
fn a_proper_goodbye_takes_the_will_back() {
    let shard = Shard::new();
    for wanted in [with_will("c"), Connect { will: Some(will("gone", "alas")), ..connect_311("d") }] {
        let client = shard.connects(&wanted);
        client.sends(Disconnect::default());
        client.hears_the_end(CloseReason::ClientDisconnected);
    }
    shard.bridge(0).hears_nothing();
}

#[test]
fn a_goodbye_may_ask_for_the_will() {
    let shard = Shard::new();
    let client = shard.connects(&with_will("c"));
    client.sends(Disconnect::with_reason(ReasonCode::DisconnectWithWillMessage));
    client.hears_the_end(CloseReason::ClientDisconnectedWithWill);
    shard.bridge(0).hears_uplink("gone", "alas");
}

#[test]
fn a_client_that_is_thrown_out_leaves_its_will() {
    let shard = Shard::new();
    let client = shard.connects(&Connect { keep_alive_s: 10, ..with_will("c") });
    shard.clock_advances_ms(16_000);
    client.hears_goodbye(CloseReason::KeepAliveTimeout);
    shard.bridge(0).hears_uplink("gone", "alas");
    let client = shard.connects(&with_will("c"));
    client.sends(Packet::PingResp);
    client.hears_goodbye(CloseReason::ServerPacketFromClient);
    shard.bridge(0).hears_uplink("gone", "alas");
}

#[test]
fn a_will_carries_its_properties_and_expires_from_its_publication() {
    let shard = Shard::new();
    let pairs = [("b", "1"), ("a", "2")];
    let properties = WillProperties {
        message_expiry_interval_s: Some(60),
        content_type: Some("text/plain"),
        user_properties: UserProperties::from(&pairs[..]),
        ..WillProperties::default()
    };
    let client =
        shard.connects(&Connect { will: Some(Will { properties, ..will("gone", "x") }), ..connect("c") });
    shard.clock_advances_ms(600_000);
    client.vanishes();
    let uplink = shard.bridge(0).hears_uplink("gone", "x");
    let view = uplink.message.view();
    assert_eq!(view.published_at_ms, shard.stage().now.unix_ms);
    assert_eq!(view.expires_at_ms, view.published_at_ms + 60_000);
    let mut block = Vec::new();
    properties.encode_forwardable(&mut block);
    assert_eq!(view.properties, block);
}

#[test]
fn a_delayed_will_waits() {
    let shard = Shard::new();
    shard.connects(&Connect { will: Some(delayed(10)), ..resume("c") }).vanishes();
    shard.clock_advances_ms(9_999);
    shard.bridge(0).hears_nothing();
    shard.clock_advances_ms(1);
    shard.bridge(0).hears_uplink("gone", "alas");
}

#[test]
fn a_client_that_comes_back_in_time_cancels_its_delayed_will() {
    let shard = Shard::new();
    shard.connects(&Connect { will: Some(delayed(10)), ..resume("c") }).vanishes();
    shard.clock_advances_ms(5_000);
    let client = shard.connects(&resume("c"));
    shard.clock_advances_ms(3_600_000);
    shard.bridge(0).hears_nothing();
    client.vanishes();
    shard.bridge(0).hears_nothing();
}

#[test]
fn a_client_that_comes_back_elsewhere_cancels_it_too() {
    let shard = Shard::new();
    shard.connects(&Connect { will: Some(delayed(10)), ..resume("c") }).vanishes();
    shard.opened_elsewhere("c", 3_600);
    shard.clock_advances_ms(10_000);
    shard.bridge(0).hears_nothing();
}

#[test]
fn the_end_of_the_session_does_not_wait_for_the_delay() {
    let shard = Shard::new();
    let wanted = Connect { will: Some(delayed(60)), properties: expiring(5), ..connect("c") };
    shard.connects(&wanted).vanishes();
    shard.clock_advances_ms(5_000);
    shard.bridge(0).hears_uplink("gone", "alas");
    // A session that ends with its connection has nothing to wait for.
    shard.connects(&Connect { will: Some(delayed(60)), ..connect("d") }).vanishes();
    shard.bridge(0).hears_uplink("gone", "alas");
}

#[test]
fn a_clean_start_ends_the_session_and_publishes_its_will_at_once() {
    let shard = Shard::new();
    let _first = shard.connects(&Connect { will: Some(delayed(60)), ..resume("c") });
    let _second = shard.connects(&connect("c"));
    shard.bridge(0).hears_uplink("gone", "alas");
}

#[test]
fn a_takeover_here_cancels_a_delayed_will() {
    let shard = Shard::new();
    let _first = shard.connects(&Connect { will: Some(delayed(60)), ..resume("c") });
    let _second = shard.connects(&resume("c"));
    shard.clock_advances_ms(60_000);
    shard.bridge(0).hears_nothing();
}

#[test]
fn a_will_is_not_lost_where_there_is_no_bridge_or_no_credit() {
    let shard = Shard::without_links(EngineConfig::default(), 1);
    shard.connects(&with_will("c")).vanishes();
    shard.bridge(0).comes_up_with_window(1);
    shard.bridge(0).hears_uplink("gone", "alas");
    shard.connects(&with_will("d")).vanishes();
    shard.bridge(0).hears_uplink("gone", "alas");
    // Nor with a bridge that dies before it settled.
    shard.bridge(0).goes_down();
    shard.bridge(0).comes_up();
    assert!(shard.bridge(0).hears_uplink("gone", "alas").resent);
    assert!(shard.bridge(0).hears_uplink("gone", "alas").resent);
    shard.bridge(0).settles(3..=4);
}
