//! The way up: PUBLISH to the bridge, and its acknowledgement back.

use holdfast_engine::{CloseReason, EngineConfig, MqttConfig};
use holdfast_wire::mqtt::{
    Connect, PubAck, PubComp, PubRec, PubRel, Publish, PublishProperties, QoS, ReasonCode, UserProperties,
};

use crate::packets::{connect, connect_311, expiring, id, qos0, qos1, qos2, resume};
use crate::stage::Shard;

fn announcing(mqtt: MqttConfig) -> Shard {
    Shard::with(EngineConfig { mqtt, ..EngineConfig::default() })
}

#[test]
fn qos_0_goes_up_and_is_owed_nothing() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.sends(qos0("t", "hello"));
    let uplink = shard.bridge(0).hears_uplink("t", "hello");
    assert_eq!((uplink.sequence, uplink.packet_id, uplink.dup, uplink.resent), (1, None, false, false));
    assert_eq!(uplink.message.view().publisher, "c");
    shard.bridge(0).settles(1..=1);
    client.hears_nothing();
}

#[test]
fn puback_waits_until_the_bridge_has_settled() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.sends(qos1(7, "t", "hello"));
    let uplink = shard.bridge(0).hears_uplink("t", "hello");
    assert_eq!((uplink.packet_id, uplink.epoch), (Some(7), shard.epoch_of("c")));
    client.hears_nothing();
    assert_eq!(shard.device("c").owed, 1);
    shard.bridge(0).settles(1..=1);
    client.hears(PubAck::success(id(7)));
    assert_eq!((shard.device("c").owed, shard.stats().acknowledged), (0, 1));
}

#[test]
fn acknowledgements_leave_in_the_order_of_the_publications_and_with_one_write() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    for packet_id in [5, 3, 4] {
        client.sends(qos1(packet_id, "t", "x"));
    }
    shard.bridge(0).settles(3..=3);
    shard.bridge(0).settles(2..=2);
    client.hears_nothing();
    let writes = client.writes();
    shard.bridge(0).settles(1..=1);
    for packet_id in [5, 3, 4] {
        client.hears(PubAck::success(id(packet_id)));
    }
    assert_eq!(client.writes(), writes + 1);
}

#[test]
fn qos_2_is_received_released_and_completed() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.sends(qos2(7, "t", "once"));
    client.hears_nothing();
    shard.bridge(0).hears_uplink("t", "once");
    shard.bridge(0).settles(1..=1);
    client.hears(PubRec::success(id(7)));
    // The same again before its release is answered and not passed on (MQTT-4.3.3-10).
    client.sends(Publish { dup: true, ..qos2(7, "t", "once") });
    client.hears(PubRec::success(id(7)));
    shard.bridge(0).hears_nothing();
    client.sends(PubRel::success(id(7)));
    client.hears(PubComp::success(id(7)));
    // The id is free again.
    client.sends(qos2(7, "t", "another"));
    shard.bridge(0).hears_uplink("t", "another");
}

#[test]
fn a_publication_that_is_on_its_way_is_not_passed_on_again() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.sends(qos1(7, "t", "x"));
    client.sends(Publish { dup: true, ..qos1(7, "t", "x") });
    shard.bridge(0).hears_uplink("t", "x");
    shard.bridge(0).hears_nothing();
    shard.bridge(0).settles(1..=1);
    client.hears(PubAck::success(id(7)));
    client.hears_nothing();
}

#[test]
fn dup_is_told_to_the_bridge() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.sends(Publish { dup: true, ..qos1(7, "t", "x") });
    assert!(shard.bridge(0).hears_uplink("t", "x").dup);
}

#[test]
fn an_unknown_release_is_completed_with_what_the_version_can_say() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.sends(PubRel::success(id(9)));
    client.hears(PubComp::with_reason(id(9), ReasonCode::PacketIdentifierNotFound));
    let old = shard.connects(&connect_311("old"));
    old.sends(PubRel::success(id(9)));
    old.hears(PubComp::success(id(9)));
}

