//! Sessions that the store has lost, and sessions that it has given to others.

use holdfast_engine::{CloseReason, EngineConfig, LeaseWord, Limits};
use holdfast_wire::ids::ClientId;
use holdfast_wire::message::Message;
use holdfast_wire::mqtt::{Connect, PubAck, Publish, ReasonCode};
use holdfast_wire::store::{Progress, Request};

use crate::bridge::Heard;
use crate::client::Client;
use crate::packets::{AT_LEAST_ONCE, connect, id, message, qos1, resume, resumed, suback, subscribe, will};
use crate::stage::Shard;
use crate::takeover::taken_over;

/// A client with a session that lasts and one filter.
fn subscriber(shard: &Shard, client_id: &str, filter: &str) -> Client {
    let client = shard.connects(&resume(client_id));
    client.subscribes(filter, AT_LEAST_ONCE);
    // It asks for retained messages, which is another story.
    shard.bridge(0).forgets();
    client
}

fn restored(shard: &Shard) -> usize {
    shard.store_was_asked().iter().filter(|request| matches!(request, Request::Restore { .. })).count()
}

#[test]
fn a_store_that_lost_its_data_is_written_back_what_is_connected() {
    let shard = Shard::new();
    let lasting = subscriber(&shard, "lasting", "a/#");
    let _passing = shard.connects(&connect("passing"));
    shard.store_loses_its_data();
    assert_eq!(shard.stored_filters("lasting"), None);
    shard.lease_says(LeaseWord::Forgotten);
    shard.clock_advances_ms(100);
    assert_eq!(shard.stored_filters("lasting"), Some(vec!["a/#".to_owned()]));
    assert_eq!(shard.stored_filters("passing"), Some(vec![]));
    assert_eq!(shard.stats().restored, 2);
    lasting.vanishes();
    let lasting = shard.client();
    lasting.sends(resume("lasting"));
    lasting.hears(resumed());
}

#[test]
fn it_is_written_back_no_faster_than_it_is_told() {
    let limits = Limits { restores_per_s: 1_000, ..Limits::default() };
    let shard = Shard::with(EngineConfig { limits, ..EngineConfig::default() });
    let _clients: Vec<_> = (0..120).map(|number| shard.connects(&resume(&format!("c-{number}")))).collect();
    shard.store_loses_its_data();
    shard.store_was_asked();
    shard.lease_says(LeaseWord::Forgotten);
    shard.clock_advances_ms(1);
    assert_eq!(restored(&shard), 50);
    shard.clock_advances_ms(50);
    assert_eq!(restored(&shard), 50);
    shard.clock_advances_ms(1_000);
    assert_eq!(restored(&shard), 20, "each once");
}

#[test]
fn a_store_that_cannot_take_a_session_back_is_asked_again() {
    let shard = Shard::new();
    let _client = subscriber(&shard, "c", "a");
    shard.store_loses_its_data();
    shard.store_goes_away();
    shard.lease_says(LeaseWord::Forgotten);
    shard.clock_advances_ms(500);
    shard.store_answers();
    shard.clock_advances_ms(1_000);
    assert_eq!(shard.stored_filters("c"), Some(vec!["a".to_owned()]));
}

#[test]
fn what_is_inflight_survives_the_stores_loss() {
    let shard = Shard::new();
    let client = subscriber(&shard, "c", "a");
    let first = Message { id: 1, ..message("a", "one") };
    let positions = shard.appends(&["a"], &first);
    let before = positions[0].acked;
    shard.bridge(0).publishes_at(&first, positions);
    client.hears(qos1(1, "a", "one"));
    shard.clock_advances_ms(1);
    shard.store_loses_its_data();
    shard.lease_says(LeaseWord::Forgotten);
    shard.clock_advances_ms(100);
    // The stream has begun anew: its first message is not taken for the one that had its place before.
    let second = Message { id: 2, ..message("a", "two") };
    let positions = shard.appends(&["a"], &second);
    assert!(positions[0].acked > before + 1);
    shard.bridge(0).publishes_at(&second, positions);
    client.hears(qos1(2, "a", "two"));
    client.vanishes();
    let client = shard.client();
    client.sends(resume("c"));
    client.hears(resumed());
    client.hears(Publish { dup: true, ..qos1(1, "a", "one") });
    client.hears(Publish { dup: true, ..qos1(2, "a", "two") });
    client.hears_nothing();
}

