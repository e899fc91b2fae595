//! Sessions that outlive their connections: what is kept, for how long, and what comes again.

use holdfast_engine::{CloseReason, EngineConfig, Limits};
use holdfast_wire::ids::ClientId;
use holdfast_wire::link::Outcome;
use holdfast_wire::message::Message;
use holdfast_wire::mqtt::{
    Connect, ConnectProperties, Disconnect, DisconnectProperties, PubComp, PubRec, PubRel, Publish,
    ReasonCode, SubscriptionOptions,
};
use holdfast_wire::store::{Reply, Request};

use crate::client::Client;
use crate::packets::{
    AT_LEAST_ONCE, AT_MOST_ONCE, EXACTLY_ONCE, accepted, accepted_311, connect, connect_311, expiring, id,
    message, message2, qos0, qos1, qos2, resume, resume_311, resumed, suback, subscribe, unsubscribe,
};
use crate::stage::Shard;

/// Appends a message to a filter's stream under this id, and delivers it live.
fn publishes(shard: &Shard, filter: &str, number: u64, message: &Message<'_>) {
    let message = Message { id: number, ..*message };
    let positions = shard.appends(&[filter], &message);
    shard.bridge(0).publishes_at(&message, positions);
}

/// Appends it while nobody delivers it.
fn misses(shard: &Shard, filter: &str, number: u64, message: &Message<'_>) {
    shard.appends(&[filter], &Message { id: number, ..*message });
}

#[track_caller]
fn comes_back(shard: &Shard, client_id: &str) -> Client {
    let client = shard.client();
    client.sends(resume(client_id));
    client.hears(resumed());
    client
}

#[test]
fn a_session_is_present_until_it_expires() {
    let shard = Shard::new();
    let client = shard.client();
    client.sends(Connect { clean_start: false, properties: expiring(60), ..connect("c") });
    client.hears(accepted());
    client.vanishes();
    shard.clock_advances_ms(59_000);
    let client = shard.client();
    client.sends(Connect { clean_start: false, properties: expiring(60), ..connect("c") });
    client.hears(resumed());
    client.vanishes();
    shard.clock_advances_ms(60_000);
    let client = shard.client();
    client.sends(Connect { clean_start: false, properties: expiring(60), ..connect("c") });
    client.hears(accepted());
}

#[test]
fn an_older_clients_clean_session_bit_says_both() {
    let shard = Shard::new();
    let lasting = shard.client_311();
    lasting.sends(resume_311("c"));
    lasting.hears(accepted_311(false));
    lasting.vanishes();
    let lasting = shard.client_311();
    lasting.sends(resume_311("c"));
    lasting.hears(accepted_311(true));
    lasting.vanishes();
    let clean = shard.client_311();
    clean.sends(connect_311("c"));
    clean.hears(accepted_311(false));
    clean.vanishes();
    let lasting = shard.client_311();
    lasting.sends(resume_311("c"));
    lasting.hears(accepted_311(false));
}

#[test]
fn a_clean_start_forgets_what_was() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a", AT_LEAST_ONCE);
    publishes(&shard, "a", 1, &message("a", "x"));
    client.vanishes();
    let client = shard.client();
    client.sends(Connect { properties: expiring(3_600), ..connect("c") });
    client.hears(accepted());
    client.hears_nothing();
    assert_eq!(shard.device("c").subscriptions, []);
}

#[test]
fn a_clients_goodbye_may_shorten_the_session() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.sends(Disconnect {
        properties: DisconnectProperties {
            session_expiry_interval_s: Some(0),
            ..DisconnectProperties::default()
        },
        ..Disconnect::default()
    });
    client.hears_the_end(CloseReason::ClientDisconnected);
    let client = shard.client();
    client.sends(resume("c"));
    client.hears(accepted());
}

#[test]
fn a_goodbye_cannot_make_a_session_last_that_was_to_end() {
    let client = Shard::new().connects(&connect("c"));
    client.sends(Disconnect {
        properties: DisconnectProperties {
            session_expiry_interval_s: Some(60),
            ..DisconnectProperties::default()
        },
        ..Disconnect::default()
    });
    client.hears_goodbye(CloseReason::ProtocolError);
}