#[test]
fn a_refusal_for_good_is_told_in_version_5() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.sends(qos1(1, "t", "x"));
    client.sends(qos2(2, "t", "x"));
    client.sends(qos1(3, "t", "x"));
    shard.bridge(0).refuses(1..=2, u8::from(ReasonCode::QuotaExceeded));
    client.hears(PubAck::with_reason(id(1), ReasonCode::QuotaExceeded));
    client.hears(PubRec::with_reason(id(2), ReasonCode::QuotaExceeded));
    shard.bridge(0).settles(3..=3);
    client.hears(PubAck::success(id(3)));
    // A refused QoS 2 publication has no second half: its id is free.
    client.sends(qos2(2, "t", "again"));
    shard.bridge(0).forgets();
    shard.bridge(0).settles(4..=4);
    client.hears(PubRec::success(id(2)));
    assert_eq!(shard.stats().refused, 2);
}

#[test]
fn a_session_that_the_bridge_heard_from_elsewhere_is_over_here() {
    for is_old in [false, true] {
        let shard = Shard::new();
        let client = shard.connects(&if is_old { connect_311("c") } else { connect("c") });
        client.sends(qos1(1, "t", "x"));
        client.sends(qos1(2, "t", "x"));
        shard.bridge(0).refuses(1..=1, u8::from(ReasonCode::SessionTakenOver));
        if is_old {
            client.hears_the_end(CloseReason::Fenced);
        } else {
            client.hears_goodbye(CloseReason::Fenced);
        }
    }
}

#[test]
fn a_code_that_the_acknowledgement_may_not_carry_is_told_as_another() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.sends(qos1(1, "t", "x"));
    shard.bridge(0).refuses(1..=1, 0xFF);
    client.hears(PubAck::with_reason(id(1), ReasonCode::ImplementationSpecificError));
}

#[test]
fn a_refusal_for_good_closes_an_older_connection() {
    let shard = Shard::new();
    let client = shard.connects(&connect_311("c"));
    client.sends(qos1(1, "t", "x"));
    client.sends(qos1(2, "t", "x"));
    shard.bridge(0).settles(1..=1);
    client.hears(PubAck::success(id(1)));
    shard.bridge(0).refuses(2..=2, u8::from(ReasonCode::QuotaExceeded));
    client.hears_the_end(CloseReason::PublicationRefused);
}

#[test]
fn more_than_the_receive_maximum_ends_a_connection_of_version_5() {
    let shard = announcing(MqttConfig { receive_maximum: 2, ..MqttConfig::default() });
    let client = shard.connects(&connect("c"));
    client.sends(qos1(1, "t", "x"));
    client.sends(qos2(2, "t", "x"));
    client.hears_nothing();
    client.sends(qos0("t", "does not count"));
    client.hears_nothing();
    client.sends(qos1(3, "t", "x"));
    client.hears_goodbye(CloseReason::ReceiveMaximumExceeded);
}

#[test]
fn an_older_client_is_held_back_at_the_receive_maximum_it_cannot_know() {
    let shard = announcing(MqttConfig { receive_maximum: 2, ..MqttConfig::default() });
    let client = shard.connects(&connect_311("c"));
    for packet_id in 1..=5 {
        client.sends(qos1(packet_id, "t", "x"));
    }
    for _ in 0..2 {
        shard.bridge(0).hears_uplink("t", "x");
    }
    shard.bridge(0).hears_nothing();
    shard.bridge(0).settles(1..=1);
    client.hears(PubAck::success(id(1)));
    shard.bridge(0).hears_uplink("t", "x");
    shard.bridge(0).hears_nothing();
    shard.bridge(0).settles(2..=3);
    shard.bridge(0).settles(4..=5);
    for packet_id in 2..=5 {
        client.hears(PubAck::success(id(packet_id)));
    }
}

#[test]
fn qos_and_retain_beyond_what_was_announced_end_the_connection() {
    let shard = announcing(MqttConfig {
        maximum_qos: QoS::AtLeastOnce,
        retain_available: false,
        ..MqttConfig::default()
    });
    let client = shard.connects(&connect("c"));
    client.sends(qos2(1, "t", "x"));
    client.hears_goodbye(CloseReason::QosNotSupported);
    let client = shard.connects(&connect("c"));
    client.sends(Publish { retain: true, ..qos0("t", "x") });
    client.hears_goodbye(CloseReason::RetainNotSupported);
}

