//! Links that are lost and come back: frames are sent again in order, announcements are made again.

use holdfast_engine::EngineConfig;
use holdfast_wire::message::Message;
use holdfast_wire::mqtt::PubAck;
use holdfast_wire::store::Request;

use crate::packets::{AT_LEAST_ONCE, connect, id, message, qos0, qos1, resume, resumed, suback, subscribe};
use crate::stage::Shard;

#[test]
fn unsettled_frames_go_again_in_order_when_the_link_is_back() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    for packet_id in 1..=4 {
        client.sends(qos1(packet_id, "t", &packet_id.to_string()));
    }
    shard.bridge(0).settles(2..=2);
    client.hears_nothing();
    shard.bridge(0).goes_down();
    client.hears_nothing();
    shard.bridge(0).comes_up();
    for (sequence, packet_id) in [(5, 1), (6, 3), (7, 4)] {
        let uplink = shard.bridge(0).hears_uplink("t", &packet_id.to_string());
        assert_eq!((uplink.sequence, uplink.packet_id, uplink.resent), (sequence, Some(packet_id), true));
    }
    shard.bridge(0).hears_nothing();
    shard.bridge(0).settles(5..=7);
    for packet_id in 1..=4 {
        client.hears(PubAck::success(id(packet_id)));
    }
}

#[test]
fn qos_0_is_lost_with_its_link_and_holds_nobody_up() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.sends(qos0("t", "lost"));
    shard.bridge(0).goes_down();
    shard.bridge(0).comes_up();
    shard.bridge(0).hears_nothing();
    client.sends(qos1(1, "t", "x"));
    shard.bridge(0).hears_uplink("t", "x");
}

#[test]
fn frames_of_a_lost_link_move_to_one_that_lives() {
    let shard = Shard::without_links(EngineConfig::default(), 2);
    shard.bridge(0).comes_up();
    let client = shard.connects(&connect("c"));
    client.sends(qos1(1, "t", "1"));
    client.sends(qos1(2, "t", "2"));
    shard.bridge(0).hears_uplink("t", "1");
    shard.bridge(0).hears_uplink("t", "2");
    shard.bridge(1).comes_up();
    // The client keeps to its link while frames are under way, so that they cannot overtake one another.
    client.sends(qos1(3, "t", "3"));
    shard.bridge(0).hears_uplink("t", "3");
    shard.bridge(1).hears_nothing();
    shard.bridge(0).goes_down();
    for payload in ["1", "2", "3"] {
        assert!(shard.bridge(1).hears_uplink("t", payload).resent);
    }
    client.sends(qos1(4, "t", "4"));
    assert!(!shard.bridge(1).hears_uplink("t", "4").resent);
    shard.bridge(1).settles(1..=4);
    for packet_id in 1..=4 {
        client.hears(PubAck::success(id(packet_id)));
    }
}

#[test]
fn a_late_settlement_of_a_lost_link_settles_nothing() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.sends(qos1(1, "t", "x"));
    shard.bridge(0).goes_down();
    shard.bridge(0).settles(1..=1);
    client.hears_nothing();
    shard.bridge(0).comes_up();
    shard.bridge(0).settles(1..=1);
    client.hears_nothing();
    shard.bridge(0).settles(2..=2);
    client.hears(PubAck::success(id(1)));
}

#[test]
fn a_frame_whose_client_has_left_is_still_sent_again() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.sends(qos1(1, "t", "x"));
    client.vanishes();
    shard.bridge(0).goes_down();
    shard.bridge(0).comes_up();
    assert!(shard.bridge(0).hears_uplink("t", "x").resent);
}

#[test]
fn a_bridge_that_comes_back_hears_of_every_filter() {
    let shard = Shard::new();
    shard.bridge(0).holds_answers();
    let client = shard.connects(&connect("c"));
    client.sends(subscribe(1, &[("a", AT_LEAST_ONCE), ("$share/g/b", AT_LEAST_ONCE)]));
    client.hears_nothing();
    shard.bridge(0).goes_down();
    // There is no bridge left to wait for.
    client.hears(suback(1, &[1, 1]));
    shard.bridge(0).comes_up();
    shard.bridge(0).hears_interest("+b g x 1");
    shard.bridge(0).hears_interest("+a");
    shard.bridge(0).publishes(&message("a", "x"));
    client.hears(qos1(1, "a", "x"));
}

