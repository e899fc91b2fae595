//! Wills that fall due because their client has come back elsewhere, or begins a new session.

use holdfast_engine::{CloseReason, EngineConfig};
use holdfast_wire::ids::Epoch;
use holdfast_wire::link::{Handover, ToGateway};
use holdfast_wire::message::{Message, SharedMessage};
use holdfast_wire::mqtt::{Connect, Disconnect, PubAck, Will, WillProperties};
use holdfast_wire::store::{Request, WillRecord};

use crate::bridge::Heard;
use crate::packets::{accepted, connect, id, message, qos1, resume, resumed, will};
use crate::stage::Shard;
use crate::takeover::taken_over;
use crate::wills::wills_take_all_room;

/// The number of the will in these stories: the epoch of the connection that left it.
const NUMBER: u64 = 3;

fn left_by(client: &str) -> WillRecord {
    let message = SharedMessage::new(&Message { publisher: client, ..message("gone", "alas") });
    WillRecord { message, delay_s: 0, expiry_s: 60 }
}

/// The former owner's word.
fn handover(client: &str, epoch: Epoch, owes_will: bool) -> ToGateway<'_> {
    ToGateway::Handover(Handover { client, epoch, owner: Shard::OWNER, session: &[], owes_will })
}

/// A connection elsewhere is being displaced by one here; gives the epoch under which its owner is asked.
#[track_caller]
fn asks_the_former_owner(shard: &Shard) -> Epoch {
    let Heard::Takeover { epoch, .. } = shard.bridge(0).hears() else {
        panic!("the former owner is to be told")
    };
    epoch
}

/// How often the store was asked to strike out the will since the last look.
fn struck_out(shard: &Shard) -> usize {
    let is_about_it = |asked: &&Request| matches!(asked, Request::WillPublished { client, number: NUMBER } if **client == *"c");
    shard.store_was_asked().iter().filter(is_about_it).count()
}

/// The will is published if it is owed, and struck out in any case.
#[track_caller]
fn is_dealt_with(shard: &Shard, owes_will: bool) {
    if owes_will {
        shard.bridge(0).hears_uplink("gone", "alas");
        shard.bridge(0).settles(1..=1);
    }
    shard.bridge(0).hears_nothing();
    assert_eq!(struck_out(shard), 1);
}

#[test]
fn a_will_that_is_owed_is_published_before_anything_of_the_new_connection() {
    // Whether the session goes on or not.
    for expiry_s in [3_600, 0] {
        let shard = Shard::new();
        shard.opened_elsewhere("c", expiry_s);
        shard.store_answers_will(NUMBER, left_by("c"));
        let client = shard.client();
        client.sends(resume("c"));
        client.sends(qos1(1, "state", "online"));
        let epoch = asks_the_former_owner(&shard);
        client.hears_nothing();
        shard.bridge(0).hears_nothing();
        shard.bridge(0).says(&handover("c", epoch, true));
        let uplink = shard.bridge(0).hears_uplink("gone", "alas");
        assert_eq!((uplink.epoch, uplink.packet_id), (Epoch(NUMBER), None));
        let view = uplink.message.view();
        let now_ms = shard.stage().now.unix_ms;
        assert_eq!((view.published_at_ms, view.expires_at_ms), (now_ms, now_ms + 60_000));
        assert_eq!(view.id, left_by("c").published(NUMBER, 0).id);
        shard.bridge(0).hears_uplink("state", "online");
        client.hears(if expiry_s > 0 { resumed() } else { accepted() });
        assert_eq!(struck_out(&shard), 0);
        shard.bridge(0).settles(1..=2);
        assert_eq!(struck_out(&shard), 1);
        client.hears(PubAck::success(id(1)));
    }
}

#[test]
fn a_will_that_the_former_owner_has_dealt_with_is_struck_out() {
    let shard = Shard::new();
    shard.opened_elsewhere("c", 3_600);
    shard.store_answers_will(NUMBER, left_by("c"));
    let client = shard.client();
    client.sends(resume("c"));
    let epoch = asks_the_former_owner(&shard);
    shard.bridge(0).says(&handover("c", epoch, false));
    client.hears(resumed());
    shard.bridge(0).hears_nothing();
    assert_eq!((struck_out(&shard), shard.stats().wills), (1, 0));
}