#[test]
fn what_was_published_while_a_client_was_away_comes_in_order() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a/+", EXACTLY_ONCE);
    client.vanishes();
    misses(&shard, "a/+", 1, &message("a/1", "one"));
    misses(&shard, "a/+", 2, &message2("a/2", "two"));
    misses(&shard, "a/+", 3, &message("a/1", "three"));
    let client = comes_back(&shard, "c");
    client.hears(qos1(1, "a/1", "one"));
    client.hears(qos2(2, "a/2", "two"));
    client.hears(qos1(3, "a/1", "three"));
    publishes(&shard, "a/+", 4, &message("a/1", "live again"));
    client.hears(qos1(4, "a/1", "live again"));
}

#[test]
fn what_is_not_acknowledged_comes_again_with_dup_and_the_same_id() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a", EXACTLY_ONCE);
    shard.bridge(0).forgets();
    for (number, payload) in [(1, "acked"), (2, "lost"), (5, "last")] {
        publishes(&shard, "a", number, &message("a", payload));
    }
    publishes(&shard, "a", 6, &message2("a", "received"));
    publishes(&shard, "a", 7, &message2("a", "not received"));
    client.takes_bytes();
    client.acknowledges(1);
    client.sends(PubRec::success(id(4)));
    client.hears(PubRel::success(id(4)));
    client.vanishes();
    let client = comes_back(&shard, "c");
    client.hears(Publish { dup: true, ..qos1(2, "a", "lost") });
    client.hears(Publish { dup: true, ..qos1(3, "a", "last") });
    client.hears(PubRel::success(id(4)));
    client.hears(Publish { dup: true, ..qos2(5, "a", "not received") });
    client.hears_nothing();
    client.sends(PubComp::success(id(4)));
    client.acknowledges(2);
    assert_eq!((shard.device("c").inflight, shard.stats().resent), (2, 3));
    publishes(&shard, "a", 8, &message("a", "new"));
    // New ids begin elsewhere: a node that died may have used the next ones.
    client.hears(qos1(1, "a", "new"));
}

#[test]
fn what_was_pending_when_the_connection_ended_comes_after_what_was_sent() {
    let shard = Shard::new();
    let wanted = Connect {
        properties: ConnectProperties { receive_maximum: Some(1), ..expiring(3_600) },
        ..resume("c")
    };
    let client = shard.connects(&wanted);
    client.subscribes("a", AT_LEAST_ONCE);
    for (number, payload) in [(1, "1"), (2, "2"), (3, "3")] {
        publishes(&shard, "a", number, &message("a", payload));
    }
    client.hears(qos1(1, "a", "1"));
    client.hears_nothing();
    client.vanishes();
    misses(&shard, "a", 4, &message("a", "4"));
    let client = comes_back(&shard, "c");
    client.hears(Publish { dup: true, ..qos1(1, "a", "1") });
    for (packet_id, payload) in [(2, "2"), (3, "3"), (4, "4")] {
        client.hears(qos1(packet_id, "a", payload));
    }
    client.hears_nothing();
}

#[test]
fn a_client_that_takes_less_than_before_is_sent_the_rest_as_room_comes() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a", AT_LEAST_ONCE);
    for (number, payload) in [(1, "1"), (2, "2"), (3, "3")] {
        publishes(&shard, "a", number, &message("a", payload));
    }
    client.vanishes();
    let client = shard.client();
    let properties = ConnectProperties { receive_maximum: Some(1), ..expiring(3_600) };
    client.sends(Connect { properties, ..resume("c") });
    client.hears(resumed());
    client.hears(Publish { dup: true, ..qos1(1, "a", "1") });
    client.hears_nothing();
    client.acknowledges(1);
    let second = client.hears_packet();
    assert!(second.ends_with(b"2"), "{second:?}");
    client.hears_nothing();
}

#[test]
fn nothing_is_heard_twice_where_the_cursor_was_saved() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a", AT_LEAST_ONCE);
    publishes(&shard, "a", 1, &message("a", "1"));
    client.hears(qos1(1, "a", "1"));
    client.acknowledges(1);
    shard.store_was_asked();
    shard.clock_advances_ms(1_000);
    assert!(matches!(&shard.store_was_asked()[..], [Request::Save { .. }]));
    // Saved once, not again while nothing happens.
    shard.clock_advances_ms(10_000);
    assert_eq!(shard.store_was_asked(), []);
    client.vanishes();
    comes_back(&shard, "c").hears_nothing();
}

