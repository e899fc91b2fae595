//! Messages that only an ended session has: they are reported as kept once the store or the next owner has them.

use holdfast_engine::CloseReason;
use holdfast_wire::ids::Epoch;
use holdfast_wire::link::{Handover, HandoverSettled, Outcome, Target, ToGateway};
use holdfast_wire::message::SharedMessage;
use holdfast_wire::mqtt::{Publish, QoS, SubscriptionOptions};
use holdfast_wire::session_record::{InflightRecord, InflightState, SessionRecord};
use holdfast_wire::store::Request;

use crate::bridge::Heard;
use crate::client::Client;
use crate::packets::{AT_LEAST_ONCE, connect, id, message, message2, qos1, qos2, resume, resumed};
use crate::stage::Shard;
use crate::takeover::taken_over;

/// A persistent client that has a push, of which its bridge awaits report 1, and does not acknowledge it.
fn holds_a_push(shard: &Shard) -> Client {
    let client = shard.connects(&resume("c"));
    client.subscribes("a", AT_LEAST_ONCE);
    shard.bridge(0).forgets();
    shard.bridge(0).pushes(1, "c", &message("a", "push"));
    client.hears(qos1(1, "a", "push"));
    client
}

/// Its session is taken over by another shard; gives the new epoch.
#[track_caller]
fn is_taken_over(shard: &Shard, client: &Client) -> Epoch {
    let opened = shard.opened_elsewhere("c", 3_600);
    shard.bridge(0).says(&taken_over("c", opened.epoch));
    client.hears_goodbye(CloseReason::SessionTakenOver);
    let Heard::Handover { session, .. } = shard.bridge(0).hears() else {
        panic!("the new owner waits for a handover")
    };
    assert_eq!(SessionRecord::decode(&session).map(|known| known.inflight.len()), Ok(1));
    opened.epoch
}

fn settled(epoch: Epoch, is_kept: bool) -> ToGateway<'static> {
    ToGateway::HandoverSettled(HandoverSettled { client: "c", epoch, former: Shard::OWNER, is_kept })
}

#[test]
fn a_push_is_kept_once_the_store_has_the_session() {
    let shard = Shard::new();
    let client = holds_a_push(&shard);
    shard.store_holds_closes();
    client.vanishes();
    shard.bridge(0).hears_nothing();
    shard.clock_advances_ms(1_000);
    shard.bridge(0).hears_nothing();
    shard.store_answers();
    shard.bridge(0).hears_report(1, Outcome::Kept);
    shard.clock_advances_ms(10_000);
    shard.bridge(0).hears_nothing();
}

#[test]
fn a_push_is_not_kept_while_the_session_stays_open_for_its_last_frames() {
    let shard = Shard::new();
    let client = holds_a_push(&shard);
    client.sends(qos1(9, "t", "x"));
    let frame = shard.bridge(0).hears_uplink("t", "x");
    client.vanishes();
    shard.bridge(0).hears_nothing();
    shard.bridge(0).settles(frame.sequence..=frame.sequence);
    shard.bridge(0).hears_report(1, Outcome::Kept);
}

#[test]
fn a_push_that_stands_in_a_stream_is_kept_there() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a", AT_LEAST_ONCE);
    shard.bridge(0).forgets();
    let positions = shard.appends(&["a"], &message("a", "x"));
    shard.bridge(0).delivers(1, Target::Device("c"), &message("a", "x"), positions);
    client.hears(qos1(1, "a", "x"));
    shard.store_holds_closes();
    client.vanishes();
    shard.bridge(0).hears_report(1, Outcome::Kept);
}

#[test]
fn a_push_whose_session_the_store_does_not_take_back_is_lost() {
    let shard = Shard::new();
    let client = holds_a_push(&shard);
    shard.store_goes_away();
    client.vanishes();
    shard.clock_advances_ms(4_999);
    shard.bridge(0).hears_nothing();
    shard.clock_advances_ms(1);
    shard.bridge(0).hears_report(1, Outcome::ConnectionLost);
    shard.store_answers();
    shard.clock_advances_ms(60_000);
    shard.bridge(0).hears_nothing();
}

#[test]
fn a_push_whose_session_the_store_does_not_know_is_lost() {
    let shard = Shard::new();
    let client = holds_a_push(&shard);
    shard.store_holds_closes();
    client.vanishes();
    shard.store_loses_its_data();
    shard.store_answers();
    shard.bridge(0).hears_report(1, Outcome::ConnectionLost);
}

#[test]
fn a_push_that_was_handed_over_is_kept_once_its_next_owner_has_saved_it() {
    let shard = Shard::new();
    let client = holds_a_push(&shard);
    let epoch = is_taken_over(&shard, &client);
    shard.bridge(0).hears_nothing();
    shard.bridge(0).says(&settled(Epoch(epoch.0 + 1), true));
    shard.bridge(0).hears_nothing();
    shard.bridge(0).says(&settled(epoch, true));
    shard.bridge(0).hears_report(1, Outcome::Kept);
    shard.bridge(0).says(&settled(epoch, true));
    shard.clock_advances_ms(10_000);
    shard.bridge(0).hears_nothing();
}

#[test]
fn a_push_that_came_too_late_for_the_next_owner_is_lost_at_once() {
    let shard = Shard::new();
    let client = holds_a_push(&shard);
    let epoch = is_taken_over(&shard, &client);
    shard.bridge(0).says(&settled(epoch, false));
    shard.bridge(0).hears_report(1, Outcome::ConnectionLost);
    shard.clock_advances_ms(10_000);
    shard.bridge(0).hears_nothing();
}