#[test]
fn what_was_on_its_way_when_the_store_lost_its_stream_still_comes() {
    let shard = Shard::new();
    let client = subscriber(&shard, "c", "a");
    publishes(&shard, 1);
    takes(std::slice::from_ref(&client), 1);
    // In the stream before the loss, and at the bridge until after it.
    let on_their_way = [2_u16, 3].map(|number| {
        let text = number.to_string();
        (number, shard.appends(&["a"], &Message { id: number.into(), ..message("a", &text) }))
    });
    shard.clock_advances_ms(1);
    shard.store_loses_its_data();
    shard.lease_says(LeaseWord::Forgotten);
    shard.clock_advances_ms(100);
    for (number, positions) in on_their_way {
        let text = number.to_string();
        let message = Message { id: number.into(), ..message("a", &text) };
        shard.bridge(0).publishes_at(&message, positions);
        client.hears(qos1(number, "a", &text));
        client.acknowledges(number);
    }
    publishes(&shard, 4);
    client.hears(qos1(4, "a", "4"));
    client.acknowledges(4);
    // Each of them once, also for whoever resumes.
    client.vanishes();
    let client = shard.client();
    client.sends(resume("c"));
    client.hears(resumed());
    client.hears_nothing();
}

#[test]
fn what_came_into_a_stream_while_its_session_was_written_back_is_read() {
    let shard = Shard::new();
    let client = subscriber(&shard, "c", "a");
    shard.store_loses_its_data();
    shard.store_holds();
    shard.lease_says(LeaseWord::Forgotten);
    shard.clock_advances_ms(1);
    shard.store_answers();
    // Nobody delivers it.
    shard.appends(&["a"], &Message { id: 1, ..message("a", "one") });
    shard.bridge(0).goes_down();
    shard.bridge(0).comes_up();
    client.hears(qos1(1, "a", "one"));
}

/// Two subscribers of one filter have had two messages, the store has lost its data, and the first of them is back.
fn one_of_two_is_back() -> (Shard, [Client; 2]) {
    let limits = Limits { restores_per_s: 20, ..Limits::default() };
    let shard = Shard::with(EngineConfig { limits, ..EngineConfig::default() });
    let clients = ["first", "second"].map(|name| subscriber(&shard, name, "a"));
    for number in 1..=2 {
        publishes(&shard, number);
        takes(&clients, number);
    }
    shard.clock_advances_ms(1_500);
    shard.store_loses_its_data();
    shard.lease_says(LeaseWord::Forgotten);
    shard.clock_advances_ms(1);
    assert_eq!(shard.stored_filters("first"), Some(vec!["a".to_owned()]));
    assert_eq!(shard.stored_filters("second"), None);
    (shard, clients)
}

fn publishes(shard: &Shard, number: u16) {
    let text = number.to_string();
    let message = Message { id: number.into(), ..message("a", &text) };
    let positions = shard.appends(&["a"], &message);
    shard.bridge(0).publishes_at(&message, positions);
}

/// Each hears the message of this number and acknowledges it; it has as many before it.
fn takes(clients: &[Client], number: u16) {
    for client in clients {
        client.hears(qos1(number, "a", &number.to_string()));
        client.acknowledges(number);
    }
}

#[test]
fn what_comes_live_from_a_stream_that_was_made_anew_reaches_those_who_are_not_back_yet() {
    let (shard, clients) = one_of_two_is_back();
    publishes(&shard, 3);
    takes(&clients, 3);
    shard.clock_advances_ms(5_000);
    assert!(shard.stored_filters("second").is_some());
    publishes(&shard, 4);
    takes(&clients, 4);
    for client in clients {
        client.hears_nothing();
    }
}

