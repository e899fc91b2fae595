//! The same client connects again: here, or on another shard.

use holdfast_engine::CloseReason;
use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::link::{Handover, Takeover, ToGateway};
use holdfast_wire::mqtt::{Connect, PubAck, PubRec, Publish, QoS, Will, WillProperties};
use holdfast_wire::session_record::{SessionRecord, SubscriptionRecord};
use holdfast_wire::store::Request;

use crate::bridge::Heard;
use crate::packets::{
    AT_LEAST_ONCE, accepted, accepted_311, connect, connect_311, expiring, goodbye, id, message, qos1, qos2,
    resume, resumed, will,
};
use crate::stage::Shard;

/// Word of a new owner elsewhere.
pub(crate) fn taken_over(client: &str, epoch: Epoch) -> ToGateway<'_> {
    ToGateway::Takeover(Takeover { client, epoch, former: Shard::OWNER, owner: Shard::OTHER })
}

#[test]
fn a_new_connection_closes_the_old_one_and_takes_the_session() {
    let shard = Shard::new();
    let first = shard.connects(&resume("c"));
    first.subscribes("a", AT_LEAST_ONCE);
    let second = shard.client();
    second.sends(resume("c"));
    first.hears_goodbye(CloseReason::SessionTakenOver);
    second.hears(resumed());
    shard.bridge(0).publishes(&message("a", "x"));
    second.hears(qos1(1, "a", "x"));
    assert_eq!((shard.stats().takeovers, shard.stage().engine.connections()), (1, 1));
}

#[test]
fn a_takeover_is_quick_enough_while_the_first_session_is_still_opened() {
    let shard = Shard::new();
    shard.store_holds();
    let first = shard.client_311();
    first.sends(connect_311("c"));
    let second = shard.client_311();
    second.sends(connect_311("c"));
    first.hears_the_end(CloseReason::SessionTakenOver);
    second.hears_nothing();
    shard.store_answers();
    second.hears(accepted_311(false));
    assert_eq!(shard.device("c").connection, second.id);
}

#[test]
fn what_the_old_connection_did_not_acknowledge_the_new_one_hears_again() {
    let shard = Shard::new();
    let first = shard.connects(&resume("c"));
    first.subscribes("a", AT_LEAST_ONCE);
    let positions = shard.appends(&["a"], &message("a", "x"));
    shard.bridge(0).publishes_at(&message("a", "x"), positions);
    first.hears(qos1(1, "a", "x"));
    let second = shard.client();
    second.sends(resume("c"));
    second.hears(resumed());
    second.hears(Publish { dup: true, ..qos1(1, "a", "x") });
    second.hears_nothing();
}

#[test]
fn an_uplink_of_the_old_connection_is_not_acknowledged_to_the_new_one() {
    let shard = Shard::new();
    let first = shard.connects(&resume("c"));
    first.sends(qos1(1, "t", "x"));
    let second = shard.connects(&resume("c"));
    second.sends(Publish { dup: true, ..qos1(1, "t", "x") });
    shard.bridge(0).settles(1..=1);
    second.hears_nothing();
    shard.bridge(0).settles(2..=2);
    second.hears(PubAck::success(id(1)));
}

#[test]
fn word_of_another_owner_closes_the_connection_and_hands_over_what_only_this_shard_knows() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a", AT_LEAST_ONCE);
    shard.bridge(0).forgets();
    client.sends(qos2(7, "t", "x"));
    shard.bridge(0).hears_uplink("t", "x");
    shard.bridge(0).settles(1..=1);
    client.hears(PubRec::success(id(7)));
    let positions = shard.appends(&["a"], &message("a", "x"));
    shard.bridge(0).publishes_at(&message("a", "x"), positions);
    client.hears(qos1(1, "a", "x"));
    let opened = shard.opened_elsewhere("c", 3_600);
    assert_eq!(opened.former, Some(Shard::OWNER));
    shard.store_was_asked();
    shard.bridge(0).says(&taken_over("c", opened.epoch));
    client.hears_goodbye(CloseReason::SessionTakenOver);
    let Heard::Handover { client: name, session, .. } = shard.bridge(0).hears() else {
        panic!("the new owner waits for a handover")
    };
    let known = SessionRecord::decode(&session).expect("a session record");
    assert_eq!(name, "c");
    assert_eq!(known.received, [id(7)]);
    assert_eq!(known.inflight.len(), 1);
    assert_eq!(shard.store_was_asked(), [], "the store takes no more writes from here");
}

