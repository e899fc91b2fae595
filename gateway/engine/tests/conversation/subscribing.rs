//! SUBSCRIBE and UNSUBSCRIBE: what is granted, who must know before it is, and what the options make of a message.

use std::collections::VecDeque;

use holdfast_engine::{EngineConfig, Limits, MqttConfig};
use holdfast_wire::link::{Outcome, Target};
use holdfast_wire::message::Message;
use holdfast_wire::mqtt::{
    Publish, PublishProperties, ReasonCode, Subscribe, SubscribeProperties, SubscriptionIdentifiers,
    SubscriptionOptions,
};
use holdfast_wire::store::Request;

use crate::packets::{
    AT_LEAST_ONCE, AT_MOST_ONCE, EXACTLY_ONCE, connect, connect_311, id, message, message0, message2, qos0,
    qos1, qos2, resume, suback, subscribe, unsuback, unsubscribe,
};
use crate::stage::Shard;

#[test]
fn suback_waits_until_every_bridge_knows_the_filter() {
    let shard = Shard::without_links(EngineConfig::default(), 2);
    for link in [0, 1] {
        shard.bridge(link).comes_up();
        shard.bridge(link).holds_answers();
    }
    let client = shard.connects(&connect("c"));
    client.sends(subscribe(1, &[("a", AT_MOST_ONCE), ("b/#", AT_LEAST_ONCE)]));
    let tokens: Vec<_> =
        [0, 1].map(|link| ["+a", "+b/#"].map(|filter| shard.bridge(link).hears_interest(filter))).into();
    client.hears_nothing();
    shard.bridge(0).knows(tokens[0][0]);
    shard.bridge(0).knows(tokens[0][1]);
    shard.bridge(1).knows(tokens[1][1]);
    client.hears_nothing();
    shard.bridge(1).knows(tokens[1][0]);
    client.hears(suback(1, &[0, 1]));
}

#[test]
fn a_filter_that_is_known_already_is_granted_at_once() {
    let shard = Shard::new();
    shard.bridge(0).holds_answers();
    let first = shard.connects(&connect("c"));
    let second = shard.connects(&connect("d"));
    first.sends(subscribe(1, &[("a", AT_MOST_ONCE)]));
    second.sends(subscribe(1, &[("a", AT_MOST_ONCE)]));
    second.hears_nothing();
    let token = shard.bridge(0).hears_interest("+a");
    shard.bridge(0).knows(token);
    first.hears(suback(1, &[0]));
    second.hears(suback(1, &[0]));
    let third = shard.connects(&connect("e"));
    third.sends(subscribe(1, &[("a", AT_MOST_ONCE)]));
    third.hears(suback(1, &[0]));
    shard.bridge(0).forgets();
    // Only the last one who leaves withdraws it.
    first.vanishes();
    second.sends(unsubscribe(2, &["a"]));
    shard.bridge(0).hears_nothing();
    third.vanishes();
    shard.bridge(0).hears_interest("-a");
}

#[test]
fn suback_of_a_persistent_session_waits_for_the_store_too() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    shard.store_holds();
    client.sends(subscribe(1, &[("a", AT_LEAST_ONCE)]));
    client.hears_nothing();
    shard.store_answers();
    client.hears(suback(1, &[1]));
}

#[test]
fn a_store_that_cannot_take_a_subscription_makes_it_fail() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    shard.store_goes_away();
    client.sends(subscribe(1, &[("a", AT_LEAST_ONCE)]));
    client.hears(suback(1, &[u8::from(ReasonCode::ImplementationSpecificError)]));
    // A clean session needs no store for it.
    shard.store_answers();
    let clean = shard.connects(&connect("d"));
    shard.store_goes_away();
    clean.subscribes("a", AT_LEAST_ONCE);
}