#[test]
fn what_the_first_that_is_back_has_settled_is_read_by_the_second() {
    let (shard, clients) = one_of_two_is_back();
    // Nobody delivers it to the second.
    let third = Message { id: 3, ..message("a", "3") };
    let positions = shard.appends(&["a"], &third);
    let epoch = shard.stored_epoch("first");
    let progress = Progress { cursors: positions, ..Progress::default() };
    shard.store_is_asked(Request::Save { client: ClientId::new("first"), epoch, progress });
    shard.clock_advances_ms(1_000);
    clients[1].hears(qos1(3, "a", "3"));
    clients[1].acknowledges(3);
    shard.clock_advances_ms(10_000);
    clients[1].hears_nothing();
}

#[test]
fn a_session_that_reads_while_the_store_loses_its_data_goes_on_in_the_stream_that_is_made_anew() {
    let (shard, clients) = one_of_two_is_back();
    shard.store_holds();
    for number in 3..=4 {
        publishes(&shard, number);
    }
    shard.store_answers();
    takes(&clients, 3);
    takes(&clients, 4);
    shard.clock_advances_ms(1_000);
    for client in clients {
        client.hears_nothing();
    }
}

#[test]
fn a_place_that_comes_live_again_holds_another_message() {
    let shard = Shard::new();
    let client = subscriber(&shard, "c", "a");
    let mut places = Vec::new();
    for number in 1..=5_u16 {
        let text = number.to_string();
        let message = Message { id: number.into(), ..message("a", &text) };
        let positions = shard.appends(&["a"], &message);
        places.push(positions.clone());
        shard.bridge(0).publishes_at(&message, positions);
        client.hears(qos1(number, "a", &text));
        client.acknowledges(number);
    }
    // The store has failed over to one that had heard of the first three only.
    for (number, place) in [(6, 3), (7, 4)] {
        let text = number.to_string();
        let message = Message { id: number.into(), ..message("a", &text) };
        shard.bridge(0).publishes_at(&message, places[place].clone());
        client.hears(qos1(number, "a", &text));
        client.acknowledges(number);
    }
    client.hears_nothing();
}

#[test]
fn a_message_that_comes_by_two_ways_is_no_sign_of_a_store_that_went_back() {
    let shard = Shard::new();
    let client = subscriber(&shard, "c", "a");
    client.subscribes("$share/g/a", AT_LEAST_ONCE);
    let first = Message { id: 1, ..message("a", "1") };
    let positions = shard.appends(&["a"], &first);
    shard.bridge(0).publishes_at(&first, positions.clone());
    client.hears(qos1(1, "a", "1"));
    let group = holdfast_wire::link::Target::Group { group: "g", filter: "a" };
    shard.bridge(0).delivers(0, group, &first, positions);
    client.hears_nothing();
}

#[test]
fn a_session_in_doubt_is_neither_read_nor_acknowledged_to_until_the_lease_tells() {
    let shard = Shard::new();
    shard.lease_keeper_holds();
    let client = subscriber(&shard, "c", "a");
    client.sends(qos1(1, "x", "before"));
    shard.store_loses_its_data();
    // Something to save.
    shard.bridge(0).publishes(&message("a", "down"));
    client.hears(qos1(1, "a", "down"));
    shard.clock_advances_ms(1_000);
    assert!(shard.lease_was_asked());
    shard.bridge(0).settles(1..=1);
    client.sends(qos1(2, "x", "meanwhile"));
    client.hears_nothing();
    assert!(client.unread() > 0);
    shard.lease_says(LeaseWord::Forgotten);
    client.hears(PubAck::success(id(1)));
    shard.bridge(0).hears_uplink("x", "before");
    shard.bridge(0).hears_uplink("x", "meanwhile");
    shard.lease_says(LeaseWord::Renewed);
    client.hears_nothing();
    assert_eq!(shard.stored_filters("c"), Some(vec!["a".to_owned()]));
}

#[test]
fn a_subscribe_that_the_store_lost_with_its_session_stands_once_that_is_back() {
    let shard = Shard::new();
    shard.lease_keeper_holds();
    let client = subscriber(&shard, "c", "a");
    shard.store_loses_its_data();
    client.sends(subscribe(2, &[("b", AT_LEAST_ONCE)]));
    client.hears_nothing();
    shard.lease_says(LeaseWord::Forgotten);
    client.hears(suback(2, &[1]));
    assert_eq!(shard.stored_filters("c"), Some(vec!["a".to_owned(), "b".to_owned()]));
}