#[test]
fn word_of_an_owner_that_was_before_us_is_no_word() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    shard.bridge(0).says(&taken_over("c", shard.epoch_of("c")));
    client.hears_nothing();
    // Whoever asked is told that there is nothing to wait for.
    let nothing = Heard::Handover { client: "c".to_owned(), session: Vec::new(), owes_will: false };
    assert_eq!(shard.bridge(0).hears(), nothing);
    shard.bridge(0).says(&taken_over("nobody", Epoch(u64::MAX)));
    assert!(matches!(shard.bridge(0).hears(), Heard::Handover { .. }));
}

#[test]
fn a_new_owner_waits_a_moment_for_what_the_former_one_knows() {
    let shard = Shard::new();
    shard.opened_elsewhere("c", 3_600);
    let client = shard.client();
    client.sends(resume("c"));
    client.hears_nothing();
    let Heard::Takeover { client: name, epoch, former } = shard.bridge(0).hears() else {
        panic!("the former owner is to be told")
    };
    assert_eq!((&*name, former), ("c", Shard::OTHER));
    let mut session = Vec::new();
    SessionRecord { received: vec![id(7)], ..SessionRecord::default() }.encode(&mut session);
    let handover =
        |epoch| Handover { client: "c", epoch, owner: Shard::OWNER, session: &session, owes_will: false };
    // One of another takeover is not the one that is waited for.
    shard.bridge(0).says(&ToGateway::Handover(handover(Epoch(epoch.0 - 1))));
    client.hears_nothing();
    shard.bridge(0).says(&ToGateway::Handover(handover(epoch)));
    client.hears(resumed());
    client.sends(Publish { dup: true, ..qos2(7, "t", "x") });
    client.hears(PubRec::success(id(7)));
    shard.bridge(0).says(&ToGateway::Handover(handover(epoch)));
    client.hears_nothing();
}

#[test]
fn a_former_owner_that_says_nothing_is_not_waited_for_any_longer() {
    let shard = Shard::new();
    shard.opened_elsewhere("c", 3_600);
    let client = shard.client();
    client.sends(resume("c"));
    shard.clock_advances_ms(499);
    client.hears_nothing();
    shard.clock_advances_ms(1);
    client.hears(resumed());
}

#[test]
fn a_session_without_a_past_waits_for_nobody() {
    let shard = Shard::new();
    shard.opened_elsewhere("c", 0);
    let client = shard.client();
    client.sends(connect("c"));
    client.hears(accepted());
    assert!(matches!(shard.bridge(0).hears(), Heard::Takeover { .. }));
}

#[test]
fn a_connection_that_ends_while_it_waits_leaves_its_session_resting() {
    let shard = Shard::new();
    shard.opened_elsewhere("c", 3_600);
    let client = shard.client();
    client.sends(resume("c"));
    shard.store_was_asked();
    client.vanishes();
    // What the former owner knows may still come.
    assert_eq!(shard.store_was_asked(), []);
    shard.clock_advances_ms(500);
    assert!(matches!(&shard.store_was_asked()[..], [Request::Close { expiry_s: 3_600, .. }]));
    assert_eq!(shard.stats().handovers_late, 1);
    let client = shard.client();
    client.sends(resume("c"));
    client.hears(resumed());
}

#[test]
fn a_takeover_is_told_to_each_new_bridge_until_the_former_owner_has_answered() {
    let shard = Shard::without_links(holdfast_engine::EngineConfig::default(), 1);
    shard.opened_elsewhere("c", 3_600);
    let client = shard.client();
    client.sends(resume("c"));
    client.hears(resumed());
    for _ in 0..2 {
        shard.bridge(0).comes_up();
        assert!(matches!(shard.bridge(0).hears(), Heard::Takeover { .. }));
        shard.bridge(0).goes_down();
    }
    let epoch = shard.epoch_of("c");
    let handover = Handover { client: "c", epoch, owner: Shard::OWNER, session: &[], owes_will: false };
    shard.bridge(0).comes_up();
    shard.bridge(0).says(&ToGateway::Handover(handover));
    shard.bridge(0).goes_down();
    shard.bridge(0).comes_up();
    shard.bridge(0).hears_nothing();
    client.hears_nothing();
}

