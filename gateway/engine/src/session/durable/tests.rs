use super::*;

fn live() -> Durable {
    let mut durable = Durable::new("d");
    durable.open_stream(Cursor { stream: StreamKey::Filter("a/#".into()), acked: 4 });
    durable
}

fn read(filter: &str, after: Offset) -> NextRead {
    NextRead { key: StreamKey::Filter(filter.into()), after, is_claim: false }
}

fn device_read(after: Offset) -> NextRead {
    NextRead { key: StreamKey::Device("d".into()), after, is_claim: false }
}

const GROUP: &str = "$share/g/a";

fn claim(after: Offset) -> NextRead {
    NextRead { is_claim: true, ..read(GROUP, after) }
}

fn cursor(filter: &str, acked: Offset) -> Cursor {
    Cursor { stream: StreamKey::Filter(filter.into()), acked }
}

/// Live, with the stream of a group at index 2, from which it has claimed up to 500.
fn member() -> Durable {
    let mut durable = live();
    durable.open_stream(cursor(GROUP, 500));
    assert_eq!(durable.next_read(), None);
    durable.claim_what_waits();
    assert_eq!(durable.next_read(), Some(claim(500)), "something may have waited for it");
    answered(&mut durable, None, 500);
    durable
}

/// The store has answered a claim, and the session has asked nothing again.
fn answered(durable: &mut Durable, last: Option<Offset>, end: Offset) {
    durable.mark_delivered(&last.map_or(vec![], |last| vec![(2, last)]));
    assert!(durable.find_claimed(2, last.is_some(), end));
    durable.phase = Phase::Reading { stream: 3, asked: false };
}

#[test]
fn a_stream_costs_what_it_did() {
    assert!(size_of::<StreamState>() <= 88, "a stream has {} bytes", size_of::<StreamState>());
}

#[test]
fn what_waits_in_a_groups_stream_is_claimed_until_nothing_does() {
    let mut durable = member();
    assert_eq!(durable.next_read(), None);
    assert_eq!(durable.phase, Phase::Live);
    durable.note_waiting(2);
    assert_eq!(durable.next_read(), Some(claim(500)));
    answered(&mut durable, Some(510), 511);
    assert_eq!(durable.next_read(), Some(claim(510)), "the store had more");
    durable.note_waiting(2);
    answered(&mut durable, Some(512), 512);
    assert_eq!(durable.next_read(), Some(claim(512)), "what came meanwhile may not have been seen");
    answered(&mut durable, None, 512);
    assert_eq!(durable.next_read(), None);
    assert_eq!(durable.phase, Phase::Live);
}

#[test]
fn a_group_that_has_more_each_time_keeps_no_other_stream_from_being_read() {
    let mut durable = live();
    durable.streams.swap(0, 1);
    durable.close_stream(&StreamKey::Filter("a/#".into()), None);
    durable.open_stream(cursor(GROUP, 500));
    durable.read_all_again();
    assert_eq!(durable.next_read(), Some(claim(500)));
    let goes_on = |durable: &mut Durable, last| {
        durable.mark_delivered(&[(0, last)]);
        assert!(durable.find_claimed(0, true, last + 1));
        durable.phase = Phase::Reading { stream: 1, asked: false };
    };
    goes_on(&mut durable, 600);
    assert_eq!(durable.next_read(), Some(device_read(0)), "all are asked once");
    durable.find_end(1, 0, None);
    durable.phase = Phase::Reading { stream: 2, asked: false };
    assert_eq!(durable.next_read(), Some(claim(600)));
    goes_on(&mut durable, 700);
    assert_eq!(durable.next_read(), Some(claim(700)));
    assert_eq!(durable.judge_live(&[(1, 1)], 9), Live::Leave);
    goes_on(&mut durable, 800);
    assert_eq!(durable.next_read(), Some(device_read(0)));
}

#[test]
fn a_claim_that_failed_is_made_again_and_one_that_gave_nothing_of_more_not_at_once() {
    let mut durable = member();
    durable.note_waiting(2);
    assert!(durable.next_read().is_some());
    assert!(durable.ask_later(2), "others are read meanwhile");
    assert_eq!((durable.next_read(), durable.phase), (None, Phase::Live));
    durable.claim_again();
    assert_eq!(durable.next_read(), Some(claim(500)));
    assert!(!durable.find_claimed(2, false, 501));
    durable.phase = Phase::Reading { stream: 3, asked: false };
    assert_eq!(durable.next_read(), Some(claim(500)), "nothing was passed over");
}

