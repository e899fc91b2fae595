//! Messages that only an ended session has: they are reported as kept once the store or the next owner has them.

use holdfast_engine::CloseReason;
use holdfast_wire::ids::Epoch;
use holdfast_wire::link::{Handover, HandoverSettled, Outcome, Target, ToGateway};
use holdfast_wire::message::{Message, SharedMessage};
use holdfast_wire::mqtt::{Connect, Publish, Will, WillProperties};
use holdfast_wire::session_record::{InflightRecord, InflightState, SessionRecord};
use holdfast_wire::store::{Request, WillRecord};

use crate::bridge::Heard;
use crate::client::Client;
use crate::packets::{
    AT_LEAST_ONCE, EXACTLY_ONCE, accepted, connect, id, message, message2, qos1, qos2, resume, resumed, will,
};
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

fn settled(epoch: Epoch, outcome: Outcome) -> ToGateway<'static> {
    ToGateway::HandoverSettled(HandoverSettled { client: "c", epoch, former: Shard::OWNER, outcome })
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
    shard.bridge(0).says(&settled(Epoch(epoch.0 + 1), Outcome::Kept));
    shard.bridge(0).hears_nothing();
    shard.bridge(0).says(&settled(epoch, Outcome::Kept));
    shard.bridge(0).hears_report(1, Outcome::Kept);
    shard.bridge(0).says(&settled(epoch, Outcome::Kept));
    shard.clock_advances_ms(10_000);
    shard.bridge(0).hears_nothing();
}

#[test]
fn a_push_that_came_too_late_for_the_next_owner_is_lost_at_once() {
    let shard = Shard::new();
    let client = holds_a_push(&shard);
    let epoch = is_taken_over(&shard, &client);
    shard.bridge(0).says(&settled(epoch, Outcome::ConnectionLost));
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
    shard.bridge(0).says(&settled(opened.epoch, Outcome::Kept));
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

fn settles(epoch: Epoch, outcome: Outcome) -> Heard {
    Heard::HandoverSettled { client: "c".to_owned(), epoch, former: Shard::OTHER, outcome }
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
    assert_eq!(shard.bridge(0).hears(), settles(epoch, Outcome::Kept));
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
    assert_eq!(shard.bridge(0).hears(), settles(epoch, Outcome::Kept));
}

#[test]
fn a_new_owner_that_has_gone_on_says_so() {
    let shard = Shard::new();
    let (client, epoch) = comes_from_elsewhere(&shard);
    shard.clock_advances_ms(1_000);
    client.hears(resumed());
    shard.bridge(0).says(&handed_over(&with_a_push(), epoch));
    assert_eq!(shard.bridge(0).hears(), settles(epoch, Outcome::ConnectionLost));
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
    client.subscribes("a", EXACTLY_ONCE);
    shard.bridge(0).forgets();
    shard.bridge(0).pushes(1, "c", &message2("a", "x"));
    shard.bridge(0).pushes(2, "c", &message("a", "y"));
    client.hears(qos2(1, "a", "x"));
    client.hears(qos1(2, "a", "y"));
    client.vanishes();
    shard.bridge(0).hears_report(1, Outcome::InDoubt);
    shard.bridge(0).hears_report(2, Outcome::ConnectionLost);
}

#[test]
fn what_the_client_has_no_room_for_any_more_stays_with_its_session() {
    let shard = Shard::new();
    let client = holds_a_push(&shard);
    shard.bridge(0).pushes(2, "c", &message("a", "second"));
    client.hears(qos1(2, "a", "second"));
    client.vanishes();
    shard.bridge(0).hears_report(1, Outcome::Kept);
    shard.bridge(0).hears_report(2, Outcome::Kept);
    let mut narrow = resume("c");
    narrow.properties.receive_maximum = Some(1);
    for _ in 0..2 {
        let client = shard.client();
        client.sends(narrow);
        client.hears(resumed());
        client.hears(Publish { dup: true, ..qos1(1, "a", "push") });
        client.hears_nothing();
        shard.clock_advances_ms(2_000);
        client.vanishes();
    }
    let client = shard.client();
    client.sends(narrow);
    client.hears(resumed());
    client.hears(Publish { dup: true, ..qos1(1, "a", "push") });
    client.acknowledges(1);
    client.hears(Publish { dup: true, ..qos1(2, "a", "second") });
}

#[test]
fn a_session_that_is_brought_back_for_its_will_keeps_nothing() {
    let shard = Shard::new();
    let properties = WillProperties { delay_interval_s: Some(60), ..WillProperties::default() };
    let last = Will { properties, ..will("gone", "alas") };
    let client = shard.connects(&Connect { will: Some(last), ..resume("c") });
    client.subscribes("a", AT_LEAST_ONCE);
    shard.bridge(0).forgets();
    shard.bridge(0).pushes(1, "c", &message("a", "push"));
    client.hears(qos1(1, "a", "push"));
    shard.store_holds_closes();
    client.vanishes();
    shard.store_loses_its_data();
    shard.store_answers();
    shard.bridge(0).hears_report(1, Outcome::ConnectionLost);
    shard.clock_advances_ms(10_000);
    assert!(!matches!(shard.bridge(0).may_hear(), Some(Heard::Report(..))));
}

#[test]
fn a_clean_start_here_keeps_nothing() {
    let shard = Shard::new();
    let client = holds_a_push(&shard);
    let second = shard.client();
    second.sends(Connect { clean_start: true, ..resume("c") });
    client.hears_goodbye(CloseReason::SessionTakenOver);
    shard.bridge(0).hears_report(1, Outcome::ConnectionLost);
    shard.bridge(0).hears_nothing();
}

#[test]
fn a_clean_start_elsewhere_keeps_nothing() {
    let shard = Shard::new();
    shard.opened_elsewhere("c", 3_600);
    let message = SharedMessage::new(&Message { publisher: "c", ..message("gone", "alas") });
    shard.store_answers_will(3, WillRecord { message, delay_s: 0, expiry_s: 60 });
    let client = shard.client();
    client.sends(Connect { clean_start: true, ..resume("c") });
    let Heard::Takeover { epoch, .. } = shard.bridge(0).hears() else {
        panic!("the former owner is asked about the will")
    };
    shard.bridge(0).says(&handed_over(&with_a_push(), epoch));
    assert_eq!(shard.bridge(0).hears(), settles(epoch, Outcome::InDoubt));
    client.hears(accepted());
    client.hears_nothing();
}

#[test]
fn a_message_of_a_session_that_has_ended_elsewhere_is_sent_to_others_at_qos_1_alone() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a", EXACTLY_ONCE);
    shard.bridge(0).forgets();
    shard.bridge(0).pushes(1, "c", &message2("a", "x"));
    shard.bridge(0).pushes(2, "c", &message("a", "y"));
    let opened = shard.opened_elsewhere("c", 3_600);
    shard.bridge(0).says(&taken_over("c", opened.epoch));
    assert!(matches!(shard.bridge(0).hears(), Heard::Handover { .. }));
    shard.bridge(0).says(&settled(opened.epoch, Outcome::InDoubt));
    shard.bridge(0).hears_report(1, Outcome::InDoubt);
    shard.bridge(0).hears_report(2, Outcome::ConnectionLost);
}

