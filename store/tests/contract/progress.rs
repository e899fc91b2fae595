//! What a session writes down, and what the next owner finds.

use holdfast_store::contract::{NEVER_EXPIRES_S, Progress, Request};
use holdfast_wire::ids::ClientId;
use holdfast_wire::mqtt::{PacketId, QoS};
use holdfast_wire::session_record::{InflightRecord, InflightState};

use crate::world::{ALICE, BOB, Bench, at, device, filter};

fn progress(bench: &Bench) -> Progress {
    Progress {
        cursors: vec![at(filter("a"), 1)],
        received: vec![PacketId::new(7).unwrap(), PacketId::new(3).unwrap()],
        inflight: vec![InflightRecord {
            packet_id: PacketId::new(9).unwrap(),
            state: InflightState::AwaitingPubRec,
            subscription_ids: [1, 2].into(),
            retain: false,
            message: Some(bench.message("a", "2")),
            positions: vec![at(filter("a"), 2)],
        }],
    }
}

pub(crate) fn a_resume_gives_back_what_was_saved(bench: &Bench) {
    let epoch = bench.subscriber("d", "a");
    bench.append(&[filter("a")], "1");
    bench.append(&[filter("a")], "2");
    let progress = progress(bench);
    bench.done(Request::Save { client: ClientId::new("d"), epoch, progress: progress.clone() });
    // Its node dies; another one takes the session up.
    let opened = bench.open("d", BOB, 60);
    assert_eq!(opened.former, Some(ALICE));
    let session = opened.session.unwrap();
    assert_eq!(session.received, progress.received);
    assert_eq!(session.inflight, progress.inflight);
    assert!(session.cursors.contains(&at(filter("a"), 1)));
    assert!(session.cursors.contains(&at(device("d"), 0)));
}

pub(crate) fn cursors_only_move_forward_and_never_beyond_the_end(bench: &Bench) {
    let epoch = bench.subscriber("d", "a");
    for text in ["1", "2", "3"] {
        bench.append(&[filter("a")], text);
    }
    for (to, left) in [(2, vec![3]), (1, vec![3]), (100, vec![])] {
        bench.save("d", epoch, vec![at(filter("a"), to)]);
        assert_eq!(bench.offsets(&filter("a")), left);
    }
    bench.append(&[filter("a")], "4");
    assert_eq!(bench.offsets(&filter("a")), [4]);
}

pub(crate) fn a_cursor_of_a_stream_that_is_not_read_is_passed_over(bench: &Bench) {
    bench.subscriber("reader", "a");
    bench.append(&[filter("a")], "1");
    let other = bench.open("other", ALICE, 60).epoch;
    bench.save("other", other, vec![at(filter("a"), 1), at(device("reader"), 1), at(filter("b"), 1)]);
    assert_eq!(bench.offsets(&filter("a")), [1]);
}

pub(crate) fn a_close_saves_its_progress(bench: &Bench) {
    let epoch = bench.subscriber("d", "a");
    bench.append(&[filter("a")], "1");
    bench.append(&[filter("a")], "2");
    let progress = progress(bench);
    bench.done(Request::Close {
        client: ClientId::new("d"),
        epoch,
        expiry_s: 60,
        progress: progress.clone(),
        will: None,
    });
    let session = bench.open("d", BOB, 60).session.unwrap();
    assert_eq!((session.received, session.inflight), (progress.received, progress.inflight));
    assert_eq!(bench.offsets(&filter("a")), [2]);
}

pub(crate) fn a_lookup_shows_owner_and_subscriptions(bench: &Bench) {
    assert_eq!(bench.lookup("d"), None);
    let epoch = bench.open("d", BOB, 60).epoch;
    bench.subscribe("d", epoch, &[("a", QoS::AtMostOnce), ("b", QoS::ExactlyOnce)]);
    let info = bench.lookup("d").unwrap();
    assert_eq!((info.owner, info.epoch, info.persistent), (Some(BOB), epoch, true));
    assert_eq!(info.subscriptions.len(), 2);
    bench.close("d", epoch, 60);
    assert_eq!(bench.lookup("d").unwrap().owner, None);
}

pub(crate) fn a_lookup_shows_since_when_and_until_when(bench: &Bench) {
    let began = bench.now_ms();
    for expiry_s in [0, 60] {
        bench.open(&format!("for {expiry_s}"), ALICE, expiry_s);
    }
    bench.pass_s(7);
    for expiry_s in [0, 60] {
        let info = bench.lookup(&format!("for {expiry_s}")).unwrap();
        assert_eq!((info.since_ms, info.rests_until_ms), (began, None));
    }
    let again = bench.open("for 60", BOB, 60).epoch;
    assert_eq!(bench.lookup("for 60").unwrap().since_ms, began + 7_000);
    bench.pass_s(3);
    bench.close("for 60", again, 50);
    bench.pass_s(5);
    let info = bench.lookup("for 60").unwrap();
    assert_eq!((info.since_ms, info.rests_until_ms), (began + 10_000, Some(began + 60_000)));
    let again = bench.open("for 60", BOB, NEVER_EXPIRES_S).epoch;
    bench.close("for 60", again, NEVER_EXPIRES_S);
    assert_eq!(bench.lookup("for 60").unwrap().rests_until_ms, Some(u64::MAX));
}

pub(crate) fn a_lookup_counts_what_waits_for_this_client_alone(bench: &Bench) {
    let epoch = bench.subscriber("d", "a");
    assert_eq!(bench.lookup("d").unwrap().pending, 0);
    for text in ["1", "2", "3"] {
        bench.append(&[filter("a"), device("d")], text);
    }
    assert_eq!(bench.lookup("d").unwrap().pending, 3);
    bench.save("d", epoch, vec![at(device("d"), 2)]);
    assert_eq!(bench.lookup("d").unwrap().pending, 1);
    bench.close("d", epoch, 60);
    bench.append(&[device("d")], "4");
    assert_eq!(bench.lookup("d").unwrap().pending, 2);
}