#[test]
fn a_session_that_is_gone_from_a_store_with_its_data_is_closed() {
    let shard = Shard::new();
    shard.lease_keeper_holds();
    let client = subscriber(&shard, "c", "a");
    shard.opened_elsewhere("c", 3_600);
    client.sends(subscribe(2, &[("b", AT_LEAST_ONCE)]));
    client.hears_nothing();
    shard.lease_says(LeaseWord::Unanswered);
    client.hears_nothing();
    assert!(shard.lease_was_asked());
    shard.clock_advances_ms(1_000);
    assert!(shard.lease_was_asked());
    // The store was away, so it is asked to take the session back, and does not.
    shard.lease_says(LeaseWord::Renewed);
    assert!(shard.lease_was_asked());
    shard.lease_says(LeaseWord::Renewed);
    client.hears_goodbye(CloseReason::Fenced);
}

#[test]
fn a_store_that_was_away_and_came_back_empty_is_found_out_without_word_of_the_lease() {
    let shard = Shard::new();
    let _client = subscriber(&shard, "c", "a");
    let _other = subscriber(&shard, "d", "b");
    shard.store_loses_its_data();
    // The answer that would have told was lost.
    shard.lease_says(LeaseWord::Recovered);
    shard.clock_advances_ms(100);
    assert_eq!(shard.stored_filters("c"), Some(vec!["a".to_owned()]));
    assert_eq!(shard.stored_filters("d"), Some(vec!["b".to_owned()]));
}

#[test]
fn a_write_that_is_refused_to_a_session_which_waits_to_be_written_back_is_no_sign_of_another_owner() {
    let limits = Limits { restores_per_s: 20, save_interval_ms: 10, ..Limits::default() };
    let shard = Shard::with(EngineConfig { limits, ..EngineConfig::default() });
    let [_, _, last] = ["a", "b", "c"].map(|name| subscriber(&shard, name, "news"));
    shard.clock_advances_ms(1_000);
    shard.store_loses_its_data();
    shard.lease_says(LeaseWord::Forgotten);
    shard.bridge(0).publishes(&message("news", "one"));
    last.hears(qos1(1, "news", "one"));
    last.acknowledges(1);
    // It is saved before its turn has come, and the lease is known again.
    shard.store_was_asked();
    shard.clock_advances_ms(20);
    assert!(shard.store_was_asked().iter().any(|request| matches!(request, Request::Save { .. })));
    shard.clock_advances_ms(1_000);
    assert_eq!(shard.stored_filters("c"), Some(vec!["news".to_owned()]));
    shard.bridge(0).publishes(&message("news", "two"));
    last.hears(qos1(2, "news", "two"));
}

#[test]
fn a_session_that_the_store_loses_while_it_is_written_back_is_written_back_once_more() {
    let shard = Shard::new();
    let client = subscriber(&shard, "c", "a");
    shard.store_loses_its_data();
    shard.store_holds();
    shard.lease_says(LeaseWord::Forgotten);
    shard.clock_advances_ms(1);
    shard.store_misses_first();
    shard.store_answers();
    shard.clock_advances_ms(2_000);
    assert_eq!(shard.stored_filters("c"), Some(vec!["a".to_owned()]));
    client.hears_nothing();
}

/// Sessions on their way back, one of them there already, into a store that has lost its data once more and has nobody told so.
fn lost_twice() -> (Shard, [Client; 3]) {
    let limits = Limits { restores_per_s: 20, save_interval_ms: 10, ..Limits::default() };
    let shard = Shard::with(EngineConfig { limits, ..EngineConfig::default() });
    let clients = ["a", "b", "c"].map(|name| subscriber(&shard, name, name));
    shard.store_loses_its_data();
    shard.lease_says(LeaseWord::Forgotten);
    // Long enough for what it had to save, so that no further write of its own finds out.
    shard.clock_advances_ms(40);
    assert_eq!(shard.stored_filters("a"), Some(vec!["a".to_owned()]));
    assert_eq!(shard.stored_filters("b"), None);
    shard.store_loses_its_data();
    // The answer that would have told was lost.
    shard.lease_says(LeaseWord::Recovered);
    (shard, clients)
}

