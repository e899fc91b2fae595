//! CONNECT, CONNACK, and every way to be refused.

use holdfast_engine::{AcceptRefused, CloseReason, EngineConfig, LeaseWord, Limits, Listener, MqttConfig};
use holdfast_wire::mqtt::{
    ConnAck, ConnAckProperties, Connect, ConnectProperties, Packet, ProtocolVersion, PubAck, QoS, ReasonCode,
    Will,
};
use holdfast_wire::store::Request;

use crate::client::Sayable;
use crate::packets::{
    AT_LEAST_ONCE, accepted, accepted_311, connect, connect_311, expiring, goodbye, id, message, qos1,
    refused, resume, resume_311, resumed, will,
};
use crate::stage::Shard;

fn limited(limits: Limits) -> Shard {
    Shard::with(EngineConfig { limits, ..EngineConfig::default() })
}

fn announcing(mqtt: MqttConfig) -> Shard {
    Shard::with(EngineConfig { mqtt, ..EngineConfig::default() })
}

/// CONNECT is refused with this code in either version (3.1.1 has return codes of its own), and the connection ends.
#[track_caller]
fn refuses(shard: &Shard, wanted: &Connect<'_>, reason: CloseReason) {
    let client = shard.accepts(Listener::Mqtt, wanted.version).expect("there is room");
    client.sends(*wanted);
    client.hears(refused(reason.reason_code().expect("it has one")));
    client.hears_the_end(reason);
}

#[test]
fn clients_of_both_versions_are_welcomed() {
    let shard = Shard::new();
    let new = shard.client();
    new.sends(connect("new"));
    new.hears(accepted());
    let old = shard.client_311();
    old.sends(connect_311("old"));
    old.hears(accepted_311(false));
    assert_eq!((shard.stats().connects, shard.stage().engine.half_open()), (2, 0));
}

#[test]
fn connack_waits_until_the_store_has_opened_the_session() {
    let shard = Shard::new();
    shard.store_holds();
    let client = shard.client();
    client.sends(connect("c"));
    client.hears_nothing();
    shard.store_answers();
    client.hears(accepted());
}

#[test]
fn a_connect_may_come_byte_by_byte() {
    let shard = Shard::new();
    let client = shard.client();
    for byte in client.bytes_of(&connect("c")) {
        client.hears_nothing();
        client.sends_bytes(&[byte]);
    }
    client.hears(accepted());
}

#[test]
fn what_comes_behind_connect_is_taken_once_the_session_stands() {
    let shard = Shard::new();
    shard.store_holds();
    let client = shard.client();
    let mut bytes = client.bytes_of(&connect("c"));
    bytes.extend(client.bytes_of(&qos1(1, "t", "early")));
    client.sends_bytes(&bytes);
    client.sends(qos1(2, "t", "later"));
    shard.bridge(0).hears_nothing();
    shard.store_answers();
    client.hears(accepted());
    shard.bridge(0).hears_uplink("t", "early");
    shard.bridge(0).hears_uplink("t", "later");
    shard.bridge(0).settles(1..=2);
    client.hears(PubAck::success(id(1)));
    client.hears(PubAck::success(id(2)));
}

#[test]
fn a_client_without_an_id_is_given_one_and_told() {
    let shard = Shard::new();
    let client = shard.client();
    client.sends(connect(""));
    let heard = client.hears_packet();
    let expected = client.bytes_of(&accepted());
    assert!(heard.len() > expected.len());
    let text = String::from_utf8_lossy(&heard);
    let assigned = &text[text.find("holdfast-").expect("an id is assigned")..];
    assert!(shard.stage().engine.device(&assigned[..41]).is_some(), "{assigned}");
    // 3.1.1 is not told, but connected all the same (3.1.1, MQTT-3.1.3-6).
    shard.connects(&connect_311(""));
    // And only with a clean session (3.1.1, MQTT-3.1.3-8).
    refuses(
        &shard,
        &Connect { clean_start: false, ..connect_311("") },
        CloseReason::ClientIdentifierNotValid,
    );
}

#[test]
fn a_client_is_told_where_it_is_granted_less_than_it_asked_for() {
    let shard = announcing(MqttConfig {
        session_expiry_s_max: 60,
        server_keep_alive_s_max: 30,
        maximum_qos: QoS::AtLeastOnce,
        retain_available: false,
        wildcard_subscription_available: false,
        subscription_identifier_available: false,
        shared_subscription_available: false,
        topic_alias_maximum: 0,
        receive_maximum: u16::MAX,
        ..MqttConfig::default()
    });
    let client = shard.client();
    client.sends(Connect { keep_alive_s: 0, properties: expiring(61), ..connect("c") });
    client.hears(ConnAck {
        properties: ConnAckProperties {
            session_expiry_interval_s: Some(60),
            server_keep_alive_s: Some(30),
            maximum_qos: Some(QoS::AtLeastOnce),
            retain_available: Some(false),
            wildcard_subscription_available: Some(false),
            subscription_identifiers_available: Some(false),
            shared_subscription_available: Some(false),
            maximum_packet_size: Some(1 << 20),
            ..ConnAckProperties::default()
        },
        ..accepted()
    });
    let modest = shard.client();
    modest.sends(Connect { keep_alive_s: 30, properties: expiring(60), ..connect("d") });
    let heard = modest.hears_packet();
    let told = ConnAckProperties {
        maximum_qos: Some(QoS::AtLeastOnce),
        retain_available: Some(false),
        wildcard_subscription_available: Some(false),
        subscription_identifiers_available: Some(false),
        shared_subscription_available: Some(false),
        maximum_packet_size: Some(1 << 20),
        ..ConnAckProperties::default()
    };
    assert_eq!(heard, modest.bytes_of(&ConnAck { properties: told, ..accepted() }));
}

