//! Keep alive: one and a half times what was agreed on, counted from the last whole packet.

use holdfast_engine::{CloseReason, EngineConfig, MqttConfig};
use holdfast_wire::mqtt::{Connect, Packet};

use crate::packets::{accepted_311, connect, connect_311, qos0};
use crate::stage::Shard;

#[test]
fn silence_of_one_and_a_half_keep_alives_ends_a_connection() {
    let shard = Shard::new();
    let client = shard.connects(&Connect { keep_alive_s: 10, ..connect("c") });
    let old = shard.connects(&Connect { keep_alive_s: 10, ..connect_311("old") });
    shard.clock_advances_ms(14_900);
    client.hears_nothing();
    shard.clock_advances_ms(600);
    client.hears_goodbye(CloseReason::KeepAliveTimeout);
    old.hears_the_end(CloseReason::KeepAliveTimeout);
}

#[test]
fn any_packet_keeps_a_connection_alive() {
    let shard = Shard::new();
    let client = shard.connects(&Connect { keep_alive_s: 10, ..connect("c") });
    for _ in 0..5 {
        shard.clock_advances_ms(14_000);
        client.sends(Packet::PingReq);
        client.hears(Packet::PingResp);
        shard.clock_advances_ms(14_000);
        client.sends(qos0("t", "alive"));
    }
    client.hears_nothing();
}

#[test]
fn a_byte_a_second_does_not_keep_a_connection_alive() {
    let shard = Shard::new();
    let client = shard.connects(&Connect { keep_alive_s: 10, ..connect("c") });
    let bytes = client.bytes_of(&qos0("t", "a payload that takes long"));
    for byte in &bytes[..15] {
        client.hears_nothing();
        client.sends_bytes(&[*byte]);
        shard.clock_advances_ms(1_000);
    }
    shard.clock_advances_ms(500);
    client.hears_goodbye(CloseReason::KeepAliveTimeout);
}

#[test]
fn without_a_keep_alive_silence_is_fine() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    shard.clock_advances_ms(30 * 24 * 3_600_000);
    client.hears_nothing();
}

#[test]
fn the_servers_keep_alive_holds_for_version_5() {
    let mqtt = MqttConfig { server_keep_alive_s_max: 20, ..MqttConfig::default() };
    let shard = Shard::with(EngineConfig { mqtt, ..EngineConfig::default() });
    let client = shard.connects(&Connect { keep_alive_s: 3_600, ..connect("c") });
    shard.clock_advances_ms(30_500);
    client.hears_goodbye(CloseReason::KeepAliveTimeout);
}

#[test]
fn a_connection_that_we_do_not_read_is_not_blamed_for_its_silence() {
    let shard = Shard::without_links(EngineConfig::default(), 1);
    shard.bridge(0).comes_up_with_window(1);
    let client = shard.client_311();
    client.sends(Connect { keep_alive_s: 10, ..connect_311("c") });
    client.hears(accepted_311(false));
    client.sends(crate::packets::qos1(1, "t", "fills the window"));
    client.sends(crate::packets::qos1(2, "t", "waits"));
    shard.clock_advances_ms(60_000);
    client.hears_nothing();
    // From the moment it is read again, its own time runs.
    shard.bridge(0).settles(1..=1);
    shard.bridge(0).settles(2..=2);
    client.takes_bytes();
    shard.clock_advances_ms(14_500);
    client.hears_nothing();
    shard.clock_advances_ms(1_000);
    client.hears_the_end(CloseReason::KeepAliveTimeout);
}