#[test]
fn a_subscription_waits_for_a_bridge_to_be_announced_to() {
    let shard = Shard::without_links(EngineConfig::default(), 1);
    let client = shard.connects(&connect("c"));
    client.sends(subscribe(1, &[("a", AT_MOST_ONCE)]));
    client.hears_nothing();
    shard.bridge(0).holds_answers();
    shard.bridge(0).comes_up();
    let token = shard.bridge(0).hears_interest("+a");
    client.hears_nothing();
    shard.bridge(0).knows(token);
    client.hears(suback(1, &[0]));
}

#[test]
fn who_leaves_while_its_filter_is_announced_is_not_answered() {
    let shard = Shard::new();
    shard.bridge(0).holds_answers();
    let client = shard.connects(&connect("c"));
    client.sends(subscribe(1, &[("a", AT_MOST_ONCE)]));
    let token = shard.bridge(0).hears_interest("+a");
    client.vanishes();
    shard.bridge(0).hears_interest("-a");
    shard.bridge(0).knows(token);
    shard.bridge(0).publishes(&message("a", "x"));
}

#[test]
fn wildcards_match_as_the_specification_says() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.subscribes("sport/+/score", AT_MOST_ONCE);
    client.subscribes("news/#", AT_MOST_ONCE);
    for topic in ["sport/tennis/score", "news", "news/a/b"] {
        shard.bridge(0).publishes(&message0(topic, "x"));
        client.hears(qos0(topic, "x"));
    }
    for topic in ["sport/score", "sport/a/b/score", "sports/a/score", "new"] {
        shard.bridge(0).publishes(&message0(topic, "x"));
        client.hears_nothing();
    }
}

#[test]
fn a_wildcard_in_front_does_not_match_topics_that_begin_with_a_dollar() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.subscribes("#", AT_MOST_ONCE);
    client.subscribes("+/status", AT_MOST_ONCE);
    shard.bridge(0).publishes(&message0("$SYS/status", "x"));
    client.hears_nothing();
    client.subscribes("$SYS/#", AT_MOST_ONCE);
    shard.bridge(0).publishes(&message0("$SYS/status", "x"));
    client.hears(qos0("$SYS/status", "x"));
}

#[test]
fn overlapping_subscriptions_bring_one_copy_with_the_highest_qos_and_all_identifiers() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.subscribes_as("a/+", AT_MOST_ONCE, Some(1));
    client.subscribes_as("a/#", EXACTLY_ONCE, Some(268_435_455));
    client.subscribes("a/b", AT_LEAST_ONCE);
    shard.bridge(0).publishes(&message2("a/b", "x"));
    let heard = client.hears_packet();
    let with = |identifiers: &[u32]| {
        let properties = PublishProperties {
            subscription_identifiers: SubscriptionIdentifiers::from(identifiers),
            ..PublishProperties::default()
        };
        client.bytes_of(&Publish { properties, ..qos2(1, "a/b", "x") })
    };
    assert!(heard == with(&[1, 268_435_455]) || heard == with(&[268_435_455, 1]), "{heard:?}");
    client.hears_nothing();
}

#[test]
fn a_subscription_made_again_replaces_the_former() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.subscribes_as("a", EXACTLY_ONCE, Some(7));
    client.subscribes("a", AT_MOST_ONCE);
    shard.bridge(0).publishes(&message2("a", "x"));
    client.hears(qos0("a", "x"));
    client.hears_nothing();
    assert_eq!(shard.device("c").subscriptions.len(), 1);
    client.sends(unsubscribe(2, &["a"]));
    client.hears(unsuback(2, &[0]));
    shard.bridge(0).publishes(&message2("a", "x"));
    client.hears_nothing();
}

#[test]
fn no_local_keeps_a_clients_own_publications_from_it() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.subscribes("a", SubscriptionOptions { no_local: true, ..AT_LEAST_ONCE });
    shard.bridge(0).publishes(&Message { publisher: "c", ..message("a", "own") });
    client.hears_nothing();
    shard.bridge(0).publishes(&message("a", "another's"));
    client.hears(qos1(1, "a", "another's"));
    // Another subscription of the same client wants it all the same.
    client.subscribes("a/#", AT_MOST_ONCE);
    shard.bridge(0).publishes(&Message { publisher: "c", ..message("a", "own") });
    client.hears(qos0("a", "own"));
    client.hears_nothing();
}