#[test]
fn a_stale_owner_is_found_out_by_the_store() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.sends(Connect { ..connect("x") });
    client.hears(goodbye(CloseReason::SecondConnect));
    let client = shard.connects(&resume("c"));
    shard.opened_elsewhere("c", 3_600);
    client.sends(crate::packets::subscribe(1, &[("a", AT_LEAST_ONCE)]));
    client.hears_goodbye(CloseReason::Fenced);
}

#[test]
fn an_open_that_lost_to_another_shard_meanwhile_is_closed() {
    let shard = Shard::new();
    shard.store_holds();
    let client = shard.client();
    client.sends(Connect { properties: expiring(60), ..connect("c") });
    shard.bridge(0).says(&taken_over("c", Epoch(u64::MAX)));
    client.hears_nothing();
    shard.store_answers();
    client.hears_the_end(CloseReason::SessionTakenOver);
}

#[test]
fn an_operator_may_disconnect_a_client() {
    let shard = Shard::new();
    let client = shard.connects(&Connect { will: Some(will("gone", "c")), ..connect("c") });
    shard.bridge(0).says(&ToGateway::Disconnect("c"));
    client.hears_goodbye(CloseReason::AdministrativeAction);
    shard.bridge(0).hears_uplink("gone", "c");
    assert!(!shard.input(|engine, now| engine.disconnect("c", now)));
}

/// A handover that brings one received QoS 2 id.
fn known(received: u16) -> Vec<u8> {
    let mut session = Vec::new();
    SessionRecord { received: vec![id(received)], ..SessionRecord::default() }.encode(&mut session);
    session
}

#[test]
fn what_arrives_for_a_connection_that_is_gone_is_saved_with_its_session() {
    let shard = Shard::new();
    shard.opened_elsewhere("c", 3_600);
    let client = shard.client();
    client.sends(resume("c"));
    let Heard::Takeover { epoch, .. } = shard.bridge(0).hears() else { panic!("the former owner is told") };
    client.vanishes();
    shard.store_was_asked();
    let session = known(7);
    let handover = Handover { client: "c", epoch, owner: Shard::OWNER, session: &session, owes_will: false };
    shard.bridge(0).says(&ToGateway::Handover(handover));
    let asked = shard.store_was_asked();
    let [Request::Close { progress, .. }] = &asked[..] else { panic!("the store is asked {asked:?}") };
    assert_eq!(progress.received, [id(7)]);
    assert_eq!(shard.stats().handovers_late, 0);
}

#[test]
fn what_arrives_for_a_connection_that_is_gone_is_taken_up_by_the_next_one_here() {
    // Before the store has opened the session for the next one, and after.
    for arrives_early in [true, false] {
        let shard = Shard::new();
        shard.opened_elsewhere("c", 3_600);
        let first = shard.client();
        first.sends(resume("c"));
        let Heard::Takeover { epoch, .. } = shard.bridge(0).hears() else {
            panic!("the former owner is told")
        };
        shard.store_holds();
        let second = shard.client();
        second.sends(resume("c"));
        first.hears_the_end(CloseReason::SessionTakenOver);
        let session = known(7);
        let handover =
            Handover { client: "c", epoch, owner: Shard::OWNER, session: &session, owes_will: false };
        if arrives_early {
            shard.bridge(0).says(&ToGateway::Handover(handover));
            shard.store_answers();
        } else {
            shard.store_answers();
            second.hears_nothing();
            shard.bridge(0).says(&ToGateway::Handover(handover));
        }
        second.hears(resumed());
        second.sends(Publish { dup: true, ..qos2(7, "t", "x") });
        second.hears(PubRec::success(id(7)));
    }
}

#[test]
fn what_arrives_while_the_next_one_is_gone_too_is_saved_with_that_ones_session() {
    let shard = Shard::new();
    shard.opened_elsewhere("c", 3_600);
    let first = shard.client();
    first.sends(resume("c"));
    let Heard::Takeover { epoch, .. } = shard.bridge(0).hears() else { panic!("the former owner is told") };
    first.vanishes();
    shard.store_holds();
    let second = shard.client();
    second.sends(resume("c"));
    second.vanishes();
    let session = known(7);
    let handover = Handover { client: "c", epoch, owner: Shard::OWNER, session: &session, owes_will: false };
    shard.bridge(0).says(&ToGateway::Handover(handover));
    shard.store_was_asked();
    shard.store_answers();
    let asked = shard.store_was_asked();
    let [Request::Close { progress, epoch: closed, .. }] = &asked[..] else {
        panic!("the store is asked {asked:?}")
    };
    assert_eq!((&progress.received[..], *closed), (&[id(7)][..], shard.stored_epoch("c")));
}