#[test]
fn a_second_loss_while_sessions_are_written_back_is_seen_to_as_well() {
    let (shard, _clients) = lost_twice();
    shard.store_was_asked();
    shard.clock_advances_ms(1_000);
    for name in ["a", "b", "c"] {
        assert_eq!(shard.stored_filters(name), Some(vec![name.to_owned()]));
    }
    shard.clock_advances_ms(5_000);
    assert!(restored(&shard) <= 5, "those that were left, and everyone once");
}

#[test]
fn a_session_that_was_lost_again_is_left_to_rest_if_its_connection_ends_meanwhile() {
    let (shard, [a, ..]) = lost_twice();
    assert_eq!(shard.stored_filters("a"), None);
    a.vanishes();
    let a = shard.client();
    a.sends(resume("a"));
    a.hears(resumed());
}

#[test]
fn sessions_are_written_back_while_nobody_can_be_judged_by_silence() {
    let limits = Limits { restores_per_s: 20, ..Limits::default() };
    let shard = Shard::with(EngineConfig { limits, ..EngineConfig::default() });
    let connect = |name| shard.connects(&Connect { keep_alive_s: 1, ..resume(name) });
    let clients = ["a", "b", "c"].map(connect);
    shard.store_loses_its_data();
    shard.lease_says(LeaseWord::Forgotten);
    shard.clock_advances_unheard_ms(2_000);
    for name in ["a", "b", "c"] {
        assert_eq!(shard.stored_filters(name), Some(vec![]), "{name} has not been taken for silent");
    }
    shard.clock_advances_ms(1);
    for client in clients {
        client.hears_goodbye(CloseReason::KeepAliveTimeout);
    }
}

#[test]
fn a_connection_that_ends_before_its_session_is_back_leaves_it_to_rest() {
    let limits = Limits { restores_per_s: 20, ..Limits::default() };
    let shard = Shard::with(EngineConfig { limits, ..EngineConfig::default() });
    let _first = subscriber(&shard, "first", "a");
    let second = subscriber(&shard, "second", "b");
    shard.store_loses_its_data();
    shard.lease_says(LeaseWord::Forgotten);
    shard.clock_advances_ms(1);
    assert_eq!(shard.stored_filters("second"), None);
    second.vanishes();
    let second = shard.client();
    second.sends(resume("second"));
    second.hears(resumed());
    assert_eq!(shard.device("second").subscriptions.len(), 1);
}

#[test]
fn bridges_hear_again_what_persistent_sessions_hold() {
    let shard = Shard::new();
    let _client = subscriber(&shard, "c", "a");
    shard.bridge(0).holds_answers();
    shard.store_loses_its_data();
    shard.lease_says(LeaseWord::Forgotten);
    shard.clock_advances_ms(200);
    assert_eq!(shard.bridge(0).hears(), Heard::Interest(0, "+a durable".to_owned()));
}

#[test]
fn the_will_of_a_session_in_doubt_is_left_to_whoever_has_taken_it() {
    let shard = Shard::new();
    shard.lease_keeper_holds();
    let client = shard.connects(&Connect { will: Some(will("gone", "c")), ..resume("c") });
    let elsewhere = shard.opened_elsewhere("c", 3_600);
    client.sends(subscribe(2, &[("b", AT_LEAST_ONCE)]));
    shard.bridge(0).forgets();
    assert!(shard.lease_was_asked() && elsewhere.epoch > shard.epoch_of("c"));
    shard.store_was_asked();
    client.vanishes();
    let asked = shard.store_was_asked();
    assert!(
        matches!(&asked[..], [Request::Restore { .. }, Request::Close { will: Some(_), .. }]),
        "the store was asked {asked:?}"
    );
    shard.clock_advances_ms(1_000);
    assert_eq!((shard.stats().wills, shard.stored_epoch("c")), (0, elsewhere.epoch));
    // Who has taken it asks in time or late.
    shard.bridge(0).says(&taken_over("c", elsewhere.epoch));
    assert!(shard.bridge(0).hears_will_is_owed());
    shard.clock_advances_ms(1_000);
    shard.bridge(0).says(&taken_over("c", elsewhere.epoch));
    assert!(!shard.bridge(0).hears_will_is_owed(), "it was told");
}