#[test]
fn retain_is_kept_only_where_it_is_wanted_as_published() {
    let shard = Shard::new();
    let plain = shard.connects(&connect("plain"));
    plain.subscribes("a", AT_MOST_ONCE);
    let bridging = shard.connects(&connect("bridging"));
    bridging.subscribes("a", SubscriptionOptions { retain_as_published: true, ..AT_MOST_ONCE });
    shard.bridge(0).publishes(&Message { retain: true, ..message("a", "x") });
    plain.hears(qos0("a", "x"));
    bridging.hears(Publish { retain: true, ..qos0("a", "x") });
}

#[test]
fn a_shared_group_takes_turns_and_passes_over_who_cannot_take_more() {
    let shard = Shard::new();
    shard.bridge(0).holds_answers();
    let names = ["c", "d", "e"];
    let clients = names.map(|name| shard.connects(&connect(name)));
    for (members, client) in (1..).zip(&clients) {
        client.sends(subscribe(1, &[("$share/g/jobs/+", AT_LEAST_ONCE)]));
        let token = shard.bridge(0).hears_interest(&format!("+jobs/+ g x {members}"));
        shard.bridge(0).knows(token);
        client.hears(suback(1, &[1]));
    }
    let target = Target::Group { group: "g", filter: "jobs/+" };
    let heard = |message: &Message<'_>| {
        shard.bridge(0).delivers(0, target, message, Vec::new());
        let heard: Vec<_> =
            clients.iter().map(|client| usize::from(!client.takes_bytes().is_empty())).collect();
        assert_eq!(heard.iter().sum::<usize>(), 1);
        heard.iter().position(|count| *count == 1)
    };
    let turns: Vec<_> = (0..6).map(|_| heard(&message0("jobs/1", "x"))).collect();
    for turn in 0..3 {
        assert_eq!(turns.iter().filter(|other| **other == Some(turn)).count(), 2, "{turns:?}");
    }
    clients[1].stops_reading();
    assert!((0..6).all(|_| heard(&message("jobs/1", "x")) != Some(1)));
    // An ordinary publication is not for them.
    shard.bridge(0).publishes(&message0("jobs/1", "x"));
    assert!(clients.iter().all(|client| client.takes_bytes().is_empty()));
    shard.bridge(0).forgets();
    for client in &clients {
        client.vanishes();
    }
    shard.bridge(0).hears_interest("+jobs/+ g x 2");
    shard.bridge(0).hears_interest("+jobs/+ g x 1");
    shard.bridge(0).hears_interest("-jobs/+ g x 0");
    shard.bridge(0).delivers(9, target, &message("jobs/1", "x"), Vec::new());
    shard.bridge(0).hears_report(9, Outcome::NotHere);
}

#[test]
fn a_clients_own_filter_is_announced_by_its_shape_and_served_by_its_name() {
    let shard = Shard::new();
    shard.bridge(0).holds_answers();
    let client = shard.connects(&connect("d-1"));
    client.sends(subscribe(1, &[("devices/d-1/push", AT_LEAST_ONCE)]));
    let token = shard.bridge(0).hears_interest("+devices/+/push @1");
    shard.bridge(0).knows(token);
    client.hears(suback(1, &[1]));
    shard.bridge(0).delivers(0, Target::Device("d-1"), &message("devices/d-1/push", "x"), Vec::new());
    client.hears(qos1(1, "devices/d-1/push", "x"));
}

