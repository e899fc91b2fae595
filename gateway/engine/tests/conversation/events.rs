//! The book of connections: what a bridge is told of those that begin and end.

use holdfast_engine::EngineConfig;
use holdfast_wire::link::{Takeover, ToGateway};
use holdfast_wire::mqtt::{Disconnect, ReasonCode};

use crate::packets::{connect, connect_311, resume};
use crate::stage::Shard;
use crate::websocket::opens;

fn telling() -> Shard {
    Shard::with(EngineConfig { events: true, ..EngineConfig::default() })
}

#[test]
fn beginnings_and_ends_are_told_in_order() {
    let shard = telling();
    let client = shard.connects(&resume("c"));
    let first = shard.epoch_of("c");
    shard.bridge(0).hears_event("c", first, "connected mqtt-5 for 3600");
    shard.clock_advances_ms(5_000);
    client.vanishes();
    shard.bridge(0).hears_event("c", first, "disconnected peer_reset");
    let client = shard.connects(&resume("c"));
    let second = shard.epoch_of("c");
    assert!(second > first);
    shard.bridge(0).hears_event("c", second, "connected mqtt-5 present for 3600");
    client.sends(Disconnect::with_reason(ReasonCode::Success));
    shard.bridge(0).hears_event("c", second, "disconnected client_disconnected");
    shard.bridge(0).hears_nothing();
}

#[test]
fn each_protocol_is_told_by_its_name_and_a_session_without_expiry_ends_for_good() {
    let shard = telling();
    let client = shard.connects(&connect_311("c"));
    let epoch = shard.epoch_of("c");
    shard.bridge(0).hears_event("c", epoch, "connected mqtt-3.1.1");
    client.vanishes();
    shard.bridge(0).hears_event("c", epoch, "disconnected peer_reset for good");
    let device = opens(&shard, "/v1/devices/d/socket", "holdfast.v1");
    let epoch = shard.epoch_of("d");
    shard.bridge(0).hears_event("d", epoch, "connected json");
    device.vanishes();
    shard.bridge(0).hears_event("d", epoch, "disconnected peer_reset for good");
}

#[test]
fn a_takeover_is_told_in_place_of_the_end() {
    let shard = telling();
    let _first = shard.connects(&resume("c"));
    let epoch = shard.epoch_of("c");
    shard.bridge(0).hears_event("c", epoch, "connected mqtt-5 for 3600");
    let _second = shard.connects(&resume("c"));
    shard.bridge(0).hears_event("c", epoch, "taken over");
    let epoch = shard.epoch_of("c");
    shard.bridge(0).hears_event("c", epoch, "connected mqtt-5 present for 3600");
    let elsewhere = shard.opened_elsewhere("c", 3_600).epoch;
    shard.bridge(0).says(&ToGateway::Takeover(Takeover {
        client: "c",
        epoch: elsewhere,
        former: Shard::OWNER,
        owner: Shard::OTHER,
    }));
    shard.bridge(0).hears_event("c", epoch, "taken over");
}

#[test]
fn one_that_was_never_accepted_is_not_told() {
    let shard = telling();
    shard.store_holds();
    let client = shard.client();
    client.sends(resume("c"));
    client.vanishes();
    shard.store_answers();
    shard.bridge(0).hears_nothing();
}

#[test]
fn without_a_link_events_are_dropped_and_counted() {
    let shard = telling();
    shard.bridge(0).goes_down();
    shard.connects(&connect("c")).vanishes();
    assert_eq!(shard.stats().events_dropped, 2);
    shard.bridge(0).comes_up();
    shard.bridge(0).hears_nothing();
}

#[test]
fn nothing_is_told_where_nobody_keeps_a_book() {
    let shard = Shard::new();
    shard.connects(&connect("c")).vanishes();
    shard.bridge(0).hears_nothing();
    shard.bridge(0).goes_down();
    shard.connects(&connect("c")).vanishes();
    assert_eq!(shard.stats().events_dropped, 0);
}
