//! The way down: from a bridge's delivery to PUBACK or PUBCOMP, and the bounds on the way.

use holdfast_engine::{CloseReason, EngineConfig, Limits};
use holdfast_wire::link::Outcome;
use holdfast_wire::message::Message;
use holdfast_wire::mqtt::{
    Connect, ConnectProperties, PubAck, PubComp, PubRec, PubRel, Publish, PublishProperties, ReasonCode,
    SubscriptionIdentifiers, UserProperties,
};
use holdfast_wire::store::Request;

use crate::client::Client;
use crate::packets::{
    AT_LEAST_ONCE, AT_MOST_ONCE, EXACTLY_ONCE, connect, connect_311, id, message, message0, message2, qos0,
    qos1, qos2, resume, resumed, suback, subscribe,
};
use crate::stage::Shard;

/// A client that takes so many messages unacknowledged, with a subscription to everything.
fn with_receive_maximum(shard: &Shard, receive_maximum: u16) -> Client {
    let properties =
        ConnectProperties { receive_maximum: Some(receive_maximum), ..ConnectProperties::default() };
    let client = shard.connects(&Connect { properties, ..connect("c") });
    client.subscribes("#", EXACTLY_ONCE);
    shard.bridge(0).forgets();
    client
}

#[test]
fn each_qos_has_its_conversation() {
    let shard = Shard::new();
    let client = with_receive_maximum(&shard, 10);
    let bridge = shard.bridge(0);
    bridge.publishes(&message0("t", "zero"));
    client.hears(qos0("t", "zero"));
    bridge.publishes(&message("t", "one"));
    client.hears(qos1(1, "t", "one"));
    client.acknowledges(1);
    bridge.publishes(&message2("t", "two"));
    client.hears(qos2(2, "t", "two"));
    client.sends(PubRec::success(id(2)));
    client.hears(PubRel::success(id(2)));
    client.sends(PubComp::success(id(2)));
    assert_eq!(shard.device("c").inflight, 0);
    assert_eq!(shard.stats().sent, [1, 1, 1]);
}

#[test]
fn the_lower_qos_of_publisher_and_subscriber_holds() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.subscribes("t", AT_LEAST_ONCE);
    shard.bridge(0).publishes(&message2("t", "x"));
    client.hears(qos1(1, "t", "x"));
    shard.bridge(0).publishes(&message0("t", "y"));
    client.hears(qos0("t", "y"));
}

#[test]
fn no_more_is_sent_than_the_client_takes_unacknowledged() {
    let shard = Shard::new();
    let client = with_receive_maximum(&shard, 2);
    for payload in ["1", "2", "3", "4"] {
        shard.bridge(0).publishes(&message("t", payload));
    }
    client.hears(qos1(1, "t", "1"));
    client.hears(qos1(2, "t", "2"));
    client.hears_nothing();
    assert_eq!((shard.device("c").inflight, shard.device("c").pending), (2, 2));
    // QoS 0 is not held up (and may overtake: it is another order).
    shard.bridge(0).publishes(&message0("t", "0"));
    client.hears(qos0("t", "0"));
    client.acknowledges(2);
    client.hears(qos1(3, "t", "3"));
    client.hears_nothing();
    client.acknowledges(1);
    client.acknowledges(3);
    client.hears(qos1(4, "t", "4"));
    client.acknowledges(4);
    assert_eq!((shard.device("c").inflight, shard.device("c").pending), (0, 0));
}

#[test]
fn qos_2_keeps_its_place_in_the_window_until_it_is_completed() {
    let shard = Shard::new();
    let client = with_receive_maximum(&shard, 1);
    shard.bridge(0).publishes(&message2("t", "1"));
    shard.bridge(0).publishes(&message2("t", "2"));
    client.hears(qos2(1, "t", "1"));
    client.sends(PubRec::success(id(1)));
    client.hears(PubRel::success(id(1)));
    client.hears_nothing();
    client.sends(PubComp::success(id(1)));
    client.hears(qos2(2, "t", "2"));
}

#[test]
fn a_pubrec_with_an_error_ends_the_exchange() {
    let shard = Shard::new();
    let client = with_receive_maximum(&shard, 1);
    shard.bridge(0).pushes(41, "c", &message2("t", "1"));
    client.hears(qos2(1, "t", "1"));
    client.sends(PubRec::with_reason(id(1), ReasonCode::QuotaExceeded));
    client.hears_nothing();
    shard.bridge(0).hears_report(41, Outcome::RefusedByDevice);
    assert_eq!(shard.device("c").inflight, 0);
}

