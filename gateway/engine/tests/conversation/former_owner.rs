//! The former owner of a session is asked through several bridges, not all of which have met it.

use holdfast_engine::{CloseReason, EngineConfig};
use holdfast_wire::ids::Epoch;
use holdfast_wire::link::{Handover, ToGateway};
use holdfast_wire::message::{Message, SharedMessage};
use holdfast_wire::mqtt::{Connect, Disconnect, PubRec, Publish, Will, WillProperties};
use holdfast_wire::session_record::SessionRecord;
use holdfast_wire::store::WillRecord;

use crate::bridge::Heard;
use crate::client::Client;
use crate::packets::{id, message, qos2, resume, resumed, will};
use crate::stage::Shard;
use crate::takeover::taken_over;

/// The number of the will in these stories.
const NUMBER: u64 = 3;

/// A shard with so many bridges, of which all are there.
fn linked_with(bridges: u16) -> Shard {
    let shard = Shard::without_links(EngineConfig::default(), bridges);
    (0..bridges).for_each(|bridge| shard.bridge(bridge).comes_up());
    shard
}

/// A client whose session another shard has, with a will that is owed unless that one says otherwise, connects here.
fn comes_from_elsewhere(shard: &Shard) -> Client {
    shard.opened_elsewhere("c", 3_600);
    let message = SharedMessage::new(&Message { publisher: "c", ..message("gone", "alas") });
    shard.store_answers_will(NUMBER, WillRecord { message, delay_s: 0, expiry_s: 60 });
    let client = shard.client();
    client.sends(resume("c"));
    client
}

/// The bridge among the first so many that is asked to tell the former owner, and the epoch; the others are not.
#[track_caller]
fn asked(shard: &Shard, bridges: u16) -> (u16, Epoch) {
    let mut asked = None;
    for bridge in 0..bridges {
        if let Some(Heard::Takeover { epoch, .. }) = shard.bridge(bridge).may_hear() {
            assert_eq!(asked.replace((bridge, epoch)), None, "two bridges are asked at once");
        }
        shard.bridge(bridge).hears_nothing();
    }
    asked.expect("the former owner is asked")
}

fn not_linked(epoch: Epoch) -> ToGateway<'static> {
    ToGateway::NotLinked { client: "c", epoch }
}

/// The former owner's word: its client had said goodbye, and it knows of one QoS 2 message.
fn handed_over(session: &[u8], epoch: Epoch) -> ToGateway<'_> {
    ToGateway::Handover(Handover { client: "c", epoch, owner: Shard::OWNER, session, owes_will: false })
}

fn known(received: u16) -> Vec<u8> {
    let mut session = Vec::new();
    SessionRecord { received: vec![id(received)], ..SessionRecord::default() }.encode(&mut session);
    session
}

/// It knows what was handed over.
#[track_caller]
fn goes_on_with(client: &Client, received: u16) {
    client.hears(resumed());
    client.sends(Publish { dup: true, ..qos2(received, "t", "x") });
    client.hears(PubRec::success(id(received)));
}

#[test]
fn a_bridge_that_has_not_met_the_former_owner_does_not_speak_for_it() {
    let shard = linked_with(3);
    let client = comes_from_elsewhere(&shard);
    let (first, epoch) = asked(&shard, 3);
    shard.bridge(first).says(&not_linked(epoch));
    client.hears_nothing();
    let (second, _) = asked(&shard, 3);
    shard.bridge(second).says(&handed_over(&known(7), epoch));
    goes_on_with(&client, 7);
    (0..3).for_each(|bridge| shard.bridge(bridge).hears_nothing());
    assert_eq!((shard.stats().wills, shard.stats().handovers_late), (0, 0));
}

#[test]
fn a_former_owner_that_no_bridge_has_met_is_not_waited_for() {
    let shard = linked_with(3);
    let client = comes_from_elsewhere(&shard);
    let mut bridges = Vec::new();
    let mut until_told = || {
        let (bridge, epoch) = asked(&shard, 3);
        bridges.push(bridge);
        shard.bridge(bridge).says(&not_linked(epoch));
    };
    until_told();
    until_told();
    client.hears_nothing();
    let (last, epoch) = asked(&shard, 3);
    shard.bridge(last).says(&not_linked(epoch));
    bridges.push(last);
    bridges.sort_unstable();
    assert_eq!(bridges, [0, 1, 2]);
    client.hears(resumed());
    assert_eq!((shard.stats().wills, shard.stats().handovers_late), (1, 0));
}

#[test]
fn a_former_owner_is_asked_elsewhere_when_the_link_is_lost() {
    let shard = linked_with(2);
    let client = comes_from_elsewhere(&shard);
    let (first, epoch) = asked(&shard, 2);
    shard.bridge(first).goes_down();
    let (second, _) = asked(&shard, 2);
    assert_ne!(first, second);
    shard.bridge(second).says(&handed_over(&known(7), epoch));
    goes_on_with(&client, 7);
}

