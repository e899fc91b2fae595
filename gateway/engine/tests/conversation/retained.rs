//! Retained messages: asked for after the SUBACK, as each subscription wants them.

use std::collections::BTreeMap;

use holdfast_engine::Limits;
use holdfast_wire::link::ToGateway;
use holdfast_wire::message::Message;
use holdfast_wire::mqtt::{
    Publish, PublishProperties, RetainHandling, SubscriptionIdentifiers, SubscriptionOptions,
};

use crate::packets::{
    AT_LEAST_ONCE, AT_MOST_ONCE, connect, message, qos0, qos1, suback, subscribe, unsubscribe,
};
use crate::stage::Shard;

fn retained<'a>(topic: &'a str, payload: &'a str) -> Message<'a> {
    Message { retain: true, ..message(topic, payload) }
}

#[test]
fn retained_messages_follow_the_suback() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    shard.bridge(0).holds_answers();
    client.sends(subscribe(1, &[("a/#", AT_LEAST_ONCE)]));
    let token = shard.bridge(0).hears_interest("+a/#");
    shard.bridge(0).hears_nothing();
    shard.bridge(0).knows(token);
    client.hears(suback(1, &[1]));
    let token = shard.bridge(0).hears_retained_read("a/#");
    for (topic, payload) in [("a/1", "x"), ("a/2", "y")] {
        shard.bridge(0).says(&ToGateway::RetainedMessage { token, message: retained(topic, payload) });
    }
    shard.bridge(0).says(&ToGateway::RetainedEnd { token, more: false });
    client.hears(Publish { retain: true, ..qos1(1, "a/1", "x") });
    client.hears(Publish { retain: true, ..qos1(2, "a/2", "y") });
    // The token is used up.
    shard.bridge(0).says(&ToGateway::RetainedMessage { token, message: retained("a/3", "z") });
    client.hears_nothing();
}

#[test]
fn a_retained_message_has_the_qos_and_identifier_of_its_subscription() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.subscribes_as("a", AT_MOST_ONCE, Some(5));
    let token = shard.bridge(0).hears_retained_read("a");
    shard.bridge(0).says(&ToGateway::RetainedMessage { token, message: retained("a", "x") });
    let identifiers = [5];
    let properties = PublishProperties {
        subscription_identifiers: SubscriptionIdentifiers::from(&identifiers[..]),
        ..PublishProperties::default()
    };
    client.hears(Publish { retain: true, properties, ..qos0("a", "x") });
}

#[test]
fn each_retain_handling_does_as_its_name_says() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    let handling = |retain_handling| SubscriptionOptions { retain_handling, ..AT_MOST_ONCE };
    client.subscribes("a", handling(RetainHandling::DoNotSend));
    shard.bridge(0).hears_nothing();
    client.subscribes("a", handling(RetainHandling::SendIfNew));
    shard.bridge(0).hears_nothing();
    client.subscribes("a", handling(RetainHandling::SendAtSubscribe));
    let token = shard.bridge(0).hears_retained_read("a");
    shard.bridge(0).says(&ToGateway::RetainedEnd { token, more: false });
    client.sends(unsubscribe(2, &["a"]));
    client.takes_bytes();
    client.subscribes("a", handling(RetainHandling::SendIfNew));
    shard.bridge(0).hears_retained_read("a");
    // Nor are shared subscriptions sent any (section 4.8.2).
    client.subscribes("$share/g/a", handling(RetainHandling::SendAtSubscribe));
    shard.bridge(0).hears_nothing();
}

#[test]
fn a_read_that_a_lost_bridge_owes_is_asked_of_another() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.subscribes("a", AT_MOST_ONCE);
    shard.bridge(0).hears_retained_read("a");
    shard.bridge(0).goes_down();
    shard.bridge(0).comes_up();
    let token = shard.bridge(0).hears_retained_read("a");
    shard.bridge(0).says(&ToGateway::RetainedMessage { token, message: retained("a", "x") });
    shard.bridge(0).says(&ToGateway::RetainedEnd { token, more: false });
    client.hears(Publish { retain: true, ..qos0("a", "x") });
    shard.bridge(0).goes_down();
    shard.bridge(0).comes_up();
    shard.bridge(0).hears_nothing();
}

#[test]
fn retained_messages_for_a_connection_that_is_gone_are_dropped() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.subscribes("a", AT_MOST_ONCE);
    let token = shard.bridge(0).hears_retained_read("a");
    client.vanishes();
    let other = shard.connects(&connect("d"));
    shard.bridge(0).says(&ToGateway::RetainedMessage { token, message: retained("a", "x") });
    shard.bridge(0).says(&ToGateway::RetainedEnd { token, more: false });
    other.hears_nothing();
}

/// So many retained messages below `state/`, each with its number.
fn states(count: usize) -> BTreeMap<String, String> {
    (0..count).map(|number| (format!("state/{number:04}"), number.to_string())).collect()
}