#[test]
fn filters_beyond_what_the_server_offers_are_refused_one_by_one() {
    let mqtt = MqttConfig {
        wildcard_subscription_available: false,
        shared_subscription_available: false,
        ..MqttConfig::default()
    };
    let limits = Limits { subscriptions_max: 2, ..Limits::default() };
    let shard = Shard::with(EngineConfig { mqtt, limits, ..EngineConfig::default() });
    let client = shard.connects(&connect("c"));
    let filters = [
        ("a", AT_MOST_ONCE),
        ("$share/g/a", AT_MOST_ONCE),
        ("a/#", AT_MOST_ONCE),
        ("b", AT_LEAST_ONCE),
        ("c", AT_MOST_ONCE),
        ("a", EXACTLY_ONCE),
    ];
    client.sends(subscribe(1, &filters));
    let shared = u8::from(ReasonCode::SharedSubscriptionsNotSupported);
    let wildcard = u8::from(ReasonCode::WildcardSubscriptionsNotSupported);
    client.hears(suback(1, &[0, shared, wildcard, 1, u8::from(ReasonCode::QuotaExceeded), 2]));
    let old = shard.connects(&connect_311("old"));
    old.sends(subscribe(1, &filters));
    old.hears(suback(1, &[0, 0x80, 0x80, 1, 0x80, 2]));
}

#[test]
fn identifiers_are_refused_where_they_are_not_available() {
    let mqtt = MqttConfig { subscription_identifier_available: false, ..MqttConfig::default() };
    let shard = Shard::with(EngineConfig { mqtt, ..EngineConfig::default() });
    let client = shard.connects(&connect("c"));
    let filters = [("a", AT_MOST_ONCE)];
    client.sends(Subscribe {
        packet_id: id(1),
        properties: SubscribeProperties {
            subscription_identifier: Some(1),
            ..SubscribeProperties::default()
        },
        filters: filters[..].into(),
    });
    client.hears(suback(1, &[u8::from(ReasonCode::SubscriptionIdentifiersNotSupported)]));
}

#[test]
fn unsubscribing_stops_deliveries_and_tells_what_did_not_exist() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.subscribes("a", AT_LEAST_ONCE);
    client.sends(unsubscribe(2, &["a", "b"]));
    client.hears(unsuback(2, &[0, u8::from(ReasonCode::NoSubscriptionExisted)]));
    shard.bridge(0).publishes(&message("a", "x"));
    client.hears_nothing();
    let old = shard.connects(&connect_311("old"));
    old.sends(unsubscribe(3, &["b"]));
    let unsuback_311 = [0xB0, 2, 0, 3];
    assert_eq!(old.takes_bytes(), unsuback_311);
}

#[test]
fn unsuback_of_a_persistent_session_waits_for_the_store() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a", AT_LEAST_ONCE);
    shard.store_holds();
    client.sends(unsubscribe(2, &["a"]));
    client.hears_nothing();
    shard.store_answers();
    client.hears(unsuback(2, &[0]));
    client.subscribes("b", AT_LEAST_ONCE);
    shard.store_goes_away();
    client.sends(unsubscribe(3, &["b"]));
    client.hears(unsuback(3, &[u8::from(ReasonCode::ImplementationSpecificError)]));
}

#[test]
fn what_is_sent_already_may_still_be_acknowledged_after_an_unsubscribe() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a", AT_LEAST_ONCE);
    let positions = shard.appends(&["a"], &message("a", "x"));
    shard.bridge(0).publishes_at(&message("a", "x"), positions);
    client.hears(qos1(1, "a", "x"));
    client.sends(unsubscribe(2, &["a"]));
    client.hears(unsuback(2, &[0]));
    client.acknowledges(1);
    shard.store_was_asked();
    shard.clock_advances_ms(1_000);
    assert!(matches!(&shard.store_was_asked()[..], [Request::Save { .. }]));
    client.subscribes("a", AT_LEAST_ONCE);
    let positions = shard.appends(&["a"], &message("a", "y"));
    shard.bridge(0).publishes_at(&message("a", "y"), positions);
    client.hears(qos1(2, "a", "y"));
}