#[test]
fn reports_go_to_the_bridge_that_asked_and_to_no_other() {
    let shard = Shard::without_links(EngineConfig::default(), 2);
    shard.bridge(0).comes_up();
    shard.bridge(1).comes_up();
    let client = shard.connects(&connect("c"));
    client.subscribes("a", AT_LEAST_ONCE);
    for link in [0, 1] {
        shard.bridge(link).forgets();
    }
    shard.bridge(0).pushes(7, "c", &message("a", "x"));
    shard.bridge(1).pushes(7, "c", &message("a", "y"));
    client.acknowledges(2);
    shard.bridge(1).hears_report(7, holdfast_wire::link::Outcome::Delivered);
    shard.bridge(0).hears_nothing();
    shard.bridge(0).goes_down();
    client.acknowledges(1);
    shard.bridge(0).comes_up();
    shard.bridge(1).hears_nothing();
}

#[test]
fn what_a_lost_link_kept_from_a_session_is_read_once_the_bridge_knows_its_filters_again() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a", AT_LEAST_ONCE);
    client.subscribes("b", AT_LEAST_ONCE);
    shard.bridge(0).holds_answers();
    shard.bridge(0).goes_down();
    shard.appends(&["a"], &message("a", "1"));
    shard.bridge(0).comes_up();
    assert_eq!(shard.bridge(0).hears_interest("+a durable"), 0, "only the last one asks for an answer");
    let barrier = shard.bridge(0).hears_interest("+b durable");
    // Until it knows them all, the bridge may still deliver to others only.
    shard.appends(&["b"], &Message { id: 2, ..message("b", "2") });
    client.hears_nothing();
    shard.bridge(0).knows(barrier);
    client.hears(qos1(1, "a", "1"));
    client.hears(qos1(2, "b", "2"));
    // Each answer counts once.
    shard.store_was_asked();
    shard.bridge(0).knows(barrier);
    assert_eq!(shard.store_was_asked(), []);
}

#[test]
fn a_session_that_was_resumed_without_a_link_reads_again_when_one_comes_up() {
    let shard = Shard::new();
    shard.connects(&resume("c")).subscribes("a", AT_LEAST_ONCE);
    let client = shard.client();
    shard.bridge(0).goes_down();
    client.sends(resume("c"));
    client.hears(resumed());
    shard.appends(&["a"], &message("a", "x"));
    client.hears_nothing();
    shard.bridge(0).comes_up();
    client.hears(qos1(1, "a", "x"));
}

#[test]
fn what_one_of_two_bridges_could_not_deliver_is_read_although_it_does_not_come_back() {
    let shard = Shard::without_links(EngineConfig::default(), 2);
    shard.bridge(0).comes_up();
    shard.bridge(1).comes_up();
    let client = shard.connects(&resume("c"));
    client.subscribes("a", AT_LEAST_ONCE);
    shard.appends(&["a"], &message("a", "x"));
    client.hears_nothing();
    shard.bridge(0).goes_down();
    client.hears(qos1(1, "a", "x"));
}

#[test]
fn an_answer_that_was_under_way_when_the_link_came_up_does_not_count() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a", AT_LEAST_ONCE);
    shard.store_holds();
    shard.appends(&["a"], &message("a", "1"));
    let second = Message { id: 2, ..message("a", "2") };
    let gap = shard.appends(&["a"], &second);
    shard.bridge(0).publishes_at(&second, gap);
    shard.bridge(0).goes_down();
    shard.bridge(0).comes_up();
    let reads = shard.store_was_asked();
    assert_eq!(reads.iter().filter(|request| matches!(request, Request::Read { .. })).count(), 2);
    shard.store_answers();
    client.hears(qos1(1, "a", "1"));
    client.hears(qos1(2, "a", "2"));
    client.hears_nothing();
}

#[test]
fn thousands_of_sessions_read_again_a_few_at_a_time() {
    let shard = Shard::new();
    let clients: Vec<_> = (0..2_000).map(|number| shard.connects(&resume(&format!("c-{number}")))).collect();
    for client in &clients {
        client.subscribes("a", AT_LEAST_ONCE);
    }
    shard.store_holds();
    shard.store_was_asked();
    shard.bridge(0).goes_down();
    shard.appends(&["a"], &message("a", "x"));
    shard.bridge(0).comes_up();
    assert_eq!(shard.store_was_asked().len(), 256);
    for client in &clients {
        client.hears_nothing();
    }
    shard.store_answers();
    for client in &clients {
        client.hears(qos1(1, "a", "x"));
    }
    assert!(!shard.stage().engine.has_work());
}