#[test]
fn a_former_owner_that_says_nothing_owes_it() {
    let shard = Shard::new();
    shard.opened_elsewhere("c", 0);
    shard.store_answers_will(NUMBER, left_by("c"));
    let client = shard.client();
    client.sends(resume("c"));
    let epoch = asks_the_former_owner(&shard);
    shard.clock_advances_ms(499);
    client.hears_nothing();
    shard.clock_advances_ms(1);
    client.hears(accepted());
    shard.bridge(0).hears_uplink("gone", "alas");
    shard.bridge(0).says(&handover("c", epoch, true));
    shard.bridge(0).hears_nothing();
}

#[test]
fn nobody_is_asked_for_a_will_that_no_connection_has_left() {
    let shard = Shard::new();
    shard.store_answers_will(NUMBER, left_by("c"));
    let client = shard.client();
    client.sends(connect("c"));
    shard.bridge(0).hears_uplink("gone", "alas");
    client.hears(accepted());
}

#[test]
fn a_will_waits_for_a_bridge_with_everything_behind_it() {
    let shard = Shard::without_links(EngineConfig::default(), 2);
    shard.opened_elsewhere("c", 3_600);
    shard.store_answers_will(NUMBER, left_by("c"));
    let client = shard.client();
    client.sends(resume("c"));
    client.sends(qos1(1, "state", "online"));
    client.hears(resumed());
    shard.bridge(0).comes_up();
    let sequence = shard.bridge(0).hears_uplink("gone", "alas").sequence;
    let heard = shard.bridge(0).hears();
    assert!(matches!(heard, Heard::Takeover { .. }), "{heard:?}");
    shard.bridge(0).hears_uplink("state", "online");
    // The client keeps to that bridge while its will is on its way, whichever other one comes up.
    shard.bridge(0).settles(sequence + 1..=sequence + 1);
    client.hears(PubAck::success(id(1)));
    shard.bridge(1).comes_up();
    client.sends(qos1(2, "state", "still"));
    shard.bridge(0).hears_uplink("state", "still");
    shard.store_was_asked();
    shard.bridge(0).goes_down();
    shard.bridge(1).hears();
    assert!(shard.bridge(1).hears_uplink("gone", "alas").resent);
    shard.bridge(1).hears_uplink("state", "still");
    shard.bridge(1).settles(1..=1);
    assert_eq!(struck_out(&shard), 1);
}

#[test]
fn a_will_whose_frame_stays_unsettled_is_struck_out_before_it_is_given_to_another() {
    let shard = Shard::new();
    shard.store_answers_will(NUMBER, left_by("c"));
    shard.connects(&connect("c"));
    shard.clock_advances_ms(1_999);
    assert_eq!(struck_out(&shard), 0);
    shard.clock_advances_ms(1);
    assert_eq!(struck_out(&shard), 1);
    shard.bridge(0).settles(1..=1);
    shard.clock_advances_ms(10_000);
    assert_eq!(struck_out(&shard), 0);
}

#[test]
fn the_store_is_asked_until_it_has_struck_a_will_out() {
    let shard = Shard::new();
    shard.store_answers_will(NUMBER, left_by("c"));
    shard.connects(&connect("c"));
    shard.store_goes_away();
    shard.bridge(0).settles(1..=1);
    assert_eq!(struck_out(&shard), 1);
    for _ in 0..3 {
        shard.clock_advances_ms(1_000);
        assert_eq!(struck_out(&shard), 1);
    }
    shard.store_answers();
    shard.clock_advances_ms(1_000);
    assert_eq!(struck_out(&shard), 1);
    shard.clock_advances_ms(60_000);
    assert_eq!(struck_out(&shard), 0);
}

#[test]
fn a_connection_that_ends_while_it_waits_has_the_will_dealt_with_all_the_same() {
    for (owes_will, is_silent) in [(true, false), (false, false), (true, true)] {
        let shard = Shard::new();
        shard.opened_elsewhere("c", 0);
        shard.store_answers_will(NUMBER, left_by("c"));
        let client = shard.client();
        client.sends(resume("c"));
        let epoch = asks_the_former_owner(&shard);
        client.vanishes();
        shard.bridge(0).hears_nothing();
        if is_silent {
            shard.clock_advances_ms(500);
        } else {
            shard.bridge(0).says(&handover("c", epoch, owes_will));
        }
        is_dealt_with(&shard, owes_will);
    }
}

#[test]
fn a_connection_that_ends_before_the_store_has_answered_publishes_the_will_of_the_one_before() {
    let shard = Shard::new();
    shard.store_answers_will(NUMBER, left_by("c"));
    shard.store_holds();
    let client = shard.client();
    client.sends(Connect { will: Some(will("gone", "its own")), ..connect("c") });
    client.vanishes();
    shard.store_answers();
    shard.bridge(0).hears_uplink("gone", "alas");
    shard.bridge(0).hears_nothing();
}