#[test]
fn a_message_that_was_read_and_comes_live_at_a_later_place_is_left_until_it_is_forgotten() {
    let mut durable = live();
    durable.read_ids.insert(7);
    assert!(durable.begins_to_remember(5_000));
    assert!(!durable.begins_to_remember(6_000), "somebody sees to it already");
    assert_eq!(durable.judge_live(&[(1, 5)], 7), Live::Leave);
    assert_eq!(durable.judge_live(&[(1, 6)], 8), Live::Take, "no gap was left");
    assert_eq!(durable.forget_read(5_000), None);
    assert!(durable.read_ids.is_empty() && !durable.begins_to_remember(9_000));
}

#[test]
fn what_is_read_meanwhile_is_kept_for_its_own_time() {
    let mut durable = live();
    let reads_again = |durable: &mut Durable, id| {
        durable.read_again();
        durable.note_read(id);
    };
    reads_again(&mut durable, 7);
    assert!(durable.next_read().is_none() && durable.begins_to_remember(5_000));
    reads_again(&mut durable, 8);
    assert!(durable.next_read().is_none() && durable.phase == Phase::Live);
    assert!(!durable.begins_to_remember(9_900), "one reminder at a time");
    assert_eq!(durable.forget_read(5_000), Some(9_900));
    reads_again(&mut durable, 9);
    assert_eq!(durable.forget_read(9_900), None);
    assert!(!durable.read_ids.is_empty(), "it reads");
    assert!(durable.next_read().is_none() && durable.begins_to_remember(15_000));
}

#[test]
fn claims_that_find_nothing_do_not_have_it_remember_for_longer() {
    let mut durable = member();
    durable.note_read(7);
    assert!(durable.next_read().is_none() && durable.begins_to_remember(5_000));
    durable.note_waiting(2);
    assert!(durable.next_read().is_some());
    answered(&mut durable, None, 500);
    assert!(durable.next_read().is_none() && !durable.begins_to_remember(9_900));
    assert_eq!(durable.forget_read(5_000), None);
    assert!(durable.read_ids.is_empty());
}

#[test]
fn the_next_message_is_taken_once() {
    let mut durable = live();
    assert_eq!(durable.judge_live(&[(1, 5)], 1), Live::Take);
    durable.mark_delivered(&[(1, 5)]);
    assert_eq!(durable.judge_live(&[(1, 5)], 1), Live::Leave);
    assert_eq!(durable.phase, Phase::Live);
}

#[test]
fn a_gap_is_read_from_the_stream_before_going_on() {
    let mut durable = live();
    assert_eq!(durable.judge_live(&[(1, 6)], 1), Live::Leave);
    assert_eq!(durable.next_read(), Some(read("a/#", 4)));
    assert_eq!(durable.next_read(), None, "one read at a time");
    durable.mark_delivered(&[(1, 6)]);
    durable.phase = Phase::Reading { stream: 1, asked: false };
    assert_eq!(durable.next_read(), None);
    assert_eq!(durable.phase, Phase::Live);
}

#[test]
fn a_message_that_comes_while_another_stream_is_read_is_read_too() {
    let mut durable = live();
    durable.phase = Phase::Reading { stream: 0, asked: false };
    durable.ask_all = true;
    assert!(durable.next_read().is_some());
    durable.ask_all = false;
    assert_eq!(durable.judge_live(&[(0, 1)], 1), Live::Leave);
    durable.phase = Phase::Reading { stream: 2, asked: false };
    assert_eq!(durable.next_read(), Some(device_read(0)));
}

#[test]
fn the_place_of_a_closed_stream_is_used_again_without_its_past() {
    let mut durable = live();
    durable.phase = Phase::Reading { stream: 1, asked: false };
    durable.ask_all = true;
    assert!(durable.next_read().is_some());
    let reads = durable.reads;
    let key = StreamKey::Filter("a/#".into());
    durable.close_stream(&key, None);
    assert_ne!(durable.reads, reads, "the answer to the read that is under way counts no more");
    durable.open_stream(Cursor { stream: key.clone(), acked: 0 });
    assert_eq!((durable.streams.len(), durable.find(&key)), (2, Some(1)));
    assert_eq!(durable.streams[1].delivered, 0);
}