#[test]
fn a_resumed_session_reads_its_streams_only_once_every_bridge_knows_its_filters() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a", AT_LEAST_ONCE);
    client.vanishes();
    misses(&shard, "a", 1, &message("a", "missed"));
    shard.bridge(0).holds_answers();
    shard.bridge(0).forgets();
    let client = comes_back(&shard, "c");
    let token = shard.bridge(0).hears_interest("+a durable");
    client.hears_nothing();
    // What comes live meanwhile stands in the stream and is read in its turn.
    publishes(&shard, "a", 2, &message("a", "meanwhile"));
    client.hears_nothing();
    shard.bridge(0).knows(token);
    client.hears(qos1(1, "a", "missed"));
    client.hears(qos1(2, "a", "meanwhile"));
    client.hears_nothing();
}

#[test]
fn a_gap_in_what_comes_live_is_filled_from_the_stream() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a", AT_LEAST_ONCE);
    misses(&shard, "a", 1, &message("a", "never delivered live"));
    publishes(&shard, "a", 2, &message("a", "live"));
    client.hears(qos1(1, "a", "never delivered live"));
    client.hears(qos1(2, "a", "live"));
    client.hears_nothing();
}

#[test]
fn a_message_in_two_streams_of_a_session_comes_once() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a/+", AT_LEAST_ONCE);
    client.subscribes("a/#", AT_LEAST_ONCE);
    let both = Message { id: 1, ..message("a/1", "live") };
    let positions = shard.appends(&["a/+", "a/#"], &both);
    shard.bridge(0).publishes_at(&both, positions);
    client.hears(qos1(1, "a/1", "live"));
    client.hears_nothing();
    client.acknowledges(1);
    client.vanishes();
    shard.appends(&["a/+", "a/#"], &Message { id: 2, ..message("a/1", "missed") });
    let client = comes_back(&shard, "c");
    let heard = client.hears_packet();
    assert!(heard.ends_with(b"missed"));
    client.hears_nothing();
}

#[test]
fn a_message_that_one_subscription_passes_over_comes_by_another() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a/#", SubscriptionOptions { no_local: true, ..AT_LEAST_ONCE });
    client.subscribes("a/b", AT_LEAST_ONCE);
    client.vanishes();
    let own = Message { id: 1, publisher: "c", ..message("a/b", "own") };
    shard.appends(&["a/#", "a/b"], &own);
    let client = comes_back(&shard, "c");
    assert!(client.hears_packet().ends_with(b"own"));
    client.hears_nothing();
}

#[test]
fn a_stream_is_read_no_more_once_its_subscription_wants_quality_of_service_0() {
    let shard = Shard::new();
    let another = shard.connects(&resume("d"));
    another.subscribes("a/#", AT_LEAST_ONCE);
    let client = shard.connects(&resume("c"));
    client.subscribes("a/#", AT_LEAST_ONCE);
    client.subscribes("a/b", AT_LEAST_ONCE);
    client.subscribes("a/#", AT_MOST_ONCE);
    publishes(&shard, "a/#", 1, &message("a/c", "first"));
    client.hears(qos0("a/c", "first"));
    misses(&shard, "a/#", 2, &message("a/c", "missed"));
    publishes(&shard, "a/#", 3, &message("a/c", "third"));
    client.hears(qos0("a/c", "third"));
    client.hears_nothing();
}

#[test]
fn what_was_read_is_remembered_for_its_time_however_often_it_reads() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a", AT_LEAST_ONCE);
    misses(&shard, "a", 1, &message("a", "first"));
    publishes(&shard, "a", 2, &message("a", "second"));
    client.hears(qos1(1, "a", "first"));
    client.hears(qos1(2, "a", "second"));
    shard.clock_advances_ms(4_900);
    misses(&shard, "a", 3, &message("a", "in doubt"));
    publishes(&shard, "a", 4, &message("a", "fourth"));
    client.hears(qos1(3, "a", "in doubt"));
    client.hears(qos1(4, "a", "fourth"));
    shard.clock_advances_ms(200);
    publishes(&shard, "a", 3, &message("a", "in doubt"));
    client.hears_nothing();
    // ... and not for ever.
    shard.clock_advances_ms(5_000);
    publishes(&shard, "a", 3, &message("a", "again"));
    client.hears(qos1(5, "a", "again"));
}