#[test]
fn what_belongs_to_a_publication_goes_along_and_user_properties_keep_their_order() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    let pairs = [("b", "1"), ("a", "2"), ("b", "3"), ("event-time", "1700000000123")];
    let properties = PublishProperties {
        payload_format_indicator: Some(true),
        message_expiry_interval_s: Some(60),
        topic_alias: Some(3),
        response_topic: Some("answers"),
        correlation_data: Some(&[1, 2]),
        user_properties: UserProperties::from(&pairs[..]),
        content_type: Some("text/plain"),
        ..PublishProperties::default()
    };
    client.sends(Publish { retain: true, properties, ..qos1(1, "t", "x") });
    let uplink = shard.bridge(0).hears_uplink("t", "x");
    let view = uplink.message.view();
    assert!(view.retain);
    assert_eq!(uplink.event_time_ms, 1_700_000_000_123);
    assert_eq!(view.expires_at_ms, view.published_at_ms + 60_000);
    let forwarded = PublishProperties::decode_block(view.properties).expect("a property block");
    let expected = PublishProperties { message_expiry_interval_s: None, topic_alias: None, ..properties };
    assert_eq!(forwarded, expected);
    assert_eq!(forwarded.user_properties.iter().collect::<Vec<_>>(), pairs);
}

#[test]
fn a_topic_alias_stands_for_the_topic_last_given_to_it() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    let aliased = |topic, payload| Publish {
        properties: PublishProperties { topic_alias: Some(16), ..PublishProperties::default() },
        ..qos0(topic, payload)
    };
    client.sends(aliased("first", "1"));
    client.sends(aliased("", "2"));
    client.sends(aliased("second", "3"));
    client.sends(aliased("", "4"));
    for (topic, payload) in [("first", "1"), ("first", "2"), ("second", "3"), ("second", "4")] {
        shard.bridge(0).hears_uplink(topic, payload);
    }
}

#[test]
fn a_topic_alias_that_means_nothing_ends_the_connection() {
    let shard = Shard::new();
    for (alias, topic) in [(1, ""), (17, "t"), (17, "")] {
        let client = shard.connects(&connect("c"));
        let properties = PublishProperties { topic_alias: Some(alias), ..PublishProperties::default() };
        client.sends(Publish { properties, ..qos0(topic, "x") });
        client.hears_goodbye(CloseReason::TopicAliasInvalid);
    }
    shard.bridge(0).hears_nothing();
}

#[test]
fn aliases_die_with_their_connection() {
    let shard = Shard::new();
    let properties = PublishProperties { topic_alias: Some(1), ..PublishProperties::default() };
    let client = shard.connects(&resume("c"));
    client.sends(Publish { properties, ..qos0("t", "x") });
    client.vanishes();
    let client = shard.connects(&resume("c"));
    client.sends(Publish { properties, ..qos0("", "x") });
    client.hears_goodbye(CloseReason::TopicAliasInvalid);
}

#[test]
fn received_qos_2_ids_outlive_the_connection_but_not_the_session() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.sends(qos2(7, "t", "once"));
    shard.bridge(0).hears_uplink("t", "once");
    shard.bridge(0).settles(1..=1);
    client.hears(PubRec::success(id(7)));
    client.vanishes();
    let client = shard.connects(&resume("c"));
    client.sends(Publish { dup: true, ..qos2(7, "t", "once") });
    client.hears(PubRec::success(id(7)));
    shard.bridge(0).hears_nothing();
    client.vanishes();
    let client = shard.connects(&Connect { properties: expiring(60), ..connect("c") });
    client.sends(qos2(7, "t", "anew"));
    shard.bridge(0).hears_uplink("t", "anew");
}

#[test]
fn a_settlement_for_a_connection_that_is_gone_harms_nobody() {
    let shard = Shard::new();
    let first = shard.connects(&connect("c"));
    first.sends(qos1(1, "t", "x"));
    first.vanishes();
    let second = shard.connects(&connect("d"));
    assert_eq!(first.id.slot, second.id.slot, "the slot is used again");
    second.sends(qos1(1, "t", "y"));
    shard.bridge(0).settles(1..=1);
    second.hears_nothing();
    shard.bridge(0).settles(2..=2);
    second.hears(PubAck::success(id(1)));
}

#[test]
fn a_bridge_that_settles_what_was_never_sent_is_not_believed() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.sends(qos1(1, "t", "x"));
    shard.bridge(0).settles(2..=u64::MAX);
    shard.bridge(0).settles(0..=0);
    client.hears_nothing();
    shard.bridge(0).settles(0..=u64::MAX);
    client.hears(PubAck::success(id(1)));
    client.hears_nothing();
}