#[test]
fn a_session_whose_client_left_before_it_came_is_confirmed_once_it_rests() {
    let shard = Shard::new();
    let (client, epoch) = comes_from_elsewhere(&shard);
    client.vanishes();
    shard.store_holds();
    shard.bridge(0).says(&handed_over(&with_a_push(), epoch));
    shard.bridge(0).hears_nothing();
    shard.store_answers();
    assert_eq!(shard.bridge(0).hears(), settles(epoch, Outcome::Kept));
}

#[test]
fn a_session_whose_connection_ends_before_it_is_saved_is_confirmed_once_it_rests() {
    let shard = Shard::new();
    let (client, epoch) = comes_from_elsewhere(&shard);
    shard.store_holds();
    shard.bridge(0).says(&handed_over(&with_a_push(), epoch));
    client.vanishes();
    shard.bridge(0).hears_nothing();
    shard.store_answers();
    assert_eq!(shard.bridge(0).hears(), settles(epoch, Outcome::Kept));
    shard.bridge(0).hears_nothing();
}

/// The next owner asks for the session that came from elsewhere, and is told what the former one knew; gives its epoch.
#[track_caller]
fn goes_on(shard: &Shard, asks: impl FnOnce(Epoch)) -> Epoch {
    let next = shard.opened_elsewhere("c", 3_600).epoch;
    asks(next);
    let Heard::Handover { session, .. } = shard.bridge(0).hears() else { panic!("it is handed on") };
    assert_eq!(SessionRecord::decode(&session).map(|known| known.inflight.len()), Ok(1));
    shard.bridge(0).hears_nothing();
    next
}

/// It asks before the former owner has answered us, under this epoch.
#[track_caller]
fn goes_on_before_it_has_come(shard: &Shard, epoch: Epoch) -> Epoch {
    goes_on(shard, |next| {
        shard.bridge(0).says(&taken_over("c", next));
        shard.bridge(0).hears_nothing();
        shard.bridge(0).says(&handed_over(&with_a_push(), epoch));
    })
}