#[test]
fn a_session_in_doubt_that_was_lost_with_the_stores_data_is_brought_back_when_its_connection_ends() {
    let shard = Shard::new();
    shard.lease_keeper_holds();
    let client = shard.connects(&Connect { will: Some(will("gone", "c")), ..resume("c") });
    let epoch = shard.epoch_of("c");
    client.subscribes("a", AT_LEAST_ONCE);
    shard.store_loses_its_data();
    client.sends(subscribe(2, &[("b", AT_LEAST_ONCE)]));
    assert!(shard.lease_was_asked());
    client.vanishes();
    assert_eq!(shard.stored_epoch("c"), epoch);
    shard.bridge(0).forgets();
    shard.clock_advances_ms(1_000);
    shard.bridge(0).hears_nothing();
}

#[test]
fn whoever_lost_a_session_publishes_nothing_of_it_and_tells_its_new_owner_so() {
    // The store says it, or a bridge that has heard of the new owner's connection.
    for refused_by_bridge in [false, true] {
        let shard = Shard::new();
        let client = shard.connects(&Connect { will: Some(will("gone", "c")), ..resume("c") });
        let elsewhere = shard.opened_elsewhere("c", 3_600);
        if refused_by_bridge {
            client.sends(qos1(1, "t", "x"));
            let sequence = shard.bridge(0).hears_uplink("t", "x").sequence;
            shard.bridge(0).refuses(sequence..=sequence, ReasonCode::SessionTakenOver as u8);
        } else {
            client.sends(subscribe(2, &[("b", AT_LEAST_ONCE)]));
        }
        client.hears_goodbye(CloseReason::Fenced);
        shard.bridge(0).forgets();
        shard.bridge(0).says(&taken_over("c", elsewhere.epoch));
        assert!(shard.bridge(0).hears_will_is_owed());
        shard.bridge(0).hears_nothing();
        assert_eq!(shard.stats().wills, 0);
    }
}

#[test]
fn a_frame_that_another_owner_has_overtaken_makes_the_node_look_whether_it_lives() {
    let shard = Shard::new();
    shard.lease_keeper_holds();
    let client = shard.connects(&resume("c"));
    client.sends(qos1(1, "t", "x"));
    shard.bridge(0).refuses(1..=1, ReasonCode::SessionTakenOver as u8);
    client.hears_goodbye(CloseReason::Fenced);
    assert!(shard.lease_was_asked());
}

#[test]
fn a_buried_node_says_goodbye_and_nothing_else() {
    let shard = Shard::new();
    let client = shard.connects(&Connect { will: Some(will("gone", "c")), ..resume("c") });
    client.sends(qos1(1, "x", "frame"));
    shard.bridge(0).forgets();
    shard.store_was_asked();
    // It is settled in the very turn that brings the news.
    shard.input(|engine, now| {
        let settled = holdfast_wire::link::Settled { first: 1, last: 1, reason_code: 0 };
        let record = holdfast_wire::link::ToGateway::Settled(settled);
        engine.handle_link_record(holdfast_engine::LinkIndex(0), &record, now);
        engine.handle_lease(LeaseWord::Buried, now);
    });
    client.hears_goodbye(CloseReason::NodeBuried);
    shard.bridge(0).hears_nothing();
    assert_eq!(shard.store_was_asked(), []);
    assert!(
        shard.accepts(holdfast_engine::Listener::Mqtt, holdfast_wire::mqtt::ProtocolVersion::V5).is_err()
    );
    shard.clock_advances_ms(60_000);
    shard.bridge(0).hears_nothing();
    assert_eq!(shard.stats().wills, 0);
}