/// What a bridge does whose append the store has heeded without saying so in time.
#[test]
fn a_message_that_was_appended_twice_comes_once() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a", AT_LEAST_ONCE);
    // Both are in the stream once the first is heard of.
    misses(&shard, "a", 1, &message("a", "in doubt"));
    publishes(&shard, "a", 1, &message("a", "in doubt"));
    client.hears(qos1(1, "a", "in doubt"));
    client.hears_nothing();
    // The second comes when the session has read the first and is live.
    misses(&shard, "a", 2, &message("a", "in doubt as well"));
    publishes(&shard, "a", 3, &message("a", "behind"));
    client.hears(qos1(2, "a", "in doubt as well"));
    client.hears(qos1(3, "a", "behind"));
    publishes(&shard, "a", 2, &message("a", "in doubt as well"));
    client.hears_nothing();
    publishes(&shard, "a", 4, &message("a", "next"));
    client.hears(qos1(4, "a", "next"));
}

#[test]
fn a_session_that_falls_behind_reads_on_from_its_stream() {
    let limits = Limits { pending_messages_max: 4, ..Limits::default() };
    let shard = Shard::with(EngineConfig { limits, ..EngineConfig::default() });
    let wanted = Connect {
        properties: ConnectProperties { receive_maximum: Some(1), ..expiring(3_600) },
        ..resume("c")
    };
    let client = shard.connects(&wanted);
    client.subscribes("a", AT_LEAST_ONCE);
    let payloads: Vec<_> = (1..=50_u64).map(|number| number.to_string()).collect();
    for (number, payload) in (1..).zip(&payloads) {
        publishes(&shard, "a", number, &message("a", payload));
        assert!(shard.device("c").pending <= 4);
    }
    for (packet_id, payload) in (1..).zip(&payloads) {
        client.hears(qos1(packet_id, "a", payload));
        client.acknowledges(packet_id);
    }
    client.hears_nothing();
    assert_eq!(shard.stats().dropped_queue_full, 0);
}

#[test]
fn a_store_that_fails_a_read_is_asked_again() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a", AT_LEAST_ONCE);
    misses(&shard, "a", 1, &message("a", "missed"));
    shard.store_goes_away();
    publishes(&shard, "a", 2, &message("a", "live"));
    client.hears_nothing();
    shard.store_answers();
    shard.clock_advances_ms(1_000);
    client.hears(qos1(1, "a", "missed"));
    client.hears(qos1(2, "a", "live"));
}

#[test]
fn a_message_that_expired_in_its_stream_is_passed_over() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a", AT_LEAST_ONCE);
    client.vanishes();
    let expires_at_ms = shard.stage().now.unix_ms + 1_000;
    misses(&shard, "a", 1, &Message { expires_at_ms, ..message("a", "stale") });
    misses(&shard, "a", 2, &message("a", "fresh"));
    shard.clock_advances_ms(2_000);
    let client = comes_back(&shard, "c");
    client.hears(qos1(1, "a", "fresh"));
    client.hears_nothing();
}

#[test]
fn an_unsubscribed_stream_is_not_read_on_a_resume() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a", AT_LEAST_ONCE);
    client.subscribes("b", AT_LEAST_ONCE);
    client.sends(unsubscribe(3, &["a"]));
    client.takes_bytes();
    client.vanishes();
    assert_eq!(shard.appends(&["a"], &message("a", "x")), []);
    misses(&shard, "b", 2, &message("b", "y"));
    let client = comes_back(&shard, "c");
    client.hears(qos1(1, "b", "y"));
    client.hears_nothing();
}