#[test]
fn what_arrives_for_a_connection_that_is_gone_goes_on_to_the_next_owner() {
    let shard = Shard::new();
    shard.opened_elsewhere("c", 3_600);
    let client = shard.client();
    client.sends(resume("c"));
    let Heard::Takeover { epoch, .. } = shard.bridge(0).hears() else { panic!("the former owner is told") };
    client.vanishes();
    let next = shard.opened_elsewhere("c", 3_600);
    shard.bridge(0).says(&taken_over("c", next.epoch));
    shard.bridge(0).hears_nothing();
    let session = known(7);
    let handover = Handover { client: "c", epoch, owner: Shard::OWNER, session: &session, owes_will: false };
    shard.bridge(0).says(&ToGateway::Handover(handover));
    let Heard::Handover { session, .. } = shard.bridge(0).hears() else { panic!("the next owner waits") };
    assert_eq!(SessionRecord::decode(&session).expect("a session record").received, [id(7)]);
    shard.clock_advances_ms(1_000);
    shard.bridge(0).hears_nothing();
}

#[test]
fn a_takeover_that_means_an_earlier_connection_is_answered_with_what_that_one_knew() {
    let shard = Shard::new();
    let first = shard.connects(&resume("c"));
    first.sends(qos2(7, "t", "x"));
    shard.bridge(0).settles(1..=1);
    first.hears(PubRec::success(id(7)));
    shard.bridge(0).forgets();
    // The client goes elsewhere, and comes back before word of that does.
    let elsewhere = shard.opened_elsewhere("c", 3_600);
    let second = shard.client();
    second.sends(resume("c"));
    first.hears_goodbye(CloseReason::SessionTakenOver);
    assert!(matches!(shard.bridge(0).hears(), Heard::Takeover { .. }));
    shard.bridge(0).says(&taken_over("c", elsewhere.epoch));
    let Heard::Handover { session, .. } = shard.bridge(0).hears() else { panic!("the other owner waits") };
    assert_eq!(SessionRecord::decode(&session).expect("a session record").received, [id(7)]);
    second.hears_nothing();
}

#[test]
fn what_nobody_asks_for_within_a_minute_is_handed_over_to_nobody() {
    for (waits_ms, is_told) in [(59_000, true), (61_000, false)] {
        let shard = Shard::new();
        let properties = WillProperties { delay_interval_s: Some(600), ..WillProperties::default() };
        let will = Will { properties, ..will("gone", "alas") };
        let client = shard.connects(&Connect { will: Some(will), ..resume("c") });
        // The store refuses to close what another owner has, and that one does not say so.
        shard.opened_elsewhere("c", 3_600);
        client.vanishes();
        shard.clock_advances_ms(waits_ms);
        shard.bridge(0).says(&taken_over("c", Epoch(u64::MAX)));
        let Heard::Handover { owes_will, .. } = shard.bridge(0).hears() else {
            panic!("the other owner waits")
        };
        assert_eq!(owes_will, is_told, "after {waits_ms} ms");
    }
}

#[test]
fn a_stream_that_the_former_owner_had_not_heard_of_is_read_all_the_same() {
    let shard = Shard::new();
    let opened = shard.opened_elsewhere("c", 3_600);
    let subscription = SubscriptionRecord {
        filter: "a".into(),
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        identifier: 0,
    };
    let client = ClientId::new("c");
    let subscriptions = vec![subscription];
    shard.store_is_asked(Request::Subscribe { client, epoch: opened.epoch, subscriptions });
    let before = message("a", "before");
    assert_eq!(shard.appends(&["a"], &before).len(), 1);
    let client = shard.client();
    client.sends(resume("c"));
    let Heard::Takeover { epoch, .. } = shard.bridge(0).hears() else { panic!("the former owner is asked") };
    let mut session = Vec::new();
    SessionRecord { received: vec![id(7)], ..SessionRecord::default() }.encode(&mut session);
    let handover = Handover { client: "c", epoch, owner: Shard::OWNER, session: &session, owes_will: false };
    shard.bridge(0).says(&ToGateway::Handover(handover));
    client.hears(resumed());
    let heard = client.hears_packet();
    client.packet_id_of(&heard, "before");
}