#[test]
fn the_next_connection_here_takes_up_the_will_that_the_one_before_waited_for() {
    // Before the former owner has said whether it owes it, and after.
    for arrives_early in [true, false] {
        for owes_will in [true, false] {
            let shard = Shard::new();
            shard.opened_elsewhere("c", 3_600);
            shard.store_answers_will(NUMBER, left_by("c"));
            let first = shard.client();
            first.sends(resume("c"));
            let epoch = asks_the_former_owner(&shard);
            shard.store_holds();
            let second = shard.client();
            second.sends(resume("c"));
            first.hears_the_end(CloseReason::SessionTakenOver);
            if arrives_early {
                shard.bridge(0).says(&handover("c", epoch, owes_will));
                shard.store_answers();
            } else {
                shard.store_answers();
                second.hears_nothing();
                shard.bridge(0).says(&handover("c", epoch, owes_will));
            }
            second.hears(resumed());
            is_dealt_with(&shard, owes_will);
        }
    }
}

#[test]
fn a_session_that_goes_on_to_the_next_owner_leaves_no_will_of_the_one_before_behind() {
    let shard = Shard::new();
    shard.opened_elsewhere("c", 3_600);
    shard.store_answers_will(NUMBER, left_by("c"));
    let client = shard.client();
    client.sends(Connect { will: Some(will("gone", "its own")), ..resume("c") });
    let epoch = asks_the_former_owner(&shard);
    let next = shard.opened_elsewhere("c", 3_600);
    shard.bridge(0).says(&taken_over("c", next.epoch));
    shard.bridge(0).says(&handover("c", epoch, true));
    client.hears_the_end(CloseReason::SessionTakenOver);
    shard.bridge(0).hears_uplink("gone", "alas");
    shard.bridge(0).hears_nothing();
    shard.bridge(0).settles(1..=1);
    assert!(!shard.bridge(0).hears_will_is_owed(), "its own connection was never accepted");
    shard.bridge(0).hears_nothing();
}

#[test]
fn who_is_displaced_publishes_nothing_and_says_that_it_owes_its_will() {
    for (left, is_owed) in [(Some(will("gone", "c")), true), (None, false)] {
        let shard = Shard::new();
        let client = shard.connects(&Connect { will: left, ..resume("c") });
        let elsewhere = shard.opened_elsewhere("c", 3_600);
        shard.bridge(0).says(&taken_over("c", elsewhere.epoch));
        client.hears_goodbye(CloseReason::SessionTakenOver);
        assert_eq!(shard.bridge(0).hears_will_is_owed(), is_owed);
        shard.clock_advances_ms(10_000);
        shard.bridge(0).hears_nothing();
        assert_eq!(shard.stats().wills, 0);
    }
}

#[test]
fn what_became_of_a_will_is_known_until_the_store_knows_it() {
    let delayed = WillProperties { delay_interval_s: Some(60), ..WillProperties::default() };
    // Said goodbye; vanished without a delay; vanished with one.
    for (says_goodbye, properties, is_owed) in
        [(true, delayed, false), (false, WillProperties::default(), false), (false, delayed, true)]
    {
        let shard = Shard::new();
        let client =
            shard.connects(&Connect { will: Some(Will { properties, ..will("gone", "c") }), ..resume("c") });
        shard.store_holds();
        let elsewhere = shard.opened_elsewhere("c", 3_600);
        if says_goodbye {
            client.sends(Disconnect::default());
        } else {
            client.vanishes();
        }
        shard.bridge(0).forgets();
        shard.bridge(0).says(&taken_over("c", elsewhere.epoch));
        if !says_goodbye && !is_owed {
            shard.bridge(0).hears_nothing();
            shard.bridge(0).settles(1..=1);
        }
        assert_eq!(shard.bridge(0).hears_will_is_owed(), is_owed);
        shard.store_answers();
        shard.clock_advances_ms(100_000);
        shard.bridge(0).hears_nothing();
    }
}

#[test]
fn a_draining_shard_waits_for_its_wills() {
    let shard = Shard::new();
    shard.store_answers_will(NUMBER, left_by("c"));
    shard.connects(&connect("c"));
    shard.input(|engine, now| engine.handle_drain(now, 0));
    assert!(!shard.stage().engine.is_drained());
    shard.bridge(0).settles(1..=1);
    assert_eq!(struck_out(&shard), 1);
    assert!(shard.stage().engine.is_drained());
}