#[test]
fn a_durable_filter_is_announced_as_such_by_its_first_persistent_holder() {
    let shard = Shard::new();
    shard.bridge(0).holds_answers();
    let clean = shard.connects(&connect("c"));
    clean.sends(subscribe(1, &[("a", AT_LEAST_ONCE)]));
    shard.bridge(0).hears_interest("+a");
    let lasting = shard.connects(&resume("d"));
    lasting.sends(subscribe(1, &[("a", AT_LEAST_ONCE), ("b", AT_MOST_ONCE)]));
    shard.bridge(0).hears_interest("+a durable");
    shard.bridge(0).hears_interest("+b");
}

#[test]
fn more_unanswered_subscribes_than_there_may_be_wait_their_turn() {
    let shard = Shard::new();
    shard.bridge(0).holds_answers();
    let client = shard.connects(&connect("c"));
    let mut bytes = Vec::new();
    for packet_id in 1..=20_u16 {
        bytes.extend(client.bytes_of(&subscribe(packet_id, &[(&format!("t/{packet_id}"), AT_MOST_ONCE)])));
    }
    client.sends_bytes(&bytes);
    client.sends(qos1(1, "t", "behind them"));
    let mut tokens: VecDeque<_> =
        (1..=8).map(|number| shard.bridge(0).hears_interest(&format!("+t/{number}"))).collect();
    shard.bridge(0).hears_nothing();
    for packet_id in 1..=20_u16 {
        shard.bridge(0).knows(tokens.pop_front().expect("eight are under way"));
        client.hears(suback(packet_id, &[0]));
        if packet_id == 1 {
            shard.bridge(0).hears_retained_read("t/1");
        }
        if packet_id <= 12 {
            tokens.push_back(shard.bridge(0).hears_interest(&format!("+t/{}", packet_id + 8)));
        }
        if packet_id == 12 {
            shard.bridge(0).hears_uplink("t", "behind them");
        }
        shard.bridge(0).hears_nothing();
    }
}

#[test]
fn unanswered_unsubscribes_count_too_and_their_answers_let_the_client_go_on() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    for number in 1..=10 {
        client.subscribes(&format!("t/{number}"), AT_LEAST_ONCE);
    }
    shard.store_holds();
    for packet_id in 1..=10_u16 {
        client.sends(unsubscribe(packet_id, &[&format!("t/{packet_id}")]));
    }
    assert!(client.unread() > 0);
    shard.store_answers();
    for packet_id in 1..=10 {
        client.hears(unsuback(packet_id, &[0]));
    }
    assert_eq!(client.unread(), 0);
}

#[test]
fn filters_beyond_what_a_session_can_hold_are_refused_and_a_packet_full_of_them_costs_little() {
    let shard = Shard::new();
    let limit = Limits::default().subscriptions_max as usize;
    let client = shard.connects(&connect("c"));
    let names: Vec<_> = (0..100_000).map(|number| format!("f/{number}")).collect();
    let held: Vec<_> = names[..limit].iter().map(|name| (&**name, AT_LEAST_ONCE)).collect();
    client.sends(subscribe(1, &held));
    client.hears(suback(1, &vec![1; limit]));
    // The same again is no more than it holds; what stands behind that is not even looked at.
    let twice: Vec<_> = held.iter().chain(&held).copied().collect();
    client.sends(subscribe(2, &twice));
    let quota_exceeded = u8::from(ReasonCode::QuotaExceeded);
    client.hears(suback(2, &[vec![1; limit], vec![quota_exceeded; limit]].concat()));
    let none = u8::from(ReasonCode::NoSubscriptionExisted);
    let given_up: Vec<_> = names[limit - 1..].iter().map(|name| &**name).collect();
    client.sends(unsubscribe(3, &given_up));
    client.hears(unsuback(3, &[vec![0], vec![none; given_up.len() - 1]].concat()));
    assert_eq!(shard.device("c").subscriptions.len(), limit - 1);
}
