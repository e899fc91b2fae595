//! Devices that speak JSON over WebSocket.

use holdfast_engine::{CloseReason, EngineConfig, JsonConfig, MqttConfig};
use holdfast_wire::link::Outcome;
use holdfast_wire::message::Message;
use holdfast_wire::mqtt::{PublishProperties, QoS, UserProperties};

use crate::client::Client;
use crate::packets::{message, message0};
use crate::stage::Shard;
use crate::websocket::{TEXT, cut_frame, frame, heard_behind_upgrade, opens, whole};

/// A device that speaks JSON.
struct Device(Client);

impl Device {
    /// Connects and hears the welcome, which is given back.
    #[track_caller]
    fn connects(shard: &Shard, path: &str) -> (Self, String) {
        let client = opens(shard, path, "holdfast.v1");
        let mut heard = heard_behind_upgrade(&client);
        let (opcode, welcome) = cut_frame(&mut heard);
        assert_eq!((opcode, heard), (TEXT, Vec::new()));
        (Self(client), String::from_utf8(welcome).expect("text"))
    }

    fn sends(&self, text: &str) {
        self.0.sends_bytes(&whole(TEXT, text.as_bytes()));
    }

    /// The texts it has heard, and the code of a close frame as `close 1000`.
    fn heard(&self) -> Vec<String> {
        let mut bytes = self.0.takes_bytes();
        let mut heard = Vec::new();
        while !bytes.is_empty() {
            heard.push(match cut_frame(&mut bytes) {
                (TEXT, text) => String::from_utf8(text).expect("text"),
                (8, payload) => format!("close {}", u16::from_be_bytes([payload[0], payload[1]])),
                (other, _) => format!("frame {other}"),
            });
        }
        heard
    }

    #[track_caller]
    fn hears(&self, expected: &[&str]) {
        assert_eq!(self.heard(), expected);
    }
}

const D: &str = "/v1/devices/d-1/socket";

#[test]
fn a_device_is_welcomed_with_what_holds() {
    let shard = Shard::new();
    let (_device, welcome) = Device::connects(&shard, "/v1/devices/d-1/socket?session_expiry_s=60");
    let receive_maximum = MqttConfig::default().receive_maximum;
    assert_eq!(
        welcome,
        format!(
            "{{\"type\":\"welcome\",\"client_id\":\"d-1\",\"session_present\":false,\"session_expiry_s\":60,\
             \"keep_alive_s\":60,\"receive_maximum\":{receive_maximum},\"message_bytes_max\":1048576}}"
        )
    );
    let view = shard.device("d-1");
    assert_eq!((view.protocol, view.websocket, view.session_expiry_s), ("json", true, 60));
}