#[test]
fn acknowledgements_of_unknown_ids_are_answered_and_do_no_harm() {
    let shard = Shard::new();
    let client = with_receive_maximum(&shard, 10);
    client.sends(PubAck::success(id(9)));
    client.sends(PubComp::success(id(9)));
    client.hears_nothing();
    client.sends(PubRec::success(id(9)));
    client.hears(PubRel::with_reason(id(9), ReasonCode::PacketIdentifierNotFound));
    // An acknowledgement of the wrong kind settles nothing.
    shard.bridge(0).publishes(&message2("t", "x"));
    client.hears(qos2(1, "t", "x"));
    client.sends(PubAck::success(id(1)));
    client.sends(PubComp::success(id(1)));
    assert_eq!(shard.device("c").inflight, 1);
    shard.bridge(0).publishes(&message("t", "y"));
    client.hears(qos1(2, "t", "y"));
    client.sends(PubRec::success(id(2)));
    client.hears(PubRel::with_reason(id(2), ReasonCode::PacketIdentifierNotFound));
    assert_eq!(shard.device("c").inflight, 2);
}

#[test]
fn a_packet_id_in_use_is_passed_over() {
    let shard = Shard::new();
    let client = with_receive_maximum(&shard, 2);
    shard.bridge(0).publishes(&message("t", "stays"));
    client.hears(qos1(1, "t", "stays"));
    for round in 0..65_536_u32 {
        let packet_id = (round % 65_534) as u16 + 2;
        shard.bridge(0).publishes(&message("t", "x"));
        client.hears(qos1(packet_id, "t", "x"));
        client.acknowledges(packet_id);
    }
}

#[test]
fn a_packet_larger_than_the_client_takes_is_not_sent() {
    let shard = Shard::new();
    let properties = ConnectProperties { maximum_packet_size: Some(40), ..ConnectProperties::default() };
    let client = shard.connects(&Connect { properties, ..connect("c") });
    client.subscribes("#", AT_LEAST_ONCE);
    shard.bridge(0).forgets();
    let large = "x".repeat(40);
    shard.bridge(0).pushes(1, "c", &message("t", &large));
    shard.bridge(0).hears_report(1, Outcome::TooLarge);
    shard.bridge(0).pushes(2, "c", &message0("t", &large));
    shard.bridge(0).hears_report(2, Outcome::TooLarge);
    client.hears_nothing();
    // Nor in a fan-out, where the packet is encoded once for all.
    shard.bridge(0).publishes(&message("t", &large));
    client.hears_nothing();
    assert_eq!((shard.stats().dropped_too_large, shard.device("c").inflight), (3, 0));
    shard.bridge(0).pushes(3, "c", &message("t", "small"));
    client.hears(qos1(3, "t", "small"));
}

#[test]
fn a_client_that_takes_aliases_is_sent_them() {
    let shard = Shard::new();
    let properties = ConnectProperties { topic_alias_maximum: Some(1), ..ConnectProperties::default() };
    let client = shard.connects(&Connect { properties, ..connect("c") });
    client.subscribes("#", AT_MOST_ONCE);
    let aliased = |topic, payload| Publish {
        properties: PublishProperties { topic_alias: Some(1), ..PublishProperties::default() },
        ..qos0(topic, payload)
    };
    shard.bridge(0).pushes(1, "c", &message("a", "1"));
    client.hears(aliased("a", "1"));
    shard.bridge(0).pushes(2, "c", &message("a", "2"));
    client.hears(aliased("", "2"));
    shard.bridge(0).pushes(3, "c", &message("b", "3"));
    client.hears(qos0("b", "3"));
}

#[test]
fn what_belongs_to_a_message_goes_along_and_its_expiry_counts_down() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.subscribes("t", AT_MOST_ONCE);
    let old = shard.connects(&connect_311("old"));
    old.subscribes("t", AT_MOST_ONCE);
    let pairs = [("z", "1"), ("a", "2")];
    let mut properties = PublishProperties {
        content_type: Some("text/plain"),
        user_properties: UserProperties::from(&pairs[..]),
        ..PublishProperties::default()
    };
    let mut block = Vec::new();
    properties.encode_forwardable(&mut block);
    let expires_at_ms = shard.stage().now.unix_ms + 60_000;
    shard.clock_advances_ms(50_500);
    shard.bridge(0).publishes(&Message { expires_at_ms, properties: &block, ..message("t", "x") });
    properties.message_expiry_interval_s = Some(10);
    client.hears(Publish { properties, ..qos0("t", "x") });
    old.hears(qos0("t", "x"));
    shard.clock_advances_ms(9_500);
    shard.bridge(0).publishes(&Message { expires_at_ms, ..message("t", "too late") });
    client.hears_nothing();
    assert_eq!(shard.stats().dropped_expired, 2);
}