#[test]
fn a_push_that_was_handed_over_to_nobody_is_lost() {
    let shard = Shard::new();
    let client = holds_a_push(&shard);
    is_taken_over(&shard, &client);
    shard.clock_advances_ms(4_999);
    shard.bridge(0).hears_nothing();
    shard.clock_advances_ms(1);
    shard.bridge(0).hears_report(1, Outcome::ConnectionLost);
}

#[test]
fn a_push_that_the_next_owner_asks_for_before_the_store_has_it_goes_there() {
    let shard = Shard::new();
    let client = holds_a_push(&shard);
    shard.store_holds_closes();
    client.vanishes();
    let opened = shard.opened_elsewhere("c", 3_600);
    shard.bridge(0).says(&taken_over("c", opened.epoch));
    assert!(matches!(shard.bridge(0).hears(), Heard::Handover { session, .. } if !session.is_empty()));
    // Which it does not, as another owner has the session.
    shard.store_answers();
    shard.bridge(0).hears_nothing();
    shard.bridge(0).says(&settled(opened.epoch, true));
    shard.bridge(0).hears_report(1, Outcome::Kept);
}

/// A session with one message that stands in no stream.
fn with_a_push() -> Vec<u8> {
    let inflight = InflightRecord {
        packet_id: id(4),
        state: InflightState::AwaitingPubAck,
        subscription_ids: Box::default(),
        retain: false,
        message: Some(SharedMessage::new(&message("a", "push"))),
        positions: Vec::new(),
    };
    let mut session = Vec::new();
    SessionRecord { inflight: vec![inflight], ..SessionRecord::default() }.encode(&mut session);
    session
}

/// A client whose session another shard has connects here; gives its new epoch.
#[track_caller]
fn comes_from_elsewhere(shard: &Shard) -> (Client, Epoch) {
    shard.opened_elsewhere("c", 3_600);
    let client = shard.client();
    client.sends(resume("c"));
    let Heard::Takeover { epoch, former, .. } = shard.bridge(0).hears() else {
        panic!("the former owner is to be told")
    };
    assert_eq!(former, Shard::OTHER);
    shard.store_was_asked();
    (client, epoch)
}

fn handed_over(session: &[u8], epoch: Epoch) -> ToGateway<'_> {
    ToGateway::Handover(Handover { client: "c", epoch, owner: Shard::OWNER, session, owes_will: false })
}

fn settles(epoch: Epoch, is_kept: bool) -> Heard {
    Heard::HandoverSettled { client: "c".to_owned(), epoch, former: Shard::OTHER, is_kept }
}

#[test]
fn a_new_owner_tells_the_former_one_once_it_has_saved_what_that_one_had_alone() {
    let shard = Shard::new();
    let (client, epoch) = comes_from_elsewhere(&shard);
    shard.store_holds();
    shard.bridge(0).says(&handed_over(&with_a_push(), epoch));
    client.hears(resumed());
    client.hears(Publish { dup: true, ..qos1(4, "a", "push") });
    let asked = shard.store_was_asked();
    let is_saved =
        |asked: &Request| matches!(asked, Request::Save { progress, .. } if progress.inflight.len() == 1);
    assert!(asked.iter().any(is_saved), "{asked:?}");
    shard.bridge(0).hears_nothing();
    shard.store_answers();
    assert_eq!(shard.bridge(0).hears(), settles(epoch, true));
    client.acknowledges(4);
    shard.clock_advances_ms(5_000);
    shard.bridge(0).hears_nothing();
}

#[test]
fn a_new_owner_says_nothing_of_what_it_could_not_save() {
    let shard = Shard::new();
    let (client, epoch) = comes_from_elsewhere(&shard);
    shard.store_goes_away();
    shard.bridge(0).says(&handed_over(&with_a_push(), epoch));
    client.hears(resumed());
    shard.clock_advances_ms(3_000);
    shard.bridge(0).hears_nothing();
    shard.store_answers();
    shard.clock_advances_ms(3_000);
    assert_eq!(shard.bridge(0).hears(), settles(epoch, true));
}

#[test]
fn a_new_owner_that_has_gone_on_says_so() {
    let shard = Shard::new();
    let (client, epoch) = comes_from_elsewhere(&shard);
    shard.clock_advances_ms(1_000);
    client.hears(resumed());
    shard.bridge(0).says(&handed_over(&with_a_push(), epoch));
    assert_eq!(shard.bridge(0).hears(), settles(epoch, false));
    client.hears_nothing();
    shard.bridge(0).says(&handed_over(&with_a_push(), epoch));
    shard.bridge(0).hears_nothing();
}

#[test]
fn a_new_owner_has_nothing_to_say_of_what_the_store_knows() {
    let shard = Shard::new();
    let (client, epoch) = comes_from_elsewhere(&shard);
    let mut session = Vec::new();
    SessionRecord { received: vec![id(7)], ..SessionRecord::default() }.encode(&mut session);
    shard.bridge(0).says(&handed_over(&session, epoch));
    client.hears(resumed());
    shard.clock_advances_ms(3_000);
    shard.bridge(0).hears_nothing();
}

#[test]
fn what_may_be_with_a_client_whose_session_has_ended_is_in_doubt_at_qos_2_alone() {
    let shard = Shard::new();
    let client = shard.connects(&connect("c"));
    client.subscribes("a", SubscriptionOptions { qos: QoS::ExactlyOnce, ..AT_LEAST_ONCE });
    shard.bridge(0).forgets();
    shard.bridge(0).pushes(1, "c", &message2("a", "x"));
    shard.bridge(0).pushes(2, "c", &message("a", "y"));
    client.hears(qos2(1, "a", "x"));
    client.hears(qos1(2, "a", "y"));
    client.vanishes();
    shard.bridge(0).hears_report(1, Outcome::InDoubt);
    shard.bridge(0).hears_report(2, Outcome::ConnectionLost);
}