#[test]
fn an_older_client_keeps_its_own_keep_alive() {
    let shard = announcing(MqttConfig { server_keep_alive_s_max: 30, ..MqttConfig::default() });
    shard.connects(&Connect { keep_alive_s: 300, ..connect_311("c") });
    assert_eq!(shard.device("c").keep_alive_s, 300);
}

#[test]
fn an_unknown_version_is_refused_in_words_that_its_peer_understands() {
    let shard = Shard::new();
    for (level, version) in [(3, ProtocolVersion::V311), (6, ProtocolVersion::V5)] {
        let client = shard.accepts(Listener::Mqtt, version).expect("there is room");
        let mut bytes = client.bytes_of(&connect("c"));
        bytes[8] = level;
        client.sends_bytes(&bytes);
        client.hears(refused(ReasonCode::UnsupportedProtocolVersion));
        client.hears_the_end(CloseReason::UnsupportedProtocolVersion);
    }
}

#[test]
fn a_client_id_that_is_too_long_is_refused() {
    let shard = limited(Limits { client_id_bytes_max: 8, ..Limits::default() });
    refuses(&shard, &connect("123456789"), CloseReason::ClientIdentifierNotValid);
    refuses(&shard, &connect_311("123456789"), CloseReason::ClientIdentifierNotValid);
    shard.connects(&connect("12345678"));
}

#[test]
fn an_authentication_method_that_nobody_configured_is_refused() {
    let properties =
        ConnectProperties { authentication_method: Some("SCRAM-SHA-1"), ..ConnectProperties::default() };
    let wanted = Connect { properties, ..connect("c") };
    refuses(&Shard::new(), &wanted, CloseReason::BadAuthenticationMethod);
}

#[test]
fn a_will_beyond_what_the_server_announces_is_refused() {
    let shard = announcing(MqttConfig {
        maximum_qos: QoS::AtMostOnce,
        retain_available: false,
        ..MqttConfig::default()
    });
    let modest = Will { qos: QoS::AtMostOnce, ..will("t", "gone") };
    let wanted = Connect { will: Some(will("t", "gone")), ..connect("c") };
    refuses(&shard, &wanted, CloseReason::QosNotSupported);
    let wanted = Connect { will: Some(Will { retain: true, ..modest }), ..connect("c") };
    refuses(&shard, &wanted, CloseReason::RetainNotSupported);
    shard.connects(&Connect { will: Some(modest), ..connect("c") });
}

#[test]
fn without_a_store_a_client_hears_that_the_server_is_unavailable_once_it_has_waited() {
    let shard = Shard::new();
    shard.store_goes_away();
    let client = shard.client();
    client.sends(connect("c"));
    let old = shard.client_311();
    old.sends(connect_311("d"));
    shard.clock_advances_ms(9_750);
    client.hears_nothing();
    old.hears_nothing();
    shard.clock_advances_ms(500);
    for client in [client, old] {
        client.hears(refused(ReasonCode::ServerUnavailable));
        client.hears_the_end(CloseReason::StoreUnavailable);
    }
    shard.store_answers();
    shard.connects(&connect("c"));
}

#[test]
fn while_the_store_is_away_who_resumes_waits_in_vain_and_who_is_connected_notices_nothing() {
    let shard = Shard::new();
    let connected = shard.connects(&resume("connected"));
    connected.subscribes("down", AT_LEAST_ONCE);
    shard.bridge(0).forgets();
    shard.store_goes_away();
    let (waiting, old) = (shard.client(), shard.client_311());
    waiting.sends(resume("c"));
    old.sends(resume_311("d"));
    // For longer than any lease lasts, with something to save all the while.
    for number in 1..=10 {
        connected.sends(qos1(number, "up", "x"));
        shard.bridge(0).settles(u64::from(number)..=u64::from(number));
        connected.hears(PubAck::success(id(number)));
        shard.bridge(0).publishes(&message("down", "y"));
        connected.hears(qos1(number, "down", "y"));
        connected.acknowledges(number);
        shard.clock_advances_ms(1_000);
        shard.lease_says(LeaseWord::Unanswered);
    }
    shard.clock_advances_ms(250);
    for client in [waiting, old] {
        client.hears(refused(ReasonCode::ServerUnavailable));
        client.hears_the_end(CloseReason::StoreUnavailable);
    }
    shard.store_answers();
    shard.lease_says(LeaseWord::Recovered);
    shard.clock_advances_ms(2_000);
    connected.vanishes();
    let connected = shard.client();
    connected.sends(resume("connected"));
    connected.hears(resumed());
    connected.hears_nothing();
}