#[test]
fn a_session_that_goes_on_before_its_client_was_accepted_is_confirmed_to_the_former_owner_too() {
    let shard = Shard::new();
    let (_client, epoch) = comes_from_elsewhere(&shard);
    let next = goes_on_before_it_has_come(&shard, epoch);
    shard.bridge(0).says(&settled(next, Outcome::Kept));
    assert_eq!(shard.bridge(0).hears(), settles(epoch, Outcome::Kept));
}

#[test]
fn a_session_that_goes_on_after_its_client_has_left_is_confirmed_to_the_former_owner_too() {
    let shard = Shard::new();
    let (client, epoch) = comes_from_elsewhere(&shard);
    client.vanishes();
    let next = goes_on_before_it_has_come(&shard, epoch);
    shard.bridge(0).says(&settled(next, Outcome::InDoubt));
    assert_eq!(shard.bridge(0).hears(), settles(epoch, Outcome::InDoubt));
}

#[test]
fn a_session_that_goes_on_before_it_was_saved_is_confirmed_to_the_former_owner_too() {
    let shard = Shard::new();
    let (client, epoch) = comes_from_elsewhere(&shard);
    shard.store_holds();
    shard.bridge(0).says(&handed_over(&with_a_push(), epoch));
    client.hears(resumed());
    client.hears(Publish { dup: true, ..qos1(4, "a", "push") });
    let next = goes_on(&shard, |next| shard.bridge(0).says(&taken_over("c", next)));
    shard.clock_advances_ms(4_999);
    shard.bridge(0).hears_nothing();
    shard.bridge(0).says(&settled(next, Outcome::Kept));
    assert_eq!(shard.bridge(0).hears(), settles(epoch, Outcome::Kept));
}

#[test]
fn what_its_client_acknowledged_before_the_session_went_on_is_confirmed_at_once() {
    let shard = Shard::new();
    let (client, epoch) = comes_from_elsewhere(&shard);
    shard.store_holds();
    shard.bridge(0).says(&handed_over(&with_a_push(), epoch));
    client.hears(resumed());
    client.hears(Publish { dup: true, ..qos1(4, "a", "push") });
    client.acknowledges(4);
    let next = shard.opened_elsewhere("c", 3_600).epoch;
    shard.bridge(0).says(&taken_over("c", next));
    let heard = [shard.bridge(0).hears(), shard.bridge(0).hears()];
    assert!(heard.contains(&settles(epoch, Outcome::Kept)), "{heard:?}");
}

#[test]
fn a_session_that_goes_on_to_one_who_says_nothing_counts_as_lost() {
    let shard = Shard::new();
    let (_client, epoch) = comes_from_elsewhere(&shard);
    goes_on_before_it_has_come(&shard, epoch);
    shard.clock_advances_ms(5_000);
    assert_eq!(shard.bridge(0).hears(), settles(epoch, Outcome::ConnectionLost));
}

#[test]
fn a_session_that_its_client_takes_up_here_once_more_is_confirmed_as_soon_as_it_is_saved() {
    let shard = Shard::new();
    let (first, epoch) = comes_from_elsewhere(&shard);
    first.vanishes();
    shard.store_holds();
    let second = shard.client();
    second.sends(resume("c"));
    shard.bridge(0).says(&handed_over(&with_a_push(), epoch));
    shard.bridge(0).hears_nothing();
    shard.store_answers();
    second.hears(resumed());
    second.hears(Publish { dup: true, ..qos1(4, "a", "push") });
    assert_eq!(shard.bridge(0).hears(), settles(epoch, Outcome::Kept));
}

#[test]
fn a_drain_waits_for_the_word_of_the_next_owner() {
    let shard = Shard::new();
    let client = holds_a_push(&shard);
    let epoch = is_taken_over(&shard, &client);
    shard.input(|engine, now| engine.handle_drain(now, 0));
    assert!(!shard.stage().engine.is_drained());
    shard.bridge(0).says(&settled(epoch, Outcome::Kept));
    assert!(shard.stage().engine.is_drained());
}

#[test]
fn a_push_that_was_saved_and_put_into_the_stream_as_well_comes_once() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a", EXACTLY_ONCE);
    let push = Message { id: 9, publisher: "", ..message2("a", "push") };
    shard.bridge(0).pushes(1, "c", &push);
    client.hears(qos2(1, "a", "push"));
    client.vanishes();
    // Whoever sent it has lost the link, and with it the report.
    assert_eq!(shard.appends(&["@c"], &push).len(), 1);
    assert_eq!(shard.appends(&["@c"], &Message { id: 10, payload: b"next", ..push }).len(), 1);
    let client = shard.client();
    client.sends(resume("c"));
    client.hears(resumed());
    client.hears(Publish { dup: true, ..qos2(1, "a", "push") });
    client.hears(qos2(2, "a", "next"));
    client.hears_nothing();
}