#[test]
fn a_former_owner_that_may_have_heard_is_waited_for() {
    let shard = linked_with(2);
    let client = comes_from_elsewhere(&shard);
    let (first, epoch) = asked(&shard, 2);
    shard.bridge(first).goes_down();
    let (second, _) = asked(&shard, 2);
    // The bridge that is lost may have told it.
    shard.bridge(second).says(&not_linked(epoch));
    client.hears_nothing();
    shard.bridge(first).comes_up();
    // An answer to what was asked before it came back.
    let (again, _) = asked(&shard, 2);
    shard.bridge(1 - again).says(&not_linked(epoch));
    client.hears_nothing();
    shard.bridge(again).says(&handed_over(&known(7), epoch));
    goes_on_with(&client, 7);
    assert_eq!(shard.stats().wills, 0);
}

#[test]
fn what_is_lost_with_all_links_is_waited_for_no_longer_than_usual() {
    let shard = linked_with(1);
    let client = comes_from_elsewhere(&shard);
    shard.bridge(0).goes_down();
    shard.clock_advances_ms(499);
    client.hears_nothing();
    shard.clock_advances_ms(1);
    client.hears(resumed());
    assert_eq!((shard.stats().wills, shard.stats().handovers_late), (1, 1));
}

/// Word that a session is lost, and what this shard answers over the same bridge.
#[track_caller]
fn answers(shard: &Shard, bridge: u16, epoch: Epoch) -> (Vec<u8>, bool) {
    shard.bridge(bridge).says(&taken_over("c", epoch));
    let answer = match shard.bridge(bridge).hears() {
        Heard::Handover { session, owes_will, .. } => (session, owes_will),
        other => panic!("the bridge hears {other:?}, not a handover"),
    };
    shard.bridge(1 - bridge).hears_nothing();
    answer
}

/// A client with something to hand over: a received QoS 2 message, and its will.
fn with_a_past(shard: &Shard) -> Client {
    let client = shard.connects(&Connect { will: Some(will("gone", "alas")), ..resume("c") });
    client.sends(qos2(7, "t", "x"));
    (0..2).for_each(|bridge| {
        shard.bridge(bridge).settles(1..=1);
        shard.bridge(bridge).forgets();
    });
    client.hears(PubRec::success(id(7)));
    client
}

#[test]
fn a_former_owner_answers_over_the_bridge_that_asked_and_each_time_the_same() {
    let shard = linked_with(2);
    let client = with_a_past(&shard);
    let epoch = shard.opened_elsewhere("c", 3_600).epoch;
    let first = answers(&shard, 0, epoch);
    assert_eq!(SessionRecord::decode(&first.0).expect("a session record").received, [id(7)]);
    assert!(first.1, "its will is not published");
    client.hears_goodbye(CloseReason::SessionTakenOver);
    assert_eq!(answers(&shard, 1, epoch), first);
    // Until nobody can be waiting.
    shard.clock_advances_ms(999);
    assert_eq!(answers(&shard, 0, epoch), first);
    shard.clock_advances_ms(1);
    assert_eq!(answers(&shard, 0, epoch), (Vec::new(), false));
}

#[test]
fn what_was_told_to_one_owner_is_not_told_to_the_next_one() {
    let shard = linked_with(2);
    let _client = with_a_past(&shard);
    let epoch = shard.opened_elsewhere("c", 3_600).epoch;
    assert!(answers(&shard, 0, epoch).1);
    assert_eq!(answers(&shard, 0, Epoch(epoch.0 + 1)), (Vec::new(), false));
}

#[test]
fn a_former_owner_that_asks_the_store_first_answers_over_the_bridge_that_asked_last() {
    let shard = linked_with(2);
    shard.store_holds();
    let client = shard.client();
    client.sends(resume("c"));
    let later = Epoch(u64::MAX);
    for bridge in [0, 1] {
        shard.bridge(bridge).says(&taken_over("c", later));
        shard.bridge(bridge).hears_nothing();
    }
    shard.bridge(0).goes_down();
    shard.store_answers();
    client.hears_the_end(CloseReason::SessionTakenOver);
    assert!(matches!(shard.bridge(1).hears(), Heard::Handover { .. }));
}

#[test]
fn a_former_owner_whose_asking_bridge_is_lost_answers_over_another_one() {
    let shard = linked_with(2);
    shard.store_holds();
    let client = shard.client();
    client.sends(resume("c"));
    shard.bridge(0).says(&taken_over("c", Epoch(u64::MAX)));
    shard.bridge(0).goes_down();
    shard.store_answers();
    client.hears_the_end(CloseReason::SessionTakenOver);
    assert!(matches!(shard.bridge(1).hears(), Heard::Handover { .. }));
}

#[test]
fn of_too_many_ended_sessions_the_oldest_is_forgotten() {
    const REMEMBERED: usize = 10_000;
    let shard = linked_with(2);
    let properties = WillProperties { delay_interval_s: Some(600), ..WillProperties::default() };
    let will = Will { properties, ..will("gone", "alas") };
    shard.store_holds_closes();
    // The smallest client id is not the first to go.
    for name in ["z", "a"] {
        shard.connects(&Connect { will: Some(will), ..resume(name) }).vanishes();
    }
    for number in 0..REMEMBERED - 1 {
        shard.connects(&resume(&format!("b{number}"))).sends(Disconnect::default());
    }
    for (name, is_known) in [("z", false), ("a", true)] {
        shard.bridge(0).forgets();
        shard.bridge(0).says(&taken_over(name, Epoch(u64::MAX)));
        assert_eq!(shard.bridge(0).hears_will_is_owed(), is_known, "{name}");
    }
}