#[test]
fn a_subscription_whose_suback_was_lost_may_be_made_again() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a", AT_LEAST_ONCE);
    client.vanishes();
    misses(&shard, "a", 1, &message("a", "missed"));
    let client = comes_back(&shard, "c");
    client.hears(qos1(1, "a", "missed"));
    client.sends(subscribe(2, &[("a", AT_LEAST_ONCE)]));
    client.hears(suback(2, &[1]));
    publishes(&shard, "a", 2, &message("a", "live"));
    client.hears(qos1(2, "a", "live"));
    client.hears_nothing();
}

#[test]
fn a_push_to_a_persistent_session_that_breaks_off_is_kept() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a", AT_LEAST_ONCE);
    shard.bridge(0).forgets();
    shard.bridge(0).pushes(1, "c", &message("a", "push"));
    client.hears(qos1(1, "a", "push"));
    client.vanishes();
    shard.bridge(0).hears_report(1, Outcome::Kept);
    let client = comes_back(&shard, "c");
    client.hears(Publish { dup: true, ..qos1(1, "a", "push") });
}

#[test]
fn a_push_that_was_queued_for_the_device_comes_when_it_does() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a", AT_LEAST_ONCE);
    client.vanishes();
    let push = Message { id: 9, publisher: "", ..message("a", "push") };
    assert_eq!(shard.appends(&["@c"], &push).len(), 1);
    let client = comes_back(&shard, "c");
    client.hears(qos1(1, "a", "push"));
    client.acknowledges(1);
    client.vanishes();
    comes_back(&shard, "c").hears_nothing();
}

#[test]
fn a_session_resumed_without_an_expiry_ends_with_this_connection() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a", AT_LEAST_ONCE);
    client.vanishes();
    let client = shard.client();
    client.sends(Connect { clean_start: false, ..connect("c") });
    client.hears(resumed());
    shard.bridge(0).publishes(&message("a", "live"));
    client.hears(qos1(1, "a", "live"));
    client.sends(Disconnect::with_reason(ReasonCode::Success));
    let client = shard.client();
    client.sends(resume("c"));
    client.hears(accepted());
}

#[test]
fn a_session_that_the_store_could_not_close_is_closed_again_ever_more_patiently() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    shard.store_goes_away();
    shard.store_was_asked();
    client.vanishes();
    assert!(matches!(&shard.store_was_asked()[..], [Request::Close { .. }]));
    for wait_ms in [1_000, 2_000, 4_000, 8_000] {
        shard.clock_advances_ms(wait_ms - 1);
        assert_eq!(shard.store_was_asked(), []);
        shard.clock_advances_ms(1);
        assert!(matches!(&shard.store_was_asked()[..], [Request::Close { expiry_s: 3_600, .. }]));
    }
    shard.store_answers();
    shard.clock_advances_ms(16_000);
    assert!(matches!(&shard.store_was_asked()[..], [Request::Close { .. }]));
    shard.clock_advances_ms(600_000);
    assert_eq!(shard.store_was_asked(), []);
    let Reply::Session(Some(session)) = shard.store_is_asked(Request::Lookup { client: ClientId::new("c") })
    else {
        panic!("the session rests")
    };
    assert_eq!(session.owner, None);
}

#[test]
fn a_store_that_stays_away_is_not_asked_for_ever() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    shard.store_goes_away();
    client.vanishes();
    shard.store_was_asked();
    shard.clock_advances_ms(3_600_000);
    assert_eq!(shard.store_was_asked().len(), 10);
}

#[test]
fn thousands_of_clients_whose_sessions_could_not_be_closed_come_back_at_once() {
    let shard = Shard::new();
    let names: Vec<_> = (0..2_000).map(|number| format!("device-{number}")).collect();
    let clients: Vec<_> = names.iter().map(|name| shard.connects(&resume(name))).collect();
    shard.store_goes_away();
    clients.iter().for_each(Client::vanishes);
    shard.store_answers();
    shard.store_was_asked();
    for name in &names {
        let client = shard.client();
        client.sends(resume(name));
        client.hears(resumed());
        let asked = shard.store_was_asked();
        assert!(
            matches!(&asked[..], [Request::Close { client, .. }, Request::Open { .. }, ..] if **client == **name),
            "the store was asked {asked:?}"
        );
    }
    shard.clock_advances_ms(600_000);
    assert!(!shard.store_was_asked().iter().any(|asked| matches!(asked, Request::Close { .. })));
}