#[test]
fn a_store_that_never_answers_holds_a_connection_no_longer_than_a_connect_may_take() {
    let shard = Shard::new();
    shard.store_holds();
    let client = shard.client();
    client.sends(connect("c"));
    shard.clock_advances_ms(9_750);
    client.hears_nothing();
    shard.clock_advances_ms(500);
    client.hears(refused(ReasonCode::ServerUnavailable));
    client.hears_the_end(CloseReason::StoreUnavailable);
    // What it opens after all is closed again at once.
    shard.store_was_asked();
    shard.store_answers();
    assert!(matches!(&shard.store_was_asked()[..], [Request::Close { .. }]));
}

#[test]
fn a_connect_that_cannot_be_read_is_told_so_in_version_5_only() {
    let shard = Shard::new();
    let reserved_flag = |version, wanted: Connect<'_>| {
        let client = shard.accepts(Listener::Mqtt, version).expect("there is room");
        let mut bytes = client.bytes_of(&wanted);
        bytes[9] |= 1;
        client.sends_bytes(&bytes);
        client
    };
    let client = reserved_flag(ProtocolVersion::V5, connect("c"));
    client.hears(refused(ReasonCode::MalformedPacket));
    client.hears_the_end(CloseReason::MalformedPacket);
    reserved_flag(ProtocolVersion::V311, connect_311("c")).hears_the_end(CloseReason::MalformedPacket);
}

#[test]
fn whoever_does_not_begin_with_connect_hears_nothing() {
    let shard = Shard::new();
    let client = shard.client();
    client.sends(Packet::PingReq);
    client.hears_the_end(CloseReason::NotConnectFirst);
    assert_eq!(shard.stage().engine.half_open(), 0);
}

#[test]
fn a_second_connect_is_a_protocol_error() {
    let client = Shard::new().connects(&connect("c"));
    client.sends(connect("c"));
    client.hears_goodbye(CloseReason::SecondConnect);
}

#[test]
fn a_socket_that_says_nothing_or_only_drips_is_closed_in_time() {
    let shard = Shard::new();
    let silent = shard.client();
    let dripping = shard.client();
    let bytes = dripping.bytes_of(&connect("c"));
    for byte in &bytes[..10] {
        shard.clock_advances_ms(900);
        dripping.sends_bytes(&[*byte]);
    }
    silent.hears_nothing();
    shard.clock_advances_ms(1_250);
    silent.hears_the_end(CloseReason::ConnectTimeout);
    dripping.hears_the_end(CloseReason::ConnectTimeout);
    assert_eq!(shard.stage().engine.connections(), 0);
}

#[test]
fn no_more_sockets_are_taken_than_there_is_room_for() {
    let shard = limited(Limits { connections_max: 2, half_open_max: 1, ..Limits::default() });
    let accepts = || shard.accepts(Listener::Mqtt, ProtocolVersion::V5);
    let first = accepts().expect("there is room");
    assert_eq!(accepts().err(), Some(AcceptRefused::TooManyHalfOpen));
    first.sends(connect("c"));
    first.hears_acceptance();
    accepts().expect("there is room again").sends(connect("d"));
    assert_eq!(accepts().err(), Some(AcceptRefused::Full));
    first.vanishes();
    accepts().expect("a place is free");
    assert_eq!(shard.stats().accept_refused, 2);
}

#[test]
fn a_client_that_wants_no_problem_information_is_given_no_reason_string() {
    let properties =
        ConnectProperties { request_problem_information: Some(false), ..ConnectProperties::default() };
    let client = Shard::new().connects(&Connect { properties, ..connect("c") });
    client.sends(connect("c"));
    let mut expected = goodbye(CloseReason::SecondConnect);
    expected.properties.reason_string = None;
    assert!(matches!(expected.packet(), Packet::Disconnect(_)));
    client.hears(expected);
    client.hears_the_end(CloseReason::SecondConnect);
}

#[test]
fn a_connection_that_ends_while_its_session_is_opened_leaves_nothing_behind() {
    let shard = Shard::new();
    shard.store_holds();
    let client = shard.client();
    client.sends(Connect { properties: expiring(60), ..connect("c") });
    client.vanishes();
    shard.store_was_asked();
    shard.store_answers();
    assert!(matches!(&shard.store_was_asked()[..], [Request::Close { expiry_s: 60, .. }]));
    assert_eq!(shard.stage().engine.connections(), 0);
}
