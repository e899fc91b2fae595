//! What a session writes down, and what the next owner finds.

use holdfast_store::contract::{Progress, Request};
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