#[test]
fn a_will_that_is_answered_twice_is_published_once() {
    // To a second connection while the first one's will is on its way, while its former owner is waited for, and when it owes nothing.
    for (is_told, owes_will) in [(true, true), (false, true), (false, false)] {
        let shard = Shard::new();
        shard.opened_elsewhere("c", 3_600);
        shard.store_answers_will(NUMBER, left_by("c"));
        let first = shard.client();
        first.sends(resume("c"));
        let epoch = asks_the_former_owner(&shard);
        if is_told {
            shard.bridge(0).says(&handover("c", epoch, owes_will));
            shard.bridge(0).hears_uplink("gone", "alas");
            first.hears(resumed());
        }
        shard.store_answers_will(NUMBER, left_by("c"));
        let second = shard.client();
        second.sends(resume("c"));
        if !is_told {
            second.hears_nothing();
            shard.bridge(0).says(&handover("c", epoch, owes_will));
            if owes_will {
                shard.bridge(0).hears_uplink("gone", "alas");
            }
        }
        second.hears(resumed());
        shard.clock_advances_ms(10_000);
        shard.bridge(0).hears_nothing();
        assert_eq!(struck_out(&shard), 1);
        // That number is done with; another one is not.
        shard.store_answers_will(NUMBER + 9, left_by("c"));
        let _third = shard.connects(&connect("c"));
        shard.bridge(0).hears_uplink("gone", "alas");
    }
}

#[test]
fn what_the_store_could_not_close_is_closed_before_its_client_opens_again() {
    let shard = Shard::new();
    let delayed = WillProperties { delay_interval_s: Some(60), ..WillProperties::default() };
    let will = Will { properties: delayed, ..will("gone", "alas") };
    let client = shard.connects(&Connect { will: Some(will), ..resume("c") });
    shard.store_was_asked();
    shard.store_goes_away();
    client.vanishes();
    shard.store_answers();
    shard.store_was_asked();
    let client = shard.client();
    client.sends(connect("c"));
    let asked = shard.store_was_asked();
    let closes = |request: &Request| matches!(request, Request::Close { will: Some(_), .. });
    let opens = |request: &Request| matches!(request, Request::Open { clean_start: true, .. });
    let place = |is_it: &dyn Fn(&Request) -> bool| {
        asked.iter().position(is_it).unwrap_or_else(|| panic!("{asked:?}"))
    };
    assert!(place(&closes) < place(&opens), "{asked:?}");
    client.hears(accepted());
    shard.bridge(0).hears_uplink("gone", "alas");
}

#[test]
fn a_shard_is_not_drained_before_the_store_knows_what_was_published() {
    let shard = Shard::new();
    shard.opened_elsewhere("c", 3_600);
    shard.store_answers_will(NUMBER, left_by("c"));
    let client = shard.client();
    client.sends(resume("c"));
    let epoch = asks_the_former_owner(&shard);
    shard.bridge(0).says(&handover("c", epoch, true));
    shard.bridge(0).hears_uplink("gone", "alas");
    client.hears(resumed());
    shard.store_goes_away();
    shard.bridge(0).settles(1..=1);
    assert_eq!(struck_out(&shard), 1);
    shard.store_answers();
    shard.input(|engine, now| engine.handle_drain(now, 0));
    shard.clock_advances_ms(500);
    assert!(!shard.stage().engine.is_drained());
    shard.clock_advances_ms(1_000);
    assert_eq!(struck_out(&shard), 1);
    assert!(shard.stage().engine.is_drained());
}

#[test]
fn a_will_for_which_there_is_no_room_stays_with_the_store() {
    let shard = Shard::without_links(EngineConfig::default(), 1);
    let published = wills_take_all_room(&shard);
    shard.store_answers_will(NUMBER, left_by("c"));
    let client = shard.client();
    client.sends(connect("c"));
    client.hears(accepted());
    assert_eq!((shard.stats().wills, shard.stats().wills_left), (published, 2));
    shard.bridge(0).comes_up();
    shard.bridge(0).forgets();
    shard.bridge(0).settles(1..=published);
    shard.clock_advances_ms(100_000);
    assert_eq!(struck_out(&shard), 0, "a bridge publishes it");
    client.sends(qos1(1, "state", "online"));
    shard.bridge(0).hears_uplink("state", "online");
    shard.bridge(0).settles(published + 1..=published + 1);
    client.hears(PubAck::success(id(1)));
}