#[test]
fn a_stream_that_is_made_anew_is_read_from_its_beginning_and_what_has_come_of_it_is_not_read_again() {
    // It may have come live before the session was back.
    for had in [4, 1_002] {
        let mut durable = live();
        (durable.streams[1].delivered, durable.streams[1].seen) = (had, had + 3);
        durable.begin_anew(vec![Cursor { stream: StreamKey::Filter("a/#".into()), acked: 1_000 }], None);
        durable.phase = Phase::Reading { stream: 1, asked: false };
        assert_eq!(durable.next_read(), Some(read("a/#", had)));
    }
}

#[test]
fn a_member_that_joins_again_counts_anew_and_one_that_the_store_knows_goes_on() {
    for (answered, stands) in [(9_000, 9_000), (480, 500)] {
        let mut durable = member();
        durable.begin_anew(vec![cursor(GROUP, answered)], None);
        durable.phase = Phase::Reading { stream: 2, asked: false };
        assert_eq!(durable.next_read(), Some(claim(stands)));
    }
}

#[test]
fn an_end_before_what_was_read_says_that_the_store_went_back() {
    let mut durable = live();
    durable.mark_delivered(&[(1, 500)]);
    durable.find_end(1, 490, None);
    assert_eq!(durable.judge_live(&[(1, 491)], 1), Live::Take);
    durable.mark_delivered(&[(1, 500)]);
    durable.streams[1].seen = 510;
    durable.find_end(1, 0, None);
    assert_eq!(durable.next_read(), None, "nobody waits for what a stream had that is no more");
    durable.read_again();
    assert_eq!(durable.judge_live(&[(1, 9_001)], 2), Live::Leave, "made anew, it begins behind that");
    assert_eq!(durable.next_read(), Some(read("a/#", 500)));
}

#[test]
fn a_place_that_was_heard_of_and_is_not_there_is_asked_for_once() {
    // The stream of one that began anew, and that of one which had read on: neither has what a message that was on its way says.
    for (taken, heard_of, end) in [(0, 41, 0), (480, 495, 490), (480, 495, 480)] {
        let mut durable = Durable::new("d");
        durable.streams[0].delivered = taken;
        durable.streams[0].seen = heard_of;
        durable.read_again();
        assert_eq!(durable.next_read(), Some(device_read(taken)));
        durable.mark_delivered(&[(0, end)]);
        assert!(durable.find_end(0, end, None), "all are read once more, for what came meanwhile");
        durable.phase = Phase::Reading { stream: 0, asked: false };
        assert!(durable.next_read().is_some());
        assert!(!durable.find_end(0, end, None));
        durable.phase = Phase::Reading { stream: 1, asked: false };
        assert_eq!(durable.next_read(), None);
        assert_eq!(durable.phase, Phase::Live);
    }
}

#[test]
fn a_place_that_comes_live_again_is_taken_again_and_what_was_queued_of_it_settles_it_no_more() {
    let mut durable = live();
    for place in 5..=9 {
        durable.hear(&[(1, place)], None);
        assert_eq!(durable.judge_live(&[(1, place)], place), Live::Take);
        durable.mark_delivered(&[(1, place)]);
    }
    durable.read_all_again();
    assert!(durable.next_read().is_some());
    let reads = durable.reads;
    durable.hear(&[(1, 8)], None);
    assert_eq!(durable.judge_live(&[(1, 8)], 20), Live::Leave, "it is read");
    durable.phase = Phase::Reading { stream: 1, asked: false };
    assert!(durable.reads >= reads);
    assert_eq!(durable.next_read(), Some(read("a/#", 7)));
}

#[test]
fn a_resume_begins_before_the_first_pending_message() {
    use crate::session::sending::Item;
    use holdfast_wire::message::{Message, SharedMessage};
    use holdfast_wire::mqtt::QoS;
    let mut durable = live();
    durable.mark_delivered(&[(1, 9)]);
    let message = SharedMessage::new(&Message {
        id: 1,
        topic: "a/b",
        qos: QoS::AtLeastOnce,
        retain: false,
        publisher: "",
        published_at_ms: 0,
        expires_at_ms: 0,
        properties: &[],
        payload: &[],
    });
    let mut sending = Sending::default();
    sending.push_pending(Item {
        message,
        qos: QoS::AtLeastOnce,
        retain: false,
        subscription_ids: [].into(),
        report: None,
        positions: [(1, 8)].into(),
    });
    assert_eq!(durable.cursors(Some(&sending))[1].acked, 7);
    assert_eq!(durable.cursors(None)[1].acked, 9);
}