#[test]
fn a_frame_is_acknowledged_once_it_is_settled() {
    let shard = Shard::new();
    let (device, _) = Device::connects(&shard, D);
    device.sends(r#"{"type":"frame","id":7,"topic":"accel","ts":1732150000123,"data":{"x": 1}}"#);
    let uplink = shard.bridge(0).hears_uplink("accel", "{\"x\": 1}");
    assert_eq!((uplink.packet_id, uplink.event_time_ms), (Some(7), 1_732_150_000_123));
    let properties = PublishProperties::decode_block(uplink.message.view().properties).expect("a block");
    assert_eq!(properties.content_type, Some("application/json"));
    assert_eq!(properties.user_properties.find("event-time"), Some("1732150000123"));
    device.hears(&[]);
    shard.bridge(0).settles(1..=1);
    device.hears(&[r#"{"type":"ack","id":7}"#]);
}

#[test]
fn a_device_that_asks_is_told_where_its_frame_lies() {
    let shard = Shard::new();
    let (device, _) = Device::connects(&shard, "/v1/devices/d-1/socket?receipt=offset");
    for id in [7, 8] {
        device.sends(&format!(r#"{{"type":"frame","id":{id},"topic":"accel","data":1}}"#));
        assert!(shard.bridge(0).hears_uplink("accel", "1").wants_receipt);
    }
    shard.bridge(0).settles_at(2, "frames", 42);
    device.hears(&[]);
    shard.bridge(0).settles(1..=1);
    device.hears(&[
        r#"{"type":"ack","id":7}"#,
        r#"{"type":"ack","id":8,"receipt":{"topic":"frames","partition":3,"offset":42}}"#,
    ]);
}

#[test]
fn a_frame_without_an_id_is_qos_0() {
    let shard = Shard::new();
    let (device, _) = Device::connects(&shard, D);
    device.sends(r#"{"type":"frame","topic":"accel","data_base64":"AQI="}"#);
    let uplink = shard.bridge(0).hears_uplink("accel", "\u{1}\u{2}");
    assert_eq!((uplink.packet_id, uplink.message.view().qos), (None, QoS::AtMostOnce));
    shard.bridge(0).settles(1..=1);
    device.hears(&[]);
}

#[test]
fn a_frame_that_is_refused_for_good_is_answered_with_an_error() {
    let shard = Shard::new();
    let (device, _) = Device::connects(&shard, D);
    device.sends(r#"{"type":"frame","id":7,"topic":"accel","data":1}"#);
    shard.bridge(0).refuses(1..=1, 0x97);
    let heard = device.heard();
    assert!(heard[0].starts_with(r#"{"type":"error","id":7,"code":"refused""#), "{heard:?}");
}

#[test]
fn subscriptions_and_pushes_have_answers_of_their_own() {
    let shard = Shard::new();
    let (device, _) = Device::connects(&shard, D);
    device.sends(
        r#"{"type":"subscribe","id":1,"topics":["news/#",{"filter":"score","qos":0},{"filter":"a#","qos":1}]}"#,
    );
    device.hears(&[r#"{"type":"subscribed","id":1,"codes":[1,0,143]}"#]);
    shard.bridge(0).forgets();
    let pairs = [("event-time", "5")];
    let properties = PublishProperties {
        user_properties: UserProperties::from(&pairs[..]),
        ..PublishProperties::default()
    };
    let mut block = Vec::new();
    properties.encode_forwardable(&mut block);
    shard.bridge(0).pushes(3, "d-1", &Message { properties: &block, ..message("news/1", "[1, 2]") });
    device.hears(&[r#"{"type":"push","id":1,"topic":"news/1","ts":5,"data":[1, 2]}"#]);
    device.sends(r#"{"type":"ack","id":1}"#);
    shard.bridge(0).hears_report(3, Outcome::Delivered);
    shard.bridge(0).publishes(&message0("score", "not JSON"));
    device.hears(&[r#"{"type":"push","topic":"score","data_base64":"bm90IEpTT04="}"#]);
    device.sends(r#"{"type":"unsubscribe","id":2,"topics":["score"]}"#);
    device.hears(&[r#"{"type":"unsubscribed","id":2}"#]);
    shard.bridge(0).publishes(&message0("score", "1"));
    device.hears(&[]);
}

#[test]
fn a_configured_topic_is_subscribed_without_being_asked_for() {
    let json = JsonConfig { push_topic: "devices/{client_id}/push".to_owned(), ..JsonConfig::default() };
    let shard = Shard::with(EngineConfig { json, ..EngineConfig::default() });
    let (device, _) = Device::connects(&shard, "/v1/devices/d-1/socket?session_expiry_s=60");
    shard.bridge(0).pushes(1, "d-1", &message("devices/d-1/push", "1"));
    device.hears(&[r#"{"type":"push","id":1,"topic":"devices/d-1/push","data":1}"#]);
    device.0.vanishes();
    let (device, welcome) = Device::connects_again(&shard);
    assert!(welcome.contains("\"session_present\":true"));
    device.hears(&[]);
    assert_eq!(shard.device("d-1").subscriptions.len(), 1);
}

impl Device {
    /// Comes back to its session and hears the unanswered push again behind the welcome.
    #[track_caller]
    fn connects_again(shard: &Shard) -> (Self, String) {
        let client = opens(shard, "/v1/devices/d-1/socket?session_expiry_s=60", "holdfast.v1");
        let mut heard = heard_behind_upgrade(&client);
        let welcome = String::from_utf8(cut_frame(&mut heard).1).expect("text");
        let again = String::from_utf8(cut_frame(&mut heard).1).expect("text");
        assert_eq!(again, r#"{"type":"push","id":1,"dup":true,"topic":"devices/d-1/push","data":1}"#);
        (Self(client), welcome)
    }
}

#[test]
fn a_message_that_cannot_be_taken_is_answered_and_the_connection_goes_on() {
    let shard = Shard::new();
    let (device, _) = Device::connects(&shard, D);
    for (text, code) in [
        ("{", "malformed_json"),
        (r#"{"type":"dance","id":9}"#, "id\":9,\"code\":\""),
        (r#"{"type":"frame","id":9,"topic":"a/#","data":1}"#, "topic_invalid"),
        (r#"{"type":"frame","id":0,"topic":"a","data":1}"#, "\"code\":\""),
        (r#"{"type":"ack"}"#, "\"code\":\""),
    ] {
        device.sends(text);
        let heard = device.heard();
        assert_eq!(heard.len(), 1, "{text}");
        assert!(heard[0].starts_with(r#"{"type":"error""#) && heard[0].contains(code), "{heard:?}");
    }
    device.sends(r#"{"type":"ping"}"#);
    device.hears(&[r#"{"type":"pong"}"#]);
}

#[test]
fn a_text_may_come_in_pieces() {
    let shard = Shard::new();
    let (device, _) = Device::connects(&shard, D);
    let text = r#"{"type":"frame","topic":"a","data":"größer"}"#.as_bytes();
    let mut bytes = frame(TEXT, &text[..38]);
    bytes.extend(frame(0x00, &text[38..39]));
    bytes.extend(frame(0x80, &text[39..]));
    for byte in bytes {
        device.0.sends_bytes(&[byte]);
    }
    shard.bridge(0).hears_uplink("a", "\"größer\"");
}

#[test]
fn frames_wait_where_the_bridge_takes_no_more() {
    let shard = Shard::without_links(EngineConfig::default(), 1);
    shard.bridge(0).comes_up_with_window(1);
    let (device, _) = Device::connects(&shard, D);
    let mut bytes = Vec::new();
    for id in 1..=3 {
        let text = format!(r#"{{"type":"frame","id":{id},"topic":"t","data":{id}}}"#);
        bytes.extend(whole(TEXT, text.as_bytes()));
    }
    bytes.extend(whole(TEXT, br#"{"type":"ping"}"#));
    device.0.sends_bytes(&bytes);
    for id in 1..=3_u64 {
        shard.bridge(0).hears_uplink("t", &id.to_string());
        shard.bridge(0).hears_nothing();
        shard.bridge(0).settles(id..=id);
        let heard = device.heard();
        assert_eq!(heard[0], format!(r#"{{"type":"ack","id":{id}}}"#));
        assert_eq!(heard.len(), if id == 2 { 2 } else { 1 });
    }
}

#[test]
fn a_device_hears_why_it_is_closed() {
    let mqtt = MqttConfig { receive_maximum: 1, ..MqttConfig::default() };
    let shard = Shard::with(EngineConfig { mqtt, ..EngineConfig::default() });
    let (device, _) = Device::connects(&shard, D);
    device.sends(r#"{"type":"frame","id":1,"topic":"t","data":1}"#);
    device.sends(r#"{"type":"frame","id":2,"topic":"t","data":1}"#);
    device.hears(&[r#"{"type":"goodbye","reason":"receive_maximum_exceeded"}"#, "close 1008"]);
    let (first, _) = Device::connects(&shard, D);
    let (second, _) = Device::connects(&shard, D);
    first.hears(&[r#"{"type":"goodbye","reason":"takeover"}"#, "close 1008"]);
    second.0.sends_bytes(&whole(0x2, b"binary"));
    second.hears(&[r#"{"type":"goodbye","reason":"protocol_error"}"#, "close 1003"]);
    let (third, _) = Device::connects(&shard, D);
    shard.clock_advances_ms(91_000);
    third.hears(&[r#"{"type":"goodbye","reason":"keep_alive_timeout"}"#, "close 1001"]);
    third.0.hears_the_end(CloseReason::KeepAliveTimeout);
}

#[test]
fn a_devices_close_frame_is_its_goodbye() {
    let shard = Shard::new();
    let (device, _) = Device::connects(&shard, D);
    device.0.sends_bytes(&whole(0x8, &1000_u16.to_be_bytes()));
    device.hears(&["close 1000"]);
    device.0.hears_the_end(CloseReason::ClientDisconnected);
}

#[test]
fn a_websocket_ping_keeps_a_device_alive() {
    let shard = Shard::new();
    let (device, _) = Device::connects(&shard, "/v1/devices/d-1/socket?keep_alive_s=10");
    for _ in 0..5 {
        shard.clock_advances_ms(10_000);
        device.0.sends_bytes(&whole(0x9, b""));
        device.hears(&["frame 10"]);
    }
    shard.clock_advances_ms(16_000);
    device.hears(&[r#"{"type":"goodbye","reason":"keep_alive_timeout"}"#, "close 1001"]);
}

#[test]
fn without_a_store_a_device_is_told_when_to_come_again() {
    let shard = Shard::new();
    shard.store_goes_away();
    let client = opens(&shard, D, "holdfast.v1");
    shard.clock_advances_ms(10_250);
    let mut heard = heard_behind_upgrade(&client);
    let goodbye = String::from_utf8(cut_frame(&mut heard).1).expect("text");
    assert!(
        goodbye.starts_with(r#"{"type":"goodbye","reason":"server_busy","retry_after_ms":"#),
        "{goodbye}"
    );
    client.hears_the_end(CloseReason::StoreUnavailable);
}

#[test]
fn a_text_that_is_too_long_or_not_utf_8_ends_the_connection() {
    let mqtt = MqttConfig { maximum_packet_size: 1_024, ..MqttConfig::default() };
    let shard = Shard::with(EngineConfig { mqtt, ..EngineConfig::default() });
    let (device, _) = Device::connects(&shard, D);
    device.sends(&"x".repeat(1_025));
    device.hears(&[r#"{"type":"goodbye","reason":"too_large"}"#, "close 1009"]);
    let (device, _) = Device::connects(&shard, D);
    device.0.sends_bytes(&whole(TEXT, &[0xFF]));
    device.hears(&[r#"{"type":"goodbye","reason":"protocol_error"}"#, "close 1007"]);
}

#[test]
fn requests_beyond_those_that_may_be_unanswered_wait_their_turn() {
    let shard = Shard::new();
    let (device, _) = Device::connects(&shard, D);
    shard.bridge(0).holds_answers();
    for id in 1..=9 {
        device.sends(&format!(r#"{{"type":"subscribe","id":{id},"topics":["t/{id}"]}}"#));
    }
    device.sends(r#"{"type":"ping"}"#);
    let tokens: Vec<_> = (1..=8).map(|id| shard.bridge(0).hears_interest(&format!("+t/{id}"))).collect();
    shard.bridge(0).hears_nothing();
    device.hears(&[]);
    shard.bridge(0).knows(tokens[0]);
    shard.bridge(0).hears_retained_read("t/1");
    shard.bridge(0).hears_interest("+t/9");
    let heard = device.heard();
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(heard[0].contains("subscribed") && heard[1].contains("pong"), "{heard:?}");
}