#[test]
fn more_retained_messages_than_have_room_arrive_as_the_client_takes_them() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.subscribes("state/+", AT_LEAST_ONCE);
    let states = states(3_000);
    let mut pages = shard.bridge(0).answers_reads_from(&states);
    // Nobody acknowledges: what has room is taken, and no more is asked for.
    let Limits { inflight_max, pending_messages_max, .. } = Limits::default();
    assert_eq!(pages.iter().sum::<usize>(), usize::from(inflight_max) + pending_messages_max as usize / 2);
    for payload in states.values() {
        let bytes = client.hears_packet();
        let packet_id = client.packet_id_of(&bytes, payload);
        client.acknowledges(packet_id);
        pages.extend(shard.bridge(0).answers_reads_from(&states));
    }
    client.hears_nothing();
    assert!(pages.iter().all(|page| *page <= 100), "{pages:?}");
    assert_eq!(pages.iter().sum::<usize>(), states.len());
    assert_eq!(shard.stats().dropped_queue_full, 0);
}

#[test]
fn a_client_that_does_not_read_misses_no_retained_message_of_qos_0() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.subscribes("state/+", AT_MOST_ONCE);
    let token = shard.bridge(0).hears_retained_read("state/+");
    let says = |token, number: usize| {
        let (topic, payload) = (format!("state/{number:04}"), number.to_string());
        shard.bridge(0).says(&ToGateway::RetainedMessage { token, message: retained(&topic, &payload) });
    };
    says(token, 0);
    client.stops_reading();
    says(token, 1);
    shard.bridge(0).says(&ToGateway::RetainedEnd { token, more: false });
    client.hears(Publish { retain: true, ..qos0("state/0000", "0") });
    shard.bridge(0).hears_nothing();
    client.reads_again();
    assert_eq!(shard.bridge(0).answers_reads_from(&states(3)), [2]);
    for number in 1..3 {
        client.hears(Publish { retain: true, ..qos0(&format!("state/{number:04}"), &number.to_string()) });
    }
    client.hears_nothing();
}

#[test]
fn subscribing_again_and_again_costs_a_page_at_a_time() {
    let shard = Shard::new();
    let other = shard.connects(&connect("other"));
    let client = shard.connects(&connect("c"));
    let filters: Vec<_> = (0..100).map(|number| format!("state/{}#", "+/".repeat(number))).collect();
    let mut bytes = Vec::new();
    for packet_id in 1..=500_u16 {
        let filter = filters[usize::from(packet_id) % filters.len()].as_str();
        bytes.extend(client.bytes_of(&subscribe(packet_id, &[(filter, AT_LEAST_ONCE)])));
    }
    client.sends_bytes(&bytes);
    client.stops_reading();
    client.takes_bytes();
    // One page is under way; the bridge is asked for no more until it has ended, nor then while the client does not read.
    let token = shard.bridge(0).hears_retained_read(&filters[1]);
    shard.bridge(0).hears_nothing();
    for (topic, payload) in states(100) {
        shard.bridge(0).says(&ToGateway::RetainedMessage { token, message: retained(&topic, &payload) });
    }
    shard.bridge(0).says(&ToGateway::RetainedEnd { token, more: true });
    shard.bridge(0).hears_nothing();
    client.hears_nothing();
    other.sends(qos1(1, "t", "x"));
    shard.bridge(0).hears_uplink("t", "x");
    // Once it reads, each filter is read once more at most: those that wait stand for all that came later.
    client.reads_again();
    let pages = shard.bridge(0).answers_reads_from(&states(10));
    assert_eq!(pages.len(), 1 + filters.len());
}

#[test]
fn a_filter_that_is_given_up_is_sent_no_more_retained_messages() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.subscribes("a/#", AT_MOST_ONCE);
    client.subscribes("b/#", AT_MOST_ONCE);
    client.subscribes("c", AT_MOST_ONCE);
    let token = shard.bridge(0).hears_retained_read("a/#");
    client.sends(unsubscribe(4, &["a/#", "b/#"]));
    client.takes_bytes();
    shard.bridge(0).says(&ToGateway::RetainedMessage { token, message: retained("a/1", "x") });
    shard.bridge(0).says(&ToGateway::RetainedEnd { token, more: true });
    client.hears_nothing();
    shard.bridge(0).hears_retained_read("c");
}

#[test]
fn what_a_connection_that_is_gone_asked_for_is_not_asked_for_again() {
    let shard = Shard::new();
    let clients = ["c", "d"].map(|name| shard.connects(&connect(name)));
    for (client, filter) in clients.iter().zip(["a", "b"]) {
        client.subscribes(filter, AT_MOST_ONCE);
        shard.bridge(0).hears_retained_read(filter);
    }
    shard.bridge(0).goes_down();
    clients[0].vanishes();
    shard.bridge(0).comes_up();
    shard.bridge(0).hears_retained_read("b");
    clients[1].vanishes();
    shard.bridge(0).goes_down();
    shard.bridge(0).comes_up();
    shard.bridge(0).hears_nothing();
}
