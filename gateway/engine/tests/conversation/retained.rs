//! Retained messages: asked for after the SUBACK, as each subscription wants them.

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
    shard.bridge(0).says(&ToGateway::RetainedEnd(token));
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
    shard.bridge(0).hears_retained_read("a");
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
    shard.bridge(0).says(&ToGateway::RetainedEnd(token));
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
    shard.bridge(0).says(&ToGateway::RetainedEnd(token));
    other.hears_nothing();
}