#[test]
fn a_message_that_expires_while_it_is_pending_is_not_sent() {
    let shard = Shard::new();
    let client = with_receive_maximum(&shard, 1);
    let expires_at_ms = shard.stage().now.unix_ms + 1_000;
    shard.bridge(0).pushes(1, "c", &message("t", "1"));
    shard.bridge(0).pushes(2, "c", &Message { expires_at_ms, ..message("t", "2") });
    shard.bridge(0).pushes(3, "c", &message("t", "3"));
    client.hears(qos1(1, "t", "1"));
    shard.clock_advances_ms(1_000);
    client.acknowledges(1);
    shard.bridge(0).hears_report(1, Outcome::Delivered);
    shard.bridge(0).hears_report(2, Outcome::Expired);
    client.hears(qos1(2, "t", "3"));
}

#[test]
fn every_push_is_reported_once_with_what_became_of_it() {
    let shard = Shard::new();
    let client = with_receive_maximum(&shard, 2);
    let bridge = shard.bridge(0);
    bridge.pushes(1, "nobody", &message("t", "x"));
    bridge.hears_report(1, Outcome::NotHere);
    bridge.pushes(2, "c", &message("t", "x"));
    bridge.pushes(3, "c", &message2("t", "x"));
    bridge.pushes(4, "c", &message("t", "pending"));
    bridge.pushes(5, "c", &message0("t", "x"));
    bridge.hears_report(5, Outcome::Delivered);
    bridge.hears_nothing();
    client.sends(PubAck::with_reason(id(1), ReasonCode::UnspecifiedError));
    bridge.hears_report(2, Outcome::RefusedByDevice);
    client.sends(PubRec::success(id(2)));
    bridge.hears_report(3, Outcome::Delivered);
    client.vanishes();
    bridge.hears_report(4, Outcome::ConnectionLost);
    bridge.hears_nothing();
    let other = shard.connects(&connect("d"));
    bridge.pushes(6, "d", &message("t", "x"));
    bridge.hears_report(6, Outcome::NotSubscribed);
    other.hears_nothing();
}

#[test]
fn what_is_pending_is_bounded_by_messages() {
    let limits = Limits { pending_messages_max: 2, ..Limits::default() };
    let shard = Shard::with(EngineConfig { limits, ..EngineConfig::default() });
    let client = with_receive_maximum(&shard, 1);
    for delivery in 1..=4 {
        shard.bridge(0).pushes(delivery, "c", &message("t", "x"));
    }
    shard.bridge(0).hears_report(4, Outcome::QueueFull);
    shard.bridge(0).hears_nothing();
    assert_eq!((shard.device("c").pending, shard.stats().dropped_queue_full), (2, 1));
    client.takes_bytes();
    client.acknowledges(1);
    shard.bridge(0).hears_report(1, Outcome::Delivered);
    shard.bridge(0).pushes(5, "c", &message("t", "x"));
    shard.bridge(0).hears_nothing();
}

#[test]
fn what_is_pending_is_bounded_by_bytes() {
    let limits = Limits { pending_bytes_max: 10_000, ..Limits::default() };
    let shard = Shard::with(EngineConfig { limits, ..EngineConfig::default() });
    let _client = with_receive_maximum(&shard, 1);
    let large = "x".repeat(6_000);
    for delivery in 1..=4 {
        shard.bridge(0).pushes(delivery, "c", &message("t", &large));
    }
    shard.bridge(0).hears_report(4, Outcome::QueueFull);
    assert_eq!(shard.device("c").pending, 2);
}

#[test]
fn a_client_that_does_not_read_loses_qos_0_and_keeps_qos_1() {
    let shard = Shard::new();
    let client = with_receive_maximum(&shard, 10);
    client.stops_reading();
    shard.bridge(0).publishes(&message0("t", "lost"));
    shard.bridge(0).pushes(1, "c", &message0("t", "lost too"));
    shard.bridge(0).hears_report(1, Outcome::QueueFull);
    shard.bridge(0).publishes(&message("t", "kept"));
    client.hears_nothing();
    assert!(shard.device("c").blocked);
    assert_eq!((shard.stats().dropped_slow_consumer, shard.device("c").pending), (2, 1));
    client.reads_again();
    client.hears(qos1(1, "t", "kept"));
    client.hears_nothing();
}

#[test]
fn what_a_blocked_client_sends_is_read_once_it_reads_again() {
    let shard = Shard::new();
    let client = with_receive_maximum(&shard, 10);
    client.stops_reading();
    client.sends(qos1(1, "t", "x"));
    shard.bridge(0).hears_nothing();
    client.reads_again();
    shard.bridge(0).hears_uplink("t", "x");
}

#[test]
fn a_blocked_client_whose_keep_alive_runs_out_is_a_slow_consumer() {
    let shard = Shard::new();
    let client = shard.connects(&Connect { keep_alive_s: 10, ..connect("c") });
    client.stops_reading();
    shard.clock_advances_ms(15_500);
    client.hears_goodbye(CloseReason::SlowConsumer);
}

#[test]
fn a_socket_that_overflows_is_a_slow_consumer() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    shard.input(|engine, now| engine.handle_closed(client.id, holdfast_engine::SocketEnd::Overflowed, now));
    assert_eq!(shard.stats().closed.count(CloseReason::SlowConsumer), 1);
}

#[test]
fn a_message_for_many_goes_out_in_slices() {
    let limits = Limits { fan_out_slice_deliveries: 4, ..Limits::default() };
    let shard = Shard::with(EngineConfig { limits, ..EngineConfig::default() });
    let names: Vec<_> = (0..10).map(|number| format!("c{number}")).collect();
    let clients: Vec<_> = names
        .iter()
        .map(|name| {
            let client = shard.connects(&connect(name));
            client.subscribes("t", AT_LEAST_ONCE);
            client
        })
        .collect();
    let heard = || clients.iter().filter(|client| !client.takes_bytes().is_empty()).count();
    shard.stage().holds_work = true;
    shard.bridge(0).publishes(&message("t", "x"));
    assert_eq!(heard(), 4);
    assert!(shard.stage().engine.has_work());
    // Another message waits its turn, so that everyone hears both in the same order.
    shard.bridge(0).publishes(&message("t", "y"));
    assert_eq!(heard(), 0);
    // Whoever leaves or comes in between does not disturb the rest.
    clients[5].vanishes();
    let late = shard.connects(&connect("late"));
    shard.works();
    assert_eq!(heard(), 3);
    shard.works();
    assert_eq!(heard(), 2);
    shard.stage().holds_work = false;
    shard.works();
    assert_eq!(heard(), 9);
    late.hears_nothing();
    assert!(!shard.stage().engine.has_work());
}

#[test]
fn receivers_of_different_kinds_share_one_message() {
    let shard = Shard::new();
    let new = shard.connects(&connect("new"));
    new.subscribes("t", EXACTLY_ONCE);
    let old = shard.connects(&connect_311("old"));
    old.subscribes("t", AT_LEAST_ONCE);
    let named = shard.connects(&connect("named"));
    named.subscribes_as("t", AT_LEAST_ONCE, Some(9));
    let also = shard.connects(&connect("also"));
    also.subscribes("t", EXACTLY_ONCE);
    shard.bridge(0).publishes(&message2("t", "x"));
    new.hears(qos2(1, "t", "x"));
    also.hears(qos2(1, "t", "x"));
    old.hears(qos1(1, "t", "x"));
    let identifiers = [9];
    let properties = PublishProperties {
        subscription_identifiers: SubscriptionIdentifiers::from(&identifiers[..]),
        ..PublishProperties::default()
    };
    named.hears(Publish { properties, ..qos1(1, "t", "x") });
}

#[test]
fn a_message_that_comes_before_the_store_has_opened_its_stream_is_read_from_there_once() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    shard.store_holds();
    client.sends(subscribe(1, &[("a", EXACTLY_ONCE)]));
    // The store has it, and its answer is under way.
    let asked = shard.store_was_asked();
    for request in asked.iter().filter(|request| matches!(request, Request::Subscribe { .. })) {
        shard.store_is_asked(request.clone());
    }
    let message = Message { id: 9, ..message2("a", "x") };
    let positions = shard.appends(&["a"], &message);
    shard.bridge(0).publishes_at(&message, positions);
    client.hears_nothing();
    shard.store_answers();
    client.hears(suback(1, &[2]));
    client.hears(qos2(1, "a", "x"));
    client.sends(PubRec::success(id(1)));
    client.hears(PubRel::success(id(1)));
    client.vanishes();
    let client = shard.client();
    client.sends(resume("c"));
    client.hears(resumed());
    client.hears(PubRel::success(id(1)));
    client.hears_nothing();
}
